"""A stock server of Strawberry with the same subscription, to measure the fan-out against: all in memory, no rights."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from enum import Enum

import strawberry
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL


@strawberry.enum
class ChangeKind(Enum):
    """The kinds that are sent here."""

    ALERT = "ALERT"
    SNAPSHOT = "SNAPSHOT"


@strawberry.interface
class Node:
    """An object with an id."""

    id: strawberry.ID


@strawberry.type
class Alert(Node):
    """The fields that are asked for."""

    level: str
    threshold: int
    used: int
    limit: int
    percent: int
    message: str
    raised_at: datetime


@strawberry.type
class AccountChange:
    """The same envelope."""

    cursor: str
    kind: ChangeKind
    at: datetime
    node: Node | None


queues: set["asyncio.Queue[AccountChange]"] = set()


@strawberry.type
class Query:
    """A schema has one."""

    version: str = "1"


@strawberry.type
class Subscription:
    """The root of subscriptions."""

    @strawberry.subscription
    async def account_changed(
        self,
        account_id: strawberry.ID,
        kinds: list[ChangeKind] | None = None,  # noqa: ARG002  # the same document is sent to both
    ) -> AsyncGenerator[AccountChange, None]:
        """A queue for each subscriber, as the documentation of Strawberry has it."""
        queue: asyncio.Queue[AccountChange] = asyncio.Queue()
        queues.add(queue)
        try:
            yield AccountChange(cursor=account_id, kind=ChangeKind.SNAPSHOT, at=datetime.now(UTC), node=None)
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)


async def publish(number: int) -> None:
    """One alert for all."""
    alert = Alert(
        id=strawberry.ID(f"QWxlcnQ6MDE5YWMzY2UtNGU3Mi03ZjM2LThmZDItMDAwMDAwMDAw{number:06d}"),
        level="WARNING",
        threshold=80,
        used=8,
        limit=10,
        percent=80,
        message="Workspaces: 8 of 10 used (80 %).",
        raised_at=datetime.now(UTC),
    )
    change = AccountChange(
        cursor=f"Z2VuZXJhdGVkLWN1cnNvci{number:06d}", kind=ChangeKind.ALERT, at=alert.raised_at, node=alert
    )
    for queue in queues:
        queue.put_nowait(change)


schema = strawberry.Schema(query=Query, subscription=Subscription, types=[Alert])
app = Starlette(
    routes=[WebSocketRoute("/graphql", GraphQL(schema, subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,)))]
)
