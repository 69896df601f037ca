"""Doing what a recommendation advises: each order through a quote, which is confirmed as it was made."""

from contextlib import suppress
from functools import partial
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import AddOn, ChangeAct, Subscription
from .access import Principal, Right
from .accounts import lock_for
from .decisions import Decide, Decision, decide_add_on, decide_change
from .duties import catch_up
from .errors import Conflict, LimitsExceeded
from .idempotency import Request, recall
from .orders import place
from .permissions import Action, check_state
from .quotes import confirm_quote, quote
from .recommendations import FIELD, Recommendation, find_standing, tell_recommendation
from .standing import Standing
from .taking import Placed
from .tills import Till

MUTATION = "applyRecommendation"


async def apply_recommendation(
    till: Till, principal: Principal, account_id: UUID, key: str, request: Request
) -> Placed:
    """Order what a recommendation advises, as it stands.

    What the new plan needs more of is ordered first, then the plan, then what it needs less of. Where a charge waits
    for its cardholder, nothing further is ordered; what is left over stands as a recommendation of its own.
    """
    await catch_up(till, account_id)
    placed = await _repeat(till, principal, account_id, request, MUTATION)
    if placed is not None:
        return placed
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)
        subscription = await work.session.scalar(select(Subscription).where(Subscription.account_id == account.id))
        check_state(account, subscription, Action.APPLY_RECOMMENDATION)
        found = await find_standing(work, account, key)
    if found.resolve is None:
        raise Conflict(
            "There is nothing to order: sending less is yours to do. `dismissRecommendation` puts it away.", FIELD
        )
    return await _order(till, principal, account_id, found, request)


async def _repeat(till: Till, principal: Principal, account_id: UUID, request: Request, mutation: str) -> Placed | None:
    """What became of an order that was placed under the request's key; none where none was. It is quoted only once."""
    async with till.work() as work:
        await lock_for(work, principal, account_id, Right.MANAGE_BILLING)
        is_known = await recall(work, request, mutation) is not None
    return await place(till, principal, request, mutation, account_id, _decide_again) if is_known else None


async def _decide_again(work: Work, standing: Standing) -> Decision:  # noqa: ARG001  # as all that decide
    raise Conflict("The first request with this idempotency key is over: ask again with a new one.", FIELD)


async def _order(till: Till, principal: Principal, account_id: UUID, found: Recommendation, request: Request) -> Placed:
    assert found.resolve is not None, "there is something to order"
    plan, add_ons = found.resolve.plan, found.resolve.add_ons

    async def take(mutation: str, act: ChangeAct, decide: Decide, *, is_main: bool) -> Placed:
        placed = await _repeat(till, principal, account_id, request, mutation)
        if placed is not None:
            return placed
        quote_id = await quote(till, principal, account_id, act, decide)

        async def confirm(work: Work, standing: Standing) -> Decision:
            decision = await confirm_quote(work, standing, quote_id, act)
            if is_main:
                tell_recommendation(work, standing.account, found, "recommendation.ordered")
            return decision

        return await place(till, principal, request, mutation, account_id, confirm)

    async def set_units(add_on: AddOn, quantity: int, *, is_main: bool) -> Placed:
        decide = partial(decide_add_on, add_on_key=add_on.key, quantity=quantity)
        mutation = MUTATION if is_main else f"{MUTATION}.{add_on.key}"
        return await take(mutation, ChangeAct.SET_ADD_ON, decide, is_main=is_main)

    if plan is None:
        ((add_on, quantity, _),) = add_ons
        return await set_units(add_on, quantity, is_main=True)
    for add_on, quantity, is_more in add_ons:
        if is_more:
            placed = await set_units(add_on, quantity, is_main=False)
            if placed.pending_id is not None:
                return placed
    offer, interval = plan
    change = partial(decide_change, plan_key=offer.plan.key, interval=interval, checks_limits=False)
    placed = await take(MUTATION, ChangeAct.CHANGE_PLAN, change, is_main=True)
    if placed.pending_id is None:
        for add_on, quantity, is_more in add_ons:
            if not is_more:
                # What is refused by now, because more is in use, is no reason to refuse the plan that was ordered.
                with suppress(LimitsExceeded):
                    await set_units(add_on, quantity, is_main=False)
    return placed
