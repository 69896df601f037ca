"""What the payment processor tells by itself. A message says only what to look at: the state is read there anew,
so that messages may come twice, in any order, and days late."""

import logging
from uuid import UUID

from sqlalchemy import or_, select

from ..faults import reach
from ..models import NoticeSeverity, PaymentMethod, Transaction, TransactionKind, TransactionStatus
from .disputes import record_dispute
from .hearing import NOT_OURS, UNKNOWN, Heard, note_heard
from .methods import refresh_method
from .notices import raise_notice
from .ports import EventKind, Message, ProcessorFailed, RefundResult
from .repayment import record_refund
from .settlement import record_result
from .tills import Till

log = logging.getLogger("plafond.processor_messages")


async def hear(till: Till, message: Message) -> None:
    """Act on a message that was proved to be the processor's. Raises `ProcessorFailed` where it does not answer."""
    reach("message.taken")
    if message.kind is EventKind.CHARGE:
        await _hear_charge(till, message)
    elif message.kind is EventKind.REFUND:
        await _hear_refund(till, message)
    elif message.kind is EventKind.DISPUTE:
        await _hear_dispute(till, message)
    else:
        await _hear_method(till, message)
    reach("message.heard")


async def _hear_charge(till: Till, message: Message) -> None:
    transaction_id = await _find_transaction(till, TransactionKind.CHARGE, message.subject, message.key)
    if transaction_id is None and message.key is None:
        await _note_apart(till, message, NOT_OURS)
        return
    result = await till.processor.look_up(message.subject)
    if transaction_id is None or result is None:
        log.error("the processor tells of a charge %s for %s, which is unknown", message.subject, message.key)
        await _note_apart(till, message, UNKNOWN)
        return
    await record_result(till, transaction_id, result, heard=Heard(message))


async def _hear_refund(till: Till, message: Message) -> None:
    result = await till.processor.look_up_refund(message.subject)
    refund_id = await _find_transaction(till, TransactionKind.REFUND, message.subject, message.key)
    if result is not None and refund_id is not None:
        await record_refund(till, refund_id, result, heard=Heard(message))
        return
    if result is None:
        await _note_apart(till, message, NOT_OURS)
        return
    charge_id = await _find_charge(till, message, result.charge_id, result.charge_key)
    if charge_id is None:
        return
    await _flag_refund(till, message, charge_id, result)


async def _flag_refund(till: Till, message: Message, charge_id: UUID, result: RefundResult) -> None:
    """A refund of our charge that nobody asked for here: nothing is booked, operators are told."""
    async with till.database.read() as session:
        charge = await session.get_one(Transaction, charge_id)
    async with till.work() as work:
        account = (await work.lock_accounts([charge.account_id]))[charge.account_id]
        if not await note_heard(work, Heard(message, UNKNOWN)):
            return
        await raise_notice(
            work,
            account,
            "REFUND_UNKNOWN",
            message.subject,
            severity=NoticeSeverity.CRITICAL,
            params={
                "refund": message.subject,
                "charge": charge.description,
                "toldMinor": result.amount_minor,
                "toldCurrency": result.currency,
            },
            for_operators=True,
            dismissible=True,
        )


async def _hear_dispute(till: Till, message: Message) -> None:
    facts = await till.processor.look_up_dispute(message.subject)
    if facts is None:
        await _note_apart(till, message, NOT_OURS)
        return
    charge_id = await _find_charge(till, message, facts.charge_id, facts.charge_key)
    if charge_id is not None:
        await record_dispute(till, charge_id, facts, Heard(message))


async def _find_charge(till: Till, message: Message, processor_id: str, key: str | None) -> UUID | None:
    """The charge that a dispute or a refund is of, with its end written down before; none for what is not ours.

    Where nobody knows yet that it went through, that is found out first. A message that comes too early even for that
    is refused, so that it comes again.
    """
    charge_id = await _find_transaction(till, TransactionKind.CHARGE, processor_id, key)
    if charge_id is None:
        if key is not None:
            log.error("the processor tells of a charge %s for %s, which is unknown", processor_id, key)
        await _note_apart(till, message, NOT_OURS if key is None else UNKNOWN)
        return None
    if not await _has_succeeded(till, charge_id):
        result = await till.processor.look_up(processor_id)
        if result is not None:
            await record_result(till, charge_id, result)
        if not await _has_succeeded(till, charge_id):
            raise ProcessorFailed(f"the charge {charge_id} is not known to have gone through yet")
    return charge_id


async def _has_succeeded(till: Till, charge_id: UUID) -> bool:
    async with till.database.read() as session:
        return (await session.get_one(Transaction, charge_id)).status is TransactionStatus.SUCCEEDED


async def _hear_method(till: Till, message: Message) -> None:
    async with till.database.read() as session:
        method = await session.scalar(
            select(PaymentMethod).where(
                PaymentMethod.processor_token == message.subject, PaymentMethod.removed_at.is_(None)
            )
        )
    if method is None:
        await _note_apart(till, message, NOT_OURS)
        return
    facts = await till.processor.read_method(message.subject)
    async with till.work() as work:
        account = (await work.lock_accounts([method.account_id]))[method.account_id]
        if await note_heard(work, Heard(message)):
            row = await work.session.get_one(PaymentMethod, method.id)
            await refresh_method(work, account, row, facts)


async def _find_transaction(till: Till, kind: TransactionKind, processor_id: str, key: str | None) -> UUID | None:
    """Ours by the processor's id, or by our own key where the answer with that id did not reach us yet."""
    by_key = [] if key is None else [Transaction.processor_key == key]
    async with till.database.read() as session:
        found: UUID | None = await session.scalar(
            select(Transaction.id)
            .where(Transaction.kind == kind, or_(Transaction.processor_id == processor_id, *by_key))
            .limit(1)
        )
    return found


async def _note_apart(till: Till, message: Message, outcome: str) -> None:
    """Nothing follows from it. What should be ours and is not is told by the audit."""
    async with till.work() as work:
        await note_heard(work, Heard(message, outcome))
