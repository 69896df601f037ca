"""Periods and buckets of time: counted from an anchor in the account's zone, never chained."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from ...models import Granularity, Interval

MONTHS = {Interval.MONTH: 1, Interval.YEAR: 12}


@dataclass(frozen=True)
class Period:
    """A half-open span `[start, end)` of instants in UTC."""

    start: datetime
    end: datetime


def to_instant(wall: datetime, zone: str) -> datetime:
    """The instant of a wall time. One that a clock change skips is read with the offset before the change
    (02:30 becomes 03:30); of one that occurs twice it is the first."""
    return wall.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)


def to_wall(instant: datetime, zone: str) -> datetime:
    """The wall time of an instant, to the second."""
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, microsecond=0)


def period_number(anchor_wall: datetime, zone: str, n: int, interval: Interval = Interval.MONTH) -> Period:
    """The n-th period from the anchor (0 is the first): Jan 31 gives Feb 28, Mar 31, Apr 30."""

    def end_of(count: int) -> datetime:
        return to_instant(anchor_wall + relativedelta(months=count * MONTHS[interval]), zone)

    return Period(end_of(n), end_of(n + 1))


def period_at(
    anchor_wall: datetime, zone: str, instant: datetime, interval: Interval = Interval.MONTH
) -> Period | None:
    """The period that contains an instant; none before the anchor."""
    if instant < to_instant(anchor_wall, zone):
        return None
    wall = to_wall(instant, zone)
    months = (wall.year - anchor_wall.year) * 12 + wall.month - anchor_wall.month
    guess = max(0, months // MONTHS[interval] - 1)
    period = period_number(anchor_wall, zone, guess, interval)
    while instant >= period.end:
        guess += 1
        period = period_number(anchor_wall, zone, guess, interval)
    return period


def bucket_start(instant: datetime, zone: str, granularity: Granularity) -> datetime:
    """Where the local hour, day or month begins that contains an instant."""
    wall = instant.astimezone(ZoneInfo(zone))
    if granularity is Granularity.HOUR:
        # `replace` keeps the fold: of an hour that occurs twice each has a bucket of its own.
        return wall.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
    day = wall.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return to_instant(day.replace(day=1) if granularity is Granularity.MONTH else day, zone)


def buckets_of(instant: datetime, zone: str) -> tuple[datetime, datetime, date]:
    """Where the local hour and day begin that contain an instant, and the first day of its local month."""
    # Clocks change, and offsets differ, by whole quarters of an hour.
    quarter = instant.replace(minute=instant.minute - instant.minute % 15, second=0, microsecond=0)
    return _buckets_of_quarter(quarter, zone)


@lru_cache(maxsize=4_096)
def _buckets_of_quarter(quarter: datetime, zone: str) -> tuple[datetime, datetime, date]:
    hour, day = (bucket_start(quarter, zone, each) for each in (Granularity.HOUR, Granularity.DAY))
    return hour, day, month_of(quarter, zone)


def bucket_end(instant: datetime, zone: str, granularity: Granularity) -> datetime:
    """Where the local hour, day or month ends that contains an instant."""
    if granularity is Granularity.HOUR:
        start = bucket_start(instant, zone, granularity)
        # Two looks: where clocks change by half an hour, one local hour has another length.
        later = (bucket_start(start + timedelta(minutes=minutes), zone, granularity) for minutes in (60, 120))
        return next(end for end in later if end > start)
    # From the calendar day: midnight itself may be an hour that a clock change skips.
    day = instant.astimezone(ZoneInfo(zone)).date()
    by_month = granularity is Granularity.MONTH
    following = day.replace(day=1) + relativedelta(months=1) if by_month else day + timedelta(days=1)
    return to_instant(datetime.combine(following, time()), zone)


def buckets_between(start: datetime, end: datetime, zone: str, granularity: Granularity) -> list[Period]:
    """The buckets that begin in `[start, end)`, oldest first. They meet exactly, also from one range to the next."""
    first = bucket_start(start, zone, granularity)
    if first < start:
        first = bucket_end(start, zone, granularity)
    found: list[Period] = []
    while first < end:
        found.append(Period(first, bucket_end(first, zone, granularity)))
        first = found[-1].end
    return found


def month_of(instant: datetime, zone: str) -> date:
    """The first day of the local month that contains an instant."""
    return instant.astimezone(ZoneInfo(zone)).date().replace(day=1)


def last_buckets(now: datetime, zone: str, granularity: Granularity, count: int) -> tuple[Period, ...]:
    """The last `count` buckets up to the one that contains now, oldest first. They meet exactly."""
    if granularity is Granularity.HOUR:
        return _hours_up_to(bucket_start(now, zone, granularity), zone, count)
    # From the calendar day: midnight itself may be an hour that a clock change skips.
    day = now.astimezone(ZoneInfo(zone)).date()
    return _days_up_to(day.replace(day=1) if granularity is Granularity.MONTH else day, zone, granularity, count)


@lru_cache(maxsize=256)
def _hours_up_to(last: datetime, zone: str, count: int) -> tuple[Period, ...]:
    # Walked hour by hour: where clocks change by half an hour, one local hour has another length.
    following = (bucket_start(last + timedelta(minutes=later), zone, Granularity.HOUR) for later in (60, 120))
    starts = [next(start for start in following if start > last), last]
    while len(starts) <= count:
        starts.append(bucket_start(starts[-1] - timedelta(microseconds=1), zone, Granularity.HOUR))
    return _meeting(starts[::-1])


@lru_cache(maxsize=256)
def _days_up_to(last: date, zone: str, granularity: Granularity, count: int) -> tuple[Period, ...]:
    step = relativedelta(months=1) if granularity is Granularity.MONTH else relativedelta(days=1)
    walls = [datetime.combine(last - step * back, time()) for back in range(count - 1, -2, -1)]
    return _meeting([to_instant(wall, zone) for wall in walls])


def _meeting(starts: list[datetime]) -> tuple[Period, ...]:
    return tuple(Period(start, end) for start, end in pairwise(starts))
