"""F20: work that always fails is given up and shown; all else goes on, and let go of it is done."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from plafond.database import ReadSession, Work
from plafond.models import BillingAccount, Document, DueWork, Invoice, InvoiceStatus, Notice, NoticeSeverity, WorkKind
from plafond.services.auditing import audit
from plafond.services.drawing import draw_due
from plafond.services.due_work import MAX_TRIES, list_parked, release
from plafond.services.duties import DUTIES, do_due
from plafond.services.papers import Content
from plafond.services.texts import notice_text

from .conftest import Due, check_books
from .nodes import WORKER, Node, open_nodes
from .runner import is_quiet

BACKOFF = timedelta(minutes=5)
"""As long as failed work ever waits for its next try."""


class Poison(Exception):
    """What the work fails with, each time."""


class Pencil:
    """Draws at once."""

    async def draw(self, content: Content) -> bytes:
        return f"%PDF {content.number}".encode()

    async def read_xml(self, pdf: bytes) -> bytes:
        raise AssertionError(f"nobody asks for {pdf!r}")


async def first_of(node: Node) -> UUID:
    """The account whose work comes first: if it held up anything, it would be all."""
    async with node.database.read() as session:
        account_id = await session.scalar(
            select(DueWork.account_id)
            .where(DueWork.done_at.is_(None), DueWork.kind == WorkKind.CLOSE_PERIOD)
            .order_by(DueWork.due_at, DueWork.rank, DueWork.id)
            .limit(1)
        )
    assert account_id is not None
    return account_id


async def notices_of(session: ReadSession, account_id: UUID) -> list[Notice]:
    return list(
        await session.scalars(select(Notice).where(Notice.account_id == account_id, Notice.code == "ACCOUNT_PARKED"))
    )


async def let_documents_wait(node: Node) -> None:
    """Have the documents of before drawn now."""
    async with node.till.work() as work:
        await work.session.execute(update(DueWork).where(DueWork.kind == WorkKind.DRAW_DOCUMENT).values(done_at=None))


@pytest.mark.parametrize(
    "kind", [WorkKind.FINALISE_INVOICE, pytest.param(WorkKind.CLOSE_PERIOD, marks=pytest.mark.slow)]
)
async def test_poisoned_work_is_given_up_and_shown(due: Due, monkeypatch: pytest.MonkeyPatch, kind: WorkKind) -> None:
    healthy = DUTIES[kind]
    tried: list[datetime] = []
    async with open_nodes(due, timedelta(0)) as [node]:
        poisoned = await first_of(node)

        async def fail(work: Work, account: BillingAccount, subject: str) -> object:
            done = await healthy(work, account, subject)
            if account.id == poisoned:
                tried.append(work.clock.now())
                raise Poison("it fails after all was written")
            return done

        monkeypatch.setitem(DUTIES, kind, fail)
        await let_documents_wait(node)
        for tries in range(1, MAX_TRIES + 1):
            await node.run()
            assert len(tried) == tries
            assert await do_due(node.till) == 0, "it waits before it is tried again"
            node.clock.stands_at += BACKOFF
        await node.run()
        assert len(tried) == MAX_TRIES, "it was given up"

        # Operators are told; nothing of the failed tries was written.
        async with node.database.read() as session:
            [parked] = await list_parked(session, 10)
            assert (parked.account_id, parked.kind, parked.tries) == (poisoned, kind, MAX_TRIES)
            assert parked.failure == "Poison: it fails after all was written"
            [notice] = await notices_of(session, poisoned)
            assert (notice.severity, notice.for_operators) == (NoticeSeverity.CRITICAL, True)
            assert all(notice_text(notice.code, notice.params))
            numbered = (
                await session.scalars(select(Invoice.account_id).where(Invoice.status != InvoiceStatus.DRAFT))
            ).all()
            assert numbered.count(poisoned) == 1
            assert await audit(session, node.database.clock.now()) == []

        # All others were closed, invoiced and charged, and everybody's documents are drawn.
        await check_books(node.database, due, failed=frozenset({poisoned}))
        while await draw_due(node.database, WORKER, Pencil()):
            pass
        async with node.database.read() as session:
            documents = (await session.scalars(select(Document))).all()
        assert {document.account_id for document in documents} == set(due.blocks)
        assert all(document.drawn_at is not None for document in documents)

        # Mended and let go, it goes on where it was.
        monkeypatch.setitem(DUTIES, kind, healthy)
        assert await do_due(node.till) == 0
        async with node.till.work() as work:
            await release(work, (await work.lock_accounts([poisoned]))[poisoned])
        await node.run()
        assert await is_quiet(node.database)
        await check_books(node.database, due)


async def test_work_without_a_subject_is_given_up_too(due: Due) -> None:
    """A charge of a transaction that does not exist: it fails before anything is begun."""
    async with open_nodes(due, timedelta(0)) as [node]:
        poisoned = await first_of(node)
        async with node.till.work() as work:
            now = work.clock.now()
            work.session.add(
                DueWork(
                    created_at=now,
                    account_id=poisoned,
                    kind=WorkKind.CHARGE,
                    subject=str(UUID(int=0)),
                    due_at=now - timedelta(days=1),
                    rank=0,
                )
            )
        for _ in range(MAX_TRIES):
            await node.run()
            node.clock.stands_at += BACKOFF
        assert await do_due(node.till) == 0
        async with node.database.read() as session:
            [parked] = await list_parked(session, 10)
            assert parked.subject == str(UUID(int=0))
            assert len(await notices_of(session, poisoned)) == 1
        await check_books(node.database, due, failed=frozenset({poisoned}))
