"""Sockets: the protocol's rules, and streams that miss and repeat nothing, and end with the right (hard case 33)."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from sqlalchemy import ScalarSelect, delete, select, update

from plafond.database import ACCESS_TOPIC, Actor, account_topic
from plafond.models import Alert, ApiKey, ApiKeyAccount, BillingAccount, Member, Notice, NoticeSeverity, Role
from plafond.models.types import new_id
from plafond.schema import billing as shown
from plafond.schema.node import encode_id
from plafond.services.access import Principal, PrincipalKind
from plafond.services.companies import Certificate, set_tax_exemption, update_company
from plafond.services.cursors import decode_change, encode_change
from plafond.services.decisions import decide_add_on
from plafond.services.keys import revoke_key
from plafond.services.metering import record_usage
from plafond.services.notices import clear_notice, dismiss_notice, raise_notice
from plafond.services.usage import EventStatus, UsageInput

from ..conftest import NOW, World
from ..services import engine

ACTOR = Actor(name="system:test", origin="test")
SENDER = Principal(kind=PrincipalKind.OPERATOR, id="system:test", display_name="Test", is_operator=True)
PROTOCOL = "graphql-transport-ws"
BOUND_S = 30

Message = dict[str, Any]


class Closed(Exception):
    """The server closed the socket, or refused the handshake (1000 and up, or an HTTP status)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Socket:
    """The client's end of a socket whose server runs on this very loop."""

    to_server: "asyncio.Queue[Message]" = field(default_factory=asyncio.Queue)
    from_server: "asyncio.Queue[Message]" = field(default_factory=asyncio.Queue)
    subprotocol: str | None = None

    async def take(self, event: MutableMapping[str, Any]) -> None:
        await self.from_server.put(dict(event))

    async def send(self, message: object) -> None:
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        await self.to_server.put({"type": "websocket.receive", "text": text})

    async def receive(self) -> Message:
        """The next message; `Closed` where there is none any more."""
        with anyio.fail_after(BOUND_S):
            event = await self.from_server.get()
        if event["type"] == "websocket.close":
            raise Closed(event.get("code", 1000))
        if event["type"] == "websocket.http.response.start":
            raise Closed(event["status"])
        assert event["type"] == "websocket.send", event
        found: Message = json.loads(event["text"])
        return found

    async def closing_code(self) -> int:
        """How the server closes, whatever it says before."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed.code

    async def init(self, token: str) -> None:
        await self.send({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert (await self.receive())["type"] == "connection_ack"

    async def subscribe(self, operation: str, query: str, /, **variables: object) -> None:
        await self.send({"type": "subscribe", "id": operation, "payload": {"query": query, "variables": variables}})

    async def next(self, id: str = "s") -> Any:
        """The data of the next event of an operation, under its only field."""
        message = await self.receive()
        assert (message["type"], message.get("id")) == ("next", id), message
        assert "errors" not in message["payload"], message
        return next(iter(message["payload"]["data"].values()))

    async def end(self, id: str = "s") -> list[str]:
        """The codes with which an operation ends, without any data."""
        codes: list[str] = []
        while True:
            message = await self.receive()
            assert message.get("id") == id, message
            if message["type"] == "complete":
                return codes
            errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
            if message["type"] == "next":
                assert not any((message["payload"].get("data") or {}).values()), message
            for error in errors:
                assert error["extensions"]["requestId"]
                codes.append(error["extensions"]["code"])
            if message["type"] == "error":
                return codes

    async def check_alive(self) -> None:
        """Nothing is waiting, and the socket answers."""
        await self.send({"type": "ping"})
        assert await self.receive() == {"type": "pong"}


@asynccontextmanager
async def connect(
    world: World, *, origin: str | None = None, protocols: Sequence[str] = (PROTOCOL,)
) -> AsyncGenerator[Socket]:
    """An accepted socket, or `Closed`. Leaving the block breaks the connection off."""
    socket = Socket()
    headers = [(b"host", b"plafond.test"), *([(b"origin", origin.encode())] if origin else [])]
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/graphql",
        "raw_path": b"/graphql",
        "query_string": b"",
        "headers": headers,
        "subprotocols": list(protocols),
        "server": ("plafond.test", 80),
        "client": ("10.0.0.1", 4_000),
        "extensions": {"websocket.http.response": {}},
    }
    await socket.to_server.put({"type": "websocket.connect"})
    running = asyncio.create_task(world.app(scope, socket.to_server.get, socket.take))
    try:
        with anyio.fail_after(BOUND_S):
            answer = await socket.from_server.get()
        if answer["type"] != "websocket.accept":
            raise Closed(answer["status"] if "status" in answer else answer.get("code", 1000))
        socket.subprotocol = answer.get("subprotocol")
        yield socket
    finally:
        await socket.to_server.put({"type": "websocket.disconnect", "code": 1006})
        with anyio.fail_after(BOUND_S):
            await running


async def until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(BOUND_S):
        while not is_so():
            await anyio.lowlevel.checkpoint()


async def account_of(world: World, tenant: str) -> BillingAccount:
    async with world.database.read() as session:
        return (await session.scalars(select(BillingAccount).where(BillingAccount.external_id == tenant))).one()


async def id_of(world: World, tenant: str) -> str:
    return encode_id("BillingAccount", (await account_of(world, tenant)).id)


async def cursor_of(world: World, tenant: str) -> str:
    account = await account_of(world, tenant)
    return encode_change(account.id, account.sequence)


async def record(
    world: World, tenant: str, event_id: str, metric: str = "email_sends", at: datetime = NOW, **figure: int
) -> None:
    async with world.database.work(ACTOR) as work:
        given = UsageInput(event_id=event_id, metric=metric, external_id=tenant, occurred_at=at, **figure)  # type: ignore[arg-type]
        results = await record_usage(work, SENDER, [given])
    assert results[0].status is EventStatus.ACCEPTED, results


async def alert_ids_after(world: World, account_id: UUID, after: int) -> list[str]:
    async with world.database.read() as session:
        rows = await session.scalars(
            select(Alert).where(Alert.account_id == account_id, Alert.sequence > after).order_by(Alert.sequence)
        )
        return [encode_id("Alert", row.id) for row in rows]


def listeners(world: World, account_id: UUID) -> int:
    count: int = world.app.state.bus.count_listeners(account_topic(account_id))
    return count


def readers(world: World) -> int:
    """How many streams have caught up, and stand in a line."""
    count: int = world.app.state.sockets.lines.count_readers()
    return count


CHANGES = """subscription($id: ID!, $after: String, $kinds: [ChangeKind!]) {
  accountChanged(accountId: $id, after: $after, kinds: $kinds) {
    cursor kind at account { name } node { id ... on Alert { threshold } ... on MetricUsage { used }
      ... on Invoice { invoiceStatus: status cursor transactions(first: 5) { nodes { amount { amountMinor } } } }
      ... on Transaction { transactionStatus: status cursor invoice { number } }
      ... on PlanSubscription { cursor addOns { addOn { key } quantity } }
      ... on PaymentMethod { last4 } ... on Notice { code }
      ... on BillingAccount { company { legalName } taxExemption { reason } } } } }"""
RAISED = "subscription($id: ID!, $after: String) { alertRaised(accountId: $id, after: $after) { id cursor threshold } }"
CHANGED = """subscription($id: ID!, $after: String) {
  alertChanged(accountId: $id, after: $after) { id cursor threshold resolvedAt } }"""
USAGE = """subscription($id: ID!, $after: String, $metrics: [String!]) {
  usageChanged(accountId: $id, after: $after, metrics: $metrics) { used metric { key } } }"""

INVOICE = """subscription($id: ID!, $after: String) {
  invoiceChanged(accountId: $id, after: $after) { id cursor status } }"""
TRANSACTION = """subscription($id: ID!, $after: String) {
  transactionChanged(accountId: $id, after: $after) { id cursor status kind amount { amountMinor } } }"""
PLAN = """subscription($id: ID!, $after: String) {
  subscriptionChanged(accountId: $id, after: $after) { id cursor status addOns { quantity } } }"""
ABOUT_MONEY = [INVOICE, TRANSACTION, PLAN]
SHORTHANDS = [RAISED, CHANGED, USAGE, *ABOUT_MONEY]


async def buy_users(world: World, tenant: str, quantity: int) -> None:
    """Additional users, charged at once: a transaction, the subscription and an invoice change."""
    account = await account_of(world, tenant)
    await engine.order(engine.open_till(world.database), account.id, decide_add_on, "additional_user", quantity)


async def test_a_token_in_connection_init_is_acknowledged(world: World) -> None:
    async with connect(world) as socket:
        assert socket.subprotocol == PROTOCOL
        await socket.send({"type": "ping"})
        assert await socket.receive() == {"type": "pong"}
        await socket.init(world.operator)
        await socket.subscribe("q", "{ viewer { kind } }")
        assert await socket.next("q") == {"kind": "API_KEY"}
        assert await socket.receive() == {"id": "q", "type": "complete"}
        await socket.check_alive()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer garbage"},
        {"Authorization": "Basic {token}"},
        {"Authorization": "{token}"},
        {"Authorization": "Bearer {token} {token}"},
        {"Authorization": "Bearer plf_live_0123456789ab_" + "0" * 48},
        {"Authorization": 5},
        {"Authorization": ["Bearer {token}"]},
        {"Authorization": None},
        {"token": "{token}"},
    ],
)
async def test_without_a_good_token_it_closes_4403(world: World, payload: dict[str, Any] | None) -> None:
    message = {"type": "connection_init"} | ({} if payload is None else {"payload": payload})
    text = json.dumps(message).replace("{token}", world.operator)
    async with connect(world) as socket:
        await socket.send_text(text)
        assert await socket.closing_code() == 4403


async def test_a_revoked_key_opens_no_socket_and_no_further_operation(world: World) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    async with connect(world) as socket:
        await socket.init(token)
        async with world.database.work(ACTOR) as work:
            await revoke_key(work, token.rpartition("_")[0])
        await socket.subscribe("q", "{ viewer { kind } }")
        assert await socket.closing_code() == 4403
    async with connect(world) as socket:
        await socket.send({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert await socket.closing_code() == 4403


async def test_subscribing_before_init_closes_4401(world: World) -> None:
    async with connect(world) as socket:
        await socket.subscribe("q", "{ viewer { kind } }")
        assert await socket.closing_code() == 4401


async def test_a_second_init_closes_4429(world: World) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.send({"type": "connection_init", "payload": {"Authorization": f"Bearer {world.operator}"}})
        assert await socket.closing_code() == 4429


async def test_an_id_in_use_closes_4409(world: World) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", CHANGES, id=await id_of(world, "acme"))
        assert (await socket.next())["kind"] == "SNAPSHOT"
        await socket.subscribe("s", "{ viewer { kind } }")
        assert await socket.closing_code() == 4409


QUERY = {"query": "{ viewer { kind } }"}
MALFORMED_SUBSCRIBES: list[tuple[object, object]] = [
    ("1", "x"),
    ("1", None),
    ("1", []),
    ("1", {}),
    ({"a": 1}, QUERY),
    (1, QUERY),
    (None, QUERY),
    ("", QUERY),
    ("1", {"query": 1}),
    ("1", {"query": None}),
    ("1", {"query": ""}),
    ("1", QUERY | {"variables": ["x"]}),
    ("1", QUERY | {"variables": "x"}),
    ("1", QUERY | {"operationName": 1}),
    ("1", QUERY | {"operationName": "\ud800"}),
    ("1", QUERY | {"extensions": []}),
]
MALFORMED = [
    "[]",
    '"hi"',
    "42",
    "null",
    "true",
    "{}",
    "not JSON",
    "",
    "{",
    '{"type": NaN}',
    '{"type": "ping", "payload": NaN}',
    '{"type": 1}',
    '{"type": null}',
    '{"type": "unknown"}',
    '{"type": "start", "id": "1", "payload": {"query": "{viewer{kind}}"}}',
    '{"type": "ping", "payload": "x"}',
    '{"type": "subscribe"}',
    "[" * 100_000,
    '{"type":' * 100_000,
    '{"type": "subscribe", "id": "1", "payload": {"query": "{viewer{kind}}", "variables": {"a": ' + "9" * 5_000 + "}}}",
    *(json.dumps({"type": "subscribe", "id": id_, "payload": payload}) for id_, payload in MALFORMED_SUBSCRIBES),
    '{"type": "complete"}',
    '{"type": "complete", "id": 1}',
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_message_closes_4400(world: World, text: str) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.send_text(text)
        assert await socket.closing_code() == 4400


async def test_bytes_close_4400(world: World) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.to_server.put({"type": "websocket.receive", "bytes": b'{"type":"ping"}'})
        assert await socket.closing_code() == 4400


DOUBLING = " ".join(f"fragment f{n} on Viewer {{ ...f{n + 1} ...f{n + 1} }}" for n in range(29))
BAD_OPERATIONS: list[tuple[str, str | None, tuple[str, ...]]] = [
    ("{", None, ("GRAPHQL_PARSE_FAILED",)),
    ("query A { viewer { kind } }", "B", ("BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED")),
    ("query A { viewer { kind } } query B { viewer { kind } }", None, ("BAD_USER_INPUT",)),
    ("{ nope }", None, ("GRAPHQL_VALIDATION_FAILED",)),
    ("{ viewr { kind } }", None, ("GRAPHQL_VALIDATION_FAILED",)),
    ("fragment F on Viewer { kind }", None, ("BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED")),
    ("query($id: ID!) { node(id: $id) { id } }", None, ("BAD_USER_INPUT",)),
    ("{ viewer { ...f0 } } " + DOUBLING + " fragment f29 on Viewer { kind }", None, ("QUERY_TOO_COMPLEX",)),
    ("{ viewer { ...A } } fragment A on Viewer { ...A }", None, ("GRAPHQL_VALIDATION_FAILED",)),
    ("subscription { nope }", None, ("GRAPHQL_VALIDATION_FAILED",)),
    ("subscription { a: alertRaised(accountId: 1) { id } b: alertRaised(accountId: 1) { id } }", None,
     ("GRAPHQL_VALIDATION_FAILED",)),
    ("{" + " ".join(f"a{n}: __typename" for n in range(5_000)) + "}", None,
     ("GRAPHQL_PARSE_FAILED", "QUERY_TOO_COMPLEX")),
]  # fmt: skip


@pytest.mark.parametrize(("query", "name", "codes"), BAD_OPERATIONS, ids=range(len(BAD_OPERATIONS)))
async def test_a_bad_operation_fails_alone(world: World, query: str, name: str | None, codes: tuple[str, ...]) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.send({"type": "subscribe", "id": "bad", "payload": {"query": query, "operationName": name}})
        message = await socket.receive()
        if "Variable" in str(message) and message["type"] == "next":  # found out while executing
            errors = message["payload"]["errors"]
            assert (await socket.receive())["type"] == "complete"
        else:
            assert (message["type"], message["id"]) == ("error", "bad"), message
            errors = message["payload"]
        for error in errors:
            assert error["extensions"]["code"] in codes, error
            assert error["extensions"]["requestId"]
            assert "Did you mean" not in error["message"]
        await socket.subscribe("bad", "{ viewer { kind } }")
        assert await socket.next("bad") == {"kind": "API_KEY"}
        assert (await socket.receive())["type"] == "complete"
        await socket.check_alive()


async def test_operations_on_one_socket_are_capped(world: World) -> None:
    account_id = await id_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.operator)
        for number in range(105):
            await socket.subscribe(str(number), RAISED, id=account_id)
        for _ in range(5):
            assert (await socket.receive())["type"] == "error"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://plafond.test.evil.example"])
async def test_a_foreign_origin_is_refused_at_the_handshake(world: World, origin: str) -> None:
    with pytest.raises(Closed) as closed:
        async with connect(world, origin=origin):
            pytest.fail("it was accepted")
    assert closed.value.code in (403, 1000, 1008)


async def test_the_server_s_own_origin_is_welcome(world: World) -> None:
    async with connect(world, origin="http://plafond.test") as socket:
        await socket.init(world.operator)


async def speak_the_old_protocol(world: World, protocols: Sequence[str]) -> None:
    async with connect(world, protocols=protocols) as socket:
        assert socket.subprotocol is None
        await socket.send({"type": "connection_init", "payload": {}})
        await socket.send({"type": "start", "id": "1", "payload": QUERY})
        pytest.fail(f"it was answered: {await socket.receive()}")


@pytest.mark.parametrize("protocols", [["graphql-ws"], [], ["chat"]])
async def test_no_other_protocol_is_spoken(world: World, protocols: list[str]) -> None:
    with pytest.raises(Closed) as closed:
        await speak_the_old_protocol(world, protocols)
    assert closed.value.code in (400, 403, 1002, 4406)


async def test_a_stream_starts_with_a_snapshot_and_then_lives(world: World) -> None:
    account = await account_of(world, "birchwood")
    async with connect(world) as socket:
        await socket.init(world.token("Birchwood", Role.BILLING_ADMIN))
        await socket.subscribe("s", CHANGES, id=await id_of(world, "birchwood"))
        first = await socket.next()
        assert (first["kind"], first["node"]) == ("SNAPSHOT", None)
        assert first["cursor"] == encode_change(account.id, account.sequence)
        await record(world, "birchwood", "one", quantity=500)
        seen = [await socket.next(), await socket.next()]
        assert [change["kind"] for change in seen] == ["USAGE", "ALERT"]
        assert seen[0]["node"]["used"] == 40_000
        assert seen[1]["node"]["threshold"] == 80
        assert seen[0]["account"]["name"] == "Birchwood Mail"
        await socket.check_alive()


async def test_only_the_kinds_asked_for_come(world: World) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", CHANGES, id=await id_of(world, "birchwood"), kinds=["ALERT"])
        assert (await socket.next())["kind"] == "SNAPSHOT"
        await record(world, "birchwood", "one", quantity=500)
        assert (await socket.next())["kind"] == "ALERT"
        await socket.check_alive()


async def test_an_alert_arrives_live_when_80_percent_are_passed(world: World) -> None:
    account = await account_of(world, "birchwood")
    async with connect(world) as socket:
        await socket.init(world.token("Birchwood", Role.TENANT_OWNER))
        await socket.subscribe("s", RAISED, id=encode_id("BillingAccount", account.id))
        await until(lambda: readers(world) == 1)
        await socket.subscribe(
            "m", "mutation($input: RecordUsageInput!) { recordUsage(input: $input) { accepted } }", input={"events": []}
        )
        refused = await socket.receive()  # a tenant may not: and the stream goes on
        assert (refused["id"], refused["payload"]["errors"][0]["extensions"]["code"]) == ("m", "FORBIDDEN")
        assert (await socket.receive())["type"] == "complete"
        await record(world, "birchwood", "below", quantity=499)
        await record(world, "birchwood", "reached", quantity=1)
        found = await socket.next()
        assert found["threshold"] == 80
        assert [found["id"]] == await alert_ids_after(world, account.id, account.sequence)


async def test_an_alert_recorded_by_the_mutation_arrives_over_the_same_socket(world: World) -> None:
    event = {"externalId": "birchwood", "eventId": "e", "metric": "email_sends", "quantity": 8_000}
    async with connect(world) as socket:
        await socket.init(world.operator)
        after = await cursor_of(world, "birchwood")
        await socket.subscribe("s", RAISED, id=await id_of(world, "birchwood"), after=after)
        await socket.subscribe(
            "m",
            "mutation($input: RecordUsageInput!) { recordUsage(input: $input) { accepted } }",
            input={"events": [event]},
        )
        found = [await socket.receive() for _ in range(5)]
        thresholds = [item["payload"]["data"]["alertRaised"]["threshold"] for item in found if item["id"] == "s"]
        assert thresholds == [80, 90, 95]
        assert [item["type"] for item in found if item["id"] == "m"] == ["next", "complete"]


async def test_resuming_gives_exactly_what_was_missed(world: World) -> None:
    account_id = await id_of(world, "birchwood")
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", CHANGES, id=account_id, kinds=["ALERT"])
        cursor = (await socket.next())["cursor"]
    await record(world, "birchwood", "one", quantity=500)
    await record(world, "birchwood", "two", quantity=7_500)
    await record(world, "birchwood", "three", quantity=3_000)
    for start in range(4):
        async with connect(world) as socket:
            await socket.init(world.operator)
            await socket.subscribe("s", CHANGES, id=account_id, after=cursor, kinds=["ALERT"])
            seen = [await socket.next() for _ in range(4 - start)]
            assert [change["node"]["threshold"] for change in seen] == [80, 90, 95, 100][start:]
            await socket.check_alive()
            cursor = seen[0]["cursor"]


@pytest.mark.parametrize("query", [RAISED, CHANGED])
async def test_an_alert_s_own_cursor_resumes_behind_it(world: World, query: str) -> None:
    account = await account_of(world, "acme")
    account_id = encode_id("BillingAccount", account.id)
    cursor = encode_change(account.id, account.sequence)
    # 15 of 15 domains raise four alerts; none is left, and they resolve; then they are raised anew.
    for number, level in enumerate([15, 0, 15]):
        await record(world, "acme", f"g{number}", "custom_domains", NOW + timedelta(seconds=number), level=level)
    await record(world, "acme", "last", "workspaces", level=8)
    raised = await alert_ids_after(world, account.id, account.sequence)
    assert len(raised) == 9
    seen = []
    for _ in range(9 if query == RAISED else 13):  # raised, resolved, raised, and the last one
        async with connect(world) as socket:
            await socket.init(world.operator)
            await socket.subscribe("s", query, id=account_id, after=cursor)
            found = await socket.next()
            seen.append(found["id"])
            cursor = found["cursor"]
    assert seen == (raised if query == RAISED else [*raised[:4], *raised[:4], *raised[4:]])


async def test_usage_is_coalesced_and_the_last_state_comes(world: World) -> None:
    after = await cursor_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.MEMBER))
        await socket.subscribe("s", USAGE, id=await id_of(world, "acme"), after=after)
        for number in range(40):
            await record(world, "acme", f"e{number}", quantity=1)
        figures = [(await socket.next())["used"]]
        while figures[-1] != 23_490:
            figures.append((await socket.next())["used"])
        assert figures == sorted(set(figures))
        assert len(figures) < 40
        await socket.check_alive()


async def test_only_the_metrics_asked_for_come(world: World) -> None:
    after = await cursor_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", USAGE, id=await id_of(world, "acme"), after=after, metrics=["custom_domains"])
        await record(world, "acme", "mail", quantity=1)
        await record(world, "acme", "domain", "custom_domains", quantity=1)
        assert await socket.next() == {"used": 6, "metric": {"key": "custom_domains"}}


@pytest.mark.parametrize(
    ("query", "choice"),
    [
        (CHANGES, {"kinds": []}),
        (CHANGES, {"kinds": ["GAP", "SNAPSHOT"]}),
        (USAGE, {"metrics": []}),
        (USAGE, {"metrics": ["email_sends", "nope"]}),
    ],
    ids=["no kind", "no kind of change", "no metric", "unknown metric"],
)
async def test_a_choice_that_nothing_would_ever_come_of_is_refused(
    world: World, query: str, choice: dict[str, object]
) -> None:
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", query, id=await id_of(world, "acme"), **choice)
        assert await socket.end() == ["BAD_USER_INPUT"]
        await socket.check_alive()


@pytest.mark.parametrize("place", ["ahead", "no longer kept"])
async def test_a_place_that_is_not_there_gives_a_gap_then_a_snapshot(world: World, place: str) -> None:
    account = await account_of(world, "acme")
    after = encode_change(account.id, 10**9 if place == "ahead" else 1)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(BillingAccount).where(BillingAccount.id == account.id).values(kept_after_sequence=2)
        )
    now = encode_change(account.id, account.sequence)
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", CHANGES, id=encode_id("BillingAccount", account.id), after=after)
        assert [(await socket.next())["kind"] for _ in range(2)] == ["GAP", "SNAPSHOT"]
        await socket.subscribe("s2", CHANGES, id=encode_id("BillingAccount", account.id), after=now, kinds=["ALERT"])
        await socket.check_alive()
        for number, query in enumerate(SHORTHANDS):
            id_ = f"short{number}"
            await socket.subscribe(id_, query, id=encode_id("BillingAccount", account.id), after=after)
            assert await socket.end(id_) == ["CURSOR_EXPIRED"]


async def test_the_first_place_still_kept_is_no_gap(world: World) -> None:
    account = await account_of(world, "acme")
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(BillingAccount).where(BillingAccount.id == account.id).values(kept_after_sequence=account.sequence)
        )
    async with connect(world) as socket:
        await socket.init(world.operator)
        after = encode_change(account.id, account.sequence)
        await socket.subscribe("s", CHANGES, id=encode_id("BillingAccount", account.id), after=after)
        await record(world, "acme", "one", quantity=1)
        assert (await socket.next())["kind"] == "USAGE"


@pytest.mark.parametrize("query", [CHANGES, *SHORTHANDS])
async def test_a_cursor_that_is_not_this_account_s_is_bad_input(world: World, query: str) -> None:
    account = await account_of(world, "acme")
    good = encode_change(account.id, account.sequence)
    other = await cursor_of(world, "birchwood")
    async with connect(world) as socket:
        await socket.init(world.operator)
        for number, after in enumerate([other, good[:-1], good + "A", "x", "", "é", "A" * 600]):
            await socket.subscribe(str(number), query, id=encode_id("BillingAccount", account.id), after=after)
            assert await socket.end(str(number)) == ["BAD_USER_INPUT"], after
        await socket.check_alive()


@pytest.mark.parametrize("query", [CHANGES, *SHORTHANDS])
async def test_a_foreign_account_is_the_same_as_none(world: World, query: str) -> None:
    foreign = await id_of(world, "birchwood")
    unknown = encode_id("BillingAccount", "00000000-0000-4000-8000-000000000000")
    invoice = encode_id("Invoice", (await account_of(world, "acme")).id)
    answers = []
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.TENANT_OWNER))
        for id_ in (foreign, unknown, invoice, "x", ""):
            for after in (None, await cursor_of(world, "birchwood")):
                await socket.subscribe("s", query, id=id_, after=after)
                messages = [await socket.receive()]
                while messages[-1]["type"] not in ("complete", "error"):
                    messages.append(await socket.receive())
                text = json.dumps(messages)
                assert text.count('"NOT_FOUND"') == 1, text
                for error in (
                    messages[0]["payload"] if messages[0]["type"] == "error" else messages[0]["payload"]["errors"]
                ):
                    error["extensions"].pop("requestId")
                answers.append(messages)
    assert all(answer == answers[0] for answer in answers)


async def revoke(world: World, token: str) -> None:
    async with world.database.work(ACTOR) as work:
        await revoke_key(work, token.rpartition("_")[0])


def maker_of(token: str) -> ScalarSelect[UUID | None]:
    """The member who made a key of one account."""
    chosen = select(ApiKeyAccount.member_id).join(ApiKey).where(ApiKey.prefix == token.rpartition("_")[0])
    return chosen.scalar_subquery()


async def remove_member(world: World, token: str) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Member).where(Member.id == maker_of(token)).values(removed_at=NOW))
        work.topics.add(ACCESS_TOPIC)


@pytest.mark.parametrize("end_access", [revoke, remove_member])
@pytest.mark.parametrize("query", [CHANGES, *SHORTHANDS])
async def test_a_stream_ends_with_the_right(world: World, query: str, end_access: Any) -> None:
    account = await account_of(world, "birchwood")
    token = world.token("Birchwood", Role.TENANT_OWNER)
    async with connect(world) as socket:
        await socket.init(token)
        await socket.subscribe("s", query, id=encode_id("BillingAccount", account.id))
        if query == CHANGES:
            assert (await socket.next())["kind"] == "SNAPSHOT"
        await until(lambda: readers(world) == 1)
        await end_access(world, token)
        assert await socket.end() == ["UNAUTHENTICATED"]
        await record(world, "birchwood", "after", quantity=5_000)
        await until(lambda: listeners(world, account.id) == 0)
        await socket.check_alive()


@pytest.mark.parametrize("end_access", [revoke, remove_member])
async def test_nothing_written_after_the_end_is_delivered(world: World, end_access: Any) -> None:
    token = world.token("Birchwood", Role.TENANT_OWNER)
    async with connect(world) as socket:
        await socket.init(token)
        await socket.subscribe("s", CHANGES, id=await id_of(world, "birchwood"))
        assert (await socket.next())["kind"] == "SNAPSHOT"
        async with world.database.work(ACTOR) as work:  # access ends without a word to anyone, as from another process
            key = (await work.session.scalars(select(ApiKey).where(ApiKey.prefix == token.rpartition("_")[0]))).one()
            if end_access is revoke:
                key.revoked_at = NOW
            else:
                await work.session.execute(update(Member).where(Member.id == maker_of(token)).values(removed_at=NOW))
        await record(world, "birchwood", "after", quantity=5_000)
        assert await socket.end() == ["UNAUTHENTICATED"]
        await socket.check_alive()


async def test_a_stream_that_is_completed_or_broken_off_leaves_nothing_behind(world: World) -> None:
    account = await account_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.operator)
        for id_ in ("a", "b"):
            await socket.subscribe(id_, CHANGES, id=encode_id("BillingAccount", account.id))
            assert (await socket.next(id_))["kind"] == "SNAPSHOT"
        await until(lambda: listeners(world, account.id) == 1)  # one reader for both
        await socket.send({"type": "complete", "id": "a"})
        await socket.check_alive()
        assert listeners(world, account.id) == 1
        await record(world, "acme", "one", quantity=1)
        assert (await socket.next("b"))["kind"] == "USAGE"
    await until(lambda: listeners(world, account.id) == 0)


async def test_a_subscriber_killed_again_and_again_misses_nothing_and_sees_nothing_twice(world: World) -> None:
    account = await account_of(world, "acme")
    account_id = encode_id("BillingAccount", account.id)
    cursor = encode_change(account.id, account.sequence)
    seen: list[str] = []
    finished = False

    async def ingest() -> None:
        nonlocal finished
        for number in range(100):  # 15 of 15 domains and none in turn: four alerts raised, four resolved
            at = NOW - timedelta(minutes=10) + timedelta(seconds=number)
            await record(world, "acme", f"g{number}", "custom_domains", at, level=0 if number % 2 else 15)
        finished = True

    async with anyio.create_task_group() as group:
        group.start_soon(ingest)
        lives = 0
        expected: list[str] | None = None
        while expected is None or len(seen) < len(expected):
            lives += 1
            async with connect(world) as socket:
                await socket.init(world.token("Acme", Role.MEMBER))
                await socket.subscribe("s", RAISED, id=account_id, after=cursor)
                for _ in range(1 + lives % 7):
                    found = await socket.next()
                    seen.append(found["id"])
                    cursor = found["cursor"]
                    if finished and expected is None:
                        expected = await alert_ids_after(world, account.id, account.sequence)
                    if expected is not None and len(seen) >= len(expected):
                        break
    assert expected is not None
    assert len(expected) == 200
    assert seen == expected
    assert lives > 20
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.MEMBER))
        await socket.subscribe("s", RAISED, id=account_id, after=cursor)
        await record(world, "acme", "marker", "workspaces", level=8)
        assert (await socket.next())["threshold"] == 80
        await socket.check_alive()


async def test_one_stream_gets_a_long_backlog_in_order(world: World) -> None:
    account = await account_of(world, "acme")
    after = encode_change(account.id, account.sequence)
    for number in range(102):
        at = NOW - timedelta(minutes=10) + timedelta(seconds=number)
        await record(world, "acme", f"g{number}", "custom_domains", at, level=0 if number % 2 else 15)
    await record(world, "acme", "mail", quantity=1)
    async with connect(world) as socket:
        await socket.init(world.operator)
        id_ = encode_id("BillingAccount", account.id)
        await socket.subscribe("s", CHANGES, id=id_, after=after, kinds=["ALERT", "USAGE"])
        changes = [await socket.next() for _ in range(408 + 2)]
    places = [change["cursor"] for change in changes]
    assert len(set(places)) == len(places)
    kinds = [change["kind"] for change in changes]
    assert (kinds.count("ALERT"), kinds.count("USAGE")) == (408, 2)
    assert changes[-1]["node"]["used"] == 23_451


async def test_another_tenant_s_changes_never_arrive(world: World) -> None:
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.TENANT_OWNER))
        await socket.subscribe("s", CHANGES, id=await id_of(world, "acme"), kinds=["ALERT"])
        assert (await socket.next())["kind"] == "SNAPSHOT"
        await record(world, "birchwood", "one", quantity=8_000)
        await record(world, "acme", "two", "workspaces", level=8)
        found = await socket.next()
        assert (found["account"]["name"], found["node"]["threshold"]) == ("Acme Corporation", 80)
        await socket.check_alive()


# Money


async def test_what_is_bought_is_told_with_its_objects_as_they_are_now(world: World) -> None:
    account = await account_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.BILLING_ADMIN))
        await socket.subscribe("s", CHANGES, id=encode_id("BillingAccount", account.id))
        assert (await socket.next())["kind"] == "SNAPSHOT"
        await buy_users(world, "acme", 2)
        seen = {(change := await socket.next())["kind"]: change for _ in range(4)}
        await socket.check_alive()
    invoice, transaction = seen["INVOICE"]["node"], seen["TRANSACTION"]["node"]
    assert (invoice["invoiceStatus"], transaction["transactionStatus"]) == ("PAID", "SUCCEEDED")
    assert len(invoice["transactions"]["nodes"]) == 1
    assert transaction["invoice"]["number"]
    assert seen["SUBSCRIPTION"]["node"]["addOns"] == [{"addOn": {"key": "additional_user"}, "quantity": 2}]
    assert seen.pop("USAGE")["node"]["used"] == 3, "whose limit rose"
    assert all(change["node"]["cursor"] == change["cursor"] for change in seen.values())
    places = [decode_change(account.id, change["cursor"]) for change in seen.values()]
    assert places == sorted(places)
    assert account.sequence < places[0]


async def test_a_payment_method_that_comes_and_goes_is_told(world: World) -> None:
    account = await account_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.operator)
        id_ = encode_id("BillingAccount", account.id)
        await socket.subscribe("s", CHANGES, id=id_, kinds=["PAYMENT_METHOD"])
        assert (await socket.next())["kind"] == "SNAPSHOT"
        await engine.add_card(engine.open_till(world.database), account.id, "pm_card_mastercard")
        change = await socket.next()
        assert (change["kind"], change["node"]["last4"]) == ("PAYMENT_METHOD", "4444")
        await socket.check_alive()


async def test_a_company_and_what_frees_it_from_tax_are_told(world: World) -> None:
    account = await account_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.BILLING_ADMIN))
        id_ = encode_id("BillingAccount", account.id)
        await socket.subscribe("s", CHANGES, id=id_, kinds=["COMPANY"])
        assert (await socket.next())["kind"] == "SNAPSHOT"
        async with world.database.work(ACTOR) as work:
            await update_company(work, account.id, {"legal_name": "Acme Holding"})
        change = await socket.next()
        assert (change["kind"], change["node"]["id"]) == ("COMPANY", id_)
        assert change["node"]["company"] == {"legalName": "Acme Holding"}
        async with world.database.work(ACTOR) as work:
            certificate = Certificate(certificate="7", reason="A school", valid_from=date(2026, 1, 1), valid_to=None)
            await set_tax_exemption(work, account.id, certificate)
        assert (await socket.next())["node"]["taxExemption"] == {"reason": "A school"}
        await socket.check_alive()


async def test_banners_are_told_as_they_come_and_go(world: World) -> None:
    account = await account_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.BILLING_ADMIN))
        await socket.subscribe("s", CHANGES, id=encode_id("BillingAccount", account.id), kinds=["NOTICE"])
        assert (await socket.next())["kind"] == "SNAPSHOT"
        first = await raise_banner(world, account, "one")
        other = await raise_banner(world, account, "other")
        for raised in (first, other):
            change = await socket.next()
            assert (change["kind"], change["node"]["code"]) == ("NOTICE", "CARD_EXPIRING")
            assert change["node"]["id"] == encode_id("Notice", raised.id)
        async with world.database.work(ACTOR) as work:
            await dismiss_notice(work, account.id, first.id)
        change = await socket.next()
        assert (change["kind"], change["node"]) == ("NOTICE", None)
        async with world.database.work(ACTOR) as work:
            await clear_notice(work, (await work.lock_accounts([account.id]))[account.id], "CARD_EXPIRING", "other")
        change = await socket.next()
        assert (change["kind"], change["node"]) == ("NOTICE", None)
        await socket.check_alive()


async def test_banners_for_operators_are_told_to_no_tenant(world: World) -> None:
    """Neither that they came nor that they went, live or resumed."""
    account = await account_of(world, "acme")
    after, id_ = await cursor_of(world, "acme"), encode_id("BillingAccount", account.id)
    async with connect(world) as tenant, connect(world) as operator:
        await tenant.init(world.token("Acme", Role.TENANT_OWNER))
        await operator.init(world.operator)
        for socket in (tenant, operator):
            await socket.subscribe("s", CHANGES, id=id_, after=after, kinds=["NOTICE"])
        await raise_banner(world, account, "theirs", for_operators=True)
        assert (await operator.next())["node"]["code"] == "CARD_EXPIRING"
        async with world.database.work(ACTOR) as work:
            await clear_notice(work, (await work.lock_accounts([account.id]))[account.id], "CARD_EXPIRING", "theirs")
        assert (await operator.next())["node"] is None
        await tenant.subscribe("again", CHANGES, id=id_, after=after, kinds=["NOTICE"])
        await raise_banner(world, account, "ours")
        assert (await operator.next())["node"]["code"] == "CARD_EXPIRING"
        told = [await tenant.receive() for _ in range(2)]
        assert {message["id"] for message in told} == {"s", "again"}, "one each, in any order"
        assert {message["payload"]["data"]["accountChanged"]["node"]["code"] for message in told} == {"CARD_EXPIRING"}
        for socket in (tenant, operator):
            await socket.check_alive()


async def raise_banner(world: World, account: BillingAccount, subject: str, *, for_operators: bool = False) -> Notice:
    """A banner that can be put away."""
    async with world.database.work(ACTOR) as work:
        return await raise_notice(
            work,
            (await work.lock_accounts([account.id]))[account.id],
            "CARD_EXPIRING",
            subject,
            severity=NoticeSeverity.WARNING,
            params={"last4": "4242", "expMonth": 12, "expYear": 2026},
            dismissible=True,
            for_operators=for_operators,
        )


async def test_a_member_is_told_nothing_about_money(world: World) -> None:
    id_, after = await id_of(world, "acme"), await cursor_of(world, "acme")
    async with connect(world) as socket:
        await socket.init(world.token("Acme", Role.MEMBER))
        await socket.subscribe("s", CHANGES, id=id_, after=after)
        await buy_users(world, "acme", 1)
        await record(world, "acme", "one", quantity=1)
        assert [(await socket.next())["kind"] for _ in range(2)] == ["USAGE"] * 2, "the users' limit rose"
        for number, query in enumerate(ABOUT_MONEY):
            await socket.subscribe(f"m{number}", query, id=id_, after=after)
            assert await socket.end(f"m{number}") == ["FORBIDDEN"]
        for kind in ("INVOICE", "TRANSACTION", "SUBSCRIPTION", "PAYMENT_METHOD", "NOTICE", "COMPANY"):
            await socket.subscribe(kind, CHANGES, id=id_, after=after, kinds=["USAGE", kind])
            assert await socket.end(kind) == ["FORBIDDEN"]
        await socket.check_alive()


@pytest.mark.parametrize("query", [CHANGES, *ABOUT_MONEY])
async def test_who_may_not_see_money_any_more_is_told_no_more_of_it(world: World, query: str) -> None:
    token = world.token("Acme", Role.BILLING_ADMIN)
    async with connect(world) as socket:
        await socket.init(token)
        id_, after = await id_of(world, "acme"), await cursor_of(world, "acme")
        await socket.subscribe("s", query, id=id_, after=after)
        await until(lambda: readers(world) == 1)
        async with world.database.work(ACTOR) as work:  # without a word to anyone, as from another process
            await work.session.execute(update(Member).where(Member.id == maker_of(token)).values(role=Role.MEMBER))
        await buy_users(world, "acme", 1)
        assert await socket.end() == ["FORBIDDEN"]
        await socket.check_alive()


async def test_resuming_at_any_place_gives_the_rest_once(world: World) -> None:
    account = await account_of(world, "acme")
    id_, after = encode_id("BillingAccount", account.id), encode_change(account.id, account.sequence)
    for quantity in (1, 2, 3):
        await buy_users(world, "acme", quantity)
    await record(world, "acme", "one", quantity=1)
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("all", CHANGES, id=id_, after=after)
        # Three payments, three invoices, each told once; the subscription, both figures and the budget in their last
        # state. That the users spend 80 % of it is an alert, and a banner.
        whole = [await socket.next("all") for _ in range(3 + 3 + 1 + 2 + 1 + 2)]
        for number, change in enumerate(whole):
            await socket.subscribe(f"s{number}", CHANGES, id=id_, after=change["cursor"])
            rest = [await socket.next(f"s{number}") for _ in whole[number + 1 :]]
            assert rest == whole[number + 1 :]
        await socket.check_alive()
    kinds = [change["kind"] for change in whole]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "TRANSACTION": 3,
        "INVOICE": 3,
        "SUBSCRIPTION": 1,
        "USAGE": 2,
        "BUDGET": 1,
        "ALERT": 1,
        "NOTICE": 1,
    }


@pytest.mark.parametrize(("query", "status"), [(INVOICE, "PAID"), (TRANSACTION, "SUCCEEDED"), (PLAN, "ACTIVE")])
async def test_a_shorthand_about_money_resumes_behind_its_own_cursor(world: World, query: str, status: str) -> None:
    id_, cursor = await id_of(world, "acme"), await cursor_of(world, "acme")
    seen = []
    for quantity in (1, 2):
        async with connect(world) as socket:
            await socket.init(world.token("Acme", Role.TENANT_OWNER))
            await socket.subscribe("s", query, id=id_, after=cursor)
            await buy_users(world, "acme", quantity)
            seen.append(await socket.next())
            await socket.check_alive()
            cursor = seen[-1]["cursor"]
    assert [found["status"] for found in seen] == [status] * 2
    assert seen[0]["cursor"] != seen[1]["cursor"]


async def test_what_is_gone_by_now_is_told_without_it(world: World) -> None:
    account = await account_of(world, "acme")
    after = encode_change(account.id, account.sequence)
    async with world.database.work(ACTOR) as work:
        row = (await work.lock_accounts([account.id]))[account.id]
        work.emit(row, "payment.succeeded", {"transactionId": str(new_id())})
    async with connect(world) as socket:
        await socket.init(world.operator)
        id_ = encode_id("BillingAccount", account.id)
        await socket.subscribe("s", CHANGES, id=id_, after=after)
        change = await socket.next()
        assert (change["kind"], change["node"]) == ("TRANSACTION", None)
        await socket.subscribe("t", TRANSACTION, id=id_, after=after)
        await socket.check_alive()


async def test_streams_go_on_behind_alerts_that_are_gone(world: World) -> None:
    """An account's data is deleted some time after its end; what its outbox told of is not there any more."""
    account = await account_of(world, "birchwood")
    after, id_ = await cursor_of(world, "birchwood"), encode_id("BillingAccount", account.id)
    await record(world, "birchwood", "one", quantity=500)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(delete(Alert).where(Alert.account_id == account.id))
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", CHANGES, id=id_, after=after, kinds=["ALERT"])
        change = await socket.next()
        assert (change["kind"], change["node"]) == ("ALERT", None)
        for name, query in (("r", RAISED), ("c", CHANGED)):
            await socket.subscribe(name, query, id=id_, after=after)
        await until(lambda: readers(world) == 3)
        await record(world, "birchwood", "two", quantity=1_000)
        seen: set[str] = set()
        while len(seen) < 3:
            seen.add((await socket.receive())["id"])


async def test_a_query_under_way_on_a_socket_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops lets it end; a stream is no such thing."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def take_long(*_: object, **__: object) -> None:
        begun.set()
        await go_on.wait()

    sockets = world.app.state.sockets
    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe("s", RAISED, id=await id_of(world, "birchwood"))
        await until(lambda: readers(world) == 1)
        assert not sockets.is_answering
        monkeypatch.setattr("plafond.resolvers.query.find_node", take_long)
        await socket.subscribe("q", '{ node(id: "x") { id } }')
        await begun.wait()
        assert sockets.is_answering
        go_on.set()
        assert await socket.next("q") is None
        await until(lambda: not sockets.is_answering)


async def test_a_fault_of_ours_in_a_stream_tells_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    async with connect(world) as socket:
        await socket.init(world.operator)
        await socket.subscribe(
            "s", RAISED, id=await id_of(world, "birchwood"), after=await cursor_of(world, "birchwood")
        )
        monkeypatch.setattr(shown.Alert, "of", fail)
        await record(world, "birchwood", "one", quantity=500)
        message = await socket.receive()
        assert "secret" not in json.dumps(message)
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        assert [error["extensions"]["code"] for error in errors] == ["INTERNAL"]


BUDGET = """subscription($id: ID!, $after: String) {
  budgetChanged(accountId: $id, after: $after) { id cursor level spent { amountMinor } remaining { amountMinor } } }"""


async def test_budgets_are_followed_by_those_who_may_see_money(world: World) -> None:
    """Acme is on 149.00, of a budget of 200.00: three blocks of overage reach 80 %."""
    account_id = await id_of(world, "acme")
    member, owner = (world.token("Acme", role) for role in (Role.MEMBER, Role.TENANT_OWNER))
    async with connect(world) as socket, connect(world) as alerts, connect(world) as others:
        await socket.init(owner)
        await alerts.init(owner)
        await others.init(member)
        await others.subscribe("money", BUDGET, id=account_id)
        assert await others.end("money") == ["FORBIDDEN"]
        await socket.subscribe("budget", BUDGET, id=account_id)
        await alerts.subscribe("alert", RAISED, id=account_id)
        await others.subscribe("alert", RAISED, id=account_id)
        await until(lambda: readers(world) == 3)
        after = await cursor_of(world, "acme")
        await record(world, "acme", "a", quantity=56_550)
        told = await socket.next("budget")
        assert (told["level"], told["spent"]["amountMinor"], told["remaining"]["amountMinor"]) == (
            "WARNING",
            17_900,
            2_100,
        )
        raised = [(await alerts.next("alert"))["threshold"] for _ in range(5)]
        assert raised == [80, 90, 95, 100, 80]
        # Whoever may not see money is told of usage alone.
        assert [(await others.next("alert"))["threshold"] for _ in range(4)] == [80, 90, 95, 100]
        await others.check_alive()
        await socket.subscribe("again", BUDGET, id=account_id, after=after)
        assert await socket.next("again") == told
