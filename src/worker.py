"""The due work: what the clock brings about, and the outbox's publisher."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import anyio

from .adapters.sandbox_processor import SandboxProcessor
from .database import Actor, Database, Work
from .sandbox.messages import deliver_messages
from .services import alerts, reservations
from .services.drawing import draw_due
from .services.duties import do_due
from .services.ports import Draughtsman, Processor
from .services.publishing import has_unnumbered, number_outbox
from .services.tills import Till
from .services.writing import write_due

PAUSE_S = 1.0
WORKER = Actor(name="system:worker", origin="worker")

log = logging.getLogger("plafond.worker")


async def run_worker(database: Database, processor: Processor) -> None:
    """Do what is due, for ever. A database that is away is asked again."""
    till = Till(database, processor, WORKER)
    await _repeat(lambda: do_due_work(till))


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
    """One round. Gives how much was done: 0 means that nothing was due."""
    database = till.database
    done = await do_due(till)
    if isinstance(till.processor, SandboxProcessor):
        done += await deliver_messages(till)
    ended = await alerts.find_ended(database)
    if ended:
        await database.run(WORKER, _resolve_ended, ended)
    done += len(ended)
    ran_out = await reservations.find_expired(database)
    if ran_out:
        done += await database.run(WORKER, _expire_reservations, ran_out)
    if not await has_unnumbered(database):
        return done
    return done + await database.run(WORKER, number_outbox)


async def _resolve_ended(work: Work, account_ids: Sequence[UUID]) -> None:
    await alerts.resolve_ended(work, (await work.lock_accounts(account_ids)).values())


async def _expire_reservations(work: Work, account_ids: Sequence[UUID]) -> int:
    return await reservations.expire_reservations(work, (await work.lock_accounts(account_ids)).values())
