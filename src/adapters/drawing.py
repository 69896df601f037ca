"""The pages of a document, by WeasyPrint. Only the processes of `pdf` load this."""

import os
import re
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
# WeasyPrint looks for fonts when it is loaded. The host's are never used: a page looks the same everywhere.
os.environ["FONTCONFIG_FILE"] = str(TEMPLATES / "fonts" / "fonts.conf")

# ruff: noqa: E402
from facturx import generate_from_file, get_xml_from_pdf
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from weasyprint import CSS, HTML
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import URLFetcher

from ..services.papers import (
    Content,
    Paper,
    PaperKind,
    PaperLine,
    PaperTax,
    Party,
    Receipt,
    ReportMetric,
    ReportPeriod,
    UsageReport,
)
from ..services.rules.thresholds import percent_of
from ..services.wording import (
    agree,
    format_bucket,
    format_day,
    format_days,
    format_money,
    format_number,
    format_rate,
    name_country,
    word,
)
from .charts import draw_chart, draw_meter
from .e_invoice import build_xml, card_digits, price_line

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_NARROW = ".,’'\u00a0\u202f "
_REGION_BEFORE_CODE = ("US", "CA", "AU")
"""Countries that write an address's last line as city, region and postal code."""


def draw(content: Content) -> bytes:
    """The PDF/A-3 of a document, with its EN 16931 XML inside where it carries one."""
    page = HTML(string=write_page(content), url_fetcher=_fetch_nothing())
    pdf: bytes = page.write_pdf(stylesheets=[_style()], font_config=_fonts(), pdf_variant="pdf/a-3a")
    if not isinstance(content, Paper) or content.why_no_xml is not None:
        return pdf
    return _embed(pdf, build_xml(content), content)


def read_xml(pdf: bytes) -> bytes:
    """The XML that `draw` put inside a document."""
    xml: bytes | None
    _, xml = get_xml_from_pdf(pdf, check_xsd=False)
    if not xml:
        raise LookupError("there is no XML inside")
    return xml


def write_page(content: Content) -> str:
    """The HTML of a document. Every text in it is escaped."""
    locale = agree(content.locale, content.language)
    shared = {
        "title": _title(content),
        "locale": locale,
        "address": lambda party: _address(party, locale),
        "word": lambda key: word(content.language, key),
    }
    if isinstance(content, UsageReport):
        return _write_report(content, locale, shared)
    shared["money"] = lambda minor: _format_money(minor, content.currency, locale)
    if isinstance(content, Receipt):
        return _write_receipt(content, locale, shared)
    return _write_paper(content, locale, shared)


def _write_paper(paper: Paper, locale: str, shared: dict[str, Any]) -> str:
    heads = [word(paper.language, key) for key in ("quantity", "unit_price", _tax_key(paper), "amount")]
    rows = [_figures(line, paper.currency, locale) for line in paper.lines]
    return _template("document.html").render(
        shared,
        paper=paper,
        is_invoice=paper.kind is PaperKind.INVOICE,
        facts=_facts(paper, locale),
        taxes=[_describe_tax(row, paper, locale) for row in paper.taxes],
        payment=_say_payment(paper, locale),
        heads=heads,
        lines=zip(paper.lines, rows, strict=True),
        widths=[max(map(_measure, column)) for column in zip(heads, *rows, strict=True)],
        days=lambda line: format_days(line.starts_on, line.ends_on, locale),
    )


def _write_receipt(receipt: Receipt, locale: str, shared: dict[str, Any]) -> str:
    is_refund = receipt.kind is PaperKind.REFUND_RECEIPT
    facts = [
        ("number", receipt.number),
        ("issued_on", format_day(receipt.issued_on, locale)),
        ("invoice", receipt.invoice_number),
        ("method", _name_means(receipt)),
        ("reference", receipt.reference),
    ]
    if receipt.invoice_number is None:
        what = word(receipt.language, "refund" if is_refund else "payment")
    else:
        key = "refund_of" if is_refund else "payment_of"
        what = word(receipt.language, key).format(number=receipt.invoice_number)
    amount = _format_money(receipt.amount_minor, receipt.currency, locale)
    return _template("receipt.html").render(
        shared,
        paper=receipt,
        facts=[(word(receipt.language, key), value) for key, value in facts if value],
        is_refund=is_refund,
        what=what,
        width=max(_measure(amount), _measure(word(receipt.language, "amount"))),
    )


def _write_report(report: UsageReport, locale: str, shared: dict[str, Any]) -> str:
    facts = [
        ("account", report.account_name),
        ("issued_on", format_day(report.issued_on, locale)),
        ("period", format_days(report.starts_on, report.ends_on, locale)),
        ("time_zone", report.zone),
    ]
    return _template("report.html").render(
        shared,
        title=f"{word(report.language, 'usage_report')} {format_days(report.starts_on, report.ends_on, locale)}",
        paper=report,
        facts=[(word(report.language, key), value) for key, value in facts],
        metrics=[_describe_metric(metric, report, locale) for metric in report.metrics],
    )


def _describe_metric(metric: ReportMetric, report: UsageReport, locale: str) -> dict[str, Any]:
    """A metric's chart, its figures, and how it came out in each usage period."""
    caption = word(report.language, f"{'level' if metric.is_gauge else 'used'}_by_{report.granularity.lower()}")
    names = [format_bucket(start, report.granularity, locale) for start in report.starts]
    facts: list[tuple[str, str]] = []
    if metric.quantities:
        highest = max(range(len(names)), key=metric.quantities.__getitem__)
        peak = f"{format_number(metric.quantities[highest], locale)} ({names[highest]})"
        if metric.is_gauge:
            at_end = metric.quantities[-1]
            facts = [("level", format_number(at_end, locale)), *_compare(at_end, metric.limit, report, locale)]
        else:
            facts = [("used", format_number(sum(metric.quantities), locale))]
        facts.append(("peak", peak))
    told = [(word(report.language, key), value) for key, value in facts]
    is_empty = not any(metric.quantities)
    return {
        "name": metric.name,
        "caption": f"{caption} ({metric.unit})",
        "chart": None
        if is_empty
        else draw_chart(
            metric.quantities,
            names,
            limit=metric.limit if metric.is_gauge else None,
            number=partial(format_number, locale=locale),
        ),
        "spoken": "; ".join([f"{metric.name}, {caption}", *(f"{label}: {value}" for label, value in told)]),
        "facts": told,
        "periods": [_describe_period(period, report, locale) for period in metric.periods],
    }


def _compare(used: int, limit: int | None, report: UsageReport, locale: str) -> list[tuple[str, str]]:
    """A figure beside its limit: the limit, the share, and what lies above."""
    if limit is None:
        return [("limit", word(report.language, "unlimited"))]
    return [
        ("limit", format_number(limit, locale)),
        ("share", _share(used, limit, locale)),
        ("above_limit", format_number(max(0, used - limit), locale)),
    ]


def _share(used: int, limit: int, locale: str) -> str:
    percent = percent_of(used, limit)
    assert percent is not None, "there is a limit"
    return format_rate(round(percent * 10_000), locale)


def _describe_period(period: ReportPeriod, report: UsageReport, locale: str) -> dict[str, Any]:
    days = format_days(period.starts_on, period.ends_on, locale)
    limit = period.limit
    unlimited = word(report.language, "unlimited") if period.knows_limit else "–"
    return {
        "days": word(report.language, "running").format(days=days) if period.is_running else days,
        "used": format_number(period.used, locale),
        "limit": unlimited if limit is None else format_number(limit, locale),
        "share": "–" if limit is None else _share(period.used, limit, locale),
        "above": "–" if limit is None else format_number(max(0, period.used - limit), locale),
        "meter": None if limit is None else draw_meter(period.used, limit),
    }


def _name_means(receipt: Receipt) -> str:
    """What the money went through: a card, or a transfer."""
    if receipt.pays_by is None:
        return word(receipt.language, "bank_transfer")
    return _name_method(receipt.pays_by, card_digits(receipt.pays_by))


def _embed(pdf: bytes, xml: bytes, paper: Paper) -> bytes:
    # Through a file: factur-x's way from bytes to bytes leaves the whole of the first PDF in front of the second.
    with TemporaryDirectory(prefix="plafond-") as directory:
        file = Path(directory) / "document.pdf"
        file.write_bytes(pdf)
        generate_from_file(
            str(file),
            xml,
            flavor="factur-x",
            level="en16931",
            check_xsd=False,  # `build_xml` did
            afrelationship="alternative",
            lang=agree(paper.locale, paper.language),
            pdf_metadata={
                "author": _printable(paper.issuer.name),
                "title": _printable(_title(paper)),
                "subject": _printable(f"{_title(paper)}, {paper.issued_on.isoformat()}"),
                "keywords": "Factur-X",
            },
        )
        return file.read_bytes()


def _title(paper: Content) -> str:
    return f"{word(paper.language, paper.kind.value.lower())} {paper.number}"


def _facts(paper: Paper, locale: str) -> list[tuple[str, str]]:
    """What stands at the head, as (label, value)."""
    corrected_on = format_days(paper.corrected_on, paper.corrected_on, locale) if paper.corrected_on else None
    facts = [
        ("number", paper.number),
        ("issued_on", format_day(paper.issued_on, locale)),
        ("due_on", format_day(paper.due_on, locale) if paper.due_on and paper.kind is PaperKind.INVOICE else None),
        ("period", format_days(paper.starts_on, paper.ends_on, locale)),
        ("purchase_order", paper.purchase_order),
        ("corrects", ", ".join(filter(None, (paper.corrected_number, corrected_on)))),
    ]
    return [(word(paper.language, key), value) for key, value in facts if value]


def _tax_key(paper: Paper) -> str:
    return "vat" if paper.issuer.vat_id else "tax"


def _figures(line: PaperLine, currency: str, locale: str) -> list[str]:
    """A line's quantity, price, rate and amount."""
    quantity, unit = price_line(line)
    return [
        format_number(quantity, locale),
        _format_money(unit, currency, locale),
        "–" if line.tax_category == "O" else format_rate(line.tax_rate_ppm, locale),
        _format_money(line.amount_minor, currency, locale),
    ]


def _measure(text: str) -> float:
    """How wide a column must be for a text at most, in em: its characters and the space to the column before."""
    return round(2.2 + sum(1 if ord(char) > 0x2E7F else 0.34 if char in _NARROW else 0.68 for char in text), 2)


def _describe_tax(row: PaperTax, paper: Paper, locale: str) -> dict[str, Any]:
    name = word(paper.language, _tax_key(paper))
    rate = "" if row.category == "O" else f" {format_rate(row.rate_ppm, locale)}"
    needs_reason = row.category in ("AE", "E") or (row.category == "O" and paper.issuer.vat_id is not None)
    must_say = word(paper.language, row.category) if needs_reason else None
    return {
        "label": f"{name}{rate}, {name_country(row.jurisdiction, locale)}",
        "taxable": word(paper.language, "taxable").format(
            amount=_format_money(row.taxable_minor, paper.currency, locale)
        ),
        "amount": row.amount_minor,
        "reasons": list(dict.fromkeys(filter(None, (must_say, row.reason)))),
    }


def _say_payment(paper: Paper, locale: str) -> str:
    """The terms in a sentence."""
    if paper.kind is PaperKind.CREDIT_NOTE:
        if paper.corrected_number is None:
            return word(paper.language, "credited_to_you")
        return word(paper.language, "credited").format(number=paper.corrected_number)
    if paper.due_minor == 0:
        return word(paper.language, "nothing_due")
    if paper.net_days is not None and paper.due_on is not None:
        return word(paper.language, "transfer").format(
            amount=_format_money(paper.due_minor, paper.currency, locale),
            date=format_day(paper.due_on, locale),
            number=paper.number,
        )
    if paper.pays_by is None:
        return word(paper.language, "charged_somehow")
    return word(paper.language, "charged").format(method=_name_method(paper.pays_by, card_digits(paper.pays_by)))


def _name_method(pays_by: str, digits: str | None) -> str:
    """A card as Visa •••• 4242."""
    if digits is None:
        return pays_by
    brand = pays_by.removesuffix(digits).strip()
    return f"{brand.upper() if len(brand) < 4 else brand.title()} •••• {digits}"


def _format_money(minor: int, currency: str, locale: str) -> str:
    return format_money(minor, currency, locale).replace("￥", "¥")  # the narrow yen has a bold form


def _address(party: Party, locale: str) -> list[str]:
    """An address, line by line."""
    if party.country in _REGION_BEFORE_CODE:
        place = [", ".join(filter(None, (party.city, f"{party.region} {party.postal_code}".strip())))]
    else:
        place = [f"{party.postal_code} {party.city}".strip(), party.region]
    return [line for line in (*party.address_lines, *place, name_country(party.country, locale)) if line]


def _printable(value: Any) -> Any:
    return _CONTROLS.sub(" ", value) if type(value) is str else value  # what is already markup has been through here


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


@cache
def _fonts() -> FontConfiguration:
    return FontConfiguration()


@cache
def _style() -> CSS:
    return CSS(
        string=(TEMPLATES / "document.css").read_text("utf-8"), font_config=_fonts(), url_fetcher=_fetch_nothing()
    )


def _fetch_nothing() -> URLFetcher:
    # The page has no address in it: texts are escaped, and the fonts are the process's own.
    return URLFetcher(allowed_protocols=["data"], allow_redirects=False)
