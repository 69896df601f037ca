"""Deliveries: which events go to which endpoint, whose turn it is, and what became of each try."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from ..database import Actor, Database, ReadSession, Work
from ..faults import reach
from ..models import (
    BillingAccount,
    DeliveryStatus,
    DisabledReason,
    EndpointStatus,
    OutboxEvent,
    OutboxReader,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from ..models.types import new_id
from .endpoints import READER, lock_reader, switch_off
from .errors import Conflict, NotFound
from .events import TEST_TYPE, describe_event, describe_test, is_for_operators, wants, write_body
from .global_ids import encode_global_id

BATCH = 200
GONE = 410
"""By this a receiver says that it wants nothing any more."""
GIVE_UP_AFTER = timedelta(days=3)
GRACE = timedelta(hours=1)
"""So long after its time a delivery may still have its last try."""
WAITS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=35),
    timedelta(hours=2, minutes=35),
    timedelta(hours=7, minutes=35),
    timedelta(hours=17, minutes=35),
    timedelta(hours=31, minutes=35),
    timedelta(hours=51, minutes=35),
    GIVE_UP_AFTER,
)
"""When a delivery that fails is tried again, counted from when it was planned."""
SWITCHED_OFF_AFTER = timedelta(days=5)
LONGEST_REST = timedelta(minutes=5)
LONGEST_ASKED_REST = timedelta(hours=6)
"""No receiver that asks for time is given more."""
RECOVERED_AFTER = 3
"""After so many failures in a row, the first success is a recovery: all that waits goes out."""
LEASE = timedelta(seconds=60)
"""Longer than a try with all around it."""
UNDER_WAY = "It is under way, or whoever made this try ended before the answer came: then it was made again."
MAX_REPLAYED = 1_000
MAX_TRIES = 100


# --- planning --------------------------------------------------------------------------------------------------------


async def plan_waiting(database: Database, actor: Actor) -> int:
    """Plan deliveries of what the outbox has numbered. Gives how many events were looked at."""
    if not await _has_unplanned(database):
        return 0
    return await database.run(actor, plan_deliveries)


async def _has_unplanned(database: Database) -> bool:
    async with database.read() as session:
        read_upto = select(OutboxReader.position).where(OutboxReader.name == READER).scalar_subquery()
        waiting = await session.scalar(
            select(OutboxEvent.position).where(OutboxEvent.position > func.coalesce(read_upto, 0)).limit(1)
        )
    return waiting is not None


async def plan_deliveries(work: Work) -> int:
    """Plan a delivery to each endpoint that wants the next events, and go on behind them: in one transaction."""
    reader = await lock_reader(work)
    events = (
        await work.session.execute(
            select(OutboxEvent, BillingAccount.external_id)
            .join(BillingAccount, BillingAccount.id == OutboxEvent.account_id)
            .where(OutboxEvent.position > reader.position)
            .order_by(OutboxEvent.position)
            .limit(BATCH)
        )
    ).all()
    if not events:
        return 0
    account_ids = {event.account_id for event, _ in events}
    endpoints = (
        await work.session.scalars(
            select(WebhookEndpoint)
            .where(
                or_(WebhookEndpoint.account_id.in_(account_ids), WebhookEndpoint.account_id.is_(None)),
                WebhookEndpoint.status == EndpointStatus.ENABLED,
                WebhookEndpoint.removed_at.is_(None),
            )
            .order_by(WebhookEndpoint.id)
        )
    ).all()
    await _plan(work, events, endpoints)
    reach("webhook.planned")
    reader.position = events[-1][0].position or 0
    return len(events)


async def _plan(work: Work, events: Sequence[Any], endpoints: Sequence[WebhookEndpoint]) -> None:
    rows = [
        _delivery_of(endpoint, event, external_id, work.clock.now())
        for event, external_id in events
        for endpoint in endpoints
        if is_wanted(endpoint, event)
    ]
    await work.insert_or_ignore(WebhookDelivery, rows)


def is_wanted(endpoint: WebhookEndpoint, event: OutboxEvent) -> bool:
    """Whether an endpoint that is switched on hears of an event."""
    if endpoint.account_id is not None and (endpoint.account_id != event.account_id or is_for_operators(event)):
        return False
    return (event.position or 0) > endpoint.position and wants(endpoint.event_kinds, event)


def _delivery_of(endpoint: WebhookEndpoint, event: OutboxEvent, external_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "created_at": now,
        "updated_at": now,
        "account_id": endpoint.account_id,
        "endpoint_id": endpoint.id,
        "event_id": event.id,
        "kind": event.kind,
        "position": event.position,
        # A query is asked before the first try: what it tells is of then.
        "body": None if endpoint.query is not None else write_body(describe_event(event, external_id)),
        "status": DeliveryStatus.PENDING,
        "tries": 0,
        "next_try_at": now,
        "give_up_at": now + GIVE_UP_AFTER,
        "delivered_at": None,
    }


async def give_up_old(database: Database, actor: Actor) -> int:
    """Mark what was not delivered in three days as failed. Gives how many that were."""
    is_old = and_(
        WebhookDelivery.status == DeliveryStatus.PENDING,
        WebhookDelivery.give_up_at <= database.clock.now() - GRACE,
    )
    async with database.read() as session:
        if await session.scalar(select(WebhookDelivery.id).where(is_old).limit(1)) is None:
            return 0
    async with database.work(actor) as work:
        found = (await work.session.scalars(select(WebhookDelivery.id).where(is_old).limit(BATCH))).all()
        await work.session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id.in_(found), WebhookDelivery.status == DeliveryStatus.PENDING)
            .values(status=DeliveryStatus.FAILED, updated_at=work.clock.now())
        )
    return len(found)


# --- whose turn it is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """The right to send to an endpoint for a while, alone, and what that takes."""

    id: UUID
    endpoint_id: UUID
    account_id: UUID | None
    failing_since: datetime | None
    url: str
    query: str | None
    secrets: tuple[str, ...] = field(repr=False)


class LeaseLost(Exception):
    """Somebody else sends to the endpoint by now: whoever finds this out writes nothing more."""


@dataclass(frozen=True)
class Sending:
    """One try that is to be made."""

    delivery_id: UUID
    number: int
    event_id: UUID
    kind: str
    body: str | None = field(repr=False)

    @property
    def message_id(self) -> str:
        """The same over all tries, and the id that `events` has for the event."""
        return encode_global_id("BillingEvent", self.event_id)


@dataclass(frozen=True)
class Outcome:
    """What became of a try."""

    sending: Sending
    duration_ms: int
    status_code: int | None = None
    answer: str | None = None
    failure: str | None = None
    retry_after: timedelta | None = None

    @property
    def is_delivered(self) -> bool:
        """Only 2xx is: a redirect is not followed, and is a failure."""
        return self.failure is None


def _is_due(now: datetime) -> ColumnElement[bool]:
    waits = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.endpoint_id == WebhookEndpoint.id,
            WebhookDelivery.status == DeliveryStatus.PENDING,
            WebhookDelivery.next_try_at <= now,
        )
        .exists()
    )
    return and_(
        WebhookEndpoint.status == EndpointStatus.ENABLED,
        WebhookEndpoint.removed_at.is_(None),
        or_(WebhookEndpoint.leased_until.is_(None), WebhookEndpoint.leased_until <= now),
        or_(WebhookEndpoint.rests_until.is_(None), WebhookEndpoint.rests_until <= now),
        waits,
    )


async def has_due(database: Database) -> bool:
    """Whether something is to be sent now: asked without the writers' lock."""
    async with database.read() as session:
        found = await session.scalar(select(WebhookEndpoint.id).where(_is_due(database.clock.now())).limit(1))
    return found is not None


async def claim_endpoints(work: Work, limit: int) -> list[Lease]:
    """Take endpoints that something waits for, those first that waited longest for their turn."""
    now = work.clock.now()
    rows = await work.session.scalars(
        select(WebhookEndpoint)
        .where(_is_due(now))
        .order_by(func.coalesce(WebhookEndpoint.leased_until, WebhookEndpoint.created_at), WebhookEndpoint.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return [_lease(row, now) for row in rows]


def _lease(endpoint: WebhookEndpoint, now: datetime) -> Lease:
    endpoint.lease, endpoint.leased_until = new_id(), now + LEASE
    secrets = [endpoint.secret]
    until = endpoint.previous_secret_until
    if endpoint.previous_secret is not None and until is not None and until > now:
        secrets.append(endpoint.previous_secret)
    return Lease(
        id=endpoint.lease,
        endpoint_id=endpoint.id,
        account_id=endpoint.account_id,
        failing_since=endpoint.failing_since,
        url=endpoint.url,
        query=endpoint.query,
        secrets=tuple(secrets),
    )


async def take_next(work: Work, lease: Lease, outcome: Outcome | None, *, may_go_on: bool = True) -> Sending | None:
    """Write down what became of a try, and begin the next one in order; with none the lease is given back.

    Both are one transaction: a try costs one commit.
    """
    now = work.clock.now()
    account = None
    reason = None if outcome is None else _reason_to_switch_off(lease.failing_since, outcome, now)
    if reason is not None and lease.account_id is not None:
        # Before the endpoint, as all who lock both.
        account = (await work.lock_accounts([lease.account_id]))[lease.account_id]
    endpoint = (
        await work.session.scalars(
            select(WebhookEndpoint)
            .where(WebhookEndpoint.id == lease.endpoint_id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    ).one()
    if endpoint.lease != lease.id:
        raise LeaseLost
    if outcome is not None:
        await _note(work, endpoint, outcome, now)
        if reason is not None and endpoint.status is EndpointStatus.ENABLED:
            await switch_off(work, account, endpoint, reason)
        reach("webhook.before_commit")
    is_resting = endpoint.rests_until is not None and endpoint.rests_until > now
    if not may_go_on or is_resting or endpoint.status is not EndpointStatus.ENABLED:
        _give_back(endpoint, now)
        return None
    delivery = await work.session.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint.id,
            WebhookDelivery.status == DeliveryStatus.PENDING,
            WebhookDelivery.next_try_at <= now,
        )
        .order_by(WebhookDelivery.position, WebhookDelivery.created_at, WebhookDelivery.id)
        .limit(1)
        .execution_options(populate_existing=True)
    )
    if delivery is None:
        _give_back(endpoint, now)
        return None
    delivery.tries += 1
    work.session.add(
        WebhookAttempt(
            delivery_id=delivery.id,
            number=delivery.tries,
            account_id=delivery.account_id,
            at=now,
            duration_ms=0,
            failure=UNDER_WAY,
        )
    )
    endpoint.leased_until = now + LEASE
    return Sending(delivery.id, delivery.tries, delivery.event_id, delivery.kind, delivery.body)


def _give_back(endpoint: WebhookEndpoint, now: datetime) -> None:
    endpoint.lease, endpoint.leased_until = None, now


def _reason_to_switch_off(failing_since: datetime | None, outcome: Outcome, now: datetime) -> DisabledReason | None:
    """Why an endpoint is not asked any more after this try; none where it is."""
    if outcome.is_delivered:
        return None
    if outcome.status_code == GONE:
        return DisabledReason.GONE
    has_failed_for_long = failing_since is not None and failing_since <= now - SWITCHED_OFF_AFTER
    return DisabledReason.FAILING if has_failed_for_long else None


async def _note(work: Work, endpoint: WebhookEndpoint, outcome: Outcome, now: datetime) -> None:
    key = (outcome.sending.delivery_id, outcome.sending.number)
    attempt = await work.session.get_one(WebhookAttempt, key)
    attempt.duration_ms, attempt.status_code = outcome.duration_ms, outcome.status_code
    attempt.answer, attempt.failure = outcome.answer, outcome.failure
    delivery = await work.session.get_one(WebhookDelivery, outcome.sending.delivery_id, populate_existing=True)
    delivery.updated_at = now
    if outcome.is_delivered:
        delivery.status, delivery.delivered_at = DeliveryStatus.SUCCEEDED, now
        await _note_success(work, endpoint, now)
        return
    if outcome.status_code == GONE or delivery.give_up_at <= now:
        delivery.status = DeliveryStatus.FAILED
    else:
        delivery.next_try_at = _next_try(delivery.give_up_at, now, outcome.retry_after)
    endpoint.failures += 1
    endpoint.failing_since = endpoint.failing_since or now
    endpoint.rests_until = now + _rest(endpoint.failures, outcome.retry_after)


async def _note_success(work: Work, endpoint: WebhookEndpoint, now: datetime) -> None:
    if endpoint.failures >= RECOVERED_AFTER:
        await work.session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.status == DeliveryStatus.PENDING)
            .values(next_try_at=now)
        )
    endpoint.failures, endpoint.failing_since, endpoint.rests_until = 0, None, None


def _next_try(give_up_at: datetime, now: datetime, asked: timedelta | None) -> datetime:
    """When a delivery is tried again: later each time, not all at once, and once more when its time is over."""
    passed = now - (give_up_at - GIVE_UP_AFTER)
    due_after = next((wait for wait in WAITS if wait > passed * 1.1 + timedelta(seconds=1)), GIVE_UP_AFTER)
    delay = max((due_after - passed) * random.uniform(1, 1.2), asked or timedelta())  # noqa: S311  # not a secret
    return max(min(now + delay, give_up_at), now)


def _rest(failures: int, asked: timedelta | None) -> timedelta:
    """How long an endpoint is left alone after so many failures in a row."""
    seconds = min(2 ** min(failures - 1, 20), LONGEST_REST.total_seconds())
    return max(timedelta(seconds=seconds * random.uniform(0.8, 1)), asked or timedelta())  # noqa: S311  # not a secret


def read_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """How long a receiver wants to be left alone, at most some hours; none where it says nothing that can be read."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), LONGEST_ASKED_REST)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return min(max(until - now, timedelta()), LONGEST_ASKED_REST)


async def keep_body(work: Work, lease: Lease, sending: Sending, body: str) -> str:
    """Keep what is sent, before it is: each try sends the same."""
    held = await work.session.scalar(select(WebhookEndpoint.lease).where(WebhookEndpoint.id == lease.endpoint_id))
    if held != lease.id:
        raise LeaseLost
    await work.session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == sending.delivery_id, WebhookDelivery.body.is_(None))
        .values(body=body)
    )
    return body


@dataclass(frozen=True)
class Subject:
    """What a message is about: an event with its account's name, or for a test the account alone, or nothing."""

    event: OutboxEvent | None
    account_id: UUID | None
    external_id: str | None


async def read_subject(session: ReadSession, lease: Lease, sending: Sending) -> Subject:
    """What a message is about, for who asks a query."""
    row = (
        await session.execute(
            select(OutboxEvent, BillingAccount.external_id)
            .join(BillingAccount, BillingAccount.id == OutboxEvent.account_id)
            .where(OutboxEvent.id == sending.event_id)
        )
    ).one_or_none()
    if row is not None:
        return Subject(row[0], row[0].account_id, row[1])
    external_id = None
    if lease.account_id is not None:
        external_id = await session.scalar(
            select(BillingAccount.external_id).where(BillingAccount.id == lease.account_id)
        )
    return Subject(None, lease.account_id, external_id)


# --- by hand ---------------------------------------------------------------------------------------------------------


async def send_test(work: Work, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Send a test message to a locked endpoint, the way of all others."""
    _check_enabled(endpoint)
    now, event_id = work.clock.now(), new_id()
    external_id = None
    if endpoint.account_id is not None:
        external_id = await work.session.scalar(
            select(BillingAccount.external_id).where(BillingAccount.id == endpoint.account_id)
        )
    body = write_body(describe_test(event_id, endpoint.account_id, external_id, now))
    asks = endpoint.query is not None and endpoint.account_id is not None
    delivery = WebhookDelivery(
        created_at=now,
        account_id=endpoint.account_id,
        endpoint_id=endpoint.id,
        event_id=event_id,
        kind=TEST_TYPE,
        body=None if asks else body,
        next_try_at=now,
        give_up_at=now + GIVE_UP_AFTER,
    )
    work.session.add(delivery)
    return delivery


async def send_again(work: Work, endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    """Send what was sent before once more: with the same id and the same body."""
    _check_enabled(endpoint)
    path = ["input", "deliveryId"]
    delivery = await work.session.get(WebhookDelivery, delivery_id, populate_existing=True)
    if delivery is None or delivery.endpoint_id != endpoint.id:
        raise NotFound("There is no such delivery, or it is not yours.", path)
    if delivery.tries >= MAX_TRIES:
        raise Conflict(f"It was tried {MAX_TRIES} times: read the event by `events` instead.", path)
    now = work.clock.now()
    delivery.status, delivery.next_try_at, delivery.updated_at = DeliveryStatus.PENDING, now, now
    delivery.give_up_at = now + GIVE_UP_AFTER
    return delivery


@dataclass(frozen=True)
class Replayed:
    """How many events are sent again, and behind which position the next call goes on; none where that was all."""

    count: int
    next_position: int | None


async def send_since(work: Work, endpoint: WebhookEndpoint, after: int) -> Replayed:
    """Send the events behind a position to a locked endpoint: those that failed again, and those it never heard of."""
    _check_enabled(endpoint)
    reader = await lock_reader(work)
    statement = (
        select(OutboxEvent, BillingAccount.external_id)
        .join(BillingAccount, BillingAccount.id == OutboxEvent.account_id)
        .where(OutboxEvent.position > after, OutboxEvent.position <= reader.position)
        .order_by(OutboxEvent.position)
        .limit(MAX_REPLAYED)
    )
    if endpoint.account_id is not None:
        statement = statement.where(OutboxEvent.account_id == endpoint.account_id)
    found = (await work.session.execute(statement)).all()
    now = work.clock.now()
    wanted = [
        (event, external_id)
        for event, external_id in found
        if wants(endpoint.event_kinds, event) and not (endpoint.account_id is not None and is_for_operators(event))
    ]
    ids = [event.id for event, _ in wanted]
    known = (
        await work.session.execute(
            select(WebhookDelivery.event_id, WebhookDelivery.status).where(
                WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.event_id.in_(ids)
            )
        )
    ).all()
    failed = [event_id for event_id, status in known if status is DeliveryStatus.FAILED]
    await work.session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.event_id.in_(failed))
        .values(status=DeliveryStatus.PENDING, next_try_at=now, updated_at=now, give_up_at=now + GIVE_UP_AFTER)
    )
    missing = {event_id for event_id, _ in known}
    rows = [_delivery_of(endpoint, event, name, now) for event, name in wanted if event.id not in missing]
    await work.insert_or_ignore(WebhookDelivery, rows)
    is_all = len(found) < MAX_REPLAYED
    return Replayed(len(failed) + len(rows), None if is_all else found[-1][0].position)


def _check_enabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.status is not EndpointStatus.ENABLED:
        raise Conflict(
            "The endpoint is switched off: switch it on first, by `updateWebhookEndpoint` with the status ENABLED.",
            ["input"],
        )
