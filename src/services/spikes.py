"""Unusual days of usage: looked for where counters moved, told once a day and metric with what caused them.

A day counts in the account's zone. It is looked at while it runs and for `STAYS` after, so that late usage counts too;
then its alert is resolved. Only counters are looked at: what a gauge grows by says little of what it holds.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from ..database import Actor, Database, ReadSession, Work
from ..models import (
    Alert,
    AlertKind,
    AlertLevel,
    BillingAccount,
    Counter,
    Granularity,
    Metric,
    NoticeSeverity,
    SpikeCauseKind,
    Subscription,
    UsageEvent,
    UsageRollup,
)
from .alerts import find_ended
from .banners import Subject, settle_banners
from .notices import Said
from .rules.periods import Period, last_buckets, to_instant
from .rules.spikes import WEEKS, Growth, is_unusual, median_of, pick_causes
from .rules.transitions import RUNNING

STAYS = timedelta(days=1)
"""So long after its end a day is still looked at, and its alert stays open."""
BATCH = 200
"""So many counters are looked at together."""
CAUSED_AT_ONCE = 10
"""Of so many unusual days the causes are read together."""
MAX_CAUSES = 3
"""Of each kind."""
USUAL_DAYS = 4
"""With so many days of the same weekday the events of an unusual one are compared."""
MAX_EVENTS_PER_DAY = 20_000
"""Of each of these days the latest so many events are read, 100,000 in all."""
MAX_WORKSPACES = 1_000
"""Of each day the workspaces that have most."""
CANDIDATES = 50
"""So many properties of a day, the largest, are compared with usual days."""
HALF_A_DAY = timedelta(hours=12)


class Place(NamedTuple):
    """A counter that moved, and its place in the order in which they are looked at."""

    account_id: UUID
    metric_key: str
    period_start: datetime
    sequence: int


@dataclass(frozen=True)
class Spike:
    """An unusual day."""

    account: BillingAccount
    metric_key: str
    day: date
    period: Period
    quantity: int
    usual: int
    """The median of the weekday."""
    weekdays: Sequence[date]
    """What it is compared with, the latest first."""
    causes: Sequence[Mapping[str, Any]] = ()

    @property
    def key(self) -> tuple[UUID, str, datetime]:
        """What tells it from others."""
        return (self.account.id, self.metric_key, self.period.start)

    @property
    def excess(self) -> int:
        """By how much it lies above the usual."""
        return self.quantity - self.usual


Days = Mapping[date, int]
"""What was used, by day; a day without any is not in it."""


async def look_further(
    database: Database, actor: Actor, after: Place | None = None, *, test_clock_id: UUID | None = None
) -> Place | None:
    """Look at some counters that moved since the last look, and tell of unusual days; none where no more did.

    Of the accounts on the wall clock, or on one test clock. All is read first and without locks; what moves
    meanwhile is looked at again. The same few statements for one counter and for `BATCH`, and a few for each
    `CAUSED_AT_ONCE` unusual days.
    """
    async with database.read() as session:
        moved = await _read_moved(session, after, test_clock_id)
        if not moved:
            return None
        spikes = await _find_spikes(session, database, moved)
        known = await _read_known(session, spikes)
        spikes = [spike for spike in spikes if spike.key not in known]
        told: list[Spike] = []
        for first in range(0, len(spikes), CAUSED_AT_ONCE):
            part = spikes[first : first + CAUSED_AT_ONCE]
            told += await _find_causes(session, part, is_sqlite=database.is_sqlite)
    await database.run(actor, _note, moved, told)
    return moved[-1]


async def look_at_all(database: Database, actor: Actor, *, test_clock_id: UUID | None = None) -> int:
    """Look at all counters that moved since the last look. Gives in how many batches."""
    batches, after = 0, None
    while after := await look_further(database, actor, after, test_clock_id=test_clock_id):
        batches += 1
    return batches


def _is_watched() -> ColumnElement[bool]:
    return and_(
        BillingAccount.spike_alerts,
        BillingAccount.closed_at.is_(None),
        or_(Subscription.id.is_(None), Subscription.status.in_(list(RUNNING))),
    )


async def _read_moved(session: ReadSession, after: Place | None, test_clock_id: UUID | None) -> Sequence[Place]:
    place = tuple_(Counter.account_id, Counter.metric_key, Counter.period_start)
    statement = (
        select(Counter.account_id, Counter.metric_key, Counter.period_start, Counter.sequence)
        .join(BillingAccount, BillingAccount.id == Counter.account_id)
        .outerjoin(Subscription, Subscription.account_id == Counter.account_id)
        .where(Counter.has_moved, _is_watched(), BillingAccount.test_clock_id == test_clock_id)
        .order_by(Counter.account_id, Counter.metric_key, Counter.period_start)
        .limit(BATCH)
    )
    if after is not None:
        statement = statement.where(place > after[:3])
    return [Place(*row) for row in await session.execute(statement)]


async def _find_spikes(session: ReadSession, database: Database, moved: Sequence[Place]) -> list[Spike]:
    """The unusual days among those that are still looked at, of counters that moved."""
    ids = {place.account_id for place in moved}
    rows = await session.scalars(
        select(BillingAccount).options(joinedload(BillingAccount.test_clock)).where(BillingAccount.id.in_(ids))
    )
    accounts = {account.id: account for account in rows}
    since = min(database.clock.now_for(account) for account in accounts.values()) - timedelta(weeks=WEEKS, days=3)
    used = await _read_days(session, accounts, {place.metric_key for place in moved}, since)
    found: list[Spike] = []
    for account_id, metric_key in sorted({place[:2] for place in moved}):
        account = accounts[account_id]
        now = database.clock.now_for(account)
        days = used[account_id, metric_key]
        for period in last_buckets(now, account.timezone, Granularity.DAY, 2):
            if period.end + STAYS > now:
                found += _judge(account, metric_key, period, days)
    return found


def _judge(account: BillingAccount, metric_key: str, period: Period, days: Days) -> list[Spike]:
    """Whether a day is unusual. Days before the first with usage tell nothing; later ones without any had 0."""
    day = _date_of(period.start, account.timezone)
    earlier = [each for each in days if each < day]
    if not earlier:
        return []
    first = max(min(earlier), day - timedelta(weeks=WEEKS))
    weekdays = [each for week in range(1, WEEKS + 1) if (each := day - timedelta(weeks=week)) >= first]
    quantity, figures = days.get(day, 0), [days.get(each, 0) for each in weekdays]
    if not is_unusual(quantity, figures, [days[each] for each in earlier if each >= first]):
        return []
    return [Spike(account, metric_key, day, period, quantity, max(0, median_of(figures)), weekdays)]


def _date_of(start: datetime, zone: str) -> date:
    """The day that a roll-up is of: the one that holds most of it, where it was made under a former zone."""
    return (start + HALF_A_DAY).astimezone(ZoneInfo(zone)).date()


async def _read_days(
    session: ReadSession, accounts: Mapping[UUID, BillingAccount], metric_keys: Collection[str], since: datetime
) -> Mapping[tuple[UUID, str], Days]:
    rows = await session.execute(
        select(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.start_at, func.sum(UsageRollup.quantity))
        .where(
            UsageRollup.account_id.in_(accounts),
            UsageRollup.metric_key.in_(metric_keys),
            UsageRollup.granularity == Granularity.DAY,
            UsageRollup.start_at >= since,
        )
        .group_by(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.start_at)
    )
    found: dict[tuple[UUID, str], dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for account_id, metric_key, start, quantity in rows:
        found[account_id, metric_key][_date_of(start, accounts[account_id].timezone)] += int(quantity)
    return found


async def _read_known(session: AsyncSession, spikes: Sequence[Spike]) -> set[tuple[UUID, str, datetime]]:
    """Which of these days were told of before."""
    if not spikes:
        return set()
    rows = await session.execute(
        select(Alert.account_id, Alert.subject, Alert.period_start).where(
            Alert.kind == AlertKind.SPIKE,
            tuple_(Alert.account_id, Alert.subject, Alert.period_start).in_([spike.key for spike in spikes]),
        )
    )
    return {(account_id, metric_key, start) for account_id, metric_key, start in rows}


# --- what caused it --------------------------------------------------------------------------------------------------


Parts = Mapping[int, Mapping[str, Mapping[int, int]]]
"""Of each spike, by its place, what its parts have by name on its day (0) and on the days that it is compared with."""


async def _find_causes(session: ReadSession, spikes: Sequence[Spike], *, is_sqlite: bool) -> list[Spike]:
    """The same days with who and what grew most: three statements."""
    sample = _sample_events(spikes)
    senders = _add_up(
        await session.execute(
            select(sample.c.spike, sample.c.day, sample.c.sent_by, func.sum(sample.c.change)).group_by(
                sample.c.spike, sample.c.day, sample.c.sent_by
            )
        )
    )
    properties = _add_up(await session.execute(_select_properties(sample, is_sqlite=is_sqlite)))
    workspaces = _add_up(await session.execute(_select_workspaces(spikes)))
    found = []
    for place, spike in enumerate(spikes):
        compared = min(USUAL_DAYS, len(spike.weekdays))
        causes = [
            {"kind": kind, "name": part.name, "quantity": part.quantity, "usual": part.usual}
            for kind, parts, days in (
                (SpikeCauseKind.WORKSPACE, workspaces, len(spike.weekdays)),
                (SpikeCauseKind.API_KEY, senders, compared),
                (SpikeCauseKind.PROPERTY, properties, compared),
            )
            for part in pick_causes(_compare(parts.get(place, {}), days), spike.excess, MAX_CAUSES)
        ]
        found.append(replace(spike, causes=causes))
    return found


def _compare(parts: Mapping[str, Mapping[int, int]], count: int) -> list[Growth]:
    """Each part with its median over the days compared with. What has no name, such as no workspace, is none."""
    return [
        Growth(name, by_day.get(0, 0), max(0, median_of([by_day.get(day, 0) for day in range(1, count + 1)])))
        for name, by_day in parts.items()
        if name
    ]


def _add_up(rows: Any) -> Parts:
    found: dict[int, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
    for place, day, name, quantity in rows:
        found[place][name][day] += int(quantity)
    return found


def _period_of(day: date, zone: str) -> Period:
    start, end = (datetime.combine(each, time()) for each in (day, day + timedelta(days=1)))
    return Period(to_instant(start, zone), to_instant(end, zone))


def _sample_events(spikes: Sequence[Spike]) -> FromClause:
    """The events of each day and of the days that it is compared with, the latest of each."""
    parts: list[Select[*tuple[Any, ...]]] = []
    for place, spike in enumerate(spikes):
        for number, day in enumerate([spike.day, *spike.weekdays[:USUAL_DAYS]]):
            period = _period_of(day, spike.account.timezone)
            latest = (
                select(
                    literal(place).label("spike"),
                    literal(number).label("day"),
                    UsageEvent.sent_by,
                    UsageEvent.properties,
                    UsageEvent.change,
                )
                .where(
                    UsageEvent.account_id == spike.account.id,
                    UsageEvent.metric_key == spike.metric_key,
                    UsageEvent.occurred_at >= period.start,
                    UsageEvent.occurred_at < period.end,
                )
                .order_by(UsageEvent.occurred_at.desc())
                .limit(MAX_EVENTS_PER_DAY)
                .subquery()
            )
            parts.append(select(latest))
    return union_all(*parts).cte("sample")


def _select_properties(sample: FromClause, *, is_sqlite: bool) -> Select[*tuple[Any, ...]]:
    """What each `key=value` has by day: of those that have most on the day itself. Workspaces are told apart."""
    if is_sqlite:
        each = func.json_each(sample.c.properties).table_valued("key", "value", "type", name="each")
        # It gives truth values as numbers.
        value: ColumnElement[str] = case(
            (each.c.type.in_(("true", "false")), each.c.type), else_=cast(each.c.value, Text)
        )
    else:
        each = func.jsonb_each_text(sample.c.properties).table_valued("key", "value", name="each")
        value = each.c.value
    name = (each.c.key + "=" + value).label("name")
    grouped = (
        select(sample.c.spike, sample.c.day, name, func.sum(sample.c.change).label("quantity"))
        .select_from(sample.join(each, literal(True)))
        .where(each.c.key != "workspace")
        .group_by(sample.c.spike, sample.c.day, name)
        .cte("grouped")
    )
    rank = func.row_number().over(partition_by=grouped.c.spike, order_by=(grouped.c.quantity.desc(), grouped.c.name))
    ranked = select(grouped.c.spike, grouped.c.name, rank.label("rank")).where(grouped.c.day == 0).subquery()
    return select(grouped.c.spike, grouped.c.day, grouped.c.name, grouped.c.quantity).join(
        ranked,
        and_(ranked.c.spike == grouped.c.spike, ranked.c.name == grouped.c.name, ranked.c.rank <= CANDIDATES),
    )


def _select_workspaces(spikes: Sequence[Spike]) -> Select[*tuple[Any, ...]]:
    """What workspaces have by day, out of the roll-ups: those that have most on each day."""
    parts: list[Select[*tuple[Any, ...]]] = []
    for place, spike in enumerate(spikes):
        for number, day in enumerate([spike.day, *spike.weekdays]):
            start = _period_of(day, spike.account.timezone).start
            largest = (
                select(
                    literal(place).label("spike"),
                    literal(number).label("day"),
                    UsageRollup.workspace,
                    UsageRollup.quantity,
                )
                .where(
                    UsageRollup.account_id == spike.account.id,
                    UsageRollup.metric_key == spike.metric_key,
                    UsageRollup.granularity == Granularity.DAY,
                    UsageRollup.start_at >= start - HALF_A_DAY,
                    UsageRollup.start_at < start + HALF_A_DAY,
                )
                .order_by(UsageRollup.quantity.desc())
                .limit(MAX_WORKSPACES)
                .subquery()
            )
            parts.append(select(largest))
    of = union_all(*parts).subquery()
    return select(of)


# --- telling ---------------------------------------------------------------------------------------------------------


async def _note(work: Work, moved: Sequence[Place], spikes: Sequence[Spike]) -> None:
    """Raise what was not told yet, and remember what was looked at: what moved since it was read is looked at again."""
    accounts = await work.lock_accounts({place.account_id for place in moved})
    await work.session.execute(
        update(Counter)
        .where(tuple_(Counter.account_id, Counter.metric_key, Counter.period_start, Counter.sequence).in_(moved))
        .values(has_moved=False)
        .execution_options(synchronize_session=False)
    )
    if not spikes:
        return
    # Another may have told of them since they were read, or the account wants, or may have, none any more.
    known = await _read_known(work.session, spikes)
    watched = set(
        await work.session.scalars(
            select(BillingAccount.id)
            .outerjoin(Subscription, Subscription.account_id == BillingAccount.id)
            .where(BillingAccount.id.in_({spike.account.id for spike in spikes}), _is_watched())
        )
    )
    raised = [spike for spike in spikes if spike.key not in known and spike.account.id in watched]
    for spike in raised:
        _raise(work, accounts[spike.account.id], spike)
    await work.session.flush()
    await _put_banners(work, accounts, {_about(spike.account.id, spike.metric_key) for spike in raised})


def _raise(work: Work, account: BillingAccount, spike: Spike) -> None:
    now = work.clock.now_for(account)
    day = spike.day.isoformat()
    alert = Alert(
        created_at=now,
        account_id=account.id,
        kind=AlertKind.SPIKE,
        subject=spike.metric_key,
        threshold=0,
        level=AlertLevel.WARNING,
        period_start=spike.period.start,
        period_end=spike.period.end,
        episode=1,
        used=spike.quantity,
        ceiling=spike.usual,
        sequence=0,
        raised_at=now,
        spike={"day": day, "causes": list(spike.causes)},
    )
    alert.sequence = work.emit(
        account,
        "usage.alert_raised",
        {
            "alertId": str(alert.id),
            "kind": alert.kind,
            "metric": alert.subject,
            "level": alert.level,
            "day": day,
            "used": alert.used,
            "expected": alert.ceiling,
        },
    )
    work.session.add(alert)


def _about(account_id: UUID, metric_key: str) -> Subject:
    return Subject(account_id, AlertKind.SPIKE, metric_key)


async def _put_banners(work: Work, accounts: Mapping[UUID, BillingAccount], subjects: Collection[Subject]) -> None:
    """Put the banners of metrics of locked accounts right: each speaks of the latest unusual day that is open."""
    if not subjects:
        return
    keys = [(subject.account_id, subject.subject) for subject in sorted(subjects)]
    latest: dict[Subject, Said] = {}
    rows = await work.session.execute(
        select(Alert.account_id, Alert.subject, Alert.used, Alert.ceiling, Alert.spike, Metric.name)
        .join(Metric, Metric.key == Alert.subject)
        .where(
            Alert.kind == AlertKind.SPIKE,
            Alert.resolved_at.is_(None),
            tuple_(Alert.account_id, Alert.subject).in_(keys),
        )
        .order_by(Alert.period_start)
    )
    for account_id, metric_key, used, usual, spike, name in rows:
        latest[_about(account_id, metric_key)] = Said(
            severity=NoticeSeverity.WARNING,
            dismissible=True,
            params={
                "metric": metric_key,
                "metricName": name,
                "day": spike["day"],
                "used": used,
                "expected": usual,
                "causes": spike["causes"],
            },
        )
    await settle_banners(work, accounts, subjects, latest, lambda now, then: now["day"] > then["day"])


# --- being over ------------------------------------------------------------------------------------------------------


async def find_over(database: Database) -> Sequence[UUID]:
    """Accounts on the wall clock with open alerts of days that are over for long enough: due work."""
    return await find_ended(database, (AlertKind.SPIKE,), STAYS)


async def resolve_over(work: Work, accounts: Collection[BillingAccount]) -> None:
    """Resolve the open alerts of locked accounts whose days are over for long enough."""
    await _resolve(
        work,
        accounts,
        lambda account, end: end <= work.clock.now_for(account) - STAYS,
    )


async def resolve_spikes(work: Work, account: BillingAccount) -> None:
    """Resolve all that is open of a locked account, and look no more: it is off, or the subscription is over."""
    await work.session.execute(
        update(Counter)
        .where(Counter.account_id == account.id, Counter.has_moved)
        .values(has_moved=False)
        .execution_options(synchronize_session=False)
    )
    await _resolve(work, [account], lambda *_: True)


async def look_again(work: Work, account: BillingAccount) -> None:
    """Have the running counters of a locked account looked at: what came while it was off counts too."""
    await work.session.execute(
        update(Counter)
        .where(Counter.account_id == account.id, Counter.period_end > work.clock.now_for(account))
        .values(has_moved=True)
        .execution_options(synchronize_session=False)
    )


async def _resolve(
    work: Work, accounts: Collection[BillingAccount], is_over: Callable[[BillingAccount, datetime], bool]
) -> None:
    by_id = {account.id: account for account in accounts}
    rows = await work.session.scalars(
        select(Alert)
        .where(Alert.account_id.in_(by_id), Alert.kind == AlertKind.SPIKE, Alert.resolved_at.is_(None))
        .order_by(Alert.sequence)
    )
    moved: set[Subject] = set()
    for alert in rows:
        account = by_id[alert.account_id]
        assert alert.period_end is not None, "a day ends"
        if is_over(account, alert.period_end):
            alert.resolved_at = alert.updated_at = work.clock.now_for(account)
            work.emit(
                account,
                "usage.alert_resolved",
                {"alertId": str(alert.id), "kind": alert.kind, "metric": alert.subject, "day": alert.spike["day"]},
            )
            moved.add(_about(account.id, alert.subject))
    if moved:
        await work.session.flush()
        await _put_banners(work, by_id, moved)
