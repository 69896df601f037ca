"""Which taxes a line bears, and what they come to. Rates are parts per million: 20 % is 200,000."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from .money import round_half_away

PPM = 1_000_000

NO_RULE = "No tax is registered for this country"
"""The reason on a line that no rule covered: operators should look."""

EU = frozenset(
    {"AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"}
    | {"IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"}
)
"""Countries of the EU's common system of VAT, by ISO 3166-1."""


@dataclass(frozen=True, order=True)
class TaxRate:
    """One tax on a line. Categories are EN 16931's: S standard, E exempt, AE reverse charge, O outside the scope."""

    jurisdiction: str
    category: str
    rate_ppm: int
    reason: str | None = None


@dataclass(frozen=True)
class TaxParty:
    """Where a seller or buyer is, and its VAT id if that is valid."""

    country: str
    region: str = ""
    vat_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the tax table: who levies what on which lines, from when until when (exclusive)."""

    country: str
    region: str = ""
    """Empty for the whole country."""
    jurisdiction: str
    line_kind: str | None = None
    """None for every kind."""
    category: str = "S"
    rate_ppm: int
    valid_from: date
    valid_to: date | None = None

    def holds(self, customer: TaxParty, line_kind: str, tax_date: date) -> bool:
        """Whether it applies to a line of a customer at a date."""
        return (
            self.country == customer.country
            and self.region in ("", customer.region)
            and self.line_kind in (None, line_kind)
            and self.valid_from <= tax_date
            and (self.valid_to is None or tax_date < self.valid_to)
        )


@dataclass(frozen=True)
class Exemption:
    """A certificate that frees a customer from tax, valid from and to (exclusive) dates."""

    reason: str
    valid_from: date
    valid_to: date | None = None

    def holds(self, tax_date: date) -> bool:
        """Whether it is valid at a date."""
        return self.valid_from <= tax_date and (self.valid_to is None or tax_date < self.valid_to)


@dataclass(frozen=True)
class TaxDecision:
    """The taxes of a line. `is_unknown` tells that no rule covered it, and operators should look."""

    rates: tuple[TaxRate, ...]
    is_unknown: bool = False


def decide_tax(
    issuer: TaxParty,
    customer: TaxParty,
    exemption: Exemption | None,
    line_kind: str,
    tax_date: date,
    table: Iterable[TableRow],
) -> TaxDecision:
    """The taxes of one line, by the order of the domain's §2: exemption, reverse charge, export, table, none."""
    if exemption is not None and exemption.holds(tax_date):
        return TaxDecision((TaxRate(customer.country, "E", 0, exemption.reason),))
    if issuer.country in EU and customer.country != issuer.country:
        if customer.country in EU and customer.vat_id:
            return TaxDecision((TaxRate(customer.country, "AE", 0, "Reverse charge"),))
        if customer.country not in EU:
            return TaxDecision((TaxRate(customer.country, "O", 0, "Outside the scope of VAT"),))
    rates = sorted(
        TaxRate(row.jurisdiction, row.category, row.rate_ppm)
        for row in table
        if row.holds(customer, line_kind, tax_date)
    )
    if rates:
        return TaxDecision(tuple(rates))
    return TaxDecision((TaxRate(customer.country, "O", 0, NO_RULE),), is_unknown=True)


@dataclass(frozen=True)
class TaxAmount:
    """The tax of one (jurisdiction, category, rate) of a document."""

    rate: TaxRate
    taxable_minor: int
    amount_minor: int


def compute_taxes(lines: Iterable[tuple[int, Sequence[TaxRate]]]) -> list[TaxAmount]:
    """Tax per (jurisdiction, category, rate) on the sum of the rounded lines, rounded once."""
    sums: dict[tuple[str, str, int], int] = {}
    reasons: dict[tuple[str, str, int], str | None] = {}
    for amount_minor, rates in lines:
        for rate in rates:
            key = (rate.jurisdiction, rate.category, rate.rate_ppm)
            sums[key] = sums.get(key, 0) + amount_minor
            reasons[key] = reasons.get(key) or rate.reason
    return [TaxAmount(TaxRate(*key, reasons[key]), sums[key], tax_on(sums[key], key[2])) for key in sorted(sums)]


def tax_on(taxable_minor: int, rate_ppm: int) -> int:
    """The tax on a sum, rounded half away from zero."""
    return round_half_away(taxable_minor * rate_ppm, PPM)


def credited_tax(net_before_minor: int, net_now_minor: int, tax_before_minor: int, rate_ppm: int) -> int:
    """The tax of the k-th credit: what all net credited so far bears, less the tax credited before."""
    return tax_on(net_before_minor + net_now_minor, rate_ppm) - tax_before_minor
