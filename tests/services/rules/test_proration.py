"""Proration: to the second, on UTC instants, over the whole period; each line rounded once."""

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.services.rules.money import MAX_MINOR
from plafond.services.rules.periods import Period, period_number
from plafond.services.rules.proration import prorate, seconds_between

DAY = 86_400
prices = st.integers(0, MAX_MINOR)


def day(year: int, month: int, at: int = 1) -> datetime:
    return datetime(year, month, at, tzinfo=UTC)


MARCH = Period(day(2026, 3), day(2026, 4))


@st.composite
def joined(draw: st.DrawFn) -> tuple[Period, datetime]:
    """A period of whole seconds, and an instant within it to the second (its start and its end too)."""
    start = draw(st.datetimes(day(2019, 1).replace(tzinfo=None), day(2032, 1).replace(tzinfo=None)))
    begins = start.replace(microsecond=0, tzinfo=UTC)
    seconds = draw(st.integers(1, 366 * DAY))
    gone = draw(st.one_of(st.integers(0, seconds), st.sampled_from([0, seconds, seconds // 2])))
    return Period(begins, begins + timedelta(seconds=seconds)), begins + timedelta(seconds=gone)


def exact_rest(price_minor: int, period: Period, instant: datetime) -> Fraction:
    """The rest of a price, unrounded, reckoned in microseconds."""
    unit = timedelta(microseconds=1)
    return Fraction(price_minor * ((period.end - instant) // unit), (period.end - period.start) // unit)


def test_case_08_rounds_each_line() -> None:
    """Hard case 8: 2900 to 9900 with 21 of 31 days left."""
    instant = day(2026, 3, 11)
    credit, charge = prorate(-2_900, MARCH, instant), prorate(9_900, MARCH, instant)
    assert (credit, charge, credit + charge) == (-1_965, 6_706, 4_741)


def test_case_08_the_net_is_not_what_is_rounded() -> None:
    """Hard case 8: half of 1 and half of 2 are both 1, so nothing is due; half of their difference would be 1."""
    instant = MARCH.start + (MARCH.end - MARCH.start) // 2
    assert prorate(-1, MARCH, instant) + prorate(2, MARCH, instant) == 0
    assert prorate(2 - 1, MARCH, instant) == 1


def test_starter_to_professional_half_way() -> None:
    """The example of §3: −24.50 + 74.50 = 50.00."""
    instant = MARCH.start + (MARCH.end - MARCH.start) // 2
    lines = [prorate(-4_900, MARCH, instant), prorate(14_900, MARCH, instant)]
    assert (lines, sum(lines)) == ([-2_450, 7_450], 5_000)


def test_case_07_the_denominator_is_the_whole_period() -> None:
    """Hard case 7: three months from 04-01 to 06-30, joined on 05-20: 42 of 91 days, not 42 of 42."""
    quarter = Period(day(2026, 4), day(2026, 7))
    assert seconds_between(quarter.start, quarter.end) == 91 * DAY
    assert prorate(9_100, quarter, day(2026, 5, 20)) == 4_200


def test_case_12_yen_have_no_fractions() -> None:
    """Hard case 12: ¥1000 with 19 of 31 days left is ¥613."""
    assert prorate(1_000, MARCH, day(2026, 3, 13)) == 613


@pytest.mark.parametrize(("month", "seconds"), [(3, 2_674_800), (11, 2_595_600)])
def test_case_05_a_month_with_a_clock_change_counts_as_it_lasted(month: int, seconds: int) -> None:
    """Hard case 5: a price of one unit per second says how many there are, and how many are left an hour before."""
    period = period_number(datetime(2026, month, 1), "America/New_York", 0)  # noqa: DTZ001  # a wall time
    assert seconds_between(period.start, period.end) == seconds
    assert prorate(seconds, period, period.end - timedelta(hours=1)) == 3_600
    assert prorate(seconds, period, period.start + timedelta(seconds=1)) == seconds - 1


def test_a_leap_year_has_a_day_more() -> None:
    """A year's price of one unit per day: after January 335 are left in 2028, and 334 in 2027."""
    assert prorate(366, Period(day(2028, 1), day(2029, 1)), day(2028, 2)) == 335
    assert prorate(365, Period(day(2027, 1), day(2028, 1)), day(2027, 2)) == 334


def test_a_half_unit_goes_away_from_zero_on_both_lines() -> None:
    """Hard case 13."""
    instant = MARCH.start + (MARCH.end - MARCH.start) // 2
    assert (prorate(5, MARCH, instant), prorate(-5, MARCH, instant)) == (3, -3)


@given(price=prices, place=joined())
def test_a_line_is_the_exact_rest_rounded_once(price: int, place: tuple[Period, datetime]) -> None:
    """Hard cases 7 and 13."""
    exact, line = exact_rest(price, *place), prorate(price, *place)
    assert abs(line - exact) <= Fraction(1, 2)
    assert line == exact or abs(line - exact) < Fraction(1, 2) or line > exact


@given(price=prices, place=joined())
def test_a_credit_is_the_charge_with_the_sign_turned(price: int, place: tuple[Period, datetime]) -> None:
    """So a change to the same price costs nothing."""
    assert prorate(-price, *place) == -prorate(price, *place)
    assert 0 <= prorate(price, *place) <= price


@given(old=prices, rise=st.integers(0, MAX_MINOR), place=joined())
def test_case_08_credit_and_charge_are_within_a_unit_of_the_difference(
    old: int, rise: int, place: tuple[Period, datetime]
) -> None:
    """Hard case 8: two roundings, so at most one unit off the difference's own rest; a dearer plan never pays out."""
    net = prorate(-old, *place) + prorate(old + rise, *place)
    assert abs(net - exact_rest(rise, *place)) <= 1
    assert net >= 0


@given(price=prices, period=joined().map(lambda place: place[0]))
def test_the_whole_period_costs_the_price_and_its_end_nothing(price: int, period: Period) -> None:
    assert prorate(price, period, period.start) == price
    assert prorate(price, period, period.end) == 0


@given(price=prices, period=joined().map(lambda place: place[0]), outside=st.integers(0, 10**8))
def test_outside_the_period_there_is_all_or_nothing_left(price: int, period: Period, outside: int) -> None:
    assert prorate(price, period, period.start - timedelta(seconds=outside)) == price
    assert prorate(price, period, period.end + timedelta(seconds=outside)) == 0


@given(price=prices, place=joined(), later=st.integers(0, 400 * DAY))
def test_later_leaves_no_more(price: int, place: tuple[Period, datetime], later: int) -> None:
    period, instant = place
    assert prorate(price, period, instant + timedelta(seconds=later)) <= prorate(price, period, instant)


@given(place=joined())
def test_one_unit_per_second_is_the_seconds_left(place: tuple[Period, datetime]) -> None:
    period, instant = place
    whole = seconds_between(period.start, period.end)
    assert prorate(whole, period, instant) == seconds_between(instant, period.end)
    assert seconds_between(period.start, instant) + seconds_between(instant, period.end) == whole


@given(place=joined(), fraction=st.integers(0, 999_999))
def test_fractions_of_a_second_are_cut_off(place: tuple[Period, datetime], fraction: int) -> None:
    period, instant = place
    elapsed = seconds_between(period.start, instant)
    assert seconds_between(period.start, instant + timedelta(microseconds=fraction)) == elapsed


@given(place=joined())
def test_no_span_is_negative(place: tuple[Period, datetime]) -> None:
    period, instant = place
    assert seconds_between(period.end, instant) == seconds_between(instant, period.start) == 0


@given(price=prices, place=joined(), hours=st.integers(-14, 14))
def test_the_zone_that_an_instant_is_written_in_makes_no_difference(
    price: int, place: tuple[Period, datetime], hours: int
) -> None:
    period, instant = place
    assert prorate(price, period, instant.astimezone(timezone(timedelta(hours=hours)))) == prorate(price, *place)
