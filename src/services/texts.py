"""What people read. Each text stands beside a stable code and its figures, so that a client can word it anew."""

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from ..models import Alert, AlertKind, AlertLevel, BudgetScope, FailureCode, Notice, SpikeCauseKind
from .rules.refunds import RefundCode
from .wording import advice_words, format_day, format_instant, format_money, format_number, notice_words

_FAILURES = {
    FailureCode.CARD_DECLINED: ("The card was declined. Try again, or use another card.", True),
    FailureCode.INSUFFICIENT_FUNDS: ("There was not enough money on the card's account.", True),
    FailureCode.EXPIRED_CARD: ("The card has expired. Use another card.", False),
    FailureCode.AUTHENTICATION_REQUIRED: ("The bank wants you to confirm the payment.", True),
    FailureCode.INCORRECT_DETAILS: ("A detail of the card is wrong. Enter it again.", False),
    FailureCode.STOLEN_OR_CLOSED: ("The card cannot be used any more. Use another card.", False),
    FailureCode.PROCESSOR_ERROR: ("The payment could not be processed. Try again later, or use another card.", True),
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


REFUND_FAILURE = (
    "The money could not be brought back to the card. It is owed: an operator pays it back again, or gives it as "
    "credit."
)
"""A failed refund, for the cardholder."""


def is_retryable(code: FailureCode) -> bool:
    """Whether the same method may work later."""
    return _FAILURES[code][1]


_SCOPES = {
    BudgetScope.ACCOUNT: "The account's budget",
    BudgetScope.METRIC: "The budget of the metric {}",
    BudgetScope.WORKSPACE: "The budget of the workspace {}",
}


def name_budget(scope: BudgetScope, subject: str) -> str:
    """A budget as a sentence begins with it."""
    return _SCOPES[scope].format(subject)


def budget_message(alert: Alert, name: str, currency: str) -> str:
    """An alert of a budget in one sentence."""
    spent, limit = (format_money(amount, currency, "en") for amount in (alert.used, alert.ceiling))
    return f"{name}: {spent} of {limit} spent, {alert.threshold} % reached."


def alert_message(alert: Alert, subject_name: str) -> str:
    """An alert of usage in one sentence."""
    if alert.kind is AlertKind.SPIKE:
        causes = ", ".join(_cause(cause) for cause in _main_causes(alert.spike["causes"]))
        said = f"{subject_name}: {alert.used:,} on {alert.spike['day']}, where such a day usually has {alert.ceiling:,}"
        return f"{said}; most of it: {causes}." if causes else f"{said}."
    advice = _LEVELS.get(alert.level)
    text = f"{subject_name}: {alert.used:,} of {alert.ceiling:,} used, {alert.threshold} % reached"
    return f"{text}: {advice}." if advice else f"{text}."


Params = dict[str, Any]
Text = tuple[str, str]


def _main_causes(causes: list[Params]) -> list[Params]:
    """The first of each kind, which grew most."""
    first: dict[str, Params] = {}
    for cause in causes:
        first.setdefault(cause["kind"], cause)
    return list(first.values())


_CAUSES = {
    SpikeCauseKind.WORKSPACE: "workspace {name}",
    SpikeCauseKind.API_KEY: "sent by {name}",
    SpikeCauseKind.PROPERTY: "{name}",
}


def _cause(cause: Params) -> str:
    return _CAUSES[SpikeCauseKind(cause["kind"])].format(name=cause["name"])


def _payment_failed(params: Params) -> Text:
    what = _invoices(params)
    amount = _money(params)
    title = "Payment overdue" if params["isSent"] else "Payment failed"
    if params["isSent"]:
        said = f"{what}: {amount} was not paid in time. Pay it by transfer, or add a payment method and try it."
    elif params.get("toConfirm"):
        said = f"{what}: {amount} waits for you. Confirm the payment with your bank; a new try gives this one up."
    elif params.get("needsMethod"):
        said = (
            f"{what}: {amount} could not be charged, and is not tried again until there is another payment method: "
            "add one, and it is tried at once."
        )
    else:
        said = f"{what}: {amount} could not be charged. Update the payment method, or try the payment again."
    left = _days(params["daysLeft"])
    if params["status"] == "SUSPENDED":
        return "The account is suspended", (
            f"{said} Until then the account only reads; on {_day(params['cancelsAt'])}, {left}, the subscription ends."
        )
    if params["status"] in ("PAST_DUE", "ACTIVE"):
        return title, f"{said} Without payment the account is suspended on {_day(params['suspendsAt'])}, {left}."
    return title, said


def _payment_owed(params: Params) -> Text:
    amount = _money(params)
    how = (
        "Pay it by transfer, or add a payment method and try it."
        if params["isSent"]
        else "Try the payment again, with another payment method if need be: a new one is not tried by itself."
    )
    return (
        "The account ended unpaid",
        (
            f"{_invoices(params)}: {amount} was never paid, so the subscription ended. {how}"
            f"{' Only then can it be taken up again.' if params['canReturn'] else ''}"
        ),
    )


def _payment_to_confirm(params: Params) -> Text:
    return (
        "A payment waits for you",
        (
            f"Your bank wants you to confirm {_money(params)} for “{params['charge']}”, until "
            f"{_minute(params['expiresAt'])}. After that it is given up."
        ),
    )


def _days(count: int) -> str:
    return {0: "today", 1: "in 1 day"}.get(count, f"in {count} days")


def _refund_failed(params: Params) -> Text:
    return (
        "A refund failed",
        (
            f"{_money(params)} of “{params['charge']}” could not be paid back, and is owed. Review the request again: "
            "try it once more, or give it as credit."
        ),
    )


def _refund_unknown(params: Params) -> Text:
    return (
        "The processor tells of a refund that was not asked for here",
        (f"{params['refund']} of “{params['charge']}”: {_told(params)}. Nothing was booked: look it up there."),
    )


def _refund_twice(params: Params) -> Text:
    return (
        "Money went back twice",
        (
            f"A refund of {_money(params)} of “{params['charge']}” failed, was tried again or credited, and went "
            "through all the same. It is booked: settle it with the customer."
        ),
    )


def _payment_disputed(params: Params) -> Text:
    return (
        "A payment is disputed",
        (
            f"The cardholder's bank took {_money(params)} of “{params['charge']}” back. Until it has decided, nothing "
            "of the payment is refunded. Answer it with the processor."
        ),
    )


def _trial_ending(params: Params) -> Text:
    days = int(params["daysLeft"])
    left = "in 1 day" if days == 1 else f"in {days} days"
    missing = _missing_at_trial_end(params)
    if missing:
        what = f"{' and '.join(missing)} to keep your plan; without that the account is read-only from then on."
        what = what[0].upper() + what[1:]
    elif params.get("isSent"):
        what = "The plan goes on, and its first invoice is sent to you."
    elif params.get("amountMinor") is None:
        what = "The plan goes on, and its first invoice is charged to your payment method."
    else:
        what = f"The plan goes on, and {_money(params)} is charged to your payment method."
    return f"Your trial ends {left}", f"It ends on {_day(params['endsAt'])}. {what}"


def _missing_at_trial_end(params: Params) -> list[str]:
    wanted = {"hasCompany": "enter your company's name and country", "hasMethod": "add a payment method"}
    return [what for name, what in wanted.items() if not params.get(name, True)]


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


def _overage_approval(params: Params) -> Text:
    return (
        f"{params['metricName']}: usage above the limit waits for an approval",
        (
            f"What would pass {params['limit']:,} is refused until somebody approves it: some blocks, or all until "
            f"{_day(params['periodEnd'])}."
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
        (
            f"{what} was paid beyond what was due: {_money(params)} of “{params['charge']}” is owed back. Ask for it "
            "by `requestRefund` with the reason DUPLICATE; `reviewRefund` sends it back, or gives it as credit."
        ),
    )


def _payment_mismatch(params: Params) -> Text:
    expected = format_money(params["expectedMinor"], params["expectedCurrency"], "en")
    return (
        "A payment's amount does not agree",
        (
            f"{expected} was to be charged, and the processor tells of {_told(params)}. "
            "Nothing was booked: look it up there."
        ),
    )


def _document_failed(params: Params) -> Text:
    return (
        "A document could not be made",
        f"{params['number']} is issued, but its PDF could not be drawn in several tries: see the worker's log.",
    )


def _export_failed(params: Params) -> Text:
    return (
        "An export could not be written",
        f"The file of the export {params['export']} could not be written in several tries: see the worker's log.",
    )


def _mail_failed(params: Params) -> Text:
    return (
        "A mail could not be sent",
        f"{params['kind']}: {params['failure']}. Nobody was reached there: see to the address.",
    )


def _account_parked(_: Params) -> Text:
    return (
        "Billing of this account has stopped",
        "Its due work failed too often and was given up. Mend the cause, then start it again.",
    )


def _usage_threshold(params: Params, language: str = "en") -> Text:
    figures = {name: format_number(params[name], language) for name in ("used", "limit", "threshold")}
    said = {"metric": params["metricName"], **figures}
    advice = notice_words(language, f"USAGE_{params['level']}")
    return (
        notice_words(language, "USAGE_TITLE").format_map(said),
        notice_words(language, "USAGE_MESSAGE").format_map({**said, "advice": advice}),
    )


def _spent(params: Params, language: str = "en") -> tuple[str, str]:
    spent, limit = (format_money(params[key], params["currency"], language) for key in ("spentMinor", "limitMinor"))
    return spent, limit


def _budget_threshold(params: Params) -> Text:
    name = name_budget(BudgetScope(params["scope"]), params["subject"])
    spent, limit = _spent(params)
    return (
        f"{name}: {params['threshold']} % spent",
        f"{spent} of {limit} was spent in this usage period, before tax, when that was reached.",
    )


def _budget_blocked(params: Params) -> Text:
    name = name_budget(BudgetScope(params["scope"]), params["subject"])
    spent, limit = _spent(params)
    return (
        f"{name} stops usage",
        (
            f"{spent} of {limit} is spent. What would cost more is refused until {_day(params['periodEnd'])}, or until "
            "the budget is raised."
        ),
    )


def _budget_upgraded(params: Params) -> Text:
    return (
        f"Changed to {params['plan']}, because a budget is spent",
        (
            f"The plan costs {format_money(params['monthlyMinor'], params['currency'], 'en')} a month, before tax. "
            "It is changed once in a usage period at most."
        ),
    )


_NOT_UPGRADED = {
    "NO_HIGHER_PLAN": "there is no higher plan at this interval and in this currency",
    "ABOVE_CEILING": "{plan} would cost {price} a month, and the ceiling is {ceiling}",
    "REFUSED": "{reason}",
}


def _budget_not_upgraded(params: Params) -> Text:
    said = {
        "plan": params.get("plan", ""),
        "reason": params.get("reason", ""),
        **{
            name: format_money(params[key], params["currency"], "en")
            for name, key in (("price", "monthlyMinor"), ("ceiling", "ceilingMinor"))
            if key in params
        },
    }
    why = _NOT_UPGRADED[params["why"]].format_map(said).rstrip(".")
    what = "Raise the budget" if params["why"] == "NO_HIGHER_PLAN" else "Change it yourself, or raise the budget"
    return (
        "A budget is spent, and the plan was not changed",
        f"It was to be changed to the next plan, but {why}. {what}: setting the budget tries it again.",
    )


def _usage_spike(params: Params, language: str = "en") -> Text:
    figures = {name: format_number(params[name], language) for name in ("used", "expected")}
    said = {"metric": params["metricName"], "day": format_day(date.fromisoformat(params["day"]), language), **figures}
    causes = ", ".join(cause["name"] for cause in _main_causes(params["causes"]))
    message = notice_words(language, "SPIKE_MESSAGE").format_map(said)
    if causes:
        message = f"{message} {notice_words(language, 'SPIKE_CAUSES').format(causes=causes)}"
    return notice_words(language, "SPIKE_TITLE").format_map(said), message


def _webhook_disabled(params: Params, language: str = "en") -> Text:
    host = urlsplit(params["url"]).netloc
    title = notice_words(language, "WEBHOOK_TITLE").format(host=host)
    return title, notice_words(language, f"WEBHOOK_{params['reason']}")


_NOTICES: dict[str, Callable[[Params], Text]] = {
    "PAYMENT_FAILED": _payment_failed,
    "PAYMENT_OWED": _payment_owed,
    "PAYMENT_TO_CONFIRM": _payment_to_confirm,
    "PAYMENT_DISPUTED": _payment_disputed,
    "REFUND_FAILED": _refund_failed,
    "REFUND_UNKNOWN": _refund_unknown,
    "REFUND_TWICE": _refund_twice,
    "TRIAL_ENDING": _trial_ending,
    "TRIAL_ENDED": _trial_ended,
    "RENEWAL_AHEAD": _renewal_ahead,
    "CARD_EXPIRING": _card_expiring,
    "CHANGE_REFUSED": _change_refused,
    "ADD_ON_KEPT": _add_on_kept,
    "OVERAGE_APPROVAL": _overage_approval,
    "PRICE_CHANGE_AHEAD": _price_change_ahead,
    "TAX_RULE_MISSING": _tax_rule_missing,
    "PAYMENT_DUPLICATE": _payment_duplicate,
    "PAYMENT_MISMATCH": _payment_mismatch,
    "DOCUMENT_FAILED": _document_failed,
    "EXPORT_FAILED": _export_failed,
    "MAIL_FAILED": _mail_failed,
    "ACCOUNT_PARKED": _account_parked,
    "USAGE_THRESHOLD": _usage_threshold,
    "BUDGET_THRESHOLD": _budget_threshold,
    "BUDGET_BLOCKED": _budget_blocked,
    "BUDGET_UPGRADED": _budget_upgraded,
    "BUDGET_NOT_UPGRADED": _budget_not_upgraded,
    "USAGE_SPIKE": _usage_spike,
    "WEBHOOK_DISABLED": _webhook_disabled,
}
_IN_ALL_LANGUAGES: dict[str, Callable[[Params, str], Text]] = {
    "USAGE_THRESHOLD": _usage_threshold,
    "USAGE_SPIKE": _usage_spike,
    "WEBHOOK_DISABLED": _webhook_disabled,
}

NOTICE_CODES = frozenset(_NOTICES)
"""What there are words for."""

_ACTIONS: dict[str, tuple[str, ...]] = {
    "PAYMENT_FAILED": ("UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"),
    "PAYMENT_OWED": ("UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"),
    "PAYMENT_TO_CONFIRM": ("CONFIRM_PAYMENT",),
    "PAYMENT_DUPLICATE": ("REQUEST_REFUND",),
    "TRIAL_ENDING": ("CHANGE_PLAN",),
    "TRIAL_ENDED": ("CHOOSE_PLAN",),
    "RENEWAL_AHEAD": ("CHANGE_PLAN", "CANCEL_SUBSCRIPTION"),
    "CARD_EXPIRING": ("ADD_PAYMENT_METHOD",),
    "CHANGE_REFUSED": ("REDUCE_USAGE", "CHANGE_PLAN"),
    "ADD_ON_KEPT": ("REDUCE_USAGE", "CHANGE_ADD_ONS"),
    "OVERAGE_APPROVAL": ("APPROVE_OVERAGE", "CHANGE_PLAN"),
    "PRICE_CHANGE_AHEAD": ("CHANGE_PLAN", "CANCEL_SUBSCRIPTION"),
    "TAX_RULE_MISSING": ("SET_TAX_TABLE",),
    "USAGE_THRESHOLD": ("CHANGE_PLAN", "CHANGE_ADD_ONS", "REDUCE_USAGE"),
    "BUDGET_THRESHOLD": ("CHANGE_BUDGET", "REDUCE_USAGE"),
    "BUDGET_BLOCKED": ("CHANGE_BUDGET", "CHANGE_PLAN"),
    "BUDGET_NOT_UPGRADED": ("CHANGE_PLAN", "CHANGE_BUDGET"),
}

_ACTION_LABELS = {
    "ADD_PAYMENT_METHOD": "Add a payment method",
    "APPROVE_OVERAGE": "Approve usage above the limit",
    "CANCEL_SUBSCRIPTION": "Cancel the subscription",
    "CHANGE_ADD_ONS": "Change the add-ons",
    "CHANGE_BUDGET": "Change the budget",
    "CHANGE_PLAN": "Change the plan",
    "CHOOSE_PLAN": "Choose a plan",
    "CONFIRM_PAYMENT": "Confirm the payment",
    "REDUCE_USAGE": "Use less",
    "REQUEST_REFUND": "Ask for the money back",
    "RETRY_PAYMENT": "Try the payment again",
    "SET_TAX_TABLE": "Set the tax table",
    "UPDATE_COMPANY": "Enter your company",
    "UPDATE_PAYMENT_METHOD": "Update the payment method",
}


def notice_params(notice: Notice, now: datetime, zone: str) -> Params:
    """The figures of a notice at an instant: how many days are left passes with the days of the account's zone."""
    params = notice.params
    if notice.code != "PAYMENT_FAILED":
        return params
    end_at = params["cancelsAt"] if params["status"] == "SUSPENDED" else params["suspendsAt"]
    return {**params, "daysLeft": days_until(datetime.fromisoformat(end_at), now, zone)}


_OFFSET = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+[+-][0-9]{2}:[0-9]{2}")


def show_params(value: Any) -> Any:
    """Figures as clients get them: instants, kept with the offset of the account's zone for the text, are in UTC."""
    if isinstance(value, dict):
        return {key: show_params(item) for key, item in value.items()}
    if isinstance(value, list):
        return [show_params(item) for item in value]
    if isinstance(value, str) and _OFFSET.fullmatch(value):
        return format_instant(datetime.fromisoformat(value))
    return value


def days_until(end_at: datetime, now: datetime, zone: str) -> int:
    """Days by the calendar of a zone from an instant to another, as their dates are read; 0 once it is that day."""
    place = ZoneInfo(zone)
    return max(0, (end_at.astimezone(place).date() - now.astimezone(place).date()).days)


def notice_text(code: str, params: Params, language: str = "en") -> tuple[str, str]:
    """A notice's title and message; in a language, where it speaks others than English."""
    translated = _IN_ALL_LANGUAGES.get(code)
    return _NOTICES[code](params) if translated is None else translated(params, language)


_REFUNDS = {
    RefundCode.ALLOWED: "It can go back; an operator makes it so.",
    RefundCode.NOT_REFUNDABLE: "Only a payment that succeeded can go back.",
    RefundCode.NOTHING_LEFT: "Nothing is left of it: all went back, was credited, or is asked for already.",
    RefundCode.DISPUTED: "The payment is disputed: until the bank has decided, nothing goes back.",
    RefundCode.NOT_A_DUPLICATE: "Nothing of it was paid twice.",
    RefundCode.NO_SUCH_LINES: "None of the lines named is left to be credited.",
    RefundCode.NO_SUCH_TIME: "Nothing that is paid by time was sold for that time.",
    RefundCode.ANNUAL_PLAN: "Annual plans give no goodwill, and nothing for time to come.",
    RefundCode.TOO_OLD: "Goodwill is for charges of the last seven days.",
    RefundCode.ABOVE_MAXIMUM: "It is more than the rules allow: an operator has to decide.",
}


def advice_title(kind: str, params: Params, language: str) -> str:
    """A recommendation in a few words."""
    told = {name: format_number(item, language) if isinstance(item, int) else item for name, item in params.items()}
    return advice_words(language, kind).format_map(told)


def refund_message(code: RefundCode) -> str:
    """What the rules say of a refund, in a sentence."""
    return _REFUNDS[code]


def notice_actions(notice: Notice) -> list[tuple[str, str]]:
    """The codes and labels of a notice's buttons."""
    kinds = _ACTIONS.get(notice.code, ())
    if notice.code == "PAYMENT_FAILED" and notice.params.get("toConfirm"):
        kinds = ("CONFIRM_PAYMENT", "UPDATE_PAYMENT_METHOD")
    elif notice.code == "PAYMENT_FAILED" and notice.params.get("needsMethod"):
        kinds = ("UPDATE_PAYMENT_METHOD",)
    if notice.code == "TRIAL_ENDING" and not notice.params["hasMethod"]:
        kinds = ("ADD_PAYMENT_METHOD", *kinds)
    if notice.code == "TRIAL_ENDING" and not notice.params.get("hasCompany", True):
        kinds = ("UPDATE_COMPANY", *kinds)
    return [(kind, _ACTION_LABELS[kind]) for kind in kinds]


def _day(instant: str) -> str:
    return datetime.fromisoformat(instant).date().isoformat()


def _minute(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M}"


def _invoices(params: Params) -> str:
    numbers = ", ".join(params["invoices"])
    more = params["count"] - len(params["invoices"])
    what = f"Invoice {numbers}" if params["count"] == 1 else f"Invoices {numbers}"
    return f"{what} and {more} more" if more else what


def _money(params: Params) -> str:
    return format_money(params["amountMinor"], params["currency"], "en")


def _told(params: Params) -> str:
    """What the processor tells of, as money; as it is told, where the currency is none that is known."""
    try:
        return format_money(params["toldMinor"], params["toldCurrency"], "en")
    except ValueError:
        return f"{params['toldMinor']:,} minor units of {params['toldCurrency']}"


def _exceeding(params: Params) -> str:
    return ", ".join(f"{item['metricName']} {item['used']:,} of {item['limit']:,}" for item in params["exceeding"])
