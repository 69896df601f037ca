"""Workers within the test's process, each with a connection pool and a clock of its own on the same database."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.clock import SetClock
from plafond.database import Actor, Database
from plafond.models import WorkKind
from plafond.services.due_work import Taken, claim
from plafond.services.duties import BILLING, do_due, try_to_perform
from plafond.services.ports import ChargeOrder, ChargeResult
from plafond.services.tills import Till

from ..services.engine import open_till
from .conftest import Due

WORKER = Actor(name="system:worker", origin="test")


@dataclass(frozen=True)
class Node:
    """A worker: where it works, and what its clock says."""

    till: Till
    clock: SetClock

    @property
    def database(self) -> Database:
        """Its own connections."""
        return self.till.database

    async def take(self, limit: int = 1) -> list[Taken]:
        """Claim what is due by its own clock."""
        async with self.till.work() as work:
            return await claim(work, work.clock.now(), limit=limit, kinds=BILLING)

    async def take_next(self, kind: WorkKind) -> Taken:
        """Do what is due up to the first work of a kind, and claim that."""
        while True:
            [taken] = await self.take()
            if taken.kind is kind:
                return taken
            assert await try_to_perform(self.till, taken)

    async def run(self, limit: int = 20) -> None:
        """Do what is due until nothing is."""
        while await do_due(self.till, limit=limit):
            pass


@asynccontextmanager
async def open_nodes(due: Due, *ahead: timedelta) -> AsyncGenerator[list[Node]]:
    """Workers whose clocks stand so far ahead of the instant at which much is due."""
    async with AsyncExitStack() as stack:
        nodes = []
        for shift in ahead:
            clock = SetClock(due.now + shift)
            database = Database(due.address, clock, lambda _: None)
            stack.push_async_callback(database.close)
            nodes.append(Node(replace(open_till(database), actor=WORKER), clock))
        yield nodes


class SlowProcessor(SandboxProcessor):
    """Charges, and does not answer before it is told to."""

    def __init__(self, database: Database, asked: asyncio.Event, answers: asyncio.Event) -> None:
        super().__init__(database)
        self._asked = asked
        self._answers = answers

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """As the sandbox does, later."""
        result = await super().charge(order)
        self._asked.set()
        await self._answers.wait()
        return result


def with_slow_processor(node: Node, asked: asyncio.Event, answers: asyncio.Event) -> Till:
    """A node's till, at a processor whose answer takes long."""
    return replace(node.till, processor=SlowProcessor(node.database, asked, answers))
