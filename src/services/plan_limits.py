"""What plans include, by metric."""

from uuid import UUID

from sqlalchemy import select

from ..database import ReadSession
from ..models import Plan, PlanLimit, PlanVersion
from .rules.overage import FREE_TIER

Limits = dict[str, int | None]
"""By metric; None is unlimited."""


async def load_plan_limits(session: ReadSession, plan_version_id: UUID) -> Limits:
    """What a plan version includes."""
    rows = await session.scalars(select(PlanLimit).where(PlanLimit.plan_version_id == plan_version_id))
    return {row.metric_key: row.quantity for row in rows}


async def load_free_limits(session: ReadSession) -> Limits:
    """What an account without a running subscription has: what the free plan includes; nothing without such a plan."""
    version_id = await session.scalar(
        select(PlanVersion.id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(Plan.tier == FREE_TIER, Plan.private_account_id.is_(None))
        .order_by(PlanVersion.number.desc())
        .limit(1)
    )
    return {} if version_id is None else await load_plan_limits(session, version_id)
