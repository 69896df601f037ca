"""What may pass a limit: blocked, charged, asked about or allowed, by metric."""

from typing import Any

import pytest
from sqlalchemy import delete

from plafond.models import Price, PriceKind, Role
from plafond.services.usage import EventStatus
from plafond.worker import do_due_work

from ..conftest import NOW, Client, World
from .engine import open_till
from .helpers import ACTOR, emails, period_of, send

SET = """
mutation ($input: SetOveragePolicyInput!) {
  setOveragePolicy(input: $input) { account { id } userErrors { code field message } }
}"""
APPROVE = """
mutation ($input: ApproveOverageInput!) {
  approveOverage(input: $input) { account { id } userErrors { code field } }
}"""
RECORD = """
mutation ($events: [UsageEventInput!]!) {
  recordUsage(input: { events: $events }) { results { status code used } }
}"""
SHOW = """
query ($external: String!) {
  billingAccount(externalId: $external) {
    id
    notices { code message actions { kind } }
    usage {
      metric { key } used limit
      overage { policy setting quantity blocks allowed amount { amountMinor } approval { blocks approvedBy } }
    }
  }
}"""


class Acme:
    """An account on Growth: 23,450 of 50,000 e-mails used, 10.00 for each 10,000 above."""

    def __init__(self, client: Client, world: World, external_id: str = "acme") -> None:
        self.client, self.world, self.external_id = client, world, external_id
        self.sent = 0

    async def show(self) -> dict[str, Any]:
        found: Any = await self.client.data(self.world.operator, SHOW, external=self.external_id)
        account: dict[str, Any] = found["billingAccount"]
        return account

    async def overage(self) -> dict[str, Any]:
        usage = (await self.show())["usage"]
        found: dict[str, Any] = next(item["overage"] for item in usage if item["metric"]["key"] == "email_sends")
        return found

    async def send(self, quantity: int) -> str:
        """The code of its rejection, or its status."""
        self.sent += 1
        event = {"eventId": f"e{self.sent}", "externalId": self.external_id, "metric": "email_sends"}
        event_in: dict[str, Any] = {**event, "quantity": quantity}
        found: Any = await self.client.data(self.world.operator, RECORD, events=[event_in])
        (result,) = found["recordUsage"]["results"]
        return str(result["code"] or result["status"])

    async def choose(self, policy: str, token: str | None = None, metric: str = "email_sends") -> list[str]:
        """The codes of what is refused."""
        given = {"accountId": (await self.show())["id"], "metric": metric, "policy": policy}
        found: Any = await self.client.data(token or self.world.operator, SET, input=given)
        return [error["code"] for error in found["setOveragePolicy"]["userErrors"]]

    async def approve(self, blocks: int | None = None) -> list[str]:
        given = {"accountId": (await self.show())["id"], "metric": "email_sends", "blocks": blocks}
        found: Any = await self.client.data(self.world.operator, APPROVE, input=given)
        return [error["code"] for error in found["approveOverage"]["userErrors"]]


@pytest.fixture
def acme(client: Client, world: World) -> Acme:
    return Acme(client, world)


async def test_by_default_what_passes_is_charged_by_started_blocks(acme: Acme) -> None:
    assert await acme.send(26_551) == "ACCEPTED"
    assert await acme.overage() == {
        "policy": "CHARGE",
        "setting": None,
        "quantity": 1,
        "blocks": 1,
        "allowed": 0,
        "amount": {"amountMinor": 1_000},
        "approval": None,
    }


async def test_a_tenant_blocks_what_would_pass(acme: Acme, world: World) -> None:
    assert await acme.choose("BLOCK", world.token("Acme", Role.TENANT_OWNER)) == []
    assert await acme.send(26_551) == "LIMIT_EXCEEDED"
    assert await acme.send(26_550) == "ACCEPTED"
    assert await acme.send(1) == "LIMIT_EXCEEDED"


async def test_what_passed_before_the_policy_became_block_is_charged(acme: Acme) -> None:
    assert await acme.send(30_000) == "ACCEPTED"
    assert await acme.choose("BLOCK") == []
    overage = await acme.overage()
    assert (overage["policy"], overage["blocks"], overage["amount"]) == ("BLOCK", 1, {"amountMinor": 1_000})


async def test_asked_about_it_waits_for_an_approval(acme: Acme) -> None:
    assert await acme.choose("ASK") == []
    for _ in range(3):
        assert await acme.send(30_000) == "OVERAGE_APPROVAL_REQUIRED"
    notices = [notice for notice in (await acme.show())["notices"] if notice["code"] == "OVERAGE_APPROVAL"]
    assert len(notices) == 1
    assert [action["kind"] for action in notices[0]["actions"]] == ["APPROVE_OVERAGE", "CHANGE_PLAN"]

    assert await acme.approve(1) == []
    assert [notice for notice in (await acme.show())["notices"] if notice["code"] == "OVERAGE_APPROVAL"] == []
    assert await acme.send(30_000) == "ACCEPTED"  # 53,450
    assert await acme.send(6_551) == "OVERAGE_APPROVAL_REQUIRED"
    assert await acme.send(6_550) == "ACCEPTED"  # 60,000: the one block is full
    assert await acme.send(1) == "OVERAGE_APPROVAL_REQUIRED"

    assert await acme.approve(None) == []
    assert await acme.send(40_001) == "ACCEPTED"
    overage = await acme.overage()
    assert (overage["blocks"], overage["amount"], overage["approval"]["blocks"]) == (6, {"amountMinor": 6_000}, None)
    assert await acme.approve(5) == ["INVALID"]  # six are in use


async def test_what_is_allowed_is_never_charged(acme: Acme) -> None:
    assert await acme.choose("ALLOW") == []
    assert await acme.send(40_000) == "ACCEPTED"  # 63,450
    overage = await acme.overage()
    assert (overage["quantity"], overage["allowed"], overage["amount"]) == (13_450, 13_450, {"amountMinor": 0})
    assert await acme.choose("CHARGE") == []
    assert await acme.send(1) == "ACCEPTED"
    overage = await acme.overage()
    assert (overage["allowed"], overage["blocks"], overage["amount"]) == (13_450, 1, {"amountMinor": 1_000})


async def test_what_comes_late_keeps_what_was_allowed_without_a_price(acme: Acme, world: World) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(delete(Price).where(Price.kind == PriceKind.OVERAGE))
    assert await acme.choose("ALLOW") == []
    assert await acme.send(40_000) == "ACCEPTED"
    world.clock.stands_at = (await period_of(world)).end
    while await do_due_work(open_till(world.database)):
        pass
    (late,) = await send(world, emails("late", 10, occurred_at=NOW))
    assert (late.status, late.code) == (EventStatus.ACCEPTED, None)


async def test_only_operators_allow_and_set_what_is_not_sold(acme: Acme, world: World) -> None:
    owner = world.token("Acme", Role.TENANT_OWNER)
    assert await acme.choose("ALLOW", owner) == ["FORBIDDEN"]
    assert await acme.choose("BLOCK", owner, metric="workspaces") == ["FORBIDDEN"]
    assert await acme.choose("CHARGE", metric="workspaces") == ["PRICE_NOT_AVAILABLE"]
    assert await acme.choose("ALLOW", metric="workspaces") == []
    assert await acme.choose("BLOCK", metric="nothing") == ["NOT_FOUND"]


async def test_nobody_approves_what_is_not_asked_about(acme: Acme) -> None:
    assert await acme.approve(1) == ["CONFLICT"]
    assert await acme.choose("ASK") == []
    assert await acme.approve(0) == ["INVALID"]
    assert await acme.approve(10**12) == ["INVALID"]
