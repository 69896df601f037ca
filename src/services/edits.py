"""Changing a row under its account's lock, and saying what changed."""

from collections.abc import Collection
from datetime import date
from typing import Any

from ..database import Work
from ..models import BillingAccount, Entity

_NAMES = {"pairs": "metadata"}
"""Columns whose name is not the API's in another spelling."""


def set_columns(row: Entity, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set the columns that differ. Gives what they were and what they are, as the audit log shows it."""
    changed = {column: value for column, value in values.items() if getattr(row, column) != value}
    before = describe_columns({column: getattr(row, column) for column in changed})
    for column, value in changed.items():
        setattr(row, column, value)
    return before, describe_columns(changed)


def describe_columns(values: dict[str, Any]) -> dict[str, Any]:
    """Columns as the audit log shows them: by the API's names, dates as texts."""
    return {
        _name_column(column): value.isoformat() if isinstance(value, date) else value
        for column, value in values.items()
    }


def _name_column(column: str) -> str:
    head, *rest = _NAMES.get(column, column).split("_")
    return head + "".join(word.capitalize() for word in rest)


def record_update(
    work: Work,
    account: BillingAccount,
    action: str,
    subject: str,
    *,
    changed: Collection[str],
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """Audit and tell what changed of a locked account; `changed` names its fields, `about` says more to who is told."""
    account.updated_at = work.clock.now_for(account)
    work.audit(account, action, subject, before=before, after=after)
    work.emit(account, "account.updated", {"accountId": str(account.id), "changed": sorted(changed), **(about or {})})
