"""Money: whole minor units, ISO 4217, half away from zero, exact splits."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger

from plafond.models import Base
from plafond.services.rules.money import (
    MAX_MINOR,
    exponent_of,
    round_half_away,
    share_of,
    split_by,
    split_evenly,
    to_decimal,
)

amounts = st.integers(-MAX_MINOR, MAX_MINOR)
wholes = st.integers(1, 10**8)
weights = st.lists(st.integers(0, 10**9), min_size=1, max_size=30).filter(any)
NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
TWO_DECIMALS = "USD EUR GBP CHF CAD AUD NZD SEK NOK DKK PLN CZK HUF RON INR CNY BRL MXN ZAR TWD MGA MRU"


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


@pytest.mark.parametrize(
    ("codes", "exponent"), [(NO_DECIMALS, 0), (TWO_DECIMALS, 2), (THREE_DECIMALS, 3), ("CLF UYW", 4)]
)
def test_case_12_exponents_by_a_list_written_out_by_hand(codes: str, exponent: int) -> None:
    """Hard case 12: all that have other than two decimals, and some that have two."""
    assert {exponent_of(code) for code in codes.split()} == {exponent}


@given(code=st.text("ADENPRSUXY0$aeu €", max_size=4))
def test_case_12_any_other_text_is_an_error_or_a_code_of_three_capitals(code: str) -> None:
    """Hard case 12."""
    try:
        exponent = exponent_of(code)
    except ValueError:
        return
    assert exponent in (0, 2, 3, 4)
    assert len(code) == 3
    assert code.isascii()
    assert code.isupper()


@pytest.mark.parametrize(
    ("numerator", "denominator", "currency", "shown"),
    [
        (1_000 * 19, 31, "JPY", "613"),
        (12_345, 10, "KWD", "1.235"),
        (1_005, 10, "USD", "1.01"),
        (-1_005, 10, "USD", "-1.01"),
    ],
)
def test_case_13_the_worked_examples_are_shown_so(numerator: int, denominator: int, currency: str, shown: str) -> None:
    """Hard cases 12 and 13."""
    assert str(to_decimal(round_half_away(numerator, denominator), currency)) == shown


def test_the_largest_amount_is_what_javascript_reads_exactly() -> None:
    assert MAX_MINOR == 9_007_199_254_740_991


@pytest.mark.parametrize("denominator", [0, -1])
def test_a_share_of_nothing_is_refused(denominator: int) -> None:
    with pytest.raises(AssertionError):
        round_half_away(1, denominator)
    with pytest.raises(AssertionError):
        share_of(1, 1, denominator)


@given(amount=amounts, part=st.integers(0, 10**8), whole=wholes)
def test_case_13_a_share_is_the_exact_one_rounded_half_away(amount: int, part: int, whole: int) -> None:
    """Hard case 13: exact for the largest amounts too, where a double has no digits left."""
    exact, share = Fraction(amount * part, whole), share_of(amount, part, whole)
    assert abs(share - exact) <= Fraction(1, 2)
    assert abs(share - exact) < Fraction(1, 2) or abs(share) > abs(exact)
    assert share_of(-amount, part, whole) == -share


@given(half=st.integers(0, MAX_MINOR), denominator=wholes)
def test_case_13_a_tie_goes_away_from_zero_on_both_sides(half: int, denominator: int) -> None:
    """Hard case 13: n + ½ is n + 1, −n − ½ is −n − 1."""
    assert round_half_away((2 * half + 1) * denominator, 2 * denominator) == half + 1
    assert round_half_away(-(2 * half + 1) * denominator, 2 * denominator) == -half - 1


@given(amount=amounts, whole=wholes, factor=st.integers(1, 1_000))
def test_whole_amounts_stay_and_what_is_said_in_other_units_is_the_same(amount: int, whole: int, factor: int) -> None:
    assert round_half_away(amount * whole, whole) == amount
    assert share_of(amount, whole, whole) == amount
    assert share_of(amount, 0, whole) == 0
    assert round_half_away(amount * factor, whole * factor) == round_half_away(amount, whole)


@given(amount=st.integers(0, MAX_MINOR), part=wholes, more=wholes, whole=wholes)
def test_a_larger_part_is_no_smaller_a_share(amount: int, part: int, more: int, whole: int) -> None:
    assert share_of(amount, part, whole) <= share_of(amount, part + more, whole)


@given(amount=amounts, whole=wholes, data=st.data())
def test_two_shares_that_make_a_whole_are_off_by_a_tie_at_most(amount: int, whole: int, data: st.DataObject) -> None:
    """Only where both end on ½ are both rounded away: that is why totals are split, never shared out."""
    part = data.draw(st.integers(0, whole))
    over = share_of(amount, part, whole) + share_of(amount, whole - part, whole) - amount
    assert over in ((0, 1) if amount >= 0 else (0, -1))
    if over:
        assert Fraction(amount * part, whole) % 1 == Fraction(1, 2)


@pytest.mark.parametrize(
    ("amount", "by", "split"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (-100, [1, 1, 1], [-34, -33, -33]),
        (100, [2, 1], [67, 33]),
        (100, [1, 2], [33, 67]),
        (5, [1, 0, 1], [3, 0, 2]),
        (10, [0, 0, 3], [0, 0, 10]),
        (1, [1, 2, 2], [0, 1, 0]),  # 0.2, 0.4, 0.4: the larger remainder, and the earlier of two
        (10, [50, 33, 17], [5, 3, 2]),  # 5, 3.3, 1.7
        (0, [1, 2], [0, 0]),
        (7, [5], [7]),
        (MAX_MINOR, [1, 1], [MAX_MINOR // 2 + 1, MAX_MINOR // 2]),
    ],
)
def test_case_11_a_total_is_split_by_largest_remainder(amount: int, by: list[int], split: list[int]) -> None:
    """Hard case 11."""
    assert split_by(amount, by) == split


def test_case_11_an_annual_price_in_twelfths() -> None:
    """Hard case 11, and §9: 470.00 in twelve months."""
    assert split_evenly(47_000, 12) == [3_917] * 8 + [3_916] * 4


@given(amount=amounts, by=weights)
def test_case_11_a_split_is_exact_and_within_a_unit_of_each_share(amount: int, by: list[int]) -> None:
    """Hard case 11."""
    split, whole = split_by(amount, by), sum(by)
    assert sum(split) == amount
    assert len(split) == len(by)
    for part, weight in zip(split, by, strict=True):
        assert abs(part - Fraction(amount * weight, whole)) < 1
    assert split_by(-amount, by) == [-part for part in split]


@given(amount=amounts, by=weights)
def test_case_11_who_is_rounded_up_has_the_larger_remainder_or_comes_earlier(amount: int, by: list[int]) -> None:
    """Hard case 11: the tie-break is stable."""
    split, whole = split_by(abs(amount), by), sum(by)
    remainders = [Fraction(abs(amount) * weight, whole) % 1 for weight in by]
    rounded_up = [part > Fraction(abs(amount) * weight, whole) for part, weight in zip(split, by, strict=True)]
    ranked = sorted(range(len(by)), key=lambda place: (-remainders[place], place))
    flags = [rounded_up[place] for place in ranked]
    assert flags == sorted(flags, reverse=True)
    # Counting what is whole as not rounded, the units given out are exactly what the floors leave.
    assert sum(flags) == sum(remainders)


@given(amount=amounts, by=weights, factor=st.integers(1, 1_000))
def test_a_split_depends_on_the_proportion_alone(amount: int, by: list[int], factor: int) -> None:
    assert split_by(amount, [weight * factor for weight in by]) == split_by(amount, by)


@given(amount=amounts, by=weights, place=st.integers(0, 30))
def test_who_weighs_nothing_gets_nothing_and_shifts_nobody(amount: int, by: list[int], place: int) -> None:
    place = min(place, len(by))
    split = split_by(amount, [*by[:place], 0, *by[place:]])
    assert split[place] == 0
    assert split[:place] + split[place + 1 :] == split_by(amount, by)


@given(amount=st.integers(0, MAX_MINOR), by=weights, data=st.data())
@settings(max_examples=50)
def test_of_two_the_heavier_never_gets_less(amount: int, by: list[int], data: st.DataObject) -> None:
    split = split_by(amount, by)
    one, other = (data.draw(st.integers(0, len(by) - 1)) for _ in range(2))
    if by[one] > by[other]:
        assert split[one] >= split[other]


@given(amount=amounts, parts=st.integers(1, 60), weight=wholes)
def test_an_even_split_is_one_by_equal_weights(amount: int, parts: int, weight: int) -> None:
    assert split_evenly(amount, parts) == split_by(amount, [weight] * parts)


@pytest.mark.parametrize("by", [[], [0], [0, 0], [-1], [2, -1]])
def test_what_cannot_be_split_by_is_refused(by: list[int]) -> None:
    with pytest.raises(AssertionError):
        split_by(100, by)


def test_a_split_in_no_parts_is_refused() -> None:
    with pytest.raises(AssertionError):
        split_evenly(100, 0)


@given(one=amounts, other=amounts, currency=st.sampled_from(["JPY", "USD", "KWD", "CLF"]))
def test_decimals_add_up_and_have_as_many_places_as_the_currency(one: int, other: int, currency: str) -> None:
    """Hard case 12."""
    shown = str(to_decimal(one, currency))
    assert "E" not in shown
    assert len(shown.partition(".")[2]) == exponent_of(currency)
    assert to_decimal(one, currency) + to_decimal(other, currency) == to_decimal(one + other, currency)
