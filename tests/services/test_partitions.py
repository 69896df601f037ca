"""Partitions of usage events: made ahead by months, filled, and let go without losing what could still change."""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio
import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import OperationalError

from plafond.clock import SetClock
from plafond.database import Database, take_snapshot
from plafond.migrations import compare_database, downgrade_database
from plafond.models import BillingAccount, Counter, TestClock, UsageEvent, UsageEventId, UsagePeriod, UsageRollup
from plafond.models.types import first_id_at, new_id
from plafond.services import partitions
from plafond.services.auditing import audit
from plafond.services.partitions import Month, is_only_waiting, let_go, make_partitions
from plafond.stopping import Stopping
from plafond.worker import run_upkeep

from ..conftest import NOW, World
from .helpers import ACTOR, account_of, emails, send, used

MARCH = datetime(2027, 3, 15, 8, 0, tzinfo=UTC)
MONTHS = ["usage_event_2027_03", "usage_event_2027_04", "usage_event_2027_05", "usage_event_2027_06"]
KEEP = timedelta(days=400)
LONG_AFTER = datetime(2028, 5, 6, tzinfo=UTC)
"""400 days after April 2, 2027: March is over, April is not."""


@pytest.fixture
def on_postgresql(world: World) -> World:
    """Where there are partitions."""
    if world.database.is_sqlite:
        pytest.skip("SQLite has no partitions")
    return world


def id_at(instant: datetime) -> UUID:
    """An id as it is made at an instant."""
    return UUID(int=first_id_at(instant).int | 0x7 << 76 | 0x2 << 62 | secrets.randbits(62))


async def store(world: World, *instants: datetime, name: str = "acme") -> None:
    """Events as if they had been stored then, each named by its instant."""
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        for at in instants:
            work.session.add(
                UsageEvent(
                    id=id_at(at),
                    account_id=account.id,
                    event_id=at.isoformat(),
                    metric_key="email_sends",
                    quantity=1,
                    level=None,
                    change=1,
                    occurred_at=at,
                    accepted_at=at,
                    period_start=at.replace(day=1, hour=0),
                )
            )
            work.session.add(
                UsageEventId(account_id=account.id, event_id=at.isoformat(), content_hash="x", accepted_at=at)
            )


async def where(world: World, instant: datetime) -> str:
    """The table that an event lies in."""
    async with world.database.read() as session:
        found = await session.scalar(
            text("SELECT tableoid::regclass::text FROM usage_event WHERE event_id = :name"),
            {"name": instant.isoformat()},
        )
    return str(found)


async def tables(world: World) -> list[str]:
    """The partitions, and what was one."""
    async with world.database.read() as session:
        return list(
            await session.scalars(
                text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^usage_event_[0-9]' ORDER BY 1")
            )
        )


async def stored(world: World) -> list[str]:
    """The events of these tests that are there."""
    async with world.database.read() as session:
        names = select(UsageEvent.event_id).where(UsageEvent.event_id.like("202%")).order_by(UsageEvent.event_id)
        return list(await session.scalars(names))


async def remembered(world: World) -> list[str]:
    """Their ids that are known."""
    async with world.database.read() as session:
        names = select(UsageEventId.event_id).where(UsageEventId.event_id.like("202%")).order_by(UsageEventId.event_id)
        return list(await session.scalars(names))


def named(*instants: datetime) -> list[str]:
    return sorted(instant.isoformat() for instant in instants)


# --- ids and months --------------------------------------------------------------------------------------------------


def test_a_bound_lies_between_ids() -> None:
    at = datetime.now(UTC)
    assert first_id_at(at - timedelta(seconds=1)) < new_id() < first_id_at(at + timedelta(seconds=10))
    assert first_id_at(MARCH) < id_at(MARCH) < first_id_at(MARCH + timedelta(milliseconds=1))


def test_months_follow_each_other() -> None:
    assert Month(2026, 11).next == Month(2026, 12)
    assert Month(2026, 12).next == Month(2027, 1)
    assert Month.of(datetime(2027, 1, 1, 0, 30, tzinfo=UTC)) == Month(2027, 1)
    assert Month.named("usage_event_2027_01") == Month(2027, 1)
    for name in ("usage_event_default", "usage_event_id", "usage_event_2027_13", "usage_event_2027_01_pkey"):
        assert Month.named(name) is None


# --- made ahead ------------------------------------------------------------------------------------------------------


async def test_sqlite_has_none(world: World) -> None:
    if not world.database.is_sqlite:
        pytest.skip("for SQLite")
    assert await make_partitions(world.database, MARCH) == 0


async def test_events_land_in_their_month(on_postgresql: World) -> None:
    world = on_postgresql
    assert await make_partitions(world.database, MARCH) == 4
    assert await tables(world) == MONTHS
    last = datetime(2027, 3, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    first = datetime(2027, 4, 1, tzinfo=UTC)
    before, after = datetime(2027, 2, 28, tzinfo=UTC), datetime(2027, 7, 1, tzinfo=UTC)
    await store(world, last, first, before, after)
    assert await where(world, last) == "usage_event_2027_03"
    assert await where(world, first) == "usage_event_2027_04"
    assert await where(world, before) == await where(world, after) == "usage_event_default"


async def test_made_twice_it_is_the_same(on_postgresql: World) -> None:
    world = on_postgresql
    assert await make_partitions(world.database, MARCH) == 4
    assert await make_partitions(world.database, MARCH) == 0
    assert await make_partitions(world.database, MARCH + timedelta(days=31)) == 1
    assert await tables(world) == [*MONTHS, "usage_event_2027_07"]
    compare_database(world.settings.database_url)
    await world.database.engine.dispose()
    downgrade_database(world.settings.database_url)


@pytest.mark.usefixtures("address")
async def test_a_month_that_the_default_holds_stays_there(on_postgresql: World) -> None:
    world = on_postgresql
    await store(world, MARCH)
    assert await make_partitions(world.database, MARCH) == 3
    assert await tables(world) == MONTHS[1:]
    later = MARCH + timedelta(days=1)
    await store(world, later)
    assert await where(world, later) == "usage_event_default"


async def test_a_partition_has_what_the_table_has(on_postgresql: World) -> None:
    """Its key and its index: what is not there is not taken."""
    world = on_postgresql
    await make_partitions(world.database, MARCH)
    async with world.database.read() as session:
        indexed = await session.scalars(
            text("SELECT indexdef FROM pg_indexes WHERE tablename = 'usage_event_2027_04' ORDER BY 1")
        )
        found = [line.partition(" USING ")[2] for line in indexed]
    assert sorted(found) == ["btree (account_id, metric_key, occurred_at)", "btree (id)"]


async def test_usage_goes_on_while_they_are_made(on_postgresql: World) -> None:
    """Nothing is lost and nothing fails while the tables change under those who send."""
    world = on_postgresql
    before = await used(world, "email_sends")

    async def keep_sending(sender: int) -> None:
        for number in range(10):
            [result] = await send(world, emails(f"{sender}-{number}"))
            assert result.code is None

    async def keep_making() -> None:
        for month in range(6):
            with_luck = MARCH + timedelta(days=31 * month)
            try:
                await make_partitions(world.database, with_luck)
            except OperationalError as error:
                assert is_only_waiting(error)  # noqa: PT017 - it may fail or not

    await asyncio.gather(keep_making(), *(keep_sending(sender) for sender in range(4)))
    assert await used(world, "email_sends") == before + 40


async def test_two_workers_at_once_make_each_once(on_postgresql: World) -> None:
    world = on_postgresql
    other = Database(world.settings.database_url, SetClock(NOW), lambda _: None)
    try:
        made = await asyncio.gather(
            *(make_partitions(database, MARCH) for database in (world.database, other) for _ in range(2))
        )
    finally:
        await other.close()
    assert sum(made) >= 1
    await make_partitions(world.database, MARCH)
    assert await tables(world) == MONTHS


async def test_who_waits_too_long_for_the_table_gives_way(
    on_postgresql: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = on_postgresql
    monkeypatch.setattr(partitions, "PATIENCE", "100ms")
    async with world.database.work(ACTOR) as work:
        await work.session.execute(text("LOCK TABLE usage_event IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(OperationalError) as failed:
            await make_partitions(world.database, MARCH)
    assert is_only_waiting(failed.value)
    assert await make_partitions(world.database, MARCH) == 4


async def test_the_worker_looks_after_them(on_postgresql: World) -> None:
    world = on_postgresql
    world.clock.stands_at = LONG_AFTER
    await store_years(world)
    expected = [*MONTHS[1:], *(f"usage_event_2028_{month:02}" for month in (5, 6, 7, 8))]
    stopping = Stopping()
    upkeep = asyncio.create_task(run_upkeep(world.database, KEEP, stopping))
    with anyio.fail_after(30):
        while await tables(world) != expected:  # noqa: ASYNC110 - it is the database that is waited for
            await anyio.sleep(0.02)
    stopping.begin()
    await upkeep
    assert await stored(world) == named(*YOUNGER)


# --- let go ----------------------------------------------------------------------------------------------------------


OLD = (MARCH, MARCH + timedelta(days=3))
YOUNGER = (datetime(2027, 4, 1, 0, 0, 1, tzinfo=UTC), datetime(2027, 5, 1, tzinfo=UTC))


async def store_years(world: World) -> None:
    """Partitions, and events of three months in them."""
    await make_partitions(world.database, MARCH)
    await store(world, *OLD, *YOUNGER)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(UsagePeriod).values(closed_at=NOW))


async def test_whole_months_go_with_their_ids(on_postgresql: World) -> None:
    world = on_postgresql
    await store_years(world)
    sums = await _count_sums(world)
    let = await let_go(world.database, LONG_AFTER, KEEP)
    assert let >= len(OLD)
    assert await tables(world) == MONTHS[1:]
    assert await stored(world) == await remembered(world) == named(*YOUNGER)
    assert await _count_sums(world) == sums
    assert await missed(world) == [], "the audit knows that old events go"
    assert await let_go(world.database, LONG_AFTER, KEEP) == 0


async def missed(world: World) -> list[str]:
    """What the audit says of events that are not there."""
    async with world.database.read() as session:
        await take_snapshot(session)
        found = await audit(session, LONG_AFTER)
    return [finding.what for finding in found if "its events sum" in finding.what or "is stored" in finding.what]


async def _count_sums(world: World) -> Sequence[int | None]:
    async with world.database.read() as session:
        return [await session.scalar(select(func.count()).select_from(table)) for table in (Counter, UsageRollup)]


async def test_sqlite_lets_go_row_by_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if not world.database.is_sqlite:
        pytest.skip("for SQLite")
    monkeypatch.setattr(partitions, "BATCH", 100)
    await store_years(world)
    await let_go(world.database, LONG_AFTER, KEEP)
    assert await stored(world) == await remembered(world) == named(YOUNGER[1]), "to the instant"
    assert await missed(world) == []


async def test_what_the_default_holds_goes_row_by_row(on_postgresql: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = on_postgresql
    monkeypatch.setattr(partitions, "BATCH", 100)
    await store(world, *OLD, *YOUNGER)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(UsagePeriod).values(closed_at=NOW))
    await let_go(world.database, LONG_AFTER, KEEP)
    assert await stored(world) == await remembered(world) == named(*YOUNGER)


async def test_what_could_still_change_stays(world: World) -> None:
    """A period that nobody closed, one that takes late events, and whoever lives on a test clock."""
    await store_years(world)
    acme, ginza = await account_of(world), await account_of(world, "ginza")
    await store(world, *OLD, name="ginza")
    async with world.database.work(ACTOR) as work:
        for account in (acme, ginza):
            work.session.add(
                UsagePeriod(
                    account_id=account.id,
                    start_at=MARCH.replace(day=1, hour=0),
                    end_at=MARCH + timedelta(days=16),
                    closed_at=None if account is acme else MARCH,
                )
            )
    await let_go(world.database, LONG_AFTER, KEEP)
    assert await stored(world) == named(*OLD, *YOUNGER)[: 2 if world.database.is_sqlite else 4] + (
        named(YOUNGER[1]) if world.database.is_sqlite else []
    )
    assert await stored(world) == await remembered(world)
    if not world.database.is_sqlite:
        assert await tables(world) == MONTHS, "the month waits, but those of it that are not needed have gone"
    ends_now = UsagePeriod.start_at == MARCH.replace(day=1, hour=0)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(UsagePeriod).where(ends_now).values(closed_at=NOW, end_at=LONG_AFTER - timedelta(days=34))
        )
    await let_go(world.database, LONG_AFTER, KEEP)
    assert set(named(*OLD)) <= set(await stored(world))
    async with world.database.work(ACTOR) as work:
        clock = TestClock(created_at=NOW, name="slow", code="SLOW", now=NOW)
        work.session.add(clock)
        await work.session.flush()
        await work.session.execute(delete(UsagePeriod).where(ends_now))
        await work.session.execute(
            update(BillingAccount).where(BillingAccount.id == acme.id).values(test_clock_id=clock.id)
        )
    await let_go(world.database, LONG_AFTER, KEEP)
    assert set(named(*OLD)) <= set(await stored(world))
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(test_clock_id=None))
    await let_go(world.database, LONG_AFTER, KEEP)
    assert not set(named(*OLD)) & set(await stored(world))


async def test_cut_off_in_the_middle_it_goes_on(on_postgresql: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between detaching and dropping everything may stop; an id that came again meanwhile is remembered."""
    world = on_postgresql
    await store_years(world)
    monkeypatch.setattr(partitions, "BATCH", 100)

    async def stop(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(partitions, "_drop", stop)
        with pytest.raises(KeyboardInterrupt):
            await let_go(world.database, LONG_AFTER, KEEP)
    assert await tables(world) == MONTHS
    assert await stored(world) == named(*YOUNGER)
    assert await remembered(world) == named(*OLD, *YOUNGER)
    again = UsageEventId.event_id == OLD[0].isoformat()
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(UsageEventId).where(again).values(accepted_at=LONG_AFTER))
    await let_go(world.database, LONG_AFTER, KEEP)
    assert await tables(world) == MONTHS[1:]
    assert await remembered(world) == named(OLD[0], *YOUNGER)


async def test_two_workers_at_once_let_go_once(on_postgresql: World) -> None:
    world = on_postgresql
    await store_years(world)
    other = Database(world.settings.database_url, SetClock(NOW), lambda _: None)
    try:
        await asyncio.gather(*(let_go(database, LONG_AFTER, KEEP) for database in (world.database, other)))
        await let_go(other, LONG_AFTER, KEEP)
    finally:
        await other.close()
    assert await tables(world) == MONTHS[1:]
    assert await stored(world) == await remembered(world) == named(*YOUNGER)


async def test_what_somebody_detached_for_himself_is_left_alone(on_postgresql: World) -> None:
    world = on_postgresql
    await store_years(world)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(text("ALTER TABLE usage_event DETACH PARTITION usage_event_2027_05"))
    await let_go(world.database, LONG_AFTER, KEEP)
    assert await tables(world) == MONTHS[1:]
