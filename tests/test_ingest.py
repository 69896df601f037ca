"""Files of usage events: read line by line, sent in batches, gone on with where they were interrupted."""

import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import uvicorn
from sqlalchemy import func, select

from plafond.app import create_app
from plafond.clock import SetClock
from plafond.database import Database
from plafond.ingest import Broken, IngestFailed, Progress, ingest_file, read_events, rejected_of, usage_address
from plafond.models import BillingAccount, Counter, Role
from plafond.schema.usage_lines import MAX_LINE, UsageLine
from plafond.serving import bind_port, make_config
from plafond.settings import Settings

from .conftest import NOW, Template
from .test_cli import PLAFOND


def write_lines(file: Path, *lines: object) -> Path:
    """A file of lines: bytes and texts as they are, anything else as JSON."""
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    file.write_bytes(b"".join(line + b"\n" for line in raw))
    return file


def sends(event_id: str, quantity: int, metric: str = "email_sends") -> dict[str, object]:
    return {"eventId": event_id, "metric": metric, "externalId": "birchwood", "quantity": quantity}


def read_sound(file: Path) -> dict[int, UsageLine]:
    return {number: event for number, event in read_events(file) if isinstance(event, UsageLine)}


def read_broken(file: Path) -> dict[int, Broken]:
    return {number: event for number, event in read_events(file) if isinstance(event, Broken)}


# Reading


def test_ndjson_is_read_with_its_line_numbers(tmp_path: Path) -> None:
    full = {
        "eventId": "b",
        "metric": "team_members",
        "accountId": "opaque",
        "level": 3,
        "correction": True,
        "occurredAt": "2026-11-25T13:00:00+01:00",
        "properties": {"workspace": "main", "tries": 2, "urgent": False},
    }
    events = read_sound(write_lines(tmp_path / "events.ndjson", sends("a", 5), "", full))
    assert list(events) == [1, 3]
    assert (events[1].event_id, events[1].metric, events[1].external_id, events[1].quantity) == (
        "a",
        "email_sends",
        "birchwood",
        5,
    )
    assert events[3].level == 3
    assert events[3].correction
    assert events[3].occurred_at == datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert events[3].properties == {"workspace": "main", "tries": 2, "urgent": False}
    assert events[3].properties["urgent"] is False


def test_csv_is_read_with_a_bom_and_extra_columns_become_properties(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "events.CSV",
        b"\xef\xbb\xbfeventId,metric,externalId,quantity,occurredAt,workspace,note",
        "a,email_sends,birchwood,5,2026-11-25T12:00:00Z,main,",
        'b,email_sends,birchwood,6,,main,"two',
        'lines, Grüße"',
        "c,email_sends,birchwood,many,,,",
        "d,email_sends,birchwood,7,,,",
    )
    corrections = write_lines(
        tmp_path / "corrections.csv",
        "eventId,metric,quantity,correction",
        "a,email_sends,-3,TRUE",
        "b,email_sends,3,false",
    )
    assert [(event.quantity, event.correction) for event in read_sound(corrections).values()] == [
        (-3, True),
        (3, False),
    ]
    events = read_sound(file)
    assert list(events) == [2, 4, 6]
    assert events[2].event_id == "a"
    assert events[2].occurred_at == datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert events[2].properties == {"workspace": "main"}
    assert events[4].properties == {"workspace": "main", "note": "two\nlines, Grüße"}
    assert events[6].quantity == 7
    broken = read_broken(file)
    assert list(broken) == [5]
    assert (broken[5].line, broken[5].event_id) == (5, "c")
    assert "quantity" in broken[5].reason


def test_cloud_events_are_read_among_our_own(tmp_path: Path) -> None:
    cloud = {
        "specversion": "1.0",
        "id": "ce-1",
        "source": "/mail",
        "type": "email_sends",
        "subject": "birchwood",
        "time": "2026-11-25T12:00:00Z",
        "datacontenttype": "application/json",
        "data": {"quantity": 4, "workspace": "main"},
    }
    nested = {**cloud, "id": "ce-2", "data": {"quantity": 1, "correction": True, "properties": {"workspace": "beta"}}}
    later = {**cloud, "id": "ce-3", "specversion": "2.0"}
    file = write_lines(tmp_path / "events.ndjson", cloud, sends("a", 1), nested, later, {**cloud, "data": {}, "id": 7})
    events = read_sound(file)
    assert list(events) == [1, 2, 3]
    assert events[1].model_dump() == {
        "event_id": "ce-1",
        "metric": "email_sends",
        "account_id": None,
        "external_id": "birchwood",
        "quantity": 4,
        "level": None,
        "correction": False,
        "occurred_at": "2026-11-25T12:00:00+00:00",
        "properties": {"workspace": "main"},
    }
    assert events[3].correction
    assert events[3].properties == {"workspace": "beta"}
    broken = read_broken(file)
    assert broken[4].event_id == "ce-3"
    assert "specversion" in broken[4].reason
    assert "id" in broken[5].reason


BROKEN_LINES: dict[str, tuple[object, str]] = {
    "not JSON": ("{eventId: 1}", "JSON"),
    "cut off": ('{"eventId": "x", "metric":', "JSON"),
    "no object": ([1, 2], "line"),
    "a bare number": ("12", "line"),
    "wrong type": ({**sends("x", 1), "quantity": "five"}, "quantity"),
    "fraction": ({**sends("x", 1), "quantity": 1.5}, "quantity"),
    "boolean quantity": ({**sends("x", 1), "quantity": True}, "quantity"),
    "numeric id": ({**sends("x", 1), "eventId": 5}, "eventId"),
    "NaN": ('{"eventId": "x", "metric": "email_sends", "externalId": "birchwood", "quantity": NaN}', "quantity"),
    "infinity": ('{"eventId": "x", "metric": "email_sends", "externalId": "birchwood", "quantity": 1e999}', "quantity"),
    "NaN in properties": (
        '{"eventId": "x", "metric": "email_sends", "quantity": 1, "properties": {"a": NaN}}',
        "properties",
    ),
    "2^63": ({**sends("x", 1), "quantity": 2**63}, "quantity"),
    "over 2^53": ({**sends("x", 1), "quantity": 2**53}, "quantity"),
    "ten thousand digits": (
        '{"eventId": "x", "metric": "email_sends", "quantity": 1' + "0" * 10_000 + "}",
        "JSON",
    ),
    "negative level": ({"eventId": "x", "metric": "team_members", "level": -1}, "level"),
    "no id": ({"metric": "email_sends", "quantity": 1}, "eventId"),
    "id too long": (sends("x" * 256, 1), "eventId"),
    "time without a zone": ({**sends("x", 1), "occurredAt": "2026-11-25T12:00:00"}, "occurredAt"),
    "unknown name": ({**sends("x", 1), "quantum": 1}, "quantum"),
    "too long": ({**sends("x", 1), "properties": {"a": "a" * MAX_LINE}}, "longer"),
    "not UTF-8": (b'{"eventId": "\xff", "metric": "email_sends", "quantity": 1}', "UTF-8"),
    "nested without end": ("[" * 20_000, "JSON"),
    "half a character in the id": ('{"eventId": "\\ud800", "metric": "email_sends", "quantity": 1}', ""),
    "half a character in the account": (
        '{"eventId": "x", "metric": "email_sends", "externalId": "\\ud800", "quantity": 1}',
        "",
    ),
    "half a character in a property": (
        '{"eventId": "x", "metric": "email_sends", "quantity": 1, "properties": {"a": "\\ud800"}}',
        "",
    ),
}


@pytest.mark.parametrize("case", BROKEN_LINES)
def test_a_broken_line_is_listed_with_its_reason_and_loses_nothing(case: str, tmp_path: Path) -> None:
    line, word = BROKEN_LINES[case]
    file = write_lines(tmp_path / "events.ndjson", sends("before", 1), line, sends("after", 2))
    assert [event.event_id for event in read_sound(file).values()] == ["before", "after"]
    broken = read_broken(file)
    assert list(broken) == [2]
    assert broken[2].line == 2
    assert broken[2].reason
    assert word in broken[2].reason
    assert "\n" not in broken[2].reason


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(b"\xff,email_sends,birchwood,1,", id="not UTF-8"),
        pytest.param(b"x,email_sends,birchwood,1," + b"a" * 200_000, id="too long"),
        pytest.param(b"x,email_sends,birchwood,9223372036854775808,", id="2^63"),
        pytest.param(b"x,email_sends,birchwood,nan,", id="NaN"),
        pytest.param(b"x,email_sends,birchwood,1.5,", id="fraction"),
        pytest.param(b",email_sends,birchwood,1,", id="no id"),
        pytest.param(b"x,email_sends,birchwood,1,000,main", id="one field too many"),
        pytest.param(b"x,email_sends,birchwood,1", id="one field too few"),
        pytest.param(b"x,email_sends,birchwood,1_000,", id="underscore"),
    ],
)
def test_a_broken_csv_row_is_listed_and_loses_nothing(row: bytes, tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "events.csv",
        "eventId,metric,externalId,quantity,workspace",
        "before,email_sends,birchwood,1,main",
        row,
        "after,email_sends,birchwood,2,main",
    )
    assert [event.event_id for event in read_sound(file).values()] == ["before", "after"]
    broken = read_broken(file)
    assert list(broken) == [3]
    assert broken[3].reason


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    for name in ("empty.ndjson", "empty.csv"):
        (tmp_path / name).touch()
        assert list(read_events(tmp_path / name)) == []


def test_a_first_row_without_the_columns_is_told(tmp_path: Path) -> None:
    file = tmp_path / "headless.csv"
    file.write_text("c1,email_sends,acme,5\n")
    with pytest.raises(IngestFailed, match="must name the columns, eventId and metric"):
        list(read_events(file))


# Sending


@pytest.fixture
async def url(address: str) -> AsyncGenerator[str]:
    """The address of a real server over this test's own sandbox."""
    listener = bind_port("127.0.0.1", 0)
    app = create_app(Settings(database_url=address), with_worker=False, clock=SetClock(NOW))
    server = uvicorn.Server(make_config(app))
    async with anyio.create_task_group() as group:

        async def serve() -> None:
            await server.serve(sockets=[listener])

        group.start_soon(serve)
        with anyio.fail_after(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await anyio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/graphql"
        server.should_exit = True


@pytest.fixture
def token(template: Template) -> str:
    return next(item.token for item in template.tokens if item.role is Role.OPERATOR)


async def figure(address: str) -> int:
    """How many sends are counted for Birchwood."""
    database = Database(address, SetClock(NOW), lambda _: None)
    try:
        async with database.read() as session:
            used = await session.scalar(
                select(func.sum(Counter.used))
                .join(BillingAccount, BillingAccount.id == Counter.account_id)
                .where(BillingAccount.external_id == "birchwood", Counter.metric_key == "email_sends")
            )
            return int(used or 0)
    finally:
        await database.close()


class Interrupted(Exception):
    """What ends a run in these tests."""


def interrupt(_: Progress) -> None:
    raise Interrupted


def journal_of(file: Path) -> Path:
    return file.with_name(file.name + ".progress")


async def test_a_file_is_counted_and_its_faults_are_listed(address: str, url: str, token: str, tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "events.ndjson",
        sends("a", 1),
        "not JSON",
        sends("b", 20),
        sends("c", 300, metric="fax_pages"),
        sends("a", 1),
        sends("d", 4_000),
    )
    before = await figure(address)
    told: list[tuple[int, int]] = []
    done = await ingest_file(
        file, url=url, token=token, tell=lambda now: told.append((now.lines, now.accepted)), batch=3, parallel=1
    )
    assert (done.accepted, done.duplicates, done.lines) == (3, 1, 6)
    assert [(item["line"], item["event_id"]) for item in done.rejected] == [(2, ""), (4, "c")]
    assert "UNKNOWN_METRIC: " in done.rejected[1]["reason"]
    assert await figure(address) == before + 4_021
    assert told[0] == (4, 2)
    assert told[-1] == (6, 3)
    assert not journal_of(file).exists()
    assert [json.loads(line) for line in rejected_of(file).read_text("utf-8").splitlines()] == [
        {"line": item["line"], "eventId": item["event_id"], "reason": item["reason"]} for item in done.rejected
    ]

    write_lines(file, sends("a", 1))
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None)
    assert (done.rejected, rejected_of(file).exists()) == ([], False)


async def test_broken_lines_at_the_end_are_listed_too(url: str, token: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1), "{", "{")
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None, batch=1)
    assert done.accepted == 1
    assert [item["line"] for item in done.rejected] == [2, 3]
    assert done.lines == 3


async def test_an_interrupted_file_goes_on_and_is_counted_once(
    address: str, url: str, token: str, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "events.ndjson", "{", *(sends(f"e{number}", 10**number) for number in range(5)))
    before = await figure(address)
    with pytest.raises(Interrupted):
        await ingest_file(file, url=url, token=token, tell=interrupt, batch=2, parallel=1)
    assert await figure(address) == before + 11
    assert json.loads(journal_of(file).read_text())["lines"] == 3
    told: list[int] = []
    done = await ingest_file(file, url=url, token=token, tell=lambda now: told.append(now.lines), batch=2, parallel=1)
    assert told[0] == 5, "the acknowledged lines are not sent again"
    assert (done.accepted, done.duplicates) == (5, 0)
    assert [item["line"] for item in done.rejected] == [1]
    assert await figure(address) == before + 11_111
    assert not journal_of(file).exists()


async def test_batches_beyond_a_gap_are_remembered(address: str, url: str, token: str, tmp_path: Path) -> None:
    """Whatever order the answers come in: what was acknowledged is not sent again, and what was not is."""
    file = write_lines(
        tmp_path / "events.ndjson",
        *(sends(f"e{number}", 10**number) for number in range(3)),
        "{",
        "",
        sends("e3", 1_000),
    )
    before = await figure(address)
    with pytest.raises(Interrupted):
        await ingest_file(file, url=url, token=token, tell=interrupt, batch=1, parallel=1)
    journal = json.loads(journal_of(file).read_text())
    assert (journal["lines"], journal["ahead"], journal["accepted"]) == (1, [], 1)
    # As if the third line had been acknowledged too, and the second not.
    journal_of(file).write_text(json.dumps(journal | {"ahead": [[3, 4]], "accepted": 2}))
    told: list[tuple[int, list[list[int]]]] = []
    done = await ingest_file(
        file, url=url, token=token, tell=lambda now: told.append((now.lines, list(now.ahead))), batch=9, parallel=1
    )
    assert told == [(4, []), (6, [])]
    assert (done.accepted, done.duplicates, done.rejected) == (4, 0, [])
    assert await figure(address) == before + 1_011, "the third line was never sent"


async def test_what_lowers_a_figure_waits_for_what_comes_before(
    address: str, url: str, token: str, tmp_path: Path
) -> None:
    file = write_lines(
        tmp_path / "events.ndjson",
        *(sends(f"up-{number}", 1_000) for number in range(6)),
        {**sends("down", -6_000), "correction": True},
        *(sends(f"again-{number}", 1) for number in range(6)),
    )
    before = await figure(address)
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None, batch=1, parallel=6)
    assert (done.accepted, done.duplicates, done.rejected) == (13, 0, [])
    assert await figure(address) == before + 6


@pytest.mark.parametrize("given", ["http://a.test", "http://a.test/", "http://a.test/graphql", "http://a.test/usage"])
def test_any_address_of_a_server_will_do(given: str) -> None:
    assert usage_address(given) == "http://a.test/usage"
    assert usage_address(given.replace("a.test", "a.test/billing")) == "http://a.test/billing/usage"


async def test_killed_in_the_middle_it_goes_on_and_all_is_counted_once(
    address: str, url: str, token: str, tmp_path: Path
) -> None:
    """kill -9 again and again, wherever it is just then."""
    count = 1_500
    file = write_lines(tmp_path / "events.ndjson", *(sends(f"e{number}", 1) for number in range(count)))
    before = await figure(address)

    def start() -> subprocess.Popen[bytes]:
        command = [str(PLAFOND), "ingest", str(file), "--url", url, "--batch", "10"]
        environment = {**os.environ, "PLAFOND_TOKEN": token}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    kills, ended = 0, False
    with anyio.fail_after(120):
        while not ended:
            process = start()
            acknowledged = journal_of(file).read_text() if journal_of(file).exists() else ""
            while process.poll() is None and kills < 3:
                await anyio.sleep(0.01)
                if journal_of(file).exists() and journal_of(file).read_text() != acknowledged:
                    process.kill()
                    kills += 1
                    break
            output, _ = await anyio.to_thread.run_sync(process.communicate)
            ended = process.returncode == 0
            assert process.returncode in (0, -signal.SIGKILL), output
    assert kills == 3
    accepted, repeated = (int(number) for number in re.findall(rb"(\d+) (?:accepted|counted before)", output))
    assert accepted + repeated == count
    assert repeated <= 3 * 4 * 10, "only what was under way is sent again"
    assert await figure(address) == before + count


async def test_a_csv_file_goes_on_too(address: str, url: str, token: str, tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "events.csv",
        "eventId,metric,externalId,quantity,workspace",
        "a,email_sends,birchwood,1,main",
        "b,email_sends,birchwood,10,main",
        "c,email_sends,birchwood,100,",
    )
    before = await figure(address)
    with pytest.raises(Interrupted):
        await ingest_file(file, url=url, token=token, tell=interrupt, batch=2, parallel=1)
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None, batch=2)
    assert (done.accepted, done.duplicates, done.rejected) == (3, 0, [])
    assert await figure(address) == before + 111


@pytest.mark.parametrize("left", [None, "", "[]", "{}", '{"digest": "another"}'])
async def test_with_the_journal_lost_nothing_is_counted_twice(
    left: str | None, address: str, url: str, token: str, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "events.ndjson", *(sends(f"e{number}", 10**number) for number in range(4)))
    before = await figure(address)
    with pytest.raises(Interrupted):
        await ingest_file(file, url=url, token=token, tell=interrupt, batch=3, parallel=1)
    if left is None:
        journal_of(file).unlink()
    else:
        journal_of(file).write_text(left)
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None, batch=3)
    assert (done.accepted, done.duplicates, done.rejected) == (1, 3, [])
    assert await figure(address) == before + 1_111
    assert not journal_of(file).exists()


async def test_a_changed_file_starts_from_the_beginning(address: str, url: str, token: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1), sends("b", 10), sends("c", 100))
    before = await figure(address)
    with pytest.raises(Interrupted):
        await ingest_file(file, url=url, token=token, tell=interrupt, batch=2, parallel=1)
    write_lines(file, sends("new", 1_000), sends("a", 1), sends("b", 10), sends("c", 100))
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None, batch=2)
    assert (done.accepted, done.duplicates, done.lines) == (2, 2, 4)
    assert await figure(address) == before + 1_111


async def test_events_as_large_as_they_may_be_are_sent(address: str, url: str, token: str, tmp_path: Path) -> None:
    properties = {f"property {number}": "x" * 255 for number in range(20)}
    file = write_lines(
        tmp_path / "events.ndjson", *({**sends(f"e{number}", 1), "properties": properties} for number in range(500))
    )
    before = await figure(address)
    done = await ingest_file(file, url=url, token=token, tell=lambda _: None)
    assert (done.accepted, done.rejected) == (500, [])
    assert await figure(address) == before + 500


@pytest.mark.parametrize("wrong", ["plf_test_000000000000_" + "0" * 48, "nonsense", "plf_live_0_0", "schlüssel"])
async def test_a_wrong_token_is_told_with_what_to_do(wrong: str, url: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1))
    with pytest.raises(IngestFailed, match=r"^Stopped: .*(--token|PLAFOND_TOKEN)"):
        await ingest_file(file, url=url, token=wrong, tell=lambda _: None)


async def test_a_token_without_the_right_is_told(template: Template, url: str, tmp_path: Path) -> None:
    member = next(item.token for item in template.tokens if item.role is Role.MEMBER)
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1))
    with pytest.raises(IngestFailed, match=r"^Stopped: .*usage:write"):
        await ingest_file(file, url=url, token=member, tell=lambda _: None)


async def test_a_server_that_does_not_answer_is_told_with_what_to_do(tmp_path: Path) -> None:
    listener = bind_port("127.0.0.1", 0)
    nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}/graphql"
    listener.close()
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1))
    with pytest.raises(IngestFailed, match=r"does not answer .* run the same command again"):
        await ingest_file(file, url=nowhere, token="plf_test_0_0", tell=lambda _: None)


async def test_another_page_of_the_server_is_told(url: str, token: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1))
    elsewhere = url.replace("/graphql", "/elsewhere")
    with pytest.raises(IngestFailed, match="GraphQL is at /graphql"):
        await ingest_file(file, url=elsewhere, token=token, tell=lambda _: None)


@pytest.mark.parametrize("wrong", ["nonsense", "ftp://127.0.0.1/graphql", "http://[", "http://127.0.0.1:port/"])
async def test_what_is_no_address_is_told(wrong: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "events.ndjson", sends("a", 1))
    with pytest.raises(IngestFailed):
        await ingest_file(file, url=wrong, token="plf_test_0_0", tell=lambda _: None)
