"""F15: who serves or works is told to stop while money moves, and killed before it has; or told twice."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from .fire import Battlefield, fight
from .runner import Processes, until

TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.mark.parametrize(
    "signals",
    [[TERM, KILL], pytest.param([TERM, TERM], marks=pytest.mark.slow), pytest.param([TERM], marks=pytest.mark.slow)],
    ids=["then killed", "twice", "once"],
)
@pytest.mark.parametrize(
    "after_s", [0.1, *(pytest.param(wait, marks=pytest.mark.slow) for wait in (0.0, 0.2, 0.4))], ids=str
)
async def test_who_is_told_to_stop(
    battlefield: Battlefield, tmp_path: Path, signals: list[signal.Signals], after_s: float
) -> None:
    async with fight(battlefield, tmp_path) as fought:
        server = await fought.serve()
        worker = fought.processes.start_worker()
        fought.begin(random.Random(0))  # noqa: S311  # not a secret
        await asyncio.wait(fought.clients, timeout=after_s, return_when=asyncio.FIRST_COMPLETED)
        for process in (server, worker):
            for number in signals:
                if process.is_alive():
                    assert process.pid is not None
                    os.kill(process.pid, number)
        await until(lambda: _are_over(fought.processes))
        # Nobody dies of a signal but of the last one.
        assert KILL in signals or server.exitcode == 0, fought.processes.log_of(server)
        fought.front.up.clear()
        await fought.serve()


async def _are_over(processes: Processes) -> bool:
    return not processes.count_alive()
