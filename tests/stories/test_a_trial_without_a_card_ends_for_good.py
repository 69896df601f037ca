"""A trial that nobody pays for: cancelled at its end, free from then on, and deleted after 90 days."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life

STARTED = datetime(2026, 3, 2, 9, tzinfo=UTC)


async def test_a_trial_without_a_card_ends_for_good(client: Client, world: World) -> None:
    """Trial → canceled with free's limits → expired after 90 × 24 hours, and nothing is possible any more."""
    life = await Life.begin(client, world, STARTED, card=None)
    owner = await life.owner(world)
    await owner.do("startTrial", planKey="starter", interval="MONTH")
    assert await life.figure() == (0, 10_000)
    await life.use("team_members", level=2)
    await life.use("workspaces", level=3)
    await life.advance(datetime(2026, 3, 10, tzinfo=UTC))
    assert (await life.use(quantity=9_000))["status"] == "ACCEPTED"

    await life.advance(datetime(2026, 3, 16, 8, 59, 59, tzinfo=UTC))
    assert (await life.subscription())["status"] == "TRIALING"
    await life.advance(datetime(2026, 3, 16, 9, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"
    notices = await life.notices()
    assert "TRIAL_ENDED" in notices
    assert "TRIAL_ENDING" not in notices
    standing = await life.ask("status nextBilling { kind } nextRenewal { at } upcomingInvoice { at }")
    assert standing == {"status": "READ_ONLY", "nextBilling": None, "nextRenewal": None, "upcomingInvoice": None}
    # Free's limits hold; levels carry over.
    assert await life.figure() == (0, 0)
    assert await life.figure("team_members") == (2, 1)
    assert await life.figure("workspaces") == (3, 1)
    assert await life.figure("custom_domains") == (0, 0)

    # Nothing new is taken; what happened before the end still is, within the trial's limit.
    await life.advance(datetime(2026, 3, 16, 12, tzinfo=UTC))
    assert (await life.use(quantity=1))["code"] == "ACCOUNT_CANCELED"
    before = datetime(2026, 3, 16, 8, 59, 59, tzinfo=UTC)
    assert (await life.use(quantity=1_000, at=before))["status"] == "ACCEPTED"
    assert (await life.use(quantity=1, at=before))["code"] == "LIMIT_EXCEEDED"
    assert await owner.refused("startTrial", planKey="starter", interval="MONTH") == ["INVALID_TRANSITION"]
    assert await owner.refused("setAddOn", addOnKey="dedicated_ip", quantity=1) == ["ACCOUNT_CANCELED"]
    assert await owner.refused("changePlan", planKey="business", interval="MONTH") == ["ACCOUNT_CANCELED"]
    # Read-only: the company, methods and reactivating are still its owner's, but not the account's settings.
    await owner.do("updateCompany", legalName="Acorn Holding Inc")
    assert await owner.refused("updateBillingAccount", name="Other") == ["ACCOUNT_CANCELED"]

    await life.advance(datetime(2026, 6, 14, 8, 59, 59, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"
    await life.advance(datetime(2026, 6, 14, 9, tzinfo=UTC))
    assert (await life.subscription())["status"] == "EXPIRED"
    assert (await life.ask("status"))["status"] == "EXPIRED"
    steps = (await life.ask("subscription { history { nodes { fromStatus toStatus at } } }"))["subscription"]["history"]
    assert [(step["fromStatus"], step["toStatus"], step["at"]) for step in reversed(steps["nodes"])] == [
        (None, "TRIALING", "2026-03-02T09:00:00Z"),
        ("TRIALING", "CANCELED", "2026-03-16T09:00:00Z"),
        ("CANCELED", "EXPIRED", "2026-06-14T09:00:00Z"),
    ]

    assert (await life.use(quantity=1))["code"] == "ACCOUNT_CANCELED"
    assert (await life.use(quantity=1, at=before))["code"] == "ACCOUNT_CANCELED"
    plan = {"planKey": "starter", "interval": "MONTH"}
    for mutation, given in (
        ("startTrial", plan),
        ("startSubscription", plan),
        ("reactivateSubscription", plan),
        ("changePlan", plan),
        ("quotePlanChange", plan),
        ("quoteAddOn", {"addOnKey": "dedicated_ip", "quantity": 1}),
        ("setAddOn", {"addOnKey": "dedicated_ip", "quantity": 1}),
        ("cancelSubscription", {}),
        ("resumeSubscription", {}),
        ("updateBillingAccount", {"name": "Other"}),
        ("updateCompany", {"legalName": "Other"}),
        ("addPaymentMethod", {"token": "pm_card_visa"}),
    ):
        (code,) = await owner.refused(mutation, **given)
        assert code in ("ACCOUNT_CANCELED", "INVALID_TRANSITION"), mutation
    assert await life.invoices() == []
    assert await life.credit_notes() == []
    assert await life.books() == {}
    await life.audit(world)
