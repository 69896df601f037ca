"""Events: what happened, over all accounts of a caller, in the order and by the ids of webhooks."""

from datetime import datetime
from typing import Any, Self

import strawberry

from .. import models
from ..services.events import KEPT_DAYS, cursor_of, describe_event
from .billing import BillingAccount
from .context import Info
from .fields import field, said
from .node import Node, encode_id
from .scalars import JsonObject


@strawberry.type(description=f"Something that happened. It is kept for {KEPT_DAYS} days.")
class BillingEvent(Node):
    """An event."""

    account_id: strawberry.Private[Any]
    id: strawberry.ID = said("The same as the `webhook-id` of its messages: whoever reads both drops what came twice.")
    cursor: str = said("Its place among all events: given as `after`, `events` goes on behind it.")
    type: str = said("What happened, such as invoice.paid; docs/webhooks.md lists the types.")
    version: int = said("The version of the payload's shape.")
    at: datetime = said("When it happened, in the account's time: its test clock's, where it has one.")
    payload: JsonObject = said(
        "What it is about: ids that `node` finds, numbers, states. It says what was then; read the objects for what is."
    )

    @classmethod
    def of(cls, row: models.OutboxEvent) -> Self:
        """An event from its row."""
        return cls(
            account_id=row.account_id,
            id=encode_id("BillingEvent", row.id),
            cursor=cursor_of(row),
            type=row.kind,
            version=row.version,
            at=row.at,
            payload=JsonObject(describe_event(row, "")["data"]),
        )

    @field
    async def account(self, info: Info) -> BillingAccount:
        """The account it happened to."""
        row = await info.context.load.account(self.account_id)
        assert row is not None, "a foreign key guarantees the account"
        return BillingAccount.of(row)
