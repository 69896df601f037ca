"""The cost explorer: exact over a life, whatever it is told apart by, and what its file says."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain, combinations
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from plafond.models import (
    CollectionMethod,
    ExportFormat,
    ExportKind,
    Granularity,
    Interval,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    UsagePeriod,
)
from plafond.services import decisions
from plafond.services.accounts import load_accounts
from plafond.services.errors import InvalidInput, RequestRefused
from plafond.services.explorer import MAX_DAYS, check_question, load_spend
from plafond.services.rules.explorer import SpendBasis, SpendEntry, SpendGroup

from ..conftest import NOW, Client, World
from .engine import advance, open_account, open_clock, open_till, order, spend_half_a_year, withdraw_open_invoice
from .exporting import ask_for, read_export, table_of, write
from .helpers import account_of, emails, send

ZONE = ZoneInfo("America/New_York")
ALL = (date(2024, 12, 1), date(2026, 12, 1))
GROUPINGS = list(chain.from_iterable(combinations(SpendGroup, count) for count in range(len(SpendGroup) + 1)))


async def spend(
    world: World,
    account_id: UUID,
    groups: Sequence[SpendGroup] = (),
    basis: SpendBasis = SpendBasis.ACCRUED,
    days: tuple[date, date] = ALL,
) -> list[SpendEntry]:
    async with world.database.read() as session:
        [account] = await load_accounts(session, [account_id])
        assert account is not None
        now = world.database.clock.now_for(account)
        return (await load_spend(session, check_question(*days, basis, groups), [account], [now]))[0]


def total(entries: Sequence[SpendEntry]) -> int:
    return sum(entry.amount_minor for entry in entries)


async def periods_of(world: World, account_id: UUID) -> list[UsagePeriod]:
    async with world.database.read() as session:
        rows = await session.scalars(
            select(UsagePeriod).where(UsagePeriod.account_id == account_id).order_by(UsagePeriod.start_at)
        )
        return list(rows)


async def sum_of(world: World, account_id: UUID, *which: Any) -> int:
    """The sum of lines of finalised invoices that stand."""
    async with world.database.read() as session:
        found = await session.scalar(
            select(func.sum(InvoiceLine.amount_minor))
            .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
            .where(
                Invoice.account_id == account_id,
                Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)),
                *which,
            )
        )
    return int(found or 0)


async def test_closed_periods_cost_what_was_invoiced_for_them(world: World) -> None:
    till = open_till(world.database)
    account_id = await spend_half_a_year(till)
    periods = await periods_of(world, account_id)
    closed = [period for period in periods if period.closed_at is not None]
    assert len(closed) == 5
    for period in closed:
        days = (period.start_at.astimezone(ZONE).date(), period.end_at.astimezone(ZONE).date())
        within = (InvoiceLine.period_start >= period.start_at, InvoiceLine.period_start < period.end_at)
        expected = await sum_of(world, account_id, *within)
        assert total(await spend(world, account_id, days=days)) == expected > 0
    # Late usage and its correction are on invoices of later periods.
    corrected = InvoiceLine.kind == LineKind.CORRECTION
    assert await sum_of(world, account_id, corrected, InvoiceLine.amount_minor > 0) == 2_000
    assert await sum_of(world, account_id, corrected, InvoiceLine.amount_minor < 0) == -1_000


async def test_all_groupings_sum_to_the_total(world: World) -> None:
    till = open_till(world.database)
    account_id = await spend_half_a_year(till)
    invoiced = SpendBasis.INVOICED
    subtotals = await sum_of(world, account_id)
    assert total(await spend(world, account_id, basis=invoiced)) == subtotals
    everything = total(await spend(world, account_id))
    assert everything == subtotals
    for groups in GROUPINGS:
        assert total(await spend(world, account_id, groups)) == everything
        if SpendGroup.WORKSPACE not in groups:
            assert total(await spend(world, account_id, groups, invoiced)) == subtotals
    by_workspace = await spend(world, account_id, [SpendGroup.WORKSPACE])
    assert {entry.workspace for entry in by_workspace} == {None, "north", "south", "late"}
    kinds = {entry.kind: entry.amount_minor for entry in await spend(world, account_id, [SpendGroup.LINE_KIND])}
    assert LineKind.CORRECTION not in kinds
    told = {
        entry.kind: entry.amount_minor for entry in await spend(world, account_id, [SpendGroup.LINE_KIND], invoiced)
    }
    assert kinds[LineKind.OVERAGE] == told[LineKind.OVERAGE] + told[LineKind.CORRECTION]
    # Day by day is all of it, too, and a single day is what it says.
    by_day = await spend(world, account_id, [SpendGroup.DAY])
    assert len(by_day) > 6
    for entry in by_day:
        assert entry.day is not None
        alone = await spend(world, account_id, days=(entry.day, entry.day + timedelta(days=1)))
        assert total(alone) == entry.amount_minor


async def test_a_yearly_plan_is_spent_as_its_months_begin(world: World) -> None:
    till = open_till(world.database)
    clock = await open_clock(till, datetime(2025, 1, 31, 10, 0, tzinfo=UTC))
    account_id = await open_account(till, "yearly", clock)
    await order(till, account_id, decisions.decide_start, "starter", Interval.YEAR)
    await advance(till, clock, 4, 2)
    by_day = await spend(world, account_id, [SpendGroup.DAY, SpendGroup.LINE_KIND])
    # 470.00 in twelfths, on the last days of these months: what is to come is not spent yet.
    assert [(entry.day, entry.amount_minor) for entry in by_day] == [
        (date(2025, month, day), 3_917) for month, day in ((1, 31), (2, 28), (3, 31))
    ]
    invoiced = await spend(world, account_id, [SpendGroup.DAY], SpendBasis.INVOICED)
    assert [(entry.day, entry.amount_minor) for entry in invoiced] == [(date(2025, 1, 31), 47_000)]


async def test_what_was_withdrawn_is_not_spent(world: World) -> None:
    till = open_till(world.database)
    clock = await open_clock(till, datetime(2025, 1, 10, 15, 0, tzinfo=UTC))
    account_id = await open_account(till, "withdrawn", clock, collection=CollectionMethod.SEND_INVOICE)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    assert total(await spend(world, account_id)) == 4_900
    await withdraw_open_invoice(till, account_id)
    assert await spend(world, account_id) == []
    assert await spend(world, account_id, basis=SpendBasis.INVOICED) == []


@pytest.mark.parametrize(
    ("first", "end", "basis", "groups", "told"),
    [
        (date(2026, 1, 2), date(2026, 1, 2), "ACCRUED", [], "`from` comes before `to`"),
        (date(1, 1, 1), date(1, 1, 2), "ACCRUED", [], "Days lie between 1970-01-01 and 9999-01-01."),
        (date(9999, 12, 30), date(9999, 12, 31), "ACCRUED", [], "Days lie between"),
        (date(2024, 1, 1), date(2026, 1, 2), "ACCRUED", [], f"at most {MAX_DAYS} days"),
        (date(2026, 1, 1), date(2026, 1, 2), "ACCRUED", ["DAY", "METRIC", "DAY"], "names DAY twice"),
        (date(2026, 1, 1), date(2026, 1, 2), "INVOICED", ["WORKSPACE"], "take the basis ACCRUED"),
    ],
)
def test_bad_questions_are_told_what_to_do(first: date, end: date, basis: str, groups: list[str], told: str) -> None:
    with pytest.raises(RequestRefused, match=told):
        check_question(first, end, SpendBasis(basis), [SpendGroup(group) for group in groups])


async def test_too_many_sums_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plafond.services.explorer.MAX_SUMS", 2)
    await send(world, *(emails(f"e{name}", 40_000, properties={"workspace": name}) for name in "abc"))
    account = await account_of(world)
    days = (NOW.date(), NOW.date() + timedelta(days=1))
    assert [entry.amount_minor for entry in await spend(world, account.id, days=days)] == [10_000]
    with pytest.raises(RequestRefused, match="group by less"):
        await spend(world, account.id, [SpendGroup.WORKSPACE], days=days)


SPEND = """
query($first: Int) {
  billingAccounts(first: $first) { nodes { spend(from: "2026-01-01", to: "2027-01-01", groupBy: [DAY, METRIC]) {
    total { amountMinor } groups { day amount { amountMinor } } } } }
}"""
ASK = """
query($groups: [SpendGroup!]!) { billingAccount(externalId: "acme") {
  spend(from: "2026-11-01", to: "2026-12-01", groupBy: $groups) {
    from to basis total { formatted }
    groups { metric { key } workspace day lineKind amount { amountMinor } } } } }"""


async def test_it_is_asked_of_one_account_and_of_many(world: World, client: Client) -> None:
    await send(world, emails("a", 40_000, properties={"workspace": "north"}))
    data: Any = await client.data(world.operator, ASK, groups=["METRIC", "WORKSPACE", "LINE_KIND"])
    assert data["billingAccount"]["spend"] == {
        "from": "2026-11-01",
        "to": "2026-12-01",
        "basis": "ACCRUED",
        "total": {"formatted": "$169.00"},
        "groups": [
            {
                "metric": None,
                "workspace": None,
                "day": None,
                "lineKind": "SUBSCRIPTION",
                "amount": {"amountMinor": 14_900},
            },
            {
                "metric": {"key": "email_sends"},
                "workspace": "north",
                "day": None,
                "lineKind": "OVERAGE",
                "amount": {"amountMinor": 2_000},
            },
        ],
    }
    counts = []
    for first in (2, 10):
        world.statements.clear()
        await client.data(world.operator, SPEND, first=first)
        counts.append(len(world.statements))
    assert counts[0] == counts[1]


# --- the file --------------------------------------------------------------------------------------------------------


async def test_the_file_has_all_detail_and_the_same_total(world: World) -> None:
    till = open_till(world.database)
    account_id = await spend_half_a_year(till)
    export = await ask_for(
        world,
        "spender",
        kind=ExportKind.SPEND,
        start=datetime(2025, 1, 1, tzinfo=ZONE),
        end=datetime(2025, 7, 1, tzinfo=ZONE),
    )
    await write(world)
    rows = await table_of(world, export)
    assert list(rows[0]) == ["day", "metric", "workspace", "line_kind", "amount_minor", "amount", "currency"]
    found = await spend(world, account_id, list(SpendGroup))
    assert sorted((*row.values(),) for row in rows) == sorted(
        (
            str(entry.day),
            entry.metric_key or "",
            entry.workspace or "",
            str(entry.kind),
            str(entry.amount_minor),
            f"{entry.amount_minor / 100:.2f}",
            "USD",
        )
        for entry in found
    )
    assert [row["day"] for row in rows] == sorted(row["day"] for row in rows)
    assert any(row["amount"].startswith("-") for row in rows), "a number, and no text that is guarded"
    assert (await read_export(world, export.id)).row_count == len(rows) > 10


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"format_": ExportFormat.PDF}, "format"), ({"granularity": Granularity.MONTH}, "granularity")],
)
async def test_spend_is_a_table_by_day(world: World, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await ask_for(world, kind=ExportKind.SPEND, start=NOW - timedelta(days=5), **asked)
    assert refused.value.field == ("input", field)
