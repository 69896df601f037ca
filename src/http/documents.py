"""Documents behind signed links. The link is all that is asked for, and a bad one tells nothing, not even why."""

import asyncio
import hashlib
import logging
import re

from starlette.requests import Request
from starlette.responses import Response

from ..database import AWAY, Actor, Database
from ..models import Document
from ..services.drawing import draw_now, find_opened
from ..services.errors import ErrorCode
from ..services.links import LinkForm, OpenedLink, open_link
from ..services.papers import read_content
from ..services.ports import Draughtsman, DrawingFailed
from .errors import answer_error
from .exports import send_export

LINKS = Actor(name="system:links", origin="documents")
MAX_WAITING = 4
"""So many wait at a time for a document that is not drawn yet."""
RETRY_S = 5

log = logging.getLogger("plafond.documents")


class Later(Exception):
    """There is such a document, but not now. Its text says why."""


class DocumentEndpoint:
    """Answers `/documents/…`."""

    def __init__(self, database: Database, key: bytes, draughtsman: Draughtsman | None) -> None:
        self._database = database
        self._key = key
        self._draughtsman = draughtsman
        self._waiting = 0
        self._drawing = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """The file that a link opens."""
        opened = open_link(self._key, request.path_params["token"], self._database.clock.now())
        try:
            if opened is not None and opened.form is LinkForm.EXPORT:
                response = await send_export(self._database, opened, with_body=request.method != "HEAD")
            else:
                response = None if opened is None else await self._respond(opened)
        except Later as reason:
            return answer_error(503, ErrorCode.UNAVAILABLE, str(reason), {"Retry-After": str(RETRY_S)})
        except AWAY:
            message = "The database does not answer: try again in a moment."
            return answer_error(503, ErrorCode.UNAVAILABLE, message, {"Retry-After": str(RETRY_S)})
        if response is None:
            message = "This link does not open a document, or not any more: ask for a new one."
            return answer_error(404, ErrorCode.NOT_FOUND, message)
        if request.method == "HEAD" and opened is not None and opened.form is not LinkForm.EXPORT:
            response.body = b""
        return response

    async def _respond(self, opened: OpenedLink) -> Response | None:
        async with self._database.read() as session:
            found = await find_opened(session, opened)
        if found is None:
            return None
        document, pdf = found
        if opened.form is LinkForm.XML and read_content(document.content).why_no_xml is not None:
            return None
        if pdf is None:
            pdf = await self._have_drawn(document, opened)
        if pdf is None:
            return None
        number = document.content["number"]
        if opened.form is LinkForm.PDF:
            return _file(pdf, "application/pdf", f'inline; filename="{_name(number)}.pdf"')
        return _file(await self._read_xml(pdf), "application/xml", f'attachment; filename="{_name(number)}.xml"')

    async def _have_drawn(self, document: Document, opened: OpenedLink) -> bytes | None:
        """Draw a document that the worker has not come to yet."""
        if document.failure is not None:
            raise Later("The document could not be made, and we are looking into it: try again later.")
        if self._draughtsman is None or self._waiting >= MAX_WAITING:
            raise Later("The document is still being made: try again in a moment.")
        self._waiting += 1
        try:
            async with self._drawing:
                # Whoever stood before in this line may have waited for the same document.
                async with self._database.read() as session:
                    found = await find_opened(session, opened)
                if found is None or found[1] is not None:
                    return found and found[1]
                return await draw_now(self._database, LINKS, self._draughtsman, document)
        except DrawingFailed as failure:
            log.warning("document %s could not be drawn on demand: %s", document.id, failure)
            raise Later("The document is still being made: try again in a moment.") from failure
        finally:
            self._waiting -= 1

    async def _read_xml(self, pdf: bytes) -> bytes:
        if self._draughtsman is None:
            raise Later("The XML cannot be read now: try again in a moment.")
        try:
            return await self._draughtsman.read_xml(pdf)
        except DrawingFailed as failure:
            log.warning("the XML of a document could not be read: %s", failure)
            raise Later("The XML cannot be read now: try again in a moment.") from failure


def _file(content: bytes, media_type: str, disposition: str) -> Response:
    headers = {
        "Content-Disposition": disposition,
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
    }
    return Response(content, media_type=media_type, headers=headers)


def _name(number: str) -> str:
    """A document's number as the name of a file, whatever it holds."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", number)[:100]
