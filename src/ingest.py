"""Sends a file of usage events to a server, in batches, and goes on where it was interrupted."""

import csv
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import httpx2
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer

BATCH = 500
TRIES = 5
MAX_LINE = 64 * 1024
MAX_BATCH_BYTES = 900 * 1024

KEY_ADVICE = "Give another API key by --token or PLAFOND_TOKEN."

RECORD = """
mutation Ingest($events: [UsageEventInput!]!) {
  recordUsage(input: { events: $events }) {
    accepted duplicates rejected
    results { index eventId status code message }
    userErrors { code message field }
  }
}
"""


class IngestFailed(Exception):
    """The file could not be sent to its end. What was acknowledged is counted; the same command goes on from there."""


def _refuse_booleans(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("a whole number is wanted")  # pydantic reports ValueError
    return value


Whole = Annotated[int, BeforeValidator(_refuse_booleans)]


class UsageLine(BaseModel):
    """One event of a file, in the names of `UsageEventInput`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    event_id: str = Field(alias="eventId", min_length=1, max_length=255)
    metric: str = Field(min_length=1)
    account_id: str | None = Field(None, alias="accountId")
    external_id: str | None = Field(None, alias="externalId")
    quantity: Whole | None = Field(None, ge=-(2**53) + 1, le=2**53 - 1)
    level: Whole | None = Field(None, ge=0, le=2**53 - 1)
    correction: bool = False
    occurred_at: AwareDatetime | None = Field(None, alias="occurredAt")
    properties: dict[str, str | int | bool] = Field(default_factory=dict)

    @field_serializer("occurred_at")
    def _as_text(self, at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()


class CloudEvent(BaseModel):
    """A CloudEvents 1.0 JSON event: `type` is the metric, `subject` the external id, `data` holds the quantity."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str | None = None
    time: AwareDatetime | None = None
    data: dict[str, Any]

    def to_line(self) -> UsageLine:
        """The same as one of ours."""
        data = dict(self.data)
        known = {key: data.pop(key) for key in ("quantity", "level", "correction") if key in data}
        return UsageLine.model_validate(
            {
                "eventId": self.id,
                "metric": self.type,
                "externalId": self.subject,
                "occurredAt": self.time,
                "properties": data.pop("properties", None) or data,
                **known,
            }
        )


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
    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def read_events(file: Path) -> Iterator[tuple[int, UsageLine | Broken]]:
    """The events of an NDJSON or CSV file (by its name), each with its line number; a broken line stops nothing."""
    if file.suffix.lower() == ".csv":
        yield from _read_csv(file)
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _read_line(number, line)


def _read_line(number: int, line: bytes) -> UsageLine | Broken:
    try:
        if len(line) > MAX_LINE:
            return Broken(number, "", f"The line is longer than {MAX_LINE} bytes.")
        given = json.loads(line.decode())
        json.dumps(given, ensure_ascii=False).encode()  # a lone surrogate passes JSON, but no wire
        if isinstance(given, dict) and "specversion" in given:
            return CloudEvent.model_validate(given).to_line()
        return UsageLine.model_validate(given)
    except ValidationError as error:
        return Broken(number, _id_in(line), _explain(error))
    except (ValueError, RecursionError) as error:
        return Broken(number, "", f"Not a JSON object in UTF-8: {error}"[:200])


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
    given = {name: value for name, value in zip(header, row, strict=False) if name and value}
    try:
        "".join([*given, *given.values()]).encode()
        known = {name: value for name, value in given.items() if name in CSV_NAMES}
        more = {name: value for name, value in given.items() if name not in CSV_NAMES}
        return UsageLine.model_validate({**known, "properties": more})
    except UnicodeEncodeError:
        return Broken(number, "", "Not UTF-8.")
    except ValidationError as error:
        return Broken(number, given.get("eventId", ""), _explain(error))


def _id_in(line: bytes) -> str:
    try:
        given = json.loads(line)
    except ValueError:
        return ""
    return str(given.get("eventId", given.get("id", "")))[:255] if isinstance(given, dict) else ""


def _explain(error: ValidationError) -> str:
    faults = []
    for item in error.errors()[:3]:
        if not item["loc"]:
            faults.append("The line is no JSON object.")
        else:
            place = ".".join(map(str, item["loc"]))
            faults.append(f"`{place}`: {WORDS.get(item['type'], item['msg'].removeprefix('Value error, '))}")
    return "; ".join(faults)


WORDS = {
    "missing": "is missing.",
    "extra_forbidden": "is not a name that is known here.",
    "int_type": "is no whole number.",
    "int_parsing": "is no whole number.",
    "int_from_float": "is no whole number.",
    "finite_number": "is no whole number.",
    "dict_type": "is no object.",
    "model_type": "is no object.",
    "string_type": "is no text.",
    "timezone_aware": "has no offset: an RFC 3339 instant is wanted, such as 2026-03-01T12:00:00Z.",
    "datetime_from_date_parsing": "is no instant: an RFC 3339 one is wanted, such as 2026-03-01T12:00:00Z.",
    "datetime_parsing": "is no instant: an RFC 3339 one is wanted, such as 2026-03-01T12:00:00Z.",
}
"""What is wrong with a field, in words for whoever mends the file."""


async def ingest_file(
    file: Path, *, url: str, token: str, tell: Callable[[Progress], None], batch: int = BATCH
) -> Progress:
    """Send a file. Gives what became of it; `IngestFailed` says why it stopped and that it can go on."""
    if not token.isascii() or not token.isprintable():
        raise IngestFailed(f"Stopped: the token is malformed. {KEY_ADVICE}")
    journal = file.with_name(file.name + ".progress")
    progress = _resume(file, url, journal)
    async with httpx2.AsyncClient(timeout=30.0, headers={"Authorization": f"Bearer {token}"}) as client:
        async for numbers, events, last_line in _batches(file, progress, batch):
            if events:
                answer = await _send(client, url, [event.model_dump(by_alias=True) for event in events])
                _count(progress, answer, numbers)
            progress.lines = last_line
            _write_journal(journal, progress)
            tell(progress)
    journal.unlink(missing_ok=True)
    progress.rejected.sort(key=lambda broken: broken["line"])
    return progress


def _resume(file: Path, url: str, journal: Path) -> Progress:
    # What one server has counted says nothing of another: the address is part of what a journal is for.
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest() + " " + url
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


async def _batches(file: Path, progress: Progress, size: int) -> AsyncGenerator[tuple[list[int], list[UsageLine], int]]:
    numbers: list[int] = []
    events: list[UsageLine] = []
    last = done = progress.lines
    weight = 0
    for number, event in read_events(file):
        if number <= done:
            continue
        if isinstance(event, Broken):
            progress.rejected.append(asdict(event))
            last = number
            continue
        bytes_more = len(event.model_dump_json(by_alias=True).encode()) + 1
        if events and (len(events) == size or weight + bytes_more > MAX_BATCH_BYTES):
            yield numbers, events, last
            numbers, events, weight = [], [], 0
        numbers.append(number)
        events.append(event)
        weight += bytes_more
        last = number
    yield numbers, events, last


async def _send(client: httpx2.AsyncClient, url: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    for attempt in range(TRIES):
        try:
            response = await client.post(url, json={"query": RECORD, "variables": {"events": events}})
            if response.status_code < 500:
                return _read_answer(response)
            reason = f"the server answers {response.status_code}"
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise IngestFailed(f"Stopped: {url} is no address of a server: {error}") from error
        except httpx2.HTTPError as error:
            reason = f"{url} does not answer ({error or type(error).__name__})"
        if attempt + 1 < TRIES:
            await anyio.sleep(0.2 * 2**attempt)
    raise IngestFailed(f"Stopped: {reason}. Nothing acknowledged is lost: run the same command again to go on.")


def _read_answer(response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError as error:
        raise IngestFailed(
            f"Stopped: {response.url} is not a Plafond server (status {response.status_code})."
        ) from error
    data = (answer.get("data") or {}).get("recordUsage") if isinstance(answer, dict) else None
    errors = answer.get("errors", []) if isinstance(answer, dict) else []
    if errors or data is None:
        reasons = "; ".join(str(error.get("message")) for error in errors) or "no answer"
        raise IngestFailed(f"Stopped: {reasons}" + (f" {KEY_ADVICE}" if response.status_code == 401 else ""))
    if data["userErrors"]:
        raise IngestFailed("Stopped: " + "; ".join(error["message"] for error in data["userErrors"]))
    found: dict[str, Any] = data
    return found


def _count(progress: Progress, answer: dict[str, Any], numbers: list[int]) -> None:
    progress.accepted += answer["accepted"]
    progress.duplicates += answer["duplicates"]
    progress.rejected += [
        asdict(Broken(numbers[result["index"]], result["eventId"], f"{result['code']}: {result['message']}"))
        for result in answer["results"]
        if result["status"] == "REJECTED"
    ]
