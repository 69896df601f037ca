"""What is comparable of two databases that came to the same end by other ways: all but ids and instants."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from plafond.database import Database
from plafond.models import (
    BillingAccount,
    CreditNote,
    DueWork,
    Invoice,
    LedgerPosting,
    Notice,
    PaymentMethod,
    PendingChange,
    RefundRequest,
    Subscription,
    Transaction,
    WorkKind,
)

State = dict[str, list[tuple[Any, ...]]]


async def state_of(database: Database) -> State:
    """The money, the documents, the books, the notices and what is still to be done, by account."""
    async with database.read() as session:
        names = {row.id: row.external_id for row in await session.scalars(select(BillingAccount))}
        found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)

        def note(account_id: UUID, *facts: Any) -> None:
            found[names[account_id]].append(facts)

        for account in await session.scalars(select(BillingAccount)):
            note(account.id, "account", account.credit_minor, account.closed_at is None)
        for move in await session.scalars(select(Transaction)):
            facts = (move.kind, move.status, move.amount_minor, move.excess_minor, move.refund_state, move.failure_code)
            note(move.account_id, "transaction", *facts, move.invoice_id is not None)
        for invoice in await session.scalars(select(Invoice)):
            amounts = (invoice.total_minor, invoice.paid_minor, invoice.credited_minor, invoice.written_off_minor)
            note(invoice.account_id, "invoice", invoice.number, invoice.kind, invoice.status, *amounts)
        for credit_note in await session.scalars(select(CreditNote)):
            note(credit_note.account_id, "credit note", credit_note.number, credit_note.total_minor)
        for request in await session.scalars(select(RefundRequest)):
            note(request.account_id, "request", request.status, request.refund_minor, request.granted_minor)
        for pending in await session.scalars(select(PendingChange)):
            note(pending.account_id, "change", pending.status)
        for method in await session.scalars(select(PaymentMethod)):
            note(method.account_id, "method", method.last4, method.is_default)
        for subscription in await session.scalars(select(Subscription)):
            note(subscription.account_id, "subscription", subscription.status, subscription.price_minor)
        for notice in await session.scalars(select(Notice)):
            note(notice.account_id, "notice", notice.code, notice.severity)
        for work in await session.scalars(
            select(DueWork).where(DueWork.done_at.is_(None), DueWork.kind != WorkKind.DRAW_DOCUMENT)
        ):
            assert work.account_id is not None, "nobody asked for an export of all accounts"
            note(work.account_id, "due", work.kind)
        sums = await session.execute(
            select(
                LedgerPosting.account_id, LedgerPosting.ledger_account, func.sum(LedgerPosting.amount_minor)
            ).group_by(LedgerPosting.account_id, LedgerPosting.ledger_account)
        )
        for account_id, ledger_account, amount in sums:
            if amount:  # what was booked there and back may as well not have been
                note(account_id, "ledger", ledger_account, int(amount))
    return {name: sorted(facts, key=repr) for name, facts in found.items()}
