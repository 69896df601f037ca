"""Who reads where: queries from the replica, which may lag; all that must not lag from the primary."""

from collections.abc import AsyncGenerator, Iterator
from uuid import uuid4

import httpx2
import psycopg
import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from plafond.app import create_app
from plafond.clock import SetClock
from plafond.services.keys import revoke_key
from plafond.settings import Settings

from .conftest import NOW, Client, Copy, Template, World, _create_postgres, _drop_postgres
from .http.test_sockets import CHANGES, connect, cursor_of, id_of
from .services.helpers import ACTOR, emails, send, used

NAME = '{ billingAccount(externalId: "acme") { name subscription { plan { name } } } }'
LATE = "A replica that is late"


@pytest.fixture
def replica(template: Template, sandbox: Copy) -> Iterator[str]:
    """A second database that took nothing over since it was made: it lags for ever. Its names tell who was read."""
    if template.engine != "postgresql":
        pytest.skip("only PostgreSQL has replicas")
    sandbox.is_untouched = False
    name = f"plafond_replica_{uuid4().hex[:12]}"
    address = _create_postgres(name, template.name)
    with psycopg.connect(address) as connection:
        connection.execute("UPDATE billing_account SET name = %s", [LATE])
        connection.execute("UPDATE plan SET name = %s", [LATE])
    yield address
    _drop_postgres(name)


@pytest.fixture
async def lagging(template: Template, address: str, replica: str) -> AsyncGenerator[World]:
    """The application over both."""
    clock = SetClock(NOW)
    settings = Settings(
        database_url=address,
        replica_url=replica,
        jwt_issuer="https://issuer.test",
        jwt_hs256_secret=SecretStr("a secret of thirty-two characters!"),
    )
    app = create_app(settings, with_worker=False, clock=clock)
    async with app.router.lifespan_context(app):
        yield World(app, app.state.database, clock, settings, template.tokens, [])


@pytest.fixture
async def client(lagging: World) -> AsyncGenerator[Client]:
    transport = httpx2.ASGITransport(lagging.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as http:
        yield Client(http)


async def test_queries_read_the_replica(lagging: World, client: Client) -> None:
    data = await client.data(lagging.operator, NAME)
    account = data["billingAccount"]
    assert account == {"name": LATE, "subscription": {"plan": {"name": LATE}}}


async def test_a_mutation_sees_what_it_wrote(lagging: World, client: Client) -> None:
    data = await client.data(
        lagging.operator,
        'mutation ($id: ID!) { updateBillingAccount(input: { accountId: $id, name: "New" }) '
        "{ account { name subscription { plan { name } } } userErrors { message } } }",
        id=await id_of(lagging, "acme"),
    )
    account = {"name": "New", "subscription": {"plan": {"name": "Professional"}}}
    assert data["updateBillingAccount"] == {"account": account, "userErrors": []}
    again = await client.data(lagging.operator, NAME)
    assert again["billingAccount"] == {"name": LATE, "subscription": {"plan": {"name": LATE}}}


async def test_who_asks_is_proved_by_the_primary(lagging: World, client: Client) -> None:
    token = lagging.operator
    async with lagging.database.work(ACTOR) as work:
        await revoke_key(work, token.rpartition("_")[0])
    answer = await client.ask(token, NAME)
    assert "data" not in answer


async def test_a_stream_tells_what_the_primary_holds(lagging: World) -> None:
    after = await cursor_of(lagging, "acme")
    await send(lagging, emails("a", 7))
    async with connect(lagging) as socket:
        await socket.init(lagging.operator)
        await socket.subscribe("s", CHANGES, id=await id_of(lagging, "acme"), after=after, kinds=["USAGE"])
        change = await socket.next()
    assert change["node"]["used"] == await used(lagging, "email_sends")
    assert change["account"]["name"] != LATE


async def test_usage_is_counted_on_the_primary(lagging: World, client: Client) -> None:
    before = await used(lagging, "email_sends")
    data = await client.data(
        lagging.operator,
        'mutation { recordUsage(input: { events: [{ eventId: "a", metric: "email_sends", externalId: "acme", '
        "quantity: 3 }] }) { results { used } } }",
    )
    assert data["recordUsage"] == {"results": [{"used": before + 3}]}


async def test_the_replica_takes_no_writes(lagging: World) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        async with lagging.database.read(may_lag=True) as session:
            await session.execute(text("UPDATE billing_account SET name = 'x'"))


async def test_a_replica_that_is_away_makes_a_server_unready(template: Template, address: str) -> None:
    if template.engine != "postgresql":
        pytest.skip("only PostgreSQL has replicas")
    settings = Settings(database_url=address, replica_url="postgresql://127.0.0.1:1/nothing")
    app = create_app(settings, with_worker=False)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as http,
    ):
        response = await http.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "unavailable", "replica": "does not answer"})


def test_sqlite_has_no_replica() -> None:
    for database, other in (("sqlite:///a.db", "postgresql://a/b"), ("postgresql://a/b", "sqlite:///a.db")):
        with pytest.raises(ValidationError, match="PLAFOND_REPLICA_URL"):
            Settings(database_url=database, replica_url=other)
