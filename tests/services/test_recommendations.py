"""What is advised is paged, told and put away; how it is reckoned is tested in `rules` and lived in `stories`."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from plafond.models import AuditEntry, BillingAccount, OutboxEvent, RecommendationDismissal, Role
from plafond.services.changes import ChangeKind, kind_of
from plafond.services.cursors import encode_cursor
from plafond.services.errors import RequestRefused
from plafond.services.paging import Slice, Window, slice_ranked
from plafond.services.recommendations import find_recommendation

from ..conftest import Client, World
from .helpers import ACTOR, account_of

PAGE = '{ billingAccount(externalId: "acme") { recommendations { totalCount nodes { id } } } }'
DISMISS = """mutation($id: ID!, $key: String) {
  dismissRecommendation(input: { recommendationId: $id, idempotencyKey: $key }) {
  account { recommendations { totalCount } } userErrors { code field } } }"""


async def page(client: Client, world: World) -> Any:
    data: Any = await client.data(world.operator, PAGE)
    return data["billingAccount"]["recommendations"]


RANKED = [(-9, "a"), (-9, "b"), (-4, "a"), (-1, "c"), (-1, "d")]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pages_meet_in_both_directions(size: int) -> None:
    def read(window: Window) -> Slice[tuple[int, str]]:
        return slice_ranked("test", RANKED, lambda row: row, window)

    forwards, after = list[tuple[int, str]](), None
    while True:
        part = read(Window(size, after, None, backwards=False))
        assert (part.total, part.has_previous) == (len(RANKED), after is not None)
        forwards += [row for _, row in part.rows]
        if not part.has_next:
            break
        after = part.rows[-1][0]
    backwards, before = list[tuple[int, str]](), None
    while True:
        part = read(Window(size, None, before, backwards=True))
        assert part.has_next == (before is not None)
        backwards = [*(row for _, row in part.rows), *backwards]
        if not part.has_previous:
            break
        before = part.rows[0][0]
    assert forwards == backwards == RANKED


def test_a_cursor_goes_on_where_its_row_was() -> None:
    """The list changes from one request to the next."""
    after = encode_cursor("test", (-5, "gone"))
    part = slice_ranked("test", RANKED, lambda row: row, Window(2, after, None, backwards=False))
    assert [row for _, row in part.rows] == RANKED[2:4]
    with pytest.raises(RequestRefused):
        slice_ranked("other", RANKED, lambda row: row, Window(2, after, None, backwards=False))


async def test_one_that_is_put_away_is_told_once_and_comes_back_when_it_saves_twice_as_much(
    client: Client, world: World
) -> None:
    token = world.token("Acme", Role.BILLING_ADMIN)
    whole = await page(client, world)
    id_ = whole["nodes"][0]["id"]
    for key in ("a", "a", "b"):
        data: Any = await client.data(token, DISMISS, id=id_, key=key)
        assert data["dismissRecommendation"] == {
            "account": {"recommendations": {"totalCount": whole["totalCount"] - 1}},
            "userErrors": [],
        }
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        events = await work.session.scalars(select(OutboxEvent).where(OutboxEvent.account_id == account.id))
        assert [kind_of(event) for event in events].count(ChangeKind.RECOMMENDATION) == 1
        audited = await work.session.scalars(select(AuditEntry.action).where(AuditEntry.account_id == account.id))
        assert list(audited).count("recommendation.dismissed") == 1
        row = (await work.session.scalars(select(RecommendationDismissal))).one()
        found = await find_recommendation(
            work, await work.session.get_one(BillingAccount, account.id), row.recommendation
        )
    assert found.is_dismissed_by(row)
    advice = found.advice
    dearer = [amount + advice.monthly_minor for amount in advice.current_minor]
    assert not replace(found, advice=replace(advice, current_minor=dearer)).is_dismissed_by(row)
    assert not replace(found, grounds="others").is_dismissed_by(row)


async def test_others_have_none_to_put_away(client: Client, world: World) -> None:
    whole = await page(client, world)
    data: Any = await client.data(
        world.token("Calder", Role.TENANT_OWNER), DISMISS, id=whole["nodes"][0]["id"], key="a"
    )
    assert data["dismissRecommendation"]["userErrors"] == [
        {"code": "NOT_FOUND", "field": ["input", "recommendationId"]}
    ]
