"""Money as whole minor units. ISO 4217 gives the exponents; no float comes near."""

from decimal import Decimal
from functools import cache

from iso4217 import Currency

MAX_MINOR = 2**53 - 1
"""The largest amount, so that JavaScript clients read it exactly."""


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
    exponent = exponent_of(currency)
    return Decimal(amount_minor).scaleb(-exponent).quantize(Decimal(1).scaleb(-exponent))


def round_half_away(numerator: int, denominator: int) -> int:
    """The quotient, rounded half away from zero: 1.5 is 2, -1.5 is -2."""
    assert denominator > 0, "a share of nothing"
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude


def split_evenly(amount_minor: int, parts: int) -> list[int]:
    """The amount in equal parts by largest remainder: 100 in 3 is 34, 33, 33. The sum is exact."""
    assert parts > 0, "no parts"
    share, rest = divmod(abs(amount_minor), parts)
    sign = 1 if amount_minor >= 0 else -1
    return [sign * (share + (1 if part < rest else 0)) for part in range(parts)]
