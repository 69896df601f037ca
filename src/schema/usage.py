"""Sending usage."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self, cast

import strawberry

from ..services.usage import EventResult, UsageInput
from .enums import EventStatus, RejectionCode
from .errors import UserError
from .fields import field, said
from .node import NOBODY, encode_id, key_of
from .scalars import BigInt, JsonObject, parse_big_int, parse_datetime, parse_json


@strawberry.input(description="One usage event. Either `quantity` or, for a gauge, `level`.")
class UsageEventInput:
    """A usage event."""

    event_id: str = said("Your own id, unique per account: the same id is never counted twice. Up to 255 characters.")
    metric: str = said("The metric's key, such as email_sends.")
    account_id: strawberry.ID | None = strawberry.field(
        default=None, description="Whose usage, by the account's id; or give `externalId`."
    )
    external_id: str | None = strawberry.field(default=None, description="Whose usage, by your own id of the account.")
    quantity: BigInt | None = strawberry.field(
        default=None, description="What to add: to a counter, or up or down on a gauge."
    )
    level: BigInt | None = strawberry.field(default=None, description="Of a gauge: where it stands now.")
    correction: bool = strawberry.field(
        default=False, description="Must be true with a negative quantity of a counter; for operators."
    )
    occurred_at: datetime | None = strawberry.field(
        default=None, description="When it happened; now when left out. Decides the usage period."
    )
    properties: JsonObject | None = strawberry.field(
        default=None, description="Up to 20 pairs; `workspace` names the workspace that used it."
    )

    def to_input(self) -> UsageInput:
        """As the services know it."""
        return UsageInput(
            event_id=self.event_id,
            metric=self.metric,
            account_id=None if self.account_id is None else key_of(self.account_id, "BillingAccount") or NOBODY,
            external_id=self.external_id,
            quantity=self.quantity,
            level=self.level,
            correction=self.correction,
            occurred_at=self.occurred_at,
            properties=cast("dict[str, Any]", self.properties or {}),
        )


EVENT_NAMES = frozenset(
    {
        "eventId",
        "metric",
        "accountId",
        "externalId",
        "quantity",
        "level",
        "correction",
        "occurredAt",
        "properties",
    }
)


def read_events(given: object) -> list[UsageInput] | None:
    """The events of a batch as the variables hold them; none where one is not plainly a `UsageEventInput`."""
    if not isinstance(given, list):
        return None
    try:
        return [_read_event(item) for item in given]
    except ValueError:
        return None


def _read_event(given: object) -> UsageInput:
    if not isinstance(given, dict) or not given.keys() <= EVENT_NAMES:
        raise ValueError("no event")
    event_id, metric, external_id = given.get("eventId"), given.get("metric"), given.get("externalId")
    account_id, occurred_at = given.get("accountId"), given.get("occurredAt")
    quantity, level, correction = given.get("quantity"), given.get("level"), given.get("correction", False)
    properties = given.get("properties")
    if (
        not isinstance(event_id, str)
        or not isinstance(metric, str)
        or not isinstance(external_id, str | None)
        or not isinstance(account_id, str | None)
        or not isinstance(correction, bool)
    ):
        raise ValueError("no texts")  # one error for whatever is unusual
    return UsageInput(
        event_id=event_id,
        metric=metric,
        account_id=None if account_id is None else key_of(account_id, "BillingAccount") or NOBODY,
        external_id=external_id,
        quantity=None if quantity is None else parse_big_int(quantity),
        level=None if level is None else parse_big_int(level),
        correction=correction,
        occurred_at=None if occurred_at is None else parse_datetime(occurred_at),
        properties={} if properties is None else cast("dict[str, Any]", parse_json(properties)),
    )


@strawberry.input(description="A batch of usage events.")
class RecordUsageInput:
    """A batch."""

    events: list[UsageEventInput] = said("1 to 1,000 events, of one account or several.")
    dry_run: bool = strawberry.field(default=False, description="Only say what would become of them; write nothing.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="The whole batch happens once under it, and its first answer is given again for 48 hours. "
        "Event ids alone already keep events from being counted twice.",
    )


@strawberry.type(description="What became of one event.")
class UsageEventResult:
    """A result."""

    index: int = said("The event's place in the batch, from 0.")
    event_id: str = said("Its id.")
    status: EventStatus = said("Whether it was counted.")
    code: RejectionCode | None = said("Why not; null unless rejected.")
    message: str | None = said("What to do about it, for people to read.")
    used: BigInt | None = said("The metric's figure after it.")
    limit: BigInt | None = said("The limit in force; null when unlimited, or with nothing to say.")
    budget_id: strawberry.ID | None = said("Of BUDGET_EXCEEDED: the budget that leaves no room, for `node(id:)`.")

    @classmethod
    def of(cls, result: EventResult) -> Self:
        """A result as it is shown."""
        return cls(
            index=result.index,
            event_id=result.event_id,
            status=result.status,
            code=result.code,
            message=result.message,
            used=None if result.used is None else BigInt(result.used),
            limit=None if result.limit is None else BigInt(result.limit),
            budget_id=None if result.budget_id is None else encode_id("Budget", result.budget_id),
        )


@strawberry.type(description="What became of a batch. The counts are null when it was refused as a whole.")
class RecordUsagePayload:
    """The answer to a batch."""

    accepted: int | None = strawberry.field(default=None, description="How many were counted.")
    duplicates: int | None = strawberry.field(default=None, description="How many had been counted before.")
    rejected: int | None = strawberry.field(default=None, description="How many were not counted.")
    given: strawberry.Private[Sequence[EventResult] | None] = None
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why the batch as a whole was refused; empty when it was not."
    )

    @classmethod
    def of(cls, results: Sequence[EventResult]) -> Self:
        """The answer from the results."""

        def count(status: EventStatus) -> int:
            return sum(result.status is status for result in results)

        return cls(
            accepted=count(EventStatus.ACCEPTED),
            duplicates=count(EventStatus.DUPLICATE),
            rejected=count(EventStatus.REJECTED),
            given=results,
        )

    @field
    def results(
        self,
        status: Annotated[
            list[EventStatus] | None,
            strawberry.argument(
                description="Only of events that became one of these, such as REJECTED; all otherwise."
            ),
        ] = None,
    ) -> list[UsageEventResult] | None:
        """One for each event, in the order given; null when the batch was refused as a whole."""
        if self.given is None:
            return None
        return [UsageEventResult.of(result) for result in self.given if status is None or result.status in status]
