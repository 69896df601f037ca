"""The due work: what the clock brings about, and the outbox's publisher."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import anyio
from anyio.abc import TaskGroup

from .adapters.sandbox_processor import SandboxProcessor
from .database import Actor, Database, Work
from .sandbox.messages import deliver_messages
from .services import alerts, mailing, reservations, spikes
from .services.deliveries import Lease, give_up_old, plan_waiting
from .services.drawing import draw_due
from .services.duties import ASKING, BATCH, BILLING, do_due
from .services.partitions import is_only_waiting, make_partitions
from .services.ports import Draughtsman, Hooks, Processor
from .services.posting import PostOffice, post_due
from .services.publishing import number_waiting
from .services.purging import purge
from .services.sending import AT_ONCE, claim_due, send_to
from .services.tills import Till
from .services.writing import write_due
from .stopping import Stopping

PAUSE_S = 1.0
UPKEEP_S = 3_600.0
SOON_S = 60.0
LOOKING_S = 15.0
"""So often unusual days are looked for: also where usage never rests, it is looked at no oftener."""
ASKING_AT_ONCE = 3
"""As many pieces of work wait for the processor at once; one that hangs for ten seconds holds up so many accounts."""
POSTING_AT_ONCE = 3
"""As many mails are handed over at once."""
WORKER = Actor(name="system:worker", origin="worker")

log = logging.getLogger("plafond.worker")


@dataclass(frozen=True)
class Tools:
    """What the work needs of the outside, and of the settings."""

    processor: Processor
    hooks: Hooks
    office: PostOffice | None
    """Who sends mail; without it none is sent."""
    draughtsman: Draughtsman | None
    """Who draws documents; without one nothing is drawn and no export written."""
    keep_usage: timedelta


def start_work(group: TaskGroup, database: Database, tools: Tools, stopping: Stopping) -> None:
    """Have all of the work done in a group of tasks, until told to stop."""
    group.start_soon(run_worker, database, tools.processor, stopping)
    group.start_soon(run_upkeep, database, tools.keep_usage, stopping)
    group.start_soon(run_webhooks, database, tools.hooks, stopping)
    if tools.office is not None:
        group.start_soon(run_mail, database, tools.office, stopping)
    if tools.draughtsman is not None:
        group.start_soon(run_drawing, database, tools.draughtsman, stopping)
        group.start_soon(run_exports, database, tools.draughtsman, stopping)


async def run_worker(database: Database, processor: Processor, stopping: Stopping) -> None:
    """Do what is due, until told to stop. A database that is away is asked again.

    What asks the processor is done beside the rest, some at a time: one that hangs holds up no period and no event.
    """
    till = Till(database, processor, WORKER)
    async with anyio.create_task_group() as group:
        group.start_soon(_repeat, lambda: _do_the_rest(till, stopping), stopping)
        for _ in range(ASKING_AT_ONCE):
            group.start_soon(_repeat, lambda: do_due(till, limit=1, kinds=ASKING), stopping)
        group.start_soon(_repeat, lambda: _deliver(till), stopping)
        group.start_soon(_repeat, lambda: number_waiting(database, WORKER), stopping)
        group.start_soon(_look_for_spikes, database, stopping)


async def run_drawing(database: Database, draughtsman: Draughtsman, stopping: Stopping) -> None:
    """Draw documents, until told to stop, beside all else: one that takes long holds nothing up."""
    await _repeat(lambda: draw_due(database, WORKER, draughtsman, limit=1), stopping)


async def run_exports(database: Database, draughtsman: Draughtsman, stopping: Stopping) -> None:
    """Write exports, until told to stop, beside all else, and delete them when their days are over."""
    await _repeat(lambda: write_due(database, WORKER, draughtsman, limit=1), stopping)


async def run_webhooks(database: Database, hooks: Hooks, stopping: Stopping) -> None:
    """Plan webhooks and send them, until told to stop, beside all else. To many endpoints at once, to each in order."""
    async with anyio.create_task_group() as group:
        group.start_soon(_repeat, lambda: plan_waiting(database, WORKER), stopping)
        group.start_soon(_repeat, lambda: give_up_old(database, WORKER), stopping)
        running = 0

        async def send(lease: Lease) -> None:
            nonlocal running
            try:
                await send_to(database, WORKER, hooks, lease)
            except Exception:
                # The lease ends by itself, and another round begins where this one was.
                log.exception("sending to the webhook endpoint %s failed, and is tried again", lease.endpoint_id)
            finally:
                running -= 1

        async def send_more() -> int:
            nonlocal running
            leases = await claim_due(database, WORKER, AT_ONCE - running)
            running += len(leases)
            for lease in leases:
                group.start_soon(send, lease)
            return len(leases)

        await _repeat(send_more, stopping)


async def run_mail(database: Database, office: PostOffice, stopping: Stopping) -> None:
    """Plan mails and send them, until told to stop. A mail server that takes long holds up nothing else."""
    async with anyio.create_task_group() as group:
        group.start_soon(_repeat, lambda: mailing.plan_waiting(database, WORKER), stopping)
        for _ in range(POSTING_AT_ONCE):
            group.start_soon(_repeat, lambda: post_due(database, WORKER, office, limit=1), stopping)


async def run_upkeep(database: Database, keep_usage: timedelta, stopping: Stopping) -> None:
    """Have room for the events to come, and let go of all whose time is over, until told to stop."""
    while not stopping.has_begun:
        pause = UPKEEP_S
        try:
            now = database.clock.now()
            await make_partitions(database, now)
            await purge(database, WORKER, now, keep_usage)
        except Exception as error:
            pause = SOON_S
            if is_only_waiting(error):
                log.info("the table of usage events was in use: upkeep is tried again")
            else:
                log.exception("upkeep failed, and is tried again")
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


async def do_due_work(till: Till) -> int:
    """One round of all of it. Gives how much was done: 0 means that nothing was due."""
    database = till.database
    done = await do_due(till) + await _deliver(till) + await _resolve_ended(database) + await _expire(database)
    done += await spikes.look_at_all(database, WORKER) + await _resolve_spikes(database)
    return done + await number_waiting(database, WORKER)


async def _do_the_rest(till: Till, stopping: Stopping) -> int:
    """A round of what asks nobody; told to stop, it ends with a piece of work."""
    done = 0
    while done < BATCH and await do_due(till, limit=1, kinds=BILLING - ASKING):
        done += 1
        if stopping.has_begun:
            return done
    done += await _resolve_spikes(till.database)
    return done + await _resolve_ended(till.database) + await _expire(till.database)


async def _deliver(till: Till) -> int:
    return await deliver_messages(till) if isinstance(till.processor, SandboxProcessor) else 0


async def _resolve_ended(database: Database) -> int:
    ended = await alerts.find_ended(database)
    if ended:
        await database.run(WORKER, _resolve, ended)
    return len(ended)


async def _resolve(work: Work, account_ids: Sequence[UUID]) -> None:
    await alerts.resolve_ended(work, (await work.lock_accounts(account_ids)).values())


async def _look_for_spikes(database: Database, stopping: Stopping) -> None:
    after = None
    while not stopping.has_begun:
        try:
            after = await spikes.look_further(database, WORKER, after)
        except Exception:
            after = None
            log.exception("looking for unusual days failed, and is tried again")
        if after is None:
            await stopping.sleep(LOOKING_S)


async def _resolve_spikes(database: Database) -> int:
    over = await spikes.find_over(database)
    if over:
        await database.run(WORKER, _resolve_days, over)
    return len(over)


async def _resolve_days(work: Work, account_ids: Sequence[UUID]) -> None:
    await spikes.resolve_over(work, (await work.lock_accounts(account_ids)).values())


async def _expire(database: Database) -> int:
    ran_out = await reservations.find_expired(database)
    return await database.run(WORKER, _expire_reservations, ran_out) if ran_out else 0


async def _expire_reservations(work: Work, account_ids: Sequence[UUID]) -> int:
    return await reservations.expire_reservations(work, (await work.lock_accounts(account_ids)).values())
