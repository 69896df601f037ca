"""Starter to Professional half-way, a new version of Professional in between, and on to Business."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

PROFESSIONAL = [
    {"metricKey": "email_sends", "limit": 40_000},
    {"metricKey": "team_members", "limit": 4},
    {"metricKey": "workspaces", "limit": 8},
    {"metricKey": "custom_domains", "limit": 10},
]


async def test_an_upgrade_half_way_and_a_new_version(client: Client, world: World) -> None:
    """§3's example: −24.50 + 74.50 = 50.00. Hard case 9's end: a new version changes nothing that runs."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 4, 10, tzinfo=UTC))
    assert (await life.use(quantity=25_000))["status"] == "ACCEPTED"

    # On April 16 half of 30 days is left. The quote says what the change then charges.
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    quoted = await life.do(
        "quotePlanChange",
        "quote { id effectiveAt expiresAt lines { kind amount { amountMinor } creditedInvoiceNumber } "
        "taxBreakdown { category rate taxableAmount { amountMinor } amount { amountMinor } } "
        "dueNow { amountMinor } creditApplied { amountMinor } removedAddOns { key } blockedBy { used } }",
        planKey="professional",
        interval="MONTH",
    )
    quote = quoted["quote"]
    (first,) = await life.invoices()
    assert sorted((line["kind"], line["amount"], line["creditedInvoiceNumber"]) for line in quote["lines"]) == [
        ("CREDIT", -2_450, first["number"]),
        ("PRORATION", 7_450, None),
    ]
    assert taxes_of(quote) == [("S", 20.0, 5_000, 1_000)]
    assert (quote["dueNow"], quote["creditApplied"]) == (6_000, 0)
    assert (quote["removedAddOns"], quote["blockedBy"]) == ([], [])
    assert (quote["effectiveAt"], quote["expiresAt"]) == ("2026-04-16T00:00:00Z", "2026-04-16T00:30:00Z")
    await life.do("changePlan", quoteId=quote["id"])
    _, upgrade = await life.invoices()
    half = ("2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")
    assert lines_of(upgrade) == [("CREDIT", -1, -2_450, *half), ("PRORATION", 1, 7_450, *half)]
    (credit,) = (line for line in upgrade["lines"] if line["kind"] == "CREDIT")
    assert credit["creditedLine"]["id"] == first["lines"][0]["id"]
    assert taxes_of(upgrade) == [("S", 20.0, 5_000, 1_000)]
    assert (upgrade["subtotal"], upgrade["tax"], upgrade["total"]) == (5_000, 1_000, 6_000)
    assert (upgrade["kind"], upgrade["status"], upgrade["amountPaid"]) == ("CHANGE", "PAID", 6_000)
    assert upgrade["issuedAt"] == "2026-04-16T00:00:00Z"
    assert await life.credit_notes() == []
    # Starter is over: its 24.50 are earned. The period, and what was used in it, go on under the new limit.
    assert await life.books() == {"CASH": 11_880, "DEFERRED": -7_450, "REVENUE": -2_450, "TAX": -1_980}
    assert await life.figure() == (25_000, 50_000)
    standing = await life.subscription()
    assert standing["currentPeriodStart"] == "2026-04-01T00:00:00Z"
    assert standing["currentPeriodEnd"] == "2026-05-01T00:00:00Z"

    # A new version at another price, with other limits: what runs keeps what it was sold.
    published = await life.do(
        "publishPlan",
        "plan { key version }",
        key="professional",
        name="Professional",
        tier=2,
        limits=PROFESSIONAL,
        prices=[{"interval": "MONTH", "currency": "USD", "amountMinor": 19_900}],
    )
    assert published["plan"] == {"key": "professional", "version": 2}
    assert await life.figure() == (25_000, 50_000)
    assert (await life.subscription())["amount"] == 14_900
    assert len(await life.invoices()) == 2
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))
    _, _, may = await life.invoices()
    assert lines_of(may) == [("SUBSCRIPTION", 1, 14_900, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z")]
    assert taxes_of(may) == [("S", 20.0, 14_900, 2_980)]
    assert may["total"] == 17_880
    assert await life.figure() == (0, 50_000)

    # May has 31 days: at noon of the 16th half is left. The credit is at the price that was sold.
    await life.advance(datetime(2026, 5, 16, 12, tzinfo=UTC))
    await life.do("changePlan", planKey="business", interval="MONTH")
    business = (await life.invoices())[3]
    half = ("2026-05-16T12:00:00Z", "2026-06-01T00:00:00Z")
    assert lines_of(business) == [("CREDIT", -1, -7_450, *half), ("PRORATION", 1, 19_950, *half)]
    assert taxes_of(business) == [("S", 20.0, 12_500, 2_500)]
    assert (business["total"], business["status"]) == (15_000, "PAID")
    assert await life.books() == {
        "CASH": 11_880 + 17_880 + 15_000,
        "DEFERRED": -19_950,
        "REVENUE": -(2_450 + 7_450 + 7_450),
        "TAX": -(1_980 + 2_980 + 2_500),
    }
    await life.advance(datetime(2026, 6, 1, 2, tzinfo=UTC))
    june = (await life.invoices())[4]
    assert lines_of(june) == [("SUBSCRIPTION", 1, 39_900, "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z")]
    assert taxes_of(june) == [("S", 20.0, 39_900, 7_980)]
    assert await life.books() == {
        "CASH": 11_880 + 17_880 + 15_000 + 47_880,
        "DEFERRED": -39_900,
        "REVENUE": -(2_450 + 7_450 + 7_450 + 19_950),
        "TAX": -(1_980 + 2_980 + 2_500 + 7_980),
    }
    await life.audit(world)
