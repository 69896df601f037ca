"""Billing accounts: finding them for a caller, making and changing them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import Select, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from ..database import ReadSession, Work
from ..models import (
    AccountStatus,
    BillingAccount,
    Budget,
    CollectionMethod,
    Deployment,
    Invoice,
    Issuer,
    PendingChange,
    PendingStatus,
    Plan,
    PlanVersion,
    Quote,
    Subscription,
    SubscriptionStatus,
    TestClock,
)
from ..settings import Environment
from . import inputs
from .access import Principal, Right, explain_refusal
from .calendars import period_of
from .edits import describe_columns, record_update, set_columns
from .errors import Conflict, ErrorCode, Forbidden, InvalidInput, NotFound, Refusals, RequestRefused
from .limits import set_limits
from .permissions import Action, require_action
from .plan_limits import load_free_limits
from .spikes import look_again, resolve_spikes

ORDER = "billingAccounts:newest"
ORDER_KINDS = (datetime, UUID)
MAX_EXTERNAL_IDS = 100
MAX_EXTERNAL_ID = 255
MAX_NAME = 255
MAX_NET_DAYS = 365
UNKNOWN_ACCOUNT = "There is no such account, or it is not yours."


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


class CollectionTerms(TypedDict, total=False):
    """How an account's invoices are paid. What is not in it stays."""

    method: CollectionMethod | None
    net_days: int | None


class AccountFields(TypedDict, total=False):
    """What of an account is set. What is not in it stays as it is; nothing of it can be null."""

    name: str | None
    timezone: str | None
    locale: str | None
    metadata: Any
    currency: str | None
    collection: CollectionTerms | None
    spike_alerts: bool | None
    keys_may_ingest: bool | None


OPERATORS_FIELDS = {"currency": "currency", "collection": "collection", "keys_may_ingest": "keysMayIngest"}
"""What only operators set of an account, with the API's names."""

_PARTS = {"collectionMethod": "collection", "netDays": "collection"}
"""Fields of the account by the columns that they consist of."""


async def lock_account(work: Work, account_id: UUID) -> BillingAccount:
    """An account's row, locked. `NOT_FOUND` where there is none; whose it is, is the caller's to check."""
    account = (await work.lock_accounts([account_id])).get(account_id)
    if account is None:
        raise NotFound(UNKNOWN_ACCOUNT, ["input", "accountId"])
    return account


async def lock_for(work: Work, principal: Principal, account_id: UUID | None, right: Right) -> BillingAccount:
    """An account to act on, locked, for a caller who holds a right over it; another tenant's is the same as none."""
    if account_id is None or principal.role_in(account_id) is None or not principal.may(right, account_id):
        raise NotFound(UNKNOWN_ACCOUNT, ["input", "accountId"])
    return await lock_account(work, account_id)


async def create_account(
    work: Work, external_id: str, given: AccountFields, *, test_clock_id: UUID | None = None
) -> BillingAccount:
    """Make an account without a subscription. It behaves like free: the limits of the lowest plan are in force."""
    issuer = await work.session.scalar(select(Issuer).order_by(Issuer.created_at, Issuer.id).limit(1))
    if issuer is None:
        raise Conflict("There is no issuer yet, so nobody could bill the account: set one up first.")
    values = inputs.check_all(
        {
            "external_id": partial(inputs.check_key, external_id, ["input", "externalId"], at_most=MAX_EXTERNAL_ID),
            **_list_checks(given),
        }
    )
    test_clock = None if test_clock_id is None else await _take_test_clock(work, test_clock_id)
    account = BillingAccount(
        created_at=work.clock.now() if test_clock is None else test_clock.now,
        issuer_id=issuer.id,
        test_clock_id=test_clock_id,
        **values,
    )
    work.session.add(account)
    try:
        await work.session.flush()
    except IntegrityError as clash:
        raise Conflict("Another account has this `externalId`: choose a new one.", ["input", "externalId"]) from clash
    account = await lock_account(work, account.id)
    after = describe_columns(values)
    if test_clock_id is not None:
        after["testClock"] = str(test_clock_id)
    work.audit(account, "account.created", f"billing_account:{account.id}", after=after)
    work.emit(account, "account.created", {"accountId": str(account.id)})
    usage = period_of(account, None, [], account.created_at)
    assert usage is not None, "the first usage period begins with the account"
    await set_limits(work, account, await load_free_limits(ReadSession(work.session)), usage, "account.created")
    return account


async def _take_test_clock(work: Work, test_clock_id: UUID) -> TestClock:
    path = ["input", "testClockId"]
    if await work.session.scalar(select(Deployment.environment)) is not Environment.SANDBOX:
        raise InvalidInput("Test clocks are there in the sandbox only: leave `testClockId` out.", path)
    clock = await work.session.get(TestClock, test_clock_id, with_for_update={"read": True})
    if clock is None:
        raise NotFound("There is no such test clock.", path)
    if clock.advancing_until is not None and work.clock.now() < clock.advancing_until:
        raise Conflict("The test clock is being advanced: ask again when it has arrived.", path)
    return clock


async def update_account(work: Work, principal: Principal, account_id: UUID, given: AccountFields) -> BillingAccount:
    """Change what is given of an account. A new time zone counts from the next period; the running one stays."""
    reason = explain_refusal(principal, Right.OPERATE, account_id)
    if reason is not None and (fields := [name for field, name in OPERATORS_FIELDS.items() if field in given]):
        raise Refusals([Forbidden(reason, ["input", field]) for field in fields])
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.UPDATE_ACCOUNT)
    values = inputs.check_all(_list_checks(given))
    if values.get("currency", account.currency) != account.currency:
        await _check_currency_is_free(work, account)
    before, after = set_columns(account, values)
    if values.get("spike_alerts") is False:
        await resolve_spikes(work, account)
    elif values.get("spike_alerts"):
        await look_again(work, account)
    if after:
        record_update(
            work,
            account,
            "account.updated",
            f"billing_account:{account.id}",
            changed={_PARTS.get(name, name) for name in after},
            before=before,
            after=after,
        )
    return account


def _list_checks(given: AccountFields) -> dict[str, Callable[[], Any]]:
    """How the columns that are set are checked."""
    checks: dict[str, Callable[[], Any]] = {}
    if "name" in given:
        checks["name"] = partial(inputs.check_text, given["name"], ["input", "name"], at_most=MAX_NAME)
    if "currency" in given:
        checks["currency"] = partial(inputs.check_currency, given["currency"], ["input", "currency"])
    if "timezone" in given:
        checks["timezone"] = partial(inputs.check_timezone, given["timezone"], ["input", "timezone"])
    if "locale" in given:
        checks["locale"] = partial(inputs.check_locale, given["locale"], ["input", "locale"])
    if "metadata" in given:
        checks["pairs"] = partial(inputs.check_pairs, given["metadata"], ["input", "metadata"])
    if "spike_alerts" in given:
        checks["spike_alerts"] = partial(inputs.require_given, given["spike_alerts"], ["input", "spikeAlerts"])
    if "keys_may_ingest" in given:
        checks["keys_may_ingest"] = partial(inputs.require_given, given["keys_may_ingest"], ["input", "keysMayIngest"])
    if "collection" in given:
        path = ["input", "collection"]
        terms = inputs.require_given(given["collection"], path)
        if "method" in terms:
            checks["collection_method"] = partial(inputs.require_given, terms["method"], [*path, "method"])
        if "net_days" in terms:
            checks["net_days"] = partial(_check_net_days, terms["net_days"], [*path, "netDays"])
    return checks


def _check_net_days(value: int | None, path: inputs.Path) -> int:
    net_days = inputs.require_given(value, path)
    if not 1 <= net_days <= MAX_NET_DAYS:
        raise InvalidInput(f"`netDays` is 1 to {MAX_NET_DAYS}.", path)
    return net_days


async def _check_currency_is_free(work: Work, account: BillingAccount) -> None:
    """Refuse while anything of the account is reckoned in its currency: nothing is ever converted."""
    over = (SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED)
    holds: list[tuple[Select[Any], str]] = [
        (
            select(Invoice.id).where(Invoice.account_id == account.id, Invoice.number.is_not(None)),
            "Its first invoice fixed the currency for good: bill in another one through another account.",
        ),
        (
            select(Subscription.id).where(Subscription.account_id == account.id, Subscription.status.not_in(over)),
            "A subscription runs in the present currency: the currency can change when it has ended.",
        ),
        (
            select(PendingChange.id).where(
                PendingChange.account_id == account.id, PendingChange.status == PendingStatus.PENDING
            ),
            "A change waits for its payment in the present currency: finish or cancel it first.",
        ),
        (
            select(Quote.id).where(Quote.account_id == account.id, Quote.expires_at > work.clock.now_for(account)),
            "There is a quote in the present currency: wait until it has expired.",
        ),
        (
            select(Budget.id).where(Budget.account_id == account.id),
            "Its budgets are in the present currency: remove them first.",
        ),
    ]
    for held, reason in holds:
        if await work.session.scalar(held.limit(1)) is not None:
            raise Conflict(reason, ["input", "currency"])
    if account.credit_minor:
        raise Conflict("It has a credit balance in the present currency: use it up first.", ["input", "currency"])
