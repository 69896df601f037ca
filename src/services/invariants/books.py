"""I1 and I2: the books balance, nothing in them changes, and what is kept beside them equals them."""

from typing import Any

from sqlalchemy import and_, case, func, or_, select, text
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import Subquery

from ...database import ReadSession
from ...models import (
    BillingAccount,
    CreditNote,
    Deferral,
    EntryKind,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
    RefundRequest,
    Subscription,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from ..rules.periods import Period
from ..rules.recognition import recognised_until
from .reading import (
    Findings,
    credits_of_lines,
    dialect_of,
    is_finalised,
    is_kept_whole,
    or_0,
    show_money,
    since_purge,
    stream,
    sum_of,
)

FROZEN_TABLES = (
    "audit_entry",
    "ledger_posting",
    "ledger_entry",
    "invoice_line",
    "invoice_tax",
    "credit_note",
    "credit_note_line",
    "credit_note_tax",
    "document_bytes",
)
"""Whose rows never change; a trigger each on update and delete sees to it."""


async def check_entries(session: ReadSession, found: Findings) -> None:
    """Each entry sums to 0, and its postings are of its account and currency."""
    entry, posting = LedgerEntry, LedgerPosting
    moved = sum_of(posting.amount_minor)
    unbalanced = (
        select(entry.account_id, entry.kind, entry.subject, entry.currency, moved, func.count(posting.id))
        .outerjoin(posting, posting.entry_id == entry.id)
        .group_by(entry.id, entry.account_id, entry.kind, entry.subject, entry.currency)
        .having(or_(moved != 0, func.count(posting.id) == 0))
        .order_by(entry.id)
    )
    async for account_id, kind, subject, currency, amount, count in stream(session, unbalanced):
        what = f"postings sum to {show_money(amount, currency)}, not to 0" if count else "has no postings"
        found.add("I1", account_id, f"The entry {kind} of {subject} {what}.")
    strays = (
        select(posting.account_id, posting.id, posting.currency, entry.account_id, entry.currency, BillingAccount)
        .outerjoin(entry, entry.id == posting.entry_id)
        .outerjoin(BillingAccount, BillingAccount.id == posting.account_id)
        .where(
            or_(
                entry.id.is_(None),
                BillingAccount.id.is_(None),
                entry.account_id != posting.account_id,
                entry.currency != posting.currency,
                BillingAccount.currency != posting.currency,
            )
        )
        .order_by(posting.id)
    )
    async for account_id, posting_id, currency, of_account, of_currency, account in stream(session, strays):
        if of_account is None:
            what = "belongs to no entry"
        elif of_account != account_id or account is None:
            what = f"stands under another account than its entry ({of_account})"
        else:
            what = f"is in {currency}, its entry in {of_currency}, and the account pays in {account.currency}"
        found.add("I1", account_id, f"The posting {posting_id} {what}.")
    sums = (
        select(posting.account_id, posting.currency, moved)
        .group_by(posting.account_id, posting.currency)
        .having(moved != 0)
        .order_by(posting.account_id, posting.currency)
    )
    async for account_id, currency, amount in stream(session, sums):
        found.add("I1", account_id, f"All postings in {currency} sum to {show_money(amount, currency)}, not to 0.")


async def check_triggers(session: ReadSession, found: Findings) -> None:
    """What keeps rows from being changed is there, switched on, and refuses whatever comes."""
    if dialect_of(session) == "postgresql":
        statement = text(
            "SELECT trigger.tgname, pg_get_triggerdef(trigger.oid) || ' ' || routine.prosrc FROM pg_trigger AS trigger "
            "JOIN pg_class AS relation ON relation.oid = trigger.tgrelid "
            "JOIN pg_proc AS routine ON routine.oid = trigger.tgfoid "
            "WHERE NOT trigger.tgisinternal AND trigger.tgenabled IN ('O', 'A') "
            "AND pg_table_is_visible(relation.oid)"
        )
    else:
        statement = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    triggers = {str(name): str(definition) for name, definition in await session.execute(statement)}
    for table in FROZEN_TABLES:
        for event in ("update", "delete"):
            definition = triggers.get(f"{table}_no_{event}")
            if definition is None:
                found.add("I1", None, f"Nothing keeps rows of {table} from the {event}: its trigger is missing or off.")
            elif not _bites(definition, table, event):
                found.add("I1", None, f"The trigger {table}_no_{event} does not refuse every {event} it should.")


def _bites(definition: str, table: str, event: str) -> bool:
    head, _, body = definition.partition(f"BEFORE {event.upper()} ON ")
    refuses = "RAISE(ABORT" in body or "RAISE EXCEPTION" in body
    is_conditional = "WHEN" in body and "purge_pass" not in body
    return bool(head) and body.removeprefix("public.").startswith(f"{table} ") and refuses and not is_conditional


def _due() -> ColumnElement[int]:
    return (
        Invoice.total_minor
        + Invoice.carried_in_minor
        - Invoice.balance_applied_minor
        - Invoice.paid_minor
        - Invoice.credited_minor
        - Invoice.carried_out_minor
    )


def _posted() -> Subquery:
    """What stands on the accounts of the books; of tax without what was brought forward, whose documents are gone."""

    def on(ledger_account: LedgerAccount, *more: ColumnElement[bool]) -> ColumnElement[int]:
        is_on = and_(LedgerPosting.ledger_account == ledger_account, *more)
        return sum_of(case((is_on, LedgerPosting.amount_minor), else_=0))

    return (
        select(
            LedgerPosting.account_id,
            on(LedgerAccount.CUSTOMER_CREDIT).label("credit"),
            on(LedgerAccount.RECEIVABLES).label("receivables"),
            on(LedgerAccount.DEFERRED).label("deferred"),
            on(LedgerAccount.CASH).label("cash"),
            on(LedgerAccount.REFUNDS_PAYABLE).label("owed"),
            on(LedgerAccount.BAD_DEBT).label("bad_debt"),
            on(LedgerAccount.DISPUTE_LOSSES).label("lost"),
            on(LedgerAccount.GOODWILL).label("goodwill"),
            on(LedgerAccount.TAX, LedgerEntry.kind != EntryKind.BROUGHT_FORWARD).label("tax"),
        )
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .group_by(LedgerPosting.account_id)
        .subquery()
    )


RECEIVED = (TransactionKind.CHARGE, TransactionKind.MANUAL)


def _moved() -> Subquery:
    """What the transactions that succeeded moved: in cash, of what is owed back, and as losses."""

    def sum_over(*kinds: TransactionKind, column: Any = Transaction.amount_minor) -> ColumnElement[int]:
        return sum_of(case((Transaction.kind.in_(kinds), column), else_=0))

    refunded = sum_over(TransactionKind.REFUND)
    # What a lost dispute took of what was owed back anyway is no loss.
    owed_anyway = sum_over(TransactionKind.DISPUTE, column=Transaction.excess_minor)
    return (
        select(
            Transaction.account_id,
            (sum_over(*RECEIVED) - refunded - sum_over(TransactionKind.DISPUTE)).label("cash"),
            (sum_over(*RECEIVED, column=Transaction.excess_minor) - refunded - owed_anyway).label("owed"),
            sum_over(TransactionKind.WRITE_OFF).label("given_up"),
            (sum_over(TransactionKind.DISPUTE) - owed_anyway).label("lost"),
            sum_of(
                case(
                    # What was given for a refund was owed before, or stands on a credit note.
                    (
                        and_(Transaction.kind == TransactionKind.CREDIT, Transaction.refund_request_id.is_(None)),
                        Transaction.amount_minor,
                    ),
                    else_=0,
                )
            ).label("goodwill"),
        )
        .where(Transaction.status == TransactionStatus.SUCCEEDED)
        .group_by(Transaction.account_id)
        .subquery()
    )


def _of_account(column: Any, *where: ColumnElement[bool]) -> Subquery:
    table = column.class_ if hasattr(column, "class_") else Invoice
    return select(table.account_id, sum_of(column).label("amount")).where(*where).group_by(table.account_id).subquery()


async def check_balances(session: ReadSession, found: Findings) -> None:
    """Credit balances, receivables, what is deferred, tax, cash, what is owed back and lost, each against the books."""
    posted, forward = _posted(), since_purge()
    due = _of_account(_due(), Invoice.status == InvoiceStatus.OPEN)
    carried = _of_account(
        Transaction.amount_minor,
        Transaction.kind == TransactionKind.CARRIED_FORWARD,
        Transaction.carried_to_invoice_id.is_(None),
    )
    rest = (
        select(
            Deferral.account_id,
            sum_of(Deferral.net_minor - Deferral.recognised_minor - Deferral.credited_minor).label("amount"),
        )
        .group_by(Deferral.account_id)
        .subquery()
    )

    def taxed(document: type[Invoice] | type[CreditNote], *where: ColumnElement[bool]) -> Subquery:
        return (
            select(document.account_id, sum_of(document.tax_minor).label("amount"))
            .outerjoin(forward, forward.c.account_id == document.account_id)
            .where(or_(forward.c.since.is_(None), document.issued_at >= forward.c.since), *where)
            .group_by(document.account_id)
            .subquery()
        )

    demanded, taken_back = taxed(Invoice, is_finalised()), taxed(CreditNote)
    moved = _moved()
    to_refund, granted = _of_account(CreditNote.to_refund_minor), _of_account(RefundRequest.granted_minor)
    # What came of invoices after they were given up.
    recovered = _of_account(Invoice.written_off_minor - _due(), Invoice.written_off_minor > 0)
    pairs = {
        "credit balance": (BillingAccount.credit_minor, -or_0(posted.c.credit)),
        "due of open invoices and amounts carried forward": (
            or_0(due.c.amount) + or_0(carried.c.amount),
            or_0(posted.c.receivables),
        ),
        "rest of what is deferred": (or_0(rest.c.amount), -or_0(posted.c.deferred)),
        "tax of invoices less that of credit notes": (
            or_0(demanded.c.amount) - or_0(taken_back.c.amount),
            -or_0(posted.c.tax),
        ),
    }
    # What moved in purged years cannot be counted any more.
    flows = {
        "money received less what went back": (or_0(moved.c.cash), or_0(posted.c.cash)),
        "money owed back": (
            or_0(moved.c.owed) + or_0(to_refund.c.amount) - or_0(granted.c.amount),
            -or_0(posted.c.owed),
        ),
        "bad debts less what came all the same": (
            or_0(moved.c.given_up) - or_0(recovered.c.amount),
            or_0(posted.c.bad_debt),
        ),
        "disputes lost": (or_0(moved.c.lost), or_0(posted.c.lost)),
        "credit granted": (or_0(moved.c.goodwill), or_0(posted.c.goodwill)),
    }
    both = pairs | flows
    columns = [column for pair in both.values() for column in pair]
    statement = select(BillingAccount.id, BillingAccount.currency, forward.c.since, *columns)
    for part in (forward, posted, due, carried, rest, demanded, taken_back, moved, to_refund, granted, recovered):
        statement = statement.outerjoin(part, part.c.account_id == BillingAccount.id)
    differ = or_(
        *(kept != booked for kept, booked in pairs.values()),
        and_(forward.c.since.is_(None), or_(*(kept != booked for kept, booked in flows.values()))),
    )
    async for row in stream(session, statement.where(differ).order_by(BillingAccount.id)):
        account_id, currency, since, *figures = row
        for name, kept, booked in zip(both, figures[::2], figures[1::2], strict=True):
            if kept != booked and (since is None or name in pairs):
                found.add(
                    "I2",
                    account_id,
                    f"The {name}: {show_money(kept, currency)}, and {show_money(booked, currency)} by the books.",
                )


async def check_deferrals(session: ReadSession, found: Findings) -> None:
    """Each deferral is its line's, and as much of it is revenue as its time has earned."""
    credited, forward = credits_of_lines(InvoiceStatus.DRAFT), since_purge()
    booked = (
        select(LedgerPosting.line_id, sum_of(-LedgerPosting.amount_minor).label("amount"))
        .where(LedgerPosting.line_id.is_not(None))
        .group_by(LedgerPosting.line_id)
        .subquery()
    )
    statement = (
        select(
            Deferral,
            InvoiceLine,
            Invoice,
            Subscription,
            or_0(credited.c.amount),
            forward.c.since,
            or_0(booked.c.amount),
        )
        .join(InvoiceLine, InvoiceLine.id == Deferral.line_id)
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .outerjoin(Subscription, Subscription.account_id == Deferral.account_id)
        .outerjoin(credited, credited.c.line_id == Deferral.line_id)
        .outerjoin(forward, forward.c.account_id == Deferral.account_id)
        .outerjoin(booked, booked.c.line_id == Deferral.line_id)
        .order_by(Deferral.id)
    )
    async for deferral, line, invoice, subscription, credited_minor, since, booked_minor in stream(session, statement):
        # Of an invoice that a purge left, the credit notes may be gone.
        credits_known = credited_minor if is_kept_whole(invoice, since) else deferral.net_minor
        wrong = _judge_deferral(deferral, line, subscription, credits_known)
        if wrong is None and deferral.rest_minor != booked_minor:
            rest, booked_rest = (show_money(minor, deferral.currency) for minor in (deferral.rest_minor, booked_minor))
            wrong = f"{rest} is left, and {booked_rest} by the books"
        if wrong is not None:
            of = f"“{line.description}” of {invoice.number}"
            found.add("I2", deferral.account_id, f"What is deferred of {of}: {wrong}.")
    missing = (
        select(Invoice.account_id, Invoice.number, InvoiceLine.description, InvoiceLine.amount_minor, Invoice.currency)
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .outerjoin(Deferral, Deferral.line_id == InvoiceLine.id)
        .where(
            is_finalised(),
            InvoiceLine.amount_minor > 0,
            InvoiceLine.period_end > Invoice.issued_at,
            Deferral.id.is_(None),
        )
        .order_by(InvoiceLine.id)
    )
    async for account_id, number, description, amount, currency in stream(session, missing):
        found.add(
            "I2",
            account_id,
            f"“{description}” of {number}, {show_money(amount, currency)}, was to be deferred and is not.",
        )


def _judge_deferral(
    deferral: Deferral, line: InvoiceLine, subscription: Subscription | None, credited_minor: int
) -> str | None:
    def show(amount_minor: int) -> str:
        return show_money(amount_minor, deferral.currency)

    net, recognised, credited = deferral.net_minor, deferral.recognised_minor, deferral.credited_minor
    if (net, deferral.start_at, deferral.end_at) != (line.amount_minor, line.period_start, line.period_end):
        return f"it says {show(net)}, {deferral.start_at} to {deferral.end_at}, and the line says otherwise"
    if min(recognised, credited, deferral.rest_minor) < 0:
        return f"{show(recognised)} recognised and {show(credited)} credited of {show(net)}"
    if credited > credited_minor:
        return f"{show(credited)} counts as credited, and the line's credits come to {show(credited_minor)}"
    if (deferral.settled_at is not None) != (deferral.rest_minor == 0):
        state = "open" if deferral.settled_at is None else "settled"
        return f"it is {state}, with {show(deferral.rest_minor)} left"
    if deferral.settled_at is not None or deferral.start_at >= deferral.end_at:
        return None
    period = Period(deferral.start_at, deferral.end_at)
    # Recognised at each close and change: at least up to the running period, at most up to when it was last done.
    at_most = recognised_until(net, period, deferral.updated_at, credited_minor=credited)
    if recognised > at_most:
        return f"{show(recognised)} is recognised, and {show(at_most)} was earned by {deferral.updated_at}"
    if subscription is None:
        return None
    since = subscription.canceled_at or subscription.usage_period_start
    if deferral.created_at > since:
        return None
    until = deferral.end_at if subscription.canceled_at else since
    at_least = recognised_until(net, period, until, credited_minor=credited)
    if recognised < at_least:
        return f"{show(recognised)} is recognised, and {show(at_least)} was earned by {since}"
    return None
