"""Usage lines: what does not fit is explained in our words."""

import json
from typing import Any

import pytest

from plafond.schema.usage_lines import Unread, UsageLine, read_event, read_line

HALF = "A text in it is half a character: a surrogate without its other half."
NO_INSTANT = "`occurredAt`: is no instant: an RFC 3339 one with its offset is wanted, such as 2026-03-01T12:00:00Z."
FITS: dict[str, Any] = {"eventId": "a", "metric": "email_sends", "externalId": "acme", "quantity": 1}
CLOUD: dict[str, Any] = {"specversion": "1.0", "id": "a", "source": "s", "type": "email_sends", "data": {"quantity": 1}}
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"eventId": 5}, "`eventId`: is no text."),
    ({"eventId": ""}, "`eventId`: has fewer than 1 characters."),
    ({"eventId": "a" * 256}, "`eventId`: has more than 255 characters."),
    ({"metric": None}, "`metric`: is no text."),
    ({"quantity": "many"}, "`quantity`: is no whole number."),
    ({"quantity": 1.5}, "`quantity`: is no whole number."),
    ({"quantity": True}, "`quantity`: is no whole number."),
    ({"quantity": [1]}, "`quantity`: is no whole number."),
    ({"quantity": 2**53}, "`quantity`: is more than 9007199254740991."),
    ({"level": -1}, "`level`: is less than 0."),
    ({"correction": "yes"}, "`correction`: is neither true nor false."),
    ({"properties": [1]}, "`properties`: is no object."),
    ({"amount": 1}, "`amount`: is not a name that is known here."),
    ({"occurredAt": "yesterday"}, NO_INSTANT),
    ({"occurredAt": ""}, NO_INSTANT),
    ({"occurredAt": {}}, NO_INSTANT),
    ({"occurredAt": True}, NO_INSTANT),
    ({"occurredAt": "2026-03-01T12:00:00"}, NO_INSTANT),
    ({"occurredAt": "2026-03-01T12:00:00+0100"}, NO_INSTANT),
    ({"occurredAt": "2026-03-01 12:00:00Z"}, NO_INSTANT),
    ({"occurredAt": 1_795_901_755}, NO_INSTANT),
    ({"occurredAt": "1795901755"}, NO_INSTANT),
    ({"occurredAt": "0001-01-01T00:00:00+01:00"}, NO_INSTANT),
    ({"occurredAt": "9999-12-31T23:59:59-05:00"}, NO_INSTANT),
    ({"quantity": "5"}, "`quantity`: is no whole number."),
    ({"quantity": "1_000"}, "`quantity`: is no whole number."),
    ({"eventId": "", "metric": 5}, "`eventId`: has fewer than 1 characters. `metric`: is no text."),
]


@pytest.mark.parametrize(("changed", "told"), FAULTS)
def test_each_fault_is_told_in_our_words(changed: dict[str, Any], told: str) -> None:
    read = read_line(json.dumps(FITS | changed).encode())
    assert isinstance(read, Unread)
    assert read.reason == told


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"specversion": "0.3"}, "`specversion`: is not '1.0'."),
        ({"data": [1]}, "`data`: is no object."),
        (
            {"time": 1e300},
            "`time`: is no instant: an RFC 3339 one with its offset is wanted, such as 2026-03-01T12:00:00Z.",
        ),
        ({"data": {"quantity": {}}}, "`quantity`: is no whole number."),
    ],
)
def test_so_are_those_of_cloud_events(changed: dict[str, Any], told: str) -> None:
    read = read_event(CLOUD | changed)
    assert isinstance(read, Unread)
    assert read.reason == told


@pytest.mark.parametrize("missing", ["eventId", "metric"])
def test_what_is_missing_is_named(missing: str) -> None:
    read = read_event({name: value for name, value in FITS.items() if name != missing})
    assert isinstance(read, Unread)
    assert read.reason == f"`{missing}`: is missing."


@pytest.mark.parametrize("properties", [{"a": None}, {"a": 1.5}, {"a": {"b": 1}}, {"a": []}])
def test_properties_are_flat(properties: dict[str, Any]) -> None:
    read = read_event(FITS | {"properties": properties})
    assert isinstance(read, Unread)
    assert read.reason == "`properties.a`: is neither a text nor a whole number nor true or false."


@pytest.mark.parametrize(
    ("line", "event_id", "told"),
    [
        (b"{", "", "Not JSON: Expecting property name enclosed in double quotes at character 2."),
        (b"\xff", "", "Not UTF-8."),
        (
            b'{"quantity": ' + b"9" * 5_000 + b"}",
            "",
            "Not to be read as JSON: a number is too long, or it is nested too deeply.",
        ),
        (b"[" * 5_000, "", "Not to be read as JSON: a number is too long, or it is nested too deeply."),
        (b'{"eventId": "a", "metric": "\\ud800"}', "a", HALF),
        (b'{"eventId": "\\ud800", "metric": "a"}', "?", HALF),
        (b"[1]", "", "The line is no JSON object."),
    ],
)
def test_what_is_no_event_is_told_apart(line: bytes, event_id: str, told: str) -> None:
    assert read_line(line) == Unread(event_id, told)


def test_a_mark_of_the_byte_order_is_passed_over() -> None:
    assert isinstance(read_line(b"\xef\xbb\xbf" + json.dumps(FITS).encode()), UsageLine)
