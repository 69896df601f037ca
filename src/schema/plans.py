"""Ordering plans and add-ons, and paying for them: the inputs and answers."""

from enum import Enum

import strawberry

from .billing import (
    BillingAccount,
    CreditNote,
    Invoice,
    PaymentMethod,
    PendingChange,
    PlanSubscription,
    Quote,
    ScheduledChange,
    Transaction,
)
from .enums import Interval
from .errors import UserError
from .fields import maybe, once_key, refusals, said, say_enum
from .scalars import BigInt, CurrencyCode


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
    {"NONE": "Nothing.", "PRORATED": "The unused rest of plan and add-ons, as credit notes."},
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
    transaction: Transaction | None = maybe("The charge; null where none was made.")
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


@strawberry.input(description="A change of plan: by a quote, charged exactly, or by plan and interval as priced now.")
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
    transaction: Transaction | None = maybe("The charge; null where none was made.")
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
    transaction: Transaction | None = maybe("The charge; null where none was made.")
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
    transaction: Transaction | None = maybe("The charge; null where none was made.")
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A payment method that the processor knows. Card numbers never come here.")
class AddPaymentMethodInput:
    """A payment method."""

    account_id: strawberry.ID = said("Whose.")
    token: str = said("The processor's token, such as pm_card_visa in the sandbox.")
    make_default: bool = strawberry.field(default=True, description="Whether charges go to it from now on.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A payment method that was added, or why not.")
class AddPaymentMethodPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    payment_method: PaymentMethod | None = maybe("The payment method.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A charge that the cardholder has confirmed with the bank.")
class ConfirmPaymentInput:
    """A confirmed charge."""

    transaction_id: strawberry.ID = said("The charge.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="What became of a charge, and of what it pays.")
class ConfirmPaymentPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    invoice: Invoice | None = maybe("What was invoiced; null where nothing was, or until it is paid.")
    transaction: Transaction | None = maybe("The charge; null where none was made.")
    pending_change: PendingChange | None = maybe(
        "The change while its payment waits for the cardholder; null once it is made."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="Credit to give.")
class GrantCreditInput:
    """Credit."""

    account_id: strawberry.ID = said("Whose.")
    amount_minor: BigInt = said("How much, in minor units; above 0.")
    currency: CurrencyCode = said("The account's own, so that nobody mistakes it.")
    reason: str = said("Why, up to 500 characters: the customer reads it.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="Credit that was given, or why not.")
class GrantCreditPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    transaction: Transaction | None = maybe("The movement that gives it.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="An invoice to withdraw.")
class VoidInvoiceInput:
    """An invoice to withdraw."""

    invoice_id: strawberry.ID = said("The invoice: open, unpaid and uncredited.")
    reason: str = said("Why, up to 500 characters: kept in the audit log.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="An invoice that was withdrawn, or why not.")
class VoidInvoicePayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    invoice: Invoice | None = maybe("The invoice.")
    credit_note: CreditNote | None = maybe("The credit note for the whole of it.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="How much of a line to take back.")
class CreditNoteLineInput:
    """A part of a line."""

    line_id: strawberry.ID = said("The invoice's line.")
    amount_minor: BigInt = said("How much, net, in minor units; at most what is not credited yet.")


@strawberry.input(description="A credit note to issue.")
class IssueCreditNoteInput:
    """A credit note."""

    invoice_id: strawberry.ID = said("The invoice to correct: open or paid.")
    lines: list[CreditNoteLineInput] = said("What to take back, 1 to 100 lines of the invoice, each once.")
    reason: str = said("Why, up to 500 characters: kept in the audit log.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A credit note that was issued, or why not.")
class IssueCreditNotePayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    invoice: Invoice | None = maybe("The invoice, as it is after it.")
    credit_note: CreditNote | None = maybe("The credit note.")
    user_errors: list[UserError] = refusals()
