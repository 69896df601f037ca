"""Money: whole minor units, ISO 4217, half away from zero, exact splits."""

import ast
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger

from plafond.models import Base
from plafond.services.rules.money import MAX_MINOR, exponent_of, round_half_away, split_evenly, to_decimal

SRC = Path(__file__).parents[3] / "src"
amounts = st.integers(-MAX_MINOR, MAX_MINOR)


@pytest.mark.parametrize(("currency", "exponent"), [("JPY", 0), ("USD", 2), ("EUR", 2), ("GBP", 2), ("KWD", 3)])
def test_exponents_are_those_of_iso_4217(currency: str, exponent: int) -> None:
    """Hard case 12."""
    assert exponent_of(currency) == exponent


@pytest.mark.parametrize("currency", ["", "ABC", "usd", "US", "XAU", "XXX", "840"])
def test_a_code_without_minor_units_is_an_error(currency: str) -> None:
    """Hard case 12."""
    with pytest.raises(ValueError, match="is not an ISO 4217 currency"):
        exponent_of(currency)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [
        (1_000 * 19, 31, 613),  # ¥1000 × 19/31
        (12_345, 10, 1_235),  # 1.2345 KWD
        (1_005, 10, 101),  # 1.005
        (-1_005, 10, -101),
        (3, 2, 2),
        (-3, 2, -2),
        (1, 2, 1),
        (-1, 2, -1),
        (1, 3, 0),
        (-1, 3, 0),
        (0, 7, 0),
    ],
)
def test_half_goes_away_from_zero(numerator: int, denominator: int, rounded: int) -> None:
    """Hard cases 12 and 13."""
    assert round_half_away(numerator, denominator) == rounded


def test_each_line_is_rounded_and_the_net_is_their_sum() -> None:
    """Hard case 8: 2900 to 9900 with 21 of 31 days left."""
    lines = [round_half_away(-2_900 * 21, 31), round_half_away(9_900 * 21, 31)]
    assert (lines, sum(lines)) == ([-1_965, 6_706], 4_741)


@given(numerator=amounts, denominator=st.integers(1, 10**6))
def test_rounding_agrees_with_decimal_and_is_symmetric(numerator: int, denominator: int) -> None:
    """Hard case 13."""
    expected = (Decimal(numerator) / Decimal(denominator)).quantize(Decimal(1), ROUND_HALF_UP)
    assert round_half_away(numerator, denominator) == int(expected)
    assert round_half_away(-numerator, denominator) == -round_half_away(numerator, denominator)


@pytest.mark.parametrize(
    ("amount", "parts", "split"),
    [(100, 3, [34, 33, 33]), (-100, 3, [-34, -33, -33]), (2, 3, [1, 1, 0]), (0, 2, [0, 0]), (7, 1, [7])],
)
def test_a_tie_of_remainders_goes_to_the_earlier_part(amount: int, parts: int, split: list[int]) -> None:
    """Hard case 11."""
    assert split_evenly(amount, parts) == split


@given(amount=amounts, parts=st.integers(1, 400))
def test_a_split_is_exact_and_even(amount: int, parts: int) -> None:
    """Hard case 11."""
    split = split_evenly(amount, parts)
    assert sum(split) == amount
    assert len(split) == parts
    assert max(split) - min(split) <= 1
    assert sorted(split, key=abs, reverse=True) == split


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(15_000, "USD", "150.00"), (-1, "USD", "-0.01"), (613, "JPY", "613"), (1_235, "KWD", "1.235"), (0, "EUR", "0.00")],
)
def test_a_decimal_shows_all_places(amount: int, currency: str, shown: str) -> None:
    """Hard case 12."""
    assert str(to_decimal(amount, currency)) == shown


@given(amount=amounts, currency=st.sampled_from(["JPY", "USD", "KWD"]))
def test_a_decimal_is_exact(amount: int, currency: str) -> None:
    """Hard case 13."""
    assert to_decimal(amount, currency) * 10 ** exponent_of(currency) == amount


def test_stored_money_is_a_64_bit_whole_number() -> None:
    """Hard case 13."""
    columns = [column for table in Base.metadata.tables.values() for column in table.c if "minor" in column.name]
    assert len(columns) > 10
    assert all(isinstance(column.type, BigInteger) for column in columns)


def _float_uses(path: Path) -> list[str]:
    found = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            (isinstance(node, ast.Name) and node.id == "float")
            or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
            or (isinstance(node, ast.Constant) and isinstance(node.value, float))
            for node in ast.walk(function)
        ):
            found.append(f"{path.name}:{function.name}")
    return found


def test_no_float_and_no_true_division_stands_on_a_money_path() -> None:
    """Hard case 13: the one function of the rules and services that gives a float tells percent. `wait` takes time."""
    uses = {use for path in (SRC / "services").rglob("*.py") for use in _float_uses(path)}
    assert uses <= {"thresholds.py:percent_of", "ports.py:wait"}


def test_what_is_named_minor_is_annotated_as_a_whole_number() -> None:
    """Hard case 13."""
    wrong = []
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.arg if isinstance(node, ast.arg) else None
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            annotation = node.annotation if isinstance(node, ast.AnnAssign | ast.arg) else None
            if name and name.endswith("_minor") and annotation and "float" in ast.unparse(annotation):
                wrong.append(f"{path.name}:{name}")
    assert wrong == []
