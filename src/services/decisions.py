"""What may be ordered, and when it takes effect: checked against state, limits and prices, and priced."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession, Work
from ..models import (
    AddOn,
    BillingAccount,
    ChangeAct,
    Interval,
    Invoice,
    InvoiceStatus,
    PendingChange,
    PendingStatus,
    SubscriptionStatus,
    UsageEvent,
)
from .bills import Bill
from .catalogue import find_add_on, find_offer
from .changing import AddOnTarget, PlanTarget, Target, find_held, price_change
from .errors import (
    ChangeIsPending,
    InvalidInput,
    LimitsExceeded,
    PaymentRequired,
)
from .permissions import Action, check_state
from .plan_limits import load_plan_limits
from .pricing import Unit, interval_moves_anchor, kept_units
from .rules import transitions
from .rules.money import MAX_AMOUNT_MINOR
from .rules.overage import FREE_TIER
from .rules.transitions import MAX_UNITS
from .standing import Standing, Terms
from .subscriptions import exceeding


@dataclass(frozen=True)
class Priced:
    """A change that takes effect at once: what it is, what it costs, and the instant it counts from."""

    act: ChangeAct
    target: Target
    bill: Bill
    at: datetime
    quote_id: UUID | None = None
    """The quote that it confirms, if one."""


@dataclass(frozen=True)
class Scheduled:
    """A change that waits for the end of the billing period."""

    terms: Terms
    at: datetime
    quote_id: UUID | None = None


Decision = Priced | Scheduled


Decide = Callable[[Work, Standing], Awaitable[Decision]]


def now_of(work: Work, account: BillingAccount) -> datetime:
    """The account's time, to the second."""
    return work.clock.now_for(account).replace(microsecond=0)


def check_action(standing: Standing, action: Action) -> None:
    """Refuse what the account's state does not allow."""
    check_state(standing.account, standing.subscription, action)


async def check_nothing_pends(work: Work, standing: Standing) -> None:
    """One change of plan at a time."""
    pending = await work.session.scalar(
        select(PendingChange.id).where(
            PendingChange.account_id == standing.account.id,
            PendingChange.status == PendingStatus.PENDING,
            PendingChange.act != ChangeAct.SET_ADD_ON,
        )
    )
    if pending is not None:
        raise ChangeIsPending(
            "A change waits for its payment: confirm it, or give it up by `cancelScheduledChange`.", ["input"]
        )


async def check_limits(work: Work, standing: Standing, terms: Terms, units: list[Unit] | None = None) -> None:
    """Refuse a plan that the gauges in use would exceed, with the list."""
    limits = await load_plan_limits(ReadSession(work.session), terms.offer.version.id)
    found = exceeding(standing, limits, kept_units(standing.add_ons, terms.offer.plan.key) if units is None else units)
    if found:
        raise LimitsExceeded(f"Reduce what is in use first. {'; '.join(map(str, found))}.", ["input", "planKey"])


async def find_terms(work: Work, standing: Standing, plan_key: str, interval: Interval) -> Terms:
    """What a plan is sold for to an account."""
    offer, price_minor = await find_offer(ReadSession(work.session), standing.account, plan_key, interval)
    return Terms(offer, interval, price_minor)


def must_fit(standing: Standing, target: Terms) -> bool:
    """Whether what is in use has to fit: a lower plan, and where lowerings of add-ons that waited come now."""
    current = standing.terms
    assert current is not None, "there is something to change"
    lowers = target.offer.plan.tier < current.offer.plan.tier
    return lowers or interval_moves_anchor(current.interval, target.interval)


async def check_add_on_is_free(work: Work, standing: Standing, add_on: AddOn) -> None:
    """One order of an add-on at a time."""
    for row in await work.session.scalars(
        select(PendingChange).where(
            PendingChange.account_id == standing.account.id,
            PendingChange.status == PendingStatus.PENDING,
            PendingChange.act == ChangeAct.SET_ADD_ON,
        )
    ):
        if row.target["addOnId"] == str(add_on.id):
            raise ChangeIsPending("An order of this add-on waits for its payment: confirm it first.", ["input"])


async def without_ahead(session: ReadSession, standing: Standing, at: datetime) -> Standing:
    """A standing whose figures leave out what was sent ahead of an instant: it belongs to the next period."""
    subscription = standing.subscription
    assert subscription is not None, "there is something to change"
    rows = await session.execute(
        select(UsageEvent.metric_key, func.sum(UsageEvent.change))
        .where(
            UsageEvent.account_id == standing.account.id,
            UsageEvent.period_start == subscription.usage_period_start,
            UsageEvent.occurred_at >= at,
        )
        .group_by(UsageEvent.metric_key)
    )
    ahead = {metric_key: int(change) for metric_key, change in rows}
    figures = [
        replace(figure, used=max(0, figure.used - ahead.get(figure.metric.key, 0))) if figure.period else figure
        for figure in standing.figures
    ]
    return replace(standing, figures=figures)


async def decide_change(
    work: Work, standing: Standing, plan_key: str, interval: Interval, *, checks_limits: bool = True
) -> Decision:
    """Whether a change of plan takes effect at once, and what it costs, or waits for the period's end.

    Where what is in use would not fit it is refused, unless `checks_limits` says that a quote only shows it.
    """
    status = SubscriptionStatus
    check_action(standing, Action.CHANGE_PLAN)
    await check_nothing_pends(work, standing)
    subscription, current = standing.subscription, standing.terms
    assert subscription is not None, "just checked"
    assert current is not None, "just checked"
    terms = await find_terms(work, standing, plan_key, interval)
    if terms.offer.version.id == current.offer.version.id and terms.interval is current.interval:
        raise InvalidInput("The account has this plan at this interval already.", ["input", "planKey"])
    if checks_limits and must_fit(standing, terms):
        await check_limits(work, standing, terms)
    at = now_of(work, standing.account)
    if subscription.status is not status.TRIALING and not takes_effect_at_once(current, terms):
        return Scheduled(terms, subscription.current_period_end)
    if subscription.status is status.PAST_DUE:
        raise PaymentRequired("Pay what is due first.", ["input"])
    target = PlanTarget(terms)
    if interval_moves_anchor(current.interval, terms.interval):
        standing = await without_ahead(ReadSession(work.session), standing, at)
    return Priced(ChangeAct.CHANGE_PLAN, target, price_change(standing, ChangeAct.CHANGE_PLAN, target, at), at)


def takes_effect_at_once(current: Terms, target: Terms) -> bool:
    """Whether terms that are ordered hold at once, or wait for the end of the billing period."""
    return transitions.takes_effect_at_once(
        current.offer.plan.tier, current.interval, target.offer.plan.tier, target.interval
    )


async def decide_start(work: Work, standing: Standing, plan_key: str, interval: Interval) -> Decision:
    """A start, from nothing or on trial."""
    check_action(standing, Action.START_SUBSCRIPTION)
    await check_nothing_pends(work, standing)
    return await _begin_with(work, standing, plan_key, interval, ChangeAct.START)


async def decide_reactivation(work: Work, standing: Standing, plan_key: str, interval: Interval) -> Decision:
    """A new start after a cancellation; what is unpaid comes first."""
    check_action(standing, Action.REACTIVATE_SUBSCRIPTION)
    await check_nothing_pends(work, standing)
    unpaid = (
        await work.session.scalars(
            select(Invoice.number).where(
                Invoice.account_id == standing.account.id,
                Invoice.status.in_((InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)),
            )
        )
    ).all()
    if unpaid:
        numbers = ", ".join(number or "" for number in unpaid)
        raise PaymentRequired(
            f"Pay {numbers} first: `retryPayment` charges what is unpaid, also what was given up.",
            ["input", "accountId"],
        )
    return await _begin_with(work, standing, plan_key, interval, ChangeAct.REACTIVATE)


async def _begin_with(work: Work, standing: Standing, plan_key: str, interval: Interval, act: ChangeAct) -> Decision:
    terms = await find_terms(work, standing, plan_key, interval)
    await check_limits(work, standing, terms)
    at = now_of(work, standing.account)
    target = PlanTarget(terms)
    return Priced(act, target, price_change(standing, act, target, at), at)


async def decide_add_on(work: Work, standing: Standing, add_on_key: str, quantity: int) -> Decision:
    """More units, paid at once, or fewer from the next usage period on."""
    status = SubscriptionStatus
    check_action(standing, Action.SET_ADD_ON)
    subscription, terms = standing.subscription, standing.terms
    assert subscription is not None, "just checked"
    assert terms is not None, "just checked"
    if not 0 <= quantity <= MAX_UNITS:
        raise InvalidInput(f"`quantity` is 0 to {MAX_UNITS:,}.", ["input", "quantity"])
    if terms.offer.plan.tier == FREE_TIER:
        raise InvalidInput("The free plan has no add-ons.", ["input", "addOnKey"])
    add_on, price_minor = await find_add_on(
        ReadSession(work.session), standing.account, terms.offer.plan.key, add_on_key
    )
    await check_add_on_is_free(work, standing, add_on)
    item = find_held(standing, add_on)
    if item is None and quantity == 0:
        raise InvalidInput("The account does not hold this add-on.", ["input", "quantity"])
    target = AddOnTarget(add_on, quantity, item.held.price_minor if item else price_minor)
    if quantity * target.price_minor > MAX_AMOUNT_MINOR:
        at_most = MAX_AMOUNT_MINOR // target.price_minor
        raise InvalidInput(f"At most {at_most:,} units of {add_on.name} can be invoiced.", ["input", "quantity"])
    at = now_of(work, standing.account)
    if item is not None and quantity < item.held.quantity:
        units = [
            Unit(other.add_on, quantity if other is item else other.held.quantity, other.held.price_minor)
            for other in standing.add_ons
        ]
        limits = await load_plan_limits(ReadSession(work.session), terms.offer.version.id)
        found = exceeding(standing, limits, units)
        if found:
            raise LimitsExceeded(f"Reduce what is in use first. {'; '.join(map(str, found))}.", ["input", "quantity"])
    bill = price_change(standing, ChangeAct.SET_ADD_ON, target, at)
    if bill.lines and subscription.status is status.PAST_DUE:
        raise PaymentRequired("Pay what is due first.", ["input"])
    return Priced(ChangeAct.SET_ADD_ON, target, bill, at)
