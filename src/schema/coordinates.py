"""Which fields documents name, and how a deprecated one says when it goes."""

import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLEnumValue,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    visit,
)

from ..services.uses import Coordinates

NOTICE = timedelta(days=365)
"""So long a deprecated field stays at least."""
_DATES = re.compile(r"Since: (\d{4}-\d\d-\d\d)\. Removal: (\d{4}-\d\d-\d\d)$")


class _Fields(Visitor):
    """Notes the fields of a definition with their types, and the fragments that it spreads."""

    def __init__(self, info: TypeInfo) -> None:
        super().__init__()
        self.info = info
        self.current: dict[str, None] = {}
        self.deprecated: dict[str, None] = {}
        self.spreads: dict[str, None] = {}

    def enter_field(self, node: FieldNode, *_: object) -> None:
        """Note it, unless it is introspection's."""
        parent, definition = self.info.get_parent_type(), self.info.get_field_def()
        if parent is None or definition is None or node.name.value.startswith("__") or parent.name.startswith("__"):
            return
        known = self.current if definition.deprecation_reason is None else self.deprecated
        known[f"{parent.name}.{node.name.value}"] = None

    def enter_fragment_spread(self, node: FragmentSpreadNode, *_: object) -> None:
        """Note it for later."""
        self.spreads[node.name.value] = None


def list_coordinates(schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> Coordinates:
    """The fields that an operation of a valid document names, whether or not a directive leaves them out."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    info = TypeInfo(schema)
    found = _Fields(info)
    visit(operation, TypeInfoVisitor(info, found))
    walked: set[str] = set()
    while left := [name for name in found.spreads if name not in walked]:
        for name in left:
            walked.add(name)
            visit(fragments[name], TypeInfoVisitor(info, found))
    return Coordinates(tuple(found.current), tuple(found.deprecated))


def list_deprecations(schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    """All that is deprecated, with the reason: fields, arguments, fields of inputs and values of enums."""
    for name, kind in sorted(schema.type_map.items()):
        members: Mapping[str, GraphQLField | GraphQLInputField | GraphQLEnumValue] = {}
        if isinstance(kind, GraphQLEnumType):
            members = kind.values
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            members = kind.fields
        for member_name, member in members.items():
            coordinate = f"{name}.{member_name}"
            if member.deprecation_reason is not None:
                yield coordinate, member.deprecation_reason
            for argument_name, argument in member.args.items() if isinstance(member, GraphQLField) else ():
                if argument.deprecation_reason is not None:
                    yield f"{coordinate}({argument_name}:)", argument.deprecation_reason


def read_removal(reason: str) -> date | None:
    """The day on which something goes, by its reason; none where that does not end in `Since: … . Removal: …`."""
    found = _DATES.search(reason)
    if found is None:
        return None
    try:
        since, removal = (date.fromisoformat(text) for text in found.groups())
    except ValueError:
        return None
    return removal if removal - since >= NOTICE else None


def find_short_notices(schema: GraphQLSchema) -> list[str]:
    """What is deprecated without a year's notice, or without saying so in its reason."""
    return [coordinate for coordinate, reason in list_deprecations(schema) if read_removal(reason) is None]
