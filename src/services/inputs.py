"""What people write into forms: put into one shape, or refused with the field that it stands in."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar
from unicodedata import category, normalize
from zoneinfo import available_timezones

from babel import Locale, UnknownLocaleError

from .errors import BillingError, InvalidInput, Refusals, list_refusals
from .rules.countries import COUNTRIES
from .rules.money import exponent_of

T = TypeVar("T")
Path = Sequence[str]
"""Where something stands in the input, such as input, addressLines, 0."""
Checks = Mapping[str, Callable[[], Any]]

MAX_LOCALE = 35
MAX_EMAIL = 254
MAX_PAIRS = 50
MAX_PAIR_KEY = 40
MAX_PAIR_VALUE = 500

_TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They make a line read in another order than it is written: a name could pass for another's."""
_BREAKS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_EMAIL = re.compile(r'[^@\s<>()\[\],;:\\"]{1,64}@[^@\s<>()\[\],;:\\"]+(\.[^@\s<>()\[\],;:\\".]+)+')
_NO_PLACES = frozenset({"localtime", "Factory"})


def check_all(checks: Checks) -> dict[str, Any]:
    """What each check gives, by its name. Whatever they refuse is told at once."""
    found: dict[str, Any] = {}
    refusals: list[BillingError] = []
    for name, check in checks.items():
        try:
            found[name] = check()
        except BillingError as refusal:
            refusals.extend(list_refusals(refusal))
    if refusals:
        raise refusals[0] if len(refusals) == 1 else Refusals(refusals)
    return found


def require_given(value: T | None, path: Path) -> T:
    """What may be left out, but is not null when it is given."""
    if value is None:
        raise InvalidInput(f"`{path[-1]}` cannot be null: leave it out to keep what is there.", path)
    return value


def check_text(value: str | None, path: Path, *, at_most: int, at_least: int = 1) -> str:
    """One line of text in Unicode's form NFC, without blanks around it, and without a card's number in it."""
    given = require_given(value, path)
    if not _is_plain(given):
        raise InvalidInput(
            f"`{_name(path)}` is one line of text: it holds no control characters and none that turn its direction.",
            path,
        )
    text = normalize("NFC", given).strip()
    if not at_least <= len(text) <= at_most:
        raise InvalidInput(f"`{_name(path)}` has {at_least} to {at_most} characters.", path)
    refuse_card_number(text, path)
    return text


def check_key(value: str, path: Path, *, at_most: int) -> str:
    """A partner's own id, kept exactly as it was given."""
    if not value.isprintable() or not 1 <= len(value) <= at_most:
        raise InvalidInput(f"`{_name(path)}` has 1 to {at_most} printable characters.", path)
    if normalize("NFC", value) != value:
        raise InvalidInput(f"`{_name(path)}` is compared character by character: give it in Unicode's form NFC.", path)
    return value


def check_email(value: str, path: Path) -> str:
    """The address of one mailbox."""
    text = check_text(value, path, at_most=MAX_EMAIL)
    if not _EMAIL.fullmatch(text):
        raise InvalidInput(f"`{_name(path)}` is one address such as billing@example.com.", path)
    return text


def check_currency(value: str | None, path: Path) -> str:
    """A currency by ISO 4217, whether or not something is sold in it."""
    given = require_given(value, path)
    try:
        exponent_of(given)
    except ValueError as error:
        raise InvalidInput(f"`{path[-1]}` is a currency by ISO 4217 in capitals, such as USD.", path) from error
    return given


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_PLACES)


def check_timezone(value: str | None, path: Path) -> str:
    """An IANA time zone."""
    given = require_given(value, path)
    if given not in _zones():
        raise InvalidInput(f"`{path[-1]}` is an IANA time zone such as Europe/Vienna.", path)
    return given


def check_locale(value: str | None, path: Path) -> str:
    """A language and region that texts can be formatted in, as a BCP 47 tag."""
    given = require_given(value, path)
    try:
        if len(given) > MAX_LOCALE or not _LOCALE.fullmatch(given):
            raise ValueError(given)
        return str(Locale.parse(given.replace("_", "-"), sep="-")).replace("_", "-")
    except (ValueError, UnknownLocaleError) as error:
        raise InvalidInput(f"`{path[-1]}` is a BCP 47 language tag such as en, de-AT or ja.", path) from error


def check_country(value: str | None, path: Path) -> str:
    """A country by ISO 3166-1."""
    given = require_given(value, path)
    if given not in COUNTRIES:
        raise InvalidInput(f"`{path[-1]}` is a country by ISO 3166-1 in two capitals, such as AT.", path)
    return given


def check_pairs(value: Any, path: Path) -> dict[str, str]:
    """The partner's own pairs of short texts."""
    given = require_given(value, path)
    if not isinstance(given, dict) or len(given) > MAX_PAIRS:
        raise InvalidInput(f"`{path[-1]}` is an object of at most {MAX_PAIRS} pairs.", path)
    for key, text in given.items():
        if not 1 <= len(key) <= MAX_PAIR_KEY or not key.isprintable():
            raise InvalidInput(f"The keys of `{path[-1]}` have 1 to {MAX_PAIR_KEY} printable characters.", path)
        if not isinstance(text, str) or len(text) > MAX_PAIR_VALUE or not _is_plain(text):
            raise InvalidInput(
                f"`{path[-1]}` has texts as values, of one line and at most {MAX_PAIR_VALUE} characters; "
                f"that of {key!r} is not one.",
                path,
            )
        refuse_card_number(key, path)
        refuse_card_number(text, path)
    return dict(given)


_DIGITS_IN_GROUPS = re.compile(r"\d+(?:[\W_]{1,5}\d+)*")
"""Digits with nothing between them but blanks of any kind, dots, dashes and the like."""
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14,17}"
    r"|(?:5[0678]|6[02345789])\d{14,17}|8[12]\d{14}"
)
"""What the networks' numbers begin with, and how long they are: dates and most ids are none."""
_HEX = re.compile(r"(?i)(?<![0-9a-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,})(?![0-9a-z])")
"""UUIDs and hashes: of a few hundred, one holds digits that would do for a card."""
MAX_CARD_DIGITS = 19


def refuse_card_number(value: str, path: Path) -> None:
    """Refuse text with what looks like a card's number, however it is grouped: it must never come here."""
    for found in _DIGITS_IN_GROUPS.finditer(_HEX.sub("x", normalize("NFKC", value))):
        groups = re.findall(r"\d+", found[0])
        if any(_holds_card(groups[start:]) for start in range(len(groups))):
            raise InvalidInput(
                f"`{_name(path)}` looks like a card number. Those must never be sent here: enter cards with the "
                "payment processor, and send the token that it gives.",
                path,
            )


def _holds_card(groups: Sequence[str]) -> bool:
    """Whether the first few groups of digits are a card's number, by beginning, length and check digit."""
    digits = ""
    for group in groups:
        digits += group
        if len(digits) > MAX_CARD_DIGITS:
            return False
        if _CARD.fullmatch(digits) and _has_check_digit([int(sign) for sign in digits]):
            return True
    return False


def _has_check_digit(digits: Sequence[int]) -> bool:
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_plain(text: str) -> bool:
    return not any(category(character) in _BREAKS or character in _TURNS_TEXT for character in text)


def _name(path: Path) -> str:
    """The field that a path ends in; of an item of a list, the list's with the index."""
    return ".".join(path[1:])
