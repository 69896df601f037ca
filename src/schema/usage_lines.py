"""One usage event as a line of JSON: ours, or a CloudEvent. What files hold and `/usage` takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_serializer,
)

from ..services.usage import UsageInput
from .node import NOBODY, key_of

MAX_LINE = 64 * 1024


def _refuse_booleans(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("a whole number is wanted")  # pydantic reports ValueError
    return value


Whole = Annotated[int, BeforeValidator(_refuse_booleans)]


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
    occurred_at: AwareDatetime | None = Field(None, alias="occurredAt")
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


@dataclass(frozen=True)
class Unread:
    """What is no event, and why."""

    event_id: str
    """What it calls itself, where that can be read."""
    reason: str


def read_line(line: bytes) -> UsageLine | Unread:
    """The event of a line of JSON."""
    if len(line) > MAX_LINE:
        return Unread("", f"The line is longer than {MAX_LINE} bytes.")
    if b'"specversion"' not in line:
        try:
            return UsageLine.model_validate_json(line)
        except ValidationError:
            pass  # read again below, slowly, to say what is wrong
    try:
        return read_event(json.loads(line.decode()))
    except (ValueError, RecursionError) as error:
        return Unread("", f"Not a JSON object in UTF-8: {error}"[:200])


def read_event(given: object) -> UsageLine | Unread:
    """The event in a value that came as JSON."""
    try:
        json.dumps(given, ensure_ascii=False).encode()  # a lone surrogate passes JSON, but no wire
        if isinstance(given, dict) and "specversion" in given:
            return CloudEvent.model_validate(given).to_line()
        return UsageLine.model_validate(given)
    except ValidationError as error:
        return Unread(_id_in(given), explain_fault(error))
    except (ValueError, RecursionError) as error:
        return Unread("", f"Not a JSON object in UTF-8: {error}"[:200])


def _id_in(given: object) -> str:
    return str(given.get("eventId", given.get("id", "")))[:255] if isinstance(given, dict) else ""


def explain_fault(error: ValidationError) -> str:
    """What does not fit, field by field, in words for whoever mends it."""
    faults = []
    for item in error.errors()[:3]:
        if not item["loc"]:
            faults.append("The line is no JSON object.")
        else:
            place = ".".join(map(str, item["loc"]))
            faults.append(f"`{place}`: {_explain(item['type'], item.get('ctx', {}))}")
    return "; ".join(faults)


def _explain(fault: str, limits: Mapping[str, Any]) -> str:
    """A fault that pydantic names, in our words: exactly that one, or one of its kind."""
    words = WORDS.get(fault) or WORDS.get(fault.partition("_")[0], "is not what is wanted here.")
    return words.format_map(limits)


WORDS = {
    "missing": "is missing.",
    "extra_forbidden": "is not a name that is known here.",
    "value_error": "is no whole number.",
    "int": "is no whole number.",
    "finite_number": "is no whole number.",
    "greater_than_equal": "is less than {ge}.",
    "less_than_equal": "is more than {le}.",
    "dict": "is no object.",
    "model": "is no object.",
    "bool": "is neither true nor false.",
    "string": "is no text.",
    "string_too_short": "has fewer than {min_length} characters.",
    "string_too_long": "has more than {max_length} characters.",
    "literal_error": "is not {expected}.",
    "timezone_aware": "has no offset: an RFC 3339 instant is wanted, such as 2026-03-01T12:00:00Z.",
    "datetime": "is no instant: an RFC 3339 one is wanted, such as 2026-03-01T12:00:00Z.",
    "recursion_loop": "is nested too deeply.",
}
