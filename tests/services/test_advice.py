"""What would fit: the cheapest plan, or the units of an add-on, and in as many statements for one alert as for many."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from plafond.models import AddOn, Alert, Plan, PlanLimit, PlanVersion, Role, SubscriptionStatus
from plafond.services.advice import Buyer, Fit, find_fit, load_market
from plafond.services.relations import load_agreements, load_held_add_ons
from plafond.services.rules.thresholds import is_reached, units_below
from plafond.services.usage import UsageFigure, load_figures

from ..conftest import NOW, Client, World
from .helpers import ACTOR, account_of, alerts_of, change_account, change_subscription, emails, gauge, send

ACTIONS = """{ billingAccount(externalId: "%s") { alerts(first: %d) { nodes { threshold
  recommendedActions { kind label plan { key name } addOn { key } addOnQuantity } } } } }"""


async def fit_of(world: World, alert: Alert, name: str, **figure: Any) -> tuple[str | None, str | None, int | None]:
    """The keys of what fits an alert, perhaps with another figure of its metric."""
    account = await account_of(world, name)
    async with world.database.read() as session:
        market = await load_market(session)
        figures = (await load_figures(session, [account.id], NOW))[account.id]
        (agreement,) = await load_agreements(session, [account.id])
        (add_ons,) = await load_held_add_ons(session, [account.id])

    def changed(item: UsageFigure) -> UsageFigure:
        return replace(item, **figure) if item.metric.key == alert.subject else item

    fit: Fit = find_fit(market, Buyer(account, agreement, add_ons, list(map(changed, figures))), alert)
    return fit.plan.plan.key if fit.plan else None, fit.add_on.key if fit.add_on else None, fit.quantity


async def test_the_cheapest_plan_under_which_nothing_is_raised(world: World) -> None:
    """Calder, on starter: 10,000 e-mails."""
    *_, alert = await alerts_of(world, "calder")
    assert await fit_of(world, alert, "calder") == ("professional", "extra_emails", 1)
    assert await fit_of(world, alert, "calder", used=39_999) == ("professional", "extra_emails", 4)
    assert await fit_of(world, alert, "calder", used=40_000) == ("business", "extra_emails", 5)
    assert await fit_of(world, alert, "calder", used=160_000) == (None, "extra_emails", 20)
    assert await fit_of(world, alert, "calder", used=10**12) == (None, None, None)


async def test_no_gauge_exceeds_it(world: World) -> None:
    """Acme, with 7 workspaces, to which business is changed not to give room."""
    await send(world, emails("a", 25_000))
    *_, alert = await alerts_of(world)
    assert (await fit_of(world, alert, "acme"))[0] == "business"
    of_business = select(PlanVersion.id).join(Plan, Plan.id == PlanVersion.plan_id).where(Plan.key == "business")
    for limit, fitting in ((7, "business"), (6, None)):
        async with world.database.work(ACTOR) as work:
            await work.session.execute(
                update(PlanLimit)
                .where(PlanLimit.plan_version_id.in_(of_business), PlanLimit.metric_key == "workspaces")
                .values(quantity=limit)
            )
        assert (await fit_of(world, alert, "acme"))[0] == fitting


async def test_interval_currency_and_what_is_on_sale_decide(world: World) -> None:
    *_, alert = await alerts_of(world, "calder")
    await change_subscription(world, "calder", interval="YEAR")
    assert (await fit_of(world, alert, "calder"))[0] == "professional"
    await change_account(world, "calder", currency="CHF")
    assert await fit_of(world, alert, "calder") == (None, None, None)
    await change_account(world, "calder", currency="USD")
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Plan).where(Plan.key == "professional").values(archived_at=NOW))
        await work.session.execute(update(AddOn).where(AddOn.key == "extra_emails").values(plan_keys=[]))
    assert await fit_of(world, alert, "calder") == ("business", None, None)
    await change_subscription(world, "calder", status=SubscriptionStatus.CANCELED, canceled_at=NOW)
    assert (await fit_of(world, alert, "calder"))[1:] == (None, None)


async def test_a_resolved_alert_is_fitted_by_its_own_figure(world: World) -> None:
    await send(world, gauge("a", "workspaces", quantity=3))
    await send(world, gauge("b", "workspaces", quantity=-9))
    *_, alert = await alerts_of(world, metric="workspaces")
    assert await fit_of(world, alert, "acme") == ("business", "extra_workspace", 3)


@pytest.mark.parametrize("gives", [1, 7, 10_000])
@pytest.mark.parametrize("limit", [0, 1, 999, 10_000])
@pytest.mark.parametrize("used", [0, 1, 799, 800, 8_000, 123_457])
def test_so_many_units_and_no_fewer(used: int, limit: int, gives: int) -> None:
    units = units_below(80, used, limit, gives)
    assert not is_reached(80, used, limit + units * gives)
    assert units == 0 or is_reached(80, used, limit + (units - 1) * gives)


async def test_it_costs_as_many_statements_for_many_alerts_as_for_one(client: Client, world: World) -> None:
    await send(world, *(gauge(key, key, "calder", level=2) for key in ("team_members", "workspaces")))
    token = world.token("Calder", Role.TENANT_OWNER)
    counts = []
    for first in (1, 7):
        world.statements.clear()
        data: Any = await client.data(token, ACTIONS % ("calder", first))
        assert len(data["billingAccount"]["alerts"]["nodes"]) == first
        counts.append(len(world.statements))
    assert counts[0] == counts[1] == 10
    shown = {row["threshold"]: row["recommendedActions"] for row in data["billingAccount"]["alerts"]["nodes"]}
    assert shown[80] == []
    assert shown[95] == [
        {
            "kind": "UPGRADE_PLAN",
            "label": "Change to a larger plan",
            "plan": {"key": "professional", "name": "Professional"},
            "addOn": {"key": "extra_emails"},
            "addOnQuantity": 1,
        },
        {
            "kind": "REDUCE_USAGE",
            "label": "Use less",
            "plan": None,
            "addOn": None,
            "addOnQuantity": None,
        },
    ]
