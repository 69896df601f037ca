"""How types say themselves: fields whose docstring is their description, fields with rights, enums with words."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.types.enum import StrawberryEnumDefinition

from ..services.access import Right, require
from .context import Info


def said(description: str) -> Any:
    """A field that holds a value, with its description."""
    return strawberry.field(description=description)


def once_key(*, required: bool = False) -> Any:
    """The idempotency key of an input."""
    description = (
        "Under it this happens once: the same key and input give the first answer again for 48 hours, other input is "
        "refused. 1 to 255 printable ASCII characters."
    )
    if required:
        return strawberry.field(description=description)
    return strawberry.field(default=None, description=description)


def maybe(description: str) -> Any:
    """An input field that may be left out, and a payload field that is null where the mutation was refused."""
    return strawberry.field(default=None, description=description)


def refusals() -> Any:
    """Why a mutation was refused, as the last field of its payload."""
    return strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not. Refused, it has changed nothing."
    )


def field(resolver: Callable[..., Any]) -> Any:
    """A field that is answered by a function. The docstring is the description."""
    return strawberry.field(resolver, description=inspect.getdoc(resolver))


class Guard(FieldExtension):
    """Asks for a right: over the account that the object belongs to, or at a root over any."""

    def __init__(self, right: Right) -> None:
        self.right = right

    def resolve(self, next_: Callable[..., Any], source: Any, info: Info, **kwargs: Any) -> Any:
        """Refuse, or go on."""
        require(info.context.principal, self.right, getattr(source, "account_id", None))
        return next_(source, info, **kwargs)

    async def resolve_async(self, next_: Callable[..., Awaitable[Any]], source: Any, info: Info, **kwargs: Any) -> Any:
        """Refuse, or go on."""
        require(info.context.principal, self.right, getattr(source, "account_id", None))
        return await next_(source, info, **kwargs)


class SyncGuard(Guard):
    """The same for fields that answer at once."""

    @property
    def supports_async(self) -> bool:
        """A sync field keeps its sync resolver."""
        return False


def guarded(right: Right) -> Callable[[Callable[..., Any]], Any]:
    """A field that only callers with a right over the object's account may read."""

    def wrap(resolver: Callable[..., Any]) -> Any:
        guard = Guard(right) if inspect.iscoroutinefunction(resolver) else SyncGuard(right)
        return strawberry.field(resolver, description=inspect.getdoc(resolver), extensions=[guard])

    return wrap


def say_enum(enum: type[Enum], values: Mapping[str, str], name: str | None = None) -> None:
    """Make an enum of the services or models one of GraphQL's, with words for each value."""
    made = strawberry.enum(enum, name=name, description=inspect.getdoc(enum))
    definition: StrawberryEnumDefinition = made.__strawberry_definition__  # type: ignore[attr-defined]
    assert set(values) == set(enum.__members__), f"{enum.__name__} and its words differ"
    for value in definition.values:
        value.description = values[value.name]
