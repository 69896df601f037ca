"""Alerts: raised once per episode in the transaction that causes them, and resolved when their cause is gone."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select, tuple_

from ..database import Database, Work
from ..faults import reach
from ..models import GAUGE_PERIOD, Alert, AlertKind, AlertLevel, BillingAccount, Metric, MetricKind
from .rules.periods import Period
from .rules.thresholds import BUILT_IN, is_reached, level_of_threshold

RESOLVE_BATCH = 500


@dataclass(frozen=True)
class Reading:
    """Where a metric of an account stands now, right after a change. The account's row is locked."""

    account: BillingAccount
    metric: Metric
    period: Period | None
    used: int
    limit: int | None


async def evaluate_usage(work: Work, readings: Sequence[Reading], *, limit_changed: bool = False) -> None:
    """Raise what is newly reached, ascending, and resolve what a gauge fell below, or what a new limit undoes.

    Earlier periods never raise.
    """
    current = [
        reading
        for reading in readings
        if reading.period is None or work.clock.now_for(reading.account) < reading.period.end
    ]
    if not current:
        return
    keys = [(reading.account.id, reading.metric.key, _period_start(reading)) for reading in current]
    known: dict[tuple[UUID, str, datetime], dict[int, Alert]] = defaultdict(dict)
    for alert in await work.session.scalars(
        select(Alert)
        .where(
            Alert.kind == AlertKind.USAGE,
            tuple_(Alert.account_id, Alert.subject, Alert.period_start).in_(keys),
        )
        .order_by(Alert.episode)
    ):
        known[alert.account_id, alert.subject, alert.period_start][alert.threshold] = alert
    for reading, key in zip(current, keys, strict=True):
        for threshold in sorted(BUILT_IN):
            last = known[key].get(threshold)
            is_open = last is not None and last.resolved_at is None
            if is_reached(threshold, reading.used, reading.limit):
                if not is_open:
                    _raise(work, reading, threshold, episode=last.episode + 1 if last else 1)
            elif is_open and last is not None and (limit_changed or reading.metric.kind is MetricKind.GAUGE):
                _resolve(work, reading.account, last)


def _period_start(reading: Reading) -> datetime:
    return reading.period.start if reading.period else GAUGE_PERIOD


def _raise(work: Work, reading: Reading, threshold: int, *, episode: int) -> None:
    assert reading.limit is not None, "unlimited is never reached"
    now = work.clock.now_for(reading.account)
    alert = Alert(
        created_at=now,
        account_id=reading.account.id,
        kind=AlertKind.USAGE,
        subject=reading.metric.key,
        threshold=threshold,
        level=level_of_threshold(threshold),
        period_start=_period_start(reading),
        period_end=reading.period.end if reading.period else None,
        episode=episode,
        used=reading.used,
        ceiling=reading.limit,
        sequence=0,
        raised_at=now,
    )
    alert.sequence = work.emit(
        reading.account,
        "usage.alert_raised",
        {
            "alertId": str(alert.id),
            "metric": alert.subject,
            "threshold": threshold,
            "level": alert.level,
            "used": alert.used,
            "limit": alert.ceiling,
        },
    )
    work.session.add(alert)
    reach("alert.raised")


def _resolve(work: Work, account: BillingAccount, alert: Alert) -> None:
    alert.resolved_at = alert.updated_at = work.clock.now_for(account)
    work.emit(
        account,
        "usage.alert_resolved",
        {"alertId": str(alert.id), "metric": alert.subject, "threshold": alert.threshold},
    )


async def resolve_ended(work: Work, accounts: Collection[BillingAccount], at: datetime | None = None) -> None:
    """Resolve the open alerts of locked accounts whose period is over (now, or at an instant).

    So the new one starts from nothing.
    """
    by_id = {account.id: account for account in accounts}
    for alert in await work.session.scalars(
        select(Alert)
        .where(Alert.account_id.in_(by_id), Alert.resolved_at.is_(None), Alert.period_end.is_not(None))
        .order_by(Alert.sequence)
    ):
        account = by_id[alert.account_id]
        assert alert.period_end is not None, "asked for"
        if alert.period_end <= (at or work.clock.now_for(account)):
            _resolve(work, account, alert)


async def find_ended(database: Database) -> Sequence[UUID]:
    """Accounts on the wall clock with open alerts of a period that is over: due work."""
    async with database.read() as session:
        return (
            await session.scalars(
                select(Alert.account_id)
                .join(BillingAccount, BillingAccount.id == Alert.account_id)
                .where(
                    Alert.resolved_at.is_(None),
                    Alert.period_end <= database.clock.now(),
                    BillingAccount.test_clock_id.is_(None),
                )
                .distinct()
                .limit(RESOLVE_BATCH)
            )
        ).all()


class RecommendedActionKind(StrEnum):
    """What to do about an alert."""

    UPGRADE_PLAN = "UPGRADE_PLAN"
    REDUCE_USAGE = "REDUCE_USAGE"


ACTIONS_BY_LEVEL: dict[AlertLevel, tuple[RecommendedActionKind, ...]] = {
    AlertLevel.UPGRADE_SUGGESTION: (RecommendedActionKind.UPGRADE_PLAN,),
    AlertLevel.URGENT: (RecommendedActionKind.UPGRADE_PLAN, RecommendedActionKind.REDUCE_USAGE),
    AlertLevel.LIMIT_REACHED: (RecommendedActionKind.UPGRADE_PLAN, RecommendedActionKind.REDUCE_USAGE),
}
