"""The embedded sandbox processor: the published test cards, by their tokens. It keeps its charges in the database."""

import hashlib
from datetime import datetime

from sqlalchemy import select

from ..database import Actor, Database
from ..models import FailureCode, PaymentMethodKind, SandboxCharge, TransactionStatus
from ..services.ports import ChargeOrder, ChargeResult, ChargeStatus, MethodFacts

PROCESSOR = Actor(name="system:sandbox_processor", origin="sandbox")

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


class SandboxProcessor:
    """Collects nothing, and answers as the test card says. The cardholder confirms as soon as they are asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_method(self, token: str) -> MethodFacts | None:
        """A test card by its token."""
        if token not in CARDS:
            return None
        brand, last4 = CARDS[token]
        return MethodFacts(
            kind=PaymentMethodKind.CARD, brand=brand, last4=last4, exp_month=12, exp_year=self._now().year + 4
        )

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Charge a test card; the same key gives the same charge again."""
        status, failure = _decide(order.token, on_session=order.on_session)
        async with self._database.work(PROCESSOR) as work:
            await work.insert_or_ignore(
                SandboxCharge,
                [
                    {
                        "key": order.key,
                        "processor_id": "ch_" + hashlib.sha256(order.key.encode()).hexdigest()[:24],
                        "token": order.token,
                        "currency": order.currency,
                        "amount_minor": order.amount_minor,
                        "status": status,
                        "failure_code": failure,
                        "created_at": self._now(),
                    }
                ],
            )
            return _result(await work.session.get_one(SandboxCharge, order.key))

    async def find(self, key: str) -> ChargeResult | None:
        """What became of the charge with a key."""
        async with self._database.read() as session:
            charge = await session.get(SandboxCharge, key)
        return None if charge is None else _result(charge)

    async def look_up(self, processor_id: str) -> ChargeResult:
        """What became of a charge. Asking after one that waits for the cardholder is their confirmation."""
        async with self._database.work(PROCESSOR) as work:
            charge = (
                await work.session.scalars(select(SandboxCharge).where(SandboxCharge.processor_id == processor_id))
            ).one()
            if charge.status is TransactionStatus.REQUIRES_ACTION:
                charge.failure_code = AFTER_AUTHENTICATION[charge.token]
                charge.status = TransactionStatus.FAILED if charge.failure_code else TransactionStatus.SUCCEEDED
            return _result(charge)

    async def cancel(self, processor_id: str) -> ChargeResult:
        """Give up a charge that waits for the cardholder."""
        async with self._database.work(PROCESSOR) as work:
            charge = (
                await work.session.scalars(select(SandboxCharge).where(SandboxCharge.processor_id == processor_id))
            ).one()
            if charge.status is TransactionStatus.REQUIRES_ACTION:
                charge.status = TransactionStatus.CANCELED
            return _result(charge)

    def _now(self) -> datetime:
        return self._database.clock.now()


def _decide(token: str, *, on_session: bool) -> tuple[TransactionStatus, FailureCode | None]:
    if token in AFTER_AUTHENTICATION:
        if on_session:
            return TransactionStatus.REQUIRES_ACTION, None
        return TransactionStatus.FAILED, FailureCode.AUTHENTICATION_REQUIRED
    failure = DECLINES.get(token, None if token in CARDS else FailureCode.INCORRECT_DETAILS)
    return (TransactionStatus.FAILED if failure else TransactionStatus.SUCCEEDED), failure


def _result(charge: SandboxCharge) -> ChargeResult:
    waits = charge.status is TransactionStatus.REQUIRES_ACTION
    return ChargeResult(
        status=STATUSES[charge.status],
        processor_id=charge.processor_id,
        amount_minor=charge.amount_minor,
        currency=charge.currency,
        failure=charge.failure_code,
        client_secret=f"{charge.processor_id}_secret" if waits else None,
    )
