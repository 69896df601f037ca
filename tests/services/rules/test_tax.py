"""Tax: who bears which, by the order of §2; per (jurisdiction, category, rate) on the sum of its rounded lines."""

from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plafond.services.rules.money import MAX_MINOR
from plafond.services.rules.tax import (
    EU,
    PPM,
    Exemption,
    TableRow,
    TaxAmount,
    TaxDecision,
    TaxParty,
    TaxRate,
    compute_taxes,
    credited_tax,
    decide_tax,
    tax_on,
)

TODAY = date(2026, 7, 1)
VIENNA = TaxParty("AT", vat_id="ATU12345678")
CERTIFICATE = Exemption("Diplomatic mission", date(2026, 1, 1), date(2027, 1, 1))
STANDARD = TaxRate("AT", "S", 200_000)
REDUCED = TaxRate("AT", "S", 100_000)


def row(
    country: str, rate_ppm: int, region: str = "", *, jurisdiction: str = "", line_kind: str | None = None
) -> TableRow:
    """A row that holds since 2020."""
    return TableRow(
        country=country,
        region=region,
        jurisdiction=jurisdiction or "-".join(filter(None, [country, region])),
        line_kind=line_kind,
        rate_ppm=rate_ppm,
        valid_from=date(2020, 1, 1),
    )


TABLE = [row("AT", 200_000), row("DE", 190_000), row("US", 40_000, "NY"), row("JP", 100_000)]

# -- who bears which --


def decide(customer: TaxParty, exemption: Exemption | None = None, issuer: TaxParty = VIENNA) -> TaxDecision:
    return decide_tax(issuer, customer, exemption, "SUBSCRIPTION", TODAY, TABLE)


def the_rate(decision: TaxDecision) -> tuple[str, int]:
    """Category and rate of a decision that is about one."""
    (rate,) = decision.rates
    return rate.category, rate.rate_ppm


@pytest.mark.parametrize("country", ["AT", "DE", "US", "KE"])
def test_1_a_certificate_goes_before_all_else(country: str) -> None:
    decision = decide(TaxParty(country, vat_id="DE123456789"), CERTIFICATE)
    assert the_rate(decision) == ("E", 0)
    assert decision.rates[0].reason == "Diplomatic mission"
    assert not decision.is_unknown


@pytest.mark.parametrize(
    ("tax_date", "category"),
    [(date(2025, 12, 31), "S"), (date(2026, 1, 1), "E"), (date(2026, 12, 31), "E"), (date(2027, 1, 1), "S")],
)
def test_1_a_certificate_counts_by_the_tax_date(tax_date: date, category: str) -> None:
    decision = decide_tax(VIENNA, TaxParty("AT"), CERTIFICATE, "SUBSCRIPTION", tax_date, TABLE)
    assert the_rate(decision)[0] == category


def test_1_a_certificate_without_an_end_goes_on() -> None:
    forever = Exemption("Diplomatic mission", date(2026, 1, 1))
    assert the_rate(decide_tax(VIENNA, TaxParty("AT"), forever, "OVERAGE", date(2099, 1, 1), TABLE)) == ("E", 0)


def test_2_another_eu_country_with_a_valid_id_is_reverse_charge() -> None:
    decision = decide(TaxParty("DE", vat_id="DE123456789"))
    assert the_rate(decision) == ("AE", 0)
    assert decision.rates[0].reason == "Reverse charge"
    assert not decision.is_unknown


@pytest.mark.parametrize("vat_id", [None, ""])
def test_2_without_a_valid_id_the_customers_country_taxes(vat_id: str | None) -> None:
    assert the_rate(decide(TaxParty("DE", vat_id=vat_id))) == ("S", 190_000)


def test_2_at_home_an_id_changes_nothing() -> None:
    assert the_rate(decide(TaxParty("AT", vat_id="ATU87654321"))) == ("S", 200_000)


def test_2_an_issuer_outside_of_the_eu_has_no_reverse_charge() -> None:
    assert the_rate(decide(TaxParty("DE", vat_id="DE123456789"), issuer=TaxParty("US"))) == ("S", 190_000)


@pytest.mark.parametrize(("country", "region"), [("US", "NY"), ("JP", ""), ("GB", ""), ("CH", ""), ("KE", "")])
def test_3_outside_of_the_eu_is_out_of_scope_whatever_the_table_has(country: str, region: str) -> None:
    decision = decide(TaxParty(country, region, "GB123456789"))
    assert the_rate(decision) == ("O", 0)
    assert not decision.is_unknown


def test_4_every_row_of_country_and_region_counts() -> None:
    """A state, a county and a city."""
    table = [
        row("US", 40_000, "NY", jurisdiction="US-NY"),
        row("US", 45_000, "NY", jurisdiction="US-NY-NYC"),
        row("US", 3_750, "NY", jurisdiction="US-NY-MCTD"),
        row("US", 72_500, "CA"),
        row("CA", 50_000),
    ]
    decision = decide_tax(TaxParty("US"), TaxParty("US", "NY"), None, "SUBSCRIPTION", TODAY, table)
    assert {(rate.jurisdiction, rate.category, rate.rate_ppm) for rate in decision.rates} == {
        ("US-NY", "S", 40_000),
        ("US-NY-NYC", "S", 45_000),
        ("US-NY-MCTD", "S", 3_750),
    }


def test_4_a_row_without_a_region_holds_for_the_whole_country() -> None:
    table = [row("CA", 50_000), row("CA", 99_750, "QC")]
    seller = TaxParty("CA", "ON")
    quebec = decide_tax(seller, TaxParty("CA", "QC"), None, "SUBSCRIPTION", TODAY, table)
    assert sorted(rate.rate_ppm for rate in quebec.rates) == [50_000, 99_750]
    assert the_rate(decide_tax(seller, TaxParty("CA", "AB"), None, "SUBSCRIPTION", TODAY, table)) == ("S", 50_000)


def test_4_a_row_may_be_for_one_kind_of_line() -> None:
    table = [row("JP", 100_000, line_kind="SUBSCRIPTION"), row("JP", 80_000, line_kind="OVERAGE")]
    japan = TaxParty("JP")
    assert the_rate(decide_tax(japan, japan, None, "SUBSCRIPTION", TODAY, table)) == ("S", 100_000)
    assert the_rate(decide_tax(japan, japan, None, "OVERAGE", TODAY, table)) == ("S", 80_000)
    assert decide_tax(japan, japan, None, "ADD_ON", TODAY, table).is_unknown


@pytest.mark.parametrize(
    ("tax_date", "rate_ppm"), [(date(2020, 6, 30), 190_000), (date(2020, 7, 1), 160_000), (date(2021, 1, 1), 190_000)]
)
def test_4_rows_count_by_the_tax_date(tax_date: date, rate_ppm: int) -> None:
    """Germany's half year of 16 %."""
    table = [
        TableRow(country="DE", jurisdiction="DE", rate_ppm=ppm, valid_from=since, valid_to=until)
        for ppm, since, until in [
            (190_000, date(2007, 1, 1), date(2020, 7, 1)),
            (160_000, date(2020, 7, 1), date(2021, 1, 1)),
            (190_000, date(2021, 1, 1), None),
        ]
    ]
    germany = TaxParty("DE")
    assert the_rate(decide_tax(germany, germany, None, "SUBSCRIPTION", tax_date, table)) == ("S", rate_ppm)


@pytest.mark.parametrize("table", [[], [row("DE", 190_000)]])
def test_5_where_nothing_is_registered_there_is_none_and_operators_hear_of_it(table: list[TableRow]) -> None:
    decision = decide_tax(TaxParty("US"), TaxParty("KE"), None, "SUBSCRIPTION", TODAY, table)
    assert the_rate(decision) == ("O", 0)
    assert decision.is_unknown


def test_5_an_eu_customer_without_an_id_and_without_rows_is_unknown() -> None:
    decision = decide(TaxParty("FR"))
    assert the_rate(decision) == ("O", 0)
    assert decision.is_unknown


def test_the_eu_has_27_members() -> None:
    assert len(EU) == 27
    assert {"GR", "HR", "IE", "MT"} < EU
    assert EU.isdisjoint({"GB", "CH", "NO", "IS", "LI", "TR", "UA", "EL", "XI", "US"})


parties = st.builds(
    TaxParty,
    st.sampled_from(["AT", "DE", "FR", "GR", "US", "GB", "JP", "CH"]),
    st.sampled_from(["", "NY", "CA"]),
    st.sampled_from([None, "", "VALID"]),
)
dates = st.dates(date(2025, 12, 1), date(2027, 2, 1))
ends = st.none() | st.dates(date(2026, 1, 1), date(2027, 2, 1))
exemptions = st.none() | st.builds(Exemption, st.just("Certificate"), dates, ends)
kinds = st.sampled_from(["SUBSCRIPTION", "OVERAGE", "ADD_ON"])
tables = st.lists(
    st.builds(
        TableRow,
        country=st.sampled_from(["AT", "DE", "US", "JP"]),
        region=st.sampled_from(["", "NY"]),
        jurisdiction=st.uuids().map(str),
        line_kind=st.none() | kinds,
        rate_ppm=st.integers(0, PPM),
        valid_from=dates,
        valid_to=ends,
    ),
    max_size=8,
)


def holds(since: date, until: date | None, at: date) -> bool:
    return since <= at and (until is None or at < until)


def by_the_rules(
    issuer: TaxParty, customer: TaxParty, exemption: Exemption | None, kind: str, at: date, table: list[TableRow]
) -> tuple[set[tuple[str, int]], bool]:
    """The categories and rates by the sentences of §2, and whether operators get a notice."""
    eu_seller, eu_buyer = issuer.country in EU, customer.country in EU
    if exemption and holds(exemption.valid_from, exemption.valid_to, at):
        return {("E", 0)}, False
    if eu_seller and eu_buyer and issuer.country != customer.country and customer.vat_id:
        return {("AE", 0)}, False
    if eu_seller and not eu_buyer:
        return {("O", 0)}, False
    found = {
        ("S", item.rate_ppm)
        for item in table
        if item.country == customer.country
        and (not item.region or item.region == customer.region)
        and (item.line_kind is None or item.line_kind == kind)
        and holds(item.valid_from, item.valid_to, at)
    }
    return (found, False) if found else ({("O", 0)}, True)


@given(issuer=parties, customer=parties, exemption=exemptions, kind=kinds, at=dates, table=tables)
def test_the_first_of_the_five_that_holds_decides(
    issuer: TaxParty, customer: TaxParty, exemption: Exemption | None, kind: str, at: date, table: list[TableRow]
) -> None:
    decision = decide_tax(issuer, customer, exemption, kind, at, table)
    found = {(rate.category, rate.rate_ppm) for rate in decision.rates}
    assert (found, decision.is_unknown) == by_the_rules(issuer, customer, exemption, kind, at, table)


@given(issuer=parties, customer=parties, exemption=exemptions, kind=kinds, at=dates, table=tables)
@settings(max_examples=50)
def test_a_decision_is_never_empty_and_has_one_category(
    issuer: TaxParty, customer: TaxParty, exemption: Exemption | None, kind: str, at: date, table: list[TableRow]
) -> None:
    """`O` never stands beside another, and all but `S` are of rate 0 and say why."""
    rates = decide_tax(issuer, customer, exemption, kind, at, table).rates
    (category,) = {rate.category for rate in rates}
    if category != "S":
        (rate,) = rates
        assert rate.rate_ppm == 0
        assert rate.reason


@given(issuer=parties, customer=parties, kind=kinds, at=dates, table=tables, data=st.data())
@settings(max_examples=50)
def test_the_order_of_the_table_makes_no_difference(
    issuer: TaxParty, customer: TaxParty, kind: str, at: date, table: list[TableRow], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(table))
    assert decide_tax(issuer, customer, None, kind, at, table) == decide_tax(issuer, customer, None, kind, at, shuffled)


# -- what they come to --

RATES = [
    STANDARD,
    REDUCED,
    TaxRate("AT", "E", 0, "Exempt"),
    TaxRate("DE", "S", 190_000),
    TaxRate("US-NY", "S", 40_000),
    TaxRate("US-NY-NYC", "S", 45_000),
    TaxRate("US-NY-MCTD", "S", 3_750),
    TaxRate("FR", "AE", 0, "Reverse charge"),
]
"""No two have jurisdiction, category and rate in common."""

amounts = st.integers(-(10**10), 10**10)
charges = st.integers(0, 10**10)
one_rate = st.sampled_from(RATES).map(lambda rate: [rate])
some_rates = st.lists(st.sampled_from(RATES), unique=True, max_size=4)


def document(
    nets: st.SearchStrategy[int], rates: st.SearchStrategy[list[TaxRate]]
) -> st.SearchStrategy[list[tuple[int, list[TaxRate]]]]:
    """Lines of a document: net and taxes."""
    return st.lists(st.tuples(nets, rates), max_size=12)


def test_case_14_tax_is_on_the_sum_of_the_rounded_lines() -> None:
    """Hard case 14: 3 × 0.33 at 20 % is 0.20, not three times 0.07."""
    assert compute_taxes([(33, [STANDARD])] * 3) == [TaxAmount(STANDARD, 99, 20)]


def test_case_14_each_rate_has_its_own_row() -> None:
    """Hard case 14: two rates; total = net + taxes exactly."""
    lines = [(33, [STANDARD]), (45, [REDUCED]), (33, [STANDARD]), (33, [STANDARD])]
    taxes = {item.rate: (item.taxable_minor, item.amount_minor) for item in compute_taxes(lines)}
    assert taxes == {STANDARD: (99, 20), REDUCED: (45, 5)}  # 19.8 and 4.5
    assert sum(net for net, _ in lines) + sum(amount for _, amount in taxes.values()) == 144 + 25


def test_case_14_several_taxes_of_one_line_are_each_rounded() -> None:
    """A state and a city: 10 × 4 % and 10 × 4.5 % are both 0, though together they would be 1."""
    state, city = TaxRate("US-NY", "S", 40_000), TaxRate("US-NY-NYC", "S", 45_000)
    assert compute_taxes([(10, [state, city])]) == [TaxAmount(state, 10, 0), TaxAmount(city, 10, 0)]


def test_case_14_a_credit_line_lowers_what_is_taxed() -> None:
    """Hard cases 8 and 14: the lines −1965 and 6706 at 20 %: 948.2 on their sum."""
    assert compute_taxes([(-1_965, [STANDARD]), (6_706, [STANDARD])]) == [TaxAmount(STANDARD, 4_741, 948)]


def test_a_rate_of_0_has_its_row_too() -> None:
    charge = TaxRate("DE", "AE", 0, "Reverse charge")
    assert compute_taxes([(4_900, [charge])]) == [TaxAmount(charge, 4_900, 0)]


def test_the_same_rate_of_two_categories_or_jurisdictions_is_kept_apart() -> None:
    rates = [TaxRate("AT", "S", 100_000), TaxRate("AT", "Z", 100_000), TaxRate("DE", "S", 100_000)]
    assert [item.amount_minor for item in compute_taxes([(10, [rate]) for rate in rates])] == [1, 1, 1]


def test_without_lines_there_is_no_tax() -> None:
    assert compute_taxes([]) == []


@pytest.mark.parametrize(
    ("taxable", "rate_ppm", "tax"),
    [
        (99, 200_000, 20),
        (5, 100_000, 1),  # 0.5 goes away from zero
        (-5, 100_000, -1),
        (4, 100_000, 0),
        (-4, 100_000, 0),
        (1_000, 88_750, 89),  # New York City's 8.875 %: 88.75
        (0, 200_000, 0),
        (4_900, 0, 0),
        (MAX_MINOR, PPM, MAX_MINOR),
        (MAX_MINOR, 1, 9_007_199_255),  # a float would lose the last digits
    ],
)
def test_case_13_tax_is_rounded_half_away_from_zero(taxable: int, rate_ppm: int, tax: int) -> None:
    """Hard case 13."""
    assert tax_on(taxable, rate_ppm) == tax


@given(taxable=st.integers(-MAX_MINOR, MAX_MINOR), rate_ppm=st.integers(0, PPM))
def test_tax_is_exact_but_for_one_rounding_and_symmetric(taxable: int, rate_ppm: int) -> None:
    """Hard case 13."""
    exact, tax = Fraction(taxable * rate_ppm, PPM), tax_on(taxable, rate_ppm)
    assert abs(tax - exact) <= Fraction(1, 2)
    assert abs(tax - exact) < Fraction(1, 2) or abs(tax) > abs(exact)
    assert tax_on(-taxable, rate_ppm) == -tax


@given(lines=document(amounts, one_rate))
def test_case_14_total_is_net_plus_taxes(lines: list[tuple[int, list[TaxRate]]]) -> None:
    """Hard case 14: every line stands under exactly one row, and each row is rounded once."""
    taxes = compute_taxes(lines)
    assert sum(item.taxable_minor for item in taxes) == sum(net for net, _ in lines)
    assert len({(item.rate.jurisdiction, item.rate.category, item.rate.rate_ppm) for item in taxes}) == len(taxes)
    exact = sum((Fraction(net * rate.rate_ppm, PPM) for net, (rate,) in lines), Fraction(0))
    assert abs(sum(item.amount_minor for item in taxes) - exact) <= Fraction(len(taxes), 2)


@given(lines=document(amounts, some_rates))
def test_case_14_each_row_is_the_sum_of_its_lines(lines: list[tuple[int, list[TaxRate]]]) -> None:
    """Hard case 14, with several taxes on a line or none."""
    taxes = {item.rate: item for item in compute_taxes(lines)}
    assert taxes.keys() == {rate for _, rates in lines for rate in rates}
    for rate, item in taxes.items():
        assert item.taxable_minor == sum(net for net, rates in lines if rate in rates)
        assert item.amount_minor == tax_on(item.taxable_minor, rate.rate_ppm)


@given(lines=document(amounts, some_rates), data=st.data())
@settings(max_examples=50)
def test_the_order_of_lines_and_rates_makes_no_difference(
    lines: list[tuple[int, list[TaxRate]]], data: st.DataObject
) -> None:
    """The same rows in the same order, whatever the order of the lines and of each line's taxes."""
    shuffled = [(net, data.draw(st.permutations(rates))) for net, rates in data.draw(st.permutations(lines))]
    assert compute_taxes(shuffled) == compute_taxes(lines)


@given(lines=document(amounts, some_rates))
@settings(max_examples=50)
def test_a_document_turned_round_gives_the_tax_back(lines: list[tuple[int, list[TaxRate]]]) -> None:
    turned = compute_taxes([(-net, rates) for net, rates in lines])
    assert [(item.rate, -item.taxable_minor, -item.amount_minor) for item in turned] == [
        (item.rate, item.taxable_minor, item.amount_minor) for item in compute_taxes(lines)
    ]


@given(net=charges, cut=st.integers(0, 10**10), rate=st.sampled_from(RATES))
def test_cutting_a_line_in_two_makes_no_difference(net: int, cut: int, rate: TaxRate) -> None:
    """Hard case 14: tax is on the sum, so that it does not matter how many lines it stands on."""
    cut = min(cut, net)
    assert compute_taxes([(cut, [rate]), (net - cut, [rate])]) == compute_taxes([(net, [rate])])


# -- what of them is credited --


def test_three_credits_return_the_tax_exactly() -> None:
    """33 + 33 + 34 of 100 at 7.5 %: 7.5 is 8, and so are 2 + 3 + 3."""
    taxes: list[int] = []
    for before, net in [(0, 33), (33, 33), (66, 34)]:
        taxes.append(credited_tax(before, net, sum(taxes), 75_000))
    assert (taxes, sum(taxes)) == ([2, 3, 3], tax_on(100, 75_000))


@given(credits=st.lists(charges, min_size=1, max_size=12), rate_ppm=st.integers(0, PPM))
def test_credits_return_the_tax_exactly_and_never_more(credits: list[int], rate_ppm: int) -> None:
    """§7: tax of the k-th credit = round(tax on all net credited so far) − tax credited so far."""
    whole = tax_on(sum(credits), rate_ppm)
    net_before = tax_before = 0
    for net in credits:
        tax = credited_tax(net_before, net, tax_before, rate_ppm)
        assert abs(tax - Fraction(net * rate_ppm, PPM)) <= 1
        assert tax >= 0
        net_before, tax_before = net_before + net, tax_before + tax
        assert tax_before == tax_on(net_before, rate_ppm) <= whole
    assert tax_before == whole
