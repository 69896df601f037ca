"""One usage event as a line of JSON: ours, or a CloudEvent. What files hold and `/usage` takes."""

import json
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_serializer,
)
from pydantic_core import PydanticCustomError

from ..services.usage import UsageInput
from .node import NOBODY, key_of
from .scalars import parse_datetime

MAX_LINE = 64 * 1024
TOO_MUCH = "Not to be read as JSON: a number is too long, or it is nested too deeply."


def _check_whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("whole", "a whole number is wanted")
    return value


def _read_instant(value: object) -> datetime:
    try:
        return parse_datetime(value)
    except ValueError as error:
        raise PydanticCustomError("instant", "an instant is wanted") from error


Whole = Annotated[int, BeforeValidator(_check_whole)]
Instant = Annotated[datetime, BeforeValidator(_read_instant)]
"""The same instants as in a query."""


class UsageLine(BaseModel):
    """One event, in the names of `UsageEventInput`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    event_id: str = Field(alias="eventId", min_length=1, max_length=255)
    metric: str = Field(min_length=1)
    account_id: str | None = Field(None, alias="accountId")
    external_id: str | None = Field(None, alias="externalId")
    quantity: Whole | None = Field(None, ge=-(2**53) + 1, le=2**53 - 1)
    level: Whole | None = Field(None, ge=0, le=2**53 - 1)
    correction: StrictBool = False
    occurred_at: Instant | None = Field(None, alias="occurredAt")
    properties: dict[str, str | int | bool] = Field(default_factory=dict)

    @field_serializer("occurred_at")
    def _as_text(self, at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    def to_input(self) -> UsageInput:
        """As the services know it."""
        return UsageInput(
            event_id=self.event_id,
            metric=self.metric,
            account_id=None if self.account_id is None else key_of(self.account_id, "BillingAccount") or NOBODY,
            external_id=self.external_id,
            quantity=self.quantity,
            level=self.level,
            correction=self.correction,
            occurred_at=self.occurred_at,
            properties=cast("dict[str, Any]", self.properties),
        )


class CloudEvent(BaseModel):
    """A CloudEvents 1.0 JSON event: `type` is the metric, `subject` the external id, `data` holds the quantity."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str | None = None
    time: Instant | None = None
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
                "occurredAt": None if self.time is None else self.time.isoformat(),
                "properties": data.pop("properties", None) or data,
                **known,
            }
        )


@dataclass(frozen=True)
class Unread:
    """What is no event, and why."""

    event_id: str
    """What it calls itself, where that can be read."""
    reason: str


def read_line(line: bytes) -> UsageLine | Unread:
    """The event of a line of JSON."""
    line = line.removeprefix(BOM_UTF8)
    if len(line) > MAX_LINE:
        return Unread("", f"The line is longer than {MAX_LINE} bytes.")
    if b'"specversion"' not in line:
        try:
            return UsageLine.model_validate_json(line)
        except ValidationError:
            pass  # read again below, slowly, to say what is wrong
    try:
        given = json.loads(line.decode())
    except UnicodeDecodeError:
        return Unread("", "Not UTF-8.")
    except json.JSONDecodeError as error:
        return Unread("", f"Not JSON: {error.msg} at character {error.pos + 1}.")
    except (ValueError, RecursionError):
        return Unread("", TOO_MUCH)
    return read_event(given)


def read_event(given: object) -> UsageLine | Unread:
    """The event in a value that came as JSON."""
    try:
        json.dumps(given, ensure_ascii=False).encode()  # a lone surrogate passes JSON, but no wire
    except UnicodeEncodeError:
        return Unread(_id_in(given), "A text in it is half a character: a surrogate without its other half.")
    except RecursionError:
        return Unread("", TOO_MUCH)
    try:
        if isinstance(given, dict) and "specversion" in given:
            return CloudEvent.model_validate(given).to_line()
        return UsageLine.model_validate(given)
    except ValidationError as error:
        return Unread(_id_in(given), explain_fault(error))


def _id_in(given: object) -> str:
    named = str(given.get("eventId", given.get("id", ""))) if isinstance(given, dict) else ""
    return named.encode(errors="replace").decode()[:255]


def explain_fault(error: ValidationError) -> str:
    """What does not fit, field by field, in words for whoever mends it."""
    faults: dict[str, str] = {}
    for item in error.errors():
        place, fault = item["loc"], item["type"]
        if not place:
            return "The line is no JSON object."
        if place[0] == "properties" and len(place) > 1:
            place, fault = place[:2], "property"  # pydantic tells of each type that it might have had
        faults.setdefault(".".join(map(str, place)), _explain(fault, item.get("ctx", {})))
    return " ".join(f"`{place}`: {words}" for place, words in list(faults.items())[:3])


def _explain(fault: str, limits: Mapping[str, Any]) -> str:
    """A fault that pydantic names, in our words: exactly that one, or one of its kind."""
    words = WORDS.get(fault) or WORDS.get(fault.partition("_")[0], "is not what is wanted here.")
    return words.format_map(limits)


WORDS = {
    "missing": "is missing.",
    "extra_forbidden": "is not a name that is known here.",
    "whole": "is no whole number.",
    "instant": "is no instant: an RFC 3339 one with its offset is wanted, such as 2026-03-01T12:00:00Z.",
    "property": "is neither a text nor a whole number nor true or false.",
    "greater_than_equal": "is less than {ge}.",
    "less_than_equal": "is more than {le}.",
    "dict": "is no object.",
    "model": "is no object.",
    "bool": "is neither true nor false.",
    "string": "is no text.",
    "string_too_short": "has fewer than {min_length} characters.",
    "string_too_long": "has more than {max_length} characters.",
    "literal_error": "is not {expected}.",
}
