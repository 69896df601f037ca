"""Which thresholds are reached, asked of the database in its own arithmetic: to check what was raised against."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, and_, literal, null, or_, select, union_all

from ..models import AlertKind, AlertThreshold, EffectiveLimit
from .rules.thresholds import BUILT_IN


def has_reached(used: Any, percent: Any, limit: Any) -> ColumnElement[bool]:
    """That a figure stands at a share of a limit or above: any use of a limit of 0 does, none of an unlimited one."""
    return or_(and_(limit == 0, used > 0), and_(limit > 0, used * 100 >= percent * limit))


def select_limits() -> Select[*tuple[Any, ...]]:
    """The limits in force, and since when."""
    return select(
        EffectiveLimit.account_id, EffectiveLimit.metric_key, EffectiveLimit.quantity, EffectiveLimit.changed_at
    )


def watch_limits(limits: Select[*tuple[Any, ...]]) -> Subquery:
    """Each limit with each threshold that it is watched at.

    Takes and gives `account_id`, `metric_key`, `quantity` and `changed_at`; beside these `percent`, and `set_at` of an
    account's own thresholds.
    """
    of = limits.subquery()
    built_in = union_all(*(select(literal(percent).label("percent")) for percent in BUILT_IN)).subquery()
    return union_all(
        select(AlertThreshold.percent, AlertThreshold.set_at, *of.c).join(
            of,
            and_(
                AlertThreshold.account_id == of.c.account_id,
                AlertThreshold.subject == of.c.metric_key,
                AlertThreshold.kind == AlertKind.USAGE,
            ),
        ),
        select(built_in.c.percent, null(), *of.c).join(of, literal(True)),
    ).subquery()
