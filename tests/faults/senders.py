"""Usage on its way while servers die: senders that send again, streams that resume, what must hold."""

import asyncio
import contextlib
import json
import random
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import func, select
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from plafond.database import Database, take_snapshot
from plafond.models import (
    Alert,
    Counter,
    Granularity,
    OutboxEvent,
    Reservation,
    ReservationStatus,
    UsageEvent,
    UsageEventId,
    UsageRollup,
)
from plafond.schema.node import decode_id, encode_id
from plafond.services.auditing import audit
from plafond.services.usage import RESERVED_IDS

from .fire import BOUND_S, Battlefield, Fight, Front, Kind, copy_of, hold_back
from .runner import Processes, check_file, open_database, until

METERED = (Kind.BUYER, Kind.CONFIRMER, Kind.TRANSFEROR)
"""Accounts on the starter plan: 10,000 emails, more is charged; 5 domains, more is refused."""
EMAILS, DOMAINS = "email_sends", "custom_domains"
LIMITS = {EMAILS: 10_000, DOMAINS: 5}
THRESHOLDS = (80, 90, 95, 100)

RECORD = """
mutation ($events: [UsageEventInput!]!, $key: String) {
  recordUsage(input: { events: $events, idempotencyKey: $key }) {
    results { index eventId status code } userErrors { code }
  }
}"""
RESERVE = """
mutation ($input: ReserveUsageInput!) {
  reserveUsage(input: $input) { reservation { id } usage { used held } userErrors { code } }
}"""
COMMIT = """
mutation ($id: ID!, $quantity: BigInt) {
  commitReservation(input: { reservationId: $id, quantity: $quantity }) {
    reservation { status committed } userErrors { code }
  }
}"""
RELEASE = """
mutation ($id: ID!) {
  releaseReservation(input: { reservationId: $id }) { reservation { status } userErrors { code } }
}"""
FOLLOW = """
subscription ($account: ID!, $after: String) {
  accountChanged(accountId: $account, after: $after, kinds: [ALERT]) {
    kind cursor node { ... on Alert { id threshold resolvedAt } }
  }
}"""
DOCUMENTS = (RECORD, RESERVE, COMMIT, RELEASE, FOLLOW)


# --- what is sent ----------------------------------------------------------------------------------------------------

Event = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Events that are sent until they are acknowledged, under a key or without one."""

    events: Sequence[Event]
    key: str | None = None


@dataclass(frozen=True)
class Hold:
    """A quantity that is reserved; then a part of it is committed, or nothing."""

    account_id: UUID
    metric: str
    quantity: int
    committed: int
    key: str


@dataclass
class Sent:
    """What was acknowledged."""

    events: set[tuple[UUID, str]] = field(default_factory=set[tuple[UUID, str]])
    holds: dict[UUID, Hold] = field(default_factory=dict[UUID, Hold])


def email(account_id: UUID, event_id: str, quantity: int, **more: Any) -> Event:
    """An event of the counter."""
    given = {"eventId": event_id, "accountId": encode_id("BillingAccount", account_id), "metric": EMAILS}
    return {**given, "quantity": quantity, **more}


def make_batches(chance: random.Random, account_ids: Sequence[UUID], *, ids: int, size: int, name: str) -> list[Batch]:
    """Batches in which each account's events come in any order, and most of them again and again."""
    events = [
        email(
            account_id,
            f"{name}-{number}",
            chance.randint(1, 2 * LIMITS[EMAILS] // ids),
            properties={"workspace": f"w{number % 3}"},
        )
        for account_id in account_ids
        for number in range(ids)
    ]
    sent = [event for event in events for _ in range(chance.randint(1, 3))]
    chance.shuffle(sent)
    return [
        Batch(sent[place : place + size], f"{name}-{place}" if chance.random() < 0.3 else None)
        for place in range(0, len(sent), size)
    ]


def make_holds(chance: random.Random, account_ids: Sequence[UUID], *, each: int, name: str) -> list[Hold]:
    """Reservations of what may be exceeded and of what may not; a third of them is given back."""
    holds = []
    for account_id in account_ids:
        for number in range(each):
            metric = chance.choice([EMAILS, DOMAINS])
            quantity = chance.randint(1, 3)
            committed = chance.randint(1, quantity) if chance.random() < 0.67 else 0
            holds.append(Hold(account_id, metric, quantity, committed, f"{name}-{account_id.hex}-{number}"))
    chance.shuffle(holds)
    return holds


async def send_batches(front: Front, batches: Sequence[Batch], sent: Sent) -> None:
    """Send batches, each until it is acknowledged."""
    for batch in batches:
        answer = await front.insist(RECORD, events=list(batch.events), key=batch.key)
        while answer["userErrors"]:
            # Somebody's request under this key, whose answer was lost, is still under way.
            assert [error["code"] for error in answer["userErrors"]] == ["IDEMPOTENCY_IN_FLIGHT"], answer
            await asyncio.sleep(0.05)
            answer = await front.insist(RECORD, events=list(batch.events), key=batch.key)
        for event, result in zip(batch.events, answer["results"], strict=True):
            assert result["status"] in ("ACCEPTED", "DUPLICATE"), result
            sent.events.add((key_of(event["accountId"]), event["eventId"]))


async def send_holds(front: Front, holds: Sequence[Hold], sent: Sent) -> None:
    """Reserve, and commit or release what was had."""
    for hold in holds:
        asked = {
            "accountId": encode_id("BillingAccount", hold.account_id),
            "metric": hold.metric,
            "quantity": hold.quantity,
            "seconds": 3_600,
            "idempotencyKey": hold.key,
        }
        answer = await front.insist(RESERVE, input=asked)
        if answer["userErrors"]:
            assert [error["code"] for error in answer["userErrors"]] == ["LIMIT_EXCEEDED"], answer
            assert hold.metric == DOMAINS
            continue
        if hold.metric == DOMAINS:
            assert answer["usage"]["used"] + answer["usage"]["held"] <= LIMITS[DOMAINS]
        id_ = answer["reservation"]["id"]
        if hold.committed:
            answer = await front.insist(COMMIT, id=id_, quantity=hold.committed)
            assert answer["reservation"] == {"status": "COMMITTED", "committed": hold.committed}, answer
        else:
            answer = await front.insist(RELEASE, id=id_)
            assert answer["reservation"] == {"status": "RELEASED"}, answer
        sent.holds[key_of(id_)] = hold


def key_of(id_: str) -> UUID:
    """The key in an id."""
    found = decode_id(id_)
    assert found is not None, id_
    key = found.uuid()
    assert key is not None, id_
    return key


# --- who listens -----------------------------------------------------------------------------------------------------


@dataclass
class Listener:
    """Follows an account's alerts over whatever server there is, from the last cursor that it saw."""

    front: Front
    account_id: UUID
    cursor: str | None = None
    heard: list[tuple[UUID, int, bool]] = field(default_factory=list[tuple[UUID, int, bool]])
    """The alerts in the order of coming, with threshold, and whether they were resolved by then."""
    listens: asyncio.Event = field(default_factory=asyncio.Event)
    times: int = 0
    """How often it had to connect."""

    async def listen(self) -> None:
        """Listen for ever."""
        while True:
            await self.front.up.wait()
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake):
                await self._listen_once()
            await asyncio.sleep(0.02)

    async def _listen_once(self) -> None:
        address = f"ws://127.0.0.1:{self.front.port}/graphql"
        async with connect(address, subprotocols=["graphql-transport-ws"], proxy=None) as socket:  # type: ignore[list-item]
            token = {"Authorization": f"Bearer {self.front.token}"}
            await socket.send(json.dumps({"type": "connection_init", "payload": token}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            variables = {"account": encode_id("BillingAccount", self.account_id), "after": self.cursor}
            payload = {"query": FOLLOW, "variables": variables}
            await socket.send(json.dumps({"type": "subscribe", "id": "s", "payload": payload}))
            self.times += 1
            async for text in socket:
                message = json.loads(text)
                assert message["type"] == "next", message
                assert "errors" not in message["payload"], message
                change = message["payload"]["data"]["accountChanged"]
                self._hear(change)

    def _hear(self, change: dict[str, Any]) -> None:
        assert change["kind"] == ("SNAPSHOT" if self.cursor is None else "ALERT"), change
        self.cursor = change["cursor"]
        self.listens.set()
        if change["kind"] == "ALERT":
            alert = change["node"]
            self.heard.append((key_of(alert["id"]), alert["threshold"], alert["resolvedAt"] is not None))


# --- a run -----------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """Senders and listeners of one test, and the processes that they find."""

    fight: Fight
    account_ids: list[UUID]
    listeners: list[Listener]
    sent: Sent = field(default_factory=Sent)
    wanted: list[Event] = field(default_factory=list[Event])
    senders: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @property
    def database(self) -> Database:
        """Where the usage is."""
        return self.fight.database

    def send(self, batches: Sequence[Batch], *, senders: int = 1, front: Front | None = None) -> None:
        """Let some send batches, each its share, to the server of the day or another one."""
        self.wanted += [event for batch in batches for event in batch.events]
        for place in range(senders):
            self._start(send_batches(front or self.fight.front, batches[place::senders], self.sent))

    def hold(self, holds: Sequence[Hold], *, senders: int = 1) -> None:
        """Let some reserve, each its share."""
        for place in range(senders):
            self._start(send_holds(self.fight.front, holds[place::senders], self.sent))

    def _start(self, sending: Any) -> None:
        self.senders.append(asyncio.create_task(sending))

    async def finish(self) -> None:
        """Wait until all is acknowledged, and every listener has heard what there was to hear."""
        async with asyncio.timeout(BOUND_S):
            await asyncio.gather(*self.senders)
        for listener in self.listeners:
            await until(lambda listener=listener: self._has_heard(listener))  # type: ignore[misc]

    async def _has_heard(self, listener: Listener) -> bool:
        return len(listener.heard) >= len(await list_told(self.database, listener.account_id))


async def list_told(database: Database, account_id: UUID) -> Sequence[OutboxEvent]:
    """What the outbox says of an account's alerts, in order."""
    async with database.read() as session:
        return (
            await session.scalars(
                select(OutboxEvent)
                .where(OutboxEvent.account_id == account_id, OutboxEvent.kind.like("usage.alert%"))
                .order_by(OutboxEvent.sequence)
            )
        ).all()


@asynccontextmanager
async def run_senders(template: Battlefield, folder: Path, *, listening: bool = True) -> AsyncGenerator[Run]:
    """A copy for one test. Where the block ends well, all is sent to its end and checked."""
    with copy_of(template, folder) as field_:
        database = open_database(field_.address)
        parties = field_.of(*METERED)
        account_ids = sorted(party.account_id for party in parties)
        tasks: list[asyncio.Task[None]] = []
        try:
            await hold_back(database, set(account_ids))
            async with httpx2.AsyncClient(timeout=BOUND_S) as http:
                with Processes(field_.address, folder) as processes:
                    front = Front(http, field_.token)
                    listeners = [Listener(front, account_id) for account_id in account_ids] if listening else []
                    run = Run(Fight(field_, database, processes, front, parties), account_ids, listeners)
                    try:
                        tasks += [asyncio.create_task(listener.listen()) for listener in listeners]
                        yield run
                        await run.finish()
                        for task in tasks:
                            assert not task.done(), task.exception()
                    finally:
                        for task in (*tasks, *run.senders):
                            task.cancel()
                        await asyncio.gather(*tasks, *run.senders, return_exceptions=True)
            await check_usage(run)
        finally:
            await database.close()


async def all_listen(run: Run) -> None:
    """Wait until every listener has its first cursor: from there on it misses nothing."""
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*(listener.listens.wait() for listener in run.listeners))


# --- after -----------------------------------------------------------------------------------------------------------


async def check_usage(run: Run) -> None:
    """Each event and reservation was counted once, figures and roll-ups agree, alerts were told once, in order."""
    async with run.database.read() as session:
        await take_snapshot(session)
        assert await audit(session, run.database.clock.now()) == []
        mine = run.account_ids
        ids = (
            await session.execute(
                select(UsageEventId.account_id, UsageEventId.event_id).where(UsageEventId.account_id.in_(mine))
            )
        ).all()
        events = (await session.scalars(select(UsageEvent).where(UsageEvent.account_id.in_(mine)))).all()
        counters = (await session.scalars(select(Counter).where(Counter.account_id.in_(mine)))).all()
        rollups = (
            await session.execute(
                select(
                    UsageRollup.account_id,
                    UsageRollup.metric_key,
                    UsageRollup.granularity,
                    func.sum(UsageRollup.quantity),
                )
                .where(UsageRollup.account_id.in_(mine))
                .group_by(UsageRollup.account_id, UsageRollup.metric_key, UsageRollup.granularity)
            )
        ).all()
        reservations = (await session.scalars(select(Reservation).where(Reservation.account_id.in_(mine)))).all()
    # What was sent is what is stored: the ids once, the events once.
    named = Tally((row.account_id, row.event_id) for row in events)
    assert Tally((row[0], row[1]) for row in ids) == named
    assert set(named.values()) <= {1}
    plain = {key for key in named if not key[1].startswith(RESERVED_IDS)}
    wanted = {(key_of(event["accountId"]), event["eventId"]): event["quantity"] for event in run.wanted}
    assert plain == run.sent.events == set(wanted)
    # A reservation was committed, and is an event; or it was not, and is none.
    committed = {row.id: row for row in reservations if row.status is ReservationStatus.COMMITTED}
    assert {key for key in named if key[1].startswith(RESERVED_IDS)} == {
        (row.account_id, f"{RESERVED_IDS}{row.id}") for row in committed.values()
    }
    assert {row.id: row.committed for row in reservations} == {
        id_: hold.committed for id_, hold in run.sent.holds.items()
    }
    assert {row.status for row in reservations} <= {ReservationStatus.COMMITTED, ReservationStatus.RELEASED}
    # The sum of each figure is that of the distinct events; so are the roll-ups.
    sums: dict[tuple[UUID, str], int] = defaultdict(int)
    for event in events:
        key = (event.account_id, event.event_id)
        row = committed.get(UUID(event.event_id.removeprefix(RESERVED_IDS))) if key not in plain else None
        quantity = wanted[key] if row is None else row.committed
        assert (event.quantity, event.change) == (quantity, quantity)
        sums[event.account_id, event.metric_key] += quantity
    used = {key: total for key, total in sums.items() if total}
    assert {(row.account_id, row.metric_key): row.used for row in counters if row.used} == used
    for granularity in (Granularity.HOUR, Granularity.DAY):
        rolled = {(row[0], row[1]): int(row[3]) for row in rollups if row[2] is granularity}
        assert {key: total for key, total in rolled.items() if total} == used
    await check_alerts(run, sums)
    await check_file(run.database)


async def check_alerts(run: Run, sums: dict[tuple[UUID, str], int]) -> None:
    """Each threshold that was reached raised once in its episode, has one outbox row, and was heard once, in order."""
    async with run.database.read() as session:
        alerts = (await session.scalars(select(Alert).where(Alert.account_id.in_(run.account_ids)))).all()
    reached = {
        (account_id, metric, threshold)
        for (account_id, metric), used in sums.items()
        for threshold in THRESHOLDS
        if used * 100 >= threshold * LIMITS[metric]
    }
    assert {(row.account_id, row.subject, row.threshold) for row in alerts if row.resolved_at is None} == reached
    episodes = Tally((row.account_id, row.subject, row.threshold, row.period_start, row.episode) for row in alerts)
    assert set(episodes.values()) <= {1}
    heard = {listener.account_id: listener.heard for listener in run.listeners}
    for account_id in run.account_ids:
        mine = {row.id: row for row in alerts if row.account_id == account_id}
        told = await list_told(run.database, account_id)
        raised = Tally(UUID(event.payload["alertId"]) for event in told if event.kind == "usage.alert_raised")
        assert raised == dict.fromkeys(mine, 1)
        assert {mine[UUID(event.payload["alertId"])].sequence for event in told if event.kind.endswith("raised")} == {
            event.sequence for event in told if event.kind.endswith("raised")
        }
        resolved = Tally(UUID(event.payload["alertId"]) for event in told if event.kind == "usage.alert_resolved")
        assert resolved == dict.fromkeys((row.id for row in mine.values() if row.resolved_at is not None), 1)
        if account_id in heard:
            assert [(id_, threshold) for id_, threshold, _ in heard[account_id]] == [
                (UUID(event.payload["alertId"]), event.payload["threshold"]) for event in told
            ]
