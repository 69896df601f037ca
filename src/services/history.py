"""History: what was used by hour, day or month of the account's zone, out of roll-ups."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession
from ..models import Granularity, MetricKind, UsageRollup
from .rules.periods import Period, month_of
from .usage import UsageFigure

SLACK = {
    Granularity.HOUR: timedelta(minutes=15),
    Granularity.DAY: timedelta(hours=12),
    Granularity.MONTH: timedelta(hours=12),
}
"""A roll-up that was made under a former zone of the account begins beside the buckets of the present one: it counts in
the one that holds most of it."""


def kept_by(granularity: Granularity) -> Granularity:
    """What roll-ups to sum: months are sums of days."""
    return Granularity.DAY if granularity is Granularity.MONTH else granularity


class HistoryKey(NamedTuple):
    """Whose history, and from when."""

    account_id: UUID
    since: datetime


class History(NamedTuple):
    """The changes of an account's metrics by bucket."""

    changes: dict[tuple[str, datetime | date], int]


async def load_history(session: ReadSession, keys: Sequence[HistoryKey], granularity: Granularity) -> list[History]:
    """The roll-ups from `since` on for each account: one statement for all. Months are sums of days."""
    since = min(key.since for key in keys) - SLACK[granularity]
    by_month = granularity is Granularity.MONTH
    bucket = UsageRollup.month if by_month else UsageRollup.start_at
    rows = await session.execute(
        select(UsageRollup.account_id, UsageRollup.metric_key, bucket.label("bucket"), func.sum(UsageRollup.quantity))
        .where(
            UsageRollup.account_id.in_({key.account_id for key in keys}),
            UsageRollup.granularity == kept_by(granularity),
            UsageRollup.start_at >= since,
        )
        .group_by(UsageRollup.account_id, UsageRollup.metric_key, bucket)
    )
    found: dict[UUID, dict[tuple[str, datetime | date], int]] = defaultdict(dict)
    for account_id, metric_key, start, quantity in rows:
        found[account_id][metric_key, start] = int(quantity)
    return [History(found[key.account_id]) for key in keys]


@dataclass(frozen=True)
class UsagePoint:
    """One bucket of history: of a counter what was added in it, of a gauge the level at its end."""

    start: datetime
    end: datetime
    quantity: int


def trace_history(
    figure: UsageFigure, history: History, buckets: Sequence[Period], zone: str, granularity: Granularity
) -> list[UsagePoint]:
    """The series of one metric. A gauge is walked back from its level now."""
    changes = sum_by_bucket(figure.metric.key, history, buckets, zone, granularity)
    if figure.metric.kind is MetricKind.COUNTER:
        return [UsagePoint(bucket.start, bucket.end, change) for bucket, change in zip(buckets, changes, strict=True)]
    level = figure.used
    points = []
    for bucket, change in zip(reversed(buckets), reversed(changes), strict=True):
        points.append(UsagePoint(bucket.start, bucket.end, level))
        level -= change
    return points[::-1]


def sum_by_bucket(
    metric_key: str, history: History, buckets: Sequence[Period], zone: str, granularity: Granularity
) -> list[int]:
    """How a metric changed in each bucket."""
    if granularity is Granularity.MONTH:
        return [history.changes.get((metric_key, month_of(bucket.start, zone)), 0) for bucket in buckets]
    # What was rolled up under a former zone of the account begins beside today's buckets.
    ends = [bucket.end - SLACK[granularity] for bucket in buckets]
    changes = [0] * len(buckets)
    for (key, start), quantity in history.changes.items():
        if key == metric_key and isinstance(start, datetime) and start < ends[-1]:
            changes[bisect_right(ends, start)] += quantity
    return changes
