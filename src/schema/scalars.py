"""Scalars of our own: strict in what they take, exact in what they give."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

BigInt = NewType("BigInt", int)
CountryCode = NewType("CountryCode", str)
CurrencyCode = NewType("CurrencyCode", str)
EmailAddress = NewType("EmailAddress", str)
Url = NewType("Url", str)
JsonObject = NewType("JsonObject", object)

MAX_BIG_INT = 2**53 - 1
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def parse_big_int(value: object) -> int:
    """A whole number, at most 2^53−1 either way."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_BIG_INT:
        raise ValueError(f"BigInt is a whole number from -{MAX_BIG_INT} to {MAX_BIG_INT}.")
    return value


def parse_datetime(value: object) -> datetime:
    """An RFC 3339 instant with its offset."""
    message = "DateTime is an RFC 3339 instant with its offset, such as 2026-03-01T12:00:00Z."
    if not isinstance(value, str) or not RFC_3339.fullmatch(value):
        raise ValueError(message)
    try:
        found = datetime.fromisoformat(value.upper())
        if found.tzinfo is None:
            raise ValueError(message)
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(message) from error


def format_datetime(value: datetime) -> str:
    """In UTC, with `Z`."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_date(value: object) -> date:
    """A calendar day."""
    message = "Date is a calendar day such as 2026-03-01."
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError(message)
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(message) from error


def parse_json(value: object) -> object:
    """A flat JSON object."""
    if not isinstance(value, dict):
        raise ValueError("JSON is an object here.")  # strawberry shows ValueError to the caller
    return value


def _no_input(name: str) -> Callable[[object], Any]:
    def parse(value: object) -> Any:
        raise ValueError(f"{name} is not taken as input: {value!r:.40}")

    return parse


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("A text is wanted.")
    return value


SCALARS: dict[object, ScalarDefinition] = {
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number, as a JSON number, at most 2^53−1 either way.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259#section-6",
        serialize=int,
        parse_value=parse_big_int,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant by RFC 3339; answers are in UTC and end in `Z`.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=format_datetime,
        parse_value=parse_datetime,
    ),
    date: strawberry.scalar(
        name="Date",
        description="A calendar day, such as 2026-03-01.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339#section-5.6",
        serialize=date.isoformat,
        parse_value=parse_date,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact decimal number, as text, with all its decimals: "150.00".',
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259#section-6",
        serialize=str,
        parse_value=_no_input("Decimal"),
    ),
    CountryCode: strawberry.scalar(
        name="CountryCode",
        description="A country by the two letters of ISO 3166-1, such as AT.",
        specified_by_url="https://www.iso.org/iso-3166-country-codes.html",
        serialize=str,
        parse_value=_text,
    ),
    EmailAddress: strawberry.scalar(
        name="EmailAddress",
        description="The address of a mailbox.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc5322#section-3.4.1",
        serialize=str,
        parse_value=_text,
    ),
    CurrencyCode: strawberry.scalar(
        name="CurrencyCode",
        description="A currency by ISO 4217, such as USD.",
        specified_by_url="https://www.iso.org/iso-4217-currency-codes.html",
        serialize=str,
        parse_value=_text,
    ),
    Url: strawberry.scalar(
        name="URL",
        description="An absolute web address.",
        specified_by_url="https://url.spec.whatwg.org/",
        serialize=str,
        parse_value=_text,
    ),
    JsonObject: strawberry.scalar(
        name="JSON",
        description="A JSON object.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        serialize=lambda value: value,
        parse_value=parse_json,
    ),
}
