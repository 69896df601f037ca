"""The guides tell the truth: their GraphQL is valid, their stories happen as told, their tables are the code's."""

import asyncio
import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from graphql import OperationDefinitionNode, parse, validate

from plafond.adapters.sandbox_processor import AFTER_AUTHENTICATION, CARDS, DECLINES, SandboxProcessor
from plafond.api import list_root_fields, schema
from plafond.models import WorkKind
from plafond.sandbox.scenarios import SCENARIOS
from plafond.services.access import render_rights
from plafond.services.errors import UserErrorCode
from plafond.services.mailing import RULES
from plafond.services.tills import Till
from plafond.worker import WORKER, do_due_work

from .conftest import Client, World
from .test_cli import plafond

PAGES = [
    Path("README.md"),
    Path("CONTRIBUTING.md"),
    Path("CHANGELOG.md"),
    Path("deploy/README.md"),
    *sorted(Path("docs").rglob("*.md")),
]
STORIES = [
    Path(f"docs/{name}.md")
    for name in (
        "subscriptions",
        "test-clocks",
        "invoices",
        "payments",
        "budgets",
        "cost-explorer",
        "forecasts",
        "recommendations",
        "spikes",
        "month-close",
        "audit-log",
        "retention",
        "webhooks",
        "api-keys",
    )
]
"""Guides whose blocks are lived through from top to bottom."""


def graphql_blocks() -> list[tuple[str, str]]:
    found = [
        (str(page), block)
        for page in PAGES
        for block in re.findall(r"```graphql\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    return [*found, ("docs/dashboard.graphql", Path("docs/dashboard.graphql").read_text())]


@pytest.mark.parametrize(("page", "block"), graphql_blocks())
def test_graphql_in_the_guides_is_valid(page: str, block: str) -> None:
    assert validate(schema._schema, parse(block)) == [], page


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_table_of_rights_is_the_codes() -> None:
    assert Path("docs/access.md").read_text() == render_rights(list_root_fields(schema))


def test_every_decision_is_listed_once() -> None:
    listed = re.findall(r"^- \[\d+\. .+\]\((.+)\)$", Path("docs/decisions/README.md").read_text(), re.MULTILINE)
    assert listed == sorted(page.name for page in Path("docs/decisions").glob("0*.md"))


# Stories: each block is asked as it stands, and answers what the next one says.


def matches(said: Any, found: Any) -> bool:
    """Whether an answer is what the guide says, in which `…` stands for what differs from run to run."""
    if isinstance(said, dict) and isinstance(found, dict):
        return said.keys() == found.keys() and all(matches(said[key], found[key]) for key in said)
    if isinstance(said, list) and isinstance(found, list):
        return len(said) == len(found) and all(map(matches, said, found))
    if isinstance(said, str) and "…" in said:
        return re.fullmatch(".+".join(map(re.escape, said.split("…"))), str(found), re.DOTALL) is not None
    return bool(said == found)


def ids_in(answer: Any) -> dict[str, str]:
    """The ids in an answer by their field's name, which variables have too; of several `lines` the last is `line`."""
    found: dict[str, str] = {}
    for name, item in answer.items() if isinstance(answer, dict) else ():
        several = item["nodes"] if isinstance(item, dict) and "nodes" in item else item
        one = several[-1] if isinstance(several, list) and several else several
        found |= ids_in(one)
        if isinstance(one, dict) and "id" in one:
            found[name.removesuffix("s") if isinstance(several, list) else name] = one["id"]
    return found


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """The language and text of each block, in order."""
    return re.findall(r"```(graphql|json|sh|text)\n(.*?)```", page.read_text(), re.DOTALL)


async def work_until_today(world: World) -> None:
    """Let the days pass that lie between the test's clock and the machine's, with a worker running."""
    world.clock.stands_at = max(world.clock.stands_at, datetime.now(UTC))
    till = Till(world.database, SandboxProcessor(world.database), WORKER)
    while await do_due_work(till):
        pass


@pytest.mark.parametrize("page", STORIES, ids=str)
@pytest.mark.usefixtures("address")  # the command line writes past the application
async def test_a_guide_happens_as_it_tells(page: Path, world: World, client: Client) -> None:
    blocks = blocks_of(page)
    known: dict[str, str] = {}
    for (language, block), (follows, said) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "graphql":
            (operation,) = parse(block).definitions
            assert isinstance(operation, OperationDefinitionNode)
            wanted = {variable.variable.name.value: "" for variable in operation.variable_definitions or ()}
            data = await client.data(world.operator, block, **{name: known[name] for name in wanted})
            known |= ids_in(data)
            assert follows == "json", f"what does this answer?\n{block}{json.dumps(data, ensure_ascii=False, indent=1)}"
            assert matches(json.loads(said), data), f"{block}{json.dumps(data, ensure_ascii=False, indent=1)}"
        if language == "sh" and follows == "text":
            await work_until_today(world)  # commands know the real time only, and nothing may be left undone for days
            done = await asyncio.to_thread(plafond, *shlex.split(block)[1:], database_url=world.settings.database_url)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
            assert matches(said, done.stdout), done.stdout


# Tables


def rows_of(page: str, head: str) -> list[list[str]]:
    """The rows of the table with this first heading, code marks left out."""
    _, _, after = Path(page).read_text().partition(f"| {head} |")
    assert after, f"{page} has no table of {head}"
    lines = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_scenarios_is_the_codes() -> None:
    expected = [[name, scenario.meaning] for name, scenario in SCENARIOS.items()]
    assert rows_of("docs/test-clocks.md", "scenario") == expected


def test_the_table_of_test_cards_is_the_codes() -> None:
    found = {token: (last4, outcome) for token, last4, outcome in rows_of("docs/subscriptions.md", "token")}
    assert {token: last4 for token, (last4, _) in found.items()} == {token: card[1] for token, card in CARDS.items()}
    for token, (_, outcome) in found.items():
        failure = DECLINES.get(token) or AFTER_AUTHENTICATION.get(token)
        assert (failure is None) or failure in outcome, token
        assert ("asks" in outcome) == (token in AFTER_AUTHENTICATION), token


def test_every_refusal_is_explained() -> None:
    told = [code for row in rows_of("docs/subscriptions.md", "code") for code in row[0].split(", ")]
    assert sorted(told) == sorted(UserErrorCode)


def test_all_work_of_the_clock_is_told() -> None:
    told = [row[0] for row in rows_of("docs/test-clocks.md", "work")]
    assert sorted(told) == sorted(WorkKind)


def test_what_is_told_by_mail_is_the_codes() -> None:
    expected = [[kind, rule.kind, rule.topic or "whom it invites"] for kind, rule in RULES.items()]
    assert rows_of("docs/mail.md", "event") == expected
