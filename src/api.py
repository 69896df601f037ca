"""The schema: roots, extensions, limits, and how errors are shown."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
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
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    parse,
    specified_rules,
)
from graphql import OperationType as GraphQLOperation
from strawberry.extensions import MaxTokensLimiter, SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.schema.schema import validate_document
from strawberry.types import ExecutionContext
from strawberry.types.execution import ExecutionResult as StrawberryResult
from strawberry.types.execution import StreamExecutionResult
from strawberry.types.graphql import OperationType

from .database import AWAY
from .resolvers.account_mutation import AccountMutation
from .resolvers.alert_mutation import AlertMutation
from .resolvers.batches import ReadsBatches
from .resolvers.budget_mutation import BudgetMutation
from .resolvers.catalogue_mutation import CatalogueMutation
from .resolvers.close_query import CloseQuery
from .resolvers.contact_mutation import ContactMutation
from .resolvers.context import Context
from .resolvers.export_mutation import ExportMutation
from .resolvers.key_mutation import KeyMutation
from .resolvers.member_mutation import MemberMutation
from .resolvers.money_mutation import MoneyMutation
from .resolvers.plan_mutation import PlanMutation
from .resolvers.query import Query
from .resolvers.recommendation_mutation import RecommendationMutation
from .resolvers.refund_mutation import RefundMutation
from .resolvers.reservation_mutation import ReservationMutation
from .resolvers.retention_mutation import RetentionMutation
from .resolvers.sandbox_mutation import SandboxMutation
from .resolvers.subscription import Subscription
from .resolvers.usage_mutation import UsageMutation
from .resolvers.webhook_mutation import WebhookMutation
from .schema.billing import MetricUsage
from .schema.coordinates import list_coordinates
from .schema.operations import find_operation
from .schema.scalars import SCALARS
from .services.access import Right
from .services.errors import ErrorCode, RequestRefused
from .services.paging import DEFAULT_SIZE
from .services.tokens import hide_tokens
from .services.uses import Coordinates
from .settings import Environment

MAX_DEPTH = 16
MAX_FIELDS = 100_000
"""How many fields an answer may hold when every list is as long as was asked for."""
MAX_NAMED = 1_000
"""How many fields a document may name, fragments included as often as they are spread."""
MAX_SIZE = 400
MAX_TOKENS = 3_000
MAX_QUERY_LENGTH = 64 * 1024
MAX_ERRORS = 20
CACHED_DOCUMENTS = 256

log = logging.getLogger("plafond.api")


class OwnLoaders(SchemaExtension):
    """Gives each operation, and each event of a stream, loaders of its own."""

    def on_operation(self) -> Iterator[None]:
        """Before the operation: a context of its own."""
        self.execution_context.context = self.execution_context.context.fresh()
        yield

    def on_execute(self) -> Iterator[None]:
        """What only asks may be answered by a replica. A mutation sees what it wrote, and a stream what it tells of."""
        if self.execution_context.operation_type is OperationType.QUERY:
            self.execution_context.context.read_replica()
        yield

    def on_stream_result(self, result: StreamExecutionResult) -> Iterator[None]:  # noqa: ARG002
        """After each event: nothing loaded is kept."""
        yield
        self.execution_context.context.forget()

    def get_results(self) -> dict[str, Any]:
        """What the operation put into `extensions`."""
        context = self.execution_context.context
        return dict(context.extensions) if isinstance(context, Context) else {}


class Prepares(SchemaExtension):
    """Parses and validates each document once, and refuses what is too deep or too wide before it is validated.

    Not strawberry's own caches: they raise where the transport expects a result, and undo another's refusal.
    """

    def on_parse(self) -> Iterator[None]:
        """A known document needs no parsing. A faulty one is left to strawberry, which says what is wrong."""
        asked = self.execution_context
        if asked.query and len(asked.query) <= MAX_QUERY_LENGTH:
            asked.graphql_document = read_document(asked.query)
        yield

    def on_validate(self) -> Iterator[None]:
        """Look up what is wrong with the document, and whether it is clear what to run."""
        asked = self.execution_context
        document = asked.graphql_document
        if document is not None and asked.query:
            refused = self._refuse(document, asked.query)
            asked.pre_execution_errors = [refused] if refused is not None else list(find_faults(asked.query))
        yield

    def _refuse(self, document: DocumentNode, text: str) -> GraphQLError | None:
        asked = self.execution_context
        too_large = (
            f"The document is longer than {MAX_QUERY_LENGTH} characters: put values into `variables`."
            if len(text) > MAX_QUERY_LENGTH
            else weigh_document(document, asked.variables or {})
        )
        if too_large is not None:
            return GraphQLError(too_large, extensions={"code": ErrorCode.QUERY_TOO_COMPLEX})
        unclear = choose_operation(document, asked._provided_operation_name)
        return None if unclear is None else GraphQLError(unclear, extensions={"code": ErrorCode.BAD_USER_INPUT})


@lru_cache(maxsize=CACHED_DOCUMENTS)
def read_document(text: str) -> DocumentNode | None:
    """The parsed document; none where it cannot be parsed."""
    try:
        return parse(text, max_tokens=MAX_TOKENS)
    except (GraphQLError, RecursionError):
        return None


@lru_cache(maxsize=CACHED_DOCUMENTS)
def find_faults(text: str) -> tuple[GraphQLError, ...]:
    """What validation finds in a document that parses."""
    document = read_document(text)
    assert document is not None, "only what was parsed is validated"
    return tuple(validate_document(schema._schema, document, tuple(specified_rules)))


@lru_cache(maxsize=CACHED_DOCUMENTS)
def find_fields(text: str, operation_name: str | None) -> Coordinates:
    """The fields that an operation of a valid document names."""
    document = read_document(text)
    assert document is not None, "only what was parsed is run"
    return list_coordinates(schema._schema, document, find_operation(document, operation_name))


class CountsFields(SchemaExtension):
    """Notes which fields a caller asks for, so that it is known who still needs a deprecated one."""

    def on_execute(self) -> Iterator[None]:
        """What goes to be run is counted. A stream that is read on is not asked for anew."""
        asked = self.execution_context
        context = asked.context
        if isinstance(context, Context) and asked.query and context.following.resume is None:
            caller = context.caller
            if caller is not None and caller.id:
                fields = find_fields(asked.query, asked._provided_operation_name or None)
                context.uses.note_fields(caller.id, fields, context.now())
        yield


@dataclass(frozen=True)
class Weight:
    """How large a part of a document is: its depth, the fields it names, and those that its answer may hold."""

    depth: int = 0
    named: int = 0
    answered: int = 0

    def beside(self, other: "Weight") -> "Weight":
        """Both, one after the other."""
        return Weight(max(self.depth, other.depth), self.named + other.named, self.answered + other.answered)


def weigh_document(document: DocumentNode, variables: Mapping[str, object]) -> str | None:
    """Why a document is too large; none where it is not. Each fragment is weighed once."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    known: dict[str, Weight] = {}
    weighing: set[str] = set()

    def weigh(selection_set: SelectionSetNode | None, depth_left: int) -> Weight:
        total = Weight()
        if selection_set is None:
            return total
        if depth_left < 0:
            return Weight(depth=MAX_DEPTH + 1)
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                below = weigh(node.selection_set, depth_left - 1)
                size = list_size(node, variables)
                total = total.beside(Weight(below.depth + 1, below.named + 1, size * below.answered + 1))
            elif isinstance(node, InlineFragmentNode):
                total = total.beside(weigh(node.selection_set, depth_left - 1))
            else:
                assert isinstance(node, FragmentSpreadNode), "there is no fourth kind"
                total = total.beside(weigh_fragment(node.name.value))
        return total

    def weigh_fragment(name: str) -> Weight:
        if name in weighing or name not in fragments:
            return Weight()  # a ring or an unknown name: validation says so
        if name not in known:
            if len(weighing) > MAX_DEPTH:
                return Weight(depth=MAX_DEPTH + 1)
            weighing.add(name)
            known[name] = weigh(fragments[name].selection_set, MAX_DEPTH)
            weighing.discard(name)
        return known[name]

    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            weight = weigh(node.selection_set, MAX_DEPTH)
            if weight.depth > MAX_DEPTH:
                return f"The document is nested more than {MAX_DEPTH} deep: ask for less at once."
            if weight.named > MAX_NAMED:
                return f"The document names more than {MAX_NAMED} fields, fragments included: ask for less at once."
            if weight.answered > MAX_FIELDS:
                return f"The answer could hold more than {MAX_FIELDS} fields: ask for shorter lists, or fewer of them."
    return None


def list_size(node: FieldNode, variables: Mapping[str, object]) -> int:
    """How long a list the field asks for; 1 for a field without a size."""
    for argument in node.arguments or ():
        if argument.name.value in ("first", "last"):
            value = argument.value
            asked = int(value.value) if isinstance(value, IntValueNode) else None
            if isinstance(value, VariableNode):
                asked = variables.get(value.name.value)  # type: ignore[assignment]  # whatever the caller sent
            # The longest list there is bounds what is asked: a larger number is refused when it is run.
            return max(1, min(asked, MAX_SIZE)) if isinstance(asked, int) else DEFAULT_SIZE
    return 1


def list_root_fields(schema: strawberry.Schema) -> dict[Right, list[str]]:
    """The root fields by the right that each of them declares."""
    found: dict[Right, list[str]] = {}
    for root in ("Query", "Mutation", "Subscription"):
        definition: Any = schema.get_type_by_name(root)
        for field in definition.fields:
            found.setdefault(field.metadata["right"], []).append(schema.config.name_converter.get_graphql_name(field))
    return found


def only_accepts_invites(text: str | None) -> bool:
    """Whether all that a document can do is to accept an invitation."""
    document = read_document(text) if text and len(text) <= MAX_QUERY_LENGTH else None
    if document is None:
        return False
    return all(
        isinstance(node, OperationDefinitionNode)
        and node.operation is GraphQLOperation.MUTATION
        and all(
            isinstance(selected, FieldNode) and selected.name.value == "acceptInvite"
            for selected in node.selection_set.selections
        )
        for node in document.definitions
    )


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
    message = hide_tokens(error.message.partition(" Did you mean")[0])
    if isinstance(cause, RequestRefused):
        code = cause.code
    elif isinstance(cause, RecursionError):
        code, message = ErrorCode.QUERY_TOO_COMPLEX, "The document is nested too deep: ask for less at once."
    elif error.extensions and "code" in error.extensions:
        code = ErrorCode(error.extensions["code"])
    elif isinstance(error, GraphQLSyntaxError):
        code = ErrorCode.GRAPHQL_PARSE_FAILED
    elif isinstance(cause, CannotGetOperationTypeError):
        code, message = ErrorCode.BAD_USER_INPUT, "The document holds no operation, or none of the name given."
    elif isinstance(cause, AWAY):
        code, message = ErrorCode.UNAVAILABLE, AWAY_MESSAGE
    elif is_bug(error, cause):
        code, message = ErrorCode.INTERNAL, "Something went wrong on our side: report the request id."
    elif error.message.startswith("Variable '$"):
        # Without the value: it is long, in Python's spelling, and the caller's own.
        code, message = ErrorCode.BAD_USER_INPUT, re.split(r"[,;] found: ", message)[0]
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


def is_bug(error: GraphQLError, cause: Exception | None) -> bool:
    """Whether an error is nobody's refusal. A value that a scalar refuses raises too, but stands in the document."""
    if cause is None or isinstance(cause, GraphQLError | RequestRefused):
        return False
    is_coercion = error.path is None and isinstance(cause, ValueError) and bool(error.nodes)
    return not is_coercion and not isinstance(cause, RecursionError | CannotGetOperationTypeError)


class Schema(strawberry.Schema):
    """Logs bugs with their cause; refusals are answers, not log lines."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log what only a bug can cause."""
        for error in errors:
            cause = error.original_error
            if is_bug(error, cause):
                request_id = getattr(execution_context and execution_context.context, "request_id", "")
                log.error("request %s failed at %s", request_id, error.path, exc_info=cause)


AWAY_MESSAGE = (
    "The database does not answer, cannot be written, or was lost in the middle: ask again in a moment. Under an "
    "idempotency key nothing happens twice."
)
CHANGES = "Everything that can be changed. A refused mutation has done nothing."


READS = "Everything that can be read."


@strawberry.type(name="Query", description=READS)
class WholeQuery(Query, CloseQuery):
    """The root of queries, by area."""


@strawberry.type(name="Mutation", description=CHANGES)
class ProductionMutation(
    AccountMutation,
    UsageMutation,
    ReservationMutation,
    AlertMutation,
    BudgetMutation,
    CatalogueMutation,
    PlanMutation,
    MoneyMutation,
    RefundMutation,
    ExportMutation,
    ContactMutation,
    MemberMutation,
    KeyMutation,
    RecommendationMutation,
    RetentionMutation,
    WebhookMutation,
):
    """The root of mutations, by area."""


@strawberry.type(description=CHANGES)
class Mutation(ProductionMutation, SandboxMutation):
    """The same in the sandbox, with what only the sandbox has."""


def _build(mutation: type) -> Schema:
    return Schema(
        query=WholeQuery,
        mutation=mutation,
        subscription=Subscription,
        types=[MetricUsage],
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
        extensions=[
            OwnLoaders,
            ShowsErrors,
            lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
            Prepares,
            CountsFields,
            ReadsBatches,
        ],
    )


schema = _build(Mutation)
"""The sandbox's schema: the whole contract, as it stands in schema.graphql."""


@cache
def schema_for(environment: Environment) -> Schema:
    """The schema of a deployment: production has nothing of the sandbox's."""
    return schema if environment is Environment.SANDBOX else _build(ProductionMutation)


def print_schema() -> str:
    """The schema as text, as it stands in schema.graphql."""
    return schema.as_str() + "\n"
