"""Receivables by age, as of an instant: reckoned from dated rows, so that the past is told as it was then.

Each posting on RECEIVABLES is of an invoice, by what its entry records. Carrying an amount forward posts nothing: it
moves from its invoice to none when it is carried, and on to the next invoice when that one is issued.
"""

import heapq
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, func, literal, null, select, union_all
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import Select, Subquery

from ..database import ReadSession
from ..models import (
    BillingAccount,
    CreditNote,
    EntryKind,
    Invoice,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
    Transaction,
    TransactionKind,
)
from .closes import MAX_ACCOUNTS_SHOWN, Scope, sum_ledger
from .invariants.reading import key_of_id, key_of_text, stream, sum_of


class Age(StrEnum):
    """How long something has been due."""

    NOT_DUE = "NOT_DUE"
    DAYS_1_TO_30 = "DAYS_1_TO_30"
    DAYS_31_TO_60 = "DAYS_31_TO_60"
    DAYS_61_TO_90 = "DAYS_61_TO_90"
    OVER_90_DAYS = "OVER_90_DAYS"
    CARRIED_FORWARD = "CARRIED_FORWARD"
    BROUGHT_FORWARD = "BROUGHT_FORWARD"


UP_TO = {Age.DAYS_1_TO_30: 30, Age.DAYS_31_TO_60: 60, Age.DAYS_61_TO_90: 90}


@dataclass(frozen=True)
class AccountAging:
    """What an account owed, by age."""

    account_id: UUID
    external_id: str
    name: str
    currency: str
    amounts: Mapping[Age, int]

    @property
    def total_minor(self) -> int:
        """All of it."""
        return sum(self.amounts.values())


@dataclass
class CurrencyAging:
    """What was owed in a currency, by age, and what the ledger says."""

    currency: str
    ledger_minor: int = 0
    amounts: dict[Age, int] = field(default_factory=lambda: dict.fromkeys(Age, 0))
    account_count: int = 0
    accounts: list[AccountAging] = field(default_factory=list[AccountAging])
    """Those that owed most."""

    @property
    def total_minor(self) -> int:
        """All of it."""
        return sum(self.amounts.values())


async def sum_aging(session: ReadSession, scope: Scope, as_of: datetime) -> list[CurrencyAging]:
    """What was owed, by currency and age, and by whom most."""
    booked = await sum_ledger(session, scope, LedgerAccount.RECEIVABLES, up_to=as_of)
    found = {currency: CurrencyAging(currency, amount) for currency, amount in booked.items()}
    heaps: dict[str, list[tuple[int, int, AccountAging]]] = {}
    async for account in read_aging(session, scope, as_of):
        of_currency = found.setdefault(account.currency, CurrencyAging(account.currency))
        of_currency.account_count += 1
        for age, amount in account.amounts.items():
            of_currency.amounts[age] += amount
        heap = heaps.setdefault(account.currency, [])
        push = heapq.heappush if len(heap) < MAX_ACCOUNTS_SHOWN else heapq.heappushpop
        push(heap, (account.total_minor, -of_currency.account_count, account))
    for currency, heap in heaps.items():
        found[currency].accounts = [account for *_, account in sorted(heap, reverse=True)]
    return [found[currency] for currency in sorted(found)]


async def read_aging(session: ReadSession, scope: Scope, as_of: datetime) -> AsyncGenerator[AccountAging]:
    """What each account owed, one after the other; nothing of those that owed nothing."""
    amounts: dict[Age, int] = {}
    last: AccountAging | None = None
    async for account_id, external_id, name, currency, age, amount in stream(session, _by_age(session, scope, as_of)):
        if last is None or last.account_id != account_id:
            if last is not None:
                yield last
            amounts = {}
            last = AccountAging(account_id, external_id, name, currency, amounts)
        amounts[Age(age)] = amount
    if last is not None:
        yield last


def _by_age(session: ReadSession, scope: Scope, as_of: datetime) -> Select[Any]:
    moves = _moves(session, as_of)
    of_invoice = (
        select(
            moves.c.account_id,
            moves.c.currency,
            moves.c.invoice_id,
            moves.c.is_brought,
            sum_of(moves.c.amount).label("amount"),
        )
        .group_by(moves.c.account_id, moves.c.currency, moves.c.invoice_id, moves.c.is_brought)
        .subquery("of_invoice")
    )
    age = case(
        (of_invoice.c.is_brought == 1, Age.BROUGHT_FORWARD),
        (of_invoice.c.invoice_id.is_(None), Age.CARRIED_FORWARD),
        (Invoice.due_at >= as_of, Age.NOT_DUE),
        *((Invoice.due_at >= as_of - timedelta(days=days), age) for age, days in UP_TO.items()),
        else_=Age.OVER_90_DAYS,
    )
    aged = (
        select(of_invoice.c.account_id, of_invoice.c.currency, age.label("age"), of_invoice.c.amount)
        .outerjoin(Invoice, Invoice.id == of_invoice.c.invoice_id)
        .where(of_invoice.c.amount != 0)
        .subquery("aged")
    )
    return (
        select(
            BillingAccount.id,
            BillingAccount.external_id,
            BillingAccount.name,
            aged.c.currency,
            aged.c.age,
            sum_of(aged.c.amount),
        )
        .join(BillingAccount, BillingAccount.id == aged.c.account_id)
        .where(scope.has())
        .group_by(BillingAccount.id, BillingAccount.external_id, BillingAccount.name, aged.c.currency, aged.c.age)
        .having(func.sum(aged.c.amount) != 0)
        .order_by(BillingAccount.id, aged.c.age)
    )


def _moves(session: ReadSession, as_of: datetime) -> Subquery:
    """What moved on RECEIVABLES up to an instant, each move with the invoice that it is of."""
    entry, posting = LedgerEntry, LedgerPosting

    def names(table: type[Invoice | CreditNote | Transaction], what: str) -> Any:
        shown = func.substr(entry.subject, len(what) + 2)
        return and_(
            entry.subject.startswith(f"{what}:"),
            table.account_id == entry.account_id,
            key_of_id(session, table.id) == key_of_text(session, shown),
        )

    booked = (
        select(
            posting.account_id.label("account_id"),
            posting.currency.label("currency"),
            func.coalesce(Invoice.id, CreditNote.invoice_id, Transaction.invoice_id).label("invoice_id"),
            case((entry.kind == EntryKind.BROUGHT_FORWARD, 1), else_=0).label("is_brought"),
            posting.amount_minor.label("amount"),
        )
        .join(entry, entry.id == posting.entry_id)
        .outerjoin(Invoice, names(Invoice, "invoice"))
        .outerjoin(CreditNote, names(CreditNote, "credit_note"))
        .outerjoin(Transaction, names(Transaction, "transaction"))
        .where(posting.ledger_account == LedgerAccount.RECEIVABLES, entry.created_at <= as_of)
    )
    next_ = aliased(Invoice)

    def carries(invoice_id: Any, amount: Any, *, again: bool = False) -> Select[Any]:
        moved = select(
            Transaction.account_id, Transaction.currency, invoice_id, literal(0).label("is_brought"), amount
        ).where(Transaction.kind == TransactionKind.CARRIED_FORWARD, Transaction.created_at <= as_of)
        if again:
            moved = moved.join(next_, next_.id == Transaction.carried_to_invoice_id).where(
                # What is given up ends where it began.
                next_.issued_at <= as_of,
                Transaction.carried_to_invoice_id != Transaction.invoice_id,
            )
        return moved

    nowhere = null()
    amount = Transaction.amount_minor
    return union_all(
        booked,
        carries(Transaction.invoice_id, -amount),
        carries(nowhere, amount),
        carries(nowhere, -amount, again=True),
        carries(Transaction.carried_to_invoice_id, amount, again=True),
    ).subquery("moves")
