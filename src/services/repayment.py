"""What a refund leads to: asked of the processor between two transactions, its outcome written down once."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from ..database import Work
from ..faults import reach
from ..models import (
    BillingAccount,
    FailureCode,
    NoticeSeverity,
    RefundReason,
    RefundRequest,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from . import books
from .documents import freeze_receipt
from .due_work import Taken, finish, postpone, withdraw
from .hearing import Heard, note_heard
from .idempotency import Request
from .losses import settle_losses
from .mismatches import flag_mismatch
from .notices import clear_notice, raise_notice
from .ports import ProcessorFailed, RefundOrder, RefundOutcome, RefundResult
from .refunds import Decision, decide, note_refunded
from .settlement import OPEN
from .tills import Till

log = logging.getLogger("plafond.repayment")

LOOKED_AT_AGAIN = timedelta(hours=6)
"""A refund that is with the bank tells its end by a message; should that get lost, it is asked for."""


@dataclass(frozen=True)
class Reviewed:
    """What a review led to: the refund that is made or the credit that is given, and whether it is repeated."""

    refund_id: UUID | None
    credit_id: UUID | None
    replayed: bool


async def review(till: Till, request: Request, account_id: UUID, request_id: UUID, decision: Decision) -> Reviewed:
    """Decide on a request once, and have the processor pay back what that comes to."""
    outcome = await till.run(decide, request, account_id, request_id, decision)
    refund_id, credit_id = [
        None if outcome.answer[name] is None else UUID(outcome.answer[name]) for name in ("refundId", "creditId")
    ]
    if refund_id is not None and not outcome.replayed:
        await settle_refund(till, refund_id)
    return Reviewed(refund_id, credit_id, outcome.replayed)


async def settle_refund(till: Till, refund_id: UUID, taken: Taken | None = None) -> None:
    """Have the processor pay back, and write down what became of it. After a crash it is asked about before again."""
    async with till.database.read() as session:
        refund = await session.get_one(Transaction, refund_id)
        charge = await session.get_one(Transaction, refund.charge_id)
    if refund.status not in OPEN:
        if taken is not None:
            async with till.work() as work:
                await finish(work, taken)
        return
    assert refund.processor_key is not None, "a refund has its key from the start"
    assert charge.processor_id is not None, "what succeeded has the processor's id"
    order = RefundOrder(
        key=refund.processor_key,
        charge_id=charge.processor_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )
    reach("refund.before_call")
    try:
        known = None if taken is None else await till.processor.find_refund(order)
        result = known or await till.processor.refund(order)
    except ProcessorFailed:
        log.warning("the processor did not say what became of %s", order.key)
        async with till.work() as work:
            account = (await work.lock_accounts([refund.account_id]))[refund.account_id]
            row = await work.session.get_one(Transaction, refund.id)
            if row.status is TransactionStatus.PENDING:
                row.status, row.updated_at = TransactionStatus.UNKNOWN, work.clock.now_for(account)
        if taken is not None:
            raise
        return
    reach("refund.after_call")
    await record_refund(till, refund_id, result, taken)
    reach("refund.after_commit")


async def record_refund(
    till: Till, refund_id: UUID, result: RefundResult, taken: Taken | None = None, heard: Heard | None = None
) -> None:
    """Write down what became of a refund, once, whoever tells it and in which order."""
    async with till.database.read() as session:
        account_id = (await session.get_one(Transaction, refund_id)).account_id
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        if heard is not None and not await note_heard(work, heard):
            return
        now = work.clock.now_for(account)
        refund = await work.session.get_one(Transaction, refund_id, populate_existing=True)
        if (result.amount_minor, result.currency) != (refund.amount_minor, refund.currency):
            await flag_mismatch(work, account, refund, result.amount_minor, result.currency)
            if taken is not None:
                await postpone(work, taken, now + LOOKED_AT_AGAIN)
            return
        if result.status is RefundOutcome.PENDING:
            if refund.status in OPEN:
                refund.status, refund.processor_id = TransactionStatus.PENDING, result.processor_id
                refund.updated_at = now
            if taken is not None:
                await postpone(work, taken, now + LOOKED_AT_AGAIN)
            return
        if taken is not None:
            await finish(work, taken)
        else:
            await withdraw(work, account, WorkKind.REFUND, str(refund_id))
        await clear_notice(work, account, "PAYMENT_MISMATCH", str(refund.id))
        await _end(work, account, refund, result)
        reach("refund.before_commit")


async def _end(work: Work, account: BillingAccount, refund: Transaction, result: RefundResult) -> None:
    """A refund went through, or did not. A bank may send back later what had gone through."""
    now = work.clock.now_for(account)
    before = refund.status
    is_failed = result.status is RefundOutcome.FAILED
    if before is (TransactionStatus.FAILED if is_failed else TransactionStatus.SUCCEEDED):
        return
    if before is TransactionStatus.FAILED and refund.processor_id is not None:
        # What a bank sent back stays so: that it had gone through before was read earlier, and is written down late.
        return
    request = await work.session.get_one(RefundRequest, refund.refund_request_id)
    charge = await work.session.get_one(Transaction, refund.charge_id)
    refund.status = TransactionStatus.FAILED if is_failed else TransactionStatus.SUCCEEDED
    refund.failure_code = FailureCode.PROCESSOR_ERROR if is_failed else None
    refund.processor_id = result.processor_id or refund.processor_id
    refund.updated_at = request.updated_at = now
    if not is_failed:
        if before is TransactionStatus.FAILED and request.status is not RefundStatus.FAILED:
            # It was tried again or credited meanwhile, and went through all the same.
            await _flag_second(work, account, refund, charge)
        else:
            request.status = RefundStatus.SUCCEEDED
            await clear_notice(work, account, "REFUND_FAILED", str(request.id))
        books.post_refund(work, account, refund, refund.amount_minor)
        if request.reason is RefundReason.DUPLICATE:
            await clear_notice(work, account, "PAYMENT_DUPLICATE", str(charge.id))
        await freeze_receipt(work, account, refund)
    else:
        request.status = RefundStatus.FAILED
        if before is TransactionStatus.SUCCEEDED:
            books.post_refund(work, account, refund, -refund.amount_minor)
        await raise_notice(
            work,
            account,
            "REFUND_FAILED",
            str(request.id),
            severity=NoticeSeverity.CRITICAL,
            params={"amountMinor": refund.amount_minor, "currency": refund.currency, "charge": charge.description},
            for_operators=True,
        )
    await note_refunded(work, charge)
    await settle_losses(work, account, charge)
    event = "payment.failed" if is_failed else "refund.succeeded"
    work.audit(
        account,
        event,
        f"transaction:{refund.id}",
        before={"status": before},
        after={"status": refund.status, "amountMinor": refund.amount_minor},
    )
    work.emit(
        account,
        event,
        {"transactionId": str(refund.id), "kind": TransactionKind.REFUND, "refundRequestId": str(request.id)},
    )


async def _flag_second(work: Work, account: BillingAccount, refund: Transaction, charge: Transaction) -> None:
    """Money went back twice: it is booked as it is, and operators are told."""
    await raise_notice(
        work,
        account,
        "REFUND_TWICE",
        str(refund.id),
        severity=NoticeSeverity.CRITICAL,
        params={"charge": charge.description, "amountMinor": refund.amount_minor, "currency": refund.currency},
        for_operators=True,
        dismissible=True,
    )
