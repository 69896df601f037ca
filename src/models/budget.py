"""Budgets: ceilings on spend, and what was spent under them in each usage period."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity


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


class Budget(Entity, kw_only=True, eq=False):
    """A ceiling on net spend per usage period: of the account, a metric or a workspace."""

    __tablename__ = "budget"
    __table_args__ = (
        UniqueConstraint("account_id", "scope", "subject"),
        CheckConstraint("limit_minor > 0", "positive"),
        CheckConstraint("(action = 'UPGRADE') = (upgrade_ceiling_minor IS NOT NULL)", "ceiling_of_upgrades"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    scope: Mapped[BudgetScope] = mapped_column(default=BudgetScope.ACCOUNT)
    subject: Mapped[str] = mapped_column(default="")
    """The metric's key or the workspace; empty for the account's own."""
    limit_minor: Mapped[int]
    thresholds: Mapped[list[Any]]
    """Whole percents, ascending."""
    action: Mapped[BudgetAction]
    upgrade_ceiling_minor: Mapped[int | None] = mapped_column(default=None)
    """Of `UPGRADE`: what a plan may cost per month at most, net."""


class BudgetPeriod(Base, kw_only=True, eq=False):
    """What was spent under a budget in one usage period: moved with what moves the spend, kept as history."""

    __tablename__ = "budget_period"
    __table_args__ = (Index(None, "account_id", "sequence"),)

    budget_id: Mapped[UUID] = mapped_column(ForeignKey("budget.id"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    period_end: Mapped[datetime]
    limit_minor: Mapped[int]
    """The limit, as long as the period ran the budget's own."""
    spent_minor: Mapped[int]
    blocked_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it first stopped something under this limit."""
    changed_at: Mapped[datetime]
    sequence: Mapped[int]
    """The account's sequence at the last change: streams of budgets resume by it."""
