"""Whom an account's invoices are made out to, and on which terms."""

from datetime import date, datetime
from typing import Self

import strawberry

from .. import models
from ..services.papers import PaperSize as StoredSize
from .enums import CollectionMethod, PaperSize
from .fields import said
from .scalars import CountryCode, EmailAddress


@strawberry.type(description="A tax id that is not a VAT id.")
class TaxId:
    """A tax id."""

    label: str = said("What it is, as it stands on invoices, such as EIN.")
    value: str = said("The id.")


@strawberry.type(description="Who stands on an account's next invoices as the buyer.")
class Company:
    """A company."""

    legal_name: str = said("Its name by law.")
    country: CountryCode = said("Where it is.")
    address_lines: list[str] = said("Street, house, floor: what stands above the town.")
    postal_code: str | None = said("The postal code; in US and CA in the form it has there.")
    city: str | None = said("The town.")
    region: str | None = said(
        "A state or province, by the part of its ISO 3166-2 code after the country; in US and CA one that there is."
    )
    vat_id: str | None = said("Compact, with the country's prefix; valid for its country.")
    tax_ids: list[TaxId] = said("Other tax ids, by label.")
    email: EmailAddress | None = said("Where the company is reached about invoices.")
    paper_size: PaperSize | None = said("The sheet its documents are laid out for; by its country when null.")
    purchase_order: str | None = said("Its order number, printed on invoices.")
    footer: str | None = said("A line printed at the foot of its invoices.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Company) -> Self:
        """A company from its row."""
        return cls(
            legal_name=row.legal_name,
            country=CountryCode(row.country),
            address_lines=[str(line) for line in row.address_lines],
            postal_code=row.postal_code or None,
            city=row.city or None,
            region=row.region or None,
            vat_id=row.vat_id,
            tax_ids=[TaxId(label=label, value=str(value)) for label, value in sorted(row.tax_ids.items())],
            email=None if row.email is None else EmailAddress(row.email),
            paper_size=None if row.paper_size is None else StoredSize(row.paper_size),
            purchase_order=row.purchase_order,
            footer=row.footer,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="A certificate that frees an account from tax.")
class TaxExemption:
    """An exemption."""

    certificate: str = said("Its number.")
    reason: str = said("Why no tax is due, as it stands on invoices.")
    valid_from: date = said("The first day on which it holds.")
    valid_to: date | None = said("The first day on which it does not hold any more; null without an end.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.TaxExemption) -> Self:
        """An exemption from its row."""
        return cls(
            certificate=row.certificate,
            reason=row.reason,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="How an account's invoices are paid.")
class Collection:
    """Terms of payment."""

    method: CollectionMethod = said("Whether they are charged at once or sent.")
    net_days: int = said("How long a sent invoice may stay unpaid, in days.")

    @classmethod
    def of(cls, row: models.BillingAccount) -> Self:
        """The terms of an account."""
        return cls(method=row.collection_method, net_days=row.net_days)
