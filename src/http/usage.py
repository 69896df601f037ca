"""`/usage`: events as a stream, results as a stream. The body is not read on while a batch of it is written."""

import json
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..database import AWAY
from ..resolvers.context import Context
from ..schema.node import encode_id
from ..schema.usage_lines import Unread
from ..services.access import Right, require
from ..services.errors import ErrorCode, RequestRefused
from ..services.metering import record_usage
from ..services.usage import MAX_EVENTS, EventResult, EventStatus, RejectionCode
from ..stopping import Stopping
from .errors import answer_error
from .graphql import MakeContext, Refused, bearer_token, name_origin
from .usage_bodies import BODIES, Body, BodyBroken, Entry

MAX_BODY = 64 * 1024 * 1024
MAX_AT_ONCE = 8
"""Streams that one process takes: fewer than it has connections, so that they leave some to all others."""
STALL_S = 30.0
"""How long no event may be completed, and no answer be taken."""
PAUSE_S = 0.2
"""How long the first event of a batch waits for more."""
LONGEST_S = 600.0
LOOK_S = 1.0
RETRY_S = 1

log = logging.getLogger("plafond.http")


class _Stopped(Exception):
    """The rest of the body is not taken."""

    def __init__(self, status: int, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Gone(Exception):
    """Nobody is there who would read an answer."""


@dataclass
class _Sum:
    """What has become of the body so far."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0

    @property
    def taken(self) -> int:
        return self.accepted + self.duplicates + self.rejected

    def add(self, status: EventStatus) -> None:
        if status is EventStatus.ACCEPTED:
            self.accepted += 1
        elif status is EventStatus.DUPLICATE:
            self.duplicates += 1
        else:
            self.rejected += 1


class UsageEndpoint:
    """Answers `/usage`."""

    def __init__(self, make_context: MakeContext, stopping: Stopping) -> None:
        self._make_context = make_context
        self._stopping = stopping
        self._streams = 0

    async def answer(self, request: Request) -> Response:
        """Refuse at once what can be; else take the stream."""
        context = self._make_context(name_origin(request))
        try:
            context.token = bearer_token(request.headers)
            await _check_right(context)
            body = _body_of(request)
            if self._streams >= MAX_AT_ONCE:
                raise Refused(
                    503,
                    ErrorCode.UNAVAILABLE,
                    f"{MAX_AT_ONCE} streams of usage are being taken here: send this one again in a moment.",
                    {"Retry-After": str(RETRY_S)},
                )
        except Refused as refused:
            return answer_error(refused.status, refused.code, str(refused), refused.headers)
        except RequestRefused as refused:
            status = 403 if refused.code is ErrorCode.FORBIDDEN else 401
            headers = {} if status == 403 else {"WWW-Authenticate": 'Bearer realm="plafond"'}
            return answer_error(status, refused.code, str(refused), headers)
        except AWAY:
            headers = {"Retry-After": str(RETRY_S)}
            return answer_error(503, ErrorCode.UNAVAILABLE, "The database does not answer: try again.", headers)
        is_minimal = "return=minimal" in request.headers.get("prefer", "").replace(" ", "").lower().split(",")
        return _UsageStream(self, context, body, is_minimal=is_minimal)

    @property
    def is_stopping(self) -> bool:
        """Whether this process is about to end."""
        return self._stopping.has_begun

    @contextmanager
    def count_stream(self) -> Iterator[None]:
        """Be one of those that are taken at once."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


async def _check_right(context: Context) -> None:
    await context.authenticate()
    require(context.principal, Right.INGEST_USAGE)


def _body_of(request: Request) -> Body:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].strip(' "') or "utf-8"
    body = BODIES.get(kind.strip())
    if body is None or charset not in ("utf-8", "utf8"):
        raise Refused(
            415, ErrorCode.BAD_USER_INPUT, f"Send UTF-8 with one of these as `Content-Type`: {', '.join(BODIES)}."
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, ErrorCode.BAD_USER_INPUT, "Send the body without `Content-Encoding`.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MAX_BODY:
        raise Refused(413, ErrorCode.PAYLOAD_TOO_LARGE, _too_large())
    return body()


def _too_large() -> str:
    return f"A body holds at most {MAX_BODY} bytes: send several."


class _UsageStream(Response):
    """Reads a batch, writes it, says what became of it, and so on. The last line sums up, whatever ended it."""

    def __init__(self, endpoint: UsageEndpoint, context: Context, body: Body, *, is_minimal: bool) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self.headers["X-Request-Id"] = context.request_id
        self.headers["X-Content-Type-Options"] = "nosniff"
        self.headers["Cache-Control"] = "no-store"
        if is_minimal:
            self.headers["Preference-Applied"] = "return=minimal"
        self._endpoint = endpoint
        self._context = context
        self._body = body
        self._is_minimal = is_minimal
        self._sum = _Sum()
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer while reading."""
        with self._endpoint.count_stream():
            try:
                await self._answer(receive, send)
            except (_Gone, TimeoutError):
                log.info("request %s: whoever sent usage went away, or takes no answer", self._context.request_id)

    async def _answer(self, receive: Receive, send: Send) -> None:
        stopped: _Stopped | None = None
        try:
            async for batch in self._read_batches(receive):
                lines = await self._take(batch)
                if lines:
                    await self._send(send, "".join(lines).encode())
        except _Stopped as cause:
            stopped = cause
        except AWAY:
            stopped = _Stopped(503, ErrorCode.UNAVAILABLE, "The database does not answer: send the rest in a moment.")
        except (_Gone, TimeoutError):
            raise
        except Exception:
            log.exception("request %s failed", self._context.request_id)
            message = "Something went wrong on our side: report the request id."
            stopped = _Stopped(500, ErrorCode.INTERNAL, message)
        end: dict[str, Any] = {
            "accepted": self._sum.accepted,
            "duplicates": self._sum.duplicates,
            "rejected": self._sum.rejected,
            "error": None,
        }
        if stopped is not None:
            self.status_code = stopped.status
            if stopped.status == 503:
                self.headers["Retry-After"] = str(RETRY_S)
            end["error"] = {"code": stopped.code, "message": str(stopped), "requestId": self._context.request_id}
        await self._send(send, _line(end).encode(), is_last=True)

    async def _send(self, send: Send, content: bytes, *, is_last: bool = False) -> None:
        """Send a part. The status is fixed by the first: 200, unless it is the last one too and tells of a failure."""
        with anyio.fail_after(STALL_S):
            if not self._is_started:
                self._is_started = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": content, "more_body": not is_last})

    async def _read_batches(self, receive: Receive) -> AsyncGenerator[list[Entry]]:
        batch: list[Entry] = []
        size = 0
        is_over = False
        began = waiting_since = filling_since = anyio.current_time()
        while not is_over:
            waits_s = max(0.0, filling_since + PAUSE_S - anyio.current_time()) if batch else LOOK_S
            message = await _receive_within(receive, waits_s)
            was_empty = not batch
            stop: _Stopped | None = None
            if message is not None:
                part = message.get("body", b"")[: MAX_BODY - size + 1]
                size += len(part)
                is_over = not message.get("more_body", False)
                try:
                    batch.extend(self._body.feed(part[: MAX_BODY - size] if size > MAX_BODY else part))
                    if is_over and size <= MAX_BODY:
                        batch.extend(self._body.end())
                except BodyBroken as broken:
                    stop = _Stopped(400, ErrorCode.BAD_USER_INPUT, str(broken))
                if size > MAX_BODY:
                    stop = _Stopped(413, ErrorCode.PAYLOAD_TOO_LARGE, _too_large())
            now = anyio.current_time()
            if was_empty:
                filling_since = now
            if stop is None and not is_over:
                stop = self._find_stop(began, now if batch else waiting_since)
            is_due = message is None or is_over or stop is not None or now >= filling_since + PAUSE_S
            while len(batch) >= MAX_EVENTS or (batch and is_due):
                yield batch[:MAX_EVENTS]
                batch = batch[MAX_EVENTS:]
                waiting_since = filling_since = anyio.current_time()
            if stop is not None:
                raise stop

    def _find_stop(self, began: float, waiting_since: float) -> _Stopped | None:
        now = anyio.current_time()
        if self._endpoint.is_stopping:
            return _Stopped(503, ErrorCode.UNAVAILABLE, "This server is about to stop: send the rest again.")
        if now - waiting_since > STALL_S:
            return _Stopped(408, ErrorCode.BAD_USER_INPUT, f"No event came for {STALL_S:.0f} s: send the rest again.")
        if now - began > LONGEST_S:
            return _Stopped(408, ErrorCode.BAD_USER_INPUT, f"A body may take {LONGEST_S:.0f} s: send several.")
        return None

    async def _take(self, batch: list[Entry]) -> list[str]:
        """Write a batch: one transaction. Gives the lines that tell of it."""
        try:
            await _check_right(self._context)
        except RequestRefused as refused:
            raise _Stopped(403 if refused.code is ErrorCode.FORBIDDEN else 401, refused.code, str(refused)) from refused
        events = [entry.event.to_input() for entry in batch if not isinstance(entry.event, Unread)]
        counted: Iterator[EventResult] = iter(())
        if events:
            counted = iter(await self._context.run(record_usage, self._context.principal, events))
        lines = []
        for entry in batch:
            index = self._sum.taken
            result = _unread(entry.event) if isinstance(entry.event, Unread) else next(counted)
            self._sum.add(result.status)
            if result.status is EventStatus.REJECTED or not self._is_minimal:
                lines.append(_line(_show(index, entry.line, result)))
        return lines


async def _receive_within(receive: Receive, seconds: float) -> dict[str, Any] | None:
    """What came of the request; none where nothing came for a while."""
    with anyio.move_on_after(seconds):
        message = dict(await receive())
        if message["type"] == "http.disconnect":
            raise _Gone
        return message
    return None


def _unread(event: Unread) -> EventResult:
    return EventResult(
        index=0,
        event_id=event.event_id,
        status=EventStatus.REJECTED,
        code=RejectionCode.INVALID_EVENT,
        message=event.reason,
    )


def _show(index: int, line: int | None, result: EventResult) -> dict[str, Any]:
    return {
        "index": index,
        **({} if line is None else {"line": line}),
        "eventId": result.event_id,
        "status": result.status,
        "code": result.code,
        "message": result.message,
        "used": result.used,
        "limit": result.limit,
        **({} if result.budget_id is None else {"budgetId": encode_id("Budget", result.budget_id)}),
    }


def _line(value: dict[str, Any]) -> str:
    # ASCII: what a broken line calls itself may hold half a character.
    return json.dumps(value, separators=(",", ":")) + "\n"
