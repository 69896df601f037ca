"""What a charge leads to: an invoice paid or overdue, a change that waited applied or dropped."""

import logging
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

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
from . import books
from .changing import apply_change
from .closing import load_standing
from .due_work import Taken, enqueue, finish, withdraw
from .notices import raise_notice
from .payments import fail_payment, note_result, pay_invoice
from .ports import ChargeOrder, ChargeResult, ChargeStatus, ProcessorFailed
from .tills import Till

log = logging.getLogger("plafond.settlement")

ASKED_AGAIN = timedelta(minutes=1)
OPEN = (TransactionStatus.PENDING, TransactionStatus.UNKNOWN)


async def settle(till: Till, transaction_id: UUID, taken: Taken | None = None) -> None:
    """Have the processor collect an open charge, and write down what that leads to.

    The key was committed before: asked again after a crash, it is the same charge. What cannot be known is unknown,
    and looked up again before anything else is tried.
    """
    async with till.database.read() as session:
        transaction = await session.get_one(Transaction, transaction_id)
        method = await session.get_one(PaymentMethod, transaction.payment_method_id)
    if transaction.status not in OPEN:
        if taken is not None:
            async with till.work() as work:
                await finish(work, taken)
        return
    assert transaction.processor_key is not None, "a charge has its key from the start"
    order = ChargeOrder(
        key=transaction.processor_key,
        amount_minor=transaction.amount_minor,
        currency=transaction.currency,
        token=method.processor_token,
        on_session=transaction.pending_change_id is not None,
    )
    reach("charge.before_call")
    try:
        result = await till.processor.charge(order)
    except ProcessorFailed:
        log.warning("the processor did not say what became of %s", order.key)
        await _note_unknown(till, transaction)
        if taken is not None:
            raise
        return
    reach("charge.after_call")
    await record_result(till, transaction_id, result, taken)
    reach("charge.after_commit")


async def _note_unknown(till: Till, transaction: Transaction) -> None:
    async with till.work() as work:
        account = (await work.lock_accounts([transaction.account_id]))[transaction.account_id]
        row = await work.session.get_one(Transaction, transaction.id)
        if row.status is TransactionStatus.PENDING:
            row.status = TransactionStatus.UNKNOWN
            row.updated_at = work.clock.now_for(account)


async def record_result(till: Till, transaction_id: UUID, result: ChargeResult, taken: Taken | None = None) -> None:
    """Write down what became of a charge, once, and what follows from it, in one transaction."""
    async with till.database.read() as session:
        account_id = (await session.get_one(Transaction, transaction_id)).account_id
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        if taken is not None:
            await finish(work, taken)
        else:
            await withdraw(work, account, WorkKind.CHARGE, str(transaction_id))
        transaction = await work.session.get_one(Transaction, transaction_id)
        if transaction.status not in (*OPEN, TransactionStatus.REQUIRES_ACTION):
            return
        if (result.amount_minor, result.currency) != (transaction.amount_minor, transaction.currency):
            await _flag_mismatch(work, account, transaction, result)
            return
        note_result(work, account, transaction, result)
        if transaction.pending_change_id is not None:
            await _settle_change(work, account, transaction, result)
        elif transaction.invoice_id is not None:
            await _settle_invoice(work, account, transaction, result)


async def _flag_mismatch(work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult) -> None:
    """The processor speaks of another amount than ours: nothing is booked silently."""
    transaction.status = TransactionStatus.UNKNOWN
    await raise_notice(
        work,
        account,
        "PAYMENT_MISMATCH",
        str(transaction.id),
        severity=NoticeSeverity.CRITICAL,
        params={
            "expectedMinor": transaction.amount_minor,
            "expectedCurrency": transaction.currency,
            "toldMinor": result.amount_minor,
            "toldCurrency": result.currency,
        },
        for_operators=True,
    )


async def _settle_invoice(work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult) -> None:
    invoice = await work.session.get_one(Invoice, transaction.invoice_id)
    if result.status is ChargeStatus.SUCCEEDED:
        await pay_invoice(work, account, invoice, transaction)
        return
    if result.status is ChargeStatus.REQUIRES_ACTION:
        # Nobody is there to confirm it: that is a failure until somebody does.
        transaction.expires_at = work.clock.now_for(account) + CONFIRMABLE
    await fail_payment(work, account, invoice, transaction)


CONFIRMABLE = timedelta(hours=23)


async def _settle_change(work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult) -> None:
    pending = await work.session.get_one(PendingChange, transaction.pending_change_id)
    now = work.clock.now_for(account)
    if result.status is ChargeStatus.SUCCEEDED:
        if pending.status is not PendingStatus.PENDING:
            books.post_overpayment(work, account, transaction, transaction.amount_minor)
            await raise_notice(
                work,
                account,
                "PAYMENT_DUPLICATE",
                str(transaction.id),
                severity=NoticeSeverity.WARNING,
                params={"change": str(pending.id)},
                for_operators=True,
            )
            return
        await _end_pending(work, account, pending, PendingStatus.APPLIED)
        standing = await load_standing(work, account)
        issued = await apply_change(work, standing, pending)
        if issued.invoice is not None:
            transaction.invoice_id = issued.invoice.id
            await pay_invoice(work, account, issued.invoice, transaction)
        return
    if result.status is ChargeStatus.REQUIRES_ACTION:
        transaction.expires_at = pending.expires_at
        await enqueue(work, account, WorkKind.EXPIRE_PENDING, str(pending.id), pending.expires_at)
        return
    pending.updated_at = now
    await _end_pending(
        work,
        account,
        pending,
        PendingStatus.EXPIRED if result.status is ChargeStatus.CANCELED else PendingStatus.FAILED,
    )


async def _end_pending(work: Work, account: BillingAccount, pending: PendingChange, status: PendingStatus) -> None:
    pending.status, pending.ended_at = status, work.clock.now_for(account)
    await withdraw(work, account, WorkKind.EXPIRE_PENDING, str(pending.id))
    await work.session.flush()


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
