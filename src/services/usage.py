"""Usage as it is sent, and the figures that it comes to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update

from ..database import ReadSession, Work
from ..models import (
    GAUGE_PERIOD,
    BillingAccount,
    Counter,
    EffectiveLimit,
    Interval,
    Metric,
    MetricKind,
    OverageApproval,
    OveragePolicy,
    OverageSetting,
    Plan,
    PlanVersion,
    Price,
    PriceKind,
    Reservation,
    ReservationStatus,
    Subscription,
    TestClock,
    UsagePeriod,
)
from .calendars import period_of
from .rules.overage import Rate, blocks_of, cost_of, excess_over, is_sold, may_pass, policy_in_force
from .rules.periods import Period

MAX_EVENTS = 1_000
MAX_QUANTITY = 10**12
MAX_FIGURE = 2**53 - 1
MAX_EVENT_ID_LENGTH = 255
RESERVED_IDS = "reservation:"
"""What the ids of events begin with that reservations became."""
MAX_PROPERTIES = 20
MAX_PROPERTY_LENGTH = 255
AHEAD = timedelta(minutes=5)
LATE = timedelta(days=35)


class EventStatus(StrEnum):
    """What became of an event."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    REJECTED = "REJECTED"


class RejectionCode(StrEnum):
    """Why an event was not taken."""

    CONFLICT = "CONFLICT"
    UNKNOWN_ACCOUNT = "UNKNOWN_ACCOUNT"
    UNKNOWN_METRIC = "UNKNOWN_METRIC"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    OVERAGE_APPROVAL_REQUIRED = "OVERAGE_APPROVAL_REQUIRED"
    ACCOUNT_SUSPENDED = "ACCOUNT_SUSPENDED"
    ACCOUNT_CANCELED = "ACCOUNT_CANCELED"
    IN_FUTURE = "IN_FUTURE"
    TOO_OLD = "TOO_OLD"
    INVALID_QUANTITY = "INVALID_QUANTITY"
    NEGATIVE_USAGE = "NEGATIVE_USAGE"
    INVALID_EVENT = "INVALID_EVENT"


@dataclass(frozen=True, kw_only=True)
class UsageInput:
    """One event as its sender gave it."""

    event_id: str
    metric: str
    account_id: UUID | None = None
    external_id: str | None = None
    quantity: int | None = None
    level: int | None = None
    correction: bool = False
    occurred_at: datetime | None = None
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EventResult:
    """What became of one event, with the figure and limit after it."""

    index: int
    event_id: str
    status: EventStatus
    code: RejectionCode | None = None
    message: str | None = None
    used: int | None = None
    limit: int | None = None
    budget_id: UUID | None = None
    """The budget that refused it."""


def is_sound_id(event_id: str) -> bool:
    """Whether a text can be an event's id."""
    return 0 < len(event_id) <= MAX_EVENT_ID_LENGTH and event_id.isprintable()


@dataclass(frozen=True, kw_only=True)
class UsageFigure:
    """How an account stands with one metric, in the running usage period."""

    account_id: UUID
    metric: Metric
    used: int
    held: int
    """What open reservations hold."""
    allowed: int
    """What of it was accepted above the limit without charge."""
    limit: int | None
    period: Period | None
    """Of a gauge none."""
    period_end: datetime | None
    """When the account's usage period ends, of a gauge too; none before the first."""
    resets_at: datetime | None
    policy: OveragePolicy
    """The one in force."""
    setting: OveragePolicy | None
    """The one that the account chose; none where it chose nothing."""
    approval: OverageApproval | None
    """What was approved in the running usage period."""
    may_pass: bool
    """Whether anything may pass the limit at all."""
    is_sold: bool
    """Whether what passes the limit is rated when the period closes, whatever the policy is by then."""
    overage_price_minor: int | None
    sequence: int
    """The account's sequence at its last change; 0 before the first."""

    @property
    def overage_quantity(self) -> int:
        """How much lies above the limit."""
        return excess_over(self.used, self.limit)

    @property
    def rate(self) -> Rate:
        """What its overage is priced by."""
        if not self.is_sold:
            return Rate(limit=self.limit)
        return Rate(limit=self.limit, block=self.metric.overage_block, price_minor=self.overage_price_minor or 0)

    @property
    def overage_blocks(self) -> int:
        """How many blocks are charged of that; 0 where overage is not sold."""
        return blocks_of(max(0, self.overage_quantity - self.allowed), self.rate.block)

    @property
    def overage_minor(self) -> int:
        """What the overage would cost if the period closed now: rated once, whole blocks."""
        return cost_of(self.used, self.allowed, self.rate)


async def load_figures(
    session: ReadSession, account_ids: Sequence[UUID], now: datetime
) -> dict[UUID, list[UsageFigure]]:
    """The figures of every metric for each account, in the metrics' order: one statement for all."""
    at = func.coalesce(TestClock.now, now)
    held = (
        select(func.coalesce(func.sum(Reservation.quantity), 0))
        .where(
            Reservation.account_id == BillingAccount.id,
            Reservation.metric_key == Metric.key,
            Reservation.status == ReservationStatus.HELD,
            Reservation.expires_at > at,
            or_(
                Metric.kind == MetricKind.GAUGE,
                UsagePeriod.start_at.is_(None),
                Reservation.period_start >= UsagePeriod.start_at,
            ),
        )
        .correlate(BillingAccount, Metric, TestClock, UsagePeriod)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(
            BillingAccount,
            Metric,
            EffectiveLimit,
            Counter,
            Price.amount_minor,
            Subscription,
            Plan.tier,
            TestClock.now,
            UsagePeriod,
            OverageSetting.policy,
            OverageApproval,
            held.label("held"),
        )
        .select_from(BillingAccount)
        .join(Metric, Metric.key.is_not(None))
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .outerjoin(Subscription, Subscription.account_id == BillingAccount.id)
        .outerjoin(PlanVersion, PlanVersion.id == Subscription.plan_version_id)
        .outerjoin(Plan, Plan.id == PlanVersion.plan_id)
        .outerjoin(
            UsagePeriod,
            and_(UsagePeriod.account_id == BillingAccount.id, UsagePeriod.start_at <= at, UsagePeriod.end_at > at),
        )
        .outerjoin(
            EffectiveLimit,
            and_(EffectiveLimit.account_id == BillingAccount.id, EffectiveLimit.metric_key == Metric.key),
        )
        .outerjoin(
            Counter,
            and_(
                Counter.account_id == BillingAccount.id,
                Counter.metric_key == Metric.key,
                or_(Counter.period_end.is_(None), and_(Counter.period_start <= at, Counter.period_end > at)),
            ),
        )
        .outerjoin(
            OverageSetting,
            and_(OverageSetting.account_id == BillingAccount.id, OverageSetting.metric_key == Metric.key),
        )
        .outerjoin(
            OverageApproval,
            and_(
                OverageApproval.account_id == BillingAccount.id,
                OverageApproval.metric_key == Metric.key,
                OverageApproval.period_start == UsagePeriod.start_at,
            ),
        )
        .outerjoin(
            Price,
            and_(
                Price.kind == PriceKind.OVERAGE,
                Price.subject == Metric.key,
                Price.interval == Interval.MONTH,
                Price.currency == BillingAccount.currency,
            ),
        )
        .where(BillingAccount.id.in_(account_ids))
        .order_by(Metric.position, Metric.key)
    )
    found: dict[UUID, dict[str, UsageFigure]] = {account_id: {} for account_id in account_ids}
    for row in rows:
        account, metric, limit, counter, price, subscription, tier, clock_now, running, setting, approval, holding = row
        known = [] if running is None else [running]
        usage_period = period_of(account, subscription, known, clock_now or now)
        period = usage_period if metric.kind is MetricKind.COUNTER else None
        # After a cancellation the counter that it cut short still overlaps the running period: it is not of it.
        current = counter if counter and (period is None or counter.period_start == period.start) else None
        if current is None and metric.key in found[account.id]:
            continue
        status = subscription.status if subscription else None
        passes = may_pass(status, tier)
        found[account.id][metric.key] = UsageFigure(
            account_id=account.id,
            metric=metric,
            used=current.used if current else 0,
            held=int(holding),
            allowed=current.allowed if current else 0,
            limit=limit.quantity if limit else 0,
            period=period,
            period_end=usage_period.end if usage_period else None,
            resets_at=period.end if period else None,
            policy=policy_in_force(metric, status, tier, price, setting),
            setting=setting,
            approval=approval,
            may_pass=passes,
            is_sold=passes and is_sold(metric, price),
            overage_price_minor=price,
            sequence=current.sequence if current else 0,
        )
    return {account_id: list(figures.values()) for account_id, figures in found.items()}


async def tell_usage(work: Work, account: BillingAccount, metric_key: str, period: Period | None) -> None:
    """Have the streams of a locked account tell a figure anew, though it did not move: what may be used changed."""
    start, end = (GAUGE_PERIOD, None) if period is None else (period.start, period.end)
    row = {
        "account_id": account.id,
        "metric_key": metric_key,
        "period_start": start,
        "period_end": end,
        "used": 0,
        "allowed": 0,
        "changed_at": work.clock.now_for(account),
        "sequence": 0,
    }
    await work.insert_or_ignore(Counter, [row])
    await tell_counter(work, account, metric_key, start)


async def tell_counter(work: Work, account: BillingAccount, metric_key: str, start: datetime) -> None:
    """The same for a figure that stands somewhere, by where its period starts."""
    now, sequence = work.clock.now_for(account), work.advance(account)
    await work.session.execute(
        update(Counter)
        .where(Counter.account_id == account.id, Counter.metric_key == metric_key, Counter.period_start == start)
        .values(changed_at=now, sequence=sequence)
    )
