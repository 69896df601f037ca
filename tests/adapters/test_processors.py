"""What every processor has to do, whichever it is: the same cases for the sandbox's, for Stripe and for localstripe."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from plafond.database import Database
from plafond.models import FailureCode
from plafond.services.ports import (
    ChargeOrder,
    ChargeResult,
    ChargeStatus,
    DisputeStatus,
    EventKind,
    ProcessorFailed,
    RefundOrder,
    RefundOutcome,
    RefundResult,
)

from .processors import DirectedStage, FakeStage, LocalstripeStage, SandboxStage, Stage, serve_localstripe

VISA = "pm_card_visa"
ASKS = "pm_card_authenticationRequired"
DECLINES = {
    "pm_card_chargeDeclinedInsufficientFunds": FailureCode.INSUFFICIENT_FUNDS,
    "pm_card_chargeDeclinedExpiredCard": FailureCode.EXPIRED_CARD,
    "pm_card_chargeDeclinedIncorrectCvc": FailureCode.INCORRECT_DETAILS,
    "pm_card_chargeDeclinedStolenCard": FailureCode.STOLEN_OR_CLOSED,
    "pm_card_chargeDeclinedProcessingError": FailureCode.PROCESSOR_ERROR,
}


async def order(stage: Stage, card: str = VISA, **given: Any) -> ChargeOrder:
    """An order of a customer's who has a card."""
    customer = await stage.processor.open_customer("account:1", "Acme")
    facts = await stage.processor.attach_method(customer, await stage.card(card))
    assert facts is not None
    made = ChargeOrder(
        key="invoice:1:0",
        amount_minor=12_340,
        currency="EUR",
        customer=customer,
        token=facts.token,
        on_session=False,
        description="Invoice 1",
    )
    return replace(made, **given)


async def paid(stage: Stage, card: str = VISA) -> tuple[ChargeOrder, ChargeResult]:
    """A charge that succeeded."""
    given = await order(stage, card)
    result = await stage.processor.charge(given)
    assert result.status is ChargeStatus.SUCCEEDED
    return given, result


def refund_of(charge: ChargeResult, **given: Any) -> RefundOrder:
    made = RefundOrder(key="refund:1", charge_id=charge.processor_id, amount_minor=340, currency=charge.currency)
    return replace(made, **given)


async def looked_up(stage: Stage, refund: RefundResult) -> RefundResult:
    """What became of a refund, as one that we know by its own key."""
    assert refund.processor_id is not None
    found = await stage.processor.look_up_refund(refund.processor_id)
    assert found is not None
    return replace(found, charge_key=None)


class Contract:
    """The cases. Each processor is a subclass with its own stage."""

    # Customers and methods

    async def test_a_customer_is_opened_once(self, stage: Stage) -> None:
        stage.need("keys are kept")
        first = await stage.processor.open_customer("account:1", "Acme")
        assert await stage.processor.open_customer("account:1", "Acme and Sons") == first
        assert await stage.processor.open_customer("account:2", "Acme") != first

    async def test_a_setup_has_a_secret(self, stage: Stage) -> None:
        setup = await stage.processor.open_setup(await stage.processor.open_customer("account:1", "Acme"))
        assert setup.client_secret.startswith("seti_")

    async def test_a_method_is_attached_and_read(self, stage: Stage) -> None:
        customer = await stage.processor.open_customer("account:1", "Acme")
        facts = await stage.processor.attach_method(customer, VISA)
        assert facts is not None
        assert (facts.brand, facts.last4, facts.exp_month) == ("visa", "4242", 12)
        assert facts.exp_year >= 2030
        assert await stage.processor.read_method(facts.token) == facts
        assert await stage.processor.attach_method(customer, facts.token) == facts

    async def test_an_unknown_method_is_none(self, stage: Stage) -> None:
        customer = await stage.processor.open_customer("account:1", "Acme")
        assert await stage.processor.attach_method(customer, "pm_unknown") is None
        assert await stage.processor.read_method("pm_unknown") is None

    async def test_a_method_of_another_customer_is_none(self, stage: Stage) -> None:
        stage.need("methods belong to a customer")
        given = await order(stage)
        other = await stage.processor.open_customer("account:2", "Other")
        assert await stage.processor.attach_method(other, given.token) is None
        facts = await stage.processor.read_method(given.token)
        assert facts is not None
        assert facts.token == given.token

    async def test_a_detached_method_is_charged_no_more(self, stage: Stage) -> None:
        given = await order(stage)
        await stage.processor.detach_method(given.token)
        await stage.processor.detach_method(given.token)
        if not stage.can("methods belong to a customer"):
            return
        assert await stage.processor.read_method(given.token) is None
        result = await stage.processor.charge(given)
        assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.INCORRECT_DETAILS)
        assert await stage.processor.find(given) is None

    # Charges

    async def test_a_charge_succeeds_and_is_found(self, stage: Stage) -> None:
        given, result = await paid(stage)
        assert (result.amount_minor, result.currency, result.failure) == (12_340, "EUR", None)
        assert (result.client_secret, result.url) == (None, None)
        assert await stage.processor.find(given) == result
        assert await stage.processor.look_up(result.processor_id) == result

    async def test_what_was_never_asked_for_is_not_found(self, stage: Stage) -> None:
        given, _ = await paid(stage)
        assert await stage.processor.find(replace(given, key="invoice:1:1")) is None
        assert await stage.processor.look_up("pi_unknown") is None

    @pytest.mark.parametrize(("currency", "amount_minor"), [("JPY", 1_500), ("KWD", 12_340), ("USD", 50)])
    async def test_amounts_are_in_minor_units(self, stage: Stage, currency: str, amount_minor: int) -> None:
        given = await order(stage, currency=currency, amount_minor=amount_minor)
        result = await stage.processor.charge(given)
        assert (result.status, result.amount_minor, result.currency) == (
            ChargeStatus.SUCCEEDED,
            amount_minor,
            currency,
        )

    async def test_the_same_key_is_the_same_charge(self, stage: Stage) -> None:
        stage.need("keys are kept")
        given, result = await paid(stage)
        assert await stage.processor.charge(given) == result
        other = await stage.processor.charge(replace(given, key="invoice:1:1"))
        assert other.processor_id != result.processor_id

    async def test_a_decline_stays_one(self, stage: Stage) -> None:
        given = await order(stage, "pm_card_chargeCustomerFail")
        result = await stage.processor.charge(given)
        assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.CARD_DECLINED)
        assert result.processor_id
        assert await stage.processor.look_up(result.processor_id) == result
        assert await stage.processor.find(given) == result
        assert await stage.processor.cancel(result.processor_id) == result

    @pytest.mark.parametrize(("card", "failure"), DECLINES.items())
    async def test_a_decline_has_its_reason(self, stage: Stage, card: str, failure: FailureCode) -> None:
        stage.need("cards differ")
        given = await order(stage, card)
        result = await stage.processor.charge(given)
        assert (result.status, result.failure) == (ChargeStatus.DECLINED, failure)
        assert await stage.processor.charge(given) == result
        assert await stage.processor.look_up(result.processor_id) == result

    async def test_an_unknown_method_is_declined(self, stage: Stage) -> None:
        result = await stage.processor.charge(await order(stage, token="pm_unknown"))
        assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.INCORRECT_DETAILS)

    async def test_without_the_cardholder_nobody_can_confirm(self, stage: Stage) -> None:
        given = await order(stage, ASKS)
        result = await stage.processor.charge(given)
        assert (result.status, result.failure) == (ChargeStatus.DECLINED, FailureCode.AUTHENTICATION_REQUIRED)
        assert result.client_secret is None
        assert await stage.processor.look_up(result.processor_id) == result
        assert await stage.processor.find(given) == result

    async def test_a_cardholder_confirms(self, stage: Stage) -> None:
        given = await order(stage, ASKS, on_session=True)
        result = await stage.processor.charge(given)
        assert (result.status, result.amount_minor) == (ChargeStatus.REQUIRES_ACTION, 12_340)
        assert result.client_secret
        assert await stage.processor.find(given) == result
        await stage.confirm(result)
        after = await stage.processor.look_up(result.processor_id)
        assert after is not None
        assert (after.status, after.client_secret) == (ChargeStatus.SUCCEEDED, None)
        if stage.can("keys are kept"):
            assert await stage.processor.charge(given) == after

    async def test_a_confirmed_card_may_be_declined(self, stage: Stage) -> None:
        stage.need("cards differ")
        card = "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds"
        result = await stage.processor.charge(await order(stage, card, on_session=True))
        assert result.status is ChargeStatus.REQUIRES_ACTION
        await stage.confirm(result)
        after = await stage.processor.look_up(result.processor_id)
        assert after is not None
        assert (after.status, after.failure) == (ChargeStatus.DECLINED, FailureCode.INSUFFICIENT_FUNDS)

    async def test_a_charge_that_waits_is_given_up(self, stage: Stage) -> None:
        given = await order(stage, ASKS, on_session=True)
        result = await stage.processor.charge(given)
        canceled = await stage.processor.cancel(result.processor_id)
        assert (canceled.status, canceled.failure) == (ChargeStatus.CANCELED, None)
        assert await stage.processor.look_up(result.processor_id) == canceled
        assert await stage.processor.find(given) == canceled
        assert await stage.processor.cancel(result.processor_id) == canceled

    async def test_a_charge_that_succeeded_stays(self, stage: Stage) -> None:
        _, result = await paid(stage)
        assert await stage.processor.cancel(result.processor_id) == result

    async def test_an_unknown_charge_cannot_be_given_up(self, stage: Stage) -> None:
        with pytest.raises(ProcessorFailed):
            await stage.processor.cancel("pi_unknown")

    # Refunds

    async def test_a_charge_goes_back_in_parts(self, stage: Stage) -> None:
        _, charge = await paid(stage)
        first = refund_of(charge)
        result = await stage.processor.refund(first)
        assert result.processor_id is not None
        assert result.status is RefundOutcome.SUCCEEDED
        assert (result.charge_id, result.amount_minor, result.currency) == (charge.processor_id, 340, "EUR")
        assert await stage.processor.find_refund(first) == result
        assert await looked_up(stage, result) == result
        rest = await stage.processor.refund(refund_of(charge, key="refund:2", amount_minor=12_000))
        assert rest.status is RefundOutcome.SUCCEEDED
        assert rest.processor_id != result.processor_id

    async def test_what_was_never_refunded_is_not_found(self, stage: Stage) -> None:
        _, charge = await paid(stage)
        assert await stage.processor.find_refund(refund_of(charge)) is None
        assert await stage.processor.look_up_refund("re_unknown") is None

    async def test_the_same_key_is_the_same_refund(self, stage: Stage) -> None:
        stage.need("keys are kept")
        _, charge = await paid(stage)
        result = await stage.processor.refund(refund_of(charge))
        assert await stage.processor.refund(refund_of(charge)) == result
        rest = await stage.processor.refund(refund_of(charge, key="refund:2", amount_minor=12_000))
        assert rest.status is RefundOutcome.SUCCEEDED

    @pytest.mark.parametrize("amount_minor", [12_001, 12_340])
    async def test_no_more_goes_back_than_is_left(self, stage: Stage, amount_minor: int) -> None:
        stage.need("refunds have a limit")
        _, charge = await paid(stage)
        await stage.processor.refund(refund_of(charge))
        more = refund_of(charge, key="refund:2", amount_minor=amount_minor)
        result = await stage.processor.refund(more)
        assert (result.status, result.processor_id) == (RefundOutcome.FAILED, None)
        assert (result.charge_id, result.amount_minor) == (charge.processor_id, amount_minor)
        assert await stage.processor.find_refund(more) is None
        rest = await stage.processor.refund(refund_of(charge, key="refund:3", amount_minor=12_000))
        assert rest.status is RefundOutcome.SUCCEEDED
        none = await stage.processor.refund(refund_of(charge, key="refund:4", amount_minor=1))
        assert none.status is RefundOutcome.FAILED

    async def test_what_was_not_paid_does_not_go_back(self, stage: Stage) -> None:
        declined = await stage.processor.charge(await order(stage, "pm_card_chargeCustomerFail"))
        result = await stage.processor.refund(refund_of(declined))
        assert (result.status, result.processor_id) == (RefundOutcome.FAILED, None)

    async def test_an_unknown_charge_does_not_go_back(self, stage: Stage) -> None:
        _, charge = await paid(stage)
        result = await stage.processor.refund(refund_of(charge, charge_id="pi_unknown"))
        assert (result.status, result.processor_id) == (RefundOutcome.FAILED, None)

    async def test_a_refund_may_wait(self, stage: Stage) -> None:
        stage.need("refunds may wait or fail")
        _, charge = await paid(stage, "pm_card_pendingRefund")
        result = await stage.processor.refund(refund_of(charge))
        assert result.status is RefundOutcome.PENDING
        assert await stage.processor.find_refund(refund_of(charge)) == result
        assert result.processor_id is not None
        assert await looked_up(stage, result) == replace(result, status=RefundOutcome.SUCCEEDED)

    async def test_a_refund_may_fail_in_the_end(self, stage: Stage) -> None:
        stage.need("refunds may wait or fail")
        _, charge = await paid(stage, "pm_card_refundFail")
        result = await stage.processor.refund(refund_of(charge, amount_minor=12_340))
        assert result.status is RefundOutcome.SUCCEEDED
        assert result.processor_id is not None
        assert await looked_up(stage, result) == replace(result, status=RefundOutcome.FAILED)
        again = await stage.processor.refund(refund_of(charge, key="refund:2", amount_minor=12_340))
        assert again.status is RefundOutcome.SUCCEEDED

    async def test_too_small_an_amount_is_declined(self, stage: Stage) -> None:
        stage.need("amounts have a minimum")
        given = await order(stage, amount_minor=49)
        result = await stage.processor.charge(given)
        assert (result.status, result.processor_id) == (ChargeStatus.DECLINED, "")
        assert result.failure is FailureCode.PROCESSOR_ERROR
        assert await stage.processor.find(given) is None
        assert (await stage.processor.charge(await order(stage, key="invoice:2:0", amount_minor=50))).processor_id


class DirectedContract(Contract):
    """The cases of those that fail and send messages as they are told to."""

    # Disputes and messages

    @pytest.mark.parametrize(("won", "status"), [(True, DisputeStatus.WON), (False, DisputeStatus.LOST)])
    async def test_a_dispute_is_told_of(self, stage: DirectedStage, won: bool, status: DisputeStatus) -> None:
        given, charge = await paid(stage, "pm_card_createDispute")
        [subject] = {message.subject for message in await stage.messages() if message.kind is EventKind.DISPUTE}
        facts = await stage.processor.look_up_dispute(subject)
        assert facts is not None
        assert (facts.processor_id, facts.charge_id) == (subject, charge.processor_id)
        assert facts.charge_key == given.key
        assert (facts.status, facts.amount_minor, facts.currency) == (DisputeStatus.OPEN, 12_340, "EUR")
        refund = await stage.processor.refund(refund_of(charge, amount_minor=12_340))
        assert refund.status is RefundOutcome.SUCCEEDED
        await stage.close_disputes(given.customer, won=won)
        after = await stage.processor.look_up_dispute(subject)
        assert after == replace(facts, status=status)

    async def test_an_unknown_dispute_is_none(self, stage: DirectedStage) -> None:
        assert await stage.processor.look_up_dispute("dp_unknown") is None

    async def test_messages_name_what_they_are_about(self, stage: DirectedStage) -> None:
        given, charge = await paid(stage)
        refund = await stage.processor.refund(refund_of(charge))
        told = {(message.kind, message.subject, message.key) for message in await stage.messages()}
        assert told == {
            (EventKind.CHARGE, charge.processor_id, given.key),
            (EventKind.REFUND, refund.processor_id, "refund:1"),
        }

    # When it does not answer, or wrongly

    async def test_one_that_hangs_did_nothing(self, stage: DirectedStage) -> None:
        given = await order(stage)
        brief = await stage.hang(given.customer)
        with pytest.raises(ProcessorFailed):
            await brief.charge(given)
        brief = await stage.hang(given.customer)
        with pytest.raises(ProcessorFailed):
            await brief.find(given)
        await stage.behave(given.customer)
        assert await stage.processor.find(given) is None
        result = await stage.processor.charge(given)
        assert result.status is ChargeStatus.SUCCEEDED
        brief = await stage.hang(given.customer)
        with pytest.raises(ProcessorFailed):
            await brief.look_up(result.processor_id)
        brief = await stage.hang(given.customer)
        with pytest.raises(ProcessorFailed):
            await brief.refund(refund_of(result))
        await stage.behave(given.customer)
        assert await stage.processor.find_refund(refund_of(result)) is None

    async def test_a_lost_answer_is_found(self, stage: DirectedStage) -> None:
        given = await order(stage)
        await stage.lose_answer(given.customer)
        with pytest.raises(ProcessorFailed):
            await stage.processor.charge(given)
        found = await stage.processor.find(given)
        assert found is not None
        assert found.status is ChargeStatus.SUCCEEDED
        await stage.behave(given.customer)
        assert await stage.processor.charge(given) == found

    async def test_a_lost_answer_to_a_refund_is_found(self, stage: DirectedStage) -> None:
        given, charge = await paid(stage)
        await stage.lose_answer(given.customer)
        with pytest.raises(ProcessorFailed):
            await stage.processor.refund(refund_of(charge))
        found = await stage.processor.find_refund(refund_of(charge))
        assert found is not None
        assert found.status is RefundOutcome.SUCCEEDED
        await stage.behave(given.customer)
        assert await stage.processor.refund(refund_of(charge)) == found

    async def test_another_amount_is_shown_as_it_was_told(self, stage: DirectedStage) -> None:
        given = await order(stage)
        await stage.change_amount(given.customer)
        charge = await stage.processor.charge(given)
        assert charge.amount_minor != given.amount_minor
        await stage.change_amount(given.customer)
        refund = await stage.processor.refund(refund_of(charge))
        assert refund.amount_minor != 340


class TestSandbox(DirectedContract):
    """The embedded processor."""

    @pytest.fixture
    def stage(self, bare: Database) -> Stage:
        return SandboxStage(bare)


class TestStripe(DirectedContract):
    """The Stripe adapter, against our own fake."""

    @pytest.fixture
    def stage(self, fake_stage: FakeStage) -> Stage:
        return fake_stage


@pytest.fixture(scope="module")
def localstripe() -> Iterator[str]:
    """The address of one localstripe for all tests of this file."""
    with serve_localstripe() as url:
        yield url


@pytest.mark.slow
@pytest.mark.xdist_group("localstripe")  # it is installed and started once
class TestLocalstripe(Contract):
    """The Stripe adapter, against an imitation that others wrote."""

    @pytest.fixture
    async def stage(self, localstripe: str) -> AsyncGenerator[Stage]:
        stage = LocalstripeStage(localstripe)
        await stage.forget_all()
        yield stage
        await stage.close()
