"""Four years from February 29: the 28th in common years, and the 29th again in the next leap year."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of


async def test_an_anchor_on_a_leap_day(client: Client, world: World) -> None:
    """Hard cases 2, 3: 2024-02-29 → 2025-02-28 … 2028-02-29, and months that go back to the 29th each time."""
    life = await Life.begin(client, world, datetime(2024, 2, 29, 12, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="YEAR")
    # 15 of 29 days are left.
    await life.advance(datetime(2024, 3, 14, 12, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="dedicated_ip", quantity=1)
    await life.advance(datetime(2024, 3, 29, 14, tzinfo=UTC))
    # 29 of the year's 365 days are earned: 47,000 × 29 ÷ 365 = 3,734.2; and the add-on's 2,586.
    assert await life.books() == {
        "CASH": 47_000 + 2_586 + 5_000,
        "DEFERRED": -(47_000 - 3_734 + 5_000),
        "REVENUE": -(3_734 + 2_586),
    }
    await life.advance(datetime(2026, 2, 28, 14, tzinfo=UTC))
    await life.advance(datetime(2028, 2, 28, 14, tzinfo=UTC))
    assert (await life.subscription())["currentPeriodEnd"] == "2028-02-29T12:00:00Z"
    await life.advance(datetime(2028, 2, 29, 14, tzinfo=UTC))

    start, added, *closes = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 47_000, "2024-02-29T12:00:00Z", "2025-02-28T12:00:00Z")]
    # 5,000 × 15 ÷ 29 = 2,586.2.
    assert lines_of(added) == [("PRORATION", 1, 2_586, "2024-03-14T12:00:00Z", "2024-03-29T12:00:00Z")]
    months = [(2_024 + number // 12, number % 12 + 1) for number in range(2, 51)]
    days = [28 if month == 2 and year not in (2024, 2028) else 29 for year, month in months]
    bounds = [f"{year}-{month:02d}-{day}T12:00:00Z" for (year, month), day in zip(months, days, strict=True)]
    assert (bounds[0], bounds[11], bounds[12], bounds[-2]) == (
        "2024-03-29T12:00:00Z",
        "2025-02-28T12:00:00Z",
        "2025-03-29T12:00:00Z",
        "2028-02-29T12:00:00Z",
    )
    years = {
        "2025-02-28T12:00:00Z": "2026-02-28T12:00:00Z",
        "2026-02-28T12:00:00Z": "2027-02-28T12:00:00Z",
        "2027-02-28T12:00:00Z": "2028-02-29T12:00:00Z",
        "2028-02-29T12:00:00Z": "2029-02-28T12:00:00Z",
    }
    assert len(closes) == 48
    for number, close in enumerate(closes):
        begins, ends = bounds[number], bounds[number + 1]
        expected = [("ADD_ON", 1, 5_000, begins, ends)]
        if begins in years:
            expected.append(("SUBSCRIPTION", 1, 47_000, begins, years[begins]))
        assert lines_of(close) == expected
        total = 52_000 if begins in years else 5_000
        assert (taxes_of(close), close["amountPaid"]) == ([("O", 0.0, total, 0)], total)
    assert await life.books() == {
        "CASH": 47_000 + 2_586 + 48 * 5_000 + 4 * 47_000,
        "DEFERRED": -(47_000 + 5_000),
        "REVENUE": -(4 * 47_000 + 2_586 + 47 * 5_000),
    }
    await life.audit(world)
