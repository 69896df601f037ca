"""Rows for tests, built with what matters to the test."""

from datetime import datetime
from uuid import UUID

from plafond.models import (
    BillingAccount,
    Counter,
    EffectiveLimit,
    Interval,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    Subscription,
    SubscriptionStatus,
    UsagePeriod,
)
from plafond.models.base import Base


def an_account(issuer_id: UUID, external_id: str, *, now: datetime, currency: str = "USD") -> BillingAccount:
    """An account in UTC."""
    return BillingAccount(
        created_at=now,
        issuer_id=issuer_id,
        external_id=external_id,
        name=external_id,
        currency=currency,
        timezone="UTC",
    )


def what_it_runs_on(account: BillingAccount, plan_version_id: UUID, *, start: datetime, end: datetime) -> list[Base]:
    """A monthly subscription of an account with its usage period, a limit, a figure and an invoice."""
    return [
        Subscription(
            created_at=start,
            account_id=account.id,
            plan_version_id=plan_version_id,
            status=SubscriptionStatus.ACTIVE,
            interval=Interval.MONTH,
            price_minor=4_900,
            anchor_wall=start.replace(tzinfo=None),
            zone=account.timezone,
            current_period_start=start,
            current_period_end=end,
            usage_period_start=start,
            usage_period_end=end,
            started_at=start,
        ),
        UsagePeriod(account_id=account.id, start_at=start, end_at=end),
        EffectiveLimit(
            account_id=account.id,
            metric_key="email_sends",
            quantity=10_000,
            cause="subscription.started",
            changed_at=start,
        ),
        Counter(
            account_id=account.id,
            metric_key="email_sends",
            period_start=start,
            period_end=end,
            used=123,
            changed_at=start,
            sequence=1,
        ),
        Invoice(
            created_at=start,
            account_id=account.id,
            issuer_id=account.issuer_id,
            number=f"TEST-{account.external_id}",
            kind=InvoiceKind.START,
            cause="start",
            status=InvoiceStatus.OPEN,
            currency=account.currency,
            period_start=start,
            period_end=end,
            issued_at=start,
            due_at=start,
            subtotal_minor=4_900,
            tax_minor=0,
            total_minor=4_900,
            bill_to={"name": account.name},
        ),
    ]
