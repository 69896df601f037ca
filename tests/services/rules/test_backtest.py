"""Backtests: against a replay that takes unit by unit, and what holds of all of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from plafond.models import BudgetAction
from plafond.services.rules.backtest import DayUse, PastPeriod, Rated, Trial, price_in_order, replay
from plafond.services.rules.overage import Rate, cost_of

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 2, 1, tzinfo=UTC)
DAY = date(2026, 1, 1)
METRICS = ("calls", "emails")
BLOCK, ALERT, UPGRADE = BudgetAction.BLOCK_OVERAGE, BudgetAction.ALERT_ONLY, BudgetAction.UPGRADE


def day_of(number: int) -> date:
    return DAY + timedelta(days=number)


def a_period(fixed: dict[int, int], uses: Sequence[DayUse], rated: dict[str, Rated]) -> PastPeriod:
    days = {day_of(number): amount for number, amount in fixed.items()}
    ordered = sorted(uses, key=lambda use: use.day)
    return PastPeriod(START, END, days, price_in_order(ordered, rated), rated)


def emails(number: int, quantity: int, metric: str = "emails", *, counts: bool = True) -> DayUse:
    return DayUse(day=day_of(number), metric_key=metric, quantity=quantity, counts=counts)


rates = st.builds(
    Rated,
    st.builds(Rate, limit=st.integers(0, 12), block=st.integers(1, 5), price_minor=st.integers(1, 9)),
    st.integers(0, 3),
)
uses = st.builds(
    emails, st.integers(0, 4), st.integers(0, 25), st.sampled_from(METRICS), counts=st.sampled_from([True, True, False])
)


@st.composite
def periods(draw: st.DrawFn, *, corrected: bool = False) -> PastPeriod:
    used = draw(st.lists(uses, max_size=8))
    if corrected:
        used = [replace(use, quantity=use.quantity - 8) for use in used]
    fixed = {0: draw(st.integers(0, 20))} if draw(st.booleans()) else {}
    return a_period(fixed, used, {key: draw(rates) for key in METRICS})


def taken_singly(period: PastPeriod, limit_minor: int) -> tuple[int, dict[str, int], date | None]:
    """What is spent and refused when each unit comes alone, in the order of the period."""
    spent = sum(period.fixed.values())
    used: dict[str, int] = defaultdict(int)
    refused: dict[str, int] = defaultdict(int)
    blocked = None
    for use in period.uses:
        rated = period.rated[use.metric_key]
        for _ in range(use.quantity):
            before = used[use.metric_key]
            more = cost_of(before + 1, rated.allowed, rated.rate) - cost_of(before, rated.allowed, rated.rate)
            if use.counts and more and spent + more > limit_minor:
                refused[use.metric_key] += 1
                blocked = blocked or use.day
                continue
            used[use.metric_key] += 1
            spent += more if use.counts else 0
    return spent, refused, blocked


@settings(max_examples=200)
@given(period=periods(), limit=st.integers(1, 60))
def test_it_is_what_taking_unit_by_unit_gives(period: PastPeriod, limit: int) -> None:
    outcome = replay(period, Trial(limit, (80, 100), BLOCK))
    assert (outcome.spent_minor, outcome.refused, outcome.blocked_on) == taken_singly(period, limit)


@given(period=periods(corrected=True), limit=st.integers(1, 60))
def test_it_never_passes_the_limit_unless_lines_alone_do(period: PastPeriod, limit: int) -> None:
    outcome = replay(period, Trial(limit, (100, 101), BLOCK))
    fixed = sum(period.fixed.values())
    assert outcome.spent_minor <= max(limit, fixed)
    assert outcome.period.spent_minor - outcome.saved_minor == outcome.spent_minor
    assert (outcome.blocked_on is None) == (not any(outcome.refused.values()))
    if fixed <= limit:
        assert 101 not in outcome.reached
    if all(use.counts for use in period.uses):
        assert outcome.saved_minor >= 0


@given(period=periods(corrected=True), limit=st.integers(1, 200), action=st.sampled_from(BudgetAction))
def test_a_limit_above_the_spend_changes_nothing(period: PastPeriod, limit: int, action: BudgetAction) -> None:
    spent, highest = 0, 0
    for use in [*period.fixed.values(), *(use.cost_minor for use in period.uses if use.counts)]:
        spent += use
        highest = max(highest, spent)
    outcome = replay(period, Trial(highest + limit, (100,), action))
    assert (outcome.spent_minor, outcome.saved_minor) == (period.spent_minor, 0)
    assert (outcome.reached, outcome.blocked_on, outcome.upgraded_on, dict(outcome.refused)) == ({}, None, None, {})


@given(period=periods(corrected=True), limit=st.integers(1, 60))
def test_only_a_block_refuses(period: PastPeriod, limit: int) -> None:
    told = replay(period, Trial(limit, (50, 100), ALERT))
    asked = replay(period, Trial(limit, (50, 100), UPGRADE))
    for outcome in (told, asked):
        assert (outcome.spent_minor, outcome.blocked_on) == (period.spent_minor, None)
    assert told.upgraded_on is None
    assert asked.upgraded_on == told.reached.get(100)
    assert told.reached.get(50, DAY) <= told.reached.get(100, END.date())


RATED = {"emails": Rated(Rate(limit=100, block=10, price_minor=5), 0)}


def test_what_fits_into_the_block_that_is_begun_still_passes() -> None:
    period = a_period({0: 50}, [emails(1, 100), emails(2, 15), emails(3, 4), emails(4, 30)], RATED)
    outcome = replay(period, Trial(60, (80, 100), BLOCK))
    assert outcome.reached == {80: DAY, 100: day_of(2)}
    assert (outcome.blocked_on, dict(outcome.refused)) == (day_of(4), {"emails": 29})
    assert (outcome.period.spent_minor, outcome.spent_minor, outcome.saved_minor) == (75, 60, 15)


def test_what_is_given_back_makes_room_again() -> None:
    period = a_period({0: 50, 3: -20}, [emails(1, 150), emails(3, 30)], RATED)
    outcome = replay(period, Trial(60, (100,), BLOCK))
    # Two of five blocks fit; with twenty less on lines the three of the last day do, too.
    assert (outcome.spent_minor, dict(outcome.refused)) == (55, {"emails": 30})
    corrected = a_period({0: 50}, [emails(1, 150), emails(2, -100), emails(3, 100)], RATED)
    outcome = replay(corrected, Trial(60, (100,), BLOCK))
    assert (outcome.spent_minor, dict(outcome.refused)) == (60, {"emails": 30})


def test_a_workspace_costs_what_it_did_until_something_is_refused() -> None:
    """Who began a block on a day is known, and not told by any order: what it cost counts."""
    others = replace(emails(1, 105, counts=False), cost_minor=0)
    north = replace(emails(1, 1), cost_minor=5)
    more = replace(emails(2, 20), cost_minor=10)
    period = PastPeriod(START, END, {}, [others, north, more], RATED)
    assert replay(period, Trial(15, (100,), BLOCK)).spent_minor == 15
    outcome = replay(period, Trial(10, (100,), BLOCK))
    # 106 are used: with one block more 120 would be.
    assert (outcome.spent_minor, outcome.blocked_on, dict(outcome.refused)) == (10, day_of(2), {"emails": 6})
