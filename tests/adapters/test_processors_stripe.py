"""Stripe, where it is not as other processors: what goes wrong on the wire, its amounts, its codes, its lists."""

import asyncio
import logging
import socket
from dataclasses import replace
from typing import Any

import pytest
import stripe

from plafond.adapters import stripe_processor
from plafond.adapters.no_processor import NoProcessor
from plafond.adapters.stripe_declines import FAILURES, failure_of
from plafond.adapters.stripe_processor import StripeProcessor
from plafond.models import FailureCode
from plafond.services.ports import (
    CardRefused,
    ChargeOrder,
    ChargeStatus,
    DisputeStatus,
    ProcessorFailed,
    RefundOrder,
    RefundOutcome,
)

from .processors import FakeStage
from .stripe_fake import DROP_EVERY_S, DROPS, SECRET_KEY, Asked, FakeStripe, Fault
from .test_processors import ASKS, order, paid, refund_of

SLOW = (Fault.HANGS, Fault.DRIPS)
AWAY = "sk_test_that_nobody_knows"


def creations(fake: FakeStripe, path: str = "/v1/payment_intents") -> list[Asked]:
    return [asked for asked in fake.asked if (asked.method, asked.path) == ("POST", path)]


# What goes wrong on the wire


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.OTHER_AMOUNT])
async def test_whatever_goes_wrong_there_is_one_charge(fake_stage: FakeStage, fault: Fault) -> None:
    fake = fake_stage.fake
    given = await order(fake_stage)
    fake.fail_next(fault)
    with pytest.raises(ProcessorFailed):
        await (fake_stage.brief if fault in SLOW else fake_stage.stripe).charge(given)
    await fake.until_quiet()
    found = await fake_stage.stripe.find(given)
    assert (found is None) == (fault in (Fault.HANGS, Fault.TOO_MANY, Fault.LOCKED))
    if fault is Fault.FAILS_AFTER_EFFECT:
        with pytest.raises(ProcessorFailed):  # Stripe keeps a 500 too: only looking helps
            await fake_stage.stripe.charge(given)
    else:
        again = await fake_stage.stripe.charge(given)
        assert again.status is ChargeStatus.SUCCEEDED
        assert found in (None, again)
    assert fake.effects[given.key] == 1
    assert {asked.key for asked in creations(fake)} == {given.key}


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.OTHER_AMOUNT])
async def test_whatever_goes_wrong_there_is_one_refund(fake_stage: FakeStage, fault: Fault) -> None:
    _, charge = await paid(fake_stage)
    given = refund_of(charge)
    fake_stage.fake.fail_next(fault)
    with pytest.raises(ProcessorFailed):
        await (fake_stage.brief if fault in SLOW else fake_stage.stripe).refund(given)
    await fake_stage.fake.until_quiet()
    if fault is not Fault.FAILS_AFTER_EFFECT:
        assert (await fake_stage.stripe.refund(given)).status is RefundOutcome.SUCCEEDED
    assert await fake_stage.stripe.find_refund(given) is not None
    assert fake_stage.fake.effects[given.key] == 1


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in {*SLOW, Fault.OTHER_AMOUNT}])
async def test_what_cannot_be_read_is_not_missing(fake_stage: FakeStage, fault: Fault) -> None:
    given, charge = await paid(fake_stage)
    asker = fake_stage.stripe
    for ask in (
        lambda: asker.find(given),
        lambda: asker.look_up(charge.processor_id),
        lambda: asker.find_refund(refund_of(charge)),
        lambda: asker.look_up_refund("re_unknown"),
        lambda: asker.look_up_dispute("dp_unknown"),
        lambda: asker.read_method(given.token),
        lambda: asker.attach_method(given.customer, given.token),
        lambda: asker.open_customer("account:2", "Other"),
    ):
        fake_stage.fake.fail_next(fault)
        with pytest.raises(ProcessorFailed):
            await ask()


async def test_an_answer_in_drops_is_not_waited_for(fake_stage: FakeStage) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    fake_stage.fake.fail_next(Fault.DRIPS)
    with pytest.raises(ProcessorFailed):
        await fake_stage.brief.open_customer("account:1", "Acme")
    assert loop.time() - begun < DROPS * DROP_EVERY_S / 2


async def test_an_order_that_changed_under_its_key_is_not_charged(fake_stage: FakeStage) -> None:
    given, _ = await paid(fake_stage)
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.charge(replace(given, amount_minor=1))
    assert fake_stage.fake.effects[given.key] == 1


async def test_a_wrong_key_is_no_decline_and_is_not_told(
    fake_stage: FakeStage, caplog: pytest.LogCaptureFixture
) -> None:
    given = await order(fake_stage)
    processor = StripeProcessor(AWAY, base_url=fake_stage.fake.url)
    with caplog.at_level(logging.DEBUG), pytest.raises(ProcessorFailed) as failed:
        await processor.charge(given)
    await processor.close()
    assert AWAY not in caplog.text + repr(failed.value) + repr(processor)


async def test_nobody_at_the_address_is_no_decline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    processor = StripeProcessor(SECRET_KEY, base_url=f"http://127.0.0.1:{port}")
    with pytest.raises(ProcessorFailed):
        await processor.look_up("pi_1")
    await processor.close()


async def test_nothing_secret_is_logged(fake_stage: FakeStage, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        result = await fake_stage.stripe.charge(await order(fake_stage, ASKS, on_session=True))
        await fake_stage.stripe.charge(await order(fake_stage, token="pm_unknown", key="invoice:1:1"))
    assert result.client_secret is not None
    assert SECRET_KEY not in caplog.text
    assert result.client_secret not in caplog.text


def test_stripe_is_not_told_of_this_machine() -> None:
    assert stripe.enable_telemetry is False


# Charges


async def test_a_charge_says_what_it_is_for(fake_stage: FakeStage) -> None:
    await paid(fake_stage)
    [asked] = creations(fake_stage.fake)
    assert asked.key == "invoice:1:0"
    assert asked.params["metadata[plafond_key]"] == "invoice:1:0"
    assert asked.params["description"] == "Invoice 1"
    assert asked.params["off_session"] == "true"
    await fake_stage.stripe.charge(await order(fake_stage, key="change:1", on_session=True))
    assert creations(fake_stage.fake)[-1].params["off_session"] == "false"


@pytest.mark.parametrize("card", [ASKS, "pm_card_chargeCustomerFail"])
async def test_a_declined_intent_cannot_succeed_later(fake_stage: FakeStage, card: str) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, card))
    assert fake_stage.fake.objects[result.processor_id]["status"] == "canceled"


@pytest.mark.parametrize("card", [ASKS, "pm_card_chargeCustomerFail"])
async def test_an_open_intent_is_no_answer(fake_stage: FakeStage, card: str) -> None:
    """It could still be paid, so nobody may try again meanwhile."""
    given = await order(fake_stage, card)
    fake_stage.fake.fail_next(Fault.TOO_MANY, "/cancel")
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.charge(given)
    [intent] = [row for row in fake_stage.fake.objects.values() if row["object"] == "payment_intent"]
    assert intent["status"] == "requires_payment_method"
    result = await fake_stage.stripe.charge(given)
    assert result.status is ChargeStatus.DECLINED
    assert intent["status"] == "canceled"


async def test_a_cardholder_who_fails_to_confirm_is_a_decline(fake_stage: FakeStage) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, ASKS, on_session=True))
    fake_stage.fake.authenticate(result.processor_id, successfully=False)
    after = await fake_stage.stripe.look_up(result.processor_id)
    assert after is not None
    assert (after.status, after.failure) == (ChargeStatus.DECLINED, FailureCode.AUTHENTICATION_REQUIRED)
    assert fake_stage.fake.objects[result.processor_id]["status"] == "canceled"
    assert await fake_stage.stripe.cancel(result.processor_id) == after


async def test_an_intent_that_cannot_be_canceled_is_no_answer(fake_stage: FakeStage) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, ASKS, on_session=True))
    fake_stage.fake.refuses_to_cancel = True
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.cancel(result.processor_id)


async def test_one_who_confirms_while_it_is_given_up_has_paid(fake_stage: FakeStage) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, ASKS, on_session=True))
    fake_stage.fake.authenticate(result.processor_id)
    assert (await fake_stage.stripe.cancel(result.processor_id)).status is ChargeStatus.SUCCEEDED


@pytest.mark.parametrize("forgotten", ["last_payment_error", "latest_charge"])
async def test_a_decline_is_told_by_what_is_left_of_it(fake_stage: FakeStage, forgotten: str) -> None:
    given = await order(fake_stage, "pm_card_chargeDeclinedInsufficientFunds")
    result = await fake_stage.stripe.charge(given)
    fake_stage.fake.objects[result.processor_id][forgotten] = None
    assert await fake_stage.stripe.look_up(result.processor_id) == result


@pytest.mark.parametrize("status", ["processing", "requires_capture", "of_tomorrow"])
async def test_a_charge_without_an_end_is_no_answer(fake_stage: FakeStage, status: str) -> None:
    found = fake_stage.fake.make("payment_intent", "pi_", status=status, amount=1, currency="eur")
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.look_up(found)


async def test_a_page_to_confirm_on_is_shown(fake_stage: FakeStage) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, ASKS, on_session=True))
    address = {"url": "https://bank.test/confirm"}
    fake_stage.fake.objects[result.processor_id]["next_action"] = {"redirect_to_url": address}
    after = await fake_stage.stripe.look_up(result.processor_id)
    assert after is not None
    assert after.url == "https://bank.test/confirm"


async def test_what_stripe_refuses_for_another_reason_is_not_the_cards_fault(fake_stage: FakeStage) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, amount_minor=0))
    assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.PROCESSOR_ERROR)
    assert result.processor_id == ""


async def test_an_unknown_customer_is_declined(fake_stage: FakeStage) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, customer="cus_unknown"))
    assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.INCORRECT_DETAILS)


# Keys are kept for a day


async def test_a_late_repetition_finds_the_charge(fake_stage: FakeStage) -> None:
    given, result = await paid(fake_stage)
    await fake_stage.stripe.detach_method(given.token)
    fake_stage.fake.forget_keys()
    assert await fake_stage.stripe.charge(given) == result


async def test_a_late_repetition_finds_the_refund(fake_stage: FakeStage) -> None:
    _, charge = await paid(fake_stage)
    given = refund_of(charge, amount_minor=12_340)
    result = await fake_stage.stripe.refund(given)
    fake_stage.fake.forget_keys()
    assert await fake_stage.stripe.refund(given) == result
    assert fake_stage.fake.effects[given.key] == 1


# Lists


async def test_a_charge_is_found_on_any_page(fake_stage: FakeStage) -> None:
    given, result = await paid(fake_stage)
    for number in range(5):
        await fake_stage.stripe.charge(replace(given, key=f"invoice:2:{number}"))
    fake_stage.fake.page = 2
    assert await fake_stage.stripe.find(given) == result
    assert await fake_stage.stripe.find(replace(given, key="invoice:3:0")) is None


async def test_a_list_without_end_proves_nothing(fake_stage: FakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = await paid(fake_stage)
    await fake_stage.stripe.charge(replace(given, key="invoice:2:0"))
    fake_stage.fake.page = 1
    monkeypatch.setattr(stripe_processor, "MAX_PAGES", 1)
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.find(given)


async def test_the_charges_of_an_unknown_customer_are_not_known(fake_stage: FakeStage) -> None:
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.find(await order(fake_stage, customer="cus_unknown"))


# Customers and methods


async def test_a_customer_has_a_name(fake_stage: FakeStage) -> None:
    customer = await fake_stage.stripe.open_customer("account:1", "Acme " * 100)
    assert fake_stage.fake.objects[customer]["name"] == ("Acme " * 100)[:256]
    assert fake_stage.fake.objects[customer]["metadata"] == {"plafond_key": "account:1"}


async def test_a_setup_shows_the_publishable_key(fake_stage: FakeStage) -> None:
    setup = await fake_stage.stripe.open_setup(await fake_stage.stripe.open_customer("account:1", "Acme"))
    assert setup.publishable_key == "pk_test_x"
    assert creations(fake_stage.fake, "/v1/setup_intents")[0].params["usage"] == "off_session"


async def test_a_card_that_is_refused_at_once_says_why(fake_stage: FakeStage) -> None:
    customer = await fake_stage.stripe.open_customer("account:1", "Acme")
    with pytest.raises(CardRefused) as refused:
        await fake_stage.stripe.attach_method(customer, "pm_card_chargeDeclined")
    assert refused.value.failure is FailureCode.CARD_DECLINED


async def test_no_customer_has_no_methods(fake_stage: FakeStage) -> None:
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.attach_method("cus_unknown", "pm_card_visa")


async def test_only_cards_are_taken(fake_stage: FakeStage) -> None:
    customer = await fake_stage.stripe.open_customer("account:1", "Acme")
    debit = fake_stage.fake.make("payment_method", "pm_", type="sepa_debit", customer=customer, was_detached=False)
    assert await fake_stage.stripe.read_method(debit) is None


# Amounts


@pytest.mark.parametrize(
    ("currency", "amount_minor", "written"),
    [
        ("EUR", 1_234, "1234"),
        ("HUF", 1_234, "1234"),
        ("TWD", 1_234, "1234"),
        ("JPY", 1_234, "1234"),
        ("XOF", 1_234, "1234"),
        ("ISK", 1_234, "123400"),
        ("UGX", 1_234, "123400"),
        ("MGA", 123_400, "1234"),
        ("KWD", 12_340, "12340"),
        ("TND", 12_340, "12340"),
    ],
)
async def test_amounts_are_written_as_stripe_does(
    fake_stage: FakeStage, currency: str, amount_minor: int, written: str
) -> None:
    result = await fake_stage.stripe.charge(await order(fake_stage, currency=currency, amount_minor=amount_minor))
    assert (result.status, result.amount_minor, result.currency) == (ChargeStatus.SUCCEEDED, amount_minor, currency)
    assert creations(fake_stage.fake)[0].params["amount"] == written
    refund = await fake_stage.stripe.refund(refund_of(result, amount_minor=amount_minor))
    assert (refund.status, refund.amount_minor, refund.currency) == (RefundOutcome.SUCCEEDED, amount_minor, currency)


@pytest.mark.parametrize(("currency", "amount_minor"), [("MGA", 1_234), ("KWD", 12_345), ("BHD", 1)])
async def test_an_amount_that_stripe_does_not_know_is_not_rounded(
    fake_stage: FakeStage, currency: str, amount_minor: int, caplog: pytest.LogCaptureFixture
) -> None:
    given = await order(fake_stage, currency=currency, amount_minor=amount_minor)
    result = await fake_stage.stripe.charge(given)
    assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.PROCESSOR_ERROR)
    _, charge = await paid(fake_stage)
    refund = await fake_stage.stripe.refund(refund_of(charge, currency=currency, amount_minor=amount_minor))
    assert (refund.status, refund.processor_id) == (RefundOutcome.FAILED, None)
    assert "Stripe does not know such an amount" in caplog.text
    assert len(creations(fake_stage.fake)) == 1
    assert creations(fake_stage.fake, "/v1/refunds") == []


async def test_an_amount_that_stripe_never_writes_is_no_answer(fake_stage: FakeStage) -> None:
    found = fake_stage.fake.make("payment_intent", "pi_", status="succeeded", amount=1_050, currency="isk")
    with pytest.raises(ProcessorFailed):
        await fake_stage.stripe.look_up(found)


async def test_what_was_received_counts(fake_stage: FakeStage) -> None:
    _, result = await paid(fake_stage)
    fake_stage.fake.objects[result.processor_id]["amount_received"] = 1
    after = await fake_stage.stripe.look_up(result.processor_id)
    assert after is not None
    assert after.amount_minor == 1


# Codes


@pytest.mark.parametrize(("code", "failure"), FAILURES.items())
async def test_a_decline_code_has_its_place(fake_stage: FakeStage, code: str, failure: FailureCode) -> None:
    fake_stage.fake.declines["0341"] = ("card_declined", code)
    given = await order(fake_stage, "pm_card_chargeCustomerFail")
    result = await fake_stage.stripe.charge(given)
    assert (result.status, result.failure) == (ChargeStatus.DECLINED, failure)
    assert await fake_stage.stripe.find(given) == result


@pytest.mark.parametrize(
    ("codes", "failure"),
    [
        (("of_tomorrow", "card_declined"), FailureCode.CARD_DECLINED),
        ((None, "expired_card"), FailureCode.EXPIRED_CARD),
        (("generic_decline", "incorrect_cvc"), FailureCode.INCORRECT_DETAILS),
        (("lost_card", "card_declined"), FailureCode.STOLEN_OR_CLOSED),
        ((None, None), FailureCode.CARD_DECLINED),
    ],
)
def test_other_codes_are_a_plain_decline(codes: tuple[str | None, str | None], failure: FailureCode) -> None:
    assert failure_of(*codes) is failure


# Refunds and disputes


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("requires_action", RefundOutcome.PENDING),
        ("canceled", RefundOutcome.FAILED),
        ("failed", RefundOutcome.FAILED),
        ("succeeded", RefundOutcome.SUCCEEDED),
    ],
)
async def test_a_refund_of_somebody_else_is_told_of(fake_stage: FakeStage, status: str, outcome: RefundOutcome) -> None:
    given, charge = await paid(fake_stage)
    charged = fake_stage.fake.objects[charge.processor_id]["latest_charge"]
    facts: dict[str, Any] = {"status": status, "amount": 40, "currency": "eur", "charge": charged}
    made = fake_stage.fake.make("refund", "re_", payment_intent=charge.processor_id, **facts)
    refund = await fake_stage.stripe.look_up_refund(made)
    assert refund is not None
    assert (refund.status, refund.charge_id, refund.amount_minor) == (outcome, charge.processor_id, 40)
    assert refund.charge_key == given.key


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("warning_needs_response", DisputeStatus.OPEN),
        ("warning_under_review", DisputeStatus.OPEN),
        ("needs_response", DisputeStatus.OPEN),
        ("under_review", DisputeStatus.OPEN),
        ("warning_closed", DisputeStatus.WON),
        ("won", DisputeStatus.WON),
        ("lost", DisputeStatus.LOST),
    ],
)
async def test_a_dispute_of_a_charge_is_told_by_its_intent(
    fake_stage: FakeStage, told: str, status: DisputeStatus
) -> None:
    given, charge = await paid(fake_stage)
    charged = fake_stage.fake.objects[charge.processor_id]["latest_charge"]
    made = fake_stage.fake.make("dispute", "dp_", status=told, amount=40, currency="eur", charge=charged)
    facts = await fake_stage.stripe.look_up_dispute(made)
    assert facts is not None
    assert (facts.status, facts.charge_id, facts.amount_minor) == (status, charge.processor_id, 40)
    assert facts.charge_key == given.key


# Nobody


async def test_without_a_processor_each_call_says_so() -> None:
    nobody = NoProcessor()
    charge = ChargeOrder(
        key="k", amount_minor=1, currency="EUR", customer="c", token="t", on_session=False, description="d"
    )
    refund = RefundOrder(key="k", charge_id="c", amount_minor=1, currency="EUR")
    for call in (
        nobody.open_customer("k", "n"),
        nobody.open_setup("c"),
        nobody.attach_method("c", "t"),
        nobody.read_method("t"),
        nobody.detach_method("t"),
        nobody.charge(charge),
        nobody.find(charge),
        nobody.look_up("p"),
        nobody.cancel("p"),
        nobody.refund(refund),
        nobody.find_refund(refund),
        nobody.look_up_refund("p"),
        nobody.look_up_dispute("p"),
    ):
        with pytest.raises(ProcessorFailed, match="no payment processor"):
            await call
