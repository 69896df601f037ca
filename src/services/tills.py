"""Where money is taken: a database, a processor, and in whose name."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from ..database import Actor, Database, Work
from .ports import Processor


@dataclass(frozen=True)
class Till:
    """What a flow needs that asks the processor between two transactions: never within one."""

    database: Database
    processor: Processor
    actor: Actor

    def work(self) -> AbstractAsyncContextManager[Work]:
        """One transaction in the actor's name."""
        return self.database.work(self.actor)
