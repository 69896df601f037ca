"""What was used by bucket, out of the roll-ups: for tables by workspace too, read as they are written."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

from sqlalchemy import Select, case, func, literal_column, or_, select

from ..database import ReadSession
from ..models import Granularity, Metric, MetricKind, UsageRollup
from .history import SLACK, kept_by
from .rules.periods import Period

BUCKETS_AT_ONCE = 50
READ_AT_ONCE = 500
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SeriesRow:
    """What a workspace did in a bucket: of a counter what was added, of a gauge its part of the level at the end."""

    bucket: Period
    workspace: str
    quantity: int


async def read_rows(
    session: ReadSession, account_id: UUID, metric: Metric, granularity: Granularity, buckets: Sequence[Period]
) -> AsyncGenerator[SeriesRow]:
    """The rows of a metric, by bucket and workspace: of a counter where something was used, of a gauge where it moved.

    The first bucket also shows the levels that a gauge had before. Rows are read a few at a time.
    """
    is_gauge = metric.kind is MetricKind.GAUGE
    for start in range(0, len(buckets), BUCKETS_AT_ONCE):
        page = buckets[start : start + BUCKETS_AT_ONCE]
        changes = _changes(account_id, metric.key, granularity, page, since=BEGINNING if is_gauge else None)
        statement = _levels(changes, granularity, page, is_first=start == 0) if is_gauge else _sums(changes)
        result = await session.stream(statement.execution_options(yield_per=READ_AT_ONCE))
        try:
            async for number, workspace, quantity in result:
                yield SeriesRow(page[number], workspace, int(quantity))
        finally:
            await result.close()


def _changes(
    account_id: UUID, metric_key: str, granularity: Granularity, page: Sequence[Period], *, since: datetime | None
) -> Select[*tuple[Any, ...]]:
    """The sum of changes of each (bucket of a page, workspace); with `since` what came before counts in the first."""
    slack = SLACK[granularity]
    number = case(
        *((UsageRollup.start_at < bucket.end - slack, literal_column(str(place))) for place, bucket in enumerate(page)),
    )
    # In a statement of its own: parameters in what is grouped by would differ from those in what is shown.
    rows = (
        select(number.label("number"), UsageRollup.workspace, UsageRollup.quantity, UsageRollup.start_at)
        .where(
            UsageRollup.account_id == account_id,
            UsageRollup.metric_key == metric_key,
            UsageRollup.granularity == kept_by(granularity),
            UsageRollup.start_at >= (page[0].start - slack if since is None else since),
            UsageRollup.start_at < page[-1].end - slack,
        )
        .subquery("rows_of_page")
    )
    return select(
        rows.c.number,
        rows.c.workspace,
        func.sum(rows.c.quantity).label("change"),
        func.max(rows.c.start_at).label("last_at"),
    ).group_by(rows.c.number, rows.c.workspace)


def _sums(changes: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """The sums that are not 0."""
    sums = changes.subquery("changes")
    return (
        select(sums.c.number, sums.c.workspace, sums.c.change)
        .where(sums.c.change != 0)
        .order_by(sums.c.number, sums.c.workspace)
    )


def _levels(
    changes: Select[*tuple[Any, ...]], granularity: Granularity, page: Sequence[Period], *, is_first: bool
) -> Select[*tuple[Any, ...]]:
    """The running levels where they moved, and at the very first bucket where there is one."""
    sums = changes.subquery("changes")
    levels = select(
        sums.c.number,
        sums.c.workspace,
        func.sum(sums.c.change).over(partition_by=sums.c.workspace, order_by=sums.c.number).label("level"),
        sums.c.last_at,
    ).subquery("levels")
    moved = levels.c.last_at >= page[0].start - SLACK[granularity]
    return (
        select(levels.c.number, levels.c.workspace, levels.c.level)
        .where(or_(moved, levels.c.level != 0) if is_first else moved)
        .order_by(levels.c.number, levels.c.workspace)
    )


async def load_series(
    session: ReadSession,
    account_id: UUID,
    metrics: Sequence[Metric],
    granularity: Granularity,
    buckets: Sequence[Period],
) -> dict[str, list[int]]:
    """What was added in each bucket, or the level at its end, over all workspaces: one statement for all metrics."""
    slack = SLACK[granularity]
    starts = [bucket.start - slack for bucket in buckets]
    gauges = [metric.key for metric in metrics if metric.kind is MetricKind.GAUGE]
    rows = await session.execute(
        select(UsageRollup.metric_key, UsageRollup.start_at, func.sum(UsageRollup.quantity))
        .where(
            UsageRollup.account_id == account_id,
            UsageRollup.granularity == kept_by(granularity),
            or_(UsageRollup.start_at >= starts[0], UsageRollup.metric_key.in_(gauges)),
            UsageRollup.start_at < buckets[-1].end - slack,
        )
        .group_by(UsageRollup.metric_key, UsageRollup.start_at)
    )
    found = {metric.key: [0] * (len(buckets) + 1) for metric in metrics}
    for metric_key, start_at, quantity in rows:
        # What came before the first bucket stands in front of it.
        found[metric_key][bisect_right(starts, start_at)] += int(quantity)
    return {
        metric.key: (list(accumulate(found[metric.key])) if metric.kind is MetricKind.GAUGE else found[metric.key])[1:]
        for metric in metrics
    }
