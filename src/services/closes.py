"""What the reports of a month's close share: whose books they are about, and what stands in the ledger."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.sql.elements import ColumnElement

from ..database import ReadSession
from ..models import BillingAccount, EntryKind, LedgerAccount, LedgerEntry, LedgerPosting, TestClock
from .errors import ErrorCode, RequestRefused
from .invariants.reading import sum_of

MAX_ACCOUNTS_SHOWN = 100
"""How many accounts a report names, those with the most first; an export has them all."""
MAX_YEARS = 11
"""How long a range may be: all that is kept, and the year at hand."""
DOCUMENTED = (EntryKind.FINALISE, EntryKind.CREDIT_NOTE)
"""What moves tax and has a document: not what was brought forward of documents that are purged."""


@dataclass(frozen=True)
class Scope:
    """Whose books: of all accounts on the wall clock, or, in the sandbox, of those on a test clock."""

    test_clock_id: UUID | None = None

    def has(self) -> ColumnElement[bool]:
        """That an account is among them."""
        if self.test_clock_id is None:
            return BillingAccount.test_clock_id.is_(None)
        return BillingAccount.test_clock_id == self.test_clock_id


WALL_CLOCK = Scope()


async def find_now(session: ReadSession, scope: Scope, wall: datetime) -> datetime:
    """The time of those accounts."""
    if scope.test_clock_id is None:
        return wall
    now = await session.scalar(select(TestClock.now).where(TestClock.id == scope.test_clock_id))
    if now is None:
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, "There is no such test clock.")
    return now


def check_instant(as_of: datetime, now: datetime) -> None:
    """Refuse what nobody can know yet."""
    if as_of > now:
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, "`asOf` lies ahead: what will stand then is not known.")


def check_span(since: datetime, before: datetime) -> None:
    """Refuse a time that is none, or too long."""
    if since >= before:
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, "`from` comes before `to`: the range is half-open.")
    if before - since > timedelta(days=MAX_YEARS * 366):
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"A range covers at most {MAX_YEARS} years.")


async def sum_ledger(
    session: ReadSession,
    scope: Scope,
    ledger_account: LedgerAccount,
    *,
    since: datetime | None = None,
    up_to: datetime | None = None,
    before: datetime | None = None,
    kinds: Collection[EntryKind] = (),
) -> dict[str, int]:
    """What was posted on an account of the books, by currency: debits less credits, of entries in a range."""
    entry, posting = LedgerEntry, LedgerPosting
    where = [posting.ledger_account == ledger_account, scope.has()]
    where += [] if since is None else [entry.created_at >= since]
    where += [] if up_to is None else [entry.created_at <= up_to]
    where += [] if before is None else [entry.created_at < before]
    where += [entry.kind.in_(kinds)] if kinds else []
    rows = await session.execute(
        select(posting.currency, sum_of(posting.amount_minor))
        .join(entry, entry.id == posting.entry_id)
        .join(BillingAccount, BillingAccount.id == posting.account_id)
        .where(*where)
        .group_by(posting.currency)
    )
    return dict(rows.all())
