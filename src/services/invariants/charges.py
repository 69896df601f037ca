"""I3: each invoice is charged once, and the processor says the same."""

from sqlalchemy import and_, func, or_, select

from ...database import ReadSession
from ...models import (
    AuditEntry,
    Deployment,
    Invoice,
    SandboxCharge,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from ...settings import Environment
from .reading import Findings, is_finalised, or_0, show_money, stream, sum_of


async def check_charges(session: ReadSession, found: Findings) -> None:
    """One charge an invoice, with the processor's id; nothing counts as paid that no payment paid."""
    succeeded = and_(Transaction.kind == TransactionKind.CHARGE, Transaction.status == TransactionStatus.SUCCEEDED)
    twice = (
        select(Invoice.account_id, Invoice.number, func.count(Transaction.id))
        .join(Transaction, Transaction.invoice_id == Invoice.id)
        .where(succeeded)
        .group_by(Invoice.id, Invoice.account_id, Invoice.number)
        .having(func.count(Transaction.id) > 1)
        .order_by(Invoice.id)
    )
    async for account_id, number, count in stream(session, twice):
        found.add("I3", account_id, f"{number} was charged {count} times.")
    nameless = (
        select(Transaction.account_id, Transaction.id, Transaction.amount_minor, Transaction.currency)
        .where(succeeded, Transaction.processor_id.is_(None))
        .order_by(Transaction.id)
    )
    async for account_id, transaction_id, amount, currency in stream(session, nameless):
        found.add(
            "I3",
            account_id,
            f"The charge {transaction_id} of {show_money(amount, currency)} has no id of the processor.",
        )
    received = (
        select(Transaction.invoice_id, sum_of(Transaction.amount_minor).label("amount"))
        .where(
            Transaction.kind.in_((TransactionKind.CHARGE, TransactionKind.MANUAL)),
            Transaction.status == TransactionStatus.SUCCEEDED,
        )
        .group_by(Transaction.invoice_id)
        .subquery()
    )
    unpaid = (
        select(Invoice.account_id, Invoice.number, Invoice.currency, Invoice.paid_minor, or_0(received.c.amount))
        .outerjoin(received, received.c.invoice_id == Invoice.id)
        .where(is_finalised(), Invoice.paid_minor > or_0(received.c.amount))
        .order_by(Invoice.id)
    )
    async for account_id, number, currency, paid, amount in stream(session, unpaid):
        found.add(
            "I3",
            account_id,
            f"{number} counts {show_money(paid, currency)} as paid; its payments come to "
            f"{show_money(amount, currency)}.",
        )


SETTLED = (TransactionStatus.SUCCEEDED, TransactionStatus.FAILED, TransactionStatus.CANCELED)


async def check_sandbox_charges(session: ReadSession, found: Findings) -> None:
    """The sandbox's processor and we have the same charges. What is open here may be further along there."""
    ours, theirs = Transaction, SandboxCharge
    is_sandbox = select(Deployment.id).where(Deployment.environment == Environment.SANDBOX).exists()
    differing = (
        select(ours, theirs)
        .outerjoin(theirs, theirs.key == ours.processor_key)
        .where(
            is_sandbox,
            ours.kind == TransactionKind.CHARGE,
            or_(ours.processor_id.is_not(None), ours.status == TransactionStatus.SUCCEEDED, theirs.key.is_not(None)),
            or_(
                theirs.key.is_(None),
                theirs.amount_minor != ours.amount_minor,
                theirs.currency != ours.currency,
                and_(ours.processor_id.is_not(None), theirs.processor_id != ours.processor_id),
                and_(ours.status.in_(SETTLED), theirs.status != ours.status),
            ),
        )
        .order_by(ours.id)
    )
    async for our, their in stream(session, differing):
        says = f"{our.status}, {show_money(our.amount_minor, our.currency)}, {our.processor_id}"
        other = (
            "does not know it"
            if their is None
            else f"says {their.status}, {show_money(their.amount_minor, their.currency)}, {their.processor_id}"
        )
        found.add("I3", our.account_id, f"The charge {our.id} is {says}; the processor {other}.")
    # Once invoices were purged, what paid them is still known there.
    purged = select(AuditEntry.id).where(AuditEntry.action == "documents.purged").exists()
    unknown = (
        select(theirs)
        .outerjoin(ours, ours.processor_key == theirs.key)
        .where(is_sandbox, ours.id.is_(None), ~purged)
        .order_by(theirs.key)
    )
    async for (their,) in stream(session, unknown):
        amount = show_money(their.amount_minor, their.currency)
        found.add(
            "I3", None, f"The processor has a charge {their.processor_id} ({their.status}, {amount}) for {their.key}."
        )
