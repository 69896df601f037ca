"""The mutations of webhook endpoints."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.node import NOBODY, encode_id
from ..schema.webhooks import (
    CreateWebhookEndpointInput,
    CreateWebhookEndpointPayload,
    DeleteWebhookEndpointInput,
    DeleteWebhookEndpointPayload,
    RedeliverWebhookInput,
    RedeliverWebhookPayload,
    RotateWebhookSecretInput,
    RotateWebhookSecretPayload,
    SendTestWebhookInput,
    SendTestWebhookPayload,
    UpdateWebhookEndpointInput,
    UpdateWebhookEndpointPayload,
    WebhookDelivery,
    WebhookEndpoint,
)
from ..services import deliveries, endpoints
from ..services.access import Principal, Right
from ..services.endpoint_urls import check_url
from ..services.endpoints import EndpointFields, Rules
from ..services.errors import InvalidInput, NotFound
from ..services.events import cursor_at, find_place
from ..services.idempotency import Request, idempotent
from ..services.signing import make_secret
from .access import find_account_id, find_id, mutation, require_operator, require_right
from .context import Info


@strawberry.type
class WebhookMutation:
    """What of Mutation is about webhooks."""

    @mutation(Right.MANAGE_BILLING)
    async def create_webhook_endpoint(
        self,
        info: Info,
        input: Annotated[CreateWebhookEndpointInput, strawberry.argument(description="Where, and what of.")],
    ) -> CreateWebhookEndpointPayload:
        """Have events sent to a URL from now on. The answer shows the secret that proves them, this once."""
        if input.account_id is None:
            require_operator(info)
            account_id = None
        else:
            account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        await _look_up(info, input.url)
        secret = make_secret()
        outcome = await info.context.run(
            _create, _request(input, account_id), info.context.principal, account_id, input, secret, _rules(info)
        )
        info.context.note_replay(replayed=outcome.replayed)
        return CreateWebhookEndpointPayload(
            endpoint=await _show_endpoint(info, outcome.answer),
            secret=None if outcome.replayed else secret,
        )

    @mutation(Right.MANAGE_BILLING)
    async def update_webhook_endpoint(
        self,
        info: Info,
        input: Annotated[UpdateWebhookEndpointInput, strawberry.argument(description="Which, and what of it.")],
    ) -> UpdateWebhookEndpointPayload:
        """Change an endpoint, or switch it off or on. Other event types than before it hears of from now on."""
        found = await _find_endpoint(info, input.endpoint_id)
        fields = input.to_fields()
        url = fields.get("url")
        if url is not None:
            await _look_up(info, url)
        outcome = await info.context.run(
            _update, _request(input, found.account_id, fields), info.context.principal, found, fields, _rules(info)
        )
        info.context.note_replay(replayed=outcome.replayed)
        return UpdateWebhookEndpointPayload(endpoint=await _show_endpoint(info, outcome.answer))

    @mutation(Right.MANAGE_BILLING)
    async def delete_webhook_endpoint(
        self,
        info: Info,
        input: Annotated[DeleteWebhookEndpointInput, strawberry.argument(description="Which.")],
    ) -> DeleteWebhookEndpointPayload:
        """Send nothing to an endpoint any more. What waits for it is given up."""
        found = await _find_endpoint(info, input.endpoint_id)
        outcome = await info.context.run(_delete, _request(input, found.account_id), info.context.principal, found)
        info.context.note_replay(replayed=outcome.replayed)
        return DeleteWebhookEndpointPayload(deleted_endpoint_id=encode_id("WebhookEndpoint", found.id))

    @mutation(Right.MANAGE_BILLING)
    async def rotate_webhook_secret(
        self,
        info: Info,
        input: Annotated[RotateWebhookSecretInput, strawberry.argument(description="Which.")],
    ) -> RotateWebhookSecretPayload:
        """Give an endpoint a new secret. For a while messages carry a signature by each, so that none is refused."""
        found = await _find_endpoint(info, input.endpoint_id)
        secret = make_secret()
        outcome = await info.context.run(
            _rotate, _request(input, found.account_id), info.context.principal, found, input, secret
        )
        info.context.note_replay(replayed=outcome.replayed)
        return RotateWebhookSecretPayload(
            endpoint=await _show_endpoint(info, outcome.answer), secret=None if outcome.replayed else secret
        )

    @mutation(Right.MANAGE_BILLING)
    async def send_test_webhook(
        self,
        info: Info,
        input: Annotated[SendTestWebhookInput, strawberry.argument(description="To which endpoint.")],
    ) -> SendTestWebhookPayload:
        """Send a message of the type webhook.test, signed and tried like any other."""
        found = await _find_endpoint(info, input.endpoint_id)
        outcome = await info.context.run(_test, _request(input, found.account_id), info.context.principal, found)
        info.context.note_replay(replayed=outcome.replayed)
        return SendTestWebhookPayload(delivery=await _show_delivery(info, outcome.answer))

    @mutation(Right.MANAGE_BILLING)
    async def redeliver_webhook(
        self,
        info: Info,
        input: Annotated[RedeliverWebhookInput, strawberry.argument(description="What to send again.")],
    ) -> RedeliverWebhookPayload:
        """Send a delivery again, or what an endpoint missed of the events behind a cursor: under the same ids."""
        if (input.delivery_id is None) == (input.endpoint_id is None) or (input.endpoint_id is None) != (
            input.after is None
        ):
            raise InvalidInput("Give `deliveryId`, or `endpointId` with `after`.", ["input"])
        if input.delivery_id is not None:
            key = find_id(input.delivery_id, "WebhookDelivery")
            delivery = None if key is None else await info.context.load.row(models.WebhookDelivery, key)
            if delivery is None or not _may_read(info, delivery.account_id):
                raise NotFound("There is no such delivery, or it is not yours.", ["input", "deliveryId"])
            found = await _find_endpoint(info, encode_id("WebhookEndpoint", delivery.endpoint_id))
            wanted: UUID | int = delivery.id
        else:
            found = await _find_endpoint(info, input.endpoint_id or "")
            async with info.context.read() as session:
                place = await find_place(session, input.after)
            assert place is not None, "it was given"
            wanted = place
        outcome = await info.context.run(
            _redeliver, _request(input, found.account_id), info.context.principal, found, wanted
        )
        info.context.note_replay(replayed=outcome.replayed)
        answer = outcome.answer
        return RedeliverWebhookPayload(
            delivery=await _show_delivery(info, answer),
            queued=answer["queued"],
            next_cursor=None if answer["next"] is None else cursor_at(answer["next"]),
        )


def _request(input: Any, account_id: UUID | None, given: object = None) -> Request:
    fields = asdict(input) if given is None else [input.endpoint_id, given]
    if isinstance(fields, dict):
        del fields["idempotency_key"]
    return Request(input.idempotency_key, scope="" if account_id is None else str(account_id), given=fields)


def _rules(info: Info) -> Rules:
    hooks = info.context.hooks
    return Rules(hooks.queries, hooks.allow_inside)


async def _look_up(info: Info, url: str) -> None:
    """Refuse a host that leads inside as its name stands now. What a name leads to is looked up again when sending."""
    path = ["input", "url"]
    hooks = info.context.hooks
    check_url(url, path, allow_inside=hooks.allow_inside)
    refusal = await hooks.courier.refuse(url)
    if refusal is not None:
        raise InvalidInput(refusal, path)


def _may_read(info: Info, account_id: UUID | None) -> bool:
    return info.context.principal.may(Right.READ_BILLING, account_id or NOBODY)


async def _find_endpoint(info: Info, id_: str) -> models.WebhookEndpoint:
    """An endpoint that the caller may change; of others none is there."""
    key = find_id(id_, "WebhookEndpoint")
    row = None if key is None else await info.context.load.row(models.WebhookEndpoint, key)
    if row is None or row.removed_at is not None or not _may_see(info, row):
        raise NotFound(endpoints.UNKNOWN_ENDPOINT, ["input", "endpointId"])
    require_right(info, Right.MANAGE_BILLING, row.account_id or NOBODY)
    if row.account_id is None:
        require_operator(info)
    return row


def _may_see(info: Info, row: models.WebhookEndpoint) -> bool:
    return info.context.principal.role_in(row.account_id or NOBODY) is not None


async def _show_endpoint(info: Info, answer: dict[str, Any]) -> WebhookEndpoint | None:
    row = await info.context.load.row(models.WebhookEndpoint, UUID(answer["endpointId"]))
    return None if row is None else WebhookEndpoint.of(row)


async def _show_delivery(info: Info, answer: dict[str, Any]) -> WebhookDelivery | None:
    if answer["deliveryId"] is None:
        return None
    row = await info.context.load.row(models.WebhookDelivery, UUID(answer["deliveryId"]))
    return None if row is None else WebhookDelivery.of(row)


@idempotent("createWebhookEndpoint")
async def _create(
    work: Work,
    principal: Principal,
    account_id: UUID | None,
    input: CreateWebhookEndpointInput,
    secret: str,
    rules: Rules,
) -> dict[str, Any]:
    made = await endpoints.create_endpoint(work, principal, account_id, input.to_fields(), secret, rules)
    return {"endpointId": str(made.id)}


@idempotent("updateWebhookEndpoint")
async def _update(
    work: Work, principal: Principal, found: models.WebhookEndpoint, fields: EndpointFields, rules: Rules
) -> dict[str, Any]:
    changed = await endpoints.update_endpoint(work, principal, found, fields, rules)
    return {"endpointId": str(changed.id)}


@idempotent("deleteWebhookEndpoint")
async def _delete(work: Work, principal: Principal, found: models.WebhookEndpoint) -> dict[str, Any]:
    return {"endpointId": str((await endpoints.delete_endpoint(work, principal, found)).id)}


@idempotent("rotateWebhookSecret")
async def _rotate(
    work: Work, principal: Principal, found: models.WebhookEndpoint, input: RotateWebhookSecretInput, secret: str
) -> dict[str, Any]:
    changed = await endpoints.rotate_secret(work, principal, found, secret, input.overlap_hours)
    return {"endpointId": str(changed.id)}


@idempotent("sendTestWebhook")
async def _test(work: Work, principal: Principal, found: models.WebhookEndpoint) -> dict[str, Any]:
    endpoint = await endpoints.open_endpoint(work, principal, found, "tested")
    return {"deliveryId": str((await deliveries.send_test(work, endpoint)).id)}


@idempotent("redeliverWebhook")
async def _redeliver(
    work: Work, principal: Principal, found: models.WebhookEndpoint, wanted: UUID | int
) -> dict[str, Any]:
    endpoint = await endpoints.open_endpoint(work, principal, found, "replayed")
    if isinstance(wanted, UUID):
        delivery = await deliveries.send_again(work, endpoint, wanted)
        return {"deliveryId": str(delivery.id), "queued": 1, "next": None}
    replayed = await deliveries.send_since(work, endpoint, wanted)
    return {"deliveryId": None, "queued": replayed.count, "next": replayed.next_position}
