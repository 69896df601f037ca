"""Mail as it leaves: headers, parts, a real server that takes it, refuses it, or wants TLS; the sandbox's folder."""

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from uuid import UUID

import pytest

from plafond.adapters import mail_folder
from plafond.adapters.mail_folder import MailFolder, list_mails, read_mail
from plafond.adapters.mime import Sender, make_message, write_html
from plafond.adapters.smtp import Relay, SmtpMailer
from plafond.services.mail_words import WORDS
from plafond.services.ports import MailDeferred, MailRefused
from plafond.services.wording import LANGUAGES

from .letters import PLAIN, WITH_FILE
from .mail_server import make_certificate, run_server

SENDER = Sender("billing@plafond.example", "support@plafond.example")


def relay_to(port: int) -> Relay:
    return Relay.parse(f"smtp://127.0.0.1:{port}?tls=off")


async def test_a_mail_comes_as_it_was_written() -> None:
    async with run_server() as inbox:
        await SmtpMailer(relay_to(inbox.port), SENDER).send(WITH_FILE)
    [message] = inbox.messages
    assert inbox.recipients == ["erika@example.com"]
    assert message["From"] == "Plafond GmbH <billing@plafond.example>"
    assert message["To"] == "Erika Muster <erika@example.com>"
    assert message["Reply-To"] == "support@plafond.example"
    assert message["Subject"] == "Invoice INV-000001: €10.00"
    assert message["Message-ID"] == "<01a225a1-0000-7000-8000-000000000001@plafond.example>"
    assert message["Date"].datetime == datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    assert (message["Auto-Submitted"], message["Content-Language"]) == ("auto-generated", "en")
    assert message["List-Unsubscribe"] is None
    assert message.get_content_type() == "multipart/mixed"
    body, file = message.iter_parts()
    assert body.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in body.iter_parts()] == ["text/plain", "text/html"]
    assert (file.get_filename(), file.get_content()) == ("INV-000001.pdf", b"%PDF-1.7 a page")


def test_the_text_says_what_the_html_says() -> None:
    message = make_message(PLAIN, SENDER)
    text, html = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))  # type: ignore[union-attr]
    for said in (PLAIN.subject, *PLAIN.paragraphs, "9,000", PLAIN.button.url, PLAIN.why, "Torstraße 12"):
        assert said in text
        assert said in html
    assert PLAIN.unsubscribing is not None
    assert PLAIN.unsubscribing.url in text
    assert message["List-Unsubscribe"] == f"<{PLAIN.unsubscribing.url}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_what_is_said_is_never_markup() -> None:
    html = write_html(replace(PLAIN, paragraphs=("<script>alert(1)</script>",), why="a & b"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html


@pytest.mark.parametrize(
    "hostile",
    [
        "Eve\r\nBcc: victim@example.com",
        "Eve\nBcc: victim@example.com",
        "Eve\rBcc: victim@example.com",
        "Eve\u2028Bcc: victim@example.com",
        "Eve\x0bBcc: x\x00",
        "\u202eEve",
        '"Eve" <victim@example.com>',
    ],
)
def test_no_text_adds_a_header(hostile: str) -> None:
    """However it came past the input: names and subjects are one line, whatever they hold."""
    letter = replace(PLAIN, recipient_name=hostile, sender_name=hostile, subject=f"Hello {hostile}")
    message = message_from_bytes(make_message(letter, SENDER).as_bytes(), policy=default)
    assert message["Bcc"] is None
    assert [address.addr_spec for address in message["To"].addresses] == ["erika@example.com"]
    assert [address.addr_spec for address in message["From"].addresses] == ["billing@plafond.example"]
    assert sorted(set(message.keys())) == sorted(set(make_message(PLAIN, SENDER).keys()))


@pytest.mark.parametrize("address", ["a@b.example\r\nBcc: x@example.com", "a@b.example, c@d.example", "", "nobody"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(MailRefused):
        make_message(replace(PLAIN, recipient=address), SENDER)


def test_a_domain_is_written_as_it_is_looked_up() -> None:
    message = make_message(replace(PLAIN, recipient="erika@müller.example"), SENDER)
    assert message["To"].addresses[0].addr_spec == "erika@xn--mller-kva.example"


async def test_what_a_server_says_decides_what_follows() -> None:
    async with run_server() as inbox:
        mailer = SmtpMailer(relay_to(inbox.port), SENDER)
        inbox.to_data = ["451 come back later", "554 no spam"]
        with pytest.raises(MailDeferred, match="451 come back later"):
            await mailer.send(PLAIN)
        with pytest.raises(MailRefused, match="554 no spam"):
            await mailer.send(PLAIN)
        inbox.to_recipient = ["450 busy", "550 no such mailbox"]
        with pytest.raises(MailDeferred, match="450 busy"):
            await mailer.send(PLAIN)
        with pytest.raises(MailRefused, match="550 no such mailbox"):
            await mailer.send(PLAIN)
        await mailer.send(PLAIN)
        assert len(inbox.messages) == 1
        port = inbox.port
    with pytest.raises(MailDeferred, match="Connect"):
        await SmtpMailer(relay_to(port), SENDER).send(PLAIN)


async def test_nothing_is_said_before_tls(tmp_path: Path) -> None:
    server, trust = make_certificate(tmp_path)
    async with run_server(server) as inbox:
        relay = Relay.parse(f"smtp://plafond:s3cret%20p%40ss@127.0.0.1:{inbox.port}")
        await SmtpMailer(relay, SENDER, trust=trust).send(PLAIN)
        assert (inbox.were_encrypted, inbox.logins) == ([True], [b"plafond"])
        with pytest.raises(MailDeferred, match="certificate"):
            await SmtpMailer(relay, SENDER).send(PLAIN)
        wrong = Relay.parse(f"smtp://plafond:wrong@127.0.0.1:{inbox.port}")
        with pytest.raises(MailDeferred, match="Authentication"):
            await SmtpMailer(wrong, SENDER, trust=trust).send(PLAIN)
        assert len(inbox.messages) == 1
    async with run_server() as inbox:  # one that knows no TLS is told nothing
        with pytest.raises(MailDeferred):
            await SmtpMailer(Relay.parse(f"smtp://127.0.0.1:{inbox.port}"), SENDER).send(PLAIN)
        assert inbox.messages == []


def test_an_address_of_a_server_is_read() -> None:
    found = Relay.parse("smtps://user:p%3Aw@mail.example.com")
    assert (found.host, found.port, found.username, found.password) == ("mail.example.com", 465, "user", "p:w")
    assert (found.is_tls, found.wants_starttls) == (True, False)
    assert Relay.parse("smtp://mail.example.com").wants_starttls
    assert not Relay.parse("smtp://[::1]:1025?tls=off").wants_starttls


@pytest.mark.parametrize(
    "address",
    [
        "",
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtp://mail.example.com?tls=off",
        "smtps://127.0.0.1?tls=off",
        "smtp://127.0.0.1?tls=maybe",
        "smtp://user@mail.example.com",
        "smtp://mail.example.com/path",
        "smtp://mail.example.com:port",
    ],
)
def test_what_is_no_server_is_refused(address: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each says what is off in its own words
        Relay.parse(address)


async def test_the_folder_keeps_each_once_and_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_folder, "KEPT", 3)
    folder = MailFolder(tmp_path / "mail", SENDER)
    letters = [replace(WITH_FILE, id=UUID(int=number), subject=f"Number {number}") for number in range(1, 6)]
    for letter in (*letters, letters[-1]):
        await folder.send(letter)
    assert [mail.message["Subject"] for mail in list_mails(folder.folder, 2)] == ["Number 5", "Number 4"]
    assert len(list(folder.folder.iterdir())) == 3
    kept = read_mail(folder.folder, str(UUID(int=5)))
    assert kept is not None
    assert [part.get_filename() for part in kept.message.iter_attachments()] == ["INV-000001.pdf"]
    for name in (str(UUID(int=1)), "../../etc/passwd", "", "x" * 36):
        assert read_mail(folder.folder, name) is None


@pytest.mark.parametrize("key", sorted(WORDS))
def test_no_language_misses_a_sentence_or_a_gap(key: str) -> None:
    texts = WORDS[key]
    assert len(texts) == len(LANGUAGES)
    gaps = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in texts]
    assert all(text.strip() for text in texts)
    assert all(found == gaps[0] for found in gaps), key
