"""The mutations of members, invitations and ownership."""

from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..models import Role
from ..schema.billing import BillingAccount, Invite, Member, OwnershipTransfer
from ..schema.members import (
    AcceptInviteInput,
    AcceptInvitePayload,
    AcceptOwnershipInput,
    AcceptOwnershipPayload,
    InviteMemberInput,
    InviteMemberPayload,
    RemoveMemberInput,
    RemoveMemberPayload,
    ResendInviteInput,
    ResendInvitePayload,
    RevokeInviteInput,
    RevokeInvitePayload,
    SetMemberRoleInput,
    SetMemberRolePayload,
    TransferOwnershipInput,
    TransferOwnershipPayload,
)
from ..schema.node import NOBODY, encode_id
from ..services import invites, members
from ..services.access import Person, Principal, Right
from ..services.claims import Claim, Purpose, read_claim
from ..services.errors import NotFound
from ..services.idempotency import Request, idempotent
from .access import find_account_id, find_id, mutation, require_right
from .context import Info


@strawberry.type
class MemberMutation:
    """What of Mutation is about members."""

    @mutation(Right.ADMINISTER)
    async def invite_member(
        self, info: Info, input: Annotated[InviteMemberInput, strawberry.argument(description="Who, and as what.")]
    ) -> InviteMemberPayload:
        """Invite somebody to an account. For its owners, and operators."""
        account_id = find_account_id(info, input.account_id, Right.ADMINISTER)
        given = (input.email, input.role, input.locale)
        request = Request(input.idempotency_key, scope=str(account_id), given=list(given))
        outcome = await info.context.run(_invite, request, info.context.principal, account_id, *given)
        return InviteMemberPayload(invite=await _show_invite(info, outcome.answer, replayed=outcome.replayed))

    @mutation(Right.ADMINISTER)
    async def resend_invite(
        self, info: Info, input: Annotated[ResendInviteInput, strawberry.argument(description="Which one.")]
    ) -> ResendInvitePayload:
        """Send an invitation again, by a new link with seven days of its own. Older links end."""
        row = await _find_invite(info, input.invite_id)
        request = Request(input.idempotency_key, scope=str(row.account_id), given=row.id)
        outcome = await info.context.run(_resend, request, info.context.principal, row)
        return ResendInvitePayload(invite=await _show_invite(info, outcome.answer, replayed=outcome.replayed))

    @mutation(Right.ADMINISTER)
    async def revoke_invite(
        self, info: Info, input: Annotated[RevokeInviteInput, strawberry.argument(description="Which one.")]
    ) -> RevokeInvitePayload:
        """Withdraw an invitation that nobody accepted yet."""
        row = await _find_invite(info, input.invite_id)
        request = Request(input.idempotency_key, scope=str(row.account_id), given=row.id)
        outcome = await info.context.run(_revoke, request, info.context.principal, row)
        info.context.note_replay(replayed=outcome.replayed)
        return RevokeInvitePayload(revoked_id=encode_id("Invite", row.id))

    @mutation(Right.JOIN)
    async def accept_invite(
        self, info: Info, input: Annotated[AcceptInviteInput, strawberry.argument(description="Which one.")]
    ) -> AcceptInvitePayload:
        """Become a member of the account that one was invited to. It takes a JWT, of whoever shall be the member."""
        context = info.context
        person = invites.refuse_program(context.principal)
        claim = read_claim(context.link_key, Purpose.INVITATION, input.token, context.now())
        request = Request(input.idempotency_key, scope="", given=input.token)
        outcome = await context.run(_accept, request, context.principal, person, claim)
        context.note_replay(replayed=outcome.replayed)
        # With the role that they have now, the answer may be read.
        await context.authenticate()
        context.forget()
        member = await context.load.row(models.Member, UUID(outcome.answer["memberId"]))
        assert member is not None, "members are never deleted"
        account = await context.load.account(member.account_id)
        assert account is not None, "a foreign key guarantees the account"
        return AcceptInvitePayload(account=BillingAccount.of(account), member=Member.of(member))

    @mutation(Right.ADMINISTER)
    async def set_member_role(
        self, info: Info, input: Annotated[SetMemberRoleInput, strawberry.argument(description="Who, and what.")]
    ) -> SetMemberRolePayload:
        """Give a member another role. Their keys and streams follow at once."""
        row = await _find_member(info, input.member_id, Right.ADMINISTER)
        request = Request(input.idempotency_key, scope=str(row.account_id), given=[row.id, input.role])
        outcome = await info.context.run(_set_role, request, info.context.principal, row, input.role)
        return SetMemberRolePayload(member=await _show_member(info, outcome.answer, replayed=outcome.replayed))

    @mutation(Right.READ_USAGE)
    async def remove_member(
        self, info: Info, input: Annotated[RemoveMemberInput, strawberry.argument(description="Whom.")]
    ) -> RemoveMemberPayload:
        """Let a member go, with the keys they made and the streams they follow; or leave oneself."""
        row = await _find_member(info, input.member_id, Right.READ_USAGE)
        request = Request(input.idempotency_key, scope=str(row.account_id), given=row.id)
        outcome = await info.context.run(_remove, request, info.context.principal, row)
        info.context.note_replay(replayed=outcome.replayed)
        return RemoveMemberPayload(removed_id=encode_id("Member", row.id))

    @mutation(Right.ADMINISTER)
    async def transfer_ownership(
        self, info: Info, input: Annotated[TransferOwnershipInput, strawberry.argument(description="To whom.")]
    ) -> TransferOwnershipPayload:
        """Offer the ownership to another member. It is theirs once they accept it by `acceptOwnership`."""
        account_id = find_account_id(info, input.account_id, Right.ADMINISTER)
        member_id = None if input.member_id is None else find_id(input.member_id, "Member") or NOBODY
        request = Request(input.idempotency_key, scope=str(account_id), given=member_id)
        outcome = await info.context.run(_offer, request, info.context.principal, account_id, member_id)
        info.context.note_replay(replayed=outcome.replayed)
        if member_id is None:
            return TransferOwnershipPayload()
        row = await info.context.load.row(models.OwnershipTransfer, UUID(outcome.answer["transferId"]))
        return TransferOwnershipPayload(transfer=None if row is None else OwnershipTransfer.of(row))

    @mutation(Right.READ_USAGE)
    async def accept_ownership(
        self, info: Info, input: Annotated[AcceptOwnershipInput, strawberry.argument(description="Of what.")]
    ) -> AcceptOwnershipPayload:
        """Become an owner, as it was offered. The member who offered it is a billing admin from then on."""
        account_id = find_account_id(info, input.account_id, Right.READ_USAGE)
        request = Request(input.idempotency_key, scope=str(account_id), given=account_id)
        outcome = await info.context.run(_own, request, info.context.principal, account_id)
        await info.context.authenticate()
        return AcceptOwnershipPayload(member=await _show_member(info, outcome.answer, replayed=outcome.replayed))


async def _find_invite(info: Info, id: str) -> models.Invite:
    key = find_id(id, "Invite")
    row = None if key is None else await info.context.load.row(models.Invite, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        raise NotFound(invites.UNKNOWN_INVITE, ["input", "inviteId"])
    require_right(info, Right.ADMINISTER, row.account_id)
    return row


async def _find_member(info: Info, id: str, right: Right) -> models.Member:
    key = find_id(id, "Member")
    row = None if key is None else await info.context.load.row(models.Member, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        raise NotFound(members.UNKNOWN_MEMBER, ["input", "memberId"])
    require_right(info, right, row.account_id)
    return row


async def _show_invite(info: Info, answer: dict[str, Any], *, replayed: bool) -> Invite | None:
    info.context.note_replay(replayed=replayed)
    row = await info.context.load.row(models.Invite, UUID(answer["inviteId"]))
    return None if row is None else Invite.of(row)


async def _show_member(info: Info, answer: dict[str, Any], *, replayed: bool) -> Member | None:
    info.context.note_replay(replayed=replayed)
    row = await info.context.load.row(models.Member, UUID(answer["memberId"]))
    return None if row is None else Member.of(row)


@idempotent("inviteMember")
async def _invite(
    work: Work, principal: Principal, account_id: UUID, email: str, role: Role, locale: str | None
) -> dict[str, Any]:
    invite = await invites.invite_member(work, principal, account_id, email=email, role=role, locale=locale)
    return {"inviteId": str(invite.id)}


@idempotent("resendInvite")
async def _resend(work: Work, principal: Principal, row: models.Invite) -> dict[str, Any]:
    return {"inviteId": str((await invites.resend_invite(work, principal, row)).id)}


@idempotent("revokeInvite")
async def _revoke(work: Work, principal: Principal, row: models.Invite) -> dict[str, Any]:
    return {"inviteId": str((await invites.revoke_invite(work, principal, row)).id)}


@idempotent("acceptInvite")
async def _accept(work: Work, principal: Principal, person: Person, claim: Claim | None) -> dict[str, Any]:
    return {"memberId": str((await invites.accept_invite(work, principal, person, claim)).id)}


@idempotent("setMemberRole")
async def _set_role(work: Work, principal: Principal, row: models.Member, role: Role) -> dict[str, Any]:
    return {"memberId": str((await members.set_member_role(work, principal, row, role)).id)}


@idempotent("removeMember")
async def _remove(work: Work, principal: Principal, row: models.Member) -> dict[str, Any]:
    return {"memberId": str((await members.remove_member(work, principal, row)).id)}


@idempotent("transferOwnership")
async def _offer(work: Work, principal: Principal, account_id: UUID, member_id: UUID | None) -> dict[str, Any]:
    transfer = await members.offer_ownership(work, principal, account_id, member_id)
    return {"transferId": None if transfer is None else str(transfer.id)}


@idempotent("acceptOwnership")
async def _own(work: Work, principal: Principal, account_id: UUID) -> dict[str, Any]:
    return {"memberId": str((await members.accept_ownership(work, principal, account_id)).id)}
