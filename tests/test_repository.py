"""The repository itself: its locks, its commands, and what must not be left lying in its files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def requirements(lock: str) -> dict[str, list[str]]:
    """Every pinned requirement of a lock, with its hashes."""
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=")
            found[requirement.strip()] = [value.strip() for value in hashes]
    return found


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert [requirement for requirement in requirements(lock) if requirement.startswith("-")] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_with_a_hash(lock: str) -> None:
    pinned = requirements(lock)
    assert pinned
    assert [requirement for requirement in pinned if "==" not in requirement] == []
    assert [requirement for requirement, hashes in pinned.items() if not hashes] == []
    assert all(value.startswith("sha256:") for hashes in pinned.values() for value in hashes)


def test_both_locks_name_the_same_versions() -> None:
    runtime, dev = (set(requirements(lock)) for lock in LOCKS)
    assert runtime - dev == set()


def test_make_lists_its_commands() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, env=environment, capture_output=True, check=True, text=True
    )
    listed = {line.split()[1] for line in shown.stdout.splitlines()}
    assert listed >= {"run", "test", "test-slow", "check", "schema", "bench"}


@pytest.mark.parametrize("directory", ["work", "root"])
def test_no_file_names_a_directory_of_one_machine(directory: str) -> None:
    needle = f"/{directory}/".encode()
    assert [str(path.relative_to(ROOT)) for path in tracked_files() if needle in path.read_bytes()] == []


def test_nothing_is_left_to_do_in_the_code() -> None:
    needle = b"TO" + b"DO"
    code = [
        path for path in tracked_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in {"src", "tests"}
    ]
    assert [str(path.relative_to(ROOT)) for path in code if needle in path.read_bytes()] == []
