"""I4 and I6: a document's sums hold, each amount by its reason, and what was frozen is as it was."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, and_, func, or_, select

from ...database import ReadSession
from ...models import (
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Document,
    DocumentBytes,
    DocumentKind,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    Transaction,
    TransactionStatus,
)
from ..documents import RECEIPT_KINDS, name_receipt
from ..papers import Paper, Receipt
from ..rules.explanation import reckon
from ..rules.tax import compute_taxes, tax_on
from ..standing import read_taxes
from .reading import (
    Findings,
    beside,
    is_finalised,
    is_kept_whole,
    show_digest,
    show_money,
    since_purge,
    stream,
)

PDFS_AT_ONCE = 10
ROUNDED = 2
"""As much the tax of a refund may differ from that of its net, in minor units."""


Rows = Sequence[Row[*tuple[Any, ...]]]


@dataclass(frozen=True)
class _Note:
    """A credit note with what belongs to it."""

    note: CreditNote
    lines: Sequence[CreditNoteLine]
    taxes: Sequence[CreditNoteTax]
    document: Document | None


async def check_documents(session: ReadSession, found: Findings) -> None:
    """I4 and I6 of each invoice with its credit notes: sums, taxes, amounts by their reasons, hashes."""
    forward = since_purge()
    heads = (
        select(Invoice, forward.c.since)
        .outerjoin(forward, forward.c.account_id == Invoice.account_id)
        .where(is_finalised())
        .order_by(Invoice.id)
    )
    async with beside(session, *_parts_of_invoices()) as (lines, taxes, documents, notes, note_lines, note_taxes):
        async for invoice, since in stream(session, heads):
            its_lines = [row[1] for row in await lines.take(invoice.id)]
            its_taxes = [row[1] for row in await taxes.take(invoice.id)]
            its_document = next((row[1] for row in await documents.take(invoice.id)), None)
            its_notes = _put_together(
                await notes.take(invoice.id), await note_lines.take(invoice.id), await note_taxes.take(invoice.id)
            )
            for wrong in _judge_sums(invoice, its_lines, its_taxes):
                found.add("I4", invoice.account_id, f"{invoice.number} {wrong}.")
            for wrong in _judge_notes(its_notes, is_whole=is_kept_whole(invoice, since)):
                found.add("I4", invoice.account_id, f"{wrong}.")
            for wrong in _judge_freeze(invoice, its_document, its_lines):
                found.add("I6", invoice.account_id, f"{invoice.number} {wrong}.")
            for each in its_notes:
                for wrong in _judge_freeze(each.note, each.document, each.lines):
                    found.add("I6", each.note.account_id, f"{each.note.number} {wrong}.")


def _parts_of_invoices() -> list[Select[*tuple[Any, ...]]]:
    """Lines, taxes, documents, credit notes and theirs: each in order of the invoice, whose id comes first."""
    of_note, is_noted = CreditNote.invoice_id, Document.kind == DocumentKind.CREDIT_NOTE
    return [
        select(InvoiceLine.invoice_id, InvoiceLine).order_by(InvoiceLine.invoice_id, InvoiceLine.position),
        select(InvoiceTax.invoice_id, InvoiceTax).order_by(InvoiceTax.invoice_id, InvoiceTax.id),
        select(Document.subject_id, Document)
        .where(Document.kind == DocumentKind.INVOICE)
        .order_by(Document.subject_id),
        select(of_note, CreditNote, Document)
        .outerjoin(Document, and_(Document.subject_id == CreditNote.id, is_noted))
        # By number: the digits of longer ones make longer texts.
        .order_by(of_note, func.length(CreditNote.number), CreditNote.number),
        select(of_note, CreditNoteLine)
        .join(CreditNote, CreditNote.id == CreditNoteLine.credit_note_id)
        .order_by(of_note, CreditNoteLine.position),
        select(of_note, CreditNoteTax)
        .join(CreditNote, CreditNote.id == CreditNoteTax.credit_note_id)
        .order_by(of_note, CreditNoteTax.id),
    ]


def _put_together(notes: Rows, lines: Rows, taxes: Rows) -> list[_Note]:
    return [
        _Note(
            note,
            [line for _, line in lines if line.credit_note_id == note.id],
            [tax for _, tax in taxes if tax.credit_note_id == note.id],
            document,
        )
        for _, note, document in notes
    ]


TaxKey = tuple[str, str, int]


def _judge_sums(invoice: Invoice, lines: Sequence[InvoiceLine], taxes: Sequence[InvoiceTax]) -> Iterable[str]:
    def show(amount_minor: int) -> str:
        return show_money(amount_minor, invoice.currency)

    subtotal = sum(line.amount_minor for line in lines)
    tax = sum(row.amount_minor for row in taxes)
    if not lines:
        yield "has no lines"
    if invoice.subtotal_minor != subtotal:
        yield f"has a subtotal of {show(invoice.subtotal_minor)}, and its lines come to {show(subtotal)}"
    if invoice.tax_minor != tax:
        yield f"has a tax of {show(invoice.tax_minor)}, and its tax rows come to {show(tax)}"
    if invoice.total_minor != invoice.subtotal_minor + invoice.tax_minor:
        yield f"has a total of {show(invoice.total_minor)}, which is not its subtotal and tax"
    stored: dict[TaxKey, tuple[int, int]] = {
        (row.jurisdiction, row.category, row.rate_ppm): (row.taxable_minor, row.amount_minor) for row in taxes
    }
    reckoned: dict[TaxKey, tuple[int, int]] = {
        (amount.rate.jurisdiction, amount.rate.category, amount.rate.rate_ppm): (
            amount.taxable_minor,
            amount.amount_minor,
        )
        for amount in compute_taxes((line.amount_minor, read_taxes(line.taxes)) for line in lines)
    }
    for key in sorted(stored.keys() | reckoned.keys()):
        if stored.get(key) != reckoned.get(key):
            yield f"has the tax {_show_tax(key, stored.get(key))}, and by its lines {_show_tax(key, reckoned.get(key))}"
    for line in lines:
        reason = _judge_reason(line.basis, line.amount_minor)
        if reason is not None:
            yield f"has “{line.description}” at {show(line.amount_minor)}, {reason}"
        elif line.quantity * line.unit_minor != line.amount_minor:
            yield (
                f"has “{line.description}” at {show(line.amount_minor)}, and its {line.quantity} at "
                f"{show(line.unit_minor)} do not come to that"
            )


def _show_tax(key: TaxKey, row: tuple[int, int] | None) -> str:
    jurisdiction, category, rate_ppm = key
    what = "none" if row is None else f"{row[1]} on {row[0]} in minor units"
    return f"{jurisdiction} {category} {rate_ppm / 10_000:g} %: {what}"


def _judge_reason(basis: dict[str, Any], amount_minor: int) -> str | None:
    try:
        reckoned = reckon(basis)
    except (KeyError, TypeError, ValueError, ArithmeticError, AssertionError):
        return f"and its basis cannot be reckoned: {basis}"
    return None if reckoned == amount_minor else f"and by its basis {reckoned} in minor units"


def _judge_notes(notes: Sequence[_Note], *, is_whole: bool) -> Iterable[str]:
    """The credit notes of one invoice, in order: the tax of each is that of all so far, less what was given before."""
    net: dict[TaxKey, int] = defaultdict(int)
    given: dict[TaxKey, int] = defaultdict(int)
    for each in notes:
        note = each.note
        number = note.number

        def show(amount_minor: int, currency: str = note.currency) -> str:
            return show_money(amount_minor, currency)

        subtotal = sum(line.amount_minor for line in each.lines)
        tax = sum(row.amount_minor for row in each.taxes)
        if note.subtotal_minor != subtotal:
            yield f"{number} has a subtotal of {show(note.subtotal_minor)}, and its lines come to {show(subtotal)}"
        if note.tax_minor != tax:
            yield f"{number} has a tax of {show(note.tax_minor)}, and its tax rows come to {show(tax)}"
        if note.total_minor != note.subtotal_minor + note.tax_minor:
            yield f"{number} has a total of {show(note.total_minor)}, which is not its subtotal and tax"
        if not 0 <= note.to_invoice_minor <= note.total_minor:
            yield f"{number} lowered its invoice by {show(note.to_invoice_minor)} of {show(note.total_minor)}"
        if not 0 <= note.to_refund_minor <= note.total_minor - note.to_invoice_minor:
            yield f"{number} gives {show(note.to_refund_minor)} of {show(note.total_minor)} back by a refund"
        for line in each.lines:
            reason = _judge_reason(line.basis, -line.amount_minor)
            if reason is not None:
                yield f"{number} credits “{line.description}” by {show(line.amount_minor)}, {reason}"
        taxed: dict[TaxKey, int] = defaultdict(int)
        for line in each.lines:
            for rate in read_taxes(line.taxes):
                taxed[rate.jurisdiction, rate.category, rate.rate_ppm] += line.amount_minor
        stored: dict[TaxKey, tuple[int, int]] = {
            (row.jurisdiction, row.category, row.rate_ppm): (row.taxable_minor, row.amount_minor) for row in each.taxes
        }
        for key in sorted(taxed.keys() | stored.keys()):
            reckoned = (taxed[key], tax_on(net[key] + taxed[key], key[2]) - given[key]) if key in taxed else None
            if is_whole and not _is_tax(note, stored.get(key), reckoned):
                yield (
                    f"{number} has the tax {_show_tax(key, stored.get(key))}, and by its lines "
                    f"{_show_tax(key, reckoned)}"
                )
            net[key] += taxed[key]
            given[key] += stored.get(key, (0, 0))[1]


def _is_tax(note: CreditNote, stored: tuple[int, int] | None, reckoned: tuple[int, int] | None) -> bool:
    if note.reason != "REFUND":
        return stored == reckoned
    # A refund is given with its tax in it: the net is what is left of it, so that both are rounded the other way about.
    taxable, tax = stored or (0, 0)
    on_net, of_net = reckoned or (0, 0)
    return taxable == on_net and abs(tax - of_net) <= ROUNDED


def _judge_freeze(
    subject: Invoice | CreditNote,
    document: Document | None,
    lines: Sequence[InvoiceLine] | Sequence[CreditNoteLine],
) -> Iterable[str]:
    if document is None:
        yield "has no document"
        return
    try:
        paper = Paper.model_validate(document.content)
    except ValueError:
        yield "has a document whose content cannot be read"
        return
    digest = paper.digest()
    if digest != document.content_hash or digest != subject.content_hash:
        yield (
            f"was frozen as {show_digest(subject.content_hash)}, its document as {show_digest(document.content_hash)}, "
            f"whose content is {show_digest(digest)}"
        )
        return
    shown = {
        "number": (subject.number, paper.number),
        "currency": (subject.currency, paper.currency),
        "subtotal": (subject.subtotal_minor, paper.subtotal_minor),
        "tax": (subject.tax_minor, paper.tax_minor),
        "total": (subject.total_minor, paper.total_minor),
        "language": (subject.language, paper.language),
        "issuer": (subject.issuer, paper.issuer.model_dump(mode="json")),
        "buyer": (subject.bill_to, paper.bill_to.model_dump(mode="json")),
        "lines": (
            [(line.description, line.amount_minor) for line in lines],
            [(line.description, line.amount_minor) for line in paper.lines],
        ),
    }
    if isinstance(subject, Invoice):
        shown["amount carried in"] = (subject.carried_in_minor, paper.carried_in_minor)
        shown["balance applied"] = (subject.balance_applied_minor, paper.balance_applied_minor)
    for name, (kept, frozen) in shown.items():
        if kept != frozen:
            yield f"has other {name} than was frozen: {kept}, and {frozen} on the document"


async def check_receipts(session: ReadSession, found: Findings) -> None:
    """I6 of each payment and refund that went through: it has its receipt, as it was frozen, of what moved."""
    went_through = and_(Transaction.status == TransactionStatus.SUCCEEDED, Transaction.kind.in_(list(RECEIPT_KINDS)))
    statement = (
        select(Transaction, Invoice.number, Document)
        .outerjoin(Invoice, Invoice.id == Transaction.invoice_id)
        .outerjoin(Document, and_(Document.subject_id == Transaction.id, Document.kind == DocumentKind.RECEIPT))
        .where(or_(went_through, Document.id.is_not(None)))
        .order_by(Transaction.id)
    )
    async for transaction, invoice_number, document in stream(session, statement):
        for wrong in _judge_receipt(transaction, invoice_number, document):
            found.add("I6", transaction.account_id, f"The {transaction.kind} {transaction.id} {wrong}.")


def _judge_receipt(transaction: Transaction, invoice_number: str | None, document: Document | None) -> Iterable[str]:
    if document is None:
        yield "has no receipt"
        return
    try:
        receipt = Receipt.model_validate(document.content)
    except ValueError:
        yield "has a receipt whose content cannot be read"
        return
    digest = receipt.digest()
    if digest != document.content_hash:
        yield f"has a receipt frozen as {show_digest(document.content_hash)}, whose content is {show_digest(digest)}"
        return
    shown = {
        "kind": (RECEIPT_KINDS.get(transaction.kind), receipt.kind),
        "name": (name_receipt(transaction), receipt.number),
        "currency": (transaction.currency, receipt.currency),
        "amount": (transaction.amount_minor, receipt.amount_minor),
        "invoice": (invoice_number, receipt.invoice_number),
        "reference": (transaction.reference, receipt.reference),
    }
    for name, (kept, frozen) in shown.items():
        if kept != frozen:
            yield f"has other {name} than was frozen: {kept}, and {frozen} on the receipt"


async def check_drawn(session: ReadSession, found: Findings) -> None:
    """Drawn pages are the bytes that were drawn, and every document is of something."""
    statement = (
        select(Document.account_id, Document.id, Document.bytes_hash, DocumentBytes.pdf)
        .outerjoin(DocumentBytes, DocumentBytes.document_id == Document.id)
        .where(or_(Document.bytes_hash.is_not(None), DocumentBytes.id.is_not(None)))
        .order_by(Document.id)
    )
    async for account_id, document_id, bytes_hash, pdf in stream(session, statement, at_once=PDFS_AT_ONCE):
        drawn = None if pdf is None else hashlib.sha256(pdf).hexdigest()
        if drawn != bytes_hash:
            found.add(
                "I6",
                account_id,
                f"The pages of the document {document_id} are {show_digest(drawn)}, and were drawn as "
                f"{show_digest(bytes_hash)}.",
            )
    orphans = (
        select(Document.account_id, Document.id, Document.kind)
        .outerjoin(Invoice, Invoice.id == Document.subject_id)
        .outerjoin(CreditNote, CreditNote.id == Document.subject_id)
        .outerjoin(Transaction, Transaction.id == Document.subject_id)
        .where(
            or_(
                and_(Document.kind == DocumentKind.INVOICE, Invoice.id.is_(None)),
                and_(Document.kind == DocumentKind.CREDIT_NOTE, CreditNote.id.is_(None)),
                and_(Document.kind == DocumentKind.RECEIPT, Transaction.id.is_(None)),
            )
        )
        .order_by(Document.id)
    )
    async for account_id, document_id, kind in stream(session, orphans):
        found.add("I6", account_id, f"The document {document_id} shows an {kind} that does not exist.")
