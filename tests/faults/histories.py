"""Whether a history of concurrent calls fits a one-at-a-time order (after Wing and Gong), for an account's money."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plafond.services.rules.money import minimum_of


@dataclass(frozen=True)
class State:
    """What the calls read and move."""

    balance: int = 0
    """The account's credit."""
    left: int = 0
    """What of a charge can still be asked back."""
    due: int = 0
    """What is due of an invoice."""
    tried: int | None = None
    """The amount of the try to charge that invoice that is under way."""
    paid_until: float = -1.0
    """When the last transfer had been answered."""


@dataclass(frozen=True)
class Call:
    """What a client asked, what it was answered, and when it asked and was answered."""

    name: str
    amount: int
    answer: Any
    began: float
    ended: float


def _grant(state: State, call: Call) -> State | None:
    """Credit is added."""
    return replace(state, balance=state.balance + call.amount) if call.answer is True else None


def _ask_back(state: State, call: Call) -> State | None:
    """A request takes its amount of what is left, and is refused exactly where that is too little."""
    if call.amount > state.left:
        return state if call.answer is False else None
    return replace(state, left=state.left - call.amount) if call.answer is True else None


def _deny(state: State, call: Call) -> State | None:
    """What was asked for is left again."""
    return replace(state, left=state.left + call.amount) if call.answer is True else None


def _approve(state: State, call: Call) -> State | None:
    """What was asked for is gone: it was not left before either."""
    return state if call.answer is True else None


def _record(state: State, call: Call) -> State | None:
    """A transfer pays what is due; the rest of it is owed back. What it leaves below the minimum is carried forward."""
    left = max(0, state.due - call.amount)
    due = 0 if left < minimum_of("USD") else left
    return replace(state, due=due, paid_until=call.ended) if call.answer is True else None


def _try(state: State, call: Call) -> State | None:
    """A charge is asked for: of all that is due at that moment.

    Nothing is, where nothing is due, or where a transfer overtook it: what is left is then for the worker to ask for.
    """
    if call.answer is False:
        is_needless = state.due == 0 or state.paid_until > call.began
        return state if is_needless and state.tried is None else None
    return replace(state, tried=call.amount) if state.tried is None and 0 < state.due == call.amount else None


def _collect(state: State, call: Call) -> State | None:
    """What was asked for came. It is a moment of its own: the processor is asked in between."""
    if state.tried != call.amount:
        return None
    return replace(state, tried=None, due=max(0, state.due - call.amount))


def _read_balance(state: State, call: Call) -> State | None:
    """What is read is what is there."""
    return state if call.answer == state.balance else None


def _read_left(state: State, call: Call) -> State | None:
    """What is read is what is there."""
    return state if call.answer == state.left else None


def _read_due(state: State, call: Call) -> State | None:
    """What is read is what is there."""
    return state if call.answer == state.due else None


RULES: dict[str, Callable[[State, Call], State | None]] = {
    "grant": _grant,
    "ask_back": _ask_back,
    "deny": _deny,
    "approve": _approve,
    "record": _record,
    "try": _try,
    "collect": _collect,
    "read_balance": _read_balance,
    "read_left": _read_left,
    "read_due": _read_due,
}


def fits_an_order(history: Sequence[Call], state: State) -> bool:
    """Whether the calls can be put in an order in which each answer is right, and none moves before one that had ended.

    Bounded by the history's length: keep it to about a dozen calls.
    """
    seen: set[tuple[frozenset[int], State]] = set()

    def search(done: frozenset[int], state: State) -> bool:
        if len(done) == len(history):
            return True
        if (done, state) in seen:
            return False
        seen.add((done, state))
        waiting = [place for place in range(len(history)) if place not in done]
        first_end = min(history[place].ended for place in waiting)
        for place in waiting:
            if history[place].began > first_end:
                continue
            after = RULES[history[place].name](state, history[place])
            if after is not None and search(done | {place}, after):
                return True
        return False

    return search(frozenset(), state)
