"""The audit log: who changed what, from where, before and after."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self, TypeAlias

import strawberry

from .. import models
from ..services.errors import ErrorCode, RequestRefused
from ..services.relations import AuditFilter
from .fields import maybe, said, say_enum
from .node import Node, encode_id
from .scalars import JsonObject

MAX_TEXT = 255


class AuditActorKind(StrEnum):
    """What made a change."""

    API_KEY = "api_key"
    MEMBER = "member"
    OPERATOR = "operator"
    SYSTEM = "system"


say_enum(
    AuditActorKind,
    {
        "API_KEY": "A program with an API key.",
        "MEMBER": "A person of the account.",
        "OPERATOR": "A person of the vendor.",
        "SYSTEM": "The system itself: its worker, its links, its command line.",
    },
)


@strawberry.type(description="Who made a change.")
class AuditActor:
    """An actor."""

    kind: AuditActorKind = said("What it is.")
    name: str = said("Which one, as api_key:ID, member:ID, operator:ID or system:NAME. The filter takes this.")

    @classmethod
    def of(cls, name: str) -> Self:
        """An actor from how it is stored."""
        return cls(kind=AuditActorKind(name.partition(":")[0]), name=name)


@strawberry.type(description="One change. It is never changed itself; each is hashed with the one before.")
class AuditEntry(Node):
    """An entry."""

    account_id: strawberry.Private[Any]
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the entry again.")
    number: int = said("Its place in the log, from 1, without a gap.")
    at: datetime = said("When, by the account's clock.")
    created_at: datetime = said("The same.")
    updated_at: datetime = said("The same: an entry never changes.")
    actor: AuditActor = said("Who.")
    origin: str = said("From where: the request's id and address, or the process.")
    action: str = said("What was done, such as invoice.voided.")
    object: str = said("To what, such as invoice:ID.")
    before: JsonObject = said("What it was; empty where nothing is told of that.")
    after: JsonObject = said("What it became. Where a person's data was erased, it is gone from here.")
    details_hash: str | None = said(
        "SHA-256 of `before` and `after` as they were written, where a person's data was erased from them; else null."
    )
    previous_hash: str = said("The hash of the entry before; empty of the first.")
    hash: str = said("SHA-256 over this entry and the one before. `plafond audit` checks them all.")

    @classmethod
    def of(cls, row: models.AuditEntry) -> Self:
        """An entry from its row."""
        return cls(
            account_id=row.account_id,
            id=encode_id("AuditEntry", row.id),
            number=row.number,
            at=row.at,
            created_at=row.at,
            updated_at=row.at,
            actor=AuditActor.of(row.actor),
            origin=row.origin,
            action=row.action,
            object=row.object,
            before=JsonObject(row.before),
            after=JsonObject(row.after),
            details_hash=row.details_hash,
            previous_hash=row.previous_hash,
            hash=row.hash,
        )


@strawberry.input(name="AuditFilter", description="Which entries. What is left out does not filter.")
class AuditFilterInput:
    """A filter of entries."""

    actor: str | None = maybe("By this actor, as `AuditActor.name`.")
    action: str | None = maybe("With this action; all that begin with it where it ends with a dot, such as `invoice.`.")
    object: str | None = maybe("Of this object, as `AuditEntry.object`.")
    from_: datetime | None = strawberry.field(name="from", default=None, description="Made at or after.")
    to: datetime | None = maybe("Made before.")

    def to_filter(self) -> AuditFilter:
        """As the services know it."""
        texts = [text or "" for text in (self.actor, self.action, self.object)]
        if any("\x00" in text or len(text) > MAX_TEXT for text in texts):
            raise RequestRefused(
                ErrorCode.BAD_USER_INPUT, f"A text of the filter is longer than {MAX_TEXT} characters, or holds NUL."
            )
        return AuditFilter(actor=self.actor, action=self.action, object=self.object, since=self.from_, until=self.to)


AuditFilterArgument: TypeAlias = Annotated[
    AuditFilterInput | None, strawberry.argument(description="Which entries; all if left out.")
]
