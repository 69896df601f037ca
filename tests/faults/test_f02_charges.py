"""F2: whoever charges is killed at each point of it: one effect at the processor, and nothing paid without a
payment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from plafond import faults
from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.clock import SetClock
from plafond.database import Database
from plafond.models import (
    Interval,
    SandboxAnswers,
    SandboxMessages,
    Subscription,
    Transaction,
    TransactionStatus,
)
from plafond.services.auditing import audit
from plafond.services.decisions import decide_change
from plafond.services.duties import do_due
from plafond.services.ports import ChargeOrder, ChargeResult

from ..services.engine import open_till, order
from .fire import Battlefield, Fight, Kind, behave, copy_of, fight, wish_of
from .runner import until

FLOWS = (Kind.BUYER, Kind.CONFIRMER, Kind.DEBTOR, Kind.RETRIER, Kind.RENEWER, Kind.DUNNED, Kind.INSOLVENT)
"""An order, one that the cardholder confirms, a new card, a retry; the worker's: a renewal, a day of dunning, twice."""
POINTS = [point for point in faults.POINTS if point.startswith(("charge.", "message."))]
QUICK = (Kind.BUYER, "charge.after_call:kill")
CASES = [(kind, f"{point}:kill") for kind in FLOWS for point in POINTS]
CASES += [(Kind.CONFIRMER, "charge.before_commit:kill:2")]
"""What the cardholder confirmed is written down apart from what was asked for."""


async def die(fought: Fight, kind: Kind, fault: str) -> None:
    """Let a process die of a fault, and others go on after it."""
    by_worker = wish_of(fought.field.of(kind)[0]) is None
    # What is with the bank comes to its end by a message.
    by_message = fault.startswith("message.") or (kind is Kind.PATIENT and fault.startswith("refund.before_commit"))
    if not by_worker and not by_message:
        dying = await fought.serve(fault, with_worker=False)
        fought.begin()
        await fought.fall(dying)
        await fought.serve()
        return
    if not by_worker:
        # The worker brings the messages, so it is the one that dies of them.
        await fought.serve(with_worker=False)
        fought.begin()
    await fought.processes.see_end(fought.processes.start_worker(fault))
    fought.processes.start_worker()


@pytest.mark.parametrize(
    ("kind", "fault"), [case if case == QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
async def test_who_charges_is_killed(battlefield: Battlefield, tmp_path: Path, kind: Kind, fault: str) -> None:
    async with fight(battlefield, tmp_path, kind) as fought:
        await die(fought, kind, fault)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOWS)
async def test_no_message_tells_what_the_dead_did(battlefield: Battlefield, tmp_path: Path, kind: Kind) -> None:
    """It is asked for: after the effect, and before its own commit, only the processor knows of it."""
    async with fight(battlefield, tmp_path, kind, told=SandboxMessages.NONE) as fought:
        await die(fought, kind, "charge.after_call:kill")


@pytest.mark.parametrize("kind", [Kind.BUYER, pytest.param(Kind.RETRIER, marks=pytest.mark.slow)])
async def test_a_message_comes_before_anybody_asks(battlefield: Battlefield, tmp_path: Path, kind: Kind) -> None:
    """The charge's own flow is dead, and nobody is to look after it yet: the message is enough."""
    async with fight(battlefield, tmp_path, kind, told=SandboxMessages.TWICE_SHUFFLED) as fought:
        dying = await fought.serve("charge.after_call:kill", with_worker=False)
        fought.begin()
        await fought.fall(dying)
        fought.processes.start_worker()

        async def is_known() -> bool:
            async with fought.database.read() as session:
                return not (
                    await session.scalars(select(Transaction).where(Transaction.status == TransactionStatus.PENDING))
                ).all()

        assert not await is_known()
        await until(is_known, seconds=30)
        await fought.serve()


class Killed(BaseException):
    """What a flow ends with that is not there any more."""


class DyingProcessor(SandboxProcessor):
    """Charges, and whoever asked is dead by the time of its answer."""

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """As the sandbox does."""
        await super().charge(order)
        raise Killed


async def test_who_orders_dies_in_the_last_minute_of_a_period(battlefield: Battlefield, tmp_path: Path) -> None:
    """The change ends with the period, before anybody looks after its charge: it is asked for all the same."""
    with copy_of(battlefield, tmp_path) as field_:
        [buyer] = field_.of(Kind.BUYER)
        clock = SetClock(datetime.now(UTC))
        database = Database(field_.address, clock, lambda _: None)
        try:
            till = open_till(database)
            await behave(database, [buyer], SandboxAnswers.NORMAL, SandboxMessages.NONE)
            async with database.read() as session:
                ends = await session.scalar(
                    select(Subscription.usage_period_end).where(Subscription.account_id == buyer.account_id)
                )
            assert ends is not None
            clock.stands_at = ends - timedelta(seconds=20)
            dying = replace(till, processor=DyingProcessor(database))
            with pytest.raises(Killed):
                await order(dying, buyer.account_id, decide_change, "professional", Interval.YEAR)
            clock.stands_at = ends + timedelta(seconds=1)
            while await do_due(till, account_id=buyer.account_id):
                pass
            async with database.read() as session:
                change = (
                    await session.scalars(
                        select(Transaction).where(
                            Transaction.account_id == buyer.account_id, Transaction.invoice_id.is_(None)
                        )
                    )
                ).one()
                assert (change.status, change.excess_minor) == (TransactionStatus.SUCCEEDED, change.amount_minor)
                found = await audit(session, datetime.now(UTC))
            assert [finding for finding in found if finding.account_id == buyer.account_id] == []
        finally:
            await database.close()
