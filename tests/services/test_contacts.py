"""Contacts: one of them primary, each mailbox once, a hundred beside it."""

from typing import Any

import pytest
from sqlalchemy import select

from plafond.models import AlertDelivery, AuditEntry, BillingAccount, Contact, ContactTopic, OutboxEvent
from plafond.services.access import Principal, PrincipalKind
from plafond.services.accounts import create_account
from plafond.services.contacts import MAX_OTHERS, add_contact, remove_contact, update_contact
from plafond.services.errors import BillingError, Conflict, InvalidInput, NotFound, list_refusals

from ..conftest import World
from .helpers import ACTOR
from .test_accounts import rows_of

OPERATOR = Principal(kind=PrincipalKind.OPERATOR, id="operator:test", display_name="Test", is_operator=True)


@pytest.fixture
async def account(world: World) -> BillingAccount:
    async with world.database.work(ACTOR) as work:
        return await create_account(work, "quill", {"name": "Quill", "currency": "EUR", "timezone": "UTC"})


async def add(world: World, account: BillingAccount, email: str, **given: Any) -> Contact:
    fields: Any = {"name": "Somebody", "email": email, "topics": [], **given}
    async with world.database.work(ACTOR) as work:
        return await add_contact(work, OPERATOR, account.id, fields)


async def update(world: World, contact: Contact, **given: Any) -> Contact:
    fields: Any = given
    async with world.database.work(ACTOR) as work:
        return await update_contact(work, OPERATOR, contact, fields)


async def listed(world: World, account: BillingAccount) -> dict[str, bool]:
    async with world.database.read() as session:
        rows = await session.scalars(select(Contact).where(Contact.account_id == account.id))
        return {row.email: row.is_primary for row in rows}


async def test_the_first_contact_is_the_primary_one_and_another_takes_its_place(
    world: World, account: BillingAccount
) -> None:
    first = await add(world, account, "a@x.test", topics=[ContactTopic.USAGE_ALERTS, ContactTopic.INVOICES])
    assert (first.is_primary, first.topics, first.alert_delivery) == (
        True,
        ["INVOICES", "USAGE_ALERTS"],
        AlertDelivery.AT_ONCE,
    )
    second = await add(world, account, "b@x.test", locale="de-AT", alert_delivery=AlertDelivery.DAILY)
    assert (second.is_primary, second.locale, second.alert_delivery) == (False, "de-AT", AlertDelivery.DAILY)
    await update(world, second, is_primary=True)
    assert await listed(world, account) == {"a@x.test": False, "b@x.test": True}
    await add(world, account, "c@x.test", is_primary=True)
    assert await listed(world, account) == {"a@x.test": False, "b@x.test": False, "c@x.test": True}


async def test_the_primary_one_goes_last(world: World, account: BillingAccount) -> None:
    first, second = await add(world, account, "a@x.test"), await add(world, account, "b@x.test")
    with pytest.raises(Conflict, match="make another one the primary"):
        async with world.database.work(ACTOR) as work:
            await remove_contact(work, OPERATOR, first)
    with pytest.raises(InvalidInput, match="make another one so"):
        await update(world, first, is_primary=False)
    async with world.database.work(ACTOR) as work:
        await remove_contact(work, OPERATOR, second)
    async with world.database.work(ACTOR) as work:
        await remove_contact(work, OPERATOR, first)
    assert await listed(world, account) == {}
    with pytest.raises(NotFound):
        async with world.database.work(ACTOR) as work:
            await remove_contact(work, OPERATOR, first)


@pytest.mark.parametrize("email", ["A@X.test", "ａ@x.test"])
async def test_a_mailbox_is_there_once(world: World, account: BillingAccount, email: str) -> None:
    await add(world, account, "a@x.test")
    with pytest.raises(Conflict, match="change that one"):
        await add(world, account, email)
    other = await add(world, account, "b@x.test")
    with pytest.raises(Conflict):
        await update(world, other, email=email)


async def test_a_hundred_beside_the_primary_one(world: World, account: BillingAccount) -> None:
    for number in range(MAX_OTHERS + 1):
        await add(world, account, f"n{number}@x.test")
    with pytest.raises(Conflict, match="remove one first") as refusal:
        await add(world, account, "more@x.test")
    assert refusal.value.field == ("input", "accountId")


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"email": "a@x.test\nBcc: b@x.test"}, ["email"]),
        ({"email": "a@x.test\r\n"}, ["email"]),
        ({"email": "a"}, ["email"]),
        ({"name": "A\nB", "locale": "english"}, ["name", "locale"]),
        ({"name": None}, ["name"]),
        ({"topics": None}, ["topics"]),
    ],
)
async def test_what_is_wrong_is_told_by_field(
    world: World, account: BillingAccount, given: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(BillingError) as refusal:
        await add(world, account, **{"email": "a@x.test", **given})
    assert sorted(single.field[1] for single in list_refusals(refusal.value)) == sorted(fields)
    assert await listed(world, account) == {}


async def test_each_change_is_told_of(world: World, account: BillingAccount) -> None:
    contact = await add(world, account, "a@x.test")
    await update(world, contact, name="Ada")
    await update(world, contact, name="Ada")
    entries = (await rows_of(world, AuditEntry, account))[1:]
    assert [entry.action for entry in entries] == ["contact.added", "contact.updated"]
    assert (entries[1].before, entries[1].after) == ({"name": "Somebody"}, {"name": "Ada"})
    events = (await rows_of(world, OutboxEvent, account))[1:]
    assert [event.payload["changed"] for event in events] == [["contacts"], ["contacts"]]
