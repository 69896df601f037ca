"""Reservations: usage that is held for a while, so that it can be had for certain. Used and held pass no ceiling."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from ..database import Database, Work
from ..faults import reach
from ..models import (
    GAUGE_PERIOD,
    BillingAccount,
    MetricKind,
    Reservation,
    ReservationStatus,
)
from .access import Principal, Right
from .budget_periods import tell_held
from .errors import (
    AccountCanceled,
    AccountSuspended,
    BillingError,
    BudgetExceeded,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    OverageApprovalRequired,
    ReservationExpired,
)
from .ingestion import (
    Asking,
    Blocking,
    Rejected,
    canceled,
    check_budgets,
    check_moment,
    check_room,
    check_shape,
    find_metric,
    is_canceled,
    list_asking,
    list_blocking,
    workspace_of,
)
from .metering import record_usage
from .tallies import open_tallies
from .usage import (
    MAX_QUANTITY,
    RESERVED_IDS,
    EventResult,
    EventStatus,
    RejectionCode,
    UsageInput,
    tell_counter,
    tell_usage,
)

SECONDS = 300
MIN_SECONDS, MAX_SECONDS = 1, 3_600
MAX_HELD = 10_000
"""How many reservations of an account may be held at once."""
EXPIRE_BATCH = 500
UNKNOWN = "There is no such reservation, or it is not yours."


@dataclass(frozen=True, kw_only=True)
class ReservationInput:
    """What somebody wants to be sure of."""

    metric: str
    quantity: int
    account_id: UUID | None = None
    external_id: str | None = None
    seconds: int = SECONDS
    properties: dict[str, Any] = field(default_factory=dict)


class ApprovalMissing(OverageApprovalRequired):
    """Nothing was reserved, because somebody has to approve it first: `ask_for_approval` tells the account so."""

    def __init__(self, message: str, field: Sequence[str], asking: Asking) -> None:
        super().__init__(message, field)
        self.asking = asking


class BudgetSpent(BudgetExceeded):
    """Nothing was reserved, because a budget leaves no room, and did not tell so yet: `tell_of_block` does."""

    def __init__(self, message: str, field: Sequence[str], blocking: Blocking) -> None:
        super().__init__(message, field)
        self.blocking = blocking


async def reserve_usage(work: Work, principal: Principal, asked: ReservationInput) -> Reservation:
    """Hold a quantity of a metric, from now on and for so many seconds, if it may be used."""
    if not MIN_SECONDS <= asked.seconds <= MAX_SECONDS:
        raise InvalidInput(
            f"`seconds` is from {MIN_SECONDS} to {MAX_SECONDS}, not {asked.seconds}.", ["input", "seconds"]
        )
    if not 1 <= asked.quantity <= MAX_QUANTITY:
        raise InvalidInput(f"`quantity` is a whole number from 1 to {MAX_QUANTITY}.", ["input", "quantity"])
    event = UsageInput(
        event_id=f"{RESERVED_IDS}new",
        metric=asked.metric,
        account_id=asked.account_id,
        external_id=asked.external_id,
        quantity=asked.quantity,
    )
    tallies = await open_tallies(work, principal, [event])
    metrics = tallies.catalogue.metrics
    tally = tallies.find(asked.account_id, asked.external_id)
    if tally is None:
        if asked.account_id is None and asked.external_id is None:
            raise InvalidInput("Name the account by `accountId` or `externalId`.", ["input", "accountId"])
        named = "externalId" if asked.account_id is None else "accountId"
        raise NotFound("You have no account of that id: check it, and that the key is for it.", ["input", named])
    account, workspace = tally.account, workspace_of(asked.properties)
    try:
        metric = find_metric(metrics, asked.metric)
        check_shape(event.event_id, asked.properties, is_ours=True)
        period = check_moment(tally, tally.now)
        if is_canceled(tally, tally.now):
            raise canceled()
        figure = tally.figure_of(metric, None if metric.kind is MetricKind.GAUGE else period)
        check_room(figure, asked.quantity, metric)
        check_budgets(tally, metric, figure, workspace, held=asked.quantity)
    except Rejected as rejection:
        refusal = _refusal_of(rejection.code, str(rejection))
        for asking in list_asking(tally, metrics):
            refusal = ApprovalMissing(str(refusal), refusal.field, asking)
        for blocking in list_blocking(tally):
            refusal = BudgetSpent(str(refusal), refusal.field, blocking)
        raise refusal from rejection
    await _check_count(work, account, tally.now)
    row = Reservation(
        created_at=tally.now,
        account_id=account.id,
        metric_key=metric.key,
        period_start=figure.period.start if figure.period else GAUGE_PERIOD,
        quantity=asked.quantity,
        workspace=workspace,
        properties=asked.properties,
        reserved_at=tally.now,
        expires_at=tally.now + timedelta(seconds=asked.seconds),
    )
    work.session.add(row)
    _note(work, account, row, "reservation.held", quantity=row.quantity, expiresAt=row.expires_at.isoformat())
    await tell_usage(work, account, metric.key, figure.period)
    await tell_held(work, account, row.period_start)
    return row


async def commit_reservation(
    work: Work, principal: Principal, reservation_id: UUID, quantity: int | None
) -> Reservation:
    """Make what is held usage as of the time of reserving, part of it or all: the rest is given back. Twice is once."""
    account, row = await _lock(work, principal, reservation_id)
    if quantity is not None and not 1 <= quantity <= row.quantity:
        raise InvalidInput(
            f"`quantity` is from 1 to the {row.quantity} that are held; to give all back, release it.",
            ["input", "quantity"],
        )
    if row.status is ReservationStatus.COMMITTED:
        if quantity not in (None, row.committed):
            raise Conflict(f"{row.committed} of it were committed before: that stands.", ["input", "quantity"])
        return row
    if row.status is ReservationStatus.RELEASED:
        raise Conflict("It was given back: reserve anew.", FIELD)
    now = work.clock.now_for(account)
    if status_at(row, now) is ReservationStatus.EXPIRED:
        raise ReservationExpired(
            f"It was held until {row.expires_at:%Y-%m-%dT%H:%M:%SZ} and given back: reserve anew, for longer "
            f"(`seconds`, at most {MAX_SECONDS}).",
            FIELD,
        )
    row.committed = row.quantity if quantity is None else quantity
    _close(row, ReservationStatus.COMMITTED, now)
    _note(work, account, row, "reservation.committed", quantity=row.committed)
    await work.session.flush()  # what is held is read anew
    event = UsageInput(
        event_id=f"{RESERVED_IDS}{row.id}",
        metric=row.metric_key,
        account_id=account.id,
        quantity=row.committed,
        occurred_at=row.reserved_at,
        properties=row.properties,
    )
    (result,) = await record_usage(work, principal, [event], promised=1)
    if result.status is not EventStatus.ACCEPTED:
        raise _refusal(result)
    await tell_held(work, account, row.period_start)
    return row


async def release_reservation(work: Work, principal: Principal, reservation_id: UUID) -> Reservation:
    """Give back what is held. Twice is once."""
    account, row = await _lock(work, principal, reservation_id)
    if row.status is ReservationStatus.COMMITTED:
        raise Conflict("It was committed and is usage now: an operator's correction takes that back.", FIELD)
    if row.status is ReservationStatus.HELD:
        now = work.clock.now_for(account)
        _close(row, status_at(row, now, else_=ReservationStatus.RELEASED), now)
        await _give_back(work, account, [row])
    return row


def status_at(row: Reservation, now: datetime, *, else_: ReservationStatus | None = None) -> ReservationStatus:
    """How a reservation stands at an instant: what is past its end is expired, noted or not."""
    if row.status is ReservationStatus.HELD and row.expires_at <= now:
        return ReservationStatus.EXPIRED
    return else_ or row.status


async def find_expired(database: Database) -> Sequence[UUID]:
    """Accounts on the wall clock with reservations that ran out: due work."""
    async with database.read() as session:
        return (
            await session.scalars(
                select(Reservation.account_id)
                .join(BillingAccount, BillingAccount.id == Reservation.account_id)
                .where(
                    Reservation.status == ReservationStatus.HELD,
                    Reservation.expires_at <= database.clock.now(),
                    BillingAccount.test_clock_id.is_(None),
                )
                .distinct()
                .limit(EXPIRE_BATCH)
            )
        ).all()


async def expire_reservations(work: Work, accounts: Collection[BillingAccount]) -> int:
    """Note what ran out of locked accounts, so that streams tell it. Gives how many."""
    by_id = {account.id: account for account in accounts}
    ran_out: dict[UUID, list[Reservation]] = {}
    for row in await work.session.scalars(
        select(Reservation)
        .where(Reservation.account_id.in_(by_id), Reservation.status == ReservationStatus.HELD)
        .order_by(Reservation.expires_at, Reservation.id)
        .limit(EXPIRE_BATCH)
    ):
        now = work.clock.now_for(by_id[row.account_id])
        if row.expires_at <= now:
            _close(row, ReservationStatus.EXPIRED, now)
            ran_out.setdefault(row.account_id, []).append(row)
    for account_id, rows in ran_out.items():
        await _give_back(work, by_id[account_id], rows)
    return sum(map(len, ran_out.values()))


FIELD = ["input", "reservationId"]


async def _lock(work: Work, principal: Principal, reservation_id: UUID) -> tuple[BillingAccount, Reservation]:
    account_id = await work.session.scalar(select(Reservation.account_id).where(Reservation.id == reservation_id))
    if account_id is None or not principal.may(Right.INGEST_USAGE, account_id):
        raise NotFound(UNKNOWN, FIELD)
    account = (await work.lock_accounts([account_id]))[account_id]
    return account, await work.session.get_one(Reservation, reservation_id, populate_existing=True)


async def _check_count(work: Work, account: BillingAccount, now: datetime) -> None:
    held = await work.session.scalar(
        select(func.count()).where(
            Reservation.account_id == account.id,
            Reservation.status == ReservationStatus.HELD,
            Reservation.expires_at > now,
        )
    )
    if held and held >= MAX_HELD:
        raise Conflict(f"{MAX_HELD} reservations are held at once: commit or release some.", ["input", "accountId"])


async def _give_back(work: Work, account: BillingAccount, rows: Sequence[Reservation]) -> None:
    for row in rows:
        _note(work, account, row, f"reservation.{row.status.lower()}", quantity=row.quantity)
    await work.session.flush()
    for metric_key, start in sorted({(row.metric_key, row.period_start) for row in rows}):
        await tell_counter(work, account, metric_key, start)
    for start in sorted({row.period_start for row in rows}):
        await tell_held(work, account, start)


def _close(row: Reservation, status: ReservationStatus, now: datetime) -> None:
    row.status = status
    row.closed_at = row.updated_at = now


def _note(work: Work, account: BillingAccount, row: Reservation, action: str, **after: object) -> None:
    work.audit(account, action, f"reservation:{row.id}", after={"metric": row.metric_key, **after})
    reach("reservation.noted")


_REFUSALS: dict[RejectionCode, type[BillingError]] = {
    RejectionCode.LIMIT_EXCEEDED: LimitExceeded,
    RejectionCode.BUDGET_EXCEEDED: BudgetExceeded,
    RejectionCode.OVERAGE_APPROVAL_REQUIRED: OverageApprovalRequired,
    RejectionCode.ACCOUNT_SUSPENDED: AccountSuspended,
    RejectionCode.ACCOUNT_CANCELED: AccountCanceled,
    RejectionCode.UNKNOWN_METRIC: NotFound,
}
_FIELDS = {RejectionCode.UNKNOWN_METRIC: ["input", "metric"], RejectionCode.INVALID_EVENT: ["input", "properties"]}


def _refusal_of(code: RejectionCode, message: str) -> BillingError:
    return _REFUSALS.get(code, InvalidInput)(message, _FIELDS.get(code, ["input", "quantity"]))


def _refusal(result: EventResult) -> BillingError:
    assert result.code is not None, "it was rejected"
    return _refusal_of(result.code, result.message or "")
