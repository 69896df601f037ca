"""F21: the process that draws is killed; its document is tried again, then fails visibly, and nothing else is hurt."""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from plafond.adapters import pdf
from plafond.adapters.pdf import PdfPool
from plafond.database import Database, ReadSession
from plafond.models import Document, DocumentBytes, DueWork, Notice, NoticeSeverity, WorkKind
from plafond.services.drawing import MAX_TRIES, draw_due

from . import dying
from .conftest import Due, check_books
from .nodes import WORKER, Node, open_nodes
from .runner import RUNNER, Processes, answers, children_of, expire_leases, until, wait_until_quiet

BACKOFF = timedelta(minutes=5)


@contextmanager
def dying_pool(monkeypatch: pytest.MonkeyPatch, left: Path, deaths: int) -> Iterator[PdfPool]:
    """A pool whose processes are killed while they draw, so many of them."""
    left.write_text("x" * deaths)
    monkeypatch.setenv(dying.LEFT, str(left))
    monkeypatch.setattr(pdf, "draw_document", dying.draw)
    monkeypatch.setattr(pdf, "_prepare", dying.prepare)
    pool = PdfPool()
    try:
        yield pool
    finally:
        pool.close()
        for child in multiprocessing.active_children():
            child.join(30)


async def let_one_wait(node: Node) -> None:
    """Have one document of before drawn now."""
    async with node.till.work() as work:
        first = select(DueWork.id).where(DueWork.kind == WorkKind.DRAW_DOCUMENT).order_by(DueWork.id).limit(1)
        await work.session.execute(update(DueWork).where(DueWork.id == first.scalar_subquery()).values(done_at=None))


async def document_that_waits(session: ReadSession) -> Document:
    """The one that was let wait."""
    subject = await session.scalar(
        select(DueWork.subject).where(DueWork.kind == WorkKind.DRAW_DOCUMENT, DueWork.tries > 0)
    )
    documents = (await session.scalars(select(Document))).all()
    return next(document for document in documents if str(document.id) == subject)


async def check_drawn(database: Database, *, all_of_them: bool) -> None:
    """Each drawn document has its bytes, by their hash."""
    async with database.read() as session:
        documents = (await session.scalars(select(Document))).all()
        drawn = {row.document_id: row.pdf for row in await session.scalars(select(DocumentBytes))}
    assert drawn.keys() == {document.id for document in documents if document.drawn_at is not None}
    assert all(
        hashlib.sha256(drawn[document.id]).hexdigest() == document.bytes_hash
        for document in documents
        if document.drawn_at is not None
    )
    if all_of_them:
        assert len(drawn) == len(documents)


async def test_a_killed_renderer_is_followed_by_another(
    due: Due, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with open_nodes(due, timedelta(0)) as [node]:
        await let_one_wait(node)
        with dying_pool(monkeypatch, tmp_path / "deaths", 1) as pool:
            assert await draw_due(node.database, WORKER, pool) == 1
            assert await draw_due(node.database, WORKER, pool) == 0, "it waits before it is tried again"
            node.clock.stands_at += BACKOFF
            assert await draw_due(node.database, WORKER, pool) == 1
        async with node.database.read() as session:
            document = await document_that_waits(session)
            assert (document.drawn_at, document.failure) == (node.clock.now(), None)
        await check_drawn(node.database, all_of_them=False)
        await node.run()
        await check_books(node.database, due)


@pytest.mark.slow
async def test_a_document_that_kills_each_renderer_fails_visibly(
    due: Due, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with open_nodes(due, timedelta(0)) as [node]:
        await let_one_wait(node)
        with dying_pool(monkeypatch, tmp_path / "deaths", MAX_TRIES) as pool:
            for _ in range(MAX_TRIES):
                assert await draw_due(node.database, WORKER, pool) == 1
                node.clock.stands_at += BACKOFF
            assert await draw_due(node.database, WORKER, pool) == 0
            async with node.database.read() as session:
                document = await document_that_waits(session)
                assert document.drawn_at is None
                assert "it was killed" in (document.failure or "")
                [notice] = await session.scalars(select(Notice).where(Notice.code == "DOCUMENT_FAILED"))
                assert (notice.account_id, notice.for_operators) == (document.account_id, True)
                assert notice.severity is NoticeSeverity.CRITICAL
            # Its account is billed as all others, and their documents are drawn by the same pool.
            await node.run()
            while await draw_due(node.database, WORKER, pool):
                pass
        await check_drawn(node.database, all_of_them=False)
        await check_books(node.database, due)


@pytest.mark.slow
async def test_a_server_whose_renderers_are_killed_serves_on(due: Due, database: Database, tmp_path: Path) -> None:
    """Each process that it starts to draw is killed at once, three times; then it is let draw."""
    with Processes(due.address, tmp_path) as processes:
        server, port = await processes.start_server(draws=True)
        killed: set[int] = set()

        async def has_renderer() -> bool:
            renderers = [pid for pid in children_of(server.pid or 0) if pid not in killed]
            for pid in renderers:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            assert await answers(port)
            return len(killed) >= 3

        async def has_renderers() -> bool:
            await expire_leases(database)
            return await has_renderer()

        await until(has_renderers)
        await expire_leases(database)
        await wait_until_quiet(database, drawing=True)
        assert server.is_alive()
        assert await answers(port)
        await check_books(database, due)
        async with database.read() as session:
            waiting = (await session.scalars(select(Document).where(Document.failure.is_not(None)))).all()
        assert waiting == []


@pytest.mark.slow
async def test_a_worker_is_killed_before_it_keeps_what_was_drawn(due: Due, database: Database, tmp_path: Path) -> None:
    async with database.work(RUNNER) as work:
        await work.session.execute(update(DueWork).where(DueWork.kind == WorkKind.DRAW_DOCUMENT).values(done_at=None))
    with Processes(due.address, tmp_path) as processes:
        await processes.see_end(processes.start_worker("document.drawn:kill:2", draws=True))
        await expire_leases(database)
        processes.start_worker(draws=True)
        processes.start_worker(draws=True)
        await wait_until_quiet(database, drawing=True)
        await check_drawn(database, all_of_them=True)
        await check_books(database, due)
