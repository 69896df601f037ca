"""What a caller may do with an account as it stands: the same checks that the mutations make."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import (
    BillingAccount,
    Invoice,
    InvoiceStatus,
    RefundRequest,
    RefundStatus,
    Subscription,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from .access import Principal, Right, explain_refusal
from .errors import (
    AccountCanceled,
    AccountSuspended,
    BillingError,
    Conflict,
    InvalidTransition,
    InvoiceIsPaid,
    RefundNotAllowed,
    UserErrorCode,
)
from .rules.transitions import RUNNING

S = SubscriptionStatus
States = frozenset[SubscriptionStatus | None]


class Action(StrEnum):
    """What can be done by a mutation."""

    RECORD_USAGE = "RECORD_USAGE"
    SET_OVERAGE_POLICY = "SET_OVERAGE_POLICY"
    APPROVE_OVERAGE = "APPROVE_OVERAGE"
    UPDATE_ACCOUNT = "UPDATE_ACCOUNT"
    UPDATE_COMPANY = "UPDATE_COMPANY"
    SET_ALERT_THRESHOLDS = "SET_ALERT_THRESHOLDS"
    SET_BUDGET = "SET_BUDGET"
    ACKNOWLEDGE_ALERTS = "ACKNOWLEDGE_ALERTS"
    ADD_PAYMENT_METHOD = "ADD_PAYMENT_METHOD"
    START_TRIAL = "START_TRIAL"
    START_SUBSCRIPTION = "START_SUBSCRIPTION"
    CHANGE_PLAN = "CHANGE_PLAN"
    SET_ADD_ON = "SET_ADD_ON"
    CANCEL_SUBSCRIPTION = "CANCEL_SUBSCRIPTION"
    CANCEL_NOW = "CANCEL_NOW"
    RESUME_SUBSCRIPTION = "RESUME_SUBSCRIPTION"
    REACTIVATE_SUBSCRIPTION = "REACTIVATE_SUBSCRIPTION"
    SET_TAX_EXEMPTION = "SET_TAX_EXEMPTION"
    GRANT_CREDIT = "GRANT_CREDIT"
    VOID_INVOICE = "VOID_INVOICE"
    ISSUE_CREDIT_NOTE = "ISSUE_CREDIT_NOTE"
    CREATE_PAYMENT_SETUP = "CREATE_PAYMENT_SETUP"
    SET_DEFAULT_PAYMENT_METHOD = "SET_DEFAULT_PAYMENT_METHOD"
    REMOVE_PAYMENT_METHOD = "REMOVE_PAYMENT_METHOD"
    RETRY_PAYMENT = "RETRY_PAYMENT"
    CONFIRM_PAYMENT = "CONFIRM_PAYMENT"
    RECORD_PAYMENT = "RECORD_PAYMENT"
    REQUEST_REFUND = "REQUEST_REFUND"
    REVIEW_REFUND = "REVIEW_REFUND"
    REQUEST_EXPORT = "REQUEST_EXPORT"
    INVITE_MEMBER = "INVITE_MEMBER"
    SET_MEMBER_ROLE = "SET_MEMBER_ROLE"
    REMOVE_MEMBER = "REMOVE_MEMBER"
    TRANSFER_OWNERSHIP = "TRANSFER_OWNERSHIP"
    ACCEPT_OWNERSHIP = "ACCEPT_OWNERSHIP"
    MANAGE_CONTACTS = "MANAGE_CONTACTS"
    MANAGE_WEBHOOKS = "MANAGE_WEBHOOKS"
    CREATE_API_KEY = "CREATE_API_KEY"
    ROTATE_API_KEY = "ROTATE_API_KEY"
    REVOKE_API_KEY = "REVOKE_API_KEY"
    APPLY_RECOMMENDATION = "APPLY_RECOMMENDATION"
    DISMISS_RECOMMENDATION = "DISMISS_RECOMMENDATION"
    CLOSE_ACCOUNT = "CLOSE_ACCOUNT"
    SET_LEGAL_HOLD = "SET_LEGAL_HOLD"


ANY: States = frozenset({None, *S})

RIGHTS: dict[Action, Right] = {
    Action.RECORD_USAGE: Right.INGEST_USAGE,
    Action.CANCEL_NOW: Right.OPERATE,
    Action.SET_TAX_EXEMPTION: Right.OPERATE,
    Action.GRANT_CREDIT: Right.OPERATE,
    Action.VOID_INVOICE: Right.OPERATE,
    Action.ISSUE_CREDIT_NOTE: Right.OPERATE,
    Action.RECORD_PAYMENT: Right.OPERATE,
    Action.REVIEW_REFUND: Right.OPERATE,
    Action.CLOSE_ACCOUNT: Right.ADMINISTER,
    Action.SET_LEGAL_HOLD: Right.OPERATE,
    Action.CREATE_API_KEY: Right.MANAGE_KEYS,
    Action.INVITE_MEMBER: Right.ADMINISTER,
    Action.SET_MEMBER_ROLE: Right.ADMINISTER,
    Action.REMOVE_MEMBER: Right.READ_USAGE,
    Action.TRANSFER_OWNERSHIP: Right.ADMINISTER,
    Action.ACCEPT_OWNERSHIP: Right.READ_USAGE,
}
"""What an action needs; `MANAGE_BILLING` where nothing is said."""

STATES: dict[Action, States] = {
    Action.START_TRIAL: frozenset({None}),
    Action.START_SUBSCRIPTION: frozenset({None, S.TRIALING}),
    Action.CHANGE_PLAN: frozenset({S.TRIALING, S.ACTIVE, S.PAST_DUE}),
    Action.SET_ADD_ON: frozenset({S.TRIALING, S.ACTIVE, S.PAST_DUE}),
    Action.CANCEL_SUBSCRIPTION: frozenset(RUNNING),
    Action.CANCEL_NOW: frozenset(RUNNING),
    Action.RESUME_SUBSCRIPTION: frozenset(RUNNING),
    Action.REACTIVATE_SUBSCRIPTION: frozenset({S.CANCELED}),
    Action.APPLY_RECOMMENDATION: frozenset({S.ACTIVE, S.PAST_DUE}),
    Action.CLOSE_ACCOUNT: ANY - {S.EXPIRED},
}
"""The states in which an action is possible; all where nothing is said."""

NOT_SUSPENDED = frozenset({None, S.TRIALING, S.ACTIVE, S.PAST_DUE})
STATES_OF_TENANTS: dict[Action, States] = {
    Action.SET_OVERAGE_POLICY: NOT_SUSPENDED,
    Action.APPROVE_OVERAGE: NOT_SUSPENDED,
    Action.UPDATE_ACCOUNT: NOT_SUSPENDED,
    Action.SET_ALERT_THRESHOLDS: NOT_SUSPENDED,
    Action.SET_BUDGET: NOT_SUSPENDED,
    Action.DISMISS_RECOMMENDATION: NOT_SUSPENDED,
    Action.CREATE_API_KEY: NOT_SUSPENDED,
    Action.INVITE_MEMBER: NOT_SUSPENDED,
    Action.SET_MEMBER_ROLE: NOT_SUSPENDED,
    Action.TRANSFER_OWNERSHIP: NOT_SUSPENDED,
    Action.ACCEPT_OWNERSHIP: NOT_SUSPENDED,
    Action.UPDATE_COMPANY: ANY - {S.EXPIRED},
    Action.ADD_PAYMENT_METHOD: ANY - {S.EXPIRED},
    Action.CREATE_PAYMENT_SETUP: ANY - {S.EXPIRED},
    Action.REQUEST_EXPORT: ANY - {S.EXPIRED},
    Action.MANAGE_WEBHOOKS: ANY - {S.EXPIRED},
    Action.MANAGE_CONTACTS: ANY - {S.EXPIRED},
}
"""The states in which tenants may do something; operators know none here."""

OF_OTHERS = frozenset(
    {
        Action.VOID_INVOICE,
        Action.ISSUE_CREDIT_NOTE,
        Action.RECORD_PAYMENT,
        Action.SET_DEFAULT_PAYMENT_METHOD,
        Action.REMOVE_PAYMENT_METHOD,
        Action.CONFIRM_PAYMENT,
        Action.REQUEST_REFUND,
        Action.REVIEW_REFUND,
        Action.ROTATE_API_KEY,
        Action.SET_MEMBER_ROLE,
        Action.REMOVE_MEMBER,
        Action.ACCEPT_OWNERSHIP,
        Action.REVOKE_API_KEY,
    }
)
"""What is done to an invoice, a method, a transaction, a refund request, a key or a member, and shown there."""
REFUNDABLE = (TransactionKind.CHARGE, TransactionKind.MANUAL)
REVIEWABLE = (RefundStatus.REQUESTED, RefundStatus.NOT_ALLOWED, RefundStatus.FAILED)
FIELD = ("input", "accountId")


@dataclass(frozen=True)
class Reason:
    """Why an action is refused."""

    code: UserErrorCode
    message: str


@dataclass(frozen=True)
class Permission:
    """Whether an action is allowed, and if not, why."""

    action: Action
    refusal: Reason | None


def check_state(account: BillingAccount, subscription: Subscription | None, action: Action) -> None:
    """Refuse what the account's state does not allow, with the reason that fits."""
    if action not in STATES:
        return
    if account.closed_at is not None:
        if action is Action.CLOSE_ACCOUNT:
            raise InvalidTransition("The account is closed already.", FIELD)
        raise AccountCanceled("The account is closed for good.", FIELD)
    status = subscription.status if subscription else None
    if status not in STATES[action]:
        raise _wrong_state(status, action)
    waits = subscription is not None and subscription.cancel_at_period_end
    if action is Action.CANCEL_SUBSCRIPTION and waits:
        raise InvalidTransition("The subscription is cancelled already: it ends with its period.", FIELD)
    if action is Action.RESUME_SUBSCRIPTION and not waits:
        raise InvalidTransition("The subscription is not cancelled: there is nothing to undo.", FIELD)


def check_tenant_state(
    principal: Principal, account: BillingAccount, subscription: Subscription | None, action: Action
) -> None:
    """Refuse a tenant what its account's state does not allow."""
    if principal.is_operator or action not in STATES_OF_TENANTS:
        return
    status = subscription.status if subscription else None
    if account.closed_at is not None:
        # As after a cancellation, until the data is deleted: what is owed can be paid, and what is there taken along.
        status = S.CANCELED if account.data_deleted_at is None else S.EXPIRED
    if status in STATES_OF_TENANTS[action]:
        return
    if account.closed_at is not None:
        raise AccountCanceled("The account is closed for good.", FIELD)
    raise _wrong_state(status, action)


async def require_action(work: Work, principal: Principal, account: BillingAccount, action: Action) -> None:
    """Refuse what the state of a locked account does not allow to a caller."""
    subscription = await work.session.scalar(select(Subscription).where(Subscription.account_id == account.id))
    check_tenant_state(principal, account, subscription, action)


def _wrong_state(status: SubscriptionStatus | None, action: Action) -> BillingError:
    if action is Action.START_TRIAL:
        return InvalidTransition("There is one trial per account, before its first plan.", FIELD)
    if action is Action.REACTIVATE_SUBSCRIPTION and status is not S.EXPIRED:
        return InvalidTransition("Only a subscription that is over can be reactivated.", FIELD)
    if status is S.SUSPENDED:
        return AccountSuspended("The account is suspended: pay what is due first.", FIELD)
    if status is S.CANCELED:
        return AccountCanceled("The subscription is over: `reactivateSubscription` first.", FIELD)
    if status is S.EXPIRED:
        return AccountCanceled("The subscription is over, and its data was deleted.", FIELD)
    if status is None:
        return InvalidTransition("The account has no subscription: `startTrial` or `startSubscription` first.", FIELD)
    if action is Action.START_SUBSCRIPTION:
        return InvalidTransition("The account has a subscription: `changePlan` changes it.", FIELD)
    return InvalidTransition(
        f"The subscription is {status.lower().replace('_', ' ')}: this is not possible now.", FIELD
    )


def check_voidable(invoice: Invoice) -> None:
    """Refuse to withdraw what is not open and unpaid."""
    if invoice.status is InvoiceStatus.UNCOLLECTIBLE:
        raise InvalidTransition(_GIVEN_UP.format(invoice.number), ["input", "invoiceId"])
    if invoice.status in (InvoiceStatus.DRAFT, InvoiceStatus.VOID):
        raise InvalidTransition(_NOTHING_TO_TAKE_BACK[invoice.status].format(invoice.number), ["input", "invoiceId"])
    if invoice.status is not InvoiceStatus.OPEN or invoice.paid_minor or invoice.credited_minor:
        raise InvoiceIsPaid(
            f"Invoice {invoice.number} is {invoice.status.lower()}: only an unpaid and uncredited one can be "
            "withdrawn. Issue a credit note instead.",
            ["input", "invoiceId"],
        )


_GIVEN_UP = (
    "Invoice {} was given up as uncollectible, and written off: nothing of it is taken back any more. It can still be "
    "paid, by `retryPayment` or `recordPayment`."
)
_NOTHING_TO_TAKE_BACK = {
    InvoiceStatus.DRAFT: "The invoice is a draft: it is not issued yet, so there is nothing to take back.",
    InvoiceStatus.VOID: "Invoice {} was withdrawn already: nothing of it is left to take back.",
}


def check_creditable(invoice: Invoice) -> None:
    """Refuse to credit what was not issued, or was withdrawn or given up."""
    if invoice.status is InvoiceStatus.UNCOLLECTIBLE:
        raise InvalidTransition(_GIVEN_UP.format(invoice.number), ["input", "invoiceId"])
    if invoice.status not in (InvoiceStatus.OPEN, InvoiceStatus.PAID):
        raise InvalidTransition(_NOTHING_TO_TAKE_BACK[invoice.status].format(invoice.number), ["input", "invoiceId"])


def check_payable(invoice: Invoice) -> None:
    """Refuse to book a payment of what nobody was asked to pay yet."""
    if invoice.status is InvoiceStatus.DRAFT:
        raise InvalidTransition("The invoice is a draft: it can be paid once it is issued.", ["input", "invoiceId"])


_UNCONFIRMABLE = {
    TransactionStatus.PENDING: "The charge is being made at this moment: wait until it says what became of it.",
    TransactionStatus.UNKNOWN: (
        "The processor has not said yet what became of the charge. Wait: it is asked until it does, and nothing is "
        "charged twice meanwhile."
    ),
    TransactionStatus.SUCCEEDED: "The charge went through: nothing is left to confirm.",
    TransactionStatus.FAILED: (
        "The charge failed: `failure` says why. Try an invoice again by `retryPayment`, or order the change again."
    ),
    TransactionStatus.CANCELED: (
        "The charge was given up, and nothing was charged. What is still due is tried by `retryPayment`; a change is "
        "ordered again."
    ),
}


def check_confirmable(transaction: Transaction) -> None:
    """Refuse to confirm what the cardholder was not asked about."""
    if transaction.kind is not TransactionKind.CHARGE:
        raise InvalidTransition("Only a charge by card is confirmed.", ["input", "transactionId"])
    if transaction.status is not TransactionStatus.REQUIRES_ACTION:
        raise InvalidTransition(_UNCONFIRMABLE[transaction.status], ["input", "transactionId"])


def check_refundable(transaction: Transaction) -> None:
    """Refuse to give back what never came."""
    if transaction.kind not in REFUNDABLE or transaction.status is not TransactionStatus.SUCCEEDED:
        raise RefundNotAllowed("Only a payment that succeeded can go back.", ["input", "transactionId"])


_DECIDED = {
    RefundStatus.APPROVED: "The request was approved, and the money is on its way: wait for the bank.",
    RefundStatus.SUCCEEDED: "The request was approved, and the money was given back already.",
    RefundStatus.DENIED: "The request was denied: the customer may ask again.",
}


def check_reviewable(request: RefundRequest) -> None:
    """Refuse to decide twice."""
    if request.status not in REVIEWABLE:
        raise Conflict(_DECIDED[request.status], ["input", "refundRequestId"])


def list_permissions(
    principal: Principal, account: BillingAccount, subscription: Subscription | None
) -> list[Permission]:
    """Each action on an account, by the same checks that its mutation makes."""
    return [
        permission_of(principal, account.id, action, partial(_check, principal, account, subscription, action))
        for action in Action
        if action not in OF_OTHERS
    ]


def _check(principal: Principal, account: BillingAccount, subscription: Subscription | None, action: Action) -> None:
    check_state(account, subscription, action)
    check_tenant_state(principal, account, subscription, action)


def list_invoice_permissions(principal: Principal, invoice: Invoice) -> list[Permission]:
    """Each action on an invoice, by the same checks that its mutation makes."""
    return [
        permission_of(principal, invoice.account_id, Action.VOID_INVOICE, partial(check_voidable, invoice)),
        permission_of(principal, invoice.account_id, Action.ISSUE_CREDIT_NOTE, partial(check_creditable, invoice)),
        permission_of(principal, invoice.account_id, Action.RECORD_PAYMENT, partial(check_payable, invoice)),
    ]


def list_transaction_permissions(principal: Principal, transaction: Transaction) -> list[Permission]:
    """Each action on a transaction, by the same checks that its mutation makes."""
    account_id = transaction.account_id
    return [
        permission_of(principal, account_id, Action.CONFIRM_PAYMENT, partial(check_confirmable, transaction)),
        permission_of(principal, account_id, Action.REQUEST_REFUND, partial(check_refundable, transaction)),
    ]


def list_method_permissions(principal: Principal, account_id: UUID) -> list[Permission]:
    """Each action on a payment method of an account: those who pay may, in any state."""
    return [
        permission_of(principal, account_id, action, lambda: None)
        for action in (Action.SET_DEFAULT_PAYMENT_METHOD, Action.REMOVE_PAYMENT_METHOD)
    ]


def list_request_permissions(principal: Principal, request: RefundRequest) -> list[Permission]:
    """Each action on a request for a refund, by the same checks that its mutation makes."""
    return [permission_of(principal, request.account_id, Action.REVIEW_REFUND, partial(check_reviewable, request))]


def permission_of(principal: Principal, account_id: UUID, action: Action, check: Callable[[], None]) -> Permission:
    """Whether an action is allowed over an account: by the right that it needs, and by the check of its mutation."""
    right = RIGHTS.get(action, Right.MANAGE_BILLING)
    refusal = explain_refusal(principal, right, account_id)
    if refusal is not None:
        return Permission(action, Reason(UserErrorCode.FORBIDDEN, refusal))
    try:
        check()
    except BillingError as error:
        return Permission(action, Reason(error.code, str(error)))
    return Permission(action, None)
