"""Disputes: a cardholder's bank takes a charge back. While one is open nothing of the charge is refunded."""

from uuid import UUID

from sqlalchemy import select

from ..models import NoticeSeverity, Transaction, TransactionKind, TransactionStatus
from . import books
from .hearing import Heard, note_heard
from .losses import settle_losses
from .notices import clear_notice, raise_notice
from .ports import DisputeFacts, DisputeStatus
from .tills import Till

STATUSES = {
    DisputeStatus.OPEN: TransactionStatus.PENDING,
    DisputeStatus.LOST: TransactionStatus.SUCCEEDED,
    DisputeStatus.WON: TransactionStatus.CANCELED,
}
"""A lost dispute moved the money; one that was won moved none."""


async def record_dispute(till: Till, charge_id: UUID, facts: DisputeFacts, heard: Heard | None = None) -> None:
    """Write down how a dispute of a charge stands. One that has ended does not open again."""
    async with till.database.read() as session:
        account_id = (await session.get_one(Transaction, charge_id)).account_id
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        if heard is not None and not await note_heard(work, heard):
            return
        now = work.clock.now_for(account)
        charge = await work.session.get_one(Transaction, charge_id)
        dispute = await work.session.scalar(
            select(Transaction).where(
                Transaction.charge_id == charge.id,
                Transaction.kind == TransactionKind.DISPUTE,
                Transaction.processor_id == facts.processor_id,
            )
        )
        is_new = dispute is None
        if dispute is None:
            dispute = Transaction(
                created_at=now,
                account_id=account.id,
                invoice_id=charge.invoice_id,
                payment_method_id=charge.payment_method_id,
                kind=TransactionKind.DISPUTE,
                status=TransactionStatus.PENDING,
                currency=charge.currency,
                amount_minor=facts.amount_minor,
                description=f"Dispute: {charge.description}",
                charge_id=charge.id,
            )
            dispute.processor_id = facts.processor_id
            work.session.add(dispute)
            await work.session.flush()
            payload = {"transactionId": str(dispute.id), "chargeId": str(charge.id)}
            work.audit(
                account, "dispute.opened", f"transaction:{dispute.id}", after={"amountMinor": dispute.amount_minor}
            )
            work.emit(account, "dispute.opened", payload)
        status = STATUSES[facts.status]
        params = {
            "amountMinor": dispute.amount_minor,
            "currency": dispute.currency,
            "charge": charge.description,
            "toldMinor": facts.amount_minor,
            "toldCurrency": facts.currency,
        }
        if facts.currency != charge.currency or not 0 < facts.amount_minor <= charge.amount_minor:
            await raise_notice(
                work,
                account,
                "PAYMENT_MISMATCH",
                str(dispute.id),
                severity=NoticeSeverity.CRITICAL,
                params={
                    **params,
                    "expectedMinor": charge.amount_minor,
                    "expectedCurrency": charge.currency,
                },
                for_operators=True,
            )
            return
        if status is TransactionStatus.PENDING:
            if is_new:
                await raise_notice(
                    work,
                    account,
                    "PAYMENT_DISPUTED",
                    str(dispute.id),
                    severity=NoticeSeverity.CRITICAL,
                    params=params,
                    for_operators=True,
                )
            return
        if dispute.status is not TransactionStatus.PENDING:
            return
        dispute.status, dispute.updated_at = status, now
        if status is TransactionStatus.SUCCEEDED:
            books.post_dispute_lost(work, account, dispute)
            await settle_losses(work, account, charge)
        await clear_notice(work, account, "PAYMENT_DISPUTED", str(dispute.id))
        work.audit(
            account,
            "dispute.closed",
            f"transaction:{dispute.id}",
            after={"status": status, "amountMinor": dispute.amount_minor},
        )
        work.emit(account, "dispute.closed", {"transactionId": str(dispute.id), "outcome": facts.status})
