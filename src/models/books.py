"""The books: double entry per currency, append-only; and what is still to be recognised of invoiced lines."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from .base import Entity


class LedgerAccount(StrEnum):
    """An account of the books."""

    RECEIVABLES = "RECEIVABLES"
    CASH = "CASH"
    DEFERRED = "DEFERRED"
    REVENUE = "REVENUE"
    TAX = "TAX"
    CUSTOMER_CREDIT = "CUSTOMER_CREDIT"
    REFUNDS_PAYABLE = "REFUNDS_PAYABLE"
    GOODWILL = "GOODWILL"
    BAD_DEBT = "BAD_DEBT"
    DISPUTE_LOSSES = "DISPUTE_LOSSES"


class EntryKind(StrEnum):
    """What an entry records."""

    FINALISE = "FINALISE"
    RECOGNITION = "RECOGNITION"
    PAYMENT = "PAYMENT"
    CREDIT_NOTE = "CREDIT_NOTE"
    BALANCE_APPLIED = "BALANCE_APPLIED"
    BALANCE_RETURNED = "BALANCE_RETURNED"
    REFUND = "REFUND"
    WRITE_OFF = "WRITE_OFF"
    GRANT_CREDIT = "GRANT_CREDIT"
    GRANT_OWED = "GRANT_OWED"
    DISPUTE_LOST = "DISPUTE_LOST"
    BROUGHT_FORWARD = "BROUGHT_FORWARD"


class LedgerEntry(Entity, kw_only=True, eq=False):
    """One fact in the books. Its postings sum to 0."""

    __tablename__ = "ledger_entry"
    __table_args__ = (Index(None, "account_id", "created_at", "id"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    kind: Mapped[EntryKind]
    subject: Mapped[str]
    """What it records, as `invoice:ID`, `credit_note:ID`, `transaction:ID` or `subscription:ID`."""
    currency: Mapped[str]


class LedgerPosting(Entity, kw_only=True, eq=False):
    """An amount on an account of the books: debits are positive, credits negative."""

    __tablename__ = "ledger_posting"
    __table_args__ = (
        Index(None, "entry_id"),
        Index(None, "account_id", "ledger_account"),
        CheckConstraint("amount_minor != 0", "not_nothing"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    entry_id: Mapped[UUID] = mapped_column(ForeignKey("ledger_entry.id"))
    ledger_account: Mapped[LedgerAccount]
    currency: Mapped[str]
    amount_minor: Mapped[int]
    line_id: Mapped[UUID | None] = mapped_column(default=None)
    """On DEFERRED: of which invoiced line. No foreign key: the line may be purged before its entries are."""


class Deferral(Entity, kw_only=True, eq=False):
    """An invoiced line whose period had not ended: how much of it is revenue by now. Done when its rest is 0."""

    __tablename__ = "deferral"
    __table_args__ = (Index(None, "account_id", "settled_at"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    line_id: Mapped[UUID] = mapped_column(ForeignKey("invoice_line.id"), unique=True)
    currency: Mapped[str]
    net_minor: Mapped[int]
    start_at: Mapped[datetime]
    end_at: Mapped[datetime]
    recognised_minor: Mapped[int] = mapped_column(default=0)
    credited_minor: Mapped[int] = mapped_column(default=0)
    """How much of what was not recognised was credited."""
    settled_at: Mapped[datetime | None] = mapped_column(default=None)

    @property
    def rest_minor(self) -> int:
        """What is still deferred."""
        return self.net_minor - self.recognised_minor - self.credited_minor
