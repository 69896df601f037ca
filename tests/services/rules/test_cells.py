"""Cells of tables: read back as they were, and never run by a spreadsheet."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.services.rules.cells import guard_cell, write_rows

HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    "＋1",
    "－1",
    "＠SUM(1)",
    "  =1+1",
    "\u00a0=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://127.0.0.1/")',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_formula_stays_text(text: str) -> None:
    assert guard_cell(text) == f"'{text}"
    assert write_rows([[text, -5]]).decode() == "\"'" + text.replace('"', '""') + '",-5\r\n'


@pytest.mark.parametrize("text", ["", "main", "a=1", "'quoted'", "Größe", "東京", "0", "a,b", "1e9", '","=1+1'])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert guard_cell(text) == text


def test_what_looks_like_the_end_of_a_cell_is_within_it() -> None:
    assert write_rows([['","=1+1', 1]]) == b'""",""=1+1",1\r\n'


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers()), max_size=5))
def test_every_text_comes_back(rows: list[tuple[str, int]]) -> None:
    read = list(csv.reader(io.StringIO(write_rows(rows).decode(), newline=""), strict=True))
    assert read == [[guard_cell(text), str(number)] for text, number in rows]
    assert all(cell.lstrip()[:1] not in "=+-@＝＋－＠" for [cell, _] in read if cell.lstrip())
