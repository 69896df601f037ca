"""Who sells (issuer), who buys (billing account), who acts (member, operator), and test clocks."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import Base, Entity


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


class CollectionMethod(StrEnum):
    """How an invoice is paid."""

    AUTOMATIC = "AUTOMATIC"
    SEND_INVOICE = "SEND_INVOICE"


class Issuer(Entity, kw_only=True, eq=False):
    """The seller whose name stands on invoices."""

    __tablename__ = "issuer"

    key: Mapped[str] = mapped_column(unique=True)
    legal_name: Mapped[str]
    address_lines: Mapped[list[Any]]
    postal_code: Mapped[str]
    city: Mapped[str]
    country: Mapped[str]
    email: Mapped[str]
    tax_ids: Mapped[dict[str, Any]]
    """By label; `vat` is the VAT id."""
    bank_details: Mapped[dict[str, Any]]
    timezone: Mapped[str]
    retention_years: Mapped[int] = mapped_column(default=7)
    draft_minutes: Mapped[int] = mapped_column(default=60)
    """How long the invoice of a closed period waits for late usage."""


class NumberSeries(Base, kw_only=True, eq=False):
    """A gapless series of numbers. Its row is the lock under which the next one is given."""

    __tablename__ = "number_series"

    issuer_id: Mapped[UUID] = mapped_column(ForeignKey("issuer.id"), primary_key=True)
    prefix: Mapped[str] = mapped_column(primary_key=True)
    """What stands before the figures, such as `INV-`."""
    last_number: Mapped[int] = mapped_column(default=0)
    last_issued_at: Mapped[datetime | None] = mapped_column(default=None)
    """No later number is issued with an earlier instant."""


class TestClock(Entity, kw_only=True, eq=False):
    """A time of its own that accounts can hang on, in the sandbox only."""

    __tablename__ = "test_clock"
    __test__ = False  # not a test class, whatever its name says to pytest

    name: Mapped[str]
    code: Mapped[str] = mapped_column(unique=True)
    """Stands in the numbers of its accounts' documents."""
    now: Mapped[datetime]
    advancing_until: Mapped[datetime | None] = mapped_column(default=None)
    """While it is being advanced: until when (wall clock) nobody else may."""


class BillingAccount(Entity, kw_only=True, eq=False):
    """A tenant. Its row is the lock under which everything of the account changes."""

    __tablename__ = "billing_account"
    __table_args__ = (
        UniqueConstraint("issuer_id", "external_id"),
        Index(None, "created_at", "id"),
        CheckConstraint("credit_minor >= 0", "credit_not_negative"),
    )

    issuer_id: Mapped[UUID] = mapped_column(ForeignKey("issuer.id"))
    external_id: Mapped[str]
    name: Mapped[str]
    currency: Mapped[str]
    timezone: Mapped[str]
    locale: Mapped[str] = mapped_column(default="en")
    pairs: Mapped[dict[str, Any]] = mapped_column("metadata", default_factory=dict)
    collection_method: Mapped[CollectionMethod] = mapped_column(default=CollectionMethod.AUTOMATIC)
    net_days: Mapped[int] = mapped_column(default=30)
    """How long a sent invoice may stay unpaid."""
    processor_customer: Mapped[str | None] = mapped_column(default=None)
    """What the processor knows the account by; none until it first needs to."""
    credit_minor: Mapped[int] = mapped_column(default=0)
    """The credit balance; the books have it too, and the audit compares."""
    spike_alerts: Mapped[bool] = mapped_column(default=True)
    """Whether unusual days of usage are told of."""
    keys_may_ingest: Mapped[bool] = mapped_column(default=False)
    """Whether an operator lets the tenant's own keys record usage."""
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    data_deleted_at: Mapped[datetime | None] = mapped_column(default=None)
    """When all of it but its invoices and books was deleted, 90 days after it was cancelled or closed."""
    legal_hold: Mapped[str | None] = mapped_column(default=None)
    """Why nothing of the account may be purged; none where it may."""
    test_clock_id: Mapped[UUID | None] = mapped_column(ForeignKey("test_clock.id"), index=True, default=None)
    sequence: Mapped[int] = mapped_column(default=0)
    """The number of the account's last change: outbox rows, alerts and counters carry theirs."""
    kept_after_sequence: Mapped[int] = mapped_column(default=0)
    """Changes up to this one are no longer kept: a stream cannot resume before it."""
    audit_count: Mapped[int] = mapped_column(default=0)
    audit_hash: Mapped[str] = mapped_column(default="")
    """The hash of the last audit entry, so that a cut-off end of the chain shows too."""

    test_clock: Mapped[TestClock | None] = relationship(lazy="raise", init=False, repr=False)


class Company(Entity, kw_only=True, eq=False):
    """Who stands on an account's invoices as the buyer."""

    __tablename__ = "company"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), unique=True)
    legal_name: Mapped[str]
    country: Mapped[str]
    address_lines: Mapped[list[Any]] = mapped_column(default_factory=list)
    postal_code: Mapped[str] = mapped_column(default="")
    city: Mapped[str] = mapped_column(default="")
    region: Mapped[str] = mapped_column(default="")
    """A state or province, by the part of its ISO 3166-2 code after the country."""
    vat_id: Mapped[str | None] = mapped_column(default=None)
    """In its compact form, valid for its country; an EU one frees of tax by reverse charge."""
    tax_ids: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """Other tax ids, by label."""
    email: Mapped[str | None] = mapped_column(default=None)
    paper_size: Mapped[str | None] = mapped_column(default=None)
    """A4 or LETTER; by country when nothing is said."""
    purchase_order: Mapped[str | None] = mapped_column(default=None)
    footer: Mapped[str | None] = mapped_column(default=None)


class TaxExemption(Entity, kw_only=True, eq=False):
    """A certificate that frees an account from tax."""

    __tablename__ = "tax_exemption"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), unique=True)
    certificate: Mapped[str]
    reason: Mapped[str]
    valid_from: Mapped[date]
    valid_to: Mapped[date | None] = mapped_column(default=None)
    """Exclusive."""


class Member(Entity, kw_only=True, eq=False):
    """A person's role in one account. Who the person is, a token proves by (`iss`, `sub`)."""

    __tablename__ = "member"
    __table_args__ = (UniqueConstraint("account_id", "iss", "sub"), Index(None, "iss", "sub"))

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    iss: Mapped[str]
    sub: Mapped[str]
    display_name: Mapped[str]
    email: Mapped[str | None] = mapped_column(default=None)
    """Where an invitation reached the person."""
    locale: Mapped[str | None] = mapped_column(default=None)
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
