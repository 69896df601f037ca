"""The mutations about recommendations: following advice, and putting it away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.billing import Quote
from ..schema.node import GlobalId, decode_id
from ..schema.recommendations import (
    ApplyRecommendationInput,
    ApplyRecommendationPayload,
    DismissRecommendationInput,
    DismissRecommendationPayload,
)
from ..services.access import Principal, Right
from ..services.applications import apply_recommendation
from ..services.errors import BillingError, NotFound, list_refusals
from ..services.idempotency import Request, idempotent
from ..services.recommendations import FIELD, UNKNOWN_RECOMMENDATION, dismiss_recommendation
from .access import mutation, require_right
from .context import Info
from .showing import show_account, show_placed


@strawberry.type
class RecommendationMutation:
    """What of Mutation is about recommendations."""

    @mutation(Right.MANAGE_BILLING)
    async def apply_recommendation(
        self,
        info: Info,
        input: Annotated[ApplyRecommendationInput, strawberry.argument(description="Which one.")],
    ) -> ApplyRecommendationPayload:
        """Order what a recommendation advises, through a quote that is recorded and confirmed as it was made.

        As `changePlan` and `setAddOn` do it: upwards at once and when it is paid, downwards at the period's end. Units
        of add-ons that a smaller plan needs more of are ordered before it, those that a larger one needs fewer of are
        lowered after it. Advice whose grounds are gone is `NOT_FOUND`, SEND_LESS a `CONFLICT`.
        """
        account_id, key = _find(info, input.recommendation_id)
        request = Request(input.idempotency_key, scope=str(account_id), given=input.recommendation_id)
        with _naming_own_fields():
            placed = await apply_recommendation(info.context.till(), info.context.principal, account_id, key, request)
        info.context.note_replay(replayed=placed.replayed)
        shown = await show_placed(info, placed)
        subscription = shown["subscription"]
        scheduled = None if subscription is None else await subscription.find_scheduled(info.context)
        quote = await _show_quote(info, account_id, placed.quote_id)
        return ApplyRecommendationPayload(**shown, quote=quote, scheduled_change=scheduled)

    @mutation(Right.MANAGE_BILLING)
    async def dismiss_recommendation(
        self,
        info: Info,
        input: Annotated[DismissRecommendationInput, strawberry.argument(description="Which one.")],
    ) -> DismissRecommendationPayload:
        """Put a recommendation away for everybody of the account.

        It comes back when it suggests something else, when the account's plan, interval or add-ons are others, and when
        it would save at least twice as much as it did then.
        """
        account_id, key = _find(info, input.recommendation_id)
        request = Request(input.idempotency_key, scope=str(account_id), given=input.recommendation_id)
        with _naming_own_fields():
            outcome = await info.context.run(_dismiss, request, info.context.principal, account_id, key)
        info.context.note_replay(replayed=outcome.replayed)
        return DismissRecommendationPayload(account=await show_account(info, account_id))


def _find(info: Info, id: str) -> tuple[UUID, str]:
    """The account and the key that a recommendation's id names; of accounts that are not the caller's there is none."""
    found = decode_id(id)
    account_key, _, key = found.key.partition(":") if found else ("", "", "")
    account_id = GlobalId("BillingAccount", account_key).uuid()
    is_one = found is not None and found.type_name == "Recommendation"
    if not is_one or account_id is None or info.context.principal.role_in(account_id) is None:
        raise NotFound(UNKNOWN_RECOMMENDATION, FIELD)
    require_right(info, Right.MANAGE_BILLING, account_id)
    return account_id, key


@contextmanager
def _naming_own_fields() -> Iterator[None]:
    """What is refused of an order is about the recommendation here: an account, plan or quantity is not given."""
    try:
        yield
    except BillingError as refusal:
        for single in list_refusals(refusal):
            if single.field != ("input", "idempotencyKey"):
                single.field = tuple(FIELD)
        raise


async def _show_quote(info: Info, account_id: UUID, quote_id: UUID | None) -> Quote | None:
    row = None if quote_id is None else await info.context.load.row(models.Quote, quote_id)
    standing = None if row is None else await info.context.load.standing(account_id)
    if row is None or standing is None:
        return None
    return Quote.of(await info.context.load.quote_view(standing, row), standing.account)


@idempotent("dismissRecommendation")
async def _dismiss(work: Work, principal: Principal, account_id: UUID, key: str) -> dict[str, Any]:
    await dismiss_recommendation(work, principal, account_id, key)
    return {}
