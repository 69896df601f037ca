"""Hard case 13: no float anywhere near money. What stands in the source, what is stored, and what the rules return."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.models import Base
from plafond.services import rules
from plafond.services.rules.money import (
    MAX_MINOR,
    exponent_of,
    round_half_away,
    share_of,
    split_by,
    split_evenly,
    to_decimal,
)
from plafond.services.rules.overage import blocks_of, excess_over
from plafond.services.rules.periods import Period
from plafond.services.rules.proration import prorate, seconds_between
from plafond.services.rules.recognition import recognised_until
from plafond.services.rules.tax import (
    PPM,
    TableRow,
    TaxParty,
    TaxRate,
    compute_taxes,
    credited_tax,
    decide_tax,
    tax_on,
)

SRC = Path(__file__).parents[3] / "src"
ROOMS = ("services", "models")

ALLOWED = {
    "services/rules/thresholds.py:percent_of": "shows a percentage; whether a threshold is reached never asks it",
    "services/ports.py:Listener.wait": "how long to wait, in seconds",
    "services/ports.py:Bus.look_again_s": "how long to wait, in seconds",
    "services/admission.py:LOOK_AGAIN_S": "how long to wait, in seconds",
    "services/admission.py:LONGEST_WAIT_S": "how long to wait, in seconds",
    "services/admission.py:Admissions._wait_for_expiry": "how long to wait, in seconds",
    "services/tokens.py:Proof.lasts_s": "how long a token is good, in seconds",
    "services/claims.py:sign_claim": "an instant in seconds",
    "services/claims.py:read_claim": "an instant in seconds",
    "services/deliveries.py:": "how long to wait, in seconds, not all at once",
    "services/deliveries.py:_next_try": "how long to wait, in seconds, not all at once",
    "services/deliveries.py:_rest": "how long to wait, in seconds, not all at once",
    "services/keys.py:check_overlap": "how long a token is good, in seconds",
    "services/posting.py:": "how long to wait, in seconds, not all at once",
    "services/posting.py:_put_off": "how long to wait, in seconds, not all at once",
    "services/sending.py:_since": "how long to wait, in seconds",
    "services/sheets.py:PATIENCE_S": "how long to wait, in seconds",
    "services/sheets.py:Xlsx._write": "a cell of a sheet is a double: only what one holds exactly",
    "services/signing.py:sign_message": "an instant in seconds",
    "services/tokens.py:_judge_key": "how long a token is good, in seconds",
    "services/uses.py:": "which operations are counted, by chance",
    "services/uses.py:WRITE_EVERY_S": "how long to wait, in seconds",
    "services/uses.py:LAST_WRITE_S": "how long to wait, in seconds",
    "services/uses.py:Uses.draw": "which operations are counted, by chance",
    "services/writing.py:PROGRESS_S": "how long to wait, in seconds",
    "services/writing.py:SLOWER": "how long to wait, in seconds",
    "services/writing.py:HOLDING_S": "how long to wait, in seconds",
    "services/writing.py:_File.told_at": "how long to wait, in seconds",
    "services/writing.py:_File.held_at": "how long to wait, in seconds",
    "services/writing.py:_File.pause": "how long to wait, in seconds",
    "models/types.py:first_id_at": "an instant in milliseconds",
    "services/changes.py:USAGE_PAUSE_S": "how long to wait, in seconds",
    "services/changes.py:LOOK_S": "how long to wait, in seconds",
    "services/invariants/documents.py:_show_tax": "shows a rate in percent to operators",
    "services/links.py:open_link": "an instant in seconds",
    "services/links.py:sign_link": "an instant in seconds",
    "services/forecasts.py:SpendForecast.confidence": "how much to trust it, from 0 to 1",
}
"""Functions and constants in which a float may stand, and why. There is no money in them."""

FORECASTING = "services/rules/forecasting.py"
"""A rule that is made of floats: it says where quantities are heading. It knows no amount, and gives whole numbers."""

# -- in the source --

FLOAT_CALLS = {"float", "round", "fsum", "total_seconds", "timestamp", "avg"}
"""Calls that return a float, or do as soon as one is near. `avg` and `round` are SQL's too."""

FLOAT_NAMES = {"float", "Float", "Double", "REAL", "DOUBLE_PRECISION"}
FLOAT_MODULES = {"math", "cmath", "statistics", "random"}


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _name_of(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _trouble(node: ast.AST) -> str | None:
    """What of a node smells of a float."""
    match node:
        case ast.Constant(value=float() | complex()):
            return f"literal {node.value!r}"
        case ast.BinOp(op=ast.Div(), left=left, right=right) if not (_is_text(left) or _is_text(right)):
            return "true division"  # with a text beside it, it joins a path
        case ast.AugAssign(op=ast.Div()):
            return "true division"
        case ast.BinOp(op=ast.Pow(), right=ast.UnaryOp(op=ast.USub())):
            return "negative power"
        case ast.Call(func=function) if _name_of(function) in FLOAT_CALLS:
            return f"{_name_of(function)}()"
        case ast.Name() | ast.Attribute() if _name_of(node) in FLOAT_NAMES:
            return f"{_name_of(node)}"
        case ast.Import(names=names) if any(item.name in FLOAT_MODULES for item in names):
            return "import of floats"
        case ast.ImportFrom(module=module) if module in FLOAT_MODULES:
            return "import of floats"
        case _:
            return None


def _named(node: ast.AST, parent: ast.AST) -> str | None:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name if isinstance(parent, ast.Module | ast.ClassDef) else None
        case _:
            return None


def _walk(node: ast.AST, place: str = "") -> Iterator[tuple[str, str]]:
    """(where, what) for all that smells of a float; where is the class and function, or the constant."""
    for child in ast.iter_child_nodes(node):
        inner = ".".join(filter(None, [place, _named(child, node)]))
        found = _trouble(child)
        if found:
            yield inner, f"{found}, line {getattr(child, 'lineno', '?')}"
        yield from _walk(child, inner)


def _floats_of(source: str) -> list[tuple[str, str]]:
    return list(_walk(ast.parse(source)))


@cache
def _all_floats() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    paths = [path for room in ROOMS for path in sorted((SRC / room).rglob("*.py"))]
    assert {"money.py", "proration.py", "tax.py"} <= {path.name for path in paths}
    for path in paths:
        for place, what in _floats_of(path.read_text()):
            found.setdefault(f"{path.relative_to(SRC).as_posix()}:{place}", []).append(what)
    return found


def is_allowed(place: str) -> bool:
    return place in ALLOWED or place.startswith(f"{FORECASTING}:")


def test_case_13_no_float_stands_where_money_is() -> None:
    """Hard case 13: all of services and models, whole files. What shows a percentage or counts seconds is named."""
    found = _all_floats()
    assert {place: what for place, what in found.items() if not is_allowed(place)} == {}


def test_the_rule_of_floats_knows_no_money() -> None:
    source = (SRC / FORECASTING).read_text()
    assert "_minor" not in source
    assert ".money" not in source


def test_what_is_allowed_is_still_there() -> None:
    assert ALLOWED.keys() <= _all_floats().keys()


@pytest.mark.parametrize(
    "source",
    [
        "x = 0.1",
        "x = -1e3",
        "x = 1j",
        "x = price / 12",
        "x /= 12",
        "x = price * rate / 100",
        "x = float(price)",
        "x = round(price)",
        "x = map(float, prices)",
        "def f(price: float) -> int: ...",
        "def f(price_minor: int, rate=0.2): ...",
        "class A:\n    rate = 0.2",
        "x = (end - start).total_seconds()",
        "x = func.round(price)",
        "x = func.avg(price)",
        "x = 10 ** -2",
        "import math",
        "from statistics import mean",
        "price_minor: Mapped[int] = mapped_column(Float)",
        "price_minor: Mapped[int] = mapped_column(sqlalchemy.Float)",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert _floats_of(source)


@pytest.mark.parametrize(
    "source",
    ["x = 1", "x = price // 12", 'x = folder / "a"', 'x = folder / f"{a}.pdf"', 'x = "0.1 / 2"', "x = 2**53", "# 0.5"],
)
def test_the_check_lets_whole_numbers_and_paths_be(source: str) -> None:
    assert not _floats_of(source)


def test_the_check_says_where() -> None:
    source = "class A:\n    def f(self) -> None:\n        x = [1 / y for y in z]"
    assert _floats_of(source) == [("A.f", "true division, line 3")]
    assert _floats_of("RATE: int = 0.5") == [("RATE", "literal 0.5, line 1")]


def test_what_is_named_minor_is_annotated_as_a_whole_number() -> None:
    """Hard case 13: in all of the source, the GraphQL types too."""
    wrong = []
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.arg if isinstance(node, ast.arg) else None
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = node.name
            annotation = node.annotation if isinstance(node, ast.AnnAssign | ast.arg) else None
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                annotation = node.returns
            if name and name.endswith(("_minor", "_ppm")) and annotation and "float" in ast.unparse(annotation):
                wrong.append(f"{path.name}:{name}")
    assert wrong == []


# -- in the database --


def test_no_column_stores_a_float() -> None:
    """Hard case 13: neither money nor anything else."""
    columns = [column for table in Base.metadata.tables.values() for column in table.c]
    assert len(columns) > 100
    assert [str(column) for column in columns if column.type.python_type in (float, Decimal)] == []


# -- in what the rules take and give --


def _rules() -> list[tuple[str, typing.Any]]:
    found = []
    for info in pkgutil.iter_modules(rules.__path__, f"{rules.__name__}."):
        module = importlib.import_module(info.name)
        for name, item in vars(module).items():
            is_rule = inspect.isfunction(inspect.unwrap(item)) or dataclasses.is_dataclass(item)
            if is_rule and item.__module__ == info.name:
                found.append((f"{info.name.rpartition('.')[2]}.{name}", item))
    return found


def test_no_rule_takes_or_gives_a_float_by_its_types() -> None:
    """With `mypy --strict`, no caller can hand one in."""
    told = {name: typing.get_type_hints(inspect.unwrap(item)) for name, item in _rules()}
    assert len(told) > 30
    floats = {f"{name}({key})" for name, hints in told.items() for key, hint in hints.items() if "float" in str(hint)}
    assert {name for name in floats if not name.startswith("forecasting.")} == {"thresholds.percent_of(return)"}


def _leaves(value: object) -> Iterator[object]:
    """All single values of a rule's answer."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name))
    elif isinstance(value, list | tuple | dict | set | frozenset):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


WHOLE = (int, str, bool, type(None), date)

amounts = st.integers(-MAX_MINOR, MAX_MINOR)
wholes = st.integers(1, 10**9)
seconds = st.integers(0, 400 * 86_400)
START = datetime(2026, 1, 1, tzinfo=UTC)


@given(amount=amounts, part=st.integers(0, 10**9), whole=wholes, by=st.lists(wholes, min_size=1, max_size=9))
def test_case_13_money_gives_whole_numbers(amount: int, part: int, whole: int, by: list[int]) -> None:
    """Hard case 13: `int` itself, neither float, Decimal nor bool."""
    answers = [
        round_half_away(amount, whole),
        share_of(amount, part, whole),
        *split_evenly(amount, len(by)),
        *split_by(amount, by),
        *split_by(amount, [0, *by]),
        exponent_of("USD"),
        blocks_of(excess_over(abs(amount), part), whole),
    ]
    assert {type(answer) for answer in answers} == {int}
    assert type(to_decimal(amount, "USD")) is Decimal


@given(amount=amounts, length=seconds, gone=seconds, fraction=st.integers(0, 999_999))
def test_case_13_proration_and_recognition_give_whole_numbers(
    amount: int, length: int, gone: int, fraction: int
) -> None:
    """Hard case 13: at fractions of a second too."""
    period = Period(START, START + timedelta(seconds=length + 1))
    instant = START + timedelta(seconds=gone, microseconds=fraction)
    answers = [
        prorate(amount, period, instant),
        seconds_between(START, instant),
        recognised_until(abs(amount), period, instant),
        recognised_until(abs(amount), period, instant, credited_minor=abs(amount) // 2),
    ]
    assert {type(answer) for answer in answers} == {int}


@given(
    lines=st.lists(st.tuples(amounts, st.integers(0, PPM), st.integers(0, PPM)), max_size=6),
    before=amounts,
    now=amounts,
    ppm=st.integers(0, PPM),
)
def test_case_13_taxes_are_whole_numbers(lines: list[tuple[int, int, int]], before: int, now: int, ppm: int) -> None:
    """Hard case 13: rates too, in parts per million."""
    taxes = compute_taxes([(net, [TaxRate("A", "S", one), TaxRate("B", "S", other)]) for net, one, other in lines])
    table = [TableRow(country="JP", jurisdiction="JP", rate_ppm=ppm, valid_from=date(2020, 1, 1))]
    decision = decide_tax(TaxParty("JP"), TaxParty("JP"), None, "OVERAGE", date(2026, 1, 1), table)
    assert all(isinstance(leaf, WHOLE) for leaf in _leaves([taxes, decision]))
    assert {type(item.amount_minor) for item in taxes} <= {int}
    assert type(tax_on(now, ppm)) is type(credited_tax(before, now, tax_on(before, ppm), ppm)) is int
