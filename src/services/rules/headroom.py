"""What budgets leave room for: what is spent and what is held count, and nothing may cost more. In memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ...models import BudgetAction, BudgetScope
from .overage import Rate, cost_of
from .spending import counts_for


class Held(NamedTuple):
    """What open reservations hold of a metric for one workspace."""

    quantity: int
    reservations: int
    """How many reservations that are."""


@dataclass(frozen=True)
class Use:
    """How a metric stands in a usage period, and how it would stand."""

    rate: Rate
    used: int
    allowed: int
    held: Mapping[str, Held]
    """By workspace."""

    @property
    def cost_minor(self) -> int:
        """What is spent on it."""
        return cost_of(self.used, self.allowed, self.rate)

    @property
    def held_minor(self) -> int:
        """What all that is held would cost if it were used now."""
        held = sum(each.quantity for each in self.held.values())
        return cost_of(self.used + held, self.allowed, self.rate) - self.cost_minor

    def held_minor_by(self, workspace: str) -> int:
        """What the reservations of a workspace may cost: as much as all, or each a block more than it fills.

        Which of them begins a block depends on which is committed first, and what others use meanwhile.
        """
        quantity, reservations = self.held.get(workspace, Held(0, 0))
        if not quantity or not self.rate.block:
            return 0
        blocks = (quantity + reservations * (self.rate.block - 1)) // self.rate.block
        return min(self.held_minor, blocks * self.rate.price_minor)


class BudgetTerms(NamedTuple):
    """What holds for a budget. Light: batches read many."""

    id: UUID
    scope: BudgetScope
    subject: str
    action: BudgetAction
    thresholds: Sequence[int]
    limit_minor: int


@dataclass
class BudgetRoom:
    """A budget with its spend in the usage periods that usage may come for, as a batch moves it."""

    budget: BudgetTerms
    spent: dict[datetime, int] = field(default_factory=dict[datetime, int])
    """By the period's start."""
    limits: dict[datetime, int] = field(default_factory=dict[datetime, int])
    ends: dict[datetime, datetime] = field(default_factory=dict[datetime, datetime])
    blocked: set[datetime] = field(default_factory=set[datetime])
    """The periods in which it was told that it stops usage."""
    moved: set[datetime] = field(default_factory=set[datetime])
    refused: set[datetime] = field(default_factory=set[datetime])
    """The periods in which this batch met it."""

    def counts(self, metric_key: str, workspace: str) -> bool:
        """Whether what usage costs counts for it."""
        return counts_for(self.budget.scope, self.budget.subject, metric_key, workspace)

    def add(self, start: datetime, metric_key: str, workspace: str, cost_minor: int) -> None:
        """Note what usage cost."""
        if start in self.spent and self.counts(metric_key, workspace):
            self.spent[start] += cost_minor
            self.moved.add(start)

    def held_minor(self, uses: Mapping[str, Use]) -> int:
        """What reservations hold of it."""
        return held_under(self.budget.scope, self.budget.subject, uses)


def held_under(scope: BudgetScope, subject: str, uses: Mapping[str, Use]) -> int:
    """What reservations hold of a budget, given how the metrics of a usage period stand."""
    if scope is BudgetScope.WORKSPACE:
        return sum(use.held_minor_by(subject) for use in uses.values())
    return sum(use.held_minor for key, use in uses.items() if scope is BudgetScope.ACCOUNT or key == subject)


def find_spent(
    rooms: Sequence[BudgetRoom],
    start: datetime,
    metric_key: str,
    workspace: str,
    before: Mapping[str, Use],
    after: Mapping[str, Use],
) -> BudgetRoom | None:
    """The first blocking budget that has no room for what a metric's usage or reservation would cost; else none.

    Spending exactly the budget is allowed, and so is what costs nothing more. What is held counts as spent, for each
    budget, so that committing never passes one.
    """
    more = after[metric_key].cost_minor - before[metric_key].cost_minor
    for room in rooms:
        if room.budget.action is not BudgetAction.BLOCK_OVERAGE or start not in room.spent:
            continue
        was = room.spent[start] + room.held_minor(before)
        spent = room.spent[start] + (more if room.counts(metric_key, workspace) else 0)
        if room.limits[start] < (comes_to := spent + room.held_minor(after)) and comes_to > was:
            return room
    return None
