"""Posting: each mail is handed over once, and tried again for days where nobody takes it."""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, update

from ..database import Actor, Database, Work
from ..faults import reach
from ..models import BillingAccount, MailKind, MailMessage, MailStatus, Notice, NoticeSeverity, TestClock
from .mail_texts import Desk, NotYet, write_letter
from .notices import clear_notice, raise_notice
from .ports import MailDeferred, Mailer, MailRefused

log = logging.getLogger("plafond.mail")

LEASE = timedelta(minutes=2)
"""How long whoever takes a mail may hold it: longer than a mailer may take."""
TRIED_FOR = timedelta(days=3)
FIRST_PAUSE_S = 30
LONGEST_PAUSE_S = 2 * 3_600
LOOK_AGAIN = timedelta(seconds=15)
"""When a mail whose PDF is not drawn yet is looked at again."""
FAILED_NOTICE = "MAIL_FAILED"


@dataclass(frozen=True)
class PostOffice:
    """What sending takes: who hands mails over, and where their links lead."""

    mailer: Mailer
    desk: Desk


async def post_due(database: Database, actor: Actor, office: PostOffice, *, limit: int = 10) -> int:
    """Send what is due, one after the other. Gives how many were taken: 0 means that nothing waits."""
    for count in range(limit):
        # One at a time: the lease begins when its sending does.
        if not await _has_due(database):
            return count
        taken = await database.run(actor, _take)
        if taken is None:
            return count
        await _try_to_post(database, actor, office, taken)
    return limit


def _is_due(now: datetime) -> Sequence[ColumnElement[bool]]:
    return (
        MailMessage.status == MailStatus.PENDING,
        MailMessage.due_at <= now,
        or_(MailMessage.leased_until.is_(None), MailMessage.leased_until <= now),
        or_(MailMessage.ripe_at.is_(None), MailMessage.ripe_at <= func.coalesce(TestClock.now, now)),
    )


async def _has_due(database: Database) -> bool:
    """Asked without the writers' lock."""
    async with database.read() as session:
        found = await session.scalar(
            select(MailMessage.id)
            .join(BillingAccount, BillingAccount.id == MailMessage.account_id)
            .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
            .where(*_is_due(database.clock.now()))
            .limit(1)
        )
    return found is not None


async def _take(work: Work) -> MailMessage | None:
    """Take the mail that is due longest. One that another worker is taking at this moment is passed over."""
    now = work.clock.now()
    message: MailMessage | None = await work.session.scalar(
        select(MailMessage)
        .join(BillingAccount, BillingAccount.id == MailMessage.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(*_is_due(now))
        .order_by(MailMessage.due_at, MailMessage.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=MailMessage)
    )
    if message is not None:
        message.leased_until, message.tries = now + LEASE, message.tries + 1
    return message


async def _try_to_post(database: Database, actor: Actor, office: PostOffice, message: MailMessage) -> None:
    try:
        async with database.read() as session:
            letter = await write_letter(session, message, office.desk, database.clock.now())
        if letter is None:
            await _settle(database, actor, message, status=MailStatus.DROPPED)
            return
        reach("mail.before_send")
        await office.mailer.send(letter)
        reach("mail.after_send")
        await _settle(database, actor, message, status=MailStatus.SENT, sent_at=database.clock.now(), failure=None)
    except NotYet:
        await _settle(database, actor, message, due_at=database.clock.now() + LOOK_AGAIN)
    except MailRefused as refusal:
        await _give_up(database, actor, message, str(refusal))
    except MailDeferred as reason:
        log.info("mail %s could not be handed over, try %d: %s", message.id, message.tries, reason)
        await _put_off(database, actor, message, str(reason))
    except Exception as failure:
        log.exception("mail %s could not be written or sent, try %d", message.id, message.tries)
        await _put_off(database, actor, message, f"{type(failure).__name__}: {failure}")


async def _put_off(database: Database, actor: Actor, message: MailMessage, failure: str) -> None:
    """Try again after a pause that doubles, for three days."""
    now, failures = database.clock.now(), message.failures + 1
    if now >= message.created_at + TRIED_FOR:
        await _give_up(database, actor, message, failure)
        return
    pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_S)
    pause *= random.uniform(0.9, 1.1)  # noqa: S311  # not a secret: so that not all come at once again
    due_at = now + timedelta(seconds=pause)
    await _settle(database, actor, message, due_at=due_at, failures=failures, failure=failure[:500])


async def _settle(database: Database, actor: Actor, message: MailMessage, **values: Any) -> None:
    """Write down what became of a mail. A holder whose time ran out writes nothing."""
    if not await database.run(actor, _write_down, message, values):
        log.warning("mail %s was taken over by another worker", message.id)


async def _write_down(work: Work, message: MailMessage, values: dict[str, Any]) -> bool:
    if values.get("status") is MailStatus.SENT:
        await _clear_failure(work, message)
    done = await work.session.execute(
        update(MailMessage)
        .where(
            MailMessage.id == message.id,
            MailMessage.tries == message.tries,
            MailMessage.status == MailStatus.PENDING,
        )
        .values(leased_until=None, updated_at=work.clock.now(), **values)
        .returning(MailMessage.id)
        .execution_options(synchronize_session=False)
    )
    return done.first() is not None


async def _give_up(database: Database, actor: Actor, message: MailMessage, failure: str) -> None:
    """It will not be sent: operators are told, once for each mailbox."""
    log.warning("mail %s failed for good: %s", message.id, failure)
    await database.run(actor, _fail, message, failure)


async def _fail(work: Work, message: MailMessage, failure: str) -> None:
    account = (await work.lock_accounts([message.account_id]))[message.account_id]
    if await _write_down(work, message, {"status": MailStatus.FAILED, "failure": failure[:500]}):
        await raise_notice(
            work,
            account,
            FAILED_NOTICE,
            mailbox_of(message),
            severity=NoticeSeverity.WARNING,
            params={"mail": str(message.id), "kind": message.kind, "failure": failure[:200]},
            for_operators=True,
            dismissible=True,
        )


async def _clear_failure(work: Work, message: MailMessage) -> None:
    """What reaches a mailbox again ends the notice that nothing did."""
    mailbox = mailbox_of(message)
    standing = await work.session.scalar(
        select(Notice.id).where(
            Notice.account_id == message.account_id, Notice.code == FAILED_NOTICE, Notice.subject == mailbox
        )
    )
    if standing is not None:
        account = (await work.lock_accounts([message.account_id]))[message.account_id]
        await clear_notice(work, account, FAILED_NOTICE, mailbox)


def mailbox_of(message: MailMessage) -> str:
    """Which mailbox a mail goes to, without its address: `contact:ID`, `company` or `invite:ID`."""
    if message.contact_id is not None:
        return f"contact:{message.contact_id}"
    return f"invite:{UUID(message.params['inviteId'])}" if message.kind is MailKind.INVITATION else "company"
