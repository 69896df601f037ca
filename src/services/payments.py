"""Asking for money: tries to charge, what the processor answered, and what a failure begins."""

from datetime import datetime, timedelta

from sqlalchemy import func, select

from ..database import Work
from ..faults import reach
from ..models import (
    BillingAccount,
    CollectionMethod,
    FailureCode,
    Invoice,
    InvoiceStatus,
    PaymentMethod,
    PendingChange,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from . import dunning
from .due_work import enqueue
from .invoicing import settle_rest
from .ports import ChargeResult, ChargeStatus
from .rules.money import minimum_of
from .rules.transitions import Step
from .standing import Standing
from .subscriptions import find_subscription, take_step

RECOVERED_AFTER = timedelta(seconds=60)
"""How long a flow may take to settle the charge that it opened: after that the worker does."""
AT_ISSUE = "issue"
"""The step of the first try of an invoice, when it is issued."""


def find_default(standing: Standing) -> PaymentMethod | None:
    """The method that is charged."""
    return next((method for method in standing.methods if method.is_default), None)


async def open_attempt(
    work: Work,
    standing: Standing,
    method: PaymentMethod,
    amount_minor: int,
    description: str,
    *,
    invoice: Invoice | None = None,
    pending: PendingChange | None = None,
    due_at: datetime,
    step: str | None = None,
    on_session: bool = False,
) -> Transaction:
    """Write down a try to charge, with the key that the processor will be asked with, before it is asked.

    The worker makes the call from `due_at` on, unless whoever opened it did by then. `step` names what an invoice is
    tried for: there is one try for each.
    """
    account = standing.account
    assert amount_minor >= minimum_of(account.currency), "too small an amount is carried forward, or given up"
    now = work.clock.now_for(account)
    transaction = Transaction(
        created_at=now,
        account_id=account.id,
        invoice_id=invoice.id if invoice else None,
        pending_change_id=pending.id if pending else None,
        payment_method_id=method.id,
        kind=TransactionKind.CHARGE,
        status=TransactionStatus.PENDING,
        currency=account.currency,
        amount_minor=amount_minor,
        description=description,
        step=step,
        on_session=on_session,
    )
    # Derived from what is paid and the how-manieth try: asked again after a crash it is the same charge.
    if invoice is not None:
        tries = await work.session.scalar(
            select(func.count())
            .select_from(Transaction)
            .where(Transaction.invoice_id == invoice.id, Transaction.kind == TransactionKind.CHARGE)
        )
        transaction.processor_key = f"invoice:{invoice.id}:{tries}"
    else:
        assert pending is not None, "a charge pays an invoice or a change"
        transaction.processor_key = f"change:{pending.id}"
    work.session.add(transaction)
    await work.session.flush()
    await enqueue(work, account, WorkKind.CHARGE, str(transaction.id), due_at)
    reach("charge.opened")
    return transaction


async def ask_for_payment(
    work: Work, standing: Standing, invoice: Invoice, due_at: datetime, *, step: str = AT_ISSUE
) -> Transaction | None:
    """Have a finalised invoice charged. While a payment is overdue the rest waits; without a method it fails.

    `due_at` is when it was to be finalised: after an outage it is charged before what came due later.
    """
    account = standing.account
    if invoice.status is not InvoiceStatus.OPEN or account.collection_method is not CollectionMethod.AUTOMATIC:
        return None
    if await dunning.find_running(work, account) is not None:
        return None
    if invoice.due_minor < minimum_of(account.currency):
        await settle_rest(work, account, invoice)
        return None
    method = find_default(standing)
    if method is None:
        await fail_payment(work, account, invoice)
        return None
    return await open_attempt(
        work,
        standing,
        method,
        invoice.due_minor,
        f"Invoice {invoice.number}",
        invoice=invoice,
        due_at=min(due_at, work.clock.now_for(account)),
        step=step,
    )


async def fail_payment(
    work: Work, account: BillingAccount, invoice: Invoice, transaction: Transaction | None = None
) -> None:
    """An invoice could not be collected: the account is past due, with a banner, and its days begin to count.

    Of one that is paid or withdrawn by now nothing follows.
    """
    if not invoice.is_payable:
        return
    now = work.clock.now_for(account)
    invoice.payment_failed_at = invoice.payment_failed_at or now
    invoice.updated_at = now
    work.emit(
        account,
        "invoice.payment_failed",
        {
            "invoiceId": str(invoice.id),
            "number": invoice.number,
            "failure": transaction.failure_code if transaction else None,
            "amountMinor": invoice.due_minor,
            "currency": invoice.currency,
        },
    )
    if invoice.status is not InvoiceStatus.OPEN:
        return
    subscription = await find_subscription(work, account)
    running = await dunning.begin(work, account, invoice, subscription)
    if subscription is not None and subscription.status is SubscriptionStatus.ACTIVE:
        take_step(work, account, subscription, Step.FAIL_PAYMENT, "subscription.past_due")
    await dunning.tell(work, account, running, subscription)


def show_action(result: ChargeResult) -> dict[str, str | None]:
    """What the cardholder needs to confirm a charge."""
    return {"clientSecret": result.client_secret, "url": result.url}


def note_result(work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult) -> None:
    """Write down what the processor answered."""
    now = work.clock.now_for(account)
    transaction.updated_at = now
    transaction.processor_id = result.processor_id or transaction.processor_id
    transaction.action = None
    if result.status is ChargeStatus.SUCCEEDED:
        transaction.status, transaction.failure_code = TransactionStatus.SUCCEEDED, None
        event = "payment.succeeded"
    elif result.status is ChargeStatus.REQUIRES_ACTION:
        transaction.status = TransactionStatus.REQUIRES_ACTION
        transaction.action = show_action(result)
        event = "payment.requires_action"
    elif result.status is ChargeStatus.CANCELED:
        transaction.status = TransactionStatus.CANCELED
        event = "payment.failed"
    else:
        transaction.status = TransactionStatus.FAILED
        transaction.failure_code = result.failure or FailureCode.PROCESSOR_ERROR
        event = "payment.failed"
    work.emit(account, event, {"transactionId": str(transaction.id), "status": transaction.status})
    work.audit(
        account,
        event,
        f"transaction:{transaction.id}",
        after={"status": transaction.status, "amountMinor": transaction.amount_minor},
    )
