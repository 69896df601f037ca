"""Invoices and credit notes: drafts, numbers, freezing, applying the balance, voiding."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import aliased

from ..database import Work
from ..faults import reach
from ..models import (
    BillingAccount,
    CollectionMethod,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceStatus,
    InvoiceTax,
    LineKind,
    NoticeSeverity,
    NumberSeries,
    Transaction,
    TransactionKind,
    TransactionStatus,
    UsageRating,
    WorkKind,
)
from ..models.money import OPEN_ATTEMPT
from . import books
from .bills import Bill, BillLine, CreditDraft, Credited, split_bill, subtotal_of, taxes_of, total_of
from .budget_periods import reckon_spend
from .documents import freeze_credit_note, freeze_invoice, language_of, show_buyer, show_issuer
from .due_work import enqueue, hasten
from .errors import Conflict, InvoiceIsPaid
from .notices import raise_notice
from .permissions import check_voidable
from .retention import keep_until_due
from .rules.explanation import credit_basis
from .rules.money import minimum_of
from .rules.tax import NO_RULE, TaxAmount, TaxRate, credited_tax
from .rules.transitions import RUNNING
from .standing import Standing, read_taxes
from .subscriptions import LATE_USAGE, find_subscription

BY_OPERATORS = ("OPERATOR", "VOID", "REFUND")
"""The reasons of credit notes that operators issue by hand."""


@dataclass(frozen=True)
class Totals:
    """What an invoice comes to, and what is left to pay after the balance and with what was carried."""

    subtotal_minor: int
    tax_minor: int
    total_minor: int
    carried_in_minor: int
    balance_minor: int

    @property
    def due_minor(self) -> int:
        """What is to be paid."""
        return self.total_minor + self.carried_in_minor - self.balance_minor


def total_up(lines: Sequence[BillLine], *, carried_minor: int, balance_minor: int) -> Totals:
    """The totals of an invoice's lines. The balance is applied after tax, like a payment."""
    subtotal = subtotal_of(lines)
    tax = sum(amount.amount_minor for amount in taxes_of(lines))
    total = subtotal + tax
    if not lines:
        return Totals(0, 0, 0, 0, 0)
    return Totals(subtotal, tax, total, carried_minor, min(max(0, balance_minor), total + carried_minor))


@dataclass(frozen=True)
class Foreseen:
    """What would come of a bill."""

    lines: Sequence[BillLine]
    """Of its invoice; empty where none would be issued."""
    totals: Totals
    brought_minor: int
    """What its own credit notes bring to the balance."""
    after: Standing
    """How the account would stand, but for its balance and what is carried as before."""


def foresee(standing: Standing, bill: Bill) -> tuple[Totals, int]:
    """What the invoice of a bill would come to, and how much of the balance applied its own credit notes bring."""
    foreseen = foresee_documents(standing, bill)
    return foreseen.totals, min(foreseen.brought_minor, foreseen.totals.balance_minor)


def foresee_documents(standing: Standing, bill: Bill) -> Foreseen:
    """What the documents of a bill would come to, and what they would leave of the balance, and carried."""
    split = split_bill(bill)
    paid = {row.line.invoice_id for row in standing.lines if row.is_paid}
    brought = sum(-total_of(note.lines) for note in split.credit_notes if note.invoice_id in paid)
    totals = total_up(
        split.invoice, carried_minor=standing.carried_minor, balance_minor=standing.balance_minor + brought
    )
    carried = standing.carried_minor
    if split.invoice:
        is_charged = standing.account.collection_method is CollectionMethod.AUTOMATIC
        is_small = 0 < totals.due_minor < minimum_of(standing.currency)
        carried = totals.due_minor if is_charged and is_small else 0
    kept = standing.kept_balance_minor + totals.balance_minor - brought
    after = replace(standing, kept_balance_minor=kept, carried_minor=carried)
    return Foreseen(split.invoice, totals, brought, after)


@dataclass
class Issued:
    """What was issued of a bill."""

    credit_notes: list[CreditNote] = field(default_factory=list[CreditNote])
    invoice: Invoice | None = None


async def issue_bill(
    work: Work,
    standing: Standing,
    bill: Bill,
    *,
    kind: InvoiceKind,
    cause: str,
    draft: Invoice | None = None,
    reason: str = "CHANGE",
    balance_minor: int | None = None,
    carried_minor: int | None = None,
    ends: bool = True,
) -> Issued:
    """Number and freeze the documents of a bill: credit notes first, whose balance may pay the invoice.

    `ends` tells that credited lines are over; `balance_minor` is how much of the balance may be applied (all that is
    free when nothing is said). The account is locked, and what its lines earned so far is recognised.
    """
    account = standing.account
    work.before_commit(reckon_spend, account)
    split = split_bill(bill)
    issued = Issued()
    before = account.credit_minor
    for note in split.credit_notes:
        issued.credit_notes.append(await issue_credit_note(work, standing, note, reason=reason, ends=ends))
    free = (standing.balance_minor if balance_minor is None else balance_minor) + account.credit_minor - before
    if split.invoice:
        carried = standing.carried_minor if carried_minor is None else carried_minor
        issued.invoice = await _issue_invoice(
            work, standing, split.invoice, kind, cause, draft, free, carried, ends=ends
        )
    elif draft is not None:
        await _drop_draft(work, draft)
    await _note_ratings(work, account, bill)
    return issued


async def _issue_invoice(
    work: Work,
    standing: Standing,
    lines: Sequence[BillLine],
    kind: InvoiceKind,
    cause: str,
    draft: Invoice | None,
    free_minor: int,
    carried_minor: int,
    *,
    ends: bool,
) -> Invoice:
    account = standing.account
    now = work.clock.now_for(account)
    carried = await _pick_carried(work, account, carried_minor) if carried_minor else []
    totals = total_up(lines, carried_minor=sum(row.amount_minor for row in carried), balance_minor=free_minor)
    invoice = draft or _new_invoice(standing, kind, cause, now)
    await _write_lines(work, standing, invoice, lines, replaces=draft is not None)
    reach("invoice.after_lines")
    rows = await load_lines(work, invoice.id)
    invoice.subtotal_minor, invoice.tax_minor = totals.subtotal_minor, totals.tax_minor
    invoice.total_minor = totals.total_minor
    invoice.period_start = min(line.start for line in lines)
    invoice.period_end = max(line.end for line in lines)
    invoice.balance_applied_minor, invoice.carried_in_minor = totals.balance_minor, totals.carried_in_minor
    invoice.bill, invoice.finalise_at = None, None
    invoice.bill_to, invoice.issuer = show_buyer(standing), show_issuer(standing)
    invoice.language = language_of(account)
    account.credit_minor -= totals.balance_minor
    for row in carried:
        row.carried_to_invoice_id = invoice.id
    credits_minor = [(line.credited.line_id, -line.amount_minor) for line in lines if line.credited is not None]
    postings = await books.take_back(work, account, credits_minor, ends=ends) if credits_minor else []
    reach("invoice.before_number")
    await _take_number(work, standing, invoice, "")
    reach("invoice.after_number")
    assert invoice.issued_at is not None, "just given"
    is_sent = account.collection_method is CollectionMethod.SEND_INVOICE
    invoice.due_at = invoice.issued_at + timedelta(days=account.net_days if is_sent else 0)
    charges = [row for row in rows if row.amount_minor > 0]
    others = [row for row in rows if row.amount_minor < 0 and row.credited_line_id is None]
    assert not others, "what takes something back names the line it takes from"
    postings += books.defer_lines(work, account, charges, invoice.issued_at)
    books.post_finalised(work, account, invoice, postings, invoice.tax_minor)
    books.post_balance_applied(work, account, invoice, totals.balance_minor)
    reach("invoice.after_books")
    invoice.status = InvoiceStatus.OPEN
    settle_small(work, account, invoice, is_last=invoice.kind is InvoiceKind.FINAL)
    if is_sent and invoice.status is InvoiceStatus.OPEN:
        overdue_at = invoice.due_at + timedelta(seconds=1)
        await enqueue(work, account, WorkKind.OVERDUE, str(invoice.id), overdue_at)
    if any(rate.reason == NO_RULE for line in lines for rate in line.taxes):
        await _tell_of_missing_rule(work, standing)
    await keep_until_due(work, account, standing.issuer, invoice.issued_at)
    await freeze_invoice(work, standing, invoice, lines, rows)
    work.audit(
        account,
        "invoice.finalized",
        f"invoice:{invoice.id}",
        after={"number": invoice.number, "totalMinor": invoice.total_minor, "status": invoice.status},
    )
    work.emit(account, "invoice.finalized", {"invoiceId": str(invoice.id), "number": invoice.number})
    if invoice.status is InvoiceStatus.PAID:
        work.emit(account, "invoice.paid", {"invoiceId": str(invoice.id), "number": invoice.number})
    return invoice


async def _tell_of_missing_rule(work: Work, standing: Standing) -> None:
    company = standing.company
    await raise_notice(
        work,
        standing.account,
        "TAX_RULE_MISSING",
        severity=NoticeSeverity.WARNING,
        params={"country": company.country if company else "", "region": company.region if company else ""},
        dismissible=True,
        for_operators=True,
    )


def _new_invoice(standing: Standing, kind: InvoiceKind, cause: str, now: datetime) -> Invoice:
    return Invoice(
        created_at=now,
        account_id=standing.account.id,
        issuer_id=standing.issuer.id,
        kind=kind,
        cause=cause,
        currency=standing.currency,
        period_start=now,
        period_end=now,
        subtotal_minor=0,
        tax_minor=0,
        total_minor=0,
        bill_to=show_buyer(standing),
    )


def settle_small(work: Work, account: BillingAccount, invoice: Invoice, *, is_last: bool) -> None:
    """Nothing due is paid; what is too small to charge is carried to the next invoice, or given up on the last."""
    due = invoice.due_minor
    if 0 < due < minimum_of(account.currency) and account.collection_method is CollectionMethod.AUTOMATIC:
        kind = TransactionKind.WRITE_OFF if is_last else TransactionKind.CARRIED_FORWARD
        now = work.clock.now_for(account)
        work.session.add(
            Transaction(
                created_at=now,
                account_id=account.id,
                invoice_id=invoice.id,
                kind=kind,
                status=TransactionStatus.SUCCEEDED,
                currency=account.currency,
                amount_minor=due,
                description=f"Invoice {invoice.number}: too small to charge",
            )
        )
        invoice.carried_out_minor = due
        if is_last:
            books.post_write_off(work, account, f"invoice:{invoice.id}", due)
        due = 0
    if due == 0:
        invoice.status = InvoiceStatus.PAID


async def settle_rest(work: Work, account: BillingAccount, invoice: Invoice) -> None:
    """What is left of an open invoice after a part was paid or credited: nothing, or too little to charge, ends it."""
    subscription = await find_subscription(work, account)
    is_over = (
        subscription is not None
        and subscription.status not in RUNNING
        and subscription.canceled_at is not None
        and work.clock.now_for(account) >= subscription.canceled_at + LATE_USAGE
    )
    settle_small(work, account, invoice, is_last=is_over or invoice.kind is InvoiceKind.FINAL)
    if invoice.status is InvoiceStatus.PAID:
        work.emit(account, "invoice.paid", {"invoiceId": str(invoice.id), "number": invoice.number})


async def _pick_carried(work: Work, account: BillingAccount, at_most: int) -> list[Transaction]:
    """What was carried forward and comes onto an invoice: the oldest, up to an amount that was foreseen."""
    picked: list[Transaction] = []
    for carried in await work.session.scalars(
        select(Transaction)
        .where(
            Transaction.account_id == account.id,
            Transaction.kind == TransactionKind.CARRIED_FORWARD,
            Transaction.carried_to_invoice_id.is_(None),
        )
        .order_by(Transaction.created_at, Transaction.id)
    ):
        if carried.amount_minor <= at_most:
            picked.append(carried)
            at_most -= carried.amount_minor
    return picked


async def write_off_carried(work: Work, account: BillingAccount) -> None:
    """Give up what was too small to charge, where no invoice follows that could demand it."""
    now = work.clock.now_for(account)
    for carried in await work.session.scalars(
        select(Transaction).where(
            Transaction.account_id == account.id,
            Transaction.kind == TransactionKind.CARRIED_FORWARD,
            Transaction.carried_to_invoice_id.is_(None),
        )
    ):
        carried.carried_to_invoice_id = carried.invoice_id  # it ends where it began
        written_off = Transaction(
            created_at=now,
            account_id=account.id,
            kind=TransactionKind.WRITE_OFF,
            status=TransactionStatus.SUCCEEDED,
            currency=carried.currency,
            amount_minor=carried.amount_minor,
            description="Too small to charge, and no invoice followed",
        )
        work.session.add(written_off)
        work.audit(
            account,
            "balance.written_off",
            f"transaction:{written_off.id}",
            after={"amountMinor": written_off.amount_minor},
        )
        books.post_write_off(work, account, f"transaction:{written_off.id}", carried.amount_minor)
    await work.session.flush()


async def _note_ratings(work: Work, account: BillingAccount, bill: Bill) -> None:
    """Remember what was invoiced and credited of which period's overage."""
    invoiced: dict[tuple[str, datetime], int] = defaultdict(int)
    for line in bill.lines:
        if line.kind in (LineKind.OVERAGE, LineKind.CORRECTION) and line.metric_key is not None:
            invoiced[line.metric_key, line.start] += line.amount_minor
    for (metric_key, start), amount_minor in invoiced.items():
        rating = await work.session.get(UsageRating, (account.id, metric_key, start))
        if rating is not None:
            rating.invoiced_minor += amount_minor


async def issue_credit_note(
    work: Work,
    standing: Standing,
    draft: CreditDraft,
    *,
    reason: str,
    ends: bool,
    to_invoice_minor: int | None = None,
    to_refund_minor: int = 0,
    taxes: Sequence[TaxAmount] | None = None,
) -> CreditNote:
    """Number and freeze a credit note.

    As far as its invoice is open (or as `to_invoice_minor` says) it lowers what is due, `to_refund_minor` is paid back,
    the rest is balance. Its `taxes` follow from what it credits, unless an amount with tax in it was split.
    """
    account = standing.account
    now = work.clock.now_for(account)
    invoice = await work.session.get_one(Invoice, draft.invoice_id)
    taxes = await _taxes_of_credit(work, draft) if taxes is None else taxes
    subtotal = -subtotal_of(draft.lines)
    tax = sum(amount.amount_minor for amount in taxes)
    note = CreditNote(
        created_at=now,
        account_id=account.id,
        issuer_id=standing.issuer.id,
        invoice_id=invoice.id,
        number="",
        reason=reason,
        currency=account.currency,
        issued_at=now,
        subtotal_minor=subtotal,
        tax_minor=tax,
        total_minor=subtotal + tax,
        bill_to=invoice.bill_to,
        issuer=invoice.issuer,
        language=language_of(account),
    )
    if reason in BY_OPERATORS:
        await _refuse_open_attempt(work, invoice)
    note.to_invoice_minor = (
        min(note.total_minor, _open_minor(invoice)) if to_invoice_minor is None else to_invoice_minor
    )
    note.to_refund_minor = to_refund_minor
    postings = await books.take_back(
        work,
        account,
        [(line.credited.line_id, -line.amount_minor) for line in draft.lines if line.credited is not None],
        ends=ends,
    )
    await _take_number(work, standing, note, "CN-")
    await keep_until_due(work, account, standing.issuer, note.issued_at)
    await freeze_credit_note(work, standing, note, draft.lines, taxes, invoice)
    work.session.add(note)
    await work.session.flush()
    for position, line in enumerate(draft.lines):
        assert line.credited is not None, "a credit note's lines name what they credit"
        work.session.add(
            CreditNoteLine(
                created_at=now,
                account_id=account.id,
                credit_note_id=note.id,
                credited_line_id=line.credited.line_id,
                position=position,
                description=line.describe(note.language),
                amount_minor=-line.amount_minor,
                period_start=line.start,
                period_end=line.end,
                taxes=_stored(line.taxes),
                basis=line.basis,
            )
        )
    for amount in taxes:
        work.session.add(
            CreditNoteTax(created_at=now, account_id=account.id, credit_note_id=note.id, **_tax_columns(amount))
        )
    books.post_credit_note(work, account, note, postings)
    account.credit_minor += note.total_minor - note.to_invoice_minor - note.to_refund_minor
    invoice.credited_minor += note.to_invoice_minor
    invoice.updated_at = now
    if note.to_invoice_minor and invoice.status is InvoiceStatus.OPEN:
        await settle_rest(work, account, invoice)
    await give_up_actions(work, account, invoice)
    if reason in BY_OPERATORS and standing.subscription is not None:
        standing.subscription.version += 1  # a quote may rest on what was taken back
    work.audit(
        account,
        "credit_note.issued",
        f"credit_note:{note.id}",
        after={"number": note.number, "totalMinor": note.total_minor, "invoice": invoice.number},
    )
    work.emit(account, "credit_note.issued", {"creditNoteId": str(note.id), "number": note.number})
    await work.session.flush()
    return note


async def give_up_actions(work: Work, account: BillingAccount, invoice: Invoice) -> None:
    """A charge that waits for the cardholder is not needed any more where less is owed by now."""
    waiting = await work.session.execute(
        select(Transaction.id, Transaction.amount_minor).where(
            Transaction.invoice_id == invoice.id,
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.status == TransactionStatus.REQUIRES_ACTION,
        )
    )
    for transaction_id, amount_minor in waiting:
        if not invoice.owes(amount_minor):
            await hasten(work, account, WorkKind.EXPIRE_ACTION, str(transaction_id), work.clock.now_for(account))


async def _refuse_open_attempt(work: Work, invoice: Invoice) -> None:
    """What is being charged at this moment is not lowered: the charge would be of another amount."""
    attempt = await work.session.scalar(
        select(Transaction.id).where(Transaction.invoice_id == invoice.id, text(OPEN_ATTEMPT)).limit(1)
    )
    if attempt is not None:
        raise Conflict(
            f"A charge of invoice {invoice.number} is under way: ask again when it has ended.", ["input", "invoiceId"]
        )


def _open_minor(invoice: Invoice) -> int:
    return invoice.due_minor if invoice.status is InvoiceStatus.OPEN else 0


async def _taxes_of_credit(work: Work, draft: CreditDraft) -> list[TaxAmount]:
    """Tax per rate: what all net credited so far of the invoice bears, less what was credited of it before."""
    before_net: dict[TaxRate, int] = defaultdict(int)
    before_tax: dict[TaxRate, int] = defaultdict(int)
    rows = await work.session.scalars(
        select(CreditNoteTax)
        .join(CreditNote, CreditNote.id == CreditNoteTax.credit_note_id)
        .where(CreditNote.invoice_id == draft.invoice_id)
    )
    for row in rows:
        rate = TaxRate(row.jurisdiction, row.category, row.rate_ppm, row.reason)
        before_net[rate] += row.taxable_minor
        before_tax[rate] += row.amount_minor
    return [
        TaxAmount(
            amount.rate,
            -amount.taxable_minor,
            credited_tax(before_net[amount.rate], -amount.taxable_minor, before_tax[amount.rate], amount.rate.rate_ppm),
        )
        for amount in taxes_of(draft.lines)
    ]


async def void_invoice(work: Work, standing: Standing, invoice: Invoice, reason: str) -> CreditNote:
    """Withdraw an unpaid, uncredited invoice: the number stays, and a credit note for the whole goes out."""
    account = standing.account
    credited = await work.session.scalar(
        select(func.count()).select_from(CreditNote).where(CreditNote.invoice_id == invoice.id)
    )
    path = ["input", "invoiceId"]
    if invoice.status is InvoiceStatus.VOID:
        raise InvoiceIsPaid(f"Invoice {invoice.number} is withdrawn already.", path)
    if credited and invoice.status is InvoiceStatus.OPEN:
        raise InvoiceIsPaid(
            f"Invoice {invoice.number} was credited in part: take the rest back by `issueCreditNote`.", path
        )
    check_voidable(invoice)
    work.before_commit(reckon_spend, account)
    now = work.clock.now_for(account)
    await books.recognise(work, account, now)
    lines = await load_lines(work, invoice.id)
    draft = CreditDraft(invoice_id=invoice.id, lines=tuple(_take_whole(invoice, line) for line in lines))
    # Whatever the balance paid of it goes back there; what was carried in is owed with the next invoice again.
    note = await issue_credit_note(
        work,
        standing,
        draft,
        reason="VOID",
        ends=True,
        to_invoice_minor=max(0, invoice.total_minor - invoice.balance_applied_minor),
    )
    beyond = max(0, invoice.balance_applied_minor - invoice.total_minor)
    account.credit_minor += beyond
    books.post_balance_returned(work, account, f"invoice:{invoice.id}", beyond)
    for carried in await work.session.scalars(
        select(Transaction).where(Transaction.carried_to_invoice_id == invoice.id)
    ):
        carried.carried_to_invoice_id = None
    invoice.status, invoice.updated_at = InvoiceStatus.VOID, now
    work.audit(account, "invoice.voided", f"invoice:{invoice.id}", after={"number": invoice.number, "reason": reason})
    work.emit(account, "invoice.voided", {"invoiceId": str(invoice.id), "number": invoice.number})
    return note


def _take_whole(invoice: Invoice, line: InvoiceLine) -> BillLine:
    """A line taken back whole: of a charge a credit, of a credit its undoing."""
    assert invoice.number is not None, "a draft is dropped, not voided"
    return BillLine(
        kind=LineKind.CREDIT,
        wording="CREDIT",
        facts={"name": line.description},
        basis=credit_basis(line.amount_minor),
        start=line.period_start,
        end=line.period_end,
        tax_country=line.tax_country,
        taxes=read_taxes(line.taxes),
        credited=Credited(line_id=line.id, invoice_id=invoice.id, invoice_number=invoice.number),
    )


def credit_part(invoice: Invoice, line: InvoiceLine, amount_minor: int) -> BillLine:
    """A credit of an agreed amount, net, of one line."""
    whole = _take_whole(invoice, line)
    return whole.model_copy(update={"basis": credit_basis(amount_minor)})


async def write_draft(
    work: Work, standing: Standing, bill: Bill, kind: InvoiceKind, cause: str, at: datetime
) -> Invoice | None:
    """Show what a closed period will be invoiced by, while it waits for late usage; nothing where there is nothing."""
    work.before_commit(reckon_spend, standing.account)
    split = split_bill(bill)
    draft = next((row for row in standing.drafts if row.cause == cause), None)
    if not split.invoice:
        if draft is not None:
            await _drop_draft(work, draft)
        return None
    account = standing.account
    totals = total_up(split.invoice, carried_minor=standing.carried_minor, balance_minor=standing.balance_minor)
    if draft is None:
        draft = _new_invoice(standing, kind, cause, work.clock.now_for(account))
        draft.finalise_at = at
        replaces = False
    else:
        replaces = True
    draft.subtotal_minor, draft.tax_minor, draft.total_minor = (
        totals.subtotal_minor,
        totals.tax_minor,
        totals.total_minor,
    )
    draft.carried_in_minor, draft.balance_applied_minor = totals.carried_in_minor, totals.balance_minor
    draft.period_start = min(line.start for line in split.invoice)
    draft.period_end = max(line.end for line in split.invoice)
    draft.language = language_of(account)
    draft.updated_at = work.clock.now_for(account)
    await _write_lines(work, standing, draft, split.invoice, replaces=replaces)
    return draft


async def _drop_draft(work: Work, draft: Invoice) -> None:
    for table in (InvoiceTax, InvoiceLine):
        await work.session.execute(delete(table).where(table.invoice_id == draft.id))
    await work.session.delete(draft)
    await work.session.flush()


async def _write_lines(
    work: Work, standing: Standing, invoice: Invoice, lines: Sequence[BillLine], *, replaces: bool
) -> None:
    session = work.session
    now = work.clock.now_for(standing.account)
    if replaces:
        for table in (InvoiceTax, InvoiceLine):
            await session.execute(delete(table).where(table.invoice_id == invoice.id))
    else:
        session.add(invoice)
        await session.flush()
    language = language_of(standing.account)
    for position, line in enumerate(lines):
        session.add(
            InvoiceLine(
                created_at=now,
                account_id=invoice.account_id,
                invoice_id=invoice.id,
                position=position,
                kind=line.kind,
                description=line.describe(language),
                quantity=line.quantity,
                unit_minor=line.unit_minor,
                amount_minor=line.amount_minor,
                period_start=line.start,
                period_end=line.end,
                tax_country=line.tax_country,
                taxes=_stored(line.taxes),
                basis=line.basis,
                metric_key=line.metric_key,
                plan_key=line.plan_key,
                add_on_key=line.add_on_key,
                credited_line_id=line.credited.line_id if line.credited else None,
                usage_periods=line.usage_periods,
            )
        )
    for amount in taxes_of(lines):
        session.add(
            InvoiceTax(created_at=now, account_id=invoice.account_id, invoice_id=invoice.id, **_tax_columns(amount))
        )
    await session.flush()


def _tax_columns(amount: TaxAmount) -> dict[str, Any]:
    return {
        "jurisdiction": amount.rate.jurisdiction,
        "category": amount.rate.category,
        "rate_ppm": amount.rate.rate_ppm,
        "taxable_minor": amount.taxable_minor,
        "amount_minor": amount.amount_minor,
        "reason": amount.rate.reason,
    }


def _stored(taxes: Sequence[TaxRate]) -> list[list[object]]:
    return [[rate.jurisdiction, rate.category, rate.rate_ppm, rate.reason] for rate in taxes]


async def load_lines(work: Work, invoice_id: UUID) -> list[InvoiceLine]:
    """An invoice's lines, in order."""
    rows = await work.session.scalars(
        select(InvoiceLine).where(InvoiceLine.invoice_id == invoice_id).order_by(InvoiceLine.position)
    )
    return list(rows)


async def _take_number(work: Work, standing: Standing, document: Invoice | CreditNote, infix: str) -> None:
    """Give the next number of the series, under the lock on its row: gapless, however many ask at once."""
    account = standing.account
    clock = account.test_clock
    prefix = (infix or "INV-") if clock is None else f"TST-{clock.code}-{infix}"
    identity = {"issuer_id": standing.issuer.id, "prefix": prefix}
    await work.insert_or_ignore(NumberSeries, [identity | {"last_number": 0}])
    series = await work.session.get_one(
        NumberSeries, tuple(identity.values()), with_for_update=True, populate_existing=True
    )
    now = work.clock.now_for(account)
    # A clock that jumped back must not make numbers and instants run against each other.
    issued_at = max(now, series.last_issued_at or now)
    series.last_number += 1
    series.last_issued_at = issued_at
    document.number = f"{prefix}{series.last_number:06d}"
    document.issued_at = issued_at
    await work.session.flush()


async def load_credited(work: Work, invoice_id: UUID) -> dict[UUID, int]:
    """How much was credited of each line of an invoice, net: by credit notes and on later invoices."""
    on_notes = await work.session.execute(
        select(CreditNoteLine.credited_line_id, func.sum(CreditNoteLine.amount_minor))
        .join(InvoiceLine, InvoiceLine.id == CreditNoteLine.credited_line_id)
        .where(InvoiceLine.invoice_id == invoice_id)
        .group_by(CreditNoteLine.credited_line_id)
    )
    later, line = aliased(InvoiceLine), aliased(InvoiceLine)
    on_invoices = await work.session.execute(
        select(later.credited_line_id, func.sum(-later.amount_minor))
        .join(line, line.id == later.credited_line_id)
        .join(Invoice, Invoice.id == later.invoice_id)
        .where(line.invoice_id == invoice_id, Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)))
        .group_by(later.credited_line_id)
    )
    credited: dict[UUID, int] = defaultdict(int)
    for line_id, amount_minor in [*on_notes, *on_invoices]:
        credited[line_id] += int(amount_minor)
    return credited
