"""What was used: events, their ids, counters, effective limits and roll-ups."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity
from .types import new_id

GAUGE_PERIOD = datetime(1970, 1, 1, tzinfo=UTC)
"""A gauge carries over and has no period: its rows stand at the epoch, so that they can be part of a key."""


class Granularity(StrEnum):
    """The width of a bucket of history."""

    HOUR = "HOUR"
    DAY = "DAY"
    MONTH = "MONTH"


class OveragePolicy(StrEnum):
    """What happens with usage above the limit."""

    BLOCK = "BLOCK"
    CHARGE = "CHARGE"
    ASK = "ASK"
    ALLOW = "ALLOW"


class UsagePeriod(Base, kw_only=True, eq=False):
    """A usage period of a subscription, from when it began. It is closed once, by whoever closes it first."""

    __tablename__ = "usage_period"
    __table_args__ = (CheckConstraint("start_at <= end_at", "not_backwards"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    start_at: Mapped[datetime] = mapped_column(primary_key=True)
    end_at: Mapped[datetime]
    closed_at: Mapped[datetime | None] = mapped_column(default=None)


class UsageRating(Base, kw_only=True, eq=False):
    """What a closed usage period's overage of a metric is priced by, and how much of it was invoiced."""

    __tablename__ = "usage_rating"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    period_end: Mapped[datetime]
    limit_quantity: Mapped[int | None]
    """The limit in force just before the close."""
    may_pass: Mapped[bool]
    """Whether anything might pass the limit then: on a running paid plan."""
    block: Mapped[int | None]
    """How many units the price covers; none where overage was not sold, and only `ALLOW` lets anything pass."""
    price_minor: Mapped[int]
    invoiced_minor: Mapped[int] = mapped_column(default=0)
    """What finalised lines charge for it, corrections included."""
    rated_at: Mapped[datetime | None] = mapped_column(default=None)
    """When its overage was invoiced, even where that was nothing: what comes later is a correction."""
    settled_at: Mapped[datetime | None] = mapped_column(default=None)
    """When nothing could change it any more."""


class UsageEventId(Base, kw_only=True, eq=False):
    """That an event was accepted. Apart from the event, so that events can be partitioned by time."""

    __tablename__ = "usage_event_id"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    content_hash: Mapped[str]
    accepted_at: Mapped[datetime]


class UsageEvent(Base, kw_only=True, eq=False):
    """One accepted usage event.

    No foreign keys: it is written with its `UsageEventId`, which has one, by the thousand, and let go by the month.
    """

    __tablename__ = "usage_event"
    __table_args__ = (
        Index(None, "account_id", "metric_key", "occurred_at"),
        # Ids rise with the time of storing, so on PostgreSQL each month of them is a table that can be let go.
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    account_id: Mapped[UUID]
    event_id: Mapped[str]
    metric_key: Mapped[str]
    quantity: Mapped[int | None]
    level: Mapped[int | None]
    change: Mapped[int]
    """What the event moves the metric's figure by, given all events known: of a level, the step that it was."""
    occurred_at: Mapped[datetime]
    accepted_at: Mapped[datetime]
    period_start: Mapped[datetime]
    workspace: Mapped[str] = mapped_column(default="")
    properties: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    sent_by: Mapped[str] = mapped_column(default="")
    """Who sent it, by the name that the audit log knows them by."""


class Counter(Base, kw_only=True, eq=False):
    """The figure of a metric: of a counter per usage period, of a gauge the one running level."""

    __tablename__ = "counter"
    __table_args__ = (
        CheckConstraint("used >= 0", "not_negative"),
        Index("ix_counter_moved", "account_id", sqlite_where=text("has_moved"), postgresql_where=text("has_moved")),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    period_end: Mapped[datetime | None]
    used: Mapped[int]
    allowed: Mapped[int] = mapped_column(default=0)
    """What of it was accepted above the limit under `ALLOW`: it is never charged."""
    changed_at: Mapped[datetime]
    sequence: Mapped[int]
    """The account's sequence at the last change: streams of usage resume by it."""
    has_moved: Mapped[bool] = mapped_column(default=False)
    """Whether events came since unusual days were last looked for; of gauges never."""


class EffectiveLimit(Base, kw_only=True, eq=False):
    """The limit in force for an account and metric: the plan's plus what add-ons give. None is unlimited."""

    __tablename__ = "effective_limit"
    __table_args__ = (CheckConstraint("quantity >= 0", "not_negative"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    quantity: Mapped[int | None]
    version: Mapped[int] = mapped_column(default=1)
    """Rises by one with each change."""
    cause: Mapped[str]
    """What changed it, such as `subscription.started` or `add_on.set`."""
    changed_at: Mapped[datetime]


class OverageSetting(Base, kw_only=True, eq=False):
    """What an account chose for usage above a metric's limit, where that is not the default."""

    __tablename__ = "overage_setting"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    policy: Mapped[OveragePolicy]
    changed_at: Mapped[datetime]


class OverageApproval(Base, kw_only=True, eq=False):
    """That overage was let through in one usage period, where it is asked about."""

    __tablename__ = "overage_approval"
    __table_args__ = (CheckConstraint("blocks > 0", "some"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    blocks: Mapped[int | None]
    """How many blocks in all; none for the rest of the period."""
    approved_by: Mapped[str]
    approved_at: Mapped[datetime]


class ReservationStatus(StrEnum):
    """What became of a reservation."""

    HELD = "HELD"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


class Reservation(Entity, kw_only=True, eq=False):
    """Usage that is held for a while, so that it can be had for certain. It holds while `HELD` and not past its end."""

    __tablename__ = "reservation"
    __table_args__ = (
        CheckConstraint("quantity > 0", "some"),
        CheckConstraint("committed >= 0 AND committed <= quantity", "no_more_than_held"),
        Index(
            "ix_reservation_held",
            "account_id",
            "expires_at",
            sqlite_where=text("status = 'HELD'"),
            postgresql_where=text("status = 'HELD'"),
        ),
        Index(None, "account_id", "reserved_at"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"))
    period_start: Mapped[datetime]
    """The usage period that it counts in; of a gauge `GAUGE_PERIOD`."""
    quantity: Mapped[int]
    workspace: Mapped[str] = mapped_column(default="")
    """Whose it is held for; empty where its properties name none."""
    committed: Mapped[int] = mapped_column(default=0)
    """What of it became usage."""
    status: Mapped[ReservationStatus] = mapped_column(default=ReservationStatus.HELD)
    properties: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    reserved_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None] = mapped_column(default=None)


class UsageRollup(Base, kw_only=True, eq=False):
    """The sum of changes in one hour or day of the account's zone; `workspace` is empty where events name none."""

    __tablename__ = "usage_rollup"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    granularity: Mapped[Granularity] = mapped_column(primary_key=True)
    start_at: Mapped[datetime] = mapped_column(primary_key=True)
    workspace: Mapped[str] = mapped_column(primary_key=True)
    month: Mapped[date]
    """The first day of the local month, so that months are sums of days in any SQL."""
    quantity: Mapped[int]


class UsageCost(Base, kw_only=True, eq=False):
    """What usage of a day and workspace cost: the price of the blocks of overage that its events began.

    The sums over a metric and usage period are its overage so far, to the minor unit.
    """

    __tablename__ = "usage_cost"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    """The day in the account's zone on which it was used."""
    workspace: Mapped[str] = mapped_column(primary_key=True)
    """Empty where events name none."""
    cost_minor: Mapped[int]
    """Net; corrections may take it below 0 on a day."""
