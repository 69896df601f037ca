"""Where money is taken: a database, a processor, and in whose name."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from ..database import Actor, Database, Work
from .ports import Processor

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Till:
    """What a flow needs that asks the processor between two transactions: never within one."""

    database: Database
    processor: Processor
    actor: Actor

    def work(self) -> AbstractAsyncContextManager[Work]:
        """One transaction in the actor's name."""
        return self.database.work(self.actor)

    async def run(self, act: Callable[Concatenate[Work, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for an act that may be done anew where the database gave its transaction up."""
        return await self.database.run(self.actor, act, *args, **kwargs)
