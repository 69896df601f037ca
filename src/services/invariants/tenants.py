"""I12: no row of one account points at another's."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Column, Table, and_, select
from sqlalchemy.sql.elements import ColumnElement

from ...database import ReadSession
from ...models import Base, CreditNote, Document, DocumentKind, Invoice, RefundRequest, Transaction
from .reading import Findings, stream


@dataclass(frozen=True)
class _Pointer:
    """A column of an account's table that names a row of another one's."""

    column: Column[object]
    named: Column[object]
    where: ColumnElement[bool] | None = None


def list_pointers() -> Iterator[_Pointer]:
    """Every foreign key from one table with an account to another, and the columns that name one without."""
    for table in Base.metadata.sorted_tables:
        if "account_id" not in table.c:
            continue
        for foreign_key in sorted(table.foreign_keys, key=lambda each: str(each.parent.name)):
            if "account_id" in foreign_key.column.table.c:
                yield _Pointer(foreign_key.parent, foreign_key.column)
    yield _Pointer(_column(Transaction, "refund_request_id"), _column(RefundRequest, "id"))
    kind, subject = _column(Document, "kind"), _column(Document, "subject_id")
    yield _Pointer(subject, _column(Invoice, "id"), kind == DocumentKind.INVOICE)
    yield _Pointer(subject, _column(CreditNote, "id"), kind == DocumentKind.CREDIT_NOTE)
    yield _Pointer(subject, _column(Transaction, "id"), kind == DocumentKind.RECEIPT)


def _column(table: type[Base], name: str) -> Column[object]:
    found = table.__table__.c[name]
    assert isinstance(found, Column), "it is stored"
    return found


async def check_tenants(session: ReadSession, found: Findings) -> None:
    """What a row names belongs to the row's account."""
    for pointer in list_pointers():
        table = pointer.column.table
        assert isinstance(table, Table), "a column of a table"
        named = pointer.named.table.alias("named")
        # A part of something else is known by what it is part of.
        key = table.c.get("id", pointer.column)
        statement = (
            select(table.c.account_id, key, named.c.id, named.c.account_id)
            .join(
                named,
                and_(named.c[pointer.named.name] == pointer.column, named.c.account_id != table.c.account_id),
            )
            .order_by(*table.primary_key)
        )
        if pointer.where is not None:
            statement = statement.where(pointer.where)
        async for account_id, row_id, named_id, other_id in stream(session, statement):
            found.add(
                "I12",
                account_id,
                f"{table.name} {row_id} points by {pointer.column.name} at {pointer.named.table.name} {named_id} of "
                f"the account {other_id}.",
            )
