"""Exports: the file of an account, or of all, that somebody asked for, and the mutation that asks."""

from datetime import datetime
from typing import Any, Self

import strawberry

from .. import models
from ..services.cursors import encode_change
from ..services.exports import KEPT
from ..services.links import LinkForm
from .context import Info
from .documents import Document
from .enums import ExportFormat, ExportKind, ExportStatus, Granularity
from .errors import UserError
from .fields import field, maybe, once_key, refusals, said
from .node import Node, encode_id
from .scalars import BigInt


@strawberry.type(description="A file that somebody asked for. It is written beside all else, and kept for some days.")
class Export(Node):
    """An export."""

    row: strawberry.Private[models.Export]
    account_id: strawberry.Private[Any]
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the export again.")
    cursor: str | None = said(
        "In a stream its place there: a subscription given this as `after` goes on behind it. Null elsewhere."
    )
    kind: ExportKind = said("What it holds.")
    format: ExportFormat = said("How it is written.")
    status: ExportStatus = said("How far it is.")
    from_: datetime = strawberry.field(
        name="from",
        description="It holds what happened at or after this, or of USAGE and SPEND the buckets that begin so …",
    )
    to: datetime = said("… and before this; the same instant as `from` where it tells how things stood at it.")
    granularity: Granularity | None = said("How wide a bucket of USAGE or SPEND is; null of what has no buckets.")
    rows_written: BigInt = said("How far the writer is, in what `rowCount` counts. It moves while the file is written.")
    row_count: BigInt | None = said(
        "How many rows a table has below its header, how many figures the charts of a report show, or how many "
        "documents an archive has; null before it is ready."
    )
    requested_by: str = said("Who asked for it, as api_key:ID, member:ID or operator:ID.")
    created_at: datetime = said("When it was asked for, by the wall clock, as are all its times.")
    updated_at: datetime = said("When it last changed.")
    ready_at: datetime | None = said("When its file was there; null before.")
    expires_at: datetime | None = said(
        f"When its file is deleted, {KEPT.days} days after it was written; null before it is ready."
    )
    failure: str | None = said("Why it could not be written, and what to do; null where it could.")

    @classmethod
    def of(cls, row: models.Export, sequence: int | None = None) -> Self:
        """An export from its row; in a stream at the place of the change."""
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("Export", row.id),
            cursor=None if sequence is None or row.account_id is None else encode_change(row.account_id, sequence),
            kind=row.kind,
            format=row.format,
            status=row.status,
            from_=row.start_at,
            to=row.end_at,
            granularity=row.granularity,
            rows_written=BigInt(row.rows_written),
            row_count=None if row.row_count is None else BigInt(row.row_count),
            requested_by=row.requested_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
            ready_at=row.ready_at,
            expires_at=row.expires_at,
            failure=row.failure,
        )

    @field
    def document(self, info: Info) -> Document | None:
        """Its file, behind a link that works for a quarter of an hour; null unless it is READY."""
        if self.row.status is not ExportStatus.READY:
            return None
        return Document.of(info.context.link_to(self.row, LinkForm.EXPORT), self.row.bytes_hash)


@strawberry.input(description="A file to have written.")
class RequestExportInput:
    """A file."""

    account_id: strawberry.ID | None = maybe("Whose; of all accounts where it is left out, for operators only.")
    kind: ExportKind = said("What it shall hold.")
    format: ExportFormat = said("How it shall be written.")
    to: datetime = said(
        "What happened, or the buckets that begin, before this: what is here is left to the next range. Of "
        "RECEIVABLES_AGING and DEFERRED_REVENUE the instant that they are told of."
    )
    from_: datetime | None = strawberry.field(
        name="from",
        default=None,
        description="What happened, or the buckets that begin, at or after this: give a local midnight with its "
        "offset. At most 11 years. Left out of RECEIVABLES_AGING and DEFERRED_REVENUE.",
    )
    granularity: Granularity | None = maybe(
        "How wide a bucket is, of USAGE and SPEND only. By HOUR a table covers at most 100 days, by DAY 1,100, by "
        "MONTH 3,700; a report 8, 100 and 1,100. Of SPEND it is DAY."
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="An export that was asked for, or why not.")
class RequestExportPayload:
    """The answer."""

    export: Export | None = maybe("The export: PENDING until its file is written.")
    user_errors: list[UserError] = refusals()
