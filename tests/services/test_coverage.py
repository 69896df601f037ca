"""Coverage: what a period reached against what was raised; and each kind of gap is seen."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from plafond.models import Alert, AlertThreshold, Counter, Notice, OutboxEvent, Role
from plafond.services import coverage
from plafond.services.coverage import Coverage, DeliveryStatus, cover_alerts
from plafond.worker import do_due_work

from ..conftest import NOW, Client, World
from .engine import open_till
from .helpers import ACTOR, account_of, alerts_of, change_account, emails, gauge, period_of, send
from .test_alert_thresholds import limit_to, put

COVERAGE = """query($external: String!, $period: DateTime) { billingAccount(externalId: $external) {
  alertCoverage(period: $period) { periodStart periodEnd complete hasMore crossings {
    metric { key } threshold level episode crossedAt sequence complete alert { id raisedAt }
    deliveries { channel status at sequence position } } } } }"""
Told = list[tuple[str, int, int, bool]]


async def cover(world: World, name: str = "birchwood", at: Any = None) -> Coverage:
    account = await account_of(world, name)
    async with world.database.read() as session:
        found = await cover_alerts(session, account, world.clock.stands_at, at)
    assert found is not None
    return found


def told(found: Coverage) -> Told:
    """Metric, threshold, episode, and whether it is covered."""
    return [(item.metric_key, item.threshold, item.episode, item.is_complete) for item in found.crossings]


def ways(found: Coverage) -> list[list[tuple[str, str]]]:
    return [[(delivery.channel, delivery.status) for delivery in item.deliveries] for item in found.crossings]


async def damage(world: World, *statements: Any) -> None:
    async with world.database.work(ACTOR) as work:
        for statement in statements:
            await work.session.execute(statement)


async def test_all_that_was_reached_is_covered(world: World) -> None:
    await put(world, 40)
    await send(world, emails("a", 5_500, account="birchwood"))
    world.clock.stands_at += timedelta(hours=1)
    await send(world, emails("b", 6_000, account="birchwood"), gauge("c", "custom_domains", "birchwood", level=15))
    found = await cover(world)
    assert (found.is_complete, found.has_more) == (True, False)
    emails_, domains = "email_sends", "custom_domains"
    assert told(found) == [
        *((emails_, threshold, 1, True) for threshold in (40, 80, 90)),
        *((domains, threshold, 1, True) for threshold in (80, 90, 95, 100)),
        *((emails_, threshold, 1, True) for threshold in (95, 100)),
    ]
    live, notice = ("LIVE", "DELIVERED"), ("NOTICE", "DELIVERED")
    assert ways(found) == [[live], *([[live, notice]] * 8)]
    period = await period_of(world, "birchwood")
    assert found.period == period


async def test_a_period_that_is_over_is_covered_too(world: World) -> None:
    """Late events raised nothing, and nothing is missing for it."""
    period = await period_of(world, "birchwood")
    await send(world, emails("a", 5_500, account="birchwood"))
    world.clock.stands_at = period.end
    while await do_due_work(open_till(world.database)):
        pass
    await send(world, emails("late", 90_000, account="birchwood", occurred_at=NOW))
    found = await cover(world, at=NOW)
    assert told(found) == [("email_sends", 80, 1, True), ("email_sends", 90, 1, True)]
    assert ways(found) == [[("LIVE", "DELIVERED"), ("NOTICE", "ENDED")]] * 2
    assert told(await cover(world)) == []
    await damage(world, delete(Alert).where(Alert.threshold == 90))
    assert told(await cover(world, at=NOW)) == [("email_sends", 80, 1, True), ("email_sends", 90, 1, False)]


@pytest.mark.parametrize("metric", ["email_sends", "workspaces"])
async def test_an_alert_that_was_never_raised_is_missing(world: World, metric: str) -> None:
    await send(world, emails("a", 25_000), gauge("b", "workspaces", quantity=3))
    gone = delete(Alert).where(Alert.account_id == (await account_of(world)).id, Alert.subject == metric)
    await damage(world, gone.where(Alert.threshold == 95))
    found = await cover(world, "acme")
    assert not found.is_complete
    (missing,) = [item for item in found.crossings if not item.is_complete]
    assert (missing.metric_key, missing.threshold, missing.level, missing.alert) == (metric, 95, "URGENT", None)
    assert missing.crossed_at == NOW


async def test_events_tell_where_a_counter_is_wrong(world: World) -> None:
    await send(world, emails("a", 5_500, account="birchwood"))
    account = await account_of(world, "birchwood")
    mine = Alert.account_id == account.id
    await damage(
        world, delete(Alert).where(mine), update(Counter).where(Counter.account_id == account.id).values(used=1)
    )
    assert told(await cover(world)) == [("email_sends", 80, 1, False), ("email_sends", 90, 1, False)]


async def test_a_peak_that_was_corrected_needs_its_alert(world: World) -> None:
    await send(world, emails("a", 5_500, account="birchwood"))
    world.clock.stands_at += timedelta(hours=1)
    await send(world, emails("b", -40_000, account="birchwood", correction=True))
    assert told(await cover(world)) == [("email_sends", 80, 1, True), ("email_sends", 90, 1, True)]
    await damage(world, delete(Alert).where(Alert.threshold == 80))
    found = await cover(world)
    assert told(found) == [("email_sends", 80, 1, False), ("email_sends", 90, 1, True)]
    await put(world, 50)
    assert ("email_sends", 50, 1, False) not in told(await cover(world))


async def test_what_held_under_another_limit_only_is_not_missing(world: World) -> None:
    """Hard case 19, as coverage sees it."""
    account = await account_of(world)
    await send(world, emails("a", 21_550))  # 45,000 of 50,000
    world.clock.stands_at += timedelta(hours=1)
    await limit_to(world, account.id, "email_sends", 100_000)
    assert told(await cover(world, "acme")) == [("email_sends", 80, 1, True), ("email_sends", 90, 1, True)]
    world.clock.stands_at += timedelta(hours=1)
    await send(world, emails("b", 35_000))
    found = await cover(world, "acme")
    assert told(found)[-1] == ("email_sends", 80, 2, True)
    await damage(world, delete(Alert).where(Alert.episode == 2))
    assert told(await cover(world, "acme"))[-1] == ("email_sends", 80, 2, False)
    world.clock.stands_at += timedelta(hours=1)
    await limit_to(world, account.id, "email_sends", None)
    assert (await cover(world, "acme")).is_complete


async def test_each_way_is_looked_at(world: World) -> None:
    await send(world, emails("a", 500, account="birchwood"))
    account = await account_of(world, "birchwood")
    raised = (OutboxEvent.account_id == account.id, OutboxEvent.kind == "usage.alert_raised")
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        (alert,) = await alerts_of(world, "birchwood")
        work.emit(locked, "usage.alert_raised", {"alertId": str(alert.id)})
    assert ways(await cover(world)) == [[("LIVE", "TWICE"), ("NOTICE", "DELIVERED")]]
    await damage(world, delete(OutboxEvent).where(*raised), delete(Notice).where(Notice.account_id == account.id))
    found = await cover(world)
    assert not found.is_complete
    assert ways(found) == [[("LIVE", "MISSING"), ("NOTICE", "MISSING")]]
    await change_account(world, "birchwood", kept_after_sequence=account.sequence)
    assert ways(await cover(world))[0][0] == ("LIVE", DeliveryStatus.EXPIRED)


async def test_own_thresholds_count_from_when_they_were_set(world: World) -> None:
    await send(world, emails("a", -30_000, account="birchwood", correction=True))
    world.clock.stands_at += timedelta(hours=1)
    await put(world, 50)
    assert told(await cover(world)) == []
    account = await account_of(world, "birchwood")
    early = update(AlertThreshold).where(AlertThreshold.account_id == account.id)
    await damage(world, early.values(set_at=NOW - timedelta(days=300)))
    assert told(await cover(world)) == [("email_sends", 50, 1, False)]


async def test_it_lists_so_many_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MAX_CROSSINGS", 3)
    await send(world, emails("a", 11_000, account="birchwood"))
    found = await cover(world)
    assert (found.has_more, found.is_complete) == (True, True)
    assert [item.threshold for item in found.crossings] == [90, 95, 100]


async def test_over_the_api(client: Client, world: World) -> None:
    token = world.token("Calder", Role.MEMBER)
    counts = []
    for quantity in (1, 400):
        await send(world, emails(f"e{quantity}", quantity, account="calder"))
        world.statements.clear()
        data: Any = await client.data(token, COVERAGE, external="calder")
        counts.append(len(world.statements))
    assert counts[0] == counts[1]
    found = data["billingAccount"]["alertCoverage"]
    assert (found["complete"], found["hasMore"], len(found["crossings"])) == (True, False, 4)
    last = found["crossings"][-1]
    assert (last["metric"], last["threshold"], last["level"], last["episode"]) == (
        {"key": "email_sends"},
        100,
        "LIMIT_REACHED",
        1,
    )
    live, notice = last["deliveries"]
    assert (live["channel"], live["status"], live["sequence"]) == ("LIVE", "DELIVERED", last["sequence"])
    assert (notice["channel"], notice["status"], notice["sequence"]) == ("NOTICE", "DELIVERED", None)
    for elsewhere in ("2001-01-01T00:00:00Z", "2027-06-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        none: Any = await client.data(token, COVERAGE, external="calder", period=elsewhere)
        assert none["billingAccount"]["alertCoverage"] is None, "it is over for long, or has not begun"
