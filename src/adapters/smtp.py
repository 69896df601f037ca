"""Mail by SMTP."""

import asyncio
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from aiosmtplib import SMTP, SMTPDataError, SMTPException, SMTPRecipientRefused, SMTPRecipientsRefused

from ..services.letters import Letter
from ..services.ports import MailDeferred, MailRefused
from .mime import Sender, domain_of, make_message

TIMEOUT_S = 60
"""A whole delivery: shorter than a mail is held by its worker."""
PORTS = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True)
class Relay:
    """A mail server, and how it is spoken to."""

    host: str
    port: int
    username: str | None
    password: str | None
    is_tls: bool
    """TLS from the first byte."""
    wants_starttls: bool
    """Nothing is said in the clear but the wish for TLS."""

    @classmethod
    def parse(cls, address: str) -> Self:
        """A relay from its address, `smtp://USER:PASSWORD@HOST:587` or `smtps://…:465`. `ValueError` says what is off.

        Without TLS (`smtp://HOST:25?tls=off`) only this machine is spoken to.
        """
        url = urlsplit(address)
        if url.scheme not in PORTS or not url.hostname or url.path not in ("", "/") or url.fragment:
            raise ValueError("an address such as smtp://USER:PASSWORD@HOST:587 or smtps://USER:PASSWORD@HOST is wanted")
        asked = parse_qs(url.query, strict_parsing=bool(url.query))
        if asked not in ({}, {"tls": ["off"]}):
            raise ValueError("`?tls=off` is the one thing that can be said behind it")
        is_plain = bool(asked)
        if is_plain and (url.scheme == "smtps" or not _is_here(url.hostname)):
            raise ValueError("`?tls=off` is for smtp:// on this machine only, such as smtp://127.0.0.1:25?tls=off")
        if (url.username is None) != (url.password is None):
            raise ValueError("it has a user and a password, or neither")
        return cls(
            host=url.hostname,
            port=_port(url),
            username=None if url.username is None else unquote(url.username),
            password=None if url.password is None else unquote(url.password),
            is_tls=url.scheme == "smtps",
            wants_starttls=url.scheme == "smtp" and not is_plain,
        )


def _port(url: SplitResult) -> int:
    return url.port or PORTS[url.scheme]


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class SmtpMailer:
    """Hands mails to a relay, each over a connection of its own."""

    def __init__(self, relay: Relay, sender: Sender, *, trust: ssl.SSLContext | None = None) -> None:
        self._relay = relay
        self._sender = sender
        self._trust = trust or ssl.create_default_context()

    async def send(self, letter: Letter) -> None:
        """Hand a mail over. What the server says of the mail itself may be final; all else is tried again."""
        message = make_message(letter, self._sender)
        try:
            async with asyncio.timeout(TIMEOUT_S), self._connection() as connection:
                await connection.send_message(message)
        except SMTPRecipientsRefused as error:
            raise _judge(error.recipients[0]) from error
        except (SMTPRecipientRefused, SMTPDataError) as error:
            raise _judge(error) from error
        except (SMTPException, OSError, TimeoutError) as error:
            # A login that fails, or a sender that is not let in, is ours to mend: the mail can wait for that.
            raise MailDeferred(f"{type(error).__name__}: {error}") from error

    def _connection(self) -> SMTP:
        relay = self._relay
        return SMTP(
            hostname=relay.host,
            port=relay.port,
            username=relay.username,
            password=relay.password,
            use_tls=relay.is_tls,
            start_tls=relay.wants_starttls,
            tls_context=self._trust if relay.is_tls or relay.wants_starttls else None,
            # Said by name: looking up our own would ask the network each time, and may take long.
            local_hostname=domain_of(self._sender.address),
            timeout=TIMEOUT_S,
        )


def _judge(error: SMTPRecipientRefused | SMTPDataError) -> MailRefused | MailDeferred:
    """By its code: 5xx is final, 4xx is not."""
    said = f"{error.code} {error.message}"
    return MailRefused(said) if error.code >= 500 else MailDeferred(said)
