"""graphql-transport-ws: a guard in front of it, streams that are shared, and sockets that end in good time."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from datetime import timedelta
from json import JSONDecodeError
from typing import Any

import anyio
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry import Schema
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.typevars import RootValue
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    CompleteMessage,
    ConnectionInitMessage,
    Message,
    SubscribeMessage,
)
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from ..resolvers.context import Context
from ..services.access import Principal
from ..services.admission import Admissions
from ..services.changes import Following, check_reader
from ..services.errors import RequestRefused
from .graphql import MakeContext, find_fault, name_origin
from .json import read_json
from .lines import Asked, Line, Lines, encode, encode_result, has_failed
from .outbox import Outbox

INIT_WAIT = timedelta(seconds=5)
MAX_OPERATIONS = 100
MAX_SOCKET_ID_LENGTH = 100
CATCHING_UP = 16
"""How many streams that fell out of line read at once: a database has few connections, and thousands may fall out."""
NOTHING = -1
"""Where a stream is that has not begun."""
CLOSE_WAIT_S = 5.0
"""How long a closing message may wait for a socket that takes nothing."""


class SocketOperation(Operation[Context, None]):
    """An operation on a socket. A stream reads alone until it has caught up, and stands in a line from then on."""

    __slots__ = ("asked", "following", "has_begun", "head", "line", "seen", "token", "verdict")

    handler: "SocketHandler"

    def __init__(self, handler: "SocketHandler", id: str, asked: Asked, token: str) -> None:
        super().__init__(handler, id, asked.query, asked.variables, asked.operation_name)
        self.asked = asked
        self.token = token
        self.head = f'{{"id":{encode(id)},"type":"next","payload":'
        self.following = Following(is_endless=False)
        self.line: Line | None = None
        self.seen = NOTHING
        self.has_begun = False
        self.verdict: Principal | RequestRefused | None = None
        """What was said of the token while the stream was beginning."""

    def start(self) -> None:
        """Run in a task of its own."""
        self.task = self.handler.view.spawn(self.handler.run_operation(self))

    def take(self, sequence: int, payload: str) -> bool:
        """Take a shared answer; false where there is no room."""
        if not self.handler.outbox.offer(f"{self.head}{payload}}}"):
            return False
        self.seen = sequence
        return True

    def fall_out(self) -> None:
        """Catch up alone, by the database."""
        self.line = None
        self.start()

    def leave(self) -> None:
        """Stop following."""
        self.handler.view.admissions.dismiss(self.token, self)
        line, self.line = self.line, None
        if line is not None:
            line.leave(self)

    def judge(self, verdict: Principal | RequestRefused) -> None:
        """Go on, go on as somebody else, or end: as the right is now. What is no stream is not touched any more."""
        following = self.following
        if following.account_id is None or following.right is None or following.reader is None:
            self.verdict = verdict
            return
        try:
            if isinstance(verdict, RequestRefused):
                raise verdict
            check_reader(verdict, following.account_id, following.right)
        except RequestRefused as refusal:
            self.refuse(refusal)
            return
        if self.line is None:
            self.verdict = verdict
        elif verdict.within(following.account_id).standing != following.reader.standing:
            self.line.leave(self)
            self.fall_out()

    def refuse(self, refusal: RequestRefused) -> None:
        """End, and say why."""
        if self.completed:
            return
        self.completed = True
        if self.task is not None:
            self.task.cancel()
        self.handler.forget_id(self.id)
        extensions = {"code": refusal.code, "requestId": self.handler.context.request_id}
        error = GraphQLError(str(refusal), extensions=extensions)
        self.handler.outbox.push(encode({"id": self.id, "type": "error", "payload": [error.formatted]}))


class SocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """graphql-transport-ws, strict: a malformed message closes 4400, a bad operation fails alone."""

    view: "SocketEndpoint"
    websocket: ASGIWebSocketAdapter
    operations: dict[str, SocketOperation]  # type: ignore[assignment]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.outbox = Outbox(self.websocket.ws.send, self._give_up)

    async def handle(self) -> None:
        """Serve the socket until it closes."""
        self.view.handlers.add(self)
        try:
            await super().handle()
        finally:
            self.view.handlers.discard(self)
            self.outbox.close()

    async def handle_message(self, message: Message) -> None:
        """Look at the shape first."""
        fault = _find_message_fault(message)
        if fault is not None:
            await self.handle_invalid_message(fault)
            return
        await super().handle_message(message)

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        """Answer it, and keep nothing of the wait for it."""
        await super().handle_connection_init(message)
        self.connection_init_timeout_task = None

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Ask who it is anew for each operation: a socket outlives keys, and must not outlive their rights."""
        if (
            not self.connection_acknowledged
            or message["id"] in self.operations
            or len(self.operations) >= MAX_OPERATIONS
        ):
            await super().handle_subscribe(message)  # which refuses it
            return
        try:
            proof = await self.context.prove()
        except RequestRefused:
            await self.close(4403, "Forbidden")
            return
        payload = message["payload"]
        asked = Asked(payload["query"], payload.get("variables"), payload.get("operationName"))
        operation = SocketOperation(self, message["id"], asked, self.context.token)
        self.operations[operation.id] = operation
        self.view.admissions.admit(operation.token, proof, operation)
        operation.start()

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        """Run a query or mutation to its end, and a stream until it stands in a line."""
        assert isinstance(operation, SocketOperation), "there are no others"
        try:
            while operation.line is None and not operation.completed:
                await self._run_alone(operation)
        except Exception as error:
            await self.handle_task_exception(error)
            if not operation.completed:
                await operation.send_operation_message(CompleteMessage(id=operation.id, type="complete"))

    async def _run_alone(self, operation: SocketOperation) -> None:
        """Read until a stream has caught up, or the socket has no room any more: then it is called again."""
        turn: AbstractAsyncContextManager[Any] = nullcontext()
        if operation.has_begun:
            await self.outbox.wait_for_room()
            turn = self.view.turns
        operation.has_begun = True
        async with turn:
            following = operation.following = Following(
                resume=None if operation.seen == NOTHING else operation.seen, is_endless=False
            )
            source = await self.schema.stream(
                operation.query,
                variable_values=operation.variables,
                context_value=replace(self.context, following=following),
                operation_name=operation.operation_name,
            )
            async with aclosing(source):
                async for result in source:
                    if isinstance(result, PreExecutionError):
                        await operation.send_initial_errors(result.errors or [])
                        return
                    assert isinstance(result, ExecutionResult), "incremental delivery is off"
                    if following.told is None or has_failed(result):
                        await operation.send_next(result)
                    elif operation.take(following.told, encode_result(result)):
                        following.told = None
                    else:
                        return
            if not following.is_done:
                await operation.send_operation_message(CompleteMessage(id=operation.id, type="complete"))
                return
        assert following.reached is not None, "it was read to its end"
        operation.seen = following.reached
        operation.line = self.view.lines.join(operation, operation.asked, following)
        verdict, operation.verdict = operation.verdict, None
        if verdict is not None:
            operation.judge(verdict)

    def forget_id(self, id: str) -> None:
        """Its id is free again."""
        self.operations.pop(id).leave()

    async def cleanup_operation(self, operation_id: str) -> None:
        """The client wants no more of it, or is gone."""
        operation = self.operations.get(operation_id)
        if operation is not None:
            operation.leave()
        await super().cleanup_operation(operation_id)

    async def send_message(self, message: Message) -> None:
        """Send as soon as there is room."""
        await self.outbox.put(encode(message))

    async def handle_invalid_message(self, error_message: str) -> None:
        """Close: whoever sends such a thing does not speak the protocol."""
        await self.close(4400, error_message)

    async def close(self, code: int, reason: str) -> None:
        """Send what waits, then close."""
        await self.outbox.finish(CLOSE_WAIT_S)
        with anyio.move_on_after(CLOSE_WAIT_S):
            await self.websocket.close(code, reason)

    def _give_up(self) -> None:
        # The reader resumes by its cursor, so nothing is lost; 1013 is the code that clients try again after.
        self.view.spawn(self.close(1013, "Try again later: too slow"))
        for operation in tuple(self.operations.values()):
            operation.leave()

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

    def __init__(
        self, schema: Schema, make_context: MakeContext, allowed_origins: tuple[str, ...], admissions: Admissions
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=INIT_WAIT,
            max_subscriptions_per_connection=MAX_OPERATIONS,
            allowed_origins=allowed_origins,
        )
        self._make_context = make_context
        self.admissions = admissions
        self.lines = Lines(schema, make_context, admissions.check)
        self.turns = asyncio.Semaphore(CATCHING_UP)
        self.handlers: set[SocketHandler] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something beside the sockets; it is over when the server is."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def is_answering(self) -> bool:
        """Whether a query or a mutation is under way on a socket."""
        return any(
            operation.following.account_id is None and operation.task is not None and not operation.task.done()
            for handler in self.handlers
            for operation in handler.operations.values()
        )

    async def close_all(self) -> None:
        """Close every socket 1001: the server goes away, and clients resume elsewhere by their cursors."""
        with anyio.move_on_after(CLOSE_WAIT_S):
            async with anyio.create_task_group() as group:
                for handler in tuple(self.handlers):
                    group.start_soon(handler.close, 1001, "Going away")
        await self.lines.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

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
        return encode(data)
