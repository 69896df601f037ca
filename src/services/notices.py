"""Banners: raised with their cause, put away by people, gone when the cause is."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select

from ..database import Work
from ..models import BillingAccount, Notice, NoticeSeverity, Role
from .access import Principal
from .edits import record_update
from .errors import Conflict, NotFound
from .texts import NOTICE_CODES

UNKNOWN_NOTICE = "There is no such notice any more, or it is not yours."


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a notice says."""

    severity: NoticeSeverity
    params: dict[str, Any]
    dismissible: bool = False
    for_operators: bool = False

    def columns(self, account: BillingAccount) -> dict[str, Any]:
        """As it is stored. Instants keep the offset of the account's zone, so that the day in the text is its own."""
        return {
            "severity": self.severity,
            "params": _write(self.params, account.timezone),
            "dismissible": self.dismissible,
            "for_operators": self.for_operators,
        }


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

    A standing one is updated, and comes back when it was put away, if it says something new.
    """
    said = Said(severity=severity, params=params, dismissible=dismissible, for_operators=for_operators)
    notice = await _find(work, account, code, subject)
    if notice is None:
        return raise_new(work, account, code, subject, said)
    return change_notice(work, account, notice, said)


def raise_new(work: Work, account: BillingAccount, code: str, subject: str, said: Said) -> Notice:
    """Tell a locked account what it was not told yet."""
    assert code in NOTICE_CODES, f"nobody can read {code}"
    now = work.clock.now_for(account)
    notice = Notice(created_at=now, account_id=account.id, code=code, subject=subject, **said.columns(account))
    work.session.add(notice)
    _tell(work, account, notice)
    return notice


def change_notice(work: Work, account: BillingAccount, notice: Notice, said: Said, *, is_news: bool = True) -> Notice:
    """Let a standing notice of a locked account say something else; what is news brings it back if it was put away."""
    columns = said.columns(account)
    if all(getattr(notice, column) == value for column, value in columns.items()):
        return notice
    for column, value in columns.items():
        setattr(notice, column, value)
    if is_news:
        notice.dismissed_at = None
    notice.updated_at = work.clock.now_for(account)
    _tell(work, account, notice)
    return notice


async def clear_notice(work: Work, account: BillingAccount, code: str, subject: str = "") -> None:
    """Take a notice of a locked account away, because its cause is gone."""
    notice = await _find(work, account, code, subject)
    if notice is not None:
        await clear_standing(work, account, notice)


async def clear_notices(
    work: Work, account: BillingAccount, codes: Collection[str], *, but: Collection[str] = ()
) -> None:
    """Take all notices with some codes away from a locked account, but for some subjects."""
    for notice in await work.session.scalars(
        select(Notice).where(Notice.account_id == account.id, Notice.code.in_(codes), Notice.subject.not_in(but))
    ):
        await clear_standing(work, account, notice)


async def clear_standing(work: Work, account: BillingAccount, notice: Notice) -> None:
    """Take a notice away that was read already."""
    await work.session.delete(notice)
    _tell(work, account, notice)


async def dismiss_notice(work: Work, account_id: UUID, notice_id: UUID) -> BillingAccount:
    """Put a notice away for everybody of the account. Whose it is, is the caller's to check."""
    path = ["input", "noticeId"]
    account = (await work.lock_accounts([account_id])).get(account_id)
    notice = await work.session.scalar(select(Notice).where(Notice.id == notice_id, Notice.account_id == account_id))
    if account is None or notice is None:
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
            about=_describe(notice),
        )
    return account


def is_meant_for(principal: Principal, notice: Notice) -> bool:
    """Whether a caller who may read the account may read this too: some notices are for operators only."""
    return not notice.for_operators or is_operator_of(principal, notice.account_id)


def is_operator_of(principal: Principal, account_id: UUID) -> bool:
    """Whether a caller reads what is for operators only."""
    return principal.role_in(account_id) is Role.OPERATOR


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
        {"accountId": str(account.id), "changed": ["notices"], **_describe(notice)},
    )


def _describe(notice: Notice) -> dict[str, Any]:
    """Which notice, and for whom: also when it is gone."""
    return {"noticeId": str(notice.id), "forOperators": notice.for_operators}
