"""What was cancelled at the instant of its start leaves no usage period, and the audit knows why."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import delete

from plafond.database import Actor
from plafond.models import UsagePeriod
from plafond.services.auditing import audit

from ..conftest import Client, World
from .life import Life

APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize("mutation", ["startSubscription", "startTrial"])
async def test_a_plan_cancelled_as_it_begins(client: Client, world: World, mutation: str) -> None:
    """The books stay in order, and stay so after a new start."""
    life = await Life.begin(client, world, APRIL)
    await life.do(mutation, planKey="starter", interval="MONTH")
    await life.do("cancelSubscription", mode="NOW", credit="PRORATED")
    assert (await life.subscription())["status"] == "CANCELED"
    await life.audit(world)
    await life.advance(datetime(2026, 4, 10, tzinfo=UTC))
    await life.do("reactivateSubscription", planKey="starter", interval="MONTH")
    await life.audit(world)
    await life.advance(datetime(2026, 5, 10, tzinfo=UTC))
    # As the second period begins: the first stays.
    await life.do("cancelSubscription", mode="NOW", credit="PRORATED")
    await life.audit(world)


async def test_a_period_that_is_missing_is_still_found(client: Client, world: World) -> None:
    """Only a period in which nothing was served may be missing."""
    life = await Life.begin(client, world, APRIL)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 4, 10, tzinfo=UTC))
    await life.do("cancelSubscription", mode="NOW", credit="PRORATED")
    await life.audit(world)
    async with world.database.work(Actor(name="system:test", origin="test")) as work:
        await work.session.execute(delete(UsagePeriod).where(UsagePeriod.start_at == APRIL))
    async with world.database.read() as session:
        found = await audit(session, world.clock.now())
    assert [finding.invariant for finding in found] == ["I8"]
    assert "which does not exist" in found[0].what
