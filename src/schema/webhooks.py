"""Webhooks out: endpoints with their deliveries and tries, and the mutations' inputs and answers."""

from datetime import datetime
from typing import Annotated, Any, Self, cast

import strawberry

from .. import models
from ..services.deliveries import MAX_REPLAYED
from ..services.endpoints import MAX_OVERLAP_HOURS, OVERLAP_HOURS, EndpointFields
from ..services.events import MAX_BYTES
from ..services.paging import check_window
from ..services.relations import ATTEMPTS_OF_DELIVERY, DELIVERIES_OF_ENDPOINT, DeliveryFilter
from .context import Info
from .enums import WebhookDeliveryStatus, WebhookDisabledReason, WebhookEndpointStatus
from .errors import UserError
from .fields import field, maybe, once_key, refusals, said
from .node import NOBODY, Node, encode_id
from .paging import After, Before, Connection, First, Last
from .scalars import Url


@strawberry.type(description="One try of a delivery, and what came back.")
class WebhookAttempt:
    """A try."""

    number: int = said("Counted from 1, over all replays.")
    at: datetime = said("When it began, by the wall clock.")
    duration_ms: int = said("How long it took, in thousandths of a second.")
    status_code: int | None = said("The HTTP status that was answered; null where nothing was.")
    answer: str | None = said(
        "The first 1,000 characters of what was answered, without control characters. It is the receiver's text: show "
        "it as text, never as HTML. Null where nothing was answered."
    )
    failure: str | None = said("Why it was no success, and what to do; null where it was one.")

    @classmethod
    def of(cls, row: models.WebhookAttempt) -> Self:
        """A try from its row."""
        return cls(
            number=row.number,
            at=row.at,
            duration_ms=row.duration_ms,
            status_code=row.status_code,
            answer=row.answer,
            failure=row.failure,
        )


@strawberry.type(description="One event on its way to an endpoint: the same id and the same bytes over all tries.")
class WebhookDelivery(Node):
    """A delivery."""

    row: strawberry.Private[models.WebhookDelivery]
    account_id: strawberry.Private[Any]
    id: strawberry.ID = said("Opaque, and the same for ever. `redeliverWebhook` takes it.")
    event_id: strawberry.ID = said("The event's id in `events`, and the message's `webhook-id`.")
    type: str = said("The event's type, such as invoice.paid; webhook.test of a test.")
    status: WebhookDeliveryStatus = said("How far it is.")
    body: str | None = said(
        "What is sent, byte for byte, at most 20,000 bytes. Null before the first try where the endpoint has a query."
    )
    next_attempt_at: datetime | None = said("When it is tried next, or somewhat later; null unless it is PENDING.")
    gives_up_at: datetime = said("When the last try is made.")
    delivered_at: datetime | None = said("When it was taken last; null before.")
    created_at: datetime = said("When it was planned, by the wall clock, as are all its times.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.WebhookDelivery) -> Self:
        """A delivery from its row."""
        is_pending = row.status is WebhookDeliveryStatus.PENDING
        return cls(
            row=row,
            account_id=row.account_id or NOBODY,
            id=encode_id("WebhookDelivery", row.id),
            event_id=encode_id("BillingEvent", row.event_id),
            type=row.kind,
            status=row.status,
            body=row.body,
            next_attempt_at=row.next_try_at if is_pending else None,
            gives_up_at=row.give_up_at,
            delivered_at=row.delivered_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def attempts(self, info: Info) -> list[WebhookAttempt]:
        """Its tries, the first one first; at most 100."""
        rows = await info.context.load.related(ATTEMPTS_OF_DELIVERY, self.row.id)
        return [WebhookAttempt.of(row) for row in rows]


DeliveryStates = Annotated[
    list[WebhookDeliveryStatus] | None, strawberry.argument(description="In one of these states; all if left out.")
]
DeliveryTypes = Annotated[
    list[str] | None, strawberry.argument(description="Of events of these types, at most 100; all if left out.")
]


@strawberry.type(description="Where events are sent. An account has at most ten, and operators ten over all accounts.")
class WebhookEndpoint(Node):
    """An endpoint."""

    row: strawberry.Private[models.WebhookEndpoint]
    account_id: strawberry.Private[Any]
    id: strawberry.ID = said("Opaque, and the same for ever.")
    all_accounts: bool = said("Whether it is the operators' own, which hears of all accounts.")
    url: Url = said("Where messages are posted to.")
    description: str = said("What it is for; may be empty.")
    event_types: list[str] = said("The types of events it hears of; of all where the list is empty.")
    query: str | None = said(
        "A GraphQL query whose answer stands in the message in place of the event's own data; null where that does."
    )
    status: WebhookEndpointStatus = said("Whether it is sent to.")
    disabled_reason: WebhookDisabledReason | None = said("Why it is not sent to; null where it is.")
    failing_since: datetime | None = said("Since when no try has succeeded; null where the last one has.")
    secret_overlaps_until: datetime | None = said(
        "Until when messages carry a signature by the former secret, too; null where they do not."
    )
    created_by: str = said("Who made it, as api_key:ID, member:ID or operator:ID.")
    created_at: datetime = said("When it was made, by the wall clock, as are all its times.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.WebhookEndpoint) -> Self:
        """An endpoint from its row, without its secrets."""
        return cls(
            row=row,
            account_id=row.account_id or NOBODY,
            id=encode_id("WebhookEndpoint", row.id),
            all_accounts=row.account_id is None,
            url=Url(row.url),
            description=row.description,
            event_types=list(row.event_kinds),
            query=row.query,
            status=row.status,
            disabled_reason=row.disabled_reason,
            failing_since=row.failing_since,
            secret_overlaps_until=row.previous_secret_until,
            created_by=row.created_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def deliveries(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        status: DeliveryStates = None,
        types: DeliveryTypes = None,
    ) -> Connection[WebhookDelivery]:
        """What was sent to it or waits to be, the newest first; kept as long as the events."""
        window = check_window(first, last, after, before)
        chosen = DeliveryFilter(tuple(status or ()), tuple((types or ())[:100]))
        part = await info.context.load.page(DELIVERIES_OF_ENDPOINT, self.row.id, chosen, window)
        return Connection[WebhookDelivery].of(part, WebhookDelivery.of)


_URL = (
    "Where to post messages to: https, on port 443 or one from 1024 on, at a public address. It is looked up again for "
    "each connection, and redirects are not followed."
)
_TYPES = "The types of events to hear of, as docs/webhooks.md lists them; of all where it is empty."
_QUERY = (
    "A GraphQL query, whose answer becomes the message's `data`. It may declare $accountId: ID!, $eventId: ID! and "
    "$subjectId: ID!, is asked once for each event with the right to read that account, and is held to the limits of "
    f"requests. Where the answer is larger than {MAX_BYTES:,} bytes, the event's own data is sent instead, marked "
    "`truncated`. At most 10,000 characters."
)


def _may(description: str) -> Any:
    return strawberry.field(default=strawberry.UNSET, description=description)


@strawberry.input(description="A webhook endpoint to make.")
class CreateWebhookEndpointInput:
    """An endpoint."""

    account_id: strawberry.ID | None = maybe(
        "Whose events it hears of. Operators may leave it out: then it hears of all accounts."
    )
    url: str = said(_URL)
    description: str = strawberry.field(default="", description="What it is for, at most 255 characters.")
    event_types: list[str] = strawberry.field(default_factory=list, description=_TYPES)
    query: str | None = maybe(_QUERY)
    idempotency_key: str | None = once_key()

    def to_fields(self) -> EndpointFields:
        """As the services know it."""
        return EndpointFields(
            url=self.url, description=self.description, event_types=self.event_types, query=self.query
        )


@strawberry.input(description="What to change of an endpoint. What is left out stays as it is.")
class UpdateWebhookEndpointInput:
    """Changes of an endpoint."""

    endpoint_id: strawberry.ID = said("Which.")
    url: str | None = _may(_URL)
    description: str | None = _may("What it is for, at most 255 characters; null clears it.")
    event_types: list[str] | None = _may(_TYPES)
    query: str | None = _may(f"{_QUERY} Null takes it away.")
    status: WebhookEndpointStatus | None = _may(
        "ENABLED or DISABLED. Switched on again, it hears of what comes from then on, and gets what still waited; "
        "`redeliverWebhook` with `after` sends what it missed."
    )
    idempotency_key: str | None = once_key()

    def to_fields(self) -> EndpointFields:
        """As the services know it."""
        found = {name: getattr(self, name) for name in EndpointFields.__annotations__}
        return cast("EndpointFields", {name: value for name, value in found.items() if value is not strawberry.UNSET})


@strawberry.input(description="Which endpoint to delete.")
class DeleteWebhookEndpointInput:
    """An endpoint."""

    endpoint_id: strawberry.ID = said("Which.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="Which endpoint gets a new secret.")
class RotateWebhookSecretInput:
    """A rotation."""

    endpoint_id: strawberry.ID = said("Which.")
    overlap_hours: int | None = maybe(
        f"For how long messages carry a signature by the old secret as well, 0 to {MAX_OVERLAP_HOURS} hours; "
        f"{OVERLAP_HOURS} when left out."
    )
    idempotency_key: str | None = once_key()


@strawberry.input(description="Which endpoint to try.")
class SendTestWebhookInput:
    """A test."""

    endpoint_id: strawberry.ID = said("Which.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="What to send again: one delivery, or the events behind a cursor.")
class RedeliverWebhookInput:
    """A replay."""

    delivery_id: strawberry.ID | None = maybe("A delivery, also one that succeeded. Its id and bytes are the same.")
    endpoint_id: strawberry.ID | None = maybe("With `after`: the endpoint.")
    after: str | None = maybe(
        "With `endpointId`: a cursor of `events`. What the endpoint wants of the events behind it is sent where it was "
        f"not delivered: at most {MAX_REPLAYED:,} events are looked at in one call."
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="An endpoint that was made, or why not.")
class CreateWebhookEndpointPayload:
    """The answer."""

    endpoint: WebhookEndpoint | None = maybe("The endpoint.")
    secret: str | None = maybe(
        "What its messages are signed with, by Standard Webhooks (`whsec_…`). It is shown this once: null in a replay."
    )
    user_errors: list[UserError] = refusals()


@strawberry.type(description="An endpoint that was changed, or why not.")
class UpdateWebhookEndpointPayload:
    """The answer."""

    endpoint: WebhookEndpoint | None = maybe("The endpoint as it is now.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="An endpoint that was deleted, or why not.")
class DeleteWebhookEndpointPayload:
    """The answer."""

    deleted_endpoint_id: strawberry.ID | None = maybe("The id of what is gone.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="An endpoint with a new secret, or why not.")
class RotateWebhookSecretPayload:
    """The answer."""

    endpoint: WebhookEndpoint | None = maybe("The endpoint.")
    secret: str | None = maybe("The new secret, shown this once: null in a replay.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="A test that is sent, or why not.")
class SendTestWebhookPayload:
    """The answer."""

    delivery: WebhookDelivery | None = maybe("The test on its way; `node(id:)` tells what became of it.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="What is sent again, or why not.")
class RedeliverWebhookPayload:
    """The answer."""

    delivery: WebhookDelivery | None = maybe("The delivery; null where a stretch of events was asked for.")
    queued: int | None = maybe("How many deliveries are made.")
    next_cursor: str | None = maybe("Where the next call goes on, as its `after`; null where there is no more.")
    user_errors: list[UserError] = refusals()
