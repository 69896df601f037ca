"""Refunds: what somebody asks for, and what an operator decides."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession, Work
from ..faults import reach
from ..models import (
    BillingAccount,
    RefundReason,
    RefundRequest,
    RefundState,
    RefundStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from . import books, inputs
from .access import Principal
from .accounts import lock_account
from .bills import CreditDraft
from .closing import load_standing
from .documents import freeze_receipt
from .due_work import enqueue
from .errors import Conflict, InvalidInput, RefundNotAllowed
from .idempotency import idempotent
from .invoicing import credit_part, issue_credit_note
from .notices import clear_notice
from .payments import RECOVERED_AFTER
from .permissions import Action, check_refundable, check_reviewable, require_action
from .refundables import Asked, Refundable, judge, list_eligible, load_refundables
from .rules.periods import Period
from .rules.refunds import RefundCode, open_gross, split_gross, spread
from .texts import refund_message
from .wording import format_money

MAX_NOTE = 500
MAX_LINES = 100
REFUSED = (RefundCode.NOT_REFUNDABLE, RefundCode.DISPUTED, RefundCode.NOT_A_DUPLICATE)
"""What no operator can override."""


class RefundDecision(StrEnum):
    """What an operator decides of a request."""

    APPROVE = "APPROVE"
    CREDIT = "CREDIT"
    DENY = "DENY"


# --- asking ----------------------------------------------------------------------------------------------------------


@idempotent("requestRefund")
async def ask(
    work: Work,
    principal: Principal,
    account_id: UUID,
    charge_id: UUID,
    asked: Asked,
    currency: str | None,
    note: str,
) -> dict[str, Any]:
    """Ask once for each request, for a charge as it stands under the account's lock."""
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.REQUEST_REFUND)
    charge = await work.session.get_one(Transaction, charge_id, populate_existing=True)
    request = await request_refund(work, account, charge, asked, currency, note)
    return {"refundRequestId": str(request.id)}


async def request_refund(
    work: Work, account: BillingAccount, charge: Transaction, asked: Asked, currency: str | None, note: str
) -> RefundRequest:
    """Ask for (a part of) a charge back. What the rules do not allow is kept too: an operator may override them."""
    now = work.clock.now_for(account)
    note = inputs.check_text(note, ["input", "note"], at_most=MAX_NOTE, at_least=0)
    check_refundable(charge)
    _check_amount(account, asked.amount_minor, currency, "as much as is allowed")
    item = (await load_refundables(ReadSession(work.session), [charge]))[charge.id]
    check_asked(item, asked)
    verdict = judge(item, asked, now)
    limit = _limit_of(item, asked.reason)
    if verdict.code in REFUSED or limit <= 0:
        code = verdict.code if verdict.code in REFUSED else RefundCode.NOTHING_LEFT
        raise RefundNotAllowed(refund_message(code), ["input", "transactionId"])
    amount = asked.amount_minor or (verdict.maximum_minor if verdict.is_allowed else limit)
    if amount > limit:
        raise RefundNotAllowed(f"At most {_show(account, limit)} of it can still go back.", ["input", "amountMinor"])
    if asked.reason is RefundReason.DUPLICATE and amount != verdict.maximum_minor:
        raise InvalidInput(
            f"What was paid twice goes back whole: {_show(account, verdict.maximum_minor)}.", ["input", "amountMinor"]
        )
    request = RefundRequest(
        created_at=now,
        account_id=account.id,
        charge_id=charge.id,
        reason=asked.reason,
        currency=account.currency,
        amount_minor=amount,
        from_at=asked.period.start if asked.period else None,
        to_at=asked.period.end if asked.period else None,
        line_ids=[str(line_id) for line_id in asked.line_ids or ()],
        note=note,
        requested_by=work.actor.name,
        status=RefundStatus.REQUESTED if verdict.is_allowed else RefundStatus.NOT_ALLOWED,
        verdict=verdict.stored(),
    )
    work.session.add(request)
    await work.session.flush()
    work.audit(
        account,
        "refund.requested",
        f"refund_request:{request.id}",
        after={"reason": request.reason, "amountMinor": amount, "verdict": verdict.code},
    )
    work.emit(account, "refund.requested", {"refundRequestId": str(request.id), "transactionId": str(charge.id)})
    return request


def _show(account: BillingAccount, amount_minor: int) -> str:
    return format_money(amount_minor, account.currency, "en")


def _limit_of(item: Refundable, reason: RefundReason) -> int:
    """What can go back in all, whatever an operator decides."""
    if reason is RefundReason.DUPLICATE:
        return item.excess_left_minor
    left = sum(open_gross(item.lines, item.credited_tax).values())
    return min(left, item.left_minor + item.balance_left_minor)


def _check_amount(account: BillingAccount, amount_minor: int | None, currency: str | None, otherwise: str) -> None:
    if amount_minor is not None and amount_minor <= 0:
        raise InvalidInput(f"`amountMinor` is above 0; leave it out for {otherwise}.", ["input", "amountMinor"])
    if amount_minor is not None and currency is None:
        raise InvalidInput("Say which currency the amount is in.", ["input", "currency"])
    if currency is not None and currency != account.currency:
        raise InvalidInput(f"The account pays in {account.currency}: refunds are too.", ["input", "currency"])


def check_asked(item: Refundable, asked: Asked, *, is_preview: bool = False) -> None:
    """Refuse what does not fit the reason. Before anybody asks, time and lines may be left out: all is meant."""
    if asked.reason is RefundReason.SERVICE_ISSUE:
        if asked.period is None and not is_preview:
            raise InvalidInput("Say from when to when the service did not work.", ["input", "from"])
        if asked.period is not None and asked.period.start >= asked.period.end:
            raise InvalidInput("`to` comes after `from`.", ["input", "to"])
    elif asked.period is not None:
        raise InvalidInput("`from` and `to` are for a SERVICE_ISSUE.", ["input", "from"])
    if asked.reason is not RefundReason.BILLING_ERROR:
        if asked.line_ids is not None:
            raise InvalidInput("`lineIds` are for a BILLING_ERROR.", ["input", "lineIds"])
    elif asked.line_ids is not None or not is_preview:
        if not asked.line_ids or len(asked.line_ids) > MAX_LINES:
            raise InvalidInput(f"Name the lines that are wrong, 1 to {MAX_LINES}.", ["input", "lineIds"])
        if any(line_id not in item.lines for line_id in asked.line_ids):
            raise InvalidInput("The charge's invoice has no such line to credit.", ["input", "lineIds"])


# --- deciding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """What an operator decides, and of how much where that is not what was asked for."""

    what: RefundDecision
    amount_minor: int | None = None
    currency: str | None = None
    reason: str | None = None


@idempotent("reviewRefund")
async def decide(work: Work, account_id: UUID, request_id: UUID, decision: Decision) -> dict[str, Any]:
    """Decide once for each request, on what was asked as it stands under the account's lock."""
    account = await lock_account(work, account_id)
    _check_amount(account, decision.amount_minor, decision.currency, "what was asked for")
    request = await work.session.get_one(RefundRequest, request_id, populate_existing=True)
    moved = await review_refund(work, account, request, decision.what, decision.amount_minor, decision.reason)
    ids = {} if moved is None else {moved.kind: str(moved.id)}
    return {"refundId": ids.get(TransactionKind.REFUND), "creditId": ids.get(TransactionKind.CREDIT)}


async def review_refund(
    work: Work,
    account: BillingAccount,
    request: RefundRequest,
    decision: RefundDecision,
    amount_minor: int | None,
    reason: str | None,
) -> Transaction | None:
    """Decide on a request. Approved, its credit note is issued and the refund is made, or credit is given.

    Gives that transaction; none where nothing moves.

    Approving what the rules do not allow needs a reason. One whose refund failed can be tried again, or credited.
    """
    now = work.clock.now_for(account)
    if reason is not None:
        reason = inputs.check_text(reason, ["input", "reason"], at_most=MAX_NOTE)
    before = request.status
    check_reviewable(request)
    charge = await work.session.get_one(Transaction, request.charge_id)
    request.reviewed_by, request.reviewed_at, request.updated_at = work.actor.name, now, now
    request.review_reason = reason
    refund = None
    if before is RefundStatus.FAILED:
        refund = await _decide_again(work, account, request, charge, decision, amount_minor)
    elif decision is RefundDecision.DENY:
        if reason is None:
            raise InvalidInput("Say why it is denied: the customer reads it.", ["input", "reason"])
        request.status = RefundStatus.DENIED
    else:
        refund = await _approve(work, account, request, charge, decision, amount_minor)
    event = "refund.denied" if request.status is RefundStatus.DENIED else "refund.approved"
    work.audit(
        account,
        event,
        f"refund_request:{request.id}",
        before={"status": before},
        after={"status": request.status, "approvedMinor": request.approved_minor, "reason": reason},
    )
    work.emit(account, event, {"refundRequestId": str(request.id), "transactionId": str(charge.id)})
    if request.status is RefundStatus.SUCCEEDED:
        work.emit(account, "refund.succeeded", {"refundRequestId": str(request.id), "transactionId": str(charge.id)})
    return refund


async def _approve(
    work: Work,
    account: BillingAccount,
    request: RefundRequest,
    charge: Transaction,
    decision: RefundDecision,
    amount_minor: int | None,
) -> Transaction | None:
    now = work.clock.now_for(account)
    await books.recognise(work, account, now)
    item = (await load_refundables(ReadSession(work.session), [charge], without=request.id))[charge.id]
    asked = _asked_of(request, amount_minor)
    verdict = judge(item, asked, now)
    amount = asked.amount_minor
    assert amount is not None, "a request has an amount"
    if item.is_disputed:
        raise RefundNotAllowed(refund_message(RefundCode.DISPUTED), ["input", "refundRequestId"])
    limit = _limit_of(item, request.reason)
    if limit <= 0:
        raise RefundNotAllowed(refund_message(RefundCode.NOTHING_LEFT), ["input", "refundRequestId"])
    if amount > limit:
        raise RefundNotAllowed(f"At most {_show(account, limit)} of it can still go back.", ["input", "amountMinor"])
    if not verdict.is_allowed and request.review_reason is None:
        raise InvalidInput(
            f"The rules do not allow it ({verdict.code}): to override them, say why.", ["input", "reason"]
        )
    request.approved_minor = amount
    if request.reason is RefundReason.DUPLICATE:
        if amount != item.excess_left_minor:
            raise InvalidInput(
                f"What was paid twice goes back whole: {_show(account, item.excess_left_minor)}.",
                ["input", "amountMinor"],
            )
        if decision is RefundDecision.CREDIT:
            return await _grant_owed(work, account, request, charge, amount)
        return await _open_refund(work, account, request, charge, amount)
    refund_minor = 0 if decision is RefundDecision.CREDIT else min(amount, item.left_minor)
    await _credit(work, account, request, item, asked, amount, refund_minor)
    if not refund_minor:
        request.status = RefundStatus.SUCCEEDED
        return await _note_credit(work, account, request, charge, amount)
    return await _open_refund(work, account, request, charge, refund_minor)


def _asked_of(request: RefundRequest, amount_minor: int | None) -> Asked:
    period = Period(request.from_at, request.to_at) if request.from_at and request.to_at else None
    return Asked(
        reason=request.reason,
        amount_minor=request.amount_minor if amount_minor is None else amount_minor,
        period=period,
        line_ids=[UUID(line_id) for line_id in request.line_ids] or None,
    )


async def _credit(
    work: Work,
    account: BillingAccount,
    request: RefundRequest,
    item: Refundable,
    asked: Asked,
    amount_minor: int,
    refund_minor: int,
) -> None:
    """Issue the credit note of a refund: over the lines that it is for; over all where an operator gives more."""
    assert item.invoice is not None, "what is no duplicate paid an invoice"
    eligible = list_eligible(item, asked, work.clock.now_for(account))
    if sum(eligible.values()) < amount_minor:
        eligible = open_gross(item.lines, item.credited_tax)
    nets, taxes = split_gross(spread(amount_minor, eligible), item.lines, item.credited_tax)
    draft = CreditDraft(
        invoice_id=item.invoice.id,
        lines=tuple(
            credit_part(item.invoice, row, nets[line_id]) for line_id, row in item.rows.items() if line_id in nets
        ),
    )
    note = await issue_credit_note(
        work,
        await load_standing(work, account),
        draft,
        reason="REFUND",
        ends=False,
        to_invoice_minor=0,
        to_refund_minor=refund_minor,
        taxes=taxes,
    )
    request.credit_note_id = note.id


async def _decide_again(
    work: Work,
    account: BillingAccount,
    request: RefundRequest,
    charge: Transaction,
    decision: RefundDecision,
    amount_minor: int | None,
) -> Transaction | None:
    """A refund that the processor could not make: it is owed, so it is tried again or given as credit."""
    if decision is RefundDecision.DENY:
        raise Conflict("It was approved, and is owed: try it again, or give it as credit.", ["input", "decision"])
    if amount_minor is not None and amount_minor != request.refund_minor:
        owed_now = _show(account, request.refund_minor)
        raise InvalidInput(f"{owed_now} is owed: leave `amountMinor` out.", ["input", "amountMinor"])
    item = (await load_refundables(ReadSession(work.session), [charge], without=request.id))[charge.id]
    if item.is_disputed:
        raise RefundNotAllowed(refund_message(RefundCode.DISPUTED), ["input", "refundRequestId"])
    owed = min(
        request.refund_minor,
        item.excess_left_minor if request.reason is RefundReason.DUPLICATE else item.left_minor,
    )
    if owed <= 0:
        raise RefundNotAllowed(refund_message(RefundCode.NOTHING_LEFT), ["input", "refundRequestId"])
    await clear_notice(work, account, "REFUND_FAILED", str(request.id))
    if decision is RefundDecision.CREDIT:
        request.refund_minor = 0
        return await _grant_owed(work, account, request, charge, owed)
    return await _open_refund(work, account, request, charge, owed)


async def _grant_owed(
    work: Work, account: BillingAccount, request: RefundRequest, charge: Transaction, amount_minor: int
) -> Transaction:
    """Put what is owed on the balance, which no credit note does."""
    request.granted_minor = amount_minor
    request.status = RefundStatus.SUCCEEDED
    account.credit_minor += amount_minor
    books.post_owed_granted(work, account, request, amount_minor)
    await _clear_duplicate(work, account, request)
    return await _note_credit(work, account, request, charge, amount_minor)


async def _note_credit(
    work: Work, account: BillingAccount, request: RefundRequest, charge: Transaction, amount_minor: int
) -> Transaction:
    """Write down that money was given back as credit: like every movement it is a transaction."""
    credit = Transaction(
        created_at=work.clock.now_for(account),
        account_id=account.id,
        invoice_id=charge.invoice_id,
        kind=TransactionKind.CREDIT,
        status=TransactionStatus.SUCCEEDED,
        currency=charge.currency,
        amount_minor=amount_minor,
        description=f"Credit for: {charge.description}",
        charge_id=charge.id,
        refund_request_id=request.id,
    )
    work.session.add(credit)
    await work.session.flush()
    work.audit(
        account,
        "credit.granted",
        f"transaction:{credit.id}",
        after={"amountMinor": amount_minor, "refundRequest": str(request.id)},
    )
    work.emit(account, "payment.succeeded", {"transactionId": str(credit.id), "kind": TransactionKind.CREDIT})
    return credit


async def _clear_duplicate(work: Work, account: BillingAccount, request: RefundRequest) -> None:
    if request.reason is RefundReason.DUPLICATE:
        await clear_notice(work, account, "PAYMENT_DUPLICATE", str(request.charge_id))


async def _open_refund(
    work: Work, account: BillingAccount, request: RefundRequest, charge: Transaction, amount_minor: int
) -> Transaction:
    """Write a refund down with its key, before the processor is asked. What came by transfer went back by hand."""
    now = work.clock.now_for(account)
    tries = await work.session.scalar(
        select(func.count())
        .select_from(Transaction)
        .where(Transaction.refund_request_id == request.id, Transaction.kind == TransactionKind.REFUND)
    )
    is_manual = charge.kind is TransactionKind.MANUAL
    refund = Transaction(
        created_at=now,
        account_id=account.id,
        invoice_id=charge.invoice_id,
        payment_method_id=charge.payment_method_id,
        kind=TransactionKind.REFUND,
        status=TransactionStatus.SUCCEEDED if is_manual else TransactionStatus.PENDING,
        currency=charge.currency,
        amount_minor=amount_minor,
        description=f"Refund: {charge.description}",
        charge_id=charge.id,
        refund_request_id=request.id,
        processor_key=None if is_manual else f"refund:{request.id}:{tries}",
    )
    work.session.add(refund)
    await work.session.flush()
    request.status, request.refund_minor = RefundStatus.APPROVED, amount_minor
    if is_manual:
        books.post_refund(work, account, refund, amount_minor)
        request.status = RefundStatus.SUCCEEDED
        await note_refunded(work, charge)
        await _clear_duplicate(work, account, request)
        await freeze_receipt(work, account, refund)
        work.emit(account, "payment.succeeded", {"transactionId": str(refund.id), "kind": TransactionKind.REFUND})
    else:
        await enqueue(work, account, WorkKind.REFUND, str(refund.id), now + RECOVERED_AFTER)
        reach("refund.opened")
    return refund


async def note_refunded(work: Work, charge: Transaction) -> None:
    """Say of a charge how much of it went back."""
    await work.session.flush()
    refunded = await work.session.scalar(
        select(func.coalesce(func.sum(Transaction.amount_minor), 0)).where(
            Transaction.charge_id == charge.id,
            Transaction.kind == TransactionKind.REFUND,
            Transaction.status == TransactionStatus.SUCCEEDED,
        )
    )
    if not refunded:
        charge.refund_state = RefundState.NONE
    else:
        charge.refund_state = RefundState.FULL if refunded >= charge.amount_minor else RefundState.PARTIAL
