"""Where raw usage events lie, and for how long. On PostgreSQL each month of them is a partition of its own.

Ids rise with the wall clock, so a month is a range of ids: it is made ahead, filled, and in the end let go as a whole.
What events added up to (counters, roll-ups, ratings) is kept.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import TableClause, column, delete, exists, func, or_, select, table, text, tuple_
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.elements import ColumnElement

from ..database import Actor, Database, Work
from ..models import BillingAccount, UsageEvent, UsageEventId, UsagePeriod
from ..models.types import first_id_at
from .usage import LATE

KEEPER = Actor(name="system:partitions", origin="worker")
AHEAD = 3
"""So many months after this one have a partition before they begin."""
BATCH = 5_000
LOCK_KEY = 0x504C_4146_4F4E_44
"""Of PostgreSQL's advisory lock: whoever holds it arranges partitions alone."""
PATIENCE = "2s"
"""How long arranging waits for a lock on the table: behind it in line everybody waits."""
BEHIND_SELF = "55P03"
"""PostgreSQL's word for a lock that did not come in time."""


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def of(cls, instant: datetime) -> "Month":
        """The month of an instant."""
        there = instant.astimezone(UTC)
        return cls(there.year, there.month)

    @classmethod
    def named(cls, name: str) -> "Month | None":
        """The month whose partition has a name; none where it is something else."""
        found = re.fullmatch(r"usage_event_(\d{4})_(0[1-9]|1[0-2])", name)
        return None if found is None else cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """Of its partition."""
        return f"usage_event_{self.year:04}_{self.month:02}"

    @property
    def next(self) -> "Month":
        """The month after it."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def begins_at(self) -> datetime:
        """Its first instant."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)


async def make_partitions(database: Database, now: datetime) -> int:
    """Make the partitions of this month and the next ones that are missing. Gives how many were made.

    A month of which the default partition holds events already stays there: nothing is moved.
    """
    if database.is_sqlite:
        return 0
    made = 0
    month = Month.of(now)
    for _ in range(AHEAD + 1):
        async with database.work(KEEPER) as work:
            if await _is_alone(work) and not await _is_taken(work, month):
                await _attach(work, month)
                made += 1
        month = month.next
    return made


async def _is_alone(work: Work) -> bool:
    """Whether nobody else is arranging partitions, until the transaction ends."""
    await work.session.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
    return bool(await work.session.scalar(select(func.pg_try_advisory_xact_lock(LOCK_KEY))))


async def _is_taken(work: Work, month: Month) -> bool:
    """Whether there is a table for a month, or the default partition holds some of it."""
    if await work.session.scalar(select(func.to_regclass(month.name))) is not None:
        return True
    held = text("SELECT EXISTS (SELECT 1 FROM usage_event_default WHERE id >= :begin AND id < :end)")
    return bool(await work.session.scalar(held, _bounds(month)))


def _bounds(month: Month) -> dict[str, Any]:
    return {"begin": first_id_at(month.begins_at), "end": first_id_at(month.next.begins_at)}


async def _attach(work: Work, month: Month) -> None:
    # Made beside the table and then attached: that stops nobody who writes to it, as `PARTITION OF` would.
    begin, end = _bounds(month).values()
    await work.session.execute(
        text(f"CREATE TABLE {month.name} (LIKE usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    )
    await work.session.execute(
        text(f"ALTER TABLE usage_event ATTACH PARTITION {month.name} FOR VALUES FROM ('{begin}') TO ('{end}')")
    )


async def let_go(database: Database, now: datetime, keep: timedelta) -> int:
    """Delete raw events that are older than `keep`, with the memory of their ids. Gives how many.

    An event that its usage period could still need stays, however old it is.
    """
    before = now - keep
    done = 0
    if not database.is_sqlite:
        for month in await _list_months(database, attached=True):
            if month.next.begins_at <= before and not await _is_needed(database, month, now):
                await _detach(database, month)
        for month in await _list_months(database, attached=False):
            if month.next.begins_at <= before:
                done += await _drop(database, month)
    while deleted := await _delete_batch(database, now, before):
        done += deleted
    return done


async def _list_months(database: Database, *, attached: bool) -> Sequence[Month]:
    async with database.read() as session:
        rows = await session.execute(LIST_TABLES)
        months = [Month.named(row.relname) for row in rows if row.is_attached is attached]
    return sorted(month for month in months if month is not None)


LIST_TABLES = text(
    "SELECT relname, EXISTS "
    "(SELECT 1 FROM pg_inherits WHERE inhrelid = oid AND inhparent = to_regclass('usage_event')) AS is_attached "
    "FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace "
    "AND relname ~ '^usage_event_[0-9]'"
)


def _table_of(month: Month) -> TableClause:
    names = (UsageEvent.id, UsageEvent.account_id, UsageEvent.event_id, UsageEvent.accepted_at)
    return table(month.name, *(column(name.key, name.type) for name in names))


def _is_kept(now: datetime) -> ColumnElement[bool]:
    """That late events could still change what an event counted for, or that a legal hold keeps it.

    On a test clock time stands still for as long as somebody likes; elsewhere a period takes events for 35 days more.
    """
    by_account = exists().where(
        BillingAccount.id == UsageEvent.account_id,
        or_(BillingAccount.test_clock_id.is_not(None), BillingAccount.legal_hold.is_not(None)),
    )
    takes_events = exists().where(
        UsagePeriod.account_id == UsageEvent.account_id,
        UsagePeriod.start_at == UsageEvent.period_start,
        or_(UsagePeriod.closed_at.is_(None), UsagePeriod.end_at > now - LATE),
    )
    return or_(by_account, takes_events)


async def _is_needed(database: Database, month: Month, now: datetime) -> bool:
    begin, end = _bounds(month).values()
    async with database.read() as session:
        needed = select(UsageEvent.id).where(UsageEvent.id >= begin, UsageEvent.id < end, _is_kept(now)).limit(1)
        return await session.scalar(needed) is not None


async def _detach(database: Database, month: Month) -> None:
    async with database.work(KEEPER) as work:
        if await _is_alone(work) and month in await _list_months(database, attached=True):
            await work.session.execute(text(f"ALTER TABLE usage_event DETACH PARTITION {month.name}"))


async def _drop(database: Database, month: Month) -> int:
    """Forget the ids in a partition that was let go, and then drop it. Cut off, it is done again from the start."""
    done = 0
    after = first_id_at(month.begins_at)
    events = _table_of(month).c
    while True:
        async with database.work(KEEPER) as work:
            if not await _is_alone(work) or await work.session.scalar(select(func.to_regclass(month.name))) is None:
                return done
            ids = (
                await work.session.scalars(select(events.id).where(events.id > after).order_by(events.id).limit(BATCH))
            ).all()
            if not ids:
                await work.session.execute(text(f"DROP TABLE {month.name}"))
                return done
            # An id that was let go and came again is another event's: that one is remembered.
            await work.session.execute(
                delete(UsageEventId).where(
                    events.id > after,
                    events.id <= ids[-1],
                    UsageEventId.account_id == events.account_id,
                    UsageEventId.event_id == events.event_id,
                    UsageEventId.accepted_at == events.accepted_at,
                )
            )
            after = ids[-1]
            done += len(ids)


def _are_old(database: Database, now: datetime, before: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    # Where a month goes as a whole, it is waited for until all of it may.
    end = first_id_at(before if database.is_sqlite else Month.of(before).begins_at)
    return UsageEvent.id < end, ~_is_kept(now)


async def count_old(database: Database, now: datetime, keep: timedelta) -> int:
    """How many events `let_go` would delete."""
    async with database.read() as session:
        counted = select(func.count()).select_from(UsageEvent).where(*_are_old(database, now, now - keep))
        return int(await session.scalar(counted) or 0)


async def _delete_batch(database: Database, now: datetime, before: datetime) -> int:
    """Delete some events that lie in no partition that could go as a whole. Gives how many."""
    async with database.work(KEEPER) as work:
        if not (database.is_sqlite or await _is_alone(work)):
            return 0
        rows = (
            await work.session.execute(
                select(UsageEvent.id, UsageEvent.account_id, UsageEvent.event_id, UsageEvent.accepted_at)
                .where(*_are_old(database, now, before))
                .order_by(UsageEvent.id)
                .limit(BATCH)
            )
        ).all()
        for part in (rows[place : place + 500] for place in range(0, len(rows), 500)):
            key = tuple_(UsageEventId.account_id, UsageEventId.event_id, UsageEventId.accepted_at)
            await work.session.execute(delete(UsageEventId).where(key.in_([tuple(row)[1:] for row in part])))
            await work.session.execute(delete(UsageEvent).where(UsageEvent.id.in_([row.id for row in part])))
    return len(rows)


def is_only_waiting(error: Exception) -> bool:
    """Whether arranging failed because others used the table: the next round finds it free."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) == BEHIND_SELF
