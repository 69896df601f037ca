"""What a document shows, frozen when it is issued: all of a page is made from this and nothing else."""

import hashlib
from collections import defaultdict
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..models import Granularity
from .rules.money import exponent_of


class PaperKind(StrEnum):
    """What a document is."""

    INVOICE = "INVOICE"
    CREDIT_NOTE = "CREDIT_NOTE"
    RECEIPT = "RECEIPT"
    REFUND_RECEIPT = "REFUND_RECEIPT"
    USAGE_REPORT = "USAGE_REPORT"


class PaperSize(StrEnum):
    """The sheet that a document is laid out for."""

    A4 = "A4"
    LETTER = "LETTER"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """The hex SHA-256 of the content: what is frozen cannot change unseen."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Party(_Frozen):
    """The seller or the buyer, as they stood when the document was issued."""

    name: str
    address_lines: tuple[str, ...] = ()
    postal_code: str = ""
    city: str = ""
    region: str = ""
    country: str
    """ISO 3166-1 alpha-2."""
    vat_id: str | None = None
    tax_ids: tuple[tuple[str, str], ...] = ()
    """Other tax ids, as (label, id)."""
    email: str | None = None


class Bank(_Frozen):
    """Where a transfer goes."""

    holder: str
    iban: str = ""
    bic: str = ""
    name: str = ""


class PaperLine(_Frozen):
    """One line. Amounts are minor units, net; of a credit negative on an invoice, and positive on a credit note."""

    position: int
    description: str
    """In the document's language."""
    quantity: int
    unit_minor: int
    amount_minor: int
    starts_on: date
    ends_on: date
    """The last day of the period, inclusive."""
    tax_category: str
    tax_rate_ppm: int
    """The sum of the line's rates, in parts per million: 20 % is 200,000."""
    credited_number: str | None = None
    """The number of the invoice whose line this one credits."""


class PaperTax(_Frozen):
    """The tax of one (jurisdiction, category, rate)."""

    jurisdiction: str
    category: str
    """EN 16931: S standard, E exempt, AE reverse charge, O outside the scope."""
    rate_ppm: int
    taxable_minor: int
    amount_minor: int
    reason: str | None = None


class Paper(_Frozen):
    """An invoice or credit note as it is printed. `total = subtotal + tax`; `due = total + carried in − balance`."""

    kind: Literal[PaperKind.INVOICE, PaperKind.CREDIT_NOTE]
    number: str
    language: str
    """Of the texts: en, de, fr, es, nl or ja."""
    locale: str
    """Of figures and dates, such as de-AT."""
    size: PaperSize
    currency: str
    issued_on: date
    due_on: date | None
    starts_on: date
    ends_on: date
    issuer: Party
    issuer_bank: Bank | None = None
    bill_to: Party
    lines: tuple[PaperLine, ...]
    taxes: tuple[PaperTax, ...]
    subtotal_minor: int
    tax_minor: int
    total_minor: int
    carried_in_minor: int = 0
    """Owed from earlier invoices that were too small to charge."""
    balance_applied_minor: int = 0
    """Paid from the credit balance."""
    due_minor: int
    pays_by: str | None = None
    """How it is collected, such as `visa 4242`; none where it is paid by transfer."""
    net_days: int | None = None
    """The days to pay by transfer; none where it is charged at once."""
    corrected_number: str | None = None
    """Of a credit note: the invoice that it corrects."""
    corrected_on: date | None = None
    purchase_order: str | None = None
    footer: str | None = None

    @property
    def why_no_xml(self) -> str | None:
        """Why no EN 16931 XML is embedded; none where it is."""
        if self.issuer.vat_id is None or exponent_of(self.currency) > 2:
            return "the issuer has no VAT id, or the currency has more than two decimals"
        lines: dict[tuple[str, int], int] = defaultdict(int)
        rows: dict[tuple[str, int], int] = defaultdict(int)
        for line in self.lines:
            lines[line.tax_category, line.tax_rate_ppm] += line.amount_minor
        for row in self.taxes:
            rows[row.category, row.rate_ppm] += row.taxable_minor
        if any(lines[key] != rows[key] for key in {*lines, *rows}):
            return "a line bears several taxes at once, and EN 16931 knows one rate per line"
        categories = {category for category, _ in rows}
        if "O" in categories and len(categories) > 1:
            return "a line outside the scope stands beside a taxed one"
        if "AE" in categories and self.bill_to.vat_id is None:
            return "a reverse charge needs the buyer's VAT id"
        return None


class Receipt(_Frozen):
    """A receipt as it is printed: that money came or went back. What was sold for it, and its tax, the invoice says."""

    kind: Literal[PaperKind.RECEIPT, PaperKind.REFUND_RECEIPT]
    number: str
    language: str
    """Of the texts: en, de, fr, es, nl or ja."""
    locale: str
    """Of figures and dates, such as de-AT."""
    size: PaperSize
    currency: str
    issued_on: date
    """The day on which it went through."""
    issuer: Party
    bill_to: Party
    """Who paid, or was paid back."""
    invoice_number: str | None = None
    """What was paid; none where the money was for nothing that came about."""
    amount_minor: int
    """Always positive."""
    pays_by: str | None = None
    """The card it went through, such as `visa 4242`; none of a transfer."""
    reference: str | None = None
    """What the bank says of a transfer."""
    footer: str | None = None

    @property
    def why_no_xml(self) -> str:
        """Why no EN 16931 XML is embedded."""
        return "a receipt is no invoice"


class ReportPeriod(_Frozen):
    """How a counter came out in one usage period."""

    starts_on: date
    ends_on: date
    """The last day of the period, inclusive."""
    used: int
    limit: int | None
    """None is unlimited, or not known."""
    knows_limit: bool
    """Whether the limit of that time is known: that of a period that closed without a plan is not."""
    is_running: bool


class ReportMetric(_Frozen):
    """One metric of a usage report."""

    name: str
    unit: str
    is_gauge: bool
    quantities: tuple[int, ...]
    """Of a counter what was added in each bucket, of a gauge the level at its end."""
    limit: int | None
    """The limit in force as the report is made; none is unlimited."""
    periods: tuple[ReportPeriod, ...] = ()
    """Of a counter the usage periods in the range, the first one first."""


class UsageReport(_Frozen):
    """A usage report as it is printed."""

    kind: Literal[PaperKind.USAGE_REPORT]
    number: str
    """What its file is called by."""
    language: str
    """Of the texts: en, de, fr, es, nl or ja."""
    locale: str
    """Of figures and dates, such as de-AT."""
    size: PaperSize
    issued_on: date
    issuer: Party
    bill_to: Party
    """Whose usage it is."""
    account_name: str
    zone: str
    granularity: Granularity
    starts: tuple[datetime, ...]
    """Where each bucket begins, with the offset of the account's zone."""
    starts_on: date
    ends_on: date
    """The last day, inclusive."""
    metrics: tuple[ReportMetric, ...]
    footer: str | None = None

    @property
    def why_no_xml(self) -> str:
        """Why no EN 16931 XML is embedded."""
        return "a report is no invoice"


Content: TypeAlias = Paper | Receipt | UsageReport
"""What a document shows."""
_CONTENTS: TypeAdapter[Content] = TypeAdapter(Annotated[Content, Field(discriminator="kind")])


def read_content(stored: object) -> Content:
    """What a document shows, from how it is stored. Refuses with `ValueError` what nothing was frozen as."""
    return _CONTENTS.validate_python(stored)


def parse_content(text: str) -> Content:
    """The same from its JSON."""
    return _CONTENTS.validate_json(text)
