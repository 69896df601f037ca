"""What the outbox tells the outside: the kinds of events, each as one body, and the list that `events` reads."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, func, or_, select

from ..database import ReadSession
from ..models import Deployment, OutboxEvent, Role
from .access import Principal, Right
from .cursors import decode_cursor, encode_cursor
from .errors import ErrorCode, RequestRefused
from .global_ids import encode_global_id
from .paging import Slice, Window

KEPT_DAYS = 90
MAX_BYTES = 20_000
"""No body is longer: receivers cut what is."""
MAX_FILTERED = 100
ORDER = "events"
ORDER_KINDS = (int,)

EVENT_TYPES: dict[str, str] = {
    "account.created": "An account was made.",
    "account.updated": "Something of the account was set; `changed` names its fields, of the account or below it.",
    "account.closed": "The account was closed for good.",
    "subscription.started": "A subscription began, as a trial or paid.",
    "subscription.trial_ending": "A trial ends in 7 days, or in 1.",
    "subscription.changed": "The plan, an add-on or the terms changed.",
    "subscription.scheduled": "A change or the cancellation waits for the period's end, or does so no more.",
    "subscription.canceled": "The subscription is over.",
    "subscription.resumed": "A cancellation was taken back before its time.",
    "subscription.reactivated": "A subscription that was over runs again.",
    "subscription.past_due": "A payment failed; the subscription runs on.",
    "subscription.suspended": "The account is read-only until it has paid.",
    "subscription.expired": "It was not reactivated in time: its data is deleted.",
    "invoice.upcoming": "An invoice is near: an annual renewal in 30 days, or in 7.",
    "invoice.finalized": "An invoice was issued.",
    "invoice.paid": "Nothing of an invoice is due any more.",
    "invoice.payment_failed": "A try to collect an invoice failed.",
    "invoice.voided": "An invoice was withdrawn.",
    "invoice.uncollectible": "An invoice was given up.",
    "credit_note.issued": "A credit note was issued.",
    "payment.succeeded": "Money moved: a charge, a payment by hand, a refund, a credit.",
    "payment.failed": "A charge or refund failed, or was given up.",
    "payment.requires_action": "The cardholder has to confirm a charge.",
    "refund.requested": "Somebody asked for money back.",
    "refund.approved": "A refund was granted, and is under way.",
    "refund.denied": "A refund was refused.",
    "refund.succeeded": "Money went back.",
    "dispute.opened": "A cardholder disputes a charge.",
    "dispute.closed": "A dispute was won or lost.",
    "payment_method.added": "A payment method was added.",
    "payment_method.updated": "A payment method changed, or became the default one.",
    "payment_method.removed": "A payment method was removed.",
    "payment_method.expiring": "A card expires before the next charge.",
    "usage.alert_raised": "Usage reached a threshold, or a day was unusual.",
    "usage.alert_resolved": "An alert of usage holds no more.",
    "usage.alert_acknowledged": "Somebody has seen an alert of usage.",
    "budget.alert_raised": "Spend reached a threshold of a budget.",
    "budget.alert_resolved": "An alert of a budget holds no more.",
    "budget.alert_acknowledged": "Somebody has seen an alert of a budget.",
    "budget.blocked": "A budget stops usage that costs more.",
    "member.invited": "Somebody was invited to become a member, or sent the invitation again.",
    "member.invite_revoked": "An invitation was withdrawn.",
    "member.joined": "Somebody accepted an invitation.",
    "member.role_changed": "A member has another role.",
    "member.removed": "A member has left, or was removed.",
    "member.ownership_offered": "An owner wants to hand the ownership over.",
    "member.ownership_withdrawn": "An owner keeps the ownership after all.",
    "member.ownership_transferred": "The account has another owner.",
    "api_key.created": "An API key was made.",
    "api_key.rotated": "An API key has a new secret; the old one may be good for a while.",
    "api_key.revoked": "An API key was ended.",
    "export.progressed": "Some of the rows of an export are written.",
    "export.ready": "The file of an export is there.",
    "export.failed": "The file of an export could not be written.",
    "webhook.disabled": "A webhook endpoint was switched off, because it failed for days or said that it is gone.",
}
"""Each kind of the outbox, with what it means: the closed list of what can be asked for."""
TEST_TYPE = "webhook.test"
"""Of `sendTestWebhook`: no event, but sent like one."""

_TYPES_BY_KEY = {
    "alertId": "Alert",
    "invoiceId": "Invoice",
    "creditNoteId": "CreditNote",
    "refundRequestId": "RefundRequest",
    "transactionId": "Transaction",
    "paymentMethodId": "PaymentMethod",
    "subscriptionId": "PlanSubscription",
    "exportId": "Export",
    "budgetId": "Budget",
    "noticeId": "Notice",
    "endpointId": "WebhookEndpoint",
    "apiKeyId": "ApiKey",
    "memberId": "Member",
    "inviteId": "Invite",
    "contactId": "Contact",
    "chargeId": "Transaction",
}
"""What the ids in payloads are of; the first of these in an event is what the event is about."""
_INTERNAL = frozenset({"accountId", "forOperators"})


def subject_of(event: OutboxEvent) -> str:
    """The global id of what an event is about, which may be the account itself."""
    for key, type_name in _TYPES_BY_KEY.items():
        if event.payload.get(key):
            return encode_global_id(type_name, event.payload[key])
    return encode_global_id("BillingAccount", event.account_id)


def describe_event(event: OutboxEvent, external_id: str) -> dict[str, Any]:
    """An event as the outside reads it, by `events` and by webhooks alike."""
    data = _write_payload(event.payload)
    body = _wrap(event.id, event.kind, event.version, event.account_id, external_id, event.at, data)
    if len(write_body(body).encode()) <= MAX_BYTES:
        return body
    # Who wants more asks for it by these.
    body["data"] = {key: value for key, value in data.items() if key in _TYPES_BY_KEY}
    return body | {"truncated": True}


def describe_test(event_id: UUID, account_id: UUID | None, external_id: str | None, at: datetime) -> dict[str, Any]:
    """The message of a test: like an event's, about nothing."""
    return _wrap(event_id, TEST_TYPE, 1, account_id, external_id, at, {})


def write_body(body: dict[str, Any]) -> str:
    """A body as it is sent."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def is_too_large(body: str) -> bool:
    """Whether a body is longer than receivers take."""
    return len(body.encode()) > MAX_BYTES


def _wrap(
    event_id: UUID,
    kind: str,
    version: int,
    account_id: UUID | None,
    external_id: str | None,
    at: datetime,
    data: dict[str, Any],
) -> dict[str, Any]:
    return {
        "id": encode_global_id("BillingEvent", event_id),
        "type": kind,
        "version": version,
        "accountId": None if account_id is None else encode_global_id("BillingAccount", account_id),
        "externalId": external_id,
        "timestamp": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": data,
    }


def _write_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload for the outside: with the ids that the API has for things, and without what is ours alone."""
    return {
        key: encode_global_id(_TYPES_BY_KEY[key], value) if key in _TYPES_BY_KEY and value else value
        for key, value in payload.items()
        if key not in _INTERNAL
    }


def check_types(types: Collection[str] | None) -> str | None:
    """Why these are no types of events; none where they are."""
    unknown = sorted(set(types or ()) - EVENT_TYPES.keys())
    if not unknown:
        return None
    shown = ", ".join(repr(name[:60]) for name in unknown[:5])
    return f"There are no events of the type {shown}: known are {', '.join(EVENT_TYPES)}."


def select_events(
    principal: Principal, account_ids: Collection[UUID] | None, types: Collection[str] | None
) -> Select[OutboxEvent]:
    """The events that a caller may read: those with a place among all."""
    statement = select(OutboxEvent).where(OutboxEvent.position.is_not(None))
    readable = principal.list_accounts(Right.READ_BILLING)
    if account_ids is not None:
        statement = statement.where(OutboxEvent.account_id.in_(account_ids))
    if readable is not None:
        statement = statement.where(OutboxEvent.account_id.in_(readable))
        operated = [id_ for id_ in readable if principal.role_in(id_) is Role.OPERATOR]
        statement = statement.where(or_(is_for_tenants(), OutboxEvent.account_id.in_(operated)))
    if types:
        statement = statement.where(OutboxEvent.kind.in_(types))
    return statement


def is_for_tenants() -> ColumnElement[bool]:
    """Whether an event is not for operators only, as SQL."""
    return func.coalesce(OutboxEvent.payload["forOperators"].as_boolean(), false()).is_(False)


def is_for_operators(event: OutboxEvent) -> bool:
    """The same of a row, the other way round."""
    return bool(event.payload.get("forOperators", False))


def cursor_of(event: OutboxEvent) -> str:
    """An event's place among all, as text."""
    return cursor_at(event.position or 0)


def cursor_at(position: int) -> str:
    """A place among all events, as text."""
    return encode_cursor(ORDER, [position])


async def read_events(session: ReadSession, statement: Select[OutboxEvent], window: Window) -> Slice[OutboxEvent]:
    """A part of the list, oldest first. A cursor behind which events are gone is refused."""
    cursor = window.before if window.backwards else window.after
    place = await find_place(session, cursor)
    part = statement.order_by(OutboxEvent.position.desc() if window.backwards else OutboxEvent.position)
    if place is not None:
        part = part.where(OutboxEvent.position < place if window.backwards else OutboxEvent.position > place)
    rows = list(await session.scalars(part.limit(window.size + 1)))
    total = await session.scalar(select(func.count()).select_from(statement.subquery()))
    beyond, shown = len(rows) > window.size, rows[: window.size]
    if window.backwards:
        shown.reverse()
    return Slice(
        [(cursor_of(event), event) for event in shown],
        total or 0,
        has_previous=beyond if window.backwards else place is not None,
        has_next=place is not None if window.backwards else beyond,
    )


async def find_place(session: ReadSession, cursor: str | None) -> int | None:
    """The position of a cursor, none without one. Where events behind it are gone, it says where to go on."""
    if cursor is None:
        return None
    # `BAD_USER_INPUT` for what is no cursor of this list.
    place = int(decode_cursor(ORDER, cursor, ORDER_KINDS)[0])
    oldest = (
        await session.execute(
            select(OutboxEvent.position, OutboxEvent.at)
            .where(OutboxEvent.position.is_not(None))
            .order_by(OutboxEvent.position)
            .limit(1)
        )
    ).one_or_none()
    kept_after = (
        (await session.scalar(select(Deployment.last_position)) or 0) if oldest is None else (oldest.position or 1) - 1
    )
    if place >= kept_after:
        return place
    begins = "" if oldest is None else f" The oldest one still there is of {oldest.at.isoformat()}."
    raise RequestRefused(
        ErrorCode.CURSOR_EXPIRED,
        f"Events are kept for {KEPT_DAYS} days, and those behind this cursor are gone.{begins} Read what they would "
        f"have told from the objects themselves, then go on with this `after`: {cursor_at(kept_after)}",
    )


def wants(kinds: Sequence[str], event: OutboxEvent) -> bool:
    """Whether who asked for some kinds, or with none for all, is told of an event."""
    return event.kind in kinds if kinds else event.kind in EVENT_TYPES
