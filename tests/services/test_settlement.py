"""Charges that do not end at once: asked for once, however often they are taken up, and not for what is paid."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from plafond.models import (
    DueWork,
    FailureCode,
    InvoiceLine,
    InvoiceStatus,
    LedgerAccount,
    Notice,
    PaymentMethod,
    SandboxAnswers,
    SandboxCharge,
    SandboxDispute,
    Subscription,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    WorkKind,
)
from plafond.models import TransactionStatus as S
from plafond.services import crediting, payments
from plafond.services.collection import MAX_BY_HAND
from plafond.services.due_work import MAX_TRIES, list_parked, withdraw
from plafond.services.duties import do_due, release_account
from plafond.services.errors import Conflict, PaymentFailed
from plafond.services.idempotency import Request
from plafond.services.methods import refresh_method
from plafond.services.ports import (
    ChargeResult,
    ChargeStatus,
    EventKind,
    Message,
    ProcessorFailed,
    RefundOrder,
)
from plafond.services.processor_messages import hear
from plafond.services.retries import retry_payment
from plafond.services.settlement import record_result
from plafond.services.tills import Till

from ..conftest import World
from .engine import VISA, add_card, cancel_now, pay_by_transfer
from .helpers import ACTOR, OPERATOR
from .paying import (
    BACKOFF,
    MONTH,
    answer,
    begin,
    books_of,
    charges_of,
    check,
    clock_of,
    do_all,
    events_of,
    heal,
    leave_unknown,
    newest_invoice,
)


async def test_a_charge_that_was_parked_is_asked_about_before_it_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong was ours, after the processor had answered: by the release it may have forgotten the key."""
    till, processor, account_id = await begin(world)

    def fail(*_: object) -> None:
        raise RuntimeError("it fails after the processor answered")

    monkeypatch.setattr("plafond.services.settlement.note_result", fail)
    clock_of(world).stands_at += MONTH
    for _ in range(MAX_TRIES):
        await do_all(till, account_id)
        clock_of(world).stands_at += BACKOFF
    async with world.database.read() as session:
        [parked] = [row for row in await list_parked(session, 10) if row.account_id == account_id]
    assert (await charges_of(world, account_id))[-1].status is S.PENDING
    monkeypatch.setattr("plafond.services.settlement.note_result", payments.note_result)
    clock_of(world).stands_at += timedelta(days=2)
    async with till.work() as work:
        await release_account(work, (await work.lock_accounts([account_id]))[account_id])
    await do_all(till, account_id)
    assert len(processor.charged) == len(set(processor.charged)) == 2
    assert [row.status for row in await charges_of(world, account_id)] == [S.SUCCEEDED] * 2
    assert (await newest_invoice(world, account_id)).status is InvoiceStatus.PAID
    async with world.database.read() as session:
        done = await session.get_one(DueWork, parked.id)
        assert done.tries > parked.tries, "what tells holders apart never falls"
        assert done.failures == 0
    await check(world, account_id)


async def test_an_invoice_that_was_paid_meanwhile_is_not_charged(world: World) -> None:
    """The processor is away, a transfer is booked: what was not charged by then is not charged any more."""
    till, processor, account_id = await begin(world)
    await leave_unknown(world, till, account_id)
    await pay_by_transfer(till, account_id, 4_900, status=InvoiceStatus.OPEN)
    await heal(world, till, account_id)
    assert len(processor.charged) == 2, "the second one was not even begun"
    assert [row.status for row in await charges_of(world, account_id)] == [S.SUCCEEDED, S.CANCELED]
    invoice = await newest_invoice(world, account_id)
    assert (invoice.status, invoice.payment_failed_at) == (InvoiceStatus.PAID, None)
    assert "invoice.payment_failed" not in await events_of(world, account_id)
    await check(world, account_id)


async def test_an_invoice_that_was_paid_before_it_was_charged_is_not(world: World) -> None:
    """No answer was lost here: the worker had not come to it yet."""
    till, processor, account_id = await begin(world)
    clock_of(world).stands_at += MONTH
    while not [row for row in await charges_of(world, account_id) if row.status is S.PENDING]:
        assert await do_due(till, limit=1, account_id=account_id)
    await pay_by_transfer(till, account_id, 4_900, status=InvoiceStatus.OPEN)
    await do_all(till, account_id)
    assert len(processor.charged) == 1
    assert [row.status for row in await charges_of(world, account_id)] == [S.SUCCEEDED, S.CANCELED]
    await check(world, account_id)


async def test_what_was_charged_before_it_was_paid_otherwise_goes_back(world: World) -> None:
    """It went through, and only its answer was lost: both came, and one is owed."""
    till, _, account_id = await begin(world)
    await answer(world, account_id, SandboxAnswers.LOST_AFTER_EFFECT)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    await pay_by_transfer(till, account_id, 4_900, status=InvoiceStatus.OPEN)
    await heal(world, till, account_id)
    last = (await charges_of(world, account_id))[-1]
    assert (last.status, last.excess_minor) == (S.SUCCEEDED, 4_900)
    await check(world, account_id)


@pytest.mark.parametrize("by", ["transfer", "credit"])
async def test_what_is_left_is_charged_instead(world: World, by: str) -> None:
    """A part was paid or credited: the charge of the whole is given up, which is no failure, and the rest asked for."""
    till, _, account_id = await begin(world)
    await leave_unknown(world, till, account_id)
    if by == "transfer":
        await pay_by_transfer(till, account_id, 2_000, status=InvoiceStatus.OPEN)
    else:
        await cancel_now(till, account_id, prorated=True)
    left = (await newest_invoice(world, account_id)).due_minor
    assert 0 < left < 4_900
    await heal(world, till, account_id)
    moves = [(row.status, row.amount_minor) for row in await charges_of(world, account_id)]
    assert moves == [(S.SUCCEEDED, 4_900), (S.CANCELED, 4_900), (S.SUCCEEDED, left)]
    invoice = await newest_invoice(world, account_id)
    assert (invoice.status, invoice.payment_failed_at) == (InvoiceStatus.PAID, None)
    assert "invoice.payment_failed" not in await events_of(world, account_id)
    await check(world, account_id)


async def test_a_charge_that_failed_and_went_through_all_the_same(world: World) -> None:
    """Another one paid the invoice meanwhile: both came, and the second is owed back."""
    till, processor, account_id = await begin(world)
    await add_card(till, account_id, "pm_card_authenticationRequired")
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    await add_card(till, account_id, VISA)
    paid, failed, again = await charges_of(world, account_id)
    assert [row.status for row in (paid, failed, again)] == [S.SUCCEEDED, S.FAILED, S.SUCCEEDED]
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(SandboxCharge).where(SandboxCharge.key == failed.processor_key).values(status=S.SUCCEEDED)
        )
    assert failed.processor_id is not None
    result = await processor.look_up(failed.processor_id)
    assert result is not None
    for _ in range(2):
        await record_result(till, failed.id, result)
    _, late, again = await charges_of(world, account_id)
    assert [(row.status, row.excess_minor) for row in (late, again)] == [(S.SUCCEEDED, 4_900), (S.SUCCEEDED, 0)]
    assert (await books_of(world, account_id))[LedgerAccount.REFUNDS_PAYABLE] == -4_900
    await check(world, account_id)


@pytest.mark.parametrize("status", [S.UNKNOWN, S.PENDING])
async def test_a_dispute_that_is_heard_of_before_its_charge(world: World, status: S) -> None:
    """Our own answer was lost, so that the processor's id is not known here yet: the key tells whose it is."""
    till, _, account_id = await begin(world, "pm_card_createDispute")
    await answer(world, account_id, SandboxAnswers.LOST_AFTER_EFFECT)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    last = (await charges_of(world, account_id))[-1]
    assert (last.status, last.processor_id) == (S.UNKNOWN, None)
    async with world.database.work(ACTOR) as work:
        (await work.session.get_one(Transaction, last.id)).status = status
    async with world.database.read() as session:
        found = (
            await session.scalars(
                select(SandboxDispute.processor_id)
                .join(SandboxCharge, SandboxCharge.processor_id == SandboxDispute.charge_id)
                .where(SandboxCharge.key == last.processor_key)
            )
        ).one()
    message = Message(id="evt_early", kind=EventKind.DISPUTE, subject=found)
    await answer(world, account_id, SandboxAnswers.HANGS)
    with pytest.raises(ProcessorFailed):
        await hear(till, message)
    await answer(world, account_id, SandboxAnswers.NORMAL)
    await hear(till, message)
    async with world.database.read() as session:
        dispute = await session.scalar(select(Transaction).where(Transaction.charge_id == last.id))
    assert dispute is not None
    assert (dispute.kind, dispute.status) == (TransactionKind.DISPUTE, S.PENDING)
    assert (await charges_of(world, account_id))[-1].status is S.SUCCEEDED


async def test_a_refund_of_a_charge_that_is_not_known_to_be_paid(world: World) -> None:
    """Somebody paid back by the processor's own pages, before our charge had its id: operators are told."""
    till, processor, account_id = await begin(world)
    await answer(world, account_id, SandboxAnswers.LOST_AFTER_EFFECT)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    last = (await charges_of(world, account_id))[-1]
    await answer(world, account_id, SandboxAnswers.NORMAL)
    async with world.database.read() as session:
        charge = await session.get_one(SandboxCharge, last.processor_key)
    by_hand = await processor.refund(
        RefundOrder(key="by hand", charge_id=charge.processor_id, amount_minor=1_000, currency="USD")
    )
    assert by_hand.processor_id is not None
    await hear(till, Message(id="evt_by_hand", kind=EventKind.REFUND, subject=by_hand.processor_id))
    async with world.database.read() as session:
        codes = set(await session.scalars(select(Notice.code).where(Notice.account_id == account_id)))
    assert "REFUND_UNKNOWN" in codes
    assert (await charges_of(world, account_id))[-1].status is S.SUCCEEDED


@pytest.mark.parametrize("by", ["transfer", "credit"])
@pytest.mark.parametrize("is_overdue", [True, False])
async def test_what_is_left_and_too_small_to_charge_is_carried_forward(world: World, by: str, is_overdue: bool) -> None:
    """It neither begins nor goes on with dunning; the next invoice demands it."""
    till, processor, account_id = await begin(world)
    if is_overdue:
        await add_card(till, account_id, "pm_card_chargeDeclined")
    await leave_second_month_open(world, till, account_id, is_overdue=is_overdue)
    if by == "transfer":
        await pay_by_transfer(till, account_id, 4_880, status=InvoiceStatus.OPEN)
    else:
        await credit(world, account_id, 4_880)
    invoice = await newest_invoice(world, account_id)
    assert (invoice.status, invoice.carried_out_minor) == (InvoiceStatus.PAID, 20)
    async with world.database.read() as session:
        subscription = await session.scalar(select(Subscription).where(Subscription.account_id == account_id))
    assert subscription is not None
    assert subscription.status is SubscriptionStatus.ACTIVE
    await check(world, account_id)
    await add_card(till, account_id, VISA)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    invoice = await newest_invoice(world, account_id)
    assert (invoice.status, invoice.carried_in_minor, invoice.paid_minor) == (InvoiceStatus.PAID, 20, 4_920)
    assert len(processor.charged) == (3 if is_overdue else 2)
    await check(world, account_id)


async def leave_second_month_open(world: World, till: Till, account_id: UUID, *, is_overdue: bool) -> None:
    """Its charge failed, or was not asked for yet."""
    clock_of(world).stands_at += MONTH
    if is_overdue:
        await do_all(till, account_id)
        return
    while (await newest_invoice(world, account_id)).status is not InvoiceStatus.OPEN:
        assert await do_due(till, limit=1, account_id=account_id)
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        [waiting] = await work.session.scalars(
            select(Transaction).where(Transaction.account_id == account_id, Transaction.status == S.PENDING)
        )
        waiting.status = S.CANCELED
        work.audit(account, "payment.failed", f"transaction:{waiting.id}", after={"status": waiting.status})
        await withdraw(work, account, WorkKind.CHARGE)


async def credit(world: World, account_id: UUID, amount_minor: int) -> None:
    """Take back a part of the newest invoice."""
    invoice = await newest_invoice(world, account_id)
    async with world.database.work(ACTOR) as work:
        [line] = await work.session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id))
        await crediting.credit(work, account_id, invoice.id, [(line.id, amount_minor)], "test")


ASKING = "pm_card_authenticationRequired"


async def wait_for_the_cardholder(world: World) -> tuple[Till, UUID, Transaction]:
    """An invoice whose payment somebody began, and has to confirm."""
    till, _, account_id = await begin(world)
    await answer(world, account_id, SandboxAnswers.NORMAL)
    await add_card(till, account_id, ASKING)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    await retry_payment(till, OPERATOR, Request("retry", "", None), account_id)
    waiting = (await charges_of(world, account_id))[-1]
    assert (waiting.status, waiting.on_session) == (S.REQUIRES_ACTION, True)
    return till, account_id, waiting


def told(charge: Transaction, amount_minor: int = 4_900) -> ChargeResult:
    """That it still waits, as the processor says."""
    assert charge.processor_id is not None, "it was asked for"
    return ChargeResult(
        status=ChargeStatus.REQUIRES_ACTION,
        processor_id=charge.processor_id,
        amount_minor=amount_minor,
        currency="USD",
        client_secret="another secret",
    )


async def test_that_a_charge_waits_may_be_told_again(world: World) -> None:
    """Its time does not begin anew, and nothing is said twice."""
    till, account_id, waiting = await wait_for_the_cardholder(world)
    before = await events_of(world, account_id)
    clock_of(world).stands_at += timedelta(hours=2)
    for _ in range(2):
        await record_result(till, waiting.id, told(waiting))
    again = (await charges_of(world, account_id))[-1]
    assert (again.expires_at, again.updated_at) == (waiting.expires_at, waiting.updated_at)
    assert again.action == {"clientSecret": "another secret", "url": None}
    assert await events_of(world, account_id) == before
    await check(world, account_id)


async def test_an_amount_that_differs_while_it_waits_is_looked_at_again(world: World) -> None:
    """The work for it was done by then: it comes back, and so does the end of waiting."""
    till, account_id, waiting = await wait_for_the_cardholder(world)
    await record_result(till, waiting.id, told(waiting, 4_901))
    assert (await charges_of(world, account_id))[-1].status is S.UNKNOWN
    clock_of(world).stands_at += timedelta(hours=1)
    await do_all(till, account_id)
    again = (await charges_of(world, account_id))[-1]
    assert (again.status, again.expires_at) == (S.REQUIRES_ACTION, waiting.expires_at)
    clock_of(world).stands_at += timedelta(hours=22)
    await do_all(till, account_id)
    assert (await charges_of(world, account_id))[-1].status is S.CANCELED
    await check(world, account_id)


async def use_token(world: World, account_id: UUID, token: str) -> None:
    """Have the card behave as another test card from now on."""
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(PaymentMethod).where(PaymentMethod.account_id == account_id).values(processor_token=token)
        )


@pytest.mark.parametrize("is_mended", [True, False])
async def test_a_card_that_was_stolen_is_tried_again_once_it_changed(world: World, is_mended: bool) -> None:
    """The days skip it; when its bank tells of a new date it is another card."""
    till, _, account_id = await begin(world)
    await use_token(world, account_id, "pm_card_chargeDeclinedStolenCard")
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    assert (await charges_of(world, account_id))[-1].failure_code is FailureCode.STOLEN_OR_CLOSED
    if is_mended:
        await use_token(world, account_id, VISA)
        clock_of(world).stands_at += timedelta(hours=1)
        async with world.database.work(ACTOR) as work:
            account = (await work.lock_accounts([account_id]))[account_id]
            [method] = await work.session.scalars(select(PaymentMethod).where(PaymentMethod.account_id == account_id))
            facts = await till.processor.read_method(VISA)
            assert facts is not None
            await refresh_method(work, account, method, replace(facts, exp_year=facts.exp_year + 1))
    clock_of(world).stands_at += timedelta(days=4)
    await do_all(till, account_id)
    statuses = [row.status for row in await charges_of(world, account_id)]
    assert statuses == [S.SUCCEEDED, S.FAILED, *([S.SUCCEEDED] if is_mended else [])]
    await check(world, account_id)


async def test_a_charge_that_goes_through_late_did_not_fail(world: World) -> None:
    till, processor, account_id = await begin(world)
    await use_token(world, account_id, "pm_card_chargeDeclinedStolenCard")
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    failed = (await charges_of(world, account_id))[-1]
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(SandboxCharge)
            .where(SandboxCharge.key == failed.processor_key)
            .values(status=S.SUCCEEDED, failure_code=None)
        )
    assert failed.processor_id is not None
    result = await processor.look_up(failed.processor_id)
    assert result is not None
    await record_result(till, failed.id, result)
    late = (await charges_of(world, account_id))[-1]
    assert (late.status, late.failure_code) == (S.SUCCEEDED, None)
    await check(world, account_id)


async def test_tries_by_hand_have_a_limit(world: World) -> None:
    """Whoever switches cards or retries all day is not a cardholder; the next day it goes on."""
    till, processor, account_id = await begin(world)
    await add_card(till, account_id, "pm_card_chargeDeclined")
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    for number in range(MAX_BY_HAND):
        with pytest.raises(PaymentFailed):
            await retry_payment(till, OPERATOR, Request(f"retry-{number}", "", None), account_id)
    with pytest.raises(Conflict, match="tomorrow"):
        await retry_payment(till, OPERATOR, Request("once more", "", None), account_id)
    charged = len(processor.charged)
    await add_card(till, account_id, VISA)
    assert len(processor.charged) == charged, "a new card is no way around it"
    clock_of(world).stands_at += timedelta(days=1)
    await retry_payment(till, OPERATOR, Request("a day later", "", None), account_id)
    assert (await newest_invoice(world, account_id)).status is InvoiceStatus.PAID
    await check(world, account_id)
