"""New York over both clock changes of 2026: months are as long as they really last."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

ZONE = "America/New_York"


async def test_new_york_over_both_clock_changes(client: Client, world: World) -> None:
    """Hard cases 4, 5, 8: local midnights, and proration over 2,674,800 s in March, 2,595,600 s in November."""
    life = await Life.begin(client, world, datetime(2026, 3, 1, 5, tzinfo=UTC), timezone=ZONE)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    # Local midnight of the 16th, after the change to summer time.
    await life.advance(datetime(2026, 3, 16, 4, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    # Local midnight of the 16th, after the change to standard time.
    await life.advance(datetime(2026, 11, 16, 5, tzinfo=UTC))
    await life.do("changePlan", planKey="business", interval="MONTH")
    await life.advance(datetime(2026, 12, 1, 6, tzinfo=UTC))

    start, spring, *months, autumn, last = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z")]
    # 31 days less an hour are 2,674,800 s; 16 whole days of them are left, 1,382,400 s:
    # 4,900 × 1,382,400 ÷ 2,674,800 = 2,532.4 and 14,900 × 1,382,400 ÷ 2,674,800 = 7,700.7.
    # (By days it would be 2,529 and 7,690.)
    assert lines_of(spring) == [
        ("CREDIT", -1, -2_532, "2026-03-16T04:00:00Z", "2026-04-01T04:00:00Z"),
        ("PRORATION", 1, 7_701, "2026-03-16T04:00:00Z", "2026-04-01T04:00:00Z"),
    ]
    steps = " ".join(step["expression"] for line in spring["lines"] for step in line["explain"]["steps"])
    digits = steps.replace(",", "").replace("\u202f", "").replace("_", "")
    assert "1382400" in digits
    assert "2674800" in digits
    ends = [f"2026-{month:02d}-01T04:00:00Z" for month in range(4, 12)] + ["2026-12-01T05:00:00Z"]
    assert [lines_of(invoice) for invoice in months] == [
        [("SUBSCRIPTION", 1, 14_900, ends[number], ends[number + 1])] for number in range(8)
    ]
    # 30 days and an hour are 2,595,600 s; 15 whole days are left, 1,296,000 s:
    # 14,900 × 1,296,000 ÷ 2,595,600 = 7,439.7 and 39,900 × 1,296,000 ÷ 2,595,600 = 19,922.3.
    assert lines_of(autumn) == [
        ("CREDIT", -1, -7_440, "2026-11-16T05:00:00Z", "2026-12-01T05:00:00Z"),
        ("PRORATION", 1, 19_922, "2026-11-16T05:00:00Z", "2026-12-01T05:00:00Z"),
    ]
    assert lines_of(last) == [("SUBSCRIPTION", 1, 39_900, "2026-12-01T05:00:00Z", "2027-01-01T05:00:00Z")]
    totals = [4_900, 5_169, *[14_900] * 8, 12_482, 39_900]
    invoices = [start, spring, *months, autumn, last]
    assert [invoice["total"] for invoice in invoices] == totals
    assert [taxes_of(invoice) for invoice in invoices] == [[("O", 0.0, total, 0)] for total in totals]
    assert {invoice["status"] for invoice in invoices} == {"PAID"}
    assert await life.books() == {
        "CASH": 4_900 + 5_169 + 8 * 14_900 + 12_482 + 39_900,
        "DEFERRED": -39_900,
        "REVENUE": -(4_900 + 5_169 + 8 * 14_900 + 12_482),
    }
    await life.audit(world)


async def test_a_start_at_an_hour_that_a_clock_change_skips(client: Client, world: World) -> None:
    """Hard cases 3, 5: 02:30 on March 8 does not exist and reads 03:30; April has 02:30 again."""
    life = await Life.begin(client, world, datetime(2026, 2, 8, 7, 30, tzinfo=UTC), timezone=ZONE)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 3, 8, 7, 29, 59, tzinfo=UTC))
    assert (await life.use(quantity=3))["used"] == 3
    await life.advance(datetime(2026, 3, 8, 7, 30, tzinfo=UTC))
    assert (await life.use(quantity=4))["used"] == 4
    await life.advance(datetime(2026, 4, 8, 8, tzinfo=UTC))
    bounds = ["2026-02-08T07:30:00Z", "2026-03-08T07:30:00Z", "2026-04-08T06:30:00Z", "2026-05-08T06:30:00Z"]
    assert [lines_of(invoice) for invoice in await life.invoices()] == [
        [("SUBSCRIPTION", 1, 4_900, bounds[number], bounds[number + 1])] for number in range(3)
    ]
    assert await life.books() == {"CASH": 3 * 4_900, "DEFERRED": -4_900, "REVENUE": -2 * 4_900}
    await life.audit(world)


async def test_a_start_at_an_hour_that_comes_twice(client: Client, world: World) -> None:
    """Hard cases 3, 5: 01:30 on November 1 comes twice, and the first one counts."""
    life = await Life.begin(client, world, datetime(2026, 10, 1, 5, 30, tzinfo=UTC), timezone=ZONE)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 12, 1, 8, tzinfo=UTC))
    bounds = ["2026-10-01T05:30:00Z", "2026-11-01T05:30:00Z", "2026-12-01T06:30:00Z", "2027-01-01T06:30:00Z"]
    assert [lines_of(invoice) for invoice in await life.invoices()] == [
        [("SUBSCRIPTION", 1, 4_900, bounds[number], bounds[number + 1])] for number in range(3)
    ]
    assert await life.books() == {"CASH": 3 * 4_900, "DEFERRED": -4_900, "REVENUE": -2 * 4_900}
    await life.audit(world)
