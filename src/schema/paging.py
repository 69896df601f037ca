"""Relay connections with cursors of our own."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, Self, TypeAlias, TypeVar

import strawberry

from ..services.paging import Slice
from .fields import said

NodeT = TypeVar("NodeT")

First: TypeAlias = Annotated[
    int | None, strawberry.argument(description="How many from the front, 1 to 100; 20 when nothing is said.")
]
Last: TypeAlias = Annotated[int | None, strawberry.argument(description="How many from the back, 1 to 100.")]
After: TypeAlias = Annotated[
    str | None, strawberry.argument(description="Only what follows this cursor of the same list.")
]
Before: TypeAlias = Annotated[
    str | None, strawberry.argument(description="Only what precedes this cursor of the same list.")
]


@strawberry.type(description="What lies around a page.")
class PageInfo:
    """Relay's page info."""

    has_next_page: bool = said("Whether more follows this page.")
    has_previous_page: bool = said("Whether something precedes this page.")
    start_cursor: str | None = said("The first cursor of the page; null when it is empty.")
    end_cursor: str | None = said("The last cursor of the page: give it as `after` for the next one.")


@strawberry.type(description="An object at its place in a list.")
class Edge(Generic[NodeT]):
    """Relay's edge."""

    cursor: str = said("The place in this list, to page on from. Opaque, and bound to the list's order.")
    node: NodeT = said("The object.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[NodeT]):
    """Relay's connection."""

    edges: list[Edge[NodeT]] = said("The page's objects with their cursors.")
    nodes: list[NodeT] = said("The page's objects alone.")
    page_info: PageInfo = said("What lies around the page.")
    total_count: int = said("How many the whole list has, under the same filter.")

    @classmethod
    def of(cls, part: Slice[Any], shown: Callable[[Any], Any], **more: Any) -> Self:
        """A page from a part of a list."""
        edges = [Edge(cursor=cursor, node=shown(row)) for cursor, row in part.rows]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=part.has_next,
                has_previous_page=part.has_previous,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
            total_count=part.total,
            **more,
        )
