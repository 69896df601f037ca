"""I9: each alert is one row with one event, open once at most, and whatever is reached has one."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select
from sqlalchemy.orm import aliased

from ...database import ReadSession
from ...models import (
    GAUGE_PERIOD,
    Alert,
    AlertKind,
    AlertThreshold,
    BillingAccount,
    Budget,
    BudgetPeriod,
    Counter,
    Metric,
    OutboxEvent,
    Subscription,
    SubscriptionStatus,
    TestClock,
)
from ...models.types import UTC
from ..reaching import has_reached, select_limits, watch_limits
from ..rules.thresholds import BUILT_IN, is_reached
from ..rules.transitions import RUNNING
from ..spikes import STAYS
from .reading import Findings, key_of_id, key_of_text, stream, sum_of

OVERDUE_FOR = timedelta(days=1)
"""So long after its period an alert may still wait to be resolved."""


async def check_alerts(session: ReadSession, found: Findings, now: datetime) -> None:
    """Alerts, their events and what they tell of, each by its clock: the account's own, or the wall clock's `now`."""
    await _check_events(session, found)
    await _check_orphans(session, found)
    await _check_episodes(session, found)
    await _check_open(session, found, now)
    await _check_spikes(session, found, now)
    await _check_reached(session, found, now)
    await _check_budgets(session, found, now)


def _raised() -> Select[*tuple[Any, ...]]:
    return select(
        OutboxEvent.account_id,
        OutboxEvent.sequence,
        OutboxEvent.payload["alertId"].as_string().label("alert_id"),
    ).where(OutboxEvent.kind.in_(("usage.alert_raised", "budget.alert_raised")))


async def _check_events(session: ReadSession, found: Findings) -> None:
    """The outbox tells of each alert once, at the alert's own place."""
    raised = _raised().subquery()
    told = (
        select(
            key_of_text(session, raised.c.alert_id).label("alert_key"),
            func.count().label("times"),
            func.min(raised.c.sequence).label("sequence"),
        )
        .group_by(key_of_text(session, raised.c.alert_id))
        .subquery()
    )
    statement = (
        select(
            Alert.account_id,
            Alert.id,
            Alert.kind,
            Alert.subject,
            Alert.threshold,
            Alert.sequence,
            told.c.times,
            told.c.sequence,
        )
        .join(BillingAccount, BillingAccount.id == Alert.account_id)
        .outerjoin(told, told.c.alert_key == key_of_id(session, Alert.id))
        .where(
            or_(
                and_(told.c.times.is_(None), Alert.sequence > BillingAccount.kept_after_sequence),
                told.c.times > 1,
                told.c.sequence != Alert.sequence,
            ),
        )
        .order_by(Alert.account_id, Alert.sequence)
    )
    async for account_id, alert_id, kind, subject, threshold, sequence, times, at in stream(session, statement):
        what = f"The alert {alert_id} of {subject}" + ("" if kind is AlertKind.SPIKE else f" at {threshold} %")
        if times is None:
            found.add("I9", account_id, f"{what} was never told of.")
        elif times > 1:
            found.add("I9", account_id, f"{what} was told of {times} times.")
        else:
            found.add("I9", account_id, f"{what} stands at {sequence}, and was told of at {at}.")


async def _check_orphans(session: ReadSession, found: Findings) -> None:
    """What the outbox tells of is there, until the account's data is deleted."""
    raised = _raised().subquery()
    statement = (
        select(raised.c.account_id, raised.c.sequence, raised.c.alert_id)
        .outerjoin(
            Alert,
            and_(
                key_of_id(session, Alert.id) == key_of_text(session, raised.c.alert_id),
                Alert.account_id == raised.c.account_id,
            ),
        )
        .join(BillingAccount, BillingAccount.id == raised.c.account_id)
        .outerjoin(Subscription, Subscription.account_id == raised.c.account_id)
        .where(
            Alert.id.is_(None),
            BillingAccount.data_deleted_at.is_(None),
            or_(Subscription.id.is_(None), Subscription.status != SubscriptionStatus.EXPIRED),
        )
        .order_by(raised.c.account_id, raised.c.sequence)
    )
    async for account_id, sequence, alert_id in stream(session, statement):
        found.add("I9", account_id, f"The event at {sequence} tells of the alert {alert_id}, which does not exist.")


async def _check_episodes(session: ReadSession, found: Findings) -> None:
    """Episodes count from 1 without holes, and each begins after the one before it was resolved."""
    earlier = aliased(Alert)
    key = (Alert.account_id, Alert.kind, Alert.subject, Alert.threshold, Alert.period_start)
    holes = (
        select(*key, func.count(), func.min(Alert.episode), func.max(Alert.episode))
        .group_by(*key)
        .having(or_(func.min(Alert.episode) != 1, func.max(Alert.episode) != func.count()))
        .order_by(*key)
    )
    async for account_id, _, subject, threshold, _, count, first, last in stream(session, holes):
        found.add(
            "I9",
            account_id,
            f"{subject} at {threshold} % has {count} alerts of one period, and their episodes are {first} to {last}.",
        )
    resolved_between = (
        select(OutboxEvent.id)
        .where(
            OutboxEvent.account_id == Alert.account_id,
            OutboxEvent.kind.in_(("usage.alert_resolved", "budget.alert_resolved")),
            OutboxEvent.sequence.between(earlier.sequence, Alert.sequence),
            or_(
                OutboxEvent.payload["metric"].as_string() == Alert.subject,
                OutboxEvent.payload["budgetId"].as_string() == Alert.subject,
            ),
            OutboxEvent.payload["threshold"].as_integer() == Alert.threshold,
        )
        .correlate(Alert, earlier)
        .exists()
    )
    over = (
        select(Alert.account_id, Alert.subject, Alert.threshold, Alert.episode)
        .join(
            earlier,
            and_(
                earlier.account_id == Alert.account_id,
                earlier.kind == Alert.kind,
                earlier.subject == Alert.subject,
                earlier.threshold == Alert.threshold,
                earlier.period_start == Alert.period_start,
                earlier.episode == Alert.episode - 1,
            ),
        )
        .join(BillingAccount, BillingAccount.id == Alert.account_id)
        # Where a clock was put back the instants lie: then the places of the events tell what came first, while these
        # are kept.
        .where(
            or_(
                earlier.resolved_at.is_(None),
                and_(
                    earlier.resolved_at > Alert.raised_at,
                    ~resolved_between,
                    earlier.sequence >= BillingAccount.kept_after_sequence,
                ),
            )
        )
        .order_by(Alert.account_id, Alert.sequence)
    )
    async for account_id, subject, threshold, episode in stream(session, over):
        found.add(
            "I9",
            account_id,
            f"{subject} at {threshold} % was raised a {episode}. time while the alert before it was open.",
        )


def _clock(now: datetime) -> ColumnElement[datetime]:
    return func.coalesce(TestClock.now, literal(now, UTC()), type_=UTC())


async def _check_open(session: ReadSession, found: Findings, now: datetime) -> None:
    """What is open has a threshold, a period that is not long over, and an account that is watched."""
    own = and_(
        AlertThreshold.account_id == Alert.account_id,
        AlertThreshold.kind == Alert.kind,
        AlertThreshold.subject == Alert.subject,
        AlertThreshold.percent == Alert.threshold,
    )
    is_gone = and_(Alert.threshold.not_in(list(BUILT_IN)), AlertThreshold.percent.is_(None))
    is_over = and_(Alert.period_end.is_not(None), Alert.period_end < _clock(now - OVERDUE_FOR))
    is_left = Subscription.status.not_in(list(RUNNING))
    why = case((is_gone, "no such threshold"), (is_left, "an account that is left"), else_="a period that is over")
    statement = (
        select(Alert.account_id, Alert.id, Alert.subject, Alert.threshold, why)
        .join(BillingAccount, BillingAccount.id == Alert.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .outerjoin(Subscription, Subscription.account_id == Alert.account_id)
        .outerjoin(AlertThreshold, own)
        .where(Alert.kind == AlertKind.USAGE, Alert.resolved_at.is_(None), or_(is_gone, is_over, is_left))
        .order_by(Alert.account_id, Alert.sequence)
    )
    async for account_id, alert_id, subject, threshold, told in stream(session, statement):
        found.add("I9", account_id, f"The alert {alert_id} of {subject} at {threshold} % is open, and of {told}.")


async def _check_spikes(session: ReadSession, found: Findings, now: datetime) -> None:
    """An unusual day has more than is usual; what is open is not long over, and of an account that is told of them."""
    is_over = Alert.period_end < _clock(now - STAYS - OVERDUE_FOR)
    is_left = Subscription.status.not_in(list(RUNNING))
    is_off = ~BillingAccount.spike_alerts
    is_low = Alert.used <= Alert.ceiling
    why = case(
        (is_low, "tells of no more than is usual"),
        (is_off, "is open where they are switched off"),
        (is_left, "is open, and of an account that is left"),
        else_="is open, and of a day that is over",
    )
    statement = (
        select(Alert.account_id, Alert.id, Alert.subject, why)
        .join(BillingAccount, BillingAccount.id == Alert.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .outerjoin(Subscription, Subscription.account_id == Alert.account_id)
        .where(
            Alert.kind == AlertKind.SPIKE,
            or_(is_low, and_(Alert.resolved_at.is_(None), or_(is_over, is_off, is_left))),
        )
        .order_by(Alert.account_id, Alert.sequence)
    )
    async for account_id, alert_id, subject, told in stream(session, statement):
        found.add("I9", account_id, f"The alert {alert_id} of an unusual day of {subject} {told}.")


async def _check_reached(session: ReadSession, found: Findings, now: datetime) -> None:
    """What stands at a threshold has its one open alert, and an open alert of a gauge what it tells of."""
    clock = _clock(now)
    watched = watch_limits(select_limits())
    is_of = and_(
        Alert.account_id == Counter.account_id,
        Alert.subject == Counter.metric_key,
        Alert.period_start == Counter.period_start,
        Alert.threshold == watched.c.percent,
        Alert.kind == AlertKind.USAGE,
        Alert.resolved_at.is_(None),
    )
    is_gauge = Counter.period_start == GAUGE_PERIOD
    runs = and_(
        Counter.period_start <= clock,
        Counter.period_end > clock,
        or_(Subscription.id.is_(None), Counter.period_start >= Subscription.usage_period_start),
    )
    reached = has_reached(Counter.used, watched.c.percent, watched.c.quantity)
    times = func.count(Alert.id)
    key = (Counter.account_id, Counter.metric_key, Counter.period_start, Counter.used)
    statement = (
        select(
            Counter.account_id,
            Counter.metric_key,
            watched.c.percent,
            Counter.used,
            watched.c.quantity,
            times,
            sum_of(case((reached, 1), else_=0)),
        )
        .join(BillingAccount, BillingAccount.id == Counter.account_id)
        .join(Metric, Metric.key == Counter.metric_key)
        .join(
            watched,
            and_(watched.c.account_id == Counter.account_id, watched.c.metric_key == Counter.metric_key),
        )
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .outerjoin(Subscription, Subscription.account_id == Counter.account_id)
        .outerjoin(Alert, is_of)
        .where(
            BillingAccount.closed_at.is_(None),
            or_(Subscription.id.is_(None), Subscription.status.in_(list(RUNNING))),
            or_(is_gauge, runs),
        )
        .group_by(*key, watched.c.percent, watched.c.quantity)
        .having(
            or_(
                and_(sum_of(case((reached, 1), else_=0)) > 0, times != 1),
                and_(is_gauge, sum_of(case((reached, 1), else_=0)) == 0, times > 0),
            )
        )
        .order_by(Counter.account_id, Counter.metric_key, watched.c.percent)
    )
    async for account_id, metric_key, percent, used, limit, open_, holds in stream(session, statement):
        where = f"{metric_key} stands at {used:,}" + ("" if limit is None else f" of {limit:,}")
        told = f"{percent} % has {open_} open alerts" if holds else f"the alert of {percent} % is open"
        found.add("I9", account_id, f"{where}, and {told}.")


async def _check_budgets(session: ReadSession, found: Findings, now: datetime) -> None:
    """Each threshold that the spend of a budget reached has its one open alert, and each open alert its threshold."""
    watched = or_(Subscription.id.is_(None), Subscription.status.in_(list(RUNNING)))
    open_ones: dict[tuple[UUID, str], list[tuple[int, datetime]]] = defaultdict(list)
    async for account_id, subject, threshold, start in stream(
        session,
        select(Alert.account_id, Alert.subject, Alert.threshold, Alert.period_start)
        .join(BillingAccount, BillingAccount.id == Alert.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(
            Alert.kind == AlertKind.BUDGET,
            Alert.resolved_at.is_(None),
            or_(Alert.period_end.is_(None), Alert.period_end >= _clock(now - OVERDUE_FOR)),
        ),
    ):
        open_ones[account_id, subject].append((threshold, start))
    statement = (
        select(Budget, BudgetPeriod.period_start, BudgetPeriod.spent_minor, BudgetPeriod.limit_minor)
        .join(BudgetPeriod, BudgetPeriod.budget_id == Budget.id)
        .join(BillingAccount, BillingAccount.id == Budget.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .outerjoin(Subscription, Subscription.account_id == Budget.account_id)
        .where(watched, BudgetPeriod.period_start <= _clock(now), BudgetPeriod.period_end > _clock(now))
        .order_by(Budget.account_id, Budget.id)
    )
    async for budget, start, spent_minor, limit_minor in stream(session, statement):
        told = open_ones[budget.account_id, str(budget.id)]
        mine = [threshold for threshold, begun in told if begun == start]
        reached = [percent for percent in budget.thresholds if is_reached(percent, spent_minor, limit_minor)]
        if not set(reached) <= set(mine) or not set(mine) <= set(budget.thresholds) or len(mine) != len(set(mine)):
            found.add(
                "I9",
                budget.account_id,
                f"The budget {budget.id} has {spent_minor:,} of {limit_minor:,} spent, and its open alerts are {mine}.",
            )
