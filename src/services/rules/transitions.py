"""The one table of what a subscription may become, and by what."""

from enum import StrEnum

from ...models import Interval
from ...models import SubscriptionStatus as S

MAX_UNITS = 10_000
"""So many units of an add-on can be ordered."""


class Step(StrEnum):
    """What makes a subscription change its state."""

    START_TRIAL = "START_TRIAL"
    START = "START"
    END_TRIAL_PAYING = "END_TRIAL_PAYING"
    END_TRIAL = "END_TRIAL"
    CHANGE = "CHANGE"
    SET_ADD_ON = "SET_ADD_ON"
    CANCEL = "CANCEL"
    CANCEL_NOW = "CANCEL_NOW"
    RESUME = "RESUME"
    END = "END"
    FAIL_PAYMENT = "FAIL_PAYMENT"
    PAY = "PAY"
    SUSPEND = "SUSPEND"
    GIVE_UP = "GIVE_UP"
    REACTIVATE = "REACTIVATE"
    EXPIRE = "EXPIRE"


RUNNING = frozenset({S.TRIALING, S.ACTIVE, S.PAST_DUE, S.SUSPENDED})
"""In these a subscription has a period that runs."""

TRANSITIONS: dict[tuple[S | None, Step], S] = {
    (None, Step.START_TRIAL): S.TRIALING,
    (None, Step.START): S.ACTIVE,
    (S.TRIALING, Step.START): S.ACTIVE,
    (S.TRIALING, Step.END_TRIAL_PAYING): S.ACTIVE,
    (S.TRIALING, Step.END_TRIAL): S.CANCELED,
    (S.TRIALING, Step.CHANGE): S.TRIALING,
    (S.ACTIVE, Step.CHANGE): S.ACTIVE,
    (S.PAST_DUE, Step.CHANGE): S.PAST_DUE,
    (S.TRIALING, Step.SET_ADD_ON): S.TRIALING,
    (S.ACTIVE, Step.SET_ADD_ON): S.ACTIVE,
    (S.PAST_DUE, Step.SET_ADD_ON): S.PAST_DUE,
    **{(state, Step.CANCEL): state for state in RUNNING},
    **{(state, Step.RESUME): state for state in RUNNING},
    **{(state, Step.CANCEL_NOW): S.CANCELED for state in RUNNING},
    **{(state, Step.END): S.CANCELED for state in RUNNING},
    (S.ACTIVE, Step.FAIL_PAYMENT): S.PAST_DUE,
    (S.PAST_DUE, Step.PAY): S.ACTIVE,
    (S.SUSPENDED, Step.PAY): S.ACTIVE,
    (S.PAST_DUE, Step.SUSPEND): S.SUSPENDED,
    (S.PAST_DUE, Step.GIVE_UP): S.CANCELED,
    (S.SUSPENDED, Step.GIVE_UP): S.CANCELED,
    (S.CANCELED, Step.REACTIVATE): S.ACTIVE,
    (S.CANCELED, Step.EXPIRE): S.EXPIRED,
}


def next_status(status: S | None, step: Step) -> S | None:
    """What a step leads to; none where it is not allowed."""
    return TRANSITIONS.get((status, step))


def takes_effect_at_once(tier: int, interval: Interval, new_tier: int, new_interval: Interval) -> bool:
    """By the table of the domain's §3: a higher or the same tier at the same or a longer interval."""
    is_shorter = interval is Interval.YEAR and new_interval is Interval.MONTH
    return new_tier >= tier and not is_shorter
