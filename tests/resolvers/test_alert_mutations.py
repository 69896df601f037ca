"""Setting thresholds and acknowledging alerts over the API: who may, whose they are, and what comes back."""

from typing import Any

from plafond.models import Role
from plafond.schema.node import encode_id

from ..conftest import NOW, Client, World
from ..services.helpers import alerts_of, gauge, send
from .test_access import UNKNOWN
from .test_account_mutations import id_of, run, top_level

ERRORS = "userErrors { code message field }"
SET = f"""mutation($input: SetAlertThresholdsInput!) {{ setAlertThresholds(input: $input) {{ {ERRORS}
  usage {{ metric {{ key }} level thresholds {{ percent level builtIn reachedAt }} }}
  account {{ alerts(first: 3) {{ nodes {{ threshold level resolvedAt }} }} }} }} }}"""
ACKNOWLEDGE = f"""mutation($input: AcknowledgeAlertsInput!) {{ acknowledgeAlerts(input: $input) {{ {ERRORS}
  alerts {{ id threshold acknowledgedAt acknowledgedBy resolvedAt }} account {{ id }} }} }}"""
LEVELS = '{ billingAccount(externalId: "%s") { usage { metric { key } level thresholds { percent } } } }'


async def test_what_is_set_is_read_and_counts_at_once(client: Client, world: World) -> None:
    """At 46.9 % of its e-mails."""
    owner = world.token("Acme", Role.TENANT_OWNER)
    given = {"accountId": await id_of(world, "acme"), "metric": "email_sends", "percents": [60, 40, 80]}
    payload = await run(client, owner, SET, **given)
    assert payload["userErrors"] == []
    usage = payload["usage"]
    assert (usage["metric"]["key"], usage["level"]) == ("email_sends", "NOTICE")
    assert [(row["percent"], row["level"], row["builtIn"], row["reachedAt"]) for row in usage["thresholds"]] == [
        (40, "NOTICE", False, "2026-11-25T12:00:00Z"),
        (60, "NOTICE", False, None),
        (80, "WARNING", True, None),
        (90, "UPGRADE_SUGGESTION", True, None),
        (95, "URGENT", True, None),
        (100, "LIMIT_REACHED", True, None),
    ]
    alert, *_ = payload["account"]["alerts"]["nodes"]
    assert alert == {"threshold": 40, "level": "NOTICE", "resolvedAt": None}
    await run(client, owner, SET, **given | {"metric": "workspaces", "percents": [50]})
    data: Any = await client.data(owner, LEVELS % "acme")
    levels = {row["metric"]["key"]: row["level"] for row in data["billingAccount"]["usage"]}
    assert levels == {"email_sends": "NOTICE", "team_members": "OK", "workspaces": "NOTICE", "custom_domains": "OK"}


async def test_reading_thresholds_and_levels_costs_one_statement_for_all(client: Client, world: World) -> None:
    owner = world.token("Acme", Role.TENANT_OWNER)
    plain = LEVELS.replace(" level thresholds { percent }", "")
    counts = []
    for query in (plain, LEVELS):
        await client.data(owner, query % "acme")
        world.statements.clear()
        await client.data(owner, query % "acme")
        counts.append(len(world.statements))
    assert counts[1] == counts[0] + 1


async def test_who_may_set_and_acknowledge(client: Client, world: World) -> None:
    id_ = await id_of(world)
    alert, *_ = await alerts_of(world, "calder")
    thresholds = {"accountId": id_, "metric": "email_sends", "percents": [50]}
    seen = {"accountId": id_, "ids": [encode_id("Alert", alert.id)]}
    for query, given in ((SET, thresholds), (ACKNOWLEDGE, seen)):
        assert await top_level(client, world.token("Calder", Role.MEMBER), query, **given) == "FORBIDDEN"
        for token in (world.token("Acme", Role.TENANT_OWNER), world.operator):
            foreign = encode_id("BillingAccount", UNKNOWN) if token == world.operator else id_
            payload = await run(client, token, query, **given | {"accountId": foreign})
            assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [
                ("NOT_FOUND", ["input", "accountId"])
            ]
        for token in (world.token("Calder", Role.BILLING_ADMIN), world.operator):
            assert (await run(client, token, query, **given))["userErrors"] == []


async def test_an_alert_is_acknowledged_once(client: Client, world: World) -> None:
    ids = [encode_id("Alert", alert.id) for alert in await alerts_of(world, "calder")]
    owner, given = world.token("Calder", Role.TENANT_OWNER), {"accountId": await id_of(world)}
    payload = await run(client, owner, ACKNOWLEDGE, ids=ids[1:], **given)
    assert payload["userErrors"] == []
    assert [(row["id"], row["acknowledgedAt"]) for row in payload["alerts"]] == [
        (id_, NOW.isoformat().replace("+00:00", "Z")) for id_ in ids[1:]
    ]
    (who,) = {row["acknowledgedBy"] for row in payload["alerts"]}
    assert who.startswith("api_key:")
    again = await run(client, world.operator, ACKNOWLEDGE, ids=ids, **given)
    assert [row["acknowledgedBy"] == who for row in again["alerts"]] == [False, True, True]


async def test_a_key_makes_it_happen_once(client: Client, world: World) -> None:
    given = {"accountId": await id_of(world), "metric": "email_sends", "percents": [50], "idempotencyKey": "k"}
    first: Any = await client.ask(world.operator, SET, input=given)
    again: Any = await client.ask(world.operator, SET, input=given)
    assert again["data"] == first["data"]
    assert again["extensions"]["idempotency"] == {"replayed": True}
    payload = await run(client, world.operator, SET, **given | {"percents": [51]})
    assert [error["code"] for error in payload["userErrors"]] == ["IDEMPOTENCY_MISMATCH"]


async def test_foreign_alerts_are_named_by_their_places(client: Client, world: World) -> None:
    await send(world, gauge("a", "workspaces", quantity=1))
    (foreign,) = await alerts_of(world, metric="workspaces")
    mine, *_ = await alerts_of(world, "calder")
    ids = [encode_id("Alert", mine.id), encode_id("Alert", foreign.id), await id_of(world), "x"]
    payload = await run(client, world.operator, ACKNOWLEDGE, accountId=await id_of(world), ids=ids)
    assert payload["alerts"] is None
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [
        ("NOT_FOUND", ["input", "ids", str(index)]) for index in (1, 2, 3)
    ]
    (mine, *_) = await alerts_of(world, "calder")
    assert mine.acknowledged_at is None
