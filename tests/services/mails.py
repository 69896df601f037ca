"""What the tests of mail share: contacts, a mailer that keeps what it is handed, and the post as the worker does it."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from plafond.database import Database
from plafond.models import BillingAccount, Contact, ContactTopic, MailMessage
from plafond.services.letters import Letter
from plafond.services.mail_texts import Desk
from plafond.services.mailing import plan_waiting
from plafond.services.posting import PostOffice, post_due
from plafond.services.publishing import number_waiting

from ..conftest import World
from .helpers import ACTOR

KEY = b"a key of thirty-two characters!!"
DESK = Desk("https://app.example.com/billing", "https://billing.example.com", KEY)


@dataclass
class Kept:
    """A mailer that keeps what it is handed, and fails as it is told."""

    letters: list[Letter] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    """Raised in this order before anything is taken."""

    async def send(self, letter: Letter) -> None:
        """Take it, or not."""
        if self.failures:
            raise self.failures.pop(0)
        self.letters.append(letter)

    @property
    def office(self) -> PostOffice:
        """The post by this mailer."""
        return PostOffice(self, DESK)

    def subjects(self) -> list[str]:
        """What was sent, in order."""
        return [letter.subject for letter in self.letters]


async def make_contact(world: World, account_id: UUID, email: str, *topics: ContactTopic, **given: Any) -> UUID:
    """A contact with some topics; all where none is named."""
    async with world.database.work(ACTOR) as work:
        contact = Contact(
            created_at=world.clock.now(),
            account_id=account_id,
            name=given.pop("name", "Erika Muster"),
            email=email,
            email_key=email.casefold(),
            topics=sorted(topics or ContactTopic),
            **given,
        )
        work.session.add(contact)
        return contact.id


async def plan(database: Database) -> None:
    """All that waits, as the worker does: the first time it begins at the end."""
    while await number_waiting(database, ACTOR):
        pass
    while await plan_waiting(database, ACTOR):
        pass


async def deliver(world: World, kept: Kept) -> list[Letter]:
    """Plan and send all that is due. Gives what was sent by it; PDFs are not waited for."""
    sent = len(kept.letters)
    await plan(world.database)
    stood_at = world.clock.stands_at
    while await post_due(world.database, ACTOR, kept.office):
        pass
    # Documents are not drawn here: a mail whose PDF does not come goes without it.
    world.clock.stands_at += timedelta(hours=1, minutes=1)
    while await post_due(world.database, ACTOR, kept.office):
        pass
    world.clock.stands_at = stood_at
    return kept.letters[sent:]


async def messages_of(world: World, account_id: UUID) -> list[MailMessage]:
    """What was planned for an account, in order."""
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(MailMessage).where(MailMessage.account_id == account_id).order_by(MailMessage.id)
            )
        )


async def account_of_life(world: World, external_id: str) -> BillingAccount:
    async with world.database.read() as session:
        return (await session.scalars(select(BillingAccount).where(BillingAccount.external_id == external_id))).one()
