"""A life in the first zone of the world, UTC+14, where the last day of a month is the day before in UTC."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of


async def test_a_life_on_kiritimati(client: Client, world: World) -> None:
    """Hard cases 1, 3, 4, 8: January 31 there is January 30 in UTC, and February 28 there February 27."""
    # 2026-01-31 10:00 on the island.
    life = await Life.begin(
        client, world, datetime(2026, 1, 30, 20, tzinfo=UTC), timezone="Pacific/Kiritimati", company="AT"
    )
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    coming = (await life.ask("nextBilling { at date kind amount { amountMinor } }"))["nextBilling"]
    assert coming == {"at": "2026-02-27T20:00:00Z", "date": "2026-02-28", "kind": "RENEWAL", "amount": 5_880}

    # The last second of the first period, and the first of the second one: half-open.
    await life.advance(datetime(2026, 2, 27, 19, 59, 59, tzinfo=UTC))
    assert (await life.use(quantity=10_001))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 2, 27, 20, 0, 0, tzinfo=UTC))
    assert (await life.use(quantity=10_000))["status"] == "ACCEPTED"
    assert await life.figure() == (10_000, 10_000)

    # 2026-03-15 10:00 there: 16 of the 31 days to March 31 10:00 are left.
    await life.advance(datetime(2026, 3, 14, 20, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 3, 30, 22, tzinfo=UTC))

    first, second, change, third = await life.invoices()
    assert lines_of(first) == [("SUBSCRIPTION", 1, 4_900, "2026-01-30T20:00:00Z", "2026-02-27T20:00:00Z")]
    assert lines_of(second) == [
        # 10,001 − 10,000 is one started block of 10,000.
        ("OVERAGE", 1, 1_000, "2026-01-30T20:00:00Z", "2026-02-27T20:00:00Z"),
        ("SUBSCRIPTION", 1, 4_900, "2026-02-27T20:00:00Z", "2026-03-30T20:00:00Z"),
    ]
    assert lines_of(change) == [
        # 4,900 × 16 ÷ 31 = 2,529.03 and 14,900 × 16 ÷ 31 = 7,690.32.
        ("CREDIT", -1, -2_529, "2026-03-14T20:00:00Z", "2026-03-30T20:00:00Z"),
        ("PRORATION", 1, 7_690, "2026-03-14T20:00:00Z", "2026-03-30T20:00:00Z"),
    ]
    # March 31 and April 30 there: all the 10,000 emails of March were within the limit.
    assert lines_of(third) == [("SUBSCRIPTION", 1, 14_900, "2026-03-30T20:00:00Z", "2026-04-29T20:00:00Z")]

    assert taxes_of(first) == [("S", 20.0, 4_900, 980)]
    assert taxes_of(second) == [("S", 20.0, 5_900, 1_180)]
    # 5,161 × 20 % = 1,032.2.
    assert taxes_of(change) == [("S", 20.0, 5_161, 1_032)]
    assert taxes_of(third) == [("S", 20.0, 14_900, 2_980)]
    assert [invoice["total"] for invoice in (first, second, change, third)] == [5_880, 7_080, 6_193, 17_880]
    assert [invoice["amountPaid"] for invoice in (first, second, change, third)] == [5_880, 7_080, 6_193, 17_880]
    assert [invoice["issuedAt"] for invoice in (first, second, change, third)] == [
        "2026-01-30T20:00:00Z",
        "2026-02-27T21:00:00Z",
        "2026-03-14T20:00:00Z",
        "2026-03-30T21:00:00Z",
    ]
    subscription = next(line for line in second["lines"] if line["kind"] == "SUBSCRIPTION")
    credit = next(line for line in change["lines"] if line["kind"] == "CREDIT")
    assert credit["creditedLine"]["id"] == subscription["id"]

    assert await life.books() == {
        "CASH": 5_880 + 7_080 + 6_193 + 17_880,
        "DEFERRED": -14_900,
        "REVENUE": -(4_900 + 5_900 + 5_161),
        "TAX": -(980 + 1_180 + 1_032 + 2_980),
    }
    await life.audit(world)
