"""Changes that wait for their payment: what happens meanwhile, and money that comes for what is no more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ..conftest import Client, World
from ..stories.life import Life

START = datetime(2026, 4, 1, tzinfo=UTC)
ASKING = "pm_card_authenticationRequired"
WAITING = "pendingChange { transactionId } subscription { plan { key } }"


async def pin(life: Life, mutation: str, **given: Any) -> str:
    """An order that waits for the cardholder. Gives its charge."""
    await life.do("addPaymentMethod", token=ASKING)
    payload = await life.do(mutation, WAITING, **given)
    return str(payload["pendingChange"]["transactionId"])


async def confirm(life: Life, transaction_id: str) -> dict[str, Any]:
    """The cardholder confirms, whatever that leads to."""
    return await life.try_to(
        "confirmPayment",
        "subscription { status plan { key } } transaction { status }",
        transactionId=transaction_id,
        idempotencyKey=f"confirm-{transaction_id}",
    )


async def pay_in_vain(life: Life, transaction_id: str) -> None:
    """The cardholder confirms what is no more: they are told, however often they ask, that the money goes back."""
    for _ in range(2):
        refused = await confirm(life, transaction_id)
        assert [error["code"] for error in refused["userErrors"]] == ["CONFLICT"]
        assert "the money goes back" in refused["userErrors"][0]["message"]
    newest = "transactions(first: 1, filter: { kind: [CHARGE] }) { nodes { id status } }"
    [charge] = (await life.ask(newest))["transactions"]["nodes"]
    assert charge["status"] == "SUCCEEDED"


async def owed_back(life: Life) -> int:
    """What came in for nothing, and has to go back."""
    return -(await life.books()).get("REFUNDS_PAYABLE", 0)


async def test_a_trial_s_end_ends_a_start_that_waits(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=13, hours=20))
    transaction_id = await pin(life, "startSubscription", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=14, hours=1))
    refused = await confirm(life, transaction_id)
    assert [error["code"] for error in refused["userErrors"]] == ["INVALID_TRANSITION"]
    await life.audit(world)


async def test_no_trial_begins_beside_a_start_that_waits(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await pin(life, "startSubscription", planKey="starter", interval="MONTH")
    assert await life.refused("startTrial", planKey="starter", interval="MONTH") == ["CHANGE_PENDING"]


async def test_a_paid_add_on_is_not_made_after_the_end(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=5))
    transaction_id = await pin(life, "setAddOn", addOnKey="additional_user", quantity=2)
    await life.do("cancelSubscription", mode="NOW", credit="NONE")
    await pay_in_vain(life, transaction_id)
    assert (await life.subscription())["status"] == "CANCELED"
    assert (await life.ask("subscription { addOns { quantity } }"))["subscription"]["addOns"] == []
    assert await owed_back(life) > 0
    await life.audit(world)


async def test_a_paid_add_on_is_not_made_in_a_period_that_it_was_not_priced_for(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=5))
    transaction_id = await pin(life, "setAddOn", addOnKey="additional_user", quantity=2)
    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.do("changePlan", planKey="starter", interval="YEAR")
    await pay_in_vain(life, transaction_id)
    assert (await life.ask("subscription { addOns { quantity } }"))["subscription"]["addOns"] == []
    assert await owed_back(life) > 0
    await life.audit(world)


async def test_one_order_of_an_add_on_at_a_time(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=5))
    transaction_id = await pin(life, "setAddOn", addOnKey="additional_user", quantity=2)
    assert await life.refused("setAddOn", addOnKey="additional_user", quantity=3) == ["CHANGE_PENDING"]
    await confirm(life, transaction_id)
    held = (await life.ask("subscription { addOns { quantity nextQuantity } }"))["subscription"]["addOns"]
    assert held == [{"quantity": 2, "nextQuantity": None}]


@pytest.mark.parametrize("by_quote", [True, False])
async def test_what_was_credited_meanwhile_is_not_credited_again(client: Client, world: World, by_quote: bool) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=5))
    (invoice,) = await life.invoices()
    part = [{"lineId": invoice["lines"][0]["id"], "amountMinor": 4_900}]
    if by_quote:
        quote = await life.do("quotePlanChange", "quote { id }", planKey="professional", interval="MONTH")
        await life.do("issueCreditNote", invoiceId=invoice["id"], lines=part, reason="a test")
        assert await life.refused("changePlan", quoteId=quote["quote"]["id"]) == ["QUOTE_STALE"]
    else:
        transaction_id = await pin(life, "changePlan", planKey="professional", interval="MONTH")
        await life.do("issueCreditNote", invoiceId=invoice["id"], lines=part, reason="a test")
        await pay_in_vain(life, transaction_id)
        assert (await life.subscription())["plan"]["key"] == "starter"
        assert await owed_back(life) > 0
    await life.audit(world)


async def test_what_a_correction_takes_back_since_leaves_no_period_below_nothing(client: Client, world: World) -> None:
    life = await Life.begin(client, world, START, company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=5))
    await life.use(quantity=500)
    transaction_id = await pin(life, "changePlan", planKey="starter", interval="YEAR")
    payload = await life.try_to(
        "recordUsage",
        "results { status }",
        events=[
            {
                "eventId": "back",
                "metric": "email_sends",
                "accountId": life.account_id,
                "quantity": -100,
                "correction": True,
            }
        ],
    )
    assert payload["results"] == [{"status": "ACCEPTED"}]
    confirmed = await confirm(life, transaction_id)
    assert confirmed["transaction"]["status"] == "SUCCEEDED"
    assert (await life.ask("subscription { interval }"))["subscription"]["interval"] == "YEAR"
    await life.audit(world)
