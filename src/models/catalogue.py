"""What can be bought: metrics, plans with their versions and limits, add-ons, prices."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .base import Entity


class MetricKind(StrEnum):
    """How a metric's figure moves."""

    COUNTER = "COUNTER"
    GAUGE = "GAUGE"


class Interval(StrEnum):
    """How often a price is due."""

    MONTH = "MONTH"
    YEAR = "YEAR"


class PriceKind(StrEnum):
    """What a price is for."""

    PLAN = "PLAN"
    ADD_ON = "ADD_ON"
    OVERAGE = "OVERAGE"


class Metric(Entity, kw_only=True, eq=False):
    """Something that is counted or measured. Metrics are data: an operator adds one without a release."""

    __tablename__ = "metric"

    key: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[MetricKind]
    unit: Mapped[str]
    position: Mapped[int] = mapped_column(default=0)
    overage_block: Mapped[int | None] = mapped_column(default=None)
    """How many units one price of overage covers; none where overage is never sold."""


class Plan(Entity, kw_only=True, eq=False):
    """A named offer. What it gives and costs stands in its versions."""

    __tablename__ = "plan"

    key: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    tier: Mapped[int]
    private_account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"), index=True, default=None)
    """The one account it was negotiated with; none for a public plan."""
    archived_at: Mapped[datetime | None] = mapped_column(default=None)


class PlanVersion(Entity, kw_only=True, eq=False):
    """An immutable state of a plan. A running subscription keeps the version it was sold."""

    __tablename__ = "plan_version"
    __table_args__ = (UniqueConstraint("plan_id", "number"),)

    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plan.id"))
    number: Mapped[int]
    features: Mapped[list[Any]]
    published_at: Mapped[datetime]
    dunning: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """What follows an unpaid invoice: `retryDays`, `suspendDay`, `cancelDay`; the default where it says nothing."""


class PlanLimit(Entity, kw_only=True, eq=False):
    """How much of a metric a plan version includes; none is unlimited."""

    __tablename__ = "plan_limit"
    __table_args__ = (
        UniqueConstraint("plan_version_id", "metric_key"),
        CheckConstraint("quantity >= 0", "not_negative"),
    )

    plan_version_id: Mapped[UUID] = mapped_column(ForeignKey("plan_version.id"))
    metric_key: Mapped[str] = mapped_column(ForeignKey("metric.key"))
    quantity: Mapped[int | None]


class AddOn(Entity, kw_only=True, eq=False):
    """What can be bought beside a plan, by units per month."""

    __tablename__ = "add_on"

    key: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    metric_key: Mapped[str | None] = mapped_column(ForeignKey("metric.key"), default=None)
    gives: Mapped[int] = mapped_column(default=0)
    """How much one unit adds to the metric's limit."""
    plan_keys: Mapped[list[Any]] = mapped_column(default_factory=list)
    """The plans it is offered with."""
    position: Mapped[int] = mapped_column(default=0)


class TaxTableRow(Entity, kw_only=True, eq=False):
    """Who levies what on which lines of customers of a country or region, from when until when."""

    __tablename__ = "tax_table_row"
    __table_args__ = (CheckConstraint("rate_ppm >= 0 AND rate_ppm <= 1000000", "rate_is_a_share"),)

    country: Mapped[str]
    region: Mapped[str] = mapped_column(default="")
    """Empty for the whole country."""
    jurisdiction: Mapped[str]
    line_kind: Mapped[str | None] = mapped_column(default=None)
    category: Mapped[str] = mapped_column(default="S")
    rate_ppm: Mapped[int]
    valid_from: Mapped[date]
    valid_to: Mapped[date | None] = mapped_column(default=None)
    """Exclusive."""


class Price(Entity, kw_only=True, eq=False):
    """An amount, net of tax, for a plan version, an add-on or a block of overage; per interval and currency."""

    __tablename__ = "price"
    __table_args__ = (
        UniqueConstraint("kind", "subject", "interval", "currency"),
        CheckConstraint("amount_minor >= 0", "not_negative"),
    )

    kind: Mapped[PriceKind]
    subject: Mapped[str]
    """`plan_version.id` of a plan's price, `add_on.key` of an add-on's, `metric.key` of overage."""
    interval: Mapped[Interval]
    currency: Mapped[str]
    amount_minor: Mapped[int]
