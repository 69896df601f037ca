"""Members: the inputs and answers of the mutations that invite them, change what they are, and let them go."""

import strawberry

from .billing import BillingAccount, Invite, Member, OwnershipTransfer
from .enums import Role
from .errors import UserError
from .fields import maybe, once_key, refusals, said
from .scalars import EmailAddress

_ROLES = "TENANT_OWNER, BILLING_ADMIN or MEMBER"


@strawberry.input(description="Somebody to invite to an account, by a mail with a link that is good for seven days.")
class InviteMemberInput:
    """An invitation."""

    account_id: strawberry.ID = said("The account's id.")
    email: EmailAddress = said("Where the link is sent. Whoever brings it back becomes the member.")
    role: Role = said(f"What they will be: {_ROLES}.")
    locale: str | None = maybe("The language of the mail, as a BCP 47 tag such as de-AT; the account's when left out.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="An invitation to send again, by a new link; the old one ends.")
class ResendInviteInput:
    """Which invitation."""

    invite_id: strawberry.ID = said("The invitation's id.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="An invitation to withdraw.")
class RevokeInviteInput:
    """Which invitation."""

    invite_id: strawberry.ID = said("The invitation's id.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="An invitation to accept, as the person that the bearer token proves.")
class AcceptInviteInput:
    """Which invitation."""

    token: str = said("What stands at the end of the invitation's link, after `/invitations/`.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="A member and their new role.")
class SetMemberRoleInput:
    """A change of a role."""

    member_id: strawberry.ID = said("The member's id: nobody gives a role to oneself.")
    role: Role = said(f"What they will be: {_ROLES}.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="A member to let go.")
class RemoveMemberInput:
    """Which member."""

    member_id: strawberry.ID = said("The member's id; one's own to leave.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="To whom the ownership of an account is offered.")
class TransferOwnershipInput:
    """An offer."""

    account_id: strawberry.ID = said("The account's id.")
    member_id: strawberry.ID | None = maybe("Who shall have it, in place of an earlier offer; null takes that back.")
    idempotency_key: str | None = once_key()


@strawberry.input(description="An ownership to accept, as it was offered.")
class AcceptOwnershipInput:
    """Of which account."""

    account_id: strawberry.ID = said("The account's id.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="The invitation, or why there is none.")
class InviteMemberPayload:
    """The answer to an invitation."""

    invite: Invite | None = maybe("The invitation: its link goes out by mail.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The invitation as it is now, or why it was not sent.")
class ResendInvitePayload:
    """The answer to sending an invitation again."""

    invite: Invite | None = maybe("The invitation as it is now.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="Which invitation is good no more, or why not.")
class RevokeInvitePayload:
    """The answer to a withdrawal."""

    revoked_id: strawberry.ID | None = maybe("The id that it had.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="What the caller joined, or why not.")
class AcceptInvitePayload:
    """The answer to an acceptance."""

    account: BillingAccount | None = maybe("The account.")
    member: Member | None = maybe("The caller, as a member of it.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The member with the role, or why not.")
class SetMemberRolePayload:
    """The answer to a change of a role."""

    member: Member | None = maybe("The member as they are now.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="Who is a member no more, or why not.")
class RemoveMemberPayload:
    """The answer to a removal."""

    removed_id: strawberry.ID | None = maybe("The id that the member had.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The offer, or why there is none.")
class TransferOwnershipPayload:
    """The answer to an offer."""

    transfer: OwnershipTransfer | None = maybe("The offer, good for seven days; null where one was taken back.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The new owner, or why not.")
class AcceptOwnershipPayload:
    """The answer to an acceptance."""

    member: Member | None = maybe("The caller, as an owner.")
    user_errors: list[UserError] = refusals()
