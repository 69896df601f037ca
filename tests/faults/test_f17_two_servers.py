"""F17: two servers are asked for the same thing under the same key at the same moment: it happens once."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from plafond.models import RefundRequest, Transaction, TransactionKind

from .fire import Battlefield, Front, check, copy_of, fulfil, list_wishes, make_battlefield
from .runner import Processes, open_database, pass_a_minute, until, wait_until_quiet


@pytest.fixture(scope="session")
def battlefield(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Battlefield]:
    """Two accounts of each kind."""
    yield from make_battlefield(engine, tmp_path_factory.mktemp("two"), 2)


async def test_two_servers_are_asked_under_one_key(battlefield: Battlefield, tmp_path: Path) -> None:
    """Three clients at each of two servers, each with every wish: one effect, and an answer for all in the end."""
    with copy_of(battlefield, tmp_path) as field_:
        database = open_database(field_.address)
        with Processes(field_.address, tmp_path) as processes:
            fronts = []
            for _ in range(2):
                _, port = await processes.start_server()
                front = Front(port)
                front.up.set()
                fronts.append(front)
            clients = [
                asyncio.create_task(fulfil(front, field_.token, wish, f"wish-{number}"))
                for number, wish in enumerate(list_wishes(field_))
                for front in fronts
                for _ in range(3)
            ]

            async def is_answered() -> bool:
                await pass_a_minute(database)
                return all(client.done() for client in clients)

            await until(is_answered)
            await asyncio.gather(*clients)
            await wait_until_quiet(database)
        await check(field_, database)
        async with database.read() as session:
            kinds = Counter(
                (await session.execute(select(Transaction.kind).where(Transaction.kind == TransactionKind.MANUAL)))
                .scalars()
                .all()
            )
            requests = await session.scalar(select(func.count()).select_from(RefundRequest))
        assert kinds[TransactionKind.MANUAL] == len(field_.transferors)
        assert requests == len(field_.unhappy)
        await database.close()
