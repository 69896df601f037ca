"""F7: the database gives transactions up for others' sake, and no client sees it; sharing accounts leads to none."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import func, select

from plafond.database import TRIES, Work
from plafond.models import AuditEntry, DueWork, UsageEvent
from plafond.services.auditing import audit

from ..conftest import Client, World
from ..services.helpers import account_of, used
from .conftest import Due, check_books
from .fire import Battlefield
from .nodes import open_nodes
from .runner import RUNNER, open_database, until
from .senders import COMMIT, RECORD, RELEASE, RESERVE, make_batches, run_senders

SERIALIZATION, DEADLOCK = "40001", "40P01"
Act = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture
def crowded(world: World) -> World:
    """Where more than one may write at a time."""
    if world.database.is_sqlite:
        pytest.skip("SQLite has one writer, who gives nothing up")
    return world


def give_up(address: str, sqlstate: str, times: int, *, at_commit: bool = False) -> None:
    """Have PostgreSQL give up the next so many transactions that write down a change: at once, or when they commit."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP TRIGGER IF EXISTS rehearsed ON audit_entry")
        connection.execute("DROP SEQUENCE IF EXISTS rehearsed")
        connection.execute("CREATE SEQUENCE rehearsed")  # it counts on where a transaction is rolled back
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION rehearse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF nextval('rehearsed') <= {times} THEN RAISE EXCEPTION 'rehearsed' USING ERRCODE = {sqlstate}; "
                "END IF; RETURN NULL; END $$"
            ).format(times=sql.Literal(times), sqlstate=sql.Literal(sqlstate))
        )
        connection.execute(
            sql.SQL(
                "CREATE CONSTRAINT TRIGGER rehearsed AFTER INSERT ON audit_entry DEFERRABLE INITIALLY {when} "
                "FOR EACH ROW EXECUTE FUNCTION rehearse()"
            ).format(when=sql.SQL("DEFERRED" if at_commit else "IMMEDIATE"))
        )


def count_tries(address: str) -> int:
    """How often something was written down since then."""
    with psycopg.connect(address) as connection:
        row = connection.execute("SELECT last_value FROM rehearsed").fetchone()
    return 0 if row is None else int(row[0])


class Caller:
    """A client that uses up and reserves, and wants to hear nothing of anybody else."""

    def __init__(self, client: Client, token: str) -> None:
        self._client = client
        self._token = token

    async def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """The payload, without any error."""
        data: dict[str, Any] = await self._client.data(self._token, query, **variables)
        (payload,) = data.values()
        assert payload["userErrors"] == []
        return dict(payload)

    async def record(self, name: str, *accounts: str, key: str | None = None) -> list[str]:
        """Send an event of each account."""
        events = [
            {"eventId": name, "externalId": account, "metric": "email_sends", "quantity": 1} for account in accounts
        ]
        answer = await self.ask(RECORD, events=events, key=key)
        return [result["status"] for result in answer["results"]]

    async def reserve(self) -> str:
        """Hold ten emails of Acme's. Gives the reservation's id."""
        asked = {"externalId": "acme", "metric": "email_sends", "quantity": 10, "idempotencyKey": "reserve"}
        return str((await self.ask(RESERVE, input=asked))["reservation"]["id"])


async def _count(world: World) -> tuple[int, int]:
    async with world.database.read() as session:
        counts = [await session.scalar(select(func.count()).select_from(table)) for table in (UsageEvent, AuditEntry)]
    return counts[0] or 0, counts[1] or 0


@pytest.mark.parametrize("at_commit", [False, True], ids=["within", "at commit"])
@pytest.mark.parametrize("sqlstate", [SERIALIZATION, DEADLOCK])
async def test_nobody_sees_what_was_given_up(
    crowded: World, client: Client, address: str, sqlstate: str, *, at_commit: bool
) -> None:
    """Each change goes through at its third try, and happens once."""
    caller = Caller(client, crowded.operator)
    before, events = await used(crowded), await _count(crowded)
    held = [await caller.reserve()]
    acts: list[Act] = [
        lambda: caller.ask(RECORD, events=_emails("a"), key=None),
        lambda: caller.ask(RECORD, events=_emails("b"), key="under a key"),
        lambda: caller.ask(RESERVE, input={"externalId": "acme", "metric": "email_sends", "quantity": 5}),
        lambda: caller.ask(COMMIT, id=held[0], quantity=4),
    ]
    for act in acts:
        give_up(address, sqlstate, TRIES - 1, at_commit=at_commit)
        answer = await act()
        if answer.get("usage"):
            held.append(answer["reservation"]["id"])
    give_up(address, sqlstate, TRIES - 1, at_commit=at_commit)
    assert (await caller.ask(RELEASE, id=held[1]))["reservation"]["status"] == "RELEASED"
    assert await used(crowded) == before + 1 + 1 + 4
    # Three are usage; reserved twice, committed, released, and the usage: each has its entry.
    assert await _count(crowded) == (events[0] + 3, events[1] + 2 + 1 + 1 + 3)
    await _check(crowded)


def _emails(event_id: str) -> list[dict[str, Any]]:
    return [{"eventId": event_id, "externalId": "acme", "metric": "email_sends", "quantity": 1}]


async def test_tries_have_an_end(crowded: World, client: Client, address: str) -> None:
    """What is given up again and again is told as such, has done nothing, and can be sent again."""
    before = await _count(crowded)
    give_up(address, SERIALIZATION, TRIES)
    refused: Any = await client.ask(crowded.operator, RECORD, events=_emails("a"), key="k")
    assert refused["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    assert await _count(crowded) == before
    assert await Caller(client, crowded.operator).record("a", "acme", key="k") == ["ACCEPTED"]
    assert await _count(crowded) == (before[0] + 1, before[1] + 1)
    await _check(crowded)


async def test_a_deadlock_with_somebody_else_is_not_seen(crowded: World, client: Client, address: str) -> None:
    """Somebody locks two accounts in the other order, and would wait for ever: ours gives way, and comes again."""
    ids = {name: (await account_of(crowded, name)).id for name in ("acme", "birchwood")}
    low, high = sorted(ids.values())
    lock = "SELECT 1 FROM billing_account WHERE id = %s FOR UPDATE"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with (
        await psycopg.AsyncConnection.connect(address) as other,
        await psycopg.AsyncConnection.connect(address, autocommit=True) as watcher,
    ):

        async def is_waiting() -> bool:
            row = await (await watcher.execute(waits)).fetchone()
            return row is not None and row[0] == 1

        # Whoever looks for a deadlock gives way; the other one does not look.
        await other.execute("SET deadlock_timeout = '1h'")
        await other.commit()
        await other.execute(lock, [high])
        sending = asyncio.create_task(Caller(client, crowded.operator).record("a", *ids))
        await until(is_waiting)
        async with asyncio.timeout(30):
            await other.execute(lock, [low])
            await other.commit()
            assert await sending == ["ACCEPTED", "ACCEPTED"]
    await _check(crowded)


async def test_who_stands_still_in_a_transaction_holds_nobody_up(
    crowded: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is ended and the rows are free; when it goes on, its act is done anew."""
    account_id = (await account_of(crowded, "acme")).id
    monkeypatch.setattr("plafond.database.IDLE_MS", 200)
    frozen = open_database(address)
    tries, holds, goes_on = 0, asyncio.Event(), asyncio.Event()

    async def stand_still(work: Work) -> int:
        nonlocal tries
        tries += 1
        account = (await work.lock_accounts([account_id]))[account_id]
        holds.set()
        await goes_on.wait()
        return work.emit(account, "account.updated", {})

    try:
        standing = asyncio.create_task(frozen.run(RUNNER, stand_still))
        await holds.wait()
        async with crowded.database.work(RUNNER) as work, asyncio.timeout(30):
            account = (await work.lock_accounts([account_id]))[account_id]
            taken = work.emit(account, "account.updated", {})
        goes_on.set()
        assert await standing == taken + 1
        assert tries == 2
    finally:
        await frozen.close()


async def _check(world: World) -> None:
    async with world.database.read() as session:
        assert await audit(session, world.clock.now()) == []


@pytest.mark.parametrize("sqlstate", [SERIALIZATION, DEADLOCK])
async def test_due_work_that_was_given_up_is_done_at_once(due: Due, sqlstate: str) -> None:
    """No try is counted, and nothing waits for the next one."""
    if due.address.startswith("sqlite"):
        pytest.skip("SQLite has one writer, who gives nothing up")
    give_up(due.address, sqlstate, TRIES - 1, at_commit=True)
    async with open_nodes(due, timedelta(0)) as [node]:
        await node.run()
        assert count_tries(due.address) > TRIES
        async with node.database.read() as session:
            done = (await session.scalars(select(DueWork).where(DueWork.leased_until.is_(None)))).all()
            assert {(row.failure, row.tries) for row in done} <= {(None, 0), (None, 1)}
        await check_books(node.database, due)


@pytest.mark.parametrize("accounts", [3, 1], ids=["shared accounts", "one hot account"])
async def test_senders_share_accounts_and_none_gives_way(
    battlefield: Battlefield, tmp_path: Path, accounts: int
) -> None:
    """Eight senders at two servers, the same ids in any order: locks are taken in one order, so no deadlock comes."""
    chance = random.Random(accounts)  # noqa: S311  # not a secret
    async with run_senders(battlefield, tmp_path, listening=False) as run:
        batches = make_batches(chance, run.account_ids[:accounts], ids=160, size=8, name="crowd")
        servers = [await run.fight.serve(with_worker=False)]
        first = replace(run.fight.front)
        servers.append(await run.fight.serve(with_worker=False))
        run.send(batches[::2], senders=4)
        run.send(batches[1::2], senders=4, front=first)
        await run.finish()
        for server in servers:
            assert "gave a transaction up" not in run.fight.processes.log_of(server)
