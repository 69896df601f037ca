"""What an account will be charged, as things stand: pure functions of loaded rows, net of tax."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from ..models import (
    BillingAccount,
    Budget,
    Interval,
    LineKind,
    PaymentMethod,
    Subscription,
    SubscriptionStatus,
)
from .relations import HeldAddOn, PlanOffer
from .rules.money import round_half_away, split_evenly
from .rules.periods import months_since, period_number
from .usage import UsageFigure

CLOSES_AHEAD = 13


class NextBillingKind(StrEnum):
    """What the next charge is for."""

    RENEWAL = "RENEWAL"
    ADD_ONS = "ADD_ONS"
    OVERAGE = "OVERAGE"
    TRIAL_END = "TRIAL_END"
    FINAL = "FINAL"


@dataclass(frozen=True)
class ChargeLine:
    """One line of a charge to come."""

    kind: LineKind
    description: str
    amount_minor: int


@dataclass(frozen=True)
class NextBilling:
    """The next period close whose invoice has something to pay."""

    at: datetime
    kind: NextBillingKind
    amount_minor: int
    lines: Sequence[ChargeLine]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """All that a charge depends on, of one account."""

    account: BillingAccount
    subscription: Subscription
    offer: PlanOffer
    add_ons: Sequence[HeldAddOn]
    figures: Sequence[UsageFigure]
    methods: Sequence[PaymentMethod]


def monthly_cost_minor(subscription: Subscription) -> int:
    """The plan per month: an annual price ÷ 12, rounded half away from zero."""
    if subscription.interval is Interval.MONTH:
        return subscription.price_minor
    return round_half_away(subscription.price_minor, 12)


def add_ons_minor(add_ons: Sequence[HeldAddOn]) -> int:
    """All add-ons per usage period."""
    return sum(item.held.quantity * item.held.price_minor for item in add_ons)


def _subscription_line(standing: Standing) -> ChargeLine:
    per = "month" if standing.subscription.interval is Interval.MONTH else "year"
    return ChargeLine(
        LineKind.SUBSCRIPTION, f"{standing.offer.plan.name}, one {per}", standing.subscription.price_minor
    )


def _add_on_lines(standing: Standing) -> list[ChargeLine]:
    return [
        ChargeLine(
            LineKind.ADD_ON, f"{item.add_on.name} × {item.held.quantity}", item.held.quantity * item.held.price_minor
        )
        for item in standing.add_ons
    ]


def _overage_lines(standing: Standing) -> list[ChargeLine]:
    return [
        ChargeLine(
            LineKind.OVERAGE,
            f"{figure.metric.name} above the limit: {figure.overage_blocks} × {figure.metric.overage_block}",
            figure.overage_minor,
        )
        for figure in standing.figures
    ]


def find_next_billing(standing: Standing, now: datetime) -> NextBilling | None:
    """The next usage period's close with an amount above 0, at most 13 closes ahead; none where nothing is due.

    Plan, add-ons and the overage so far; tax is not in it.
    """
    subscription = standing.subscription
    if subscription.status is SubscriptionStatus.TRIALING:
        return _trial_end(standing)
    if subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
        return None
    zone = standing.account.timezone
    running = months_since(subscription.anchor_wall, zone, now)
    for ahead in range(CLOSES_AHEAD):
        at = period_number(subscription.anchor_wall, zone, running + ahead).end
        ends = at >= subscription.current_period_end
        final = ends and subscription.cancel_at_period_end
        lines = _overage_lines(standing) if ahead == 0 else []
        if not final:
            lines = [*_add_on_lines(standing), *lines]
            if ends:
                lines = [_subscription_line(standing), *lines]
        lines = [line for line in lines if line.amount_minor]
        amount_minor = sum(line.amount_minor for line in lines)
        if amount_minor > 0:
            return NextBilling(at, _kind_of(lines, final=final), amount_minor, lines)
        if final:
            return None
    return None


def _trial_end(standing: Standing) -> NextBilling | None:
    # Without a way to pay, or after a cancellation, the trial just ends.
    subscription = standing.subscription
    if subscription.trial_end is None or subscription.cancel_at_period_end or not standing.methods:
        return None
    lines = [line for line in (_subscription_line(standing), *_add_on_lines(standing)) if line.amount_minor]
    amount_minor = sum(line.amount_minor for line in lines)
    if not amount_minor:
        return None
    return NextBilling(subscription.trial_end, NextBillingKind.TRIAL_END, amount_minor, lines)


def _kind_of(lines: Sequence[ChargeLine], *, final: bool) -> NextBillingKind:
    kinds = {line.kind for line in lines}
    if final:
        return NextBillingKind.FINAL
    if LineKind.SUBSCRIPTION in kinds:
        return NextBillingKind.RENEWAL
    return NextBillingKind.ADD_ONS if LineKind.ADD_ON in kinds else NextBillingKind.OVERAGE


@dataclass(frozen=True)
class NextRenewal:
    """The start of the next billing period."""

    at: datetime
    amount_minor: int


def find_next_renewal(standing: Standing) -> NextRenewal | None:
    """The next billing period's subscription and add-on lines; none where none follows."""
    subscription = standing.subscription
    if subscription.cancel_at_period_end:
        return None
    if subscription.status is SubscriptionStatus.TRIALING:
        trial_end = _trial_end(standing)
        return NextRenewal(trial_end.at, trial_end.amount_minor) if trial_end else None
    if subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
        return None
    amount_minor = subscription.price_minor + add_ons_minor(standing.add_ons)
    return NextRenewal(subscription.current_period_end, amount_minor)


def spend_so_far_minor(standing: Standing, now: datetime) -> int:
    """Net spend of the running usage period: plan (an annual one in twelfths), add-ons and overage accrued."""
    subscription = standing.subscription
    if subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
        return 0
    if subscription.interval is Interval.YEAR:
        month = months_since(subscription.anchor_wall, standing.account.timezone, now) % 12
        plan_minor = split_evenly(subscription.price_minor, 12)[month]
    else:
        plan_minor = subscription.price_minor
    overage_minor = sum(figure.overage_minor for figure in standing.figures)
    return plan_minor + add_ons_minor(standing.add_ons) + overage_minor


@dataclass(frozen=True)
class BudgetState:
    """A budget and how much of it is spent."""

    budget: Budget
    currency: str
    spent_minor: int


def local_date(at: datetime, zone: str) -> date:
    """The calendar day of an instant in a zone."""
    return at.astimezone(ZoneInfo(zone)).date()


def expires_soon(year: int, month: int, now: datetime) -> bool:
    """Whether a card, good to the end of its month, expires within 30 days."""
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return end - now < timedelta(days=30)
