"""A customer of two jurisdictions, and a levy on overage alone: tax is reckoned on sums, never by the line."""

from datetime import UTC, datetime
from typing import Any

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

ROWS = [
    {"country": "AT", "rate": "10", "validFrom": "2020-01-01", "jurisdiction": "AT"},
    {"country": "AT", "rate": "2.5", "validFrom": "2020-01-01", "jurisdiction": "AT Wien"},
    {"country": "AT", "rate": "5", "validFrom": "2020-01-01", "jurisdiction": "AT levy", "lineKind": "OVERAGE"},
    {"country": "US", "region": "NY", "rate": "4", "validFrom": "2020-01-01"},
]


def by_jurisdiction(document: dict[str, Any]) -> list[tuple[str, str, float, int, int]]:
    """Each tax row with its jurisdiction, in order of it."""
    return sorted(
        (row["jurisdiction"], row["category"], row["rate"], row["taxableAmount"], row["amount"])
        for row in document["taxBreakdown"]
    )


async def test_two_taxes_on_every_line(client: Client, world: World) -> None:
    """Hard case 14: tax per (jurisdiction, category, rate) on the sum of rounded lines; total = net + taxes exactly."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT")
    await life.do("setTaxTable", "taxTable { country }", rows=ROWS)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 4, 11, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    await life.use(quantity=10_001)
    # 15 of 31 days are left.
    await life.advance(datetime(2026, 5, 17, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 6, 1, 2, tzinfo=UTC))

    start, user, close, change, last = await life.invoices()
    april, may, june, july = (f"2026-{month}-01T00:00:00Z" for month in ("04", "05", "06", "07"))
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, april, may)]
    # 1,500 × 20 ÷ 30.
    assert lines_of(user) == [("PRORATION", 1, 1_000, "2026-04-11T00:00:00Z", may)]
    assert lines_of(close) == [
        ("ADD_ON", 1, 1_500, may, june),
        ("OVERAGE", 1, 1_000, april, may),
        ("SUBSCRIPTION", 1, 4_900, may, june),
    ]
    # 4,900 × 15 ÷ 31 = 2,370.97 and 14,900 × 15 ÷ 31 = 7,209.7.
    assert lines_of(change) == [
        ("CREDIT", -1, -2_371, "2026-05-17T00:00:00Z", june),
        ("PRORATION", 1, 7_210, "2026-05-17T00:00:00Z", june),
    ]
    assert lines_of(last) == [("ADD_ON", 1, 1_500, june, july), ("SUBSCRIPTION", 1, 14_900, june, july)]

    # 4,900 × 2.5 % = 122.5, away from zero.
    assert by_jurisdiction(start) == [("AT", "S", 10.0, 4_900, 490), ("AT Wien", "S", 2.5, 4_900, 123)]
    assert by_jurisdiction(user) == [("AT", "S", 10.0, 1_000, 100), ("AT Wien", "S", 2.5, 1_000, 25)]
    # By the line 2.5 % would be 123 + 38 + 25 = 186; on their sum, 7,400, it is 185.
    assert by_jurisdiction(close) == [
        ("AT", "S", 10.0, 7_400, 740),
        ("AT Wien", "S", 2.5, 7_400, 185),
        ("AT levy", "S", 5.0, 1_000, 50),
    ]
    # 483.9 and 120.975.
    assert by_jurisdiction(change) == [("AT", "S", 10.0, 4_839, 484), ("AT Wien", "S", 2.5, 4_839, 121)]
    assert by_jurisdiction(last) == [("AT", "S", 10.0, 16_400, 1_640), ("AT Wien", "S", 2.5, 16_400, 410)]
    for invoice in (start, user, close, change, last):
        assert invoice["subtotal"] == sum(line["amount"] for line in invoice["lines"])
        assert invoice["tax"] == sum(row["amount"] for row in invoice["taxBreakdown"])
        assert invoice["total"] == invoice["subtotal"] + invoice["tax"] == invoice["amountPaid"]
    assert [invoice["total"] for invoice in (start, user, close, change, last)] == [5_513, 1_125, 8_375, 5_444, 18_450]

    assert await life.books() == {
        "CASH": 5_513 + 1_125 + 8_375 + 5_444 + 18_450,
        "DEFERRED": -16_400,
        "REVENUE": -(4_900 + 1_000 + 7_400 + 4_839),
        "TAX": -(613 + 125 + 975 + 605 + 2_050),
    }
    await life.audit(world)


async def test_two_taxes_credited_in_parts(client: Client, world: World) -> None:
    """Hard cases 14, 25: each rate of a line comes back exactly, however the line is cut."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT")
    await life.do("setTaxTable", "taxTable { country }", rows=ROWS)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    (invoice,) = await life.invoices()
    assert by_jurisdiction(invoice) == [("AT", "S", 10.0, 4_900, 490), ("AT Wien", "S", 2.5, 4_900, 123)]
    for amount in (1_633, 1_633, 1_634):
        line = {"lineId": invoice["lines"][0]["id"], "amountMinor": amount}
        await life.do("issueCreditNote", invoiceId=invoice["id"], lines=[line], reason="A late start")
    notes = await life.credit_notes()
    # 10 %: 163.3; 326.6 less 163; 490 less 327. 2.5 %: 40.8; 81.65 less 41; 122.5 less 82.
    assert [by_jurisdiction(note) for note in notes] == [
        [("AT", "S", 10.0, 1_633, 163), ("AT Wien", "S", 2.5, 1_633, 41)],
        [("AT", "S", 10.0, 1_633, 164), ("AT Wien", "S", 2.5, 1_633, 41)],
        [("AT", "S", 10.0, 1_634, 163), ("AT Wien", "S", 2.5, 1_634, 41)],
    ]
    assert [note["total"] for note in notes] == [1_837, 1_838, 1_838]
    assert await life.books() == {"CASH": 5_513, "CUSTOMER_CREDIT": -5_513}
    await life.audit(world)


async def test_a_customer_outside_the_union(client: Client, world: World) -> None:
    """The table has a row for New York, but an issuer in the EU levies nothing on customers elsewhere: O."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="US")
    await life.do("setTaxTable", "taxTable { country }", rows=ROWS)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    (invoice,) = await life.invoices()
    assert lines_of(invoice) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert taxes_of(invoice) == [("O", 0.0, 4_900, 0)]
    assert await life.books() == {"CASH": 4_900, "DEFERRED": -4_900}
    await life.audit(world)
