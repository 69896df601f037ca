"""What may go back of a charge, and how an amount with tax in it is split over lines and rates. All in minor units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from typing import TypeVar

from .money import round_half_away, share_of, split_by
from .periods import Period
from .proration import seconds_between
from .tax import PPM, TaxAmount, TaxRate, tax_on

K = TypeVar("K")

GOODWILL_FOR = timedelta(days=7)
"""How old a charge may be for a goodwill refund."""


class RefundCode(StrEnum):
    """What the rules say of a refund."""

    ALLOWED = "ALLOWED"
    NOT_REFUNDABLE = "NOT_REFUNDABLE"
    NOTHING_LEFT = "NOTHING_LEFT"
    DISPUTED = "DISPUTED"
    NOT_A_DUPLICATE = "NOT_A_DUPLICATE"
    NO_SUCH_LINES = "NO_SUCH_LINES"
    NO_SUCH_TIME = "NO_SUCH_TIME"
    ANNUAL_PLAN = "ANNUAL_PLAN"
    TOO_OLD = "TOO_OLD"
    ABOVE_MAXIMUM = "ABOVE_MAXIMUM"


@dataclass(frozen=True)
class OpenLine:
    """A line of an invoice that charges something, net of tax."""

    net_minor: int
    """What it charges, less what lines of later invoices credited of it."""
    rest_minor: int
    """What of that credit notes have left."""
    taxes: tuple[TaxRate, ...]
    period: Period

    @property
    def rate_ppm(self) -> int:
        """The sum of its rates."""
        return sum(rate.rate_ppm for rate in self.taxes)


def open_gross(lines: Mapping[K, OpenLine], credited_tax: Mapping[TaxRate, int]) -> dict[K, int]:
    """What of each line is not credited yet, with its tax: the tax of a rate is that of the sum of its lines.

    `credited_tax` is the tax that credit notes of the invoice took back so far.
    """
    gross = {key: line.rest_minor for key, line in lines.items()}
    for rate, keys in _by_rate(lines).items():
        rests = [lines[key].rest_minor for key in keys]
        if not any(rests):
            continue
        for key, tax in zip(keys, split_by(_open_tax(lines, keys, rate, credited_tax), rests), strict=True):
            gross[key] += tax
    return gross


def share_of_time(gross_minor: int, line: Period, start_end: Period) -> int:
    """The part of a line's gross for the time that both have in common, by real seconds, rounded once."""
    start, end = max(line.start, start_end.start), min(line.end, start_end.end)
    if end <= start:
        return 0
    return share_of(gross_minor, seconds_between(start, end), seconds_between(line.start, line.end))


def spread(amount_minor: int, eligible: Mapping[K, int]) -> dict[K, int]:
    """An amount over lines in proportion to what is eligible of each, by largest remainder."""
    keys = [key for key, eligible_minor in eligible.items() if eligible_minor > 0]
    shares = split_by(amount_minor, [eligible[key] for key in keys]) if keys else []
    return {key: share for key, share in zip(keys, shares, strict=True) if share}


def split_gross(
    gross: Mapping[K, int], lines: Mapping[K, OpenLine], credited_tax: Mapping[TaxRate, int]
) -> tuple[dict[K, int], list[TaxAmount]]:
    """Net of each line, and tax of each rate, of an amount with tax in it.

    Tax per rate is the rounded tax share of all gross credited so far, less the tax credited before; net is the rest
    (the domain's §8). So parts that come to the whole return its tax exactly.
    """
    wanted = {key: amount for key, amount in gross.items() if amount}
    whole = open_gross(lines, credited_tax)
    taxes: dict[TaxRate, int] = {}
    nets = dict(wanted)
    if wanted == {key: amount for key, amount in whole.items() if amount}:
        nets = {key: line.rest_minor for key, line in lines.items() if line.rest_minor}
        return nets, _amounts(
            nets,
            {
                rate: _open_tax(lines, keys, rate, credited_tax)
                for rate, keys in _by_rate(lines).items()
                if any(key in nets for key in keys)
            },
            lines,
        )
    for rate, keys in _by_rate(lines).items():
        touched = [key for key in keys if key in wanted]
        if not touched:
            continue
        left = _open_tax(lines, keys, rate, credited_tax)
        if all(wanted.get(key, 0) >= whole[key] for key in keys):
            tax = left  # with the last part all of it is back
        else:
            share = _tax_share(wanted, lines, keys, rate, credited_tax) - credited_tax.get(rate, 0)
            tax = min(max(0, share), left, sum(wanted[key] for key in touched))
        taxes[rate] = tax
        for key, part in zip(touched, split_by(tax, [wanted[key] for key in touched]), strict=True):
            nets[key] -= part
    nets = _within_rests(nets, lines)
    _even_out(nets, taxes, lines, credited_tax)
    nets = {key: net for key, net in nets.items() if net}
    return nets, _amounts(nets, taxes, lines)


def _even_out(
    nets: dict[K, int], taxes: dict[TaxRate, int], lines: Mapping[K, OpenLine], credited_tax: Mapping[TaxRate, int]
) -> None:
    """What no line can even out by rounding is the tax's. No tax is left where nothing is left that bears it."""
    by_rate, touched = _by_rate(lines), list(nets)
    for key in touched:
        for rate in lines[key].taxes:
            left = _open_tax(lines, by_rate[rate], rate, credited_tax) - taxes[rate]
            given = max(0, min(nets[key] - lines[key].rest_minor, left))
            taken = max(0, min(-nets[key], taxes[rate]))
            nets[key] += taken - given
            taxes[rate] += given - taken
    for rate, keys in by_rate.items():
        if rate not in taxes:
            continue
        left = _open_tax(lines, keys, rate, credited_tax) - taxes[rate]
        if left > 0 and all(lines[key].rest_minor == nets.get(key, 0) for key in keys):
            key = max((key for key in keys if key in nets), key=lambda key: nets[key])
            nets[key] -= left
            taxes[rate] += left


def _amounts(nets: Mapping[K, int], taxes: Mapping[TaxRate, int], lines: Mapping[K, OpenLine]) -> list[TaxAmount]:
    """The tax rows of a credit note, in a stable order."""
    return [
        TaxAmount(rate, sum(net for key, net in nets.items() if rate in lines[key].taxes), tax)
        for rate, tax in sorted(
            taxes.items(), key=lambda item: (item[0].jurisdiction, item[0].category, item[0].rate_ppm)
        )
    ]


def _tax_share(
    wanted: Mapping[K, int],
    lines: Mapping[K, OpenLine],
    keys: Sequence[K],
    rate: TaxRate,
    credited_tax: Mapping[TaxRate, int],
) -> int:
    """A rate's share of all gross credited so far, with what is wanted now, of the lines that bear it."""
    if len({lines[key].taxes for key in keys}) == 1:
        line = lines[keys[0]]
        so_far = sum(lines[key].net_minor - lines[key].rest_minor + wanted.get(key, 0) for key in keys)
        so_far += sum(credited_tax.get(other, 0) for other in line.taxes)
        return round_half_away(so_far * rate.rate_ppm, PPM + line.rate_ppm)
    # Lines that bear other taxes beside it: the credited gross of each is what its net bears.
    numerators = [
        ((lines[key].net_minor - lines[key].rest_minor) * (PPM + lines[key].rate_ppm) + wanted.get(key, 0) * PPM)
        * Fraction(rate.rate_ppm, PPM * (PPM + lines[key].rate_ppm))
        for key in keys
    ]
    share = sum(numerators, Fraction(0))
    return round_half_away(share.numerator, share.denominator)


def _within_rests(nets: dict[K, int], lines: Mapping[K, OpenLine]) -> dict[K, int]:
    """Rounding may ask a cent more of a line than is left of it, or less than nothing: another line evens it out."""
    for key in tuple(nets):
        for other in sorted(nets, key=lambda other: lines[other].taxes != lines[key].taxes):
            if other == key or not set(lines[other].taxes) & set(lines[key].taxes):
                continue
            given = max(0, min(nets[key] - lines[key].rest_minor, lines[other].rest_minor - nets[other]))
            taken = max(0, min(-nets[key], nets[other]))
            nets[other] += given - taken
            nets[key] += taken - given
    return nets


def _by_rate(lines: Mapping[K, OpenLine]) -> dict[TaxRate, list[K]]:
    found: dict[TaxRate, list[K]] = {}
    for key, line in lines.items():
        for rate in line.taxes:
            found.setdefault(rate, []).append(key)
    return found


def _open_tax(
    lines: Mapping[K, OpenLine], keys: Sequence[K], rate: TaxRate, credited_tax: Mapping[TaxRate, int]
) -> int:
    return max(0, tax_on(sum(lines[key].net_minor for key in keys), rate.rate_ppm) - credited_tax.get(rate, 0))
