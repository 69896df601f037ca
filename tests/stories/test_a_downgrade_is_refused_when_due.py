"""A smaller plan that would not fit any more when it is due: the old one goes on, and the account is told."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of


async def test_a_downgrade_is_refused_when_due(client: Client, world: World) -> None:
    """§3: checked again when due; then a notice, and the old plan goes on at its price."""
    life = await Life.begin(client, world, datetime(2026, 1, 31, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="business", interval="MONTH")
    await life.use("team_members", level=5)
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 2, 20, tzinfo=UTC))
    # The old plan's limit holds until then, so a sixth fits, and then the smaller plan does not.
    assert (await life.use("team_members", quantity=1))["status"] == "ACCEPTED"

    await life.advance(datetime(2026, 2, 28, tzinfo=UTC))
    refused = (await life.notices())["CHANGE_REFUSED"]
    assert [(row["used"], row["limit"]) for row in refused["exceeding"]] == [(6, 5)]
    standing = await life.subscription()
    assert (standing["plan"], standing["amount"], standing["scheduledChange"]) == ({"key": "business"}, 39_900, None)
    assert await life.figure("team_members") == (6, 15)
    assert await life.refused("changePlan", planKey="professional", interval="MONTH") == ["LIMITS_EXCEEDED"]

    # With room for it the change is scheduled anew, and takes effect a month later.
    await life.advance(datetime(2026, 3, 1, tzinfo=UTC))
    await life.use("team_members", level=5)
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 3, 31, 2, tzinfo=UTC))
    assert (await life.subscription())["plan"] == {"key": "professional"}
    assert await life.figure("team_members") == (5, 5)
    first, second, third = await life.invoices()
    assert lines_of(first) == [("SUBSCRIPTION", 1, 39_900, "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z")]
    assert lines_of(second) == [("SUBSCRIPTION", 1, 39_900, "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z")]
    assert lines_of(third) == [("SUBSCRIPTION", 1, 14_900, "2026-03-31T00:00:00Z", "2026-04-30T00:00:00Z")]
    for invoice, net, tax in ((first, 39_900, 7_980), (second, 39_900, 7_980), (third, 14_900, 2_980)):
        assert taxes_of(invoice) == [("S", 20.0, net, tax)]
        assert (invoice["status"], invoice["total"]) == ("PAID", net + tax)
    assert await life.books() == {
        "CASH": 47_880 + 47_880 + 17_880,
        "DEFERRED": -14_900,
        "REVENUE": -79_800,
        "TAX": -(7_980 + 7_980 + 2_980),
    }
    await life.audit(world)
