"""F1: servers are killed while usage comes in: what was acknowledged is there, once, and nothing is counted twice."""

import asyncio
import random
from pathlib import Path

import pytest

from .fire import Battlefield
from .runner import ROUNDS, SEED
from .senders import Run, all_listen, make_batches, make_holds, run_senders

SENDERS = 4
POINTS = (
    "usage.received",
    "usage.before_commit",
    "usage.after_commit",
    "reservation.noted",
    "reservation.after_commit",
)


def _set_off(run: Run, chance: random.Random, name: str) -> None:
    """Let senders begin: some sixty batches, and twenty reservations."""
    run.send(make_batches(chance, run.account_ids, ids=40, size=4, name=name), senders=SENDERS)
    run.hold(make_holds(chance, run.account_ids, each=7, name=name), senders=SENDERS)


async def test_a_server_dies_at_each_point(battlefield: Battlefield, tmp_path: Path) -> None:
    """One after the other, and each of them in the middle of what several send."""
    chance = random.Random(7)  # noqa: S311  # not a secret
    async with run_senders(battlefield, tmp_path, listening=False) as run:
        for number, point in enumerate(POINTS):
            server = await run.fight.serve(f"{point}:kill:{chance.randint(2, 6)}", with_worker=False)
            if number == 0:
                _set_off(run, chance, "point")
            await run.fight.fall(server)
        await run.fight.serve()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_a_server_dies_at_a_point_many_times(battlefield: Battlefield, tmp_path: Path, point: str) -> None:
    """Also at the very first thing that it does."""
    chance = random.Random(point)  # noqa: S311  # not a secret
    async with run_senders(battlefield, tmp_path) as run:
        for nth in (1, 1, 2, 3, 5):
            server = await run.fight.serve(f"{point}:kill:{nth}", with_worker=False)
            if not run.senders:
                _set_off(run, chance, "again")
            await run.fight.fall(server)
        await run.fight.serve()


async def _die_blindly(battlefield: Battlefield, folder: Path, chance: random.Random) -> None:
    async with run_senders(battlefield, folder) as run:
        server = await run.fight.serve()
        await all_listen(run)
        _set_off(run, chance, "blind")
        for _ in range(chance.randint(2, 4)):
            await asyncio.wait(run.senders, timeout=chance.uniform(0.02, 0.4))
            server.kill()
            await run.fight.fall(server)
            server = await run.fight.serve()


async def test_usage_comes_while_servers_die(battlefield: Battlefield, tmp_path: Path) -> None:
    print(f"PLAFOND_TEST_SEED={SEED}")
    await _die_blindly(battlefield, tmp_path, random.Random(SEED))  # noqa: S311  # not a secret


@pytest.mark.slow
async def test_usage_comes_while_servers_die_again_and_again(battlefield: Battlefield, tmp_path: Path) -> None:
    """`make faults` sets the number of rounds: 100 on each engine."""
    print(f"PLAFOND_TEST_SEED={SEED}")
    for number in range(ROUNDS):
        print(f"round {number}")
        await _die_blindly(battlefield, tmp_path / str(number), random.Random(f"{SEED}:{number}"))  # noqa: S311  # not a secret
    print(f"{ROUNDS} rounds on {battlefield.engine} with seed {SEED}: everything was counted once")
