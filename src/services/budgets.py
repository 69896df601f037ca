"""Budgets: ceilings on what an account spends in a usage period, as people set them and take them away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select

from ..database import ReadSession, Work
from ..models import (
    AlertKind,
    BillingAccount,
    Budget,
    BudgetAction,
    BudgetPeriod,
    BudgetScope,
    Metric,
    UsageRollup,
    WorkKind,
)
from .access import Principal
from .accounts import lock_account
from .alerts import resolve_thresholds
from .budget_periods import NOT_UPGRADED, load_budgets, reckon_spend, unblock
from .due_work import forget_vain
from .edits import record_update
from .errors import BillingError, InvalidInput, NotFound, Refusals
from .notices import clear_notices
from .permissions import Action, require_action
from .rules.money import MAX_AMOUNT_MINOR
from .rules.thresholds import find_faults

MAX_BUDGETS = 20
MAX_THRESHOLDS = 10
DEFAULT_THRESHOLDS = (80, 100)
UNKNOWN = "There is no such budget, or it is not yours."


@dataclass(frozen=True, kw_only=True)
class BudgetInput:
    """A budget as somebody wants it. What is set is the whole: what stood before is replaced."""

    scope: BudgetScope
    limit_minor: int
    currency: str
    metric: str | None = None
    workspace: str | None = None
    thresholds: Sequence[int] | None = None
    action: BudgetAction = BudgetAction.ALERT_ONLY
    ceiling_minor: int | None = None
    ceiling_currency: str | None = None


async def set_budget(work: Work, principal: Principal, account_id: UUID, asked: BudgetInput) -> Budget:
    """Set the budget of an account, or of a metric or workspace beneath it. It holds at once, also under the spend."""
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.SET_BUDGET)
    refusals = [*check_terms(account, asked), *_check_ceiling(account, asked)]
    if refusals:
        raise Refusals(refusals)
    subject = await find_subject(ReadSession(work.session), account, asked)
    rows = {(row.scope, row.subject): row for row in await load_budgets(work, account)}
    row = rows.get((asked.scope, subject))
    if row is None and len(rows) >= MAX_BUDGETS:
        raise InvalidInput(
            f"An account has at most {MAX_BUDGETS} budgets: remove one by `removeBudget` first.", ["input", "accountId"]
        )
    now = work.clock.now_for(account)
    columns: dict[str, Any] = {
        "limit_minor": asked.limit_minor,
        "thresholds": sorted(DEFAULT_THRESHOLDS if asked.thresholds is None else asked.thresholds),
        "action": asked.action,
        "upgrade_ceiling_minor": asked.ceiling_minor,
    }
    before = None if row is None else describe_budget(row)
    if row is None:
        row = Budget(created_at=now, account_id=account.id, scope=asked.scope, subject=subject, **columns)
        work.session.add(row)
    else:
        gone = set(row.thresholds) - set(columns["thresholds"])
        for column, value in columns.items():
            setattr(row, column, value)
        if before == describe_budget(row):
            return row
        row.updated_at = now
        await resolve_thresholds(work, account, AlertKind.BUDGET, str(row.id), gone)
        if before is not None and before["action"] != row.action:
            await unblock(work, account, row)
    await clear_notices(work, account, (NOT_UPGRADED,))
    await forget_vain(work, account, WorkKind.UPGRADE_PLAN)
    await work.session.flush()
    record_update(
        work,
        account,
        "budget.set",
        f"budget:{row.id}",
        changed=["budgets"],
        before=before,
        after=describe_budget(row),
        about={"budgetId": str(row.id)},
    )
    work.before_commit(reckon_spend, account)
    return row


async def remove_budget(work: Work, principal: Principal, account_id: UUID, budget_id: UUID) -> BillingAccount:
    """Take a budget away, with its history: its alerts are resolved, and nothing is stopped by it any more."""
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.SET_BUDGET)
    row = await work.session.scalar(select(Budget).where(Budget.id == budget_id, Budget.account_id == account.id))
    if row is None:
        raise NotFound(UNKNOWN, ["input", "budgetId"])
    await resolve_thresholds(work, account, AlertKind.BUDGET, str(row.id))
    await unblock(work, account, row)
    await clear_notices(work, account, (NOT_UPGRADED,))
    await work.session.execute(delete(BudgetPeriod).where(BudgetPeriod.budget_id == row.id))
    await work.session.delete(row)
    record_update(
        work,
        account,
        "budget.removed",
        f"budget:{row.id}",
        changed=["budgets"],
        before=describe_budget(row),
        about={"budgetId": str(row.id)},
    )
    return account


def describe_budget(row: Budget) -> dict[str, Any]:
    """A budget as the audit log shows it."""
    return {
        "scope": row.scope,
        "subject": row.subject,
        "limitMinor": row.limit_minor,
        "thresholds": list(row.thresholds),
        "action": row.action,
        "upgradeCeilingMinor": row.upgrade_ceiling_minor,
    }


def check_terms(account: BillingAccount, asked: BudgetInput) -> list[BillingError]:
    """Why something is no budget, whatever it does when it is spent: all that is wrong, none where it is one."""
    refusals: list[BillingError] = []
    named = {BudgetScope.METRIC: asked.metric, BudgetScope.WORKSPACE: asked.workspace}
    for scope, field in ((BudgetScope.METRIC, "metric"), (BudgetScope.WORKSPACE, "workspace")):
        if asked.scope is scope and not named[scope]:
            refusals.append(InvalidInput(f"A budget of scope {scope} names its {field}.", ["input", field]))
        elif asked.scope is not scope and named[scope] is not None:
            told = f"A budget of scope {asked.scope} names no {field}: leave it out, or choose the scope {scope}."
            refusals.append(InvalidInput(told, ["input", field]))
    refusals += _check_amount(account, "limit", asked.limit_minor, asked.currency)
    return [*refusals, *_check_thresholds(asked.thresholds)]


def _check_ceiling(account: BillingAccount, asked: BudgetInput) -> list[BillingError]:
    if (asked.action is BudgetAction.UPGRADE) != (asked.ceiling_minor is not None):
        told = (
            "UPGRADE needs `upgradeCeiling`: what a plan may cost per month at most."
            if asked.ceiling_minor is None
            else f"`upgradeCeiling` is for the action UPGRADE, not for {asked.action}: leave it out."
        )
        return [InvalidInput(told, ["input", "upgradeCeiling"])]
    if asked.ceiling_minor is None:
        return []
    return _check_amount(account, "upgradeCeiling", asked.ceiling_minor, asked.ceiling_currency)


def _check_amount(account: BillingAccount, field: str, minor: int, currency: str | None) -> list[BillingError]:
    path = ["input", field]
    if currency != account.currency:
        told = f"The account pays in {account.currency}, not in {currency}: a budget is in its currency."
        return [InvalidInput(told, [*path, "currency"])]
    if not 1 <= minor <= MAX_AMOUNT_MINOR:
        told = f"`amountMinor` is a whole number of minor units from 1 to {MAX_AMOUNT_MINOR}."
        return [InvalidInput(told, [*path, "amountMinor"])]
    return []


def _check_thresholds(percents: Sequence[int] | None) -> list[BillingError]:
    path = ["input", "thresholds"]
    if percents is None:
        return []
    if not 1 <= len(percents) <= MAX_THRESHOLDS:
        told = f"A budget has 1 to {MAX_THRESHOLDS} thresholds; left out, they are 80 and 100 %."
        return [InvalidInput(told, path)]
    return [InvalidInput(told, [*path, str(place)]) for place, told in find_faults(percents)]


async def find_subject(session: ReadSession, account: BillingAccount, asked: BudgetInput) -> str:
    """What a budget is of: a metric that there is, or a workspace that events have named. Anything else is refused."""
    subject = asked.metric or asked.workspace or ""
    if not subject.isprintable():
        raise InvalidInput("It has unprintable characters.", ["input", asked.scope.lower()])
    if asked.scope is BudgetScope.METRIC:
        if await session.scalar(select(Metric.key).where(Metric.key == subject)) is None:
            raise NotFound("There is no metric with this key: `metrics` lists them.", ["input", "metric"])
    elif asked.scope is BudgetScope.WORKSPACE:
        named = select(UsageRollup.metric_key).where(
            UsageRollup.account_id == account.id, UsageRollup.workspace == subject
        )
        if await session.scalar(named.limit(1)) is None:
            raise NotFound(
                "No event of the account has named this workspace yet: events do by the property `workspace`.",
                ["input", "workspace"],
            )
    return subject
