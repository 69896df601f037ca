"""Backtests: what real months were, to the cent, and what a budget would have made of them."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from plafond.models import BudgetAction, BudgetScope, Interval, UsageCost
from plafond.schema.node import encode_id
from plafond.services import decisions
from plafond.services.accounts import load_accounts
from plafond.services.backtests import run_backtest
from plafond.services.budgets import BudgetInput
from plafond.services.errors import BillingError
from plafond.services.rules.backtest import Outcome

from ..conftest import Client, World
from .engine import advance, open_account, open_clock, open_till, order, send_emails, spend_half_a_year
from .helpers import account_of
from .test_explorer import spend, total

# Starter with two users more: before any overage.
FIXED = 4_900 + 2 * 1_500
THE_19TH = date(2025, 1, 19)


async def run(world: World, account_id: UUID, limit_minor: int, months: int = 24, **given: Any) -> list[Outcome]:
    asked: dict[str, Any] = {"scope": BudgetScope.ACCOUNT, "currency": "USD", **given}
    async with world.database.read() as session:
        [account] = await load_accounts(session, [account_id])
        assert account is not None
        return await run_backtest(session, account, BudgetInput(limit_minor=limit_minor, **asked), months)


async def costs(world: World, account_id: UUID, *which: Any) -> dict[datetime, int]:
    """What usage cost, by period."""
    async with world.database.read() as session:
        rows = await session.execute(
            select(UsageCost.period_start, func.sum(UsageCost.cost_minor))
            .where(UsageCost.account_id == account_id, *which)
            .group_by(UsageCost.period_start)
        )
        return {start: int(cost) for start, cost in rows}


async def test_what_was_spent_is_what_was_spent(world: World) -> None:
    account_id = await spend_half_a_year(open_till(world.database))
    block = BudgetAction.BLOCK_OVERAGE
    outcomes = await run(world, account_id, 10**9, action=block)
    assert len(outcomes) == 5
    for outcome in outcomes:
        days = (outcome.period.start.date(), outcome.period.end.date())
        assert outcome.period.spent_minor == total(await spend(world, account_id, days=days)) > 0
        assert (outcome.saved_minor, outcome.reached, dict(outcome.refused)) == (0, {}, {})
    assert [each.period.start for each in await run(world, account_id, 10**9, months=2)] == [
        outcome.period.start for outcome in outcomes[-2:]
    ]
    of_metric = await run(world, account_id, 10**9, scope=BudgetScope.METRIC, metric="email_sends")
    expected = await costs(world, account_id)
    extra_emails = 1_000
    assert [each.period.spent_minor - sum(each.period.fixed.values()) for each in of_metric] == [
        expected.get(each.period.start, 0) for each in of_metric
    ]
    assert sum(of_metric[-1].period.fixed.values()) == extra_emails
    for name in ("north", "south", "late"):
        found = await run(world, account_id, 10**9, scope=BudgetScope.WORKSPACE, workspace=name, action=block)
        expected = await costs(world, account_id, UsageCost.workspace == name)
        assert [each.period.spent_minor for each in found] == [expected.get(each.period.start, 0) for each in found]
        assert [each.saved_minor for each in found] == [0] * 5


async def test_a_block_would_have_saved_what_it_refused(world: World) -> None:
    account_id = await spend_half_a_year(open_till(world.database))
    block = BudgetAction.BLOCK_OVERAGE
    january = (await run(world, account_id, FIXED + 3_000, action=block))[0]
    # 30,001 on the 15th are three blocks above 10,000; of 25,000 on the 19th 9,999 fill the third; 9,000 go back.
    assert january.reached == {80: date(2025, 1, 15), 100: date(2025, 1, 15)}
    assert (january.blocked_on, dict(january.refused)) == (THE_19TH, {"email_sends": 15_001})
    assert (january.period.spent_minor, january.spent_minor, january.saved_minor) == (
        FIXED + 4_000,
        FIXED + 3_000,
        1_000,
    )
    told = (await run(world, account_id, FIXED + 3_001, thresholds=[100, 110, 120]))[0]
    assert (told.reached, told.saved_minor, told.upgraded_on) == ({100: THE_19TH, 110: THE_19TH}, 0, None)
    asked = (await run(world, account_id, FIXED, action=BudgetAction.UPGRADE))[0]
    assert (asked.upgraded_on, asked.saved_minor) == (date(2025, 1, 10), 0)
    south = await run(
        world, account_id, 1_999, scope=BudgetScope.WORKSPACE, workspace="south", action=block, thresholds=[50]
    )
    # South began two blocks on the 15th, and would have begun one of them with what fits.
    assert (south[0].period.spent_minor, south[0].spent_minor) == (2_000, 1_000)
    assert south[0].reached == {50: date(2025, 1, 15)}


async def test_an_hour_that_two_periods_share_counts_for_each_as_it_was(world: World) -> None:
    till = open_till(world.database)
    clock = await open_clock(till, datetime(2025, 1, 10, 15, 30, tzinfo=UTC))
    account_id = await open_account(till, "shared", clock)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    await advance(till, clock, 2, 10, 15, 10)
    await send_emails(till, account_id, 30_001)
    await advance(till, clock, 2, 10, 15, 50)
    await send_emails(till, account_id, 10_002)
    # 10:30 in New York is 14:30 UTC since the clocks changed.
    await advance(till, clock, 3, 10, 14, 20)
    await send_emails(till, account_id, 3)
    await advance(till, clock, 3, 10, 14, 40)
    await send_emails(till, account_id, 50_000)
    await advance(till, clock, 4, 12)
    outcomes = await run(world, account_id, 5_900, action=BudgetAction.BLOCK_OVERAGE)
    assert [each.period.spent_minor for each in outcomes] == [4_900 + 3_000, 4_900 + 1_000, 4_900 + 4_000]
    assert [each.saved_minor for each in outcomes] == [2_000, 0, 3_000]
    assert [dict(each.refused) for each in outcomes] == [{"email_sends": 10_001}, {}, {"email_sends": 30_000}]


BACKTEST = """
query($id: ID!, $limit: MoneyInput!, $thresholds: [Int!], $action: BudgetAction!, $metric: String, $workspace: String,
      $scope: BudgetScope!, $months: Int!) {
  billingAccount(id: $id) {
    budgetBacktest(limit: $limit, thresholds: $thresholds, action: $action, scope: $scope, metric: $metric,
                   workspace: $workspace, months: $months) {
      spent { amountMinor } saved { amountMinor } refused { metric { key } quantity }
      periods { start end spent { amountMinor } saved { amountMinor } alerts { percent level at } blockedAt upgradedAt
        refused { metric { key } quantity } } } } }"""
GIVEN: dict[str, Any] = {
    "limit": {"amountMinor": FIXED + 3_000, "currency": "USD"},
    "action": "BLOCK_OVERAGE",
    "scope": "ACCOUNT",
    "months": 24,
}


async def test_it_is_asked_through_the_api(world: World, client: Client) -> None:
    account_id = await spend_half_a_year(open_till(world.database))
    id_ = encode_id("BillingAccount", account_id)
    counts = []
    for months in (3, 24):
        world.statements.clear()
        data: Any = await client.data(world.operator, BACKTEST, **GIVEN | {"id": id_, "months": months})
        counts.append(len(world.statements))
    assert counts[0] == counts[1]
    found = data["billingAccount"]["budgetBacktest"]
    assert found["periods"][0] == {
        "start": "2025-01-10T15:00:00Z",
        "end": "2025-02-10T15:00:00Z",
        "spent": {"amountMinor": FIXED + 4_000},
        "saved": {"amountMinor": 1_000},
        "alerts": [
            {"percent": 80, "level": "WARNING", "at": "2025-01-15"},
            {"percent": 100, "level": "LIMIT_REACHED", "at": "2025-01-15"},
        ],
        "blockedAt": "2025-01-19",
        "upgradedAt": None,
        "refused": [{"metric": {"key": "email_sends"}, "quantity": 15_001}],
    }
    for amount in ("spent", "saved"):
        assert found[amount]["amountMinor"] == sum(period[amount]["amountMinor"] for period in found["periods"])
    assert found["refused"][0]["quantity"] == sum(
        each["quantity"] for period in found["periods"] for each in period["refused"]
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"limit": {"amountMinor": 0, "currency": "USD"}}, "from 1 to"),
        ({"limit": {"amountMinor": -5, "currency": "USD"}}, "from 1 to"),
        ({"limit": {"amountMinor": 5, "currency": "EUR"}}, "The account pays in USD, not in EUR"),
        ({"thresholds": [80, 80]}, "80 % stands here twice."),
        ({"thresholds": [1_001]}, "from 1 to 1000 %"),
        ({"thresholds": []}, "1 to 10 thresholds"),
        ({"months": 25}, "`months` is a whole number from 1 to 24, not 25."),
        ({"months": 0}, "from 1 to 24, not 0."),
        ({"scope": "METRIC"}, "names its metric"),
        ({"scope": "METRIC", "metric": "faxes"}, "There is no metric with this key"),
        ({"scope": "WORKSPACE", "workspace": "nowhere"}, "No event of the account has named this workspace"),
        ({"metric": "email_sends"}, "names no metric"),
    ],
)
async def test_bad_input_is_told_what_to_do(world: World, client: Client, given: dict[str, Any], told: str) -> None:
    id_ = encode_id("BillingAccount", (await account_of(world)).id)
    answer: Any = await client.ask(world.operator, BACKTEST, **GIVEN | {"id": id_} | given)
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert told in error["message"]
    assert answer["data"]["billingAccount"]["budgetBacktest"] is None


async def test_without_a_closed_period_there_is_nothing_to_replay(world: World) -> None:
    till = open_till(world.database)
    clock = await open_clock(till, datetime(2025, 1, 10, 15, 30, tzinfo=UTC))
    account_id = await open_account(till, "young", clock)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    with pytest.raises(BillingError, match="no closed usage period yet"):
        await run(world, account_id, 5_000)
