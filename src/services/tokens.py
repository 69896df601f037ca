"""Who a bearer token belongs to: API keys made and revoked, JWTs checked."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import jwt
from sqlalchemy import select

from ..database import ACCESS_TOPIC, Database, ReadSession, Work
from ..models import ApiKey, BillingAccount, Member, Operator, Role
from ..settings import Environment, Settings
from .access import Principal, PrincipalKind, Scope
from .errors import ErrorCode, InvalidInput, NotFound, RequestRefused
from .ports import SigningKeys

KEY_PREFIXES = {Environment.SANDBOX: "plf_test_", Environment.PRODUCTION: "plf_live_"}
MAX_TOKEN_LENGTH = 8_192
ALGORITHMS = ("RS256", "ES256")
LEEWAY_S = 5
MAX_KEY_NAME = 100
MAX_CHECKED = 500
"""How many tokens one statement checks."""
KEY_EXPIRED = "This API key has expired: make a new one."
TOKEN_EXPIRED = "The token has expired: get a new one from its issuer."  # noqa: S105
DEPLOYMENT = ("plafond:deployment", "command-line")
"""Who makes keys on the command line: an operator that no JWT can be, since no issuer is named so."""


def _unauthenticated(message: str) -> RequestRefused:
    return RequestRefused(ErrorCode.UNAUTHENTICATED, message)


def hash_secret(secret: str) -> str:
    """A fast hash is enough: the secret has 192 random bits, nobody guesses it."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True)
class NewKey:
    """A key just made. The token is shown this once."""

    row: ApiKey
    token: str


def create_key(
    work: Work,
    environment: Environment,
    *,
    name: str,
    maker: Member | Operator,
    scopes: Sequence[Scope],
    account_id: UUID | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make an API key. A member's opens the member's account; an operator's all accounts, or the one named."""
    prefix = KEY_PREFIXES[environment] + secrets.token_hex(6)
    secret = secrets.token_hex(24)
    is_member = isinstance(maker, Member)
    row = ApiKey(
        created_at=work.clock.now(),
        name=name,
        prefix=prefix,
        secret_hash=hash_secret(secret),
        account_id=maker.account_id if isinstance(maker, Member) else account_id,
        member_id=maker.id if is_member else None,
        operator_id=None if is_member else maker.id,
        scopes=[str(scope) for scope in scopes],
        expires_at=expires_at,
    )
    work.session.add(row)
    return NewKey(row, f"{prefix}_{secret}")


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
    if not 0 < len(name.strip()) <= MAX_KEY_NAME or not name.isprintable():
        raise InvalidInput(f"A key's name has 1 to {MAX_KEY_NAME} printable characters.")
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
    key = create_key(
        work,
        environment,
        name=name.strip(),
        maker=maker,
        scopes=sorted(set(scopes)),
        account_id=account.id if account else None,
        expires_at=expires_at,
    )
    if account is not None:
        await work.session.flush()
        after = {"prefix": key.row.prefix, "scopes": key.row.scopes}
        work.audit(account, "api_key.created", f"api_key:{key.row.id}", after=after)
        work.emit(account, "api_key.created", {"prefix": key.row.prefix})
    return key


async def revoke_key(work: Work, prefix: str) -> ApiKey:
    """End a key at once, and the streams opened with it. Revoking twice is the same as once."""
    row = (await work.session.scalars(select(ApiKey).where(ApiKey.prefix == prefix))).one_or_none()
    if row is None:
        raise NotFound(f"There is no API key {prefix}.")
    if row.revoked_at is None:
        row.revoked_at = row.updated_at = work.clock.now()
        if row.account_id is not None:
            account = (await work.lock_accounts([row.account_id]))[row.account_id]
            work.audit(account, "api_key.revoked", f"api_key:{row.id}", after={"prefix": prefix})
            work.emit(account, "api_key.revoked", {"prefix": prefix})
    work.topics.add(ACCESS_TOPIC)
    return row


async def list_keys(session: ReadSession) -> Sequence[ApiKey]:
    """All keys, oldest first."""
    return (await session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id))).all()


@dataclass(frozen=True)
class Proof:
    """What a bearer token proved, and for how long it can."""

    principal: Principal
    lasts_s: float | None = None
    """Seconds until it expires, when it was proved; none where it does not."""
    sub: str | None = None
    """The subject of a JWT, whose signature holds as long as the token does."""


async def authenticate(
    database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str
) -> Principal:
    """The caller that a bearer token proves; `UNAUTHENTICATED` with what to do where it proves none."""
    return (await prove(database, settings, signing_keys, token)).principal


async def prove(database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str) -> Proof:
    """The caller that a bearer token proves, and how long."""
    if not token or len(token) > MAX_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise _unauthenticated("The bearer token is malformed: send an API key or a JWT, and nothing else.")
    if token.startswith("plf_"):
        return await _prove_key(database, settings.environment, token)
    if token.count(".") == 2:
        return await _prove_jwt(database, settings, signing_keys, token)
    raise _unauthenticated("The bearer token is neither an API key (plf_…) nor a JWT.")


async def check_again(
    database: Database, settings: Settings, proofs: Mapping[str, Proof]
) -> dict[str, Principal | RequestRefused]:
    """Who tokens that were good belong to now, or why they are no good any more: a few statements for many tokens.

    Not whether they have expired in the meantime: of that a proof tells when. A JWT's signature is not looked at again.
    """
    found: dict[str, Principal | RequestRefused] = {}
    keys = {token.rpartition("_")[0]: token for token, proof in proofs.items() if proof.sub is None}
    subjects = {proof.sub for proof in proofs.values() if proof.sub is not None}
    now = database.clock.now()
    if keys:
        async with database.read() as session:
            rows = await _read_keys(session, list(keys))
        for prefix, token in keys.items():
            found[token] = _judge(_principal_of_key, rows.get(prefix), now)
    if subjects:
        iss = settings.jwt_issuer or ""
        async with database.read() as session:
            people = await _read_people(session, iss, sorted(subjects))
        for token, proof in proofs.items():
            if proof.sub is not None:
                found[token] = _judge(_principal_of_person, people.get(proof.sub))
    return found


def _judge(prove: Callable[..., Principal], *given: object) -> Principal | RequestRefused:
    try:
        return prove(*given)
    except RequestRefused as refusal:
        return refusal


KeyRow: TypeAlias = tuple[ApiKey, Member | None, Operator | None]
People: TypeAlias = tuple[Operator | None, list[Member]]


async def _read_keys(session: ReadSession, prefixes: Sequence[str]) -> dict[str, KeyRow]:
    """Keys with their makers, by prefix."""
    found: dict[str, KeyRow] = {}
    for first in range(0, len(prefixes), MAX_CHECKED):
        rows = await session.execute(
            select(ApiKey, Member, Operator)
            .outerjoin(Member, ApiKey.member_id == Member.id)
            .outerjoin(Operator, ApiKey.operator_id == Operator.id)
            .where(ApiKey.prefix.in_(prefixes[first : first + MAX_CHECKED]))
        )
        found |= {key.prefix: (key, member, operator) for key, member, operator in rows}
    return found


async def _read_people(session: ReadSession, iss: str, subjects: Sequence[str]) -> dict[str, People]:
    """Operators and members who have access, by their subject."""
    found: dict[str, tuple[Operator | None, list[Member]]] = {}
    for first in range(0, len(subjects), MAX_CHECKED):
        chosen = subjects[first : first + MAX_CHECKED]
        operators = await session.scalars(
            select(Operator).where(Operator.iss == iss, Operator.sub.in_(chosen), Operator.removed_at.is_(None))
        )
        for operator in operators:
            found[operator.sub] = (operator, [])
        members = await session.scalars(
            select(Member)
            .where(Member.iss == iss, Member.sub.in_(chosen), Member.removed_at.is_(None))
            .order_by(Member.created_at)
        )
        for member in members:
            found.setdefault(member.sub, (None, []))[1].append(member)
    return found


async def _prove_key(database: Database, environment: Environment, token: str) -> Proof:
    prefix, _, secret = token.rpartition("_")
    if token.startswith(KEY_PREFIXES[environment]) and not prefix.startswith(KEY_PREFIXES[environment]):
        raise _unauthenticated("The API key is incomplete: copy it whole.")
    if not prefix.startswith(KEY_PREFIXES[environment]):
        raise _unauthenticated(f"This is the {environment} environment: it takes keys {KEY_PREFIXES[environment]}…")
    async with database.read() as session:
        found = (await _read_keys(session, [prefix])).get(prefix)
    # Compared also where there is no row, so that the time tells nothing.
    matches = hmac.compare_digest(found[0].secret_hash if found else hash_secret(""), hash_secret(secret))
    if found is None or not matches:
        raise _unauthenticated("There is no such API key.")
    now = database.clock.now()
    expires_at = found[0].expires_at
    principal = _principal_of_key(found, now)
    return Proof(principal, None if expires_at is None else (expires_at - now).total_seconds())


def _principal_of_key(found: KeyRow | None, now: datetime) -> Principal:
    if found is None:
        raise _unauthenticated("There is no such API key.")
    key, member, operator = found
    if key.revoked_at is not None:
        raise _unauthenticated("This API key was revoked: make a new one.")
    if key.expires_at is not None and key.expires_at <= now:
        raise _unauthenticated(KEY_EXPIRED)
    maker: Member | Operator | None = member or operator
    if maker is None or maker.removed_at is not None:
        raise _unauthenticated("Whoever made this API key has no access any more: make a new one.")
    roles: dict[UUID, Role] = {}
    if key.account_id is not None:
        roles[key.account_id] = member.role if member is not None else Role.OPERATOR
    return Principal(
        kind=PrincipalKind.API_KEY,
        id=f"api_key:{key.id}",
        display_name=key.name,
        is_operator=operator is not None and key.account_id is None,
        roles=roles,
        scopes=frozenset(Scope(scope) for scope in key.scopes),
    )


async def _prove_jwt(database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str) -> Proof:
    claims = await _check_jwt(settings, signing_keys, token)
    sub = str(claims["sub"])
    async with database.read() as session:
        people = await _read_people(session, settings.jwt_issuer or "", [sub])
    # The leeway is for clocks that differ when a token comes: it prolongs no stream that was opened before.
    left = claims["exp"] - time.time()
    return Proof(_principal_of_person(people.get(sub)), left if left > 0 else left + LEEWAY_S, sub)


def _principal_of_person(found: People | None) -> Principal:
    operator, members = found or (None, [])
    if operator is not None:
        return Principal(
            kind=PrincipalKind.OPERATOR,
            id=f"operator:{operator.id}",
            display_name=operator.display_name,
            is_operator=True,
        )
    if not members:
        raise _unauthenticated("The token is good, but its subject is a member of no account here.")
    return Principal(
        kind=PrincipalKind.MEMBER,
        id=f"member:{members[0].id}",
        display_name=members[0].display_name,
        roles={member.account_id: member.role for member in members},
    )


async def _check_jwt(settings: Settings, signing_keys: SigningKeys | None, token: str) -> dict[str, Any]:
    if settings.jwt_issuer is None:
        raise _unauthenticated("This server takes API keys only: it has no JWT issuer configured.")
    try:
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        key: Any
        if algorithm == "HS256" and settings.jwt_hs256_secret is not None:
            key = settings.jwt_hs256_secret.get_secret_value()
        elif algorithm in ALGORITHMS and signing_keys is not None and isinstance(kid, str | None):
            key = await signing_keys.find(kid, str(algorithm))
        else:
            key = None
        if key is None:
            raise _unauthenticated("The token is signed with a key or in a way that this server does not take.")
        claims = jwt.decode(
            token,
            key,
            algorithms=[str(algorithm)],
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            options={"require": ["exp", "iss", "aud", "sub"]},
            leeway=LEEWAY_S,
        )
    except jwt.ExpiredSignatureError as error:
        raise _unauthenticated(TOKEN_EXPIRED) from error
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise _unauthenticated("The token is not valid here: check its issuer, audience and signature.") from error
    if not isinstance(claims.get("exp"), int):
        raise _unauthenticated("The token is not valid here: its `exp` is not a whole number.")
    return claims
