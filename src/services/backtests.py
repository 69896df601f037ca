"""Backtests: an account's last closed usage periods with a budget that it did not have then."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, case, func, literal_column, select

from ..database import ReadSession
from ..models import BillingAccount, BudgetScope, Counter, Granularity, UsageCost, UsagePeriod, UsageRating, UsageRollup
from .budgets import DEFAULT_THRESHOLDS, BudgetInput, check_terms, find_subject
from .errors import InvalidInput, Refusals
from .relations import COUNTER_OF_RATING
from .rules.backtest import DayUse, Outcome, PastPeriod, Rated, Trial, price_in_order, replay
from .rules.overage import Rate
from .rules.spending import line_counts_for, parts_of
from .spends import load_spent_lines

MAX_MONTHS = 24
Place: TypeAlias = tuple[str, datetime]
"""A metric, and where a usage period of it begins."""
DayKey: TypeAlias = tuple[date, bool, Place]
"""A day, whether it counts what is used then, and of what."""


@dataclass(frozen=True)
class _Overage:
    """A metric that passed its limit in a usage period."""

    end: datetime
    used: int
    rated: Rated


async def run_backtest(session: ReadSession, account: BillingAccount, asked: BudgetInput, months: int) -> list[Outcome]:
    """What a budget would have done in the last closed usage periods, oldest first: in at most six statements.

    Usage is replayed by day and priced as its period was when it closed. What happened within a day is not told apart:
    lines come first, then the metrics by name.
    """
    refusals = check_terms(account, asked)
    if not 1 <= months <= MAX_MONTHS:
        refusals.append(InvalidInput(f"`months` is a whole number from 1 to {MAX_MONTHS}, not {months}.", ["months"]))
    if refusals:
        raise Refusals(refusals)
    subject = await find_subject(session, account, asked)
    periods = (
        await session.scalars(
            select(UsagePeriod).where(UsagePeriod.account_id == account.id).order_by(UsagePeriod.start_at)
        )
    ).all()
    closed = [period for period in periods if period.closed_at is not None][-months:]
    if not closed:
        raise InvalidInput("The account has no closed usage period yet: there is nothing to replay before one is over.")
    overages = await _load_overages(session, account.id, asked.scope, subject, closed)
    used = await _load_use(session, account, asked.scope, subject, overages)
    fixed = await _load_fixed(session, account, asked.scope, subject, [period.start_at for period in periods], closed)
    trial = Trial(
        asked.limit_minor, sorted(DEFAULT_THRESHOLDS if asked.thresholds is None else asked.thresholds), asked.action
    )
    outcomes = []
    for period in closed:
        rated = {key: overage.rated for (key, start), overage in overages.items() if start == period.start_at}
        uses = used.get(period.start_at, [])
        if asked.scope is not BudgetScope.WORKSPACE:
            uses = price_in_order(uses, rated)
        outcomes.append(
            replay(PastPeriod(period.start_at, period.end_at, fixed.get(period.start_at, {}), uses, rated), trial)
        )
    return outcomes


async def _load_overages(
    session: ReadSession, account_id: UUID, scope: BudgetScope, subject: str, closed: Sequence[UsagePeriod]
) -> dict[Place, _Overage]:
    """The metrics that passed their limit in periods, and at a price: all other usage costs nothing."""
    only = [UsageRating.metric_key == subject] if scope is BudgetScope.METRIC else []
    rows = await session.execute(
        select(UsageRating, Counter)
        .join(Counter, COUNTER_OF_RATING)
        .where(
            UsageRating.account_id == account_id,
            UsageRating.period_start.in_([period.start_at for period in closed]),
            UsageRating.block.is_not(None),
            UsageRating.price_minor > 0,
            Counter.used > UsageRating.limit_quantity,
            *only,
        )
    )
    return {
        (rating.metric_key, rating.period_start): _Overage(
            rating.period_end,
            counter.used,
            Rated(
                Rate(limit=rating.limit_quantity, block=rating.block, price_minor=rating.price_minor), counter.allowed
            ),
        )
        for rating, counter in rows
    }


async def _load_use(
    session: ReadSession,
    account: BillingAccount,
    scope: BudgetScope,
    subject: str,
    overages: Mapping[Place, _Overage],
) -> dict[datetime, list[DayUse]]:
    """What was used of metrics that passed their limit, by period: by day, and on a day what does not count first."""
    if not overages:
        return {}
    zone = ZoneInfo(account.timezone)
    workspace = subject if scope is BudgetScope.WORKSPACE else None
    quantities = await _load_quantities(session, account.id, workspace, overages, zone)
    costs = {} if workspace is None else await _load_costs(session, account.id, workspace, overages)
    used: dict[datetime, list[DayUse]] = defaultdict(list)
    for key in sorted({*quantities, *costs}):
        day, counts, (metric_key, start) = key
        quantity, cost_minor = quantities.get(key, 0), costs.get(key, 0)
        if quantity or cost_minor:
            used[start].append(
                DayUse(day=day, metric_key=metric_key, quantity=quantity, cost_minor=cost_minor, counts=counts)
            )
    return used


async def _load_quantities(
    session: ReadSession,
    account_id: UUID,
    workspace: str | None,
    overages: Mapping[Place, _Overage],
    zone: ZoneInfo,
) -> dict[DayKey, int]:
    """How much was used, summed from hours to what the figure of each period came to."""
    starts: dict[str, list[datetime]] = defaultdict(list)
    for metric_key, start in sorted(overages):
        starts[metric_key].append(start)
    found: dict[DayKey, int] = defaultdict(int)
    missing = {place: overage.used for place, overage in overages.items()}
    for metric_key, at, counts, quantity in await session.execute(_select_hours(account_id, workspace, overages)):
        number = bisect_right(starts[metric_key], at) - 1
        place = (metric_key, starts[metric_key][number])
        if number >= 0 and at < overages[place].end:
            found[at.astimezone(zone).date(), bool(counts), place] += int(quantity)
            missing[place] -= int(quantity)
    for place, quantity in missing.items():
        # The hours in which a period begins and ends are its neighbours', too: its own figure tells how much is whose.
        at = place[1] if quantity > 0 else overages[place].end - timedelta(microseconds=1)
        found[at.astimezone(zone).date(), workspace is None, place] += quantity
    return found


def _select_hours(
    account_id: UUID, workspace: str | None, overages: Mapping[Place, _Overage]
) -> Select[*tuple[Any, ...]]:
    """What was used of metrics in each hour, and whether it counts: where a workspace is meant, that alone does."""
    counts: ColumnElement[int] = literal_column("1")
    if workspace is not None:
        counts = case((UsageRollup.workspace == workspace, literal_column("1")), else_=literal_column("0"))
    # In a statement of its own: parameters in what is grouped by would differ from those in what is shown.
    hours = (
        select(UsageRollup.metric_key, UsageRollup.start_at, counts.label("counts"), UsageRollup.quantity)
        .where(
            UsageRollup.account_id == account_id,
            UsageRollup.granularity == Granularity.HOUR,
            UsageRollup.metric_key.in_({metric_key for metric_key, _ in overages}),
            UsageRollup.start_at >= min(start for _, start in overages),
            UsageRollup.start_at < max(overage.end for overage in overages.values()),
        )
        .subquery("hours")
    )
    key = (hours.c.metric_key, hours.c.start_at, hours.c.counts)
    return select(*key, func.sum(hours.c.quantity)).group_by(*key)


async def _load_costs(
    session: ReadSession, account_id: UUID, workspace: str, overages: Mapping[Place, _Overage]
) -> dict[DayKey, int]:
    """What the usage of a workspace cost."""
    key = (UsageCost.metric_key, UsageCost.period_start, UsageCost.day)
    rows = await session.execute(
        select(*key, func.sum(UsageCost.cost_minor))
        .where(
            UsageCost.account_id == account_id,
            UsageCost.workspace == workspace,
            UsageCost.period_start.in_({start for _, start in overages}),
        )
        .group_by(*key)
    )
    return {
        (day, True, (metric_key, start)): int(cost)
        for metric_key, start, day, cost in rows
        if (metric_key, start) in overages
    }


async def _load_fixed(
    session: ReadSession,
    account: BillingAccount,
    scope: BudgetScope,
    subject: str,
    starts: Sequence[datetime],
    closed: Sequence[UsagePeriod],
) -> dict[datetime, dict[date, int]]:
    """What was spent on lines that count for a budget, by period and day."""
    if scope is BudgetScope.WORKSPACE:
        return {}
    zone = ZoneInfo(account.timezone)
    lines = (await load_spent_lines(session, [account.id], closed[0].start_at, closed[-1].end_at))[account.id]
    found: dict[datetime, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for line in lines:
        if not line_counts_for(scope, subject, line.metric_key):
            continue
        for at, part in parts_of(line, starts):
            for period in closed:
                if period.start_at <= at < period.end_at:
                    found[period.start_at][at.astimezone(zone).date()] += part
    return found
