"""What the days of dunning bring: an invoice overdue, the account suspended, the subscription given up."""

from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import (
    BillingAccount,
    Dunning,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from . import books, dunning
from .closing import draft_closed_period, load_standing
from .payments import fail_payment
from .rules.transitions import Step
from .subscriptions import close_usage_period, end_subscription, find_subscription, take_step


async def note_overdue(work: Work, account: BillingAccount, invoice_id: str) -> None:
    """An invoice that is paid by transfer was not paid in time."""
    invoice = await work.session.get(Invoice, UUID(invoice_id))
    if invoice is not None and invoice.status is InvoiceStatus.OPEN:
        await fail_payment(work, account, invoice)


async def suspend(work: Work, account: BillingAccount, dunning_id: str) -> None:
    """Still unpaid after the tries of its day: all but reading, paying and leaving is refused from now on."""
    running = await work.session.get_one(Dunning, UUID(dunning_id))
    subscription = await find_subscription(work, account)
    if running.ended_at is not None or subscription is None or subscription.status is not SubscriptionStatus.PAST_DUE:
        return
    # The instant that was told, also where the worker was late: periods that began since then are not charged.
    subscription.suspended_at = running.at(running.suspend_day)
    take_step(work, account, subscription, Step.SUSPEND, "subscription.suspended", reason="unpaid")
    await dunning.tell(work, account, running, subscription)


async def give_up(work: Work, account: BillingAccount, dunning_id: str) -> None:
    """Still unpaid after the last try: the subscription ends, and what is open counts as uncollectible."""
    running = await work.session.get_one(Dunning, UUID(dunning_id))
    if running.ended_at is not None:
        return
    standing = await load_standing(work, account)
    subscription = standing.subscription
    at = running.at(running.cancel_day)
    if subscription is not None and subscription.status in (SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED):
        started = subscription.usage_period_start
        await books.recognise(work, account, at)
        await close_usage_period(work, standing, at)
        await end_subscription(work, standing, at, Step.GIVE_UP, reason="unpaid")
        subscription.suspended_at = None
        # Nothing of it was given back: it is earned, and what is not paid of it is a bad debt.
        await books.recognise(work, account, at, everything=True)
        await draft_closed_period(work, standing, started, InvoiceKind.FINAL, at)
    for invoice in await work.session.scalars(
        select(Invoice)
        .where(Invoice.account_id == account.id, Invoice.status == InvoiceStatus.OPEN, Invoice.due_at <= at)
        .order_by(Invoice.issued_at, Invoice.id)
    ):
        _write_off(work, account, invoice)
    await dunning.end(work, account, running)
    await dunning.tell_given_up(work, account, subscription)


def _write_off(work: Work, account: BillingAccount, invoice: Invoice) -> None:
    now = work.clock.now_for(account)
    due = invoice.due_minor
    invoice.status, invoice.written_off_minor, invoice.updated_at = InvoiceStatus.UNCOLLECTIBLE, due, now
    work.session.add(
        Transaction(
            created_at=now,
            account_id=account.id,
            invoice_id=invoice.id,
            kind=TransactionKind.WRITE_OFF,
            status=TransactionStatus.SUCCEEDED,
            currency=account.currency,
            amount_minor=due,
            description=f"Invoice {invoice.number}: uncollectible",
        )
    )
    books.post_write_off(work, account, f"invoice:{invoice.id}", due)
    work.audit(
        account,
        "invoice.uncollectible",
        f"invoice:{invoice.id}",
        after={"number": invoice.number, "writtenOffMinor": due},
    )
    work.emit(account, "invoice.uncollectible", {"invoiceId": str(invoice.id), "number": invoice.number})
