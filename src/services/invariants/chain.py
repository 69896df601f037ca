"""I13: the audit log is as it was written, and tells of every change of money who made it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, literal, or_, select
from sqlalchemy.sql.elements import ColumnElement

from ...database import ReadSession, hash_audit_entry
from ...models import (
    AuditEntry,
    BillingAccount,
    CreditNote,
    Deployment,
    Invoice,
    InvoiceStatus,
    RefundRequest,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from .reading import Findings, is_finalised, key_of_id, key_of_text, show_digest, stream

ERASED = ".erased"
"""How the action of an entry ends that tells of a person's data being erased, from the log's own details too."""


async def check_chain(session: ReadSession, found: Findings) -> None:
    """Each account's entries are numbered from 1, each hashed with the one before, up to what the account remembers.

    So are the deployment's, which are no account's.
    """
    of_accounts = (
        select(BillingAccount.id, BillingAccount.audit_count, BillingAccount.audit_hash, AuditEntry)
        .outerjoin(AuditEntry, AuditEntry.account_id == BillingAccount.id)
        .order_by(BillingAccount.id, AuditEntry.number)
    )
    of_deployment = (
        select(literal(None), Deployment.audit_count, Deployment.audit_hash, AuditEntry)
        .outerjoin(AuditEntry, AuditEntry.account_id.is_(None))
        .order_by(AuditEntry.number)
    )
    for statement in (of_deployment, of_accounts):
        chain = _Chain()
        async for account_id, count, digest, entry in stream(session, statement):
            if chain.account_id != account_id or chain.count is None:
                chain.end(found)
                chain = _Chain(account_id, count, digest)
            if entry is not None:
                chain.add(entry, found)
        chain.end(found)


@dataclass
class _Chain:
    """One chain's entries as they are read. Only its first break is told: all that follows stands on it."""

    account_id: UUID | None = None
    count: int | None = None
    """None before the first row."""
    digest: str = ""
    number: int = 0
    hash: str = ""
    erased: AuditEntry | None = None
    """An entry whose details were erased, while no later one says so."""
    is_broken: bool = False

    def add(self, entry: AuditEntry, found: Findings) -> None:
        if self.is_broken:
            return
        self.number += 1
        if entry.number != self.number:
            self._break(found, f"The audit log has the entry {entry.number} where {self.number} should be.")
        elif entry.previous_hash != self.hash:
            self._break(found, f"The audit entry {entry.number} does not follow from the one before it.")
        elif hash_audit_entry(entry) != entry.hash:
            self._break(found, f"The audit entry {entry.number} ({entry.action}) is not what was written.")
        self.hash = entry.hash
        if entry.details_hash is not None:
            self.erased = entry
        elif entry.action.endswith(ERASED):
            self.erased = None

    def end(self, found: Findings) -> None:
        if self.is_broken or self.count is None:
            return
        if (self.number, self.hash) != (self.count, self.digest):
            owner = "deployment" if self.account_id is None else "account"
            self._break(
                found,
                f"The audit log ends with entry {self.number} ({show_digest(self.hash)}), and the {owner} remembers "
                f"{self.count} ({show_digest(self.digest)}).",
            )
        elif self.erased is not None:
            number, action = self.erased.number, self.erased.action
            self._break(found, f"The details of audit entry {number} ({action}) are gone, and no entry says by whom.")

    def _break(self, found: Findings, what: str) -> None:
        self.is_broken = True
        found.add("I13", self.account_id, what)


@dataclass(frozen=True)
class _Told:
    """What the audit log has to tell of rows: under which names, and what is said where it does not."""

    subject: str
    row_id: Any
    account_id: Any
    shown: Any
    where: ColumnElement[bool]
    what: str
    actions: tuple[str, ...] = ()
    """One of these; any where nothing is said."""


def _list_told() -> list[_Told]:
    row, invoice, note, request = Transaction, Invoice, CreditNote, RefundRequest
    ended = (TransactionStatus.SUCCEEDED, TransactionStatus.FAILED)
    # What was carried forward or written off is told of with its invoice; what goes back by hand, with its request.
    moved = or_(
        and_(
            row.kind == TransactionKind.CHARGE,
            row.status.not_in((TransactionStatus.PENDING, TransactionStatus.UNKNOWN)),
        ),
        row.kind.in_((TransactionKind.MANUAL, TransactionKind.CREDIT, TransactionKind.DISPUTE)),
        and_(
            row.kind == TransactionKind.REFUND,
            row.status.in_(ended),
            or_(row.processor_id.is_not(None), row.status == TransactionStatus.FAILED),
        ),
    )
    undecided = (RefundStatus.REQUESTED, RefundStatus.NOT_ALLOWED)
    of_invoice = ("invoice", invoice.id, invoice.account_id, invoice.number)
    of_request = ("refund_request", request.id, request.account_id, request.id)
    return [
        _Told("transaction", row.id, row.account_id, row.id, moved, "what became of the transaction {}"),
        _Told(*of_invoice, is_finalised(), "who issued {}", ("invoice.finalized",)),
        _Told(
            *of_invoice,
            invoice.status == InvoiceStatus.VOID,
            "who withdrew {}",
            ("invoice.voided",),
        ),
        _Told(*of_invoice, invoice.written_off_minor > 0, "who gave up {}", ("invoice.uncollectible",)),
        _Told(
            "credit_note",
            note.id,
            note.account_id,
            note.number,
            note.id.is_not(None),
            "who issued {}",
            ("credit_note.issued",),
        ),
        _Told(*of_request, request.id.is_not(None), "who made the request {}", ("refund.requested",)),
        _Told(
            *of_request,
            request.status.not_in(undecided),
            "who decided on the request {}",
            ("refund.approved", "refund.denied"),
        ),
    ]


async def check_trail(session: ReadSession, found: Findings) -> None:
    """Each payment, refund, document and decision stands in its account's audit log, with who did it."""
    for told in _list_told():
        start = f"{told.subject}:"
        shown = func.substr(AuditEntry.object, len(start) + 1)
        where = [func.substr(AuditEntry.object, 1, len(start)) == start, AuditEntry.actor != ""]
        if told.actions:
            where.append(AuditEntry.action.in_(told.actions))
        # Once for all of them: SQLite makes an index of it for the join.
        named = (
            select(AuditEntry.account_id, key_of_text(session, shown).label("key")).where(*where).distinct().subquery()
        )
        is_told = and_(
            named.c.account_id == told.account_id,
            key_of_id(session, told.row_id) == named.c.key,
        )
        statement = (
            select(told.account_id, told.shown)
            .outerjoin(named, is_told)
            .where(told.where, named.c.account_id.is_(None))
            .order_by(told.row_id)
        )
        async for account_id, name in stream(session, statement):
            found.add("I13", account_id, f"The audit log does not tell {told.what.format(name)}.")
