"""I10 for mail: each is sent, given up, or has no reason to be; none waits for longer than it is tried."""

from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select

from ...database import ReadSession
from ...models import BillingAccount, MailMessage, MailStatus, TestClock
from .reading import Findings, stream

WAITS_FOR = timedelta(days=4)
"""Longer than a mail is tried, and than a day whose alerts go out together."""


async def check_mails(session: ReadSession, found: Findings, now: datetime) -> None:
    """What is planned comes to an end. What waits for a day to be over does so by its account's clock."""
    waits_too_long = and_(
        MailMessage.status == MailStatus.PENDING,
        MailMessage.created_at < now - WAITS_FOR,
        func.coalesce(MailMessage.ripe_at, now) <= func.coalesce(TestClock.now, now),
    )
    is_unclear = (MailMessage.status == MailStatus.SENT) != MailMessage.sent_at.is_not(None)
    statement = (
        select(MailMessage)
        .join(BillingAccount, BillingAccount.id == MailMessage.account_id)
        .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
        .where(or_(waits_too_long, is_unclear))
        .order_by(MailMessage.id)
    )
    async for (row,) in stream(session, statement):
        said = (
            f"waits since {row.created_at}"
            if row.status is MailStatus.PENDING
            else f"is {row.status}, and was sent at {row.sent_at}"
        )
        found.add("I10", row.account_id, f"The mail {row.id} ({row.kind}) {said}.")
