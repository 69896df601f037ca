"""Measures the engine: how fast workers close what is due at once, and how fast a year passes on a test clock."""

import asyncio
import multiprocessing
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
from sqlalchemy import func, insert, make_url, select

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.clock import SetClock, SystemClock
from plafond.database import Actor, Database
from plafond.migrations import migrate_database
from plafond.models import (
    WORK_RANK,
    BillingAccount,
    Company,
    DueWork,
    Interval,
    Invoice,
    Issuer,
    PaymentMethod,
    PaymentMethodKind,
    Plan,
    PlanVersion,
    Subscription,
    SubscriptionStatus,
    UsagePeriod,
    WorkKind,
)
from plafond.models.types import new_id
from plafond.sandbox.scenarios import create_scenario
from plafond.sandbox.seeds import SEEDER, apply_sandbox_catalogue
from plafond.services.duties import do_due
from plafond.services.test_clocks import advance_clock
from plafond.services.tills import Till
from plafond.settings import Environment

ACTOR = Actor(name="system:bench", origin="bench")
POSTGRES = os.environ.get("PLAFOND_TEST_POSTGRES_URL", "postgresql://127.0.0.1:5432/test")
ACCOUNTS = int(os.environ.get("BENCH_ACCOUNTS", "10000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Due:
    """What is written for each account: a month that ended an hour and a half ago."""

    start: datetime = NOW - timedelta(days=30, hours=1.5)
    end: datetime = NOW - timedelta(hours=1.5)


async def fill(database: Database, accounts: int) -> None:
    """Accounts on Starter, all due at once, written by the thousand: only their closing is measured."""
    due = Due()
    async with database.work(ACTOR) as work:
        await apply_sandbox_catalogue(work)
        issuer_id = (await work.session.scalars(select(Issuer.id))).one()
        version_id = (await work.session.scalars(select(PlanVersion.id).join(Plan).where(Plan.key == "starter"))).one()
    for first in range(0, accounts, 1_000):
        ids = [new_id() for _ in range(min(1_000, accounts - first))]
        async with database.work(ACTOR) as work:
            times = {"created_at": due.start, "updated_at": due.start}
            rows = {
                BillingAccount: [
                    {
                        "id": id_,
                        "issuer_id": issuer_id,
                        "external_id": f"bench-{first + place}",
                        "name": "Bench",
                        "currency": "USD",
                        "timezone": "UTC",
                        "locale": "en",
                        "pairs": {},
                        "collection_method": "AUTOMATIC",
                        "net_days": 30,
                        "credit_minor": 0,
                        "sequence": 0,
                        "kept_after_sequence": 0,
                        "audit_count": 0,
                        "audit_hash": "",
                        **times,
                    }
                    for place, id_ in enumerate(ids)
                ],
                Company: [
                    {
                        "id": new_id(),
                        "account_id": id_,
                        "legal_name": "Bench GmbH",
                        "country": "AT",
                        "address_lines": ["Gasse 1"],
                        "postal_code": "1010",
                        "city": "Wien",
                        "region": "",
                        "tax_ids": {},
                        **times,
                    }
                    for id_ in ids
                ],
                PaymentMethod: [
                    {
                        "id": new_id(),
                        "account_id": id_,
                        "kind": PaymentMethodKind.CARD,
                        "brand": "visa",
                        "last4": "4242",
                        "exp_month": 12,
                        "exp_year": 2040,
                        "is_default": True,
                        "processor_token": "pm_card_visa",
                        **times,
                    }
                    for id_ in ids
                ],
                Subscription: [
                    {
                        "id": new_id(),
                        "account_id": id_,
                        "plan_version_id": version_id,
                        "status": SubscriptionStatus.ACTIVE,
                        "interval": Interval.MONTH,
                        "price_minor": 4_900,
                        "anchor_wall": due.start.replace(tzinfo=None),
                        "zone": "UTC",
                        "current_period_start": due.start,
                        "current_period_end": due.end,
                        "usage_period_start": due.start,
                        "usage_period_end": due.end,
                        "usage_period_number": 0,
                        "version": 1,
                        "started_at": due.start,
                        "cancel_at_period_end": False,
                        **times,
                    }
                    for id_ in ids
                ],
                UsagePeriod: [{"account_id": id_, "start_at": due.start, "end_at": due.end} for id_ in ids],
                DueWork: [
                    {
                        "id": new_id(),
                        "account_id": id_,
                        "kind": WorkKind.CLOSE_PERIOD,
                        "subject": due.start.isoformat(),
                        "due_at": due.end,
                        "rank": WORK_RANK[WorkKind.CLOSE_PERIOD],
                        "tries": 0,
                        **times,
                    }
                    for id_ in ids
                ],
            }
            for table, values in rows.items():
                await work.session.execute(insert(table), values)


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


async def run() -> None:
    """Print what one and two workers close of all that is due at once, and how long a year takes."""
    name = f"plafond_bench_{uuid4().hex[:12]}"
    try:
        with psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5) as connection:
            connection.execute(f"CREATE DATABASE {name}")
    except psycopg.OperationalError as error:
        print(f"Closing is measured on PostgreSQL, and none answers at {POSTGRES}: {error}".strip())
        return
    address = make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    try:
        await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
        database = Database(address, SetClock(NOW - timedelta(days=31)), lambda _: None)
        await fill(database, ACCOUNTS)
        await database.close()
        print(f"{ACCOUNTS:,} accounts due at once on PostgreSQL, {SECONDS:.0f} s each")
        print(f"{'workers':>8} {'periods/s':>11} {'× one':>6}")
        one = 0.0
        for workers in (1, 2):
            speed = await measure_workers(address, workers)
            one = one or speed
            print(f"{workers:>8} {speed:>11.1f} {speed / one:>6.2f}")
        await measure_year(address)
    finally:
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def measure_year(address: str) -> None:
    """How long it takes to advance one account by a year."""
    database = Database(address, SetClock(NOW), lambda _: None)
    till = Till(database, SandboxProcessor(database), ACTOR)
    account = await create_scenario(till, SEEDER, "at-95-percent", NOW)
    async with database.read() as session:
        row = await session.get_one(BillingAccount, account.id)
    started = time.perf_counter()
    await advance_clock(till, row.test_clock_id, NOW + timedelta(days=365))
    print(f"A year of one account on a test clock: {time.perf_counter() - started:.1f} s")
    await database.close()
