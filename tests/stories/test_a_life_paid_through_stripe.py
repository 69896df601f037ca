"""Stripe collects, and tells by messages: twice, in any order, and instead of an answer that was lost."""

from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime

import pytest

from plafond.services.auditing import audit

from ..adapters.stripe_fake import FakeStripe, Fault, serve_fake
from ..conftest import World
from ..http.stripe_desk import Desk, open_desk
from .life import Life

START = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeStripe]:
    with serve_fake() as fake:
        yield fake


@pytest.fixture
async def desk(world: World, server: FakeStripe, address: str) -> AsyncGenerator[Desk]:  # noqa: ARG001  # writes beside
    server.forget_all()
    async with open_desk(world, server) as desk:
        yield desk


async def begin(desk: Desk, card: str = "pm_card_visa") -> Life:
    """An account that has paid its first month through Stripe."""
    life = await Life.begin(desk.client, desk.world, START, card=card)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    return life


async def statuses(life: Life) -> list[str]:
    query = "transactions(first: 50) { nodes { kind status } }"
    nodes = (await life.ask(query))["transactions"]["nodes"]
    return [f"{node['kind']} {node['status']}" for node in reversed(nodes)]


async def check_books(desk: Desk) -> None:
    async with desk.world.database.read() as session:
        found = await audit(session, desk.world.clock.now())
    # The embedded processor has no part in this life.
    assert found == []


async def test_a_life_that_is_paid_through_stripe(desk: Desk) -> None:
    """Messages twice and shuffled, at once and much later, change nothing that the answers did not."""
    life = await begin(desk)
    await life.advance(datetime(2026, 6, 1, 1, tzinfo=UTC))
    assert await statuses(life) == ["CHARGE SUCCEEDED", "CHARGE SUCCEEDED"]
    books = await life.books()
    for _ in range(2):
        await desk.tell_all()
        assert await life.books() == books
    assert await statuses(life) == ["CHARGE SUCCEEDED", "CHARGE SUCCEEDED"]
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID", "PAID"]
    charges = [asked for asked in desk.fake.asked if (asked.method, asked.path) == ("POST", "/v1/payment_intents")]
    assert len({asked.key for asked in charges}) == len(charges) == 2
    await check_books(desk)


async def test_a_payment_that_the_cardholder_confirms_is_heard_of(desk: Desk) -> None:
    life = await begin(desk, "pm_card_authenticationRequired")
    assert await statuses(life) == ["CHARGE REQUIRES_ACTION"]
    [intent] = [row for row in desk.fake.objects.values() if row["object"] == "payment_intent"]
    desk.fake.authenticate(intent["id"])
    await desk.tell_all()
    assert await statuses(life) == ["CHARGE SUCCEEDED"]
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID"]
    await check_books(desk)


async def test_a_payment_whose_answer_is_lost_is_heard_of(desk: Desk) -> None:
    life = await Life.begin(desk.client, desk.world, START)
    desk.fake.fail_next(Fault.CUT, "/v1/payment_intents")
    desk.fake.fail_next(Fault.TOO_MANY, "/v1/payment_intents")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    assert await statuses(life) == ["CHARGE UNKNOWN"]
    desk.fake.forget_faults()
    await desk.tell_all()
    assert await statuses(life) == ["CHARGE SUCCEEDED"]
    assert max(desk.fake.effects.values()) == 1
    await check_books(desk)


async def test_a_dispute_is_heard_of(desk: Desk) -> None:
    life = await begin(desk, "pm_card_createDispute")
    await desk.tell_all()
    assert await statuses(life) == ["CHARGE SUCCEEDED", "DISPUTE PENDING"]
    desk.fake.close_disputes("lost")
    await desk.tell_all()
    assert await statuses(life) == ["CHARGE SUCCEEDED", "DISPUTE SUCCEEDED"]
    await check_books(desk)
