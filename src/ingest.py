"""Sends a file of usage events to a server, several batches at once, and goes on where it was interrupted."""

import asyncio
import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from pydantic import ValidationError

from .schema.usage_lines import Unread, UsageLine, explain_fault, read_line

BATCH = 500
PARALLEL = 4
TRIES = 5
MAX_BATCH_BYTES = 4 * 1024 * 1024

KEY_ADVICE = "Give another API key by --token or PLAFOND_TOKEN."


class IngestFailed(Exception):
    """The file could not be sent to its end. What was acknowledged is counted; the same command goes on from there."""


WHOLE = re.compile(r"-?[0-9]{1,19}")
CSV_NAMES = {info.alias or name for name, info in UsageLine.model_fields.items()} - {"properties"}


@dataclass(frozen=True)
class Broken:
    """A line that is no event, or an event that was not taken, and why."""

    line: int
    event_id: str
    reason: str


@dataclass
class Progress:
    """How far a file was sent. Written beside it after each acknowledged batch."""

    digest: str
    lines: int = 0
    """Up to here everything was acknowledged."""
    ahead: list[list[int]] = field(default_factory=list[list[int]])
    """The lines after that which were acknowledged too, from the first to the last of each batch."""
    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def note(self, first: int, last: int) -> None:
        """Take the lines of an acknowledged batch into account."""
        self.ahead = sorted([*self.ahead, [first, last]])
        while self.ahead and self.ahead[0][0] <= self.lines + 1:
            self.lines = max(self.lines, self.ahead.pop(0)[1])


@dataclass
class Batch:
    """What one request sends: the lines of a file from `first` to `last`, and which of them are no events."""

    first: int
    last: int = 0
    numbers: list[int] = field(default_factory=list[int])
    lines: list[bytes] = field(default_factory=list[bytes])
    broken: list[Broken] = field(default_factory=list[Broken])
    bytes: int = 0
    is_ordered: bool = False
    """Whether something in it lowers or sets a figure: then it matters what was counted before, and what after."""


def usage_address(url: str) -> str:
    """Where a server takes usage, by its base, its GraphQL address, or that address itself."""
    base = url.rstrip("/")
    return base if base.endswith("/usage") else base.removesuffix("/graphql") + "/usage"


def read_events(file: Path) -> Iterator[tuple[int, UsageLine | Broken]]:
    """The events of an NDJSON or CSV file (by its name), each with its line number; a broken line stops nothing."""
    if file.suffix.lower() == ".csv":
        yield from _read_csv(file)
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                found = read_line(line)
                yield number, Broken(number, found.event_id, found.reason) if isinstance(found, Unread) else found


def _read_csv(file: Path) -> Iterator[tuple[int, UsageLine | Broken]]:
    # Bytes that are not UTF-8 are carried along as lone surrogates, so that their row can be told, not altered.
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
        rows = csv.reader(text)
        try:
            header = next(rows, [])
        except csv.Error as error:
            raise IngestFailed(f"Stopped: the first row of {file.name} is not CSV: {error}") from error
        if not header:
            return
        if not {"eventId", "metric"} <= set(header):
            raise IngestFailed(
                f"Stopped: the first row of {file.name} must name the columns, eventId and metric among them: "
                f"{', '.join(sorted(CSV_NAMES))}. It reads: {', '.join(header)[:200]}"
            )
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield rows.line_num, Broken(rows.line_num, "", f"Not CSV: {error}")
                continue
            if row is None:
                return
            if row:
                yield rows.line_num, _read_row(rows.line_num, header, row)


def _read_row(number: int, header: list[str], row: list[str]) -> UsageLine | Broken:
    if len(row) != len(header):
        return Broken(number, "", f"The row has {len(row)} fields, and the first row names {len(header)}.")
    given = {name: value for name, value in zip(header, row, strict=True) if name and value}
    try:
        "".join([*given, *given.values()]).encode()
        known = {name: _read_cell(name, value) for name, value in given.items() if name in CSV_NAMES}
        more = {name: value for name, value in given.items() if name not in CSV_NAMES}
        return UsageLine.model_validate({**known, "properties": more})
    except UnicodeEncodeError:
        return Broken(number, "", "Not UTF-8.")
    except ValidationError as error:
        return Broken(number, given.get("eventId", ""), explain_fault(error))


def _read_cell(name: str, text: str) -> object:
    """What a cell holds: a table has texts only."""
    if name in ("quantity", "level") and WHOLE.fullmatch(text):
        return int(text)
    return {"true": True, "false": False}.get(text.lower(), text) if name == "correction" else text


async def ingest_file(
    file: Path, *, url: str, token: str, tell: Callable[[Progress], None], batch: int = BATCH, parallel: int = PARALLEL
) -> Progress:
    """Send a file, `parallel` batches at once. Gives what became of it.

    `IngestFailed` says why it stopped and that it can go on. Whatever ends it, what was acknowledged by then is noted.
    """
    if not token.isascii() or not token.isprintable():
        raise IngestFailed(f"Stopped: the token is malformed. {KEY_ADVICE}")
    address = usage_address(url)
    journal = file.with_name(file.name + ".progress")
    progress = _resume(file, address, journal)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/x-ndjson",
        "Prefer": "return=minimal",
    }
    limits = httpx2.Limits(max_connections=parallel)
    async with httpx2.AsyncClient(timeout=60.0, headers=headers, limits=limits) as client:
        sending: dict[asyncio.Task[list[dict[str, Any]]], Batch] = {}

        async def take_one() -> None:
            """Wait until a batch is acknowledged, and note it."""
            done, _ = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            failed: IngestFailed | None = None
            for task in done:
                sent = sending.pop(task)
                try:
                    _count(progress, sent, task.result())
                except IngestFailed as failure:
                    failed = failure
                else:
                    _write_journal(journal, progress)
                    tell(progress)
            if failed is not None:
                raise failed

        try:
            for found in _batches(file, progress, batch):
                while sending and (len(sending) >= parallel or found.is_ordered):
                    await take_one()
                sending[asyncio.create_task(_send(client, address, found.lines))] = found
                if found.is_ordered:
                    await take_one()
            while sending:
                await take_one()
        except IngestFailed:
            # The others are on their way: what is acknowledged of them need not be sent again.
            while sending:
                with suppress(IngestFailed):
                    await take_one()
            raise
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
    progress.rejected.sort(key=lambda broken: broken["line"])
    _list_rejected(rejected_of(file), progress.rejected)
    journal.unlink(missing_ok=True)
    return progress


def rejected_of(file: Path) -> Path:
    """What of a file was rejected stands there, a line each with place and reason; where nothing was, there is none."""
    return file.with_name(file.name + ".rejected")


def _list_rejected(place: Path, rejected: Sequence[dict[str, Any]]) -> None:
    if rejected:
        lines = (
            {"line": broken["line"], "eventId": broken["event_id"], "reason": broken["reason"]} for broken in rejected
        )
        place.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    else:
        place.unlink(missing_ok=True)


def _resume(file: Path, address: str, journal: Path) -> Progress:
    # What one server has counted says nothing of another: the address is part of what a journal is for.
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest() + " " + address
    if journal.exists():
        try:
            found = Progress(**json.loads(journal.read_text()))
        except (ValueError, TypeError):
            return Progress(digest)
        if found.digest == digest:
            return found
    return Progress(digest)


def _write_journal(journal: Path, progress: Progress) -> None:
    # Replaced whole: an interruption leaves the old one, and then a batch is sent twice and counted once.
    new = journal.with_name(journal.name + ".new")
    new.write_text(json.dumps(asdict(progress)))
    new.replace(journal)


def _batches(file: Path, progress: Progress, size: int) -> Iterator[Batch]:
    """What is still to be sent. A batch ends where lines follow that an earlier run sent."""
    batch: Batch | None = None
    last = done = progress.lines
    ahead = [list(pair) for pair in progress.ahead]
    for number, event in read_events(file):
        while ahead and number > ahead[0][1]:
            done = max(done, ahead.pop(0)[1])
        if number <= done or (ahead and ahead[0][0] <= number):
            if batch is not None:
                yield batch
                batch = None
            last = number
            continue
        line = (
            b"" if isinstance(event, Broken) else event.model_dump_json(by_alias=True, exclude_defaults=True).encode()
        )
        is_full = batch is not None and (len(batch.lines) >= size or batch.bytes + len(line) + 1 > MAX_BATCH_BYTES)
        if batch is not None and is_full and line:
            yield batch
            batch = None
        if batch is None:
            # Blank lines before it are nobody else's.
            batch = Batch(last + 1)
        batch.last = last = number
        if isinstance(event, Broken):
            batch.broken.append(event)
            continue
        batch.numbers.append(number)
        batch.lines.append(line)
        batch.bytes += len(line) + 1
        batch.is_ordered = batch.is_ordered or event.level is not None or (event.quantity or 0) < 0
    if batch is not None:
        yield batch


async def _send(client: httpx2.AsyncClient, address: str, lines: list[bytes]) -> list[dict[str, Any]]:
    """Have a batch counted. Gives the answer's lines, the last of which sums up."""
    if not lines:
        return [{"accepted": 0, "duplicates": 0, "rejected": 0, "error": None}]
    reason = ""
    for attempt in range(TRIES):
        pause = 0.2 * 2**attempt
        try:
            response = await client.post(address, content=b"\n".join(lines))
            answer = _read_answer(response)
            if answer is not None:
                return answer
            reason = f"the server answers {response.status_code}"
            asked = response.headers.get("retry-after", "")
            pause = max(pause, min(float(asked), 30.0)) if asked.isdigit() else pause
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise IngestFailed(f"Stopped: {address} is no address of a server: {error}") from error
        except httpx2.HTTPError as error:
            reason = f"{address} does not answer ({error or type(error).__name__})"
        if attempt + 1 < TRIES:
            await asyncio.sleep(pause)
    raise IngestFailed(f"Stopped: {reason}. Nothing acknowledged is lost: run the same command again to go on.")


def _read_answer(response: httpx2.Response) -> list[dict[str, Any]] | None:
    """The lines of an answer; none where the same is to be sent again."""
    try:
        found = [json.loads(line) for line in response.text.splitlines() if line]
        end = found[-1]
        if end.get("errors"):
            reasons = "; ".join(str(error.get("message")) for error in end["errors"])
            is_final = response.status_code < 500
        else:
            reasons = "" if end["error"] is None else str(end["error"]["message"])
            is_final = end["error"] is None or end["error"]["code"] not in ("UNAVAILABLE", "INTERNAL")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if response.status_code >= 500:
            return None
        raise IngestFailed(
            f"Stopped: {response.url} is not a Plafond server (status {response.status_code})."
        ) from error
    if not is_final:
        return None
    if reasons:
        advice = f" {KEY_ADVICE}" if response.status_code == 401 or "UNAUTHENTICATED" in response.text else ""
        raise IngestFailed(f"Stopped: {reasons}{advice}")
    return found


def _count(progress: Progress, batch: Batch, answer: list[dict[str, Any]]) -> None:
    *rejected, end = answer
    progress.accepted += end["accepted"]
    progress.duplicates += end["duplicates"]
    progress.rejected += map(asdict, batch.broken)
    progress.rejected += [
        asdict(Broken(batch.numbers[result["index"]], result["eventId"], f"{result['code']}: {result['message']}"))
        for result in rejected
    ]
    progress.note(batch.first, batch.last)
