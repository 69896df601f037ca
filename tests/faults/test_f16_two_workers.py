"""F16: two workers on the same work, leases that run out in the middle of it, a worker that wakes too late."""

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from plafond.database import Database, Work
from plafond.models import BillingAccount, DueWork, WorkKind
from plafond.services.due_work import LEASE, Fenced
from plafond.services.duties import DUTIES, perform, try_to_perform

from .conftest import Due, check_books
from .fire import Battlefield, Kind, fight
from .nodes import open_nodes, with_slow_processor
from .runner import Processes, expire_leases, is_paused, open_database, until, wait_until_quiet

NOW = timedelta(0)
KINDS = [
    WorkKind.CLOSE_PERIOD,
    pytest.param(WorkKind.FINALISE_INVOICE, marks=pytest.mark.slow),
    pytest.param(WorkKind.CHARGE, marks=pytest.mark.slow),
]


async def test_at_the_claim_each_gets_other_work(due: Due) -> None:
    """Both are within their claim at once, where the database lets them."""
    async with open_nodes(due, NOW, NOW) as nodes:
        taken = await asyncio.gather(*(node.take(2) for node in nodes))
        assert [len(each) for each in taken] == [2, 2]
        assert len({piece.id for each in taken for piece in each}) == len(due.blocks)
        assert [await node.take() for node in nodes] == [[], []]


@pytest.mark.parametrize("kind", KINDS)
async def test_hard_case_28_who_comes_back_after_its_lease_writes_nothing(due: Due, kind: WorkKind) -> None:
    """The same period, invoice or charge is taken over and done; then the first one goes on with it."""
    async with open_nodes(due, NOW, NOW) as [late, other]:
        taken = await late.take_next(kind)
        other.clock.stands_at += LEASE
        await other.run()
        with pytest.raises(Fenced):
            await perform(late.till, taken)
        await check_books(late.database, due)


@pytest.mark.parametrize("kind", KINDS)
async def test_both_write_at_once_and_one_is_refused(due: Due, kind: WorkKind) -> None:
    async with open_nodes(due, NOW, LEASE) as [late, other]:
        first = await late.take_next(kind)
        second = await other.take_next(kind)
        assert (first.id, first.tries + 1) == (second.id, second.tries)
        results = await asyncio.gather(perform(late.till, first), perform(other.till, second), return_exceptions=True)
        assert isinstance(results[0], Fenced)
        assert results[1] is None
        await other.run()
        await check_books(late.database, due)


async def test_a_lease_runs_out_while_the_processor_is_asked(due: Due, caplog: pytest.LogCaptureFixture) -> None:
    async with open_nodes(due, NOW, NOW) as [late, other]:
        asked, answered = asyncio.Event(), asyncio.Event()
        slow = with_slow_processor(late, asked, answered)
        taken = await late.take_next(WorkKind.CHARGE)
        charging = asyncio.create_task(try_to_perform(slow, taken))
        await asked.wait()
        other.clock.stands_at += LEASE
        await other.run()
        answered.set()
        assert await charging
        assert "taken over by another worker" in caplog.text
        await check_books(late.database, due)


async def test_a_lease_runs_out_within_the_transaction(due: Due, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes already holds the row: nobody takes it over, and nobody does it again."""
    closing, go_on = asyncio.Event(), asyncio.Event()
    close = DUTIES[WorkKind.CLOSE_PERIOD]

    async def close_slowly(work: Work, account: BillingAccount, subject: str) -> None:
        await close(work, account, subject)
        closing.set()
        await go_on.wait()

    async with open_nodes(due, NOW, LEASE) as [late, other]:
        taken = await late.take_next(WorkKind.CLOSE_PERIOD)
        monkeypatch.setitem(DUTIES, WorkKind.CLOSE_PERIOD, close_slowly)
        held = asyncio.create_task(try_to_perform(late.till, taken))
        await closing.wait()
        monkeypatch.setitem(DUTIES, WorkKind.CLOSE_PERIOD, close)
        meanwhile = asyncio.create_task(other.run())
        # SQLite has one writer, so there the other waits for this one.
        await asyncio.wait({meanwhile}, timeout=0.2 if late.database.is_sqlite else 30)
        go_on.set()
        assert await held
        await meanwhile
        await other.run()
        async with late.database.read() as session:
            assert await session.scalar(select(DueWork.tries).where(DueWork.id == taken.id)) == taken.tries
        await check_books(late.database, due)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["work.claimed", "charge.before_call", "charge.after_call"])
async def test_a_paused_process_wakes_after_its_lease(due: Due, database: Database, tmp_path: Path, point: str) -> None:
    await _wake_too_late(due, database, tmp_path, point)


async def _wake_too_late(due: Due, database: Database, folder: Path, point: str) -> None:
    """SIGSTOP past the lease, and SIGCONT when another process has done it all."""
    with Processes(due.address, folder) as processes:
        paused = processes.start_worker(f"{point}:stop")
        await until(lambda: is_paused(paused))
        await expire_leases(database)
        processes.start_worker()
        await wait_until_quiet(database)
        os.kill(paused.pid or 0, signal.SIGCONT)

        async def is_refused() -> bool:
            return "taken over by another worker" in processes.log_of(paused)

        await until(is_refused)
        assert paused.is_alive()
        await check_books(database, due)


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        (Kind.DUNNED, "charge.before_call"),
        *(
            pytest.param(kind, point, marks=pytest.mark.slow)
            for kind in (Kind.DUNNED, Kind.INSOLVENT)
            for point in ("work.claimed", "charge.before_call", "charge.after_call", "charge.after_commit")
            if (kind, point) != (Kind.DUNNED, "charge.before_call")
        ),
    ],
)
async def test_a_worker_paused_on_a_day_of_dunning_wakes_after_its_lease(
    battlefield: Battlefield, tmp_path: Path, kind: Kind, point: str
) -> None:
    """Another does the same try meanwhile: one charge for that day, and its end is told once."""
    async with fight(battlefield, tmp_path, kind) as fought:
        paused = fought.processes.start_worker(f"{point}:stop")
        await until(lambda: is_paused(paused))
        await expire_leases(fought.database)
        fought.processes.start_worker()
        await fought.finish()
        os.kill(paused.pid or 0, signal.SIGCONT)

        async def is_refused() -> bool:
            return "taken over by another worker" in fought.processes.log_of(paused)

        await until(is_refused)
        assert paused.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.DUNNED, Kind.INSOLVENT])
async def test_two_workers_share_a_day_of_dunning(battlefield: Battlefield, tmp_path: Path, kind: Kind) -> None:
    """Whatever the one holds the other takes over at once, again and again."""
    async with fight(battlefield, tmp_path, kind) as fought:
        for _ in range(3):
            fought.processes.start_worker()
        for _ in range(20):
            await expire_leases(fought.database)
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["close.after_period", "invoice.after_number"])
async def test_a_process_paused_within_a_transaction_goes_on_with_it(
    due: Due, database: Database, tmp_path: Path, point: str
) -> None:
    """It holds its rows, on SQLite the whole file: others wait, and nothing is done twice."""
    with Processes(due.address, tmp_path) as processes:
        paused = processes.start_worker(f"{point}:stop")
        await until(lambda: is_paused(paused))
        other = processes.start_worker()
        os.kill(paused.pid or 0, signal.SIGCONT)
        await wait_until_quiet(database)
        assert paused.is_alive()
        assert other.is_alive()
        await check_books(database, due)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["close.after_period", "invoice.after_number"])
async def test_a_process_frozen_within_a_transaction_holds_nobody_up(
    due: Due, database: Database, tmp_path: Path, point: str
) -> None:
    """PostgreSQL ends its connection after a while, and another does its work; when it wakes, it works on."""
    if database.is_sqlite:
        pytest.skip("who holds the file of SQLite is on the same machine, and is seen there")
    await _wake_too_late(due, database, tmp_path, point)


@pytest.mark.slow
async def test_two_servers_and_two_workers_share_what_is_due(long_due: Due, tmp_path: Path) -> None:
    """Nobody is hurt, and everybody works: each effect once."""
    database = open_database(long_due.address)
    try:
        with Processes(long_due.address, tmp_path) as processes:
            processes.start_worker()
            processes.start_worker()
            await processes.start_server()
            await processes.start_server()
            await wait_until_quiet(database)
            await check_books(database, long_due)
    finally:
        await database.close()
