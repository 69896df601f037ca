"""Alerts that somebody saw: who said so first stays, and it reaches the streams."""

from uuid import UUID, uuid4

import pytest

from plafond.database import Actor
from plafond.models import Alert
from plafond.services.acknowledgements import MAX_ALERTS, acknowledge_alerts
from plafond.services.changes import ChangeKind, read_stretch
from plafond.services.errors import BillingError, list_refusals

from ..conftest import NOW, World
from .helpers import account_of, alerts_of, gauge, outbox_of, send

ANN, BOB = Actor(name="member:ann", origin="test"), Actor(name="member:bob", origin="test")


async def acknowledge(world: World, *ids: UUID | None, who: Actor = ANN, name: str = "calder") -> None:
    account = await account_of(world, name)
    async with world.database.work(who) as work:
        await acknowledge_alerts(work, account.id, ids)


def seen(found: list[Alert]) -> list[str | None]:
    return [alert.acknowledged_by for alert in found]


async def test_who_says_so_first_stays(world: World) -> None:
    first, second, third = await alerts_of(world, "calder")
    await acknowledge(world, second.id, first.id, second.id)
    before = await account_of(world, "calder")
    await acknowledge(world, first.id, third.id, who=BOB)
    found = await alerts_of(world, "calder")
    assert seen(found) == ["member:ann", "member:ann", "member:bob"]
    assert {(alert.acknowledged_at, alert.updated_at, alert.resolved_at) for alert in found} == {(NOW, NOW, None)}
    events = await outbox_of(world, "calder", before.sequence)
    assert [(event.kind, event.payload) for event in events] == [
        (
            "usage.alert_acknowledged",
            {"alertId": str(third.id), "metric": "email_sends", "threshold": 95},
        )
    ]
    assert (await account_of(world, "calder")).audit_count == before.audit_count + 1
    await acknowledge(world, *(alert.id for alert in found), who=BOB)
    after = await account_of(world, "calder")
    assert (after.sequence, after.audit_count) == (before.sequence + 1, before.audit_count + 1)


async def test_a_resolved_one_may_be_acknowledged(world: World) -> None:
    await send(world, gauge("a", "workspaces", quantity=1))
    await send(world, gauge("b", "workspaces", quantity=-1))
    (alert,) = await alerts_of(world, metric="workspaces")
    await acknowledge(world, alert.id, name="acme")
    (alert,) = await alerts_of(world, metric="workspaces")
    assert (alert.acknowledged_by, alert.resolved_at) == ("member:ann", NOW)


async def test_what_is_not_there_refuses_them_all_with_its_places(world: World) -> None:
    await send(world, gauge("a", "workspaces", quantity=1))
    (foreign,) = await alerts_of(world, metric="workspaces")
    mine, *_ = await alerts_of(world, "calder")
    with pytest.raises(BillingError) as caught:
        await acknowledge(world, mine.id, foreign.id, None, uuid4())
    assert [(single.code, ".".join(single.field)) for single in list_refusals(caught.value)] == [
        ("NOT_FOUND", f"input.ids.{index}") for index in (1, 2, 3)
    ]
    assert seen(await alerts_of(world, "calder")) == [None, None, None]
    for count in (0, MAX_ALERTS + 1):
        with pytest.raises(BillingError) as caught:
            await acknowledge(world, *([mine.id] * count))
        assert caught.value.field == ("input", "ids")


async def test_streams_tell_of_it(world: World) -> None:
    first, *_ = await alerts_of(world, "calder")
    account = await account_of(world, "calder")
    await acknowledge(world, first.id)
    async with world.database.read() as session:
        (change,) = (await read_stretch(session, account.id, account.sequence, {ChangeKind.ALERT})).changes
    assert (change.kind, change.subject_id, change.sequence) == (ChangeKind.ALERT, first.id, account.sequence + 1)
