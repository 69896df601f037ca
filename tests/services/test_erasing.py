"""Erasing a person: nowhere does their address stand afterwards, but on documents that the law has kept."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import LargeBinary, String, cast, func, select, update

from plafond.models import (
    ApiKey,
    ApiKeyAccount,
    AuditEntry,
    Base,
    Company,
    Contact,
    DeliveryStatus,
    IdempotencyKey,
    Interval,
    Invite,
    Invoice,
    MailKind,
    MailMessage,
    MailStatus,
    Member,
    NoticeSeverity,
    OutboxEvent,
    OwnershipTransfer,
    Role,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from plafond.services import decisions
from plafond.services.access import Scope
from plafond.services.auditing import audit
from plafond.services.erasing import (
    FROZEN,
    NOT_SEARCHED,
    WITH_WAYS_OF_THEIR_OWN,
    Erasure,
    Named,
    TraceKind,
    erase_person,
    list_searched,
    list_words,
)
from plafond.services.errors import InvalidInput, NotFound
from plafond.services.notices import raise_notice
from plafond.services.tokens import create_key
from plafond.settings import Environment

from ..conftest import NOW, World
from .engine import open_account, open_till, order
from .helpers import ACTOR

ADA = "ada.lovelace@person.example"
NOT_ADA = "the-ada.lovelace@person.example"
ISSUER = "https://issuer.test"


async def erase(world: World, **named: Any) -> Erasure:
    return await world.database.run(ACTOR, erase_person, Named(**named))


async def check_audit(world: World) -> None:
    async with world.database.read() as session:
        assert await audit(session, world.clock.stands_at) == []


async def find_everywhere(world: World, text: str) -> set[str]:
    """The columns of the whole database that hold a text, in whatever case."""
    found = set()
    async with world.database.read() as session:
        for table in Base.metadata.sorted_tables:
            for column in table.c:
                if isinstance(column.type, LargeBinary):
                    continue
                held = func.lower(cast(column, String)).contains(text, autoescape=True)
                if await session.scalar(select(func.count()).select_from(table).where(held)):
                    found.add(f"{table.name}.{column.name}")
    return found


async def make_traces(world: World, account_id: UUID) -> dict[str, UUID]:
    """Ada everywhere where a person may stand, in differing case; and somebody whose address ends like hers."""
    async with world.database.work(ACTOR) as work:
        session = work.session
        account = (await work.lock_accounts([account_id]))[account_id]
        owner = Member(
            created_at=NOW,
            account_id=account_id,
            iss=ISSUER,
            sub="ada",
            display_name="Ada Lovelace",
            email=ADA,
            locale="en",
            role=Role.TENANT_OWNER,
        )
        other = Member(
            created_at=NOW, account_id=account_id, iss=ISSUER, sub="bob", display_name="Bob", role=Role.BILLING_ADMIN
        )
        contacts = [
            Contact(
                created_at=NOW,
                account_id=account_id,
                name=name,
                email=email,
                email_key=email.lower(),
                topics=[],
                is_primary=is_primary,
            )
            for name, email, is_primary in (
                ("Ada Lovelace", ADA.upper(), True),
                ("Not Ada", NOT_ADA, False),
                ("Later", "later@x.org", False),
            )
        ]
        endpoint = WebhookEndpoint(
            created_at=NOW,
            account_id=account_id,
            url=f"https://x.org/?to={ADA}",
            event_kinds=[],
            secret="s",  # no secret
            created_by="t",
        )
        session.add_all([owner, other, *contacts, endpoint])
        await session.flush()
        create_key(work, Environment.SANDBOX, name=f"of {ADA}", maker=owner, scopes=[Scope.BILLING_READ])
        delivery = WebhookDelivery(
            created_at=NOW,
            account_id=account_id,
            endpoint_id=endpoint.id,
            event_id=uuid4(),
            kind="member.added",
            body=f'{{"to":"{ADA}","cc":"{NOT_ADA}"}}',
            status=DeliveryStatus.PENDING,
            next_try_at=NOW,
            give_up_at=NOW,
        )
        session.add(delivery)
        await session.flush()
        company = (await session.scalars(select(Company).where(Company.account_id == account_id))).one()
        company.email = ADA
        account.pairs = {"boss": ADA}
        session.add_all(
            [
                WebhookAttempt(
                    delivery_id=delivery.id, number=1, account_id=account_id, at=NOW, duration_ms=1, answer=f"no {ADA}"
                ),
                Invite(
                    created_at=NOW,
                    account_id=account_id,
                    email=ADA,
                    email_key=ADA,
                    role=Role.MEMBER,
                    invited_by="t",
                    expires_at=NOW,
                    member_id=owner.id,
                ),
                OwnershipTransfer(
                    created_at=NOW,
                    account_id=account_id,
                    from_member_id=other.id,
                    to_member_id=owner.id,
                    expires_at=NOW,
                ),
                IdempotencyKey(
                    principal="t",
                    mutation="inviteMember",
                    scope="",
                    key=f"invite-{NOT_ADA}",
                    input_hash="",
                    answer={"email": ADA},
                    created_at=NOW,
                ),
                IdempotencyKey(
                    principal="t",
                    mutation="inviteMember",
                    scope="",
                    key=f"invite {ADA}",
                    input_hash="",
                    answer={},
                    created_at=NOW,
                ),
                *(
                    MailMessage(
                        created_at=NOW,
                        account_id=account_id,
                        kind=MailKind.INVITATION,
                        key=f"{status}:{ADA}",
                        contact_id=contacts[0].id,
                        recipient=ADA,
                        locale="en",
                        params={"name": "Ada Lovelace"},
                        status=status,
                        due_at=NOW,
                        recipient_name="Ada Lovelace",
                        sent_at=NOW if status is MailStatus.SENT else None,
                    )
                    for status in (MailStatus.PENDING, MailStatus.SENT)
                ),
            ]
        )
        work.audit(account, "member.invited", f"member:{owner.id}", after={"displayName": "Ada Lovelace"})
        work.audit(account, "note.made", "somewhere", before={"by": [ADA]}, after={"deep": {"to": f"<{ADA}>"}})
        work.audit(account, "note.made", "elsewhere", after={"to": NOT_ADA})
        work.emit(account, "member.added", {"memberId": str(owner.id), "email": ADA})
        await raise_notice(
            work, account, "EXPORT_FAILED", severity=NoticeSeverity.INFO, params={"export": f"for {ADA.upper()}"}
        )
        return {"member": owner.id, "contact": contacts[0].id, "other": contacts[2].id, "account": account_id}


async def test_nowhere_but_on_documents_a_person_is_named_afterwards(world: World) -> None:
    till = open_till(world.database)
    account_id = await open_account(till, "ada", None)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Company).where(Company.account_id == account_id).values(email=ADA))
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    ids = await make_traces(world, account_id)
    before = await find_everywhere(world, ADA)
    frozen = {"document.content", "invoice.bill_to"}
    assert before >= {"contact.email_key", "audit_entry.after", "webhook_delivery.body", "document.content"}
    erasure = await erase(world, email=ADA.title())
    other = {"contact.email", "contact.email_key", "audit_entry.after", "webhook_delivery.body", "idempotency_key.key"}
    assert await find_everywhere(world, ADA) - await find_everywhere(world, NOT_ADA) <= frozen
    assert await find_everywhere(world, NOT_ADA) == other
    assert "Ada Lovelace".lower() not in str(await people_of(world, account_id)).lower()
    assert erasure.ownerless == [account_id]
    assert erasure.kept.keys() <= {TraceKind.DOCUMENT, TraceKind.INVOICE}
    assert {kind: erasure.erased[kind] for kind in sorted(erasure.erased)} == {
        TraceKind.AUDIT_ENTRY: 2,
        TraceKind.COMPANY: 1,
        TraceKind.CONTACT: 1,
        TraceKind.EVENT: 1,
        TraceKind.INVITE: 1,
        TraceKind.MAIL: 2,
        TraceKind.MEMBER: 1,
        TraceKind.NOTICE: 1,
        TraceKind.TEXT: 4,
        TraceKind.WEBHOOK: 3,
    }
    async with world.database.read() as session:
        contacts = (await session.scalars(select(Contact).where(Contact.account_id == account_id))).all()
        assert sorted((row.name, row.is_primary) for row in contacts) == [("Later", False), ("Not Ada", True)]
        mails = (await session.scalars(select(MailMessage).where(MailMessage.account_id == account_id))).all()
        assert sorted((row.status, row.recipient, row.params) for row in mails) == [
            (MailStatus.DROPPED, "", {}),
            (MailStatus.SENT, "", {}),
        ]
        key = (
            await session.scalars(select(ApiKey).join(ApiKeyAccount).where(ApiKeyAccount.member_id == ids["member"]))
        ).one()
        assert key.revoked_at is not None
        transfer = (await session.scalars(select(OwnershipTransfer))).one()
        assert transfer.withdrawn_at is not None
        entry = (await session.scalars(select(AuditEntry).where(AuditEntry.action == "person.erased"))).one()
        assert entry.after["erased"]["CONTACT"] == 1
        invoice = (await session.scalars(select(Invoice).where(Invoice.account_id == account_id))).one()
        assert invoice.total_minor > 0
        kinds = (
            await session.scalars(
                select(OutboxEvent.kind)
                .where(OutboxEvent.account_id == account_id)
                .order_by(OutboxEvent.sequence.desc())
            )
        ).all()
        assert kinds[:2] == ["account.updated", "member.removed"]
    await check_audit(world)
    # Once more there is nothing to do.
    again = await erase(world, email=ADA)
    assert (again.erased, again.ownerless, again.kept) == ({}, [], erasure.kept)


async def people_of(world: World, account_id: UUID) -> list[Any]:
    """What the tables of people, and those that tell of them, hold by now."""
    async with world.database.read() as session:
        found: list[Any] = []
        for table in (Contact, Member, Invite, MailMessage, AuditEntry, OutboxEvent):
            rows = await session.execute(select(*list_words(table.__table__)).where(table.account_id == account_id))
            found += [tuple(row) for row in rows]
        return found


async def test_a_person_is_found_in_every_account(world: World) -> None:
    """By what signs them in and by the address they are known under elsewhere."""
    till = open_till(world.database)
    ids = [await open_account(till, name, None) for name in ("first", "second", "third", "fourth")]
    async with world.database.work(ACTOR) as work:
        people = [
            Member(
                created_at=NOW,
                account_id=account_id,
                iss=ISSUER,
                sub=sub,
                display_name="A",
                email=email,
                role=Role.MEMBER,
            )
            for account_id, sub, email in (
                (ids[0], "a1", None),
                (ids[1], "a1", "a@work.example"),
                (ids[2], "a2", "A@work.example"),
                (ids[3], "b", "b@work.example"),
            )
        ]
        work.session.add_all(people)
    assert (await erase(world, member_id=people[0].id)).erased == {TraceKind.MEMBER: 3}
    async with world.database.read() as session:
        rows = (await session.scalars(select(Member).where(Member.id.in_([row.id for row in people])))).all()
    left = {row.account_id: (row.iss, row.removed_at is None) for row in rows}
    assert left == {**dict.fromkeys(ids[:3], ("erased", False)), ids[3]: (ISSUER, True)}
    assert len({row.sub for row in rows}) == 4
    with pytest.raises(NotFound, match="erased already"):
        await erase(world, member_id=people[0].id)
    await check_audit(world)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({}, InvalidInput, "by one of"),
        ({"email": "a@x.org", "member_id": uuid4()}, InvalidInput, "by one of"),
        ({"email": "a@x.org\nbcc: b@x.org"}, InvalidInput, "control characters"),
        ({"email": "nobody"}, InvalidInput, "one address"),
        ({"member_id": uuid4()}, NotFound, "no such member"),
        ({"contact_id": uuid4()}, NotFound, "no such contact"),
    ],
)
async def test_who_is_not_named_well_is_not_erased(
    world: World, named: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await erase(world, **named)


def test_every_table_with_words_is_looked_through_or_says_why_not() -> None:
    searched = {table.name for table in list_searched()}
    named = searched | NOT_SEARCHED.keys() | WITH_WAYS_OF_THEIR_OWN
    assert not searched & NOT_SEARCHED.keys()
    without_words = {name for name, table in Base.metadata.tables.items() if not list_words(table)}
    assert set(Base.metadata.tables) == named | without_words
    assert set(Base.metadata.tables) >= FROZEN


async def test_as_many_statements_for_one_trace_as_for_many(world: World) -> None:
    till = open_till(world.database)

    async def measure(name: str, invites: int) -> int:
        account_id = await open_account(till, name, None)
        async with world.database.work(ACTOR) as work:
            account = (await work.lock_accounts([account_id]))[account_id]
            work.session.add_all(
                Invite(
                    created_at=NOW,
                    account_id=account_id,
                    email=f"{name}@x.org",
                    email_key=f"{name}@x.org",
                    role=Role.MEMBER,
                    invited_by="t",
                    expires_at=NOW,
                    revoked_at=NOW,
                )
                for _ in range(invites)
            )
            for _ in range(invites):
                work.audit(account, "invite.made", "invite", after={"email": f"{name}@x.org"})
        world.statements.clear()
        await erase(world, email=f"{name}@x.org")
        return len(world.statements)

    assert await measure("few", 1) == await measure("many", 7) <= 160
