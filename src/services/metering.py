"""Recording usage: events are counted, and what they change of closed periods is rated anew."""

from collections.abc import Sequence

from ..database import Work
from ..models import NoticeSeverity
from .access import Principal
from .budget_periods import note_blocked
from .closing import find_waiting_for_usage, refresh_drafts
from .ingestion import Asking, Blocking, take_events
from .notices import raise_notice
from .overage import APPROVAL_NOTICE
from .usage import EventResult, UsageInput


async def record_usage(
    work: Work, principal: Principal, events: Sequence[UsageInput], *, dry_run: bool = False, promised: int = 0
) -> list[EventResult]:
    """Take a batch of events: each gets a result in the order given. Late ones reach the drafts of their periods.

    The first `promised` events were reserved before: no limit stops them.
    """
    taken = await take_events(work, principal, events, dry_run=dry_run, promised=promised)
    if not dry_run:
        for refused in taken.asking:
            await ask_for_approval(work, refused)
        for stopped in taken.blocking:
            await tell_of_block(work, stopped)
    for account in await find_waiting_for_usage(work, taken.late):
        await refresh_drafts(work, account)
    return taken.results


async def tell_of_block(work: Work, blocking: Blocking) -> None:
    """Tell an account that a budget stops its usage: once in a usage period and under one limit."""
    account = (await work.lock_accounts([blocking.account_id]))[blocking.account_id]
    await note_blocked(work, account, blocking.budget_id, blocking.period_start)


async def ask_for_approval(work: Work, asking: Asking) -> None:
    """Tell an account that its usage is refused until somebody approves it: once a usage period."""
    account = (await work.lock_accounts([asking.account_id]))[asking.account_id]
    await raise_notice(
        work,
        account,
        APPROVAL_NOTICE,
        asking.metric_key,
        severity=NoticeSeverity.WARNING,
        params={
            "metric": asking.metric_key,
            "metricName": asking.metric_name,
            "limit": asking.limit,
            "periodEnd": asking.period.end,
        },
        dismissible=True,
    )
