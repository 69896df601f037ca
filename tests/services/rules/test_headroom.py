"""What budgets leave room for: whatever is used, held, committed and given back in any order, none is overshot."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from plafond.models import BudgetAction, BudgetScope
from plafond.services.rules.headroom import BudgetRoom, BudgetTerms, Held, Use, find_spent
from plafond.services.rules.overage import Rate

START = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = ("mails", "calls")
WORKSPACES = ("", "north", "south")

Reservation = tuple[str, str, int]
"""Metric, workspace, quantity."""


def room(scope: BudgetScope, subject: str, limit: int) -> BudgetRoom:
    terms = BudgetTerms(UUID(int=0), scope, subject, BudgetAction.BLOCK_OVERAGE, (100,), limit)
    return BudgetRoom(terms, {START: 0}, {START: limit})


def uses_of(
    rates: Mapping[str, Rate], used: Mapping[str, int], reservations: Mapping[int, Reservation]
) -> dict[str, Use]:
    holds: dict[str, dict[str, Held]] = {metric: {} for metric in METRICS}
    for metric, workspace, quantity in reservations.values():
        held = holds[metric].get(workspace, Held(0, 0))
        holds[metric][workspace] = Held(held.quantity + quantity, held.reservations + 1)
    return {metric: Use(rates[metric], used[metric], 0, holds[metric]) for metric in METRICS}


rates = st.builds(
    Rate,
    limit=st.integers(0, 30),
    block=st.integers(1, 12),
    price_minor=st.integers(1, 9),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["use", "use", "reserve", "commit", "release"]),
        st.sampled_from(METRICS),
        st.sampled_from(WORKSPACES),
        st.integers(1, 25),
    ),
    max_size=60,
)
budgets = st.fixed_dictionaries(
    {
        (BudgetScope.ACCOUNT, ""): st.integers(1, 80),
        (BudgetScope.METRIC, "mails"): st.integers(1, 50),
        (BudgetScope.WORKSPACE, "north"): st.integers(1, 40),
        (BudgetScope.WORKSPACE, "south"): st.integers(1, 40),
    }
)


@settings(max_examples=300)
@given(st.fixed_dictionaries(dict.fromkeys(METRICS, rates)), budgets, steps)
def test_no_budget_is_ever_overshot(
    rates: dict[str, Rate],
    budgets: dict[tuple[BudgetScope, str], int],
    steps: list[tuple[str, str, str, int]],
) -> None:
    rooms = [room(scope, subject, limit) for (scope, subject), limit in budgets.items()]
    used = dict.fromkeys(METRICS, 0)
    reservations: dict[int, Reservation] = {}

    def spend(metric: str, workspace: str, quantity: int) -> None:
        before = uses_of(rates, used, {})[metric].cost_minor
        used[metric] += quantity
        cost = uses_of(rates, used, {})[metric].cost_minor - before
        for each in rooms:
            each.add(START, metric, workspace, cost)

    for number, (act, metric, workspace, quantity) in enumerate(steps):
        before = uses_of(rates, used, reservations)
        if act == "use":
            after = before | {metric: replace(before[metric], used=used[metric] + quantity)}
            if find_spent(rooms, START, metric, workspace, before, after) is None:
                spend(metric, workspace, quantity)
        elif act == "reserve":
            wanted = reservations | {number: (metric, workspace, quantity)}
            if find_spent(rooms, START, metric, workspace, before, uses_of(rates, used, wanted)) is None:
                reservations = wanted
        elif reservations:
            key = sorted(reservations)[quantity % len(reservations)]
            reserved, owner, held = reservations.pop(key)
            if act == "commit":  # all of it, or a part: that was promised, and nobody asks any more
                spend(reserved, owner, held if quantity % 2 else max(1, held // 2))
        for each in rooms:
            assert each.spent[START] <= each.limits[START], (each.budget.scope, each.budget.subject)


@given(rates, st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_what_costs_nothing_more_passes_an_overspent_budget(rate: Rate, used: int, more: int, limit: int) -> None:
    own = room(BudgetScope.ACCOUNT, "", limit)
    before = {"mails": Use(rate, used, 0, {})}
    after = {"mails": Use(rate, used + more, 0, {})}
    own.spent[START] = limit + 5
    refused = find_spent([own], START, "mails", "", before, after)
    assert (refused is None) == (after["mails"].cost_minor == before["mails"].cost_minor)
