"""What an account spends in a usage period: lines in the parts that fall into it, and what usage costs."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.orm import aliased

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
from .relations import HeldAddOn, load_held_add_ons
from .rules.periods import MONTHS, Period
from .rules.spending import BY_USAGE, SpentLine, part_in

PAYING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


@dataclass(frozen=True)
class SpendBase:
    """What an account's spend in some usage periods is made of."""

    starts: Sequence[datetime]
    """Where the usage periods begin that were stored."""
    lines: Sequence[SpentLine]
    costs: dict[tuple[datetime, str, str], int] = field(default_factory=dict[tuple[datetime, str, str], int])
    """What usage cost, by period, metric and workspace."""

    def parts_in(self, period_start: datetime, more: Sequence[SpentLine] = ()) -> list[tuple[SpentLine, int]]:
        """The lines, and `more` of them, with what of each is spent in a usage period."""
        starts = sorted({*self.starts, period_start})
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
    statement, since = select_spent_lines()
    # What is spent in parts reaches from far back.
    statement = statement.where(
        InvoiceLine.account_id.in_(account_ids), or_(InvoiceLine.usage_periods > 1, since >= start)
    )
    if end is not None:
        statement = statement.where(since < end)
    found: dict[UUID, list[SpentLine]] = defaultdict(list)
    for account_id, kind, at, amount_minor, usage_periods, metric_key in await session.execute(statement):
        found[account_id].append(SpentLine(kind, at, amount_minor, usage_periods, metric_key))
    return found


def select_spent_lines() -> tuple[Select[*tuple[Any, ...]], ColumnElement[datetime]]:
    """The lines that are spent, and from when on: account, kind, since when, amount, usage periods, metric.

    What is given back of a single usage period is given back of that one, also where the credit is for a time after
    it: a period that was cut has its unused rest beyond its end.
    """
    credited = aliased(InvoiceLine)
    since = case((credited.usage_periods == 1, credited.period_start), else_=InvoiceLine.period_start)
    statement = (
        select(
            InvoiceLine.account_id,
            InvoiceLine.kind,
            since,
            InvoiceLine.amount_minor,
            InvoiceLine.usage_periods,
            InvoiceLine.metric_key,
        )
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .outerjoin(credited, credited.id == InvoiceLine.credited_line_id)
        .where(InvoiceLine.kind.not_in(BY_USAGE), Invoice.status != InvoiceStatus.VOID)
    )
    return statement, since


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
    starts: dict[UUID, list[datetime]] = defaultdict(list)
    running: dict[UUID, datetime] = {}
    for period, at in rows:
        starts[period.account_id].append(period.start_at)
        if period.start_at <= at < period.end_at:
            running[period.account_id] = period.start_at
    lines = await load_spent_lines(session, running.keys(), min(running.values())) if running else {}
    return [
        sum(part for _, part in SpendBase(starts[id_], lines.get(id_, ())).parts_in(running[id_]))
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


async def load_bases(
    session: ReadSession, account_ids: Collection[UUID], starts: Collection[datetime]
) -> dict[UUID, SpendBase]:
    """What the spend of accounts in usage periods is made of, by the starts of these: three statements for all."""
    begun: dict[UUID, list[datetime]] = defaultdict(list)
    for account_id, start in await session.execute(
        select(UsagePeriod.account_id, UsagePeriod.start_at).where(UsagePeriod.account_id.in_(account_ids))
    ):
        begun[account_id].append(start)
    lines = await load_spent_lines(session, account_ids, min(starts))
    costs = await load_cost_totals(session, account_ids, starts)
    return {id_: SpendBase(begun[id_], lines.get(id_, []), costs.get(id_, {})) for id_ in account_ids}


async def load_periods(session: ReadSession, account_id: UUID) -> tuple[Subscription | None, list[UsagePeriod]]:
    """An account's subscription, and its stored usage periods, oldest first."""
    subscription = await session.scalar(select(Subscription).where(Subscription.account_id == account_id))
    periods = await session.scalars(
        select(UsagePeriod).where(UsagePeriod.account_id == account_id).order_by(UsagePeriod.start_at)
    )
    return subscription, list(periods)


@dataclass(frozen=True)
class ToCome:
    """What an account's next periods are charged by: a change of plan that waits, and add-ons that go on."""

    scheduled: ScheduledChange | None
    add_ons: Sequence[HeldAddOn]


async def load_to_come(session: ReadSession, account_ids: Sequence[UUID]) -> dict[UUID, ToCome]:
    """What comes next of each account: two statements for all."""
    rows = await session.scalars(select(ScheduledChange).where(ScheduledChange.account_id.in_(account_ids)))
    scheduled = {row.account_id: row for row in rows}
    held = await load_held_add_ons(session, account_ids)
    return {id_: ToCome(scheduled.get(id_), add_ons) for id_, add_ons in zip(account_ids, held, strict=True)}


def is_to_open(subscription: Subscription | None, period: Period) -> bool:
    """Whether a usage period will begin with lines that are not made yet: the worker may be behind, or usage ahead."""
    return (
        subscription is not None
        and subscription.status in PAYING
        and period.start >= subscription.usage_period_end
        and not (subscription.cancel_at_period_end and period.start >= subscription.current_period_end)
    )


def foresee_lines(subscription: Subscription | None, to_come: ToCome, period: Period) -> list[SpentLine]:
    """The lines that a usage period will begin with which is not opened yet; none of others."""
    if subscription is None or not is_to_open(subscription, period):
        return []
    lines = []
    if period.start >= subscription.current_period_end:
        terms = to_come.scheduled or subscription
        starts = subscription.current_period_end if terms.interval is Interval.YEAR else period.start
        lines.append(SpentLine(LineKind.SUBSCRIPTION, starts, terms.price_minor, MONTHS[terms.interval]))
    for unit in kept_units(to_come.add_ons):
        amount_minor = unit.quantity * unit.price_minor
        lines.append(SpentLine(LineKind.ADD_ON, period.start, amount_minor, 1, unit.add_on.metric_key))
    return lines
