"""What all checks share: findings, rows as they stream by, and sums that several invariants speak of."""

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Row, Select, String, cast, func, select, union_all
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import Subquery

from ...database import ReadSession
from ...models import (
    CreditNoteLine,
    EntryKind,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LedgerEntry,
)
from ..rules.money import to_decimal

SHOWN = 100
"""How many findings of one invariant are told."""
READ_AT_ONCE = 500


@dataclass(frozen=True)
class Finding:
    """Something that should not be: which invariant it breaks, of which account, and what it is, with the figures."""

    invariant: str
    account_id: UUID | None
    what: str


@dataclass
class Findings:
    """What is found, at most so much of each invariant, and how many more there are."""

    told: dict[str, list[Finding]] = field(default_factory=lambda: defaultdict(list))
    more: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, invariant: str, account_id: UUID | None, what: str) -> None:
        """Note a finding."""
        if len(self.told[invariant]) < SHOWN:
            self.told[invariant].append(Finding(invariant, account_id, what))
        else:
            self.more[invariant] += 1

    def listed(self) -> list[Finding]:
        """All that is told, by invariant."""
        found = []
        for invariant in sorted(self.told, key=lambda name: int(name[1:])):
            found += self.told[invariant]
            if self.more[invariant]:
                found.append(Finding(invariant, None, f"… and {self.more[invariant]} more."))
        return found


def dialect_of(session: ReadSession) -> str:
    """The engine that a session reads from."""
    assert session.bind is not None, "sessions come from Database"
    return session.bind.dialect.name


async def stream(
    session: ReadSession, statement: Select[*tuple[Any, ...]], *, at_once: int = READ_AT_ONCE
) -> AsyncGenerator[Row[*tuple[Any, ...]]]:
    """The rows of a statement, a few at a time: memory does not grow with the books."""
    result = await session.stream(statement.execution_options(yield_per=at_once))
    try:
        async for row in result:
            yield row
    finally:
        await result.close()


class Groups:
    """Rows in order of an id that comes first in them, given out by that id, which rises."""

    def __init__(self, session: ReadSession, statement: Select[*tuple[Any, ...]]) -> None:
        self._rows = stream(session, statement)
        self._next: Row[*tuple[Any, ...]] | None = None
        self._is_begun = False

    async def take(self, key: UUID) -> list[Row[*tuple[Any, ...]]]:
        """The rows of this id; those before it belong to nothing."""
        if not self._is_begun:
            self._is_begun = True
            await self._step()
        taken = []
        while self._next is not None and self._next[0] <= key:
            if self._next[0] == key:
                taken.append(self._next)
            await self._step()
        return taken

    async def close(self) -> None:
        """Leave what was not taken."""
        await self._rows.aclose()

    async def _step(self) -> None:
        self._next = await anext(self._rows, None)


@asynccontextmanager
async def beside(session: ReadSession, *statements: Select[*tuple[Any, ...]]) -> AsyncGenerator[list[Groups]]:
    """Several statements to be read side by side, in order of the same id."""
    opened = [Groups(session, statement) for statement in statements]
    try:
        yield opened
    finally:
        for groups in opened:
            await groups.close()


def is_finalised() -> ColumnElement[bool]:
    """That an invoice is no draft."""
    return Invoice.status != InvoiceStatus.DRAFT


def sum_of(column: Any) -> ColumnElement[int]:
    """A sum, 0 of nothing."""
    # PostgreSQL's sum of 64-bit numbers is a decimal.
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def or_0(column: Any) -> ColumnElement[int]:
    """What an outer join found, or 0."""
    return func.coalesce(column, 0)


def key_of_id(session: ReadSession, row_id: Any) -> ColumnElement[Any]:
    """An id, to be compared with `key_of_text` by an index or a hash."""
    # PostgreSQL has ids of a type of its own, SQLite their digits without dashes.
    key: ColumnElement[Any] = cast(row_id, String) if dialect_of(session) == "postgresql" else row_id
    return key


def key_of_text(session: ReadSession, shown: Any) -> ColumnElement[Any]:
    """An id that a text shows, to be compared with `key_of_id`."""
    # What is cast has a type, without which SQLite makes no index of it.
    key: ColumnElement[Any] = (
        shown if dialect_of(session) == "postgresql" else cast(func.replace(shown, "-", ""), String)
    )
    return key


def show_money(amount_minor: int, currency: str) -> str:
    """An amount for whoever reads a finding."""
    try:
        return f"{to_decimal(amount_minor, currency)} {currency}"
    except ValueError:  # what is audited may name any currency
        return f"{amount_minor} minor units of {currency}"


def since_purge() -> Subquery:
    """Since when an account's books are kept: what is older was purged, and stands in one entry."""
    return (
        select(LedgerEntry.account_id, func.max(LedgerEntry.created_at).label("since"))
        .where(LedgerEntry.kind == EntryKind.BROUGHT_FORWARD)
        .group_by(LedgerEntry.account_id)
        .subquery()
    )


def is_kept_whole(invoice: Invoice, since: datetime | None) -> bool:
    """Whether all that belongs to an invoice is still there, as far as purges go."""
    return since is None or (invoice.issued_at is not None and invoice.issued_at >= since)


def credits_of_lines(*without: InvoiceStatus) -> Subquery:
    """What was credited of lines, net, and from when: by lines of invoices but those of some states, and by notes."""
    by_lines = (
        select(
            InvoiceLine.credited_line_id.label("line_id"),
            (-InvoiceLine.amount_minor).label("amount_minor"),
            InvoiceLine.period_start.label("starts_at"),
        )
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(InvoiceLine.credited_line_id.is_not(None), Invoice.status.not_in(without))
    )
    by_notes = select(CreditNoteLine.credited_line_id, CreditNoteLine.amount_minor, CreditNoteLine.period_start)
    credits_ = union_all(by_lines, by_notes).subquery()
    return (
        select(
            credits_.c.line_id,
            sum_of(credits_.c.amount_minor).label("amount"),
            func.min(credits_.c.starts_at).label("starts_at"),
        )
        .group_by(credits_.c.line_id)
        .subquery()
    )


def show_digest(digest: str | None) -> str:
    """The beginning of a hash."""
    return f"{digest[:12]}…" if digest else "nothing"
