"""F12: clocks jump, or disagree; no period is billed twice, and none is left out."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import cycle

import pytest
from sqlalchemy import func, select

from plafond.models import DueWork, Subscription, WorkKind
from plafond.services.duties import do_due

from ..services.engine import send_emails
from .conftest import BLOCK, OVER_FOR, Due, check_books
from .nodes import open_nodes
from .runner import is_quiet

MOST_ROUNDS = 200


@pytest.mark.parametrize(
    "jump",
    [
        timedelta(days=1),
        pytest.param(timedelta(days=-1), marks=pytest.mark.slow),
        pytest.param(timedelta(hours=1), marks=pytest.mark.slow),
        pytest.param(timedelta(hours=-1), marks=pytest.mark.slow),
    ],
    ids=str,
)
async def test_a_clock_that_jumps_to_and_fro_between_two_pieces_of_work(due: Due, jump: timedelta) -> None:
    async with open_nodes(due, timedelta(0)) as [node]:
        for _, shift in zip(range(MOST_ROUNDS), cycle((timedelta(0), jump)), strict=False):
            node.clock.stands_at = due.now + shift
            await do_due(node.till, limit=2)
            # What was written while the clock was ahead is due then.
            node.clock.stands_at = due.now + max(jump, timedelta(0))
            if await is_quiet(node.database):
                break
        assert await is_quiet(node.database)
        await check_books(node.database, due)


async def test_a_clock_that_goes_back_over_a_period_end(due: Due) -> None:
    """What was closed stays closed; what comes meanwhile, of the past as it seems, is billed once."""
    async with open_nodes(due, timedelta(0)) as [node]:
        closed = [await node.take_next(WorkKind.CLOSE_PERIOD)]
        node.clock.stands_at += timedelta(minutes=2)
        half = len(due.blocks) // 2
        assert await do_due(node.till, limit=half) == half
        async with node.database.read() as session:
            late = (
                await session.scalars(select(DueWork.account_id).where(DueWork.kind == WorkKind.FINALISE_INVOICE))
            ).all()
            running = (
                await session.scalars(
                    select(Subscription.account_id).where(Subscription.usage_period_end < node.clock.now())
                )
            ).all()
        assert len(late) == len(running) == half
        assert closed[0].account_id in late
        node.clock.stands_at = due.now - OVER_FOR - timedelta(days=1)
        assert await do_due(node.till) == 0
        blocks = dict(due.blocks)
        for account_id in (late[0], running[0]):
            assert account_id is not None
            await send_emails(node.till, account_id, BLOCK)
            blocks[account_id] += 1
        assert await do_due(node.till) == 0
        node.clock.stands_at = due.now + timedelta(minutes=2)
        await node.run()
        await check_books(node.database, replace(due, blocks=blocks))


async def test_two_workers_whose_clocks_are_five_minutes_apart(due: Due) -> None:
    """The one ahead takes the other's work for forgotten as soon as it is taken."""
    async with open_nodes(due, timedelta(0), timedelta(minutes=5)) as [behind, ahead]:
        await asyncio.gather(behind.run(limit=3), ahead.run(limit=3))
        behind.clock.stands_at = ahead.clock.stands_at
        await behind.run()
        await check_books(behind.database, due)
        async with behind.database.read() as session:
            most = await session.scalar(select(func.max(DueWork.tries)))
    assert most is not None
    assert most <= 4, "they did not take each other's work again and again"


async def test_a_worker_ahead_of_a_period_end_closes_it_early_and_once(due: Due) -> None:
    async with open_nodes(due, -OVER_FOR - timedelta(minutes=3), -OVER_FOR + timedelta(minutes=2)) as [behind, ahead]:
        assert await do_due(behind.till) == 0
        assert await do_due(ahead.till) == len(due.blocks)
        assert await do_due(behind.till) == 0
        for node in (ahead, behind):
            node.clock.stands_at = due.now
            await node.run()
        await check_books(behind.database, due)
