"""What the payment processor sends by itself. Only what is proved to be its own is acted on."""

import logging
from collections.abc import Callable
from datetime import datetime

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ..database import AWAY, Actor, Database
from ..services.errors import ErrorCode
from ..services.ports import Message, Processor, ProcessorFailed
from ..services.processor_messages import hear
from ..services.tills import Till
from .errors import answer_error

PROCESSOR = Actor(name="system:processor", origin="webhook")
MAX_BYTES = 256 * 1024
SIGNATURE = "stripe-signature"
RETRY_S = 60

MessageReader = Callable[[bytes, str | None, datetime], Message | None]
"""Reads a body and its signature: none where it means nothing to us, `ValueError` where it is not proved."""

log = logging.getLogger("plafond.webhooks")


class TooLarge(Exception):
    """More than a message has."""


class WebhookEndpoint:
    """Answers `/webhooks/stripe`: 200 for what was heard, also for the second time. All else is sent again later."""

    def __init__(self, database: Database, processor: Processor, read: MessageReader) -> None:
        self._till = Till(database, processor, PROCESSOR)
        self._read = read

    async def answer(self, request: Request) -> Response:
        """Hear a message."""
        try:
            body = await _read_body(request)
            message = self._read(body, _signature_of(request), self._till.database.clock.now())
        except TooLarge:
            return answer_error(413, ErrorCode.PAYLOAD_TOO_LARGE, f"The body is larger than {MAX_BYTES} bytes.")
        except (ValueError, ClientDisconnect) as refused:
            log.warning("a message was refused: %s", refused)
            return answer_error(400, ErrorCode.BAD_USER_INPUT, "This is not proved to be a message of the processor.")
        return await self._hear(message)

    async def _hear(self, message: Message | None) -> Response:
        try:
            if message is not None:
                await hear(self._till, message)
        except ProcessorFailed as failure:
            log.warning("a message could not be heard: %s", failure)
            return _later("The processor does not answer: send the message again.")
        except AWAY:
            return _later("The database does not answer: send the message again.")
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


async def _read_body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MAX_BYTES:
        raise TooLarge
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise TooLarge
    return bytes(body)


def _signature_of(request: Request) -> str | None:
    """The one signature header; with several, nobody can say which one counts."""
    found = request.headers.getlist(SIGNATURE)
    return found[0] if len(found) == 1 else None


def _later(message: str) -> Response:
    return answer_error(503, ErrorCode.UNAVAILABLE, message, {"Retry-After": str(RETRY_S)})
