"""What may go back of a charge: all that tells it, read for one or many, and the verdict of the rules."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from ..database import ReadSession
from ..models import (
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    RefundReason,
    RefundRequest,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from .permissions import REFUNDABLE
from .rules.periods import Period
from .rules.refunds import GOODWILL_FOR, OpenLine, RefundCode, open_gross, share_of_time
from .rules.tax import TaxRate
from .standing import read_taxes

RECURRING = (LineKind.SUBSCRIPTION, LineKind.ADD_ON, LineKind.PRORATION)
LONGEST_MONTH = timedelta(days=32)
"""A period above it is a year's: also with the hour of a clock change no month is as long."""
COUNTED = (RefundStatus.REQUESTED, RefundStatus.APPROVED, RefundStatus.SUCCEEDED, RefundStatus.FAILED)
"""A request in one of these may take something of its charge."""


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a refund, and how much they allow at most, tax included."""

    code: RefundCode
    maximum_minor: int

    @property
    def is_allowed(self) -> bool:
        """Whether an operator needs no reason to approve it."""
        return self.code is RefundCode.ALLOWED

    def stored(self) -> dict[str, Any]:
        """As a request keeps it."""
        return {"code": self.code, "maximumMinor": self.maximum_minor}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Verdict":
        """As it was said when the request was made."""
        return cls(RefundCode(stored["code"]), int(stored["maximumMinor"]))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody wants back. Without an amount it is as much as the rules allow."""

    reason: RefundReason
    amount_minor: int | None = None
    period: Period | None = None
    """Of a service issue: when it was."""
    line_ids: Sequence[UUID] | None = None
    """Of a billing error: the lines that are wrong; all when nothing is said."""


@dataclass(kw_only=True)
class Refundable:
    """A charge with all that tells what may go back of it."""

    charge: Transaction
    invoice: Invoice | None = None
    rows: dict[UUID, InvoiceLine] = field(default_factory=dict[UUID, InvoiceLine])
    lines: dict[UUID, OpenLine] = field(default_factory=dict[UUID, OpenLine])
    credited_tax: dict[TaxRate, int] = field(default_factory=dict[TaxRate, int])
    balance_returned_minor: int = 0
    requests: list[RefundRequest] = field(default_factory=list[RefundRequest])
    disputes: list[Transaction] = field(default_factory=list[Transaction])

    @property
    def is_annual(self) -> bool:
        """Whether it paid for a plan by the year."""
        return any(_is_annual(row) for row in self.rows.values())

    @property
    def is_disputed(self) -> bool:
        """Whether the bank is looking into it: until it has decided, nothing goes back."""
        return any(dispute.status is TransactionStatus.PENDING for dispute in self.disputes)

    @property
    def excess_left_minor(self) -> int:
        """What was paid twice or too much, and is still owed back."""
        taken = sum(_taken_of(row) for row in self.requests if row.reason is RefundReason.DUPLICATE)
        return max(0, min(self.charge.excess_minor - taken, self._room_minor))

    @property
    def left_minor(self) -> int:
        """What the processor can still pay back of what paid the invoice, requests that wait counted as gone."""
        taken = sum(_taken_of(row) for row in self.requests if row.reason is not RefundReason.DUPLICATE)
        paid = self.charge.amount_minor - self.charge.excess_minor
        return max(0, min(paid - taken - self._lost_minor, self._room_minor))

    @property
    def _lost_minor(self) -> int:
        return sum(row.amount_minor for row in self.disputes if row.status is TransactionStatus.SUCCEEDED)

    @property
    def _room_minor(self) -> int:
        """What is left of the charge itself, whatever for: a loss comes out of what paid the invoice first."""
        return self.charge.amount_minor - sum(_taken_of(row) for row in self.requests) - self._lost_minor

    @property
    def balance_left_minor(self) -> int:
        """What the balance paid of the invoice, and did not get back."""
        applied = self.invoice.balance_applied_minor if self.invoice is not None else 0
        return max(0, applied - self.balance_returned_minor)

    @property
    def refundable_minor(self) -> int:
        """What the processor can still pay back in all."""
        if self.charge.kind not in REFUNDABLE or self.charge.status is not TransactionStatus.SUCCEEDED:
            return 0
        return 0 if self.is_disputed else self.left_minor + self.excess_left_minor


def _taken_of(request: RefundRequest) -> int:
    if request.status is RefundStatus.REQUESTED:
        return request.amount_minor
    return request.refund_minor + (request.granted_minor if request.reason is RefundReason.DUPLICATE else 0)


# --- reading ---------------------------------------------------------------------------------------------------------


ORDER = "refundRequests:newest"


def list_requests(status: Sequence[RefundStatus]) -> Select[RefundRequest]:
    """The requests of all accounts, in some states or all, newest first."""
    statement = select(RefundRequest).order_by(RefundRequest.created_at.desc(), RefundRequest.id.desc())
    return statement.where(RefundRequest.status.in_(status)) if status else statement


async def load_refundables(
    session: ReadSession, charges: Sequence[Transaction], *, without: UUID | None = None
) -> dict[UUID, Refundable]:
    """Charges with what tells what may go back of them, by their ids: the same statements for one and for many.

    The request `without` is left out: what it asks for is what is looked at.
    """
    found = {charge.id: Refundable(charge=charge) for charge in charges}
    of_invoice: dict[UUID, list[Refundable]] = defaultdict(list)
    for item in found.values():
        if item.charge.invoice_id is not None:
            of_invoice[item.charge.invoice_id].append(item)
    for request in await session.scalars(
        select(RefundRequest).where(RefundRequest.charge_id.in_(found), RefundRequest.status.in_(COUNTED))
    ):
        if request.id != without:
            found[request.charge_id].requests.append(request)
    for dispute in await session.scalars(
        select(Transaction).where(Transaction.charge_id.in_(found), Transaction.kind == TransactionKind.DISPUTE)
    ):
        assert dispute.charge_id is not None, "selected by it"
        found[dispute.charge_id].disputes.append(dispute)
    await _add_lines(session, of_invoice)
    await _add_credits(session, of_invoice)
    return found


OfInvoice = Mapping[UUID, Sequence[Refundable]]


async def _add_lines(session: ReadSession, of_invoice: OfInvoice) -> None:
    for invoice in await session.scalars(select(Invoice).where(Invoice.id.in_(of_invoice))):
        for item in of_invoice[invoice.id]:
            item.invoice = invoice
    later = await _credited_on_later_invoices(session, of_invoice)
    noted = await _credited_by_notes(session, of_invoice)
    for line in await session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id.in_(of_invoice), InvoiceLine.amount_minor > 0)
        .order_by(InvoiceLine.invoice_id, InvoiceLine.position)
    ):
        net = line.amount_minor - later.get(line.id, 0)
        rest = net - noted.get(line.id, 0)
        period = Period(line.period_start, line.period_end)
        for item in of_invoice[line.invoice_id]:
            item.rows[line.id] = line
            item.lines[line.id] = OpenLine(net, rest, read_taxes(line.taxes), period)


async def _add_credits(session: ReadSession, of_invoice: OfInvoice) -> None:
    taxes = await session.execute(
        select(CreditNoteTax, CreditNote.invoice_id)
        .join(CreditNote, CreditNote.id == CreditNoteTax.credit_note_id)
        .where(CreditNote.invoice_id.in_(of_invoice))
    )
    for tax, invoice_id in taxes:
        rate = TaxRate(tax.jurisdiction, tax.category, tax.rate_ppm, tax.reason)
        for item in of_invoice[invoice_id]:
            item.credited_tax[rate] = item.credited_tax.get(rate, 0) + tax.amount_minor
    returned = await session.execute(
        select(
            CreditNote.invoice_id,
            func.sum(CreditNote.total_minor - CreditNote.to_invoice_minor - CreditNote.to_refund_minor),
        )
        .where(CreditNote.invoice_id.in_(of_invoice))
        .group_by(CreditNote.invoice_id)
    )
    for invoice_id, minor in returned:
        for item in of_invoice[invoice_id]:
            item.balance_returned_minor = int(minor)


async def _credited_by_notes(session: ReadSession, invoice_ids: Mapping[UUID, object]) -> dict[UUID, int]:
    rows = await session.execute(
        select(CreditNoteLine.credited_line_id, func.sum(CreditNoteLine.amount_minor))
        .join(InvoiceLine, InvoiceLine.id == CreditNoteLine.credited_line_id)
        .where(InvoiceLine.invoice_id.in_(invoice_ids))
        .group_by(CreditNoteLine.credited_line_id)
    )
    return {line_id: int(amount) for line_id, amount in rows}


async def _credited_on_later_invoices(session: ReadSession, invoice_ids: Mapping[UUID, object]) -> dict[UUID, int]:
    later, line = aliased(InvoiceLine), aliased(InvoiceLine)
    rows = await session.execute(
        select(later.credited_line_id, func.sum(-later.amount_minor))
        .join(line, line.id == later.credited_line_id)
        .join(Invoice, Invoice.id == later.invoice_id)
        .where(line.invoice_id.in_(invoice_ids), Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)))
        .group_by(later.credited_line_id)
    )
    return {line_id: int(amount) for line_id, amount in rows if line_id is not None}


# --- the rules -------------------------------------------------------------------------------------------------------


def judge(item: Refundable, asked: Asked, now: datetime) -> Verdict:
    """What the domain's §8 says of a refund."""
    maximum, code = _maximum(item, asked, now)
    if code is not RefundCode.ALLOWED:
        return Verdict(code, 0)
    if maximum <= 0:
        return Verdict(RefundCode.NOTHING_LEFT, 0)
    if asked.amount_minor is not None and asked.amount_minor > maximum:
        return Verdict(RefundCode.ABOVE_MAXIMUM, maximum)
    return Verdict(RefundCode.ALLOWED, maximum)


def _maximum(item: Refundable, asked: Asked, now: datetime) -> tuple[int, RefundCode]:
    charge = item.charge
    if charge.kind not in REFUNDABLE or charge.status is not TransactionStatus.SUCCEEDED:
        return 0, RefundCode.NOT_REFUNDABLE
    if item.is_disputed:
        return 0, RefundCode.DISPUTED
    if asked.reason is RefundReason.DUPLICATE:
        return item.excess_left_minor, RefundCode.ALLOWED if charge.excess_minor else RefundCode.NOT_A_DUPLICATE
    if not item.lines:
        return 0, RefundCode.NOTHING_LEFT
    if asked.reason is RefundReason.GOODWILL:
        if item.is_annual:
            return 0, RefundCode.ANNUAL_PLAN
        if now - charge.created_at > GOODWILL_FOR:
            return 0, RefundCode.TOO_OLD
    if asked.reason is RefundReason.SERVICE_ISSUE and _time_given_back(item, asked, now) is None:
        return 0, RefundCode.ANNUAL_PLAN
    eligible = list_eligible(item, asked, now)
    if not eligible:
        is_time = asked.reason is RefundReason.SERVICE_ISSUE
        return 0, RefundCode.NO_SUCH_TIME if is_time else RefundCode.NO_SUCH_LINES
    return min(sum(eligible.values()), item.left_minor + item.balance_left_minor), RefundCode.ALLOWED


def list_eligible(item: Refundable, asked: Asked, now: datetime) -> dict[UUID, int]:
    """What may be credited of each line for a reason, tax included: the verdict's maximum, and what a note is over."""
    left = open_gross(item.lines, item.credited_tax)
    if asked.reason is RefundReason.BILLING_ERROR and asked.line_ids is not None:
        return {line_id: left[line_id] for line_id in asked.line_ids if line_id in left}
    if asked.reason is not RefundReason.SERVICE_ISSUE:
        return left
    whole = open_gross(
        {key: OpenLine(line.net_minor, line.net_minor, line.taxes, line.period) for key, line in item.lines.items()}, {}
    )
    time = _time_given_back(item, asked, now)
    if time is None:
        return {}
    shares = {
        line_id: share_of_time(whole[line_id], item.lines[line_id].period, time)
        for line_id, row in item.rows.items()
        if row.kind in RECURRING
    }
    return {line_id: min(share, left[line_id]) for line_id, share in shares.items() if share}


def _time_given_back(item: Refundable, asked: Asked, now: datetime) -> Period | None:
    """Of a service issue: when it was, of an annual plan what of that is past; none where all is to come."""
    period = asked.period or _time_of(item)
    return _cut(period, now) if item.is_annual else period


def _time_of(item: Refundable) -> Period:
    lines = item.lines.values()
    return Period(min(line.period.start for line in lines), max(line.period.end for line in lines))


def _cut(period: Period, now: datetime) -> Period | None:
    return Period(period.start, min(period.end, now)) if period.start < now else None


def _is_annual(row: InvoiceLine) -> bool:
    if row.plan_key is None:
        return False
    of = row.basis.get("of")
    length = timedelta(seconds=int(of)) if of is not None else row.period_end - row.period_start
    return length > LONGEST_MONTH
