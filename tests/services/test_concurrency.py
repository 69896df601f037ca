"""Many at once: nothing is lost, counted twice, raised twice or overshot."""

import asyncio
from collections import Counter as Tally

import pytest
from sqlalchemy import func, select

from plafond.models import UsageEvent, UsageEventId
from plafond.services.metering import record_usage

from ..conftest import World
from .helpers import (
    ACTOR,
    OPERATOR,
    account_of,
    alerts_of,
    change_limit,
    codes,
    emails,
    gauge,
    outbox_of,
    period_of,
    rollup_sum,
    send,
    used,
)


async def rows_of(world: World, event_id: str) -> tuple[int, int]:
    """How often an event and its id are stored."""
    async with world.database.read() as session:
        ids = await session.scalar(select(func.count()).where(UsageEventId.event_id == event_id))
        events = await session.scalar(select(func.count()).where(UsageEvent.event_id == event_id))
    return ids or 0, events or 0


async def test_two_hundred_at_once_raise_each_threshold_once(world: World) -> None:
    """Hard case 20."""
    world.clock.stands_at = (await period_of(world)).end
    await change_limit(world, 100)
    before = await rollup_sum(world, "email_sends", "DAY")
    first = (await account_of(world)).sequence
    results = await asyncio.gather(*(send(world, emails(f"e{n}")) for n in range(200)))
    assert Tally(codes([batch[0] for batch in results])) == {"ACCEPTED": 200}
    assert sorted(batch[0].used or 0 for batch in results) == list(range(1, 201))
    assert await used(world) == 200
    assert await rollup_sum(world, "email_sends", "DAY") == before + 200
    raised = await alerts_of(world)
    assert [(alert.threshold, alert.used, alert.episode) for alert in raised] == [
        (threshold, threshold, 1) for threshold in (80, 90, 95, 100)
    ]
    told = [event.payload for event in await outbox_of(world, after=first) if event.kind == "usage.alert_raised"]
    assert [payload["threshold"] for payload in told] == [80, 90, 95, 100]
    # Figures, alerts, banners, and once the budget, of which the first block of overage spends something.
    assert (await account_of(world)).sequence == first + 200 + 4 + 4 + 1


async def test_fifty_posts_of_one_event_are_one_row(world: World) -> None:
    """Hard case 15."""
    results = await asyncio.gather(*(send(world, emails("same", 7)) for _ in range(50)))
    assert Tally(codes([batch[0] for batch in results])) == {"ACCEPTED": 1, "DUPLICATE": 49}
    assert await rows_of(world, "same") == (1, 1)
    assert await used(world) == 23_457


async def test_a_crash_before_the_commit_leaves_nothing_and_the_retry_counts_once(world: World) -> None:
    """Hard case 15."""

    async def crash() -> None:
        async with world.database.work(ACTOR) as work:
            assert codes(await record_usage(work, OPERATOR, [emails("a", 20_000)])) == ["ACCEPTED"]
            await work.session.flush()
            raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError, match="the process ends here"):
        await crash()
    assert await rows_of(world, "a") == (0, 0)
    assert await used(world) == 23_450
    assert await alerts_of(world) == []
    assert codes(await send(world, emails("a", 20_000))) == ["ACCEPTED"]
    assert codes(await send(world, emails("a", 20_000))) == ["DUPLICATE"]
    assert await used(world) == 43_450
    assert [alert.threshold for alert in await alerts_of(world)] == [80]


async def test_a_blocking_gauge_never_overshoots(world: World) -> None:
    """Hard case 21, of a limit."""
    assert await used(world, "custom_domains") == 5  # of 15
    results = await asyncio.gather(*(send(world, gauge(f"g{n}", quantity=1)) for n in range(50)))
    assert Tally(codes([batch[0] for batch in results])) == {"ACCEPTED": 10, "LIMIT_EXCEEDED": 40}
    assert await used(world, "custom_domains") == 15
    assert [alert.threshold for alert in await alerts_of(world, metric="custom_domains")] == [80, 90, 95, 100]


async def test_batches_over_the_same_accounts_in_any_order_do_not_deadlock(world: World) -> None:
    names = ["acme", "birchwood", "calder", "ginza"]
    before = {name: await used(world, name=name) for name in names}
    orders = [names, names[::-1], names[2:] + names[:2], names[1:] + names[:1]]
    await asyncio.gather(
        *(send(world, *(emails(f"{n}-{name}", account=name) for name in order)) for n, order in enumerate(orders * 5))
    )
    assert {name: await used(world, name=name) for name in names} == {name: before[name] + 20 for name in names}
