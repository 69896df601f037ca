"""Operations in documents: which one is meant, what it asks for, and where a variable is used."""

from collections.abc import Sequence

from graphql import (
    DocumentNode,
    FieldNode,
    OperationDefinitionNode,
    ValueNode,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    visit,
)


def find_operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """The operation of a valid document that is meant: the only one, where no name is given."""
    return next(
        node
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
        and (name is None or (node.name is not None and node.name.value == name))
    )


def list_roots(operation: OperationDefinitionNode) -> list[FieldNode]:
    """The fields at its root, those in fragments left out."""
    return [node for node in operation.selection_set.selections if isinstance(node, FieldNode)]


def list_values(fields: Sequence[FieldNode], argument: str) -> list[ValueNode]:
    """What is given for an argument, once for each field that is given it."""
    return [given.value for field in fields for given in field.arguments or () if given.name.value == argument]


def count_uses(document: DocumentNode, variable: str) -> int:
    """How often a variable stands in a document, where it is defined left out."""
    uses = _Uses()
    visit(document, uses)
    return uses.names.count(variable)


class _Uses(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def enter_variable(self, node: VariableNode, _key: object, parent: object, *_: object) -> None:
        """Note its name, but where it is defined."""
        if not isinstance(parent, VariableDefinitionNode):
            self.names.append(node.name.value)
