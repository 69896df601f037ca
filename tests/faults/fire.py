"""Money on the move while processes die: accounts in states that move it, clients that ask again, what must hold."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from dateutil.relativedelta import relativedelta
from sqlalchemy import select, update

from plafond.clock import SetClock
from plafond.database import Database
from plafond.migrations import migrate_database
from plafond.models import (
    CollectionMethod,
    DueWork,
    Interval,
    Invoice,
    InvoiceStatus,
    Operator,
    RefundRequest,
    RefundStatus,
    SandboxCharge,
    SandboxRefund,
    Subscription,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from plafond.schema.node import encode_id
from plafond.services import decisions
from plafond.services.access import Scope
from plafond.services.auditing import audit, take_snapshot
from plafond.services.duties import do_due
from plafond.services.tokens import create_key
from plafond.settings import Environment

from ..conftest import _address, _create_postgres, _drop_postgres
from ..services.engine import DECLINED, add_card, apply_sandbox_catalogue, open_account, open_till, order
from .runner import Processes, answers, check_file, open_database, pass_a_minute, until, wait_until_quiet

REFUND_MINOR = 1_000
AGAIN = frozenset({"IDEMPOTENCY_IN_FLIGHT", "CONFLICT", "CHANGE_PENDING"})
"""Refusals that ask the client to come again in a moment."""
BOUND_S = 60


@dataclass(frozen=True)
class Wish:
    """What a client wants done once, under one key: asked again until it is answered."""

    mutation: str
    given: dict[str, Any]
    fields: str = "account { id }"


@dataclass(frozen=True)
class Battlefield:
    """A database with accounts whose money is about to move."""

    engine: str
    address: str
    token: str
    buyers: list[UUID]
    """They pay a month, and will order a larger plan."""
    debtors: list[UUID]
    """A declined card, one open invoice: a new card, or a retry, will pay it."""
    unhappy: dict[UUID, UUID]
    """They want a part of a charge back: by account the charge."""
    transferors: dict[UUID, tuple[UUID, int]]
    """They pay by transfer: by account the open invoice, and what is due of it."""

    @property
    def accounts(self) -> list[UUID]:
        """All of them."""
        return [*self.buyers, *self.debtors, *self.unhappy, *self.transferors]


async def prepare(engine: str, address: str, each: int) -> Battlefield:
    """Bring accounts into these states, `each` of them."""
    now = datetime.now(UTC)
    clock = SetClock(now - relativedelta(months=1) - timedelta(hours=2))
    database = Database(address, clock, lambda _: None)
    try:
        till = open_till(database)
        await apply_sandbox_catalogue(till)
        ids: dict[str, list[UUID]] = {"debtor": [], "buyer": [], "unhappy": [], "transferor": []}
        for number in range(each):
            account_id = await open_account(till, f"debtor-{number}", None, timezone="UTC")
            await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
            await add_card(till, account_id, DECLINED)
            ids["debtor"].append(account_id)
        clock.stands_at = now - timedelta(minutes=30)
        while await do_due(till):
            pass
        for kind in ("buyer", "unhappy"):
            for number in range(each):
                account_id = await open_account(till, f"{kind}-{number}", None, timezone="UTC")
                await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
                ids[kind].append(account_id)
        for number in range(each):
            account_id = await open_account(
                till, f"transferor-{number}", None, card=None, collection=CollectionMethod.SEND_INVOICE, timezone="UTC"
            )
            await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
            ids["transferor"].append(account_id)
        async with till.work() as work:
            operator = Operator(created_at=now, iss="https://issuer.test", sub="fire", display_name="Fire")
            work.session.add(operator)
            await work.session.flush()
            key = create_key(work, Environment.SANDBOX, name="Fire", maker=operator, scopes=[Scope.ADMIN])
            await work.session.execute(
                update(DueWork).where(DueWork.kind == WorkKind.DRAW_DOCUMENT).values(done_at=work.clock.now())
            )
        async with database.read() as session:
            charges = {
                row.account_id: row.id
                for row in await session.scalars(select(Transaction).where(Transaction.account_id.in_(ids["unhappy"])))
            }
            invoices = {
                row.account_id: (row.id, row.due_minor)
                for row in await session.scalars(select(Invoice).where(Invoice.account_id.in_(ids["transferor"])))
            }
        return Battlefield(engine, address, key.token, ids["buyer"], ids["debtor"], charges, invoices)
    finally:
        await database.close()


def make_battlefield(engine: str, folder: Path, each: int) -> Iterator[Battlefield]:
    """A template of it, that rounds copy."""
    name = str(folder / "fire.db") if engine == "sqlite" else f"plafond_fire_{uuid4().hex[:12]}"
    if engine == "postgresql":
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    yield asyncio.run(prepare(engine, address, each))
    if engine == "postgresql":
        _drop_postgres(name)


@contextmanager
def copy_of(template: Battlefield, folder: Path) -> Iterator[Battlefield]:
    """A copy for one round."""
    folder.mkdir(parents=True, exist_ok=True)
    if template.engine == "sqlite":
        target = folder / "round.db"
        for suffix in ("", "-wal"):
            source = Path(template.address.removeprefix("sqlite:///") + suffix)
            if source.exists():
                shutil.copyfile(source, f"{target}{suffix}")
        yield replace(template, address=_address("sqlite", str(target)))
        for file in folder.glob("round.db*"):
            file.unlink()
        return
    name = f"plafond_round_{uuid4().hex[:12]}"
    _create_postgres(name, template.address.rpartition("/")[2].partition("?")[0])
    try:
        yield replace(template, address=_address("postgresql", name))
    finally:
        _drop_postgres(name)


def list_wishes(field_: Battlefield) -> list[Wish]:
    """What each account's client wants. A refund is reviewed once its request is there."""

    def account(account_id: UUID) -> dict[str, Any]:
        return {"accountId": encode_id("BillingAccount", account_id)}

    wishes = [
        Wish("changePlan", {**account(account_id), "planKey": "professional", "interval": "MONTH"})
        for account_id in field_.buyers
    ]
    wishes += [
        Wish("addPaymentMethod", {**account(account_id), "token": "pm_card_visa"}) for account_id in field_.debtors
    ]
    wishes += [
        Wish(
            "requestRefund",
            {
                "transactionId": encode_id("Transaction", charge_id),
                "reason": "GOODWILL",
                "amountMinor": REFUND_MINOR,
                "currency": "USD",
            },
            "refundRequest { id }",
        )
        for charge_id in field_.unhappy.values()
    ]
    wishes += [
        Wish(
            "recordPayment",
            {"invoiceId": encode_id("Invoice", invoice_id), "amountMinor": due, "currency": "USD", "reference": "x"},
        )
        for invoice_id, due in field_.transferors.values()
    ]
    return wishes


@dataclass
class Front:
    """Where the clients find a server; it moves when one died."""

    port: int = 0
    up: asyncio.Event = field(default_factory=asyncio.Event)


async def fulfil(front: Front, token: str, wish: Wish, key: str) -> None:
    """Ask until there is an answer that is final, always under the same key."""
    payload = await _ask(front, token, wish, key)
    if wish.mutation == "requestRefund":
        given = {"refundRequestId": payload["refundRequest"]["id"], "decision": "APPROVE"}
        await _ask(front, token, Wish("reviewRefund", given), f"{key}-review")


async def _ask(front: Front, token: str, wish: Wish, key: str) -> dict[str, Any]:
    name = wish.mutation[0].upper() + wish.mutation[1:]
    query = (
        f"mutation ($input: {name}Input!) {{ {wish.mutation}(input: $input) "
        f"{{ {wish.fields} userErrors {{ code message }} }} }}"
    )
    body = {"query": query, "variables": {"input": wish.given | {"idempotencyKey": key}}}
    async with asyncio.timeout(BOUND_S), httpx2.AsyncClient(timeout=BOUND_S) as http:
        while True:
            await front.up.wait()
            try:
                response = await http.post(
                    f"http://127.0.0.1:{front.port}/graphql", json=body, headers={"Authorization": f"Bearer {token}"}
                )
                answer = response.json()
            except (httpx2.HTTPError, ValueError):
                await asyncio.sleep(0.02)  # it died; another one comes
                continue
            if "errors" in answer:
                assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE", answer
                await asyncio.sleep(0.05)
                continue
            payload: dict[str, Any] = answer["data"][wish.mutation]
            refusals = {error["code"] for error in payload["userErrors"]}
            if not refusals:
                return payload
            assert refusals <= AGAIN, (wish, payload)
            await asyncio.sleep(0.05)


async def fight(template: Battlefield, folder: Path, chance: random.Random, *, kills: int) -> None:
    """One round: clients move money, server and worker are killed at random times; then all has to fit."""
    with copy_of(template, folder) as field_:
        database = open_database(field_.address)
        try:
            with Processes(field_.address, folder) as processes:
                await _fight(field_, database, processes, chance, kills=kills)
            await check(field_, database)
        finally:
            await database.close()


async def _fight(
    field_: Battlefield, database: Database, processes: Processes, chance: random.Random, *, kills: int
) -> None:
    front = Front()
    server, front.port = await processes.start_server()
    front.up.set()
    worker = processes.start_worker()
    wishes = list_wishes(field_)
    chance.shuffle(wishes)
    clients = [
        asyncio.create_task(fulfil(front, field_.token, wish, f"wish-{number}")) for number, wish in enumerate(wishes)
    ]
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.01, 0.5))
        if chance.random() < 0.7:
            front.up.clear()
            await processes.kill(server)
            await pass_a_minute(database)
            server, front.port = await processes.start_server()
            front.up.set()
        else:
            await processes.kill(worker)
            await pass_a_minute(database)
            worker = processes.start_worker()
    pending = set(clients)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=0.5)
        for task in done:
            task.result()
        # What a dead flow left has a minute until somebody looks after it.
        await pass_a_minute(database)
    assert await answers(front.port)
    await until(lambda: _is_settled(database))
    await wait_until_quiet(database)


async def _is_settled(database: Database) -> bool:
    """Whether no try is open any more."""
    async with database.read() as session:
        open_ = await session.scalar(
            select(Transaction.id)
            .where(Transaction.status.in_((TransactionStatus.PENDING, TransactionStatus.UNKNOWN)))
            .limit(1)
        )
    if open_ is not None:
        await pass_a_minute(database)
    return open_ is None


async def check(field_: Battlefield, database: Database) -> None:
    """Each wish came true once, here and at the processor, and the audit has nothing to say."""
    async with database.read() as session:
        await take_snapshot(session)
        assert await audit(session, database.clock.now()) == []
        subscriptions = {row.account_id: row for row in await session.scalars(select(Subscription))}
        invoices = (await session.scalars(select(Invoice).order_by(Invoice.issued_at, Invoice.id))).all()
        moves = (await session.scalars(select(Transaction))).all()
        charges = (await session.scalars(select(SandboxCharge))).all()
        refunds = (await session.scalars(select(SandboxRefund))).all()
        requests = (await session.scalars(select(RefundRequest))).all()
    succeeded = [row for row in moves if row.status is TransactionStatus.SUCCEEDED]
    ours = Counter(row.processor_key for row in succeeded if row.kind is TransactionKind.CHARGE)
    theirs = Counter(row.key for row in charges if row.status is TransactionStatus.SUCCEEDED)
    assert ours == theirs
    paid = Counter(row.invoice_id for row in succeeded if row.kind in (TransactionKind.CHARGE, TransactionKind.MANUAL))
    assert set(paid.values()) == {1}
    assert all(row.status is InvoiceStatus.PAID for row in invoices), [(row.number, row.status) for row in invoices]
    for account_id in field_.accounts:
        assert subscriptions[account_id].status is SubscriptionStatus.ACTIVE
    mine = Counter(row.account_id for row in invoices)
    assert [mine[account_id] for account_id in field_.buyers] == [2] * len(field_.buyers)
    assert sorted((row.amount_minor, str(row.status)) for row in refunds) == [(REFUND_MINOR, "SUCCEEDED")] * len(
        field_.unhappy
    )
    back = [row.amount_minor for row in succeeded if row.kind is TransactionKind.REFUND]
    assert back == [REFUND_MINOR] * len(field_.unhappy)
    assert [row.status for row in requests] == [RefundStatus.SUCCEEDED] * len(field_.unhappy)
    manual = [row.account_id for row in succeeded if row.kind is TransactionKind.MANUAL]
    assert sorted(manual) == sorted(field_.transferors)
    await check_file(database)
