"""A part of a period's price: to the second, on UTC instants, over the whole period."""

from datetime import datetime, timedelta

from .money import share_of
from .periods import Period


def seconds_between(start: datetime, end: datetime) -> int:
    """Elapsed seconds between instants whose fractions are cut off, at least 0.

    Both are in UTC, so a clock change counts as it really lasted.
    """
    return max(0, (end.replace(microsecond=0) - start.replace(microsecond=0)) // timedelta(seconds=1))


def prorate(price_minor: int, period: Period, start: datetime) -> int:
    """What `price_minor` for the whole period comes to for its rest from `start`, rounded once."""
    whole = seconds_between(period.start, period.end)
    rest = seconds_between(max(start, period.start), period.end)
    return share_of(price_minor, rest, whole)
