"""What a charge leads to: an invoice paid or overdue, a change that waited applied or dropped."""

import logging
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from ..database import Work
from ..faults import reach
from ..models import (
    BillingAccount,
    Invoice,
    NoticeSeverity,
    PaymentMethod,
    PendingChange,
    PendingStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from ..models.money import UNDER_WAY
from .accounts import select_accounts
from .changing import apply_change, still_holds
from .closing import load_standing
from .documents import freeze_receipt
from .due_work import Taken, enqueue_again, finish, postpone, withdraw
from .errors import BillingError
from .hearing import Heard, note_heard
from .mismatches import flag_mismatch
from .notices import clear_notice, raise_notice
from .payments import ask_for_payment, fail_payment, note_result, show_action
from .ports import ChargeOrder, ChargeResult, ChargeStatus, ProcessorFailed
from .receiving import owe_back, pay_invoice
from .tills import Till
from .upgrade_notices import tell_of_upgrade

log = logging.getLogger("plafond.settlement")

TO_CONFIRM = "PAYMENT_TO_CONFIRM"
ASKED_AGAIN = timedelta(hours=1)
"""When a charge of another amount is looked up again."""
OPEN = (TransactionStatus.PENDING, TransactionStatus.UNKNOWN)
"""Nobody knows whether the processor was asked, or what it answered: it is asked about."""


async def settle(till: Till, transaction_id: UUID, taken: Taken | None = None) -> None:
    """Have the processor collect an open charge, and write down what that leads to.

    The key was committed before, and so is that it is being asked for: whoever comes after asks what became of it,
    before it is asked for again under the same key. What cannot be known is unknown, and looked up before anything
    else is tried.
    """
    async with till.work() as work:
        taken_up = await _take_up(work, transaction_id)
        if taken_up is None and taken is not None:
            await finish(work, taken)
    if taken_up is None:
        return
    transaction, order, is_first = taken_up
    reach("charge.before_call")
    try:
        result = await _collect(till, transaction, order, is_first=is_first)
    except ProcessorFailed:
        log.warning("the processor did not say what became of %s", order.key)
        await _note_unknown(till, transaction)
        if taken is not None:
            raise
        return
    reach("charge.after_call")
    await record_result(till, transaction_id, result, taken)
    reach("charge.after_commit")


async def _take_up(work: Work, transaction_id: UUID) -> tuple[Transaction, ChargeOrder, bool] | None:
    """What to ask the processor for, and whether nobody asked before; none where the charge is not open any more.

    That it is asked for is written down here, so that it is known whatever becomes of who asks.
    """
    account_id = (await work.session.get_one(Transaction, transaction_id)).account_id
    account = (await work.lock_accounts([account_id]))[account_id]
    transaction = await work.session.get_one(Transaction, transaction_id, populate_existing=True)
    if transaction.status not in OPEN:
        return None
    method = await work.session.get_one(PaymentMethod, transaction.payment_method_id)
    assert transaction.processor_key is not None, "a charge has its key from the start"
    order = ChargeOrder(
        key=transaction.processor_key,
        amount_minor=transaction.amount_minor,
        currency=transaction.currency,
        customer=account.processor_customer or "",
        token=method.processor_token,
        on_session=transaction.on_session,
        description=transaction.description,
    )
    is_first = transaction.asked_at is None
    if is_first:
        transaction.asked_at = work.clock.now_for(account)
    return transaction, order, is_first


async def _collect(till: Till, transaction: Transaction, order: ChargeOrder, *, is_first: bool) -> ChargeResult:
    """Ask for a charge, after asking whether it was made; only that, where what it is for is paid or over."""
    found = None if is_first else await till.processor.find(order)
    if await _is_wanted(till, transaction):
        return found or await till.processor.charge(order)
    if found is None:
        return ChargeResult(
            status=ChargeStatus.CANCELED, processor_id="", amount_minor=order.amount_minor, currency=order.currency
        )
    if found.status is ChargeStatus.REQUIRES_ACTION:
        return await till.processor.cancel(found.processor_id)
    return found


async def _is_wanted(till: Till, transaction: Transaction) -> bool:
    """Whether what a charge is for still waits for it: a change that is not over, an invoice that owes so much."""
    async with till.database.read() as session:
        if transaction.pending_change_id is None:
            invoice = await session.get_one(Invoice, transaction.invoice_id)
            return invoice.owes(transaction.amount_minor)
        pending = await session.get_one(PendingChange, transaction.pending_change_id)
        account = (await session.scalars(select_accounts().where(BillingAccount.id == transaction.account_id))).one()
    return pending.status is PendingStatus.PENDING and till.database.clock.now_for(account) < pending.expires_at


async def _note_unknown(till: Till, transaction: Transaction) -> None:
    async with till.work() as work:
        account = (await work.lock_accounts([transaction.account_id]))[transaction.account_id]
        row = await work.session.get_one(Transaction, transaction.id)
        if row.status is TransactionStatus.PENDING:
            row.status = TransactionStatus.UNKNOWN
            row.updated_at = work.clock.now_for(account)


async def record_result(
    till: Till,
    transaction_id: UUID,
    result: ChargeResult,
    taken: Taken | None = None,
    heard: Heard | None = None,
) -> None:
    """Write down what became of a charge, once, and what follows from it, in one transaction.

    Whoever tells it, and in which order, it ends alike: our own call, asking later, a message of the processor.
    """
    async with till.database.read() as session:
        account_id = (await session.get_one(Transaction, transaction_id)).account_id
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        if heard is not None and not await note_heard(work, heard):
            return
        transaction = await work.session.get_one(Transaction, transaction_id, populate_existing=True)
        is_open = transaction.status in UNDER_WAY
        if not is_open and (
            result.status is not ChargeStatus.SUCCEEDED or transaction.status is TransactionStatus.SUCCEEDED
        ):
            if taken is not None:
                await finish(work, taken)
            return
        if result.status in (ChargeStatus.SUCCEEDED, ChargeStatus.REQUIRES_ACTION) and (
            result.amount_minor,
            result.currency,
        ) != (transaction.amount_minor, transaction.currency):
            await _put_aside(work, account, transaction, result, taken)
            return
        if taken is not None:
            await finish(work, taken)
        if result.status is ChargeStatus.REQUIRES_ACTION and transaction.status is TransactionStatus.REQUIRES_ACTION:
            # Told again: it waits as before, and until when was said.
            transaction.action = show_action(result)
            return
        await withdraw(work, account, WorkKind.CHARGE, str(transaction_id))
        if result.status is not ChargeStatus.REQUIRES_ACTION:
            await withdraw(work, account, WorkKind.EXPIRE_ACTION, str(transaction_id))
        await clear_notice(work, account, "PAYMENT_MISMATCH", str(transaction.id))
        await _follow(work, account, transaction, result, is_open=is_open)
        reach("charge.before_commit")


async def _put_aside(
    work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult, taken: Taken | None
) -> None:
    """What names another amount is flagged, and looked at again later."""
    is_open = transaction.status in UNDER_WAY
    if is_open:
        transaction.status = TransactionStatus.UNKNOWN
    await flag_mismatch(work, account, transaction, result.amount_minor, result.currency)
    asked_again_at = work.clock.now_for(account) + ASKED_AGAIN
    if taken is not None:
        await postpone(work, taken, asked_again_at)
    elif is_open:
        await enqueue_again(work, account, WorkKind.CHARGE, str(transaction.id), asked_again_at)


async def _follow(
    work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult, *, is_open: bool
) -> None:
    """Write down what became of a charge, and what that leads to."""
    # Read before the charge counts as one that succeeded: reading writes, and two would have paid the invoice.
    invoice = None if transaction.invoice_id is None else await work.session.get_one(Invoice, transaction.invoice_id)
    waited = transaction.status is TransactionStatus.REQUIRES_ACTION
    note_result(work, account, transaction, result)
    if not is_open and transaction.pending_change_id is not None:
        # It was given up here, and went through there all the same.
        await owe_back(
            work, account, transaction, transaction.amount_minor, {"change": str(transaction.pending_change_id)}
        )
    elif transaction.pending_change_id is not None:
        await _settle_change(work, account, transaction, result)
    elif invoice is not None:
        await _settle_invoice(work, account, invoice, transaction, result)
    if result.status is ChargeStatus.REQUIRES_ACTION:
        await raise_notice(
            work,
            account,
            TO_CONFIRM,
            str(transaction.id),
            severity=NoticeSeverity.CRITICAL,
            params={
                "amountMinor": transaction.amount_minor,
                "currency": transaction.currency,
                "charge": transaction.description,
                "expiresAt": transaction.expires_at,
                "transactionId": str(transaction.id),
            },
        )
    elif waited:
        await clear_notice(work, account, TO_CONFIRM, str(transaction.id))
    if result.status is ChargeStatus.SUCCEEDED:
        await freeze_receipt(work, account, transaction)


async def _settle_invoice(
    work: Work, account: BillingAccount, invoice: Invoice, transaction: Transaction, result: ChargeResult
) -> None:
    if result.status is ChargeStatus.SUCCEEDED:
        await pay_invoice(work, account, invoice, transaction)
        return
    if result.status is ChargeStatus.REQUIRES_ACTION:
        transaction.expires_at = transaction.expires_at or work.clock.now_for(account) + CONFIRMABLE
        await enqueue_again(work, account, WorkKind.EXPIRE_ACTION, str(transaction.id), transaction.expires_at)
        if transaction.on_session:
            return
        # Nobody is there to confirm it: that is a failure until somebody does.
    if result.status is ChargeStatus.CANCELED and not invoice.owes(transaction.amount_minor):
        # It was given up because less is owed by now: that is no failure, and what is left is asked for.
        standing = await load_standing(work, account)
        now = work.clock.now_for(account)
        await ask_for_payment(work, standing, invoice, now, step=f"rest:{transaction.id}")
        return
    await fail_payment(work, account, invoice, transaction)


CONFIRMABLE = timedelta(hours=23)


async def _settle_change(work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult) -> None:
    pending = await work.session.get_one(PendingChange, transaction.pending_change_id)
    now = work.clock.now_for(account)
    if result.status is ChargeStatus.SUCCEEDED:
        account_id, transaction_id, pending_id = account.id, transaction.id, pending.id
        if pending.status is PendingStatus.PENDING:
            try:
                async with work.session.begin_nested():
                    if await _make_true(work, account, pending, transaction):
                        return
            except (BillingError, IntegrityError, AssertionError):
                # The money is there, whatever stands against the change: it must not be forgotten with it.
                log.exception("change %s was paid, and cannot be made", pending_id)
                account = (await work.lock_accounts([account_id]))[account_id]
                transaction = await work.session.get_one(Transaction, transaction_id, populate_existing=True)
                pending = await work.session.get_one(PendingChange, pending_id, populate_existing=True)
                await _end_pending(work, account, pending, PendingStatus.EXPIRED)
        await owe_back(work, account, transaction, transaction.amount_minor, {"change": str(pending_id)})
        return
    if result.status is ChargeStatus.REQUIRES_ACTION:
        transaction.expires_at = pending.expires_at
        return
    pending.updated_at = now
    await _end_pending(
        work,
        account,
        pending,
        PendingStatus.EXPIRED if result.status is ChargeStatus.CANCELED else PendingStatus.FAILED,
    )


async def _make_true(work: Work, account: BillingAccount, pending: PendingChange, transaction: Transaction) -> bool:
    """Apply a change that was paid, if what it rests on still is so. Else it ends, and the money has to go back."""
    standing = await load_standing(work, account)
    if work.clock.now_for(account) >= pending.expires_at or not await still_holds(work, standing, pending):
        await _end_pending(work, account, pending, PendingStatus.EXPIRED)
        return False
    await _end_pending(work, account, pending, PendingStatus.APPLIED)
    issued = await apply_change(work, standing, pending)
    if issued.invoice is not None:
        transaction.invoice_id = issued.invoice.id
        await pay_invoice(work, account, issued.invoice, transaction)
    return True


async def _end_pending(work: Work, account: BillingAccount, pending: PendingChange, status: PendingStatus) -> None:
    pending.status, pending.ended_at = status, work.clock.now_for(account)
    await withdraw(work, account, WorkKind.EXPIRE_PENDING, str(pending.id))
    await tell_of_upgrade(work, account, pending)
    await work.session.flush()


async def expire_action(till: Till, transaction_id: UUID, taken: Taken | None = None) -> None:
    """Give up a charge that nobody confirmed in time, or that is not needed any more."""
    async with till.database.read() as session:
        transaction = await session.get(Transaction, transaction_id)
    if transaction is None or transaction.status is not TransactionStatus.REQUIRES_ACTION:
        if taken is not None:
            async with till.work() as work:
                await finish(work, taken)
        return
    assert transaction.processor_id is not None, "the processor asked for it"
    await record_result(till, transaction.id, await till.processor.cancel(transaction.processor_id), taken)


async def expire_pending(till: Till, account_id: UUID, pending_id: UUID, taken: Taken | None = None) -> None:
    """Give up a change that nobody paid in time. Money that came in the last moment still counts."""
    async with till.database.read() as session:
        pending = await session.get(PendingChange, pending_id)
        transaction = await session.scalar(
            select(Transaction).where(
                Transaction.pending_change_id == pending_id, Transaction.kind == TransactionKind.CHARGE
            )
        )
    if pending is None or pending.status is not PendingStatus.PENDING:
        if taken is not None:
            async with till.work() as work:
                await finish(work, taken)
        return
    if transaction is not None and transaction.status in OPEN:
        # Nobody knows yet what became of the charge: that is found out first.
        await settle(till, transaction.id)
        async with till.database.read() as session:
            transaction = await session.get_one(Transaction, transaction.id)
    if transaction is not None and transaction.processor_id is not None:
        # What becomes of the charge ends the change, and takes back the work that is being done here.
        await record_result(till, transaction.id, await till.processor.cancel(transaction.processor_id))
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        row = await work.session.get_one(PendingChange, pending_id, populate_existing=True)
        if row.status is not PendingStatus.PENDING:
            return
        if taken is not None:
            await finish(work, taken)
        if transaction is None or transaction.status not in OPEN:
            await _end_pending(work, account, row, PendingStatus.EXPIRED)
