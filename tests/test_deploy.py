"""What is deployed fits what there is: commands, options and settings that exist, times that follow each other."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from plafond import cli
from plafond.serving import GRACE_S
from plafond.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
KNOWN = {f"PLAFOND_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as it is read."""
    try:
        yaml = importlib.import_module("yaml")
    except ModuleNotFoundError:
        pytest.skip("nothing here reads YAML")
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def check_command(words: list[str]) -> None:
    """Whether `plafond` takes these words."""
    command = typer.main.get_command(cli.app)
    context = command.make_context("plafond", list(words), resilient_parsing=True)
    name, *arguments = words
    found = getattr(command, "commands")[name]  # noqa: B009  # a group
    found.make_context(name, arguments, parent=context)


def test_the_parts_are_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"balancer", "server-1", "server-2", "worker", "migrate", "postgres", "redis"}
    assert services["server-1"] == services["server-2"]
    for name in ("server-1", "worker", "migrate"):
        check_command(services[name]["command"])
        given = set(services[name]["environment"])
        # uvicorn's own: whose word it takes for where a request comes from.
        assert given <= KNOWN, given - KNOWN
    assert "--no-worker" in services["server-1"]["command"], "the worker is apart"
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            has_check = "healthcheck" in services[needed]
            assert (how["condition"] == "service_healthy") == has_check or needed == "migrate"
    assert set(compose["volumes"]) == {"data"}


def test_whoever_stops_is_given_time(compose: dict[str, Any]) -> None:
    server = compose["services"]["server-1"]
    drain = float(server["environment"]["PLAFOND_DRAIN_SECONDS"])
    caddy = (DEPLOY / "Caddyfile").read_text()
    looks = re.search(r"health_interval (\d+)s\s+health_timeout (\d+)s", caddy)
    assert looks is not None
    assert drain > int(looks[1]) + int(looks[2]), "the balancer sees it before nobody is let in"
    assert int(server["stop_grace_period"].removesuffix("s")) > drain + GRACE_S + 5
    for unit in UNITS:
        stop = re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert stop is not None
        assert int(stop[1]) > drain + GRACE_S + 5


def test_the_balancer_knows_the_servers(compose: dict[str, Any]) -> None:
    caddy = (DEPLOY / "Caddyfile").read_text()
    for name in re.findall(r"(server-\d):8000", caddy):
        assert name in compose["services"]
    assert "health_uri /readyz" in caddy
    assert caddy.count("{") == caddy.count("}")


def test_the_example_names_settings() -> None:
    names = re.findall(r"^#?(PLAFOND_\w+)=", (DEPLOY / "plafond.env.example").read_text(), re.MULTILINE)
    assert names
    assert set(names) <= KNOWN


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_what_there_is(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    started = re.search(r"^ExecStart=/opt/plafond/bin/plafond (.+)$", text, re.MULTILINE)
    assert started is not None
    check_command(started[1].split())
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    here = tmp_path / unit.name
    here.write_text(text.replace("/opt/plafond/bin/plafond", str(Path(sys.executable).with_name("plafond"))))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=30, check=False)
    assert unit.name not in done.stderr, done.stderr


def test_the_image_takes_the_lock_and_ends_by_sigterm() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for library in ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0"):
        assert library in text
        assert library in Path("scripts/setup").read_text()
    assert "--require-hashes -r requirements.lock" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert "USER plafond" in text
