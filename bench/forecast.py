"""Measures forecasts of a month's sum on series that were made up: their error beside simple ones', and the ranges."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from plafond.services.rules.forecasting import Piece, forecast_figure

from .results import Row, Tell
from .series import KINDS, make_series

SEEDS = range(1_000, 1_020)
MONTH = 30
MONTHS_FROM = (120, 150, 180)
"""On which day of a series a month begins that is forecast."""
ASKED_AFTER = (1, 4, 8, 13, 19, 25)
"""After how many days of the month it is."""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = tuple(Piece(BEGIN + timedelta(days=day), BEGIN + timedelta(days=day + 1), 1.0) for day in range(MONTH))
NAMES = ("Holt-Winters", "yesterday goes on", "the mean so far goes on", "last week again")


@dataclass(frozen=True)
class Outcome:
    """One forecast and what came."""

    errors: tuple[float, ...]
    """As a share of the series' mean month, in the order of `NAMES`."""
    is_within_50: bool
    is_within_90: bool


def try_forecasts(kind: str, seeds: range, history_days: int = 180) -> Iterator[Outcome]:
    """Forecast months of a kind of series, each several times as it goes by."""
    for seed in seeds:
        days = make_series(kind, seed)
        mean_month = sum(days) / len(days) * MONTH
        for first in MONTHS_FROM:
            came = sum(days[first : first + MONTH])
            for after in ASKED_AFTER:
                today, left = first + after, MONTH - after
                used = sum(days[first:today])
                found = forecast_figure(days[max(0, today - history_days) : today], DAYS[after:], used)
                assert found is not None, "there are days"
                week = days[today - 7 : today]
                guesses = (
                    found.value,
                    used + left * days[today - 1],
                    used + left * used / after,
                    used + sum(week[day % 7] for day in range(left)),
                )
                yield Outcome(
                    errors=tuple(abs(guess - came) / mean_month for guess in guesses),
                    is_within_50=found.low50 <= came <= found.high50,
                    is_within_90=found.low <= came <= found.high,
                )


@dataclass(frozen=True)
class Score:
    """What many forecasts came to, as shares."""

    errors: tuple[float, ...]
    within_50: float
    within_90: float

    def __str__(self) -> str:
        ours, *others = (f"{100 * error:.1f} %" for error in self.errors)
        told = ", ".join(f"{name} {error}" for name, error in zip(NAMES[1:], others, strict=True))
        ranges = f"50 % range holds {100 * self.within_50:.0f} %, 90 % range {100 * self.within_90:.0f} %"
        return f"off by {ours} ({told}); {ranges}"


def score(outcomes: list[Outcome]) -> Score:
    """The mean errors, and how often the ranges held what came."""
    count = len(outcomes)
    return Score(
        errors=tuple(sum(outcome.errors[place] for outcome in outcomes) / count for place in range(len(NAMES))),
        within_50=sum(outcome.is_within_50 for outcome in outcomes) / count,
        within_90=sum(outcome.is_within_90 for outcome in outcomes) / count,
    )


async def run(tell: Tell) -> None:
    """The scores by kind of series and over all, with little data too, and what a forecast takes."""
    found: list[Outcome] = []
    started = time.perf_counter()
    for kind in KINDS:
        outcomes = list(try_forecasts(kind, SEEDS))
        tell(Row(f"Month's sum, {kind}", str(score(outcomes))))
        found += outcomes
    took_ms = (time.perf_counter() - started) / len(found) * 1_000
    total = score(found)
    tell(Row(f"Month's sum, mean of all {len(found):,}", str(total)))
    assert total.errors[0] < min(total.errors[1:]), "a simple forecast is better"
    assert 0.85 <= total.within_90 <= 0.95, "the 90 % range is none"
    for history_days in (3, 7, 14, 28, 60):
        outcomes = [outcome for kind in KINDS for outcome in try_forecasts(kind, SEEDS, history_days)]
        tell(Row(f"Month's sum, mean of all, from {history_days} days of history", str(score(outcomes))))
    tell(Row("One forecast from 180 days, making the series included", f"{took_ms:.1f} ms"))
