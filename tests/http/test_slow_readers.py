"""Real sockets: whoever reads slowly, or not at all, costs bounded memory, delays nobody, and resumes by its cursor."""

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import uvicorn

from plafond.http import outbox
from plafond.models.types import new_id
from plafond.schema.node import encode_id
from plafond.services.cursors import encode_change
from plafond.serving import make_config

from ..conftest import World
from .test_sockets import ACTOR, account_of, readers, until

BOUND_S = 60
WIDE = " ".join(f"c{number}: cursor" for number in range(60))
FOLLOW = f"""subscription($id: ID!, $after: String) {{
  accountChanged(accountId: $id, after: $after, kinds: [TRANSACTION]) {{ cursor kind {WIDE} }} }}"""


@asynccontextmanager
async def serve(world: World) -> AsyncGenerator[int]:
    """The application behind a real server, on this loop. Gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    config = make_config(world.app)
    config.lifespan = "off"  # the world runs it
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # pytest has its own
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        with anyio.fail_after(BOUND_S):
            await serving


@dataclass
class Wire:
    """A client by hand, that reads only when it is told to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, message: object) -> None:
        data = json.dumps(message).encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0xFE]) + len(data).to_bytes(2, "big")
        self.writer.write(b"\x81" + size + b"\0\0\0\0" + data)
        await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        """The next frame that is no ping: its kind and content."""
        while True:
            head = await self.reader.readexactly(2)
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            content = await self.reader.readexactly(size)
            if head[0] & 0x0F != 9:
                return head[0] & 0x0F, content

    async def receive(self) -> dict[str, Any]:
        with anyio.fail_after(BOUND_S):
            kind, content = await self.frame()
        assert kind == 1, (kind, content)
        found: dict[str, Any] = json.loads(content)
        return found

    async def change(self) -> dict[str, Any]:
        message = await self.receive()
        assert message["type"] == "next", message
        found: dict[str, Any] = message["payload"]["data"]["accountChanged"]
        return found

    async def closing_code(self) -> int:
        """How the server closes, whatever it says before."""
        with anyio.fail_after(BOUND_S):
            while True:
                kind, content = await self.frame()
                if kind == 8:
                    return int.from_bytes(content[:2], "big")


@asynccontextmanager
async def connect(port: int, token: str, query: str = FOLLOW, **variables: object) -> AsyncGenerator[Wire]:
    """A socket on which a subscription runs. Its receive buffer is small."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=8 * 1024)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    wire = Wire(reader, writer)
    try:
        await wire.send({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert (await wire.receive())["type"] == "connection_ack"
        await wire.send({"type": "subscribe", "id": "s", "payload": {"query": query, "variables": variables}})
        yield wire
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def tell(world: World, account_id: Any, count: int) -> None:
    """So many changes, in one transaction."""
    async with world.database.work(ACTOR) as work:
        row = (await work.lock_accounts([account_id]))[account_id]
        for _ in range(count):
            work.emit(row, "payment.succeeded", {"transactionId": str(new_id())})


async def test_a_reader_that_never_reads_costs_little_and_delays_nobody(world: World) -> None:
    account = await account_of(world, "acme")
    id_, after = encode_id("BillingAccount", account.id), encode_change(account.id, account.sequence)
    async with (
        serve(world) as port,
        connect(port, world.operator, id=id_, after=after),
        connect(port, world.operator, id=id_, after=after) as other,
    ):
        await until(lambda: readers(world) == 2)
        handlers = list(world.app.state.sockets.handlers)
        seen = []
        for _ in range(20):
            await tell(world, account.id, 100)
            seen += [(await other.change())["cursor"] for _ in range(100)]
            assert all(len(handler.outbox._waiting) <= outbox.MAX_WAITING for handler in handlers)
            assert all(handler.outbox._characters <= outbox.MAX_CHARACTERS for handler in handlers)
        assert len(set(seen)) == 2_000
        assert len(world.app.state.sockets.handlers) == 2, "the other one waited for nothing"


async def test_a_reader_that_never_reads_is_sent_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "STALL_S", 1.0)
    account = await account_of(world, "acme")
    id_, after = encode_id("BillingAccount", account.id), encode_change(account.id, account.sequence)
    async with serve(world) as port, connect(port, world.operator, id=id_, after=after) as stuck:
        await until(lambda: readers(world) == 1)
        for _ in range(20):
            await tell(world, account.id, 100)
        await until(lambda: not world.app.state.sockets.handlers)
        assert await stuck.closing_code() == 1013


async def test_a_slow_reader_gets_everything_once_and_in_order(world: World) -> None:
    account = await account_of(world, "acme")
    id_, after = encode_id("BillingAccount", account.id), encode_change(account.id, account.sequence)
    async with serve(world) as port, connect(port, world.operator, id=id_, after=after) as slow:
        await until(lambda: readers(world) == 1)
        for _ in range(10):
            await tell(world, account.id, 100)
        await until(lambda: readers(world) == 0)  # it is behind, and reads from the database
        seen = [(await slow.change())["cursor"] for _ in range(1_000)]
        assert seen == [encode_change(account.id, account.sequence + number) for number in range(1, 1_001)]
        await until(lambda: readers(world) == 1)
        await tell(world, account.id, 1)
        assert (await slow.change())["cursor"] == encode_change(account.id, account.sequence + 1_001)


async def test_a_server_that_goes_closes_all_sockets_1001(world: World) -> None:
    id_ = encode_id("BillingAccount", (await account_of(world, "acme")).id)
    async with (
        serve(world) as port,
        connect(port, world.operator, id=id_) as one,
        connect(port, world.operator, id=id_) as two,
    ):
        for client in (one, two):
            assert (await client.change())["kind"] == "SNAPSHOT"
        await world.app.state.sockets.close_all()
        assert [await client.closing_code() for client in (one, two)] == [1001, 1001]


async def test_a_server_that_is_stopped_at_once_closes_1001_too(world: World) -> None:
    id_ = encode_id("BillingAccount", (await account_of(world, "acme")).id)
    async with serve(world) as port:
        client = connect(port, world.operator, id=id_)
        found = await client.__aenter__()
        assert (await found.change())["kind"] == "SNAPSHOT"
    assert await found.closing_code() == 1001
    await client.__aexit__(None, None, None)
