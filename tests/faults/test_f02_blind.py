"""F2, F3: servers and workers are killed at random times while money moves: each wish comes true once."""

import random
from pathlib import Path

import pytest

from .fire import Battlefield, fight_blindly
from .runner import ROUNDS, SEED


async def _fight_rounds(battlefield: Battlefield, folder: Path, rounds: int) -> None:
    print(f"PLAFOND_TEST_SEED={SEED}")
    for number in range(rounds):
        print(f"round {number}")
        await fight_blindly(battlefield, folder / str(number), random.Random(f"{SEED}:{number}"))  # noqa: S311  # not a secret
    print(f"{rounds} rounds on {battlefield.engine} with seed {SEED}: the audit found nothing")


async def test_money_moves_while_processes_die(battlefield: Battlefield, tmp_path: Path) -> None:
    await _fight_rounds(battlefield, tmp_path, 1)


@pytest.mark.slow
async def test_money_moves_while_processes_die_again_and_again(battlefield: Battlefield, tmp_path: Path) -> None:
    """`make faults` sets the number of rounds: 100 on each engine."""
    await _fight_rounds(battlefield, tmp_path, ROUNDS)
