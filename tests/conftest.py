"""What tests stand on: a migrated database of their own on each engine, a sandbox, a clock, an application."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx2
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import event, make_url
from starlette.applications import Starlette

from plafond.app import create_app
from plafond.clock import SetClock
from plafond.database import Database
from plafond.migrations import migrate_database
from plafond.models import Role
from plafond.sandbox.seeds import SandboxToken, seed_sandbox
from plafond.settings import Environment, Settings

from .own_redis import OwnRedis, run_redis

MEMORY = Path("/dev/shm")  # noqa: S108
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
    # A commit waits for the disk, and tests commit very often: where there is a disk in memory they use that.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
# The same for PostgreSQL, of which nothing here pulls the plug. Whatever process a test starts inherits it.
os.environ.setdefault("PGOPTIONS", "-c synchronous_commit=off")
# Commands that tests start write their mails here, and not beside the sources.
os.environ.setdefault("PLAFOND_MAIL_FOLDER", str(Path(tempfile.gettempdir()) / "plafond-test-mail"))

POSTGRES = os.environ.get("PLAFOND_TEST_POSTGRES_URL", "postgresql://127.0.0.1:5432/test")
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
"""Where the clock of tests stands, and the day of their sandbox."""


@dataclass(frozen=True)
class Template:
    """A database that each test gets a copy of, and the tokens in it."""

    engine: str
    name: str
    tokens: list[SandboxToken]


@dataclass(frozen=True)
class World:
    """A test's own database, behind the application."""

    app: Starlette
    database: Database
    clock: SetClock
    settings: Settings
    tokens: list[SandboxToken]
    statements: list[str]
    """What was sent to the database, BEGIN left out. Clear it before counting."""

    def token(self, tenant: str, role: Role) -> str:
        """A token of the sandbox, by the beginning of the tenant's name (`all` for the operator)."""
        return next(item.token for item in self.tokens if item.tenant.startswith(tenant) and item.role is role)

    @property
    def operator(self) -> str:
        """The operator's token."""
        return self.token("all", Role.OPERATOR)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


ON_SQLITE_FIRST = (
    "tests/stories/",
    "tests/faults/",
    "tests/sandbox/",
    "tests/test_serving.py",
    "tests/test_docs.py",
    "tests/test_cli.py",
    "tests/test_ingest.py",
    "tests/adapters/",
    "tests/http/",
    "tests/resolvers/test_access.py",
    "tests/resolvers/test_account_mutations.py",
    "tests/resolvers/test_batches.py",
    "tests/resolvers/test_export_mutations.py",
    "tests/resolvers/test_close_queries.py",
    "tests/resolvers/test_webhook_mutations.py",
    "tests/resolvers/test_key_mutations.py",
    "tests/resolvers/test_paging.py",
    "tests/resolvers/test_member_mutations.py",
    "tests/resolvers/test_trail.py",
    "tests/resolvers/test_retention_mutations.py",
    "tests/services/test_accounts.py",
    "tests/services/test_auditing.py",
    "tests/services/test_backtests.py",
    "tests/services/test_budgets.py::test_what_is_no_budget_is_refused_by_name",
    "tests/services/test_closures.py",
    "tests/services/test_companies.py",
    "tests/services/test_forecasts.py",
    "tests/services/test_losses.py",
    "tests/services/test_preview.py",
    "tests/services/test_recommendations.py",
    "tests/services/test_settlement.py::test_tries_by_hand",
    "tests/services/test_settlement.py::test_what_is_left_and_too_small",
    "tests/services/test_tables.py::test_an_archive_has_a_limit",
    "tests/services/test_tables.py::test_no_cell_is_a_formula",
    "tests/services/test_tables.py::test_what_makes_no_sense_is_refused",
    "tests/test_worker.py",
    "tests/services/test_webhooks.py::test_a_connection_that_breaks",
    "tests/services/test_webhooks.py::test_a_receiver_that",
    "tests/services/test_webhooks.py::test_it_is_given_up",
    "tests/services/test_webhooks.py::test_redirects",
    "tests/services/test_webhooks.py::test_what_is_no_query",
    "tests/services/test_catalogue.py",
    "tests/services/test_exports.py",
    "tests/services/test_history.py::test_every_bucket_is_what_happened_in_it",
    "tests/resolvers/test_catalogue_mutations.py",
)
"""Long tests, and such of what happens at the door, whose SQL others run on PostgreSQL as well: there they are left to
`make test-slow`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those of them that run on PostgreSQL as slow, and each test by its engine."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        engine = None if callspec is None else callspec.params.get("engine")
        if engine is not None:
            # A file's tests stay together on an engine: what they share is made once, and no process waits for another.
            item.add_marker(pytest.mark.xdist_group(f"{engine} {item.path}"))
        if engine == "postgresql" and item.nodeid.startswith(ON_SQLITE_FIRST):
            item.add_marker(pytest.mark.slow)


def _postgres(statement: sql.Composed | sql.SQL) -> None:
    with psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)


def _create_postgres(name: str, template: str | None = None) -> str:
    made = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        made += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    _postgres(made)
    return make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)


def _drop_postgres(name: str) -> None:
    _postgres(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def require_postgres() -> None:
    """Skip where no PostgreSQL answers; in CI that is a failure."""
    try:
        _postgres(sql.SQL("SELECT 1"))
    except psycopg.OperationalError as error:
        reason = f"no PostgreSQL answers at {POSTGRES} (PLAFOND_TEST_POSTGRES_URL names another): {error}".strip()
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def _address(engine: str, name: str) -> str:
    if engine == "sqlite":
        return f"sqlite:///{name}"
    return make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)


def _seed(address: str) -> list[SandboxToken]:
    async def run() -> list[SandboxToken]:
        database = Database(address, SetClock(NOW), lambda _: None)
        try:
            return await seed_sandbox(database, NOW)
        finally:
            await database.close()

    return asyncio.run(run())


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engines that everything that touches SQL is tested on."""
    if request.param == "postgresql":
        require_postgres()
    return str(request.param)


@pytest.fixture(scope="session")
def template(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """The seeded sandbox, made once per engine."""
    if engine == "sqlite":
        name = str(tmp_path_factory.mktemp("template") / "sandbox.db")
    else:
        name = f"plafond_template_{uuid4().hex[:12]}"
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    yield Template(engine, name, _seed(address))
    if engine == "postgresql":
        _drop_postgres(name)


@dataclass
class Copy:
    """A copy of the sandbox. `world` says when a test only read, so that the next one can have it."""

    address: str
    name: str
    is_untouched: bool = False


@pytest.fixture(scope="session")
def spares(template: Template) -> Iterator[list[str]]:  # noqa: ARG001  # one list per engine, gone before its template
    """Copies that nobody wrote to: making one takes PostgreSQL half a second, and most tests only read."""
    names: list[str] = []
    yield names
    for name in names:
        _drop_postgres(name)


@pytest.fixture
def sandbox(template: Template, tmp_path: Path, spares: list[str]) -> Iterator[Copy]:
    """This test's own copy of the sandbox."""
    if template.engine == "sqlite":
        name = str(tmp_path / "plafond.db")
        for suffix in ("", "-wal"):
            if Path(template.name + suffix).exists():
                shutil.copyfile(template.name + suffix, name + suffix)
        yield Copy(_address("sqlite", name), name)
        return
    if spares:
        name = spares.pop()
        copy = Copy(_address("postgresql", name), name)
    else:
        name = f"plafond_test_{uuid4().hex[:12]}"
        copy = Copy(_create_postgres(name, template.name), name)
    yield copy
    if copy.is_untouched:
        spares.append(name)
    else:
        _drop_postgres(name)


@pytest.fixture
def address(sandbox: Copy) -> str:
    """The address of this test's own copy of the sandbox."""
    return sandbox.address


@pytest.fixture
async def world(
    template: Template, sandbox: Copy, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[World]:
    """The application over this test's own sandbox. Its worker does not run; the clock stands at `NOW`."""
    clock = SetClock(NOW)
    settings = Settings(
        database_url=sandbox.address,
        jwt_issuer="https://issuer.test",
        jwt_hs256_secret=SecretStr("a secret of thirty-two characters!"),
        mail_folder=tmp_path / "mail",
        link_secret=SecretStr("thirty-two characters for links!"),
    )
    app = create_app(settings, with_worker=False, clock=clock)
    statements: list[str] = []
    writes: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)
        if not statement.startswith(("SELECT", "WITH", "BEGIN")):
            writes.append(statement)

    database: Database = app.state.database
    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    async with app.router.lifespan_context(app):
        yield World(app, database, clock, settings, template.tokens, statements)
        if not writes:
            # What requests leave behind is written when the application ends.
            app.state.uses.clear()
    # A test that was given the address may have written past this application.
    sandbox.is_untouched = not writes and "address" not in request.fixturenames


class Client:
    """A GraphQL client over HTTP, straight into the application."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def ask(self, token: str, query: str, **variables: object) -> dict[str, object]:
        """The whole answer to a query."""
        response = await self.http.post(
            "/graphql", json={"query": query, "variables": variables}, headers={"Authorization": f"Bearer {token}"}
        )
        found: dict[str, object] = response.json()
        return found

    async def data(self, token: str, query: str, **variables: object) -> dict[str, object]:
        """The data of an answer without errors."""
        answer = await self.ask(token, query, **variables)
        assert "errors" not in answer, answer["errors"]
        found = answer["data"]
        assert isinstance(found, dict)
        return found


@pytest.fixture
async def client(world: World) -> AsyncGenerator[Client]:
    """A client of the application."""
    transport = httpx2.ASGITransport(world.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as http:
        yield Client(http)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis that the test may kill."""
    with run_redis(tmp_path) as server:
        yield server
