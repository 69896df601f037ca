"""Closing accounts, legal holds, and erasing people: the inputs and answers."""

from uuid import UUID

import strawberry

from ..services.erasing import Named, TraceKind
from .administration import AccountPayload
from .billing import BillingAccount
from .errors import UserError
from .fields import once_key, said, say_enum
from .node import NOBODY, key_of
from .scalars import EmailAddress

say_enum(
    TraceKind,
    {
        "CONTACT": "Contacts, which are gone.",
        "MEMBER": "Members: nobody is known by these any more.",
        "INVITE": "Invitations, which are gone.",
        "COMPANY": "The e-mail address of a company; its name is the customer's, and stays.",
        "MAIL": "Mails: to whom, and what about.",
        "AUDIT_ENTRY": "What changed, by entries of the audit log; that something did stays.",
        "EVENT": "Events.",
        "WEBHOOK": "What was or is to be sent to webhooks, and what they answered.",
        "NOTICE": "Notices.",
        "TEXT": "What somebody wrote: reasons, notes, metadata, answers that are remembered.",
        "EXPORT": "Files that were exported: they can be asked for again.",
        "INVOICE": "Invoices.",
        "CREDIT_NOTE": "Credit notes.",
        "DOCUMENT": "The frozen content of documents, and of what they rest on.",
    },
)


@strawberry.input(description="Close an account for good.")
class CloseBillingAccountInput:
    """Which account."""

    account_id: strawberry.ID = said("The account's id.")
    confirm: str = said(
        "The account's name or `externalId`, letter by letter: so that nobody closes another one than they think."
    )
    reason: str | None = strawberry.field(default=None, description="Why, for the history: up to 500 characters.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="The account that was closed. Its data is deleted 90 days later; its invoices stay.")
class CloseBillingAccountPayload(AccountPayload):
    """The answer to closing."""


@strawberry.input(description="Keep all of an account, or no longer.")
class SetLegalHoldInput:
    """A legal hold."""

    account_id: strawberry.ID = said("The account's id.")
    reason: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Why all of it is kept, up to 500 characters; null lifts the hold. It has to be given, as one or "
        "the other. `BillingAccount.legalHold` reads it.",
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="The account with or without its hold.")
class SetLegalHoldPayload(AccountPayload):
    """The answer to a hold."""


@strawberry.input(description="Whom to erase: exactly one of the three.")
class ErasePersonInput:
    """A person."""

    email: EmailAddress | None = strawberry.field(default=None, description="Their address.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="A member that they are; where they are others too, these go as well."
    )
    contact_id: strawberry.ID | None = strawberry.field(default=None, description="A contact that they are.")
    idempotency_key: str | None = once_key()

    def to_named(self) -> Named:
        """As the services know it. An id that is none is nobody's."""
        return Named(
            email=self.email,
            member_id=_key(self.member_id, "Member"),
            contact_id=_key(self.contact_id, "Contact"),
        )


def _key(id: str | None, type_name: str) -> UUID | None:
    return None if id is None else key_of(id, type_name) or NOBODY


@strawberry.type(description="How much of a kind was erased.")
class ErasedTraces:
    """Traces that are gone."""

    kind: TraceKind = said("Of which kind.")
    count: int = said("How many.")


@strawberry.type(description="How much of a kind is kept, and why.")
class KeptTraces:
    """Traces that stay."""

    kind: TraceKind = said("Of which kind.")
    count: int = said("How many.")
    reason: str = said("Why the law has them kept, and until when.")


@strawberry.type(description="What became of a person's data.")
class ErasePersonPayload:
    """The answer to erasing."""

    erased: list[ErasedTraces] | None = strawberry.field(
        default=None, description="What was erased, by kind; empty where nothing told of the person."
    )
    kept: list[KeptTraces] | None = strawberry.field(
        default=None, description="What tells of the person and is kept all the same."
    )
    accounts_without_owner: list[BillingAccount] | None = strawberry.field(
        default=None, description="Accounts whose last owner the person was: an operator has to give them another."
    )
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not."
    )
