"""The reports of a month's close: as they stood at each instant of a lively year, and always what the ledger says."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession

from plafond.clock import SetClock
from plafond.database import Database, ReadSession
from plafond.migrations import migrate_database
from plafond.models import (
    BillingAccount,
    CreditNote,
    Deferral,
    Invoice,
    InvoiceStatus,
    TestClock,
    Transaction,
    TransactionKind,
)
from plafond.models.types import new_id
from plafond.services import test_clocks
from plafond.services.closes import WALL_CLOCK, Scope, check_instant, find_now
from plafond.services.deferred_revenue import DeferredLine, read_deferred, sum_deferred
from plafond.services.errors import RequestRefused
from plafond.services.receivables import Age, read_aging, sum_aging
from plafond.services.tax_reports import sum_taxes
from plafond.services.tills import Till
from plafond.settings import Environment

from ..conftest import NOW, _address, _create_postgres, _drop_postgres
from .engine import apply_sandbox_catalogue, open_till, run_a_lively_year

DAY = timedelta(days=1)


@dataclass
class Standing:
    """How an instant of the year looked, by the rows as they stood then."""

    owed: dict[tuple[UUID, Age], int] = field(default_factory=lambda: defaultdict(int))
    deferred: dict[UUID, int] = field(default_factory=dict[UUID, int])
    tax: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Year:
    """A database with a year in it, and how each of its instants looked."""

    address: str
    clock_id: UUID
    standings: dict[datetime, Standing]


def age_of(due_at: datetime, now: datetime) -> Age:
    late = now - due_at
    if late <= timedelta():
        return Age.NOT_DUE
    ages = {30: Age.DAYS_1_TO_30, 60: Age.DAYS_31_TO_60, 90: Age.DAYS_61_TO_90}
    return next((age for days, age in ages.items() if late <= days * DAY), Age.OVER_90_DAYS)


async def look(session: AsyncSession, now: datetime, among: set[UUID]) -> Standing:
    found = Standing()
    for invoice in await session.scalars(select(Invoice).where(Invoice.status != InvoiceStatus.DRAFT)):
        if invoice.account_id not in among:
            continue
        found.tax[invoice.currency] += invoice.tax_minor
        if invoice.status is InvoiceStatus.OPEN:
            assert invoice.due_at is not None
            found.owed[invoice.account_id, age_of(invoice.due_at, now)] += invoice.due_minor
    for note in await session.scalars(select(CreditNote)):
        found.tax[note.currency] -= note.tax_minor if note.account_id in among else 0
    is_waiting = [
        Transaction.kind == TransactionKind.CARRIED_FORWARD,
        Transaction.carried_to_invoice_id.is_(None),
    ]
    for carried in await session.scalars(select(Transaction).where(*is_waiting)):
        if carried.account_id in among:
            found.owed[carried.account_id, Age.CARRIED_FORWARD] += carried.amount_minor
    for deferral in await session.scalars(select(Deferral)):
        if deferral.account_id in among and deferral.rest_minor:
            found.deferred[deferral.line_id] = deferral.rest_minor
    return found


async def _play(address: str) -> Year:
    database = Database(address, SetClock(NOW), lambda _: None)
    till = open_till(database)
    standings: dict[datetime, Standing] = {}
    advance, clocks = test_clocks.advance_clock, set[UUID]()

    async def note(clock_id: UUID) -> None:
        async with database.read() as session:
            clock = await session.get_one(TestClock, clock_id)
            hung = await session.scalars(select(BillingAccount.id).where(BillingAccount.test_clock_id == clock_id))
            standings[clock.now] = await look(session, clock.now, set(hung))

    async def advance_and_note(till: Till, clock_id: UUID | None, to: datetime) -> TestClock:
        assert clock_id is not None
        clocks.add(clock_id)
        await note(clock_id)
        return await advance(till, clock_id, to)

    test_clocks.advance_clock = advance_and_note
    try:
        await apply_sandbox_catalogue(till)
        await run_a_lively_year(till)
        [clock_id] = clocks
        await note(clock_id)
        return Year(address, clock_id, standings)
    finally:
        test_clocks.advance_clock = advance
        await database.close()


@pytest.fixture(scope="module")
def year(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    name = f"plafond_closes_{new_id().hex}"
    if engine == "sqlite":
        name = str(tmp_path_factory.mktemp("closes") / "books.db")
    else:
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    yield asyncio.run(_play(address))
    if engine == "postgresql":
        _drop_postgres(name)


@pytest.fixture
async def session(year: Year) -> AsyncGenerator[ReadSession]:
    database = Database(year.address, SetClock(NOW), lambda _: None)
    async with database.read() as opened:
        yield opened
    await database.close()


async def test_receivables_are_told_as_they_were(year: Year, session: ReadSession) -> None:
    seen: set[Age] = set()
    for now, standing in year.standings.items():
        found = {
            (account.account_id, age): amount
            async for account in read_aging(session, Scope(year.clock_id), now)
            for age, amount in account.amounts.items()
        }
        assert found == {key: amount for key, amount in standing.owed.items() if amount}, now
        seen |= {age for _, age in found}
        for currency in await sum_aging(session, Scope(year.clock_id), now):
            assert currency.total_minor == currency.ledger_minor, (now, currency)
            assert sum(account.total_minor for account in currency.accounts) == currency.total_minor
            totals = [account.total_minor for account in currency.accounts]
            assert totals == sorted(totals, reverse=True)
            assert len(totals) == currency.account_count
    assert seen >= {Age.NOT_DUE, Age.DAYS_1_TO_30, Age.CARRIED_FORWARD}


async def test_what_is_deferred_is_told_as_it_was(year: Year, session: ReadSession) -> None:
    for now, standing in year.standings.items():
        by_currency: dict[str, int] = defaultdict(int)
        lines = [line async for line in read_deferred(session, Scope(year.clock_id), now)]
        assert sorted(line.amount_minor for line in lines) == sorted(standing.deferred.values()), now
        for line in lines:
            by_currency[line.currency] += line.amount_minor
        for currency in await sum_deferred(session, Scope(year.clock_id), now):
            assert currency.total_minor == currency.ledger_minor == by_currency[currency.currency], now
            assert sum(currency.months.values()) == currency.total_minor
            assert sum(account.amount_minor for account in currency.accounts) == currency.total_minor
    assert any(standing.deferred for standing in year.standings.values())


async def test_tax_is_that_of_the_documents_and_of_the_ledger(year: Year, session: ReadSession) -> None:
    scope, beginning = Scope(year.clock_id), datetime(2025, 1, 1, tzinfo=UTC)
    for now, standing in year.standings.items():
        # Up to and with this second.
        until = now + timedelta(seconds=1)
        found = await sum_taxes(session, scope, beginning, until)
        assert {tax.currency: tax.tax_minor for tax in found} == {
            currency: standing.tax[currency] for currency in (tax.currency for tax in found)
        }, now
        assert all(tax.tax_minor == tax.ledger_minor for tax in found), now
    # Ranges that meet hold each document once.
    cuts = [beginning, *sorted(year.standings), max(year.standings) + DAY]
    parts: dict[str, int] = defaultdict(int)
    for since, before in pairwise(cuts):
        for tax in await sum_taxes(session, scope, since, before):
            assert tax.tax_minor == tax.ledger_minor
            parts[tax.currency] += tax.tax_minor
    whole = await sum_taxes(session, scope, beginning, cuts[-1])
    assert {tax.currency: tax.tax_minor for tax in whole} == parts
    assert any(tax.tax_minor for tax in whole)


async def test_accounts_on_a_test_clock_are_in_its_reports_only(year: Year, session: ReadSession) -> None:
    on_clock = {account.external_id async for account in read_aging(session, Scope(year.clock_id), NOW)}
    on_wall = {line.external_id async for line in read_deferred(session, WALL_CLOCK, NOW)}
    assert on_clock
    assert on_wall == {"walled"}
    assert not on_clock & on_wall
    [currency] = await sum_deferred(session, WALL_CLOCK, NOW)
    assert currency.total_minor == currency.ledger_minor > 0


async def test_nobody_knows_what_is_to_come(year: Year, session: ReadSession) -> None:
    now = await find_now(session, Scope(year.clock_id), NOW)
    assert now == max(year.standings)
    check_instant(now, now)
    with pytest.raises(RequestRefused, match="lies ahead"):
        check_instant(now + timedelta(seconds=1), now)
    with pytest.raises(RequestRefused, match="no such test clock"):
        await find_now(session, Scope(new_id()), NOW)


async def test_a_report_is_a_constant_number_of_statements(year: Year, session: ReadSession) -> None:
    connection = (await session.connection()).sync_connection
    assert connection is not None
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    counts: list[int] = []
    for scope in (WALL_CLOCK, Scope(year.clock_id)):
        statements.clear()
        await sum_aging(session, scope, NOW)
        await sum_deferred(session, scope, NOW)
        await sum_taxes(session, scope, NOW - 400 * DAY, NOW)
        counts.append(len(statements))
    assert counts == [6, 6]


@pytest.mark.parametrize(
    ("as_of", "months"),
    [
        ("2026-01-01T00:00:00", [31_00, 28_00, 31_00]),
        ("2026-01-31T00:00:00", [1_50, 42_00, 46_50]),
        ("2025-12-20T00:00:00", [31_00, 28_00, 31_00]),
        ("2026-04-01T00:00:00", [90_00]),
    ],
)
def test_what_time_will_earn(as_of: str, months: list[int]) -> None:
    given: dict[str, Any] = dict.fromkeys(("external_id", "name", "number", "description"), "")
    start, end = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 4))
    line = DeferredLine(account_id=new_id(), currency="USD", starts_at=start, ends_at=end, amount_minor=90_00, **given)
    schedule = line.schedule(datetime.fromisoformat(as_of).replace(tzinfo=UTC))
    assert sum(amount for _, amount in schedule) == 90_00
    assert [amount for _, amount in schedule] == months
    first = date(2026, 1 if len(months) > 1 else 4, 1)
    assert schedule[0][0] == first
