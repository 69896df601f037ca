"""Why a caller may not, in a sentence to act on."""

import pytest

from plafond.models import Role
from plafond.models.types import new_id
from plafond.services.access import (
    SCOPES_BY_RIGHT,
    Principal,
    PrincipalKind,
    Right,
    Scope,
    explain_refusal,
)

from .helpers import tenant_key

ACCOUNT = new_id()
OWNER = Principal(kind=PrincipalKind.MEMBER, id="member:1", display_name="Owner", roles={ACCOUNT: Role.TENANT_OWNER})


def test_scopes_narrow_as_the_rules_say() -> None:
    reads = {Right.READ_USAGE, Right.READ_BILLING}
    expected = {
        Scope.BILLING_READ: reads,
        Scope.BILLING_WRITE: reads | {Right.MANAGE_BILLING},
        Scope.USAGE_WRITE: {Right.INGEST_USAGE, Right.CORRECT_USAGE},
        Scope.ADMIN: set(Right) - {Right.JOIN},
    }
    for scope, rights in expected.items():
        held = {right for right in Right if scope in SCOPES_BY_RIGHT[right]}
        assert held == rights | {Right.SIGNED_IN}, scope


@pytest.mark.parametrize(
    ("principal", "right", "said"),
    [
        (
            tenant_key(ACCOUNT, Scope.BILLING_WRITE),
            Right.OPERATE,
            "This is for operators: it needs an operator's API key with the scope admin.",
        ),
        (
            tenant_key(ACCOUNT, Scope.USAGE_WRITE),
            Right.READ_BILLING,
            "This API key has no scope for it: it needs admin or billing:read or billing:write.",
        ),
        (OWNER, Right.OPERATE, "Your role does not allow it: it needs one of OPERATOR."),
        (OWNER, Right.MANAGE_BILLING, None),
    ],
)
def test_a_refusal_says_what_it_needs(principal: Principal, right: Right, said: str | None) -> None:
    assert explain_refusal(principal, right, ACCOUNT) == said
