"""GraphQL over HTTP, with a guard in front of it. Sockets have a file of their own."""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from strawberry import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from ..api import only_accepts_invites
from ..database import AWAY
from ..resolvers.context import Context
from ..services.errors import ErrorCode, RequestRefused
from ..services.tokens import Stranger
from ..settings import Environment
from .json import MAX_BYTES, read_json

PAGE = Path(__file__).parent / "graphiql" / "index.html"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
log = logging.getLogger("plafond.http")

MakeContext = Callable[[str], Context]
"""Makes the context of a request from where it came."""


class Refused(Exception):
    """A request that is answered before GraphQL sees it."""

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers or {})


@dataclass(frozen=True)
class Operation:
    """What a request asks for."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


class GraphQLEndpoint:
    """Answers `/graphql` over HTTP."""

    def __init__(self, schema: Schema, make_context: MakeContext, environment: Environment) -> None:
        self._schema = schema
        self._make_context = make_context
        self._environment = environment

    async def answer(self, request: Request) -> Response:
        """Answer a request: with JSON whatever happens, but for the page that browsers get."""
        context = self._make_context(name_origin(request))
        context.request_id = request.headers.get("x-request-id", "")[:64] or context.request_id
        if not (context.request_id.isascii() and context.request_id.isprintable()):
            context.request_id = secrets.token_hex(8)
        try:
            response = await self._respond(request, context)
        except Refused as refused:
            response = _refusal(refused, context)
        except AWAY:
            away = Refused(503, ErrorCode.UNAVAILABLE, "The database does not answer: try again in a moment.")
            response = _refusal(away, context)
        except Exception:
            log.exception("request %s failed", context.request_id)
            bug = Refused(500, ErrorCode.INTERNAL, "Something went wrong on our side: report the request id.")
            response = _refusal(bug, context)
        response.headers["X-Request-Id"] = context.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    async def _respond(self, request: Request, context: Context) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return self._page()
        context.token = bearer_token(request.headers)
        stranger: Stranger | None = None
        try:
            await context.authenticate()
        except Stranger as refusal:
            stranger = refusal
        except RequestRefused as refusal:
            raise _unauthenticated(str(refusal)) from refusal
        operation = _from_query(request) if request.method != "POST" else await _from_body(request)
        if stranger is not None:
            # Nothing is read, validated or told for who is a member of nothing, but this.
            if not only_accepts_invites(operation.query):
                raise _unauthenticated(str(stranger)) from stranger
            context.caller = stranger.principal()
        allowed = {OperationType.QUERY, OperationType.MUTATION} if request.method == "POST" else {OperationType.QUERY}
        try:
            result = await self._execute(operation, context, allowed)
        except InvalidOperationTypeError as error:
            message = (
                f"A {error.operation_type.value} does not go by {request.method}: queries and mutations go by POST."
            )
            raise Refused(405, ErrorCode.BAD_USER_INPUT, message, {"Allow": "POST"}) from error
        except CannotGetOperationTypeError as error:
            message = "The document holds no operation of that name, or several and none was named."
            raise Refused(400, ErrorCode.BAD_USER_INPUT, message) from error
        answer: dict[str, Any] = {}
        if result.errors:
            answer["errors"] = [error.formatted for error in result.errors]
        answer["data"] = result.data
        if result.extensions:
            answer["extensions"] = result.extensions
        return JSONResponse(answer)

    async def _execute(self, operation: Operation, context: Context, allowed: set[OperationType]) -> ExecutionResult:
        result = await self._schema.execute(
            operation.query,
            variable_values=operation.variables,
            context_value=context,
            operation_name=operation.operation_name,
            allowed_operation_types=allowed,
        )
        assert isinstance(result, ExecutionResult), "incremental delivery is off"
        return result

    def _page(self) -> Response:
        if self._environment is not Environment.SANDBOX or not PAGE.exists():
            raise Refused(404, ErrorCode.NOT_FOUND, "There is no page here: send a POST with a GraphQL query.")
        return FileResponse(
            PAGE,
            media_type="text/html",
            headers={
                "Content-Security-Policy": PAGE_POLICY,
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            },
        )


def name_origin(connection: HTTPConnection) -> str:
    """Where a request comes from, as the audit log shows it."""
    return connection.client.host if connection.client else "unknown"


def _refusal(refused: Refused, context: Context) -> Response:
    extensions = {"code": refused.code, "requestId": context.request_id}
    return JSONResponse(
        {"errors": [{"message": str(refused), "extensions": extensions}]}, refused.status, refused.headers
    )


def _unauthenticated(message: str) -> Refused:
    return Refused(401, ErrorCode.UNAUTHENTICATED, message, {"WWW-Authenticate": 'Bearer realm="plafond"'})


def bearer_token(headers: Mapping[str, str]) -> str:
    """The token that a request brings."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _unauthenticated("Send the header `Authorization: Bearer …` with an API key or a JWT.")
    return token.strip()


async def _from_body(request: Request) -> Operation:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, ErrorCode.BAD_USER_INPUT, "Send JSON with `Content-Type: application/json`.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, ErrorCode.BAD_USER_INPUT, "Send the body without `Content-Encoding`.")
    too_large = Refused(
        413, ErrorCode.PAYLOAD_TOO_LARGE, f"The body is larger than {MAX_BYTES} bytes: send less at once."
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MAX_BYTES:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise too_large
    try:
        given = read_json(bytes(body))
    except ValueError as error:
        raise Refused(400, ErrorCode.BAD_USER_INPUT, f"The body is not JSON: {error}"[:300]) from error
    if isinstance(given, list):
        raise Refused(400, ErrorCode.BAD_USER_INPUT, "Batching is not enabled: send one operation at a time.")
    return _operation(given)


def _from_query(request: Request) -> Operation:
    given: dict[str, Any] = {key: request.query_params.get(key) for key in ("query", "operationName")}
    for key in ("variables", "extensions"):
        text = request.query_params.get(key)
        try:
            given[key] = read_json(text) if text else None
        except ValueError as error:
            raise Refused(400, ErrorCode.BAD_USER_INPUT, f"`{key}` is not JSON: {error}"[:300]) from error
    return _operation(given)


def _operation(given: object) -> Operation:
    fault = find_fault(given)
    if fault is not None:
        raise Refused(400, ErrorCode.BAD_USER_INPUT, fault)
    sound = cast("dict[str, Any]", given)
    return Operation(sound["query"], sound.get("variables"), sound.get("operationName"))


def find_fault(given: object) -> str | None:
    """What is wrong with the shape of a request; none where nothing is."""
    if not isinstance(given, dict):
        return "Send a JSON object with `query`."
    if not isinstance(given.get("query"), str) or not given["query"].strip():
        return "`query` is a text with a GraphQL document."
    if not isinstance(given.get("variables"), dict | None):
        return "`variables` is an object."
    if not isinstance(given.get("operationName"), str | None):
        return "`operationName` is a text."
    if not isinstance(given.get("extensions"), dict | None):
        return "`extensions` is an object."
    try:
        json.dumps([given["query"], given.get("operationName"), given.get("variables")], ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return "The request holds text that is not Unicode, or is nested too deep."
    return None
