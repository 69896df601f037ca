"""Who a bearer token belongs to: API keys made and revoked, JWTs checked."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
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
MAX_KEY_NAME = 100
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


async def authenticate(
    database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str
) -> Principal:
    """The caller that a bearer token proves; `UNAUTHENTICATED` with what to do where it proves none."""
    if not token or len(token) > MAX_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise _unauthenticated("The bearer token is malformed: send an API key or a JWT, and nothing else.")
    if token.startswith("plf_"):
        return await _authenticate_key(database, settings.environment, token)
    if token.count(".") == 2:
        return await _authenticate_jwt(database, settings, signing_keys, token)
    raise _unauthenticated("The bearer token is neither an API key (plf_…) nor a JWT.")


async def _authenticate_key(database: Database, environment: Environment, token: str) -> Principal:
    prefix, _, secret = token.rpartition("_")
    if token.startswith(KEY_PREFIXES[environment]) and not prefix.startswith(KEY_PREFIXES[environment]):
        raise _unauthenticated("The API key is incomplete: copy it whole.")
    if not prefix.startswith(KEY_PREFIXES[environment]):
        raise _unauthenticated(f"This is the {environment} environment: it takes keys {KEY_PREFIXES[environment]}…")
    async with database.read() as session:
        found = (
            await session.execute(
                select(ApiKey, Member, Operator)
                .outerjoin(Member, ApiKey.member_id == Member.id)
                .outerjoin(Operator, ApiKey.operator_id == Operator.id)
                .where(ApiKey.prefix == prefix)
            )
        ).one_or_none()
    # Compared also where there is no row, so that the time tells nothing.
    matches = hmac.compare_digest(found[0].secret_hash if found else hash_secret(""), hash_secret(secret))
    if found is None or not matches:
        raise _unauthenticated("There is no such API key.")
    key, member, operator = found
    if key.revoked_at is not None:
        raise _unauthenticated("This API key was revoked: make a new one.")
    if key.expires_at is not None and key.expires_at <= database.clock.now():
        raise _unauthenticated("This API key has expired: make a new one.")
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


async def _authenticate_jwt(
    database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str
) -> Principal:
    claims = await _check_jwt(settings, signing_keys, token)
    iss, sub = settings.jwt_issuer or "", str(claims["sub"])
    async with database.read() as session:
        operator = (
            await session.scalars(
                select(Operator).where(Operator.iss == iss, Operator.sub == sub, Operator.removed_at.is_(None))
            )
        ).one_or_none()
        members = (
            await session.scalars(
                select(Member)
                .where(Member.iss == iss, Member.sub == sub, Member.removed_at.is_(None))
                .order_by(Member.created_at)
            )
        ).all()
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
            leeway=5,
        )
    except jwt.ExpiredSignatureError as error:
        raise _unauthenticated("The token has expired: get a new one from its issuer.") from error
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise _unauthenticated("The token is not valid here: check its issuer, audience and signature.") from error
    if not isinstance(claims.get("exp"), int):
        raise _unauthenticated("The token is not valid here: its `exp` is not a whole number.")
    return claims
