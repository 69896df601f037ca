"""Exports for tests: asking for them, writing them, and reading what was written."""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select

from plafond.models import Export, ExportFormat, ExportKind, ExportPart, Granularity
from plafond.services.exports import request_export
from plafond.services.papers import Content
from plafond.services.ports import DrawingFailed
from plafond.services.writing import write_due

from ..conftest import NOW, World
from .helpers import ACTOR, account_of

DAY = timedelta(days=1)


class Pencil:
    """Draws at once; fails as often as it is told to. Something else may happen meanwhile."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.drawn: list[Content] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def draw(self, content: Content) -> bytes:
        self.drawn.append(content)
        if self.meanwhile is not None:
            await self.meanwhile()
        if len(self.drawn) <= self.failures:
            raise DrawingFailed(f"{content.number}: its process ended")
        return f"%PDF {content.number}".encode()

    async def read_xml(self, pdf: bytes) -> bytes:  # noqa: ARG002
        raise DrawingFailed("a report has none")


async def ask_for(
    world: World,
    name: str = "acme",
    *,
    kind: ExportKind = ExportKind.USAGE,
    format_: ExportFormat = ExportFormat.CSV,
    start: datetime = NOW - 30 * DAY,
    end: datetime = NOW + DAY,
    granularity: Granularity = Granularity.DAY,
) -> Export:
    """An export that waits to be written."""
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        return await request_export(
            work,
            (await work.lock_accounts([account.id]))[account.id],
            kind=kind,
            format_=format_,
            start=start,
            end=end,
            granularity=granularity,
        )


async def write(world: World, pencil: Pencil | None = None) -> int:
    """One worker's round."""
    return await write_due(world.database, ACTOR, pencil or Pencil())


async def read_export(world: World, export_id: UUID) -> Export:
    async with world.database.read() as session:
        return await session.get_one(Export, export_id)


async def parts_of(world: World, export_id: UUID) -> list[bytes]:
    async with world.database.read() as session:
        rows = await session.execute(
            select(ExportPart.number, ExportPart.data)
            .where(ExportPart.export_id == export_id)
            .order_by(ExportPart.number)
        )
        parts = list(rows)
    assert [number for number, _ in parts] == list(range(len(parts)))
    return [data for _, data in parts]


async def table_of(world: World, export: Export) -> list[dict[str, str]]:
    """The rows of a written table."""
    data = b"".join(await parts_of(world, export.id))
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
