"""The books: what each event debits and credits, by the table of the domain's §8. Written with what it records."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import (
    BillingAccount,
    CreditNote,
    Deferral,
    EntryKind,
    Invoice,
    InvoiceLine,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
    RefundRequest,
    Transaction,
)
from .rules.periods import Period
from .rules.recognition import recognised_until

Posting = tuple[LedgerAccount, int] | tuple[LedgerAccount, int, UUID]
"""An account and what moves on it: debits are positive. On DEFERRED also the line that it is of."""


def post(
    work: Work, account: BillingAccount, kind: EntryKind, subject: str, postings: Iterable[Posting]
) -> LedgerEntry | None:
    """Write an entry. Amounts on the same account, or line, are summed; nothing moved, nothing is written."""
    sums: dict[tuple[LedgerAccount, UUID | None], int] = {}
    for ledger_account, amount_minor, *of_line in postings:
        key = (ledger_account, of_line[0] if of_line else None)
        assert (ledger_account is LedgerAccount.DEFERRED) == bool(of_line), "what is deferred is of a line"
        sums[key] = sums.get(key, 0) + amount_minor
    assert sum(sums.values()) == 0, f"{kind} of {subject} does not balance: {sums}"
    moved = {key: amount_minor for key, amount_minor in sums.items() if amount_minor}
    if not moved:
        return None
    at = work.clock.now_for(account)
    entry = LedgerEntry(created_at=at, account_id=account.id, kind=kind, subject=subject, currency=account.currency)
    work.session.add(entry)
    for (ledger_account, line_id), amount_minor in moved.items():
        work.session.add(
            LedgerPosting(
                created_at=at,
                account_id=account.id,
                entry_id=entry.id,
                ledger_account=ledger_account,
                currency=account.currency,
                amount_minor=amount_minor,
                line_id=line_id,
            )
        )
    return entry


async def load_deferrals(work: Work, account: BillingAccount) -> list[Deferral]:
    """The lines of which something is still deferred."""
    return list(
        await work.session.scalars(
            select(Deferral)
            .where(Deferral.account_id == account.id, Deferral.settled_at.is_(None))
            .order_by(Deferral.start_at, Deferral.id)
        )
    )


async def recognise(work: Work, account: BillingAccount, instant: datetime, *, everything: bool = False) -> None:
    """Make revenue of what time has earned up to an instant; of `everything` where the subscription is over."""
    postings: list[Posting] = []
    for deferral in await load_deferrals(work, account):
        postings += _recognise_one(work, account, deferral, instant, everything=everything)
    post(work, account, EntryKind.RECOGNITION, f"billing_account:{account.id}", postings)


def recognise_rest(work: Work, account: BillingAccount, deferrals: Sequence[Deferral]) -> None:
    """Make revenue of all that is deferred of lines that are over and not credited."""
    postings: list[Posting] = []
    for deferral in deferrals:
        postings += _recognise_one(work, account, deferral, deferral.end_at, everything=True)
    post(work, account, EntryKind.RECOGNITION, f"billing_account:{account.id}", postings)


def _recognise_one(
    work: Work, account: BillingAccount, deferral: Deferral, instant: datetime, *, everything: bool
) -> list[Posting]:
    until = deferral.end_at if everything else instant
    target = recognised_until(
        deferral.net_minor,
        Period(deferral.start_at, deferral.end_at),
        until,
        credited_minor=deferral.credited_minor,
    )
    earned = max(0, target - deferral.recognised_minor)
    deferral.recognised_minor += earned
    _settle(work, account, deferral)
    return _earn(deferral, earned)


def _earn(deferral: Deferral, amount_minor: int) -> list[Posting]:
    return [(LedgerAccount.DEFERRED, amount_minor, deferral.line_id), (LedgerAccount.REVENUE, -amount_minor)]


def _settle(work: Work, account: BillingAccount, deferral: Deferral) -> None:
    now = work.clock.now_for(account)
    deferral.updated_at = now
    if deferral.rest_minor == 0:
        deferral.settled_at = now


def defer_lines(work: Work, account: BillingAccount, lines: Sequence[InvoiceLine], at: datetime) -> list[Posting]:
    """What finalising charges post of their net: deferred where the period has not ended, else revenue."""
    postings: list[Posting] = []
    for line in lines:
        if line.period_end <= at:
            postings.append((LedgerAccount.REVENUE, -line.amount_minor))
            continue
        postings.append((LedgerAccount.DEFERRED, -line.amount_minor, line.id))
        work.session.add(
            Deferral(
                created_at=at,
                account_id=account.id,
                line_id=line.id,
                currency=account.currency,
                net_minor=line.amount_minor,
                start_at=line.period_start,
                end_at=line.period_end,
            )
        )
    return postings


async def take_back(
    work: Work, account: BillingAccount, credits_minor: Sequence[tuple[UUID, int]], *, ends: bool
) -> list[Posting]:
    """What credits of lines post of their net: from deferred as far as unrecognised, else from revenue.

    `credits_minor` are (line id, amount above 0). Where a change `ends` the lines, their revenue ends at net less
    credits: the caller has recognised up to the instant before.
    """
    wanted: dict[UUID, int] = {}
    for line_id, amount_minor in credits_minor:
        wanted[line_id] = wanted.get(line_id, 0) + amount_minor
    deferrals = {
        row.line_id: row
        for row in await work.session.scalars(
            select(Deferral).where(Deferral.account_id == account.id, Deferral.line_id.in_(wanted))
        )
    }
    postings: list[Posting] = []
    for line_id, amount_minor in wanted.items():
        deferral = deferrals.get(line_id)
        # Below 0 it undoes a credit, whose line is long over.
        unrecognised = 0 if deferral is None else max(0, min(amount_minor, deferral.rest_minor))
        postings += [
            (LedgerAccount.DEFERRED, unrecognised, line_id),
            (LedgerAccount.REVENUE, amount_minor - unrecognised),
        ]
        if deferral is None:
            continue
        deferral.credited_minor += unrecognised
        if ends and deferral.rest_minor:
            rest = deferral.rest_minor
            deferral.recognised_minor += rest
            postings += _earn(deferral, rest)
        _settle(work, account, deferral)
    return postings


def post_finalised(
    work: Work, account: BillingAccount, invoice: Invoice, net_postings: Iterable[Posting], tax_minor: int
) -> None:
    """An invoice: receivables against deferred, revenue and tax."""
    post(
        work,
        account,
        EntryKind.FINALISE,
        f"invoice:{invoice.id}",
        [
            (LedgerAccount.RECEIVABLES, invoice.total_minor),
            *net_postings,
            (LedgerAccount.TAX, -tax_minor),
        ],
    )


def post_credit_note(work: Work, account: BillingAccount, note: CreditNote, net_postings: Iterable[Posting]) -> None:
    """A credit note: deferred, revenue and tax against receivables as far as the invoice was open, refunds, balance."""
    to_balance = note.total_minor - note.to_invoice_minor - note.to_refund_minor
    post(
        work,
        account,
        EntryKind.CREDIT_NOTE,
        f"credit_note:{note.id}",
        [
            *net_postings,
            (LedgerAccount.TAX, note.tax_minor),
            (LedgerAccount.RECEIVABLES, -note.to_invoice_minor),
            (LedgerAccount.REFUNDS_PAYABLE, -note.to_refund_minor),
            (LedgerAccount.CUSTOMER_CREDIT, -to_balance),
        ],
    )


def post_balance_applied(work: Work, account: BillingAccount, invoice: Invoice, amount_minor: int) -> None:
    """Balance that pays an invoice."""
    post(
        work,
        account,
        EntryKind.BALANCE_APPLIED,
        f"invoice:{invoice.id}",
        [(LedgerAccount.CUSTOMER_CREDIT, amount_minor), (LedgerAccount.RECEIVABLES, -amount_minor)],
    )


def post_balance_returned(work: Work, account: BillingAccount, subject: str, amount_minor: int) -> None:
    """What was paid of an invoice that is withdrawn, back to the balance."""
    post(
        work,
        account,
        EntryKind.BALANCE_RETURNED,
        subject,
        [(LedgerAccount.RECEIVABLES, amount_minor), (LedgerAccount.CUSTOMER_CREDIT, -amount_minor)],
    )


def post_payment(
    work: Work, account: BillingAccount, transaction: Transaction, paid_minor: int, *, is_written_off: bool = False
) -> None:
    """Money that came in for an invoice, or for one that was given up."""
    against = LedgerAccount.BAD_DEBT if is_written_off else LedgerAccount.RECEIVABLES
    post(
        work,
        account,
        EntryKind.PAYMENT,
        f"transaction:{transaction.id}",
        [(LedgerAccount.CASH, paid_minor), (against, -paid_minor)],
    )


def post_overpayment(work: Work, account: BillingAccount, transaction: Transaction, beyond_minor: int) -> None:
    """Money that came in beyond what is due: it has to go back."""
    post(
        work,
        account,
        EntryKind.PAYMENT,
        f"transaction:{transaction.id}",
        [
            (LedgerAccount.CASH, beyond_minor),
            (LedgerAccount.REFUNDS_PAYABLE, -beyond_minor),
        ],
    )


def post_write_off(work: Work, account: BillingAccount, subject: str, amount_minor: int) -> None:
    """What is given up of an invoice."""
    post(
        work,
        account,
        EntryKind.WRITE_OFF,
        subject,
        [(LedgerAccount.BAD_DEBT, amount_minor), (LedgerAccount.RECEIVABLES, -amount_minor)],
    )


def post_granted_credit(work: Work, account: BillingAccount, transaction: Transaction) -> None:
    """Credit that an operator gives."""
    post(
        work,
        account,
        EntryKind.GRANT_CREDIT,
        f"transaction:{transaction.id}",
        [
            (LedgerAccount.GOODWILL, transaction.amount_minor),
            (LedgerAccount.CUSTOMER_CREDIT, -transaction.amount_minor),
        ],
    )


def post_refund(work: Work, account: BillingAccount, transaction: Transaction, amount_minor: int) -> None:
    """Money that went back; below 0 where it came back to us, because the bank could not take it."""
    post(
        work,
        account,
        EntryKind.REFUND,
        f"transaction:{transaction.id}",
        [(LedgerAccount.REFUNDS_PAYABLE, amount_minor), (LedgerAccount.CASH, -amount_minor)],
    )


def post_owed_granted(work: Work, account: BillingAccount, request: RefundRequest, amount_minor: int) -> None:
    """What was owed back, given as credit instead."""
    post(
        work,
        account,
        EntryKind.GRANT_OWED,
        f"refund_request:{request.id}",
        [(LedgerAccount.REFUNDS_PAYABLE, amount_minor), (LedgerAccount.CUSTOMER_CREDIT, -amount_minor)],
    )


def post_loss_owed(work: Work, account: BillingAccount, dispute: Transaction, amount_minor: int) -> None:
    """What of a lost dispute was owed back anyway: it is no loss, and owed no longer."""
    post(
        work,
        account,
        EntryKind.DISPUTE_LOST,
        f"transaction:{dispute.id}",
        [(LedgerAccount.REFUNDS_PAYABLE, amount_minor), (LedgerAccount.DISPUTE_LOSSES, -amount_minor)],
    )


def post_dispute_lost(work: Work, account: BillingAccount, transaction: Transaction) -> None:
    """What a bank took back for good."""
    post(
        work,
        account,
        EntryKind.DISPUTE_LOST,
        f"transaction:{transaction.id}",
        [
            (LedgerAccount.DISPUTE_LOSSES, transaction.amount_minor),
            (LedgerAccount.CASH, -transaction.amount_minor),
        ],
    )
