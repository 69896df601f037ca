"""The address that Stripe sends its messages to: who gets in, and what is answered."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from plafond.adapters.no_processor import NoProcessor
from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.adapters.stripe_processor import StripeProcessor
from plafond.app import create_app, make_processor
from plafond.clock import SetClock
from plafond.database import Database
from plafond.http import webhooks
from plafond.http.webhooks import MAX_BYTES
from plafond.models import EntryKind, LedgerEntry, Transaction, TransactionStatus
from plafond.settings import Environment, Settings

from ..adapters.stripe_fake import WEBHOOK_SECRET, FakeStripe, Fault, serve_fake, sign
from ..conftest import NOW, World
from ..stories.life import Life
from .stripe_desk import PATH, STRIPE, Desk, open_desk


@pytest.fixture(scope="module")
def server() -> Iterator[FakeStripe]:
    with serve_fake() as fake:
        yield fake


@pytest.fixture
async def desk(world: World, server: FakeStripe, address: str) -> AsyncGenerator[Desk]:  # noqa: ARG001  # writes beside
    server.forget_all()
    async with open_desk(world, server) as desk:
        yield desk


def about(subject: str, **more: Any) -> dict[str, Any]:
    return {"object": {"id": subject, **more}}


def check_error(response: httpx2.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer["errors"][0]["extensions"]["code"] == code
    assert answer["errors"][0]["extensions"]["requestId"] == response.headers["x-request-id"]
    assert response.headers["cache-control"] == "no-store"


# Who gets in


@pytest.mark.parametrize("header", [None, "", "nonsense", f"t={int(NOW.timestamp())},v1={'0' * 64}"])
async def test_what_is_not_proved_is_refused(desk: Desk, header: str | None) -> None:
    response = await desk.send(b"{}", header)
    check_error(response, 400, "BAD_USER_INPUT")
    assert await desk.heard() == []
    assert desk.fake.asked == []


async def test_a_body_that_was_changed_is_refused(desk: Desk) -> None:
    body, header = sign(b'{"id": "evt_1"}', NOW)
    check_error(await desk.send(body + b" ", header), 400, "BAD_USER_INPUT")
    check_error(await desk.send(body, header), 400, "BAD_USER_INPUT")  # proved, and no event


async def test_two_signatures_prove_nothing(desk: Desk) -> None:
    body, header = sign(b"{}", NOW)
    headers = [("Stripe-Signature", header), ("Stripe-Signature", header)]
    check_error(await desk.http.post(PATH, content=body, headers=headers), 400, "BAD_USER_INPUT")


async def test_a_body_has_a_limit(desk: Desk) -> None:
    body, header = sign(b" " * (MAX_BYTES + 1), NOW)
    check_error(await desk.send(body, header), 413, "PAYLOAD_TOO_LARGE")

    async def drops() -> AsyncIterator[bytes]:
        for _ in range(MAX_BYTES // 1024 + 1):
            yield b" " * 1024

    response = await desk.http.post(PATH, content=drops(), headers={"Stripe-Signature": header})
    check_error(response, 413, "PAYLOAD_TOO_LARGE")
    check_error(await desk.send(*sign(b" " * MAX_BYTES, NOW)), 400, "BAD_USER_INPUT")


async def test_only_posts_are_taken(desk: Desk) -> None:
    assert (await desk.http.get(PATH)).status_code == 405


async def test_without_stripe_there_is_no_such_address(world: World) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(world.app), base_url="http://plafond.test") as http:
        assert (await http.post(PATH, content=b"{}")).status_code == 404


# What is answered


async def test_what_means_nothing_is_taken(desk: Desk) -> None:
    response = await desk.tell(type="customer.created", data=about("cus_1"))
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    response = await desk.tell(livemode=True, data=about("pi_1"))
    assert response.status_code == 200
    assert await desk.heard() == []


async def test_what_is_not_ours_is_noted_once(desk: Desk) -> None:
    for _ in range(3):
        assert (await desk.tell(data=about("pi_foreign"))).status_code == 200
    assert await desk.heard() == [("pi_foreign", "NOT_OURS")]


@pytest.mark.parametrize("fault", [Fault.TOO_MANY, Fault.CUT, Fault.NOT_JSON])
async def test_what_cannot_be_looked_at_is_sent_again(desk: Desk, fault: Fault) -> None:
    given = about("pi_1", metadata={"plafond_key": "invoice:1:0"})
    desk.fake.fail_next(fault)
    response = await desk.tell(data=given)
    check_error(response, 503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) > 0
    assert await desk.heard() == []
    assert (await desk.tell(data=given)).status_code == 200
    assert len(await desk.heard()) == 1


# Which processor


async def test_settings_decide_who_collects(bare_database: Database) -> None:
    stripe = make_processor(Settings(**STRIPE), bare_database)
    assert isinstance(stripe, StripeProcessor)
    await stripe.close()
    assert isinstance(make_processor(Settings(), bare_database), SandboxProcessor)
    assert isinstance(make_processor(Settings(environment=Environment.PRODUCTION), bare_database), NoProcessor)


@pytest.fixture
async def bare_database(tmp_path: Path) -> AsyncGenerator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}", SetClock(NOW), lambda _: None)
    yield database
    await database.close()


def test_whoever_does_not_use_stripe_does_not_load_it(tmp_path: Path) -> None:
    code = f"""
import sys
from plafond.app import create_app
from plafond.settings import Settings
given = dict(database_url="sqlite:///{tmp_path / "none.db"}")
create_app(Settings(**given))
assert "stripe" not in sys.modules
create_app(Settings(**given, stripe_key="sk_test_x", stripe_webhook_secrets="whsec_x"))
assert "stripe" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


# Forged, from the outside


STAMP = int(NOW.timestamp())
BODY, HEADER = sign(
    json.dumps({"id": "evt_1", "type": "payment_intent.succeeded", "livemode": False, "data": about("pi_1")}).encode(),
    NOW,
)
SIGNATURE = HEADER.partition("v1=")[2]
FORGED: dict[str, str] = {
    "of another body": sign(b"{}", NOW)[1],
    "by another secret": sign(BODY, NOW, secret="whsec_of_somebody_else")[1],
    "only by an older scheme": f"t={STAMP},v0={SIGNATURE}",
    "cut": HEADER[:-1],
    "very long": f"t={STAMP},v1=" + "0" * 50_000,
    "not ASCII": f"t={STAMP},v1=" + "ÿ" * 64,
    "by many, all wrong": f"t={STAMP}" + f",v1={'0' * 64}" * 10,
    "right behind too many": f"t={STAMP}" + f",v1={'0' * 64}" * 1_000 + f",v1={SIGNATURE}",
    "without its time": f"v1={SIGNATURE}",
    "at 0": f"t=0,v1={SIGNATURE}",
    "at -1": f"t=-1,v1={SIGNATURE}",
    "at a time without end": f"t={'9' * 5_000},v1={SIGNATURE}",
    "ten minutes old": sign(BODY, NOW - timedelta(minutes=10))[1],
    "an hour ahead": sign(BODY, NOW + timedelta(hours=1))[1],
    "as old as time": sign(BODY, datetime.fromtimestamp(0, UTC))[1],
}


@pytest.mark.parametrize("name", FORGED)
async def test_what_is_forged_does_nothing(desk: Desk, name: str) -> None:
    header = FORGED[name].encode("latin-1")
    response = await desk.http.post(PATH, content=BODY, headers=[(b"Stripe-Signature", header)])
    check_error(response, 400, "BAD_USER_INPUT")
    assert "signature" not in response.text.lower()  # which part is wrong is nobody's business
    assert await desk.heard() == []
    assert desk.fake.asked == []


async def test_two_secrets_are_taken_while_one_is_exchanged(
    world: World,
    server: FakeStripe,
    address: str,  # noqa: ARG001  # writes beside
) -> None:
    server.forget_all()
    secrets = (SecretStr("whsec_new"), SecretStr(WEBHOOK_SECRET))
    given = {**STRIPE, "stripe_url": server.url, "stripe_webhook_secrets": secrets}
    app = create_app(world.settings.model_copy(update=given), with_worker=False, clock=world.clock)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://plafond.test") as http,
    ):
        for secret, status in (("whsec_new", 200), (WEBHOOK_SECRET, 200), ("whsec_old", 400)):
            body, header = sign(BODY, NOW, secret=secret)
            response = await http.post(PATH, content=body, headers={"Stripe-Signature": header})
            assert response.status_code == status


async def test_a_database_that_is_away_is_told_of_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "hear", fail)
        response = await desk.send(BODY, HEADER)
    check_error(response, 503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) > 0
    assert (await desk.send(BODY, HEADER)).status_code == 200


async def test_a_message_that_comes_twelve_times_at_once_is_booked_once(desk: Desk) -> None:
    life = await Life.begin(desk.client, desk.world, NOW, card="pm_card_authenticationRequired")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    [intent] = [row for row in desk.fake.objects.values() if row["object"] == "payment_intent"]
    desk.fake.authenticate(intent["id"])
    [event] = [event for event in desk.fake.events if event["type"] == "payment_intent.succeeded"]
    body, header = sign(json.dumps(event).encode(), NOW)
    answers = await asyncio.gather(*(desk.send(body, header) for _ in range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert await desk.heard() == [(intent["id"], "HEARD")]
    async with desk.world.database.read() as session:
        charge = (await session.scalars(select(Transaction).where(Transaction.processor_id == intent["id"]))).one()
        assert charge.status is TransactionStatus.SUCCEEDED
        entries = select(LedgerEntry.kind).where(LedgerEntry.subject == f"transaction:{charge.id}")
        assert list(await session.scalars(entries)) == [EntryKind.PAYMENT]
