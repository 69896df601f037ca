"""Setting budgets: the inputs and answers."""

import strawberry

from ..services.budgets import DEFAULT_THRESHOLDS, MAX_BUDGETS, MAX_THRESHOLDS
from ..services.rules.thresholds import HIGHEST, LOWEST
from .billing import BillingAccount, Budget
from .enums import BudgetAction, BudgetScope
from .errors import UserError
from .fields import maybe, once_key, refusals, said
from .money import MoneyInput


@strawberry.input(description="A budget. It takes the place of one of the same scope and subject.")
class SetBudgetInput:
    """A budget."""

    account_id: strawberry.ID = said(f"Whose. An account has at most {MAX_BUDGETS} budgets.")
    scope: BudgetScope = strawberry.field(default=BudgetScope.ACCOUNT, description="What it limits the spend of.")
    metric: str | None = maybe("Of scope METRIC: the metric's key.")
    workspace: str | None = maybe(
        "Of scope WORKSPACE: the workspace, as events have named it by their property `workspace`."
    )
    limit: MoneyInput = said("What may be spent in a usage period, net; above 0 and in the account's currency.")
    thresholds: list[int] | None = maybe(
        f"Shares of the limit in whole percent at which alerts are raised, {LOWEST} to {HIGHEST}, each once, at most "
        f"{MAX_THRESHOLDS}; {' and '.join(map(str, DEFAULT_THRESHOLDS))} when left out."
    )
    action: BudgetAction = strawberry.field(
        default=BudgetAction.ALERT_ONLY, description="What happens when it is spent."
    )
    upgrade_ceiling: MoneyInput | None = maybe(
        "Of the action UPGRADE, and needed there: what a plan may cost per month at most, net. A plan above it is "
        "never changed to."
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="The budget, or why it was not set.")
class SetBudgetPayload:
    """The answer."""

    budget: Budget | None = maybe("The budget with what is spent of it now.")
    account: BillingAccount | None = maybe("The account: alerts may have been raised or resolved at once.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A budget to take away.")
class RemoveBudgetInput:
    """A budget."""

    account_id: strawberry.ID = said("Whose.")
    budget_id: strawberry.ID = said("Which one. Its history goes with it.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="The account without the budget, or why it is still there.")
class RemoveBudgetPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account as it is now.")
    user_errors: list[UserError] = refusals()
