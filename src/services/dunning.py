"""Dunning: the days that follow unpaid invoices. One schedule per account, begun by the oldest, moved by nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import ReadSession, Work
from ..models import (
    BillingAccount,
    CollectionMethod,
    DueWork,
    Dunning,
    FailureCode,
    Invoice,
    InvoiceStatus,
    NoticeSeverity,
    PaymentMethod,
    PlanVersion,
    Subscription,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from .due_work import enqueue, withdraw
from .notices import clear_notice, raise_notice
from .texts import days_until

SHOWN_INVOICES = 5
DUE = (
    Invoice.total_minor
    + Invoice.carried_in_minor
    - Invoice.balance_applied_minor
    - Invoice.paid_minor
    - Invoice.credited_minor
    - Invoice.carried_out_minor
)
"""What is due of an open invoice, as SQL: `Invoice.due_minor` says the same of a row."""
DUTIES = (WorkKind.TRY_PAYMENT, WorkKind.SUSPEND, WorkKind.GIVE_UP)


@dataclass(frozen=True)
class Days:
    """On which days after the first failure something happens; a day is 24 hours."""

    retry: tuple[int, ...] = (3, 5, 7)
    suspend: int = 7
    cancel: int = 14

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The days of a plan version; the default for what it leaves out."""
        default = cls()
        return cls(
            retry=tuple(stored.get("retryDays", default.retry)),
            suspend=stored.get("suspendDay", default.suspend),
            cancel=stored.get("cancelDay", default.cancel),
        )


async def find_running(work: Work, account: BillingAccount) -> Dunning | None:
    """The schedule that runs for a locked account; none while nothing is overdue."""
    found: Dunning | None = await work.session.scalar(
        select(Dunning).where(Dunning.account_id == account.id, Dunning.ended_at.is_(None))
    )
    return found


async def begin(work: Work, account: BillingAccount, invoice: Invoice, subscription: Subscription | None) -> Dunning:
    """Begin the schedule with an invoice that could not be collected, by this day's plan. One that runs goes on."""
    running = await find_running(work, account)
    if running is not None:
        return running
    version = None if subscription is None else await work.session.get(PlanVersion, subscription.plan_version_id)
    days = Days.of({} if version is None else version.dunning)
    now = work.clock.now_for(account)
    dunning = Dunning(
        created_at=now,
        account_id=account.id,
        invoice_id=invoice.id,
        started_at=now,
        retry_days=list(days.retry),
        suspend_day=days.suspend,
        cancel_day=days.cancel,
    )
    work.session.add(dunning)
    await work.session.flush()
    for day in sorted({*days.retry, days.cancel}):
        await enqueue(work, account, WorkKind.TRY_PAYMENT, step_of(dunning, day), dunning.at(day))
    await enqueue(work, account, WorkKind.SUSPEND, str(dunning.id), dunning.at(days.suspend))
    await enqueue(work, account, WorkKind.GIVE_UP, str(dunning.id), dunning.at(days.cancel))
    return dunning


async def end(work: Work, account: BillingAccount, dunning: Dunning) -> None:
    """The schedule is over: nothing of it happens any more."""
    dunning.ended_at = dunning.updated_at = work.clock.now_for(account)
    for day in sorted({*dunning.retry_days, dunning.cancel_day}):
        await withdraw(work, account, WorkKind.TRY_PAYMENT, step_of(dunning, day))
    for kind in (WorkKind.SUSPEND, WorkKind.GIVE_UP):
        await withdraw(work, account, kind, str(dunning.id))
    await clear_notice(work, account, "PAYMENT_FAILED", str(dunning.id))
    await work.session.flush()


def step_of(dunning: Dunning, day: int) -> str:
    """What a scheduled try is known by."""
    return f"dunning:{dunning.id}:{day}"


def read_step(step: str) -> tuple[UUID, int] | None:
    """The schedule and the day of a scheduled try; none for one that somebody asked for."""
    what, _, rest = step.partition(":")
    if what != "dunning":
        return None
    dunning_id, _, day = rest.partition(":")
    return UUID(dunning_id), int(day)


async def tell(work: Work, account: BillingAccount, dunning: Dunning, subscription: Subscription | None) -> None:
    """Say what is due, and what happens when it stays so. Told again on each day that something happens."""
    await work.session.flush()
    now = work.clock.now_for(account)
    summed = await _sum_up(work, account, Invoice.status == InvoiceStatus.OPEN, Invoice.payment_failed_at.is_not(None))
    status = subscription.status if subscription else None
    is_suspended = status is SubscriptionStatus.SUSPENDED
    await raise_notice(
        work,
        account,
        "PAYMENT_FAILED",
        str(dunning.id),
        severity=NoticeSeverity.BLOCKING if is_suspended else NoticeSeverity.CRITICAL,
        params={
            **summed,
            "status": status,
            "suspendsAt": dunning.at(dunning.suspend_day),
            "cancelsAt": dunning.at(dunning.cancel_day),
            "daysLeft": days_until(
                dunning.at(dunning.cancel_day if is_suspended else dunning.suspend_day), now, account.timezone
            ),
            "toConfirm": await _waits_for_cardholder(work, account),
            "needsMethod": not summed["isSent"] and not await list_chargeable(work.session, [account.id]),
        },
    )


async def _waits_for_cardholder(work: Work, account: BillingAccount) -> bool:
    """Whether a charge of an overdue invoice can still be confirmed."""
    waiting = await work.session.scalar(
        select(Transaction.id)
        .join(Invoice, Invoice.id == Transaction.invoice_id)
        .where(
            Invoice.account_id == account.id,
            Invoice.status == InvoiceStatus.OPEN,
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.status == TransactionStatus.REQUIRES_ACTION,
        )
        .limit(1)
    )
    return waiting is not None


async def tell_given_up(work: Work, account: BillingAccount, subscription: Subscription | None) -> None:
    """Say what was given up and is still owed: it stands between a canceled account and its return."""
    await work.session.flush()
    summed = await _sum_up(work, account, Invoice.status == InvoiceStatus.UNCOLLECTIBLE)
    if not summed["count"]:
        await clear_notice(work, account, "PAYMENT_OWED")
        return
    await raise_notice(
        work,
        account,
        "PAYMENT_OWED",
        severity=NoticeSeverity.BLOCKING,
        params={
            **summed,
            "canReturn": account.closed_at is None
            and subscription is not None
            and subscription.status is SubscriptionStatus.CANCELED,
        },
    )


async def _sum_up(work: Work, account: BillingAccount, *which: ColumnElement[bool]) -> dict[str, Any]:
    """What is due of some of an account's invoices, as banners tell it: the oldest by number, the rest counted."""
    of = (Invoice.account_id == account.id, *which)
    numbers = await work.session.scalars(
        select(Invoice.number).where(*of).order_by(Invoice.issued_at, Invoice.id).limit(SHOWN_INVOICES)
    )
    [(count, due_minor)] = await work.session.execute(
        select(func.count(), func.coalesce(func.sum(DUE), 0)).select_from(Invoice).where(*of)
    )
    return {
        "invoices": list(numbers),
        "count": count,
        "amountMinor": int(due_minor),
        "currency": account.currency,
        "isSent": account.collection_method is CollectionMethod.SEND_INVOICE,
    }


async def list_chargeable(session: AsyncSession | ReadSession, account_ids: Sequence[UUID]) -> set[UUID]:
    """The accounts with a method that a scheduled try charges.

    One whose card, as it is, was stolen or closed when it was charged last has none: the bank will never take it.
    """
    last_failure = (
        select(Transaction.failure_code)
        .where(
            Transaction.payment_method_id == PaymentMethod.id,
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.status.in_((TransactionStatus.SUCCEEDED, TransactionStatus.FAILED)),
            Transaction.created_at >= PaymentMethod.updated_at,
        )
        .order_by(Transaction.created_at.desc(), Transaction.id.desc())
        .limit(1)
        .correlate(PaymentMethod)
        .scalar_subquery()
    )
    rows = await session.scalars(
        select(PaymentMethod.account_id).where(
            PaymentMethod.account_id.in_(account_ids),
            PaymentMethod.is_default.is_(True),
            PaymentMethod.removed_at.is_(None),
            func.coalesce(last_failure, "") != FailureCode.STOLEN_OR_CLOSED,
        )
    )
    return set(rows)


@dataclass(frozen=True)
class DunningState:
    """How an account's dunning stands."""

    dunning: Dunning
    is_suspended: bool
    next_attempt_at: datetime | None
    """None also where no method is left to be tried."""
    attempts: int
    due_minor: int
    currency: str


async def load_states(session: ReadSession, account_ids: Sequence[UUID]) -> list[DunningState | None]:
    """How the dunning of each account stands, in their order; none where nothing is overdue."""
    running = {
        row.account_id: row
        for row in await session.scalars(
            select(Dunning).where(Dunning.account_id.in_(account_ids), Dunning.ended_at.is_(None))
        )
    }
    if not running:
        return [None] * len(account_ids)
    upcoming = await session.execute(
        select(DueWork.account_id, func.min(DueWork.due_at))
        .where(
            DueWork.account_id.in_(running),
            DueWork.kind == WorkKind.TRY_PAYMENT,
            DueWork.subject.startswith("dunning:"),
            DueWork.done_at.is_(None),
        )
        .group_by(DueWork.account_id)
    )
    next_at = {account_id: due_at for account_id, due_at in upcoming if account_id is not None}
    tries = await session.execute(
        select(Transaction.account_id, func.count())
        .join(Dunning, Dunning.account_id == Transaction.account_id)
        .where(
            Dunning.id.in_([row.id for row in running.values()]),
            Transaction.kind == TransactionKind.CHARGE,
            Transaction.invoice_id.is_not(None),
            Transaction.updated_at >= Dunning.started_at,
        )
        .group_by(Transaction.account_id)
    )
    attempts = {account_id: int(count) for account_id, count in tries}
    owed = await session.execute(
        select(Invoice.account_id, func.sum(DUE))
        .where(Invoice.account_id.in_(running), Invoice.status == InvoiceStatus.OPEN)
        .group_by(Invoice.account_id)
    )
    due = {account_id: int(due_minor) for account_id, due_minor in owed}
    about = await session.execute(
        select(BillingAccount.id, BillingAccount.currency, BillingAccount.collection_method, Subscription.status)
        .outerjoin(Subscription, Subscription.account_id == BillingAccount.id)
        .where(BillingAccount.id.in_(running))
    )
    chargeable = await list_chargeable(session, list(running))
    found = {
        account_id: DunningState(
            dunning=running[account_id],
            is_suspended=status is SubscriptionStatus.SUSPENDED,
            next_attempt_at=next_at.get(account_id)
            if account_id in chargeable or method is CollectionMethod.SEND_INVOICE
            else None,
            attempts=attempts.get(account_id, 0),
            due_minor=due.get(account_id, 0),
            currency=currency,
        )
        for account_id, currency, method, status in about
    }
    return [found.get(account_id) for account_id in account_ids]
