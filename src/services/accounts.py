"""Billing accounts: finding them for a caller."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import joinedload

from ..database import ReadSession
from ..models import (
    AccountStatus,
    BillingAccount,
    Plan,
    PlanVersion,
    Subscription,
    SubscriptionStatus,
)
from .access import Principal, Right
from .errors import ErrorCode, RequestRefused

ORDER = "billingAccounts:newest"
ORDER_KINDS = (datetime, UUID)
MAX_EXTERNAL_IDS = 100


def select_accounts() -> Select[BillingAccount]:
    """Accounts with what tells their time."""
    return select(BillingAccount).options(joinedload(BillingAccount.test_clock))


async def load_accounts(session: ReadSession, ids: Sequence[UUID]) -> list[BillingAccount | None]:
    """Accounts by id; a missing one is None. Tenancy is the caller's to check, see `Principal.role_in`."""
    rows = {row.id: row for row in await session.scalars(select_accounts().where(BillingAccount.id.in_(ids)))}
    return [rows.get(id_) for id_ in ids]


async def find_by_external_id(session: ReadSession, principal: Principal, external_id: str) -> BillingAccount | None:
    """The account with the partner's own id, if the caller may see it."""
    for account in await session.scalars(select_accounts().where(BillingAccount.external_id == external_id)):
        if principal.may(Right.READ_USAGE, account.id):
            return account
    return None


def only_account_id(principal: Principal) -> UUID | None:
    """The caller's only account; none for an operator or a caller without one. Several are `BAD_USER_INPUT`."""
    if principal.is_operator or not principal.roles:
        return None
    if len(principal.roles) > 1:
        raise RequestRefused(
            ErrorCode.BAD_USER_INPUT,
            "You belong to several accounts: name one by `id` or `externalId`; "
            "`viewer { accounts { account { id } } }` lists them.",
        )
    return next(iter(principal.roles))


@dataclass(frozen=True)
class AccountFilter:
    """Which accounts."""

    search: str | None = None
    status: tuple[SubscriptionStatus, ...] = ()
    plan_key: str | None = None
    external_ids: tuple[str, ...] | None = None
    updated_since: datetime | None = None


def list_accounts(principal: Principal, chosen: AccountFilter) -> Select[BillingAccount]:
    """The accounts that a caller may see, newest first."""
    statement = select_accounts().order_by(BillingAccount.created_at.desc(), BillingAccount.id.desc())
    if not principal.is_operator:
        mine = [account_id for account_id in principal.roles if principal.may(Right.READ_BILLING, account_id)]
        statement = statement.where(BillingAccount.id.in_(mine))
    if chosen.search:
        statement = statement.where(
            or_(
                BillingAccount.name.icontains(chosen.search, autoescape=True),
                BillingAccount.external_id.icontains(chosen.search, autoescape=True),
            )
        )
    if chosen.external_ids is not None:
        statement = statement.where(BillingAccount.external_id.in_(chosen.external_ids))
    if chosen.updated_since is not None:
        statement = statement.where(BillingAccount.updated_at >= chosen.updated_since)
    if chosen.status or chosen.plan_key is not None:
        matching: Select[Any] = select(Subscription.account_id)
        if chosen.status:
            matching = matching.where(Subscription.status.in_(chosen.status))
        if chosen.plan_key is not None:
            matching = (
                matching.join(PlanVersion, PlanVersion.id == Subscription.plan_version_id)
                .join(Plan, Plan.id == PlanVersion.plan_id)
                .where(Plan.key == chosen.plan_key)
            )
        statement = statement.where(BillingAccount.id.in_(matching))
    return statement


def status_of(account: BillingAccount, subscription: Subscription | None) -> AccountStatus:
    """How much of an account can be used."""
    if account.closed_at is not None:
        return AccountStatus.CLOSED
    if subscription is None:
        return AccountStatus.ACTIVE
    return {
        SubscriptionStatus.SUSPENDED: AccountStatus.READ_ONLY,
        SubscriptionStatus.CANCELED: AccountStatus.READ_ONLY,
        SubscriptionStatus.EXPIRED: AccountStatus.EXPIRED,
    }.get(subscription.status, AccountStatus.ACTIVE)
