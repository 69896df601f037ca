"""Quotes: what a change would cost, pinned for half an hour or until the subscription changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from ..database import ReadSession, Work
from ..models import AddOn, ChangeAct, Interval, Quote, SubscriptionAddOn, SubscriptionStatus
from .access import Principal, Right
from .accounts import lock_for
from .bills import Bill
from .catalogue import find_offer
from .changing import AddOnTarget, PlanTarget, Target, find_held, load_target, price_change
from .charges import Preview, find_upcoming, stand_after
from .closing import load_standing
from .decisions import (
    Decide,
    Decision,
    Priced,
    Scheduled,
    check_add_on_is_free,
    check_limits,
    check_nothing_pends,
    must_fit,
    now_of,
    takes_effect_at_once,
)
from .duties import catch_up, check_caught_up
from .errors import BillingError, ErrorCode, InvalidInput, NotFound, QuoteExpired, QuoteStale, RequestRefused
from .invoicing import Totals, foresee
from .limits import Excess, add_units, find_excess
from .plan_limits import load_plan_limits
from .pricing import kept_units
from .relations import HeldAddOn
from .standing import Standing, Terms
from .tills import Till

QUOTE_LIFE = timedelta(minutes=30)


async def quote(till: Till, principal: Principal, account_id: UUID | None, act: ChangeAct, decide: Decide) -> UUID:
    """Pin what a change would cost, for half an hour or until the subscription changes. Gives the quote's id."""
    if account_id is not None:
        await catch_up(till, account_id)
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)
        await check_caught_up(work, account)
        standing = await load_standing(work, account)
        decision = await decide(work, standing)
        now = now_of(work, account)
        if isinstance(decision, Scheduled):
            target: Target = PlanTarget(decision.terms)
            bill, at = Bill(currency=account.currency, lines=()), decision.at
        else:
            target, bill, at = decision.target, decision.bill, decision.at
        row = Quote(
            created_at=now,
            account_id=account.id,
            act=act,
            target=target.stored(),
            effective_at=at,
            expires_at=now + QUOTE_LIFE,
            subscription_version=standing.subscription.version if standing.subscription else 0,
            bill=bill.model_dump(mode="json"),
        )
        work.session.add(row)
        return row.id


async def confirm_quote(
    work: Work, standing: Standing, quote_id: UUID | None, act: ChangeAct, *, asked: tuple[str, int] | None = None
) -> Decision:
    """The change that a quote priced, exactly as it was quoted; of an add-on what is `asked` must be what it priced."""
    row = await read_quote(work, standing, quote_id, act)
    if act is not ChangeAct.SET_ADD_ON:
        await check_nothing_pends(work, standing)
    target = await load_target(ReadSession(work.session), row.target)
    if isinstance(target, AddOnTarget) and asked not in (None, (target.add_on.key, target.quantity)):
        raise InvalidInput("The quote is for another add-on or quantity.", ["input", "quoteId"])
    if isinstance(target, AddOnTarget):
        await check_add_on_is_free(work, standing, target.add_on)
    if isinstance(target, PlanTarget) and (act is not ChangeAct.CHANGE_PLAN or must_fit(standing, target.terms)):
        await check_limits(work, standing, target.terms)
    if isinstance(target, PlanTarget) and row.effective_at > now_of(work, standing.account):
        return Scheduled(target.terms, row.effective_at)
    return Priced(act, target, Bill.model_validate(row.bill), row.effective_at)


async def read_quote(work: Work, standing: Standing, quote_id: UUID | None, act: ChangeAct) -> Quote:
    """A quote that still binds."""
    quote = None if quote_id is None else await work.session.get(Quote, quote_id)
    if quote is None or quote.account_id != standing.account.id or quote.act is not act:
        raise NotFound("There is no such quote.", ["input", "quoteId"])
    if now_of(work, standing.account) >= quote.expires_at:
        raise QuoteExpired("The quote is older than 30 minutes: ask for a new one.", ["input", "quoteId"])
    version = standing.subscription.version if standing.subscription else 0
    if quote.subscription_version != version:
        target = await load_target(ReadSession(work.session), quote.target)
        fresh = price_change(standing, act, target, now_of(work, standing.account))
        language = standing.account.locale.split("-")[0]
        lines = "; ".join(f"{line.describe(language)}: {line.amount_minor}" for line in fresh.lines) or "nothing"
        raise QuoteStale(
            f"The subscription changed since the quote was made: ask for a new one. It would now be {lines} "
            f"(minor units of {standing.currency}).",
            ["input", "quoteId"],
        )
    return quote


@dataclass(frozen=True)
class QuoteView:
    """A quote with what it comes to."""

    quote: Quote
    bill: Bill
    totals: Totals
    upcoming: Preview | None
    """The invoice after the change."""
    removed_add_ons: Sequence[AddOn]
    exceeding: Sequence[Excess]
    """What is in use above the new limits: the change is refused until it is reduced."""


async def view_quote(session: ReadSession, standing: Standing, row: Quote) -> QuoteView:
    """What a quote comes to, as things stand."""
    bill = Bill.model_validate(row.bill)
    totals, _ = foresee(standing, bill)
    target = await load_target(session, row.target)
    if isinstance(target, AddOnTarget):
        return QuoteView(row, bill, totals, find_upcoming(_stand_with(standing, target)), [], [])
    limits = await load_plan_limits(session, target.terms.offer.version.id)
    plan_key = target.terms.offer.plan.key
    units = kept_units(standing.add_ons, plan_key)
    excess = find_excess(standing.figures, add_units(limits, [(unit.add_on, unit.quantity) for unit in units]))
    after = standing
    if standing.subscription is not None and row.act is ChangeAct.CHANGE_PLAN:
        at_once = row.effective_at < standing.subscription.current_period_end
        after = stand_after(standing, target.terms, limits, row.effective_at, at_once=at_once)
    removed = [item.add_on for item in standing.add_ons if plan_key not in item.add_on.plan_keys]
    return QuoteView(row, bill, totals, find_upcoming(after), removed, excess)


def _stand_with(standing: Standing, target: AddOnTarget) -> Standing:
    """How an account would stand with another quantity of an add-on."""
    item = find_held(standing, target.add_on)
    held = SubscriptionAddOn(
        created_at=standing.account.created_at,
        account_id=standing.account.id,
        add_on_id=target.add_on.id,
        quantity=target.quantity,
        price_minor=target.price_minor,
    )
    others = [other for other in standing.add_ons if other is not item]
    return replace(standing, add_ons=[*others, HeldAddOn(held, target.add_on)] if target.quantity else others)


async def suppose_change(
    session: ReadSession, standing: Standing, plan_key: str, interval: Interval, now: datetime
) -> Standing:
    """How an account would stand after a change of plan that is not made yet."""
    if standing.terms is None or standing.subscription is None:
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, "Without a subscription there is no plan to change.")
    try:
        offer, price_minor = await find_offer(session, standing.account, plan_key, interval)
    except BillingError as refusal:
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, str(refusal)) from refusal
    target = Terms(offer, interval, price_minor)
    limits = await load_plan_limits(session, offer.version.id)
    trialing = standing.subscription.status is SubscriptionStatus.TRIALING
    at_once = trialing or takes_effect_at_once(standing.terms, target)
    return stand_after(standing, target, limits, now.replace(microsecond=0), at_once=at_once)
