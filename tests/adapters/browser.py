"""Chromium without a window, for tests that look at HTML as people do. Nothing it opens leaves this machine."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # What a page wants of elsewhere fails at once.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def find_browser() -> str:
    """Where it is. Without one the test is skipped; in CI that is a failure."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "no Chromium is installed to look at pages with (apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def _run(browser: str, *arguments: str) -> str:
    with TemporaryDirectory() as profile:
        done = subprocess.run(
            [browser, *QUIET, f"--user-data-dir={profile}", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    return done.stdout


def dump_page(browser: str, page: Path | str) -> str:
    """A page as it stands when its scripts have run."""
    return _run(browser, "--virtual-time-budget=10000", "--dump-dom", _address(page))


def take_picture(browser: str, page: Path | str, picture: Path, width: int, height: int) -> None:
    """A page as it looks."""
    _run(browser, f"--window-size={width},{height}", f"--screenshot={picture}", _address(page))
    assert picture.exists(), "a picture was taken"


def _address(page: Path | str) -> str:
    return page if isinstance(page, str) else page.resolve().as_uri()
