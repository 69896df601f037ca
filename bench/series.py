"""The series that forecasts are measured on: daily sums, made from a seed, each of one of the ways usage goes."""

import math
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

DAYS = 210
WEEK = (1.15, 1.1, 1.2, 1.05, 0.95, 0.3, 0.25)
"""What a weekday has of the mean: little on two of them."""


class At(NamedTuple):
    """A day of a series."""

    day: int
    pick: int
    """A number that is the series' own."""


def _flat(chance: random.Random, _: At) -> float:
    return chance.lognormvariate(0, 0.1)


def _weekly(chance: random.Random, at: At) -> float:
    return WEEK[at.day % 7] * chance.lognormvariate(0, 0.12)


def _noisy(chance: random.Random, _: At) -> float:
    return chance.lognormvariate(-0.18, 0.6)


def _trend(chance: random.Random, at: At) -> float:
    return (1 + at.day / 90) * _weekly(chance, at)


def _decline(chance: random.Random, at: At) -> float:
    return max(0.1, 1.6 - at.day / 200) * _weekly(chance, at)


def _growth(chance: random.Random, at: At) -> float:
    return math.exp((0.004, 0.006, 0.008, 0.01)[at.pick % 4] * at.day) * _weekly(chance, at)


def _bursts(chance: random.Random, _: At) -> float:
    return chance.lognormvariate(0, 0.2) * (chance.uniform(4, 10) if chance.random() < 0.08 else 1)


def _level_shift(chance: random.Random, at: At) -> float:
    shifted, factor = 50 + at.pick % 155, (0.4, 0.5, 2.0, 2.5)[at.pick % 4]
    return (factor if at.day >= shifted else 1) * _weekly(chance, at)


def _sparse(chance: random.Random, _: At) -> float:
    return chance.lognormvariate(0, 0.5) if chance.random() < 0.15 else 0


def _holiday_gap(chance: random.Random, at: At) -> float:
    begins = 30 + at.pick % 170
    return 0.05 if begins <= at.day < begins + 9 else _weekly(chance, at)


def _monthly_run(chance: random.Random, at: At) -> float:
    return _weekly(chance, at) + (6 if at.day % 30 == 27 else 0)


KINDS: Mapping[str, Callable[[random.Random, At], float]] = {
    "flat": _flat,
    "weekly": _weekly,
    "noisy": _noisy,
    "trend": _trend,
    "decline": _decline,
    "growth": _growth,
    "bursts": _bursts,
    "level shift": _level_shift,
    "sparse": _sparse,
    "holiday gap": _holiday_gap,
    "monthly run": _monthly_run,
    "wandering level": _weekly,
}
"""How usage goes: what a day has of the series' scale."""


def make_series(kind: str, seed: int) -> list[int]:
    """The days of one series, oldest first. The same seed gives the same ones, on a scale of its own."""
    chance = random.Random(f"{kind}-{seed}")  # noqa: S311  # a seed
    scale = chance.choice((30, 300, 3_000, 40_000))
    first, pick = chance.randrange(7), chance.randrange(10_000)
    wandered = 0.0
    days = []
    for day in range(first, first + DAYS):
        wandered += chance.gauss(0, 0.05) if kind == "wandering level" else 0.0
        mean = scale * math.exp(wandered) * KINDS[kind](chance, At(day, pick))
        # Things that are counted one by one vary by the root of their number.
        days.append(max(0, round(chance.gauss(mean, math.sqrt(mean)))))
    return days
