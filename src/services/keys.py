"""API keys: made with no more rights than their maker has, exchanged with an overlap, and ended at once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import selectinload

from ..database import ACCESS_TOPIC, ReadSession, Work
from ..models import ApiKey, ApiKeyAccount, BillingAccount, Deployment, Operator, Role
from ..settings import Environment
from . import inputs
from .access import SCOPES_BY_RIGHT, Principal, Right, Scope, explain_refusal
from .accounts import UNKNOWN_ACCOUNT
from .errors import BillingError, Conflict, Forbidden, InvalidInput, InvalidTransition, NotFound, Refusals
from .permissions import Action, Permission, Reason, require_action
from .rules.networks import lies_within, read_network
from .tokens import NewKey, Secret, add_key, draw_secret

MAX_NAME = 100
MAX_ACCOUNTS = 50
MAX_NETWORKS = 20
MAX_LIVE = 50
"""So many keys may be good for an account at once, and so many for all accounts."""
MAX_SHOWN = 100
"""A list shows the living, and of the ended ones the latest."""
MAX_SAID = 40
"""Longer texts are not said again: somebody may have put a secret into the wrong field."""
LONGEST_LIFE = timedelta(days=5 * 366)
LONGEST_OVERLAP = timedelta(days=7)
DEFAULT_OVERLAP = timedelta(days=1)
DEPLOYMENT = ("plafond:deployment", "command-line")
"""Who makes keys on the command line: an operator that no JWT can be, since no issuer is named so."""
UNKNOWN_KEY = "There is no such API key, or it is not yours."
_KEY = ("input", "keyId")


class KeyStatus(StrEnum):
    """Whether an API key is good."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class KeyInput:
    """What a key is to be."""

    name: str
    scopes: Sequence[str]
    account_ids: Sequence[UUID] | None
    """None for all that there are and will be."""
    expires_at: datetime | None = None
    networks: Sequence[str] = ()


# Making


async def create_key_as(work: Work, principal: Principal, drawn: Secret, given: KeyInput) -> ApiKey:
    """Make a key for a caller, which can do no more than the caller may."""
    accounts = await _lock_for(work, principal, given.account_ids)
    values = inputs.check_all(
        {
            "name": lambda: inputs.check_text(given.name, ["input", "name"], at_most=MAX_NAME),
            "scopes": lambda: _check_scopes(principal, accounts, given.scopes),
            "networks": lambda: check_networks(given.networks),
            "expires_at": lambda: check_expiry(given.expires_at, work.clock.now()),
        }
    )
    await _check_within_maker(work, principal, values["expires_at"], values["networks"])
    await _check_room(work, accounts)
    members = {account.id: principal.members.get(account.id) for account in accounts}
    assert principal.operator_id is not None or all(members.values()), "somebody made it"
    row = add_key(work, drawn, members=members, operator_id=principal.operator_id, **values)
    await _record(work, accounts, row, "api_key.created", after=_describe(row))
    return row


async def _lock_for(work: Work, principal: Principal, ids: Sequence[UUID] | None) -> list[BillingAccount]:
    """The accounts that a key is to open, locked, for who may make keys there in their states; none for all of them."""
    path = ["input", "accountIds"]
    if ids is None:
        if not principal.is_operator:
            raise InvalidInput("Name the accounts: only an operator's key opens all there are.", path)
        if (reason := explain_refusal(principal, Right.MANAGE_KEYS)) is not None:
            raise Forbidden(reason, path)
        # Whoever counts the keys over all accounts stands in line here.
        await work.session.execute(select(Deployment.id).with_for_update())
        return []
    if not 1 <= len(ids) <= MAX_ACCOUNTS:
        raise InvalidInput(f"`accountIds` names 1 to {MAX_ACCOUNTS} accounts.", path)
    locked = await work.lock_accounts({id_ for id_ in ids if principal.role_in(id_) is not None})
    refusals: list[BillingError] = []
    for index, id_ in enumerate(ids):
        place = [*path, str(index)]
        account, reason = locked.get(id_), explain_refusal(principal, Right.MANAGE_KEYS, id_)
        if account is None:
            refusals.append(NotFound(UNKNOWN_ACCOUNT, place))
        elif reason is not None:
            refusals.append(Forbidden(reason, place))
        else:
            try:
                await require_action(work, principal, account, Action.CREATE_API_KEY)
            except BillingError as refusal:
                refusals.append(type(refusal)(str(refusal), place))
    if refusals:
        raise refusals[0] if len(refusals) == 1 else Refusals(refusals)
    return sorted(locked.values(), key=lambda account: account.id)


def _check_scopes(principal: Principal, accounts: Sequence[BillingAccount], given: Sequence[str]) -> list[Scope]:
    path = ["input", "scopes"]
    if not given:
        raise InvalidInput(f"Say what the key is for: {_list_scopes()}.", path)
    if len(given) > len(Scope):
        raise InvalidInput(f"`scopes` names each scope once: {_list_scopes()}.", path)
    roles = {principal.role_in(account.id) for account in accounts} if accounts else {Role.OPERATOR}
    checks: dict[str, Callable[[], Any]] = {
        str(index): partial(_check_scope, principal, roles, accounts, text, [*path, str(index)])
        for index, text in enumerate(given)
    }
    return sorted(set(inputs.check_all(checks).values()))


def _check_scope(
    principal: Principal,
    roles: Collection[Role | None],
    accounts: Sequence[BillingAccount],
    text: str,
    path: inputs.Path,
) -> Scope:
    try:
        scope = Scope(text)
    except ValueError as error:
        said = f"{text!r}" if len(text) <= MAX_SAID and text.isprintable() else "This"
        raise InvalidInput(f"{said} is no scope: there are {_list_scopes()}.", path) from error
    if not holds_scope(principal, scope, roles):
        raise Forbidden(f"Your own API key does not hold {scope}, so it makes none that does.", path)
    # What no role of a tenant holds: an operator lets the account's keys do it, or does not.
    closed = [account for account in accounts if not account.keys_may_ingest]
    if scope is Scope.USAGE_WRITE and set(roles) != {Role.OPERATOR} and closed:
        names = ", ".join(account.external_id for account in closed)
        raise Forbidden(
            f"{scope} is for operators' keys, until an operator sets `keysMayIngest` of {names}: ask for that.", path
        )
    return scope


def _list_scopes() -> str:
    return ", ".join(sorted(Scope))


def holds_scope(principal: Principal, scope: Scope, roles: Collection[Role | None]) -> bool:
    """Whether all that a scope opens is open to a caller with these roles: a person's roles alone decide."""
    if principal.scopes is None or scope in principal.scopes:
        return True
    opened = [right for right in Right if scope in SCOPES_BY_RIGHT[right]]
    is_within = all(principal.scopes & SCOPES_BY_RIGHT[right] for right in opened)
    # A tenant's key records usage by its own scope alone, whatever else it holds.
    return is_within and (scope is not Scope.USAGE_WRITE or set(roles) == {Role.OPERATOR})


async def _check_within_maker(
    work: Work, principal: Principal, expires_at: datetime | None, networks: Sequence[str]
) -> None:
    """Refuse a key that would be good for longer, or from elsewhere, than the key that makes it."""
    maker = None if principal.key_id is None else await work.session.get(ApiKey, principal.key_id)
    if maker is None:
        return
    refusals: list[BillingError] = []
    if maker.expires_at is not None and (expires_at is None or expires_at > maker.expires_at):
        told = f"The key that makes it ends at {maker.expires_at.isoformat()}: it ends no later."
        refusals.append(Forbidden(told, ["input", "expiresAt"]))
    if maker.networks and not (networks and all(lies_within(network, maker.networks) for network in networks)):
        told = "The key that makes it is taken from its own networks only: name networks within those."
        refusals.append(Forbidden(told, ["input", "networks"]))
    if refusals:
        raise refusals[0] if len(refusals) == 1 else Refusals(refusals)


def check_networks(given: Sequence[str]) -> list[str]:
    """Networks in one spelling, each once."""
    path = ["input", "networks"]
    if len(given) > MAX_NETWORKS:
        raise InvalidInput(f"`networks` has at most {MAX_NETWORKS} networks.", path)
    checks: dict[str, Callable[[], Any]] = {
        str(index): partial(_check_network, text, [*path, str(index)]) for index, text in enumerate(given)
    }
    return list(dict.fromkeys(inputs.check_all(checks).values()))


def _check_network(text: str, path: inputs.Path) -> str:
    try:
        return str(read_network(text))
    except ValueError as error:
        said = f"{text!r}" if len(text) <= MAX_SAID and text.isprintable() else "This"
        raise InvalidInput(f"{said} is no network: write 192.0.2.0/24, 2001:db8::/32, or one address.", path) from error


def check_expiry(given: datetime | None, now: datetime) -> datetime | None:
    """An expiry that lies ahead, but not too far."""
    path = ["input", "expiresAt"]
    if given is None:
        return None
    if given <= now:
        raise InvalidInput("`expiresAt` lies in the past: a key expires later than now.", path)
    if given > now + LONGEST_LIFE:
        raise InvalidInput("`expiresAt` lies more than five years ahead: take less, or leave it out.", path)
    return given


async def _check_room(work: Work, accounts: Sequence[BillingAccount]) -> None:
    now = work.clock.now()
    if not accounts:
        count = await work.session.scalar(select(func.count()).where(ApiKey.opens_all, _is_live(now)))
        if (count or 0) >= MAX_LIVE:
            raise Conflict(f"There are {MAX_LIVE} keys for all accounts: revoke one that nobody uses first.")
        return
    rows = await work.session.execute(
        select(ApiKeyAccount.account_id, func.count().label("living"))
        .join(ApiKey, ApiKey.id == ApiKeyAccount.api_key_id)
        .where(ApiKeyAccount.account_id.in_([account.id for account in accounts]), _is_live(now))
        .where(ApiKeyAccount.revoked_at.is_(None))
        .group_by(ApiKeyAccount.account_id)
    )
    counts: dict[UUID, int] = {row.account_id: row.living for row in rows}
    full = [account.external_id for account in accounts if counts.get(account.id, 0) >= MAX_LIVE]
    if full:
        raise Conflict(
            f"{', '.join(full)} has {MAX_LIVE} keys: revoke one that nobody uses first, by `lastUsedAt`.",
            ["input", "accountIds"],
        )


def _is_live(now: datetime) -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))


async def create_operator_key(
    work: Work,
    environment: Environment,
    *,
    name: str,
    scopes: Sequence[Scope],
    account: BillingAccount | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key of the deployment's own operator, whom no token signs in: the way into a database without anybody."""
    if not 0 < len(name.strip()) <= MAX_NAME or not name.isprintable():
        raise InvalidInput(f"A key's name has 1 to {MAX_NAME} printable characters.")
    if expires_at is not None and expires_at <= work.clock.now():
        raise InvalidInput("A key expires later than today.")
    maker = await work.session.scalar(
        select(Operator).where(Operator.iss == DEPLOYMENT[0], Operator.sub == DEPLOYMENT[1])
    )
    if maker is None:
        maker = Operator(
            created_at=work.clock.now(), iss=DEPLOYMENT[0], sub=DEPLOYMENT[1], display_name="The deployment"
        )
        work.session.add(maker)
        await work.session.flush()
    drawn = draw_secret(environment)
    accounts = [] if account is None else [account]
    row = add_key(
        work,
        drawn,
        name.strip(),
        sorted(set(scopes)),
        members={each.id: None for each in accounts},
        operator_id=maker.id,
        expires_at=expires_at,
    )
    await _record(work, accounts, row, "api_key.created", after=_describe(row))
    return NewKey(row, drawn.token)


# Exchanging


async def rotate_key_as(work: Work, principal: Principal, key_id: UUID, drawn: Secret, overlap: timedelta) -> ApiKey:
    """Give a key a new secret for a caller. The present one stays good for a while; one before that ends now."""
    row, accounts = await _lock_visible(work, principal, key_id)
    check_rotatable(principal, row, row.openings, work.clock.now())
    return await _rotate(work, row, accounts, drawn, overlap)


async def rotate_key(work: Work, prefix: str, drawn: Secret, overlap: timedelta) -> ApiKey:
    """The same on the command line."""
    row, accounts = await _lock_named(work, prefix)
    _check_live(row, work.clock.now())
    return await _rotate(work, row, accounts, drawn, overlap)


def check_overlap(seconds: int | None) -> timedelta:
    """How long two secrets are good at once."""
    if seconds is None:
        return DEFAULT_OVERLAP
    at_most = int(LONGEST_OVERLAP.total_seconds())
    if not 0 <= seconds <= at_most:
        raise InvalidInput(f"`overlapSeconds` is 0 to {at_most}: seven days.", ["input", "overlapSeconds"])
    return timedelta(seconds=seconds)


async def _rotate(
    work: Work, row: ApiKey, accounts: Mapping[UUID, BillingAccount], drawn: Secret, overlap: timedelta
) -> ApiKey:
    now = work.clock.now()
    row.previous_hash, row.previous_until = (row.secret_hash, now + overlap) if overlap else (None, None)
    row.secret_hash = drawn.hash
    row.rotated_at = row.updated_at = now
    live = [accounts[opening.account_id] for opening in row.openings if opening.revoked_at is None]
    until = None if row.previous_until is None else row.previous_until.isoformat()
    await _record(work, live, row, "api_key.rotated", after={"prefix": row.prefix, "previousUntil": until})
    # Whoever follows with a secret that is over, or has an end now, is looked at.
    work.topics.add(ACCESS_TOPIC)
    return row


# Ending


async def revoke_key_as(work: Work, principal: Principal, key_id: UUID) -> ApiKey:
    """End a key at once for a caller, with both its secrets and the streams opened with it. Twice is once.

    It ends for the accounts whose keys the caller manages: what it opens of others is theirs to end.
    """
    row, accounts = await _lock_visible(work, principal, key_id)
    check_revocable(principal, row, row.openings)
    live = [opening for opening in row.openings if opening.revoked_at is None]
    mine = [opening for opening in live if _may_end(principal, opening)]
    if row.opens_all or len(mine) == len(live):
        return await _revoke(work, row, accounts)
    for opening in mine:
        opening.revoked_at = row.updated_at = work.clock.now()
    ended = [accounts[opening.account_id] for opening in mine]
    await _record(work, ended, row, "api_key.revoked", after={"prefix": row.prefix})
    work.topics.add(ACCESS_TOPIC)
    return row


async def revoke_key(work: Work, prefix: str) -> ApiKey:
    """End a key at once for all its accounts, and the streams opened with it. Revoking twice is the same as once."""
    return await _revoke(work, *await _lock_named(work, prefix))


async def _revoke(work: Work, row: ApiKey, accounts: Mapping[UUID, BillingAccount]) -> ApiKey:
    work.topics.add(ACCESS_TOPIC)
    live = [accounts[opening.account_id] for opening in row.openings if opening.revoked_at is None]
    if row.revoked_at is None and (live or row.opens_all):
        row.revoked_at = row.updated_at = work.clock.now()
        await _record(work, live, row, "api_key.revoked", after={"prefix": row.prefix})
    return row


# Who may


def may_see(principal: Principal, row: ApiKey, openings: Sequence[ApiKeyAccount]) -> bool:
    """Whether a key is there for a caller: who manages the keys of an account it opens, or opened."""
    if row.opens_all:
        return principal.is_operator and principal.may(Right.MANAGE_KEYS)
    return any(principal.may(Right.MANAGE_KEYS, opening.account_id) for opening in openings)


def check_rotatable(principal: Principal, row: ApiKey, openings: Sequence[ApiKeyAccount], now: datetime) -> None:
    """Refuse to hand out a new secret to who may not do all that the key may, or of a key that has ended.

    Who made it may, and who holds every right there is over all its accounts: whatever its maker becomes later, the
    new secret opens nothing that its holder could not open anyway.
    """
    live = [opening for opening in openings if opening.revoked_at is None]
    roles = {principal.role_in(opening.account_id) for opening in live} or {Role.OPERATOR}
    if row.opens_all and not principal.is_operator:
        raise Forbidden("It opens all accounts: operators exchange it.", _KEY)
    if any(principal.role_in(opening.account_id) is None for opening in live):
        raise Forbidden("It opens accounts that are not yours, too: whoever made it exchanges it.", _KEY)
    managed: list[UUID | None] = [opening.account_id for opening in live] or [None]
    for account_id in managed:
        if (reason := explain_refusal(principal, Right.MANAGE_KEYS, account_id)) is not None:
            raise Forbidden(reason, _KEY)
    if not all(_holds_more(principal, opening) for opening in live):
        raise Forbidden("It may do more than you may: whoever made it exchanges it, or an owner does.", _KEY)
    if not all(holds_scope(principal, Scope(scope), roles) for scope in row.scopes):
        raise Forbidden("It holds a scope that your own API key does not hold: exchange it with another.", _KEY)
    _check_live(row, now)
    if not live and not row.opens_all:
        raise InvalidTransition("The API key was revoked: make a new one.", _KEY)


def _holds_more(principal: Principal, opening: ApiKeyAccount) -> bool:
    role = principal.role_in(opening.account_id)
    if opening.member_id is None:
        return role is Role.OPERATOR
    is_own = principal.members.get(opening.account_id) == opening.member_id
    return is_own or role in (Role.OPERATOR, Role.TENANT_OWNER)


def _check_live(row: ApiKey, now: datetime) -> None:
    if row.revoked_at is not None:
        raise InvalidTransition("The API key was revoked: make a new one.", _KEY)
    if row.expires_at is not None and row.expires_at <= now:
        raise InvalidTransition("The API key has expired: make a new one.", _KEY)


def check_revocable(principal: Principal, row: ApiKey, openings: Sequence[ApiKeyAccount]) -> None:
    """Refuse to end what is not the caller's to end: in any state of the key and its accounts, it is for no others."""
    if row.opens_all:
        if not principal.is_operator:
            raise Forbidden("It opens all accounts: operators end it.", _KEY)
        if (reason := explain_refusal(principal, Right.MANAGE_KEYS)) is not None:
            raise Forbidden(reason, _KEY)
        return
    if any(_may_end(principal, opening) for opening in openings):
        return
    if (reason := explain_refusal(principal, Right.MANAGE_KEYS, openings[0].account_id)) is not None:
        raise Forbidden(reason, _KEY)
    raise Forbidden("An operator made it: ask for its end.", _KEY)


def _may_end(principal: Principal, opening: ApiKeyAccount) -> bool:
    """A tenant's keys are ended by who manages them; an operator's, such as the one that meters, by operators."""
    if not principal.may(Right.MANAGE_KEYS, opening.account_id):
        return False
    return opening.member_id is not None or principal.role_in(opening.account_id) is Role.OPERATOR


def list_key_permissions(
    principal: Principal, row: ApiKey, openings: Sequence[ApiKeyAccount], now: datetime
) -> list[Permission]:
    """Each action on a key, by the same checks that its mutation makes."""
    return [
        _permission(Action.ROTATE_API_KEY, lambda: check_rotatable(principal, row, openings, now)),
        _permission(Action.REVOKE_API_KEY, lambda: check_revocable(principal, row, openings)),
    ]


def _permission(action: Action, check: Callable[[], None]) -> Permission:
    try:
        check()
    except BillingError as refusal:
        return Permission(action, Reason(refusal.code, str(refusal)))
    return Permission(action, None)


# Looking


def status_of(row: ApiKey, revoked_at: datetime | None, now: datetime) -> KeyStatus:
    """Whether a key is good, of which was found when it was revoked."""
    if revoked_at is not None:
        return KeyStatus.REVOKED
    return KeyStatus.EXPIRED if row.expires_at is not None and row.expires_at <= now else KeyStatus.ACTIVE


def revoked_for(principal: Principal, row: ApiKey, openings: Sequence[ApiKeyAccount]) -> datetime | None:
    """When a key was revoked as far as a caller can see: for all its accounts, or for those of the caller."""
    ends = [opening.revoked_at for opening in openings if principal.role_in(opening.account_id) is not None]
    if row.revoked_at is not None or not ends or None in ends:
        return row.revoked_at
    return max(at for at in ends if at is not None)


async def load_keys(session: ReadSession, account_ids: Sequence[UUID], now: datetime) -> list[list[ApiKey]]:
    """The keys that open accounts, by account: the living first, the newest first, not all that have ended."""
    has_ended = or_(~_is_live(now), ApiKeyAccount.revoked_at.is_not(None))
    place = (
        func.row_number()
        .over(partition_by=ApiKeyAccount.account_id, order_by=(has_ended, ApiKey.created_at.desc(), ApiKey.id.desc()))
        .label("place")
    )
    ranked = (
        select(ApiKeyAccount.account_id, ApiKeyAccount.api_key_id, place)
        .join(ApiKey, ApiKey.id == ApiKeyAccount.api_key_id)
        .where(ApiKeyAccount.account_id.in_(account_ids))
        .subquery()
    )
    found: dict[UUID, list[ApiKey]] = {id_: [] for id_ in account_ids}
    rows = await session.execute(
        select(ranked.c.account_id, ApiKey)
        .join(ApiKey, ApiKey.id == ranked.c.api_key_id)
        .where(ranked.c.place <= MAX_SHOWN)
        .order_by(ranked.c.account_id, ranked.c.place)
    )
    for account_id, row in rows:
        found[account_id].append(row)
    return [found[id_] for id_ in account_ids]


async def list_operators_keys(session: ReadSession, now: datetime) -> Sequence[ApiKey]:
    """The keys that open all accounts, the living first, the newest first."""
    chosen = select(ApiKey).where(ApiKey.opens_all)
    ordered = chosen.order_by(~_is_live(now), ApiKey.created_at.desc(), ApiKey.id.desc())
    return (await session.scalars(ordered.limit(MAX_SHOWN))).all()


async def list_keys(session: ReadSession) -> Sequence[ApiKey]:
    """All keys, oldest first."""
    return (await session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id))).all()


async def _lock_visible(work: Work, principal: Principal, key_id: UUID) -> tuple[ApiKey, Mapping[UUID, BillingAccount]]:
    row, accounts = await _lock(work, ApiKey.id == key_id) or (None, {})
    if row is None or not may_see(principal, row, row.openings):
        raise NotFound(UNKNOWN_KEY, _KEY)
    return row, accounts


async def _lock_named(work: Work, prefix: str) -> tuple[ApiKey, Mapping[UUID, BillingAccount]]:
    found = await _lock(work, ApiKey.prefix == prefix)
    if found is None:
        raise NotFound(f"There is no API key {prefix}.")
    return found


async def _lock(work: Work, named: ColumnElement[bool]) -> tuple[ApiKey, Mapping[UUID, BillingAccount]] | None:
    """A key with its accounts, all locked: the accounts first, as everybody does."""
    ids = await work.session.scalars(
        select(ApiKeyAccount.account_id).join(ApiKey, ApiKey.id == ApiKeyAccount.api_key_id).where(named)
    )
    accounts = await work.lock_accounts(ids.all())
    row = await work.session.scalar(
        select(ApiKey)
        .where(named)
        .options(selectinload(ApiKey.openings))
        .with_for_update(of=ApiKey)
        .execution_options(populate_existing=True)
    )
    return None if row is None else (row, accounts)


# Telling


async def _record(
    work: Work,
    accounts: Sequence[BillingAccount],
    row: ApiKey,
    action: str,
    *,
    after: dict[str, Any],
) -> None:
    """Note what became of a key with each account that it concerns."""
    await work.session.flush()
    if row.opens_all:
        await work.audit_deployment(action, f"api_key:{row.id}", after=after)
    for account in accounts:
        work.audit(account, action, f"api_key:{row.id}", after=after)
        work.emit(account, action, {"apiKeyId": str(row.id), "prefix": row.prefix})


def _describe(row: ApiKey) -> dict[str, Any]:
    return {
        "prefix": row.prefix,
        "name": row.name,
        "scopes": row.scopes,
        "networks": row.networks,
        "expiresAt": None if row.expires_at is None else row.expires_at.isoformat(),
    }


async def end_openings(work: Work, which: ColumnElement[bool]) -> None:
    """Have keys open these accounts no more, without a word; a key that opens none any more is revoked."""
    now = work.clock.now()
    ended = select(ApiKeyAccount.api_key_id).where(which)
    await work.session.execute(
        update(ApiKeyAccount).where(which, ApiKeyAccount.revoked_at.is_(None)).values(revoked_at=now)
    )
    living = select(ApiKeyAccount.api_key_id).where(ApiKeyAccount.revoked_at.is_(None))
    await work.session.execute(
        update(ApiKey)
        .where(ApiKey.id.in_(ended), ApiKey.id.not_in(living), ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
    )
