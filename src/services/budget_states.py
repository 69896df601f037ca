"""How budgets stand: what is spent of them, and what open reservations hold."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession
from ..models import BillingAccount, Budget, BudgetPeriod, Reservation, ReservationStatus, TestClock
from .rules.headroom import Held, Use, held_under
from .usage import UsageFigure

Holds = Mapping[str, Mapping[str, Held]]
"""What open reservations hold, by metric and workspace."""


@dataclass(frozen=True)
class BudgetState:
    """A budget, its newest usage period that has begun, and what is held of it."""

    budget: Budget
    currency: str
    period: BudgetPeriod | None
    held_minor: int


async def load_holds(session: ReadSession, account_ids: Sequence[UUID], now: datetime) -> list[Holds]:
    """What is held in each account, in the accounts' order: one statement for all."""
    at = func.coalesce(TestClock.now, now)
    rows = await session.execute(
        select(
            Reservation.account_id,
            Reservation.metric_key,
            Reservation.workspace,
            func.sum(Reservation.quantity),
            func.count(),
        )
        .join(BillingAccount, BillingAccount.id == Reservation.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(
            Reservation.account_id.in_(account_ids),
            Reservation.status == ReservationStatus.HELD,
            Reservation.expires_at > at,
        )
        .group_by(Reservation.account_id, Reservation.metric_key, Reservation.workspace)
    )
    found: dict[UUID, dict[str, dict[str, Held]]] = defaultdict(lambda: defaultdict(dict))
    for account_id, metric_key, workspace, quantity, count in rows:
        found[account_id][metric_key][workspace] = Held(int(quantity), count)
    return [found[account_id] for account_id in account_ids]


def state_of(
    account: BillingAccount,
    budget: Budget,
    periods: Sequence[BudgetPeriod],
    figures: Sequence[UsageFigure],
    holds: Holds | None,
    now: datetime,
) -> BudgetState:
    """How a budget stands at an instant, from its usage periods, newest first.

    While the worker is a moment behind, that is still the period before. Who holds what matters to workspaces only.
    """
    period = next((row for row in periods if row.period_start <= now), None)
    uses = {
        figure.metric.key: Use(
            figure.rate,
            figure.used,
            figure.allowed,
            {"": Held(figure.held, 1)} if holds is None else holds.get(figure.metric.key, {}),
        )
        for figure in figures
        if figure.period is not None
    }
    return BudgetState(budget, account.currency, period, held_under(budget.scope, budget.subject, uses))
