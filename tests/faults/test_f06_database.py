"""F6: connections to PostgreSQL are cut while money moves, also within a commit: no half effect, and none twice."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from .fire import Battlefield, Front, check, copy_of, fulfil, list_wishes, make_battlefield
from .runner import Processes, open_database, pass_a_minute, until, wait_until_quiet

CUTS = 15


@pytest.fixture(scope="session")
def battlefield(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battlefield]:
    """Two accounts of each kind."""
    if engine == "sqlite":
        pytest.skip("SQLite has no connections that could be cut")
    yield from make_battlefield(engine, tmp_path_factory.mktemp("cut"), 2)


async def cut_connections(address: str) -> int:
    """End all of a server's connections to a database. Gives how many there were."""
    name = address.rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(
        address.rpartition("/")[0] + "/postgres", autocommit=True
    ) as connection:
        cursor = await connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def test_connections_are_cut_while_money_moves(battlefield: Battlefield, tmp_path: Path) -> None:
    with copy_of(battlefield, tmp_path) as field_:
        database = open_database(field_.address)
        with Processes(field_.address, tmp_path) as processes:
            front = Front()
            _, front.port = await processes.start_server()
            front.up.set()
            clients = [
                asyncio.create_task(fulfil(front, field_.token, wish, f"wish-{number}"))
                for number, wish in enumerate(list_wishes(field_))
            ]
            cut = 0
            for _ in range(CUTS):
                await asyncio.wait(clients, timeout=0.06)
                cut += await cut_connections(field_.address)
            assert cut > CUTS
            await database.engine.dispose()

            async def is_answered() -> bool:
                await pass_a_minute(database)
                return all(client.done() for client in clients)

            await until(is_answered)
            await asyncio.gather(*clients)
            await wait_until_quiet(database)
        await check(field_, database)
        await database.close()
