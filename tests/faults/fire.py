"""Money on the move while processes die: accounts in states that move it, clients that ask again, what must hold."""

import asyncio
import dataclasses
import json
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
from dateutil.relativedelta import relativedelta
from sqlalchemy import func, select, update

from plafond.adapters.sandbox_processor import set_conduct
from plafond.clock import SetClock
from plafond.database import Database, take_snapshot
from plafond.migrations import migrate_database
from plafond.models import (
    BillingAccount,
    CollectionMethod,
    DueWork,
    Interval,
    Invoice,
    InvoiceStatus,
    Operator,
    OutboxEvent,
    PaymentMethod,
    RefundRequest,
    RefundStatus,
    SandboxAnswers,
    SandboxCharge,
    SandboxMessage,
    SandboxMessages,
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
from plafond.services.auditing import audit
from plafond.services.duties import do_due
from plafond.services.ports import Processor
from plafond.services.tills import Till
from plafond.services.tokens import create_key
from plafond.settings import Environment

from ..conftest import _address, _create_postgres, _drop_postgres
from ..services.engine import (
    VISA,
    add_card,
    apply_sandbox_catalogue,
    first_charge,
    hear_all,
    open_account,
    open_till,
    order,
)
from .runner import RUNNER, Processes, check_file, is_quiet, open_database, pass_a_minute, pass_time

REFUND_MINOR = 1_000
ASKS = "pm_card_authenticationRequired"
FAILS = "pm_card_chargeCustomerFail"
REFUNDED_LATER = "pm_card_pendingRefund"
AGAIN = frozenset({"IDEMPOTENCY_IN_FLIGHT", "CONFLICT", "CHANGE_PENDING"})
"""Refusals that ask the client to come again in a moment."""
BOUND_S = 120
"""By then all is answered and known: what is unknown any longer is a finding."""


class Kind(StrEnum):
    """How an account stands, and what is about to move its money."""

    BUYER = auto()
    """It paid a month, and orders a larger plan."""
    CONFIRMER = auto()
    """The same, with a card whose holder has to confirm the payment."""
    DEBTOR = auto()
    """Its card is declined, and an invoice open: a new card pays it."""
    RETRIER = auto()
    """The same, but the card is good again: somebody asks for a try."""
    DUNNED = auto()
    """The same, three days later: the worker tries, and it pays."""
    INSOLVENT = auto()
    """The same, but the card is still declined: it stays open."""
    RENEWER = auto()
    """Its period is over: the worker closes, invoices and charges it."""
    UNHAPPY = auto()
    """It wants a part of its charge back."""
    PATIENT = auto()
    """The same, and its bank takes time for that."""
    TRANSFEROR = auto()
    """It pays by transfer: an operator books what came."""


ALL = tuple(Kind)
OVERDUE = (Kind.DEBTOR, Kind.RETRIER, Kind.DUNNED, Kind.INSOLVENT)
INVOICES = {Kind.UNHAPPY: 1, Kind.PATIENT: 1, Kind.TRANSFEROR: 1}
"""How many an account has in the end: two where nothing is said."""


@dataclass(frozen=True)
class Party:
    """An account whose money is about to move."""

    kind: Kind
    account_id: UUID
    charge_id: UUID | None = None
    """The first charge."""
    invoice_id: UUID | None = None
    """The one that is open, or the last one."""
    due_minor: int = 0


@dataclass(frozen=True)
class Battlefield:
    """A database with such accounts, and the key of an operator."""

    engine: str
    address: str
    token: str
    parties: tuple[Party, ...]

    def of(self, *kinds: Kind) -> list[Party]:
        """The accounts of some kinds."""
        return [party for party in self.parties if party.kind in kinds]


# --- before ----------------------------------------------------------------------------------------------------------


async def prepare(
    engine: str, address: str, *, kinds: tuple[Kind, ...] = ALL, processor: Processor | None = None
) -> Battlefield:
    """Bring an account of each kind into its state, at the sandbox's processor or another."""
    now = datetime.now(UTC)
    failed_at = now - timedelta(days=3, minutes=20)
    clock = SetClock(now)
    database = Database(address, clock, lambda _: None)
    till = open_till(database)
    if processor is not None:
        till = replace(till, processor=processor)
    ids: dict[Kind, UUID] = {}

    async def open_one(kind: Kind, card: str | None = VISA) -> None:
        if kind not in kinds:
            return
        collection = CollectionMethod.AUTOMATIC if card else CollectionMethod.SEND_INVOICE
        ids[kind] = await open_account(till, kind, None, card=card, collection=collection, timezone="UTC")
        await order(till, ids[kind], decisions.decide_start, "starter", Interval.MONTH)

    try:
        await apply_sandbox_catalogue(till)
        clock.stands_at = failed_at - relativedelta(months=1) - timedelta(hours=2)
        for kind in (Kind.DUNNED, Kind.INSOLVENT):
            await open_one(kind)
        clock.stands_at = now - relativedelta(months=1) - timedelta(hours=2)
        for kind in (Kind.DEBTOR, Kind.RETRIER, Kind.RENEWER):
            await open_one(kind)
        clock.stands_at = failed_at
        await _let_fail(till, ids, Kind.DUNNED, Kind.INSOLVENT)
        clock.stands_at = now - timedelta(minutes=30)
        await _let_fail(till, ids, Kind.DEBTOR, Kind.RETRIER)
        await open_one(Kind.BUYER)
        await open_one(Kind.CONFIRMER)
        await open_one(Kind.UNHAPPY)
        await open_one(Kind.PATIENT, REFUNDED_LATER)
        await open_one(Kind.TRANSFEROR, None)
        if Kind.CONFIRMER in ids:
            await add_card(till, ids[Kind.CONFIRMER], ASKS)
        await hear_all(till)
        token = await _make_key(till, now)
        parties = [await _party_of(till, kind, account_id) for kind, account_id in ids.items()]
        return Battlefield(engine, address, token, tuple(parties))
    finally:
        await database.close()


async def _let_fail(till: Till, ids: Mapping[Kind, UUID], *kinds: Kind) -> None:
    """Have the card declined when it pays its second month; the bank of some lets it be charged again."""
    for kind in kinds:
        if kind not in ids:
            continue
        await add_card(till, ids[kind], FAILS)
        while await do_due(till, account_id=ids[kind]):
            pass
        if kind in (Kind.DUNNED, Kind.RETRIER):
            async with till.work() as work:
                await work.session.execute(
                    update(PaymentMethod)
                    .where(PaymentMethod.account_id == ids[kind], PaymentMethod.is_default)
                    .values(processor_token="pm_card_mastercard")
                )


async def _make_key(till: Till, now: datetime) -> str:
    async with till.work() as work:
        operator = Operator(created_at=now, iss="https://issuer.test", sub="fire", display_name="Fire")
        work.session.add(operator)
        await work.session.flush()
        key = create_key(work, Environment.SANDBOX, name="Fire", maker=operator, scopes=[Scope.ADMIN])
        await work.session.execute(
            update(DueWork).where(DueWork.kind == WorkKind.DRAW_DOCUMENT).values(done_at=work.clock.now())
        )
        # Half of them are told everything twice and in any order.
        customers = await work.session.scalars(
            select(BillingAccount.processor_customer).where(BillingAccount.processor_customer.is_not(None))
        )
        for number, customer in enumerate(customers):
            if number % 2 and customer is not None:
                await set_conduct(work, customer, SandboxAnswers.NORMAL, SandboxMessages.TWICE_SHUFFLED)
    return key.token


async def _party_of(till: Till, kind: Kind, account_id: UUID) -> Party:
    charge_id = None if kind is Kind.TRANSFEROR else await first_charge(till, account_id)
    async with till.database.read() as session:
        invoices = await session.scalars(
            select(Invoice)
            .where(Invoice.account_id == account_id, Invoice.status.in_((InvoiceStatus.OPEN, InvoiceStatus.PAID)))
            .order_by(Invoice.issued_at.desc(), Invoice.id)
        )
        last = invoices.first()
    assert last is not None, "each started a plan"
    assert (last.status is InvoiceStatus.OPEN) == (kind in (*OVERDUE, Kind.TRANSFEROR)), kind
    return Party(kind, account_id, charge_id, last.id, last.due_minor)


def make_battlefield(engine: str, folder: Path) -> Iterator[Battlefield]:
    """A template of it, that tests copy."""
    name = str(folder / "fire.db") if engine == "sqlite" else f"plafond_fire_{uuid4().hex[:12]}"
    if engine == "postgresql":
        _create_postgres(name)
    address = _address(engine, name)
    migrate_database(address, Environment.SANDBOX)
    yield asyncio.run(prepare(engine, address))
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


async def behave(
    database: Database, parties: list[Party], answers: SandboxAnswers, messages: SandboxMessages = SandboxMessages.ONCE
) -> None:
    """Have the processor behave otherwise towards some accounts from now on."""
    async with database.work(RUNNER) as work:
        for party in parties:
            account = await work.session.get_one(BillingAccount, party.account_id)
            if account.processor_customer is not None:
                await set_conduct(work, account.processor_customer, answers, messages)


# --- what clients want -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What a client wants done once, under one key: asked again until it is answered."""

    mutation: str
    given: dict[str, Any]
    fields: str = "account { id }"


def wish_of(party: Party) -> Wish | None:
    """What an account's client wants; none where the worker brings it about."""
    account = {"accountId": encode_id("BillingAccount", party.account_id)}
    given: dict[str, Any]
    if party.kind in (Kind.BUYER, Kind.CONFIRMER):
        given = {**account, "planKey": "professional", "interval": "MONTH"}
        return Wish("changePlan", given, "transaction { id status }")
    if party.kind is Kind.DEBTOR:
        return Wish("addPaymentMethod", {**account, "token": VISA})
    if party.kind is Kind.RETRIER:
        return Wish("retryPayment", account, "transactions { status }")
    if party.kind in (Kind.UNHAPPY, Kind.PATIENT):
        assert party.charge_id is not None, "it paid"
        given = {
            "transactionId": encode_id("Transaction", party.charge_id),
            "reason": "GOODWILL",
            "amountMinor": REFUND_MINOR,
            "currency": "USD",
        }
        return Wish("requestRefund", given, "refundRequest { id }")
    if party.kind is Kind.TRANSFEROR:
        assert party.invoice_id is not None, "it has something to pay"
        paid = {"amountMinor": party.due_minor, "currency": "USD", "reference": "x"}
        return Wish("recordPayment", {"invoiceId": encode_id("Invoice", party.invoice_id), **paid})
    return None


def mutation_of(wish: Wish) -> str:
    """The document of a wish."""
    name = wish.mutation[0].upper() + wish.mutation[1:]
    return (
        f"mutation ($input: {name}Input!) {{ {wish.mutation}(input: $input) "
        f"{{ {wish.fields} userErrors {{ code message }} }} }}"
    )


REVIEWED = Wish("reviewRefund", {})
CONFIRMED = Wish("confirmPayment", {}, "transaction { status }")


def list_documents() -> list[str]:
    """All that clients ask: servers may know it before they start."""
    known = [Party(kind, UUID(int=0), UUID(int=0), UUID(int=0)) for kind in Kind]
    wishes = [wish for wish in map(wish_of, known) if wish is not None]
    return sorted({mutation_of(wish) for wish in (*wishes, REVIEWED, CONFIRMED)})


@dataclass
class Front:
    """Where the clients find a server; it moves when one died."""

    http: httpx2.AsyncClient
    token: str
    port: int = 0
    up: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, wish: Wish, key: str, *, until: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Ask until there is an answer that is final, always under the same key. Refusals in `until` are final."""
        body = {"query": mutation_of(wish), "variables": {"input": wish.given | {"idempotencyKey": key}}}
        async with asyncio.timeout(BOUND_S):
            while True:
                answer = await self._post(body)
                if answer is not None:
                    payload: dict[str, Any] = answer["data"][wish.mutation]
                    refusals = {error["code"] for error in payload["userErrors"]}
                    if refusals <= until:
                        return payload
                    assert refusals <= AGAIN, (wish, payload)
                await asyncio.sleep(0.05)

    async def insist(self, query: str, **variables: Any) -> dict[str, Any]:
        """What the only field of an operation answers, which is asked until there is an answer."""
        async with asyncio.timeout(BOUND_S):
            while True:
                answer = await self._post({"query": query, "variables": variables})
                if answer is not None:
                    (found,) = answer["data"].values()
                    assert isinstance(found, dict), answer
                    return found
                await asyncio.sleep(0.05)

    async def _post(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """An answer; none where it did not come, or says that it is to come later."""
        await self.up.wait()
        try:
            response = await self.http.post(
                f"http://127.0.0.1:{self.port}/graphql", json=body, headers={"Authorization": f"Bearer {self.token}"}
            )
            answer: dict[str, Any] = response.json()
        except (httpx2.HTTPError, json.JSONDecodeError):
            return None  # it died; another one comes
        if "errors" in answer:
            assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE", answer
            return None
        return answer

    async def fulfil(self, party: Party, key: str) -> None:
        """All that an account's client asks for."""
        wish = wish_of(party)
        if wish is None:
            return
        payload = await self.ask(wish, key)
        while wish.mutation == "changePlan" and payload["transaction"]["status"] == "UNKNOWN":
            await asyncio.sleep(0.1)  # the processor has not said what became of it
            payload = await self.ask(wish, key)
        if wish.mutation == "requestRefund":
            given = {"refundRequestId": payload["refundRequest"]["id"], "decision": "APPROVE"}
            await self.ask(replace(REVIEWED, given=given), f"{key}-review")
        if wish.mutation == "changePlan" and payload["transaction"]["status"] == "REQUIRES_ACTION":
            confirm = replace(CONFIRMED, given={"transactionId": payload["transaction"]["id"]})
            payload = await self.ask(confirm, f"{key}-confirm", until=frozenset({"INVALID_TRANSITION"}))
            # A message that came before is no other end.
            assert payload["userErrors"] or payload["transaction"]["status"] == "SUCCEEDED", payload


# --- a fight ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collected:
    """What a processor has moved, by our keys, with the amounts."""

    charges: list[tuple[str, int]]
    refunds: list[tuple[str, int]]


@dataclass
class Fight:
    """A battlefield of one test, its processes and the clients of the accounts that it is about."""

    field: Battlefield
    database: Database
    processes: Processes
    front: Front
    parties: list[Party]
    clients: list[asyncio.Task[None]] = dataclasses.field(default_factory=list)
    span: timedelta = timedelta(minutes=1)
    """How much time passes again and again until all is settled."""
    collected: Callable[[], Collected] | None = None
    """What another processor than the sandbox's says that it moved."""

    async def serve(
        self, fault: str | None = None, *, with_worker: bool = True, settings: dict[str, str] | None = None
    ) -> ForkServerProcess:
        """A server, which the clients find from now on."""
        server, self.front.port = await self.processes.start_server(fault, with_worker=with_worker, settings=settings)
        self.front.up.set()
        return server

    def begin(self, chance: random.Random | None = None, *, times: int = 1, front: Front | None = None) -> None:
        """Let all clients ask, each as often at once, all under the account's key."""
        parties = list(self.parties)
        if chance is not None:
            chance.shuffle(parties)
        self.clients += [
            asyncio.create_task((front or self.front).fulfil(party, f"wish-{party.kind}"))
            for party in parties
            for _ in range(times)
        ]

    async def fall(self, server: ForkServerProcess) -> None:
        """Wait until a server has died; nobody finds one until another serves."""
        await self.processes.see_end(server)
        self.front.up.clear()

    async def finish(self) -> None:
        """Wait until all clients are answered, and nothing is open or due any more: bounded."""
        ends = time.monotonic() + BOUND_S
        while not (all(client.done() for client in self.clients) and await self._is_settled()):
            for client in self.clients:
                if client.done():
                    client.result()
            assert time.monotonic() < ends, await self._tell_open()
            # What a dead flow left has a minute until somebody looks after it.
            await pass_time(self.database, self.span)
            await asyncio.sleep(0.2)
        await asyncio.gather(*self.clients)

    async def _is_settled(self) -> bool:
        return not await self._count_open() and await is_quiet(self.database)

    async def _count_open(self) -> int:
        async with self.database.read() as session:
            open_ = await session.scalar(
                select(func.count())
                .select_from(Transaction)
                .where(
                    Transaction.kind.in_((TransactionKind.CHARGE, TransactionKind.REFUND)),
                    Transaction.status.in_(
                        (TransactionStatus.PENDING, TransactionStatus.UNKNOWN, TransactionStatus.REQUIRES_ACTION)
                    ),
                )
            )
            untold = await session.scalar(select(func.count()).select_from(SandboxMessage))
        return (open_ or 0) + (untold or 0)

    async def _tell_open(self) -> str:
        waiting = sum(not client.done() for client in self.clients)
        return f"in {BOUND_S} s: {waiting} clients without an answer, {await self._count_open()} charges or messages"


@asynccontextmanager
async def fight(
    template: Battlefield, folder: Path, *kinds: Kind, told: SandboxMessages | None = None
) -> AsyncGenerator[Fight]:
    """A copy for one test about accounts of some kinds. Where the block ends well, it is settled and checked.

    What is due of the others waits. `told` is how the processor sends its messages to the accounts.
    """
    with copy_of(template, folder) as field_:
        database = open_database(field_.address)
        try:
            parties = field_.of(*(kinds or ALL))
            await hold_back(database, {party.account_id for party in parties})
            if told is not None:
                await behave(database, parties, SandboxAnswers.NORMAL, told)
            async with httpx2.AsyncClient(timeout=BOUND_S) as http:
                with Processes(field_.address, folder) as processes:
                    fought = Fight(field_, database, processes, Front(http, field_.token), parties)
                    try:
                        yield fought
                        await fought.finish()
                    finally:
                        for client in fought.clients:
                            client.cancel()
            await check(parties, database, fought.collected)
        finally:
            await database.close()


async def hold_back(database: Database, account_ids: set[UUID]) -> None:
    """Let what is due of other accounts than these wait for a day."""
    async with database.work(RUNNER) as work:
        await work.session.execute(
            update(DueWork)
            .where(DueWork.done_at.is_(None), DueWork.account_id.not_in(account_ids))
            .values(due_at=work.clock.now() + timedelta(days=1))
        )


AT_ONCE = 6
"""So many accounts have something happen in one blind round."""


async def fight_blindly(template: Battlefield, folder: Path, chance: random.Random) -> None:
    """One round: clients move money, server and worker are killed at random times; then all has to fit."""
    async with fight(template, folder, *chance.sample(ALL, AT_ONCE)) as fought:
        server = await fought.serve()
        worker = fought.processes.start_worker()
        fought.begin(chance)
        for _ in range(chance.randint(1, 4)):
            await asyncio.sleep(chance.uniform(0.01, 0.4))
            if chance.random() < 0.7:
                server.kill()
                await fought.fall(server)
                await pass_a_minute(fought.database)
                server = await fought.serve()
            else:
                await fought.processes.kill(worker)
                await pass_a_minute(fought.database)
                worker = fought.processes.start_worker()


# --- after -----------------------------------------------------------------------------------------------------------

Moves = Counter[tuple[TransactionKind, TransactionStatus]]
PAID = (TransactionKind.CHARGE, TransactionStatus.SUCCEEDED)
DECLINES = (TransactionKind.CHARGE, TransactionStatus.FAILED)
BACK = (TransactionKind.REFUND, TransactionStatus.SUCCEEDED)


def moves_of(kind: Kind) -> Moves:
    """What an account's money did in the end: each once."""
    if kind is Kind.TRANSFEROR:
        return Counter({(TransactionKind.MANUAL, TransactionStatus.SUCCEEDED): 1})
    if kind in (Kind.UNHAPPY, Kind.PATIENT):
        return Counter({PAID: 1, BACK: 1})
    if kind is Kind.INSOLVENT:
        return Counter({PAID: 1, DECLINES: 2})
    return Counter({PAID: 2, DECLINES: 1} if kind in OVERDUE else {PAID: 2})


async def check(parties: list[Party], database: Database, collected: Callable[[], Collected] | None = None) -> None:
    """Each wish came true once, here and at the processor, and the audit has nothing to say."""
    async with database.read() as session:
        await take_snapshot(session)
        assert await audit(session, database.clock.now()) == []
        subscriptions = {row.account_id: row for row in await session.scalars(select(Subscription))}
        invoices = (await session.scalars(select(Invoice))).all()
        moves = (await session.scalars(select(Transaction))).all()
        charges = (await session.scalars(select(SandboxCharge))).all()
        refunds = (await session.scalars(select(SandboxRefund))).all()
        requests = (await session.scalars(select(RefundRequest))).all()
        told = (
            await session.execute(
                select(OutboxEvent.account_id, OutboxEvent.kind, func.count()).group_by(
                    OutboxEvent.account_id, OutboxEvent.kind
                )
            )
        ).all()
    if collected is None:
        # Here and there are the same charges and refunds, each with its end.
        kept, back = (
            sorted((row.processor_key or "", row.amount_minor, row.status) for row in moves if row.kind is kind)
            for kind in (TransactionKind.CHARGE, TransactionKind.REFUND)
        )
        assert kept == sorted((row.key, row.amount_minor, row.status) for row in charges)
        assert back == sorted((row.key, row.amount_minor, row.status) for row in refunds)
    else:
        went, came_back = (
            sorted((row.processor_key or "", row.amount_minor) for row in moves if (row.kind, row.status) == moved)
            for moved in (PAID, BACK)
        )
        assert went == sorted(collected().charges)
        assert came_back == sorted(collected().refunds)
    paid = Counter(
        row.invoice_id
        for row in moves
        if row.status is TransactionStatus.SUCCEEDED and row.kind in (TransactionKind.CHARGE, TransactionKind.MANUAL)
    )
    stepped = Counter((row.invoice_id, row.step) for row in moves if row.step is not None)
    assert set(stepped.values()) <= {1}
    happened: dict[UUID, Moves] = defaultdict(Counter)
    for row in moves:
        happened[row.account_id][row.kind, row.status] += 1
    events = {(account_id, kind): count for account_id, kind, count in told}
    for party in parties:
        kind, account_id = party.kind, party.account_id
        assert happened[account_id] == moves_of(kind), kind
        owed = InvoiceStatus.OPEN if kind is Kind.INSOLVENT else InvoiceStatus.PAID
        mine = sorted((row for row in invoices if row.account_id == account_id), key=lambda row: str(row.issued_at))
        wanted = [InvoiceStatus.PAID] * (INVOICES.get(kind, 2) - 1) + [owed]
        assert [row.status for row in mine] == wanted, kind
        backs = happened[account_id][BACK]
        assert [paid[row.id] for row in mine] == [int(row.status is InvoiceStatus.PAID) for row in mine], kind
        status = SubscriptionStatus.PAST_DUE if kind is Kind.INSOLVENT else SubscriptionStatus.ACTIVE
        assert subscriptions[account_id].status is status, kind
        assert events[account_id, "payment.succeeded"] == happened[account_id][PAID] + (kind is Kind.TRANSFEROR), kind
        assert events.get((account_id, "refund.succeeded"), 0) == backs, kind
        assert events.get((account_id, "invoice.payment_failed"), 0) == happened[account_id][DECLINES], kind
        decided = [row.status for row in requests if row.account_id == account_id]
        assert decided == [RefundStatus.SUCCEEDED] * backs, kind
    await check_file(database)
