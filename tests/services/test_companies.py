"""Companies, with what depends on their country, and exemptions from tax."""

from contextlib import suppress
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from plafond.models import AuditEntry, BillingAccount, Company, OutboxEvent, TaxExemption
from plafond.services.accounts import create_account
from plafond.services.companies import Certificate, _check_tax_id, check_vat_id, set_tax_exemption, update_company
from plafond.services.errors import InvalidInput, NotFound, Refusals
from plafond.services.papers import PaperSize
from plafond.services.rules.countries import COUNTRIES

from ..conftest import NOW, World
from .helpers import ACTOR
from .test_accounts import paths, rows_of

PATH = ["input", "vatId"]
CERTIFICATE = Certificate("AT-77", "Diplomatic mission", date(2026, 1, 1), date(2027, 1, 1))


@pytest.fixture
async def account(world: World) -> BillingAccount:
    async with world.database.work(ACTOR) as work:
        return await create_account(work, "quill", {"name": "Quill", "currency": "EUR", "timezone": "UTC"})


async def change(world: World, account: BillingAccount, **given: Any) -> Company:
    fields: Any = given
    async with world.database.work(ACTOR) as work:
        await update_company(work, account.id, fields)
        return (await work.session.scalars(select(Company).where(Company.account_id == account.id))).one()


async def refused(world: World, account: BillingAccount, **given: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refusal:
        await change(world, account, **given)
    return paths(refusal.value)


async def test_a_company_is_made_with_name_and_country(world: World, account: BillingAccount) -> None:
    world.clock.stands_at += timedelta(hours=1)
    company = await change(world, account, legal_name="Quill GmbH", country="AT")
    assert (company.legal_name, company.country, company.vat_id, company.address_lines) == (
        "Quill GmbH",
        "AT",
        None,
        [],
    )
    (told,) = (await rows_of(world, OutboxEvent, account))[1:]
    assert told.kind == "account.updated"
    assert told.payload == {"accountId": str(account.id), "changed": ["company"]}
    (entry,) = (await rows_of(world, AuditEntry, account))[1:]
    assert (entry.action, entry.object, entry.before) == ("company.created", f"company:{company.id}", {})
    assert entry.after["legalName"] == "Quill GmbH"
    async with world.database.read() as session:
        stored = (await session.scalars(select(BillingAccount).where(BillingAccount.id == account.id))).one()
    assert stored.updated_at == NOW + timedelta(hours=1)


async def test_the_first_time_both_are_needed(world: World, account: BillingAccount) -> None:
    with pytest.raises(Refusals) as refusal:
        await change(world, account, city="Wien")
    assert paths(refusal.value) == ["input.legalName", "input.country"]


async def test_later_only_what_is_given_changes(world: World, account: BillingAccount) -> None:
    made = await change(
        world,
        account,
        legal_name="Quill GmbH",
        country="AT",
        address_lines=["Ring 1", "Stiege 2"],
        postal_code="1010",
        city="Wien",
        region="9",
        vat_id="atu 1358 5627",
        tax_ids=[{"label": "FN", "value": "123456a"}],
        email="buch@quill.example",
        paper_size=PaperSize.A4,
        purchase_order="PO-1",
        footer="Danke",
    )
    assert (made.vat_id, made.tax_ids, made.paper_size) == ("ATU13585627", {"FN": "123456a"}, "A4")
    world.clock.stands_at += timedelta(hours=1)
    changed = await change(world, account, city="Graz", footer=None, tax_ids=[], paper_size=None)
    assert (changed.city, changed.footer, changed.tax_ids, changed.paper_size) == ("Graz", None, {}, None)
    assert (changed.legal_name, changed.vat_id, changed.postal_code) == ("Quill GmbH", "ATU13585627", "1010")
    assert (changed.created_at, changed.updated_at) == (NOW, NOW + timedelta(hours=1))
    entry = (await rows_of(world, AuditEntry, account))[-1]
    assert entry.action == "company.updated"
    assert entry.before == {"city": "Wien", "footer": "Danke", "taxIds": {"FN": "123456a"}, "paperSize": "A4"}
    assert entry.after == {"city": "Graz", "footer": None, "taxIds": {}, "paperSize": None}
    cleared = await change(world, account, city="", region=None, vat_id="", email=None, address_lines=None)
    assert (cleared.city, cleared.region, cleared.vat_id, cleared.email, cleared.address_lines) == (
        "",
        "",
        None,
        None,
        [],
    )


async def test_nothing_new_leaves_no_trace(world: World, account: BillingAccount) -> None:
    await change(world, account, legal_name="Quill GmbH", country="AT", vat_id="ATU13585627")
    before = len(await rows_of(world, AuditEntry, account))
    await change(world, account, legal_name=" Quill GmbH", vat_id="U13585627")
    assert len(await rows_of(world, AuditEntry, account)) == before


REFUSED: list[tuple[str, Any]] = [
    ("legalName", {"legal_name": None}),
    ("legalName", {"legal_name": " "}),
    ("legalName", {"legal_name": "x" * 256}),
    ("legalName", {"legal_name": "a\nb"}),
    ("country", {"country": "at"}),
    ("country", {"country": "XX"}),
    ("country", {"country": "EU"}),
    ("country", {"country": "AUT"}),
    ("country", {"country": ""}),
    ("country", {"country": None}),
    ("addressLines", {"address_lines": ["a"] * 5}),
    ("addressLines.1", {"address_lines": ["a", ""]}),
    ("addressLines.0", {"address_lines": ["a" * 101]}),
    ("addressLines.0", {"address_lines": ["a\x00"]}),
    ("postalCode", {"postal_code": "1" * 21}),
    ("city", {"city": "x" * 101}),
    ("city", {"city": "a\u202eb"}),
    ("region", {"region": "Wien"}),
    ("vatId", {"vat_id": "ATU13585626"}),
    ("vatId", {"vat_id": "DE136695976"}),
    ("vatId", {"vat_id": "1" * 51}),
    ("vatId", {"vat_id": "\x00"}),
    ("taxIds", {"tax_ids": [{"label": str(n), "value": "1"} for n in range(11)]}),
    ("taxIds.1.label", {"tax_ids": [{"label": "FN", "value": "1"}, {"label": " FN", "value": "2"}]}),
    ("taxIds.0.label", {"tax_ids": [{"label": "", "value": "1"}]}),
    ("taxIds.0.value", {"tax_ids": [{"label": "FN", "value": "1" * 51}]}),
    ("email", {"email": "quill"}),
    ("email", {"email": "a@b"}),
    ("email", {"email": "a@b.example, c@d.example"}),
    ("email", {"email": "Quill <a@b.example>"}),
    ("email", {"email": "a@b.example\nBcc: c@d.example"}),
    ("email", {"email": "a@" + "b" * 250 + ".example"}),
    ("purchaseOrder", {"purchase_order": "x" * 101}),
    ("footer", {"footer": "x" * 501}),
]


@pytest.mark.parametrize(("field", "given"), REFUSED, ids=range(len(REFUSED)))
async def test_what_does_not_fit_is_refused_with_its_field(
    world: World, account: BillingAccount, field: str, given: Any
) -> None:
    fields = {"legal_name": "Quill GmbH", "country": "AT"} | given
    assert await refused(world, account, **fields) == [f"input.{field}"]


async def test_in_us_and_ca_region_and_postal_code_are_needed(world: World, account: BillingAccount) -> None:
    for country in ("US", "CA"):
        with pytest.raises(Refusals) as refusal:
            await change(world, account, legal_name="Quill Inc", country=country)
        assert paths(refusal.value) == ["input.region", "input.postalCode"]


@pytest.mark.parametrize(
    ("country", "region", "postal_code", "kept"),
    [
        ("US", "NY", "10001", ("NY", "10001")),
        ("US", "us-ny", "100012345", ("NY", "10001-2345")),
        ("US", "PR", "00901-1234", ("PR", "00901-1234")),
        ("CA", "ON", "k1a0b1", ("ON", "K1A 0B1")),
        ("CA", "CA-QC", "H2X 1Y4", ("QC", "H2X 1Y4")),
        ("AT", "AT-9", "1010", ("9", "1010")),
        ("HK", "", "", ("", "")),
    ],
)
async def test_a_place_is_kept_in_its_country_s_form(
    world: World, account: BillingAccount, country: str, region: str, postal_code: str, kept: tuple[str, str]
) -> None:
    company = await change(world, account, legal_name="Quill", country=country, region=region, postal_code=postal_code)
    assert (company.region, company.postal_code) == kept


@pytest.mark.parametrize(
    ("country", "region", "postal_code", "field"),
    [
        ("US", "ON", "10001", "region"),
        ("US", "New York", "10001", "region"),
        ("US", "NY", "1000", "postalCode"),
        ("US", "NY", "10001-23", "postalCode"),
        ("US", "NY", "１０００１", "postalCode"),
        ("CA", "NY", "K1A 0B1", "region"),
        ("CA", "ON", "10001", "postalCode"),
        ("CA", "ON", "D1A 0B1", "postalCode"),
    ],
)
async def test_a_place_of_another_country_s_form_is_refused(
    world: World, account: BillingAccount, country: str, region: str, postal_code: str, field: str
) -> None:
    assert await refused(
        world, account, legal_name="Quill", country=country, region=region, postal_code=postal_code
    ) == [f"input.{field}"]


async def test_a_new_country_needs_what_it_asks_for(world: World, account: BillingAccount) -> None:
    await change(world, account, legal_name="Quill GmbH", country="AT", postal_code="1010", vat_id="ATU13585627")
    with pytest.raises(Refusals) as refusal:
        await change(world, account, country="US")
    assert paths(refusal.value) == ["input.region", "input.postalCode", "input.vatId"]
    company = await change(world, account, country="US", region="NY", postal_code="10001", vat_id=None)
    assert (company.country, company.vat_id) == ("US", None)


async def test_what_has_nothing_to_do_with_the_place_asks_for_none(world: World, account: BillingAccount) -> None:
    await change(world, account, legal_name="Quill GmbH", country="AT")
    async with world.database.work(ACTOR) as work:
        company = (await work.session.scalars(select(Company).where(Company.account_id == account.id))).one()
        company.vat_id = "ATU00000000"  # from before the check
    assert (await change(world, account, footer="Danke")).footer == "Danke"


@pytest.mark.parametrize(
    ("country", "given", "kept"),
    [
        ("AT", "ATU13585627", "ATU13585627"),
        ("AT", "U13585627", "ATU13585627"),
        ("DE", "de 136 695 976", "DE136695976"),
        ("BE", "BE 428759497", "BE0428759497"),
        ("GR", "EL 094259216", "EL094259216"),
        ("GR", "GR094259216", "EL094259216"),
        ("GR", "094259216", "EL094259216"),
        ("RO", "RO 185 472 90", "RO18547290"),
        ("RO", "18547290", "RO18547290"),
        ("FR", "FR 23 334 175 221", "FR23334175221"),
        ("NL", "NL004495445B01", "NL004495445B01"),
        ("IE", "IE6433435OA", "IE6433435OA"),
        ("GB", "GB 980 7806 84", "GB980780684"),
        ("CH", "CHE-107.787.577 IVA", "CHE107787577IVA"),
        ("MC", "53 0000 04605", "FR53000004605"),
        ("NO", "NO 995 525 828 MVA", "NO995525828MVA"),
        ("AU", "AU 83 914 571 673", "AU83914571673"),
        ("CA", "123026635RC0001", "CA123026635RC0001"),
    ],
)
def test_a_vat_id_is_kept_compact_with_its_prefix(country: str, given: str, kept: str) -> None:
    assert check_vat_id(country, given, PATH) == kept
    assert check_vat_id(country, kept, PATH) == kept


def test_a_swiss_id_without_its_suffix_is_told_of_it() -> None:
    with pytest.raises(InvalidInput, match="It ends in MWST, TVA, IVA or TPV"):
        check_vat_id("CH", "CHE-107.787.577", PATH)


@pytest.mark.parametrize("country", ["US", "HK", "AE"])
def test_where_no_rule_is_known_an_id_is_no_vat_id(country: str) -> None:
    with pytest.raises(InvalidInput, match="taxIds"):
        check_vat_id(country, "12-3456789", PATH)


@given(country=st.sampled_from(sorted(COUNTRIES)), text=st.text(max_size=16) | st.from_regex(r"[A-Z0-9 .-]{1,16}"))
def test_whatever_is_typed_is_an_id_or_refused(country: str, text: str) -> None:
    try:
        kept = check_vat_id(country, text, PATH)
    except InvalidInput:
        return
    assert check_vat_id(country, kept, PATH) == kept


async def test_an_unknown_account_is_not_found(world: World) -> None:
    async with world.database.work(ACTOR) as work:
        with pytest.raises(NotFound):
            await update_company(work, uuid4(), {"legal_name": "x", "country": "AT"})
        with pytest.raises(NotFound):
            await set_tax_exemption(work, uuid4(), None)


async def exempt(world: World, account: BillingAccount, certificate: Certificate | None) -> None:
    async with world.database.work(ACTOR) as work:
        await set_tax_exemption(work, account.id, certificate)


async def test_an_exemption_is_set_replaced_and_taken_away(world: World, account: BillingAccount) -> None:
    await exempt(world, account, CERTIFICATE)
    (row,) = await rows_of(world, TaxExemption, account)
    assert (row.certificate, row.reason, row.valid_from, row.valid_to) == (
        "AT-77",
        "Diplomatic mission",
        date(2026, 1, 1),
        date(2027, 1, 1),
    )
    await exempt(world, account, CERTIFICATE)
    await exempt(world, account, Certificate("AT-78", "Diplomatic mission", date(2026, 1, 1), None))
    await exempt(world, account, None)
    await exempt(world, account, None)
    assert await rows_of(world, TaxExemption, account) == []
    entries = (await rows_of(world, AuditEntry, account))[1:]
    assert [entry.action.partition(".")[2] for entry in entries] == ["created", "updated", "removed"]
    assert entries[1].before == {"certificate": "AT-77", "validTo": "2027-01-01"}
    assert entries[1].after == {"certificate": "AT-78", "validTo": None}
    assert entries[2].before["certificate"] == "AT-78"
    told = (await rows_of(world, OutboxEvent, account))[1:]
    assert [event.payload["changed"] for event in told] == [["taxExemption"]] * 3


@pytest.mark.parametrize(
    ("certificate", "field"),
    [
        (Certificate("", "r", date(2026, 1, 1), None), "certificate"),
        (Certificate("x" * 101, "r", date(2026, 1, 1), None), "certificate"),
        (Certificate("c", "a\nb", date(2026, 1, 1), None), "reason"),
        (Certificate("c", "x" * 256, date(2026, 1, 1), None), "reason"),
        (Certificate("c", "r", date(2026, 1, 1), date(2026, 1, 1)), "validTo"),
        (Certificate("c", "r", date(2026, 1, 2), date(2026, 1, 1)), "validTo"),
    ],
)
async def test_a_certificate_that_does_not_fit_is_refused(
    world: World, account: BillingAccount, certificate: Certificate, field: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await exempt(world, account, certificate)
    assert paths(refusal.value) == [f"input.exemption.{field}"]


@pytest.mark.parametrize(
    ("country", "given", "says"),
    [
        ("DE", {"postal_code": "1011"}, "In DE `postalCode` has another form, such as "),
        ("DE", {"postal_code": "１０１１５"}, "In DE `postalCode` has another form, such as "),
        ("DE", {"postal_code": "10115 x"}, "In DE `postalCode` has another form, such as "),
        ("GB", {"postal_code": "GIR 0AA x"}, "In GB `postalCode` has another form, such as "),
        ("LU", {"postal_code": "L-475"}, "In LU `postalCode` has another form, such as "),
        ("GB", {"postal_code": "10118"}, "In GB `postalCode` has another form, such as "),
        ("JP", {"postal_code": "104"}, "In JP `postalCode` has another form, such as "),
        ("AT", {"vat_id": "ATU13585626"}, "its check digit is wrong"),
        ("AT", {"vat_id": "ATU135856"}, "it has too few or too many characters"),
        ("AT", {"vat_id": "ATX13585627"}, "its form is wrong"),
        ("AU", {"tax_ids": [{"label": "ABN", "value": "53 004 085 617"}]}, "its check digit is wrong"),
        ("US", {"tax_ids": [{"label": "EIN", "value": "12"}]}, "its form is wrong"),
    ],
)
async def test_what_is_wrong_for_its_country_is_told(
    world: World, account: BillingAccount, country: str, given: dict[str, Any], says: str
) -> None:
    place = {"region": "NY", "postal_code": "10118"} if country == "US" else {}
    with pytest.raises(InvalidInput) as refusal:
        await change(world, account, legal_name="Quill", country=country, **place, **given)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("country", "postal_code"),
    [
        ("DE", "10115"),
        ("GB", "sw1a 1aa"),
        ("NL", "1012 AB"),
        ("JP", "1040061"),
        ("LU", "L-4750"),
        ("LU", "4750"),
        ("SE", "SE-114 55"),
        ("KI", "whatever"),
        ("FR", ""),
    ],
)
async def test_a_postal_code_in_its_country_s_form_is_kept_as_typed(
    world: World, account: BillingAccount, country: str, postal_code: str
) -> None:
    company = await change(world, account, legal_name="Quill", country=country, postal_code=postal_code)
    assert company.postal_code == postal_code


async def test_a_tax_id_by_another_label_is_taken_as_it_is(world: World, account: BillingAccount) -> None:
    company = await change(
        world,
        account,
        legal_name="Quill",
        country="AU",
        tax_ids=[{"label": "ABN", "value": "53 004 085 616"}, {"label": "Company no.", "value": "x"}],
    )
    assert company.tax_ids == {"ABN": "53 004 085 616", "Company no.": "x"}


@given(
    country=st.sampled_from(sorted(COUNTRIES)),
    label=st.sampled_from(["annotations", "vat", "clean", "EIN", "ABN", "cnpj", "UID", "__init__", "nip", "Steuer"]),
    text=st.text(min_size=1, max_size=16) | st.from_regex(r"[A-Z0-9 .-]{1,16}"),
)
def test_whatever_label_and_number_are_typed_are_taken_or_refused(country: str, label: str, text: str) -> None:
    with suppress(InvalidInput):
        _check_tax_id(country, label, text, 0)
