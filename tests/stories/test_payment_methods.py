"""Payment methods: set up, added by token, one of them charged, removed; no card number ever comes in."""

from datetime import UTC, datetime

import pytest

from ..conftest import Client, World
from .life import Life

METHODS = (
    "paymentMethods { id last4 isDefault expiresSoon viewerCan { action allowed } } defaultPaymentMethod { last4 }"
)
START = datetime(2026, 4, 1, tzinfo=UTC)


async def methods(life: Life) -> dict[str, tuple[str, bool]]:
    """Each method's id and whether it is charged, by its last four digits."""
    found = await life.ask(METHODS)
    default = found["defaultPaymentMethod"]
    shown = {method["last4"]: (method["id"], method["isDefault"]) for method in found["paymentMethods"]}
    assert [last4 for last4, (_, is_default) in shown.items() if is_default] == ([default["last4"]] if default else [])
    return shown


async def test_one_of_them_is_charged(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START)
    await life.do("addPaymentMethod", token="pm_card_mastercard", makeDefault=False)
    await life.do("addPaymentMethod", token="pm_card_amex")
    shown = await methods(life)
    assert {last4: is_default for last4, (_, is_default) in shown.items()} == {
        "4242": False,
        "4444": False,
        "0005": True,
    }
    await life.do("setDefaultPaymentMethod", paymentMethodId=shown["4444"][0])
    assert (await methods(life))["4444"][1]
    # The default goes: the newest of the others is charged from then on.
    await life.do("removePaymentMethod", paymentMethodId=shown["4444"][0])
    assert (await methods(life))["0005"][1]
    assert await life.refused("setDefaultPaymentMethod", paymentMethodId=shown["4444"][0]) == ["NOT_FOUND"]
    assert await life.refused("removePaymentMethod", paymentMethodId=shown["4444"][0]) == ["NOT_FOUND"]
    # One that was removed can come again.
    await life.do("addPaymentMethod", token="pm_card_mastercard")
    again = await methods(life)
    assert again["4444"] == (shown["4444"][0], True)
    await life.audit(world)


async def test_the_last_one_stays_while_something_is_due(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    visa = (await methods(life))["4242"][0]
    await life.do("addPaymentMethod", token="pm_card_chargeDeclined")
    await life.advance(datetime(2026, 5, 1, 1, tzinfo=UTC))
    await life.do("removePaymentMethod", paymentMethodId=visa)
    declined = (await methods(life))["0002"][0]
    assert await life.refused("removePaymentMethod", paymentMethodId=declined) == ["PAYMENT_REQUIRED"]
    await life.do("addPaymentMethod", token="pm_card_visa")
    assert (await life.subscription())["status"] == "ACTIVE"
    await life.do("removePaymentMethod", paymentMethodId=declined)
    # Nothing is due: the last one may go; the next period cannot be charged, and day 0 begins.
    await life.do("removePaymentMethod", paymentMethodId=visa)
    assert await methods(life) == {}
    await life.advance(datetime(2026, 6, 1, 1, tzinfo=UTC))
    assert (await life.subscription())["status"] == "PAST_DUE"
    assert await life.refused("retryPayment") == ["PAYMENT_REQUIRED"]
    await life.audit(world)


async def test_a_method_of_somebody_else(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START)
    other = await (await Life.begin(client, world, START, name="other")).owner(world)
    visa = (await methods(life))["4242"][0]
    for mutation in ("setDefaultPaymentMethod", "removePaymentMethod"):
        assert await other.refused(mutation, paymentMethodId=visa) == ["NOT_FOUND"]
    assert (await methods(life))["4242"][1]


@pytest.mark.parametrize(
    "token", ["4242424242424242", "4242 4242 4242 4242", "pm_4242-4242-4242-4242", "", "pm_\u00e9"]
)
async def test_what_is_no_token_is_refused(client: Client, world: World, token: str) -> None:
    life = await Life.begin(client, world, START, card=None)
    assert await life.refused("addPaymentMethod", token=token) == ["INVALID"]
    assert await methods(life) == {}


async def test_card_numbers_are_refused_near_payments(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    (invoice,) = await life.invoices()
    number = "card 4000-0566-5566-5556 please"
    assert await life.refused("grantCredit", amountMinor=1, currency="USD", reason=number) == ["INVALID"]
    assert await life.refused(
        "recordPayment", invoiceId=invoice["id"], amountMinor=1, currency="USD", reference=number
    ) == ["INVALID"]
    assert await life.refused("voidInvoice", invoiceId=invoice["id"], reason=number) == ["INVALID"]
    assert await life.refused("retryPayment", idempotencyKey="4242424242424242") == ["INVALID"]
    pan = "4242\u00a04242\u00a04242\u00a04242"
    assert await life.refused("cancelSubscription", mode="AT_PERIOD_END", reason=pan) == ["INVALID"]
    assert await life.refused("updateCompany", legalName=pan) == ["INVALID"]
    assert await life.refused("updateCompany", addressLines=["4242.4242.4242.4242"]) == ["INVALID"]
    assert await life.refused("updateBillingAccount", name=pan) == ["INVALID"]
    for metadata in ({"card": "4242424242424242"}, {"4242424242424242": "card"}):
        assert await life.refused("updateBillingAccount", metadata=metadata) == ["INVALID"]
    # A number that is no card's is none of these: an IBAN, an order, a phone.
    await life.do("grantCredit", amountMinor=1, currency="USD", reason="order 1234567890123, AT61 1904 3002 3457 3201")
