"""Expiry: 90 days after it was cancelled or closed, an account's data is deleted; invoices and books stay."""

import secrets
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import CursorResult, delete, or_, select, update

from ..database import ACCESS_TOPIC, Work, hash_details
from ..models import (
    Alert,
    AlertThreshold,
    ApiKey,
    ApiKeyAccount,
    AuditEntry,
    Base,
    BillingAccount,
    Budget,
    BudgetPeriod,
    Company,
    Contact,
    Counter,
    DeliveryStatus,
    DueWork,
    EffectiveLimit,
    Export,
    ExportPart,
    IdempotencyKey,
    Invite,
    MailMessage,
    Member,
    Notice,
    OverageApproval,
    OverageSetting,
    OwnershipTransfer,
    PaymentMethod,
    PurgePass,
    Quote,
    RecommendationDismissal,
    Reservation,
    ScheduledChange,
    Subscription,
    SubscriptionAddOn,
    SubscriptionStatus,
    TaxExemption,
    UsageCost,
    UsageEvent,
    UsageEventId,
    UsagePeriod,
    UsageRating,
    UsageRollup,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WorkKind,
)
from .due_work import Taken, finish, mark_vain
from .keys import end_openings
from .rules.transitions import Step
from .subscriptions import find_subscription, note_step
from .tills import Till

ERASED_NAME = "Erased person"
ERASED_TOKEN = "erased:"  # noqa: S105  # no secret
ERASED_ISSUER = "erased"
DELETED: tuple[type[Base], ...] = (
    UsageEvent,
    UsageEventId,
    UsageRollup,
    UsageRating,
    UsagePeriod,
    UsageCost,
    Counter,
    Reservation,
    OverageSetting,
    OverageApproval,
    Alert,
    AlertThreshold,
    Notice,
    Quote,
    BudgetPeriod,
    Budget,
    RecommendationDismissal,
    EffectiveLimit,
    ScheduledChange,
    SubscriptionAddOn,
    ExportPart,
    Export,
    MailMessage,
    Contact,
    Invite,
    OwnershipTransfer,
    ApiKeyAccount,
    Company,
    TaxExemption,
)
"""What has an account and goes with its data, in an order that foreign keys allow."""
OF_BOOKS = (
    "legal_hold:",
    "invoice:",
    "credit_note:",
    "transaction:",
    "refund_request:",
    "subscription:",
    "document:",
    "ledger",
)
"""How what the books rest on is named in the audit log: its details stay with them."""
ENDED_WORK = (WorkKind.WRITE_EXPORT, WorkKind.RECKON_SPEND, WorkKind.UPGRADE_PLAN, WorkKind.REMIND)
"""Work for what is deleted."""


async def expire_account(till: Till, taken: Taken) -> None:
    """Have the processor forget the cards, then delete the data. Each may be done twice; the second ends the work."""
    for token in await _list_tokens(till, taken):
        await till.processor.detach_method(token)
    await till.run(_expire, taken)


async def _list_tokens(till: Till, taken: Taken) -> list[str]:
    async with till.database.read() as session:
        account = await session.get_one(BillingAccount, taken.account_id)
        subscription = await session.scalar(select(Subscription).where(Subscription.account_id == account.id))
        if account.legal_hold is not None or not _is_over(account, subscription, taken.subject):
            return []
        return list(
            await session.scalars(
                select(PaymentMethod.processor_token).where(
                    PaymentMethod.account_id == account.id, ~PaymentMethod.processor_token.startswith(ERASED_TOKEN)
                )
            )
        )


def _is_over(account: BillingAccount, subscription: Subscription | None, since: str) -> bool:
    """Whether an account is still over since an instant: it may have come back."""
    if subscription is None:
        ended = account.closed_at
    else:
        ended = subscription.canceled_at if subscription.status is SubscriptionStatus.CANCELED else None
    return ended is not None and ended.isoformat() == since


async def _expire(work: Work, taken: Taken) -> None:
    account = (await work.lock_accounts([taken.account_id]))[taken.account_id]
    await finish(work, taken)
    subscription = await find_subscription(work, account)
    if not _is_over(account, subscription, taken.subject):
        return
    if account.legal_hold is not None:
        await mark_vain(work, account, WorkKind.EXPIRE_ACCOUNT, taken.subject)
        return
    if subscription is not None:
        before = subscription.status
        subscription.status = SubscriptionStatus.EXPIRED
        note_step(work, account, subscription, Step.EXPIRE, before, event="subscription.expired")
    await delete_data(work, account)


async def delete_data(work: Work, account: BillingAccount) -> None:
    """Delete of a locked account all that is not its books. Who its members were is not to be found out any more."""
    session, now = work.session, work.clock.now_for(account)
    gone: dict[str, int] = {}

    async def drop(table: type[Base], *where: object) -> None:
        result = await session.execute(delete(table).where(*where))  # type: ignore[arg-type]
        assert isinstance(result, CursorResult), "rows were deleted"
        if result.rowcount:
            gone[table.__tablename__] = gone.get(table.__tablename__, 0) + result.rowcount

    await session.flush()
    opened = ApiKeyAccount.account_id == account.id
    await end_openings(work, opened)
    ours, others = select(ApiKeyAccount.api_key_id).where(opened), select(ApiKeyAccount.api_key_id).where(~opened)
    await session.execute(
        update(ApiKey).where(ApiKey.id.in_(ours), ApiKey.id.not_in(others)).values(name="erased", networks=[])
    )
    own = select(WebhookEndpoint.id).where(WebhookEndpoint.account_id == account.id)
    # To an operator's endpoint, what is under way about this account still goes out.
    deliveries = select(WebhookDelivery.id).where(
        or_(
            WebhookDelivery.endpoint_id.in_(own),
            (WebhookDelivery.account_id == account.id) & (WebhookDelivery.status != DeliveryStatus.PENDING),
        )
    )
    await drop(WebhookAttempt, WebhookAttempt.delivery_id.in_(deliveries))
    await drop(WebhookDelivery, WebhookDelivery.id.in_(deliveries))
    await drop(WebhookEndpoint, WebhookEndpoint.account_id == account.id)
    for table in DELETED:
        await drop(table, table.__table__.c.account_id == account.id)
    await drop(IdempotencyKey, IdempotencyKey.scope == str(account.id))
    await drop(DueWork, DueWork.account_id == account.id, DueWork.kind.in_(ENDED_WORK))
    for method in await session.scalars(select(PaymentMethod).where(PaymentMethod.account_id == account.id)):
        method.removed_at, method.is_default, method.updated_at = method.removed_at or now, False, now
        method.brand, method.last4, method.exp_month, method.exp_year = "erased", "", 1, 1970
        method.processor_token = f"{ERASED_TOKEN}{method.id}"
    for member in await session.scalars(select(Member).where(Member.account_id == account.id)):
        make_nobody(member, now)
    account.pairs = {}
    account.data_deleted_at = account.updated_at = now
    erased = await session.scalars(
        select(AuditEntry).where(
            AuditEntry.account_id == account.id,
            AuditEntry.details_hash.is_(None),
            *(~AuditEntry.object.startswith(prefix) for prefix in OF_BOOKS),
        )
    )
    gone["audit_entry"] = await erase_details(work, account.id, erased.all())
    work.topics.add(ACCESS_TOPIC)
    work.audit(account, "account_data.erased", f"billing_account:{account.id}", after={"deleted": gone})
    work.emit(account, "account.updated", {"accountId": str(account.id), "changed": ["company", "status"]})


def make_nobody(member: Member, now: datetime) -> None:
    """Leave of a member what the log refers to: no token proves to be this person any more."""
    member.iss, member.sub = ERASED_ISSUER, secrets.token_hex(16)
    member.display_name, member.email, member.locale = ERASED_NAME, None, None
    member.removed_at, member.updated_at = member.removed_at or now, now


async def erase_details(work: Work, account_id: UUID, entries: Collection[AuditEntry]) -> int:
    """Erase what changed from audit entries of a locked account; that something did, and its hash, stay.

    Whoever does so adds an entry whose action ends in `.erased`: the audit asks for it. Gives how many had anything.
    """
    changes = [
        {
            "id": entry.id,
            "before": {},
            "after": {},
            "details_hash": hash_details(entry.before, entry.after),
        }
        for entry in entries
        if entry.details_hash is None and (entry.before or entry.after)
    ]
    if changes:
        work.session.add(PurgePass(account_id=account_id))
        await work.session.flush()
        await work.session.execute(update(AuditEntry), changes)
        await work.session.execute(delete(PurgePass).where(PurgePass.account_id == account_id))
    return len(changes)
