"""F5: workers are killed around mail: each event is told to each mailbox, under one Message-ID however often."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from plafond.database import Database
from plafond.models import BillingAccount, Contact, ContactTopic, MailMessage, MailStatus, OutboxEvent, OutboxReader
from plafond.worker import POSTING_AT_ONCE

from ..adapters.mail_server import Inbox, run_server
from .conftest import Due
from .runner import RUNNER, Processes, until

EVENTS = 6
MAILBOXES = 2


async def prepare(database: Database) -> None:
    """An account with two contacts."""
    async with database.work(RUNNER) as work:
        account = (await work.session.scalars(select(BillingAccount).order_by(BillingAccount.id).limit(1))).one()
        now = work.clock.now()
        for number in range(MAILBOXES):
            email = f"contact-{number}@example.com"
            work.session.add(
                Contact(
                    created_at=now,
                    account_id=account.id,
                    name="Contact",
                    email=email,
                    email_key=email,
                    topics=[ContactTopic.SUBSCRIPTION_CHANGES],
                )
            )


async def happen(database: Database) -> None:
    """Something to tell, some times."""
    async with database.read() as session:
        account_id = (await session.scalars(select(Contact.account_id).limit(1))).one()
    for _ in range(EVENTS):
        async with database.work(RUNNER) as work:
            account = (await work.lock_accounts([account_id]))[account_id]
            work.emit(account, "subscription.resumed", {"step": "RESUME"})


async def pass_minutes(database: Database) -> None:
    """As if leases had run out."""
    async with database.work(RUNNER) as work:
        await work.session.execute(
            update(MailMessage).where(MailMessage.status == MailStatus.PENDING).values(leased_until=None)
        )


async def is_read(database: Database) -> bool:
    """Whether the reader stands at the end."""
    async with database.read() as session:
        end = await session.scalar(select(func.max(OutboxEvent.position)))
        waiting = await session.scalar(select(func.count()).where(OutboxEvent.position.is_(None)))
        place = await session.scalar(select(OutboxReader.position).where(OutboxReader.name == "mail"))
    return not waiting and place == end


async def are_sent(database: Database, count: int) -> bool:
    """Whether all mails of the contacts are sent."""
    async with database.read() as session:
        states = (
            await session.scalars(select(MailMessage.status).where(MailMessage.recipient.startswith("contact-")))
        ).all()
    return len(states) == count and set(states) == {MailStatus.SENT}


def count_ids(inbox: Inbox) -> Counter[str]:
    """How often each Message-ID came."""
    return Counter(str(message["Message-ID"]) for message in inbox.messages)


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        pytest.param("mail.planned:kill", 0, 0, marks=pytest.mark.slow),
        pytest.param("mail.before_send:kill", 0, 0, marks=pytest.mark.slow),
        pytest.param("mail.after_send:kill", 1, POSTING_AT_ONCE, marks=pytest.mark.slow),
    ],
)
async def test_a_worker_dies_around_mail(
    due: Due, database: Database, tmp_path: Path, fault: str, least: int, most: int
) -> None:
    await prepare(database)
    async with run_server() as inbox:
        settings = {"smtp_url": f"smtp://127.0.0.1:{inbox.port}?tls=off"}
        with Processes(due.address, tmp_path) as processes:
            first = processes.start_worker(settings=settings)
            await until(lambda: is_read(database))
            await processes.kill(first)
            inbox.messages.clear()
            before = len(await sent_before(database))
            await happen(database)
            dying = processes.start_worker(fault, settings=settings)
            await processes.see_end(dying)
            await pass_minutes(database)
            processes.start_worker(settings=settings)
            processes.start_worker(settings=settings)
            await until(lambda: are_sent(database, before + EVENTS * MAILBOXES))
    mine = [message for message in inbox.messages if "contact-" in str(message["To"])]
    inbox.messages[:] = mine
    counted = count_ids(inbox)
    assert len(counted) == EVENTS * MAILBOXES
    # Only what was under way as the process died comes twice, and is recognised by its id.
    assert least <= sum(counted.values()) - len(counted) <= most
    assert max(counted.values()) <= 2


async def sent_before(database: Database) -> list[str]:
    """What went to the contacts already."""
    async with database.read() as session:
        return list(await session.scalars(select(MailMessage.key).where(MailMessage.recipient.startswith("contact-"))))


@pytest.mark.slow
async def test_a_server_that_says_no_and_then_yes_gets_it_once(due: Due, database: Database, tmp_path: Path) -> None:
    """451 first; the mail waits, and comes once, under the id that it had."""
    await prepare(database)
    async with run_server() as inbox:
        inbox.to_data = ["451 later"]
        settings = {"smtp_url": f"smtp://127.0.0.1:{inbox.port}?tls=off"}
        with Processes(due.address, tmp_path) as processes:
            processes.start_worker(settings=settings)
            await until(lambda: is_read(database))
            before = len(await sent_before(database))
            await happen(database)

            async def come() -> bool:
                async with database.work(RUNNER) as work:
                    await work.session.execute(
                        update(MailMessage)
                        .where(MailMessage.status == MailStatus.PENDING, MailMessage.failures > 0)
                        .values(due_at=work.clock.now())
                    )
                return await are_sent(database, before + EVENTS * MAILBOXES)

            await until(come)
    assert inbox.to_data == []
    assert set(count_ids(inbox).values()) == {1}
