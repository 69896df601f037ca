"""Changing the catalogue over GraphQL: who may, what is refused where, and what is offered to whom afterwards."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from plafond.models import AuditEntry, OutboxEvent, PlanVersion, Role
from plafond.schema.node import encode_id
from plafond.services.access import Scope

from ..conftest import Client, World
from .test_access import make_operator_key

PUBLISH = """mutation($input: PublishPlanInput!) { publishPlan(input: $input) {
  plan { key name tier version features limits { metricKey limit unlimited }
    prices { interval amount { amountMinor currency } } }
  userErrors { code message field } } }"""
ARCHIVE = """mutation($input: ArchivePlanInput!) { archivePlan(input: $input) {
  plan { key } userErrors { code message field } } }"""
SET_METRIC = """mutation($input: SetMetricInput!) { setMetric(input: $input) {
  metric { key name kind unit } userErrors { code message field } } }"""
ROW = "country region jurisdiction lineKind category rate validFrom validTo"
SET_TAXES = f"""mutation($input: SetTaxTableInput!) {{ setTaxTable(input: $input) {{
  taxTable {{ {ROW} }} userErrors {{ code message field }} }} }}"""
TAXES = f"{{ taxTable {{ {ROW} createdAt }} }}"
LIMITS = [
    {"metricKey": "email_sends", "limit": 10},
    {"metricKey": "team_members", "limit": 2},
    {"metricKey": "workspaces", "unlimited": True},
    {"metricKey": "custom_domains", "limit": 0},
]
TEAM: dict[str, Any] = {
    "key": "team",
    "name": "Team",
    "tier": 9,
    "features": ["Email support"],
    "limits": LIMITS,
    "prices": [{"interval": "MONTH", "currency": "USD", "amountMinor": 900}],
}
AUSTRIA = {"country": "AT", "rate": "20", "validFrom": "2020-01-01"}
METRIC = {"key": "faxes", "name": "Faxes", "kind": "COUNTER", "unit": "page"}


async def change(client: Client, token: str, mutation: str, **given: Any) -> Any:
    """The payload of a mutation, with what it refused as (code, path) pairs."""
    data: Any = await client.data(token, mutation, input=given)
    (payload,) = data.values()
    return payload


def places(payload: Any) -> list[tuple[str, str]]:
    return [(error["code"], ".".join(error["field"])) for error in payload["userErrors"]]


async def keys_for(client: Client, token: str) -> list[str]:
    data: Any = await client.data(token, "{ plans { key } }")
    return [plan["key"] for plan in data["plans"]]


async def count_rows(world: World, table: Any) -> int:
    async with world.database.read() as session:
        return int(await session.scalar(select(func.count()).select_from(table)) or 0)


async def account_id_of(client: Client, world: World, name: str) -> str:
    data: Any = await client.data(
        world.operator, "query($name: String) { billingAccount(externalId: $name) { id } }", name=name
    )
    return str(data["billingAccount"]["id"])


GUIDE = re.findall(r"```graphql\n(.*?)```", Path("docs/catalogue.md").read_text("utf-8"), re.DOTALL)
GIVEN: dict[str, dict[str, Any]] = {
    PUBLISH: TEAM,
    ARCHIVE: {"key": "starter"},
    SET_METRIC: METRIC,
    SET_TAXES: {"rows": []},
}


@pytest.mark.parametrize(
    "who", [*(role for role in Role if role is not Role.OPERATOR), "operator's key of one account"]
)
async def test_only_who_stands_above_all_accounts_may(client: Client, world: World, who: Role | str) -> None:
    token = world.token("Acme", who) if isinstance(who, Role) else await make_operator_key(world, [Scope.ADMIN], "acme")
    for mutation, given in GIVEN.items():
        answer: Any = await client.ask(token, mutation, input=given)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    answer = await client.ask(token, TAXES)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await keys_for(client, world.operator) == ["free", "starter", "professional", "business", "enterprise"]


async def test_a_plan_is_published_and_then_its_next_version(client: Client, world: World) -> None:
    payload = await change(client, world.operator, PUBLISH, **TEAM)
    assert payload == {
        "plan": {
            "key": "team",
            "name": "Team",
            "tier": 9,
            "version": 1,
            "features": ["Email support"],
            "limits": [
                {"metricKey": "custom_domains", "limit": 0, "unlimited": False},
                {"metricKey": "email_sends", "limit": 10, "unlimited": False},
                {"metricKey": "team_members", "limit": 2, "unlimited": False},
                {"metricKey": "workspaces", "limit": None, "unlimited": True},
            ],
            "prices": [{"interval": "MONTH", "amount": {"amountMinor": 900, "currency": "USD"}}],
        },
        "userErrors": [],
    }
    again = await change(client, world.operator, PUBLISH, **TEAM)
    assert again["plan"]["version"] == 1  # nothing differs
    prices = [{"interval": "YEAR", "currency": "USD", "amountMinor": 9_000}]
    dearer = await change(client, world.operator, PUBLISH, **TEAM | {"prices": prices})
    assert dearer["plan"]["version"] == 2
    assert dearer["plan"]["prices"] == [{"interval": "YEAR", "amount": {"amountMinor": 9_000, "currency": "USD"}}]


async def test_days_of_dunning_are_published_and_read(client: Client, world: World) -> None:
    days = "dunning { retryDays suspendDay cancelDay }"
    publish = PUBLISH.replace("version", f"version {days}", 1)
    usual = {"retryDays": [3, 5, 7], "suspendDay": 7, "cancelDay": 14}
    for number, (given, shown) in enumerate(
        [
            (None, usual),
            ({}, usual),
            ({"cancelDay": 30}, usual | {"cancelDay": 30}),
            ({"retryDays": [], "suspendDay": 1, "cancelDay": 2}, {"retryDays": [], "suspendDay": 1, "cancelDay": 2}),
        ]
    ):
        payload = await change(client, world.operator, publish, **TEAM, dunning=given)
        assert payload["userErrors"] == []
        assert (payload["plan"]["version"], payload["plan"]["dunning"]) == (max(1, number), shown)
    data: Any = await client.data(world.token("Acme", Role.MEMBER), f"{{ plans {{ key {days} }} }}")
    assert {plan["key"]: plan["dunning"] for plan in data["plans"]}["starter"] == usual
    starter = TEAM | {"key": "starter", "name": "Starter", "tier": 1, "dunning": {"suspendDay": 2}}
    await change(client, world.operator, PUBLISH, **starter)
    query = f'{{ billingAccount(externalId: "calder") {{ subscription {{ plan {{ version {days} }} }} }} }}'
    data = await client.data(world.operator, query)
    assert data["billingAccount"]["subscription"]["plan"] == {"version": 1, "dunning": usual}


async def test_an_account_keeps_the_version_it_was_sold(client: Client, world: World) -> None:
    query = """{ billingAccount(externalId: "calder") { subscription { amount { amountMinor }
      plan { name version limits { metricKey limit } } } } }"""
    before = await client.data(world.operator, query)
    starter = TEAM | {"key": "starter", "name": "Starter", "tier": 1}
    payload = await change(client, world.operator, PUBLISH, **starter)
    assert (payload["plan"]["version"], payload["userErrors"]) == (2, [])
    assert await client.data(world.operator, query) == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"key": "Team"}, ["INVALID key"]),
        ({"key": "team\x00"}, ["INVALID key"]),
        (
            {"name": " ", "tier": -1, "features": ["ok", "two\nlines"]},
            ["INVALID features.1", "INVALID name", "INVALID tier"],
        ),
        ({"limits": LIMITS[:3]}, ["INVALID limits"]),
        ({"limits": [*LIMITS, {"metricKey": "faxes", "limit": 1}]}, ["INVALID limits.4"]),
        ({"limits": [*LIMITS, LIMITS[0]]}, ["INVALID limits.4.metricKey"]),
        ({"limits": [*LIMITS[:3], {"metricKey": "custom_domains"}]}, ["INVALID limits.3"]),
        ({"limits": [*LIMITS[1:], LIMITS[0] | {"unlimited": True}]}, ["INVALID limits.3"]),
        ({"limits": [*LIMITS[:3], {"metricKey": "custom_domains", "limit": -1}]}, ["INVALID limits.3"]),
        (
            {"prices": [TEAM["prices"][0] | {"currency": code, "amountMinor": -1} for code in ("USD", "EURO")]},
            ["INVALID prices.0", "INVALID prices.1", "INVALID prices.1"],
        ),
        ({"prices": [TEAM["prices"][0], TEAM["prices"][0]]}, ["INVALID prices.1"]),
        ({"dunning": {"suspendDay": 0, "cancelDay": 91}}, ["INVALID dunning.cancelDay", "INVALID dunning.suspendDay"]),
        ({"dunning": {"retryDays": [3, 20]}}, ["INVALID dunning.retryDays"]),
        ({"dunning": {"retryDays": [0]}}, ["INVALID dunning.retryDays.0"]),
        ({"key": "starter"}, ["INVALID tier"]),
        ({"privateToAccountId": "x"}, ["NOT_FOUND privateToAccountId"]),
        (
            {"privateToAccountId": encode_id("BillingAccount", "00000000-0000-4000-8000-000000000000")},
            ["NOT_FOUND privateToAccountId"],
        ),
    ],
)  # fmt: skip
async def test_a_bad_plan_is_refused_with_its_place(
    client: Client, world: World, given: dict[str, Any], expected: list[str]
) -> None:
    before = await count_rows(world, PlanVersion)
    payload = await change(client, world.operator, PUBLISH, **TEAM | given)
    assert payload["plan"] is None
    assert sorted(f"{code} {place}" for code, place in places(payload)) == sorted(
        line.replace(" ", " input.") for line in expected
    )
    assert await count_rows(world, PlanVersion) == before


async def test_a_private_plan_is_seen_by_its_account_and_operators_alone(client: Client, world: World) -> None:
    owner, stranger = world.token("Acme", Role.TENANT_OWNER), world.token("Birchwood", Role.TENANT_OWNER)
    own = TEAM | {"privateToAccountId": await account_id_of(client, world, "acme")}
    events, entries = await count_rows(world, OutboxEvent), await count_rows(world, AuditEntry)
    payload = await change(client, world.operator, PUBLISH, **own)
    assert payload["plan"]["key"] == "team"
    assert await count_rows(world, OutboxEvent) == events
    assert await count_rows(world, AuditEntry) == entries + 2, "in its log, and in the deployment's"
    for token, seen in ((owner, True), (world.operator, True), (stranger, False)):
        assert ("team" in await keys_for(client, token)) is seen
        data: Any = await client.data(token, '{ plan(key: "team") { key } }')
        assert (data["plan"] is not None) is seen
        data = await client.data(token, "query($id: ID!) { node(id: $id) { id } }", id=encode_id("Plan", "team"))
        assert (data["node"] is not None) is seen
    public = await change(client, world.operator, PUBLISH, **TEAM)
    assert places(public) == [("INVALID", "input.privateToAccountId")]
    in_euro = own | {"key": "euro", "prices": [{"interval": "MONTH", "currency": "EUR", "amountMinor": 1}]}
    refused = await change(client, world.operator, PUBLISH, **in_euro)
    assert places(refused) == [("INVALID", "input.prices")]
    assert "acme pays in USD" in refused["userErrors"][0]["message"]


async def test_an_archived_plan_is_not_offered_until_it_is_published_again(client: Client, world: World) -> None:
    for _ in range(2):
        payload = await change(client, world.operator, ARCHIVE, key="starter")
        assert payload == {"plan": {"key": "starter"}, "userErrors": []}
    assert "starter" not in await keys_for(client, world.operator)
    data: Any = await client.data(
        world.operator, '{ billingAccount(externalId: "calder") { subscription { plan { key version } } } }'
    )
    assert data["billingAccount"]["subscription"]["plan"] == {"key": "starter", "version": 1}
    await change(client, world.operator, PUBLISH, **TEAM | {"key": "starter", "name": "Starter", "tier": 1})
    assert "starter" in await keys_for(client, world.operator)


@pytest.mark.parametrize("key", ["nothing", "", "starter\x00", "Starter"])
async def test_an_unknown_plan_cannot_be_archived(client: Client, world: World, key: str) -> None:
    payload = await change(client, world.operator, ARCHIVE, key=key)
    assert (payload["plan"], places(payload)) == (None, [("NOT_FOUND", "input.key")])


async def test_a_metric_is_made_counted_and_changed(client: Client, world: World) -> None:
    overage = {"block": 100, "prices": [{"currency": "USD", "amountMinor": 50}]}
    payload = await change(client, world.operator, SET_METRIC, **METRIC, overage=overage)
    assert payload == {"metric": METRIC, "userErrors": []}
    data: Any = await client.data(world.operator, "{ metrics { key } }")
    assert [metric["key"] for metric in data["metrics"]][-1] == "faxes"
    data = await client.data(
        world.operator, '{ billingAccount(externalId: "acme") { usage(metrics: ["faxes"]) { used limit unlimited } } }'
    )
    assert data["billingAccount"]["usage"] == [{"used": 0, "limit": 0, "unlimited": False}]
    missing = await change(client, world.operator, PUBLISH, **TEAM)
    assert "faxes is missing" in missing["userErrors"][0]["message"]
    renamed = await change(client, world.operator, SET_METRIC, **METRIC | {"name": "Fax pages"})
    assert renamed["metric"]["name"] == "Fax pages"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"key": "team_members"}, "input.kind"),
        ({"key": "e-mail"}, "input.key"),
        ({"unit": "\x00"}, "input.unit"),
        ({"overage": {"block": 0, "prices": []}}, "input.overage.block"),
        ({"overage": {"block": 1, "prices": [{"currency": "usd", "amountMinor": 1}]}}, "input.overage.prices.0"),
        ({"overage": {"block": 1, "prices": [{"currency": "USD", "amountMinor": 1}] * 2}}, "input.overage.prices.1"),
    ],
)
async def test_a_bad_metric_is_refused_with_its_place(
    client: Client, world: World, given: dict[str, Any], expected: str
) -> None:
    payload = await change(client, world.operator, SET_METRIC, **METRIC | given)
    assert (payload["metric"], places(payload)) == (None, [("INVALID", expected)])


async def test_the_tax_table_is_replaced_and_read_again(client: Client, world: World) -> None:
    data: Any = await client.data(world.operator, TAXES)
    assert len(data["taxTable"]) == 14
    city = {
        "country": "US", "region": "NY", "jurisdiction": "New York City", "rate": "4.50", "lineKind": "SUBSCRIPTION",
        "category": "S", "validFrom": "2020-01-01", "validTo": "2027-01-01",
    }  # fmt: skip
    payload = await change(client, world.operator, SET_TAXES, rows=[city, AUSTRIA])
    austria = {"region": "", "jurisdiction": "AT", "lineKind": None, "category": "S", "validTo": None}
    assert payload == {"taxTable": [AUSTRIA | austria, city | {"rate": "4.5"}], "userErrors": []}
    data = await client.data(world.operator, TAXES)
    assert [row["country"] for row in data["taxTable"]] == ["AT", "US"]
    emptied = await change(client, world.operator, SET_TAXES, rows=[])
    assert emptied == {"taxTable": [], "userErrors": []}


async def test_everything_wrong_with_a_tax_table_is_told_at_once(client: Client, world: World) -> None:
    rows = [
        AUSTRIA,
        AUSTRIA | {"rate": "101"},
        AUSTRIA | {"country": "Austria", "region": "vienna"},
        AUSTRIA | {"validFrom": "2021-01-01", "rate": "10"},
        AUSTRIA | {"country": "DE", "validTo": "2019-01-01"},
        AUSTRIA | {"country": "FR", "rate": "8.87555", "category": "E"},
    ]
    payload = await change(client, world.operator, SET_TAXES, rows=rows)
    assert payload["taxTable"] is None
    assert sorted(place for _, place in places(payload)) == [
        "input.rows.1.rate",
        "input.rows.2.country",
        "input.rows.2.region",
        "input.rows.3",
        "input.rows.4",
        "input.rows.5.category",
        "input.rows.5.rate",
    ]
    assert {code for code, _ in places(payload)} == {"INVALID"}
    data: Any = await client.data(world.operator, TAXES)
    assert len(data["taxTable"]) == 14


async def test_what_is_refused_speaks_of_what_the_api_knows(client: Client, world: World) -> None:
    """No names of the file, no `Input should …`: what is said fits a mutation too."""
    metric = METRIC | {"overage": {"block": 0, "prices": [{"currency": "USD", "amountMinor": -1}]}}
    limits = [{"metricKey": "email_sends", "limit": -1}, *LIMITS[1:]]
    dear = [{"interval": "MONTH", "currency": "USD", "amountMinor": 10**12 + 1}]
    payloads = [
        await change(client, world.operator, SET_METRIC, **metric),
        await change(client, world.operator, PUBLISH, **TEAM | {"limits": limits, "prices": dear}),
        await change(client, world.operator, SET_TAXES, rows=[AUSTRIA | {"validTo": "2019-01-01"}]),
    ]
    told = [error["message"] for payload in payloads for error in payload["userErrors"]]
    assert told == [
        "This is a whole number above 0.",
        "A price is a whole number of minor units, from 0 to 1000000000000.",
        "A limit is a whole number from 0 to 9007199254740991, or unlimited.",
        "A price is a whole number of minor units, from 0 to 1000000000000.",
        "A row ends on the first day on which it no longer holds, which lies after its first day.",
    ]


async def test_a_tax_table_has_a_limit_and_so_have_its_refusals(client: Client, world: World) -> None:
    rows = [AUSTRIA | {"jurisdiction": str(number)} for number in range(2_001)]
    payload = await change(client, world.operator, SET_TAXES, rows=rows)
    assert places(payload) == [("INVALID", "input.rows")]
    payload = await change(client, world.operator, SET_TAXES, rows=rows[1:])
    assert len(payload["taxTable"]) == 2_000
    payload = await change(client, world.operator, SET_TAXES, rows=[AUSTRIA | {"rate": "x"}] * 2_000)
    assert len(payload["userErrors"]) == 100


async def test_a_key_makes_it_happen_once(client: Client, world: World) -> None:
    given = TEAM | {"idempotencyKey": "k1"}
    first: Any = await client.ask(world.operator, PUBLISH, input=given)
    await change(client, world.operator, ARCHIVE, key="team")
    again: Any = await client.ask(world.operator, PUBLISH, input=given)
    assert again["extensions"]["idempotency"] == {"replayed": True}
    assert again["data"] == first["data"]
    assert "team" not in await keys_for(client, world.operator)  # a replay does nothing
    other = await change(client, world.operator, PUBLISH, **given | {"name": "Other"})
    assert places(other) == [("IDEMPOTENCY_MISMATCH", "input.idempotencyKey")]


async def test_a_change_is_logged_with_its_maker(
    client: Client, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plafond.catalogue")
    await change(client, world.operator, PUBLISH, **TEAM)
    await change(client, world.operator, PUBLISH, **TEAM)
    lines = [record.getMessage() for record in caplog.records if record.name == "plafond.catalogue"]
    assert len(lines) == 1
    assert re.fullmatch(r"plan team added by api_key:[0-9a-f-]{36}: version 1", lines[0])


async def test_the_guide_s_mutation_works(client: Client, world: World) -> None:
    data: Any = await client.data(world.operator, GUIDE[0], account=await account_id_of(client, world, "birchwood"))
    assert data["publishPlan"] == {
        "plan": {
            "key": "birchwood_2026",
            "version": 1,
            "prices": [{"interval": "YEAR", "amount": {"formatted": "$9,000.00"}}],
        },
        "userErrors": [],
    }
