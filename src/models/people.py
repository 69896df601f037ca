"""Who is reached and who takes part: contacts, invitations, and an ownership that is handed over."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from .account import Role
from .base import Entity


class ContactTopic(StrEnum):
    """What a contact receives by mail."""

    INVOICES = "INVOICES"
    PAYMENT_FAILURES = "PAYMENT_FAILURES"
    USAGE_ALERTS = "USAGE_ALERTS"
    SUBSCRIPTION_CHANGES = "SUBSCRIPTION_CHANGES"


class AlertDelivery(StrEnum):
    """When a contact is told of alerts."""

    AT_ONCE = "AT_ONCE"
    DAILY = "DAILY"
    """All of a day in one mail, in the morning of the account's zone."""


class Contact(Entity, kw_only=True, eq=False):
    """A mailbox that an account's mail goes to."""

    __tablename__ = "contact"
    __table_args__ = (
        UniqueConstraint("account_id", "email_key"),
        Index(
            "ix_contact_primary",
            "account_id",
            unique=True,
            sqlite_where=text("is_primary"),
            postgresql_where=text("is_primary"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    name: Mapped[str]
    email: Mapped[str]
    email_key: Mapped[str]
    """The address as it is compared: NFKC, case folded."""
    locale: Mapped[str | None] = mapped_column(default=None)
    """Its language; the account's when nothing is said."""
    topics: Mapped[list[Any]]
    """The names of `ContactTopic`s, sorted."""
    alert_delivery: Mapped[AlertDelivery] = mapped_column(default=AlertDelivery.AT_ONCE)
    is_primary: Mapped[bool] = mapped_column(default=False)


class Invite(Entity, kw_only=True, eq=False):
    """An invitation to become a member. Its link is signed and names `link_number`: sending again ends older links."""

    __tablename__ = "invite"
    __table_args__ = (
        Index(
            "ix_invite_waiting",
            "account_id",
            "email_key",
            unique=True,
            sqlite_where=text("accepted_at IS NULL AND revoked_at IS NULL"),
            postgresql_where=text("accepted_at IS NULL AND revoked_at IS NULL"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    email: Mapped[str]
    email_key: Mapped[str]
    role: Mapped[Role]
    locale: Mapped[str | None] = mapped_column(default=None)
    invited_by: Mapped[str]
    """Who, as `member:ID`, `operator:ID` or `api_key:ID`."""
    link_number: Mapped[int] = mapped_column(default=1)
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None] = mapped_column(default=None)
    member_id: Mapped[UUID | None] = mapped_column(ForeignKey("member.id"), default=None)
    """Who accepted it."""
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class OwnershipTransfer(Entity, kw_only=True, eq=False):
    """That an owner offered the ownership to another member, who has to accept it."""

    __tablename__ = "ownership_transfer"
    __table_args__ = (
        Index(
            "ix_ownership_transfer_waiting",
            "account_id",
            unique=True,
            sqlite_where=text("accepted_at IS NULL AND withdrawn_at IS NULL"),
            postgresql_where=text("accepted_at IS NULL AND withdrawn_at IS NULL"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    from_member_id: Mapped[UUID | None] = mapped_column(ForeignKey("member.id"))
    """Who gives it; none where an operator arranged it."""
    to_member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None] = mapped_column(default=None)
    withdrawn_at: Mapped[datetime | None] = mapped_column(default=None)
