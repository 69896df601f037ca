"""What a customer orders: a trial, a start, another plan, add-ons, an end. Checked, priced, paid, then made true."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import (
    BillingAccount,
    CollectionMethod,
    Invoice,
    InvoiceStatus,
    PendingChange,
    PendingStatus,
    ScheduledChange,
    Transaction,
    TransactionStatus,
    WorkKind,
)
from .access import Principal, Right
from .accounts import lock_for
from .closing import load_standing
from .decisions import (
    Decide,
    Scheduled,
)
from .due_work import Fenced, find_next_on_clock, hasten
from .duties import catch_up, check_caught_up, perform
from .errors import (
    Conflict,
    IdempotencyInFlight,
    NotFound,
    PaymentFailed,
    PaymentRequired,
)
from .idempotency import Outcome, Request, marking, once
from .permissions import check_confirmable
from .ports import ProcessorFailed
from .rules.transitions import Step
from .settlement import record_result, settle
from .standing import Standing
from .subscriptions import (
    drop_scheduled,
    note_step,
)
from .taking import DraftWaits, Placed, take
from .texts import failure_message
from .tills import Till

log = logging.getLogger("plafond.orders")


# --- placing an order ------------------------------------------------------------------------------------------------


async def place(
    till: Till,
    principal: Principal,
    request: Request,
    mutation: str,
    account_id: UUID | None,
    decide: Decide,
    *,
    reason: str = "",
) -> Placed:
    """Have a change decided, and made true: at once where nothing is to be paid, else when it is paid.

    What waits of the account's work is done first. The charge is asked for between two transactions, under a key that
    the first one wrote down.
    """

    async def act(work: Work, standing: Standing) -> Placed:
        decision = await decide(work, standing)
        if isinstance(decision, Scheduled):
            await _schedule(work, standing, decision)
            return Placed(account_id=standing.account.id, quote_id=decision.quote_id)
        return await take(work, standing, decision, reason=reason)

    placed = await do_once_after_drafts(till, principal, request, mutation, account_id, act)
    if placed.pending_id is None:
        return placed
    if placed.transaction_id is not None and not placed.replayed:
        await settle(till, placed.transaction_id)
    with marking(replayed=placed.replayed):
        return await _look_after(till, placed)


Act = Callable[[Work, Standing], Awaitable[Placed]]


async def do_once(
    till: Till,
    principal: Principal,
    request: Request,
    mutation: str,
    account_id: UUID | None,
    act: Act,
    *,
    right: Right = Right.MANAGE_BILLING,
) -> Placed:
    """Act on an account, locked and as it stands, once for each request under a key."""

    async def act_once(work: Work) -> Outcome:
        account = await lock_for(work, principal, account_id, right)
        await check_caught_up(work, account)

        async def run() -> dict[str, Any]:
            return (await act(work, await load_standing(work, account))).stored()

        return await once(work, request.key, mutation=mutation, scope=str(account.id), given=request.given, act=run)

    outcome = await till.run(act_once)
    return Placed.of(outcome.answer, replayed=outcome.replayed)


async def do_once_after_drafts(
    till: Till,
    principal: Principal,
    request: Request,
    mutation: str,
    account_id: UUID | None,
    act: Act,
    *,
    right: Right = Right.MANAGE_BILLING,
) -> Placed:
    """The same, after all that is due. Where a draft waits that has to be paid first, that is done before."""
    if account_id is not None:
        await catch_up(till, account_id)
    try:
        return await do_once(till, principal, request, mutation, account_id, act, right=right)
    except DraftWaits:
        assert account_id is not None, "only an account has drafts"
        await finalise_drafts(till, account_id)
    try:
        return await do_once(till, principal, request, mutation, account_id, act, right=right)
    except DraftWaits:
        raise Conflict("The invoice of the last period is being made: ask again in a moment.", ["input"]) from None


async def _look_after(till: Till, placed: Placed) -> Placed:
    """What became of a change that was to be paid. Declined, it is refused with the reason."""
    assert placed.pending_id is not None, "asked for"
    async with till.database.read() as session:
        pending = await session.get_one(PendingChange, placed.pending_id)
        transaction = await session.get_one(Transaction, placed.transaction_id)
    if pending.status is PendingStatus.FAILED:
        why = failure_message(transaction.failure_code) if transaction.failure_code else "The charge was declined."
        raise PaymentFailed(f"{why} Nothing was changed; a new try takes a new idempotency key.", ["input"])
    _refuse_in_vain(transaction, "input")
    if transaction.status is TransactionStatus.PENDING:
        raise IdempotencyInFlight(
            "The first request with this idempotency key is still under way: ask again in a moment.",
            ["input", "idempotencyKey"],
        )
    return Placed(
        account_id=placed.account_id,
        invoice_id=transaction.invoice_id,
        transaction_id=transaction.id,
        pending_id=pending.id if pending.status is PendingStatus.PENDING else None,
        quote_id=placed.quote_id,
        replayed=placed.replayed,
    )


def _refuse_in_vain(transaction: Transaction, *field: str) -> None:
    """Say where nothing came of a charge, although nobody declined it."""
    if transaction.status is TransactionStatus.CANCELED:
        raise PaymentFailed(
            "The charge was given up before it was made: nothing was charged, and nothing was changed. A new try takes "
            "a new idempotency key.",
            field,
        )
    if transaction.status is TransactionStatus.SUCCEEDED and transaction.excess_minor == transaction.amount_minor:
        raise Conflict(
            "It was paid, but what it was for is paid otherwise, or no longer holds: nothing was changed, and the "
            "money goes back.",
            field,
        )


async def finalise_drafts(till: Till, account_id: UUID) -> None:
    """Finalise and charge what waits for late usage now. A charge that fails refuses what was to follow."""
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        standing = await load_standing(work, account)
        now = work.clock.now_for(account)
        drafts = [(draft.id, draft.kind, draft.cause.removeprefix("period:")) for draft in standing.drafts]
        for _, kind, started in drafts:
            await hasten(work, account, WorkKind.FINALISE_INVOICE, f"{kind}:{started}", now)
        clock = account.test_clock
    await run_due(till, account_id, None if clock is None else clock.id, now)
    async with till.database.read() as session:
        unpaid = await session.scalars(
            select(Invoice.number).where(
                Invoice.id.in_([draft_id for draft_id, _, _ in drafts]),
                Invoice.status.in_((InvoiceStatus.OPEN, InvoiceStatus.DRAFT)),
            )
        )
        numbers = [number or "the draft" for number in unpaid]
    async with till.database.read() as session:
        row = await session.get_one(BillingAccount, account_id)
    if numbers and row.collection_method is CollectionMethod.AUTOMATIC:
        raise PaymentRequired(f"Pay {', '.join(numbers)} first.", ["input"])


async def run_due(till: Till, account_id: UUID, clock_id: UUID | None, now: datetime) -> None:
    """Do what is due of one account by now, on the wall clock or on its test clock."""
    if clock_id is None:
        await catch_up(till, account_id)
    else:
        await run_account(till, account_id, clock_id, now)


async def run_account(till: Till, account_id: UUID, clock_id: UUID, until: datetime) -> None:
    """Do what is due of one account on a test clock."""
    while True:
        async with till.database.read() as session:
            taken = await find_next_on_clock(session, clock_id, until, account_id=account_id)
        if taken is None:
            return
        try:
            await perform(till, taken)
        except Fenced:
            log.info("%s of %s was done by another request", taken.kind, account_id)
        except ProcessorFailed:
            # As on the wall clock: what was asked for is answered as it stands, and the clock's advance asks again.
            log.warning("%s of %s waits for the processor", taken.kind, account_id)
            return


async def _schedule(work: Work, standing: Standing, decision: Scheduled) -> None:
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "there is something to change"
    await drop_scheduled(work, account)
    subscription.cancel_at_period_end = False
    terms = decision.terms
    work.session.add(
        ScheduledChange(
            created_at=work.clock.now_for(account),
            account_id=account.id,
            plan_version_id=terms.offer.version.id,
            interval=terms.interval,
            price_minor=terms.price_minor,
            effective_at=decision.at,
        )
    )
    note_step(
        work,
        account,
        subscription,
        Step.CHANGE,
        subscription.status,
        event="subscription.scheduled",
        plan=terms.offer.plan.key,
        interval=terms.interval,
        effectiveAt=decision.at.isoformat(),
    )


async def confirm_payment(till: Till, principal: Principal, request: Request, transaction_id: UUID | None) -> Placed:
    """Look what became of a charge that the cardholder had to confirm, and make true what it pays."""
    async with till.database.read() as session:
        found = None if transaction_id is None else await session.get(Transaction, transaction_id)
    if found is None or not principal.may(Right.MANAGE_BILLING, found.account_id):
        raise NotFound("There is no such transaction for you.", ["input", "transactionId"])
    await catch_up(till, found.account_id)
    async with till.work() as work:
        account = await lock_for(work, principal, found.account_id, Right.MANAGE_BILLING)

        async def act() -> dict[str, Any]:
            row = await work.session.get_one(Transaction, found.id, populate_existing=True)
            check_confirmable(row)
            return {"transactionId": str(row.id)}

        outcome = await once(
            work, request.key, mutation="confirmPayment", scope=str(account.id), given=request.given, act=act
        )
    with marking(replayed=outcome.replayed):
        return await _look_up(till, found.id, outcome)


async def _look_up(till: Till, transaction_id: UUID, outcome: Outcome) -> Placed:
    """Ask the processor what became of a charge that waited for its cardholder."""
    async with till.database.read() as session:
        row = await session.get_one(Transaction, transaction_id)
    if row.status is TransactionStatus.REQUIRES_ACTION:
        # Also when it is asked again: whoever was asked first may have died before it looked.
        assert row.processor_id is not None, "the processor asked for it"
        result = await till.processor.look_up(row.processor_id)
        if result is None:
            raise ProcessorFailed(f"the processor no longer knows {row.processor_id}")
        await record_result(till, row.id, result)
        async with till.database.read() as session:
            row = await session.get_one(Transaction, row.id)
    if row.status is TransactionStatus.FAILED:
        why = failure_message(row.failure_code) if row.failure_code else "The charge was declined."
        again = (
            "Try the invoice again by `retryPayment`, or with another card"
            if row.pending_change_id is None
            else "Nothing was changed: order it again, or with another card"
        )
        raise PaymentFailed(f"{why} {again}.", ["input", "transactionId"])
    _refuse_in_vain(row, "input", "transactionId")
    pends = row.pending_change_id if row.status is TransactionStatus.REQUIRES_ACTION else None
    return Placed(
        account_id=row.account_id,
        invoice_id=row.invoice_id,
        transaction_id=row.id,
        pending_id=pends,
        replayed=outcome.replayed,
    )
