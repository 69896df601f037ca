"""I15: what concurrent clients see of balances, refunds and what is due fits a one-at-a-time order."""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from plafond.schema.node import encode_id
from plafond.services.auditing import audit

from .fire import BOUND_S, Battlefield, Kind, Party, copy_of
from .histories import Call, State, fits_an_order
from .runner import Processes, open_database

CLIENTS = 4
CALLS = 12
NAMES = ["grant", "ask_back", "record", "read_balance", "read_left", "read_due"]
"""What they ask for, beside one try to charge."""


@pytest.mark.parametrize(
    ("history", "fits"),
    [
        ([("grant", 5, True, 0, 1), ("read_balance", 0, 5, 2, 3)], True),
        ([("grant", 5, True, 0, 1), ("read_balance", 0, 0, 2, 3)], False),
        # While it is under way, either may be read, but not one after the other backwards.
        ([("grant", 5, True, 0, 9), ("read_balance", 0, 0, 1, 2), ("read_balance", 0, 5, 3, 4)], True),
        ([("grant", 5, True, 0, 9), ("read_balance", 0, 5, 1, 2), ("read_balance", 0, 0, 3, 4)], False),
        # Two that exceed what is left together: one is refused, and never both taken or both refused.
        ([("ask_back", 60, True, 0, 9), ("ask_back", 60, False, 0, 9)], True),
        ([("ask_back", 60, True, 0, 9), ("ask_back", 60, True, 0, 9)], False),
        ([("ask_back", 60, False, 0, 9), ("ask_back", 60, False, 0, 9)], False),
        ([("ask_back", 60, True, 0, 9), ("read_left", 0, 40, 1, 2), ("read_left", 0, 100, 3, 4)], False),
        # What was denied is left again, what was approved is not.
        ([("ask_back", 60, True, 0, 1), ("deny", 60, True, 2, 3), ("read_left", 0, 100, 4, 5)], True),
        ([("ask_back", 60, True, 0, 1), ("deny", 60, True, 2, 3), ("read_left", 0, 40, 4, 5)], False),
        ([("ask_back", 60, True, 0, 1), ("approve", 60, True, 2, 3), ("read_left", 0, 100, 4, 5)], False),
        # A charge is of what is due when it is asked for; a transfer may come in between.
        ([("try", 50, True, 0, 9), ("collect", 50, True, 0, 9), ("read_due", 0, 0, 10, 11)], True),
        ([("try", 30, True, 0, 9), ("collect", 30, True, 0, 9)], False),
        ([("record", 20, True, 1, 2), ("try", 50, True, 0, 9), ("collect", 50, True, 0, 9)], True),
        ([("record", 20, True, 0, 1), ("try", 50, True, 2, 9), ("collect", 50, True, 2, 9)], False),
        ([("record", 20, True, 0, 1), ("read_due", 0, 50, 2, 3)], False),
        # Nothing is refused while something is due.
        ([("try", 0, False, 0, 9), ("read_due", 0, 50, 10, 11)], False),
        ([("record", 50, True, 0, 1), ("try", 0, False, 2, 9)], True),
    ],
)
def test_the_checker_tells_them_apart(history: list[tuple[str, int, Any, float, float]], fits: bool) -> None:
    assert fits_an_order([Call(*call) for call in history], State(0, 100, 50)) is fits


@dataclass
class Desk:
    """Where the clients of two accounts ask: one pays an invoice, the other one wants its charge back."""

    http: httpx2.AsyncClient
    payer: Party
    refunded: Party

    async def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an answer."""
        answer = (await self.http.post("/graphql", json={"query": query, "variables": variables})).json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    async def mutate(self, mutation: str, fields: str, **given: Any) -> tuple[dict[str, Any], list[str]]:
        """The payload of a mutation, and the codes that it was refused with."""
        name = mutation[0].upper() + mutation[1:]
        query = f"mutation ($input: {name}Input!) {{ {mutation}(input: $input) {{ {fields} userErrors {{ code }} }} }}"
        payload = (await self.ask(query, input={**given, "idempotencyKey": str(uuid4())}))[mutation]
        return payload, [error["code"] for error in payload["userErrors"]]

    async def read(self, kind: str, key: UUID | None, fields: str) -> Any:
        """An object by its id."""
        assert key is not None, "it has one"
        found = await self.ask(
            f"query ($id: ID!) {{ node(id: $id) {{ ... on {kind} {{ {fields} }} }} }}", id=encode_id(kind, key)
        )
        return found["node"]

    async def read_balance(self) -> int:
        """The credit of the account that pays."""
        found = await self.read("BillingAccount", self.payer.account_id, "creditBalance { amountMinor }")
        return int(found["creditBalance"]["amountMinor"])

    async def read_left(self) -> int:
        """What of the other one's charge can still be asked back."""
        found = await self.read("Transaction", self.refunded.charge_id, "refundableAmount { amountMinor }")
        return int(found["refundableAmount"]["amountMinor"])

    async def read_due(self) -> int:
        """What is due of the invoice."""
        found = await self.read("Invoice", self.payer.invoice_id, "amountDue { amountMinor }")
        return int(found["amountDue"]["amountMinor"])


async def _call(desk: Desk, name: str, amount: int) -> list[Call]:
    """Ask for one thing, and for a refund what an operator then decides of it."""
    began = time.monotonic()

    def told(answer: Any, name: str = name, amount: int = amount) -> Call:
        return Call(name, amount, answer, began, time.monotonic())

    account = encode_id("BillingAccount", desk.payer.account_id)
    money = {"amountMinor": amount, "currency": "USD"}
    if name == "grant":
        _, codes = await desk.mutate("grantCredit", "account { id }", accountId=account, reason="test", **money)
        return [told(codes == [])]
    if name == "record":
        assert desk.payer.invoice_id is not None, "it has one"
        invoice = encode_id("Invoice", desk.payer.invoice_id)
        _, codes = await desk.mutate("recordPayment", "account { id }", invoiceId=invoice, reference="x", **money)
        return [told(codes == [])]
    if name == "try":
        fields = "transactions { status amount { amountMinor } }"
        payload, codes = await desk.mutate("retryPayment", fields, accountId=account)
        if codes:
            assert codes == ["CONFLICT"]
            return [told(False)]
        [charge] = payload["transactions"]
        if charge["status"] == "CANCELED":  # a transfer came first
            return [told(False)]
        assert charge["status"] == "SUCCEEDED"
        collected = charge["amount"]["amountMinor"]
        return [told(True, "try", collected), told(True, "collect", collected)]
    if name == "ask_back":
        assert desk.refunded.charge_id is not None, "it paid"
        charge = encode_id("Transaction", desk.refunded.charge_id)
        asked = {"transactionId": charge, "reason": "GOODWILL", **money}
        payload, codes = await desk.mutate("requestRefund", "refundRequest { id }", **asked)
        assert codes in ([], ["REFUND_NOT_ALLOWED"])
        request = told(codes == [])
        if codes:
            return [request]
        began = time.monotonic()
        decision = "DENY" if amount % 2 else "APPROVE"
        found = payload["refundRequest"]["id"]
        decided = {"refundRequestId": found, "decision": decision, "reason": "test"}
        _, codes = await desk.mutate("reviewRefund", "refundRequest { id }", **decided)
        return [request, told(codes == [], decision.lower())]
    return [told(await getattr(desk, name)())]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 5))])
async def test_histories_fit_an_order(battlefield: Battlefield, tmp_path: Path, seed: int) -> None:
    """Several histories at one server, each of other accounts' copies."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    for number in range(1 if seed == 1 else 10):
        await _live_one(battlefield, tmp_path / str(number), chance)


async def _live_one(battlefield: Battlefield, folder: Path, chance: random.Random) -> None:
    with copy_of(battlefield, folder) as field_, Processes(field_.address, folder) as processes:
        _, port = await processes.start_server(with_worker=False)
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {field_.token}"}, timeout=BOUND_S
        ) as http:
            [payer], [refunded] = field_.of(Kind.RETRIER), field_.of(Kind.UNHAPPY)
            desk = Desk(http, payer, refunded)
            before = State(await desk.read_balance(), await desk.read_left(), await desk.read_due())
            wanted = chance.choices(
                ["grant", "ask_back", "record", "read_balance", "read_left", "read_due"], k=CALLS - 1
            )
            wanted.insert(chance.randrange(CALLS), "try")

            async def live(names: list[str]) -> list[Call]:
                return [
                    call for name in names for call in await _call(desk, name, chance.randint(1, before.left * 2 // 3))
                ]

            told = await asyncio.gather(*(live(wanted[place::CLIENTS]) for place in range(CLIENTS)))
            history = sorted((call for calls in told for call in calls), key=lambda call: call.began)
            assert fits_an_order(history, before), "\n".join(map(str, history))
        database = open_database(field_.address)
        async with database.read() as session:
            assert await audit(session, datetime.now(UTC)) == []
        await database.close()
