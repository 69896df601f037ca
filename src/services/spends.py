"""What an account spends in a usage period: lines in the parts that fall into it, and what usage costs."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, func, or_, select

from ..database import ReadSession
from ..models import (
    BillingAccount,
    Granularity,
    Interval,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    ScheduledChange,
    Subscription,
    SubscriptionStatus,
    TestClock,
    UsagePeriod,
    UsageRollup,
)
from ..models.types import UTC
from .costs import load_cost_totals
from .pricing import kept_units
from .relations import load_held_add_ons
from .rules.periods import MONTHS, Period
from .rules.spending import BY_USAGE, SpentLine, part_in

PAYING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


@dataclass(frozen=True)
class SpendBase:
    """What an account's spend in some usage periods is made of."""

    periods: Sequence[UsagePeriod]
    """All that were stored, oldest first."""
    lines: Sequence[SpentLine]
    costs: dict[tuple[datetime, str, str], int] = field(default_factory=dict[tuple[datetime, str, str], int])
    """What usage cost, by period, metric and workspace."""

    def parts_in(self, period_start: datetime, more: Sequence[SpentLine] = ()) -> list[tuple[SpentLine, int]]:
        """The lines, and `more` of them, with what of each is spent in a usage period."""
        starts = sorted({*(row.start_at for row in self.periods), period_start})
        return [(line, part) for line in (*self.lines, *more) if (part := part_in(line, starts, period_start))]

    def costs_in(self, period_start: datetime) -> dict[tuple[str, str], int]:
        """What usage of a period cost, by metric and workspace."""
        return {
            (metric_key, workspace): cost
            for (start, metric_key, workspace), cost in self.costs.items()
            if start == period_start
        }


async def load_spent_lines(
    session: ReadSession, account_ids: Collection[UUID], start: datetime, end: datetime | None = None
) -> dict[UUID, list[SpentLine]]:
    """The lines of which something may be spent from an instant on, and before another: drafts' too.

    What was withdrawn is not spent, nor are credit notes; what charges for usage is spent as that is used.
    """
    rows = await session.execute(
        select(
            InvoiceLine.account_id,
            InvoiceLine.kind,
            InvoiceLine.period_start,
            InvoiceLine.amount_minor,
            InvoiceLine.usage_periods,
            InvoiceLine.metric_key,
        )
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(
            InvoiceLine.account_id.in_(account_ids),
            InvoiceLine.kind.not_in(BY_USAGE),
            Invoice.status != InvoiceStatus.VOID,
            # What is spent in parts reaches from far back.
            or_(InvoiceLine.usage_periods > 1, InvoiceLine.period_start >= start),
            *(() if end is None else (InvoiceLine.period_start < end,)),
        )
    )
    found: dict[UUID, list[SpentLine]] = defaultdict(list)
    for account_id, kind, at, amount_minor, usage_periods, metric_key in rows:
        found[account_id].append(SpentLine(kind, at, amount_minor, usage_periods, metric_key))
    return found


async def load_certain(session: ReadSession, account_ids: Sequence[UUID], now: datetime) -> list[int | None]:
    """What of each account's running usage period is spent whatever is used: all but its overage, in minor units.

    In the accounts' order; none for one whose running period is not opened. Two statements for all.
    """
    rows = await session.execute(
        select(UsagePeriod, func.coalesce(TestClock.now, now, type_=UTC()))
        .join(BillingAccount, BillingAccount.id == UsagePeriod.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(UsagePeriod.account_id.in_(account_ids))
        .order_by(UsagePeriod.start_at)
    )
    periods: dict[UUID, list[UsagePeriod]] = defaultdict(list)
    running: dict[UUID, datetime] = {}
    for period, at in rows:
        periods[period.account_id].append(period)
        if period.start_at <= at < period.end_at:
            running[period.account_id] = period.start_at
    lines = await load_spent_lines(session, running.keys(), min(running.values())) if running else {}
    return [
        sum(part for _, part in SpendBase(periods[id_], lines.get(id_, ())).parts_in(running[id_]))
        if id_ in running
        else None
        for id_ in account_ids
    ]


Shares = Mapping[str, Mapping[str, int]]
"""What workspaces used of each metric."""


async def load_shares(session: ReadSession, account_ids: Sequence[UUID], now: datetime) -> list[Shares]:
    """What each account's workspaces used in the running usage period, in the accounts' order: one statement."""
    at = func.coalesce(TestClock.now, now)
    rows = await session.execute(
        select(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.workspace, func.sum(UsageRollup.quantity))
        .join(BillingAccount, BillingAccount.id == UsageRollup.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .join(
            UsagePeriod,
            and_(UsagePeriod.account_id == UsageRollup.account_id, UsagePeriod.start_at <= at, UsagePeriod.end_at > at),
        )
        .where(
            UsageRollup.account_id.in_(account_ids),
            UsageRollup.granularity == Granularity.HOUR,
            UsageRollup.start_at >= UsagePeriod.start_at,
        )
        .group_by(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.workspace)
    )
    found: dict[UUID, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for account_id, metric_key, workspace, quantity in rows:
        found[account_id][metric_key][workspace] = max(0, int(quantity))
    return [found[account_id] for account_id in account_ids]


async def load_base(
    session: ReadSession, account: BillingAccount, periods: Sequence[UsagePeriod], starts: Sequence[datetime]
) -> SpendBase:
    """What the spend of some usage periods of an account is made of, by their starts: two statements."""
    lines = (await load_spent_lines(session, [account.id], min(starts))).get(account.id, [])
    return SpendBase(periods, lines, await load_cost_totals(session, account.id, starts))


async def load_periods(session: ReadSession, account_id: UUID) -> tuple[Subscription | None, list[UsagePeriod]]:
    """An account's subscription, and its stored usage periods, oldest first."""
    subscription = await session.scalar(select(Subscription).where(Subscription.account_id == account_id))
    periods = await session.scalars(
        select(UsagePeriod).where(UsagePeriod.account_id == account_id).order_by(UsagePeriod.start_at)
    )
    return subscription, list(periods)


async def foresee_lines(
    session: ReadSession, account: BillingAccount, subscription: Subscription | None, period: Period
) -> list[SpentLine]:
    """The lines that a usage period will begin with which has not been opened yet: the worker may be behind.

    None where it runs already, or nothing is to come.
    """
    if subscription is None or subscription.status not in PAYING or period.start < subscription.usage_period_end:
        return []
    renews = period.start >= subscription.current_period_end
    if renews and subscription.cancel_at_period_end:
        return []
    lines = []
    if renews:
        scheduled = await session.scalar(select(ScheduledChange).where(ScheduledChange.account_id == account.id))
        terms = scheduled or subscription
        lines.append(
            SpentLine(
                LineKind.SUBSCRIPTION,
                subscription.current_period_end if terms.interval is Interval.YEAR else period.start,
                terms.price_minor,
                MONTHS[terms.interval],
            )
        )
    for unit in kept_units((await load_held_add_ons(session, [account.id]))[0]):
        amount_minor = unit.quantity * unit.price_minor
        lines.append(SpentLine(LineKind.ADD_ON, period.start, amount_minor, 1, unit.add_on.metric_key))
    return lines
