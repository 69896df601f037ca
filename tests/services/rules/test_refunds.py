"""Amounts with tax in them, split over lines and rates: parts that come to the whole return its tax exactly."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.services.rules.periods import Period
from plafond.services.rules.refunds import OpenLine, open_gross, share_of_time, split_gross, spread
from plafond.services.rules.tax import TaxRate, tax_on

APRIL = Period(datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC))
VAT = TaxRate("AT", "S", 200_000)
GST, PST = TaxRate("CA", "S", 50_000), TaxRate("CA-BC", "S", 70_000)
NONE = TaxRate("US", "O", 0, "No tax is registered for this country")
TAXES = [(VAT,), (GST, PST), (GST,), (NONE,)]

Nets = list[tuple[int, tuple[TaxRate, ...]]]


class Invoice:
    """An invoice that is credited step by step."""

    def __init__(self, nets: Nets) -> None:
        self.nets = nets
        self.rests = [net for net, _ in nets]
        self.tax: dict[TaxRate, int] = {}

    def lines(self) -> dict[int, OpenLine]:
        return {place: OpenLine(net, self.rests[place], taxes, APRIL) for place, (net, taxes) in enumerate(self.nets)}

    def left(self) -> int:
        return sum(open_gross(self.lines(), self.tax).values())

    def credit(self, amount_minor: int) -> None:
        lines = self.lines()
        gross = spread(amount_minor, open_gross(lines, self.tax))
        nets, taxes = split_gross(gross, lines, self.tax)
        assert sum(nets.values()) + sum(tax.amount_minor for tax in taxes) == amount_minor
        for place, net in nets.items():
            assert 0 < net <= self.rests[place]
            self.rests[place] -= net
        for tax in taxes:
            assert tax.amount_minor >= 0
            assert tax.taxable_minor == sum(net for place, net in nets.items() if tax.rate in self.nets[place][1])
            self.tax[tax.rate] = self.tax.get(tax.rate, 0) + tax.amount_minor


@given(
    st.lists(st.tuples(st.integers(1, 200_000), st.sampled_from(TAXES)), min_size=1, max_size=4),
    st.lists(st.integers(1, 100_000), max_size=5),
)
def test_parts_return_the_whole(nets: Nets, parts: list[int]) -> None:
    invoice = Invoice(nets)
    for part in parts:
        if left := invoice.left():
            invoice.credit(min(part, left))
    if left := invoice.left():
        invoice.credit(left)
    assert invoice.rests == [0] * len(nets)
    for rate in {rate for _, taxes in nets for rate in taxes}:
        assert invoice.tax.get(rate, 0) == tax_on(sum(net for net, taxes in nets if rate in taxes), rate.rate_ppm)


def test_hard_case_25_thirty_three_twice_and_thirty_four() -> None:
    """83 net and 17 tax: 5.5 → 6, 11 − 6, 17 − 11."""
    invoice = Invoice([(83, (VAT,))])
    told = []
    for part in (33, 33, 34):
        before = invoice.tax.get(VAT, 0)
        invoice.credit(part)
        told.append(invoice.tax[VAT] - before)
    assert told == [6, 5, 6]
    assert invoice.rests == [0]


def test_several_lines_share_by_what_is_open() -> None:
    """100 over lines of 60 and 120 gross: largest remainder, each with its own tax."""
    invoice = Invoice([(50, (VAT,)), (100, (VAT,))])
    gross = spread(100, open_gross(invoice.lines(), {}))
    assert gross == {0: 33, 1: 67}
    invoice.credit(100)
    assert (invoice.rests, invoice.tax[VAT]) == ([23, 44], 17)


@pytest.mark.parametrize(
    ("days", "expected"),
    [((0, 30), 5_880), ((9, 12), 588), ((-5, 1), 196), ((29, 60), 196), ((30, 31), 0), ((-9, 0), 0)],
)
def test_a_share_of_time(days: tuple[int, int], expected: int) -> None:
    """Of 58.80 for April's thirty days, what lies within both, half-open."""
    start, end = (APRIL.start + timedelta(days=day) for day in days)
    assert share_of_time(5_880, APRIL, Period(start, end)) == expected
