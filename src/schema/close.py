"""The reports of a month's close, each beside what the ledger says."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Self

import strawberry

from ..services.closes import MAX_ACCOUNTS_SHOWN
from ..services.deferred_revenue import AccountDeferred, CurrencyDeferred
from ..services.receivables import AccountAging, Age, CurrencyAging
from ..services.tax_reports import CurrencyTax, TaxSum
from ..services.tax_tables import format_rate
from .billing import BillingAccount
from .context import Info
from .fields import field, said
from .money import Money
from .scalars import CurrencyCode

TIED = "`ledgerBalance` less `total`: 0, as long as the books are in order."


@strawberry.type(description="What is owed, by how long it has been due. A day is 24 hours.")
class AgedAmounts:
    """Amounts by age."""

    not_due: Money = said("Not due yet.")
    days1_to30: Money = said("Due for up to 30 days.")
    days31_to60: Money = said("For more than 30, up to 60.")
    days61_to90: Money = said("For more than 60, up to 90.")
    over90_days: Money = said("For more than 90.")
    carried_forward: Money = said("Too small to charge: carried to the next invoice, and on none yet.")
    brought_forward: Money = said("Of invoices from years whose entries are purged.")
    total: Money = said("All of it.")

    @classmethod
    def of(cls, found: AccountAging | CurrencyAging) -> Self:
        """Amounts from what was summed."""

        def show(age: Age) -> Money:
            return Money.of(found.amounts.get(age, 0), found.currency)

        return cls(
            not_due=show(Age.NOT_DUE),
            days1_to30=show(Age.DAYS_1_TO_30),
            days31_to60=show(Age.DAYS_31_TO_60),
            days61_to90=show(Age.DAYS_61_TO_90),
            over90_days=show(Age.OVER_90_DAYS),
            carried_forward=show(Age.CARRIED_FORWARD),
            brought_forward=show(Age.BROUGHT_FORWARD),
            total=Money.of(found.total_minor, found.currency),
        )


@strawberry.type(description="What one account owed.")
class AccountReceivables:
    """An account's."""

    key: strawberry.Private[Any]
    external_id: str = said("The partner's own id of the account.")
    name: str = said("The account's name.")
    amounts: AgedAmounts = said("What it owed, by age.")

    @classmethod
    def of(cls, found: AccountAging) -> Self:
        """An account from what was summed."""
        return cls(key=found.account_id, external_id=found.external_id, name=found.name, amounts=AgedAmounts.of(found))

    @field
    async def account(self, info: Info) -> BillingAccount:
        """Which account."""
        return await _show_account(info, self.key)


async def _show_account(info: Info, account_id: Any) -> BillingAccount:
    row = await info.context.load.account(account_id)
    assert row is not None, "a foreign key guarantees the account"
    return BillingAccount.of(row)


@strawberry.type(description="What was owed in one currency.")
class CurrencyReceivables:
    """A currency's."""

    currency: CurrencyCode = said("The currency.")
    amounts: AgedAmounts = said("What was owed, by age.")
    ledger_balance: Money = said("What stood on RECEIVABLES.")
    difference: Money = said(TIED)
    account_count: int = said("How many accounts owed something.")
    accounts: list[AccountReceivables] = said(
        f"Those that owed most, at most {MAX_ACCOUNTS_SHOWN}: an export of RECEIVABLES_AGING has all."
    )

    @classmethod
    def of(cls, found: CurrencyAging) -> Self:
        """A currency from what was summed."""
        return cls(
            currency=CurrencyCode(found.currency),
            amounts=AgedAmounts.of(found),
            ledger_balance=Money.of(found.ledger_minor, found.currency),
            difference=Money.of(found.ledger_minor - found.total_minor, found.currency),
            account_count=found.account_count,
            accounts=[AccountReceivables.of(account) for account in found.accounts],
        )


@strawberry.type(description="Who owed how much for how long, at an instant.")
class ReceivablesAging:
    """The report."""

    as_of: datetime = said("The instant: all up to and with it counts, and nothing after.")
    currencies: list[CurrencyReceivables] = said("By currency.")

    @classmethod
    def of(cls, as_of: datetime, found: list[CurrencyAging]) -> Self:
        """The report from what was summed."""
        return cls(as_of=as_of, currencies=[CurrencyReceivables.of(currency) for currency in found])


@strawberry.type(description="What a month will earn.")
class MonthlyRevenue:
    """A month's."""

    month: date = said("Its first day, of UTC.")
    amount: Money = said("How much of what is deferred becomes revenue in it, by seconds.")


@strawberry.type(description="What is deferred of one account.")
class AccountDeferredRevenue:
    """An account's."""

    key: strawberry.Private[Any]
    external_id: str = said("The partner's own id of the account.")
    name: str = said("The account's name.")
    amount: Money = said("How much.")

    @classmethod
    def of(cls, found: AccountDeferred, currency: str) -> Self:
        """An account from what was summed."""
        return cls(
            key=found.account_id,
            external_id=found.external_id,
            name=found.name,
            amount=Money.of(found.amount_minor, currency),
        )

    @field
    async def account(self, info: Info) -> BillingAccount:
        """Which account."""
        return await _show_account(info, self.key)


@strawberry.type(description="What is deferred in one currency.")
class CurrencyDeferredRevenue:
    """A currency's."""

    currency: CurrencyCode = said("The currency.")
    total: Money = said("What was invoiced, and not earned.")
    ledger_balance: Money = said("What stood on DEFERRED.")
    difference: Money = said(TIED)
    schedule: list[MonthlyRevenue] = said("When time will earn it, if nothing changes.")
    account_count: int = said("Of how many accounts something is deferred.")
    accounts: list[AccountDeferredRevenue] = said(
        f"Those of which most is, at most {MAX_ACCOUNTS_SHOWN}: an export of DEFERRED_REVENUE has all, line by line."
    )

    @classmethod
    def of(cls, found: CurrencyDeferred) -> Self:
        """A currency from what was summed."""
        currency = found.currency
        return cls(
            currency=CurrencyCode(currency),
            total=Money.of(found.total_minor, currency),
            ledger_balance=Money.of(found.ledger_minor, currency),
            difference=Money.of(found.ledger_minor - found.total_minor, currency),
            schedule=[
                MonthlyRevenue(month=month, amount=Money.of(amount, currency))
                for month, amount in sorted(found.months.items())
            ],
            account_count=found.account_count,
            accounts=[AccountDeferredRevenue.of(account, currency) for account in found.accounts],
        )


@strawberry.type(description="What was invoiced and not earned yet, at an instant.")
class DeferredRevenue:
    """The report."""

    as_of: datetime = said("The instant: all up to and with it counts, and nothing after.")
    currencies: list[CurrencyDeferredRevenue] = said("By currency.")

    @classmethod
    def of(cls, as_of: datetime, found: list[CurrencyDeferred]) -> Self:
        """The report from what was summed."""
        return cls(as_of=as_of, currencies=[CurrencyDeferredRevenue.of(currency) for currency in found])


@strawberry.type(description="The tax of one seller, jurisdiction, category and rate.")
class TaxReportRow:
    """A sum."""

    issuer: str = said("The seller's key.")
    issuer_name: str = said("The seller's legal name.")
    jurisdiction: str = said("Who levies it.")
    category: str = said("By EN 16931: S standard, E exempt, AE reverse charge, O outside the scope.")
    rate: Decimal = said("In percent.")
    taxable: Money = said("What was taxed, net, less what was credited.")
    tax: Money = said("The tax on it, less what was credited.")

    @classmethod
    def of(cls, found: TaxSum) -> Self:
        """A sum from what was read."""
        return cls(
            issuer=found.issuer_key,
            issuer_name=found.issuer_name,
            jurisdiction=found.jurisdiction,
            category=found.category,
            rate=Decimal(format_rate(found.rate_ppm)),
            taxable=Money.of(found.taxable_minor, found.currency),
            tax=Money.of(found.tax_minor, found.currency),
        )


@strawberry.type(description="The tax of one currency.")
class CurrencyTaxes:
    """A currency's."""

    currency: CurrencyCode = said("The currency.")
    total: Money = said("The tax of all rows.")
    ledger_movement: Money = said("What moved on TAX with invoices and credit notes.")
    difference: Money = said("`ledgerMovement` less `total`: 0, as long as the books are in order.")
    rows: list[TaxReportRow] = said("By seller, jurisdiction, category and rate.")

    @classmethod
    def of(cls, found: CurrencyTax) -> Self:
        """A currency from what was summed."""
        currency = found.currency
        return cls(
            currency=CurrencyCode(currency),
            total=Money.of(found.tax_minor, currency),
            ledger_movement=Money.of(found.ledger_minor, currency),
            difference=Money.of(found.ledger_minor - found.tax_minor, currency),
            rows=[TaxReportRow.of(row) for row in found.rows],
        )


@strawberry.type(description="Tax by seller, jurisdiction, category and rate: of invoices less credit notes.")
class TaxReport:
    """The report."""

    from_: datetime = strawberry.field(name="from", description="Of what was booked at or after this …")
    to: datetime = said("… and before this.")
    currencies: list[CurrencyTaxes] = said("By currency.")

    @classmethod
    def of(cls, since: datetime, before: datetime, found: list[CurrencyTax]) -> Self:
        """The report from what was summed."""
        return cls(from_=since, to=before, currencies=[CurrencyTaxes.of(currency) for currency in found])
