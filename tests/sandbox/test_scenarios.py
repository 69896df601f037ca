"""Scenarios: each comes to stand in the state that its name says, now."""

from typing import Any

import pytest
from sqlalchemy import func, select

from plafond.database import Actor
from plafond.models import BillingAccount, Role, TestClock
from plafond.sandbox.scenarios import SCENARIOS
from plafond.services.catalogue_changes import archive_plan

from ..conftest import NOW, Client, World

ACTOR = Actor(name="system:test", origin="test")
CREATE = """
mutation ($input: CreateScenarioInput!) { createScenario(input: $input) { userErrors { code message field } account {
  status testClock { now } alerts(filter: {open: true}) { totalCount } creditBalance { amountMinor }
  notices { code } usage { metric { key } used overage { blocks } }
  subscription { status interval plan { key } trialEnd cancelAtPeriodEnd addOns { quantity addOn { key } }
    scheduledChange { plan { key } } pendingChange { amountDue { amountMinor } paymentAction { clientSecret } } }
  invoices(first: 1) { totalCount nodes { status } } nextBilling { kind } } } }
"""


async def create(client: Client, world: World, name: str) -> dict[str, Any]:
    answer: Any = await client.data(world.operator, CREATE, input={"name": name})
    assert answer["createScenario"]["userErrors"] == []
    account: dict[str, Any] = answer["createScenario"]["account"]
    assert account["testClock"]["now"] == NOW.isoformat().replace("+00:00", "Z")
    return account


async def test_every_scenario_is_where_it_says(client: Client, world: World) -> None:
    made = {name: await create(client, world, name) for name in SCENARIOS}
    assert made["new"]["subscription"] is None
    trial = made["trial-ending"]
    assert trial["subscription"]["status"] == "TRIALING"
    assert [notice["code"] for notice in trial["notices"]] == ["TRIAL_ENDING"]
    assert trial["nextBilling"] is None
    assert made["at-95-percent"]["alerts"]["totalCount"] == 3
    overage = {usage["metric"]["key"]: usage["overage"]["blocks"] for usage in made["overage"]["usage"]}
    assert overage["email_sends"] == 3
    annual = made["annual-mid-term"]["subscription"]
    assert (annual["interval"], annual["plan"]["key"]) == ("YEAR", "business")
    assert annual["addOns"] == [{"quantity": 3, "addOn": {"key": "additional_user"}}]
    assert made["downgrade-scheduled"]["subscription"]["scheduledChange"]["plan"]["key"] == "starter"
    assert made["cancel-scheduled"]["subscription"]["cancelAtPeriodEnd"]
    assert made["canceled"]["status"] == "READ_ONLY"
    assert made["canceled"]["creditBalance"]["amountMinor"] > 0
    assert made["past-due"]["subscription"]["status"] == "PAST_DUE"
    assert [notice["code"] for notice in made["past-due"]["notices"]] == ["PAYMENT_FAILED"]
    assert made["past-due"]["invoices"]["nodes"] == [{"status": "OPEN"}]
    pending = made["payment-pending"]["subscription"]
    assert pending["plan"]["key"] == "starter"
    assert pending["pendingChange"]["paymentAction"]["clientSecret"]


@pytest.mark.parametrize("name", ["", "no-such", "x" * 1_000, "at 95 percent\x00"])
async def test_an_unknown_scenario_is_told_the_known_ones(client: Client, world: World, name: str) -> None:
    answer: Any = await client.data(world.operator, CREATE, input={"name": name})
    (error,) = answer["createScenario"]["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["input", "name"])
    assert "trial-ending" in error["message"]


@pytest.mark.parametrize("name", list(SCENARIOS))
async def test_a_catalogue_without_what_it_takes_makes_nothing(client: Client, world: World, name: str) -> None:
    """What is missing is named; what a scenario plays is what it says that it needs."""
    scenario = SCENARIOS[name]
    async with world.database.work(ACTOR) as work:
        for plan in {"starter", "professional", "business"} - set(scenario.plans):
            await archive_plan(work, plan)
    await create(client, world, name)
    before = await count(world)
    async with world.database.work(ACTOR) as work:
        for plan in scenario.plans:
            await archive_plan(work, plan)
    if not scenario.plans:
        return
    answer: Any = await client.data(world.operator, CREATE, input={"name": name})
    (error,) = answer["createScenario"]["userErrors"]
    assert error["code"] == "CONFLICT"
    assert all(f"plan {plan} " in error["message"] for plan in scenario.plans)
    assert await count(world) == before


async def count(world: World) -> tuple[int | None, int | None]:
    """Accounts and test clocks."""
    async with world.database.read() as session:
        counts = [
            await session.scalar(select(func.count()).select_from(table)) for table in (BillingAccount, TestClock)
        ]
    return counts[0], counts[1]


async def test_tenants_make_no_scenarios(client: Client, world: World) -> None:
    answer: Any = await client.ask(world.token("Acme", Role.TENANT_OWNER), CREATE, input={"name": "new"})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
