"""A year by the month from January 31: every period clamped and none chained, every line, the books."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life


async def test_a_year_from_january_31(client: Client, world: World) -> None:
    """Hard case 1: 2025-01-31 → 02-28, 03-31, 04-30, …; the 13th invoice begins on 2026-01-31."""
    life = await Life.begin(client, world, datetime(2025, 1, 31, 10, 30, tzinfo=UTC), company="AT")
    started = await life.do(
        "startSubscription", "subscription { status } invoice { number } ", planKey="starter", interval="MONTH"
    )
    assert started["subscription"]["status"] == "ACTIVE"
    await life.advance(datetime(2026, 1, 31, 12, 0, tzinfo=UTC))
    invoices = await life.invoices()
    days = ["01-31", "02-28", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30", "10-31", "11-30", "12-31"]
    starts = [f"2025-{day}T10:30:00Z" for day in days] + ["2026-01-31T10:30:00Z"]
    assert [invoice["lines"][0]["period"]["start"] for invoice in invoices] == starts
    for invoice, following in zip(invoices, [*starts[1:], "2026-02-28T10:30:00Z"], strict=True):
        (line,) = invoice["lines"]
        assert (line["kind"], line["amount"], line["period"]["end"]) == ("SUBSCRIPTION", 4_900, following)
        assert line["explain"]["result"] == 4_900
        (tax,) = invoice["taxBreakdown"]
        assert (tax["category"], tax["rate"], tax["taxableAmount"], tax["amount"]) == ("S", 20.0, 4_900, 980)
        assert (invoice["status"], invoice["total"], invoice["amountPaid"]) == ("PAID", 5_880, 5_880)
    numbers = [invoice["number"].rpartition("-")[2] for invoice in invoices]
    assert numbers == [f"{number:06d}" for number in range(1, 14)]
    # The start's invoice was finalised at once, the others an hour after their period closed.
    assert invoices[0]["issuedAt"] == "2025-01-31T10:30:00Z"
    assert invoices[1]["issuedAt"] == "2025-02-28T11:30:00Z"
    # Twelve months are earned; the thirteenth has just begun.
    assert await life.books() == {
        "CASH": 13 * 5_880,
        "DEFERRED": -4_900,
        "REVENUE": -12 * 4_900,
        "TAX": -13 * 980,
    }
