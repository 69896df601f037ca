"""The engine, sessions that read, and `Work`: one transaction with the audit rows and events of its changes."""

import asyncio
import hashlib
import json
import logging
import random
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Concatenate, NewType, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    FromClause,
    String,
    Table,
    bindparam,
    cast,
    event,
    func,
    literal,
    make_url,
    or_,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeEngine

from .clock import Clock
from .models import AuditEntry, Base, BillingAccount, Deployment, OutboxEvent

ReadSession = NewType("ReadSession", AsyncSession)
"""What only reads asks for this one."""

P = ParamSpec("P")
T = TypeVar("T")

POOL_SIZE = 10
LOCK_WAIT_MS = 10_000
TRIES = 3
IDLE_MS = 30_000
"""How long a transaction may stand still. A process that is frozen in one, or cut off, holds up nobody for longer."""
PATIENCE_MS = 45_000
"""How long a statement waits for a lock on PostgreSQL: longer than a frozen process can hold it."""
PAUSE_S = 0.05
"""The longest pause before the second try; that before the third is twice as long."""
STOOD_STILL = "25P03"
"""By this PostgreSQL says that it ended the connection of a transaction that stood still for too long."""
GIVEN_UP = frozenset({"40001", "40P01", STOOD_STILL})
"""By these PostgreSQL says that it gave up a transaction for the sake of others: nothing of it happened."""

log = logging.getLogger("plafond.database")


def driver_url(address: str, *, asynchronous: bool = True) -> URL:
    """The address with the driver that we use for its engine. `ValueError` for an engine we do not know."""
    url = make_url(address)
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite+aiosqlite" if asynchronous else "sqlite")
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise ValueError(f"{url.render_as_string()} is neither a sqlite:///… nor a postgresql://… address")


def account_topic(account_id: UUID) -> str:
    """The bus topic that wakes an account's streams."""
    return f"account:{account_id}"


ACCESS_TOPIC = "access"
"""The bus topic that makes every stream look whether it may go on."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who changes something, and from where: what the audit log shows."""

    name: str
    origin: str


AWAY = (OperationalError, InterfaceError, PoolTimeout, OSError)
"""What a database raises that is away, overrun, full, read-only, or lost a connection in the middle: it may be asked
again."""
READ_ONLY = "25006"
"""By this PostgreSQL says that it cannot be written, such as one that only follows another."""


@dataclass(kw_only=True)
class Work:
    """One transaction. What it records commits with it; whom it concerns is woken after."""

    session: AsyncSession
    clock: Clock
    actor: Actor
    topics: set[str] = field(default_factory=set[str])
    _last_acts: "dict[tuple[LastAct, UUID], tuple[BillingAccount, set[str]]]" = field(default_factory=dict)

    def before_commit(self, act: "LastAct", account: BillingAccount, about: Collection[str] = ()) -> None:
        """Have something done for a locked account when all else of the transaction is: once, however often asked."""
        self._last_acts.setdefault((act, account.id), (account, set()))[1].update(about)

    async def finish(self) -> None:
        """Do what was left for last."""
        while self._last_acts:
            key = next(iter(self._last_acts))
            account, about = self._last_acts.pop(key)
            await key[0](self, account, about)

    async def lock_accounts(
        self, ids: Collection[UUID], *, external_ids: Collection[str] = (), among: Collection[UUID] | None = None
    ) -> dict[UUID, BillingAccount]:
        """The accounts' rows, locked in one order until the transaction ends; unknown ids are left out.

        `among` are those that may be locked; all where nothing is said.
        """
        named: ColumnElement[bool] = BillingAccount.id.in_(ids)
        if external_ids:
            named = or_(named, BillingAccount.external_id.in_(external_ids))
        rows = await self.session.scalars(
            select(BillingAccount)
            .where(named, *(() if among is None else (BillingAccount.id.in_(among),)))
            .order_by(BillingAccount.id)
            .options(joinedload(BillingAccount.test_clock))
            .with_for_update(of=BillingAccount)
            .execution_options(populate_existing=True)
        )
        return {account.id: account for account in rows}

    def advance(self, account: BillingAccount) -> int:
        """Take the next sequence number of a locked account."""
        account.sequence += 1
        self.topics.add(account_topic(account.id))
        return account.sequence

    def emit(self, account: BillingAccount, kind: str, payload: dict[str, Any]) -> int:
        """Write an event to the outbox, under the account's lock. Gives its sequence number."""
        sequence = self.advance(account)
        at = self.clock.now_for(account)
        self.session.add(
            OutboxEvent(account_id=account.id, sequence=sequence, kind=kind, payload=payload, at=at),
        )
        return sequence

    def audit(
        self,
        account: BillingAccount,
        action: str,
        subject: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry to a locked account's audit chain."""
        at = self.clock.now_for(account)
        self._add_audit_entry(account, account.id, at, action, subject, before=before, after=after)

    async def audit_deployment(
        self,
        action: str,
        subject: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry about what belongs to no account, under the deployment's lock: taken before any account's."""
        deployment = (
            await self.session.scalars(
                select(Deployment).with_for_update().execution_options(populate_existing=True),
            )
        ).one()
        self._add_audit_entry(deployment, None, self.clock.now(), action, subject, before=before, after=after)

    def _add_audit_entry(
        self,
        chain: BillingAccount | Deployment,
        account_id: UUID | None,
        at: datetime,
        action: str,
        subject: str,
        *,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
    ) -> None:
        chain.audit_count += 1
        entry = AuditEntry(
            account_id=account_id,
            number=chain.audit_count,
            at=at,
            actor=self.actor.name,
            origin=self.actor.origin,
            action=action,
            object=subject,
            before=before or {},
            after=after or {},
            previous_hash=chain.audit_hash,
            hash="",
        )
        entry.hash = chain.audit_hash = hash_audit_entry(entry)
        self.session.add(entry)

    async def insert_or_ignore(self, table: type[Base], rows: list[dict[str, Any]]) -> None:
        """Insert rows; those whose key is there already are left as they are."""
        if rows:
            await self.session.execute(_insert_or_ignore(_dialect_of(self.session), table), rows)

    async def upsert(self, table: type[Base], rows: list[dict[str, Any]], *, adding: tuple[str, ...] = ()) -> None:
        """Insert rows; where the primary key is there, set the other columns, adding to those named in `adding`."""
        if rows:
            statement = _upsert(_dialect_of(self.session), table, tuple(rows[0]), adding)
            await self.session.execute(statement, rows)

    async def insert_many(
        self,
        table: type[Base],
        names: tuple[str, ...],
        rows: Sequence[tuple[Any, ...]],
        *,
        setting: tuple[str, ...] = (),
        adding: tuple[str, ...] = (),
    ) -> None:
        """Insert rows that hold the named columns in order, as one statement however many they are.

        Where the primary key is there, `setting` names the columns that are set instead, `adding` those added to.
        """
        if not rows:
            return
        statement = _insert_many(_dialect_of(self.session), table, names, setting, adding)
        if _dialect_of(self.session) == "postgresql":
            # As a document for each column: the driver would send row by row, and builds arrays slowly.
            await self.session.execute(
                statement, dict(zip(names, _write_columns(zip(*rows, strict=True)), strict=True))
            )
        else:
            await self.session.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])


LastAct = Callable[[Work, BillingAccount, Collection[str]], Awaitable[None]]
"""What is done last for an account, and what of it that is about."""


def _write_columns(columns: Iterable[Sequence[Any]]) -> list[str]:
    write = _Texts().__getitem__
    return [json.dumps(values, default=write) for values in columns]


class _Texts(dict[Any, str]):
    """Ids and instants as JSON holds them. Rows share most of theirs."""

    def __missing__(self, value: object) -> str:
        text = self[value] = str(value)
        return text


def _read_column(text: ColumnElement[str], type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """The values of a document as PostgreSQL reads them, one to a row: several such columns go in step."""
    return cast(func.json_array_elements_text(cast(text, JSON)), type_)


def given_rows(session: AsyncSession, **columns: tuple[TypeEngine[Any], Sequence[Any]]) -> FromClause:
    """Rows of texts and ids to join with: the same few parameters, however many they are."""
    if _dialect_of(session) == "postgresql":
        written = _write_columns(values for _, values in columns.values())
        read = [
            _read_column(literal(text), type_).label(name)
            for text, (name, (type_, _)) in zip(written, columns.items(), strict=True)
        ]
        return select(*read).subquery("given")
    rows = list(zip(*(values for _, values in columns.values()), strict=True))
    each = func.json_each(json.dumps(rows, default=lambda id_: id_.hex)).table_valued("value", name="each")
    cells = [
        type_coerce(func.json_extract(each.c.value, f"$[{place}]"), type_).label(name)
        for place, (name, (type_, _)) in enumerate(columns.items())
    ]
    return select(*cells).subquery("given")


async def take_snapshot(session: ReadSession) -> None:
    """Have all statements of a transaction that has not begun yet see one state, whatever is written meanwhile."""
    # SQLite's transactions do so by themselves.
    if _dialect_of(session) == "postgresql":
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def _dialect_of(session: AsyncSession) -> str:
    assert session.bind is not None, "sessions come from Database"
    return session.bind.dialect.name


def _insert(dialect: str, table: type[Base]) -> PostgresInsert | SQLiteInsert:
    """The insert of an engine: both know ON CONFLICT, each in a construct of its own."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


# Building these costs more than running them, and there are few.
@lru_cache(maxsize=256)
def _insert_or_ignore(dialect: str, table: type[Base]) -> PostgresInsert | SQLiteInsert:
    return _insert(dialect, table).on_conflict_do_nothing()


@lru_cache(maxsize=256)
def _upsert(
    dialect: str, table: type[Base], names: tuple[str, ...], adding: tuple[str, ...]
) -> PostgresInsert | SQLiteInsert:
    statement = _insert(dialect, table)
    keys = [column.name for column in table.__table__.primary_key]
    columns, excluded = table.__table__.c, statement.excluded
    changes = {
        name: columns[name] + excluded[name] if name in adding else excluded[name] for name in names if name not in keys
    }
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)


@lru_cache(maxsize=64)
def _insert_many(
    dialect: str, table: type[Base], names: tuple[str, ...], setting: tuple[str, ...], adding: tuple[str, ...]
) -> PostgresInsert | SQLiteInsert:
    rows = table.__table__
    assert isinstance(rows, Table), "rows are inserted into tables"
    statement = postgresql.insert(rows) if dialect == "postgresql" else sqlite.insert(rows)
    if setting or adding:
        excluded = statement.excluded
        changes = {name: excluded[name] for name in setting} | {name: rows.c[name] + excluded[name] for name in adding}
        keys = [key.name for key in rows.primary_key]
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    if dialect != "postgresql":
        return statement
    read = [_read_column(bindparam(name, type_=String), rows.c[name].type) for name in names]
    return statement.from_select(names, select(*read))


def hash_details(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The hex SHA-256 of an audit entry's details, which stands for them in the chain when they are erased."""
    return _digest([before, after])


def hash_audit_entry(entry: AuditEntry) -> str:
    """The hex SHA-256 over the entry's content, its details by their own hash, and the hash of the one before it."""
    return _digest(
        [
            str(entry.account_id),
            entry.number,
            entry.at.isoformat(),
            entry.actor,
            entry.origin,
            entry.action,
            entry.object,
            entry.details_hash or hash_details(entry.before, entry.after),
            entry.previous_hash,
        ]
    )


def _digest(content: list[Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Database:
    """Where rows are kept. `on_commit` hears the topics of each committed `Work`."""

    def __init__(
        self, address: str, clock: Clock, on_commit: Callable[[Iterable[str]], None], *, replica: str | None = None
    ) -> None:
        self.clock = clock
        self._on_commit = on_commit
        url = driver_url(address)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        pool: dict[str, Any] = {} if self.is_sqlite else {"pool_pre_ping": True}
        self.engine = create_async_engine(
            # What is written may be a secret, and what fails is logged.
            url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=30,
            hide_parameters=True,
            **pool,
        )
        event.listen(self.engine.sync_engine, "handle_error", _leave_unusable)
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine.sync_engine, "connect", _prepare_postgres)
        self._writers = async_sessionmaker(self.engine, expire_on_commit=False)
        self._readers = async_sessionmaker(
            self.engine.execution_options(sqlite_readonly=True), expire_on_commit=False, autoflush=False
        )
        self.replica = None if replica is None else _open_replica(replica)
        self._laggards = (
            self._readers
            if self.replica is None
            else async_sessionmaker(
                self.replica.execution_options(postgresql_readonly=True), expire_on_commit=False, autoflush=False
            )
        )
        # SQLite has one writer: in line for the lock, nobody polls for it.
        self._writing = asyncio.Lock() if self.is_sqlite else nullcontext()

    @asynccontextmanager
    async def read(self, *, may_lag: bool = False) -> AsyncGenerator[ReadSession]:
        """A short session that only reads. Where it may lag behind commits, a replica answers if there is one."""
        async with (self._laggards if may_lag else self._readers)() as session:
            yield ReadSession(session)

    @asynccontextmanager
    async def work(self, actor: Actor) -> AsyncGenerator[Work]:
        """Commit on success, roll back on any exception; then wake whom it concerns."""
        async with self._writing, self._writers.begin() as session:
            work = Work(session=session, clock=self.clock, actor=actor)
            yield work
            await work.finish()
        self._on_commit(work.topics)

    async def run(
        self, actor: Actor, act: Callable[Concatenate[Work, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """An act in one transaction, done anew from its beginning where the database gave it up, three times at most.

        So it keeps nothing from one try to the next, and asks nobody outside.
        """
        tried = 0
        while True:
            try:
                async with self.work(actor) as work:
                    return await act(work, *args, **kwargs)
            except DBAPIError as error:
                tried += 1
                if tried == TRIES or not was_given_up(error):
                    raise
                log.warning("the database gave a transaction up, try %d: %s", tried, error.orig)
            # Not all at once again.
            await asyncio.sleep(random.uniform(0, PAUSE_S * tried))  # noqa: S311  # not a secret

    async def close(self) -> None:
        """Give the connections back."""
        await self.engine.dispose()
        if self.replica is not None:
            await self.replica.dispose()


def _open_replica(address: str) -> AsyncEngine:
    return create_async_engine(
        driver_url(address),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=30,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def was_given_up(error: DBAPIError) -> bool:
    """Whether a transaction failed because of others at the same time, and may go through when it is done anew."""
    return getattr(error.orig, "sqlstate", None) in GIVEN_UP


def _leave_unusable(context: ExceptionContext) -> OperationalError | None:
    """Let go of connections that were ended, or opened to what could not be written: they would stay so."""
    error = context.original_exception
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
        context.is_disconnect = True
    if getattr(error, "sqlstate", None) not in {READ_ONLY, STOOD_STILL}:
        return None
    context.is_disconnect = True
    # The driver calls these internal errors.
    return OperationalError(context.statement, context.parameters, error, connection_invalidated=True)


def _prepare_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # noqa: ARG001
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={LOCK_WAIT_MS}", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_postgres(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # noqa: ARG001
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MS}")
    cursor.execute(f"SET lock_timeout = {PATIENCE_MS}")
    cursor.close()
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later loses updates; whoever may write takes the lock at once.
    readonly = connection.get_execution_options().get("sqlite_readonly")
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")
