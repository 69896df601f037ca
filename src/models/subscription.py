"""What an account has bought and runs on."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Entity
from .catalogue import Interval


class SubscriptionStatus(StrEnum):
    """Where a subscription stands. A new account has none."""

    TRIALING = "TRIALING"
    ACTIVE = "ACTIVE"
    PAST_DUE = "PAST_DUE"
    SUSPENDED = "SUSPENDED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


class Subscription(Entity, kw_only=True, eq=False):
    """An account's running agreement: at most one per account."""

    __tablename__ = "subscription"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), unique=True)
    plan_version_id: Mapped[UUID] = mapped_column(ForeignKey("plan_version.id"), index=True)
    status: Mapped[SubscriptionStatus]
    interval: Mapped[Interval]
    price_minor: Mapped[int]
    """The price that was sold, in the account's currency, net, per interval."""
    anchor_wall: Mapped[datetime] = mapped_column(DateTime(timezone=False))
    """The start as wall time of the account's zone: period ends are counted from here, never chained."""
    zone: Mapped[str]
    """The zone of the running billing period: a new one of the account counts from the next."""
    current_period_start: Mapped[datetime]
    current_period_end: Mapped[datetime]
    usage_period_start: Mapped[datetime]
    usage_period_end: Mapped[datetime]
    usage_period_number: Mapped[int] = mapped_column(default=0)
    """Which usage period from the anchor runs; 0 is the first."""
    version: Mapped[int] = mapped_column(default=1)
    """Rises with each change and each period's end: a quote of an earlier one is stale."""
    started_at: Mapped[datetime]
    trial_end: Mapped[datetime | None] = mapped_column(default=None)
    cancel_at_period_end: Mapped[bool] = mapped_column(default=False)
    suspended_at: Mapped[datetime | None] = mapped_column(default=None)
    canceled_at: Mapped[datetime | None] = mapped_column(default=None)


class SubscriptionAddOn(Entity, kw_only=True, eq=False):
    """How many units of an add-on an account holds, at the price that was sold."""

    __tablename__ = "subscription_add_on"
    __table_args__ = (UniqueConstraint("account_id", "add_on_id"), CheckConstraint("quantity > 0", "positive"))

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    add_on_id: Mapped[UUID] = mapped_column(ForeignKey("add_on.id"), index=True)
    quantity: Mapped[int]
    price_minor: Mapped[int]
    """Per unit and usage period, net."""
    paid_quantity: Mapped[int] = mapped_column(default=0)
    """How many units were charged for the running usage period."""
    next_quantity: Mapped[int | None] = mapped_column(default=None)
    """What a waiting lowering leaves from the next usage period on."""


class ScheduledChange(Entity, kw_only=True, eq=False):
    """A plan change that waits for the end of the billing period, at the price that was agreed."""

    __tablename__ = "scheduled_change"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), unique=True)
    plan_version_id: Mapped[UUID] = mapped_column(ForeignKey("plan_version.id"))
    interval: Mapped[Interval]
    price_minor: Mapped[int]
    effective_at: Mapped[datetime]


class ChangeAct(StrEnum):
    """What a quote prices and a payment makes true."""

    START = "START"
    CHANGE_PLAN = "CHANGE_PLAN"
    SET_ADD_ON = "SET_ADD_ON"
    REACTIVATE = "REACTIVATE"


class PendingStatus(StrEnum):
    """What became of a change that waited for its payment."""

    PENDING = "PENDING"
    APPLIED = "APPLIED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


class PendingChange(Entity, kw_only=True, eq=False):
    """A change that takes effect when it is paid: pinned to an instant, with the documents it will make."""

    __tablename__ = "pending_change"
    __table_args__ = (
        Index(
            "uq_pending_change_plan",
            "account_id",
            unique=True,
            sqlite_where=text("status = 'PENDING' AND act != 'SET_ADD_ON'"),
            postgresql_where=text("status = 'PENDING' AND act != 'SET_ADD_ON'"),
        ),
        Index(None, "account_id", "status"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    act: Mapped[ChangeAct]
    target: Mapped[dict[str, Any]]
    """What it changes to: a plan version, interval and price, or an add-on and its quantity."""
    pinned_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    bill: Mapped[dict[str, Any]]
    """The lines as they were agreed."""
    grounds: Mapped[dict[str, Any]]
    """What they rest on: where that is gone when the money comes, nothing is made true and the money goes back."""
    balance_minor: Mapped[int] = mapped_column(default=0)
    """How much of the credit balance is kept for it."""
    carried_minor: Mapped[int] = mapped_column(default=0)
    """How much of what was carried forward is in what is due."""
    due_minor: Mapped[int]
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    status: Mapped[PendingStatus] = mapped_column(default=PendingStatus.PENDING)
    ended_at: Mapped[datetime | None] = mapped_column(default=None)


class Quote(Entity, kw_only=True, eq=False):
    """A binding price for a change: instant, lines, tax and total are pinned."""

    __tablename__ = "quote"
    __table_args__ = (Index(None, "account_id", "created_at"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    act: Mapped[ChangeAct]
    target: Mapped[dict[str, Any]]
    effective_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    subscription_version: Mapped[int]
    """The subscription's version that it was made for; 0 without one."""
    bill: Mapped[dict[str, Any]]


class SubscriptionEvent(Entity, kw_only=True, eq=False):
    """One transition of a subscription: who, when, why."""

    __tablename__ = "subscription_event"
    __table_args__ = (Index(None, "account_id", "created_at", "id"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    step: Mapped[str]
    from_status: Mapped[SubscriptionStatus | None] = mapped_column(default=None)
    to_status: Mapped[SubscriptionStatus]
    plan_version_id: Mapped[UUID] = mapped_column(ForeignKey("plan_version.id"))
    """The plan after it."""
    interval: Mapped[Interval]
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
