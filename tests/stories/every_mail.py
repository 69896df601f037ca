"""Two lives in which a mail of every kind is sent, for those who look at all of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from plafond.models import AlertDelivery, ContactTopic, Invite, MailKind, PaymentMethod, Role, WebhookEndpoint
from plafond.services.letters import Letter

from ..conftest import Client, World
from ..services.helpers import ACTOR
from ..services.mails import Kept, account_of_life, deliver, make_contact, messages_of, plan
from .life import Life

START = datetime(2026, 1, 10, 9, tzinfo=UTC)


async def live_through_every_kind(client: Client, world: World, locale: str = "en") -> list[tuple[MailKind, Letter]]:
    """A trial that becomes a plan, uses it up, cannot pay, pays, is refunded; and a year that comes to its end."""
    kept = Kept()
    await plan(world.database)
    life = await Life.begin(client, world, START, card="pm_card_visa", locale=locale)
    account = await account_of_life(world, life.external_id)
    await make_contact(world, account.id, "erika@example.com")
    await make_contact(
        world, account.id, "daily@example.com", ContactTopic.USAGE_ALERTS, alert_delivery=AlertDelivery.DAILY
    )
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(START + timedelta(days=14, hours=1))
    await life.do("setBudget", limit={"amountMinor": 5_000, "currency": "USD"}, scope="ACCOUNT")
    for quantity in (8_000, 1_000, 500, 600):
        await life.use(quantity=quantity)
    await life.advance(START + timedelta(days=16))
    await deliver(world, kept)
    asked = await _ask_back(life)
    await life.do("reviewRefund", "refundRequest { id }", refundRequestId=asked, decision="APPROVE")
    await life.do("addPaymentMethod", token="pm_card_chargeDeclined")
    await life.advance(datetime(2026, 2, 24, 11, tzinfo=UTC))
    await deliver(world, kept)
    await life.do("addPaymentMethod", token="pm_card_visa")
    await _invite_and_switch_off(world, life)
    await deliver(world, kept)
    yearly = await Life.begin(client, world, START, locale=locale, name="yearly")
    of_year = await account_of_life(world, "yearly")
    await make_contact(world, of_year.id, "max@example.com")
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(PaymentMethod).where(PaymentMethod.account_id == of_year.id).values(exp_month=12, exp_year=2026)
        )
    await yearly.do("startSubscription", planKey="starter", interval="YEAR")
    await yearly.advance(datetime(2027, 1, 5, tzinfo=UTC))
    await deliver(world, kept)
    kinds = {
        message.id: message.kind
        for account_id in (account.id, of_year.id)
        for message in await messages_of(world, account_id)
    }
    return [(kinds[letter.id], letter) for letter in kept.letters]


async def _ask_back(life: Life) -> str:
    found = await life.ask("transactions(first: 5, filter: { kind: [CHARGE] }) { nodes { id } }")
    charge = found["transactions"]["nodes"][-1]["id"]
    asked = await life.do("requestRefund", "refundRequest { id }", transactionId=charge, reason="GOODWILL")
    identifier: str = asked["refundRequest"]["id"]
    return identifier


async def _invite_and_switch_off(world: World, life: Life) -> None:
    account = await account_of_life(world, life.external_id)
    now = world.clock.now()
    given: dict[str, Any] = {"created_at": now, "account_id": account.id}
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        invite = Invite(
            **given,
            email="neu@example.com",
            email_key="neu@example.com",
            role=Role.BILLING_ADMIN,
            invited_by="operator:test",
            expires_at=now + timedelta(days=7),
        )
        endpoint = WebhookEndpoint(
            **given, url="https://hooks.example.com/in", event_kinds=[], secret="whsec_x", created_by="operator:test"
        )
        work.session.add_all([invite, endpoint])
        await work.session.flush()
        work.emit(locked, "member.invited", {"inviteId": str(invite.id)})
        work.emit(locked, "webhook.disabled", {"endpointId": str(endpoint.id)})
