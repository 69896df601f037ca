"""Tax by seller, jurisdiction, category and rate: of invoices less credit notes, by the books of a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, select, union_all

from ..database import ReadSession
from ..models import (
    BillingAccount,
    CreditNoteTax,
    EntryKind,
    InvoiceTax,
    Issuer,
    LedgerAccount,
    LedgerEntry,
)
from .closes import DOCUMENTED, Scope, sum_ledger
from .errors import ErrorCode, RequestRefused
from .invariants.reading import key_of_id, key_of_text, sum_of

MAX_ROWS = 2_000


@dataclass(frozen=True)
class TaxSum:
    """What was taxed, and the tax on it, of one seller, jurisdiction, category, rate and currency."""

    issuer_key: str
    issuer_name: str
    currency: str
    jurisdiction: str
    category: str
    rate_ppm: int
    taxable_minor: int
    tax_minor: int


@dataclass(frozen=True)
class CurrencyTax:
    """The tax in a currency, and what the ledger says."""

    currency: str
    ledger_minor: int
    rows: Sequence[TaxSum]

    @property
    def tax_minor(self) -> int:
        """All of it."""
        return sum(row.tax_minor for row in self.rows)


async def sum_taxes(session: ReadSession, scope: Scope, since: datetime, before: datetime) -> list[CurrencyTax]:
    """The tax of entries in `[since, before)`, by currency."""
    booked = await sum_ledger(session, scope, LedgerAccount.TAX, since=since, before=before, kinds=DOCUMENTED)
    rows = await list_taxes(session, scope, since, before)
    currencies = sorted({*booked, *(row.currency for row in rows)})
    return [
        CurrencyTax(currency, -booked.get(currency, 0), [row for row in rows if row.currency == currency])
        for currency in currencies
    ]


async def list_taxes(session: ReadSession, scope: Scope, since: datetime, before: datetime) -> list[TaxSum]:
    """The sums, by currency, seller, jurisdiction, category and rate."""
    entry = LedgerEntry

    def taxes(table: type[InvoiceTax | CreditNoteTax], document_id: Any, kind: EntryKind, what: str, sign: int) -> Any:
        shown = func.substr(entry.subject, len(what) + 2)
        is_its = and_(
            table.account_id == entry.account_id, key_of_id(session, document_id) == key_of_text(session, shown)
        )
        return (
            select(
                Issuer.key,
                Issuer.legal_name,
                entry.currency,
                table.jurisdiction,
                table.category,
                table.rate_ppm,
                (table.taxable_minor * sign).label("taxable"),
                (table.amount_minor * sign).label("tax"),
            )
            .select_from(entry)
            .join(table, is_its)
            .join(BillingAccount, BillingAccount.id == entry.account_id)
            .join(Issuer, Issuer.id == BillingAccount.issuer_id)
            .where(entry.kind == kind, entry.created_at >= since, entry.created_at < before, scope.has())
        )

    both = union_all(
        taxes(InvoiceTax, InvoiceTax.invoice_id, EntryKind.FINALISE, "invoice", 1),
        taxes(CreditNoteTax, CreditNoteTax.credit_note_id, EntryKind.CREDIT_NOTE, "credit_note", -1),
    ).subquery("taxes")
    keys = [both.c.currency, both.c.key, both.c.legal_name, both.c.jurisdiction, both.c.category, both.c.rate_ppm]
    rows = (
        await session.execute(
            select(
                both.c.key,
                both.c.legal_name,
                both.c.currency,
                both.c.jurisdiction,
                both.c.category,
                both.c.rate_ppm,
                sum_of(both.c.taxable),
                sum_of(both.c.tax),
            )
            .group_by(*keys)
            .order_by(*keys)
            .limit(MAX_ROWS + 1)
        )
    ).all()
    if len(rows) > MAX_ROWS:
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"That is more than {MAX_ROWS} sums: ask for a shorter time.")
    return [TaxSum(*row) for row in rows]
