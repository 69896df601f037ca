"""Making accounts and changing what they are."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from plafond.models import (
    AuditEntry,
    BillingAccount,
    Budget,
    BudgetAction,
    ChangeAct,
    CollectionMethod,
    Deployment,
    EffectiveLimit,
    OutboxEvent,
    PendingChange,
    PendingStatus,
    PlanLimit,
    PlanVersion,
    Quote,
    Subscription,
    SubscriptionStatus,
    TestClock,
)
from plafond.models.catalogue import Plan
from plafond.services.access import Principal, Scope
from plafond.services.accounts import AccountFields, create_account, update_account
from plafond.services.errors import BillingError, Conflict, Forbidden, InvalidInput, NotFound, Refusals, list_refusals
from plafond.settings import Environment

from ..conftest import NOW, World
from .helpers import ACTOR, OPERATOR, account_of, change_subscription, tenant_key

NEW = AccountFields(name="Quill & Co", currency="USD", timezone="Europe/Vienna")


async def create(
    world: World, external_id: str = "quill", given: AccountFields = NEW, test_clock_id: UUID | None = None
) -> BillingAccount:
    async with world.database.work(ACTOR) as work:
        return await create_account(work, external_id, given, test_clock_id=test_clock_id)


async def change(
    world: World, account: BillingAccount, given: AccountFields, principal: Principal = OPERATOR
) -> BillingAccount:
    async with world.database.work(ACTOR) as work:
        return await update_account(work, principal, account.id, given)


async def rows_of(world: World, model: Any, account: BillingAccount) -> Sequence[Any]:
    async with world.database.read() as session:
        found = select(model).where(model.account_id == account.id)
        order = {AuditEntry: AuditEntry.number, OutboxEvent: OutboxEvent.sequence}.get(model)
        return (await session.scalars(found if order is None else found.order_by(order))).all()


async def save(world: World, *rows: Any) -> None:
    async with world.database.work(ACTOR) as work:
        work.session.add_all(rows)


def paths(refusal: BillingError) -> list[str]:
    return [".".join(single.field) for single in list_refusals(refusal)]


async def test_a_new_account_is_there_and_told_of(world: World) -> None:
    account = await create(world)
    stored = await account_of(world, "quill")
    assert (stored.name, stored.currency, stored.timezone, stored.locale) == (
        "Quill & Co",
        "USD",
        "Europe/Vienna",
        "en",
    )
    assert (stored.pairs, stored.collection_method, stored.net_days) == ({}, CollectionMethod.AUTOMATIC, 30)
    assert stored.created_at == stored.updated_at == NOW
    (entry,) = await rows_of(world, AuditEntry, account)
    assert (entry.action, entry.actor, entry.before) == ("account.created", ACTOR.name, {})
    assert entry.after == {"externalId": "quill", "name": "Quill & Co", "currency": "USD", "timezone": "Europe/Vienna"}
    (event,) = await rows_of(world, OutboxEvent, account)
    assert (event.kind, event.payload) == ("account.created", {"accountId": str(account.id)})


async def test_a_new_account_has_the_limits_of_free(world: World) -> None:
    limits = await rows_of(world, EffectiveLimit, await create(world))
    assert {limit.metric_key: (limit.quantity, limit.cause) for limit in limits} == {
        "email_sends": (0, "account.created"),
        "team_members": (1, "account.created"),
        "workspaces": (1, "account.created"),
        "custom_domains": (0, "account.created"),
    }


async def test_the_newest_version_of_free_holds(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        free = (await work.session.scalars(select(Plan).where(Plan.key == "free"))).one()
        version = PlanVersion(created_at=NOW, plan_id=free.id, number=2, features=[], published_at=NOW)
        work.session.add(version)
        await work.session.flush()
        work.session.add(PlanLimit(created_at=NOW, plan_version_id=version.id, metric_key="email_sends", quantity=100))
    limits = await rows_of(world, EffectiveLimit, await create(world))
    assert {limit.quantity for limit in limits if limit.metric_key == "email_sends"} == {100}


async def test_everything_can_be_given(world: World) -> None:
    given = AccountFields(
        name="  Cafe\u0301 ",
        currency="KWD",
        timezone="Asia/Kuwait",
        locale="de_at",
        metadata={"tier": "gold", "empty": ""},
        collection={"method": CollectionMethod.SEND_INVOICE, "net_days": 14},
    )
    account = await create(world, "café", given)
    assert (account.name, account.currency, account.locale) == ("Café", "KWD", "de-AT")
    assert (account.pairs, account.collection_method, account.net_days) == (
        {"tier": "gold", "empty": ""},
        CollectionMethod.SEND_INVOICE,
        14,
    )


@pytest.mark.parametrize("external_id", ["x", "x" * 255, "Acme", "acme ", "a/b c:d", "kunde-№7", "顧客"])
async def test_an_external_id_is_kept_exactly(world: World, external_id: str) -> None:
    assert (await create(world, external_id)).external_id == external_id


@pytest.mark.parametrize("external_id", ["", "x" * 256, "a\x00", "a\nb", "a\tb", "a\u202eb", "a\u200bb", "e\u0301"])
async def test_an_external_id_that_could_be_mistaken_is_refused(world: World, external_id: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await create(world, external_id)
    assert paths(refused.value) == ["input.externalId"]


async def test_an_external_id_is_there_once(world: World) -> None:
    with pytest.raises(Conflict) as refused:
        await create(world, "acme")
    assert paths(refused.value) == ["input.externalId"]
    outcomes = await asyncio.gather(*(create(world, "twin") for _ in range(4)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["BillingAccount", *["Conflict"] * 3]


REFUSED: list[tuple[str, Any]] = [
    ("name", ""),
    ("name", "   "),
    ("name", "x" * 256),
    ("name", "a\x00b"),
    ("name", "a\r\nBcc: x"),
    ("name", "a\u2028b"),
    ("name", "a\u202eb"),
    ("name", "a\u2066b"),
    ("name", "a\ud800b"),
    ("name", None),
    ("currency", "usd"),
    ("currency", "XXX"),
    ("currency", "BTC"),
    ("currency", ""),
    ("currency", None),
    ("timezone", "Vienna"),
    ("timezone", "europe/vienna"),
    ("timezone", "../../etc/passwd"),
    ("timezone", "localtime"),
    ("timezone", ""),
    ("timezone", None),
    ("locale", ""),
    ("locale", "xx"),
    ("locale", "english"),
    ("locale", "en-US.UTF-8"),
    ("locale", "en@x=y"),
    ("locale", "../en"),
    ("locale", "de" + "-x" * 20),
    ("locale", None),
    ("metadata", []),
    ("metadata", {"k": 1}),
    ("metadata", {"k": None}),
    ("metadata", {"k": "v" * 501}),
    ("metadata", {"k": "a\x00"}),
    ("metadata", {"k": "a\ud800"}),
    ("metadata", {"": "v"}),
    ("metadata", {"k" * 41: "v"}),
    ("metadata", {"k\n": "v"}),
    ("metadata", {str(n): "v" for n in range(51)}),
    ("metadata", None),
    ("collection", None),
    ("collection", {"method": None}),
    ("collection", {"net_days": None}),
    ("collection", {"net_days": 0}),
    ("collection", {"net_days": 366}),
]


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=range(len(REFUSED)))
async def test_what_does_not_fit_is_refused_with_its_field(world: World, field: str, value: Any) -> None:
    given: Any = {field: value}
    with pytest.raises(InvalidInput) as refused:
        await change(world, await account_of(world), given)
    assert paths(refused.value)[0].startswith(f"input.{field}")
    assert str(refused.value).isprintable()


async def test_independent_refusals_are_told_at_once(world: World) -> None:
    given = AccountFields(name="", currency="EURO", timezone="CET/Wien", locale="deutsch")
    with pytest.raises(Refusals) as refused:
        await create(world, "\x00", given)
    assert paths(refused.value) == [
        "input.externalId",
        "input.name",
        "input.currency",
        "input.timezone",
        "input.locale",
    ]


async def a_test_clock(world: World, **given: Any) -> TestClock:
    clock = TestClock(created_at=NOW, name="t", code="T1", now=NOW - timedelta(days=400), **given)
    await save(world, clock)
    return clock


async def test_an_account_on_a_test_clock_is_made_at_its_time(world: World) -> None:
    clock = await a_test_clock(world)
    account = await create(world, test_clock_id=clock.id)
    assert (account.created_at, account.test_clock_id) == (clock.now, clock.id)
    (entry,) = await rows_of(world, AuditEntry, account)
    assert (entry.at, entry.after["testClock"]) == (clock.now, str(clock.id))


async def test_a_test_clock_that_is_not_there_or_on_its_way(world: World) -> None:
    with pytest.raises(NotFound) as unknown:
        await create(world, test_clock_id=uuid4())
    assert paths(unknown.value) == ["input.testClockId"]
    clock = await a_test_clock(world, advancing_until=NOW + timedelta(seconds=1))
    with pytest.raises(Conflict):
        await create(world, test_clock_id=clock.id)
    world.clock.stands_at += timedelta(seconds=1)
    await create(world, test_clock_id=clock.id)


async def test_there_are_no_test_clocks_in_production(world: World) -> None:
    clock = await a_test_clock(world)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Deployment).values(environment=Environment.PRODUCTION))
    with pytest.raises(InvalidInput, match="sandbox"):
        await create(world, test_clock_id=clock.id)


async def test_only_what_is_given_changes(world: World) -> None:
    account = await create(world)
    world.clock.stands_at += timedelta(hours=1)
    changed = await change(world, account, {"name": "Quill", "metadata": {"a": "b"}, "collection": {"net_days": 10}})
    assert (changed.name, changed.pairs, changed.net_days) == ("Quill", {"a": "b"}, 10)
    assert (changed.timezone, changed.collection_method) == ("Europe/Vienna", CollectionMethod.AUTOMATIC)
    assert (changed.created_at, changed.updated_at) == (NOW, NOW + timedelta(hours=1))
    _, entry = await rows_of(world, AuditEntry, account)
    assert (entry.action, entry.object) == ("account.updated", f"billing_account:{account.id}")
    assert entry.before == {"name": "Quill & Co", "metadata": {}, "netDays": 30}
    assert entry.after == {"name": "Quill", "metadata": {"a": "b"}, "netDays": 10}
    _, event = await rows_of(world, OutboxEvent, account)
    assert event.kind == "account.updated"
    assert event.payload == {"accountId": str(account.id), "changed": ["collection", "metadata", "name"]}


@pytest.mark.parametrize("given", [{}, {"name": "Quill & Co", "currency": "USD"}, {"collection": {}}])
async def test_nothing_new_leaves_no_trace(world: World, given: Any) -> None:
    account = await create(world)
    world.clock.stands_at += timedelta(hours=1)
    assert (await change(world, account, given)).updated_at == NOW
    assert len(await rows_of(world, AuditEntry, account)) == len(await rows_of(world, OutboxEvent, account)) == 1


async def test_a_new_zone_leaves_the_running_period_as_it_is(world: World) -> None:
    account = await account_of(world)
    (before,) = await rows_of(world, Subscription, account)
    assert (await change(world, account, {"timezone": "Asia/Tokyo"})).timezone == "Asia/Tokyo"
    (after,) = await rows_of(world, Subscription, account)
    assert (after.zone, after.current_period_end) == (before.zone, before.current_period_end)


async def test_currency_and_collection_are_the_operators(world: World) -> None:
    account = await create(world)
    tenant = tenant_key(account.id, Scope.BILLING_WRITE)
    await change(world, account, {"name": "Mine", "locale": "de"}, tenant)
    with pytest.raises(Refusals) as one:
        await change(world, account, {"name": "No", "currency": "EUR"}, tenant)
    assert paths(one.value) == ["input.currency"]
    with pytest.raises(Refusals) as both:
        await change(world, account, {"currency": "USD", "collection": {"net_days": 60}}, tenant)
    assert paths(both.value) == ["input.currency", "input.collection"]
    assert {type(single) for single in list_refusals(both.value)} == {Forbidden}
    assert (await account_of(world, "quill")).name == "Mine"


async def test_an_unknown_account_is_not_found(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        with pytest.raises(NotFound) as refused:
            await update_account(work, OPERATOR, uuid4(), {"name": "x"})
    assert paths(refused.value) == ["input.accountId"]


async def test_the_currency_can_change_while_nothing_is_reckoned_in_it(world: World) -> None:
    account = await create(world)
    assert (await change(world, account, {"currency": "JPY"})).currency == "JPY"


async def test_the_first_invoice_fixes_the_currency(world: World) -> None:
    await change_subscription(world, "acme", status=SubscriptionStatus.CANCELED)
    with pytest.raises(Conflict, match="first invoice") as refused:
        await change(world, await account_of(world), {"currency": "EUR"})
    assert paths(refused.value) == ["input.currency"]


async def test_a_running_subscription_holds_the_currency(world: World) -> None:
    account = await account_of(world, "elmtree")  # on trial, never invoiced
    with pytest.raises(Conflict, match="subscription"):
        await change(world, account, {"currency": "EUR"})
    await change_subscription(world, "elmtree", status=SubscriptionStatus.CANCELED)
    assert (await change(world, account, {"currency": "EUR"})).currency == "EUR"


async def test_a_quote_holds_the_currency_while_it_lives(world: World) -> None:
    account = await create(world)
    quote = Quote(
        created_at=NOW,
        account_id=account.id,
        act=ChangeAct.START,
        target={},
        effective_at=NOW,
        expires_at=NOW + timedelta(minutes=30),
        subscription_version=0,
        bill={},
    )
    await save(world, quote)
    with pytest.raises(Conflict, match="quote"):
        await change(world, account, {"currency": "EUR"})
    world.clock.stands_at += timedelta(minutes=30)
    await change(world, account, {"currency": "EUR"})


async def test_what_is_pending_holds_the_currency(world: World) -> None:
    account = await create(world)
    pending = PendingChange(
        created_at=NOW,
        account_id=account.id,
        act=ChangeAct.START,
        target={},
        grounds={},
        pinned_at=NOW,
        expires_at=NOW + timedelta(hours=23),
        bill={},
        due_minor=4_900,
        actor="test",
    )
    await save(world, pending)
    with pytest.raises(Conflict, match="payment"):
        await change(world, account, {"currency": "EUR"})
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(PendingChange).values(status=PendingStatus.EXPIRED))
    await change(world, account, {"currency": "EUR"})


async def test_a_budget_and_a_credit_balance_hold_the_currency(world: World) -> None:
    account = await create(world)
    budget = Budget(
        created_at=NOW, account_id=account.id, limit_minor=5_000, thresholds=[80], action=BudgetAction.ALERT_ONLY
    )
    await save(world, budget)
    with pytest.raises(Conflict, match="budget"):
        await change(world, account, {"currency": "EUR"})
    async with world.database.work(ACTOR) as work:
        await work.session.delete(budget)
        await work.session.execute(update(BillingAccount).where(BillingAccount.id == account.id).values(credit_minor=1))
    with pytest.raises(Conflict, match="credit balance"):
        await change(world, account, {"currency": "EUR"})
