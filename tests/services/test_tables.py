"""What tables of exports say: each kind, in each format, of an account and of all, safe in a spreadsheet and exact."""

import csv
import hashlib
import io
import tracemalloc
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import func, insert, select, update

from plafond.models import (
    AuditEntry,
    BillingAccount,
    Company,
    CreditNote,
    Document,
    Export,
    ExportFormat,
    ExportKind,
    ExportStatus,
    Invoice,
    InvoiceStatus,
    LedgerAccount,
    LedgerPosting,
    OutboxEvent,
)
from plafond.models.types import new_id
from plafond.services import archives, writing
from plafond.services.closes import WALL_CLOCK, sum_ledger
from plafond.services.errors import BillingError, list_refusals
from plafond.services.exports import MAX_PROGRESS, OF_ALL, OF_ALL_ONLY, request_export
from plafond.services.sheets import CUT, MAX_CELL, Xlsx
from plafond.services.tables import FOCUS_HEADER

from ..conftest import NOW, World
from .exporting import DAY, Pencil, parts_of, read_export, write
from .helpers import ACTOR, account_of

START = datetime(2025, 11, 1, tzinfo=UTC)
BOOKS = sorted(OF_ALL - OF_ALL_ONLY - {ExportKind.AUDIT})
HOSTILE = '=HYPERLINK("http://evil","x"),\r\n\'+cmd|\' /C calc\'!A0'
TABLES = [kind for kind in ExportKind if kind not in (ExportKind.USAGE, ExportKind.SPEND, ExportKind.DOCUMENTS)]


async def ask(
    world: World,
    kind: ExportKind,
    name: str | None = "acme",
    *,
    format_: ExportFormat = ExportFormat.CSV,
    start: datetime | None = START,
    end: datetime = NOW,
) -> Export:
    """An export of something without buckets, that waits to be written; of all accounts without a name."""
    as_of = kind in (ExportKind.RECEIVABLES_AGING, ExportKind.DEFERRED_REVENUE)
    account_id = None if name is None else (await account_of(world, name)).id
    async with world.database.work(ACTOR) as work:
        account = None if account_id is None else (await work.lock_accounts([account_id]))[account_id]
        return await request_export(
            work,
            account,
            kind=kind,
            format_=format_,
            start=None if as_of else start,
            end=end,
            granularity=None,
        )


async def file_of(world: World, kind: ExportKind, name: str | None = "acme", **given: Any) -> tuple[Export, bytes]:
    """An export's row and file."""
    asked = await ask(world, kind, name, **given)
    assert await write(world) == 1
    export = await read_export(world, asked.id)
    assert export.status is ExportStatus.READY, export.failure
    data = b"".join(await parts_of(world, asked.id))
    assert export.bytes_hash == hashlib.sha256(data).hexdigest()
    return export, data


async def rows_of(world: World, kind: ExportKind, name: str | None = "acme", **given: Any) -> list[dict[str, str]]:
    """The rows of a CSV."""
    export, data = await file_of(world, kind, name, **given)
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
    assert export.row_count == export.rows_written == len(rows)
    return rows


MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_xlsx(data: bytes) -> list[list[tuple[str, str]]]:
    """The cells of a sheet, each with its type (`n`, `inlineStr`); it holds no formula."""
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        assert book.testzip() is None
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))  # noqa: S314  # our own
        assert not any("externalLink" in name or "vba" in name for name in book.namelist())
    assert sheet.find(f".//{MAIN}f") is None
    assert sheet.find(f".//{MAIN}hyperlink") is None
    return [
        [(cell.get("t", "n"), "".join(cell.itertext())) for cell in row.iter(f"{MAIN}c")]
        for row in sheet.iter(f"{MAIN}row")
    ]


# --- what each says --------------------------------------------------------------------------------------------------


async def test_invoices_add_up_and_are_the_accounts_own(world: World) -> None:
    rows = await rows_of(world, ExportKind.INVOICES)
    account = await account_of(world)
    async with world.database.read() as session:
        invoices = (
            await session.scalars(
                select(Invoice)
                .where(Invoice.account_id == account.id, Invoice.status != InvoiceStatus.DRAFT)
                .where(Invoice.issued_at >= START, Invoice.issued_at < NOW)
                .order_by(Invoice.issued_at, Invoice.id)
            )
        ).all()
    assert [row["number"] for row in rows] == [invoice.number for invoice in invoices] != []
    for row, invoice in zip(rows, invoices, strict=True):
        assert row["account"] == "acme"
        assert int(row["total_minor"]) == invoice.total_minor == int(row["subtotal_minor"]) + int(row["tax_minor"])
        assert Decimal(row["total"]) * 100 == invoice.total_minor
        assert (row["status"], int(row["due_minor"])) == (invoice.status, invoice.due_minor)
        assert row["content_sha256"] == invoice.content_hash


async def test_lines_and_taxes_are_those_of_the_invoices(world: World) -> None:
    invoices = await rows_of(world, ExportKind.INVOICES, None)
    lines = await rows_of(world, ExportKind.INVOICE_LINES, None)
    taxes = await rows_of(world, ExportKind.TAX, None)
    subtotals: dict[str, int] = {}
    for line in lines:
        subtotals[line["invoice"]] = subtotals.get(line["invoice"], 0) + int(line["amount_minor"])
    levied: dict[str, int] = {}
    for tax in taxes:
        if tax["document"] == "INVOICE":
            levied[tax["number"]] = levied.get(tax["number"], 0) + int(tax["tax_minor"])
    assert subtotals == {row["number"]: int(row["subtotal_minor"]) for row in invoices} != {}
    assert levied == {row["number"]: int(row["tax_minor"]) for row in invoices}


async def test_the_books_balance_in_their_table_too(world: World) -> None:
    rows = await rows_of(world, ExportKind.LEDGER, None, start=datetime(2020, 1, 1, tzinfo=UTC))
    debits = sum(int(row["debit_minor"]) for row in rows)
    assert debits == sum(int(row["credit_minor"]) for row in rows) > 0
    receivables = [
        row for row in rows if row["ledger_account"] == LedgerAccount.RECEIVABLES and row["currency"] == "USD"
    ]
    async with world.database.read() as session:
        booked = await sum_ledger(session, WALL_CLOCK, LedgerAccount.RECEIVABLES)
    assert sum(int(row["debit_minor"]) - int(row["credit_minor"]) for row in receivables) == booked.get("USD", 0)
    assert all(bool(row["line_id"]) == (row["ledger_account"] == LedgerAccount.DEFERRED) for row in rows)


async def test_focus_sums_to_what_was_invoiced_less_what_was_credited(world: World) -> None:
    rows = await rows_of(world, ExportKind.FOCUS)
    account = await account_of(world)
    of_account = (Invoice.account_id == account.id, Invoice.issued_at >= START, Invoice.issued_at < NOW)
    async with world.database.read() as session:
        invoiced = await session.scalar(select(func.sum(Invoice.total_minor)).where(*of_account))
        credited = await session.scalar(
            select(func.coalesce(func.sum(CreditNote.total_minor), 0)).where(
                CreditNote.account_id == account.id, CreditNote.issued_at >= START, CreditNote.issued_at < NOW
            )
        )
    assert sum(int(row["x_BilledCostMinor"]) for row in rows) == int(invoiced or 0) - int(credited or 0)
    assert tuple(rows[0]) == FOCUS_HEADER
    for row in rows:
        assert Decimal(row["BilledCost"]) * 100 == int(row["x_BilledCostMinor"])
        assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"]
        assert row["ChargeCategory"] in {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
        assert row["ChargeClass"] in {"", "Correction"}
        assert row["ChargeFrequency"] in {"One-Time", "Recurring", "Usage-Based"}
        assert row["ServiceCategory"] == "Other"
        assert row["ChargePeriodStart"].endswith("Z")
        for name in ("ProviderName", "PublisherName", "InvoiceIssuerName", "ServiceName", "ChargeDescription"):
            assert row[name], name
    assert {row["ChargeCategory"] for row in rows} >= {"Purchase"}


async def test_the_log_can_be_checked_from_its_table(world: World) -> None:
    rows = await rows_of(world, ExportKind.AUDIT, start=datetime(2020, 1, 1, tzinfo=UTC))
    account = await account_of(world)
    numbers = [int(row["number"]) for row in rows]
    assert numbers == list(range(1, len(rows) + 1))
    assert len(rows) >= 3
    for before, after in pairwise(rows):
        assert after["previous_hash"] == before["hash"]
    assert account.audit_count >= len(rows)
    own = await rows_of(world, ExportKind.AUDIT, None, start=datetime(2020, 1, 1, tzinfo=UTC), end=NOW + DAY)
    assert {row["action"] for row in own} >= {"plan.added", "tax_table.added", "export.requested"}


async def test_the_reports_are_what_the_ledger_says(world: World) -> None:
    aged = await rows_of(world, ExportKind.RECEIVABLES_AGING, None)
    deferred = await rows_of(world, ExportKind.DEFERRED_REVENUE, None)
    taxes = await rows_of(world, ExportKind.TAX_REPORT, None, start=datetime(2020, 1, 1, tzinfo=UTC))
    async with world.database.read() as session:
        receivables = await sum_ledger(session, WALL_CLOCK, LedgerAccount.RECEIVABLES, up_to=NOW)
        waiting = await sum_ledger(session, WALL_CLOCK, LedgerAccount.DEFERRED, up_to=NOW)
        tax = await sum_ledger(session, WALL_CLOCK, LedgerAccount.TAX, before=NOW)

    def total(rows: list[dict[str, str]], column: str) -> dict[str, int]:
        sums: dict[str, int] = {}
        for row in rows:
            sums[row["currency"]] = sums.get(row["currency"], 0) + int(row[column])
        return {currency: amount for currency, amount in sums.items() if amount}

    assert total(aged, "total_minor") == {currency: amount for currency, amount in receivables.items() if amount}
    assert total(deferred, "deferred_minor") == {currency: -amount for currency, amount in waiting.items() if amount}
    assert total(deferred, "earned_in_month_minor") == total(deferred, "deferred_minor") != {}
    assert total(taxes, "tax_minor") == {currency: -amount for currency, amount in tax.items() if amount}


async def test_what_another_tenant_has_is_not_in_it(world: World) -> None:
    for kind in BOOKS:
        assert {row["account"] for row in await rows_of(world, kind)} <= {"acme"}, kind
    everybody = {row["account"] for row in await rows_of(world, ExportKind.INVOICES, None)}
    assert len(everybody) > 1


async def test_ranges_that_meet_hold_each_row_once(world: World) -> None:
    cut = NOW - 40 * DAY
    for kind in [*BOOKS, ExportKind.FOCUS, ExportKind.AUDIT]:
        whole = await rows_of(world, kind)
        parts = await rows_of(world, kind, end=cut) + await rows_of(world, kind, start=cut)
        assert sorted(map(str, parts)) == sorted(map(str, whole)), kind


# --- safe and exact --------------------------------------------------------------------------------------------------


async def rename_everything(world: World) -> None:
    """Names and texts as an attacker would choose them, where what is frozen allows it."""
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).values(name=HOSTILE))
        await work.session.execute(update(Company).values(legal_name=HOSTILE))
        account = await account_of(world)
        locked = (await work.lock_accounts([account.id]))[account.id]
        work.audit(locked, HOSTILE, HOSTILE, before={"name": HOSTILE}, after={HOSTILE: HOSTILE})
        await work.session.execute(
            update(Invoice).where(Invoice.account_id == account.id).values(bill_to={"name": HOSTILE, "country": "=1"})
        )
        invoice = (await work.session.scalars(select(Invoice).where(Invoice.account_id == account.id).limit(1))).one()
        work.session.add(
            CreditNote(
                created_at=NOW - DAY,
                account_id=account.id,
                issuer_id=invoice.issuer_id,
                invoice_id=invoice.id,
                number=HOSTILE,
                reason=HOSTILE,
                currency=invoice.currency,
                issued_at=NOW - DAY,
                subtotal_minor=1,
                tax_minor=0,
                total_minor=1,
                bill_to={"name": HOSTILE, "country": "=1"},
                issuer={"name": HOSTILE},
            )
        )


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("format_", [ExportFormat.CSV, ExportFormat.XLSX])
async def test_no_cell_is_a_formula(world: World, kind: ExportKind, format_: ExportFormat) -> None:
    await rename_everything(world)
    name = None if kind in OF_ALL_ONLY or kind in BOOKS else "acme"
    _, data = await file_of(
        world, kind, name, format_=format_, end=NOW + (DAY if kind is ExportKind.AUDIT else 0 * DAY)
    )
    if format_ is ExportFormat.XLSX:
        cells = [cell for row in read_xlsx(data) for cell in row]
        assert {type_ for type_, _ in cells} <= {"n", "inlineStr"}
        hostile = [text for _, text in cells if "cmd|" in text]
        assert all(type_ == "inlineStr" for type_, text in cells if "cmd|" in text)
    else:
        rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
        assert len({len(row) for row in rows}) == 1
        texts = [cell for row in rows for cell in row]
        hostile = [cell for cell in texts if "cmd|" in cell]
        for cell in texts:
            # A number may be negative; a text that a spreadsheet would run begins with an apostrophe.
            assert cell.lstrip()[:1] not in {"=", "+", "@"}, cell
            assert cell.lstrip()[:1] != "-" or Decimal(cell) < 0, cell
    if kind not in (ExportKind.FOCUS, ExportKind.TAX_REPORT, ExportKind.RECEIVABLES_AGING):
        assert hostile


async def test_a_sheet_holds_what_the_csv_does(world: World) -> None:
    rows = await rows_of(world, ExportKind.INVOICES)
    export, data = await file_of(world, ExportKind.INVOICES, format_=ExportFormat.XLSX)
    header, *sheet = read_xlsx(data)
    assert [text for _, text in header] == list(rows[0])
    assert export.row_count == len(sheet) == len(rows)
    place = list(rows[0]).index("total")
    for row, cells in zip(rows, sheet, strict=True):
        shown = [text for _, text in cells]
        wanted = [value for value in row.values() if value != ""]
        numbers = [(type_, text) for type_, text in cells if type_ == "n"]
        assert ("n", row["total_minor"]) in numbers
        assert len(shown) == len(wanted)
        assert Decimal(row["total"]) in [Decimal(text) for _, text in numbers], place


async def test_amounts_that_no_number_holds_are_texts() -> None:
    sheet = Xlsx()
    sheet.add(
        [
            (Decimal("9999999999999.99"), Decimal("99999999999999.99"), 10**15 - 1, 10**15, -(10**14)),
            (Decimal("0.00"), Decimal("-0.01"), Decimal("1.235"), "x" * (MAX_CELL + 1), None),
        ]
    )
    held: list[int] = []

    async def hold_on() -> None:
        held.append(1)

    data = b"".join([part async for part in sheet.end(hold_on)])
    sheet.close()
    large, small = read_xlsx(data)
    assert large == [
        ("n", "9999999999999.99"),
        ("inlineStr", "99999999999999.99"),
        ("n", "999999999999999"),
        ("inlineStr", "1000000000000000"),
        ("n", "-100000000000000"),
    ]
    assert [Decimal(text) for type_, text in small if type_ == "n"] == [Decimal(0), Decimal("-0.01"), Decimal("1.235")]
    [text] = [text for type_, text in small if type_ == "inlineStr"]
    assert len(text) == MAX_CELL
    assert text.endswith(CUT)


# --- documents -------------------------------------------------------------------------------------------------------


async def test_documents_come_as_an_archive_with_an_index(world: World) -> None:
    pencil = Pencil()
    asked = await ask(world, ExportKind.DOCUMENTS, format_=ExportFormat.ZIP)
    assert await write(world, pencil) == 1
    export = await read_export(world, asked.id)
    assert export.status is ExportStatus.READY, export.failure
    with zipfile.ZipFile(io.BytesIO(b"".join(await parts_of(world, asked.id)))) as archive:
        assert archive.testzip() is None
        index = list(csv.DictReader(io.StringIO(archive.read("index.csv").decode(), newline="")))
        assert sorted(archive.namelist()) == sorted(["index.csv", *(row["file"] for row in index)])
        assert export.row_count == len(index) > 0
        for row in index:
            assert hashlib.sha256(archive.read(row["file"])).hexdigest() == row["sha256"]
        assert {row["file"].split("/")[0] for row in index} >= {"invoices", "receipts"}
    assert {info.number for info in pencil.drawn} <= {row["number"] for row in index}
    # Drawn once: what it took is kept.
    await ask(world, ExportKind.DOCUMENTS, format_=ExportFormat.ZIP)
    again = Pencil()
    assert await write(world, again) == 1
    assert again.drawn == []


async def test_what_cannot_be_made_is_named_in_the_index(world: World) -> None:
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        document = (
            await work.session.scalars(select(Document).where(Document.account_id == account.id).limit(1))
        ).one()
        document.failure = "its page cannot be laid out"
    _, data = await file_of(world, ExportKind.DOCUMENTS, format_=ExportFormat.ZIP)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        index = list(csv.DictReader(io.StringIO(archive.read("index.csv").decode(), newline="")))
    [missing] = [row for row in index if not row["file"]]
    assert missing["number"] == document.content["number"]
    assert "could not be made" in missing["state"]


@pytest.mark.parametrize("limit", ["MAX_DOCUMENTS", "MAX_BYTES"])
async def test_an_archive_has_a_limit(world: World, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(archives, limit, 1)
    asked = await ask(world, ExportKind.DOCUMENTS, format_=ExportFormat.ZIP)
    await write(world)
    export = await read_export(world, asked.id)
    assert export.status is ExportStatus.FAILED
    assert "ask for a shorter time" in (export.failure or "")
    assert await parts_of(world, asked.id) == []


# --- asked for, told, and large --------------------------------------------------------------------------------------

CSV, XLSX, PDF, ZIP = ExportFormat.CSV, ExportFormat.XLSX, ExportFormat.PDF, ExportFormat.ZIP


@pytest.mark.parametrize(
    ("kind", "name", "given", "field", "said"),
    [
        (ExportKind.DOCUMENTS, None, {"format_": ZIP}, "accountId", "of one account"),
        (ExportKind.FOCUS, None, {}, "accountId", "of one account"),
        (ExportKind.TAX_REPORT, "acme", {}, "accountId", "leave `accountId` out"),
        (ExportKind.DOCUMENTS, "acme", {"format_": CSV}, "format", "come as a ZIP"),
        (ExportKind.INVOICES, "acme", {"format_": ZIP}, "format", "of DOCUMENTS"),
        (ExportKind.INVOICES, "acme", {"format_": PDF}, "format", "reports are of USAGE"),
        (ExportKind.USAGE, "acme", {}, "granularity", "say how wide"),
        (ExportKind.SPEND, "acme", {}, "granularity", "by DAY"),
        (ExportKind.LEDGER, "acme", {"start": None}, "from", "say from when"),
        (ExportKind.LEDGER, "acme", {"start": NOW - 12 * 366 * DAY}, "to", "at most 11 years"),
        (ExportKind.LEDGER, None, {"start": NOW + DAY, "end": NOW + 2 * DAY}, "from", "lies ahead"),
        (ExportKind.RECEIVABLES_AGING, None, {"end": NOW + DAY}, "to", "lies ahead"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    world: World, kind: ExportKind, name: str | None, given: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(BillingError) as refused:
        await ask(world, kind, name, **given)
    told = {single.field[-1]: str(single) for single in list_refusals(refused.value) if single.field}
    assert said in told[field]


async def test_an_export_of_all_is_written_kept_and_let_go(world: World) -> None:
    export, _ = await file_of(world, ExportKind.LEDGER, None, format_=ExportFormat.XLSX)
    assert export.account_id is None
    async with world.database.read() as session:
        told = await session.scalars(select(AuditEntry.action).where(AuditEntry.object == f"export:{export.id}"))
        assert sorted(told) == ["export.ready", "export.requested"]
    world.clock.stands_at = NOW + 7 * DAY
    assert await write(world) == 1
    assert (await read_export(world, export.id)).status is ExportStatus.EXPIRED
    assert await parts_of(world, export.id) == []


async def test_progress_is_told_and_not_too_often(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PROGRESS_S", 0.0)
    monkeypatch.setattr(writing, "SLOWER", 1.0)
    monkeypatch.setattr("plafond.services.tables.ROWS_AT_ONCE", 1)
    monkeypatch.setattr(writing._File, "pause", 0.0)
    export = await ask(world, ExportKind.LEDGER)
    monkeypatch.setattr(writing._File, "__init__", _at_once(writing._File.__init__))
    assert await write(world) == 1
    async with world.database.read() as session:
        events = (
            await session.scalars(
                select(OutboxEvent)
                .where(OutboxEvent.kind.startswith("export."), OutboxEvent.account_id == export.account_id)
                .order_by(OutboxEvent.sequence)
            )
        ).all()
    mine = [event for event in events if event.payload["exportId"] == str(export.id)]
    progress = [event.payload["rowsWritten"] for event in mine if event.kind == "export.progressed"]
    assert 2 < len(progress) <= MAX_PROGRESS
    assert progress == sorted(set(progress))
    assert mine[-1].kind == "export.ready"


def _at_once(init: Any) -> Any:
    def begin(self: Any, *args: Any, **given: Any) -> None:
        init(self, *args, **given)
        self.pause = 0.0

    return begin


async def test_a_large_table_is_small_in_memory(world: World) -> None:
    account = await account_of(world)
    many = 20_000
    async with world.database.work(ACTOR) as work:
        entry_id = (
            await work.session.scalars(
                select(LedgerPosting.entry_id).where(LedgerPosting.account_id == account.id).limit(1)
            )
        ).one()
        for _ in range(many // 1_000):
            values = {
                "created_at": NOW - DAY,
                "updated_at": NOW - DAY,
                "account_id": account.id,
                "entry_id": entry_id,
                "ledger_account": LedgerAccount.CASH,
                "currency": account.currency,
            }
            await work.session.execute(
                insert(LedgerPosting),
                [{**values, "id": new_id(), "amount_minor": 1 if place % 2 else -1} for place in range(1_000)],
            )
    for format_ in (ExportFormat.CSV, ExportFormat.XLSX):
        tracemalloc.start()
        try:
            export, _ = await file_of(world, ExportKind.LEDGER, format_=format_, start=datetime(2020, 1, 1, tzinfo=UTC))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (export.row_count or 0) >= many
        assert peak < 24 * 1024**2, format_


async def test_the_reads_do_not_grow_with_the_rows(world: World) -> None:
    counts = []
    for start in (NOW - 40 * DAY, datetime(2020, 1, 1, tzinfo=UTC)):
        await ask(world, ExportKind.FOCUS, start=start)
        world.statements.clear()
        await write(world)
        counts.append(len(world.statements))
    assert counts[0] == counts[1]
