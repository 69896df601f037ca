"""Archives: the PDFs of an account's documents as one ZIP, a document at a time in memory, with an index of them."""

import zipfile
from collections.abc import AsyncGenerator
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from ..database import Actor, Database
from ..models import BillingAccount, CreditNote, Document, DocumentBytes, DocumentKind, Invoice, Transaction
from .drawing import draw_now
from .ports import Draughtsman
from .rules.cells import write_rows
from .wording import format_instant

MAX_DOCUMENTS = 10_000
MAX_BYTES = 500 * 1024**2
READ_AT_ONCE = 500
INDEX_HEADER = ("file", "kind", "number", "issued_at", "sha256", "state")
FOLDERS = {
    DocumentKind.INVOICE: "invoices",
    DocumentKind.CREDIT_NOTE: "credit-notes",
    DocumentKind.RECEIPT: "receipts",
}
TOO_MANY = f"It would have more than {MAX_DOCUMENTS:,} documents: ask for a shorter time."
TOO_LARGE = f"It would have more than {MAX_BYTES // 1024**2} MiB: ask for a shorter time."


class TooLarge(Exception):
    """There is more than an archive may hold. Its text says what to do."""


class _Outlet:
    """Where a ZIP is written to: it keeps what came since it was last emptied, and cannot go back."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def write(self, data: bytes) -> int:
        """Take some of the file."""
        self._kept += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        """What came since."""
        data = bytes(self._kept)
        self._kept.clear()
        return data


async def write_archive(
    database: Database,
    actor: Actor,
    draughtsman: Draughtsman,
    account: BillingAccount,
    start: datetime,
    end: datetime,
) -> AsyncGenerator[tuple[bytes, int]]:
    """A ZIP in pieces, each with how many documents it has by then. What is not drawn yet is drawn now.

    What could not be drawn is no file in it, and the index says so.
    """
    found = await _list_documents(database, account.id, start, end)
    outlet = _Outlet()
    index: list[tuple[str, ...]] = []
    taken: set[str] = set()
    size = count = 0
    # PDFs are packed already.
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for document_id, issued_at in found:
            async with database.read() as session:
                row = (
                    await session.execute(
                        select(Document, DocumentBytes.pdf)
                        .outerjoin(DocumentBytes, DocumentBytes.document_id == Document.id)
                        .where(Document.id == document_id)
                    )
                ).one_or_none()
            if row is None:  # purged meanwhile
                continue
            document: Document = row[0]
            pdf: bytes | None = row[1]
            number = str(document.content["number"])
            if pdf is None and document.failure is None:
                pdf = await draw_now(database, actor, draughtsman, document)
            told = (document.kind, number, format_instant(issued_at))
            if pdf is None:
                index.append(("", *told, "", "could not be made, and we are looking into it"))
                continue
            size += len(pdf)
            if size > MAX_BYTES:
                raise TooLarge(TOO_LARGE)
            name = _name(document, number, taken)
            count += 1
            archive.writestr(_entry(name, issued_at, account.timezone), pdf)
            async with database.read() as session:
                digest = await session.scalar(select(Document.bytes_hash).where(Document.id == document_id))
            index.append((name, *told, digest or "", "here"))
            yield outlet.take(), count
        entry = _entry("index.csv", end, account.timezone)
        archive.writestr(entry, write_rows([INDEX_HEADER, *index]))
    yield outlet.take(), count


async def _list_documents(
    database: Database, account_id: UUID, start: datetime, end: datetime
) -> list[tuple[UUID, datetime]]:
    """The documents that were issued in a time, the oldest first."""
    issued_at = func.coalesce(
        Invoice.issued_at, CreditNote.issued_at, Transaction.created_at, type_=Invoice.issued_at.type
    )
    statement = (
        select(Document.id, issued_at)
        .outerjoin(Invoice, Invoice.id == Document.subject_id)
        .outerjoin(CreditNote, CreditNote.id == Document.subject_id)
        .outerjoin(Transaction, Transaction.id == Document.subject_id)
        .where(Document.account_id == account_id, issued_at >= start, issued_at < end)
        .order_by(issued_at, Document.id)
        .limit(MAX_DOCUMENTS + 1)
    )
    async with database.read() as session:
        found = (await session.execute(statement)).all()
    if len(found) > MAX_DOCUMENTS:
        raise TooLarge(TOO_MANY)
    return [(document_id, at) for document_id, at in found]


def _name(document: Document, number: str, taken: set[str]) -> str:
    """What a document's file is called in the archive: its number, safe for any system, and once."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in number)
    name = f"{FOLDERS[document.kind]}/{safe[:100].lstrip('.') or 'document'}.pdf"
    if name in taken:
        name = name.removesuffix(".pdf") + f"-{document.id.hex[-8:]}.pdf"
    taken.add(name)
    return name


def _entry(name: str, at: datetime, zone: str) -> zipfile.ZipInfo:
    # A ZIP's times have no zone, and begin in 1980.
    local = at.astimezone(ZoneInfo(zone))
    entry = zipfile.ZipInfo(name, max((1980, 1, 1, 0, 0, 0), local.timetuple()[:6]))
    entry.external_attr = 0o644 << 16
    return entry
