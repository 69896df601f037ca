"""F2, F3, F15: server and worker are killed while money moves: each wish comes true once, and the books fit."""

import asyncio
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fire import Battlefield, Front, check, copy_of, fight, fulfil, list_wishes, make_battlefield
from .runner import Processes, open_database, pass_a_minute, until, wait_until_quiet

SEED = os.environ.get("PLAFOND_TEST_SEED") or secrets.token_hex(4)
"""Of the blind kills. A failure prints it; given again, the kills come at the same times."""
ROUNDS = int(os.environ.get("PLAFOND_FAULT_ROUNDS", "10"))
POINTS = [f"{what}.{at}" for what in ("charge", "refund") for at in ("before_call", "after_call", "after_commit")]


@pytest.fixture(scope="session")
def battlefield(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battlefield]:
    """Two accounts of each kind."""
    yield from make_battlefield(engine, tmp_path_factory.mktemp("fire"), 2)


@pytest.mark.parametrize(
    "point", [POINTS[1], *(pytest.param(point, marks=pytest.mark.slow) for point in POINTS if point != POINTS[1])]
)
async def test_a_server_is_killed_at_a_point(battlefield: Battlefield, tmp_path: Path, point: str) -> None:
    """It dies around its first charge or refund; another takes the same requests, a worker what it left."""
    with copy_of(battlefield, tmp_path) as field_:
        database = open_database(field_.address)
        with Processes(field_.address, tmp_path) as processes:
            front = Front()
            dying, front.port = await processes.start_server_to_die(f"{point}:kill")
            front.up.set()
            clients = [
                asyncio.create_task(fulfil(front, field_.token, wish, f"wish-{number}"))
                for number, wish in enumerate(list_wishes(field_))
            ]
            await processes.see_end(dying)
            front.up.clear()
            _, front.port = await processes.start_server()
            front.up.set()

            async def is_answered() -> bool:
                await pass_a_minute(database)
                return all(client.done() for client in clients)

            await until(is_answered)
            await asyncio.gather(*clients)
            await wait_until_quiet(database)
        await check(field_, database)
        await database.close()


async def _fight_rounds(battlefield: Battlefield, folder: Path, rounds: int) -> None:
    print(f"PLAFOND_TEST_SEED={SEED}")
    chance = random.Random(SEED)  # noqa: S311  # not a secret
    for number in range(rounds):
        await fight(battlefield, folder / str(number), chance, kills=chance.randint(1, 4))


async def test_money_moves_while_processes_die(battlefield: Battlefield, tmp_path: Path) -> None:
    await _fight_rounds(battlefield, tmp_path, 2)


@pytest.mark.slow
async def test_money_moves_while_processes_die_again_and_again(battlefield: Battlefield, tmp_path: Path) -> None:
    """`make faults` sets the number of rounds: 100 on each engine."""
    await _fight_rounds(battlefield, tmp_path, ROUNDS)
    print(f"{ROUNDS} rounds on {battlefield.engine} with seed {SEED}: the audit found nothing")
