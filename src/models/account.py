"""Who sells (issuer), who buys (billing account), who acts (member, operator), and test clocks."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import Entity


class Role(StrEnum):
    """What a person is to an account; an operator stands above all accounts."""

    OPERATOR = "OPERATOR"
    TENANT_OWNER = "TENANT_OWNER"
    BILLING_ADMIN = "BILLING_ADMIN"
    MEMBER = "MEMBER"


class AccountStatus(StrEnum):
    """How much of an account can be used."""

    ACTIVE = "ACTIVE"
    READ_ONLY = "READ_ONLY"
    EXPIRED = "EXPIRED"
    CLOSED = "CLOSED"


class Issuer(Entity, kw_only=True, eq=False):
    """The seller whose name stands on invoices."""

    __tablename__ = "issuer"

    key: Mapped[str] = mapped_column(unique=True)
    legal_name: Mapped[str]
    address_lines: Mapped[list[Any]]
    country: Mapped[str]
    tax_ids: Mapped[dict[str, Any]]
    bank_details: Mapped[dict[str, Any]]
    timezone: Mapped[str]
    invoice_prefix: Mapped[str] = mapped_column(default="INV-")
    credit_note_prefix: Mapped[str] = mapped_column(default="CN-")
    last_invoice_number: Mapped[int] = mapped_column(default=0)
    last_credit_note_number: Mapped[int] = mapped_column(default=0)
    retention_years: Mapped[int] = mapped_column(default=7)


class TestClock(Entity, kw_only=True, eq=False):
    """A time of its own that accounts can hang on, in the sandbox only."""

    __tablename__ = "test_clock"
    __test__ = False  # not a test class, whatever its name says to pytest

    name: Mapped[str]
    now: Mapped[datetime]


class BillingAccount(Entity, kw_only=True, eq=False):
    """A tenant. Its row is the lock under which everything of the account changes."""

    __tablename__ = "billing_account"
    __table_args__ = (UniqueConstraint("issuer_id", "external_id"), Index(None, "created_at", "id"))

    issuer_id: Mapped[UUID] = mapped_column(ForeignKey("issuer.id"))
    external_id: Mapped[str]
    name: Mapped[str]
    currency: Mapped[str]
    timezone: Mapped[str]
    locale: Mapped[str] = mapped_column(default="en")
    pairs: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    test_clock_id: Mapped[UUID | None] = mapped_column(ForeignKey("test_clock.id"), index=True, default=None)
    sequence: Mapped[int] = mapped_column(default=0)
    """The number of the account's last change: outbox rows, alerts and counters carry theirs."""
    kept_after_sequence: Mapped[int] = mapped_column(default=0)
    """Changes up to this one are no longer kept: a stream cannot resume before it."""
    audit_count: Mapped[int] = mapped_column(default=0)
    audit_hash: Mapped[str] = mapped_column(default="")
    """The hash of the last audit entry, so that a cut-off end of the chain shows too."""

    test_clock: Mapped[TestClock | None] = relationship(lazy="raise", init=False, repr=False)


class Member(Entity, kw_only=True, eq=False):
    """A person's role in one account. Who the person is, a token proves by (`iss`, `sub`)."""

    __tablename__ = "member"
    __table_args__ = (UniqueConstraint("account_id", "iss", "sub"), Index(None, "iss", "sub"))

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    iss: Mapped[str]
    sub: Mapped[str]
    display_name: Mapped[str]
    role: Mapped[Role]
    removed_at: Mapped[datetime | None] = mapped_column(default=None)


class Operator(Entity, kw_only=True, eq=False):
    """A person of the vendor, who may act on every account."""

    __tablename__ = "operator"
    __table_args__ = (UniqueConstraint("iss", "sub"),)

    iss: Mapped[str]
    sub: Mapped[str]
    display_name: Mapped[str]
    removed_at: Mapped[datetime | None] = mapped_column(default=None)
