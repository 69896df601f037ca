"""I10 for mail: each is sent, given up, or has no reason to be; none waits for longer than it is tried."""

from datetime import datetime, timedelta

from sqlalchemy import func, select

from ...database import ReadSession
from ...models import BillingAccount, MailMessage, MailStatus, TestClock
from .reading import Findings, stream

WAITS_FOR = timedelta(days=4)
"""Longer than a mail is tried, and than a day whose alerts go out together."""


async def check_mails(session: ReadSession, found: Findings, now: datetime) -> None:
    """What is planned comes to an end. What waits for a day to be over does so by its account's clock."""
    statement = (
        select(MailMessage)
        .join(BillingAccount, BillingAccount.id == MailMessage.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(
            MailMessage.status == MailStatus.PENDING,
            MailMessage.created_at < now - WAITS_FOR,
            func.coalesce(MailMessage.ripe_at, now) <= func.coalesce(TestClock.now, now),
        )
        .order_by(MailMessage.id)
    )
    async for (row,) in stream(session, statement):
        found.add("I10", row.account_id, f"The mail {row.id} ({row.kind}) waits since {row.created_at}.")
    sent = (
        select(MailMessage)
        .where((MailMessage.status == MailStatus.SENT) != MailMessage.sent_at.is_not(None))
        .order_by(MailMessage.id)
    )
    async for (row,) in stream(session, sent):
        found.add("I10", row.account_id, f"The mail {row.id} ({row.kind}) is {row.status}, sent at {row.sent_at}.")
