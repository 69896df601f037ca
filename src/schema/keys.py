"""API keys: the inputs and answers of their mutations, and who still asks for which field."""

from datetime import date, datetime
from typing import Self

import strawberry

from .. import models
from ..services.keys import DEFAULT_OVERLAP, KeyInput
from ..services.uses import FieldUsage
from .billing import ApiKey
from .errors import UserError
from .fields import maybe, once_key, refusals, said
from .node import NOBODY, key_of
from .scalars import BigInt


@strawberry.input(description="A key to make. It can do no more than whoever makes it may, now and later.")
class CreateApiKeyInput:
    """A new key."""

    account_ids: list[strawberry.ID] | None = maybe(
        "The accounts that it opens, 1 to 50. An operator who leaves it out makes a key that opens all, also those to "
        "come."
    )
    name: str = said("What it is for, up to 100 characters: lists show it.")
    scopes: list[str] = said(
        "What it may: billing:read, billing:write, usage:write, admin (all of its maker's rights). A tenant's key "
        "records usage only where an operator set `keysMayIngest`."
    )
    expires_at: datetime | None = maybe("When it ends by itself, at most five years ahead; never when left out.")
    networks: list[str] = strawberry.field(
        default_factory=list,
        description="From where it may be shown: up to 20 networks such as 192.0.2.0/24 or 2001:db8::/32, or "
        "addresses; from everywhere when empty.",
    )
    idempotency_key: str | None = once_key()

    def to_input(self) -> KeyInput:
        """As the services know it."""
        ids = None
        if self.account_ids is not None:
            ids = [key_of(id_, "BillingAccount") or NOBODY for id_ in self.account_ids]
        return KeyInput(
            name=self.name, scopes=self.scopes, account_ids=ids, expires_at=self.expires_at, networks=self.networks
        )


@strawberry.input(description="A key to give a new secret.")
class RotateApiKeyInput:
    """Which key."""

    key_id: strawberry.ID = said("The key's id.")
    overlap_seconds: int | None = maybe(
        f"How long the present secret stays good beside the new one: 0 to 604800 (seven days), "
        f"{int(DEFAULT_OVERLAP.total_seconds())} (a day) when left out. One from before the present ends at once."
    )
    idempotency_key: str | None = once_key()


@strawberry.input(description="A key to end.")
class RevokeApiKeyInput:
    """Which key."""

    key_id: strawberry.ID = said("The key's id.")
    idempotency_key: str | None = once_key()


_SHOWN_ONCE = (
    "What a program sends as `Authorization: Bearer …`. It is shown this once: an answer that is given again under the "
    "same idempotency key has null here."
)


@strawberry.type(description="The key that was made.")
class CreateApiKeyPayload:
    """The answer to a new key."""

    api_key: ApiKey | None = maybe("The key.")
    token: str | None = maybe(_SHOWN_ONCE)
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The key with its new secret.")
class RotateApiKeyPayload:
    """The answer to a rotation."""

    api_key: ApiKey | None = maybe("The key.")
    token: str | None = maybe(_SHOWN_ONCE)
    user_errors: list[UserError] = refusals()


@strawberry.type(description="The key that has ended.")
class RevokeApiKeyPayload:
    """The answer to a revocation."""

    api_key: ApiKey | None = maybe("The key as it is now.")
    user_errors: list[UserError] = refusals()


@strawberry.type(description="That a caller asks for a field: an operation that names it several times counts once.")
class FieldUse:
    """A caller's use of a field."""

    coordinate: str = said("The field, as `Type.field`.")
    deprecation_reason: str | None = said("Why it is deprecated, and since when; null where it is not.")
    removal: date | None = said("The first day on which it may be gone; null where it is not deprecated.")
    caller: str = said("Who, as api_key:ID, member:ID or operator:ID.")
    api_key: ApiKey | None = said("The key, with the accounts that it opens; null where it is a person.")
    count: BigInt = said(
        "By how many operations: of a deprecated field each was counted, of others it is estimated from a sample."
    )
    last_day: date = said("The last day on which it was counted, in UTC.")

    @classmethod
    def of(
        cls, usage: FieldUsage, key: models.ApiKey | None, deprecation_reason: str | None, removal: date | None
    ) -> Self:
        """A use from what was counted."""
        return cls(
            coordinate=usage.coordinate,
            deprecation_reason=deprecation_reason,
            removal=removal,
            caller=usage.principal,
            api_key=None if key is None else ApiKey.of(key),
            count=BigInt(usage.count),
            last_day=usage.last_day,
        )
