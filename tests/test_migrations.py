"""The tables: made and unmade on both engines, and the promises that every one of them keeps."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from sqlalchemy import BigInteger, Column, DateTime, Float, Integer, Numeric, create_engine, inspect, select, text
from sqlalchemy.types import TypeEngine

from plafond.clock import SetClock
from plafond.database import Actor, Database, driver_url
from plafond.migrations import (
    DatabaseNotReady,
    check_database,
    compare_database,
    downgrade_database,
    migrate_database,
)
from plafond.models import Base, BillingAccount
from plafond.models.types import UTC
from plafond.settings import Environment

from .conftest import NOW, _create_postgres, _drop_postgres

ACTOR = Actor(name="system:tests", origin="tests")
TABLES = Base.metadata.tables
COLUMNS = [column for table in TABLES.values() for column in table.columns]
WITHOUT_ACCOUNT = {
    "billing_account": "is the account itself",
    "issuer": "sells to all accounts",
    "operator": "stands above all accounts",
    "test_clock": "accounts point to it",
    "metric": "the catalogue is one for all",
    "plan": "the catalogue again; a negotiated one names its account in private_account_id",
    "plan_version": "belongs to a plan",
    "plan_limit": "belongs to a plan's version",
    "add_on": "the catalogue again",
    "price": "the catalogue again",
    "tax_table_row": "taxes are one table for all",
    "number_series": "numbers are the issuer's, gapless over all its accounts",
    "sandbox_charge": "stands outside: it is the memory of the sandbox's payment processor",
    "sandbox_refund": "stands outside, too",
    "sandbox_dispute": "stands outside, too",
    "sandbox_conduct": "stands outside, too",
    "sandbox_message": "stands outside, too",
    "processor_event": "a message is noted by the processor's id, also where it is about nothing of ours",
    "deployment": "one row for the whole database",
    "outbox_reader": "reads the events of all accounts",
    "field_use": "counts by caller, who may open many accounts",
    "api_key": "it may open several, which api_key_account names, or all",
    "idempotency_key": "its scope holds the account's id, or nothing for a mutation over several",
}
ACCOUNT_MAY_BE_MISSING = {
    "due_work": "an export of all accounts is no account's work",
    "export": "an operator's may be of all accounts",
    "export_part": "an operator's may be of all accounts",
    "audit_entry": "the catalogue and operators' keys belong to no account",
    "webhook_endpoint": "an operator's hears of all accounts",
    "webhook_delivery": "a test of such an endpoint is about no account",
    "webhook_attempt": "the same",
}
ACCOUNT_IS_NOT_CHECKED = {"usage_event": "its row of usage_event_id is, and the audit compares the two"}
MONEY_WORDS = {"amount", "price", "cost", "subtotal", "total", "tax", "paid", "balance", "due", "spent", "taxable"}
NO_MONEY = {"paid_quantity": "counts units"}


@pytest.fixture
def empty(engine: str, tmp_path: Path) -> Iterator[str]:
    """The address of a database without any tables."""
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    name = f"plafond_test_{uuid4().hex[:12]}"
    yield _create_postgres(name)
    _drop_postgres(name)


def table_names(address: str) -> set[str]:
    engine = create_engine(driver_url(address, asynchronous=False))
    try:
        names = set(inspect(engine).get_table_names()) - {"alembic_version"}
        return {name for name in names if not name.startswith("usage_event_") or name == "usage_event_id"}
    finally:
        engine.dispose()


def test_the_history_makes_the_models_tables_and_unmakes_them(empty: str) -> None:
    migrate_database(empty, Environment.SANDBOX)
    assert table_names(empty) == set(TABLES)
    compare_database(empty)
    check_database(empty, Environment.SANDBOX)
    migrate_database(empty, Environment.SANDBOX)
    downgrade_database(empty)
    assert table_names(empty) == set()
    with pytest.raises(DatabaseNotReady, match="is empty"):
        check_database(empty, Environment.SANDBOX)
    migrate_database(empty, Environment.SANDBOX)
    assert table_names(empty) == set(TABLES)
    compare_database(empty)


def test_the_first_migration_fixes_the_environment(empty: str) -> None:
    migrate_database(empty, Environment.PRODUCTION)
    check_database(empty, Environment.PRODUCTION)
    for refused in (migrate_database, check_database):
        with pytest.raises(DatabaseNotReady, match="made for PRODUCTION"):
            refused(empty, Environment.SANDBOX)


def test_a_database_with_data_can_be_unmade(address: str) -> None:
    downgrade_database(address)
    assert table_names(address) == set()


# What every table promises


def test_every_table_knows_its_account_but_those_listed() -> None:
    assert {name for name, table in TABLES.items() if "account_id" not in table.columns} == set(WITHOUT_ACCOUNT)
    for name in set(TABLES) - set(WITHOUT_ACCOUNT):
        column = TABLES[name].columns["account_id"]
        pointed_at = [] if name in ACCOUNT_IS_NOT_CHECKED else ["billing_account.id"]
        assert [key.target_fullname for key in column.foreign_keys] == pointed_at, name
        assert column.nullable == (name in ACCOUNT_MAY_BE_MISSING), name


def test_money_is_whole_minor_units() -> None:
    money = [column for column in COLUMNS if column.name.endswith("_minor")]
    assert money
    assert [str(column) for column in money if type(column.type) is not BigInteger] == []
    unnamed = [
        str(column)
        for column in COLUMNS
        if isinstance(column.type, Integer | Numeric)
        and MONEY_WORDS & set(column.name.split("_"))
        and not column.name.endswith("_minor")
        and column.name not in NO_MONEY
    ]
    assert unnamed == []


def test_every_whole_number_has_64_bits_and_none_is_a_float() -> None:
    assert [str(column) for column in COLUMNS if isinstance(column.type, Float | Numeric)] == []
    assert [
        str(column)
        for column in COLUMNS
        if isinstance(column.type, Integer) and not isinstance(column.type, BigInteger)
    ] == []


def test_every_instant_has_a_zone_but_the_anchor() -> None:
    def holds_time(column: Column[object]) -> bool:
        kind: TypeEngine[object] = column.type
        return isinstance(kind, UTC | DateTime) or kind.python_type is datetime

    times = [column for column in COLUMNS if holds_time(column)]
    assert len(times) > 20
    assert [str(column) for column in times if not isinstance(column.type, UTC)] == ["subscription.anchor_wall"]


def test_the_made_tables_hold_no_floats(address: str) -> None:
    engine = create_engine(driver_url(address, asynchronous=False))
    try:
        found = [
            f"{table}.{column['name']}"
            for table in inspect(engine).get_table_names()
            for column in inspect(engine).get_columns(table)
            if isinstance(column["type"], Float | Numeric)
        ]
    finally:
        engine.dispose()
    assert found == []


# How writers meet


@pytest.mark.parametrize("pragma", [("journal_mode", "wal"), ("foreign_keys", 1), ("synchronous", 2)], ids=str)
async def test_sqlite_is_set_to_be_safe(pragma: tuple[str, object], tmp_path: Path) -> None:
    name, expected = pragma
    database = Database(f"sqlite:///{tmp_path / 'plafond.db'}", SetClock(NOW), lambda _: None)
    try:
        async with database.read() as session:
            assert await session.scalar(text(f"PRAGMA {name}")) == expected
        async with database.work(ACTOR) as work:
            assert await work.session.scalar(text(f"PRAGMA {name}")) == expected
    finally:
        await database.close()


async def test_forty_writers_lose_nothing(address: str) -> None:
    # Two databases, as two processes have them: what orders the writers within one cannot help between them.
    databases = [Database(address, SetClock(NOW), lambda _: None) for _ in range(2)]
    try:
        async with databases[0].read() as session:
            account_id, before = (
                await session.execute(
                    select(BillingAccount.id, BillingAccount.sequence).where(BillingAccount.external_id == "acme")
                )
            ).one()

        async def increment(database: Database) -> None:
            async with database.work(ACTOR) as work:
                account = (await work.lock_accounts([account_id]))[account_id]
                await anyio.sleep(0.001)
                account.sequence += 1

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(increment, databases[number % 2])
        async with databases[1].read() as session:
            after = await session.scalar(select(BillingAccount.sequence).where(BillingAccount.id == account_id))
        assert after == before + 40
    finally:
        for database in databases:
            await database.close()


async def test_a_sqlite_writer_takes_the_lock_at_once_and_readers_do_not_wait(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'plafond.db'}"
    migrate_database(address, Environment.SANDBOX)
    first, second = (Database(address, SetClock(NOW), lambda _: None) for _ in range(2))
    entered = anyio.Event()

    async def write() -> None:
        async with second.work(ACTOR) as work:
            await work.session.scalar(select(BillingAccount.id))
            entered.set()

    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                async with first.work(ACTOR) as work:
                    assert await work.session.scalar(select(BillingAccount.id)) is None
                    group.start_soon(write)
                    async with second.read() as session:
                        assert await session.scalar(select(BillingAccount.id)) is None
                    await anyio.sleep(0.1)
                    assert not entered.is_set(), "one that has only read so far holds the lock already"
                await entered.wait()
    finally:
        await first.close()
        await second.close()
