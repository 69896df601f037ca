"""I7: the usage that was acknowledged is the usage that is stored and the usage that is rated; each is rated once."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Subquery, and_, case, exists, func, literal, null, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute

from ...database import ReadSession
from ...models import (
    GAUGE_PERIOD,
    BillingAccount,
    Counter,
    Granularity,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    Metric,
    MetricKind,
    UsageEvent,
    UsageEventId,
    UsagePeriod,
    UsageRating,
    UsageRollup,
)
from ...models.types import UTC
from .reading import Findings, or_0, since_purge, stream, sum_of

SURELY_KEPT = timedelta(days=100)
"""Raw events are let go after this at the earliest: then the history alone tells what they came to."""


async def check_usage(session: ReadSession, found: Findings, now: datetime) -> None:
    """Ids, events, figures and roll-ups agree; what is closed has its rating, and is charged by it once."""
    since = now - SURELY_KEPT
    await _check_ids(session, found, since)
    await _check_figures(session, found, since)
    await _check_rollups(session, found)
    await _check_ratings(session, found)
    await _check_charged(session, found)


def _on_test_clock(account_id: InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """That an account lives by a clock of its own: nothing of it is let go by ours."""
    return exists().where(BillingAccount.id == account_id, BillingAccount.test_clock_id.is_not(None))


async def _check_ids(session: ReadSession, found: Findings, since: datetime) -> None:
    """Each id that was acknowledged has one event, and each event its id."""
    both = union_all(
        select(
            UsageEventId.account_id, UsageEventId.event_id, literal(1).label("ids"), literal(0).label("events")
        ).where(or_(UsageEventId.accepted_at >= since, _on_test_clock(UsageEventId.account_id))),
        select(UsageEvent.account_id, UsageEvent.event_id, literal(0), literal(1)).where(
            or_(UsageEvent.accepted_at >= since, _on_test_clock(UsageEvent.account_id))
        ),
    ).subquery()
    ids, events = sum_of(both.c.ids), sum_of(both.c.events)
    statement = (
        select(both.c.account_id, both.c.event_id, ids, events)
        .group_by(both.c.account_id, both.c.event_id)
        .having(or_(ids != 1, events != 1))
        .order_by(both.c.account_id, both.c.event_id)
    )
    async for account_id, event_id, known, stored in stream(session, statement):
        told = "was accepted" if known else "was never accepted"
        found.add("I7", account_id, f"The usage event {event_id!r} {told}, and is stored {stored} times.")


def _compare_figures() -> Subquery:
    """What is counted beside the sum of its events, by metric and period; of a gauge over all time."""
    is_gauge = Metric.kind == MetricKind.GAUGE
    period = case((is_gauge, literal(GAUGE_PERIOD, UTC())), else_=UsageEvent.period_start)
    both = union_all(
        select(
            Counter.account_id,
            Counter.metric_key,
            Counter.period_start,
            Counter.used.label("used"),
            literal(0).label("sum"),
            null().label("lowest"),
        ),
        select(
            UsageEvent.account_id,
            UsageEvent.metric_key,
            period,
            literal(0),
            func.sum(UsageEvent.change),
            func.min(UsageEvent.change),
        )
        .join(Metric, Metric.key == UsageEvent.metric_key)
        .group_by(UsageEvent.account_id, UsageEvent.metric_key, period),
    ).subquery()
    key = (both.c.account_id, both.c.metric_key, both.c.period_start)
    figures = select(
        *key,
        sum_of(both.c.used).label("used"),
        sum_of(both.c.sum).label("sum"),
        func.min(both.c.lowest).label("lowest"),
    ).group_by(*key)
    return figures.subquery()


async def _check_figures(session: ReadSession, found: Findings, since: datetime) -> None:
    figures = _compare_figures()
    of_metric = (figures.c.account_id, figures.c.metric_key)
    beside = (
        select(
            figures,
            func.sum(figures.c.used - figures.c.sum).over(partition_by=of_metric).label("rest"),
            func.min(figures.c.lowest).over(partition_by=of_metric).label("lowest_of_all"),
        )
        .join(BillingAccount, BillingAccount.id == figures.c.account_id)
        # Of an older period, and of a gauge of an older account, events may have been let go.
        .where(
            or_(
                figures.c.period_start >= since,
                BillingAccount.created_at >= since,
                BillingAccount.test_clock_id.is_not(None),
            )
        )
        .subquery()
    )
    statement = (
        select(beside.c.account_id, beside.c.metric_key, beside.c.period_start, beside.c.used, beside.c.sum)
        .where(
            beside.c.used != beside.c.sum,
            # Where a period was cut, a correction of its second part stays with the first one, below which none falls:
            # then the two differ by as much, and agree together.
            or_(beside.c.rest != 0, beside.c.lowest_of_all.is_(None), beside.c.lowest_of_all >= 0),
        )
        .order_by(beside.c.account_id, beside.c.metric_key, beside.c.period_start)
    )
    async for account_id, metric_key, period_start, used, total in stream(session, statement):
        begin = "" if period_start == GAUGE_PERIOD else f" from {period_start}"
        found.add("I7", account_id, f"{metric_key}{begin} is counted as {used:,}, and its events sum to {total:,}.")


async def _check_rollups(session: ReadSession, found: Findings) -> None:
    """Hours and days sum to what is counted, over all periods: these begin and end within days."""

    def rolled(granularity: Granularity) -> ColumnElement[int]:
        return case((UsageRollup.granularity == granularity, UsageRollup.quantity), else_=0)

    both = union_all(
        select(
            Counter.account_id,
            Counter.metric_key,
            Counter.used.label("used"),
            literal(0).label("days"),
            literal(0).label("hours"),
        ),
        select(
            UsageRollup.account_id,
            UsageRollup.metric_key,
            literal(0),
            rolled(Granularity.DAY),
            rolled(Granularity.HOUR),
        ),
    ).subquery()
    used, days, hours = sum_of(both.c.used), sum_of(both.c.days), sum_of(both.c.hours)
    statement = (
        select(both.c.account_id, both.c.metric_key, used, days, hours)
        .group_by(both.c.account_id, both.c.metric_key)
        .having(or_(used != days, used != hours))
        .order_by(both.c.account_id, both.c.metric_key)
    )
    async for account_id, metric_key, counted, by_day, by_hour in stream(session, statement):
        found.add(
            "I7",
            account_id,
            f"{metric_key} is counted as {counted:,}, and its history sums to {by_day:,} by days and {by_hour:,} by "
            "hours.",
        )


async def _check_ratings(session: ReadSession, found: Findings) -> None:
    """What was counted in a period that is closed has a rating, and when that is settled, all of it was invoiced."""
    unrated = (
        select(Counter.account_id, Counter.metric_key, Counter.period_start)
        .join(
            UsagePeriod,
            and_(UsagePeriod.account_id == Counter.account_id, UsagePeriod.start_at == Counter.period_start),
        )
        .join(Metric, Metric.key == Counter.metric_key)
        .outerjoin(UsageRating, _is_rating_of(Counter))
        .join(BillingAccount, BillingAccount.id == Counter.account_id)
        .where(
            UsageRating.metric_key.is_(None),
            UsagePeriod.closed_at.is_not(None),
            # A metric that came after the close has none there. Metrics know nothing of test clocks.
            or_(BillingAccount.test_clock_id.is_not(None), Metric.created_at <= UsagePeriod.closed_at),
        )
        .order_by(Counter.account_id, Counter.metric_key, Counter.period_start)
    )
    async for account_id, metric_key, period_start in stream(session, unrated):
        found.add("I7", account_id, f"{metric_key} from {period_start} was counted and closed, and never rated.")
    block = UsageRating.block
    above = or_0(Counter.used) - UsageRating.limit_quantity - or_0(Counter.allowed)
    due = case((above > 0, (above + block - 1) // block * UsageRating.price_minor), else_=0)
    short = (
        select(
            UsageRating.account_id, UsageRating.metric_key, UsageRating.period_start, due, UsageRating.invoiced_minor
        )
        .outerjoin(Counter, _is_rating_of(Counter))
        .where(
            UsageRating.settled_at.is_not(None),
            block.is_not(None),
            UsageRating.limit_quantity.is_not(None),
            # It may be above: credits end where the lines do that they take from.
            due > UsageRating.invoiced_minor,
        )
        .order_by(UsageRating.account_id, UsageRating.metric_key, UsageRating.period_start)
    )
    async for account_id, metric_key, period_start, amount, invoiced in stream(session, short):
        found.add(
            "I7",
            account_id,
            f"{metric_key} from {period_start} comes to {amount:,} minor units, and is settled with {invoiced:,}.",
        )


def _is_rating_of(row: Any) -> ColumnElement[bool]:
    return and_(
        UsageRating.account_id == row.account_id,
        UsageRating.metric_key == row.metric_key,
        UsageRating.period_start == row.period_start,
    )


async def _check_charged(session: ReadSession, found: Findings) -> None:
    """The overage of a period stands on one invoice, and what a rating says was charged is on invoices."""
    lines = _select_charged().subquery()
    purged = since_purge()
    statement = (
        select(
            UsageRating.account_id,
            UsageRating.metric_key,
            UsageRating.period_start,
            UsageRating.invoiced_minor,
            or_0(lines.c.charged),
            or_0(lines.c.times),
        )
        .outerjoin(
            lines,
            and_(
                lines.c.account_id == UsageRating.account_id,
                lines.c.metric_key == UsageRating.metric_key,
                lines.c.period_start == UsageRating.period_start,
            ),
        )
        .outerjoin(purged, purged.c.account_id == UsageRating.account_id)
        .where(
            or_(lines.c.times > 1, UsageRating.invoiced_minor > or_0(lines.c.charged)),
            # What is older was purged, with its invoices.
            or_(purged.c.since.is_(None), UsageRating.period_end >= purged.c.since),
        )
        .order_by(UsageRating.account_id, UsageRating.metric_key, UsageRating.period_start)
    )
    async for account_id, metric_key, period_start, invoiced, charged, times in stream(session, statement):
        if times > 1:
            found.add("I7", account_id, f"The overage of {metric_key} from {period_start} is charged {times} times.")
        if invoiced > charged:
            found.add(
                "I7",
                account_id,
                f"{metric_key} from {period_start}: {invoiced:,} minor units were invoiced, and lines say {charged:,}.",
            )


def _select_charged() -> Select[*tuple[Any, ...]]:
    """What lines charge for usage of each period, and how many of its overage stand on invoices that hold."""
    holds = and_(InvoiceLine.kind == LineKind.OVERAGE, Invoice.status != InvoiceStatus.VOID)
    return (
        select(
            InvoiceLine.account_id,
            InvoiceLine.metric_key,
            InvoiceLine.period_start,
            sum_of(InvoiceLine.amount_minor).label("charged"),
            sum_of(case((holds, 1), else_=0)).label("times"),
        )
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(
            InvoiceLine.kind.in_((LineKind.OVERAGE, LineKind.CORRECTION)),
            InvoiceLine.amount_minor > 0,
            Invoice.status != InvoiceStatus.DRAFT,
        )
        .group_by(InvoiceLine.account_id, InvoiceLine.metric_key, InvoiceLine.period_start)
    )
