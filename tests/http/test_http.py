"""HTTP: odd bodies, methods, tokens, limits; and what an answer never tells."""

import gzip
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select, update

from plafond.database import Actor
from plafond.models import ApiKey, ApiKeyAccount, Member, Operator, Role, UsageEvent
from plafond.services import catalogue
from plafond.services.access import Scope
from plafond.services.keys import revoke_key
from plafond.services.tokens import create_key
from plafond.settings import Environment

from ..conftest import NOW, Client, World

ACTOR = Actor(name="system:test", origin="test")
JSON = {"Content-Type": "application/json"}
RECORD = "mutation Record($input: RecordUsageInput!) { recordUsage(input: $input) { accepted userErrors { code } } }"
RECORD_ONE = (
    'mutation { recordUsage(input: { events: [{ externalId: "acme", eventId: "by-get", metric: "email_sends", '
    "quantity: 1 }] }) { accepted } }"
)
MIB = 1024 * 1024


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def check_refusal(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """A refusal before GraphQL: JSON, a code, the request's id, no data."""
    assert response.status_code == status, response.text[:300]
    assert response.headers["content-type"].startswith("application/json")
    answer: dict[str, Any] = response.json()
    assert set(answer) == {"errors"}
    assert [error["extensions"]["code"] for error in answer["errors"]] == [code]
    assert answer["errors"][0]["extensions"]["requestId"] == response.headers["x-request-id"]
    return answer


def check_errors(answer: Any, *codes: str) -> list[dict[str, Any]]:
    """A refusal by GraphQL: no data, each error with one of these codes and the request's id."""
    assert not answer.get("data"), answer
    errors: list[dict[str, Any]] = answer["errors"]
    assert errors
    for error in errors:
        assert error["extensions"]["code"] in codes, error
        assert error["extensions"]["requestId"]
        assert "Did you mean" not in error["message"]
    return errors


async def count_events(world: World) -> int:
    async with world.database.read() as session:
        return await session.scalar(select(func.count()).select_from(UsageEvent)) or 0


ODD_BODIES = {
    "null": b"null",
    "number": b"1",
    "text": b'"x"',
    "true": b"true",
    "list": b"[]",
    "batch": b'[{"query":"{viewer{kind}}"}]',
    "nothing": b"",
    "no-query": b"{}",
    "empty-query": b'{"query":"  "}',
    "query-number": b'{"query":1}',
    "query-null": b'{"query":null}',
    "variables-list": b'{"query":"{viewer{kind}}","variables":[]}',
    "variables-text": b'{"query":"{viewer{kind}}","variables":"{}"}',
    "name-number": b'{"query":"{viewer{kind}}","operationName":1}',
    "extensions-list": b'{"query":"{viewer{kind}}","extensions":[]}',
    "not-utf-8": b'{"query":"{viewer{kind}} # \xff"}',
    "utf-16": '{"query":"{viewer{kind}}"}'.encode("utf-16"),
    "byte-order-mark": b'\xef\xbb\xbf{"query":"{viewer{kind}}"}',
    "nan": b'{"query":"{viewer{kind}}","variables":{"a":NaN}}',
    "infinity": b'{"query":"{viewer{kind}}","variables":{"a":-Infinity}}',
    "deep-list": b'{"query":"{viewer{kind}}","variables":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "deep-object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep-open": b"[" * 100_000,
    "long-number": b'{"query":"{viewer{kind}}","variables":{"a":' + b"9" * 5_000 + b"}}",
    "surrogate-name": b'{"query":"{viewer{kind}}","operationName":"\\ud800"}',
    "surrogate-query": b'{"query":"{viewer{kind}} # \\ud800"}',
    "surrogate-variable": b'{"query":"{viewer{kind}}","variables":{"a":["\\udfff"]}}',
    "cut-short": b'{"query":"{viewer{kind}}"',
    "trailing": b'{"query":"{viewer{kind}}"} x',
}


@pytest.mark.parametrize("name", ODD_BODIES)
async def test_odd_bodies_are_400(client: Client, world: World, name: str) -> None:
    response = await client.http.post("/graphql", content=ODD_BODIES[name], headers=bearer(world.operator) | JSON)
    check_refusal(response, 400, "BAD_USER_INPUT")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
async def test_an_encoded_body_is_415(client: Client, world: World, encoding: str) -> None:
    body = gzip.compress(b'{"query":"{viewer{kind}}"}')
    headers = bearer(world.operator) | JSON | {"Content-Encoding": encoding}
    check_refusal(await client.http.post("/graphql", content=body, headers=headers), 415, "BAD_USER_INPUT")


async def test_gzip_that_does_not_say_so_is_400(client: Client, world: World) -> None:
    body = gzip.compress(b'{"query":"{viewer{kind}}"}')
    response = await client.http.post("/graphql", content=body, headers=bearer(world.operator) | JSON)
    check_refusal(response, 400, "BAD_USER_INPUT")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "*/*",
    ],
)
async def test_other_content_types_are_415(client: Client, world: World, kind: str) -> None:
    headers = bearer(world.operator) | ({"Content-Type": kind} if kind else {})
    response = await client.http.post("/graphql", content=b'{"query":"{viewer{kind}}"}', headers=headers)
    check_refusal(response, 415, "BAD_USER_INPUT")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; Charset=UTF-8", "application/json;charset=utf-8"]
)
async def test_json_is_taken_however_it_is_spelt(client: Client, world: World, kind: str) -> None:
    headers = bearer(world.operator) | {"Content-Type": kind}
    response = await client.http.post("/graphql", content=b'{"query":"{viewer{kind}}"}', headers=headers)
    assert (response.status_code, response.json()) == (200, {"data": {"viewer": {"kind": "API_KEY"}}})


async def test_a_large_body_is_413_by_its_length(client: Client, world: World) -> None:
    body = b'{"query":"{viewer{kind}} #' + b"a" * MIB + b'"}'
    response = await client.http.post("/graphql", content=body, headers=bearer(world.operator) | JSON)
    check_refusal(response, 413, "PAYLOAD_TOO_LARGE")


async def test_a_large_body_in_parts_is_413_and_not_read_on(client: Client, world: World) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b" " * (MIB // 8)

    response = await client.http.post("/graphql", content=parts(), headers=bearer(world.operator) | JSON)
    check_refusal(response, 413, "PAYLOAD_TOO_LARGE")
    assert sent < 16


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"])
async def test_other_methods_are_405_and_say_which_are_offered(client: Client, world: World, method: str) -> None:
    headers = bearer(world.operator) | JSON
    response = await client.http.request(method, "/graphql", content=b'{"query":"{viewer{kind}}"}', headers=headers)
    assert {"GET", "POST"} <= {item.strip() for item in response.headers["allow"].split(",")}
    check_refusal(response, 405, "BAD_USER_INPUT")


async def test_a_query_by_get_is_answered(client: Client, world: World) -> None:
    params = {
        "query": "query A($id: ID!) { node(id: $id) { id } } query B { viewer { kind } }",
        "operationName": "A",
        "variables": '{"id":"x"}',
    }
    response = await client.http.get("/graphql", params=params, headers=bearer(world.operator))
    assert (response.status_code, response.json()) == (200, {"data": {"node": None}})
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("params", [{}, {"query": ""}, {"query": "{viewer{kind}}", "variables": "[1]"}])
async def test_a_get_without_a_sound_query_is_400(client: Client, world: World, params: dict[str, str]) -> None:
    response = await client.http.get("/graphql", params=params, headers=bearer(world.operator))
    check_refusal(response, 400, "BAD_USER_INPUT")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("document", [RECORD_ONE, "query Q { viewer { kind } } " + RECORD_ONE.replace("{", "M {", 1)])
async def test_a_mutation_by_get_is_refused_and_does_nothing(
    client: Client, world: World, method: str, document: str
) -> None:
    document = document.replace("mutation M {", "mutation M {")
    before = await count_events(world)
    params = {"query": document} | ({"operationName": "M"} if " M " in document else {})
    response = await client.http.request(method, "/graphql", params=params, headers=bearer(world.operator))
    assert await count_events(world) == before
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    if method == "GET":
        check_errors(response.json(), "BAD_USER_INPUT")


async def test_a_subscription_by_post_is_refused(client: Client, world: World) -> None:
    answer = await client.ask(world.operator, 'subscription { alertRaised(accountId: "x") { id } }')
    check_errors(answer, "BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED")


BAD_AUTHORIZATIONS = {
    "none": None,
    "empty": "",
    "bare": "Bearer",
    "bare-blank": "Bearer ",
    "garbage": "Bearer garbage",
    "no-scheme": "{token}",
    "basic": "Basic {token}",
    "doubled": "Bearer {token} {token}",
    "by-comma": "Bearer {token},{token}",
    "twice-bearer": "Bearer Bearer {token}",
    "cut": "Bearer {cut}",
    "longer": "Bearer {token}0",
    "upper": "Bearer {upper}",
    "live-key": "Bearer plf_live_0123456789ab_" + "0" * 48,
    "unknown-key": "Bearer plf_test_0123456789ab_" + "0" * 48,
    "prefix-only": "Bearer plf_test_",
    "long": "Bearer " + "a" * 9_000,
    "dots": "Bearer ..",
    "jwt-like": "Bearer a.b.c",
}


@pytest.mark.parametrize("name", BAD_AUTHORIZATIONS)
async def test_a_bad_token_is_401(client: Client, world: World, name: str) -> None:
    given = BAD_AUTHORIZATIONS[name]
    headers = dict(JSON)
    if given is not None:
        token = world.operator
        headers["Authorization"] = given.format(token=token, cut=token[:-1], upper=token.upper())
    response = await client.http.post("/graphql", content=b'{"query":"{viewer{kind}}"}', headers=headers)
    check_refusal(response, 401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert world.operator not in response.text


async def test_the_key_is_asked_for_before_the_body_is_looked_at(client: Client) -> None:
    for body in (b"null", b'{"query":"{noSuchField}"}', b'{"query":"{"}', b"\xff"):
        check_refusal(await client.http.post("/graphql", content=body, headers=JSON), 401, "UNAUTHENTICATED")
    check_refusal(await client.http.get("/graphql", params={"query": "{__typename}"}), 401, "UNAUTHENTICATED")


async def test_the_scheme_is_taken_in_any_case(client: Client, world: World) -> None:
    headers = JSON | {"Authorization": f"bEARER {world.operator}"}
    response = await client.http.post("/graphql", content=b'{"query":"{viewer{kind}}"}', headers=headers)
    assert response.json() == {"data": {"viewer": {"kind": "API_KEY"}}}


async def expire(world: World, prefix: str) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(ApiKey).where(ApiKey.prefix == prefix).values(expires_at=NOW))


async def revoke(world: World, prefix: str) -> None:
    async with world.database.work(ACTOR) as work:
        await revoke_key(work, prefix)


async def remove_member(world: World, prefix: str) -> None:
    async with world.database.work(ACTOR) as work:
        chosen = select(ApiKeyAccount.member_id).join(ApiKey).where(ApiKey.prefix == prefix).scalar_subquery()
        await work.session.execute(update(Member).where(Member.id == chosen).values(removed_at=NOW))


@pytest.mark.parametrize("end", [expire, revoke, remove_member])
async def test_a_key_that_ended_is_401(client: Client, world: World, end: Any) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    assert "errors" not in await client.ask(token, "{ viewer { kind } }")
    await end(world, token.rpartition("_")[0])
    response = await client.http.post("/graphql", json={"query": "{ viewer { kind } }"}, headers=bearer(token))
    check_refusal(response, 401, "UNAUTHENTICATED")
    assert "errors" not in await client.ask(world.token("Acme", Role.MEMBER), "{ viewer { kind } }")


async def test_a_removed_operator_s_key_is_401(client: Client, world: World) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Operator).values(removed_at=NOW))
    response = await client.http.post("/graphql", json={"query": "{ viewer { kind } }"}, headers=bearer(world.operator))
    check_refusal(response, 401, "UNAUTHENTICATED")


async def test_a_key_works_until_the_moment_it_expires(client: Client, world: World) -> None:
    async with world.database.work(ACTOR) as work:
        maker = (await work.session.scalars(select(Operator))).one()
        key = create_key(
            work,
            Environment.SANDBOX,
            name="Short",
            maker=maker,
            scopes=[Scope.ADMIN],
            expires_at=NOW + timedelta(seconds=1),
        )
    assert "errors" not in await client.ask(key.token, "{ viewer { kind } }")
    world.clock.stands_at = NOW + timedelta(seconds=1)
    response = await client.http.post("/graphql", json={"query": "{ viewer { kind } }"}, headers=bearer(key.token))
    check_refusal(response, 401, "UNAUTHENTICATED")


@pytest.mark.parametrize("given", ["mine-1", "x" * 300, "a\tb", "", "é"])
async def test_the_request_id_is_ours_or_a_sound_one_of_the_caller(client: Client, world: World, given: str) -> None:
    headers = [
        (b"Authorization", f"Bearer {world.operator}".encode()),
        (b"Content-Type", b"application/json"),
        (b"X-Request-Id", given.encode("latin-1")),
    ]
    response = await client.http.post("/graphql", content=b"1", headers=headers)
    shown = check_refusal(response, 400, "BAD_USER_INPUT")["errors"][0]["extensions"]["requestId"]
    assert 0 < len(shown) <= 64
    assert shown.isascii()
    assert shown.isprintable()
    assert (shown == given) is (given == "mine-1")


SEVERAL = "query A { viewer { kind } } query B { viewer { displayName } }"


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (SEVERAL, None),
        (SEVERAL, ""),
        (SEVERAL, "C"),
        ("query A { viewer { kind } }", "a"),
        ("{ viewer { kind } }", "A"),
        ("fragment F on Viewer { kind }", None),
        (SEVERAL, "viewer"),
        ("query A { viewer { kind } } query A { viewer { kind } }", "A"),
    ],
)
async def test_an_unclear_operation_is_refused(client: Client, world: World, document: str, name: str | None) -> None:
    response = await client.http.post(
        "/graphql", json={"query": document, "operationName": name}, headers=bearer(world.operator)
    )
    check_errors(response.json(), "BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED")


async def test_the_named_operation_runs(client: Client, world: World) -> None:
    response = await client.http.post(
        "/graphql", json={"query": SEVERAL, "operationName": "B"}, headers=bearer(world.operator)
    )
    assert response.json() == {"data": {"viewer": {"displayName": "Sandbox operator"}}}


GUESSES = [
    "{ viewr { kind } }",
    "{ billingAcount { id } }",
    "{ viewer { knd } }",
    '{ nod(id: "x") { id } }',
    '{ node(idd: "x") { id } }',
    "{ billingAccount { usag { id } } }",
    "{ billingAccount { usage { history(granularity: MONT) { start } } } }",
    "{ billingAccount { invoices(frst: 1) { totalCount } } }",
    "{ billingAccount { invoices(filter: { statu: PAID }) { totalCount } } }",
    "{ billingAccount { invoices(filter: { status: PAYD }) { totalCount } } }",
    '{ billingAccounts(filter: { serch: "a" }) { totalCount } }',
    '{ node(id: "x") { ... on Invoce { id } } }',
    '{ node(id: "x") { ...F } } fragment F on BilingAccount { id }',
    "query($f: BillingAccountFiltr) { billingAccounts(filter: $f) { totalCount } }",
    "{ viewer @skp(if: true) { kind } }",
    "{ viewer @skip(iff: true) { kind } }",
    "{ viewer { ...Kin } } fragment Kind on Viewer { kind }",
    "{ viewer }",
    '{ __typ(name: "Query") { name } }',
    "mutation { recordUsag(input: { events: [] }) { accepted } }",
    "mutation { recordUsage(input: { event: [] }) { accepted } }",
    "mutation { recordUsage(inpt: { events: [] }) { accepted } }",
    'mutation { recordUsage(input: { events: [{ eventID: "1", metric: "m" }] }) { accepted } }',
]


@pytest.mark.parametrize("document", GUESSES)
async def test_a_guess_is_not_helped(client: Client, world: World, document: str) -> None:
    response = await client.http.post("/graphql", json={"query": document}, headers=bearer(world.operator))
    check_errors(response.json(), "GRAPHQL_VALIDATION_FAILED")
    assert "Did you mean" not in response.text


@pytest.mark.parametrize(
    ("declared", "use", "value"),
    [
        ("$v: [InvoiceStatus!]", "{ billingAccount { invoices(filter: { status: $v }) { totalCount } } }", ["PAYD"]),
        ("$v: InvoiceFilterInput", "{ billingAccount { invoices(filter: $v) { totalCount } } }", {"statu": ["PAID"]}),
        ("$v: Granularity!", "{ billingAccount { usage { history(granularity: $v) { start } } } }", "MONT"),
        ("$v: Int", "{ billingAccount { invoices(first: $v) { totalCount } } }", 2**31),
        ("$v: Int", "{ billingAccount { invoices(first: $v) { totalCount } } }", "1"),
        ("$v: ID!", "{ node(id: $v) { id } }", None),
        ("$v: ID!", "{ node(id: $v) { id } }", ["x"]),
        ("$v: DateTime", "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }", "2026-11-25T12:00:00"),
        ("$v: DateTime", "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }", "2026-11-25"),
        ("$v: DateTime", "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }", "2026-02-30T00:00:00Z"),
        ("$v: DateTime", "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }", "2026-W48-3T12:00:00Z"),
        (
            "$v: DateTime",
            "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }",
            "0001-01-01T00:00:00+14:00",
        ),
        ("$v: DateTime", "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }", 1_764_072_000),
        ("$v: DateTime", "{ billingAccounts(filter: { updatedSince: $v }) { totalCount } }", "٢026-11-25T12:00:00Z"),
        ("$v: CurrencyCode", "{ plans(currency: $v) { key } }", 7),
    ],
)
async def test_a_wrong_variable_is_bad_user_input(
    client: Client, world: World, declared: str, use: str, value: object
) -> None:
    token = world.operator if "billingAccounts" in use else world.token("Acme", Role.TENANT_OWNER)
    answer = await client.ask(token, f"query({declared}) {use}", v=value)
    check_errors(answer, "BAD_USER_INPUT")


@pytest.mark.parametrize("quantity", [2**53, -(2**53), 2**63, 1.5, 1e300, "1", True, [1], {}])
async def test_a_quantity_is_a_whole_number_that_json_holds(client: Client, world: World, quantity: object) -> None:
    event = {"externalId": "acme", "eventId": "q", "metric": "email_sends", "quantity": quantity}
    before = await count_events(world)
    check_errors(await client.ask(world.operator, RECORD, input={"events": [event]}), "BAD_USER_INPUT")
    assert await count_events(world) == before


@pytest.mark.parametrize("literal", ["9007199254740992", "9223372036854775808", "1.5", '"1"', "true", "X", "1" * 2_000])
async def test_a_quantity_in_the_document_too(client: Client, world: World, literal: str) -> None:
    event = f'{{ externalId: "acme", eventId: "q", metric: "email_sends", quantity: {literal} }}'
    answer = await client.ask(
        world.operator, f"mutation {{ recordUsage(input: {{ events: [{event}] }}) {{ accepted }} }}"
    )
    check_errors(answer, "BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED")


async def test_an_instant_without_offset_is_refused_and_nothing_recorded(client: Client, world: World) -> None:
    event = {"externalId": "acme", "eventId": "t", "metric": "email_sends", "quantity": 1}
    before = await count_events(world)
    for instant in ("2026-11-25T11:00:00", "2026-11-25 11:00:00Z", "2026-11-25T11:00", "now", "", 5):
        answer = await client.ask(world.operator, RECORD, input={"events": [event | {"occurredAt": instant}]})
        check_errors(answer, "BAD_USER_INPUT")
    assert await count_events(world) == before


def nested(depth: int) -> str:
    """A document that is so deep, by way of a cycle that the schema has."""
    names = ["billingAccount", "invoices", "nodes"] + ["transactions", "nodes", "invoice"] * depth
    return "{" + " { ".join(names[:depth]) + " { __typename }" + " }" * depth


RECURSIVE = [f"fragment f{n} on Viewer {{ ...f{n + 1} ...f{n + 1} }}" for n in range(29)]
LIMITS = {
    "doubling-30": "{ viewer { ...f0 } } " + " ".join(RECURSIVE) + " fragment f29 on Viewer { kind }",
    "doubling-12": "{ viewer { ...f0 } } " + " ".join(RECURSIVE[:12]) + " fragment f12 on Viewer { kind }",
    "aliases-1001": "{ viewer {" + " ".join(f"a{n}: kind" for n in range(900)) + "} "
    "b: viewer {" + " ".join(f"a{n}: kind" for n in range(98)) + "} }",
    "aliases-5000": "{" + " ".join(f"a{n}: __typename" for n in range(5_000)) + "}",
    "fields-1001": "{ " + "__typename " * 1_001 + "}",
    "fields-20000": "{ " + "__typename " * 20_000 + "}",
    "depth-17": nested(16),
    "depth-60": nested(60),
    "inline-60": "{ viewer {" + " ... on Viewer {" * 60 + " kind" + " }" * 60 + " } }",
    "fragment-chain": "{ viewer { ...f0 } } "
    + " ".join(f"fragment f{n} on Viewer {{ ...f{n + 1} }}" for n in range(40))
    + " fragment f40 on Viewer { kind }",
    "depth-by-fragments": "{ billingAccount { invoices { nodes { ...f0 } } } } "
    + " ".join(
        f"fragment f{n} on Invoice {{ transactions {{ nodes {{ invoice {{ ...f{n + 1} }} }} }} }}" for n in range(9)
    )
    + " fragment f9 on Invoice { id }",
    "directives": "{ viewer { kind " + "@include(if: true) " * 10_000 + "} }",
    "tokens": "{ viewer { kind } } " + " ".join(f"fragment g{n} on Viewer {{ kind }}" for n in range(5_000)),
    "operations": " ".join(f"query q{n} {{ viewer {{ kind }} }}" for n in range(3_000)),
    "variables": "query(" + " ".join(f"$v{n}: Int" for n in range(5_000)) + ") { viewer { kind } }",
    "conflicts": "{" + " ".join(f'a: __type(name: "{n}") {{ name }}' for n in range(2_000)) + "}",
    "fields-1400-deep": "{a" * 1_400 + "}" * 1_400,
    "list-2900-deep": "{ nodes(ids: " + "[" * 2_900,
    "list-1400-closed": "{ nodes(ids: " + "[" * 1_400 + "]" * 1_400 + ") { id } }",
    "object-700-deep": "{ plan(key: " + "{a: " * 700 + "1" + "}" * 700 + ") { key } }",
    "type-1400-deep": "query($a: " + "[" * 1_400 + "Int" + "]" * 1_400 + ") { viewer { kind } }",
    "inline-900-deep": "{ viewer {" + "...{" * 900 + "kind" + "}" * 900 + "} }",
    "introspection-cycle": "{ __schema { types { fields { type { fields { type { fields { type { fields { type { fields"
    " { type { fields { type { fields { type { name } } } } } } } } } } } } } } } } } }",
    "ring-1": "{ viewer { ...A } } fragment A on Viewer { ...A }",
    "ring-2": "{ viewer { ...A } } fragment A on Viewer { ...B } fragment B on Viewer { kind ...A }",
    "ring-300": "{ viewer { ...f0 } } "
    + " ".join(f"fragment f{n} on Viewer {{ ...f{(n + 1) % 300} }}" for n in range(300)),
    "ring-through-fields": "{ billingAccount { ...A } } fragment A on BillingAccount { invoices { nodes { ...B } } } "
    "fragment B on Invoice { transactions { nodes { invoice { ...B } } } }",
    "long-name": "{ " + "a" * 500_000 + " }",
    "long-text": '{ plan(key: "' + "a" * 900_000 + '") { key { x } } }',
}


@pytest.mark.parametrize("name", LIMITS)
async def test_a_bomb_is_refused(client: Client, world: World, name: str) -> None:
    world.statements.clear()
    response = await client.http.post("/graphql", json={"query": LIMITS[name]}, headers=bearer(world.operator))
    check_errors(
        response.json(), "QUERY_TOO_COMPLEX", "GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED", "BAD_USER_INPUT"
    )
    assert len(response.content) < 20_000
    assert len(response.json()["errors"]) <= 20
    assert len(world.statements) == 1  # who it is, and nothing more


@pytest.mark.parametrize("name", ["doubling-30", "fields-1001", "depth-17", "depth-60", "inline-60"])
async def test_what_is_too_large_says_so(client: Client, world: World, name: str) -> None:
    check_errors(await client.ask(world.operator, LIMITS[name]), "QUERY_TOO_COMPLEX")


@pytest.mark.parametrize("name", ["ring-1", "ring-2", "ring-through-fields"])
async def test_a_ring_is_a_fault_of_the_document(client: Client, world: World, name: str) -> None:
    check_errors(await client.ask(world.operator, LIMITS[name]), "GRAPHQL_VALIDATION_FAILED")


@pytest.mark.parametrize(
    "document",
    [
        nested(15),
        "{" + " ".join(f"a{n}: __typename" for n in range(990)) + "}",
        "{ viewer { ...f0 } } " + " ".join(RECURSIVE[:9]) + " fragment f9 on Viewer { kind }",
    ],
)
async def test_what_just_fits_is_answered(client: Client, world: World, document: str) -> None:
    assert await client.data(world.token("Acme", Role.TENANT_OWNER), document)


@pytest.mark.parametrize(
    "fault", [RuntimeError("secret detail"), ValueError("secret detail"), KeyError("secret detail")]
)
async def test_a_fault_of_ours_tells_nothing_but_the_request_id(
    client: Client,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
) -> None:
    async def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(catalogue, "list_metrics", fail)
    with caplog.at_level(logging.ERROR):
        response = await client.http.post(
            "/graphql", json={"query": "{ metrics { key } }"}, headers=bearer(world.operator)
        )
    assert response.status_code < 600
    error = check_errors(response.json(), "INTERNAL")[0]
    assert error["extensions"]["requestId"] == response.headers["x-request-id"]
    assert error["path"] == ["metrics"]
    for hidden in ("secret", "detail", type(fault).__name__, "Traceback", ".py"):
        assert hidden not in response.text
    assert response.headers["x-request-id"] in caplog.text
    assert "secret detail" in caplog.text


async def test_a_fault_while_finding_out_who_it_is_is_json_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("plafond.resolvers.context.prove", fail)
    transport = httpx2.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as http:
        response = await http.post("/graphql", json={"query": "{ metrics { key } }"}, headers=bearer(world.operator))
    assert "secret" not in response.text
    check_refusal(response, 500, "INTERNAL")


async def test_headers_that_claim_a_tenant_have_no_effect(client: Client, world: World) -> None:
    claims = {
        "X-Tenant-Id": "birchwood",
        "X-User-Role": "OPERATOR",
        "X-Forwarded-User": "operator",
        "X-HTTP-Method-Override": "DELETE",
    }
    response = await client.http.post(
        "/graphql",
        json={"query": "{ viewer { roles } billingAccount { externalId } }"},
        headers=bearer(world.token("Acme", Role.TENANT_OWNER)) | claims,
    )
    data = response.json()["data"]
    assert data == {"viewer": {"roles": ["TENANT_OWNER"]}, "billingAccount": {"externalId": "acme"}}


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_no_foreign_origin_is_allowed(client: Client, world: World, origin: str) -> None:
    headers = bearer(world.operator) | {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for method in ("POST", "OPTIONS"):
        response = await client.http.request(method, "/graphql", json={"query": "{viewer{kind}}"}, headers=headers)
        assert "access-control-allow-origin" not in response.headers


async def test_the_answer_is_json_that_round_trips(client: Client, world: World) -> None:
    response = await client.http.post(
        "/graphql", json={"query": "{ serverInfo { time } }"}, headers=bearer(world.operator)
    )
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.content)["data"]["serverInfo"]["time"] == "2026-11-25T12:00:00Z"
