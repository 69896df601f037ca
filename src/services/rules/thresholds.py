"""When a share of a ceiling is reached, and what that means. Exact: whole numbers only."""

from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Decimal

from ...models import AlertLevel

BUILT_IN = {
    80: AlertLevel.WARNING,
    90: AlertLevel.UPGRADE_SUGGESTION,
    95: AlertLevel.URGENT,
    100: AlertLevel.LIMIT_REACHED,
}
"""Percent of the limit, and the level that reaching it gives."""
LOWEST, HIGHEST = 1, 1_000
"""Between these an account may set thresholds of its own, in percent."""


def find_faults(percents: Sequence[int]) -> list[tuple[int, str]]:
    """What is wrong with thresholds that somebody sets: the place of each that is, and why."""
    faults = []
    for place, percent in enumerate(percents):
        if not LOWEST <= percent <= HIGHEST:
            faults.append((place, f"A threshold is a whole number from {LOWEST} to {HIGHEST} %."))
        elif percent in percents[:place]:
            faults.append((place, f"{percent} % stands here twice."))
    return faults


def is_reached(threshold: int, used: int, limit: int | None) -> bool:
    """`used × 100 ≥ threshold × limit`; a limit of 0 is reached by any use, none (unlimited) never."""
    if limit is None:
        return False
    if limit == 0:
        return used > 0
    return used * 100 >= threshold * limit


def list_thresholds(own: Iterable[int]) -> list[int]:
    """The built-in thresholds and an account's own, ascending."""
    return sorted({*BUILT_IN, *own})


def list_reached(thresholds: Iterable[int], used: int, limit: int | None) -> list[int]:
    """The thresholds that are reached, ascending."""
    return sorted(threshold for threshold in thresholds if is_reached(threshold, used, limit))


def units_below(threshold: int, used: int, limit: int, gives: int) -> int:
    """How many units, each of which raises the limit by `gives`, put the use below a threshold; 0 where it is."""
    assert gives > 0, "a unit gives something"
    if not is_reached(threshold, used, limit):
        return 0
    return (used * 100 - threshold * limit) // (threshold * gives) + 1


def level_of_threshold(threshold: int) -> AlertLevel:
    """The level of the highest built-in threshold at or below; `NOTICE` under the first."""
    return max(
        ((percent, level) for percent, level in BUILT_IN.items() if percent <= threshold),
        default=(0, AlertLevel.NOTICE),
    )[1]


def level_of_usage(used: int, limit: int | None, own: Iterable[int] = ()) -> AlertLevel:
    """The level of the highest threshold reached, an account's own ones included; `OK` when none is."""
    reached = list_reached(list_thresholds(own), used, limit)
    return level_of_threshold(reached[-1]) if reached else AlertLevel.OK


def percent_of(used: int, limit: int | None) -> float | None:
    """The share in percent, cut to two places and never rounded up; 100 for any use of a limit of 0."""
    if limit is None:
        return None
    if limit == 0:
        return 100.0 if used else 0.0
    return float((Decimal(used * 10_000 // limit) / 100).quantize(Decimal("0.01"), ROUND_DOWN))
