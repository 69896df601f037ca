"""F11: the processor hangs, loses answers, tells another amount, breaks off: asked again under the same key, once."""

import asyncio
import copy
import json
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import func, select

from plafond.adapters.stripe_processor import StripeProcessor
from plafond.database import take_snapshot
from plafond.migrations import migrate_database
from plafond.models import Notice, SandboxAnswers, SandboxMessages, Transaction, TransactionStatus
from plafond.services.auditing import audit
from plafond.settings import Environment

from ..adapters.stripe_fake import SECRET_KEY, WEBHOOK_SECRET, FakeStripe, Fault, serve_fake, sign
from ..conftest import _address, _create_postgres, _drop_postgres
from .fire import ALL, Battlefield, Collected, Fight, Kind, behave, fight, prepare
from .runner import until

HOURS = timedelta(hours=7)
"""By then whatever differed is looked at again."""


async def count_unknown(fought: Fight) -> int:
    """How many charges and refunds nobody knows the end of."""
    async with fought.database.read() as session:
        found = await session.scalar(
            select(func.count()).select_from(Transaction).where(Transaction.status == TransactionStatus.UNKNOWN)
        )
    return found or 0


async def list_mismatches(fought: Fight) -> int:
    """How many amounts differ, as operators are told."""
    async with fought.database.read() as session:
        found = await session.scalar(select(func.count()).select_from(Notice).where(Notice.code == "PAYMENT_MISMATCH"))
    return found or 0


@pytest.mark.parametrize(
    ("answers", "messages"),
    [
        (SandboxAnswers.LOST_AFTER_EFFECT, SandboxMessages.NONE),
        *(
            pytest.param(answers, messages, marks=pytest.mark.slow)
            for answers in (SandboxAnswers.HANGS, SandboxAnswers.LOST_AFTER_EFFECT, SandboxAnswers.OTHER_AMOUNT)
            for messages in (SandboxMessages.NONE, SandboxMessages.TWICE_SHUFFLED)
            if (answers, messages) != (SandboxAnswers.LOST_AFTER_EFFECT, SandboxMessages.NONE)
        ),
    ],
)
async def test_a_processor_that_misbehaves(
    battlefield: Battlefield, tmp_path: Path, answers: SandboxAnswers, messages: SandboxMessages
) -> None:
    kinds = [kind for kind in ALL if kind is not Kind.PATIENT or messages is not SandboxMessages.NONE]
    async with fight(battlefield, tmp_path, *kinds) as fought:
        await behave(fought.database, fought.parties, answers, messages)
        await fought.serve()
        fought.begin()
        is_told = messages is not SandboxMessages.NONE and answers is not SandboxAnswers.HANGS

        async def is_in_the_dark() -> bool:
            if answers is SandboxAnswers.OTHER_AMOUNT:
                return is_told or await list_mismatches(fought) >= 4
            return is_told or await count_unknown(fought) >= 4

        await until(is_in_the_dark)
        async with fought.database.read() as session:
            await take_snapshot(session)
            assert await audit(session, datetime.now(UTC)) == []
        await behave(fought.database, fought.parties, SandboxAnswers.NORMAL, messages)
        fought.span = HOURS
        await fought.finish()
        assert not await list_mismatches(fought)


# --- the adapter of Stripe, against a fake of it ---------------------------------------------------------------------

AT_STRIPE = (Kind.BUYER, Kind.DEBTOR, Kind.RENEWER, Kind.UNHAPPY, Kind.PATIENT, Kind.TRANSFEROR)
QUICK_FAULTS = (
    Fault.FAILS_AFTER_EFFECT,
    Fault.CUT,
    Fault.TOO_MANY,
    Fault.LOCKED,
    Fault.NOT_JSON,
    Fault.NOT_AN_OBJECT,
    Fault.OTHER_AMOUNT,
)
"""The others take as long as the adapter waits."""
PATHS = ("/v1/payment_intents", "/v1/refunds")
REMEMBERED = ("objects", "effects", "events", "_answers", "_count")


@dataclass(frozen=True)
class AtStripe:
    """A battlefield whose accounts are known to a fake of Stripe, and what that knew before."""

    field: Battlefield
    fake: FakeStripe
    before: dict[str, Any]


@pytest.fixture(scope="session")
def at_stripe(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtStripe]:
    """An account of most kinds."""
    name = f"plafond_fire_{uuid4().hex[:12]}"
    if engine == "sqlite":
        name = str(tmp_path_factory.mktemp("stripe") / "fire.db")
    else:
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    with serve_fake() as fake:

        async def make() -> Battlefield:
            processor = StripeProcessor(SECRET_KEY, base_url=fake.url)
            try:
                return await prepare(engine, address, kinds=AT_STRIPE, processor=processor)
            finally:
                await processor.close()

        field = asyncio.run(make())
        yield AtStripe(field, fake, copy.deepcopy({name: vars(fake)[name] for name in REMEMBERED}))
    if engine == "postgresql":
        _drop_postgres(name)


def return_to(fake: FakeStripe, before: dict[str, Any]) -> None:
    """Let the fake know what it knew."""
    fake.forget_all()
    vars(fake).update(copy.deepcopy(before))


def look_at(fake: FakeStripe) -> Collected:
    """What it collected and paid back, by our keys."""
    moved: dict[str, list[tuple[str, int]]] = {"payment_intent": [], "refund": []}
    for row in list(fake.objects.values()):
        if row["object"] in moved and row["status"] == "succeeded":
            moved[row["object"]].append((row["metadata"]["plafond_key"], row["amount"]))
    return Collected(moved["payment_intent"], moved["refund"])


@asynccontextmanager
async def posting(fought: Fight, fake: FakeStripe, chance: random.Random) -> AsyncGenerator[None]:
    """Bring the fake's messages to the server until the end: twice, in any order, and again when they were refused."""

    async def post() -> None:
        told: dict[str, int] = {}
        while True:
            waiting = [event for event in list(fake.events) if told.get(event["id"], 0) < 2]
            for event in chance.sample(waiting, len(waiting)):
                if await _post(fought, event):
                    told[event["id"]] = told.get(event["id"], 0) + 1
            await asyncio.sleep(0.05)

    postman = asyncio.create_task(post())
    try:
        yield
    finally:
        postman.cancel()
        await asyncio.wait([postman])


async def _post(fought: Fight, event: dict[str, Any]) -> bool:
    await fought.front.up.wait()
    body, header = sign(json.dumps(event).encode(), datetime.now(UTC))
    try:
        response = await fought.front.http.post(
            f"http://127.0.0.1:{fought.front.port}/webhooks/stripe",
            content=body,
            headers={"Stripe-Signature": header},
        )
    except httpx2.HTTPError:
        return False
    assert response.status_code in (200, 503), response.text
    return response.status_code == 200


def settings_of(fake: FakeStripe) -> dict[str, str]:
    """How a server finds the fake."""
    return {"stripe_key": SECRET_KEY, "stripe_url": fake.url, "stripe_webhook_secrets": WEBHOOK_SECRET}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "faults", "count"),
    [*((seed, QUICK_FAULTS, 8) for seed in range(1, 9)), (9, (Fault.HANGS, Fault.DRIPS), 2)],
    ids=str,
)
async def test_stripe_misbehaves(
    at_stripe: AtStripe, tmp_path: Path, seed: int, faults: tuple[Fault, ...], count: int
) -> None:
    """Calls go wrong in all ways while money moves, and the server is killed in the middle of it."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    fake = at_stripe.fake
    return_to(fake, at_stripe.before)
    async with fight(at_stripe.field, tmp_path) as fought, posting(fought, fake, chance):
        fought.collected = lambda: look_at(fake)
        for _ in range(count):
            fake.fail_next(chance.choice(faults), chance.choice(PATHS))
        server = await fought.serve(settings=settings_of(fake))
        fought.begin(chance)
        await asyncio.sleep(chance.uniform(0.1, 0.8))
        server.kill()
        await fought.fall(server)
        await fought.serve(settings=settings_of(fake))
        fought.span = HOURS
        await fought.finish()
        # One effect for each key, however often it was asked for.
        assert {key for key, made in fake.effects.items() if made > 1} == set()
        assert not await list_mismatches(fought)
