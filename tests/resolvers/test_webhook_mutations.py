"""Webhooks and events at the door: who may, what is refused, what is shown once, and what stands in the log."""

import json
import logging
from typing import Any

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from plafond.models import AuditEntry, IdempotencyKey, OutboxEvent, Role, WebhookDelivery, WebhookEndpoint
from plafond.schema.node import encode_id
from plafond.services.access import Scope
from plafond.services.endpoints import MAX_ENDPOINTS
from plafond.services.events import EVENT_TYPES

from ..conftest import Client, World
from ..services.helpers import ACTOR, account_of, outbox_of
from ..services.receiving_hooks import happen, open_post, run_receiver
from .test_access import make_member_key, make_operator_key, unknown_like

URL = "https://8.8.8.8/hooks"
ENDPOINT = "id url description eventTypes query status disabledReason allAccounts failingSince secretOverlapsUntil"
CREATE = f"""mutation($input: CreateWebhookEndpointInput!) {{ createWebhookEndpoint(input: $input) {{
  endpoint {{ {ENDPOINT} }} secret userErrors {{ code field message }} }} }}"""
UPDATE = f"""mutation($input: UpdateWebhookEndpointInput!) {{ updateWebhookEndpoint(input: $input) {{
  endpoint {{ {ENDPOINT} }} userErrors {{ code field message }} }} }}"""
ROTATE = """mutation($input: RotateWebhookSecretInput!) { rotateWebhookSecret(input: $input) {
  endpoint { secretOverlapsUntil } secret userErrors { code field } } }"""
DELETE = """mutation($id: ID!) { deleteWebhookEndpoint(input: { endpointId: $id }) {
  deletedEndpointId userErrors { code field } } }"""
TEST = """mutation($id: ID!) { sendTestWebhook(input: { endpointId: $id }) {
  delivery { id type status body attempts { number } } userErrors { code field message } } }"""
REDELIVER = """mutation($input: RedeliverWebhookInput!) { redeliverWebhook(input: $input) {
  delivery { id status } queued nextCursor userErrors { code field message } } }"""
LIST = f"""{{ billingAccount(externalId: "acme") {{ webhookEndpoints {{ {ENDPOINT}
  deliveries(first: 5) {{ totalCount nodes {{ id eventId type status body
    attempts {{ number statusCode answer failure }} }} }}
}} }} }}"""
EVENTS = """query($first: Int, $after: String, $types: [String!], $accountIds: [ID!]) {
  events(first: $first, after: $after, types: $types, accountIds: $accountIds) { totalCount
    edges { cursor } pageInfo { hasNextPage endCursor }
    nodes { id cursor type version at payload account { id externalId } } } }"""


async def acme(world: World) -> str:
    return encode_id("BillingAccount", (await account_of(world)).id)


async def make(client: Client, world: World, token: str | None = None, **given: Any) -> dict[str, Any]:
    """An endpoint of Acme's, with its secret."""
    asked = {"accountId": await acme(world), "url": URL, **given}
    data: Any = await client.data(token or world.token("Acme", Role.TENANT_OWNER), CREATE, input=asked)
    payload: dict[str, Any] = data["createWebhookEndpoint"]
    assert payload["userErrors"] == []
    endpoint: dict[str, Any] = payload["endpoint"]
    return endpoint | {"secret": payload["secret"]}


async def refused(client: Client, token: str, query: str, **variables: Any) -> list[dict[str, Any]]:
    """The user errors of a mutation."""
    data: Any = await client.data(token, query, **variables)
    (payload,) = data.values()
    errors: list[dict[str, Any]] = payload["userErrors"]
    return errors


async def test_an_endpoint_is_made_read_changed_and_deleted(client: Client, world: World) -> None:
    token = world.token("Acme", Role.BILLING_ADMIN)
    made = await make(client, world, token, description="ours", eventTypes=["invoice.paid", "invoice.paid"])
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made == {
        "id": made["id"],
        "url": URL,
        "description": "ours",
        "eventTypes": ["invoice.paid"],
        "query": None,
        "status": "ENABLED",
        "disabledReason": None,
        "allAccounts": False,
        "failingSince": None,
        "secretOverlapsUntil": None,
    }
    changes = {"endpointId": made["id"], "url": f"{URL}2", "description": None, "eventTypes": [], "status": "DISABLED"}
    data: Any = await client.data(token, UPDATE, input=changes | {"query": "{ viewer { kind } }"})
    changed = data["updateWebhookEndpoint"]["endpoint"]
    assert changed == made | {
        "url": f"{URL}2", "description": "", "eventTypes": [], "status": "DISABLED", "disabledReason": "BY_HAND",
        "query": "{ viewer { kind } }",
    }  # fmt: skip
    listed: Any = await client.data(token, LIST)
    [found] = listed["billingAccount"]["webhookEndpoints"]
    assert {key: found[key] for key in changed} == changed
    (error,) = await refused(client, token, TEST, id=made["id"])
    assert (error["code"], error["field"]) == ("CONFLICT", ["input"])
    gone: Any = await client.data(token, DELETE, id=made["id"])
    assert gone["deleteWebhookEndpoint"]["deletedEndpointId"] == made["id"]
    assert (await client.data(token, LIST))["billingAccount"] == {"webhookEndpoints": []}
    for query, variables in (
        (DELETE, {"id": made["id"]}),
        (TEST, {"id": made["id"]}),
        (UPDATE, {"input": {"endpointId": made["id"]}}),
    ):
        assert [error["code"] for error in await refused(client, token, query, **variables)] == ["NOT_FOUND"]
    async with world.database.read() as session:
        actions = (
            await session.scalars(
                select(AuditEntry.action)
                .where(AuditEntry.action.like("webhook_endpoint.%"))
                .order_by(AuditEntry.number)
            )
        ).all()
        row = (await session.scalars(select(WebhookEndpoint))).one()
    assert actions == ["webhook_endpoint.created", "webhook_endpoint.updated", "webhook_endpoint.removed"]
    assert (row.secret, row.previous_secret) == ("", None)


INSIDE = [
    "https://127.0.0.1/", "https://localhost/", "https://localhost./", "https://127.1/", "https://2130706433/",
    "https://0x7f000001/", "https://0177.0.0.1/", "https://[::1]/", "https://[::ffff:7f00:1]/", "https://[::]/",
    "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://0.0.0.0/", "https://10.0.0.1/",
    "https://172.16.0.1/", "https://192.168.0.1/", "https://100.64.0.1/", "https://169.254.169.254/latest",
    "https://[fd00:ec2::254]/", "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://224.0.0.1/",
    "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://metadata.google.internal/", "https://box.local/",
    "https://user:pass@8.8.8.8/", "https://8.8.8.8@127.0.0.1/", "https://127.0.0.1#@8.8.8.8/", "https://8.8.8.8\\x",
    "https://8.8.8.8:22/", "https://8.8.8.8:0/", "https://8.8.8.8:99999/", "http://8.8.8.8/", "file:///etc/passwd",
    "gopher://8.8.8.8/", "ftp://8.8.8.8/", "data:text/plain,x", "https://8.8.8.8/\r\nX: y", "https://8.8.8.8/\x00",
    "https://8.8.8.8/" + "a" * 10_000, "https://8.8.8.8/#x", "https://intranet/", "https:///", "//8.8.8.8/", "", "x",
    "https://8.8.8.8:８４４３/", "https://[::127.0.0.1]/", "https://0x7f.1/", "https://8.8.8.8./", "https://①.example.com/",
]  # fmt: skip


async def test_a_url_that_leads_inside_is_refused_in_every_spelling(client: Client, world: World) -> None:
    token, account_id = world.token("Acme", Role.TENANT_OWNER), await acme(world)
    made = await make(client, world)
    for url in INSIDE:
        (error,) = await refused(client, token, CREATE, input={"accountId": account_id, "url": url})
        assert (error["code"], error["field"]) == ("INVALID", ["input", "url"]), url
        assert len(error["message"]) < 300
        (error,) = await refused(client, token, UPDATE, input={"endpointId": made["id"], "url": url})
        assert (error["code"], error["field"]) == ("INVALID", ["input", "url"]), url


async def test_what_else_is_wrong_is_told_at_once(client: Client, world: World) -> None:
    given = {"eventTypes": ["invoice.paid", "nothing.here"], "query": "mutation { x }", "description": "a\nb"}
    asked = {"accountId": await acme(world), "url": URL, **given}
    errors = await refused(client, world.operator, CREATE, input=asked)
    assert sorted(error["field"][1] for error in errors) == ["description", "eventTypes", "query"]
    told = next(error["message"] for error in errors if error["field"][1] == "eventTypes")
    assert told.startswith("There are no events of the type 'nothing.here': known are account.created, ")


async def test_an_account_has_at_most_ten(client: Client, world: World) -> None:
    for _ in range(MAX_ENDPOINTS):
        await make(client, world)
    errors = await refused(client, world.operator, CREATE, input={"accountId": await acme(world), "url": URL})
    assert [error["code"] for error in errors] == ["CONFLICT"]


async def test_the_secret_is_shown_once_and_stands_nowhere(
    client: Client, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "plafond")
    token = world.token("Acme", Role.TENANT_OWNER)
    asked = {"accountId": await acme(world), "url": URL, "idempotencyKey": "once"}
    first: Any = await client.ask(token, CREATE, input=asked)
    again: Any = await client.ask(token, CREATE, input=asked)
    created = first["data"]["createWebhookEndpoint"]
    replayed = again["data"]["createWebhookEndpoint"]
    assert replayed == created | {"secret": None}
    assert again["extensions"]["idempotency"] == {"replayed": True}
    turn = {"endpointId": created["endpoint"]["id"], "idempotencyKey": "turn", "overlapHours": 3}
    rotated: Any = await client.data(token, ROTATE, input=turn)
    rotated_again: Any = await client.data(token, ROTATE, input=turn)
    assert rotated_again["rotateWebhookSecret"] == rotated["rotateWebhookSecret"] | {"secret": None}
    assert rotated["rotateWebhookSecret"]["endpoint"]["secretOverlapsUntil"] == "2026-11-25T15:00:00Z"
    too_long = await refused(client, token, ROTATE, input=turn | {"overlapHours": 169, "idempotencyKey": "2"})
    assert too_long == [{"code": "INVALID", "field": ["input", "overlapHours"]}]
    secrets = {created["secret"], rotated["rotateWebhookSecret"]["secret"]}
    assert len(secrets) == 2
    async with world.database.read() as session:
        kept = [row.answer for row in await session.scalars(select(IdempotencyKey))]
        audited = [(row.before, row.after) for row in await session.scalars(select(AuditEntry))]
        told = [row.payload for row in await session.scalars(select(OutboxEvent))]
        rows = [repr(row) for row in await session.scalars(select(WebhookEndpoint))]
    everything = json.dumps([kept, audited, told, rows], default=str) + caplog.text
    assert [secret for secret in secrets if secret in everything] == []


@pytest.mark.parametrize("role", [Role.MEMBER])
async def test_a_member_neither_sees_nor_changes(client: Client, world: World, role: Role) -> None:
    made = await make(client, world)
    token = world.token("Acme", role)
    answer: Any = await client.ask(token, LIST)
    assert answer["data"] == {"billingAccount": {"webhookEndpoints": None}}
    for query, variables in (
        (CREATE, {"input": {"accountId": await acme(world), "url": URL}}),
        (DELETE, {"id": made["id"]}),
        (TEST, {"id": made["id"]}),
        (EVENTS, {}),
    ):
        refusal: Any = await client.ask(token, query, **variables)
        assert refusal["errors"][0]["extensions"]["code"] == "FORBIDDEN", query


async def test_who_only_reads_changes_nothing(client: Client, world: World) -> None:
    made = await make(client, world)
    token = await make_member_key(world, "acme", [Scope.BILLING_READ])
    listed: Any = await client.data(token, LIST)
    assert len(listed["billingAccount"]["webhookEndpoints"]) == 1
    answer: Any = await client.ask(token, DELETE, id=made["id"])
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_another_tenants_endpoint_is_the_same_as_none(client: Client, world: World) -> None:
    made = await make(client, world)
    tested: Any = await client.data(world.operator, TEST, id=made["id"])
    delivery_id = tested["sendTestWebhook"]["delivery"]["id"]
    stranger = world.token("Elmtree", Role.TENANT_OWNER)
    for id_ in (made["id"], unknown_like(made["id"]), "x", delivery_id):
        for query, variables in (
            (DELETE, {"id": id_}),
            (TEST, {"id": id_}),
            (UPDATE, {"input": {"endpointId": id_, "url": URL}}),
            (ROTATE, {"input": {"endpointId": id_}}),
            (REDELIVER, {"input": {"endpointId": id_, "after": await any_cursor(client, world)}}),
        ):
            errors = await refused(client, stranger, query, **variables)
            assert [(error["code"], error["field"]) for error in errors] == [("NOT_FOUND", ["input", "endpointId"])]
    for id_ in (delivery_id, unknown_like(delivery_id), "x"):
        errors = await refused(client, stranger, REDELIVER, input={"deliveryId": id_})
        assert [(error["code"], error["field"]) for error in errors] == [("NOT_FOUND", ["input", "deliveryId"])]


async def any_cursor(client: Client, world: World) -> str:
    async with open_post(world):
        pass  # it gives events their places
    data: Any = await client.data(world.operator, EVENTS, first=1)
    cursor: str = data["events"]["nodes"][0]["cursor"]
    return cursor


async def test_the_operators_endpoints_are_theirs_alone(client: Client, world: World) -> None:
    of_one = await make_operator_key(world, [Scope.ADMIN], "acme")
    owner = world.token("Acme", Role.TENANT_OWNER)
    for token in (of_one, owner):
        answer: Any = await client.ask(token, CREATE, input={"url": URL})
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    data: Any = await client.data(world.operator, CREATE, input={"url": URL})
    made = data["createWebhookEndpoint"]["endpoint"]
    assert made["allAccounts"] is True
    tested: Any = await client.data(world.operator, TEST, id=made["id"])
    delivery = tested["sendTestWebhook"]["delivery"]
    assert delivery["type"] == "webhook.test"
    listed: Any = await client.data(world.operator, "{ webhookEndpoints { id } }")
    assert listed == {"webhookEndpoints": [{"id": made["id"]}]}
    node = "query($id: ID!) { node(id: $id) { id } }"
    async with world.database.read() as session:
        logged = await session.scalar(select(WebhookDelivery.account_id))
    assert logged is None
    for id_ in (made["id"], delivery["id"]):
        assert await client.data(world.operator, node, id=id_) == {"node": {"id": id_}}
        for token in (of_one, owner):
            assert await client.data(token, node, id=id_) == {"node": None}
    for token in (of_one, owner):
        assert [error["code"] for error in await refused(client, token, DELETE, id=made["id"])] == ["NOT_FOUND"]
        assert [
            error["code"] for error in await refused(client, token, REDELIVER, input={"deliveryId": delivery["id"]})
        ] == ["NOT_FOUND"]
        refusal: Any = await client.ask(token, "{ webhookEndpoints { id } }")
        assert refusal["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await refused(client, world.operator, DELETE, id=made["id"]) == []


async def test_the_log_shows_what_was_answered(client: Client, world: World) -> None:
    made = await make(client, world, eventTypes=["account.updated"])
    async with run_receiver() as receiver, open_post(world) as post:
        async with world.database.work(ACTOR) as work:
            row = (await work.session.scalars(select(WebhookEndpoint))).one()
            row.url = receiver.url
        await happen(world, "one")
        await post.run()
        listed: Any = await client.data(world.token("Acme", Role.TENANT_OWNER), LIST)
        [endpoint] = listed["billingAccount"]["webhookEndpoints"]
        log = endpoint["deliveries"]
        assert [node["eventId"] for node in log["nodes"]] == list(reversed(receiver.ids))
        delivery = log["nodes"][0]
        assert delivery["body"] == receiver.messages[-1].body.decode()
        assert delivery["attempts"] == [{"number": 1, "statusCode": 200, "answer": "thanks", "failure": None}]
        again: Any = await client.data(world.operator, REDELIVER, input={"deliveryId": delivery["id"]})
        assert again["redeliverWebhook"] == {
            "delivery": {"id": delivery["id"], "status": "PENDING"}, "queued": 1, "nextCursor": None, "userErrors": [],
        }  # fmt: skip
        await post.run()
        assert receiver.ids[-1] == delivery["eventId"]
        waiting = """query($id: ID!) { node(id: $id) { ... on WebhookEndpoint {
          deliveries(status: [PENDING]) { totalCount } } } }"""
        assert await client.data(world.operator, waiting, id=made["id"]) == {"node": {"deliveries": {"totalCount": 0}}}
    for wrong in (
        {},
        {"endpointId": made["id"]},
        {"deliveryId": delivery["id"], "endpointId": made["id"], "after": "x"},
    ):
        errors = await refused(client, world.operator, REDELIVER, input=wrong)
        assert [(error["code"], error["field"]) for error in errors] == [("INVALID", ["input"])]
    answer: Any = await client.ask(world.operator, REDELIVER, input={"endpointId": made["id"], "after": "x"})
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


# --- events ----------------------------------------------------------------------------------------------------------


async def test_events_are_read_on_and_on_in_the_order_of_their_places(client: Client, world: World) -> None:
    async with open_post(world):
        pass
    async with world.database.read() as session:
        rows = (
            await session.scalars(
                select(OutboxEvent).where(OutboxEvent.position.is_not(None)).order_by(OutboxEvent.position)
            )
        ).all()
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        data: Any = await client.data(world.operator, EVENTS, first=100, after=after)
        page = data["events"]
        assert page["totalCount"] == len(rows)
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert [node["id"] for node in found] == [encode_id("BillingEvent", row.id) for row in rows]
    assert [node["type"] for node in found] == [row.kind for row in rows]
    await happen(world, "later")
    data = await client.data(world.operator, EVENTS, after=after)
    assert data["events"]["nodes"] == [], "it has no place yet"
    async with open_post(world):
        pass
    data = await client.data(world.operator, EVENTS, after=after)
    [node] = data["events"]["nodes"]
    assert node["payload"] == {"changed": ["later"]}
    assert node["account"]["externalId"] == "acme"
    same: Any = await client.data(
        world.operator, "query($id: ID!) { node(id: $id) { ... on BillingEvent { cursor } } }", id=node["id"]
    )
    assert same["node"] == {"cursor": node["cursor"]}


async def test_events_are_chosen_by_type_and_account(client: Client, world: World) -> None:
    async with open_post(world):
        pass
    own = await acme(world)
    data: Any = await client.data(world.operator, EVENTS, first=100, types=["invoice.paid"], accountIds=[own])
    assert {(node["type"], node["account"]["id"]) for node in data["events"]["nodes"]} == {("invoice.paid", own)}
    payload = data["events"]["nodes"][0]["payload"]
    node: Any = await client.data(
        world.operator,
        "query($id: ID!) { node(id: $id) { ... on Invoice { number } } }",
        id=payload["invoiceId"],
    )
    assert node["node"]["number"] == payload["number"]
    for ids in ([], ["x"], [unknown_like(own)]):
        nothing: Any = await client.data(world.operator, EVENTS, accountIds=ids)
        assert nothing["events"]["totalCount"] == 0
    for wrong in ({"types": ["nope"]}, {"accountIds": ["x"] * 101}, {"first": 0}, {"first": 101}, {"after": "x"}):
        answer: Any = await client.ask(world.operator, EVENTS, **wrong)
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT", wrong


async def test_a_tenant_reads_its_own_events_and_none_for_operators(client: Client, world: World) -> None:
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        work.emit(locked, "account.updated", {"accountId": str(account.id), "changed": ["x"], "forOperators": True})
    async with open_post(world):
        pass
    token = world.token("Acme", Role.TENANT_OWNER)
    own = [row for row in await outbox_of(world) if row.position]
    hidden = own[-1]
    data: Any = await client.data(token, EVENTS)
    assert data["events"]["totalCount"] == len([row for row in own if not row.payload.get("forOperators")])
    foreign = encode_id("BillingAccount", (await account_of(world, "birchwood")).id)
    nothing: Any = await client.data(token, EVENTS, accountIds=[foreign])
    assert nothing["events"]["totalCount"] == 0
    node = "query($id: ID!) { node(id: $id) { id } }"
    id_ = encode_id("BillingEvent", hidden.id)
    assert await client.data(token, node, id=id_) == {"node": None}
    for reader in (world.operator, await make_operator_key(world, [Scope.BILLING_READ], "acme")):
        assert await client.data(reader, node, id=id_) == {"node": {"id": id_}}
        last: Any = await client.data(reader, EVENTS, accountIds=[await acme(world)])
        assert last["events"]["totalCount"] == len(own)


async def test_a_cursor_behind_which_events_are_gone_says_where_to_go_on(client: Client, world: World) -> None:
    async with open_post(world):
        pass
    data: Any = await client.data(world.operator, EVENTS, first=10)
    cursors = [node["cursor"] for node in data["events"]["nodes"]]
    async with world.database.work(ACTOR) as work:
        await work.session.execute(delete(OutboxEvent).where(OutboxEvent.position <= 5))
    answer: Any = await client.ask(world.operator, EVENTS, after=cursors[3])
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    assert "The oldest one still there is of 20" in error["message"]
    made = await make(client, world)
    replay: Any = await client.ask(world.operator, REDELIVER, input={"endpointId": made["id"], "after": cursors[3]})
    assert replay["errors"][0]["extensions"]["code"] == "CURSOR_EXPIRED"
    resume = error["message"].rpartition(" ")[2]
    assert resume == cursors[4]
    for kept in (cursors[4], resume):
        found: Any = await client.data(world.operator, EVENTS, first=5, after=kept)
        assert [node["cursor"] for node in found["events"]["nodes"]] == cursors[5:]
    unbound: Any = await client.data(world.operator, EVENTS, first=1)
    assert unbound["events"]["nodes"][0]["cursor"] == cursors[5]
    async with world.database.work(ACTOR) as work:
        await work.session.execute(delete(OutboxEvent))
    answer = await client.ask(world.operator, EVENTS, after=cursors[9])
    assert answer["errors"][0]["extensions"]["code"] == "CURSOR_EXPIRED"
    last = answer["errors"][0]["message"].rpartition(" ")[2]
    assert (await client.data(world.operator, EVENTS, after=last))["events"]["nodes"] == []  # type: ignore[index]


async def test_the_list_takes_a_constant_number_of_statements(client: Client, world: World) -> None:
    async with open_post(world):
        pass
    counts = []
    for first in (2, 60):
        world.statements.clear()
        data: Any = await client.data(world.operator, EVENTS, first=first)
        assert len(data["events"]["nodes"]) == first
        counts.append(len(world.statements))
    assert counts[0] == counts[1], counts
    async with world.database.read() as session:
        kinds = (await session.scalars(select(OutboxEvent.kind).group_by(OutboxEvent.kind))).all()
        assert set(kinds) <= EVENT_TYPES.keys()
        assert await session.scalar(select(func.count()).select_from(OutboxEvent)) > 60  # type: ignore[operator]


async def test_a_database_that_fails_tells_no_secret(world: World) -> None:
    account = await account_of(world)

    async def write_twice() -> None:
        async with world.database.work(ACTOR) as work:
            for _ in range(2):
                endpoint = WebhookEndpoint(
                    created_at=world.clock.now(),
                    id=account.id,
                    account_id=account.id,
                    url=URL,
                    event_kinds=[],
                    secret="whsec_canary",
                    created_by="test",
                )
                work.session.add(endpoint)
                await work.session.flush()
                work.session.expunge_all()

    with pytest.raises(IntegrityError) as failed:
        await write_twice()
    assert "whsec_canary" not in str(failed.value)
