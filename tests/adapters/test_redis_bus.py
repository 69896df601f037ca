"""Redis wakes the streams of all processes. Killed, flushed or away, it loses nothing: readers look by themselves."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from plafond.adapters import bus as bus_module
from plafond.adapters import redis_bus
from plafond.adapters.redis_bus import RedisBus
from plafond.app import create_app
from plafond.models import Role
from plafond.models.types import new_id
from plafond.schema.node import encode_id
from plafond.services import admission
from plafond.services.cursors import encode_change

from ..conftest import World
from ..http.test_sockets import ACTOR, CHANGES, Socket, account_of, connect, readers, revoke, until
from ..own_redis import OwnRedis


async def test_what_one_publishes_wakes_the_other_and_itself(redis_server: OwnRedis) -> None:
    one, two = RedisBus(redis_server.url), RedisBus(redis_server.url)
    async with one.running(), two.running():
        await until(lambda: one.is_connected and two.is_connected)
        assert one.look_again_s == 15.0
        with one.listen("a") as here, two.listen("a") as there, two.listen("b") as elsewhere:
            one.publish("a")
            assert await here.wait(0)
            assert await there.wait(1)
            assert not await elsewhere.wait(0.05)


async def test_without_a_server_one_s_own_readers_wake_at_once(redis_server: OwnRedis) -> None:
    redis_server.kill()
    bus = RedisBus(redis_server.url)
    async with bus.running():
        with bus.listen("a") as here:
            for _ in range(3):
                bus.publish("a")
                assert await here.wait(0)
        assert bus.look_again_s == bus_module.LOOK_AGAIN_S


async def test_a_server_that_comes_back_makes_everybody_look_and_gets_what_waited(redis_server: OwnRedis) -> None:
    one, two = RedisBus(redis_server.url), RedisBus(redis_server.url)
    async with one.running(), two.running():
        await until(lambda: one.is_connected and two.is_connected)
        with two.listen("a") as there:
            redis_server.kill()
            await until(lambda: not (one.is_connected or two.is_connected))
            assert await there.wait(0), "it looks, since it may have missed something"
            one.publish("a")
            redis_server.start()
            await until(lambda: one.is_connected and two.is_connected)
            assert await there.wait(1)
            one.publish("a")
            assert await there.wait(1)


async def test_more_than_it_keeps_becomes_one_word_to_everybody(
    redis_server: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_bus, "MAX_UNSENT", 100)
    redis_server.kill()
    one, two = RedisBus(redis_server.url), RedisBus(redis_server.url)
    for number in range(1_000):
        one.publish(str(number))
    assert len(one._unsent) <= 101
    redis_server.start()
    async with two.running():
        await until(lambda: two.is_connected)
        with two.listen("0") as there:
            async with one.running():
                assert await there.wait(5)


@asynccontextmanager
async def two_processes(world: World, redis_server: OwnRedis) -> AsyncGenerator[tuple[World, World]]:
    """Two applications on one database, which know of each other through Redis only."""
    async with AsyncExitStack() as stack:
        worlds = []
        for _ in range(2):
            settings = world.settings.model_copy(update={"redis_url": SecretStr(redis_server.url)})
            app = create_app(settings, with_worker=False, clock=world.clock)
            await stack.enter_async_context(app.router.lifespan_context(app))
            worlds.append(replace(world, app=app, database=app.state.database))
        await until(lambda: all(found.app.state.bus.is_connected for found in worlds))
        yield worlds[0], worlds[1]


async def tell(world: World, account_id: Any) -> None:
    async with world.database.work(ACTOR) as work:
        row = (await work.lock_accounts([account_id]))[account_id]
        work.emit(row, "payment.succeeded", {"transactionId": str(new_id())})


async def follow(world: World, socket: Socket, token: str) -> None:
    account = await account_of(world, "acme")
    await socket.init(token)
    after = encode_change(account.id, account.sequence)
    await socket.subscribe("s", CHANGES, id=encode_id("BillingAccount", account.id), after=after, kinds=["TRANSACTION"])
    await until(lambda: readers(world) == 1)


@pytest.mark.usefixtures("address")  # the second process writes to it unseen
async def test_what_another_process_commits_comes_within_a_second(world: World, redis_server: OwnRedis) -> None:
    account = await account_of(world, "acme")
    async with two_processes(world, redis_server) as (here, there), connect(here) as socket:
        await follow(here, socket, here.operator)
        for number in range(1, 6):
            await tell(there, account.id)
            with anyio.fail_after(1):
                change = await socket.next()
            assert change["cursor"] == encode_change(account.id, account.sequence + number)


@pytest.mark.usefixtures("address")
async def test_a_key_that_another_process_revokes_ends_its_streams_within_a_second(
    world: World, redis_server: OwnRedis
) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    async with two_processes(world, redis_server) as (here, there), connect(here) as socket:
        await follow(here, socket, token)
        await revoke(there, token)
        with anyio.fail_after(1):
            assert await socket.end() == ["UNAUTHENTICATED"]
        assert readers(here) == 0


@pytest.mark.usefixtures("address")
async def test_redis_killed_flushed_and_restarted_loses_nothing(
    world: World, redis_server: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "LOOK_AGAIN_S", 0.3)
    monkeypatch.setattr(admission, "LOOK_AGAIN_S", 0.3)
    account = await account_of(world, "acme")
    seen: list[str] = []
    async with two_processes(world, redis_server) as (here, there), connect(here) as socket:
        await follow(here, socket, here.operator)
        for number in range(24):
            if number == 6:
                redis_server.kill()
            if number == 12:
                redis_server.start()
            if number == 18:
                await asyncio.to_thread(
                    subprocess.run,
                    ["redis-cli", "-p", str(redis_server.port), "flushall"],
                    check=True,
                    capture_output=True,
                )
            await tell(there, account.id)
            if number % 3 == 2:
                seen += [(await socket.next())["cursor"] for _ in range(number + 1 - len(seen))]
        await socket.check_alive()
    assert seen == [encode_change(account.id, account.sequence + number) for number in range(1, 25)]
