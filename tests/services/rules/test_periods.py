"""Periods and buckets: from the anchor, clamped, never chained; half-open; in the account's zone."""

from bisect import bisect_right
from calendar import isleap, monthrange
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from plafond.models import Granularity, Interval
from plafond.services.rules.periods import (
    Period,
    bucket_end,
    bucket_start,
    buckets_between,
    last_buckets,
    month_of,
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


def offset_at(instant: datetime, zone: str) -> timedelta:
    offset = instant.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset


@cache
def changes_of(zone: str) -> list[tuple[datetime, timedelta, timedelta]]:
    """The clock changes of a zone from 2019 to 2036, to the second, and the offsets before and after."""
    weeks = [utc(2019, 1, 1) + timedelta(weeks=week) for week in range(18 * 52)]  # no two changes are that close
    found = []
    for early, late in pairwise(weeks):
        before, after = offset_at(early, zone), offset_at(late, zone)
        while before != after and late - early > timedelta(seconds=1):
            middle = early + (late - early) // timedelta(seconds=2) * timedelta(seconds=1)
            early, late = (middle, late) if offset_at(middle, zone) == before else (early, middle)  # noqa: PLW2901
        if before != after:
            found.append((late, before, after))
    return found


@st.composite
def near_changes(draw: st.DrawFn) -> tuple[datetime, str]:
    """An instant within two days of a clock change, and its zone."""
    zone = draw(st.sampled_from([zone for zone in ZONES if changes_of(zone)]))
    change, _, _ = draw(st.sampled_from(changes_of(zone)))
    return change + timedelta(seconds=draw(st.integers(-2 * 86_400, 2 * 86_400))), zone


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
    n = next(n for n in count() if period_number(anchor, zone, n).end > instant)
    assert period_number(anchor, zone, n) == period
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


def _check_range(start: datetime, zone: str, granularity: Granularity, days: int, cut: int) -> None:
    end = start + timedelta(days=days)
    middle = start + (end - start) * cut / 100
    whole = buckets_between(start, end, zone, granularity)
    # Each bucket that begins in a range is in it, so ranges that meet hold each once.
    assert buckets_between(start, middle, zone, granularity) + buckets_between(middle, end, zone, granularity) == whole
    for bucket in whole:
        assert start <= bucket.start < end
        assert bucket.start < bucket.end
        assert bucket_start(bucket.end - timedelta(microseconds=1), zone, granularity) == bucket.start
        assert bucket_end(bucket.end - timedelta(microseconds=1), zone, granularity) == bucket.end
    for before, after in pairwise(whole):
        assert before.end == after.start
    if whole:
        assert bucket_start(whole[0].start - timedelta(microseconds=1), zone, granularity) < start
        assert whole[-1].end >= end


@given(
    start=instants,
    zone=zones,
    granularity=st.sampled_from([Granularity.DAY, Granularity.MONTH]),
    days=st.integers(1, 70),
    cut=st.integers(0, 100),
)
def test_ranges_hold_the_buckets_that_begin_in_them(
    start: datetime, zone: str, granularity: Granularity, days: int, cut: int
) -> None:
    _check_range(start, zone, granularity, days, cut)


@given(start=instants, zone=st.sampled_from(WHOLE_HOUR_CHANGES), cut=st.integers(0, 100))
def test_ranges_hold_the_hours_that_begin_in_them(start: datetime, zone: str, cut: int) -> None:
    _check_range(start, zone, Granularity.HOUR, 2, cut)


@given(place=near_changes(), granularity=st.sampled_from(Granularity), cut=st.integers(0, 100))
def test_ranges_around_clock_changes(place: tuple[datetime, str], granularity: Granularity, cut: int) -> None:
    assume(place[1] != "Australia/Lord_Howe" or granularity is not Granularity.HOUR)
    _check_range(place[0] - timedelta(days=1), place[1], granularity, 2, cut)


@pytest.mark.parametrize("day", [utc(2026, 4, 4), utc(2026, 10, 3)])
def test_ranges_where_clocks_change_by_half_an_hour(day: datetime) -> None:
    _check_range(day, "Australia/Lord_Howe", Granularity.HOUR, 2, 50)


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


# -- against another reckoning: offsets of the zone, read once, and the calendar --

MORE_ZONES = [
    *ZONES,
    "Africa/Casablanca",  # goes back for Ramadan
    "Europe/Dublin",  # winter is the exception
    "Pacific/Chatham",  # +12:45
    "Pacific/Apia",  # skipped a day in 2011
    "Asia/Gaza",
    "Antarctica/Troll",  # changes by two hours
]


def read_wall(at: datetime, zone: str) -> datetime:
    """The instant of a wall time by the words of §3: the first that shows it, else by the offset before the change."""
    naive = at.replace(tzinfo=UTC)
    before, after = (offset_at(naive + timedelta(days=days), zone) for days in (-2, 2))
    shown = [naive - offset for offset in (before, after) if offset_at(naive - offset, zone) == offset]
    return min(shown, default=naive - before)


def add_months(at: datetime, months: int) -> datetime:
    """Clamped to the month's last day, by the calendar."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, monthrange(year, month + 1)[1]))


@st.composite
def walls_at_changes(draw: st.DrawFn) -> tuple[datetime, str]:
    """A wall time that a change of clocks skips or repeats, or the second just before or after, and its zone."""
    zone = draw(st.sampled_from([zone for zone in MORE_ZONES if changes_of(zone)]))
    change, before, after = draw(st.sampled_from(changes_of(zone)))
    first, last = sorted([change + before, change + after])
    length = (last - first) // timedelta(seconds=1)
    inside = draw(st.one_of(st.integers(-1, length), st.sampled_from([-1, 0, length // 2, length - 1, length])))
    return (first + timedelta(seconds=inside)).replace(tzinfo=None), zone


@given(place=walls_at_changes())
def test_a_wall_time_at_a_change_is_read_by_the_rule(place: tuple[datetime, str]) -> None:
    """§3: skipped: by the offset before the change; repeated: the first."""
    at, zone = place
    instant = to_instant(at, zone)
    assert instant == read_wall(at, zone)
    skipped = to_wall(instant, zone) - at
    assert skipped in {timedelta(0)} | {abs(after - before) for _, before, after in changes_of(zone)}


@given(place=walls_at_changes(), months=st.integers(0, 60))
def test_case_03_periods_meet_where_their_border_is_skipped_or_repeated(
    place: tuple[datetime, str], months: int
) -> None:
    """Hard case 3: an anchor whose n-th return falls into a gap or a fold."""
    at, zone = place
    anchor = add_months(at, -months)
    assume(anchor.day == at.day)
    ending, starting = (period_number(anchor, zone, n) for n in (max(months - 1, 0), months))
    assert starting.start == read_wall(at, zone)
    assert starting.start == (ending.end if months else ending.start)
    assert period_at(anchor, zone, starting.start) == starting
    if months:
        assert period_at(anchor, zone, starting.start - timedelta(microseconds=1)) == ending
    assert starting.end == read_wall(add_months(anchor, months + 1), zone)


@given(anchor=anchors, zone=st.sampled_from(sorted(available_timezones())), n=st.integers(0, 120), interval=intervals)
def test_case_01_every_period_is_counted_from_the_anchor_in_every_zone(
    anchor: datetime, zone: str, n: int, interval: Interval
) -> None:
    """Hard cases 1, 2 and 4: all zones that there are."""
    months = 12 if interval is Interval.YEAR else 1
    found = period_number(anchor, zone, n, interval)
    assert found.start == read_wall(add_months(anchor, n * months), zone)
    assert found.end == read_wall(add_months(anchor, (n + 1) * months), zone)


@given(anchor=anchors.map(lambda at: at.replace(month=1, day=31)), n=st.integers(0, 200))
def test_case_01_the_31st_is_each_months_last_day(anchor: datetime, n: int) -> None:
    """Hard case 1: one clamped month leaves no trace in the next."""
    start = period_number(anchor, "UTC", n).start
    assert start.day == monthrange(start.year, start.month)[1]
    assert start.time() == anchor.time()


@given(year=st.sampled_from([2020, 2024, 2028]), zone=zones, n=st.integers(0, 80))
def test_case_02_a_leap_day_is_kept_in_leap_years_only(year: int, zone: str, n: int) -> None:
    """Hard case 2: 2100 is none."""
    at = to_wall(period_number(wall(year, 2, 29, 12), zone, n, Interval.YEAR).start, zone)
    assert (at.year, at.month, at.day) == (year + n, 2, 29 if isleap(year + n) else 28)


def test_case_02_the_months_of_a_leap_day() -> None:
    """Hard case 2, monthly: from the 29th, clamped where February has 28 days."""
    days = [start.day for start in starts(wall(2024, 2, 29), "UTC", 49)]
    assert [n for n, day in enumerate(days) if day == 28] == [12, 24, 36]
    assert {day for n, day in enumerate(days) if n not in (12, 24, 36)} == {29}


@given(anchor=anchors, zone=zones, instant=instants)
@settings(max_examples=50)
def test_case_03_exactly_one_of_all_periods_holds_an_instant(anchor: datetime, zone: str, instant: datetime) -> None:
    """Hard case 3: among all that are counted out, the one that is found is the only one."""
    borders = starts(anchor, zone, 12 * 14 + 2)
    n = bisect_right(borders, instant) - 1
    found = period_at(anchor, zone, instant)
    assert found == (Period(borders[n], borders[n + 1]) if n >= 0 else None)


@given(anchor=anchors, zone=zones, n=st.integers(0, 12))
def test_the_twelve_usage_periods_of_a_year_fill_it(anchor: datetime, zone: str, n: int) -> None:
    """§3: usage periods are always monthly, from the same anchor."""
    year = period_number(anchor, zone, n, Interval.YEAR)
    months = [period_number(anchor, zone, 12 * n + month) for month in range(12)]
    assert (months[0].start, months[-1].end) == (year.start, year.end)
    assert sum(((month.end - month.start) for month in months), timedelta(0)) == year.end - year.start


@given(anchor=anchors, zone=zones, n=st.integers(0, 120))
def test_case_05_a_period_lasts_as_its_clock_and_the_change_of_it_say(anchor: datetime, zone: str, n: int) -> None:
    """Hard case 5: what the wall clock shows, less what it was put forward."""
    found = period_number(anchor, zone, n)
    shown = to_wall(found.end, zone) - to_wall(found.start, zone)
    assert found.end - found.start == shown - (offset_at(found.end, zone) - offset_at(found.start, zone))
    assert timedelta(days=27, hours=22) <= found.end - found.start <= timedelta(days=31, hours=2)


@given(instant=instants, zone=zones)
def test_an_instant_comes_back_from_its_wall_time_cut_to_the_second(instant: datetime, zone: str) -> None:
    """But for the second time round of a repeated hour, which is read as the first."""
    cut = instant.replace(microsecond=0)
    back = to_instant(to_wall(instant, zone), zone)
    if instant.astimezone(ZoneInfo(zone)).fold:
        assert timedelta(0) < cut - back <= timedelta(hours=2)
    else:
        assert back == cut


def after_a_move(anchor: datetime, old: str, new: str, n: int) -> tuple[Period, Period]:
    """Period n, in which the zone changes, and the next: it starts there and ends by the anchor in the new zone."""
    running = period_number(anchor, old, n)
    return running, Period(running.end, period_number(anchor, new, n + 1).end)


def test_case_06_from_tokyo_to_los_angeles() -> None:
    """Hard case 6: the running period ends as it would have; the next is 17 hours longer."""
    running, following = after_a_move(wall(2026, 1, 1), "Asia/Tokyo", "America/Los_Angeles", 0)
    assert (running.start, running.end) == (utc(2025, 12, 31, 15), utc(2026, 1, 31, 15))
    assert (following.start, following.end) == (utc(2026, 1, 31, 15), utc(2026, 3, 1, 8))
    assert following.end == period_number(wall(2026, 1, 1), "America/Los_Angeles", 2).start


@given(anchor=anchors, moves=st.lists(st.sampled_from(MORE_ZONES), min_size=2, max_size=20))
def test_case_06_a_new_zone_loses_and_repeats_nothing(anchor: datetime, moves: list[str]) -> None:
    """Hard case 6: a new zone each period: they meet, none is empty, and all but the border's hours stay."""
    border = period_number(anchor, moves[0], 0).start
    for n, (old, new) in enumerate(pairwise(moves)):
        running, following = after_a_move(anchor, old, new, n)
        assert following.start == running.end > border
        assert following.end > following.start
        assert abs(following.end - following.start - timedelta(days=29, hours=12)) <= timedelta(days=1, hours=38)
        border = following.start
