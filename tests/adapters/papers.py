"""Documents of every kind, for the tests and for docs/samples."""

from collections import defaultdict
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from plafond.models import Granularity
from plafond.services.papers import (
    Bank,
    Paper,
    PaperKind,
    PaperLine,
    PaperSize,
    PaperTax,
    Party,
    Receipt,
    ReportMetric,
    ReportPeriod,
    UsageReport,
)
from plafond.services.rules.money import round_half_away
from plafond.services.wording import describe_line

GERMAN_SELLER = Party(
    name="Plafond GmbH",
    address_lines=("Torstraße 12",),
    postal_code="10119",
    city="Berlin",
    country="DE",
    vat_id="DE136695976",
    tax_ids=(("Handelsregister", "HRB 123456 B"),),
    email="billing@plafond.example",
)
AMERICAN_SELLER = Party(
    name="Plafond Inc.",
    address_lines=("500 Howard Street", "Suite 300"),
    postal_code="94105",
    city="San Francisco",
    region="CA",
    country="US",
    tax_ids=(("EIN", "12-3456789"),),
    email="billing@plafond.example",
)
BANK = Bank(holder="Plafond GmbH", iban="DE89 3704 0044 0532 0130 00", bic="COBADEFFXXX", name="Commerzbank")

GERMAN = Party(
    name="Müller & Söhne OHG", address_lines=("Gänsemarkt 3",), postal_code="20354", city="Hamburg", country="DE"
)
FRENCH = Party(
    name="Société Générale d’Électricité SA",
    address_lines=("14 rue de l’Échiquier", "Bâtiment C"),
    postal_code="75010",
    city="Paris",
    country="FR",
    vat_id="FR40303265045",
    email="comptabilite@sge.example",
)
SWISS = Party(
    name="Alpenblick AG", address_lines=("Bahnhofstrasse 1",), postal_code="8001", city="Zürich", country="CH"
)
AMERICAN = Party(
    name="Acme Corporation",
    address_lines=("350 Fifth Avenue", "Floor 21"),
    postal_code="10118",
    city="New York",
    region="NY",
    country="US",
)
JAPANESE = Party(
    name="株式会社みらいメール髙橋",
    address_lines=("丸の内2丁目4番1号 丸の内ビルディング",),
    postal_code="100-6390",
    city="東京都千代田区",
    country="JP",
)
SPANISH = Party(
    name="Compañía Ibérica de Correo S.L.",
    address_lines=("Calle de Alcalá 50",),
    postal_code="28014",
    city="Madrid",
    country="ES",
    vat_id="ESB58378431",
)
DUTCH = Party(
    name="De Gouden Leeuw B.V.",
    address_lines=("Herengracht 420",),
    postal_code="1017 BZ",
    city="Amsterdam",
    country="NL",
    vat_id="NL004495445B01",
)
KUWAITI = Party(
    name="Gulf Trading Co. W.L.L.", address_lines=("Al Shuhada Street 5",), city="Kuwait City", country="KW"
)

STANDARD = ("DE", "S", 190_000, None)
REDUCED = ("DE", "S", 70_000, None)
REVERSE = ("FR", "AE", 0, "Reverse charge")
OUTSIDE = ("CH", "O", 0, "Outside the scope of VAT")
Tax = tuple[str, str, int, str | None]


def a_line(
    description: str,
    unit: int,
    *,
    quantity: int = 1,
    amount: int | None = None,
    taxes: tuple[Tax, ...] = (STANDARD,),
    **more: Any,
) -> tuple[dict[str, Any], tuple[Tax, ...]]:
    """A line and its taxes. Its period is November 2026."""
    line = {
        "description": description,
        "quantity": quantity,
        "unit_minor": unit,
        "amount_minor": quantity * unit if amount is None else amount,
        "starts_on": date(2026, 11, 1),
        "ends_on": date(2026, 11, 30),
        "tax_category": taxes[0][1],
        "tax_rate_ppm": sum(rate for _, _, rate, _ in taxes),
    }
    return line | more, taxes


def a_paper(*lines: tuple[dict[str, Any], tuple[Tax, ...]], **more: Any) -> Paper:
    """A German invoice for November, charged to a card, whose sums follow from its lines."""
    taxable: dict[Tax, int] = defaultdict(int)
    for line, taxes in lines:
        for tax in taxes:
            taxable[tax] += line["amount_minor"]
    rows = [
        PaperTax(
            jurisdiction=tax[0],
            category=tax[1],
            rate_ppm=tax[2],
            taxable_minor=base,
            amount_minor=round_half_away(base * tax[2], 1_000_000),
            reason=tax[3],
        )
        for tax, base in taxable.items()
    ]
    subtotal = sum(line["amount_minor"] for line, _ in lines)
    tax_minor = sum(row.amount_minor for row in rows)
    facts: dict[str, Any] = {
        "kind": PaperKind.INVOICE,
        "number": "INV-001042",
        "language": "en",
        "locale": "en-IE",
        "size": PaperSize.A4,
        "currency": "EUR",
        "issued_on": date(2026, 11, 1),
        "due_on": date(2026, 11, 1),
        "starts_on": date(2026, 11, 1),
        "ends_on": date(2026, 11, 30),
        "issuer": GERMAN_SELLER,
        "issuer_bank": BANK,
        "bill_to": GERMAN,
        "lines": tuple(PaperLine(position=n, **line) for n, (line, _) in enumerate(lines, 1)),
        "taxes": tuple(rows),
        "subtotal_minor": subtotal,
        "tax_minor": tax_minor,
        "total_minor": subtotal + tax_minor,
        "pays_by": "visa 4242",
    } | more
    if facts["pays_by"] is None:
        facts |= {"net_days": 30, "due_on": date(2026, 12, 1)}
    facts.setdefault(
        "due_minor",
        facts["total_minor"] + facts.get("carried_in_minor", 0) - facts.get("balance_applied_minor", 0),
    )
    return Paper(**facts)


def plan(language: str, price: int, *, taxes: tuple[Tax, ...] = (STANDARD,)) -> tuple[dict[str, Any], tuple[Tax, ...]]:
    """The line of a month's subscription."""
    return a_line(describe_line("SUBSCRIPTION", language, plan="Professional", interval="MONTH"), price, taxes=taxes)


def usual_lines(
    language: str, *, taxes: tuple[Tax, ...] = (STANDARD,), scale: int = 1
) -> list[tuple[dict[str, Any], tuple[Tax, ...]]]:
    """A subscription, an add-on and overage of the month before."""
    overage = describe_line("OVERAGE", language, metric="Email sends", blocks=3, block=10_000)
    return [
        plan(language, 14_900 * scale, taxes=taxes),
        a_line(
            describe_line("ADD_ON", language, name="Additional user", quantity=4),
            1_500 * scale,
            quantity=4,
            taxes=taxes,
        ),
        a_line(
            overage, 1_000 * scale, quantity=3, taxes=taxes, starts_on=date(2026, 10, 1), ends_on=date(2026, 10, 31)
        ),
    ]


def domestic() -> Paper:
    """Germany to Germany, one rate, charged to a card."""
    return a_paper(*usual_lines("de"), language="de", locale="de-DE")


def two_rates() -> Paper:
    """Two rates on one document, paid by transfer."""
    guide = a_line("Handbuch (gedruckt)", 4_990, quantity=2, taxes=(REDUCED,))
    return a_paper(*usual_lines("de"), guide, language="de", locale="de-AT", pays_by=None, purchase_order="PO 4711/26")


def reverse_charge() -> Paper:
    """To a business in another EU country, by transfer."""
    return a_paper(*usual_lines("fr", taxes=(REVERSE,)), language="fr", locale="fr-FR", bill_to=FRENCH, pays_by=None)


def outside_scope() -> Paper:
    """From the EU to a customer outside."""
    return a_paper(*usual_lines("de", taxes=(OUTSIDE,)), language="de", locale="de-CH", bill_to=SWISS)


def exempt() -> Paper:
    """To a customer with a certificate."""
    certificate = ("DE", "E", 0, "Exempt under certificate 2026/17 (NATO forces)")
    return a_paper(*usual_lines("en", taxes=(certificate,)))


def with_credits() -> Paper:
    """A change of plan half-way: what is unused of the old plan is credited on the invoice."""
    rest: dict[str, Any] = {"starts_on": date(2026, 11, 16), "ends_on": date(2026, 11, 30)}
    return a_paper(
        a_line(
            describe_line("PRORATION_CREDIT", "nl", name="Starter"),
            2_450,
            quantity=-1,
            credited_number="INV-001031",
            **rest,
        ),
        a_line(describe_line("PRORATION_CHARGE", "nl", name="Professional"), 7_450, **rest),
        a_line(describe_line("PRORATION_CHARGE", "nl", name="Extra werkplek"), 2_000, quantity=3, amount=2_981, **rest),
        language="nl",
        locale="nl-NL",
        bill_to=DUTCH,
    )


def with_balance() -> Paper:
    """Partly paid from the credit balance, with a small amount carried in."""
    return a_paper(*usual_lines("es"), language="es", locale="es-ES", carried_in_minor=37, balance_applied_minor=5_000)


def paid_by_balance() -> Paper:
    """Wholly paid from the credit balance."""
    return a_paper(plan("en", 14_900), balance_applied_minor=17_731)


def carried_in() -> Paper:
    """With nothing but an amount carried in: the due is above the total."""
    return a_paper(plan("en", 14_900), carried_in_minor=37)


def refund() -> Paper:
    """A credit note whose tax follows from what was credited before: a cent beside its own rounding."""
    paper = credit_note()
    [tax] = paper.taxes
    return paper.model_copy(
        update={
            "taxes": (tax.model_copy(update={"amount_minor": tax.amount_minor + 1}),),
            "tax_minor": paper.tax_minor + 1,
            "total_minor": paper.total_minor + 1,
            "due_minor": paper.due_minor + 1,
        }
    )


def without_other_ids() -> Paper:
    """Outside the scope, from an issuer with no id but its VAT id, which then may not stand as such."""
    seller = GERMAN_SELLER.model_copy(update={"tax_ids": (), "email": None})
    return outside_scope().model_copy(update={"issuer": seller})


def negative_price() -> Paper:
    """A credit written the other way round, and two credited invoices."""
    return a_paper(
        plan("en", 14_900),
        a_line("Starter, unused time", -2_450, credited_number="INV-001031"),
        a_line("Extra workspace, unused time", -1_000, quantity=2, amount=-333, credited_number="INV-001030"),
    )


def credit_note() -> Paper:
    """The correction of an invoice."""
    return a_paper(
        a_line(describe_line("CREDIT", "de", name="Professional"), 14_900, credited_number="INV-001042"),
        a_line(describe_line("CREDIT", "de", name="Additional user"), 1_500, quantity=2, credited_number="INV-001042"),
        kind=PaperKind.CREDIT_NOTE,
        number="CN-000007",
        language="de",
        locale="de-DE",
        issued_on=date(2026, 11, 20),
        due_on=None,
        corrected_number="INV-001042",
        corrected_on=date(2026, 11, 1),
        pays_by=None,
    ).model_copy(update={"net_days": None, "due_on": None})


def in_yen() -> Paper:
    """A currency without decimals, to Japan."""
    return a_paper(
        plan("ja", 22_400, taxes=(("JP", "S", 100_000, None),)),
        a_line(
            describe_line("ADD_ON", "ja", name="追加ユーザー", quantity=4),
            2_250,
            quantity=4,
            taxes=(("JP", "S", 100_000, None),),
        ),
        language="ja",
        locale="ja-JP",
        currency="JPY",
        bill_to=JAPANESE,
    )


def in_dinars() -> Paper:
    """A currency with three decimals: no XML."""
    return a_paper(
        *usual_lines("en", taxes=(("KW", "O", 0, "Outside the scope of VAT"),), scale=3),
        locale="ar-KW",
        currency="KWD",
        bill_to=KUWAITI,
    )


def american() -> Paper:
    """An issuer without a VAT id, on Letter, with the taxes of state, county and city: no XML."""
    taxes: tuple[Tax, ...] = (
        ("New York State", "S", 40_000, None),
        ("New York City", "S", 45_000, None),
        ("Metropolitan Commuter Transportation District", "S", 3_750, None),
    )
    return a_paper(
        *usual_lines("en", taxes=taxes),
        locale="en-US",
        currency="USD",
        size=PaperSize.LETTER,
        issuer=AMERICAN_SELLER,
        issuer_bank=None,
        bill_to=AMERICAN,
        pays_by="mastercard 4444",
        footer="Plafond Inc., a Delaware corporation. Questions about this invoice: billing@plafond.example",
    )


def long_invoice(lines: int = 300) -> Paper:
    """Many pages."""
    return a_paper(
        *(a_line(f"Dedicated IP 192.0.2.{n}", 5_000 + n) for n in range(1, lines + 1)),
        number="INV-009999",
        pays_by=None,
    )


def long_names() -> Paper:
    """Names and words without an end."""
    endless = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
    seller = GERMAN_SELLER.model_copy(update={"name": f"{endless} & {endless} GmbH & Co. KGaA"})
    buyer = GERMAN.model_copy(
        update={"name": f"{endless} " * 3 + "W" * 200, "address_lines": ("x" * 300,), "city": "Y" * 120}
    )
    return a_paper(
        a_line("Z" * 400, 2**53 // 200),
        a_line(f"{endless} {endless}", 14_900, quantity=1_000_000),
        language="de",
        locale="de-DE",
        issuer=seller,
        bill_to=buyer,
        purchase_order="P" * 150,
        footer="Geschäftsführerin: Ωμέγα Жукова. " * 12,
    )


def a_receipt(**more: Any) -> Receipt:
    """That a German customer's card paid an invoice."""
    facts: dict[str, Any] = {
        "kind": PaperKind.RECEIPT,
        "number": "R-8F3A-09C1-77DE",
        "language": "en",
        "locale": "en-IE",
        "size": PaperSize.A4,
        "currency": "EUR",
        "issued_on": date(2026, 11, 1),
        "issuer": GERMAN_SELLER,
        "bill_to": GERMAN,
        "invoice_number": "INV-001042",
        "amount_minor": 28_441,
        "pays_by": "visa 4242",
    }
    return Receipt(**facts | more)


def card_receipt() -> Receipt:
    """A charge of a card."""
    return a_receipt(language="de", locale="de-DE")


def transfer_receipt() -> Receipt:
    """A transfer that an operator recorded."""
    return a_receipt(
        language="fr", locale="fr-FR", bill_to=FRENCH, pays_by=None, reference="VIR SEPA 2026-11-03 / SGE 4711"
    )


def refund_receipt() -> Receipt:
    """A part that went back to a card, on Letter."""
    return a_receipt(
        kind=PaperKind.REFUND_RECEIPT,
        locale="en-US",
        size=PaperSize.LETTER,
        currency="USD",
        issuer=AMERICAN_SELLER,
        bill_to=AMERICAN,
        amount_minor=4_900,
        pays_by="mastercard 4444",
        footer="Plafond Inc., a Delaware corporation.",
    )


def yen_receipt() -> Receipt:
    """A currency without decimals."""
    return a_receipt(language="ja", locale="ja-JP", currency="JPY", bill_to=JAPANESE, amount_minor=34_540)


def receipt_of_nothing() -> Receipt:
    """Money that came for a change that could not be made, from an account without a company; it went back."""
    return a_receipt(
        kind=PaperKind.REFUND_RECEIPT,
        language="nl",
        locale="nl-NL",
        bill_to=Party(name="gouden-leeuw", country=""),
        invoice_number=None,
    )


def long_receipt() -> Receipt:
    """Names and words without an end."""
    paper = long_names()
    return a_receipt(
        language="de",
        locale="de-DE",
        issuer=paper.issuer,
        bill_to=paper.bill_to,
        amount_minor=2**53 - 1,
        pays_by=None,
        reference="R" * 140,
        footer=paper.footer,
    )


def in_language(language: str, locale: str) -> Paper:
    """The usual document in a language."""
    return a_paper(
        *usual_lines(language), language=language, locale=locale, bill_to=SPANISH if language == "es" else GERMAN
    )


WITH_XML = {
    make.__name__: make
    for make in (
        domestic,
        two_rates,
        reverse_charge,
        outside_scope,
        exempt,
        with_credits,
        with_balance,
        paid_by_balance,
        carried_in,
        credit_note,
        refund,
        without_other_ids,
        negative_price,
        in_yen,
        long_names,
    )
}
WITHOUT_XML = {make.__name__: make for make in (in_dinars, american)}
RECEIPTS = {
    make.__name__: make
    for make in (card_receipt, transfer_receipt, refund_receipt, yen_receipt, receipt_of_nothing, long_receipt)
}


def usage_report(language: str = "de", locale: str = "de-DE", **given: Any) -> UsageReport:
    """A month by day: a counter near its limit, one that nobody used, seats above theirs, and one without a limit."""
    first = datetime(2026, 11, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    starts = tuple(first + timedelta(days=day) for day in range(30))
    sends = tuple(900 + (day * 7919) % 1700 if day % 7 < 5 else 120 for day in range(30))
    seats = (8,) * 9 + (11,) * 12 + (16,) * 9
    values: dict[str, Any] = {
        "kind": PaperKind.USAGE_REPORT,
        "number": "usage-0198c2f4",
        "language": language,
        "locale": locale,
        "size": PaperSize.A4,
        "issued_on": date(2026, 11, 28),
        "issuer": GERMAN_SELLER,
        "bill_to": GERMAN,
        "account_name": "Müller Versand",
        "zone": "Europe/Berlin",
        "granularity": Granularity.DAY,
        "starts": starts,
        "starts_on": date(2026, 11, 1),
        "ends_on": date(2026, 11, 30),
        "metrics": (
            ReportMetric(
                name="Email sends",
                unit="email",
                is_gauge=False,
                quantities=sends,
                limit=50_000,
                periods=(
                    ReportPeriod(
                        starts_on=date(2026, 10, 15),
                        ends_on=date(2026, 11, 14),
                        used=52_310,
                        limit=50_000,
                        knows_limit=True,
                        is_running=False,
                    ),
                    ReportPeriod(
                        starts_on=date(2026, 11, 15),
                        ends_on=date(2026, 12, 14),
                        used=46_100,
                        limit=50_000,
                        knows_limit=True,
                        is_running=True,
                    ),
                ),
            ),
            ReportMetric(name="Team members", unit="member", is_gauge=True, quantities=seats, limit=15),
            ReportMetric(name="Workspaces", unit="workspace", is_gauge=True, quantities=(4,) * 30, limit=None),
            ReportMetric(name="Custom domains", unit="domain", is_gauge=True, quantities=(0,) * 30, limit=15),
        ),
    }
    return UsageReport(**{**values, **given})
