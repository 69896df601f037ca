"""Recording usage: events are counted, and what they change of closed periods is rated anew."""

from collections.abc import Sequence

from ..database import Work
from .access import Principal
from .closing import find_waiting_for_usage, refresh_drafts
from .ingestion import take_events
from .usage import EventResult, UsageInput


async def record_usage(
    work: Work, principal: Principal, events: Sequence[UsageInput], *, dry_run: bool = False
) -> list[EventResult]:
    """Take a batch of events: each gets a result in the order given. Late ones reach the drafts of their periods."""
    taken = await take_events(work, principal, events, dry_run=dry_run)
    for account in await find_waiting_for_usage(work, taken.late):
        await refresh_drafts(work, account)
    return taken.results
