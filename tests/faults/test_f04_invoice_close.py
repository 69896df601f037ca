"""F4: whoever closes, numbers and charges is killed in the middle of it; the numbers stay gapless, each period once."""

import asyncio
import os
import random
import secrets
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from plafond import faults
from plafond.clock import SetClock
from plafond.database import POOL_SIZE, Database
from plafond.migrations import migrate_database
from plafond.models import CollectionMethod, Interval, Invoice
from plafond.services.auditing import audit
from plafond.services.changing import make_change
from plafond.services.closing import load_standing
from plafond.services.decisions import Priced, decide_start
from plafond.services.tills import Till
from plafond.settings import Environment

from ..conftest import _address, _create_postgres, _drop_postgres
from ..services.engine import apply_sandbox_catalogue, open_account, open_till
from .conftest import CopyDue, Due, DueTemplate, check_books
from .runner import Processes, expire_leases, is_quiet, open_database, wait_until_quiet

POINTS = [point for point in faults.POINTS if point.startswith(("work.", "close.", "invoice.", "charge."))]
QUICK = ("invoice.after_number", 2)
CASES = [(point, nth) for point in POINTS for nth in (1, 2) if (point, nth) != ("work.claimed", 2)]
"""Where, and at the how-manieth time. The first round takes the first work of all accounts at once."""
SEED = os.environ.get("PLAFOND_TEST_SEED") or secrets.token_hex(4)
"""Of the blind kills. A failure prints it; given again, the kills come at the same times."""


@pytest.mark.parametrize(
    ("point", "nth"), [case if case == QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
async def test_a_worker_is_killed_at_a_point(
    due: Due, database: Database, tmp_path: Path, point: str, nth: int
) -> None:
    with Processes(due.address, tmp_path) as processes:
        await processes.see_end(processes.start_worker(f"{point}:kill:{nth}"))
        assert not await is_quiet(database)
        await expire_leases(database)
        processes.start_worker()
        processes.start_worker()
        await wait_until_quiet(database)
        await check_books(database, due)


async def kill_blindly(due: Due, folder: Path, chance: random.Random, rounds: int) -> int:
    """Kill one of two workers at random times, until that many were killed or nothing is left to do."""
    database = open_database(due.address)
    killed = 0
    try:
        with Processes(due.address, folder) as processes:
            running = [processes.start_worker(), processes.start_worker()]
            while killed < rounds and not await is_quiet(database):
                await asyncio.sleep(chance.uniform(0, 0.8))
                victim = chance.randrange(len(running))
                await processes.kill(running[victim])
                killed += 1
                await expire_leases(database)
                running[victim] = processes.start_worker()
            await wait_until_quiet(database)
        await check_books(database, due)
    finally:
        await database.close()
    return killed


async def test_workers_are_killed_blindly(due: Due, tmp_path: Path) -> None:
    print(f"PLAFOND_TEST_SEED={SEED}")
    await kill_blindly(due, tmp_path, random.Random(SEED), 3)  # noqa: S311  # not a secret


@pytest.mark.slow
async def test_workers_are_killed_blindly_two_hundred_times(
    copy_due: CopyDue, much_due: DueTemplate, tmp_path: Path
) -> None:
    print(f"PLAFOND_TEST_SEED={SEED}")
    chance = random.Random(SEED)  # noqa: S311  # not a secret
    left = 200
    while left > 0:
        folder = tmp_path / str(left)
        folder.mkdir()
        killed = await kill_blindly(copy_due(much_due), folder, chance, left)
        assert killed, "there was much to do"
        left -= killed


@pytest.mark.slow
async def test_three_months_are_caught_up_by_two_workers(long_due: Due, tmp_path: Path) -> None:
    """Hard case 29: after an outage, three invoices in order, each once."""
    database = open_database(long_due.address)
    try:
        with Processes(long_due.address, tmp_path) as processes:
            processes.start_worker()
            processes.start_worker()
            await wait_until_quiet(database)
            await check_books(database, long_due)
    finally:
        await database.close()


class RolledBack(Exception):
    """A transaction that was to end so."""


@pytest.mark.parametrize(
    ("at_once", "failing"), [(10, 3), pytest.param(100, 30, marks=pytest.mark.slow)], ids=["10", "100"]
)
async def test_hard_case_26_numbers_are_gapless(engine: str, tmp_path: Path, at_once: int, failing: int) -> None:
    """So many invoices are issued at once, and some of the transactions roll back after their number was taken."""
    name = str(tmp_path / "numbers.db") if engine == "sqlite" else f"plafond_numbers_{secrets.token_hex(6)}"
    if engine == "postgresql":
        _create_postgres(name)
    try:
        await _issue_at_once(_address(engine, name), at_once, failing)
    finally:
        if engine == "postgresql":
            _drop_postgres(name)


async def _issue_at_once(address: str, at_once: int, failing: int) -> None:
    await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
    database = Database(address, SetClock(datetime.now(UTC)), lambda _: None)
    try:
        till = open_till(database)
        await apply_sandbox_catalogue(till)
        ids = [
            await open_account(till, f"payer-{n}", None, card=None, collection=CollectionMethod.SEND_INVOICE)
            for n in range(at_once)
        ]
        # Each connection has one in line behind it; more would only wait for a connection, and that has a limit.
        in_line = asyncio.Semaphore(2 * POOL_SIZE)

        async def start(account_id: UUID, *, fails: bool) -> None:
            async with in_line:
                await _start(till, account_id, fails=fails)

        results = await asyncio.gather(
            *(start(account_id, fails=n < failing) for n, account_id in enumerate(ids)), return_exceptions=True
        )
        assert sum(isinstance(result, RolledBack) for result in results) == failing
        assert [result for result in results if not isinstance(result, RolledBack | None)] == []
        async with database.read() as session:
            numbers = (await session.scalars(select(Invoice.number).order_by(Invoice.number))).all()
            assert await audit(session, database.clock.now()) == []
        assert numbers == [f"INV-{n:06d}" for n in range(1, at_once - failing + 1)]
    finally:
        await database.close()


async def _start(till: Till, account_id: UUID, *, fails: bool) -> None:
    async with till.work() as work:
        standing = await load_standing(work, (await work.lock_accounts([account_id]))[account_id])
        priced = await decide_start(work, standing, "starter", Interval.MONTH)
        assert isinstance(priced, Priced)
        issued = await make_change(
            work, standing, priced.act, priced.target, priced.bill, priced.at, cause="order:at once", reason=""
        )
        assert issued.invoice is not None
        assert issued.invoice.number is not None
        if fails:
            raise RolledBack
