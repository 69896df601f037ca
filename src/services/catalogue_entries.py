"""The entries of a catalogue, from a file or a mutation, and what of them is checked without a database."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Self, TypeAlias, TypeVar
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from stdnum.eu import vat as eu_vat

from ..models import Interval, LineKind, MetricKind
from .dunning import Days
from .errors import BillingError, InvalidInput
from .rules.countries import COUNTRIES
from .rules.money import MAX_AMOUNT_MINOR, MAX_MINOR, exponent_of
from .rules.tax import EU

Locate: TypeAlias = Callable[[Sequence[str]], tuple[str, ...]]
"""Where a part of an entry stands in what the caller sent."""


def _check_key(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", text):
        raise ValueError("A key is up to 63 lower-case letters, digits and underscores, and starts with a letter.")
    return text


def _check_text(text: str) -> str:
    if not 1 <= len(text.strip()) <= 200 or not text.isprintable():
        raise ValueError("A text is 1 to 200 printable characters, on one line.")
    return text


def _check_currency(code: str) -> str:
    exponent_of(code)
    return code


def _check_country(code: str) -> str:
    if code not in COUNTRIES:
        raise ValueError("A country is two letters by ISO 3166-1, such as AT.")
    return code


def _check_region(code: str) -> str:
    if not re.fullmatch(r"[A-Z0-9]{0,3}", code):
        raise ValueError("A region is what follows the country in its ISO 3166-2 code, such as NY; empty for none.")
    return code


def _check_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("A time zone is one of the IANA database, such as Europe/Vienna.")
    return name


def _check_email(text: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text) or not text.isprintable() or len(text) > 254:
        raise ValueError("An email address looks like billing@example.com.")
    return text


def _read_limit(given: object) -> object:
    if given == "unlimited":
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= MAX_MINOR:
        raise ValueError(f"A limit is a whole number from 0 to {MAX_MINOR}, or unlimited.")
    return given


def _check_amount(given: object) -> object:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= MAX_AMOUNT_MINOR:
        raise ValueError(f"A price is a whole number of minor units, from 0 to {MAX_AMOUNT_MINOR}.")
    return given


def _check_rate(text: str) -> str:
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,20})?", text):
        raise ValueError('A rate is a number of percent as text, such as "20" or "8.875".')
    rate = Decimal(text)
    if not 0 <= rate <= 100:
        raise ValueError(f"A rate is from 0 to 100 percent, not {text}.")
    if rate.scaleb(4) % 1:
        raise ValueError("A rate has at most four decimals of a percent.")
    return text


def _check_category(code: str) -> str:
    if code not in ("S", "Z"):
        raise ValueError("A table's category is S (standard) or Z (zero rate): the others follow from who buys.")
    return code


Key = Annotated[str, AfterValidator(_check_key)]
Text = Annotated[str, AfterValidator(_check_text)]
CurrencyText = Annotated[str, AfterValidator(_check_currency)]
Country = Annotated[str, AfterValidator(_check_country)]
Region = Annotated[str, AfterValidator(_check_region)]
Amounts = dict[CurrencyText, Annotated[int, BeforeValidator(_check_amount)]]
"""An amount in minor units by currency."""
Limit = Annotated[int | None, BeforeValidator(_read_limit)]
"""How much is included; none is unlimited."""
Count = Annotated[int, Field(gt=0, le=MAX_MINOR, strict=True)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IssuerEntry(_Entry):
    """The seller."""

    key: Key
    legal_name: Text
    address_lines: Annotated[list[Text], Field(min_length=1, max_length=4)]
    postal_code: Text
    city: Text
    country: Country
    email: Annotated[str, AfterValidator(_check_email)]
    tax_ids: dict[Key, Text] = {}
    bank_details: dict[Key, Text] = {}
    timezone: Annotated[str, AfterValidator(_check_zone)]
    retention_years: Annotated[int, Field(ge=7, le=100, strict=True)] = 7
    draft_minutes: Annotated[int, Field(ge=0, le=10_080, strict=True)] = 60
    """How long an invoice waits for late usage before it is finalised."""

    @model_validator(mode="after")
    def check_vat_id(self) -> Self:
        """A wrong VAT id would stand on every invoice."""
        vat_id = self.tax_ids.get("vat")
        prefix = "EL" if self.country == "GR" else self.country
        if vat_id and self.country in EU and not (vat_id.startswith(prefix) and eu_vat.is_valid(vat_id)):
            raise ValueError(f"{vat_id} is not a valid VAT id of {self.country}.")
        return self


class OverageEntry(_Entry):
    """What overage of a metric costs: a price per started block."""

    block: Count
    prices: Amounts


class MetricEntry(_Entry):
    """A metric."""

    key: Key
    name: Text
    kind: MetricKind
    unit: Text
    overage: OverageEntry | None = None


class DunningEntry(_Entry):
    """What follows an unpaid invoice: on which days of 24 hours, counted from when its payment failed first.

    `cancel_day` comes first, since the others are held against it.
    """

    cancel_day: Annotated[int, Field(ge=1, le=90, strict=True)] = Days.cancel
    """The day of a last try; unpaid after it, the subscription ends."""
    suspend_day: Annotated[int, Field(ge=1, strict=True, validate_default=True)] = Days.suspend
    retry_days: Annotated[
        list[Annotated[int, Field(ge=1, strict=True)]], Field(max_length=10, validate_default=True)
    ] = list(Days.retry)
    """The days of the tries before it."""

    @field_validator("suspend_day")
    @classmethod
    def check_suspend_day(cls, day: int, info: ValidationInfo) -> int:
        """Suspending comes before cancelling, or on its day."""
        cls._check_day(day, info)
        return day

    @field_validator("retry_days")
    @classmethod
    def check_retry_days(cls, days: list[int], info: ValidationInfo) -> list[int]:
        """Tries follow each other, and none comes after the last one."""
        if days != sorted(set(days)):
            raise ValueError("The days of tries rise: each is there once, after those before it.")
        for day in days[-1:]:
            cls._check_day(day, info)
        return days

    @staticmethod
    def _check_day(day: int, info: ValidationInfo) -> None:
        last = info.data.get("cancel_day", day)  # a wrong one is told by itself
        if day > last:
            raise ValueError(f"Day {day} comes too late: on day {last} the subscription is cancelled.")

    def to_stored(self) -> dict[str, Any]:
        """As a plan's version keeps it."""
        return {"retryDays": self.retry_days, "suspendDay": self.suspend_day, "cancelDay": self.cancel_day}


class PlanEntry(_Entry):
    """A plan. Without prices it is negotiated."""

    key: Key
    name: Text
    tier: Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
    version: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = 1
    """None takes the next number where something differs."""
    features: Annotated[list[Text], Field(max_length=50)] = []
    limits: dict[Key, Limit]
    month: Amounts = {}
    year: Amounts = {}
    dunning: DunningEntry | None = None
    """None is the default."""
    private_to: Text | None = None
    """The external id of the one account it was negotiated with."""
    archived: bool | None = None
    """None leaves it as it is."""

    def prices(self) -> dict[tuple[Interval, str], int]:
        """The amounts by interval and currency."""
        by_interval = {Interval.MONTH: self.month, Interval.YEAR: self.year}
        return {
            (interval, currency): amount
            for interval, amounts in by_interval.items()
            for currency, amount in amounts.items()
        }


class AddOnEntry(_Entry):
    """An add-on."""

    key: Key
    name: Text
    metric: Key | None = None
    gives: Annotated[int, Field(ge=0, le=MAX_MINOR, strict=True)] = 0
    plans: list[Key]
    month: Amounts

    @model_validator(mode="after")
    def check_what_it_gives(self) -> Self:
        """A metric and how much of it belong together."""
        if (self.metric is None) != (self.gives == 0):
            raise ValueError("`metric` and `gives` belong together: name both, or neither.")
        return self


class TaxEntry(_Entry):
    """A row of the tax table."""

    country: Country
    region: Region = ""
    jurisdiction: Text | None = None
    """None names the country, or country-region."""
    kind: LineKind | None = None
    category: Annotated[str, AfterValidator(_check_category)] = "S"
    rate: Annotated[str, AfterValidator(_check_rate)]
    """In percent."""
    valid_from: Annotated[date, Field(strict=True)]
    valid_to: Annotated[date, Field(strict=True)] | None = None
    """Exclusive."""

    @model_validator(mode="after")
    def check_consistency(self) -> Self:
        """It ends after it begins, and a zero rate is zero."""
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise ValueError("A row ends on the first day on which it no longer holds, which lies after its first day.")
        if self.category == "Z" and self.rate_ppm:
            raise ValueError("Category Z is the zero rate: the rate is 0.")
        return self

    @property
    def levied_by(self) -> str:
        """Who levies it."""
        return self.jurisdiction or "-".join(filter(None, (self.country, self.region)))

    @property
    def rate_ppm(self) -> int:
        """The rate in parts per million, exactly."""
        return int(Decimal(self.rate).scaleb(4))


EntryT = TypeVar("EntryT", bound=_Entry)


def read_entry(model: type[EntryT], given: object, at: Locate) -> tuple[EntryT | None, list[BillingError]]:
    """An entry from what was sent, or everything that is wrong with it."""
    if not isinstance(given, Mapping):
        return None, [InvalidInput("A table of names and values is wanted here.", at(()))]
    try:
        return model.model_validate(given), []
    except ValidationError as error:
        return None, [
            InvalidInput(
                _words(fault["type"], fault["msg"], fault.get("ctx", {})),
                at([str(part) for part in _path(fault["loc"])]),
            )
            for fault in error.errors(include_url=False)
        ]


def _path(loc: Sequence[Any]) -> Sequence[Any]:
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


_WORDS = {
    "missing": "This is missing.",
    "model_type": "A table of names and values is wanted here.",
    "dict_type": "A table of names and values is wanted here.",
    "list_type": "A list is wanted here.",
    "string_type": "A text in quotes is wanted here.",
    "int_type": "A whole number is wanted here.",
    "bool_type": "Either true or false is wanted here.",
    "date_type": "A calendar day such as 2026-03-01, without quotes, is wanted here.",
    "enum": "This is one of {expected}.",
    "greater_than": "This is a whole number above {gt}.",
    "greater_than_equal": "This is a whole number, {ge} or more.",
    "less_than_equal": "This is a whole number, {le} or less.",
    "too_short": "There has to be at least {min_length} here.",
    "too_long": "There are at most {max_length} here.",
    "extra_forbidden": "This name is not known here: check its spelling.",
}
"""The words for what the shape of an entry is wrong by; they fit a file and a mutation."""


def _words(kind: str, message: str, figures: Mapping[str, Any]) -> str:
    if kind in _WORDS:
        return _WORDS[kind].format_map(figures)
    words = message.removeprefix("Value error, ").replace("Input should", "It should", 1)
    return words if words.endswith(".") else f"{words}."
