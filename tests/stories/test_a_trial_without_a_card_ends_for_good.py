"""A trial that nobody pays for: cancelled at its end, free from then on, and deleted after 90 days."""

from datetime import UTC, datetime
from typing import Any

from ..conftest import Client, World
from .life import Life, lines_of

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
    assert await owner.refused("startTrial", planKey="starter", interval="MONTH") == ["INVALID_TRANSITION"]
    assert await owner.refused("setAddOn", addOnKey="dedicated_ip", quantity=1) == ["ACCOUNT_CANCELED"]
    assert await owner.refused("changePlan", planKey="business", interval="MONTH") == ["ACCOUNT_CANCELED"]
    await owner.do("updateCompany", legalName="Acorn Holding Inc")

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
    assert (await life.use(quantity=1, at=before))["status"] == "REJECTED"
    plan = {"planKey": "starter", "interval": "MONTH"}
    for mutation, given in (
        ("startTrial", plan),
        ("startSubscription", plan),
        ("reactivateSubscription", plan),
        ("changePlan", plan),
        ("setAddOn", {"addOnKey": "dedicated_ip", "quantity": 1}),
        ("cancelSubscription", {}),
        ("resumeSubscription", {}),
    ):
        (code,) = await life.refused(mutation, **given)
        assert code in ("ACCOUNT_CANCELED", "INVALID_TRANSITION"), mutation
    assert await life.invoices() == []
    assert await life.credit_notes() == []
    assert await life.books() == {}
    await life.audit(world)


async def test_a_trial_that_is_over_is_read_only_and_then_closed(client: Client, world: World) -> None:
    """§4: what is not listed is refused to tenants; §5: an expired account answers ACCOUNT_CANCELED, however late."""
    life = await Life.begin(client, world, STARTED, card=None)
    owner = await life.owner(world)
    await owner.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 3, 16, 9, tzinfo=UTC))
    # The company and the methods are still its owner's to set, the account's own settings are not.
    await owner.do("updateCompany", legalName="Acorn Holding Inc")
    assert await owner.refused("updateBillingAccount", name="Other") == ["ACCOUNT_CANCELED"]
    await life.advance(datetime(2026, 6, 14, 9, tzinfo=UTC))
    assert (await life.use(quantity=1, at=STARTED))["code"] == "ACCOUNT_CANCELED"
    # Its people went with its data: nobody of them is let in any more.
    answer: Any = await client.ask(owner.token, "{ viewer { kind } }")
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert await life.books() == {}
    await life.audit(world)


async def test_late_events_of_a_trial_are_blocked_as_its_own(client: Client, world: World) -> None:
    """§4: while trialing all overage is BLOCK. An event counts in its own period, and never costs anything there."""
    life = await Life.begin(client, world, STARTED, company="AT")
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 3, 10, tzinfo=UTC))
    assert (await life.use(quantity=9_000))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 3, 16, 12, tzinfo=UTC))
    assert (await life.subscription())["status"] == "ACTIVE"
    before = datetime(2026, 3, 16, 8, 59, 59, tzinfo=UTC)
    assert (await life.use(quantity=1_000, at=before))["status"] == "ACCEPTED"
    assert (await life.use(quantity=20_000, at=before))["code"] == "LIMIT_EXCEEDED"
    await life.advance(datetime(2026, 4, 16, 12, tzinfo=UTC))
    first, second = await life.invoices()
    assert lines_of(first) == [("SUBSCRIPTION", 1, 4_900, "2026-03-16T09:00:00Z", "2026-04-16T09:00:00Z")]
    assert lines_of(second) == [("SUBSCRIPTION", 1, 4_900, "2026-04-16T09:00:00Z", "2026-05-16T09:00:00Z")]
    assert await life.books() == {"CASH": 11_760, "DEFERRED": -4_900, "REVENUE": -4_900, "TAX": -1_960}
    await life.audit(world)


async def test_a_trial_without_a_company(client: Client, world: World) -> None:
    """A card alone is not enough: the notice names what is missing, and its instants read as everywhere."""
    life = await Life.begin(client, world, STARTED, company=None)
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 3, 9, 9, tzinfo=UTC))
    (notice,) = (await life.ask("notices { message params actions { kind } }"))["notices"]
    assert notice["message"] == (
        "It ends on 2026-03-16. Enter your company's name and country to keep your plan; without that the account is "
        "read-only from then on."
    )
    assert notice["params"] == {
        "daysLeft": 7,
        "endsAt": "2026-03-16T09:00:00Z",
        "hasMethod": True,
        "hasCompany": False,
        "isSent": False,
    }
    assert [action["kind"] for action in notice["actions"]] == ["UPDATE_COMPANY", "CHANGE_PLAN"]
    refused = await life.try_to(
        "advanceTestClock", "testClock { now }", testClockId=life.clock_id, to="2026-03-09T08:00:00Z"
    )
    assert refused["userErrors"][0]["message"] == "A clock only moves forward: it stands at 2026-03-09T09:00:00Z."
    await life.advance(datetime(2026, 3, 16, 9, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"
