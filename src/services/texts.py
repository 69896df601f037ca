"""What people read. Each text stands beside a stable code and its figures, so that a client can word it anew."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..models import Alert, AlertLevel, FailureCode, Notice
from .wording import format_money

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


Params = dict[str, Any]
Text = tuple[str, str]


def _payment_failed(params: Params) -> Text:
    return (
        "Payment failed",
        (
            f"Invoice {params['invoice']} could not be charged. Update the payment method or try again: "
            f"without payment the account is suspended on {_day(params['suspendsAt'])}."
        ),
    )


def _trial_ending(params: Params) -> Text:
    days = int(params["daysLeft"])
    left = "in 1 day" if days == 1 else f"in {days} days"
    if not params["hasMethod"]:
        what = "Add a payment method to keep your plan; without one the account is read-only from then on."
    elif params.get("amountMinor") is None:
        what = "The plan goes on, and its first invoice is charged to your payment method."
    else:
        what = f"The plan goes on, and {_money(params)} is charged to your payment method."
    return f"Your trial ends {left}", f"It ends on {_day(params['endsAt'])}. {what}"


def _trial_ended(_: Params) -> Text:
    return (
        "Your trial has ended",
        "The account is read-only, and its data is kept for 90 days. Choose a plan to go on.",
    )


def _renewal_ahead(params: Params) -> Text:
    return (
        "Your annual plan renews soon",
        f"It renews on {_day(params['at'])} for {_money(params)}, before tax. Until then you can change or cancel it.",
    )


def _card_expiring(params: Params) -> Text:
    return (
        "Your card expires soon",
        (
            f"The card ending in {params['last4']} expires in {int(params['expMonth']):02}/{params['expYear']}, "
            "before the next charge. Add a new one, so that nothing is interrupted."
        ),
    )


def _change_refused(params: Params) -> Text:
    return (
        f"The change to {params['plan']} was not made",
        (
            f"More is in use than {params['plan']} includes: {_exceeding(params)}. Your present plan goes on. "
            "Use less, and change again."
        ),
    )


def _add_on_kept(params: Params) -> Text:
    return (
        f"{params['addOn']} was not lowered",
        (
            f"More is in use than would be left: {_exceeding(params)}. The old quantity goes on. "
            "Use less, and lower it again."
        ),
    )


def _price_change_ahead(params: Params) -> Text:
    price = f": it will be {_money(params)}, before tax" if params.get("amountMinor") is not None else ""
    return (
        "Your price or terms change",
        f"They change on {_day(params['at'])}{price}. Until then you can change or cancel your plan.",
    )


def _tax_rule_missing(params: Params) -> Text:
    place = "-".join(str(params[part]) for part in ("country", "region") if params.get(part))
    return (
        "A tax rule is missing",
        f"No row of the tax table covers {place}, so no tax is charged there. Add one, also if its rate is 0.",
    )


def _payment_duplicate(params: Params) -> Text:
    what = f"Invoice {params['invoice']}" if "invoice" in params else "A change that had ended"
    return (
        "Money came that was not due",
        f"{what} was paid beyond what was due. Send the rest back, or grant it as credit.",
    )


def _payment_mismatch(params: Params) -> Text:
    expected = format_money(params["expectedMinor"], params["expectedCurrency"], "en")
    return (
        "A payment's amount does not agree",
        (
            f"{expected} was to be charged, and the processor tells of {params['toldMinor']:,} minor units of "
            f"{params['toldCurrency']}. Nothing was booked: look it up there."
        ),
    )


def _document_failed(params: Params) -> Text:
    return (
        "A document could not be made",
        f"{params['number']} is issued, but its PDF could not be drawn in several tries: see the worker's log.",
    )


def _account_parked(_: Params) -> Text:
    return (
        "Billing of this account has stopped",
        "Its due work failed too often and was given up. Mend the cause, then start it again.",
    )


_NOTICES: dict[str, Callable[[Params], Text]] = {
    "PAYMENT_FAILED": _payment_failed,
    "TRIAL_ENDING": _trial_ending,
    "TRIAL_ENDED": _trial_ended,
    "RENEWAL_AHEAD": _renewal_ahead,
    "CARD_EXPIRING": _card_expiring,
    "CHANGE_REFUSED": _change_refused,
    "ADD_ON_KEPT": _add_on_kept,
    "PRICE_CHANGE_AHEAD": _price_change_ahead,
    "TAX_RULE_MISSING": _tax_rule_missing,
    "PAYMENT_DUPLICATE": _payment_duplicate,
    "PAYMENT_MISMATCH": _payment_mismatch,
    "DOCUMENT_FAILED": _document_failed,
    "ACCOUNT_PARKED": _account_parked,
}

NOTICE_CODES = frozenset(_NOTICES)
"""What there are words for."""

_ACTIONS: dict[str, tuple[str, ...]] = {
    "PAYMENT_FAILED": ("UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"),
    "TRIAL_ENDING": ("CHANGE_PLAN",),
    "TRIAL_ENDED": ("CHOOSE_PLAN",),
    "RENEWAL_AHEAD": ("CHANGE_PLAN", "CANCEL_SUBSCRIPTION"),
    "CARD_EXPIRING": ("ADD_PAYMENT_METHOD",),
    "CHANGE_REFUSED": ("REDUCE_USAGE", "CHANGE_PLAN"),
    "ADD_ON_KEPT": ("REDUCE_USAGE", "CHANGE_ADD_ONS"),
    "PRICE_CHANGE_AHEAD": ("CHANGE_PLAN", "CANCEL_SUBSCRIPTION"),
    "TAX_RULE_MISSING": ("SET_TAX_TABLE",),
}

_ACTION_LABELS = {
    "ADD_PAYMENT_METHOD": "Add a payment method",
    "CANCEL_SUBSCRIPTION": "Cancel the subscription",
    "CHANGE_ADD_ONS": "Change the add-ons",
    "CHANGE_PLAN": "Change the plan",
    "CHOOSE_PLAN": "Choose a plan",
    "REDUCE_USAGE": "Reduce what is in use",
    "RETRY_PAYMENT": "Try the payment again",
    "SET_TAX_TABLE": "Set the tax table",
    "UPDATE_PAYMENT_METHOD": "Update the payment method",
}


def notice_text(notice: Notice) -> tuple[str, str]:
    """A notice's title and message."""
    return _NOTICES[notice.code](notice.params)


def notice_actions(notice: Notice) -> list[tuple[str, str]]:
    """The codes and labels of a notice's buttons."""
    kinds = _ACTIONS.get(notice.code, ())
    if notice.code == "TRIAL_ENDING" and not notice.params["hasMethod"]:
        kinds = ("ADD_PAYMENT_METHOD", *kinds)
    return [(kind, _ACTION_LABELS[kind]) for kind in kinds]


def _day(instant: str) -> str:
    return datetime.fromisoformat(instant).date().isoformat()


def _money(params: Params) -> str:
    return format_money(params["amountMinor"], params["currency"], "en")


def _exceeding(params: Params) -> str:
    return ", ".join(f"{item['metricName']} {item['used']:,} of {item['limit']:,}" for item in params["exceeding"])
