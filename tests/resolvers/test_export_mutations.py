"""Exports through GraphQL: asked for by who may, once under a key, told live, fetched by a link."""

from typing import Any

import pytest

from plafond.models import Role, SubscriptionStatus
from plafond.schema.node import encode_id
from plafond.services.exports import MAX_PENDING

from ..conftest import Client, World
from ..http.test_sockets import connect
from ..services.exporting import Pencil, write
from ..services.helpers import account_of, change_subscription

ASK = """mutation($input: RequestExportInput!) { requestExport(input: $input) {
  export { id kind format status from to granularity rowCount requestedBy createdAt readyAt expiresAt failure
    document { url } }
  userErrors { code message field } } }"""
LIST = """query($first: Int) { billingAccount(externalId: "acme") { exports(first: $first) { totalCount
  nodes { id status rowCount document { url expiresAt sha256 } } } } }"""
FOLLOW = """subscription($id: ID!, $after: String) { exportChanged(accountId: $id, after: $after) {
  id cursor status document { sha256 } } }"""


async def given(world: World, **values: object) -> dict[str, object]:
    account = await account_of(world)
    return {
        "accountId": encode_id("BillingAccount", account.id),
        "kind": "USAGE",
        "format": "CSV",
        "from": "2026-11-01T00:00:00-04:00",
        "to": "2026-11-25T00:00:00-05:00",
        "granularity": "DAY",
    } | values


async def ask(client: Client, token: str, **values: object) -> Any:
    data: Any = await client.data(token, ASK, input=values)
    return data["requestExport"]


async def test_an_export_from_asking_to_fetching(client: Client, world: World) -> None:
    owner = world.token("Acme", Role.TENANT_OWNER)
    asked = await ask(client, owner, **await given(world))
    assert asked["userErrors"] == []
    export = asked["export"]
    assert export == {
        "id": export["id"],
        "kind": "USAGE",
        "format": "CSV",
        "status": "PENDING",
        "from": "2026-11-01T04:00:00Z",
        "to": "2026-11-25T05:00:00Z",
        "granularity": "DAY",
        "rowCount": None,
        "requestedBy": export["requestedBy"],
        "createdAt": "2026-11-25T12:00:00Z",
        "readyAt": None,
        "expiresAt": None,
        "failure": None,
        "document": None,
    }
    await write(world)
    data: Any = await client.data(owner, LIST)
    [shown] = data["billingAccount"]["exports"]["nodes"]
    assert (shown["id"], shown["status"]) == (export["id"], "READY")
    assert shown["rowCount"] > 0
    path = shown["document"]["url"].removeprefix(world.settings.base_url)
    file = await client.http.get(path)
    assert file.status_code == 200
    assert file.headers["etag"] == f'"{shown["document"]["sha256"]}"'
    assert len(file.text.strip().split("\r\n")) == 1 + shown["rowCount"]


async def test_the_list_is_one_statement_however_long(client: Client, world: World) -> None:
    counts = []
    for _ in range(2):
        for _ in range(3):
            await ask(client, world.operator, **await given(world))
        await write(world)
        world.statements.clear()
        await client.data(world.operator, LIST, first=100)
        counts.append(len(world.statements))
    assert counts[0] == counts[1]


async def test_a_key_makes_it_happen_once(client: Client, world: World) -> None:
    values = await given(world, idempotencyKey="monthly")
    first = await ask(client, world.operator, **values)
    answer: Any = await client.ask(world.operator, ASK, input=values)
    assert answer["data"]["requestExport"] == first
    assert answer["extensions"]["idempotency"] == {"replayed": True}
    other = await ask(client, world.operator, **(values | {"format": "PDF"}))
    assert other["userErrors"][0]["code"] == "IDEMPOTENCY_MISMATCH"
    data: Any = await client.data(world.operator, LIST)
    assert data["billingAccount"]["exports"]["totalCount"] == 1


async def test_who_may_not_is_told(client: Client, world: World) -> None:
    values = await given(world)
    member: Any = await client.ask(world.token("Acme", Role.MEMBER), ASK, input=values)
    assert member["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    stranger = await ask(client, world.token("Calder", Role.TENANT_OWNER), **values)
    assert (stranger["export"], stranger["userErrors"][0]["code"]) == (None, "NOT_FOUND")
    assert stranger["userErrors"][0]["field"] == ["input", "accountId"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (SubscriptionStatus.SUSPENDED, None),
        (SubscriptionStatus.CANCELED, None),
        (SubscriptionStatus.EXPIRED, "ACCOUNT_CANCELED"),
    ],
)
async def test_the_state_of_the_account_decides_as_viewer_can_says(
    client: Client, world: World, status: SubscriptionStatus, code: str | None
) -> None:
    await change_subscription(world, "acme", status=status)
    owner = world.token("Acme", Role.TENANT_OWNER)
    asked = await ask(client, owner, **await given(world))
    assert [error["code"] for error in asked["userErrors"]] == ([code] if code else [])
    data: Any = await client.data(owner, "{ billingAccount { viewerCan { action allowed } } }")
    can = {state["action"]: state["allowed"] for state in data["billingAccount"]["viewerCan"]}
    assert can["REQUEST_EXPORT"] is (code is None)


async def test_refusals_say_what_to_do(client: Client, world: World) -> None:
    long = await ask(client, world.operator, **await given(world, granularity="HOUR", format="PDF"))
    [error] = long["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["input", "to"])
    assert error["message"] == ("A PDF by HOUR covers at most 8 days: ask for a shorter range, or for wider buckets.")
    for _ in range(MAX_PENDING):
        assert (await ask(client, world.operator, **await given(world)))["userErrors"] == []
    full = await ask(client, world.operator, **await given(world))
    assert full["userErrors"][0]["code"] == "CONFLICT"


async def test_it_is_told_live_when_a_file_is_ready_or_failed(client: Client, world: World) -> None:
    account = await account_of(world)
    id_ = encode_id("BillingAccount", account.id)
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.BILLING_ADMIN))
        await socket.subscribe("s", FOLLOW, id=id_, after=await cursor_of(client, world))
        asked = await ask(client, world.operator, **await given(world))
        await write(world)
        told = await socket.next()
        assert (told["id"], told["status"]) == (asked["export"]["id"], "READY")
        assert told["document"]["sha256"] is not None
        failing = await ask(client, world.operator, **await given(world, format="PDF"))
        for _ in range(4):
            await write(world, Pencil(failures=9))
            world.clock.stands_at = world.clock.stands_at.replace(minute=world.clock.stands_at.minute + 5)
        later = await socket.next()
        assert (later["id"], later["status"], later["document"]) == (failing["export"]["id"], "FAILED", None)
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.BILLING_ADMIN))
        await socket.subscribe("s", FOLLOW, id=id_, after=told["cursor"])
        assert await socket.next() == later


async def test_a_member_may_not_follow_exports(world: World) -> None:
    account = await account_of(world)
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.MEMBER))
        await socket.subscribe("s", FOLLOW, id=encode_id("BillingAccount", account.id))
        assert await socket.end() == ["FORBIDDEN"]


async def cursor_of(client: Client, world: World) -> str:
    data: Any = await client.data(world.operator, '{ billingAccount(externalId: "acme") { changeCursor } }')
    return str(data["billingAccount"]["changeCursor"])
