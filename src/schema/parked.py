"""Accounts whose due work waits for an operator."""

from datetime import datetime
from typing import Self

import strawberry

from .. import models
from .billing import BillingAccount
from .context import Info
from .enums import WorkKind
from .fields import field, said


@strawberry.type(description="An account whose due work failed again and again, and was parked.")
class ParkedAccount:
    """A parked account."""

    row: strawberry.Private[models.DueWork]
    kind: WorkKind = said("Which work.")
    subject: str = said("What it is for, such as a period's start.")
    due_at: datetime = said("When it was due.")
    parked_at: datetime | None = said("When it was given up.")
    tries: int = said("How often it was tried.")
    failure: str | None = said("Why the last try failed, for developers to read.")

    @classmethod
    def of(cls, row: models.DueWork) -> Self:
        """A parked account from its work."""
        return cls(
            row=row,
            kind=row.kind,
            subject=row.subject,
            due_at=row.due_at,
            parked_at=row.parked_at,
            tries=row.tries,
            failure=row.failure,
        )

    @field
    async def account(self, info: Info) -> BillingAccount:
        """Whose work it is."""
        assert self.row.account_id is not None, "what is no account's holds up none"
        account = await info.context.load.account(self.row.account_id)
        assert account is not None, "a foreign key guarantees the account"
        return BillingAccount.of(account)
