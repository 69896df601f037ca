"""Unsubscribing: whoever holds a link from a mail ends that topic for that contact, without signing in."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from ..database import Actor, Database, ReadSession
from ..models import BillingAccount, Contact, ContactTopic
from .claims import Purpose, read_claim
from .documents import language_of_locale
from .edits import record_update
from .mail_texts import TOPICS
from .mailing import UNSUBSCRIBABLE

ORIGIN = "unsubscribe"


@dataclass(frozen=True)
class Subscribed:
    """What a link is about."""

    contact: Contact
    account: BillingAccount
    topic: ContactTopic

    @property
    def language(self) -> str:
        """In which the contact is written to."""
        return language_of_locale(self.contact.locale or self.account.locale)


async def find_subscribed(session: ReadSession, key: bytes, token: str, now: datetime) -> Subscribed | None:
    """What a link is about; none, without a reason, for what we did not sign, or a contact that is gone."""
    claim = read_claim(key, Purpose.UNSUBSCRIBE, token, now)
    if claim is None or claim.number >= len(TOPICS) or TOPICS[claim.number] not in UNSUBSCRIBABLE:
        return None
    row = (
        await session.execute(
            select(Contact, BillingAccount)
            .join(BillingAccount, BillingAccount.id == Contact.account_id)
            .where(Contact.id == claim.subject_id)
        )
    ).one_or_none()
    return None if row is None else Subscribed(row[0], row[1], TOPICS[claim.number])


async def unsubscribe(database: Database, subscribed: Subscribed) -> None:
    """Take the topic off the contact. Twice is once."""
    named = f"contact:{subscribed.contact.id}"
    async with database.work(Actor(name=named, origin=ORIGIN)) as work:
        account = (await work.lock_accounts([subscribed.account.id]))[subscribed.account.id]
        contact = await work.session.get(Contact, subscribed.contact.id, populate_existing=True)
        if contact is None or subscribed.topic not in contact.topics:
            return
        before = list(contact.topics)
        contact.topics = [topic for topic in before if topic != subscribed.topic]
        contact.updated_at = work.clock.now_for(account)
        record_update(
            work,
            account,
            "contact.unsubscribed",
            named,
            changed=["contacts"],
            before={"topics": before},
            after={"topics": contact.topics},
        )
