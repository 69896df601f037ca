"""When a day's usage is unusual: far above the median of its weekday, in units of the median absolute deviation.

The deviation is scaled by 1.4826, by which it estimates the standard deviation of normally spread figures (Rousseeuw
and Croux, "Alternatives to the Median Absolute Deviation", 1993). All comparisons are of whole numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

WEEKS = 12
"""So many days of the same weekday are looked back at."""
FEWEST = 4
"""With fewer of them nothing is unusual."""
FACTOR = 7
"""So many units above the median a day must lie. Measured on made series (tests/services/rules/test_spikes.py)."""
SCALE = 14_826
SCALE_BASE = 10_000
SHARE = 4
"""A unit is never less than the usual figure divided by this, so a day below 2.75 times the usual is never unusual."""
LEAST = 2
"""Nor less than this, nor than the root of the median, the deviation of what is counted one by one: a metric that moves
little has days of ten times the usual by chance."""
REST = 10
"""What grew by less than the excess divided by this did not cause it."""


@dataclass(frozen=True)
class Growth:
    """A part of a day's usage, such as that of a workspace, and what it usually is."""

    name: str
    quantity: int
    usual: int

    @property
    def amount(self) -> int:
        """By how much it lies above the usual."""
        return self.quantity - self.usual


def median_of(figures: Sequence[int]) -> int:
    """The one in the middle by size; of an even number the higher of the two, which raises fewer alarms."""
    return sorted(figures)[len(figures) // 2]


def is_unusual(figure: int, weekdays: Sequence[int], days: Sequence[int]) -> bool:
    """Whether a day's figure (so far) lies far above what its weekday usually has. Only upwards.

    `weekdays` are the figures of the same weekday before it, `days` those of all days: where the weekday is usually
    idle, what a day with usage has tells how much is much.
    """
    if len(weekdays) < FEWEST:
        return False
    median = median_of(weekdays)
    deviation = median_of([abs(each - median) for each in weekdays])
    active = [each for each in days if each > 0]
    usual = median if median > 0 else median_of(active) if active else 0
    excess = figure - median
    return (
        excess > FACTOR * LEAST
        and excess * SCALE_BASE > FACTOR * SCALE * deviation
        and excess * SHARE > FACTOR * usual
        and excess**2 > FACTOR**2 * median
    )


def pick_causes(parts: Sequence[Growth], excess: int, count: int) -> list[Growth]:
    """Those parts that grew most, at most `count`, and each by a share of the whole excess that matters."""
    grown = [part for part in parts if part.amount > 0 and part.amount * REST >= excess]
    return sorted(grown, key=lambda part: (-part.amount, part.name))[:count]
