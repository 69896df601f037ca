"""Ingestion: what becomes of each event, and that figures, roll-ups, events and the audit chain agree."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from plafond.database import Work, hash_audit_entry
from plafond.models import (
    Alert,
    AuditEntry,
    BillingAccount,
    Counter,
    Issuer,
    OutboxEvent,
    Plan,
    PlanVersion,
    Subscription,
    SubscriptionStatus,
    UsageEvent,
    UsageEventId,
    UsageRollup,
)
from plafond.services.access import Scope
from plafond.services.errors import InvalidInput
from plafond.services.metering import record_usage
from plafond.services.usage import UsageInput

from ..conftest import NOW, Client, World
from ..factories import an_account
from .engine import cancel_now, open_till
from .helpers import (
    ACTOR,
    OPERATOR,
    account_of,
    change_account,
    change_limit,
    change_subscription,
    codes,
    emails,
    gauge,
    outbox_of,
    period_of,
    previous_period,
    rollup_sum,
    send,
    tenant_key,
    used,
)

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
WRITTEN = (UsageEvent, UsageEventId, UsageRollup, Counter, OutboxEvent, AuditEntry, Alert)


# --- results ---------------------------------------------------------------------------------------------------------


async def test_one_bad_event_loses_nothing_and_results_keep_the_order(world: World) -> None:
    results = await send(
        world,
        emails("a", 5),
        emails("b", 0),
        emails("c", 7, account="nobody"),
        gauge("d", quantity=1),
        emails("a", 5),
        emails("e", 11, account="ginza"),
        emails("a", 6),
        emails("f", 1),
    )
    assert codes(results) == [
        *["ACCEPTED", "INVALID_QUANTITY", "UNKNOWN_ACCOUNT", "ACCEPTED"],
        *["DUPLICATE", "ACCEPTED", "CONFLICT", "ACCEPTED"],
    ]
    assert [result.index for result in results] == list(range(8))
    assert [result.event_id for result in results] == ["a", "b", "c", "d", "a", "e", "a", "f"]
    assert [results[0].used, results[3].used, results[7].used] == [23_455, 6, 23_456]
    assert (results[0].limit, results[3].limit) == (50_000, 15)
    assert (await used(world), await used(world, name="ginza")) == (23_456, 4_321)
    assert await used(world, "custom_domains") == 6


async def test_every_rejection_says_why(world: World) -> None:
    results = await send(world, emails("a", 0), emails("b", account="nobody"), gauge("c", "nothing", quantity=1))
    assert all(result.message for result in results)


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_has_one_to_a_thousand_events(world: World, count: int) -> None:
    with pytest.raises(InvalidInput):
        await send(world, *(emails(f"e{n}") for n in range(count)))
    assert await used(world) == 23_450


async def test_a_thousand_events_are_taken(world: World) -> None:
    results = await send(world, *(emails(f"e{n}") for n in range(1_000)))
    assert set(codes(results)) == {"ACCEPTED"}
    assert await used(world) == 24_450


async def test_a_batch_of_bad_events_writes_nothing(world: World) -> None:
    before = await _state(world)
    assert codes(await send(world, emails("a", 0), gauge("b", quantity=100))) == ["INVALID_QUANTITY", "LIMIT_EXCEEDED"]
    assert await _state(world) == before


# --- ids -------------------------------------------------------------------------------------------------------------


async def test_the_same_id_and_content_is_a_duplicate_across_batches(world: World) -> None:
    event = emails("a", 5, occurred_at=NOW - HOUR, properties={"workspace": "main", "n": 1})
    same = emails(
        "a",
        5,
        occurred_at=(NOW - HOUR).astimezone(timezone(timedelta(hours=9))),
        properties={"n": 1, "workspace": "main"},
    )
    assert codes(await send(world, event)) == ["ACCEPTED"]
    assert codes(await send(world, same, same)) == ["DUPLICATE", "DUPLICATE"]
    assert await used(world) == 23_455


@pytest.mark.parametrize(
    "other",
    [
        emails("a", 6, occurred_at=NOW - HOUR),
        emails("a", 5, occurred_at=NOW - 2 * HOUR),
        emails("a", 5, occurred_at=NOW - HOUR, properties={"workspace": "main"}),
        gauge("a", quantity=5, occurred_at=NOW - HOUR),
    ],
    ids=["quantity", "instant", "properties", "metric"],
)
async def test_the_same_id_with_other_content_is_a_conflict(world: World, other: UsageInput) -> None:
    first = emails("a", 5, occurred_at=NOW - HOUR)
    assert codes(await send(world, first, other)) == ["ACCEPTED", "CONFLICT"]
    assert codes(await send(world, other, first)) == ["CONFLICT", "DUPLICATE"]
    assert await used(world) == 23_455


async def test_the_id_of_a_rejected_event_is_not_taken(world: World) -> None:
    assert codes(await send(world, gauge("a", quantity=100), gauge("a", quantity=2))) == ["LIMIT_EXCEEDED", "ACCEPTED"]


async def test_an_event_id_is_unique_per_account_only(world: World) -> None:
    assert codes(await send(world, emails("a"), emails("a", 2, account="ginza"))) == ["ACCEPTED", "ACCEPTED"]


async def test_a_duplicate_is_told_after_a_hundred_days(world: World) -> None:
    event = emails("a", 5, occurred_at=NOW)
    await send(world, event)
    world.clock.stands_at = NOW + timedelta(days=99)
    assert codes(await send(world, event)) == ["DUPLICATE"]


@pytest.mark.parametrize("event_id", ["", "x" * 256, "a\nb", "a\x00b"])
async def test_an_unsound_event_id_is_rejected(world: World, event_id: str) -> None:
    (result,) = await send(world, emails(event_id))
    assert result.code == "INVALID_EVENT"


# --- accounts, metrics, callers --------------------------------------------------------------------------------------


async def test_an_account_is_named_by_id_or_external_id_and_both_must_agree(world: World) -> None:
    acme, ginza = await account_of(world), await account_of(world, "ginza")

    def named(event_id: str, **who: Any) -> UsageInput:
        return UsageInput(event_id=event_id, metric="email_sends", quantity=1, **who)

    results = await send(
        world,
        named("a", account_id=acme.id),
        named("b", external_id="acme"),
        named("c", account_id=acme.id, external_id="acme"),
        named("d", account_id=acme.id, external_id="ginza"),
        named("e", account_id=uuid4()),
        named("f"),
        named("g", account_id=ginza.id),
    )
    assert codes(results) == ["ACCEPTED"] * 3 + ["UNKNOWN_ACCOUNT"] * 3 + ["ACCEPTED"]


async def test_an_unknown_metric_is_rejected(world: World) -> None:
    assert codes(await send(world, gauge("a", "page_views", quantity=1))) == ["UNKNOWN_METRIC"]


async def test_a_tenants_key_sends_positive_quantities_of_its_own_account_only(world: World) -> None:
    key = tenant_key((await account_of(world)).id, Scope.USAGE_WRITE)
    results = await send(
        world,
        emails("a", 5),
        gauge("b", quantity=1),
        emails("c", -1),
        emails("d", -1, correction=True),
        gauge("e", quantity=-1),
        gauge("f", level=3),
        emails("g", account="ginza"),
        principal=key,
    )
    assert codes(results) == ["ACCEPTED"] * 2 + ["INVALID_QUANTITY"] * 4 + ["UNKNOWN_ACCOUNT"]


@pytest.mark.parametrize("scope", [Scope.BILLING_READ, Scope.BILLING_WRITE, Scope.ADMIN])
async def test_a_tenants_key_without_the_scope_does_not_ingest(world: World, scope: Scope) -> None:
    key = tenant_key((await account_of(world)).id, scope)
    assert codes(await send(world, emails("a"), principal=key)) == ["UNKNOWN_ACCOUNT"]


# --- quantities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        emails("a", 0),
        emails("a", None),
        emails("a", None, level=5),
        emails("a", 5, level=5),
        emails("a", -5),
        emails("a", 10**12 + 1),
        gauge("a"),
        gauge("a", quantity=0),
        gauge("a", level=-1),
        gauge("a", quantity=1, level=1),
    ],
    ids=repr,
)
async def test_an_invalid_quantity_is_rejected(world: World, event: UsageInput) -> None:
    assert codes(await send(world, event)) == ["INVALID_QUANTITY"]


async def test_an_operators_correction_lowers_a_counter_but_never_below_zero(world: World) -> None:
    results = await send(
        world,
        emails("a", -23_451, correction=True),
        emails("b", -23_450, correction=True),
        emails("c", -1, correction=True),
    )
    assert codes(results) == ["NEGATIVE_USAGE", "ACCEPTED", "NEGATIVE_USAGE"]
    assert await used(world) == 0


async def test_a_gauge_falls_by_a_negative_quantity_but_never_below_zero(world: World) -> None:
    results = await send(world, gauge("a", quantity=-6), gauge("b", quantity=-5), gauge("c", quantity=-1))
    assert codes(results) == ["NEGATIVE_USAGE", "ACCEPTED", "NEGATIVE_USAGE"]
    assert await used(world, "custom_domains") == 0


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_a_charged_counter_passes_its_limit(world: World) -> None:
    (result,) = await send(world, emails("a", 60_000, account="birchwood"))
    assert (result.status, result.used, result.limit) == ("ACCEPTED", 99_500, 50_000)


async def test_a_trial_blocks_at_the_limit(world: World) -> None:
    results = await send(
        world,
        emails("a", 48_201, account="elmtree"),
        emails("b", 48_200, account="elmtree"),
        emails("c", 1, account="elmtree"),
    )
    assert codes(results) == ["LIMIT_EXCEEDED", "ACCEPTED", "LIMIT_EXCEEDED"]
    assert await used(world, name="elmtree") == 50_000


async def test_the_free_plan_blocks_although_it_is_active(world: World) -> None:
    """§5: on free every policy is BLOCK."""
    async with world.database.read() as session:
        free = await session.scalar(select(PlanVersion.id).join(Plan).where(Plan.key == "free"))
    await change_subscription(world, "acme", plan_version_id=free)
    await change_limit(world, 0)
    assert codes(await send(world, emails("a"))) == ["LIMIT_EXCEEDED"]


async def test_a_gauge_blocks_what_would_pass_and_takes_what_reaches(world: World) -> None:
    results = await send(
        world, gauge("a", quantity=11), gauge("b", level=16), gauge("c", quantity=10), gauge("d", quantity=1)
    )
    assert codes(results) == ["LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "ACCEPTED", "LIMIT_EXCEEDED"]
    assert await used(world, "custom_domains") == 15


async def test_a_gauge_above_its_limit_may_fall(world: World) -> None:
    await change_limit(world, 2, "custom_domains")
    after = NOW + SECOND  # at one instant a level would swallow the change
    results = await send(world, gauge("a", quantity=-1), gauge("b", level=3), gauge("c", quantity=1, occurred_at=after))
    assert codes(results) == ["ACCEPTED", "ACCEPTED", "LIMIT_EXCEEDED"]
    assert await used(world, "custom_domains") == 3


async def test_limit_zero_blocks_and_unlimited_never_does(world: World) -> None:
    """Hard case 19."""
    await change_limit(world, 0, "custom_domains")
    assert codes(await send(world, gauge("a", quantity=1))) == ["LIMIT_EXCEEDED"]
    await change_limit(world, None, "custom_domains")
    (result,) = await send(world, gauge("b", quantity=10**6))
    assert (result.status, result.limit) == ("ACCEPTED", None)


# --- time ------------------------------------------------------------------------------------------------------------


async def test_five_minutes_ahead_are_taken_and_a_second_more_is_not(world: World) -> None:
    """Hard case 16."""
    ahead = NOW + timedelta(minutes=5)
    results = await send(world, emails("a", occurred_at=ahead), emails("b", occurred_at=ahead + SECOND))
    assert codes(results) == ["ACCEPTED", "IN_FUTURE"]


async def test_late_events_reach_the_period_they_belong_to(world: World) -> None:
    """Hard case 16."""
    running, before = await period_of(world), await previous_period(world)
    last = before.end - SECOND
    figure = await used(world, at=last)
    results = await send(world, emails("a", 7, occurred_at=last), emails("b", 9, occurred_at=running.start))
    assert codes(results) == ["ACCEPTED", "ACCEPTED"]
    assert (await used(world, at=last), await used(world)) == (figure + 7, 23_459)


async def test_a_period_takes_events_for_35_days_to_the_second(world: World) -> None:
    before = await previous_period(world)
    late = before.end - SECOND
    world.clock.stands_at = before.end + timedelta(days=35) - SECOND
    assert codes(await send(world, emails("a", occurred_at=late))) == ["ACCEPTED"]
    world.clock.stands_at += SECOND
    assert codes(await send(world, emails("b", occurred_at=late), emails("c", occurred_at=before.end))) == [
        "TOO_OLD",
        "ACCEPTED",
    ]


async def test_an_event_before_the_first_period_is_too_old(world: World) -> None:
    first = await period_of(world, "elmtree")
    results = await send(
        world,
        emails("a", account="elmtree", occurred_at=first.start - SECOND),
        emails("b", account="elmtree", occurred_at=first.start),
    )
    assert codes(results) == ["TOO_OLD", "ACCEPTED"]


async def test_a_new_period_starts_at_zero_and_a_gauge_carries_over(world: World) -> None:
    world.clock.stands_at = (await period_of(world)).end
    results = await send(world, emails("a", 3), gauge("b", quantity=1))
    assert [result.used for result in results] == [3, 6]


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "since", "code"),
    [
        (SubscriptionStatus.SUSPENDED, "suspended_at", "ACCOUNT_SUSPENDED"),
        (SubscriptionStatus.CANCELED, "canceled_at", "ACCOUNT_CANCELED"),
    ],
)
async def test_suspended_and_canceled_take_only_events_from_before(
    world: World, status: SubscriptionStatus, since: str, code: str
) -> None:
    await change_subscription(world, "acme", status=status, **{since: NOW - HOUR})
    results = await send(
        world,
        emails("a", occurred_at=NOW - HOUR - SECOND),
        emails("b", occurred_at=NOW - HOUR),
        gauge("c", quantity=1),
    )
    assert codes(results) == ["ACCEPTED", code, code]


async def test_what_lowers_a_gauge_is_taken_of_a_canceled_subscription_from_operators(world: World) -> None:
    """Who wants to come back on a smaller plan must be able to reduce what is in use; nothing else is served."""
    assert codes(await send(world, gauge("set", level=6))) == ["ACCEPTED"]
    world.clock.stands_at = NOW + HOUR
    await change_subscription(world, "acme", status=SubscriptionStatus.CANCELED, canceled_at=NOW + SECOND)
    account = await account_of(world)
    key = tenant_key(account.id, Scope.USAGE_WRITE)
    results = await send(
        world,
        gauge("up", quantity=1),
        gauge("same", level=6),
        emails("correction", -1, correction=True),
        gauge("down", quantity=-2),
        gauge("lower", level=1),
        gauge("raise", level=2),
    )
    over = "ACCOUNT_CANCELED"
    assert codes(results) == [over, over, over, "ACCEPTED", "ACCEPTED", over]
    assert (results[3].used, results[4].used) == (4, 1)
    assert codes(await send(world, gauge("tenant", quantity=1), principal=key)) == [over]
    assert results[0].message is not None
    assert "only operators lower gauges" in results[0].message


async def test_a_late_event_of_a_canceled_subscription_reaches_its_own_period(world: World) -> None:
    """§5: events count in the usage period that contains them, whenever the account was created."""
    running = await period_of(world)
    await change_account(world, "acme", created_at=datetime(2025, 10, 20, tzinfo=UTC))
    await change_subscription(world, "acme", status=SubscriptionStatus.CANCELED, canceled_at=NOW - HOUR)
    assert codes(await send(world, emails("a", 5, occurred_at=NOW - 2 * HOUR))) == ["ACCEPTED"]
    account = await account_of(world)
    async with world.database.read() as session:
        event = (await session.scalars(select(UsageEvent).where(UsageEvent.event_id == "a"))).one()
        figure = await session.scalar(
            select(Counter.used).where(Counter.account_id == account.id, Counter.period_start == running.start)
        )
    assert event.period_start == running.start
    assert figure == 23_455


async def test_a_canceled_subscription_takes_overage_from_before_it_ended(world: World) -> None:
    """§5: while canceled, events from before are accepted; what they change is charged on one more invoice."""
    world.clock.stands_at = NOW - HOUR
    await cancel_now(open_till(world.database), (await account_of(world, "birchwood")).id, prorated=False)
    world.clock.stands_at = NOW
    results = await send(world, emails("a", 20_000, account="birchwood", occurred_at=NOW - 2 * HOUR))
    assert codes(results) == ["ACCEPTED"]


async def test_past_due_takes_usage(world: World) -> None:
    assert codes(await send(world, emails("a", account="dunmore"))) == ["ACCEPTED"]


async def test_expired_and_closed_accounts_take_nothing(world: World) -> None:
    await change_subscription(world, "acme", status=SubscriptionStatus.EXPIRED, canceled_at=NOW)
    await change_account(world, "ginza", closed_at=NOW)
    results = await send(
        world, emails("a", occurred_at=NOW - HOUR), emails("b", account="ginza", occurred_at=NOW - HOUR)
    )
    assert codes(results) == ["ACCOUNT_CANCELED", "ACCOUNT_CANCELED"]


# --- gauges in any order ---------------------------------------------------------------------------------------------


class _Undo(Exception):
    """Ends a transaction without leaving anything."""


async def _play(work: Work, batches: Sequence[Sequence[UsageInput]]) -> tuple[int, dict[Any, int]]:
    """The figure and the roll-ups after some batches."""
    for batch in batches:
        results = await record_usage(work, OPERATOR, batch)
        assert set(codes(results)) == {"ACCEPTED"}
        await work.session.flush()
        work.session.expire_all()
    account_id = await work.session.scalar(select(BillingAccount.id).where(BillingAccount.external_id == "acme"))
    figure = await work.session.scalar(
        select(Counter.used).where(Counter.account_id == account_id, Counter.metric_key == "custom_domains")
    )
    rollups = await work.session.execute(
        select(UsageRollup.granularity, UsageRollup.start_at, UsageRollup.workspace, UsageRollup.quantity).where(
            UsageRollup.account_id == account_id, UsageRollup.metric_key == "custom_domains", UsageRollup.quantity != 0
        )
    )
    events = await work.session.scalar(
        select(func.sum(UsageEvent.change)).where(
            UsageEvent.account_id == account_id, UsageEvent.metric_key == "custom_domains"
        )
    )
    assert figure is not None
    assert events == figure
    return figure, {tuple(row[:3]): row[3] for row in rollups}


ARRIVALS = [
    gauge("l1", level=4, occurred_at=NOW - 50 * HOUR),
    gauge("d1", quantity=2, occurred_at=NOW - 40 * HOUR, properties={"workspace": "main"}),
    gauge("l2", level=8, occurred_at=NOW - 30 * HOUR, properties={"workspace": "main"}),
    gauge("d2", quantity=-1, occurred_at=NOW - 20 * HOUR),
]
SAME_INSTANT = [
    gauge("l1", level=4, occurred_at=NOW - HOUR),
    gauge("l2", level=7, occurred_at=NOW - HOUR),
    gauge("d1", quantity=2, occurred_at=NOW - HOUR),
    gauge("d2", quantity=1, occurred_at=NOW),
]


@pytest.mark.parametrize(("events", "level"), [(ARRIVALS, 7), (SAME_INSTANT, 8)], ids=["apart", "some at one instant"])
async def test_a_gauge_ends_alike_in_every_order_of_arrival(world: World, events: list[UsageInput], level: int) -> None:
    """Of two levels the later wins, and deltas after it count: figure and roll-ups are the same."""
    outcomes: list[tuple[int, dict[Any, int]]] = []

    async def play(batches: Sequence[Sequence[UsageInput]]) -> None:
        async with world.database.work(ACTOR) as work:
            outcomes.append(await _play(work, batches))
            raise _Undo

    for order in permutations(events):
        for batches in ([order], [[event] for event in order], [order[:2], order[2:]]):
            with pytest.raises(_Undo):
                await play(batches)
    assert len(outcomes) == 72
    assert outcomes[0][0] == level
    assert all(outcome == outcomes[0] for outcome in outcomes)


async def test_a_late_level_before_a_later_one_moves_only_history(world: World) -> None:
    await send(world, gauge("later", level=9, occurred_at=NOW - HOUR))
    (result,) = await send(world, gauge("earlier", level=2, occurred_at=NOW - 2 * HOUR))
    assert (result.status, result.used) == ("ACCEPTED", 9)
    assert await used(world, "custom_domains") == 9


# --- what is written -------------------------------------------------------------------------------------------------


async def _state(world: World) -> list[int]:
    async with world.database.read() as session:
        counts = [await session.scalar(select(func.count()).select_from(table)) or 0 for table in WRITTEN]
        sums = await session.execute(
            select(func.sum(BillingAccount.sequence), func.sum(BillingAccount.audit_count)).select_from(BillingAccount)
        )
        total = await session.scalar(select(func.sum(Counter.used)))
        return [*counts, *(int(value) for value in sums.one()), int(total or 0)]


async def test_a_dry_run_decides_all_and_writes_nothing(world: World) -> None:
    events = [emails("a", 40_000), emails("a", 40_000), gauge("b", quantity=11), gauge("c", level=9)]
    before = await _state(world)
    tried = await send(world, *events, dry_run=True)
    assert codes(tried) == ["ACCEPTED", "DUPLICATE", "LIMIT_EXCEEDED", "ACCEPTED"]
    assert await _state(world) == before
    assert await send(world, *events) == tried
    assert await _state(world) != before


@pytest.mark.parametrize("metric", ["email_sends", "team_members", "custom_domains"])
async def test_events_counters_and_rollups_have_one_sum(world: World, metric: str) -> None:
    before = await previous_period(world)
    await send(
        world,
        emails("a", 70, occurred_at=before.start, properties={"workspace": "main"}),
        emails("b", -30, correction=True),
        gauge("c", level=9, occurred_at=NOW - 30 * HOUR),
        gauge("d", quantity=-2, occurred_at=NOW - 40 * HOUR),
        gauge("e", level=3, occurred_at=NOW - 35 * HOUR),
        gauge("f", "team_members", quantity=1),
    )
    account = await account_of(world)
    async with world.database.read() as session:
        changes = await session.scalar(
            select(func.sum(UsageEvent.change)).where(
                UsageEvent.account_id == account.id, UsageEvent.metric_key == metric
            )
        )
        figures = await session.scalar(
            select(func.sum(Counter.used)).where(Counter.account_id == account.id, Counter.metric_key == metric)
        )
    hours, days = await rollup_sum(world, metric, "HOUR"), await rollup_sum(world, metric, "DAY")
    assert changes == figures == hours == days


async def test_one_event_and_five_hundred_need_the_same_statements(world: World) -> None:
    counts = []
    for name, count in (("one", 1), ("many", 500), ("all", 1_000)):
        world.statements.clear()
        await send(world, *(emails(f"{name}{n}") for n in range(count)))
        counts.append(len(world.statements))
    assert len(set(counts)) == 1, counts


async def test_the_audit_chain_links_up_to_the_accounts_hash(world: World) -> None:
    await send(world, emails("a"), gauge("b", quantity=1))
    await send(world, emails("c"))
    account = await account_of(world)
    async with world.database.read() as session:
        chain = (
            await session.scalars(
                select(AuditEntry).where(AuditEntry.account_id == account.id).order_by(AuditEntry.number)
            )
        ).all()
    assert [entry.number for entry in chain] == list(range(1, account.audit_count + 1))
    previous = ""
    for entry in chain:
        assert entry.previous_hash == previous
        assert entry.hash == hash_audit_entry(entry)
        previous = entry.hash
    assert previous == account.audit_hash
    assert (chain[-1].action, chain[-1].actor, chain[-1].origin) == ("usage.recorded", ACTOR.name, ACTOR.origin)


async def test_sequences_rise_without_gaps_over_counters_and_outbox(world: World) -> None:
    before = (await account_of(world, "birchwood")).sequence
    period = await previous_period(world, "birchwood")
    await send(
        world,
        emails("a", 11_000, account="birchwood"),
        emails("b", 1, account="birchwood", occurred_at=period.start),
        gauge("c", account="birchwood", quantity=7),
        gauge("d", "team_members", account="birchwood", quantity=1),
    )
    account = await account_of(world, "birchwood")
    events = [event.sequence for event in await outbox_of(world, "birchwood", before)]
    async with world.database.read() as session:
        counters = list(
            await session.scalars(
                select(Counter.sequence).where(Counter.account_id == account.id, Counter.sequence > before)
            )
        )
    assert len(counters) == 4
    # 4 of email_sends, 4 of custom_domains at 15 of 15, and 80 % of team_members; and the banner of each
    assert len(events) == 9 + 3
    assert sorted(events + counters) == list(range(before + 1, account.sequence + 1))


async def test_a_batch_over_several_accounts_writes_to_each(world: World) -> None:
    names = ["acme", "birchwood", "calder", "ginza"]
    before = {name: await used(world, name=name) for name in names}
    await send(world, *(emails(f"{name}{n}", account=name) for n in range(5) for name in names))
    assert {name: await used(world, name=name) for name in names} == {name: before[name] + 5 for name in names}


async def test_an_account_without_a_subscription_blocks_and_counts_from_its_creation(world: World) -> None:
    """§5: every policy is BLOCK, and usage periods run from the account's creation."""
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        subscription = (
            await work.session.scalars(select(Subscription).where(Subscription.account_id == account.id))
        ).one()
        await work.session.delete(subscription)
    results = await send(world, emails("a", 26_551), emails("b", 26_550))
    assert codes(results) == ["LIMIT_EXCEEDED", "ACCEPTED"]


async def test_a_thousand_accounts_fit_one_batch(world: World) -> None:
    """As many as a batch holds: no statement grows a branch for each."""
    async with world.database.work(ACTOR) as work:
        issuer = (await work.session.scalars(select(Issuer))).one()
        for n in range(1_000):
            work.session.add(an_account(issuer.id, f"many-{n}", now=NOW))
    batch = [gauge(f"many-{n}", account=f"many-{n}", level=0) for n in range(1_000)]
    assert codes(await send(world, *batch)) == ["ACCEPTED"] * 1_000


async def test_a_rejected_id_that_json_cannot_store_loses_no_batch(client: Client, world: World) -> None:
    record = """mutation($input: RecordUsageInput!) { recordUsage(input: $input) {
      accepted results { eventId status code } userErrors { code } } }"""
    events = [
        {"eventId": event_id, "metric": "email_sends", "externalId": "acme", "quantity": 1} for event_id in ("a\0", "b")
    ]
    given = {"events": events, "idempotencyKey": "odd"}
    first: Any = await client.data(world.operator, record, input=given)
    again: Any = await client.data(world.operator, record, input=given)
    assert first == again
    assert [(item["eventId"], item["code"]) for item in first["recordUsage"]["results"]] == [
        ("a\0", "INVALID_EVENT"),
        ("b", None),
    ]


async def test_a_dry_run_leaves_the_idempotency_key_free(client: Client, world: World) -> None:
    record = "mutation($input: RecordUsageInput!) { recordUsage(input: $input) { accepted userErrors { code } } }"
    event = {"eventId": "dry", "metric": "email_sends", "externalId": "acme", "quantity": 1}
    for dry_run in (True, False):
        given = {"events": [event], "idempotencyKey": "dry", "dryRun": dry_run}
        data: Any = await client.data(world.operator, record, input=given)
        assert data["recordUsage"] == {"accepted": 1, "userErrors": []}
