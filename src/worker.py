"""The due work: what the clock brings about, and the outbox's publisher."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio

from .adapters.sandbox_processor import SandboxProcessor
from .database import Actor, Database
from .sandbox.messages import deliver_messages
from .services import alerts, reservations
from .services.drawing import draw_due
from .services.duties import do_due
from .services.partitions import is_only_waiting, let_go, make_partitions
from .services.ports import Draughtsman, Processor
from .services.publishing import has_unnumbered, number_outbox
from .services.tills import Till

PAUSE_S = 1.0
UPKEEP_S = 3_600.0
SOON_S = 60.0
WORKER = Actor(name="system:worker", origin="worker")

log = logging.getLogger("plafond.worker")


async def run_worker(database: Database, processor: Processor) -> None:
    """Do what is due, for ever. A database that is away is asked again."""
    till = Till(database, processor, WORKER)
    await _repeat(lambda: do_due_work(till))


async def run_drawing(database: Database, draughtsman: Draughtsman) -> None:
    """Draw documents, for ever, beside all else: one that takes long holds nothing up."""
    await _repeat(lambda: draw_due(database, WORKER, draughtsman))


async def run_upkeep(database: Database, keep_usage: timedelta) -> None:
    """Have room for the events to come, and let go of the oldest, for ever."""
    while True:
        pause = UPKEEP_S
        try:
            now = database.clock.now()
            await make_partitions(database, now)
            await let_go(database, now, keep_usage)
        except Exception as error:
            pause = SOON_S
            if is_only_waiting(error):
                log.info("the table of usage events was in use: upkeep is tried again")
            else:
                log.exception("upkeep of usage events failed, and is tried again")
        await anyio.sleep(pause)


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
        async with database.work(WORKER) as work:
            await alerts.resolve_ended(work, (await work.lock_accounts(ended)).values())
    done += len(ended)
    ran_out = await reservations.find_expired(database)
    if ran_out:
        async with database.work(WORKER) as work:
            done += await reservations.expire_reservations(work, (await work.lock_accounts(ran_out)).values())
    if not await has_unnumbered(database):
        return done
    async with database.work(WORKER) as work:
        return done + await number_outbox(work)
