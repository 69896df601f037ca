"""Alerts: raised once per episode in the transaction that causes them, and resolved when their cause is gone."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import Database, Work
from ..faults import reach
from ..models import (
    GAUGE_PERIOD,
    Alert,
    AlertKind,
    AlertLevel,
    AlertThreshold,
    BillingAccount,
    Metric,
    MetricKind,
)
from .banners import Subject, put_banners
from .rules.periods import Period
from .rules.thresholds import is_reached, level_of_threshold, list_reached, list_thresholds

RESOLVE_BATCH = 500
OF_PERIODS = tuple(kind for kind in AlertKind if kind is not AlertKind.SPIKE)
"""The kinds that tell of a usage period, and not of a day."""


@dataclass(frozen=True)
class Reading:
    """Where a metric or budget of an account stands now, right after a change. The account's row is locked."""

    account: BillingAccount
    kind: AlertKind
    subject: str
    """The metric's key, or the budget's id."""
    period: Period | None
    used: int
    limit: int | None
    may_resolve: bool
    """Whether it can undo what was reached: a counter that is corrected, and what that costs, do not."""
    thresholds: Sequence[int] | None = None
    """Of a budget its own; a metric has the built-in ones, and those of the account."""

    @property
    def key(self) -> "_Key":
        """What its alerts are kept under."""
        return _Key(self.account.id, self.kind, self.subject, self.period.start if self.period else GAUGE_PERIOD)


def read_usage(
    account: BillingAccount,
    metric: Metric,
    period: Period | None,
    used: int,
    limit: int | None,
    *,
    limit_changed: bool = False,
) -> Reading:
    """Where a metric stands. Where what changed is (also) the limit, what does not hold under it is resolved."""
    may_resolve = limit_changed or metric.kind is MetricKind.GAUGE
    return Reading(account, AlertKind.USAGE, metric.key, period, used, limit, may_resolve)


class _Key(NamedTuple):
    account_id: UUID
    kind: AlertKind
    subject: str
    period_start: datetime


class _Known(NamedTuple):
    """The last alert of a threshold, as far as it matters for the next."""

    id: UUID
    account_id: UUID
    kind: AlertKind
    subject: str
    threshold: int
    period_start: datetime
    period_end: datetime | None
    episode: int
    resolved_at: datetime | None


_COLUMNS = (
    Alert.id,
    Alert.account_id,
    Alert.kind,
    Alert.subject,
    Alert.threshold,
    Alert.period_start,
    Alert.period_end,
    Alert.episode,
    Alert.resolved_at,
)


async def evaluate(work: Work, readings: Sequence[Reading]) -> None:
    """Raise what is newly reached, ascending, and resolve what a gauge fell below, or what a new limit undoes.

    Earlier periods never raise. The same few statements for one reading and for a thousand; where nothing is reached
    and nothing can be undone, one.
    """
    current = [
        reading
        for reading in readings
        if reading.period is None or work.clock.now_for(reading.account) < reading.period.end
    ]
    if not current:
        return
    thresholds = await _list_thresholds(work.session, current)
    telling = [
        reading
        for reading in current
        if reading.may_resolve or list_reached(thresholds[reading.key], reading.used, reading.limit)
    ]
    if not telling:
        return
    known = await _read_last(work.session, [reading.key for reading in telling])
    moved: set[Subject] = set()
    resolved: list[_Known] = []
    for reading in telling:
        raised: dict[int, int] = {}
        for threshold in thresholds[reading.key]:
            last = known.get((reading.key, threshold))
            is_open = last is not None and last.resolved_at is None
            if is_reached(threshold, reading.used, reading.limit):
                if not is_open:
                    raised[threshold] = last.episode + 1 if last else 1
            elif is_open and last is not None and reading.may_resolve:
                resolved.append(last)
        for threshold, episode in raised.items():
            # Of several at once each is told, and only the highest sends an email.
            _raise(work, reading, threshold, episode=episode, is_highest=threshold == max(raised))
            moved.add(Subject(reading.account.id, reading.kind, reading.subject))
    accounts = {reading.account.id: reading.account for reading in telling}
    await _resolve(work, accounts, resolved, moved)


async def _list_thresholds(session: AsyncSession, readings: Sequence[Reading]) -> dict["_Key", Sequence[int]]:
    watched = {reading.account.id for reading in readings if reading.thresholds is None}
    own = await read_own_thresholds(session, watched) if watched else {}
    return {
        reading.key: list_thresholds(own.get((reading.account.id, reading.subject), ()))
        if reading.thresholds is None
        else reading.thresholds
        for reading in readings
    }


async def read_own_thresholds(
    session: AsyncSession, account_ids: Collection[UUID]
) -> Mapping[tuple[UUID, str], Sequence[int]]:
    """What accounts set for themselves, by account and metric, ascending."""
    found: dict[tuple[UUID, str], list[int]] = defaultdict(list)
    rows = await session.execute(
        select(AlertThreshold.account_id, AlertThreshold.subject, AlertThreshold.percent)
        .where(AlertThreshold.account_id.in_(account_ids), AlertThreshold.kind == AlertKind.USAGE)
        .order_by(AlertThreshold.percent)
    )
    for account_id, subject, percent in rows:
        found[account_id, subject].append(percent)
    return found


async def _read_last(session: AsyncSession, keys: Sequence[_Key]) -> dict[tuple[_Key, int], _Known]:
    """The last episode of each threshold. A gauge that comes and goes has many before it; they stay there."""
    place = func.row_number().over(
        partition_by=(Alert.account_id, Alert.kind, Alert.subject, Alert.period_start, Alert.threshold),
        order_by=Alert.episode.desc(),
    )
    ranked = (
        select(*_COLUMNS, place.label("place"))
        .where(tuple_(Alert.account_id, Alert.kind, Alert.subject, Alert.period_start).in_(keys))
        .subquery()
    )
    rows = await session.execute(select(*list(ranked.c)[:-1]).where(ranked.c.place == 1))
    found = (_Known(*row) for row in rows)
    return {(_Key(row.account_id, row.kind, row.subject, row.period_start), row.threshold): row for row in found}


def _raise(work: Work, reading: Reading, threshold: int, *, episode: int, is_highest: bool) -> None:
    assert reading.limit is not None, "unlimited is never reached"
    now = work.clock.now_for(reading.account)
    alert = Alert(
        created_at=now,
        account_id=reading.account.id,
        kind=reading.kind,
        subject=reading.subject,
        threshold=threshold,
        level=level_of_threshold(threshold),
        period_start=reading.key.period_start,
        period_end=reading.period.end if reading.period else None,
        episode=episode,
        used=reading.used,
        ceiling=reading.limit,
        sequence=0,
        raised_at=now,
    )
    figures = (
        {"used": alert.used, "limit": alert.ceiling}
        if reading.kind is AlertKind.USAGE
        else {"spentMinor": alert.used, "limitMinor": alert.ceiling, "currency": reading.account.currency}
    )
    alert.sequence = work.emit(
        reading.account,
        event_of(reading.kind, Step.RAISED),
        {**describe_alert(alert), "level": alert.level, "isHighest": is_highest, **figures},
    )
    work.session.add(alert)
    reach("alert.raised")


class Step(StrEnum):
    """What becomes of an alert."""

    RAISED = "RAISED"
    RESOLVED = "RESOLVED"
    ACKNOWLEDGED = "ACKNOWLEDGED"


OF_USAGE = {
    Step.RAISED: "usage.alert_raised",
    Step.RESOLVED: "usage.alert_resolved",
    Step.ACKNOWLEDGED: "usage.alert_acknowledged",
}
OF_BUDGETS = {
    Step.RAISED: "budget.alert_raised",
    Step.RESOLVED: "budget.alert_resolved",
    Step.ACKNOWLEDGED: "budget.alert_acknowledged",
}


def event_of(kind: AlertKind, step: Step) -> str:
    """What the outbox calls it."""
    return OF_BUDGETS[step] if kind is AlertKind.BUDGET else OF_USAGE[step]


def describe_alert(alert: "Alert | _Known") -> dict[str, Any]:
    """How events name an alert, and what it is about."""
    subject = "budgetId" if alert.kind is AlertKind.BUDGET else "metric"
    return {"alertId": str(alert.id), subject: alert.subject, "threshold": alert.threshold}


async def _resolve(
    work: Work, accounts: Mapping[UUID, BillingAccount], resolved: Sequence[_Known], moved: Collection[Subject] = ()
) -> None:
    """Close open alerts of locked accounts, and put the banners right of these and of what `moved` besides."""
    changes: list[dict[str, Any]] = []
    for alert in resolved:
        account = accounts[alert.account_id]
        now = work.clock.now_for(account)
        changes.append({"id": alert.id, "resolved_at": now, "updated_at": now})
        work.emit(account, event_of(alert.kind, Step.RESOLVED), describe_alert(alert))
    if changes:
        await work.session.execute(update(Alert), changes)
    about = {Subject(alert.account_id, alert.kind, alert.subject) for alert in resolved}
    await put_banners(work, accounts, {*moved, *about})


def _select_open(account_ids: Collection[UUID]) -> Select[*tuple[Any, ...]]:
    # Unusual days have an end of their own, see `spikes`.
    return (
        select(*_COLUMNS)
        .where(Alert.account_id.in_(account_ids), Alert.kind != AlertKind.SPIKE, Alert.resolved_at.is_(None))
        .order_by(Alert.sequence)
    )


async def resolve_ended(work: Work, accounts: Collection[BillingAccount], at: datetime | None = None) -> None:
    """Resolve the open alerts of locked accounts whose period is over (now, or at an instant).

    So the new one starts from nothing.
    """
    by_id = {account.id: account for account in accounts}
    rows = await work.session.execute(_select_open(by_id).where(Alert.period_end.is_not(None)))
    ended = [
        alert
        for alert in map(_Known._make, rows)
        if alert.period_end is not None and alert.period_end <= (at or work.clock.now_for(by_id[alert.account_id]))
    ]
    if ended:
        await _resolve(work, by_id, ended)


async def cut_periods(work: Work, account: BillingAccount, at: datetime) -> None:
    """Let the running period of a locked account end at an instant, as far as its alerts go, and resolve these."""
    await work.session.execute(
        update(Alert)
        .where(
            Alert.account_id == account.id,
            Alert.kind != AlertKind.SPIKE,
            Alert.resolved_at.is_(None),
            Alert.period_start < at,
            Alert.period_end > at,
        )
        .values(period_end=at)
        .execution_options(synchronize_session=False)
    )
    await resolve_ended(work, [account], at)


async def resolve_all(work: Work, account: BillingAccount) -> None:
    """Resolve all open alerts of a locked account: its subscription is over, and nothing is watched any more."""
    rows = await work.session.execute(_select_open([account.id]))
    await _resolve(work, {account.id: account}, [_Known(*row) for row in rows])


async def resolve_thresholds(
    work: Work, account: BillingAccount, kind: AlertKind, subject: str, thresholds: Collection[int] | None = None
) -> None:
    """Resolve the open alerts of thresholds of a locked account's metric or budget that are no more; all without."""
    if thresholds is not None and not thresholds:
        return
    open_ones = _select_open([account.id]).where(Alert.kind == kind, Alert.subject == subject)
    if thresholds is not None:
        open_ones = open_ones.where(Alert.threshold.in_(thresholds))
    rows = await work.session.execute(open_ones)
    await _resolve(work, {account.id: account}, [_Known(*row) for row in rows])


async def find_ended(
    database: Database, kinds: Collection[AlertKind] = OF_PERIODS, stays: timedelta = timedelta()
) -> Sequence[UUID]:
    """Accounts on the wall clock with open alerts of a period, or day, that is over for so long: due work."""
    async with database.read() as session:
        return (
            await session.scalars(
                select(Alert.account_id)
                .join(BillingAccount, BillingAccount.id == Alert.account_id)
                .where(
                    Alert.kind.in_(kinds),
                    Alert.resolved_at.is_(None),
                    Alert.period_end <= database.clock.now() - stays,
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
    CHANGE_BUDGET = "CHANGE_BUDGET"


def list_actions(alert: Alert) -> tuple[RecommendedActionKind, ...]:
    """What to do about an alert."""
    if alert.kind is AlertKind.BUDGET:
        return ACTIONS_OF_BUDGETS
    if alert.kind is AlertKind.SPIKE:
        return (RecommendedActionKind.REDUCE_USAGE,)
    return ACTIONS_BY_LEVEL.get(alert.level, ())


ACTIONS_OF_BUDGETS = (RecommendedActionKind.CHANGE_BUDGET, RecommendedActionKind.REDUCE_USAGE)
ACTIONS_BY_LEVEL: dict[AlertLevel, tuple[RecommendedActionKind, ...]] = {
    AlertLevel.UPGRADE_SUGGESTION: (RecommendedActionKind.UPGRADE_PLAN,),
    AlertLevel.URGENT: (RecommendedActionKind.UPGRADE_PLAN, RecommendedActionKind.REDUCE_USAGE),
    AlertLevel.LIMIT_REACHED: (RecommendedActionKind.UPGRADE_PLAN, RecommendedActionKind.REDUCE_USAGE),
}
