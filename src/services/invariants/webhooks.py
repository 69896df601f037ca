"""I10: what the outbox tells of goes to each endpoint that wants it, and is delivered, waits for it, or is given up."""

from datetime import datetime, timedelta

from sqlalchemy import and_, exists, or_, select

from ...database import ReadSession
from ...models import (
    DeliveryStatus,
    EndpointStatus,
    OutboxEvent,
    OutboxReader,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from ..endpoints import READER
from ..events import EVENT_TYPES, is_for_tenants
from .reading import Findings, stream

GIVEN_UP_WITHIN = timedelta(days=1)
"""So long after its time a delivery may still wait to be given up."""


async def check_webhooks(session: ReadSession, found: Findings, now: datetime) -> None:
    """Each event that an endpoint wants has a delivery there, none waits beyond its time, and tries tell their end."""
    await _check_planned(session, found)
    overdue = (
        select(WebhookDelivery.account_id, WebhookDelivery.id, WebhookDelivery.give_up_at)
        .where(WebhookDelivery.status == DeliveryStatus.PENDING, WebhookDelivery.give_up_at < now - GIVEN_UP_WITHIN)
        .order_by(WebhookDelivery.id)
    )
    async for account_id, delivery_id, until in stream(session, overdue):
        found.add("I10", account_id, f"The webhook delivery {delivery_id} was to be given up at {until}, and waits.")
    taken = (
        select(WebhookAttempt.delivery_id)
        .where(WebhookAttempt.delivery_id == WebhookDelivery.id, WebhookAttempt.status_code.between(200, 299))
        .exists()
    )
    unproved = (
        select(WebhookDelivery.account_id, WebhookDelivery.id)
        .where(WebhookDelivery.status == DeliveryStatus.SUCCEEDED, ~taken)
        .order_by(WebhookDelivery.id)
    )
    async for account_id, delivery_id in stream(session, unproved):
        found.add("I10", account_id, f"The webhook delivery {delivery_id} is done, and no try of it succeeded.")


async def _check_planned(session: ReadSession, found: Findings) -> None:
    planned = exists().where(
        WebhookDelivery.endpoint_id == WebhookEndpoint.id, WebhookDelivery.event_id == OutboxEvent.id
    )
    hears = or_(
        WebhookEndpoint.account_id.is_(None),
        and_(
            WebhookEndpoint.account_id == OutboxEvent.account_id,
            is_for_tenants(),
        ),
    )
    read_upto = select(OutboxReader.position).where(OutboxReader.name == READER).scalar_subquery()
    statement = (
        select(
            OutboxEvent.account_id, OutboxEvent.id, OutboxEvent.kind, WebhookEndpoint.id, WebhookEndpoint.event_kinds
        )
        .join(
            WebhookEndpoint,
            and_(
                hears,
                WebhookEndpoint.status == EndpointStatus.ENABLED,
                WebhookEndpoint.removed_at.is_(None),
                OutboxEvent.position > WebhookEndpoint.position,
            ),
        )
        .where(OutboxEvent.position <= read_upto, OutboxEvent.kind.in_(EVENT_TYPES), ~planned)
        .order_by(OutboxEvent.id, WebhookEndpoint.id)
    )
    async for account_id, event_id, kind, endpoint_id, wanted in stream(session, statement):
        if not wanted or kind in wanted:
            found.add("I10", account_id, f"The event {event_id} ({kind}) was never planned for {endpoint_id}.")
