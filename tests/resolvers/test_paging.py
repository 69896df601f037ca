"""Lists by pages: all pages together are the list, wrong arguments are refused, and a page's size costs nothing."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

import pytest

from plafond.models import Role

from ..conftest import Client, World

PAGE = """totalCount edges { cursor node { id } } nodes { id }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"""
DECLARED = "query($first: Int, $after: String, $last: Int, $before: String)"
WINDOW = "first: $first, after: $after, last: $last, before: $before"


@dataclass(frozen=True)
class Paged:
    """A list: who asks for it, how, and how long it is."""

    document: str
    path: tuple[str, ...]
    total: int
    by_operator: bool = False

    async def ask(self, client: Client, world: World, **window: object) -> Any:
        token = world.operator if self.by_operator else world.token("Acme", Role.TENANT_OWNER)
        return await client.ask(token, self.document, **window)

    async def page(self, client: Client, world: World, **window: object) -> Any:
        answer = await self.ask(client, world, **window)
        assert "errors" not in answer, answer
        found = answer["data"]
        for name in self.path:
            found = found[name]
        assert [edge["node"] for edge in found["edges"]] == found["nodes"]
        assert found["totalCount"] == self.total
        cursors = [edge["cursor"] for edge in found["edges"]]
        ends = (found["pageInfo"]["startCursor"], found["pageInfo"]["endCursor"])
        assert ends == ((cursors[0], cursors[-1]) if cursors else (None, None))
        return found


LISTS = {
    "invoices": Paged(f"{DECLARED} {{ billingAccount {{ list: invoices({WINDOW}) {{ {PAGE} }} }} }}",
                      ("billingAccount", "list"), 13),
    "transactions": Paged(f"{DECLARED} {{ billingAccount {{ list: transactions({WINDOW}) {{ {PAGE} }} }} }}",
                          ("billingAccount", "list"), 13),
    "billingAccounts": Paged(f"{DECLARED} {{ list: billingAccounts({WINDOW}) {{ {PAGE} }} }}", ("list",), 7, True),
}  # fmt: skip
every_list = pytest.mark.parametrize("paged", LISTS.values(), ids=LISTS)


def ids(page: Any) -> list[str]:
    return [node["id"] for node in page["nodes"]]


@every_list
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 13, 100])
async def test_all_pages_forwards_are_the_list(client: Client, world: World, paged: Paged, size: int) -> None:
    whole = ids(await paged.page(client, world, first=100))
    assert len(set(whole)) == paged.total
    seen: list[str] = []
    after = None
    while True:
        page = await paged.page(client, world, first=size, after=after)
        seen += ids(page)
        info = page["pageInfo"]
        assert info["hasPreviousPage"] is (after is not None)
        assert info["hasNextPage"] is (len(seen) < paged.total)
        if not info["hasNextPage"]:
            break
        assert len(page["nodes"]) == size
        after = info["endCursor"]
    assert seen == whole


@every_list
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 13, 100])
async def test_all_pages_backwards_are_the_list(client: Client, world: World, paged: Paged, size: int) -> None:
    whole = ids(await paged.page(client, world, first=100))
    seen: list[str] = []
    before = None
    while True:
        page = await paged.page(client, world, last=size, before=before)
        seen = ids(page) + seen
        info = page["pageInfo"]
        assert info["hasNextPage"] is (before is not None)
        assert info["hasPreviousPage"] is (len(seen) < paged.total)
        if not info["hasPreviousPage"]:
            break
        assert len(page["nodes"]) == size
        before = info["startCursor"]
    assert seen == whole


@every_list
async def test_there_and_back_again(client: Client, world: World, paged: Paged) -> None:
    first = await paged.page(client, world, first=3)
    second = await paged.page(client, world, first=3, after=first["pageInfo"]["endCursor"])
    back = await paged.page(client, world, last=3, before=second["pageInfo"]["startCursor"])
    assert ids(back) == ids(first)
    assert back["edges"] == first["edges"]
    middle = second["edges"][1]["cursor"]
    assert ids(await paged.page(client, world, first=1, after=middle)) == ids(second)[2:]
    assert ids(await paged.page(client, world, last=1, before=middle)) == ids(second)[:1]


@every_list
async def test_twenty_are_given_when_nothing_is_said(client: Client, world: World, paged: Paged) -> None:
    whole = await paged.page(client, world, first=100)
    assert await paged.page(client, world) == whole
    assert await paged.page(client, world, first=20) == whole
    cursor = whole["edges"][2]["cursor"]
    assert ids(await paged.page(client, world, after=cursor)) == ids(whole)[3:]
    assert ids(await paged.page(client, world, before=cursor)) == ids(whole)[:2]


@every_list
async def test_beyond_the_end_is_an_empty_page(client: Client, world: World, paged: Paged) -> None:
    whole = await paged.page(client, world, first=100)
    page = await paged.page(client, world, first=5, after=whole["pageInfo"]["endCursor"])
    assert (page["nodes"], page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == ([], False, True)
    page = await paged.page(client, world, last=5, before=whole["pageInfo"]["startCursor"])
    assert (page["nodes"], page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == ([], True, False)


CURSOR = object()
"""Stands for a good cursor of the list."""
WRONG_WINDOWS: list[dict[str, object]] = [
    {"first": 0},
    {"first": -1},
    {"first": 101},
    {"first": 2**31 - 1},
    {"last": 0},
    {"last": -1},
    {"last": 101},
    {"first": 1, "last": 1},
    {"after": CURSOR, "before": CURSOR},
    {"first": 1, "after": CURSOR, "before": CURSOR},
    {"first": 1, "before": CURSOR},
    {"last": 1, "after": CURSOR},
    {"first": 0, "after": CURSOR},
    {"last": 101, "before": CURSOR},
]


@every_list
async def test_wrong_arguments_are_refused(client: Client, world: World, paged: Paged) -> None:
    cursor = (await paged.page(client, world, first=1))["pageInfo"]["endCursor"]
    for window in WRONG_WINDOWS:
        given = {name: cursor if value is CURSOR else value for name, value in window.items()}
        answer = await paged.ask(client, world, **given)
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"], window


def tamper(cursor: str) -> list[str]:
    """Cursors that were changed, or never ours."""
    raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    check, values = raw[:8], json.loads(raw[8:])

    def make(*place: object, check: bytes = check) -> str:
        return urlsafe_b64encode(check + json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")

    flipped = [cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :] for n in range(0, len(cursor), 7)]
    return [
        *flipped,
        "",
        "x",
        "é",
        " " + cursor,
        cursor + "=",
        cursor + "A",
        cursor[:-1],
        cursor * 20,
        make(),
        make(2, *values[1:]),
        make(values[0], "0001-01-01T00:00:00+00:00", *values[2:]),
        make(*values, check=b"\x00" * 8),
        make(*values[:-1]),
        make(*values, 1),
        urlsafe_b64encode(check + b"[" * 60_000).decode(),
        urlsafe_b64encode(b"arrayconnection:1").decode(),
        "YXJyYXljb25uZWN0aW9uOjE=",
    ]


@every_list
async def test_changed_cursors_are_refused(client: Client, world: World, paged: Paged) -> None:
    cursor = (await paged.page(client, world, first=1))["pageInfo"]["endCursor"]
    for changed in tamper(cursor):
        for window in ({"first": 1, "after": changed}, {"last": 1, "before": changed}):
            answer = await paged.ask(client, world, **window)
            assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"], changed[:80]


@every_list
async def test_a_cursor_of_another_list_is_refused(client: Client, world: World, paged: Paged) -> None:
    for other in LISTS.values():
        if other is not paged:
            cursor = (await other.page(client, world, first=1))["pageInfo"]["endCursor"]
            answer = await paged.ask(client, world, first=1, after=cursor)
            assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]


@every_list
async def test_a_page_of_any_size_costs_the_same(client: Client, world: World, paged: Paged) -> None:
    cursor = (await paged.page(client, world, first=2))["pageInfo"]["endCursor"]
    counts = []
    for window in (
        *({"first": size} for size in (1, 2, 5, 20, 100)),
        *({"last": size} for size in (1, 5, 100)),
        *({"first": size, "after": cursor} for size in (1, 5, 100)),
        *({"last": size, "before": cursor} for size in (1, 5, 100)),
    ):
        world.statements.clear()
        await paged.page(client, world, **window)
        counts.append(len(world.statements))
    assert len(set(counts)) == 1, counts
    assert counts[0] <= 4


async def test_a_list_below_each_row_costs_the_same_for_one_and_for_all(client: Client, world: World) -> None:
    query = """query($first: Int, $below: Int) { billingAccounts(first: $first) { nodes { invoices(first: $below) {
      totalCount nodes { lines { id } taxBreakdown { rate } transactions(first: $below) { totalCount nodes { id
      invoice { id } paymentMethod { id } } } } } } } }"""
    counts = set()
    for first in (3, 5, 7):  # the newest has no invoice yet
        for below in (1, 2, 4):
            world.statements.clear()
            await client.data(world.operator, query, first=first, below=below)
            counts.add(len(world.statements))
    assert len(counts) == 1, counts


async def test_a_filter_counts_and_pages_what_it_lets_through(client: Client, world: World) -> None:
    query = """query($first: Int, $after: String) { billingAccounts(first: $first, after: $after,
      filter: { search: "e", planKey: "professional" }) {
      totalCount nodes { name } pageInfo { hasNextPage endCursor } } }"""
    whole: Any = await client.data(world.operator, query, first=100)
    names = [row["name"] for row in whole["billingAccounts"]["nodes"]]
    assert 1 < len(names) < 7
    seen: list[str] = []
    after = None
    while len(seen) < len(names):
        part: Any = (await client.data(world.operator, query, first=1, after=after))["billingAccounts"]
        assert part["totalCount"] == len(names)
        seen += [row["name"] for row in part["nodes"]]
        after = part["pageInfo"]["endCursor"]
        assert part["pageInfo"]["hasNextPage"] is (len(seen) < len(names))
    assert seen == names


async def test_alerts_by_pages_and_where_to_go_on(client: Client, world: World) -> None:
    query = """query($first: Int, $after: String) { billingAccount { changeCursor alerts(first: $first, after: $after) {
      totalCount resumeCursor nodes { id level } pageInfo { hasNextPage endCursor } } } }"""
    token = world.token("Calder", Role.MEMBER)
    data: Any = await client.data(token, query, first=2)
    part = data["billingAccount"]["alerts"]
    rest: Any = await client.data(token, query, first=2, after=part["pageInfo"]["endCursor"])
    levels = [row["level"] for row in part["nodes"] + rest["billingAccount"]["alerts"]["nodes"]]
    assert levels[:3] == ["URGENT", "UPGRADE_SUGGESTION", "WARNING"]
    assert part["resumeCursor"] == data["billingAccount"]["changeCursor"]
