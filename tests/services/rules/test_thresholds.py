"""Thresholds: reaching counts, exactly; percent is cut and never rounded up."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.models import AlertLevel
from plafond.services.rules.thresholds import (
    BUILT_IN,
    is_reached,
    level_of_threshold,
    level_of_usage,
    list_reached,
    percent_of,
)

figures = st.integers(0, 10**12)


@given(threshold=st.integers(1, 1_000), used=figures, limit=st.integers(1, 10**12))
def test_a_threshold_is_reached_at_exactly_its_share(threshold: int, used: int, limit: int) -> None:
    assert is_reached(threshold, used, limit) == (Fraction(used, limit) >= Fraction(threshold, 100))


@given(threshold=st.integers(1, 1_000), limit=st.integers(1, 10**12))
def test_one_below_a_threshold_is_not_reached(threshold: int, limit: int) -> None:
    first = -(-threshold * limit // 100)
    assert is_reached(threshold, first, limit)
    assert not is_reached(threshold, first - 1, limit)


def test_reaching_counts_and_a_jump_reaches_each_ascending() -> None:
    """Hard case 17."""
    assert list_reached(BUILT_IN, 39_500, 50_000) == []
    assert list_reached(BUILT_IN, 50_500, 50_000) == [80, 90, 95, 100]
    assert list_reached([100, 80, 95, 90], 3, 3) == [80, 90, 95, 100]
    assert list_reached(BUILT_IN, 2, 3) == []


@given(threshold=st.integers(1, 1_000), used=figures)
def test_limit_zero_is_reached_by_any_use_and_unlimited_never(threshold: int, used: int) -> None:
    """Hard case 19."""
    assert is_reached(threshold, used, 0) == (used > 0)
    assert not is_reached(threshold, used, None)


@pytest.mark.parametrize(
    ("used", "limit", "level"),
    [
        (79, 100, AlertLevel.OK),
        (80, 100, AlertLevel.WARNING),
        (90, 100, AlertLevel.UPGRADE_SUGGESTION),
        (95, 100, AlertLevel.URGENT),
        (99, 100, AlertLevel.URGENT),
        (100, 100, AlertLevel.LIMIT_REACHED),
        (1_000, 100, AlertLevel.LIMIT_REACHED),
        (0, 0, AlertLevel.OK),
        (1, 0, AlertLevel.LIMIT_REACHED),
        (10**12, None, AlertLevel.OK),
    ],
)
def test_the_level_is_that_of_the_highest_threshold_reached(used: int, limit: int | None, level: AlertLevel) -> None:
    """Hard cases 17 and 19."""
    assert level_of_usage(used, limit) is level


@pytest.mark.parametrize(
    ("threshold", "level"),
    [
        (1, AlertLevel.NOTICE),
        (79, AlertLevel.NOTICE),
        (80, AlertLevel.WARNING),
        (94, AlertLevel.UPGRADE_SUGGESTION),
        (99, AlertLevel.URGENT),
        (1_000, AlertLevel.LIMIT_REACHED),
    ],
)
def test_an_own_threshold_has_the_level_at_or_below_it(threshold: int, level: AlertLevel) -> None:
    assert level_of_threshold(threshold) is level


@pytest.mark.parametrize(
    ("used", "limit", "percent"),
    [
        (23_450, 50_000, 46.9),
        (99_999, 100_000, 99.99),
        (999_999, 1_000_000, 99.99),
        (2, 3, 66.66),
        (5, 3, 166.66),
        (0, 0, 0.0),
        (1, 0, 100.0),
        (7, 0, 100.0),
        (0, None, None),
        (7, None, None),
    ],
)
def test_percent_is_cut_to_two_places(used: int, limit: int | None, percent: float | None) -> None:
    """Hard case 19: limit 0 and unlimited never divide."""
    assert percent_of(used, limit) == percent


@given(used=st.integers(0, 10**9), limit=st.integers(1, 10**9))
def test_percent_is_never_rounded_up(used: int, limit: int) -> None:
    percent = percent_of(used, limit)
    assert percent is not None
    shown, exact = Decimal(repr(percent)), Fraction(100 * used, limit)
    assert Fraction(shown) <= exact < Fraction(shown) + Fraction(1, 100)


@given(used=st.integers(0, 10**9), limit=st.integers(1, 10**9))
def test_percent_says_100_exactly_when_the_limit_is_reached(used: int, limit: int) -> None:
    percent = percent_of(used, limit)
    assert percent is not None
    assert (percent >= 100) == is_reached(100, used, limit)
