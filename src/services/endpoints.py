"""Webhook endpoints: where events are sent, as what, and signed with which secret."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    DeliveryStatus,
    Deployment,
    DisabledReason,
    EndpointStatus,
    NoticeSeverity,
    OutboxReader,
    WebhookDelivery,
    WebhookEndpoint,
)
from . import inputs
from .access import Principal
from .accounts import lock_account
from .edits import describe_columns, record_update, set_columns
from .endpoint_urls import check_url
from .errors import Conflict, InvalidInput, NotFound
from .events import check_types
from .inputs import Path
from .notices import clear_notice, raise_notice
from .permissions import Action, require_action
from .ports import PayloadQueries

MAX_ENDPOINTS = 10
"""How many an account has, and the operators have over all accounts."""
MAX_DESCRIPTION = 255
MAX_QUERY = 10_000
OVERLAP_HOURS = 24
MAX_OVERLAP_HOURS = 168
READER = "webhooks"
"""The name under which it is known how far the outbox was read for webhooks."""
DISABLED_NOTICE = "WEBHOOK_DISABLED"
UNKNOWN_ENDPOINT = "There is no such webhook endpoint, or it is not yours."


class EndpointFields(TypedDict, total=False):
    """What of an endpoint is set. What is not in it stays; null clears what may be empty."""

    url: str | None
    description: str | None
    event_types: list[str] | None
    query: str | None
    status: EndpointStatus | None


@dataclass(frozen=True)
class Rules:
    """What decides whether an endpoint can be as it is wanted."""

    queries: PayloadQueries
    allow_inside: bool


async def create_endpoint(
    work: Work, principal: Principal, account_id: UUID | None, given: EndpointFields, secret: str, rules: Rules
) -> WebhookEndpoint:
    """Make an endpoint of an account, or with none of the operators' for all. It hears of what comes from now on."""
    values = _check_fields(given, rules)
    account = await _begin(work, principal, account_id)
    await _check_room(work, account_id)
    endpoint = WebhookEndpoint(
        created_at=work.clock.now(),
        account_id=account_id,
        secret=secret,
        position=await _read_last_position(work),
        created_by=work.actor.name,
        **{"event_kinds": [], **values},
    )
    work.session.add(endpoint)
    await work.session.flush()
    await _record(work, account, endpoint, "created", {}, _describe(values))
    return endpoint


async def update_endpoint(
    work: Work, principal: Principal, found: WebhookEndpoint, given: EndpointFields, rules: Rules
) -> WebhookEndpoint:
    """Change what is given of an endpoint. What it newly wants, it is told from now on."""
    values = _check_fields(given, rules)
    account = await _begin(work, principal, found.account_id)
    endpoint = await _lock_endpoint(work, found)
    if endpoint.status is not EndpointStatus.ENABLED and values.get("status") is EndpointStatus.ENABLED:
        values |= {"disabled_reason": None, "failures": 0, "failing_since": None, "rests_until": None}
        if account is not None:
            await clear_notice(work, account, DISABLED_NOTICE, str(endpoint.id))
    elif endpoint.status is EndpointStatus.ENABLED and values.get("status") is EndpointStatus.DISABLED:
        values["disabled_reason"] = DisabledReason.BY_HAND
    before, after = set_columns(endpoint, values)
    if after:
        endpoint.updated_at = work.clock.now()
        if {"eventKinds", "status"} & after.keys():
            endpoint.position = await _read_last_position(work)
        await _record(work, account, endpoint, "updated", _hide(before), _hide(after))
    return endpoint


async def rotate_secret(
    work: Work, principal: Principal, found: WebhookEndpoint, secret: str, overlap_hours: int | None
) -> WebhookEndpoint:
    """Sign with a new secret, and for some hours with the old one as well."""
    hours = OVERLAP_HOURS if overlap_hours is None else overlap_hours
    if not 0 <= hours <= MAX_OVERLAP_HOURS:
        raise InvalidInput(
            f"`overlapHours` is a whole number from 0 to {MAX_OVERLAP_HOURS}.", ["input", "overlapHours"]
        )
    account = await _begin(work, principal, found.account_id)
    endpoint = await _lock_endpoint(work, found)
    now = work.clock.now()
    endpoint.previous_secret = endpoint.secret if hours else None
    endpoint.previous_secret_until = now + timedelta(hours=hours) if hours else None
    endpoint.secret, endpoint.updated_at = secret, now
    await _record(work, account, endpoint, "secret_rotated", {}, {"overlapHours": hours})
    return endpoint


async def delete_endpoint(work: Work, principal: Principal, found: WebhookEndpoint) -> WebhookEndpoint:
    """Send nothing to an endpoint any more, and forget its secrets. Its log stays as long as any."""
    account = await _begin(work, principal, found.account_id)
    endpoint = await _lock_endpoint(work, found)
    now = work.clock.now()
    endpoint.removed_at = endpoint.updated_at = now
    endpoint.status = EndpointStatus.DISABLED
    endpoint.secret, endpoint.previous_secret, endpoint.previous_secret_until = "", None, None
    await work.session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.status == DeliveryStatus.PENDING)
        .values(status=DeliveryStatus.FAILED, updated_at=now)
    )
    if account is not None:
        await clear_notice(work, account, DISABLED_NOTICE, str(endpoint.id))
    await _record(work, account, endpoint, "removed", {"url": endpoint.url}, {})
    return endpoint


async def open_endpoint(work: Work, principal: Principal, found: WebhookEndpoint, step: str) -> WebhookEndpoint:
    """An endpoint, locked, for who wants something sent to it; the log says who, and by `step` what."""
    account = await _begin(work, principal, found.account_id)
    endpoint = await _lock_endpoint(work, found)
    action, subject = f"webhook_endpoint.{step}", f"webhook_endpoint:{endpoint.id}"
    if account is None:
        await work.audit_deployment(action, subject)
    else:
        work.audit(account, action, subject)
    return endpoint


async def switch_off(
    work: Work, account: BillingAccount | None, endpoint: WebhookEndpoint, reason: DisabledReason
) -> None:
    """Send nothing to a locked endpoint until somebody switches it on again, and say so."""
    endpoint.status, endpoint.disabled_reason = EndpointStatus.DISABLED, reason
    endpoint.updated_at = work.clock.now()
    after = {"status": endpoint.status, "disabledReason": reason}
    subject = f"webhook_endpoint:{endpoint.id}"
    if account is None:
        await work.audit_deployment("webhook_endpoint.disabled", subject, after=after)
        return
    work.audit(account, "webhook_endpoint.disabled", subject, after=after)
    work.emit(account, "webhook.disabled", {"endpointId": str(endpoint.id), "url": endpoint.url, "reason": reason})
    await raise_notice(
        work,
        account,
        DISABLED_NOTICE,
        str(endpoint.id),
        severity=NoticeSeverity.CRITICAL,
        params={"url": endpoint.url, "reason": reason},
        dismissible=True,
    )


async def lock_reader(work: Work) -> OutboxReader:
    """How far the outbox was read for webhooks, locked. Taken before any account: planning waits for accounts, too."""
    row = await _get_reader(work)
    if row is None:
        position = await _read_last_position(work)
        await work.insert_or_ignore(OutboxReader, [{"name": READER, "position": position}])
        row = await _get_reader(work)
    assert row is not None, "it was made just now"
    return row


async def _get_reader(work: Work) -> OutboxReader | None:
    return await work.session.get(OutboxReader, READER, with_for_update=True, populate_existing=True)


async def _read_last_position(work: Work) -> int:
    # While the reader is locked, nothing behind this is planned yet.
    return await work.session.scalar(select(Deployment.last_position)) or 0


async def _begin(work: Work, principal: Principal, account_id: UUID | None) -> BillingAccount | None:
    await lock_reader(work)
    if account_id is None:
        return None
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.MANAGE_WEBHOOKS)
    return account


async def _lock_endpoint(work: Work, found: WebhookEndpoint) -> WebhookEndpoint:
    row = await work.session.scalar(
        select(WebhookEndpoint)
        .where(WebhookEndpoint.id == found.id, WebhookEndpoint.removed_at.is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound(UNKNOWN_ENDPOINT, ["input", "endpointId"])
    return row


async def _check_room(work: Work, account_id: UUID | None) -> None:
    count = await work.session.scalar(
        select(func.count())
        .select_from(WebhookEndpoint)
        .where(_is_of(account_id), WebhookEndpoint.removed_at.is_(None))
    )
    if (count or 0) >= MAX_ENDPOINTS:
        raise Conflict(f"There are {MAX_ENDPOINTS} webhook endpoints already: delete one first.", ["input"])


def _is_of(account_id: UUID | None) -> ColumnElement[bool]:
    return WebhookEndpoint.account_id.is_(None) if account_id is None else WebhookEndpoint.account_id == account_id


async def list_operators_endpoints(session: ReadSession) -> Sequence[WebhookEndpoint]:
    """The endpoints that hear of all accounts, oldest first."""
    rows = await session.scalars(
        select(WebhookEndpoint)
        .where(WebhookEndpoint.account_id.is_(None), WebhookEndpoint.removed_at.is_(None))
        .order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)
    )
    return rows.all()


async def _record(
    work: Work,
    account: BillingAccount | None,
    endpoint: WebhookEndpoint,
    step: str,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    action, subject = f"webhook_endpoint.{step}", f"webhook_endpoint:{endpoint.id}"
    if account is None:
        await work.audit_deployment(action, subject, before=before, after=after)
    else:
        record_update(work, account, action, subject, changed=["webhookEndpoints"], before=before, after=after)


_SHOWN = ("url", "description", "eventKinds", "query", "status", "disabledReason")


def _describe(values: dict[str, Any]) -> dict[str, Any]:
    return _hide(describe_columns(values))


def _hide(values: dict[str, Any]) -> dict[str, Any]:
    """Of what changed, what the audit log shows."""
    return {name: value for name, value in values.items() if name in _SHOWN}


def _check_fields(given: EndpointFields, rules: Rules) -> dict[str, Any]:
    """The values of the columns that are set, each for itself."""
    checks: dict[str, Any] = {}
    if "url" in given:
        checks["url"] = lambda: _check_given_url(given["url"], rules)
    if "description" in given:
        checks["description"] = lambda: inputs.check_text(
            given["description"] or "", ["input", "description"], at_most=MAX_DESCRIPTION, at_least=0
        )
    if "event_types" in given:
        checks["event_kinds"] = lambda: _check_types(given["event_types"] or [])
    if "query" in given:
        checks["query"] = lambda: _check_query(given["query"], rules.queries)
    found = inputs.check_all(checks)
    if "status" in given:
        found["status"] = inputs.require_given(given["status"], ["input", "status"])
    return found


def _check_given_url(url: str | None, rules: Rules) -> str:
    path: Path = ["input", "url"]
    text = check_url(inputs.require_given(url, path), path, allow_inside=rules.allow_inside)
    inputs.refuse_card_number(text, path)
    return text


def _check_types(types: Collection[str]) -> list[str]:
    refusal = check_types(types)
    if refusal is not None:
        raise InvalidInput(refusal, ["input", "eventTypes"])
    return sorted(set(types))


def _check_query(query: str | None, queries: PayloadQueries) -> str | None:
    if query is None:
        return None
    path = ["input", "query"]
    if len(query) > MAX_QUERY:
        raise InvalidInput(f"`query` has at most {MAX_QUERY:,} characters.", path)
    refusal = queries.refuse(query)
    if refusal is not None:
        raise InvalidInput(refusal, path)
    return query
