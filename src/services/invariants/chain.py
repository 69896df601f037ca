"""I13: the audit log is as it was written."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from ...database import ReadSession, hash_audit_entry
from ...models import (
    AuditEntry,
    BillingAccount,
)
from .reading import Findings, show_digest, stream


async def check_chain(session: ReadSession, found: Findings) -> None:
    """Each account's entries are numbered from 1, each hashed with the one before, up to what the account remembers."""
    statement = (
        select(BillingAccount.id, BillingAccount.audit_count, BillingAccount.audit_hash, AuditEntry)
        .outerjoin(AuditEntry, AuditEntry.account_id == BillingAccount.id)
        .order_by(BillingAccount.id, AuditEntry.number)
    )
    chain = _Chain()
    async for account_id, count, digest, entry in stream(session, statement):
        if account_id != chain.account_id:
            chain.end(found)
            chain = _Chain(account_id, count, digest)
        if entry is not None:
            chain.add(entry, found)
    chain.end(found)


@dataclass
class _Chain:
    """One account's entries as they are read. Only its first break is told: all that follows stands on it."""

    account_id: UUID | None = None
    count: int = 0
    digest: str = ""
    number: int = 0
    hash: str = ""
    is_broken: bool = False

    def add(self, entry: AuditEntry, found: Findings) -> None:
        if self.is_broken:
            return
        self.number += 1
        if entry.number != self.number:
            self._break(found, f"The audit log has the entry {entry.number} where {self.number} should be.")
        elif entry.previous_hash != self.hash:
            self._break(found, f"The audit entry {entry.number} does not follow from the one before it.")
        elif hash_audit_entry(entry) != entry.hash:
            self._break(found, f"The audit entry {entry.number} ({entry.action}) is not what was written.")
        self.hash = entry.hash

    def end(self, found: Findings) -> None:
        if not self.is_broken and (self.number, self.hash) != (self.count, self.digest):
            self._break(
                found,
                f"The audit log ends with entry {self.number} ({show_digest(self.hash)}), and the account remembers "
                f"{self.count} ({show_digest(self.digest)}).",
            )

    def _break(self, found: Findings, what: str) -> None:
        self.is_broken = True
        found.add("I13", self.account_id, what)
