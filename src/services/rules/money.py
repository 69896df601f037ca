"""Money as whole minor units. ISO 4217 gives the exponents; no float comes near."""

from collections.abc import Sequence
from decimal import Decimal
from functools import cache

from iso4217 import Currency

MAX_MINOR = 2**53 - 1
"""The largest amount, so that JavaScript clients read it exactly."""
MAX_AMOUNT_MINOR = 10**12
"""The largest single price, credit or line: sums of them, with tax, stay below `MAX_MINOR`."""

MINIMUM_MINOR = {"USD": 50, "EUR": 50, "GBP": 30, "JPY": 50, "KWD": 200, "CHF": 50, "CAD": 50, "AUD": 50}
"""What a processor charges at least, by currency."""
DEFAULT_MINIMUM_MINOR = 50


def minimum_of(currency: str) -> int:
    """The smallest amount that is charged."""
    return MINIMUM_MINOR.get(currency, DEFAULT_MINIMUM_MINOR)


@cache
def exponent_of(currency: str) -> int:
    """How many decimals a currency has by ISO 4217 (JPY 0, USD 2, KWD 3). `ValueError` for an unknown code."""
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        exponent = None
    if exponent is None:
        raise ValueError(f"{currency} is not an ISO 4217 currency with minor units")
    return int(exponent)


def to_decimal(amount_minor: int, currency: str) -> Decimal:
    """The amount in whole units of the currency, with all its decimals: 15000 USD is 150.00."""
    assert isinstance(amount_minor, int), "money is whole minor units"
    exponent = exponent_of(currency)
    return Decimal(amount_minor).scaleb(-exponent).quantize(Decimal(1).scaleb(-exponent))


def round_half_away(numerator: int, denominator: int) -> int:
    """The quotient, rounded half away from zero: 1.5 is 2, -1.5 is -2."""
    assert denominator > 0, "a share of nothing"
    assert isinstance(numerator, int), "money is whole minor units"
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude


def share_of(amount_minor: int, part: int, whole: int) -> int:
    """`amount × part ÷ whole`, rounded once."""
    return round_half_away(amount_minor * part, whole)


def split_evenly(amount_minor: int, parts: int) -> list[int]:
    """The amount in equal parts by largest remainder: 100 in 3 is 34, 33, 33. The sum is exact."""
    return split_by(amount_minor, [1] * parts)


def split_by(amount_minor: int, weights: Sequence[int]) -> list[int]:
    """The amount in proportion to the weights by largest remainder; ties go to the earlier. The sum is exact."""
    whole = sum(weights)
    assert whole > 0, "nothing to split by"
    assert min(weights) >= 0, "a weight below 0"
    sign = 1 if amount_minor >= 0 else -1
    shares = [divmod(abs(amount_minor) * weight, whole) for weight in weights]
    rest = abs(amount_minor) - sum(share for share, _ in shares)
    order = sorted(range(len(weights)), key=lambda place: (-shares[place][1], place))
    rounded_up = set(order[:rest])
    return [sign * (share + (place in rounded_up)) for place, (share, _) in enumerate(shares)]
