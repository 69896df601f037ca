"""What was invoiced and not earned yet, as of an instant, by line, and when time will earn it."""

import heapq
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from dateutil.relativedelta import relativedelta
from sqlalchemy import select

from ..database import ReadSession
from ..models import (
    BillingAccount,
    Deferral,
    Invoice,
    InvoiceLine,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
)
from .closes import MAX_ACCOUNTS_SHOWN, Scope, sum_ledger
from .invariants.reading import stream, sum_of
from .rules.money import share_of


@dataclass(frozen=True)
class DeferredLine:
    """What is deferred of an invoiced line."""

    account_id: UUID
    external_id: str
    name: str
    currency: str
    number: str
    """Of the invoice."""
    description: str
    starts_at: datetime
    ends_at: datetime
    amount_minor: int

    def schedule(self, as_of: datetime) -> list[tuple[date, int]]:
        """How much of it each month (of UTC) will earn, the month as its first day: by seconds, the sum exact.

        What is over and waits for its close is earned in the month at hand.
        """
        start = max(as_of, self.starts_at).astimezone(UTC)
        month = start.date().replace(day=1)
        second = timedelta(seconds=1)
        left = (self.ends_at - start) // second
        if left <= 0:
            return [(month, self.amount_minor)]
        parts: list[tuple[date, int]] = []
        earned = 0
        while earned != self.amount_minor or not parts:
            next_month = month + relativedelta(months=1)
            until = min(self.ends_at, datetime(next_month.year, next_month.month, 1, tzinfo=UTC))
            cumulative = share_of(self.amount_minor, (until - start) // second, left)
            parts.append((month, cumulative - earned))
            month, earned = next_month, cumulative
        return parts


@dataclass(frozen=True)
class AccountDeferred:
    """What is deferred of an account's lines."""

    account_id: UUID
    external_id: str
    name: str
    amount_minor: int


@dataclass
class CurrencyDeferred:
    """What is deferred in a currency, and what the ledger says."""

    currency: str
    ledger_minor: int = 0
    total_minor: int = 0
    months: dict[date, int] = field(default_factory=lambda: defaultdict(int))
    account_count: int = 0
    accounts: list[AccountDeferred] = field(default_factory=list[AccountDeferred])
    """Those of which most is deferred."""


async def sum_deferred(session: ReadSession, scope: Scope, as_of: datetime) -> list[CurrencyDeferred]:
    """What is deferred, by currency, and of whom most."""
    booked = await sum_ledger(session, scope, LedgerAccount.DEFERRED, up_to=as_of)
    found = {currency: CurrencyDeferred(currency, -amount) for currency, amount in booked.items()}
    heaps: dict[str, list[tuple[int, int, AccountDeferred]]] = defaultdict(list)

    def close(line: DeferredLine, amount_minor: int) -> None:
        of_currency = found[line.currency]
        of_currency.account_count += 1
        account = AccountDeferred(line.account_id, line.external_id, line.name, amount_minor)
        heap = heaps[line.currency]
        push = heapq.heappush if len(heap) < MAX_ACCOUNTS_SHOWN else heapq.heappushpop
        push(heap, (amount_minor, -of_currency.account_count, account))

    last: DeferredLine | None = None
    of_account = 0
    async for line in read_deferred(session, scope, as_of):
        if last is not None and last.account_id != line.account_id:
            close(last, of_account)
            of_account = 0
        last = line
        of_account += line.amount_minor
        of_currency = found.setdefault(line.currency, CurrencyDeferred(line.currency))
        of_currency.total_minor += line.amount_minor
        for month, amount in line.schedule(as_of):
            of_currency.months[month] += amount
    if last is not None:
        close(last, of_account)
    for currency, heap in heaps.items():
        found[currency].accounts = [account for *_, account in sorted(heap, reverse=True)]
    return [found[currency] for currency in sorted(found)]


async def read_deferred(session: ReadSession, scope: Scope, as_of: datetime) -> AsyncGenerator[DeferredLine]:
    """The lines of which something was deferred, by account."""
    entry, posting = LedgerEntry, LedgerPosting
    rest = (
        select(posting.account_id, posting.line_id, sum_of(-posting.amount_minor).label("amount"))
        .join(entry, entry.id == posting.entry_id)
        .where(posting.ledger_account == LedgerAccount.DEFERRED, entry.created_at <= as_of)
        .group_by(posting.account_id, posting.line_id)
        .subquery("rest")
    )
    statement = (
        select(
            BillingAccount.id,
            BillingAccount.external_id,
            BillingAccount.name,
            Deferral.currency,
            Invoice.number,
            InvoiceLine.description,
            Deferral.start_at,
            Deferral.end_at,
            rest.c.amount,
        )
        .join(BillingAccount, BillingAccount.id == rest.c.account_id)
        .join(Deferral, Deferral.line_id == rest.c.line_id)
        .join(InvoiceLine, InvoiceLine.id == rest.c.line_id)
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(rest.c.amount != 0, scope.has())
        .order_by(BillingAccount.id, Deferral.start_at, Deferral.id)
    )
    async for row in stream(session, statement):
        yield DeferredLine(*row)
