"""What callers leave behind without a write of their own: when a key was last shown, and which fields are asked for."""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

import anyio
from sqlalchemy import bindparam, func, or_, select, update

from ..database import AWAY, Actor, Database, ReadSession, Work
from ..models import ApiKey, FieldUse

WRITE_EVERY_S = 180.0
"""So often each process writes what it noted: a key is written at most once in this time."""
LAST_WRITE_S = 3.0
"""How long the last write of a process that ends may take."""
ONE_IN = 16
"""Of so many operations one is counted, for as many. Deprecated fields are counted each time."""
MAX_KEYS = 10_000
MAX_COUNTS = 50_000
"""So much is noted between two writes. What is beyond it is not counted: it is an estimate."""
ROWS_AT_ONCE = 1_000
MAX_SHOWN = 500
WRITER = Actor(name="system:uses", origin="uses")

log = logging.getLogger("plafond.uses")


@dataclass(frozen=True)
class Coordinates:
    """The fields that an operation names, each once, as `Type.field`."""

    current: tuple[str, ...] = ()
    deprecated: tuple[str, ...] = ()


@dataclass
class Uses:
    """What one process noted since it last wrote."""

    draw: Callable[[], float] = random.random
    """Chooses the operations that are counted: a number from 0 up to 1."""
    _shown: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    _counts: dict[tuple[str, str, date], int] = field(default_factory=dict[tuple[str, str, date], int])

    def note_key(self, key_id: UUID, at: datetime) -> None:
        """A key was shown."""
        if key_id in self._shown or len(self._shown) < MAX_KEYS:
            self._shown[key_id] = at

    def note_fields(self, principal: str, fields: Coordinates, at: datetime) -> None:
        """A caller had an operation run that names these fields."""
        for coordinate in fields.deprecated:
            self._count(principal, coordinate, at, 1)
        if self.draw() * ONE_IN < 1:
            for coordinate in fields.current:
                self._count(principal, coordinate, at, ONE_IN)

    def _count(self, principal: str, coordinate: str, at: datetime, weight: int) -> None:
        key = (principal, coordinate, at.date())
        known = self._counts.get(key)
        if known is not None or len(self._counts) < MAX_COUNTS:
            self._counts[key] = (known or 0) + weight

    def clear(self) -> None:
        """Forget what was not written."""
        self._shown, self._counts = {}, {}

    async def write(self, database: Database) -> None:
        """Write what was noted, some rows at a time. What cannot be written now is kept for the next time."""
        shown, counts = self._shown, self._counts
        self.clear()
        keys, fields = sorted(shown.items()), sorted(counts.items())
        try:
            # In one order in all processes, so that none waits for another that waits for it. What was written is not
            # written again.
            while keys:
                await database.run(WRITER, _write_keys, keys[:ROWS_AT_ONCE])
                del keys[:ROWS_AT_ONCE]
            while fields:
                await database.run(WRITER, _write_fields, fields[:ROWS_AT_ONCE])
                del fields[:ROWS_AT_ONCE]
        finally:
            self._shown = dict(keys[:MAX_KEYS]) | self._shown
            for (principal, coordinate, day), count in fields:
                key = (principal, coordinate, day)
                if key in self._counts or len(self._counts) < MAX_COUNTS:
                    self._counts[key] = self._counts.get(key, 0) + count


async def _write_keys(work: Work, shown: Sequence[tuple[UUID, datetime]]) -> None:
    connection = await work.session.connection()
    at = bindparam("shown_at", type_=ApiKey.last_used_at.type)
    await connection.execute(
        update(ApiKey.__table__)  # type: ignore[arg-type]  # it is a table
        .where(ApiKey.id == bindparam("key_id"), or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at))
        .values(last_used_at=at),
        [{"key_id": key_id, "shown_at": instant} for key_id, instant in shown],
    )


async def _write_fields(work: Work, counts: Sequence[tuple[tuple[str, str, date], int]]) -> None:
    rows = [(principal, coordinate, day, count) for (principal, coordinate, day), count in counts]
    await work.insert_many(FieldUse, ("principal", "coordinate", "day", "count"), rows, adding=("count",))


async def write_for_ever(uses: Uses, database: Database) -> None:
    """Write now and then, for ever. A database that is away gets it the next time."""
    while True:
        await anyio.sleep(WRITE_EVERY_S)
        try:
            await uses.write(database)
        except AWAY as error:
            log.warning("what keys and fields were used could not be written, and is kept: %s", error)
        except Exception:
            # Whatever it was: a count that fails must end nothing else.
            log.exception("what keys and fields were used could not be written, and is kept")


async def write_the_last(uses: Uses, database: Database) -> None:
    """Write what is left, before the process ends."""
    with anyio.move_on_after(LAST_WRITE_S):
        try:
            await uses.write(database)
        except AWAY as error:
            log.warning("what keys and fields were used last could not be written: %s", error)


@dataclass(frozen=True)
class FieldUsage:
    """How often a caller asked for a field, as far as it was counted, and the last day."""

    principal: str
    coordinate: str
    count: int
    last_day: date


async def list_field_usage(
    session: ReadSession,
    *,
    coordinates: Sequence[str] | None,
    prefix: str,
    since: date,
    limit: int,
) -> list[FieldUsage]:
    """Who asked for fields since a day, most often first: for the named ones (all where nothing is said)."""
    total, last = func.sum(FieldUse.count), func.max(FieldUse.day)
    statement = select(FieldUse.principal, FieldUse.coordinate, total.label("total"), last.label("last")).where(
        FieldUse.day >= since
    )
    if coordinates is not None:
        statement = statement.where(FieldUse.coordinate.in_(coordinates))
    if prefix:
        statement = statement.where(FieldUse.coordinate.startswith(prefix, autoescape=True))
    rows = await session.execute(
        statement.group_by(FieldUse.principal, FieldUse.coordinate)
        .order_by(total.desc(), FieldUse.principal, FieldUse.coordinate)
        .limit(limit)
    )
    return [FieldUsage(row.principal, row.coordinate, int(row.total), row.last) for row in rows]
