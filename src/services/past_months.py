"""What accounts used in their last closed usage periods: read in a constant number of statements, for one or many."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import CTE, and_, case, func, select

from ..database import ReadSession
from ..models import (
    BillingAccount,
    Counter,
    Granularity,
    Metric,
    MetricKind,
    PlanLimit,
    RecommendationDismissal,
    Subscription,
    UsagePeriod,
    UsageRating,
    UsageRollup,
)
from .plan_limits import Limits
from .relations import COUNTER_OF_RATING, DISMISSALS_OF_ACCOUNT, load_related
from .rules.periods import Period, period_number, to_wall
from .rules.rerating import MOST_MONTHS, Month, Segment, Used
from .usage import UsageFigure

PERIODS_READ = 24
"""A change to an annual plan and a cancellation cut periods short: so many are looked at to find twelve whole ones."""
SPAN = 3
"""A segment's last months are weighed against as many before."""


@dataclass
class Steps:
    """How a gauge moved, summed from the first period that was read."""

    peak: dict[datetime, int] = field(default_factory=dict[datetime, int])
    """The highest sum in each period, by its start."""
    change: dict[datetime | None, int] = field(default_factory=dict[datetime | None, int])
    """By how much each period moved it; under none what came after them all."""


@dataclass
class Past:
    """What an account used, and what its plan as it was sold includes."""

    periods: dict[Period, dict[str, Used]] = field(default_factory=dict[Period, dict[str, Used]])
    """Closed ones, oldest first, with their counters."""
    steps: dict[str, Steps] = field(default_factory=lambda: defaultdict[str, Steps](Steps))
    """By gauge."""
    segments: list[Segment] = field(default_factory=list[Segment])
    limits: Limits = field(default_factory=dict[str, int | None])
    dismissals: Sequence[RecommendationDismissal] = ()


async def load_pasts(session: ReadSession, account_ids: Sequence[UUID]) -> list[Past]:
    """The last closed periods of each account, in five statements."""
    pasts = {account_id: Past() for account_id in account_ids}
    ranked = _rank_periods(account_ids)
    await _read_counters(session, ranked, pasts)
    await _read_steps(session, ranked, pasts)
    await _read_segments(session, ranked, pasts)
    rows = await session.execute(
        select(Subscription.account_id, PlanLimit.metric_key, PlanLimit.quantity)
        .join(PlanLimit, PlanLimit.plan_version_id == Subscription.plan_version_id)
        .where(Subscription.account_id.in_(account_ids))
    )
    for account_id, metric_key, quantity in rows:
        pasts[account_id].limits[metric_key] = quantity
    for account_id, dismissals in zip(
        account_ids, await load_related(session, DISMISSALS_OF_ACCOUNT, account_ids), strict=True
    ):
        pasts[account_id].dismissals = dismissals
    return [pasts[account_id] for account_id in account_ids]


def _rank_periods(account_ids: Sequence[UUID]) -> CTE:
    """The closed periods of each account; the last one has place 1."""
    of_account, start = UsagePeriod.account_id, UsagePeriod.start_at
    place = func.row_number().over(partition_by=of_account, order_by=start.desc())
    before = func.lag(UsagePeriod.end_at, type_=UsagePeriod.end_at.type).over(partition_by=of_account, order_by=start)
    # What came between two subscriptions counts with the second.
    since = func.coalesce(before, start).label("since")
    closed = (
        select(of_account, start, UsagePeriod.end_at, place.label("place"), since)
        .where(UsagePeriod.account_id.in_(account_ids), UsagePeriod.closed_at.is_not(None))
        .subquery()
    )
    return select(closed).where(closed.c.place <= PERIODS_READ).cte("ranked")


async def _read_counters(session: ReadSession, ranked: CTE, pasts: dict[UUID, Past]) -> None:
    rows = await session.execute(
        select(
            ranked.c.account_id,
            ranked.c.start_at,
            ranked.c.end_at,
            Counter.metric_key,
            Counter.used,
            Counter.allowed,
        )
        .select_from(ranked)
        .outerjoin(Counter, and_(Counter.account_id == ranked.c.account_id, Counter.period_start == ranked.c.start_at))
        .order_by(ranked.c.account_id, ranked.c.start_at)
    )
    for account_id, start, end, metric_key, used, allowed in rows:
        counters = pasts[account_id].periods.setdefault(Period(start, end), {})
        if metric_key is not None:
            counters[metric_key] = Used(used, allowed)


async def _read_steps(session: ReadSession, ranked: CTE, pasts: dict[UUID, Past]) -> None:
    """A gauge is a sum of steps: what each hour added to it is summed up, and its peak taken in each period."""
    first = select(ranked.c.account_id, func.min(ranked.c.start_at).label("start_at")).group_by(ranked.c.account_id)
    begun = first.subquery()
    hours = (
        select(
            UsageRollup.account_id,
            UsageRollup.metric_key,
            UsageRollup.start_at,
            func.sum(UsageRollup.quantity).label("change"),
        )
        .join(begun, and_(begun.c.account_id == UsageRollup.account_id, UsageRollup.start_at >= begun.c.start_at))
        .join(Metric, and_(Metric.key == UsageRollup.metric_key, Metric.kind == MetricKind.GAUGE))
        .where(UsageRollup.granularity == Granularity.HOUR)
        .group_by(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.start_at)
        .subquery()
    )
    level = func.sum(hours.c.change).over(
        partition_by=(hours.c.account_id, hours.c.metric_key), order_by=hours.c.start_at
    )
    levels = select(hours, level.label("level")).subquery()
    rows = await session.execute(
        select(
            levels.c.account_id,
            levels.c.metric_key,
            ranked.c.start_at,
            func.max(levels.c.level),
            func.sum(levels.c.change),
        )
        .select_from(levels)
        .outerjoin(
            ranked,
            and_(
                ranked.c.account_id == levels.c.account_id,
                ranked.c.since <= levels.c.start_at,
                ranked.c.end_at > levels.c.start_at,
            ),
        )
        .group_by(levels.c.account_id, levels.c.metric_key, ranked.c.start_at)
    )
    for account_id, metric_key, start, peak, change in rows:
        steps = pasts[account_id].steps[metric_key]
        steps.change[start] = int(change)
        if start is not None:
            steps.peak[start] = int(peak)


async def _read_segments(session: ReadSession, ranked: CTE, pasts: dict[UUID, Past]) -> None:
    """Of each counter that passed its limit: the workspace that grew most in the last months."""
    recent = ranked.c.place <= SPAN
    passed = (
        select(UsageRating.account_id, UsageRating.metric_key)
        .join(Counter, COUNTER_OF_RATING)
        .join(
            ranked,
            and_(ranked.c.account_id == UsageRating.account_id, ranked.c.start_at == UsageRating.period_start),
        )
        .where(recent, UsageRating.block.is_not(None), Counter.used > UsageRating.limit_quantity)
        .distinct()
        .subquery()
    )
    cells = (
        select(
            UsageRollup.account_id,
            UsageRollup.metric_key,
            UsageRollup.workspace,
            ranked.c.place,
            func.sum(UsageRollup.quantity).label("quantity"),
        )
        .join(
            passed,
            and_(
                passed.c.account_id == UsageRollup.account_id,
                passed.c.metric_key == UsageRollup.metric_key,
            ),
        )
        .join(
            ranked,
            and_(
                ranked.c.account_id == UsageRollup.account_id,
                ranked.c.start_at <= UsageRollup.start_at,
                ranked.c.end_at > UsageRollup.start_at,
                ranked.c.place <= 2 * SPAN,
            ),
        )
        .where(UsageRollup.granularity == Granularity.HOUR, UsageRollup.workspace != "")
        .group_by(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.workspace, ranked.c.place)
        .cte("cells")
    )
    growth = func.sum(case((cells.c.place <= SPAN, cells.c.quantity), else_=-cells.c.quantity))
    order = func.row_number().over(
        partition_by=(cells.c.account_id, cells.c.metric_key), order_by=(growth.desc(), cells.c.workspace)
    )
    grown = (
        select(cells.c.account_id, cells.c.metric_key, cells.c.workspace, order.label("order"))
        .group_by(cells.c.account_id, cells.c.metric_key, cells.c.workspace)
        .having(growth > 0)
        .subquery()
    )
    rows = await session.execute(
        select(cells)
        .join(
            grown,
            and_(
                grown.c.account_id == cells.c.account_id,
                grown.c.metric_key == cells.c.metric_key,
                grown.c.workspace == cells.c.workspace,
                grown.c.order == 1,
            ),
        )
        .order_by(cells.c.account_id, cells.c.metric_key)
    )
    found: dict[tuple[UUID, str, str], dict[int, int]] = defaultdict(dict)
    for account_id, metric_key, workspace, place, quantity in rows:
        found[account_id, metric_key, workspace][place] = max(0, int(quantity))
    for (account_id, metric_key, workspace), used in found.items():
        before, since = ([used.get(place, 0) for place in range(last, last - SPAN, -1)] for last in (2 * SPAN, SPAN))
        if len(pasts[account_id].periods) >= 2 * SPAN:
            pasts[account_id].segments.append(Segment(metric_key, workspace, before, since))


def list_months(
    past: Past, account: BillingAccount, subscription: Subscription, figures: Sequence[UsageFigure]
) -> list[Month]:
    """The last twelve whole months, oldest first. A gauge is walked back from its level now."""
    used: dict[Period, dict[str, Used]] = {period: dict(counters) for period, counters in past.periods.items()}
    for figure in figures:
        if figure.metric.kind is MetricKind.COUNTER:
            continue
        steps = past.steps.get(figure.metric.key, Steps())
        level = base = figure.used - sum(steps.change.values())
        for period in past.periods:
            peak = max(level, base + steps.peak.get(period.start, level - base))
            used[period][figure.metric.key] = Used(max(0, peak))
            level += steps.change.get(period.start, 0)
    months = [
        Month(
            start=period.start,
            end=period.end,
            place=(subscription.usage_period_number - distance) % 12,
            used=used[period],
        )
        for distance, period in enumerate(reversed(past.periods), start=1)
        if is_whole(period, account.timezone)
    ]
    return months[:MOST_MONTHS][::-1]


def is_whole(period: Period, zone: str) -> bool:
    """Whether a usage period was not cut short: it lasts a month of the calendar."""
    return period_number(to_wall(period.start, zone), zone, 0).end <= period.end
