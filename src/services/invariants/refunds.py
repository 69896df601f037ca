"""I4: what goes back of a payment was paid, asked for and approved, and never more than that."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, or_, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from ...database import ReadSession
from ...models import (
    CreditNote,
    RefundReason,
    RefundRequest,
    RefundState,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from ...models.money import UNDER_WAY
from .reading import Findings, or_0, show_money, since_purge, stream, sum_of

PAYMENTS = (TransactionKind.CHARGE, TransactionKind.MANUAL)
UNDECIDED = (RefundStatus.REQUESTED, RefundStatus.NOT_ALLOWED, RefundStatus.DENIED)
"""Nothing goes back for a request in one of these."""


@dataclass(frozen=True)
class _Returned:
    """What went back of a payment, or is about to."""

    done: int
    under_way: int
    twice_paid: int
    """How much of both is for what was paid twice."""
    granted: int
    """How much of what was paid twice was given as credit instead."""


async def check_payments(session: ReadSession, found: Findings) -> None:
    """Of each payment no more goes back than came, and no more as paid twice than was beyond what was due."""
    charge, back = Transaction, aliased(Transaction)
    is_done, is_under_way = back.status == TransactionStatus.SUCCEEDED, back.status.in_(UNDER_WAY)

    def part(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return sum_of(case((condition, back.amount_minor), else_=0))

    returned = (
        select(
            back.charge_id,
            part(is_done).label("done"),
            part(is_under_way).label("under_way"),
            part(and_(or_(is_done, is_under_way), RefundRequest.reason == RefundReason.DUPLICATE)).label("twice_paid"),
        )
        .outerjoin(RefundRequest, RefundRequest.id == back.refund_request_id)
        .where(back.kind == TransactionKind.REFUND)
        .group_by(back.charge_id)
        .subquery()
    )
    granted = (
        select(RefundRequest.charge_id, sum_of(RefundRequest.granted_minor).label("amount"))
        .where(RefundRequest.reason == RefundReason.DUPLICATE)
        .group_by(RefundRequest.charge_id)
        .subquery()
    )
    statement = (
        select(
            charge,
            or_0(returned.c.done),
            or_0(returned.c.under_way),
            or_0(returned.c.twice_paid),
            or_0(granted.c.amount),
        )
        .outerjoin(returned, returned.c.charge_id == charge.id)
        .outerjoin(granted, granted.c.charge_id == charge.id)
        .where(
            charge.kind.in_(PAYMENTS),
            or_(
                charge.excess_minor != 0,
                charge.refund_state != RefundState.NONE,
                returned.c.charge_id.is_not(None),
                granted.c.charge_id.is_not(None),
                and_(charge.status == TransactionStatus.SUCCEEDED, charge.invoice_id.is_(None)),
            ),
        )
        .order_by(charge.id)
    )
    async for row, *amounts in stream(session, statement):
        for wrong in _judge_payment(row, _Returned(*amounts)):
            found.add("I4", row.account_id, f"The payment {row.id} {wrong}.")


def _judge_payment(charge: Transaction, returned: _Returned) -> Iterable[str]:
    def show(amount_minor: int) -> str:
        return show_money(amount_minor, charge.currency)

    taken = returned.done + returned.under_way
    if not 0 <= charge.excess_minor <= charge.amount_minor:
        yield f"counts {show(charge.excess_minor)} of {show(charge.amount_minor)} as beyond what was due"
    if charge.status is not TransactionStatus.SUCCEEDED and (charge.excess_minor or taken):
        yield f"is {charge.status.lower()}, and {show(max(charge.excess_minor, taken))} of it counts as owed back"
    elif charge.invoice_id is None and charge.excess_minor != charge.amount_minor:
        yield f"paid nothing, and of its {show(charge.amount_minor)} only {show(charge.excess_minor)} is owed back"
    if taken > charge.amount_minor:
        yield f"is of {show(charge.amount_minor)}, and {show(taken)} of it goes back"
    elif taken - returned.twice_paid > charge.amount_minor - charge.excess_minor:
        yield (
            f"paid {show(charge.amount_minor - charge.excess_minor)} of its invoice, and "
            f"{show(taken - returned.twice_paid)} of that goes back"
        )
    if returned.twice_paid + returned.granted > charge.excess_minor:
        yield (
            f"was beyond what was due by {show(charge.excess_minor)}, and "
            f"{show(returned.twice_paid + returned.granted)} goes back as paid twice"
        )
    if returned.done:
        fits = RefundState.FULL if returned.done >= charge.amount_minor else RefundState.PARTIAL
    else:
        fits = RefundState.NONE
    if charge.refund_state is not fits:
        yield f"says that it went back: {charge.refund_state}, and {show(returned.done)} of it did"


async def check_refunds(session: ReadSession, found: Findings) -> None:
    """Each refund and dispute is of a payment that came, and each refund was asked for."""
    back, charge, request = Transaction, aliased(Transaction), RefundRequest
    is_refund = back.kind == TransactionKind.REFUND
    statement = (
        select(back, charge, request)
        .outerjoin(charge, charge.id == back.charge_id)
        .outerjoin(request, request.id == back.refund_request_id)
        .where(
            back.kind.in_((TransactionKind.REFUND, TransactionKind.DISPUTE)),
            or_(
                charge.id.is_(None),
                charge.kind.not_in(PAYMENTS),
                charge.status != TransactionStatus.SUCCEEDED,
                charge.currency != back.currency,
                and_(back.status == TransactionStatus.SUCCEEDED, back.amount_minor > charge.amount_minor),
                and_(is_refund, or_(request.id.is_(None), request.charge_id != back.charge_id)),
            ),
        )
        .order_by(back.id)
    )
    async for row, of, asked in stream(session, statement):
        name = f"The {row.kind.lower()} {row.id} of {show_money(row.amount_minor, row.currency)}"
        if of is None:
            what = "is of no payment"
        elif of.kind not in PAYMENTS or of.status is not TransactionStatus.SUCCEEDED:
            what = f"is of {of.id}, a {of.kind.lower()} that is {of.status.lower()}"
        elif of.currency != row.currency or row.amount_minor > of.amount_minor:
            what = f"is of a payment of {show_money(of.amount_minor, of.currency)}"
        else:
            what = "was asked for by nobody" if asked is None else "was asked for of another payment"
        found.add("I4", row.account_id, f"{name} {what}.")


async def check_requests(session: ReadSession, found: Findings) -> None:
    """For each request goes back what was approved, by refund or as credit, with a credit note unless paid twice."""
    request, charge, back, forward = RefundRequest, Transaction, aliased(Transaction), since_purge()
    done = (
        select(
            back.refund_request_id,
            sum_of(case((back.status == TransactionStatus.SUCCEEDED, back.amount_minor), else_=0)).label("done"),
            sum_of(case((back.status.in_(UNDER_WAY), back.amount_minor), else_=0)).label("under_way"),
        )
        .where(back.kind == TransactionKind.REFUND)
        .group_by(back.refund_request_id)
        .subquery()
    )
    dispute = aliased(Transaction)
    taken = (
        select(dispute.charge_id, sum_of(dispute.excess_minor).label("amount"))
        .where(dispute.kind == TransactionKind.DISPUTE, dispute.status == TransactionStatus.SUCCEEDED)
        .group_by(dispute.charge_id)
        .subquery()
    )
    statement = (
        select(
            request,
            charge,
            CreditNote,
            or_0(done.c.done),
            or_0(done.c.under_way),
            forward.c.since,
            or_0(taken.c.amount),
        )
        .join(charge, charge.id == request.charge_id)
        .outerjoin(CreditNote, CreditNote.id == request.credit_note_id)
        .outerjoin(done, done.c.refund_request_id == request.id)
        .outerjoin(forward, forward.c.account_id == request.account_id)
        .outerjoin(taken, taken.c.charge_id == charge.id)
        .order_by(request.id)
    )
    async for row, of, note, returned, under_way, since, by_bank in stream(session, statement):
        for wrong in _judge_request(row, returned, under_way, by_bank):
            found.add("I4", row.account_id, f"The request {row.id} {wrong}.")
        for wrong in _judge_note(row, of, note, since, by_bank):
            found.add("I4", row.account_id, f"The request {row.id} {wrong}.")
    loose = (
        select(CreditNote.account_id, CreditNote.number, CreditNote.to_refund_minor, CreditNote.currency)
        .outerjoin(request, request.credit_note_id == CreditNote.id)
        .where(or_(CreditNote.to_refund_minor != 0, CreditNote.reason == "REFUND"), request.id.is_(None))
        .order_by(CreditNote.id)
    )
    async for account_id, number, amount, currency in stream(session, loose):
        found.add("I4", account_id, f"{number} gives {show_money(amount, currency)} back that nobody asked for.")


def _judge_request(request: RefundRequest, done: int, under_way: int, by_bank: int) -> Iterable[str]:
    def show(amount_minor: int) -> str:
        return show_money(amount_minor, request.currency)

    status, refund, granted = request.status, request.refund_minor, request.granted_minor
    approved = request.approved_minor or 0
    if min(approved, refund, granted) < 0:
        yield f"has an amount below 0 ({show(approved)}, {show(refund)}, {show(granted)})"
    if status in UNDECIDED:
        if approved or refund or granted or done or under_way or request.credit_note_id is not None:
            yield f"is {status.lower().replace('_', ' ')}, and {show(max(approved, done + under_way))} of it goes back"
        return
    if refund + granted > approved:
        yield f"has {show(approved)} approved, and {show(refund)} refunded and {show(granted)} granted"
    if request.reason is RefundReason.DUPLICATE and refund + granted + by_bank < approved:
        yield f"is of what was paid twice, {show(approved)}, and {show(refund + granted)} of it goes back"
    expected = {
        RefundStatus.APPROVED: (0, refund),
        RefundStatus.SUCCEEDED: (refund, 0),
        RefundStatus.FAILED: (0, 0),
    }[status]
    if (done, under_way) != expected:
        yield (
            f"is {status.lower()} with {show(refund)} to refund, and its refunds come to {show(done)}, with "
            f"{show(under_way)} under way"
        )


def _judge_note(
    request: RefundRequest, charge: Transaction, note: CreditNote | None, since: datetime | None, by_bank: int
) -> Iterable[str]:
    """`by_bank` is what a lost dispute took of what was owed back: so much may be missing of what was approved."""
    if request.status in UNDECIDED:
        return

    def show(amount_minor: int) -> str:
        return show_money(amount_minor, request.currency)

    if note is None:
        # That of a purged year is gone.
        if request.reason is not RefundReason.DUPLICATE and since is None:
            yield f"is {request.status.lower()}, without a credit note"
        return
    if request.reason is RefundReason.DUPLICATE:
        yield f"is of what was paid twice, and has the credit note {note.number}"
        return
    approved, goes_back = request.approved_minor or 0, request.refund_minor + request.granted_minor
    is_paid = 0 <= note.to_refund_minor - goes_back <= by_bank
    if (note.total_minor, note.invoice_id) != (approved, charge.invoice_id) or not is_paid:
        yield (
            f"has {show(approved)} approved and {show(goes_back)} to pay back, and its credit note {note.number} says "
            f"{show(note.total_minor)} and {show(note.to_refund_minor)}"
            + ("" if note.invoice_id == charge.invoice_id else ", of another invoice")
        )
