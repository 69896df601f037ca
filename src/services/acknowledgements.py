"""Saying that alerts were seen: who, and when. The first who says so stays."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import Alert, BillingAccount
from .accounts import lock_account
from .alerts import Step, describe_alert, event_of
from .errors import InvalidInput, NotFound, Refusals

MAX_ALERTS = 100
"""How many alerts are acknowledged at once."""


async def acknowledge_alerts(work: Work, account_id: UUID, ids: Sequence[UUID | None]) -> BillingAccount:
    """Note of alerts of an account that they were seen, open or not. Whose account it is, is the caller's to check.

    What is no alert of the account refuses them all, with the places of those.
    """
    path = ["input", "ids"]
    if not 1 <= len(ids) <= MAX_ALERTS:
        raise InvalidInput(f"Name 1 to {MAX_ALERTS} alerts.", path)
    account = await lock_account(work, account_id)
    known = {
        alert.id: alert
        for alert in await work.session.scalars(
            select(Alert)
            .where(Alert.account_id == account.id, Alert.id.in_({id_ for id_ in ids if id_ is not None}))
            .order_by(Alert.sequence)
        )
    }
    missing = [index for index, id_ in enumerate(ids) if id_ not in known]
    if missing:
        raise Refusals(
            [NotFound("There is no such alert, or it is another account's.", [*path, str(at)]) for at in missing]
        )
    now = work.clock.now_for(account)
    fresh = [alert for alert in known.values() if alert.acknowledged_at is None]
    for alert in fresh:
        alert.acknowledged_at = alert.updated_at = now
        alert.acknowledged_by = work.actor.name
        work.emit(account, event_of(alert.kind, Step.ACKNOWLEDGED), describe_alert(alert))
    if fresh:
        work.audit(
            account,
            "alerts.acknowledged",
            f"billing_account:{account.id}",
            after={"alerts": [str(alert.id) for alert in fresh]},
        )
    return account
