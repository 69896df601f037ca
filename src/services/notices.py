"""Banners: raised with their cause, put away by people, gone when the cause is."""

from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select

from ..database import Work
from ..models import BillingAccount, Notice, NoticeSeverity, Role
from .access import Principal
from .accounts import lock_account
from .edits import record_update
from .errors import Conflict, NotFound
from .texts import NOTICE_CODES

UNKNOWN_NOTICE = "There is no such notice any more, or it is not yours."


async def raise_notice(
    work: Work,
    account: BillingAccount,
    code: str,
    subject: str = "",
    *,
    severity: NoticeSeverity,
    params: dict[str, Any],
    dismissible: bool = False,
    for_operators: bool = False,
) -> Notice:
    """Tell a locked account, or only operators, about something. There is one notice per code and subject.

    A standing one is updated, and comes back when it was put away, if it says something new. Instants among `params`
    are kept with the offset of the account's zone, so that the day in the text is the account's.
    """
    assert code in NOTICE_CODES, f"nobody can read {code}"
    now = work.clock.now_for(account)
    said = {
        "severity": severity,
        "params": _write(params, account.timezone),
        "dismissible": dismissible,
        "for_operators": for_operators,
    }
    notice = await _find(work, account, code, subject)
    if notice is None:
        notice = Notice(created_at=now, account_id=account.id, code=code, subject=subject, **said)
        work.session.add(notice)
    elif all(getattr(notice, column) == value for column, value in said.items()):
        return notice
    else:
        for column, value in said.items():
            setattr(notice, column, value)
        notice.dismissed_at = None
        notice.updated_at = now
    _tell(work, account, notice)
    return notice


async def clear_notice(work: Work, account: BillingAccount, code: str, subject: str = "") -> None:
    """Take a notice of a locked account away, because its cause is gone."""
    notice = await _find(work, account, code, subject)
    if notice is not None:
        await work.session.delete(notice)
        _tell(work, account, notice)


async def dismiss_notice(work: Work, account_id: UUID, notice_id: UUID) -> BillingAccount:
    """Put a notice away for everybody of the account. Whose it is, is the caller's to check."""
    path = ["input", "noticeId"]
    account = await lock_account(work, account_id)
    notice = await work.session.scalar(select(Notice).where(Notice.id == notice_id, Notice.account_id == account.id))
    if notice is None:
        raise NotFound(UNKNOWN_NOTICE, path)
    if not notice.dismissible:
        raise Conflict("This notice stays until its cause is gone: `actions` says what to do about it.", path)
    if notice.dismissed_at is None:
        notice.dismissed_at = notice.updated_at = work.clock.now_for(account)
        record_update(
            work,
            account,
            "notice.dismissed",
            f"notice:{notice.id}",
            changed=["notices"],
            after={"code": notice.code, "subject": notice.subject},
        )
    return account


def is_meant_for(principal: Principal, notice: Notice) -> bool:
    """Whether a caller who may read the account may read this too: some notices are for operators only."""
    return not notice.for_operators or principal.role_in(notice.account_id) is Role.OPERATOR


async def _find(work: Work, account: BillingAccount, code: str, subject: str) -> Notice | None:
    found: Notice | None = await work.session.scalar(
        select(Notice).where(Notice.account_id == account.id, Notice.code == code, Notice.subject == subject)
    )
    return found


def _write(value: Any, zone: str) -> Any:
    """As JSON keeps it."""
    if isinstance(value, datetime):
        return value.astimezone(ZoneInfo(zone)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _write(item, zone) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_write(item, zone) for item in value]
    return value


def _tell(work: Work, account: BillingAccount, notice: Notice) -> None:
    work.emit(
        account,
        "account.updated",
        {"accountId": str(account.id), "changed": ["notices"], "noticeId": str(notice.id)},
    )
