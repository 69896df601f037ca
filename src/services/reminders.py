"""What an account is told ahead: a trial's end, an annual renewal, a card that expires before the next charge."""

from datetime import UTC, datetime, timedelta

from ..database import Work
from ..models import (
    BillingAccount,
    CollectionMethod,
    Interval,
    NoticeSeverity,
    PaymentMethod,
    SubscriptionStatus,
    WorkKind,
)
from .due_work import enqueue, withdraw
from .notices import clear_notice, raise_notice
from .standing import Standing

TRIAL_DAYS = (7, 1)
AHEAD_DAYS = (30, 7)


async def plan_reminders(work: Work, standing: Standing) -> None:
    """Have the account told what comes at the end of its running billing period or trial; nothing that is past."""
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "there is something to come"
    await withdraw(work, account, WorkKind.REMIND)
    if subscription.status is SubscriptionStatus.TRIALING:
        await _plan(work, account, "trial", TRIAL_DAYS, subscription.current_period_end)
    elif subscription.interval is Interval.YEAR:
        await clear_notice(work, account, "RENEWAL_AHEAD")
        await _plan(work, account, "renewal", AHEAD_DAYS, subscription.current_period_end)
    method = next((row for row in standing.methods if row.is_default), None)
    if method is not None:
        await plan_card_reminders(work, account, method, subscription.current_period_end)


async def plan_card_reminders(work: Work, account: BillingAccount, method: PaymentMethod, charged_at: datetime) -> None:
    """Have the account told where its card expires before the next charge."""
    if charged_at >= _end_of(method):
        await _plan(work, account, "card", AHEAD_DAYS, charged_at)


async def _plan(work: Work, account: BillingAccount, what: str, days_ahead: tuple[int, ...], end: datetime) -> None:
    now = work.clock.now_for(account)
    for days in days_ahead:
        at = end - timedelta(days=days)
        if at >= now:
            await enqueue(work, account, WorkKind.REMIND, f"{what}:{days}:{end.isoformat()}", at)


async def remind(work: Work, standing: Standing, subject: str) -> None:
    """Tell what is ahead, if it still is."""
    what, days, end = subject.split(":", 2)
    account, subscription = standing.account, standing.subscription
    if subscription is None or subscription.current_period_end.isoformat() != end:
        return
    at = subscription.current_period_end
    is_sent = account.collection_method is CollectionMethod.SEND_INVOICE
    if what == "trial" and subscription.status is SubscriptionStatus.TRIALING:
        facts = {
            "daysLeft": int(days),
            "isSent": is_sent,
            "hasMethod": is_sent or any(method.is_default for method in standing.methods),
            "hasCompany": standing.company is not None,
        }
        await raise_notice(
            work, account, "TRIAL_ENDING", severity=NoticeSeverity.WARNING, params={**facts, "endsAt": at}
        )
        said = {"subscriptionId": str(subscription.id), "endsAt": end, **facts}
        work.emit(account, "subscription.trial_ending", said)
    elif what == "renewal" and not subscription.cancel_at_period_end:
        costs = {"daysLeft": int(days), "amountMinor": subscription.price_minor, "currency": account.currency}
        await raise_notice(
            work,
            account,
            "RENEWAL_AHEAD",
            severity=NoticeSeverity.INFO,
            params={"at": at, **costs},
            dismissible=True,
        )
        work.emit(account, "invoice.upcoming", {"at": end, **costs})
    elif what == "card":
        await _warn_of_card(work, account, standing, at)


async def _warn_of_card(work: Work, account: BillingAccount, standing: Standing, charged_at: datetime) -> None:
    method = next((row for row in standing.methods if row.is_default), None)
    if method is None or charged_at < _end_of(method):
        return
    facts = {"last4": method.last4, "expMonth": method.exp_month, "expYear": method.exp_year}
    await raise_notice(work, account, "CARD_EXPIRING", str(method.id), severity=NoticeSeverity.WARNING, params=facts)
    work.emit(account, "payment_method.expiring", {"paymentMethodId": str(method.id), **facts})


def _end_of(method: PaymentMethod) -> datetime:
    """A card is good to the end of its month."""
    return datetime(method.exp_year + method.exp_month // 12, method.exp_month % 12 + 1, 1, tzinfo=UTC)
