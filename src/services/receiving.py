"""Money that came: what it pays, what that restores, and what operators book by hand."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    NoticeSeverity,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from . import books, dunning, inputs
from .accounts import lock_account
from .documents import freeze_receipt
from .errors import InvalidInput
from .idempotency import idempotent
from .invoicing import give_up_actions, issue_bill, settle_rest
from .notices import raise_notice
from .payments import ask_for_payment
from .permissions import check_payable
from .pricing import bill_of, lines_at_return
from .rules.money import MAX_AMOUNT_MINOR, MAX_MINOR
from .rules.transitions import Step
from .standing import load_standing
from .subscriptions import find_subscription, take_step

OVERDUE_STATES = (SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED)
MAX_REFERENCE = 140


async def pay_invoice(work: Work, account: BillingAccount, invoice: Invoice, transaction: Transaction) -> None:
    """Money came for an invoice. What exceeds what is due has to go back, and is flagged."""
    now = work.clock.now_for(account)
    paid = min(transaction.amount_minor, invoice.due_minor) if invoice.is_payable else 0
    if paid < transaction.amount_minor:
        await owe_back(
            work, account, transaction, transaction.amount_minor - paid, {"invoice": invoice.number or str(invoice.id)}
        )
    if not paid:
        return
    was_written_off = invoice.status is InvoiceStatus.UNCOLLECTIBLE
    invoice.paid_minor += paid
    invoice.updated_at = now
    books.post_payment(work, account, transaction, paid, is_written_off=was_written_off)
    if not was_written_off:
        await settle_rest(work, account, invoice)
    elif invoice.due_minor == 0:
        invoice.status = InvoiceStatus.PAID
        work.emit(account, "invoice.paid", {"invoiceId": str(invoice.id), "number": invoice.number})
    await give_up_actions(work, account, invoice)
    await restore(work, account)


async def owe_back(
    work: Work, account: BillingAccount, transaction: Transaction, excess_minor: int, params: dict[str, str]
) -> None:
    """Money came that was not due: it is booked as owed back, and operators are told."""
    transaction.excess_minor += excess_minor
    work.audit(
        account,
        "payment.exceeded",
        f"billing_account:{account.id}",
        after={"transaction": str(transaction.id), "excessMinor": transaction.excess_minor, **params},
    )
    books.post_overpayment(work, account, transaction, excess_minor)
    await raise_notice(
        work,
        account,
        "PAYMENT_DUPLICATE",
        str(transaction.id),
        severity=NoticeSeverity.WARNING,
        params=params,
        for_operators=True,
    )


async def restore(work: Work, account: BillingAccount) -> None:
    """An account whose failed invoices are all settled is in good standing again.

    What began while it was suspended is invoiced from now on, and what waited meanwhile is charged.
    """
    running = await dunning.find_running(work, account)
    if running is None:
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
    subscription = await find_subscription(work, account)
    if unpaid:
        await dunning.tell(work, account, running, subscription)
        return
    await dunning.end(work, account, running)
    if subscription is not None and subscription.status in OVERDUE_STATES:
        suspended_at, subscription.suspended_at = subscription.suspended_at, None
        take_step(work, account, subscription, Step.PAY, "subscription.changed", reason="paid")
        if suspended_at is not None:
            await _charge_rest(work, account, suspended_at)
    await _ask_for_what_waited(work, account)


async def _charge_rest(work: Work, account: BillingAccount, suspended_at: datetime) -> None:
    """Invoice the rest of a period that began, uncharged, in the suspension."""
    now = work.clock.now_for(account)
    await work.session.flush()
    standing = await load_standing(ReadSession(work.session), account, now)
    bill = bill_of(standing, lines_at_return(standing, now, suspended_at))
    if bill.lines:
        await books.recognise(work, account, now)
        await issue_bill(work, standing, bill, kind=InvoiceKind.PERIOD, cause=f"return:{now.isoformat()}")


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


@idempotent("recordPayment")
async def book_transfer(
    work: Work, account_id: UUID, invoice_id: UUID, amount_minor: int, currency: str, reference: str
) -> dict[str, Any]:
    """Book a transfer once for each request, for an invoice as it stands under the account's lock."""
    account = await lock_account(work, account_id)
    invoice = await work.session.get_one(Invoice, invoice_id, populate_existing=True)
    transaction = await record_payment(work, account, invoice, amount_minor, currency, reference)
    return {"transactionId": str(transaction.id)}


async def record_payment(
    work: Work, account: BillingAccount, invoice: Invoice, amount_minor: int, currency: str, reference: str
) -> Transaction:
    """Book a transfer that an operator saw on the bank's statement. What exceeds what is due is owed back."""
    if currency != account.currency:
        raise InvalidInput(f"The invoice is in {account.currency}: only that currency pays it.", ["input", "currency"])
    if not 0 < amount_minor <= MAX_MINOR:
        raise InvalidInput("`amountMinor` is above 0.", ["input", "amountMinor"])
    reference = inputs.check_text(reference, ["input", "reference"], at_most=MAX_REFERENCE)
    inputs.refuse_card_number(reference, ["input", "reference"])
    check_payable(invoice)
    transaction = Transaction(
        created_at=work.clock.now_for(account),
        account_id=account.id,
        invoice_id=invoice.id,
        kind=TransactionKind.MANUAL,
        status=TransactionStatus.SUCCEEDED,
        currency=account.currency,
        amount_minor=amount_minor,
        description=f"Invoice {invoice.number}",
        reference=reference,
    )
    work.session.add(transaction)
    await work.session.flush()
    await pay_invoice(work, account, invoice, transaction)
    work.audit(
        account,
        "payment.recorded",
        f"transaction:{transaction.id}",
        after={"amountMinor": amount_minor, "reference": reference, "invoice": invoice.number},
    )
    await freeze_receipt(work, account, transaction)
    work.emit(account, "payment.succeeded", {"transactionId": str(transaction.id), "kind": TransactionKind.MANUAL})
    return transaction


async def grant_credit(
    work: Work, account: BillingAccount, amount_minor: int, currency: str, reason: str
) -> Transaction:
    """Give an account credit, which pays its next invoices."""
    if currency != account.currency:
        raise InvalidInput(
            f"The account pays in {account.currency}: credit is given in that currency.", ["input", "currency"]
        )
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise InvalidInput(f"`amountMinor` is from 1 to {MAX_AMOUNT_MINOR:,}.", ["input", "amountMinor"])
    if not 0 < len(reason.strip()) <= 500:
        raise InvalidInput("Say why, in up to 500 characters.", ["input", "reason"])
    inputs.refuse_card_number(reason, ["input", "reason"])
    if account.credit_minor + amount_minor > MAX_AMOUNT_MINOR:
        raise InvalidInput(f"The balance would pass {MAX_AMOUNT_MINOR:,}.", ["input", "amountMinor"])
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
