"""The due work: what the clock brings about, and the outbox's publisher."""

import logging

import anyio

from .database import Actor, Database
from .services import alerts
from .services.publishing import has_unnumbered, number_outbox

PAUSE_S = 1.0
WORKER = Actor(name="system:worker", origin="worker")

log = logging.getLogger("plafond.worker")


async def run_worker(database: Database) -> None:
    """Do what is due, for ever. A database that is away is asked again."""
    while True:
        try:
            while await do_due_work(database):
                pass
        except Exception:
            # Whatever it was, the next round starts afresh: due work must not end with one bad moment.
            log.exception("a round of due work failed, and is tried again")
        await anyio.sleep(PAUSE_S)


async def do_due_work(database: Database) -> int:
    """One round. Gives how much was done: 0 means that nothing was due."""
    ended = await alerts.find_ended(database)
    if ended:
        async with database.work(WORKER) as work:
            await alerts.resolve_ended(work, (await work.lock_accounts(ended)).values())
    if not await has_unnumbered(database):
        return len(ended)
    async with database.work(WORKER) as work:
        return len(ended) + await number_outbox(work)
