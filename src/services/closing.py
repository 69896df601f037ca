"""What the clock does with periods: closing them, finalising their invoices, ending trials, expiring what is over."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select

from ..database import ReadSession, Work
from ..faults import reach
from ..models import (
    BillingAccount,
    CollectionMethod,
    InvoiceKind,
    NoticeSeverity,
    SubscriptionStatus,
    UsageRating,
    WorkKind,
)
from . import books
from .bills import Bill, BillLine
from .calendars import end_of_billing_period, end_of_usage_period
from .due_work import enqueue
from .invoicing import Issued, issue_bill, write_draft, write_off_carried
from .limits import add_units, find_excess
from .notices import raise_notice
from .payments import ask_for_payment
from .plan_limits import load_plan_limits
from .pricing import (
    Unit,
    bill_of,
    kept_units,
    lines_at_close,
    lines_at_start,
    lines_of_usage,
)
from .reminders import plan_reminders
from .rules.periods import MONTHS, Period
from .rules.transitions import RUNNING, Step
from .standing import Standing, Terms, load_ratings
from .standing import load_standing as read_standing
from .subscriptions import (
    begin,
    close_usage_period,
    end_add_ons,
    end_subscription,
    exceeding,
    first_periods,
    lower_add_ons,
    note_step,
    open_usage_period,
    put_limits,
)
from .usage import LATE


async def load_standing(work: Work, account: BillingAccount) -> Standing:
    """How a locked account stands, at its own time."""
    return await read_standing(ReadSession(work.session), account, work.clock.now_for(account))


async def close_period(work: Work, account: BillingAccount, started: str) -> None:
    """Close the usage period that began at an instant: its invoice becomes a draft, and the next period begins."""
    standing = await load_standing(work, account)
    subscription = standing.subscription
    if (
        subscription is None
        or subscription.status not in RUNNING
        or subscription.usage_period_start.isoformat() != started
    ):
        return
    at = subscription.usage_period_end
    await books.recognise(work, account, at)
    await close_usage_period(work, standing, at)
    ends = at == subscription.current_period_end
    closed = subscription.usage_period_start
    finalise_at = at + timedelta(minutes=standing.issuer.draft_minutes)
    if ends and subscription.cancel_at_period_end:
        await end_subscription(work, standing, at, Step.END, reason="cancelled at the period's end")
        await _draft(work, standing, closed, [], InvoiceKind.FINAL, finalise_at)
        return
    terms, changed = await _terms_to_come(work, standing) if ends else (standing.terms, False)
    assert terms is not None, "a subscription runs"
    subscription.plan_version_id = terms.offer.version.id
    subscription.interval, subscription.price_minor = terms.interval, terms.price_minor
    kept = await end_add_ons(work, standing, terms.offer.plan.key) if changed else list(standing.add_ons)
    lowered = any(item.held.next_quantity is not None for item in standing.add_ons)
    if lowered:
        await _keep_what_is_in_use(work, standing, terms)
    kept = await lower_add_ons(work, standing, kept)
    usage, billing = await _begin_next(work, standing, terms, at, ends=ends)
    if changed or lowered:
        await put_limits(work, account, subscription, kept, "subscription.changed" if changed else "add_on.lowered")
    if changed:
        note_step(
            work,
            account,
            subscription,
            Step.CHANGE,
            subscription.status,
            event="subscription.changed",
            reason="scheduled",
            plan=terms.offer.plan.key,
            interval=terms.interval,
        )
    else:
        subscription.version += 1
    units = [Unit(item.add_on, item.held.quantity, item.held.price_minor) for item in kept]
    charged = subscription.status is not SubscriptionStatus.SUSPENDED
    lines = lines_at_close(standing, terms, units, billing=billing, usage=usage) if charged else []
    await _draft(work, standing, closed, lines, InvoiceKind.PERIOD, finalise_at)
    if billing is not None:
        await plan_reminders(work, standing)
    reach("close.after_period")


async def _begin_next(
    work: Work, standing: Standing, terms: Terms, at: datetime, *, ends: bool
) -> tuple[Period, Period | None]:
    account, subscription = standing.account, standing.subscription
    assert subscription is not None, "a subscription runs"
    number = subscription.usage_period_number + 1
    billing = None
    if ends:
        # A new zone leaves running billing periods as they are, and counts from here on.
        subscription.zone = account.timezone
        end = end_of_billing_period(subscription.anchor_wall, subscription.zone, number, MONTHS[terms.interval])
        billing = Period(at, end)
        subscription.current_period_start, subscription.current_period_end = billing.start, billing.end
    usage = Period(at, end_of_usage_period(subscription.anchor_wall, subscription.zone, number))
    await open_usage_period(work, account, subscription, usage, number)
    return usage, billing


async def _terms_to_come(work: Work, standing: Standing) -> tuple[Terms, bool]:
    """What runs after the billing period, and whether that is a change. A plan that would not hold does not come."""
    assert standing.terms is not None, "a subscription runs"
    scheduled, offer = standing.scheduled, standing.scheduled_offer
    if scheduled is None or offer is None:
        return standing.terms, False
    terms = Terms(offer, scheduled.interval, scheduled.price_minor)
    await work.session.delete(scheduled)
    limits = await load_plan_limits(ReadSession(work.session), offer.version.id)
    found = exceeding(standing, limits, kept_units(standing.add_ons, offer.plan.key))
    if found:
        await raise_notice(
            work,
            standing.account,
            "CHANGE_REFUSED",
            severity=NoticeSeverity.WARNING,
            params={"plan": offer.plan.name, "exceeding": [excess.params() for excess in found]},
            dismissible=True,
        )
        return standing.terms, False
    return terms, True


async def _keep_what_is_in_use(work: Work, standing: Standing, terms: Terms) -> None:
    """A lowering under which a gauge would exceed its limit does not come: the old quantity goes on."""
    limits = await load_plan_limits(ReadSession(work.session), terms.offer.version.id)
    for item in standing.add_ons:
        if item.held.next_quantity is None:
            continue
        units = [
            (other.add_on, item.held.next_quantity if other is item else other.held.quantity)
            for other in standing.add_ons
        ]
        for excess in find_excess(standing.figures, add_units(limits, units)):
            if excess.metric.key != item.add_on.metric_key:
                continue
            item.held.next_quantity = None
            await raise_notice(
                work,
                standing.account,
                "ADD_ON_KEPT",
                item.add_on.key,
                severity=NoticeSeverity.WARNING,
                params={"addOn": item.add_on.name, "exceeding": [excess.params()]},
                dismissible=True,
            )


async def _draft(
    work: Work,
    standing: Standing,
    started: datetime,
    lines: list[BillLine],
    kind: InvoiceKind,
    finalise_at: datetime,
) -> None:
    """Write the draft of a period that was just closed, and have it finalised when late usage has had its time."""
    await work.session.flush()
    account = standing.account
    # What the close wrote is its ratings; all else of the standing is as it was read, or was changed in place.
    ratings = (await load_ratings(ReadSession(work.session), [account.id]))[account.id]
    standing = replace(standing, ratings=ratings)
    bill = bill_of(standing, [*lines, *lines_of_usage(standing, started)])
    cause = f"period:{started.isoformat()}"
    draft = await write_draft(work, standing, bill, kind, cause, finalise_at)
    if draft is not None:
        draft.bill = bill_of(standing, lines).model_dump(mode="json")
    await enqueue(work, account, WorkKind.FINALISE_INVOICE, f"{kind}:{started.isoformat()}", finalise_at)


async def draft_closed_period(
    work: Work, standing: Standing, started: datetime, kind: InvoiceKind, at: datetime
) -> None:
    """Write the draft of a period that was closed at an instant with nothing to follow it."""
    finalise_at = at + timedelta(minutes=standing.issuer.draft_minutes)
    await _draft(work, standing, started, [], kind, finalise_at)


def _fixed_lines(standing: Standing, cause: str) -> list[BillLine]:
    draft = next((row for row in standing.drafts if row.cause == cause), None)
    if draft is None or draft.bill is None:
        return []
    return list(Bill.model_validate(draft.bill).lines)


def bill_of_draft(standing: Standing, started: datetime) -> Bill:
    """What the invoice of a closed period comes to by now: its fixed lines, its overage, and corrections."""
    lines = _fixed_lines(standing, f"period:{started.isoformat()}")
    return bill_of(standing, [*lines, *lines_of_usage(standing, started)])


async def find_waiting_for_usage(work: Work, accounts: Sequence[BillingAccount]) -> list[BillingAccount]:
    """Those of the accounts that have a closed period whose invoice still waits for late usage."""
    if not accounts:
        return []
    await work.session.flush()
    waiting = set(
        await work.session.scalars(
            select(UsageRating.account_id).where(
                UsageRating.account_id.in_([account.id for account in accounts]),
                UsageRating.rated_at.is_(None),
                UsageRating.block.is_not(None),
            )
        )
    )
    return [account for account in accounts if account.id in waiting]


async def refresh_drafts(work: Work, account: BillingAccount) -> None:
    """Rate the drafts of an account anew: late usage reached their periods."""
    standing = await load_standing(work, account)
    unrated = {
        rated.rating.period_start
        for rated in standing.ratings
        if rated.rating.rated_at is None and rated.rating.block is not None
    }
    for started in sorted(unrated):
        cause = f"period:{started.isoformat()}"
        draft = next((row for row in standing.drafts if row.cause == cause), None)
        ended = next(rated.rating.period_end for rated in standing.ratings if rated.rating.period_start == started)
        over = standing.subscription is not None and standing.subscription.canceled_at == ended
        kind = draft.kind if draft else InvoiceKind.FINAL if over else InvoiceKind.PERIOD
        at = ended + timedelta(minutes=standing.issuer.draft_minutes)
        fixed = draft.bill if draft else None
        written = await write_draft(work, standing, bill_of_draft(standing, started), kind, cause, at)
        if written is not None:
            written.bill = fixed or Bill(currency=account.currency, lines=()).model_dump(mode="json")


async def finalise_period(work: Work, account: BillingAccount, subject: str) -> Issued:
    """Number and freeze the invoice of a closed period, rate it for the last time, and have it paid."""
    kind, _, started = subject.partition(":")
    standing = await load_standing(work, account)
    closed = datetime.fromisoformat(started)
    cause = f"period:{started}"
    draft = next((row for row in standing.drafts if row.cause == cause), None)
    due_at = (draft.finalise_at if draft else None) or work.clock.now_for(account)
    bill = bill_of_draft(standing, closed)
    await _mark_rated(work, account, standing, closed)
    issued = await issue_bill(
        work, standing, bill, kind=InvoiceKind(kind), cause=cause, draft=draft, reason="CORRECTION"
    )
    if issued.invoice is not None:
        await ask_for_payment(work, standing, issued.invoice, due_at)
    reach("invoice.before_commit")
    return issued


async def _mark_rated(work: Work, account: BillingAccount, standing: Standing, closed: datetime | None) -> None:
    """What comes for this period from now on is a correction; for those older than 35 days nothing comes."""
    now = work.clock.now_for(account)
    for rated in standing.ratings:
        rating = rated.rating
        if rating.rated_at is None and rating.period_start == closed:
            rating.rated_at = now
        if rating.rated_at is not None and now >= rating.period_end + LATE:
            rating.settled_at = now
    await work.session.flush()


async def invoice_corrections(work: Work, account: BillingAccount, canceled: str) -> None:
    """35 days after a cancellation nothing can come any more: what came late goes onto one more invoice."""
    standing = await load_standing(work, account)
    subscription = standing.subscription
    if subscription is None or subscription.status is not SubscriptionStatus.CANCELED:
        return
    bill = bill_of(standing, lines_of_usage(standing, None))
    await _mark_rated(work, account, standing, None)
    issued = await issue_bill(
        work, standing, bill, kind=InvoiceKind.FINAL, cause=f"corrections:{canceled}", reason="CORRECTION"
    )
    if issued.invoice is not None:
        await ask_for_payment(work, standing, issued.invoice, work.clock.now_for(account))
    elif standing.carried_minor:
        await write_off_carried(work, account)


async def end_trial(work: Work, account: BillingAccount, ended: str) -> None:
    """A trial is over: with a way to pay the plan begins and is charged, without one it is cancelled."""
    standing = await load_standing(work, account)
    subscription = standing.subscription
    if (
        subscription is None
        or subscription.status is not SubscriptionStatus.TRIALING
        or subscription.trial_end is None
        or subscription.trial_end.isoformat() != ended
    ):
        return
    at = subscription.trial_end
    terms = standing.terms
    assert terms is not None, "a trial is of a plan"
    sent = account.collection_method is CollectionMethod.SEND_INVOICE
    can_pay = standing.company is not None and (sent or any(method.is_default for method in standing.methods))
    if subscription.cancel_at_period_end or not can_pay:
        await close_usage_period(work, standing, at)
        await end_subscription(work, standing, at, Step.END_TRIAL, reason="the trial ended")
        await raise_notice(work, account, "TRIAL_ENDED", severity=NoticeSeverity.WARNING, params={"endedAt": at})
        return
    billing, usage = first_periods(account, terms.interval, at)
    lines = lines_at_start(standing, terms, kept_units(standing.add_ons), billing, usage)
    await begin(work, standing, terms, at, step=Step.END_TRIAL_PAYING, event="subscription.started")
    issued = await issue_bill(work, standing, bill_of(standing, lines), kind=InvoiceKind.START, cause=f"trial:{ended}")
    if issued.invoice is not None:
        await ask_for_payment(work, standing, issued.invoice, at)
    await plan_reminders(work, await load_standing(work, account))
