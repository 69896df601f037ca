"""The audit: a lively year passes it, and each kind of damage is named by the invariant that it breaks."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from typer.testing import CliRunner

from plafond.cli import app
from plafond.clock import SetClock, SystemClock
from plafond.database import Database, ReadSession, Work, hash_details
from plafond.migrations import migrate_database
from plafond.models import (
    WORK_RANK,
    Alert,
    AlertKind,
    AlertLevel,
    AuditEntry,
    BillingAccount,
    BudgetPeriod,
    Counter,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Deferral,
    Deployment,
    Document,
    DocumentBytes,
    DocumentKind,
    DueWork,
    Dunning,
    EffectiveLimit,
    EntryKind,
    IdempotencyKey,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceStatus,
    InvoiceTax,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
    LineKind,
    NumberSeries,
    OutboxEvent,
    PaymentMethod,
    PendingChange,
    ProcessorEvent,
    PurgePass,
    RefundReason,
    RefundRequest,
    RefundState,
    RefundStatus,
    SandboxCharge,
    SandboxDispute,
    SandboxRefund,
    Subscription,
    TestClock,
    Transaction,
    TransactionKind,
    TransactionStatus,
    UsageCost,
    UsageEvent,
    UsageEventId,
    UsagePeriod,
    UsageRating,
    UsageRollup,
    WorkKind,
)
from plafond.models.base import Base
from plafond.models.types import new_id
from plafond.services.auditing import Finding, audit, measure_books
from plafond.services.invariants.books import FROZEN_TABLES
from plafond.services.invariants.reading import SHOWN
from plafond.services.invariants.tenants import list_pointers
from plafond.services.papers import Receipt
from plafond.services.retention import purge_year
from plafond.settings import Environment

from ..conftest import NOW, World, _address, _create_postgres, _drop_postgres
from .engine import apply_sandbox_catalogue, open_till, run_a_lively_year
from .helpers import ACTOR

PDF = b"%PDF-1.7 as it was drawn"


@dataclass(frozen=True)
class Books:
    """A database with a lively year in it, that tests only change in transactions which they roll back."""

    address: str
    ids: dict[str, UUID]


async def _play(address: str) -> dict[str, UUID]:
    database = Database(address, SetClock(NOW), lambda _: None)
    try:
        till = open_till(database)
        await apply_sandbox_catalogue(till)
        ids = await run_a_lively_year(till)
        async with till.work() as work:
            document = (await work.session.scalars(select(Document).order_by(Document.id).limit(1))).one()
            document.bytes_hash, document.drawn_at = hashlib.sha256(PDF).hexdigest(), NOW
            work.session.add(
                DocumentBytes(created_at=NOW, account_id=document.account_id, document_id=document.id, pdf=PDF)
            )
        return ids
    finally:
        await database.close()


@pytest.fixture(scope="module")
def books(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """A lively year, played once per engine."""
    name = f"plafond_audit_{new_id().hex}"
    if engine == "sqlite":
        name = str(tmp_path_factory.mktemp("audit") / "books.db")
    else:
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    yield Books(address, asyncio.run(_play(address)))
    if engine == "postgresql":
        _drop_postgres(name)


@pytest.fixture
async def session(books: Books) -> AsyncGenerator[AsyncSession]:
    """A transaction over the books that is rolled back, whatever was damaged in it: triggers too."""
    database = Database(books.address, SetClock(NOW), lambda _: None)
    async with database.engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(bind=connection, expire_on_commit=False) as opened:
            yield opened
        await transaction.rollback()
    await database.close()


async def audited(session: AsyncSession) -> list[Finding]:
    session.expunge_all()
    return await audit(ReadSession(session), NOW)


def is_postgres(session: AsyncSession) -> bool:
    assert session.bind is not None
    return session.bind.dialect.name == "postgresql"


@asynccontextmanager
async def unguarded(session: AsyncSession, *tables: type[Base]) -> AsyncGenerator[None]:
    """Without the triggers of tables, which are there again afterwards."""
    names = [table.__tablename__ for table in tables]
    guards: list[str] = []
    for name in names:
        if is_postgres(session):
            await session.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER USER"))
            guards.append(f"ALTER TABLE {name} ENABLE TRIGGER USER")
            continue
        of_table = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :name")
        for trigger, definition in (await session.execute(of_table, {"name": name})).all():
            await session.execute(text(f"DROP TRIGGER {trigger}"))
            guards.append(definition)
    yield
    for guard in guards:
        await session.execute(text(guard))


async def test_a_lively_year_is_in_order(session: AsyncSession) -> None:
    assert await audited(session) == []
    size = await measure_books(ReadSession(session))
    assert size.accounts == 15
    assert size.invoices > 55
    assert size.entries > 170


async def test_a_purge_leaves_the_books_in_order(session: AsyncSession, books: Books) -> None:
    """What goes is missing by right; what an open invoice, a younger document or an open request needs stays."""
    await session.execute(update(TestClock).values(now=datetime(2033, 1, 2, tzinfo=UTC)))
    work = Work(session=session, clock=SetClock(NOW), actor=ACTOR)
    before = (await measure_books(ReadSession(session))).invoices
    for name in ("leaver", "withdrawn", "debtor", "sent", "trier", "refunded", "bounced", "disputed"):
        account = (await work.lock_accounts([books.ids[name]]))[books.ids[name]]
        await purge_year(work, account, "2025")
    await session.flush()
    assert await audited(session) == []
    assert (await measure_books(ReadSession(session))).invoices < before


async def test_the_sandbox_is_in_order(world: World) -> None:
    async with world.database.read() as session:
        assert await audit(session, NOW) == []


async def test_the_statements_do_not_grow_with_the_books(world: World, session: AsyncSession) -> None:
    async with world.database.read() as reading:
        world.statements.clear()
        await audit(reading, NOW)
        of_sandbox = len(world.statements)
    connection = (await session.connection()).sync_connection
    assert connection is not None
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    await audited(session)
    assert len(statements) == of_sandbox <= 140


@pytest.mark.parametrize("table", FROZEN_TABLES)
async def test_what_is_frozen_refuses_changes(session: AsyncSession, table: str) -> None:
    for statement in (f"UPDATE {table} SET id = id", f"DELETE FROM {table}"):  # noqa: S608  # a name of ours
        with pytest.raises(DBAPIError, match="append-only"):
            async with session.begin_nested():
                await session.execute(text(statement))


async def test_erasing_details_needs_a_pass_and_leaves_the_log_verifiable(session: AsyncSession, books: Books) -> None:
    work = Work(session=session, clock=SetClock(NOW), actor=ACTOR)
    account = (await work.lock_accounts([books.ids["tried"]]))[books.ids["tried"]]
    [entry] = await session.scalars(
        select(AuditEntry).where(AuditEntry.account_id == account.id, AuditEntry.action == "account.created").limit(1)
    )
    details_hash = hash_details(entry.before, entry.after)
    erased = {"before": {}, "after": {"legalName": "(erased)"}, "details_hash": details_hash}

    async def refuses(**values: Any) -> None:
        with pytest.raises(DBAPIError, match="append-only"):
            async with session.begin_nested():
                await session.execute(update(AuditEntry).where(AuditEntry.id == entry.id).values(**values))

    await refuses(**erased)
    session.add(PurgePass(account_id=account.id))
    await session.flush()
    await refuses(after={})  # nothing would tell what it was
    for name, value in {"actor": "somebody:else", "number": 999, "previous_hash": "0", "hash": "0"}.items():
        await refuses(**{**erased, name: value})
    await session.execute(update(AuditEntry).where(AuditEntry.id == entry.id).values(**erased))
    await refuses(**{**erased, "details_hash": "0" * 64})
    # Another person's data may go from it later, and what it was at first stays its hash.
    await session.execute(update(AuditEntry).where(AuditEntry.id == entry.id).values(**{**erased, "after": {}}))
    await session.execute(delete(PurgePass))
    await refuses(**erased)
    work.audit(account, "person.erased", f"billing_account:{account.id}")
    await session.flush()
    assert await audited(session) == []


@pytest.fixture
def is_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the command's clock stand where the books' does."""
    monkeypatch.setattr(SystemClock, "now", lambda _: NOW)


@pytest.mark.usefixtures("is_today")
def test_the_command_says_that_the_books_are_in_order(books: Books) -> None:
    done = CliRunner().invoke(app, ["audit"], env={"PLAFOND_DATABASE_URL": books.address})
    assert done.exit_code == 0, done.output
    assert done.output.startswith("The books are in order: 15 accounts, ")
    assert done.output.endswith(" entries.\n")


@pytest.mark.usefixtures("is_today")
def test_the_command_names_what_is_wrong(books: Books) -> None:
    async def change_credit(by: int) -> None:
        database = Database(books.address, SetClock(NOW), lambda _: None)
        async with database.engine.begin() as connection:
            raised = {"credit_minor": BillingAccount.credit_minor + by}
            is_his = BillingAccount.id == books.ids["tried"]
            await connection.execute(update(BillingAccount).where(is_his).values(**raised))
        await database.close()

    asyncio.run(change_credit(125))
    try:
        done = CliRunner().invoke(app, ["audit"], env={"PLAFOND_DATABASE_URL": books.address})
    finally:
        asyncio.run(change_credit(-125))
    assert done.exit_code == 1
    assert done.output == (
        f"I2   account tried ({books.ids['tried']}): The credit balance: 1.25 USD, and 0.00 USD by the books.\n"
    )


@pytest.mark.usefixtures("is_today")
def test_the_command_names_the_entry_of_a_flipped_byte(books: Books, engine: str, tmp_path: Path) -> None:
    """As whoever has the file could do it: past this program, its triggers dropped."""
    if engine != "sqlite":
        pytest.skip("what is in a file of PostgreSQL is not flipped by hand")
    copy = tmp_path / "flipped.db"
    with sqlite3.connect(books.address.removeprefix("sqlite:///")) as source, sqlite3.connect(copy) as target:
        source.backup(target)
        target.execute("DROP TRIGGER audit_entry_no_update")
        number, after = target.execute(
            "SELECT number, after FROM audit_entry WHERE action = 'payment.recorded' AND account_id = ?",
            (books.ids["refunded"].hex,),
        ).fetchone()
        place = after.index("RF18")
        flipped = f"{after[:place]}{chr(ord(after[place]) ^ 1)}{after[place + 1 :]}"
        target.execute("UPDATE audit_entry SET after = ? WHERE after = ?", (flipped, after))
    done = CliRunner().invoke(app, ["audit"], env={"PLAFOND_DATABASE_URL": f"sqlite:///{copy}"})
    assert done.exit_code == 1
    assert f"The audit entry {number} (payment.recorded) is not what was written." in done.output
    assert "refunded" in done.output


# --- damage ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damaged:
    """The books to damage, and whose they are."""

    session: AsyncSession
    ids: dict[str, UUID]

    async def one(self, column: Any, *where: Any, by: Any = None) -> Any:
        """A value of the first row; there is one."""
        if by is None:
            is_row = isinstance(column, type)
            by = column.id if is_row else column
        statement = select(column).where(*where).order_by(by).limit(1)
        return (await self.session.execute(statement)).scalars().one()

    async def invoice(self, name: str, *where: Any) -> Invoice:
        """The first invoice of an account."""
        row = await self.one(Invoice, Invoice.account_id == self.ids[name], *where, by=Invoice.issued_at)
        assert isinstance(row, Invoice)
        return row

    async def change(self, table: type[Base], row_id: Any, **values: Any) -> None:
        """Change a row past its triggers."""
        async with unguarded(self.session, table):
            done = await self.session.execute(
                update(table).where(table.__table__.c.id == row_id).values(**values).returning(table.__table__.c.id)
            )
            assert done.all(), "it is there"

    async def remove(self, table: type[Base], row_id: Any) -> None:
        """Delete a row past its triggers."""
        async with unguarded(self.session, table):
            await self.session.execute(delete(table).where(table.__table__.c.id == row_id))


Damage = Callable[[Damaged], Awaitable[None]]
DAMAGES: list[tuple[Damage, set[str], str]] = []


def damage(*invariants: str, says: str) -> Callable[[Damage], Damage]:
    """A kind of damage, the invariants that it breaks, and what is said of it."""

    def keep(made: Damage) -> Damage:
        DAMAGES.append((made, set(invariants), says))
        return made

    return keep


# I1


async def _a_posting(books: Damaged) -> UUID:
    found: UUID = await books.one(LedgerPosting.id, LedgerPosting.ledger_account == LedgerAccount.REVENUE)
    return found


@damage("I1", says="sum to 0.01 USD, not to 0")
async def a_posting_is_changed(books: Damaged) -> None:
    posting = await books.session.get_one(LedgerPosting, await _a_posting(books))
    await books.change(LedgerPosting, posting.id, amount_minor=posting.amount_minor + 1)


@damage("I1", says="is in KWD, its entry in USD, and the account pays in USD")
async def a_posting_is_in_another_currency(books: Damaged) -> None:
    is_his = LedgerPosting.account_id == books.ids["upgrader"]
    posting = await books.one(LedgerPosting.id, is_his, LedgerPosting.ledger_account == LedgerAccount.REVENUE)
    await books.change(LedgerPosting, posting, currency="KWD")


@damage("I1", says="not to 0")
async def a_posting_is_deleted(books: Damaged) -> None:
    await books.remove(LedgerPosting, await _a_posting(books))


@damage("I1", "I12", says="stands under another account than its entry")
async def a_posting_is_moved_to_another_account(books: Damaged) -> None:
    posting = await books.session.get_one(LedgerPosting, await _a_posting(books))
    other = await books.one(BillingAccount.id, BillingAccount.id != posting.account_id)
    await books.change(LedgerPosting, posting.id, account_id=other)


@damage("I1", says="has no postings")
async def an_entry_is_empty(books: Damaged) -> None:
    books.session.add(
        LedgerEntry(
            created_at=NOW,
            account_id=books.ids["tried"],
            kind=EntryKind.RECOGNITION,
            subject="subscription:none",
            currency="USD",
        )
    )
    await books.session.flush()


@damage("I1", says="Nothing keeps rows of ledger_posting from the update")
async def a_trigger_is_dropped(books: Damaged) -> None:
    of_table = " ON ledger_posting" if is_postgres(books.session) else ""
    await books.session.execute(text(f"DROP TRIGGER ledger_posting_no_update{of_table}"))


@damage("I1", says="audit_entry")
async def a_trigger_is_switched_off(books: Damaged) -> None:
    if is_postgres(books.session):
        await books.session.execute(text("ALTER TABLE audit_entry DISABLE TRIGGER audit_entry_no_delete"))
        return
    await books.session.execute(text("DROP TRIGGER audit_entry_no_delete"))
    await books.session.execute(
        text(
            "CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry WHEN 1 = 0 "
            "BEGIN SELECT RAISE(ABORT, 'audit_entry is append-only'); END"
        )
    )


# I2


@damage("I2", says="The credit balance: 1376.10 USD, and 1376.09 USD by the books")
async def a_credit_balance_is_raised(books: Damaged) -> None:
    account = await books.session.get_one(BillingAccount, books.ids["upgrader"])
    await books.change(BillingAccount, account.id, credit_minor=account.credit_minor + 1)


@damage("I2", says="tax of invoices less that of credit notes")
async def tax_is_booked_as_revenue(books: Damaged) -> None:
    await _book_as_revenue(books, LedgerAccount.TAX)


@damage("I2", says="The money received less what went back: 1241.17 USD, and 1242.17 USD by the books")
async def cash_is_booked_that_never_came(books: Damaged) -> None:
    await _book_as_revenue(books, LedgerAccount.CASH)


@damage("I2", says="The money owed back: 0.00 USD, and -1.00 USD by the books")
async def what_is_owed_back_is_booked_as_revenue(books: Damaged) -> None:
    await _book_as_revenue(books, LedgerAccount.REFUNDS_PAYABLE)


@damage("I2", says="The bad debts less what came all the same: 0.00 USD, and 1.00 USD by the books")
async def a_bad_debt_is_booked_without_a_write_off(books: Damaged) -> None:
    await _book_as_revenue(books, LedgerAccount.BAD_DEBT)


@damage("I2", says="The disputes lost: 0.00 USD, and 1.00 USD by the books")
async def a_dispute_is_booked_that_never_was(books: Damaged) -> None:
    await _book_as_revenue(books, LedgerAccount.DISPUTE_LOSSES)


@damage("I2", says="The credit granted: 0.00 USD, and 1.00 USD by the books")
async def credit_is_booked_that_nobody_gave(books: Damaged) -> None:
    await _book_as_revenue(books, LedgerAccount.GOODWILL)


async def _book_as_revenue(books: Damaged, debited: LedgerAccount) -> None:
    entry = LedgerEntry(
        created_at=NOW,
        account_id=books.ids["tried"],
        kind=EntryKind.RECOGNITION,
        subject="subscription:none",
        currency="USD",
    )
    books.session.add(entry)
    await books.session.flush()
    for ledger_account, amount_minor in ((debited, 100), (LedgerAccount.REVENUE, -100)):
        books.session.add(
            LedgerPosting(
                created_at=NOW,
                account_id=entry.account_id,
                entry_id=entry.id,
                ledger_account=ledger_account,
                currency="USD",
                amount_minor=amount_minor,
            )
        )
    await books.session.flush()


@damage("I2", "I4", says="due of open invoices and amounts carried forward: 0.00 USD, and 58.31 USD by the books")
async def an_open_invoice_is_given_up_without_an_entry(books: Damaged) -> None:
    invoice = await books.invoice("late", Invoice.status == InvoiceStatus.OPEN)
    await books.change(Invoice, invoice.id, status=InvoiceStatus.UNCOLLECTIBLE)


@damage("I2", says="due of open invoices and amounts carried forward: 0.00 USD, and 0.30 USD by the books")
async def what_was_carried_forward_is_forgotten(books: Damaged) -> None:
    in_august = Invoice.issued_at > datetime(2025, 8, 1, tzinfo=UTC)
    invoice = await books.invoice("small", Invoice.carried_out_minor > 0, in_august)
    carried = await books.one(Transaction.id, Transaction.invoice_id == invoice.id)
    await books.change(Transaction, carried, carried_to_invoice_id=invoice.id)


async def _deferral(books: Damaged, name: str, *where: Any) -> Deferral:
    row = await books.one(Deferral, Deferral.account_id == books.ids[name], *where, by=Deferral.start_at)
    assert isinstance(row, Deferral)
    return row


@damage("I2", says="0.01 USD is recognised, and 0.00 USD was earned")
async def more_is_recognised_than_was_earned(books: Damaged) -> None:
    deferral = await _deferral(books, "walled")
    await books.change(Deferral, deferral.id, recognised_minor=1)


@damage("I2", says="0.00 USD is recognised, and 49.00 USD was earned")
async def a_period_that_is_over_is_not_recognised(books: Damaged) -> None:
    deferral = await _deferral(books, "small")
    await books.change(Deferral, deferral.id, recognised_minor=0, settled_at=None)


@damage("I2", says="it is open, with 0.00 USD left")
async def a_deferral_is_settled_and_does_not_say_so(books: Damaged) -> None:
    deferral = await _deferral(books, "small")
    await books.change(Deferral, deferral.id, settled_at=None)


@damage("I2", says="was to be deferred and is not")
async def a_deferral_is_missing(books: Damaged) -> None:
    await books.remove(Deferral, (await _deferral(books, "walled")).id)


@damage("I2", says="counts as credited, and the line's credits come to 0.00 USD")
async def a_deferral_counts_a_credit_that_was_never_given(books: Damaged) -> None:
    deferral = await _deferral(books, "small")
    await books.change(Deferral, deferral.id, recognised_minor=deferral.net_minor - 100, credited_minor=100)


# I3


async def _a_charge(books: Damaged) -> Transaction:
    row = await books.one(
        Transaction,
        Transaction.account_id == books.ids["tried"],
        Transaction.kind == TransactionKind.CHARGE,
        by=Transaction.created_at,
    )
    assert isinstance(row, Transaction)
    return row


async def _charge_of_processor(books: Damaged) -> Any:
    key = (await _a_charge(books)).processor_key
    return SandboxCharge.key == key


@damage("I2", "I3", "I6", "I13", says="was charged 2 times")
async def an_invoice_is_charged_twice(books: Damaged) -> None:
    charge = await _a_charge(books)
    await books.session.execute(text("DROP INDEX uq_payment_transaction_paid_once"))
    books.session.add(
        Transaction(
            created_at=charge.created_at,
            account_id=charge.account_id,
            invoice_id=charge.invoice_id,
            kind=TransactionKind.CHARGE,
            status=TransactionStatus.SUCCEEDED,
            currency=charge.currency,
            amount_minor=charge.amount_minor,
            description="again",
            processor_key="again",
            processor_id="ch_again",
        )
    )
    await books.session.flush()


@damage("I3", says="has no id of the processor")
async def a_charge_loses_its_id(books: Damaged) -> None:
    await books.change(Transaction, (await _a_charge(books)).id, processor_id=None)


@damage("I3", says="the processor says SUCCEEDED, 1.00 USD")
async def the_processor_took_another_amount(books: Damaged) -> None:
    charge = await _charge_of_processor(books)
    await books.session.execute(update(SandboxCharge).where(charge).values(amount_minor=100))


@damage("I3", says="the processor says SUCCEEDED, 177.31 EUR")
async def the_processor_took_another_currency(books: Damaged) -> None:
    charge = await _charge_of_processor(books)
    await books.session.execute(update(SandboxCharge).where(charge).values(currency="EUR"))


@damage("I3", says="the processor says FAILED")
async def the_processor_took_nothing(books: Damaged) -> None:
    charge = await _charge_of_processor(books)
    await books.session.execute(update(SandboxCharge).where(charge).values(status=TransactionStatus.FAILED))


@damage("I3", says="the processor does not know it")
async def the_processor_knows_nothing_of_a_charge(books: Damaged) -> None:
    charge = await _charge_of_processor(books)
    await books.session.execute(delete(SandboxCharge).where(charge))


@damage("I3", says="The processor has a charge ch_stray (SUCCEEDED, 5.00 USD) for stray")
async def the_processor_has_a_charge_of_its_own(books: Damaged) -> None:
    await books.session.execute(
        insert(SandboxCharge).values(
            key="stray",
            processor_id="ch_stray",
            token="pm_card_visa",
            currency="USD",
            amount_minor=500,
            status=TransactionStatus.SUCCEEDED,
            customer="cus_stray",
            created_at=NOW,
        )
    )


@damage("I2", "I3", says="counts 58.31 USD as paid; its payments come to 0.00 USD")
async def an_invoice_is_paid_without_a_payment(books: Damaged) -> None:
    invoice = await books.invoice("late", Invoice.status == InvoiceStatus.OPEN)
    await books.change(Invoice, invoice.id, status=InvoiceStatus.PAID, paid_minor=invoice.total_minor)


@damage("I3", says="was tried 2 times for issue")
async def an_invoice_is_tried_twice_for_one_step(books: Damaged) -> None:
    await books.session.execute(text("DROP INDEX uq_payment_transaction_step"))
    of_dunning = Transaction.step.startswith("dunning:")
    row = await books.one(Transaction.id, Transaction.account_id == books.ids["debtor"], of_dunning)
    await books.change(Transaction, row, step="issue")


async def _refund(books: Damaged, name: str, *where: Any) -> Transaction:
    row = await books.one(
        Transaction,
        Transaction.account_id == books.ids[name],
        Transaction.kind == TransactionKind.REFUND,
        *where,
        by=Transaction.created_at,
    )
    assert isinstance(row, Transaction)
    return row


BY_PROCESSOR = Transaction.processor_id.is_not(None)
BY_HAND = Transaction.processor_id.is_(None)


@damage("I3", says="the processor says SUCCEEDED, 1.00 USD")
async def the_processor_paid_another_amount_back(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    is_it = SandboxRefund.key == refund.processor_key
    await books.session.execute(update(SandboxRefund).where(is_it).values(amount_minor=100))


@damage("I3", says="the processor says FAILED, 20.00 USD")
async def the_processor_paid_nothing_back(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    is_it = SandboxRefund.key == refund.processor_key
    await books.session.execute(update(SandboxRefund).where(is_it).values(status=TransactionStatus.FAILED))


@damage("I3", says="the processor does not know it")
async def the_processor_knows_nothing_of_a_refund(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    await books.session.execute(delete(SandboxRefund).where(SandboxRefund.key == refund.processor_key))


@damage("I3", says="The processor has a refund re_stray (SUCCEEDED, 5.00 USD) for stray")
async def the_processor_has_a_refund_of_its_own(books: Damaged) -> None:
    await books.session.execute(
        insert(SandboxRefund).values(
            key="stray",
            processor_id="re_stray",
            charge_id=(await _a_charge(books)).processor_id,
            amount_minor=500,
            status=TransactionStatus.SUCCEEDED,
            created_at=NOW,
        )
    )


@damage("I3", says="the processor says CANCELED, 177.31 USD")
async def the_processor_says_that_a_dispute_was_won(books: Damaged) -> None:
    await books.session.execute(update(SandboxDispute).values(status=TransactionStatus.CANCELED))


@damage("I3", says="The processor told of the charge ch_unknown (message evt_1, heard at 2026-11-25")
async def the_processor_tells_of_what_is_unknown(books: Damaged) -> None:
    await books.session.execute(
        insert(ProcessorEvent).values(
            id="evt_1", kind="CHARGE", subject="ch_unknown", heard_at=NOW, outcome="UNKNOWN_OBJECT"
        )
    )


# I4


@damage("I3", "I4", says="was to be paid with 177.31 USD, and 177.32 USD was paid")
async def more_is_paid_than_was_due(books: Damaged) -> None:
    invoice = await books.invoice("tried")
    await books.change(Invoice, invoice.id, paid_minor=invoice.paid_minor + 1)


@damage("I4", says="is paid, with 0.30 USD due")
async def a_paid_invoice_has_something_due(books: Damaged) -> None:
    invoice = await books.invoice("small", Invoice.carried_out_minor > 0)
    await books.change(Invoice, invoice.id, carried_out_minor=0)


@damage("I4", "I6", says="has a subtotal of 149.01 USD, and its lines come to 149.00 USD")
async def a_subtotal_is_changed(books: Damaged) -> None:
    invoice = await books.invoice("tried")
    await books.change(Invoice, invoice.id, subtotal_minor=invoice.subtotal_minor + 1)


@damage("I4", says="and its tax rows come to 28.30 USD")
async def a_tax_row_is_changed(books: Damaged) -> None:
    row = await books.one(InvoiceTax, InvoiceTax.invoice_id == (await books.invoice("tried")).id)
    await books.change(InvoiceTax, row.id, amount_minor=row.amount_minor - 1)


@damage("I4", says="and by its basis 14800 in minor units")
async def a_line_has_another_reason(books: Damaged) -> None:
    row = await books.one(InvoiceLine, InvoiceLine.invoice_id == (await books.invoice("tried")).id)
    await books.change(InvoiceLine, row.id, basis={**row.basis, "price": 14_800})


@damage("I4", says="and its basis cannot be reckoned")
async def a_line_has_no_reason(books: Damaged) -> None:
    row = await books.one(InvoiceLine, InvoiceLine.invoice_id == (await books.invoice("tried")).id)
    await books.change(InvoiceLine, row.id, basis={})


@damage("I4", "I6", says="was credited of 1430.00 USD")
async def a_line_is_credited_beyond_its_net(books: Damaged) -> None:
    row = await books.one(
        CreditNoteLine, CreditNoteLine.account_id == books.ids["upgrader"], by=CreditNoteLine.amount_minor.desc()
    )
    await books.change(CreditNoteLine, row.id, amount_minor=row.amount_minor + 20_000)


@damage("I4", says="has the tax DE S 19 %")
async def the_tax_of_a_credit_is_changed(books: Damaged) -> None:
    row = await books.one(CreditNoteTax, CreditNoteTax.account_id == books.ids["upgrader"])
    await books.change(CreditNoteTax, row.id, amount_minor=row.amount_minor + 1)


@damage("I2", "I4", says="was lowered by 1.00 USD, and by its credit notes by 0.00 USD")
async def an_invoice_is_lowered_without_a_credit_note(books: Damaged) -> None:
    invoice = await books.invoice("late", Invoice.status == InvoiceStatus.OPEN)
    await books.change(Invoice, invoice.id, credited_minor=100)


@damage("I2", "I4", says="moves 0.00 USD")
async def a_transaction_moves_nothing(books: Damaged) -> None:
    row = await books.one(
        Transaction, Transaction.account_id == books.ids["small"], Transaction.kind == TransactionKind.CREDIT
    )
    await books.change(Transaction, row.id, amount_minor=0)


@damage("I2", "I4", says="was written off by 178.79 EUR, and by its transactions by 178.80 EUR")
async def less_was_written_off_than_was_due(books: Damaged) -> None:
    invoice = await books.invoice("sent", Invoice.status == InvoiceStatus.UNCOLLECTIBLE)
    await books.change(Invoice, invoice.id, written_off_minor=invoice.written_off_minor - 1)


@damage("I2", "I4", says="is open, though")
async def what_was_written_off_is_open_again(books: Damaged) -> None:
    invoice = await books.invoice("sent", Invoice.status == InvoiceStatus.UNCOLLECTIBLE)
    await books.change(Invoice, invoice.id, status=InvoiceStatus.OPEN)


@damage("I2", "I4", says="is uncollectible, with nothing due")
async def what_was_given_up_was_paid(books: Damaged) -> None:
    invoice = await books.invoice("sent", Invoice.status == InvoiceStatus.UNCOLLECTIBLE)
    await books.change(Invoice, invoice.id, credited_minor=invoice.total_minor)


async def _payment(books: Damaged, kind: TransactionKind) -> Transaction:
    row = await books.one(
        Transaction,
        Transaction.account_id == books.ids["refunded"],
        Transaction.kind == kind,
        Transaction.refund_state != RefundState.NONE,
        by=Transaction.created_at,
    )
    assert isinstance(row, Transaction)
    return row


@damage("I2", "I3", "I4", says="counts 177.32 USD of 177.31 USD as beyond what was due")
async def more_is_owed_back_than_came(books: Damaged) -> None:
    payment = await _payment(books, TransactionKind.MANUAL)
    if is_postgres(books.session):
        await books.session.execute(
            text("ALTER TABLE payment_transaction DROP CONSTRAINT ck_payment_transaction_excess_is_a_part")
        )
    else:
        await books.session.execute(text("PRAGMA ignore_check_constraints = ON"))
    await books.change(Transaction, payment.id, excess_minor=payment.amount_minor + 1)


@damage("I2", "I3", "I4", says="was beyond what was due by 177.30 USD, and 177.31 USD goes back as paid twice")
async def less_was_paid_twice_than_goes_back(books: Damaged) -> None:
    payment = await _payment(books, TransactionKind.MANUAL)
    await books.change(Transaction, payment.id, excess_minor=payment.excess_minor - 1)


@damage("I2", "I3", "I4", "I6", says="is of 177.31 USD, and 177.32 USD of it goes back")
async def more_goes_back_than_came(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    payment = await _payment(books, TransactionKind.CHARGE)
    await books.change(Transaction, refund.id, amount_minor=payment.amount_minor + 1)


@damage("I2", "I3", "I4", says="paid 10.00 USD of its invoice, and 20.00 USD of that goes back")
async def what_was_owed_back_goes_back_for_another_reason(books: Damaged) -> None:
    payment = await _payment(books, TransactionKind.CHARGE)
    await books.change(Transaction, payment.id, excess_minor=payment.amount_minor - 1_000)


@damage("I4", says="says that it went back: FULL, and 20.00 USD of it did")
async def a_payment_says_that_it_went_back(books: Damaged) -> None:
    payment = await _payment(books, TransactionKind.CHARGE)
    await books.change(Transaction, payment.id, refund_state=RefundState.FULL)


@damage("I4", "I6", says="paid nothing, and of its 58.31 USD only 0.00 USD is owed back")
async def a_payment_paid_nothing(books: Damaged) -> None:
    charge = await books.one(
        Transaction.id,
        Transaction.account_id == books.ids["small"],
        Transaction.pending_change_id.is_not(None),
        Transaction.status == TransactionStatus.SUCCEEDED,
    )
    invoice_id = await books.one(Transaction.invoice_id, Transaction.id == charge)
    await books.change(Transaction, charge, invoice_id=None)
    await books.change(Invoice, invoice_id, paid_minor=0, carried_out_minor=5_831)


@damage("I4", says="was asked for by nobody")
async def nobody_asked_for_a_refund(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    await books.change(Transaction, refund.id, refund_request_id=None)


@damage("I4", says="is of no payment")
async def a_refund_is_of_nothing(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    await books.change(Transaction, refund.id, charge_id=None)


@damage("I4", says="was asked for of another payment")
async def a_refund_was_asked_for_of_another_payment(books: Damaged) -> None:
    refund = await _refund(books, "refunded", BY_HAND)
    of_processor = await _refund(books, "refunded", BY_PROCESSOR)
    await books.change(Transaction, refund.id, refund_request_id=of_processor.refund_request_id)


async def _request(books: Damaged, reason: RefundReason, status: RefundStatus, name: str = "refunded") -> RefundRequest:
    row = await books.one(
        RefundRequest,
        RefundRequest.account_id == books.ids[name],
        RefundRequest.reason == reason,
        RefundRequest.status == status,
        by=RefundRequest.amount_minor.desc(),
    )
    assert isinstance(row, RefundRequest)
    return row


@damage("I4", says="has 177.30 USD approved, and 177.31 USD refunded and 0.00 USD granted")
async def more_is_refunded_than_was_approved(books: Damaged) -> None:
    request = await _request(books, RefundReason.DUPLICATE, RefundStatus.SUCCEEDED)
    await books.change(RefundRequest, request.id, approved_minor=request.refund_minor - 1)


@damage("I2", "I4", says="is of what was paid twice, 177.31 USD, and 177.30 USD of it goes back")
async def what_was_paid_twice_goes_back_in_part(books: Damaged) -> None:
    request = await _request(books, RefundReason.DUPLICATE, RefundStatus.SUCCEEDED)
    await books.change(RefundRequest, request.id, refund_minor=request.refund_minor - 2, granted_minor=1)


@damage("I4", says="is requested, and 10.00 USD of it goes back")
async def something_is_approved_and_not_decided(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.REQUESTED)
    await books.change(RefundRequest, request.id, approved_minor=request.amount_minor)


@damage("I4", says="is approved with 20.00 USD to refund, and its refunds come to 20.00 USD, with 0.00 USD under way")
async def a_refund_that_was_made_is_still_approved(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED)
    await books.change(RefundRequest, request.id, status=RefundStatus.APPROVED)


@damage("I4", says="without a credit note")
async def a_refund_has_lost_its_credit_note(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED)
    await books.change(RefundRequest, request.id, credit_note_id=None)


@damage("I2", "I4", says="has 30.00 USD approved and 30.01 USD to pay back, and its credit note")
async def more_is_granted_than_the_credit_note_says(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED, "bounced")
    await books.change(RefundRequest, request.id, granted_minor=request.granted_minor + 1)


@damage("I4", says="is of what was paid twice, and has the credit note")
async def what_was_paid_twice_has_a_credit_note(books: Damaged) -> None:
    made = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED)
    request = await _request(books, RefundReason.DUPLICATE, RefundStatus.SUCCEEDED)
    await books.change(RefundRequest, request.id, credit_note_id=made.credit_note_id)


@damage("I2", "I4", says="gives 20.01 USD of 20.00 USD back by a refund")
async def a_credit_note_gives_more_back_than_its_total(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED)
    await books.change(CreditNote, request.credit_note_id, to_refund_minor=2_001)


@damage("I4", says="has the tax DE S 19 %")
async def the_tax_of_a_refund_is_changed(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED)
    row = await books.one(CreditNoteTax, CreditNoteTax.credit_note_id == request.credit_note_id)
    await books.change(CreditNoteTax, row.id, amount_minor=row.amount_minor + 3)


# I5


@damage("I5", says="000002 was never issued")
async def a_number_is_counted_and_not_given(books: Damaged) -> None:
    await books.session.execute(
        update(NumberSeries).where(NumberSeries.prefix == "INV-").values(last_number=NumberSeries.last_number + 1)
    )


@damage("I5", "I6", says="was never issued")
async def a_number_is_skipped(books: Damaged) -> None:
    invoice = await books.invoice("walled")
    await books.change(Invoice, invoice.id, number="INV-000007")


@damage("I5", "I6", says="is not a number of the series INV-")
async def a_number_is_of_another_series(books: Damaged) -> None:
    invoice = await books.invoice("walled")
    await books.change(Invoice, invoice.id, number="CN-000001")


@damage("I5", says="before the number before it")
async def a_number_is_issued_too_early(books: Damaged) -> None:
    invoice = await books.invoice("tried", Invoice.kind == InvoiceKind.PERIOD)
    assert invoice.issued_at is not None
    await books.change(Invoice, invoice.id, issued_at=invoice.issued_at - timedelta(days=20))


@damage("I5", says="was given already")
async def a_series_is_set_back(books: Damaged) -> None:
    await books.session.execute(update(NumberSeries).where(NumberSeries.prefix == "INV-").values(last_number=0))


@damage("I5", says="and no row that counts them")
async def a_series_is_lost(books: Damaged) -> None:
    await books.session.execute(delete(NumberSeries).where(NumberSeries.prefix == "INV-"))


# I6


@damage("I6", says="was frozen as 000000000000…")
async def the_hash_of_an_invoice_is_changed(books: Damaged) -> None:
    await books.change(Invoice, (await books.invoice("tried")).id, content_hash="0" * 64)


@damage("I6", says="whose content is")
async def a_frozen_document_is_changed(books: Damaged) -> None:
    row = await books.one(Document, Document.account_id == books.ids["tried"])
    await books.change(Document, row.id, content={**row.content, "total_minor": 1})


@damage("I6", says="has a document whose content cannot be read")
async def a_frozen_document_cannot_be_read(books: Damaged) -> None:
    row = await books.one(Document, Document.account_id == books.ids["tried"])
    await books.change(Document, row.id, content={})


@damage("I6", says="has no document")
async def a_document_is_deleted(books: Damaged) -> None:
    note = await books.one(CreditNoteLine.credit_note_id, CreditNoteLine.account_id == books.ids["upgrader"])
    row = await books.one(Document.id, Document.subject_id == note)
    await books.remove(Document, row)


@damage("I6", says="has other lines than was frozen")
async def the_text_of_a_line_is_changed(books: Damaged) -> None:
    row = await books.one(InvoiceLine.id, InvoiceLine.invoice_id == (await books.invoice("tried")).id)
    await books.change(InvoiceLine, row, description="Something else")


@damage("I6", says="has other buyer than was frozen")
async def the_buyer_is_changed(books: Damaged) -> None:
    invoice = await books.invoice("tried")
    await books.change(Invoice, invoice.id, bill_to={**invoice.bill_to, "name": "Somebody else"})


async def _a_receipt(books: Damaged) -> Document:
    """Of the first charge of an account."""
    is_his = Document.account_id == books.ids["tried"]
    found: Document = await books.one(Document, is_his, Document.kind == DocumentKind.RECEIPT)
    return found


@damage("I6", says="has no receipt")
async def a_receipt_is_deleted(books: Damaged) -> None:
    await books.remove(Document, (await _a_receipt(books)).id)


@damage("I6", says="has a receipt frozen as")
async def a_receipt_is_changed(books: Damaged) -> None:
    row = await _a_receipt(books)
    await books.change(Document, row.id, content={**row.content, "amount_minor": 1})


@damage("I6", says="has a receipt whose content cannot be read")
async def a_receipt_cannot_be_read(books: Damaged) -> None:
    await books.change(Document, (await _a_receipt(books)).id, content={})


@damage("I6", says="has other amount than was frozen: 17731, and 1 on the receipt")
async def a_receipt_is_forged_with_its_hash(books: Damaged) -> None:
    row = await _a_receipt(books)
    receipt = Receipt.model_validate({**row.content, "amount_minor": 1})
    await books.change(Document, row.id, content=receipt.model_dump(mode="json"), content_hash=receipt.digest())


@damage("I6", says="shows an RECEIPT that does not exist")
async def a_receipt_shows_nothing(books: Damaged) -> None:
    row = await _a_receipt(books)
    books.session.add(
        Document(
            created_at=NOW,
            account_id=row.account_id,
            kind=row.kind,
            subject_id=new_id(),
            content=row.content,
            content_hash=row.content_hash,
        )
    )
    await books.session.flush()


@damage("I6", says="and were drawn as")
async def drawn_pages_are_changed(books: Damaged) -> None:
    await books.change(DocumentBytes, await books.one(DocumentBytes.id), pdf=PDF + b"!")


@damage("I6", says="that does not exist")
async def a_document_shows_nothing(books: Damaged) -> None:
    row = await books.one(Document, Document.account_id == books.ids["tried"])
    books.session.add(
        Document(
            created_at=NOW,
            account_id=row.account_id,
            kind=row.kind,
            subject_id=new_id(),
            content=row.content,
            content_hash=row.content_hash,
        )
    )
    await books.session.flush()


# I8


async def _set_period(books: Damaged, *where: Any, **values: Any) -> None:
    start = await books.one(UsagePeriod.start_at, UsagePeriod.account_id == books.ids["tried"], *where)
    await books.session.execute(
        update(UsagePeriod)
        .where(UsagePeriod.account_id == books.ids["tried"], UsagePeriod.start_at == start)
        .values(**values)
    )


CLOSED = UsagePeriod.closed_at.is_not(None)
DAY = timedelta(days=1)


@damage("I8", says="begins before the last one ends")
async def usage_periods_overlap(books: Damaged) -> None:
    end = await books.one(UsagePeriod.end_at, UsagePeriod.account_id == books.ids["tried"], CLOSED)
    await _set_period(books, CLOSED, end_at=end + DAY)


@damage("I8", says="there is no usage period, and no cancellation")
async def usage_periods_leave_a_gap(books: Damaged) -> None:
    end = await books.one(UsagePeriod.end_at, UsagePeriod.account_id == books.ids["tried"], CLOSED)
    await _set_period(books, CLOSED, end_at=end - DAY)


@damage("I8", says="was never closed")
async def a_usage_period_is_open_still(books: Damaged) -> None:
    await _set_period(books, CLOSED, closed_at=None)


@damage("I8", says="which does not exist")
async def the_running_usage_period_is_missing(books: Damaged) -> None:
    running = UsagePeriod.closed_at.is_(None)
    await books.session.execute(delete(UsagePeriod).where(UsagePeriod.account_id == books.ids["tried"], running))


@damage("I8", says="was never billed")
async def a_billing_period_is_not_billed(books: Damaged) -> None:
    row = await books.one(Subscription, Subscription.account_id == books.ids["tried"])
    await books.change(Subscription, row.id, current_period_end=row.current_period_end + DAY)


@damage("I2", "I8", says="is charged twice: by")
async def a_plan_is_charged_twice(books: Damaged) -> None:
    row = await books.one(
        InvoiceLine,
        InvoiceLine.account_id == books.ids["upgrader"],
        InvoiceLine.kind == LineKind.CREDIT,
        InvoiceLine.plan_key == "starter",
    )
    await books.change(InvoiceLine, row.id, credited_line_id=None)


# I7


async def _of(books: Damaged, table: type[Base], name: str = "walled", metric: str = "email_sends") -> Any:
    """Which rows of a table are an account's of a metric."""
    columns = table.__table__.c
    return (columns.account_id == books.ids[name]) & (columns.metric_key == metric)


@damage("I7", says="was accepted, and is stored 0 times")
async def a_usage_event_is_lost(books: Damaged) -> None:
    await books.session.execute(delete(UsageEvent).where(await _of(books, UsageEvent)))


@damage("I7", says="was accepted, and is stored 2 times")
async def a_usage_event_is_stored_twice(books: Damaged) -> None:
    row = await books.one(UsageEvent, await _of(books, UsageEvent))
    columns = {column.key: getattr(row, column.key) for column in UsageEvent.__table__.c}
    await books.session.execute(insert(UsageEvent).values(**columns | {"id": new_id()}))


@damage("I7", says="was never accepted, and is stored 1 times")
async def the_id_of_a_usage_event_is_lost(books: Damaged) -> None:
    await books.session.execute(delete(UsageEventId).where(UsageEventId.account_id == books.ids["walled"]))


@damage("I7", says="email_sends from 2026-11-25 12:00:00+00:00 is counted as 44,999, and its events sum to 45,000")
async def a_counter_is_changed(books: Damaged) -> None:
    await books.session.execute(update(Counter).where(await _of(books, Counter)).values(used=44_999))


@damage("I7", says="team_members is counted as 0, and its events sum to 5")
async def the_step_of_a_gauge_is_in_no_figure(books: Damaged) -> None:
    await books.session.execute(delete(Counter).where(await _of(books, Counter, metric="team_members")))


@damage("I7", says="and its history sums to 45,001 by days and 45,000 by hours")
async def a_day_of_history_is_changed(books: Damaged) -> None:
    is_day = (await _of(books, UsageRollup)) & (UsageRollup.granularity == "DAY")
    await books.session.execute(update(UsageRollup).where(is_day).values(quantity=45_001))


@damage("I7", says="and its costs sum to")
async def what_usage_cost_is_changed(books: Damaged) -> None:
    # The budget goes along with it: only the rating tells.
    yearly = UsageCost.account_id == books.ids["yearly"]
    start = await books.one(UsageCost.period_start, yearly, UsageCost.cost_minor > 0)
    await books.session.execute(
        update(UsageCost).where(yearly, UsageCost.period_start == start).values(cost_minor=UsageCost.cost_minor + 1)
    )
    of_period = (BudgetPeriod.account_id == books.ids["yearly"]) & (BudgetPeriod.period_start == start)
    await books.session.execute(update(BudgetPeriod).where(of_period).values(spent_minor=BudgetPeriod.spent_minor + 1))


@damage("I7", says="The budget of ACCOUNT says that 14,899 is spent")
async def what_is_spent_of_a_budget_is_changed(books: Damaged) -> None:
    walled = BudgetPeriod.account_id == books.ids["walled"]
    await books.session.execute(update(BudgetPeriod).where(walled).values(spent_minor=14_899))


@damage("I9", says="has 14,900 of 18,000 spent, and its open alerts are []")
async def an_alert_of_a_budget_is_resolved_too_early(books: Damaged) -> None:
    walled = (Alert.account_id == books.ids["walled"]) & (Alert.kind == AlertKind.BUDGET)
    await books.session.execute(update(Alert).where(walled).values(resolved_at=NOW))


async def _rating(books: Damaged) -> Any:
    """Which rating is of the period in which much was used, corrected up and down."""
    start = await books.one(
        UsageRating.period_start, await _of(books, UsageRating, "yearly"), UsageRating.invoiced_minor > 0
    )
    return (await _of(books, UsageRating, "yearly")) & (UsageRating.period_start == start)


@damage("I7", says="was counted and closed, and never rated")
async def a_rating_is_deleted(books: Damaged) -> None:
    await books.session.execute(delete(UsageRating).where(await _rating(books)))


@damage("I7", says="minor units, and is settled with 0")
async def a_rating_forgets_what_was_invoiced(books: Damaged) -> None:
    await books.session.execute(update(UsageRating).where(await _rating(books)).values(invoiced_minor=0))


@damage("I7", says="minor units were invoiced, and lines say")
async def a_rating_says_more_than_lines_do(books: Damaged) -> None:
    await books.session.execute(update(UsageRating).where(await _rating(books)).values(invoiced_minor=10**9))


@damage("I7", says="is charged 2 times")
async def overage_is_charged_twice(books: Damaged) -> None:
    is_more = (InvoiceLine.kind == LineKind.CORRECTION) & (InvoiceLine.amount_minor > 0)
    row = await books.one(InvoiceLine, InvoiceLine.account_id == books.ids["yearly"], is_more)
    await books.change(InvoiceLine, row.id, kind=LineKind.OVERAGE)


# I9


async def _alert(books: Damaged, threshold: int = 90, subject: str = "email_sends") -> Alert:
    row = await books.one(
        Alert,
        Alert.account_id == books.ids["walled"],
        Alert.subject == subject,
        Alert.threshold == threshold,
    )
    assert isinstance(row, Alert)
    return row


async def _raised(books: Damaged) -> OutboxEvent:
    """What tells of that alert."""
    alert = await _alert(books)
    row = await books.one(
        OutboxEvent, OutboxEvent.account_id == alert.account_id, OutboxEvent.sequence == alert.sequence
    )
    assert isinstance(row, OutboxEvent)
    return row


@damage("I9", says="which does not exist")
async def an_alert_is_deleted(books: Damaged) -> None:
    await books.remove(Alert, (await _alert(books)).id)


@damage("I9", says="email_sends stands at 45,000 of 50,000, and 90 % has 0 open alerts")
async def an_alert_is_resolved_too_early(books: Damaged) -> None:
    await books.change(Alert, (await _alert(books)).id, resolved_at=NOW)


@damage("I9", says="of email_sends at 90 % was never told of")
async def an_alert_was_not_told_of(books: Damaged) -> None:
    await books.remove(OutboxEvent, (await _raised(books)).id)


@damage("I9", says="of email_sends at 90 % was told of 2 times")
async def an_alert_was_told_of_twice(books: Damaged) -> None:
    row = await _raised(books)
    columns = {column.key: getattr(row, column.key) for column in OutboxEvent.__table__.c}
    again = columns | {"id": new_id(), "position": None, "sequence": 10**6}
    await books.session.execute(insert(OutboxEvent).values(**again))


@damage("I9", says=", and was told of at")
async def an_alert_stands_at_another_place_than_its_event(books: Damaged) -> None:
    alert = await _alert(books)
    await books.change(Alert, alert.id, sequence=alert.sequence + 1)


async def _add_alert(books: Damaged, **given: Any) -> None:
    """One more alert like another, with its event."""
    row = await _alert(books)
    columns = {column.key: getattr(row, column.key) for column in Alert.__table__.c}
    made = columns | {"id": new_id(), "sequence": 10**6} | given
    await books.session.execute(insert(Alert).values(**made))
    event = OutboxEvent(
        account_id=made["account_id"],
        sequence=made["sequence"],
        kind="usage.alert_raised",
        payload={"alertId": str(made["id"])},
        at=NOW,
    )
    books.session.add(event)
    await books.session.flush()


@damage("I9", says="was raised a 2. time while the alert before it was open")
async def an_alert_is_open_twice(books: Damaged) -> None:
    await _add_alert(books, episode=2)


@damage("I9", says="has 2 alerts of one period, and their episodes are 1 to 3")
async def an_episode_is_missing(books: Damaged) -> None:
    await books.change(Alert, (await _alert(books)).id, resolved_at=NOW)
    await _add_alert(books, episode=3)


@damage("I9", says="of email_sends at 85 % is open, and of no such threshold")
async def an_alert_of_a_threshold_that_is_no_more_is_open(books: Damaged) -> None:
    await _add_alert(books, threshold=85, level=AlertLevel.WARNING)


@damage("I9", says="of email_sends at 90 % is open, and of a period that is over")
async def an_alert_of_a_period_that_is_over_is_open(books: Damaged) -> None:
    long_ago = NOW - 40 * DAY
    await _add_alert(books, period_start=long_ago, period_end=NOW - 2 * DAY, raised_at=long_ago)


@damage("I9", says="of email_sends at 90 % is open, and of an account that is left")
async def an_alert_of_a_canceled_account_is_open(books: Damaged) -> None:
    await _add_alert(books, account_id=books.ids["leaver"], kind=AlertKind.USAGE)


async def _add_spike(books: Damaged, name: str = "walled", **given: Any) -> None:
    """An alert of an unusual day, with its event."""
    day = {"period_start": NOW - DAY, "period_end": NOW, "threshold": 0, "used": 900, "ceiling": 100, **given}
    await _add_alert(books, kind=AlertKind.SPIKE, account_id=books.ids[name], **day)


@damage("I9", says="tells of no more than is usual")
async def an_unusual_day_has_no_more_than_others(books: Damaged) -> None:
    await _add_spike(books, used=100, resolved_at=NOW)


@damage("I9", says="is open, and of a day that is over")
async def an_unusual_day_that_is_over_is_open(books: Damaged) -> None:
    await _add_spike(books, period_start=NOW - 4 * DAY, period_end=NOW - 3 * DAY)


@damage("I9", says="is open where they are switched off")
async def an_unusual_day_is_open_though_switched_off(books: Damaged) -> None:
    await books.change(BillingAccount, books.ids["walled"], spike_alerts=False)
    await _add_spike(books)


@damage("I9", says="is open, and of an account that is left")
async def an_unusual_day_of_a_canceled_account_is_open(books: Damaged) -> None:
    await _add_spike(books, "leaver")


@damage("I9", says="team_members stands at 5, and the alert of 100 % is open")
async def an_alert_of_a_gauge_below_is_open(books: Damaged) -> None:
    """Without a limit nothing is reached."""
    is_it = await _of(books, EffectiveLimit, metric="team_members")
    await books.session.execute(update(EffectiveLimit).where(is_it).values(quantity=None))


# I11


async def _remember(books: Damaged, mutation: str, key: str, answer: dict[str, Any], name: str = "refunded") -> None:
    await books.session.execute(
        insert(IdempotencyKey).values(
            principal=ACTOR.name,
            mutation=mutation,
            scope=str(books.ids[name]),
            key=key,
            input_hash="",
            answer=answer,
            created_at=NOW,
        )
    )


@damage("I11", says="recordPayment of operator:test under the key 'k1' was answered with the transaction")
async def what_was_answered_does_not_exist(books: Damaged) -> None:
    await _remember(books, "recordPayment", "k1", {"transactionId": str(new_id())})


@damage("I11", says="which is another account's")
async def what_was_answered_is_another_account_s(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED)
    await _remember(books, "requestRefund", "k1", {"refundRequestId": str(request.id)}, name="tried")


@damage("I11", says="2 keys of recordPayment were answered with the same transaction")
async def two_keys_have_one_answer(books: Damaged) -> None:
    payment = await _payment(books, TransactionKind.MANUAL)
    for key in ("k1", "k2"):
        await _remember(books, "recordPayment", key, {"transactionId": str(payment.id)})


# I12


async def _of_other(books: Damaged, column: Any) -> Any:
    return await books.one(column, column.class_.account_id == books.ids["upgrader"], by=column.class_.id)


@damage("I12", says="payment_transaction")
async def a_charge_is_by_another_account_s_card(books: Damaged) -> None:
    card = await _of_other(books, PaymentMethod.id)
    await books.change(Transaction, (await _a_charge(books)).id, payment_method_id=card)


@damage("I12", says="points by pending_change_id at pending_change")
async def a_charge_pays_another_account_s_change(books: Damaged) -> None:
    change = await _of_other(books, PendingChange.id)
    await books.change(Transaction, (await _a_charge(books)).id, pending_change_id=change)


@damage("I4", "I12", says="points by refund_request_id at refund_request")
async def a_refund_is_for_another_account_s_request(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.SUCCEEDED, "bounced")
    refund = await _refund(books, "refunded", BY_PROCESSOR)
    await books.change(Transaction, refund.id, refund_request_id=request.id)


@damage("I12", says="dunning")
async def dunning_is_for_another_account_s_invoice(books: Damaged) -> None:
    row = await books.one(Dunning.id, Dunning.account_id == books.ids["debtor"])
    await books.change(Dunning, row, invoice_id=await _of_other(books, Invoice.id))


@damage("I12", says="points by subject_id at payment_transaction")
async def a_receipt_is_another_account_s(books: Damaged) -> None:
    row = await books.one(Document.id, Document.kind == DocumentKind.RECEIPT)
    await books.change(Document, row, account_id=books.ids["walled"])


def test_every_column_that_names_another_row_is_looked_at() -> None:
    looked_at = {f"{pointer.column.table.name}.{pointer.column.name}" for pointer in list_pointers()}
    assert looked_at >= {
        "export_part.export_id",
        "payment_transaction.invoice_id",
        "payment_transaction.payment_method_id",
        "payment_transaction.charge_id",
        "payment_transaction.refund_request_id",
        "payment_transaction.pending_change_id",
        "payment_transaction.carried_to_invoice_id",
        "refund_request.charge_id",
        "refund_request.credit_note_id",
        "dunning.invoice_id",
        "credit_note.invoice_id",
        "credit_note_line.credit_note_id",
        "credit_note_line.credited_line_id",
        "credit_note_tax.credit_note_id",
        "invoice_line.invoice_id",
        "invoice_line.credited_line_id",
        "invoice_tax.invoice_id",
        "deferral.line_id",
        "ledger_posting.entry_id",
        "document.subject_id",
        "document_bytes.document_id",
        "api_key_account.member_id",
    }


# I13


@damage("I13", says="is not what was written")
async def an_audit_entry_is_changed(books: Damaged) -> None:
    row = await books.one(AuditEntry.id, AuditEntry.action == "invoice.finalized")
    await books.change(AuditEntry, row, actor="somebody:else")


@damage("I13", says="where 2 should be")
async def an_audit_entry_is_cut_out(books: Damaged) -> None:
    await books.remove(AuditEntry, await books.one(AuditEntry.id, AuditEntry.number == 2))


@damage("I13", says="The audit log ends with entry")
async def the_end_of_the_audit_log_is_cut_off(books: Damaged) -> None:
    account = await books.session.get_one(BillingAccount, books.ids["tried"])
    last = AuditEntry.number == account.audit_count
    await books.remove(AuditEntry, await books.one(AuditEntry.id, AuditEntry.account_id == account.id, last))


@damage("I13", says="does not follow from the one before it")
async def an_audit_entry_is_hashed_anew(books: Damaged) -> None:
    row = await books.one(AuditEntry.id, AuditEntry.action == "invoice.finalized")
    await books.change(AuditEntry, row, previous_hash="0" * 64)


@damage("I13", says="is not what was written")
async def a_byte_of_an_audit_entry_s_details_is_flipped(books: Damaged) -> None:
    entry = await books.one(AuditEntry, AuditEntry.action == "invoice.finalized")
    name, value = next(iter(entry.after.items()))
    await books.change(AuditEntry, entry.id, after={**entry.after, name: f"{value}"[:-1] + "~"})


@damage("I13", says="is not what was written")
async def the_hash_of_erased_details_is_changed(books: Damaged) -> None:
    entry = await books.one(AuditEntry, AuditEntry.action == "invoice.finalized")
    await books.change(AuditEntry, entry.id, details_hash=hash_details(entry.before, {**entry.after, "more": 1}))


@damage("I13", says="are gone, and no entry says by whom")
async def details_are_erased_by_nobody(books: Damaged) -> None:
    entry = await books.one(AuditEntry, AuditEntry.action == "invoice.finalized")
    details_hash = hash_details(entry.before, entry.after)
    await books.change(AuditEntry, entry.id, before={}, after={}, details_hash=details_hash)


@damage("I13", says="is not what was written")
async def an_audit_entry_of_the_deployment_is_changed(books: Damaged) -> None:
    entry = await books.one(AuditEntry, AuditEntry.account_id.is_(None), AuditEntry.action == "tax_table.added")
    await books.change(AuditEntry, entry.id, after={"changes": entry.after["changes"][1:]})


@damage("I13", says="and the deployment remembers")
async def the_end_of_the_deployment_s_log_is_cut_off(books: Damaged) -> None:
    last = await books.one(Deployment.audit_count)
    is_last = [AuditEntry.account_id.is_(None), AuditEntry.number == last]
    await books.remove(AuditEntry, await books.one(AuditEntry.id, *is_last))


def _silence(action: str, says: str) -> None:
    async def made(books: Damaged) -> None:
        await books.remove(AuditEntry, await books.one(AuditEntry.id, AuditEntry.action == action))

    made.__name__ = f"nobody_is_said_to_have_made_{action.replace('.', '_')}"
    damage("I13", says=f"The audit log does not tell {says}")(made)


_silence("payment.succeeded", "what became of the transaction")
_silence("payment.recorded", "what became of the transaction")
_silence("invoice.finalized", "who issued TST-")
_silence("invoice.voided", "who withdrew TST-")
_silence("invoice.uncollectible", "who gave up TST-")
_silence("credit_note.issued", "who issued TST-")
_silence("refund.requested", "who made the request")
_silence("refund.approved", "who decided on the request")


@damage("I2", "I13", says="what became of the transaction")
async def credit_is_given_by_nobody(books: Damaged) -> None:
    await _add_transaction(books, TransactionKind.CREDIT, TransactionStatus.SUCCEEDED)


# I14


async def _add_transaction(
    books: Damaged, kind: TransactionKind, status: TransactionStatus, name: str = "walled", **given: Any
) -> Transaction:
    row = Transaction(
        created_at=given.pop("created_at", NOW),
        account_id=books.ids[name],
        kind=kind,
        status=status,
        currency="USD",
        amount_minor=100,
        description="added",
        **given,
    )
    books.session.add(row)
    await books.session.flush()
    return row


HOUR = timedelta(hours=1)


@damage("I14", says="of 1.00 USD is unknown since 2026-11-24 11:00:00+00:00")
async def nobody_knows_what_became_of_a_charge(books: Damaged) -> None:
    at = NOW - 25 * HOUR
    await _add_transaction(books, TransactionKind.CHARGE, TransactionStatus.UNKNOWN, created_at=at)


@damage("I14", says="of 1.00 USD is pending since 2025-08-31")
async def a_charge_is_pending_by_its_account_s_clock(books: Damaged) -> None:
    at = datetime(2025, 8, 31, 11, tzinfo=UTC)
    await _add_transaction(books, TransactionKind.CHARGE, TransactionStatus.PENDING, "tried", created_at=at)


@damage("I4", "I14", says="The refund")
async def nobody_knows_what_became_of_a_refund(books: Damaged) -> None:
    request = await _request(books, RefundReason.GOODWILL, RefundStatus.REQUESTED)
    await _add_transaction(
        books,
        TransactionKind.REFUND,
        TransactionStatus.UNKNOWN,
        "refunded",
        created_at=datetime(2025, 2, 5, tzinfo=UTC),
        charge_id=request.charge_id,
        refund_request_id=request.id,
    )


@damage("I13", "I14", says="could be confirmed until 2026-11-25 10:59:00+00:00, and nothing gives it up")
async def nothing_gives_up_what_was_not_confirmed(books: Damaged) -> None:
    until = NOW - timedelta(minutes=61)
    await _add_transaction(
        books, TransactionKind.CHARGE, TransactionStatus.REQUIRES_ACTION, created_at=NOW - DAY, expires_at=until
    )


@damage("I14", says="setAddOn of operator:test under the key 'k1' has had no answer since 2026-11-25 10:00")
async def a_key_has_no_answer(books: Damaged) -> None:
    await _remember(books, "setAddOn", "k1", {})
    is_it = IdempotencyKey.key == "k1"
    await books.session.execute(update(IdempotencyKey).where(is_it).values(answer=None, created_at=NOW - 2 * HOUR))


async def _add_work(books: Damaged, kind: WorkKind, subject: str = "added", **given: Any) -> None:
    due_at = NOW - DAY - HOUR
    row = DueWork(
        created_at=due_at,
        account_id=books.ids["walled"],
        kind=kind,
        subject=subject,
        due_at=due_at,
        rank=WORK_RANK[kind],
    )
    for name, value in given.items():
        setattr(row, name, value)
    books.session.add(row)
    await books.session.flush()


@damage("I14", says="CLOSE_PERIOD was due at 2026-11-24 11:00:00+00:00, and is not done")
async def due_work_is_not_done(books: Damaged) -> None:
    await _add_work(books, WorkKind.CLOSE_PERIOD)


async def test_what_may_wait_is_no_finding(session: AsyncSession, books: Books) -> None:
    """Not for long enough, by its account's clock, given up by work that waits, done, drawn, or parked."""
    damaged = Damaged(session, books.ids)
    charge, add = TransactionKind.CHARGE, _add_transaction
    await add(damaged, charge, TransactionStatus.UNKNOWN, created_at=NOW - 23 * HOUR)
    await add(
        damaged, charge, TransactionStatus.PENDING, "tried", created_at=datetime(2025, 8, 31, 13, tzinfo=UTC)
    )  # the clock stands on September 1
    row = await add(damaged, charge, TransactionStatus.REQUIRES_ACTION, expires_at=NOW - 2 * HOUR)
    await _add_work(damaged, WorkKind.EXPIRE_ACTION, str(row.id), due_at=NOW)
    await _add_work(damaged, WorkKind.REMIND, done_at=NOW)
    await _add_work(damaged, WorkKind.DRAW_DOCUMENT)
    assert {finding.invariant for finding in await audited(session)} == {"I13"}
    await _add_work(damaged, WorkKind.CLOSE_PERIOD, parked_at=NOW)
    await _add_work(damaged, WorkKind.FINALISE_INVOICE)  # waits for the one before it
    assert {finding.invariant for finding in await audited(session)} == {"I13"}


@pytest.mark.parametrize(("made", "invariants", "says"), [pytest.param(*row, id=row[0].__name__) for row in DAMAGES])
async def test_damage_is_named(
    session: AsyncSession, books: Books, made: Damage, invariants: set[str], says: str
) -> None:
    await made(Damaged(session, books.ids))
    found = await audited(session)
    assert {finding.invariant for finding in found} == invariants, found
    assert any(says in finding.what for finding in found), found


async def test_much_damage_is_told_in_part(session: AsyncSession) -> None:
    async with unguarded(session, LedgerPosting):
        await session.execute(update(LedgerPosting).values(amount_minor=LedgerPosting.amount_minor * 2 + 1))
    told = [finding for finding in await audited(session) if finding.invariant == "I1"]
    assert len(told) == SHOWN + 1
    assert told[-1].what.startswith("… and ")
    assert told[-1].what.endswith(" more.")
