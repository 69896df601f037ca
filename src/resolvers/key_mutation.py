"""The mutations of API keys. A secret is drawn before the transaction: what is remembered of the answer holds none."""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.billing import ApiKey
from ..schema.keys import (
    CreateApiKeyInput,
    CreateApiKeyPayload,
    RevokeApiKeyInput,
    RevokeApiKeyPayload,
    RotateApiKeyInput,
    RotateApiKeyPayload,
)
from ..schema.node import key_of
from ..services import keys
from ..services.access import Principal, Right
from ..services.errors import NotFound
from ..services.idempotency import Outcome, Request, idempotent
from ..services.relations import OPENINGS_OF_KEY
from ..services.tokens import Secret, draw_next, draw_secret
from .access import mutation
from .context import Info


@strawberry.type
class KeyMutation:
    """What of Mutation makes, exchanges and ends API keys."""

    @mutation(Right.MANAGE_KEYS)
    async def create_api_key(
        self,
        info: Info,
        input: Annotated[CreateApiKeyInput, strawberry.argument(description="The key.")],
    ) -> CreateApiKeyPayload:
        """Make an API key. Its token is shown this once."""
        given = input.to_input()
        ids = given.account_ids or ()
        scope = str(ids[0]) if len(ids) == 1 else ""
        drawn = draw_secret(info.context.settings.environment)
        request = Request(input.idempotency_key, scope=scope, given=given)
        outcome = await info.context.run(_create_key, request, info.context.principal, drawn, given)
        key = await _show(info, outcome)
        return CreateApiKeyPayload(api_key=key, token=None if outcome.replayed else drawn.token)

    @mutation(Right.MANAGE_KEYS)
    async def rotate_api_key(
        self,
        info: Info,
        input: Annotated[RotateApiKeyInput, strawberry.argument(description="Which one.")],
    ) -> RotateApiKeyPayload:
        """Give an API key a new secret. The present one stays good for a while, so that programs can be changed."""
        row = await _find(info, input.key_id)
        overlap = keys.check_overlap(input.overlap_seconds)
        drawn = draw_next(row.prefix)
        request = Request(input.idempotency_key, scope="", given=[row.id, overlap])
        outcome = await info.context.run(_rotate_key, request, info.context.principal, row.id, drawn, overlap)
        key = await _show(info, outcome)
        return RotateApiKeyPayload(api_key=key, token=None if outcome.replayed else drawn.token)

    @mutation(Right.MANAGE_KEYS)
    async def revoke_api_key(
        self,
        info: Info,
        input: Annotated[RevokeApiKeyInput, strawberry.argument(description="Which one.")],
    ) -> RevokeApiKeyPayload:
        """End an API key at once, with the streams opened with it. What it opens of others is theirs to end."""
        row = await _find(info, input.key_id)
        request = Request(input.idempotency_key, scope="", given=row.id)
        outcome = await info.context.run(_revoke_key, request, info.context.principal, row.id)
        return RevokeApiKeyPayload(api_key=await _show(info, outcome))


async def _find(info: Info, id: str) -> models.ApiKey:
    key = key_of(id, "ApiKey")
    row = None if key is None else await info.context.load.row(models.ApiKey, key)
    openings = [] if row is None else await info.context.load.related(OPENINGS_OF_KEY, row.id)
    if row is None or not keys.may_see(info.context.principal, row, openings):
        raise NotFound(keys.UNKNOWN_KEY, ["input", "keyId"])
    return row


async def _show(info: Info, outcome: Outcome) -> ApiKey:
    """The key of an answer, as it is after the commit."""
    info.context.note_replay(replayed=outcome.replayed)
    row = await info.context.load.row(models.ApiKey, UUID(outcome.answer["keyId"]))
    assert row is not None, "keys are never deleted"
    return ApiKey.of(row)


@idempotent("createApiKey")
async def _create_key(work: Work, principal: Principal, drawn: Secret, given: keys.KeyInput) -> dict[str, Any]:
    return {"keyId": str((await keys.create_key_as(work, principal, drawn, given)).id)}


@idempotent("rotateApiKey")
async def _rotate_key(
    work: Work, principal: Principal, key_id: UUID, drawn: Secret, overlap: timedelta
) -> dict[str, Any]:
    return {"keyId": str((await keys.rotate_key_as(work, principal, key_id, drawn, overlap)).id)}


@idempotent("revokeApiKey")
async def _revoke_key(work: Work, principal: Principal, key_id: UUID) -> dict[str, Any]:
    return {"keyId": str((await keys.revoke_key_as(work, principal, key_id)).id)}
