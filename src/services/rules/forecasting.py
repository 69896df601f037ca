"""Where a daily quantity is heading by the end of a period: its weekly pattern and trend, carried on. No money here.

Additive Holt-Winters with a damped trend in its error-correction form (Hyndman, Koehler, Ord, Snyder: Forecasting with
Exponential Smoothing, 2008), a week as the season, and the variance of a sum of coming days by its chapter 6.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

from ...models import Granularity
from .periods import bucket_end, bucket_start

WEEK = 7
DAYS_FOR_PATTERN = 14
"""With fewer whole days than these nothing can be said of weekdays: the mean goes on, in a wide range."""
DAYS_FOR_CHOICE = 42
"""With fewer there is too little to try rates of adapting on: `PLAIN` is taken."""
DAYS_FOR_TRUST = 28
"""With fewer the confidence is cut in proportion."""
MAX_DAYS = 180
"""What lies further back says nothing of the coming month."""

DAMPING = 0.98
"""What a day leaves of a trend."""
TRIED_DAYS = 14
"""How far ahead rates of adapting are tried: what counts is the sum of many days, not the next one."""
WARM_UP_DAYS = 21
"""What the first days come to is no proof: the pattern was drawn from them."""
HALF_LIFE_DAYS = 42
"""An error of so many days ago counts half."""
FEW_DAYS_SPREAD = 1.5
"""With few days: the spread that is supposed of a day beside what was seen, as a share of the mean."""
FEW_DAYS_WEIGHT = 2
"""How many days that supposition counts as."""

RANGE_50, RANGE_90 = 0.563, 1.561
"""Half the width of the ranges in standard deviations: quantiles of Student's t with 5 degrees of freedom, brought to
the variance 1. Usage has fatter tails than the normal distribution."""


HIGHEST = 2**53 - 1
"""No figure passes it."""
PRECISION = timedelta(minutes=1)


class Rates(NamedTuple):
    """How much of an error moves the level, the trend and the weekday."""

    level: float
    trend: float
    weekday: float


PLAIN = Rates(0.15, 0.0, 0.05)
RATES = (
    Rates(0.03, 0.0, 0.05),
    Rates(0.05, 0.005, 0.1),
    Rates(0.15, 0.01, 0.1),
    Rates(0.3, 0.0, 0.1),
    Rates(0.3, 0.03, 0.1),
    Rates(0.6, 0.0, 0.1),
)
"""What is tried, from what hardly moves to what follows a new level within days."""


class Piece(NamedTuple):
    """A day to come, or the part of it that lies in the period."""

    start: datetime
    end: datetime
    share: float
    """Of the whole day."""


@dataclass(frozen=True)
class Pattern:
    """What the days so far show, and how far off it was."""

    level: float
    trend: float
    weekdays: tuple[float, ...]
    """What a day has above the level; the first is the next day's."""
    rates: Rates
    variance: float
    """Of the error for the next day."""
    inflation: float
    """By how much errors over a fortnight had more variance than the model says; at least 1."""
    days: int


@dataclass(frozen=True)
class Forecast:
    """A figure at the end of a period. The ranges hold it in 50 and 90 of 100 cases."""

    value: int
    low: int
    low50: int
    high50: int
    high: int
    confidence: float
    """From 0 to 1."""
    based_on_days: int
    pieces: tuple[Piece, ...]
    course: tuple[float, ...]
    """The figure now, and what it is expected to be at the end of each piece."""

    def expect_at(self, instant: datetime) -> int:
        """What the figure is expected to be at an instant until the end: within a day it moves evenly."""
        place = bisect_left(self.pieces, instant, key=lambda piece: piece.end)
        piece, before, after = self.pieces[place], self.course[place], self.course[place + 1]
        return round_half_up(before + (after - before) * ((instant - piece.start) / (piece.end - piece.start)))


def round_half_up(quantity: float) -> int:
    """To the nearest whole number: no quantity that is used falls below 0, and none passes `HIGHEST`."""
    return int(min(max(0.0, quantity + 0.5), HIGHEST))


def find_first(holds: Callable[[datetime], bool], pieces: Sequence[Piece]) -> datetime | None:
    """The instant, cut to the minute, at which something first comes to hold; none where it does not by the end.

    What holds at one end of a piece of a day and not at the other is taken to change once in between.
    """
    for piece in pieces:
        if holds(piece.end):
            before, after = piece.start, piece.end
            while after - before > PRECISION:
                middle = before + (after - before) / 2
                before, after = (before, middle) if holds(middle) else (middle, after)
            return max(piece.start, after.replace(second=0, microsecond=0))
    return None


@lru_cache(maxsize=256)
def list_pieces(now: datetime, end: datetime, zone: str) -> tuple[Piece, ...]:
    """The days of a zone from now to the end of a period, the first and last cut to what lies in between."""
    found = []
    start = now
    while start < end:
        day_start, day_end = bucket_start(start, zone, Granularity.DAY), bucket_end(start, zone, Granularity.DAY)
        until = min(day_end, end)
        found.append(Piece(start, until, (until - start) / (day_end - day_start)))
        start = until
    return tuple(found)


def forecast_figure(
    days: Sequence[int], pieces: Sequence[Piece], used: int, *, can_fall: bool = False
) -> Forecast | None:
    """Carry a figure on by what it moved on each whole day so far; none without such a day, and at the period's end.

    Args:
        days: What was added on each day, of a gauge how its level changed; oldest first, the last one is yesterday.
        pieces: The rest of today and the days to come.
        used: The figure now.
        can_fall: Whether the figure can: a gauge can, but not below 0; a counter stays where it is at least.
    """
    if not days or not pieces:
        return None
    pattern = fit_days(tuple(days[-MAX_DAYS:]))
    course = [float(used)]
    for piece, expected in zip(pieces, _expect_days(pattern, len(pieces)), strict=True):
        course.append(course[-1] + piece.share * (expected if can_fall else max(0.0, expected)))
    spread = sqrt(_variance_of_sum(pattern, [piece.share for piece in pieces]))
    floor = 0 if can_fall else used
    low, low50, value, high50, high = (
        max(floor, round_half_up(course[-1] + widths * spread))
        for widths in (-RANGE_90, -RANGE_50, 0.0, RANGE_50, RANGE_90)
    )
    return Forecast(
        value=value,
        low=low,
        low50=low50,
        high50=high50,
        high=high,
        confidence=_confidence_of(pattern.days, value, high - low),
        based_on_days=pattern.days,
        pieces=tuple(pieces),
        course=tuple(course),
    )


def _confidence_of(days: int, value: int, width: int) -> float:
    """The share of the days that trust needs × how narrow the 90 % range is: ± 100 % of the value halves it."""
    narrowness = 2 * value / (2 * value + width) if value or width else 1.0
    return round(min(1.0, days / DAYS_FOR_TRUST) * narrowness, 2)


@lru_cache(maxsize=4_096)
def fit_days(days: tuple[int, ...]) -> Pattern:
    """The pattern of whole days, oldest first; at least one."""
    count = len(days)
    if count < DAYS_FOR_PATTERN:
        mean = sum(days) / count
        seen = sum((day - mean) ** 2 for day in days)
        supposed = FEW_DAYS_WEIGHT * (FEW_DAYS_SPREAD * mean) ** 2
        variance = (seen + supposed) / (count - 1 + FEW_DAYS_WEIGHT)
        return Pattern(mean, 0.0, (0.0,) * WEEK, PLAIN, variance, 1.0, count)
    if count < DAYS_FOR_CHOICE:
        run = _run(days, PLAIN)
        variance = sum(error**2 for error in run.errors) / (count - WEEK)
        return _pattern_of(run, PLAIN, variance, 1.0, count)
    runs = [(rates, _run(days, rates)) for rates in RATES]
    rates, run = min(runs, key=lambda item: _mean_square(item[1].errors_of_sums))
    variance = _mean_square(run.errors)
    supposed = variance * sum(moved**2 for moved in _moved_by(rates, TRIED_DAYS))
    inflation = max(1.0, _mean_square(run.errors_of_sums) / supposed) if supposed else 1.0
    return _pattern_of(run, rates, variance, inflation, count)


class _Run(NamedTuple):
    """The days gone through with some rates."""

    level: float
    trend: float
    weekdays: list[float]
    errors: list[float]
    """Of each day, seen from the day before."""
    errors_of_sums: list[float]
    """Of the days to come together, seen from each day on."""


def _run(days: Sequence[int], rates: Rates) -> _Run:
    level, weekdays = _begin(days)
    trend = 0.0
    trend_in_sum = sum(_damped(TRIED_DAYS))
    full_weeks = TRIED_DAYS // WEEK
    errors, errors_of_sums = [], []
    sums = _sums_ahead(days)
    for number, day in enumerate(days):
        if number < len(sums):
            expected = TRIED_DAYS * level + trend_in_sum * trend + full_weeks * sum(weekdays)
            errors_of_sums.append(sums[number] - expected)
        weekday = number % WEEK
        error = day - level - DAMPING * trend - weekdays[weekday]
        errors.append(error)
        level += DAMPING * trend + rates.level * error
        trend = DAMPING * trend + rates.trend * error
        weekdays[weekday] += rates.weekday * error
    return _Run(level, trend, weekdays, errors, errors_of_sums)


def _begin(days: Sequence[int]) -> tuple[float, list[float]]:
    """Level and weekdays of the first whole weeks, four at most."""
    weeks = min(len(days) // WEEK, 4)
    first = days[: weeks * WEEK]
    level = sum(first) / len(first)
    return level, [sum(first[weekday::WEEK]) / weeks - level for weekday in range(WEEK)]


def _sums_ahead(days: Sequence[int]) -> list[int]:
    """What each day and those after it come to, as many as rates are tried on."""
    found = []
    running = sum(days[:TRIED_DAYS])
    for number in range(len(days) - TRIED_DAYS + 1):
        found.append(running)
        if number + TRIED_DAYS < len(days):
            running += days[number + TRIED_DAYS] - days[number]
    return found


def _pattern_of(run: _Run, rates: Rates, variance: float, inflation: float, count: int) -> Pattern:
    following = count % WEEK
    weekdays = tuple(run.weekdays[following:] + run.weekdays[:following])
    return Pattern(run.level, run.trend, weekdays, rates, variance, inflation, count)


def _mean_square(errors: Sequence[float]) -> float:
    """Of the errors after the warm-up, late ones counting more."""
    weight, total, weights = 1.0, 0.0, 0.0
    fading = 0.5 ** (1 / HALF_LIFE_DAYS)
    for error in reversed(errors[WARM_UP_DAYS:]):
        total += weight * error**2
        weights += weight
        weight *= fading
    return total / weights if weights else 0.0


def _damped(count: int) -> list[float]:
    """By how many times the trend each of the coming days lies above the level."""
    found, trend, factor = [], 0.0, 1.0
    for _ in range(count):
        factor *= DAMPING
        trend += factor
        found.append(trend)
    return found


def _expect_days(pattern: Pattern, count: int) -> list[float]:
    return [
        pattern.level + times * pattern.trend + pattern.weekdays[number % WEEK]
        for number, times in enumerate(_damped(count))
    ]


def _moved_by(rates: Rates, count: int) -> list[float]:
    """By how much an error of 1 on the n-th day before the end of a sum moves the days after it, and itself."""
    found, moved = [], 1.0
    for number, times in enumerate(_damped(count), 1):
        found.append(moved)
        moved += rates.level + rates.trend * times + (rates.weekday if number % WEEK == 0 else 0.0)
    return found


def _variance_of_sum(pattern: Pattern, shares: Sequence[float]) -> float:
    """Of the sum of coming days: the noise of each, what it would teach of those after it, and what is not known."""
    moved = reversed(_moved_by(pattern.rates, len(shares)))
    # A part of a day varies as its share.
    total = sum((times - 1 + sqrt(share)) ** 2 for times, share in zip(moved, shares, strict=True))
    if pattern.days < DAYS_FOR_CHOICE:
        total += sum(shares) ** 2 / pattern.days
    return pattern.variance * pattern.inflation * total
