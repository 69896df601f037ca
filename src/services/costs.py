"""What usage costs, event by event: each has the price of the blocks of overage that it begins.

So all splits, by metric, workspace or day, are sums of the same amounts, and sum to what the period is rated at.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, ColumnElement, Integer, Select, case, cast, delete, func, literal_column, select

from ..database import ReadSession, Work
from ..models import BillingAccount, Granularity, UsageCost, UsageEvent
from .rules.overage import Rate, cost_of
from .rules.periods import Period, bucket_end

CostKey = tuple[str, datetime]
"""A metric, and the start of a usage period."""
COLUMNS = ("account_id", "metric_key", "period_start", "day", "workspace", "cost_minor")


async def add_costs(work: Work, rows: Sequence[tuple[UUID, str, datetime, date, str, int]]) -> None:
    """Add costs to those of their metric, period, day and workspace: one statement."""
    await work.insert_many(UsageCost, COLUMNS, rows, adding=("cost_minor",))


CostTotals = dict[tuple[datetime, str, str], int]
"""What usage cost, by the start of its period, metric and workspace."""


async def load_cost_totals(
    session: ReadSession, account_ids: Collection[UUID], starts: Collection[datetime]
) -> dict[UUID, CostTotals]:
    """What usage of periods cost, by account."""
    of = (UsageCost.account_id, UsageCost.period_start, UsageCost.metric_key, UsageCost.workspace)
    rows = await session.execute(
        select(*of, func.sum(UsageCost.cost_minor))
        .where(UsageCost.account_id.in_(account_ids), UsageCost.period_start.in_(starts))
        .group_by(*of)
    )
    found: dict[UUID, CostTotals] = defaultdict(dict)
    for account_id, start, metric_key, workspace, cost in rows:
        found[account_id][start, metric_key, workspace] = int(cost)
    return found


async def cost_anew(
    work: Work, account: BillingAccount, key: CostKey, end: datetime, used: int, allowed: int, rate: Rate
) -> None:
    """Compute the costs of a metric and usage period anew, event by event in order of acceptance.

    What was let through without charge counts from the limit on. As many statements for a thousand events as for one.
    """
    metric_key, start = key
    await work.session.execute(
        delete(UsageCost).where(
            UsageCost.account_id == account.id, UsageCost.metric_key == metric_key, UsageCost.period_start == start
        )
    )
    total_minor = cost_of(used, allowed, rate)
    if rate.limit is None or not rate.block or not rate.price_minor:
        return
    days = _days_of(Period(start, end), account.timezone)
    costs: dict[tuple[date, str], int] = {}
    for place, workspace, blocks in await work.session.execute(
        _select_blocks(account.id, key, [day_end for _, day_end in days], rate.limit + allowed, rate.block)
    ):
        costs[days[place][0], workspace] = int(blocks) * rate.price_minor
    # Where a period was cut, a correction of its second part stays with the first: the events sum to something else.
    rest = total_minor - sum(costs.values())
    if rest:
        last = (days[-1][0], "")
        costs[last] = costs.get(last, 0) + rest
    await add_costs(work, [(account.id, metric_key, start, *place, cost) for place, cost in costs.items() if cost])


def _days_of(period: Period, zone: str) -> list[tuple[date, datetime]]:
    """The days of a zone that a period touches, each with the instant that ends it."""
    days: list[tuple[date, datetime]] = []
    at = period.start
    while at < period.end:
        end = bucket_end(at, zone, Granularity.DAY)
        days.append((at.astimezone(ZoneInfo(zone)).date(), end))
        at = end
    return days


def _select_blocks(
    account_id: UUID, key: CostKey, day_ends: Sequence[datetime], free: int, block: int
) -> Select[*tuple[Any, ...]]:
    """How many blocks the events of each day and workspace begin, where the first is begun above `free`."""
    ordered = (
        select(
            UsageEvent.change,
            UsageEvent.workspace,
            UsageEvent.occurred_at,
            cast(func.sum(UsageEvent.change).over(order_by=(UsageEvent.accepted_at, UsageEvent.id)), BigInteger).label(
                "after"
            ),
        )
        .where(
            UsageEvent.account_id == account_id,
            UsageEvent.metric_key == key[0],
            UsageEvent.period_start == key[1],
        )
        .subquery()
    )

    def blocks_at(figure: ColumnElement[int]) -> ColumnElement[int]:
        return case((figure > free, (figure - free + (block - 1)) // block), else_=0)

    begun = blocks_at(ordered.c.after) - blocks_at(ordered.c.after - ordered.c.change)
    # An event may be stamped a little past the end of its period: it counts on its last day.
    last = literal_column(str(len(day_ends) - 1), Integer)
    earlier = [
        (ordered.c.occurred_at < end, literal_column(str(number), Integer)) for number, end in enumerate(day_ends[:-1])
    ]
    place = case(*earlier, else_=last) if earlier else last
    # In a statement of its own: parameters in what is grouped by would differ from those in what is shown.
    rows = select(place.label("place"), ordered.c.workspace, begun.label("blocks")).subquery("begun")
    blocks = func.sum(rows.c.blocks)
    return select(rows.c.place, rows.c.workspace, blocks).group_by(rows.c.place, rows.c.workspace).having(blocks != 0)
