"""Streams that are shared: one reader, one execution and one answer for many, and never an answer for the wrong one."""

import dataclasses
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import anyio
import jwt
import pytest
from sqlalchemy import select, update

from plafond.http.lines import Asked, name_cursor, share_key
from plafond.models import Alert, ApiKey, Member, Role
from plafond.models.types import new_id
from plafond.resolvers.context import Context
from plafond.schema import billing as shown
from plafond.schema.node import encode_id
from plafond.services.access import Person, Principal, PrincipalKind, Scope
from plafond.services.changes import ChangeKind, Following, read_stretch
from plafond.services.cursors import decode_change, encode_change
from plafond.services.keys import revoke_key
from plafond.services.tokens import create_key

from ..conftest import Client, World
from .test_jwt import add_member, claims, secret_of
from .test_sockets import (
    ACTOR,
    CHANGES,
    RAISED,
    Socket,
    account_of,
    buy_users,
    connect,
    cursor_of,
    id_of,
    listeners,
    maker_of,
    readers,
    record,
    until,
)

MONEY = """subscription($id: ID!, $after: String) { accountChanged(accountId: $id, after: $after, kinds: [USAGE]) {
  kind account { name invoices(first: 1) { nodes { number } } } } }"""


async def join(stack: AsyncExitStack, world: World, token: str, query: str = CHANGES, tenant: str = "acme") -> Socket:
    """A socket whose stream has caught up."""
    before = readers(world)
    socket = await stack.enter_async_context(connect(world))
    await socket.init(token)
    after = await cursor_of(world, tenant)
    await socket.subscribe("s", query, id=await id_of(world, tenant), after=after)
    await until(lambda: readers(world) == before + 1)
    return socket


async def cursors_of_money(world: World, account_id: UUID) -> list[str]:
    """The cursors of an account's transactions, as a stream tells them."""
    async with world.database.read() as session:
        stretch = await read_stretch(session, account_id, 0, {ChangeKind.TRANSACTION})
    return [change.cursor(account_id) for change in stretch.changes]


async def test_many_readers_cost_one_reader_s_statements(world: World) -> None:
    account = await account_of(world, "acme")
    counts = []
    for number in (1, 12):
        async with AsyncExitStack() as stack:
            sockets = [await join(stack, world, world.operator) for _ in range(number)]
            await until(lambda: listeners(world, account.id) == 1)
            await record(world, "acme", f"d{number}", quantity=1)
            for socket in sockets:
                await socket.next()
            # What the first reads of the shared stream cost is past.
            world.statements.clear()
            await record(world, "acme", f"e{number}", quantity=1)
            answers = [await socket.next() for socket in sockets]
            assert all(answer == answers[0] for answer in answers)
            counts.append(len(world.statements))
        await until(lambda: listeners(world, account.id) == 0)
    assert counts[0] == counts[1]


async def test_keys_of_many_are_checked_by_one_statement(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        member = (await work.session.scalars(select(Member).where(Member.role == Role.TENANT_OWNER))).first()
        assert member is not None
        account_id = member.account_id
        keys = [
            create_key(work, world.settings.environment, name=str(number), maker=member, scopes=[Scope.BILLING_READ])
            for number in range(20)
        ]
    async with AsyncExitStack() as stack:
        query = "subscription($id: ID!) { usageChanged(accountId: $id) { used } }"
        sockets = []
        for key in keys:
            socket = await stack.enter_async_context(connect(world))
            await socket.init(key.token)
            await socket.subscribe("s", query, id=encode_id("BillingAccount", account_id))
            sockets.append(socket)
        await until(lambda: readers(world) == 20)
        await until(lambda: listeners(world, account_id) == 1)  # keys that may see the same share
        world.statements.clear()
        async with world.database.work(ACTOR) as work:
            await revoke_key(work, keys[7].row.prefix)
        assert await sockets[7].end() == ["UNAUTHENTICATED"]
        assert sum("FROM api_key LEFT OUTER JOIN" in statement for statement in world.statements) == 1
        for socket in sockets[:7] + sockets[8:]:
            await socket.check_alive()
        assert readers(world) == 19


async def test_who_may_see_more_is_told_more_and_nobody_else(world: World) -> None:
    """A member and an owner ask the same: money is in the answer of one only."""
    account = await account_of(world, "acme")
    async with AsyncExitStack() as stack:
        owner = await join(stack, world, world.token("Acme", Role.TENANT_OWNER), MONEY)
        member = await join(stack, world, world.token("Acme", Role.MEMBER), MONEY)
        await until(lambda: listeners(world, account.id) == 2)
        await record(world, "acme", "one", quantity=1)
        assert (await owner.next())["account"]["invoices"]["nodes"]
        message = await member.receive()
        assert [error["extensions"]["code"] for error in message["payload"]["errors"]] == ["FORBIDDEN"]
        assert not (message["payload"]["data"]["accountChanged"]["account"] or {}).get("invoices")


async def test_a_reader_whose_role_changes_moves_to_those_who_may_see_the_same(world: World) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    async with AsyncExitStack() as stack:
        one = await join(stack, world, token, MONEY)
        async with world.database.work(ACTOR) as work:  # without a word to anyone
            await work.session.execute(update(Member).where(Member.id == maker_of(token)).values(role=Role.MEMBER))
        await record(world, "acme", "one", quantity=1)
        message = await one.receive()
        assert [error["extensions"]["code"] for error in message["payload"]["errors"]] == ["FORBIDDEN"]


PEOPLE = """subscription($id: ID!, $after: String) { accountChanged(accountId: $id, after: $after, kinds: [MEMBER]) {
  account { members { displayName role viewerCan { action allowed } } } } }"""
REMOVE = "mutation($id: ID!) { removeMember(input: { memberId: $id }) { userErrors { code } } }"


async def test_two_owners_ask_the_same_and_each_is_told_of_themselves(world: World, client: Client) -> None:
    """What somebody may do with a member depends on who they are: no shared answer says it of another."""
    account = await account_of(world, "acme")
    names = ("anna", "bert")
    for sub in names:
        await add_member(world, "acme", Role.TENANT_OWNER, sub)
    tokens = {sub: jwt.encode(claims(sub=sub), secret_of(world), "HS256") for sub in names}
    async with world.database.work(ACTOR) as work:
        rows = await work.session.scalars(select(Member).where(Member.account_id == account.id))
        by_sub = {row.sub: row for row in rows}
        for sub in names:
            by_sub[sub].display_name = sub
    async with AsyncExitStack() as stack:
        sockets = {sub: await join(stack, world, tokens[sub], PEOPLE) for sub in names}
        await until(lambda: listeners(world, account.id) == 2)
        gone = encode_id("Member", by_sub["acme-member"].id)
        answer = await client.data(tokens["anna"], REMOVE, id=gone)
        assert answer == {"removeMember": {"userErrors": []}}
        for sub, socket in sockets.items():
            shown = {row["displayName"]: row["viewerCan"] for row in (await socket.next())["account"]["members"]}
            own = {item["action"]: item["allowed"] for item in shown[sub]}
            other = {item["action"]: item["allowed"] for item in shown[names[sub == names[0]]]}
            assert own == {"SET_MEMBER_ROLE": False, "REMOVE_MEMBER": True}
            assert other == {"SET_MEMBER_ROLE": True, "REMOVE_MEMBER": True}


async def test_the_stream_of_who_is_removed_ends_within_a_second(world: World, client: Client) -> None:
    for sub in ("anna", "bert"):
        await add_member(world, "acme", Role.TENANT_OWNER, sub)
    tokens = {sub: jwt.encode(claims(sub=sub), secret_of(world), "HS256") for sub in ("anna", "bert")}
    async with world.database.read() as session:
        bert = (await session.scalars(select(Member).where(Member.sub == "bert"))).one()
    async with AsyncExitStack() as stack:
        left = await join(stack, world, tokens["bert"], PEOPLE)
        stays = await join(stack, world, tokens["anna"], PEOPLE)
        begun = time.monotonic()
        await client.data(tokens["anna"], REMOVE, id=encode_id("Member", bert.id))
        assert await left.end() == ["UNAUTHENTICATED"]
        assert time.monotonic() - begun < 1
        assert (await stays.next())["account"]["members"]


async def test_each_resumes_at_its_own_place_and_all_go_on_together(world: World) -> None:
    account = await account_of(world, "acme")
    id_, first = encode_id("BillingAccount", account.id), account.sequence
    for quantity in (1, 2):
        await buy_users(world, "acme", quantity)
    last = (await account_of(world, "acme")).sequence
    async with AsyncExitStack() as stack:
        sockets = []
        for place in range(first, last + 1):
            socket = await stack.enter_async_context(connect(world))
            await socket.init(world.operator)
            await socket.subscribe("s", CHANGES, id=id_, after=encode_change(account.id, place), kinds=["TRANSACTION"])
            sockets.append(socket)
        await until(lambda: readers(world) == len(sockets))
        await until(lambda: listeners(world, account.id) == 1)
        await buy_users(world, "acme", 3)
        seen = [[await socket.next()] for socket in sockets]
        end = (await cursors_of_money(world, account.id))[-1]
        for socket, found in zip(sockets, seen, strict=True):
            while found[-1]["cursor"] != end:
                found.append(await socket.next())
            await socket.check_alive()
        places = [decode_change(account.id, change["cursor"]) for change in seen[0]]
        for begin, found in zip(range(first, last + 1), seen, strict=True):
            told = [decode_change(account.id, change["cursor"]) for change in found]
            assert told == [place for place in places if place > begin]


async def test_a_jwt_that_runs_out_ends_its_stream_within_a_second(world: World) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    token = jwt.encode(claims(exp=int(time.time()) + 3), secret_of(world), "HS256")
    async with AsyncExitStack() as stack:
        socket = await join(stack, world, token)
        with anyio.fail_after(4):
            assert await socket.end() == ["UNAUTHENTICATED"]
        assert readers(world) == 0


async def test_a_key_that_runs_out_ends_its_stream(world: World) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    async with world.database.work(ACTOR) as work:
        expires_at = world.clock.now() + timedelta(seconds=1.5)
        await work.session.execute(
            update(ApiKey).where(ApiKey.prefix == token.rpartition("_")[0]).values(expires_at=expires_at)
        )
    async with AsyncExitStack() as stack:
        socket = await join(stack, world, token)
        with anyio.fail_after(2.5):
            assert await socket.end() == ["UNAUTHENTICATED"]


async def test_a_shared_stream_that_fails_is_taken_up_by_its_readers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        sockets = [await join(stack, world, world.operator, RAISED, "birchwood") for _ in range(2)]
        calls: list[UUID] = []
        show = shown.Alert.of

        def fail_once(row: Alert) -> shown.Alert:
            calls.append(row.id)
            if len(calls) == 1:
                raise RuntimeError("for once")
            return show(row)

        monkeypatch.setattr(shown.Alert, "of", fail_once)
        await record(world, "birchwood", "one", quantity=500)
        assert [(await socket.next())["threshold"] for socket in sockets] == [80, 80]
        await until(lambda: readers(world) == 2)


def reader(**changes: object) -> Following:
    account_id = new_id()
    principal = Principal(kind=PrincipalKind.MEMBER, id="a", display_name="A", roles={account_id: Role.MEMBER})
    found = dataclasses.replace(principal, **changes) if changes else principal  # type: ignore[arg-type]
    return Following(account_id=account_id, reader=found.within(account_id))


def test_the_key_of_sharing_holds_all_that_an_answer_depends_on() -> None:
    asked = Asked("subscription($a: ID!) { alertRaised(accountId: $a) { id } }", {"a": "1"}, None)
    following = reader()
    assert following.account_id is not None
    key = share_key(asked, following)
    people = [
        dataclasses.replace(following, account_id=new_id()),
        *(
            dataclasses.replace(following, reader=dataclasses.replace(following.reader, **changes))  # type: ignore[type-var]
            for changes in (
                {"roles": {following.account_id: Role.TENANT_OWNER}},
                {"is_operator": True},
                {"scopes": frozenset({Scope.BILLING_READ})},
                {"kind": PrincipalKind.API_KEY},
                {"ingests": frozenset({following.account_id})},
                {"members": {following.account_id: new_id()}},
            )
        ),
    ]
    questions = [
        dataclasses.replace(asked, query=asked.query + " "),
        dataclasses.replace(asked, variables={"a": 1}),
        dataclasses.replace(asked, operation_name="x"),
    ]
    assert all(share_key(asked, other) != key for other in people)
    assert all(share_key(other, following) != key for other in questions[:2])
    # A reader is known by what it is in the account, and as which member: nothing else of the person can get into an
    # answer.
    assert following.reader is not None
    assert (following.reader.id, following.reader.display_name) == ("", "")
    elsewhere, person = {new_id(): new_id()}, Person("iss", "sub", "name")
    whoever = reader(members=elsewhere, operator_id=new_id(), key_id=new_id(), person=person).reader
    assert whoever is not None
    assert (whoever.members, whoever.operator_id, whoever.key_id, whoever.person) == ({}, None, None, None)
    assert {field.name for field in dataclasses.fields(Principal)} == {
        "kind", "id", "display_name", "is_operator", "roles", "scopes", "ingests", "members", "operator_id", "key_id",
        "person",
    }, "what is new must be in `standing`, or emptied by `within`"  # fmt: skip
    assert {field.name for field in dataclasses.fields(Context)} == {
        # The same for all operations of a process:
        "database", "bus", "settings", "signing_keys", "processor", "link_key", "uses", "hooks",
        # Never in an answer, or made anew for the shared stream:
        "origin", "request_id", "token", "caller", "connection_params", "extensions", "load", "following",
        # Of queries and mutations only:
        "batch", "may_lag",
    }, "what an answer may depend on must be in `share_key`"  # fmt: skip


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("subscription($a: String) { alertRaised(accountId: 1, after: $a) { id } }", "a"),
        ("subscription($a: String) { x: alertRaised(accountId: 1, after: $a) { id } }", "a"),
        ("subscription($a: String) { alertRaised(accountId: $a, after: $a) { id } }", None),
        ('subscription { alertRaised(accountId: 1, after: "x") { id } }', None),
        ("subscription { alertRaised(accountId: 1) { id } }", None),
        ("subscription($a: String) { ...F } fragment F on Subscription { alertRaised(accountId: 1, after: $a) { id } }",
         None),
    ],
)  # fmt: skip
def test_only_a_cursor_that_nothing_else_depends_on_is_left_out_of_the_key(query: str, name: str | None) -> None:
    assert name_cursor(query, None) == name
