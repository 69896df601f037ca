"""The command line, as a process: what it prints, and how it refuses in one line."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx2
import pytest
import uvicorn
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from plafond import cli
from plafond.clock import SystemClock
from plafond.database import Database, driver_url
from plafond.migrations import DatabaseNotReady, check_database, migrate_database
from plafond.services.access import Principal, Right
from plafond.services.tokens import authenticate, hash_secret
from plafond.serving import bind_port
from plafond.settings import Environment, Settings

from .conftest import Template

PLAFOND = Path(sys.executable).with_name("plafond")


def plafond(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings (`database_url` is PLAFOND_DATABASE_URL) and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAFOND_")}
    environment |= {f"PLAFOND_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [PLAFOND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def one_line(stderr: str) -> str:
    """What a refusal writes: one line, and no traceback."""
    assert "Traceback" not in stderr, stderr[-2_000:]
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("plafond: "), stderr
    return lines[0]


class Refusal(Protocol):
    """Gives the one line of a command that refuses."""

    def __call__(self, *arguments: str, **settings: str) -> str: ...


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """The script's own entry point, in this process: starting one for each refusal takes seconds."""

    def serve(*_: object, **__: object) -> None:
        pytest.fail("it was not refused")

    def run(*arguments: str, **settings: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(cli, "start_work", serve)
            patch.setattr(uvicorn.Server, "run", serve)
            patch.setattr(sys, "argv", ["plafond", *arguments])
            for name in [name for name in os.environ if name.startswith("PLAFOND_")]:
                patch.delenv(name)
            for name, value in settings.items():
                patch.setenv(f"PLAFOND_{name.upper()}", value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        # With a text the interpreter writes it to stderr and ends with 1.
        assert isinstance(ended.value.code, str)
        return one_line(capsys.readouterr().err + ended.value.code + "\n")

    return run


def run_sql(address: str, *statements: str) -> list[str]:
    """Run statements; gives the first column of the last one."""
    engine = create_engine(driver_url(address, asynchronous=False))
    try:
        with engine.begin() as connection:
            results = [connection.execute(text(statement)) for statement in statements]
            return [str(row[0]) for row in results[-1]] if results[-1].returns_rows else []
    finally:
        engine.dispose()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with bind_port("127.0.0.1", 0) as listener:
        yield listener.getsockname()[1]


def test_schema_prints_what_is_committed() -> None:
    done = plafond("schema")
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path("schema.graphql").read_text("utf-8")
    assert done.stderr == ""


def test_the_script_refuses_in_one_line_and_fails(tmp_path: Path) -> None:
    for settings in ({"database_url": f"sqlite:///{tmp_path / 'missing.db'}"}, {"port": "70000"}):
        done = plafond("serve", **settings)
        assert done.returncode == 1
        assert done.stdout == ""
        one_line(done.stderr)


def test_without_a_command_the_help_is_shown() -> None:
    shown = plafond()
    assert "Traceback" not in shown.stderr
    for command in ("demo", "serve", "worker", "migrate", "schema", "ingest", "keys"):
        assert command in shown.stdout + shown.stderr


# serve and worker


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_missing_database_is_refused(refusal: Refusal, command: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    line = refusal(command, database_url=f"sqlite:///{missing}")
    assert f"There is no database at {missing}. Run `plafond migrate` first." in line
    assert not missing.exists()


def test_an_empty_database_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    line = refusal("serve", database_url=f"sqlite:///{tmp_path / 'empty.db'}")
    assert "is empty. Run `plafond migrate` first." in line


def test_a_file_that_is_no_database_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear database, " * 1_000)
    assert "not a database" in refusal("serve", database_url=f"sqlite:///{tmp_path / 'letter.db'}")


def test_a_newer_database_is_refused(refusal: Refusal, address: str) -> None:
    run_sql(address, "UPDATE alembic_version SET version_num = '9999'")
    for command in ("serve", "migrate"):
        assert "is newer than this code. Install the version that migrated it" in refusal(command, database_url=address)
    assert run_sql(address, "SELECT version_num FROM alembic_version") == ["9999"]


def test_an_older_database_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The history has one migration, so the code is made newer instead of the database older.
    monkeypatch.setattr(ScriptDirectory, "get_current_head", lambda _: "9999")
    with pytest.raises(DatabaseNotReady, match=r"is older than this code. Run `plafond migrate`"):
        check_database(address, Environment.SANDBOX)


def test_a_database_without_a_version_is_refused(refusal: Refusal, address: str) -> None:
    run_sql(address, "DELETE FROM alembic_version")
    assert "Run `plafond migrate`" in refusal("serve", database_url=address)


def test_another_environment_is_refused(refusal: Refusal, address: str) -> None:
    for command in ("serve", "migrate"):
        line = refusal(command, database_url=address, environment="PRODUCTION")
        assert "made for SANDBOX, and PLAFOND_ENVIRONMENT says PRODUCTION" in line
    assert run_sql(address, "SELECT environment FROM deployment") == ["SANDBOX"]


def test_production_stays_production(refusal: Refusal, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'production.db'}"
    made = plafond("migrate", database_url=address, environment="PRODUCTION")
    assert (made.returncode, made.stdout, made.stderr) == (0, "The database is up to date.\n", "")
    assert "made for PRODUCTION" in refusal("serve", database_url=address)


def test_production_serves_only_with_a_link_secret(refusal: Refusal, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'production.db'}"
    migrate_database(address, Environment.PRODUCTION)
    line = refusal("serve", database_url=address, environment="PRODUCTION")
    assert "PLAFOND_LINK_SECRET is not set" in line
    assert "at least 32 random characters" in line


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_postgresql_that_does_not_answer_is_refused(refusal: Refusal, command: str) -> None:
    line = refusal(command, database_url="postgresql://somebody:hidden@127.0.0.1:1/nothing")
    assert "does not answer" in line
    assert "PLAFOND_DATABASE_URL" in line
    assert "hidden" not in line


@pytest.mark.parametrize("url", ["mysql://127.0.0.1/plafond", "nonsense", "", "sqlite"])
def test_an_address_of_no_known_engine_is_refused(refusal: Refusal, url: str) -> None:
    line = refusal("serve", database_url=url)
    assert "sqlite:///" in line
    assert "postgresql://" in line


def test_a_folder_that_is_missing_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    assert "unable to open" in refusal("migrate", database_url=f"sqlite:///{tmp_path / 'no' / 'folder' / 'plafond.db'}")


def test_a_port_in_use_is_refused(refusal: Refusal, tmp_path: Path, taken_port: int) -> None:
    address = f"sqlite:///{tmp_path / 'plafond.db'}"
    migrate_database(address, Environment.SANDBOX)
    line = refusal("serve", database_url=address, port=str(taken_port))
    assert f"127.0.0.1:{taken_port} cannot be listened on" in line
    assert "take another port" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "70000"),
        ("environment", "STAGING"),
        ("jwt_issuer", "https://issuer.test"),
        ("jwt_hs256_secret", "short"),
    ],
)
def test_bad_settings_are_refused_by_name(refusal: Refusal, name: str, value: str, tmp_path: Path) -> None:
    line = refusal("serve", database_url=f"sqlite:///{tmp_path / 'missing.db'}", **{name: value})
    assert f"PLAFOND_{name.upper()}" in line
    assert "PLAFOND_:" not in line
    if name == "jwt_hs256_secret":
        assert value not in line.split()


# keys


def test_keys_are_listed_without_their_secrets(address: str, template: Template) -> None:
    listed = plafond("keys", "list", database_url=address)
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == len(template.tokens)
    hashes = run_sql(address, "SELECT secret_hash FROM api_key")
    assert len(hashes) == len(template.tokens)
    shown = listed.stdout + listed.stderr
    for token in template.tokens:
        prefix, _, secret = token.token.rpartition("_")
        assert prefix in shown
        assert secret not in shown
    assert [found for found in hashes if found in shown] == []


def test_a_key_is_made_in_an_empty_production_and_opens_it(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'production.db'}"
    settings = {"database_url": address, "environment": "PRODUCTION"}
    migrate_database(address, Environment.PRODUCTION)
    made = plafond("keys", "create", "Back office", "--scope", "admin", "--expires", "2090-01-01", **settings)
    assert (made.returncode, made.stderr) == (0, "")
    token = made.stdout.strip()
    prefix, _, secret = token.rpartition("_")
    assert prefix.startswith("plf_live_")
    listed = plafond("keys", "list", **settings).stdout
    assert listed.split() == [prefix, "active", "admin", "Back", "office"]
    assert secret not in listed
    assert run_sql(address, "SELECT secret_hash FROM api_key") == [hash_secret(secret)]
    # The second is the same operator's.
    plafond("keys", "create", "Sends", "--scope", "usage:write", "--scope", "billing:read", **settings)
    assert run_sql(address, "SELECT sub FROM operator") == ["command-line"]

    async def find() -> Principal:
        database = Database(address, SystemClock(), lambda _: None)
        try:
            return await authenticate(database, Settings(environment=Environment.PRODUCTION), None, token)
        finally:
            await database.close()

    principal = asyncio.run(find())
    assert (principal.display_name, principal.is_operator) == ("Back office", True)
    assert principal.may(Right.OPERATE)


def test_a_key_for_one_account_is_in_its_audit_log(address: str) -> None:
    made = plafond("keys", "create", "Acme only", "--scope", "billing:read", "--account", "acme", database_url=address)
    assert (made.returncode, made.stderr) == (0, "")
    assert run_sql(address, "SELECT action FROM audit_entry WHERE action = 'api_key.created'") == ["api_key.created"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Key", "--scope", "admin", "--account", "nobody"], "There is no account nobody."),
        (["Key", "--scope", "admin", "--expires", "2020-01-01"], "A key expires later than today."),
        ([" ", "--scope", "admin"], "A key's name has 1 to 100 printable characters."),
    ],
)
def test_a_key_that_cannot_be_made(refusal: Refusal, address: str, arguments: list[str], said: str) -> None:
    assert refusal("keys", "create", *arguments, database_url=address) == f"plafond: {said}"


def test_a_server_says_where_it_is_and_ends_when_asked(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'plafond.db'}"
    migrate_database(address, Environment.SANDBOX)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLAFOND_")}
    environment |= {"PLAFOND_DATABASE_URL": address, "PLAFOND_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [PLAFOND, "serve"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == f"Serving sandbox at http://127.0.0.1:{port}/graphql\n"
        assert httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=30.0).status_code == 200
        server.terminate()
        _, errors = server.communicate(timeout=30)
    # It ended by itself, after what it had begun was put away.
    assert (server.returncode, errors) == (0, "")


def test_a_key_is_revoked_by_its_prefix(address: str, template: Template) -> None:
    token = template.tokens[1].token
    prefix = token.rpartition("_")[0]
    done = plafond("keys", "revoke", prefix, database_url=address)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{prefix} is revoked.\n", "")
    listed = plafond("keys", "list", database_url=address).stdout
    states = {line.split()[0]: line.split()[1] for line in listed.splitlines()}
    assert states.pop(prefix) == "revoked"
    assert set(states.values()) == {"active"}
    assert run_sql(address, "SELECT action FROM audit_entry WHERE action = 'api_key.revoked'") == ["api_key.revoked"]


def test_a_key_gets_a_new_secret_by_its_prefix(address: str, template: Template) -> None:
    token = template.tokens[1].token
    prefix, _, secret = token.rpartition("_")
    done = plafond("keys", "rotate", prefix, "--overlap", "60", database_url=address)
    assert (done.returncode, done.stderr) == (0, "")
    turned = done.stdout.strip().rpartition("_")
    assert turned[0] == prefix
    found = run_sql(address, "SELECT secret_hash || ' ' || previous_hash FROM api_key WHERE rotated_at IS NOT NULL")
    assert found == [f"{hash_secret(turned[2])} {hash_secret(secret)}"]
    assert run_sql(address, "SELECT action FROM audit_entry WHERE action = 'api_key.rotated'") == ["api_key.rotated"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plf_test_ffffffffffff"], "There is no API key plf_test_ffffffffffff."),
        (["plf_test_ffffffffffff", "--overlap", "604801"], "`overlapSeconds` is 0 to 604800: seven days."),
    ],
)
def test_a_key_that_cannot_be_rotated(refusal: Refusal, address: str, arguments: list[str], said: str) -> None:
    assert refusal("keys", "rotate", *arguments, database_url=address) == f"plafond: {said}"


def test_an_unknown_prefix_is_told(refusal: Refusal, address: str) -> None:
    line = refusal("keys", "revoke", "plf_test_ffffffffffff", database_url=address)
    assert line == "plafond: There is no API key plf_test_ffffffffffff."


def test_keys_of_a_missing_database_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    assert "There is no database" in refusal("keys", "list", database_url=f"sqlite:///{tmp_path / 'missing.db'}")


# ingest


def test_ingest_without_a_token_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "events.ndjson").touch()
    line = refusal("ingest", str(tmp_path / "events.ndjson"))
    assert "no token" in line
    assert "PLAFOND_TOKEN" in line


def test_ingest_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    done = plafond("ingest", str(tmp_path / "missing.ndjson"), token="plf_test_0_0")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "does not exist" in " ".join(done.stderr.replace("│", " ").split())


def test_ingest_to_a_server_that_does_not_answer_says_how_to_go_on(tmp_path: Path) -> None:
    with bind_port("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    file = tmp_path / "events.ndjson"
    file.write_text('{"eventId": "a", "metric": "email_sends", "externalId": "acme", "quantity": 1}\n')
    done = plafond("ingest", str(file), "--url", f"http://127.0.0.1:{port}/graphql", token="plf_test_0_0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("plafond: Stopped: ")
    assert "run the same command again" in last
