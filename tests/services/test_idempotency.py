"""Idempotency keys: one effect, one answer, and only for the same input."""

import asyncio
import hashlib
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from plafond.database import Actor
from plafond.models import IdempotencyKey
from plafond.services.errors import IdempotencyInFlight, IdempotencyMismatch, InvalidInput
from plafond.services.idempotency import Outcome, once
from plafond.services.inputs import refuse_card_number

from ..conftest import NOW, World
from .helpers import ACTOR

SECOND = timedelta(seconds=1)


@dataclass
class Caller:
    """Calls a mutation under a key and notes its effects."""

    world: World
    effects: list[object] = field(default_factory=list[object])
    refuses: bool = False
    slow: bool = False

    async def __call__(
        self,
        given: object = "input",
        key: str | None = "key",
        *,
        mutation: str = "pay",
        scope: str = "account",
        actor: Actor = ACTOR,
    ) -> Outcome:
        async def act() -> dict[str, Any]:
            if self.slow:
                await asyncio.sleep(0.05)
            if self.refuses:
                raise InvalidInput("refused")
            self.effects.append(given)
            return {"effect": len(self.effects)}

        async with self.world.database.work(actor) as work:
            return await once(work, key, mutation=mutation, scope=scope, given=given, act=act)


async def test_the_same_key_and_input_give_the_first_answer_again(world: World) -> None:
    """Hard case 30."""
    call = Caller(world)
    assert await call({"a": 1, "b": 2}) == Outcome({"effect": 1}, replayed=False)
    assert await call({"b": 2, "a": 1}) == Outcome({"effect": 1}, replayed=True)
    world.clock.stands_at += SECOND
    assert await call({"a": 1, "b": 2}) == Outcome({"effect": 1}, replayed=True)
    assert len(call.effects) == 1


async def test_the_same_key_with_other_input_is_a_mismatch(world: World) -> None:
    """Hard case 30."""
    call = Caller(world)
    await call({"amount": 100})
    with pytest.raises(IdempotencyMismatch):
        await call({"amount": 101})
    assert await call({"amount": 100}) == Outcome({"effect": 1}, replayed=True)


async def test_a_refused_input_is_not_remembered(world: World) -> None:
    """Hard case 30."""
    call = Caller(world, refuses=True)
    with pytest.raises(InvalidInput):
        await call("wrong")
    call.refuses = False
    assert await call("right") == Outcome({"effect": 1}, replayed=False)


async def test_two_at_once_have_one_effect(world: World) -> None:
    """Hard case 30."""
    call = Caller(world, slow=True)
    outcomes = await asyncio.gather(*(call() for _ in range(5)))
    assert len(call.effects) == 1
    assert [outcome.answer for outcome in outcomes] == [{"effect": 1}] * 5
    assert sorted(outcome.replayed for outcome in outcomes) == [False, True, True, True, True]


async def test_the_second_goes_on_when_the_first_of_two_is_refused(world: World) -> None:
    call = Caller(world, slow=True, refuses=True)
    outcomes = await asyncio.gather(*(call() for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [InvalidInput] * 3


async def test_a_key_whose_first_call_is_under_way_is_in_flight_and_a_mismatch_is_told_first(world: World) -> None:
    call = Caller(world)
    await call("input")
    async with world.database.work(ACTOR) as work:
        row = await work.session.get_one(IdempotencyKey, (ACTOR.name, "pay", "account", "key"))
        row.answer = None
    world.clock.stands_at += SECOND
    with pytest.raises(IdempotencyMismatch):
        await call("other")
    with pytest.raises(IdempotencyInFlight):
        await call("input")


async def test_keys_of_other_callers_mutations_and_accounts_are_other_keys(world: World) -> None:
    call = Caller(world)
    await call("a")
    await call("b", mutation="refund")
    await call("c", scope="other account")
    await call("d", actor=Actor(name="operator:other", origin="test"))
    await call("e", "other key")
    assert call.effects == ["a", "b", "c", "d", "e"]


async def test_without_a_key_each_call_has_its_effect(world: World) -> None:
    call = Caller(world)
    assert [await call(key=None) for _ in range(2)] == [
        Outcome({"effect": 1}, replayed=False),
        Outcome({"effect": 2}, replayed=False),
    ]


@pytest.mark.parametrize("key", ["", "x" * 256, "schlüssel", "a\nb", "a\tb", "a\x7fb", "a\x00b", "’"])
async def test_a_key_outside_the_alphabet_or_length_is_refused(world: World, key: str) -> None:
    call = Caller(world)
    with pytest.raises(InvalidInput):
        await call(key=key)
    assert call.effects == []


@pytest.mark.parametrize("key", ["x", "x" * 255, " ~!\"'\\{}", "0"])
async def test_a_key_of_1_to_255_printable_ascii_characters_is_taken(world: World, key: str) -> None:
    call = Caller(world)
    await call(key=key)
    assert (await call(key=key)).replayed


async def test_a_key_is_kept_for_48_hours_to_the_second(world: World) -> None:
    call = Caller(world)
    await call("input")
    world.clock.stands_at = NOW + timedelta(hours=48) - SECOND
    assert (await call("input")).replayed
    with pytest.raises(IdempotencyMismatch):
        await call("other")
    world.clock.stands_at = NOW + timedelta(hours=48)
    assert await call("other") == Outcome({"effect": 2}, replayed=False)
    assert await call("other") == Outcome({"effect": 2}, replayed=True)
    with pytest.raises(IdempotencyMismatch):
        await call("input")


def test_random_keys_are_no_card_numbers() -> None:
    """Of a few hundred UUIDs one holds digits whose check digit fits."""
    chance = random.Random(1)  # noqa: S311  # not a secret
    for _ in range(2_000):
        drawn = UUID(int=chance.getrandbits(128), version=4)
        for key in (str(drawn), f"order-{drawn}-1", hashlib.sha256(drawn.bytes).hexdigest()):
            refuse_card_number(key, ["input", "idempotencyKey"])
    with pytest.raises(InvalidInput):
        refuse_card_number("order-4242-4242-4242-4242", ["input", "idempotencyKey"])


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424242",
        "my card is 4242 4242 4242 4242, thank you",
        "4242\u00a04242\u202f4242\u00a04242",
        "4242.4242.4242.4242",
        "4242 / 4242 / 4242 / 4242",
        "4242\u20134242\u20134242\u20134242",
        "4242_4242_4242_4242",
        "４２４２４２４２４２４２４２４２",
        "4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2",
        "order 12: 4242 4242 4242 4242, 03/2029, 123",
        "3782 822463 10005",
        "pan5555555555554444",
    ],
)
def test_a_card_number_is_seen_however_it_is_grouped(text: str) -> None:
    with pytest.raises(InvalidInput, match="looks like a card number"):
        refuse_card_number(text, ["input", "note"])


def test_what_is_no_card_number_is_taken() -> None:
    """Dates, times, phone numbers, ids of a clock and account numbers of banks, whatever their check digits are."""
    for count in range(200):
        for text in (
            f"from 2026-05-{count % 28 + 1:02} 10:{count % 60:02}:00 to 2026-06-01 11:00:00",
            f"{1764288000000 + count}",
            f"2026112816{count:04}00",
            f"+43 1 234 5678 9{count:03}",
            f"DE89 3704 0044 0532 0130 {count % 100:02}",
            f"ref 12345, invoice INV-001{count:03}, 49.00",
        ):
            refuse_card_number(text, ["input", "note"])
