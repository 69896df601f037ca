"""Letters as messages: headers, a text part, an HTML part, and the file that goes along."""

import re
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from ..services.letters import Letter
from ..services.ports import MailRefused

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "mail"
# A header is one line, and what turns the direction of a text may show it as another one.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Sender:
    """In whose name mails go out."""

    address: str
    """What stands behind From, and whose domain the Message-IDs have."""
    reply_to: str | None = None


def make_message(letter: Letter, sender: Sender) -> EmailMessage:
    """A letter as it is sent. The same letter has the same Message-ID, whenever it is made.

    Raises `MailRefused` for an address that is none.
    """
    message = EmailMessage(policy=SMTP)
    message["From"] = _address(letter.sender_name, sender.address)
    message["To"] = _address(letter.recipient_name, letter.recipient)
    if sender.reply_to is not None:
        message["Reply-To"] = _address("", sender.reply_to)
    message["Subject"] = _one_line(letter.subject)
    message["Date"] = letter.written_at
    message["Message-ID"] = f"<{letter.id}@{domain_of(sender.address)}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    if letter.unsubscribing is not None:
        message["List-Unsubscribe"] = f"<{letter.unsubscribing.url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(write_text(letter))
    message.add_alternative(write_html(letter), subtype="html")
    if letter.attachment is not None:
        maintype, _, subtype = letter.attachment.media_type.partition("/")
        name = re.sub(r"[^A-Za-z0-9._-]", "-", letter.attachment.name)[:100]
        message.add_attachment(letter.attachment.content, maintype=maintype, subtype=subtype, filename=name)
    # Last: what is said of the content before there are parts would be said of the first of them.
    message["Content-Language"] = letter.language
    return message


def write_html(letter: Letter) -> str:
    """The HTML part. What a letter says is text, whatever it looks like."""
    return _template("mail.html").render(letter=letter)


def write_text(letter: Letter) -> str:
    """The text part."""
    return _template("mail.txt").render(letter=letter)


def write_page(name: str, **said: object) -> str:
    """A page around mail: the one that a link to unsubscribe opens, and those of the sandbox."""
    return _template(name).render(**said)


def _address(name: str, address: str) -> Address:
    try:
        return Address(_one_line(name), addr_spec=_in_ascii(address))
    except (ValueError, IndexError) as error:
        raise MailRefused(f"the address cannot be written to: {error}") from error


def _in_ascii(address: str) -> str:
    """An address with its domain as it is looked up; what stands before the @ stays."""
    local, at, domain = address.rpartition("@")
    return local + at + (domain if domain.isascii() else domain.encode("idna").decode())


def domain_of(address: str) -> str:
    """The domain of a mailbox, as it is looked up."""
    return _in_ascii(address).rpartition("@")[2]


def _one_line(text: str) -> str:
    return _CONTROLS.sub(" ", text).strip()


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
