"""History: what was used by hour, day or month of the account's zone, out of roll-ups."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession
from ..models import BillingAccount, Granularity, MetricKind, UsageRollup
from .rules.periods import Period, last_buckets, month_of
from .usage import UsageFigure


class HistoryKey(NamedTuple):
    """Whose history, and from when."""

    account_id: UUID
    since: datetime


class History(NamedTuple):
    """The changes of an account's metrics by bucket."""

    changes: dict[tuple[str, datetime | date], int]


async def load_history(session: ReadSession, keys: Sequence[HistoryKey], granularity: Granularity) -> list[History]:
    """The roll-ups from `since` on for each account: one statement for all. Months are sums of days."""
    since = min(key.since for key in keys)
    by_month = granularity is Granularity.MONTH
    bucket = UsageRollup.month if by_month else UsageRollup.start_at
    rows = await session.execute(
        select(UsageRollup.account_id, UsageRollup.metric_key, bucket.label("bucket"), func.sum(UsageRollup.quantity))
        .where(
            UsageRollup.account_id.in_({key.account_id for key in keys}),
            UsageRollup.granularity == (Granularity.DAY if by_month else granularity),
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


def list_buckets(account: BillingAccount, now: datetime, granularity: Granularity, last: int) -> Sequence[Period]:
    """The buckets that a history shows, oldest first."""
    return last_buckets(now, account.timezone, granularity, last)


def trace_history(
    figure: UsageFigure, history: History, buckets: Sequence[Period], zone: str, granularity: Granularity
) -> list[UsagePoint]:
    """The series of one metric. A gauge is walked back from its level now."""

    def change_in(bucket: Period) -> int:
        key = month_of(bucket.start, zone) if granularity is Granularity.MONTH else bucket.start
        return history.changes.get((figure.metric.key, key), 0)

    if figure.metric.kind is MetricKind.COUNTER:
        return [UsagePoint(bucket.start, bucket.end, change_in(bucket)) for bucket in buckets]
    level = figure.used
    points = []
    for bucket in reversed(buckets):
        points.append(UsagePoint(bucket.start, bucket.end, level))
        level -= change_in(bucket)
    return points[::-1]
