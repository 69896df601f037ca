"""What a bank takes back for good is no longer owed, and goes back no second time."""

import pytest
from sqlalchemy import select, update

from plafond.models import (
    InvoiceStatus,
    LedgerAccount,
    RefundReason,
    RefundRequest,
    RefundStatus,
    SandboxAnswers,
    SandboxCharge,
    SandboxDispute,
    SandboxMessages,
    Transaction,
)
from plafond.models import TransactionStatus as S
from plafond.services.errors import Conflict, RefundNotAllowed
from plafond.services.ports import EventKind, Message
from plafond.services.processor_messages import hear
from plafond.services.refunds import RefundDecision
from plafond.services.tills import Till

from ..conftest import World
from .engine import ask_back, decide_refund, first_charge, hear_all, lose_disputes, pay_by_transfer
from .helpers import ACTOR
from .paying import MONTH, answer, begin, books_of, charges_of, check, clock_of, do_all, heal

DISPUTED = "pm_card_createDispute"


async def dispute(world: World, till: Till, charge: Transaction, amount_minor: int) -> None:
    """A cardholder disputes (a part of) a charge, and their bank begins to look into it."""
    assert charge.processor_id is not None, "it paid"
    async with world.database.work(ACTOR) as work:
        work.session.add(
            SandboxDispute(
                charge_id=charge.processor_id,
                processor_id="dp_test",
                amount_minor=amount_minor,
                status=S.PENDING,
                created_at=work.clock.now(),
            )
        )
    await hear(till, Message(id="evt_dispute", kind=EventKind.DISPUTE, subject="dp_test"))


async def become(world: World, charge: Transaction, token: str) -> None:
    """Have a card behave as another one from now on."""
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(SandboxCharge).where(SandboxCharge.processor_id == charge.processor_id).values(token=token)
        )


async def test_what_was_paid_twice_and_is_taken_back_is_not_owed(world: World) -> None:
    till, _, account_id = await begin(world, DISPUTED)
    await answer(world, account_id, SandboxAnswers.LOST_AFTER_EFFECT, SandboxMessages.NONE)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    await pay_by_transfer(till, account_id, 4_900, status=InvoiceStatus.OPEN)
    await heal(world, till, account_id)
    last = (await charges_of(world, account_id))[-1]
    assert last.excess_minor == 4_900
    asked = await ask_back(till, last.id, RefundReason.DUPLICATE, None, None)
    async with world.database.read() as session:
        made = await session.scalar(
            select(SandboxDispute.processor_id).where(SandboxDispute.charge_id == last.processor_id)
        )
    assert made is not None
    await hear(till, Message(id="evt_disputed", kind=EventKind.DISPUTE, subject=made))
    with pytest.raises(RefundNotAllowed):
        await decide_refund(till, asked, RefundDecision.APPROVE)
    await hear_all(till)
    await answer(world, account_id, SandboxAnswers.NORMAL, SandboxMessages.ONCE)
    await lose_disputes(till, account_id)
    books = await books_of(world, account_id)
    assert LedgerAccount.REFUNDS_PAYABLE not in books, "what was owed is with the bank"
    assert books[LedgerAccount.DISPUTE_LOSSES] == 4_900, "the first month's is lost, the second one's was not ours"
    for decision in (RefundDecision.APPROVE, RefundDecision.CREDIT):
        with pytest.raises(RefundNotAllowed):
            await decide_refund(till, asked, decision)
    await check(world, account_id)


async def failed_refund(world: World, till: Till, charge: Transaction, amount_minor: int) -> RefundRequest:
    """A refund that was approved, and that the bank returned."""
    await become(world, charge, "pm_card_refundFail")
    asked = await ask_back(till, charge.id, RefundReason.GOODWILL, amount_minor, RefundDecision.APPROVE)
    await hear_all(till)
    async with world.database.read() as session:
        request = await session.get_one(RefundRequest, asked)
    assert request.status is RefundStatus.FAILED
    return request


@pytest.mark.parametrize("decision", [RefundDecision.APPROVE, RefundDecision.CREDIT])
async def test_a_refund_that_failed_is_not_made_again_after_a_loss(world: World, decision: RefundDecision) -> None:
    till, _, account_id = await begin(world)
    await hear_all(till)
    async with world.database.read() as session:
        charge = await session.get_one(Transaction, await first_charge(till, account_id))
    request = await failed_refund(world, till, charge, 4_900)
    await dispute(world, till, charge, 4_900)
    with pytest.raises(RefundNotAllowed):
        await decide_refund(till, request.id, decision)
    await lose_disputes(till, account_id)
    with pytest.raises(Conflict):
        await decide_refund(till, request.id, decision)
    assert await books_of(world, account_id) == {}
    await check(world, account_id)


@pytest.mark.parametrize("decision", [RefundDecision.APPROVE, RefundDecision.CREDIT])
async def test_what_a_loss_leaves_of_a_refund_that_failed_still_goes_back(
    world: World, decision: RefundDecision
) -> None:
    till, _, account_id = await begin(world)
    await hear_all(till)
    async with world.database.read() as session:
        charge = await session.get_one(Transaction, await first_charge(till, account_id))
    request = await failed_refund(world, till, charge, 4_000)
    await dispute(world, till, charge, 3_000)
    await lose_disputes(till, account_id)
    books = await books_of(world, account_id)
    assert books[LedgerAccount.REFUNDS_PAYABLE] == -1_900, "of 49.00 the bank has 30.00"
    assert books[LedgerAccount.DISPUTE_LOSSES] == 900
    await check(world, account_id)
    await become(world, charge, "pm_card_visa")
    await decide_refund(till, request.id, decision)
    books = await books_of(world, account_id)
    assert LedgerAccount.REFUNDS_PAYABLE not in books
    assert books.get(LedgerAccount.CUSTOMER_CREDIT, 0) == (-1_900 if decision is RefundDecision.CREDIT else 0)
    await check(world, account_id)


async def test_a_refund_that_fails_after_a_loss_is_not_owed(world: World) -> None:
    """The bank had both for a while; what it returns is what it took before."""
    till, _, account_id = await begin(world, "pm_card_pendingRefund")
    await hear_all(till)
    async with world.database.read() as session:
        charge = await session.get_one(Transaction, await first_charge(till, account_id))
    asked = await ask_back(till, charge.id, RefundReason.GOODWILL, 4_900, RefundDecision.APPROVE)
    await hear_all(till)
    await dispute(world, till, charge, 4_900)
    await lose_disputes(till, account_id)
    assert (await books_of(world, account_id))[LedgerAccount.DISPUTE_LOSSES] == 4_900
    await become(world, charge, "pm_card_refundFail")
    async with world.database.read() as session:
        refund = (await session.scalars(select(Transaction).where(Transaction.refund_request_id == asked))).one()
    assert refund.processor_id is not None
    await hear(till, Message(id="evt_returned", kind=EventKind.REFUND, subject=refund.processor_id))
    assert await books_of(world, account_id) == {}
    await check(world, account_id)
