"""Trying a payment again because somebody asked for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from ..database import ReadSession, Work
from ..models import BillingAccount, DueWork, Invoice, Transaction, TransactionKind, TransactionStatus, WorkKind
from ..models.types import new_id
from .access import Principal, Right
from .accounts import lock_for
from .collection import MAX_BY_HAND, drop_exhausted, list_payable
from .due_work import enqueue
from .errors import Conflict, PaymentFailed, PaymentRequired
from .idempotency import Request, once
from .orders import run_due
from .payments import find_default
from .standing import load_standing
from .texts import failure_message
from .tills import Till


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The charges that a retry made, by id, the oldest invoice's first."""

    account_id: UUID
    transaction_ids: Sequence[UUID]
    replayed: bool


async def retry_payment(till: Till, principal: Principal, request: Request, account_id: UUID | None) -> Tried:
    """Charge all that is open now. It moves no day of dunning; when all is paid the account is restored."""
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)
        clock_id, now = account.test_clock_id, work.clock.now_for(account)

        async def act() -> dict[str, Any]:
            invoice_ids = await _list_to_try(work, account, now)
            step = f"retry:{new_id()}"
            await enqueue(work, account, WorkKind.TRY_PAYMENT, step, now)
            return {"step": step, "invoiceIds": [str(invoice_id) for invoice_id in invoice_ids]}

        outcome = await once(
            work, request.key, mutation="retryPayment", scope=str(account.id), given=request.given, act=act
        )
    if not outcome.replayed:
        await run_due(till, account.id, clock_id, now)
    step = outcome.answer["step"]
    if not await _is_done(till, account.id, step):
        raise Conflict("Another charge of this account is under way: look again in a moment.", ["input", "accountId"])
    attempts = await _list_charges(till, [UUID(invoice_id) for invoice_id in outcome.answer["invoiceIds"]], step)
    if not attempts:
        raise Conflict("Nothing is to be paid any more: it was paid another way meanwhile.", ["input", "accountId"])
    failed = [row for row in attempts if row.status is TransactionStatus.FAILED]
    if len(failed) == len(attempts):
        code = failed[0].failure_code
        why = failure_message(code) if code else "The charge was declined."
        raise PaymentFailed(f"{why} A new try takes a new idempotency key.", ["input"])
    return Tried(account_id=account.id, transaction_ids=[attempt.id for attempt in attempts], replayed=outcome.replayed)


async def _list_to_try(work: Work, account: BillingAccount, now: datetime) -> Sequence[UUID]:
    invoice_ids = await list_payable(work, account)
    if not invoice_ids:
        raise Conflict("Nothing is to be paid.", ["input", "accountId"])
    invoice_ids = await drop_exhausted(work, account, invoice_ids)
    if not invoice_ids:
        raise Conflict(
            f"What is to be paid was tried {MAX_BY_HAND} times within a day: ask again tomorrow.",
            ["input", "accountId"],
        )
    standing = await load_standing(ReadSession(work.session), account, now)
    if find_default(standing) is None:
        raise PaymentRequired("Add a payment method first: `addPaymentMethod` takes the processor's token.", ["input"])
    return invoice_ids


async def _is_done(till: Till, account_id: UUID, step: str) -> bool:
    async with till.database.read() as session:
        waiting = await session.scalar(
            select(DueWork.id).where(
                DueWork.account_id == account_id,
                DueWork.kind == WorkKind.TRY_PAYMENT,
                DueWork.subject == step,
                DueWork.done_at.is_(None),
            )
        )
    return waiting is None


async def _list_charges(till: Till, invoice_ids: Sequence[UUID], step: str) -> Sequence[Transaction]:
    """The last charge of each invoice, the oldest invoice's first: a try made it, or found out what became of it.

    One that failed for another reason says nothing of this try.
    """
    async with till.database.read() as session:
        rows = await session.scalars(
            select(Transaction)
            .join(Invoice, Invoice.id == Transaction.invoice_id)
            .where(Transaction.invoice_id.in_(invoice_ids), Transaction.kind == TransactionKind.CHARGE)
            .order_by(Invoice.issued_at, Invoice.id, Transaction.created_at, Transaction.id)
        )
        last = {row.invoice_id: row for row in rows if row.status is not TransactionStatus.FAILED or row.step == step}
    return list(last.values())
