"""Alerts over a life: raised by use and by a lower limit, resolved by a higher one, over with the plan, and back."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ..conftest import Client, World
from .life import Life

START = datetime(2026, 3, 1, tzinfo=UTC)
ALERTS = """alerts(first: 50, filter: { metrics: ["%s"] }) { nodes {
  threshold resolvedAt periodStart alertedUsed: used alertedLimit: limit } }"""
Open = list[int]


async def open_of(life: Life, metric: str = "email_sends") -> Open:
    """The thresholds whose alerts are open, ascending."""
    nodes = (await life.ask(ALERTS % metric))["alerts"]["nodes"]
    return sorted(node["threshold"] for node in nodes if node["resolvedAt"] is None)


async def covered(life: Life, at: datetime | None = None) -> bool:
    period = "" if at is None else f'(period: "{at.isoformat().replace("+00:00", "Z")}")'
    found: dict[str, Any] = (await life.ask(f"alertCoverage{period} {{ complete crossings {{ threshold }} }}"))[
        "alertCoverage"
    ]
    return bool(found["complete"])


async def test_a_larger_plan_resolves_and_a_smaller_one_raises(client: Client, world: World) -> None:
    """Hard case 19, by plans: 9,000 of 10,000, then of 50,000; and back under a plan with less room."""
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.use(quantity=9_000)
    await life.use("workspaces", level=3)
    assert (await open_of(life), await open_of(life, "workspaces")) == ([80, 90], [80, 90, 95, 100])
    assert set(await life.notices()) == {"USAGE_THRESHOLD"}
    await life.advance(START + timedelta(days=3))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    assert (await open_of(life), await open_of(life, "workspaces")) == ([], [])
    assert await life.notices() == {}
    await life.use(quantity=31_000)
    await life.use("workspaces", level=3, at=START + timedelta(days=3, seconds=1))
    assert await open_of(life) == [80]
    await life.do("changePlan", planKey="starter", interval="MONTH")
    assert await covered(life)
    await life.advance(datetime(2026, 4, 1, tzinfo=UTC))
    assert (await open_of(life), await open_of(life, "workspaces")) == ([], [80, 90, 95, 100])
    assert await covered(life)
    assert await covered(life, START)
    await life.audit(world)


async def test_cancelling_ends_all_alerts_and_coming_back_looks_anew(client: Client, world: World) -> None:
    """Free allows one workspace: three are in use, and yet nothing is raised."""
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("setAlertThresholds", metric="workspaces", percents=[50])
    await life.use(quantity=9_600)
    await life.use("workspaces", level=2)
    assert (await open_of(life), await open_of(life, "workspaces")) == ([80, 90, 95], [50])
    await life.advance(START + timedelta(days=2))
    await life.do("cancelSubscription", mode="NOW", credit="NONE")
    assert (await open_of(life), await open_of(life, "workspaces")) == ([], [])
    assert "USAGE_THRESHOLD" not in await life.notices()
    assert await covered(life)
    await life.advance(START + timedelta(days=4))
    await life.do("reactivateSubscription", planKey="starter", interval="MONTH")
    assert (await open_of(life), await open_of(life, "workspaces")) == ([], [50])
    assert await covered(life)
    await life.audit(world)


async def test_what_moves_into_a_new_period_counts_as_its_first_reading(client: Client, world: World) -> None:
    """A change that is paid for later counts from when it was pinned: so does what was used since."""
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.use(quantity=9_500)
    assert await open_of(life) == [80, 90, 95]
    await life.advance(START + timedelta(days=5))
    await life.do("changePlan", planKey="starter", interval="YEAR")
    assert await open_of(life) == []
    await life.use(quantity=8_500)
    assert await open_of(life) == [80]
    assert await covered(life)
    await life.audit(world)


async def test_held_quantity_raises_nothing_until_it_is_used(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    held = await life.do("reserveUsage", "reservation { id }", metric="workspaces", quantity=3)
    assert await open_of(life, "workspaces") == []
    answer: Any = await client.data(
        world.operator,
        "mutation($id: ID!) { commitReservation(input: { reservationId: $id }) { userErrors { code } } }",
        id=held["reservation"]["id"],
    )
    assert answer["commitReservation"]["userErrors"] == []
    assert await open_of(life, "workspaces") == [80, 90, 95, 100]
    assert await covered(life)
    await life.audit(world)
