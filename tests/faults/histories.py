"""Whether a history of concurrent calls fits a one-at-a-time order (after Wing and Gong), for balances and refunds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

State = tuple[int, int]
"""The credit balance, and what of a charge can still go back."""


@dataclass(frozen=True)
class Call:
    """What a client asked, what it was answered, and when it asked and was answered."""

    name: str
    amount: int
    answer: Any
    began: float
    ended: float


def grant(state: State, call: Call) -> State | None:
    """Credit is added."""
    balance, left = state
    return (balance + call.amount, left) if call.answer is True else None


def ask_back(state: State, call: Call) -> State | None:
    """A request takes its amount of what is left, and is refused exactly where that is too little."""
    balance, left = state
    if call.amount > left:
        return state if call.answer is False else None
    return (balance, left - call.amount) if call.answer is True else None


def read_balance(state: State, call: Call) -> State | None:
    """What is read is what is there."""
    return state if call.answer == state[0] else None


def read_left(state: State, call: Call) -> State | None:
    """What is read is what is there."""
    return state if call.answer == state[1] else None


RULES: dict[str, Callable[[State, Call], State | None]] = {
    "grant": grant,
    "ask_back": ask_back,
    "read_balance": read_balance,
    "read_left": read_left,
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
