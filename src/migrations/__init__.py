"""Brings a database to the state that the code expects: one history for SQLite and PostgreSQL."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from ..models import Base
from ..settings import Environment

WAIT_MS = 30_000
"""How long a migration of SQLite waits for whoever is writing."""


class DatabaseNotReady(Exception):
    """The database cannot be served from. Its text says what to do."""


def migrate_database(address: str, environment: Environment) -> None:
    """Run the migrations that are missing. The first one fixes the environment for good."""
    with _configured(address, environment, writes=True) as config:
        state = _current_revision(config)
        if state is not None and state not in _known_revisions():
            raise DatabaseNotReady(_newer(address))
        command.upgrade(config, "head")
        _check_environment(config, environment)


def check_database(address: str, environment: Environment) -> None:
    """Refuse a database that is not there, behind or ahead of the code, or for another environment."""
    _refuse_missing_file(address)
    with _configured(address, environment) as config:
        state = _current_revision(config)
        if state is None:
            raise DatabaseNotReady(f"The database {_shown(address)} is empty. Run `plafond migrate` first.")
        if state not in _known_revisions():
            raise DatabaseNotReady(_newer(address))
        if state != ScriptDirectory.from_config(config).get_current_head():
            raise DatabaseNotReady(f"The database {_shown(address)} is older than this code. Run `plafond migrate`.")
        _check_environment(config, environment)


def compare_database(address: str) -> None:
    """Raise where the migrated tables differ from the models (what `alembic check` does)."""
    with _configured(address, Environment.SANDBOX) as config:
        command.check(config)


def write_revision(address: str, message: str) -> None:
    """Write a new migration from the difference between the models and a migrated database."""
    with _configured(address, Environment.SANDBOX) as config:
        command.revision(config, message=message, autogenerate=True)


def downgrade_database(address: str) -> None:
    """Undo all migrations. For tests and for a failed first installation."""
    with _configured(address, Environment.SANDBOX, writes=True) as config:
        command.downgrade(config, "base")


def _refuse_missing_file(address: str) -> None:
    file = address.removeprefix("sqlite:///")
    if file != address and file and not Path(file).exists():
        raise DatabaseNotReady(f"There is no database at {file}. Run `plafond migrate` first.")


@contextmanager
def _configured(address: str, environment: Environment, *, writes: bool = False) -> Generator[Config]:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise DatabaseNotReady("PLAFOND_DATABASE_URL is no address: give sqlite:///… or postgresql://….") from error
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    elif url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite")
    else:
        raise DatabaseNotReady(f"{_shown(address)} is neither a sqlite:///… nor a postgresql://… address.")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(url, poolclass=NullPool)
    if url.get_backend_name() == "sqlite":
        _make_whole(engine, writes=writes)
    try:
        with engine.begin() as connection:
            config.attributes.update(connection=connection, metadata=Base.metadata, environment=environment)
            yield config
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise DatabaseNotReady(
            f"The database {_shown(address)} does not answer: {reason}. "
            "Check PLAFOND_DATABASE_URL and that the server runs."
        ) from error


def _make_whole(engine: Engine, *, writes: bool) -> None:
    """Have SQLite change all tables in one transaction: its driver would end that before each change of one."""

    def prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # noqa: ARG001
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={WAIT_MS}")
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)


def _connection(config: Config) -> Connection:
    connection = config.attributes["connection"]
    assert isinstance(connection, Connection)
    return connection


def _current_revision(config: Config) -> str | None:
    return MigrationContext.configure(_connection(config)).get_current_revision()


def _known_revisions() -> set[str]:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


def _check_environment(config: Config, environment: Environment) -> None:
    made_for = _connection(config).execute(text("SELECT environment FROM deployment")).scalar_one()
    if made_for != environment:
        raise DatabaseNotReady(
            f"The database was made for {made_for}, and PLAFOND_ENVIRONMENT says {environment}. "
            "The environment of a database never changes: use another database, or set the environment right."
        )


def _newer(address: str) -> str:
    return (
        f"The database {_shown(address)} is newer than this code. Install the version that migrated it, or a later one."
    )


def _shown(address: str) -> str:
    return make_url(address).render_as_string(hide_password=True)
