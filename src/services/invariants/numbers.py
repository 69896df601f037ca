"""I5: numbers are gapless, and rise with time."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, literal, select, union_all

from ...database import ReadSession
from ...models import (
    AuditEntry,
    BillingAccount,
    CreditNote,
    Deployment,
    Invoice,
    NumberSeries,
    TestClock,
)
from ...settings import Environment
from .reading import Findings, is_finalised, stream

SANDBOX_BEGINS_AT = 1001
"""The first number of invoices in a sandbox that was seeded."""


@dataclass
class _Series:
    """A series of numbers as it is read, in order."""

    last_number: int | None = None
    """By its own row; none where it has none."""
    number: int = 0
    issued_at: datetime | None = None
    count: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    purged: int = 0


SeriesKey = tuple[UUID, str]


async def check_numbers(session: ReadSession, found: Findings) -> None:
    """Each series without gaps but for what was purged, up to where its row stands, and in order of issue."""
    series: dict[SeriesKey, _Series] = defaultdict(_Series)
    rows = await session.execute(select(NumberSeries.issuer_id, NumberSeries.prefix, NumberSeries.last_number))
    for issuer_id, prefix, last_number in rows:
        series[issuer_id, prefix].last_number = last_number
    await _count_purged(session, series)
    environment = (await session.execute(select(Deployment.environment))).scalar()
    invoices = select(
        Invoice.account_id, Invoice.issuer_id, Invoice.number, Invoice.issued_at, literal("INV-").label("kind")
    ).where(is_finalised())
    notes = select(CreditNote.account_id, CreditNote.issuer_id, CreditNote.number, CreditNote.issued_at, literal("CN-"))
    documents = union_all(invoices, notes).subquery()
    statement = (
        select(documents, TestClock.code)
        .outerjoin(BillingAccount, BillingAccount.id == documents.c.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        # The digits of longer numbers make longer texts.
        .order_by(documents.c.issuer_id, func.length(documents.c.number), documents.c.number)
    )
    async for account_id, issuer_id, number, issued_at, kind, code in stream(session, statement):
        if number is None or issued_at is None:
            found.add("I5", account_id, "A finalised invoice has no number or no instant of issue.")
            continue
        digits = number[len(number.rstrip("0123456789")) :]
        prefix = number.removesuffix(digits)
        own = kind if code is None else f"TST-{code}-{kind.removeprefix('INV-')}"
        if prefix != own or not digits or f"{int(digits):06d}" != digits:
            found.add("I5", account_id, f"{number} is not a number of the series {own}.")
            continue
        wrong = _continue_series(series[issuer_id, prefix], number, int(digits), issued_at)
        if wrong is not None:
            found.add("I5", account_id, wrong)
    for (_, prefix), each in sorted(series.items(), key=lambda item: item[0][1]):
        begins_at = SANDBOX_BEGINS_AT if environment is Environment.SANDBOX and prefix == "INV-" else 1
        _judge_series(prefix, each, begins_at, found)


async def _count_purged(session: ReadSession, series: dict[SeriesKey, _Series]) -> None:
    """How many documents of each series the retention job deleted: their numbers are missing by right."""
    statement = (
        select(BillingAccount.issuer_id, TestClock.code, AuditEntry.after)
        .join(BillingAccount, BillingAccount.id == AuditEntry.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(AuditEntry.action == "documents.purged")
    )
    async for issuer_id, code, after in stream(session, statement):
        head = "" if code is None else f"TST-{code}-"
        series[issuer_id, head or "INV-"].purged += int(after.get("invoices", 0))
        series[issuer_id, f"{head}CN-"].purged += int(after.get("creditNotes", 0))


def _continue_series(series: _Series, number: str, figure: int, issued_at: datetime) -> str | None:
    before, last_issued_at = series.number, series.issued_at
    if figure == before and series.count:
        return f"{number} was given twice."
    if figure > before + 1:
        series.gaps.append((before + 1, figure - 1))
    series.number, series.issued_at = figure, issued_at
    series.count += 1
    if last_issued_at is not None and issued_at < last_issued_at:
        return f"{number} was issued at {issued_at}, before the number before it ({last_issued_at})."
    return None


def _judge_series(prefix: str, series: _Series, sandbox_begins_at: int, found: Findings) -> None:
    if series.last_number is None:
        if series.count:
            found.add("I5", None, f"The series {prefix} has {series.count} numbers, and no row that counts them.")
        return
    if series.number < series.last_number:
        series.gaps.append((series.number + 1, series.last_number))
    elif series.number > series.last_number:
        found.add(
            "I5", None, f"The series {prefix} stands at {series.last_number}, and {series.number} was given already."
        )
    if series.gaps and series.gaps[0][0] == 1 and series.gaps[0][1] >= sandbox_begins_at - 1:
        first, last = sandbox_begins_at, series.gaps[0][1]
        series.gaps[:1] = [(first, last)] if first <= last else []
    missing = sum(last - first + 1 for first, last in series.gaps)
    if missing == series.purged:
        return
    purged = f" ({series.purged} were purged, {missing} are missing)" if series.purged else ""
    for first, last in series.gaps:
        span = f"{first:06d}" if first == last else f"{first:06d} to {last:06d}"
        found.add("I5", None, f"{prefix}{span} was never issued{purged}.")
    if not series.gaps:
        found.add("I5", None, f"The series {prefix} misses no number, though {series.purged} were purged.")
