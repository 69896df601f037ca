"""Exports: asking for a file of an account, or of all of them, and what becomes of it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, select

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    Export,
    ExportFormat,
    ExportKind,
    ExportPart,
    ExportStatus,
    Granularity,
    WorkKind,
)
from .closes import MAX_YEARS
from .due_work import NOBODY, enqueue, enqueue_for_nobody
from .errors import BillingError, Conflict, InvalidInput, Refusals
from .sheets import knows_xlsx

ORDER = "exports of all accounts"
ORDER_KINDS = (datetime, UUID)
KEPT = timedelta(days=7)
MAX_PENDING = 10
MAX_KEPT = 100
"""How many files an account keeps at a time."""
MAX_PROGRESS = 20
"""How often an export tells how far it is: oftener would fill the outbox."""
MAX_DAYS: dict[tuple[ExportFormat, Granularity], int] = {
    (ExportFormat.CSV, Granularity.HOUR): 100,
    (ExportFormat.CSV, Granularity.DAY): 1_100,
    (ExportFormat.CSV, Granularity.MONTH): 3_700,
    (ExportFormat.XLSX, Granularity.HOUR): 100,
    (ExportFormat.XLSX, Granularity.DAY): 1_100,
    (ExportFormat.XLSX, Granularity.MONTH): 3_700,
    # As many bars as one can tell apart on a sheet.
    (ExportFormat.PDF, Granularity.HOUR): 8,
    (ExportFormat.PDF, Granularity.DAY): 100,
    (ExportFormat.PDF, Granularity.MONTH): 1_100,
}
"""How long a range of buckets may be."""
BUCKETED = frozenset({ExportKind.USAGE, ExportKind.SPEND})
AS_OF = frozenset({ExportKind.RECEIVABLES_AGING, ExportKind.DEFERRED_REVENUE})
"""What is told of one instant."""
OF_ALL_ONLY = AS_OF | {ExportKind.TAX_REPORT}
"""What is told of all accounts only, to operators."""
OF_ALL = OF_ALL_ONLY | {
    ExportKind.INVOICES,
    ExportKind.INVOICE_LINES,
    ExportKind.CREDIT_NOTES,
    ExportKind.TRANSACTIONS,
    ExportKind.LEDGER,
    ExportKind.TAX,
    ExportKind.AUDIT,
}
"""What can be told of all accounts; of AUDIT that is the deployment's own log."""


async def request_export(
    work: Work,
    account: BillingAccount | None,
    *,
    kind: ExportKind,
    format_: ExportFormat,
    start: datetime | None,
    end: datetime,
    granularity: Granularity | None,
) -> Export:
    """Have a file written of what falls in `[start, end)`, beside all else; without an account, of all of them."""
    _check_kind(account, kind, format_, start, granularity)
    # By the account's own time; what is told of all is told by the wall clock.
    now = work.clock.now() if account is None else work.clock.now_for(account)
    start = end if start is None else start
    _check_range(account, now, kind, format_, start, end, granularity)
    await _check_room(work, account)
    # By the wall clock, whatever the account's: a file is nothing of its history.
    now = work.clock.now()
    export = Export(
        created_at=now,
        account_id=None if account is None else account.id,
        kind=kind,
        format=format_,
        start_at=start,
        end_at=end,
        granularity=granularity,
        requested_by=work.actor.name,
    )
    work.session.add(export)
    await work.session.flush()
    if account is None:
        await enqueue_for_nobody(work, WorkKind.WRITE_EXPORT, str(export.id), now)
    else:
        await enqueue(work, account, WorkKind.WRITE_EXPORT, str(export.id), now)
    await _audit(work, account, "export.requested", export, _describe(export))
    return export


def _check_kind(
    account: BillingAccount | None,
    kind: ExportKind,
    format_: ExportFormat,
    start: datetime | None,
    granularity: Granularity | None,
) -> None:
    faults: list[BillingError] = []

    def refuse(told: str, field: str) -> None:
        faults.append(InvalidInput(told, ["input", field]))

    if account is None and kind not in OF_ALL:
        refuse(f"{kind} is of one account: give `accountId`.", "accountId")
    if account is not None and kind in OF_ALL_ONLY:
        refuse(f"{kind} is of all accounts, for operators: leave `accountId` out.", "accountId")
    if kind is ExportKind.DOCUMENTS and format_ is not ExportFormat.ZIP:
        refuse("DOCUMENTS come as a ZIP.", "format")
    elif kind is not ExportKind.DOCUMENTS and format_ is ExportFormat.ZIP:
        refuse("A ZIP is of DOCUMENTS: take CSV or XLSX.", "format")
    elif format_ is ExportFormat.PDF and kind is not ExportKind.USAGE:
        refuse(f"{kind} is written as CSV or XLSX: reports are of USAGE.", "format")
    elif format_ is ExportFormat.XLSX and not knows_xlsx():
        refuse("This server was installed without XLSX: take CSV.", "format")
    if kind is ExportKind.SPEND and granularity is not Granularity.DAY:
        refuse("Spend is told by DAY: sum its rows for wider buckets.", "granularity")
    elif kind in BUCKETED and granularity is None:
        refuse(f"{kind} has buckets: say how wide they are.", "granularity")
    elif kind not in BUCKETED and granularity is not None:
        refuse(f"{kind} has no buckets: leave `granularity` out.", "granularity")
    if kind in AS_OF and start is not None:
        refuse(f"{kind} is told of one instant: give it as `to`, and leave `from` out.", "from")
    elif kind not in AS_OF and start is None:
        refuse(f"{kind} is told of a time: say from when.", "from")
    if faults:
        raise faults[0] if len(faults) == 1 else Refusals(faults)


def _check_range(
    account: BillingAccount | None,
    now: datetime,
    kind: ExportKind,
    format_: ExportFormat,
    start: datetime,
    end: datetime,
    granularity: Granularity | None,
) -> None:
    if kind in AS_OF:
        if end > now:
            raise InvalidInput("`to` lies ahead: what will stand then is not known.", ["input", "to"])
        return
    if start >= end:
        raise InvalidInput("`from` comes before `to`: the range is half-open.", ["input", "to"])
    if start >= now:
        raise InvalidInput("`from` lies ahead: nothing happened there yet.", ["input", "from"])
    if account is not None and end <= account.created_at:
        raise InvalidInput("`to` lies before the account was made: nothing happened there.", ["input", "to"])
    if granularity is None:
        if end - start > timedelta(days=MAX_YEARS * 366):
            raise InvalidInput(f"A range covers at most {MAX_YEARS} years: ask for a shorter one.", ["input", "to"])
        return
    at_most = MAX_DAYS[format_, granularity]
    if end - start > timedelta(days=at_most):
        raise InvalidInput(
            f"A {format_} by {granularity} covers at most {at_most:,} days: ask for a shorter range, or for wider "
            "buckets.",
            ["input", "to"],
        )


async def _check_room(work: Work, account: BillingAccount | None) -> None:
    is_theirs = Export.account_id.is_(None) if account is None else Export.account_id == account.id
    rows = await work.session.execute(
        select(Export.status, func.count().label("waiting")).where(is_theirs).group_by(Export.status)
    )
    counts = {row.status: row.waiting for row in rows}
    whose = "of all accounts" if account is None else "of the account"
    if counts.get(ExportStatus.PENDING, 0) >= MAX_PENDING:
        raise Conflict(
            f"{MAX_PENDING} exports {whose} wait to be written: ask again once one of them is ready.",
            ["input", "accountId"],
        )
    if counts.get(ExportStatus.READY, 0) >= MAX_KEPT:
        raise Conflict(
            f"{MAX_KEPT} exports {whose} are kept already: take one of those, or ask again once the oldest has "
            f"expired, {KEPT.days} days after it was written.",
            ["input", "accountId"],
        )


def list_of_all() -> Select[Export]:
    """The exports over all accounts, newest first."""
    return select(Export).where(Export.account_id.is_(None)).order_by(Export.created_at.desc(), Export.id.desc())


def add_part(work: Work, export: Export, number: int, data: bytes) -> None:
    """Keep a piece of an export's file."""
    work.session.add(ExportPart(export_id=export.id, number=number, account_id=export.account_id, data=data))


async def drop_parts(work: Work, export_id: UUID) -> None:
    """Delete what there is of an export's file."""
    await work.session.execute(delete(ExportPart).where(ExportPart.export_id == export_id))


async def mark_progress(work: Work, account: BillingAccount | None, export: Export, *, is_told: bool) -> None:
    """Say that an export is being written: to those who follow it where it `is_told`."""
    export.updated_at = work.clock.now()
    if is_told and account is not None:
        work.emit(account, "export.progressed", {"exportId": str(export.id), "rowsWritten": export.rows_written})


async def mark_ready(
    work: Work, account: BillingAccount | None, export: Export, *, row_count: int, bytes_hash: str
) -> None:
    """Say that all of an export's file is there. It is kept for some days."""
    now = work.clock.now()
    export.status, export.failure = ExportStatus.READY, None
    export.row_count = export.rows_written = row_count
    export.bytes_hash = bytes_hash
    export.ready_at = export.updated_at = now
    export.expires_at = now + KEPT
    await _audit(work, account, "export.ready", export, _describe(export))
    _emit(work, account, "export.ready", export)


async def mark_failed(work: Work, account: BillingAccount | None, export: Export, failure: str) -> None:
    """Say that an export's file will not come, and why."""
    await drop_parts(work, export.id)
    export.status, export.failure, export.updated_at = ExportStatus.FAILED, failure, work.clock.now()
    await _audit(work, account, "export.failed", export, {"failure": failure})
    _emit(work, account, "export.failed", export)


async def expire_export(work: Work, account: BillingAccount | None, export: Export) -> None:
    """Delete an export's file once its days are over."""
    await drop_parts(work, export.id)
    export.status, export.updated_at = ExportStatus.EXPIRED, work.clock.now()
    await _audit(work, account, "export.expired", export)


async def _audit(
    work: Work, account: BillingAccount | None, action: str, export: Export, after: dict[str, Any] | None = None
) -> None:
    if account is None:
        await work.audit_deployment(action, f"export:{export.id}", after=after)
    else:
        work.audit(account, action, f"export:{export.id}", after=after)


def _emit(work: Work, account: BillingAccount | None, kind: str, export: Export) -> None:
    # Events are an account's: who asked for one over all of them asks for it again.
    if account is not None:
        work.emit(account, kind, {"exportId": str(export.id)})


async def find_file(
    session: ReadSession, export_id: UUID, account_id: UUID, now: datetime
) -> tuple[Export, int] | None:
    """An export whose file can be fetched, and how many bytes it has; none where there is none, or not any more."""
    row = (
        await session.execute(
            select(Export, func.sum(func.length(ExportPart.data)))
            .join(ExportPart, ExportPart.export_id == Export.id)
            .where(
                Export.id == export_id,
                Export.account_id.is_(None) if account_id == NOBODY else Export.account_id == account_id,
                Export.status == ExportStatus.READY,
                Export.expires_at > now,
            )
            .group_by(Export.id)
        )
    ).one_or_none()
    return None if row is None else (row[0], int(row[1]))


async def read_part(session: ReadSession, export_id: UUID, number: int) -> bytes | None:
    """A piece of an export's file; none after the last."""
    part: bytes | None = await session.scalar(
        select(ExportPart.data).where(ExportPart.export_id == export_id, ExportPart.number == number)
    )
    return part


def _describe(export: Export) -> dict[str, Any]:
    return {
        "kind": export.kind,
        "format": export.format,
        "from": export.start_at.isoformat(),
        "to": export.end_at.isoformat(),
        "granularity": export.granularity,
        "rowCount": export.row_count,
        "sha256": export.bytes_hash,
    }
