"""The states of a subscription: every state × step, as §4 of the domain's rules has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.models import SubscriptionStatus as S
from plafond.services.rules.transitions import RUNNING, TRANSITIONS, Step, next_status

STATES: list[S | None] = [None, *S]

EXPECTED: dict[S | None, dict[Step, S]] = {
    # (none): a new account leaves by startTrial, startSubscription.
    None: {Step.START_TRIAL: S.TRIALING, Step.START: S.ACTIVE},
    # trialing: its end with a method: active; without: canceled. `startSubscription` ends the trial at once. Any change
    # is at once, add-ons are set at once. Cancelling is allowed and takes effect at the trial's end.
    S.TRIALING: {
        Step.START: S.ACTIVE,
        Step.END_TRIAL_PAYING: S.ACTIVE,
        Step.END_TRIAL: S.CANCELED,
        Step.CHANGE: S.TRIALING,
        Step.SET_ADD_ON: S.TRIALING,
        Step.CANCEL: S.TRIALING,
        Step.RESUME: S.TRIALING,
        Step.CANCEL_NOW: S.CANCELED,
        Step.END: S.CANCELED,
    },
    # active: a failed payment: past_due; cancel: canceled at the period's end.
    S.ACTIVE: {
        Step.CHANGE: S.ACTIVE,
        Step.SET_ADD_ON: S.ACTIVE,
        Step.CANCEL: S.ACTIVE,
        Step.RESUME: S.ACTIVE,
        Step.CANCEL_NOW: S.CANCELED,
        Step.END: S.CANCELED,
        Step.FAIL_PAYMENT: S.PAST_DUE,
    },
    # past_due: full service; paid: active; day 7: suspended.
    S.PAST_DUE: {
        Step.CHANGE: S.PAST_DUE,
        Step.SET_ADD_ON: S.PAST_DUE,
        Step.CANCEL: S.PAST_DUE,
        Step.RESUME: S.PAST_DUE,
        Step.CANCEL_NOW: S.CANCELED,
        Step.END: S.CANCELED,
        Step.PAY: S.ACTIVE,
        Step.SUSPEND: S.SUSPENDED,
        Step.GIVE_UP: S.CANCELED,
    },
    # suspended: paying and cancelling are allowed, plans and add-ons are not; paid: active; day 14: canceled.
    S.SUSPENDED: {
        Step.CANCEL: S.SUSPENDED,
        Step.RESUME: S.SUSPENDED,
        Step.CANCEL_NOW: S.CANCELED,
        Step.END: S.CANCELED,
        Step.PAY: S.ACTIVE,
        Step.GIVE_UP: S.CANCELED,
    },
    # canceled: reactivate; 90 days: expired.
    S.CANCELED: {Step.REACTIVATE: S.ACTIVE, Step.EXPIRE: S.EXPIRED},
    # expired: nothing leads out of it.
    S.EXPIRED: {},
}

statuses = st.sampled_from(STATES)
walks = st.lists(st.sampled_from(Step), max_size=60)


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("status", STATES, ids=str)
def test_each_step_from_each_state(status: S | None, step: Step) -> None:
    assert next_status(status, step) == EXPECTED[status].get(step)


def test_the_table_is_the_whole_of_it() -> None:
    wanted = {(status, step): to for status, steps in EXPECTED.items() for step, to in steps.items()}
    assert wanted == TRANSITIONS


def test_a_period_runs_in_four_states() -> None:
    assert {S.TRIALING, S.ACTIVE, S.PAST_DUE, S.SUSPENDED} == RUNNING


@pytest.mark.parametrize("step", [Step.CANCEL, Step.CANCEL_NOW, Step.END])
def test_cancelling_is_allowed_wherever_a_period_runs_and_nowhere_else(step: Step) -> None:
    assert {status for status in STATES if next_status(status, step)} == RUNNING


def test_what_takes_effect_at_the_periods_end_changes_no_state_before() -> None:
    for status in RUNNING:
        assert next_status(status, Step.CANCEL) is status
        assert next_status(status, Step.RESUME) is status


def test_dunning_goes_its_way() -> None:
    """Day 0 past_due, day 7 suspended, day 14 canceled, 90 days expired."""
    status: S | None = S.ACTIVE
    for step, to in [
        (Step.FAIL_PAYMENT, S.PAST_DUE),
        (Step.SUSPEND, S.SUSPENDED),
        (Step.END, S.CANCELED),
        (Step.EXPIRE, S.EXPIRED),
    ]:
        status = next_status(status, step)
        assert status is to


@pytest.mark.parametrize("status", [S.PAST_DUE, S.SUSPENDED])
def test_paying_restores(status: S) -> None:
    assert next_status(status, Step.PAY) is S.ACTIVE


def test_a_trial_whose_end_is_not_paid_is_active_and_then_past_due() -> None:
    status = next_status(S.TRIALING, Step.END_TRIAL_PAYING)
    assert next_status(status, Step.FAIL_PAYMENT) is S.PAST_DUE


@given(status=statuses, step=st.sampled_from(Step))
def test_nothing_leads_back_to_having_had_none_and_only_90_days_to_expired(status: S | None, step: Step) -> None:
    to = next_status(status, step)
    assert (to is S.EXPIRED) == ((status, step) == (S.CANCELED, Step.EXPIRE))
    assert to is None or (status, step) in TRANSITIONS


@given(steps=walks)
def test_no_walk_tries_twice_or_rises_from_expired(steps: list[Step]) -> None:
    """One trial per account; canceled is left by reactivating or expiring alone; expired is the end."""
    status: S | None = None
    trials = 0
    for step in steps:
        to = next_status(status, step)
        if to is None:
            continue
        assert status is not S.EXPIRED
        if to is S.TRIALING and status is not S.TRIALING:
            trials += 1
        if status is S.CANCELED:
            assert to in (S.ACTIVE, S.EXPIRED)
        if to is S.SUSPENDED and status is not S.SUSPENDED:
            assert status is S.PAST_DUE
        if to is S.PAST_DUE and status is not S.PAST_DUE:
            assert status is S.ACTIVE
        status = to
    assert trials <= 1


@given(steps=walks)
def test_from_every_state_that_a_walk_reaches_there_is_a_way_to_expired(steps: list[Step]) -> None:
    status: S | None = S.ACTIVE
    for step in steps:
        status = next_status(status, step) or status
    if status in RUNNING:
        status = next_status(status, Step.END)
    if status is S.CANCELED:
        status = next_status(status, Step.EXPIRE)
    assert status is S.EXPIRED
