"""Money on the wire."""

from decimal import Decimal
from typing import Annotated, Self

import strawberry
from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency

from ..services.errors import ErrorCode, RequestRefused
from ..services.rules.money import to_decimal
from .fields import field, said
from .scalars import BigInt, CurrencyCode


@strawberry.type(description="An amount in one currency. Nothing is ever converted.")
class Money:
    """An amount of a currency."""

    amount_minor: BigInt = said("In the currency's minor unit: 14900 is 149.00 USD, but 14,900 yen. Reckon with this.")
    currency: CurrencyCode = said("The currency, by ISO 4217.")

    @classmethod
    def of(cls, amount_minor: int, currency: str) -> Self:
        """An amount from what is stored."""
        return cls(amount_minor=BigInt(amount_minor), currency=CurrencyCode(currency))

    @field
    def amount(self) -> Decimal:
        """In whole units, with all the currency's decimals: \"149.00\"."""
        return to_decimal(self.amount_minor, self.currency)

    @field
    def formatted(
        self,
        locale: Annotated[
            str | None,
            strawberry.argument(description="A BCP 47 language tag such as de-AT; English when nothing is said."),
        ] = None,
    ) -> str:
        """For people to read: \"$149.00\", \"149,00 €\"."""
        tag = (locale or "en").replace("_", "-")
        try:
            if len(tag) > 35:
                raise ValueError(tag)
            parsed = Locale.parse(tag, sep="-")
        except (ValueError, UnknownLocaleError, TypeError) as error:
            raise RequestRefused(
                ErrorCode.BAD_USER_INPUT, "`locale` is a BCP 47 language tag such as en, de-AT or ja."
            ) from error
        amount = to_decimal(self.amount_minor, self.currency)
        return format_currency(
            amount, self.currency, locale=parsed, currency_digits=False, format=_pattern(parsed, amount)
        )


@strawberry.input(description="An amount in one currency.")
class MoneyInput:
    """An amount that somebody gives."""

    amount_minor: BigInt = said("In the currency's minor unit: 14900 is 149.00 USD, but 14,900 yen.")
    currency: CurrencyCode = said("The account's own, so that nobody mistakes it.")


def _pattern(locale: Locale, amount: Decimal) -> str:
    # The locale's own pattern, but with as many decimals as ISO 4217 gives the currency.
    exponent = amount.as_tuple().exponent
    decimals = -exponent if isinstance(exponent, int) else 0
    pattern = str(locale.currency_formats["standard"].pattern)
    return pattern.replace("0.00", "0." + "0" * decimals if decimals else "0")
