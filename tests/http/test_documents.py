"""Signed links: what they open, for how long, and that a bad one tells nothing."""

import asyncio
import hashlib
import io
import logging
import multiprocessing
import string
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from pydantic import SecretStr
from pypdf import PdfReader
from sqlalchemy import select, update

from plafond.adapters.pdf import PdfPool
from plafond.app import create_app
from plafond.database import Actor
from plafond.http.documents import MAX_WAITING
from plafond.models import Document, DocumentBytes, Issuer, PurgePass
from plafond.services.drawing import MAX_TRIES, draw_due
from plafond.services.links import LINK_LIFE, LinkForm, sign_link
from plafond.services.papers import Content
from plafond.services.ports import Draughtsman, DrawingFailed
from plafond.settings import Environment, SettingMissing, Settings

from ..conftest import NOW, Client, World
from ..services.helpers import ACTOR
from ..services.issuing import advance, documents_of, invoices_of, start_account

SECRET = "a link secret of thirty-two characters"
WORKER = Actor(name="system:worker", origin="test")
NOTHING = "This link does not open a document, or not any more: ask for a new one."


class Pencil:
    """Draws at once, or when it is let; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.drawn = 0
        self.may_draw = asyncio.Event()
        self.may_draw.set()

    async def draw(self, content: Content) -> bytes:
        self.drawn += 1
        await self.may_draw.wait()
        if self.drawn <= self.failures:
            raise DrawingFailed(f"{content.number}: its process ended")
        return f"%PDF {content.number} {self.drawn}".encode()

    async def read_xml(self, pdf: bytes) -> bytes:
        if self.failures:
            raise DrawingFailed("the XML of a document: its process ended")
        return b"<xml>" + pdf


class Desk:
    """An application over the test's database, with a draughtsman or without one."""

    def __init__(self, world: World, http: httpx2.AsyncClient) -> None:
        self.world = world
        self.http = http

    def link(self, document: Document, form: LinkForm = LinkForm.PDF, **given: Any) -> str:
        """A link to a document as it is signed now."""
        document_id, account_id = given.get("id", document.id), given.get("account_id", document.account_id)
        return sign_link(SECRET.encode(), document_id, account_id, self.world.clock.now() + LINK_LIFE, form)

    async def get(self, path: str) -> httpx2.Response:
        return await self.http.get(path)

    async def check_nothing(self, path: str) -> None:
        """The one answer that tells nothing."""
        response = await self.get(path)
        assert response.status_code == 404
        answer = response.json()
        request_id = answer["errors"][0]["extensions"].pop("requestId")
        assert answer == {"errors": [{"message": NOTHING, "extensions": {"code": "NOT_FOUND"}}]}
        assert response.headers["x-request-id"] == request_id
        assert {name for name in response.headers if name not in ("x-request-id", "content-length")} == {
            "cache-control",
            "content-type",
            "x-content-type-options",
        }

    async def check_later(self, path: str, said: str) -> None:
        response = await self.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        assert said in response.json()["errors"][0]["message"]


@asynccontextmanager
async def open_desk(
    world: World, draughtsman: Draughtsman | None = None, settings: Settings | None = None
) -> AsyncGenerator[Desk]:
    settings = (settings or world.settings).model_copy(update={"link_secret": SecretStr(SECRET)})
    app = create_app(settings, with_worker=False, clock=world.clock, draughtsman=draughtsman)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://plafond.test") as http,
    ):
        yield Desk(world, http)


async def an_issued(world: World, draughtsman: Draughtsman | None = None) -> Document:
    """A document of an invoice, drawn if there is who draws it."""
    account_id = await start_account(world)
    if draughtsman is not None:
        assert await draw_due(world.database, WORKER, draughtsman) == 1
    [document] = await documents_of(world, account_id)
    return document


# What opens


async def test_a_link_opens_without_a_token(world: World) -> None:
    document = await an_issued(world, Pencil())
    number = document.content["number"]
    async with open_desk(world) as desk:
        response = await desk.get(desk.link(document))
        assert response.status_code == 200
        assert response.content == f"%PDF {number} 1".encode()
        assert response.headers["content-type"] == "application/pdf"
        assert response.headers["content-disposition"] == f'inline; filename="{number}.pdf"'
        assert response.headers["cache-control"] == "private, no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["etag"] == f'"{document.bytes_hash}"'
        again = await desk.get(desk.link(document))
        assert again.content == response.content
        head = await desk.http.head(desk.link(document))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == response.headers
        post = await desk.http.post(desk.link(document))
        assert post.status_code == 405


async def test_any_number_is_a_safe_name_of_a_file(world: World) -> None:
    document = await an_issued(world, Pencil())
    odd = {**document.content, "number": 'RÉ/1"\r\nSet-Cookie: a=b; ../../x'}
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Document).where(Document.id == document.id).values(content=odd))
    async with open_desk(world) as desk:
        response = await desk.get(desk.link(document))
    assert response.headers["content-disposition"] == 'inline; filename="R--1---Set-Cookie--a-b--..-..-x.pdf"'


async def test_the_xml_is_a_file_of_its_own(world: World) -> None:
    document = await an_issued(world, Pencil())
    number = document.content["number"]
    async with open_desk(world, Pencil()) as desk:
        response = await desk.get(desk.link(document, LinkForm.XML))
        assert response.status_code == 200
        assert response.content == f"<xml>%PDF {number} 1".encode()
        assert response.headers["content-type"] == "application/xml"
        assert response.headers["content-disposition"] == f'attachment; filename="{number}.xml"'
        assert response.headers["etag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'
    async with open_desk(world, Pencil(failures=9)) as desk:
        await desk.check_later(desk.link(document, LinkForm.XML), "try again")
    async with open_desk(world) as desk:
        await desk.check_later(desk.link(document, LinkForm.XML), "try again")
    without = {**document.content, "issuer": {**document.content["issuer"], "vat_id": None}}
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Document).where(Document.id == document.id).values(content=without))
    async with open_desk(world, Pencil()) as desk:
        await desk.check_nothing(desk.link(document, LinkForm.XML))


# What does not


async def test_a_link_ends_after_a_quarter_of_an_hour(world: World) -> None:
    document = await an_issued(world, Pencil())
    async with open_desk(world) as desk:
        path = desk.link(document)
        world.clock.stands_at = NOW + timedelta(minutes=15, seconds=-1)
        assert (await desk.get(path)).status_code == 200
        world.clock.stands_at = NOW + timedelta(minutes=15)
        await desk.check_nothing(path)
        assert (await desk.get(desk.link(document))).status_code == 200


async def test_one_character_changed_at_any_place_opens_nothing(world: World) -> None:
    document = await an_issued(world, Pencil())
    async with open_desk(world) as desk:
        path = desk.link(document)
        start = len("/documents/")
        for place in range(start, len(path)):
            for character in (string.ascii_letters[place % 52], "_", "/", "."):
                if character != path[place]:
                    await desk.check_nothing(path[:place] + character + path[place + 1 :])
            await desk.check_nothing(path[:place] + path[place + 1 :])
        for odd in (path + "=", path + "A", path + "/", "/documents/", "/documents/" + "A" * 5_000, path + "%00"):
            await desk.check_nothing(odd)
        assert (await desk.get(path)).status_code == 200


async def test_a_link_for_what_is_not_there_or_anothers_opens_nothing(world: World) -> None:
    document = await an_issued(world, Pencil())
    other = await start_account(world, "ivywood")
    async with open_desk(world) as desk:
        await desk.check_nothing(desk.link(document, account_id=other))
        await desk.check_nothing(desk.link(document, id=uuid4()))
        [others] = await documents_of(world, other)
        await desk.check_nothing(desk.link(others, account_id=document.account_id))
        expires_at = NOW + LINK_LIFE
        await desk.check_nothing(sign_link(b"another secret", document.id, document.account_id, expires_at))
    async with open_desk(world) as desk:
        assert (await desk.get(desk.link(document))).status_code == 200, "another process, the same secret"


async def test_a_link_to_what_was_purged_opens_nothing(world: World) -> None:
    document = await an_issued(world, Pencil())
    async with world.database.work(ACTOR) as work:
        work.session.add(PurgePass(account_id=document.account_id))
        await work.session.flush()
        for kept in await work.session.scalars(select(DocumentBytes).where(DocumentBytes.document_id == document.id)):
            await work.session.delete(kept)
        await work.session.flush()
        await work.session.delete(await work.session.get_one(Document, document.id))
    async with open_desk(world, Pencil()) as desk:
        await desk.check_nothing(desk.link(document))
        await desk.check_nothing(desk.link(document, LinkForm.XML))


async def test_no_link_is_written_to_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    document = await an_issued(world)
    async with open_desk(world, Pencil(failures=1)) as desk:
        path = desk.link(document)
        for _ in range(2):
            await desk.get(path)
        await desk.get(path[:-1])
    told = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("plafond", "sql")))
    assert "could not be drawn on demand" in told
    assert path[len("/documents/") : -1] not in told


# What is not drawn yet


async def test_what_is_not_drawn_yet_is_drawn_for_who_asks(world: World) -> None:
    document = await an_issued(world)
    async with open_desk(world) as desk:
        await desk.check_later(desk.link(document), "still being made")
    pencil = Pencil()
    async with open_desk(world, pencil) as desk:
        first, second = await asyncio.gather(desk.get(desk.link(document)), desk.get(desk.link(document)))
    assert (first.status_code, second.status_code, pencil.drawn) == (200, 200, 1)
    assert first.content == second.content
    [document] = await documents_of(world, document.account_id)
    assert first.headers["etag"] == f'"{document.bytes_hash}"'


async def test_only_some_wait_for_a_document(world: World) -> None:
    document = await an_issued(world)
    pencil = Pencil()
    pencil.may_draw.clear()
    async with open_desk(world, pencil) as desk:
        waiting = [asyncio.create_task(desk.get(desk.link(document))) for _ in range(MAX_WAITING + 3)]
        refused = 0
        for done in asyncio.as_completed(waiting):
            response = await done
            refused += response.status_code == 503
            if refused == 3:
                pencil.may_draw.set()
        answers = [task.result().status_code for task in waiting]
        assert sorted(answers) == [200] * MAX_WAITING + [503] * 3
        assert pencil.drawn == 1
        assert (await desk.get(desk.link(document))).status_code == 200


async def test_what_cannot_be_drawn_says_so(world: World) -> None:
    document = await an_issued(world)
    pencil = Pencil(failures=1 + MAX_TRIES)
    async with open_desk(world, pencil) as desk:
        await desk.check_later(desk.link(document), "still being made")
        for _ in range(MAX_TRIES):
            assert await draw_due(world.database, WORKER, pencil) == 1
            world.clock.stands_at += timedelta(minutes=5)
        await desk.check_later(desk.link(document), "could not be made")
    assert pencil.drawn == 1 + MAX_TRIES, "nobody's click makes it fail again"


# What GraphQL gives

INVOICES = """
query ($first: Int!) { billingAccount(externalId: "hawthorn") { invoices(first: $first) { nodes {
    number status pdf { url expiresAt sha256 } eInvoice { url expiresAt sha256 } } } } }
"""
BASE = "https://billing.example.com/plafond"


async def show_invoices(world: World, http: httpx2.AsyncClient, first: int = 5) -> list[dict[str, Any]]:
    """An account's invoices as an operator sees them, the newest first."""
    query = {"query": INVOICES, "variables": {"first": first}}
    answer = (await http.post("/graphql", json=query, headers={"Authorization": f"Bearer {world.operator}"})).json()
    assert "errors" not in answer, answer["errors"]
    nodes: list[dict[str, Any]] = answer["data"]["billingAccount"]["invoices"]["nodes"]
    return nodes


async def test_graphql_gives_links_that_open(world: World) -> None:
    account_id = await start_account(world)
    await advance(world, account_id, 4, 30, 9, 30)
    pencil = Pencil()
    assert await draw_due(world.database, WORKER, pencil, limit=1) == 1
    documents = await documents_of(world, account_id)
    assert len(documents) == 3
    settings = world.settings.model_copy(update={"public_url": BASE})
    async with open_desk(world, pencil, settings) as desk:
        [draft, *issued] = await show_invoices(world, desk.http)
        assert (draft["status"], draft["pdf"], draft["eInvoice"]) == ("DRAFT", None, None)
        hashes = [invoice["pdf"]["sha256"] for invoice in issued]
        assert hashes == [None, None, documents[0].bytes_hash]
        for invoice in issued:
            assert {invoice["pdf"]["expiresAt"], invoice["eInvoice"]["expiresAt"]} == {"2026-11-25T12:15:00Z"}
            assert invoice["pdf"]["url"].startswith(BASE + "/documents/")
            pdf = await desk.get(invoice["pdf"]["url"].removeprefix(BASE))
            assert pdf.content.startswith(f"%PDF {invoice['number']} ".encode())
            xml = await desk.get(invoice["eInvoice"]["url"].removeprefix(BASE))
            assert xml.content == b"<xml>" + pdf.content
            assert invoice["eInvoice"]["sha256"] is None
        [_, *issued] = await show_invoices(world, desk.http)
        assert [invoice["pdf"]["sha256"] for invoice in issued] == [
            document.bytes_hash for document in reversed(await documents_of(world, account_id))
        ]


async def test_links_to_many_invoices_cost_as_much_as_to_one(world: World, client: Client) -> None:
    account_id = await start_account(world)
    await advance(world, account_id, 5, 10)
    counts = []
    for first in (1, 4):
        world.statements.clear()
        invoices = await show_invoices(world, client.http, first)
        assert len(invoices) == first
        assert invoices[0]["pdf"]["url"].startswith("http://127.0.0.1:8000/documents/")
        counts.append(len(world.statements))
    assert counts[0] == counts[1]


async def test_without_a_vat_id_there_is_no_e_invoice(world: World, client: Client) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Issuer).values(tax_ids={}))
    await start_account(world)
    [invoice] = await show_invoices(world, client.http)
    assert invoice["pdf"] is not None
    assert invoice["eInvoice"] is None


# Settings


def test_production_does_not_start_without_a_secret() -> None:
    with pytest.raises(SettingMissing, match="PLAFOND_LINK_SECRET is not set"):
        create_app(Settings(environment=Environment.PRODUCTION), with_worker=False)
    create_app(Settings(environment=Environment.PRODUCTION, link_secret=SecretStr(SECRET)), with_worker=False)


# With the real pool


@contextmanager
def a_pool() -> Iterator[PdfPool]:
    pool = PdfPool()
    try:
        yield pool
    finally:
        pool.close()
        for child in multiprocessing.active_children():
            child.join(30)


@pytest.mark.slow
async def test_the_pool_draws_what_the_link_opens(world: World) -> None:
    account_id = await start_account(world)
    await advance(world, account_id, 3, 10)
    [first, second] = await documents_of(world, account_id)
    assert multiprocessing.active_children() == []
    with a_pool() as pool:
        assert await draw_due(world.database, WORKER, pool, limit=1) == 1
        # Short of memory, the kernel ends the process: the document is tried again, and nothing else notices.
        [child] = multiprocessing.active_children()
        child.kill()
        assert await draw_due(world.database, WORKER, pool) == 1
        [first, second] = await documents_of(world, account_id)
        assert (first.bytes_hash is None, second.bytes_hash is None) == (False, True)
        world.clock.stands_at += timedelta(minutes=1)
        assert await draw_due(world.database, WORKER, pool) == 1
        [first, second] = await documents_of(world, account_id)
        async with open_desk(world, pool) as desk:
            for document, invoice in zip([first, second], await invoices_of(world, account_id), strict=True):
                response = await desk.get(desk.link(document))
                assert response.headers["etag"] == f'"{document.bytes_hash}"'
                assert hashlib.sha256(response.content).hexdigest() == document.bytes_hash
                assert (await desk.get(desk.link(document))).content == response.content
                reader = PdfReader(io.BytesIO(response.content))
                assert str(invoice.number) in reader.pages[0].extract_text()
                xml = await desk.get(desk.link(document, LinkForm.XML))
                assert xml.content == reader.attachments["factur-x.xml"][0]
                assert str(invoice.number).encode() in xml.content
