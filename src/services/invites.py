"""Invitations: whoever is invited by mail becomes a member by bringing the link's token back."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from ..database import Actor, Work
from ..models import BillingAccount, Invite, Member, Role
from . import inputs
from .access import Person, Principal
from .accounts import lock_account
from .claims import Claim
from .edits import describe_columns
from .errors import BillingError, Conflict, Forbidden, InvalidInput, NotFound
from .mailboxes import key_of_email
from .permissions import Action, require_action

LIFE = timedelta(days=7)
MAX_OPEN = 50
MAX_MEMBERS = 100
UNKNOWN_INVITE = "There is no such open invitation, or it is not yours."
NO_INVITATION = "This invitation is not good: it is over, was used, withdrawn or sent anew, or it is none. Ask for one."
_TOKEN = ["input", "token"]


async def lock_for_member(work: Work, principal: Principal, account_id: UUID) -> BillingAccount:
    """An account, locked, for a caller who is there what they were when they asked: people decide about each other."""
    account = await lock_account(work, account_id)
    member_id = principal.members.get(account_id)
    if member_id is not None:
        member = await work.session.get_one(Member, member_id, populate_existing=True)
        if member.removed_at is not None or member.role is not principal.roles.get(account_id):
            raise Forbidden("What you are in this account has changed at this moment: ask again.", ["input"])
    return account


async def invite_member(
    work: Work, principal: Principal, account_id: UUID, *, email: str, role: Role, locale: str | None
) -> Invite:
    """Invite somebody to an account, by a mail with a link."""
    account = await lock_for_member(work, principal, account_id)
    await require_action(work, principal, account, Action.INVITE_MEMBER)
    checked = inputs.check_all(
        {
            "email": lambda: inputs.check_email(email, ["input", "email"]),
            "locale": lambda: None if locale is None else inputs.check_locale(locale, ["input", "locale"]),
            "role": lambda: check_role(role),
        }
    )
    now = work.clock.now()
    waiting = await _list_open(work, account)
    await _check_room(work, account, waiting)
    key = key_of_email(checked["email"])
    former = next((invite for invite in waiting if invite.email_key == key), None)
    if former is not None and former.expires_at > now:
        raise Conflict("This address is invited already: `resendInvite` sends it a new link.", ["input", "email"])
    if former is not None:
        # It ran out, and makes room for the new one.
        former.revoked_at = former.updated_at = now
        await work.session.flush()
    member_id = principal.members.get(account.id)
    invite = Invite(
        created_at=now,
        account_id=account.id,
        email=checked["email"],
        email_key=key,
        role=role,
        locale=checked["locale"],
        # As whom of this account: a person of several, and a key, go by other names too.
        invited_by=work.actor.name if member_id is None else f"member:{member_id}",
        expires_at=now + LIFE,
    )
    work.session.add(invite)
    await work.session.flush()
    after = describe_columns({"email": invite.email, "role": role, "locale": invite.locale})
    work.audit(account, "member.invited", f"invite:{invite.id}", after=after)
    _emit(work, account, "member.invited", invite)
    return invite


async def resend_invite(work: Work, principal: Principal, found: Invite) -> Invite:
    """Send an open invitation again, by a new link with days of its own. Older links end."""
    account = await lock_for_member(work, principal, found.account_id)
    await require_action(work, principal, account, Action.INVITE_MEMBER)
    invite = await _lock_open(work, found)
    invite.link_number += 1
    invite.updated_at = work.clock.now()
    invite.expires_at = invite.updated_at + LIFE
    work.audit(account, "member.invited", f"invite:{invite.id}", after={"linkNumber": invite.link_number})
    _emit(work, account, "member.invited", invite)
    return invite


async def revoke_invite(work: Work, principal: Principal, found: Invite) -> Invite:
    """Withdraw an open invitation: its link is good no more. Possible in any state of the account."""
    account = await lock_for_member(work, principal, found.account_id)
    invite = await _lock_open(work, found)
    _revoke(work, account, invite)
    return invite


async def revoke_invites_of(work: Work, account: BillingAccount, member: Member) -> None:
    """Withdraw the open invitations that a member made: nobody comes back by one that they sent to themselves."""
    for invite in await _list_open(work, account):
        if invite.invited_by == f"member:{member.id}":
            _revoke(work, account, invite)


def _revoke(work: Work, account: BillingAccount, invite: Invite) -> None:
    invite.revoked_at = invite.updated_at = work.clock.now()
    work.audit(account, "member.invite_revoked", f"invite:{invite.id}", before={"role": invite.role})
    _emit(work, account, "member.invite_revoked", invite)


async def accept_invite(work: Work, principal: Principal, person: Person, claim: Claim | None) -> Member:
    """Make whoever brings an invitation's token a member. Who that is, their JWT tells, not the address."""
    invite = None if claim is None else await work.session.get(Invite, claim.subject_id)
    if claim is None or invite is None:
        raise NotFound(NO_INVITATION, _TOKEN)
    account = await lock_account(work, invite.account_id)
    await work.session.refresh(invite)
    member = await work.session.scalar(
        select(Member).where(Member.account_id == account.id, Member.iss == person.iss, Member.sub == person.sub)
    )
    if invite.accepted_at is not None and member is not None and invite.member_id == member.id:
        if member.removed_at is None:
            return member
        raise NotFound(NO_INVITATION, _TOKEN)
    now = work.clock.now()
    is_over = invite.accepted_at is not None or invite.revoked_at is not None or invite.expires_at <= now
    if is_over or invite.link_number != claim.number or account.data_deleted_at is not None:
        raise NotFound(NO_INVITATION, _TOKEN)
    if member is not None and member.removed_at is None:
        raise Conflict("You are a member of this account already.", _TOKEN)
    await _check_open(work, principal, account)
    member = await _join(work, account, invite, person, member)
    invite.accepted_at, invite.member_id, invite.updated_at = now, member.id, now
    # Whoever joins does so as the member that they become.
    work.actor = Actor(name=f"member:{member.id}", origin=work.actor.origin)
    after = describe_columns({"display_name": member.display_name, "role": member.role})
    work.audit(account, "member.joined", f"member:{member.id}", after=after)
    work.emit(account, "member.joined", {"accountId": str(account.id), "memberId": str(member.id), "role": member.role})
    return member


async def _check_open(work: Work, principal: Principal, account: BillingAccount) -> None:
    """Refuse to join what nobody could be invited to now."""
    try:
        await require_action(work, principal, account, Action.INVITE_MEMBER)
    except BillingError as refusal:
        raise type(refusal)(str(refusal), _TOKEN) from refusal
    await _check_members(work, account, _TOKEN)


async def _join(work: Work, account: BillingAccount, invite: Invite, person: Person, former: Member | None) -> Member:
    if former is None:
        former = Member(
            created_at=work.clock.now(),
            account_id=account.id,
            iss=person.iss,
            sub=person.sub,
            display_name=person.name,
            role=invite.role,
        )
        work.session.add(former)
        await work.session.flush()
    former.display_name, former.role = person.name, invite.role
    former.email, former.locale = invite.email, invite.locale
    former.removed_at, former.updated_at = None, work.clock.now()
    return former


def check_role(role: Role) -> Role:
    """A role that a member can have."""
    if role is Role.OPERATOR:
        raise InvalidInput(
            "OPERATOR is no role in an account: give TENANT_OWNER, BILLING_ADMIN or MEMBER.", ["input", "role"]
        )
    return role


async def _list_open(work: Work, account: BillingAccount) -> Sequence[Invite]:
    rows = await work.session.scalars(
        select(Invite).where(Invite.account_id == account.id, Invite.accepted_at.is_(None), Invite.revoked_at.is_(None))
    )
    return rows.all()


async def _check_room(work: Work, account: BillingAccount, waiting: Sequence[Invite]) -> None:
    now = work.clock.now()
    if sum(invite.expires_at > now for invite in waiting) >= MAX_OPEN:
        raise Conflict(
            f"{MAX_OPEN} invitations of the account are open: withdraw one by `revokeInvite`.", ["input", "accountId"]
        )
    await _check_members(work, account, ["input", "accountId"])


async def _check_members(work: Work, account: BillingAccount, path: inputs.Path) -> None:
    members = await work.session.scalar(
        select(func.count()).where(Member.account_id == account.id, Member.removed_at.is_(None))
    )
    if (members or 0) >= MAX_MEMBERS:
        raise Conflict(f"The account has {MAX_MEMBERS} members: one has to go first.", path)


async def _lock_open(work: Work, found: Invite) -> Invite:
    invite = await work.session.get_one(Invite, found.id, populate_existing=True)
    if invite.accepted_at is not None or invite.revoked_at is not None:
        raise NotFound(UNKNOWN_INVITE, ["input", "inviteId"])
    return invite


def refuse_program(principal: Principal) -> Person:
    """The person who asks; a program cannot join."""
    if principal.person is None:
        raise Forbidden("An invitation is accepted by a person: sign in with a JWT, not with an API key.", _TOKEN)
    return principal.person


def _emit(work: Work, account: BillingAccount, kind: str, invite: Invite) -> None:
    work.emit(account, kind, {"accountId": str(account.id), "inviteId": str(invite.id)})
