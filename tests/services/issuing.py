"""Accounts whose invoices the engine issues, for tests of their documents."""

from uuid import UUID

from sqlalchemy import select, update

from plafond.models import BillingAccount, Document, DocumentKind, DueWork, Interval, Invoice, WorkKind
from plafond.services.decisions import decide_start

from ..conftest import NOW, World
from . import engine
from .helpers import ACTOR


async def start_account(world: World, name: str = "hawthorn") -> UUID:
    """An account on a clock of its own that started on Starter in January, and whose first invoice is paid.

    Of documents only its invoices wait to be drawn: receipts are left aside here.
    """
    till = engine.open_till(world.database)
    async with till.work() as work:
        await work.session.execute(
            update(DueWork).where(DueWork.kind == WorkKind.DRAW_DOCUMENT, DueWork.done_at.is_(None)).values(done_at=NOW)
        )
    account_id = await engine.open_account(till, name, await engine.open_clock(till, engine.YEAR_BEGINS))
    await engine.order(till, account_id, decide_start, "starter", Interval.MONTH)
    await _leave_receipts(world)
    return account_id


async def advance(world: World, account_id: UUID, *when: int) -> None:
    """Move an account's clock to a day of 2025, as month, day and, unless at noon, hour and minute."""
    async with world.database.read() as session:
        account = await session.get_one(BillingAccount, account_id)
    assert account.test_clock_id is not None, "it was started here"
    await engine.advance(engine.open_till(world.database), account.test_clock_id, *when)
    await _leave_receipts(world)


async def _leave_receipts(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        receipts = await work.session.scalars(select(Document.id).where(Document.kind == DocumentKind.RECEIPT))
        subjects = [str(id_) for id_ in receipts]
        await work.session.execute(
            update(DueWork).where(DueWork.subject.in_(subjects), DueWork.done_at.is_(None)).values(done_at=NOW)
        )


async def documents_of(world: World, account_id: UUID) -> list[Document]:
    """An account's invoices and credit notes as documents, the first one first."""
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(Document)
                .where(Document.account_id == account_id, Document.kind != DocumentKind.RECEIPT)
                .order_by(Document.id)
            )
        )


async def invoices_of(world: World, account_id: UUID) -> list[Invoice]:
    """An account's invoices that are issued, the first one first."""
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(Invoice)
                .where(Invoice.account_id == account_id, Invoice.number.is_not(None))
                .order_by(Invoice.issued_at)
            )
        )
