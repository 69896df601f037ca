"""The files of exports behind signed links, sent piece by piece: none is ever whole in memory."""

from collections.abc import AsyncGenerator
from zoneinfo import ZoneInfo

from starlette.responses import Response, StreamingResponse

from ..database import Database
from ..models import BillingAccount, Export, ExportFormat
from ..services.accounts import load_accounts
from ..services.exports import find_file, read_part
from ..services.links import OpenedLink

MEDIA_TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ExportFormat.PDF: "application/pdf",
    ExportFormat.ZIP: "application/zip",
}


class FileGone(Exception):
    """The file was deleted while it was sent: whoever fetches it sees that it is too short."""


async def send_export(database: Database, opened: OpenedLink, *, with_body: bool) -> Response | None:
    """The file that a link opens; none where there is none, or not any more."""
    async with database.read() as session:
        found = await find_file(session, opened.document_id, opened.account_id, database.clock.now())
        [account] = await load_accounts(session, [opened.account_id])
    if found is None:
        return None
    export, size = found
    headers = {
        "Content-Disposition": f'attachment; filename="{_name(export, account)}"',
        "Content-Type": MEDIA_TYPES[export.format],
        "Content-Length": str(size),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{export.bytes_hash}"',
    }
    if not with_body:
        return Response(headers=headers)
    return StreamingResponse(_read(database, export, size), headers=headers)


async def _read(database: Database, export: Export, size: int) -> AsyncGenerator[bytes]:
    number = 0
    while size > 0:
        # A short session for each piece: a slow reader keeps no connection to the database.
        async with database.read() as session:
            part = await read_part(session, export.id, number)
        if part is None:
            raise FileGone(f"export {export.id} lost its file while it was sent")
        yield part
        number, size = number + 1, size - len(part)


def _name(export: Export, account: BillingAccount | None) -> str:
    """What the file is called: what it holds, for which local days, and the end of its id, since others hold more."""
    zone = ZoneInfo("UTC" if account is None else account.timezone)
    first, end = export.start_at.astimezone(zone).date(), export.end_at.astimezone(zone).date()
    what = export.kind.lower().replace("_", "-")
    days = f"{end}" if export.start_at == export.end_at else f"{first}-{end}"
    by = "" if export.granularity is None else f"-by-{export.granularity.lower()}"
    return f"{what}-{days}{by}-{export.id.hex[-8:]}.{export.format.lower()}"
