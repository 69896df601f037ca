"""What a budget would have done in usage periods that are over: a replay by day, with the arithmetic that invoices."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from ...models import BudgetAction
from .overage import Rate, blocks_of, cost_of, excess_over
from .thresholds import list_reached


@dataclass(frozen=True)
class Rated:
    """What a metric's overage was priced by when its period closed."""

    rate: Rate
    """With a limit, a block and a price: nothing else costs anything."""
    allowed: int
    """What was accepted above the limit without charge."""

    def cost_of(self, used: int) -> int:
        """What a figure costs in minor units."""
        return cost_of(used, self.allowed, self.rate)

    def units_within(self, used: int, room_minor: int) -> int:
        """How many units more fit into some money: those of the block that is begun, and whole blocks."""
        assert self.rate.limit is not None, "nothing is rated without a limit"
        assert self.rate.block, "nothing is rated without a block"
        free = self.rate.limit + self.allowed
        blocks = blocks_of(excess_over(used, free), self.rate.block) + max(0, room_minor) // self.rate.price_minor
        return max(0, free + blocks * self.rate.block - used)


@dataclass(frozen=True, kw_only=True)
class DayUse:
    """What was used of a metric on a day."""

    day: date
    metric_key: str
    quantity: int
    """Below 0 where more was corrected than used."""
    cost_minor: int = 0
    """What it cost."""
    counts: bool = True
    """Whether that counts for the budget."""


@dataclass(frozen=True)
class PastPeriod:
    """A usage period that is over, as far as it counts for a budget."""

    start: datetime
    end: datetime
    fixed: Mapping[date, int]
    """What was spent on lines, by day, in minor units."""
    uses: Sequence[DayUse]
    """By day."""
    rated: Mapping[str, Rated]
    """By metric."""

    @property
    def spent_minor(self) -> int:
        """What was really spent."""
        return sum(self.fixed.values()) + sum(use.cost_minor for use in self.uses if use.counts)


@dataclass(frozen=True)
class Trial:
    """The budget that is tried."""

    limit_minor: int
    thresholds: Sequence[int]
    action: BudgetAction


@dataclass
class Outcome:
    """What a budget would have done in one usage period."""

    period: PastPeriod
    spent_minor: int = 0
    """What would have been spent under it."""
    reached: dict[int, date] = field(default_factory=dict[int, date])
    """On which day each threshold would have been reached, of those that would."""
    blocked_on: date | None = None
    """The first day on which overage would have been refused."""
    upgraded_on: date | None = None
    """The day on which it would have asked for the next plan."""
    refused: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    """How many units of each metric would have been refused."""

    @property
    def saved_minor(self) -> int:
        """What would not have been spent."""
        return self.period.spent_minor - self.spent_minor


def price_in_order(uses: Sequence[DayUse], rated: Mapping[str, Rated]) -> list[DayUse]:
    """Uses of some days with what each cost: that of the blocks that it began, in the order given."""
    used: dict[str, int] = defaultdict(int)
    priced: list[DayUse] = []
    for use in uses:
        before, after = used[use.metric_key], used[use.metric_key] + use.quantity
        used[use.metric_key] = after
        of = rated[use.metric_key]
        priced.append(replace(use, cost_minor=of.cost_of(after) - of.cost_of(before)))
    return priced


def replay(period: PastPeriod, trial: Trial) -> Outcome:
    """A usage period with a budget that did not hold then.

    Where it blocks, each unit is taken that costs nothing more or fits, as if it came alone, and the others are
    refused; what comes after one that was refused is priced by its place among those that were taken.
    """
    outcome = Outcome(period)
    real: dict[str, int] = defaultdict(int)
    used: dict[str, int] = defaultdict(int)
    for day, step in _steps_of(period):
        if isinstance(step, int):
            outcome.spent_minor += step
        else:
            key = step.metric_key
            blocks = trial.action is BudgetAction.BLOCK_OVERAGE and step.counts
            room_minor = trial.limit_minor - outcome.spent_minor if blocks else None
            after, cost_minor = _take(step, period.rated[key], real[key], used[key], room_minor)
            missing = step.quantity - (after - used[key])
            if step.quantity > 0 and missing > 0:
                outcome.refused[key] += missing
                outcome.blocked_on = outcome.blocked_on or day
            real[key] += step.quantity
            used[key] = after
            outcome.spent_minor += cost_minor if step.counts else 0
        for percent in list_reached(trial.thresholds, outcome.spent_minor, trial.limit_minor):
            outcome.reached.setdefault(percent, day)
        if trial.action is BudgetAction.UPGRADE and outcome.spent_minor >= trial.limit_minor:
            outcome.upgraded_on = outcome.upgraded_on or day
    return outcome


def _steps_of(period: PastPeriod) -> Iterator[tuple[date, int | DayUse]]:
    """What was spent and used, by day: lines before use."""
    uses: dict[date, list[DayUse]] = defaultdict(list)
    for use in period.uses:
        uses[use.day].append(use)
    for day in sorted({*period.fixed, *uses}):
        if day in period.fixed:
            yield day, period.fixed[day]
        for use in uses[day]:
            yield day, use


def _take(use: DayUse, rated: Rated, real: int, used: int, room_minor: int | None) -> tuple[int, int]:
    """What a metric's figure is after a use, and what that costs more. Without a room all of it is taken."""
    if used == real and (room_minor is None or use.cost_minor <= max(0, room_minor)):
        return used + use.quantity, use.cost_minor
    quantity = use.quantity
    if room_minor is not None and quantity > 0:
        quantity = min(quantity, rated.units_within(used, room_minor))
    # A correction of what was refused takes nothing away: the figure falls below 0 only where the real one did.
    after = max(used + quantity, min(0, real + use.quantity))
    return after, rated.cost_of(after) - rated.cost_of(used)
