"""F6: the database is lost while money moves, also within a commit; or it is held by another: no half effect,
no two."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2
import psycopg
import pytest
from sqlalchemy import func, select

from plafond.models import IdempotencyKey, LedgerEntry, Transaction

from .fire import Battlefield, Fight, Kind, fight, mutation_of, wish_of
from .proxy import When, open_way
from .runner import answers, until

CUTS = 15
ASKING = (Kind.BUYER, Kind.DEBTOR, Kind.RETRIER, Kind.UNHAPPY, Kind.TRANSFEROR)


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


async def test_connections_are_cut_while_money_moves(on_postgresql: Battlefield, tmp_path: Path) -> None:
    async with fight(on_postgresql, tmp_path) as fought:
        await fought.serve()
        fought.begin()
        cut = 0
        for _ in range(CUTS):
            await asyncio.wait(fought.clients, timeout=0.06)
            cut += await cut_connections(fought.field.address)
        assert cut > CUTS
        await fought.database.engine.dispose()


@pytest.mark.parametrize(
    ("kind", "words", "when"),
    [
        *((kind, b"COMMIT", When.AFTER) for kind in ASKING),
        *((kind, b"COMMIT", When.BEFORE) for kind in (Kind.BUYER, Kind.UNHAPPY)),
        *((kind, b"INSERT INTO audit_entry", When.BEFORE) for kind in (Kind.BUYER, Kind.TRANSFEROR)),
    ],
    ids=str,
)
async def test_a_connection_is_cut_at_each_transaction(
    on_postgresql: Battlefield, tmp_path: Path, kind: Kind, words: bytes, when: When
) -> None:
    """The nth transaction of a mutation is lost, for each n that there is; under its key it happens once."""
    nth, came = 1, True
    while came:
        async with fight(on_postgresql, tmp_path / str(nth), kind) as fought, open_way(fought.field.address) as way:
            await fought.serve(with_worker=False, settings={"database_url": way[1]})
            cut = way[0].cut_at(words, when, nth)
            fought.begin()
            waiter = asyncio.create_task(cut.came.wait())
            await asyncio.wait([waiter, *fought.clients], return_when=asyncio.FIRST_COMPLETED)
            came = cut.came.is_set()
            waiter.cancel()
            fought.processes.start_worker()
            await fought.finish()
            if came:
                assert await answers(fought.front.port), "the pool heals"
        nth += 1
    assert nth > 2, "nothing was ever cut"


async def test_the_database_is_away_for_a_while(on_postgresql: Battlefield, tmp_path: Path) -> None:
    """Who serves says that it is not ready, answers that it is to be asked again, and goes on afterwards."""
    async with fight(on_postgresql, tmp_path, Kind.BUYER) as fought, open_way(fought.field.address) as (way, over):
        await fought.serve(with_worker=False, settings={"database_url": over})
        port = fought.front.port
        way.close()
        assert not await answers(port)
        async with httpx2.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
            away = await http.post(
                f"http://127.0.0.1:{port}/graphql",
                json={"query": "{ __typename }"},
                headers={"Authorization": f"Bearer {fought.field.token}"},
            )
        assert away.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        fought.begin()
        await asyncio.wait(fought.clients, timeout=0.3)
        way.open()
        await until(lambda: answers(port))
        fought.processes.start_worker()
        await fought.finish()


@pytest.mark.slow
async def test_the_file_is_locked_for_longer_than_anybody_waits(on_sqlite: Battlefield, tmp_path: Path) -> None:
    """Another process holds it: what writes is refused with a clear word and no effect, what reads goes on."""
    async with fight(on_sqlite, tmp_path) as fought:
        await fought.serve(with_worker=False)
        [buyer] = fought.field.of(Kind.BUYER)
        wish = wish_of(buyer)
        assert wish is not None
        address = f"http://127.0.0.1:{fought.front.port}/graphql"
        headers = {"Authorization": f"Bearer {fought.field.token}"}
        given = wish.given | {"idempotencyKey": f"wish-{buyer.kind}"}
        body = {"query": mutation_of(wish), "variables": {"input": given}}
        before = await _count(fought)
        with closing(sqlite3.connect(fought.field.address.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with httpx2.AsyncClient(timeout=60, headers=headers) as http:
                writing = asyncio.create_task(http.post(address, json=body))
                reading = await http.post(address, json={"query": "{ viewer { __typename } }"})
                assert "errors" not in reading.json()
                assert await answers(fought.front.port)
                refused = (await writing).json()
            assert refused["errors"][0]["extensions"]["code"] == "UNAVAILABLE", refused
            other.execute("ROLLBACK")
        assert await _count(fought) == before
        fought.begin()
        fought.processes.start_worker()


async def _count(fought: Fight) -> tuple[int, ...]:
    async with fought.database.read() as session:
        counts = [
            await session.scalar(select(func.count()).select_from(table))
            for table in (Transaction, LedgerEntry, IdempotencyKey)
        ]
    return tuple(count or 0 for count in counts)
