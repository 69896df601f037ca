"""Reads the events of a `recordUsage` batch out of the variables, past the general reading of inputs.

That one walks each event three times, which costs more than storing it. What is read here is the same; whatever is out
of the ordinary is left to it, with its errors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import ObjectValueNode, ValueNode, VariableNode, parse
from strawberry.extensions import SchemaExtension

from ..faults import reach
from ..schema.operations import count_uses, find_operation, list_roots, list_values
from ..schema.usage import read_events

FIELD, INPUT, EVENTS = "recordUsage", "input", "events"
KNOWN_DOCUMENTS = 256


@dataclass(frozen=True)
class Batch:
    """Which variable holds the events: the list itself, or the whole input."""

    variable: str
    is_input: bool

    def events_in(self, variables: Mapping[str, Any]) -> object:
        """The events as they were sent."""
        given = variables.get(self.variable)
        if not self.is_input:
            return given
        return given.get(EVENTS) if isinstance(given, dict) else None

    def without_events(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The variables with none of them."""
        given = variables[self.variable]
        return {**variables, self.variable: {**given, EVENTS: []} if self.is_input else []}


class ReadsBatches(SchemaExtension):
    """Puts the events of a batch into the context, and takes them out of the variables."""

    def on_execute(self) -> Iterator[None]:
        """Before anything is executed."""
        asked = self.execution_context
        batch = find_batch(asked.query, asked.operation_name) if asked.query and FIELD in asked.query else None
        if batch is not None:
            reach("usage.received")
            variables = asked.variables or {}
            events = read_events(batch.events_in(variables))
            if events is not None:
                asked.context.batch = events
                asked.variables = batch.without_events(variables)
        yield


@lru_cache(maxsize=KNOWN_DOCUMENTS)
def find_batch(text: str, operation_name: str | None) -> Batch | None:
    """Where the events of a valid document are; none where they stand in it, or are used for anything else."""
    document = parse(text)
    operation = find_operation(document, operation_name)
    roots = list_roots(operation)
    if len(roots) != len(operation.selection_set.selections):
        return None  # fragments at the root: rare, and read the general way
    given = list_values([node for node in roots if node.name.value == FIELD], INPUT)
    if len(given) != 1:
        return None
    batch = _batch_of(given[0])
    return batch if batch is not None and count_uses(document, batch.variable) == 1 else None


def _batch_of(value: ValueNode) -> Batch | None:
    if isinstance(value, VariableNode):
        return Batch(value.name.value, is_input=True)
    if isinstance(value, ObjectValueNode):
        for field in value.fields or ():
            if field.name.value == EVENTS and isinstance(field.value, VariableNode):
                return Batch(field.value.name.value, is_input=False)
    return None
