"""Spend by day, metric, workspace and kind of line: every grouping sums the same entries, so all have one total."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from ...models import LineKind


class SpendBasis(StrEnum):
    """What counts as spent, and when."""

    ACCRUED = "ACCRUED"
    INVOICED = "INVOICED"


class SpendGroup(StrEnum):
    """What spend is told apart by."""

    METRIC = "METRIC"
    WORKSPACE = "WORKSPACE"
    DAY = "DAY"
    LINE_KIND = "LINE_KIND"


class SpendEntry(NamedTuple):
    """An amount in minor units, and what it belongs to; none where it belongs to nothing, or is not told apart."""

    amount_minor: int
    day: date | None = None
    metric_key: str | None = None
    workspace: str | None = None
    kind: LineKind | None = None


def sum_by(entries: Iterable[SpendEntry], groups: Collection[SpendGroup]) -> list[SpendEntry]:
    """The sums of entries by some groups, those of 0 left out: by day, and the largest of a day first."""
    sums: dict[SpendEntry, int] = defaultdict(int)
    for entry in entries:
        key = SpendEntry(
            0,
            entry.day if SpendGroup.DAY in groups else None,
            entry.metric_key if SpendGroup.METRIC in groups else None,
            entry.workspace if SpendGroup.WORKSPACE in groups else None,
            entry.kind if SpendGroup.LINE_KIND in groups else None,
        )
        sums[key] += entry.amount_minor
    found = [key._replace(amount_minor=amount_minor) for key, amount_minor in sums.items() if amount_minor]
    return sorted(found, key=_place)


def _place(entry: SpendEntry) -> tuple[date, int, str, str, str]:
    names = (entry.metric_key or "", entry.workspace or "", entry.kind or "")
    return (entry.day or date.min, -entry.amount_minor, *names)
