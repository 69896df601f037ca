"""Money without decimals and money with three: by ISO 4217, rounded half away from zero to the minor unit."""

from datetime import UTC, datetime
from typing import Any

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

DOCUMENTS = "invoices(first: 10) { nodes { total { amount currency formatted } eInvoice { url } } }"


def limits(emails: int) -> list[dict[str, Any]]:
    """What a negotiated plan includes."""
    return [
        {"metricKey": "email_sends", "limit": emails},
        {"metricKey": "team_members", "limit": 5},
        {"metricKey": "workspaces", "limit": 5},
        {"metricKey": "custom_domains", "limit": 5},
    ]


async def test_a_life_in_yen(client: Client, world: World) -> None:
    """Hard cases 8, 12, 13: ¥1000 × 19 ÷ 31 is ¥613; no amount has decimals."""
    # 2026-03-01 in Tokyo; a German consumer, so that there is tax to round.
    life = await Life.begin(
        client, world, datetime(2026, 2, 28, 15, tzinfo=UTC), currency="JPY", timezone="Asia/Tokyo", company="DE"
    )
    await life.do(
        "publishPlan",
        "plan { key }",
        key="petite",
        name="Petite",
        tier=1,
        limits=limits(10),
        prices=[{"interval": "MONTH", "currency": "JPY", "amountMinor": 1_000}],
        privateToAccountId=life.account_id,
    )
    await life.do("startSubscription", planKey="petite", interval="MONTH")
    # 19 of 31 days are left.
    await life.advance(datetime(2026, 3, 12, 15, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    # 10 of 31 days are left.
    await life.advance(datetime(2026, 3, 21, 15, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="extra_emails", quantity=1)
    await life.do("setAddOn", addOnKey="additional_user", quantity=2)
    assert (await life.use(quantity=60_001))["limit"] == 60_000
    await life.advance(datetime(2026, 3, 31, 17, tzinfo=UTC))

    start, change, emails, users, close = await life.invoices()
    month_end = "2026-03-31T15:00:00Z"
    assert lines_of(start) == [("SUBSCRIPTION", 1, 1_000, "2026-02-28T15:00:00Z", month_end)]
    assert lines_of(change) == [
        # 1,000 × 19 ÷ 31 = 612.9 and 22,400 × 19 ÷ 31 = 13,729.03.
        ("CREDIT", -1, -613, "2026-03-12T15:00:00Z", month_end),
        ("PRORATION", 1, 13_729, "2026-03-12T15:00:00Z", month_end),
    ]
    # A block of a counter is charged whole; 2 × 2,250 × 10 ÷ 31 = 1,451.6.
    assert lines_of(emails) == [("ADD_ON", 1, 1_500, "2026-03-21T15:00:00Z", month_end)]
    assert lines_of(users) == [("PRORATION", 1, 1_452, "2026-03-21T15:00:00Z", month_end)]
    assert lines_of(close) == [
        ("ADD_ON", 1, 1_500, month_end, "2026-04-30T15:00:00Z"),
        ("ADD_ON", 2, 4_500, month_end, "2026-04-30T15:00:00Z"),
        ("OVERAGE", 1, 1_500, "2026-02-28T15:00:00Z", month_end),
        ("SUBSCRIPTION", 1, 22_400, month_end, "2026-04-30T15:00:00Z"),
    ]
    # 19 %: 190 · 13,116 × 19 % = 2,492.04 · 285 · 275.88 · 29,900 × 19 % = 5,681.
    assert taxes_of(start) == [("S", 19.0, 1_000, 190)]
    assert taxes_of(change) == [("S", 19.0, 13_116, 2_492)]
    assert taxes_of(emails) == [("S", 19.0, 1_500, 285)]
    assert taxes_of(users) == [("S", 19.0, 1_452, 276)]
    assert taxes_of(close) == [("S", 19.0, 29_900, 5_681)]
    totals = [1_190, 15_608, 1_785, 1_728, 35_581]
    assert [invoice["amountPaid"] for invoice in (start, change, emails, users, close)] == totals
    documents = (await life.ask(DOCUMENTS))["invoices"]["nodes"]
    assert [node["total"]["amount"] for node in documents] == ["35581", "1728", "1785", "15608", "1190"]
    assert {node["total"]["currency"] for node in documents} == {"JPY"}
    assert all("." not in node["total"]["formatted"] for node in documents)
    assert all(node["eInvoice"] for node in documents)
    assert await life.books() == {
        "CASH": 1_190 + 15_608 + 1_785 + 1_728 + 35_581,
        "DEFERRED": -(22_400 + 1_500 + 4_500),
        "REVENUE": -(1_000 + 13_116 + 1_500 + 1_452 + 1_500),
        "TAX": -(190 + 2_492 + 285 + 276 + 5_681),
    }
    await life.audit(world)


async def test_a_life_in_kuwaiti_dinars(client: Client, world: World) -> None:
    """Hard cases 8, 12, 13: 1.2345 KWD is 1.235, on a negotiated plan; what has no price in dinars is not sold."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), currency="KWD", company="DE")
    for key, tier, price in (("pearl", 1, 2_469), ("dhow", 2, 12_345)):
        await life.do(
            "publishPlan",
            "plan { key }",
            key=key,
            name=key.title(),
            tier=tier,
            limits=limits(100),
            prices=[{"interval": "MONTH", "currency": "KWD", "amountMinor": price}],
            privateToAccountId=life.account_id,
        )
    assert (await life.ask("plansAvailable { key }"))["plansAvailable"] == [{"key": "pearl"}, {"key": "dhow"}]
    assert await life.refused("startSubscription", planKey="starter", interval="MONTH") == ["PRICE_NOT_AVAILABLE"]
    assert await life.refused("startSubscription", planKey="pearl", interval="YEAR") == ["PRICE_NOT_AVAILABLE"]
    other = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), currency="KWD", name="other")
    assert (await other.ask("plansAvailable { key }"))["plansAvailable"] == []
    await other.refused("startSubscription", planKey="pearl", interval="MONTH")

    await life.do("startSubscription", planKey="pearl", interval="MONTH")
    assert await life.refused("setAddOn", addOnKey="extra_emails", quantity=1) == ["PRICE_NOT_AVAILABLE"]
    # No overage is priced in dinars: what would pass the limit is refused.
    assert (await life.use(quantity=100))["status"] == "ACCEPTED"
    refused = await life.use(quantity=1)
    assert (refused["status"], refused["code"]) == ("REJECTED", "LIMIT_EXCEEDED")
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    await life.do("changePlan", planKey="dhow", interval="MONTH")
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))

    start, change, close = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 2_469, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    # Half of 2,469 is 1,234.5, half of 12,345 is 6,172.5: both go away from zero.
    assert lines_of(change) == [
        ("CREDIT", -1, -1_235, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("PRORATION", 1, 6_173, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z"),
    ]
    assert lines_of(close) == [("SUBSCRIPTION", 1, 12_345, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z")]
    # 19 %: 469.11 · 938.22 · 2,345.55.
    assert taxes_of(start) == [("S", 19.0, 2_469, 469)]
    assert taxes_of(change) == [("S", 19.0, 4_938, 938)]
    assert taxes_of(close) == [("S", 19.0, 12_345, 2_346)]
    documents = (await life.ask(DOCUMENTS))["invoices"]["nodes"]
    assert [node["total"]["amount"] for node in documents] == ["14.691", "5.876", "2.938"]
    assert [node["eInvoice"] for node in documents] == [None, None, None]
    assert await life.books() == {
        "CASH": 2_938 + 5_876 + 14_691,
        "DEFERRED": -12_345,
        "REVENUE": -(2_469 + 4_938),
        "TAX": -(469 + 938 + 2_346),
    }
    await life.audit(world)
