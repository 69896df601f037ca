"""GraphQL over HTTP and graphql-transport-ws, with a guard in front of both."""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.typevars import RootValue
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import Message, SubscribeMessage
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from ..database import AWAY
from ..resolvers.context import Context
from ..services.errors import ErrorCode, RequestRefused
from ..settings import Environment
from .json import MAX_BYTES, read_json

PAGE = Path(__file__).parent / "graphiql" / "index.html"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INIT_WAIT = timedelta(seconds=5)
MAX_OPERATIONS = 100

MAX_SOCKET_ID_LENGTH = 100

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
        try:
            await context.authenticate()
        except RequestRefused as refusal:
            raise _unauthenticated(str(refusal)) from refusal
        operation = _from_query(request) if request.method != "POST" else await _from_body(request)
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


def _refusal(refused: Refused, context: Context) -> Response:
    extensions = {"code": refused.code, "requestId": context.request_id}
    return JSONResponse(
        {"errors": [{"message": str(refused), "extensions": extensions}]}, refused.status, refused.headers
    )


def name_origin(connection: Request | WebSocket) -> str:
    """Where a request comes from, as the audit log shows it."""
    return connection.client.host if connection.client else "unknown"


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


class SocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """graphql-transport-ws, strict: a malformed message closes 4400, a bad operation fails alone."""

    async def handle_message(self, message: Message) -> None:
        """Look at the shape first."""
        fault = _find_message_fault(message)
        if fault is not None:
            await self.handle_invalid_message(fault)
            return
        await super().handle_message(message)

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Ask who it is anew for each operation: a socket outlives keys, and must not outlive their rights."""
        if self.connection_acknowledged:
            try:
                await self.context.authenticate()
            except RequestRefused:
                await self.websocket.close(code=4403, reason="Forbidden")
                return
        await super().handle_subscribe(message)

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:  # noqa: ARG004
        # Clients share one socket among all operations: one bad document must not end the others.
        return None


def _find_message_fault(message: object) -> str | None:
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return "A message is an object with a type"
    kind = message["type"]
    if kind not in ("connection_init", "ping", "pong", "subscribe", "complete"):
        return "The type is unknown"
    if kind in ("subscribe", "complete") and not _is_sound_id(message.get("id")):
        return f"The id is a text of 1 to {MAX_SOCKET_ID_LENGTH} characters"
    if kind != "subscribe" and not isinstance(message.get("payload"), dict | None):
        return "The payload is an object"
    if kind == "subscribe" and find_fault(message.get("payload")) is not None:
        return "The payload is not a GraphQL request"
    return None


def _is_sound_id(value: object) -> bool:
    # It goes back to the client, also as a reason for closing: that must be short, and encode.
    return isinstance(value, str) and 0 < len(value) <= MAX_SOCKET_ID_LENGTH and value.isprintable()


class SocketEndpoint(GraphQL[Context, None]):
    """Answers `/graphql` over WebSocket."""

    graphql_transport_ws_handler_class = SocketHandler

    def __init__(self, schema: Schema, make_context: MakeContext, allowed_origins: tuple[str, ...]) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=INIT_WAIT,
            max_subscriptions_per_connection=MAX_OPERATIONS,
            allowed_origins=allowed_origins,
        )
        self._make_context = make_context

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:  # noqa: ARG002
        """One context for the socket; each operation takes a fresh one from it."""
        return self._make_context(name_origin(request))

    async def get_root_value(self, request: Request | WebSocket) -> RootValue | None:  # noqa: ARG002
        """There is none."""
        return None

    async def on_ws_connect(self, context: Context) -> None:
        """Take the token from `connection_init`; without a good one the socket closes 4403."""
        params = context.connection_params or {}
        given = next((params[key] for key in ("Authorization", "authorization") if key in params), None)
        if not isinstance(given, str):
            raise ConnectionRejectionError
        scheme, _, token = given.partition(" ")
        context.token = token.strip() if scheme.lower() == "bearer" else ""
        try:
            await context.authenticate()
        except RequestRefused as refusal:
            raise ConnectionRejectionError from refusal

    def decode_json(self, data: str | bytes) -> object:
        """Strict JSON; anything else closes 4400."""
        try:
            return read_json(data)
        except JSONDecodeError:
            raise
        except ValueError as error:
            raise JSONDecodeError(str(error), "", 0) from error

    def encode_json(self, data: object) -> str:
        """Compact."""
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
