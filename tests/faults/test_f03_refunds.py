"""F3: whoever refunds is killed at each point of it: the money goes back once, and is booked once."""

from pathlib import Path

import pytest

from plafond import faults
from plafond.models import SandboxMessages

from .fire import Battlefield, Kind, fight
from .runner import pass_a_minute
from .test_f02_charges import die

FLOWS = (Kind.UNHAPPY, Kind.PATIENT)
"""One that is done at once, and one that is with the bank until a message tells its end."""
POINTS = [point for point in faults.POINTS if point.startswith(("refund.", "message."))]
QUICK = (Kind.PATIENT, "refund.after_call:kill")
CASES = [(kind, f"{point}:kill") for kind in FLOWS for point in POINTS]
CASES += [(Kind.PATIENT, "message.taken:kill:2"), (Kind.PATIENT, "message.heard:kill:2")]


@pytest.mark.parametrize(
    ("kind", "fault"), [case if case == QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
async def test_who_refunds_is_killed(battlefield: Battlefield, tmp_path: Path, kind: Kind, fault: str) -> None:
    async with fight(battlefield, tmp_path, kind) as fought:
        await die(fought, kind, fault)


@pytest.mark.slow
async def test_the_worker_that_goes_on_is_killed_too(battlefield: Battlefield, tmp_path: Path) -> None:
    """Both die of the same refund, of which nobody sends word."""
    async with fight(battlefield, tmp_path, Kind.UNHAPPY, told=SandboxMessages.NONE) as fought:
        dying = await fought.serve("refund.after_call:kill", with_worker=False)
        fought.begin()
        await fought.fall(dying)
        await pass_a_minute(fought.database)
        await fought.processes.see_end(fought.processes.start_worker("refund.before_commit:kill"))
        await fought.serve()
