"""Making accounts and changing what they are: the inputs and answers."""

from datetime import date
from typing import Any, cast
from uuid import UUID

import strawberry

from ..services.accounts import AccountFields, CollectionTerms
from ..services.companies import Certificate, CompanyFields
from .billing import BillingAccount
from .company import Company
from .enums import CollectionMethod, PaperSize
from .errors import UserError
from .fields import once_key, said
from .node import NOBODY, key_of
from .scalars import CountryCode, CurrencyCode, EmailAddress, JsonObject


def _may(description: str) -> Any:
    """A field that may be left out, which is not the same as null."""
    return strawberry.field(default=strawberry.UNSET, description=description)


def _given(source: object, *names: str) -> dict[str, Any]:
    """What of these fields was given."""
    values = {name: getattr(source, name) for name in names}
    return {name: value for name, value in values.items() if value is not strawberry.UNSET}


@strawberry.input(description="How an account's invoices are paid. What is left out stays as it is.")
class CollectionInput:
    """Terms of payment."""

    method: CollectionMethod | None = _may("Whether they are charged at once or sent.")
    net_days: int | None = _may("How long a sent invoice may stay unpaid, 1 to 365 days; 30 at first.")

    def to_terms(self) -> CollectionTerms:
        """As the services know it."""
        return cast("CollectionTerms", _given(self, "method", "net_days"))


def _to_fields(source: "CreateBillingAccountInput | UpdateBillingAccountInput") -> AccountFields:
    found = _given(source, "name", "timezone", "locale", "metadata", "currency")
    if source.collection is not strawberry.UNSET:
        found["collection"] = None if source.collection is None else source.collection.to_terms()
    return cast("AccountFields", found)


@strawberry.input(description="A new account. It starts without a subscription.")
class CreateBillingAccountInput:
    """A new account."""

    external_id: str = said(
        "Your own id of it, unique and compared character by character: 1 to 255 printable characters, in NFC."
    )
    name: str = said("For people to read, up to 255 characters.")
    currency: CurrencyCode = said("What it pays in; fixed by its first invoice.")
    timezone: str = said("Its IANA time zone, such as Europe/Vienna.")
    locale: str = strawberry.field(default="en", description="Its language and region as a BCP 47 tag, such as de-AT.")
    metadata: JsonObject | None = _may(
        "Your own pairs: at most 50, keys up to 40 characters, texts of up to 500 as values."
    )
    collection: CollectionInput | None = _may("How its invoices are paid; charged at once when nothing is said.")
    test_clock_id: strawberry.ID | None = strawberry.field(
        default=None, description="In the sandbox: the test clock that it takes its time from."
    )
    idempotency_key: str | None = once_key()

    def to_fields(self) -> AccountFields:
        """As the services know it."""
        return _to_fields(self)

    def clock_id(self) -> UUID | None:
        """The test clock's own id."""
        if self.test_clock_id is None:
            return None
        return key_of(self.test_clock_id, "TestClock") or NOBODY


@strawberry.input(description="What of an account to change. What is left out stays as it is.")
class UpdateBillingAccountInput:
    """A change of an account."""

    account_id: strawberry.ID = said("The account's id.")
    name: str | None = _may("For people to read, up to 255 characters.")
    timezone: str | None = _may("An IANA time zone. It counts from the next period on; the running one stays.")
    locale: str | None = _may("Its language and region as a BCP 47 tag, such as de-AT.")
    metadata: JsonObject | None = _may(
        "All of your own pairs, in place of the present ones: at most 50, keys up to 40 characters, texts of up to 500 "
        "as values."
    )
    currency: CurrencyCode | None = _may(
        "What it pays in. For operators, before the first invoice, and while nothing is reckoned in the present one."
    )
    collection: CollectionInput | None = _may("How its invoices are paid. For operators.")
    spike_alerts: bool | None = _may(
        "Whether unusual days of usage are told of; true at first. Switched off, the open alerts are resolved."
    )
    keys_may_ingest: bool | None = _may(
        "Whether the account's own API keys with the scope usage:write may record usage, positive quantities only; "
        "false at first. For operators."
    )
    idempotency_key: str | None = once_key()

    def to_fields(self) -> AccountFields:
        """As the services know it."""
        return cast("AccountFields", {**_to_fields(self), **_given(self, "spike_alerts", "keys_may_ingest")})


@strawberry.input(description="A tax id that is not a VAT id.")
class TaxIdInput:
    """A tax id."""

    label: str = said("What it is, as it stands on invoices, such as EIN: up to 40 characters.")
    value: str = said("The id, up to 50 characters.")


@strawberry.input(
    description="What of the company to change, for the next invoices. What is left out stays; null clears it. "
    "The first time, `legalName` and `country` are needed; in US and CA `region` and `postalCode` too."
)
class UpdateCompanyInput:
    """A change of a company."""

    account_id: strawberry.ID = said("The account's id.")
    legal_name: str | None = _may("Its name by law, up to 255 characters.")
    country: CountryCode | None = _may("Where it is.")
    address_lines: list[str] | None = _may("Street, house, floor: at most 4 lines of up to 100 characters.")
    postal_code: str | None = _may(
        "The postal code. In US and CA it is needed and checked for its form, elsewhere it is taken as it is."
    )
    city: str | None = _may("The town, up to 100 characters.")
    region: str | None = _may(
        "A state or province, by the part of its ISO 3166-2 code after the country. In US and CA it is needed and must "
        "be one that there is, elsewhere it is up to three letters and digits."
    )
    vat_id: str | None = _may(
        "Checked by its country's rule; in CH with its suffix MWST, TVA, IVA or TPV. Where no rule is known, give the "
        "id under `taxIds`: only a VAT id frees of tax."
    )
    tax_ids: list[TaxIdInput] | None = _may("All other tax ids, in place of the present ones: at most 10.")
    email: EmailAddress | None = _may("Where the company is reached about invoices.")
    paper_size: PaperSize | None = _may("The sheet its documents are laid out for; by its country when null.")
    purchase_order: str | None = _may("Its order number, printed on invoices: up to 100 characters.")
    footer: str | None = _may("A line printed at the foot of its invoices, up to 500 characters.")
    idempotency_key: str | None = once_key()

    def to_fields(self) -> CompanyFields:
        """As the services know it."""
        found = _given(
            self,
            "legal_name",
            "country",
            "address_lines",
            "postal_code",
            "city",
            "region",
            "vat_id",
            "email",
            "paper_size",
            "purchase_order",
            "footer",
        )
        if self.tax_ids is not strawberry.UNSET:
            found["tax_ids"] = [{"label": item.label, "value": item.value} for item in self.tax_ids or ()]
        return cast("CompanyFields", found)


@strawberry.input(description="A certificate that frees an account from tax.")
class TaxExemptionInput:
    """A certificate."""

    certificate: str = said("Its number, up to 100 characters.")
    reason: str = said("Why no tax is due, as it stands on invoices: up to 255 characters.")
    valid_from: date = said("The first day on which it holds.")
    valid_to: date | None = strawberry.field(
        default=None, description="The first day on which it does not hold any more; without an end when null."
    )


@strawberry.input(description="Free an account from tax, or not any more.")
class SetTaxExemptionInput:
    """A change of an exemption."""

    account_id: strawberry.ID = said("The account's id.")
    exemption: TaxExemptionInput | None = _may(
        "The certificate, in place of the present one; null takes it away. It has to be given, as one or the other."
    )
    idempotency_key: str | None = once_key()

    def to_certificate(self) -> Certificate | None:
        """As the services know it."""
        given = self.exemption
        if given is None:
            return None
        return Certificate(given.certificate, given.reason, given.valid_from, given.valid_to)


@strawberry.input(description="Put a notice away.")
class DismissNoticeInput:
    """Which notice."""

    notice_id: strawberry.ID = said("The notice's id.")
    idempotency_key: str | None = once_key()


@strawberry.type
class AccountPayload:
    """An answer with the account."""

    account: BillingAccount | None = strawberry.field(default=None, description="The account as it is now.")
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not."
    )


@strawberry.type(description="The account that was made.")
class CreateBillingAccountPayload(AccountPayload):
    """The answer to a new account."""


@strawberry.type(description="The account with what was changed.")
class UpdateBillingAccountPayload(AccountPayload):
    """The answer to a change of an account."""


@strawberry.type(description="The company with what was changed.")
class UpdateCompanyPayload(AccountPayload):
    """The answer to a change of a company."""

    company: Company | None = strawberry.field(default=None, description="The company as it is now.")


@strawberry.type(description="The account with or without its exemption.")
class SetTaxExemptionPayload(AccountPayload):
    """The answer to a change of an exemption."""


@strawberry.type(description="The account without the notice.")
class DismissNoticePayload(AccountPayload):
    """The answer to putting a notice away."""
