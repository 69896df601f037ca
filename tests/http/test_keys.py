"""API keys on a real server: streams end with them, and the peer's address is the socket's (hard case 33)."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from plafond.app import create_app
from plafond.clock import SystemClock
from plafond.database import Database
from plafond.models import Role
from plafond.schema.node import encode_id
from plafond.serving import bind_port, make_config
from plafond.settings import Settings

from ..conftest import World
from ..services.helpers import account_of
from .test_jwt import add_member, claims, secret_of, sign

CREATE = """mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) {
  apiKey { id } token userErrors { message } } }"""
REVOKE = "mutation($id: ID!) { revokeApiKey(input: { keyId: $id }) { apiKey { status } userErrors { message } } }"
ROTATE = """mutation($id: ID!, $overlap: Int) { rotateApiKey(input: { keyId: $id, overlapSeconds: $overlap }) {
  token userErrors { message } } }"""
CHANGES = "subscription($id: ID!) { accountChanged(accountId: $id) { kind } }"


class Site:
    """A server on this machine, with the wall clock, and who manages the keys there."""

    def __init__(self, port: int, owner: str, account_id: str) -> None:
        self.port, self.owner, self.account_id = port, owner, account_id

    async def ask(self, token: str, query: str, headers: dict[str, str] | None = None, **variables: object) -> Any:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as http:
            response = await http.post(
                "/graphql",
                json={"query": query, "variables": variables},
                headers={"Authorization": f"Bearer {token}", **(headers or {})},
            )
        return response.json()

    async def make(self, **given: object) -> tuple[str, str]:
        asked = {"accountIds": [self.account_id], "name": "Live", "scopes": ["billing:read"]} | given
        made = (await self.ask(self.owner, CREATE, input=asked))["data"]["createApiKey"]
        assert made["userErrors"] == []
        return made["apiKey"]["id"], made["token"]

    @asynccontextmanager
    async def follow(self, token: str) -> AsyncGenerator[ClientConnection]:
        """A stream that is under way."""
        address = f"ws://127.0.0.1:{self.port}/graphql"
        async with connect(address, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as socket:
            await send(socket, {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
            assert (await receive(socket))["type"] == "connection_ack"
            payload = {"query": CHANGES, "variables": {"id": self.account_id}}
            await send(socket, {"type": "subscribe", "id": "s", "payload": payload})
            assert (await receive(socket))["payload"]["data"]["accountChanged"] == {"kind": "SNAPSHOT"}
            yield socket


async def send(socket: ClientConnection, message: object) -> None:
    await socket.send(json.dumps(message))


async def receive(socket: ClientConnection) -> Any:
    with anyio.fail_after(20):
        return json.loads(await socket.recv())


async def end_of(socket: ClientConnection) -> tuple[str, str]:
    """The code and the words with which the stream ends."""
    message = await receive(socket)
    assert (message["type"], message["id"]) == ("error", "s"), message
    (error,) = message["payload"]
    return error["extensions"]["code"], error["message"]


@asynccontextmanager
async def serve(world: World, **given: Any) -> AsyncGenerator[Site]:
    settings = Settings(**world.settings.model_dump() | given)
    app = create_app(settings, with_worker=False, clock=SystemClock())
    listener = bind_port("127.0.0.1", 0)
    server = uvicorn.Server(make_config(app))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    with anyio.fail_after(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(0.01)
    await add_member(world, "acme", Role.TENANT_OWNER)
    owner = sign(claims(), secret_of(world))
    try:
        yield Site(listener.getsockname()[1], owner, encode_id("BillingAccount", (await account_of(world)).id))
    finally:
        server.should_exit = True
        await serving


async def test_a_stream_ends_within_a_second_of_its_key_s_revocation(world: World) -> None:
    async with serve(world) as site:
        id_, token = await site.make()
        _, other = await site.make()
        async with site.follow(token) as socket, site.follow(other) as beside:
            began = time.monotonic()
            revoked = await site.ask(site.owner, REVOKE, id=id_)
            assert revoked["data"]["revokeApiKey"]["apiKey"] == {"status": "REVOKED"}
            assert await end_of(socket) == ("UNAUTHENTICATED", "This API key was revoked: make a new one.")
            assert time.monotonic() - began < 1
            await send(beside, {"type": "ping"})
            assert await receive(beside) == {"type": "pong"}
        assert (await site.ask(token, "{ viewer { kind } }"))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_stream_of_the_old_secret_ends_with_the_overlap(world: World) -> None:
    async with serve(world) as site:
        id_, token = await site.make()
        async with site.follow(token) as socket:
            turned = (await site.ask(site.owner, ROTATE, id=id_, overlap=2))["data"]["rotateApiKey"]
            turned_at = time.monotonic()
            async with site.follow(token) as late, site.follow(turned["token"]) as fresh:
                for each in (socket, late):
                    code, said = await end_of(each)
                    assert code == "UNAUTHENTICATED"
                    assert "exchanged for a new one" in said
                assert 1.5 < time.monotonic() - turned_at < 3.5
                await send(fresh, {"type": "ping"})
                assert await receive(fresh) == {"type": "pong"}


async def test_a_stream_of_a_secret_that_is_replaced_without_overlap_ends_at_once(world: World) -> None:
    async with serve(world) as site:
        id_, token = await site.make()
        async with site.follow(token) as socket:
            began = time.monotonic()
            await site.ask(site.owner, ROTATE, id=id_, overlap=0)
            assert (await end_of(socket))[0] == "UNAUTHENTICATED"
            assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("trusted", "forwarded", "is_good"),
    [
        ((), "203.0.113.7", False),
        (("127.0.0.0/8",), "203.0.113.7", True),
        (("127.0.0.0/8",), "203.0.113.7, 198.51.100.1", False),  # what comes first, anybody may have written
        (("127.0.0.0/8", "198.51.100.0/24"), "203.0.113.7, 198.51.100.1", True),
        (("198.51.100.0/24",), "203.0.113.7", False),
        (("127.0.0.0/8",), None, False),
    ],
)
async def test_only_a_named_balancer_says_where_a_request_comes_from(
    world: World, trusted: tuple[str, ...], forwarded: str | None, *, is_good: bool
) -> None:
    async with serve(world, trusted_proxies=trusted) as site:
        _, token = await site.make(networks=["203.0.113.0/24"])
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        answer = await site.ask(token, "{ viewer { kind } }", headers)
        assert ("data" in answer) is is_good
        if not is_good:
            assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
            assert "203.0" not in json.dumps(answer)
        address = f"ws://127.0.0.1:{site.port}/graphql"
        async with connect(
            address,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=headers,
            proxy=None,
        ) as socket:
            await send(socket, {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
            if is_good:
                assert (await receive(socket))["type"] == "connection_ack"
            else:
                await socket.wait_closed()
                assert socket.close_code == 4403


async def test_when_a_key_was_shown_is_written_when_the_server_ends(world: World) -> None:
    async with serve(world) as site:
        id_, token = await site.make()
        await site.ask(token, "{ viewer { kind } }")
        read = "query($id: ID!) { node(id: $id) { ... on ApiKey { lastUsedAt } } }"
        assert (await site.ask(site.owner, read, id=id_))["data"]["node"] == {"lastUsedAt": None}
    database = Database(world.settings.database_url, SystemClock(), lambda _: None)
    try:
        async with database.read() as session:
            connection = await session.connection()
            found = await connection.exec_driver_sql("SELECT count(*) FROM api_key WHERE last_used_at IS NOT NULL")
            assert found.scalar_one() == 1
    finally:
        await database.close()
