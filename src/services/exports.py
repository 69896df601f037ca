"""Exports: asking for a file of an account's usage or spend, and what becomes of it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select

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
from .due_work import enqueue
from .errors import Conflict, InvalidInput

KEPT = timedelta(days=7)
MAX_PENDING = 10
MAX_KEPT = 100
"""How many files an account keeps at a time."""
MAX_DAYS: dict[tuple[ExportFormat, Granularity], int] = {
    (ExportFormat.CSV, Granularity.HOUR): 100,
    (ExportFormat.CSV, Granularity.DAY): 1_100,
    (ExportFormat.CSV, Granularity.MONTH): 3_700,
    # As many bars as one can tell apart on a sheet.
    (ExportFormat.PDF, Granularity.HOUR): 8,
    (ExportFormat.PDF, Granularity.DAY): 100,
    (ExportFormat.PDF, Granularity.MONTH): 1_100,
}
"""How long a range may be."""


async def request_export(
    work: Work,
    account: BillingAccount,
    *,
    kind: ExportKind,
    format_: ExportFormat,
    start: datetime,
    end: datetime,
    granularity: Granularity,
) -> Export:
    """Have a file written of the buckets that begin in `[start, end)`, beside all else."""
    if kind is ExportKind.SPEND:
        _check_spend(format_, granularity)
    _check_range(account, work.clock.now_for(account), format_, start, end, granularity)
    await _check_room(work, account)
    # By the wall clock, whatever the account's: a file is nothing of its history.
    now = work.clock.now()
    export = Export(
        created_at=now,
        account_id=account.id,
        kind=kind,
        format=format_,
        start_at=start,
        end_at=end,
        granularity=granularity,
        requested_by=work.actor.name,
    )
    work.session.add(export)
    await work.session.flush()
    await enqueue(work, account, WorkKind.WRITE_EXPORT, str(export.id), now)
    work.audit(account, "export.requested", f"export:{export.id}", after=_describe(export))
    return export


def _check_spend(format_: ExportFormat, granularity: Granularity) -> None:
    if format_ is not ExportFormat.CSV:
        raise InvalidInput("Spend is written as CSV: reports are of USAGE.", ["input", "format"])
    if granularity is not Granularity.DAY:
        raise InvalidInput("Spend is told by DAY: sum its rows for wider buckets.", ["input", "granularity"])


def _check_range(
    account: BillingAccount,
    now: datetime,
    format_: ExportFormat,
    start: datetime,
    end: datetime,
    granularity: Granularity,
) -> None:
    if start >= end:
        raise InvalidInput("`from` comes before `to`: the range is half-open.", ["input", "to"])
    if start >= now:
        raise InvalidInput("`from` lies ahead: nothing was used or spent there yet.", ["input", "from"])
    if end <= account.created_at:
        raise InvalidInput("`to` lies before the account was made: nothing was used or spent there.", ["input", "to"])
    at_most = MAX_DAYS[format_, granularity]
    if end - start > timedelta(days=at_most):
        raise InvalidInput(
            f"A {format_} by {granularity} covers at most {at_most:,} days: ask for a shorter range, or for wider "
            "buckets.",
            ["input", "to"],
        )


async def _check_room(work: Work, account: BillingAccount) -> None:
    rows = await work.session.execute(
        select(Export.status, func.count().label("waiting"))
        .where(Export.account_id == account.id)
        .group_by(Export.status)
    )
    counts = {row.status: row.waiting for row in rows}
    if counts.get(ExportStatus.PENDING, 0) >= MAX_PENDING:
        raise Conflict(
            f"{MAX_PENDING} exports of the account wait to be written: ask again once one of them is ready.",
            ["input", "accountId"],
        )
    if counts.get(ExportStatus.READY, 0) >= MAX_KEPT:
        raise Conflict(
            f"The account keeps {MAX_KEPT} exports already: take one of those, or ask again once the oldest has "
            f"expired, {KEPT.days} days after it was written.",
            ["input", "accountId"],
        )


def add_part(work: Work, export: Export, number: int, data: bytes) -> None:
    """Keep a piece of an export's file."""
    work.session.add(ExportPart(export_id=export.id, number=number, account_id=export.account_id, data=data))


async def drop_parts(work: Work, export_id: UUID) -> None:
    """Delete what there is of an export's file."""
    await work.session.execute(delete(ExportPart).where(ExportPart.export_id == export_id))


async def mark_ready(work: Work, account: BillingAccount, export: Export, *, row_count: int, bytes_hash: str) -> None:
    """Say that all of an export's file is there. It is kept for some days."""
    now = work.clock.now()
    export.status, export.failure = ExportStatus.READY, None
    export.row_count, export.bytes_hash = row_count, bytes_hash
    export.ready_at = export.updated_at = now
    export.expires_at = now + KEPT
    work.audit(account, "export.ready", f"export:{export.id}", after=_describe(export))
    work.emit(account, "export.ready", {"exportId": str(export.id)})


async def mark_failed(work: Work, account: BillingAccount, export: Export, failure: str) -> None:
    """Say that an export's file will not come, and why."""
    await drop_parts(work, export.id)
    export.status, export.failure, export.updated_at = ExportStatus.FAILED, failure, work.clock.now()
    work.audit(account, "export.failed", f"export:{export.id}", after={"failure": failure})
    work.emit(account, "export.failed", {"exportId": str(export.id)})


async def expire_export(work: Work, account: BillingAccount, export: Export) -> None:
    """Delete an export's file once its days are over."""
    await drop_parts(work, export.id)
    export.status, export.updated_at = ExportStatus.EXPIRED, work.clock.now()
    work.audit(account, "export.expired", f"export:{export.id}")


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
                Export.account_id == account_id,
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
