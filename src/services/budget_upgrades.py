"""Changing to the next plan because a budget is spent: once in a usage period, and never past its ceiling."""

from datetime import datetime, timedelta

from sqlalchemy import exists, select

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    Budget,
    BudgetAction,
    BudgetPeriod,
    ChangeAct,
    UsageCost,
    WorkKind,
)
from .advice import PricedPlan, load_market
from .budget_periods import UPGRADED
from .closing import load_standing
from .decisions import Priced, decide_change
from .due_work import enqueue_again, forget, mark_vain
from .errors import BillingError
from .rules.money import round_half_away
from .rules.periods import MONTHS
from .spends import PAYING
from .standing import Standing, Terms
from .taking import pin, take
from .upgrade_notices import tell_of_it, tell_why_not

A_MOMENT = timedelta(seconds=1)


async def upgrade_plan(work: Work, account: BillingAccount, started: str) -> None:
    """Change a locked account to the next plan: what the change costs is quoted, and charged like any other.

    Only where overage spends the budget: what plan and add-ons cost by themselves is no reason for a larger plan. Where
    nothing can be changed the account is told why; setting a budget tries again. A budget that was raised meanwhile
    changes nothing.
    """
    standing = await load_standing(work, account)
    subscription, terms = standing.subscription, standing.terms
    budgets = await _list_spent(work, account, started)
    if (
        subscription is None
        or terms is None
        or subscription.status not in PAYING
        or subscription.usage_period_start.isoformat() != started
    ):
        return
    if not budgets:
        # Raised meanwhile, or spent without overage: when it is spent by it, that is the first time.
        await forget(work, account, WorkKind.UPGRADE_PLAN, started)
        return
    if standing.drafts:
        # The invoice of the last period comes first; it waits an hour for late usage.
        finalised = [draft.finalise_at for draft in standing.drafts if draft.finalise_at is not None]
        await enqueue_again(work, account, WorkKind.UPGRADE_PLAN, started, max(finalised) + A_MOMENT)
        return
    plan = await _find_next(ReadSession(work.session), standing, terms)
    if plan is None:
        await tell_why_not(work, account, "NO_HIGHER_PLAN")
        await mark_vain(work, account, WorkKind.UPGRADE_PLAN, started)
        return
    key = (terms.interval, standing.currency)
    months, price_minor = MONTHS[terms.interval], plan.prices[key]
    ceiling_minor = min(budget.upgrade_ceiling_minor or 0 for budget in budgets)
    said = {"plan": plan.offer.plan.name, "monthlyMinor": round_half_away(price_minor, months)}
    if price_minor > ceiling_minor * months:
        await tell_why_not(work, account, "ABOVE_CEILING", **said, ceilingMinor=ceiling_minor)
        await mark_vain(work, account, WorkKind.UPGRADE_PLAN, started)
        return
    try:
        decision = await decide_change(work, standing, plan.offer.plan.key, terms.interval)
        assert isinstance(decision, Priced), "a higher plan at the same interval takes effect at once"
        quote = pin(work, standing, ChangeAct.CHANGE_PLAN, decision)
        placed = await take(work, standing, decision, reason=UPGRADED, on_session=False)
    except BillingError as refusal:
        await tell_why_not(work, account, "REFUSED", **said, reason=str(refusal))
        await mark_vain(work, account, WorkKind.UPGRADE_PLAN, started)
        return
    work.audit(
        account,
        "budget.upgrade_ordered",
        f"quote:{quote.id}",
        after={"budgets": [str(budget.id) for budget in budgets], "plan": plan.offer.plan.key},
    )
    if placed.pending_id is None:
        await tell_of_it(work, account, **said)


async def _list_spent(work: Work, account: BillingAccount, started: str) -> list[Budget]:
    rows = await work.session.scalars(
        select(Budget)
        .join(BudgetPeriod, BudgetPeriod.budget_id == Budget.id)
        .where(
            Budget.account_id == account.id,
            Budget.action == BudgetAction.UPGRADE,
            BudgetPeriod.period_start == datetime.fromisoformat(started),
            BudgetPeriod.spent_minor >= BudgetPeriod.limit_minor,
            exists().where(
                UsageCost.account_id == Budget.account_id,
                UsageCost.period_start == BudgetPeriod.period_start,
                UsageCost.cost_minor > 0,
            ),
        )
    )
    return list(rows)


async def _find_next(session: ReadSession, standing: Standing, terms: Terms) -> PricedPlan | None:
    """The lowest public plan above the present one that has a price at its interval and in the account's currency."""
    higher = [
        plan
        for plan in (await load_market(session)).plans
        if plan.offer.plan.tier > terms.offer.plan.tier and (terms.interval, standing.currency) in plan.prices
    ]
    return min(higher, key=lambda plan: plan.offer.plan.tier, default=None)
