"""Writing: the file of each export once, piece by piece, outside of any transaction that others wait for."""

import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from ..database import Actor, Database, ReadSession, Work, take_snapshot
from ..faults import reach
from ..models import BillingAccount, Export, ExportFormat, ExportKind, ExportStatus, Metric, NoticeSeverity, WorkKind
from . import catalogue
from .accounts import load_accounts
from .due_work import Fenced, Taken, claim, finish, give_back, hold_on, postpone
from .explorer import Days, read_spend
from .exports import add_part, drop_parts, expire_export, mark_failed, mark_ready
from .notices import clear_notice, raise_notice
from .ports import Draughtsman, DrawingFailed
from .reports import load_report
from .rules.cells import write_rows
from .rules.money import to_decimal
from .rules.periods import Period, buckets_between
from .series import SeriesRow, read_rows
from .wording import format_instant

log = logging.getLogger("plafond.writing")

WRITING = frozenset({WorkKind.WRITE_EXPORT})
MAX_TRIES = 4
PART_BYTES = 1024**2
MAX_ROWS = 1_000_000
ROWS_AT_ONCE = 500
HEADER = ("metric", "workspace", "start", "end", "local_start", "quantity", "unit")
SPEND_HEADER = ("day", "metric", "workspace", "line_kind", "amount_minor", "amount", "currency")
Row: TypeAlias = Sequence[str | int | Decimal]
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
                account, export = await _lock(work, taken)
                await finish(work, taken)
                await expire_export(work, account, export)
    except Fenced:
        log.warning("export %s was taken over by another worker", taken.subject)
    except NotWritable as refusal:
        async with database.work(actor) as work:
            account, export = await _lock(work, taken)
            await finish(work, taken)
            await mark_failed(work, account, export, str(refusal))
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
    buffer: bytearray = field(default_factory=bytearray)
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    async def begin(self) -> None:
        """Start anew: what an earlier try left is no part of it."""
        async with self.database.work(self.actor) as work:
            await hold_on(work, self.taken)
            await drop_parts(work, self.export.id)

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
            account, export = await _lock(work, self.taken)
            had_failed = export.status is ExportStatus.FAILED
            await mark_ready(work, account, export, row_count=self.row_count, bytes_hash=self.digest.hexdigest())
            assert export.expires_at is not None, "it is ready"
            # The same work deletes the file when its days are over.
            await postpone(work, self.taken, export.expires_at)
            if had_failed:
                await clear_notice(work, account, "EXPORT_FAILED", str(export.id))

    async def _keep(self, data: bytes) -> None:
        reach("export.part")
        async with self.database.work(self.actor) as work:
            await hold_on(work, self.taken)
            add_part(work, self.export, self.parts, data)
        self.parts += 1


async def _write(file: _File, draughtsman: Draughtsman) -> None:
    export, report = file.export, None
    await file.begin()
    async with file.database.read() as session:
        # One state of the account from the first row to the last, whatever is sent meanwhile.
        await take_snapshot(session)
        [account] = await load_accounts(session, [export.account_id])
        assert account is not None, "a foreign key guarantees the account"
        now = file.database.clock.now_for(account)
        metrics = await catalogue.list_metrics(session)
        buckets = buckets_between(export.start_at, export.end_at, account.timezone, export.granularity)
        if export.format is ExportFormat.CSV:
            is_spend = export.kind is ExportKind.SPEND
            await file.add(write_rows([SPEND_HEADER if is_spend else HEADER]))
            tables = (
                _read_spend(session, account, buckets, now)
                if is_spend
                else _read_table(session, export, account, metrics, buckets)
            )
            async for rows in tables:
                file.row_count += len(rows)
                if file.row_count > MAX_ROWS:
                    raise NotWritable(
                        f"It would have more than {MAX_ROWS:,} rows: ask for a shorter range, or for wider buckets."
                    )
                await file.add(write_rows(rows))
        else:
            report = await load_report(session, account, metrics, buckets, export, now)
            file.row_count = len(report.metrics) * len(buckets)
    if report is not None:
        await file.add(await draughtsman.draw(report))
    await file.end()


async def _read_table(
    session: ReadSession, export: Export, account: BillingAccount, metrics: Sequence[Metric], buckets: Sequence[Period]
) -> AsyncGenerator[list[Row]]:
    """The rows of a table, some at a time."""
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


async def _lock(work: Work, taken: Taken) -> tuple[BillingAccount, Export]:
    account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
    return account, await work.session.get_one(Export, UUID(taken.subject), populate_existing=True)


async def _show_failure(work: Work, taken: Taken) -> None:
    account, export = await _lock(work, taken)
    await mark_failed(work, account, export, LATER)
    await raise_notice(
        work,
        account,
        "EXPORT_FAILED",
        str(export.id),
        severity=NoticeSeverity.CRITICAL,
        params={"export": str(export.id)},
        for_operators=True,
    )
