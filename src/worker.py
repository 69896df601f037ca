"""The due work: what the clock brings about, and the outbox's publisher."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from .adapters.sandbox_processor import SandboxProcessor
from .database import Actor, Database
from .sandbox.messages import deliver_messages
from .services import alerts, reservations
from .services.drawing import draw_due
from .services.duties import BATCH, do_due
from .services.partitions import is_only_waiting, let_go, make_partitions
from .services.ports import Draughtsman, Processor
from .services.publishing import has_unnumbered, number_outbox
from .services.tills import Till
from .stopping import Stopping

PAUSE_S = 1.0
UPKEEP_S = 3_600.0
SOON_S = 60.0
WORKER = Actor(name="system:worker", origin="worker")

log = logging.getLogger("plafond.worker")


async def run_worker(database: Database, processor: Processor, stopping: Stopping) -> None:
    """Do what is due, until told to stop. A database that is away is asked again."""
    till = Till(database, processor, WORKER)
    await _repeat(lambda: do_due_work(till, stopping), stopping)


async def run_drawing(database: Database, draughtsman: Draughtsman, stopping: Stopping) -> None:
    """Draw documents, until told to stop, beside all else: one that takes long holds nothing up."""
    await _repeat(lambda: draw_due(database, WORKER, draughtsman, limit=1), stopping)


async def run_upkeep(database: Database, keep_usage: timedelta, stopping: Stopping) -> None:
    """Have room for the events to come, and let go of the oldest, until told to stop."""
    while not stopping.has_begun:
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
        await stopping.sleep(pause)


async def _repeat(do_round: Callable[[], Awaitable[int]], stopping: Stopping) -> None:
    while not stopping.has_begun:
        try:
            while await do_round() and not stopping.has_begun:
                pass
        except Exception:
            # Whatever it was, the next round starts afresh: due work must not end with one bad moment.
            log.exception("a round of due work failed, and is tried again")
        await stopping.sleep(PAUSE_S)


async def do_due_work(till: Till, stopping: Stopping | None = None) -> int:
    """One round, at most to the end of a piece of work. Gives how much was done: 0 means that nothing was due."""
    database = till.database
    done = 0
    while done < BATCH and await do_due(till, limit=1):
        done += 1
        if stopping is not None and stopping.has_begun:
            return done
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
