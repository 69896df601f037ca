"""The due work: what the clock brings about, and the outbox's publisher."""

import logging
from collections.abc import Awaitable, Callable

import anyio

from .adapters.sandbox_processor import SandboxProcessor
from .database import Actor, Database
from .sandbox.messages import deliver_messages
from .services import alerts, reservations
from .services.drawing import draw_due
from .services.duties import ASKING, BILLING, do_due
from .services.ports import Draughtsman, Processor
from .services.publishing import number_waiting
from .services.tills import Till
from .services.writing import write_due

PAUSE_S = 1.0
ASKING_AT_ONCE = 3
"""As many pieces of work wait for the processor at once; one that hangs for ten seconds holds up so many accounts."""
WORKER = Actor(name="system:worker", origin="worker")

log = logging.getLogger("plafond.worker")


async def run_worker(database: Database, processor: Processor) -> None:
    """Do what is due, for ever. A database that is away is asked again.

    What asks the processor is done beside the rest, some at a time: one that hangs holds up no period and no event.
    """
    till = Till(database, processor, WORKER)
    async with anyio.create_task_group() as group:
        group.start_soon(_repeat, lambda: _do_the_rest(till))
        for _ in range(ASKING_AT_ONCE):
            group.start_soon(_repeat, lambda: do_due(till, limit=1, kinds=ASKING))
        group.start_soon(_repeat, lambda: _deliver(till))
        group.start_soon(_repeat, lambda: number_waiting(database, WORKER))


async def run_drawing(database: Database, draughtsman: Draughtsman) -> None:
    """Draw documents, for ever, beside all else: one that takes long holds nothing up."""
    await _repeat(lambda: draw_due(database, WORKER, draughtsman))


async def run_exports(database: Database, draughtsman: Draughtsman) -> None:
    """Write exports, for ever, beside all else, and delete them when their days are over."""
    await _repeat(lambda: write_due(database, WORKER, draughtsman))


async def _repeat(do_round: Callable[[], Awaitable[int]]) -> None:
    while True:
        try:
            while await do_round():
                pass
        except Exception:
            # Whatever it was, the next round starts afresh: due work must not end with one bad moment.
            log.exception("a round of due work failed, and is tried again")
        await anyio.sleep(PAUSE_S)


async def do_due_work(till: Till) -> int:
    """One round of all of it. Gives how much was done: 0 means that nothing was due."""
    database = till.database
    done = await do_due(till) + await _deliver(till) + await _resolve_ended(database) + await _expire(database)
    return done + await number_waiting(database, WORKER)


async def _do_the_rest(till: Till) -> int:
    done = await do_due(till, kinds=BILLING - ASKING)
    return done + await _resolve_ended(till.database) + await _expire(till.database)


async def _deliver(till: Till) -> int:
    return await deliver_messages(till) if isinstance(till.processor, SandboxProcessor) else 0


async def _resolve_ended(database: Database) -> int:
    ended = await alerts.find_ended(database)
    if ended:
        async with database.work(WORKER) as work:
            await alerts.resolve_ended(work, (await work.lock_accounts(ended)).values())
    return len(ended)


async def _expire(database: Database) -> int:
    ran_out = await reservations.find_expired(database)
    if not ran_out:
        return 0
    async with database.work(WORKER) as work:
        return await reservations.expire_reservations(work, (await work.lock_accounts(ran_out)).values())
