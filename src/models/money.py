"""What was demanded and paid: invoices, their lines and tax rows, transactions, payment methods."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity


class InvoiceStatus(StrEnum):
    """Where an invoice stands."""

    DRAFT = "DRAFT"
    OPEN = "OPEN"
    PAID = "PAID"
    VOID = "VOID"
    UNCOLLECTIBLE = "UNCOLLECTIBLE"


class LineKind(StrEnum):
    """What a line charges for."""

    SUBSCRIPTION = "SUBSCRIPTION"
    ADD_ON = "ADD_ON"
    OVERAGE = "OVERAGE"
    PRORATION = "PRORATION"
    CORRECTION = "CORRECTION"
    CREDIT = "CREDIT"


class InvoiceKind(StrEnum):
    """What an invoice came from."""

    START = "START"
    CHANGE = "CHANGE"
    ADD_ON = "ADD_ON"
    PERIOD = "PERIOD"
    FINAL = "FINAL"


class TransactionKind(StrEnum):
    """What kind of movement of money."""

    CHARGE = "CHARGE"
    REFUND = "REFUND"
    CREDIT = "CREDIT"
    CARRIED_FORWARD = "CARRIED_FORWARD"
    MANUAL = "MANUAL"
    DISPUTE = "DISPUTE"
    WRITE_OFF = "WRITE_OFF"


class TransactionStatus(StrEnum):
    """How far a movement of money got."""

    PENDING = "PENDING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class RefundState(StrEnum):
    """How much of a charge went back."""

    NONE = "NONE"
    PARTIAL = "PARTIAL"
    FULL = "FULL"


class FailureCode(StrEnum):
    """Why a payment failed, in our own closed list."""

    CARD_DECLINED = "CARD_DECLINED"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    EXPIRED_CARD = "EXPIRED_CARD"
    AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED"
    INCORRECT_DETAILS = "INCORRECT_DETAILS"
    STOLEN_OR_CLOSED = "STOLEN_OR_CLOSED"
    PROCESSOR_ERROR = "PROCESSOR_ERROR"


class RefundReason(StrEnum):
    """Why a charge is to go back."""

    DUPLICATE = "DUPLICATE"
    BILLING_ERROR = "BILLING_ERROR"
    SERVICE_ISSUE = "SERVICE_ISSUE"
    GOODWILL = "GOODWILL"


class RefundStatus(StrEnum):
    """How far a request for a refund got."""

    REQUESTED = "REQUESTED"
    NOT_ALLOWED = "NOT_ALLOWED"
    DENIED = "DENIED"
    APPROVED = "APPROVED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class SandboxAnswers(StrEnum):
    """How the embedded sandbox processor answers."""

    NORMAL = "NORMAL"
    HANGS = "HANGS"
    LOST_AFTER_EFFECT = "LOST_AFTER_EFFECT"
    OTHER_AMOUNT = "OTHER_AMOUNT"


class SandboxMessages(StrEnum):
    """How the embedded sandbox processor sends its messages."""

    ONCE = "ONCE"
    TWICE_SHUFFLED = "TWICE_SHUFFLED"
    NONE = "NONE"


class PaymentMethodKind(StrEnum):
    """What a payment method is."""

    CARD = "CARD"


UNDER_WAY = (TransactionStatus.PENDING, TransactionStatus.REQUIRES_ACTION, TransactionStatus.UNKNOWN)
"""The states of a movement whose end is not known yet."""
OPEN_ATTEMPT = "kind = 'CHARGE' AND status IN ({})".format(", ".join(f"'{status}'" for status in UNDER_WAY))
"""A charge whose end is not known yet, as SQL: there is at most one such charge per invoice."""

PAID = "kind = 'CHARGE' AND status = 'SUCCEEDED' AND excess_minor < amount_minor"
"""A charge that paid something of its invoice, as SQL: there is at most one per invoice."""


class PaymentMethod(Entity, kw_only=True, eq=False):
    """How an account pays: what the processor tells of a card, and its token. Never a card number."""

    __tablename__ = "payment_method"
    __table_args__ = (
        UniqueConstraint("account_id", "processor_token"),
        Index(
            "uq_payment_method_default",
            "account_id",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    kind: Mapped[PaymentMethodKind]
    brand: Mapped[str]
    last4: Mapped[str]
    exp_month: Mapped[int]
    exp_year: Mapped[int]
    is_default: Mapped[bool]
    processor_token: Mapped[str] = mapped_column(index=True)
    """What the processor knows it by."""
    removed_at: Mapped[datetime | None] = mapped_column(default=None)


class Invoice(Entity, kw_only=True, eq=False):
    """What an account owes for a period. Once it has a number it is frozen."""

    __tablename__ = "invoice"
    __table_args__ = (
        UniqueConstraint("issuer_id", "number"),
        UniqueConstraint("account_id", "cause"),
        Index(None, "account_id", "created_at", "id"),
        CheckConstraint("total_minor >= 0", "not_negative"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    issuer_id: Mapped[UUID] = mapped_column(ForeignKey("issuer.id"))
    number: Mapped[str | None] = mapped_column(default=None)
    kind: Mapped[InvoiceKind]
    cause: Mapped[str]
    """What it was made for, such as `period:` and the period's start: there is one invoice for each cause."""
    status: Mapped[InvoiceStatus] = mapped_column(default=InvoiceStatus.DRAFT)
    currency: Mapped[str]
    finalise_at: Mapped[datetime | None] = mapped_column(default=None)
    """Until when a draft waits for late usage."""
    bill: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """Of a draft: the lines that are certain. Its overage is rated when it is finalised."""
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    issued_at: Mapped[datetime | None] = mapped_column(default=None)
    due_at: Mapped[datetime | None] = mapped_column(default=None)
    payment_failed_at: Mapped[datetime | None] = mapped_column(default=None)
    """When a charge of it failed first: until it is settled the account is overdue."""
    subtotal_minor: Mapped[int]
    tax_minor: Mapped[int]
    total_minor: Mapped[int]
    paid_minor: Mapped[int] = mapped_column(default=0)
    balance_applied_minor: Mapped[int] = mapped_column(default=0)
    carried_in_minor: Mapped[int] = mapped_column(default=0)
    """Owed from earlier invoices that were too small to charge."""
    carried_out_minor: Mapped[int] = mapped_column(default=0)
    """Too small to charge: owed with the next invoice, or written off."""
    credited_minor: Mapped[int] = mapped_column(default=0)
    """Credited while it was open."""
    written_off_minor: Mapped[int] = mapped_column(default=0)
    """Given up as uncollectible; money that comes all the same is booked against it."""
    bill_to: Mapped[dict[str, Any]]
    issuer: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    language: Mapped[str] = mapped_column(default="en")
    content_hash: Mapped[str | None] = mapped_column(default=None)
    """SHA-256 of what was frozen when it was finalised."""

    @property
    def due_minor(self) -> int:
        """What is still to be paid."""
        if self.status in (InvoiceStatus.PAID, InvoiceStatus.VOID):
            return 0
        return self.owed_minor - self.paid_minor - self.credited_minor - self.carried_out_minor

    @property
    def owed_minor(self) -> int:
        """What was to be paid when it was issued."""
        return self.total_minor + self.carried_in_minor - self.balance_applied_minor

    @property
    def is_payable(self) -> bool:
        """Whether money for it is taken: also where it was given up."""
        return self.status in (InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)

    def owes(self, amount_minor: int) -> bool:
        """Whether so much of it is still to be paid."""
        return self.is_payable and self.due_minor >= amount_minor


class InvoiceLine(Entity, kw_only=True, eq=False):
    """One line of an invoice, net of tax."""

    __tablename__ = "invoice_line"
    __table_args__ = (UniqueConstraint("invoice_id", "position"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoice.id"))
    position: Mapped[int]
    kind: Mapped[LineKind]
    description: Mapped[str]
    quantity: Mapped[int]
    unit_minor: Mapped[int]
    amount_minor: Mapped[int]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    tax_country: Mapped[str]
    taxes: Mapped[list[Any]]
    """Each as [jurisdiction, category, rate in parts per million, reason]."""
    basis: Mapped[dict[str, Any]]
    """The figures that the amount is reckoned from, see `services.rules.explanation`."""
    metric_key: Mapped[str | None] = mapped_column(ForeignKey("metric.key"), default=None)
    plan_key: Mapped[str | None] = mapped_column(ForeignKey("plan.key"), default=None)
    add_on_key: Mapped[str | None] = mapped_column(ForeignKey("add_on.key"), default=None)
    credited_line_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoice_line.id"), index=True, default=None)
    usage_periods: Mapped[int] = mapped_column(default=1)
    """Over how many usage periods its amount is spent, in equal parts."""

    @property
    def tax_category(self) -> str:
        """The category that all its taxes share."""
        return str(self.taxes[0][1])

    @property
    def tax_rate_ppm(self) -> int:
        """The sum of its rates, in parts per million."""
        return sum(int(tax[2]) for tax in self.taxes)


class InvoiceTax(Entity, kw_only=True, eq=False):
    """The tax of one (jurisdiction, category, rate) of an invoice."""

    __tablename__ = "invoice_tax"
    __table_args__ = (UniqueConstraint("invoice_id", "jurisdiction", "category", "rate_ppm"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoice.id"))
    jurisdiction: Mapped[str]
    category: Mapped[str]
    rate_ppm: Mapped[int]
    taxable_minor: Mapped[int]
    amount_minor: Mapped[int]
    reason: Mapped[str | None] = mapped_column(default=None)


class CreditNote(Entity, kw_only=True, eq=False):
    """What of an invoice is taken back. Amounts are positive; once issued it never changes."""

    __tablename__ = "credit_note"
    __table_args__ = (
        UniqueConstraint("issuer_id", "number"),
        Index(None, "account_id", "created_at", "id"),
        CheckConstraint("total_minor >= 0", "not_negative"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    issuer_id: Mapped[UUID] = mapped_column(ForeignKey("issuer.id"))
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoice.id"), index=True)
    number: Mapped[str]
    reason: Mapped[str]
    """Why, as a code: CHANGE, CANCELLATION, VOID, CORRECTION, OPERATOR or REFUND."""
    currency: Mapped[str]
    issued_at: Mapped[datetime]
    subtotal_minor: Mapped[int]
    tax_minor: Mapped[int]
    total_minor: Mapped[int]
    to_invoice_minor: Mapped[int] = mapped_column(default=0)
    """How much of it lowered what was due of the invoice."""
    to_refund_minor: Mapped[int] = mapped_column(default=0)
    """How much of it is paid back by a refund; what is left of the total went to the credit balance."""
    bill_to: Mapped[dict[str, Any]]
    issuer: Mapped[dict[str, Any]]
    language: Mapped[str] = mapped_column(default="en")
    content_hash: Mapped[str] = mapped_column(default="")


class CreditNoteLine(Entity, kw_only=True, eq=False):
    """One line of a credit note: the line that it credits, and by how much, net and positive."""

    __tablename__ = "credit_note_line"
    __table_args__ = (UniqueConstraint("credit_note_id", "position"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    credit_note_id: Mapped[UUID] = mapped_column(ForeignKey("credit_note.id"))
    credited_line_id: Mapped[UUID] = mapped_column(ForeignKey("invoice_line.id"), index=True)
    position: Mapped[int]
    description: Mapped[str]
    amount_minor: Mapped[int]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    taxes: Mapped[list[Any]]
    basis: Mapped[dict[str, Any]]


class CreditNoteTax(Entity, kw_only=True, eq=False):
    """The tax taken back of one (jurisdiction, category, rate)."""

    __tablename__ = "credit_note_tax"
    __table_args__ = (UniqueConstraint("credit_note_id", "jurisdiction", "category", "rate_ppm"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    credit_note_id: Mapped[UUID] = mapped_column(ForeignKey("credit_note.id"))
    jurisdiction: Mapped[str]
    category: Mapped[str]
    rate_ppm: Mapped[int]
    taxable_minor: Mapped[int]
    amount_minor: Mapped[int]
    reason: Mapped[str | None] = mapped_column(default=None)


class Transaction(Entity, kw_only=True, eq=False):
    """One movement, or try, of money."""

    __tablename__ = "payment_transaction"  # `transaction` is a word of SQL
    __table_args__ = (
        Index(None, "account_id", "created_at", "id"),
        Index(
            "uq_payment_transaction_open_attempt",
            "invoice_id",
            unique=True,
            sqlite_where=text(OPEN_ATTEMPT),
            postgresql_where=text(OPEN_ATTEMPT),
        ),
        Index(
            "uq_payment_transaction_paid_once",
            "invoice_id",
            unique=True,
            sqlite_where=text(PAID),
            postgresql_where=text(PAID),
        ),
        Index(
            "uq_payment_transaction_step",
            "invoice_id",
            "step",
            unique=True,
            sqlite_where=text("step IS NOT NULL"),
            postgresql_where=text("step IS NOT NULL"),
        ),
        CheckConstraint("excess_minor >= 0 AND excess_minor <= amount_minor", "excess_is_a_part"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoice.id"), index=True, default=None)
    pending_change_id: Mapped[UUID | None] = mapped_column(ForeignKey("pending_change.id"), index=True, default=None)
    """The change that its success makes true."""
    payment_method_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment_method.id"), index=True, default=None)
    kind: Mapped[TransactionKind]
    status: Mapped[TransactionStatus]
    refund_state: Mapped[RefundState] = mapped_column(default=RefundState.NONE)
    currency: Mapped[str]
    amount_minor: Mapped[int]
    description: Mapped[str]
    failure_code: Mapped[FailureCode | None] = mapped_column(default=None)
    processor_key: Mapped[str | None] = mapped_column(unique=True, default=None)
    """The idempotency key of a charge, committed before the processor is called."""
    asked_at: Mapped[datetime | None] = mapped_column(default=None)
    """When the processor was first asked for it, committed before that too: from then on it is asked about first."""
    processor_id: Mapped[str | None] = mapped_column(index=True, default=None)
    """What the processor knows the charge by."""
    action: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """What the cardholder has to do: `clientSecret`, `url`."""
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    """Until when that can be done."""
    carried_to_invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoice.id"), index=True, default=None)
    """Of an amount carried forward: the invoice that demands it again."""
    step: Mapped[str | None] = mapped_column(default=None)
    """Of a charge: what it was tried for, such as a day of dunning. There is one try for each invoice and step."""
    on_session: Mapped[bool] = mapped_column(default=False)
    """Whether the cardholder was there, and could confirm the payment."""
    excess_minor: Mapped[int] = mapped_column(default=0)
    """Came in beyond what was due: owed back, until it is refunded or granted as credit. Of a lost dispute: how much of
    it was owed back anyway."""
    charge_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment_transaction.id"), index=True, default=None)
    """Of a refund or a dispute: the charge."""
    refund_request_id: Mapped[UUID | None] = mapped_column(index=True, default=None)
    """Of a refund: what asked for it. No foreign key: the request has one to the charge, and two make a ring."""
    reference: Mapped[str | None] = mapped_column(default=None)
    """Of a payment that was recorded by hand: what the bank says of it."""


class RefundRequest(Entity, kw_only=True, eq=False):
    """That somebody asked for (a part of) a charge back, what the rules said, and what was decided."""

    __tablename__ = "refund_request"
    __table_args__ = (
        Index(None, "account_id", "created_at", "id"),
        Index(None, "status", "created_at", "id"),
        CheckConstraint("amount_minor > 0", "positive"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    charge_id: Mapped[UUID] = mapped_column(ForeignKey("payment_transaction.id"), index=True)
    reason: Mapped[RefundReason]
    currency: Mapped[str]
    amount_minor: Mapped[int]
    """What was asked for, tax included."""
    from_at: Mapped[datetime | None] = mapped_column(default=None)
    to_at: Mapped[datetime | None] = mapped_column(default=None)
    """Of a service issue: when it was, half-open."""
    line_ids: Mapped[list[Any]] = mapped_column(default_factory=list)
    """Of a billing error: the lines that are wrong."""
    note: Mapped[str] = mapped_column(default="")
    """What whoever asked said to it."""
    requested_by: Mapped[str]
    status: Mapped[RefundStatus]
    verdict: Mapped[dict[str, Any]]
    """What the rules said when it was asked for: `allowed`, `maximumMinor`, `code`."""
    approved_minor: Mapped[int | None] = mapped_column(default=None)
    """What goes back, tax included: by the processor, or as credit."""
    refund_minor: Mapped[int] = mapped_column(default=0)
    """How much of that the processor pays back."""
    granted_minor: Mapped[int] = mapped_column(default=0)
    """How much of what was owed back was granted as credit instead."""
    reviewed_by: Mapped[str | None] = mapped_column(default=None)
    reviewed_at: Mapped[datetime | None] = mapped_column(default=None)
    review_reason: Mapped[str | None] = mapped_column(default=None)
    credit_note_id: Mapped[UUID | None] = mapped_column(ForeignKey("credit_note.id"), index=True, default=None)


class Dunning(Entity, kw_only=True, eq=False):
    """What follows unpaid invoices: one schedule per account, begun by the oldest, ended when all are settled."""

    __tablename__ = "dunning"
    __table_args__ = (
        Index(
            "uq_dunning_open",
            "account_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoice.id"), index=True)
    """The invoice that began it."""
    started_at: Mapped[datetime]
    """Day 0: the days count from here, 24 hours each."""
    retry_days: Mapped[list[Any]]
    suspend_day: Mapped[int]
    cancel_day: Mapped[int]
    ended_at: Mapped[datetime | None] = mapped_column(default=None)

    def at(self, day: int) -> datetime:
        """The instant of a day."""
        return self.started_at + timedelta(days=day)


class ProcessorEvent(Base, kw_only=True, eq=False):
    """A message of the payment processor that was heard: each id once."""

    __tablename__ = "processor_event"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    """The processor's id of what it is about."""
    heard_at: Mapped[datetime]
    outcome: Mapped[str]
    """What came of it, such as BOOKED, NOTHING_NEW or UNKNOWN_OBJECT."""


class SandboxCharge(Base, kw_only=True, eq=False):
    """A charge as the embedded sandbox processor remembers it: for each idempotency key one."""

    __tablename__ = "sandbox_charge"

    key: Mapped[str] = mapped_column(primary_key=True)
    processor_id: Mapped[str] = mapped_column(unique=True)
    token: Mapped[str]
    currency: Mapped[str]
    amount_minor: Mapped[int]
    status: Mapped[TransactionStatus]
    failure_code: Mapped[FailureCode | None] = mapped_column(default=None)
    customer: Mapped[str]
    refunded_minor: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class SandboxRefund(Base, kw_only=True, eq=False):
    """A refund as the embedded sandbox processor remembers it."""

    __tablename__ = "sandbox_refund"

    key: Mapped[str] = mapped_column(primary_key=True)
    processor_id: Mapped[str] = mapped_column(unique=True)
    charge_id: Mapped[str] = mapped_column(ForeignKey("sandbox_charge.processor_id"), index=True)
    amount_minor: Mapped[int]
    status: Mapped[TransactionStatus]
    created_at: Mapped[datetime]


class SandboxDispute(Base, kw_only=True, eq=False):
    """A dispute as the embedded sandbox processor remembers it: of each charge one."""

    __tablename__ = "sandbox_dispute"

    charge_id: Mapped[str] = mapped_column(ForeignKey("sandbox_charge.processor_id"), primary_key=True)
    processor_id: Mapped[str] = mapped_column(unique=True)
    amount_minor: Mapped[int]
    status: Mapped[TransactionStatus]
    """Open while pending; lost when it succeeded, won when it was canceled."""
    created_at: Mapped[datetime]


class SandboxConduct(Base, kw_only=True, eq=False):
    """How the embedded sandbox processor behaves towards one customer."""

    __tablename__ = "sandbox_conduct"

    customer: Mapped[str] = mapped_column(primary_key=True)
    answers: Mapped[SandboxAnswers]
    messages: Mapped[SandboxMessages]


class SandboxMessage(Base, kw_only=True, eq=False):
    """A message that the embedded sandbox processor has to send."""

    __tablename__ = "sandbox_message"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    """Its own id of the charge, refund or dispute."""
    key: Mapped[str | None]
    """Of a charge or refund: the key that it was asked for with."""
    copies: Mapped[int]
    """How often it is still sent."""
    is_shuffled: Mapped[bool]
    created_at: Mapped[datetime]
