"""A mail server on this machine, for tests: it keeps what it takes, and answers as it is told."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TAKEN = "250 taken"


@dataclass
class Inbox:
    """What came, and what is answered."""

    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    to_data: list[str] = field(default_factory=list)
    """Answers to the next messages, one each; then they are taken."""
    to_recipient: list[str] = field(default_factory=list)
    keeps_before_answer: bool = False
    """Whether a message that is answered by `to_data` is kept all the same, as by a server whose answer is lost."""
    logins: list[bytes] = field(default_factory=list)
    were_encrypted: list[bool] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        del server, session
        if self.to_recipient:
            return self.to_recipient.pop(0)
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a message, or not."""
        del server
        answer = self.to_data.pop(0) if self.to_data else TAKEN
        if answer == TAKEN or self.keeps_before_answer:
            content = envelope.content
            assert isinstance(content, bytes)
            message = message_from_bytes(content, policy=default)
            assert isinstance(message, EmailMessage)
            self.messages.append(message)
            self.recipients += envelope.rcpt_tos
            self.were_encrypted.append(session.ssl is not None)
        return answer

    def log_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: object) -> AuthResult:
        """One user may in."""
        del server, session, envelope, mechanism
        assert isinstance(given, LoginPassword)
        self.logins.append(given.login)
        is_known = (given.login, given.password) == (b"plafond", b"s3cret p@ss")
        return AuthResult(success=is_known, handled=False)


@asynccontextmanager
async def run_server(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Inbox]:
    """A server on a free port of this machine only; with TLS it wants STARTTLS, and then a login."""
    inbox = Inbox()

    def serve() -> SMTP:
        is_secured = tls is not None
        return SMTP(
            inbox,
            hostname="mail.test",
            authenticator=inbox.log_in,
            tls_context=tls,
            require_starttls=is_secured,
            auth_required=is_secured,
        )

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0)
    inbox.port = server.sockets[0].getsockname()[1]
    try:
        yield inbox
    finally:
        server.close()
        await server.wait_closed()


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server at 127.0.0.1 shows, and what trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
