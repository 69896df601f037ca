"""Exports: written once, piece by piece, kept for some days; and what a table says."""

import hashlib
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from plafond.models import (
    AuditEntry,
    DueWork,
    Export,
    ExportFormat,
    ExportPart,
    ExportStatus,
    Granularity,
    Metric,
    Notice,
    UsageRollup,
    WorkKind,
)
from plafond.services import exports, writing
from plafond.services.due_work import LEASE, Taken, hold_on, release
from plafond.services.errors import BillingError, Conflict, InvalidInput
from plafond.services.exports import KEPT, MAX_DAYS, MAX_KEPT, MAX_PENDING, add_part
from plafond.services.invariants.reading import Findings
from plafond.services.invariants.tenants import check_tenants
from plafond.services.papers import UsageReport
from plafond.services.writing import HEADER, LATER, MAX_TRIES, PART_BYTES

from ..conftest import NOW, World
from .exporting import DAY, Pencil, ask_for, parts_of, read_export, table_of, write
from .helpers import ACTOR, account_of, change_account, emails, gauge, outbox_of, send, used
from .issuing import start_account

HOUR = timedelta(hours=1)


async def work_of(world: World, export: Export) -> DueWork:
    async with world.database.read() as session:
        return (await session.scalars(select(DueWork).where(DueWork.subject == str(export.id)))).one()


async def actions_of(world: World, export: Export) -> list[str]:
    async with world.database.read() as session:
        rows = await session.scalars(
            select(AuditEntry.action).where(AuditEntry.object == f"export:{export.id}").order_by(AuditEntry.number)
        )
        return list(rows)


# --- written ---------------------------------------------------------------------------------------------------------


async def test_an_export_is_written_once_and_said_to_be_ready(world: World) -> None:
    before = (await account_of(world)).sequence
    export = await ask_for(world)
    assert (export.status, export.requested_by) == (ExportStatus.PENDING, "operator:test")
    assert await write(world) == 1
    assert await write(world) == 0
    written = await read_export(world, export.id)
    data = b"".join(await parts_of(world, export.id))
    assert written.status is ExportStatus.READY
    assert written.bytes_hash == hashlib.sha256(data).hexdigest()
    assert (written.ready_at, written.expires_at) == (NOW, NOW + KEPT)
    assert data.decode().split("\r\n")[0] == ",".join(f'"{name}"' for name in HEADER)
    assert written.row_count == len(await table_of(world, export)) > 0
    [event] = await outbox_of(world, after=before)
    assert (event.kind, event.payload) == ("export.ready", {"exportId": str(export.id)})
    assert await actions_of(world, export) == ["export.requested", "export.ready"]


async def test_two_workers_write_it_once(world: World) -> None:
    first, second = await ask_for(world), await ask_for(world, format_=ExportFormat.PDF)
    slow, quick = Pencil(), Pencil()
    before = (await account_of(world)).sequence
    slow.meanwhile = lambda: write(world, quick)
    assert await write(world, slow) == 2
    assert (len(slow.drawn), len(quick.drawn)) == (1, 0)
    ready = [event.payload["exportId"] for event in await outbox_of(world, after=before)]
    assert ready == [str(first.id), str(second.id)]


async def test_a_worker_whose_time_ran_out_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    export = await ask_for(world, format_=ExportFormat.PDF)
    slow, quick = Pencil(), Pencil()
    before = (await account_of(world)).sequence

    async def others_take_over() -> None:
        world.clock.stands_at += LEASE
        assert await write(world, quick) == 1

    slow.meanwhile = others_take_over
    assert await write(world, slow) == 1
    assert len(slow.drawn) == len(quick.drawn) == 1
    assert len(await parts_of(world, export.id)) == 1
    assert [event.kind for event in await outbox_of(world, after=before)] == ["export.ready"]
    assert "taken over" in caplog.text


async def test_what_an_earlier_try_left_is_no_part_of_it(world: World) -> None:
    export = await ask_for(world)
    row = await work_of(world, export)
    async with world.database.work(ACTOR) as work:
        assert row.account_id is not None
        await hold_on(work, Taken(row.id, row.account_id, row.kind, row.subject, row.due_at, row.tries))
        for number in range(3):
            add_part(work, export, number, b"half a row")
    world.clock.stands_at += LEASE
    assert await write(world) == 1
    data = b"".join(await parts_of(world, export.id))
    assert b"half a row" not in data
    assert hashlib.sha256(data).hexdigest() == (await read_export(world, export.id)).bytes_hash


async def test_a_file_that_fails_is_tried_again_and_then_given_up(world: World) -> None:
    export = await ask_for(world, format_=ExportFormat.PDF)
    pencil = Pencil(failures=MAX_TRIES)
    before = (await account_of(world)).sequence
    for _ in range(MAX_TRIES):
        assert (await read_export(world, export.id)).status is ExportStatus.PENDING
        assert await write(world, pencil) == 1
        world.clock.stands_at += timedelta(minutes=5)
    assert await write(world, pencil) == 0
    failed = await read_export(world, export.id)
    assert (failed.status, failed.failure) == (ExportStatus.FAILED, LATER)
    assert "its process ended" in ((await work_of(world, export)).failure or "")
    told = [event.kind for event in await outbox_of(world, after=before)]
    assert told == ["export.failed", "account.updated"], "and of the notice"
    async with world.database.read() as session:
        [notice] = await session.scalars(select(Notice).where(Notice.code == "EXPORT_FAILED"))
        assert notice.for_operators
    async with world.database.work(ACTOR) as work:
        assert export.account_id is not None
        await release(work, (await work.lock_accounts([export.account_id]))[export.account_id])
    assert await write(world, pencil) == 1
    assert (await read_export(world, export.id)).status is ExportStatus.READY
    assert await actions_of(world, export) == ["export.requested", "export.failed", "export.ready"]
    async with world.database.read() as session:
        assert (await session.scalars(select(Notice).where(Notice.code == "EXPORT_FAILED"))).all() == []


async def test_a_file_that_ends_its_workers_is_given_up_too(world: World) -> None:
    export = await ask_for(world, format_=ExportFormat.PDF)
    pencil = Pencil()

    async def end() -> None:
        raise KeyboardInterrupt

    pencil.meanwhile = end
    for _ in range(MAX_TRIES):
        with pytest.raises(KeyboardInterrupt):
            await write(world, pencil)
        world.clock.stands_at += LEASE
    assert await write(world, pencil) == 1
    assert (await read_export(world, export.id)).status is ExportStatus.FAILED


async def test_after_seven_days_the_file_is_deleted(world: World) -> None:
    export = await ask_for(world)
    await write(world)
    world.clock.stands_at = NOW + KEPT - timedelta(seconds=1)
    assert await write(world) == 0
    world.clock.stands_at = NOW + KEPT
    assert await write(world) == 1
    assert await write(world) == 0
    assert (await read_export(world, export.id)).status is ExportStatus.EXPIRED
    assert await parts_of(world, export.id) == []
    assert (await work_of(world, export)).done_at == NOW + KEPT
    assert await actions_of(world, export) == ["export.requested", "export.ready", "export.expired"]


async def test_exports_of_an_account_on_a_test_clock_live_by_the_wall_clock(world: World) -> None:
    """Its usage is that of its own time; the file is nothing of its history."""
    await start_account(world)
    theirs = datetime(2025, 1, 31, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="lies ahead"):
        await ask_for(world, "hawthorn", start=NOW - DAY, end=NOW)
    export = await ask_for(world, "hawthorn", start=theirs, end=theirs + 30 * DAY)
    assert export.created_at == (await work_of(world, export)).due_at == NOW
    assert await write(world) == 1
    written = await read_export(world, export.id)
    assert (written.ready_at, written.expires_at) == (NOW, NOW + KEPT)


async def test_the_audit_sees_a_piece_that_is_another_accounts(world: World) -> None:
    export, other = await ask_for(world), await account_of(world, "calder")
    await write(world)

    async def look() -> list[str]:
        found = Findings()
        async with world.database.read() as session:
            await check_tenants(session, found)
        return [finding.what for finding in found.listed()]

    assert await look() == []
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(ExportPart).where(ExportPart.export_id == export.id).values(account_id=other.id)
        )
    [what] = await look()
    assert what.startswith(f"export_part {export.id} points by export_id at export {export.id}")


# --- asked for -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (NOW, NOW, "half-open"),
        (NOW, NOW - DAY, "half-open"),
        (NOW + DAY, NOW + 2 * DAY, "lies ahead"),
        (datetime(1999, 1, 1, tzinfo=UTC), datetime(1999, 2, 1, tzinfo=UTC), "before the account was made"),
        (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), "at most"),
    ],
)
async def test_a_range_that_holds_nothing_is_refused(world: World, start: datetime, end: datetime, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await ask_for(world, start=start, end=end)


@pytest.mark.parametrize(("format_", "granularity"), list(MAX_DAYS))
async def test_a_range_has_a_limit_that_the_refusal_names(
    world: World, format_: ExportFormat, granularity: Granularity
) -> None:
    days = MAX_DAYS[format_, granularity]
    start = NOW - days * DAY
    with pytest.raises(InvalidInput, match=f"at most {days:,} days"):
        await ask_for(world, format_=format_, granularity=granularity, start=start, end=NOW + timedelta(seconds=1))
    await ask_for(world, format_=format_, granularity=granularity, start=start, end=NOW)
    assert await write(world) == 1


async def test_so_many_wait_at_most(world: World) -> None:
    for _ in range(MAX_PENDING):
        await ask_for(world)
    with pytest.raises(Conflict, match="once one of them is ready"):
        await ask_for(world)
    await ask_for(world, "calder")
    await write(world)
    await ask_for(world)


async def test_so_many_are_kept_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_KEPT == 100
    monkeypatch.setattr(exports, "MAX_KEPT", 2)
    for _ in range(2):
        await ask_for(world)
        await write(world)
    with pytest.raises(Conflict, match="oldest has expired"):
        await ask_for(world)
    world.clock.stands_at += KEPT
    await write(world)
    await ask_for(world)


async def test_what_is_refused_leaves_nothing(world: World) -> None:
    with pytest.raises(BillingError):
        await ask_for(world, start=NOW + DAY, end=NOW + 2 * DAY)
    async with world.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Export)) == 0
        assert await session.scalar(select(DueWork.id).where(DueWork.kind == WorkKind.WRITE_EXPORT)) is None


# --- what a table says -----------------------------------------------------------------------------------------------


async def rows_of(world: World, metric: str = "email_sends", **given: Any) -> list[tuple[str, str, int]]:
    """Where each row of a metric begins, its workspace and its quantity."""
    export = await ask_for(world, **given)
    await write(world)
    table = await table_of(world, export)
    return [(row["start"], row["workspace"], int(row["quantity"])) for row in table if row["metric"] == metric]


async def test_a_table_has_the_sums_by_bucket_and_workspace(world: World) -> None:
    day = NOW - timedelta(hours=NOW.hour)
    window: dict[str, Any] = {"start": day, "end": day + DAY, "granularity": Granularity.HOUR}
    before = {(start, name): quantity for start, name, quantity in await rows_of(world, **window)}
    await send(
        world,
        emails("a", 5, occurred_at=day + 90 * timedelta(minutes=1), properties={"workspace": "=cmd()"}),
        emails("b", 2, occurred_at=day + 110 * timedelta(minutes=1), properties={"workspace": "=cmd()"}),
        emails("c", 3, occurred_at=day + 2 * HOUR, properties={"workspace": "東京, „Süd“"}),
        emails("d", -4, occurred_at=day + 3 * HOUR, correction=True, properties={"workspace": "back"}),
    )
    after = {(start, name): quantity for start, name, quantity in await rows_of(world, **window)}
    assert {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key)} == {
        (f"{day + HOUR:%Y-%m-%dT%H:00:00Z}", "'=cmd()"): 7,
        (f"{day + 2 * HOUR:%Y-%m-%dT%H:00:00Z}", "東京, „Süd“"): 3,
        (f"{day + 3 * HOUR:%Y-%m-%dT%H:00:00Z}", "back"): -4,
    }


async def test_ranges_that_meet_hold_each_bucket_once(world: World) -> None:
    cut = NOW - timedelta(days=12, hours=7)
    for granularity in Granularity:
        whole = await rows_of(world, granularity=granularity)
        parts = await rows_of(world, granularity=granularity, end=cut)
        parts += await rows_of(world, granularity=granularity, start=cut)
        assert parts == whole != []


async def test_of_a_gauge_the_level_is_shown_where_it_moves(world: World) -> None:
    first = NOW - timedelta(days=3, hours=NOW.hour - 5)
    given: dict[str, Any] = {"start": first, "end": first + 4 * DAY}
    start = await used(world, "custom_domains")
    await send(
        world,
        gauge("a", quantity=2, occurred_at=first + DAY + HOUR, properties={"workspace": "main"}),
        gauge("b", quantity=-1, occurred_at=first + DAY + 2 * HOUR, properties={"workspace": "main"}),
        gauge("c", quantity=3, occurred_at=first - 40 * HOUR, properties={"workspace": "late"}),
        gauge("d", quantity=-3, occurred_at=first + 2 * DAY, properties={"workspace": "late"}),
    )
    rows = await rows_of(world, "custom_domains", **given)
    days = [f"{first + day * DAY:%Y-%m-%dT%H:00:00Z}" for day in range(3)]
    assert [row for row in rows if row[1]] == [(days[0], "late", 3), (days[1], "main", 1), (days[2], "late", 0)]
    assert await used(world, "custom_domains") == start + 1


async def test_a_month_is_the_sum_of_its_days(world: World) -> None:
    given: dict[str, Any] = {"start": NOW - 100 * DAY, "end": NOW + DAY}
    days = await rows_of(world, **given)
    months = await rows_of(world, **given, granularity=Granularity.MONTH)
    first = months[0][0]
    assert sum(row[2] for row in months) == sum(row[2] for row in days if row[0] >= first) > 0


@pytest.mark.parametrize(
    ("zone", "start", "end", "local"),
    [
        ("Pacific/Kiritimati", "2026-11-01T10:00:00Z", "2026-11-02T10:00:00Z", "2026-11-02T00:00:00+14:00"),
        ("America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", "2026-11-01T00:00:00-04:00"),
        ("Australia/Lord_Howe", "2026-11-01T13:00:00Z", "2026-11-02T13:00:00Z", "2026-11-02T00:00:00+11:00"),
        ("UTC", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", "2026-11-01T00:00:00+00:00"),
    ],
)
async def test_days_are_the_zones_also_when_its_clocks_change(
    world: World, zone: str, start: str, end: str, local: str
) -> None:
    await change_account(world, "acme", timezone=zone)
    last_second = datetime.fromisoformat(end) - timedelta(seconds=1)
    await send(world, emails("edge", 1, occurred_at=last_second, properties={"workspace": "edge"}))
    export = await ask_for(world, start=last_second - 2 * DAY, end=last_second + DAY)
    await write(world)
    [row] = [row for row in await table_of(world, export) if row["workspace"] == "edge"]
    assert (row["start"], row["end"], row["local_start"], row["unit"]) == (start, end, local, "email")


async def test_what_was_used_under_a_former_zone_is_in_the_table(world: World) -> None:
    given: dict[str, Any] = {"start": NOW - 20 * DAY, "end": NOW - 5 * DAY}
    before = await rows_of(world, **given)
    await change_account(world, "acme", timezone="America/Los_Angeles")
    after = await rows_of(world, **given)
    assert sum(row[2] for row in after) == sum(row[2] for row in before) > 0
    assert [row[2] for row in after] == [row[2] for row in before]


async def test_another_tenants_usage_is_not_in_it(world: World) -> None:
    await send(world, emails("theirs", 1, account="calder", properties={"workspace": "theirs"}))
    assert "theirs" not in {row[1] for row in await rows_of(world)}


# --- large -----------------------------------------------------------------------------------------------------------

MANY = 30_000


async def fill(world: World, count: int) -> None:
    """Roll-ups of very many workspaces."""
    account = await account_of(world)
    day = NOW - timedelta(hours=NOW.hour)
    async with world.database.work(ACTOR) as work:
        for begin in range(0, count, 10_000):
            await work.session.execute(
                insert(UsageRollup),
                [
                    {
                        "account_id": account.id,
                        "metric_key": "email_sends",
                        "granularity": Granularity.DAY,
                        "start_at": day - (number % 20) * DAY,
                        "workspace": f"workspace {number:07} of a tenant that has very many",
                        "month": day.date().replace(day=1),
                        "quantity": number + 1,
                    }
                    for number in range(begin, begin + 10_000)
                ],
            )


async def test_a_large_table_is_written_in_small_pieces(world: World) -> None:
    await fill(world, MANY)
    export = await ask_for(world)
    tracemalloc.start()
    try:
        assert await write(world) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    written = await read_export(world, export.id)
    parts = await parts_of(world, export.id)
    assert (written.row_count or 0) >= MANY
    assert {len(part) for part in parts[:-1]} == {PART_BYTES}
    assert 0 < len(parts[-1]) <= PART_BYTES
    assert hashlib.sha256(b"".join(parts)).hexdigest() == written.bytes_hash
    assert len(b"".join(parts)) > 4 * PART_BYTES
    assert peak < 12 * PART_BYTES, "a part, its copies on the way to the database, and some rows"


async def test_what_would_be_too_large_says_so_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_ROWS", 3)
    export = await ask_for(world)
    assert await write(world) == 1
    failed = await read_export(world, export.id)
    assert failed.status is ExportStatus.FAILED
    assert "more than 3 rows: ask for a shorter range" in (failed.failure or "")
    assert await write(world) == 0
    async with world.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(ExportPart)) == 0


async def test_what_comes_meanwhile_is_not_in_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table shows one state: an event between its first row and its last is in none."""
    await fill(world, 10_000)
    monkeypatch.setattr(writing, "PART_BYTES", 64 * 1024)
    add, sent = writing._File.add, 0

    async def add_while_others_send(file: writing._File, data: bytes) -> None:
        nonlocal sent
        sent += 1
        await send(world, emails(f"meanwhile-{sent}", 1, properties={"workspace": "zzz"}))
        await add(file, data)

    monkeypatch.setattr(writing._File, "add", add_while_others_send)
    export = await ask_for(world)
    await write(world)
    assert sent > 10
    table = await table_of(world, export)
    assert (await read_export(world, export.id)).row_count == len(table)
    # The first came before the header did; none after it.
    assert [row["quantity"] for row in table if row["workspace"] == "zzz"] == []


# --- reports ---------------------------------------------------------------------------------------------------------


async def test_a_report_shows_each_metric_and_its_periods(world: World) -> None:
    pencil = Pencil()
    export = await ask_for(world, format_=ExportFormat.PDF, start=NOW - 60 * DAY)
    world.statements.clear()
    assert await write(world, pencil) == 1
    [report] = pencil.drawn
    assert isinstance(report, UsageReport)
    async with world.database.read() as session:
        metrics = (await session.scalars(select(Metric).order_by(Metric.position, Metric.key))).all()
    assert [metric.name for metric in report.metrics] == [metric.name for metric in metrics]
    assert all(len(metric.quantities) == len(report.starts) for metric in report.metrics)
    sends = report.metrics[0]
    assert sends.periods[-1].is_running
    assert sends.periods[-1].used == await used(world)
    assert all(period.knows_limit for period in sends.periods)
    seats = next(metric for metric in report.metrics if metric.name == "Team members")
    assert seats.quantities[-1] == await used(world, "team_members")
    assert b"".join(await parts_of(world, export.id)).startswith(b"%PDF usage-")
    assert (await read_export(world, export.id)).row_count == len(metrics) * len(report.starts)
