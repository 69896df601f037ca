"""Ordering plans and add-ons, and paying for them: the inputs and answers."""

from enum import Enum

import strawberry

from .billing import (
    BillingAccount,
    CreditNote,
    Invoice,
    PendingChange,
    PlanSubscription,
    Quote,
    ScheduledChange,
    Transaction,
)
from .enums import Interval
from .errors import UserError
from .fields import maybe, once_key, refusals, said, say_enum
from .scalars import BigInt


class CancelMode(Enum):
    """When a cancellation takes effect."""

    AT_PERIOD_END = "AT_PERIOD_END"
    NOW = "NOW"


class CancelCredit(Enum):
    """What a cancellation at once gives back."""

    NONE = "NONE"
    PRORATED = "PRORATED"


say_enum(
    CancelMode,
    {
        "AT_PERIOD_END": "With the billing period, or the trial; can be undone until then.",
        "NOW": "At once; for operators.",
    },
)
say_enum(
    CancelCredit,
    {
        "NONE": "Nothing.",
        "PRORATED": "The unused rest of plan and add-ons, as credit notes; nothing of blocks of a counter.",
    },
)


@strawberry.input(description="A trial of 14 days, once per account.")
class StartTrialInput:
    """A trial."""

    account_id: strawberry.ID = said("Whose.")
    plan_key: str = said("The plan's key, such as professional.")
    interval: Interval = said("How often it is paid.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="A trial that began, or why it did not.")
class StartTrialPayload:
    """The answer to a trial."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A plan to start with, also from a trial, which it ends.")
class StartSubscriptionInput:
    """A start."""

    account_id: strawberry.ID = said("Whose.")
    plan_key: str = said("The plan's key, such as professional.")
    interval: Interval = said("How often it is paid.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A plan that began, waits for its payment, or was refused.")
class StartSubscriptionPayload:
    """The answer to a start."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    invoice: Invoice | None = maybe("What was invoiced; null where nothing was, or until it is paid.")
    transaction: Transaction | None = maybe(
        "The charge; null where none was made. One that was given up, or came for what no longer holds, is refused."
    )
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A change of plan to price.")
class QuotePlanChangeInput:
    """A change to price."""

    account_id: strawberry.ID = said("Whose.")
    plan_key: str = said("The plan's key, such as professional.")
    interval: Interval = said("How often it is paid.")


@strawberry.type(description="What a change of plan would cost.")
class QuotePlanChangePayload:
    """The answer to a quote."""

    quote: Quote | None = maybe("The quote.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A change of plan: by a quote, as it pins, or by plan and interval as priced now.")
class ChangePlanInput:
    """A change."""

    account_id: strawberry.ID = said("Whose.")
    quote_id: strawberry.ID | None = maybe("The quote to confirm; instead of plan and interval.")
    plan_key: str | None = maybe("The plan's key; instead of a quote.")
    interval: Interval | None = maybe("How often it is paid; with `planKey`.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A change of plan that was made, waits (for payment or the period's end), or was refused.")
class ChangePlanPayload:
    """The answer to a change."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    invoice: Invoice | None = maybe("What was invoiced; null where nothing was, or until it is paid.")
    transaction: Transaction | None = maybe(
        "The charge; null where none was made. One that was given up, or came for what no longer holds, is refused."
    )
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    scheduled_change: ScheduledChange | None = maybe("The change where it waits for the period's end; else null.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A change that waits, to be taken back.")
class CancelScheduledChangeInput:
    """A change to take back."""

    account_id: strawberry.ID = said("Whose.")


@strawberry.type(description="What became of taking a change back.")
class CancelScheduledChangePayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A cancellation.")
class CancelSubscriptionInput:
    """A cancellation."""

    account_id: strawberry.ID = said("Whose.")
    mode: CancelMode = strawberry.field(default=CancelMode.AT_PERIOD_END, description="When it takes effect.")
    credit: CancelCredit = strawberry.field(default=CancelCredit.NONE, description="What it gives back; at once only.")
    reason: str | None = maybe("Why, up to 500 characters: kept in the history.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A subscription that was cancelled, or why not.")
class CancelSubscriptionPayload:
    """The answer to a cancellation."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    credit_notes: list[CreditNote] | None = maybe("What was given back; at most one for each invoice credited.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A cancellation to undo, before the period ends.")
class ResumeSubscriptionInput:
    """An undoing."""

    account_id: strawberry.ID = said("Whose.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="A subscription that goes on, or why not.")
class ResumeSubscriptionPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A plan to start anew with after a cancellation.")
class ReactivateSubscriptionInput:
    """A reactivation."""

    account_id: strawberry.ID = said("Whose.")
    plan_key: str = said("The plan's key, such as professional.")
    interval: Interval = said("How often it is paid.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A plan that began anew, waits for its payment, or was refused.")
class ReactivateSubscriptionPayload:
    """The answer to a reactivation."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    invoice: Invoice | None = maybe("What was invoiced; null where nothing was, or until it is paid.")
    transaction: Transaction | None = maybe(
        "The charge; null where none was made. One that was given up, or came for what no longer holds, is refused."
    )
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A quantity of an add-on to price.")
class QuoteAddOnInput:
    """A quantity to price."""

    account_id: strawberry.ID = said("Whose.")
    add_on_key: str = said("The add-on's key, such as additional_user.")
    quantity: BigInt = said("How many units are wanted in all; 0 ends it.")


@strawberry.type(description="What an add-on would cost now.")
class QuoteAddOnPayload:
    """The answer to a quote."""

    quote: Quote | None = maybe("The quote.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="The wanted quantity of an add-on: what exceeds what is paid for is charged now.")
class SetAddOnInput:
    """A quantity."""

    account_id: strawberry.ID = said("Whose.")
    add_on_key: str = said("The add-on's key, such as additional_user.")
    quantity: BigInt = said("How many units are wanted in all; 0 ends it.")
    quote_id: strawberry.ID | None = maybe("The quote to confirm, for the same add-on and quantity.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="An add-on that was set, waits for its payment, or was refused.")
class SetAddOnPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    invoice: Invoice | None = maybe("What was invoiced; null where nothing was, or until it is paid.")
    transaction: Transaction | None = maybe(
        "The charge; null where none was made. One that was given up, or came for what no longer holds, is refused."
    )
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    user_errors: list[UserError] = refusals()
