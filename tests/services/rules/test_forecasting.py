"""Forecasts: true to what is used, on its scale, exact where nothing varies, and in ranges that hold what comes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.forecast import score, try_forecasts
from bench.series import KINDS
from plafond.services.rules.forecasting import (
    DAYS_FOR_PATTERN,
    DAYS_FOR_TRUST,
    HIGHEST,
    Forecast,
    Piece,
    find_first,
    forecast_figure,
    list_pieces,
)

START = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = [100, 100, 100, 100, 100, 20, 10]


def days_ahead(count: int) -> tuple[Piece, ...]:
    return list_pieces(START, START + timedelta(days=count), "UTC")


def forecast(days: list[int], ahead: int, used: int = 0, *, can_fall: bool = False) -> Forecast:
    found = forecast_figure(days, days_ahead(ahead), used, can_fall=can_fall)
    assert found is not None
    return found


histories = st.lists(st.integers(0, 10_000), min_size=1, max_size=60)
steps = st.lists(st.integers(-20, 20), min_size=1, max_size=60)


@settings(max_examples=60)
@given(days=histories, ahead=st.integers(1, 31), used=st.integers(0, 10**6))
def test_the_ranges_lie_in_each_other_and_nothing_that_is_used_goes_away(
    days: list[int], ahead: int, used: int
) -> None:
    found = forecast(days, ahead, used)
    assert used <= found.low <= found.low50 <= found.value <= found.high50 <= found.high
    assert {type(figure) for figure in (found.value, found.low, found.low50, found.high50, found.high)} == {int}
    assert 0 <= found.confidence <= 1
    assert found.based_on_days == len(days)


@settings(max_examples=30)
@given(days=steps, ahead=st.integers(1, 31), used=st.integers(0, 1_000))
def test_a_gauge_may_fall_but_not_below_nothing(days: list[int], ahead: int, used: int) -> None:
    found = forecast(days, ahead, used, can_fall=True)
    assert 0 <= found.low <= found.low50 <= found.value <= found.high50 <= found.high


@settings(max_examples=40)
@given(days=histories, ahead=st.integers(1, 31), used=st.integers(0, 10**6))
def test_a_thousand_times_as_much_is_forecast_as_a_thousand_times_as_much(
    days: list[int], ahead: int, used: int
) -> None:
    times = 1_024  # a power of two, so that floats scale without rounding
    small, large = forecast(days, ahead, used), forecast([day * times for day in days], ahead, used * times)
    for name in ("low", "low50", "value", "high50", "high"):
        assert abs(getattr(large, name) - times * getattr(small, name)) <= times // 2, name


@pytest.mark.parametrize("history", [14, 30, 60, 180])
@pytest.mark.parametrize("daily", [0, 1, 7, 12_345])
def test_a_series_that_never_varies_goes_on_exactly(history: int, daily: int) -> None:
    found = forecast([daily] * history, 20, used=10 * daily)
    assert (found.low, found.low50, found.value, found.high50, found.high) == (30 * daily,) * 5
    assert found.confidence == round(min(1, history / DAYS_FOR_TRUST), 2)


@pytest.mark.parametrize("weeks", [3, 5, 20])
def test_weekdays_go_on_exactly_too(weeks: int) -> None:
    found = forecast((WEEK * weeks)[:-3], 10)  # a Friday is next
    assert found.value == found.low == found.high == 100 + 20 + 10 + sum(WEEK)


def test_a_trend_goes_on() -> None:
    days = [100 + 2 * day for day in range(90)]
    came = sum(100 + 2 * day for day in range(90, 120))
    found = forecast(days, 30)
    assert abs(found.value - came) < came // 20
    assert found.low <= came <= found.high


def test_with_no_whole_day_nothing_is_said() -> None:
    assert forecast_figure([], days_ahead(10), 500) is None


def test_at_the_end_of_the_period_nothing_is_said() -> None:
    assert forecast_figure([1] * 30, (), 500) is None


@pytest.mark.parametrize("count", [1, 3, DAYS_FOR_PATTERN - 1])
def test_few_days_give_a_wide_range_and_little_trust(count: int) -> None:
    few, many = forecast([50] * count, 20), forecast([50] * DAYS_FOR_TRUST, 20)
    assert few.high - few.low > few.value // 2
    assert few.confidence < 0.5 <= many.confidence
    assert few.value == many.value == 1_000


def test_what_varies_more_has_a_wider_range_and_less_trust() -> None:
    calm = forecast([95, 105] * 30, 20)
    wild = forecast([10, 190] * 30, 20)
    assert wild.high - wild.low > 2 * (calm.high - calm.low)
    assert wild.confidence < calm.confidence


def test_no_figure_passes_what_can_be_said() -> None:
    assert forecast([10**15] * 20, 31, 2**53 - 5).high == HIGHEST


# -- when --


def test_the_figure_moves_evenly_within_a_day() -> None:
    found = forecast([24] * 30, 5, used=100)
    assert found.expect_at(START) == 100
    assert found.expect_at(START + timedelta(hours=5)) == 105
    assert found.expect_at(START + timedelta(days=5)) == 220 == found.value


@settings(max_examples=40)
@given(days=histories, ahead=st.integers(1, 31), part=st.integers(1, 100))
def test_a_target_is_reached_when_the_figure_first_stands_there(days: list[int], ahead: int, part: int) -> None:
    found = forecast(days, ahead)
    target = max(1, found.value * part // 80)
    at = find_first(lambda instant: found.expect_at(instant) >= target, found.pieces)
    assert (at is not None) == (found.value >= target)
    if at is not None:
        assert START <= at <= found.pieces[-1].end
        assert found.expect_at(min(at + timedelta(minutes=1), found.pieces[-1].end)) >= target
        assert at - START < timedelta(minutes=2) or found.expect_at(at - timedelta(minutes=2)) < target


def test_the_days_of_a_zone_are_cut_to_the_period() -> None:
    # New York sets its clocks forward on 8 March 2026: that day has 23 hours.
    now, end = datetime(2026, 3, 7, 17, 0, tzinfo=UTC), datetime(2026, 3, 9, 16, 0, tzinfo=UTC)
    pieces = list_pieces(now, end, "America/New_York")
    assert [(piece.start.hour, piece.end.hour) for piece in pieces] == [(17, 5), (5, 4), (4, 16)]
    assert [piece.share for piece in pieces] == [0.5, 1.0, 0.5]
    assert list_pieces(end, end, "America/New_York") == ()


# -- measured --


def test_the_ranges_are_calibrated_and_simple_forecasts_are_worse() -> None:
    """A part of what `make bench ARGS=forecast` measures, on other seeds."""
    found = score([outcome for kind in KINDS for outcome in try_forecasts(kind, range(4))])
    assert found.errors[0] < 0.8 * min(found.errors[1:])
    assert 0.85 <= found.within_90 <= 0.95
    assert 0.4 <= found.within_50 <= 0.65


def test_with_little_data_the_range_still_holds() -> None:
    for history_days in (3, 10, 28):
        found = score([outcome for kind in KINDS for outcome in try_forecasts(kind, range(2), history_days)])
        assert found.within_90 >= 0.85, history_days
