"""Amounts as Stripe writes them: its minor units are ISO 4217's but for a few currencies."""

WRITTEN_WITH_CENTS = frozenset({"ISK", "UGX"})
"""Have no minor unit, and Stripe writes them with two decimals that are always 00."""
WRITTEN_WITHOUT_CENTS = frozenset({"MGA"})
"""Has a minor unit by ISO 4217, of which Stripe knows nothing."""
IN_TENS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
"""Have three decimals, the last of which must be 0."""


def to_stripe(amount_minor: int, currency: str) -> int | None:
    """An amount in Stripe's units; none for one that Stripe cannot express."""
    if currency in WRITTEN_WITH_CENTS:
        return amount_minor * 100
    if currency in WRITTEN_WITHOUT_CENTS:
        return amount_minor // 100 if amount_minor % 100 == 0 else None
    if currency in IN_TENS:
        return amount_minor if amount_minor % 10 == 0 else None
    return amount_minor


def from_stripe(amount: int, currency: str) -> int:
    """An amount of Stripe in minor units. `ValueError` for one that it never writes."""
    if currency in WRITTEN_WITH_CENTS:
        whole, rest = divmod(amount, 100)
        if rest:
            raise ValueError(f"{amount} {currency} has cents")
        return int(whole)
    return int(amount * 100 if currency in WRITTEN_WITHOUT_CENTS else amount)
