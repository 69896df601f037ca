"""What is spent under budgets in each usage period: moved in the transaction that moves the spend, and acted on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select

from ..database import ReadSession, Work
from ..faults import reach
from ..models import (
    AlertKind,
    BillingAccount,
    Budget,
    BudgetAction,
    BudgetPeriod,
    NoticeSeverity,
    Subscription,
    WorkKind,
)
from .alerts import Reading, evaluate
from .calendars import period_of
from .costs import cost_anew, load_cost_totals, rate_of
from .due_work import enqueue
from .headroom import BudgetTerms
from .notices import clear_notice, raise_notice
from .rules.overage import Rate, cost_of
from .rules.periods import Period
from .rules.spending import spent_under
from .rules.transitions import RUNNING
from .spends import PAYING, foresee_lines, load_base, load_periods
from .standing import load_ratings
from .usage import load_figures

KEPT_PERIODS = 24
BLOCKED = "BUDGET_BLOCKED"
"""The notice that a budget stops usage."""


@dataclass(frozen=True)
class SpendMove:
    """Where the spend under a budget stands in a usage period, right after it or its limit moved.

    The account is locked.
    """

    account: BillingAccount
    subscription: Subscription | None
    budget: BudgetTerms
    period: Period
    limit_minor: int
    spent_minor: int

    def is_watched(self, now: datetime) -> bool:
        """Whether the period runs, and anything is told of the account."""
        is_left = self.subscription is not None and self.subscription.status not in RUNNING
        return self.period.start <= now < self.period.end and not is_left


def terms_of(budget: Budget) -> BudgetTerms:
    """What holds for a budget."""
    return BudgetTerms(budget.id, budget.scope, budget.subject, budget.action, budget.thresholds)


async def load_budgets(work: Work, account: BillingAccount) -> Sequence[Budget]:
    """The budgets of a locked account, oldest first."""
    rows = await work.session.scalars(
        select(Budget).where(Budget.account_id == account.id).order_by(Budget.created_at, Budget.id)
    )
    return rows.all()


async def reckon_spend(work: Work, account: BillingAccount, about: Collection[str]) -> None:
    """Put right what a locked account spends and what of its budgets that is, after lines, limits or periods changed.

    What usage costs is computed anew where it is off, and for the metrics in `about`, whose limits changed. Budgets are
    evaluated at once: one that was lowered under the spend acts now, and what no longer holds is resolved.
    """
    await work.session.flush()
    await _put_costs_right(work, account, about)
    budgets = await load_budgets(work, account)
    if budgets:
        now = work.clock.now_for(account)
        subscription, periods = await load_periods(ReadSession(work.session), account.id)
        running = period_of(account, subscription, periods, now)
        if running is not None:
            await _write_periods(work, account, budgets, [running])


async def open_periods(work: Work, account: BillingAccount, periods: Sequence[Period]) -> None:
    """Have the budgets of a locked account ready for usage periods that begin with what is used in them."""
    await _write_periods(work, account, await load_budgets(work, account), periods)


async def _put_costs_right(work: Work, account: BillingAccount, about: Collection[str]) -> None:
    session = ReadSession(work.session)
    wanted: dict[tuple[str, datetime], tuple[datetime, int, int, Rate]] = {}
    changed: set[tuple[str, datetime]] = set()
    for figure in (await load_figures(session, [account.id], work.clock.now()))[account.id]:
        if figure.period is not None:
            key = (figure.metric.key, figure.period.start)
            wanted[key] = (figure.period.end, figure.used, figure.allowed, rate_of(figure))
            if figure.metric.key in about:
                changed.add(key)
    for rated in (await load_ratings(session, [account.id]))[account.id]:
        rating = rated.rating
        rate = Rate(limit=rating.limit_quantity, block=rating.block, price_minor=rating.price_minor)
        key = (rating.metric_key, rating.period_start)
        wanted[key] = (rating.period_end, rated.used, rated.allowed, rate)
    stored: dict[tuple[str, datetime], int] = {}
    for (start, metric_key, _), cost in (
        await load_cost_totals(session, account.id, {start for _, start in wanted})
    ).items():
        stored[metric_key, start] = stored.get((metric_key, start), 0) + cost
    for key, (end, used, allowed, rate) in wanted.items():
        target = cost_of(used, allowed, rate)
        if stored.get(key, 0) != target or (target and key in changed):
            await cost_anew(work, account, key, end, used, allowed, rate)


async def _write_periods(
    work: Work, account: BillingAccount, budgets: Sequence[Budget], wanted: Sequence[Period]
) -> None:
    """Write what is spent under budgets in the usage periods wanted, and in those that are kept.

    Late usage reaches the last ones, and an invoice may be withdrawn for long.
    """
    session = ReadSession(work.session)
    rows = {
        (row.budget_id, row.period_start): row
        for row in await session.scalars(
            select(BudgetPeriod).where(BudgetPeriod.account_id == account.id).execution_options(populate_existing=True)
        )
    }
    subscription, stored = await load_periods(session, account.id)
    ends = {row.start_at: row.end_at for row in stored}  # one that was cut ends earlier than was thought
    known = {
        row.period_start: Period(row.period_start, ends.get(row.period_start, row.period_end)) for row in rows.values()
    }
    known |= {period.start: period for period in wanted}
    base = await load_base(session, account, stored, list(known))
    moves: list[SpendMove] = []
    for period in known.values():
        foreseen = await foresee_lines(session, account, subscription, period)
        parts, costs = base.parts_in(period.start, foreseen), base.costs_in(period.start)
        for budget in budgets:
            row = rows.get((budget.id, period.start))
            if row is None and period not in wanted:
                continue
            spent_minor = spent_under(budget.scope, budget.subject, parts, costs)
            if row is None:
                await unblock(work, account, budget)
            row = _put_period(work, account, budget, period, row, spent_minor, runs=period in wanted)
            moves.append(SpendMove(account, subscription, terms_of(budget), period, row.limit_minor, row.spent_minor))
    await work.session.flush()
    await _forget_old(work, budgets)
    await act_on_spend(work, moves, may_resolve=True)


def _put_period(
    work: Work,
    account: BillingAccount,
    budget: Budget,
    period: Period,
    row: BudgetPeriod | None,
    spent_minor: int,
    *,
    runs: bool,
) -> BudgetPeriod:
    limit_minor = budget.limit_minor if runs or row is None else row.limit_minor
    now = work.clock.now_for(account)
    if row is None:
        row = BudgetPeriod(
            budget_id=budget.id,
            account_id=account.id,
            period_start=period.start,
            period_end=period.end,
            limit_minor=limit_minor,
            spent_minor=spent_minor,
            changed_at=now,
            sequence=work.advance(account),
        )
        work.session.add(row)
    elif (row.period_end, row.limit_minor, row.spent_minor) != (period.end, limit_minor, spent_minor):
        row.period_end, row.limit_minor, row.spent_minor = period.end, limit_minor, spent_minor
        row.changed_at, row.sequence = now, work.advance(account)
    return row


async def _forget_old(work: Work, budgets: Sequence[Budget]) -> None:
    """Keep the running usage period and 24 before it."""
    place = func.row_number().over(partition_by=BudgetPeriod.budget_id, order_by=BudgetPeriod.period_start.desc())
    ranked = (
        select(BudgetPeriod.budget_id, BudgetPeriod.period_start, place.label("place"))
        .where(BudgetPeriod.budget_id.in_([budget.id for budget in budgets]))
        .subquery()
    )
    for budget_id, period_start in await work.session.execute(
        select(ranked.c.budget_id, ranked.c.period_start).where(ranked.c.place > KEPT_PERIODS + 1)
    ):
        await work.session.execute(
            delete(BudgetPeriod).where(BudgetPeriod.budget_id == budget_id, BudgetPeriod.period_start == period_start)
        )


async def move_periods(work: Work, moves: Sequence[SpendMove]) -> None:
    """Write what is spent under budgets of locked accounts after usage moved it: one statement."""
    names = (
        "budget_id",
        "period_start",
        "account_id",
        "period_end",
        "limit_minor",
        "spent_minor",
        "changed_at",
        "sequence",
    )
    rows = [
        (
            move.budget.id,
            move.period.start,
            move.account.id,
            move.period.end,
            move.limit_minor,
            move.spent_minor,
            work.clock.now_for(move.account),
            work.advance(move.account),
        )
        for move in moves
    ]
    await work.insert_many(BudgetPeriod, names, rows, setting=names[5:])


async def act_on_spend(work: Work, moves: Sequence[SpendMove], *, may_resolve: bool) -> None:
    """Raise the alerts of budgets whose spend or limit moved, and have plans upgraded where that is wanted.

    What no longer holds is resolved where it may be: not by a correction of usage. Nothing happens for a period that is
    not the running one, nor where the subscription is over.
    """
    running = [move for move in moves if move.is_watched(work.clock.now_for(move.account))]
    await evaluate(
        work,
        [
            Reading(
                move.account,
                AlertKind.BUDGET,
                str(move.budget.id),
                move.period,
                move.spent_minor,
                move.limit_minor,
                may_resolve,
                tuple(move.budget.thresholds),
            )
            for move in running
        ],
    )
    for move in running:
        pays = move.subscription is not None and move.subscription.status in PAYING
        if pays and move.budget.action is BudgetAction.UPGRADE and move.spent_minor >= move.limit_minor:
            # Once in a usage period, however many budgets ask for it.
            now = work.clock.now_for(move.account)
            await enqueue(work, move.account, WorkKind.UPGRADE_PLAN, move.period.start.isoformat(), now)
    reach("budget.acted")


async def tell_held(work: Work, account: BillingAccount, period_start: datetime) -> None:
    """Have the streams of a locked account tell its budgets anew: what reservations hold of them changed."""
    for row in await work.session.scalars(
        select(BudgetPeriod)
        .where(BudgetPeriod.account_id == account.id, BudgetPeriod.period_start == period_start)
        .order_by(BudgetPeriod.budget_id)
        .execution_options(populate_existing=True)
    ):
        row.changed_at, row.sequence = work.clock.now_for(account), work.advance(account)
    await work.session.flush()


async def note_blocked(work: Work, account: BillingAccount, budget_id: UUID, period_start: datetime) -> None:
    """Tell a locked account that a budget stops usage: once in a usage period and under one limit."""
    row = await work.session.get(BudgetPeriod, (budget_id, period_start), populate_existing=True)
    budget = await work.session.get(Budget, budget_id)
    if row is None or budget is None or row.blocked_at is not None:
        return
    row.blocked_at = row.changed_at = work.clock.now_for(account)
    row.sequence = work.advance(account)
    said = {
        "budgetId": str(budget.id),
        "scope": budget.scope,
        "subject": budget.subject,
        "spentMinor": row.spent_minor,
        "limitMinor": row.limit_minor,
        "currency": account.currency,
    }
    work.audit(account, "budget.blocked", f"budget:{budget.id}", after=said)
    work.emit(account, "budget.blocked", said)
    await raise_notice(
        work,
        account,
        BLOCKED,
        str(budget.id),
        severity=NoticeSeverity.CRITICAL,
        params={**said, "periodEnd": row.period_end},
        dismissible=True,
    )


async def unblock(work: Work, account: BillingAccount, budget: Budget) -> None:
    """A budget of a locked account changed, or a new usage period began: what it stopped is tried anew."""
    await clear_notice(work, account, BLOCKED, str(budget.id))
    for row in await work.session.scalars(
        select(BudgetPeriod).where(
            BudgetPeriod.budget_id == budget.id,
            BudgetPeriod.blocked_at.is_not(None),
            BudgetPeriod.period_end > work.clock.now_for(account),
        )
    ):
        row.blocked_at = None
