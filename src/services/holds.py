"""Legal holds: while one stands, nothing of an account is purged, and its data is not deleted."""

from uuid import UUID

from ..database import Work
from ..models import BillingAccount, WorkKind
from . import inputs
from .accounts import lock_account
from .due_work import take_up_vain

MAX_REASON = 500
WAITS = (WorkKind.PURGE, WorkKind.EXPIRE_ACCOUNT)
"""What a hold makes vain, and is done when it is lifted."""


async def set_legal_hold(work: Work, account_id: UUID, reason: str | None) -> BillingAccount:
    """Keep all of an account, for a reason; or no longer: then what was due meanwhile goes."""
    account = await lock_account(work, account_id)
    if reason is not None:
        reason = inputs.check_text(reason, ["input", "reason"], at_most=MAX_REASON)
    if account.legal_hold == reason:
        return account
    account.legal_hold = reason
    if reason is None:
        await take_up_vain(work, account, WAITS)
    # The tenant reads this log too, and the reason is not theirs to know: it stands with the account, for operators.
    work.audit(account, "legal_hold.set" if reason is not None else "legal_hold.lifted", f"legal_hold:{account.id}")
    return account
