"""What a customer orders: a trial, a start, another plan, add-ons, an end. Checked, priced, paid, then made true."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import (
    BillingAccount,
    ChangeAct,
    CollectionMethod,
    Interval,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    PendingChange,
    PendingStatus,
    ScheduledChange,
    Transaction,
    TransactionStatus,
    WorkKind,
)
from ..models.types import new_id
from . import books
from .access import Principal, Right
from .accounts import lock_for
from .changing import (
    AddOnTarget,
    make_change,
)
from .closing import draft_closed_period, load_standing
from .decisions import (
    Decide,
    Priced,
    Scheduled,
    check_action,
    check_limits,
    check_nothing_pends,
    find_terms,
    now_of,
)
from .due_work import find_next_on_clock, hasten
from .duties import catch_up, perform
from .errors import (
    CompanyRequired,
    IdempotencyInFlight,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PaymentFailed,
    PaymentRequired,
)
from .idempotency import Request, once
from .invoicing import foresee, issue_bill, minimum_of
from .payments import RECOVERED_AFTER, find_default, open_attempt
from .permissions import Action
from .pricing import bill_of, lines_at_cancellation
from .reminders import plan_reminders
from .rules.overage import FREE_TIER
from .rules.transitions import RUNNING, Step
from .settlement import CONFIRMABLE, expire_pending, record_result, settle
from .standing import Standing
from .subscriptions import (
    begin,
    check_step,
    close_usage_period,
    drop_scheduled,
    end_subscription,
    note_step,
)
from .texts import failure_message
from .tills import Till

QUOTE_LIFE = timedelta(minutes=30)
MAX_UNITS = 10_000


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What became of an order, by ids; all of them none where it took effect without a document."""

    account_id: UUID
    invoice_id: UUID | None = None
    transaction_id: UUID | None = None
    pending_id: UUID | None = None
    replayed: bool = False

    def stored(self) -> dict[str, Any]:
        """As it is remembered under an idempotency key."""
        return {
            name: None if value is None else str(value)
            for name, value in (
                ("accountId", self.account_id),
                ("invoiceId", self.invoice_id),
                ("transactionId", self.transaction_id),
                ("pendingId", self.pending_id),
            )
        }

    @classmethod
    def of(cls, stored: dict[str, Any], *, replayed: bool) -> "Placed":
        """What was remembered."""

        def read(name: str) -> UUID | None:
            return UUID(stored[name]) if stored[name] else None

        return cls(
            account_id=UUID(stored["accountId"]),
            invoice_id=read("invoiceId"),
            transaction_id=read("transactionId"),
            pending_id=read("pendingId"),
            replayed=replayed,
        )


class _DraftWaits(Exception):
    """A period's draft has to be finalised and paid before a change takes effect."""


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
    if account_id is not None:
        await catch_up(till, account_id)
    try:
        placed = await _place_once(till, principal, request, mutation, account_id, decide, reason)
    except _DraftWaits:
        assert account_id is not None, "only an account has drafts"
        await finalise_drafts(till, account_id)
        placed = await _place_once(till, principal, request, mutation, account_id, decide, reason)
    if placed.pending_id is None:
        return placed
    if placed.transaction_id is not None and not placed.replayed:
        await settle(till, placed.transaction_id)
    return await _look_after(till, placed)


async def _place_once(
    till: Till,
    principal: Principal,
    request: Request,
    mutation: str,
    account_id: UUID | None,
    decide: Decide,
    reason: str,
) -> Placed:
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)

        async def act() -> dict[str, Any]:
            standing = await load_standing(work, account)
            decision = await decide(work, standing)
            if isinstance(decision, Scheduled):
                await _schedule(work, standing, decision)
                return Placed(account_id=account.id).stored()
            return (await _take(work, standing, decision, reason)).stored()

        outcome = await once(work, request.key, mutation=mutation, scope=str(account.id), given=request.given, act=act)
    return Placed.of(outcome.answer, replayed=outcome.replayed)


async def _take(work: Work, standing: Standing, priced: Priced, reason: str) -> Placed:
    account = standing.account
    is_lowering = isinstance(priced.target, AddOnTarget) and not priced.bill.lines
    if standing.drafts and not is_lowering:
        raise _DraftWaits
    totals, brought = foresee(standing, priced.bill)
    if any(line.amount_minor > 0 for line in priced.bill.lines) and standing.company is None:
        raise CompanyRequired(
            "An invoice needs the company's name and country: set them by `updateCompany` first.", ["input"]
        )
    is_charged = (
        totals.due_minor >= minimum_of(account.currency) and account.collection_method is CollectionMethod.AUTOMATIC
    )
    if not is_charged:
        issued = await make_change(
            work,
            standing,
            priced.act,
            priced.target,
            priced.bill,
            priced.at,
            cause=f"order:{new_id()}",
            reason=reason,
        )
        return Placed(account_id=account.id, invoice_id=issued.invoice.id if issued.invoice else None)
    method = find_default(standing)
    if method is None:
        raise PaymentRequired("Add a payment method first: `addPaymentMethod` takes the processor's token.", ["input"])
    now = now_of(work, account)
    expires_at = now + CONFIRMABLE
    if standing.subscription is not None and standing.subscription.status in RUNNING:
        expires_at = min(expires_at, standing.subscription.usage_period_end)
    pending = PendingChange(
        created_at=now,
        account_id=account.id,
        act=priced.act,
        target=priced.target.stored(),
        pinned_at=priced.at,
        expires_at=expires_at,
        bill=priced.bill.model_dump(mode="json"),
        balance_minor=totals.balance_minor - brought,
        carried_minor=totals.carried_in_minor,
        due_minor=totals.due_minor,
        actor=work.actor.name,
        reason=reason,
    )
    work.session.add(pending)
    await work.session.flush()
    transaction = await open_attempt(
        work,
        standing,
        method,
        totals.due_minor,
        _describe(priced),
        pending=pending,
        delay=RECOVERED_AFTER,
    )
    return Placed(account_id=account.id, transaction_id=transaction.id, pending_id=pending.id)


def _describe(priced: Priced) -> str:
    if isinstance(priced.target, AddOnTarget):
        return f"{priced.target.add_on.name} × {priced.target.quantity}"
    return f"{priced.target.terms.offer.plan.name}, {priced.target.terms.interval.lower()}ly"


async def _look_after(till: Till, placed: Placed) -> Placed:
    """What became of a change that was to be paid. Declined, it is refused with the reason."""
    assert placed.pending_id is not None, "asked for"
    async with till.database.read() as session:
        pending = await session.get_one(PendingChange, placed.pending_id)
        transaction = await session.get_one(Transaction, placed.transaction_id)
    if pending.status is PendingStatus.FAILED:
        why = failure_message(transaction.failure_code) if transaction.failure_code else "The charge was declined."
        raise PaymentFailed(f"{why} Nothing was changed; a new try takes a new idempotency key.", ["input"])
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
        replayed=placed.replayed,
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
    if clock is None:
        await catch_up(till, account_id)
    else:
        await run_account(till, account_id, clock.id, now)
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


async def run_account(till: Till, account_id: UUID, clock_id: UUID, until: datetime) -> None:
    """Do what is due of one account on a test clock."""
    while True:
        async with till.database.read() as session:
            taken = await find_next_on_clock(session, clock_id, until, account_id=account_id)
        if taken is None:
            return
        await perform(till, taken)


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


# --- trials, ends, and taking back -----------------------------------------------------------------------------------


async def start_trial(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, plan_key: str, interval: Interval
) -> UUID:
    """Try a plan for 14 days, once per account: its limits, no overage, nothing charged."""
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)

        async def act() -> dict[str, Any]:
            standing = await load_standing(work, account)
            check_action(standing, Action.START_TRIAL)
            terms = await find_terms(work, standing, plan_key, interval)
            if terms.offer.plan.tier == FREE_TIER:
                raise InvalidInput("The free plan needs no trial: start it.", ["input", "planKey"])
            await check_limits(work, standing, terms)
            at = now_of(work, account)
            await begin(work, standing, terms, at, step=Step.START_TRIAL, event="subscription.started")
            await work.session.flush()
            await plan_reminders(work, await load_standing(work, account))
            return {"accountId": str(account.id)}

        await once(work, request.key, mutation="startTrial", scope=str(account.id), given=request.given, act=act)
        return account.id


async def cancel_at_period_end(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, reason: str
) -> Placed:
    """Let the subscription end with its billing period (or trial). It can be undone until then."""
    if account_id is not None:
        await catch_up(till, account_id)
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)

        async def act() -> dict[str, Any]:
            standing = await load_standing(work, account)
            check_action(standing, Action.CANCEL_SUBSCRIPTION)
            await check_nothing_pends(work, standing)
            subscription = standing.subscription
            assert subscription is not None, "just checked"
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
            return Placed(account_id=account.id).stored()

        outcome = await once(
            work, request.key, mutation="cancelSubscription", scope=str(account.id), given=request.given, act=act
        )
    return Placed.of(outcome.answer, replayed=outcome.replayed)


async def cancel_now(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, *, prorated: bool, reason: str
) -> Placed:
    """End the subscription at once, for operators: with the unused rest back, or without."""
    if account_id is not None:
        await catch_up(till, account_id)
    try:
        return await _cancel_now(till, principal, request, account_id, prorated, reason)
    except _DraftWaits:
        assert account_id is not None, "only an account has drafts"
        await finalise_drafts(till, account_id)
        return await _cancel_now(till, principal, request, account_id, prorated, reason)


async def _cancel_now(
    till: Till, principal: Principal, request: Request, account_id: UUID | None, prorated: bool, reason: str
) -> Placed:
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.OPERATE)

        async def act() -> dict[str, Any]:
            standing = await load_standing(work, account)
            check_action(standing, Action.CANCEL_NOW)
            await check_nothing_pends(work, standing)
            if standing.drafts:
                raise _DraftWaits
            subscription = standing.subscription
            assert subscription is not None, "just checked"
            at = now_of(work, account)
            started = subscription.usage_period_start
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
            return Placed(account_id=account.id).stored()

        outcome = await once(
            work, request.key, mutation="cancelSubscription", scope=str(account.id), given=request.given, act=act
        )
    return Placed.of(outcome.answer, replayed=outcome.replayed)


async def resume(till: Till, principal: Principal, request: Request, account_id: UUID | None) -> UUID:
    """Undo a cancellation that waits for the period's end."""
    if account_id is not None:
        await catch_up(till, account_id)
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)

        async def act() -> dict[str, Any]:
            standing = await load_standing(work, account)
            check_action(standing, Action.RESUME_SUBSCRIPTION)
            subscription = standing.subscription
            assert subscription is not None, "just checked"
            subscription.cancel_at_period_end = False
            before = subscription.status
            subscription.status = check_step(before, Step.RESUME)
            note_step(work, account, subscription, Step.RESUME, before, event="subscription.resumed")
            return {"accountId": str(account.id)}

        await once(
            work, request.key, mutation="resumeSubscription", scope=str(account.id), given=request.given, act=act
        )
        return account.id


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
    return account.id


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
            if row.status is not TransactionStatus.REQUIRES_ACTION:
                raise InvalidTransition(
                    f"The charge is {row.status.lower().replace('_', ' ')}: there is nothing to confirm.",
                    ["input", "transactionId"],
                )
            return {"transactionId": str(row.id)}

        outcome = await once(
            work, request.key, mutation="confirmPayment", scope=str(account.id), given=request.given, act=act
        )
    if not outcome.replayed:
        assert found.processor_id is not None, "the processor asked for it"
        await record_result(till, found.id, await till.processor.look_up(found.processor_id))
    async with till.database.read() as session:
        row = await session.get_one(Transaction, found.id)
    if row.status is TransactionStatus.FAILED:
        why = failure_message(row.failure_code) if row.failure_code else "The charge was declined."
        raise PaymentFailed(f"{why} A new try takes a new idempotency key.", ["input", "transactionId"])
    pends = row.pending_change_id if row.status is TransactionStatus.REQUIRES_ACTION else None
    return Placed(
        account_id=row.account_id,
        invoice_id=row.invoice_id,
        transaction_id=row.id,
        pending_id=pends,
        replayed=outcome.replayed,
    )
