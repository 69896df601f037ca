"""Drawing: each document once, outside of any transaction, and the same bytes ever after."""

import hashlib
import logging
from uuid import UUID

from sqlalchemy import select

from ..database import Actor, Database, ReadSession, Work
from ..faults import reach
from ..models import Document, DocumentBytes, NoticeSeverity, WorkKind
from .due_work import Fenced, Taken, claim, finish, give_back
from .links import OpenedLink
from .notices import clear_notice, raise_notice
from .papers import read_content
from .ports import Draughtsman, DrawingFailed

log = logging.getLogger("plafond.drawing")

DRAWING = frozenset({WorkKind.DRAW_DOCUMENT})
MAX_TRIES = 4


async def draw_due(database: Database, actor: Actor, draughtsman: Draughtsman, *, limit: int = 4) -> int:
    """Draw what was issued, one after the other. Gives how many were taken: 0 means that nothing waits."""
    for count in range(limit):
        # One at a time: the lease begins when its drawing does.
        async with database.work(actor) as work:
            taken = await claim(work, work.clock.now(), limit=1, kinds=DRAWING)
        if not taken:
            return count
        await _try_to_draw(database, actor, draughtsman, taken[0])
    return limit


async def draw_now(database: Database, actor: Actor, draughtsman: Draughtsman, document: Document) -> bytes | None:
    """The bytes of a document that somebody waits for: those kept, where others were faster. None where it is gone."""
    pdf = await draughtsman.draw(read_content(document.content))
    async with database.work(actor) as work:
        return await _keep(work, document, pdf)


async def find_opened(session: ReadSession, opened: OpenedLink) -> tuple[Document, bytes | None] | None:
    """What a link opens, with its bytes once they are drawn."""
    row = (
        await session.execute(
            select(Document, DocumentBytes.pdf)
            .outerjoin(DocumentBytes, DocumentBytes.document_id == Document.id)
            .where(Document.id == opened.document_id, Document.account_id == opened.account_id)
        )
    ).one_or_none()
    return None if row is None else (row[0], row[1])


async def _try_to_draw(database: Database, actor: Actor, draughtsman: Draughtsman, taken: Taken) -> None:
    """Draw what a worker took; what fails is given back, and after the last try shown to operators."""
    try:
        async with database.read() as session:
            document = await session.get(Document, UUID(taken.subject))
        pdf = None
        if document is not None and document.drawn_at is None:
            if taken.failures >= MAX_TRIES:
                raise DrawingFailed("whoever drew it ended before it was done, each time")
            pdf = await draughtsman.draw(read_content(document.content))
            reach("document.drawn")
        async with database.work(actor) as work:
            await finish(work, taken)
            if document is not None and pdf is not None:
                await _keep(work, document, pdf)
    except Fenced:
        log.warning("document %s was taken over by another worker", taken.subject)
    except Exception as failure:
        log.exception("document %s could not be drawn, try %d", taken.subject, taken.tries)
        async with database.work(actor) as work:
            if await give_back(work, taken, _explain(failure), max_tries=MAX_TRIES):
                await _show_failure(work, taken, _explain(failure))


async def _keep(work: Work, drawn: Document, pdf: bytes) -> bytes | None:
    """Store what was drawn. Where there are bytes already, those stay; where the document is gone, none."""
    account = (await work.lock_accounts([drawn.account_id]))[drawn.account_id]
    document = await work.session.get(Document, drawn.id)
    if document is None:
        return None
    if document.drawn_at is not None:
        kept: bytes | None = await work.session.scalar(
            select(DocumentBytes.pdf).where(DocumentBytes.document_id == document.id)
        )
        return kept
    now = work.clock.now()
    work.session.add(DocumentBytes(created_at=now, account_id=account.id, document_id=document.id, pdf=pdf))
    document.bytes_hash = hashlib.sha256(pdf).hexdigest()
    document.drawn_at = document.updated_at = now
    if document.failure is not None:
        document.failure = None
        await clear_notice(work, account, "DOCUMENT_FAILED", str(document.id))
    return pdf


async def _show_failure(work: Work, taken: Taken, failure: str) -> None:
    account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
    document = await work.session.get(Document, UUID(taken.subject))
    if document is None or document.drawn_at is not None:
        return
    document.failure, document.updated_at = failure, work.clock.now()
    await raise_notice(
        work,
        account,
        "DOCUMENT_FAILED",
        str(document.id),
        severity=NoticeSeverity.CRITICAL,
        params={"number": document.content["number"]},
        for_operators=True,
    )


def _explain(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure}"
