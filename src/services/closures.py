"""Closing an account for good: its plan ends at once, without credit, and 90 days later its data is deleted."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import select

from ..database import Work
from ..models import BillingAccount, PendingChange, PendingStatus, WorkKind
from .access import Principal, Right
from .alerts import resolve_all
from .decisions import check_action, now_of
from .due_work import enqueue
from .endings import end_now
from .errors import ChangeIsPending, InvalidInput
from .idempotency import Request
from .orders import do_once_after_drafts
from .permissions import Action
from .rules.transitions import RUNNING
from .settlement import expire_pending
from .spikes import resolve_spikes
from .standing import Standing
from .subscriptions import KEPT_AFTER_CANCELING
from .taking import Placed
from .tills import Till


class _ChangesWait(Exception):
    """Changes wait for their payment, and have to be given up before."""

    def __init__(self, pending_ids: Sequence[UUID]) -> None:
        super().__init__(pending_ids)
        self.pending_ids = pending_ids


async def close_account(
    till: Till, principal: Principal, request: Request, account_id: UUID, confirm: str, reason: str
) -> Placed:
    """Close an account, once it was named again by `confirm`. What waits of changes is given up."""
    act = partial(_close, confirm=confirm, reason=reason)

    async def close() -> Placed:
        return await do_once_after_drafts(
            till, principal, request, "closeBillingAccount", account_id, act, right=Right.ADMINISTER
        )

    try:
        return await close()
    except _ChangesWait as waiting:
        for pending_id in waiting.pending_ids:
            await expire_pending(till, account_id, pending_id)
    try:
        return await close()
    except _ChangesWait:
        raise ChangeIsPending(
            "A change is being paid, and nobody knows yet whether it was: ask again in a moment.",
            ["input", "accountId"],
        ) from None


async def _close(work: Work, standing: Standing, confirm: str, reason: str) -> Placed:
    account, subscription = standing.account, standing.subscription
    check_action(standing, Action.CLOSE_ACCOUNT)
    _check_name(account, confirm)
    pending = await work.session.scalars(
        select(PendingChange.id).where(
            PendingChange.account_id == account.id, PendingChange.status == PendingStatus.PENDING
        )
    )
    if pending_ids := pending.all():
        raise _ChangesWait(pending_ids)
    at = now_of(work, account)
    if subscription is not None and subscription.status in RUNNING:
        await end_now(work, standing, at, prorated=False, reason=reason)
    elif subscription is None:
        await enqueue(work, account, WorkKind.EXPIRE_ACCOUNT, at.isoformat(), at + KEPT_AFTER_CANCELING)
    await resolve_all(work, account)
    await resolve_spikes(work, account)
    account.closed_at = at
    account.updated_at = work.clock.now_for(account)
    work.audit(
        account,
        "account.closed",
        f"billing_account:{account.id}",
        after={"closedAt": at.isoformat(), "reason": reason},
    )
    work.emit(account, "account.closed", {"accountId": str(account.id), "changed": ["status"]})
    return Placed(account_id=account.id)


def _check_name(account: BillingAccount, confirm: str) -> None:
    if confirm not in (account.name, account.external_id):
        raise InvalidInput(
            "`confirm` is the account's name or `externalId`, letter by letter: closing cannot be undone.",
            ["input", "confirm"],
        )
