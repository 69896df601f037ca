"""What watches each metric of an account: its own thresholds, and which thresholds stand as reached."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import literal, null, select, union_all

from ..database import ReadSession
from ..models import Alert, AlertKind, AlertThreshold
from .rules.thresholds import list_thresholds


@dataclass
class Watch:
    """What watches one metric."""

    own: list[int] = field(default_factory=list[int])
    """The account's own thresholds, ascending."""
    reached_at: dict[int, datetime] = field(default_factory=dict[int, datetime])
    """Since when a threshold's alert is open."""

    @property
    def thresholds(self) -> list[int]:
        """All thresholds, ascending."""
        return list_thresholds(self.own)


Watches = Mapping[str, Watch]
"""By metric."""


async def load_watches(session: ReadSession, account_ids: Sequence[UUID]) -> list[Watches]:
    """The watches of each account's metrics, in the accounts' order: one statement for all."""
    own = select(
        AlertThreshold.account_id,
        AlertThreshold.subject,
        AlertThreshold.percent,
        literal(True).label("is_own"),
        null().label("raised_at"),
        literal(0).label("sequence"),
    ).where(AlertThreshold.account_id.in_(account_ids), AlertThreshold.kind == AlertKind.USAGE)
    raised = select(
        Alert.account_id, Alert.subject, Alert.threshold, literal(False), Alert.raised_at, Alert.sequence
    ).where(Alert.account_id.in_(account_ids), Alert.kind == AlertKind.USAGE, Alert.resolved_at.is_(None))
    both = union_all(raised, own).subquery()
    found: dict[UUID, dict[str, Watch]] = {account_id: defaultdict(Watch) for account_id in account_ids}
    columns = list(both.c)
    # A period that begins in a moment may have an alert beside that of the running one, which is the one to show.
    for account_id, subject, percent, is_own, raised_at in await session.execute(
        select(*columns[:-1]).order_by(columns[-1].desc(), columns[2])
    ):
        watch = found[account_id][subject]
        if is_own:
            watch.own.append(percent)
        else:
            watch.reached_at[percent] = raised_at
    return [found[account_id] for account_id in account_ids]
