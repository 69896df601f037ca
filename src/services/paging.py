"""Keyset paging: of one list, and of many lists below their parents by one statement."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import sqlakeyset
import sqlakeyset.asyncio
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, aliased

from ..database import ReadSession
from ..models import Base
from .cursors import decode_cursor, encode_cursor
from .errors import ErrorCode, RequestRefused

DEFAULT_SIZE = 20
MAX_SIZE = 100

RowT = TypeVar("RowT", bound=Base)
RankedT = TypeVar("RankedT")


@dataclass(frozen=True)
class Window:
    """Which part of a list: checked, `size` rows after or before a place, from the front or the back."""

    size: int
    after: str | None
    before: str | None
    backwards: bool


LAST_ONE = Window(size=1, after=None, before=None, backwards=False)
"""The newest row of a list that is ordered newest first."""


@dataclass(frozen=True)
class Slice(Generic[RankedT]):
    """A part of a list in the list's order, each row with its cursor, and what lies around it."""

    rows: Sequence[tuple[str, RankedT]]
    total: int
    has_previous: bool
    has_next: bool


def check_window(first: int | None, last: int | None, after: str | None, before: str | None) -> Window:
    """Relay's paging arguments; wrong ones are errors, never silently corrected."""

    def refuse(message: str) -> RequestRefused:
        return RequestRefused(ErrorCode.BAD_USER_INPUT, message)

    if first is not None and last is not None:
        raise refuse("Give `first` or `last`, not both.")
    if after is not None and before is not None:
        raise refuse("Give `after` or `before`, not both.")
    if (last is not None and after is not None) or (first is not None and before is not None):
        raise refuse("`first` goes with `after`, `last` with `before`.")
    size = first if first is not None else last if last is not None else DEFAULT_SIZE
    if not 1 <= size <= MAX_SIZE:
        raise refuse(f"`{'last' if last is not None else 'first'}` is a whole number from 1 to {MAX_SIZE}, not {size}.")
    return Window(size, after, before, backwards=last is not None or before is not None)


async def read_slice(
    session: ReadSession, order: str, statement: Select[RowT], kinds: Sequence[type], window: Window
) -> Slice[RowT]:
    """One list's part. The statement is ordered by a unique key; `kinds` are the types of its order columns."""
    cursor = window.before if window.backwards else window.after
    place = decode_cursor(order, cursor, kinds) if cursor is not None else None
    marker = sqlakeyset.Marker(place, backwards=window.backwards)
    counting = select(func.count()).select_from(statement.order_by(None).subquery())
    counted = statement.add_columns(counting.scalar_subquery().label("total"))
    page = await sqlakeyset.asyncio.select_page(session, counted, window.size, page=marker)
    # An empty page has no row to carry the total.
    total = page[0].total if page else await session.scalar(counting)
    rows = [(encode_cursor(order, mark.place or ()), row[0]) for mark, row in page.paging.items()]
    return Slice(rows, total or 0, has_previous=page.paging.has_previous, has_next=page.paging.has_next)


def slice_ranked(
    order: str, rows: Sequence[RankedT], rank: Callable[[RankedT], tuple[int, str]], window: Window
) -> Slice[RankedT]:
    """A part of a list that is in memory, in ascending order of a unique rank. A cursor's row may be gone by now."""
    cursor = window.before if window.backwards else window.after
    ranks = [rank(row) for row in rows]
    start, end = 0, len(rows)
    if cursor is not None:
        place = decode_cursor(order, cursor, [int, str])
        start, end = (0, bisect_left(ranks, place)) if window.backwards else (bisect_right(ranks, place), end)
    start, end = (max(start, end - window.size), end) if window.backwards else (start, min(end, start + window.size))
    shown = [(encode_cursor(order, ranks[at]), rows[at]) for at in range(start, end)]
    return Slice(shown, len(rows), has_previous=start > 0, has_next=end < len(rows))


async def read_slices_below(
    session: ReadSession,
    *,
    order: str,
    target: type[RowT],
    by: InstrumentedAttribute[Any],
    newest_by: tuple[InstrumentedAttribute[Any], ...],
    conditions: Sequence[ColumnElement[bool]],
    parents: Sequence[UUID],
    window: Window,
) -> dict[UUID, Slice[RowT]]:
    """The same part of each parent's list, newest first: one statement for all parents, totals included."""
    ascending = window.backwards
    ordering = [column.asc() if ascending else column.desc() for column in newest_by]
    base = select(target).where(by.in_(parents), *conditions)
    totals = (
        base.with_only_columns(by.label("parent"), func.count().label("total"))
        .group_by(by)
        .order_by(None)
        .cte("totals")
    )
    inner = base.add_columns(func.row_number().over(partition_by=by, order_by=ordering).label("place"))
    cursor = window.before if ascending else window.after
    if cursor is not None:
        values = decode_cursor(order, cursor, [_kind(column) for column in newest_by])
        key = tuple_(*newest_by)
        limit = tuple_(*(literal(value, column.type) for value, column in zip(values, newest_by, strict=True)))
        inner = inner.where(key > limit if ascending else key < limit)
    part = inner.subquery("part")
    row = aliased(target, part)
    found = await session.execute(
        select(totals.c.parent, totals.c.total, row, part.c.place)
        .select_from(totals)
        .outerjoin(part, (part.c[by.key] == totals.c.parent) & (part.c.place <= window.size + 1))
        .order_by(totals.c.parent, part.c.place)
    )
    groups: dict[UUID, tuple[int, list[RowT]]] = {parent: (0, []) for parent in parents}
    for parent, total, entity, _ in found:
        groups[parent] = (total, groups[parent][1])
        if entity is not None:
            groups[parent][1].append(entity)
    return {
        parent: _slice(order, rows, total, newest_by, window, cursor is not None)
        for parent, (total, rows) in groups.items()
    }


def _kind(column: InstrumentedAttribute[Any]) -> type:
    kind = column.type.python_type
    return datetime if issubclass(kind, datetime) else kind


def _slice(
    order: str,
    rows: list[RowT],
    total: int,
    newest_by: tuple[InstrumentedAttribute[Any], ...],
    window: Window,
    is_resumed: bool,
) -> Slice[RowT]:
    beyond = len(rows) > window.size
    shown = rows[: window.size]
    if window.backwards:
        shown.reverse()
    return Slice(
        [(encode_cursor(order, [getattr(row, column.key) for column in newest_by]), row) for row in shown],
        total,
        has_previous=beyond if window.backwards else is_resumed,
        has_next=is_resumed if window.backwards else beyond,
    )
