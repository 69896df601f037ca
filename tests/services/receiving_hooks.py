"""A receiver of webhooks on this machine, which answers as it is told: over real sockets, byte by byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from plafond.adapters.webhooks import HttpCourier
from plafond.database import Database, Work
from plafond.models import WebhookEndpoint
from plafond.services.deliveries import plan_waiting
from plafond.services.endpoints import EndpointFields, Rules, create_endpoint
from plafond.services.ports import Courier, Hooks, PayloadQueries
from plafond.services.publishing import number_waiting
from plafond.services.sending import send_round
from plafond.services.signing import make_secret

from ..conftest import World
from .helpers import ACTOR, OPERATOR, account_of


@dataclass(frozen=True)
class Message:
    """What came: the headers, and the body byte for byte."""

    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def id(self) -> str:
        """What tells it from others, over all tries."""
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        """The body, read."""
        found: dict[str, Any] = json.loads(self.body)
        return found


Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


def status(code: int, body: str = "", **headers: str) -> Answering:
    """Answers with a status."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body.encode())}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", body]).encode())
        await writer.drain()

    return answer


async def hang(_: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Answers a byte at a time, and never comes to its end."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-Slow: ":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def pour(writer: asyncio.StreamWriter) -> None:
    """Answers without end, as fast as it is taken."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b"y" * 0x4000 + b"\r\n")
        await writer.drain()


async def break_off(writer: asyncio.StreamWriter) -> None:
    """Closes the connection instead of answering."""
    writer.transport.abort()


@dataclass
class Receiver:
    """What came, and how the next is answered."""

    port: int = 0
    answering: Answering = field(default_factory=lambda: status(200, "thanks"))
    messages: list[Message] = field(default_factory=list[Message])
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hooks"

    @property
    def ids(self) -> list[str]:
        """The ids of what came, in order, repetitions too."""
        return [message.id for message in self.messages]

    def hang_up(self) -> None:
        """Close all connections, whatever they wait for."""
        for task in self.tasks:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.messages.append(Message(headers, body, first.split(" ")[1]))
                await self.answering(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def run_receiver() -> AsyncGenerator[Receiver]:
    """A receiver on a free port, until the block ends."""
    receiver = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.tasks.add(asyncio.ensure_future(receiver.serve(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.hang_up()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)
        server.close()
        await server.wait_closed()


@dataclass
class Post:
    """Everything that brings webhooks out, by hand: numbering, planning, and rounds of sending."""

    database: Database
    hooks: Hooks

    @property
    def rules(self) -> Rules:
        """What endpoints are checked by."""
        return Rules(self.hooks.queries, allow_inside=True)

    async def make(self, account_id: Any, url: str, **fields: Any) -> WebhookEndpoint:
        """An endpoint; its secret is in the row."""

        async def act(work: Work) -> WebhookEndpoint:
            given = cast("EndpointFields", {"url": url, **fields})
            return await create_endpoint(work, OPERATOR, account_id, given, make_secret(), self.rules)

        return await self.database.run(ACTOR, act)

    async def plan(self) -> None:
        """Give events their places, and plan what goes where."""
        while await number_waiting(self.database, ACTOR) + await plan_waiting(self.database, ACTOR):
            pass

    async def send(self) -> int:
        """Send all that is due now."""
        sent = 0
        while done := await send_round(self.database, ACTOR, self.hooks):
            sent += done
        return sent

    async def run(self) -> int:
        """Both."""
        await self.plan()
        return await self.send()


@asynccontextmanager
async def open_post(world: World, courier: Courier | None = None, **given: Any) -> AsyncGenerator[Post]:
    """A post office over a world's database."""
    queries: PayloadQueries = world.app.state.hooks.queries
    made = HttpCourier(allow_inside=True, **given)
    try:
        post = Post(world.database, Hooks(courier or made, queries, allow_inside=True))
        await post.plan()  # what the seeds left has its place, before any endpoint hears of anything
        yield post
    finally:
        await made.close()


async def happen(world: World, *values: str, name: str = "acme") -> None:
    """Let things happen to an account: each sets what it is called, which is an event."""
    for value in values:
        account = await account_of(world, name)
        async with world.database.work(ACTOR) as work:
            locked = (await work.lock_accounts([account.id]))[account.id]
            work.emit(locked, "account.updated", {"accountId": str(locked.id), "changed": [value]})
