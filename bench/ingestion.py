"""Measures ingestion: against plain inserts of the same rows, through the API, and as batches and storage grow."""

import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import uvicorn
from sqlalchemy import make_url, text

from plafond.app import create_app
from plafond.clock import SetClock
from plafond.database import Database
from plafond.migrations import migrate_database
from plafond.models import UsageEvent, UsageEventId
from plafond.models.types import new_id
from plafond.sandbox.seeds import SEEDER
from plafond.services.access import Scope
from plafond.services.ingestion import EVENT_COLUMNS, ID_COLUMNS
from plafond.services.keys import create_operator_key
from plafond.services.metering import record_usage
from plafond.services.usage import EventStatus, UsageInput
from plafond.serving import make_config
from plafond.settings import Environment, Settings

from .accounts import ACTOR, Month, open_catalogue, write_accounts
from .results import Row, Tell

POSTGRES = os.environ.get("PLAFOND_TEST_POSTGRES_URL", "postgresql://127.0.0.1:5432/test")
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MONTH = Month(NOW - timedelta(days=10), NOW + timedelta(days=20))
BATCH = 1_000
NAMED = 20
"""Of how many accounts the events of a batch are."""
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
HISTORY = tuple(int(size) for size in os.environ.get("BENCH_HISTORY", "10000,100000,1000000").split(","))
ACCOUNTS = (100, 1_000, 10_000)
SIZES = (1, 10, 100, 1_000)
numbers = count()

COLUMNS = (
    "id, account_id, event_id, metric_key, quantity, level, change, occurred_at, accepted_at, period_start, workspace, "
    "properties"
)
RECORD = """mutation ($events: [UsageEventInput!]!) { recordUsage(input: { events: $events }) {
  accepted duplicates rejected results(status: [REJECTED]) { index code } } }"""

Measure = Callable[[], Awaitable[float]]


def make_batch(
    size: int = BATCH, accounts: int = NAMED, *, first: int = 0, quantity: int = 1, workspaces: int = 1
) -> list[UsageInput]:
    """Events of a day, of some accounts from a number on, that were never sent before."""
    tag = next(numbers)
    return [
        UsageInput(
            event_id=f"{tag}-{place}",
            metric="email_sends",
            external_id=f"bench-{first + place % accounts}",
            quantity=quantity,
            occurred_at=NOW - timedelta(hours=place % 24),
            properties={"workspace": f"main-{place // accounts % workspaces}"},
        )
        for place in range(size)
    ]


@asynccontextmanager
async def open_database(engine: str, accounts: int) -> AsyncGenerator[tuple[Database, str, list[UUID]]]:
    """A database with so many accounts."""
    name = f"plafond_bench_{uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{Path(folder) / 'bench.db'}"
        if engine == "PostgreSQL":
            with psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            address = make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
        database = Database(address, SetClock(NOW), lambda _: None)
        try:
            await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
            await open_catalogue(database)
            yield database, address, await write_accounts(database, MONTH, accounts)
        finally:
            await database.close()
            if engine == "PostgreSQL":
                with psycopg.connect(POSTGRES, autocommit=True) as connection:
                    connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def take(database: Database, size: int = BATCH, accounts: int = NAMED) -> float:
    """Seconds that one batch takes."""
    return await take_batch(database, make_batch(size, accounts))


async def take_batch(database: Database, batch: list[UsageInput]) -> float:
    """Seconds that these events take, in one transaction."""
    started = time.perf_counter()
    async with database.work(ACTOR) as work:
        results = await record_usage(work, SEEDER, batch)
    elapsed = time.perf_counter() - started
    assert all(result.status is EventStatus.ACCEPTED for result in results), results[0]
    return elapsed


def plain_rows(ids: list[UUID]) -> list[tuple[Any, ...]]:
    """The rows that a batch stores, as values."""
    tag = next(numbers)
    return [
        (
            new_id(),
            ids[place % NAMED],
            f"{tag}-{place}",
            "email_sends",
            1,
            None,
            1,
            NOW - timedelta(hours=place % 24),
            NOW,
            MONTH.start,
            "main",
            json.dumps({"workspace": "main"}),
        )
        for place in range(BATCH)
    ]


async def insert_plainly_into_postgres(connection: psycopg.AsyncConnection[Any], ids: list[UUID]) -> float:
    """The limit: the same rows by one plain statement, deduplicated by a unique key, and nothing else."""
    rows = plain_rows(ids)
    place = f"({', '.join(['%s'] * 12)})"
    statement = f"INSERT INTO plain ({COLUMNS}) VALUES {', '.join([place] * BATCH)} ON CONFLICT DO NOTHING"  # noqa: S608
    values = [value for row in rows for value in row]
    started = time.perf_counter()
    await connection.execute(statement.encode(), values)
    await connection.commit()
    return time.perf_counter() - started


async def insert_plainly_into_sqlite(database: Database, ids: list[UUID]) -> float:
    """The same on SQLite."""
    given = [
        tuple(
            value.hex if isinstance(value, UUID) else str(value) if isinstance(value, datetime) else value
            for value in row
        )
        for row in plain_rows(ids)
    ]
    statement = f"INSERT INTO plain ({COLUMNS}) VALUES ({', '.join(['?'] * 12)}) ON CONFLICT DO NOTHING"  # noqa: S608
    started = time.perf_counter()
    async with database.work(ACTOR) as work:
        connection = await work.session.connection()
        await connection.exec_driver_sql(statement, given)
    return time.perf_counter() - started


async def alternate(**measures: Measure) -> dict[str, float]:
    """The median seconds of each, measured in turns so that all have the same weather."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(ROUNDS + 3):
        for name, measure in measures.items():
            seconds = await measure()
            if number >= 3:
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


@asynccontextmanager
async def serve(address: str) -> AsyncGenerator[Measure]:
    """A server over HTTP in a process of its own; measures one batch through it."""
    database = Database(address, SetClock(NOW), lambda _: None)
    async with database.work(ACTOR) as work:
        key = await create_operator_key(
            work, Environment.SANDBOX, name="bench", scopes=[Scope.USAGE_WRITE], account=None, expires_at=None
        )
    await database.close()
    process, port = start_server(address)
    headers = {"Authorization": f"Bearer {key.token}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as http:

        async def send() -> float:
            events = [
                {
                    "eventId": event.event_id,
                    "metric": event.metric,
                    "externalId": event.external_id,
                    "quantity": event.quantity,
                    "occurredAt": event.occurred_at.isoformat() if event.occurred_at else None,
                    "properties": event.properties,
                }
                for event in make_batch()
            ]
            body = json.dumps({"query": RECORD, "variables": {"events": events}}).encode()
            started = time.perf_counter()
            answer = (await http.post("/graphql", content=body)).json()
            elapsed = time.perf_counter() - started
            assert answer["data"]["recordUsage"]["accepted"] == BATCH, answer
            return elapsed

        try:
            yield send
        finally:
            process.terminate()
            await asyncio.to_thread(process.join)


def start_server(address: str) -> tuple[SpawnProcess, int]:
    """A server process on a free port, once it listens."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(address, listener))
    process.start()
    port: int = listener.getsockname()[1]
    listener.close()
    return process, port


def run_server(address: str, listener: socket.socket) -> None:
    """The server process."""
    settings = Settings(database_url=address, environment=Environment.SANDBOX)
    app = create_app(settings, with_worker=False, clock=SetClock(NOW))
    uvicorn.Server(make_config(app)).run(sockets=[listener])


def rate(seconds: float, size: int = BATCH) -> str:
    """Events per second."""
    return f"{size / seconds:,.0f} events/s"


async def compare_on_postgres() -> list[Row]:
    """A batch of 1,000 by one plain statement, by ours, and through the API."""
    async with open_database("PostgreSQL", 1_000) as (database, address, ids):
        async with database.work(ACTOR) as work:
            for statement in PLAIN_TABLE:
                await work.session.execute(text(statement))
        async with serve(address) as through_api, await psycopg.AsyncConnection.connect(address) as connection:
            seconds = await alternate(
                plain=lambda: insert_plainly_into_postgres(connection, ids),
                ours=lambda: take(database),
                api=through_api,
            )
    plain, ours, api = seconds["plain"], seconds["ours"], seconds["api"]
    return [
        Row("PostgreSQL, plain multi-row INSERT … ON CONFLICT of the same rows", rate(plain)),
        Row(
            "PostgreSQL, a batch as it is taken (1,000 events of 20 accounts)",
            f"{rate(ours)}: {plain / ours:.2f} × plain",
        ),
        Row("PostgreSQL, the same through GraphQL over HTTP", f"{rate(api)}: {ours / api:.2f} × the batch alone"),
    ]


PLAIN_TABLE = (
    "CREATE TABLE plain (LIKE usage_event INCLUDING DEFAULTS)",
    "ALTER TABLE plain ADD PRIMARY KEY (id)",
    "ALTER TABLE plain ADD UNIQUE (account_id, event_id)",
)


async def compare_on_sqlite() -> list[Row]:
    """The same on SQLite, without the API."""
    async with open_database("SQLite", 1_000) as (database, _, ids):
        async with database.work(ACTOR) as work:
            await work.session.execute(text("CREATE TABLE plain AS SELECT * FROM usage_event"))
            await work.session.execute(text("CREATE UNIQUE INDEX plain_id ON plain (id)"))
            await work.session.execute(text("CREATE UNIQUE INDEX plain_key ON plain (account_id, event_id)"))
        seconds = await alternate(plain=lambda: insert_plainly_into_sqlite(database, ids), ours=lambda: take(database))
    plain, ours = seconds["plain"], seconds["ours"]
    return [
        Row("SQLite, plain INSERT … ON CONFLICT of the same rows", rate(plain)),
        Row("SQLite, a batch as it is taken", f"{rate(ours)}: {plain / ours:.2f} × plain"),
    ]


async def grow_batches(engine: str) -> list[Row]:
    """Events per second by the size of a batch."""
    async with open_database(engine, 1_000) as (database, _, _):
        measures: dict[str, Measure] = {str(size): partial(take, database, size) for size in SIZES}
        seconds = await alternate(**measures)
    one = seconds["1"]
    return [
        Row(
            f"{engine}, batches of {size:,}",
            f"{rate(seconds[str(size)], size)}: {one * size / seconds[str(size)]:.1f} × one by one",
        )
        for size in SIZES
    ]


async def grow_accounts(engine: str) -> list[Row]:
    """What a batch costs as accounts are stored."""
    found = {}
    async with open_database(engine, ACCOUNTS[0]) as (database, _, ids):
        stored = len(ids)
        for wanted in ACCOUNTS:
            await write_accounts(database, MONTH, wanted - stored, first=stored)
            stored = wanted
            found[wanted] = (await alternate(take=lambda: take(database)))["take"]
    return [
        Row(
            f"{engine}, a batch with {size:,} accounts stored",
            f"{seconds / found[ACCOUNTS[0]]:.2f} × with {ACCOUNTS[0]:,}",
        )
        for size, seconds in found.items()
    ]


async def grow_history(engine: str) -> list[Row]:
    """What a batch costs as events are stored."""
    found, stored = {}, 0
    async with open_database(engine, 1_000) as (database, _, ids):
        for wanted in HISTORY:
            await store_events(database, ids, wanted - stored, first=stored)
            stored = wanted
            found[wanted] = (await alternate(take=lambda: take(database)))["take"]
    return [
        Row(
            f"{engine}, a batch with {size:,} events stored", f"{seconds / found[HISTORY[0]]:.2f} × with {HISTORY[0]:,}"
        )
        for size, seconds in found.items()
    ]


async def store_events(database: Database, ids: list[UUID], events: int, first: int) -> None:
    """Events of the accounts, written plainly: what was taken long ago."""
    for start in range(first, first + events, 10_000):
        places = range(start, min(start + 10_000, first + events))
        async with database.work(ACTOR) as work:
            await work.insert_many(
                UsageEventId,
                ID_COLUMNS,
                [(ids[place % len(ids)], f"old-{place}", "0" * 32, MONTH.start) for place in places],
            )
            await work.insert_many(
                UsageEvent,
                EVENT_COLUMNS,
                [
                    (
                        new_id(),
                        ids[place % len(ids)],
                        f"old-{place}",
                        "email_sends",
                        1,
                        None,
                        1,
                        NOW - timedelta(seconds=place % 800_000),
                        MONTH.start,
                        MONTH.start,
                        "main",
                        {},
                        "api_key:old",
                    )
                    for place in places
                ],
            )
    if not database.is_sqlite:
        # Now, and not beside what is measured.
        async with database.engine.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))


async def run(tell: Tell) -> None:
    """Measure all of it."""
    parts: list[Callable[[], Awaitable[list[Row]]]] = [
        compare_on_postgres,
        compare_on_sqlite,
        *(
            partial(part, engine)
            for engine in ("SQLite", "PostgreSQL")
            for part in (grow_batches, grow_accounts, grow_history)
        ),
    ]
    for part in parts:
        try:
            found = await part()
        except psycopg.OperationalError as error:
            found = [Row("PostgreSQL", f"not measured: none answers at {POSTGRES}: {error}".strip())]
        for row in found:
            tell(row)
