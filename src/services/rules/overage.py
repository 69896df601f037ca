"""What passes a limit, and whether it may."""

from dataclasses import dataclass

from ...models import Metric, OveragePolicy, SubscriptionStatus

FREE_TIER = 0
RUNNING_PAID = frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.SUSPENDED})


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What overage of a metric is priced by."""

    limit: int | None
    block: int | None = None
    """How many units a block of overage has; none where overage is not sold."""
    price_minor: int = 0
    """What a block costs."""


@dataclass(frozen=True, kw_only=True)
class UsageTerms(Rate):
    """What holds for usage of a metric."""

    policy: OveragePolicy
    approved: bool = False
    """Under `ASK`: whether something was approved."""
    approved_blocks: int | None = None
    """How many blocks that are; none for the rest of the period."""


def may_pass(status: SubscriptionStatus | None, tier: int | None) -> bool:
    """Whether anything may pass a limit at all: on a running paid plan."""
    return status in RUNNING_PAID and tier is not None and tier > FREE_TIER


def is_sold(metric: Metric, price_minor: int | None) -> bool:
    """Whether overage of a metric has a price."""
    return bool(metric.overage_block) and price_minor is not None


def policy_in_force(
    metric: Metric,
    status: SubscriptionStatus | None,
    tier: int | None,
    price_minor: int | None,
    setting: OveragePolicy | None = None,
) -> OveragePolicy:
    """What the account chose, on a running paid plan and for a metric whose overage is sold; else `BLOCK`.

    `CHARGE` where it chose nothing. `ALLOW` needs no price.
    """
    return choose_policy(may_pass=may_pass(status, tier), is_sold=is_sold(metric, price_minor), setting=setting)


def choose_policy(*, may_pass: bool, is_sold: bool, setting: OveragePolicy | None) -> OveragePolicy:
    """The same by what holds: also of a closed period, which keeps that."""
    if not may_pass:
        return OveragePolicy.BLOCK
    if setting is OveragePolicy.ALLOW:
        return setting
    return setting or OveragePolicy.CHARGE if is_sold else OveragePolicy.BLOCK


def ceiling_of(terms: UsageTerms) -> int | None:
    """What used and held together may not pass; none where nothing stops them."""
    if terms.limit is None or terms.policy in (OveragePolicy.CHARGE, OveragePolicy.ALLOW):
        return None
    if terms.policy is OveragePolicy.ASK and terms.approved:
        return None if terms.approved_blocks is None else terms.limit + terms.approved_blocks * (terms.block or 0)
    return terms.limit


def excess_over(used: int, limit: int | None) -> int:
    """How much lies above the limit."""
    return 0 if limit is None else max(0, used - limit)


def allowed_after(allowed: int, before: int, after: int, terms: UsageTerms) -> int:
    """What of a figure was accepted above the limit without charge, once it moved.

    Under `ALLOW` what a rise adds above the limit counts; a correction takes away what no longer lies above it.
    """
    risen = excess_over(after, terms.limit) - excess_over(before, terms.limit)
    if risen > 0:
        return allowed + risen if terms.policy is OveragePolicy.ALLOW else allowed
    return min(allowed, excess_over(after, terms.limit))


def cost_of(used: int, allowed: int, rate: Rate) -> int:
    """What a figure's overage costs in minor units: the whole blocks above the limit, less what was allowed."""
    return blocks_of(max(0, excess_over(used, rate.limit) - allowed), rate.block) * rate.price_minor


def blocks_of(excess: int, block: int | None) -> int:
    """How many blocks a quantity starts: 1 of 10,000 is one block."""
    return -(-excess // block) if block else 0
