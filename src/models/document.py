"""Documents: what was frozen when they were issued, and the bytes that were drawn of it, once."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Entity
from .usage import Granularity


class DocumentKind(StrEnum):
    """What a document is of."""

    INVOICE = "INVOICE"
    CREDIT_NOTE = "CREDIT_NOTE"
    RECEIPT = "RECEIPT"


class Document(Entity, kw_only=True, eq=False):
    """A document: its content is frozen, its bytes are drawn once and never again."""

    __tablename__ = "document"
    __table_args__ = (UniqueConstraint("kind", "subject_id"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    kind: Mapped[DocumentKind]
    subject_id: Mapped[UUID]
    """The id of the invoice, credit note or transaction."""
    content: Mapped[dict[str, Any]]
    """A `services.papers.Paper`, or of a transaction a `Receipt`."""
    content_hash: Mapped[str]
    bytes_hash: Mapped[str | None] = mapped_column(default=None)
    """SHA-256 of the drawn bytes; none while they are not drawn."""
    drawn_at: Mapped[datetime | None] = mapped_column(default=None)
    failure: Mapped[str | None] = mapped_column(default=None)
    """Why it could not be drawn, after the last try."""


class ExportKind(StrEnum):
    """What an export holds."""

    USAGE = "USAGE"
    SPEND = "SPEND"
    FOCUS = "FOCUS"
    INVOICES = "INVOICES"
    INVOICE_LINES = "INVOICE_LINES"
    CREDIT_NOTES = "CREDIT_NOTES"
    TRANSACTIONS = "TRANSACTIONS"
    LEDGER = "LEDGER"
    TAX = "TAX"
    AUDIT = "AUDIT"
    DOCUMENTS = "DOCUMENTS"
    RECEIVABLES_AGING = "RECEIVABLES_AGING"
    DEFERRED_REVENUE = "DEFERRED_REVENUE"
    TAX_REPORT = "TAX_REPORT"


class ExportFormat(StrEnum):
    """How it is written."""

    CSV = "CSV"
    XLSX = "XLSX"
    PDF = "PDF"
    ZIP = "ZIP"


class ExportStatus(StrEnum):
    """How far it is."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


class Export(Entity, kw_only=True, eq=False):
    """A file that somebody asked for, written beside all else; it is kept for some days."""

    __tablename__ = "export"
    __table_args__ = (Index(None, "account_id", "created_at"),)

    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"))
    """Of which account; none of one that an operator asked for over all of them."""
    kind: Mapped[ExportKind]
    format: Mapped[ExportFormat]
    start_at: Mapped[datetime]
    end_at: Mapped[datetime]
    granularity: Mapped[Granularity | None]
    """How wide a bucket of USAGE or SPEND is; none of what has no buckets."""
    requested_by: Mapped[str]
    status: Mapped[ExportStatus] = mapped_column(default=ExportStatus.PENDING)
    rows_written: Mapped[int] = mapped_column(default=0)
    """How far the writer has come."""
    row_count: Mapped[int | None] = mapped_column(default=None)
    bytes_hash: Mapped[str | None] = mapped_column(default=None)
    """SHA-256 of the whole file; none before it is there."""
    ready_at: Mapped[datetime | None] = mapped_column(default=None)
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    failure: Mapped[str | None] = mapped_column(default=None)


class ExportPart(Base, kw_only=True, eq=False):
    """A piece of an export's file, so that neither writing nor sending it holds all of it."""

    __tablename__ = "export_part"

    export_id: Mapped[UUID] = mapped_column(ForeignKey("export.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_account.id"), index=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class DocumentBytes(Entity, kw_only=True, eq=False):
    """A drawn PDF. Apart from its document, so that lists of documents stay light."""

    __tablename__ = "document_bytes"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("billing_account.id"), index=True)
    document_id: Mapped[UUID] = mapped_column(ForeignKey("document.id"), unique=True)
    pdf: Mapped[bytes] = mapped_column(LargeBinary)
