"""F5: workers are killed around what they send: each event arrives at least once, under its own id, and in its log."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from plafond.database import Database, Work, take_snapshot
from plafond.models import (
    DeliveryStatus,
    OutboxEvent,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from plafond.schema.node import encode_id
from plafond.services.auditing import audit
from plafond.services.deliveries import UNDER_WAY
from plafond.services.endpoints import lock_reader
from plafond.services.publishing import number_waiting
from plafond.services.signing import make_secret

from ..services.receiving_hooks import Receiver, run_receiver
from .conftest import Due
from .runner import RUNNER, Processes, check_file, until

EVENTS = 12
POINTS = ("webhook.planned", "webhook.before_send", "webhook.after_send", "webhook.before_commit")


@dataclass
class Sent:
    """What is to be sent, and who takes it."""

    database: Database
    receiver: Receiver
    processes: Processes


@asynccontextmanager
async def much_to_send(due: Due, database: Database, folder: Path) -> AsyncGenerator[Sent]:
    """An account with an endpoint, and events that nobody has planned yet."""
    account_id = min(due.blocks)
    while await number_waiting(database, RUNNER):
        pass
    async with run_receiver() as receiver:

        async def prepare(work: Work) -> None:
            await lock_reader(work)
            account = (await work.lock_accounts([account_id]))[account_id]
            last = await work.session.scalar(select(func.max(OutboxEvent.position)))
            work.session.add(
                WebhookEndpoint(
                    created_at=work.clock.now(),
                    account_id=account_id,
                    url=receiver.url,
                    event_kinds=["account.updated"],
                    secret=make_secret(),
                    position=last or 0,
                    created_by=RUNNER.name,
                )
            )
            for number in range(EVENTS):
                work.emit(account, "account.updated", {"accountId": str(account_id), "changed": [f"field{number}"]})

        await database.run(RUNNER, prepare)
        with Processes(due.address, folder, settings={"webhook_allow_inside": "true"}) as processes:
            yield Sent(database, receiver, processes)


async def let_go(database: Database) -> None:
    """As if a minute had passed: who died holds no endpoint any more."""
    async with database.work(RUNNER) as work:
        await work.session.execute(update(WebhookEndpoint).values(leased_until=None, rests_until=None))


async def is_all_sent(database: Database) -> bool:
    """Whether each of the events has arrived, as the log has it."""
    async with database.read() as session:
        states = (await session.scalars(select(WebhookDelivery.status))).all()
    return len(states) >= EVENTS and set(states) == {DeliveryStatus.SUCCEEDED}


async def check_sent(sent: Sent) -> None:
    """Each event arrived, in order of the first times, and I10 holds."""
    async with sent.database.read() as session:
        await take_snapshot(session)
        endpoint = (await session.scalars(select(WebhookEndpoint))).one()
        events = (
            await session.scalars(
                select(OutboxEvent)
                .where(
                    OutboxEvent.account_id == endpoint.account_id, OutboxEvent.position > endpoint.position,
                    OutboxEvent.kind == "account.updated",
                )
                .order_by(OutboxEvent.position)
            )
        ).all()  # fmt: skip
        told = [event for event in events if event.payload["changed"][0].startswith("field")]
        assert [
            finding for finding in await audit(session, sent.database.clock.now()) if finding.invariant == "I10"
        ] == []
        bodies = dict((await session.execute(select(WebhookDelivery.event_id, WebhookDelivery.body))).all())
    wanted = [encode_id("BillingEvent", event.id) for event in told]
    assert len(wanted) == EVENTS
    first_times = [id_ for id_ in dict.fromkeys(sent.receiver.ids) if id_ in set(wanted)]
    assert first_times == wanted
    by_id = {str(encode_id("BillingEvent", event_id)): body for event_id, body in bodies.items()}
    for message in sent.receiver.messages:
        assert message.body.decode() == by_id[message.id], "the same bytes each time"
    await check_file(sent.database)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_dies_at_each_point(due: Due, database: Database, tmp_path: Path, point: str) -> None:
    async with much_to_send(due, database, tmp_path) as sent:
        for nth in (1, 2):
            await sent.processes.see_end(sent.processes.start_worker(f"{point}:kill:{nth}"))
            await let_go(database)
            if point == "webhook.planned":
                break  # a batch holds them all
        sent.processes.start_worker()
        await until(lambda: is_all_sent(database))
        await check_sent(sent)
        # What was sent and not noted comes again, and says so.
        twice = len(sent.receiver.ids) - len(set(sent.receiver.ids))
        async with database.read() as session:
            lost = await session.scalar(
                select(func.count())
                .select_from(WebhookAttempt)
                .join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id)
                .where(WebhookAttempt.failure == UNDER_WAY, WebhookDelivery.status == DeliveryStatus.SUCCEEDED)
            )
        assert (twice > 0) == (point in ("webhook.after_send", "webhook.before_commit"))
        assert (lost or 0) == (0 if point == "webhook.planned" else 2)


async def test_workers_are_killed_blindly(due: Due, database: Database, tmp_path: Path) -> None:
    async with much_to_send(due, database, tmp_path) as sent:
        for wanted in (1, 4, 8):
            workers = [sent.processes.start_worker() for _ in range(2)]

            async def has_come(wanted: int = wanted) -> bool:
                return len(sent.receiver.messages) >= wanted or await is_all_sent(database)

            await until(has_come)
            for worker in workers:
                await sent.processes.kill(worker)
            await let_go(database)
        sent.processes.start_worker()
        await until(lambda: is_all_sent(database))
        await check_sent(sent)
