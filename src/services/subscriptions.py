"""Subscriptions: what a start, a change, a cancellation makes of the rows. What it costs is another module's."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update

from ..database import ReadSession, Work
from ..models import (
    Alert,
    AlertKind,
    BillingAccount,
    Counter,
    Deferral,
    Interval,
    InvoiceLine,
    MetricKind,
    OveragePolicy,
    ScheduledChange,
    Subscription,
    SubscriptionAddOn,
    SubscriptionEvent,
    SubscriptionStatus,
    UsageEvent,
    UsagePeriod,
    UsageRating,
    WorkKind,
)
from . import books
from .alerts import cut_periods, resolve_ended
from .budget_periods import reckon_spend
from .calendars import end_of_billing_period, end_of_usage_period
from .due_work import enqueue, withdraw
from .errors import InvalidTransition
from .limits import Excess, add_units, find_excess, set_limits
from .notices import clear_notice
from .overage import APPROVAL_NOTICE
from .plan_limits import Limits, load_free_limits, load_plan_limits
from .pricing import Unit, kept_units
from .relations import HeldAddOn
from .rules.overage import excess_over
from .rules.periods import MONTHS, Period, to_wall
from .rules.transitions import Step, next_status
from .standing import Standing, Terms
from .usage import UsageFigure

TRIAL = timedelta(days=14)
KEPT_AFTER_CANCELING = timedelta(days=90)
LATE_USAGE = timedelta(days=35)


def check_step(status: SubscriptionStatus | None, step: Step) -> SubscriptionStatus:
    """What a step makes of a state; `INVALID_TRANSITION` where it is not allowed."""
    found = next_status(status, step)
    if found is None:
        state = "without a subscription" if status is None else status.lower().replace("_", " ")
        raise InvalidTransition(f"An account that is {state} cannot take this step ({step.lower().replace('_', ' ')}).")
    return found


def note_step(
    work: Work,
    account: BillingAccount,
    subscription: Subscription,
    step: Step,
    before: SubscriptionStatus | None,
    *,
    event: str,
    actor: str | None = None,
    reason: str = "",
    **facts: Any,
) -> None:
    """Write the history row, the audit entry and the event of a step, and make quotes stale."""
    now = work.clock.now_for(account)
    subscription.version += 1
    subscription.updated_at = account.updated_at = now
    work.session.add(
        SubscriptionEvent(
            created_at=now,
            account_id=account.id,
            step=step,
            from_status=before,
            to_status=subscription.status,
            plan_version_id=subscription.plan_version_id,
            interval=subscription.interval,
            actor=actor or work.actor.name,
            reason=reason,
        )
    )
    work.audit(
        account,
        event,
        f"subscription:{subscription.id}",
        before={"status": before},
        after={"status": subscription.status, "reason": reason, **facts},
    )
    said = {
        "subscriptionId": str(subscription.id),
        "status": subscription.status,
        "step": step,
        "interval": subscription.interval,
        "amountMinor": subscription.price_minor,
        "currency": account.currency,
    }
    work.emit(account, event, said | facts)


async def find_subscription(work: Work, account: BillingAccount) -> Subscription | None:
    """The subscription of a locked account; none before its first."""
    return (await work.session.scalars(select(Subscription).where(Subscription.account_id == account.id))).one_or_none()


def take_step(
    work: Work, account: BillingAccount, subscription: Subscription, step: Step, event: str, *, reason: str = ""
) -> None:
    """Change nothing of a subscription but its state."""
    before = subscription.status
    subscription.status = check_step(before, step)
    note_step(work, account, subscription, step, before, event=event, reason=reason)


# --- usage periods ---------------------------------------------------------------------------------------------------


async def open_usage_period(
    work: Work,
    account: BillingAccount,
    subscription: Subscription,
    period: Period,
    number: int,
    moved: Mapping[str, int] | None = None,
) -> None:
    """Begin a usage period, with what was `moved` into it by metric, and have it closed when it ends."""
    subscription.usage_period_start, subscription.usage_period_end = period.start, period.end
    subscription.usage_period_number = number
    # What was used in a period of no length, which this one takes the place of, is this one's.
    await work.session.execute(
        update(Counter)
        .where(Counter.account_id == account.id, Counter.period_start == period.start)
        .values(period_end=period.end)
    )
    work.session.add(UsagePeriod(account_id=account.id, start_at=period.start, end_at=period.end))
    work.before_commit(reckon_spend, account)
    for metric_key, quantity in (moved or {}).items():
        work.session.add(
            Counter(
                account_id=account.id,
                metric_key=metric_key,
                period_start=period.start,
                period_end=period.end,
                used=quantity,
                changed_at=work.clock.now_for(account),
                sequence=work.advance(account),
            )
        )
    await work.session.flush()
    await enqueue(work, account, WorkKind.CLOSE_PERIOD, period.start.isoformat(), period.end)


async def close_usage_period(work: Work, standing: Standing, at: datetime) -> dict[str, int]:
    """End the running usage period at an instant: what it is rated by is kept, its alerts are resolved.

    Gives what was used since that instant, by metric: it belongs to the period that begins there.
    """
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "a subscription has periods"
    session = work.session
    start = subscription.usage_period_start
    row = await session.get_one(UsagePeriod, (account.id, start))
    work.before_commit(reckon_spend, account)
    moved: dict[str, int] = {}
    if row.start_at == at:
        # It began at this very instant: nothing was served in it, and another may begin here.
        await withdraw(work, account, WorkKind.CLOSE_PERIOD, start.isoformat())
        await session.delete(row)
        await session.flush()
        return moved
    if row.end_at != at:
        moved = await _cut_period(work, account, row, at, standing.figures)
        await withdraw(work, account, WorkKind.CLOSE_PERIOD, start.isoformat())
    row.closed_at = work.clock.now_for(account)
    for figure in standing.figures:
        metric = figure.metric
        if figure.setting is OveragePolicy.ASK:
            await clear_notice(work, account, APPROVAL_NOTICE, metric.key)
        if metric.kind is MetricKind.COUNTER:
            session.add(
                UsageRating(
                    account_id=account.id,
                    metric_key=metric.key,
                    period_start=start,
                    period_end=at,
                    limit_quantity=figure.limit,
                    may_pass=figure.may_pass,
                    block=metric.overage_block if figure.is_sold else None,
                    price_minor=(figure.overage_price_minor or 0) if figure.is_sold else 0,
                )
            )
    await session.flush()
    now = work.clock.now_for(account)
    for counter in await session.scalars(
        select(Counter)
        .where(Counter.account_id == account.id, Counter.period_start == start)
        .order_by(Counter.metric_key)
        .execution_options(populate_existing=True)
    ):
        counter.sequence, counter.changed_at = work.advance(account), now  # streams tell that it starts anew
    await resolve_ended(work, [account], at)
    return moved


async def _cut_period(
    work: Work, account: BillingAccount, row: UsagePeriod, at: datetime, figures: Sequence[UsageFigure]
) -> dict[str, int]:
    """End a period before its time. Gives what was used since then, which is no longer counted in it."""
    session = work.session
    row.end_at = at
    since = (
        UsageEvent.account_id == account.id,
        UsageEvent.period_start == row.start_at,
        UsageEvent.occurred_at >= at,
    )
    found = await session.execute(
        select(UsageEvent.metric_key, func.sum(UsageEvent.change)).where(*since).group_by(UsageEvent.metric_key)
    )
    since_then = {metric_key: int(quantity) for metric_key, quantity in found}
    await session.execute(update(UsageEvent).where(*since).values(period_start=at))
    moved: dict[str, int] = {}
    for counter in await session.scalars(
        select(Counter).where(Counter.account_id == account.id, Counter.period_start == row.start_at)
    ):
        counter.period_end = at
        if counter.metric_key in since_then:  # gauges carry over, and have no counter of the period
            # A correction since then may take back what was used before: neither period falls below 0.
            moved[counter.metric_key] = min(max(0, since_then[counter.metric_key]), counter.used)
            counter.used -= moved[counter.metric_key]
            limit = next((each.limit for each in figures if each.metric.key == counter.metric_key), None)
            counter.allowed = min(counter.allowed, excess_over(counter.used, limit))
            counter.sequence = work.advance(account)
    await session.execute(
        update(Alert)
        .where(
            Alert.account_id == account.id,
            Alert.kind != AlertKind.SPIKE,
            Alert.period_start == row.start_at,
            Alert.resolved_at.is_(None),
        )
        .values(period_end=at)
    )
    return moved


# --- starting --------------------------------------------------------------------------------------------------------


def first_periods(account: BillingAccount, interval: Interval, at: datetime) -> tuple[Period, Period]:
    """The first billing and usage period of an anchor at an instant."""
    anchor = to_wall(at, account.timezone)
    months = MONTHS[interval]
    return (
        Period(at, end_of_billing_period(anchor, account.timezone, 0, months)),
        Period(at, end_of_usage_period(anchor, account.timezone, 0)),
    )


async def begin(
    work: Work,
    standing: Standing,
    terms: Terms,
    at: datetime,
    *,
    step: Step,
    event: str,
    actor: str | None = None,
    reason: str = "",
) -> Subscription:
    """Run a subscription from an anchor at an instant: a start, a trial's start or end, a reactivation.

    Add-ons that were set on trial go on, and count as paid for the first usage period. A usage period that runs is
    closed at that instant.
    """
    account = standing.account
    subscription = standing.subscription
    before = subscription.status if subscription else None
    status = check_step(before, step)
    billing, usage = first_periods(account, terms.interval, at)
    trial_end = at + TRIAL if status is SubscriptionStatus.TRIALING else None
    moved: Mapping[str, int] = {}
    if before is SubscriptionStatus.TRIALING:
        moved = await close_usage_period(work, standing, at)
    elif before is None:
        await cut_periods(work, account, at)
    if subscription is None:
        subscription = Subscription(
            created_at=work.clock.now_for(account),
            account_id=account.id,
            plan_version_id=terms.offer.version.id,
            status=status,
            interval=terms.interval,
            price_minor=terms.price_minor,
            anchor_wall=to_wall(at, account.timezone),
            zone=account.timezone,
            current_period_start=billing.start,
            current_period_end=billing.end,
            usage_period_start=usage.start,
            usage_period_end=usage.end,
            started_at=at,
            version=0,
        )
        work.session.add(subscription)
        await work.session.flush()
    subscription.status = status
    subscription.plan_version_id = terms.offer.version.id
    subscription.interval, subscription.price_minor = terms.interval, terms.price_minor
    subscription.anchor_wall, subscription.zone = to_wall(at, account.timezone), account.timezone
    subscription.current_period_start = billing.start
    subscription.current_period_end = trial_end or billing.end
    subscription.trial_end = trial_end or subscription.trial_end
    if status is not SubscriptionStatus.TRIALING and subscription.trial_end is not None and subscription.trial_end > at:
        subscription.trial_end = at
    subscription.canceled_at = None
    subscription.cancel_at_period_end = False
    for kind in (
        WorkKind.END_TRIAL,
        WorkKind.REMIND,
        WorkKind.INVOICE_CORRECTIONS,
        WorkKind.EXPIRE_ACCOUNT,
    ):
        await withdraw(work, account, kind)
    if before is SubscriptionStatus.TRIALING:
        await clear_notice(work, account, "TRIAL_ENDING")
    await open_usage_period(work, account, subscription, usage, 0, moved)
    if trial_end is not None:
        await enqueue(work, account, WorkKind.END_TRIAL, trial_end.isoformat(), trial_end)
    kept = await end_add_ons(work, standing, terms.offer.plan.key)
    for item in kept:
        item.held.paid_quantity = 0 if status is SubscriptionStatus.TRIALING else item.held.quantity
    await put_limits(work, account, subscription, kept, event)
    note_step(
        work, account, subscription, step, before, event=event, actor=actor, reason=reason, plan=terms.offer.plan.key
    )
    return subscription


async def put_limits(
    work: Work, account: BillingAccount, subscription: Subscription, add_ons: Iterable[HeldAddOn], cause: str
) -> None:
    """Put the limits of a subscription and its add-ons in force."""
    included = await load_plan_limits(ReadSession(work.session), subscription.plan_version_id)
    limits = add_units(included, [(item.add_on, item.held.quantity) for item in add_ons])
    usage = Period(subscription.usage_period_start, subscription.usage_period_end)
    await set_limits(work, account, limits, usage, cause)


# --- changing --------------------------------------------------------------------------------------------------------


async def change_terms(
    work: Work, standing: Standing, terms: Terms, *, actor: str | None = None, reason: str = ""
) -> None:
    """Change the plan within the running periods; add-ons that the new plan does not offer end."""
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "there is something to change"
    before = subscription.status
    subscription.status = check_step(before, Step.CHANGE)
    subscription.cancel_at_period_end = False
    subscription.plan_version_id = terms.offer.version.id
    subscription.interval, subscription.price_minor = terms.interval, terms.price_minor
    kept = await end_add_ons(work, standing, terms.offer.plan.key)
    await drop_scheduled(work, account)
    await put_limits(work, account, subscription, kept, "subscription.changed")
    note_step(
        work,
        account,
        subscription,
        Step.CHANGE,
        before,
        event="subscription.changed",
        actor=actor,
        reason=reason,
        plan=terms.offer.plan.key,
        interval=terms.interval,
    )


async def move_anchor(
    work: Work, standing: Standing, terms: Terms, at: datetime, *, actor: str | None = None, reason: str = ""
) -> None:
    """Change to terms whose periods begin at an instant: the usage period closes there, lowered add-ons are lowered."""
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "there is something to change"
    before = subscription.status
    subscription.status = check_step(before, Step.CHANGE)
    subscription.cancel_at_period_end = False
    moved = await close_usage_period(work, standing, at)
    # What its blocks were paid for is over with the period.
    await _end_lines(work, account, [item.add_on.key for item in standing.add_ons], at)
    billing, usage = first_periods(account, terms.interval, at)
    subscription.plan_version_id = terms.offer.version.id
    subscription.interval, subscription.price_minor = terms.interval, terms.price_minor
    subscription.anchor_wall, subscription.zone = to_wall(at, account.timezone), account.timezone
    subscription.current_period_start, subscription.current_period_end = billing.start, billing.end
    kept = await end_add_ons(work, standing, terms.offer.plan.key)
    kept = await lower_add_ons(work, standing, kept)
    await drop_scheduled(work, account)
    await open_usage_period(work, account, subscription, usage, 0, moved)
    await put_limits(work, account, subscription, kept, "subscription.changed")
    note_step(
        work,
        account,
        subscription,
        Step.CHANGE,
        before,
        event="subscription.changed",
        actor=actor,
        reason=reason,
        plan=terms.offer.plan.key,
        interval=terms.interval,
    )


async def end_add_ons(work: Work, standing: Standing, plan_key: str) -> list[HeldAddOn]:
    """End what a plan does not offer. Gives what stays."""
    kept: list[HeldAddOn] = []
    ended: list[HeldAddOn] = []
    for item in standing.add_ons:
        (kept if plan_key in item.add_on.plan_keys else ended).append(item)
    if ended:
        over = work.clock.now_for(standing.account) + timedelta(seconds=1)
        await _end_lines(work, standing.account, [item.add_on.key for item in ended], over)
        await work.session.execute(
            delete(SubscriptionAddOn).where(SubscriptionAddOn.id.in_([item.held.id for item in ended]))
        )
    return kept


async def lower_add_ons(work: Work, standing: Standing, add_ons: Sequence[HeldAddOn]) -> list[HeldAddOn]:
    """Take lowerings that waited into effect for a new usage period, which all that stays is paid for."""
    kept = []
    for item in add_ons:
        held = item.held
        if held.next_quantity is not None:
            quantity, held.next_quantity = held.next_quantity, None
            if quantity == 0:
                await work.session.delete(held)
                continue
            held.quantity = quantity
        held.paid_quantity = held.quantity
        held.updated_at = work.clock.now_for(standing.account)
        kept.append(item)
    await work.session.flush()
    return kept


async def _end_lines(work: Work, account: BillingAccount, add_on_keys: Sequence[str], begun_before: datetime) -> None:
    """What is not credited of lines that are over is earned: blocks of a counter."""
    if not add_on_keys:
        return
    deferrals = await work.session.scalars(
        select(Deferral)
        .join(InvoiceLine, InvoiceLine.id == Deferral.line_id)
        .where(
            Deferral.account_id == account.id,
            Deferral.settled_at.is_(None),
            InvoiceLine.add_on_key.in_(add_on_keys),
            InvoiceLine.period_start < begun_before,
        )
    )
    books.recognise_rest(work, account, list(deferrals))


async def drop_scheduled(work: Work, account: BillingAccount) -> bool:
    """Take back a change that waits for the period's end. True when there was one."""
    dropped = await work.session.execute(
        delete(ScheduledChange).where(ScheduledChange.account_id == account.id).returning(ScheduledChange.id)
    )
    return dropped.first() is not None


# --- ending ----------------------------------------------------------------------------------------------------------


async def end_subscription(
    work: Work, standing: Standing, at: datetime, step: Step, *, actor: str | None = None, reason: str = ""
) -> None:
    """The subscription is over at an instant, and its usage period was closed there. The data is kept for 90 days."""
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "there is something to end"
    before = subscription.status
    subscription.status = check_step(before, step)
    subscription.canceled_at = at
    subscription.cancel_at_period_end = False
    subscription.current_period_end = subscription.usage_period_end = at
    await drop_scheduled(work, account)
    await work.session.execute(delete(SubscriptionAddOn).where(SubscriptionAddOn.account_id == account.id))
    for kind in (WorkKind.END_TRIAL, WorkKind.REMIND):
        await withdraw(work, account, kind)
    for code in ("TRIAL_ENDING", "RENEWAL_AHEAD"):
        await clear_notice(work, account, code)
    await enqueue(work, account, WorkKind.INVOICE_CORRECTIONS, at.isoformat(), at + LATE_USAGE)
    await enqueue(work, account, WorkKind.EXPIRE_ACCOUNT, at.isoformat(), at + KEPT_AFTER_CANCELING)
    note_step(work, account, subscription, step, before, event="subscription.canceled", actor=actor, reason=reason)
    await put_free_limits(work, account, at)


async def put_free_limits(work: Work, account: BillingAccount, at: datetime) -> None:
    """An account without a running subscription behaves like free, and its alerts are over."""
    limits = await load_free_limits(ReadSession(work.session))
    await set_limits(work, account, limits, Period(at, at), "subscription.canceled", is_watched=False)


def exceeding(standing: Standing, limits: Limits, add_ons: Iterable[Unit] | None = None) -> list[Excess]:
    """What is in use above limits and what add-ons give; empty where all fits."""
    units = kept_units(standing.add_ons) if add_ons is None else add_ons
    return find_excess(standing.figures, add_units(limits, [(unit.add_on, unit.quantity) for unit in units]))
