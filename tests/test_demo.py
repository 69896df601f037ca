"""`plafond demo` as its user meets it: a process, its output and its port."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import create_engine, text

from plafond.demo import QUERY_TO_PASTE
from plafond.serving import bind_port

PLAFOND = Path(sys.executable).with_name("plafond")
LEVELS = ("WARNING", "UPGRADE_SUGGESTION", "URGENT", "LIMIT_REACHED")
LONGEST = 180.0
TOKEN = re.compile(r"^  (.{18})(\w+)\s+(plf_test_\w+)$", re.MULTILINE)


class Demo:
    """A running demo and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output += line
                self._changed.notify_all()

    def wait_for(self, *patterns: str) -> None:
        """Until each pattern stands in the output."""

        def there() -> bool:
            return all(re.search(pattern, self.output, re.MULTILINE) for pattern in patterns)

        until = time.monotonic() + LONGEST
        with self._changed:
            while not there():
                assert self.process.poll() is None, self.output
                assert time.monotonic() < until, self.output
                self._changed.wait(0.5)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=10)
        assert code in (0, 130), self.output
        assert "Traceback" not in self.output
        assert "Error" not in self.output

    def close(self) -> None:
        """End it however it stands."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)
        self._reader.join(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def tokens(self) -> dict[tuple[str, str], str]:
        """The printed tokens by tenant and role."""
        return {(tenant.strip(), role): token for tenant, role, token in TOKEN.findall(self.output)}


def command(port: int, folder: Path, *options: str) -> list[str]:
    return [str(PLAFOND), "demo", "--port", str(port), "--folder", str(folder), *options]


@contextmanager
def running(port: int, folder: Path, *options: str) -> Iterator[Demo]:
    """The demo, with its errors among its output; ended whatever happens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAFOND_")}
    process = subprocess.Popen(
        command(port, folder, *options),
        env=environment | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    demo = Demo(process)
    try:
        yield demo
    finally:
        demo.close()


def free_port() -> int:
    with bind_port("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def counted(folder: Path) -> tuple[int, int]:
    """Birchwood's sends: the counters' sum and how many events there are."""
    engine = create_engine(f"sqlite:///{folder / 'plafond.db'}")
    birchwood = "account_id = (SELECT id FROM billing_account WHERE external_id = 'birchwood')"
    try:
        with engine.connect() as connection:
            used = connection.execute(
                text(f"SELECT SUM(used) FROM counter WHERE metric_key = 'email_sends' AND {birchwood}")  # noqa: S608
            ).scalar_one()
            events = connection.execute(text(f"SELECT COUNT(*) FROM usage_event WHERE {birchwood}")).scalar_one()  # noqa: S608
            return int(used), int(events)
    finally:
        engine.dispose()


@pytest.mark.slow
def test_the_demo_from_its_first_line_to_ctrl_c_and_again(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "demo"
    serving = rf"Serving on http://127\.0\.0\.1:{port}/graphql"
    with running(port, folder) as demo:
        demo.wait_for("A query, for the terminal:", r"-d '.*'$")
        owner = demo.tokens["Acme Corporation", "TENANT_OWNER"]
        pasted = re.search(r"curl -s (\S+) .*?Bearer (\S+)' \\\s+-d '(.*?)'$", demo.output, re.DOTALL | re.MULTILINE)
        assert pasted is not None
        url, token, body = pasted.groups()
        assert (url, token) == (f"http://127.0.0.1:{port}/graphql", owner)
        assert json.loads(body) == {"query": QUERY_TO_PASTE}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        answer = httpx2.post(url, content=body.encode(), headers=headers, timeout=30.0).json()
        assert "errors" not in answer
        assert answer["data"]["billingAccount"]["name"] == "Acme Corporation"
        assert len(answer["data"]["billingAccount"]["usage"]) == 4
        demo.wait_for(*(rf"^\W*{level}: \S" for level in LEVELS), serving, "events counted")
        raised = [level for level in re.findall(r"^\W*([A-Z_]+): ", demo.output, re.MULTILINE) if level in LEVELS]
        assert raised == list(LEVELS)
        tokens = demo.tokens
        assert len(tokens) == 22
        demo.interrupt()
    before = counted(folder)
    assert before[1] > 0
    assert (folder / "sandbox-tokens.json").stat().st_mode & 0o077 == 0

    with running(port, folder, "--keep") as demo:
        demo.wait_for(serving)
        assert demo.tokens == tokens
        assert counted(folder) == before
        assert re.search(r"^0 events counted", demo.output, re.MULTILINE), demo.output
        assert re.search(r"not counted twice|counted once", demo.output), demo.output
        demo.interrupt()
    assert counted(folder) == before


@pytest.mark.slow
def test_a_taken_port_is_told_at_once_and_nothing_is_made(tmp_path: Path) -> None:
    with bind_port("127.0.0.1", 0) as listener:
        port = int(listener.getsockname()[1])
        done = subprocess.run(command(port, tmp_path / "demo"), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"plafond: 127.0.0.1:{port} cannot be listened on")
    named = re.findall(r"PORT=(\d+) make run", lines[0])
    assert named
    assert named != [str(port)]
    assert not (tmp_path / "demo" / "plafond.db").exists()
