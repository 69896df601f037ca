"""What passes a limit, and whether it may."""

from ...models import Metric, OveragePolicy, SubscriptionStatus

FREE_TIER = 0


def policy_in_force(
    metric: Metric, status: SubscriptionStatus | None, tier: int | None, price_minor: int | None
) -> OveragePolicy:
    """`CHARGE` for a metric with overage blocks and a price, on a running paid plan; else `BLOCK`."""
    running = status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED)
    paid = tier is not None and tier > FREE_TIER
    sold = bool(metric.overage_block) and price_minor is not None
    return OveragePolicy.CHARGE if running and paid and sold else OveragePolicy.BLOCK


def excess_over(used: int, limit: int | None) -> int:
    """How much lies above the limit."""
    return 0 if limit is None else max(0, used - limit)


def blocks_of(excess: int, block: int | None) -> int:
    """How many blocks a quantity starts: 1 of 10,000 is one block."""
    return -(-excess // block) if block else 0
