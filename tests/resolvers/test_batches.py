"""Batches read past the general reading of inputs: whatever is sent, the answer is the same."""

from typing import Any

import pytest

from plafond.resolvers.batches import Batch, find_batch
from plafond.schema.usage import read_events

from ..conftest import Client, World

ANSWER = "accepted duplicates rejected results { index eventId status code message used limit } userErrors { code }"
DIRECT = f"mutation ($e: [UsageEventInput!]!) {{ recordUsage(input: {{ events: $e, dryRun: true }}) {{ {ANSWER} }} }}"
GENERAL = f"""
mutation ($e: [UsageEventInput!]!) {{ ...All }}
fragment All on Mutation {{ recordUsage(input: {{ events: $e, dryRun: true }}) {{ {ANSWER} }} }}"""

SENT = {"eventId": "1", "metric": "email_sends", "externalId": "acme", "quantity": 1}
LISTS: list[Any] = [
    [SENT],
    [],
    None,
    SENT,
    "no list",
    [None],
    [
        {**SENT, "occurredAt": "2026-11-24T12:00:00Z"},
        {**SENT, "eventId": "2", "occurredAt": "2026-11-24t13:00:00+01:00"},
    ],
    [{**SENT, "occurredAt": "yesterday"}],
    [{**SENT, "occurredAt": 1}],
    [{**SENT, "quantity": 1.0}],
    [{**SENT, "quantity": 1.5}],
    [{**SENT, "quantity": True}],
    [{**SENT, "quantity": "1"}],
    [{**SENT, "quantity": 2**53}],
    [{**SENT, "quantity": None}],
    [{**SENT, "quantity": None, "level": 5, "metric": "workspaces"}],
    [{**SENT, "eventId": 1}],
    [{**SENT, "eventId": None}],
    [{**SENT, "metric": None}],
    [{**SENT, "more": 1}],
    [{"eventId": "1"}],
    [{**SENT, "externalId": None, "accountId": 17}],
    [{**SENT, "externalId": None, "accountId": "17"}],
    [{**SENT, "externalId": None}],
    [{**SENT, "correction": None}],
    [{**SENT, "correction": "true"}],
    [{**SENT, "correction": True, "quantity": -1}],
    [{**SENT, "properties": None}],
    [{**SENT, "properties": []}],
    [{**SENT, "properties": {"workspace": "a", "nested": {"b": 1}}}],
    [{**SENT, "properties": {"workspace": 3, "flag": False}}],
    [SENT, {**SENT, "eventId": "2", "metric": "nothing"}, SENT, {**SENT, "quantity": 2}],
]


@pytest.mark.parametrize("events", LISTS, ids=str)
async def test_the_answer_is_that_of_the_general_reading(client: Client, world: World, events: Any) -> None:
    direct, general = [await client.ask(world.operator, document, e=events) for document in (DIRECT, GENERAL)]
    for answer in (direct, general):
        for error in answer.get("errors", ()):  # type: ignore[attr-defined]  # places and request ids differ
            error["extensions"].pop("requestId")
            error.pop("locations", None)
    assert direct == general


def test_a_plain_batch_is_read_directly() -> None:
    assert find_batch(DIRECT, None) == Batch("e", is_input=False)
    assert read_events([SENT]) is not None
    whole = "mutation A($i: RecordUsageInput!) { recordUsage(input: $i) { accepted } } query B { metrics { key } }"
    assert find_batch(whole, "A") == Batch("i", is_input=True)
    assert Batch("i", is_input=True).without_events({"i": {"events": [SENT], "dryRun": True}, "j": 1}) == {
        "i": {"events": [], "dryRun": True},
        "j": 1,
    }


@pytest.mark.parametrize(
    "document",
    [
        GENERAL,
        "mutation { recordUsage(input: { events: [] }) { accepted } }",
        """mutation ($e: [UsageEventInput!]!) { a: recordUsage(input: { events: $e }) { accepted }
           b: recordUsage(input: { events: $e }) { accepted } }""",
        "mutation ($e: UsageEventInput!) { recordUsage(input: { events: [$e] }) { accepted } }",
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_the_general_reading(document: str) -> None:
    assert find_batch(document, None) is None


async def test_results_are_chosen_by_status(client: Client, world: World) -> None:
    document = """mutation ($e: [UsageEventInput!]!) { recordUsage(input: { events: $e }) {
      accepted rejected results(status: [REJECTED]) { index code } } }"""
    found: Any = await client.data(world.operator, document, e=[SENT, {**SENT, "eventId": "2", "metric": "nothing"}])
    assert found["recordUsage"] == {
        "accepted": 1,
        "rejected": 1,
        "results": [{"index": 1, "code": "UNKNOWN_METRIC"}],
    }
