"""F13: what is written fails, for a disk is full, broken or read-only: it is refused, all else goes on and heals."""

import asyncio
import os
import random
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from plafond.database import AWAY, Work
from plafond.schema.node import encode_id

from .fire import Battlefield, copy_of
from .runner import RUNNER, answers, open_database
from .senders import RECORD, Run, all_listen, email, make_batches, run_senders
from .test_f06_database import cut_connections

READ = "query ($id: ID!) { node(id: $id) { ... on BillingAccount { usage { used metric { key } } } } }"
MOUNTED_BYTES = 24 * 1024 * 1024
REFUSALS = 3


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """A mount for as long as the block runs. Skips where this user may make none."""
    at.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, timeout=30, check=False)
    if made.returncode:
        pytest.skip(f"mounting takes a right that is missing here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], timeout=30, check=True)


async def _ask(run: Run, query: str, **variables: Any) -> dict[str, Any]:
    front = run.fight.front
    response = await front.http.post(
        f"http://127.0.0.1:{front.port}/graphql",
        json={"query": query, "variables": variables},
        headers={"Authorization": f"Bearer {front.token}"},
    )
    answer: dict[str, Any] = response.json()
    return answer


async def _read_usage(run: Run) -> Any:
    found = [await _ask(run, READ, id=encode_id("BillingAccount", account_id)) for account_id in run.account_ids]
    assert all("errors" not in answer for answer in found), found
    return found


async def _begin(run: Run) -> None:
    """Something was sent before."""
    await all_listen(run)
    run.send(make_batches(random.Random(1), run.account_ids, ids=8, size=6, name="before"), senders=2)  # noqa: S311
    await asyncio.gather(*run.senders)


async def _see_refusals(run: Run) -> None:
    """What is written is refused, each time, with a clear code; what reads goes on, and shows what was there."""
    before = await _read_usage(run)
    for number in range(REFUSALS):
        lost = email(run.account_ids[0], f"lost-{number}", 1)
        refused = await _ask(run, RECORD, events=[lost], key=None)
        assert [error["extensions"]["code"] for error in refused["errors"]] == ["UNAVAILABLE"], refused
        assert "cannot be written" in refused["errors"][0]["message"]
        assert await _read_usage(run) == before
        assert await answers(run.fight.front.port)
    # Others go on asking until it can be written again.
    batches = make_batches(random.Random(2), run.account_ids, ids=8, size=6, name="after")  # noqa: S311
    run.send(batches, senders=2)
    known = set(run.sent.events)
    await asyncio.wait(run.senders[-2:], timeout=0.3)
    assert run.sent.events == known


async def test_nothing_can_be_written(on_sqlite: Battlefield, tmp_path: Path) -> None:
    """The system refuses each write of the server's, its log's too, and then no more."""
    async with run_senders(on_sqlite, tmp_path) as run:
        server = await run.fight.serve()
        await _begin(run)
        assert server.pid is not None
        before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        await _see_refusals(run)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


async def test_the_disk_is_full(on_sqlite: Battlefield, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted("-t", "tmpfs", "-o", f"size={MOUNTED_BYTES}", "plafond", at=disk):
        async with run_senders(on_sqlite, disk) as run:
            await run.fight.serve()
            await _begin(run)
            ballast = disk / "ballast"
            _fill(ballast)
            await _see_refusals(run)
            ballast.unlink()


def _fill(file: Path) -> None:
    """Take all that is left of a disk."""
    with file.open("wb", buffering=0) as ballast:
        for size in (64 * 1024, 1):
            try:
                while os.write(ballast.fileno(), bytes(size)):
                    pass
            except OSError:
                continue


async def test_what_was_opened_while_it_could_only_be_read_is_let_go(on_sqlite: Battlefield, tmp_path: Path) -> None:
    """Such a connection would stay so. There are others: the system lets nobody begin a journal that only reads."""
    disk, view = tmp_path / "disk", tmp_path / "view"
    disk.mkdir()
    with (
        mounted("--bind", str(disk), at=view),
        copy_of(on_sqlite, disk) as field_,
        closing(sqlite3.connect(disk / "round.db")) as other,
    ):
        assert other.execute("SELECT count(*) FROM billing_account").fetchone() != (0,)
        _remount(view, "ro")
        database = open_database(field_.address.replace(str(disk), str(view)))

        async def touch(work: Work) -> None:
            (account,) = (await work.lock_accounts([field_.parties[0].account_id])).values()
            work.audit(account, "account.touched", f"billing_account:{account.id}")

        with pytest.raises(AWAY, match="attempt to write a readonly database"):
            await database.run(RUNNER, touch)
        async with database.read() as session:
            assert await session.scalar(text("PRAGMA integrity_check")) == "ok"
        _remount(view, "rw")
        with pytest.raises(AWAY, match="attempt to write a readonly database"):
            await database.run(RUNNER, touch)  # by the one that read just now
        await database.run(RUNNER, touch)
        await database.close()


def _remount(at: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,bind,{mode}", str(at)], timeout=30, check=True)


async def test_the_database_can_only_be_read(on_postgresql: Battlefield, tmp_path: Path) -> None:
    """As after it failed over to one that only follows; nobody restarts the server when it can be written again."""
    async with run_senders(on_postgresql, tmp_path) as run:
        await run.fight.serve(with_worker=False)
        await _begin(run)
        _make_read_only(run.fight.field.address, read_only=True)
        await cut_connections(run.fight.field.address)
        await run.database.engine.dispose()
        await _see_refusals(run)
        _make_read_only(run.fight.field.address, read_only=False)
        await run.finish()


def _make_read_only(address: str, *, read_only: bool) -> None:
    base, _, name = address.rpartition("/")
    change = "SET default_transaction_read_only = on" if read_only else "RESET default_transaction_read_only"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ").format(sql.Identifier(name)) + sql.SQL(change))
