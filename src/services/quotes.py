"""Quotes: what a change would cost, pinned for half an hour or until the subscription changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from ..database import ReadSession, Work
from ..models import AddOn, ChangeAct, Interval, InvoiceLine, Quote, SubscriptionAddOn, SubscriptionStatus
from .access import Principal, Right
from .accounts import lock_for
from .bills import Bill
from .catalogue import find_offer
from .changing import AddOnTarget, PlanTarget, Target, find_held, load_target, price_change
from .charges import Preview, find_upcoming, stand_after, stand_after_drafts
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
    without_ahead,
)
from .duties import catch_up, check_caught_up
from .errors import BillingError, ErrorCode, InvalidInput, NotFound, QuoteExpired, QuoteStale, RequestRefused
from .invoicing import Totals, foresee_documents
from .limits import Excess, add_units, find_excess
from .plan_limits import load_plan_limits
from .pricing import interval_moves_anchor, kept_units
from .relations import HeldAddOn
from .standing import CreditableLine, Standing, Terms
from .taking import pin
from .tills import Till
from .usage import MAX_FIGURE
from .wording import format_money


async def quote(till: Till, principal: Principal, account_id: UUID | None, act: ChangeAct, decide: Decide) -> UUID:
    """Pin what a change would cost, for half an hour or until the subscription changes. Gives the quote's id."""
    if account_id is not None:
        await catch_up(till, account_id)
    async with till.work() as work:
        account = await lock_for(work, principal, account_id, Right.MANAGE_BILLING)
        await check_caught_up(work, account)
        standing = await bill_drafts(ReadSession(work.session), await load_standing(work, account))
        decision = await decide(work, standing)
        return pin(work, standing, act, decision).id


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
        return Scheduled(target.terms, row.effective_at, row.id)
    bill = _rebind(standing, row, target) if not standing.drafts else Bill.model_validate(row.bill)
    return Priced(act, target, bill, row.effective_at, row.id)


async def bill_drafts(session: ReadSession, standing: Standing) -> Standing:
    """A standing in which what drafts charge counts as charged, as a change at once has them finalised first."""
    if not standing.drafts:
        return standing
    rows = await session.scalars(
        select(InvoiceLine).where(
            InvoiceLine.invoice_id.in_([draft.id for draft in standing.drafts]), InvoiceLine.amount_minor > 0
        )
    )
    lines = [*standing.lines, *(CreditableLine(row, "", row.amount_minor, is_paid=True) for row in rows)]
    newest_first = sorted(lines, key=lambda line: (line.line.period_start, line.line.id), reverse=True)
    return replace(standing, lines=newest_first)


def _rebind(standing: Standing, row: Quote, target: Target) -> Bill:
    """A quote's bill, whose credits of what was a draft's line name the line of the invoice that became of it."""
    bill = Bill.model_validate(row.bill)
    if all(line.credited is None or line.credited.invoice_number for line in bill.lines):
        return bill
    fresh = list(price_change(standing, row.act, target, row.effective_at).lines)
    bound = []
    for line in bill.lines:
        if line.credited is None or line.credited.invoice_number:
            bound.append(line)
            continue
        same = next((other for other in fresh if other.model_copy(update={"credited": line.credited}) == line), None)
        if same is None:
            raise _stale(standing, row, target, row.effective_at)
        fresh.remove(same)
        bound.append(same)
    return bill.model_copy(update={"lines": tuple(bound)})


async def read_quote(work: Work, standing: Standing, quote_id: UUID | None, act: ChangeAct) -> Quote:
    """A quote that still binds."""
    quote = None if quote_id is None else await work.session.get(Quote, quote_id)
    if quote is None or quote.account_id != standing.account.id:
        raise NotFound("There is no such quote.", ["input", "quoteId"])
    if quote.act is not act:
        rightful = "setAddOn" if quote.act is ChangeAct.SET_ADD_ON else "changePlan"
        raise InvalidInput(f"The quote is not for this: confirm it by `{rightful}`.", ["input", "quoteId"])
    if now_of(work, standing.account) >= quote.expires_at:
        raise QuoteExpired("The quote is older than 30 minutes: ask for a new one.", ["input", "quoteId"])
    version = standing.subscription.version if standing.subscription else 0
    if quote.subscription_version != version:
        target = await load_target(ReadSession(work.session), quote.target)
        standing = await bill_drafts(ReadSession(work.session), standing)
        raise _stale(standing, quote, target, now_of(work, standing.account))
    return quote


def _stale(standing: Standing, row: Quote, target: Target, at: datetime) -> QuoteStale:
    field = ["input", "quoteId"]
    if _is_made(standing, target):
        return QuoteStale("What the quote was for is already made: read the subscription again.", field)
    told = "The subscription changed since the quote was made: ask for a new one."
    fresh = price_change(standing, row.act, target, at)
    if not fresh.lines:
        return QuoteStale(f"{told} Nothing would be charged now.", field)
    lines = "; ".join(
        f"{line.describe('en')}: {format_money(line.amount_minor, standing.currency, 'en')}" for line in fresh.lines
    )
    return QuoteStale(f"{told} It would now be, before tax: {lines}.", field)


def _is_made(standing: Standing, target: Target) -> bool:
    """Whether a change is made or scheduled by now, be it by this quote or without it."""
    if isinstance(target, AddOnTarget):
        item = find_held(standing, target.add_on)
        if item is None:
            return target.quantity == 0
        coming_units = item.held.quantity if item.held.next_quantity is None else item.held.next_quantity
        return coming_units == target.quantity
    coming, scheduled = target.terms, standing.scheduled
    wanted = (coming.offer.version.id, coming.interval)
    held = standing.subscription
    if scheduled is not None and (scheduled.plan_version_id, scheduled.interval) == wanted:
        return True
    return held is not None and (held.plan_version_id, held.interval) == wanted


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
    standing = await bill_drafts(session, standing)
    bill = Bill.model_validate(row.bill)
    target = await load_target(session, row.target)
    is_scheduled = standing.subscription is not None and row.effective_at >= standing.subscription.current_period_end
    is_at_once = bool(bill.lines) or (isinstance(target, PlanTarget) and not is_scheduled)
    # What waits is finalised and paid before a change at once.
    foreseen = foresee_documents(stand_after_drafts(standing) if is_at_once else standing, bill)
    paid, totals = foreseen.after, foreseen.totals
    if isinstance(target, AddOnTarget):
        return QuoteView(row, bill, totals, find_upcoming(_stand_with(paid, target)), [], [])
    limits = await load_plan_limits(session, target.terms.offer.version.id)
    plan_key = target.terms.offer.plan.key
    units = kept_units(standing.add_ons, plan_key)
    excess = find_excess(standing.figures, add_units(limits, [(unit.add_on, unit.quantity) for unit in units]))
    after = paid
    if standing.subscription is not None and row.act is ChangeAct.CHANGE_PLAN:
        after = stand_after(paid, target.terms, limits, row.effective_at, at_once=not is_scheduled)
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
    more = target.quantity - (item.held.quantity if item else 0)
    # Fewer units lower the limit when the next usage period begins.
    figures = [
        replace(figure, limit=min(figure.limit + max(0, more) * target.add_on.gives, MAX_FIGURE))
        if figure.metric.key == target.add_on.metric_key and figure.limit is not None
        else figure
        for figure in standing.figures
    ]
    add_ons = [*others, HeldAddOn(held, target.add_on)] if target.quantity else others
    return replace(standing, add_ons=add_ons, figures=figures)


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
    standing = await bill_drafts(session, standing)
    assert standing.terms is not None, "drafts change nothing of it"
    assert standing.subscription is not None, "nor of this"
    limits = await load_plan_limits(session, offer.version.id)
    trialing = standing.subscription.status is SubscriptionStatus.TRIALING
    at = now.replace(microsecond=0)
    if not trialing and not takes_effect_at_once(standing.terms, target):
        return stand_after(standing, target, limits, at, at_once=False)
    paid = stand_after_drafts(standing)
    before = paid
    if interval_moves_anchor(standing.terms.interval, target.interval):
        before = await without_ahead(session, paid, at)
    bill = price_change(before, ChangeAct.CHANGE_PLAN, PlanTarget(target), at)
    return stand_after(foresee_documents(paid, bill).after, target, limits, at, at_once=True)
