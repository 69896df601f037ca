"""The mutations of contacts."""

from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.contacts import (
    AddContactInput,
    AddContactPayload,
    Contact,
    RemoveContactInput,
    RemoveContactPayload,
    UpdateContactInput,
    UpdateContactPayload,
)
from ..schema.node import encode_id
from ..services import contacts
from ..services.access import Principal, Right
from ..services.errors import NotFound
from ..services.idempotency import Outcome, Request, idempotent
from .access import find_account_id, find_id, mutation, require_right
from .context import Info


@strawberry.type
class ContactMutation:
    """What of Mutation is about contacts."""

    @mutation(Right.MANAGE_BILLING)
    async def add_contact(
        self, info: Info, input: Annotated[AddContactInput, strawberry.argument(description="Who, and for what.")]
    ) -> AddContactPayload:
        """Have an account's mail sent to a mailbox, as far as it wants it."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        fields = input.to_fields()
        request = Request(input.idempotency_key, scope=str(account_id), given=fields)
        outcome = await info.context.run(_add, request, info.context.principal, account_id, fields)
        return AddContactPayload(contact=await _show(info, outcome))

    @mutation(Right.MANAGE_BILLING)
    async def update_contact(
        self, info: Info, input: Annotated[UpdateContactInput, strawberry.argument(description="What to change.")]
    ) -> UpdateContactPayload:
        """Change who a contact is, what it receives, in which language and when."""
        row = _require_found(await _look_for(info, input.contact_id))
        fields = input.to_fields()
        request = Request(input.idempotency_key, scope=str(row.account_id), given=[row.id, fields])
        outcome = await info.context.run(_update, request, info.context.principal, row, fields)
        return UpdateContactPayload(contact=await _show(info, outcome))

    @mutation(Right.MANAGE_BILLING)
    async def remove_contact(
        self, info: Info, input: Annotated[RemoveContactInput, strawberry.argument(description="Which one.")]
    ) -> RemoveContactPayload:
        """Send nothing more to a contact. Mail that waits for it is not sent."""
        # Nothing is left of one that is gone but the answer under its key.
        row = await _look_for(info, input.contact_id)
        request = Request(input.idempotency_key, scope="", given=input.contact_id)
        outcome = await info.context.run(_remove, request, info.context.principal, row)
        info.context.note_replay(replayed=outcome.replayed)
        return RemoveContactPayload(removed_id=encode_id("Contact", outcome.answer["contactId"]))


async def _look_for(info: Info, id: str) -> models.Contact | None:
    """A contact that the caller may change; none where there is none, or it is another tenant's."""
    key = find_id(id, "Contact")
    row = None if key is None else await info.context.load.row(models.Contact, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        return None
    require_right(info, Right.MANAGE_BILLING, row.account_id)
    return row


def _require_found(row: models.Contact | None) -> models.Contact:
    if row is None:
        raise NotFound(contacts.UNKNOWN_CONTACT, ["input", "contactId"])
    return row


async def _show(info: Info, outcome: Outcome) -> Contact | None:
    """The contact of an answer, as it is after the commit; none where it was removed since."""
    info.context.note_replay(replayed=outcome.replayed)
    row = await info.context.load.row(models.Contact, UUID(outcome.answer["contactId"]))
    return None if row is None else Contact.of(row)


@idempotent("addContact")
async def _add(work: Work, principal: Principal, account_id: UUID, fields: contacts.ContactFields) -> dict[str, Any]:
    return {"contactId": str((await contacts.add_contact(work, principal, account_id, fields)).id)}


@idempotent("updateContact")
async def _update(
    work: Work, principal: Principal, row: models.Contact, fields: contacts.ContactFields
) -> dict[str, Any]:
    return {"contactId": str((await contacts.update_contact(work, principal, row, fields)).id)}


@idempotent("removeContact")
async def _remove(work: Work, principal: Principal, found: models.Contact | None) -> dict[str, Any]:
    row = _require_found(found)
    await contacts.remove_contact(work, principal, row)
    return {"contactId": str(row.id)}
