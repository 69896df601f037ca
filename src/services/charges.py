"""What an account will be charged, as things stand: by the very code that closes periods and issues invoices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import inspect

from ..models import (
    CollectionMethod,
    Interval,
    InvoiceKind,
    LineKind,
    ScheduledChange,
    Subscription,
    SubscriptionStatus,
)
from .bills import BillLine
from .calendars import end_of_billing_period, end_of_usage_period
from .closing import bill_of_draft
from .invoicing import Totals, foresee_documents, total_up
from .limits import add_units
from .plan_limits import Limits
from .pricing import (
    Unit,
    accrued_line,
    bill_of,
    interval_moves_anchor,
    kept_units,
    lines_at_close,
    lines_at_start,
    lines_of_usage,
)
from .relations import HeldAddOn
from .rules.money import minimum_of, round_half_away
from .rules.periods import MONTHS, Period, to_wall
from .rules.transitions import RUNNING
from .standing import Standing, Terms
from .subscriptions import first_periods

CLOSES_AHEAD = 13


class NextBillingKind(StrEnum):
    """What the next charge is for."""

    RENEWAL = "RENEWAL"
    ADD_ONS = "ADD_ONS"
    OVERAGE = "OVERAGE"
    TRIAL_END = "TRIAL_END"
    FINAL = "FINAL"


@dataclass(frozen=True)
class Preview:
    """An invoice to come: the lines that would be on it, and what it would come to."""

    at: datetime
    """When the period closes; the invoice is finalised when late usage has had its time."""
    kind: InvoiceKind
    lines: Sequence[BillLine]
    totals: Totals
    is_trial_end: bool = False


@dataclass(frozen=True)
class NextBilling:
    """The next period close whose invoice has something to pay."""

    at: datetime
    kind: NextBillingKind
    due_minor: int
    is_estimated: bool
    lines: Sequence[BillLine]


@dataclass
class _Course:
    """Where a subscription comes to, close by close."""

    terms: Terms
    units: list[Unit]
    number: int
    start: datetime
    end: datetime
    billing_end: datetime
    zone: str
    paid: Standing
    """What the invoices up to there leave of the balance, and carried."""


def monthly_cost_minor(subscription: Subscription) -> int:
    """The plan per month: an annual price ÷ 12, rounded half away from zero."""
    if subscription.interval is Interval.MONTH:
        return subscription.price_minor
    return round_half_away(subscription.price_minor, 12)


def add_ons_minor(add_ons: Sequence[HeldAddOn]) -> int:
    """All add-ons per usage period."""
    return sum(item.held.quantity * item.held.price_minor for item in add_ons)


def list_previews(standing: Standing, closes: int = CLOSES_AHEAD) -> list[Preview]:
    """The invoices to come, nearest first: drafts that wait, then the next closes; only those with lines."""
    found, rest = _draft_previews(standing)
    subscription = standing.subscription
    if subscription is None or subscription.status not in RUNNING:
        return found
    if subscription.status is SubscriptionStatus.TRIALING:
        return [*found, *_trial_end(standing)]
    if subscription.status is SubscriptionStatus.SUSPENDED:
        return found
    course = _course_of(rest)
    for ahead in range(closes):
        preview, goes_on = _close(standing, course, is_first=ahead == 0)
        if preview is not None:
            found.append(preview)
        if not goes_on:
            break
    return found


def _draft_previews(standing: Standing) -> tuple[list[Preview], Standing]:
    """The invoices of drafts that wait, and how the account would stand when they are issued and paid."""
    found = []
    for draft in standing.drafts:
        started = datetime.fromisoformat(draft.cause.removeprefix("period:"))
        bill = bill_of_draft(standing, started)
        foreseen = foresee_documents(standing, bill)
        standing = foreseen.after
        if not foreseen.lines:
            continue
        assert draft.finalise_at is not None, "a draft waits until an instant"
        closed_at = draft.finalise_at - timedelta(minutes=standing.issuer.draft_minutes)
        found.append(Preview(closed_at, draft.kind, foreseen.lines, foreseen.totals))
    return found, replace(standing, drafts=[])


def stand_after_drafts(standing: Standing) -> Standing:
    """How an account would stand when its drafts are finalised, as a change at once has them first."""
    return _draft_previews(standing)[1]


def _trial_end(standing: Standing) -> list[Preview]:
    # Without a way to pay, or after a cancellation, the trial just ends.
    subscription, terms = standing.subscription, standing.terms
    assert subscription is not None, "just checked"
    assert terms is not None, "a trial is of a plan"
    sent = standing.account.collection_method is CollectionMethod.SEND_INVOICE
    can_pay = standing.company is not None and (sent or any(method.is_default for method in standing.methods))
    at = subscription.trial_end
    if at is None or subscription.cancel_at_period_end or not can_pay:
        return []
    billing, usage = first_periods(standing.account, terms.interval, at)
    bill = bill_of(standing, lines_at_start(standing, terms, kept_units(standing.add_ons), billing, usage))
    if not bill.lines:
        return []
    totals = total_up(bill.lines, carried_minor=standing.carried_minor, balance_minor=standing.balance_minor)
    return [Preview(at, InvoiceKind.START, bill.lines, totals, is_trial_end=True)]


def _course_of(standing: Standing) -> _Course:
    subscription, terms = standing.subscription, standing.terms
    assert subscription is not None, "just checked"
    assert terms is not None, "a subscription has sold something"
    return _Course(
        terms=terms,
        units=kept_units(standing.add_ons),
        number=subscription.usage_period_number,
        start=subscription.usage_period_start,
        end=subscription.usage_period_end,
        billing_end=subscription.current_period_end,
        zone=subscription.zone,
        paid=standing,
    )


def _close(standing: Standing, course: _Course, *, is_first: bool) -> tuple[Preview | None, bool]:
    """What the next close would issue, and whether the subscription goes on after it. Moves the course on."""
    subscription = standing.subscription
    assert subscription is not None, "just checked"
    at = course.end
    ends = at == course.billing_end
    goes_on = not (ends and subscription.cancel_at_period_end)
    usage_lines = _usage_lines(standing, course) if is_first else []
    billing = None
    fixed: list[BillLine] = []
    if goes_on:
        scheduled, offer = standing.scheduled, standing.scheduled_offer
        if ends and scheduled is not None and offer is not None and is_next_of(subscription, at):
            course.terms = Terms(offer, scheduled.interval, scheduled.price_minor)
            course.units = [unit for unit in course.units if offer.plan.key in unit.add_on.plan_keys]
        anchor, number = subscription.anchor_wall, course.number + 1
        if ends:
            course.zone = standing.account.timezone
            months = MONTHS[course.terms.interval]
            billing = Period(at, end_of_billing_period(anchor, course.zone, number, months))
            course.billing_end = billing.end
        usage = Period(at, end_of_usage_period(anchor, course.zone, number))
        course.number, course.start, course.end = number, usage.start, usage.end
        fixed = lines_at_close(standing, course.terms, course.units, billing=billing, usage=usage)
    foreseen = foresee_documents(course.paid, bill_of(standing, [*fixed, *usage_lines]))
    course.paid = foreseen.after
    if not foreseen.lines:
        return None, goes_on
    kind = InvoiceKind.PERIOD if goes_on else InvoiceKind.FINAL
    return Preview(at, kind, foreseen.lines, foreseen.totals), goes_on


def is_next_of(subscription: Subscription, at: datetime) -> bool:
    """Whether an instant is the end of the running billing period, and not of a later one."""
    return at == subscription.current_period_end


def _usage_lines(standing: Standing, course: _Course) -> list[BillLine]:
    closed = Period(course.start, course.end)
    accrued = [accrued_line(standing, figure, closed) for figure in standing.figures]
    return [*(line for line in accrued if line is not None), *lines_of_usage(standing, None)]


def find_upcoming(standing: Standing) -> Preview | None:
    """The next invoice as things stand; none where none is to come."""
    return next(iter(list_previews(standing, closes=CLOSES_AHEAD)), None)


def find_next_billing(standing: Standing) -> NextBilling | None:
    """The next invoice with something to pay, at most 13 closes ahead; none where nothing is due."""
    automatic = standing.account.collection_method is CollectionMethod.AUTOMATIC
    for preview in list_previews(standing):
        due = preview.totals.due_minor
        if due > 0 and (not automatic or due >= minimum_of(standing.currency)):
            kind = _kind_of(preview)
            return NextBilling(preview.at, kind, due, kind is not NextBillingKind.TRIAL_END, preview.lines)
    return None


def _kind_of(preview: Preview) -> NextBillingKind:
    kinds = {line.kind for line in preview.lines}
    if preview.is_trial_end:
        return NextBillingKind.TRIAL_END
    if preview.kind is InvoiceKind.FINAL:
        return NextBillingKind.FINAL
    if LineKind.SUBSCRIPTION in kinds:
        return NextBillingKind.RENEWAL
    return NextBillingKind.ADD_ONS if LineKind.ADD_ON in kinds else NextBillingKind.OVERAGE


def stand_after(standing: Standing, target: Terms, limits: Limits, at: datetime, *, at_once: bool) -> Standing:
    """How an account would stand after a change of plan that is not made yet."""
    subscription = standing.subscription
    assert subscription is not None, "there is something to change"
    plan_key = target.offer.plan.key
    if not at_once:
        return _with_scheduled(standing, target)
    kept = [item for item in standing.add_ons if plan_key in item.add_on.plan_keys]
    raised = add_units(limits, [(item.add_on, item.held.quantity) for item in kept])
    changed = _copy(subscription)
    changed.interval, changed.price_minor = target.interval, target.price_minor
    changed.cancel_at_period_end = False
    moves = (
        interval_moves_anchor(subscription.interval, target.interval)
        and subscription.status is not SubscriptionStatus.TRIALING
    )
    if moves:
        billing, usage = first_periods(standing.account, target.interval, at)
        changed.anchor_wall, changed.zone = to_wall(at, standing.account.timezone), standing.account.timezone
        changed.current_period_start, changed.current_period_end = billing.start, billing.end
        changed.usage_period_start, changed.usage_period_end = usage.start, usage.end
        changed.usage_period_number = 0
    figures = [
        replace(figure, limit=raised.get(figure.metric.key, 0), used=0 if moves and figure.period else figure.used)
        for figure in standing.figures
    ]
    return replace(
        standing,
        subscription=changed,
        offer=target.offer,
        add_ons=kept,
        figures=figures,
        scheduled=None,
        scheduled_offer=None,
    )


def _with_scheduled(standing: Standing, target: Terms) -> Standing:
    subscription = standing.subscription
    assert subscription is not None, "there is something to change"
    change = ScheduledChange(
        created_at=subscription.created_at,
        account_id=subscription.account_id,
        plan_version_id=target.offer.version.id,
        interval=target.interval,
        price_minor=target.price_minor,
        effective_at=subscription.current_period_end,
    )
    changed = _copy(subscription)
    changed.cancel_at_period_end = False
    return replace(standing, subscription=changed, scheduled=change, scheduled_offer=target.offer)


def _copy(row: Subscription) -> Subscription:
    """A subscription to think with: never stored."""
    names = {attribute.key for attribute in inspect(Subscription).column_attrs} - {"id", "updated_at"}
    values = {name: getattr(row, name) for name in names}
    return Subscription(**values)


@dataclass(frozen=True)
class NextRenewal:
    """The start of the next billing period."""

    at: datetime
    amount_minor: int


def find_next_renewal(standing: Standing) -> NextRenewal | None:
    """The next billing period's subscription and add-on lines, net; none where none follows."""
    subscription = standing.subscription
    if subscription is None or subscription.cancel_at_period_end:
        return None
    if subscription.status is SubscriptionStatus.TRIALING:
        return next((NextRenewal(preview.at, preview.totals.subtotal_minor) for preview in _trial_end(standing)), None)
    if subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
        return None
    plan_key = standing.scheduled_offer.plan.key if standing.scheduled_offer else None
    price = standing.scheduled.price_minor if standing.scheduled else subscription.price_minor
    units = kept_units(standing.add_ons, plan_key)
    amount_minor = price + sum(unit.quantity * unit.price_minor for unit in units)
    return NextRenewal(subscription.current_period_end, amount_minor)


def local_date(at: datetime, zone: str) -> date:
    """The calendar day of an instant in a zone."""
    return at.astimezone(ZoneInfo(zone)).date()


def expires_soon(year: int, month: int, now: datetime) -> bool:
    """Whether a card, good to the end of its month, expires within 30 days."""
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return end - now < timedelta(days=30)
