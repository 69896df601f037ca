"""Bills: lines with their taxes, and how they become documents. Pure: what a preview shows is what is issued."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from ..models import LineKind
from .rules.explanation import Basis, reckon
from .rules.periods import Period
from .rules.tax import TaxAmount, TaxRate, compute_taxes
from .wording import describe_line

OUTSIDE = "O"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Credited(_Frozen):
    """The line that a credit takes from."""

    line_id: UUID
    invoice_id: UUID
    invoice_number: str


class BillLine(_Frozen):
    """A line to be: what it is for, and the basis that its amount is reckoned from."""

    kind: LineKind
    wording: str
    """What `describe_line` words it by."""
    facts: dict[str, Any]
    basis: Basis
    start: datetime
    end: datetime
    tax_country: str
    taxes: tuple[TaxRate, ...]
    metric_key: str | None = None
    plan_key: str | None = None
    add_on_key: str | None = None
    credited: Credited | None = None
    usage_periods: int = 1
    """How many usage periods it touches: in each an equal part of it is spent."""

    @property
    def period(self) -> Period:
        """What it is for the time of."""
        return Period(self.start, self.end)

    @property
    def amount_minor(self) -> int:
        """Net; below 0 for a credit."""
        return reckon(self.basis)

    @property
    def quantity(self) -> int:
        """With `unit_minor` it multiplies to the amount: credits are −1 at a positive price."""
        if self.basis["rule"] == "price":
            return int(self.basis["quantity"])
        if self._is_in_blocks:
            return self.amount_minor // int(self.basis["price"])
        return 1 if self.amount_minor >= 0 else -1

    @property
    def unit_minor(self) -> int:
        """The price of one."""
        if self.basis["rule"] == "price" or self._is_in_blocks:
            return int(self.basis["price"])
        return abs(self.amount_minor)

    @property
    def _is_in_blocks(self) -> bool:
        """Whether it comes to whole blocks of usage, as all overage does, and a correction unless it was cut."""
        if self.basis["rule"] == "overage":
            return True
        return self.basis["rule"] == "correction" and self.amount_minor % int(self.basis["price"]) == 0

    def describe(self, language: str) -> str:
        """What it says, in a language."""
        facts = dict(self.facts)
        for key in ("start", "end"):
            if key in facts:
                facts[key] = date.fromisoformat(facts[key])
        if self.basis["rule"] == "overage":
            facts["blocks"] = self.quantity
        return describe_line(self.wording, language, **facts)


class Bill(_Frozen):
    """What is charged and credited together. Lines of 0 are left out."""

    currency: str
    lines: tuple[BillLine, ...]

    @classmethod
    def of(cls, currency: str, lines: Iterable[BillLine]) -> "Bill":
        """A bill of the lines that are not 0."""
        return cls(currency=currency, lines=tuple(line for line in lines if line.amount_minor))


class CreditDraft(_Frozen):
    """A credit note to be: of one invoice."""

    invoice_id: UUID
    lines: tuple[BillLine, ...]


class Split(_Frozen):
    """A bill as documents: credit notes first, then the invoice with the lines that are left (none: no invoice)."""

    credit_notes: tuple[CreditDraft, ...]
    invoice: tuple[BillLine, ...]


def taxes_of(lines: Iterable[BillLine]) -> list[TaxAmount]:
    """The tax rows of lines on one document."""
    return compute_taxes((line.amount_minor, line.taxes) for line in lines)


def subtotal_of(lines: Iterable[BillLine]) -> int:
    """The sum of lines, net."""
    return sum(line.amount_minor for line in lines)


def total_of(lines: Sequence[BillLine]) -> int:
    """The sum of lines with their taxes."""
    return subtotal_of(lines) + sum(tax.amount_minor for tax in taxes_of(lines))


def split_bill(bill: Bill) -> Split:
    """Which lines go onto the invoice, and which become credit notes.

    A document has one tax country, and `O` stands beside no other category: credits that differ from the charges
    become credit notes. So do all, where they exceed the charges: no invoice has a negative total.
    """
    charges = [line for line in bill.lines if line.amount_minor > 0]
    given = [line for line in bill.lines if line.amount_minor < 0]
    fitting = [line for line in given if charges and _side(line) == _side(charges[0])]
    if total_of([*charges, *fitting]) < 0:
        fitting = []
    kept = set(map(id, fitting))
    noted: dict[UUID, list[BillLine]] = defaultdict(list)
    for line in given:
        if id(line) not in kept:
            assert line.credited is not None, "a credit names the line it credits"
            noted[line.credited.invoice_id].append(line)
    on_invoice = tuple(line for line in bill.lines if line.amount_minor > 0 or id(line) in kept)
    return Split(
        credit_notes=tuple(CreditDraft(invoice_id=key, lines=tuple(lines)) for key, lines in noted.items()),
        invoice=on_invoice,
    )


def _side(line: BillLine) -> tuple[str, bool]:
    return line.tax_country, line.taxes[0].category == OUTSIDE
