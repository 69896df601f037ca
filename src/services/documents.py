"""Documents: freezing what they show when it is issued, and having them drawn."""

import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select

from ..database import Work
from ..models import (
    BillingAccount,
    CollectionMethod,
    Company,
    CreditNote,
    Document,
    DocumentKind,
    Invoice,
    InvoiceLine,
    Issuer,
    PaymentMethod,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from .bills import BillLine, subtotal_of, taxes_of
from .due_work import enqueue
from .papers import Bank, Content, Paper, PaperKind, PaperLine, PaperSize, PaperTax, Party, Receipt
from .retention import keep_until_due
from .rules.tax import TaxAmount
from .standing import Standing
from .wording import LANGUAGES

log = logging.getLogger("plafond.documents")

LETTER_COUNTRIES = frozenset({"US", "CA", "MX"})
RECEIPT_KINDS: dict[TransactionKind, Literal[PaperKind.RECEIPT, PaperKind.REFUND_RECEIPT]] = {
    TransactionKind.CHARGE: PaperKind.RECEIPT,
    TransactionKind.MANUAL: PaperKind.RECEIPT,
    TransactionKind.REFUND: PaperKind.REFUND_RECEIPT,
}
"""The movements of money that have a receipt once they went through."""


def language_of(account: BillingAccount) -> str:
    """The language of an account's documents."""
    return language_of_locale(account.locale)


def language_of_locale(locale: str) -> str:
    """The language that we write in for a locale."""
    language = locale.replace("_", "-").split("-")[0].lower()
    return language if language in LANGUAGES else "en"


def show_buyer(standing: Standing) -> dict[str, Any]:
    """The buyer, as it stands on a document."""
    return name_buyer(standing.account, standing.company).model_dump(mode="json")


def show_issuer(standing: Standing) -> dict[str, Any]:
    """The seller, as it stands on a document."""
    return name_seller(standing.issuer).model_dump(mode="json")


def name_buyer(account: BillingAccount, company: Company | None) -> Party:
    """The buyer as it stands now."""
    if company is None:
        return Party(name=account.name, country="")
    return Party(
        name=company.legal_name,
        address_lines=tuple(company.address_lines),
        postal_code=company.postal_code,
        city=company.city,
        region=company.region,
        country=company.country,
        vat_id=company.vat_id,
        tax_ids=tuple(sorted(company.tax_ids.items())),
        email=company.email,
    )


def name_seller(issuer: Issuer) -> Party:
    """The seller as it stands now."""
    return Party(
        name=issuer.legal_name,
        address_lines=tuple(issuer.address_lines),
        postal_code=issuer.postal_code,
        city=issuer.city,
        country=issuer.country,
        vat_id=issuer.tax_ids.get("vat"),
        tax_ids=tuple(sorted((label, value) for label, value in issuer.tax_ids.items() if label != "vat")),
        email=issuer.email,
    )


def _bank(standing: Standing) -> Bank | None:
    details = standing.issuer.bank_details
    if not details:
        return None
    return Bank(
        holder=standing.issuer.legal_name,
        iban=details.get("iban", ""),
        bic=details.get("bic", ""),
        name=details.get("name", ""),
    )


def choose_size(company: Company | None) -> PaperSize:
    """The sheet that a buyer wants, or that its country uses."""
    if company is not None and company.paper_size:
        return PaperSize(company.paper_size)
    return PaperSize.LETTER if company is not None and company.country in LETTER_COUNTRIES else PaperSize.A4


def _last_day(standing: Standing, end: datetime) -> date:
    return standing.day_of(end - timedelta(seconds=1))


async def freeze_invoice(
    work: Work, standing: Standing, invoice: Invoice, lines: Sequence[BillLine], rows: Sequence[InvoiceLine]
) -> None:
    """Freeze what a finalised invoice shows, and have it drawn."""
    account, company = standing.account, standing.company
    assert invoice.number is not None, "finalised"
    assert invoice.issued_at is not None, "finalised"
    is_sent = account.collection_method is CollectionMethod.SEND_INVOICE
    method = next((method for method in standing.methods if method.is_default), None)
    paper = Paper(
        kind=PaperKind.INVOICE,
        number=invoice.number,
        language=invoice.language,
        locale=account.locale,
        size=choose_size(standing.company),
        currency=invoice.currency,
        issued_on=standing.day_of(invoice.issued_at),
        due_on=standing.day_of(invoice.due_at) if invoice.due_at else None,
        starts_on=standing.day_of(invoice.period_start),
        ends_on=_last_day(standing, invoice.period_end),
        issuer=name_seller(standing.issuer),
        issuer_bank=_bank(standing),
        bill_to=name_buyer(standing.account, standing.company),
        lines=tuple(
            PaperLine(
                position=row.position + 1,
                description=row.description,
                quantity=row.quantity,
                unit_minor=row.unit_minor,
                amount_minor=row.amount_minor,
                starts_on=standing.day_of(row.period_start),
                ends_on=_last_day(standing, row.period_end),
                tax_category=row.tax_category,
                tax_rate_ppm=row.tax_rate_ppm,
                credited_number=line.credited.invoice_number if line.credited else None,
            )
            for row, line in zip(rows, lines, strict=True)
        ),
        taxes=_taxes(taxes_of(lines)),
        subtotal_minor=invoice.subtotal_minor,
        tax_minor=invoice.tax_minor,
        total_minor=invoice.total_minor,
        carried_in_minor=invoice.carried_in_minor,
        balance_applied_minor=invoice.balance_applied_minor,
        due_minor=invoice.owed_minor,
        pays_by=None if is_sent or method is None else f"{method.brand} {method.last4}",
        net_days=account.net_days if is_sent else None,
        purchase_order=company.purchase_order if company else None,
        footer=company.footer if company else None,
    )
    invoice.content_hash = paper.digest()
    await _keep(work, account, DocumentKind.INVOICE, invoice.id, paper)


async def freeze_credit_note(
    work: Work,
    standing: Standing,
    note: CreditNote,
    lines: Sequence[BillLine],
    taxes: Sequence[TaxAmount],
    invoice: Invoice,
) -> None:
    """Freeze what an issued credit note shows, and have it drawn. Its amounts are positive."""
    account = standing.account
    assert invoice.issued_at is not None, "only what was finalised is credited"
    paper = Paper(
        kind=PaperKind.CREDIT_NOTE,
        number=note.number,
        language=note.language,
        locale=account.locale,
        size=choose_size(standing.company),
        currency=note.currency,
        issued_on=standing.day_of(note.issued_at),
        due_on=None,
        starts_on=standing.day_of(min(line.start for line in lines)),
        ends_on=_last_day(standing, max(line.end for line in lines)),
        # Both parties as they stand on what is corrected.
        issuer=Party.model_validate(invoice.issuer) if invoice.issuer else name_seller(standing.issuer),
        bill_to=Party.model_validate(invoice.bill_to),
        lines=tuple(
            PaperLine(
                position=position,
                description=line.describe(note.language),
                quantity=1 if line.amount_minor < 0 else -1,
                unit_minor=abs(line.amount_minor),
                amount_minor=-line.amount_minor,
                starts_on=standing.day_of(line.start),
                ends_on=_last_day(standing, line.end),
                tax_category=line.taxes[0].category,
                tax_rate_ppm=sum(rate.rate_ppm for rate in line.taxes),
                credited_number=invoice.number,
            )
            for position, line in enumerate(lines, 1)
        ),
        taxes=_taxes(taxes),
        subtotal_minor=-subtotal_of(lines),
        tax_minor=note.tax_minor,
        total_minor=note.total_minor,
        due_minor=note.total_minor,
        corrected_number=invoice.number,
        corrected_on=standing.day_of(invoice.issued_at),
    )
    note.content_hash = paper.digest()
    await _keep(work, account, DocumentKind.CREDIT_NOTE, note.id, paper)


def name_receipt(transaction: Transaction) -> str:
    """What a receipt is called: receipts have no numbers of their own, and need none."""
    end = transaction.id.hex[-12:].upper()
    return f"R-{end[:4]}-{end[4:8]}-{end[8:]}"


async def freeze_receipt(work: Work, account: BillingAccount, transaction: Transaction) -> None:
    """Freeze what the receipt of a payment or refund shows, now that it went through, and have it drawn."""
    assert transaction.status is TransactionStatus.SUCCEEDED, "only what went through has a receipt"
    issuer, company, invoice_number, method = (
        await work.session.execute(
            select(Issuer, Company, Invoice.number, PaymentMethod)
            .select_from(Issuer)
            .outerjoin(Company, Company.account_id == account.id)
            .outerjoin(Invoice, Invoice.id == transaction.invoice_id)
            .outerjoin(PaymentMethod, PaymentMethod.id == transaction.payment_method_id)
            .where(Issuer.id == account.issuer_id)
        )
    ).one()
    now = work.clock.now_for(account)
    receipt = Receipt(
        kind=RECEIPT_KINDS[transaction.kind],
        number=name_receipt(transaction),
        language=language_of(account),
        locale=account.locale,
        size=choose_size(company),
        currency=transaction.currency,
        issued_on=now.astimezone(ZoneInfo(account.timezone)).date(),
        issuer=name_seller(issuer),
        bill_to=name_buyer(account, company),
        invoice_number=invoice_number,
        amount_minor=transaction.amount_minor,
        pays_by=None if method is None else f"{method.brand} {method.last4}",
        reference=transaction.reference,
        footer=company.footer if company else None,
    )
    await _keep(work, account, DocumentKind.RECEIPT, transaction.id, receipt)
    await keep_until_due(work, account, issuer, now)


def _taxes(amounts: Sequence[TaxAmount]) -> tuple[PaperTax, ...]:
    return tuple(
        PaperTax(
            jurisdiction=amount.rate.jurisdiction,
            category=amount.rate.category,
            rate_ppm=amount.rate.rate_ppm,
            taxable_minor=amount.taxable_minor,
            amount_minor=amount.amount_minor,
            reason=amount.rate.reason,
        )
        for amount in amounts
    )


async def _keep(work: Work, account: BillingAccount, kind: DocumentKind, subject_id: UUID, content: Content) -> None:
    now = work.clock.now_for(account)
    document = Document(
        created_at=now,
        account_id=account.id,
        kind=kind,
        subject_id=subject_id,
        content=content.model_dump(mode="json"),
        content_hash=content.digest(),
    )
    work.session.add(document)
    # By the wall clock, whatever the account's: drawing is nothing of its history.
    await enqueue(work, account, WorkKind.DRAW_DOCUMENT, str(document.id), work.clock.now())
