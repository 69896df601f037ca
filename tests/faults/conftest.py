"""What the fault tests stand on: a database in which much is due by the wall clock, and what has to come of it."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from dateutil.relativedelta import relativedelta
from sqlalchemy import func, select, update

from plafond.clock import SetClock
from plafond.database import Database, take_snapshot
from plafond.migrations import migrate_database
from plafond.models import (
    BillingAccount,
    Document,
    DueWork,
    Interval,
    Invoice,
    InvoiceStatus,
    OutboxEvent,
    SandboxCharge,
    Subscription,
    Transaction,
    TransactionKind,
    TransactionStatus,
    UsagePeriod,
    WorkKind,
)
from plafond.services import decisions
from plafond.services.auditing import audit
from plafond.settings import Environment

from ..conftest import _address, _create_postgres, _drop_postgres
from ..services.engine import apply_sandbox_catalogue, open_account, open_till, order, send_emails
from .fire import Battlefield, make_battlefield
from .runner import check_file, open_database

PLAN_MINOR = 4_900
BLOCK_MINOR = 1_000
INCLUDED = 10_000
BLOCK = 10_000
OVER_FOR = timedelta(hours=3)
"""How long the last closed period is over: its draft's hour too."""


@dataclass(frozen=True)
class Frozen:
    """What of an invoice never changes."""

    number: str | None
    total_minor: int
    content_hash: str | None

    @classmethod
    def of(cls, invoice: Invoice) -> "Frozen":
        """Of an invoice as it is now."""
        return cls(invoice.number, invoice.total_minor, invoice.content_hash)


@dataclass(frozen=True)
class Due:
    """A database whose accounts have had `months` periods that nobody closed, by an instant of the wall clock.

    The ledger of intents: each account started the same plan and, in its first period, used `blocks` beyond it.
    """

    address: str
    now: datetime
    months: int
    blocks: dict[UUID, int]
    frozen: dict[UUID, Frozen]
    """The invoices of before, as they are to stay."""

    def intended(self, account_id: UUID) -> list[int]:
        """The subtotals that an account is to be billed, in order: its start, and each period that was closed."""
        first = PLAN_MINOR + self.blocks[account_id] * BLOCK_MINOR
        return [PLAN_MINOR, first, *[PLAN_MINOR] * (self.months - 1)]


async def _prepare(address: str, accounts: int, months: int) -> Due:
    now = datetime.now(UTC)
    database = Database(address, SetClock(now - relativedelta(months=months) - OVER_FOR), lambda _: None)
    blocks: dict[UUID, int] = {}
    try:
        till = open_till(database)
        await apply_sandbox_catalogue(till)
        for number in range(accounts):
            account_id = await open_account(till, f"due-{number}", None, timezone="UTC")
            await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
            blocks[account_id] = number % 4
            await send_emails(till, account_id, INCLUDED + blocks[account_id] * BLOCK)
        async with till.work() as work:
            # What was issued before the fault is not what is drawn in it.
            await work.session.execute(
                update(DueWork).where(DueWork.kind == WorkKind.DRAW_DOCUMENT).values(done_at=work.clock.now())
            )
        async with database.read() as session:
            frozen = {row.id: Frozen.of(row) for row in await session.scalars(select(Invoice))}
        return Due(address, now, months, blocks, frozen)
    finally:
        await database.close()


@dataclass(frozen=True)
class DueTemplate:
    """What tests copy."""

    engine: str
    name: str
    due: Due


CopyDue = Callable[[DueTemplate], Due]


@contextmanager
def _make_template(engine: str, folder: Path, accounts: int, months: int) -> Iterator[DueTemplate]:
    name = str(folder / "due.db") if engine == "sqlite" else f"plafond_due_{uuid4().hex[:12]}"
    if engine == "postgresql":
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    yield DueTemplate(engine, name, asyncio.run(_prepare(address, accounts, months)))
    if engine == "postgresql":
        _drop_postgres(name)


@pytest.fixture(scope="session")
def few_due(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DueTemplate]:
    """Four accounts with a period to close."""
    with _make_template(engine, tmp_path_factory.mktemp("few"), 4, 1) as template:
        yield template


@pytest.fixture(scope="session")
def much_due(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DueTemplate]:
    """Sixteen accounts that nobody looked after for three months."""
    with _make_template(engine, tmp_path_factory.mktemp("much"), 16, 3) as template:
        yield template


@pytest.fixture
def copy_due(tmp_path: Path) -> Iterator[CopyDue]:
    """Makes copies that end with the test."""
    with ExitStack() as stack:

        def copy(template: DueTemplate) -> Due:
            name = f"plafond_fault_{uuid4().hex[:12]}"
            if template.engine == "sqlite":
                name = str(tmp_path / f"{name}.db")
                for suffix in ("", "-wal"):
                    if Path(template.name + suffix).exists():
                        shutil.copyfile(template.name + suffix, name + suffix)
            else:
                _create_postgres(name, template.name)
                stack.callback(_drop_postgres, name)
            return replace(template.due, address=_address(template.engine, name))

        yield copy


@pytest.fixture
def due(copy_due: CopyDue, few_due: DueTemplate) -> Due:
    """This test's own four accounts with a period to close."""
    return copy_due(few_due)


@pytest.fixture
def long_due(copy_due: CopyDue, much_due: DueTemplate) -> Due:
    """This test's own sixteen accounts with three periods to close."""
    return copy_due(much_due)


@pytest.fixture
async def database(due: Due) -> AsyncGenerator[Database]:
    """The database of `due`, on the wall clock."""
    opened = open_database(due.address)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def battlefield(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battlefield]:
    """An account of each kind whose money is about to move."""
    yield from make_battlefield(engine, tmp_path_factory.mktemp("fire"))


@pytest.fixture
def on_postgresql(battlefield: Battlefield) -> Battlefield:
    """Where there are connections."""
    if battlefield.engine == "sqlite":
        pytest.skip("SQLite has no connections that could be cut")
    return battlefield


@pytest.fixture
def on_sqlite(battlefield: Battlefield) -> Battlefield:
    """Where there is a file with one writer."""
    if battlefield.engine != "sqlite":
        pytest.skip("PostgreSQL has no one writer")
    return battlefield


async def check_books(database: Database, due: Due, *, failed: frozenset[UUID] = frozenset()) -> None:
    """What holds after every fault: the intents, each once, and the audit has no findings.

    `failed` are accounts whose last invoices are not to be looked for.
    """
    async with database.read() as session:
        await take_snapshot(session)
        assert await audit(session, database.clock.now()) == []
        invoices = (await session.scalars(select(Invoice).order_by(Invoice.issued_at, Invoice.number))).all()
        charges = (
            await session.execute(
                select(Transaction.invoice_id, Transaction.amount_minor, Transaction.processor_key).where(
                    Transaction.kind == TransactionKind.CHARGE, Transaction.status == TransactionStatus.SUCCEEDED
                )
            )
        ).all()
        effects = (await session.execute(select(SandboxCharge.key, SandboxCharge.amount_minor))).all()
        documents = (await session.scalars(select(Document.subject_id))).all()
        told = (
            await session.execute(
                select(OutboxEvent.account_id, func.count())
                .where(OutboxEvent.kind == "invoice.finalized")
                .group_by(OutboxEvent.account_id)
            )
        ).all()
        periods = (
            await session.execute(
                select(UsagePeriod.account_id, func.count())
                .where(UsagePeriod.closed_at.is_not(None))
                .group_by(UsagePeriod.account_id)
            )
        ).all()
        ends = (await session.scalars(select(Subscription.usage_period_end).order_by(Subscription.account_id))).all()
        accounts = set(await session.scalars(select(BillingAccount.id)))
    assert accounts == set(due.blocks)
    whole = accounts - failed
    for account_id in whole:
        mine = [row.subtotal_minor for row in invoices if row.account_id == account_id]
        assert mine == due.intended(account_id), f"account {account_id}"
    if not failed:
        assert [row.status for row in invoices] == [InvoiceStatus.PAID] * len(invoices)
        assert [row.number for row in invoices] == [f"INV-{n:06d}" for n in range(1, len(invoices) + 1)]
        # One charge for each invoice, here and at the processor, and none for anything else.
        assert sorted((row.id, row.total_minor) for row in invoices) == sorted((row[0], row[1]) for row in charges)
        assert sorted((row[2], row[1]) for row in charges) == sorted((row[0], row[1]) for row in effects)
        assert min(ends) > due.now
    assert {account_id: count for account_id, count in told if account_id in whole} == dict.fromkeys(
        whole, due.months + 1
    )
    assert {account_id: count for account_id, count in periods if account_id in whole} == dict.fromkeys(
        whole, due.months
    )
    numbered = {row.id: Frozen.of(row) for row in invoices}
    assert {invoice_id: numbered[invoice_id] for invoice_id in due.frozen} == due.frozen
    assert len(documents) == len(set(documents))
    await check_file(database)
