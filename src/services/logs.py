"""The deployment's own audit log: what changed of no account."""

from sqlalchemy import Select, select

from ..models import AuditEntry
from .relations import AuditFilter

ORDER = "auditLog of the deployment"
ORDER_KINDS = (int,)


def list_entries(chosen: AuditFilter) -> Select[AuditEntry]:
    """The entries, newest first."""
    return (
        select(AuditEntry)
        .where(AuditEntry.account_id.is_(None), *chosen.conditions())
        .order_by(AuditEntry.number.desc())
    )
