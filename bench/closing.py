"""Measures the engine: how fast workers close what is due at once, and how fast a year passes on a test clock."""

import asyncio
import multiprocessing
import os
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
from sqlalchemy import func, insert, make_url, select

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.clock import SetClock, SystemClock
from plafond.database import Database
from plafond.migrations import migrate_database
from plafond.models import WORK_RANK, BillingAccount, DueWork, Invoice, WorkKind
from plafond.models.types import new_id
from plafond.sandbox.scenarios import create_scenario
from plafond.sandbox.seeds import SEEDER
from plafond.services.duties import do_due
from plafond.services.test_clocks import advance_clock
from plafond.services.tills import Till
from plafond.settings import Environment

from .accounts import ACTOR, BATCH, Month, open_catalogue, write_accounts
from .results import Row, Tell

POSTGRES = os.environ.get("PLAFOND_TEST_POSTGRES_URL", "postgresql://127.0.0.1:5432/test")
ACCOUNTS = int(os.environ.get("BENCH_ACCOUNTS", "10000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


MONTH = Month(NOW - timedelta(days=30, hours=1.5), NOW - timedelta(hours=1.5))
"""A month that ended an hour and a half ago."""


async def fill(database: Database, accounts: int) -> None:
    """Accounts that are all due at once: only their closing is measured."""
    await open_catalogue(database)
    ids = await write_accounts(database, MONTH, accounts)
    for first in range(0, accounts, BATCH):
        async with database.work(ACTOR) as work:
            rows = [
                {
                    "id": new_id(),
                    "account_id": id_,
                    "kind": WorkKind.CLOSE_PERIOD,
                    "subject": MONTH.start.isoformat(),
                    "due_at": MONTH.end,
                    "rank": WORK_RANK[WorkKind.CLOSE_PERIOD],
                    "tries": 0,
                    "failures": 0,
                    "created_at": MONTH.start,
                    "updated_at": MONTH.start,
                }
                for id_ in ids[first : first + BATCH]
            ]
            await work.session.execute(insert(DueWork), rows)


def work_for(address: str, seconds: float) -> None:
    """One worker process, for a while."""

    async def run() -> None:
        database = Database(address, SetClock(NOW), lambda _: None)
        till = Till(database, SandboxProcessor(database), ACTOR)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until and await do_due(till):
            pass
        await database.close()

    asyncio.run(run())


async def count_closed(address: str) -> int:
    """How many periods are closed, with the draft of their invoice."""
    database = Database(address, SystemClock(), lambda _: None)
    async with database.read() as session:
        found = await session.scalar(select(func.count()).select_from(Invoice))
    await database.close()
    return found or 0


async def measure_workers(address: str, workers: int) -> float:
    """Periods per second that so many workers close, out of all that is due at once."""
    before = await count_closed(address)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work_for, args=(address, SECONDS)) for _ in range(workers)]
    started = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join)
    return (await count_closed(address) - before) / (time.perf_counter() - started)


async def run(tell: Tell) -> None:
    """What one and two workers close of all that is due at once, and how long a year takes."""
    name = f"plafond_bench_{uuid4().hex[:12]}"
    try:
        with psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5) as connection:
            connection.execute(f"CREATE DATABASE {name}")
    except psycopg.OperationalError as error:
        tell(Row("PostgreSQL", f"not measured: none answers at {POSTGRES}: {error}".strip()))
        return
    address = make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    try:
        await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
        database = Database(address, SetClock(NOW - timedelta(days=31)), lambda _: None)
        await fill(database, ACCOUNTS)
        await database.close()
        one = 0.0
        for workers in (1, 2):
            speed = await measure_workers(address, workers)
            one = one or speed
            what = f"PostgreSQL, {ACCOUNTS:,} accounts due, workers: {workers}"
            tell(Row(what, f"{speed:.1f} periods/s: {speed / one:.2f} × one worker"))
        tell(Row("A year of one account on a test clock", f"{await measure_year(address):.1f} s"))
    finally:
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def measure_year(address: str) -> float:
    """How many seconds it takes to advance one account by a year."""
    database = Database(address, SetClock(NOW), lambda _: None)
    till = Till(database, SandboxProcessor(database), ACTOR)
    account = await create_scenario(till, SEEDER, "at-95-percent", NOW)
    async with database.read() as session:
        row = await session.get_one(BillingAccount, account.id)
    started = time.perf_counter()
    await advance_clock(till, row.test_clock_id, NOW + timedelta(days=365))
    elapsed = time.perf_counter() - started
    await database.close()
    return elapsed
