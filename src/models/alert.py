"""That a threshold was reached, and what else an account is told."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity


class AlertKind(StrEnum):
    """What an alert is about."""

    USAGE = "USAGE"
    BUDGET = "BUDGET"
    SPIKE = "SPIKE"


class SpikeCauseKind(StrEnum):
    """What of a day's usage is compared with usual days."""

    WORKSPACE = "WORKSPACE"
    API_KEY = "API_KEY"
    PROPERTY = "PROPERTY"


class AlertLevel(StrEnum):
    """How near the ceiling, from the highest threshold reached."""

    OK = "OK"
    NOTICE = "NOTICE"
    WARNING = "WARNING"
    UPGRADE_SUGGESTION = "UPGRADE_SUGGESTION"
    URGENT = "URGENT"
    LIMIT_REACHED = "LIMIT_REACHED"


class Alert(Entity, kw_only=True, eq=False):
    """One threshold reached, once per episode, with the figures of that moment; or one unusual day, once."""

    __tablename__ = "alert"
    __table_args__ = (
        UniqueConstraint("account_id", "kind", "subject", "threshold", "period_start", "episode"),
        Index(None, "account_id", "sequence"),
        Index(
            "ix_alert_open",
            "account_id",
            sqlite_where=text("resolved_at IS NULL"),
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index(None, "resolved_at", "period_end"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    kind: Mapped[AlertKind]
    subject: Mapped[str]
    """The metric's key, or the budget's id."""
    threshold: Mapped[int]
    """In percent of the ceiling; of a spike 0, which has none."""
    level: Mapped[AlertLevel]
    period_start: Mapped[datetime]
    """Of a gauge `GAUGE_PERIOD`, of a spike where its day begins."""
    period_end: Mapped[datetime | None]
    episode: Mapped[int]
    used: Mapped[int]
    """The figure at that moment; of a budget the spend in minor units."""
    ceiling: Mapped[int]
    """The limit at that moment; of a budget its amount in minor units, of a spike what such a day usually has."""
    sequence: Mapped[int]
    raised_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None] = mapped_column(default=None)
    acknowledged_at: Mapped[datetime | None] = mapped_column(default=None)
    acknowledged_by: Mapped[str | None] = mapped_column(default=None)
    spike: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """Of a spike: `day`, its date in the account's zone then, and `causes`, each with `kind name quantity usual`."""


class AlertThreshold(Base, kw_only=True, eq=False):
    """A threshold that an account set for itself, beside the built-in ones."""

    __tablename__ = "alert_threshold"
    __table_args__ = (CheckConstraint("percent BETWEEN 1 AND 1000", "in_reach"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    kind: Mapped[AlertKind] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    """The metric's key, or the budget's id."""
    percent: Mapped[int] = mapped_column(primary_key=True)
    set_at: Mapped[datetime]


class NoticeSeverity(StrEnum):
    """How loud a banner is."""

    BLOCKING = "BLOCKING"
    CRITICAL = "CRITICAL"
    WARNING = "WARNING"
    INFO = "INFO"


class Notice(Entity, kw_only=True, eq=False):
    """A banner: one per account, code and subject; its row goes when its cause is gone."""

    __tablename__ = "notice"
    __table_args__ = (UniqueConstraint("account_id", "code", "subject"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    code: Mapped[str]
    subject: Mapped[str] = mapped_column(default="")
    severity: Mapped[NoticeSeverity]
    params: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    for_operators: Mapped[bool] = mapped_column(default=False)
    """Whether only operators are told."""
    dismissible: Mapped[bool] = mapped_column(default=False)
    dismissed_at: Mapped[datetime | None] = mapped_column(default=None)


class RecommendationDismissal(Base, kw_only=True, eq=False):
    """That a recommendation was put away, and on which grounds it stood then: on others it comes back."""

    __tablename__ = "recommendation_dismissal"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)
    recommendation: Mapped[str] = mapped_column(primary_key=True)
    """Its kind and subject, such as `SMALLER_PLAN:starter`."""
    grounds: Mapped[str]
    """A hash of what was suggested, and of the terms that it was weighed against."""
    monthly_minor: Mapped[int]
    """What it would have saved per month: when it is twice as much, it comes back."""
    dismissed_by: Mapped[str]
    dismissed_at: Mapped[datetime]
