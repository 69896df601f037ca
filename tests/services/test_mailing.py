"""Mail from the outbox: who hears of what, once, in which language, and what becomes of what cannot be sent."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from plafond.models import (
    Alert,
    AlertDelivery,
    BillingAccount,
    BudgetScope,
    Company,
    Contact,
    ContactTopic,
    Document,
    DocumentBytes,
    DocumentKind,
    Interval,
    Invite,
    MailKind,
    MailMessage,
    MailStatus,
    Notice,
    OutboxEvent,
    OutboxReader,
    Role,
    WebhookEndpoint,
)
from plafond.services.acknowledgements import acknowledge_alerts
from plafond.services.auditing import audit
from plafond.services.budgets import BudgetInput, set_budget
from plafond.services.claims import Claim, Purpose, read_claim
from plafond.services.decisions import decide_start
from plafond.services.invitations import invitation_url
from plafond.services.mailing import READER, RULES, next_digest, plan_mail
from plafond.services.ports import MailDeferred, MailRefused
from plafond.services.posting import TRIED_FOR, mailbox_of, post_due
from plafond.services.publishing import number_outbox

from ..conftest import NOW, World
from . import engine
from .helpers import ACTOR, OPERATOR, account_of, alerts_of, emails, send
from .issuing import start_account
from .mails import KEY, Kept, deliver, make_contact, messages_of, plan


async def emit(world: World, name: str, kind: str, **payload: Any) -> OutboxEvent:
    """An event as somebody writes it with what happened."""
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        locked = (await work.lock_accounts([account.id]))[account.id]
        sequence = work.emit(locked, kind, payload)
    async with world.database.read() as session:
        return (
            await session.scalars(
                select(OutboxEvent).where(OutboxEvent.account_id == account.id, OutboxEvent.sequence == sequence)
            )
        ).one()


async def test_nothing_of_before_is_told(world: World) -> None:
    """The sandbox has a year of events, some not numbered yet: there is mail only of what comes after it began."""
    acme = await account_of(world)
    await make_contact(world, acme.id, "erika@example.com")
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    kept = Kept()
    async with world.database.work(ACTOR) as work:
        assert await plan_mail(work) == 0
    assert await deliver(world, kept) == []
    async with world.database.read() as session:
        end = await session.scalar(select(func.max(OutboxEvent.position)))
        assert await session.scalar(select(OutboxReader.position).where(OutboxReader.name == READER)) == end
        assert await session.scalar(select(func.count()).select_from(MailMessage)) == 0
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    assert [letter.subject for letter in await deliver(world, kept)] == ["Your subscription goes on"]
    assert await deliver(world, kept) == []


@pytest.mark.parametrize("days", [2, 4])
async def test_what_is_days_old_is_no_news(world: World, days: int) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(world, acme.id, "erika@example.com")
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    world.clock.stands_at += timedelta(days=days)
    assert len(await deliver(world, Kept())) == (days == 2)


async def test_each_event_is_planned_once_for_each_mailbox(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(world, acme.id, "a@example.com", ContactTopic.SUBSCRIPTION_CHANGES)
    await make_contact(world, acme.id, "b@example.com", ContactTopic.SUBSCRIPTION_CHANGES)
    await make_contact(world, acme.id, "c@example.com", ContactTopic.INVOICES)
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    await plan(world.database)
    async with world.database.work(ACTOR) as work:  # as if its own commit were lost
        await work.session.execute(update(OutboxReader).values(position=OutboxReader.position - 1))
    await plan(world.database)
    assert [message.recipient for message in await messages_of(world, acme.id)] == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize("count", [1, 40])
async def test_a_batch_takes_the_same_statements_however_much_is_in_it(world: World, count: int) -> None:
    await plan(world.database)
    for name in ("acme", "birchwood"):
        account = await account_of(world, name)
        await make_contact(world, account.id, "erika@example.com")
        for _ in range(count):
            await emit(world, name, "subscription.changed", step="CHANGE", plan="starter", interval="MONTH")
            await emit(world, name, "invoice.payment_failed", number="X", failure=None, amountMinor=1, currency="USD")
    async with world.database.work(ACTOR) as work:
        await number_outbox(work)
    world.statements.clear()
    async with world.database.work(ACTOR) as work:
        assert await plan_mail(work) == count * 4
    # Reader, events, accounts, contacts, plans, dunnings, subscriptions; the mails; the reader again.
    assert len(world.statements) == 9, world.statements


async def test_the_company_is_told_of_invoices_where_no_contact_is(world: World) -> None:
    await plan(world.database)
    account_id = await start_account(world)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(Company).where(Company.account_id == account_id).values(email="books@example.com")
        )
    await make_contact(world, account_id, "uso@example.com", ContactTopic.USAGE_ALERTS)
    kept = Kept()
    [letter] = await deliver(world, kept)
    assert (letter.recipient, letter.unsubscribing) == ("books@example.com", None)
    assert letter.why == "You get this mail because hawthorn gave this address for invoices."
    [message] = await messages_of(world, account_id)
    assert (message.kind, message.topic, mailbox_of(message)) == (MailKind.INVOICE_ISSUED, None, "company")


async def test_a_pdf_goes_along_once_it_is_drawn(world: World) -> None:
    await plan(world.database)
    account_id = await start_account(world)
    await make_contact(world, account_id, "erika@example.com", ContactTopic.INVOICES, locale="de-AT")
    kept = Kept()
    await plan(world.database)
    while await post_due(world.database, ACTOR, kept.office):
        pass
    assert kept.letters == []
    async with world.database.work(ACTOR) as work:
        document = (
            await work.session.scalars(
                select(Document).where(Document.account_id == account_id, Document.kind == DocumentKind.INVOICE)
            )
        ).one()
        pdf = DocumentBytes(created_at=NOW, account_id=account_id, document_id=document.id, pdf=b"%PDF")
        work.session.add(pdf)
    world.clock.stands_at += timedelta(seconds=20)
    await post_due(world.database, ACTOR, kept.office)
    [letter] = kept.letters
    number = document.content["number"]
    assert letter.attachment is not None
    assert (letter.attachment.name, letter.attachment.content) == (f"{number}.pdf", b"%PDF")
    assert letter.subject == f"Rechnung {number}: $\u00a058,31"
    assert letter.paragraphs[2] == "Das Dokument liegt als PDF bei."
    [message] = await messages_of(world, account_id)
    assert message.failures == 0, "waiting is no failure"


async def test_a_jump_sends_the_highest_only_and_each_step_its_own(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(world, acme.id, "erika@example.com", ContactTopic.USAGE_ALERTS)
    figure = await used_and_limit(world)
    kept = Kept()
    await send(world, emails("to-79", figure[1] * 79 // 100 - figure[0]))
    assert await deliver(world, kept) == []
    await send(world, emails("to-101", figure[1] * 22 // 100))
    [letter] = await deliver(world, kept)
    assert letter.subject == "Email sends: the limit is reached"
    assert [alert.threshold for alert in await alerts_of(world)][-4:] == [80, 90, 95, 100]


async def used_and_limit(world: World) -> tuple[int, int]:
    """What acme used of its e-mails, and may."""
    [result] = await send(world, emails("look", 1))
    assert result.used is not None
    assert result.limit is not None
    return result.used, result.limit


async def test_what_was_settled_or_seen_meanwhile_is_said(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(world, acme.id, "erika@example.com", ContactTopic.USAGE_ALERTS)
    used, limit = await used_and_limit(world)
    await send(world, emails("to-85", limit * 85 // 100 - used))
    await plan(world.database)
    [alert] = [alert for alert in await alerts_of(world) if alert.resolved_at is None]
    async with world.database.work(ACTOR) as work:
        await acknowledge_alerts(work, acme.id, [alert.id])
    [letter] = await deliver(world, Kept())
    assert letter.paragraphs[-1] == "Somebody of your team has seen it."


async def test_a_day_of_alerts_in_one_mail(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(
        world, acme.id, "erika@example.com", ContactTopic.USAGE_ALERTS, alert_delivery=AlertDelivery.DAILY
    )
    kept = Kept()
    used, limit = await used_and_limit(world)
    await send(world, emails("to-85", limit * 85 // 100 - used))
    await plan(world.database)
    await send(world, emails("to-96", limit * 11 // 100))
    await plan(world.database)
    assert await post_due(world.database, ACTOR, kept.office) == 0
    [message] = await messages_of(world, acme.id)
    assert message.kind is MailKind.ALERT_DIGEST
    assert message.ripe_at == next_digest(NOW, acme.timezone)
    world.clock.stands_at = message.ripe_at + timedelta(minutes=2)
    [letter] = await deliver(world, kept)
    assert letter.subject == "Usage alerts of the day: 3"
    assert [name for name, _ in letter.facts] == [
        "Email sends: 80\u00a0% of the limit reached",
        "Email sends: 90\u00a0% of the limit reached",
        "Act now: Email sends: 95\u00a0% of the limit reached",
    ]
    assert all(value.endswith("(open)") for _, value in letter.facts)
    assert letter.unsubscribing is not None


@pytest.mark.parametrize(
    ("at", "zone", "goes"),
    [
        ("2026-01-10T07:59:59", "UTC", "2026-01-10T08:00:00"),
        ("2026-01-10T08:00:00", "UTC", "2026-01-11T08:00:00"),
        ("2026-01-10T22:00:00", "Asia/Tokyo", "2026-01-10T23:00:00"),
        ("2026-03-28T12:00:00", "Europe/Vienna", "2026-03-29T06:00:00"),
    ],
)
def test_a_digest_goes_at_eight_of_the_accounts_morning(at: str, zone: str, goes: str) -> None:
    assert next_digest(datetime.fromisoformat(at).replace(tzinfo=UTC), zone) == datetime.fromisoformat(goes).replace(
        tzinfo=UTC
    )


async def test_a_budget_is_told_in_money(world: World) -> None:
    await plan(world.database)
    till = engine.open_till(world.database)
    account_id = await engine.open_account(till, "spender", None, country="US")
    await engine.order(till, account_id, decide_start, "starter", Interval.MONTH)
    await make_contact(world, account_id, "erika@example.com", ContactTopic.USAGE_ALERTS)
    async with world.database.work(ACTOR) as work:
        await set_budget(
            work, OPERATOR, account_id, BudgetInput(scope=BudgetScope.ACCOUNT, limit_minor=6_000, currency="USD")
        )
    [letter] = await deliver(world, Kept())
    assert letter.subject == "Your budget: 80\u00a0% spent"
    assert letter.paragraphs[0] == "$49.00 of $60.00 is spent in this usage period, before tax."
    assert ("At 100\u00a0%", "Nothing is stopped: you are told, and usage goes on.") in letter.facts


async def test_an_invitation_says_where_and_by_when(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    kept = Kept()
    async with world.database.work(ACTOR) as work:
        invite = Invite(
            created_at=NOW,
            account_id=acme.id,
            email="neu@example.com",
            email_key="neu@example.com",
            role=Role.BILLING_ADMIN,
            locale="fr",
            invited_by="operator:test",
            expires_at=NOW + timedelta(days=7),
        )
        work.session.add(invite)
    for _ in range(2):
        await emit(world, "acme", "member.invited", inviteId=str(invite.id))
    first, second = await deliver(world, kept)
    assert first.recipient == "neu@example.com"
    assert first.subject.startswith("Vous êtes invité à rejoindre Acme")
    assert first.facts == (("Rôle", "Gestionnaire de facturation"),)
    assert first.button.url == invitation_url("https://app.example.com/billing", KEY, invite) == second.button.url
    token = first.button.url.rpartition("/")[2]
    assert read_claim(KEY, Purpose.INVITATION, token, NOW) == Claim(invite.id, 1)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Invite).values(revoked_at=NOW))
    await emit(world, "acme", "member.invited", inviteId=str(invite.id))
    assert await deliver(world, kept) == []
    assert [message.status for message in await messages_of(world, acme.id)][-1] is MailStatus.DROPPED


async def test_a_switched_off_endpoint_is_told(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(world, acme.id, "erika@example.com", ContactTopic.SUBSCRIPTION_CHANGES, locale="nl")
    async with world.database.work(ACTOR) as work:
        endpoint = WebhookEndpoint(
            created_at=NOW,
            account_id=acme.id,
            url="https://hooks.example.com/in",
            event_kinds=[],
            secret="whsec_x",
            created_by="operator:test",
        )
        work.session.add(endpoint)
    await emit(world, "acme", "webhook.disabled", endpointId=str(endpoint.id))
    [letter] = await deliver(world, Kept())
    assert letter.subject == "Een webhook-eindpunt is uitgeschakeld"
    assert letter.facts == (("Adres", "https://hooks.example.com/in"),)


async def planned(world: World) -> tuple[UUID, UUID]:
    """An account and contact with one mail that waits."""
    await plan(world.database)
    acme = await account_of(world)
    contact_id = await make_contact(world, acme.id, "erika@example.com", ContactTopic.SUBSCRIPTION_CHANGES)
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    await plan(world.database)
    return acme.id, contact_id


async def test_who_wants_it_no_more_or_is_gone_gets_nothing(world: World) -> None:
    account_id, contact_id = await planned(world)
    async with world.database.work(ACTOR) as work:
        contact = await work.session.get_one(Contact, contact_id)
        contact.topics = []
    kept = Kept()
    assert await deliver(world, kept) == []
    async with world.database.work(ACTOR) as work:
        (await work.session.get_one(Contact, contact_id)).topics = [ContactTopic.SUBSCRIPTION_CHANGES]
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    await plan(world.database)
    async with world.database.work(ACTOR) as work:
        await work.session.delete(await work.session.get_one(Contact, contact_id))
    assert await deliver(world, kept) == []
    messages = await messages_of(world, account_id)
    assert [(message.status, message.contact_id) for message in messages] == [(MailStatus.DROPPED, None)] * 2


async def test_what_cannot_be_handed_over_is_tried_again_with_longer_pauses(world: World) -> None:
    account_id, _ = await planned(world)
    kept = Kept(failures=[MailDeferred(f"451 busy {number}") for number in range(4)])
    pauses = []
    while not kept.letters:
        [before] = await messages_of(world, account_id)
        world.clock.stands_at = before.due_at
        assert await post_due(world.database, ACTOR, kept.office) == 1
        [after] = await messages_of(world, account_id)
        pauses.append((after.due_at - world.clock.stands_at).total_seconds())
        assert await post_due(world.database, ACTOR, kept.office) == 0, "it waits"
    assert [round(pause / 10) * 10 for pause in pauses[:1]] == [30]
    assert all(later > 1.6 * earlier for earlier, later in pairwise(pauses[:4]))
    assert (after.status, after.tries, after.failures, after.failure) == (MailStatus.SENT, 5, 4, None)
    assert after.sent_at == world.clock.stands_at


async def test_after_three_days_or_a_refusal_operators_are_told_until_it_works_again(world: World) -> None:
    account_id, contact_id = await planned(world)
    kept = Kept(failures=[MailDeferred("451 busy"), MailDeferred("451 still busy")])
    await post_due(world.database, ACTOR, kept.office)
    world.clock.stands_at += TRIED_FOR
    await post_due(world.database, ACTOR, kept.office)
    [message] = await messages_of(world, account_id)
    assert (message.status, message.failure) == (MailStatus.FAILED, "451 still busy")
    notice = await notice_of(world, account_id)
    assert notice is not None
    assert (notice.subject, notice.for_operators) == (f"contact:{contact_id}", True)
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    await plan(world.database)
    kept.failures = [MailRefused("550 no such mailbox")]
    assert await post_due(world.database, ACTOR, kept.office) == 1
    notice = await notice_of(world, account_id)
    assert notice is not None
    assert notice.params["failure"] == "550 no such mailbox"
    await emit(world, "acme", "subscription.resumed", step="RESUME")
    await deliver(world, kept)
    assert await notice_of(world, account_id) is None
    assert [message.status for message in await messages_of(world, account_id)] == [
        MailStatus.FAILED,
        MailStatus.FAILED,
        MailStatus.SENT,
    ]


async def notice_of(world: World, account_id: UUID) -> Notice | None:
    async with world.database.read() as session:
        found: Notice | None = await session.scalar(
            select(Notice).where(Notice.account_id == account_id, Notice.code == "MAIL_FAILED")
        )
        return found


async def test_who_lost_its_lease_writes_nothing(world: World) -> None:
    """Another worker sends it again under the same id; the first one's word on it counts no more."""
    account_id, _ = await planned(world)

    class Slow(Kept):
        async def send(self, letter: Any) -> None:
            world.clock.stands_at += timedelta(minutes=3)
            if len(self.letters) == 0:
                self.letters.append(letter)
                await post_due(world.database, ACTOR, self.office)
                raise MailRefused("550 too late to say so")
            await super().send(letter)

    kept = Slow()
    await post_due(world.database, ACTOR, kept.office, limit=1)
    [message] = await messages_of(world, account_id)
    assert (message.status, message.tries) == (MailStatus.SENT, 2)
    assert {letter.id for letter in kept.letters} == {message.id}


async def test_the_audit_finds_mail_that_waits_too_long(world: World) -> None:
    account_id, _ = await planned(world)
    async with world.database.read() as session:
        assert [f for f in await audit(session, NOW + timedelta(hours=1)) if f.invariant == "I10"] == []
        found = [f for f in await audit(session, NOW + timedelta(days=5)) if f.invariant == "I10"]
    assert [finding.account_id for finding in found] == [account_id]
    assert "subscription" in found[0].what.lower()


def test_every_topic_is_told_of() -> None:
    assert {rule.topic for rule in RULES.values()} - {None} == set(ContactTopic)
    assert {rule.kind for rule in RULES.values()} | {MailKind.ALERT_DIGEST} == set(MailKind)


async def test_an_alert_of_what_is_gone_says_nothing(world: World) -> None:
    await plan(world.database)
    acme = await account_of(world)
    await make_contact(world, acme.id, "erika@example.com", ContactTopic.USAGE_ALERTS)
    used, limit = await used_and_limit(world)
    await send(world, emails("to-85", limit * 85 // 100 - used))
    await plan(world.database)
    async with world.database.work(ACTOR) as work:
        for alert in await work.session.scalars(select(Alert).where(Alert.account_id == acme.id)):
            await work.session.delete(alert)
    assert await deliver(world, Kept()) == []
    async with world.database.read() as session:
        assert (await session.get_one(BillingAccount, acme.id)).closed_at is None
