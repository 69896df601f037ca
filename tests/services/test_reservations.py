"""Reservations: what is held can be had, and used and held together pass no limit that holds."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from plafond.models import Role

from ..conftest import Client, World

RESERVE = """
mutation ($input: ReserveUsageInput!) {
  reserveUsage(input: $input) {
    reservation { id status quantity committed expiresAt metric { key } }
    usage { used held remaining }
    userErrors { code field message }
  }
}"""
COMMIT = """
mutation ($id: ID!, $quantity: BigInt) {
  commitReservation(input: { reservationId: $id, quantity: $quantity }) {
    reservation { status committed } usage { used held } userErrors { code field }
  }
}"""
RELEASE = """
mutation ($id: ID!) {
  releaseReservation(input: { reservationId: $id }) {
    reservation { status } usage { used held } userErrors { code field }
  }
}"""


async def reserve(client: Client, world: World, metric: str, quantity: int, **more: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"externalId": "acme", "metric": metric, "quantity": quantity, **more}
    return await ask(client, world, RESERVE, input=asked)


async def ask(client: Client, world: World, query: str, **variables: Any) -> dict[str, Any]:
    found: Any = await client.data(world.operator, query, **variables)
    (answer,) = found.values()
    assert isinstance(answer, dict)
    return answer


async def test_case_21_a_hundred_at_once_get_exactly_what_is_left(client: Client, world: World) -> None:
    """Acme has 7 of 10 workspaces: three more can be held, however many ask at once."""
    answers = await asyncio.gather(*(reserve(client, world, "workspaces", 1) for _ in range(100)))
    assert sum(answer["reservation"] is not None for answer in answers) == 3
    refused = [answer["userErrors"][0]["code"] for answer in answers if answer["userErrors"]]
    assert refused == ["LIMIT_EXCEEDED"] * 97


async def test_case_21_what_expired_is_free_again(client: Client, world: World) -> None:
    held = await reserve(client, world, "workspaces", 3, seconds=60)
    assert held["usage"] == {"used": 7, "held": 3, "remaining": 0}
    assert (await reserve(client, world, "workspaces", 1))["userErrors"][0]["code"] == "LIMIT_EXCEEDED"
    world.clock.stands_at += timedelta(seconds=60)
    late = await ask(client, world, COMMIT, id=held["reservation"]["id"])
    assert late["userErrors"] == [{"code": "RESERVATION_EXPIRED", "field": ["input", "reservationId"]}]
    again = await reserve(client, world, "workspaces", 3)
    assert again["usage"] == {"used": 7, "held": 3, "remaining": 0}


async def test_case_21_committed_twice_is_once(client: Client, world: World) -> None:
    held = await reserve(client, world, "workspaces", 3)
    for _ in range(2):
        done = await ask(client, world, COMMIT, id=held["reservation"]["id"], quantity=2)
        assert done == {
            "reservation": {"status": "COMMITTED", "committed": 2},
            "usage": {"used": 9, "held": 0},
            "userErrors": [],
        }
    other = await ask(client, world, COMMIT, id=held["reservation"]["id"], quantity=3)
    assert other["userErrors"] == [{"code": "CONFLICT", "field": ["input", "quantity"]}]
    released = await ask(client, world, RELEASE, id=held["reservation"]["id"])
    assert released["userErrors"] == [{"code": "CONFLICT", "field": ["input", "reservationId"]}]


async def test_what_is_released_is_free_again(client: Client, world: World) -> None:
    held = await reserve(client, world, "workspaces", 3)
    for _ in range(2):
        done = await ask(client, world, RELEASE, id=held["reservation"]["id"])
        assert done == {"reservation": {"status": "RELEASED"}, "usage": {"used": 7, "held": 0}, "userErrors": []}
    gone = await ask(client, world, COMMIT, id=held["reservation"]["id"])
    assert gone["userErrors"] == [{"code": "CONFLICT", "field": ["input", "reservationId"]}]


async def test_what_is_held_is_not_there_for_events(client: Client, world: World) -> None:
    await reserve(client, world, "workspaces", 2)
    record = "mutation ($e: [UsageEventInput!]!) { recordUsage(input: { events: $e }) { results { status code } } }"
    events = [
        {"eventId": f"w{number}", "externalId": "acme", "metric": "workspaces", "quantity": 1} for number in range(2)
    ]
    assert (await ask(client, world, record, e=events))["results"] == [
        {"status": "ACCEPTED", "code": None},
        {"status": "REJECTED", "code": "LIMIT_EXCEEDED"},
    ]


async def test_under_a_key_it_is_made_once(client: Client, world: World) -> None:
    first = await reserve(client, world, "workspaces", 1, idempotencyKey="r-1")
    again = await reserve(client, world, "workspaces", 1, idempotencyKey="r-1")
    assert first["reservation"]["id"] == again["reservation"]["id"]
    assert again["usage"]["held"] == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"quantity": 0}, "quantity"),
        ({"quantity": -1}, "quantity"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": 3_601}, "seconds"),
        ({"metric": "nothing"}, "metric"),
        ({"externalId": "nobody"}, "externalId"),
        ({"externalId": None}, "accountId"),
        ({"externalId": None, "accountId": "nobody"}, "accountId"),
        ({"properties": {"a": "\x00"}}, "properties"),
    ],
)
async def test_bad_input_says_what_to_mend(client: Client, world: World, given: dict[str, Any], field: str) -> None:
    asked: dict[str, Any] = {"metric": "workspaces", "quantity": 1, **given}
    answer = await reserve(client, world, **asked)
    assert answer["reservation"] is None
    assert answer["userErrors"][0]["field"] == ["input", field]


async def test_tenants_do_not_reserve(client: Client, world: World) -> None:
    owner = world.token("Acme", Role.TENANT_OWNER)
    asked = {"externalId": "acme", "metric": "workspaces", "quantity": 1}
    answer: dict[str, Any] = await client.ask(owner, RESERVE, input=asked)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_where_it_has_to_be_approved_a_notice_asks_for_it(client: Client, world: World) -> None:
    find = """{ billingAccount(externalId: "acme") { id notices { code } } }"""
    account: Any = await client.data(world.operator, find)
    policy = "mutation ($input: SetOveragePolicyInput!) { setOveragePolicy(input: $input) { userErrors { code } } }"
    chosen = {"accountId": account["billingAccount"]["id"], "metric": "email_sends", "policy": "ASK"}
    assert (await ask(client, world, policy, input=chosen))["userErrors"] == []
    for key in (None, "k-1", "k-1"):
        refused = await reserve(client, world, "email_sends", 30_000, idempotencyKey=key)
        assert [error["code"] for error in refused["userErrors"]] == ["OVERAGE_APPROVAL_REQUIRED"]
    account = await client.data(world.operator, find)
    assert [notice["code"] for notice in account["billingAccount"]["notices"]].count("OVERAGE_APPROVAL") == 1
    held = await reserve(client, world, "email_sends", 26_550)
    assert held["userErrors"] == []
