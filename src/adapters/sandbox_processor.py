"""The embedded sandbox processor: the published test cards, by their tokens. It keeps what it did in the database.

Towards each customer it behaves as it is told to, see `set_conduct`: it answers or not, and sends messages or not.
"""

import asyncio
import hashlib
import secrets
from dataclasses import replace

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import Actor, Database, Work
from ..models import (
    FailureCode,
    PaymentMethodKind,
    SandboxAnswers,
    SandboxCharge,
    SandboxConduct,
    SandboxDispute,
    SandboxMessage,
    SandboxMessages,
    SandboxRefund,
    TransactionStatus,
)
from ..services.ports import (
    ChargeOrder,
    ChargeResult,
    ChargeStatus,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Message,
    MethodFacts,
    ProcessorFailed,
    RefundOrder,
    RefundOutcome,
    RefundResult,
    Setup,
)
from ..services.rules.money import minimum_of

PROCESSOR = Actor(name="system:sandbox_processor", origin="sandbox")

DISPUTED = "pm_card_createDispute"
REFUNDED_LATER = "pm_card_pendingRefund"
NOT_REFUNDED = "pm_card_refundFail"
CARDS = {
    "pm_card_visa": ("visa", "4242"),
    "pm_card_visa_debit": ("visa", "5556"),
    "pm_card_mastercard": ("mastercard", "4444"),
    "pm_card_amex": ("amex", "0005"),
    "pm_card_jcb": ("jcb", "0505"),
    "pm_card_chargeDeclined": ("visa", "0002"),
    "pm_card_chargeCustomerFail": ("visa", "0341"),
    "pm_card_chargeDeclinedInsufficientFunds": ("visa", "9995"),
    "pm_card_chargeDeclinedExpiredCard": ("visa", "0069"),
    "pm_card_chargeDeclinedIncorrectCvc": ("visa", "0127"),
    "pm_card_chargeDeclinedStolenCard": ("visa", "9979"),
    "pm_card_chargeDeclinedProcessingError": ("visa", "0119"),
    "pm_card_authenticationRequired": ("visa", "3184"),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": ("visa", "8260"),
    DISPUTED: ("visa", "0259"),
    REFUNDED_LATER: ("visa", "7726"),
    NOT_REFUNDED: ("visa", "5126"),
}
"""Brand and last four digits of each test card."""

DECLINES = {
    "pm_card_chargeDeclined": FailureCode.CARD_DECLINED,
    "pm_card_chargeCustomerFail": FailureCode.CARD_DECLINED,
    "pm_card_chargeDeclinedInsufficientFunds": FailureCode.INSUFFICIENT_FUNDS,
    "pm_card_chargeDeclinedExpiredCard": FailureCode.EXPIRED_CARD,
    "pm_card_chargeDeclinedIncorrectCvc": FailureCode.INCORRECT_DETAILS,
    "pm_card_chargeDeclinedStolenCard": FailureCode.STOLEN_OR_CLOSED,
    "pm_card_chargeDeclinedProcessingError": FailureCode.PROCESSOR_ERROR,
}
AFTER_AUTHENTICATION = {
    "pm_card_authenticationRequired": None,
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": FailureCode.INSUFFICIENT_FUNDS,
}
STATUSES = {
    TransactionStatus.SUCCEEDED: ChargeStatus.SUCCEEDED,
    TransactionStatus.FAILED: ChargeStatus.DECLINED,
    TransactionStatus.REQUIRES_ACTION: ChargeStatus.REQUIRES_ACTION,
    TransactionStatus.CANCELED: ChargeStatus.CANCELED,
}
REFUNDS = {
    TransactionStatus.PENDING: RefundOutcome.PENDING,
    TransactionStatus.SUCCEEDED: RefundOutcome.SUCCEEDED,
    TransactionStatus.FAILED: RefundOutcome.FAILED,
}
DISPUTES = {
    TransactionStatus.PENDING: DisputeStatus.OPEN,
    TransactionStatus.CANCELED: DisputeStatus.WON,
    TransactionStatus.SUCCEEDED: DisputeStatus.LOST,
}


class SandboxProcessor:
    """Collects nothing, and answers as the test card says. The cardholder confirms as soon as they are asked."""

    def __init__(self, database: Database, *, hangs_for_s: float = 1.0) -> None:
        self._database = database
        self._hangs_for_s = hangs_for_s

    async def open_customer(self, key: str, name: str) -> str:  # noqa: ARG002
        """The id of an account follows from its key."""
        return _derive("cus_", key)

    async def open_setup(self, customer: str) -> Setup:
        """There is no script to enter a card with: a test card's token is all that it takes."""
        return Setup(client_secret=f"{_derive('seti_', customer)}_secret", publishable_key=None)

    async def attach_method(self, customer: str, token: str) -> MethodFacts | None:  # noqa: ARG002
        """A test card is everybody's, and charged by its published token."""
        return await self.read_method(token)

    async def read_method(self, token: str) -> MethodFacts | None:
        """A test card by its token."""
        if token not in CARDS:
            return None
        brand, last4 = CARDS[token]
        return MethodFacts(
            token=token,
            kind=PaymentMethodKind.CARD,
            brand=brand,
            last4=last4,
            exp_month=12,
            exp_year=self._database.clock.now().year + 4,
        )

    async def detach_method(self, token: str) -> None:
        """Nothing is kept of who has which card, so there is nothing to forget."""

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Charge a test card; the same key gives the same charge again."""
        conduct = await self._approach(order.customer)
        if order.amount_minor < minimum_of(order.currency):
            return _too_small(order)
        async with self._database.work(PROCESSOR) as work:
            charge = await work.session.get(SandboxCharge, order.key)
            if charge is None:
                charge = await _open_charge(work, conduct, order)
        _lose_answer(conduct, order.key)
        return _result(charge, conduct)

    async def find(self, order: ChargeOrder) -> ChargeResult | None:
        """What became of the charge with a key."""
        await self._approach(order.customer)
        async with self._database.read() as session:
            charge = await session.get(SandboxCharge, order.key)
        return None if charge is None else _result(charge)

    async def look_up(self, processor_id: str) -> ChargeResult | None:
        """What became of a charge. Asking after one that waits for the cardholder is their confirmation."""
        conduct = await self._approach_by_charge(processor_id)
        async with self._database.work(PROCESSOR) as work:
            charge = await _lock_charge(work, processor_id)
            if charge is None:
                return None
            if charge.status is TransactionStatus.REQUIRES_ACTION:
                charge.failure_code = AFTER_AUTHENTICATION[charge.token]
                charge.status = TransactionStatus.FAILED if charge.failure_code else TransactionStatus.SUCCEEDED
                await _tell_of_charge(work, conduct, charge)
            return _result(charge)

    async def cancel(self, processor_id: str) -> ChargeResult:
        """Give up a charge that waits for the cardholder."""
        conduct = await self._approach_by_charge(processor_id)
        async with self._database.work(PROCESSOR) as work:
            charge = await _lock_charge(work, processor_id)
            if charge is None:
                raise ProcessorFailed(f"there is no charge {processor_id}")
            if charge.status is TransactionStatus.REQUIRES_ACTION:
                charge.status = TransactionStatus.CANCELED
                await _tell_of_charge(work, conduct, charge)
            return _result(charge)

    async def refund(self, order: RefundOrder) -> RefundResult:
        """Pay back what is left of a charge, or less of it; the same key gives the same refund again."""
        conduct = await self._approach_by_charge(order.charge_id)
        async with self._database.work(PROCESSOR) as work:
            charge = await _lock_charge(work, order.charge_id)
            refund = None if charge is None else await _open_refund(work, conduct, charge, order)
        if refund is None:
            return RefundResult(
                status=RefundOutcome.FAILED,
                processor_id=None,
                charge_id=order.charge_id,
                amount_minor=order.amount_minor,
                currency=order.currency,
            )
        _lose_answer(conduct, order.key)
        return _refund_result(refund, order.currency, conduct)

    async def find_refund(self, order: RefundOrder) -> RefundResult | None:
        """What became of the refund with a key."""
        await self._approach_by_charge(order.charge_id)
        async with self._database.read() as session:
            refund = await session.get(SandboxRefund, order.key)
        return None if refund is None else _refund_result(refund, order.currency)

    async def look_up_refund(self, processor_id: str) -> RefundResult | None:
        """What became of a refund. The bank is done with it by the time that somebody asks after it."""
        async with self._database.read() as session:
            refund = await session.scalar(select(SandboxRefund).where(SandboxRefund.processor_id == processor_id))
        if refund is None:
            return None
        conduct = await self._approach_by_charge(refund.charge_id)
        async with self._database.work(PROCESSOR) as work:
            charge = await _lock_charge(work, refund.charge_id)
            assert charge is not None, "a refund is one of a charge"
            refund = await work.session.get_one(SandboxRefund, refund.key)
            await _end_refund(work, conduct, charge, refund)
            return replace(_refund_result(refund, charge.currency), charge_key=charge.key)

    async def look_up_dispute(self, processor_id: str) -> DisputeFacts | None:
        """How a dispute stands."""
        async with self._database.read() as session:
            row = (
                await session.execute(
                    select(SandboxDispute, SandboxCharge)
                    .join(SandboxCharge, SandboxCharge.processor_id == SandboxDispute.charge_id)
                    .where(SandboxDispute.processor_id == processor_id)
                )
            ).one_or_none()
        if row is None:
            return None
        dispute, charge = row
        await self._approach(charge.customer)
        return DisputeFacts(
            processor_id=dispute.processor_id,
            charge_id=charge.processor_id,
            status=DISPUTES[dispute.status],
            amount_minor=dispute.amount_minor,
            currency=charge.currency,
            charge_key=charge.key,
        )

    async def _approach(self, customer: str) -> SandboxConduct:
        """How the processor behaves towards a customer. One that hangs lets a call wait, and does nothing."""
        async with self._database.read() as session:
            conduct = await _read_conduct(session, customer)
        if conduct.answers is SandboxAnswers.HANGS:
            await asyncio.sleep(self._hangs_for_s)
            raise ProcessorFailed("the sandbox processor does not answer")
        return conduct

    async def _approach_by_charge(self, processor_id: str) -> SandboxConduct:
        async with self._database.read() as session:
            customer = await session.scalar(
                select(SandboxCharge.customer).where(SandboxCharge.processor_id == processor_id)
            )
        return await self._approach(customer or "")


async def set_conduct(work: Work, customer: str, answers: SandboxAnswers, messages: SandboxMessages) -> None:
    """Have the processor behave otherwise towards a customer from now on."""
    await work.upsert(SandboxConduct, [{"customer": customer, "answers": answers, "messages": messages}])


async def close_disputes(work: Work, customer: str, *, won: bool) -> int:
    """Let the banks decide the open disputes of a customer's charges. Gives how many there were."""
    conduct = await _read_conduct(work.session, customer)
    disputes = (
        await work.session.scalars(
            select(SandboxDispute)
            .join(SandboxCharge, SandboxCharge.processor_id == SandboxDispute.charge_id)
            .where(SandboxCharge.customer == customer, SandboxDispute.status == TransactionStatus.PENDING)
            .with_for_update(of=SandboxDispute)
        )
    ).all()
    for dispute in disputes:
        dispute.status = TransactionStatus.CANCELED if won else TransactionStatus.SUCCEEDED
        await _tell(work, conduct, EventKind.DISPUTE, dispute.processor_id, dispute.status)
    return len(disputes)


async def take_messages(database: Database, limit: int) -> list[Message]:
    """Messages to deliver now, in order; those that are to be shuffled after them, in any. Copies come as often.

    Each stays until all its copies are acknowledged: what is not, comes again.
    """
    async with database.read() as session:
        rows = await session.scalars(
            # Of one instant, a charge comes before its dispute: the kinds are in the order of the alphabet.
            select(SandboxMessage)
            .order_by(SandboxMessage.created_at, SandboxMessage.kind, SandboxMessage.id)
            .limit(limit)
        )
    ordered: list[Message] = []
    shuffled: list[Message] = []
    for row in rows:
        message = Message(id=row.id, kind=EventKind(row.kind), subject=row.subject, key=row.key)
        (shuffled if row.is_shuffled else ordered).extend([message] * row.copies)
    secrets.SystemRandom().shuffle(shuffled)
    return ordered + shuffled


async def acknowledge(database: Database, message: Message) -> None:
    """Say that a copy of a message was heard."""
    async with database.work(PROCESSOR) as work:
        await work.session.execute(
            update(SandboxMessage)
            .where(SandboxMessage.id == message.id)
            .values(copies=SandboxMessage.copies - 1)
            .execution_options(synchronize_session=False)
        )
        await work.session.execute(
            delete(SandboxMessage)
            .where(SandboxMessage.id == message.id, SandboxMessage.copies <= 0)
            .execution_options(synchronize_session=False)
        )


async def postpone(database: Database, message: Message) -> None:
    """Put a message that could not be heard at the end of the line, so that it holds no other up."""
    async with database.work(PROCESSOR) as work:
        await work.session.execute(
            update(SandboxMessage).where(SandboxMessage.id == message.id).values(created_at=work.clock.now())
        )


def _derive(prefix: str, key: str) -> str:
    """An id that follows from a key, and looks like one of the processor's."""
    return prefix + hashlib.sha256(key.encode()).hexdigest()[:24]


async def _read_conduct(session: AsyncSession, customer: str) -> SandboxConduct:
    return await session.get(SandboxConduct, customer) or SandboxConduct(
        customer=customer, answers=SandboxAnswers.NORMAL, messages=SandboxMessages.ONCE
    )


def _lose_answer(conduct: SandboxConduct, key: str) -> None:
    if conduct.answers is SandboxAnswers.LOST_AFTER_EFFECT:
        raise ProcessorFailed(f"the answer to {key} was lost on its way")


async def _lock_charge(work: Work, processor_id: str) -> SandboxCharge | None:
    return await work.session.scalar(
        select(SandboxCharge).where(SandboxCharge.processor_id == processor_id).with_for_update()
    )


async def _open_charge(work: Work, conduct: SandboxConduct, order: ChargeOrder) -> SandboxCharge:
    status, failure = _decide(order.token, on_session=order.on_session)
    row = {
        "key": order.key,
        "processor_id": _derive("ch_", order.key),
        "customer": order.customer,
        "token": order.token,
        "currency": order.currency,
        "amount_minor": order.amount_minor,
        "refunded_minor": 0,
        "status": status,
        "failure_code": failure,
        "created_at": work.clock.now(),
    }
    # Two calls with one key at the same time make one charge.
    await work.insert_or_ignore(SandboxCharge, [row])
    charge = await work.session.get_one(SandboxCharge, order.key)
    # Asking after a charge that waits is the cardholder's confirmation, so nobody is sent to do that.
    if charge.status is not TransactionStatus.REQUIRES_ACTION:
        await _tell_of_charge(work, conduct, charge)
    return charge


def _decide(token: str, *, on_session: bool) -> tuple[TransactionStatus, FailureCode | None]:
    if token in AFTER_AUTHENTICATION:
        if on_session:
            return TransactionStatus.REQUIRES_ACTION, None
        return TransactionStatus.FAILED, FailureCode.AUTHENTICATION_REQUIRED
    failure = DECLINES.get(token, None if token in CARDS else FailureCode.INCORRECT_DETAILS)
    return (TransactionStatus.FAILED if failure else TransactionStatus.SUCCEEDED), failure


async def _tell_of_charge(work: Work, conduct: SandboxConduct, charge: SandboxCharge) -> None:
    """Send word of a charge that has an end, and dispute it at once if its card does that."""
    await _tell(work, conduct, EventKind.CHARGE, charge.processor_id, charge.status, charge.key)
    if charge.token != DISPUTED or charge.status is not TransactionStatus.SUCCEEDED:
        return
    dispute = {
        "charge_id": charge.processor_id,
        "processor_id": _derive("dp_", charge.key),
        "amount_minor": charge.amount_minor,
        "status": TransactionStatus.PENDING,
        "created_at": work.clock.now(),
    }
    await work.insert_or_ignore(SandboxDispute, [dispute])
    await _tell(work, conduct, EventKind.DISPUTE, str(dispute["processor_id"]), TransactionStatus.PENDING)


async def _open_refund(
    work: Work, conduct: SandboxConduct, charge: SandboxCharge, order: RefundOrder
) -> SandboxRefund | None:
    """The refund of an order, made if there is none yet; none where that would be more than was paid."""
    refund = await work.session.get(SandboxRefund, order.key)
    if refund is not None:
        return refund
    left_minor = charge.amount_minor - charge.refunded_minor
    is_paid = charge.status is TransactionStatus.SUCCEEDED and charge.currency == order.currency
    if not is_paid or not 0 < order.amount_minor <= left_minor:
        return None
    is_later = charge.token == REFUNDED_LATER
    refund = SandboxRefund(
        key=order.key,
        processor_id=_derive("re_", order.key),
        charge_id=charge.processor_id,
        amount_minor=order.amount_minor,
        status=TransactionStatus.PENDING if is_later else TransactionStatus.SUCCEEDED,
        created_at=work.clock.now(),
    )
    work.session.add(refund)
    charge.refunded_minor += order.amount_minor
    await _tell(work, conduct, EventKind.REFUND, refund.processor_id, refund.status, refund.key)
    return refund


async def _end_refund(work: Work, conduct: SandboxConduct, charge: SandboxCharge, refund: SandboxRefund) -> None:
    """What the test card does to its refunds in the end."""
    before = refund.status
    if before is TransactionStatus.PENDING:
        refund.status = TransactionStatus.SUCCEEDED
    elif before is TransactionStatus.SUCCEEDED and charge.token == NOT_REFUNDED:
        refund.status = TransactionStatus.FAILED
        charge.refunded_minor -= refund.amount_minor
    if refund.status is not before:
        await _tell(work, conduct, EventKind.REFUND, refund.processor_id, refund.status, refund.key)


async def _tell(
    work: Work,
    conduct: SandboxConduct,
    kind: EventKind,
    subject: str,
    status: TransactionStatus,
    key: str | None = None,
) -> None:
    """Write down a message to be sent: one for each status that something comes to."""
    if conduct.messages is SandboxMessages.NONE:
        return
    is_shuffled = conduct.messages is SandboxMessages.TWICE_SHUFFLED
    row = {
        "id": _derive("evt_", f"{subject}:{status}"),
        "kind": kind,
        "subject": subject,
        "key": key,
        "copies": 2 if is_shuffled else 1,
        "is_shuffled": is_shuffled,
        "created_at": work.clock.now(),
    }
    await work.insert_or_ignore(SandboxMessage, [row])


def _too_small(order: ChargeOrder) -> ChargeResult:
    """A charge that was never made, and so has no id."""
    return ChargeResult(
        status=ChargeStatus.DECLINED,
        processor_id="",
        amount_minor=order.amount_minor,
        currency=order.currency,
        failure=FailureCode.PROCESSOR_ERROR,
    )


def _result(charge: SandboxCharge, conduct: SandboxConduct | None = None) -> ChargeResult:
    waits = charge.status is TransactionStatus.REQUIRES_ACTION
    return ChargeResult(
        status=STATUSES[charge.status],
        processor_id=charge.processor_id,
        amount_minor=charge.amount_minor + _off_by(conduct),
        currency=charge.currency,
        failure=charge.failure_code,
        client_secret=f"{charge.processor_id}_secret" if waits else None,
    )


def _refund_result(refund: SandboxRefund, currency: str, conduct: SandboxConduct | None = None) -> RefundResult:
    return RefundResult(
        status=REFUNDS[refund.status],
        processor_id=refund.processor_id,
        charge_id=refund.charge_id,
        amount_minor=refund.amount_minor + _off_by(conduct),
        currency=currency,
    )


def _off_by(conduct: SandboxConduct | None) -> int:
    """By how much an answer is wrong."""
    return 1 if conduct is not None and conduct.answers is SandboxAnswers.OTHER_AMOUNT else 0
