"""F5: servers are killed around what raises alerts: each threshold is raised and told once an episode, in order."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from plafond.schema.node import encode_id

from .fire import Battlefield
from .senders import DOMAINS, EMAILS, Batch, Event, all_listen, run_senders


@dataclass(frozen=True)
class Step:
    """A change of a figure, and how many alerts it raises."""

    metric: str
    quantity: int
    raises: int

    def event(self, account_id: UUID, number: int) -> Event:
        """The event that makes it."""
        account = encode_id("BillingAccount", account_id)
        return {"eventId": f"e{number}", "accountId": account, "metric": self.metric, "quantity": self.quantity}


STEPS = (
    Step(EMAILS, 8_000, 1),
    Step(EMAILS, 1_000, 1),
    Step(EMAILS, 500, 1),
    Step(EMAILS, 500, 1),
    Step(DOMAINS, 4, 1),
    Step(DOMAINS, 1, 3),
    Step(DOMAINS, -3, 0),
    Step(DOMAINS, 3, 4),
)
ALL = [80, 90, 95, 100]
TOLD = [*ALL, *ALL, *ALL, *ALL]
"""Of the emails; of the domains as they are raised, resolved, and raised again."""


@pytest.mark.parametrize(
    "point", ["usage.before_commit", "usage.after_commit", pytest.param("alert.raised", marks=pytest.mark.slow)]
)
async def test_a_server_dies_at_each_step_that_raises(battlefield: Battlefield, tmp_path: Path, point: str) -> None:
    async with run_senders(battlefield, tmp_path) as run:
        account_id = run.account_ids[0]
        server = await run.fight.serve(f"{point}:kill", with_worker=False)
        await all_listen(run)
        deaths = 0
        for number, step in enumerate(STEPS):
            run.send([Batch([step.event(account_id, number)])])
            sending, dying = run.senders[-1], asyncio.create_task(run.fight.fall(server))
            await asyncio.wait([sending, dying], return_when=asyncio.FIRST_COMPLETED)
            if not dying.done():
                dying.cancel()  # this one raised nothing
                continue
            deaths += 1
            again = step.raises if point == "alert.raised" else 1
            server = await run.fight.serve(f"{point}:kill:{again + 1}", with_worker=False)
            await sending
    assert deaths == len(STEPS) - (point == "alert.raised")
    listener = next(listener for listener in run.listeners if listener.account_id == account_id)
    assert [threshold for _, threshold, _ in listener.heard] == TOLD
    assert listener.times > 1, "it had to come again"
