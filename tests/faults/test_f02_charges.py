"""F2: whoever charges is killed at each point of it: one effect at the processor, and nothing paid without a
payment."""

from pathlib import Path

import pytest
from sqlalchemy import select

from plafond import faults
from plafond.models import SandboxMessages, Transaction, TransactionStatus

from .fire import Battlefield, Fight, Kind, fight, wish_of
from .runner import until

FLOWS = (Kind.BUYER, Kind.CONFIRMER, Kind.DEBTOR, Kind.RETRIER, Kind.RENEWER, Kind.DUNNED, Kind.INSOLVENT)
"""An order, one that the cardholder confirms, a new card, a retry; the worker's: a renewal, a day of dunning, twice."""
POINTS = [point for point in faults.POINTS if point.startswith(("charge.", "message."))]
QUICK = [(Kind.BUYER, "charge.after_call:kill"), (Kind.DUNNED, "charge.before_commit:kill")]
CASES = [(kind, f"{point}:kill") for kind in FLOWS for point in POINTS]
CASES += [(Kind.CONFIRMER, "charge.before_commit:kill:2")]
"""What the cardholder confirmed is written down apart from what was asked for."""


async def die(fought: Fight, kind: Kind, fault: str) -> None:
    """Let a process die of a fault, and others go on after it."""
    by_worker = wish_of(fought.field.of(kind)[0]) is None
    if not by_worker and not fault.startswith("message."):
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
    ("kind", "fault"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
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
