"""What is spent under budgets in each usage period: moved in the transaction that moves the spend, and acted on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, tuple_

from ..database import ReadSession, Work
from ..models import (
    AlertKind,
    BillingAccount,
    Budget,
    BudgetAction,
    BudgetPeriod,
    NoticeSeverity,
    Subscription,
    UsagePeriod,
    WorkKind,
)
from .alerts import Reading, evaluate
from .calendars import period_of
from .costs import cost_anew, load_cost_totals
from .due_work import enqueue
from .notices import clear_notice, clear_notices, raise_notice
from .rules.headroom import BudgetTerms
from .rules.overage import Rate, cost_of
from .rules.periods import Period
from .rules.spending import SpentLine, spent_under
from .rules.transitions import RUNNING
from .spends import PAYING, foresee_lines, is_to_open, load_bases, load_periods, load_to_come
from .standing import load_ratings
from .usage import load_figures

KEPT_PERIODS = 24
BLOCKED = "BUDGET_BLOCKED"
"""The notice that a budget stops usage."""
UPGRADED, NOT_UPGRADED = "BUDGET_UPGRADED", "BUDGET_NOT_UPGRADED"
"""What became of a change to the next plan."""


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
    may_resolve: bool = False
    """Whether it can undo what was reached: a correction of usage does not."""

    def is_watched(self, now: datetime) -> bool:
        """Whether the period runs, and anything is told of the account."""
        is_left = self.subscription is not None and self.subscription.status not in RUNNING
        return self.period.start <= now < self.period.end and not is_left


def terms_of(budget: Budget) -> BudgetTerms:
    """What holds for a budget."""
    return BudgetTerms(budget.id, budget.scope, budget.subject, budget.action, budget.thresholds, budget.limit_minor)


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
        await _write_periods(work, account, budgets)


async def _put_costs_right(work: Work, account: BillingAccount, about: Collection[str]) -> None:
    session = ReadSession(work.session)
    wanted: dict[tuple[str, datetime], tuple[datetime, int, int, Rate]] = {}
    changed: set[tuple[str, datetime]] = set()
    for figure in (await load_figures(session, [account.id], work.clock.now()))[account.id]:
        if figure.period is not None:
            key = (figure.metric.key, figure.period.start)
            wanted[key] = (figure.period.end, figure.used, figure.allowed, figure.rate)
            if figure.metric.key in about:
                changed.add(key)
    for rated in (await load_ratings(session, [account.id]))[account.id]:
        rating = rated.rating
        rate = Rate(limit=rating.limit_quantity, block=rating.block, price_minor=rating.price_minor)
        key = (rating.metric_key, rating.period_start)
        wanted[key] = (rating.period_end, rated.used, rated.allowed, rate)
    stored: dict[tuple[str, datetime], int] = {}
    totals = await load_cost_totals(session, [account.id], {start for _, start in wanted})
    for (start, metric_key, _), cost in totals.get(account.id, {}).items():
        stored[metric_key, start] = stored.get((metric_key, start), 0) + cost
    for key, (end, used, allowed, rate) in wanted.items():
        target = cost_of(used, allowed, rate)
        if stored.get(key, 0) != target or (target and key in changed):
            await cost_anew(work, account, key, end, used, allowed, rate)


async def _write_periods(work: Work, account: BillingAccount, budgets: Sequence[Budget]) -> None:
    """Write what is spent under budgets in the running usage period, and in those that are kept.

    Late usage reaches the last ones, and an invoice may be withdrawn for long.
    """
    session, now = ReadSession(work.session), work.clock.now_for(account)
    subscription, stored = await load_periods(session, account.id)
    running = period_of(account, subscription, stored, now)
    if running is None:
        return
    rows = await _load_rows(work, account, running, stored)
    known = {row.period_start: Period(row.period_start, row.period_end) for row in rows.values()}
    known[running.start] = running
    base = (await load_bases(session, [account.id], known))[account.id]
    foreseen: Sequence[SpentLine] = ()
    if is_to_open(subscription, running):
        foreseen = foresee_lines(subscription, (await load_to_come(session, [account.id]))[account.id], running)
    is_new, moves = False, list[SpendMove]()
    for period in known.values():
        parts = base.parts_in(period.start, foreseen if period == running else ())
        costs = base.costs_in(period.start)
        for budget in budgets:
            row = rows.get((budget.id, period.start))
            if row is None and period != running:
                continue
            is_new |= row is None
            spent_minor = spent_under(budget.scope, budget.subject, parts, costs)
            row, eases = _put_period(work, account, budget, period, row, spent_minor)
            rows[budget.id, period.start] = row
            move = SpendMove(
                account, subscription, terms_of(budget), period, row.limit_minor, row.spent_minor, may_resolve=eases
            )
            moves.append(move)
    await work.session.flush()
    await _forget_old(work, budgets)
    blocked = {str(id_) for (id_, start), row in rows.items() if start == running.start and row.blocked_at is not None}
    await clear_notices(work, account, (BLOCKED,), but=blocked)
    if is_new:
        await clear_notices(work, account, (UPGRADED, NOT_UPGRADED))
    await act_on_spend(work, moves)


async def _load_rows(
    work: Work, account: BillingAccount, running: Period, stored: Sequence[UsagePeriod]
) -> dict[tuple[UUID, datetime], BudgetPeriod]:
    """What is kept of the budgets of a locked account, with the ends that their periods have by now.

    Rows of periods that did not come to be are dropped: usage a moment ahead may have made them before the period's
    end was moved. Those of a period to come are made anew when it begins.
    """
    ends = {row.start_at: row.end_at for row in stored} | {running.start: running.end}
    found: dict[tuple[UUID, datetime], BudgetPeriod] = {}
    for row in await work.session.scalars(
        select(BudgetPeriod).where(BudgetPeriod.account_id == account.id).execution_options(populate_existing=True)
    ):
        start = row.period_start
        is_other = start not in ends and any(begun < row.period_end and start < end for begun, end in ends.items())
        if is_other or start > running.start:
            await work.session.delete(row)
        else:
            row.period_end = ends.get(start, row.period_end)
            found[row.budget_id, start] = row
    return found


def _put_period(
    work: Work, account: BillingAccount, budget: Budget, period: Period, row: BudgetPeriod | None, spent_minor: int
) -> tuple[BudgetPeriod, bool]:
    """Write what is spent in a period. Also tells whether it is less, or may be more, than before: then what was
    reached may be undone, and what was refused be tried again."""
    now = work.clock.now_for(account)
    if row is None:
        row = BudgetPeriod(
            budget_id=budget.id,
            account_id=account.id,
            period_start=period.start,
            period_end=period.end,
            limit_minor=budget.limit_minor,
            spent_minor=spent_minor,
            changed_at=now,
            sequence=work.advance(account),
        )
        work.session.add(row)
        return row, False
    limit_minor = budget.limit_minor if now < period.end else row.limit_minor
    eases = limit_minor != row.limit_minor or spent_minor < row.spent_minor
    if (row.limit_minor, row.spent_minor) != (limit_minor, spent_minor):
        row.limit_minor, row.spent_minor = limit_minor, spent_minor
        row.changed_at, row.sequence = now, work.advance(account)
        if eases:
            row.blocked_at = None
    return row, eases


async def _forget_old(work: Work, budgets: Sequence[Budget]) -> None:
    """Keep the running usage period and 24 before it."""
    place = func.row_number().over(partition_by=BudgetPeriod.budget_id, order_by=BudgetPeriod.period_start.desc())
    ranked = (
        select(BudgetPeriod.budget_id, BudgetPeriod.period_start, place.label("place"))
        .where(BudgetPeriod.budget_id.in_([budget.id for budget in budgets]))
        .subquery()
    )
    old = select(ranked.c.budget_id, ranked.c.period_start).where(ranked.c.place > KEPT_PERIODS + 1)
    await work.session.execute(
        delete(BudgetPeriod)
        .where(tuple_(BudgetPeriod.budget_id, BudgetPeriod.period_start).in_(old))
        .execution_options(synchronize_session=False)
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


async def act_on_spend(work: Work, moves: Sequence[SpendMove]) -> None:
    """Raise and resolve the alerts of budgets whose spend or limit moved, and have plans upgraded where that is wanted.

    Nothing happens for a period that is not the running one, nor where the subscription is over.
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
                move.may_resolve,
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
    """What a budget of a locked account does was changed, or it is removed: what it stopped is tried anew."""
    await clear_notice(work, account, BLOCKED, str(budget.id))
    for row in await work.session.scalars(
        select(BudgetPeriod).where(
            BudgetPeriod.budget_id == budget.id,
            BudgetPeriod.blocked_at.is_not(None),
            BudgetPeriod.period_end > work.clock.now_for(account),
        )
    ):
        row.blocked_at = None
        row.changed_at, row.sequence = work.clock.now_for(account), work.advance(account)
