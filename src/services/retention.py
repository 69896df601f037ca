"""Retention: invoices, credit notes and books go when their years are over, and never before."""

import logging
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import CursorResult, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from ..database import Actor, Database, Work
from ..models import (
    Base,
    BillingAccount,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Deferral,
    Document,
    DocumentBytes,
    DocumentKind,
    DueWork,
    Dunning,
    EntryKind,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    InvoiceTax,
    Issuer,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
    PendingChange,
    PurgePass,
    RefundReason,
    RefundRequest,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from .due_work import APART, Taken, claim, enqueue, finish, mark_vain
from .tills import Till

log = logging.getLogger("plafond.retention")


async def keep_until_due(work: Work, account: BillingAccount, issuer: Issuer, issued_at: datetime) -> None:
    """Have what was issued purged when it may be: `retentionYears` from the end of the year of issue."""
    year = issued_at.astimezone(ZoneInfo(issuer.timezone)).year
    await enqueue(work, account, WorkKind.PURGE, str(year), purged_from(issuer, year))


def purged_from(issuer: Issuer, year: int) -> datetime:
    """The first instant, in the issuer's zone, at which what was issued in a year may go."""
    zone = ZoneInfo(issuer.timezone)
    return datetime(year + issuer.retention_years + 1, 1, 1, tzinfo=zone).astimezone(UTC)


async def purge_year(work: Work, account: BillingAccount, year: str) -> Counter[str]:
    """Delete what was issued in a year, of one account. What a younger document still names stays until that goes.

    Gives how many rows went, by table.
    """
    session, gone = work.session, Counter[str]()
    subject, year = year, year.partition("@")[0]
    issuer = await session.get_one(Issuer, account.issuer_id)
    due_at = purged_from(issuer, int(year))
    if work.clock.now_for(account) < due_at:
        # The years to keep have grown since this was planned.
        await enqueue(work, account, WorkKind.PURGE, f"{year}@{due_at.year}", due_at)
        return gone
    if account.legal_hold is not None:
        await mark_vain(work, account, WorkKind.PURGE, subject)
        return gone

    async def drop(table: type[Base], *where: ColumnElement[bool]) -> None:
        result = await session.execute(delete(table).where(*where))
        assert isinstance(result, CursorResult), "rows were deleted"
        gone[str(table.__tablename__)] += result.rowcount

    zone = ZoneInfo(issuer.timezone)
    end = datetime(int(year) + 1, 1, 1, tzinfo=zone)
    session.add(PurgePass(account_id=account.id))
    await session.flush()
    notes = list(
        await session.scalars(
            select(CreditNote.id).where(CreditNote.account_id == account.id, CreditNote.issued_at < end)
        )
    )
    await drop(CreditNoteTax, CreditNoteTax.credit_note_id.in_(notes))
    await drop(CreditNoteLine, CreditNoteLine.credit_note_id.in_(notes))
    noted = RefundRequest.credit_note_id.in_(notes)
    await session.execute(update(RefundRequest).where(noted).values(credit_note_id=None))
    await drop(CreditNote, CreditNote.id.in_(notes))
    await session.flush()
    invoices = await _find_unneeded(work, account, end)
    lines = list(await session.scalars(select(InvoiceLine.id).where(InvoiceLine.invoice_id.in_(invoices))))
    for carried in await session.scalars(select(Transaction).where(Transaction.carried_to_invoice_id.in_(invoices))):
        carried.carried_to_invoice_id = carried.invoice_id if carried.invoice_id not in invoices else None
    await drop(Deferral, Deferral.line_id.in_(lines))
    await drop(InvoiceTax, InvoiceTax.invoice_id.in_(invoices))
    # First the lines that credit others of the same year, then the others.
    await drop(InvoiceLine, InvoiceLine.id.in_(lines), InvoiceLine.credited_line_id.is_not(None))
    await drop(InvoiceLine, InvoiceLine.id.in_(lines))
    # With them what was tried and came to nothing, and so made no invoice.
    failed = (TransactionStatus.FAILED, TransactionStatus.CANCELED)
    movements = list(
        await session.scalars(
            select(Transaction.id).where(
                or_(
                    Transaction.invoice_id.in_(invoices),
                    and_(
                        Transaction.account_id == account.id,
                        Transaction.invoice_id.is_(None),
                        Transaction.kind == TransactionKind.CHARGE,
                        Transaction.status.in_(failed),
                        Transaction.created_at < end,
                    ),
                )
            )
        )
    )
    await drop(RefundRequest, RefundRequest.charge_id.in_(movements))
    await drop(Transaction, Transaction.id.in_(movements))
    paid = select(Transaction.id).where(Transaction.pending_change_id == PendingChange.id).exists()
    is_ended = PendingChange.ended_at < end
    await drop(PendingChange, PendingChange.account_id == account.id, is_ended, ~paid)
    await drop(Dunning, Dunning.invoice_id.in_(invoices))
    await drop(Invoice, Invoice.id.in_(invoices))
    documents = list(
        await session.scalars(
            select(Document.id).where(
                Document.account_id == account.id, Document.subject_id.in_([*invoices, *notes, *movements])
            )
        )
    )
    await drop(DocumentBytes, DocumentBytes.document_id.in_(documents))
    await drop(Document, Document.id.in_(documents))
    await _bring_forward(work, account, end)
    await session.execute(delete(PurgePass).where(PurgePass.account_id == account.id))
    log.info("purged the books of %s of %s: %d invoices, %d credit notes", year, account.id, len(invoices), len(notes))
    work.audit(
        account,
        "documents.purged",
        f"billing_account:{account.id}",
        after={"year": int(year), "invoices": len(invoices), "creditNotes": len(notes)},
    )
    return +gone


class _Undone(Exception):
    """Rolls back what was only tried."""


async def preview_due(database: Database, actor: Actor, now: datetime) -> Counter[str]:
    """How many rows of books would go by now: each year that is due is purged, and that is undone."""
    found = Counter[str]()
    by_account: dict[UUID, list[str]] = defaultdict(list)
    for account_id, year in await _list_due(database, now):
        by_account[account_id].append(year)
    for account_id, years in by_account.items():
        with suppress(_Undone):
            async with database.work(actor) as work:
                account = (await work.lock_accounts([account_id]))[account_id]
                for year in years:
                    found += await purge_year(work, account, year)
                raise _Undone
    return found


async def purge_due(till: Till, now: datetime) -> Counter[str]:
    """Purge the books of each year that is due by now, unless other work of its account comes first."""
    gone = Counter[str]()
    for account_id in sorted({account_id for account_id, _ in await _list_due(till.database, now)}):
        while taken := await till.run(_claim, now, account_id):
            gone += await till.run(_purge_taken, taken)
    return gone


async def _claim(work: Work, now: datetime, account_id: UUID) -> Taken | None:
    taken = await claim(work, now, limit=1, account_id=account_id, kinds=frozenset({WorkKind.PURGE}))
    return taken[0] if taken else None


async def _purge_taken(work: Work, taken: Taken) -> Counter[str]:
    account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
    await finish(work, taken)
    return await purge_year(work, account, taken.subject)


async def _list_due(database: Database, now: datetime) -> list[tuple[UUID, str]]:
    earlier = aliased(DueWork)
    comes_first = exists().where(
        earlier.account_id == DueWork.account_id,
        earlier.done_at.is_(None),
        earlier.kind.not_in((*APART, WorkKind.PURGE)),
        or_(earlier.due_at < DueWork.due_at, and_(earlier.due_at == DueWork.due_at, earlier.rank < DueWork.rank)),
    )
    async with database.read() as session:
        rows = await session.execute(
            select(DueWork.account_id, DueWork.subject)
            .join(BillingAccount, BillingAccount.id == DueWork.account_id)
            .where(
                DueWork.kind == WorkKind.PURGE,
                DueWork.done_at.is_(None),
                DueWork.parked_at.is_(None),
                DueWork.due_at <= now,
                BillingAccount.test_clock_id.is_(None),
                ~comes_first,
            )
            .order_by(DueWork.due_at, DueWork.id)
        )
        return [(row.account_id, row.subject) for row in rows]


async def _find_unneeded(work: Work, account: BillingAccount, end: datetime) -> list[object]:
    """The invoices of the year and before that are settled, and that nothing younger names or has paid."""
    later = InvoiceLine.__table__.alias("later")
    noted = (
        select(CreditNoteLine.id)
        .join(InvoiceLine, InvoiceLine.id == CreditNoteLine.credited_line_id)
        .where(InvoiceLine.invoice_id == Invoice.id)
        .correlate(Invoice)
        .exists()
    )
    own = InvoiceLine.__table__.alias("own")
    newer = Invoice.__table__.alias("newer")
    credited = (
        select(later.c.id)
        .join(own, own.c.id == later.c.credited_line_id)
        .join(newer, newer.c.id == later.c.invoice_id)
        .where(own.c.invoice_id == Invoice.id, newer.c.issued_at >= end)
        .correlate(Invoice)
        .exists()
    )
    carried = (
        select(Transaction.id)
        .where(
            Transaction.invoice_id == Invoice.id,
            Transaction.kind == TransactionKind.CARRIED_FORWARD,
            Transaction.carried_to_invoice_id.is_(None),
        )
        .correlate(Invoice)
        .exists()
    )
    paid_later = (
        select(Document.id)
        .join(Transaction, Transaction.id == Document.subject_id)
        .where(Transaction.invoice_id == Invoice.id, Document.kind == DocumentKind.RECEIPT, Document.created_at >= end)
        .correlate(Invoice)
        .exists()
    )
    rows = await work.session.scalars(
        select(Invoice.id).where(
            Invoice.account_id == account.id,
            Invoice.issued_at < end,
            Invoice.status.not_in((InvoiceStatus.OPEN, InvoiceStatus.DRAFT)),
            ~noted,
            ~credited,
            ~carried,
            ~paid_later,
            ~_is_under_way(),
        )
    )
    return list(rows)


def _is_under_way() -> ColumnElement[bool]:
    """That money of an invoice is still to come, or to go back."""
    is_own = Transaction.invoice_id == Invoice.id
    open_ = (TransactionStatus.PENDING, TransactionStatus.REQUIRES_ACTION, TransactionStatus.UNKNOWN)
    asked = (
        select(RefundRequest.id)
        .join(Transaction, Transaction.id == RefundRequest.charge_id)
        .where(is_own, RefundRequest.status.in_((RefundStatus.REQUESTED, RefundStatus.APPROVED, RefundStatus.FAILED)))
    )
    given_back = (
        select(RefundRequest.id)
        .where(
            RefundRequest.charge_id == Transaction.id,
            RefundRequest.reason == RefundReason.DUPLICATE,
            RefundRequest.status == RefundStatus.SUCCEEDED,
        )
        .correlate(Transaction)
        .exists()
    )
    chased = select(Dunning.id).where(Dunning.invoice_id == Invoice.id, Dunning.ended_at.is_(None))
    dispute = aliased(Transaction)
    taken_by_bank = (
        select(dispute.id)
        .where(
            dispute.charge_id == Transaction.id,
            dispute.kind == TransactionKind.DISPUTE,
            dispute.status == TransactionStatus.SUCCEEDED,
            dispute.excess_minor > 0,
        )
        .correlate(Transaction)
        .exists()
    )
    is_owed = and_(Transaction.excess_minor > 0, Transaction.kind != TransactionKind.DISPUTE)
    moving = select(Transaction.id).where(
        is_own, or_(Transaction.status.in_(open_), and_(is_owed, ~given_back, ~taken_by_bank))
    )
    return or_(*(found.correlate(Invoice).exists() for found in (asked, chased, moving)))


async def _bring_forward(work: Work, account: BillingAccount, end: datetime) -> None:
    """Delete the entries before an instant; what they left on each account of the books stands as one entry there."""
    session = work.session
    rows = await session.execute(
        select(
            LedgerPosting.ledger_account,
            LedgerPosting.line_id,
            LedgerPosting.currency,
            func.sum(LedgerPosting.amount_minor),
        )
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .where(LedgerEntry.account_id == account.id, LedgerEntry.created_at < end)
        .group_by(LedgerPosting.ledger_account, LedgerPosting.line_id, LedgerPosting.currency)
    )
    left: dict[str, list[tuple[LedgerAccount, UUID | None, int]]] = defaultdict(list)
    for ledger_account, line_id, currency, amount_minor in rows:
        if amount_minor:
            left[currency].append((ledger_account, line_id, int(amount_minor)))
    entries = list(
        await session.scalars(
            select(LedgerEntry.id).where(LedgerEntry.account_id == account.id, LedgerEntry.created_at < end)
        )
    )
    await session.execute(delete(LedgerPosting).where(LedgerPosting.entry_id.in_(entries)))
    await session.execute(delete(LedgerEntry).where(LedgerEntry.id.in_(entries)))
    for currency, postings in left.items():
        entry = LedgerEntry(
            created_at=end,
            account_id=account.id,
            kind=EntryKind.BROUGHT_FORWARD,
            subject=f"billing_account:{account.id}",
            currency=currency,
        )
        session.add(entry)
        for ledger_account, line_id, amount_minor in postings:
            session.add(
                LedgerPosting(
                    created_at=end,
                    account_id=account.id,
                    entry_id=entry.id,
                    ledger_account=ledger_account,
                    currency=currency,
                    amount_minor=amount_minor,
                    line_id=line_id,
                )
            )
    await session.flush()
