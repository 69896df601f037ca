"""What is kept how long: the table of periods, the years of books, purges of all else, and holds on them."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from plafond.database import Database
from plafond.models import (
    AuditEntry,
    Base,
    BillingAccount,
    ChangeAct,
    Contact,
    DeliveryStatus,
    Deployment,
    Document,
    DueWork,
    Export,
    ExportFormat,
    ExportKind,
    ExportPart,
    ExportStatus,
    FieldUse,
    Granularity,
    IdempotencyKey,
    Interval,
    Invite,
    Invoice,
    LedgerEntry,
    MailKind,
    MailMessage,
    MailStatus,
    Member,
    OutboxEvent,
    OwnershipTransfer,
    ProcessorEvent,
    Quote,
    Reservation,
    ReservationStatus,
    Role,
    UsageEvent,
    UsagePeriod,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WorkKind,
)
from plafond.models.types import first_id_at
from plafond.services import decisions, keeping
from plafond.services.accounts import select_accounts
from plafond.services.auditing import audit
from plafond.services.changes import read_head
from plafond.services.due_work import VAIN, enqueue
from plafond.services.erasing import Named, TraceKind, erase_person
from plafond.services.errors import Conflict
from plafond.services.holds import set_legal_hold
from plafond.services.idempotency import KEPT as IDEMPOTENCY_KEY
from plafond.services.papers import Paper
from plafond.services.partitions import count_old, let_go
from plafond.services.publishing import number_waiting
from plafond.services.purging import PURGES, preview, purge, purge_all, purge_old
from plafond.services.test_clocks import advance_clock
from plafond.services.tills import Till

from ..conftest import NOW, World
from .engine import cancel_now, open_account, open_clock, open_till, order
from .helpers import ACTOR, account_of

NUMBERS = itertools.count(1)
KEEP_USAGE = timedelta(days=400)
MOMENT = timedelta(microseconds=1)
NEW_YEAR_2034 = datetime(2033, 12, 31, 23, 0, tzinfo=UTC)
"""In Vienna, where the sandbox's issuer is."""


# The table


def test_every_table_is_kept_by_one_line() -> None:
    listed = [name for kept in keeping.KEPT for name in kept.names]
    assert sorted(listed) == sorted(Base.metadata.tables)


def test_the_guide_prints_the_table() -> None:
    assert keeping.render_periods() in Path("docs/retention.md").read_text()


def test_what_goes_by_itself_has_a_purge() -> None:
    own = {name for kept in keeping.KEPT if kept.fate is keeping.Fate.OWN for name in kept.names}
    purged = {str(each.table.__tablename__) for each in PURGES} | {
        str(each.parts.table.name) for each in PURGES if each.parts is not None
    }
    # Events have their order, and raw usage its months.
    assert own == purged | {"outbox_event", "usage_event", "usage_event_id"}
    held = {name for kept in keeping.KEPT if kept.is_held for name in kept.names}
    for each in PURGES:
        assert (each.table.__tablename__ in held) == each.is_held, each.table


# Books


async def begin_2026(till: Till, *names: str) -> tuple[UUID, list[UUID]]:
    """Accounts that buy on January 2nd of 2026, and leave at once."""
    clock_id = await open_clock(till, datetime(2026, 1, 2, 9, 0, tzinfo=UTC))
    ids = [await open_account(till, name, clock_id, country="AT", currency="EUR") for name in names]
    for account_id in ids:
        await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
        await cancel_now(till, account_id, prorated=False)
    return clock_id, ids


async def go_to(till: Till, clock_id: UUID, until: datetime) -> None:
    """As far as it is allowed at a time."""
    for year in range(2027, until.year + 1, 1):
        await advance_clock(till, clock_id, min(until, datetime(year, 6, 1, tzinfo=UTC)))
    await advance_clock(till, clock_id, until)


async def count(database: Database, table: type[Base], *where: Any) -> int:
    async with database.read() as session:
        return int(await session.scalar(select(func.count()).select_from(table).where(*where)) or 0)


async def books_of(world: World, account_id: UUID) -> tuple[int, int, int]:
    return (
        await count(world.database, Invoice, Invoice.account_id == account_id),
        await count(world.database, Document, Document.account_id == account_id),
        await count(world.database, LedgerEntry, LedgerEntry.account_id == account_id),
    )


async def check_audit(world: World) -> None:
    async with world.database.read() as session:
        assert await audit(session, world.clock.stands_at) == []


async def one_account(world: World, account_id: UUID) -> BillingAccount:
    async with world.database.read() as session:
        return (await session.scalars(select_accounts().where(BillingAccount.id == account_id))).one()


async def hold(world: World, account_id: UUID, reason: str | None) -> None:
    async with world.database.work(ACTOR) as work:
        await set_legal_hold(work, account_id, reason)


async def test_seven_years_count_from_the_end_of_the_calendar_year(world: World) -> None:
    """Hard case 32: issued 2026-01-02, not purged before 2034-01-01; a hold blocks; erasing a person keeps it."""
    till = open_till(world.database)
    clock_id, (free, held) = await begin_2026(till, "free", "held")
    async with world.database.work(ACTOR) as work:
        contact = Contact(
            created_at=NOW,
            account_id=free,
            name="Ada Lovelace",
            email="ada@person.example",
            email_key="ada@person.example",
            topics=[],
            is_primary=True,
        )
        work.session.add(contact)
        document = (await work.session.scalars(select(Document).where(Document.account_id == free).limit(1))).one()
        before = (document.content, document.content_hash)
    async with world.database.work(ACTOR) as work:
        erasure = await erase_person(work, Named(contact_id=contact.id))
    assert erasure.erased[TraceKind.CONTACT] == 1
    async with world.database.read() as session:
        after = await session.get_one(Document, document.id)
        assert (after.content, after.content_hash) == before
        assert Paper.model_validate(after.content).digest() == after.content_hash
    await hold(world, held, "a dispute before the court of Graz")
    kept = {account_id: await books_of(world, account_id) for account_id in (free, held)}
    assert all(min(counts) > 0 for counts in kept.values())
    await go_to(till, clock_id, NEW_YEAR_2034 - timedelta(seconds=1))
    assert {account_id: await books_of(world, account_id) for account_id in (free, held)} == kept
    await check_audit(world)
    await advance_clock(till, clock_id, NEW_YEAR_2034)
    assert (await books_of(world, free))[:2] == (0, 0)
    assert await books_of(world, held) == kept[held]
    await check_audit(world)
    # Lifted, what was due meanwhile goes.
    await hold(world, held, None)
    await advance_clock(till, clock_id, NEW_YEAR_2034 + timedelta(minutes=1))
    assert (await books_of(world, held))[:2] == (0, 0)
    await check_audit(world)


async def test_a_hold_keeps_the_data_of_an_account_that_is_over(world: World) -> None:
    till = open_till(world.database)
    clock_id, (account_id,) = await begin_2026(till, "over")
    await hold(world, account_id, "a search warrant")
    await advance_clock(till, clock_id, datetime(2026, 6, 1, tzinfo=UTC))
    account = await account_of(world, "over")
    assert (account.data_deleted_at, account.legal_hold) == (None, "a search warrant")
    async with world.database.work(ACTOR) as work:
        work.session.add(
            Contact(created_at=NOW, account_id=account_id, name="B", email="b@x.org", email_key="b@x.org", topics=[])
        )
    with pytest.raises(Conflict, match="tells of the person in over: nothing was erased"):
        await world.database.run(ACTOR, erase_person, Named(email="B@x.org"))
    await hold(world, account_id, None)
    await advance_clock(till, clock_id, datetime(2026, 6, 1, 0, 1, tzinfo=UTC))
    account = await account_of(world, "over")
    assert account.data_deleted_at == datetime(2026, 6, 1, tzinfo=UTC)
    await check_audit(world)
    async with world.database.read() as session:
        actions = await session.scalars(
            select(AuditEntry.action).where(AuditEntry.account_id == account_id, AuditEntry.object.like("legal_hold:%"))
        )
        assert sorted(actions) == ["legal_hold.lifted", "legal_hold.set"]


async def test_a_hold_keeps_raw_usage(world: World) -> None:
    """Of others in the same month it goes all the same."""
    later = datetime.now(UTC) + timedelta(days=600)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(test_clock_id=None))
        await work.session.execute(update(UsagePeriod).values(closed_at=NOW, end_at=NOW))
    account = await account_of(world)
    mine = UsageEvent.account_id == account.id
    held = await count(world.database, UsageEvent, mine)
    assert held
    await hold(world, account.id, "why")
    others = await count(world.database, UsageEvent, ~mine)
    assert await count_old(world.database, later, KEEP_USAGE) == others > 0
    assert await let_go(world.database, later, KEEP_USAGE) == others
    assert (await count(world.database, UsageEvent, mine), await count(world.database, UsageEvent)) == (held, held)
    await hold(world, account.id, None)
    assert await let_go(world.database, later, KEEP_USAGE) == held


async def test_the_same_is_counted_as_goes_of_the_books(world: World) -> None:
    """On the wall clock: a dry run purges and takes it back, and so tells what the purge does."""
    till = open_till(world.database)
    account_id = await open_account(till, "wall", None)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    await cancel_now(till, account_id, prorated=False)
    world.clock.stands_at = datetime(2034, 1, 2, tzinfo=UTC)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(DueWork)
            .where(DueWork.account_id == account_id, DueWork.kind != WorkKind.PURGE, DueWork.done_at.is_(None))
            .values(done_at=NOW)
        )
        await work.session.execute(update(Invoice).where(Invoice.status == "OPEN").values(status="VOID"))
    at = world.clock.stands_at
    foreseen = await preview(world.database, ACTOR, at, KEEP_USAGE)
    assert foreseen["invoice"] >= 1
    assert (await books_of(world, account_id))[0] >= 1
    gone = await purge_all(till, at, KEEP_USAGE)
    assert (await books_of(world, account_id))[:2] == (0, 0)
    assert {name: number for name, number in gone.items() if name in ("invoice", "invoice_line", "document")} == {
        name: number for name, number in foreseen.items() if name in ("invoice", "invoice_line", "document")
    }
    assert await preview(world.database, ACTOR, at, KEEP_USAGE) == {}


# What has a period of its own


async def put_rows(world: World, account_id: UUID, at: datetime, name: str) -> None:
    """A row of each kind whose time begins at an instant."""
    day = at.date()
    async with world.database.work(ACTOR) as work:
        session = work.session
        endpoint = WebhookEndpoint(
            created_at=NOW, account_id=account_id, url="https://x.org", event_kinds=[], secret="s", created_by="t"
        )
        member = (
            await session.scalars(select(Member).where(Member.account_id == account_id).limit(1))
        ).one_or_none() or Member(
            created_at=NOW, account_id=account_id, iss="i", sub=name, display_name="D", role=Role.MEMBER
        )
        session.add_all([endpoint, member])
        await session.flush()
        delivery = WebhookDelivery(
            created_at=at,
            account_id=account_id,
            endpoint_id=endpoint.id,
            event_id=uuid4(),
            kind="invoice.paid",
            status=DeliveryStatus.SUCCEEDED,
            next_try_at=at,
            give_up_at=at + timedelta(days=3),
            delivered_at=at,
        )
        given_up = WebhookDelivery(
            created_at=at,
            account_id=account_id,
            endpoint_id=endpoint.id,
            event_id=uuid4(),
            kind="invoice.paid",
            status=DeliveryStatus.FAILED,
            next_try_at=at,
            give_up_at=at,
        )
        export = Export(
            created_at=at,
            account_id=account_id,
            kind=ExportKind.USAGE,
            format=ExportFormat.CSV,
            start_at=at,
            end_at=at,
            granularity=Granularity.DAY,
            requested_by="t",
            status=ExportStatus.FAILED,
        )
        session.add_all([delivery, given_up, export])
        await session.flush()
        await enqueue(work, (await work.lock_accounts([account_id]))[account_id], WorkKind.REMIND, name, at)
        await session.execute(update(DueWork).where(DueWork.subject == name).values(done_at=at))
        session.add_all(
            [
                IdempotencyKey(
                    principal=name, mutation="m", scope="", key="k", input_hash="", answer={}, created_at=at
                ),
                WebhookAttempt(
                    delivery_id=delivery.id, number=1, account_id=account_id, at=at, duration_ms=1, status_code=204
                ),
                MailMessage(
                    id=UUID(int=first_id_at(at).int + next(NUMBERS)),
                    created_at=at,
                    account_id=account_id,
                    kind=MailKind.REFUND,
                    key=name,
                    recipient="x@y.org",
                    locale="en",
                    params={},
                    status=MailStatus.SENT,
                    due_at=at,
                    sent_at=at,
                ),
                FieldUse(principal=name, coordinate="Query.viewer", day=day, count=1),
                ProcessorEvent(id=name, kind="k", subject="s", heard_at=at, outcome="NOTHING_NEW"),
                ExportPart(export_id=export.id, number=0, account_id=account_id, data=b"x"),
                Quote(
                    created_at=at,
                    account_id=account_id,
                    act=ChangeAct.START,
                    target={},
                    effective_at=at,
                    expires_at=at,
                    subscription_version=0,
                    bill={},
                ),
                Reservation(
                    created_at=at,
                    account_id=account_id,
                    metric_key="email_sends",
                    period_start=at,
                    quantity=1,
                    status=ReservationStatus.RELEASED,
                    reserved_at=at,
                    expires_at=at + timedelta(seconds=300),
                    closed_at=at,
                ),
                Invite(
                    created_at=at,
                    account_id=account_id,
                    email="x@y.org",
                    email_key=name,
                    role=Role.MEMBER,
                    invited_by="t",
                    expires_at=at,
                ),
                OwnershipTransfer(
                    created_at=at,
                    account_id=account_id,
                    from_member_id=None,
                    to_member_id=member.id,
                    expires_at=at,
                    withdrawn_at=at,
                ),
            ]
        )


PERIODS = {
    "idempotency_key": IDEMPOTENCY_KEY,
    "webhook_delivery": keeping.DELIVERIES,
    "due_work": keeping.DONE_WORK,
    "processor_event": keeping.MESSAGES,
    "export": keeping.EXPORTS,
    "quote": keeping.QUOTES,
    "reservation": keeping.RESERVATIONS,
    "invite": keeping.INVITES,
    "ownership_transfer": keeping.INVITES,
}
"""To the microsecond; the others go by the id's millisecond, or by the day."""


async def test_spans_are_half_open_and_nothing_younger_goes(world: World) -> None:
    """Of each kind a row goes at the very end of its span, and not a microsecond before."""
    await purge_old(world.database, ACTOR, NOW)
    at = NOW + timedelta(days=1)
    account = await account_of(world)
    await put_rows(world, account.id, at, "one")
    for period in sorted(set(PERIODS.values())):
        names = {name for name, its in PERIODS.items() if its == period}
        assert names <= (await preview(world.database, ACTOR, at + period, KEEP_USAGE)).keys()
        await purge_old(world.database, ACTOR, at + period - MOMENT)
        assert names <= (await preview(world.database, ACTOR, at + period, KEEP_USAGE)).keys()
        assert names <= (await purge_old(world.database, ACTOR, at + period)).keys()
    mails, uses = [MailMessage.key == "one"], [FieldUse.principal == "one"]
    assert await count(world.database, MailMessage, *mails) == 0  # a day ago: exports lie as long
    assert await count(world.database, FieldUse, *uses) == 1
    await purge_old(world.database, ACTOR, at + keeping.FIELD_USE)
    assert await count(world.database, FieldUse, *uses) == 1
    await purge_old(world.database, ACTOR, at + keeping.FIELD_USE + timedelta(days=1))
    assert await count(world.database, FieldUse, *uses) == 0
    assert await count(world.database, WebhookAttempt) == await count(world.database, WebhookDelivery) == 0
    assert await count(world.database, ExportPart) == 0


async def test_what_is_under_way_or_held_or_on_a_test_clock_stays(world: World) -> None:
    till = open_till(world.database)
    held = await open_account(till, "held", None)
    clocked = await open_account(till, "clocked", await open_clock(till, NOW))
    await purge_old(world.database, ACTOR, NOW + timedelta(days=500))
    for account_id, name in ((held, "held"), (clocked, "clocked")):
        await put_rows(world, account_id, NOW, name)
    await hold(world, held, "why")
    waiting = WebhookDelivery.status == DeliveryStatus.PENDING
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.account_id == clocked, WebhookDelivery.status == DeliveryStatus.SUCCEEDED)
            .values(status=DeliveryStatus.PENDING)
        )
        await work.session.execute(
            update(DueWork).where(DueWork.account_id == held).values(kind=WorkKind.PURGE, failure=VAIN)
        )
    gone = await purge_old(world.database, ACTOR, NOW + timedelta(days=500))
    for table in (WebhookDelivery, MailMessage, Export, Quote, Reservation, Invite, OwnershipTransfer):
        assert await count(world.database, table, table.account_id == held) >= 1, table
    assert await count(world.database, WebhookDelivery, WebhookDelivery.account_id == clocked, waiting) == 1
    for table in (Quote, Reservation):
        assert await count(world.database, table, table.account_id == clocked) == 1
    assert await count(world.database, DueWork, DueWork.failure == VAIN) >= 1
    assert gone["idempotency_key"] == 2  # of no account
    await check_audit(world)


async def test_the_dry_run_counts_what_the_run_deletes_and_it_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    account = await account_of(world)
    for number in range(3):
        await put_rows(world, account.id, NOW, f"row {number}")
    await number_waiting(world.database, ACTOR)
    at = datetime.now(UTC) + timedelta(days=500)
    foreseen = await preview(world.database, ACTOR, at, KEEP_USAGE)
    again = await preview(world.database, ACTOR, at, KEEP_USAGE)
    assert foreseen == again
    assert foreseen["webhook_delivery"] == 6
    with caplog.at_level("INFO", "plafond.purging"):
        gone = await purge(world.database, ACTOR, at, KEEP_USAGE)
    of_books = set(foreseen) - set(gone)
    assert {name: number for name, number in foreseen.items() if name not in of_books} == gone
    assert not of_books & {str(each.table.__tablename__) for each in PURGES}
    assert '"webhook_delivery": 6' in caplog.text
    async with world.database.read() as session:
        entry = (await session.scalars(select(AuditEntry).where(AuditEntry.action == "data.purged").limit(1))).one()
        deployment = (await session.scalars(select(Deployment))).one()
    assert (entry.account_id, entry.after) == (None, {"rows": gone})
    assert entry.hash == deployment.audit_hash
    assert await purge(world.database, ACTOR, at, KEEP_USAGE) == {}


async def test_events_go_in_the_order_of_their_positions_and_streams_know(world: World) -> None:
    await number_waiting(world.database, ACTOR)
    database = world.database
    async with database.work(ACTOR) as work:
        rows = (await work.session.scalars(select(OutboxEvent).order_by(OutboxEvent.position))).all()
        kept = rows[:6]
        positions = [row.position for row in rows]
        ids = {row.id: (row.account_id, row.sequence) for row in rows}
        # The first three are old, the fourth is young, the fifth is old again: that one waits behind it.
        for number, row in enumerate(kept):
            age = timedelta(days=89) if number == 3 else timedelta(days=91 + number)
            await work.session.execute(
                update(OutboxEvent).where(OutboxEvent.id == row.id).values(id=first_id_at(NOW - age))
            )
    assert len(ids) > 10
    assert (await preview(database, ACTOR, NOW, KEEP_USAGE))["outbox_event"] == 3
    gone = await purge_old(database, ACTOR, NOW)
    assert gone["outbox_event"] == 3
    async with database.read() as session:
        left = (await session.scalars(select(OutboxEvent.position).order_by(OutboxEvent.position))).all()
    assert list(left) == positions[3:]
    for row in kept[:3]:
        account = await one_account(world, row.account_id)
        of_account = [each.sequence for each in kept[:3] if each.account_id == row.account_id]
        assert account.kept_after_sequence == max(of_account)
        async with database.read() as session:
            assert (await read_head(session, database, account)).kept_after == max(of_account)
    await check_audit(world)


async def test_two_who_purge_at_once_delete_all_once(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        work.session.add_all(
            [
                ProcessorEvent(id=f"evt_{n}", kind="k", subject="s", heard_at=NOW, outcome="NOTHING_NEW")
                for n in range(1_750)
            ]
        )
    await number_waiting(world.database, ACTOR)
    events = await count(world.database, OutboxEvent)
    at = datetime.now(UTC) + timedelta(days=200)
    first, second = await asyncio.gather(*(purge_old(world.database, ACTOR, at) for _ in range(2)))
    for name, number in (("processor_event", 1_750), ("outbox_event", events)):
        assert first.get(name, 0) + second.get(name, 0) >= number
        assert first.get(name, 0) + second.get(name, 0) == number
    assert await count(world.database, ProcessorEvent) == await count(world.database, OutboxEvent) == 0
    await check_audit(world)


async def test_as_many_statements_for_few_rows_as_for_many(world: World) -> None:
    async def measure(rows: int) -> int:
        account = await account_of(world)
        for number in range(rows):
            await put_rows(world, account.id, NOW, f"of {rows}, row {number}")
        world.statements.clear()
        await purge_old(world.database, ACTOR, NOW + timedelta(days=500))
        return len(world.statements)

    await purge_old(world.database, ACTOR, NOW + timedelta(days=500))
    assert await measure(1) == await measure(6) <= 60


async def test_a_hold_is_set_and_lifted_once(world: World) -> None:
    account = await account_of(world)
    await hold(world, account.id, "why")
    await hold(world, account.id, "why")
    await hold(world, account.id, None)
    await hold(world, account.id, None)
    async with world.database.read() as session:
        entries = (
            await session.scalars(
                select(AuditEntry)
                .where(AuditEntry.account_id == account.id, AuditEntry.action.like("legal_hold.%"))
                .order_by(AuditEntry.number)
            )
        ).all()
    assert [(entry.action, entry.before, entry.after) for entry in entries] == [
        # Without the reason: the tenant reads this log.
        ("legal_hold.set", {}, {}),
        ("legal_hold.lifted", {}, {}),
    ]
