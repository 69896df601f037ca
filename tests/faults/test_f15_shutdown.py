"""F15: a server is told to stop while money moves, and killed before it has; or told twice."""

import asyncio
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from .fire import Battlefield, Front, check, copy_of, fulfil, list_wishes, make_battlefield
from .runner import Processes, open_database, pass_a_minute, until, wait_until_quiet


@pytest.fixture(scope="session")
def battlefield(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battlefield]:
    """One account of each kind."""
    yield from make_battlefield(engine, tmp_path_factory.mktemp("stop"), 1)


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGTERM, signal.SIGKILL],
        pytest.param([signal.SIGTERM, signal.SIGTERM], marks=pytest.mark.slow),
    ],
    ids=["then killed", "twice"],
)
async def test_a_server_is_stopped_twice(battlefield: Battlefield, tmp_path: Path, signals: list[int]) -> None:
    with copy_of(battlefield, tmp_path) as field_:
        database = open_database(field_.address)
        with Processes(field_.address, tmp_path) as processes:
            front = Front()
            server, front.port = await processes.start_server()
            front.up.set()
            clients = [
                asyncio.create_task(fulfil(front, field_.token, wish, f"wish-{number}"))
                for number, wish in enumerate(list_wishes(field_))
            ]
            await asyncio.wait(clients, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
            assert server.pid is not None
            for number in signals:
                if server.is_alive():
                    os.kill(server.pid, number)
            await until(lambda: _is_over(server))
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


async def _is_over(process: ForkServerProcess) -> bool:
    return not process.is_alive()
