"""The worker's own loop: it ends with a piece of work, not in it."""

import asyncio

import anyio
import pytest

from plafond import worker
from plafond.services.tills import Till
from plafond.stopping import Stopping

from .conftest import World
from .services.engine import open_till


async def test_who_is_told_to_stop_finishes_what_it_does_and_begins_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not world.database.is_sqlite:
        pytest.skip("it touches no database")
    stopping = Stopping()
    begun, may_end = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def slow(till: Till, *, limit: int) -> int:
        assert (till.database, limit) == (world.database, 1), "a piece at a time"
        begun.set()
        await may_end.wait()
        done.append("piece")
        return 1

    monkeypatch.setattr(worker, "do_due", slow)
    running = asyncio.create_task(worker.run_worker(world.database, open_till(world.database).processor, stopping))
    with anyio.fail_after(10):
        await begun.wait()
        stopping.begin()
        await asyncio.sleep(0)
        assert done == []
        may_end.set()
        await running
    assert done == ["piece"]


async def test_who_rests_is_woken() -> None:
    stopping = Stopping()
    resting = asyncio.create_task(stopping.sleep(3_600))
    await asyncio.sleep(0)
    stopping.begin()
    with anyio.fail_after(10):
        await resting
        await stopping.sleep(3_600)
    assert stopping.has_begun
    await Stopping().sleep(0.01)
