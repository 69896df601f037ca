"""Contacts: the mailboxes that an account's mail goes to, and the mutations' inputs and answers."""

from datetime import datetime
from typing import Any, Self, cast

import strawberry

from .. import models
from ..services.contacts import MAX_NAME, MAX_OTHERS, ContactFields
from .enums import AlertDelivery, ContactTopic
from .errors import UserError
from .fields import maybe, once_key, refusals, said
from .node import Node, encode_id
from .scalars import EmailAddress

_FIELDS = ("name", "email", "locale", "topics", "alert_delivery", "is_primary")


@strawberry.type(description="A mailbox that an account's mail goes to.")
class Contact(Node):
    """A contact."""

    account_id: strawberry.Private[Any]
    id: strawberry.ID = said("Opaque, and the same for ever. `updateContact` and `removeContact` take it.")
    name: str = said("Whom mail greets.")
    email: EmailAddress = said("Where mail goes.")
    locale: str | None = said("The language of its mail, as a BCP 47 tag; the account's when null.")
    topics: list[ContactTopic] = said("What it receives; nothing when empty.")
    alert_delivery: AlertDelivery = said("When it is told of usage alerts.")
    is_primary: bool = said("Whether it is the one whom the vendor turns to. There is exactly one, once there are any.")
    created_at: datetime = said("When it was added.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Contact) -> Self:
        """A contact from its row."""
        return cls(
            account_id=row.account_id,
            id=encode_id("Contact", row.id),
            name=row.name,
            email=EmailAddress(row.email),
            locale=row.locale,
            topics=[models.ContactTopic(topic) for topic in row.topics],
            alert_delivery=row.alert_delivery,
            is_primary=row.is_primary,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


def _may(description: str) -> Any:
    """A field that may be left out, which is not the same as null."""
    return strawberry.field(default=strawberry.UNSET, description=description)


def _to_fields(source: object) -> ContactFields:
    given = {name: getattr(source, name) for name in _FIELDS}
    return cast("ContactFields", {name: value for name, value in given.items() if value is not strawberry.UNSET})


@strawberry.input(
    description=f"A mailbox to send mail to: one primary contact and at most {MAX_OTHERS} others, each address once."
)
class AddContactInput:
    """A new contact."""

    account_id: strawberry.ID = said("The account's id.")
    name: str = said(f"Whom mail greets, up to {MAX_NAME} characters.")
    email: EmailAddress = said("The address of one mailbox.")
    topics: list[ContactTopic] = said("What it shall receive.")
    locale: str | None = _may("The language of its mail, as a BCP 47 tag such as de-AT; the account's when null.")
    alert_delivery: AlertDelivery = strawberry.field(
        default=AlertDelivery.AT_ONCE, description="When it is told of usage alerts."
    )
    is_primary: bool = strawberry.field(
        default=False, description="Whether it takes the place of the primary contact. The first contact is it anyway."
    )
    idempotency_key: str | None = once_key()

    def to_fields(self) -> ContactFields:
        """As the services know it."""
        return _to_fields(self)


@strawberry.input(description="What of a contact to change. What is left out stays as it is.")
class UpdateContactInput:
    """A change of a contact."""

    contact_id: strawberry.ID = said("The contact's id.")
    name: str | None = _may(f"Whom mail greets, up to {MAX_NAME} characters.")
    email: EmailAddress | None = _may("The address of one mailbox.")
    topics: list[ContactTopic] | None = _may("All that it shall receive, in place of what it receives now.")
    locale: str | None = _may("The language of its mail, as a BCP 47 tag such as de-AT; the account's when null.")
    alert_delivery: AlertDelivery | None = _may("When it is told of usage alerts.")
    is_primary: bool | None = _may("True makes it the primary contact, and the present one is it no more.")
    idempotency_key: str | None = once_key()

    def to_fields(self) -> ContactFields:
        """As the services know it."""
        return _to_fields(self)


@strawberry.input(description="A contact to send nothing more to.")
class RemoveContactInput:
    """Which contact."""

    contact_id: strawberry.ID = said("The contact's id. The primary one goes last.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="The contact that was added, or why not.")
class AddContactPayload:
    """The answer to a new contact."""

    contact: Contact | None = maybe("The contact.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The contact with what was changed, or why not.")
class UpdateContactPayload:
    """The answer to a change of a contact."""

    contact: Contact | None = maybe("The contact as it is now.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="Which contact is gone, or why not.")
class RemoveContactPayload:
    """The answer to a contact's removal."""

    removed_id: strawberry.ID | None = maybe("The id that it had.")
    user_errors: list[UserError] = refusals()
