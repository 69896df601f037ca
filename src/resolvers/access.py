"""How root fields say who may call them. A root field without a declared right does not exist (a test walks them)."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from uuid import UUID

import strawberry
from strawberry.extensions import FieldExtension

from ..schema.errors import UserError
from ..schema.fields import Guard, SyncGuard
from ..schema.node import NOBODY, key_of
from ..services.access import Right, require
from ..services.accounts import UNKNOWN_ACCOUNT
from ..services.errors import BillingError, ErrorCode, NotFound, RequestRefused, list_refusals
from ..services.ports import ProcessorFailed
from .context import Info


def query(right: Right) -> Callable[[Callable[..., Any]], Any]:
    """A field of Query."""

    def wrap(resolver: Callable[..., Any]) -> Any:
        guard = Guard(right) if inspect.iscoroutinefunction(resolver) else SyncGuard(right)
        return strawberry.field(
            resolver, description=inspect.getdoc(resolver), extensions=[guard], metadata={"right": right}
        )

    return wrap


class ReportsUserErrors(FieldExtension):
    """Turns a refusal into the mutation's own payload, holding nothing but the reason."""

    def __init__(self, payload: Callable[..., Any]) -> None:
        self.payload = payload

    async def resolve_async(self, next_: Callable[..., Awaitable[Any]], source: Any, info: Info, **kwargs: Any) -> Any:
        """Answer, or say why not: by now the transaction has rolled back."""
        try:
            return await next_(source, info, **kwargs)
        except BillingError as refusal:
            info.context.note_replay(replayed=refusal.replayed)
            return self.payload(user_errors=[UserError.of(single) for single in list_refusals(refusal)])
        except ProcessorFailed as failure:
            raise RequestRefused(
                ErrorCode.UNAVAILABLE,
                "The payment processor does not answer. Ask again with the same key: nothing happens twice.",
            ) from failure


def mutation(right: Right) -> Callable[[Callable[..., Any]], Any]:
    """A field of Mutation. Its payload type is made with `user_errors` alone where it is refused."""

    def wrap(resolver: Callable[..., Any]) -> Any:
        payload = inspect.signature(resolver).return_annotation
        return strawberry.mutation(
            resolver,
            description=inspect.getdoc(resolver),
            extensions=[Guard(right), ReportsUserErrors(payload)],
            metadata={"right": right},
        )

    return wrap


def subscription(right: Right) -> Callable[[Callable[..., AsyncGenerator[Any]]], Any]:
    """A field of Subscription. Its resolver asks for the right over the account it streams; this asks for any."""

    def wrap(resolver: Callable[..., AsyncGenerator[Any]]) -> Any:
        return strawberry.subscription(resolver, description=inspect.getdoc(resolver), metadata={"right": right})

    return wrap


def require_right(info: Info, right: Right, account_id: Any = None) -> None:
    """Refuse with `FORBIDDEN` where the caller has not the right."""
    require(info.context.principal, right, account_id)


def require_operator(info: Info) -> None:
    """Refuse with `FORBIDDEN` whoever does not stand above all accounts: also an operator's key of one account."""
    require(info.context.principal, Right.OPERATE, NOBODY)


def find_account_id(info: Info, id: str, right: Right) -> UUID:
    """The account that an id names, for those who hold the right over it; of others none is there."""
    account_id = key_of(id, "BillingAccount")
    if account_id is None or info.context.principal.role_in(account_id) is None:
        raise NotFound(UNKNOWN_ACCOUNT, ["input", "accountId"])
    require_right(info, right, account_id)
    return account_id


def find_id(id: str | None, type_name: str) -> UUID | None:
    """The key in an id of a type; none where it is something else."""
    return None if id is None else key_of(id, type_name)
