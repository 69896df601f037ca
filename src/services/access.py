"""Who may: the rights, which roles and scopes hold them, and who a caller is."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from uuid import UUID

from ..database import Actor
from ..models import Role
from .errors import ErrorCode, RequestRefused


class Scope(StrEnum):
    """What an API key was made for."""

    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    USAGE_WRITE = "usage:write"
    ADMIN = "admin"


class Right(StrEnum):
    """A right over an account (`SIGNED_IN` over none in particular)."""

    SIGNED_IN = "SIGNED_IN"
    READ_USAGE = "READ_USAGE"
    READ_BILLING = "READ_BILLING"
    MANAGE_BILLING = "MANAGE_BILLING"
    MANAGE_KEYS = "MANAGE_KEYS"
    ADMINISTER = "ADMINISTER"
    JOIN = "JOIN"
    INGEST_USAGE = "INGEST_USAGE"
    CORRECT_USAGE = "CORRECT_USAGE"
    OPERATE = "OPERATE"


_ANYONE = frozenset(Role)
_BILLING = frozenset({Role.OPERATOR, Role.TENANT_OWNER, Role.BILLING_ADMIN})
_OWNERS = frozenset({Role.OPERATOR, Role.TENANT_OWNER})

ROLES_BY_RIGHT: dict[Right, frozenset[Role]] = {
    Right.SIGNED_IN: _ANYONE,
    Right.READ_USAGE: _ANYONE,
    Right.READ_BILLING: _BILLING,
    Right.MANAGE_BILLING: _BILLING,
    Right.MANAGE_KEYS: _BILLING,
    Right.ADMINISTER: _OWNERS,
    # Whoever shows a good JWT, also as a member of nothing: see `Principal.may`.
    Right.JOIN: frozenset(),
    # A tenant's role never ingests: only a key with the scope, where an operator lets it, see `Principal.may`.
    Right.INGEST_USAGE: frozenset({Role.OPERATOR}),
    Right.CORRECT_USAGE: frozenset({Role.OPERATOR}),
    Right.OPERATE: frozenset({Role.OPERATOR}),
}

SCOPES_BY_RIGHT: dict[Right, frozenset[Scope]] = {
    Right.SIGNED_IN: frozenset(Scope),
    Right.READ_USAGE: frozenset({Scope.BILLING_READ, Scope.BILLING_WRITE, Scope.ADMIN}),
    Right.READ_BILLING: frozenset({Scope.BILLING_READ, Scope.BILLING_WRITE, Scope.ADMIN}),
    Right.MANAGE_BILLING: frozenset({Scope.BILLING_WRITE, Scope.ADMIN}),
    Right.MANAGE_KEYS: frozenset({Scope.ADMIN}),
    Right.ADMINISTER: frozenset({Scope.ADMIN}),
    Right.JOIN: frozenset(),
    Right.INGEST_USAGE: frozenset({Scope.USAGE_WRITE, Scope.ADMIN}),
    Right.CORRECT_USAGE: frozenset({Scope.USAGE_WRITE, Scope.ADMIN}),
    Right.OPERATE: frozenset({Scope.ADMIN}),
}


class PrincipalKind(StrEnum):
    """What a caller is."""

    API_KEY = "API_KEY"
    MEMBER = "MEMBER"
    OPERATOR = "OPERATOR"


@dataclass(frozen=True)
class Person:
    """Who a JWT proves somebody to be, and what they are called."""

    iss: str
    sub: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller whose token was checked: what it is, and its role in each account it may see."""

    kind: PrincipalKind
    id: str
    display_name: str
    is_operator: bool = False
    roles: dict[UUID, Role] = field(default_factory=dict[UUID, Role])
    """By account. An operator has none of these: it stands above all accounts."""
    scopes: frozenset[Scope] | None = None
    """What an API key is limited to; none for a person."""
    ingests: frozenset[UUID] = frozenset()
    """The accounts whose own keys an operator lets record usage."""
    members: dict[UUID, UUID] = field(default_factory=dict[UUID, UUID])
    """As which member it acts, by account: who made the key, or the person."""
    operator_id: UUID | None = None
    """Which operator it is, or was made by."""
    key_id: UUID | None = None
    """Which API key it is."""
    person: Person | None = None
    """Who it is that may join an account; none for programs and operators."""

    def role_in(self, account_id: UUID) -> Role | None:
        """The role in an account; none where the account does not exist for this caller."""
        return Role.OPERATOR if self.is_operator else self.roles.get(account_id)

    def may(self, right: Right, account_id: UUID | None = None) -> bool:
        """Whether the caller holds a right: over one account, or (without one) over any at all."""
        if right is Right.JOIN:
            return self.person is not None
        if self.scopes is not None and not self.scopes & SCOPES_BY_RIGHT[right]:
            return False
        if account_id is not None:
            role = self.role_in(account_id)
            held = set() if role is None else {role}
        else:
            held = {Role.OPERATOR} if self.is_operator else set(self.roles.values())
        if held & ROLES_BY_RIGHT[right]:
            return True
        if right is not Right.INGEST_USAGE or self.scopes is None or Scope.USAGE_WRITE not in self.scopes:
            return False
        # An operator switched ingestion on for the keys of these tenants.
        return bool(self.ingests) if account_id is None else account_id in self.ingests and bool(held)

    def list_accounts(self, right: Right) -> list[UUID] | None:
        """The accounts over which the caller holds a right; none for an operator that holds it over all."""
        if self.is_operator and self.may(right):
            return None
        return [account_id for account_id in self.roles if self.may(right, account_id)]

    def within(self, account_id: UUID) -> "Principal":
        """The caller as far as one account sees it: whom nothing tells apart there are equal.

        Which member it is stays: what somebody may do with a member depends on whether it is they themselves.
        """
        role = self.roles.get(account_id)
        roles = {} if role is None else {account_id: role}
        ingests = self.ingests.intersection(roles)
        return replace(
            self,
            id="",
            display_name="",
            roles=roles,
            ingests=ingests,
            members={account_id: self.members[account_id]} if account_id in self.members else {},
            operator_id=None,
            key_id=None,
            person=None,
        )

    @property
    def standing(self) -> Hashable:
        """What tells callers apart that are equal to nothing else."""
        mine = frozenset(self.roles.items()), frozenset(self.members.items())
        return (self.kind, self.id, self.is_operator, mine, self.scopes, self.ingests)

    def actor(self, origin: str) -> Actor:
        """The name under which the audit log knows this caller."""
        return Actor(name=self.id, origin=origin)


def require(principal: Principal, right: Right, account_id: UUID | None = None) -> None:
    """Refuse with `FORBIDDEN` where `Principal.may` says no."""
    reason = explain_refusal(principal, right, account_id)
    if reason is not None:
        raise RequestRefused(ErrorCode.FORBIDDEN, reason)


def explain_refusal(principal: Principal, right: Right, account_id: UUID | None = None) -> str | None:
    """Why a caller may not, in a sentence to act on; none where it may."""
    if principal.may(right, account_id):
        return None
    if right is Right.JOIN:
        return "An invitation is accepted by a person who is no operator: sign in with that person's JWT."
    if principal.scopes is not None and not principal.scopes & SCOPES_BY_RIGHT[right]:
        needed = " or ".join(sorted(SCOPES_BY_RIGHT[right]))
        if right is Right.OPERATE:
            return f"This is for operators: it needs an operator's API key with the scope {needed}."
        return f"This API key has no scope for it: it needs {needed}."
    if right is Right.INGEST_USAGE and principal.scopes is not None and Scope.USAGE_WRITE in principal.scopes:
        return "An operator has not let this account's own API keys record usage: ask for `keysMayIngest`."
    roles = ", ".join(sorted(ROLES_BY_RIGHT[right]))
    return f"Your role does not allow it: it needs one of {roles}."


MEANINGS: dict[Right, str] = {
    Right.SIGNED_IN: "`viewer`, the catalogue, `serverInfo`",
    Right.READ_USAGE: (
        "an account's name, currency, zone, locale, `viewerCan`, `changeCursor`, usage and usage alerts, without "
        "money; leaving it, and accepting its ownership, as the person who does"
    ),
    Right.READ_BILLING: "everything else of an account, and its events",
    Right.MANAGE_BILLING: (
        "name, locale, zone, metadata, company, contacts, notices, alerts; plan, add-ons, cancelling, payment methods, "
        "payments; what may pass a limit; budgets, recommendations; exports, webhooks"
    ),
    Right.MANAGE_KEYS: "API keys, up to the caller's own rights",
    Right.ADMINISTER: "members and roles, ownership, closing the account",
    Right.JOIN: "`acceptInvite`, for whoever shows a good JWT, a member already or not",
    Right.INGEST_USAGE: "`recordUsage`, `POST /usage`, reserving, committing and releasing",
    Right.CORRECT_USAGE: "`recordUsage` with negative quantities and levels",
    Right.OPERATE: (
        "accounts' creation, currency and collection terms, the catalogue and its taxes, exemptions, credit, "
        "void and credit notes, cancelling at once, legal hold, erasing people, test clocks, scenarios, parked "
        "accounts; "
        "of all accounts: keys, webhooks, exports, the month's reports, the deployment's audit log, field usage"
    ),
}


def render_rights(fields: Mapping[Right, Sequence[str]]) -> str:
    """The table of rights as it stands in docs/access.md, with the root fields that each right opens."""
    roles = list(Role)
    lines = [
        "# Who may",
        "",
        "Made from `src/services/access.py`. An API key can do what its scopes name and its maker still may.",
        "",
        f"| right | over | {' | '.join(roles)} | scopes of a key |",
        f"| --- | --- |{' --- |' * len(roles)} --- |",
    ]
    for right, meaning in MEANINGS.items():
        held = " | ".join("yes" if role in ROLES_BY_RIGHT[right] else "" for role in roles)
        scopes = ", ".join(f"`{scope}`" for scope in sorted(SCOPES_BY_RIGHT[right]))
        lines.append(f"| {right} | {meaning} | {held} | {scopes} |")
    lines += [
        "",
        "A tenant's key ingests only with `usage:write`, while an operator lets the account's own keys do so",
        "(`keysMayIngest`), and positive quantities only.",
        "What a caller may not see of another tenant is the same as what does not exist.",
        "",
        "What each right opens at the root; most then ask for it over the account that is named.",
        "",
        "| right | fields |",
        "| --- | --- |",
        *(f"| {right} | {', '.join(f'`{name}`' for name in fields.get(right, ()))} |" for right in MEANINGS),
        "",
    ]
    return "\n".join(lines)
