"""What the tables of exports say: for each kind its columns, and its rows as they are read."""

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from ..database import ReadSession
from ..models import (
    AddOn,
    AuditEntry,
    BillingAccount,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    ExportKind,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    Issuer,
    LedgerEntry,
    LedgerPosting,
    LineKind,
    Metric,
    Plan,
    Transaction,
)
from .closes import WALL_CLOCK
from .deferred_revenue import read_deferred
from .invariants.reading import is_finalised, stream
from .receivables import Age, read_aging
from .rules.money import to_decimal
from .sheets import Cell, Row
from .tax_reports import list_taxes
from .tax_tables import format_rate
from .wording import format_instant

ROWS_AT_ONCE = 500
WHO = ("account", "account_name", "issuer")


@dataclass(frozen=True)
class Table:
    """A table to be written."""

    header: tuple[str, ...]
    rows: AsyncGenerator[Row]


@dataclass(frozen=True)
class Range:
    """Whose rows, and from when until when: of one account, or of all on the wall clock."""

    account_id: UUID | None
    start: datetime
    end: datetime

    def of_account(self) -> ColumnElement[bool]:
        """That an account's rows are among them."""
        return WALL_CLOCK.has() if self.account_id is None else BillingAccount.id == self.account_id

    def holds(self, column: Any) -> tuple[ColumnElement[bool], ...]:
        """That an instant is within, of a row of whose account they are."""
        return (column >= self.start, column < self.end, self.of_account())


Open = Callable[[ReadSession, Range], Table]


def open_table(session: ReadSession, kind: ExportKind, range_: Range) -> Table:
    """The table of a kind that is neither of usage nor of spend."""
    return TABLES[kind](session, range_)


async def in_batches(rows: AsyncGenerator[Row]) -> AsyncGenerator[list[Row]]:
    """Rows some at a time."""
    waiting: list[Row] = []
    async for row in rows:
        waiting.append(row)
        if len(waiting) == ROWS_AT_ONCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _at(instant: datetime | None) -> Cell:
    return None if instant is None else format_instant(instant)


def _money(amount_minor: int, currency: str) -> tuple[int, Decimal]:
    """An amount in minor units, and in whole ones."""
    return amount_minor, to_decimal(amount_minor, currency)


def _both(*names: str) -> tuple[str, ...]:
    return tuple(name for amount in names for name in (f"{amount}_minor", amount))


def _plain(
    header: tuple[str, ...],
    ask: Callable[[Range], Select[Any]],
    show: Callable[..., Row],
) -> Open:
    """A table that is one statement, each of its rows one row."""

    async def read(session: ReadSession, range_: Range) -> AsyncGenerator[Row]:
        async for row in stream(session, ask(range_)):
            yield show(*row)

    return lambda session, range_: Table(header, read(session, range_))


def _of_accounts(*columns: Any) -> Select[Any]:
    """Columns of something that belongs to accounts, behind those that say whose it is."""
    return (
        select(BillingAccount.external_id, BillingAccount.name, Issuer.key, *columns)
        .select_from(BillingAccount)
        .join(Issuer, Issuer.id == BillingAccount.issuer_id)
    )


# --- invoices, credit notes ------------------------------------------------------------------------------------------


def _ask_invoices(range_: Range) -> Select[Any]:
    return (
        _of_accounts(Invoice)
        .join(Invoice, Invoice.account_id == BillingAccount.id)
        .where(is_finalised(), *range_.holds(Invoice.issued_at))
        .order_by(Invoice.issued_at, Invoice.id)
    )


def _show_invoice(account: str, name: str, issuer: str, row: Invoice) -> Row:
    amounts = (
        row.subtotal_minor,
        row.tax_minor,
        row.total_minor,
        row.carried_in_minor,
        row.balance_applied_minor,
        row.paid_minor,
        row.credited_minor,
        row.carried_out_minor,
        row.written_off_minor,
        row.due_minor,
    )
    return (
        account,
        name,
        issuer,
        row.number,
        row.kind,
        row.status,
        _at(row.issued_at),
        _at(row.due_at),
        _at(row.period_start),
        _at(row.period_end),
        row.bill_to["name"],
        row.bill_to["country"],
        row.bill_to.get("vat_id"),
        row.currency,
        *(cell for amount in amounts for cell in _money(amount, row.currency)),
        row.content_hash,
    )


INVOICES = _plain(
    (
        *WHO,
        "number",
        "kind",
        "status",
        "issued_at",
        "due_at",
        "period_start",
        "period_end",
        "bill_to",
        "bill_to_country",
        "bill_to_vat_id",
        "currency",
        *_both(
            "subtotal",
            "tax",
            "total",
            "carried_in",
            "balance_applied",
            "paid",
            "credited",
            "carried_out",
            "written_off",
            "due",
        ),
        "content_sha256",
    ),
    _ask_invoices,
    _show_invoice,
)


def _ask_lines(range_: Range) -> Select[Any]:
    return (
        _of_accounts(Invoice, InvoiceLine)
        .join(Invoice, Invoice.account_id == BillingAccount.id)
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .where(is_finalised(), *range_.holds(Invoice.issued_at))
        .order_by(Invoice.issued_at, Invoice.id, InvoiceLine.position)
    )


def _show_line(account: str, name: str, issuer: str, invoice: Invoice, line: InvoiceLine) -> Row:
    return (
        account,
        name,
        issuer,
        invoice.number,
        _at(invoice.issued_at),
        line.position,
        line.kind,
        line.description,
        line.quantity,
        *_money(line.unit_minor, invoice.currency),
        *_money(line.amount_minor, invoice.currency),
        invoice.currency,
        _at(line.period_start),
        _at(line.period_end),
        line.tax_category,
        format_rate(line.tax_rate_ppm),
        line.tax_country,
        line.metric_key,
        line.plan_key,
        line.add_on_key,
        str(line.id),
        None if line.credited_line_id is None else str(line.credited_line_id),
    )


INVOICE_LINES = _plain(
    (
        *WHO,
        "invoice",
        "issued_at",
        "position",
        "kind",
        "description",
        "quantity",
        *_both("unit", "amount"),
        "currency",
        "period_start",
        "period_end",
        "tax_category",
        "tax_rate_percent",
        "tax_country",
        "metric",
        "plan",
        "add_on",
        "line_id",
        "credited_line_id",
    ),
    _ask_lines,
    _show_line,
)


def _ask_notes(range_: Range) -> Select[Any]:
    return (
        _of_accounts(CreditNote, Invoice.number)
        .join(CreditNote, CreditNote.account_id == BillingAccount.id)
        .join(Invoice, Invoice.id == CreditNote.invoice_id)
        .where(*range_.holds(CreditNote.issued_at))
        .order_by(CreditNote.issued_at, CreditNote.id)
    )


def _show_note(account: str, name: str, issuer: str, note: CreditNote, number: str) -> Row:
    to_balance = note.total_minor - note.to_invoice_minor - note.to_refund_minor
    amounts = (
        note.subtotal_minor,
        note.tax_minor,
        note.total_minor,
        note.to_invoice_minor,
        note.to_refund_minor,
        to_balance,
    )
    return (
        account,
        name,
        issuer,
        note.number,
        number,
        note.reason,
        _at(note.issued_at),
        note.bill_to["name"],
        note.bill_to["country"],
        note.bill_to.get("vat_id"),
        note.currency,
        *(cell for amount in amounts for cell in _money(amount, note.currency)),
        note.content_hash,
    )


CREDIT_NOTES = _plain(
    (
        *WHO,
        "number",
        "invoice",
        "reason",
        "issued_at",
        "bill_to",
        "bill_to_country",
        "bill_to_vat_id",
        "currency",
        *_both("subtotal", "tax", "total", "to_invoice", "to_refund", "to_balance"),
        "content_sha256",
    ),
    _ask_notes,
    _show_note,
)


# --- money, books, tax -----------------------------------------------------------------------------------------------


def _ask_transactions(range_: Range) -> Select[Any]:
    charge = aliased(Transaction)
    return (
        _of_accounts(Transaction, Invoice.number, charge.processor_id)
        .join(Transaction, Transaction.account_id == BillingAccount.id)
        .outerjoin(Invoice, Invoice.id == Transaction.invoice_id)
        .outerjoin(charge, charge.id == Transaction.charge_id)
        .where(*range_.holds(Transaction.created_at))
        .order_by(Transaction.created_at, Transaction.id)
    )


def _show_transaction(
    account: str, name: str, issuer: str, row: Transaction, invoice: str | None, of_charge: str | None
) -> Row:
    return (
        account,
        name,
        issuer,
        str(row.id),
        row.kind,
        row.status,
        row.refund_state,
        _at(row.created_at),
        _at(row.updated_at),
        *_money(row.amount_minor, row.currency),
        row.currency,
        row.description,
        invoice,
        row.failure_code,
        row.processor_id,
        of_charge,
        row.reference,
    )


TRANSACTIONS = _plain(
    (
        *WHO,
        "transaction_id",
        "kind",
        "status",
        "refund_state",
        "created_at",
        "updated_at",
        *_both("amount"),
        "currency",
        "description",
        "invoice",
        "failure_code",
        "processor_id",
        "charge_processor_id",
        "reference",
    ),
    _ask_transactions,
    _show_transaction,
)


def _ask_postings(range_: Range) -> Select[Any]:
    return (
        _of_accounts(LedgerEntry, LedgerPosting)
        .join(LedgerEntry, LedgerEntry.account_id == BillingAccount.id)
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(*range_.holds(LedgerEntry.created_at))
        .order_by(LedgerEntry.created_at, LedgerEntry.id, LedgerPosting.ledger_account, LedgerPosting.id)
    )


def _show_posting(account: str, name: str, issuer: str, entry: LedgerEntry, posting: LedgerPosting) -> Row:
    amount = posting.amount_minor
    return (
        account,
        name,
        issuer,
        str(entry.id),
        _at(entry.created_at),
        entry.kind,
        entry.subject,
        posting.ledger_account,
        *_money(max(0, amount), posting.currency),
        *_money(max(0, -amount), posting.currency),
        posting.currency,
        None if posting.line_id is None else str(posting.line_id),
    )


LEDGER = _plain(
    (
        *WHO,
        "entry_id",
        "at",
        "kind",
        "subject",
        "ledger_account",
        *_both("debit", "credit"),
        "currency",
        "line_id",
    ),
    _ask_postings,
    _show_posting,
)

TAX_HEADER = (
    *WHO,
    "document",
    "number",
    "issued_at",
    "bill_to",
    "bill_to_country",
    "bill_to_vat_id",
    "jurisdiction",
    "category",
    "rate_percent",
    *_both("taxable", "tax"),
    "currency",
    "reason",
)


async def _read_taxes(session: ReadSession, range_: Range) -> AsyncGenerator[Row]:
    both: tuple[tuple[Any, Any, Any, str, int], ...] = (
        (Invoice, InvoiceTax, InvoiceTax.invoice_id, "INVOICE", 1),
        (CreditNote, CreditNoteTax, CreditNoteTax.credit_note_id, "CREDIT_NOTE", -1),
    )
    for document, tax, of_document, what, sign in both:
        statement = (
            _of_accounts(document, tax)
            .join(document, document.account_id == BillingAccount.id)
            .join(tax, of_document == document.id)
            .where(*range_.holds(document.issued_at), *([is_finalised()] if document is Invoice else []))
            .order_by(document.issued_at, document.id, tax.jurisdiction, tax.category, tax.rate_ppm)
        )
        async for account, name, issuer, row, levied in stream(session, statement):
            yield (
                account,
                name,
                issuer,
                what,
                row.number,
                _at(row.issued_at),
                row.bill_to["name"],
                row.bill_to["country"],
                row.bill_to.get("vat_id"),
                levied.jurisdiction,
                levied.category,
                format_rate(levied.rate_ppm),
                *_money(levied.taxable_minor * sign, row.currency),
                *_money(levied.amount_minor * sign, row.currency),
                row.currency,
                levied.reason,
            )


# --- the audit log ---------------------------------------------------------------------------------------------------


def _ask_audit(range_: Range) -> Select[Any]:
    is_theirs = (
        AuditEntry.account_id.is_(None) if range_.account_id is None else AuditEntry.account_id == range_.account_id
    )
    return (
        select(AuditEntry)
        .where(is_theirs, AuditEntry.at >= range_.start, AuditEntry.at < range_.end)
        .order_by(AuditEntry.number)
    )


def _show_audit(entry: AuditEntry) -> Row:
    return (
        entry.number,
        _at(entry.at),
        entry.actor,
        entry.origin,
        entry.action,
        entry.object,
        _json(entry.before),
        _json(entry.after),
        entry.details_hash,
        entry.previous_hash,
        entry.hash,
    )


def _json(details: dict[str, Any]) -> str:
    return json.dumps(details, sort_keys=True, ensure_ascii=False)


AUDIT = _plain(
    (
        "number",
        "at",
        "actor",
        "origin",
        "action",
        "object",
        "before",
        "after",
        "details_hash",
        "previous_hash",
        "hash",
    ),
    _ask_audit,
    _show_audit,
)


# --- FOCUS -----------------------------------------------------------------------------------------------------------

FOCUS_HEADER = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "x_BilledCostMinor",
)
CATEGORIES = {
    LineKind.SUBSCRIPTION: "Purchase",
    LineKind.ADD_ON: "Purchase",
    LineKind.PRORATION: "Purchase",
    LineKind.OVERAGE: "Usage",
    LineKind.CORRECTION: "Usage",
    LineKind.CREDIT: "Adjustment",
}
CORRECTS = frozenset({LineKind.CORRECTION, LineKind.CREDIT})
RECURRING = frozenset({LineKind.SUBSCRIPTION, LineKind.ADD_ON})


@dataclass(frozen=True)
class _Charge:
    """A row of FOCUS, but for what its document says."""

    amount_minor: int
    category: str
    description: str
    start: datetime
    end: datetime
    service: str
    is_correction: bool = False
    frequency: str = "One-Time"
    quantity: int | None = None
    unit: str | None = None
    is_metered: bool = False


def _show_charge(document: Invoice | CreditNote, period: tuple[datetime, datetime], charge: _Charge) -> Row:
    cost = to_decimal(charge.amount_minor, document.currency)
    seller = document.issuer["name"]
    consumed = (charge.quantity, charge.unit) if charge.is_metered else (None, None)
    return (
        cost,
        str(document.account_id),
        document.bill_to["name"],
        document.currency,
        _at(period[1]),
        _at(period[0]),
        charge.category,
        "Correction" if charge.is_correction else None,
        charge.description,
        charge.frequency,
        _at(charge.end),
        _at(charge.start),
        *consumed,
        # Nothing is discounted or amortised: what is billed is what was listed, agreed, and takes effect.
        cost,
        cost,
        document.number,
        seller,
        cost,
        charge.quantity,
        charge.unit,
        seller,
        seller,
        "Other",
        charge.service,
        charge.amount_minor,
    )


async def _read_focus(session: ReadSession, range_: Range) -> AsyncGenerator[Row]:
    """Lines, then taxes, of invoices and then of credit notes. Their sum is what was invoiced less what was credited.

    The columns are those that FOCUS asks of everybody, and of the others what is true here.
    """
    named = (Plan.name, AddOn.name, Metric.name, Metric.unit)
    lines = (
        select(Invoice, InvoiceLine, *named)
        .join(BillingAccount, BillingAccount.id == Invoice.account_id)
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .outerjoin(Plan, Plan.key == InvoiceLine.plan_key)
        .outerjoin(AddOn, AddOn.key == InvoiceLine.add_on_key)
        .outerjoin(Metric, Metric.key == InvoiceLine.metric_key)
        .where(is_finalised(), *range_.holds(Invoice.issued_at))
        .order_by(Invoice.issued_at, Invoice.id, InvoiceLine.position)
    )
    async for invoice, line, plan, add_on, metric, unit in stream(session, lines):
        is_metered = line.kind in (LineKind.OVERAGE, LineKind.CORRECTION)
        charge = _Charge(
            amount_minor=line.amount_minor,
            category=CATEGORIES[line.kind],
            description=line.description,
            start=line.period_start,
            end=line.period_end,
            service=add_on or (metric if is_metered else plan) or plan or metric or line.description,
            is_correction=line.kind in CORRECTS,
            frequency="Recurring" if line.kind in RECURRING else "Usage-Based" if is_metered else "One-Time",
            quantity=line.quantity,
            unit=f"Blocks of {unit}" if is_metered else "Units",
            is_metered=is_metered,
        )
        yield _show_charge(invoice, (invoice.period_start, invoice.period_end), charge)
    taxes = (
        select(Invoice, InvoiceTax)
        .join(BillingAccount, BillingAccount.id == Invoice.account_id)
        .join(InvoiceTax, InvoiceTax.invoice_id == Invoice.id)
        .where(is_finalised(), InvoiceTax.amount_minor != 0, *range_.holds(Invoice.issued_at))
        .order_by(Invoice.issued_at, Invoice.id, InvoiceTax.id)
    )
    async for invoice, tax in stream(session, taxes):
        period = (invoice.period_start, invoice.period_end)
        yield _show_charge(invoice, period, _tax_charge(tax, 1, period))
    credited = aliased(Invoice)
    notes = (
        select(CreditNote, credited.period_start, credited.period_end, CreditNoteLine)
        .join(BillingAccount, BillingAccount.id == CreditNote.account_id)
        .join(credited, credited.id == CreditNote.invoice_id)
        .join(CreditNoteLine, CreditNoteLine.credit_note_id == CreditNote.id)
        .where(*range_.holds(CreditNote.issued_at))
        .order_by(CreditNote.issued_at, CreditNote.id, CreditNoteLine.position)
    )
    async for note, start, end, line in stream(session, notes):
        charge = _Charge(
            amount_minor=-line.amount_minor,
            category="Adjustment",
            description=line.description,
            start=line.period_start,
            end=line.period_end,
            service=line.description,
            is_correction=True,
        )
        yield _show_charge(note, (start, end), charge)
    taken_back = (
        select(CreditNote, credited.period_start, credited.period_end, CreditNoteTax)
        .join(BillingAccount, BillingAccount.id == CreditNote.account_id)
        .join(credited, credited.id == CreditNote.invoice_id)
        .join(CreditNoteTax, CreditNoteTax.credit_note_id == CreditNote.id)
        .where(CreditNoteTax.amount_minor != 0, *range_.holds(CreditNote.issued_at))
        .order_by(CreditNote.issued_at, CreditNote.id, CreditNoteTax.id)
    )
    async for note, start, end, tax in stream(session, taken_back):
        yield _show_charge(note, (start, end), _tax_charge(tax, -1, (start, end)))


def _tax_charge(tax: InvoiceTax | CreditNoteTax, sign: int, period: tuple[datetime, datetime]) -> _Charge:
    return _Charge(
        amount_minor=tax.amount_minor * sign,
        category="Tax",
        description=f"{tax.jurisdiction} {tax.category} {format_rate(tax.rate_ppm)} %",
        start=period[0],
        end=period[1],
        service="Tax",
        is_correction=sign < 0,
    )


# --- the close -------------------------------------------------------------------------------------------------------

AGING_HEADER = ("account", "account_name", "currency", *_both(*(age.lower() for age in Age), "total"))
DEFERRED_HEADER = (
    "account",
    "account_name",
    "invoice",
    "description",
    "period_start",
    "period_end",
    "currency",
    *_both("deferred"),
    "month",
    *_both("earned_in_month"),
)
TAX_REPORT_HEADER = (
    "issuer",
    "issuer_name",
    "jurisdiction",
    "category",
    "rate_percent",
    "currency",
    *_both("taxable", "tax"),
)


async def _read_aging(session: ReadSession, range_: Range) -> AsyncGenerator[Row]:
    async for account in read_aging(session, WALL_CLOCK, range_.end):
        amounts = (*(account.amounts.get(age, 0) for age in Age), account.total_minor)
        yield (
            account.external_id,
            account.name,
            account.currency,
            *(cell for amount in amounts for cell in _money(amount, account.currency)),
        )


async def _read_deferred(session: ReadSession, range_: Range) -> AsyncGenerator[Row]:
    """A row for each line and month in which it will be earned. What is deferred stands in the first of them only."""
    async for line in read_deferred(session, WALL_CLOCK, range_.end):
        for place, (month, amount) in enumerate(line.schedule(range_.end)):
            yield (
                line.external_id,
                line.name,
                line.number,
                line.description,
                _at(line.starts_at),
                _at(line.ends_at),
                line.currency,
                *_money(line.amount_minor if place == 0 else 0, line.currency),
                f"{month:%Y-%m}",
                *_money(amount, line.currency),
            )


async def _read_tax_report(session: ReadSession, range_: Range) -> AsyncGenerator[Row]:
    for row in await list_taxes(session, WALL_CLOCK, range_.start, range_.end):
        yield (
            row.issuer_key,
            row.issuer_name,
            row.jurisdiction,
            row.category,
            format_rate(row.rate_ppm),
            row.currency,
            *_money(row.taxable_minor, row.currency),
            *_money(row.tax_minor, row.currency),
        )


TABLES: dict[ExportKind, Open] = {
    ExportKind.FOCUS: lambda session, range_: Table(FOCUS_HEADER, _read_focus(session, range_)),
    ExportKind.INVOICES: INVOICES,
    ExportKind.INVOICE_LINES: INVOICE_LINES,
    ExportKind.CREDIT_NOTES: CREDIT_NOTES,
    ExportKind.TRANSACTIONS: TRANSACTIONS,
    ExportKind.LEDGER: LEDGER,
    ExportKind.TAX: lambda session, range_: Table(TAX_HEADER, _read_taxes(session, range_)),
    ExportKind.AUDIT: AUDIT,
    ExportKind.RECEIVABLES_AGING: lambda session, range_: Table(AGING_HEADER, _read_aging(session, range_)),
    ExportKind.DEFERRED_REVENUE: lambda session, range_: Table(DEFERRED_HEADER, _read_deferred(session, range_)),
    ExportKind.TAX_REPORT: lambda session, range_: Table(TAX_REPORT_HEADER, _read_tax_report(session, range_)),
}
