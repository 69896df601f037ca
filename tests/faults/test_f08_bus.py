"""F8: Redis is killed and comes back while servers die mid-stream: nobody misses an alert, nobody hears one twice."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ..own_redis import OwnRedis
from .fire import Battlefield
from .runner import SEED, until
from .senders import Run, all_listen, make_batches, run_senders


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.slow)])
async def test_redis_and_servers_die_while_alerts_are_told(
    battlefield: Battlefield, tmp_path: Path, redis_server: OwnRedis, rounds: int
) -> None:
    """One server takes the usage; the streams are at another, which hears of it through Redis, or looks by itself."""
    chance = random.Random(f"bus:{SEED}:{rounds}")  # noqa: S311  # not a secret
    settings = {"redis_url": redis_server.url}
    async with run_senders(battlefield, tmp_path) as run:
        _, port = await run.fight.processes.start_server(with_worker=False, settings=settings)
        writers = replace(run.fight.front, port=port, up=asyncio.Event())
        writers.up.set()
        streaming = await run.fight.serve(with_worker=False, settings=settings)
        await all_listen(run)
        for number in range(rounds):
            print(f"round {number}, PLAFOND_TEST_SEED={SEED}")
            redis_server.kill()
            run.send(make_batches(chance, run.account_ids, ids=12, size=4, name=f"away-{number}"), front=writers)
            streaming.kill()
            await run.fight.fall(streaming)
            streaming = await run.fight.serve(with_worker=False, settings=settings)
            redis_server.start()
            run.send(make_batches(chance, run.account_ids, ids=12, size=4, name=f"back-{number}"), front=writers)
            await until(lambda number=number: _came_again(run, number + 2))  # type: ignore[misc]
            redis_server.kill()
            redis_server.start()


async def _came_again(run: Run, times: int) -> bool:
    return all(listener.times >= times for listener in run.listeners)
