"""The audit of the books: what must always hold of what is stored, checked from the rows and nothing else.

The invariants are I1–I6 and I8 of the security design, and the chain of the audit log (I13). Their checks are a
constant number of statements over all accounts: what SQL can compare it compares, the rest is streamed and reckoned
again by the rules.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import func, select, text

from ..database import ReadSession
from ..models import BillingAccount, Invoice, LedgerEntry
from .invariants.amounts import check_credits, check_settlement
from .invariants.books import check_balances, check_deferrals, check_entries, check_triggers
from .invariants.chain import check_chain
from .invariants.charges import check_charges, check_sandbox_charges
from .invariants.documents import check_documents, check_drawn
from .invariants.numbers import check_numbers
from .invariants.periods import check_causes, check_plan_lines, check_subscriptions, check_usage_periods
from .invariants.reading import Finding, Findings, dialect_of, is_finalised

__all__ = ["Finding", "Size", "audit", "measure_books", "take_snapshot"]

CHECKS: tuple[Callable[[ReadSession, Findings], Awaitable[None]], ...] = (
    check_entries,
    check_triggers,
    check_balances,
    check_deferrals,
    check_charges,
    check_sandbox_charges,
    check_settlement,
    check_credits,
    check_documents,
    check_drawn,
    check_numbers,
    check_usage_periods,
    check_subscriptions,
    check_plan_lines,
    check_causes,
    check_chain,
)


@dataclass(frozen=True)
class Size:
    """How much there was to look at."""

    accounts: int
    invoices: int
    entries: int


async def take_snapshot(session: ReadSession) -> None:
    """Have all statements of a transaction that has not begun yet see one state, whatever is written meanwhile."""
    # SQLite's transactions do so by themselves.
    if dialect_of(session) == "postgresql":
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def measure_books(session: ReadSession) -> Size:
    """How many accounts, invoices with a number, and entries there are."""
    counts = [
        select(func.count()).select_from(BillingAccount).scalar_subquery(),
        select(func.count()).select_from(Invoice).where(is_finalised()).scalar_subquery(),
        select(func.count()).select_from(LedgerEntry).scalar_subquery(),
    ]
    accounts, invoices, entries = (await session.execute(select(*counts))).one()
    return Size(accounts, invoices, entries)


async def audit(session: ReadSession) -> list[Finding]:
    """Check all invariants. Gives what is wrong, by invariant; nothing where the books are in order."""
    found = Findings()
    for check in CHECKS:
        await check(session, found)
    return found.listed()
