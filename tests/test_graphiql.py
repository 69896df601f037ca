"""The query editor: built from the sources beside it, served to browsers of a sandbox, and asking no other host."""

import hashlib
import re
from collections.abc import AsyncGenerator
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from plafond.app import create_app
from plafond.settings import Environment, Settings

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "graphiql"
BUILT = ROOT / "src" / "http" / "graphiql"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Addresses(HTMLParser):
    """The addresses that a page loads or leads to, and the policy that it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found += [value for name, value in given.items() if name in ("src", "srcset", "href", "action", "data")]
        if tag == "meta" and given.get("http-equiv", "").lower() == "content-security-policy":
            self.policy = given["content"]


def read_page(text: str) -> Addresses:
    page = Addresses()
    page.feed(text)
    return page


def parse_policy(text: str) -> dict[str, set[str]]:
    parts = [part.split() for part in text.split(";") if part.strip()]
    return {part[0]: set(part[1:]) for part in parts}


def hash_inputs() -> str:
    """By the rule in graphiql/README.md."""
    names = [".npmrc", "hash.mjs", "index.html", "package-lock.json", "package.json", "vite.config.js"]
    names += [path.relative_to(SOURCES).as_posix() for path in (SOURCES / "src").rglob("*") if path.is_file()]
    whole = hashlib.sha256()
    for name in sorted(names):
        digest = hashlib.sha256((SOURCES / name).read_bytes()).hexdigest()
        whole.update(f"{name}\n{digest}\n".encode())
    return whole.hexdigest()


def test_the_page_is_built_from_its_sources() -> None:
    assert (BUILT / "inputs.sha256").read_text() == f"{hash_inputs()}\n", "run `make graphiql` and commit the result"


def test_the_page_asks_no_other_host() -> None:
    page = read_page((BUILT / "index.html").read_text("utf-8"))
    assert page.found
    assert [address for address in page.found if re.match(r"(https?:)?//", address.strip(), re.IGNORECASE)] == []
    for style in BUILT.glob("*.css"):
        text = style.read_text("utf-8")
        assert "@import" not in text
        assert re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*\)", text, re.IGNORECASE) == []


def test_the_policy_lets_the_page_ask_its_own_server_only() -> None:
    page = read_page((BUILT / "index.html").read_text("utf-8"))
    policy = parse_policy(page.policy)
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == {"'self'"}
    assert policy["connect-src"] == {"'self'"}
    assert "http" not in page.policy
    assert "*" not in page.policy


async def make_client(environment: Environment, folder: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of an application whose database nobody has made: the page needs none."""
    app = create_app(
        Settings(
            environment=environment,
            database_url=f"sqlite:///{folder / 'none.db'}",
            link_secret=SecretStr("a secret of thirty-two characters!"),
        ),
        with_worker=False,
    )
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as client:
        yield client
    await app.state.database.close()
    assert not (folder / "none.db").exists()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    async for client in make_client(Environment.SANDBOX, tmp_path):
        yield client


@pytest.fixture
async def production(tmp_path: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    async for client in make_client(Environment.PRODUCTION, tmp_path):
        yield client


async def test_a_browser_gets_the_page_with_its_policy(sandbox: httpx2.AsyncClient) -> None:
    response = await sandbox.get("/graphql", headers=BROWSER)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text == (BUILT / "index.html").read_text("utf-8")
    policy = parse_policy(response.headers["content-security-policy"])
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == {"'self'"}
    assert policy["connect-src"] == {"'self'"}
    assert policy["frame-ancestors"] == {"'none'"}
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_what_the_page_names_is_served(sandbox: httpx2.AsyncClient) -> None:
    page = read_page((await sandbox.get("/graphql", headers=BROWSER)).text)
    named = [address for address in page.found if not address.startswith("data:")]
    assert named
    for address in named:
        assert address.startswith("/graphiql/")
        response = await sandbox.get(address)
        assert response.status_code == 200, address
        kind = "text/css" if address.endswith(".css") else "text/javascript"
        assert response.headers["content-type"].startswith(kind), address
        assert response.content == (BUILT / address.removeprefix("/graphiql/")).read_bytes()


@pytest.mark.parametrize("path", ["/graphiql/../graphql.py", "/graphiql/%2e%2e/graphql.py", "/graphiql/..%2fjson.py"])
async def test_nothing_beside_the_page_is_served(path: str, sandbox: httpx2.AsyncClient) -> None:
    assert (await sandbox.get(path)).status_code == 404


async def test_a_program_gets_no_page(sandbox: httpx2.AsyncClient) -> None:
    response = await sandbox.get("/graphql", headers={"Accept": "application/json"})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/json"


async def test_in_production_there_is_no_page(production: httpx2.AsyncClient) -> None:
    response = await production.get("/graphql", headers=BROWSER)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json()["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    for name in ("graphiql.js", "graphiql.css", "index.html", ""):
        assert (await production.get(f"/graphiql/{name}")).status_code == 404
