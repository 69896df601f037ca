"""A processor that hangs, loses answers, lies, sends its messages twice and shuffled, disputes and returns refunds."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.database import Actor
from plafond.models import BillingAccount, ProcessorEvent, SandboxCharge
from plafond.sandbox.messages import deliver_messages
from plafond.schema.node import decode_id
from plafond.services.ports import EventKind, Message, RefundOrder, RefundResult
from plafond.services.processor_messages import hear
from plafond.services.test_clocks import advance_clock
from plafond.services.tills import Till

from ..conftest import Client, World
from .life import Life

START = datetime(2026, 5, 1, tzinfo=UTC)
DUE = datetime(2026, 6, 1, 1, tzinfo=UTC)
TRANSACTIONS = """transactions(first: 50) { nodes { id kind status refundState amount { amountMinor }
refundableAmount { amountMinor } charge { id } failure { code } } }"""
ADVANCE = "mutation ($input: AdvanceTestClockInput!) { advanceTestClock(input: $input) { userErrors { code } } }"


def till(world: World) -> Till:
    """A till in the worker's place."""
    return Till(world.database, SandboxProcessor(world.database), Actor(name="system:worker", origin="test"))


async def deliver(world: World) -> int:
    """All messages that wait. Gives how many were heard."""
    count = 0
    while heard := await deliver_messages(till(world)):
        count += heard
    return count


async def behave(life: Life, answers: str = "NORMAL", messages: str = "ONCE", **given: Any) -> None:
    """Have the processor behave otherwise from now on."""
    await life.do("setSandboxProcessor", answers=answers, messages=messages, **given)


async def begin(client: Client, world: World, card: str = "pm_card_visa") -> Life:
    """An account that has paid its first month."""
    life = await Life.begin(client, world, START, card=card)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await deliver(world)
    return life


async def moves(life: Life) -> list[tuple[str, str, int]]:
    """All movements, oldest first, as kind, status and amount."""
    nodes = (await life.ask(TRANSACTIONS))["transactions"]["nodes"]
    return [(node["kind"], node["status"], node["amount"]) for node in reversed(nodes)]


async def collected(world: World, life: Life) -> list[int]:
    """What the processor collected of the account, whatever we know of it."""
    found = decode_id(life.account_id)
    assert found is not None
    async with world.database.read() as session:
        account = await session.get_one(BillingAccount, found.uuid())
        rows = await session.scalars(
            select(SandboxCharge).where(
                SandboxCharge.customer == account.processor_customer, SandboxCharge.status == "SUCCEEDED"
            )
        )
        return [row.amount_minor for row in rows]


@pytest.mark.parametrize("answers", ["HANGS", "LOST_AFTER_EFFECT"])
async def test_an_outcome_that_is_not_known(client: Client, world: World, answers: str) -> None:
    """Hard case 23: it is unknown, nothing else is tried, and asking later finds the one charge or makes it."""
    life = await begin(client, world)
    await behave(life, answers, "NONE")
    for _ in range(2 if answers == "HANGS" else 1):
        answer = await client.ask(life.token, ADVANCE, input={"testClockId": life.clock_id, "to": DUE.isoformat()})
        assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE", answer  # type: ignore[index]
    assert (await moves(life))[-1] == ("CHARGE", "UNKNOWN", 4_900)
    assert (await life.subscription())["status"] == "ACTIVE"
    assert len(await collected(world, life)) == (1 if answers == "HANGS" else 2)
    await behave(life)
    await life.advance(DUE + timedelta(days=1))
    assert await moves(life) == [("CHARGE", "SUCCEEDED", 4_900)] * 2
    assert await collected(world, life) == [4_900, 4_900]
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID", "PAID"]
    await life.audit(world)


async def test_a_change_whose_answer_is_lost(client: Client, world: World) -> None:
    """It waits; the processor's message makes it true, once, however often it comes."""
    life = await begin(client, world)
    await life.advance(START + timedelta(days=10))
    await behave(life, "LOST_AFTER_EFFECT", "TWICE_SHUFFLED")
    ordered = await life.do(
        "changePlan", "pendingChange { act } transaction { status }", planKey="professional", interval="MONTH"
    )
    assert ordered["transaction"]["status"] == "UNKNOWN"
    assert (await life.subscription())["plan"]["key"] == "starter"
    await behave(life, "NORMAL", "TWICE_SHUFFLED")
    assert await deliver(world) == 2
    assert (await life.subscription())["plan"]["key"] == "professional"
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID", "PAID"]
    assert [status for _, status, _ in await moves(life)] == ["SUCCEEDED", "SUCCEEDED"]
    await life.audit(world)


async def test_an_amount_that_differs(client: Client, world: World) -> None:
    """It is flagged, and nothing is booked; when the processor tells the truth again it is."""
    life = await begin(client, world)
    await behave(life, "OTHER_AMOUNT", "NONE")
    await life.advance(DUE)
    assert (await moves(life))[-1] == ("CHARGE", "UNKNOWN", 4_900)
    assert (await life.notices())["PAYMENT_MISMATCH"]["expectedMinor"] == 4_900
    assert (await life.books())["CASH"] == 4_900
    await behave(life)
    await life.do("retryPayment")
    assert await moves(life) == [("CHARGE", "SUCCEEDED", 4_900)] * 2
    assert "PAYMENT_MISMATCH" not in await life.notices()
    await life.audit(world)


async def test_two_payers_and_ten_messages_at_once(client: Client, world: World) -> None:
    """Hard case 23: one invoice, two retries and ten messages in one moment: one charge."""
    life = await begin(client, world)
    await life.do("addPaymentMethod", token="pm_card_chargeDeclined")
    await life.advance(DUE)
    await behave(life, "NORMAL", "NONE")
    # The good card becomes the default only here, so that both payers find the invoice open.
    methods = (await life.ask("paymentMethods { id isDefault last4 }"))["paymentMethods"]
    (good,) = (method["id"] for method in methods if method["last4"] == "4242")
    first, *rest = await asyncio.gather(
        life.try_to("setDefaultPaymentMethod", paymentMethodId=good),
        *(life.try_to("retryPayment", "transactions { status }") for _ in range(2)),
    )
    assert first["userErrors"] == []
    *_, charge = [
        node
        for node in reversed((await life.ask(TRANSACTIONS))["transactions"]["nodes"])
        if node["status"] == "SUCCEEDED"
    ]
    assert charge["amount"] == 4_900
    async with world.database.read() as session:
        row = await session.scalar(
            select(SandboxCharge).where(SandboxCharge.status == "SUCCEEDED").order_by(SandboxCharge.created_at.desc())
        )
    assert row is not None
    message = Message(id="evt_again", kind=EventKind.CHARGE, subject=row.processor_id, key=row.key)
    await asyncio.gather(*(hear(till(world), message) for _ in range(10)))
    assert await collected(world, life) == [4_900, 4_900]
    assert [status for kind, status, _ in await moves(life) if status == "SUCCEEDED"] == ["SUCCEEDED"] * 2
    async with world.database.read() as session:
        heard = await session.scalar(
            select(func.count()).select_from(ProcessorEvent).where(ProcessorEvent.id == "evt_again")
        )
    assert heard == 1
    assert rest
    await life.audit(world)


@pytest.mark.parametrize(("outcome", "status"), [("WON", "CANCELED"), ("LOST", "SUCCEEDED")])
async def test_a_dispute(client: Client, world: World, outcome: str, status: str) -> None:
    """It freezes refunds and shows; lost, the bank has the money."""
    life = await begin(client, world, "pm_card_createDispute")
    nodes = (await life.ask(TRANSACTIONS))["transactions"]["nodes"]
    dispute, bought = nodes
    assert (dispute["kind"], dispute["status"], dispute["charge"]["id"]) == ("DISPUTE", "PENDING", bought["id"])
    assert bought["refundableAmount"] == 0
    assert "PAYMENT_DISPUTED" in await life.notices()
    given = {"transactionId": bought["id"], "reason": "GOODWILL"}
    assert await life.refused("requestRefund", **given) == ["REFUND_NOT_ALLOWED"]
    await behave(life, closeDisputes=outcome)
    assert await deliver(world) == 1
    assert await moves(life) == [("CHARGE", "SUCCEEDED", 4_900), ("DISPUTE", status, 4_900)]
    books = await life.books()
    assert (books.get("CASH", 0), books.get("DISPUTE_LOSSES", 0)) == ((4_900, 0) if outcome == "WON" else (0, 4_900))
    assert "PAYMENT_DISPUTED" not in await life.notices()
    if outcome == "LOST":
        assert await life.refused("requestRefund", **given) == ["REFUND_NOT_ALLOWED"]
    else:
        await life.do("requestRefund", **given)
    await life.audit(world)


async def refund(life: Life) -> tuple[str, dict[str, Any]]:
    """Ask for the newest charge back, and approve it. Gives the request's id and the review's payload."""
    bought = (await life.ask(TRANSACTIONS))["transactions"]["nodes"][0]
    asked = await life.do("requestRefund", "refundRequest { id }", transactionId=bought["id"], reason="GOODWILL")
    key = asked["refundRequest"]["id"]
    fields = "refundRequest { status } refund { status }"
    return key, await life.do("reviewRefund", fields, refundRequestId=key, decision="APPROVE")


async def test_a_refund_that_takes_days(client: Client, world: World) -> None:
    """It is with the bank until a message says that it arrived."""
    life = await begin(client, world, "pm_card_pendingRefund")
    _, done = await refund(life)
    assert (done["refundRequest"]["status"], done["refund"]["status"]) == ("APPROVED", "PENDING")
    assert (await life.books())["REFUNDS_PAYABLE"] == -4_900
    await deliver(world)
    assert await moves(life) == [("CHARGE", "SUCCEEDED", 4_900), ("REFUND", "SUCCEEDED", 4_900)]
    assert await life.books() == {}
    await life.audit(world)


async def test_a_refund_that_the_bank_returns(client: Client, world: World) -> None:
    """The money is owed: it is tried again, or given as credit."""
    life = await begin(client, world, "pm_card_refundFail")
    key, _ = await refund(life)
    await deliver(world)
    assert (await moves(life))[-1] == ("REFUND", "FAILED", 4_900)
    returned = await life.ask("transactions(first: 1) { nodes { failure { code message } receipt { url } } }")
    (refunded,) = returned["transactions"]["nodes"]
    assert (refunded["failure"]["code"], refunded["receipt"]) == ("PROCESSOR_ERROR", None)
    assert "It is owed" in refunded["failure"]["message"]
    assert (await life.books())["REFUNDS_PAYABLE"] == -4_900
    assert (await life.notices())["REFUND_FAILED"]["amountMinor"] == 4_900
    await life.audit(world)
    again = await life.do(
        "reviewRefund", "refund { status } credit { amount { amountMinor } }", refundRequestId=key, decision="CREDIT"
    )
    assert (again["refund"], again["credit"]) == (None, {"amount": 4_900})
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 4_900
    assert "REFUND_FAILED" not in await life.notices()
    await life.audit(world)


@pytest.mark.parametrize("answers", ["HANGS", "LOST_AFTER_EFFECT", "OTHER_AMOUNT"])
async def test_a_refund_whose_outcome_is_not_known(client: Client, world: World, answers: str) -> None:
    """Asked later, it is the same refund: the money goes back once."""
    life = await begin(client, world)
    await behave(life, answers, "NONE")
    _, done = await refund(life)
    assert done["refundRequest"]["status"] == "APPROVED"
    await behave(life)
    await life.advance(START + timedelta(days=1))
    assert await moves(life) == [("CHARGE", "SUCCEEDED", 4_900), ("REFUND", "SUCCEEDED", 4_900)]
    assert await life.books() == {}
    await life.audit(world)


async def test_messages_about_what_is_not_ours(client: Client, world: World) -> None:
    """An unknown charge without our mark is nothing; with it, the audit tells; neither books anything."""
    life = await begin(client, world)
    before = (await moves(life), await life.books())
    for identifier, key in (("evt_1", None), ("evt_2", "invoice:nobody:0")):
        await hear(till(world), Message(id=identifier, kind=EventKind.CHARGE, subject="ch_nobody", key=key))
    await hear(till(world), Message(id="evt_3", kind=EventKind.REFUND, subject="re_nobody"))
    await hear(till(world), Message(id="evt_4", kind=EventKind.DISPUTE, subject="dp_nobody"))
    await hear(till(world), Message(id="evt_5", kind=EventKind.METHOD, subject="pm_nobody"))
    assert (await moves(life), await life.books()) == before
    async with world.database.read() as session:
        rows = await session.scalars(select(ProcessorEvent).where(ProcessorEvent.id.startswith("evt_")))
        outcomes = {row.id: row.outcome for row in rows if len(row.id) == 5}
    assert outcomes == {
        "evt_1": "NOT_OURS",
        "evt_2": "UNKNOWN_OBJECT",
        "evt_3": "NOT_OURS",
        "evt_4": "NOT_OURS",
        "evt_5": "NOT_OURS",
    }


class Meanwhile(SandboxProcessor):
    """Whose messages are heard while somebody asks it about a refund."""

    def __init__(self, world: World) -> None:
        super().__init__(world.database)
        self.world = world

    async def find_refund(self, order: RefundOrder) -> RefundResult | None:
        """As the sandbox does, after its messages were heard."""
        await deliver(self.world)
        return await super().find_refund(order)


async def test_a_message_settles_a_refund_while_the_clock_does(client: Client, world: World) -> None:
    """Whoever comes second finds it done: that is no failure, and time goes on."""
    life = await begin(client, world, "pm_card_pendingRefund")
    (charge,) = (await life.ask(TRANSACTIONS))["transactions"]["nodes"]
    asked = await life.do(
        "requestRefund", "refundRequest { id }", transactionId=charge["id"], reason="GOODWILL", note=""
    )
    await life.do("reviewRefund", refundRequestId=asked["refundRequest"]["id"], decision="APPROVE")
    assert await moves(life) == [("CHARGE", "SUCCEEDED", 4_900), ("REFUND", "PENDING", 4_900)]
    asking = Till(world.database, Meanwhile(world), Actor(name="system:worker", origin="test"))
    found = decode_id(life.clock_id or "")
    assert found is not None
    clock = await advance_clock(asking, found.uuid(), DUE)
    assert clock.now == DUE
    assert (await moves(life))[:2] == [("CHARGE", "SUCCEEDED", 4_900), ("REFUND", "SUCCEEDED", 4_900)]
    await life.audit(world)
