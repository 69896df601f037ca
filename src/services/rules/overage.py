"""What passes a limit, and whether it may."""

from enum import StrEnum

from ...models import Metric, SubscriptionStatus


class OveragePolicy(StrEnum):
    """What happens with usage above the limit."""

    BLOCK = "BLOCK"
    CHARGE = "CHARGE"


def policy_in_force(metric: Metric, status: SubscriptionStatus | None, price_minor: int | None) -> OveragePolicy:
    """`CHARGE` for a metric with overage blocks and a price, on a running paid plan; else `BLOCK`."""
    running = status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED)
    return OveragePolicy.CHARGE if running and metric.overage_block and price_minor is not None else OveragePolicy.BLOCK


def excess_over(used: int, limit: int | None) -> int:
    """How much lies above the limit."""
    return 0 if limit is None else max(0, used - limit)


def blocks_of(excess: int, block: int | None) -> int:
    """How many blocks a quantity starts: 1 of 10,000 is one block."""
    return -(-excess // block) if block else 0
