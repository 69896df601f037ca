"""Payments: methods, tries to charge, what an invoice becomes by them, credit that operators give."""

from datetime import datetime, timedelta

from sqlalchemy import func, select

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    CollectionMethod,
    FailureCode,
    Invoice,
    InvoiceStatus,
    NoticeSeverity,
    PaymentMethod,
    PendingChange,
    Subscription,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from . import books
from .due_work import enqueue
from .errors import InvalidInput
from .notices import clear_notice, raise_notice
from .ports import ChargeResult, ChargeStatus, MethodFacts
from .reminders import plan_card_reminders
from .rules.money import MAX_MINOR
from .rules.transitions import RUNNING, Step
from .standing import Standing, load_standing
from .subscriptions import check_step, note_step

RECOVERED_AFTER = timedelta(seconds=60)
"""How long a flow may take to settle the charge that it opened: after that the worker does."""
SUSPENDS_AFTER = timedelta(days=7)
MAX_METHODS = 20


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
) -> Transaction:
    """Write down a try to charge, with the key that the processor will be asked with, before it is asked.

    The worker makes the call from `due_at` on, unless whoever opened it did by then.
    """
    account = standing.account
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
    return transaction


async def ask_for_payment(work: Work, standing: Standing, invoice: Invoice, due_at: datetime) -> Transaction | None:
    """Have a finalised invoice charged. While a payment is overdue the rest waits; without a method it fails.

    `due_at` is when it was to be finalised: after an outage it is charged before what came due later.
    """
    account = standing.account
    if invoice.status is not InvoiceStatus.OPEN or account.collection_method is not CollectionMethod.AUTOMATIC:
        return None
    if standing.subscription is not None and standing.subscription.status in (
        SubscriptionStatus.PAST_DUE,
        SubscriptionStatus.SUSPENDED,
    ):
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
    )


async def pay_invoice(work: Work, account: BillingAccount, invoice: Invoice, transaction: Transaction) -> None:
    """Money came for an invoice. What exceeds what is due has to go back, and is flagged."""
    now = work.clock.now_for(account)
    payable = invoice.status in (InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)
    paid = min(transaction.amount_minor, invoice.due_minor) if payable else 0
    if paid < transaction.amount_minor:
        books.post_overpayment(work, account, transaction, transaction.amount_minor - paid)
        await raise_notice(
            work,
            account,
            "PAYMENT_DUPLICATE",
            str(transaction.id),
            severity=NoticeSeverity.WARNING,
            params={"invoice": invoice.number},
            for_operators=True,
        )
    if not paid:
        return
    was_written_off = invoice.status is InvoiceStatus.UNCOLLECTIBLE
    invoice.paid_minor += paid
    invoice.updated_at = now
    books.post_payment(work, account, transaction, paid, is_written_off=was_written_off)
    if invoice.due_minor == 0:
        invoice.status = InvoiceStatus.PAID
        work.emit(account, "invoice.paid", {"invoiceId": str(invoice.id), "number": invoice.number})
    await clear_notice(work, account, "PAYMENT_FAILED", str(invoice.id))
    await restore(work, account)


async def fail_payment(
    work: Work, account: BillingAccount, invoice: Invoice, transaction: Transaction | None = None
) -> None:
    """An invoice could not be charged: the account is past due, with a banner."""
    now = work.clock.now_for(account)
    invoice.payment_failed_at = invoice.payment_failed_at or now
    invoice.updated_at = now
    subscription = await _find_subscription(work, account)
    work.emit(
        account,
        "invoice.payment_failed",
        {
            "invoiceId": str(invoice.id),
            "number": invoice.number,
            "failure": transaction.failure_code if transaction else None,
        },
    )
    if subscription is None or subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
        return
    if subscription.status is SubscriptionStatus.ACTIVE:
        subscription.past_due_at = now
        _step(work, account, subscription, Step.FAIL_PAYMENT, "subscription.past_due")
    assert subscription.past_due_at is not None, "past due since"
    suspends_at = subscription.past_due_at + SUSPENDS_AFTER
    await raise_notice(
        work,
        account,
        "PAYMENT_FAILED",
        str(invoice.id),
        severity=NoticeSeverity.CRITICAL,
        params={
            "invoice": invoice.number,
            "suspendsAt": suspends_at,
            "daysLeft": max(0, (suspends_at - now).days),
        },
    )


async def restore(work: Work, account: BillingAccount) -> None:
    """An account whose failed invoices are all settled is in good standing again."""
    subscription = await _find_subscription(work, account)
    if subscription is None or subscription.status not in (SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED):
        return
    await work.session.flush()
    unpaid = await work.session.scalar(
        select(func.count())
        .select_from(Invoice)
        .where(
            Invoice.account_id == account.id,
            Invoice.status == InvoiceStatus.OPEN,
            Invoice.payment_failed_at.is_not(None),
        )
    )
    if unpaid:
        return
    subscription.past_due_at = subscription.suspended_at = None
    _step(work, account, subscription, Step.PAY, "subscription.changed")
    await _ask_for_what_waited(work, account)


async def _ask_for_what_waited(work: Work, account: BillingAccount) -> None:
    """Have invoices charged that were issued while a payment was overdue, oldest first."""
    now = work.clock.now_for(account)
    await work.session.flush()
    standing = await load_standing(ReadSession(work.session), account, now)
    tried = select(Transaction.id).where(
        Transaction.invoice_id == Invoice.id, Transaction.kind == TransactionKind.CHARGE
    )
    for invoice in await work.session.scalars(
        select(Invoice)
        .where(Invoice.account_id == account.id, Invoice.status == InvoiceStatus.OPEN, ~tried.exists())
        .order_by(Invoice.issued_at, Invoice.id)
    ):
        await ask_for_payment(work, standing, invoice, now)


def _step(work: Work, account: BillingAccount, subscription: Subscription, step: Step, event: str) -> None:
    before = subscription.status
    subscription.status = check_step(before, step)
    note_step(work, account, subscription, step, before, event=event)


async def _find_subscription(work: Work, account: BillingAccount) -> Subscription | None:
    # The account's lock covers it; this only reads it.
    return (await work.session.scalars(select(Subscription).where(Subscription.account_id == account.id))).one_or_none()


def note_result(work: Work, account: BillingAccount, transaction: Transaction, result: ChargeResult) -> None:
    """Write down what the processor answered."""
    now = work.clock.now_for(account)
    transaction.updated_at = now
    transaction.processor_id = result.processor_id or transaction.processor_id
    transaction.action = None
    if result.status is ChargeStatus.SUCCEEDED:
        transaction.status = TransactionStatus.SUCCEEDED
        event = "payment.succeeded"
    elif result.status is ChargeStatus.REQUIRES_ACTION:
        transaction.status = TransactionStatus.REQUIRES_ACTION
        transaction.action = {"clientSecret": result.client_secret, "url": result.url}
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


def check_token(token: str) -> None:
    """Refuse what cannot be a processor's token, above all a card number."""
    digits = "".join(sign for sign in token if sign.isdigit())
    if not 1 <= len(token) <= 255 or not token.isascii() or not token.isprintable() or len(digits) >= 12:
        raise InvalidInput(
            "`token` is what the processor gave for the method, such as pm_…: card numbers must never come here.",
            ["input", "token"],
        )


async def add_method(
    work: Work, account: BillingAccount, token: str, facts: MethodFacts, *, make_default: bool
) -> PaymentMethod:
    """Keep a payment method that the processor knows. The first one is charged; a new one on request."""
    now = work.clock.now_for(account)
    known = (
        await work.session.scalars(
            select(PaymentMethod).where(PaymentMethod.account_id == account.id, PaymentMethod.removed_at.is_(None))
        )
    ).all()
    if len(known) >= MAX_METHODS:
        raise InvalidInput(f"An account has at most {MAX_METHODS} payment methods: remove one first.", ["input"])
    is_default = make_default or not any(method.is_default for method in known)
    if is_default:
        for other in known:
            other.is_default = False
    method = next((row for row in known if row.processor_token == token), None)
    if method is None:
        method = PaymentMethod(
            created_at=now,
            account_id=account.id,
            kind=facts.kind,
            brand=facts.brand,
            last4=facts.last4,
            exp_month=facts.exp_month,
            exp_year=facts.exp_year,
            is_default=is_default,
            processor_token=token,
        )
        work.session.add(method)
    method.is_default, method.updated_at = is_default or method.is_default, now
    await work.session.flush()
    subscription = await _find_subscription(work, account)
    if method.is_default and subscription is not None and subscription.status in RUNNING:
        await plan_card_reminders(work, account, method, subscription.current_period_end)
    work.audit(
        account,
        "payment_method.added",
        f"payment_method:{method.id}",
        after={"brand": method.brand, "last4": method.last4, "isDefault": method.is_default},
    )
    work.emit(account, "payment_method.added", {"paymentMethodId": str(method.id)})
    return method


async def grant_credit(
    work: Work, account: BillingAccount, amount_minor: int, currency: str, reason: str
) -> Transaction:
    """Give an account credit, which pays its next invoices."""
    if currency != account.currency:
        raise InvalidInput(
            f"The account pays in {account.currency}: credit is given in that currency.", ["input", "currency"]
        )
    if not 0 < amount_minor <= MAX_MINOR:
        raise InvalidInput("`amountMinor` is above 0.", ["input", "amountMinor"])
    if not 0 < len(reason.strip()) <= 500:
        raise InvalidInput("Say why, in up to 500 characters.", ["input", "reason"])
    if account.credit_minor + amount_minor > MAX_MINOR:
        raise InvalidInput("The balance would become too large.", ["input", "amountMinor"])
    now = work.clock.now_for(account)
    transaction = Transaction(
        created_at=now,
        account_id=account.id,
        kind=TransactionKind.CREDIT,
        status=TransactionStatus.SUCCEEDED,
        currency=account.currency,
        amount_minor=amount_minor,
        description=reason.strip(),
    )
    work.session.add(transaction)
    await work.session.flush()
    before = account.credit_minor
    account.credit_minor += amount_minor
    books.post_granted_credit(work, account, transaction)
    work.audit(
        account,
        "credit.granted",
        f"transaction:{transaction.id}",
        before={"creditMinor": before},
        after={"creditMinor": account.credit_minor, "reason": reason.strip()},
    )
    work.emit(account, "payment.succeeded", {"transactionId": str(transaction.id), "kind": "CREDIT"})
    return transaction
