"""Test clocks: a time of its own for accounts of the sandbox, advanced by hand. What is due in between happens."""

import logging
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from dateutil.relativedelta import relativedelta
from sqlalchemy import select, update

from ..database import Work
from ..models import BillingAccount, DueWork, TestClock
from .due_work import MAX_TRIES, Fenced, Taken, find_next_on_clock, give_back
from .duties import perform, tell_operators
from .errors import Conflict, InvalidInput, NotFound
from .ports import ProcessorFailed
from .reservations import expire_reservations
from .spikes import look_at_all, resolve_over
from .tills import Till
from .wording import format_instant

log = logging.getLogger("plafond.test_clocks")

MAX_ADVANCE_YEARS = 2
MAX_NAME_LENGTH = 100
HELD = timedelta(minutes=5)
"""How long an advance may go without a sign of life before another may go on with it."""


async def create_clock(work: Work, name: str, now: datetime) -> TestClock:
    """Make a clock that stands at an instant. Accounts are hung on it when they are made."""
    if not 0 < len(name.strip()) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidInput(f"`name` has 1 to {MAX_NAME_LENGTH} printable characters.", ["input", "name"])
    if not 2000 <= now.year <= 2100:
        raise InvalidInput("`now` lies in the years 2000 to 2100.", ["input", "now"])
    clock = TestClock(
        created_at=work.clock.now(),
        name=name.strip(),
        code=secrets.token_hex(4).upper(),
        now=now.replace(microsecond=0),
    )
    work.session.add(clock)
    await work.session.flush()
    told = {"name": clock.name, "code": clock.code, "now": format_instant(clock.now)}
    await work.audit_deployment("test_clock.created", f"test_clock:{clock.id}", after=told)
    return clock


async def advance_clock(till: Till, clock_id: UUID | None, to: datetime) -> TestClock:
    """Move a clock forward, at most two years: everything due on the way happens, in order, each at its instant.

    Interrupted, it stands where it came to; the same call goes on. Only one advance of a clock runs at a time.
    """
    to = to.replace(microsecond=0)
    async with till.work() as work:
        clock = None
        if clock_id is not None:
            clock = await work.session.get(TestClock, clock_id, with_for_update=True)
        if clock is None:
            raise NotFound("There is no such test clock.", ["input", "testClockId"])
        if to < clock.now:
            stands_at = format_instant(clock.now)
            raise InvalidInput(f"A clock only moves forward: it stands at {stands_at}.", ["input", "to"])
        if to > clock.now + relativedelta(years=MAX_ADVANCE_YEARS):
            raise InvalidInput(f"Advance a clock by at most {MAX_ADVANCE_YEARS} years at a time.", ["input", "to"])
        wall = work.clock.now()
        if clock.advancing_until is not None and clock.advancing_until > wall:
            raise Conflict("The clock is being advanced: wait until that is done.", ["input", "testClockId"])
        clock.advancing_until = wall + HELD
        await work.audit_deployment(
            "test_clock.advanced",
            f"test_clock:{clock.id}",
            before={"now": format_instant(clock.now)},
            after={"now": format_instant(to)},
        )
    try:
        await _run(till, clock.id, to)
    finally:
        async with till.work() as work:
            await work.session.execute(update(TestClock).where(TestClock.id == clock.id).values(advancing_until=None))
    async with till.database.read() as session:
        return await session.get_one(TestClock, clock.id)


async def _run(till: Till, clock_id: UUID, to: datetime) -> None:
    await look_at_all(till.database, till.actor, test_clock_id=clock_id)
    while True:
        async with till.database.read() as session:
            found = await find_next_on_clock(session, clock_id, to)
        if found is None:
            break
        taken = await _set_to(till, clock_id, found)
        try:
            await perform(till, taken)
        except Fenced:
            # A message of the processor, or a request, told the end of it meanwhile: it is done, and time goes on.
            log.info("%s of %s was done by another", taken.kind, taken.account_id)
        except Exception as failure:
            async with till.work() as work:
                # A processor that is away is asked until it answers, as on the wall clock.
                parked = await give_back(
                    work,
                    taken,
                    f"{type(failure).__name__}: {failure}",
                    max_tries=None if isinstance(failure, ProcessorFailed) else MAX_TRIES,
                )
            if parked:
                await tell_operators(till, taken)
            raise
    async with till.work() as work:
        clock = await work.session.get_one(TestClock, clock_id, with_for_update=True)
        clock.now = max(clock.now, to)
        clock.updated_at = work.clock.now()
        await work.session.flush()
        hung = await work.session.scalars(select(BillingAccount.id).where(BillingAccount.test_clock_id == clock.id))
        accounts = (await work.lock_accounts(hung.all())).values()
        await expire_reservations(work, accounts)
        await resolve_over(work, accounts)


async def _set_to(till: Till, clock_id: UUID, found: Taken) -> Taken:
    """Put the clock to the instant of what comes next. What is overdue happens at the clock's own time."""
    async with till.work() as work:
        wall = work.clock.now()
        clock = await work.session.get_one(TestClock, clock_id, with_for_update=True)
        clock.now = max(clock.now, found.due_at)
        clock.advancing_until = wall + HELD
        await work.session.execute(update(DueWork).where(DueWork.id == found.id).values(tries=DueWork.tries + 1))
    return replace(found, tries=found.tries + 1)
