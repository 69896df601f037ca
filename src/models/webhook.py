"""Webhooks out: where events are sent, what waits to be sent, and what was answered."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity


class EndpointStatus(StrEnum):
    """Whether an endpoint is sent to."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class DisabledReason(StrEnum):
    """Why an endpoint is not sent to."""

    BY_HAND = "BY_HAND"
    GONE = "GONE"
    """It answered 410."""
    FAILING = "FAILING"
    """Nothing was delivered for days."""


class WebhookEndpoint(Entity, kw_only=True, eq=False):
    """An address that events are sent to, of one account or (an operator's) of all."""

    __tablename__ = "webhook_endpoint"
    __table_args__ = (Index(None, "account_id"),)

    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"), default=None)
    url: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    event_kinds: Mapped[list[Any]]
    """The kinds it wants, sorted; all where it is empty."""
    query: Mapped[str | None] = mapped_column(default=None)
    """A GraphQL document whose answer is the payload; the default payload when there is none."""
    secret: Mapped[str] = mapped_column(repr=False)
    """What its messages are signed with. It has to be known to sign, so it is not hashed; it is shown once."""
    previous_secret: Mapped[str | None] = mapped_column(default=None, repr=False)
    previous_secret_until: Mapped[datetime | None] = mapped_column(default=None)
    status: Mapped[EndpointStatus] = mapped_column(default=EndpointStatus.ENABLED)
    disabled_reason: Mapped[DisabledReason | None] = mapped_column(default=None)
    position: Mapped[int] = mapped_column(default=0)
    """It hears of the events behind this position: where the outbox stood when it began to want what it wants."""
    failures: Mapped[int] = mapped_column(default=0)
    """How many tries in a row failed, of whatever delivery."""
    failing_since: Mapped[datetime | None] = mapped_column(default=None)
    """When the first of them failed."""
    rests_until: Mapped[datetime | None] = mapped_column(default=None)
    """Nothing is tried before: what failed just now is not asked again and again, one delivery after the other."""
    leased_until: Mapped[datetime | None] = mapped_column(default=None)
    lease: Mapped[UUID | None] = mapped_column(default=None)
    """Who sends to it now: one at a time, in order. Whoever lost the lease writes nothing any more."""
    created_by: Mapped[str]
    """Who, as `member:ID`, `operator:ID` or `api_key:ID`."""
    removed_at: Mapped[datetime | None] = mapped_column(default=None)


class DeliveryStatus(StrEnum):
    """How far a delivery is."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class WebhookDelivery(Entity, kw_only=True, eq=False):
    """One event on its way to one endpoint: the same id and body over all tries."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index(
            "ix_webhook_delivery_waiting",
            "endpoint_id",
            "position",
            "next_try_at",
            sqlite_where=text("status = 'PENDING'"),
            postgresql_where=text("status = 'PENDING'"),
        ),
        Index(None, "endpoint_id", "created_at"),
    )

    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"), index=True)
    """The endpoint's, whose log it stands in: none of what an operators' endpoint hears."""
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoint.id"))
    event_id: Mapped[UUID]
    """The event's id, which is the message's; of a test one of its own."""
    kind: Mapped[str]
    position: Mapped[int] = mapped_column(default=0)
    """The event's place, in whose order first tries are made; 0 of a test."""
    body: Mapped[str | None] = mapped_column(default=None)
    """What is sent, written before the first try."""
    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.PENDING)
    tries: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime]
    give_up_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None] = mapped_column(default=None)


class WebhookAttempt(Base, kw_only=True, eq=False):
    """One try of a delivery, and what came back."""

    __tablename__ = "webhook_attempt"

    delivery_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_delivery.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"), index=True)
    at: Mapped[datetime]
    duration_ms: Mapped[int]
    status_code: Mapped[int | None] = mapped_column(default=None)
    answer: Mapped[str | None] = mapped_column(default=None)
    """The beginning of what was answered."""
    failure: Mapped[str | None] = mapped_column(default=None)
    """Why it did not succeed; none where it did."""
