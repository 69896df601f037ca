"""Retention: invoices, credit notes and books go when their years are over, and never before."""

from collections import defaultdict
from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from ..database import Work
from ..models import (
    BillingAccount,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Deferral,
    Document,
    DocumentBytes,
    DocumentKind,
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
    PurgePass,
    RefundReason,
    RefundRequest,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from .due_work import enqueue


async def keep_until_due(work: Work, account: BillingAccount, issuer: Issuer, issued_at: datetime) -> None:
    """Have what was issued purged when it may be: `retentionYears` from the end of the year of issue."""
    year = issued_at.astimezone(ZoneInfo(issuer.timezone)).year
    await enqueue(work, account, WorkKind.PURGE, str(year), purged_from(issuer, year))


def purged_from(issuer: Issuer, year: int) -> datetime:
    """The first instant, in the issuer's zone, at which what was issued in a year may go."""
    zone = ZoneInfo(issuer.timezone)
    return datetime(year + issuer.retention_years + 1, 1, 1, tzinfo=zone).astimezone(UTC)


async def purge_year(work: Work, account: BillingAccount, year: str) -> None:
    """Delete what was issued in a year, of one account. What a younger document still names stays until that goes."""
    session = work.session
    year = year.partition("@")[0]
    issuer = await session.get_one(Issuer, account.issuer_id)
    due_at = purged_from(issuer, int(year))
    if work.clock.now_for(account) < due_at:
        # The years to keep have grown since this was planned.
        await enqueue(work, account, WorkKind.PURGE, f"{year}@{due_at.year}", due_at)
        return
    zone = ZoneInfo(issuer.timezone)
    end = datetime(int(year) + 1, 1, 1, tzinfo=zone)
    session.add(PurgePass(account_id=account.id))
    await session.flush()
    notes = list(
        await session.scalars(
            select(CreditNote.id).where(CreditNote.account_id == account.id, CreditNote.issued_at < end)
        )
    )
    await session.execute(delete(CreditNoteTax).where(CreditNoteTax.credit_note_id.in_(notes)))
    await session.execute(delete(CreditNoteLine).where(CreditNoteLine.credit_note_id.in_(notes)))
    noted = RefundRequest.credit_note_id.in_(notes)
    await session.execute(update(RefundRequest).where(noted).values(credit_note_id=None))
    await session.execute(delete(CreditNote).where(CreditNote.id.in_(notes)))
    await session.flush()
    invoices = await _find_unneeded(work, account, end)
    lines = list(await session.scalars(select(InvoiceLine.id).where(InvoiceLine.invoice_id.in_(invoices))))
    for carried in await session.scalars(select(Transaction).where(Transaction.carried_to_invoice_id.in_(invoices))):
        carried.carried_to_invoice_id = carried.invoice_id if carried.invoice_id not in invoices else None
    await session.execute(delete(Deferral).where(Deferral.line_id.in_(lines)))
    await session.execute(delete(InvoiceTax).where(InvoiceTax.invoice_id.in_(invoices)))
    # First the lines that credit others of the same year, then the others.
    credits_first = InvoiceLine.credited_line_id.is_not(None)
    await session.execute(delete(InvoiceLine).where(InvoiceLine.id.in_(lines), credits_first))
    await session.execute(delete(InvoiceLine).where(InvoiceLine.id.in_(lines)))
    movements = list(await session.scalars(select(Transaction.id).where(Transaction.invoice_id.in_(invoices))))
    await session.execute(delete(RefundRequest).where(RefundRequest.charge_id.in_(movements)))
    await session.execute(delete(Transaction).where(Transaction.id.in_(movements)))
    await session.execute(delete(Dunning).where(Dunning.invoice_id.in_(invoices)))
    await session.execute(delete(Invoice).where(Invoice.id.in_(invoices)))
    documents = list(
        await session.scalars(
            select(Document.id).where(
                Document.account_id == account.id, Document.subject_id.in_([*invoices, *notes, *movements])
            )
        )
    )
    await session.execute(delete(DocumentBytes).where(DocumentBytes.document_id.in_(documents)))
    await session.execute(delete(Document).where(Document.id.in_(documents)))
    await _bring_forward(work, account, end)
    await session.execute(delete(PurgePass).where(PurgePass.account_id == account.id))
    work.audit(
        account,
        "documents.purged",
        f"billing_account:{account.id}",
        after={"year": int(year), "invoices": len(invoices), "creditNotes": len(notes)},
    )


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
