"""I15: what concurrent clients see of balances and refunds fits a one-at-a-time order."""

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from ..conftest import Client, World
from ..stories.life import Life
from .histories import Call, fits_an_order

CHARGED = 4_900
CALLS = 12


@pytest.mark.parametrize(
    ("history", "fits"),
    [
        ([("grant", 5, True, 0, 1), ("read_balance", 0, 5, 2, 3)], True),
        ([("grant", 5, True, 0, 1), ("read_balance", 0, 0, 2, 3)], False),
        # While it is under way, either may be read, but not one after the other backwards.
        ([("grant", 5, True, 0, 9), ("read_balance", 0, 0, 1, 2), ("read_balance", 0, 5, 3, 4)], True),
        ([("grant", 5, True, 0, 9), ("read_balance", 0, 5, 1, 2), ("read_balance", 0, 0, 3, 4)], False),
        # Two that exceed what is left together: one is refused, and never both taken or both refused.
        ([("ask_back", 60, True, 0, 9), ("ask_back", 60, False, 0, 9)], True),
        ([("ask_back", 60, True, 0, 9), ("ask_back", 60, True, 0, 9)], False),
        ([("ask_back", 60, False, 0, 9), ("ask_back", 60, False, 0, 9)], False),
        ([("ask_back", 60, True, 0, 9), ("read_left", 0, 40, 1, 2), ("read_left", 0, 100, 3, 4)], False),
    ],
)
def test_the_checker_tells_them_apart(history: list[tuple[str, int, Any, float, float]], fits: bool) -> None:
    assert fits_an_order([Call(*call) for call in history], (0, 100)) is fits


async def _call(life: Life, charge_id: str, name: str, amount: int) -> Call:
    began = time.monotonic()
    answer: Any
    if name == "grant":
        payload = await life.try_to("grantCredit", amountMinor=amount, currency="USD", reason="test")
        answer = payload["userErrors"] == []
    elif name == "ask_back":
        payload = await life.try_to(
            "requestRefund", transactionId=charge_id, reason="GOODWILL", amountMinor=amount, currency="USD"
        )
        codes = [error["code"] for error in payload["userErrors"]]
        assert codes in ([], ["REFUND_NOT_ALLOWED"])
        answer = not codes
    elif name == "read_balance":
        answer = (await life.ask("creditBalance { amountMinor }"))["creditBalance"]
    else:
        found = await life.ask(
            "transactions(filter: { kind: [CHARGE] }) { nodes { refundableAmount { amountMinor } } }"
        )
        answer = found["transactions"]["nodes"][0]["refundableAmount"]
    return Call(name, amount, answer, began, time.monotonic())


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
async def test_histories_fit_an_order(client: Client, world: World, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # not a secret
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    bought = (await life.ask("transactions { nodes { id } }"))["transactions"]["nodes"][0]["id"]
    wanted = [
        (name, chance.randint(1, 3_000) if name in ("grant", "ask_back") else 0)
        for name in chance.choices(["grant", "ask_back", "read_balance", "read_left"], [2, 3, 2, 3], k=CALLS)
    ]
    clients = [wanted[place::4] for place in range(4)]

    async def live(calls: list[tuple[str, int]]) -> list[Call]:
        return [await _call(life, bought, name, amount) for name, amount in calls]

    history = [call for calls in await asyncio.gather(*map(live, clients)) for call in calls]
    assert fits_an_order(history, (0, CHARGED)), history
    await life.audit(world)
