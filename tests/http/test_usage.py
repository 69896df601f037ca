"""`/usage`: events of three content types, results in order, and what stops a stream loses nothing that it took."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import OperationalError

from plafond.http import usage
from plafond.http.usage_bodies import ArrayBody, Body, BodyBroken, Entry, LinesBody
from plafond.models import ApiKey, BillingAccount, Counter, Role, UsageEvent
from plafond.schema.node import encode_id
from plafond.schema.usage_lines import MAX_LINE, Unread
from plafond.services.access import Scope
from plafond.services.keys import create_operator_key
from plafond.services.metering import record_usage
from plafond.services.usage import MAX_EVENTS
from plafond.serving import bind_port, make_config
from plafond.settings import Environment

from ..conftest import World
from ..services.helpers import ACTOR, account_of

NDJSON = "application/x-ndjson"
BATCH = "application/cloudevents-batch+json"
ONE = "application/cloudevents+json"
MINIMAL = {"Prefer": "return=minimal"}

Line = dict[str, Any]


def sends(event_id: str, quantity: int = 1, **more: object) -> Line:
    return {"eventId": event_id, "metric": "email_sends", "externalId": "birchwood", "quantity": quantity, **more}


def cloud(event_id: str, quantity: int = 1) -> Line:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/mail",
        "type": "email_sends",
        "subject": "birchwood",
        "data": {"quantity": quantity},
    }


def ndjson(*lines: object) -> bytes:
    """Lines: bytes and texts as they are, anything else as JSON."""
    return b"\n".join(
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    )


def read(content: bytes) -> tuple[list[Line], Line]:
    """The results, and what sums up."""
    *results, end = (json.loads(line) for line in content.splitlines())
    return results, end


class Sender:
    """Sends to `/usage`, straight into the application."""

    def __init__(self, http: httpx2.AsyncClient, token: str) -> None:
        self.http = http
        self.token = token

    async def post(self, content: Any, kind: str = NDJSON, **headers: str) -> httpx2.Response:
        return await self.http.post(
            "/usage",
            content=content,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind, **headers},
        )

    async def send(self, content: Any, kind: str = NDJSON, **headers: str) -> tuple[list[Line], Line]:
        response = await self.post(content, kind, **headers)
        assert response.status_code == 200, response.text
        return read(response.content)


@pytest.fixture
async def sender(world: World) -> AsyncGenerator[Sender]:
    transport = httpx2.ASGITransport(world.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as http:
        yield Sender(http, world.operator)


async def figure(world: World, external_id: str = "birchwood") -> int:
    """How many sends are counted."""
    async with world.database.read() as session:
        used = await session.scalar(
            select(func.sum(Counter.used))
            .join(BillingAccount, BillingAccount.id == Counter.account_id)
            .where(BillingAccount.external_id == external_id, Counter.metric_key == "email_sends")
        )
        return int(used or 0)


async def key_of(world: World, name: str) -> str:
    """The token of a key for one account's usage."""
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        key = await create_operator_key(
            work, Environment.SANDBOX, name="Sender", scopes=[Scope.USAGE_WRITE], account=locked
        )
    return key.token


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_lines_are_counted_and_told_in_the_order_given(world: World, sender: Sender) -> None:
    before = await figure(world)
    body = ndjson(
        sends("a", 1),
        "",
        "not JSON",
        cloud("b", 20),
        sends("c", 1, metric="fax_pages"),
        sends("a", 1),
        {"eventId": "half", "metric": "\ud800", "quantity": 1},
        sends("d", 300) | {"properties": {"workspace": "main"}},
        sends("e" * 256),
        sends("zero") | {"occurredAt": "0001-01-01T00:00:00+01:00"},  # what some languages write for no time at all
    )
    results, end = await sender.send(body)
    assert [(row["index"], row["line"], row["eventId"], row["status"], row["code"]) for row in results] == [
        (0, 1, "a", "ACCEPTED", None),
        (1, 3, "", "REJECTED", "INVALID_EVENT"),
        (2, 4, "b", "ACCEPTED", None),
        (3, 5, "c", "REJECTED", "UNKNOWN_METRIC"),
        (4, 6, "a", "DUPLICATE", None),
        (5, 7, "half", "REJECTED", "INVALID_EVENT"),
        (6, 8, "d", "ACCEPTED", None),
        (7, 9, "e" * 255, "REJECTED", "INVALID_EVENT"),
        (8, 10, "zero", "REJECTED", "INVALID_EVENT"),
    ]
    assert results[1]["message"].startswith("Not JSON: ")
    assert (results[6]["used"], results[6]["limit"]) == (results[0]["used"] + 320, 50_000)
    assert end == {"accepted": 3, "duplicates": 1, "rejected": 5, "error": None}
    assert await figure(world) == before + 321


async def test_less_is_answered_where_less_is_preferred(sender: Sender) -> None:
    response = await sender.post(ndjson(sends("a"), "{", sends("b"), sends("a")), **MINIMAL)
    assert response.headers["preference-applied"] == "return=minimal"
    assert response.headers["content-type"] == NDJSON
    [rejected], end = read(response.content)
    assert (rejected["index"], rejected["line"], rejected["status"]) == (1, 2, "REJECTED")
    assert end == {"accepted": 2, "duplicates": 1, "rejected": 1, "error": None}


async def test_cloud_events_come_as_an_array_or_alone(world: World, sender: Sender) -> None:
    before = await figure(world)
    results, end = await sender.send(
        json.dumps([cloud("a", 1), {"specversion": "1.0"}, cloud("b", 2)], indent=1), BATCH
    )
    assert [(row["index"], row["eventId"], row["code"]) for row in results] == [
        (0, "a", None),
        (1, "", "INVALID_EVENT"),
        (2, "b", None),
    ]
    assert all("line" not in row for row in results)
    assert end == {"accepted": 2, "duplicates": 0, "rejected": 1, "error": None}
    results, end = await sender.send(json.dumps(cloud("c", 4), indent=1), ONE + "; charset=UTF-8")
    assert (end["accepted"], results[0]["eventId"]) == (1, "c")
    assert await sender.send("[]", BATCH) == ([], {"accepted": 0, "duplicates": 0, "rejected": 0, "error": None})
    assert await sender.send(b"") == ([], {"accepted": 0, "duplicates": 0, "rejected": 0, "error": None})
    assert await figure(world) == before + 7


async def test_an_account_is_named_by_its_id_too(world: World, sender: Sender) -> None:
    async with world.database.read() as session:
        account_id = await session.scalar(select(BillingAccount.id).where(BillingAccount.external_id == "birchwood"))
    named = {
        "eventId": "a",
        "metric": "email_sends",
        "accountId": encode_id("BillingAccount", account_id),
        "quantity": 1,
    }
    results, _ = await sender.send(ndjson(named, {**named, "eventId": "b", "accountId": "nonsense"}))
    assert [row["code"] for row in results] == [None, "UNKNOWN_ACCOUNT"]


async def test_each_thousand_is_one_transaction(world: World, sender: Sender) -> None:
    """However many there are: what is read and written grows by batches, not by events."""
    before = await figure(world, "acme")

    async def count(begin: int, events: int) -> int:
        world.statements.clear()
        body = ndjson(*(sends(f"e{begin + place}", externalId="acme") for place in range(events)))
        _, end = await sender.send(body, **MINIMAL)
        assert end == {"accepted": events, "duplicates": 0, "rejected": 0, "error": None}
        return len(world.statements)

    one, two, three = await count(0, 1_000), await count(1_000, 2_000), await count(3_000, 3_000)
    assert two - one == three - two, "the same for each further batch"
    assert await figure(world, "acme") == before + 6_000


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_who_may_not_is_told(world: World, sender: Sender) -> None:
    for token, status, code in (
        ("nonsense", 401, "UNAUTHENTICATED"),
        (world.token("Acme", Role.MEMBER), 403, "FORBIDDEN"),
    ):
        sender.token = token
        response = await sender.post(ndjson(sends("a")))
        assert response.status_code == status
        assert response.json()["errors"][0]["extensions"]["code"] == code
    response = await sender.http.post("/usage", content=b"", headers={"Content-Type": NDJSON})
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]


async def test_a_tenant_counts_for_its_own_account_only(world: World, sender: Sender) -> None:
    sender.token = await key_of(world, "acme")
    results, _ = await sender.send(ndjson(sends("a"), sends("b", externalId="acme"), sends("c", -1, externalId="acme")))
    assert [row["code"] for row in results] == ["UNKNOWN_ACCOUNT", None, "INVALID_QUANTITY"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": NDJSON + "; charset=latin-1"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Length": "67108865"}, 413),
    ],
    ids=str,
)
async def test_what_cannot_be_taken_is_refused_at_once(headers: dict[str, str], status: int, sender: Sender) -> None:
    response = await sender.post(ndjson(sends("a")), **headers)
    assert response.status_code == status
    assert response.json()["errors"][0]["message"]


async def test_only_posts_are_taken(sender: Sender) -> None:
    response = await sender.http.get("/usage")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


async def test_a_line_that_is_too_long_loses_nothing(sender: Sender) -> None:
    long = sends("long") | {"properties": {"a": "a" * MAX_LINE}}
    results, end = await sender.send(ndjson(sends("a"), long, sends("b"), b"x" * 300_000, sends("c")))
    assert [row["eventId"] for row in results if row["status"] == "ACCEPTED"] == ["a", "b", "c"]
    assert ["longer" in (row["message"] or "") for row in results] == [False, True, False, True, False]
    assert end["rejected"] == 2


async def test_a_body_that_is_too_long_is_told_with_what_was_taken(
    world: World, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ndjson(sends("a")) + b"\n"
    monkeypatch.setattr(usage, "MAX_BODY", 2 * len(line) + 5)
    before = await figure(world)

    async def parts() -> AsyncGenerator[bytes]:
        for name in (b"a", b"b", b"c", b"d"):
            yield line.replace(b'"a"', b'"' + name + b'"')

    response = await sender.post(parts(), **MINIMAL)
    _, end = read(response.content)
    assert (response.status_code, end["accepted"], end["error"]["code"]) == (413, 2, "PAYLOAD_TOO_LARGE")
    assert await figure(world) == before + 2
    # Where results have gone out already the status cannot change: the last line says it.
    response = await sender.post(parts())
    results, end = read(response.content)
    assert [row["status"] for row in results] == ["DUPLICATE", "DUPLICATE"]
    assert (response.status_code, end["error"]["code"]) == (200, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        ('{"a": 1}', 0),
        ("", 0),
        ("[", 0),
        ("[,]", 0),
        (json.dumps([cloud("a")])[:-1], 1),
        (json.dumps([cloud("a")]) + "[]", 1),
        (json.dumps([cloud("a"), cloud("b")]).replace("}, {", "} {"), 1),
        (json.dumps([cloud("a")])[:-1] + ",]", 1),
        (json.dumps([cloud("a")])[:-1] + ",NaN x]", 1),
        (json.dumps([cloud("a")])[:-1] + ',{"', 1),
        (json.dumps([cloud("a")]).encode()[:-1] + b',"\xff"]', 0),
        (json.dumps([cloud("a")])[:-1] + "," + "[" * 90_000, 1),
    ],
)
async def test_an_array_that_breaks_stops_there(body: str | bytes, taken: int, sender: Sender) -> None:
    response = await sender.post(body, BATCH, **MINIMAL)
    results, end = read(response.content)
    assert (end["accepted"], end["error"]["code"]) == (taken, "BAD_USER_INPUT")
    assert response.status_code == (200 if results else 400)


async def test_a_key_that_is_revoked_ends_a_stream(world: World, sender: Sender) -> None:
    sender.token = await key_of(world, "birchwood")

    async def parts() -> AsyncGenerator[bytes]:
        yield ndjson(*(sends(f"e{number}") for number in range(1_000)), "")
        async with world.database.work(ACTOR) as work:
            await work.session.execute(update(ApiKey).values(revoked_at=work.clock.now()))
        yield ndjson(sends("after"), "")

    response = await sender.post(parts(), **MINIMAL)
    _, end = read(response.content)
    assert (response.status_code, end["accepted"], end["error"]["code"]) == (401, 1_000, "UNAUTHENTICATED")


async def test_a_database_that_goes_away_is_told_and_nothing_is_counted_twice(world: World, sender: Sender) -> None:
    before = await figure(world)
    events = [sends(f"e{number}") for number in range(1_500)]
    commits = 0

    def fail(_: object) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            raise OperationalError("COMMIT", {}, Exception("gone"))

    event.listen(world.database.engine.sync_engine, "commit", fail)
    response = await sender.post(ndjson(*events), **MINIMAL)
    event.remove(world.database.engine.sync_engine, "commit", fail)
    _, end = read(response.content)
    assert (response.status_code, end["accepted"], end["error"]["code"]) == (503, 1_000, "UNAVAILABLE")
    assert response.headers["retry-after"]
    _, end = await sender.send(ndjson(*events), **MINIMAL)
    assert (end["accepted"], end["duplicates"]) == (500, 1_000)
    assert await figure(world) == before + 1_500


# --- taking bodies apart ---------------------------------------------------------------------------------------------


def take_apart(body: Body, content: bytes, size: int) -> list[Entry]:
    found: list[Entry] = []
    for place in range(0, len(content), size):
        found += body.feed(content[place : place + size])
    return [*found, *body.end()]


def names(entries: Sequence[Entry]) -> list[str]:
    return [entry.event.event_id for entry in entries]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**6])
def test_it_does_not_matter_where_a_body_is_cut(size: int) -> None:
    given = [cloud(name) for name in ("ä", "…", "c", "\\", '"', "]", "🙂")]
    expected = [item["id"] for item in given]
    for text in (json.dumps(given), json.dumps(given, ensure_ascii=False, indent=2), json.dumps([1, 12, *given])):
        assert names(take_apart(ArrayBody(), text.encode(), size))[-7:] == expected
    for end in (b"", b"\n", b"\r\n\r\n"):
        lines = (b"\r\n" if b"\r" in end else b"\n").join(json.dumps(item).encode() for item in given)
        entries = take_apart(LinesBody(), lines + end, size)
        assert names(entries) == expected
        assert [entry.line for entry in entries] == list(range(1, 8))


def test_an_array_in_tiny_parts_costs_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    decode = json.JSONDecoder.raw_decode

    def count(self: json.JSONDecoder, text: str, idx: int = 0) -> tuple[Any, int]:
        nonlocal tries
        tries += 1
        return decode(self, text, idx)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", count)
    content = json.dumps([cloud("a") | {"more": "x" * 50_000}]).encode()
    assert names(take_apart(ArrayBody(), content, 1)) == ["a"]
    assert tries < 30


def test_an_endless_element_is_not_kept() -> None:
    body = ArrayBody()
    assert list(body.feed(b'["' + b"x" * 60_000)) == []
    part = b"x" * 120_000
    with pytest.raises(BodyBroken):
        list(body.feed(part))
    lines = LinesBody()
    for _ in range(100):
        assert list(lines.feed(b"x" * 100_000)) == []
    assert len(lines._rest) <= MAX_LINE + 2
    [(_, event)] = lines.end()
    assert isinstance(event, Unread)


# --- on a real socket ------------------------------------------------------------------------------------------------


@pytest.fixture
async def port(world: World) -> AsyncGenerator[int]:
    """A real server in front of the application."""
    listener = bind_port("127.0.0.1", 0)
    config = make_config(world.app)
    config.lifespan = "off"  # `world` has begun it
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    with anyio.fail_after(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving


class Wire:
    """A connection on which a body is written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, token: str, *headers: str) -> "Wire":
        wire = cls(*await asyncio.open_connection("127.0.0.1", port))
        lines = (
            "POST /usage HTTP/1.1",
            "Host: plafond.test",
            f"Authorization: Bearer {token}",
            f"Content-Type: {NDJSON}",
            "Transfer-Encoding: chunked",
            *headers,
        )
        wire.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return wire

    async def write(self, *lines: object) -> None:
        content = ndjson(*lines, "")
        self.writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await self.writer.drain()

    async def read_line(self) -> Line:
        """The next line of the answer's body."""
        with anyio.fail_after(30):
            while True:
                line = await self.reader.readline()
                assert line, "the answer ended"
                if line.startswith(b"{"):
                    found: Line = json.loads(line)
                    return found

    async def read_status(self) -> int:
        with anyio.fail_after(30):
            return int((await self.reader.readline()).split()[1])

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_who_sends_without_a_pause_hears_of_it_too(world: World, port: int) -> None:
    """A batch is closed when its first event has waited, not when the sender is silent."""
    wire = await Wire.open(port, world.operator)
    heard = asyncio.create_task(wire.read_line())
    for number in range(MAX_EVENTS - 1):
        await wire.write(sends(f"steady-{number}"))
        await asyncio.wait([heard], timeout=0.05)
        if heard.done():
            break
    assert (await heard)["eventId"] == "steady-0"
    assert number < MAX_EVENTS - 2, "before the batch was full"
    await wire.close()


async def test_results_come_while_the_body_is_being_sent(world: World, port: int) -> None:
    wire = await Wire.open(port, world.operator)
    await wire.write(sends("a"))
    assert (await wire.read_line())["eventId"] == "a", "though the body goes on"
    await wire.write(sends("b"), sends("c"))
    assert [(await wire.read_line())["eventId"] for _ in range(2)] == ["b", "c"]
    wire.writer.write(b"0\r\n\r\n")
    assert (await wire.read_line())["accepted"] == 3
    await wire.close()


async def test_who_sends_nothing_for_long_is_told(world: World, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "STALL_S", 0.5)
    monkeypatch.setattr(usage, "LOOK_S", 0.05)
    wire = await Wire.open(port, world.operator, "Prefer: return=minimal")
    await wire.write(sends("a"))
    wire.writer.write(b"1\r\n{\r\n")  # half a line is no event
    assert await wire.read_status() == 408
    end = await wire.read_line()
    assert (end["accepted"], end["error"]["code"]) == (1, "BAD_USER_INPUT")
    await wire.close()


async def test_who_goes_away_in_the_middle_leaves_whole_batches(world: World, port: int) -> None:
    before = await figure(world)
    wire = await Wire.open(port, world.operator)
    await wire.write(*(sends(f"e{number}") for number in range(1_001)))
    assert (await wire.read_line())["eventId"] == "e0"
    await wire.close()
    with anyio.fail_after(30):
        while await figure(world) < before + 1_000:  # noqa: ASYNC110 - it is the database that is waited for
            await anyio.sleep(0.02)
    async with world.database.read() as session:
        stored = await session.scalar(
            select(func.count()).select_from(UsageEvent).where(UsageEvent.event_id.like("e%"))
        )
    assert await figure(world) - before in (1_000, 1_001)
    assert stored is not None


async def test_so_many_streams_are_taken_at_once_and_no_more(world: World, port: int) -> None:
    wires = [await Wire.open(port, world.operator) for _ in range(usage.MAX_AT_ONCE)]
    for number, wire in enumerate(wires):
        await wire.write(sends(f"stream-{number}"))
        await wire.read_line()
    late = await Wire.open(port, world.operator)
    assert await late.read_status() == 503
    await late.close()
    for wire in wires:
        await wire.close()
    with anyio.fail_after(30):
        while True:
            again = await Wire.open(port, world.operator)
            again.writer.write(b"0\r\n\r\n")
            status = await again.read_status()
            await again.close()
            if status == 200:
                break
            await anyio.sleep(0.02)


async def test_the_body_waits_while_a_batch_is_written(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends faster than the database takes fills the pipe, not the memory."""
    may_go_on = asyncio.Event()
    record = record_usage

    async def slow(*given: Any) -> Any:
        await may_go_on.wait()
        return await record(*given)

    monkeypatch.setattr(usage, "record_usage", slow)
    wire = await Wire.open(port, world.operator, "Prefer: return=minimal")
    sent = 0

    async def fill() -> None:
        nonlocal sent
        properties = {f"property {number}": "x" * 255 for number in range(20)}
        for number in range(50):
            await wire.write(*(sends(f"{number}-{place}", properties=properties) for place in range(50)))
            sent += 1
        wire.writer.write(b"0\r\n\r\n")

    filling = asyncio.create_task(fill())
    last = -1
    while sent != last:
        last = sent
        await asyncio.sleep(0.3)
    assert 0 < sent < 50, "the sender was held up"
    may_go_on.set()
    await filling
    end = await wire.read_line()
    assert (end["accepted"], end["error"]) == (2_500, None)
    await wire.close()
