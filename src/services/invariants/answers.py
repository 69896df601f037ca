"""I11: what was answered under an idempotency key is there, and is the key's own."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, or_, select

from ...database import ReadSession
from ...models import (
    BillingAccount,
    CreditNote,
    IdempotencyKey,
    Invoice,
    PaymentMethod,
    PendingChange,
    RefundRequest,
    Transaction,
)
from ...models.base import Entity
from ..idempotency import KEPT
from .reading import Findings, key_of_id, key_of_text, since_purge, stream

NAMED: Mapping[str, tuple[str, type[Entity]]] = {
    "accountId": ("account", BillingAccount),
    "invoiceId": ("invoice", Invoice),
    "creditNoteId": ("credit note", CreditNote),
    "transactionId": ("transaction", Transaction),
    "refundId": ("transaction", Transaction),
    "refundRequestId": ("request for a refund", RefundRequest),
    "paymentMethodId": ("payment method", PaymentMethod),
    "pendingId": ("change that waits", PendingChange),
}
"""What answers name, by the name that it has in them."""
MAKING = {
    "recordPayment": "transactionId",
    "grantCredit": "transactionId",
    "voidInvoice": "creditNoteId",
    "issueCreditNote": "creditNoteId",
    "requestRefund": "refundRequestId",
}
"""The mutations that make something each time: no two keys have the same."""


def _named(name: str) -> Any:
    return IdempotencyKey.answer[name].as_string()


async def check_answers(session: ReadSession, found: Findings, now: datetime) -> None:
    """Each id that an answer names is one of the key's account. Keys whose time is over mean nothing any more."""
    forward = since_purge()
    # Of an account whose documents were purged, answers may name what is gone.
    purged = {account_id for (account_id,) in await session.execute(select(forward.c.account_id))}
    key = IdempotencyKey
    is_live = key.created_at > now - KEPT
    for name, (kind, table) in NAMED.items():
        shown, columns = _named(name), table.__table__.c
        of_account = columns.id if table is BillingAccount else columns.account_id
        statement = (
            select(key.principal, key.mutation, key.scope, key.key, shown, columns.id)
            .outerjoin(table, key_of_id(session, columns.id) == key_of_text(session, shown))
            .where(
                is_live,
                shown.is_not(None),
                or_(
                    columns.id.is_(None),
                    and_(key.scope != "", key_of_id(session, of_account) != key_of_text(session, key.scope)),
                ),
            )
            .order_by(key.principal, key.mutation, key.scope, key.key)
        )
        async for principal, mutation, scope, own, named, row_id in stream(session, statement):
            account_id = _read_id(scope)
            if account_id in purged and row_id is None:
                continue
            what = "does not exist" if row_id is None else "is another account's"
            found.add(
                "I11",
                account_id,
                f"{mutation} of {principal} under the key {own!r} was answered with the {kind} {named}, which {what}.",
            )
    for mutation, name in MAKING.items():
        shown = _named(name)
        twice = (
            select(shown, func.count())
            .where(is_live, key.mutation == mutation, shown.is_not(None))
            .group_by(shown)
            .having(func.count() > 1)
            .order_by(shown)
        )
        async for named, count in stream(session, twice):
            found.add("I11", None, f"{count} keys of {mutation} were answered with the same {NAMED[name][0]} {named}.")


def _read_id(scope: str) -> UUID | None:
    try:
        return UUID(scope)
    except ValueError:
        return None
