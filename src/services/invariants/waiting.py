"""I14: nothing waits for longer than it may."""

from datetime import datetime, timedelta

from sqlalchemy import String, and_, cast, func, or_, select
from sqlalchemy.orm import aliased

from ...database import ReadSession
from ...models import (
    BillingAccount,
    DueWork,
    IdempotencyKey,
    TestClock,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from ..due_work import APART
from .reading import Findings, key_of_id, key_of_text, show_money, stream

UNKNOWN_FOR = timedelta(hours=24)
"""By then it is known what became of a charge or a refund."""
UNCONFIRMED_FOR = timedelta(hours=1)
"""So long after its time a charge may still wait to be given up."""
UNANSWERED_FOR = timedelta(hours=1)
OVERDUE_FOR = timedelta(days=1)


async def check_waiting(session: ReadSession, found: Findings, now: datetime) -> None:
    """Charges, refunds, keys and due work, each by its clock: the account's own, or the wall clock's `now`."""
    await _check_transactions(session, found, now)
    await _check_actions(session, found, now)
    unanswered = (
        select(IdempotencyKey)
        .where(
            # What is none in JSON is a text in the database.
            or_(IdempotencyKey.answer.is_(None), cast(IdempotencyKey.answer, String) == "null"),
            IdempotencyKey.created_at < now - UNANSWERED_FOR,
        )
        .order_by(IdempotencyKey.created_at)
    )
    async for (key,) in stream(session, unanswered):
        found.add(
            "I14",
            None,
            f"{key.mutation} of {key.principal} under the key {key.key!r} has had no answer since {key.created_at}.",
        )
    await _check_work(session, found, now)


async def _check_transactions(session: ReadSession, found: Findings, now: datetime) -> None:
    """A bank may take its days for a refund; whether one was made at all is known soon."""
    is_open = or_(
        and_(
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.status.in_((TransactionStatus.PENDING, TransactionStatus.UNKNOWN)),
        ),
        and_(Transaction.kind == TransactionKind.REFUND, Transaction.status == TransactionStatus.UNKNOWN),
    )
    statement = (
        select(Transaction, TestClock.now)
        .join(BillingAccount, BillingAccount.id == Transaction.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(is_open)
        .order_by(Transaction.id)
    )
    async for row, at in stream(session, statement):
        if row.created_at < (at or now) - UNKNOWN_FOR:
            amount = show_money(row.amount_minor, row.currency)
            found.add(
                "I14",
                row.account_id,
                f"The {row.kind.lower()} {row.id} of {amount} is {row.status.lower()} since {row.created_at}.",
            )


async def _check_actions(session: ReadSession, found: Findings, now: datetime) -> None:
    """What nobody confirmed in time is given up by work that waits for it."""
    subject = key_of_text(session, DueWork.subject)
    ends = (
        select(DueWork.id)
        .where(
            DueWork.account_id == Transaction.account_id,
            DueWork.done_at.is_(None),
            or_(
                and_(DueWork.kind == WorkKind.EXPIRE_ACTION, subject == key_of_id(session, Transaction.id)),
                and_(
                    DueWork.kind == WorkKind.EXPIRE_PENDING,
                    subject == key_of_id(session, Transaction.pending_change_id),
                ),
            ),
        )
        .correlate(Transaction)
        .exists()
    )
    statement = (
        select(Transaction, TestClock.now)
        .join(BillingAccount, BillingAccount.id == Transaction.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(Transaction.status == TransactionStatus.REQUIRES_ACTION, ~ends)
        .order_by(Transaction.id)
    )
    async for row, at in stream(session, statement):
        until = row.expires_at or row.created_at
        if until < (at or now) - UNCONFIRMED_FOR:
            found.add(
                "I14",
                row.account_id,
                f"The {row.kind.lower()} {row.id} could be confirmed until {until}, and nothing gives it up.",
            )


async def _check_work(session: ReadSession, found: Findings, now: datetime) -> None:
    """What is due on the wall clock is done within a day, unless its account waits for an operator."""
    parked = aliased(DueWork)
    is_held_up = (
        select(parked.id)
        .where(
            parked.account_id == DueWork.account_id,
            parked.parked_at.is_not(None),
            parked.done_at.is_(None),
            parked.kind.not_in(APART),
        )
        .exists()
    )
    statement = (
        select(DueWork.account_id, DueWork.kind, func.count(), func.min(DueWork.due_at, type_=DueWork.due_at.type))
        .join(BillingAccount, BillingAccount.id == DueWork.account_id)
        .where(
            BillingAccount.test_clock_id.is_(None),
            DueWork.done_at.is_(None),
            DueWork.parked_at.is_(None),
            DueWork.kind.not_in(APART),
            DueWork.due_at < now - OVERDUE_FOR,
            ~is_held_up,
        )
        .group_by(DueWork.account_id, DueWork.kind)
        .order_by(DueWork.account_id, DueWork.kind)
    )
    async for account_id, kind, count, due_at in stream(session, statement):
        more = f" and {count - 1} more" if count > 1 else ""
        found.add("I14", account_id, f"{kind}{more} was due at {due_at}, and is not done.")
