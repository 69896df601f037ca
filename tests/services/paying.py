"""Accounts that pay by the wall clock, through a processor that answers as a test wants it to."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from plafond.adapters.sandbox_processor import SandboxProcessor, set_conduct
from plafond.clock import SetClock
from plafond.database import Database
from plafond.models import (
    BillingAccount,
    Interval,
    Invoice,
    LedgerAccount,
    LedgerPosting,
    OutboxEvent,
    SandboxAnswers,
    SandboxMessages,
    Transaction,
    TransactionKind,
)
from plafond.models import TransactionStatus as S
from plafond.services.auditing import audit
from plafond.services.decisions import decide_start
from plafond.services.duties import do_due
from plafond.services.ports import ChargeOrder, ChargeResult
from plafond.services.tills import Till

from ..conftest import World
from .engine import VISA, open_account, order
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
    of_it = [str(finding) for finding in found if finding.account_id in (account_id, None)]
    assert not of_it, of_it


async def answer(
    world: World, account_id: UUID, answers: SandboxAnswers, messages: SandboxMessages = SandboxMessages.NONE
) -> None:
    """Have the processor answer an account otherwise from now on."""
    async with world.database.work(ACTOR) as work:
        account = await work.session.get_one(BillingAccount, account_id)
        await set_conduct(work, account.processor_customer or "", answers, messages)


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


async def begin(world: World, card: str = VISA) -> tuple[Till, Noting, UUID]:
    """An account that paid its first month, some days before that ends."""
    processor = Noting(world.database)
    till = Till(world.database, processor, ACTOR)
    account_id = await open_account(till, "settled", None, country="US", card=card)
    await order(till, account_id, decide_start, "starter", Interval.MONTH)
    return till, processor, account_id


async def books_of(world: World, account_id: UUID) -> dict[LedgerAccount, int]:
    """What stands on each account of the books: debits are positive."""
    async with world.database.read() as session:
        rows = await session.execute(
            select(LedgerPosting.ledger_account, func.sum(LedgerPosting.amount_minor))
            .where(LedgerPosting.account_id == account_id)
            .group_by(LedgerPosting.ledger_account)
        )
        return {account: int(amount) for account, amount in rows if amount}
