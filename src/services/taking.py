"""What an order comes to in one transaction: a quote that is pinned, a change that is made, or a charge to pay it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ..database import Work
from ..models import ChangeAct, CollectionMethod, PendingChange, Quote, WorkKind
from ..models.types import new_id
from .bills import Bill
from .changing import AddOnTarget, PlanTarget, Target, grounds_of, make_change
from .decisions import Decision, Priced, Scheduled, now_of
from .due_work import enqueue
from .errors import CompanyRequired, PaymentRequired
from .invoicing import foresee
from .payments import RECOVERED_AFTER, find_default, open_attempt
from .rules.money import minimum_of
from .rules.transitions import RUNNING
from .settlement import CONFIRMABLE
from .standing import Standing
from .subscriptions import KEPT_AFTER_CANCELING

QUOTE_LIFE = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What became of an order, by ids; all of them none where it took effect without a document."""

    account_id: UUID
    invoice_id: UUID | None = None
    transaction_id: UUID | None = None
    pending_id: UUID | None = None
    quote_id: UUID | None = None
    """The quote that was confirmed; none where none was."""
    replayed: bool = False

    def stored(self) -> dict[str, Any]:
        """As it is remembered under an idempotency key."""
        return {
            name: None if value is None else str(value)
            for name, value in (
                ("accountId", self.account_id),
                ("invoiceId", self.invoice_id),
                ("transactionId", self.transaction_id),
                ("pendingId", self.pending_id),
                ("quoteId", self.quote_id),
            )
        }

    @classmethod
    def of(cls, stored: dict[str, Any], *, replayed: bool) -> "Placed":
        """What was remembered."""

        def read(name: str) -> UUID | None:
            return UUID(stored[name]) if stored.get(name) else None

        return cls(
            account_id=UUID(stored["accountId"]),
            invoice_id=read("invoiceId"),
            transaction_id=read("transactionId"),
            pending_id=read("pendingId"),
            quote_id=read("quoteId"),
            replayed=replayed,
        )


class DraftWaits(Exception):
    """A period's draft has to be finalised and paid before a change takes effect."""


def pin(work: Work, standing: Standing, act: ChangeAct, decision: Decision) -> Quote:
    """Write down what a change would cost, for half an hour or until the subscription changes."""
    account, now = standing.account, now_of(work, standing.account)
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
    return row


async def take(work: Work, standing: Standing, priced: Priced, *, reason: str, on_session: bool = True) -> Placed:
    """Make a change true, or write down the charge that pays it, with the key it is asked for with.

    Without the customer there (`on_session`) the worker asks for it at once, else after a while: who ordered does so.
    """
    account = standing.account
    is_lowering = isinstance(priced.target, AddOnTarget) and not priced.bill.lines
    if standing.drafts and not is_lowering:
        raise DraftWaits
    totals, brought = foresee(standing, priced.bill)
    if any(line.amount_minor > 0 for line in priced.bill.lines) and standing.company is None:
        raise CompanyRequired(
            "An invoice needs the company's name and country: set them by `updateCompany` first.", ["input"]
        )
    is_charged = (
        totals.due_minor >= minimum_of(account.currency) and account.collection_method is CollectionMethod.AUTOMATIC
    )
    if not is_charged:
        issued = await make_change(
            work,
            standing,
            priced.act,
            priced.target,
            priced.bill,
            priced.at,
            cause=f"order:{new_id()}",
            reason=reason,
        )
        invoice_id = issued.invoice.id if issued.invoice else None
        return Placed(account_id=account.id, invoice_id=invoice_id, quote_id=priced.quote_id)
    method = find_default(standing)
    if method is None:
        raise PaymentRequired("Add a payment method first: `addPaymentMethod` takes the processor's token.", ["input"])
    now = now_of(work, account)
    expires_at = min([now + CONFIRMABLE, *_ends_before(standing)])
    pending = PendingChange(
        created_at=now,
        account_id=account.id,
        act=priced.act,
        target=priced.target.stored(),
        pinned_at=priced.at,
        expires_at=expires_at,
        bill=priced.bill.model_dump(mode="json"),
        grounds=grounds_of(standing, priced.target),
        balance_minor=totals.balance_minor - brought,
        carried_minor=totals.carried_in_minor,
        due_minor=totals.due_minor,
        actor=work.actor.name,
        reason=reason,
    )
    work.session.add(pending)
    await work.session.flush()
    await enqueue(work, account, WorkKind.EXPIRE_PENDING, str(pending.id), expires_at)
    transaction = await open_attempt(
        work,
        standing,
        method,
        totals.due_minor,
        _describe(priced),
        pending=pending,
        due_at=now + RECOVERED_AFTER if on_session else now,
        on_session=on_session,
    )
    return Placed(account_id=account.id, transaction_id=transaction.id, pending_id=pending.id, quote_id=priced.quote_id)


def _ends_before(standing: Standing) -> list[datetime]:
    """What ends a change that waits, beside its 23 hours: the end of the period, the trial, or the kept data."""
    subscription = standing.subscription
    if subscription is None:
        return []
    if subscription.status in RUNNING:
        return [subscription.usage_period_end, subscription.current_period_end]
    return [] if subscription.canceled_at is None else [subscription.canceled_at + KEPT_AFTER_CANCELING]


def _describe(priced: Priced) -> str:
    if isinstance(priced.target, AddOnTarget):
        return f"{priced.target.add_on.name} × {priced.target.quantity}"
    return f"{priced.target.terms.offer.plan.name}, {priced.target.terms.interval.lower()}ly"
