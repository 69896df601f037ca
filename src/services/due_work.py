"""The work that the clock brings about: written with what makes it due, taken by one at a time, done once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, delete, exists, or_, select, update
from sqlalchemy.orm import aliased

from ..database import ReadSession, Work
from ..models import WORK_RANK, BillingAccount, DueWork, WorkKind
from ..models.types import new_id

LEASE = timedelta(seconds=60)
"""How long whoever takes work may hold it: after that somebody else takes it."""
MAX_TRIES = 8
VAIN = "in vain"
NOBODY = UUID(int=0)
"""In the place of an account where there is none."""
APART = frozenset({WorkKind.DRAW_DOCUMENT, WorkKind.WRITE_EXPORT})
"""Work that neither waits for an account's other work nor holds it up."""


class Fenced(Exception):
    """The work was taken by somebody else, or done: what was to be written is not."""


@dataclass(frozen=True)
class Taken:
    """Work that somebody holds. `tries` tells this holder from earlier ones."""

    id: UUID
    account_id: UUID
    """Whose; `NOBODY` of what is no account's."""
    kind: WorkKind
    subject: str
    due_at: datetime
    tries: int
    failures: int = 0
    """How often it failed before; tries that left no word count too."""
    is_lost: bool = False
    """Whether the try before this one left no word."""


async def enqueue(work: Work, account: BillingAccount, kind: WorkKind, subject: str, due_at: datetime) -> None:
    """Have something done at an instant, once for each (account, kind, subject)."""
    now = work.clock.now_for(account)
    await work.insert_or_ignore(DueWork, [_row_of(account.id, kind, subject, due_at, now)])


async def enqueue_for_nobody(work: Work, kind: WorkKind, subject: str, due_at: datetime) -> None:
    """Have something done that is no account's. Its kind is one of `APART`, and its subject new."""
    assert kind in APART, "an account's work is done in order, and this has none"
    await work.insert_or_ignore(DueWork, [_row_of(None, kind, subject, due_at, work.clock.now())])


async def enqueue_for_all(work: Work, accounts: Mapping[UUID, datetime], kind: WorkKind, subject: str) -> None:
    """Have something done of many accounts, each at its instant of now."""
    rows = [_row_of(account_id, kind, subject, now, now) for account_id, now in accounts.items()]
    await work.insert_or_ignore(DueWork, rows)


def _row_of(account_id: UUID | None, kind: WorkKind, subject: str, due_at: datetime, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "account_id": account_id,
        "kind": kind,
        "subject": subject,
        "due_at": due_at,
        "rank": WORK_RANK[kind],
        "tries": 0,
        "failures": 0,
        "created_at": now,
        "updated_at": now,
    }


async def enqueue_again(work: Work, account: BillingAccount, kind: WorkKind, subject: str, due_at: datetime) -> None:
    """Have something done at an instant, also where it was done before."""
    await work.session.execute(
        update(DueWork)
        .where(
            DueWork.account_id == account.id,
            DueWork.kind == kind,
            DueWork.subject == subject,
            DueWork.done_at.is_not(None),
        )
        .values(done_at=None, due_at=due_at, leased_until=None, failures=0, failure=None)
    )
    await enqueue(work, account, kind, subject, due_at)


async def withdraw(work: Work, account: BillingAccount, kind: WorkKind, subject: str | None = None) -> None:
    """Take back what is not done yet: its cause is gone. Whoever holds it is refused when it wants to finish."""
    statement = delete(DueWork).where(DueWork.account_id == account.id, DueWork.kind == kind, DueWork.done_at.is_(None))
    if subject is not None:
        statement = statement.where(DueWork.subject == subject)
    await work.session.execute(statement)


async def forget(work: Work, account: BillingAccount, kind: WorkKind, subject: str) -> None:
    """Let something be enqueued anew, done or not."""
    await work.session.execute(
        delete(DueWork).where(DueWork.account_id == account.id, DueWork.kind == kind, DueWork.subject == subject)
    )


async def mark_vain(work: Work, account: BillingAccount, kind: WorkKind, subject: str) -> None:
    """Remember of work that is done that nothing came of it: it may be tried again, see `forget_vain`."""
    await work.session.execute(
        update(DueWork)
        .where(DueWork.account_id == account.id, DueWork.kind == kind, DueWork.subject == subject)
        .values(failure=VAIN)
    )


async def forget_vain(work: Work, account: BillingAccount, kind: WorkKind) -> None:
    """Let what was done in vain be enqueued anew."""
    await work.session.execute(
        delete(DueWork).where(
            DueWork.account_id == account.id,
            DueWork.kind == kind,
            DueWork.done_at.is_not(None),
            DueWork.failure == VAIN,
        )
    )


async def take_up_vain(work: Work, account: BillingAccount, kinds: Collection[WorkKind]) -> None:
    """Have what was done in vain done again, at once: what it waited for is gone."""
    await work.session.execute(
        update(DueWork)
        .where(
            DueWork.account_id == account.id,
            DueWork.kind.in_(kinds),
            DueWork.done_at.is_not(None),
            DueWork.failure == VAIN,
        )
        .values(done_at=None, leased_until=None, failures=0, failure=None)
    )


async def hasten(work: Work, account: BillingAccount, kind: WorkKind, subject: str, due_at: datetime) -> None:
    """Have something done earlier than was planned."""
    await work.session.execute(
        update(DueWork)
        .where(
            DueWork.account_id == account.id,
            DueWork.kind == kind,
            DueWork.subject == subject,
            DueWork.done_at.is_(None),
        )
        .values(due_at=due_at)
    )


async def claim(
    work: Work,
    now: datetime,
    *,
    limit: int,
    account_id: UUID | None = None,
    kinds: frozenset[WorkKind] | None = None,
) -> list[Taken]:
    """Take what is due by the wall clock: of each account the first only, so that its work is done in order.

    Rows that another worker is taking at this moment are passed over. An account whose first work was parked waits.
    """
    mine = DueWork
    earlier = aliased(DueWork)
    is_apart = mine.kind.in_(APART)
    comes_first = ~exists().where(
        earlier.account_id == mine.account_id,
        earlier.done_at.is_(None),
        earlier.kind.not_in(APART),
        or_(
            earlier.due_at < mine.due_at,
            and_(earlier.due_at == mine.due_at, earlier.rank < mine.rank),
            and_(earlier.due_at == mine.due_at, earlier.rank == mine.rank, earlier.id < mine.id),
        ),
    )
    statement = (
        select(mine)
        .outerjoin(BillingAccount, BillingAccount.id == mine.account_id)
        .where(
            mine.done_at.is_(None),
            mine.parked_at.is_(None),
            mine.due_at <= now,
            or_(mine.leased_until.is_(None), mine.leased_until <= now),
            or_(is_apart, comes_first),
            or_(is_apart, BillingAccount.test_clock_id.is_(None)),
        )
        .order_by(mine.due_at, mine.rank, mine.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=mine)
    )
    if account_id is not None:
        statement = statement.where(mine.account_id == account_id)
    if kinds is not None:
        statement = statement.where(mine.kind.in_(kinds))
    rows = (await work.session.scalars(statement)).all()
    taken: list[Taken] = []
    for row in rows:
        # Whoever gave it back said why, and whoever let go of it left no lease.
        is_lost = row.leased_until is not None and row.failure is None
        row.failures += is_lost
        row.leased_until, row.tries, row.failure = now + LEASE, row.tries + 1, None
        taken.append(replace(_taken(row), is_lost=is_lost))
    return taken


def _taken(row: DueWork) -> Taken:
    return Taken(row.id, row.account_id or NOBODY, row.kind, row.subject, row.due_at, row.tries, row.failures)


PERIODS = (
    WorkKind.EXPIRE_PENDING,
    WorkKind.CLOSE_PERIOD,
    WorkKind.END_TRIAL,
    WorkKind.FINALISE_INVOICE,
    WorkKind.SUSPEND,
    WorkKind.GIVE_UP,
    WorkKind.EXPIRE_ACCOUNT,
)
"""Work that changes what an order would be priced by."""


async def is_behind(work: Work, account: BillingAccount, now: datetime) -> bool:
    """Whether such work of an account on the wall clock is due and not done."""
    waiting = select(DueWork.id).where(
        DueWork.account_id == account.id,
        DueWork.done_at.is_(None),
        DueWork.due_at <= now,
        DueWork.kind.in_(PERIODS),
    )
    return await work.session.scalar(waiting.limit(1)) is not None


async def find_next_on_clock(
    session: ReadSession, test_clock_id: UUID, until: datetime, *, account_id: UUID | None = None
) -> Taken | None:
    """The first work that is due on a test clock up to an instant, of one account or all on it.

    Whoever advances the clock holds it alone. An account whose work was parked waits with all that is due later.
    """
    parked = aliased(DueWork)
    is_held_up = exists().where(
        parked.account_id == DueWork.account_id,
        parked.parked_at.is_not(None),
        parked.done_at.is_(None),
        parked.kind.not_in(APART),
    )
    statement = (
        select(DueWork)
        .join(BillingAccount, BillingAccount.id == DueWork.account_id)
        .where(
            BillingAccount.test_clock_id == test_clock_id,
            DueWork.done_at.is_(None),
            ~is_held_up,
            DueWork.due_at <= until,
            DueWork.kind.not_in(APART),
        )
        .order_by(DueWork.due_at, DueWork.rank, BillingAccount.created_at, DueWork.id)
        .limit(1)
    )
    if account_id is not None:
        statement = statement.where(DueWork.account_id == account_id)
    row = await session.scalar(statement)
    return None if row is None else _taken(row)


async def finish(work: Work, taken: Taken) -> None:
    """Mark work as done, in the transaction of its effect. A holder whose time ran out is refused."""
    done = await work.session.execute(
        update(DueWork)
        .where(DueWork.id == taken.id, DueWork.tries == taken.tries, DueWork.done_at.is_(None))
        .values(done_at=work.clock.now(), leased_until=None, failure=None)
        .returning(DueWork.id)
    )
    if done.first() is None:
        raise Fenced(f"{taken.kind} of {taken.account_id} is no longer ours")


async def postpone(work: Work, taken: Taken, due_at: datetime) -> None:
    """Look again later: what it is for has not ended yet. A holder whose time ran out is refused."""
    moved = await work.session.execute(
        update(DueWork)
        .where(DueWork.id == taken.id, DueWork.tries == taken.tries, DueWork.done_at.is_(None))
        .values(due_at=due_at, leased_until=None, failures=0, failure=None)
        .returning(DueWork.id)
    )
    if moved.first() is None:
        raise Fenced(f"{taken.kind} of {taken.account_id} is no longer ours")


async def hold_on(work: Work, taken: Taken) -> None:
    """Hold work for longer, in the transaction of a part of its effect. A holder whose time ran out is refused."""
    held = await work.session.execute(
        update(DueWork)
        .where(DueWork.id == taken.id, DueWork.tries == taken.tries, DueWork.done_at.is_(None))
        .values(leased_until=work.clock.now() + LEASE)
        .returning(DueWork.id)
    )
    if held.first() is None:
        raise Fenced(f"{taken.kind} of {taken.account_id} is no longer ours")


async def give_back(work: Work, taken: Taken, failure: str, *, max_tries: int | None = MAX_TRIES) -> bool:
    """Say that work failed: it is tried again after a while, and parked after too many tries. True when parked."""
    failures = taken.failures + 1
    parked = max_tries is not None and failures >= max_tries
    now = work.clock.now()
    await work.session.execute(
        update(DueWork)
        .where(DueWork.id == taken.id, DueWork.tries == taken.tries, DueWork.done_at.is_(None))
        .values(
            leased_until=now + timedelta(seconds=min(2**failures, 300)),
            failures=failures,
            parked_at=now if parked else None,
            failure=failure[:500],
        )
    )
    return parked


async def list_parked(session: ReadSession, limit: int) -> Sequence[DueWork]:
    """What was given up, and holds up its account; the longest parked first."""
    return (
        await session.scalars(
            select(DueWork)
            .where(DueWork.parked_at.is_not(None), DueWork.done_at.is_(None), DueWork.kind.not_in(APART))
            .order_by(DueWork.parked_at, DueWork.id)
            .limit(limit)
        )
    ).all()


async def release(work: Work, account: BillingAccount) -> Sequence[UUID]:
    """Let an account's parked work be tried again. Gives what was parked."""
    released = await work.session.scalars(
        update(DueWork)
        .where(DueWork.account_id == account.id, DueWork.parked_at.is_not(None), DueWork.done_at.is_(None))
        .values(parked_at=None, leased_until=None, failures=0, failure=None)
        .returning(DueWork.id)
    )
    return released.all()
