"""Who a bearer token belongs to: API keys made and revoked, JWTs checked."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import jwt
from sqlalchemy import select

from ..database import Database, ReadSession, Work
from ..models import ApiKey, ApiKeyAccount, BillingAccount, Member, Operator, Role
from ..settings import Environment, Settings
from .access import Person, Principal, PrincipalKind, Scope
from .errors import ErrorCode, RequestRefused
from .ports import SigningKeys
from .rules.networks import lies_in

KEY_PREFIXES = {Environment.SANDBOX: "plf_test_", Environment.PRODUCTION: "plf_live_"}
MAX_TOKEN_LENGTH = 8_192
ALGORITHMS = ("RS256", "ES256")
LEEWAY_S = 5
MAX_PERSON_NAME = 100
MAX_CHECKED = 500
"""How many tokens one statement checks."""
KEY_EXPIRED = "This API key has expired: make a new one."
KEY_UNKNOWN = "There is no such API key."
KEY_REVOKED = "This API key was revoked: make a new one."
KEY_ROTATED = "This secret was exchanged for a new one, and its time is over: use the new one."
KEY_ELSEWHERE = "This API key is not taken from where you are: ask whoever made it."
TOKEN_EXPIRED = "The token has expired: get a new one from its issuer."  # noqa: S105


def _unauthenticated(message: str) -> RequestRefused:
    return RequestRefused(ErrorCode.UNAUTHENTICATED, message)


_TOKEN = re.compile(r"(plf_[a-z]+_[0-9a-f]{1,20})_\w+")


def hide_tokens(text: str) -> str:
    """A text in which keys stand by their prefix only: somebody may have put one where it does not belong."""
    return _TOKEN.sub(r"\1_…", text)


class Stranger(RequestRefused):
    """A JWT is good, and its subject a member of nothing: all that is theirs to do is to accept an invitation."""

    def __init__(self, person: Person | None) -> None:
        super().__init__(
            ErrorCode.UNAUTHENTICATED, "The token is good, but its subject is a member of no account here."
        )
        self.person = person

    def principal(self) -> Principal:
        """Who may accept an invitation, and nothing else."""
        assert self.person is not None, "the token named its subject"
        digest = hashlib.sha256(f"{self.person.iss}\n{self.person.sub}".encode()).hexdigest()
        return Principal(
            kind=PrincipalKind.MEMBER, id=f"person:{digest[:32]}", display_name=self.person.name, person=self.person
        )


def hash_secret(secret: str) -> str:
    """A fast hash is enough: the secret has 192 random bits, nobody guesses it."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True)
class Secret:
    """The text of a new key. It is shown this once: what is stored is the prefix, and a hash of the rest."""

    prefix: str
    secret: str = field(repr=False)

    @property
    def token(self) -> str:
        """As a caller sends it."""
        return f"{self.prefix}_{self.secret}"

    @property
    def hash(self) -> str:
        """What is stored of it."""
        return hash_secret(self.secret)


def draw_secret(environment: Environment) -> Secret:
    """A key's text that nobody can guess."""
    return Secret(KEY_PREFIXES[environment] + secrets.token_hex(6), secrets.token_hex(24))


def draw_next(prefix: str) -> Secret:
    """Another text of the same key."""
    return Secret(prefix, secrets.token_hex(24))


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
    drawn = draw_secret(environment)
    if isinstance(maker, Member):
        row = add_key(work, drawn, name, scopes, members={maker.account_id: maker.id}, expires_at=expires_at)
    else:
        members = {} if account_id is None else {account_id: None}
        row = add_key(work, drawn, name, scopes, members=members, operator_id=maker.id, expires_at=expires_at)
    return NewKey(row, drawn.token)


def add_key(
    work: Work,
    drawn: Secret,
    name: str,
    scopes: Iterable[Scope],
    *,
    members: Mapping[UUID, UUID | None],
    operator_id: UUID | None = None,
    expires_at: datetime | None = None,
    networks: Iterable[str] = (),
) -> ApiKey:
    """Write down a key that opens these accounts, in each as that member; without any of them, all there are."""
    row = ApiKey(
        created_at=work.clock.now(),
        name=name,
        prefix=drawn.prefix,
        secret_hash=drawn.hash,
        operator_id=operator_id,
        opens_all=not members,
        scopes=[str(scope) for scope in scopes],
        networks=list(networks),
        expires_at=expires_at,
    )
    for account_id, member_id in members.items():
        row.openings.append(ApiKeyAccount(api_key_id=row.id, account_id=account_id, member_id=member_id))
    work.session.add(row)
    return row


@dataclass(frozen=True)
class Proof:
    """What a bearer token proved, and for how long it can."""

    principal: Principal
    lasts_s: float | None = None
    """Seconds until it expires, when it was proved; none where it does not."""
    sub: str | None = None
    """The subject of a JWT, whose signature holds as long as the token does."""
    ends_at: datetime | None = None
    """When a key's text expires."""
    last_words: str = TOKEN_EXPIRED
    """What is said when it expires."""


async def authenticate(
    database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str, peer: str = ""
) -> Principal:
    """The caller that a bearer token proves; `UNAUTHENTICATED` with what to do where it proves none."""
    return (await prove(database, settings, signing_keys, token, peer)).principal


async def prove(
    database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str, peer: str = ""
) -> Proof:
    """The caller that a bearer token proves, and how long. `peer` is the address that it came from."""
    if not token or len(token) > MAX_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise _unauthenticated("The bearer token is malformed: send an API key or a JWT, and nothing else.")
    if token.startswith("plf_"):
        return await _prove_key(database, settings.environment, token, peer)
    if token.count(".") == 2:
        return await _prove_jwt(database, settings, signing_keys, token)
    raise _unauthenticated("The bearer token is neither an API key (plf_…) nor a JWT.")


async def check_again(
    database: Database, settings: Settings, proofs: Mapping[str, Proof]
) -> dict[str, Proof | RequestRefused]:
    """Who tokens that were good belong to now, or why they are no good any more: a few statements for many tokens.

    A JWT's signature is not looked at again, nor whether it has expired: its first proof tells when. From where a key
    may be shown was looked at when it was: neither that nor the address changes.
    """
    found: dict[str, Proof | RequestRefused] = {}
    keys = {token: token.rpartition("_")[0] for token, proof in proofs.items() if proof.sub is None}
    subjects = {proof.sub for proof in proofs.values() if proof.sub is not None}
    if keys:
        async with database.read() as session:
            rows = await _read_keys(session, sorted(set(keys.values())))
        for token, prefix in keys.items():
            try:
                found[token] = _judge_key(rows.get(prefix), token, database.clock.now())
            except RequestRefused as refusal:
                found[token] = refusal
    if subjects:
        async with database.read() as session:
            people = await _read_people(session, settings.jwt_issuer or "", sorted(subjects))
        for token, proof in proofs.items():
            if proof.sub is None:
                continue
            try:
                found[token] = replace(
                    proof, principal=_principal_of_person(people.get(proof.sub), proof.principal.person)
                )
            except RequestRefused as refusal:
                found[token] = refusal
    return found


@dataclass(frozen=True)
class KeyEntry:
    """What is stored of a key: its maker if that is an operator, else the maker's memberships; and its accounts."""

    row: ApiKey
    operator: Operator | None
    doors: Sequence[tuple[ApiKeyAccount, Member | None, bool]]
    """Each account with the member who made the key, and whether its keys may record usage."""


People: TypeAlias = tuple[Operator | None, list[Member]]


async def _read_keys(session: ReadSession, prefixes: Sequence[str]) -> dict[str, KeyEntry]:
    """Keys with all that tells what they may, by prefix: one statement for many."""
    found: dict[str, KeyEntry] = {}
    for first in range(0, len(prefixes), MAX_CHECKED):
        rows = await session.execute(
            select(ApiKey, Operator, ApiKeyAccount, Member, BillingAccount.keys_may_ingest)
            .outerjoin(Operator, ApiKey.operator_id == Operator.id)
            .outerjoin(ApiKeyAccount, ApiKeyAccount.api_key_id == ApiKey.id)
            .outerjoin(Member, ApiKeyAccount.member_id == Member.id)
            .outerjoin(BillingAccount, ApiKeyAccount.account_id == BillingAccount.id)
            .where(ApiKey.prefix.in_(prefixes[first : first + MAX_CHECKED]))
            .order_by(ApiKeyAccount.account_id)
        )
        doors: dict[str, list[tuple[ApiKeyAccount, Member | None, bool]]] = {}
        for key, operator, opening, member, may_ingest in rows:
            known = doors.setdefault(key.prefix, [])
            found.setdefault(key.prefix, KeyEntry(key, operator, known))
            if opening is not None:
                known.append((opening, member, may_ingest))
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


async def _prove_key(database: Database, environment: Environment, token: str, peer: str) -> Proof:
    prefix = token.rpartition("_")[0]
    if token.startswith(KEY_PREFIXES[environment]) and not prefix.startswith(KEY_PREFIXES[environment]):
        raise _unauthenticated("The API key is incomplete: copy it whole.")
    if not prefix.startswith(KEY_PREFIXES[environment]):
        raise _unauthenticated(f"This is the {environment} environment: it takes keys {KEY_PREFIXES[environment]}…")
    async with database.read() as session:
        found = (await _read_keys(session, [prefix])).get(prefix)
    proof = _judge_key(found, token, database.clock.now())
    if found is not None and found.row.networks and not lies_in(peer, found.row.networks):
        raise _unauthenticated(KEY_ELSEWHERE)
    return proof


def _judge_key(found: KeyEntry | None, token: str, now: datetime) -> Proof:
    """What a key's text proves now."""
    given = hash_secret(token.rpartition("_")[2])
    # Compared also where there is no row, so that the time tells nothing.
    is_present = hmac.compare_digest(found.row.secret_hash if found else hash_secret(""), given)
    is_previous = hmac.compare_digest((found and found.row.previous_hash) or hash_secret(""), given)
    if found is None or not (is_present or is_previous):
        raise _unauthenticated(KEY_UNKNOWN)
    key = found.row
    if key.revoked_at is not None:
        raise _unauthenticated(KEY_REVOKED)
    ends = [(key.expires_at, KEY_EXPIRED)]
    if not is_present:
        ends.append((key.previous_until, KEY_ROTATED))
    known = [(at, words) for at, words in ends if at is not None]
    if not known:
        return Proof(_principal_of_key(found))
    at, words = min(known)
    if at <= now:
        raise _unauthenticated(words)
    return Proof(_principal_of_key(found), (at - now).total_seconds(), ends_at=at, last_words=words)


def _principal_of_key(found: KeyEntry) -> Principal:
    """Who a key is: in each account what its maker is there now."""
    key, operator = found.row, found.operator
    is_operators = operator is not None and operator.removed_at is None
    roles: dict[UUID, Role] = {}
    members: dict[UUID, UUID] = {}
    ingests: set[UUID] = set()
    for opening, member, may_ingest in found.doors:
        if opening.revoked_at is not None:
            continue
        if member is not None and member.removed_at is None:
            roles[opening.account_id] = member.role
            members[opening.account_id] = member.id
            if may_ingest:
                ingests.add(opening.account_id)
        elif member is None and is_operators:
            roles[opening.account_id] = Role.OPERATOR
    if not roles and not (key.opens_all and is_operators):
        if all(opening.revoked_at is not None for opening, _, _ in found.doors) and not key.opens_all:
            raise _unauthenticated(KEY_REVOKED)
        raise _unauthenticated("Whoever made this API key has no access any more: make a new one.")
    return Principal(
        kind=PrincipalKind.API_KEY,
        id=f"api_key:{key.id}",
        display_name=key.name,
        is_operator=key.opens_all,
        roles=roles,
        scopes=frozenset(Scope(scope) for scope in key.scopes),
        ingests=frozenset(ingests),
        members=members,
        operator_id=key.operator_id,
        key_id=key.id,
    )


async def _prove_jwt(database: Database, settings: Settings, signing_keys: SigningKeys | None, token: str) -> Proof:
    claims = await _check_jwt(settings, signing_keys, token)
    sub = str(claims["sub"])
    async with database.read() as session:
        people = await _read_people(session, settings.jwt_issuer or "", [sub])
    # The leeway is for clocks that differ when a token comes: it prolongs no stream that was opened before.
    left = claims["exp"] - time.time()
    person = Person(settings.jwt_issuer or "", sub, _name_in(claims) or sub)
    return Proof(_principal_of_person(people.get(sub), person), left if left > 0 else left + LEEWAY_S, sub)


def _name_in(claims: Mapping[str, Any]) -> str | None:
    """What a token calls its subject, where that can be shown."""
    name = claims.get("name")
    fits = isinstance(name, str) and name.isprintable() and 0 < len(name.strip()) <= MAX_PERSON_NAME
    return name.strip() if isinstance(name, str) and fits else None


def _principal_of_person(found: People | None, person: Person | None) -> Principal:
    operator, members = found or (None, [])
    if operator is not None:
        return Principal(
            kind=PrincipalKind.OPERATOR,
            id=f"operator:{operator.id}",
            display_name=operator.display_name,
            is_operator=True,
            operator_id=operator.id,
        )
    if not members:
        raise Stranger(person)
    return Principal(
        kind=PrincipalKind.MEMBER,
        id=f"member:{members[0].id}",
        display_name=members[0].display_name,
        roles={member.account_id: member.role for member in members},
        members={member.account_id: member.id for member in members},
        person=person,
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
