"""Following advice, and putting it away: the inputs and answers."""

import strawberry

from .billing import BillingAccount, Invoice, PendingChange, PlanSubscription, Quote, ScheduledChange, Transaction
from .errors import UserError
from .fields import maybe, once_key, refusals, said


@strawberry.input(description="A recommendation to order what it advises.")
class ApplyRecommendationInput:
    """An application."""

    recommendation_id: strawberry.ID = said("Which one, as `recommendations` gives it; not one of SEND_LESS.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="What was ordered on a recommendation, or why not.")
class ApplyRecommendationPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    quote: Quote | None = maybe("The quote that was confirmed: just this was charged.")
    invoice: Invoice | None = maybe("What was invoiced; null where nothing was, or until it is paid.")
    transaction: Transaction | None = maybe("The charge; null where none was made.")
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    scheduled_change: ScheduledChange | None = maybe("The change while it waits for the billing period's end.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A recommendation to put away.")
class DismissRecommendationInput:
    """A dismissal."""

    recommendation_id: strawberry.ID = said("Which one, as `recommendations` gives it.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="The account without the recommendation, or why it stays.")
class DismissRecommendationPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    user_errors: list[UserError] = refusals()
