"""What an account has bought and runs on."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, UniqueConstraint
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
    current_period_start: Mapped[datetime]
    current_period_end: Mapped[datetime]
    started_at: Mapped[datetime]
    trial_end: Mapped[datetime | None] = mapped_column(default=None)
    cancel_at_period_end: Mapped[bool] = mapped_column(default=False)
    past_due_at: Mapped[datetime | None] = mapped_column(default=None)
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
