"""The EN 16931 XML of a document: UN/CEFACT CII, as Factur-X embeds it."""

import re
from copy import deepcopy
from decimal import Decimal
from typing import Any

from ..services.papers import Paper, PaperKind, PaperLine, Party
from ..services.rules.money import to_decimal
from ..services.wording import word

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


class NotExpressible(ValueError):
    """EN 16931 has no way to say this document; `Paper.why_no_xml` gives the reason."""


def build_xml(paper: Paper) -> bytes:
    """The XML, checked against its XSD. Refuses with `NotExpressible` what carries none."""
    if (reason := paper.why_no_xml) is not None:
        raise NotExpressible(f"{paper.number}: {reason}")
    from facturx import generate_xml  # noqa: PLC0415  # slow to load

    # It writes into what it is given; and its Schematron check would ask a server.
    xml: bytes = generate_xml(deepcopy(_terms(paper)), flavor="factur-x", level="en16931", check_schematron=None)
    return xml


def price_line(line: PaperLine) -> tuple[int, int]:
    """A line's quantity and price, whose product is its amount.

    Of a part of a period it is one at what the part costs.
    """
    if line.quantity * line.unit_minor == line.amount_minor:
        return line.quantity, line.unit_minor
    return 1, line.amount_minor


def card_digits(pays_by: str | None) -> str | None:
    """The last digits of the card that is charged, if it is a card."""
    found = re.search(r"(\d{4,6})$", pays_by or "")
    return found[1] if found else None


def _terms(paper: Paper) -> dict[str, Any]:
    """The business terms by their EN 16931 numbers. Amounts are strings: factur-x rounds numbers as floats."""
    is_outside = any(line.tax_category == "O" for line in paper.lines)
    terms = {
        "BT-1": _clean(paper.number),
        "BT-2": paper.issued_on,
        "BT-3": "380" if paper.kind is PaperKind.INVOICE else "381",
        "BT-5": paper.currency,
        "BT-9": paper.due_on,
        "BT-13": _clean(paper.purchase_order),
        "BT-20": _say_terms(paper),
        "BT-72": paper.ends_on,  # without a delivery factur-x writes an empty element, which the XSD refuses
        "BT-73": paper.starts_on,
        "BT-74": paper.ends_on,
        "BG-1": _notes(paper),
        "BG-3": _preceding(paper),
        "BG-4": _seller(paper.issuer, is_outside=is_outside),
        "BG-7": _buyer(paper.bill_to, is_outside=is_outside),
        "BG-23": _breakdown(paper),
        "BG-25": [_line(line, paper.currency) for line in paper.lines],
        "BT-106": _amount(paper, paper.subtotal_minor),
        "BT-109": _amount(paper, paper.subtotal_minor),
        "BT-110": _amount(paper, paper.tax_minor),
        "BT-112": _amount(paper, paper.total_minor),
        "BT-115": _amount(paper, paper.due_minor),
    } | _payment(paper)
    if paid := paper.balance_applied_minor - paper.carried_in_minor:
        terms["BT-113"] = _amount(paper, paid)  # what is carried in raises the due, so it is a negative payment
    return terms


def _say_terms(paper: Paper) -> str:
    if paper.kind is PaperKind.CREDIT_NOTE:
        return word(paper.language, "credited_to_you")
    if paper.due_minor == 0:
        return word(paper.language, "nothing_due")
    if paper.net_days is None:
        return word(paper.language, "charged_somehow")
    return word(paper.language, "net_days").format(days=paper.net_days)


def _notes(paper: Paper) -> list[dict[str, str]]:
    if not paper.carried_in_minor:
        return []
    amount = f"{_amount(paper, paper.carried_in_minor)} {paper.currency}"
    return [{"BT-22": f"{word(paper.language, 'carried_in')}: {amount}"}]


def _preceding(paper: Paper) -> list[dict[str, Any]]:
    """The invoices that a credit note corrects, or whose lines an invoice credits."""
    if paper.corrected_number is not None:
        return [{"BT-25": _clean(paper.corrected_number), "BT-26": paper.corrected_on}]
    numbers = dict.fromkeys(line.credited_number for line in paper.lines if line.credited_number is not None)
    return [{"BT-25": _clean(number)} for number in numbers]


def _seller(party: Party, *, is_outside: bool) -> dict[str, Any]:
    seller = _party(party)
    if party.tax_ids:
        seller["legal_identifier"] = _clean(party.tax_ids[0][1])
    if not is_outside:
        seller["vat_identifier"] = _clean(party.vat_id)
    elif not party.tax_ids:
        # BT-31 may not stand beside category O (BR-O-2), and yet the seller must be named by some id (BR-CO-26).
        seller["identifiers"] = {None: _clean(party.vat_id)}
    return seller


def _buyer(party: Party, *, is_outside: bool) -> dict[str, Any]:
    return _party(party) | ({} if is_outside else {"vat_identifier": _clean(party.vat_id)})


def _party(party: Party) -> dict[str, Any]:
    one, two, *rest = [*map(_clean, party.address_lines), "", ""]
    party_terms: dict[str, Any] = {
        "name": _clean(party.name),
        "addr_l1": one,
        "addr_l2": two,
        "addr_l3": ", ".join(filter(None, rest)),
        "postcode": _clean(party.postal_code),
        "city": _clean(party.city),
        "country_subdivision": _clean(party.region),
        "country_code": party.country,
    }
    if party.email:
        party_terms |= {"einvoicing_addr": _clean(party.email), "einvoicing_addr_schemeid": "EM"}
    return party_terms


def _breakdown(paper: Paper) -> list[dict[str, Any]]:
    """The tax by category and rate; jurisdictions of one rate are one row there."""
    sums: dict[tuple[str, int], tuple[int, int, str | None]] = {
        (line.tax_category, line.tax_rate_ppm): (0, 0, None) for line in paper.lines
    }
    for row in paper.taxes:
        taxable, tax, reason = sums.get((row.category, row.rate_ppm), (0, 0, None))
        sums[row.category, row.rate_ppm] = taxable + row.taxable_minor, tax + row.amount_minor, reason or row.reason
    rows = []
    for (category, rate), (taxable, tax, reason) in sums.items():
        terms = {"BT-116": _amount(paper, taxable), "BT-117": _amount(paper, tax)} | _rate(category, rate, "118", "119")
        if category in ("AE", "E", "O"):
            terms["BT-120"] = _clean(reason) or word(paper.language, category)
        if category in ("AE", "O"):
            terms["BT-121"] = f"VATEX-EU-{category}"
        rows.append(terms)
    return rows


def _line(line: PaperLine, currency: str) -> dict[str, Any]:
    quantity, unit = price_line(line)
    if unit < 0:
        quantity, unit = -quantity, -unit  # no price is negative there (BR-27)
    return {
        "BT-126": str(line.position),
        "BT-129": str(quantity),
        "BT-130": "C62",  # pieces
        "BT-131": str(to_decimal(line.amount_minor, currency)),
        "BT-134": line.starts_on,
        "BT-135": line.ends_on,
        "BT-146": str(to_decimal(unit, currency)),
        "BT-153": _clean(line.description),
    } | _rate(line.tax_category, line.tax_rate_ppm, "151", "152")


def _rate(category: str, rate_ppm: int, category_term: str, rate_term: str) -> dict[str, Any]:
    """A category with its rate in per cent. Category O has none (BR-O-5), and what is taxed at 0 % is Z (BR-S-5)."""
    if category == "O":
        return {f"BT-{category_term}": "O"}
    rate = f"{Decimal(rate_ppm).scaleb(-4).normalize():f}"
    return {f"BT-{category_term}": "Z" if category == "S" and rate_ppm == 0 else category, f"BT-{rate_term}": rate}


def _payment(paper: Paper) -> dict[str, Any]:
    """How it is paid, by UNTDID 4461: 48 is a card, 58 a SEPA transfer and 30 another transfer."""
    if paper.kind is PaperKind.CREDIT_NOTE:
        return {}
    if (digits := card_digits(paper.pays_by)) is not None:
        return {"BT-81": "48", "BT-87": digits}
    bank = paper.issuer_bank
    if bank is None or not bank.iban or paper.pays_by is not None:
        return {}
    return {
        "BT-81": "58" if paper.currency == "EUR" else "30",
        "BT-83": _clean(paper.number),
        "BT-84": _clean(bank.iban).replace(" ", ""),
        "BT-85": _clean(bank.holder),
        "BT-86": _clean(bank.bic),
    }


def _amount(paper: Paper, minor: int) -> str:
    return str(to_decimal(minor, paper.currency))


def _clean(text: str | None) -> str:
    return " ".join(_FORBIDDEN.sub(" ", text or "").split())
