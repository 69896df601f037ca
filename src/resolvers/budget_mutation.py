"""The mutations about budgets."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.billing import show_budget
from ..schema.budgets import RemoveBudgetInput, RemoveBudgetPayload, SetBudgetInput, SetBudgetPayload
from ..schema.node import NOBODY
from ..services.access import Principal, Right
from ..services.budgets import BudgetInput, remove_budget, set_budget
from ..services.idempotency import Request, idempotent
from .access import find_account_id, find_id, mutation
from .context import Info
from .showing import show_account


@strawberry.type
class BudgetMutation:
    """What of Mutation is about budgets."""

    @mutation(Right.MANAGE_BILLING)
    async def set_budget(
        self,
        info: Info,
        input: Annotated[SetBudgetInput, strawberry.argument(description="The whole budget.")],
    ) -> SetBudgetPayload:
        """Set a ceiling on what an account, a metric or a workspace spends in a usage period.

        It holds at once: what is spent already counts, its alerts are raised and resolved now, and under the spend it
        stops the next overage, where that is its action.
        """
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        ceiling = input.upgrade_ceiling
        asked = BudgetInput(
            scope=input.scope,
            limit_minor=input.limit.amount_minor,
            currency=input.limit.currency,
            metric=input.metric,
            workspace=input.workspace,
            thresholds=input.thresholds,
            action=input.action,
            ceiling_minor=ceiling.amount_minor if ceiling else None,
            ceiling_currency=ceiling.currency if ceiling else None,
        )
        request = Request(input.idempotency_key, scope=str(account_id), given=asdict(asked))
        outcome = await info.context.run(_set, request, info.context.principal, account_id, asked)
        info.context.note_replay(replayed=outcome.replayed)
        account = await show_account(info, account_id)
        row = await info.context.load.row(models.Budget, UUID(outcome.answer["budgetId"]))
        return SetBudgetPayload(account=account, budget=None if row is None else await show_budget(info.context, row))

    @mutation(Right.MANAGE_BILLING)
    async def remove_budget(
        self,
        info: Info,
        input: Annotated[RemoveBudgetInput, strawberry.argument(description="Which one.")],
    ) -> RemoveBudgetPayload:
        """Take a budget away: its alerts are resolved, and it stops nothing any more."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope=str(account_id), given=input.budget_id)
        budget_id = find_id(input.budget_id, "Budget") or NOBODY
        outcome = await info.context.run(_remove, request, info.context.principal, account_id, budget_id)
        info.context.note_replay(replayed=outcome.replayed)
        return RemoveBudgetPayload(account=await show_account(info, account_id))


@idempotent("setBudget")
async def _set(work: Work, principal: Principal, account_id: UUID, asked: BudgetInput) -> dict[str, Any]:
    row = await set_budget(work, principal, account_id, asked)
    return {"budgetId": str(row.id)}


@idempotent("removeBudget")
async def _remove(work: Work, principal: Principal, account_id: UUID, budget_id: UUID) -> dict[str, Any]:
    await remove_budget(work, principal, account_id, budget_id)
    return {}
