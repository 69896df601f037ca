"""Doing what is due: each piece once, in order, whoever does it. What fails again and again is parked and shown."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from ..database import Work
from ..faults import reach
from ..models import BillingAccount, NoticeSeverity, WorkKind
from .arrears import give_up, note_overdue, suspend
from .budget_periods import reckon_spend
from .budget_upgrades import upgrade_plan
from .closing import (
    close_period,
    end_trial,
    finalise_period,
    invoice_corrections,
    load_standing,
)
from .collection import try_payment
from .due_work import APART, MAX_TRIES, Fenced, Taken, claim, finish, give_back, is_behind, release
from .errors import Conflict
from .expiry import expire_account
from .notices import clear_notice, raise_notice
from .ports import ProcessorFailed
from .reminders import remind
from .repayment import settle_refund
from .retention import purge_year
from .settlement import expire_action, expire_pending, settle
from .tills import Till

log = logging.getLogger("plafond.duties")

Duty = Callable[[Work, BillingAccount, str], Awaitable[Any]]
BILLING = frozenset(WorkKind) - APART
ASKING = frozenset(
    {
        WorkKind.CHARGE,
        WorkKind.TRY_PAYMENT,
        WorkKind.REFUND,
        WorkKind.EXPIRE_ACTION,
        WorkKind.EXPIRE_PENDING,
        WorkKind.EXPIRE_ACCOUNT,
    }
)
"""Work that asks the payment processor, and lasts as long as that takes to answer."""
BATCH = 20
CAUGHT_UP_AT_MOST = 500
"""As much due work of an account a request does before it is acted on."""


class WorkerLost(Exception):
    """Nobody said what became of the tries before: they ended their workers."""


async def _remind(work: Work, account: BillingAccount, subject: str) -> None:
    await remind(work, await load_standing(work, account), subject)


async def _reckon_spend(work: Work, account: BillingAccount, subject: str) -> None:
    await reckon_spend(work, account, {subject.partition(":")[0]})


DUTIES: dict[WorkKind, Duty] = {
    WorkKind.CLOSE_PERIOD: close_period,
    WorkKind.END_TRIAL: end_trial,
    WorkKind.FINALISE_INVOICE: finalise_period,
    WorkKind.INVOICE_CORRECTIONS: invoice_corrections,
    WorkKind.OVERDUE: note_overdue,
    WorkKind.SUSPEND: suspend,
    WorkKind.GIVE_UP: give_up,
    WorkKind.PURGE: purge_year,
    WorkKind.REMIND: _remind,
    WorkKind.RECKON_SPEND: _reckon_spend,
    WorkKind.UPGRADE_PLAN: upgrade_plan,
}


async def perform(till: Till, taken: Taken) -> None:
    """Do one piece of work. Its effect and that it is done are one transaction."""
    if taken.kind is WorkKind.CHARGE:
        await settle(till, UUID(taken.subject), taken)
    elif taken.kind is WorkKind.TRY_PAYMENT:
        await try_payment(till, taken)
    elif taken.kind is WorkKind.REFUND:
        await settle_refund(till, UUID(taken.subject), taken)
    elif taken.kind is WorkKind.EXPIRE_ACTION:
        await expire_action(till, UUID(taken.subject), taken)
    elif taken.kind is WorkKind.EXPIRE_PENDING:
        await expire_pending(till, taken.account_id, UUID(taken.subject), taken)
    elif taken.kind is WorkKind.EXPIRE_ACCOUNT:
        await expire_account(till, taken)
    else:
        await till.run(_do_duty, taken)


async def _do_duty(work: Work, taken: Taken) -> None:
    account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
    await finish(work, taken)
    await DUTIES[taken.kind](work, account, taken.subject)


async def try_to_perform(till: Till, taken: Taken) -> bool:
    """Do one piece of work; what fails is given back, to be tried again later or looked at by an operator."""
    try:
        if taken.is_lost and taken.failures >= MAX_TRIES:
            raise WorkerLost("whoever did it ended before it was done, each time")
        await perform(till, taken)
    except Fenced:
        log.warning("%s of %s was taken over by another worker", taken.kind, taken.account_id)
    except Exception as failure:
        log.exception("%s of %s failed, try %d", taken.kind, taken.account_id, taken.tries)
        async with till.work() as work:
            # A processor that is away is asked until it answers: that is no fault of the account's.
            parked = await give_back(
                work,
                taken,
                f"{type(failure).__name__}: {failure}",
                max_tries=None if isinstance(failure, ProcessorFailed) else MAX_TRIES,
            )
        if parked:
            await tell_operators(till, taken)
        return False
    return True


async def tell_operators(till: Till, taken: Taken) -> None:
    """Say that an account is parked: apart from the parking, since what is broken may break this too."""
    try:
        async with till.work() as work:
            account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
            await raise_notice(
                work,
                account,
                "ACCOUNT_PARKED",
                str(taken.id),
                severity=NoticeSeverity.CRITICAL,
                params={"work": taken.kind, "due": taken.due_at.isoformat()},
                for_operators=True,
            )
    except Exception:
        log.exception("%s is parked, and no notice of it could be written", taken.account_id)


async def release_account(work: Work, account: BillingAccount) -> int:
    """Let the parked work of a locked account be tried again. Gives how much there was."""
    released = await release(work, account)
    for work_id in released:
        await clear_notice(work, account, "ACCOUNT_PARKED", str(work_id))
    work.audit(account, "account.released", f"billing_account:{account.id}", after={"work": len(released)})
    return len(released)


async def do_due(
    till: Till, *, limit: int = BATCH, account_id: UUID | None = None, kinds: frozenset[WorkKind] = BILLING
) -> int:
    """Take what is due by the wall clock and do it. Gives how much was taken: 0 means that nothing is due."""
    for count in range(limit):
        # One at a time: work that ends its worker takes no other with it.
        async with till.work() as work:
            taken = await claim(work, work.clock.now(), limit=1, account_id=account_id, kinds=kinds)
        if not taken:
            return count
        reach("work.claimed")
        await try_to_perform(till, taken[0])
    return limit


async def catch_up(till: Till, account_id: UUID) -> None:
    """Do what is due of one account, so that a request finds it as the clock says: `check_caught_up` tells whether.

    More than comes together in some years is left to the worker.
    """
    await do_due(till, limit=CAUGHT_UP_AT_MOST, account_id=account_id)


async def check_caught_up(work: Work, account: BillingAccount) -> None:
    """Refuse a change while the account's periods are behind the clock: what is due comes first."""
    if account.test_clock is None and await is_behind(work, account, work.clock.now()):
        raise Conflict(
            "What is due of this account has not been done yet: ask again in a moment. If that stays so, its billing "
            "was stopped, and an operator has to look.",
            ["input", "accountId"],
        )
