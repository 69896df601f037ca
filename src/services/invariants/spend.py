"""I7: what usage cost by day and workspace sums to what it is rated at, and budgets say what is spent under them."""

from collections import defaultdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, case, exists, literal, select, union_all

from ...database import ReadSession
from ...models import (
    BillingAccount,
    Budget,
    BudgetPeriod,
    Counter,
    DueWork,
    EffectiveLimit,
    Interval,
    InvoiceLine,
    Metric,
    Plan,
    PlanVersion,
    Price,
    PriceKind,
    Subscription,
    UsageCost,
    UsagePeriod,
    UsageRating,
    WorkKind,
)
from ..relations import COUNTER_OF_RATING
from ..rules.overage import FREE_TIER, RUNNING_PAID
from ..rules.spending import SpentLine, part_in, spent_under
from ..spends import select_spent_lines
from .reading import Findings, or_0, stream, sum_of


async def check_spend(session: ReadSession, found: Findings) -> None:
    """Costs are what ratings and running figures come to; budgets are what lines and costs come to."""
    await _check_costs(session, found)
    await _check_budgets(session, found)


def _due(limit: Any, allowed: Any, block: Any, price: Any) -> Any:
    above = or_0(Counter.used) - limit - or_0(allowed)
    return case((above > 0, (above + block - 1) // block * price), else_=0)


def _select_rated() -> Select[*tuple[Any, ...]]:
    """What closed periods are rated at."""
    due = _due(UsageRating.limit_quantity, Counter.allowed, UsageRating.block, UsageRating.price_minor)
    return (
        select(UsageRating.account_id, UsageRating.metric_key, UsageRating.period_start, due.label("amount"))
        .join(Counter, COUNTER_OF_RATING)
        .where(UsageRating.block.is_not(None), UsageRating.limit_quantity.is_not(None))
    )


def _select_running() -> Select[*tuple[Any, ...]]:
    """What running periods would be rated at now."""
    due = _due(EffectiveLimit.quantity, Counter.allowed, Metric.overage_block, Price.amount_minor)
    return (
        select(Counter.account_id, Counter.metric_key, Counter.period_start, due.label("amount"))
        .join(BillingAccount, BillingAccount.id == Counter.account_id)
        .join(
            UsagePeriod,
            and_(UsagePeriod.account_id == Counter.account_id, UsagePeriod.start_at == Counter.period_start),
        )
        .join(Metric, Metric.key == Counter.metric_key)
        .join(Subscription, Subscription.account_id == Counter.account_id)
        .join(PlanVersion, PlanVersion.id == Subscription.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .join(
            EffectiveLimit,
            and_(EffectiveLimit.account_id == Counter.account_id, EffectiveLimit.metric_key == Counter.metric_key),
        )
        .join(
            Price,
            and_(
                Price.kind == PriceKind.OVERAGE,
                Price.subject == Counter.metric_key,
                Price.interval == Interval.MONTH,
                Price.currency == BillingAccount.currency,
            ),
        )
        .where(
            UsagePeriod.closed_at.is_(None),
            EffectiveLimit.quantity.is_not(None),
            Metric.overage_block.is_not(None),
            Subscription.status.in_(list(RUNNING_PAID)),
            Plan.tier > FREE_TIER,
        )
    )


async def _check_costs(session: ReadSession, found: Findings) -> None:
    costs = select(UsageCost.account_id, UsageCost.metric_key, UsageCost.period_start, literal(0), UsageCost.cost_minor)
    rated, running = _select_rated().subquery(), _select_running().subquery()
    all_of_it = union_all(select(*rated.c, literal(0).label("cost")), select(*running.c, literal(0)), costs).subquery()
    amount, cost = sum_of(all_of_it.c.amount), sum_of(all_of_it.c.cost)
    waits = exists().where(
        DueWork.account_id == all_of_it.c.account_id,
        DueWork.kind == WorkKind.RECKON_SPEND,
        DueWork.done_at.is_(None),
    )
    key = (all_of_it.c.account_id, all_of_it.c.metric_key, all_of_it.c.period_start)
    statement = select(*key, amount, cost).where(~waits).group_by(*key).having(amount != cost).order_by(*key)
    async for account_id, metric_key, start, due, told in stream(session, statement):
        found.add(
            "I7",
            account_id,
            f"{metric_key} from {start} comes to {due:,} minor units, and its costs sum to {told:,}.",
        )


async def _check_budgets(session: ReadSession, found: Findings) -> None:
    """As many statements as there are kinds of rows, of the accounts that have budgets."""
    has_budget = select(Budget.account_id)
    starts: dict[UUID, list[datetime]] = defaultdict(list)
    async for account_id, start in stream(
        session,
        select(UsagePeriod.account_id, UsagePeriod.start_at)
        .where(UsagePeriod.account_id.in_(has_budget))
        .order_by(UsagePeriod.start_at),
    ):
        starts[account_id].append(start)
    lines: dict[UUID, list[SpentLine]] = defaultdict(list)
    spent, _ = select_spent_lines()
    async for account_id, *line in stream(session, spent.where(InvoiceLine.account_id.in_(has_budget))):
        lines[account_id].append(SpentLine(*line))
    costs: dict[tuple[UUID, datetime], dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    async for account_id, metric_key, start, workspace, cost in stream(
        session,
        select(
            UsageCost.account_id,
            UsageCost.metric_key,
            UsageCost.period_start,
            UsageCost.workspace,
            UsageCost.cost_minor,
        ).where(UsageCost.account_id.in_(has_budget)),
    ):
        costs[account_id, start][metric_key, workspace] += cost
    statement = (
        select(Budget, BudgetPeriod.period_start, BudgetPeriod.spent_minor)
        .join(BudgetPeriod, BudgetPeriod.budget_id == Budget.id)
        .order_by(Budget.account_id, Budget.id, BudgetPeriod.period_start)
    )
    async for budget, start, spent_minor in stream(session, statement):
        known = starts[budget.account_id]
        if start not in known:
            continue  # without a subscription, or before it is opened: nothing was spent, or it is only foreseen
        parts = [(line, part_in(line, known, start)) for line in lines[budget.account_id]]
        reckoned = spent_under(budget.scope, budget.subject, parts, costs[budget.account_id, start])
        if reckoned != spent_minor:
            what = f"{budget.scope} {budget.subject}".strip()
            found.add(
                "I7",
                budget.account_id,
                f"The budget of {what} says that {spent_minor:,} is spent from {start}, and it is {reckoned:,}.",
            )
