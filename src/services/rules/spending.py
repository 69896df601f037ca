"""What of lines and costs counts as spend, of which usage period and under which budget. Whole minor units only."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...models import BudgetScope, LineKind
from .money import split_evenly

BY_USAGE = (LineKind.OVERAGE, LineKind.CORRECTION)
"""Lines that charge for usage: that is spent as it is used, event by event, and not again when it is invoiced."""


@dataclass(frozen=True)
class SpentLine:
    """A line of an invoice, as far as it is spend."""

    kind: LineKind
    start: datetime
    amount_minor: int
    usage_periods: int
    metric_key: str | None = None


def parts_of(line: SpentLine, starts: Sequence[datetime]) -> list[tuple[datetime, int]]:
    """When which part of a line is spent: in equal parts by largest remainder, over the usage periods it touches.

    The first is spent as the line starts, the others as their usage periods begin. `starts` are those of all usage
    periods that have begun, ascending: what is spent in later ones is left out.
    """
    place = bisect_right(starts, line.start)
    begun = [line.start, *starts[place : place + line.usage_periods - 1]]
    return list(zip(begun, split_evenly(line.amount_minor, line.usage_periods), strict=False))


def part_in(line: SpentLine, starts: Sequence[datetime], period_start: datetime) -> int:
    """What of a line is spent in the usage period that begins at an instant, which is one of `starts`."""
    last = bisect_right(starts, period_start)
    end = starts[last] if last < len(starts) else None
    return sum(part for at, part in parts_of(line, starts) if period_start <= at and (end is None or at < end))


def line_counts_for(scope: BudgetScope, subject: str, metric_key: str | None) -> bool:
    """Whether a line counts for a budget. Plans and their prorations do for the account's own only."""
    return scope is BudgetScope.ACCOUNT or (scope is BudgetScope.METRIC and metric_key == subject)


def counts_for(scope: BudgetScope, subject: str, metric_key: str, workspace: str) -> bool:
    """Whether what usage of a metric by a workspace costs counts for a budget."""
    if scope is BudgetScope.METRIC:
        return metric_key == subject
    return scope is BudgetScope.ACCOUNT or workspace == subject


def spent_under(
    scope: BudgetScope,
    subject: str,
    lines: Iterable[tuple[SpentLine, int]],
    costs: Mapping[tuple[str, str], int],
) -> int:
    """What is spent under a budget in a usage period.

    `lines` come with their part in the period; `costs` are those of usage, by metric and workspace. Plans and their
    prorations count for the account's own budget only, add-ons also for their metric's.
    """
    used = sum(cost for place, cost in costs.items() if counts_for(scope, subject, *place))
    return used + sum(part for line, part in lines if line_counts_for(scope, subject, line.metric_key))
