"""Members: their roles, how they go, and how the ownership of an account is handed over."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import select

from ..database import ACCESS_TOPIC, Work
from ..models import ApiKeyAccount, BillingAccount, Member, OwnershipTransfer, Role, Subscription
from .access import Principal, Right, explain_refusal
from .errors import Forbidden, InvalidInput, InvalidTransition, LastOwner, NotFound
from .invites import check_role, lock_for_member, revoke_invites_of
from .keys import end_openings
from .permissions import Action, Permission, check_tenant_state, permission_of, require_action

OFFER_LIFE = timedelta(days=7)
UNKNOWN_MEMBER = "There is no such member, or it is not yours."
NO_OFFER = "No ownership of this account is offered to you, or the offer is over."
_MEMBER = ["input", "memberId"]


async def set_member_role(work: Work, principal: Principal, found: Member, role: Role) -> Member:
    """Give a member another role. Nobody gives one to oneself."""
    account = await lock_for_member(work, principal, found.account_id)
    await require_action(work, principal, account, Action.SET_MEMBER_ROLE)
    check_role(role)
    member, owners = await _lock_member(work, account, found)
    check_role_change(principal, member, owners, role)
    if member.role is not role:
        before, member.role, member.updated_at = member.role, role, work.clock.now()
        await _end_what_they_began(work, account, member)
        work.audit(account, "member.role_changed", f"member:{member.id}", before={"role": before}, after={"role": role})
        work.emit(
            account, "member.role_changed", {"accountId": str(account.id), "memberId": str(member.id), "role": role}
        )
        work.topics.add(ACCESS_TOPIC)
    return member


async def remove_member(work: Work, principal: Principal, found: Member) -> Member:
    """Let a member go, with the keys it made and the streams it follows. Whoever it is may go by itself."""
    account = await lock_for_member(work, principal, found.account_id)
    member, owners = await _lock_member(work, account, found)
    check_removal(principal, member, owners)
    member.removed_at = member.updated_at = work.clock.now()
    # Ended for good: whoever comes back by another invitation does so without them.
    await end_openings(work, ApiKeyAccount.member_id == member.id)
    await _end_what_they_began(work, account, member)
    work.audit(account, "member.removed", f"member:{member.id}", before={"role": member.role})
    work.emit(account, "member.removed", {"accountId": str(account.id), "memberId": str(member.id)})
    work.topics.add(ACCESS_TOPIC)
    return member


async def offer_ownership(
    work: Work, principal: Principal, account_id: UUID, member_id: UUID | None
) -> OwnershipTransfer | None:
    """Offer the ownership to another member, in place of an earlier offer; without one, take that back.

    An owner gives its own. What an operator arranges takes it from nobody: the new owner comes beside the others.
    """
    account = await lock_for_member(work, principal, account_id)
    await require_action(work, principal, account, Action.TRANSFER_OWNERSHIP)
    now = work.clock.now()
    former = await _find_transfer(work, account)
    if member_id is None and former is None:
        raise InvalidInput("No ownership is offered: there is nothing to take back.", _MEMBER)
    if former is not None:
        _withdraw(work, account, former)
        await work.session.flush()
    if member_id is None:
        return None
    member = await work.session.get(Member, member_id)
    if member is None or member.account_id != account.id or member.removed_at is not None:
        raise NotFound(UNKNOWN_MEMBER, _MEMBER)
    if member.role is Role.TENANT_OWNER:
        raise InvalidInput("This member is an owner already.", _MEMBER)
    giver = principal.members.get(account.id)
    transfer = OwnershipTransfer(
        created_at=now,
        account_id=account.id,
        from_member_id=giver,
        to_member_id=member.id,
        expires_at=now + OFFER_LIFE,
    )
    work.session.add(transfer)
    await work.session.flush()
    work.audit(
        account, "member.ownership_offered", f"ownership_transfer:{transfer.id}", after={"memberId": str(member.id)}
    )
    work.emit(account, "member.ownership_offered", {"accountId": str(account.id), "memberId": str(member.id)})
    return transfer


async def accept_ownership(work: Work, principal: Principal, account_id: UUID) -> Member:
    """Become an owner, as it was offered; whoever offered it is a billing admin from now on."""
    account = await lock_for_member(work, principal, account_id)
    transfer = await _find_transfer(work, account)
    check_acceptance(principal, account.id, transfer, work.clock.now())
    assert transfer is not None, "that was checked"
    await require_action(work, principal, account, Action.ACCEPT_OWNERSHIP)
    now = work.clock.now()
    giver = None if transfer.from_member_id is None else await work.session.get(Member, transfer.from_member_id)
    if giver is not None and (giver.removed_at is not None or giver.role is not Role.TENANT_OWNER):
        raise InvalidTransition("Whoever offered the ownership is no owner any more.", ["input", "accountId"])
    member = await work.session.get_one(Member, transfer.to_member_id)
    before = {"role": member.role}
    member.role, member.updated_at = Role.TENANT_OWNER, now
    transfer.accepted_at = transfer.updated_at = now
    if giver is not None:
        giver.role, giver.updated_at = Role.BILLING_ADMIN, now
        await revoke_invites_of(work, account, giver)
    after = {"role": Role.TENANT_OWNER, "from": None if giver is None else str(giver.id)}
    work.audit(account, "member.ownership_transferred", f"member:{member.id}", before=before, after=after)
    work.emit(account, "member.ownership_transferred", {"accountId": str(account.id), "memberId": str(member.id)})
    work.topics.add(ACCESS_TOPIC)
    return member


def check_role_change(principal: Principal, member: Member, owners: Sequence[Member], role: Role | None = None) -> None:
    """Refuse to give a role to oneself, and to leave an account without an owner."""
    if principal.members.get(member.account_id) == member.id:
        raise Forbidden("Nobody gives a role to oneself: another owner does, or an operator.", _MEMBER)
    if role is not Role.TENANT_OWNER and is_last_owner(member, owners):
        raise LastOwner("This is the last owner: make another one first, by `transferOwnership`.", _MEMBER)


def check_removal(principal: Principal, member: Member, owners: Sequence[Member]) -> None:
    """Refuse to leave an account without an owner."""
    is_oneself = principal.members.get(member.account_id) == member.id and principal.scopes is None
    if not is_oneself:
        require_administrator(principal, member.account_id)
    if is_last_owner(member, owners):
        raise LastOwner("The last owner cannot go: hand the ownership over first, by `transferOwnership`.", _MEMBER)


def check_acceptance(principal: Principal, account_id: UUID, transfer: OwnershipTransfer | None, now: datetime) -> None:
    """Refuse whom nothing is offered. A program cannot become an owner."""
    if transfer is None or transfer.expires_at <= now or principal.members.get(account_id) != transfer.to_member_id:
        raise InvalidTransition(NO_OFFER, ["input", "accountId"])
    if principal.scopes is not None:
        raise Forbidden("The ownership is accepted by the person: sign in with a JWT.", ["input", "accountId"])


def is_last_owner(member: Member, owners: Sequence[Member]) -> bool:
    """Whether an account would have no owner without this member."""
    return member.role is Role.TENANT_OWNER and all(owner.id == member.id for owner in owners)


def list_member_permissions(
    principal: Principal,
    account: BillingAccount,
    subscription: Subscription | None,
    member: Member,
    everyone: Sequence[Member],
) -> list[Permission]:
    """Each action on a member among all of an account, by the same checks that its mutation makes."""
    owners = [row for row in everyone if row.role is Role.TENANT_OWNER]

    def check_setting() -> None:
        check_tenant_state(principal, account, subscription, Action.SET_MEMBER_ROLE)
        check_role_change(principal, member, owners)

    removal = partial(check_removal, principal, member, owners)
    return [
        permission_of(principal, account.id, Action.SET_MEMBER_ROLE, check_setting),
        permission_of(principal, account.id, Action.REMOVE_MEMBER, removal),
    ]


def require_administrator(principal: Principal, account_id: UUID) -> None:
    """Refuse whoever may not decide on members."""
    reason = explain_refusal(principal, Right.ADMINISTER, account_id)
    if reason is not None:
        raise Forbidden(reason, _MEMBER)


async def _lock_member(work: Work, account: BillingAccount, found: Member) -> tuple[Member, Sequence[Member]]:
    rows = await work.session.scalars(
        select(Member)
        .where(Member.account_id == account.id, Member.removed_at.is_(None))
        .execution_options(populate_existing=True)
    )
    members = rows.all()
    member = next((row for row in members if row.id == found.id), None)
    if member is None:
        raise NotFound(UNKNOWN_MEMBER, _MEMBER)
    return member, [row for row in members if row.role is Role.TENANT_OWNER]


async def _end_what_they_began(work: Work, account: BillingAccount, member: Member) -> None:
    """Whoever is no owner any more, or one by now, leaves no offer behind; nor an invitation that they could follow."""
    transfer = await _find_transfer(work, account)
    if transfer is not None and member.id in (transfer.from_member_id, transfer.to_member_id):
        _withdraw(work, account, transfer)
    if member.removed_at is not None or member.role is not Role.TENANT_OWNER:
        await revoke_invites_of(work, account, member)


def _withdraw(work: Work, account: BillingAccount, transfer: OwnershipTransfer) -> None:
    transfer.withdrawn_at = transfer.updated_at = work.clock.now()
    work.audit(account, "member.ownership_withdrawn", f"ownership_transfer:{transfer.id}")
    work.emit(account, "member.ownership_withdrawn", {"accountId": str(account.id)})


async def _find_transfer(work: Work, account: BillingAccount) -> OwnershipTransfer | None:
    transfer: OwnershipTransfer | None = await work.session.scalar(
        select(OwnershipTransfer).where(
            OwnershipTransfer.account_id == account.id,
            OwnershipTransfer.accepted_at.is_(None),
            OwnershipTransfer.withdrawn_at.is_(None),
        )
    )
    return transfer
