"""The schema: roots, extensions, limits, and how errors are shown."""

import logging
from collections.abc import Iterator
from typing import Any

import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSyntaxError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)
from strawberry.extensions import MaxTokensLimiter, ParserCache, SchemaExtension, ValidationCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext
from strawberry.types.execution import ExecutionResult as StrawberryResult
from strawberry.types.execution import StreamExecutionResult

from .resolvers.context import Context
from .resolvers.mutation import Mutation
from .resolvers.query import Query
from .resolvers.subscription import Subscription
from .schema.billing import MetricUsage, Recommendation
from .schema.scalars import SCALARS
from .services.errors import ErrorCode, RequestRefused

MAX_DEPTH = 16
MAX_FIELDS = 1_000
MAX_TOKENS = 3_000
MAX_ERRORS = 20
CACHED_DOCUMENTS = 256

log = logging.getLogger("plafond.api")


class OwnLoaders(SchemaExtension):
    """Gives each operation, and each event of a stream, loaders of its own."""

    def on_operation(self) -> Iterator[None]:
        """Before the operation: a context of its own."""
        self.execution_context.context = self.execution_context.context.fresh()
        yield

    def on_stream_result(self, result: StreamExecutionResult) -> Iterator[None]:  # noqa: ARG002
        """After each event: nothing loaded is kept."""
        yield
        self.execution_context.context.forget()

    def get_results(self) -> dict[str, Any]:
        """What the operation put into `extensions`."""
        context = self.execution_context.context
        return dict(context.extensions) if isinstance(context, Context) else {}


class LimitsSize(SchemaExtension):
    """Refuses documents that are too deep or too wide, before they are validated.

    Each fragment is weighed once, however often it is spread: the cost of looking is linear in the document.
    """

    def on_validate(self) -> Iterator[None]:
        """Weigh the document."""
        asked = self.execution_context
        document = asked.graphql_document
        if document is not None:
            code, message = ErrorCode.QUERY_TOO_COMPLEX, weigh_document(document)
            if message is None:
                code = ErrorCode.BAD_USER_INPUT
                message = choose_operation(document, asked._provided_operation_name)
            if message is not None:
                asked.pre_execution_errors = [GraphQLError(message, extensions={"code": code})]
        yield


def weigh_document(document: DocumentNode) -> str | None:
    """Why a document is too large; none where it is not. Fields count as often as they would be answered."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    known: dict[str, tuple[int, int]] = {}
    weighing: set[str] = set()

    def weigh(selection_set: SelectionSetNode | None, depth_left: int) -> tuple[int, int]:
        depth, fields = 0, 0
        if selection_set is None:
            return depth, fields
        if depth_left < 0:
            return MAX_DEPTH + 1, 0
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                below_depth, below_fields = weigh(node.selection_set, depth_left - 1)
                below_depth, below_fields = below_depth + 1, below_fields + 1
            elif isinstance(node, InlineFragmentNode):
                below_depth, below_fields = weigh(node.selection_set, depth_left - 1)
            else:
                assert isinstance(node, FragmentSpreadNode), "there is no fourth kind"
                below_depth, below_fields = weigh_fragment(node.name.value)
            depth, fields = max(depth, below_depth), min(fields + below_fields, MAX_FIELDS + 1)
        return depth, fields

    def weigh_fragment(name: str) -> tuple[int, int]:
        if name in weighing or name not in fragments:
            return 0, 0  # a ring or an unknown name: validation says so
        if name not in known:
            if len(weighing) > MAX_DEPTH:
                return MAX_DEPTH + 1, 0
            weighing.add(name)
            known[name] = weigh(fragments[name].selection_set, MAX_DEPTH)
            weighing.discard(name)
        return known[name]

    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            depth, fields = weigh(node.selection_set, MAX_DEPTH)
            if depth > MAX_DEPTH:
                return f"The document is nested more than {MAX_DEPTH} deep: ask for less at once."
            if fields > MAX_FIELDS:
                return f"The document asks for more than {MAX_FIELDS} fields, fragments included: ask for less at once."
    return None


def choose_operation(document: DocumentNode, name: str | None) -> str | None:
    """Why it is not clear which operation to run; none where it is (GraphQL's GetOperation)."""
    names = [
        node.name.value if node.name else None
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    ]
    if not names:
        return "The document holds no operation."
    if not name:
        return None if len(names) == 1 else "The document holds several operations: name one with `operationName`."
    return None if name in names else "The document holds no operation of the name given as `operationName`."


class ShowsErrors(SchemaExtension):
    """Shows refusals with their code, and of bugs nothing but the request's id; the cause goes to the log."""

    def on_operation(self) -> Iterator[None]:
        """After the operation."""
        yield
        self._show(self.execution_context.result)

    def on_stream_result(self, result: StreamExecutionResult) -> Iterator[None]:
        """Before each event goes out."""
        self._show(result)
        yield

    def _show(self, result: object) -> None:
        if isinstance(result, ExecutionResult | StrawberryResult) and result.errors:
            request_id = self.execution_context.context.request_id
            result.errors = [show_error(error, request_id) for error in result.errors[:MAX_ERRORS]]


def show_error(error: GraphQLError, request_id: str) -> GraphQLError:
    """An error as the caller sees it: always with a code and the request's id."""
    if error.extensions and "requestId" in error.extensions:
        return error
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    message = error.message.partition(" Did you mean")[0]
    if isinstance(cause, RequestRefused):
        code = cause.code
    elif error.extensions and "code" in error.extensions:
        code = ErrorCode(error.extensions["code"])
    elif isinstance(error, GraphQLSyntaxError):
        code = ErrorCode.GRAPHQL_PARSE_FAILED
    elif cause is not None and not isinstance(cause, GraphQLError) and error.path is not None:
        code, message = ErrorCode.INTERNAL, "Something went wrong on our side: report the request id."
    elif "Variable '$" in error.message and "got invalid value" in error.message:
        code = ErrorCode.BAD_USER_INPUT
    else:
        code = ErrorCode.GRAPHQL_VALIDATION_FAILED
    return GraphQLError(
        message[:500],
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={"code": code, "requestId": request_id},
    )


class Schema(strawberry.Schema):
    """Logs bugs with their cause; refusals are answers, not log lines."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log what only a bug can cause."""
        for error in errors:
            cause = error.original_error
            if cause is not None and not isinstance(cause, GraphQLError | RequestRefused | ValueError):
                request_id = getattr(execution_context and execution_context.context, "request_id", "")
                log.error("request %s failed at %s", request_id, error.path, exc_info=cause)


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[MetricUsage, Recommendation],
    config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
    extensions=[
        OwnLoaders,
        ShowsErrors,
        lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
        LimitsSize,
        lambda: ParserCache(maxsize=CACHED_DOCUMENTS),
        lambda: ValidationCache(maxsize=CACHED_DOCUMENTS),
    ],
)


def print_schema() -> str:
    """The schema as text, as it stands in schema.graphql."""
    return schema.as_str() + "\n"
