"""A mail as it is to be read: what it says, in its language. How that is laid out and sent is the mailer's."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True)
class Link:
    """Where a text leads."""

    label: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that goes along."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One mail to one mailbox. The same id is the same mail, however often it is sent."""

    id: UUID
    written_at: datetime
    recipient: str
    recipient_name: str
    sender_name: str
    language: str
    subject: str
    paragraphs: tuple[str, ...]
    """What happened, and what happens next."""
    facts: tuple[tuple[str, str], ...]
    """Figures, each with its name."""
    button: Link
    why: str
    """Why somebody gets this."""
    unsubscribing: Link | None
    """Where that can be ended; none of what has to be told."""
    footer: tuple[str, ...]
    """The seller, line by line."""
    attachment: Attachment | None = None
