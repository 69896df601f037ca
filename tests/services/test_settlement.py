"""Charges that do not end at once: asked for once, however often they are taken up, and not for what is paid."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select

from plafond.adapters.sandbox_processor import SandboxProcessor, set_conduct
from plafond.clock import SetClock
from plafond.database import Database
from plafond.models import (
    BillingAccount,
    DueWork,
    Interval,
    Invoice,
    InvoiceStatus,
    OutboxEvent,
    SandboxAnswers,
    SandboxMessages,
    Transaction,
    TransactionKind,
)
from plafond.models import TransactionStatus as S
from plafond.services import payments
from plafond.services.auditing import audit
from plafond.services.decisions import decide_start
from plafond.services.due_work import MAX_TRIES, list_parked
from plafond.services.duties import do_due, release_account
from plafond.services.ports import ChargeOrder, ChargeResult
from plafond.services.tills import Till

from ..conftest import World
from .engine import cancel_now, open_account, order, pay_by_transfer
from .helpers import ACTOR

BACKOFF = timedelta(minutes=5)
MONTH = timedelta(days=32)


class Noting(SandboxProcessor):
    """Notes what it was asked to charge."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, hangs_for_s=0)
        self.charged: list[str] = []

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """As the sandbox does."""
        self.charged.append(order.key)
        return await super().charge(order)


def clock_of(world: World) -> SetClock:
    """The wall clock, to be moved."""
    return world.clock


async def do_all(till: Till, account_id: UUID) -> None:
    """Do what is due of an account."""
    while await do_due(till, account_id=account_id):
        pass


async def charges_of(world: World, account_id: UUID) -> list[Transaction]:
    """An account's charges, oldest first."""
    async with world.database.read() as session:
        rows = await session.scalars(
            select(Transaction)
            .where(Transaction.account_id == account_id, Transaction.kind == TransactionKind.CHARGE)
            .order_by(Transaction.created_at, Transaction.id)
        )
        return list(rows)


async def check(world: World, account_id: UUID) -> None:
    """The audit finds nothing of an account; that the others' work was left undone is this room's doing."""
    async with world.database.read() as session:
        found = await audit(session, world.clock.now())
    assert [finding for finding in found if finding.account_id in (account_id, None)] == []


async def answer(world: World, account_id: UUID, answers: SandboxAnswers) -> None:
    """Have the processor answer an account otherwise from now on."""
    async with world.database.work(ACTOR) as work:
        account = await work.session.get_one(BillingAccount, account_id)
        await set_conduct(work, account.processor_customer or "", answers, SandboxMessages.NONE)


async def leave_unknown(world: World, till: Till, account_id: UUID) -> None:
    """The second month is invoiced, and the processor does not say whether it was paid."""
    await answer(world, account_id, SandboxAnswers.HANGS)
    clock_of(world).stands_at += MONTH
    await do_all(till, account_id)
    assert [row.status for row in await charges_of(world, account_id)] == [S.SUCCEEDED, S.UNKNOWN]


async def heal(world: World, till: Till, account_id: UUID) -> None:
    """The processor is there again, and what waited is done."""
    await answer(world, account_id, SandboxAnswers.NORMAL)
    clock_of(world).stands_at += BACKOFF
    await do_all(till, account_id)


async def events_of(world: World, account_id: UUID) -> list[str]:
    """What was told of an account."""
    async with world.database.read() as session:
        rows = await session.scalars(
            select(OutboxEvent.kind).where(OutboxEvent.account_id == account_id).order_by(OutboxEvent.sequence)
        )
        return list(rows)


async def newest_invoice(world: World, account_id: UUID) -> Invoice:
    """The invoice that was made last."""
    async with world.database.read() as session:
        newest = select(Invoice).where(Invoice.account_id == account_id).order_by(Invoice.created_at.desc())
        return (await session.scalars(newest.limit(1))).one()


async def begin(world: World) -> tuple[Till, Noting, UUID]:
    """An account that paid its first month, some days before that ends."""
    processor = Noting(world.database)
    till = Till(world.database, processor, ACTOR)
    account_id = await open_account(till, "settled", None, country="US")
    await order(till, account_id, decide_start, "starter", Interval.MONTH)
    return till, processor, account_id


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
