"""Stripe's messages: proved to be its own, and reduced to what is to be looked at. Loaded only with its SDK."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import stripe
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..services.ports import EventKind, Message
from .stripe_processor import KEY

TOLERANCE_S = 300
"""How old a message may be, or how far ahead of our clock: the SDK only asks for the first."""
MAX_HEADER_LENGTH = 1024
"""While a secret is exchanged there is a signature by each: that makes some 250 characters."""
HEADER = re.compile(r"t=([0-9]{1,12})(?:,v[0-9]=[0-9a-f]{1,128})+")

KINDS = {
    "payment_intent.succeeded": EventKind.CHARGE,
    "payment_intent.payment_failed": EventKind.CHARGE,
    "payment_intent.canceled": EventKind.CHARGE,
    "payment_intent.requires_action": EventKind.CHARGE,
    "payment_intent.processing": EventKind.CHARGE,
    "charge.refunded": EventKind.REFUND,
    "charge.refund.updated": EventKind.REFUND,
    "refund.created": EventKind.REFUND,
    "refund.updated": EventKind.REFUND,
    "refund.failed": EventKind.REFUND,
    "charge.dispute.created": EventKind.DISPUTE,
    "charge.dispute.updated": EventKind.DISPUTE,
    "charge.dispute.closed": EventKind.DISPUTE,
    "charge.dispute.funds_withdrawn": EventKind.DISPUTE,
    "charge.dispute.funds_reinstated": EventKind.DISPUTE,
    "payment_method.updated": EventKind.METHOD,
    "payment_method.automatically_updated": EventKind.METHOD,
    "payment_method.detached": EventKind.METHOD,
}
"""What an endpoint at Stripe should be made to send. All others are taken and mean nothing."""

Id = Annotated[str, Field(min_length=1, max_length=255)]


class MessageRefused(ValueError):
    """A message that was not proved to be Stripe's, or is none."""


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


class _Data(_Shape):
    object: dict[str, Any]


class _Event(_Shape):
    id: Id
    type: Id
    livemode: bool
    data: _Data


class _Subject(_Shape):
    id: Id
    metadata: dict[str, str] | None = None


class _Refunds(_Shape):
    data: list[_Subject] = Field(default_factory=list)


class _RefundedCharge(_Shape):
    refunds: _Refunds | None = None


class StripeMessages:
    """Reads messages that were signed with any of the secrets: during a rotation there are two."""

    def __init__(self, secrets: Sequence[str], *, is_live: bool) -> None:
        assert secrets, "without a secret nothing is proved"
        self._secrets = tuple(secrets)
        self._is_live = is_live

    def read(self, body: bytes, header: str | None, now: datetime) -> Message | None:
        """What a message is about; none where that is nothing to us. `MessageRefused` where it is not Stripe's."""
        self._check_signature(body, header, now)
        try:
            event = _Event.model_validate_json(body)
            if event.livemode is not self._is_live:
                return None  # of an account's other half, where money is real or is not
            return _read_event(event)
        except ValidationError as error:
            raise MessageRefused("it is not an event") from error

    def _check_signature(self, body: bytes, header: str | None, now: datetime) -> None:
        found = HEADER.fullmatch(header) if header and len(header) <= MAX_HEADER_LENGTH else None
        if found is None:
            raise MessageRefused("it is not signed")
        if abs(int(found[1]) - now.timestamp()) > TOLERANCE_S:
            raise MessageRefused("it is not of now")
        if not any(_is_signed(body, header, secret) for secret in self._secrets):
            raise MessageRefused("its signature is not Stripe's")


def _is_signed(body: bytes, header: str | None, secret: str) -> bool:
    try:
        # The SDK's own tolerance would be by the machine's clock.
        return bool(stripe.WebhookSignature.verify_header(body, header, secret, tolerance=None))
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False


def _read_event(event: _Event) -> Message | None:
    kind = KINDS.get(event.type)
    if kind is None:
        return None
    subject = _subject_of(event)
    if subject is None:
        return None
    key = (subject.metadata or {}).get(KEY) if kind in (EventKind.CHARGE, EventKind.REFUND) else None
    return Message(id=event.id, kind=kind, subject=subject.id, key=key)


def _subject_of(event: _Event) -> _Subject | None:
    if event.type != "charge.refunded":
        return _Subject.model_validate(event.data.object)
    # It is about a charge: older versions of the API list its refunds, the newest first. Newer ones leave them out,
    # and send `refund.created` as well.
    refunds = _RefundedCharge.model_validate(event.data.object).refunds
    return refunds.data[0] if refunds is not None and refunds.data else None
