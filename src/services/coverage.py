"""Whether every threshold that usage reached was told of, once: events, figures and limits against what was raised.

What should be there is asked of the database by `reaching`, and shares nothing with the code that raises.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select

from ..database import ReadSession
from ..models import (
    GAUGE_PERIOD,
    Alert,
    AlertKind,
    AlertLevel,
    BillingAccount,
    Counter,
    EffectiveLimit,
    Metric,
    MetricKind,
    Notice,
    OutboxEvent,
    Subscription,
    UsageEvent,
    UsagePeriod,
    UsageRating,
)
from ..models.types import UTC
from .banners import SEVERITIES, USAGE_THRESHOLD
from .calendars import period_of
from .reaching import has_reached, select_limits, watch_limits
from .rules.periods import Period
from .rules.thresholds import level_of_threshold
from .rules.transitions import RUNNING

MAX_CROSSINGS = 1_000
"""How many alerts of one period are listed; a gauge may come and go without end."""


class AlertChannel(StrEnum):
    """Where an alert goes."""

    LIVE = "LIVE"
    NOTICE = "NOTICE"


class DeliveryStatus(StrEnum):
    """What became of an alert on its way."""

    DELIVERED = "DELIVERED"
    MISSING = "MISSING"
    TWICE = "TWICE"
    ENDED = "ENDED"
    EXPIRED = "EXPIRED"


FAULTS = frozenset({DeliveryStatus.MISSING, DeliveryStatus.TWICE})


@dataclass(frozen=True)
class Delivery:
    """An alert on one of its ways."""

    channel: AlertChannel
    status: DeliveryStatus
    at: datetime | None = None
    sequence: int | None = None
    position: int | None = None


@dataclass(frozen=True)
class Crossing:
    """That a metric reached a threshold, and the alert that tells of it; none where it is missing."""

    metric_key: str
    threshold: int
    episode: int
    crossed_at: datetime
    alert: Alert | None
    deliveries: Sequence[Delivery] = ()

    @property
    def level(self) -> AlertLevel:
        """The level that the threshold gives."""
        return self.alert.level if self.alert else level_of_threshold(self.threshold)

    @property
    def is_complete(self) -> bool:
        """Whether it was told of, everywhere and once."""
        return self.alert is not None and not any(delivery.status in FAULTS for delivery in self.deliveries)


@dataclass(frozen=True)
class Coverage:
    """The crossings of a usage period, as they happened."""

    account_id: UUID
    period: Period
    crossings: Sequence[Crossing]
    has_more: bool
    """Whether there are more than are listed."""

    @property
    def is_complete(self) -> bool:
        """Whether all that are listed were told of, everywhere and once."""
        return all(crossing.is_complete for crossing in self.crossings)


class _Place(NamedTuple):
    metric_key: str
    threshold: int


class _Last(NamedTuple):
    episode: int
    is_open: bool


async def cover_alerts(
    session: ReadSession, account: BillingAccount, now: datetime, instant: datetime | None = None
) -> Coverage | None:
    """What the usage period that contains an instant (now, when none is said) reached, and what came of it.

    None where no period contains it, or that has not begun. Eight statements at most, whatever is in it.
    """
    subscription = await session.scalar(select(Subscription).where(Subscription.account_id == account.id))
    periods = await session.scalars(
        select(UsagePeriod).where(UsagePeriod.account_id == account.id).order_by(UsagePeriod.start_at)
    )
    at = now if instant is None else instant
    # What is to come lies in the running period, or in none that has begun.
    period = period_of(account, subscription, periods.all(), min(at, now))
    if period is None or at >= period.end:
        return None
    is_running = period.start <= now < period.end
    is_watched = account.closed_at is None and (subscription is None or subscription.status in RUNNING)
    expected: dict[_Place, datetime] = {}
    if not is_running:
        expected = await _read_places(session, _select_reached_by_events(_select_closed(account.id, period), period))
    elif is_watched:
        limits = select_limits().where(EffectiveLimit.account_id == account.id)
        by_events = await _read_places(session, _select_reached_by_events(limits, period))
        expected = await _read_places(session, _select_reached_by_figures(limits, period)) | by_events
    alerts = await _read_alerts(session, account.id, period)
    crossings = await _trace(session, account, alerts[:MAX_CROSSINGS])
    known = await _read_known(session, account.id, period)
    for place, crossed_at in expected.items():
        last = known.get(place)
        # What is reached while the period runs has an open alert: one that was resolved does not tell of it any more.
        if last is None or (is_running and not last.is_open):
            episode = last.episode + 1 if last else 1
            crossings.append(Crossing(place.metric_key, place.threshold, episode, crossed_at, None))
    crossings.sort(key=lambda crossing: (crossing.crossed_at, crossing.metric_key, crossing.threshold))
    return Coverage(account.id, period, crossings, has_more=len(alerts) > MAX_CROSSINGS)


def _select_closed(account_id: UUID, period: Period) -> Select[*tuple[Any, ...]]:
    """The limits at a period's close. Since when they were in force is not kept: what stood at the close counts."""
    return select(
        UsageRating.account_id,
        UsageRating.metric_key,
        UsageRating.limit_quantity.label("quantity"),
        literal(period.end, UTC()).label("changed_at"),
    ).where(UsageRating.account_id == account_id, UsageRating.period_start == period.start)


def _select_reached_by_events(limits: Select[*tuple[Any, ...]], period: Period) -> Select[*tuple[str, int, datetime]]:
    """What the sum of a period's events reached first, step by step as they were accepted, and when.

    What came before the limit counts as one step at its change. What came after the period's end is late, and raises
    nothing.
    """
    watched, of = watch_limits(limits), limits.subquery()
    at = case((UsageEvent.accepted_at < of.c.changed_at, of.c.changed_at), else_=UsageEvent.accepted_at)
    steps = (
        select(UsageEvent.metric_key, at.label("at"), func.sum(UsageEvent.change).label("change"))
        .join(of, and_(of.c.account_id == UsageEvent.account_id, of.c.metric_key == UsageEvent.metric_key))
        .where(UsageEvent.period_start == period.start, UsageEvent.accepted_at < period.end)
        .group_by(UsageEvent.metric_key, at)
        .subquery()
    )
    total = func.sum(steps.c.change).over(partition_by=steps.c.metric_key, order_by=steps.c.at)
    totals = select(steps.c.metric_key, steps.c.at, total.label("total")).subquery()
    return (
        select(watched.c.metric_key, watched.c.percent, func.min(totals.c.at, type_=UTC()))
        .join(totals, totals.c.metric_key == watched.c.metric_key)
        .join(Metric, Metric.key == watched.c.metric_key)
        .where(
            has_reached(totals.c.total, watched.c.percent, watched.c.quantity),
            or_(watched.c.set_at.is_(None), watched.c.set_at <= totals.c.at),
            Metric.kind == MetricKind.COUNTER,  # a gauge has no period: its figure tells
        )
        .group_by(watched.c.metric_key, watched.c.percent)
    )


def _select_reached_by_figures(limits: Select[*tuple[Any, ...]], period: Period) -> Select[*tuple[str, int, datetime]]:
    """What the running figures stand at now."""
    watched = watch_limits(limits)
    return (
        select(watched.c.metric_key, watched.c.percent, Counter.changed_at)
        .join(
            Counter,
            and_(Counter.account_id == watched.c.account_id, Counter.metric_key == watched.c.metric_key),
        )
        .where(
            Counter.period_start.in_((period.start, GAUGE_PERIOD)),
            has_reached(Counter.used, watched.c.percent, watched.c.quantity),
        )
    )


async def _read_places(session: ReadSession, statement: Select[*tuple[str, int, datetime]]) -> dict[_Place, datetime]:
    return {_Place(metric_key, percent): at for metric_key, percent, at in await session.execute(statement)}


async def _read_alerts(session: ReadSession, account_id: UUID, period: Period) -> Sequence[Alert]:
    """The alerts of a period, newest first: one more than is listed, where there are so many."""
    rows = await session.scalars(
        select(Alert).where(*_are_of(account_id, period)).order_by(Alert.sequence.desc()).limit(MAX_CROSSINGS + 1)
    )
    return rows.all()


async def _read_known(session: ReadSession, account_id: UUID, period: Period) -> dict[_Place, _Last]:
    """How often each threshold was told of, and whether it still is."""
    is_open = func.max(case((Alert.resolved_at.is_(None), 1), else_=0))
    rows = await session.execute(
        select(Alert.subject, Alert.threshold, func.max(Alert.episode), is_open)
        .where(*_are_of(account_id, period))
        .group_by(Alert.subject, Alert.threshold)
    )
    return {_Place(subject, threshold): _Last(episode, bool(is_open)) for subject, threshold, episode, is_open in rows}


def _are_of(account_id: UUID, period: Period) -> tuple[ColumnElement[bool], ...]:
    """Which alerts belong to a period: of gauges those raised in it, or open."""
    of_gauges = and_(
        Alert.period_start == GAUGE_PERIOD,
        Alert.raised_at < period.end,
        or_(Alert.resolved_at.is_(None), Alert.resolved_at >= period.start),
    )
    return (
        Alert.account_id == account_id,
        Alert.kind == AlertKind.USAGE,
        or_(Alert.period_start == period.start, of_gauges),
    )


async def _trace(session: ReadSession, account: BillingAccount, alerts: Sequence[Alert]) -> list[Crossing]:
    """The ways that alerts went."""
    raised = await _read_raised(session, account.id, alerts)
    banners = {
        notice.subject: notice
        for notice in await session.scalars(
            select(Notice).where(Notice.account_id == account.id, Notice.code == USAGE_THRESHOLD)
        )
    }
    return [
        Crossing(
            alert.subject,
            alert.threshold,
            alert.episode,
            alert.raised_at,
            alert,
            [
                _trace_live(account, alert, raised.get(alert.id, ())),
                *([_trace_banner(alert, banners.get(alert.subject))] if alert.level in SEVERITIES else ()),
            ],
        )
        for alert in alerts
    ]


async def _read_raised(
    session: ReadSession, account_id: UUID, alerts: Sequence[Alert]
) -> Mapping[UUID, Sequence[OutboxEvent]]:
    """What the outbox tells of alerts, by the ids that it names, wherever that stands."""
    found: dict[UUID, list[OutboxEvent]] = defaultdict(list)
    rows = await session.scalars(
        select(OutboxEvent)
        .where(
            OutboxEvent.account_id == account_id,
            OutboxEvent.kind == "usage.alert_raised",
            OutboxEvent.payload["alertId"].as_string().in_([str(alert.id) for alert in alerts]),
        )
        .order_by(OutboxEvent.sequence)
    )
    for row in rows:
        found[UUID(row.payload["alertId"])].append(row)
    return found


def _trace_live(account: BillingAccount, alert: Alert, raised: Sequence[OutboxEvent]) -> Delivery:
    told = next((event for event in raised if event.sequence == alert.sequence), None)
    if len(raised) > 1:
        status = DeliveryStatus.TWICE
    elif told is not None:
        status = DeliveryStatus.DELIVERED
    elif alert.sequence <= account.kept_after_sequence:
        status = DeliveryStatus.EXPIRED
    else:
        status = DeliveryStatus.MISSING
    if told is None:
        return Delivery(AlertChannel.LIVE, status, sequence=alert.sequence)
    return Delivery(AlertChannel.LIVE, status, told.at, told.sequence, told.position)


def _trace_banner(alert: Alert, banner: Notice | None) -> Delivery:
    """A banner is one for all open alerts of a metric, and speaks of the highest."""
    if alert.resolved_at is not None:
        return Delivery(AlertChannel.NOTICE, DeliveryStatus.ENDED, alert.resolved_at)
    if banner is None or banner.params["threshold"] < alert.threshold:
        return Delivery(AlertChannel.NOTICE, DeliveryStatus.MISSING)
    return Delivery(AlertChannel.NOTICE, DeliveryStatus.DELIVERED, banner.updated_at)
