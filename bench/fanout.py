"""Measures the fan-out: how soon one alert is on every socket of one process, beside a stock server of Strawberry."""

import asyncio
import base64
import json
import multiprocessing
import os
import resource
import secrets
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from plafond.app import create_app
from plafond.clock import SetClock
from plafond.database import Actor, Database
from plafond.migrations import migrate_database
from plafond.models import Role
from plafond.sandbox.seeds import SEEDER, seed_sandbox
from plafond.schema.node import encode_id
from plafond.services.accounts import find_by_external_id
from plafond.services.metering import record_usage
from plafond.services.usage import EventStatus, UsageInput
from plafond.serving import make_config
from plafond.settings import Environment, Settings

from . import stock_fanout
from .results import Row, Tell

SIZES = tuple(int(size) for size in os.environ.get("BENCH_SOCKETS", "1,1000,5000").split(","))
ROUNDS = 6
"""An even number: every second one takes back the alert of the one before."""
ACTOR = Actor(name="system:bench", origin="bench")
ALERTS = """subscription ($id: ID!) { accountChanged(accountId: $id, kinds: [ALERT]) {
  cursor kind at node { id ... on Alert { level threshold used limit percent message raisedAt } } } }"""
BOUND_S = 300.0


@dataclass(frozen=True)
class Target:
    """A server under test: where it is, and how one alert is brought about."""

    port: int
    payload: dict[str, Any]
    init: dict[str, str]


class Client(asyncio.Protocol):
    """The other end of one socket: it counts what comes, and reads of it only the length of each frame."""

    def __init__(self, target: Target, number: int, note: Callable[[], None]) -> None:
        self._target, self._number, self._note = target, number, note
        self._buffer = bytearray()
        self._upgraded = False
        self.last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport), "TCP is one"
        self.transport = transport
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        head = [
            "GET /graphql HTTP/1.1",
            f"Host: 127.0.0.1:{self._target.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: graphql-transport-ws",
        ]
        transport.write(("\r\n".join(head) + "\r\n\r\n").encode())

    def _send(self, message: object) -> None:
        data = json.dumps(message).encode()
        mask = secrets.token_bytes(4)
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
        self.transport.write(b"\x81" + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    def data_received(self, data: bytes) -> None:
        """Take whole frames out of what came."""
        self._buffer += data
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            assert b" 101 " in self._buffer[:end], bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            self._upgraded = True
            self._send({"type": "connection_init", "payload": self._target.init})
            self._send({"type": "subscribe", "id": f"s{self._number}", "payload": self._target.payload})
        while len(self._buffer) >= 2:
            size, start = self._buffer[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(self._buffer[2:4], "big"), 4
            if len(self._buffer) < start + size:
                return
            if self._buffer[0] & 0x0F == 1:
                self.last = bytes(self._buffer[start : start + size])
                self._note()
            elif self._buffer[0] & 0x0F == 9:  # a ping: a pong without a mask of its own
                pong = bytes(self._buffer[start : start + size])
                self.transport.write(bytes([0x8A, 0x80 | size]) + b"\0\0\0\0" + pong)
            del self._buffer[: start + size]


def raise_limit() -> None:
    """As many open files as this machine lets one process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen_for(target: Target, sockets: int, orders: Connection) -> None:
    """The client process: all sockets; for each round when half and all of them had the alert."""
    raise_limit()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        got, wanted = 0, 0
        arrivals: list[float] = []
        complete = asyncio.Event()

        def note() -> None:
            nonlocal got
            got += 1
            arrivals.append(time.monotonic())
            if got == wanted:
                complete.set()

        async def wait(messages: int) -> None:
            nonlocal wanted
            wanted = messages
            if got < wanted:
                complete.clear()
                await asyncio.wait_for(complete.wait(), BOUND_S)

        clients: list[Client] = []
        for first in range(0, sockets, 100):
            some = [Client(target, number, note) for number in range(first, min(first + 100, sockets))]
            for client in some:
                await loop.create_connection(lambda client=client: client, "127.0.0.1", target.port)  # type: ignore[misc]
            clients += some
            await wait(len(clients) * 2)  # the acknowledgement, and the SNAPSHOT
        orders.send("ready")
        while await asyncio.to_thread(orders.recv):
            before = got
            arrivals.clear()
            orders.send("listening")
            await wait(before + sockets)
            contents = {json.dumps(json.loads(client.last)["payload"]["data"]) for client in clients}
            assert len(contents) == 1, "all were told the same"
            orders.send((arrivals[(sockets - 1) // 2], arrivals[-1]))

    asyncio.run(run())


def serve_plafond(address: str, orders: Connection) -> None:
    """The server process: the product itself, which brings about one alert after the other on order."""
    raise_limit()

    async def run() -> None:
        app = create_app(Settings(environment=Environment.SANDBOX, database_url=address), with_worker=False)
        database: Database = app.state.database
        async with database.read() as session:
            account = await find_by_external_id(session, SEEDER, "acme")
        assert account is not None, "the sandbox has it"

        async def change(number: int) -> None:
            # 8 of 10 workspaces raise one alert, and none resolve it.
            event = UsageInput(
                event_id=secrets.token_hex(8),
                metric="workspaces",
                external_id="acme",
                level=0 if number % 2 else 8,
                occurred_at=datetime.now(UTC),
            )
            async with database.work(ACTOR) as work:
                results = await record_usage(work, SEEDER, [event])
            assert results[0].status is EventStatus.ACCEPTED, results

        await serve(make_config(app), orders, encode_id("BillingAccount", account.id), change)

    uvloop.run(run())


def serve_stock(orders: Connection) -> None:
    """The server process: Strawberry as it ships."""
    raise_limit()

    async def run() -> None:
        config = uvicorn.Config(stock_fanout.app, log_level="warning", ws_per_message_deflate=False)
        await serve(config, orders, "acme", stock_fanout.publish)

    uvloop.run(run())


async def serve(
    config: uvicorn.Config, orders: Connection, account: str, change: Callable[[int], Awaitable[None]]
) -> None:
    """Serve, and tell when each change was committed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    orders.send((listener.getsockname()[1], account))
    for number in range(1_000_000):
        if not await asyncio.to_thread(orders.recv):
            break
        await change(number)
        orders.send(time.monotonic())
    server.should_exit = True
    await serving


@dataclass(frozen=True)
class Figures:
    """What was measured of one server with so many sockets."""

    half_ms: float
    all_ms: float
    kib: float


def measure(start: Callable[[Connection], SpawnProcess], token: str, sockets: int) -> Figures:
    """Connect, and raise one alert after the other: the median of the rounds."""
    orders, theirs = multiprocessing.Pipe()
    server = start(theirs)
    port, account = orders.recv()
    target = Target(
        port=port,
        payload={"query": ALERTS, "variables": {"id": account}},
        init={"Authorization": f"Bearer {token}"},
    )
    assert server.pid is not None, "it runs"
    before = measure_memory(server.pid)
    client_orders, theirs = multiprocessing.Pipe()
    client = context.Process(daemon=True, target=listen_for, args=(target, sockets, theirs))
    client.start()
    assert client_orders.recv() == "ready", "all are connected"
    kib = (measure_memory(server.pid) - before) / sockets
    halves, alls = [], []
    for _ in range(ROUNDS):
        client_orders.send(True)
        assert client_orders.recv() == "listening", "it counts"
        orders.send(True)
        committed = orders.recv()
        half, last = client_orders.recv()
        halves.append((half - committed) * 1_000)
        alls.append((last - committed) * 1_000)
    client_orders.send(False)
    client.join()
    orders.send(False)
    server.join()
    return Figures(statistics.median(halves), statistics.median(alls), kib)


async def run(tell: Tell) -> None:
    """When half and all sockets had an alert since its commit, and the ratio to a stock server in the same run."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{Path(folder) / 'bench.db'}"
        await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
        now = datetime.now(UTC).replace(microsecond=0)
        database = Database(address, SetClock(now), lambda _: None)
        tokens = await seed_sandbox(database, now)
        await database.close()
        token = next(item.token for item in tokens if item.tenant.startswith("Acme") and item.role is Role.TENANT_OWNER)

        def start_plafond(orders: Connection) -> SpawnProcess:
            process = context.Process(daemon=True, target=serve_plafond, args=(address, orders))
            process.start()
            return process

        def start_stock(orders: Connection) -> SpawnProcess:
            process = context.Process(daemon=True, target=serve_stock, args=(orders,))
            process.start()
            return process

        for sockets in SIZES:
            stock = await asyncio.to_thread(measure, start_stock, token, sockets)
            found = await asyncio.to_thread(measure, start_plafond, token, sockets)
            for name, figures in (("stock Strawberry", stock), ("Plafond", found)):
                took = f"half have it after {figures.half_ms:.0f} ms, all after {figures.all_ms:.0f} ms"
                ratio = "" if figures is stock else f": {stock.all_ms / figures.all_ms:.1f} × as fast as stock"
                memory = "" if sockets == 1 else f"; {figures.kib:.0f} KiB a socket"
                tell(Row(f"{sockets:,} sockets, {name}", took + ratio + memory))


context = multiprocessing.get_context("spawn")


def measure_memory(pid: int) -> int:
    """The resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("Linux tells it")
