"""Threshold alerts: once per episode, ascending, from nothing in each period; and the outbox's positions."""

from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest
from sqlalchemy import func, select

from plafond.models import (
    GAUGE_PERIOD,
    Alert,
    AlertLevel,
    Metric,
    MetricKind,
    OutboxEvent,
    SubscriptionStatus,
)
from plafond.services.alerts import cut_periods, evaluate, read_usage
from plafond.services.limits import set_limits
from plafond.services.publishing import has_unnumbered, number_outbox
from plafond.worker import WORKER, do_due_work

from ..conftest import NOW, World
from .engine import open_till
from .helpers import (
    ACTOR,
    account_of,
    alerts_of,
    change_limit,
    change_subscription,
    emails,
    gauge,
    outbox_of,
    period_of,
    previous_period,
    send,
)

HOUR = timedelta(hours=1)
LEVELS = {
    80: AlertLevel.WARNING,
    90: AlertLevel.UPGRADE_SUGGESTION,
    95: AlertLevel.URGENT,
    100: AlertLevel.LIMIT_REACHED,
}


def told(found: list[Alert]) -> list[tuple[int, int, bool]]:
    """Threshold, episode, and whether it is open."""
    return [(alert.threshold, alert.episode, alert.resolved_at is None) for alert in found]


async def test_each_threshold_is_raised_once_when_it_is_reached(world: World) -> None:
    steps = [(499, []), (1, [80]), (4_999, [80]), (1, [80, 90]), (2_500, [80, 90, 95]), (2_499, [80, 90, 95])]
    steps += [(1, [80, 90, 95, 100]), (1, [80, 90, 95, 100]), (90_000, [80, 90, 95, 100])]
    for n, (quantity, raised) in enumerate(steps):
        await send(world, emails(f"e{n}", quantity, account="birchwood"))
        found = await alerts_of(world, "birchwood")
        assert [alert.threshold for alert in found] == raised
    assert [alert.used for alert in found] == [40_000, 45_000, 47_500, 50_000]
    assert {alert.ceiling for alert in found} == {50_000}
    assert {alert.threshold: alert.level for alert in found} == LEVELS
    assert {alert.episode for alert in found} == {1}


async def test_a_jump_raises_each_ascending_in_one_write(world: World) -> None:
    """Hard case 17: 79 % to 101 %."""
    before = (await account_of(world, "birchwood")).sequence
    period = await period_of(world, "birchwood")
    await send(world, emails("jump", 11_000, account="birchwood"))
    found = await alerts_of(world, "birchwood")
    assert [(alert.threshold, alert.level) for alert in found] == list(LEVELS.items())
    assert {(alert.used, alert.raised_at, alert.period_start) for alert in found} == {(50_500, NOW, period.start)}
    *events, banner = await outbox_of(world, "birchwood", before)
    assert (banner.kind, banner.payload["changed"]) == ("account.updated", ["notices"])
    assert [(event.kind, event.payload["threshold"]) for event in events] == [
        ("usage.alert_raised", threshold) for threshold in LEVELS
    ]
    assert [event.sequence for event in events] == [alert.sequence for alert in found]
    assert [event.payload["alertId"] for event in events] == [str(alert.id) for alert in found]


async def test_the_steps_of_one_batch_raise_as_their_end_does(world: World) -> None:
    await send(world, *(emails(f"e{n}", 1_100, account="birchwood") for n in range(10)))
    assert told(await alerts_of(world, "birchwood")) == [(threshold, 1, True) for threshold in LEVELS]


async def test_a_full_gauge_is_at_100_percent(world: World) -> None:
    """Hard case 17: reaching counts."""
    await send(world, gauge("a", "workspaces", quantity=3))
    found = await alerts_of(world, metric="workspaces")
    assert [alert.threshold for alert in found] == [80, 90, 95, 100]
    assert {(alert.period_start, alert.period_end) for alert in found} == {(GAUGE_PERIOD, None)}


async def test_a_gauge_that_falls_below_resolves_and_raises_anew(world: World) -> None:
    await send(world, gauge("a", "workspaces", quantity=2))
    assert told(await alerts_of(world, metric="workspaces")) == [(80, 1, True), (90, 1, True)]
    await send(world, gauge("b", "workspaces", quantity=-1))
    assert told(await alerts_of(world, metric="workspaces")) == [(80, 1, True), (90, 1, False)]
    await send(world, gauge("c", "workspaces", quantity=1))
    assert told(await alerts_of(world, metric="workspaces")) == [(80, 1, True), (90, 1, False), (90, 2, True)]
    await send(world, gauge("d", "workspaces", level=1))
    assert told(await alerts_of(world, metric="workspaces")) == [(80, 1, False), (90, 1, False), (90, 2, False)]
    await send(world, gauge("e", "workspaces", level=8, occurred_at=NOW + timedelta(seconds=1)))
    assert told(await alerts_of(world, metric="workspaces"))[-1] == (80, 2, True)


async def test_a_gauge_that_falls_tells_the_outbox(world: World) -> None:
    await send(world, gauge("a", "workspaces", quantity=1))
    before = (await account_of(world)).sequence
    await send(world, gauge("b", "workspaces", quantity=-1))
    (alert,) = await alerts_of(world, metric="workspaces")
    assert [(event.kind, event.payload.get("alertId")) for event in await outbox_of(world, after=before)] == [
        ("usage.alert_resolved", str(alert.id)),
        ("account.updated", None),
    ]
    assert alert.resolved_at == NOW


async def test_a_correction_of_a_counter_resolves_nothing_and_raises_nothing_anew(world: World) -> None:
    await send(world, emails("a", 500, account="birchwood"))
    await send(world, emails("b", -10_000, account="birchwood", correction=True))
    assert told(await alerts_of(world, "birchwood")) == [(80, 1, True)]
    await send(world, emails("c", 10_000, account="birchwood"))
    assert told(await alerts_of(world, "birchwood")) == [(80, 1, True)]


async def test_a_new_period_starts_from_nothing_even_after_a_high_end(world: World) -> None:
    """Hard case 18: ends at 96 %; the next period's first reading is 85 %."""
    assert told(await alerts_of(world, "calder")) == [(80, 1, True), (90, 1, True), (95, 1, True)]
    world.clock.stands_at = (await period_of(world, "calder")).end
    await send(world, emails("first", 8_500, account="calder"))
    found = await alerts_of(world, "calder")
    assert told(found) == [(80, 1, False), (90, 1, False), (95, 1, False), (80, 1, True)]
    assert found[-1].period_start == world.clock.stands_at


async def test_a_period_that_ends_is_resolved_by_due_work_once(world: World) -> None:
    till = open_till(world.database)
    period = await period_of(world, "calder")
    world.clock.stands_at = period.end - timedelta(seconds=1)
    while await do_due_work(till):
        pass
    assert {alert.resolved_at for alert in await alerts_of(world, "calder")} == {None}
    before = (await account_of(world, "calder")).sequence
    world.clock.stands_at = period.end
    while await do_due_work(till):
        pass
    found = await alerts_of(world, "calder")
    assert {alert.resolved_at for alert in found} == {period.end}
    told_of = [event for event in await outbox_of(world, "calder", before) if event.kind.startswith("usage.")]
    assert [(event.kind, event.payload["threshold"]) for event in told_of] == [
        ("usage.alert_resolved", threshold) for threshold in (80, 90, 95)
    ]
    assert await do_due_work(till) == 0


async def test_an_open_gauge_alert_outlives_the_period(world: World) -> None:
    till = open_till(world.database)
    await send(world, gauge("a", "workspaces", quantity=1))
    world.clock.stands_at = (await period_of(world)).end
    while await do_due_work(till):
        pass
    assert told(await alerts_of(world, metric="workspaces")) == [(80, 1, True)]


async def test_events_for_an_earlier_period_never_raise(world: World) -> None:
    before = await previous_period(world, "birchwood")
    known = told(await alerts_of(world, "birchwood"))
    (result,) = await send(world, emails("late", 90_000, account="birchwood", occurred_at=before.start))
    assert result.status == "ACCEPTED"
    assert told(await alerts_of(world, "birchwood")) == known


async def test_a_canceled_account_raises_nothing(world: World) -> None:
    await change_subscription(world, "birchwood", status=SubscriptionStatus.CANCELED, canceled_at=NOW - HOUR)
    (result,) = await send(world, emails("a", 1_000, account="birchwood", occurred_at=NOW - 2 * HOUR))
    assert result.status == "ACCEPTED"
    assert await alerts_of(world, "birchwood") == []


async def test_rejected_and_repeated_events_raise_nothing(world: World) -> None:
    await send(world, emails("a", 500, account="birchwood"), gauge("b", quantity=100, account="birchwood"))
    await send(world, emails("a", 500, account="birchwood"))
    assert told(await alerts_of(world, "birchwood")) == [(80, 1, True)]
    assert await alerts_of(world, "birchwood", "custom_domains") == []


async def test_unlimited_never_raises_and_limit_zero_is_reached_by_any_use(world: World) -> None:
    """Hard case 19."""
    await change_limit(world, None)
    await send(world, emails("a", 10**9))
    assert await alerts_of(world) == []
    await change_limit(world, 0, name="ginza")
    await send(world, emails("b", 1, account="ginza"))
    assert [alert.threshold for alert in await alerts_of(world, "ginza")] == [80, 90, 95, 100]


async def positions(world: World) -> list[tuple[Any, int, int | None]]:
    async with world.database.read() as session:
        rows = await session.execute(
            select(OutboxEvent.account_id, OutboxEvent.sequence, OutboxEvent.position).order_by(
                OutboxEvent.account_id, OutboxEvent.sequence
            )
        )
        return [(row.account_id, row.sequence, row.position) for row in rows]


async def number_all(world: World) -> int:
    total = 0
    while True:
        async with world.database.work(WORKER) as work:
            numbered = await number_outbox(work)
        if not numbered:
            return total
        total += numbered


async def test_the_publisher_numbers_each_event_once_in_each_accounts_order(world: World) -> None:
    await number_all(world)
    first = await positions(world)
    await send(world, emails("a", 11_000, account="birchwood"), emails("b", 40_000), gauge("c", quantity=10))
    assert await has_unnumbered(world.database)
    # Twelve alerts of usage and one of a budget, and the banners of three metrics and the budget.
    assert await number_all(world) == 17
    assert not await has_unnumbered(world.database)
    second = await positions(world)
    assert set(first) <= set(second)
    given = [position for _, _, position in second]
    assert sorted(position or 0 for position in given) == list(range(1, len(given) + 1))
    for _, rows in groupby(second, key=lambda row: row[0]):
        order = [position or 0 for _, _, position in rows]
        assert order == sorted(order)


async def test_a_later_event_never_gets_a_smaller_position(world: World) -> None:
    await number_all(world)
    last = max(position or 0 for _, _, position in await positions(world))
    await send(world, emails("a", 500, account="birchwood"))
    await number_all(world)
    (event,) = [event for event in await outbox_of(world, "birchwood") if event.position == last + 1]
    assert event.kind == "usage.alert_raised"


async def test_an_event_just_ahead_raises_in_the_period_it_opens(world: World) -> None:
    """Accepted up to five minutes ahead, it may fill the next period, in which perhaps no other event follows."""
    period = await period_of(world)
    world.clock.stands_at = period.end - timedelta(minutes=2)
    await send(world, emails("ahead", 60_000, occurred_at=period.end + timedelta(minutes=1)))
    raised = [alert for alert in await alerts_of(world) if alert.period_start == period.end]
    assert [alert.threshold for alert in raised] == [80, 90, 95, 100]


async def test_a_changed_limit_is_looked_at_at_once(world: World) -> None:
    """Hard case 19: 900 of 1,000, then of 2,000; then 1,600 are used; then the limit is lower again, none, and 0."""
    await limit_to(world, 1_000)
    await send(world, emails("all", -23_450, correction=True), emails("a", 900))
    first = len(await alerts_of(world))  # those of 23,450 of 1,000: a correction does not resolve them
    assert first == 4
    await limit_to(world, 2_000)
    assert {alert.resolved_at is None for alert in await alerts_of(world)} == {False}
    await send(world, emails("b", 700))
    assert told(await alerts_of(world))[first:] == [(80, 2, True)]
    await limit_to(world, 1_700)
    assert told(await alerts_of(world))[first:] == [(80, 2, True), (90, 2, True)]
    await limit_to(world, None)
    assert told(await alerts_of(world))[first:] == [(80, 2, False), (90, 2, False)]
    await limit_to(world, 0)
    again = [(80, 3, True), (90, 3, True), (95, 2, True), (100, 2, True)]
    assert told(await alerts_of(world))[first + 2 :] == again


async def limit_to(world: World, limit: int | None) -> None:
    """Another limit of e-mails for Acme, as a change of plan puts it in force."""
    limits: dict[str, int | None] = {"email_sends": limit, "team_members": 5, "workspaces": 10, "custom_domains": 15}
    account_id, running = (await account_of(world)).id, await period_of(world)
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await set_limits(work, account, limits, running, "test")


async def test_a_start_ends_what_was_raised_before_the_first_plan(world: World) -> None:
    """Without a subscription months run from the account's creation; the one that runs then is cut by the start."""
    await change_limit(world, 10)
    period = await period_of(world)
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([(await account_of(world)).id])).popitem()[1]
        metric = (await work.session.scalars(select(Metric).where(Metric.key == "email_sends"))).one()
        await evaluate(work, [read_usage(account, metric, period, 9, 10)])
        await cut_periods(work, account, NOW)
    found = await alerts_of(world)
    assert told(found) == [(80, 1, False), (90, 1, False)]
    assert {alert.period_end for alert in found} == {NOW}


@pytest.mark.parametrize("count", [1, 40])
async def test_a_batch_of_alerts_costs_as_many_statements_as_one(world: World, count: int) -> None:
    """Raised and resolved, with banners, however many metrics and accounts there are in it."""
    keys = [f"metric_{n}" for n in range(count)]
    async with world.database.work(ACTOR) as work:
        work.session.add_all(
            Metric(created_at=NOW, key=key, name=key, kind=MetricKind.GAUGE, unit="pieces", position=n)
            for n, key in enumerate(keys)
        )
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([(await account_of(world)).id])).popitem()[1]
        metrics = (await work.session.scalars(select(Metric).where(Metric.key.in_(keys)))).all()
        for used, expected in ((0, 2), (4, 10), (4, 2), (5, 10), (0, 10)):
            world.statements.clear()
            await evaluate(work, [read_usage(account, metric, None, used, 5) for metric in metrics])
            await work.session.flush()
            assert len(world.statements) == expected, world.statements
            raised = await work.session.scalar(
                select(func.count()).where(Alert.resolved_at.is_(None), Alert.subject.in_(keys))
            )
            assert raised == count * {0: 0, 4: 1, 5: 4}[used]
