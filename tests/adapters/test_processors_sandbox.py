"""The embedded processor's moods: what it sends, how often, and what it does when it is asked by many at once."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from plafond.adapters.sandbox_processor import (
    SandboxProcessor,
    acknowledge,
    close_disputes,
    postpone,
    set_conduct,
    take_messages,
)
from plafond.clock import SetClock
from plafond.database import Database
from plafond.models import SandboxAnswers, SandboxMessages
from plafond.services.ports import ChargeStatus, EventKind, ProcessorFailed, RefundOutcome

from ..conftest import NOW
from .processors import OPERATOR, SandboxStage, Stage
from .test_processors import ASKS, order, paid, refund_of

LIMIT = 100


@pytest.fixture
def stage(bare: Database) -> Stage:
    return SandboxStage(bare)


async def behave(database: Database, customer: str, messages: SandboxMessages) -> None:
    async with database.work(OPERATOR) as work:
        await set_conduct(work, customer, SandboxAnswers.NORMAL, messages)


async def kinds(database: Database) -> list[EventKind]:
    return [message.kind for message in await take_messages(database, LIMIT)]


async def test_a_message_stays_until_it_is_acknowledged(stage: Stage, bare: Database) -> None:
    await paid(stage)
    [message] = await take_messages(bare, LIMIT)
    assert await take_messages(bare, LIMIT) == [message]
    await acknowledge(bare, message)
    assert await take_messages(bare, LIMIT) == []
    await acknowledge(bare, message)
    assert await take_messages(bare, LIMIT) == []


async def test_messages_come_twice_and_in_any_order(stage: Stage, bare: Database) -> None:
    given = await order(stage)
    await behave(bare, given.customer, SandboxMessages.TWICE_SHUFFLED)
    charge = await stage.processor.charge(given)
    for number in range(4):
        await stage.processor.refund(refund_of(charge, key=f"refund:{number}"))
    taken = await take_messages(bare, LIMIT)
    assert set(Counter(message.id for message in taken).values()) == {2}
    assert len(taken) == 10
    orders = {tuple(message.id for message in await take_messages(bare, LIMIT)) for _ in range(20)}
    assert len(orders) > 1
    await acknowledge(bare, taken[0])
    left = Counter(message.id for message in await take_messages(bare, LIMIT))
    assert left[taken[0].id] == 1
    assert left.total() == 9


async def test_one_that_is_silent_sends_nothing(stage: Stage, bare: Database) -> None:
    given = await order(stage, "pm_card_createDispute")
    await behave(bare, given.customer, SandboxMessages.NONE)
    charge = await stage.processor.charge(given)
    await stage.processor.refund(refund_of(charge))
    async with bare.work(OPERATOR) as work:
        assert await close_disputes(work, given.customer, won=False) == 1
    assert await take_messages(bare, LIMIT) == []


async def test_conduct_is_towards_one_customer(stage: Stage, bare: Database) -> None:
    given = await order(stage)
    await behave(bare, given.customer, SandboxMessages.NONE)
    await behave(bare, "cus_other", SandboxMessages.ONCE)
    await stage.processor.charge(given)
    assert await kinds(bare) == []


async def test_each_change_is_told_once(stage: Stage, bare: Database) -> None:
    given, charge = await paid(stage, "pm_card_createDispute")
    await stage.processor.charge(given)
    assert await kinds(bare) == [EventKind.CHARGE, EventKind.DISPUTE]
    for _ in range(2):
        async with bare.work(OPERATOR) as work:
            await close_disputes(work, given.customer, won=True)
    await stage.processor.refund(refund_of(charge))
    await stage.processor.refund(refund_of(charge))
    assert Counter(await kinds(bare)) == {EventKind.CHARGE: 1, EventKind.DISPUTE: 2, EventKind.REFUND: 1}


async def test_nobody_is_sent_to_confirm_a_payment(stage: Stage, bare: Database) -> None:
    """Asking after it is the confirmation, and hearing a message asks."""
    result = await stage.processor.charge(await order(stage, ASKS, on_session=True))
    assert await kinds(bare) == []
    await stage.processor.look_up(result.processor_id)
    assert await kinds(bare) == [EventKind.CHARGE]


async def test_a_message_that_could_not_be_heard_holds_no_other_up(stage: Stage, bare: Database) -> None:
    await paid(stage)
    await stage.processor.charge(await order(stage, key="invoice:2:0"))
    first, second = await take_messages(bare, LIMIT)
    assert isinstance(bare.clock, SetClock)
    bare.clock.stands_at = NOW + timedelta(seconds=1)
    await postpone(bare, first)
    assert await take_messages(bare, 1) == [second]
    assert await take_messages(bare, LIMIT) == [second, first]


async def test_one_that_hangs_is_waited_for_so_long(bare: Database) -> None:
    processor = SandboxProcessor(bare, hangs_for_s=0.05)
    async with bare.work(OPERATOR) as work:
        await set_conduct(work, "cus_1", SandboxAnswers.HANGS, SandboxMessages.ONCE)
    given = await order(SandboxStage(bare), customer="cus_1")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(ProcessorFailed):
        await processor.charge(given)
    assert loop.time() - begun >= 0.05


async def test_many_calls_with_one_key_make_one_charge(stage: Stage, bare: Database) -> None:
    given = await order(stage)
    results = await asyncio.gather(*(stage.processor.charge(given) for _ in range(8)))
    assert len({result.processor_id for result in results}) == 1
    assert {result.status for result in results} == {ChargeStatus.SUCCEEDED}
    assert await kinds(bare) == [EventKind.CHARGE]


async def test_many_refunds_give_back_what_was_paid(stage: Stage) -> None:
    _, charge = await paid(stage)
    orders = [refund_of(charge, key=f"refund:{number}", amount_minor=5_000) for number in range(8)]
    results = await asyncio.gather(*(stage.processor.refund(each) for each in orders))
    assert Counter(result.status for result in results) == {RefundOutcome.SUCCEEDED: 2, RefundOutcome.FAILED: 6}
