"""The guides tell the truth: their GraphQL is valid, their links lead somewhere, the table of rights is the code's."""

import re
from pathlib import Path

import pytest
from graphql import parse, validate

from plafond.api import schema
from plafond.services.access import render_rights

PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"), *sorted(Path("docs").rglob("*.md"))]


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
    assert Path("docs/access.md").read_text() == render_rights()
