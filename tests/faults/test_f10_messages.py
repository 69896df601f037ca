"""F10: the processor's messages come twice, shuffled, late, stale, and before our own commit: the end is the same."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import select, update

from plafond.adapters.sandbox_processor import SandboxProcessor, acknowledge, close_disputes, take_messages
from plafond.clock import SetClock
from plafond.database import Database
from plafond.models import (
    BillingAccount,
    FailureCode,
    Interval,
    RefundReason,
    SandboxAnswers,
    SandboxCharge,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from plafond.services.auditing import audit
from plafond.services.decisions import decide_change
from plafond.services.disputes import record_dispute
from plafond.services.hearing import Heard
from plafond.services.ports import (
    ChargeResult,
    ChargeStatus,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    Message,
    RefundOutcome,
    RefundResult,
)
from plafond.services.processor_messages import hear
from plafond.services.refunds import RefundDecision
from plafond.services.repayment import record_refund
from plafond.services.settlement import record_result
from plafond.services.tills import Till

from ..services.engine import VISA, add_card, ask_back, open_till, order
from .fire import Battlefield, Kind, Party, behave, copy_of
from .states import State, state_of

LATE = timedelta(days=3)
DISPUTED = "pm_card_createDispute"


class Ears:
    """Hears the messages that wait: each once and in order, or as chance will have it."""

    def __init__(self, till: Till, chance: random.Random | None) -> None:
        self._till = till
        self._chance = chance

    async def listen(self) -> None:
        """Between two things that happen."""
        if self._chance is None:
            await self.hear_all()
            return
        messages = self._shuffle(await self._waiting())
        # Some come now, some of those again, and some at the same moment.
        come = [message for message in messages if self._chance.random() < 0.5]
        come += [message for message in come if self._chance.random() < 0.5]
        while come:
            count = self._chance.randint(1, 3)
            now, come = come[:count], come[count:]
            await asyncio.gather(*(hear(self._till, message) for message in now))

    async def hear_all(self) -> None:
        """All that waits, and what is told because of that."""
        while messages := await self._waiting():
            if self._chance is not None:
                messages = self._shuffle(messages * 2)
            for message in messages:
                await hear(self._till, message)
            for message in messages * 2:
                await acknowledge(self._till.database, message)

    def _shuffle(self, messages: Sequence[Message]) -> list[Message]:
        assert self._chance is not None, "in order otherwise"
        return self._chance.sample(messages, len(messages))

    async def _waiting(self) -> list[Message]:
        return list({message.id: message for message in await take_messages(self._till.database, 100)}.values())


async def live(template: Battlefield, folder: Path, began: datetime, chance: random.Random | None) -> State:
    """Money moves, and the processor tells of it. Gives the end."""
    with copy_of(template, folder) as field_:
        clock = SetClock(began)
        database = Database(field_.address, clock, lambda _: None)
        till = open_till(database)
        party = {each.kind: each for each in field_.parties}
        ears = Ears(till, chance)
        try:
            # A change whose own flow never learns of its charge.
            await behave(database, [party[Kind.BUYER]], SandboxAnswers.LOST_AFTER_EFFECT)
            await order(till, party[Kind.BUYER].account_id, decide_change, "professional", Interval.MONTH)
            await behave(database, [party[Kind.BUYER]], SandboxAnswers.NORMAL)
            await ears.listen()
            await behave(database, [party[Kind.DEBTOR]], SandboxAnswers.LOST_AFTER_EFFECT)
            await add_card(till, party[Kind.DEBTOR].account_id, VISA)
            await behave(database, [party[Kind.DEBTOR]], SandboxAnswers.NORMAL)
            await ears.listen()
            await add_card(till, party[Kind.RETRIER].account_id, DISPUTED)
            await ears.listen()
            for kind in (Kind.UNHAPPY, Kind.PATIENT):
                await _refund(till, party[kind], 1_000)
                await ears.listen()
                await _refund(till, party[kind], 500)
                await ears.listen()
            await _let_return(database, party[Kind.RENEWER])
            await _refund(till, party[Kind.RENEWER], 700)
            await ears.listen()
            await _lose_disputes(till, party[Kind.RETRIER])
            await ears.listen()
            # A change waits for its message for less than a day; all else may be late.
            while (await _change_waits(database)) and chance is not None:
                await ears.listen()
            clock.stands_at += LATE
            await ears.hear_all()
            async with database.read() as session:
                assert await audit(session, datetime.now(UTC)) == []
            return await state_of(database)
        finally:
            await database.close()


async def _refund(till: Till, party: Party, amount_minor: int) -> None:
    assert party.charge_id is not None, "it paid"
    await ask_back(till, party.charge_id, RefundReason.GOODWILL, amount_minor, RefundDecision.APPROVE)


async def _let_return(database: Database, party: Party) -> None:
    """The bank will send back what is refunded of an account's charges."""
    async with database.work(open_till(database).actor) as work:
        account = await work.session.get_one(BillingAccount, party.account_id)
        await work.session.execute(
            update(SandboxCharge)
            .where(SandboxCharge.customer == account.processor_customer)
            .values(token="pm_card_refundFail")
        )


async def _lose_disputes(till: Till, party: Party) -> None:
    async with till.work() as work:
        account = await work.session.get_one(BillingAccount, party.account_id)
        assert await close_disputes(work, account.processor_customer or "", won=False) == 1


async def _change_waits(database: Database) -> bool:
    async with database.read() as session:
        found = await session.scalar(
            select(Transaction.id).where(
                Transaction.pending_change_id.is_not(None), Transaction.status == TransactionStatus.UNKNOWN
            )
        )
    return found is not None


@pytest.fixture(scope="session")
def in_order(battlefield: Battlefield, tmp_path_factory: pytest.TempPathFactory) -> tuple[datetime, State]:
    """When it began, and the end where each message comes once, in order, and at once."""
    began = datetime.now(UTC)
    return began, asyncio.run(live(battlefield, tmp_path_factory.mktemp("order"), began, None))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 41))])
async def test_messages_as_chance_will_have_them(
    battlefield: Battlefield, tmp_path: Path, in_order: tuple[datetime, State], seed: int
) -> None:
    began, end = in_order
    assert await live(battlefield, tmp_path, began, random.Random(seed)) == end  # noqa: S311  # not a secret


# --- what was read before it changed, and is written down after ------------------------------------------------------


def disorder(results: Sequence[int], chance: random.Random) -> list[int]:
    """All of it, some of it again, in any order."""
    again = [place for place in results if chance.random() < 0.5]
    return chance.sample([*results, *again], len(results) + len(again))


def heard(number: int, kind: EventKind) -> Heard:
    """A message of its own."""
    return Heard(Message(id=f"evt_stale_{number}", kind=kind, subject="stale"))


SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 13))]


@cache
def moment_of(address: str) -> datetime:  # noqa: ARG001  # what it is remembered by
    """One for all that is compared: revenue is earned by the second."""
    return datetime.now(UTC)


async def _tell_charge(template: Battlefield, folder: Path, ends: str, places: Sequence[int]) -> State:
    """An open charge of an invoice, of which results are written down in an order."""
    with copy_of(template, folder) as field_:
        database = Database(field_.address, SetClock(moment_of(template.address)), lambda _: None)
        till = open_till(database)
        [party] = field_.of(Kind.DEBTOR)
        await behave(database, [party], SandboxAnswers.HANGS)
        hanging = SandboxProcessor(database, hangs_for_s=0)
        await add_card(replace(till, processor=hanging), party.account_id, VISA)
        async with database.read() as session:
            open_ = (
                await session.scalars(select(Transaction).where(Transaction.status == TransactionStatus.UNKNOWN))
            ).one()
        told = ChargeResult(
            status=ChargeStatus.REQUIRES_ACTION,
            processor_id="ch_stale",
            amount_minor=open_.amount_minor,
            currency=open_.currency,
            client_secret="secret",
        )
        failure = FailureCode.CARD_DECLINED if ends == ChargeStatus.DECLINED else None
        results = [told, replace(told, status=ChargeStatus(ends), client_secret=None, failure=failure)]
        for number, place in enumerate(places):
            await record_result(till, open_.id, results[place], heard=heard(number, EventKind.CHARGE))
        state = await state_of(database)
        await database.close()
        return state


@pytest.mark.parametrize("ends", ["SUCCEEDED", "DECLINED", "CANCELED"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_stale_word_of_a_charge(battlefield: Battlefield, tmp_path: Path, ends: str, seed: int) -> None:
    """It waited for the cardholder, and then ended so."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    told = await _tell_charge(battlefield, tmp_path / "stale", ends, disorder([0, 1], chance))
    assert told == await _tell_charge(battlefield, tmp_path / "order", ends, [0, 1])


async def _tell_refund(template: Battlefield, folder: Path, last: int, places: Sequence[int]) -> State:
    """A refund that is with the bank, of which results are written down in an order."""
    with copy_of(template, folder) as field_:
        database = Database(field_.address, SetClock(moment_of(template.address)), lambda _: None)
        till = open_till(database)
        [party] = field_.of(Kind.PATIENT)
        await _refund(till, party, 1_000)
        async with database.read() as session:
            refund = (
                await session.scalars(select(Transaction).where(Transaction.kind == TransactionKind.REFUND))
            ).one()
        assert refund.status is TransactionStatus.PENDING
        ways = [RefundOutcome.PENDING, RefundOutcome.SUCCEEDED, RefundOutcome.FAILED][: last + 1]
        results = [
            RefundResult(
                status=status,
                processor_id=refund.processor_id,
                charge_id="",
                amount_minor=refund.amount_minor,
                currency=refund.currency,
            )
            for status in ways
        ]
        for number, place in enumerate(places):
            await record_refund(till, refund.id, results[place], heard=heard(number, EventKind.REFUND))
        state = await state_of(database)
        await database.close()
        return state


@pytest.mark.parametrize("last", [1, 2], ids=["succeeds", "returned"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_stale_word_of_a_refund(battlefield: Battlefield, tmp_path: Path, last: int, seed: int) -> None:
    """It was with the bank, then done, and then perhaps sent back by it."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    told = await _tell_refund(battlefield, tmp_path / "stale", last, disorder(range(last + 1), chance))
    assert told == await _tell_refund(battlefield, tmp_path / "order", last, range(last + 1))


async def _tell_dispute(template: Battlefield, folder: Path, ends: str, places: Sequence[int]) -> State:
    with copy_of(template, folder) as field_:
        database = Database(field_.address, SetClock(moment_of(template.address)), lambda _: None)
        [party] = field_.of(Kind.UNHAPPY)
        assert party.charge_id is not None, "it paid"
        results = [
            DisputeFacts(
                processor_id="dp_stale",
                charge_id="",
                status=status,
                amount_minor=1_000,
                currency="USD",
            )
            for status in (DisputeStatus.OPEN, DisputeStatus(ends))
        ]
        for number, place in enumerate(places):
            facts = results[place]
            await record_dispute(open_till(database), party.charge_id, facts, heard(number, EventKind.DISPUTE))
        state = await state_of(database)
        await database.close()
        return state


@pytest.mark.parametrize("ends", ["WON", "LOST"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_stale_word_of_a_dispute(battlefield: Battlefield, tmp_path: Path, ends: str, seed: int) -> None:
    """It was open, and then the bank decided."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    told = await _tell_dispute(battlefield, tmp_path / "stale", ends, disorder([0, 1], chance))
    assert told == await _tell_dispute(battlefield, tmp_path / "order", ends, [0, 1])
