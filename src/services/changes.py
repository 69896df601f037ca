"""An account's stream of changes: what came after a cursor, in order of commit, and when to look again."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import anyio
from sqlalchemy import select

from ..database import ACCESS_TOPIC, Database, ReadSession, account_topic
from ..models import Alert, BillingAccount, Counter, OutboxEvent
from .access import Right
from .cursors import encode_change
from .ports import Bus

LOOK_AGAIN_S = 5.0
"""How long a stream trusts the bus: another process may have written, or taken the right away."""
USAGE_PAUSE_S = 0.25
"""Usage is told at most once in this time; the last state always is."""
BATCH = 200


class ChangeKind(StrEnum):
    """What changed."""

    ALERT = "ALERT"
    USAGE = "USAGE"
    INVOICE = "INVOICE"
    TRANSACTION = "TRANSACTION"
    SUBSCRIPTION = "SUBSCRIPTION"
    PAYMENT_METHOD = "PAYMENT_METHOD"
    EXPORT = "EXPORT"
    SNAPSHOT = "SNAPSHOT"
    GAP = "GAP"


EVENTS_BY_KIND: dict[ChangeKind, tuple[str, ...]] = {
    ChangeKind.ALERT: ("usage.alert_raised", "usage.alert_resolved", "usage.alert_acknowledged"),
    ChangeKind.INVOICE: (
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.uncollectible",
        "invoice.voided",
    ),
    ChangeKind.TRANSACTION: (
        "payment.succeeded",
        "payment.failed",
        "payment.requires_action",
        "refund.requested",
        "refund.approved",
        "refund.denied",
        "refund.succeeded",
        "dispute.opened",
        "dispute.closed",
    ),
    ChangeKind.SUBSCRIPTION: (
        "subscription.started",
        "subscription.changed",
        "subscription.scheduled",
        "subscription.resumed",
        "subscription.reactivated",
        "subscription.past_due",
        "subscription.suspended",
        "subscription.canceled",
        "subscription.expired",
        "subscription.trial_ending",
    ),
    ChangeKind.PAYMENT_METHOD: (
        "payment_method.added",
        "payment_method.updated",
        "payment_method.removed",
        "payment_method.expiring",
    ),
    ChangeKind.EXPORT: ("export.ready", "export.failed"),
}
"""The outbox events that tell of each kind of change. Usage is not among them: it is read from the figures."""
KIND_OF_EVENT = {event: kind for kind, events in EVENTS_BY_KIND.items() for event in events}
SUBJECT_KEYS = {
    ChangeKind.ALERT: "alertId",
    ChangeKind.INVOICE: "invoiceId",
    ChangeKind.TRANSACTION: "transactionId",
    ChangeKind.SUBSCRIPTION: "subscriptionId",
    ChangeKind.PAYMENT_METHOD: "paymentMethodId",
    ChangeKind.EXPORT: "exportId",
}
"""What an event's payload names the changed object by."""

BILLING_KINDS = frozenset(
    {
        ChangeKind.INVOICE,
        ChangeKind.TRANSACTION,
        ChangeKind.SUBSCRIPTION,
        ChangeKind.PAYMENT_METHOD,
        ChangeKind.EXPORT,
    }
)
"""Changes of what only those may see who may see money."""


def right_over(kinds: Collection[ChangeKind]) -> Right:
    """The right that following these kinds takes."""
    return Right.READ_BILLING if BILLING_KINDS.intersection(kinds) else Right.READ_USAGE


@dataclass(frozen=True)
class Change:
    """One change of an account, at its place in the stream."""

    sequence: int
    kind: ChangeKind
    at: datetime
    subject_id: UUID | None = None
    """Which object, of changes that an event tells of."""
    metric_key: str | None = None

    def cursor(self, account_id: UUID) -> str:
        """What a reader resumes with."""
        return encode_change(account_id, self.sequence)


async def read_changes(
    session: ReadSession, account_id: UUID, after: int, kinds: Collection[ChangeKind]
) -> Sequence[Change]:
    """What came after a sequence number, in order: of all but alerts the last state only."""
    # The head is read first, and nothing beyond it is handed out: between two statements others may commit, and a
    # figure from after an alert that was not seen yet would put the cursor past that alert.
    head = await session.scalar(select(BillingAccount.sequence).where(BillingAccount.id == account_id)) or 0
    found: list[Change] = []
    wanted = [event for kind, events in EVENTS_BY_KIND.items() if kind in kinds for event in events]
    if wanted:
        events = (
            await session.scalars(
                select(OutboxEvent)
                .where(
                    OutboxEvent.account_id == account_id,
                    OutboxEvent.sequence > after,
                    OutboxEvent.sequence <= head,
                    OutboxEvent.kind.in_(wanted),
                )
                .order_by(OutboxEvent.sequence)
                .limit(BATCH)
            )
        ).all()
        if len(events) == BATCH:
            head = events[-1].sequence
        found += _changes_of(events)
    if ChangeKind.USAGE in kinds:
        counters = await session.scalars(
            select(Counter).where(Counter.account_id == account_id, Counter.sequence > after, Counter.sequence <= head)
        )
        found += [
            Change(counter.sequence, ChangeKind.USAGE, counter.changed_at, metric_key=counter.metric_key)
            for counter in counters
        ]
    return sorted(found, key=lambda change: change.sequence)


def _changes_of(events: Sequence[OutboxEvent]) -> Collection[Change]:
    """What events tell of. Of one object several are one change, told in the place of the last.

    Whoever resumes before that place is told again, and whoever resumes behind it has seen it. An alert is told each
    time: where it was raised, seen and resolved are places of their own, which its readers tell apart.
    """
    found: dict[Hashable, Change] = {}
    for event in events:
        kind = KIND_OF_EVENT[event.kind]
        subject_id = UUID(event.payload[SUBJECT_KEYS[kind]])
        key = event.sequence if kind is ChangeKind.ALERT else (kind, subject_id)
        found[key] = Change(event.sequence, kind, event.at, subject_id)
    return found.values()


@dataclass(frozen=True)
class Head:
    """Where an account's stream stands."""

    sequence: int
    kept_after: int
    at: datetime


async def read_head(session: ReadSession, database: Database, account: BillingAccount) -> Head:
    """The last sequence number committed, and from where on changes are kept."""
    row = (
        await session.execute(
            select(BillingAccount.sequence, BillingAccount.kept_after_sequence).where(BillingAccount.id == account.id)
        )
    ).one()
    return Head(row.sequence, row.kept_after_sequence, database.clock.now_for(account))


async def follow(
    database: Database,
    bus: Bus,
    account: BillingAccount,
    *,
    after: int | None,
    kinds: Collection[ChangeKind],
    may_go_on: Callable[[], Awaitable[None]],
) -> AsyncGenerator[Change]:
    """The changes of an account: what came after a sequence number, then live, in order and without end.

    Without `after`, or where it is not kept any more (`GAP`), a `SNAPSHOT` comes first. `may_go_on` raises when the
    reader's right is gone; it is asked whenever access changed, and before anything is handed out after a pause.
    """
    with bus.listen(account_topic(account.id), ACCESS_TOPIC) as wakeups:
        async with database.read() as session:
            head = await read_head(session, database, account)
        if after is None or not head.kept_after <= after <= head.sequence:
            if after is not None:
                yield Change(head.sequence, ChangeKind.GAP, head.at)
            yield Change(head.sequence, ChangeKind.SNAPSHOT, head.at)
            after = head.sequence
        told_usage_at = -USAGE_PAUSE_S
        while True:
            async with database.read() as session:
                changes = await read_changes(session, account.id, after, kinds)
            if changes and all(change.kind is ChangeKind.USAGE for change in changes):
                pause = told_usage_at + USAGE_PAUSE_S - anyio.current_time()
                if pause > 0:
                    await anyio.sleep(pause)
                    told_usage_at = -USAGE_PAUSE_S
                    continue
            if changes:
                await may_go_on()
            for change in changes:
                yield change
                after = change.sequence
                if change.kind is ChangeKind.USAGE:
                    told_usage_at = anyio.current_time()
            if not changes:
                await wakeups.wait(LOOK_AGAIN_S)
                await may_go_on()


async def load_alerts(session: ReadSession, ids: Sequence[UUID]) -> dict[UUID, Alert]:
    """Alerts by id."""
    return {alert.id: alert for alert in await session.scalars(select(Alert).where(Alert.id.in_(ids)))}
