"""A new zone leaves what runs as it is; the next period starts where that ended, and ends by the new zone."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of


async def test_a_move_by_the_month(client: Client, world: World) -> None:
    """Hard cases 3, 6: a period of 31 days and 16 hours loses and repeats nothing, and is prorated as it is."""
    # 2026-05-31 09:00 in Tokyo.
    life = await Life.begin(client, world, datetime(2026, 5, 31, tzinfo=UTC), timezone="Asia/Tokyo")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 6, 10, tzinfo=UTC))
    await life.do("updateBillingAccount", timezone="America/Los_Angeles")
    subscription = await life.subscription()
    assert subscription["currentPeriodEnd"] == "2026-06-30T00:00:00Z"
    # The instant lies in June 29 of the new zone.
    assert (await life.ask("nextBilling { at date }"))["nextBilling"] == {
        "at": "2026-06-30T00:00:00Z",
        "date": "2026-06-29",
    }
    # 16 days before July 31 09:00 in Los Angeles.
    await life.advance(datetime(2026, 7, 15, 16, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 8, 31, 18, tzinfo=UTC))

    invoices = await life.invoices()
    assert [lines_of(invoice) for invoice in invoices] == [
        [("SUBSCRIPTION", 1, 4_900, "2026-05-31T00:00:00Z", "2026-06-30T00:00:00Z")],
        [("SUBSCRIPTION", 1, 4_900, "2026-06-30T00:00:00Z", "2026-07-31T16:00:00Z")],
        [
            # 1,382,400 s of 2,736,000 s are left: 4,900 × … = 2,475.8 and 14,900 × … = 7,528.4.
            ("CREDIT", -1, -2_476, "2026-07-15T16:00:00Z", "2026-07-31T16:00:00Z"),
            ("PRORATION", 1, 7_528, "2026-07-15T16:00:00Z", "2026-07-31T16:00:00Z"),
        ],
        [("SUBSCRIPTION", 1, 14_900, "2026-07-31T16:00:00Z", "2026-08-31T16:00:00Z")],
        [("SUBSCRIPTION", 1, 14_900, "2026-08-31T16:00:00Z", "2026-09-30T16:00:00Z")],
    ]
    totals = [4_900, 4_900, 5_052, 14_900, 14_900]
    assert [invoice["amountPaid"] for invoice in invoices] == totals
    assert [taxes_of(invoice) for invoice in invoices] == [[("O", 0.0, total, 0)] for total in totals]
    assert await life.books() == {
        "CASH": 4_900 + 4_900 + 5_052 + 14_900 + 14_900,
        "DEFERRED": -14_900,
        "REVENUE": -(4_900 + 4_900 + 5_052 + 14_900),
    }
    await life.audit(world)


async def test_a_move_by_the_year(client: Client, world: World) -> None:
    """Hard cases 3, 6: the usage periods of a running year stay Tokyo's, those of the next are the new zone's."""
    life = await Life.begin(client, world, datetime(2026, 5, 31, tzinfo=UTC), timezone="Asia/Tokyo")
    await life.do("startSubscription", planKey="starter", interval="YEAR")
    await life.advance(datetime(2026, 6, 10, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="dedicated_ip", quantity=1)
    await life.do("updateBillingAccount", timezone="America/Los_Angeles")
    await life.advance(datetime(2026, 7, 31, 0, 0, tzinfo=UTC))
    assert (await life.ask('usage(metrics: ["email_sends"]) { resetsAt }'))["usage"] == [
        {"resetsAt": "2026-08-31T00:00:00Z"}
    ]
    await life.advance(datetime(2027, 5, 31, 2, tzinfo=UTC))

    start, added, *closes, renewal = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 47_000, "2026-05-31T00:00:00Z", "2027-05-31T00:00:00Z")]
    # 20 of 30 days: 5,000 × 20 ÷ 30 = 3,333.3.
    assert lines_of(added) == [("PRORATION", 1, 3_333, "2026-06-10T00:00:00Z", "2026-06-30T00:00:00Z")]
    days = ["2026-06-30", "2026-07-31", "2026-08-31", "2026-09-30", "2026-10-31", "2026-11-30", "2026-12-31"]
    days += ["2027-01-31", "2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"]
    assert [lines_of(invoice) for invoice in closes] == [
        [("ADD_ON", 1, 5_000, f"{days[number]}T00:00:00Z", f"{days[number + 1]}T00:00:00Z")] for number in range(11)
    ]
    assert lines_of(renewal) == [
        ("ADD_ON", 1, 5_000, "2027-05-31T00:00:00Z", "2027-06-30T16:00:00Z"),
        ("SUBSCRIPTION", 1, 47_000, "2027-05-31T00:00:00Z", "2028-05-31T16:00:00Z"),
    ]
    invoices = [start, added, *closes, renewal]
    totals = [47_000, 3_333, *[5_000] * 11, 52_000]
    assert [invoice["amountPaid"] for invoice in invoices] == totals
    assert [taxes_of(invoice) for invoice in invoices] == [[("O", 0.0, total, 0)] for total in totals]
    assert await life.books() == {
        "CASH": 47_000 + 3_333 + 11 * 5_000 + 52_000,
        "DEFERRED": -52_000,
        "REVENUE": -(47_000 + 3_333 + 11 * 5_000),
    }
    await life.audit(world)
