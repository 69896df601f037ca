"""What mail has over HTTP: the links to unsubscribe, and the sandbox's page of mails."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from plafond.adapters.mail_folder import MailFolder
from plafond.adapters.mime import Sender
from plafond.app import create_app, make_link_key, make_mailer, make_post_office
from plafond.clock import SetClock
from plafond.models import AuditEntry, Contact, ContactTopic, OutboxEvent
from plafond.services.claims import Claim, Purpose, sign_claim
from plafond.services.mail_texts import TOPICS, Desk
from plafond.settings import Environment, SettingMissing, Settings

from ..adapters.letters import PLAIN, WITH_FILE
from ..conftest import NOW, World
from ..services.helpers import account_of
from ..services.mails import make_contact

LINKS = "k" * 32
SENDER = Sender("billing@plafond.example")


@pytest.fixture
async def http(world: World) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of an application whose key of links is known."""
    settings = world.settings.model_copy(update={"link_secret": SecretStr(LINKS)})
    app = create_app(settings, with_worker=False, clock=SetClock(NOW))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8000") as client,
    ):
        yield client


def path_of(contact_id: UUID, topic: ContactTopic) -> str:
    url = Desk("", "", LINKS.encode()).unsubscribe_url(contact_id, topic)
    assert url.startswith("/unsubscribe/")
    return url


async def topics_of(world: World, contact_id: UUID) -> list[str]:
    async with world.database.read() as session:
        return list((await session.get_one(Contact, contact_id)).topics)


async def test_a_link_asks_first_and_a_post_does_it_once(world: World, http: httpx2.AsyncClient) -> None:
    acme = await account_of(world)
    contact_id = await make_contact(world, acme.id, "erika@example.com", locale="de")
    other = await make_contact(world, acme.id, "max@example.com")
    path = path_of(contact_id, ContactTopic.USAGE_ALERTS)
    for _ in range(2):
        page = await http.get(path)
        assert page.status_code == 200
        assert "Diese E-Mails abbestellen?" in page.text
        assert "erika@example.com" in page.text
    assert await topics_of(world, contact_id) == sorted(ContactTopic), "looking changes nothing"
    assert (await http.head(path)).text == ""
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for body in ({"List-Unsubscribe": "One-Click"}, {}):
        done = await http.post(path, data=body)
        assert done.status_code == 200
        assert "Diese E-Mails sind abbestellt" in done.text
    assert await topics_of(world, contact_id) == ["INVOICES", "PAYMENT_FAILURES", "SUBSCRIPTION_CHANGES"]
    assert await topics_of(world, other) == sorted(ContactTopic), "that contact only"
    assert "<form" not in (await http.get(path)).text
    async with world.database.read() as session:
        [entry] = await session.scalars(select(AuditEntry).where(AuditEntry.action == "contact.unsubscribed"))
        assert (entry.actor, entry.object, entry.account_id) == (
            f"contact:{contact_id}",
            f"contact:{contact_id}",
            acme.id,
        )
        assert entry.after == {"topics": ["INVOICES", "PAYMENT_FAILURES", "SUBSCRIPTION_CHANGES"]}
        told = await session.scalar(
            select(OutboxEvent.payload).where(OutboxEvent.account_id == acme.id).order_by(OutboxEvent.sequence.desc())
        )
    assert told == {"accountId": str(acme.id), "changed": ["contacts"]}


async def test_what_has_to_be_told_or_was_not_signed_ends_nothing(world: World, http: httpx2.AsyncClient) -> None:
    acme = await account_of(world)
    contact_id = await make_contact(world, acme.id, "erika@example.com")
    good = path_of(contact_id, ContactTopic.USAGE_ALERTS)
    for path in (
        path_of(contact_id, ContactTopic.INVOICES),
        path_of(contact_id, ContactTopic.PAYMENT_FAILURES),
        path_of(uuid4(), ContactTopic.USAGE_ALERTS),
        "/unsubscribe/x",
        good[:-4] + "AAAA",
        "/unsubscribe/" + sign_claim(LINKS.encode(), Purpose.INVITATION, Claim(contact_id, 2)),
        "/unsubscribe/" + sign_claim(LINKS.encode(), Purpose.UNSUBSCRIBE, Claim(contact_id, len(TOPICS))),
        "/unsubscribe/" + sign_claim(b"another key", Purpose.UNSUBSCRIBE, Claim(contact_id, 2)),
    ):
        for ask in (http.get, http.post):
            answer = await ask(path)
            assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (404, "NOT_FOUND"), path
    assert await topics_of(world, contact_id) == sorted(ContactTopic)


async def test_the_sandbox_shows_its_mails(world: World, http: httpx2.AsyncClient) -> None:
    assert "There is none yet." in (await http.get("/mail")).text
    folder = MailFolder(world.settings.mail_folder, SENDER)
    await folder.send(replace(PLAIN, subject="<b>Fat</b>"))
    await folder.send(replace(WITH_FILE, id=UUID(int=7)))
    page = await http.get("/mail")
    assert "&lt;b&gt;Fat&lt;/b&gt;" in page.text
    assert "script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    one = await http.get(f"/mail/{UUID(int=7)}")
    assert f'src="/mail/{UUID(int=7)}/html"' in one.text
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in one.text
    assert "Auto-Submitted: auto-generated" in one.text
    html = await http.get(f"/mail/{UUID(int=7)}/html")
    assert html.headers["content-security-policy"].startswith("sandbox allow-popups")
    assert "INV-000001" in html.text
    text = await http.get(f"/mail/{UUID(int=7)}/text")
    assert text.headers["content-type"].startswith("text/plain")
    file = await http.get(f"/mail/{UUID(int=7)}/attachments/0")
    assert (file.content, file.headers["content-disposition"]) == (
        b"%PDF-1.7 a page",
        'attachment; filename="INV-000001.pdf"',
    )
    for path in (f"/mail/{UUID(int=7)}/attachments/1", f"/mail/{UUID(int=8)}", "/mail/..%2F..%2Fetc", "/mail/x/html"):
        assert (await http.get(path)).status_code == 404, path


async def test_a_page_under_another_name_reads_no_mail(world: World, http: httpx2.AsyncClient) -> None:
    """A stranger's page can give its own name this machine's address."""
    await MailFolder(world.settings.mail_folder, SENDER).send(PLAIN)
    for path in ("/mail", f"/mail/{PLAIN.id}", f"/mail/{PLAIN.id}/html", f"/mail/{PLAIN.id}/text"):
        assert (await http.get(path)).status_code == 200
        assert (await http.get(path, headers={"Host": "evil.example:8000"})).status_code == 404


@pytest.mark.parametrize(
    "given",
    [
        {"environment": "PRODUCTION", "link_secret": LINKS},
        {"host": "0.0.0.0"},  # noqa: S104
        {"smtp_url": "smtp://127.0.0.1:25?tls=off"},
    ],
)
def test_the_page_is_there_for_this_machines_sandbox_only(given: dict[str, str], tmp_path: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/none.db", **given), with_worker=False)  # type: ignore[arg-type]
    assert [route for route in app.routes if getattr(route, "path", "").startswith("/mail")] == []


def test_a_production_without_a_mail_server_sends_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(environment=Environment.PRODUCTION)
    assert make_mailer(settings) is None
    assert make_post_office(settings) is None
    assert "PLAFOND_SMTP_URL is not set: no mail is sent" in caplog.text
    assert isinstance(make_mailer(Settings()), MailFolder)


def test_what_is_no_mail_server_is_said_at_the_start() -> None:
    with pytest.raises(SettingMissing, match=r"PLAFOND_SMTP_URL .* `\?tls=off` is for smtp:// on this machine only"):
        make_mailer(Settings(smtp_url="smtp://mail.example.com?tls=off"))  # type: ignore[arg-type]


def test_a_production_that_sends_needs_the_key_of_links() -> None:
    settings = Settings(
        environment=Environment.PRODUCTION,
        smtp_url="smtps://u:p@mail.example.com",  # type: ignore[arg-type]
        mail_from="b@example.com",
    )
    with pytest.raises(SettingMissing, match="PLAFOND_LINK_SECRET"):
        make_post_office(settings)
    assert make_link_key(settings.model_copy(update={"environment": Environment.SANDBOX}))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mail_from": "b@example.com\r\nBcc: x@example.com"}, "an address such as"),
        ({"mail_from": "nobody"}, "an address such as"),
        ({"mail_reply_to": "a@b.example, c@d.example"}, "an address such as"),
        ({"environment": "PRODUCTION", "smtp_url": "smtps://mail.example.com"}, "PLAFOND_MAIL_FROM"),
    ],
)
def test_who_mails_are_from_is_one_mailbox(given: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**given)  # type: ignore[arg-type]
