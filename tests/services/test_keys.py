"""API keys: never more than their maker may, two secrets for a while, ended at once; and what they leave behind."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from plafond.database import ACCESS_TOPIC, Database
from plafond.models import (
    ApiKey,
    ApiKeyAccount,
    AuditEntry,
    BillingAccount,
    FieldUse,
    Member,
    Operator,
    OutboxEvent,
    Role,
)
from plafond.services.access import Principal, PrincipalKind, Right, Scope
from plafond.services.errors import BillingError, ErrorCode, RequestRefused, list_refusals
from plafond.services.keys import (
    MAX_LIVE,
    MAX_SHOWN,
    KeyInput,
    KeyStatus,
    check_rotatable,
    create_key_as,
    list_operators_keys,
    load_keys,
    may_see,
    revoke_key,
    revoke_key_as,
    revoked_for,
    rotate_key_as,
    status_of,
)
from plafond.services.tokens import Secret, authenticate, check_again, draw_next, draw_secret, prove
from plafond.services.uses import ONE_IN, Coordinates, Uses, list_field_usage
from plafond.settings import Environment

from ..conftest import NOW, World
from .helpers import ACTOR, account_of

DAY = timedelta(days=1)


@pytest.fixture
async def other(world: World) -> AsyncGenerator[Database]:
    """Another process at the same database."""
    database = Database(world.settings.database_url, world.clock, lambda _: None)
    yield database
    await database.close()


async def person(world: World, role: Role, *tenants: str) -> Principal:
    """Who signs in as the seeded member with a role in each of these accounts."""
    async with world.database.read() as session:
        rows = (
            await session.scalars(
                select(Member)
                .join(BillingAccount, BillingAccount.id == Member.account_id)
                .where(BillingAccount.external_id.in_(tenants), Member.role == role)
            )
        ).all()
    assert len(rows) == len(tenants)
    return Principal(
        kind=PrincipalKind.MEMBER,
        id=f"member:{rows[0].id}",
        display_name="Person",
        roles={row.account_id: row.role for row in rows},
        members={row.account_id: row.id for row in rows},
    )


async def operator(world: World) -> Principal:
    async with world.database.read() as session:
        row = (await session.scalars(select(Operator))).one()
    return Principal(
        kind=PrincipalKind.OPERATOR,
        id=f"operator:{row.id}",
        display_name="Operator",
        is_operator=True,
        operator_id=row.id,
    )


def asked(*ids: UUID, scopes: tuple[str, ...] = ("billing:read",), **given: Any) -> KeyInput:
    return KeyInput(**{"name": "Test", "scopes": scopes, "account_ids": ids or None} | given)


async def make(world: World, principal: Principal, given: KeyInput, database: Database | None = None) -> Secret:
    drawn = draw_secret(Environment.SANDBOX)
    async with (database or world.database).work(ACTOR) as work:
        await create_key_as(work, principal, drawn, given)
    return drawn


async def refusals(world: World, principal: Principal, given: KeyInput) -> list[tuple[str, str, str]]:
    with pytest.raises(BillingError) as refused:
        await make(world, principal, given)
    return [(str(one.code), ".".join(one.field), str(one)) for one in list_refusals(refused.value)]


async def shown(
    world: World, drawn: Secret | str, peer: str = "192.0.2.7", database: Database | None = None
) -> Principal:
    token = drawn if isinstance(drawn, str) else drawn.token
    return await authenticate(database or world.database, world.settings, None, token, peer)


async def words(world: World, drawn: Secret | str, peer: str = "192.0.2.7") -> str:
    with pytest.raises(RequestRefused) as refused:
        await shown(world, drawn, peer)
    assert refused.value.code is ErrorCode.UNAUTHENTICATED
    return str(refused.value)


async def key_of(world: World, drawn: Secret) -> ApiKey:
    async with world.database.read() as session:
        return (await session.scalars(select(ApiKey).where(ApiKey.prefix == drawn.prefix))).one()


async def openings_of(world: World, row: ApiKey) -> list[ApiKeyAccount]:
    async with world.database.read() as session:
        chosen = select(ApiKeyAccount).where(ApiKeyAccount.api_key_id == row.id).order_by(ApiKeyAccount.account_id)
        return list(await session.scalars(chosen))


async def rotate(
    world: World, principal: Principal, drawn: Secret, overlap: timedelta = DAY, database: Database | None = None
) -> Secret:
    row, new = await key_of(world, drawn), draw_next(drawn.prefix)
    async with (database or world.database).work(ACTOR) as work:
        await rotate_key_as(work, principal, row.id, new, overlap)
    return new


async def told(world: World, action: str) -> list[tuple[str, str]]:
    """The accounts that an event of this kind, and an audit row, tell of."""
    async with world.database.read() as session:
        names = {row.id: row.external_id for row in await session.scalars(select(BillingAccount))}
        events = await session.scalars(select(OutboxEvent.account_id).where(OutboxEvent.kind == action))
        entries = await session.scalars(select(AuditEntry.account_id).where(AuditEntry.action == action))
        heard, noted = sorted(names[id_] for id_ in events), sorted(names[id_] for id_ in entries if id_)
    return list(zip(heard, noted, strict=True))


# What a key may


async def test_a_key_of_several_accounts_is_in_each_what_its_maker_is_there_now(world: World) -> None:
    ana = await person(world, Role.TENANT_OWNER, "acme", "birchwood", "calder")
    acme, birchwood, calder = [(await account_of(world, name)).id for name in ("acme", "birchwood", "calder")]
    drawn = await make(world, ana, asked(acme, birchwood, scopes=("billing:write",)))
    principal = await shown(world, drawn)
    assert principal.roles == {acme: Role.TENANT_OWNER, birchwood: Role.TENANT_OWNER}
    assert principal.role_in(calder) is None
    assert await told(world, "api_key.created") == [("acme", "acme"), ("birchwood", "birchwood")]

    async with world.database.work(ACTOR) as work:
        changed = update(Member).where(Member.id == ana.members[acme])
        await work.session.execute(changed.values(role=Role.MEMBER))
    principal = await shown(world, drawn)
    assert (principal.may(Right.MANAGE_BILLING, acme), principal.may(Right.MANAGE_BILLING, birchwood)) == (False, True)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Member).where(Member.id == ana.members[acme]).values(removed_at=NOW))
    assert (await shown(world, drawn)).roles == {birchwood: Role.TENANT_OWNER}
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Member).where(Member.id == ana.members[birchwood]).values(removed_at=NOW))
    assert "has no access any more" in await words(world, drawn)


async def test_proving_a_key_of_many_accounts_is_one_statement(world: World) -> None:
    ana = await person(world, Role.TENANT_OWNER, "acme", "birchwood", "calder")
    one = await make(world, ana, asked(next(iter(ana.roles))))
    three = await make(world, ana, asked(*ana.roles))
    for drawn in (one, three):
        world.statements.clear()
        await shown(world, drawn)
        assert len(world.statements) == 1
    world.statements.clear()
    tokens = {drawn.token: await prove(world.database, world.settings, None, drawn.token) for drawn in (one, three)}
    world.statements.clear()
    assert len(await check_again(world.database, world.settings, tokens)) == 2
    assert len(world.statements) == 1


async def test_an_operators_key_opens_all_or_those_named(world: World) -> None:
    olga = await operator(world)
    acme, birchwood = [(await account_of(world, name)).id for name in ("acme", "birchwood")]
    everything = await shown(world, await make(world, olga, asked(scopes=("admin",))))
    assert (everything.is_operator, everything.roles) == (True, {})
    assert everything.may(Right.OPERATE, birchwood)
    one = await shown(world, await make(world, olga, asked(acme, scopes=("admin",))))
    assert (one.is_operator, one.roles) == (False, {acme: Role.OPERATOR})
    assert not one.may(Right.READ_USAGE, birchwood)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Operator).values(removed_at=NOW))
    assert "has no access any more" in await words(world, world.operator)


async def test_scopes_beyond_the_makers_are_refused_by_name(world: World) -> None:
    acme = (await account_of(world)).id
    owner = await person(world, Role.TENANT_OWNER, "acme")
    member = await person(world, Role.MEMBER, "acme")
    [(code, field, _)] = await refusals(world, member, asked(acme))
    assert (code, field) == ("FORBIDDEN", "input.accountIds.0")

    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(keys_may_ingest=False))
    [(code, field, said)] = await refusals(world, owner, asked(acme, scopes=("billing:read", "usage:write")))
    assert (code, field) == ("FORBIDDEN", "input.scopes.1")
    assert "usage:write" in said
    assert "acme" in said
    # An operator's own key may, whatever the switch says.
    assert (await shown(world, await make(world, await operator(world), asked(acme, scopes=("usage:write",))))).may(
        Right.INGEST_USAGE, acme
    )
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(keys_may_ingest=True))
    sender = await make(world, owner, asked(acme, scopes=("usage:write",)))
    principal = await shown(world, sender)
    assert (principal.may(Right.INGEST_USAGE, acme), principal.may(Right.CORRECT_USAGE, acme)) == (True, False)
    # Switched off again, the key that was made stops at once.
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(keys_may_ingest=False))
    assert not (await shown(world, sender)).may(Right.INGEST_USAGE, acme)


@pytest.mark.parametrize(
    ("held", "wanted", "is_made"),
    [
        ({Scope.ADMIN}, Scope.ADMIN, True),
        ({Scope.ADMIN}, Scope.BILLING_READ, True),
        ({Scope.ADMIN}, Scope.BILLING_WRITE, True),
        ({Scope.ADMIN}, Scope.USAGE_WRITE, False),
        ({Scope.ADMIN, Scope.USAGE_WRITE}, Scope.USAGE_WRITE, True),
        ({Scope.BILLING_WRITE}, Scope.BILLING_WRITE, False),
        ({Scope.BILLING_READ, Scope.USAGE_WRITE}, Scope.BILLING_READ, False),
    ],
)
async def test_a_key_makes_keys_with_its_own_scopes_only(
    world: World, held: set[Scope], wanted: Scope, *, is_made: bool
) -> None:
    acme = (await account_of(world)).id
    owner = await person(world, Role.TENANT_OWNER, "acme")
    first = await shown(world, await make(world, owner, asked(acme, scopes=tuple(held))))
    given = asked(acme, scopes=(wanted,))
    if is_made:
        second = await shown(world, await make(world, first, given))
        assert second.members == first.members == owner.members
        return
    [(code, _, said)] = await refusals(world, first, given)
    assert code == "FORBIDDEN"
    assert wanted in said or "needs admin" in said


async def test_a_key_opens_no_account_that_its_maker_does_not(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme, birchwood = [(await account_of(world, name)).id for name in ("acme", "birchwood")]
    unknown = UUID(int=7)
    found = [await refusals(world, owner, asked(acme, id_)) for id_ in (birchwood, unknown)]
    assert found[0] == found[1]
    assert [(code, field) for code, field, _ in found[0]] == [("NOT_FOUND", "input.accountIds.1")]
    [(code, field, _)] = await refusals(world, owner, asked())
    assert (code, field) == ("INVALID", "input.accountIds")
    one_account = await shown(world, await make(world, await operator(world), asked(acme, scopes=("admin",))))
    assert [(code, field) for code, field, _ in await refusals(world, one_account, asked())] == [
        ("INVALID", "input.accountIds")
    ]


async def test_what_is_wrong_is_told_at_once(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme = (await account_of(world)).id
    given = asked(
        acme,
        name=" ",
        scopes=("billing:reads", "billing:read", "plf_test_" + "0" * 61),
        networks=["10.0.0.0/8", "300.1.1.1", "10.0.0.0/33", "2001:db8::/129", "example.com", "", "1" * 100],
        expires_at=NOW,
    )
    found = await refusals(world, owner, given)
    places = [field for _, field, _ in found]
    assert places == [
        "input.name",
        "input.scopes.0",
        "input.scopes.2",
        *(f"input.networks.{index}" for index in range(1, 7)),
        "input.expiresAt",
    ]
    said = " ".join(text for _, _, text in found)
    assert "'billing:reads' is no scope: there are admin, billing:read, billing:write, usage:write." in said
    assert "plf_test_0" not in said
    for expires_at, is_good in ((NOW + timedelta(seconds=1), True), (NOW + timedelta(days=1_900), False)):
        if is_good:
            await make(world, owner, asked(acme, expires_at=expires_at))
        else:
            assert "five years" in (await refusals(world, owner, asked(acme, expires_at=expires_at)))[0][2]
    assert [field for _, field, _ in await refusals(world, owner, asked(acme, scopes=()))] == ["input.scopes"]
    many = [f"10.{number}.0.0/16" for number in range(21)]
    assert [field for _, field, _ in await refusals(world, owner, asked(acme, networks=many))] == ["input.networks"]
    assert [field for _, field, _ in await refusals(world, owner, asked(*[acme] * 51))] == ["input.accountIds"]


# From where


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        (["192.0.2.0/24"], ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.9"], ["192.0.3.0", "::1", "unknown", ""]),
        (["192.0.2.77/24"], ["192.0.2.1"], ["192.0.1.1"]),
        (["203.0.113.5"], ["203.0.113.5"], ["203.0.113.4", "203.0.113.6"]),
        (["2001:DB8::/32"], ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::1", "192.0.2.1"]),
        (["::ffff:10.0.0.0/104"], ["10.9.9.9", "::ffff:10.1.1.1"], ["11.0.0.1"]),
        (["10.0.0.0/8", "fe80::/10"], ["10.1.1.1", "fe80::1%eth0"], ["fec0::1"]),
        ([], ["192.0.2.1", "unknown", ""], []),
    ],
)
async def test_a_key_is_taken_from_its_networks_only(
    world: World, networks: list[str], inside: list[str], outside: list[str]
) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    drawn = await make(world, owner, asked((await account_of(world)).id, networks=networks))
    for peer in inside:
        assert (await shown(world, drawn, peer)).key_id is not None, peer
    for peer in outside:
        said = await words(world, drawn, peer)
        assert not any(network.split("/", maxsplit=1)[0] in said for network in networks)
    # Whoever has not the secret is not told that there are networks.
    wrong = Secret(drawn.prefix, "0" * 48)
    if outside:
        assert await words(world, wrong, outside[0]) == await words(world, wrong, inside[0])


async def test_networks_are_kept_in_one_spelling_and_once(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    given = ["10.1.2.3/8", " 10.0.0.0/8 ", "::ffff:10.0.0.0/104", "2001:0DB8::1"]
    drawn = await make(world, owner, asked((await account_of(world)).id, networks=given))
    assert (await key_of(world, drawn)).networks == ["10.0.0.0/8", "2001:db8::1/128"]


# Exchanging


async def test_the_present_secret_is_good_until_the_overlap_ends(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    first = await make(world, owner, asked((await account_of(world)).id))
    assert (await prove(world.database, world.settings, None, first.token)).lasts_s is None
    second = await rotate(world, owner, first, timedelta(hours=2))
    assert second.prefix == first.prefix
    proof = await prove(world.database, world.settings, None, first.token)
    assert proof.lasts_s == 7_200
    assert (await prove(world.database, world.settings, None, second.token)).lasts_s is None
    world.clock.stands_at = NOW + timedelta(hours=2)
    assert "exchanged for a new one" in await words(world, first)
    assert (await check_again(world.database, world.settings, {first.token: proof}))[first.token].__class__ is (
        RequestRefused
    )
    await shown(world, second)
    assert await told(world, "api_key.rotated") == [("acme", "acme")]


async def test_rotating_again_ends_the_older_secret_and_no_overlap_ends_the_present_one(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    first = await make(world, owner, asked((await account_of(world)).id))
    second = await rotate(world, owner, first)
    third = await rotate(world, owner, second)
    assert await words(world, first) == "There is no such API key."
    await shown(world, second)
    fourth = await rotate(world, owner, third, timedelta())
    for ended in (second, third):
        assert await words(world, ended) == "There is no such API key."
    await shown(world, fourth)


async def test_an_expiry_within_the_overlap_counts(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    given = asked((await account_of(world)).id, expires_at=NOW + timedelta(minutes=1))
    first = await make(world, owner, given)
    second = await rotate(world, owner, first)
    for drawn in (first, second):
        proof = await prove(world.database, world.settings, None, drawn.token)
        assert (proof.lasts_s, proof.last_words) == (60, "This API key has expired: make a new one.")
    world.clock.stands_at = NOW + timedelta(minutes=1)
    with pytest.raises(BillingError, match="expired"):
        await rotate(world, owner, second)


async def test_two_rotations_at_once_leave_two_good_secrets(world: World, other: Database) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    first = await make(world, owner, asked((await account_of(world)).id))
    databases = [world.database, other, world.database, other]
    drawn = await asyncio.gather(*(rotate(world, owner, first, DAY, database) for database in databases))
    good = []
    for each in (first, *drawn):
        with anyio.fail_after(10):
            try:
                await shown(world, each)
                good.append(each)
            except RequestRefused:
                continue
    row = await key_of(world, first)
    assert {each.hash for each in good} == {row.secret_hash, row.previous_hash}
    assert len(good) == 2
    assert len(await told(world, "api_key.rotated")) == 4


async def test_a_rotation_and_a_revocation_at_once_leave_nothing(world: World, other: Database) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    first = await make(world, owner, asked((await account_of(world)).id))
    row = await key_of(world, first)

    async def revoke() -> None:
        async with other.work(ACTOR) as work:
            await revoke_key_as(work, owner, row.id)

    results = await asyncio.gather(rotate(world, owner, first), revoke(), return_exceptions=True)
    assert results[1] is None
    assert isinstance(results[0], Secret) or "revoked" in str(results[0])
    for drawn in (first, results[0]):
        if isinstance(drawn, Secret):
            assert "revoked" in await words(world, drawn) or await words(world, drawn) == "There is no such API key."


async def test_whoever_gets_a_new_secret_may_do_as_much_already(world: World) -> None:
    """An owner's key is not handed to a billing admin, nor one of two accounts to who has one of them."""
    acme, birchwood = [(await account_of(world, name)).id for name in ("acme", "birchwood")]
    owner = await person(world, Role.TENANT_OWNER, "acme")
    admin = await person(world, Role.BILLING_ADMIN, "acme")
    both = await person(world, Role.TENANT_OWNER, "acme", "birchwood")
    olga = await operator(world)
    owners = await make(world, owner, asked(acme, scopes=("admin",)))
    admins = await make(world, admin, asked(acme, scopes=("admin",)))
    of_both = await make(world, both, asked(acme, birchwood))
    operators = await make(world, olga, asked(acme))
    of_all = await make(world, olga, asked())
    may = {
        "owner": [owner, owners, admins],
        "admin": [admin, admins],
        "both": [both, owners, admins, of_both],
        "operator": [olga, owners, admins, of_both, operators, of_all],
    }
    for who, (principal, *mine) in may.items():
        assert isinstance(principal, Principal)
        for drawn in (owners, admins, of_both, operators, of_all):
            row = await key_of(world, drawn)
            openings = await openings_of(world, row)
            if drawn in mine:
                check_rotatable(principal, row, openings, NOW)
            elif not may_see(principal, row, openings):
                with pytest.raises(BillingError, match="There is no such API key"):
                    await rotate(world, principal, drawn)
            else:
                with pytest.raises(BillingError) as refused:
                    await rotate(world, principal, drawn)
                assert refused.value.code == "FORBIDDEN", (who, drawn)
    scoped = await shown(world, owners)
    sender = await make(world, owner, asked(acme, scopes=("usage:write",)))
    with pytest.raises(BillingError, match="scope that your own API key does not hold"):
        await rotate(world, scoped, sender)
    await rotate(world, scoped, admins)


# Ending


async def test_revoking_ends_both_secrets_and_is_told_once(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    first = await make(world, owner, asked((await account_of(world)).id))
    second = await rotate(world, owner, first)
    row = await key_of(world, first)
    for _ in range(2):
        async with world.database.work(ACTOR) as work:
            await revoke_key_as(work, owner, row.id)
            assert ACCESS_TOPIC in work.topics
    for drawn in (first, second):
        assert await words(world, drawn) == "This API key was revoked: make a new one."
    assert await told(world, "api_key.revoked") == [("acme", "acme")]
    with pytest.raises(BillingError, match="was revoked"):
        await rotate(world, owner, second)


async def test_an_account_ends_a_key_for_itself_alone(world: World) -> None:
    """Of a key that opens another's account too, that account's part is not somebody else's to end."""
    acme, birchwood = [(await account_of(world, name)).id for name in ("acme", "birchwood")]
    both = await person(world, Role.TENANT_OWNER, "acme", "birchwood")
    admin = await person(world, Role.BILLING_ADMIN, "acme")
    drawn = await make(world, both, asked(acme, birchwood))
    row = await key_of(world, drawn)
    for _ in range(2):
        async with world.database.work(ACTOR) as work:
            await revoke_key_as(work, admin, row.id)
    assert (await shown(world, drawn)).roles == {birchwood: Role.TENANT_OWNER}
    assert await told(world, "api_key.revoked") == [("acme", "acme")]
    openings = await openings_of(world, row)
    row = await key_of(world, drawn)
    assert status_of(row, revoked_for(admin, row, openings), NOW) is KeyStatus.REVOKED
    assert status_of(row, revoked_for(both, row, openings), NOW) is KeyStatus.ACTIVE
    async with world.database.work(ACTOR) as work:
        await revoke_key_as(work, await person(world, Role.TENANT_OWNER, "birchwood"), row.id)
    assert "revoked" in await words(world, drawn)
    assert await told(world, "api_key.revoked") == [("acme", "acme"), ("birchwood", "birchwood")]


async def test_a_tenant_does_not_end_the_key_that_meters_it(world: World) -> None:
    acme = (await account_of(world)).id
    drawn = await make(world, await operator(world), asked(acme, scopes=("usage:write",)))
    row = await key_of(world, drawn)
    with pytest.raises(BillingError, match="An operator made it") as refused:
        async with world.database.work(ACTOR) as work:
            await revoke_key_as(work, await person(world, Role.TENANT_OWNER, "acme"), row.id)
    assert refused.value.code == "FORBIDDEN"
    await shown(world, drawn)


async def test_a_key_that_is_revoked_while_it_is_used_opens_nothing_afterwards(world: World, other: Database) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    drawn = await make(world, owner, asked((await account_of(world)).id))
    answers: list[bool] = []
    is_revoked = False
    used, ended = anyio.Event(), anyio.Event()

    async def use() -> None:
        while not answers or answers[-1]:
            was_revoked = is_revoked
            try:
                await shown(world, drawn)
                assert not was_revoked, "it was revoked before it was shown"
                answers.append(True)
            except RequestRefused:
                answers.append(False)
            used.set()
        ended.set()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(use)
            await used.wait()
            async with other.work(ACTOR) as work:
                await revoke_key(work, drawn.prefix)
            is_revoked = True
            await ended.wait()
    assert answers[0]
    assert "revoked" in await words(world, drawn)


# How many


async def test_fifty_living_keys_are_enough_for_an_account(world: World, other: Database) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme = (await account_of(world)).id
    async with world.database.read() as session:
        counted = select(func.count()).select_from(ApiKeyAccount).where(ApiKeyAccount.account_id == acme)
        there = await session.scalar(counted) or 0
    made = [await make(world, owner, asked(acme)) for _ in range(MAX_LIVE - there - 1)]
    tried = await asyncio.gather(
        *(make(world, owner, asked(acme), database) for database in (world.database, other, world.database, other)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Secret) for each in tried) == 1
    assert {str(each) for each in tried if not isinstance(each, Secret)} == {
        f"acme has {MAX_LIVE} keys: revoke one that nobody uses first, by `lastUsedAt`."
    }
    async with world.database.work(ACTOR) as work:
        await revoke_key(work, made[0].prefix)
    await make(world, owner, asked(acme))


async def test_lists_show_the_living_first_and_are_bounded(world: World) -> None:
    owner = await person(world, Role.TENANT_OWNER, "acme")
    acme, birchwood = [(await account_of(world, name)).id for name in ("acme", "birchwood")]
    kept = await make(world, owner, asked(acme, name="Kept"))
    for number in range(MAX_SHOWN):
        world.clock.stands_at = NOW + timedelta(minutes=number + 1)
        drawn = await make(world, owner, asked(acme, name=str(number)))
        async with world.database.work(ACTOR) as work:
            await revoke_key(work, drawn.prefix)
    world.statements.clear()
    async with world.database.read() as session:
        mine, theirs = await load_keys(session, [acme, birchwood], world.clock.now())
    assert len(world.statements) == 1
    assert mine[0].prefix == kept.prefix
    assert len(mine) == MAX_SHOWN
    living = [row for row in mine if row.revoked_at is None]
    assert mine[: len(living)] == living
    ended = [row.name for row in mine[len(living) :]]
    assert ended == [str(MAX_SHOWN - 1 - number) for number in range(len(ended))]
    assert len(theirs) == 3
    olga = await operator(world)
    everywhere = await make(world, olga, asked(name="All"))
    async with world.database.read() as session:
        rows = await list_operators_keys(session, world.clock.now())
    assert [row.name for row in rows] == ["All", "Sandbox operator"]
    assert rows[0].prefix == everywhere.prefix


# What is left behind


async def test_when_a_key_was_shown_is_written_beside_the_requests(world: World, other: Database) -> None:
    uses, elsewhere = Uses(), Uses()
    owner = await person(world, Role.TENANT_OWNER, "acme")
    drawn = [await make(world, owner, asked((await account_of(world)).id)) for _ in range(3)]
    rows = [await key_of(world, each) for each in drawn]
    for minute in range(3):
        uses.note_key(rows[0].id, NOW + timedelta(minutes=minute))
    uses.note_key(rows[1].id, NOW)
    elsewhere.note_key(rows[0].id, NOW + timedelta(minutes=1))
    world.statements.clear()
    await uses.write(world.database)
    assert sum("api_key" in statement for statement in world.statements) == 1
    await elsewhere.write(other)
    times = [(await key_of(world, each)).last_used_at for each in drawn]
    assert times == [NOW + timedelta(minutes=2), NOW, None], "a process that is behind does not turn it back"
    assert (await key_of(world, drawn[0])).updated_at == NOW
    world.statements.clear()
    await uses.write(world.database)
    assert world.statements == []


async def test_fields_are_counted_by_sample_and_deprecated_ones_each_time(world: World, other: Database) -> None:
    drawn = iter([0.0, 0.99, 1 / ONE_IN, 1 / ONE_IN - 0.001])
    uses = Uses(draw=lambda: next(drawn))
    fields = Coordinates(("Query.viewer", "Viewer.kind"), ("Viewer.old",))
    for _ in range(4):
        uses.note_fields("api_key:1", fields, NOW)
    elsewhere = Uses(draw=lambda: 0.0)
    elsewhere.note_fields("api_key:1", fields, NOW)
    elsewhere.note_fields("member:2", fields, NOW - DAY)
    await asyncio.gather(uses.write(world.database), elsewhere.write(other))
    async with world.database.read() as session:
        rows = (await session.scalars(select(FieldUse))).all()
        everything = await list_field_usage(session, coordinates=None, prefix="", since=date(2026, 1, 1), limit=500)
        recent = await list_field_usage(
            session, coordinates=["Viewer.old"], prefix="Viewer.", since=NOW.date(), limit=500
        )
    counts = {(row.principal, row.coordinate, row.day): row.count for row in rows}
    assert counts == {
        ("api_key:1", "Query.viewer", NOW.date()): 3 * ONE_IN,
        ("api_key:1", "Viewer.kind", NOW.date()): 3 * ONE_IN,
        ("api_key:1", "Viewer.old", NOW.date()): 5,
        ("member:2", "Query.viewer", date(2026, 11, 24)): ONE_IN,
        ("member:2", "Viewer.kind", date(2026, 11, 24)): ONE_IN,
        ("member:2", "Viewer.old", date(2026, 11, 24)): 1,
    }
    assert [usage.count for usage in everything] == [48, 48, 16, 16, 5, 1]
    assert [(usage.principal, usage.count, usage.last_day) for usage in recent] == [("api_key:1", 5, NOW.date())]


async def test_what_cannot_be_written_is_kept_and_no_more_than_fits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plafond.services.uses.MAX_COUNTS", 3)
    monkeypatch.setattr("plafond.services.uses.MAX_KEYS", 2)
    uses = Uses(draw=lambda: 0.0)
    owner = await person(world, Role.TENANT_OWNER, "acme")
    rows = [await key_of(world, await make(world, owner, asked((await account_of(world)).id))) for _ in range(3)]
    for row in rows:
        uses.note_key(row.id, NOW)
    uses.note_fields("api_key:1", Coordinates(("A.a", "A.b", "A.c", "A.d")), NOW)

    async def fail(*_: object, **__: object) -> None:
        raise OperationalError("", None, Exception("away"))

    with monkeypatch.context() as away:
        away.setattr(world.database, "run", fail)
        for _ in range(3):
            with pytest.raises(OperationalError):
                await uses.write(world.database)
    uses.note_fields("api_key:1", Coordinates(("A.a", "A.e")), NOW)
    await uses.write(world.database)
    async with world.database.read() as session:
        counts = {row.coordinate: row.count for row in await session.scalars(select(FieldUse))}
        written = await session.scalar(select(func.count()).where(ApiKey.last_used_at.is_not(None)))
    assert counts == {"A.a": 2 * ONE_IN, "A.b": ONE_IN, "A.c": ONE_IN}
    assert written == 2
