"""Telling an account what became of its change to the next plan, which a spent budget asked for."""

from typing import Any

from ..database import ReadSession, Work
from ..models import BillingAccount, NoticeSeverity, PendingChange, PendingStatus, WorkKind
from .budget_periods import NOT_UPGRADED, UPGRADED
from .changing import PlanTarget, load_target
from .due_work import mark_vain
from .notices import clear_notice, raise_notice
from .rules.money import round_half_away
from .rules.periods import MONTHS
from .subscriptions import find_subscription


async def tell_of_upgrade(work: Work, account: BillingAccount, pending: PendingChange) -> None:
    """Tell a locked account what became of a change that waited for its payment; of what people ordered nothing."""
    if pending.reason != UPGRADED:
        return
    target = await load_target(ReadSession(work.session), pending.target)
    assert isinstance(target, PlanTarget), "a plan is upgraded"
    terms = target.terms
    plan, monthly_minor = terms.offer.plan.name, round_half_away(terms.price_minor, MONTHS[terms.interval])
    if pending.status is PendingStatus.APPLIED:
        await tell_of_it(work, account, plan=plan, monthlyMinor=monthly_minor)
    else:
        reason = f"{plan} could not be paid"
        await tell_why_not(work, account, "REFUSED", plan=plan, monthlyMinor=monthly_minor, reason=reason)
        subscription = await find_subscription(work, account)
        if subscription is not None:
            started = subscription.usage_period_start.isoformat()
            await mark_vain(work, account, WorkKind.UPGRADE_PLAN, started)


async def tell_of_it(work: Work, account: BillingAccount, **said: Any) -> None:
    """Tell a locked account that its plan was changed."""
    await clear_notice(work, account, NOT_UPGRADED)
    await raise_notice(
        work,
        account,
        UPGRADED,
        severity=NoticeSeverity.INFO,
        params={**said, "currency": account.currency},
        dismissible=True,
    )


async def tell_why_not(work: Work, account: BillingAccount, why: str, **said: Any) -> None:
    """Tell a locked account why its plan was not changed: `NO_HIGHER_PLAN`, `ABOVE_CEILING` or `REFUSED`."""
    await raise_notice(
        work,
        account,
        NOT_UPGRADED,
        severity=NoticeSeverity.WARNING,
        params={"why": why, "currency": account.currency, **said},
        dismissible=True,
    )
