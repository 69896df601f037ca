"""Usage: events in, figures out. One transaction per batch, set-based: the same few statements for 1 and 1,000."""

import hashlib
import json
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, func, insert, or_, select, tuple_, update

from ..database import ReadSession, Work
from ..models import (
    GAUGE_PERIOD,
    BillingAccount,
    Counter,
    EffectiveLimit,
    Granularity,
    Interval,
    Metric,
    MetricKind,
    OveragePolicy,
    Plan,
    PlanVersion,
    Price,
    PriceKind,
    Subscription,
    SubscriptionStatus,
    TestClock,
    UsageEvent,
    UsageEventId,
    UsagePeriod,
    UsageRating,
    UsageRollup,
)
from ..models.types import new_id
from . import alerts
from .access import Principal, Right
from .calendars import period_of
from .errors import InvalidInput
from .plan_limits import Limits, load_free_limits
from .rules.money import MAX_AMOUNT_MINOR
from .rules.overage import blocks_of, excess_over, policy_in_force
from .rules.periods import Period, bucket_start, last_buckets, month_of

MAX_EVENTS = 1_000
MAX_QUANTITY = 10**12
MAX_FIGURE = 2**53 - 1
MAX_EVENT_ID_LENGTH = 255
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


class _Rejected(Exception):
    def __init__(self, code: RejectionCode, message: str, figure: "_Figure | None" = None) -> None:
        super().__init__(message)
        self.code = code
        self.figure = figure


class _Moment(NamedTuple):
    """A place in a gauge's history. At one instant changes come before levels: any order of arrival gives the same."""

    at: datetime
    is_level: bool
    event_id: str


@dataclass
class _Step:
    id: UUID
    change: int
    occurred_at: datetime
    workspace: str
    is_new: bool
    was_changed: bool = False


@dataclass
class _Figure:
    """The figure of an account's metric in one period, as this batch moves it."""

    period: Period | None
    used: int = 0
    limit: int | None = 0
    policy: OveragePolicy = OveragePolicy.BLOCK
    block: int | None = None
    price_minor: int = 0
    """What a block above the limit costs, where that is charged."""
    changed: bool = False
    moments: list[_Moment] = field(default_factory=list[_Moment])
    steps: dict[_Moment, _Step] = field(default_factory=dict[_Moment, _Step])


@dataclass
class _Ledger:
    """All that a batch needs to know of one account, read before and written after."""

    account: BillingAccount
    now: datetime
    subscription: Subscription | None
    tier: int | None
    limits: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    overage_prices: dict[str, int] = field(default_factory=dict[str, int])
    known: dict[str, str] = field(default_factory=dict[str, str])
    figures: dict[tuple[str, datetime], _Figure] = field(default_factory=dict[tuple[str, datetime], _Figure])
    ids: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rollups: dict[tuple[str, Granularity, datetime, str, date], int] = field(
        default_factory=lambda: defaultdict[tuple[str, Granularity, datetime, str, date], int](int)
    )
    running: Period | None = None
    periods: list[UsagePeriod] = field(default_factory=list[UsagePeriod])
    """The stored usage periods that still take events, oldest first."""
    ratings: dict[tuple[str, datetime], UsageRating] = field(default_factory=dict[tuple[str, datetime], UsageRating])
    """What closed periods are priced and limited by, by metric and start."""
    free_limits: Limits = field(default_factory=dict[str, "int | None"])

    @property
    def status(self) -> SubscriptionStatus | None:
        return self.subscription.status if self.subscription else None

    @property
    def has_late(self) -> bool:
        """Whether a closed period got more."""
        return any(
            figure.changed and figure.period is not None and figure.period.end <= self.now
            for figure in self.figures.values()
        )

    def terms_in(self, metric: Metric, period: Period | None) -> tuple[int | None, OveragePolicy]:
        """The limit and policy that hold for what was used in a period: a closed one keeps its own."""
        rating = None if period is None else self.ratings.get((metric.key, period.start))
        if rating is not None:
            return rating.limit_quantity, OveragePolicy.BLOCK if rating.block is None else OveragePolicy.CHARGE
        if period is not None and self._is_without_subscription(period):
            return self.free_limits.get(metric.key, 0), OveragePolicy.BLOCK
        policy = policy_in_force(metric, self.status, self.tier, self.overage_prices.get(metric.key))
        return self.limits.get(metric.key, 0), policy

    def price_in(self, metric: Metric, period: Period | None) -> tuple[int | None, int]:
        """The block of overage and its price for what was used in a period: a closed one keeps its own."""
        rating = None if period is None else self.ratings.get((metric.key, period.start))
        if rating is not None:
            return rating.block, rating.price_minor
        return metric.overage_block, self.overage_prices.get(metric.key, 0)

    def _is_without_subscription(self, period: Period) -> bool:
        if period.end > self.now or self.subscription is None:
            return False  # what runs now has the limits that are in force
        is_known = any(row.start_at == period.start for row in self.periods)
        return not is_known and period.start < self.subscription.usage_period_start

    def period_of(self, instant: datetime) -> Period | None:
        if self.running is not None and self.running.start <= instant < self.running.end:
            return self.running
        self.running = period_of(self.account, self.subscription, self.periods, instant)
        return self.running


@dataclass(frozen=True)
class Taken:
    """What became of a batch, and the accounts of which a closed period got more."""

    results: list[EventResult]
    late: list[BillingAccount]


async def take_events(
    work: Work, principal: Principal, events: Sequence[UsageInput], *, dry_run: bool = False
) -> Taken:
    """Take a batch of events: each gets a result in the order given, and one bad event never loses the batch.

    Event, counter, roll-ups, alerts and outbox rows are one write, under the locks of the accounts' rows.
    With `dry_run` everything is decided and nothing written.
    """
    if not events:
        raise InvalidInput("Send at least one event.", ["input", "events"])
    if len(events) > MAX_EVENTS:
        raise InvalidInput(
            f"A batch holds at most {MAX_EVENTS} events, this one has {len(events)}: send several.", ["input", "events"]
        )
    metrics = {metric.key: metric for metric in await work.session.scalars(select(Metric))}
    ledgers = await _open_ledgers(work, principal, events)
    by_external_id = {ledger.account.external_id: ledger for ledger in ledgers.values()}
    await _read_state(work, ledgers, by_external_id, metrics, events)
    results = []
    for index, given in enumerate(events):
        ledger = _ledger_of(given, ledgers, by_external_id)
        try:
            results.append(_take(index, given, principal, metrics, ledger))
        except _Rejected as rejection:
            figure = rejection.figure
            results.append(
                EventResult(
                    index=index,
                    event_id=given.event_id,
                    status=EventStatus.REJECTED,
                    code=rejection.code,
                    message=str(rejection),
                    used=figure.used if figure else None,
                    limit=figure.limit if figure else None,
                )
            )
    if dry_run:
        return Taken(results, [])
    await _write(work, ledgers.values(), metrics)
    late = [ledger.account for ledger in ledgers.values() if ledger.has_late]
    return Taken(results, late)


async def _open_ledgers(work: Work, principal: Principal, events: Sequence[UsageInput]) -> dict[UUID, _Ledger]:
    ids = {given.account_id for given in events if given.account_id is not None}
    external_ids = {
        given.external_id
        for given in events
        if given.external_id is not None and given.account_id is None and given.external_id.isprintable()
    }
    if external_ids:
        ids |= set(
            await work.session.scalars(select(BillingAccount.id).where(BillingAccount.external_id.in_(external_ids)))
        )
    mine = {account_id for account_id in ids if principal.may(Right.INGEST_USAGE, account_id)}
    accounts = await work.lock_accounts(mine)
    sold = {
        subscription.account_id: (subscription, tier)
        for subscription, tier in await work.session.execute(
            select(Subscription, Plan.tier)
            .join(PlanVersion, PlanVersion.id == Subscription.plan_version_id)
            .join(Plan, Plan.id == PlanVersion.plan_id)
            .where(Subscription.account_id.in_(accounts))
        )
    }
    ledgers = {
        account.id: _Ledger(account, work.clock.now_for(account), *sold.get(account.id, (None, None)))
        for account in accounts.values()
    }
    if ledgers:
        await _read_periods(work, ledgers)
    return ledgers


async def _read_periods(work: Work, ledgers: dict[UUID, _Ledger]) -> None:
    oldest = min(ledger.now for ledger in ledgers.values()) - LATE
    for row in await work.session.scalars(
        select(UsagePeriod)
        .where(UsagePeriod.account_id.in_(ledgers), UsagePeriod.end_at >= oldest)
        .order_by(UsagePeriod.start_at)
    ):
        ledgers[row.account_id].periods.append(row)
    for rating in await work.session.scalars(
        select(UsageRating).where(UsageRating.account_id.in_(ledgers), UsageRating.period_end >= oldest)
    ):
        ledgers[rating.account_id].ratings[rating.metric_key, rating.period_start] = rating
    free = await load_free_limits(ReadSession(work.session))
    for ledger in ledgers.values():
        ledger.free_limits = free


def _ledger_of(given: UsageInput, ledgers: dict[UUID, _Ledger], by_external_id: dict[str, _Ledger]) -> _Ledger | None:
    if given.account_id is not None:
        ledger = ledgers.get(given.account_id)
        # Both given must mean the same account.
        return ledger if ledger and given.external_id in (None, ledger.account.external_id) else None
    return by_external_id.get(given.external_id or "")


async def _read_terms(work: Work, ledgers: dict[UUID, _Ledger]) -> None:
    """The limits in force, and what overage costs."""
    for limit in await work.session.scalars(select(EffectiveLimit).where(EffectiveLimit.account_id.in_(ledgers))):
        ledgers[limit.account_id].limits[limit.metric_key] = limit.quantity
    currencies = {ledger.account.currency for ledger in ledgers.values()}
    for price in await work.session.scalars(
        select(Price).where(Price.kind == PriceKind.OVERAGE, Price.currency.in_(currencies))
    ):
        for each in ledgers.values():
            if each.account.currency == price.currency:
                each.overage_prices[price.subject] = price.amount_minor


async def _read_state(
    work: Work,
    ledgers: dict[UUID, _Ledger],
    by_external_id: dict[str, _Ledger],
    metrics: dict[str, Metric],
    events: Sequence[UsageInput],
) -> None:
    if not ledgers:
        return
    await _read_terms(work, ledgers)
    wanted: dict[UUID, set[str]] = defaultdict(set)
    periods: set[tuple[UUID, str, datetime]] = set()
    earliest: dict[tuple[UUID, str], datetime] = {}
    for given in events:
        ledger = _ledger_of(given, ledgers, by_external_id)
        metric = metrics.get(given.metric)
        if ledger is None or metric is None or not _is_sound_id(given.event_id):
            continue
        wanted[ledger.account.id].add(given.event_id)
        at = given.occurred_at or ledger.now
        period = None if at > ledger.now + AHEAD else ledger.period_of(at)
        if period is None or ledger.now >= period.end + LATE:
            continue
        if metric.kind is MetricKind.GAUGE:
            periods.add((ledger.account.id, metric.key, GAUGE_PERIOD))
            key = (ledger.account.id, metric.key)
            earliest[key] = min(at, earliest.get(key, at))
        else:
            periods.add((ledger.account.id, metric.key, period.start))
    ids = [(account_id, event_id) for account_id, known in wanted.items() for event_id in known]
    for row in await work.session.execute(
        select(UsageEventId.account_id, UsageEventId.event_id, UsageEventId.content_hash).where(
            tuple_(UsageEventId.account_id, UsageEventId.event_id).in_(ids)
        )
    ):
        ledgers[row.account_id].known[row.event_id] = row.content_hash
    for counter in await work.session.scalars(
        select(Counter).where(tuple_(Counter.account_id, Counter.metric_key, Counter.period_start).in_(periods))
    ):
        metric = metrics[counter.metric_key]
        figure = _figure_of(ledgers[counter.account_id], metric, _period_or_none(counter))
        figure.used = counter.used
    if earliest:
        await _read_gauge_history(work, ledgers, metrics, earliest)


def _period_or_none(counter: Counter) -> Period | None:
    return None if counter.period_end is None else Period(counter.period_start, counter.period_end)


async def _read_gauge_history(
    work: Work, ledgers: dict[UUID, _Ledger], metrics: dict[str, Metric], earliest: dict[tuple[UUID, str], datetime]
) -> None:
    later = select(UsageEvent).where(
        tuple_(UsageEvent.account_id, UsageEvent.metric_key).in_(list(earliest)),
        UsageEvent.occurred_at >= min(earliest.values()),
    )
    for event in await work.session.scalars(later):
        if event.occurred_at < earliest[event.account_id, event.metric_key]:
            continue
        figure = _figure_of(ledgers[event.account_id], metrics[event.metric_key], None)
        moment = _Moment(event.occurred_at, event.level is not None, event.event_id)
        insort(figure.moments, moment)
        figure.steps[moment] = _Step(event.id, event.change, event.occurred_at, event.workspace, is_new=False)


def _figure_of(ledger: _Ledger, metric: Metric, period: Period | None) -> _Figure:
    key = (metric.key, period.start if period else GAUGE_PERIOD)
    if key not in ledger.figures:
        limit, policy = ledger.terms_in(metric, period)
        block, price_minor = ledger.price_in(metric, period)
        ledger.figures[key] = _Figure(period=period, limit=limit, policy=policy, block=block, price_minor=price_minor)
    return ledger.figures[key]


def _is_sound_id(event_id: str) -> bool:
    return 0 < len(event_id) <= MAX_EVENT_ID_LENGTH and event_id.isprintable()


def _check_shape(given: UsageInput) -> None:
    if not _is_sound_id(given.event_id):
        raise _Rejected(
            RejectionCode.INVALID_EVENT, f"`eventId` needs 1 to {MAX_EVENT_ID_LENGTH} printable characters."
        )
    if len(given.properties) > MAX_PROPERTIES:
        raise _Rejected(RejectionCode.INVALID_EVENT, f"An event has at most {MAX_PROPERTIES} properties.")
    for key, value in given.properties.items():
        if not isinstance(value, str | int | bool) or len(str(value)) > MAX_PROPERTY_LENGTH or len(key) > 64:
            raise _Rejected(
                RejectionCode.INVALID_EVENT,
                f"Property {key[:64]!r}: keys have up to 64 characters, values are texts (up to "
                f"{MAX_PROPERTY_LENGTH} characters), whole numbers or booleans.",
            )
        if not (key + str(value)).isprintable():
            raise _Rejected(RejectionCode.INVALID_EVENT, f"Property {key[:64]!r} has unprintable characters.")


def _check_quantity(given: UsageInput, metric: Metric, principal: Principal, account_id: UUID) -> None:
    invalid = RejectionCode.INVALID_QUANTITY
    is_operator = principal.may(Right.CORRECT_USAGE, account_id)
    if (given.quantity is None) == (given.level is None):
        raise _Rejected(invalid, "Send either `quantity` or, for a gauge, `level`.")
    if given.level is not None:
        if metric.kind is MetricKind.COUNTER:
            raise _Rejected(invalid, f"{metric.key} is a counter: it has no level, send the `quantity` to add.")
        if not is_operator:
            raise _Rejected(invalid, "Only operators set levels: send the change as `quantity`.")
        if not 0 <= given.level <= MAX_QUANTITY:
            raise _Rejected(invalid, f"`level` is a whole number from 0 to {MAX_QUANTITY}.")
        return
    quantity = given.quantity
    assert quantity is not None, "one of the two is there"
    if quantity == 0 or abs(quantity) > MAX_QUANTITY:
        raise _Rejected(invalid, f"`quantity` is a whole number from 1 to {MAX_QUANTITY}; 0 changes nothing.")
    if quantity > 0:
        return
    if not is_operator:
        raise _Rejected(invalid, "A negative quantity is a correction, and only operators make those.")
    if metric.kind is MetricKind.COUNTER and not given.correction:
        raise _Rejected(invalid, "A negative quantity of a counter is a correction: send `correction: true` with it.")


def _check_time(ledger: _Ledger, at: datetime) -> Period:
    if at > ledger.now + AHEAD:
        raise _Rejected(
            RejectionCode.IN_FUTURE,
            f"`occurredAt` is over five minutes ahead of {ledger.now:%Y-%m-%dT%H:%M:%SZ}: check the sender's clock.",
        )
    period = ledger.period_of(at)
    if period is None:
        raise _Rejected(RejectionCode.TOO_OLD, "`occurredAt` lies before the account's first usage period.")
    if ledger.now >= period.end + LATE:
        raise _Rejected(RejectionCode.TOO_OLD, "`occurredAt` lies in a usage period that ended more than 35 days ago.")
    return period


def _check_open(ledger: _Ledger) -> None:
    if ledger.account.closed_at is not None or ledger.status is SubscriptionStatus.EXPIRED:
        raise _Rejected(RejectionCode.ACCOUNT_CANCELED, "The account is closed and takes no usage.")


def _check_state(ledger: _Ledger, at: datetime) -> None:
    subscription = ledger.subscription
    if subscription is None:
        return
    if subscription.status is SubscriptionStatus.SUSPENDED and (
        subscription.suspended_at is None or at >= subscription.suspended_at
    ):
        raise _Rejected(RejectionCode.ACCOUNT_SUSPENDED, "The account is suspended until its open invoices are paid.")


def _is_canceled(ledger: _Ledger, at: datetime) -> bool:
    """Whether an instant lies after the end of the subscription: from then on the account only reads."""
    subscription = ledger.subscription
    if subscription is None or subscription.status is not SubscriptionStatus.CANCELED:
        return False
    return subscription.canceled_at is None or at >= subscription.canceled_at


def _canceled() -> _Rejected:
    return _Rejected(
        RejectionCode.ACCOUNT_CANCELED,
        "The subscription was cancelled: reactivate it first. Until then only operators lower gauges.",
    )


def hash_content(given: UsageInput) -> str:
    """What makes two events with one id the same: metric, quantity or level, instant, properties."""
    at = given.occurred_at.astimezone(UTC).isoformat() if given.occurred_at else None
    content = [given.metric, given.quantity, given.level, at, given.properties]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _take(
    index: int, given: UsageInput, principal: Principal, metrics: dict[str, Metric], ledger: _Ledger | None
) -> EventResult:
    if ledger is None:
        named = given.account_id is not None or given.external_id is not None
        raise _Rejected(
            RejectionCode.UNKNOWN_ACCOUNT,
            "You have no account of that id: check it, and that the key is for it."
            if named
            else "Name the account by `accountId` or `externalId`.",
        )
    _check_shape(given)
    metric = metrics.get(given.metric)
    if metric is None:
        raise _Rejected(
            RejectionCode.UNKNOWN_METRIC,
            f"There is no metric {given.metric[:64]!r}: known are {', '.join(sorted(metrics))}.",
        )
    content_hash = hash_content(given)
    known = ledger.known.get(given.event_id)
    at = (given.occurred_at or ledger.now).astimezone(UTC)
    if known is not None:
        if known != content_hash:
            raise _Rejected(
                RejectionCode.CONFLICT, "An event with this `eventId` and other content was accepted before."
            )
        return EventResult(index=index, event_id=given.event_id, status=EventStatus.DUPLICATE)
    _check_quantity(given, metric, principal, ledger.account.id)
    _check_open(ledger)
    period = _check_time(ledger, at)
    _check_state(ledger, at)
    # Somebody who wants to come back on a smaller plan must be able to reduce what is in use.
    only_lower = _is_canceled(ledger, at)
    if only_lower and (
        metric.kind is not MetricKind.GAUGE or not principal.may(Right.CORRECT_USAGE, ledger.account.id)
    ):
        raise _canceled()
    figure = _figure_of(ledger, metric, None if metric.kind is MetricKind.GAUGE else period)
    workspace = given.properties.get("workspace", "")
    workspace = str(workspace)
    event_row_id = new_id()
    if metric.kind is MetricKind.GAUGE:
        change = _move_gauge(ledger, metric, figure, given, at, workspace, event_row_id, only_lower=only_lower)
    else:
        assert given.quantity is not None, "checked"
        change = given.quantity
        _check_figure(figure, figure.used + change, change, metric)
        figure.used += change
        _add_rollups(ledger, metric.key, at, workspace, change)
    figure.changed = True
    ledger.known[given.event_id] = content_hash
    ledger.ids.append(
        {
            "account_id": ledger.account.id,
            "event_id": given.event_id,
            "content_hash": content_hash,
            "accepted_at": ledger.now,
        }
    )
    ledger.events.append(
        {
            "id": event_row_id,
            "account_id": ledger.account.id,
            "event_id": given.event_id,
            "metric_key": metric.key,
            "quantity": given.quantity,
            "level": given.level,
            "change": change,
            "occurred_at": at,
            "accepted_at": ledger.now,
            "period_start": period.start,
            "workspace": workspace,
            "properties": given.properties,
        }
    )
    return EventResult(
        index=index, event_id=given.event_id, status=EventStatus.ACCEPTED, used=figure.used, limit=figure.limit
    )


def _check_figure(figure: _Figure, after: int, change: int, metric: Metric) -> None:
    if after < 0:
        raise _Rejected(
            RejectionCode.NEGATIVE_USAGE, f"{metric.name} stands at {figure.used} and cannot fall below 0.", figure
        )
    if after > MAX_FIGURE:
        raise _Rejected(RejectionCode.INVALID_QUANTITY, f"{metric.name} cannot pass {MAX_FIGURE}.", figure)
    if change > 0 and figure.policy is OveragePolicy.BLOCK and figure.limit is not None and after > figure.limit:
        raise _Rejected(
            RejectionCode.LIMIT_EXCEEDED,
            f"{metric.name} would be {after} of {figure.limit}: a larger plan or an add-on raises the limit.",
            figure,
        )
    if change > 0 and figure.policy is OveragePolicy.CHARGE:
        blocks = blocks_of(excess_over(after, figure.limit), figure.block)
        if blocks * figure.price_minor > MAX_AMOUNT_MINOR:
            raise _Rejected(
                RejectionCode.INVALID_QUANTITY,
                f"{metric.name} would cost more than one invoice line holds ({MAX_AMOUNT_MINOR} minor units).",
                figure,
            )


def _move_gauge(
    ledger: _Ledger,
    metric: Metric,
    figure: _Figure,
    given: UsageInput,
    at: datetime,
    workspace: str,
    event_row_id: UUID,
    *,
    only_lower: bool = False,
) -> int:
    """Put an event into the gauge's history, late or not, and give the step that it is.

    A level swallows what came before it. So a late event only moves the running figure when no later level stands;
    else the later level's own step shrinks by as much, and the figure stays.
    """
    moment = _Moment(at, given.level is not None, given.event_id)
    after = figure.moments[bisect_right(figure.moments, moment) :]
    before = figure.used - sum(figure.steps[later].change for later in after)
    change = given.quantity if given.level is None else given.level - before
    assert change is not None, "checked"
    if only_lower and change >= 0:
        raise _canceled()
    next_level = next((later for later in after if later.is_level), None)
    if before + change < 0:
        _check_figure(figure, before + change, change, metric)
    if next_level is None:
        _check_figure(figure, figure.used + change, change, metric)
        figure.used += change
    else:
        swallowing = figure.steps[next_level]
        swallowing.change -= change
        swallowing.was_changed = True
        _add_rollups(ledger, metric.key, swallowing.occurred_at, swallowing.workspace, -change)
    _add_rollups(ledger, metric.key, at, workspace, change)
    insort(figure.moments, moment)
    figure.steps[moment] = _Step(event_row_id, change, at, workspace, is_new=True)
    return change


def _add_rollups(ledger: _Ledger, metric_key: str, at: datetime, workspace: str, change: int) -> None:
    zone = ledger.account.timezone
    for granularity in (Granularity.HOUR, Granularity.DAY):
        key = (metric_key, granularity, bucket_start(at, zone, granularity), workspace, month_of(at, zone))
        ledger.rollups[key] += change


async def _write(work: Work, ledgers: Collection[_Ledger], metrics: dict[str, Metric]) -> None:
    await alerts.resolve_ended(work, [ledger.account for ledger in ledgers])
    touched = [ledger for ledger in ledgers if ledger.events]
    if not touched:
        return
    session = work.session
    await session.execute(insert(UsageEventId), [row for ledger in touched for row in ledger.ids])
    steps = {
        step.id: step for ledger in touched for figure in ledger.figures.values() for step in figure.steps.values()
    }
    # A level of this very batch may have been moved by a later one in it: its step is the last word.
    rows = [
        row | {"change": steps[row["id"]].change if row["id"] in steps else row["change"]}
        for ledger in touched
        for row in ledger.events
    ]
    await session.execute(insert(UsageEvent), rows)
    corrected = [
        {"id": step.id, "change": step.change} for step in steps.values() if step.was_changed and not step.is_new
    ]
    if corrected:
        await session.execute(update(UsageEvent), corrected)
    await work.upsert(
        UsageRollup,
        [
            {
                "account_id": ledger.account.id,
                "metric_key": metric_key,
                "granularity": granularity,
                "start_at": start,
                "workspace": workspace,
                "month": month,
                "quantity": quantity,
            }
            for ledger in touched
            for (metric_key, granularity, start, workspace, month), quantity in sorted(ledger.rollups.items())
        ],
        adding=("quantity",),
    )
    counters, figures = [], []
    for ledger in touched:
        for (metric_key, period_start), figure in sorted(ledger.figures.items()):
            if not figure.changed:
                continue
            counters.append(
                {
                    "account_id": ledger.account.id,
                    "metric_key": metric_key,
                    "period_start": period_start,
                    "period_end": figure.period.end if figure.period else None,
                    "used": figure.used,
                    "changed_at": ledger.now,
                    "sequence": work.advance(ledger.account),
                }
            )
            figures.append(
                alerts.Reading(ledger.account, metrics[metric_key], figure.period, figure.used, figure.limit)
            )
        work.audit(
            ledger.account,
            "usage.recorded",
            f"billing_account:{ledger.account.id}",
            after={"events": len(ledger.events), "first": ledger.events[0]["event_id"]},
        )
    await work.upsert(Counter, counters)
    inactive = (SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED)
    silent = {ledger.account.id for ledger in touched if ledger.status in inactive}
    await alerts.evaluate_usage(work, [figure for figure in figures if figure.account.id not in silent])


@dataclass(frozen=True, kw_only=True)
class UsageFigure:
    """How an account stands with one metric, in the running usage period."""

    account_id: UUID
    metric: Metric
    used: int
    limit: int | None
    period: Period | None
    """Of a gauge none."""
    resets_at: datetime | None
    policy: OveragePolicy
    overage_price_minor: int | None
    sequence: int
    """The account's sequence at its last change; 0 before the first."""

    @property
    def overage_quantity(self) -> int:
        """How much lies above the limit."""
        return excess_over(self.used, self.limit)

    @property
    def overage_blocks(self) -> int:
        """How many blocks that starts; 0 where overage is not charged."""
        if self.policy is not OveragePolicy.CHARGE:
            return 0
        return blocks_of(self.overage_quantity, self.metric.overage_block)

    @property
    def overage_minor(self) -> int:
        """What the overage would cost if the period closed now: rated once, whole blocks."""
        return self.overage_blocks * (self.overage_price_minor or 0)


async def load_figures(
    session: ReadSession, account_ids: Sequence[UUID], now: datetime
) -> dict[UUID, list[UsageFigure]]:
    """The figures of every metric for each account, in the metrics' order: one statement for all."""
    at = func.coalesce(TestClock.now, now)
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
    for account, metric, limit, counter, price, subscription, tier, clock_now, running in rows:
        known = [] if running is None else [running]
        period = None
        if metric.kind is MetricKind.COUNTER:
            period = period_of(account, subscription, known, clock_now or now)
        # After a cancellation the counter that it cut short still overlaps the running period: it is not of it.
        current = counter if counter and (period is None or counter.period_start == period.start) else None
        if current is None and metric.key in found[account.id]:
            continue
        found[account.id][metric.key] = UsageFigure(
            account_id=account.id,
            metric=metric,
            used=current.used if current else 0,
            limit=limit.quantity if limit else 0,
            period=period,
            resets_at=period.end if period else None,
            policy=policy_in_force(metric, subscription.status if subscription else None, tier, price),
            overage_price_minor=price,
            sequence=current.sequence if current else 0,
        )
    return {account_id: list(figures.values()) for account_id, figures in found.items()}


class HistoryKey(NamedTuple):
    """Whose history, and from when."""

    account_id: UUID
    since: datetime


class History(NamedTuple):
    """The changes of an account's metrics by bucket."""

    changes: dict[tuple[str, datetime | date], int]


async def load_history(session: ReadSession, keys: Sequence[HistoryKey], granularity: Granularity) -> list[History]:
    """The roll-ups from `since` on for each account: one statement for all. Months are sums of days."""
    since = min(key.since for key in keys)
    by_month = granularity is Granularity.MONTH
    bucket = UsageRollup.month if by_month else UsageRollup.start_at
    rows = await session.execute(
        select(UsageRollup.account_id, UsageRollup.metric_key, bucket.label("bucket"), func.sum(UsageRollup.quantity))
        .where(
            UsageRollup.account_id.in_({key.account_id for key in keys}),
            UsageRollup.granularity == (Granularity.DAY if by_month else granularity),
            UsageRollup.start_at >= since,
        )
        .group_by(UsageRollup.account_id, UsageRollup.metric_key, bucket)
    )
    found: dict[UUID, dict[tuple[str, datetime | date], int]] = defaultdict(dict)
    for account_id, metric_key, start, quantity in rows:
        found[account_id][metric_key, start] = int(quantity)
    return [History(found[key.account_id]) for key in keys]


@dataclass(frozen=True)
class UsagePoint:
    """One bucket of history: of a counter what was added in it, of a gauge the level at its end."""

    start: datetime
    end: datetime
    quantity: int


def list_buckets(account: BillingAccount, now: datetime, granularity: Granularity, last: int) -> Sequence[Period]:
    """The buckets that a history shows, oldest first."""
    return last_buckets(now, account.timezone, granularity, last)


def trace_history(
    figure: UsageFigure, history: History, buckets: Sequence[Period], zone: str, granularity: Granularity
) -> list[UsagePoint]:
    """The series of one metric. A gauge is walked back from its level now."""

    def change_in(bucket: Period) -> int:
        key = month_of(bucket.start, zone) if granularity is Granularity.MONTH else bucket.start
        return history.changes.get((figure.metric.key, key), 0)

    if figure.metric.kind is MetricKind.COUNTER:
        return [UsagePoint(bucket.start, bucket.end, change_in(bucket)) for bucket in buckets]
    level = figure.used
    points = []
    for bucket in reversed(buckets):
        points.append(UsagePoint(bucket.start, bucket.end, level))
        level -= change_in(bucket)
    return points[::-1]
