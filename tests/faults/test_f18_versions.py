"""F18: an old version and a new one serve one database; a migration is killed in the middle.

The new version is this code with one migration more, which adds a column, in a folder of its own.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import create_engine, inspect, text

from plafond.database import driver_url, take_snapshot
from plafond.migrations import check_database, compare_database, migrate_database
from plafond.models import Role
from plafond.services.auditing import audit
from plafond.serving import bind_port
from plafond.settings import Environment

from ..conftest import Template, _address, _create_postgres, _drop_postgres
from .runner import Processes, answers, open_database, until

SRC = Path(__file__).resolve().parents[2] / "src"
BOUND_S = 120
MORE = """
from alembic import op
import sqlalchemy as sa

revision = "9999"
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Uuid(), primary_key=True))
    op.add_column("billing_account", sa.Column("nickname", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("billing_account", "nickname")
    op.drop_table("later")
"""
DYING = """
import os, signal, sys
from sqlalchemy import Engine, event
from plafond.migrations import migrate_database
from plafond.settings import Environment

left = int(sys.argv[2])

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, parameters, context, executemany):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

migrate_database(sys.argv[1], Environment.SANDBOX)
print("migrated")
"""
RECORD = "mutation ($input: RecordUsageInput!) { recordUsage(input: $input) { accepted duplicates } }"


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the new version lies."""
    folder = tmp_path_factory.mktemp("newer")
    shutil.copytree(SRC, folder / "plafond", ignore=shutil.ignore_patterns("__pycache__", "fonts"))
    versions = folder / "plafond" / "migrations" / "versions"
    texts = [path.read_text() for path in versions.glob("*.py")]
    revisions = {name for text in texts for name in re.findall(r'^revision = ["\'](.+)["\']$', text, re.MULTILINE)}
    below = {name for text in texts for name in re.findall(r'^down_revision = ["\'](.+)["\']$', text, re.MULTILINE)}
    [head] = revisions - below
    (versions / "9999_more.py").write_text(MORE.format(head=head))
    return folder


def environment_of(version: Path | None, **settings: str) -> dict[str, str]:
    """What a process of a version is started with; of this one without any."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("PLAFOND_")}
    given |= {f"PLAFOND_{name.upper()}": value for name, value in settings.items()}
    if version is not None:
        given["PYTHONPATH"] = str(version)
    return given


def run(version: Path | None, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of a version."""
    return subprocess.run(
        [sys.executable, "-c", "from plafond.cli import main; main()", *arguments],
        env=environment_of(version, **settings),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


@contextmanager
def serve(version: Path, address: str) -> Iterator[int]:
    """A server of a version. Gives its port."""
    with bind_port("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    command = [sys.executable, "-c", "from plafond.cli import main; main()", "serve", "--no-worker"]
    with subprocess.Popen(command, env=environment_of(version, database_url=address, port=str(port))) as process:
        try:
            yield port
        finally:
            process.kill()


class Client:
    """Asks a server until it answers."""

    def __init__(self, token: str) -> None:
        self.headers = {"Authorization": f"Bearer {token}", "Connection": "close"}

    async def ask(self, port: int, query: str, **given: object) -> dict[str, object]:
        """The data of the answer."""
        ends = time.monotonic() + BOUND_S
        while True:
            async with httpx2.AsyncClient(timeout=30, headers=self.headers) as http:
                response = await http.post(
                    f"http://127.0.0.1:{port}/graphql", json={"query": query, "variables": {"input": given}}
                )
            answer = response.json()
            if "errors" not in answer:
                found: dict[str, object] = answer["data"]
                return found
            # While tables are changed whoever writes may have to wait too long: it is told to come again.
            assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE", answer
            assert time.monotonic() < ends
            await asyncio.sleep(0.1)


def sends(event_id: str) -> dict[str, object]:
    return {"eventId": event_id, "metric": "email_sends", "externalId": "acme", "quantity": 1}


@pytest.mark.slow
async def test_old_and_new_serve_together(address: str, template: Template, tmp_path: Path, newer: Path) -> None:
    client = Client(next(item.token for item in template.tokens if item.role is Role.OPERATOR))
    with Processes(address, tmp_path) as processes:
        _, old = await processes.start_server(with_worker=False)
        is_over = asyncio.Event()

        async def keep_sending() -> int:
            number = 0
            while not is_over.is_set():
                found = await client.ask(old, RECORD, events=[sends(f"old-{number}")])
                assert found == {"recordUsage": {"accepted": 1, "duplicates": 0}}
                number += 1
            return number

        sending = asyncio.create_task(keep_sending())
        done = await asyncio.to_thread(run, newer, "migrate", database_url=address)
        assert (done.returncode, done.stderr) == (0, "")
        with serve(newer, address) as new:
            await until(lambda: answers(new))
            # The same key, asked of both: one effect, and one answer.
            found = await client.ask(old, RECORD, events=[sends("both")], idempotencyKey="one")
            assert await client.ask(new, RECORD, events=[sends("both")], idempotencyKey="one") == found
            assert await client.ask(new, RECORD, events=[sends("both"), sends("new")]) == {
                "recordUsage": {"accepted": 1, "duplicates": 1}
            }
            assert await client.ask(old, RECORD, events=[sends("new")]) == {
                "recordUsage": {"accepted": 0, "duplicates": 1}
            }
            is_over.set()
            assert await sending > 0
        # An old one goes on where it runs, but starts on nothing newer than it knows.
        assert await answers(old)
        done = await asyncio.to_thread(run, None, "serve", database_url=address, port="1")
        assert done.returncode == 1
        assert "newer than this code" in done.stderr
    database = open_database(address)
    try:
        # The books are as they were: what is due since the sandbox's day waits for a worker.
        async with database.read() as session:
            await take_snapshot(session)
            assert {found.invariant for found in await audit(session, database.clock.now())} <= {"I14"}
    finally:
        await database.close()


@pytest.fixture
def empty(engine: str, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if engine == "sqlite":
        yield _address("sqlite", str(tmp_path / "empty.db"))
        return
    name = f"plafond_empty_{uuid4().hex[:12]}"
    yield _create_postgres(name)
    _drop_postgres(name)


def tables_of(address: str) -> list[str]:
    engine = create_engine(driver_url(address, asynchronous=False))
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def die_migrating(address: str, statement: int, version: Path | None = None) -> bool:
    """Kill a migration before its nth statement. False where it has not so many."""
    done = subprocess.run(
        [sys.executable, "-c", DYING, address, str(statement)],
        env=environment_of(version),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("statement", [8, *(pytest.param(nth, marks=pytest.mark.slow) for nth in (60, 130))])
def test_a_first_migration_that_is_killed_leaves_nothing(empty: str, statement: int) -> None:
    assert die_migrating(empty, statement)
    assert tables_of(empty) == []
    migrate_database(empty, Environment.SANDBOX)
    check_database(empty, Environment.SANDBOX)
    compare_database(empty)


def test_a_later_migration_that_is_killed_leaves_the_database_as_it_was(address: str, newer: Path) -> None:
    before = tables_of(address)
    killed = 0
    while die_migrating(address, killed + 1, newer):
        killed += 1
        assert tables_of(address) == before
        check_database(address, Environment.SANDBOX)
    assert killed > 3, "it has several statements"
    engine = create_engine(driver_url(address, asynchronous=False))
    try:
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(nickname) FROM billing_account")).scalar_one() == 0
            assert connection.execute(text("SELECT count(*) FROM later")).scalar_one() == 0
    finally:
        engine.dispose()
