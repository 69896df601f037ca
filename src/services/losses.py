"""What a bank took back for good of what was owed back anyway: that much of it is no loss, and owed no longer."""

from sqlalchemy import select

from ..database import ReadSession, Work
from ..models import BillingAccount, CreditNote, RefundReason, RefundStatus, Transaction, TransactionStatus
from . import books
from .notices import clear_notice
from .refundables import Refundable, load_refundables

PAID_BACK = (RefundStatus.APPROVED, RefundStatus.SUCCEEDED)


async def settle_losses(work: Work, account: BillingAccount, charge: Transaction) -> None:
    """Have lost disputes of a charge pay what can go back of it no more. May be asked again whenever that changes.

    A loss comes out of what paid the invoice first. What of the rest was owed back is owed as far only as the charge
    still has room for it, and requests that could not be paid back end with that.
    """
    await work.session.flush()
    item = (await load_refundables(ReadSession(work.session), [charge]))[charge.id]
    lost = [row for row in item.disputes if row.status is TransactionStatus.SUCCEEDED]
    if not lost:
        return
    decided = [row for row in item.requests if row.status is not RefundStatus.REQUESTED]
    paid_back = sum(row.refund_minor for row in decided if row.status in PAID_BACK)
    granted = sum(row.granted_minor for row in decided)
    granted_twice_paid = sum(row.granted_minor for row in decided if row.reason is RefundReason.DUPLICATE)
    lost_minor = sum(row.amount_minor for row in lost)
    room = max(0, charge.amount_minor - paid_back - granted_twice_paid - lost_minor)
    owed = charge.excess_minor + await _promised_by_notes(work, item) - paid_back - granted
    taken = max(0, owed - room) - sum(row.excess_minor for row in lost)
    for dispute in reversed(lost):
        part = min(taken, dispute.amount_minor - dispute.excess_minor)
        if part > 0:
            dispute.excess_minor += part
            dispute.updated_at = work.clock.now_for(account)
            books.post_loss_owed(work, account, dispute, part)
            taken -= part
    await _end_requests(work, account, item, room)


async def _promised_by_notes(work: Work, item: Refundable) -> int:
    """What credit notes of a charge's requests said that it would be paid back."""
    notes = [row.credit_note_id for row in item.requests if row.credit_note_id is not None]
    found = await work.session.scalars(select(CreditNote.to_refund_minor).where(CreditNote.id.in_(notes)))
    return sum(found)


async def _end_requests(work: Work, account: BillingAccount, item: Refundable, room: int) -> None:
    for request in item.requests:
        if request.status is not RefundStatus.FAILED or request.refund_minor <= room:
            room -= request.refund_minor if request.status is RefundStatus.FAILED else 0
            continue
        before, request.refund_minor, room = request.refund_minor, room, 0
        request.updated_at = work.clock.now_for(account)
        if request.refund_minor == 0:
            request.status = RefundStatus.SUCCEEDED
            await clear_notice(work, account, "REFUND_FAILED", str(request.id))
        work.audit(
            account,
            "refund.disputed",
            f"refund_request:{request.id}",
            before={"refundMinor": before},
            after={"refundMinor": request.refund_minor, "status": request.status},
        )
