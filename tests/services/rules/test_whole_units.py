"""What hypothesis found once, and must not come back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.services.rules.money import MAX_MINOR, round_half_away, share_of, split_by, to_decimal
from plafond.services.rules.periods import Period
from plafond.services.rules.proration import prorate
from plafond.services.rules.recognition import recognised_until
from plafond.services.rules.tax import TaxRate, compute_taxes, tax_on

JANUARY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


def test_there_is_one_row_per_jurisdiction_category_and_rate() -> None:
    """§2: tax is computed per (jurisdiction, category, rate); `invoice_tax` is unique by these three."""
    old, new = TaxRate("DE", "E", 0, "Certificate 2025"), TaxRate("DE", "E", 0, "Certificate 2026")
    taxes = compute_taxes([(-1_965, [old]), (6_706, [new])])
    assert [(item.taxable_minor, item.amount_minor) for item in taxes] == [(4_741, 0)]


def test_a_rate_with_and_one_without_a_reason_stand_together() -> None:
    rates = [TaxRate("DE", "E", 0, "Certificate"), TaxRate("DE", "E", 0)]
    taxes = compute_taxes([(100, [rate]) for rate in rates])
    assert sum(item.taxable_minor for item in taxes) == 200


def test_fractions_of_a_second_are_cut_off_the_instant() -> None:
    """§3: 0.5 s after the start all is left."""
    assert prorate(2_678_400, JANUARY, JANUARY.start + timedelta(seconds=0.5)) == 2_678_400


@given(net=st.integers(0, MAX_MINOR), gone=st.integers(0, 2_678_399), fraction=st.integers(0, 999_999))
def test_at_a_change_revenue_ends_at_the_net_less_the_credit(net: int, gone: int, fraction: int) -> None:
    """§8, ledger: at fractions of a second too, within the one unit by which two roundings may differ."""
    instant = JANUARY.start + timedelta(seconds=gone, microseconds=fraction)
    credited = prorate(net, JANUARY, instant)
    assert 0 <= net - credited - recognised_until(net, JANUARY, instant, credited_minor=credited) <= 1


@pytest.mark.parametrize(
    "act",
    [
        lambda: round_half_away(1.5, 2),  # type: ignore[arg-type]
        lambda: share_of(0.1, 1, 3),  # type: ignore[arg-type]
        lambda: split_by(100.0, [1, 1]),  # type: ignore[arg-type]
        lambda: prorate(9_900.0, JANUARY, JANUARY.start),  # type: ignore[arg-type]
        lambda: recognised_until(9_900.0, JANUARY, JANUARY.start),  # type: ignore[arg-type]
        lambda: tax_on(99.0, 200_000),  # type: ignore[arg-type]
        lambda: to_decimal(1.5, "USD"),  # type: ignore[arg-type]
    ],
)
def test_a_float_is_refused(act: Callable[[], object]) -> None:
    with pytest.raises((AssertionError, TypeError)):
        act()
