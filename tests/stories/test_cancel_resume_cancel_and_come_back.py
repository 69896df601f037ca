"""Cancelled, resumed, cancelled again: a final invoice, a correction 35 days later, and back on another plan."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

END = "2026-02-15T00:00:00Z"


async def test_cancel_resume_cancel_and_come_back(client: Client, world: World) -> None:
    """The period's end closes usage; what is late has 35 days; coming back dates nothing back."""
    life = await Life.begin(client, world, datetime(2026, 1, 15, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 1, 20, tzinfo=UTC))
    assert await life.refused("resumeSubscription") == ["INVALID_TRANSITION"]
    await life.do("cancelSubscription")
    standing = await life.subscription()
    assert (standing["status"], standing["cancelAtPeriodEnd"]) == ("ACTIVE", True)
    assert await life.refused("cancelSubscription") == ["INVALID_TRANSITION"]
    ahead = await life.ask("nextBilling { kind } nextRenewal { at }")
    assert ahead == {"nextBilling": None, "nextRenewal": None}
    await life.do("resumeSubscription")
    assert (await life.subscription())["cancelAtPeriodEnd"] is False
    assert (await life.ask("nextBilling { kind }"))["nextBilling"] == {"kind": "RENEWAL"}
    await life.do("cancelSubscription", reason="moving on")
    await life.advance(datetime(2026, 2, 10, tzinfo=UTC))
    assert (await life.use(quantity=60_001))["status"] == "ACCEPTED"
    # Two blocks and 20 %: the last charge.
    ahead = (await life.ask("nextBilling { kind at amount { amountMinor } }"))["nextBilling"]
    assert ahead == {"kind": "FINAL", "at": END, "amount": 2_400}

    await life.advance(datetime(2026, 2, 15, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"
    assert (await life.ask("status"))["status"] == "READ_ONLY"
    assert await life.figure() == (0, 0)
    await life.advance(datetime(2026, 2, 15, 2, tzinfo=UTC))
    _, final = await life.invoices()
    assert lines_of(final) == [("OVERAGE", 2, 2_000, "2026-01-15T00:00:00Z", END)]
    assert taxes_of(final) == [("S", 20.0, 2_000, 400)]
    assert (final["kind"], final["status"], final["issuedAt"]) == ("FINAL", "PAID", "2026-02-15T01:00:00Z")
    assert (final["total"], final["amountPaid"]) == (2_400, 2_400)
    assert await life.books() == {
        "CASH": 17_880 + 2_400,
        "REVENUE": -(14_900 + 2_000),
        "TAX": -(2_980 + 400),
    }

    # Late: 70,001 are three blocks, of which two are invoiced.
    await life.advance(datetime(2026, 2, 17, tzinfo=UTC))
    assert (await life.use(quantity=1))["code"] == "ACCOUNT_CANCELED"
    assert (await life.use(quantity=10_000, at=datetime(2026, 2, 14, tzinfo=UTC)))["status"] == "ACCEPTED"
    # 35 × 24 hours after the end, on March 22, the correction goes out on an invoice of its own.
    await life.advance(datetime(2026, 3, 21, 23, 59, 59, tzinfo=UTC))
    assert len(await life.invoices()) == 2
    assert (await life.use(quantity=1, at=datetime(2026, 2, 14, tzinfo=UTC)))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 3, 22, 2, tzinfo=UTC))
    assert (await life.use(quantity=1, at=datetime(2026, 2, 14, tzinfo=UTC)))["code"] == "TOO_OLD"
    invoices = await life.invoices()
    assert len(invoices) == 3
    corrections = invoices[2]
    assert lines_of(corrections) == [("CORRECTION", 1, 1_000, "2026-01-15T00:00:00Z", END)]
    assert taxes_of(corrections) == [("S", 20.0, 1_000, 200)]
    assert (corrections["kind"], corrections["total"], corrections["status"]) == ("FINAL", 1_200, "PAID")

    # Back on another plan: from now on, with nothing for the time between.
    await life.advance(datetime(2026, 4, 1, 8, tzinfo=UTC))
    back = await life.do(
        "reactivateSubscription",
        "subscription { status currentPeriodStart currentPeriodEnd plan { key } }",
        planKey="starter",
        interval="MONTH",
    )
    assert back["subscription"] == {
        "status": "ACTIVE",
        "currentPeriodStart": "2026-04-01T08:00:00Z",
        "currentPeriodEnd": "2026-05-01T08:00:00Z",
        "plan": {"key": "starter"},
    }
    assert (await life.ask("status"))["status"] == "ACTIVE"
    assert await life.figure() == (0, 10_000)
    invoices = await life.invoices()
    assert all(invoice["status"] == "PAID" for invoice in invoices)
    assert lines_of(invoices[3]) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T08:00:00Z", "2026-05-01T08:00:00Z")]
    assert taxes_of(invoices[3]) == [("S", 20.0, 4_900, 980)]
    assert (await life.use(quantity=1))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 5, 1, 10, tzinfo=UTC))
    invoices = await life.invoices()
    assert lines_of(invoices[4]) == [("SUBSCRIPTION", 1, 4_900, "2026-05-01T08:00:00Z", "2026-06-01T08:00:00Z")]
    assert len(invoices) == 5
    assert await life.credit_notes() == []
    assert await life.books() == {
        "CASH": 17_880 + 2_400 + 1_200 + 5_880 + 5_880,
        "DEFERRED": -4_900,
        "REVENUE": -(14_900 + 3_000 + 4_900),
        "TAX": -(2_980 + 400 + 200 + 980 + 980),
    }
    await life.audit(world)


async def test_nothing_is_sent_for_the_time_in_between(client: Client, world: World) -> None:
    """§4: canceled is free and dates nothing back; §5: on free every policy is BLOCK, whenever the event arrives."""
    life = await Life.begin(client, world, datetime(2026, 1, 15, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.do("cancelSubscription")
    await life.advance(datetime(2026, 4, 1, tzinfo=UTC))
    between = datetime(2026, 3, 25, tzinfo=UTC)
    assert (await life.use(quantity=20_000, at=between))["status"] == "REJECTED"
    await life.do("reactivateSubscription", planKey="starter", interval="MONTH")
    assert (await life.use(quantity=20_000, at=between))["status"] == "REJECTED"
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))
    nets = [[line[:3] for line in lines_of(invoice)] for invoice in await life.invoices()]
    assert nets == [[("SUBSCRIPTION", 1, 14_900)], [("SUBSCRIPTION", 1, 4_900)], [("SUBSCRIPTION", 1, 4_900)]]
    assert await life.books() == {"CASH": 29_640, "DEFERRED": -4_900, "REVENUE": -19_800, "TAX": -4_940}
    await life.audit(world)


async def test_back_on_a_smaller_plan(client: Client, world: World) -> None:
    """What is in use is kept, and has to fit: an operator's system tells when it was reduced."""
    life = await Life.begin(client, world, datetime(2026, 1, 15, tzinfo=UTC))
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.use("team_members", level=5)
    await life.advance(datetime(2026, 1, 20, tzinfo=UTC))
    await life.do("cancelSubscription", mode="NOW", credit="NONE")
    await life.advance(datetime(2026, 1, 21, tzinfo=UTC))
    wanted = {"planKey": "starter", "interval": "MONTH"}
    assert await life.refused("reactivateSubscription", **wanted) == ["LIMITS_EXCEEDED"]
    assert (await life.use("team_members", quantity=1))["code"] == "ACCOUNT_CANCELED"
    assert (await life.use("team_members", level=2))["status"] == "ACCEPTED"
    await life.do("reactivateSubscription", **wanted)
    assert await life.figure("team_members") == (2, 2)
    await life.audit(world)
