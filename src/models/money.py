"""What was demanded and paid: invoices, their lines and tax rows, transactions, payment methods, budgets."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .base import Entity


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


class PaymentMethodKind(StrEnum):
    """What a payment method is."""

    CARD = "CARD"


class BudgetScope(StrEnum):
    """What a budget limits the spend of."""

    ACCOUNT = "ACCOUNT"
    METRIC = "METRIC"
    WORKSPACE = "WORKSPACE"


class BudgetAction(StrEnum):
    """What happens when a budget is spent."""

    ALERT_ONLY = "ALERT_ONLY"
    BLOCK_OVERAGE = "BLOCK_OVERAGE"
    UPGRADE = "UPGRADE"


class PaymentMethod(Entity, kw_only=True, eq=False):
    """How an account pays: what the processor tells of a card, and its token. Never a card number."""

    __tablename__ = "payment_method"
    __table_args__ = (UniqueConstraint("account_id", "processor_token"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    kind: Mapped[PaymentMethodKind]
    brand: Mapped[str]
    last4: Mapped[str]
    exp_month: Mapped[int]
    exp_year: Mapped[int]
    is_default: Mapped[bool]
    processor_token: Mapped[str]
    removed_at: Mapped[datetime | None] = mapped_column(default=None)


class Invoice(Entity, kw_only=True, eq=False):
    """What an account owes for a period. Once it has a number it is frozen."""

    __tablename__ = "invoice"
    __table_args__ = (
        UniqueConstraint("issuer_id", "number"),
        Index(None, "account_id", "created_at", "id"),
        CheckConstraint("total_minor >= 0", "not_negative"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    issuer_id: Mapped[UUID] = mapped_column(ForeignKey("issuer.id"))
    number: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[InvoiceStatus] = mapped_column(default=InvoiceStatus.DRAFT)
    currency: Mapped[str]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
    issued_at: Mapped[datetime | None] = mapped_column(default=None)
    due_at: Mapped[datetime | None] = mapped_column(default=None)
    subtotal_minor: Mapped[int]
    tax_minor: Mapped[int]
    total_minor: Mapped[int]
    paid_minor: Mapped[int] = mapped_column(default=0)
    balance_applied_minor: Mapped[int] = mapped_column(default=0)
    bill_to: Mapped[dict[str, Any]]

    @property
    def due_minor(self) -> int:
        """What is still to be paid."""
        if self.status in (InvoiceStatus.PAID, InvoiceStatus.VOID):
            return 0
        return self.total_minor - self.balance_applied_minor - self.paid_minor


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
    tax_category: Mapped[str]
    tax_rate_basis_points: Mapped[int]
    metric_key: Mapped[str | None] = mapped_column(ForeignKey("metric.key"), default=None)
    plan_key: Mapped[str | None] = mapped_column(ForeignKey("plan.key"), default=None)


class InvoiceTax(Entity, kw_only=True, eq=False):
    """The tax of one (jurisdiction, category, rate) of an invoice."""

    __tablename__ = "invoice_tax"
    __table_args__ = (UniqueConstraint("invoice_id", "jurisdiction", "category", "rate_basis_points"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoice.id"))
    jurisdiction: Mapped[str]
    category: Mapped[str]
    rate_basis_points: Mapped[int]
    taxable_minor: Mapped[int]
    amount_minor: Mapped[int]
    reason: Mapped[str | None] = mapped_column(default=None)


class Transaction(Entity, kw_only=True, eq=False):
    """One movement, or try, of money."""

    __tablename__ = "payment_transaction"  # `transaction` is a word of SQL
    __table_args__ = (Index(None, "account_id", "created_at", "id"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoice.id"), index=True, default=None)
    payment_method_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment_method.id"), default=None)
    kind: Mapped[TransactionKind]
    status: Mapped[TransactionStatus]
    refund_state: Mapped[RefundState] = mapped_column(default=RefundState.NONE)
    currency: Mapped[str]
    amount_minor: Mapped[int]
    description: Mapped[str]
    failure_code: Mapped[FailureCode | None] = mapped_column(default=None)


class Budget(Entity, kw_only=True, eq=False):
    """A ceiling on net spend per usage period: of the account, a metric or a workspace."""

    __tablename__ = "budget"
    __table_args__ = (
        UniqueConstraint("account_id", "scope", "subject"),
        CheckConstraint("limit_minor > 0", "positive"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    scope: Mapped[BudgetScope] = mapped_column(default=BudgetScope.ACCOUNT)
    subject: Mapped[str] = mapped_column(default="")
    """The metric's key or the workspace; empty for the account's own."""
    limit_minor: Mapped[int]
    thresholds: Mapped[list[Any]]
    """Whole percents, ascending."""
    action: Mapped[BudgetAction]
