"""What a batch of usage needs to know of each account: read once before, moved in memory, written once after."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, func, select, tuple_

from ..database import ReadSession, Work, given_rows
from ..models import (
    GAUGE_PERIOD,
    BillingAccount,
    Budget,
    BudgetPeriod,
    Counter,
    EffectiveLimit,
    Granularity,
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
    SubscriptionStatus,
    UsageEvent,
    UsageEventId,
    UsagePeriod,
    UsageRating,
)
from .access import Principal, Right
from .calendars import period_of
from .plan_limits import Limits, load_free_limits
from .rules.headroom import BudgetRoom, BudgetTerms, Held, Use
from .rules.overage import UsageTerms, ceiling_of, choose_policy, is_sold, may_pass, policy_in_force
from .rules.periods import Period
from .rules.spending import spent_under
from .spends import foresee_lines, load_bases, load_to_come
from .usage import AHEAD, LATE, UsageInput, is_sound_id


class Moment(NamedTuple):
    """A place in a gauge's history. At one instant changes come before levels: any order of arrival gives the same."""

    at: datetime
    is_level: bool
    event_id: str


@dataclass
class Step:
    """What an event of a gauge moves it by."""

    id: UUID
    change: int
    occurred_at: datetime
    workspace: str
    is_new: bool
    was_changed: bool = False


@dataclass
class Figure:
    """The figure of an account's metric in one period, as this batch moves it."""

    period: Period | None
    terms: UsageTerms
    used: int = 0
    allowed: int = 0
    """What of it was accepted above the limit under `ALLOW`."""
    holds: dict[str, Held] = field(default_factory=dict[str, Held])
    """What open reservations hold of it, by workspace."""
    held: int = field(init=False)
    """The same in all."""
    changed: bool = False
    asked: bool = False
    """Whether something was refused that an approval would have let through."""
    moments: list[Moment] = field(default_factory=list[Moment])
    steps: dict[Moment, Step] = field(default_factory=dict[Moment, Step])

    def __post_init__(self) -> None:
        # Asked for by each event.
        self.held = sum(each.quantity for each in self.holds.values())

    @property
    def limit(self) -> int | None:
        """The limit that holds for it."""
        return self.terms.limit

    def use(self) -> Use:
        """What it costs, and what is held of it."""
        return Use(self.terms, self.used, self.allowed, self.holds)

    @property
    def ceiling(self) -> int | None:
        """What used and held together may not pass; none where nothing stops them."""
        return ceiling_of(self.terms)


CostKey = tuple[str, datetime, date, str]
"""Metric, the usage period's start, the local day, workspace."""
RollupKey = tuple[str, Granularity, datetime, str, date]
"""Metric, width, start, workspace, first day of the local month."""


@dataclass
class Tally:
    """One account, locked."""

    account: BillingAccount
    now: datetime
    subscription: Subscription | None = None
    tier: int | None = None
    limits: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    settings: dict[str, OveragePolicy] = field(default_factory=dict[str, OveragePolicy])
    approvals: dict[tuple[str, datetime], int | None] = field(default_factory=dict[tuple[str, datetime], "int | None"])
    """Approved blocks by metric and period; none for the rest of the period."""
    prices: dict[str, int] = field(default_factory=dict[str, int])
    """What a block of overage costs, by metric."""
    held: dict[tuple[str, datetime], dict[str, Held]] = field(
        default_factory=dict[tuple[str, datetime], dict[str, Held]]
    )
    known: dict[str, str] = field(default_factory=dict[str, str])
    """The content of events that were accepted before, by event id."""
    figures: dict[tuple[str, datetime], Figure] = field(default_factory=dict[tuple[str, datetime], Figure])
    ids: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    events: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    rollups: dict[RollupKey, int] = field(default_factory=lambda: defaultdict[RollupKey, int](int))
    periods: list[UsagePeriod] = field(default_factory=list[UsagePeriod])
    """The stored usage periods that still take events, oldest first."""
    ratings: dict[tuple[str, datetime], UsageRating] = field(default_factory=dict[tuple[str, datetime], UsageRating])
    """What closed periods are priced and limited by, by metric and start."""
    free_limits: Limits = field(default_factory=dict[str, "int | None"])
    rooms: list[BudgetRoom] = field(default_factory=list[BudgetRoom])
    """The account's budgets."""
    costs: dict[CostKey, int] = field(default_factory=lambda: defaultdict[CostKey, int](int))
    """What this batch costs, where that is not 0."""
    last_period: Period | None = None
    account_id: UUID = field(init=False)
    zone: str = field(init=False)
    is_closed: bool = field(init=False)

    def __post_init__(self) -> None:
        # Asked for by each event: a row's own attributes cost a multiple.
        self.account_id, self.zone = self.account.id, self.account.timezone
        self.is_closed = self.account.closed_at is not None

    @property
    def status(self) -> SubscriptionStatus | None:
        """How the subscription stands; none without one."""
        return self.subscription.status if self.subscription else None

    @property
    def has_late(self) -> bool:
        """Whether a closed period got more."""
        return any(
            figure.changed and figure.period is not None and figure.period.end <= self.now
            for figure in self.figures.values()
        )

    def period_of(self, instant: datetime) -> Period | None:
        """The usage period that contains an instant; none before the first."""
        last = self.last_period
        if last is None or not last.start <= instant < last.end:
            self.last_period = period_of(self.account, self.subscription, self.periods, instant)
        return self.last_period

    def figure_of(self, metric: Metric, period: Period | None) -> Figure:
        """The figure of a metric in a period; a gauge has no period."""
        key = (metric.key, period.start if period else GAUGE_PERIOD)
        figure = self.figures.get(key)
        if figure is None:
            figure = Figure(period=period, terms=self._terms_in(metric, period), holds=self.held.get(key, {}))
            self.figures[key] = figure
        return figure

    def _terms_in(self, metric: Metric, period: Period | None) -> UsageTerms:
        """What holds for usage of a period: a closed one keeps its own limit and price."""
        setting = self.settings.get(metric.key)
        key = (metric.key, period.start if period else GAUGE_PERIOD)
        rating = self.ratings.get(key)
        if rating is not None:
            policy = choose_policy(may_pass=rating.may_pass, is_sold=rating.block is not None, setting=setting)
            limit, block, price_minor = rating.limit_quantity, rating.block, rating.price_minor
        elif period is not None and self._is_without_subscription(period):
            policy, limit, block, price_minor = OveragePolicy.BLOCK, self.free_limits.get(metric.key, 0), None, 0
        else:
            price = self.prices.get(metric.key)
            policy = policy_in_force(metric, self.status, self.tier, price, setting)
            sells = may_pass(self.status, self.tier) and is_sold(metric, price)
            limit, block = self.limits.get(metric.key, 0), metric.overage_block if sells else None
            price_minor = (price or 0) if sells else 0
        return UsageTerms(
            limit=limit,
            policy=policy,
            block=block,
            price_minor=price_minor,
            approved=key in self.approvals,
            approved_blocks=self.approvals.get(key),
        )

    def uses_in(self, start: datetime) -> dict[str, Use]:
        """How the metrics of a usage period stand."""
        return {key: figure.use() for (key, begun), figure in self.figures.items() if begun == start}

    def _is_without_subscription(self, period: Period) -> bool:
        if period.end > self.now or self.subscription is None:
            return False  # what runs now has the limits that are in force
        is_known = any(row.start_at == period.start for row in self.periods)
        return not is_known and period.start < self.subscription.usage_period_start


@dataclass(frozen=True)
class Catalogue:
    """What is metered, and what a block of overage costs by currency and metric."""

    metrics: dict[str, Metric]
    prices: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Tallies:
    """The accounts of a batch, by both their names."""

    by_id: dict[UUID, Tally]
    by_external_id: dict[str, Tally]
    catalogue: Catalogue

    def find(self, account_id: UUID | None, external_id: str | None) -> Tally | None:
        """The account that is named; where both names are given they must mean the same one."""
        if account_id is None:
            return self.by_external_id.get(external_id or "")
        tally = self.by_id.get(account_id)
        return tally if tally and external_id in (None, tally.account.external_id) else None


async def _load_catalogue(work: Work) -> Catalogue:
    """The metrics with their prices: one statement."""
    metrics: dict[str, Metric] = {}
    prices: dict[str, dict[str, int]] = defaultdict(dict)
    for metric, currency, amount_minor in await work.session.execute(
        select(Metric, Price.currency, Price.amount_minor).outerjoin(
            Price, and_(Price.kind == PriceKind.OVERAGE, Price.subject == Metric.key)
        )
    ):
        metrics[metric.key] = metric
        if currency is not None:
            prices[currency][metric.key] = amount_minor
    return Catalogue(metrics, prices)


async def open_tallies(work: Work, principal: Principal, events: Sequence[UsageInput]) -> Tallies:
    """Lock the accounts of a batch in one order, and read what is to be known of them, in a few statements.

    The catalogue is read under the locks too: whoever changes a price has what was counted by then reckoned anew.
    """
    ids = {event.account_id for event in events if event.account_id is not None}
    external_ids = {
        event.external_id
        for event in events
        if event.external_id is not None and event.account_id is None and event.external_id.isprintable()
    }
    mine = principal.list_accounts(Right.INGEST_USAGE)
    accounts = await work.lock_accounts(ids, external_ids=external_ids, among=mine)
    earliest = min((work.clock.now_for(each) for each in accounts.values()), default=None)
    tallies = await _open(work, accounts, await _load_catalogue(work), earliest)
    if tallies.by_id:
        await _read(work, tallies, events)
    return tallies


async def _open(
    work: Work, accounts: dict[UUID, BillingAccount], catalogue: Catalogue, now: datetime | None
) -> Tallies:
    """The accounts with their subscriptions, and the stored usage periods that still take events, oldest first."""
    by_id = {account.id: Tally(account, work.clock.now_for(account)) for account in accounts.values()}
    if now is not None:
        rows = await work.session.execute(
            select(BillingAccount.id, Subscription, Plan.tier, UsagePeriod)
            .outerjoin(Subscription, Subscription.account_id == BillingAccount.id)
            .outerjoin(PlanVersion, PlanVersion.id == Subscription.plan_version_id)
            .outerjoin(Plan, Plan.id == PlanVersion.plan_id)
            .outerjoin(UsagePeriod, and_(UsagePeriod.account_id == BillingAccount.id, UsagePeriod.end_at >= now - LATE))
            .where(BillingAccount.id.in_(by_id))
            .order_by(UsagePeriod.start_at)
        )
        for account_id, subscription, tier, period in rows:
            tally = by_id[account_id]
            tally.subscription, tally.tier = subscription, tier
            if period is not None:
                tally.periods.append(period)
    return Tallies(by_id, {tally.account.external_id: tally for tally in by_id.values()}, catalogue)


@dataclass
class _Asked:
    """What a batch asks about, by account."""

    ids: dict[tuple[UUID, str], None] = field(default_factory=dict[tuple[UUID, str], None])
    """The events, in the order given."""
    starts: set[datetime] = field(default_factory=set[datetime])
    gauges: dict[tuple[UUID, str], datetime] = field(default_factory=dict[tuple[UUID, str], datetime])
    """The earliest event of each gauge."""
    running: dict[UUID, set[Period]] = field(default_factory=lambda: defaultdict[UUID, set[Period]](set))
    """The usage periods of counters that are not over."""
    is_late: bool = False


async def _read(work: Work, tallies: Tallies, events: Sequence[UsageInput]) -> None:
    metrics = tallies.catalogue.metrics
    oldest = min(tally.now for tally in tallies.by_id.values()) - LATE
    for tally in tallies.by_id.values():
        tally.prices = tallies.catalogue.prices.get(tally.account.currency, {})
    asked = _find_asked(tallies, metrics, events)
    await _read_terms(work, tallies)
    await _read_budgets(work, tallies, asked)
    if asked.is_late:
        await _read_closed(work, tallies, oldest)
    await _read_held(work, tallies)
    await _read_known(work, tallies, asked)
    await _read_counters(work, tallies, metrics, asked)
    if asked.gauges:
        await _read_gauge_history(work, tallies, metrics, asked.gauges)


def _find_asked(tallies: Tallies, metrics: dict[str, Metric], events: Sequence[UsageInput]) -> _Asked:
    asked = _Asked()
    for event in events:
        tally = tallies.find(event.account_id, event.external_id)
        metric = metrics.get(event.metric)
        if tally is None or metric is None or not is_sound_id(event.event_id):
            continue
        asked.ids[tally.account_id, event.event_id] = None
        at = event.occurred_at or tally.now
        period = None if at > tally.now + AHEAD else tally.period_of(at)
        if period is None or tally.now >= period.end + LATE:
            continue
        asked.is_late |= period.end <= tally.now
        if metric.kind is MetricKind.GAUGE:
            key = (tally.account.id, metric.key)
            asked.starts.add(GAUGE_PERIOD)
            asked.gauges[key] = min(at, asked.gauges.get(key, at))
        else:
            asked.starts.add(period.start)
            if tally.now < period.end:
                asked.running[tally.account_id].add(period)
    return asked


async def _read_closed(work: Work, tallies: Tallies, oldest: datetime) -> None:
    for rating in await work.session.scalars(
        select(UsageRating).where(UsageRating.account_id.in_(tallies.by_id), UsageRating.period_end >= oldest)
    ):
        tallies.by_id[rating.account_id].ratings[rating.metric_key, rating.period_start] = rating
    free = await load_free_limits(ReadSession(work.session))
    for tally in tallies.by_id.values():
        tally.free_limits = free


async def _read_terms(work: Work, tallies: Tallies) -> None:
    """The limits in force, and what the account chose for what passes them."""
    asks = set()
    for account_id, metric_key, quantity, policy in await work.session.execute(
        select(EffectiveLimit.account_id, EffectiveLimit.metric_key, EffectiveLimit.quantity, OverageSetting.policy)
        .outerjoin(
            OverageSetting,
            and_(
                OverageSetting.account_id == EffectiveLimit.account_id,
                OverageSetting.metric_key == EffectiveLimit.metric_key,
            ),
        )
        .where(EffectiveLimit.account_id.in_(tallies.by_id))
    ):
        tally = tallies.by_id[account_id]
        tally.limits[metric_key] = quantity
        if policy is not None:
            tally.settings[metric_key] = policy
        if policy is OveragePolicy.ASK:
            asks.add(account_id)
    if asks:
        for approval in await work.session.scalars(select(OverageApproval).where(OverageApproval.account_id.in_(asks))):
            key = (approval.metric_key, approval.period_start)
            tallies.by_id[approval.account_id].approvals[key] = approval.blocks


async def _read_held(work: Work, tallies: Tallies) -> None:
    now = min(tally.now for tally in tallies.by_id.values())
    of = (
        Reservation.account_id,
        Reservation.metric_key,
        Reservation.period_start,
        Reservation.workspace,
        Reservation.expires_at,
    )
    for account_id, metric_key, start, workspace, expires_at, quantity, count in await work.session.execute(
        select(*of, func.sum(Reservation.quantity), func.count())
        .where(
            Reservation.account_id.in_(tallies.by_id),
            Reservation.status == ReservationStatus.HELD,
            Reservation.expires_at > now,
        )
        .group_by(*of)
    ):
        tally = tallies.by_id[account_id]
        if expires_at > tally.now:  # accounts on test clocks have times of their own
            holds = tally.held.setdefault((metric_key, start), {})
            held = holds.get(workspace, Held(0, 0))
            holds[workspace] = Held(held.quantity + int(quantity), held.reservations + count)


async def _read_budgets(work: Work, tallies: Tallies, asked: _Asked) -> None:
    """The budgets of the accounts with what is spent of them, in the usage periods that usage may still come for."""
    for account_id, rooms in (await _read_rooms(work, tallies)).items():
        tallies.by_id[account_id].rooms = rooms
    missing: dict[UUID, list[Period]] = defaultdict(list)
    for account_id, running in asked.running.items():
        rooms = tallies.by_id[account_id].rooms
        for period in running:
            if any(period.start not in room.spent for room in rooms):
                missing[account_id].append(period)
    if missing:
        await _foresee_spend(work, tallies, missing)


async def _foresee_spend(work: Work, tallies: Tallies, missing: Mapping[UUID, Sequence[Period]]) -> None:
    """What will be spent in usage periods that are not opened yet: the worker may be behind, or usage a moment ahead.

    Nothing is written for it but what usage moves. Five statements for all.
    """
    session, ids = ReadSession(work.session), list(missing)
    bases = await load_bases(session, ids, {each.start for periods in missing.values() for each in periods})
    to_come = await load_to_come(session, ids)
    for account_id, periods in missing.items():
        tally = tallies.by_id[account_id]
        for period in periods:
            lines = foresee_lines(tally.subscription, to_come[account_id], period)
            parts, costs = bases[account_id].parts_in(period.start, lines), bases[account_id].costs_in(period.start)
            for room in tally.rooms:
                if period.start not in room.spent:
                    budget = room.budget
                    room.spent[period.start] = spent_under(budget.scope, budget.subject, parts, costs)
                    room.limits[period.start], room.ends[period.start] = budget.limit_minor, period.end


async def _read_rooms(work: Work, tallies: Tallies) -> dict[UUID, list[BudgetRoom]]:
    since = min(tally.now for tally in tallies.by_id.values()) - LATE
    found: dict[UUID, dict[UUID, BudgetRoom]] = defaultdict(dict)
    of = (Budget.id, Budget.scope, Budget.subject, Budget.action, Budget.thresholds, Budget.limit_minor)
    for account_id, *terms, start, end, limit_minor, spent_minor, blocked_at in await work.session.execute(
        select(
            Budget.account_id,
            *of,
            BudgetPeriod.period_start,
            BudgetPeriod.period_end,
            BudgetPeriod.limit_minor,
            BudgetPeriod.spent_minor,
            BudgetPeriod.blocked_at,
        )
        .outerjoin(BudgetPeriod, and_(BudgetPeriod.budget_id == Budget.id, BudgetPeriod.period_end > since))
        .where(Budget.account_id.in_(tallies.by_id))
        .order_by(Budget.created_at, Budget.id)
    ):
        budget = BudgetTerms(*terms)
        by_id = found[account_id]
        if budget.id not in by_id:
            by_id[budget.id] = BudgetRoom(budget)
        room = by_id[budget.id]
        if start is not None:
            room.spent[start], room.limits[start], room.ends[start] = spent_minor, limit_minor, end
            if blocked_at is not None:
                room.blocked.add(start)
    return {account_id: list(by_id.values()) for account_id, by_id in found.items()}


async def _read_known(work: Work, tallies: Tallies, asked: _Asked) -> None:
    if not asked.ids:
        return
    given = given_rows(
        work.session,
        account_id=(UsageEventId.account_id.type, [account_id for account_id, _ in asked.ids]),
        event_id=(UsageEventId.event_id.type, [event_id for _, event_id in asked.ids]),
    )
    for account_id, event_id, content_hash in await work.session.execute(
        select(UsageEventId.account_id, UsageEventId.event_id, UsageEventId.content_hash).join(
            given, and_(UsageEventId.account_id == given.c.account_id, UsageEventId.event_id == given.c.event_id)
        )
    ):
        tallies.by_id[account_id].known[event_id] = content_hash


async def _read_counters(work: Work, tallies: Tallies, metrics: dict[str, Metric], asked: _Asked) -> None:
    for account_id, metric_key, start, end, used, allowed in await work.session.execute(
        select(
            Counter.account_id,
            Counter.metric_key,
            Counter.period_start,
            Counter.period_end,
            Counter.used,
            Counter.allowed,
        ).where(Counter.account_id.in_(tallies.by_id), Counter.period_start.in_(asked.starts))
    ):
        figure = tallies.by_id[account_id].figure_of(metrics[metric_key], None if end is None else Period(start, end))
        figure.used, figure.allowed = used, allowed


async def _read_gauge_history(
    work: Work, tallies: Tallies, metrics: dict[str, Metric], earliest: dict[tuple[UUID, str], datetime]
) -> None:
    """The steps of each gauge from the earliest event on: what comes late finds its place among them."""
    for row in await work.session.execute(
        select(
            UsageEvent.id,
            UsageEvent.account_id,
            UsageEvent.metric_key,
            UsageEvent.event_id,
            UsageEvent.level,
            UsageEvent.change,
            UsageEvent.occurred_at,
            UsageEvent.workspace,
        )
        .where(
            tuple_(UsageEvent.account_id, UsageEvent.metric_key).in_(earliest),
            UsageEvent.occurred_at >= min(earliest.values()),
        )
        .order_by(UsageEvent.occurred_at)
    ):
        since = earliest.get((row.account_id, row.metric_key))
        if since is None or row.occurred_at < since:
            continue
        figure = tallies.by_id[row.account_id].figure_of(metrics[row.metric_key], None)
        moment = Moment(row.occurred_at, row.level is not None, row.event_id)
        figure.moments.append(moment)
        figure.steps[moment] = Step(row.id, row.change, row.occurred_at, row.workspace, is_new=False)
    for tally in tallies.by_id.values():
        for figure in tally.figures.values():
            figure.moments.sort()
