"""History: whatever comes, late, corrected or in any order, changes the bucket that it happened in, and no other."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from plafond.models import Counter, Granularity, Metric, UsageEvent
from plafond.services.history import HistoryKey, load_history, trace_history
from plafond.services.rules.periods import Period, buckets_between
from plafond.services.series import SeriesRow, load_series, read_rows
from plafond.services.usage import UsageInput, load_figures

from ..conftest import NOW, World
from .helpers import account_of, change_account, change_limit, codes, emails, gauge, period_of, previous_period, send

COUNTER, GAUGE = "email_sends", "custom_domains"
ZONES = ["America/New_York", "Pacific/Kiritimati", "Australia/Lord_Howe", "Asia/Kathmandu"]
Series = Mapping[str, Sequence[int]]


async def told(world: World, granularity: Granularity, buckets: Sequence[Period]) -> list[Series]:
    """The series of both metrics by events, by what the page shows, by a report, and by the rows of a table."""
    account = await account_of(world)
    by_events, by_page, by_rows = {}, {}, {}
    async with world.database.read() as session:
        events = list(await session.scalars(select(UsageEvent).where(UsageEvent.account_id == account.id)))
        figures = (await load_figures(session, [account.id], NOW))[account.id]
        [history] = await load_history(session, [HistoryKey(account.id, buckets[0].start)], granularity)
        metrics = {metric.key: metric for metric in await session.scalars(select(Metric))}
        for key in (COUNTER, GAUGE):
            mine = [event for event in events if event.metric_key == key]
            by_events[key] = [
                sum(
                    event.change
                    for event in mine
                    if event.occurred_at < bucket.end and (key == GAUGE or event.occurred_at >= bucket.start)
                )
                for bucket in buckets
            ]
            figure = next(figure for figure in figures if figure.metric.key == key)
            points = trace_history(figure, history, buckets, account.timezone, granularity)
            by_page[key] = [point.quantity for point in points]
            by_rows[key] = _add_up(
                [row async for row in read_rows(session, account.id, metrics[key], granularity, buckets)],
                buckets,
                is_gauge=key == GAUGE,
            )
        both = [metrics[COUNTER], metrics[GAUGE]]
        by_report = await load_series(session, account.id, both, granularity, buckets)
    return [by_events, by_page, by_report, by_rows]


def _add_up(rows: Sequence[SeriesRow], buckets: Sequence[Period], *, is_gauge: bool) -> list[int]:
    """What the rows of a table come to: a workspace's level stands until its next row."""
    found: list[int] = []
    levels: dict[str, int] = {}
    for bucket in buckets:
        if not is_gauge:
            levels.clear()
        for row in rows:
            if row.bucket == bucket:
                levels[row.workspace] = row.quantity
        found.append(sum(levels.values()))
    return found


def differences(before: Series, after: Series) -> dict[str, list[int]]:
    return {key: [new - old for old, new in zip(before[key], after[key], strict=True)] for key in after}


def make_events(dice: random.Random, since: datetime) -> list[UsageInput]:
    """Things that happened between two instants, in the order in which they are told."""
    events = []
    for number in range(30):
        at = since + timedelta(seconds=dice.randrange(int((NOW - since).total_seconds())))
        place = {"workspace": dice.choice(["", "main", "東京"])}
        if number % 3:
            events.append(emails(f"c{number}", dice.randrange(50, 200), occurred_at=at, properties=place))
        elif number % 2:
            events.append(gauge(f"g{number}", level=dice.randrange(2, 9), occurred_at=at, properties=place))
        else:
            events.append(gauge(f"g{number}", quantity=dice.randrange(1, 3), occurred_at=at, properties=place))
    events.append(emails("less", -40, correction=True, occurred_at=NOW - timedelta(days=2)))
    dice.shuffle(events)
    return events


@pytest.mark.parametrize("zone", ZONES)
async def test_every_bucket_is_what_happened_in_it(world: World, zone: str) -> None:
    dice = random.Random(zone)  # noqa: S311  # a seed
    await change_account(world, "acme", timezone=zone)
    await change_limit(world, None)
    await change_limit(world, None, GAUGE)
    since = (await previous_period(world)).start + timedelta(days=1)
    windows = {
        granularity: buckets_between(NOW - timedelta(days=days), NOW, zone, granularity)
        for granularity, days in ((Granularity.HOUR, 20), (Granularity.DAY, 70), (Granularity.MONTH, 100))
    }
    before = {granularity: await told(world, granularity, buckets) for granularity, buckets in windows.items()}
    events = make_events(dice, since)
    while events:
        batch = [events.pop() for _ in range(min(len(events), dice.randrange(1, 8)))]
        results = codes(await send(world, *batch))
        assert set(results) <= {"ACCEPTED", "NEGATIVE_USAGE"}, results
    for granularity, buckets in windows.items():
        after = await told(world, granularity, buckets)
        by_events, *others = [differences(*pair) for pair in zip(before[granularity], after, strict=True)]
        assert any(by_events[COUNTER])
        assert any(by_events[GAUGE])
        for other in others:
            assert other == by_events, granularity


async def test_the_buckets_of_a_usage_period_are_its_counter(world: World) -> None:
    """Acme's periods begin at an hour of its zone, so hours fill them."""
    await send(world, emails("late", 70, occurred_at=(await previous_period(world)).start + timedelta(hours=5)))
    account = await account_of(world)
    for period in (await previous_period(world), await period_of(world)):
        buckets = buckets_between(period.start, min(period.end, NOW + timedelta(hours=1)), "UTC", Granularity.HOUR)
        async with world.database.read() as session:
            figure = await session.scalar(
                select(Counter.used).where(
                    Counter.account_id == account.id,
                    Counter.metric_key == COUNTER,
                    Counter.period_start == period.start,
                )
            )
            metrics = list(await session.scalars(select(Metric)))
            series = await load_series(session, account.id, metrics, Granularity.HOUR, buckets)
        assert period.start == period.start.astimezone(UTC).replace(minute=0, second=0)
        assert sum(series[COUNTER]) == figure


async def test_case_16_a_late_event_changes_the_bucket_that_it_happened_in(world: World) -> None:
    account = await account_of(world)
    happened = (await previous_period(world)).end - timedelta(hours=2)
    [bucket] = buckets_between(happened - timedelta(hours=1), happened, account.timezone, Granularity.HOUR)
    before = await told(world, Granularity.HOUR, [bucket])
    await send(world, emails("late", 7, occurred_at=bucket.start))
    await send(world, emails("next", 3, occurred_at=bucket.end))
    after = await told(world, Granularity.HOUR, [bucket])
    assert [differences(*pair)[COUNTER] for pair in zip(before, after, strict=True)] == [[7]] * 4


async def test_a_report_reads_all_metrics_by_one_statement(world: World) -> None:
    account = await account_of(world)
    for days in (2, 60):
        buckets = buckets_between(NOW - timedelta(days=days), NOW, account.timezone, Granularity.DAY)
        async with world.database.read() as session:
            metrics = list(await session.scalars(select(Metric)))
            world.statements.clear()
            await load_series(session, account.id, metrics, Granularity.DAY, buckets)
        assert len(world.statements) == 1
