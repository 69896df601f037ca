"""Changing the catalogue and the tax table."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import strawberry

from .. import models
from ..services.errors import BillingError, InvalidInput, Refusals
from ..services.tax_tables import format_rate
from .billing import Metric, Plan
from .enums import Interval, LineKind, MetricKind
from .errors import UserError
from .fields import once_key, said
from .node import NOBODY, key_of
from .scalars import BigInt

KEY = "Happens once under it, and its first answer is given again for 48 hours."


def _errors() -> Any:
    return strawberry.field(default_factory=list, description="Why it was refused; empty when it was not.")


@strawberry.input(description="How much of a metric a plan includes. Either `limit` or `unlimited`.")
class PlanLimitInput:
    """A limit."""

    metric_key: str = said("Which metric.")
    limit: BigInt | None = strawberry.field(default=None, description="How much is included.")
    unlimited: bool = strawberry.field(default=False, description="True instead of a limit: there is none.")


@strawberry.input(description="A price of a plan, net of tax.")
class PlanPriceInput:
    """A price."""

    interval: Interval = said("How often it is due.")
    currency: str = said("The currency, by ISO 4217.")
    amount_minor: BigInt = said("What is due each time, in the currency's minor unit.")


@strawberry.input(description="What follows an unpaid invoice, on days of 24 hours from when its payment failed first.")
class DunningDaysInput:
    """Days of dunning."""

    retry_days: list[int] | None = strawberry.field(
        default=None, description="When its payment is tried again: up to 10 days, ascending. 3, 5, 7 when left out."
    )
    suspend_day: int | None = strawberry.field(
        default=None, description="When, still unpaid, the account is suspended. 7 when left out."
    )
    cancel_day: int | None = strawberry.field(
        default=None,
        description="When it is tried for the last time, and else the subscription ends: 1 to 90, 14 when left out.",
    )

    def to_given(self) -> dict[str, object]:
        """As the services read it."""
        days = {"retry_days": self.retry_days, "suspend_day": self.suspend_day, "cancel_day": self.cancel_day}
        return {name: value for name, value in days.items() if value is not None}


@strawberry.input(description="A plan as it shall be offered.")
class PublishPlanInput:
    """A plan."""

    key: str = said("The plan's key: a new one makes a plan, a known one its next version.")
    name: str = said("For people to read.")
    tier: int = said("The order of plans: a higher tier is an upgrade. It never changes.")
    limits: list[PlanLimitInput] = said("One for every metric.")
    features: list[str] = strawberry.field(default_factory=list, description="What comes with it, for people to read.")
    prices: list[PlanPriceInput] = strawberry.field(
        default_factory=list, description="One for each interval and currency that it is sold in; none when negotiated."
    )
    dunning: DunningDaysInput | None = strawberry.field(
        default=None, description="The days that follow an unpaid invoice; the default when left out."
    )
    private_to_account_id: strawberry.ID | None = strawberry.field(
        default=None, description="The one account it was negotiated with; public when left out. It never changes."
    )
    idempotency_key: str | None = once_key()

    def to_given(self) -> dict[str, object]:
        """As the services read it; refused where two items say something of one thing."""
        faults: list[BillingError] = []
        limits: dict[str, object] = {}
        for place, item in enumerate(self.limits):
            at = ["input", "limits", str(place)]
            if item.metric_key in limits:
                faults.append(InvalidInput(f"The limit of {item.metric_key} is there twice.", [*at, "metricKey"]))
            if (item.limit is None) is not item.unlimited:
                faults.append(InvalidInput("Give either `limit` or `unlimited: true`.", at))
            limits[item.metric_key] = "unlimited" if item.limit is None else item.limit
        amounts: dict[Interval, dict[str, int]] = {Interval.MONTH: {}, Interval.YEAR: {}}
        for place, price in enumerate(self.prices):
            if price.currency in amounts[price.interval]:
                faults.append(
                    InvalidInput(
                        f"The price in {price.currency} per {price.interval.lower()} is there twice.",
                        ["input", "prices", str(place)],
                    )
                )
            amounts[price.interval][price.currency] = price.amount_minor
        if faults:
            raise Refusals(faults)
        return {
            "key": self.key,
            "name": self.name,
            "tier": self.tier,
            "features": self.features,
            "limits": limits,
            "month": amounts[Interval.MONTH],
            "year": amounts[Interval.YEAR],
            "dunning": None if self.dunning is None else self.dunning.to_given(),
        }

    def account_id(self) -> UUID | None:
        """Whose plan it is; a broken id names no account."""
        if self.private_to_account_id is None:
            return None
        return key_of(self.private_to_account_id, "BillingAccount") or NOBODY

    def place(self, path: Sequence[str]) -> tuple[str, ...]:
        """Where in the input a part of the plan stands."""
        match list(path):
            case ["limits", key, *_]:
                places = [str(place) for place, item in enumerate(self.limits) if item.metric_key == key]
                return ("input", "limits", *places[:1])
            case ["month" | "year" as interval, *rest]:
                places = [
                    str(place)
                    for place, price in enumerate(self.prices)
                    if [price.currency] == rest[:1] and price.interval.lower() == interval
                ]
                return ("input", "prices", *places[:1])
            case ["dunning", name, *rest]:
                names = {"retry_days": "retryDays", "suspend_day": "suspendDay", "cancel_day": "cancelDay"}
                return ("input", "dunning", names.get(name, name), *rest)
            case ["private_to", *_]:
                return ("input", "privateToAccountId")
            case rest:
                return ("input", *rest)


@strawberry.type(description="What became of publishing a plan.")
class PublishPlanPayload:
    """The answer."""

    plan: Plan | None = strawberry.field(
        default=None, description="The plan in its newest version: a new one only where something differed."
    )
    user_errors: list[UserError] = _errors()


@strawberry.input(description="Which plan to take off the offer.")
class ArchivePlanInput:
    """A plan."""

    key: str = said("The plan's key.")
    idempotency_key: str | None = once_key()


@strawberry.type(description="What became of archiving a plan.")
class ArchivePlanPayload:
    """The answer."""

    plan: Plan | None = strawberry.field(default=None, description="The plan that is no longer offered.")
    user_errors: list[UserError] = _errors()


@strawberry.input(description="A price of a block of overage.")
class OveragePriceInput:
    """A price."""

    currency: str = said("The currency, by ISO 4217.")
    amount_minor: BigInt = said("What a started block costs, net, in the currency's minor unit.")


@strawberry.input(description="What overage of a metric costs.")
class MetricOverageInput:
    """What overage costs."""

    block: BigInt = said("How many units one price covers.")
    prices: list[OveragePriceInput] = said("One for each currency that overage is sold in.")


@strawberry.input(description="A metric as it shall be.")
class SetMetricInput:
    """A metric."""

    key: str = said("The name in usage events: a new one makes a metric, a known one changes it.")
    name: str = said("For people to read.")
    kind: MetricKind = said("Whether it adds up per period or is a level. It never changes.")
    unit: str = said("What one is called, such as email or seat.")
    overage: MetricOverageInput | None = strawberry.field(
        default=None, description="What overage costs from the next close on; left out, none is sold."
    )
    idempotency_key: str | None = once_key()

    def to_given(self) -> dict[str, object]:
        """As the services read it; refused where two prices are in one currency."""
        given: dict[str, object] = {"key": self.key, "name": self.name, "kind": self.kind, "unit": self.unit}
        if self.overage is None:
            return given
        currencies = [price.currency for price in self.overage.prices]
        faults = [
            InvalidInput(f"The price in {currency} is there twice.", ["input", "overage", "prices", str(place)])
            for place, currency in enumerate(currencies)
            if currency in currencies[:place]
        ]
        if faults:
            raise Refusals(faults)
        prices = {price.currency: price.amount_minor for price in self.overage.prices}
        return given | {"overage": {"block": self.overage.block, "prices": prices}}

    def place(self, path: Sequence[str]) -> tuple[str, ...]:
        """Where in the input a part of the metric stands."""
        match list(path):
            case ["overage", "prices", currency, *_] if self.overage is not None:
                places = [str(place) for place, item in enumerate(self.overage.prices) if item.currency == currency]
                return ("input", "overage", "prices", *places[:1])
            case rest:
                return ("input", *rest)


@strawberry.type(description="What became of setting a metric.")
class SetMetricPayload:
    """The answer."""

    metric: Metric | None = strawberry.field(default=None, description="The metric as it is now.")
    user_errors: list[UserError] = _errors()


@strawberry.input(description="A row of the tax table.")
class TaxTableRowInput:
    """A row."""

    country: str = said("Of which customers' lines: their country, by ISO 3166-1.")
    rate: str = said('In percent, as text with at most four decimals: "20", "8.875".')
    valid_from: date = said("The first tax date that it holds for.")
    region: str = strawberry.field(
        default="", description="Only in this region, by what follows the country in its ISO 3166-2 code."
    )
    jurisdiction: str | None = strawberry.field(
        default=None,
        description="Who levies it, as it stands on invoices; the country, or country-region, if left out.",
    )
    line_kind: LineKind | None = strawberry.field(
        default=None, description="Only on lines of this kind; on all when left out."
    )
    category: str = strawberry.field(default="S", description="S for the standard category, Z for the zero rate.")
    valid_to: date | None = strawberry.field(
        default=None, description="The first tax date that it no longer holds for; open when left out."
    )

    def to_given(self) -> dict[str, object]:
        """As the services read it."""
        return {
            "country": self.country,
            "region": self.region,
            "jurisdiction": self.jurisdiction,
            "kind": self.line_kind,
            "category": self.category,
            "rate": self.rate,
            "valid_from": self.valid_from,
            "valid_to": self.valid_to,
        }


@strawberry.input(description="The whole tax table: it replaces the one before.")
class SetTaxTableInput:
    """A table."""

    rows: list[TaxTableRowInput] = said("At most 2,000 rows. No jurisdiction levies twice on one line.")
    idempotency_key: str | None = once_key()

    def place(self, path: Sequence[str]) -> tuple[str, ...]:
        """Where in the input a part of the table stands."""
        names = {"kind": "lineKind", "valid_from": "validFrom", "valid_to": "validTo"}
        return ("input", "rows", *(names.get(part, part) for part in path))


@strawberry.type(description="Who levies what on the lines of customers of a country or region, from when until when.")
class TaxTableRow:
    """A row of the tax table."""

    country: str = said("The customers' country, by ISO 3166-1.")
    region: str = said("Their region, by what follows the country in its ISO 3166-2 code; empty for the whole country.")
    jurisdiction: str = said("Who levies it, as it stands on invoices.")
    line_kind: LineKind | None = said("The only kind of lines it holds for; null for all.")
    category: str = said("The category of EN 16931: S is the standard one, Z the zero rate.")
    rate: Decimal = said("In percent, exactly.")
    valid_from: date = said("The first tax date that it holds for.")
    valid_to: date | None = said("The first tax date that it no longer holds for; null while open.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.TaxTableRow) -> Self:
        """A row as it is shown."""
        return cls(
            country=row.country,
            region=row.region,
            jurisdiction=row.jurisdiction,
            line_kind=None if row.line_kind is None else LineKind(row.line_kind),
            category=row.category,
            rate=Decimal(format_rate(row.rate_ppm)),
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="What became of setting the tax table.")
class SetTaxTablePayload:
    """The answer."""

    tax_table: list[TaxTableRow] | None = strawberry.field(default=None, description="The table as it is now.")
    user_errors: list[UserError] = _errors()
