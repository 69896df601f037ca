"""Changes that cost something: what they come to, and making them true with the documents that were agreed."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from ..database import ReadSession, Work
from ..models import (
    AddOn,
    ChangeAct,
    Interval,
    InvoiceKind,
    LineKind,
    PendingChange,
    Plan,
    PlanVersion,
    SubscriptionAddOn,
    SubscriptionStatus,
    UsageRating,
)
from . import books
from .bills import Bill
from .invoicing import Issued, issue_bill
from .pricing import (
    Unit,
    bill_of,
    interval_moves_anchor,
    kept_units,
    lines_at_change,
    lines_at_moved_anchor,
    lines_at_start,
    lines_of_add_on,
)
from .relations import HeldAddOn, PlanOffer, load_held_add_ons
from .reminders import plan_reminders
from .rules.transitions import Step
from .standing import Standing, Terms
from .subscriptions import begin, change_terms, first_periods, move_anchor, note_step, put_limits

KINDS = {
    ChangeAct.START: InvoiceKind.START,
    ChangeAct.REACTIVATE: InvoiceKind.START,
    ChangeAct.CHANGE_PLAN: InvoiceKind.CHANGE,
    ChangeAct.SET_ADD_ON: InvoiceKind.ADD_ON,
}


@dataclass(frozen=True)
class PlanTarget:
    """A plan to start with or change to."""

    terms: Terms

    def stored(self) -> dict[str, Any]:
        """As it is kept with a quote or pending change."""
        return {
            "planVersionId": str(self.terms.offer.version.id),
            "interval": self.terms.interval,
            "priceMinor": self.terms.price_minor,
        }


@dataclass(frozen=True)
class AddOnTarget:
    """An add-on, and how many units are wanted."""

    add_on: AddOn
    quantity: int
    price_minor: int

    def stored(self) -> dict[str, Any]:
        """As it is kept with a quote or pending change."""
        return {"addOnId": str(self.add_on.id), "quantity": self.quantity, "priceMinor": self.price_minor}


Target = PlanTarget | AddOnTarget


async def load_target(session: ReadSession, stored: dict[str, Any]) -> Target:
    """A target as it was kept."""
    if "addOnId" in stored:
        add_on = await session.get_one(AddOn, UUID(stored["addOnId"]))
        return AddOnTarget(add_on, stored["quantity"], stored["priceMinor"])
    plan, version = (
        await session.execute(
            select(Plan, PlanVersion)
            .join(PlanVersion, PlanVersion.plan_id == Plan.id)
            .where(PlanVersion.id == UUID(stored["planVersionId"]))
        )
    ).one()
    return PlanTarget(Terms(PlanOffer(plan, version), Interval(stored["interval"]), stored["priceMinor"]))


def price_change(standing: Standing, act: ChangeAct, target: Target, at: datetime) -> Bill:
    """The bill of a change that takes effect at an instant; without lines while on trial."""
    subscription = standing.subscription
    if isinstance(target, AddOnTarget):
        assert subscription is not None, "add-ons stand beside a plan"
        more = target.quantity - paid_quantity(standing, target.add_on)
        if subscription.status is SubscriptionStatus.TRIALING or more <= 0:
            return bill_of(standing, [])
        return bill_of(standing, lines_of_add_on(standing, Unit(target.add_on, more, target.price_minor), at))
    terms = target.terms
    if act is not ChangeAct.CHANGE_PLAN:
        billing, usage = first_periods(standing.account, terms.interval, at)
        units = kept_units(standing.add_ons, terms.offer.plan.key)
        return bill_of(standing, lines_at_start(standing, terms, units, billing, usage))
    assert subscription is not None, "there is something to change"
    if subscription.status is SubscriptionStatus.TRIALING:
        return bill_of(standing, [])
    if interval_moves_anchor(subscription.interval, terms.interval):
        billing, usage = first_periods(standing.account, terms.interval, at)
        units = kept_units(standing.add_ons, terms.offer.plan.key)
        return bill_of(standing, lines_at_moved_anchor(standing, terms, units, billing, usage))
    return bill_of(standing, lines_at_change(standing, terms, at))


def find_held(standing: Standing, add_on: AddOn) -> HeldAddOn | None:
    """What the account holds of an add-on."""
    return next((item for item in standing.add_ons if item.add_on.id == add_on.id), None)


def paid_quantity(standing: Standing, add_on: AddOn) -> int:
    """How many units were charged for the running usage period."""
    item = find_held(standing, add_on)
    return item.held.paid_quantity if item else 0


def grounds_of(standing: Standing, target: Target) -> dict[str, Any]:
    """What a priced change rests on, as it stands."""
    subscription = standing.subscription
    grounds: dict[str, Any] = {
        "status": subscription.status if subscription else None,
        "period": subscription.usage_period_start.isoformat() if subscription else None,
    }
    if isinstance(target, AddOnTarget):
        # Another plan within the period changes nothing of it, as long as it is offered there.
        return {**grounds, "paid": paid_quantity(standing, target.add_on)}
    return {
        **grounds,
        "planVersionId": str(subscription.plan_version_id) if subscription else None,
        "interval": subscription.interval if subscription else None,
    }


async def still_holds(work: Work, standing: Standing, pending: PendingChange) -> bool:
    """Whether what a change was priced by is still so: state, period, plan, and what its credits take from."""
    target = await load_target(ReadSession(work.session), pending.target)
    if grounds_of(standing, target) != pending.grounds:
        return False
    if isinstance(target, AddOnTarget):
        return standing.offer is not None and standing.offer.plan.key in target.add_on.plan_keys
    rests = {row.line.id: row.rest_minor for row in standing.lines}
    wanted: dict[UUID, int] = {}
    for line in Bill.model_validate(pending.bill).lines:
        if line.credited is not None:
            wanted[line.credited.line_id] = wanted.get(line.credited.line_id, 0) - line.amount_minor
    return all(rests.get(line_id, 0) >= amount_minor for line_id, amount_minor in wanted.items())


async def apply_change(work: Work, standing: Standing, pending: PendingChange) -> Issued:
    """Make a change true that was paid, as it was agreed and pinned."""
    target = await load_target(ReadSession(work.session), pending.target)
    return await make_change(
        work,
        standing,
        pending.act,
        target,
        Bill.model_validate(pending.bill),
        pending.pinned_at,
        cause=f"change:{pending.id}",
        actor=pending.actor,
        reason=pending.reason,
        balance_minor=pending.balance_minor,
        carried_minor=min(pending.carried_minor, standing.carried_minor),
    )


async def make_change(
    work: Work,
    standing: Standing,
    act: ChangeAct,
    target: Target,
    bill: Bill,
    at: datetime,
    *,
    cause: str,
    actor: str | None = None,
    reason: str = "",
    balance_minor: int | None = None,
    carried_minor: int | None = None,
) -> Issued:
    """Issue the documents of a change, and change what it changes, from the instant that it was pinned to."""
    account = standing.account
    await books.recognise(work, account, at)
    issued = Issued()
    if bill.lines:
        issued = await issue_bill(
            work,
            standing,
            bill,
            kind=KINDS[act],
            cause=cause,
            reason="CHANGE",
            balance_minor=balance_minor,
            carried_minor=carried_minor,
        )
    if isinstance(target, AddOnTarget):
        await _set_add_on(work, standing, target, actor=actor, reason=reason)
        return issued
    terms = target.terms
    if act is ChangeAct.CHANGE_PLAN:
        await _change_plan(work, standing, terms, at, bill, actor=actor, reason=reason)
    else:
        step = Step.REACTIVATE if act is ChangeAct.REACTIVATE else Step.START
        event = "subscription.reactivated" if act is ChangeAct.REACTIVATE else "subscription.started"
        begun = await begin(work, standing, terms, at, step=step, event=event, actor=actor, reason=reason)
        await plan_reminders(work, replace(standing, subscription=begun))
    return issued


async def _change_plan(
    work: Work, standing: Standing, terms: Terms, at: datetime, bill: Bill, *, actor: str | None, reason: str
) -> None:
    subscription = standing.subscription
    assert subscription is not None, "there is something to change"
    if subscription.status is not SubscriptionStatus.TRIALING and interval_moves_anchor(
        subscription.interval, terms.interval
    ):
        closed = subscription.usage_period_start
        await move_anchor(work, standing, terms, at, actor=actor, reason=reason)
        await _note_rated(work, standing, closed, bill)
        await plan_reminders(work, standing)
    else:
        await change_terms(work, standing, terms, actor=actor, reason=reason)


async def _note_rated(work: Work, standing: Standing, closed: datetime, bill: Bill) -> None:
    """The overage of the period that a moved anchor closed is on the same invoice: what differs is corrected later."""
    now = work.clock.now_for(standing.account)
    invoiced = {
        line.metric_key: line.amount_minor for line in bill.lines if line.kind is LineKind.OVERAGE and line.metric_key
    }
    for rating in await work.session.scalars(
        select(UsageRating).where(UsageRating.account_id == standing.account.id, UsageRating.period_start == closed)
    ):
        rating.rated_at = now
        rating.invoiced_minor = invoiced.get(rating.metric_key, 0)


async def _set_add_on(work: Work, standing: Standing, target: AddOnTarget, *, actor: str | None, reason: str) -> None:
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "add-ons stand beside a plan"
    now = work.clock.now_for(account)
    item = find_held(standing, target.add_on)
    trialing = subscription.status is SubscriptionStatus.TRIALING
    if item is None:
        work.session.add(
            SubscriptionAddOn(
                created_at=now,
                account_id=account.id,
                add_on_id=target.add_on.id,
                quantity=target.quantity,
                price_minor=target.price_minor,
                paid_quantity=0 if trialing else target.quantity,
            )
        )
    elif trialing and target.quantity == 0:
        await work.session.delete(item.held)
    elif target.quantity >= item.held.quantity or trialing:
        held = item.held
        held.quantity, held.next_quantity, held.updated_at = target.quantity, None, now
        held.paid_quantity = max(held.paid_quantity, 0 if trialing else target.quantity)
        held.price_minor = target.price_minor
    else:
        # What is paid for stays until the usage period ends.
        item.held.next_quantity, item.held.updated_at = target.quantity, now
    await work.session.flush()
    held_now = (await load_held_add_ons(ReadSession(work.session), [account.id]))[0]
    await put_limits(work, account, subscription, held_now, "add_on.set")
    note_step(
        work,
        account,
        subscription,
        Step.SET_ADD_ON,
        subscription.status,
        event="subscription.changed",
        actor=actor,
        reason=reason,
        addOn=target.add_on.key,
        quantity=target.quantity,
    )
