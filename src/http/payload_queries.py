"""The GraphQL queries that webhook endpoints have instead of a payload: checked when set, asked once for each event."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from graphql import FragmentDefinitionNode, OperationDefinitionNode, OperationType, print_ast

from ..api import Schema, find_faults, read_document, weigh_document
from ..resolvers.context import Context
from ..services.access import Principal

ANSWER_S = 10.0
VARIABLES = {"accountId": ("ID!", "ID"), "eventId": ("ID!", "ID"), "subjectId": ("ID!", "ID")}
"""What a query may declare, and as what."""


class SchemaQueries:
    """Asks the schema that all others are asked by, under the same limits."""

    def __init__(self, schema: Schema, make_context: Callable[[str], Context]) -> None:
        self._schema = schema
        self._make_context = make_context

    def refuse(self, query: str) -> str | None:
        """Why a document cannot be a payload's query; none where it can."""
        document = read_document(query)
        if document is None:
            return "This is no GraphQL document, or one that is too long or nested too deep."
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        others = [
            node
            for node in document.definitions
            if not isinstance(node, OperationDefinitionNode | FragmentDefinitionNode)
        ]
        if len(operations) != 1 or others or operations[0].operation is not OperationType.QUERY:
            return "The document holds one query, and nothing but fragments beside it."
        for declared in operations[0].variable_definitions or ():
            name, kind = declared.variable.name.value, print_ast(declared.type)
            if kind not in VARIABLES.get(name, ()):
                known = ", ".join(f"${known}: {kinds[0]}" for known, kinds in VARIABLES.items())
                return f"`${name}: {kind}` is not given to the query: it may declare {known}."
        too_large = weigh_document(document, {})
        if too_large is not None:
            return too_large
        faults = find_faults(query)
        return faults[0].message.partition(" Did you mean")[0][:500] if faults else None

    async def answer(self, query: str, principal: Principal, variables: Mapping[str, str]) -> dict[str, Any]:
        """What the query comes to, with a caller's rights: as GraphQL answers, errors masked."""
        context = self._make_context("webhook")
        context.caller = principal
        document = read_document(query)
        assert document is not None, "it was checked when it was set"
        [operation] = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        declared = {node.variable.name.value for node in operation.variable_definitions or ()}
        given = {name: value for name, value in variables.items() if name in declared}
        try:
            async with asyncio.timeout(ANSWER_S):
                result = await self._schema.execute(query, variable_values=given, context_value=context)
        except TimeoutError:
            told = f"The query took longer than {ANSWER_S:g} seconds: let it ask for less."
            return {"data": None, "errors": [{"message": told, "extensions": {"code": "TIMEOUT"}}]}
        errors = [error.formatted for error in result.errors or ()]
        return {"data": result.data, **({"errors": errors} if errors else {})}
