"""Accounts to measure with, written by the thousand: on Starter, with limits far away."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select

from plafond.database import Actor, Database
from plafond.models import (
    BillingAccount,
    Company,
    EffectiveLimit,
    Interval,
    Issuer,
    Metric,
    PaymentMethod,
    PaymentMethodKind,
    Plan,
    PlanVersion,
    Subscription,
    SubscriptionStatus,
    UsagePeriod,
)
from plafond.models.types import new_id
from plafond.sandbox.seeds import apply_sandbox_catalogue

ACTOR = Actor(name="system:bench", origin="bench")
LIMIT = 10**9
BATCH = 1_000


@dataclass(frozen=True)
class Month:
    """The usage and billing period that they are in."""

    start: datetime
    end: datetime


async def open_catalogue(database: Database) -> None:
    """What they are on."""
    async with database.work(ACTOR) as work:
        await apply_sandbox_catalogue(work)


async def write_accounts(database: Database, month: Month, count: int, first: int = 0) -> list[UUID]:
    """Accounts `bench-N` from a number on. Gives their ids."""
    async with database.read() as session:
        issuer_id = (await session.scalars(select(Issuer.id))).one()
        version_id = (await session.scalars(select(PlanVersion.id).join(Plan).where(Plan.key == "starter"))).one()
        metrics = (await session.scalars(select(Metric.key))).all()
    made: list[UUID] = []
    for start in range(first, first + count, BATCH):
        ids = [new_id() for _ in range(min(BATCH, first + count - start))]
        rows = _rows_of(month, ids, start, issuer_id, version_id, list(metrics))
        async with database.work(ACTOR) as work:
            for table, values in rows.items():
                await work.session.execute(insert(table), values)
        made += ids
    return made


def _rows_of(
    month: Month, ids: list[UUID], start: int, issuer_id: UUID, version_id: UUID, metrics: list[str]
) -> dict[type, list[dict[str, object]]]:
    times = {"created_at": month.start, "updated_at": month.start}
    return {
        BillingAccount: [
            {
                "id": id_,
                "issuer_id": issuer_id,
                "external_id": f"bench-{start + place}",
                "name": "Bench",
                "currency": "USD",
                "timezone": "UTC",
                "locale": "en",
                "pairs": {},
                "collection_method": "AUTOMATIC",
                "net_days": 30,
                "credit_minor": 0,
                "sequence": 0,
                "kept_after_sequence": 0,
                "audit_count": 0,
                "audit_hash": "",
                **times,
            }
            for place, id_ in enumerate(ids)
        ],
        Company: [
            {
                "id": new_id(),
                "account_id": id_,
                "legal_name": "Bench GmbH",
                "country": "AT",
                "address_lines": ["Gasse 1"],
                "postal_code": "1010",
                "city": "Wien",
                "region": "",
                "tax_ids": {},
                **times,
            }
            for id_ in ids
        ],
        PaymentMethod: [
            {
                "id": new_id(),
                "account_id": id_,
                "kind": PaymentMethodKind.CARD,
                "brand": "visa",
                "last4": "4242",
                "exp_month": 12,
                "exp_year": 2040,
                "is_default": True,
                "processor_token": "pm_card_visa",
                **times,
            }
            for id_ in ids
        ],
        Subscription: [
            {
                "id": new_id(),
                "account_id": id_,
                "plan_version_id": version_id,
                "status": SubscriptionStatus.ACTIVE,
                "interval": Interval.MONTH,
                "price_minor": 4_900,
                "anchor_wall": month.start.replace(tzinfo=None),
                "zone": "UTC",
                "current_period_start": month.start,
                "current_period_end": month.end,
                "usage_period_start": month.start,
                "usage_period_end": month.end,
                "usage_period_number": 0,
                "version": 1,
                "started_at": month.start,
                "cancel_at_period_end": False,
                **times,
            }
            for id_ in ids
        ],
        UsagePeriod: [{"account_id": id_, "start_at": month.start, "end_at": month.end} for id_ in ids],
        EffectiveLimit: [
            {
                "account_id": id_,
                "metric_key": metric,
                "quantity": LIMIT,
                "version": 1,
                "cause": "bench",
                "changed_at": month.start,
            }
            for id_ in ids
            for metric in metrics
        ],
    }
