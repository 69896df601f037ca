"""Writing: the file of each export once, piece by piece, outside of any transaction that others wait for."""

import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from ..database import Actor, Database, ReadSession, Work, take_snapshot
from ..faults import reach
from ..models import BillingAccount, Export, ExportFormat, ExportKind, ExportStatus, Metric, NoticeSeverity, WorkKind
from . import catalogue
from .accounts import load_accounts
from .archives import TooLarge, write_archive
from .due_work import NOBODY, Fenced, Taken, claim, finish, give_back, hold_on, postpone
from .explorer import Days, read_spend
from .exports import (
    MAX_PROGRESS,
    add_part,
    drop_parts,
    expire_export,
    mark_failed,
    mark_progress,
    mark_ready,
)
from .notices import clear_notice, raise_notice
from .ports import Draughtsman, DrawingFailed
from .reports import load_report
from .rules.money import to_decimal
from .rules.periods import Period, buckets_between
from .series import SeriesRow, read_rows
from .sheets import Row, open_sheet
from .tables import Range, in_batches, open_table
from .wording import format_instant

log = logging.getLogger("plafond.writing")

WRITING = frozenset({WorkKind.WRITE_EXPORT})
MAX_TRIES = 4
PART_BYTES = 1024**2
MAX_ROWS = 1_000_000
ROWS_AT_ONCE = 500
PROGRESS_S = 1.0
"""How long it takes until an export first tells how far it is; each time after that a little longer."""
SLOWER = 1.3
HOLDING_S = 15.0
"""So often whoever writes says that it still does."""
HEADER = ("metric", "workspace", "start", "end", "local_start", "quantity", "unit")
SPEND_HEADER = ("day", "metric", "workspace", "line_kind", "amount_minor", "amount", "currency")
LATER = "It could not be written, and we are looking into it: ask for it again later."


class NotWritable(Exception):
    """The file cannot be written as it was asked for, however often it is tried. Its text says what to do."""


async def write_due(database: Database, actor: Actor, draughtsman: Draughtsman, *, limit: int = 4) -> int:
    """Write what was asked for, one after the other, and delete what expired. Gives how many were taken."""
    for count in range(limit):
        # One at a time: the lease begins when its writing does.
        async with database.work(actor) as work:
            taken = await claim(work, work.clock.now(), limit=1, kinds=WRITING)
        if not taken:
            return count
        await _try_to_write(database, actor, draughtsman, taken[0])
    return limit


async def _try_to_write(database: Database, actor: Actor, draughtsman: Draughtsman, taken: Taken) -> None:
    """Write what a worker took; what fails is given back, and after the last try said to have failed."""
    try:
        if taken.failures >= MAX_TRIES:
            raise DrawingFailed("whoever wrote it ended before it was done, each time")
        async with database.read() as session:
            export = await session.get_one(Export, UUID(taken.subject))
        if export.status in (ExportStatus.PENDING, ExportStatus.FAILED):
            await _write(_File(database, actor, taken, export), draughtsman)
        else:
            async with database.work(actor) as work:
                owner, export = await _lock(work, taken)
                await finish(work, taken)
                await expire_export(work, owner, export)
    except Fenced:
        log.warning("export %s was taken over by another worker", taken.subject)
    except (NotWritable, TooLarge) as refusal:
        async with database.work(actor) as work:
            owner, export = await _lock(work, taken)
            await finish(work, taken)
            await mark_failed(work, owner, export, str(refusal))
    except Exception as failure:
        log.exception("export %s could not be written, try %d", taken.subject, taken.tries)
        async with database.work(actor) as work:
            told = f"{type(failure).__name__}: {failure}"
            if await give_back(work, taken, told, max_tries=MAX_TRIES):
                await _show_failure(work, taken)


@dataclass
class _File:
    """A file while it is written: what is kept of it, and what is not yet."""

    database: Database
    actor: Actor
    taken: Taken
    export: Export
    parts: int = 0
    row_count: int = 0
    told: int = 0
    """How often it told how far it is."""
    told_at: float = field(default_factory=time.monotonic)
    held_at: float = field(default_factory=time.monotonic)
    pause: float = PROGRESS_S
    buffer: bytearray = field(default_factory=bytearray)
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    async def begin(self) -> None:
        """Start anew: what an earlier try left is no part of it."""
        async with self.database.work(self.actor) as work:
            await hold_on(work, self.taken)
            await drop_parts(work, self.export.id)

    async def note(self) -> None:
        """Say every now and then how far it is, and that somebody still writes it."""
        now = time.monotonic()
        is_told = self.told < MAX_PROGRESS and now - self.told_at >= self.pause
        if is_told or now - self.held_at >= HOLDING_S:
            await self.hold(is_told=is_told)

    async def hold(self, *, is_told: bool = False) -> None:
        """Say that somebody still writes it."""
        async with self.database.work(self.actor) as work:
            await hold_on(work, self.taken)
            owner, export = await _lock(work, self.taken)
            export.rows_written = self.row_count
            await mark_progress(work, owner, export, is_told=is_told)
        self.held_at = time.monotonic()
        if is_told:
            self.told, self.told_at, self.pause = self.told + 1, self.held_at, self.pause * SLOWER

    async def add(self, data: bytes) -> None:
        """Append to the file."""
        self.digest.update(data)
        self.buffer += data
        while len(self.buffer) >= PART_BYTES:
            await self._keep(bytes(self.buffer[:PART_BYTES]))
            del self.buffer[:PART_BYTES]

    async def end(self) -> None:
        """Keep the rest, and say that the file is there."""
        if self.buffer:
            await self._keep(bytes(self.buffer))
        reach("export.written")
        async with self.database.work(self.actor) as work:
            owner, export = await _lock(work, self.taken)
            had_failed = export.status is ExportStatus.FAILED
            await mark_ready(work, owner, export, row_count=self.row_count, bytes_hash=self.digest.hexdigest())
            assert export.expires_at is not None, "it is ready"
            # The same work deletes the file when its days are over.
            await postpone(work, self.taken, export.expires_at)
            if had_failed and owner is not None:
                await clear_notice(work, owner, "EXPORT_FAILED", str(export.id))

    async def _keep(self, data: bytes) -> None:
        reach("export.part")
        async with self.database.work(self.actor) as work:
            await hold_on(work, self.taken)
            add_part(work, self.export, self.parts, data)
        self.parts += 1


async def _write(file: _File, draughtsman: Draughtsman) -> None:
    await file.begin()
    if file.export.format is ExportFormat.PDF:
        await _write_report(file, draughtsman)
    elif file.export.format is ExportFormat.ZIP:
        await _write_archive(file, draughtsman)
    else:
        await _write_table(file)
    await file.end()


async def _write_report(file: _File, draughtsman: Draughtsman) -> None:
    export = file.export
    async with file.database.read() as session:
        await take_snapshot(session)
        account = await _load_account(session, export)
        metrics = await catalogue.list_metrics(session)
        buckets = _cut(export, account)
        report = await load_report(session, account, metrics, buckets, export, file.database.clock.now_for(account))
    file.row_count = len(report.metrics) * len(buckets)
    await file.add(await draughtsman.draw(report))


async def _write_archive(file: _File, draughtsman: Draughtsman) -> None:
    export = file.export
    async with file.database.read() as session:
        account = await _load_account(session, export)
    pieces = write_archive(file.database, file.actor, draughtsman, account, export.start_at, export.end_at)
    async for data, count in pieces:
        file.row_count = count
        await file.add(data)
        await file.note()


async def _write_table(file: _File) -> None:
    sheet = open_sheet(file.export.format)
    try:
        async with file.database.read() as session:
            # One state from the first row to the last, whatever is written meanwhile.
            await take_snapshot(session)
            header, batches = await _open(session, file)
            await file.add(sheet.add([header]))
            async for rows in batches:
                file.row_count += len(rows)
                if file.row_count > MAX_ROWS:
                    shorter = ", or for wider buckets" if file.export.granularity is not None else ""
                    raise NotWritable(f"It would have more than {MAX_ROWS:,} rows: ask for a shorter range{shorter}.")
                await file.add(sheet.add(rows))
                await file.note()
        async for data in sheet.end(file.hold):
            await file.add(data)
    finally:
        sheet.close()


async def _open(session: ReadSession, file: _File) -> tuple[Row, AsyncGenerator[list[Row]]]:
    """The header of a table, and its rows."""
    export = file.export
    if export.kind not in (ExportKind.USAGE, ExportKind.SPEND):
        table = open_table(session, export.kind, Range(export.account_id, export.start_at, export.end_at))
        return table.header, in_batches(table.rows)
    account = await _load_account(session, export)
    buckets = _cut(export, account)
    if export.kind is ExportKind.SPEND:
        return SPEND_HEADER, _read_spend(session, account, buckets, file.database.clock.now_for(account))
    metrics = await catalogue.list_metrics(session)
    return HEADER, _read_table(session, export, account, metrics, buckets)


async def _load_account(session: ReadSession, export: Export) -> BillingAccount:
    assert export.account_id is not None, "what is of all accounts is a table of its own"
    [account] = await load_accounts(session, [export.account_id])
    assert account is not None, "a foreign key guarantees the account"
    return account


def _cut(export: Export, account: BillingAccount) -> list[Period]:
    assert export.granularity is not None, "what has buckets says how wide they are"
    return buckets_between(export.start_at, export.end_at, account.timezone, export.granularity)


async def _read_table(
    session: ReadSession, export: Export, account: BillingAccount, metrics: Sequence[Metric], buckets: Sequence[Period]
) -> AsyncGenerator[list[Row]]:
    """The rows of a table, some at a time."""
    assert export.granularity is not None, "what has buckets says how wide they are"
    zone = ZoneInfo(account.timezone)
    waiting: list[Row] = []
    for metric in metrics:
        async for row in read_rows(session, account.id, metric, export.granularity, buckets):
            waiting.append(_show_row(row, metric, zone))
            if len(waiting) == ROWS_AT_ONCE:
                yield waiting
                waiting = []
    yield waiting


def _show_row(row: SeriesRow, metric: Metric, zone: ZoneInfo) -> Row:
    return (
        metric.key,
        row.workspace,
        format_instant(row.bucket.start),
        format_instant(row.bucket.end),
        row.bucket.start.astimezone(zone).isoformat(),
        row.quantity,
        metric.unit,
    )


async def _read_spend(
    session: ReadSession, account: BillingAccount, buckets: Sequence[Period], now: datetime
) -> AsyncGenerator[list[Row]]:
    """The rows of spend, some at a time."""
    if not buckets:
        return
    zone, currency = ZoneInfo(account.timezone), account.currency
    days = Days(buckets[0].start.astimezone(zone).date(), buckets[-1].end.astimezone(zone).date())
    waiting: list[Row] = []
    async for entry in read_spend(session, account, days, now):
        assert entry.day is not None, "all detail has a day"
        assert entry.kind is not None, "all detail has a kind"
        names = (entry.day.isoformat(), entry.metric_key or "", entry.workspace or "", entry.kind)
        waiting.append((*names, entry.amount_minor, to_decimal(entry.amount_minor, currency), currency))
        if len(waiting) == ROWS_AT_ONCE:
            yield waiting
            waiting = []
    yield waiting


async def _lock(work: Work, taken: Taken) -> tuple[BillingAccount | None, Export]:
    """An export, and whose it is, locked; nobody's where it is of all accounts."""
    locked = {} if taken.account_id == NOBODY else await work.lock_accounts([taken.account_id])
    return locked.get(taken.account_id), await work.session.get_one(Export, UUID(taken.subject), populate_existing=True)


async def _show_failure(work: Work, taken: Taken) -> None:
    owner, export = await _lock(work, taken)
    await mark_failed(work, owner, export, LATER)
    if owner is None:  # banners are an account's: whoever asked for this one stands above them, and reads why
        return
    await raise_notice(
        work,
        owner,
        "EXPORT_FAILED",
        str(export.id),
        severity=NoticeSeverity.CRITICAL,
        params={"export": str(export.id)},
        for_operators=True,
    )
