"""Recognition: revenue by elapsed seconds, cumulative, up to the line's net less its credits."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.models import Interval
from plafond.services.rules.money import MAX_MINOR
from plafond.services.rules.periods import Period, period_number
from plafond.services.rules.proration import prorate
from plafond.services.rules.recognition import recognised_until

DAY = 86_400
nets = st.integers(0, MAX_MINOR)


def day(year: int, month: int, at: int = 1) -> datetime:
    return datetime(year, month, at, tzinfo=UTC)


YEAR_2026 = Period(day(2026, 1), day(2027, 1))


@st.composite
def periods(draw: st.DrawFn) -> Period:
    """A period of whole seconds, up to a leap year."""
    start = draw(st.integers(0, 13 * 365 * DAY).map(lambda seconds: day(2019, 1) + timedelta(seconds=seconds)))
    return Period(start, start + timedelta(seconds=draw(st.integers(1, 366 * DAY))))


@st.composite
def lines(draw: st.DrawFn) -> tuple[int, int, Period]:
    """A line's net, how much of it is credited, and its period."""
    net = draw(nets)
    return net, draw(st.integers(0, net)), draw(periods())


def seconds_of(period: Period) -> int:
    return (period.end - period.start) // timedelta(seconds=1)


@st.composite
def running(draw: st.DrawFn) -> tuple[Period, datetime]:
    """A period, and an instant in it to the second."""
    period = draw(periods())
    return period, period.start + timedelta(seconds=draw(st.integers(0, seconds_of(period))))


def test_an_annual_line_after_january() -> None:
    """The example of §8: annual 470.00 from 2026-01-01 UTC: after January revenue 39.92, deferred 430.08."""
    revenue = recognised_until(47_000, YEAR_2026, day(2026, 2))
    assert (revenue, 47_000 - revenue) == (3_992, 43_008)


def test_an_annual_line_month_by_month() -> None:
    """Each close books what the cumulative sum grew by; the twelve come to the whole line."""
    closes = [day(2026, month) for month in range(2, 13)] + [day(2027, 1)]
    revenue = [0, *(recognised_until(47_000, YEAR_2026, close) for close in closes)]
    booked = [after - before for before, after in pairwise(revenue)]
    assert booked[:3] == [3_992, 3_605, 3_992]
    assert sum(booked) == 47_000


def test_the_end_is_outside_of_the_period() -> None:
    """Half-open: one second before it something is still deferred."""
    seconds = seconds_of(YEAR_2026)
    assert recognised_until(seconds, YEAR_2026, YEAR_2026.end - timedelta(seconds=1)) == seconds - 1
    assert recognised_until(seconds, YEAR_2026, YEAR_2026.end) == seconds


@pytest.mark.parametrize(
    ("instant", "revenue"),
    [(day(2025, 12, 31), 0), (day(2026, 1), 0), (day(2026, 7, 2), 499), (day(2027, 1), 600), (day(2028, 1), 600)],
)
def test_a_credited_line_stops_at_its_net_less_its_credits(instant: datetime, revenue: int) -> None:
    """1000 for a year, 400 of it credited: 182 of 365 days are 499 (498.6), and it ends at 600."""
    assert recognised_until(1_000, YEAR_2026, instant, credited_minor=400) == revenue


def test_a_line_that_is_credited_whole_brings_nothing() -> None:
    assert recognised_until(1_000, YEAR_2026, day(2026, 12), credited_minor=1_000) == 0


def test_case_05_seconds_are_real_ones() -> None:
    """Hard case 5: New York's March 2026 lasts 2,674,800 seconds, an hour less than 31 days."""
    march = period_number(datetime(2026, 3, 1), "America/New_York", 0)  # noqa: DTZ001  # a wall time
    assert recognised_until(2_674_800, march, march.start + timedelta(days=30)) == 30 * DAY


@given(line=lines(), offset=st.integers(-400 * DAY, 800 * DAY), later=st.integers(0, 800 * DAY))
def test_revenue_never_falls(line: tuple[int, int, Period], offset: int, later: int) -> None:
    net, credited, period = line
    instant = period.start + timedelta(seconds=offset)
    before = recognised_until(net, period, instant, credited_minor=credited)
    after = recognised_until(net, period, instant + timedelta(seconds=later), credited_minor=credited)
    assert 0 <= before <= after <= net - credited


@given(line=lines(), later=st.integers(0, 800 * DAY))
def test_revenue_begins_at_nothing_and_ends_at_the_net_less_the_credits(
    line: tuple[int, int, Period], later: int
) -> None:
    net, credited, period = line
    away = timedelta(seconds=later)
    assert recognised_until(net, period, period.start - away, credited_minor=credited) == 0
    assert recognised_until(net, period, period.end + away, credited_minor=credited) == net - credited


@given(net=nets, place=running())
def test_revenue_is_the_exact_share_rounded_once(net: int, place: tuple[Period, datetime]) -> None:
    """Hard case 13, and §8: net × seconds elapsed / seconds of the line."""
    period, instant = place
    exact = Fraction(net * ((instant - period.start) // timedelta(seconds=1)), seconds_of(period))
    revenue = recognised_until(net, period, instant)
    assert abs(revenue - exact) <= Fraction(1, 2)
    assert abs(revenue - exact) < Fraction(1, 2) or revenue > exact


@given(net=nets, place=running())
def test_at_a_change_revenue_ends_at_the_net_less_the_prorated_credit(net: int, place: tuple[Period, datetime]) -> None:
    """§8: nothing is left to recognise of a line whose unused part was credited, and nothing was recognised too much
    but the one unit by which both halves of a tie were rounded up."""
    period, instant = place
    credited = prorate(net, period, instant)
    assert recognised_until(net, period, instant, credited_minor=credited) == net - credited
    assert recognised_until(net, period, instant) - (net - credited) in (0, 1)


@given(line=lines(), more=st.integers(0, MAX_MINOR), offset=st.integers(-DAY, 400 * DAY))
def test_a_further_credit_never_brings_revenue(line: tuple[int, int, Period], more: int, offset: int) -> None:
    net, credited, period = line
    instant = period.start + timedelta(seconds=offset)
    further = min(net, credited + more)
    assert recognised_until(net, period, instant, credited_minor=further) <= recognised_until(
        net, period, instant, credited_minor=credited
    )


@given(
    net=nets,
    credited=st.integers(0, MAX_MINOR),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Tokyo", "Europe/Vienna", "Australia/Lord_Howe"]),
    anchor=st.datetimes(datetime(2019, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001  # wall times
)
def test_what_the_twelve_closes_of_a_year_book_is_the_line(
    net: int, credited: int, zone: str, anchor: datetime
) -> None:
    anchor, credited = anchor.replace(microsecond=0), min(credited, net)
    year = period_number(anchor, zone, 0, Interval.YEAR)
    closes = [period_number(anchor, zone, n).end for n in range(12)]
    revenue = [0, *(recognised_until(net, year, close, credited_minor=credited) for close in closes)]
    booked = [after - before for before, after in pairwise(revenue)]
    assert all(amount >= 0 for amount in booked)
    assert sum(booked) == net - credited


@given(net=nets, place=running(), fraction=st.integers(0, 999_999))
def test_fractions_of_a_second_are_cut_off(net: int, place: tuple[Period, datetime], fraction: int) -> None:
    period, instant = place
    later = min(instant + timedelta(microseconds=fraction), period.end)
    assert recognised_until(net, period, later) == recognised_until(net, period, instant)
