"""The one clock that all rules take their time from."""

from datetime import UTC, datetime
from typing import Protocol

from .models import BillingAccount


class Clock(Protocol):
    """Tells the time. Tests and the seeder bring their own."""

    def now(self) -> datetime:
        """The wall clock, in UTC: for tokens, leases and what belongs to no account."""
        ...

    def now_for(self, account: BillingAccount) -> datetime:
        """The time that holds for an account: its test clock's, or the wall clock's."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_for(self, account: BillingAccount) -> datetime:
        return account.test_clock.now if account.test_clock else self.now()


class SetClock(SystemClock):
    """A clock that stands where it was put."""

    def __init__(self, now: datetime) -> None:
        self.stands_at = now

    def now(self) -> datetime:
        return self.stands_at
