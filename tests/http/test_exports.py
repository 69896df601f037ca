"""The files of exports behind signed links: sent piece by piece, to whoever holds the link, for a while."""

import hashlib
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from plafond.database import ReadSession
from plafond.http.exports import FileGone
from plafond.models import Export, ExportFormat
from plafond.services import writing
from plafond.services.exports import KEPT, read_part
from plafond.services.links import LINK_LIFE, LinkForm, sign_link

from ..conftest import NOW, World
from ..services.exporting import DAY, Pencil, ask_for, parts_of, read_export, write
from ..services.helpers import account_of
from .test_documents import SECRET, Desk, open_desk


def link_to(world: World, export: Export, **given: object) -> str:
    """A link to an export as it is signed now."""
    values = {"id": export.id, "account_id": export.account_id, "form": LinkForm.EXPORT} | given
    ends = world.clock.now() + LINK_LIFE
    return sign_link(SECRET.encode(), values["id"], values["account_id"], ends, values["form"])  # type: ignore[arg-type]


async def a_written(world: World, **given: object) -> Export:
    export = await ask_for(world, **given)  # type: ignore[arg-type]
    assert await write(world) == 1
    return await read_export(world, export.id)


async def test_a_link_opens_a_table_without_a_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PART_BYTES", 1_000)
    export = await a_written(world)
    parts = await parts_of(world, export.id)
    assert len(parts) > 3
    name = f"usage-2026-10-26-2026-11-26-by-day-{export.id.hex[-8:]}.csv"
    async with open_desk(world) as desk:
        response = await desk.get(link_to(world, export))
        assert response.status_code == 200
        assert response.content == b"".join(parts)
        assert hashlib.sha256(response.content).hexdigest() == export.bytes_hash
        assert dict(response.headers) == {
            "content-type": "text/csv; charset=utf-8",
            "content-length": str(len(response.content)),
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "private, no-store",
            "x-content-type-options": "nosniff",
            "etag": f'"{export.bytes_hash}"',
        }
        head = await desk.http.head(link_to(world, export))
        assert (head.status_code, head.content, head.headers) == (200, b"", response.headers)


async def test_a_file_is_read_piece_by_piece(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PART_BYTES", 1_000)
    export = await a_written(world)
    parts = await parts_of(world, export.id)
    async with open_desk(world) as desk, desk.http.stream("GET", link_to(world, export)) as response:
        pieces = [piece async for piece in response.aiter_raw() if piece]
    assert b"".join(pieces) == b"".join(parts)


async def test_a_report_is_a_pdf(world: World) -> None:
    export = await a_written(world, format_=ExportFormat.PDF)
    async with open_desk(world) as desk:
        response = await desk.get(link_to(world, export))
        assert response.headers["content-type"] == "application/pdf"
        assert response.headers["content-disposition"].endswith(f'by-day-{export.id.hex[-8:]}.pdf"')
        assert response.content.startswith(b"%PDF")


async def check_nothing(desk: Desk, path: str) -> None:
    await desk.check_nothing(path)
    head = await desk.http.head(path)
    assert head.status_code == 404


async def test_a_bad_link_opens_nothing(world: World) -> None:
    export, other = await a_written(world), await account_of(world, "calder")
    path = link_to(world, export)
    async with open_desk(world) as desk:
        assert (await desk.get(path)).status_code == 200
        for place in range(len("/documents/"), len(path)):
            changed = "A" if path[place] != "A" else "B"
            await desk.check_nothing(path[:place] + changed + path[place + 1 :])
        await check_nothing(desk, link_to(world, export, account_id=other.id))
        await check_nothing(desk, link_to(world, export, id=uuid4()))
        await check_nothing(desk, link_to(world, export, form=LinkForm.PDF))
        await check_nothing(desk, link_to(world, export, form=LinkForm.XML))
        assert export.account_id is not None
        await check_nothing(desk, sign_link(b"another", export.id, export.account_id, NOW + LINK_LIFE, LinkForm.EXPORT))
        world.clock.stands_at = NOW + LINK_LIFE
        await check_nothing(desk, path)


async def test_what_is_not_ready_or_not_any_more_opens_nothing(world: World) -> None:
    export = await ask_for(world)
    failed = await ask_for(world, format_=ExportFormat.PDF)
    async with open_desk(world) as desk:
        await check_nothing(desk, link_to(world, export))
        for _ in range(5):
            await write(world, Pencil(failures=9))
            world.clock.stands_at += timedelta(minutes=5)
        assert (await desk.get(link_to(world, export))).status_code == 200
        await check_nothing(desk, link_to(world, failed))
        # Its days are over, though nobody has come to delete it yet.
        world.clock.stands_at = NOW + KEPT + DAY
        await check_nothing(desk, link_to(world, export))


async def test_a_file_that_goes_while_it_is_sent_is_cut_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PART_BYTES", 1_000)
    export = await a_written(world)

    async def read_the_first(session: ReadSession, export_id: UUID, number: int) -> bytes | None:
        return await read_part(session, export_id, number) if number == 0 else None

    monkeypatch.setattr("plafond.http.exports.read_part", read_the_first)
    async with open_desk(world) as desk:
        with pytest.raises(FileGone):
            await desk.get(link_to(world, export))
