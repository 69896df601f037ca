"""Having open invoices charged again: on the days of dunning, when somebody asks for it, when a new method comes."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    CollectionMethod,
    Dunning,
    FailureCode,
    Invoice,
    InvoiceStatus,
    PaymentMethod,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from ..models.money import UNDER_WAY
from . import dunning
from .due_work import Taken, finish
from .invoicing import settle_rest
from .payments import RECOVERED_AFTER, find_default, open_attempt
from .ports import ProcessorFailed
from .receiving import restore
from .rules.money import minimum_of
from .settlement import expire_action, settle
from .standing import load_standing
from .subscriptions import find_subscription
from .tills import Till

MAX_TRIED = 100
"""As many invoices of an account are tried at once, the oldest; the next try goes on."""

MAX_BY_HAND = 10
"""So often an invoice is tried by hand, or because of another method, within 24 hours."""


async def try_payment(till: Till, taken: Taken) -> None:
    """Charge all open invoices of an account, oldest first, once for each step.

    A scheduled try waits until each outcome is known; the ones that somebody asked for show it as unknown.
    """
    scheduled = dunning.read_step(taken.subject)
    async with till.work() as work:
        account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
        invoice_ids = await list_payable(work, account, scheduled)
        if scheduled is not None and account.collection_method is CollectionMethod.SEND_INVOICE:
            invoice_ids = []  # who pays by transfer is reminded
        if scheduled is None:
            invoice_ids = await drop_exhausted(work, account, invoice_ids)
    for invoice_id in invoice_ids:
        await _try_invoice(till, taken, invoice_id, is_scheduled=scheduled is not None)
    async with till.work() as work:
        account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
        await finish(work, taken)
        running = await dunning.find_running(work, account)
        if running is not None:
            await dunning.tell(work, account, running, await find_subscription(work, account))


async def list_payable(
    work: Work, account: BillingAccount, scheduled: tuple[UUID, int] | None = None
) -> Sequence[UUID]:
    """The invoices that a try charges, oldest first: what is open; by hand also what a canceled account still owes."""
    statuses = [InvoiceStatus.OPEN]
    if scheduled is not None:
        running = await work.session.get_one(Dunning, scheduled[0])
        if running.ended_at is not None:
            return []
    elif await _is_canceled(work, account):
        statuses.append(InvoiceStatus.UNCOLLECTIBLE)
    rows = await work.session.scalars(
        select(Invoice.id)
        .where(Invoice.account_id == account.id, Invoice.status.in_(statuses))
        .order_by(Invoice.issued_at, Invoice.id)
        .limit(MAX_TRIED)
    )
    return rows.all()


async def drop_exhausted(work: Work, account: BillingAccount, invoice_ids: Sequence[UUID]) -> Sequence[UUID]:
    """Leave out what was tried by hand too often within a day: banks take that for guessing."""
    rows = await work.session.scalars(
        select(Transaction.invoice_id)
        .where(
            Transaction.invoice_id.in_(invoice_ids),
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.on_session.is_(True),
            Transaction.created_at > work.clock.now_for(account) - timedelta(days=1),
        )
        .group_by(Transaction.invoice_id)
        .having(func.count() >= MAX_BY_HAND)
    )
    exhausted = set(rows)
    return [invoice_id for invoice_id in invoice_ids if invoice_id not in exhausted]


async def _is_canceled(work: Work, account: BillingAccount) -> bool:
    subscription = await find_subscription(work, account)
    return subscription is not None and subscription.status is SubscriptionStatus.CANCELED


async def _try_invoice(till: Till, taken: Taken, invoice_id: UUID, *, is_scheduled: bool) -> None:
    """Charge one invoice for a step, after what became of an earlier try is known or given up."""
    open_attempt_id = await _end_open_attempt(till, invoice_id)
    if open_attempt_id is not None:
        if is_scheduled:
            raise ProcessorFailed(f"what became of the charge {open_attempt_id} is not known yet")
        return
    async with till.work() as work:
        account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
        now = work.clock.now_for(account)
        invoice = await work.session.get_one(Invoice, invoice_id, populate_existing=True)
        was_tried = await work.session.scalar(
            select(Transaction.id).where(Transaction.invoice_id == invoice_id, Transaction.step == taken.subject)
        )
        if invoice.status not in (InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE) or was_tried is not None:
            return
        if invoice.due_minor < minimum_of(account.currency):
            # It came to so little while it was to be paid by transfer, or was given up.
            if invoice.status is InvoiceStatus.OPEN:
                await settle_rest(work, account, invoice)
                await restore(work, account)
            return
        standing = await load_standing(ReadSession(work.session), account, now)
        method = find_default(standing)
        if method is None or (is_scheduled and await _is_hopeless(work, method)):
            return
        attempt = await open_attempt(
            work,
            standing,
            method,
            invoice.due_minor,
            f"Invoice {invoice.number}",
            invoice=invoice,
            due_at=now + RECOVERED_AFTER,
            step=taken.subject,
            on_session=not is_scheduled,
        )
    await settle(till, attempt.id)
    if is_scheduled and await _end_open_attempt(till, invoice_id) is not None:
        raise ProcessorFailed(f"what became of the charge {attempt.id} is not known yet")


async def _end_open_attempt(till: Till, invoice_id: UUID) -> UUID | None:
    """Find out what became of an invoice's open try, or give it up. Gives its id where it is still open."""
    attempt = await _find_open_attempt(till, invoice_id)
    if attempt is None:
        return None
    if attempt.status is TransactionStatus.REQUIRES_ACTION:
        await expire_action(till, attempt.id)
    else:
        await settle(till, attempt.id)
    after = await _find_open_attempt(till, invoice_id)
    if after is not None and after.id != attempt.id:
        # The charge was given up because a part was paid meanwhile: this one is of the rest.
        await settle(till, after.id)
        after = await _find_open_attempt(till, invoice_id)
    return None if after is None else after.id


async def _find_open_attempt(till: Till, invoice_id: UUID) -> Transaction | None:
    async with till.database.read() as session:
        found: Transaction | None = await session.scalar(
            select(Transaction).where(
                Transaction.invoice_id == invoice_id,
                Transaction.kind == TransactionKind.CHARGE,
                Transaction.status.in_(UNDER_WAY),
            )
        )
    return found


async def _is_hopeless(work: Work, method: PaymentMethod) -> bool:
    """Whether the bank said last, of the card as it is, that it will never be charged: it is stolen or closed."""
    last = await work.session.scalar(
        select(Transaction)
        .where(
            Transaction.payment_method_id == method.id,
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.status.in_((TransactionStatus.SUCCEEDED, TransactionStatus.FAILED)),
            Transaction.created_at >= method.updated_at,
        )
        .order_by(Transaction.created_at.desc(), Transaction.id.desc())
        .limit(1)
    )
    return last is not None and last.failure_code is FailureCode.STOLEN_OR_CLOSED
