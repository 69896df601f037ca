"""Mail: what is to be sent to whom, once, and what became of it."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity
from .people import ContactTopic


class OutboxReader(Base, kw_only=True, eq=False):
    """How far one of those who read the outbox has come. Its row is the lock: one at a time."""

    __tablename__ = "outbox_reader"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(default=0)


class MailKind(StrEnum):
    """What a mail is about."""

    USAGE_ALERT = "USAGE_ALERT"
    ALERT_DIGEST = "ALERT_DIGEST"
    INVOICE_ISSUED = "INVOICE_ISSUED"
    CREDIT_NOTE_ISSUED = "CREDIT_NOTE_ISSUED"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    PAYMENT_RECOVERED = "PAYMENT_RECOVERED"
    CARD_EXPIRING = "CARD_EXPIRING"
    TRIAL_ENDING = "TRIAL_ENDING"
    RENEWAL_AHEAD = "RENEWAL_AHEAD"
    SUBSCRIPTION_CHANGED = "SUBSCRIPTION_CHANGED"
    REFUND = "REFUND"
    INVITATION = "INVITATION"
    WEBHOOK_DISABLED = "WEBHOOK_DISABLED"


class MailStatus(StrEnum):
    """How far a mail is."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    DROPPED = "DROPPED"
    """It had nothing to say any more, or nobody to say it to."""


class MailMessage(Entity, kw_only=True, eq=False):
    """One mail to one mailbox. Its Message-ID is made of its id: a second try is recognised by it."""

    __tablename__ = "mail_message"
    __table_args__ = (
        UniqueConstraint("account_id", "key"),
        Index(
            "ix_mail_message_waiting",
            "due_at",
            sqlite_where=text("status = 'PENDING'"),
            postgresql_where=text("status = 'PENDING'"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    kind: Mapped[MailKind]
    key: Mapped[str]
    """What it is sent once for, and the mailbox: an event's id or a digest's day, then `contact:ID`, `company` or
    `invite:ID`."""
    topic: Mapped[ContactTopic | None] = mapped_column(default=None)
    """What a contact must still want for it to go out; none of what goes to no contact."""
    contact_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("contact.id", ondelete="SET NULL"), index=True, default=None
    )
    recipient: Mapped[str]
    recipient_name: Mapped[str] = mapped_column(default="")
    locale: Mapped[str]
    params: Mapped[dict[str, Any]]
    """What the text is made of, as it stood when it was planned: ids, figures, instants."""
    status: Mapped[MailStatus] = mapped_column(default=MailStatus.PENDING)
    due_at: Mapped[datetime]
    """By the wall clock, when it is tried next."""
    ripe_at: Mapped[datetime | None] = mapped_column(default=None)
    """Of a digest, by the account's own clock, when its day is over."""
    leased_until: Mapped[datetime | None] = mapped_column(default=None)
    tries: Mapped[int] = mapped_column(default=0)
    """How often it was taken: this never falls, so that no holder is mistaken for another."""
    failures: Mapped[int] = mapped_column(default=0)
    sent_at: Mapped[datetime | None] = mapped_column(default=None)
    failure: Mapped[str | None] = mapped_column(default=None)
    """Why it failed last, or for good."""
