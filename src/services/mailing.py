"""Planning of mail: events become mails to those who want them, once each, in the order of the outbox."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select

from ..database import Actor, Database, Work
from ..faults import reach
from ..models import (
    AddOn,
    AlertDelivery,
    BillingAccount,
    CollectionMethod,
    Company,
    Contact,
    ContactTopic,
    Deployment,
    Dunning,
    Invite,
    Invoice,
    MailKind,
    MailMessage,
    MailStatus,
    OutboxEvent,
    OutboxReader,
    Plan,
    RefundRequest,
    RefundStatus,
    Subscription,
    WebhookEndpoint,
)
from ..models.types import new_id
from .publishing import BATCH as NUMBERED_AT_ONCE
from .publishing import number_outbox

READER = "mail"
BATCH = 500
"""So many events are read at once."""
TELL_WITHIN = timedelta(days=3)
"""What happened longer ago is no news: after an outage, or where mail was switched on again, it is left out."""
DIGEST_AT = time(8)
"""When a day's alerts go out, in the account's zone."""
GRACE = timedelta(minutes=1)
"""So long a digest waits for what was raised in the last moment of its day."""
UNSUBSCRIBABLE = frozenset({ContactTopic.USAGE_ALERTS, ContactTopic.SUBSCRIPTION_CHANGES})
"""What a contact may end by a link. Invoices, and that a payment failed, have to be told to somebody."""
REACHES_COMPANY = frozenset({ContactTopic.INVOICES, ContactTopic.PAYMENT_FAILURES})
"""What goes to the company's own address where no contact wants it."""


@dataclass(frozen=True)
class Rule:
    """What an event becomes, and who gets it: contacts that want the topic, or whoever the event names."""

    kind: MailKind
    topic: ContactTopic | None


RULES: Mapping[str, Rule] = {
    "invoice.finalized": Rule(MailKind.INVOICE_ISSUED, ContactTopic.INVOICES),
    "credit_note.issued": Rule(MailKind.CREDIT_NOTE_ISSUED, ContactTopic.INVOICES),
    "invoice.upcoming": Rule(MailKind.RENEWAL_AHEAD, ContactTopic.INVOICES),
    "invoice.payment_failed": Rule(MailKind.PAYMENT_FAILED, ContactTopic.PAYMENT_FAILURES),
    "invoice.paid": Rule(MailKind.PAYMENT_RECOVERED, ContactTopic.PAYMENT_FAILURES),
    "payment_method.expiring": Rule(MailKind.CARD_EXPIRING, ContactTopic.PAYMENT_FAILURES),
    "subscription.suspended": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.PAYMENT_FAILURES),
    "refund.requested": Rule(MailKind.REFUND, ContactTopic.PAYMENT_FAILURES),
    "refund.approved": Rule(MailKind.REFUND, ContactTopic.PAYMENT_FAILURES),
    "refund.denied": Rule(MailKind.REFUND, ContactTopic.PAYMENT_FAILURES),
    "refund.succeeded": Rule(MailKind.REFUND, ContactTopic.PAYMENT_FAILURES),
    "usage.alert_raised": Rule(MailKind.USAGE_ALERT, ContactTopic.USAGE_ALERTS),
    "budget.alert_raised": Rule(MailKind.USAGE_ALERT, ContactTopic.USAGE_ALERTS),
    "subscription.started": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.changed": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.scheduled": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.resumed": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.reactivated": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.canceled": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.expired": Rule(MailKind.SUBSCRIPTION_CHANGED, ContactTopic.SUBSCRIPTION_CHANGES),
    "subscription.trial_ending": Rule(MailKind.TRIAL_ENDING, ContactTopic.SUBSCRIPTION_CHANGES),
    "webhook.disabled": Rule(MailKind.WEBHOOK_DISABLED, ContactTopic.SUBSCRIPTION_CHANGES),
    "member.invited": Rule(MailKind.INVITATION, None),
}
"""One line for each event that is told by mail; the guide prints it."""

Params: TypeAlias = dict[str, Any]


async def plan_waiting(database: Database, actor: Actor) -> int:
    """Plan what the next events ask for. Gives how many were read; the writers' lock is taken only for something."""
    if not await _has_unread(database):
        return 0
    return await database.run(actor, plan_mail)


async def _has_unread(database: Database) -> bool:
    async with database.read() as session:
        place = await session.scalar(select(OutboxReader.position).where(OutboxReader.name == READER))
        if place is None:
            return True
        found = await session.scalar(select(OutboxEvent.id).where(OutboxEvent.position > place).limit(1))
    return found is not None


async def plan_mail(work: Work) -> int:
    """Plan the mails of the next events, and go past these, in one transaction. The reader's row is the lock.

    The first time nothing is planned: what happened before there was mail is told to nobody.
    """
    reader = await work.session.scalar(select(OutboxReader).where(OutboxReader.name == READER).with_for_update())
    if reader is None:
        await _begin(work)
        return 0
    events = (
        await work.session.scalars(
            select(OutboxEvent)
            .where(OutboxEvent.position > reader.position)
            .order_by(OutboxEvent.position)
            .limit(BATCH)
        )
    ).all()
    if not events:
        return 0
    told = [event for event in events if event.kind in RULES and event.payload.get("isHighest", True)]
    if told:
        known = await _gather(work, told)
        rows = [row for event in told for row in _plan(work, known, event)]
        await work.insert_or_ignore(MailMessage, rows)
        reach("mail.planned")
    last = events[-1].position
    assert last is not None, "read by its position"
    reader.position = last
    return len(events)


async def _begin(work: Work) -> None:
    """Stand at the end of all that has committed by now."""
    while await number_outbox(work) == NUMBERED_AT_ONCE:
        await work.session.flush()
    await work.session.flush()
    end = (await work.session.scalars(select(Deployment.last_position))).one()
    await work.insert_or_ignore(OutboxReader, [{"name": READER, "position": end}])


# --- what the events are about ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is read for a batch: a constant number of statements, whatever is in it."""

    accounts: Mapping[UUID, BillingAccount]
    companies: Mapping[UUID, str]
    """The address of those that have one."""
    contacts: Mapping[UUID, Sequence[Contact]]
    invoices: Mapping[str, Invoice] = field(default_factory=dict)
    requests: Mapping[str, RefundRequest] = field(default_factory=dict)
    endpoints: Mapping[str, WebhookEndpoint] = field(default_factory=dict)
    invites: Mapping[str, Invite] = field(default_factory=dict)
    plan_names: Mapping[str, str] = field(default_factory=dict)
    add_on_names: Mapping[str, str] = field(default_factory=dict)
    dunnings: Mapping[UUID, Sequence[Dunning]] = field(default_factory=dict)
    subscriptions: Mapping[UUID, Subscription] = field(default_factory=dict)


async def _gather(work: Work, events: Sequence[OutboxEvent]) -> _Known:
    account_ids = {event.account_id for event in events}
    accounts: dict[UUID, BillingAccount] = {}
    companies: dict[UUID, str] = {}
    rows = await work.session.execute(
        select(BillingAccount, Company.email)
        .outerjoin(Company, Company.account_id == BillingAccount.id)
        .where(BillingAccount.id.in_(account_ids))
    )
    for account, email in rows:
        accounts[account.id] = account
        if email:
            companies[account.id] = email
    contacts: dict[UUID, list[Contact]] = defaultdict(list)
    for contact in await work.session.scalars(
        select(Contact).where(Contact.account_id.in_(account_ids)).order_by(Contact.id)
    ):
        contacts[contact.account_id].append(contact)
    failed = {event.account_id for event in events if event.kind == "invoice.payment_failed"}
    return _Known(
        accounts=accounts,
        companies=companies,
        contacts=contacts,
        invoices=await _find(work, Invoice, _named(events, "invoiceId", {"invoice.paid"})),
        requests=await _find(work, RefundRequest, _named(events, "refundRequestId")),
        endpoints=await _find(work, WebhookEndpoint, _named(events, "endpointId", {"webhook.disabled"})),
        invites=await _find(work, Invite, _named(events, "inviteId", {"member.invited"})),
        plan_names=await _name(work, Plan, {e.payload["plan"] for e in events if "plan" in e.payload}),
        add_on_names=await _name(work, AddOn, {e.payload["addOn"] for e in events if "addOn" in e.payload}),
        dunnings=await _find_dunnings(work, {*failed, *(e.account_id for e in events if e.kind == "invoice.paid")}),
        subscriptions=await _find_subscriptions(work, failed),
    )


def _named(events: Iterable[OutboxEvent], key: str, kinds: Collection[str] | None = None) -> list[UUID]:
    return [
        UUID(event.payload[key]) for event in events if key in event.payload and (kinds is None or event.kind in kinds)
    ]


async def _find(work: Work, table: type[Any], ids: Sequence[UUID]) -> dict[str, Any]:
    if not ids:
        return {}
    return {str(row.id): row for row in await work.session.scalars(select(table).where(table.id.in_(ids)))}


async def _name(work: Work, table: type[Plan] | type[AddOn], keys: Collection[str]) -> dict[str, str]:
    if not keys:
        return {}
    rows = await work.session.execute(select(table.key, table.name).where(table.key.in_(keys)))
    return dict(rows.all())


async def _find_dunnings(work: Work, account_ids: Collection[UUID]) -> dict[UUID, list[Dunning]]:
    found: dict[UUID, list[Dunning]] = defaultdict(list)
    if account_ids:
        for row in await work.session.scalars(
            select(Dunning).where(Dunning.account_id.in_(account_ids)).order_by(Dunning.started_at.desc())
        ):
            found[row.account_id].append(row)
    return found


async def _find_subscriptions(work: Work, account_ids: Collection[UUID]) -> dict[UUID, Subscription]:
    if not account_ids:
        return {}
    rows = await work.session.scalars(select(Subscription).where(Subscription.account_id.in_(account_ids)))
    return {row.account_id: row for row in rows}


# --- what becomes of one ---------------------------------------------------------------------------------------------


def _plan(work: Work, known: _Known, event: OutboxEvent) -> Iterable[dict[str, Any]]:
    """The mails of an event, as rows."""
    account, rule, now = known.accounts[event.account_id], RULES[event.kind], work.clock.now()
    if account.test_clock_id is None and event.at < now - TELL_WITHIN:
        return
    params = _describe(known, event)
    if params is None:
        return
    row = {"account_id": account.id, "kind": rule.kind, "topic": rule.topic, "params": params, "due_at": now}
    shared = {"status": MailStatus.PENDING, "tries": 0, "failures": 0, "created_at": now, "updated_at": now}
    for mailbox, given in _address(known, event, rule, account):
        yield {
            "id": new_id(),
            "key": f"{event.id}:{mailbox}",
            "contact_id": None,
            "recipient_name": "",
            "ripe_at": None,
            **row,
            **shared,
            **given,
        }


def _address(
    known: _Known, event: OutboxEvent, rule: Rule, account: BillingAccount
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Each mailbox that an event is told to, and what its row says of that."""
    if rule.kind is MailKind.INVITATION:
        invite = known.invites[event.payload["inviteId"]]
        yield f"invite:{invite.id}", {"recipient": invite.email, "locale": invite.locale or account.locale}
        return
    wanting = [contact for contact in known.contacts.get(account.id, ()) if rule.topic in contact.topics]
    for contact in wanting:
        mailbox = f"contact:{contact.id}"
        given = {
            "contact_id": contact.id,
            "recipient": contact.email,
            "recipient_name": contact.name,
            "locale": contact.locale or account.locale,
        }
        if rule.kind is MailKind.USAGE_ALERT and contact.alert_delivery is AlertDelivery.DAILY:
            ripe_at = next_digest(event.at, account.timezone)
            given |= {
                "key": f"digest:{ripe_at.isoformat()}:{mailbox}",
                "kind": MailKind.ALERT_DIGEST,
                "params": {"until": ripe_at.isoformat()},
                "ripe_at": ripe_at,
            }
            if account.test_clock_id is None:
                given["due_at"] = ripe_at + GRACE
        yield mailbox, given
    if not wanting and rule.topic in REACHES_COMPANY and account.id in known.companies:
        yield "company", {"topic": None, "recipient": known.companies[account.id], "locale": account.locale}


def next_digest(at: datetime, zone: str) -> datetime:
    """When the day's alerts that an instant is among go out."""
    local = at.astimezone(ZoneInfo(zone))
    day = local.date() if local.time() < DIGEST_AT else local.date() + timedelta(days=1)
    return datetime.combine(day, DIGEST_AT, ZoneInfo(zone)).astimezone(at.tzinfo)


def _describe(known: _Known, event: OutboxEvent) -> Params | None:
    """What the text of an event is made of; none where there is nothing to tell."""
    payload, account = event.payload, known.accounts[event.account_id]
    at = {"at": event.at.isoformat()}
    if event.kind == "invoice.paid":
        return _describe_recovery(known, event)
    if event.kind == "invoice.payment_failed":
        is_sent = account.collection_method is CollectionMethod.SEND_INVOICE
        return {**payload, **at, **_days_of(known, event), "isSent": is_sent}
    if event.kind.startswith("refund."):
        return _describe_refund(known, event)
    if event.kind == "webhook.disabled":
        endpoint = known.endpoints.get(payload["endpointId"])
        return None if endpoint is None else {**at, "url": endpoint.url}
    if event.kind == "member.invited":
        invite = known.invites.get(payload["inviteId"])
        return None if invite is None else {**at, "inviteId": str(invite.id)}
    if event.kind.startswith("subscription.") and payload.get("step") == "PAY":
        return None  # that is told by the invoice
    names: Params = {}
    if "plan" in payload:
        names["planName"] = known.plan_names.get(payload["plan"], payload["plan"])
    if "addOn" in payload:
        names["addOnName"] = known.add_on_names.get(payload["addOn"], payload["addOn"])
    return {**at, **payload, **names, "event": event.kind}


def _describe_recovery(known: _Known, event: OutboxEvent) -> Params | None:
    """That an invoice was paid is news only after it was not."""
    invoice = known.invoices.get(event.payload["invoiceId"])
    if invoice is None or invoice.payment_failed_at is None or invoice.payment_failed_at > event.at:
        return None
    rows = known.dunnings.get(event.account_id, ())
    return {
        "number": invoice.number,
        "amountMinor": invoice.owed_minor,
        "currency": invoice.currency,
        "isSettled": all(row.ended_at is not None for row in rows),
    }


def _days_of(known: _Known, event: OutboxEvent) -> Params:
    """What follows at which instant while an invoice stays unpaid, as it stood then."""
    subscription = known.subscriptions.get(event.account_id)
    if subscription is None or (subscription.canceled_at is not None and subscription.canceled_at <= event.at):
        return {}
    running = next((row for row in known.dunnings.get(event.account_id, ()) if row.started_at <= event.at), None)
    if running is None:
        return {}
    for name, day in (("suspendsAt", running.suspend_day), ("cancelsAt", running.cancel_day)):
        if event.at < running.at(day):
            return {name: running.at(day).isoformat()}
    return {}


def _describe_refund(known: _Known, event: OutboxEvent) -> Params | None:
    request = known.requests.get(event.payload.get("refundRequestId", ""))
    if request is None:
        return None
    outcome = event.kind.removeprefix("refund.").upper()
    if outcome == "APPROVED" and request.status is RefundStatus.SUCCEEDED:
        return None  # it went through at once, and that is told
    is_asked = outcome in ("REQUESTED", "DENIED")
    return {
        "outcome": "CREDITED" if outcome == "SUCCEEDED" and "kind" not in event.payload else outcome,
        "amountMinor": request.amount_minor if is_asked else (request.approved_minor or request.amount_minor),
        "currency": request.currency,
        "reason": request.review_reason if outcome == "DENIED" else None,
    }
