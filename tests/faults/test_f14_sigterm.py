"""F14: SIGTERM under load. Readiness goes first, what is under way ends, sockets close 1001, and nothing acknowledged
is lost.

The clients do as a balancer does: where `/readyz` says no they begin nothing more.
"""

import asyncio
import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from plafond.models import BillingAccount, Counter, DueWork, Role
from plafond.services.due_work import APART

from ..conftest import Template
from .conftest import Due, check_books
from .runner import Processes, expire_leases, open_database, until, wait_until_quiet

SENDERS = 4
FOLLOW = """subscription ($id: ID!, $after: String) {
  accountChanged(accountId: $id, after: $after, kinds: [USAGE]) { cursor node { ... on MetricUsage { used } } } }"""
RECORD = "mutation ($events: [UsageEventInput!]!) { recordUsage(input: { events: $events }) { accepted } }"
ACCOUNT = '{ billingAccount(externalId: "acme") { id changeCursor usage { metric { key } used } } }'


def sends(event_id: str) -> dict[str, object]:
    return {"eventId": event_id, "metric": "email_sends", "externalId": "acme", "quantity": 1}


@dataclass
class Load:
    """Clients of one server, and what it acknowledged to them."""

    port: int
    token: str
    may_begin: bool = True
    accepted: int = 0
    late: int = 0
    """What was begun before the signal was seen and answered after."""
    cursors: list[str] = field(default_factory=list[str])
    closed: list[int] = field(default_factory=list[int])

    async def ask(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """An answer: whole, whatever happens meanwhile."""
        async with httpx2.AsyncClient(timeout=30) as http:
            response = await http.post(
                f"http://127.0.0.1:{self.port}/graphql",
                json={"query": query, "variables": variables},
                headers={"Authorization": f"Bearer {self.token}", "Connection": "close"},
            )
        answer: dict[str, Any] = response.json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    async def send(self, sender: int) -> None:
        """Events in batches by GraphQL."""
        number = 0
        while self.may_begin:
            events = [sends(f"sender-{sender}-{number}-{place}") for place in range(50)]
            answer = await self.ask(RECORD, {"events": events})
            self.accepted += answer["recordUsage"]["accepted"]
            self.late += not self.may_begin
            number += 1

    async def stream(self) -> dict[str, Any]:
        """Events over one `/usage`, until the server has enough of it. Gives what sums up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = (
            "POST /usage HTTP/1.1\r\nHost: plafond.test\r\nContent-Type: application/x-ndjson\r\n"
            f"Authorization: Bearer {self.token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        writer.write(head.encode())

        async def fill() -> None:
            number = 0
            while True:
                line = json.dumps(sends(f"stream-{number}")).encode() + b"\n"
                writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                await writer.drain()
                number += 1
                await asyncio.sleep(0.005)

        filling = asyncio.create_task(fill())
        try:
            async with asyncio.timeout(60):
                while line := await reader.readline():
                    if line.startswith(b"{"):
                        found: dict[str, Any] = json.loads(line)
                        if "accepted" in found:
                            return found
                        self.accepted += found["status"] == "ACCEPTED"
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            writer.close()
        raise AssertionError("the answer ended without its last line")

    async def follow(self, account_id: str, after: str) -> None:
        """The account's changes, until the socket is closed."""
        try:
            async for change in follow(self.port, self.token, account_id, after):
                self.cursors.append(change["cursor"])
        except ConnectionClosed as closed:
            self.closed.append(0 if closed.rcvd is None else closed.rcvd.code)

    async def look(self) -> None:
        """Ask for readiness as a balancer does."""
        while self.may_begin:
            async with httpx2.AsyncClient(timeout=30) as http:
                response = await http.get(f"http://127.0.0.1:{self.port}/readyz", headers={"Connection": "close"})
            self.may_begin = response.status_code == 200
            await asyncio.sleep(0.02)


async def follow(port: int, token: str, account_id: str, after: str) -> Any:
    """What a subscription tells."""
    async with connect(
        f"ws://127.0.0.1:{port}/graphql",
        subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
    ) as socket:
        begin = {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}
        await socket.send(json.dumps(begin))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        payload = {"query": FOLLOW, "variables": {"id": account_id, "after": after}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        while True:
            message = json.loads(await socket.recv())
            assert message["type"] == "next", message
            yield message["payload"]["data"]["accountChanged"]


async def figure(address: str) -> int:
    """How many sends of Acme are counted."""
    database = open_database(address)
    try:
        async with database.read() as session:
            used = await session.scalar(
                select(func.sum(Counter.used))
                .join(BillingAccount, BillingAccount.id == Counter.account_id)
                .where(BillingAccount.external_id == "acme", Counter.metric_key == "email_sends")
            )
            return int(used or 0)
    finally:
        await database.close()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["one process", "two processes"])
async def test_a_server_is_told_to_stop_under_load(
    address: str, template: Template, tmp_path: Path, workers: int
) -> None:
    operator = next(item.token for item in template.tokens if item.role is Role.OPERATOR)
    before = await figure(address)
    with Processes(address, tmp_path) as processes:
        server, port = await processes.start_server(with_worker=False, settings={"drain_seconds": "1"}, workers=workers)
        load = Load(port, operator)
        account = (await load.ask(ACCOUNT))["billingAccount"]
        streaming = asyncio.create_task(load.stream())
        following = [asyncio.create_task(load.follow(account["id"], account["changeCursor"])) for _ in range(2)]
        begun = [asyncio.create_task(load.send(sender)) for sender in range(SENDERS)]
        begun.append(asyncio.create_task(load.look()))

        async def is_under_load() -> bool:
            return load.accepted > 500 and len(load.cursors) > 2

        await until(is_under_load)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGTERM)
        await asyncio.gather(*begun)
        end = await streaming
        await asyncio.gather(*following)
        await until(lambda: _is_over(server))
        assert server.exitcode == 0, processes.log_of(server)
        assert "Traceback" not in processes.log_of(server), processes.log_of(server)
        assert load.closed == [1001, 1001]
        assert end["error"]["code"] == "UNAVAILABLE"
        assert await figure(address) == before + load.accepted, "what was acknowledged, and nothing else"
        # Another one goes on where the first one stopped telling.
        _, load.port = await processes.start_server(with_worker=False)
        await load.ask(RECORD, {"events": [sends("afterwards")]})
        page = (await load.ask(ACCOUNT))["billingAccount"]
        [now] = [usage["used"] for usage in page["usage"] if usage["metric"]["key"] == "email_sends"]
        async with asyncio.timeout(30):
            async for change in follow(load.port, operator, account["id"], load.cursors[-1]):
                if change["node"]["used"] == now:
                    break


async def _is_over(process: Any) -> bool:
    return not process.is_alive()


async def test_a_worker_is_told_to_stop_in_the_middle(long_due: Due, tmp_path: Path) -> None:
    """It ends with a whole piece of work: nothing is held any more, and nothing was begun after."""
    database = open_database(long_due.address)
    try:
        with Processes(long_due.address, tmp_path) as processes:
            worker = processes.start_worker()

            async def has_begun() -> bool:
                async with database.read() as session:
                    done = await session.scalar(
                        select(func.count()).select_from(DueWork).where(DueWork.done_at.is_not(None))
                    )
                return (done or 0) > first

            async with database.read() as session:
                first = (
                    await session.scalar(select(func.count()).select_from(DueWork).where(DueWork.done_at.is_not(None)))
                    or 0
                )
            await until(has_begun)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGTERM)
            await until(lambda: _is_over(worker))
            assert worker.exitcode == 0, processes.log_of(worker)
            assert "Traceback" not in processes.log_of(worker), processes.log_of(worker)
            async with database.read() as session:
                held = await session.scalar(
                    select(func.count())
                    .select_from(DueWork)
                    .where(
                        DueWork.done_at.is_(None),
                        DueWork.leased_until > database.clock.now(),
                        DueWork.kind.not_in(APART),
                    )
                )
            assert held == 0
            processes.start_worker()
            await expire_leases(database)
            await wait_until_quiet(database)
        await check_books(database, long_due)
    finally:
        await database.close()
