"""An application that collects through a fake of Stripe, and the fake's messages to it."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from pydantic import SecretStr
from sqlalchemy import select

from plafond.app import create_app
from plafond.models import ProcessorEvent

from ..adapters.stripe_fake import SECRET_KEY, WEBHOOK_SECRET, FakeStripe, sign
from ..conftest import NOW, Client, World

PATH = "/webhooks/stripe"
STRIPE: dict[str, Any] = {
    "stripe_key": SecretStr(SECRET_KEY),
    "stripe_webhook_secrets": (SecretStr(WEBHOOK_SECRET),),
    "stripe_publishable_key": "pk_test_x",
}


class Desk:
    """An application whose processor is the fake."""

    def __init__(self, world: World, fake: FakeStripe, http: httpx2.AsyncClient) -> None:
        self.world = world
        self.fake = fake
        self.http = http
        self.client = Client(http)

    async def send(self, body: bytes, header: str | None) -> httpx2.Response:
        headers = {} if header is None else {"Stripe-Signature": header}
        return await self.http.post(PATH, content=body, headers=headers)

    async def tell(self, **given: Any) -> httpx2.Response:
        """Send an event that the fake would sign."""
        event = {"id": "evt_1", "object": "event", "livemode": False, "type": "payment_intent.succeeded", **given}
        return await self.send(*sign(json.dumps(event).encode(), NOW))

    async def tell_all(self) -> None:
        """Deliver all that happened, twice and in any order."""
        for body, header in self.fake.deliveries(NOW):
            response = await self.send(body, header)
            assert response.status_code == 200, response.text

    async def heard(self) -> list[tuple[str, str]]:
        """What was noted, as subject and outcome."""
        async with self.world.database.read() as session:
            rows = await session.scalars(select(ProcessorEvent))
            return [(row.subject, row.outcome) for row in rows]


@asynccontextmanager
async def open_desk(world: World, fake: FakeStripe) -> AsyncGenerator[Desk]:
    settings = world.settings.model_copy(update={**STRIPE, "stripe_url": fake.url})
    app = create_app(settings, with_worker=False, clock=world.clock)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://plafond.test") as http,
    ):
        yield Desk(world, fake, http)
