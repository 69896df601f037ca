"""The limits in force: the plan's plus what add-ons give. A changed limit is looked at at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select

from ..database import Work
from ..models import (
    GAUGE_PERIOD,
    AddOn,
    BillingAccount,
    Counter,
    EffectiveLimit,
    Metric,
    MetricKind,
)
from . import alerts, spikes
from .budget_periods import reckon_spend
from .plan_limits import Limits
from .rules.periods import Period
from .usage import MAX_FIGURE, UsageFigure


def add_units(limits: Mapping[str, int | None], units: Iterable[tuple[AddOn, int]]) -> Limits:
    """Limits with what add-ons give."""
    raised = dict(limits)
    for add_on, quantity in units:
        included = raised.get(add_on.metric_key or "")
        if add_on.metric_key is not None and included is not None:
            # No figure passes it either.
            raised[add_on.metric_key] = min(included + quantity * add_on.gives, MAX_FIGURE)
    return raised


@dataclass(frozen=True)
class Excess:
    """A gauge that stands above what a limit would allow."""

    metric: Metric
    used: int
    new_limit: int

    def __str__(self) -> str:
        return f"{self.metric.name}: {self.used:,} in use, {self.new_limit:,} allowed"

    def params(self) -> dict[str, object]:
        """As a notice keeps it."""
        return {
            "metric": self.metric.key,
            "metricName": self.metric.name,
            "used": self.used,
            "limit": self.new_limit,
        }


def find_excess(figures: Sequence[UsageFigure], limits: Mapping[str, int | None]) -> list[Excess]:
    """The gauges that would exceed new limits."""
    found = []
    for figure in figures:
        limit = limits.get(figure.metric.key, 0)
        if figure.metric.kind is MetricKind.GAUGE and limit is not None and figure.used > limit:
            found.append(Excess(figure.metric, figure.used, limit))
    return found


async def set_limits(
    work: Work,
    account: BillingAccount,
    limits: Mapping[str, int | None],
    usage: Period,
    cause: str,
    *,
    is_watched: bool = True,
) -> None:
    """Put limits in force for a locked account, and raise or resolve what they change at once.

    All that stands in the running period (or beyond: events come a little ahead) is looked at anew, also under limits
    that stay: the period may have just begun with figures in it, or the account come back. What is not watched any
    more, after a cancellation, raises nothing and keeps no alert open.
    """
    session = work.session
    now = work.clock.now_for(account)
    known = {
        row.metric_key: row
        for row in await session.scalars(select(EffectiveLimit).where(EffectiveLimit.account_id == account.id))
    }
    metrics = {metric.key: metric for metric in await session.scalars(select(Metric))}
    changed: set[str] = set()
    for key in metrics:
        quantity = limits.get(key, 0)
        row = known.get(key)
        if row is None:
            session.add(
                EffectiveLimit(account_id=account.id, metric_key=key, quantity=quantity, cause=cause, changed_at=now)
            )
        elif row.quantity == quantity:
            continue
        else:
            row.quantity, row.cause, row.changed_at, row.version = quantity, cause, now, row.version + 1
        changed.add(key)
    await session.flush()
    counters = await session.scalars(
        select(Counter)
        .where(
            Counter.account_id == account.id,
            or_(Counter.period_start == GAUGE_PERIOD, Counter.period_start >= usage.start),
        )
        .order_by(Counter.metric_key, Counter.period_start)
    )
    readings, untold = [], changed & known.keys()
    for counter in counters:
        key = counter.metric_key
        period = None if counter.period_end is None else Period(counter.period_start, counter.period_end)
        readings.append(
            alerts.read_usage(
                account, metrics[key], period, counter.used, limits.get(key, 0), limit_changed=key in changed
            )
        )
        if key in changed:
            counter.sequence, counter.changed_at = work.advance(account), now  # streams tell the new limit
            untold.discard(key)
    for key in sorted(untold):  # nothing was used of it yet
        is_gauge = metrics[key].kind is MetricKind.GAUGE
        session.add(
            Counter(
                account_id=account.id,
                metric_key=key,
                period_start=GAUGE_PERIOD if is_gauge else usage.start,
                period_end=None if is_gauge else usage.end,
                used=0,
                changed_at=now,
                sequence=work.advance(account),
            )
        )
    work.before_commit(reckon_spend, account, changed)
    if is_watched:
        await alerts.evaluate(work, readings)
    else:
        await alerts.resolve_all(work, account)
        await spikes.resolve_spikes(work, account)
