"""What mutations and streams answer with: objects as they are after a commit."""

from typing import Any
from uuid import UUID

from .. import models
from ..schema.billing import BillingAccount, Invoice, Notice, PendingChange, PlanSubscription, Transaction, pending_of
from ..services.taking import Placed
from .context import Info


async def show_account(info: Info, account_id: UUID) -> BillingAccount:
    """An account, read anew."""
    info.context.forget()
    account = await info.context.load.account(account_id)
    assert account is not None, "accounts are never deleted"
    return BillingAccount.of(account)


async def show_subscription(info: Info, account_id: UUID) -> PlanSubscription | None:
    """An account's subscription; none before the first one."""
    agreement = await info.context.load.agreement(account_id)
    return None if agreement is None else PlanSubscription.of(agreement.subscription)


async def show_invoice(info: Info, invoice_id: UUID | None) -> Invoice | None:
    """An invoice by its key."""
    row = None if invoice_id is None else await info.context.load.row(models.Invoice, invoice_id)
    return None if row is None else Invoice.of(row)


async def show_transaction(info: Info, transaction_id: UUID | None) -> Transaction | None:
    """A transaction by its key."""
    row = None if transaction_id is None else await info.context.load.row(models.Transaction, transaction_id)
    return None if row is None else Transaction.of(row)


async def show_notice(info: Info, row: models.Notice) -> Notice:
    """A banner, in its account's language and at its time."""
    account = await info.context.load.account(row.account_id)
    assert account is not None, "a foreign key guarantees the account"
    return Notice.of(row, account, info.context.now_for(account))


async def _show_pending(info: Info, pending_id: UUID | None) -> PendingChange | None:
    row = None if pending_id is None else await info.context.load.row(models.PendingChange, pending_id)
    return None if row is None else await pending_of(info.context, row)


async def show_placed(info: Info, placed: Placed) -> dict[str, Any]:
    """What became of an order: the fields that all payloads of orders share."""
    return {
        "account": await show_account(info, placed.account_id),
        "subscription": await show_subscription(info, placed.account_id),
        "invoice": await show_invoice(info, placed.invoice_id),
        "transaction": await show_transaction(info, placed.transaction_id),
        "pending_change": await _show_pending(info, placed.pending_id),
    }
