"""Documents: drawn once, by whoever comes first, and the same bytes ever after."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from plafond.database import Actor, Database
from plafond.models import (
    Company,
    Document,
    DocumentBytes,
    DueWork,
    Invoice,
    InvoiceStatus,
    Notice,
    NoticeSeverity,
)
from plafond.models import TestClock as Clock
from plafond.services.accounts import update_account
from plafond.services.companies import CompanyFields, update_company
from plafond.services.drawing import MAX_TRIES, draw_due, draw_now
from plafond.services.due_work import LEASE, release
from plafond.services.links import LINK_LIFE, LinkForm, OpenedLink, open_link, sign_link
from plafond.services.papers import Content, Paper, PaperSize, Party
from plafond.services.ports import DrawingFailed
from plafond.services.retention import purge_year
from plafond.services.texts import notice_text

from ..conftest import NOW, World
from .helpers import ACTOR, OPERATOR
from .issuing import advance, documents_of, invoices_of, start_account

WORKER = Actor(name="system:worker", origin="test")
KEY = b"a key of thirty-two characters!!"


class Pencil:
    """Draws what it is given, each time a little different, after failing as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.papers: list[Content] = []
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def draw(self, content: Content) -> bytes:
        self.papers.append(content)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        await asyncio.sleep(0)
        if len(self.papers) <= self.failures:
            raise DrawingFailed(f"{content.number}: its process ended")
        return f"%PDF {content.number} {len(self.papers)} {id(self)}".encode()

    async def read_xml(self, pdf: bytes) -> bytes:
        raise AssertionError(f"nobody asks for {pdf!r}")


async def draw(world: World, pencil: Pencil) -> int:
    return await draw_due(world.database, WORKER, pencil)


async def bytes_of(world: World, document_id: UUID) -> list[bytes]:
    async with world.database.read() as session:
        return list(await session.scalars(select(DocumentBytes.pdf).where(DocumentBytes.document_id == document_id)))


async def work_of(world: World, document: Document) -> DueWork:
    async with world.database.read() as session:
        return (await session.scalars(select(DueWork).where(DueWork.subject == str(document.id)))).one()


async def notices_of(world: World, account_id: UUID) -> list[Notice]:
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(Notice).where(Notice.account_id == account_id, Notice.code == "DOCUMENT_FAILED")
            )
        )


async def draw_until_given_up(world: World, pencil: Pencil) -> None:
    for _ in range(MAX_TRIES):
        assert await draw(world, pencil) == 1
        assert await draw(world, pencil) == 0, "it waits before it is tried again"
        world.clock.stands_at += timedelta(minutes=5)


# Drawing


async def test_what_is_issued_is_drawn_once_and_kept_with_its_hash(world: World) -> None:
    account_id = await start_account(world)
    [document] = await documents_of(world, account_id)
    assert (document.bytes_hash, document.drawn_at) == (None, None)
    pencil = Pencil()
    assert await draw(world, pencil) == 1
    assert await draw(world, pencil) == 0
    [document] = await documents_of(world, account_id)
    [pdf] = await bytes_of(world, document.id)
    assert pencil.papers == [Paper.model_validate(document.content)]
    assert document.bytes_hash == hashlib.sha256(pdf).hexdigest()
    assert document.drawn_at == NOW
    assert (await work_of(world, document)).done_at == NOW


async def test_two_workers_at_once_draw_each_document_once(world: World) -> None:
    account_id = await start_account(world)
    await advance(world, account_id, 6, 10)
    documents = await documents_of(world, account_id)
    assert len(documents) == 5
    other = Database(world.settings.database_url, world.clock, lambda _: None)
    one, two = Pencil(), Pencil()
    try:
        done = await asyncio.gather(
            draw_due(world.database, WORKER, one, limit=5), draw_due(other, WORKER, two, limit=5)
        )
    finally:
        await other.close()
    assert sum(done) == 5
    assert len(one.papers) + len(two.papers) == 5
    numbers = {paper.number for paper in one.papers + two.papers}
    assert numbers == {invoice.number for invoice in await invoices_of(world, account_id)}
    for document in await documents_of(world, account_id):
        [pdf] = await bytes_of(world, document.id)
        assert document.bytes_hash == hashlib.sha256(pdf).hexdigest()


async def test_a_worker_whose_time_ran_out_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    account_id = await start_account(world)
    [document] = await documents_of(world, account_id)
    slow, quick = Pencil(), Pencil()

    async def others_take_over() -> None:
        world.clock.stands_at += LEASE
        assert await draw(world, quick) == 1

    slow.meanwhile = others_take_over
    assert await draw(world, slow) == 1
    assert len(slow.papers) == len(quick.papers) == 1
    [pdf] = await bytes_of(world, document.id)
    assert pdf.endswith(str(id(quick)).encode())
    assert "taken over" in caplog.text


async def test_somebody_who_waits_gets_the_bytes_that_were_kept_first(world: World) -> None:
    account_id = await start_account(world)
    [document] = await documents_of(world, account_id)
    slow, quick = Pencil(), Pencil()
    slow.meanwhile = lambda: draw(world, quick)
    given = await draw_now(world.database, ACTOR, slow, document)
    assert [given] == await bytes_of(world, document.id)
    assert given is not None
    assert given.endswith(str(id(quick)).encode())
    # And the other way round: the worker finds it drawn, and does not draw it again.
    await advance(world, account_id, 3, 10)
    [_, document] = await documents_of(world, account_id)
    given = await draw_now(world.database, ACTOR, quick, document)
    late = Pencil()
    assert await draw(world, late) == 1
    assert late.papers == []
    assert [given] == await bytes_of(world, document.id)
    assert (await work_of(world, document)).done_at is not None


async def test_hard_case_27_a_renamed_company_changes_neither_bytes_nor_hash(world: World) -> None:
    account_id = await start_account(world)
    await advance(world, account_id, 3, 10)
    [first, second] = await documents_of(world, account_id)
    pencil = Pencil()
    assert await draw_due(world.database, WORKER, pencil, limit=1) == 1
    [drawn, _] = await documents_of(world, account_id)
    before = await bytes_of(world, first.id)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(Company).where(Company.account_id == account_id).values(legal_name="Another Name AG")
        )
    assert await draw(world, pencil) == 1
    assert await draw(world, pencil) == 0
    [again, late] = await documents_of(world, account_id)
    assert (again.bytes_hash, again.content_hash) == (drawn.bytes_hash, first.content_hash)
    assert await bytes_of(world, first.id) == before
    # What was issued before and is drawn after shows the name of then, too.
    assert [paper.bill_to.name for paper in pencil.papers] == ["hawthorn Ltd", "hawthorn Ltd"]
    assert late.content_hash == second.content_hash
    for document, invoice in zip([again, late], await invoices_of(world, account_id), strict=True):
        assert Paper.model_validate(document.content).digest() == document.content_hash == invoice.content_hash


async def test_what_is_set_of_a_company_stands_on_the_next_invoice_and_on_none_before(world: World) -> None:
    account_id = await start_account(world)
    [first] = await documents_of(world, account_id)
    changes: CompanyFields = {
        "legal_name": "Another Name AG",
        "country": "CH",
        "address_lines": ["Gasse 1"],
        "postal_code": "8001",
        "city": "Zürich",
        "region": "ZH",
        "vat_id": "CHE-107.787.577 IVA",
        "tax_ids": [{"label": "UID", "value": "CHE-107.787.577"}],
        "email": "buch@another.example",
        "paper_size": PaperSize.LETTER,
        "purchase_order": "PO-77",
        "footer": "Danke",
    }
    async with world.database.work(ACTOR) as work:
        await update_company(work, account_id, changes)
        await update_account(work, OPERATOR, account_id, {"locale": "de-CH"})
    await advance(world, account_id, 3, 10)
    [frozen, later] = await documents_of(world, account_id)
    assert (frozen.content, frozen.content_hash) == (first.content, first.content_hash)
    before, after = Paper.model_validate(first.content), Paper.model_validate(later.content)
    assert after.bill_to == Party(
        name="Another Name AG",
        address_lines=("Gasse 1",),
        postal_code="8001",
        city="Zürich",
        region="ZH",
        country="CH",
        vat_id="CHE107787577IVA",
        tax_ids=(("UID", "CHE-107.787.577"),),
        email="buch@another.example",
    )
    told = (after.size, after.purchase_order, after.footer, after.language, after.locale)
    assert told == (PaperSize.LETTER, "PO-77", "Danke", "de", "de-CH")
    assert (before.bill_to.name, before.purchase_order, before.footer) == ("hawthorn Ltd", None, None)
    assert before.locale != after.locale


# Failing


async def test_a_drawing_that_fails_is_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    account_id = await start_account(world)
    [document] = await documents_of(world, account_id)
    pencil = Pencil(failures=2)
    assert await draw(world, pencil) == 1
    assert await draw(world, pencil) == 0
    world.clock.stands_at += timedelta(seconds=2)
    assert await draw(world, pencil) == 1
    assert await draw(world, pencil) == 0
    world.clock.stands_at += timedelta(seconds=4)
    assert await draw(world, pencil) == 1
    assert len(await bytes_of(world, document.id)) == 1
    [document] = await documents_of(world, account_id)
    assert document.failure is None
    assert await notices_of(world, account_id) == []
    assert caplog.text.count("could not be drawn") == 2


async def test_a_drawing_that_fails_for_good_is_shown_and_holds_up_no_billing(world: World) -> None:
    account_id = await start_account(world)
    [document] = await documents_of(world, account_id)
    pencil = Pencil(failures=MAX_TRIES)
    await draw_until_given_up(world, pencil)
    assert await draw(world, pencil) == 0
    assert len(pencil.papers) == MAX_TRIES
    [document] = await documents_of(world, account_id)
    assert document.failure is not None
    assert document.failure.startswith("DrawingFailed: TST-")
    assert document.drawn_at is None
    assert (await work_of(world, document)).parked_at is not None
    [notice] = await notices_of(world, account_id)
    assert (notice.severity, notice.for_operators, notice.subject) == (NoticeSeverity.CRITICAL, True, str(document.id))
    assert document.content["number"] in notice_text(notice.code, notice.params)[1]

    await advance(world, account_id, 3, 10)
    assert [invoice.status for invoice in await invoices_of(world, account_id)] == [InvoiceStatus.PAID] * 2
    assert await draw(world, pencil) == 1, "the next document is drawn"

    async with world.database.work(ACTOR) as work:
        await release(work, (await work.lock_accounts([account_id]))[account_id])
    assert await draw(world, pencil) == 1
    [document, _] = await documents_of(world, account_id)
    assert (document.failure, len(await bytes_of(world, document.id))) == (None, 1)
    assert await notices_of(world, account_id) == []


async def test_a_document_that_ends_its_workers_is_given_up_too(world: World) -> None:
    """Nobody is left to say that it failed: the tries are counted when it is taken."""
    account_id = await start_account(world)
    pencil = Pencil()

    async def end() -> None:
        raise KeyboardInterrupt

    for _ in range(MAX_TRIES):
        pencil.meanwhile = end
        with pytest.raises(KeyboardInterrupt):
            await draw(world, pencil)
        world.clock.stands_at += LEASE
    assert await draw(world, pencil) == 1
    assert len(pencil.papers) == MAX_TRIES
    [document] = await documents_of(world, account_id)
    assert "each time" in (document.failure or "")
    assert len(await notices_of(world, account_id)) == 1
    world.clock.stands_at += timedelta(hours=1)
    assert await draw(world, pencil) == 0


async def test_what_was_purged_is_not_drawn(world: World) -> None:
    account_id = await start_account(world)
    [document] = await documents_of(world, account_id)
    await purge(world, account_id)
    assert await documents_of(world, account_id) == []
    pencil = Pencil()
    assert await draw(world, pencil) == 1
    assert pencil.papers == []
    assert await draw_now(world.database, ACTOR, pencil, document) is None
    async with world.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(DocumentBytes)) == 0


async def purge(world: World, account_id: UUID) -> None:
    """Let retention come to an account's first year."""
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await work.session.execute(
            update(Clock).where(Clock.id == account.test_clock_id).values(now=datetime(2040, 1, 1, tzinfo=UTC))
        )
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await purge_year(work, account, "2025")
        assert await work.session.scalar(select(Invoice.id).where(Invoice.account_id == account_id)) is None


# Links


def test_a_link_opens_what_it_was_signed_for_until_it_ends() -> None:
    document, account = uuid4(), uuid4()
    ends = NOW + LINK_LIFE
    for form in LinkForm:
        path = sign_link(KEY, document, account, ends, form)
        token = path.removeprefix("/documents/")
        assert open_link(KEY, token, NOW) == OpenedLink(document, account, form)
        assert open_link(KEY, token, ends - timedelta(seconds=1)) is not None
        assert open_link(KEY, token, ends) is None
        assert open_link(b"another key of thirty-two bytes!", token, NOW) is None


def test_a_link_with_one_character_changed_opens_nothing() -> None:
    token = sign_link(KEY, uuid4(), uuid4(), NOW + LINK_LIFE).removeprefix("/documents/")
    characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. ä"
    for place in range(len(token)):
        for character in characters:
            if character != token[place]:
                assert open_link(KEY, token[:place] + character + token[place + 1 :], NOW) is None
        assert open_link(KEY, token[:place] + token[place + 1 :], NOW) is None
        assert open_link(KEY, token[:place] + "." + token[place:], NOW) is None
    for odd in ("", "=" * 96, token + "=", token + "\n", token * 2, "A" * 96, "\x00" * 96):
        assert open_link(KEY, odd, NOW) is None


def test_no_two_links_are_alike_in_what_they_open() -> None:
    document, account = uuid4(), uuid4()
    links = {
        sign_link(KEY, *ids, NOW + life, form)
        for ids in ((document, account), (account, document))
        for life in (LINK_LIFE, LINK_LIFE + timedelta(seconds=1))
        for form in LinkForm
    }
    assert len(links) == 4 * len(LinkForm)
