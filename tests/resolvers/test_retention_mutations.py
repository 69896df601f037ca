"""Closing, legal holds and erasing at the door: who may, what comes back, and what a frontend is told before."""

from typing import Any

import pytest
from sqlalchemy import select

from plafond.models import Member, Role
from plafond.schema.node import encode_id
from plafond.services.access import Scope

from ..conftest import Client, World
from ..http.test_jwt import add_member, claims, secret_of, sign
from ..services.helpers import account_of
from .test_access import make_member_key
from .test_account_mutations import ERRORS, id_of, refusals, run, top_level

CLOSE = f"""mutation($input: CloseBillingAccountInput!) {{ closeBillingAccount(input: $input) {{ {ERRORS} account {{
  status closedAt dataDeletedAt subscription {{ status }} viewerCan {{ action allowed reason {{ code }} }} }} }} }}"""
HOLD = f"""mutation($input: SetLegalHoldInput!) {{ setLegalHold(input: $input) {{ {ERRORS} account {{
  legalHold }} }} }}"""
ERASE = f"""mutation($input: ErasePersonInput!) {{ erasePerson(input: $input) {{ {ERRORS}
  erased {{ kind count }} kept {{ kind count reason }} accountsWithoutOwner {{ externalId }} }} }}"""
CAN = '{ billingAccount(externalId: "calder") { viewerCan { action allowed } } }'


async def may_close(client: Client, token: str) -> bool:
    data: Any = await client.data(token, CAN)
    return bool({each["action"]: each["allowed"] for each in data["billingAccount"]["viewerCan"]}["CLOSE_ACCOUNT"])


async def test_an_owner_closes_their_account(client: Client, world: World) -> None:
    account = await id_of(world)
    await add_member(world, "calder", Role.TENANT_OWNER)
    owner = sign(claims(), secret_of(world))
    assert await may_close(client, owner)
    assert await refusals(client, owner, CLOSE, accountId=account, confirm="Calde") == [("INVALID", "input.confirm")]
    given = {"accountId": account, "confirm": "calder", "idempotencyKey": "close"}
    payload = await run(client, owner, CLOSE, **given)
    assert payload["userErrors"] == []
    assert payload["account"]["status"] == "CLOSED"
    assert payload["account"]["subscription"] == {"status": "CANCELED"}
    assert payload["account"]["closedAt"] is not None
    assert payload["account"]["dataDeletedAt"] is None
    assert await run(client, owner, CLOSE, **given) == payload
    assert not await may_close(client, owner)
    again = await refusals(client, owner, CLOSE, accountId=account, confirm="calder")
    assert again == [("INVALID_TRANSITION", "input.accountId")]
    # They go on reading.
    data: Any = await client.data(owner, '{ billingAccount(externalId: "calder") { invoices { totalCount } } }')
    assert data["billingAccount"]["invoices"]["totalCount"] > 0


@pytest.mark.parametrize("role", [Role.BILLING_ADMIN, Role.MEMBER])
async def test_nobody_below_an_owner_closes(client: Client, world: World, role: Role) -> None:
    await add_member(world, "calder", role)
    token = sign(claims(), secret_of(world))
    assert not await may_close(client, token)
    assert await top_level(client, token, CLOSE, accountId=await id_of(world), confirm="calder") == "FORBIDDEN"


async def test_another_tenant_s_account_is_not_there(client: Client, world: World) -> None:
    await add_member(world, "calder", Role.TENANT_OWNER)
    owner = sign(claims(), secret_of(world))
    other = await refusals(client, owner, CLOSE, accountId=await id_of(world, "acme"), confirm="acme")
    assert other == [("NOT_FOUND", "input.accountId")]


async def test_a_key_closes_with_the_scope_admin_only(client: Client, world: World) -> None:
    owner = await make_member_key(world, "calder", [Scope.BILLING_READ, Scope.BILLING_WRITE])
    assert not await may_close(client, owner)
    assert await top_level(client, owner, CLOSE, accountId=await id_of(world), confirm="calder") == "FORBIDDEN"


async def test_a_hold_is_for_operators(client: Client, world: World) -> None:
    account = await id_of(world)
    owner = world.token("Calder", Role.TENANT_OWNER)
    assert await top_level(client, owner, HOLD, accountId=account, reason="why") == "FORBIDDEN"
    payload = await run(client, world.operator, HOLD, accountId=account, reason=" a court order ")
    assert payload["account"] == {"legalHold": "a court order"}
    answer: Any = await client.ask(owner, '{ billingAccount(externalId: "calder") { legalHold } }')
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert answer["data"]["billingAccount"] == {"legalHold": None}
    for wrong in ({"reason": ""}, {"reason": "x" * 501}, {"reason": "a\nb"}, {}):
        told = await refusals(client, world.operator, HOLD, accountId=account, **wrong)
        assert told == [("INVALID", "input.reason")], wrong
    payload = await run(client, world.operator, HOLD, accountId=account, reason=None)
    assert payload["account"] == {"legalHold": None}


async def test_a_person_is_erased_and_their_token_ends(client: Client, world: World) -> None:
    await add_member(world, "calder", Role.TENANT_OWNER)
    token = sign(claims(), secret_of(world))
    data: Any = await client.data(token, "{ viewer { kind } }")
    assert data == {"viewer": {"kind": "MEMBER"}}
    account = await account_of(world, "calder")
    async with world.database.read() as session:
        member = await session.scalar(select(Member.id).where(Member.account_id == account.id, Member.sub == "anna"))
    named = {"memberId": encode_id("Member", member), "idempotencyKey": "erase"}
    assert await top_level(client, world.token("Calder", Role.TENANT_OWNER), ERASE, **named) == "FORBIDDEN"
    payload = await run(client, world.operator, ERASE, **named)
    assert payload == {
        "userErrors": [],
        "erased": [{"kind": "MEMBER", "count": 1}],
        "kept": [],
        "accountsWithoutOwner": [],
    }
    assert await run(client, world.operator, ERASE, **named) == payload
    answer: Any = await client.ask(token, "{ viewer { kind } }")
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    payload = await run(client, world.operator, ERASE, email="a@b.org", memberId="nonsense")
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("INVALID", ["input"])]
    payload = await run(client, world.operator, ERASE, memberId="nonsense")
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [
        ("NOT_FOUND", ["input", "memberId"])
    ]
    payload = await run(client, world.operator, ERASE, email="nobody@b.org")
    assert (payload["erased"], payload["kept"]) == ([], [])
