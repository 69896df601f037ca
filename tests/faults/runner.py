"""Real processes of `plafond` that are killed, paused and started again, until all that is due is done.

They are forked from one process that has loaded the code, so that a round of killing costs what it does, not what
Python's start does. A test starts them through `Processes`, which ends them by their ids, whatever happened.
"""

import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

import anyio
from sqlalchemy import or_, select, text, update

from plafond import cli, worker
from plafond.clock import SystemClock
from plafond.database import Actor, Database
from plafond.models import DueWork
from plafond.services.due_work import APART
from plafond.serving import bind_port

RUNNER = Actor(name="system:fault_runner", origin="test")
BOUND_S = 120
POLL_S = 0.02
SEED = os.environ.get("PLAFOND_TEST_SEED") or secrets.token_hex(4)
"""Of the blind kills. A failure prints it; given again, the kills come at the same times."""
ROUNDS = int(os.environ.get("PLAFOND_FAULT_ROUNDS", "10"))

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["__main__", f"{__package__}.preload"])


def run_command(arguments: list[str], settings: dict[str, str], log: str, *, draws: bool) -> None:
    """What a started process does: `plafond …`, with these settings and no others."""
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    for name in [name for name in os.environ if name.startswith("PLAFOND_")]:
        del os.environ[name]
    os.environ |= {f"PLAFOND_{name.upper()}": value for name, value in settings.items()}
    sys.argv = ["plafond", *arguments]
    with nullcontext() if draws else patch.object(worker, "run_drawing", _rest):
        cli.main()


async def _rest(*_: object) -> None:
    pass


class Processes:
    """The processes of one test, on its database. All of them end with it."""

    def __init__(self, address: str, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.address = address
        self._settings = settings or {}
        self._folder = folder
        self._all: list[ForkServerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._all:
            if process.is_alive():
                process.kill()
        for process in self._all:
            process.join(BOUND_S)
            if error is not None:
                print(f"--- process {process.pid} ended with {process.exitcode}:\n{self.log_of(process)[-4_000:]}")

    def start_worker(
        self, fault: str | None = None, *, draws: bool = False, settings: dict[str, str] | None = None
    ) -> ForkServerProcess:
        """`plafond worker`. Without drawing, which takes longer than all else, unless a test is about it."""
        given = (settings or {}) | ({} if fault is None else {"fault": fault})
        return self._start(["worker"], given, draws=draws)

    async def start_server(
        self,
        fault: str | None = None,
        *,
        with_worker: bool = True,
        draws: bool = False,
        settings: dict[str, str] | None = None,
        workers: int = 1,
    ) -> tuple[ForkServerProcess, int]:
        """`plafond serve` on a free port of this machine only, once it answers."""
        with bind_port("127.0.0.1", 0) as listener:
            port: int = listener.getsockname()[1]
        given = {"port": str(port), **(settings or {})} | ({} if fault is None else {"fault": fault})
        arguments = ["serve", "--workers", str(workers), *([] if with_worker else ["--no-worker"])]
        process = self._start(arguments, given, draws=draws)
        await until(lambda: answers(port))
        return process, port

    def _start(self, arguments: list[str], settings: dict[str, str], *, draws: bool) -> ForkServerProcess:
        log = self._folder / f"process-{len(self._all)}.log"
        mails = str(self._folder / "mail")
        settings = {"database_url": self.address, "mail_folder": mails, **self._settings, **settings}
        process = _forks.Process(target=run_command, args=(arguments, settings, str(log)), kwargs={"draws": draws})
        process.start()
        self._all.append(process)
        return process

    def log_of(self, process: ForkServerProcess) -> str:
        """What a process wrote."""
        log = self._folder / f"process-{self._all.index(process)}.log"
        return log.read_text("utf-8", "replace") if log.exists() else ""

    def count_alive(self) -> int:
        """How many have not ended."""
        return sum(process.is_alive() for process in self._all)

    async def see_end(self, process: ForkServerProcess) -> None:
        """Wait until a process was killed, by its own fault point or by us."""
        await until(lambda: _is_over(process))
        assert process.exitcode == -signal.SIGKILL, self.log_of(process)

    async def kill(self, process: ForkServerProcess) -> None:
        """kill -9, and nothing less."""
        process.kill()
        await self.see_end(process)


async def _is_over(process: ForkServerProcess) -> bool:
    return not process.is_alive()


async def is_paused(process: ForkServerProcess) -> bool:
    """Whether a process stands still."""
    return state_of(process.pid or 0).startswith("T")


def state_of(pid: int) -> str:
    """A process's state as `ps` shows it; nothing where it is gone."""
    return subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, timeout=BOUND_S, check=False
    ).stdout.strip()


def children_of(pid: int) -> list[int]:
    """The processes that a process started, by their ids."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=BOUND_S, check=True
    )
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(child) for child, parent in pairs if int(parent) == pid]


async def answers(port: int) -> bool:
    """Whether a server says that it is ready."""
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return b" 200 " in await stream.receive()
    except (OSError, anyio.EndOfStream):
        return False


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = BOUND_S) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < ends, f"it did not come to be in {seconds} s"
        await anyio.sleep(POLL_S)


def open_database(address: str) -> Database:
    """The database on the wall clock, as the processes see it."""
    return Database(address, SystemClock(), lambda _: None)


async def expire_leases(database: Database) -> None:
    """As if a minute had passed: who died holds nothing any more, and who lives has lost what it holds.

    Neither is counted as lost: what is killed again and again within seconds would be given up for it.
    """
    async with database.work(RUNNER) as work:
        await work.session.execute(
            update(DueWork)
            .where(DueWork.done_at.is_(None), DueWork.leased_until.is_not(None))
            .values(leased_until=None)
        )


async def pass_a_minute(database: Database) -> None:
    """The same, and what a flow had a minute for is due: the worker looks after what the flow left."""
    await pass_time(database, timedelta(seconds=60))


async def pass_time(database: Database, span: timedelta) -> None:
    """As if time had passed for all that is due by then. What somebody is writing at this moment is passed over.

    Nothing of it is counted as lost, for the reason above.
    """
    async with database.work(RUNNER) as work:
        now = work.clock.now()
        rows = await work.session.execute(
            select(DueWork.id, DueWork.due_at)
            .where(
                DueWork.done_at.is_(None),
                or_(DueWork.leased_until.is_not(None), DueWork.due_at > now),
                DueWork.due_at <= now + span + timedelta(seconds=1),
            )
            .with_for_update(skip_locked=True)
        )
        for work_id, due_at in rows.all():
            await work.session.execute(
                update(DueWork)
                .where(DueWork.id == work_id, DueWork.done_at.is_(None))
                .values(due_at=min(due_at, max(due_at - span, now)), leased_until=None)
            )


async def is_quiet(database: Database, *, drawing: bool = False) -> bool:
    """Whether nothing that is due is left; documents count where they are drawn. What was given up fails at once."""
    async with database.read() as session:
        open_ = (
            await session.scalars(
                select(DueWork).where(DueWork.done_at.is_(None), DueWork.due_at <= database.clock.now())
            )
        ).all()
    waiting = [row for row in open_ if drawing or row.kind not in APART]
    assert [(row.kind, row.failure) for row in waiting if row.parked_at is not None] == []
    return not waiting


async def wait_until_quiet(database: Database, *, drawing: bool = False) -> None:
    """Wait until the processes have done all that is due."""
    await until(lambda: is_quiet(database, drawing=drawing))


async def check_file(database: Database) -> None:
    """SQLite's own check of its file, after kills in the middle of writing."""
    if database.is_sqlite:
        async with database.read() as session:
            assert await session.scalar(text("PRAGMA integrity_check")) == "ok"
