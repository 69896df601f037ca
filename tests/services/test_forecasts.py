"""Forecasts of accounts: which days they are made from, when limits and budgets are reached, and what it would cost."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete

from plafond.models import (
    BillingAccount,
    Budget,
    BudgetAction,
    BudgetScope,
    Granularity,
    Metric,
    MetricKind,
    OverageApproval,
    OveragePolicy,
    Role,
    SubscriptionStatus,
    UsageRollup,
)
from plafond.services.forecasts import days_to_read, forecast_usage, list_reaches, overage_at_minor
from plafond.services.history import History
from plafond.services.rules.forecasting import MAX_DAYS, Forecast
from plafond.services.rules.periods import Period, last_buckets
from plafond.services.usage import UsageFigure

from ..conftest import NOW, Client, World
from .helpers import ACTOR, account_of, change_limit, change_subscription

ZONE = "America/New_York"
ID = UUID(int=1)
NOON = datetime(2026, 3, 16, 16, 0, tzinfo=UTC)  # noon in New York, a week after it set its clocks forward
END = datetime(2026, 4, 1, 4, 0, tzinfo=UTC)
ACCOUNT = BillingAccount(
    created_at=NOON, issuer_id=ID, external_id="a", name="A", currency="USD", timezone=ZONE, sequence=0
)
FORECASTS = """query($external: String!) { billingAccount(externalId: $external) {
  usage { used metric { key }
    forecast { value low low50 high50 high confidence basedOnDays reachesLimitAt reaches { percent at } } }
  forecast { value { amountMinor } low { amountMinor } high { amountMinor } low50 { amountMinor }
    high50 { amountMinor } confidence periodEnd basedOnDays
    budgets { budget { scope spent { amountMinor } } reaches { percent at } } } } }"""


def a_figure(
    used: int, limit: int | None = 1_000, *, kind: MetricKind = MetricKind.COUNTER, **given: Any
) -> UsageFigure:
    metric = Metric(created_at=NOON, key="m", name="M", kind=kind, unit="unit", overage_block=100, position=0)
    period = Period(END - timedelta(days=31), END)
    figure = UsageFigure(
        account_id=ID,
        metric=metric,
        used=used,
        held=0,
        allowed=0,
        limit=limit,
        period=period if kind is MetricKind.COUNTER else None,
        period_end=END,
        resets_at=None,
        policy=OveragePolicy.CHARGE,
        setting=None,
        approval=None,
        may_pass=True,
        is_sold=True,
        overage_price_minor=7,
        sequence=1,
    )
    return replace(figure, **given)


def a_history(*changes: int) -> History:
    """What changed on the last days, today being the last of them."""
    days = last_buckets(NOON, ZONE, Granularity.DAY, len(changes))
    return History({("m", day.start): change for day, change in zip(days, changes, strict=True) if change})


def forecast(figure: UsageFigure, *changes: int, status: SubscriptionStatus | None = None) -> Forecast | None:
    return forecast_usage(ACCOUNT, status, figure, a_history(*changes), NOON)


def test_the_running_day_is_no_day_yet() -> None:
    for today in (0, 3, 10_000):
        found = forecast(a_figure(500), *[48] * 30, today)
        assert found is not None
        assert (found.based_on_days, found.low, found.high) == (30, 500 + 24 + 15 * 48, 500 + 24 + 15 * 48)


def test_days_count_from_the_first_usage_on() -> None:
    found = forecast(a_figure(160), *[0] * 40, *[10] * 16, 0)
    assert found is not None
    assert (found.based_on_days, found.value) == (16, 160 + 5 + 150)
    assert forecast(a_figure(3), 3) is None
    assert forecast(a_figure(0), *[0] * 50) is None


def test_no_more_than_half_a_year_is_read() -> None:
    key = days_to_read(ACCOUNT, NOON)
    assert key.since == last_buckets(NOON, ZONE, Granularity.DAY, MAX_DAYS + 1)[0].start
    found = forecast(a_figure(0), *[1] * (MAX_DAYS + 1))
    assert found is not None
    assert found.based_on_days == MAX_DAYS


def test_a_level_that_came_at_once_does_not_go_on_rising() -> None:
    gauge = a_figure(25, kind=MetricKind.GAUGE)
    found = forecast(gauge, 0, 25, *[0] * 20, 0)
    assert found is not None
    assert (found.based_on_days, found.low, found.value, found.high) == (20, 25, 25, 25)
    stands = forecast(gauge, 0)
    assert stands is not None
    assert (stands.based_on_days, stands.value) == (MAX_DAYS, 25)


def test_a_level_that_rises_reaches_its_limit() -> None:
    found = forecast(a_figure(60, kind=MetricKind.GAUGE), 10, *[2] * 24, 2)
    assert found is not None
    assert found.value == 60 + 1 + 15 * 2
    reaches = list_reaches(a_figure(60, 90, kind=MetricKind.GAUGE), found, [50, 80, 100, 150])
    assert [reach.percent for reach in reaches] == [80, 100, 150]
    # 72 is reached as soon as it rounds to it: after 11.5 of the 31 steps that two a day make.
    at_80, at_100, at_150 = (reach.at for reach in reaches)
    assert at_80 is not None
    assert abs(at_80 - (NOON + timedelta(days=5, hours=18))) < timedelta(minutes=2)
    assert at_100 is not None
    assert NOON + timedelta(days=14) < at_100 < END
    assert at_150 is None


def test_a_limit_of_nothing_is_reached_by_the_first_use_and_none_never() -> None:
    found = forecast(a_figure(0), *[48] * 20, 0)
    assert found is not None
    (reach,) = list_reaches(a_figure(0, 0), found, [100])
    assert reach.at is not None
    assert reach.at - NOON < timedelta(hours=1)
    assert list_reaches(a_figure(0, None), found, [100]) == []


@pytest.mark.parametrize("status", [*SubscriptionStatus, None])
def test_where_no_usage_is_taken_none_is_forecast(status: SubscriptionStatus | None) -> None:
    found = forecast(a_figure(5), *[5] * 20, status=status)
    takes_none = (SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED)
    assert (found is None) == (status in takes_none)


# -- money --


def approved(blocks: int | None) -> OverageApproval:
    return OverageApproval(
        account_id=ID, metric_key="m", period_start=NOON, blocks=blocks, approved_by="operator:1", approved_at=NOON
    )


@pytest.mark.parametrize(
    ("given", "quantity", "expected"),
    [
        ({}, 1_000, 0),
        ({}, 1_001, 7),
        ({}, 1_100, 7),
        ({}, 1_101, 14),
        ({"limit": None}, 10**9, 0),
        ({"is_sold": False}, 5_000, 0),
        ({"policy": OveragePolicy.BLOCK}, 5_000, 0),
        ({"policy": OveragePolicy.BLOCK, "used": 1_150}, 5_000, 14),  # what was taken before the policy was changed
        ({"policy": OveragePolicy.ASK}, 5_000, 0),
        ({"policy": OveragePolicy.ASK, "approval": approved(2)}, 5_000, 14),
        ({"policy": OveragePolicy.ASK, "approval": approved(None)}, 1_250, 21),
        ({"policy": OveragePolicy.ALLOW}, 5_000, 0),
        ({"used": 1_300, "allowed": 200}, 1_300, 7),
        ({"used": 1_300, "allowed": 200}, 1_350, 14),
    ],
)
def test_the_overage_of_a_quantity_is_what_the_close_would_rate(
    given: dict[str, Any], quantity: int, expected: int
) -> None:
    figure = a_figure(given.pop("used", 900), **given)
    assert overage_at_minor(figure, quantity) == expected
    assert overage_at_minor(figure, figure.used) == figure.overage_minor


# -- from the database --


async def ask(client: Client, token: str, external: str = "acme") -> Any:
    return (await client.data(token, FORECASTS, external=external))["billingAccount"]


def minors(spend: Any) -> list[int]:
    return [spend[name]["amountMinor"] for name in ("low", "low50", "value", "high50", "high")]


async def test_usage_and_spend_head_where_the_days_say(client: Client, world: World) -> None:
    account = await ask(client, world.operator)
    emails, *gauges = account["usage"]
    found = emails["forecast"]
    assert found["basedOnDays"] == MAX_DAYS
    assert emails["used"] < found["low"] <= found["low50"] <= found["value"] <= found["high50"] <= found["high"]
    assert 0.3 < found["confidence"] <= 1
    assert found["reachesLimitAt"] is None
    assert [reach["percent"] for reach in found["reaches"]] == [80, 90, 95, 100]
    assert all(gauge["forecast"]["low"] <= gauge["used"] <= gauge["forecast"]["high"] for gauge in gauges)
    assert minors(account["forecast"]) == [
        14_900 + 1_000 * (found[name] > 50_000) for name in ("low", "low50", "value", "high50", "high")
    ]
    assert account["forecast"]["basedOnDays"] == MAX_DAYS


async def test_budgets_are_reached_when_the_forecast_overage_is(client: Client, world: World) -> None:
    """Acme has used 23,450 and pays 149.00, with a budget of 200.00; a block above its limit costs 10.00."""
    acme = await account_of(world)
    before = await ask(client, world.operator)
    await change_limit(world, before["usage"][0]["forecast"]["value"] - 15_000)
    async with world.database.work(ACTOR) as work:
        work.session.add(
            Budget(
                created_at=NOW,
                account_id=acme.id,
                scope=BudgetScope.METRIC,
                subject="email_sends",
                limit_minor=2_000,
                thresholds=[50, 100, 300],
                action=BudgetAction.ALERT_ONLY,
            )
        )
    account = await ask(client, world.operator)
    spend, emails = account["forecast"], account["usage"][0]["forecast"]
    assert spend["value"]["amountMinor"] == 14_900 + 2 * 1_000
    assert minors(spend) == sorted(minors(spend))
    by_scope = {item["budget"]["scope"]: item for item in spend["budgets"]}
    assert [by_scope[scope]["budget"]["spent"]["amountMinor"] for scope in ("ACCOUNT", "METRIC")] == [14_900, 0]
    of_account, of_metric = by_scope["ACCOUNT"]["reaches"], by_scope["METRIC"]["reaches"]
    assert [reach["percent"] for reach in of_metric] == [50, 100, 300]
    first, second, third = (reach["at"] for reach in of_metric)
    # The first unit above the limit starts a block.
    passed = datetime.fromisoformat(first) - datetime.fromisoformat(emails["reachesLimitAt"])
    assert timedelta(0) <= passed < timedelta(minutes=5)
    assert first < second < spend["periodEnd"]
    assert third is None
    # 160.00 of 200.00 with the second block
    assert of_account == [{"percent": 80, "at": second}, {"percent": 100, "at": None}]


async def test_without_a_plan_that_costs_no_spend_is_forecast(client: Client, world: World) -> None:
    trial = await ask(client, world.operator, "elmtree")
    assert trial["forecast"] is None
    assert trial["usage"][0]["forecast"] is not None
    await change_subscription(world, "acme", status=SubscriptionStatus.SUSPENDED)
    suspended = await ask(client, world.operator)
    assert suspended["forecast"] is None
    assert [item["forecast"] for item in suspended["usage"]] == [None] * 4


async def test_spend_of_a_metric_without_history_is_not_trusted(client: Client, world: World) -> None:
    acme = await account_of(world)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(delete(UsageRollup).where(UsageRollup.account_id == acme.id))
    account = await ask(client, world.operator)
    assert account["usage"][0]["forecast"] is None
    assert minors(account["forecast"]) == [14_900] * 5
    assert (account["forecast"]["confidence"], account["forecast"]["basedOnDays"]) == (0, 0)


async def test_a_member_sees_where_usage_is_heading_and_no_money(client: Client, world: World) -> None:
    answer: Any = await client.ask(world.token("Acme", Role.MEMBER), FORECASTS, external="acme")
    account = answer["data"]["billingAccount"]
    assert account["forecast"] is None
    assert account["usage"][0]["forecast"]["value"] > account["usage"][0]["used"]
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}
