"""I3: each invoice is charged once, and the processor says the same."""

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from ...database import ReadSession
from ...models import (
    AuditEntry,
    Deployment,
    Invoice,
    ProcessorEvent,
    SandboxCharge,
    SandboxDispute,
    SandboxMessage,
    SandboxRefund,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from ...settings import Environment
from ..hearing import UNKNOWN
from .reading import Findings, is_finalised, or_0, show_money, stream, sum_of


async def check_charges(session: ReadSession, found: Findings) -> None:
    """One charge pays an invoice, and one is tried a step, with the processor's id; what counts as paid was paid."""
    succeeded = and_(Transaction.kind == TransactionKind.CHARGE, Transaction.status == TransactionStatus.SUCCEEDED)
    twice = (
        select(Invoice.account_id, Invoice.number, func.count(Transaction.id))
        .join(Transaction, Transaction.invoice_id == Invoice.id)
        # One that came beyond what was due is owed back.
        .where(succeeded, Transaction.excess_minor < Transaction.amount_minor)
        .group_by(Invoice.id, Invoice.account_id, Invoice.number)
        .having(func.count(Transaction.id) > 1)
        .order_by(Invoice.id)
    )
    async for account_id, number, count in stream(session, twice):
        found.add("I3", account_id, f"{number} was charged {count} times.")
    again = (
        select(Invoice.account_id, Invoice.number, Transaction.step, func.count(Transaction.id))
        .join(Transaction, Transaction.invoice_id == Invoice.id)
        .where(Transaction.step.is_not(None))
        .group_by(Invoice.id, Invoice.account_id, Invoice.number, Transaction.step)
        .having(func.count(Transaction.id) > 1)
        .order_by(Invoice.id, Transaction.step)
    )
    async for account_id, number, step, count in stream(session, again):
        found.add("I3", account_id, f"{number} was tried {count} times for {step}.")
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
        select(Transaction.invoice_id, sum_of(Transaction.amount_minor - Transaction.excess_minor).label("amount"))
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
        .where(is_finalised(), Invoice.paid_minor != or_0(received.c.amount))
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


def _is_sandbox() -> ColumnElement[bool]:
    return select(Deployment.id).where(Deployment.environment == Environment.SANDBOX).exists()


def _is_embedded(charge: type[Transaction]) -> ColumnElement[bool]:
    # A sandbox may collect by Stripe, whose payments are named so: what it knows is asked there.
    return or_(charge.processor_id.is_(None), ~charge.processor_id.startswith("pi_"))


def _is_purged() -> ColumnElement[bool]:
    # Once invoices were purged, what paid them is still known there.
    return select(AuditEntry.id).where(AuditEntry.action == "documents.purged").exists()


async def check_sandbox_charges(session: ReadSession, found: Findings) -> None:
    """The sandbox's processor and we have the same charges. What is open here may be further along there."""
    ours, theirs = Transaction, SandboxCharge
    differing = (
        select(ours, theirs)
        .outerjoin(theirs, theirs.key == ours.processor_key)
        .where(
            _is_sandbox(),
            _is_embedded(ours),
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
    unknown = (
        select(theirs)
        .outerjoin(ours, ours.processor_key == theirs.key)
        .where(_is_sandbox(), ours.id.is_(None), ~_is_purged())
        .order_by(theirs.key)
    )
    async for (their,) in stream(session, unknown):
        amount = show_money(their.amount_minor, their.currency)
        found.add(
            "I3", None, f"The processor has a charge {their.processor_id} ({their.status}, {amount}) for {their.key}."
        )


async def check_sandbox_refunds(session: ReadSession, found: Findings) -> None:
    """The sandbox's processor and we have the same refunds, and it knows our disputes."""
    ours, theirs, charge = Transaction, SandboxRefund, aliased(Transaction)
    # What the bank sent back is told by a message that may not have been heard yet.
    is_told = select(SandboxMessage.id).where(SandboxMessage.subject == theirs.processor_id).exists()
    differing = (
        select(ours, theirs)
        .join(charge, charge.id == ours.charge_id)
        .outerjoin(theirs, theirs.key == ours.processor_key)
        .where(
            _is_sandbox(),
            _is_embedded(charge),
            ours.kind == TransactionKind.REFUND,
            charge.kind == TransactionKind.CHARGE,  # what came by transfer goes back by hand
            or_(ours.processor_id.is_not(None), ours.status == TransactionStatus.SUCCEEDED, theirs.key.is_not(None)),
            or_(
                theirs.key.is_(None),
                theirs.amount_minor != ours.amount_minor,
                and_(ours.processor_id.is_not(None), theirs.processor_id != ours.processor_id),
                theirs.charge_id != charge.processor_id,
                and_(ours.status.in_(SETTLED), theirs.status != ours.status, ~is_told),
            ),
        )
        .order_by(ours.id)
    )
    async for our, their in stream(session, differing):
        says = f"{our.status}, {show_money(our.amount_minor, our.currency)}, {our.processor_id}"
        other = (
            "does not know it"
            if their is None
            else f"says {their.status}, {show_money(their.amount_minor, our.currency)}, {their.processor_id} of "
            f"{their.charge_id}"
        )
        found.add("I3", our.account_id, f"The refund {our.id} is {says}; the processor {other}.")
    unknown = (
        select(theirs, SandboxCharge.currency)
        .join(SandboxCharge, SandboxCharge.processor_id == theirs.charge_id)
        .outerjoin(ours, ours.processor_key == theirs.key)
        .where(_is_sandbox(), ours.id.is_(None), ~_is_purged())
        .order_by(theirs.key)
    )
    async for their, currency in stream(session, unknown):
        amount = show_money(their.amount_minor, currency)
        found.add(
            "I3", None, f"The processor has a refund {their.processor_id} ({their.status}, {amount}) for {their.key}."
        )
    disputes = (
        select(ours, SandboxDispute)
        .join(charge, charge.id == ours.charge_id)
        .outerjoin(SandboxDispute, SandboxDispute.processor_id == ours.processor_id)
        .where(
            _is_sandbox(),
            _is_embedded(charge),
            ours.kind == TransactionKind.DISPUTE,
            or_(
                SandboxDispute.processor_id.is_(None),
                SandboxDispute.amount_minor != ours.amount_minor,
                and_(ours.status.in_(SETTLED), SandboxDispute.status != ours.status),
            ),
        )
        .order_by(ours.id)
    )
    async for our, dispute in stream(session, disputes):
        says = f"{our.status}, {show_money(our.amount_minor, our.currency)}"
        other = (
            "does not know it"
            if dispute is None
            else f"says {dispute.status}, {show_money(dispute.amount_minor, our.currency)}"
        )
        found.add("I3", our.account_id, f"The dispute {our.id} is {says}; the processor {other}.")


async def check_messages(session: ReadSession, found: Findings) -> None:
    """The processor told of nothing that bears our mark and is not known here."""
    statement = (
        select(ProcessorEvent)
        .where(ProcessorEvent.outcome == UNKNOWN)
        .order_by(ProcessorEvent.heard_at, ProcessorEvent.id)
    )
    async for (event,) in stream(session, statement):
        found.add(
            "I3",
            None,
            f"The processor told of the {event.kind.lower()} {event.subject} (message {event.id}, heard at "
            f"{event.heard_at}), which bears our mark and is unknown here.",
        )
