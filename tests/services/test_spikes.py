"""Unusual days: noticed on the same day, once, with what caused them; and what switches that off."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from plafond.models import Alert, AlertKind, AlertLevel, Counter, Interval, Notice, Role, SubscriptionStatus
from plafond.schema.node import encode_id
from plafond.services import spikes
from plafond.services.access import Scope
from plafond.services.accounts import update_account
from plafond.services.acknowledgements import acknowledge_alerts
from plafond.services.cursors import encode_change
from plafond.services.decisions import decide_start
from plafond.services.limits import set_limits
from plafond.services.rules.periods import Period
from plafond.services.rules.thresholds import percent_of
from plafond.services.spikes import STAYS, find_over, look_at_all
from plafond.services.test_clocks import advance_clock, create_clock
from plafond.services.texts import notice_text
from plafond.worker import WORKER, do_due_work

from ..conftest import NOW, Client, World
from ..http.test_sockets import connect
from .engine import open_account, open_till, order
from .helpers import (
    ACTOR,
    OPERATOR,
    account_of,
    alerts_of,
    change_subscription,
    emails,
    gauge,
    outbox_of,
    send,
    tenant_key,
)

DAY = timedelta(days=1)
LAUNCH = {"workspace": "main", "campaign": "launch", "urgent": True}


async def spikes_of(world: World, name: str = "acme") -> list[Alert]:
    return [alert for alert in await alerts_of(world, name) if alert.kind is AlertKind.SPIKE]


async def look(world: World) -> int:
    return await look_at_all(world.database, WORKER)


async def test_an_unusual_day_is_told_once_with_what_caused_it(world: World) -> None:
    key = tenant_key((await account_of(world)).id, Scope.USAGE_WRITE)
    usual = [emails(f"usual-{week}", 100, occurred_at=NOW - week * 7 * DAY, properties=LAUNCH) for week in range(1, 5)]
    await send(world, *usual, principal=key)
    await look(world)
    assert await spikes_of(world) == [], "its days are all alike"
    (jump,) = await spikes_of(world, "dunmore")
    assert (jump.used, jump.ceiling, jump.spike["day"]) == (231, 14, "2026-11-24"), "it grew by far a day before"
    before = (await account_of(world)).sequence
    await send(
        world,
        *(emails(f"burst-{n}", 2_000, properties={**LAUNCH, "request": f"r{n}"}) for n in range(9)),
        principal=key,
    )
    looked = await asyncio.gather(look(world), look(world))
    assert max(looked) == 1
    (alert,) = await spikes_of(world)
    assert (alert.level, alert.episode, alert.raised_at, alert.resolved_at) == (AlertLevel.WARNING, 1, NOW, None)
    assert alert.spike["day"] == "2026-11-25"
    assert alert.used >= 18_000 > 7 * alert.ceiling > 0
    causes = {(cause["kind"], cause["name"]): cause for cause in alert.spike["causes"]}
    workspace = causes["WORKSPACE", "main"]
    assert workspace["quantity"] >= 18_000
    for kind, name in (("API_KEY", "api_key:test"), ("PROPERTY", "campaign=launch"), ("PROPERTY", "urgent=true")):
        assert causes[kind, name] == {"kind": kind, "name": name, "quantity": 18_000, "usual": 100}
    assert set(causes) == {
        ("WORKSPACE", "main"),
        ("API_KEY", "api_key:test"),
        ("PROPERTY", "campaign=launch"),
        ("PROPERTY", "urgent=true"),
        ("PROPERTY", "request=r0"),
    }
    events = [event for event in await outbox_of(world, after=before) if event.payload.get("kind") == "SPIKE"]
    assert [(event.kind, event.sequence, event.payload["alertId"]) for event in events] == [
        ("usage.alert_raised", alert.sequence, str(alert.id))
    ]
    await send(world, emails("more", 5_000))
    assert await look(world) == 1
    assert [each.used for each in await spikes_of(world)] == [alert.used], "it tells of the moment"
    assert await look(world) == 0, "nothing moved since"


async def test_a_day_is_looked_at_with_late_usage_and_resolved_a_day_after_it(world: World) -> None:
    world.clock.stands_at = NOW + DAY
    till = open_till(world.database)
    while await do_due_work(till):
        pass
    await send(world, emails("late", 20_000, occurred_at=NOW))
    await do_due_work(till)
    (alert,) = await spikes_of(world)
    assert (alert.spike["day"], alert.raised_at, alert.resolved_at) == ("2026-11-25", NOW + DAY, None)
    assert alert.period_end is not None
    world.clock.stands_at = alert.period_end + STAYS - timedelta(seconds=1)
    assert await find_over(world.database) == []
    world.clock.stands_at += timedelta(seconds=1)
    while await do_due_work(till):
        pass
    (alert,) = await spikes_of(world)
    assert alert.resolved_at == world.clock.stands_at
    await send(world, emails("too-late", 20_000, occurred_at=NOW - 2 * DAY))
    await do_due_work(till)
    assert len(await spikes_of(world)) == 1, "a day that is long over is not told of"


async def notices_of(world: World) -> list[Notice]:
    account = await account_of(world)
    async with world.database.read() as session:
        found = select(Notice).where(Notice.account_id == account.id, Notice.code == "USAGE_SPIKE")
        return list(await session.scalars(found))


async def test_it_can_be_seen_put_away_and_switched_off(world: World) -> None:
    await send(world, emails("burst", 20_000, properties=LAUNCH))
    await look(world)
    (alert,) = await spikes_of(world)
    (notice,) = await notices_of(world)
    assert (notice.subject, notice.dismissible, notice.params["used"]) == ("email_sends", True, alert.used)
    account_id = alert.account_id
    async with world.database.work(ACTOR) as work:
        await acknowledge_alerts(work, account_id, [alert.id])
    async with world.database.work(ACTOR) as work:
        await update_account(work, OPERATOR, account_id, {"spike_alerts": False})
    (alert,) = await spikes_of(world)
    assert (alert.acknowledged_by, alert.resolved_at) == (ACTOR.name, NOW)
    assert await notices_of(world) == []
    world.clock.stands_at = NOW + DAY
    await send(world, emails("again", 30_000))
    assert await look(world) == 0
    assert len(await spikes_of(world)) == 1, "no more while it is off"
    async with world.database.work(ACTOR) as work:
        await update_account(work, OPERATOR, account_id, {"spike_alerts": True})
    assert await look(world) == 1
    assert len(await spikes_of(world)) == 2, "what came meanwhile is looked at"


async def test_what_is_not_watched_any_more_keeps_none_open_and_raises_none(world: World) -> None:
    await send(world, emails("burst", 15_000))
    await look(world)
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        await set_limits(work, locked, {}, Period(NOW, NOW), "subscription.canceled", is_watched=False)
    (alert,) = await spikes_of(world)
    assert (alert.resolved_at, await notices_of(world)) == (NOW, [])
    await change_subscription(world, "acme", status=SubscriptionStatus.CANCELED, canceled_at=NOW)
    await send(world, emails("before", 15_000, occurred_at=NOW - DAY))
    assert await look(world) == 0


async def test_gauges_are_not_looked_at(world: World) -> None:
    await look(world)
    await send(world, gauge("jump", "custom_domains", quantity=10))
    assert await look(world) == 0
    async with world.database.read() as session:
        kept = select(Counter.used).where(Counter.metric_key == "custom_domains", Counter.has_moved)
        assert (await session.scalars(kept)).all() == []


async def test_the_same_statements_for_one_counter_and_for_many(world: World) -> None:
    counted = []
    await look(world)
    for names in (["acme"], ["birchwood", "calder", "acme", "ginza"]):
        await send(world, *(emails(f"few-{len(names)}", 1, account=name) for name in names))
        world.statements.clear()
        await look(world)
        counted.append(len(world.statements))
    assert counted[0] == counted[1] <= 7


async def test_what_moves_while_it_is_looked_at_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(world, emails("a", 1))
    read = spikes._find_spikes

    async def read_slowly(*given: Any) -> list[spikes.Spike]:
        found = await read(*given)
        monkeypatch.undo()
        await send(world, emails("b", 20_000))
        return found

    monkeypatch.setattr(spikes, "_find_spikes", read_slowly)
    await look(world)
    assert await spikes_of(world) == []
    await look(world)
    assert len(await spikes_of(world)) == 1


READ = """query ($id: ID!) { billingAccount(id: $id) { spikeAlerts
  alerts(first: 5, filter: { kinds: [SPIKE], metrics: ["email_sends"] }) { nodes {
    id kind threshold level used limit percent message periodStart subject { ... on Metric { key } }
    spike { day expected quantity causes { kind name quantity usual } } } } } }"""
RAISED = """subscription($id: ID!, $after: String) {
  alertRaised(accountId: $id, after: $after) { id kind spike { day quantity } } }"""


async def test_a_member_hears_of_it_and_reads_it_without_money(world: World, client: Client) -> None:
    member = world.token("Acme", Role.MEMBER)
    account = await account_of(world)
    id_, after = encode_id("BillingAccount", account.id), encode_change(account.id, account.sequence)
    await send(world, emails("burst", 15_000, properties=LAUNCH))
    async with connect(world) as socket:
        await socket.init(member)
        await socket.subscribe("s", RAISED, id=id_, after=after)
        await look(world)
        told = await socket.next()
    (alert,) = await spikes_of(world)
    assert told["spike"] == {"day": "2026-11-25", "quantity": alert.used}
    found: Any = await client.data(member, READ, id=id_)
    assert found["billingAccount"]["spikeAlerts"] is True
    (shown,) = found["billingAccount"]["alerts"]["nodes"]
    assert (shown["id"], shown["kind"], shown["threshold"], shown["limit"]) == (told["id"], "SPIKE", None, None)
    assert (shown["used"], shown["subject"]) == (alert.used, {"key": "email_sends"})
    assert (shown["percent"], shown["spike"]["expected"]) == (percent_of(alert.used, alert.ceiling), alert.ceiling)
    assert shown["message"] == (
        f"Email sends: {alert.used:,} on 2026-11-25, where such a day usually has {alert.ceiling:,}; "
        "most of it: workspace main, sent by operator:test, campaign=launch."
    )
    (notice,) = await notices_of(world)
    assert notice_text(notice.code, notice.params)[0] == "Email sends: an unusual day"
    assert "25. November 2026" in notice_text(notice.code, notice.params, "de")[1]


async def test_an_advance_looks_at_the_accounts_of_its_clock(world: World) -> None:
    till = open_till(world.database)
    async with world.database.work(ACTOR) as work:
        clock = await create_clock(work, "Spikes", NOW - 40 * DAY)
    account_id = await open_account(till, "clocked", clock.id)
    await order(till, account_id, decide_start, "professional", Interval.MONTH)
    for day in range(40):
        await advance_clock(till, clock.id, NOW - (40 - day) * DAY)
        await send(world, emails(f"day-{day}", 100, account="clocked"))
    assert await spikes_of(world, "clocked") == []
    await send(world, emails("burst", 9_000, account="clocked"))
    await look(world)
    assert await spikes_of(world, "clocked") == [], "the worker looks at accounts on the wall clock only"
    await advance_clock(till, clock.id, NOW - DAY + timedelta(minutes=1))
    (alert,) = await spikes_of(world, "clocked")
    assert (alert.used, alert.ceiling, alert.resolved_at) == (9_100, 100, None)
    await advance_clock(till, clock.id, NOW + 2 * DAY)
    (alert,) = await spikes_of(world, "clocked")
    assert alert.resolved_at == NOW + 2 * DAY
