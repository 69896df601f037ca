"""The words of documents: every language says everything, and figures are the locale's own."""

import re
from datetime import date

import pytest

from plafond.services import wording
from plafond.services.wording import (
    LANGUAGES,
    agree,
    describe_line,
    format_day,
    format_days,
    format_money,
    format_number,
    format_rate,
    name_country,
    word,
)

FACTS: list[tuple[str, dict[str, object]]] = [
    ("SUBSCRIPTION", {"plan": "Professional", "interval": "MONTH"}),
    ("SUBSCRIPTION", {"plan": "Professional", "interval": "YEAR"}),
    ("ADD_ON", {"name": "Additional user", "quantity": 3}),
    ("OVERAGE", {"metric": "Email sends", "blocks": 3, "block": 10_000}),
    ("PRORATION_CHARGE", {"name": "Professional"}),
    ("PRORATION_CREDIT", {"name": "Starter"}),
    ("CORRECTION", {"metric": "Email sends", "start": date(2026, 10, 1), "end": date(2026, 10, 31)}),
    ("CREDIT", {"name": "Professional"}),
]


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("table", ["_WORDS", "_LINES", "_NOTICES"])
def test_every_language_says_everything(table: str) -> None:
    for key, texts in getattr(wording, table).items():
        assert len(texts) == len(LANGUAGES), key
        assert all(texts), key
        gaps = [sorted(re.findall(r"\{(\w+)\}", text)) for text in texts]
        assert gaps == [gaps[0]] * len(LANGUAGES), key


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("kind", "facts"), FACTS)
def test_a_line_is_described(kind: str, facts: dict[str, object], language: str) -> None:
    text = describe_line(kind, language, **facts)
    assert "{" not in text
    assert str(facts.get("plan") or facts.get("name") or facts.get("metric")) in text


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Email sends beyond the plan: 3 × 10,000"),
        ("de", "Email sends über den Tarif hinaus: 3 × 10.000"),
        ("ja", "Email sends 超過分：3 × 10,000"),
    ],
)
def test_figures_in_a_line_are_the_languages(language: str, text: str) -> None:
    assert plain(describe_line("OVERAGE", language, metric="Email sends", blocks=3, block=10_000)) == text


def test_names_with_braces_are_left_alone() -> None:
    assert describe_line("CREDIT", "en", name="{plan} {0}") == "Credit: {plan} {0}"


def test_another_language_is_english() -> None:
    assert word("pt", "invoice") == word("en", "invoice") == "Invoice"
    assert describe_line("CREDIT", "pt", name="x") == "Credit: x"


@pytest.mark.parametrize(
    ("minor", "currency", "locale", "text"),
    [
        (14_900, "USD", "en-US", "$149.00"),
        (-14_900, "EUR", "de-DE", "-149,00 €"),
        (14_900, "EUR", "fr-FR", "149,00 €"),
        (14_900, "EUR", "de-AT", "€ 149,00"),
        (14_900, "JPY", "ja-JP", "￥14,900"),
        (14_900, "JPY", "en-US", "¥14,900"),
        (1_234_567, "KWD", "en-US", "KWD1,234.567"),
        (1_000, "HUF", "de-DE", "10,00 HUF"),
        (2**53 - 1, "EUR", "de-DE", "90.071.992.547.409,91 €"),
        (14_900, "USD", "tlh", "$149.00"),
        (14_900, "USD", "../../etc", "$149.00"),
    ],
)
def test_money_has_the_decimals_of_its_currency(minor: int, currency: str, locale: str, text: str) -> None:
    assert plain(format_money(minor, currency, locale)) == text


@pytest.mark.parametrize(
    ("rate", "locale", "text"),
    [
        (200_000, "en", "20%"),
        (88_750, "en", "8.875%"),
        (3_750, "en", "0.375%"),
        (55_000, "fr", "5,5 %"),
        (0, "de", "0 %"),
    ],
)
def test_rates_have_the_decimals_that_they_have(rate: int, locale: str, text: str) -> None:
    assert plain(format_rate(rate, locale)) == text


def test_days() -> None:
    first, last = date(2026, 11, 1), date(2026, 11, 30)
    assert format_day(first, "de-DE") == "1. November 2026"
    assert plain(format_days(first, last, "en-GB")) == "1–30 Nov 2026"
    assert plain(format_days(first, date(2027, 10, 31), "en-US")) == "Nov 1, 2026 – Oct 31, 2027"
    assert format_days(first, first, "ja") == "2026年11月1日"


def test_numbers_and_countries() -> None:
    assert format_number(10_000, "de-DE") == "10.000"
    assert name_country("DE", "fr") == "Allemagne"
    assert name_country("New York State", "en") == "New York State"


@pytest.mark.parametrize(
    ("locale", "language", "agreed"),
    [
        ("de-AT", "de", "de-AT"),
        ("de-AT", "en", "en-AT"),
        ("ar-KW", "en", "en"),
        ("ja-JP", "ja", "ja-JP"),
        ("pt-BR", "pt", "en"),
        ("??", "fr", "fr"),
    ],
)
def test_figures_agree_with_the_words(locale: str, language: str, agreed: str) -> None:
    assert agree(locale, language) == agreed
