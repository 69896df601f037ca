"""An account's changes: which events tell of them, and that no batch loses or repeats a last state."""

import ast
import re
from pathlib import Path

import pytest
from sqlalchemy import select

from plafond.database import ReadSession
from plafond.models import BillingAccount, OutboxEvent
from plafond.services import calendars, changes
from plafond.services.accounts import create_account
from plafond.services.alert_thresholds import set_thresholds
from plafond.services.changes import (
    BILLING_KINDS,
    TOLD_BY_KIND,
    Change,
    ChangeKind,
    kind_of,
    read_stretch,
)
from plafond.services.limits import set_limits
from plafond.services.plan_limits import load_free_limits
from plafond.worker import do_due_work

from ..conftest import World
from .engine import open_till
from .helpers import ACTOR, OPERATOR, account_of, emails, period_of, send

ONLY_AUDITED = {
    "payment.recorded",
    "payment.exceeded",
    "refund.disputed",
    "payment_method.made_default",
    "export.requested",
    "export.expired",
}
WITHOUT_AN_OBJECT = {"invoice.upcoming"}
FOLLOWED = {event for told in TOLD_BY_KIND.values() for event in told.events}


NOT_IN_THE_SANDBOX = {ChangeKind.EXPORT, ChangeKind.RECOMMENDATION, ChangeKind.MEMBER}
"""Nobody in it has asked for a file, put advice away, or invited anybody."""


def test_every_event_about_what_is_followed_is_in_the_table() -> None:
    """An event that is written somewhere and missing here would never reach a stream."""
    nodes = [node for file in Path("src/services").rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    named = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    faults = {
        argument.value
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    about = re.compile(
        r"(invoice|payment|refund|dispute|subscription|payment_method|export|member|(usage|budget)\.alert)[._][a-z_]+"
    )
    events = {text for text in named if "." in text and about.fullmatch(text)}
    assert events - faults - ONLY_AUDITED - WITHOUT_AN_OBJECT == FOLLOWED - {"account.updated", "account.closed"}


async def test_every_event_names_its_object(world: World) -> None:
    async with world.database.read() as session:
        events = (await session.scalars(select(OutboxEvent))).all()
    keys = {TOLD_BY_KIND[kind].subject_key for kind in BILLING_KINDS} - {"accountId"}
    assert {event.kind for event in events if keys & event.payload.keys()} <= FOLLOWED
    followed = [(kind, event) for event in events if (kind := kind_of(event)) is not None]
    assert {kind for kind, _ in followed} == set(TOLD_BY_KIND) - NOT_IN_THE_SANDBOX
    assert [event for kind, event in followed if TOLD_BY_KIND[kind].subject_key not in event.payload] == []


async def read_all(world: World, account: BillingAccount, after: int) -> list[Change]:
    """All changes, batch after batch, as a stream reads them."""
    found: list[Change] = []
    while True:
        async with world.database.read() as session:
            stretch = await read_stretch(session, account.id, after, set(ChangeKind))
        if not stretch.changes and stretch.is_last:
            return found
        found += stretch.changes
        assert stretch.upto >= max((change.sequence for change in stretch.changes), default=after + 1)
        after = stretch.upto


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 50])
async def test_the_last_state_of_everything_comes_however_small_a_batch_is(
    world: World, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    await send(world, emails("one", 17_000))
    account = await account_of(world)
    whole = await read_all(world, account, 0)
    monkeypatch.setattr(changes, "BATCH", batch)
    found = await read_all(world, account, 0)
    places = [change.sequence for change in found]
    assert places == sorted(set(places))

    def last_places(told: list[Change]) -> dict[object, int]:
        return {(change.kind, change.subject_id, change.metric_key): change.sequence for change in told}

    assert last_places(found) == last_places(whole)
    assert len(found) >= len(whole)
    assert {change.kind for change in whole} >= {
        ChangeKind.USAGE,
        ChangeKind.ALERT,
        *(BILLING_KINDS - NOT_IN_THE_SANDBOX),
    }


async def metrics_told(world: World, account: BillingAccount) -> set[str | None]:
    """Whose figures streams tell that have read up to now."""
    async with world.database.read() as session:
        stretch = await read_stretch(session, account.id, account.sequence, {ChangeKind.USAGE})
    return {change.metric_key for change in stretch.changes}


async def test_figures_that_start_anew_with_a_period_are_told(world: World) -> None:
    await send(world, emails("one", 5))
    account, period = await account_of(world), await period_of(world)
    world.clock.stands_at = period.end
    while await do_due_work(open_till(world.database)):
        pass
    assert "email_sends" in await metrics_told(world, account)


async def test_limits_that_change_are_told_where_nothing_was_used_yet(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        account = await create_account(work, "anew", {"name": "Anew", "currency": "USD", "timezone": "UTC"})
    account = await account_of(world, "anew")
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        limits = dict(await load_free_limits(ReadSession(work.session)))
        running = calendars.period_of(locked, None, [], world.clock.now())
        assert running is not None
        await set_limits(work, locked, limits | {"email_sends": 77, "workspaces": 7}, running, "test")
    assert await metrics_told(world, account) == {"email_sends", "workspaces"}


async def test_a_level_that_own_thresholds_change_is_told(world: World) -> None:
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        await set_thresholds(work, OPERATOR, account.id, "email_sends", [20])
    assert await metrics_told(world, account) == {"email_sends"}


async def test_one_statement_reads_the_events_of_all_kinds(world: World) -> None:
    account = await account_of(world)
    for kinds, count in ((set(ChangeKind), 4), ({ChangeKind.INVOICE}, 2), ({ChangeKind.SNAPSHOT}, 1)):
        async with world.database.read() as session:
            world.statements.clear()
            await read_stretch(session, account.id, 0, kinds)
        assert len(world.statements) == count
