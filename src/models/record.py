"""What is remembered of changes and callers: audit, outbox, API keys, idempotency keys, the deployment."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ..settings import Environment
from .base import Base, Entity
from .types import new_id


class Deployment(Base, kw_only=True, eq=False):
    """One row: what this database is for, fixed when it was made."""

    __tablename__ = "deployment"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    environment: Mapped[Environment]
    last_position: Mapped[int] = mapped_column(default=0)
    """The last position that the publisher gave to an outbox row."""
    audit_count: Mapped[int] = mapped_column(default=0)
    audit_hash: Mapped[str] = mapped_column(default="")
    """The end of the chain of what changed of no account: the catalogue, taxes, operators' keys."""


class WorkKind(StrEnum):
    """What the clock brings about for an account. Of those due at one instant, the upper comes first."""

    EXPIRE_PENDING = "EXPIRE_PENDING"
    CLOSE_PERIOD = "CLOSE_PERIOD"
    END_TRIAL = "END_TRIAL"
    FINALISE_INVOICE = "FINALISE_INVOICE"
    INVOICE_CORRECTIONS = "INVOICE_CORRECTIONS"
    OVERDUE = "OVERDUE"
    EXPIRE_ACTION = "EXPIRE_ACTION"
    TRY_PAYMENT = "TRY_PAYMENT"
    CHARGE = "CHARGE"
    REFUND = "REFUND"
    SUSPEND = "SUSPEND"
    GIVE_UP = "GIVE_UP"
    RECKON_SPEND = "RECKON_SPEND"
    UPGRADE_PLAN = "UPGRADE_PLAN"
    EXPIRE_ACCOUNT = "EXPIRE_ACCOUNT"
    PURGE = "PURGE"
    REMIND = "REMIND"
    DRAW_DOCUMENT = "DRAW_DOCUMENT"
    WRITE_EXPORT = "WRITE_EXPORT"


WORK_RANK = {kind: rank for rank, kind in enumerate(WorkKind)}


class DueWork(Entity, kw_only=True, eq=False):
    """Something to be done once, at an instant. Whoever takes it holds it for a while; `tries` tells holders apart."""

    __tablename__ = "due_work"
    __table_args__ = (
        UniqueConstraint("account_id", "kind", "subject"),
        Index(
            "ix_due_work_waiting",
            "due_at",
            "rank",
            "id",
            sqlite_where=text("done_at IS NULL"),
            postgresql_where=text("done_at IS NULL"),
        ),
        Index(
            "ix_due_work_of_account",
            "account_id",
            "due_at",
            sqlite_where=text("done_at IS NULL"),
            postgresql_where=text("done_at IS NULL"),
        ),
    )

    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"))
    """Whose; none of an export over all accounts."""
    kind: Mapped[WorkKind]
    subject: Mapped[str]
    """What it is for, so that it is done once: a period's start, an invoice's id."""
    due_at: Mapped[datetime]
    rank: Mapped[int]
    leased_until: Mapped[datetime | None] = mapped_column(default=None)
    tries: Mapped[int] = mapped_column(default=0)
    """How often it was taken: this never falls, so that no holder is mistaken for another."""
    failures: Mapped[int] = mapped_column(default=0)
    """How often it failed since it was last let go of or postponed."""
    done_at: Mapped[datetime | None] = mapped_column(default=None)
    parked_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it was given up after too many tries; an operator has to look."""
    failure: Mapped[str | None] = mapped_column(default=None)


class PurgePass(Base, kw_only=True, eq=False):
    """A row in here, written and removed in one transaction, lets the retention job delete from the books."""

    __tablename__ = "purge_pass"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True)


class AuditEntry(Base, kw_only=True, eq=False):
    """One change of an account, or of the deployment: append-only, each entry hashed with the one before."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        UniqueConstraint("account_id", "number"),
        Index(
            "ix_audit_entry_deployment",
            "number",
            unique=True,
            sqlite_where=text("account_id IS NULL"),
            postgresql_where=text("account_id IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"))
    """Whose; none of what concerns no account."""
    number: Mapped[int]
    at: Mapped[datetime]
    actor: Mapped[str]
    """Who, as `api_key:ID`, `member:ID`, `operator:ID` or `system:NAME`."""
    origin: Mapped[str]
    """From where: the request's id and address, or the process."""
    action: Mapped[str]
    object: Mapped[str]
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]
    details_hash: Mapped[str | None] = mapped_column(default=None)
    """Where a person's data was erased from `before` and `after`: the hash of what they were, for the chain."""
    previous_hash: Mapped[str]
    hash: Mapped[str]


class OutboxEvent(Base, kw_only=True, eq=False):
    """What happened, written with it; streams, webhooks and `events` read from here."""

    __tablename__ = "outbox_event"
    __table_args__ = (UniqueConstraint("account_id", "sequence"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"))
    sequence: Mapped[int]
    position: Mapped[int | None] = mapped_column(unique=True, default=None)
    """The place among all accounts' events, given by the publisher after the commit."""
    kind: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    """The version of the payload's shape."""
    payload: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class ApiKey(Entity, kw_only=True, eq=False):
    """A secret that a program shows. Stored hashed; it can do what its scopes name and its maker still may."""

    __tablename__ = "api_key"
    __table_args__ = (CheckConstraint("operator_id IS NOT NULL OR NOT opens_all", "opens_all_for_operators"),)

    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    """The part that may be shown, such as `plf_test_3kq8…`."""
    secret_hash: Mapped[str]
    operator_id: Mapped[UUID | None] = mapped_column(ForeignKey("operator.id"), index=True, default=None)
    """The operator who made it; none where members did, whom its accounts name."""
    opens_all: Mapped[bool] = mapped_column(default=False)
    """Whether it opens every account, also those to come; else it opens those that its `openings` name."""
    scopes: Mapped[list[Any]]
    networks: Mapped[list[Any]] = mapped_column(default_factory=list)
    """From where it may be shown, as CIDR networks; from everywhere where there are none."""
    previous_hash: Mapped[str | None] = mapped_column(default=None)
    """The secret before the last rotation, good until `previous_until`."""
    previous_until: Mapped[datetime | None] = mapped_column(default=None)
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    """To a few minutes: not every use is written."""
    rotated_at: Mapped[datetime | None] = mapped_column(default=None)
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it ended for all its accounts at once."""

    openings: Mapped[list["ApiKeyAccount"]] = relationship(
        lazy="raise", init=False, repr=False, order_by="ApiKeyAccount.account_id"
    )


class ApiKeyAccount(Base, kw_only=True, eq=False):
    """One of the accounts that a key opens, and as whose member."""

    __tablename__ = "api_key_account"

    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), primary_key=True, index=True)
    member_id: Mapped[UUID | None] = mapped_column(ForeignKey("member.id"), index=True, default=None)
    """The maker as a member of this account; none where an operator made it."""
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    """When this account ended it for itself alone; the others go on."""


class FieldUse(Base, kw_only=True, eq=False):
    """How often a caller asked for a field on a day: an estimate from a sample."""

    __tablename__ = "field_use"

    principal: Mapped[str] = mapped_column(primary_key=True)
    """As the audit log names it, such as `api_key:ID`."""
    coordinate: Mapped[str] = mapped_column(primary_key=True)
    """The field, as `Type.field`."""
    day: Mapped[date] = mapped_column(primary_key=True)
    count: Mapped[int]


class IdempotencyKey(Base, kw_only=True, eq=False):
    """That a mutation was done under a key, with the hash of its input and its first answer."""

    __tablename__ = "idempotency_key"

    principal: Mapped[str] = mapped_column(primary_key=True)
    mutation: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True)
    """The account's id; empty for a mutation over several."""
    key: Mapped[str] = mapped_column(primary_key=True)
    input_hash: Mapped[str]
    answer: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """None while the first call is still under way."""
    created_at: Mapped[datetime] = mapped_column(index=True)
