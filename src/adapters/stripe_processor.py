"""Stripe, by its own SDK. Loaded only where it is configured: the SDK takes half a second."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any, TypeVar

import stripe
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..models import FailureCode, PaymentMethodKind
from ..services.ports import (
    CardRefused,
    ChargeOrder,
    ChargeResult,
    ChargeStatus,
    DisputeFacts,
    DisputeStatus,
    MethodFacts,
    ProcessorFailed,
    RefundOrder,
    RefundOutcome,
    RefundResult,
    Setup,
)
from .stripe_amounts import from_stripe, to_stripe
from .stripe_declines import failure_of

KEY = "plafond_key"
"""Where an object's metadata has the key that it was asked for with."""
SESSION = "plafond_session"
OFF_SESSION = "off"
"""What the metadata says of a charge without the cardholder: nobody is there to confirm it."""
PAGE = 100
MAX_PAGES = 50
MISSING = 404
KNOWN_TO_HAVE_DONE_NOTHING = (400, MISSING)

REFUNDS = {
    "pending": RefundOutcome.PENDING,
    "requires_action": RefundOutcome.PENDING,
    "succeeded": RefundOutcome.SUCCEEDED,
    "failed": RefundOutcome.FAILED,
    "canceled": RefundOutcome.FAILED,
}
DISPUTES = {
    "warning_needs_response": DisputeStatus.OPEN,
    "warning_under_review": DisputeStatus.OPEN,
    "needs_response": DisputeStatus.OPEN,
    "under_review": DisputeStatus.OPEN,
    "appeal_needs_response": DisputeStatus.OPEN,
    "appeal_under_review": DisputeStatus.OPEN,
    "warning_closed": DisputeStatus.WON,
    "won": DisputeStatus.WON,
    "prevented": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}

T = TypeVar("T")
S = TypeVar("S", bound=stripe.StripeObject)
log = logging.getLogger("plafond.stripe")

# By default each call would tell Stripe about this machine, and a log that shows details would show whole answers, with
# the secrets by which cardholders confirm.
stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)


class _Facts(BaseModel):
    """What we read of an answer. An answer without it is none."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class _Trouble(_Facts):
    code: str | None = None
    decline_code: str | None = None


class _Outcome(_Facts):
    reason: str | None = None


class _Charge(_Facts):
    status: str
    failure_code: str | None = None
    outcome: _Outcome | None = None
    payment_intent: str | None = None


class _Redirect(_Facts):
    url: str | None = None


class _NextAction(_Facts):
    redirect_to_url: _Redirect | None = None


class _Intent(_Facts):
    id: str
    status: str
    amount: int
    amount_received: int | None = None
    currency: str
    client_secret: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    next_action: _NextAction | None = None
    last_payment_error: _Trouble | None = None
    latest_charge: _Charge | str | None = None


class _Refund(_Facts):
    id: str
    status: str
    amount: int
    currency: str
    charge: str | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class _Dispute(_Facts):
    id: str
    status: str
    amount: int
    currency: str
    charge: str
    payment_intent: str | None = None


class _Card(_Facts):
    brand: str
    last4: str
    exp_month: int
    exp_year: int


class _Method(_Facts):
    id: str
    type: str
    card: _Card | None = None
    customer: str | None = None


class _Named(_Facts):
    id: str


class _Entered(_Facts):
    client_secret: str


F = TypeVar("F", bound=_Facts)


class StripeProcessor:
    """Collects by PaymentIntents, whose ids are the processor's ids of charges.

    An intent that failed is canceled before it is told of: an open one could be paid later, by whoever has its secret.
    """

    def __init__(
        self,
        secret_key: str,
        *,
        base_url: str | None = None,
        publishable_key: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._publishable_key = publishable_key
        self._timeout_s = timeout_s
        self._http = stripe.HTTPXClient(timeout=timeout_s)
        # Whoever asked asks again, with the same key: the SDK need not.
        client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base_url.rstrip("/")} if base_url else None,
            http_client=self._http,
            max_network_retries=0,
        )
        self._api = client.v1

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it so

    async def open_customer(self, key: str, name: str) -> str:
        """The customer of an account. The name is told apart: with another one the key would not fit any more."""
        made = await self._read(
            _Named, self._api.customers.create_async({"metadata": {KEY: key}}, {"idempotency_key": key})
        )
        await self._read(_Named, self._api.customers.update_async(made.id, {"name": name[:256]}))
        return made.id

    async def open_setup(self, customer: str) -> Setup:
        """A SetupIntent for Stripe's own script."""
        entered = await self._read(
            _Entered,
            self._api.setup_intents.create_async(
                {"customer": customer, "usage": "off_session", "allowed_payment_method_types": ["card"]}
            ),
        )
        return Setup(client_secret=entered.client_secret, publishable_key=self._publishable_key)

    async def attach_method(self, customer: str, token: str) -> MethodFacts | None:
        """Bind a payment method to a customer. A test card's token becomes a method of its own."""
        try:
            method = await self._ask(_Method, self._api.payment_methods.attach_async(token, {"customer": customer}))
        except stripe.CardError as refused:
            decline_code = None if refused.error is None else getattr(refused.error, "decline_code", None)
            raise CardRefused(failure_of(decline_code, refused.code)) from refused
        except stripe.InvalidRequestError as refused:
            if refused.param == "customer":
                raise _failed(refused) from refused
            found = await self._find(_Method, self._api.payment_methods.retrieve_async(token))
            return _facts(found) if found is not None and found.customer == customer else None
        return _facts(method)

    async def read_method(self, token: str) -> MethodFacts | None:
        """A payment method; one that belongs to no customer cannot be charged any more."""
        method = await self._find(_Method, self._api.payment_methods.retrieve_async(token))
        return None if method is None or method.customer is None else _facts(method)

    async def detach_method(self, token: str) -> None:
        """Unbind a payment method. One that is not bound stays so."""
        try:
            await self._ask(_Named, self._api.payment_methods.detach_async(token))
        except stripe.InvalidRequestError as refused:
            method = await self._find(_Method, self._api.payment_methods.retrieve_async(token))
            if method is not None and method.customer is not None:
                raise _failed(refused) from refused

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Make and confirm a PaymentIntent under the order's key."""
        amount = to_stripe(order.amount_minor, order.currency)
        if amount is None:
            log.error("%s cannot be charged: Stripe does not know such an amount of %s", order.key, order.currency)
            return _refused(order, FailureCode.PROCESSOR_ERROR)
        metadata = {KEY: order.key} if order.on_session else {KEY: order.key, SESSION: OFF_SESSION}
        try:
            answer = await self._call(
                self._api.payment_intents.create_async(
                    {
                        "amount": amount,
                        "currency": order.currency.lower(),
                        "customer": order.customer,
                        "payment_method": order.token,
                        "allowed_payment_method_types": ["card"],
                        "confirm": True,
                        "off_session": not order.on_session,
                        "description": order.description,
                        "metadata": metadata,
                    },
                    {"idempotency_key": order.key},
                )
            )
        except stripe.CardError as declined:
            return await self._note_decline(order, declined)
        except stripe.InvalidRequestError as refused:
            log.error("%s was refused: %s", order.key, _told(refused))
            # Stripe forgets keys after a day: this may be a late repetition of a call that did something.
            found = None if refused.param == "customer" else await self.find(order)
            if found is not None:
                return found
            is_unknown = refused.param in ("payment_method", "customer") or refused.http_status == MISSING
            return _refused(order, FailureCode.INCORRECT_DETAILS if is_unknown else FailureCode.PROCESSOR_ERROR)
        intent = _parse(_Intent, answer.to_dict())
        if _is_repeated(answer):
            intent = await self._read(_Intent, self._retrieve(intent.id))
        return await self._settle(intent)

    async def find(self, order: ChargeOrder) -> ChargeResult | None:
        """Look through the customer's PaymentIntents, the newest first. (Stripe's search lags, so it is not used.)"""
        async for row in self._list(self._api.payment_intents.list_async, {"customer": order.customer}):
            intent = _parse(_Intent, row)
            if intent.metadata.get(KEY) == order.key:
                return await self._settle(intent)
        return None

    async def look_up(self, processor_id: str) -> ChargeResult | None:
        """Read a PaymentIntent."""
        intent = await self._find(_Intent, self._retrieve(processor_id))
        return None if intent is None else await self._settle(intent)

    async def cancel(self, processor_id: str) -> ChargeResult:
        """Cancel a PaymentIntent; what has an end already stays as it is."""
        return _result(await self._give_up(processor_id))

    async def refund(self, order: RefundOrder) -> RefundResult:
        """Pay back a part of a PaymentIntent. What Stripe refuses, such as too much, failed."""
        amount = to_stripe(order.amount_minor, order.currency)
        if amount is None:
            log.error("%s cannot be refunded: Stripe does not know such an amount of %s", order.key, order.currency)
            return _no_refund(order)
        try:
            answer = await self._call(
                self._api.refunds.create_async(
                    {"payment_intent": order.charge_id, "amount": amount, "metadata": {KEY: order.key}},
                    {"idempotency_key": order.key},
                )
            )
        except (stripe.CardError, stripe.InvalidRequestError) as refused:
            log.error("%s was refused: %s", order.key, _told(refused))
            is_unknown = refused.http_status == MISSING or refused.code == "resource_missing"
            found = None if is_unknown else await self.find_refund(order)
            return found or _no_refund(order)
        refund = _parse(_Refund, answer.to_dict())
        if _is_repeated(answer):
            refund = await self._read(_Refund, self._api.refunds.retrieve_async(refund.id))
        return await self._tell_refund(refund)

    async def find_refund(self, order: RefundOrder) -> RefundResult | None:
        """Look through the refunds of a PaymentIntent."""
        async for row in self._list(self._api.refunds.list_async, {"payment_intent": order.charge_id}):
            refund = _parse(_Refund, row)
            if refund.metadata.get(KEY) == order.key:
                return await self._tell_refund(refund)
        return None

    async def look_up_refund(self, processor_id: str) -> RefundResult | None:
        """Read a refund."""
        refund = await self._find(_Refund, self._api.refunds.retrieve_async(processor_id))
        if refund is None:
            return None
        told = await self._tell_refund(refund)
        return told if KEY in refund.metadata else replace(told, charge_key=await self._key_of(told.charge_id))

    async def look_up_dispute(self, processor_id: str) -> DisputeFacts | None:
        """Read a dispute. It is told of by its PaymentIntent, as everything is."""
        dispute = await self._find(_Dispute, self._api.disputes.retrieve_async(processor_id))
        if dispute is None:
            return None
        charge_id = dispute.payment_intent or await self._intent_of(dispute.charge)
        return DisputeFacts(
            processor_id=dispute.id,
            charge_id=charge_id,
            charge_key=await self._key_of(charge_id),
            status=_known(DISPUTES, dispute.status),
            amount_minor=_minor(dispute.amount, dispute.currency),
            currency=dispute.currency.upper(),
        )

    async def _tell_refund(self, refund: _Refund) -> RefundResult:
        return RefundResult(
            status=_known(REFUNDS, refund.status),
            processor_id=refund.id,
            charge_id=refund.payment_intent or await self._intent_of(refund.charge or ""),
            amount_minor=_minor(refund.amount, refund.currency),
            currency=refund.currency.upper(),
        )

    async def _intent_of(self, charge_id: str) -> str:
        """The intent of a charge. One without was not made by us, and we do not know it by any id."""
        charge = await self._read(_Charge, self._api.charges.retrieve_async(charge_id))
        return charge.payment_intent or charge_id

    async def _key_of(self, intent_id: str) -> str | None:
        """The key that an intent was asked for with; none where somebody else made it."""
        intent = await self._find(_Intent, self._retrieve(intent_id))
        return None if intent is None else intent.metadata.get(KEY)

    def _retrieve(self, intent_id: str) -> Awaitable[stripe.PaymentIntent]:
        return self._api.payment_intents.retrieve_async(intent_id, {"expand": ["latest_charge"]})

    async def _note_decline(self, order: ChargeOrder, declined: stripe.CardError) -> ChargeResult:
        """What came of a charge that a bank declined: the error has the intent as it was then."""
        error = declined.error
        intent = None if error is None else getattr(error, "payment_intent", None)
        if intent is None:
            found = await self.find(order)
            if found is None:
                raise _failed(declined)
            return found
        canceled = await self._give_up(_parse(_Named, intent.to_dict()).id)
        return _result(canceled, failure_of(getattr(error, "decline_code", None), declined.code))

    async def _settle(self, intent: _Intent) -> ChargeResult:
        """What an intent came to. One that only waits for another try is given up first."""
        waits_for_nobody = intent.status == "requires_action" and intent.metadata.get(SESSION) == OFF_SESSION
        if waits_for_nobody or intent.status in ("requires_payment_method", "requires_confirmation"):
            return _result(await self._give_up(intent.id), _failure(intent))
        return _result(intent)

    async def _give_up(self, intent_id: str) -> _Intent:
        """Cancel an intent. Where that is refused it had an end before, and that counts."""
        try:
            return await self._ask(
                _Intent, self._api.payment_intents.cancel_async(intent_id, {"expand": ["latest_charge"]})
            )
        except stripe.InvalidRequestError as refused:
            intent = await self._read(_Intent, self._retrieve(intent_id))
            if intent.status not in ("succeeded", "canceled"):
                raise _failed(refused) from refused
            return intent

    async def _list(self, call: Any, params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """All objects of a list. One that is not complete does not prove that something is missing."""
        params = {**params, "limit": PAGE}
        for _ in range(MAX_PAGES):
            page = await self._dump(call(params))
            rows = page.get("data")
            if not isinstance(rows, list) or not isinstance(page.get("has_more"), bool):
                raise ProcessorFailed("a list of Stripe could not be read")
            for row in rows:
                yield row
            if not page["has_more"]:
                return
            params["starting_after"] = _parse(_Named, rows[-1]).id if rows else None
        raise ProcessorFailed("a list of Stripe is too long to be sure of")

    async def _find(self, kind: type[F], call: Awaitable[stripe.StripeObject]) -> F | None:
        """An object, or none where Stripe has no such one."""
        try:
            return await self._ask(kind, call)
        except stripe.InvalidRequestError as refused:
            if refused.http_status == MISSING:
                return None
            raise _failed(refused) from refused

    async def _read(self, kind: type[F], call: Awaitable[stripe.StripeObject]) -> F:
        """An object that is there."""
        try:
            return await self._ask(kind, call)
        except (stripe.CardError, stripe.InvalidRequestError) as refused:
            raise _failed(refused) from refused

    async def _ask(self, kind: type[F], call: Awaitable[stripe.StripeObject]) -> F:
        """The answer to a call. A refusal by which nothing was done is raised as it is."""
        return _parse(kind, (await self._call(call)).to_dict())

    async def _dump(self, call: Awaitable[stripe.StripeObject]) -> dict[str, Any]:
        try:
            return (await self._call(call)).to_dict()
        except (stripe.CardError, stripe.InvalidRequestError) as refused:
            raise _failed(refused) from refused

    async def _call(self, call: Awaitable[S]) -> S:
        try:
            # The client's own limit is for each read: an answer in drops would never end.
            async with asyncio.timeout(self._timeout_s):
                answer = await call
        except stripe.CardError:
            raise
        except stripe.InvalidRequestError as refused:
            # Without the body of an error it was not Stripe that answered.
            if refused.http_status in KNOWN_TO_HAVE_DONE_NOTHING and refused.error is not None:
                raise
            raise _failed(refused) from refused
        except stripe.StripeError as error:
            raise _failed(error) from error
        except TimeoutError as error:
            raise ProcessorFailed("Stripe did not answer in time") from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # The SDK builds objects of whatever came.
            raise ProcessorFailed("an answer of Stripe could not be read") from error
        if not isinstance(answer, stripe.StripeObject):
            raise ProcessorFailed("an answer of Stripe is no object")
        return answer


def _told(error: stripe.StripeError) -> str:
    """What may be logged of an error: its text may quote a token."""
    param = getattr(error, "param", None)
    return f"{type(error).__name__} {error.http_status} {error.code} {param} {error.request_id}"


def _failed(error: stripe.StripeError) -> ProcessorFailed:
    return ProcessorFailed(f"Stripe: {_told(error)}")


def _parse(kind: type[F], answer: dict[str, Any]) -> F:
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        raise ProcessorFailed(f"an answer of Stripe could not be read: {error}") from error


def _is_repeated(answer: stripe.StripeObject) -> bool:
    """Whether this was answered before, to a call with the same key: the state is the one of then."""
    headers = answer.last_response.headers if answer.last_response is not None else {}
    return str(headers.get("idempotent-replayed")).lower() == "true"


def _known(table: dict[str, T], status: str) -> T:
    if status not in table:
        raise ProcessorFailed(f"Stripe tells of a status {status!r}")
    return table[status]


def _minor(amount: int, currency: str) -> int:
    try:
        return from_stripe(amount, currency.upper())
    except ValueError as error:
        raise ProcessorFailed(f"Stripe tells of an odd amount: {error}") from error


def _facts(method: _Method) -> MethodFacts | None:
    if method.card is None:
        return None
    return MethodFacts(
        token=method.id,
        kind=PaymentMethodKind.CARD,
        brand=method.card.brand,
        last4=method.card.last4,
        exp_month=method.card.exp_month,
        exp_year=method.card.exp_year,
    )


def _failure(intent: _Intent) -> FailureCode | None:
    """Why an intent failed; none where nothing says that it did."""
    charge = intent.latest_charge
    if intent.last_payment_error is not None:
        return failure_of(intent.last_payment_error.decline_code, intent.last_payment_error.code)
    if isinstance(charge, _Charge) and charge.status == "failed":
        return failure_of(charge.outcome.reason if charge.outcome else None, charge.failure_code)
    if intent.metadata.get(SESSION) == OFF_SESSION:
        return FailureCode.AUTHENTICATION_REQUIRED
    return None


def _result(intent: _Intent, failure: FailureCode | None = None) -> ChargeResult:
    """What an intent came to, where it came to something. `failure` is why it was canceled, as far as that is known."""
    if intent.status == "canceled":
        failure = failure or _failure(intent)
        status = ChargeStatus.CANCELED if failure is None else ChargeStatus.DECLINED
    else:
        failure = None
        status = _known(
            {"succeeded": ChargeStatus.SUCCEEDED, "requires_action": ChargeStatus.REQUIRES_ACTION}, intent.status
        )
    is_paid = status is ChargeStatus.SUCCEEDED
    received = intent.amount if intent.amount_received is None else intent.amount_received
    waits = status is ChargeStatus.REQUIRES_ACTION
    redirect = intent.next_action.redirect_to_url if waits and intent.next_action else None
    return ChargeResult(
        status=status,
        processor_id=intent.id,
        amount_minor=_minor(received if is_paid else intent.amount, intent.currency),
        currency=intent.currency.upper(),
        failure=failure,
        client_secret=intent.client_secret if waits else None,
        url=redirect.url if redirect else None,
    )


def _refused(order: ChargeOrder, failure: FailureCode) -> ChargeResult:
    """A charge that was never made, and so has no id."""
    return ChargeResult(
        status=ChargeStatus.DECLINED,
        processor_id="",
        amount_minor=order.amount_minor,
        currency=order.currency,
        failure=failure,
    )


def _no_refund(order: RefundOrder) -> RefundResult:
    return RefundResult(
        status=RefundOutcome.FAILED,
        processor_id=None,
        charge_id=order.charge_id,
        amount_minor=order.amount_minor,
        currency=order.currency,
    )
