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
    FORBIDDEN = "FORBIDDEN"
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


class InvalidInput(BillingError):
    """The input does not fit the rules."""


class NotFound(BillingError):
    """There is nothing with that id, or it is another tenant's: both look the same."""

    code = UserErrorCode.NOT_FOUND


class Forbidden(BillingError):
    """The caller's role or scopes do not allow it."""

    code = UserErrorCode.FORBIDDEN


class IdempotencyMismatch(BillingError):
    """The key was used before with another input."""

    code = UserErrorCode.IDEMPOTENCY_MISMATCH


class IdempotencyInFlight(BillingError):
    """The first call under the key is still under way."""

    code = UserErrorCode.IDEMPOTENCY_IN_FLIGHT
