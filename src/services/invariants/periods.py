"""I8: periods follow each other, and each is billed once."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from ...database import ReadSession
from ...models import (
    DueWork,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Subscription,
    SubscriptionEvent,
    SubscriptionStatus,
    UsagePeriod,
    WorkKind,
)
from ..rules.money import share_of
from ..rules.proration import seconds_between
from ..rules.transitions import RUNNING
from .reading import Findings, credits_of_lines, stream


def _first_cancelled(account_id: Any, since: Any) -> ColumnElement[Any]:
    """When a subscription was first cancelled from an instant on."""
    return (
        select(func.min(SubscriptionEvent.created_at))
        .where(
            SubscriptionEvent.account_id == account_id,
            SubscriptionEvent.to_status == SubscriptionStatus.CANCELED,
            SubscriptionEvent.created_at >= since,
        )
        .scalar_subquery()
    )


def _is_between(cancelled_at: datetime | None, until: datetime) -> bool:
    # What begins anew begins at a whole second.
    return cancelled_at is not None and cancelled_at.replace(microsecond=0) <= until


async def check_usage_periods(session: ReadSession, found: Findings) -> None:
    """Usage periods touch and do not overlap, but for the time from a cancellation to a new start."""
    of_account, by_start = UsagePeriod.account_id, (UsagePeriod.start_at, UsagePeriod.end_at)
    periods = select(
        UsagePeriod.account_id,
        UsagePeriod.start_at,
        UsagePeriod.end_at,
        UsagePeriod.closed_at,
        func.lag(UsagePeriod.end_at, type_=UsagePeriod.end_at.type)
        .over(partition_by=of_account, order_by=by_start)
        .label("before"),
        func.lead(UsagePeriod.start_at, type_=UsagePeriod.start_at.type)
        .over(partition_by=of_account, order_by=by_start)
        .label("follows"),
    ).subquery()
    statement = (
        select(periods, _first_cancelled(periods.c.account_id, periods.c.before))
        .where(
            or_(
                periods.c.before != periods.c.start_at,
                and_(periods.c.follows.is_not(None), periods.c.closed_at.is_(None)),
            )
        )
        .order_by(periods.c.account_id, periods.c.start_at)
    )
    async for account_id, start, end, closed_at, before, follows, cancelled_at in stream(session, statement):
        if before is not None and start < before:
            found.add("I8", account_id, f"The usage period from {start} begins before the last one ends ({before}).")
        elif before is not None and start > before and not _is_between(cancelled_at, start):
            found.add("I8", account_id, f"Between {before} and {start} there is no usage period, and no cancellation.")
        if follows is not None and closed_at is None:
            found.add("I8", account_id, f"The usage period from {start} to {end} was never closed.")


async def check_subscriptions(session: ReadSession, found: Findings) -> None:
    """The running period is the last one, within a billing period that was billed."""
    latest = (
        select(UsagePeriod.account_id, func.min(UsagePeriod.start_at), func.max(UsagePeriod.start_at))
        .group_by(UsagePeriod.account_id)
        .subquery()
    )
    first_at, last_at = list(latest.c)[1:]
    is_billed = (
        select(InvoiceLine.id)
        .where(
            InvoiceLine.account_id == Subscription.account_id,
            InvoiceLine.plan_key.is_not(None),
            InvoiceLine.amount_minor > 0,
            InvoiceLine.period_end == Subscription.current_period_end,
        )
        .exists()
    )
    waits = (
        select(DueWork.id)
        .where(
            DueWork.account_id == Subscription.account_id,
            DueWork.kind == WorkKind.FINALISE_INVOICE,
            DueWork.done_at.is_(None),
        )
        .exists()
    )
    statement = (
        select(
            Subscription,
            UsagePeriod,
            first_at,
            last_at,
            or_(is_billed, waits),
            _first_cancelled(Subscription.account_id, Subscription.started_at),
        )
        .outerjoin(
            UsagePeriod,
            and_(
                UsagePeriod.account_id == Subscription.account_id,
                UsagePeriod.start_at == Subscription.usage_period_start,
            ),
        )
        .outerjoin(latest, latest.c.account_id == Subscription.account_id)
        .where(Subscription.status != SubscriptionStatus.EXPIRED)
        .order_by(Subscription.id)
    )
    async for subscription, period, first, last, is_settled, cancelled_at in stream(session, statement):
        for wrong in _judge_subscription(subscription, period, first, last, cancelled_at, is_settled=is_settled):
            found.add("I8", subscription.account_id, f"{wrong}.")


def _judge_subscription(
    subscription: Subscription,
    period: UsagePeriod | None,
    first: datetime | None,
    last: datetime | None,
    cancelled_at: datetime | None,
    *,
    is_settled: bool,
) -> Iterable[str]:
    start, end = subscription.usage_period_start, subscription.usage_period_end
    is_running = subscription.status in RUNNING
    if period is None and not is_running and subscription.canceled_at == start == end:
        return  # it was cancelled as its period began: one in which nothing was served is not kept
    if period is None:
        yield f"The subscription runs in a usage period from {start}, which does not exist"
        return
    if period.end_at != end or last != start:
        yield f"The subscription's usage period is {start} to {end}, and the last one {last} (to {period.end_at})"
    if (period.closed_at is None) != is_running:
        state = "open" if period.closed_at is None else "closed"
        yield f"The subscription is {subscription.status.lower()}, and its usage period from {start} is {state}"
    if first != subscription.started_at and not _ended_as_it_began(subscription, cancelled_at):
        yield f"The subscription started at {subscription.started_at}, and its first usage period at {first}"
    if subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
        return
    if not subscription.current_period_start <= start <= end <= subscription.current_period_end:
        yield f"The usage period {start} to {end} is not within its billing period"
    if subscription.price_minor and not is_settled:
        yield f"The billing period to {subscription.current_period_end} was never billed"


def _ended_as_it_began(subscription: Subscription, cancelled_at: datetime | None) -> bool:
    """Whether it was cancelled at the instant of its start: then its first period was not kept."""
    return cancelled_at is not None and cancelled_at.replace(microsecond=0) == subscription.started_at


async def check_plan_lines(session: ReadSession, found: Findings) -> None:
    """No time of a plan is charged twice: an earlier line ends where it was credited from, or by a cancellation."""
    credited = credits_of_lines(InvoiceStatus.DRAFT, InvoiceStatus.VOID)
    line = aliased(InvoiceLine)
    charged = (
        select(
            line.account_id,
            line.id,
            Invoice.number,
            line.description,
            line.amount_minor,
            line.period_start,
            line.period_end,
            case(
                (credited.c.starts_at < line.period_end, credited.c.starts_at),
                else_=line.period_end,
            ).label("ends_at"),
        )
        .join(Invoice, Invoice.id == line.invoice_id)
        .outerjoin(credited, credited.c.line_id == line.id)
        .where(
            line.plan_key.is_not(None),
            line.kind.in_((LineKind.SUBSCRIPTION, LineKind.PRORATION)),
            line.amount_minor > 0,
            # What was withdrawn or given up is not charged.
            Invoice.status.in_((InvoiceStatus.OPEN, InvoiceStatus.PAID)),
        )
        .subquery()
    )
    of_account, by_start = charged.c.account_id, (charged.c.period_start, charged.c.ends_at, charged.c.id)
    before = [
        func.lag(column, type_=column.type)
        .over(partition_by=of_account, order_by=by_start)
        .label(f"before_{column.name}")
        for column in charged.c
    ]
    pairs = select(charged, *before).subquery()
    statement = (
        select(pairs, _first_cancelled(pairs.c.account_id, pairs.c.before_period_start).label("cancelled_at"))
        .where(pairs.c.before_ends_at > pairs.c.period_start, pairs.c.ends_at > pairs.c.period_start)
        .order_by(pairs.c.account_id, pairs.c.period_start)
    )
    async for row in stream(session, statement):
        if _is_between(row.cancelled_at, row.period_start):
            continue
        until = min(row.before_ends_at, row.ends_at)
        twice = seconds_between(row.period_start, until)
        whole = seconds_between(row.before_period_start, row.before_period_end)
        # A credit for so short a time that it rounds to nothing is left out.
        if share_of(row.before_amount_minor, twice, whole) <= 1 and twice < 3_600:
            continue
        found.add(
            "I8",
            row.account_id,
            f"{row.period_start} to {until} is charged twice: by “{row.before_description}” of {row.before_number} and "
            f"“{row.description}” of {row.number}.",
        )


async def check_causes(session: ReadSession, found: Findings) -> None:
    """One invoice for each cause."""
    statement = (
        select(Invoice.account_id, Invoice.cause, func.count())
        .group_by(Invoice.account_id, Invoice.cause)
        .having(func.count() > 1)
        .order_by(Invoice.account_id, Invoice.cause)
    )
    async for account_id, cause, count in stream(session, statement):
        found.add("I8", account_id, f"There are {count} invoices for {cause}.")
