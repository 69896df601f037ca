"""The worker: what waits for the processor waits alone, and who is told to stop ends with a piece of work."""

import asyncio

import anyio
import pytest
from sqlalchemy import func, select

from plafond import worker as worker_module
from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.database import Database
from plafond.models import BillingAccount, Interval, OutboxEvent, Subscription, SubscriptionStatus
from plafond.services.decisions import decide_start
from plafond.services.ports import ChargeOrder, ChargeResult
from plafond.services.publishing import number_waiting
from plafond.services.tills import Till
from plafond.stopping import Stopping
from plafond.worker import ASKING_AT_ONCE, run_webhooks, run_worker

from .conftest import World
from .faults.runner import until
from .services.engine import open_account, open_till, order
from .services.helpers import account_of
from .services.paying import MONTH
from .services.receiving_hooks import hang, happen, open_post, run_receiver


class Hanging(SandboxProcessor):
    """Does not answer some customers, for as long as the test lasts."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.hung_up_on: set[str] = set()
        self.waiting = 0

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """As the sandbox does, or never."""
        if order.customer in self.hung_up_on:
            self.waiting += 1
            await asyncio.Event().wait()
        return await super().charge(order)


@pytest.mark.parametrize("hanging", [1, ASKING_AT_ONCE])
async def test_a_processor_that_hangs_holds_up_nothing_else(world: World, hanging: int) -> None:
    """Each charge that hangs takes a place; with all of them taken no account is charged, and all else goes on."""
    till = open_till(world.database)
    processor = Hanging(world.database)
    ids = [await open_account(till, f"worked-{number}", None, country="US") for number in range(hanging + 1)]
    for account_id in ids:
        await order(till, account_id, decide_start, "starter", Interval.MONTH)
    *stuck, free = ids
    async with world.database.read() as session:
        for account_id in stuck:
            account = await session.get_one(BillingAccount, account_id)
            assert account.processor_customer is not None
            processor.hung_up_on.add(account.processor_customer)
    began = world.clock.now()
    world.clock.stands_at += MONTH
    worker = asyncio.create_task(run_worker(world.database, processor, Stopping()))
    try:

        async def are_stuck() -> bool:
            return processor.waiting == len(stuck)

        async def is_told() -> bool:
            """All periods are closed, and all that was told has its place."""
            async with world.database.read() as session:
                behind = await session.scalar(
                    select(func.count())
                    .select_from(Subscription)
                    .where(
                        Subscription.status.in_((SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)),
                        Subscription.usage_period_end <= world.clock.now(),
                    )
                )
                unnumbered = await session.scalar(
                    select(func.count())
                    .select_from(OutboxEvent)
                    .where(OutboxEvent.position.is_(None), OutboxEvent.at > began)
                )
            return not behind and not unnumbered

        async def is_free_paid() -> bool:
            async with world.database.read() as session:
                paid = await session.scalar(
                    select(func.count())
                    .select_from(OutboxEvent)
                    .where(OutboxEvent.account_id == free, OutboxEvent.kind == "invoice.paid")
                )
            return paid == 2

        await until(are_stuck)
        await until(is_told)
        if hanging < ASKING_AT_ONCE:
            await until(is_free_paid)
    finally:
        worker.cancel()
        await asyncio.wait([worker])


async def test_who_is_told_to_stop_finishes_what_it_does_and_begins_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not world.database.is_sqlite:
        pytest.skip("it touches no database")
    stopping = Stopping()
    begun, may_end = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def slow(till: Till, *, limit: int, kinds: object) -> int:  # noqa: ARG001
        assert limit == 1, "a piece at a time"
        begun.set()
        await may_end.wait()
        done.append(limit)
        return 1

    monkeypatch.setattr(worker_module, "do_due", slow)
    running = asyncio.create_task(run_worker(world.database, open_till(world.database).processor, stopping))
    with anyio.fail_after(10):
        await begun.wait()
        stopping.begin()
        await asyncio.sleep(0)
        assert done == []
        may_end.set()
        await running
    assert len(done) == 1 + ASKING_AT_ONCE, "each that had begun, and none after"


async def test_who_rests_is_woken() -> None:
    stopping = Stopping()
    resting = asyncio.create_task(stopping.sleep(3_600))
    await asyncio.sleep(0)
    stopping.begin()
    with anyio.fail_after(10):
        await resting
        await stopping.sleep(3_600)
    assert stopping.has_begun
    await Stopping().sleep(0.01)


async def test_webhooks_go_out_beside_one_that_hangs_until_told_to_stop(world: World) -> None:
    account = await account_of(world)
    stopping = Stopping()
    async with run_receiver() as slow, run_receiver() as quick, open_post(world, total_s=30) as post:
        slow.answering = hang
        for receiver in (slow, quick):
            await post.make(account.id, receiver.url)
        running = asyncio.create_task(run_webhooks(world.database, post.hooks, stopping))
        try:
            for number in range(3):
                await happen(world, f"field{number}")
                await number_waiting(world.database, worker_module.WORKER)

            async def has_come() -> bool:
                return len(quick.messages) >= 4 and len(slow.messages) == 1

            await until(has_come, seconds=20)
            stopping.begin()
            slow.hang_up()
            with anyio.fail_after(10):
                await running
        finally:
            running.cancel()
            await asyncio.wait([running])
    assert len(slow.messages) == 1, "nothing new is begun"
