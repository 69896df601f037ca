"""Budgets: what is spent moves with what spends it, alerts are raised, and a block holds."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from plafond.models import (
    Budget,
    BudgetAction,
    BudgetPeriod,
    BudgetScope,
    Interval,
    InvoiceLine,
    LineKind,
    Notice,
    Quote,
    Subscription,
    UsageCost,
    WorkKind,
)
from plafond.schema.node import encode_id
from plafond.services import decisions
from plafond.services.auditing import audit
from plafond.services.budgets import BudgetInput, remove_budget, set_budget
from plafond.services.catalogue_changes import set_metric
from plafond.services.duties import do_due
from plafond.services.errors import BillingError, list_refusals
from plafond.services.usage import UsageInput

from ..conftest import Client, World
from .engine import advance, cancel_now, open_account, open_clock, open_till, order, send_emails
from .helpers import ACTOR, OPERATOR, account_of, alerts_of, codes, emails, outbox_of, period_of, send

# Acme is on professional, 149.00 a month: of 50,000 e-mails 23,450 are sent, and each block of 10,000 more costs 10.00.
PLAN = 14_900
LEFT = 50_000 - 23_450


async def put(world: World, limit_minor: int, name: str = "acme", **given: Any) -> Budget:
    """A budget; blocking and the account's own, unless something else is said."""
    asked = {"scope": BudgetScope.ACCOUNT, "currency": "USD", "action": BudgetAction.BLOCK_OVERAGE, **given}
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        return await set_budget(work, OPERATOR, account.id, BudgetInput(limit_minor=limit_minor, **asked))


async def spent(world: World, budget: Budget, at: datetime | None = None) -> int:
    """What is spent under a budget in the newest usage period, or in that of an instant."""
    async with world.database.read() as session:
        rows = await session.scalars(
            select(BudgetPeriod).where(BudgetPeriod.budget_id == budget.id).order_by(BudgetPeriod.period_start.desc())
        )
        return next(row.spent_minor for row in rows if at is None or row.period_start <= at < row.period_end)


async def costs(world: World, *of: Any) -> dict[tuple[Any, ...], int]:
    """What usage cost, by the columns given."""
    async with world.database.read() as session:
        rows = await session.execute(select(*of, func.sum(UsageCost.cost_minor)).group_by(*of))
        return {tuple(key): int(cost) for *key, cost in rows}


async def raised(world: World, budget: Budget, name: str = "acme") -> list[tuple[int, int, bool]]:
    """The alerts of a budget: threshold, spend, whether it is open."""
    found = await alerts_of(world, name, str(budget.id))
    return [(alert.threshold, alert.used, alert.resolved_at is None) for alert in found]


@pytest.fixture(autouse=True)
async def in_order(world: World) -> AsyncGenerator[None]:
    """After each test the audit finds nothing: costs, ratings and budgets agree."""
    yield
    async with world.database.read() as session:
        found = await audit(session, world.clock.stands_at)
    assert [finding for finding in found if finding.invariant in ("I7", "I9")] == []


async def test_spend_moves_with_the_event_that_begins_a_block(world: World) -> None:
    budget = await put(world, 18_000, action=BudgetAction.ALERT_ONLY)
    assert await spent(world, budget) == PLAN
    assert await raised(world, budget) == [(80, PLAN, True)]
    await send(world, emails("a", LEFT))
    assert await spent(world, budget) == PLAN
    await send(world, emails("b", 1, properties={"workspace": "north"}), emails("c", 9_999))
    assert await spent(world, budget) == PLAN + 1_000
    await send(world, emails("d", 20_001, properties={"workspace": "south"}), emails("e", 9_999))
    assert await spent(world, budget) == PLAN + 4_000
    assert await raised(world, budget) == [(80, PLAN, True), (100, PLAN + 4_000, True)]
    # North began the first block, south the three after it.
    assert await costs(world, UsageCost.workspace) == {("north",): 1_000, ("south",): 3_000}


async def test_a_block_lets_pass_what_costs_nothing_and_what_spends_the_budget_exactly(world: World) -> None:
    budget = await put(world, PLAN + 2_000)
    assert codes(await send(world, emails("a", LEFT + 20_000))) == ["ACCEPTED"]
    assert await spent(world, budget) == PLAN + 2_000
    (refused,) = await send(world, emails("b"))
    assert (refused.code, refused.budget_id) == ("BUDGET_EXCEEDED", budget.id)
    assert refused.message == (
        "The account's budget leaves no room for what this would cost: `setBudget` raises it, and a new usage period "
        "begins anew."
    )
    await put(world, PLAN + 3_000)
    assert codes(await send(world, emails("b"), emails("c", 9_999), emails("d"))) == [
        "ACCEPTED",
        "ACCEPTED",
        "BUDGET_EXCEEDED",
    ]
    account = await account_of(world)
    blocked = [event for event in await outbox_of(world) if event.kind == "budget.blocked"]
    assert [event.payload["spentMinor"] for event in blocked] == [PLAN + 2_000, PLAN + 3_000]
    async with world.database.read() as session:
        notices = await session.scalars(
            select(Notice.code).where(Notice.account_id == account.id, Notice.code == "BUDGET_BLOCKED")
        )
        assert notices.all() == ["BUDGET_BLOCKED"]


async def test_case_22_a_budget_lowered_under_the_spend_acts_at_once(world: World) -> None:
    budget = await put(world, 25_000)
    await send(world, emails("a", LEFT + 10_000))
    assert await raised(world, budget) == []
    await put(world, 15_000)
    assert await raised(world, budget) == [(80, PLAN + 1_000, True), (100, PLAN + 1_000, True)]
    assert codes(await send(world, emails("b"))) == ["BUDGET_EXCEEDED"]
    await put(world, 30_000)
    assert await raised(world, budget) == [(80, PLAN + 1_000, False), (100, PLAN + 1_000, False)]
    assert codes(await send(world, emails("c"))) == ["ACCEPTED"]


async def test_case_21_a_hundred_senders_never_overshoot(world: World) -> None:
    """Of 200.00, five blocks fit beside the plan: the sixth would be 209.00."""
    budget = await put(world, 20_000)

    async def post(number: int) -> list[str]:
        return codes(await send(world, emails(f"race-{number}", 10_000)))

    answers = [code for codes_ in await asyncio.gather(*map(post, range(100))) for code in codes_]
    assert answers.count("ACCEPTED") == 7
    assert answers.count("BUDGET_EXCEEDED") == 93
    assert await spent(world, budget) == 19_900


RESERVE = """
mutation ($input: ReserveUsageInput!) {
  reserveUsage(input: $input) { reservation { id } userErrors { code } }
}"""
STATE = """
query ($id: ID) {
  billingAccount(id: $id) { budgets { held { amountMinor } remaining { amountMinor } } }
}"""


async def test_case_21_reservations_hold_the_money_of_their_overage(world: World, client: Client) -> None:
    budget = await put(world, 20_000)
    asked = {"externalId": "acme", "metric": "email_sends", "quantity": 10_000}
    answers = await asyncio.gather(*(client.data(world.operator, RESERVE, input=asked) for _ in range(30)))
    made: list[str] = [
        answer["reserveUsage"]["reservation"]["id"]  # type: ignore[index]
        for answer in answers
        if answer["reserveUsage"]["reservation"]  # type: ignore[index]
    ]
    assert len(made) == 7
    assert await spent(world, budget) == PLAN
    account = await account_of(world)
    data: Any = await client.data(world.operator, STATE, id=encode_id("BillingAccount", account.id))
    (shown,) = data["billingAccount"]["budgets"]
    assert shown["held"] == {"amountMinor": 5_000}
    assert shown["remaining"] == {"amountMinor": 100}
    # What is held is as good as spent for all others; what costs nothing more passes.
    assert codes(await send(world, emails("a", 6_551), emails("b", 6_549))) == ["BUDGET_EXCEEDED", "ACCEPTED"]
    commit = "mutation ($id: ID!) { commitReservation(input: { reservationId: $id }) { userErrors { code } } }"
    for id_ in made:
        done: Any = await client.data(world.operator, commit, id=id_)
        assert done["commitReservation"]["userErrors"] == []
    assert await spent(world, budget) == 19_900
    world.clock.stands_at += timedelta(seconds=301)
    assert codes(await send(world, emails("c", 10_000))) == ["BUDGET_EXCEEDED"]


async def test_a_workspace_and_a_metric_have_budgets_of_their_own(world: World) -> None:
    def of(workspace: str, event_id: str, quantity: int) -> UsageInput:
        return emails(event_id, quantity, properties={"workspace": workspace})

    await send(world, of("north", "n0", 1), of("south", "s0", LEFT - 1))
    north = await put(world, 2_500, scope=BudgetScope.WORKSPACE, workspace="north")
    metric = await put(world, 4_000, scope=BudgetScope.METRIC, metric="email_sends")
    assert codes(await send(world, of("north", "n1", 15_000))) == ["ACCEPTED"]
    (refused,) = await send(world, of("north", "n2", 5_001))
    assert refused.budget_id == north.id
    assert refused.message is not None
    assert refused.message.startswith("The budget of the workspace north leaves no room")
    results = await send(world, of("south", "s1", 20_000), of("south", "s2", 5_001), of("north", "n3", 5_000))
    assert [(result.status, result.budget_id) for result in results] == [
        ("ACCEPTED", None),
        ("REJECTED", metric.id),
        ("ACCEPTED", None),
    ]
    assert (await spent(world, north), await spent(world, metric)) == (2_000, 4_000)
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        await remove_budget(work, OPERATOR, account.id, metric.id)
    assert codes(await send(world, of("south", "s3", 5_001), of("north", "n4", 4_999))) == [
        "ACCEPTED",
        "ACCEPTED",
    ]
    assert await spent(world, north) == 2_000
    told = [event.payload for event in await outbox_of(world) if event.kind == "account.updated"]
    assert [each["changed"] for each in told if each.get("budgetId") == str(metric.id)] == [["budgets"], ["budgets"]]


async def test_what_a_workspace_reserved_costs_it_no_more_than_its_budget(world: World, client: Client) -> None:
    """Which reservation begins a block depends on what others use meanwhile: the budget holds all the same."""
    await send(world, emails("a", LEFT + 5_000), emails("b", 1, properties={"workspace": "north"}))
    north = await put(world, 1_000, scope=BudgetScope.WORKSPACE, workspace="north")
    asked = {
        "externalId": "acme",
        "metric": "email_sends",
        "quantity": 4_999,
        "properties": {"workspace": "north"},
    }
    made: Any = await client.data(world.operator, RESERVE, input=asked)
    # The block is begun, and there is room in it for what is held; south takes that room.
    assert codes(await send(world, emails("c", 4_999, properties={"workspace": "south"}))) == ["ACCEPTED"]
    more: Any = await client.data(world.operator, RESERVE, input=asked | {"quantity": 10_001})
    assert more["reserveUsage"]["userErrors"] == [{"code": "BUDGET_EXCEEDED"}]
    commit = "mutation ($id: ID!) { commitReservation(input: { reservationId: $id }) { userErrors { code } } }"
    done: Any = await client.data(world.operator, commit, id=made["reserveUsage"]["reservation"]["id"])
    assert done["commitReservation"]["userErrors"] == []
    assert await spent(world, north) <= 1_000


async def test_a_change_of_the_limit_computes_the_costs_anew(world: World) -> None:
    budget = await put(world, 16_000, action=BudgetAction.ALERT_ONLY)
    await send(
        world,
        emails("a", LEFT + 1, properties={"workspace": "north"}),
        emails("b", 14_000, properties={"workspace": "south"}),
    )
    assert await costs(world, UsageCost.workspace) == {("north",): 1_000, ("south",): 1_000}
    account = await account_of(world)
    till = open_till(world.database)
    await order(till, account.id, decisions.decide_add_on, "extra_emails", 1)
    # The add-on of 10.00 takes the place of the first block: south begins the only one that is left.
    assert await costs(world, UsageCost.workspace) == {("south",): 1_000}
    assert await spent(world, budget) == PLAN + 2_000
    await order(till, account.id, decisions.decide_change, "business", Interval.MONTH)
    assert await costs(world, UsageCost.workspace) == {}
    assert [alert.resolved_at for alert in await alerts_of(world, metric=str(budget.id))] == [None, None]


async def test_late_usage_reaches_the_budget_of_its_period_and_raises_nothing(world: World) -> None:
    budget = await put(world, 100_000, action=BudgetAction.ALERT_ONLY)
    ended = await period_of(world)
    before = await spent(world, budget)
    world.clock.stands_at = ended.end + timedelta(minutes=1)
    # The worker has not closed the period yet, and usage counts already beside what the next one will cost.
    await put(world, PLAN + 1_000)
    results = await send(world, emails("now", 60_000), emails("more"), emails("late", 90_000, occurred_at=ended.start))
    assert codes(results) == ["ACCEPTED", "BUDGET_EXCEEDED", "ACCEPTED"]
    while await do_due(open_till(world.database), account_id=(await account_of(world)).id):
        pass
    assert (await spent(world, budget, ended.start), await spent(world, budget)) == (before + 7_000, PLAN + 1_000)
    assert await raised(world, budget) == [(80, PLAN, True), (100, PLAN + 1_000, True)]


async def test_an_annual_plan_is_spent_in_twelfths_and_history_is_kept(world: World) -> None:
    till = open_till(world.database)
    clock = await open_clock(till, datetime(2025, 1, 31, 10, 0, tzinfo=UTC))
    account_id = await open_account(till, "yearly", clock)
    await order(till, account_id, decisions.decide_start, "starter", Interval.YEAR)
    budget = await put(world, 10_000, "yearly", action=BudgetAction.ALERT_ONLY)
    # 470.00 in twelfths by largest remainder: eight of 39.17, four of 39.16.
    assert await spent(world, budget) == 3_917
    await send_emails(till, account_id, 10_001)
    assert await spent(world, budget) == 4_917
    await advance(till, clock, 3, 15)
    await order(till, account_id, decisions.decide_change, "professional", Interval.YEAR)
    # The rest of the year counts in equal parts from March on, what is given back of starter too.
    parts = await spent(world, budget)
    await advance(till, clock, 12, 31)
    async with world.database.read() as session:
        rows = (
            await session.scalars(
                select(BudgetPeriod).where(BudgetPeriod.budget_id == budget.id).order_by(BudgetPeriod.period_start)
            )
        ).all()
        net = await session.scalar(
            select(func.sum(InvoiceLine.amount_minor)).where(
                InvoiceLine.account_id == account_id, InvoiceLine.kind != LineKind.OVERAGE
            )
        )
    assert [row.spent_minor for row in rows][:2] == [4_917, parts]
    assert len(rows) == 12
    assert sum(row.spent_minor for row in rows) == (net or 0) + 1_000
    assert {row.limit_minor for row in rows} == {10_000}


async def test_a_moved_anchor_and_a_cancellation_cut_periods(world: World) -> None:
    till = open_till(world.database)
    clock = await open_clock(till, datetime(2025, 3, 1, 10, 0, tzinfo=UTC))
    account_id = await open_account(till, "mover", clock)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    budget = await put(world, 5_000, "mover", action=BudgetAction.ALERT_ONLY)
    await send_emails(till, account_id, 10_001)
    await advance(till, clock, 3, 11)
    await order(till, account_id, decisions.decide_change, "starter", Interval.YEAR)
    async with world.database.read() as session:
        rows = (
            await session.scalars(
                select(BudgetPeriod).where(BudgetPeriod.budget_id == budget.id).order_by(BudgetPeriod.period_start)
            )
        ).all()
    moved = datetime(2025, 3, 11, 12, 0, tzinfo=UTC)
    assert [(row.period_start.day, row.period_end) for row in rows] == [
        (1, moved),
        (11, datetime(2025, 4, 11, 12, 0, tzinfo=UTC)),
    ]
    # What is given back of March (501 of 743 hours, in New York) is given back of what was spent there.
    assert [row.spent_minor for row in rows] == [5_900 - 3_304, 3_917]
    assert [open_ for *_, open_ in await raised(world, budget, "mover")] == [False, False]
    await send_emails(till, account_id, 60_000)
    assert [open_ for *_, open_ in await raised(world, budget, "mover")] == [False, False, True, True]
    await cancel_now(till, account_id, prorated=True)
    assert not any(open_ for *_, open_ in await raised(world, budget, "mover"))


async def test_what_it_stops_is_told_once_up_to_the_periods_end(world: World) -> None:
    """Minutes before the end usage may be stamped in the next period, which is foreseen and not written."""
    budget = await put(world, PLAN + 1_000)
    await send(world, emails("a", LEFT + 10_000), emails("over"))
    ends = (await period_of(world)).end
    world.clock.stands_at = ends - timedelta(minutes=2)
    ahead = emails("ahead", 60_000, occurred_at=ends + timedelta(seconds=30))
    assert codes(await send(world, ahead, emails("more", 1), dry_run=True)) == ["ACCEPTED", "BUDGET_EXCEEDED"]
    assert codes(await send(world, emails("again"), ahead, emails("far", 20_000, occurred_at=ends))) == [
        "BUDGET_EXCEEDED",
        "ACCEPTED",
        "BUDGET_EXCEEDED",
    ]
    kinds = [event.kind for event in await outbox_of(world) if event.kind == "budget.blocked"]
    assert kinds == ["budget.blocked", "budget.blocked"], "each period has its own"
    await put(world, PLAN + 2_000)
    world.clock.stands_at = ends
    while await do_due(open_till(world.database), account_id=budget.account_id):
        pass
    assert await spent(world, budget) == PLAN + 1_000
    assert codes(await send(world, emails("later", 10_000), emails("last", 1))) == ["ACCEPTED", "BUDGET_EXCEEDED"]


async def test_a_correction_resolves_nothing_now_or_later(world: World) -> None:
    budget = await put(world, PLAN + 1_000, action=BudgetAction.ALERT_ONLY)
    await send(world, emails("a", LEFT + 1))
    await send(world, emails("b", -2, correction=True))
    assert await spent(world, budget) == PLAN
    await put(world, 50_000, scope=BudgetScope.METRIC, metric="email_sends")  # all is reckoned anew
    assert await raised(world, budget) == [(80, PLAN, True), (100, PLAN + 1_000, True)]
    await send(world, emails("c", 2))
    assert await raised(world, budget) == [(80, PLAN, True), (100, PLAN + 1_000, True)]


async def test_a_budget_raised_in_time_upgrades_nothing_until_it_is_spent_again(world: World) -> None:
    given: dict[str, Any] = {"action": BudgetAction.UPGRADE, "ceiling_minor": 40_000, "ceiling_currency": "USD"}
    budget = await put(world, PLAN + 500, **given)
    await send(world, emails("a", LEFT + 1))
    await put(world, PLAN + 1_500, **given)
    till = open_till(world.database)
    while await do_due(till, account_id=budget.account_id):
        pass
    assert await notices_of(world) == {}
    await send(world, emails("b", 10_000))
    while await do_due(till, account_id=budget.account_id, kinds=frozenset(WorkKind)):
        pass
    assert (await notices_of(world))["BUDGET_UPGRADED"]["plan"] == "Business"


async def test_twenty_four_usage_periods_are_kept_beside_the_running_one(world: World, client: Client) -> None:
    budget = await put(world, 50_000)
    running = await period_of(world)
    async with world.database.work(ACTOR) as work:
        for back in range(1, 31):
            begun = running.start - timedelta(days=400 + back)
            work.session.add(
                BudgetPeriod(
                    budget_id=budget.id,
                    account_id=budget.account_id,
                    period_start=begun,
                    period_end=begun + timedelta(days=1),
                    limit_minor=1,
                    spent_minor=0,
                    changed_at=begun,
                    sequence=0,
                )
            )
    await put(world, 60_000)
    query = (
        "query ($id: ID) { billingAccount(id: $id) { budget { history(last: 25) { start limit { amountMinor } } } } }"
    )
    account_id = encode_id("BillingAccount", budget.account_id)
    data: Any = await client.data(world.operator, query, id=account_id)
    kept = data["billingAccount"]["budget"]["history"]
    # Acme's own past of closed periods is among them.
    assert len(kept) == 25
    assert kept[0] == {"start": running.start.isoformat().replace("+00:00", "Z"), "limit": {"amountMinor": 60_000}}
    assert sorted((each["start"] for each in kept), reverse=True) == [each["start"] for each in kept]


@pytest.mark.parametrize(
    ("given", "message", "field"),
    [
        ({"limit_minor": 0}, "from 1 to", "limit.amountMinor"),
        ({"limit_minor": -5}, "from 1 to", "limit.amountMinor"),
        ({"currency": "EUR"}, "pays in USD, not in EUR", "limit.currency"),
        ({"thresholds": [80, 80]}, "80 % stands here twice", "thresholds.1"),
        ({"thresholds": [1_001]}, "1 to 1000 %", "thresholds.0"),
        ({"thresholds": []}, "1 to 10 thresholds", "thresholds"),
        ({"scope": BudgetScope.WORKSPACE, "workspace": "nowhere"}, "No event", "workspace"),
        ({"scope": BudgetScope.METRIC, "metric": "faxes"}, "no metric with this key", "metric"),
        ({"scope": BudgetScope.METRIC}, "names its metric", "metric"),
        ({"workspace": "north"}, "names no workspace", "workspace"),
        ({"action": BudgetAction.UPGRADE}, "needs `upgradeCeiling`", "upgradeCeiling"),
        ({"ceiling_minor": 5, "ceiling_currency": "USD"}, "for the action UPGRADE", "upgradeCeiling"),
    ],
)
async def test_what_is_no_budget_is_refused_by_name(
    world: World, given: dict[str, Any], message: str, field: str
) -> None:
    with pytest.raises(BillingError) as refused:
        await put(world, **{"limit_minor": 1_000, **given})
    (refusal,) = list_refusals(refused.value)
    assert message in str(refusal)
    assert ".".join(refusal.field) == f"input.{field}"


async def test_an_account_has_twenty_budgets(world: World) -> None:
    names = [f"w{number}" for number in range(21)]
    await send(world, *(emails(name, properties={"workspace": name}) for name in names))
    *fitting, last = names
    for name in fitting[:19]:  # acme has one of its own
        await put(world, 1_000, scope=BudgetScope.WORKSPACE, workspace=name)
    with pytest.raises(BillingError, match="at most 20 budgets"):
        await put(world, 1_000, scope=BudgetScope.WORKSPACE, workspace=last)


async def upgrading(world: World, ceiling_minor: int, name: str = "acme") -> Budget:
    """A budget that has the plan upgraded, spent by two blocks of overage."""
    budget = await put(
        world,
        PLAN + 1_500,
        name,
        action=BudgetAction.UPGRADE,
        ceiling_minor=ceiling_minor,
        ceiling_currency="USD",
    )
    await send(world, emails("spend", LEFT + 10_001, account=name))
    account = await account_of(world, name)
    while await do_due(open_till(world.database), account_id=account.id, kinds=frozenset(WorkKind)):
        pass
    return budget


async def notices_of(world: World, name: str = "acme") -> dict[str, dict[str, Any]]:
    """The banners about changes of plan."""
    account = await account_of(world, name)
    async with world.database.read() as session:
        rows = await session.execute(
            select(Notice.code, Notice.params).where(Notice.account_id == account.id, Notice.code.like("%UPGRADED"))
        )
        return dict(rows.all())


async def test_a_spent_budget_changes_to_the_next_plan_once(world: World) -> None:
    budget = await upgrading(world, 40_000)
    assert (await notices_of(world))["BUDGET_UPGRADED"]["plan"] == "Business"
    account = await account_of(world)
    async with world.database.read() as session:
        quotes = await session.scalar(select(func.count()).where(Quote.account_id == account.id))
        subscription = (await session.scalars(select(Subscription).where(Subscription.account_id == account.id))).one()
    assert (quotes, subscription.price_minor) == (1, 39_900)
    # Under the new limit the overage is gone; what the change cost is spent, and above the budget once more.
    assert await costs(world, UsageCost.workspace) == {}
    await send(world, emails("more", 200_000))
    while await do_due(open_till(world.database), account_id=account.id, kinds=frozenset(WorkKind)):
        pass
    async with world.database.read() as session:
        assert await session.scalar(select(func.count()).where(Quote.account_id == account.id)) == 1
    assert await spent(world, budget) > PLAN + 1_500


async def test_what_the_plan_costs_by_itself_upgrades_nothing(world: World) -> None:
    budget = await put(world, PLAN, action=BudgetAction.UPGRADE, ceiling_minor=100_000, ceiling_currency="USD")
    till = open_till(world.database)
    while await do_due(till, account_id=budget.account_id, kinds=frozenset(WorkKind)):
        pass
    assert await notices_of(world) == {}
    await send(world, emails("spend", LEFT + 1))
    while await do_due(till, account_id=budget.account_id, kinds=frozenset(WorkKind)):
        pass
    assert (await notices_of(world))["BUDGET_UPGRADED"]["plan"] == "Business"


async def test_a_plan_above_the_ceiling_is_never_changed_to(world: World) -> None:
    await upgrading(world, 39_899)
    assert (await notices_of(world))["BUDGET_NOT_UPGRADED"] == {
        "why": "ABOVE_CEILING",
        "plan": "Business",
        "monthlyMinor": 39_900,
        "ceilingMinor": 39_899,
        "currency": "USD",
    }
    assert await costs(world, UsageCost.workspace) == {("",): 2_000}
    # Raised, it is tried again.
    budget = await put(world, PLAN + 1_500, action=BudgetAction.UPGRADE, ceiling_minor=39_900, ceiling_currency="USD")
    while await do_due(open_till(world.database), account_id=budget.account_id, kinds=frozenset(WorkKind)):
        pass
    assert list(await notices_of(world)) == ["BUDGET_UPGRADED"]


async def test_a_new_price_of_overage_is_reckoned_into_what_is_spent(world: World) -> None:
    budget = await put(world, 30_000, action=BudgetAction.ALERT_ONLY)
    await send(world, emails("a", LEFT + 25_000))
    async with world.database.work(ACTOR) as work:
        await set_metric(
            work,
            {
                "key": "email_sends",
                "name": "Email sends",
                "kind": "COUNTER",
                "unit": "email",
                "overage": {"block": 5_000, "prices": {"USD": 700, "EUR": 700, "GBP": 600, "JPY": 900}},
            },
            tuple,
        )
    while await do_due(open_till(world.database), kinds=frozenset({WorkKind.RECKON_SPEND})):
        pass
    assert await spent(world, budget) == PLAN + 5 * 700
