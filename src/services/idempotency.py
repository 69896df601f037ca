"""Idempotency keys: a mutation under a key happens once, and its first answer is given again."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from ..database import Work
from ..models import IdempotencyKey
from . import inputs
from .errors import IdempotencyInFlight, IdempotencyMismatch, InvalidInput

P = ParamSpec("P")

KEPT = timedelta(hours=48)
MAX_KEY_LENGTH = 255


@dataclass(frozen=True)
class Outcome:
    """An answer, and whether it is a repetition."""

    answer: dict[str, Any]
    replayed: bool


@dataclass(frozen=True)
class Request:
    """What a caller sent with a key: the key, the accounts it is for, and the input it must not change."""

    key: str | None
    scope: str
    given: object


Act = Callable[Concatenate[Work, P], Awaitable[dict[str, Any]]]


def idempotent(mutation: str) -> Callable[[Act[P]], Callable[Concatenate[Work, Request, P], Awaitable[Outcome]]]:
    """Makes an act of a mutation happen once for each request under a key; what it returns is remembered."""

    def wrap(act: Act[P]) -> Callable[Concatenate[Work, Request, P], Awaitable[Outcome]]:
        @wraps(act)
        async def run(work: Work, request: Request, /, *args: P.args, **kwargs: P.kwargs) -> Outcome:
            return await once(
                work,
                request.key,
                mutation=mutation,
                scope=request.scope,
                given=request.given,
                act=lambda: act(work, *args, **kwargs),
            )

        return run

    return wrap


async def recall(work: Work, request: Request, mutation: str) -> Outcome | None:
    """The answer that a request was given before; none where it is to be acted on.

    For what has to be asked of others before `once`: a repetition asks nobody.
    """
    if request.key is None:
        return None
    _check_key(request.key)
    identity = (work.actor.name, mutation, request.scope, request.key)
    row = await work.session.get(IdempotencyKey, identity)
    if row is None or row.answer is None or row.created_at <= work.clock.now() - KEPT:
        return None
    if row.input_hash != _hash(request.given):
        raise _mismatch()
    return Outcome(row.answer, replayed=True)


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise InvalidInput(
            f"An idempotency key has 1 to {MAX_KEY_LENGTH} printable ASCII characters.", ["input", "idempotencyKey"]
        )
    inputs.refuse_card_number(key, ["input", "idempotencyKey"])


def _hash(given: object) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch(
        "This idempotency key was used with another input: take a new key for a new request.",
        ["input", "idempotencyKey"],
    )


async def once(
    work: Work,
    key: str | None,
    *,
    mutation: str,
    scope: str,
    given: object,
    act: Callable[[], Awaitable[dict[str, Any]]],
) -> Outcome:
    """Run `act` once per (caller, mutation, scope, key); later calls with the same input get its answer.

    The key commits with what it guards: a refusal rolls both back and is not remembered.
    """
    if key is None:
        return Outcome(await act(), replayed=False)
    _check_key(key)
    input_hash = _hash(given)
    now = work.clock.now()
    identity = {"principal": work.actor.name, "mutation": mutation, "scope": scope, "key": key}
    # The unique key makes a second call wait here until the first has committed or rolled back.
    await work.insert_or_ignore(
        IdempotencyKey, [identity | {"input_hash": input_hash, "answer": None, "created_at": now}]
    )
    row = await work.session.get_one(IdempotencyKey, tuple(identity.values()), with_for_update=True)
    is_first = row.created_at == now and row.answer is None and row.input_hash == input_hash
    if row.created_at <= now - KEPT:
        row.input_hash, row.answer, row.created_at = input_hash, None, now
        is_first = True
    if row.input_hash != input_hash:
        raise _mismatch()
    if row.answer is not None:
        return Outcome(row.answer, replayed=True)
    if not is_first:
        raise IdempotencyInFlight(
            "The first request with this idempotency key is still under way: ask again in a moment.",
            ["input", "idempotencyKey"],
        )
    row.answer = await act()
    return Outcome(row.answer, replayed=False)
