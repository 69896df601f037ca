"""Keeps what was measured: one file a part in bench/results/, and the table of them all in bench/README.md."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
START, END = "<!-- measured -->", "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """One thing that was measured, and what it came to, for people to read."""

    what: str
    figure: str


Tell = Callable[[Row], None]
"""Takes a row as soon as it is measured."""


def describe_machine() -> str:
    """What it was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}"


def keep(part: str, title: str, rows: list[Row]) -> None:
    """Write a part's figures, and the table anew."""
    FOLDER.mkdir(exist_ok=True)
    measured = {
        "title": title,
        "on": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "rows": [[row.what, row.figure] for row in rows],
    }
    (FOLDER / f"{part}.json").write_text(json.dumps(measured, indent=2, ensure_ascii=False) + "\n")
    write_table()


def write_table() -> None:
    """The tables of all parts, between the marks of the page."""
    blocks = []
    for file in sorted(FOLDER.glob("*.json")):
        found = json.loads(file.read_text())
        lines = [f"### {found['title']}", "", f"{found['on']}, {found['machine']}", "", "| what | |", "| --- | --- |"]
        blocks.append("\n".join([*lines, *(f"| {what} | {figure} |" for what, figure in found["rows"])]))
    text = README.read_text()
    head, tail = text.partition(START)[0], text.partition(END)[2]
    README.write_text(f"{head}{START}\n\n" + "\n\n".join(blocks) + f"\n\n{END}{tail}")
