"""Paying, paying back, and what operators book by hand: the inputs and answers."""

from datetime import datetime

import strawberry

from .billing import (
    BillingAccount,
    CreditNote,
    Invoice,
    PaymentMethod,
    PendingChange,
    PlanSubscription,
    RefundRequest,
    RefundVerdict,
    Transaction,
)
from .enums import RefundDecision, RefundReason
from .errors import UserError
from .fields import maybe, once_key, refusals, said
from .scalars import BigInt, CurrencyCode


@strawberry.input(description="Whose card is to be entered.")
class CreatePaymentSetupInput:
    """A setup."""

    account_id: strawberry.ID = said("The account that will pay by the card.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="What the frontend needs to let a cardholder enter a card at the processor.")
class PaymentSetup:
    """A setup."""

    client_secret: str = said("For the processor's own script, once. Never store or log it.")
    publishable_key: str | None = said("What that script is started with; null in the sandbox, which has none.")


@strawberry.type(description="A setup that was opened, or why not.")
class CreatePaymentSetupPayload:
    """The answer."""

    payment_setup: PaymentSetup | None = maybe(
        "The setup; `addPaymentMethod` takes the token that comes of it. Null in a replay: its secret is shown once."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A payment method that the processor knows. Card numbers never come here.")
class AddPaymentMethodInput:
    """A payment method."""

    account_id: strawberry.ID = said("The account that pays by it. A method belongs to one account.")
    token: str = said("The processor's token, such as pm_card_visa in the sandbox.")
    make_default: bool = strawberry.field(default=True, description="Whether charges go to it from now on.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A payment method that was added, or why not.")
class AddPaymentMethodPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    payment_method: PaymentMethod | None = maybe(
        "As it is kept, with brand, last four digits and expiry as the processor told them."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A charge that the cardholder has confirmed with the bank.")
class ConfirmPaymentInput:
    """A confirmed charge."""

    transaction_id: strawberry.ID = said(
        "The charge whose status is `REQUIRES_ACTION`: in `pendingChange` or from `retryPayment`."
    )
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="What became of a charge, and of what it pays.")
class ConfirmPaymentPayload:
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


@strawberry.input(description="Credit to give.")
class GrantCreditInput:
    """Credit."""

    account_id: strawberry.ID = said("The account whose next invoices it pays.")
    amount_minor: BigInt = said("How much, in minor units; above 0.")
    currency: CurrencyCode = said("The account's own, so that nobody mistakes it.")
    reason: str = said("Why, up to 500 characters: the customer reads it.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="Credit that was given, or why not.")
class GrantCreditPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    transaction: Transaction | None = maybe(
        "A movement of kind `CREDIT`; the balance is `BillingAccount.creditBalance`."
    )
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
    invoice: Invoice | None = maybe("Now `VOID`; it keeps its number.")
    credit_note: CreditNote | None = maybe("Over all of it; what the balance paid of it is balance again.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="How much of a line to take back.")
class CreditNoteLineInput:
    """A part of a line."""

    line_id: strawberry.ID = said("A line of that invoice that charges something, by its `InvoiceLine.id`.")
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
    credit_note: CreditNote | None = maybe(
        "As issued: `toInvoice` lowered what was due, `toBalance` went to the credit balance."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A payment method to charge from now on.")
class SetDefaultPaymentMethodInput:
    """A method."""

    payment_method_id: strawberry.ID = said("Which one. What is overdue is tried with it at once.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="The method that is charged from now on, or why not.")
class SetDefaultPaymentMethodPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    payment_method: PaymentMethod | None = maybe("The new default, with `isDefault` true.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A payment method to forget.")
class RemovePaymentMethodInput:
    """A method."""

    payment_method_id: strawberry.ID = said(
        "The method to forget: not the last while something is due, nor one that is being charged."
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="A method that was removed, or why not.")
class RemovePaymentMethodPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="Whose open invoices are to be charged now.")
class RetryPaymentInput:
    """A retry."""

    account_id: strawberry.ID = said("The account whose open invoices are charged by its default method.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="What became of the charges, or why none was made.")
class RetryPaymentPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    subscription: PlanSubscription | None = maybe("The subscription, as it is after it.")
    transactions: list[Transaction] | None = maybe("The charges, the oldest invoice's first.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A transfer that was seen on the bank's statement.")
class RecordPaymentInput:
    """A payment by hand."""

    invoice_id: strawberry.ID = said("The invoice that it pays.")
    amount_minor: BigInt = said("How much came, in minor units; above 0. What exceeds what is due is owed back.")
    currency: CurrencyCode = said("The account's own, so that nobody mistakes it.")
    reference: str = said("What the bank says of it, up to 140 characters.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A payment that was booked, or why not.")
class RecordPaymentPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    invoice: Invoice | None = maybe("The invoice, as it is after it.")
    transaction: Transaction | None = maybe(
        "A movement of kind `MANUAL`; what exceeds what was due can be asked back as a `DUPLICATE`."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="What is wanted back of a payment, and why.")
class RequestRefundInput:
    """A request."""

    transaction_id: strawberry.ID = said("A charge, or a transfer that was booked, that succeeded and is not disputed.")
    reason: RefundReason = said("It decides how much the rules allow: `Transaction.refundPolicy` says so beforehand.")
    amount_minor: BigInt | None = maybe("How much, tax included, in minor units; as much as is allowed if left out.")
    currency: CurrencyCode | None = maybe("The account's own, so that nobody mistakes it; wanted with an amount.")
    from_: datetime | None = strawberry.field(
        name="from", default=None, description="Of a SERVICE_ISSUE: when it began."
    )
    to: datetime | None = maybe("Of a SERVICE_ISSUE: when it was over, exclusive.")
    line_ids: list[strawberry.ID] | None = maybe("Of a BILLING_ERROR: the invoice's lines that are wrong, up to 100.")
    note: str = strawberry.field(default="", description="What the operator should know, up to 500 characters.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="A request with the verdict of the rules, or why it could not be made.")
class RequestRefundPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    refund_request: RefundRequest | None = maybe("The request. Not allowed by the rules it is kept all the same.")
    verdict: RefundVerdict | None = maybe(
        "What the rules say of it at this moment, and how much they allow; kept with the request."
    )
    user_errors: list[UserError] = refusals()


@strawberry.input(description="A decision on a request for a refund.")
class ReviewRefundInput:
    """A decision."""

    refund_request_id: strawberry.ID = said(
        "A request that waits, or whose refund failed: `refundRequests` lists them."
    )
    decision: RefundDecision = said(
        "Pay it back, give it as credit, or deny it. What failed is owed: it cannot be denied any more."
    )
    amount_minor: BigInt | None = maybe(
        "Another amount than was asked for, tax included, in minor units; above the rules' with a reason."
    )
    currency: CurrencyCode | None = maybe("The account's own, so that nobody mistakes it; wanted with an amount.")
    reason: str | None = maybe("Why, up to 500 characters: wanted to deny, or to override the rules.")
    idempotency_key: str = once_key(required=True)


@strawberry.type(description="What was decided, or why not.")
class ReviewRefundPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account, as it is after it.")
    refund_request: RefundRequest | None = maybe("As decided; `SUCCEEDED` once the money is back or the credit given.")
    refund: Transaction | None = maybe("The refund; null where nothing goes back through the processor.")
    credit_note: CreditNote | None = maybe(
        "What it took back of the invoice; null for a duplicate, which took nothing."
    )
    user_errors: list[UserError] = refusals()
