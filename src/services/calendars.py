"""Which usage period an instant lies in: stored while a subscription runs, counted from the creation without one."""

from collections.abc import Sequence
from datetime import datetime

from ..models import BillingAccount, Subscription, UsagePeriod
from .rules.periods import Period, period_at, period_number, to_wall
from .rules.transitions import RUNNING


def period_of(
    account: BillingAccount, subscription: Subscription | None, known: Sequence[UsagePeriod], instant: datetime
) -> Period | None:
    """The usage period that contains an instant; none before the first.

    `known` are the stored periods around it, oldest first. What a running subscription's periods will be after the
    last stored one is counted on from it: the worker may be a moment behind.
    """
    for row in known:
        if row.start_at <= instant < row.end_at:
            return Period(row.start_at, row.end_at)
    if subscription is not None and subscription.status in RUNNING and instant >= subscription.usage_period_end:
        return _period_to_come(account, subscription, instant)
    period = period_at(to_wall(account.created_at, account.timezone), account.timezone, instant)
    if period is None:
        return None
    # Between two subscriptions, and before the first, what ran before or came after cuts the month.
    start = max([period.start, *(row.end_at for row in known if row.end_at <= instant)])
    if subscription is not None and subscription.canceled_at is not None and subscription.canceled_at <= instant:
        start = max(start, subscription.canceled_at)
    end = min([period.end, *(row.start_at for row in known if row.start_at > instant)])
    return Period(start, end)


def _period_to_come(account: BillingAccount, subscription: Subscription, instant: datetime) -> Period:
    start, end = subscription.usage_period_start, subscription.usage_period_end
    number = subscription.usage_period_number
    while instant >= end:
        number += 1
        # From the next billing period on a new zone of the account counts.
        zone = subscription.zone if end < subscription.current_period_end else account.timezone
        start, end = end, end_of_usage_period(subscription.anchor_wall, zone, number)
    return Period(start, end)


def end_of_usage_period(anchor_wall: datetime, zone: str, number: int) -> datetime:
    """When the n-th usage period from the anchor ends."""
    return period_number(anchor_wall, zone, number).end


def end_of_billing_period(anchor_wall: datetime, zone: str, first_usage_period: int, months: int) -> datetime:
    """When a billing period ends that begins with the given usage period and lasts some months."""
    return period_number(anchor_wall, zone, first_usage_period + months - 1).end
