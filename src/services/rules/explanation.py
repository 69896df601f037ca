"""Amounts with their reasons: a line's amount is reckoned from its basis, and can be reckoned again from it.

A basis is a plain dictionary that is stored with the line. All figures are whole numbers; amounts are minor units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .money import share_of
from .overage import blocks_of

Basis = dict[str, Any]


def price_basis(price_minor: int, quantity: int = 1, **facts: Any) -> Basis:
    """A price for each of a quantity."""
    return {"rule": "price", "price": price_minor, "quantity": quantity, **facts}


def rest_basis(price_minor: int, quantity: int, seconds: int, of: int, **facts: Any) -> Basis:
    """A price for the rest of a period: `seconds` of its `of` seconds."""
    return {"rule": "rest", "price": price_minor, "quantity": quantity, "seconds": seconds, "of": of, **facts}


def unused_basis(price_minor: int, quantity: int, seconds: int, of: int, creditable_minor: int) -> Basis:
    """A credit for the unused rest of a period, never above what can still be credited of the line."""
    return {
        "rule": "unused",
        "price": price_minor,
        "quantity": quantity,
        "seconds": seconds,
        "of": of,
        "creditable": creditable_minor,
    }


def overage_basis(used: int, limit: int, allowed: int, block: int, price_minor: int) -> Basis:
    """A price for each started block above the limit, less what was allowed without charge."""
    return {"rule": "overage", "used": used, "limit": limit, "allowed": allowed, "block": block, "price": price_minor}


def correction_basis(overage: Basis, invoiced_minor: int, creditable_minor: int | None = None) -> Basis:
    """An earlier period's overage rated anew, less what was invoiced for it."""
    basis = {**overage, "rule": "correction", "invoiced": invoiced_minor}
    return basis if creditable_minor is None else {**basis, "creditable": creditable_minor}


def credit_basis(amount_minor: int) -> Basis:
    """A credit of an agreed amount."""
    return {"rule": "credit", "amount": amount_minor}


def reckon(basis: Mapping[str, Any]) -> int:
    """The amount in minor units, net: below 0 for a credit. Each line is rounded once."""
    rule = basis["rule"]
    if rule == "price":
        return int(basis["price"] * basis["quantity"])
    if rule == "rest":
        return share_of(basis["price"] * basis["quantity"], basis["seconds"], basis["of"])
    if rule == "unused":
        unused = share_of(basis["price"] * basis["quantity"], basis["seconds"], basis["of"])
        return -min(unused, int(basis["creditable"]))
    if rule == "overage":
        return _blocks(basis) * int(basis["price"])
    if rule == "correction":
        change = _blocks(basis) * int(basis["price"]) - int(basis["invoiced"])
        return change if "creditable" not in basis else max(change, -int(basis["creditable"]))
    assert rule == "credit", rule
    return -int(basis["amount"])


def _blocks(basis: Mapping[str, Any]) -> int:
    return blocks_of(max(0, basis["used"] - basis["limit"] - basis["allowed"]), basis["block"])


@dataclass(frozen=True)
class Step:
    """One step of a reckoning. `minor` is its value where that is an amount, `number` where it is a count."""

    label: str
    expression: str
    number: int | None = None
    minor: int | None = None


def explain(basis: Mapping[str, Any]) -> list[Step]:
    """The steps from the figures to the amount; the last one is the line's amount."""
    rule = basis["rule"]
    if rule == "price":
        return [
            Step("Price", f"{basis['price']}", minor=basis["price"]),
            Step("Quantity", f"{basis['quantity']}", number=basis["quantity"]),
            Step("Amount", f"{basis['price']} × {basis['quantity']}", minor=reckon(basis)),
        ]
    if rule in ("rest", "unused"):
        whole = basis["price"] * basis["quantity"]
        share = share_of(whole, basis["seconds"], basis["of"])
        steps = [
            Step("Price of the whole period", f"{basis['price']} × {basis['quantity']}", minor=whole),
            Step("Seconds left", f"{basis['seconds']}", number=basis["seconds"]),
            Step("Seconds of the whole period", f"{basis['of']}", number=basis["of"]),
            Step("Share, rounded half away from zero", f"{whole} × {basis['seconds']} ÷ {basis['of']}", minor=share),
        ]
        if rule == "unused":
            steps += [
                Step("Still creditable of the line", f"{basis['creditable']}", minor=basis["creditable"]),
                Step("Credit", f"−min({share}, {basis['creditable']})", minor=reckon(basis)),
            ]
        return steps
    if rule in ("overage", "correction"):
        return _explain_overage(basis)
    return [Step("Agreed credit", f"−{basis['amount']}", minor=reckon(basis))]


def _explain_overage(basis: Mapping[str, Any]) -> list[Step]:
    blocks = _blocks(basis)
    excess = max(0, basis["used"] - basis["limit"] - basis["allowed"])
    rated = blocks * basis["price"]
    steps = [
        Step("Used", f"{basis['used']}", number=basis["used"]),
        Step("Limit", f"{basis['limit']}", number=basis["limit"]),
        Step("Allowed without charge", f"{basis['allowed']}", number=basis["allowed"]),
        Step("Above", f"max(0, {basis['used']} − {basis['limit']} − {basis['allowed']})", number=excess),
        Step("Started blocks", f"⌈{excess} ÷ {basis['block']}⌉", number=blocks),
        Step("Overage", f"{blocks} × {basis['price']}", minor=rated),
    ]
    if basis["rule"] == "correction":
        steps += [
            Step("Invoiced before", f"{basis['invoiced']}", minor=basis["invoiced"]),
            Step("Correction", f"{rated} − {basis['invoiced']}", minor=reckon(basis)),
        ]
    return steps
