"""What the tests of the services share: who sends, and how accounts stand."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from plafond.database import Actor
from plafond.models import (
    Alert,
    BillingAccount,
    Counter,
    EffectiveLimit,
    OutboxEvent,
    Role,
    Subscription,
    UsagePeriod,
    UsageRollup,
)
from plafond.services import calendars
from plafond.services.access import Principal, PrincipalKind, Scope
from plafond.services.metering import record_usage
from plafond.services.rules.periods import Period
from plafond.services.usage import EventResult, UsageInput

from ..conftest import World

ACTOR = Actor(name="operator:test", origin="test")
OPERATOR = Principal(kind=PrincipalKind.OPERATOR, id="operator:test", display_name="Operator", is_operator=True)


def tenant_key(account_id: UUID, *scopes: Scope) -> Principal:
    """A tenant's API key with some scopes."""
    return Principal(
        kind=PrincipalKind.API_KEY,
        id="api_key:test",
        display_name="Key",
        roles={account_id: Role.TENANT_OWNER},
        scopes=frozenset(scopes),
        ingests=frozenset({account_id}),
    )


def emails(event_id: str, quantity: int | None = 1, account: str = "acme", **given: Any) -> UsageInput:
    """An event of the counter."""
    return UsageInput(event_id=event_id, metric="email_sends", external_id=account, quantity=quantity, **given)


def gauge(event_id: str, metric: str = "custom_domains", account: str = "acme", **given: Any) -> UsageInput:
    """An event of a gauge, by `quantity` or `level`."""
    return UsageInput(event_id=event_id, metric=metric, external_id=account, **given)


async def send(
    world: World, *events: UsageInput, principal: Principal = OPERATOR, dry_run: bool = False
) -> list[EventResult]:
    """One batch in one transaction."""
    async with world.database.work(ACTOR) as work:
        return await record_usage(work, principal, events, dry_run=dry_run)


def codes(results: Sequence[EventResult]) -> list[str]:
    """The statuses, or the codes of what was rejected."""
    return [str(result.code or result.status) for result in results]


async def account_of(world: World, name: str = "acme") -> BillingAccount:
    async with world.database.read() as session:
        return (await session.scalars(select(BillingAccount).where(BillingAccount.external_id == name))).one()


async def period_of(world: World, name: str = "acme", at: datetime | None = None) -> Period:
    """The usage period of an account that contains an instant, or now."""
    account = await account_of(world, name)
    async with world.database.read() as session:
        subscription = await session.scalar(select(Subscription).where(Subscription.account_id == account.id))
        rows = (
            await session.scalars(
                select(UsagePeriod).where(UsagePeriod.account_id == account.id).order_by(UsagePeriod.start_at)
            )
        ).all()
    period = calendars.period_of(account, subscription, rows, at or world.clock.stands_at)
    assert period is not None
    return period


async def previous_period(world: World, name: str = "acme") -> Period:
    running = await period_of(world, name)
    return await period_of(world, name, running.start - timedelta(seconds=1))


async def used(world: World, metric: str = "email_sends", name: str = "acme", at: datetime | None = None) -> int:
    """The stored figure: of a gauge its level, of a counter that of the period that contains an instant."""
    account = await account_of(world, name)
    period = await period_of(world, name, at)
    async with world.database.read() as session:
        figure = await session.scalar(
            select(Counter.used).where(
                Counter.account_id == account.id,
                Counter.metric_key == metric,
                Counter.period_end.is_(None) | (Counter.period_start == period.start),
            )
        )
    return figure or 0


async def alerts_of(world: World, name: str = "acme", metric: str = "email_sends") -> list[Alert]:
    """The alerts of an account's metric, in order of being raised."""
    account = await account_of(world, name)
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(Alert).where(Alert.account_id == account.id, Alert.subject == metric).order_by(Alert.sequence)
            )
        )


async def outbox_of(world: World, name: str = "acme", after: int = 0) -> list[OutboxEvent]:
    account = await account_of(world, name)
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(OutboxEvent)
                .where(OutboxEvent.account_id == account.id, OutboxEvent.sequence > after)
                .order_by(OutboxEvent.sequence)
            )
        )


async def rollup_sum(world: World, metric: str, granularity: str, name: str = "acme") -> int:
    account = await account_of(world, name)
    async with world.database.read() as session:
        return int(
            await session.scalar(
                select(func.sum(UsageRollup.quantity)).where(
                    UsageRollup.account_id == account.id,
                    UsageRollup.metric_key == metric,
                    UsageRollup.granularity == granularity,
                )
            )
            or 0
        )


async def change_subscription(world: World, name: str, **values: Any) -> None:
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Subscription).where(Subscription.account_id == account.id).values(**values))


async def change_account(world: World, name: str, **values: Any) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).where(BillingAccount.external_id == name).values(**values))


async def change_limit(world: World, quantity: int | None, metric: str = "email_sends", name: str = "acme") -> None:
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(EffectiveLimit)
            .where(EffectiveLimit.account_id == account.id, EffectiveLimit.metric_key == metric)
            .values(quantity=quantity)
        )
