"""What people read. Each text stands beside a stable code and its figures, so that a client can word it anew."""

from datetime import datetime

from ..models import Alert, AlertLevel, FailureCode, Notice

_FAILURES = {
    FailureCode.CARD_DECLINED: ("The card was declined. Try again, or use another card.", True),
    FailureCode.INSUFFICIENT_FUNDS: ("There was not enough money on the card's account.", True),
    FailureCode.EXPIRED_CARD: ("The card has expired. Use another card.", False),
    FailureCode.AUTHENTICATION_REQUIRED: ("The bank wants you to confirm the payment.", True),
    FailureCode.INCORRECT_DETAILS: ("A detail of the card is wrong. Enter it again.", False),
    FailureCode.STOLEN_OR_CLOSED: ("The card cannot be used any more. Use another card.", False),
    FailureCode.PROCESSOR_ERROR: ("The payment could not be processed. It will be tried again.", True),
}

_LEVELS = {
    AlertLevel.WARNING: "keep an eye on it",
    AlertLevel.UPGRADE_SUGGESTION: "a larger plan would fit",
    AlertLevel.URGENT: "act now",
    AlertLevel.LIMIT_REACHED: "the limit is reached",
}


def failure_message(code: FailureCode) -> str:
    """A failed payment, for the cardholder."""
    return _FAILURES[code][0]


def is_retryable(code: FailureCode) -> bool:
    """Whether the same method may work later."""
    return _FAILURES[code][1]


def alert_message(alert: Alert, subject_name: str) -> str:
    """An alert in one sentence."""
    advice = _LEVELS.get(alert.level)
    text = f"{subject_name}: {alert.used:,} of {alert.ceiling:,} used, {alert.threshold} % reached"
    return f"{text}: {advice}." if advice else f"{text}."


def notice_text(notice: Notice) -> tuple[str, str]:
    """A notice's title and message."""
    if notice.code == "PAYMENT_FAILED":
        day = datetime.fromisoformat(notice.params["suspendsAt"]).date()
        return (
            "Payment failed",
            (
                f"Invoice {notice.params['invoice']} could not be charged. Update the payment method or try again: "
                f"without payment the account is suspended on {day.isoformat()}."
            ),
        )
    return notice.code.replace("_", " ").capitalize(), ""


def notice_actions(notice: Notice) -> list[tuple[str, str]]:
    """The codes and labels of a notice's buttons."""
    return [("UPDATE_PAYMENT_METHOD", "Update the payment method")] if notice.code == "PAYMENT_FAILED" else []
