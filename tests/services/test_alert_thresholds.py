"""Thresholds of an account's own: what may be set, and that they hold from the moment they are set."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from plafond.models import AlertLevel, AlertThreshold, AuditEntry, SubscriptionStatus
from plafond.services.access import Principal, Scope
from plafond.services.alert_thresholds import MAX_OWN, set_thresholds
from plafond.services.errors import AccountSuspended, BillingError, NotFound, list_refusals
from plafond.services.limits import set_limits
from plafond.services.rules.periods import Period

from ..conftest import NOW, World
from .helpers import (
    ACTOR,
    OPERATOR,
    account_of,
    alerts_of,
    change_subscription,
    emails,
    gauge,
    outbox_of,
    period_of,
    send,
    tenant_key,
)
from .test_alerts import told


async def put(
    world: World,
    *percents: int,
    metric: str = "email_sends",
    name: str = "birchwood",
    principal: Principal = OPERATOR,
) -> None:
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        await set_thresholds(work, principal, account.id, metric, percents)


async def own_of(world: World, name: str = "birchwood") -> Sequence[tuple[str, int]]:
    account = await account_of(world, name)
    async with world.database.read() as session:
        rows = await session.execute(
            select(AlertThreshold.subject, AlertThreshold.percent)
            .where(AlertThreshold.account_id == account.id)
            .order_by(AlertThreshold.subject, AlertThreshold.percent)
        )
        return [(row.subject, row.percent) for row in rows]


async def refused(world: World, *percents: int) -> list[tuple[str, str]]:
    with pytest.raises(BillingError) as caught:
        await put(world, *percents)
    return [(single.code, ".".join(single.field)) for single in list_refusals(caught.value)]


async def test_what_is_reached_already_is_raised_at_once_ascending(world: World) -> None:
    """At 39,500 of 50,000 (79 %)."""
    await put(world, 70, 150, 25)
    found = await alerts_of(world, "birchwood")
    assert told(found) == [(25, 1, True), (70, 1, True)]
    assert {(alert.level, alert.used, alert.raised_at) for alert in found} == {(AlertLevel.NOTICE, 39_500, NOW)}
    await send(world, emails("a", 36_000, account="birchwood"))
    assert [alert.threshold for alert in await alerts_of(world, "birchwood")] == [25, 70, 80, 90, 95, 100, 150]
    assert (await alerts_of(world, "birchwood"))[-1].level is AlertLevel.LIMIT_REACHED


async def test_the_new_ones_take_the_place_of_the_old_ones(world: World) -> None:
    await put(world, 25, 70)
    await put(world, 50, 150, metric="team_members")
    before = (await account_of(world, "birchwood")).sequence
    await put(world, 70, 75)
    assert await own_of(world) == [
        ("email_sends", 70),
        ("email_sends", 75),
        ("team_members", 50),
        ("team_members", 150),
    ]
    assert told(await alerts_of(world, "birchwood")) == [(25, 1, False), (70, 1, True), (75, 1, True)]
    events = [(event.kind, event.payload.get("threshold")) for event in await outbox_of(world, "birchwood", before)]
    assert events == [("account.updated", None), ("usage.alert_resolved", 25), ("usage.alert_raised", 75)]
    await put(world)
    assert await own_of(world) == [("team_members", 50), ("team_members", 150)]
    await put(world, 25)
    assert told(await alerts_of(world, "birchwood"))[-1] == (25, 2, True)


async def test_built_in_ones_among_them_are_not_stored(world: World) -> None:
    await put(world, 100, 80, 95, 90, *range(1, MAX_OWN + 1))
    assert [percent for _, percent in await own_of(world)] == list(range(1, MAX_OWN + 1))
    await put(world, 80)
    assert await own_of(world) == []


async def test_what_cannot_be_set(world: World) -> None:
    assert await refused(world, 0, 50, 1_001, 50) == [
        ("INVALID", "input.percents.0"),
        ("INVALID", "input.percents.2"),
        ("INVALID", "input.percents.3"),
    ]
    assert await refused(world, *range(1, MAX_OWN + 2)) == [("INVALID", "input.percents")]
    assert await refused(world, *range(1, 100)) == [("INVALID", "input.percents")]
    await put(world, 1, 1_000)
    for key in ("nope", "", "x" * 300, "a\x00b"):
        with pytest.raises(NotFound):
            await put(world, 50, metric=key)


async def test_the_same_again_changes_and_tells_nothing(world: World) -> None:
    await put(world, 70)
    account = await account_of(world, "birchwood")
    await put(world, 70, 80)
    again = await account_of(world, "birchwood")
    assert (again.sequence, again.audit_count) == (account.sequence, account.audit_count)


async def test_the_audit_log_tells_what_was_set(world: World) -> None:
    await put(world, 70)
    await put(world, 60, 70)
    account = await account_of(world, "birchwood")
    async with world.database.read() as session:
        entry = (
            await session.scalars(
                select(AuditEntry)
                .where(AuditEntry.account_id == account.id)
                .order_by(AuditEntry.number.desc())
                .limit(1)
            )
        ).one()
    assert (entry.action, entry.object) == ("alert_thresholds.set", "metric:email_sends")
    assert (entry.before, entry.after) == ({"percents": [70]}, {"percents": [60, 70]})


async def test_a_suspended_tenant_sets_none_and_an_operator_does(world: World) -> None:
    await change_subscription(world, "birchwood", status=SubscriptionStatus.SUSPENDED)
    account = await account_of(world, "birchwood")
    with pytest.raises(AccountSuspended):
        await put(world, 50, principal=tenant_key(account.id, Scope.ADMIN))
    await put(world, 50)


async def test_a_canceled_account_raises_nothing_of_its_own_either(world: World) -> None:
    await change_subscription(
        world, "birchwood", status=SubscriptionStatus.CANCELED, canceled_at=NOW - timedelta(days=1)
    )
    await put(world, 1)
    assert await alerts_of(world, "birchwood") == []


async def test_a_gauge_and_a_changed_limit_know_own_ones(world: World) -> None:
    """At 7 of 10 workspaces; then the limit is 14, then 5."""
    await put(world, 60, 120, metric="workspaces", name="acme")
    assert told(await alerts_of(world, metric="workspaces")) == [(60, 1, True)]
    account = await account_of(world)
    for limit, expected in (
        (14, [(60, 1, False)]),
        (
            5,
            [
                (60, 1, False),
                (60, 2, True),
                (80, 1, True),
                (90, 1, True),
                (95, 1, True),
                (100, 1, True),
                (120, 1, True),
            ],
        ),
    ):
        await limit_to(world, account.id, "workspaces", limit)
        assert told(await alerts_of(world, metric="workspaces")) == expected
    await send(world, gauge("a", "workspaces", quantity=-7))
    assert {alert.resolved_at is None for alert in await alerts_of(world, metric="workspaces")} == {False}


async def limit_to(world: World, account_id: Any, metric: str, limit: int | None, name: str = "acme") -> None:
    """Put another limit in force, as a change of plan does."""
    limits: dict[str, int | None] = {
        "email_sends": 50_000,
        "team_members": 5,
        "workspaces": 10,
        "custom_domains": 15,
        metric: limit,
    }
    running = await period_of(world, name)
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await set_limits(work, account, limits, Period(running.start, running.end), "test")
