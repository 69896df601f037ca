"""Trials that begin, subscriptions that end, and what can be taken back of that."""

from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import ChangeAct, Interval, InvoiceKind, PendingChange, PendingStatus, Subscription
from . import books
from .access import Principal, Right
from .accounts import lock_for
from .closing import draft_closed_period, load_standing
from .decisions import check_action, check_limits, check_nothing_pends, find_terms, now_of
from .errors import Conflict, InvalidInput, InvalidTransition
from .idempotency import Request
from .invoicing import issue_bill
from .orders import do_once_after_drafts
from .permissions import Action
from .pricing import bill_of, lines_at_cancellation
from .reminders import plan_reminders
from .rules.overage import FREE_TIER
from .rules.transitions import Step
from .settlement import expire_pending
from .standing import Standing
from .subscriptions import (
    begin,
    check_step,
    close_usage_period,
    drop_scheduled,
    end_subscription,
    note_step,
)
from .taking import DraftWaits, Placed
from .tills import Till


async def start_trial(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, plan_key: str, interval: Interval
) -> Placed:
    """Try a plan for 14 days, once per account: its limits, no overage, nothing charged."""
    act = partial(_start_trial, plan_key=plan_key, interval=interval)
    return await do_once_after_drafts(till, principal, request, "startTrial", account_id, act)


async def _start_trial(work: Work, standing: Standing, plan_key: str, interval: Interval) -> Placed:
    account = standing.account
    check_action(standing, Action.START_TRIAL)
    await check_nothing_pends(work, standing)
    terms = await find_terms(work, standing, plan_key, interval)
    if terms.offer.plan.tier == FREE_TIER:
        raise InvalidInput("The free plan needs no trial: start it.", ["input", "planKey"])
    await check_limits(work, standing, terms)
    await begin(work, standing, terms, now_of(work, account), step=Step.START_TRIAL, event="subscription.started")
    await work.session.flush()
    await plan_reminders(work, await load_standing(work, account))
    return Placed(account_id=account.id)


async def cancel_at_period_end(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, reason: str
) -> Placed:
    """Let the subscription end with its billing period (or trial). It can be undone until then."""
    act = partial(_cancel_at_period_end, reason=reason)
    return await do_once_after_drafts(till, principal, request, "cancelSubscription", account_id, act)


async def _cancel_at_period_end(work: Work, standing: Standing, reason: str) -> Placed:
    account = standing.account
    check_action(standing, Action.CANCEL_SUBSCRIPTION)
    await check_nothing_pends(work, standing)
    subscription = _running(standing)
    await drop_scheduled(work, account)
    subscription.cancel_at_period_end = True
    note_step(
        work,
        account,
        subscription,
        Step.CANCEL,
        subscription.status,
        event="subscription.scheduled",
        reason=reason,
        cancelsAt=subscription.current_period_end.isoformat(),
    )
    return Placed(account_id=account.id)


async def cancel_now(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, *, prorated: bool, reason: str
) -> Placed:
    """End the subscription at once, for operators: with the unused rest back, or without."""
    act = partial(_cancel_now, prorated=prorated, reason=reason)
    return await do_once_after_drafts(
        till, principal, request, "cancelSubscription", account_id, act, right=Right.OPERATE
    )


async def _cancel_now(work: Work, standing: Standing, *, prorated: bool, reason: str) -> Placed:
    account = standing.account
    check_action(standing, Action.CANCEL_NOW)
    await check_nothing_pends(work, standing)
    await end_now(work, standing, now_of(work, account), prorated=prorated, reason=reason)
    return Placed(account_id=account.id)


async def end_now(work: Work, standing: Standing, at: datetime, *, prorated: bool, reason: str) -> None:
    """End what runs at an instant of now; a draft that waits has to be finalised and paid before."""
    account = standing.account
    if standing.drafts:
        raise DraftWaits
    started = _running(standing).usage_period_start
    await books.recognise(work, account, at)
    lines = lines_at_cancellation(standing, at) if prorated else []
    await issue_bill(
        work,
        standing,
        bill_of(standing, lines),
        kind=InvoiceKind.FINAL,
        cause=f"cancel:{at.isoformat()}",
        reason="CANCELLATION",
    )
    await close_usage_period(work, standing, at)
    await end_subscription(work, standing, at, Step.CANCEL_NOW, reason=reason)
    # What was not given back is earned: nothing more is served for it.
    await books.recognise(work, account, at, everything=True)
    await draft_closed_period(work, standing, started, InvoiceKind.FINAL, at)


async def resume(till: Till, principal: Principal, request: Request, account_id: UUID | None) -> Placed:
    """Undo a cancellation that waits for the period's end."""
    return await do_once_after_drafts(till, principal, request, "resumeSubscription", account_id, _resume)


async def _resume(work: Work, standing: Standing) -> Placed:
    check_action(standing, Action.RESUME_SUBSCRIPTION)
    subscription = _running(standing)
    subscription.cancel_at_period_end = False
    before = subscription.status
    subscription.status = check_step(before, Step.RESUME)
    note_step(work, standing.account, subscription, Step.RESUME, before, event="subscription.resumed")
    return Placed(account_id=standing.account.id)


async def give_up_change(till: Till, principal: Principal, account_id: UUID | None) -> UUID:
    """Take back a change that waits: for the period's end, or for its payment."""
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)
        standing = await load_standing(work, account)
        subscription = standing.subscription
        if subscription is not None and await drop_scheduled(work, account):
            note_step(
                work,
                account,
                subscription,
                Step.CHANGE,
                subscription.status,
                event="subscription.changed",
                reason="a scheduled change was taken back",
            )
            return account.id
        pending = await work.session.scalar(
            select(PendingChange.id).where(
                PendingChange.account_id == account.id,
                PendingChange.status == PendingStatus.PENDING,
                PendingChange.act != ChangeAct.SET_ADD_ON,
            )
        )
        if pending is None:
            raise InvalidTransition("No change waits.", ["input", "accountId"])
    await expire_pending(till, account.id, pending)
    async with till.database.read() as session:
        row = await session.get_one(PendingChange, pending)
    if row.status is PendingStatus.PENDING:
        raise Conflict("The payment's outcome is not known yet: ask again in a moment.", ["input", "accountId"])
    if row.status is PendingStatus.APPLIED:
        raise Conflict("The payment went through, and the change was made.", ["input", "accountId"])
    return account.id


def _running(standing: Standing) -> Subscription:
    assert standing.subscription is not None, "the state was checked"
    return standing.subscription
