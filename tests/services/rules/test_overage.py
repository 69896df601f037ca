"""Overage: what passes a limit, in started blocks, and whether it may."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.models import Metric, MetricKind, OveragePolicy, SubscriptionStatus
from plafond.services.rules.overage import blocks_of, excess_over, policy_in_force

quantities = st.integers(0, 10**12)


def metric(kind: MetricKind, block: int | None) -> Metric:
    return Metric(
        created_at=datetime(2026, 1, 1, tzinfo=UTC), key="m", name="M", kind=kind, unit="unit", overage_block=block
    )


@pytest.mark.parametrize(
    ("used", "limit", "block", "blocks"),
    [
        (10_000, 10_000, 10_000, 0),
        (10_001, 10_000, 10_000, 1),
        (20_000, 10_000, 10_000, 1),
        (20_001, 10_000, 10_000, 2),
        (1, 0, 10_000, 1),
        (7, 5, 1, 2),  # hard case 16: 2 late above a limit of 5
        (10**12, None, 10_000, 0),
        (7, 5, None, 0),
    ],
)
def test_a_started_block_counts_whole(used: int, limit: int | None, block: int | None, blocks: int) -> None:
    assert blocks_of(excess_over(used, limit), block) == blocks


@given(used=quantities, limit=st.none() | quantities, block=st.integers(1, 10**6))
def test_blocks_cover_the_excess_and_no_block_is_unstarted(used: int, limit: int | None, block: int) -> None:
    excess = excess_over(used, limit)
    blocks = blocks_of(excess, block)
    assert (blocks - 1) * block < excess <= blocks * block or excess == blocks == 0
    assert excess == (0 if limit is None else max(0, used - limit))


@pytest.mark.parametrize("status", [SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE])
def test_a_priced_counter_on_a_running_plan_is_charged(status: SubscriptionStatus) -> None:
    assert policy_in_force(metric(MetricKind.COUNTER, 10_000), status, 1, 1_000) is OveragePolicy.CHARGE


@pytest.mark.parametrize("status", [None, SubscriptionStatus.TRIALING, SubscriptionStatus.CANCELED])
def test_without_a_running_plan_every_policy_is_block(status: SubscriptionStatus | None) -> None:
    assert policy_in_force(metric(MetricKind.COUNTER, 10_000), status, 1, 1_000) is OveragePolicy.BLOCK


@pytest.mark.parametrize(("block", "price"), [(None, None), (10_000, None), (None, 1_000)])
def test_a_metric_without_an_overage_price_has_block(block: int | None, price: int | None) -> None:
    policy = policy_in_force(metric(MetricKind.COUNTER, block), SubscriptionStatus.ACTIVE, 1, price)
    assert policy is OveragePolicy.BLOCK


def test_an_overage_price_of_nothing_is_still_a_price() -> None:
    policy = policy_in_force(metric(MetricKind.COUNTER, 10_000), SubscriptionStatus.ACTIVE, 1, 0)
    assert policy is OveragePolicy.CHARGE


@pytest.mark.parametrize("tier", [None, 0])
def test_the_free_plan_blocks(tier: int | None) -> None:
    policy = policy_in_force(metric(MetricKind.COUNTER, 10_000), SubscriptionStatus.ACTIVE, tier, 1_000)
    assert policy is OveragePolicy.BLOCK
