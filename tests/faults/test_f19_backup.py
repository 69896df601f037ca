"""F19: the server starts again from a backup that was taken while money moved.

The backup is one instant: all invariants hold in it, and what was under way is brought to its end. What the processor
did after it is unknown here, and the audit names it.
"""

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import delete, func, insert, select

from plafond.database import Database, take_snapshot
from plafond.models import (
    Base,
    SandboxCharge,
    SandboxDispute,
    SandboxMessage,
    SandboxRefund,
    Transaction,
)
from plafond.services.auditing import audit

from ..conftest import _address, _create_postgres, _drop_postgres
from .fire import Battlefield, Fight, fight
from .runner import RUNNER, check_file, open_database, until

BOUND_S = 120
MEMORY_OF_THE_PROCESSOR: tuple[type[Base], ...] = (SandboxCharge, SandboxRefund, SandboxDispute, SandboxMessage)


async def back_up(address: str, copy: Path) -> None:
    """Take a backup, as somebody would who knows nothing of us, while the database is in use."""
    await asyncio.to_thread(_back_up, address, copy)


def _back_up(address: str, copy: Path) -> None:
    if address.startswith("sqlite"):
        with (
            closing(sqlite3.connect(address.removeprefix("sqlite:///"), timeout=BOUND_S)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return
    subprocess.run(["pg_dump", "--format=custom", f"--file={copy}", address], timeout=BOUND_S, check=True)


@asynccontextmanager
async def restored(engine: str, copy: Path) -> AsyncGenerator[str]:
    """A database made of a backup."""
    if engine == "sqlite":
        # Each of them is the backup's own file, which nobody else has open.
        place = copy.with_name(f"{uuid4().hex[:12]}.db")
        shutil.copyfile(copy, place)
        yield _address("sqlite", str(place))
        return
    name = f"plafond_restored_{uuid4().hex[:12]}"
    address = _create_postgres(name)
    try:
        await asyncio.to_thread(
            subprocess.run,
            ["pg_restore", "--exit-on-error", "--no-owner", f"--dbname={address}", str(copy)],
            timeout=BOUND_S,
            check=True,
        )
        yield address
    finally:
        _drop_postgres(name)


async def count_moves(database: Database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(Transaction)) or 0


async def find_faults(database: Database) -> list[str]:
    async with database.read() as session:
        await take_snapshot(session)
        return [f"{found.invariant} {found.what}" for found in await audit(session, database.clock.now())]


async def remember_as(database: Database, live: Database) -> set[str]:
    """Let the processor be where it is in reality. Gives the keys of what it did that is unknown here."""
    async with live.read() as session:
        memory = {
            table: [dict(row) for row in (await session.execute(select(table.__table__))).mappings()]
            for table in MEMORY_OF_THE_PROCESSOR
        }
        await session.rollback()
    async with database.work(RUNNER) as work:
        for table in reversed(MEMORY_OF_THE_PROCESSOR):
            await work.session.execute(delete(table))
        for table, rows in memory.items():
            if rows:
                await work.session.execute(insert(table), rows)
        known = set(await work.session.scalars(select(Transaction.processor_key)))
    return {row["key"] for table in (SandboxCharge, SandboxRefund) for row in memory[table]} - known


@pytest.mark.skipif(
    shutil.which("pg_dump") is None or shutil.which("pg_restore") is None, reason="PostgreSQL's tools are not here"
)
@pytest.mark.slow
async def test_a_backup_taken_while_money_moves(battlefield: Battlefield, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    async with fight(battlefield, tmp_path / "live") as live:
        before = await count_moves(live.database)
        await live.serve()
        live.processes.start_worker()
        live.begin()

        async def is_moving() -> bool:
            return await count_moves(live.database) > before + 2

        await until(is_moving)
        await back_up(live.field.address, copy)
        assert not all(client.done() for client in live.clients), "it is taken in the middle"
        await live.finish()
        async with restored(battlefield.engine, copy) as address:
            await _check_newer(address, live)
    # Where the processor lost the same hours, clients ask again, under their keys, and all comes to its end.
    async with (
        restored(battlefield.engine, copy) as address,
        fight(replace(battlefield, address=address), tmp_path / "again") as again,
    ):
        await again.serve()
        again.processes.start_worker()
        again.begin()


async def _check_newer(address: str, live: Fight) -> None:
    database = open_database(address)
    try:
        await check_file(database)
        assert await find_faults(database) == [], "the backup is one instant"
        newer = await remember_as(database, live.database)
        assert newer, "something was done after it"
        found = await find_faults(database)
        for key in newer:
            assert any(key in fault for fault in found), (key, found)
        assert {fault.partition(" ")[0] for fault in found} == {"I3"}, "and nothing else is wrong"
    finally:
        await database.close()
