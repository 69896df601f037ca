"""API keys through GraphQL: shown once, bound by their maker, refused by name; and who asks for which field."""

import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import inspect, select, text, update

from plafond.models import AuditEntry, BillingAccount, FieldUse, Role, SubscriptionStatus
from plafond.schema.node import encode_id
from plafond.services.access import Right, Scope
from plafond.services.uses import ONE_IN, Coordinates

from ..conftest import NOW, Client, World
from ..http.test_jwt import add_member, add_operator, claims, secret_of, sign
from ..services.helpers import ACTOR, account_of, change_subscription
from .test_access import make_member_key, make_operator_key

ERRORS = "userErrors { code message field }"
KEY = """id name prefix scopes opensAll networks expiresAt lastUsedAt rotatedAt revokedAt previousSecretEndsAt status
  madeBy createdAt updatedAt accounts { externalId } viewerCan { action allowed reason { code message } }"""
CREATE = (
    f"mutation($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ apiKey {{ {KEY} }} token {ERRORS} }} }}"
)
ROTATE = (
    f"mutation($input: RotateApiKeyInput!) {{ rotateApiKey(input: $input) {{ apiKey {{ {KEY} }} token {ERRORS} }} }}"
)
REVOKE = f"mutation($input: RevokeApiKeyInput!) {{ revokeApiKey(input: $input) {{ apiKey {{ {KEY} }} {ERRORS} }} }}"
LIST = f'{{ billingAccount(externalId: "acme") {{ apiKeys {{ {KEY} }} }} }}'
NODE = f"query($id: ID!) {{ node(id: $id) {{ __typename ... on ApiKey {{ {KEY} }} }} }}"
VIEWER = """{ viewer { kind displayName roles scopes rights accounts { account { externalId } role rights }
  apiKey { id name prefix expiresAt networks accounts { externalId } viewerCan { allowed } } } }"""
USAGE = """query($all: Boolean, $prefix: String, $since: Date, $first: Int) {
  fieldUsage(deprecatedOnly: $all, prefix: $prefix, since: $since, first: $first) {
    coordinate deprecationReason removal caller count lastDay apiKey { name prefix accounts { externalId } } } }"""


async def id_of(world: World, name: str = "acme") -> str:
    return encode_id("BillingAccount", (await account_of(world, name)).id)


async def person(world: World, role: Role, *tenants: str, sub: str = "anna") -> str:
    """A JWT of a member of these accounts."""
    for tenant in tenants:
        await add_member(world, tenant, role, sub)
    return sign(claims(sub=sub), secret_of(world))


async def run(client: Client, token: str, query: str, **given: Any) -> Any:
    """The payload of a mutation that was let in."""
    (payload,) = (await client.data(token, query, input=given)).values()
    return payload


async def make(client: Client, token: str, *ids: str, **given: Any) -> tuple[Any, str]:
    """A key and its token."""
    asked = {"name": "Test", "scopes": ["billing:read"]} | ({"accountIds": ids} if ids else {}) | given
    payload = await run(client, token, CREATE, **asked)
    assert payload["userErrors"] == []
    return payload["apiKey"], payload["token"]


async def code(client: Client, token: str, query: str, **given: Any) -> tuple[str, str]:
    """The only refusal of a mutation, wherever it is said."""
    answer: Any = await client.ask(token, query, input=given)
    if "errors" in answer:
        (error,) = answer["errors"]
        return error["extensions"]["code"], error["message"]
    (payload,) = answer["data"].values()
    (error,) = payload["userErrors"]
    assert payload["apiKey"] is None
    assert payload.get("token") is None
    return error["code"], error["message"]


async def test_a_key_from_its_making_to_its_end(client: Client, world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme", "birchwood")
    acme, birchwood = await id_of(world), await id_of(world, "birchwood")
    key, token = await make(
        client,
        owner,
        acme,
        birchwood,
        name=" Back office ",
        scopes=["billing:write", "billing:read", "billing:read"],
        expiresAt="2027-11-25T12:00:00Z",
        networks=["127.0.0.1/8"],
    )
    allowed = [{"action": name, "allowed": True, "reason": None} for name in ("ROTATE_API_KEY", "REVOKE_API_KEY")]
    expected = {
        "id": key["id"],
        "name": "Back office",
        "prefix": token.rpartition("_")[0],
        "scopes": ["billing:read", "billing:write"],
        "opensAll": False,
        "networks": ["127.0.0.0/8"],
        "expiresAt": "2027-11-25T12:00:00Z",
        "lastUsedAt": None,
        "rotatedAt": None,
        "revokedAt": None,
        "previousSecretEndsAt": None,
        "status": "ACTIVE",
        "madeBy": key["madeBy"],
        "createdAt": "2026-11-25T12:00:00Z",
        "updatedAt": "2026-11-25T12:00:00Z",
        "accounts": key["accounts"],
        "viewerCan": allowed,
    }
    assert key == expected
    assert sorted(account["externalId"] for account in key["accounts"]) == ["acme", "birchwood"]
    listed: Any = await client.data(owner, LIST)
    assert listed["billingAccount"]["apiKeys"][0] == key
    found: Any = await client.data(owner, NODE, id=key["id"])
    assert found["node"] == {"__typename": "ApiKey"} | key
    both = "query($a: ID!, $b: ID!) { a: billingAccount(id: $a) { name } b: billingAccount(id: $b) { name } }"
    read: Any = await client.data(token, both, a=acme, b=birchwood)
    assert None not in read.values()

    turned = await run(client, owner, ROTATE, keyId=key["id"], overlapSeconds=60)
    assert turned["apiKey"]["previousSecretEndsAt"] == "2026-11-25T12:01:00Z"
    assert turned["apiKey"]["rotatedAt"] == "2026-11-25T12:00:00Z"
    assert turned["token"].rpartition("_")[0] == key["prefix"]
    for good in (token, turned["token"]):
        assert "errors" not in await client.ask(good, "{ viewer { kind } }")
    world.clock.stands_at = NOW + timedelta(seconds=60)
    assert "errors" in await client.ask(token, "{ viewer { kind } }")
    again: Any = await client.data(owner, NODE, id=key["id"])
    assert again["node"]["previousSecretEndsAt"] is None

    await world.app.state.uses.write(world.database)
    shown: Any = await client.data(owner, NODE, id=key["id"])
    assert shown["node"]["lastUsedAt"] == "2026-11-25T12:00:00Z"

    for _ in range(2):
        ended = await run(client, owner, REVOKE, keyId=key["id"])
        assert (ended["apiKey"]["status"], ended["apiKey"]["revokedAt"]) == ("REVOKED", "2026-11-25T12:01:00Z")
    assert [item["allowed"] for item in ended["apiKey"]["viewerCan"]] == [False, True]
    assert ended["apiKey"]["viewerCan"][0]["reason"]["code"] == "INVALID_TRANSITION"
    assert "errors" in await client.ask(turned["token"], "{ viewer { kind } }")
    async with world.database.read() as session:
        entries = (await session.scalars(select(AuditEntry).where(AuditEntry.action.startswith("api_key.")))).all()
    assert sorted(entry.action for entry in entries) == sorted(
        ["api_key.created", "api_key.rotated", "api_key.revoked"] * 2
    )
    made = next(entry for entry in entries if entry.action == "api_key.created")
    assert made.after == {
        "prefix": key["prefix"],
        "name": "Back office",
        "scopes": ["billing:read", "billing:write"],
        "networks": ["127.0.0.0/8"],
        "expiresAt": "2027-11-25T12:00:00+00:00",
    }


async def test_a_replay_never_shows_the_token_again(client: Client, world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme = await id_of(world)
    asked = {"accountIds": [acme], "name": "Test", "scopes": ["billing:read"], "idempotencyKey": "once"}
    first = await run(client, owner, CREATE, **asked)
    answer: Any = await client.ask(owner, CREATE, input=asked)
    assert answer["extensions"]["idempotency"] == {"replayed": True}
    again = answer["data"]["createApiKey"]
    assert (again["apiKey"]["id"], again["token"], again["userErrors"]) == (first["apiKey"]["id"], None, [])
    assert (await code(client, owner, CREATE, **asked | {"name": "Other"}))[0] == "IDEMPOTENCY_MISMATCH"

    turning = {"keyId": first["apiKey"]["id"], "idempotencyKey": "once"}
    turned = await run(client, owner, ROTATE, **turning)
    repeated = await run(client, owner, ROTATE, **turning)
    assert repeated["token"] is None
    # The repetition turned nothing: the first secret is the one before the present one.
    for good in (first["token"], turned["token"]):
        assert "errors" not in await client.ask(good, "{ viewer { kind } }")
    async with world.database.read() as session:
        remembered = (await session.execute(text("SELECT answer FROM idempotency_key"))).scalars().all()
    stored = json.dumps([str(answer) for answer in remembered])
    for token in (first["token"], turned["token"]):
        assert token.rpartition("_")[2] not in stored


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no accounts": ({"accountIds": []}, ["INVALID input.accountIds"]),
    "all accounts": ({"accountIds": None}, ["INVALID input.accountIds"]),
    "what is no account": ({"accountIds": ["ACME", "x"]}, ["NOT_FOUND input.accountIds.1"]),
    "another's": ({"accountIds": ["ACME", "CALDER"]}, ["NOT_FOUND input.accountIds.1"]),
    "no name": ({"name": ""}, ["INVALID input.name"]),
    "a long name": ({"name": "x" * 101}, ["INVALID input.name"]),
    "a name of two lines": ({"name": "a\nb"}, ["INVALID input.name"]),
    "no scopes": ({"scopes": []}, ["INVALID input.scopes"]),
    "an unknown scope": ({"scopes": ["billing:read", "root"]}, ["INVALID input.scopes.1"]),
    "a scope beyond the maker's": ({"scopes": ["usage:write"]}, ["FORBIDDEN input.scopes.0"]),
    "a scope in capitals": ({"scopes": ["ADMIN"]}, ["INVALID input.scopes.0"]),
    "expired": ({"expiresAt": "2026-11-25T12:00:00Z"}, ["INVALID input.expiresAt"]),
    "for ever and a day": ({"expiresAt": "2099-01-01T00:00:00Z"}, ["INVALID input.expiresAt"]),
    "no network": ({"networks": ["localhost"]}, ["INVALID input.networks.0"]),
    "a bad key": ({"idempotencyKey": ""}, ["INVALID input.idempotencyKey"]),
    "several at once": (
        {"name": "", "scopes": ["root", "usage:write"], "networks": ["::1", "::2/129"]},
        ["INVALID input.name", "INVALID input.scopes.0", "FORBIDDEN input.scopes.1", "INVALID input.networks.1"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_key_that_is_refused(client: Client, world: World, name: str) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(keys_may_ingest=False))
    owner = await person(world, Role.TENANT_OWNER, "acme")
    given, said = REFUSED[name]
    ids = {"ACME": await id_of(world), "CALDER": await id_of(world, "calder")}
    asked = {"accountIds": ["ACME"], "name": "Test", "scopes": ["billing:read"]} | given
    if asked["accountIds"] is not None:
        asked["accountIds"] = [ids.get(id_, id_) for id_ in asked["accountIds"]]
    before = await count_keys(world)
    payload = await run(client, owner, CREATE, **asked)
    assert (payload["apiKey"], payload["token"]) == (None, None)
    assert [f"{error['code']} {'.'.join(error['field'])}" for error in payload["userErrors"]] == said
    assert await count_keys(world) == before


@pytest.mark.parametrize("overlap", [-1, 604_801])
async def test_an_overlap_that_is_refused(client: Client, world: World, overlap: int) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    key, _ = await make(client, owner, await id_of(world))
    payload = await run(client, owner, ROTATE, keyId=key["id"], overlapSeconds=overlap)
    assert [error["field"] for error in payload["userErrors"]] == [["input", "overlapSeconds"]]


async def count_keys(world: World) -> int:
    async with world.database.read() as session:
        return int((await session.execute(text("SELECT count(*) FROM api_key"))).scalar_one())


async def test_whose_keys_are_whose(client: Client, world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme", sub="ana")
    stranger = await person(world, Role.TENANT_OWNER, "birchwood", sub="ben")
    member = await person(world, Role.MEMBER, "acme", sub="mia")
    key, _ = await make(client, owner, await id_of(world))
    unknown = encode_id("ApiKey", "00000000-0000-4000-8000-000000000000")
    for query in (ROTATE, REVOKE):
        found = [
            await code(client, stranger, query, keyId=id_) for id_ in (key["id"], unknown, await id_of(world), "x")
        ]
        assert {each[0] for each in found} == {"NOT_FOUND"}
        assert len(set(found)) == 1
        assert (await code(client, member, query, keyId=key["id"]))[0] == "FORBIDDEN"
    assert (await code(client, member, CREATE, accountIds=[await id_of(world)], name="x", scopes=["billing:read"]))[
        0
    ] == "FORBIDDEN"
    for token in (stranger, member):
        assert await client.data(token, NODE, id=key["id"]) == {"node": None}
    answer: Any = await client.ask(member, LIST)
    assert answer["data"]["billingAccount"] == {"apiKeys": None}
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await client.data(stranger, LIST)) == {"billingAccount": None}


async def test_an_operators_keys_are_the_operators(client: Client, world: World) -> None:
    of_acme = await make_operator_key(world, [Scope.ADMIN], "acme")
    await add_operator(world)
    olga = sign(claims(sub="olga"), secret_of(world))
    everything, token = await make(client, olga, name="Everything", scopes=["admin"])
    assert (everything["opensAll"], everything["accounts"]) == (True, [])
    listed: Any = await client.data(olga, f"{{ apiKeys {{ {KEY} }} }}")
    assert [key["name"] for key in listed["apiKeys"]] == ["Everything", "Sandbox operator"]
    data: Any = await client.data(
        token, "{ billingAccounts { totalCount } viewer { roles rights apiKey { opensAll } } }"
    )
    assert data["viewer"]["apiKey"] == {"opensAll": True}
    assert data["viewer"]["rights"] == [right for right in Right if right is not Right.JOIN]
    assert data["billingAccounts"]["totalCount"] > 5
    meter, _ = await make(client, olga, await id_of(world), name="Meter", scopes=["usage:write"])
    owner = await person(world, Role.TENANT_OWNER, "acme")
    own: Any = await client.data(owner, LIST)
    (shown,) = [key for key in own["billingAccount"]["apiKeys"] if key["id"] == meter["id"]]
    assert {item["reason"]["code"] for item in shown["viewerCan"]} == {"FORBIDDEN"}
    for query, said in zip((ROTATE, REVOKE), shown["viewerCan"], strict=True):
        assert await code(client, owner, query, keyId=meter["id"]) == ("FORBIDDEN", said["reason"]["message"])
    for token in (owner, of_acme):
        answer: Any = await client.ask(token, "{ apiKeys { id } }")
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert await client.data(token, NODE, id=everything["id"]) == {"node": None}
        assert (await code(client, token, REVOKE, keyId=everything["id"]))[0] == "NOT_FOUND"


async def test_viewer_can_on_a_key_is_true_exactly_when_the_mutation_is_not_refused(
    client: Client, world: World
) -> None:
    scoped = await make_member_key(world, "acme", [Scope.ADMIN])
    owner = await person(world, Role.TENANT_OWNER, "acme", sub="ana")
    admin = await person(world, Role.BILLING_ADMIN, "acme", sub="adi")
    both = await person(world, Role.TENANT_OWNER, "acme", "birchwood", sub="bo")
    acme, birchwood = await id_of(world), await id_of(world, "birchwood")
    callers = [owner, admin, both, world.operator, scoped]

    async def make_all() -> list[str]:
        made = [
            await make(client, owner, acme, scopes=["admin"]),
            await make(client, admin, acme, scopes=["usage:write"]),
            await make(client, both, acme, birchwood),
            await make(client, world.operator, acme),
            await make(client, owner, acme, expiresAt="2026-11-25T12:00:01Z"),
        ]
        return [key["id"] for key, _ in made]

    for caller in callers:
        world.clock.stands_at = NOW
        ids = await make_all()
        world.clock.stands_at = NOW + timedelta(seconds=1)
        for id_ in ids:
            data: Any = await client.data(caller, NODE, id=id_)
            said = {item["action"]: item["reason"] for item in data["node"]["viewerCan"]}
            for action, query in (("ROTATE_API_KEY", ROTATE), ("REVOKE_API_KEY", REVOKE)):
                payload = await run(client, caller, query, keyId=id_)
                errors = [{"code": item["code"], "message": item["message"]} for item in payload["userErrors"]]
                assert errors == ([said[action]] if said[action] else []), (callers.index(caller), ids.index(id_))


@pytest.mark.parametrize("status", [SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELED])
async def test_in_a_bad_state_no_keys_are_made_and_all_are_revoked(
    client: Client, world: World, status: SubscriptionStatus
) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    key, token = await make(client, owner, await id_of(world))
    await change_subscription(world, "acme", status=status, suspended_at=NOW, canceled_at=NOW)
    said: Any = await client.data(
        owner, '{ billingAccount(externalId: "acme") { viewerCan { action reason { code message } } } }'
    )
    reasons = {item["action"]: item["reason"] for item in said["billingAccount"]["viewerCan"]}
    expected = "ACCOUNT_SUSPENDED" if status is SubscriptionStatus.SUSPENDED else "ACCOUNT_CANCELED"
    assert reasons["CREATE_API_KEY"]["code"] == expected
    payload = await run(client, owner, CREATE, accountIds=[await id_of(world)], name="x", scopes=["root"])
    assert [(error["code"], error["message"], error["field"]) for error in payload["userErrors"]] == [
        (expected, reasons["CREATE_API_KEY"]["message"], ["input", "accountIds", "0"])
    ]
    assert "errors" not in await client.ask(token, "{ viewer { kind } }")
    turned = await run(client, owner, ROTATE, keyId=key["id"])
    assert turned["userErrors"] == []
    ended = await run(client, owner, REVOKE, keyId=key["id"])
    assert ended["apiKey"]["status"] == "REVOKED"
    await make(client, world.operator, await id_of(world))


async def test_an_operator_lets_an_account_s_keys_record_usage(client: Client, world: World) -> None:
    update_account = """mutation($input: UpdateBillingAccountInput!) { updateBillingAccount(input: $input) {
      account { keysMayIngest } userErrors { code message field } } }"""
    record = """mutation { recordUsage(input: { events: [
      { externalId: "acme", eventId: "k", metric: "email_sends", quantity: 1 }] }) { results { status } } }"""
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme = await id_of(world)
    _, sender = await make(client, owner, acme, scopes=["usage:write"])
    off = await run(client, world.operator, update_account, accountId=acme, keysMayIngest=False)
    assert off == {"account": {"keysMayIngest": False}, "userErrors": []}
    refused: Any = await client.ask(sender, record)
    assert refused["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert "keysMayIngest" in refused["errors"][0]["message"]
    line = b'{"externalId":"acme","eventId":"k","metric":"email_sends","quantity":1}\n'
    headers = {"Authorization": f"Bearer {sender}", "Content-Type": "application/x-ndjson"}
    assert (await client.http.post("/usage", content=line, headers=headers)).status_code == 403
    mine = await run(client, owner, update_account, accountId=acme, keysMayIngest=True)
    assert [(error["code"], error["field"]) for error in mine["userErrors"]] == [
        ("FORBIDDEN", ["input", "keysMayIngest"])
    ]
    nothing = await run(client, world.operator, update_account, accountId=acme, keysMayIngest=None)
    assert [error["code"] for error in nothing["userErrors"]] == ["INVALID"]
    await run(client, world.operator, update_account, accountId=acme, keysMayIngest=True)
    taken: Any = await client.data(sender, record)
    assert taken["recordUsage"]["results"] == [{"status": "ACCEPTED"}]


# From where


async def test_a_key_of_other_networks_opens_no_door(client: Client, world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme = await id_of(world)
    _, here = await make(client, owner, acme, scopes=["admin", "usage:write"], networks=["127.0.0.1"])
    _, elsewhere = await make(client, owner, acme, scopes=["admin", "usage:write"], networks=["203.0.113.0/24"])
    line = b'{"externalId":"acme","eventId":"n","metric":"email_sends","quantity":1}\n'
    for token, status in ((here, 200), (elsewhere, 401)):
        for extra in ({}, {"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.7"}):
            headers = {"Authorization": f"Bearer {token}", **extra}
            ndjson = headers | {"Content-Type": "application/x-ndjson"}
            answers = [
                await client.http.post("/graphql", json={"query": "{ viewer { kind } }"}, headers=headers),
                await client.http.get("/graphql", params={"query": "{ viewer { kind } }"}, headers=headers),
                await client.http.post("/usage", content=line, headers=ndjson),
            ]
            assert [answer.status_code for answer in answers] == [status] * 3
            for answer in answers if status == 401 else ():
                assert "UNAUTHENTICATED" in answer.text
                assert "203.0.113" not in answer.text


# Who is asking


async def test_viewer_tells_a_key_what_it_may_do(client: Client, world: World) -> None:
    both = await person(world, Role.BILLING_ADMIN, "acme", "birchwood")
    expires_at = "2027-01-01T00:00:00Z"
    key, token = await make(
        client, both, await id_of(world), await id_of(world, "birchwood"), expiresAt=expires_at, networks=["127.0.0.1"]
    )
    rights = ["SIGNED_IN", "READ_USAGE", "READ_BILLING"]
    data: Any = await client.data(token, VIEWER)
    viewer = data["viewer"]
    viewer["accounts"].sort(key=lambda item: item["account"]["externalId"])
    accounts = viewer["apiKey"].pop("accounts")
    assert sorted(item["externalId"] for item in accounts) == ["acme", "birchwood"]
    assert viewer == {
        "kind": "API_KEY",
        "displayName": "Test",
        "roles": ["BILLING_ADMIN"],
        "scopes": ["billing:read"],
        "rights": rights,
        "accounts": [
            {"account": {"externalId": name}, "role": "BILLING_ADMIN", "rights": rights}
            for name in ("acme", "birchwood")
        ],
        "apiKey": {
            "id": key["id"],
            "name": "Test",
            "prefix": key["prefix"],
            "expiresAt": expires_at,
            "networks": ["127.0.0.1/32"],
            "viewerCan": [{"allowed": False}, {"allowed": False}],
        },
    }
    own: Any = await client.data(both, VIEWER)
    assert own["viewer"]["apiKey"] is None
    assert own["viewer"]["rights"] == [
        "SIGNED_IN",
        "READ_USAGE",
        "READ_BILLING",
        "MANAGE_BILLING",
        "MANAGE_KEYS",
        "JOIN",
    ]


async def test_asking_who_one_is_costs_what_is_asked(client: Client, world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme", "birchwood", "calder")
    _, one = await make(client, owner, await id_of(world))
    _, three = await make(client, owner, *[await id_of(world, name) for name in ("acme", "birchwood", "calder")])
    counts: list[list[int]] = []
    for token in (one, three):
        found = []
        for query in ("{ viewer { kind rights scopes roles } }", VIEWER, LIST):
            world.statements.clear()
            await client.ask(token, query)
            found.append(len(world.statements))
        counts.append(found)
    assert counts[0] == counts[1]
    assert counts[0][1] <= 5


# What must not be told


async def test_tokens_reach_no_log_no_answer_and_no_table(
    client: Client, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme = await id_of(world)
    key, token = await make(client, owner, acme)
    turned = await run(client, owner, ROTATE, keyId=key["id"])
    canary = f"plf_test_{'c' * 12}_{'canary00' * 6}"
    secrets = [each.rpartition("_")[2] for each in (token, turned["token"], canary)]
    heard: list[str] = []
    for each in (token, turned["token"], canary):
        for headers in (
            {"Authorization": f"Bearer {each}"},
            {"Authorization": f"Bearer {each}x"},
            {"Authorization": f"Basic {each}"},
            {"Authorization": f"Bearer {owner}", "X-Request-Id": "r", "Cookie": f"token={each}"},
        ):
            for variables in (
                {"accountIds": [each], "name": "x", "scopes": [each]},
                {"accountIds": [acme], "name": "x", "scopes": [each], "networks": [each]},
                {"accountIds": [acme], "name": "x", "scopes": ["billing:read"], "expiresAt": each},
            ):
                body = {"query": CREATE, "variables": {"input": variables}}
                answer = await client.http.post(f"/graphql?token={each}", json=body, headers=headers)
                heard.append(answer.text)
            heard.append((await client.http.get("/graphql", params={"query": each}, headers=headers)).text)
            heard.append((await client.http.post("/usage", params={"key": each}, content=each, headers=headers)).text)
    # What the client of this test says of its own addresses is not ours.
    logged = [record for record in caplog.records if not record.name.startswith("http")]
    said = "\n".join([*heard, *(f"{record.getMessage()} {record.exc_text or ''}" for record in logged)])
    await world.app.state.uses.write(world.database)
    async with world.database.read() as session:
        connection = await session.connection()
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        for name in names:
            rows = (await session.execute(text(f'SELECT * FROM "{name}"'))).all()  # noqa: S608
            said += repr([tuple(row) for row in rows])
    assert key["prefix"] in said
    assert caplog.records, "what is logged is heard"
    assert [said[max(0, said.index(secret) - 200) :][:400] for secret in secrets if secret in said] == []


# Who asks for which field


async def test_the_fields_that_callers_ask_for_are_counted_beside_the_requests(client: Client, world: World) -> None:
    uses = world.app.state.uses
    uses.draw = lambda: 0.0
    owner = await person(world, Role.TENANT_OWNER, "acme")
    key, token = await make(client, owner, await id_of(world), name="Partner")
    uses.clear()
    for _ in range(3):
        await client.data(token, "query A { viewer { ...V } } fragment V on Viewer { kind kind }")
    await client.data(owner, "{ viewer { roles } }")
    await client.ask(token, "{ noSuchField }")
    await client.ask(token, "{ viewer { kind } } query B { plans { key } }")
    assert uses._counts, "nothing was written by the requests"
    async with world.database.read() as session:
        assert (await session.scalars(select(FieldUse))).all() == []
    await uses.write(world.database)
    uses.draw = lambda: 1.0
    data: Any = await client.data(world.operator, USAGE, all=False, prefix="Viewer.")
    partner = {
        "deprecationReason": None,
        "removal": None,
        "caller": data["fieldUsage"][0]["caller"],
        "count": 3 * ONE_IN,
        "lastDay": "2026-11-25",
        "apiKey": {"name": "Partner", "prefix": key["prefix"], "accounts": [{"externalId": "acme"}]},
    }
    assert data["fieldUsage"][0] == {"coordinate": "Viewer.kind", **partner}
    assert data["fieldUsage"][0]["caller"].startswith("api_key:")
    assert [(use["coordinate"], use["count"], use["apiKey"]) for use in data["fieldUsage"][1:]] == [
        ("Viewer.roles", ONE_IN, None)
    ]
    for given, count in (
        ({"all": False}, 4),
        ({"all": False, "first": 1}, 1),
        ({"all": False, "since": "2026-11-26"}, 0),
    ):
        found: Any = await client.data(world.operator, USAGE, **given)
        assert len(found["fieldUsage"]) == count
    nothing: Any = await client.data(world.operator, USAGE)
    assert nothing == {"fieldUsage": []}, "no field is deprecated"


async def test_a_deprecated_field_is_shown_with_its_last_day(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "Ask `kind`. Since: 2026-01-01. Removal: 2027-01-01"
    monkeypatch.setattr("plafond.resolvers.query._deprecations", lambda _: {"Viewer.old": reason})
    uses = world.app.state.uses
    uses.draw = lambda: 1.0
    for _ in range(2):
        uses.note_fields("member:1", Coordinates(("Viewer.kind",), ("Viewer.old",)), NOW)
    await uses.write(world.database)
    data: Any = await client.data(world.operator, USAGE)
    assert data["fieldUsage"] == [
        {
            "coordinate": "Viewer.old",
            "deprecationReason": reason,
            "removal": "2027-01-01",
            "caller": "member:1",
            "count": 2,
            "lastDay": "2026-11-25",
            "apiKey": None,
        }
    ]


@pytest.mark.parametrize("given", [{"first": 0}, {"first": 501}, {"prefix": "x" * 201}, {"prefix": "a\x00b"}])
async def test_a_question_about_fields_that_is_refused(client: Client, world: World, given: dict[str, Any]) -> None:
    answer: Any = await client.ask(world.operator, USAGE, **given)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    owner: Any = await client.ask(world.token("Acme", Role.TENANT_OWNER), USAGE)
    assert owner["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_key_makes_none_that_is_good_for_longer_or_from_elsewhere(client: Client, world: World) -> None:
    make = """mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) {
      token userErrors { code field } } }"""
    ends = (world.clock.now() + timedelta(days=1)).isoformat()
    narrow = {"name": "narrow", "scopes": ["admin"], "expiresAt": ends, "networks": ["127.0.0.0/8"]}
    made: Any = await client.data(world.operator, make, input=narrow)
    token = made["createApiKey"]["token"]
    wide: Any = await client.data(token, make, input={"name": "wide", "scopes": ["admin"]})
    assert [(error["code"], error["field"]) for error in wide["createApiKey"]["userErrors"]] == [
        ("FORBIDDEN", ["input", "expiresAt"]),
        ("FORBIDDEN", ["input", "networks"]),
    ]
    within: Any = await client.data(token, make, input={**narrow, "networks": ["127.0.0.1"]})
    assert within["createApiKey"]["userErrors"] == []
