"""The mutations that order plans and add-ons."""

from functools import partial
from typing import Annotated, Any

import strawberry

from .. import models
from ..schema.billing import (
    CreditNote,
    Quote,
)
from ..schema.plans import (
    CancelCredit,
    CancelMode,
    CancelScheduledChangeInput,
    CancelScheduledChangePayload,
    CancelSubscriptionInput,
    CancelSubscriptionPayload,
    ChangePlanInput,
    ChangePlanPayload,
    QuoteAddOnInput,
    QuoteAddOnPayload,
    QuotePlanChangeInput,
    QuotePlanChangePayload,
    ReactivateSubscriptionInput,
    ReactivateSubscriptionPayload,
    ResumeSubscriptionInput,
    ResumeSubscriptionPayload,
    SetAddOnInput,
    SetAddOnPayload,
    StartSubscriptionInput,
    StartSubscriptionPayload,
    StartTrialInput,
    StartTrialPayload,
)
from ..services import endings, orders
from ..services.access import Right
from ..services.decisions import (
    Decide,
    decide_add_on,
    decide_change,
    decide_reactivation,
    decide_start,
)
from ..services.errors import InvalidInput
from ..services.idempotency import Request
from ..services.inputs import refuse_card_number
from ..services.quotes import confirm_quote, quote
from ..services.taking import Placed
from .access import find_account_id, find_id, mutation
from .context import Info
from .showing import show_account, show_placed, show_subscription

MAX_REASON = 500


@strawberry.type
class PlanMutation:
    """What of Mutation orders plans and add-ons."""

    @mutation(Right.MANAGE_BILLING)
    async def start_trial(
        self,
        info: Info,
        input: Annotated[StartTrialInput, strawberry.argument(description="Which plan.")],
    ) -> StartTrialPayload:
        """Try a plan for 14 days: its limits, no overage, nothing charged. Without a way to pay it then just ends."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope="", given=[input.plan_key, input.interval])
        placed = await endings.start_trial(
            info.context.till(), info.context.principal, request, account_id, input.plan_key, input.interval
        )
        info.context.note_replay(replayed=placed.replayed)
        return StartTrialPayload(
            account=await show_account(info, account_id), subscription=await show_subscription(info, account_id)
        )

    @mutation(Right.MANAGE_BILLING)
    async def start_subscription(
        self,
        info: Info,
        input: Annotated[StartSubscriptionInput, strawberry.argument(description="Which plan.")],
    ) -> StartSubscriptionPayload:
        """Start a plan. What it costs is charged now, and it begins when that is paid; at once where it is sent."""
        decide = partial(decide_start, plan_key=input.plan_key, interval=input.interval)
        placed = await _place(info, input, "startSubscription", decide, [input.plan_key, input.interval])
        return StartSubscriptionPayload(**await show_placed(info, placed))

    @mutation(Right.MANAGE_BILLING)
    async def reactivate_subscription(
        self,
        info: Info,
        input: Annotated[ReactivateSubscriptionInput, strawberry.argument(description="Which plan.")],
    ) -> ReactivateSubscriptionPayload:
        """Start anew after a cancellation, with any plan, from now. What is unpaid comes first."""
        decide = partial(decide_reactivation, plan_key=input.plan_key, interval=input.interval)
        placed = await _place(info, input, "reactivateSubscription", decide, [input.plan_key, input.interval])
        return ReactivateSubscriptionPayload(**await show_placed(info, placed))

    @mutation(Right.MANAGE_BILLING)
    async def quote_plan_change(
        self,
        info: Info,
        input: Annotated[QuotePlanChangeInput, strawberry.argument(description="Which plan.")],
    ) -> QuotePlanChangePayload:
        """Pin what a change of plan costs, for half an hour or until the subscription changes."""
        decide = partial(decide_change, plan_key=input.plan_key, interval=input.interval, checks_limits=False)
        return QuotePlanChangePayload(quote=await _quote(info, input.account_id, models.ChangeAct.CHANGE_PLAN, decide))

    @mutation(Right.MANAGE_BILLING)
    async def change_plan(
        self,
        info: Info,
        input: Annotated[ChangePlanInput, strawberry.argument(description="Which plan.")],
    ) -> ChangePlanPayload:
        """Change the plan: upwards at once and when it is paid, downwards at the end of the billing period.

        Where invoices are sent and not charged, it does not wait for the payment. A cancellation that waits for the
        period's end is taken back by it.
        """
        by_plan = input.plan_key is not None and input.interval is not None
        if by_plan == (input.quote_id is not None) or (input.plan_key is None) != (input.interval is None):
            raise InvalidInput("Give either `quoteId`, or `planKey` with `interval`.", ["input"])
        decide: Decide
        if input.plan_key is not None and input.interval is not None:
            decide = partial(decide_change, plan_key=input.plan_key, interval=input.interval)
        else:
            quote_id = find_id(input.quote_id, "Quote")
            decide = partial(confirm_quote, quote_id=quote_id, act=models.ChangeAct.CHANGE_PLAN)
        given = [input.plan_key, input.interval, input.quote_id]
        placed = await _place(info, input, "changePlan", decide, given)
        shown = await show_placed(info, placed)
        subscription = shown["subscription"]
        scheduled = None if subscription is None else await subscription.find_scheduled(info.context)
        return ChangePlanPayload(**shown, scheduled_change=scheduled)

    @mutation(Right.MANAGE_BILLING)
    async def cancel_scheduled_change(
        self,
        info: Info,
        input: Annotated[CancelScheduledChangeInput, strawberry.argument(description="Whose.")],
    ) -> CancelScheduledChangePayload:
        """Take back a change of plan that waits for the period's end, or for its payment."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        await endings.give_up_change(info.context.till(), info.context.principal, account_id)
        return CancelScheduledChangePayload(
            account=await show_account(info, account_id), subscription=await show_subscription(info, account_id)
        )

    @mutation(Right.MANAGE_BILLING)
    async def cancel_subscription(
        self,
        info: Info,
        input: Annotated[CancelSubscriptionInput, strawberry.argument(description="When.")],
    ) -> CancelSubscriptionPayload:
        """End the subscription: with its billing period, or (for operators) at once."""
        is_now = input.mode is CancelMode.NOW
        account_id = find_account_id(info, input.account_id, Right.OPERATE if is_now else Right.MANAGE_BILLING)
        reason = input.reason or ""
        if len(reason) > MAX_REASON:
            raise InvalidInput(f"`reason` has at most {MAX_REASON} characters.", ["input", "reason"])
        refuse_card_number(reason, ["input", "reason"])
        prorated = input.credit is CancelCredit.PRORATED
        if prorated and not is_now:
            raise InvalidInput("Only a cancellation at once gives something back.", ["input", "credit"])
        given = [input.mode.value, input.credit.value, reason]
        request = Request(input.idempotency_key, scope="", given=given)
        till, principal = info.context.till(), info.context.principal
        if is_now:
            placed = await endings.cancel_now(till, principal, request, account_id, prorated=prorated, reason=reason)
        else:
            placed = await endings.cancel_at_period_end(till, principal, request, account_id, reason)
        info.context.note_replay(replayed=placed.replayed)
        notes = await info.context.load.notes_of_cancellation(account_id) if is_now else []
        return CancelSubscriptionPayload(
            account=await show_account(info, account_id),
            subscription=await show_subscription(info, account_id),
            credit_notes=[CreditNote.of(row) for row in notes],
        )

    @mutation(Right.MANAGE_BILLING)
    async def resume_subscription(
        self,
        info: Info,
        input: Annotated[ResumeSubscriptionInput, strawberry.argument(description="Whose.")],
    ) -> ResumeSubscriptionPayload:
        """Undo a cancellation that waits for the period's end."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope="", given=None)
        placed = await endings.resume(info.context.till(), info.context.principal, request, account_id)
        info.context.note_replay(replayed=placed.replayed)
        return ResumeSubscriptionPayload(
            account=await show_account(info, account_id), subscription=await show_subscription(info, account_id)
        )

    @mutation(Right.MANAGE_BILLING)
    async def quote_add_on(
        self,
        info: Info,
        input: Annotated[QuoteAddOnInput, strawberry.argument(description="Which add-on.")],
    ) -> QuoteAddOnPayload:
        """Pin what a quantity of an add-on costs now, for half an hour or until the subscription changes."""
        decide = partial(decide_add_on, add_on_key=input.add_on_key, quantity=input.quantity)
        return QuoteAddOnPayload(quote=await _quote(info, input.account_id, models.ChangeAct.SET_ADD_ON, decide))

    @mutation(Right.MANAGE_BILLING)
    async def set_add_on(
        self,
        info: Info,
        input: Annotated[SetAddOnInput, strawberry.argument(description="Which add-on.")],
    ) -> SetAddOnPayload:
        """Set how many units of an add-on are held. More are charged now; fewer come with the next usage period.

        More are charged for the rest of the usage period, blocks of a counter whole; nothing is given back for fewer.
        """
        decide: Decide = partial(decide_add_on, add_on_key=input.add_on_key, quantity=input.quantity)
        if input.quote_id is not None:
            quote_id = find_id(input.quote_id, "Quote")
            decide = partial(
                confirm_quote,
                quote_id=quote_id,
                act=models.ChangeAct.SET_ADD_ON,
                asked=(input.add_on_key, input.quantity),
            )
        given = [input.add_on_key, input.quantity, input.quote_id]
        placed = await _place(info, input, "setAddOn", decide, given)
        return SetAddOnPayload(**await show_placed(info, placed))


async def _place(info: Info, input: Any, mutation: str, decide: Decide, given: object) -> Placed:
    account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
    request = Request(input.idempotency_key, scope="", given=given)
    placed = await orders.place(info.context.till(), info.context.principal, request, mutation, account_id, decide)
    info.context.note_replay(replayed=placed.replayed)
    return placed


async def _quote(info: Info, id: str, act: models.ChangeAct, decide: Decide) -> Quote:
    account_id = find_account_id(info, id, Right.MANAGE_BILLING)
    quote_id = await quote(info.context.till(), info.context.principal, account_id, act, decide)
    info.context.forget()
    row = await info.context.load.row(models.Quote, quote_id)
    assert row is not None, "just made"
    standing = await info.context.load.standing(account_id)
    assert standing is not None, "just read"
    return Quote.of(await info.context.load.quote_view(standing, row), standing.account)
