"""Serving as real processes: stopping in order, and several of them on one port."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from plafond.models import Role
from plafond.serving import bind_port

from .conftest import Template
from .faults.runner import answers, children_of, state_of, until
from .test_cli import PLAFOND

BOUND_S = 60


class Served:
    """`plafond serve`, and what it is asked."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def children(self) -> list[int]:
        """The processes that it started."""
        return children_of(self.process.pid)

    async def end(self) -> int:
        """Wait for its end. Gives its exit code."""
        with anyio.fail_after(BOUND_S):
            return await asyncio.to_thread(self.process.wait, BOUND_S)

    def read_log(self) -> str:
        """What it complained of."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def serve(address: str, *arguments: str, **settings: str) -> Iterator[Served]:
    """A server with its output kept. Nothing of it outlives the block."""
    with bind_port("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAFOND_")}
    given = {"database_url": address, "port": str(port), "drain_seconds": "0", **settings}
    environment |= {f"PLAFOND_{name.upper()}": value for name, value in given.items()}
    with subprocess.Popen(
        [PLAFOND, "serve", *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        served = Served(process, port)
        children: list[int] = []
        try:
            yield served
            children = served.children()
        finally:
            for pid in (process.pid, *(children or served.children())):
                if state_of(pid):
                    os.kill(pid, signal.SIGKILL)


async def stop(served: Served, number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(served.process.pid, number)


@pytest.fixture
def operator(template: Template) -> str:
    return next(item.token for item in template.tokens if item.role is Role.OPERATOR)


async def status_of(url: str) -> int | None:
    """How a fresh connection is answered; none where nobody listens."""
    try:
        async with httpx2.AsyncClient(timeout=BOUND_S) as http:
            return (await http.get(url, headers={"Connection": "close"})).status_code
    except httpx2.HTTPError:
        return None


async def is_stopping(served: Served) -> bool:
    return await status_of(f"{served.url}/readyz") == 503


async def test_a_server_drains_before_it_ends(address: str, operator: str) -> None:
    """Not ready at once, but answering still; sockets are told to come back; then it is gone, in order."""
    with serve(address, "--no-worker", drain_seconds="1.5") as served:
        await until(lambda: answers(served.port))
        async with connect(
            f"ws://127.0.0.1:{served.port}/graphql",
            subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
        ) as socket:
            begin = {"type": "connection_init", "payload": {"Authorization": f"Bearer {operator}"}}
            await socket.send(json.dumps(begin))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            await stop(served)
            began = time.monotonic()
            await until(lambda: is_stopping(served))
            assert await status_of(f"{served.url}/healthz") == 200, "it takes requests while balancers look elsewhere"
            with anyio.fail_after(BOUND_S), pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            assert time.monotonic() - began >= 1.0
        assert await served.end() == 0
        assert served.read_log() == ""
        assert await status_of(f"{served.url}/healthz") is None


async def test_a_second_signal_ends_at_once(address: str) -> None:
    with serve(address, "--no-worker", drain_seconds="300") as served:
        await until(lambda: answers(served.port))
        await stop(served)
        await until(lambda: is_stopping(served))
        began = time.monotonic()
        await stop(served)
        assert await served.end() == 0
        assert time.monotonic() - began < 10


async def test_several_processes_serve_one_port(address: str) -> None:
    """Whoever dies is replaced, the others go on meanwhile; one signal ends them all."""
    with serve(address, "--workers", "3") as served:
        await until(lambda: answers(served.port))
        children = served.children()
        assert len(children) == 3
        os.kill(children[0], signal.SIGKILL)

        async def is_replaced() -> bool:
            assert await status_of(f"{served.url}/healthz") == 200
            now = served.children()
            return len(now) == 3 and children[0] not in now

        await until(is_replaced)
        await stop(served)
        assert await served.end() == 0
        assert [pid for pid in children if state_of(pid) not in ("", "Z")] == []
        log = served.read_log()
        assert "is started anew" in log
        assert "Traceback" not in log


async def test_nobody_outlives_whoever_started_them(address: str) -> None:
    with serve(address, "--workers", "2", "--no-worker") as served:
        await until(lambda: answers(served.port))
        children = served.children()
        os.kill(served.process.pid, signal.SIGKILL)
        await served.end()

        async def are_gone() -> bool:
            return all(state_of(pid) in ("", "Z") for pid in children)

        await until(are_gone)


async def test_a_link_is_opened_by_every_process(address: str, operator: str) -> None:
    with serve(address, "--workers", "2", "--no-worker") as served:
        await until(lambda: answers(served.port))
        query = '{ billingAccount(externalId: "acme") { invoices(first: 1) { nodes { pdf { url } } } } }'
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {operator}"}, timeout=30) as http:
            answer = (await http.post(f"{served.url}/graphql", json={"query": query})).json()
        [invoice] = answer["data"]["billingAccount"]["invoices"]["nodes"]
        # The first one has it drawn.
        statuses = {await status_of(invoice["pdf"]["url"]) for _ in range(12)}
        assert statuses == {200}, "nobody says that it is none of his"
