"""The cost explorer: what accounts spent on days of their zone, exactly, by metric, workspace, day and kind of line."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Select, func, select

from ..database import ReadSession
from ..models import BillingAccount, Invoice, InvoiceLine, InvoiceStatus, LineKind, UsageCost, UsagePeriod
from .errors import ErrorCode, RequestRefused
from .rules.explorer import SpendBasis, SpendEntry, SpendGroup, sum_by
from .rules.spending import SpentLine, parts_of
from .spends import load_spent_lines

MAX_DAYS = 731
"""Two years, with a leap day in them."""
MAX_SUMS = 5_000
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9999, 1, 1)
READ_AT_ONCE = 500
COLUMNS: Mapping[SpendGroup, Any] = {
    SpendGroup.DAY: UsageCost.day,
    SpendGroup.METRIC: UsageCost.metric_key,
    SpendGroup.WORKSPACE: UsageCost.workspace,
}
"""What usage costs are told apart by. They are of one kind of line."""


@dataclass(frozen=True)
class Days:
    """The days `[first, end)`, of the zone of whichever account is meant."""

    first: date
    end: date

    def has(self, instant: datetime, zone: str) -> bool:
        """Whether an instant is on one of them in a zone."""
        return self.first <= instant.astimezone(ZoneInfo(zone)).date() < self.end

    @property
    def widest(self) -> tuple[datetime, datetime]:
        """Instants before and after them all, in any zone."""
        start, end = (datetime.combine(day, time(), UTC) for day in (self.first, self.end))
        return start - timedelta(days=1), end + timedelta(days=1)


@dataclass(frozen=True)
class SpendQuestion:
    """What somebody wants to know of spend."""

    days: Days
    basis: SpendBasis = SpendBasis.ACCRUED
    groups: frozenset[SpendGroup] = frozenset()


def check_question(first: date, end: date, basis: SpendBasis, groups: Sequence[SpendGroup]) -> SpendQuestion:
    """A question that can be answered. Refused as `BAD_USER_INPUT` otherwise."""
    if first >= end:
        raise _refuse("`from` comes before `to`: the range is half-open, so one day ends with the next.")
    if first < FIRST_DAY or end > LAST_DAY:
        raise _refuse(f"Days lie between {FIRST_DAY} and {LAST_DAY}.")
    if (end - first).days > MAX_DAYS:
        raise _refuse(f"The range covers at most {MAX_DAYS} days, two years: ask for a shorter one.")
    twice = [group for index, group in enumerate(groups) if group in groups[:index]]
    if twice:
        raise _refuse(f"`groupBy` names {twice[0]} twice: name each once.")
    if basis is SpendBasis.INVOICED and SpendGroup.WORKSPACE in groups:
        raise _refuse(
            "Invoiced lines name no workspace: take the basis ACCRUED to group by WORKSPACE, or leave it out."
        )
    return SpendQuestion(Days(first, end), basis, frozenset(groups))


def _refuse(told: str) -> RequestRefused:
    return RequestRefused(ErrorCode.BAD_USER_INPUT, told)


async def load_spend(
    session: ReadSession, question: SpendQuestion, accounts: Sequence[BillingAccount], nows: Sequence[datetime]
) -> list[list[SpendEntry]]:
    """What each account spent, at its own time: at most three statements for all of them."""
    if question.basis is SpendBasis.INVOICED:
        entries = await _load_invoiced(session, question, accounts)
    else:
        entries = await _load_accrued_lines(session, question.days, accounts, nows)
        for account_id, costs in (await _load_costs(session, question, [account.id for account in accounts])).items():
            entries[account_id] += costs
    found = [sum_by(entries[account.id], question.groups) for account in accounts]
    if sum(map(len, found)) > MAX_SUMS:
        raise _refuse_many()
    return found


def _refuse_many() -> RequestRefused:
    return _refuse(
        f"There are more than {MAX_SUMS:,} sums: group by less, ask for a shorter range, or have all of it written by "
        "`requestExport` with the kind SPEND."
    )


async def _load_costs(
    session: ReadSession, question: SpendQuestion, account_ids: Sequence[UUID]
) -> dict[UUID, list[SpendEntry]]:
    """What usage cost, summed by what is asked for."""
    rows = (await session.execute(_select_costs(question.days, question.groups, account_ids).limit(MAX_SUMS + 1))).all()
    if len(rows) > MAX_SUMS:
        raise _refuse_many()
    found: dict[UUID, list[SpendEntry]] = defaultdict(list)
    for account_id, *names, cost in rows:
        found[account_id].append(_entry_of(question.groups, names, int(cost)))
    return found


def _select_costs(days: Days, groups: Collection[SpendGroup], account_ids: Sequence[UUID]) -> Select[*tuple[Any, ...]]:
    shown = [column for group, column in COLUMNS.items() if group in groups]
    return (
        select(UsageCost.account_id, *shown, func.sum(UsageCost.cost_minor))
        .where(UsageCost.account_id.in_(account_ids), UsageCost.day >= days.first, UsageCost.day < days.end)
        .group_by(UsageCost.account_id, *shown)
    )


def _entry_of(groups: Collection[SpendGroup], names: Sequence[Any], cost_minor: int) -> SpendEntry:
    told = dict(zip((group for group in COLUMNS if group in groups), names, strict=True))
    return SpendEntry(
        cost_minor,
        told.get(SpendGroup.DAY),
        told.get(SpendGroup.METRIC),
        told.get(SpendGroup.WORKSPACE) or None,
        LineKind.OVERAGE,
    )


async def _load_accrued_lines(
    session: ReadSession, days: Days, accounts: Sequence[BillingAccount], nows: Sequence[datetime]
) -> dict[UUID, list[SpendEntry]]:
    """The parts of lines that are spent on some days, each on its own. Withdrawn lines are not, nor credit notes."""
    start, end = days.widest
    account_ids = [account.id for account in accounts]
    starts: dict[UUID, list[datetime]] = defaultdict(list)
    for account_id, begun in await session.execute(
        select(UsagePeriod.account_id, UsagePeriod.start_at)
        .where(UsagePeriod.account_id.in_(account_ids), UsagePeriod.start_at < end)
        .order_by(UsagePeriod.start_at)
    ):
        starts[account_id].append(begun)
    lines = await load_spent_lines(session, account_ids, start, end)
    return defaultdict(
        list,
        {
            account.id: _spread(account, lines[account.id], [at for at in starts[account.id] if at <= now], days, now)
            for account, now in zip(accounts, nows, strict=True)
        },
    )


def _spread(
    account: BillingAccount, lines: Sequence[SpentLine], starts: Sequence[datetime], days: Days, now: datetime
) -> list[SpendEntry]:
    zone = ZoneInfo(account.timezone)
    return [
        SpendEntry(part, at.astimezone(zone).date(), line.metric_key, None, line.kind)
        for line in lines
        for at, part in parts_of(line, starts)
        if at <= now and days.has(at, account.timezone)
    ]


async def _load_invoiced(
    session: ReadSession, question: SpendQuestion, accounts: Sequence[BillingAccount]
) -> dict[UUID, list[SpendEntry]]:
    """The lines of finalised invoices that stand, on the days on which these were issued."""
    start, end = question.days.widest
    zones = {account.id: account.timezone for account in accounts}
    keys = (InvoiceLine.account_id, Invoice.issued_at, InvoiceLine.metric_key, InvoiceLine.kind)
    rows = await session.execute(
        select(*keys, func.sum(InvoiceLine.amount_minor))
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(
            Invoice.account_id.in_(zones),
            Invoice.issued_at >= start,
            Invoice.issued_at < end,
            Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)),
        )
        .group_by(*keys)
    )
    found: dict[UUID, list[SpendEntry]] = defaultdict(list)
    for account_id, at, metric_key, kind, amount in rows:
        assert at is not None, "it is within the range"
        if question.days.has(at, zones[account_id]):
            day = at.astimezone(ZoneInfo(zones[account_id])).date()
            found[account_id].append(SpendEntry(int(amount), day, metric_key, None, kind))
    return found


async def read_spend(
    session: ReadSession, account: BillingAccount, days: Days, now: datetime
) -> AsyncGenerator[SpendEntry]:
    """What an account spent, accrued, in all detail and by day: a few rows at a time, however many there are."""
    lines = sum_by((await _load_accrued_lines(session, days, [account], [now]))[account.id], set(SpendGroup))
    place = 0
    statement = _select_costs(days, set(COLUMNS), [account.id]).order_by(*COLUMNS.values())
    result = await session.stream(statement.execution_options(yield_per=READ_AT_ONCE))
    try:
        async for _, *names, cost in result:
            entry = _entry_of(COLUMNS.keys(), names, int(cost))
            while place < len(lines) and (lines[place].day or days.first) <= (entry.day or days.first):
                yield lines[place]
                place += 1
            if entry.amount_minor:
                yield entry
    finally:
        await result.close()
    for line in lines[place:]:
        yield line
