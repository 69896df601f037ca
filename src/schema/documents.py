"""Documents, as links that open them."""

from datetime import datetime
from typing import Self
from uuid import UUID

import strawberry

from .. import models
from ..services.links import Link, LinkForm
from ..services.papers import Paper
from ..services.relations import CONTENT_OF_SUBJECT, DOCUMENT_OF_SUBJECT
from .context import Context
from .fields import said
from .scalars import Url


@strawberry.type(description="A file behind a signed, short-lived link.")
class Document:
    """A document."""

    url: Url = said("Where to fetch it, without a token: whoever has the link can open it.")
    expires_at: datetime = said("Until when the link works; ask again for a new one.")
    sha256: str | None = said(
        "The hash of its bytes, in hex: they never change. Null while it is not drawn yet, and of an `eInvoice`."
    )

    @classmethod
    def of(cls, link: Link, sha256: str | None) -> Self:
        """A document from its link."""
        return cls(url=Url(link.url), expires_at=link.expires_at, sha256=sha256)


async def show_document(context: Context, kind: models.DocumentKind, subject_id: UUID) -> Document | None:
    """The PDF of an invoice, credit note or transaction; null where none was issued."""
    rows = await context.load.related(DOCUMENT_OF_SUBJECT[kind], subject_id)
    if not rows:
        return None
    return Document.of(context.link_to(rows[0], LinkForm.PDF), rows[0].bytes_hash)


async def show_e_invoice(context: Context, kind: models.DocumentKind, subject_id: UUID) -> Document | None:
    """The EN 16931 XML in the PDF of an invoice or credit note; null where it carries none."""
    rows = await context.load.related(CONTENT_OF_SUBJECT[kind], subject_id)
    if not rows or Paper.model_validate(rows[0].content).why_no_xml is not None:
        return None
    return Document.of(context.link_to(rows[0], LinkForm.XML), None)
