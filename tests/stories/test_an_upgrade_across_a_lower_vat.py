"""An upgrade, and usage, in the summer in which Germany lowered its VAT from 19 to 16 %."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

JULY_15 = "2020-07-15T00:00:00Z"


async def test_an_upgrade_across_a_lower_vat(client: Client, world: World) -> None:
    """§2: each line by its own date: a credit by that of the line it credits. Hard case 14: one tax per rate.

    The period is June 15 to July 15, 30 days in UTC; the new rate holds from July 1.
    """
    life = await Life.begin(client, world, datetime(2020, 6, 15, tzinfo=UTC), company="DE", currency="EUR")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2020, 6, 20, tzinfo=UTC))
    await life.use(quantity=50_001)
    await life.advance(datetime(2020, 6, 30, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2020, 7, 10, tzinfo=UTC))
    await life.do("changePlan", planKey="business", interval="MONTH")
    await life.advance(datetime(2020, 7, 15, 2, tzinfo=UTC))

    start, professional, business, july = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, "2020-06-15T00:00:00Z", JULY_15)]
    assert taxes_of(start) == [("S", 19.0, 4_900, 931)]
    half = ("2020-06-30T00:00:00Z", JULY_15)
    assert lines_of(professional) == [("CREDIT", -1, -2_450, *half), ("PRORATION", 1, 7_450, *half)]
    assert taxes_of(professional) == [("S", 19.0, 5_000, 950)]
    # 5 of 30 days are left: 14,900 ÷ 6 = 2,483.3 at the rate of June 30, 39,900 ÷ 6 = 6,650 at that of July 10.
    sixth = ("2020-07-10T00:00:00Z", JULY_15)
    assert lines_of(business) == [("CREDIT", -1, -2_483, *sixth), ("PRORATION", 1, 6_650, *sixth)]
    assert {(line["kind"], line["taxRate"]) for line in business["lines"]} == {("CREDIT", 19.0), ("PRORATION", 16.0)}
    # 19 % of −2,483 is −471.77.
    assert taxes_of(business) == [("S", 16.0, 6_650, 1_064), ("S", 19.0, -2_483, -472)]
    assert (business["subtotal"], business["tax"], business["total"]) == (4_167, 592, 4_759)
    # The limit just before the close is business' 200,000: the upgrade removed what had accrued under starter.
    assert lines_of(july) == [("SUBSCRIPTION", 1, 39_900, JULY_15, "2020-08-15T00:00:00Z")]
    assert taxes_of(july) == [("S", 16.0, 39_900, 6_384)]
    cash = 5_831 + 5_950 + 4_759 + 46_284
    assert all(invoice["status"] == "PAID" for invoice in (start, professional, business, july))
    assert await life.books() == {
        "CASH": cash,
        "DEFERRED": -39_900,
        "REVENUE": -(4_900 - 2_450 + 7_450 - 2_483 + 6_650),
        "TAX": -(931 + 950 + 592 + 6_384),
    }
    await life.audit(world)
