"""I4: nothing is paid or credited beyond what was demanded."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, or_, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import Subquery

from ...database import ReadSession
from ...models import (
    CreditNote,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from .reading import (
    Findings,
    credits_of_lines,
    is_finalised,
    is_kept_whole,
    or_0,
    show_money,
    since_purge,
    stream,
    sum_of,
)


async def check_settlement(session: ReadSession, found: Findings) -> None:
    """What was paid, applied, carried and credited of each invoice, against the rows it comes from."""
    forward = since_purge()

    def moved(by: Any, *where: ColumnElement[bool]) -> Subquery:
        is_write_off = Transaction.kind == TransactionKind.WRITE_OFF
        return (
            select(
                by.label("invoice_id"),
                sum_of(case((is_write_off, 0), else_=Transaction.amount_minor)).label("carried"),
                sum_of(case((is_write_off, Transaction.amount_minor), else_=0)).label("written_off"),
            )
            .where(Transaction.status == TransactionStatus.SUCCEEDED, by.is_not(None), *where)
            .group_by(by)
            .subquery()
        )

    # What a purge took the target of names its own invoice.
    carried_in = moved(
        Transaction.carried_to_invoice_id,
        Transaction.kind == TransactionKind.CARRIED_FORWARD,
        Transaction.carried_to_invoice_id != Transaction.invoice_id,
    )
    given_up = moved(
        Transaction.invoice_id,
        Transaction.kind.in_((TransactionKind.CARRIED_FORWARD, TransactionKind.WRITE_OFF)),
    )
    noted = (
        select(
            CreditNote.invoice_id,
            sum_of(CreditNote.total_minor).label("amount"),
            sum_of(CreditNote.subtotal_minor).label("net"),
            sum_of(CreditNote.to_invoice_minor).label("to_invoice"),
        )
        .group_by(CreditNote.invoice_id)
        .subquery()
    )
    charged = (
        select(InvoiceLine.invoice_id, sum_of(InvoiceLine.amount_minor).label("net"))
        .where(InvoiceLine.amount_minor > 0)
        .group_by(InvoiceLine.invoice_id)
        .subquery()
    )
    statement = (
        select(
            Invoice,
            or_0(carried_in.c.carried),
            or_0(given_up.c.carried),
            or_0(given_up.c.written_off),
            or_0(noted.c.amount),
            or_0(noted.c.to_invoice),
            or_0(charged.c.net) - or_0(noted.c.net),
            forward.c.since,
        )
        .outerjoin(charged, charged.c.invoice_id == Invoice.id)
        .outerjoin(carried_in, carried_in.c.invoice_id == Invoice.id)
        .outerjoin(given_up, given_up.c.invoice_id == Invoice.id)
        .outerjoin(noted, noted.c.invoice_id == Invoice.id)
        .outerjoin(forward, forward.c.account_id == Invoice.account_id)
        .where(is_finalised())
        .order_by(Invoice.id)
    )
    async for row in stream(session, statement):
        invoice, came, carried, written_off, credited, to_invoice, creditable, since = row
        for wrong in _judge_invoice(invoice, came, credited, to_invoice, creditable, since):
            found.add("I4", invoice.account_id, f"{invoice.number} {wrong}.")
        for wrong in _judge_giving_up(invoice, carried, written_off):
            found.add("I4", invoice.account_id, f"{invoice.number} {wrong}.")
    nothing = (
        select(Transaction.account_id, Transaction.id, Transaction.amount_minor, Transaction.currency)
        .where(Transaction.amount_minor <= 0)
        .order_by(Transaction.id)
    )
    async for account_id, transaction_id, amount, currency in stream(session, nothing):
        found.add("I4", account_id, f"The transaction {transaction_id} moves {show_money(amount, currency)}.")


def _judge_invoice(
    invoice: Invoice,
    came: int,
    credited: int,
    to_invoice: int,
    creditable: int,
    since: datetime | None,
) -> Iterable[str]:
    def show(amount_minor: int) -> str:
        return show_money(amount_minor, invoice.currency)

    amounts = {
        "total": invoice.total_minor,
        "paid": invoice.paid_minor,
        "balance applied": invoice.balance_applied_minor,
        "carried in": invoice.carried_in_minor,
        "carried out": invoice.carried_out_minor,
        "credited": invoice.credited_minor,
        "written off": invoice.written_off_minor,
    }
    for name, amount_minor in amounts.items():
        if amount_minor < 0:
            yield f"has an amount below 0 ({name}: {show(amount_minor)})"
    left = invoice.owed_minor - invoice.paid_minor - invoice.credited_minor - invoice.carried_out_minor
    if invoice.paid_minor > invoice.owed_minor:
        yield f"was to be paid with {show(invoice.owed_minor)}, and {show(invoice.paid_minor)} was paid"
    elif left < 0:
        yield f"has {show(left)} due"
    if invoice.status is InvoiceStatus.PAID and left > 0:
        yield f"is paid, with {show(left)} due"
    if invoice.status is InvoiceStatus.OPEN and left == 0:
        yield "is open, with nothing due"
    if invoice.status is InvoiceStatus.VOID and (invoice.paid_minor or credited != invoice.total_minor):
        yield f"was withdrawn, with {show(invoice.paid_minor)} paid and {show(credited)} of its total credited"
    # An invoice that credits other lines itself may be credited beyond its own total, up to what it charges.
    if creditable < 0:
        yield f"has a total of {show(invoice.total_minor)}, and credit notes of {show(credited)}"
    # Documents of purged years, and what they carried, cannot be counted any more.
    if since is None and invoice.status is not InvoiceStatus.VOID and invoice.carried_in_minor != came:
        yield f"carried {show(invoice.carried_in_minor)} in, and transactions {show(came)}"
    if is_kept_whole(invoice, since) and invoice.credited_minor != to_invoice:
        yield f"was lowered by {show(invoice.credited_minor)}, and by its credit notes by {show(to_invoice)}"


def _judge_giving_up(invoice: Invoice, carried: int, written_off: int) -> Iterable[str]:
    """What was too small to charge is carried or written off at once; what could not be collected is written off."""

    def show(amount_minor: int) -> str:
        return show_money(amount_minor, invoice.currency)

    is_given_up = invoice.status is InvoiceStatus.UNCOLLECTIBLE or invoice.written_off_minor > 0
    if not is_given_up:
        carried, written_off = carried + written_off, 0
    if invoice.carried_out_minor != carried:
        yield f"carried {show(invoice.carried_out_minor)} out, and its transactions {show(carried)}"
    if invoice.written_off_minor != written_off:
        yield f"was written off by {show(invoice.written_off_minor)}, and by its transactions by {show(written_off)}"
    if not is_given_up:
        return
    left = invoice.owed_minor - invoice.paid_minor - invoice.credited_minor - invoice.carried_out_minor
    if invoice.status not in (InvoiceStatus.UNCOLLECTIBLE, InvoiceStatus.PAID):
        yield f"is {invoice.status.lower()}, though {show(invoice.written_off_minor)} of it was written off"
    if invoice.status is InvoiceStatus.UNCOLLECTIBLE and left == 0:
        yield "is uncollectible, with nothing due"
    if left > invoice.written_off_minor:
        yield f"was written off by {show(invoice.written_off_minor)}, with {show(left)} due"


async def check_credits(session: ReadSession, found: Findings) -> None:
    """No line is credited beyond its net."""
    credited = credits_of_lines(InvoiceStatus.DRAFT, InvoiceStatus.VOID)
    statement = (
        select(
            Invoice.account_id,
            Invoice.number,
            Invoice.currency,
            InvoiceLine.description,
            InvoiceLine.amount_minor,
            credited.c.amount,
        )
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .join(credited, credited.c.line_id == InvoiceLine.id)
        .where(
            or_(
                and_(InvoiceLine.amount_minor > 0, credited.c.amount > InvoiceLine.amount_minor),
                # A withdrawn invoice's credits are undone.
                and_(InvoiceLine.amount_minor < 0, credited.c.amount < InvoiceLine.amount_minor),
            )
        )
        .order_by(InvoiceLine.id)
    )
    async for account_id, number, currency, description, amount, taken in stream(session, statement):
        found.add(
            "I4",
            account_id,
            f"“{description}” of {number}: {show_money(taken, currency)} was credited of "
            f"{show_money(amount, currency)}.",
        )
