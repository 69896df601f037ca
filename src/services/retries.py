"""Trying a payment again because somebody asked for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from ..database import ReadSession, Work
from ..models import BillingAccount, DueWork, TransactionStatus, WorkKind
from ..models.types import new_id
from .access import Principal, Right
from .accounts import lock_for
from .collection import MAX_BY_HAND, drop_exhausted, list_charges, list_payable
from .due_work import enqueue
from .errors import Conflict, PaymentFailed, PaymentRequired
from .idempotency import Outcome, Request, marking, once
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
    with marking(replayed=outcome.replayed):
        return await _look_after(till, account.id, outcome)


async def _look_after(till: Till, account_id: UUID, outcome: Outcome) -> Tried:
    """What became of the charges. All declined, it is refused with the reason of the first."""
    step = outcome.answer["step"]
    invoice_ids = [UUID(invoice_id) for invoice_id in outcome.answer["invoiceIds"]]
    attempts = await list_charges(till, invoice_ids, step)
    is_unknown = any(row.status is TransactionStatus.UNKNOWN for row in attempts)
    if not is_unknown and not await _is_done(till, account_id, step):
        raise Conflict(
            "Another charge of this account is under way: look again when it has ended. A test clock has to be "
            "advanced for that.",
            ["input", "accountId"],
        )
    if not attempts:
        raise Conflict("Nothing is to be paid any more: it was paid another way meanwhile.", ["input", "accountId"])
    failed = [row for row in attempts if row.status is TransactionStatus.FAILED]
    if len(failed) == len(attempts):
        code = failed[0].failure_code
        why = failure_message(code) if code else "The charge was declined."
        raise PaymentFailed(f"{why} A new try takes a new idempotency key.", ["input"])
    return Tried(account_id=account_id, transaction_ids=[attempt.id for attempt in attempts], replayed=outcome.replayed)


async def _list_to_try(work: Work, account: BillingAccount, now: datetime) -> Sequence[UUID]:
    invoice_ids = await list_payable(work, account)
    if not invoice_ids:
        raise Conflict(
            "Nothing is due by now: there is nothing to try again. `invoices` shows what is paid, and how.",
            ["input", "accountId"],
        )
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
