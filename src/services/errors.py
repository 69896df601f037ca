"""Refusals: what a caller can be told, with a code, a sentence to act on, and the input field it is about."""

from collections.abc import Sequence
from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a whole request or field was refused (top-level errors)."""

    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
    BAD_USER_INPUT = "BAD_USER_INPUT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    QUERY_TOO_COMPLEX = "QUERY_TOO_COMPLEX"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class UserErrorCode(StrEnum):
    """Why a mutation was refused (its `userErrors`)."""

    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    LAST_OWNER = "LAST_OWNER"
    FORBIDDEN = "FORBIDDEN"
    COMPANY_REQUIRED = "COMPANY_REQUIRED"
    PRICE_NOT_AVAILABLE = "PRICE_NOT_AVAILABLE"
    INVALID_TRANSITION = "INVALID_TRANSITION"
    LIMITS_EXCEEDED = "LIMITS_EXCEEDED"
    CHANGE_PENDING = "CHANGE_PENDING"
    QUOTE_EXPIRED = "QUOTE_EXPIRED"
    QUOTE_STALE = "QUOTE_STALE"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    PAYMENT_REQUIRED = "PAYMENT_REQUIRED"
    ACCOUNT_SUSPENDED = "ACCOUNT_SUSPENDED"
    ACCOUNT_CANCELED = "ACCOUNT_CANCELED"
    INVOICE_PAID = "INVOICE_PAID"
    REFUND_NOT_ALLOWED = "REFUND_NOT_ALLOWED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    OVERAGE_APPROVAL_REQUIRED = "OVERAGE_APPROVAL_REQUIRED"
    RESERVATION_EXPIRED = "RESERVATION_EXPIRED"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"
    IDEMPOTENCY_IN_FLIGHT = "IDEMPOTENCY_IN_FLIGHT"


class RequestRefused(Exception):
    """A refusal of the request or field itself, shown as a top-level error."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class BillingError(Exception):
    """A refusal that a mutation reports in its payload. Everything it did has been rolled back."""

    code = UserErrorCode.INVALID

    def __init__(self, message: str, field: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.field = tuple(field)
        self.replayed = False
        """Whether it is the first answer under an idempotency key, given again."""


MAX_REFUSALS = 100
"""As many are told at once."""


class Refusals(BillingError):
    """Several refusals that do not hang on each other, told at once. The first ones, where there are very many."""

    def __init__(self, refusals: Sequence[BillingError]) -> None:
        assert refusals, "nothing was refused"
        super().__init__("; ".join(map(str, refusals[:MAX_REFUSALS])), refusals[0].field)
        self.code = refusals[0].code
        self.refusals = tuple(refusals[:MAX_REFUSALS])


def list_refusals(refusal: BillingError) -> Sequence[BillingError]:
    """Each single refusal in one that was raised."""
    return refusal.refusals if isinstance(refusal, Refusals) else (refusal,)


class InvalidInput(BillingError):
    """The input does not fit the rules."""


class NotFound(BillingError):
    """There is nothing with that id, or it is another tenant's: both look the same."""

    code = UserErrorCode.NOT_FOUND


class LastOwner(BillingError):
    """The account would be left without an owner."""

    code = UserErrorCode.LAST_OWNER


class Forbidden(BillingError):
    """The caller's role or scopes do not allow it."""

    code = UserErrorCode.FORBIDDEN


class IdempotencyMismatch(BillingError):
    """The key was used before with another input."""

    code = UserErrorCode.IDEMPOTENCY_MISMATCH


class IdempotencyInFlight(BillingError):
    """The first call under the key is still under way."""

    code = UserErrorCode.IDEMPOTENCY_IN_FLIGHT


class Conflict(BillingError):
    """It clashes with what is there, or with what is being done right now."""

    code = UserErrorCode.CONFLICT


class CompanyRequired(BillingError):
    """An invoice needs to know who is billed."""

    code = UserErrorCode.COMPANY_REQUIRED


class PriceNotAvailable(BillingError):
    """It has no price in the account's currency or at that interval."""

    code = UserErrorCode.PRICE_NOT_AVAILABLE


class InvalidTransition(BillingError):
    """The subscription's state does not allow it."""

    code = UserErrorCode.INVALID_TRANSITION


class LimitsExceeded(BillingError):
    """What is in use would exceed the new limits."""

    code = UserErrorCode.LIMITS_EXCEEDED


class ChangeIsPending(BillingError):
    """Another change waits for its payment."""

    code = UserErrorCode.CHANGE_PENDING


class QuoteExpired(BillingError):
    """The quote is too old."""

    code = UserErrorCode.QUOTE_EXPIRED


class QuoteStale(BillingError):
    """The subscription changed since the quote was made."""

    code = UserErrorCode.QUOTE_STALE


class PaymentFailed(BillingError):
    """The charge was declined."""

    code = UserErrorCode.PAYMENT_FAILED


class PaymentRequired(BillingError):
    """Something has to be paid, or a payment method added, first."""

    code = UserErrorCode.PAYMENT_REQUIRED


class AccountSuspended(BillingError):
    """The account is suspended until it is paid."""

    code = UserErrorCode.ACCOUNT_SUSPENDED


class AccountCanceled(BillingError):
    """The account's subscription is over."""

    code = UserErrorCode.ACCOUNT_CANCELED


class InvoiceIsPaid(BillingError):
    """A paid or credited invoice cannot be withdrawn."""

    code = UserErrorCode.INVOICE_PAID


class RefundNotAllowed(BillingError):
    """There is nothing that could go back, or not so much."""

    code = UserErrorCode.REFUND_NOT_ALLOWED


class LimitExceeded(BillingError):
    """Usage would pass a limit that holds."""

    code = UserErrorCode.LIMIT_EXCEEDED


class BudgetExceeded(BillingError):
    """Usage would cost more than a blocking budget leaves room for."""

    code = UserErrorCode.BUDGET_EXCEEDED


class OverageApprovalRequired(BillingError):
    """Usage would pass a limit, and somebody has to approve that."""

    code = UserErrorCode.OVERAGE_APPROVAL_REQUIRED


class ReservationExpired(BillingError):
    """What was reserved is not held any more."""

    code = UserErrorCode.RESERVATION_EXPIRED
