"""Usage events in: each is counted once, under its account's lock. The same few statements for 1 and for 1,000."""

import hashlib
from bisect import bisect_right, insort
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import update

from ..database import Work
from ..faults import reach
from ..models import (
    BillingAccount,
    Counter,
    Granularity,
    Metric,
    MetricKind,
    OveragePolicy,
    SubscriptionStatus,
    UsageEvent,
    UsageEventId,
    UsageRollup,
)
from ..models.types import new_id
from . import alerts
from .access import Principal, Right
from .budget_periods import SpendMove, act_on_spend, move_periods
from .costs import add_costs
from .errors import InvalidInput
from .rules.headroom import Held, Use, find_spent
from .rules.money import MAX_AMOUNT_MINOR
from .rules.overage import allowed_after, blocks_of, cost_of, excess_over
from .rules.periods import Period, buckets_of
from .tallies import Figure, Moment, Step, Tallies, Tally, open_tallies
from .texts import name_budget
from .usage import (
    AHEAD,
    LATE,
    MAX_EVENT_ID_LENGTH,
    MAX_EVENTS,
    MAX_FIGURE,
    MAX_PROPERTIES,
    MAX_PROPERTY_LENGTH,
    MAX_QUANTITY,
    RESERVED_IDS,
    EventResult,
    EventStatus,
    RejectionCode,
    UsageInput,
    is_sound_id,
)

SILENT = frozenset({SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED})
"""States in which no alert is raised."""


class Rejected(Exception):
    """An event that is not taken, and where the figure stands that it would have moved."""

    def __init__(
        self, code: RejectionCode, message: str, figure: Figure | None = None, budget_id: UUID | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.figure = figure
        self.budget_id = budget_id


@dataclass(frozen=True)
class Asking:
    """That usage was refused for want of an approval."""

    account_id: UUID
    metric_key: str
    metric_name: str
    period: Period
    limit: int


@dataclass(frozen=True)
class Blocking:
    """That usage was refused for want of money, for the first time in a usage period and under one limit."""

    account_id: UUID
    budget_id: UUID
    period_start: datetime


@dataclass(frozen=True)
class Taken:
    """What became of a batch."""

    results: list[EventResult]
    late: list[BillingAccount]
    """The accounts of which a closed period got more."""
    asking: list[Asking]
    blocking: list[Blocking]


async def take_events(
    work: Work,
    principal: Principal,
    events: Sequence[UsageInput],
    *,
    dry_run: bool = False,
    promised: int = 0,
) -> Taken:
    """Take a batch of events: each gets a result in the order given, and one bad event never loses the batch.

    Event, counter, roll-ups, alerts and outbox rows are one write, under the locks of the accounts' rows.
    With `dry_run` everything is decided and nothing written. The first `promised` events were reserved before: no
    limit stops them.
    """
    if not events:
        raise InvalidInput("Send at least one event.", ["input", "events"])
    if len(events) > MAX_EVENTS:
        raise InvalidInput(
            f"A batch holds at most {MAX_EVENTS} events, this one has {len(events)}: send several.", ["input", "events"]
        )
    tallies = await open_tallies(work, principal, events)
    metrics = tallies.catalogue.metrics
    results = _decide(tallies, principal, metrics, events, promised)
    if not dry_run:
        await _write(work, tallies.by_id.values(), metrics)
    return Taken(
        results,
        late=[tally.account for tally in tallies.by_id.values() if tally.has_late],
        asking=[asking for tally in tallies.by_id.values() for asking in list_asking(tally, metrics)],
        blocking=[blocking for tally in tallies.by_id.values() for blocking in list_blocking(tally)],
    )


def workspace_of(properties: dict[str, Any]) -> str:
    """The workspace that properties name; empty where they name none."""
    return str(properties.get("workspace", ""))


def list_asking(tally: Tally, metrics: dict[str, Metric]) -> list[Asking]:
    """What of an account was refused for want of an approval in the running period."""
    return [
        Asking(tally.account.id, metric_key, metrics[metric_key].name, figure.period, figure.limit)
        for (metric_key, _), figure in tally.figures.items()
        if figure.asked and figure.period is not None and figure.limit is not None and tally.now < figure.period.end
    ]


def list_blocking(tally: Tally) -> list[Blocking]:
    """The budgets of an account that stopped something, and did not before."""
    return [
        Blocking(tally.account_id, room.budget.id, start)
        for room in tally.rooms
        for start in sorted(room.refused - room.blocked)
    ]


def _decide(
    tallies: Tallies,
    principal: Principal,
    metrics: dict[str, Metric],
    events: Sequence[UsageInput],
    promised: int,
) -> list[EventResult]:
    results = []
    for index, event in enumerate(events):
        tally = tallies.find(event.account_id, event.external_id)
        try:
            results.append(_take(index, event, principal, metrics, tally, is_promised=index < promised))
        except Rejected as rejection:
            figure = rejection.figure
            results.append(
                EventResult(
                    index=index,
                    event_id=event.event_id,
                    status=EventStatus.REJECTED,
                    code=rejection.code,
                    message=str(rejection),
                    used=figure.used if figure else None,
                    limit=figure.limit if figure else None,
                    budget_id=rejection.budget_id,
                )
            )
    return results


def _take(
    index: int,
    event: UsageInput,
    principal: Principal,
    metrics: dict[str, Metric],
    tally: Tally | None,
    *,
    is_promised: bool,
) -> EventResult:
    if tally is None:
        named = event.account_id is not None or event.external_id is not None
        raise Rejected(
            RejectionCode.UNKNOWN_ACCOUNT,
            "You have no account of that id: check it, and that the key is for it."
            if named
            else "Name the account by `accountId` or `externalId`.",
        )
    check_shape(event.event_id, event.properties, is_ours=is_promised)
    metric = find_metric(metrics, event.metric)
    is_gauge = metric.kind is MetricKind.GAUGE
    at = tally.now if event.occurred_at is None else event.occurred_at.astimezone(UTC)
    content_hash = hash_content(event, None if event.occurred_at is None else at)
    known = tally.known.get(event.event_id)
    if known is not None:
        if known != content_hash:
            raise Rejected(
                RejectionCode.CONFLICT, "An event with this `eventId` and other content was accepted before."
            )
        return EventResult(index=index, event_id=event.event_id, status=EventStatus.DUPLICATE)
    _check_quantity(event, metric, principal, tally.account_id)
    period = check_moment(tally, at)
    # Somebody who wants to come back on a smaller plan must be able to reduce what is in use.
    only_lower = is_canceled(tally, at)
    if only_lower and (not is_gauge or not principal.may(Right.CORRECT_USAGE, tally.account_id)):
        raise canceled()
    workspace = workspace_of(event.properties)
    row_id = new_id()
    figure = tally.figure_of(metric, None if is_gauge else period)
    if is_gauge:
        change = _move_gauge(
            tally, metric, figure, event, at, workspace, row_id, only_lower=only_lower, is_promised=is_promised
        )
    else:
        assert event.quantity is not None, "checked"
        change = event.quantity
        if not is_promised:
            check_room(figure, change, metric)
            check_budgets(tally, metric, figure, workspace, used=change)
        _spend(tally, metric, figure, at, workspace, _move(figure, change))
        _add_rollups(tally, event.metric, at, workspace, change)
    figure.changed = True
    account_id = tally.account_id
    tally.known[event.event_id] = content_hash
    tally.ids.append((account_id, event.event_id, content_hash, tally.now))
    tally.events.append(
        (
            row_id,
            account_id,
            event.event_id,
            event.metric,
            event.quantity,
            event.level,
            change,
            at,
            tally.now,
            period.start,
            workspace,
            event.properties,
            principal.id,
        )
    )
    return EventResult(
        index=index, event_id=event.event_id, status=EventStatus.ACCEPTED, used=figure.used, limit=figure.limit
    )


ID_COLUMNS = ("account_id", "event_id", "content_hash", "accepted_at")
EVENT_COLUMNS = (
    "id",
    "account_id",
    "event_id",
    "metric_key",
    "quantity",
    "level",
    "change",
    "occurred_at",
    "accepted_at",
    "period_start",
    "workspace",
    "properties",
    "sent_by",
)
CHANGE = EVENT_COLUMNS.index("change")


# --- whether ---------------------------------------------------------------------------------------------------------


def find_metric(metrics: dict[str, Metric], key: str) -> Metric:
    """The metric of a key."""
    metric = metrics.get(key)
    if metric is None:
        raise Rejected(
            RejectionCode.UNKNOWN_METRIC, f"There is no metric {key[:64]!r}: known are {', '.join(sorted(metrics))}."
        )
    return metric


def check_shape(event_id: str, properties: dict[str, Any], *, is_ours: bool = False) -> None:
    """Refuse ids and properties that are not kept. Those of reservations are ours to give."""
    if not is_sound_id(event_id):
        raise Rejected(RejectionCode.INVALID_EVENT, f"`eventId` needs 1 to {MAX_EVENT_ID_LENGTH} printable characters.")
    if event_id.startswith(RESERVED_IDS) and not is_ours:
        raise Rejected(RejectionCode.INVALID_EVENT, f"`eventId` does not begin with {RESERVED_IDS!r}.")
    if len(properties) > MAX_PROPERTIES:
        raise Rejected(RejectionCode.INVALID_EVENT, f"An event has at most {MAX_PROPERTIES} properties.")
    for key, value in properties.items():
        if not isinstance(value, str | int | bool) or len(str(value)) > MAX_PROPERTY_LENGTH or len(key) > 64:
            raise Rejected(
                RejectionCode.INVALID_EVENT,
                f"Property {key[:64]!r}: keys have up to 64 characters, values are texts (up to "
                f"{MAX_PROPERTY_LENGTH} characters), whole numbers or booleans.",
            )
        if not (key + str(value)).isprintable():
            raise Rejected(RejectionCode.INVALID_EVENT, f"Property {key[:64]!r} has unprintable characters.")


def _check_quantity(event: UsageInput, metric: Metric, principal: Principal, account_id: UUID) -> None:
    invalid = RejectionCode.INVALID_QUANTITY
    quantity, level = event.quantity, event.level
    if (quantity is None) == (level is None):
        raise Rejected(invalid, "Send either `quantity` or, for a gauge, `level`.")
    if quantity is not None and 0 < quantity <= MAX_QUANTITY:
        return
    is_operator = principal.may(Right.CORRECT_USAGE, account_id)
    if level is not None:
        if metric.kind is MetricKind.COUNTER:
            raise Rejected(invalid, f"{metric.key} is a counter: it has no level, send the `quantity` to add.")
        if not is_operator:
            raise Rejected(invalid, "Only operators set levels: send the change as `quantity`.")
        if not 0 <= level <= MAX_QUANTITY:
            raise Rejected(invalid, f"`level` is a whole number from 0 to {MAX_QUANTITY}.")
        return
    assert quantity is not None, "one of the two is there"
    if quantity == 0 or abs(quantity) > MAX_QUANTITY:
        raise Rejected(invalid, f"`quantity` is a whole number from 1 to {MAX_QUANTITY}; 0 changes nothing.")
    if not is_operator:
        raise Rejected(invalid, "A negative quantity is a correction, and only operators make those.")
    if metric.kind is MetricKind.COUNTER and not event.correction:
        raise Rejected(invalid, "A negative quantity of a counter is a correction: send `correction: true` with it.")


def check_moment(tally: Tally, at: datetime) -> Period:
    """The usage period that usage of an instant counts in, where the account takes any."""
    subscription = tally.subscription
    if tally.is_closed or tally.status is SubscriptionStatus.EXPIRED:
        raise Rejected(RejectionCode.ACCOUNT_CANCELED, "The account is closed and takes no usage.")
    if at > tally.now + AHEAD:
        raise Rejected(
            RejectionCode.IN_FUTURE,
            f"`occurredAt` is over five minutes ahead of {tally.now:%Y-%m-%dT%H:%M:%SZ}: check the sender's clock.",
        )
    period = tally.period_of(at)
    if period is None:
        raise Rejected(RejectionCode.TOO_OLD, "`occurredAt` lies before the account's first usage period.")
    if tally.now >= period.end + LATE:
        raise Rejected(RejectionCode.TOO_OLD, "`occurredAt` lies in a usage period that ended more than 35 days ago.")
    if (
        subscription is not None
        and subscription.status is SubscriptionStatus.SUSPENDED
        and (subscription.suspended_at is None or at >= subscription.suspended_at)
    ):
        raise Rejected(RejectionCode.ACCOUNT_SUSPENDED, "The account is suspended until its open invoices are paid.")
    return period


def is_canceled(tally: Tally, at: datetime) -> bool:
    """Whether an instant lies after the end of the subscription: from then on the account only reads."""
    subscription = tally.subscription
    if subscription is None or subscription.status is not SubscriptionStatus.CANCELED:
        return False
    return subscription.canceled_at is None or at >= subscription.canceled_at


def canceled() -> Rejected:
    """What an account without a subscription any more answers."""
    return Rejected(
        RejectionCode.ACCOUNT_CANCELED,
        "The subscription was cancelled: reactivate it first. Until then only operators lower gauges.",
    )


def hash_content(event: UsageInput, at: datetime | None) -> str:
    """What makes two events with one id the same: metric, quantity or level, instant (in UTC), properties."""
    instant = at.isoformat() if at is not None else ""
    # Plain values only: so written, the same ones are the same text, and others are another.
    properties = ascii(sorted(event.properties.items())) if event.properties else ""
    content = f"{event.metric}\n{event.quantity}\n{event.level}\n{instant}\n{properties}"
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def check_room(figure: Figure, change: int, metric: Metric) -> None:
    """Refuse what would pass the limit where it holds, or would cost more than an invoice line can say."""
    after = figure.used + change
    if after < 0:
        raise Rejected(
            RejectionCode.NEGATIVE_USAGE, f"{metric.name} stands at {figure.used} and cannot fall below 0.", figure
        )
    if after > MAX_FIGURE:
        raise Rejected(RejectionCode.INVALID_QUANTITY, f"{metric.name} cannot pass {MAX_FIGURE}.", figure)
    if change <= 0:
        return
    ceiling = figure.ceiling
    if ceiling is not None and after + figure.held > ceiling:
        raise _over_the_ceiling(figure, change, metric)
    terms = figure.terms
    if terms.policy in (OveragePolicy.CHARGE, OveragePolicy.ASK):
        blocks = blocks_of(max(0, excess_over(after + figure.held, terms.limit) - figure.allowed), terms.block)
        if blocks * terms.price_minor > MAX_AMOUNT_MINOR:
            raise Rejected(
                RejectionCode.INVALID_QUANTITY,
                f"{metric.name} would cost more than one invoice line holds ({MAX_AMOUNT_MINOR} minor units).",
                figure,
            )


def check_budgets(
    tally: Tally, metric: Metric, figure: Figure, workspace: str, *, used: int = 0, held: int = 0
) -> None:
    """Refuse what would cost more than a blocking budget leaves room for. The refusal names the budget."""
    terms = figure.terms
    if not tally.rooms or figure.period is None or not terms.price_minor or used < 0:
        return  # a correction is never refused for its price
    comes_to = figure.used + used
    allowed = allowed_after(figure.allowed, figure.used, comes_to, terms)
    now = cost_of(figure.used + figure.held, figure.allowed, terms)
    then = cost_of(comes_to + figure.held + held, allowed, terms)
    if then <= now and cost_of(comes_to, allowed, terms) <= cost_of(figure.used, figure.allowed, terms):
        return
    start = figure.period.start
    before = figure.use()
    holds = dict(before.held)
    if held:
        quantity, reservations = holds.get(workspace, Held(0, 0))
        holds[workspace] = Held(quantity + held, reservations + 1)
    after = Use(terms, comes_to, allowed, holds)
    uses = tally.uses_in(start)
    room = find_spent(
        tally.rooms, start, metric.key, workspace, uses | {metric.key: before}, uses | {metric.key: after}
    )
    if room is None:
        return
    room.refused.add(start)
    # Whoever sends usage may not see money.
    raise Rejected(
        RejectionCode.BUDGET_EXCEEDED,
        f"{name_budget(room.budget.scope, room.budget.subject)} leaves no room for what this would cost: `setBudget` "
        "raises it, and a new usage period begins anew.",
        figure,
        room.budget.id,
    )


def _over_the_ceiling(figure: Figure, change: int, metric: Metric) -> Rejected:
    taken = f"{figure.used + change} of {figure.limit}"
    held = f" with the {figure.held} that are reserved" if figure.held else ""
    if figure.terms.policy is OveragePolicy.ASK:
        figure.asked = True
        return Rejected(
            RejectionCode.OVERAGE_APPROVAL_REQUIRED,
            f"{metric.name} would be {taken}{held}: somebody has to approve what passes the limit (`approveOverage`).",
            figure,
        )
    return Rejected(
        RejectionCode.LIMIT_EXCEEDED,
        f"{metric.name} would be {taken}{held}: a larger plan or an add-on raises the limit.",
        figure,
    )


# --- how -------------------------------------------------------------------------------------------------------------


def _move(figure: Figure, change: int) -> int:
    """Move a figure. Gives what that costs."""
    before = cost_of(figure.used, figure.allowed, figure.terms)
    after = figure.used + change
    figure.allowed = allowed_after(figure.allowed, figure.used, after, figure.terms)
    figure.used = after
    return cost_of(after, figure.allowed, figure.terms) - before


def _spend(tally: Tally, metric: Metric, figure: Figure, at: datetime, workspace: str, cost_minor: int) -> None:
    if not cost_minor:
        return
    assert figure.period is not None, "what is sold by use is counted by period"
    start = figure.period.start
    tally.costs[metric.key, start, at.astimezone(ZoneInfo(tally.zone)).date(), workspace] += cost_minor
    for room in tally.rooms:
        room.add(start, metric.key, workspace, cost_minor)


def _move_gauge(
    tally: Tally,
    metric: Metric,
    figure: Figure,
    event: UsageInput,
    at: datetime,
    workspace: str,
    row_id: UUID,
    *,
    only_lower: bool,
    is_promised: bool,
) -> int:
    """Put an event into the gauge's history, late or not, and give the step that it is.

    A level swallows what came before it. So a late event only moves the running figure when no later level stands;
    else the later level's own step shrinks by as much, and the figure stays.
    """
    moment = Moment(at, event.level is not None, event.event_id)
    after = figure.moments[bisect_right(figure.moments, moment) :]
    before = figure.used - sum(figure.steps[later].change for later in after)
    change = event.quantity if event.level is None else event.level - before
    assert change is not None, "checked"
    if only_lower and change >= 0:
        raise canceled()
    next_level = next((later for later in after if later.is_level), None)
    if before + change < 0:
        raise Rejected(
            RejectionCode.NEGATIVE_USAGE, f"{metric.name} stood at {before} then and cannot fall below 0.", figure
        )
    if next_level is None:
        if not is_promised:
            check_room(figure, change, metric)
        _move(figure, change)
    else:
        swallowing = figure.steps[next_level]
        swallowing.change -= change
        swallowing.was_changed = True
        _add_rollups(tally, metric.key, swallowing.occurred_at, swallowing.workspace, -change)
    _add_rollups(tally, metric.key, at, workspace, change)
    insort(figure.moments, moment)
    figure.steps[moment] = Step(row_id, change, at, workspace, is_new=True)
    return change


def _add_rollups(tally: Tally, metric_key: str, at: datetime, workspace: str, change: int) -> None:
    hour, day, month = buckets_of(at, tally.zone)
    tally.rollups[metric_key, Granularity.HOUR, hour, workspace, month] += change
    tally.rollups[metric_key, Granularity.DAY, day, workspace, month] += change


async def _write(work: Work, tallies: Collection[Tally], metrics: dict[str, Metric]) -> None:
    await alerts.resolve_ended(work, [tally.account for tally in tallies])
    touched = [tally for tally in tallies if tally.events]
    if not touched:
        return
    await work.insert_many(UsageEventId, ID_COLUMNS, [row for tally in touched for row in tally.ids])
    await _write_events(work, touched)
    await work.insert_many(
        UsageRollup,
        ("account_id", "metric_key", "granularity", "start_at", "workspace", "month", "quantity"),
        [
            (tally.account.id, metric_key, granularity, start, workspace, month, quantity)
            for tally in touched
            for (metric_key, granularity, start, workspace, month), quantity in sorted(tally.rollups.items())
        ],
        adding=("quantity",),
    )
    # What the accounts' rows have to say is sent once, further below.
    with work.session.no_autoflush:
        readings = await _write_counters(work, touched, metrics)
        moves = await _write_spend(work, touched)
    for tally in touched:
        work.audit(
            tally.account,
            "usage.recorded",
            f"billing_account:{tally.account.id}",
            after={"events": len(tally.events), "first": tally.ids[0][1]},
        )
    silent = {tally.account.id for tally in touched if tally.status in SILENT}
    await alerts.evaluate(work, [reading for reading in readings if reading.account.id not in silent])
    await act_on_spend(work, moves)
    reach("usage.before_commit")


async def _write_events(work: Work, touched: Sequence[Tally]) -> None:
    steps = {step.id: step for tally in touched for figure in tally.figures.values() for step in figure.steps.values()}
    rows = [row for tally in touched for row in tally.events]
    if steps:
        # A level of this very batch may have been moved by a later one in it: its step is the last word.
        rows = [
            row if row[0] not in steps else (*row[:CHANGE], steps[row[0]].change, *row[CHANGE + 1 :]) for row in rows
        ]
    await work.insert_many(UsageEvent, EVENT_COLUMNS, rows)
    corrected = [
        {"id": step.id, "change": step.change} for step in steps.values() if step.was_changed and not step.is_new
    ]
    if corrected:
        await work.session.execute(update(UsageEvent), corrected)


async def _write_counters(work: Work, touched: Sequence[Tally], metrics: dict[str, Metric]) -> list[alerts.Reading]:
    rows, readings = [], []
    for tally in touched:
        for (metric_key, start), figure in sorted(tally.figures.items()):
            if not figure.changed:
                continue
            end = figure.period.end if figure.period else None
            sequence = work.advance(tally.account)
            moves = figure.period is not None and tally.account.spike_alerts  # unusual days are looked for then
            rows.append(
                (tally.account.id, metric_key, start, end, figure.used, figure.allowed, tally.now, sequence, moves)
            )
            readings.append(
                alerts.read_usage(tally.account, metrics[metric_key], figure.period, figure.used, figure.limit)
            )
    names = (
        "account_id",
        "metric_key",
        "period_start",
        "period_end",
        "used",
        "allowed",
        "changed_at",
        "sequence",
        "has_moved",
    )
    await work.insert_many(Counter, names, rows, setting=names[3:])
    return readings


async def _write_spend(work: Work, touched: Sequence[Tally]) -> list[SpendMove]:
    await add_costs(work, [(tally.account_id, *key, cost) for tally in touched for key, cost in tally.costs.items()])
    moves = [
        SpendMove(
            tally.account,
            tally.subscription,
            room.budget,
            Period(start, room.ends[start]),
            room.limits[start],
            room.spent[start],
        )
        for tally in touched
        for room in tally.rooms
        for start in sorted(room.moved)
    ]
    await move_periods(work, moves)
    return moves
