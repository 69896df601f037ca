"""Members at the door: who may invite, join, change a role, go, and hand the ownership over."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from plafond.database import Work
from plafond.models import AuditEntry, BillingAccount, Invite, Member, OutboxEvent, Role, SubscriptionStatus
from plafond.schema.node import decode_id, encode_id
from plafond.services import invites, members
from plafond.services.access import ROLES_BY_RIGHT, Principal, PrincipalKind, Right, Scope
from plafond.services.errors import Forbidden
from plafond.services.invitations import invitation_url
from plafond.services.invites import LIFE, MAX_OPEN, NO_INVITATION

from ..conftest import Client, World
from ..http.test_jwt import add_member, claims, secret_of, sign
from ..services.helpers import ACTOR, account_of, change_account, change_subscription
from .test_access import make_member_key

INVITE = """mutation($input: InviteMemberInput!) { inviteMember(input: $input) {
  invite { id email role locale invitedBy expiresAt } userErrors { code field message } } }"""
RESEND = (
    """mutation($id: ID!) { resendInvite(input: { inviteId: $id }) { invite { id } userErrors { code message } } }"""
)
REVOKE = "mutation($id: ID!) { revokeInvite(input: { inviteId: $id }) { revokedId userErrors { code message } } }"
ACCEPT = """mutation($link: String!) { acceptInvite(input: { token: $link }) {
  account { id name } member { id role displayName email } userErrors { code field message } } }"""
SET_ROLE = """mutation($id: ID!, $role: Role!) { setMemberRole(input: { memberId: $id, role: $role }) {
  member { role } userErrors { code message } } }"""
REMOVE = "mutation($id: ID!) { removeMember(input: { memberId: $id }) { removedId userErrors { code message } } }"
OFFER = """mutation($account: ID!, $member: ID) { transferOwnership(input: { accountId: $account, memberId: $member }) {
  transfer { offeredBy { id } offeredTo { id } expiresAt } userErrors { code message } } }"""
OWN = """mutation($account: ID!) { acceptOwnership(input: { accountId: $account }) {
  member { role } userErrors { code message } } }"""
LIST = """{ billingAccount(externalId: "acme") { members { id displayName role email
  viewerCan { action allowed reason { code } } } invites { id email } ownershipTransfer { offeredTo { id } } } }"""


def jwt_of(world: World, sub: str, **more: Any) -> str:
    return sign(claims(sub=sub, **more), secret_of(world))


async def acme(world: World) -> str:
    return encode_id("BillingAccount", (await account_of(world)).id)


async def owner(world: World, sub: str = "olivia") -> str:
    """The JWT of an owner of Acme's."""
    await add_member(world, "acme", Role.TENANT_OWNER, sub)
    return jwt_of(world, sub)


async def id_of(world: World, sub: str) -> str:
    async with world.database.read() as session:
        member = (await session.scalars(select(Member).where(Member.sub == sub))).one()
    return encode_id("Member", member.id)


async def keep_only(world: World, *subs: str) -> None:
    """Acme without the sandbox's own members."""
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(Member)
            .where(Member.account_id == account.id, Member.sub.not_in(subs))
            .values(removed_at=world.clock.now())
        )


async def invite(client: Client, world: World, token: str, role: str = "BILLING_ADMIN", **given: Any) -> dict[str, Any]:
    asked = {"accountId": await acme(world), "email": "bea@acme.test", "role": role, **given}
    data: Any = await client.data(token, INVITE, input=asked)
    assert data["inviteMember"]["userErrors"] == []
    made: dict[str, Any] = data["inviteMember"]["invite"]
    return made


async def link_of(world: World, id_: str) -> str:
    """What the mail's link ends with."""
    found = decode_id(id_)
    key = world.settings.link_secret
    assert found is not None
    assert key is not None
    async with world.database.read() as session:
        row = await session.get_one(Invite, found.uuid())
    return invitation_url("https://app.test", key.get_secret_value().encode(), row).rpartition("/")[2]


async def accept(client: Client, world: World, sub: str, token: str, **more: Any) -> dict[str, Any]:
    data: Any = await client.data(jwt_of(world, sub, **more), ACCEPT, link=token)
    answer: dict[str, Any] = data["acceptInvite"]
    return answer


async def code_of(client: Client, token: str, query: str, **variables: Any) -> str | None:
    """The code of what refuses a mutation, at the top or in its payload."""
    answer: Any = await client.ask(token, query, **variables)
    if "errors" in answer:
        return str(answer["errors"][0]["extensions"]["code"])
    (payload,) = answer["data"].values()
    return payload["userErrors"][0]["code"] if payload["userErrors"] else None


async def test_a_stranger_joins_by_the_link(client: Client, world: World) -> None:
    token = await owner(world)
    made = await invite(client, world, token, locale="de")
    assert (made["email"], made["role"], made["locale"]) == ("bea@acme.test", "BILLING_ADMIN", "de")
    bea = jwt_of(world, "bea", name="Bea Bauer")
    response = await client.http.post(
        "/graphql", json={"query": "{ viewer { kind } }"}, headers={"Authorization": f"Bearer {bea}"}
    )
    assert response.status_code == 401
    link = await link_of(world, made["id"])
    answer = await accept(client, world, "bea", link, name="Bea Bauer")
    assert answer["userErrors"] == []
    assert answer["account"]["id"] == await acme(world)
    joined = answer["member"]
    assert (joined["role"], joined["displayName"], joined["email"]) == ("BILLING_ADMIN", "Bea Bauer", "bea@acme.test")
    again = await accept(client, world, "bea", link)
    assert again["member"]["id"] == joined["id"]
    data: Any = await client.data(bea, LIST)
    assert joined["id"] in [row["id"] for row in data["billingAccount"]["members"]]
    assert data["billingAccount"]["invites"] == []
    account = await account_of(world)
    async with world.database.read() as session:
        entry = (await session.scalars(select(AuditEntry).where(AuditEntry.action == "member.joined"))).one()
        kinds = (
            await session.scalars(
                select(OutboxEvent.kind)
                .where(OutboxEvent.account_id == account.id, OutboxEvent.kind.startswith("member."))
                .order_by(OutboxEvent.sequence)
            )
        ).all()
    found = decode_id(joined["id"])
    assert found is not None
    assert entry.actor == f"member:{found.uuid()}"
    assert kinds == ["member.invited", "member.joined"]


@pytest.mark.parametrize(
    "query",
    [
        "{ __schema { types { name } } }",
        "{ plans { key } }",
        'query { viewer { kind } } mutation M { acceptInvite(input: { token: "x" }) { userErrors { code } } }',
        'mutation { acceptInvite(input: { token: "x" }) { userErrors { code } } archivePlan(input: {}) { key } }',
        'mutation { ...F } fragment F on Mutation { acceptInvite(input: { token: "x" }) { userErrors { code } } }',
        "{ acceptInvite }",
        "}",
    ],
)
async def test_a_stranger_asks_nothing_else(client: Client, world: World, query: str) -> None:
    response = await client.http.post(
        "/graphql", json={"query": query}, headers={"Authorization": f"Bearer {jwt_of(world, 'nobody')}"}
    )
    assert response.status_code == 401
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_link_that_is_not_good_tells_nothing(client: Client, world: World) -> None:
    token = await owner(world)
    made = await invite(client, world, token)
    old = await link_of(world, made["id"])
    assert await code_of(client, token, RESEND, id=made["id"]) is None
    new = await link_of(world, made["id"])
    assert old != new
    refused = [await accept(client, world, "bea", text) for text in ("", "x", old, new[:-1] + "!", "A" * 84)]
    world.clock.stands_at += LIFE
    refused.append(await accept(client, world, "bea", new))
    world.clock.stands_at -= LIFE
    assert await code_of(client, token, REVOKE, id=made["id"]) is None
    refused.append(await accept(client, world, "bea", new))
    assert {answer["userErrors"][0]["message"] for answer in refused} == {NO_INVITATION}
    assert {answer["userErrors"][0]["code"] for answer in refused} == {"NOT_FOUND"}
    assert await code_of(client, token, RESEND, id=made["id"]) == "NOT_FOUND"


async def test_one_invitation_is_for_one_person(client: Client, world: World) -> None:
    token = await owner(world)
    link = await link_of(world, (await invite(client, world, token))["id"])
    answers = await asyncio.gather(*(accept(client, world, sub, link) for sub in ("ann", "ben")))
    assert sorted(len(answer["userErrors"]) for answer in answers) == [0, 1]
    again = await link_of(world, (await invite(client, world, token, email="x@acme.test"))["id"])
    assert (await accept(client, world, "olivia", again))["userErrors"][0]["code"] == "CONFLICT"


async def test_who_was_removed_comes_back_by_an_invitation(client: Client, world: World) -> None:
    token = await owner(world)
    first = await accept(client, world, "bea", await link_of(world, (await invite(client, world, token))["id"]))
    assert await code_of(client, token, REMOVE, id=first["member"]["id"]) is None
    link = await link_of(world, (await invite(client, world, token, "MEMBER"))["id"])
    second = await accept(client, world, "bea", link)
    assert (second["member"]["id"], second["member"]["role"]) == (first["member"]["id"], "MEMBER")


async def test_who_may_decide_on_members(client: Client, world: World) -> None:
    admin_key = await make_member_key(world, "acme", [Scope.ADMIN])
    writing_key = await make_member_key(world, "acme", [Scope.BILLING_WRITE])
    await owner(world)
    await add_member(world, "acme", Role.BILLING_ADMIN, "bill")
    await add_member(world, "acme", Role.MEMBER, "mia")
    await add_member(world, "calder", Role.TENANT_OWNER, "carl")
    asked = {"accountId": await acme(world), "email": "new@acme.test", "role": "MEMBER"}
    mia = await id_of(world, "mia")
    expected = {
        jwt_of(world, "bill"): "FORBIDDEN",
        jwt_of(world, "mia"): "FORBIDDEN",
        jwt_of(world, "carl"): "NOT_FOUND",
        writing_key: "FORBIDDEN",
        admin_key: None,
        world.operator: "CONFLICT",
        jwt_of(world, "olivia"): "CONFLICT",
    }
    for token, code in expected.items():
        assert await code_of(client, token, INVITE, input=asked) == code
        changed = await code_of(client, token, SET_ROLE, id=mia, role="MEMBER")
        assert changed == (None if code == "CONFLICT" else code)
    assert await code_of(client, admin_key, ACCEPT, link="x") == "FORBIDDEN"
    assert await code_of(client, world.operator, ACCEPT, link="x") == "FORBIDDEN"


async def test_nobody_gives_a_role_to_oneself_and_an_owner_stays(client: Client, world: World) -> None:
    token = await owner(world)
    await keep_only(world, "olivia")
    own = await id_of(world, "olivia")
    for role in ("TENANT_OWNER", "MEMBER"):
        assert await code_of(client, token, SET_ROLE, id=own, role=role) == "FORBIDDEN"
    assert await code_of(client, world.operator, SET_ROLE, id=own, role="MEMBER") == "LAST_OWNER"
    assert await code_of(client, token, REMOVE, id=own) == "LAST_OWNER"
    assert await code_of(client, world.operator, REMOVE, id=own) == "LAST_OWNER"
    data: Any = await client.data(token, LIST)
    (member,) = data["billingAccount"]["members"]
    said = {item["action"]: item["reason"] for item in member["viewerCan"]}
    assert said == {"SET_MEMBER_ROLE": {"code": "FORBIDDEN"}, "REMOVE_MEMBER": {"code": "LAST_OWNER"}}
    assert await code_of(client, world.operator, SET_ROLE, id=own, role="OPERATOR") == "INVALID"


async def test_two_owners_who_demote_each_other_leave_one(client: Client, world: World) -> None:
    tokens = {"olivia": await owner(world), "oscar": await owner(world, "oscar")}
    await keep_only(world, *tokens)
    codes = await asyncio.gather(
        code_of(client, tokens["olivia"], SET_ROLE, id=await id_of(world, "oscar"), role="MEMBER"),
        code_of(client, tokens["oscar"], SET_ROLE, id=await id_of(world, "olivia"), role="MEMBER"),
    )
    assert sorted(map(str, codes)) in (["LAST_OWNER", "None"], ["FORBIDDEN", "None"])
    async with world.database.read() as session:
        members = (await session.scalars(select(Member).where(Member.sub.in_(tokens)))).all()
    assert sorted(member.role for member in members) == [Role.MEMBER, Role.TENANT_OWNER]


async def test_anybody_may_leave_but_no_key_for_them(client: Client, world: World) -> None:
    key = await make_member_key(world, "acme", [Scope.BILLING_READ])
    await owner(world)
    await add_member(world, "acme", Role.MEMBER, "mia")
    mia = await id_of(world, "mia")
    assert await code_of(client, key, REMOVE, id=mia) == "FORBIDDEN"
    assert await code_of(client, jwt_of(world, "mia"), REMOVE, id=mia) is None
    assert await code_of(client, jwt_of(world, "mia"), REMOVE, id=mia) == "UNAUTHENTICATED"


async def test_the_ownership_is_handed_over_in_two_steps(client: Client, world: World) -> None:
    token = await owner(world)
    await keep_only(world, "olivia")
    await add_member(world, "acme", Role.MEMBER, "mia")
    await add_member(world, "acme", Role.MEMBER, "max")
    account, mia, max_ = await acme(world), await id_of(world, "mia"), await id_of(world, "max")
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) == "INVALID_TRANSITION"
    assert await code_of(client, token, OFFER, account=account, member=await id_of(world, "olivia")) == "INVALID"
    assert await code_of(client, token, OFFER, account=account, member=max_) is None
    data: Any = await client.data(token, OFFER, account=account, member=mia)
    transfer = data["transferOwnership"]["transfer"]
    assert (transfer["offeredBy"]["id"], transfer["offeredTo"]["id"]) == (await id_of(world, "olivia"), mia)
    assert await code_of(client, jwt_of(world, "max"), OWN, account=account) == "INVALID_TRANSITION"
    assert await code_of(client, token, OFFER, account=account, member=None) is None
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) == "INVALID_TRANSITION"
    assert await code_of(client, token, OFFER, account=account, member=mia) is None
    world.clock.stands_at += LIFE
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) == "INVALID_TRANSITION"
    world.clock.stands_at -= LIFE
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) is None
    async with world.database.read() as session:
        roles = {
            member.sub: member.role
            for member in await session.scalars(select(Member).where(Member.sub.in_(["olivia", "mia", "max"])))
        }
    assert roles == {"olivia": Role.BILLING_ADMIN, "mia": Role.TENANT_OWNER, "max": Role.MEMBER}
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) == "INVALID_TRANSITION"


async def test_what_an_operator_arranges_takes_it_from_nobody(client: Client, world: World) -> None:
    await owner(world)
    await add_member(world, "acme", Role.BILLING_ADMIN, "bill")
    account = await acme(world)
    assert await code_of(client, world.operator, OFFER, account=account, member=await id_of(world, "bill")) is None
    assert await code_of(client, jwt_of(world, "bill"), OWN, account=account) is None
    async with world.database.read() as session:
        rows = await session.scalars(select(Member).where(Member.sub.in_(["olivia", "bill"])))
        assert {row.role for row in rows} == {Role.TENANT_OWNER}


async def test_invitations_are_bounded_and_each_address_has_one(client: Client, world: World) -> None:
    token = await owner(world)
    await invite(client, world, token)
    asked = {"accountId": await acme(world), "email": "BEA@acme.test", "role": "MEMBER"}
    assert await code_of(client, token, INVITE, input=asked) == "CONFLICT"
    world.clock.stands_at += LIFE
    # It ran out: another takes its place.
    token = jwt_of(world, "olivia", exp=int(world.clock.now().timestamp()) + 10**9)
    await invite(client, world, token, "MEMBER")
    for number in range(MAX_OPEN - 1):
        await invite(client, world, token, email=f"n{number}@acme.test")
    assert await code_of(client, token, INVITE, input={**asked, "email": "more@acme.test"}) == "CONFLICT"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"email": "a@x.test\r\nBcc: b@x.test"}, "email"),
        ({"role": "OPERATOR"}, "role"),
        ({"locale": "english"}, "locale"),
    ],
)
async def test_what_is_wrong_is_told(client: Client, world: World, given: dict[str, Any], field: str) -> None:
    asked = {"accountId": await acme(world), "email": "bea@acme.test", "role": "MEMBER", **given}
    answer: Any = await client.ask(world.operator, INVITE, input=asked)
    if "errors" in answer:  # the scalar refused it already
        assert field == "email"
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
        return
    (error,) = answer["data"]["inviteMember"]["userErrors"]
    assert error["field"] == ["input", field]


async def test_in_a_suspension_nobody_is_invited_but_anybody_removed(client: Client, world: World) -> None:
    token = await owner(world)
    await add_member(world, "acme", Role.MEMBER, "mia")
    made = await invite(client, world, token)
    await change_account(world, "acme", closed_at=world.clock.now())
    asked = {"accountId": await acme(world), "email": "new@acme.test", "role": "MEMBER"}
    assert await code_of(client, token, INVITE, input=asked) is not None
    assert await code_of(client, token, REVOKE, id=made["id"]) is None
    assert await code_of(client, token, REMOVE, id=await id_of(world, "mia")) is None


def test_the_rights_are_those_of_the_table() -> None:
    """Who may, as the rules say it: operators alone, with the billing, with the ownership, everybody."""
    o, t, b, m = Role.OPERATOR, Role.TENANT_OWNER, Role.BILLING_ADMIN, Role.MEMBER
    assert {
        Right.OPERATE: {o},
        Right.INGEST_USAGE: {o},
        Right.CORRECT_USAGE: {o},
        Right.READ_BILLING: {o, t, b},
        Right.MANAGE_BILLING: {o, t, b},
        Right.MANAGE_KEYS: {o, t, b},
        Right.ADMINISTER: {o, t},
        Right.READ_USAGE: {o, t, b, m},
        Right.SIGNED_IN: {o, t, b, m},
        Right.JOIN: set(),
    } == ROLES_BY_RIGHT


async def joined(client: Client, world: World, sub: str, token: str, role: str, email: str = "") -> str:
    """The JWT of somebody who came by an invitation."""
    made = await invite(client, world, token, role, email=email or f"{sub}@acme.test")
    assert (await accept(client, world, sub, await link_of(world, made["id"])))["userErrors"] == []
    return jwt_of(world, sub)


async def test_who_comes_back_finds_no_key_of_theirs(client: Client, world: World) -> None:
    token = await owner(world)
    bea = await joined(client, world, "bea", token, "BILLING_ADMIN")
    made: Any = await client.data(
        bea,
        """mutation($id: ID!) { createApiKey(input: { accountIds: [$id], name: "Bea's", scopes: ["billing:read"] }) {
          token userErrors { message } } }""",
        id=await acme(world),
    )
    key = made["createApiKey"]["token"]
    assert await code_of(client, token, REMOVE, id=await id_of(world, "bea")) is None
    await joined(client, world, "bea", token, "BILLING_ADMIN")
    answer: Any = await client.ask(key, "{ viewer { kind } }")
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("ending", ["removed", "demoted", "handed over"])
async def test_an_owner_who_is_none_any_more_leaves_no_way_back(client: Client, world: World, ending: str) -> None:
    token = await owner(world)
    other = await joined(client, world, "ottilie", token, "TENANT_OWNER")
    # A member of another account as well: the log may know them by that one.
    await add_member(world, "birchwood", Role.MEMBER, "ottilie")
    planted = await invite(client, world, other, "TENANT_OWNER", email="second@acme.test")
    kept = await invite(client, world, token, "MEMBER", email="third@acme.test")
    link = await link_of(world, planted["id"])
    await keep_only(world, "olivia", "ottilie")
    account, ottilie = await acme(world), (await ids_in(world, "ottilie"))["acme"]
    if ending == "removed":
        assert await code_of(client, token, REMOVE, id=ottilie) is None
    elif ending == "demoted":
        assert await code_of(client, token, SET_ROLE, id=ottilie, role="MEMBER") is None
    else:
        await add_member(world, "acme", Role.MEMBER, "mia")
        assert await code_of(client, other, OFFER, account=account, member=await id_of(world, "mia")) is None
        assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) is None
    assert (await accept(client, world, "third-life", link))["userErrors"][0]["message"] == NO_INVITATION
    data: Any = await client.data(token, LIST)
    assert [row["id"] for row in data["billingAccount"]["invites"]] == [kept["id"]]


async def ids_in(world: World, sub: str) -> dict[str, str]:
    """A person's ids as a member, by account."""
    async with world.database.read() as session:
        rows = await session.execute(
            select(BillingAccount.external_id, Member.id)
            .join(Member, Member.account_id == BillingAccount.id)
            .where(Member.sub == sub)
        )
        return {external: encode_id("Member", id_) for external, id_ in rows}


async def test_an_offer_ends_with_who_made_it(client: Client, world: World) -> None:
    token = await owner(world)
    oscar = await owner(world, "oscar")
    await add_member(world, "acme", Role.MEMBER, "mia")
    account, mia = await acme(world), await id_of(world, "mia")
    assert await code_of(client, oscar, OFFER, account=account, member=mia) is None
    assert await code_of(client, token, SET_ROLE, id=await id_of(world, "oscar"), role="MEMBER") is None
    assert await code_of(client, token, SET_ROLE, id=await id_of(world, "oscar"), role="TENANT_OWNER") is None
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) == "INVALID_TRANSITION"
    assert await code_of(client, oscar, OFFER, account=account, member=mia) is None
    assert await code_of(client, token, SET_ROLE, id=mia, role="TENANT_OWNER") is None
    assert await code_of(client, jwt_of(world, "mia"), OWN, account=account) == "INVALID_TRANSITION"


ACTS: dict[str, Callable[[Work, Principal, Member, Invite], Awaitable[object]]] = {
    "invite": lambda work, who, member, _: invites.invite_member(
        work, who, member.account_id, email="z@acme.test", role=Role.TENANT_OWNER, locale=None
    ),
    "resend": lambda work, who, _, invite: invites.resend_invite(work, who, invite),
    "revoke": lambda work, who, _, invite: invites.revoke_invite(work, who, invite),
    "set a role": lambda work, who, member, _: members.set_member_role(work, who, member, Role.MEMBER),
    "remove": lambda work, who, member, _: members.remove_member(work, who, member),
    "offer": lambda work, who, member, _: members.offer_ownership(work, who, member.account_id, member.id),
}


@pytest.mark.parametrize("act", ACTS)
async def test_who_was_demoted_meanwhile_decides_nothing(client: Client, world: World, act: str) -> None:
    """The right is asked for before the account is locked: what somebody was then may be over by then."""
    token = await owner(world)
    made = await invite(client, world, token)
    await owner(world, "oscar")
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        rows = {
            row.sub: row for row in await work.session.scalars(select(Member).where(Member.account_id == account.id))
        }
        found = decode_id(made["id"])
        assert found is not None
        row = await work.session.get_one(Invite, found.uuid())
        rows["oscar"].role = Role.MEMBER
    who = Principal(
        kind=PrincipalKind.MEMBER,
        id=f"member:{rows['oscar'].id}",
        display_name="Oscar",
        roles={account.id: Role.TENANT_OWNER},
        members={account.id: rows["oscar"].id},
    )
    with pytest.raises(Forbidden, match="has changed at this moment"):
        async with world.database.work(ACTOR) as work:
            await ACTS[act](work, who, rows["olivia"], row)


async def test_nobody_joins_an_account_that_is_suspended_or_full(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await owner(world)
    links = [
        await link_of(world, (await invite(client, world, token, email=f"{name}@acme.test"))["id"])
        for name in ("ann", "ben")
    ]
    await change_subscription(world, "acme", status=SubscriptionStatus.SUSPENDED, suspended_at=world.clock.now())
    (refused,) = (await accept(client, world, "ann", links[0]))["userErrors"]
    assert (refused["code"], refused["field"]) == ("ACCOUNT_SUSPENDED", ["input", "token"])
    await change_subscription(world, "acme", status=SubscriptionStatus.ACTIVE, suspended_at=None)
    await keep_only(world, "olivia")
    monkeypatch.setattr(invites, "MAX_MEMBERS", 2)
    assert (await accept(client, world, "ann", links[0]))["userErrors"] == []
    (full,) = (await accept(client, world, "ben", links[1]))["userErrors"]
    assert (full["code"], full["field"]) == ("CONFLICT", ["input", "token"])


async def test_a_contact_is_removed_once_and_said_so_again(client: Client, world: World) -> None:
    token, account = await owner(world), await acme(world)
    made: Any = await client.data(
        token,
        """mutation($id: ID!) { addContact(input: { accountId: $id, name: "Ada", email: "ada@acme.test", topics: [] }) {
          contact { id } } }""",
        id=account,
    )
    id_ = made["addContact"]["contact"]["id"]
    remove = """mutation($id: ID!, $key: String) { removeContact(input: { contactId: $id, idempotencyKey: $key }) {
      removedId userErrors { code field } } }"""
    await add_member(world, "calder", Role.TENANT_OWNER, "carl")
    assert await code_of(client, jwt_of(world, "carl"), remove, id=id_) == "NOT_FOUND"
    first = await client.data(token, remove, id=id_, key="k")
    assert first == {"removeContact": {"removedId": id_, "userErrors": []}}
    assert await client.data(token, remove, id=id_, key="k") == first
    assert await code_of(client, token, remove, id=id_, key="other") == "NOT_FOUND"
