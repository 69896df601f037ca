"""The audit of the books: what must always hold of what is stored, checked from the rows and nothing else.

The invariants are I1–I14 of the security design. Their checks are a constant number of statements over
all accounts: what SQL can compare it compares, the rest is streamed and reckoned again by the rules.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from ..database import ReadSession
from ..models import BillingAccount, Invoice, LedgerEntry
from .invariants.alerts import check_alerts
from .invariants.amounts import check_credits, check_settlement
from .invariants.answers import check_answers
from .invariants.books import check_balances, check_deferrals, check_entries, check_triggers
from .invariants.chain import check_chain, check_trail
from .invariants.charges import check_charges, check_messages, check_sandbox_charges, check_sandbox_refunds
from .invariants.documents import check_documents, check_drawn, check_receipts
from .invariants.mails import check_mails
from .invariants.numbers import check_numbers
from .invariants.periods import check_causes, check_plan_lines, check_subscriptions, check_usage_periods
from .invariants.reading import Finding, Findings, is_finalised
from .invariants.refunds import check_payments, check_refunds, check_requests
from .invariants.spend import check_spend
from .invariants.tenants import check_tenants
from .invariants.usage import check_usage
from .invariants.waiting import check_waiting
from .invariants.webhooks import check_webhooks

__all__ = ["Finding", "Size", "audit", "measure_books", "name_accounts"]

CHECKS: tuple[Callable[[ReadSession, Findings], Awaitable[None]], ...] = (
    check_entries,
    check_triggers,
    check_balances,
    check_deferrals,
    check_charges,
    check_sandbox_charges,
    check_sandbox_refunds,
    check_messages,
    check_settlement,
    check_credits,
    check_payments,
    check_refunds,
    check_requests,
    check_documents,
    check_receipts,
    check_drawn,
    check_numbers,
    check_usage_periods,
    check_subscriptions,
    check_plan_lines,
    check_causes,
    check_spend,
    check_tenants,
    check_chain,
    check_trail,
)
CHECKS_BY_THE_CLOCK: tuple[Callable[[ReadSession, Findings, datetime], Awaitable[None]], ...] = (
    check_alerts,
    check_answers,
    check_mails,
    check_usage,
    check_waiting,
    check_webhooks,
)


@dataclass(frozen=True)
class Size:
    """How much there was to look at."""

    accounts: int
    invoices: int
    entries: int


async def measure_books(session: ReadSession) -> Size:
    """How many accounts, invoices with a number, and entries there are."""
    counts = [
        select(func.count()).select_from(BillingAccount).scalar_subquery(),
        select(func.count()).select_from(Invoice).where(is_finalised()).scalar_subquery(),
        select(func.count()).select_from(LedgerEntry).scalar_subquery(),
    ]
    accounts, invoices, entries = (await session.execute(select(*counts))).one()
    return Size(accounts, invoices, entries)


async def name_accounts(session: ReadSession, found: Sequence[Finding]) -> dict[UUID, str]:
    """The external ids of the accounts that findings are about."""
    rows = await session.execute(
        select(BillingAccount.id, BillingAccount.external_id).where(
            BillingAccount.id.in_({finding.account_id for finding in found if finding.account_id is not None})
        )
    )
    return dict(rows.all())


async def audit(session: ReadSession, now: datetime) -> list[Finding]:
    """Check all invariants, at an instant of the wall clock: what waits may do so for a while only.

    Gives what is wrong, by invariant; nothing where the books are in order.
    """
    found = Findings()
    for check in CHECKS:
        await check(session, found)
    for check_by_the_clock in CHECKS_BY_THE_CLOCK:
        await check_by_the_clock(session, found, now)
    return found.listed()
