"""Processors for the tests of this room: a fake of Stripe, and a database with nothing in it."""

from collections.abc import AsyncGenerator, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import delete

from plafond.clock import SetClock
from plafond.database import Database
from plafond.migrations import migrate_database
from plafond.models import SandboxCharge, SandboxConduct, SandboxDispute, SandboxMessage, SandboxRefund
from plafond.settings import Environment

from ..conftest import NOW, _create_postgres, _drop_postgres
from .processors import OPERATOR, FakeStage
from .stripe_fake import FakeStripe, serve_fake


@pytest.fixture(scope="module")
def bare_address(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database that nobody seeded: the embedded processor needs none of that."""
    if engine == "sqlite":
        address = f"sqlite:///{tmp_path_factory.mktemp('bare') / 'bare.db'}"
        migrate_database(address, Environment.SANDBOX)
        yield address
        return
    name = f"plafond_test_{uuid4().hex[:12]}"
    address = _create_postgres(name)
    try:
        migrate_database(address, Environment.SANDBOX)
        yield address
    finally:
        _drop_postgres(name)


@pytest.fixture
async def bare(bare_address: str) -> AsyncGenerator[Database]:
    """That database, with a processor's tables empty."""
    database = Database(bare_address, SetClock(NOW), lambda _: None)
    async with database.work(OPERATOR) as work:
        for table in (SandboxMessage, SandboxConduct, SandboxDispute, SandboxRefund, SandboxCharge):
            await work.session.execute(delete(table))
    yield database
    await database.close()


@pytest.fixture(scope="session")
def fake_server() -> Iterator[FakeStripe]:
    """One server for all tests."""
    with serve_fake() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: FakeStripe) -> FakeStripe:
    """A fake that knows nothing yet."""
    fake_server.forget_all()
    return fake_server


@pytest.fixture
async def fake_stage(fake: FakeStripe) -> AsyncGenerator[FakeStage]:
    """The Stripe adapter, against the fake."""
    stage = FakeStage(fake)
    yield stage
    await stage.close()
