"""A smaller plan: refused while too much is in use, scheduled, replaced, taken back, scheduled again, and done."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

QUOTE = """
quote { effectiveAt lines { kind } dueNow { amountMinor }
  blockedBy { metric { key } used newLimit } nextInvoice { at subtotal { amountMinor } } }
"""


async def test_a_downgrade_waits_for_the_period_end(client: Client, world: World) -> None:
    """A lower tier takes effect at the period's end, without lines of its own and only where what is in use fits."""
    life = await Life.begin(client, world, datetime(2026, 5, 1, 12, tzinfo=UTC), company="DE-VAT", currency="EUR")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.use("team_members", level=4)
    await life.use("workspaces", level=8)
    await life.use("custom_domains", level=5)

    await life.advance(datetime(2026, 5, 10, tzinfo=UTC))
    down = {"planKey": "starter", "interval": "MONTH"}
    refusal = await life.try_to("changePlan", **down)
    assert [error["code"] for error in refusal["userErrors"]] == ["LIMITS_EXCEEDED"]
    assert "4" in refusal["userErrors"][0]["message"]
    assert "8" in refusal["userErrors"][0]["message"]
    quote = (await life.do("quotePlanChange", QUOTE, **down))["quote"]
    blocked = {row["metric"]["key"]: (row["used"], row["newLimit"]) for row in quote["blockedBy"]}
    assert blocked == {"team_members": (4, 2), "workspaces": (8, 3)}
    await life.use("team_members", quantity=-2)
    assert await life.refused("changePlan", **down) == ["LIMITS_EXCEEDED"]
    await life.use("workspaces", level=3)
    quote = (await life.do("quotePlanChange", QUOTE, **down))["quote"]
    assert (quote["blockedBy"], quote["lines"], quote["dueNow"]) == ([], [], 0)
    assert quote["effectiveAt"] == "2026-06-01T12:00:00Z"

    # Scheduled, replaced by another, taken back, and scheduled again: nothing is invoiced.
    month = {"plan": {"key": "starter"}, "interval": "MONTH", "amount": 4_900, "effectiveAt": "2026-06-01T12:00:00Z"}
    changed = await life.do("changePlan", "invoice { id } subscription { plan { key } }", **down)
    assert (changed["invoice"], changed["subscription"]) == (None, {"plan": {"key": "professional"}})
    assert (await life.subscription())["scheduledChange"] == month
    await life.do("changePlan", planKey="starter", interval="YEAR")
    year = {"plan": {"key": "starter"}, "interval": "YEAR", "amount": 47_000, "effectiveAt": "2026-06-01T12:00:00Z"}
    assert (await life.subscription())["scheduledChange"] == year
    # The upcoming invoice is the one to come: the year, without tax by reverse charge.
    upcoming = (await life.ask("upcomingInvoice { at total { amountMinor } }"))["upcomingInvoice"]
    assert upcoming == {"at": "2026-06-01T12:00:00Z", "total": 47_000}
    await life.do("cancelScheduledChange", "subscription { status }")
    assert (await life.subscription())["scheduledChange"] is None
    upcoming = (await life.ask("upcomingInvoice { total { amountMinor } }"))["upcomingInvoice"]
    assert upcoming == {"total": 14_900}
    await life.advance(datetime(2026, 5, 20, tzinfo=UTC))
    await life.do("changePlan", **down)
    assert (await life.subscription())["scheduledChange"] == month

    # Until the end the old plan holds, its limit too: 10,001 above it are two started blocks.
    assert await life.figure("workspaces") == (3, 10)
    assert (await life.use(quantity=60_001))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 6, 1, 11, 59, 59, tzinfo=UTC))
    assert (await life.subscription())["plan"] == {"key": "professional"}
    await life.advance(datetime(2026, 6, 1, 12, tzinfo=UTC))
    standing = await life.subscription()
    assert (standing["plan"], standing["interval"], standing["amount"]) == ({"key": "starter"}, "MONTH", 4_900)
    assert standing["scheduledChange"] is None
    assert standing["currentPeriodEnd"] == "2026-07-01T12:00:00Z"
    assert await life.figure() == (0, 10_000)
    assert await life.figure("workspaces") == (3, 3)
    assert "CHANGE_REFUSED" not in await life.notices()
    assert (await life.use("workspaces", quantity=1))["code"] == "LIMIT_EXCEEDED"

    await life.advance(datetime(2026, 7, 1, 14, tzinfo=UTC))
    may, june, july = await life.invoices()
    assert lines_of(may) == [("SUBSCRIPTION", 1, 14_900, "2026-05-01T12:00:00Z", "2026-06-01T12:00:00Z")]
    assert lines_of(june) == [
        ("OVERAGE", 2, 2_000, "2026-05-01T12:00:00Z", "2026-06-01T12:00:00Z"),
        ("SUBSCRIPTION", 1, 4_900, "2026-06-01T12:00:00Z", "2026-07-01T12:00:00Z"),
    ]
    assert lines_of(july) == [("SUBSCRIPTION", 1, 4_900, "2026-07-01T12:00:00Z", "2026-08-01T12:00:00Z")]
    for invoice, net in ((may, 14_900), (june, 6_900), (july, 4_900)):
        assert taxes_of(invoice) == [("AE", 0.0, net, 0)]
        assert invoice["taxBreakdown"][0]["reason"] == "Reverse charge"
        assert (invoice["total"], invoice["status"]) == (net, "PAID")
    assert await life.books() == {
        "CASH": 14_900 + 6_900 + 4_900,
        "DEFERRED": -4_900,
        "REVENUE": -(14_900 + 2_000 + 4_900),
    }
    await life.audit(world)
