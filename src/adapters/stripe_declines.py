"""Why a card was declined: Stripe's list of codes, in our own closed one."""

from ..models import FailureCode

# Stripe's list is open: a code that is not here is a decline like any other.
FAILURES = {
    code: failure
    for failure, codes in {
        FailureCode.INSUFFICIENT_FUNDS: (
            "insufficient_funds",
            "card_velocity_exceeded",
            "withdrawal_count_limit_exceeded",
        ),
        FailureCode.EXPIRED_CARD: ("expired_card",),
        FailureCode.AUTHENTICATION_REQUIRED: (
            "authentication_required",
            "authentication_not_handled",
            "mobile_device_authentication_required",
            "offline_pin_required",
            "online_or_offline_pin_required",
            "payment_intent_authentication_failure",
        ),
        FailureCode.INCORRECT_DETAILS: (
            "incorrect_address",
            "incorrect_cvc",
            "incorrect_number",
            "incorrect_pin",
            "incorrect_zip",
            "invalid_cvc",
            "invalid_expiry_month",
            "invalid_expiry_year",
            "invalid_number",
            "invalid_pin",
            "new_account_information_available",  # the card has a new number or date: it is not gone
        ),
        FailureCode.STOLEN_OR_CLOSED: (
            "invalid_account",
            "lost_card",
            "pickup_card",
            "restricted_card",
            "stolen_card",
        ),
        FailureCode.PROCESSOR_ERROR: (
            "issuer_not_available",
            "processing_error",
            "reenter_transaction",
            "try_again_later",
        ),
    }.items()
    for code in codes
}


def failure_of(*codes: str | None) -> FailureCode:
    """The first code that tells more than that the card was declined, which all of them do."""
    return next((FAILURES[code] for code in codes if code in FAILURES), FailureCode.CARD_DECLINED)
