"""Periods and buckets: from the anchor, clamped, never chained; half-open; in the account's zone."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from plafond.models import Granularity, Interval
from plafond.services.rules.periods import (
    bucket_start,
    last_buckets,
    month_of,
    months_since,
    period_at,
    period_number,
    to_instant,
    to_wall,
)

NEW_YORK = "America/New_York"
ZONES = [
    "UTC",
    NEW_YORK,
    "America/Los_Angeles",
    "America/St_Johns",  # −3:30
    "America/Santiago",  # skips midnight
    "America/Havana",  # skips midnight, repeats the hour after it
    "Africa/Cairo",  # skips midnight
    "Asia/Kolkata",  # +5:30
    "Asia/Kathmandu",  # +5:45
    "Asia/Tokyo",
    "Australia/Adelaide",  # +9:30 with clock changes
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Auckland",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Vienna",
]
WHOLE_HOUR_CHANGES = [zone for zone in ZONES if zone != "Australia/Lord_Howe"]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def wall(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A wall time: it has no zone."""
    return utc(year, month, day, hour, minute).replace(tzinfo=None)


zones = st.sampled_from(ZONES)
intervals = st.sampled_from(Interval)
anchors = st.datetimes(wall(2019, 1, 1), wall(2029, 12, 31)).map(lambda at: at.replace(microsecond=0))
instants = st.datetimes(wall(2019, 1, 1), wall(2032, 12, 31), timezones=st.just(UTC))


@st.composite
def near_changes(draw: st.DrawFn) -> tuple[datetime, str]:
    """An instant within two days of a clock change, and its zone."""
    zone = draw(st.sampled_from(sorted(set(ZONES) - {"UTC", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo"})))
    year = draw(st.integers(2023, 2030))
    hours = [utc(year, 1, 1) + timedelta(hours=hour) for hour in range(0, 366 * 24, 6)]
    info = ZoneInfo(zone)
    changes = [b for a, b in pairwise(hours) if a.astimezone(info).utcoffset() != b.astimezone(info).utcoffset()]
    assume(changes)
    return draw(st.sampled_from(changes)) + timedelta(seconds=draw(st.integers(-2 * 86_400, 2 * 86_400))), zone


def starts(anchor: datetime, zone: str, count: int, interval: Interval = Interval.MONTH) -> list[datetime]:
    return [period_number(anchor, zone, n, interval).start for n in range(count)]


def test_month_ends_are_clamped_and_never_chained() -> None:
    """Hard case 1."""
    walls = [start.date().isoformat()[5:] for start in starts(wall(2025, 1, 31), "UTC", 13)]
    assert walls == [
        *["01-31", "02-28", "03-31", "04-30", "05-31", "06-30", "07-31", "08-31", "09-30", "10-31", "11-30", "12-31"],
        "01-31",
    ]
    assert starts(wall(2025, 1, 31), "UTC", 13)[-1] == utc(2026, 1, 31)
    assert starts(wall(2024, 1, 31), "UTC", 2)[1] == utc(2024, 2, 29)


def test_a_yearly_anchor_on_february_29_returns_to_it() -> None:
    """Hard case 2."""
    found = starts(wall(2024, 2, 29), "UTC", 5, Interval.YEAR)
    assert found == [utc(2024, 2, 29), utc(2025, 2, 28), utc(2026, 2, 28), utc(2027, 2, 28), utc(2028, 2, 29)]


@given(anchor=anchors, zone=zones, n=st.integers(0, 150), interval=intervals)
def test_periods_meet_exactly_and_are_never_empty(anchor: datetime, zone: str, n: int, interval: Interval) -> None:
    """Hard case 3."""
    period = period_number(anchor, zone, n, interval)
    assert period.end == period_number(anchor, zone, n + 1, interval).start
    assert period.start < period.end


@given(anchor=anchors, zone=zones, instant=instants, interval=intervals)
def test_every_instant_lies_in_the_one_period_that_is_given(
    anchor: datetime, zone: str, instant: datetime, interval: Interval
) -> None:
    """Hard case 3."""
    period = period_at(anchor, zone, instant, interval)
    if instant < to_instant(anchor, zone):
        assert period is None
        return
    assert period is not None
    assert period.start <= instant < period.end
    assert period_at(anchor, zone, period.start, interval) == period
    assert period_at(anchor, zone, period.end - timedelta(microseconds=1), interval) == period
    following = period_at(anchor, zone, period.end, interval)
    assert following is not None
    assert following.start == period.end


@given(place=near_changes(), back=st.integers(1, 30), shift=st.integers(-7_200, 7_200))
def test_anchors_in_a_gap_or_fold_lose_and_repeat_nothing(place: tuple[datetime, str], back: int, shift: int) -> None:
    """Hard case 3, around clock changes: the anchor's wall time falls close to one, and so does the instant."""
    instant, zone = place
    anchor = to_wall(instant + timedelta(seconds=shift), zone)
    anchor = anchor.replace(year=anchor.year - back // 12, day=min(anchor.day, 28))
    period = period_at(anchor, zone, instant)
    if period is None:
        assert instant < to_instant(anchor, zone)
        return
    assert period.start <= instant < period.end
    n = months_since(anchor, zone, instant)
    assert period == period_number(anchor, zone, n)
    assert period_number(anchor, zone, n + 1).start == period.end


@given(anchor=anchors, zone=zones)
def test_the_instant_before_the_anchor_is_in_no_period(anchor: datetime, zone: str) -> None:
    first = to_instant(anchor, zone)
    assert period_at(anchor, zone, first - timedelta(microseconds=1)) is None
    assert period_at(anchor, zone, first) == period_number(anchor, zone, 0)


def test_boundaries_follow_the_accounts_zone() -> None:
    """Hard case 4: New York, March 2026."""
    march = period_number(wall(2026, 3, 1), NEW_YORK, 0)
    assert (march.start, march.end) == (utc(2026, 3, 1, 5), utc(2026, 4, 1, 4))


@pytest.mark.parametrize(("month", "seconds"), [(3, 2_674_800), (11, 2_595_600), (7, 31 * 86_400)])
def test_seconds_are_real_elapsed_seconds(month: int, seconds: int) -> None:
    """Hard case 5."""
    period = period_number(wall(2026, month, 1), NEW_YORK, 0)
    assert (period.end - period.start).total_seconds() == seconds


def test_a_skipped_local_time_is_read_with_the_offset_before_the_change() -> None:
    instant = to_instant(wall(2026, 3, 8, 2, 30), NEW_YORK)
    assert to_wall(instant, NEW_YORK) == wall(2026, 3, 8, 3, 30)


def test_a_repeated_local_time_is_its_first_occurrence() -> None:
    assert to_instant(wall(2026, 11, 1, 1, 30), NEW_YORK) == utc(2026, 11, 1, 5, 30)


def test_an_anchor_in_the_gap_returns_to_its_own_wall_time_afterwards() -> None:
    found = starts(wall(2026, 2, 8, 2, 30), NEW_YORK, 3)
    assert found == [utc(2026, 2, 8, 7, 30), utc(2026, 3, 8, 7, 30), utc(2026, 4, 8, 6, 30)]


@given(instant=instants, zone=zones)
def test_wall_time_is_to_the_second(instant: datetime, zone: str) -> None:
    at = to_wall(instant, zone)
    assert (at.microsecond, at.tzinfo) == (0, None)


@given(instant=instants, zone=zones, granularity=st.sampled_from(Granularity))
def test_a_bucket_starts_at_or_before_its_instant_and_at_its_own_start(
    instant: datetime, zone: str, granularity: Granularity
) -> None:
    start = bucket_start(instant, zone, granularity)
    assert start <= instant
    assert bucket_start(start, zone, granularity) == start
    assert instant - start < {"HOUR": timedelta(minutes=90), "DAY": timedelta(hours=25), "MONTH": timedelta(days=32)}[
        granularity
    ] + timedelta(microseconds=1)


@given(place=near_changes(), granularity=st.sampled_from(Granularity))
def test_a_bucket_holds_its_instant_around_clock_changes(place: tuple[datetime, str], granularity: Granularity) -> None:
    instant, zone = place
    start = bucket_start(instant, zone, granularity)
    assert start <= instant
    assert bucket_start(start, zone, granularity) == start
    if granularity is Granularity.HOUR:
        # Where clocks go back by half an hour, one local hour has ninety minutes.
        assert instant - start < timedelta(minutes=90 if zone == "Australia/Lord_Howe" else 60)


def test_each_of_an_hour_that_occurs_twice_has_a_bucket_of_its_own() -> None:
    first = bucket_start(utc(2026, 11, 1, 5, 30), NEW_YORK, Granularity.HOUR)
    second = bucket_start(utc(2026, 11, 1, 6, 30), NEW_YORK, Granularity.HOUR)
    assert (first, second) == (utc(2026, 11, 1, 5), utc(2026, 11, 1, 6))


def _check_buckets(now: datetime, zone: str, granularity: Granularity, count: int) -> None:
    buckets = last_buckets(now, zone, granularity, count)
    assert len(buckets) == count
    assert buckets[-1].start <= now < buckets[-1].end
    for before, after in pairwise(buckets):
        assert before.end == after.start
    for bucket in buckets:
        assert bucket.start < bucket.end
        assert bucket_start(bucket.start, zone, granularity) == bucket.start
        assert bucket_start(bucket.end - timedelta(microseconds=1), zone, granularity) == bucket.start


@given(now=instants, zone=zones, granularity=st.sampled_from([Granularity.DAY, Granularity.MONTH]))
def test_day_and_month_buckets_meet_and_are_those_of_their_instants(
    now: datetime, zone: str, granularity: Granularity
) -> None:
    _check_buckets(now, zone, granularity, 14)


@given(now=instants, zone=st.sampled_from(WHOLE_HOUR_CHANGES))
def test_hour_buckets_meet_and_are_those_of_their_instants(now: datetime, zone: str) -> None:
    _check_buckets(now, zone, Granularity.HOUR, 30)


@given(place=near_changes(), granularity=st.sampled_from([Granularity.DAY, Granularity.MONTH]))
def test_day_and_month_buckets_meet_around_clock_changes(place: tuple[datetime, str], granularity: Granularity) -> None:
    _check_buckets(*place, granularity, 14)


@given(place=near_changes())
def test_hour_buckets_meet_around_clock_changes(place: tuple[datetime, str]) -> None:
    assume(place[1] != "Australia/Lord_Howe")
    _check_buckets(*place, Granularity.HOUR, 60)


def test_hour_buckets_meet_where_clocks_change_by_half_an_hour() -> None:
    _check_buckets(utc(2026, 4, 5, 3, 10), "Australia/Lord_Howe", Granularity.HOUR, 24)


def test_day_buckets_begin_at_midnight_on_a_day_that_skips_it() -> None:
    """Santiago, 2026-09-06 begins at 01:00; the days before it at 00:00."""
    buckets = last_buckets(utc(2026, 9, 6, 15), "America/Santiago", Granularity.DAY, 3)
    walls = [to_wall(bucket.start, "America/Santiago") for bucket in buckets]
    assert walls == [wall(2026, 9, 4), wall(2026, 9, 5), wall(2026, 9, 6, 1)]


@pytest.mark.parametrize(("day", "hours"), [(8, 23), (9, 24)])
def test_a_day_of_a_clock_change_has_its_real_length(day: int, hours: int) -> None:
    (bucket,) = last_buckets(utc(2026, 3, day, 18), NEW_YORK, Granularity.DAY, 1)
    assert bucket.end - bucket.start == timedelta(hours=hours)


@given(instant=instants, zone=zones)
def test_the_month_is_the_local_one(instant: datetime, zone: str) -> None:
    month = month_of(instant, zone)
    assert (month.year, month.month, month.day) == (*to_wall(instant, zone).timetuple()[:2], 1)
