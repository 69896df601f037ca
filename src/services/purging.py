"""Purging: what has a period of its own goes when it is over, some at a time, whoever does it; or is only counted."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, tuple_

from ..database import Actor, Database, ReadSession, Work
from ..models import (
    Base,
    BillingAccount,
    DeliveryStatus,
    DueWork,
    Export,
    ExportPart,
    ExportStatus,
    FieldUse,
    IdempotencyKey,
    Invite,
    MailMessage,
    MailStatus,
    OutboxEvent,
    OwnershipTransfer,
    ProcessorEvent,
    Quote,
    Reservation,
    ReservationStatus,
    WebhookAttempt,
    WebhookDelivery,
    WorkKind,
)
from ..models.types import first_id_at
from . import keeping
from .due_work import VAIN
from .idempotency import KEPT as IDEMPOTENCY_KEY
from .partitions import count_old, let_go
from .retention import preview_due, purge_due
from .tills import Till

log = logging.getLogger("plafond.purging")

BATCH = 500
LOCK_KEY = 0x504C_4146_5055_5247
"""Of PostgreSQL's advisory lock: whoever holds it purges a batch, and others wait for that long."""
Gone = Mapping[str, int]
"""How many rows, by table."""


@dataclass(frozen=True)
class Purge:
    """Rows whose time is over: of which table, when, and what belongs to them."""

    table: type[Base]
    is_over: Callable[[datetime], ColumnElement[bool]]
    is_held: bool = True
    """Whether the rows are an account's, and a legal hold keeps them."""
    is_by_account: bool = False
    """Whether its times are the account's: on a test clock they stand still for as long as somebody likes."""
    parts: ColumnElement[Any] | None = None
    """The column by which rows of another table belong to these, which have an id."""

    def condition(self, now: datetime) -> ColumnElement[bool]:
        """Which rows go."""
        where = [self.is_over(now)]
        if self.is_held or self.is_by_account:
            stays = [BillingAccount.legal_hold.is_not(None)] if self.is_held else []
            if self.is_by_account:
                stays.append(BillingAccount.test_clock_id.is_not(None))
            owner: Any = self.table.__table__.c.account_id
            where.append(~exists().where(BillingAccount.id == owner, or_(*stays)))
        return and_(*where)


def _before(column: Any, period: timedelta) -> Callable[[datetime], ColumnElement[bool]]:
    # Half-open: a span that ends at this very instant is over.
    return lambda now: column <= now - period


def _ended_before(period: timedelta, *columns: Any) -> Callable[[datetime], ColumnElement[bool]]:
    """By the first of some instants that there is."""
    return lambda now: func.coalesce(*columns, type_=columns[0].type) <= now - period


PURGES: Sequence[Purge] = (
    Purge(IdempotencyKey, _before(IdempotencyKey.created_at, IDEMPOTENCY_KEY), is_held=False),
    Purge(
        WebhookDelivery,
        lambda now: and_(
            WebhookDelivery.status != DeliveryStatus.PENDING,
            _ended_before(keeping.DELIVERIES, WebhookDelivery.delivered_at, WebhookDelivery.give_up_at)(now),
        ),
        parts=WebhookAttempt.__table__.c.delivery_id,
    ),
    Purge(
        MailMessage,
        # By the wall clock, as ids are made: a mail is sent there, whatever clock its account lives by.
        lambda now: and_(MailMessage.status != MailStatus.PENDING, MailMessage.id < first_id_at(now - keeping.MAIL)),
    ),
    Purge(FieldUse, lambda now: FieldUse.day < (now - keeping.FIELD_USE).date(), is_held=False),
    Purge(
        DueWork,
        lambda now: and_(
            DueWork.done_at <= now - keeping.DONE_WORK,
            # What a legal hold made vain is done when that is lifted.
            ~and_(
                DueWork.kind.in_((WorkKind.PURGE, WorkKind.EXPIRE_ACCOUNT)), func.coalesce(DueWork.failure, "") == VAIN
            ),
        ),
        is_held=False,
    ),
    Purge(ProcessorEvent, _before(ProcessorEvent.heard_at, keeping.MESSAGES), is_held=False),
    Purge(
        Export,
        lambda now: and_(
            Export.status.in_((ExportStatus.EXPIRED, ExportStatus.FAILED)), Export.updated_at <= now - keeping.EXPORTS
        ),
        parts=ExportPart.__table__.c.export_id,
    ),
    Purge(Quote, _before(Quote.expires_at, keeping.QUOTES), is_by_account=True),
    Purge(
        Reservation,
        lambda now: and_(
            Reservation.status != ReservationStatus.HELD,
            _ended_before(keeping.RESERVATIONS, Reservation.closed_at, Reservation.expires_at)(now),
        ),
        is_by_account=True,
    ),
    Purge(
        Invite,
        _ended_before(keeping.INVITES, Invite.accepted_at, Invite.revoked_at, Invite.expires_at),
    ),
    Purge(
        OwnershipTransfer,
        _ended_before(
            keeping.INVITES,
            OwnershipTransfer.accepted_at,
            OwnershipTransfer.withdrawn_at,
            OwnershipTransfer.expires_at,
        ),
    ),
)
"""But for the outbox, which goes in its own order, and usage events, which go by months."""


async def purge(database: Database, actor: Actor, now: datetime, keep_usage: timedelta) -> Gone:
    """Delete all whose period is over, by the wall clock. Gives how many rows went, and logs it."""
    gone: dict[str, int] = {}
    usage = await let_go(database, now, keep_usage)
    if usage:
        gone["usage_event"] = usage
    gone |= await purge_old(database, actor, now)
    if gone:
        log.info("purged %s", json.dumps(gone, sort_keys=True))
        async with database.work(actor) as work:
            await work.audit_deployment("data.purged", "deployment:1", after={"rows": gone})
    return gone


async def purge_old(database: Database, actor: Actor, now: datetime) -> Gone:
    """The same without usage events, which lie apart, and without a word of it."""
    gone: dict[str, int] = {}
    while count := await database.run(actor, _purge_outbox, now):
        _add(gone, OutboxEvent, count)
    for each in PURGES:
        while count := await database.run(actor, _purge_batch, each, now):
            _add(gone, each.table, count)
    return gone


def _add(gone: dict[str, int], table: type[Base], count: int) -> None:
    name = str(table.__tablename__)
    gone[name] = gone.get(name, 0) + count


async def purge_all(till: Till, now: datetime, keep_usage: timedelta) -> Gone:
    """The same with the books whose years are over, which the worker else purges as due work."""
    gone = dict(await purge(till.database, till.actor, now, keep_usage))
    for name, count in (await purge_due(till, now)).items():
        gone[name] = gone.get(name, 0) + count
    return gone


async def preview(database: Database, actor: Actor, now: datetime, keep_usage: timedelta) -> Gone:
    """How many rows would go by now, by the same conditions; books are purged and that is undone."""
    found: dict[str, int] = {"usage_event": await count_old(database, now, keep_usage)}
    async with database.read() as session:
        outbox = await _outbox_condition(session, now)
        found["outbox_event"] = await _count(session, OutboxEvent, outbox)
        for each in PURGES:
            found[str(each.table.__tablename__)] = await _count(session, each.table, each.condition(now))
    for name, count in (await preview_due(database, actor, now)).items():
        found[name] = found.get(name, 0) + count
    return {name: count for name, count in found.items() if count}


async def _count(session: ReadSession, table: type[Base], condition: ColumnElement[bool]) -> int:
    return int(await session.scalar(select(func.count()).select_from(table).where(condition)) or 0)


async def _wait_for_turn(work: Work) -> None:
    """Be the only one who purges, until the transaction ends."""
    assert work.session.bind is not None, "sessions come from Database"
    if work.session.bind.dialect.name == "postgresql":
        await work.session.execute(select(func.pg_advisory_xact_lock(LOCK_KEY)))


async def _purge_batch(work: Work, each: Purge, now: datetime) -> int:
    await _wait_for_turn(work)
    key = list(each.table.__table__.primary_key)
    # What somebody else holds at this moment is being used: the next round looks at it again.
    rows = (
        await work.session.execute(
            select(*key)
            .where(each.condition(now))
            .order_by(*key)
            .limit(BATCH)
            .with_for_update(of=each.table, skip_locked=True)
        )
    ).all()
    if not rows:
        return 0
    if each.parts is not None:
        await work.session.execute(delete(each.parts.table).where(each.parts.in_([row[0] for row in rows])))
    chosen = key[0].in_([row[0] for row in rows]) if len(key) == 1 else tuple_(*key).in_([tuple(row) for row in rows])
    await work.session.execute(delete(each.table).where(chosen).execution_options(synchronize_session=False))
    return len(rows)


async def _outbox_condition(session: ReadSession, now: datetime) -> ColumnElement[bool]:
    """What is older than what is kept, and comes before all of that: so the oldest that is left is well defined.

    Its age is told by the id, which the wall clock makes: an event's own instant may be a test clock's.
    """
    first_kept = first_id_at(now - keeping.OUTBOX)
    position: int | None = await session.scalar(
        select(OutboxEvent.position)
        .where(OutboxEvent.position.is_not(None), OutboxEvent.id >= first_kept)
        .order_by(OutboxEvent.position)
        .limit(1)
    )
    is_old = and_(OutboxEvent.position.is_not(None), OutboxEvent.id < first_kept)
    return is_old if position is None else and_(is_old, OutboxEvent.position < position)


async def _purge_outbox(work: Work, now: datetime) -> int:
    """Delete the first events in order of their position, and remember of each account from where on it has its own."""
    await _wait_for_turn(work)
    session = work.session
    rows = (
        await session.execute(
            select(OutboxEvent.id, OutboxEvent.account_id, OutboxEvent.sequence)
            .where(await _outbox_condition(ReadSession(session), now))
            .order_by(OutboxEvent.position)
            .limit(BATCH)
        )
    ).all()
    if not rows:
        return 0
    last = {row.account_id: row.sequence for row in rows}
    for account_id, account in (await work.lock_accounts(last.keys())).items():
        account.kept_after_sequence = max(account.kept_after_sequence, last[account_id])
    await session.execute(
        delete(OutboxEvent)
        .where(OutboxEvent.id.in_([row.id for row in rows]))
        .execution_options(synchronize_session=False)
    )
    return len(rows)
