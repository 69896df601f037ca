"""The fault points themselves: nothing when off, refused where money is real, and each of them stands in the code."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from plafond.faults import POINTS, Action, Fault, RehearsedFault, reach, read_fault, rehearse
from plafond.settings import Settings

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """No fault is left over."""
    yield
    rehearse(None)


def test_every_point_is_reached_at_one_place() -> None:
    found = [
        point
        for path in sorted(SRC.rglob("*.py"))
        for point in re.findall(r"\breach\(\"([a-z_.]+)\"\)", path.read_text("utf-8"))
    ]
    assert sorted(found) == sorted(POINTS)


def test_nothing_happens_without_a_fault() -> None:
    for point in POINTS:
        reach(point)


def test_a_fault_happens_once_at_its_point_and_its_time() -> None:
    rehearse(Fault("charge.after_call", Action.RAISE, 2))
    reach("charge.before_call")
    reach("charge.after_call")
    with pytest.raises(RehearsedFault, match=r"charge\.after_call was to fail"):
        reach("charge.after_call")
    reach("charge.after_call")


@pytest.mark.parametrize(("action", "code"), [("kill", -9), ("exit", 1)])
def test_a_process_ends_at_once(action: str, code: int) -> None:
    program = (
        "import atexit; from plafond import faults; atexit.register(print, 'tidied up');"
        f"faults.rehearse(faults.read_fault('work.claimed:{action}')); faults.reach('work.claimed'); print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("work.claimed:kill", Fault("work.claimed", Action.KILL)),
        ("invoice.after_number:stop:12", Fault("invoice.after_number", Action.STOP, 12)),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_fault(text) == fault
    monkeypatch.setenv("PLAFOND_FAULT", text)
    assert Settings().fault == fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no point: there are work.claimed"),
        ("nowhere:kill", "'nowhere' is no point"),
        ("work.claimed", "'' is no action: there are kill, stop, exit, raise"),
        ("work.claimed:explode", "'explode' is no action"),
        ("work.claimed:kill:0", "'0' is no number of times"),
        ("work.claimed:kill:1:2", "'1:2' is no number of times"),
        ("work.claimed:kill:²", "'²' is no number of times"),
    ],
)
def test_what_is_no_fault_is_refused(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_FAULT", text)
    with pytest.raises(ValidationError, match=re.escape(told)):
        Settings()


def test_production_takes_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_FAULT", "work.claimed:kill")
    monkeypatch.setenv("PLAFOND_ENVIRONMENT", "PRODUCTION")
    with pytest.raises(ValidationError, match="PLAFOND_FAULT is for rehearsals in a sandbox"):
        Settings()
