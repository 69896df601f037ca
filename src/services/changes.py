"""An account's stream of changes: what came after a cursor, in order of commit, and when to look again."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import anyio
from sqlalchemy import select

from ..database import ACCESS_TOPIC, Database, ReadSession, account_topic
from ..models import BillingAccount, BudgetPeriod, Counter, OutboxEvent
from .access import Principal, Right, require
from .cursors import encode_change
from .errors import ErrorCode, RequestRefused
from .ports import Bus, Listener

USAGE_PAUSE_S = 0.25
"""Usage, and what it spends, is told at most once in this time; the last state always is."""
LOOK_S = 0.05
"""How soon it looks whether something else came while usage waits."""
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
    NOTICE = "NOTICE"
    BUDGET = "BUDGET"
    COMPANY = "COMPANY"
    RECOMMENDATION = "RECOMMENDATION"
    MEMBER = "MEMBER"
    SNAPSHOT = "SNAPSHOT"
    GAP = "GAP"


COALESCED = frozenset({ChangeKind.USAGE, ChangeKind.BUDGET})
"""What moves with every event."""


@dataclass(frozen=True)
class Told:
    """How a kind of change is told: by which outbox events, and what names the changed object in their payload."""

    events: tuple[str, ...]
    subject_key: str
    fields: frozenset[str] = frozenset()
    """Of an account's update: which fields of the account make it this kind."""
    is_about_money: bool = False


TOLD_BY_KIND: dict[ChangeKind, Told] = {
    ChangeKind.ALERT: Told(
        (
            "usage.alert_raised",
            "usage.alert_resolved",
            "usage.alert_acknowledged",
            "budget.alert_raised",
            "budget.alert_resolved",
            "budget.alert_acknowledged",
        ),
        "alertId",
    ),
    ChangeKind.INVOICE: Told(
        (
            "invoice.finalized",
            "invoice.paid",
            "invoice.payment_failed",
            "invoice.uncollectible",
            "invoice.voided",
        ),
        "invoiceId",
        is_about_money=True,
    ),
    ChangeKind.TRANSACTION: Told(
        (
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
        "transactionId",
        is_about_money=True,
    ),
    ChangeKind.SUBSCRIPTION: Told(
        (
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
        "subscriptionId",
        is_about_money=True,
    ),
    ChangeKind.PAYMENT_METHOD: Told(
        (
            "payment_method.added",
            "payment_method.updated",
            "payment_method.removed",
            "payment_method.expiring",
        ),
        "paymentMethodId",
        is_about_money=True,
    ),
    ChangeKind.EXPORT: Told(("export.progressed", "export.ready", "export.failed"), "exportId", is_about_money=True),
    ChangeKind.NOTICE: Told(("account.updated",), "noticeId", frozenset({"notices"}), is_about_money=True),
    ChangeKind.BUDGET: Told(("account.updated",), "budgetId", frozenset({"budgets"}), is_about_money=True),
    ChangeKind.COMPANY: Told(
        ("account.updated", "account.closed"),
        "accountId",
        frozenset({"company", "contacts", "taxExemption", "status"}),
        is_about_money=True,
    ),
    ChangeKind.MEMBER: Told(
        (
            "member.invited",
            "member.invite_revoked",
            "member.joined",
            "member.role_changed",
            "member.removed",
            "member.ownership_offered",
            "member.ownership_withdrawn",
            "member.ownership_transferred",
        ),
        "accountId",
        is_about_money=True,
    ),
    ChangeKind.RECOMMENDATION: Told(
        ("account.updated",), "accountId", frozenset({"recommendations"}), is_about_money=True
    ),
}
"""One line for each kind that events tell of. Usage is not among them: it is read from the figures. What is spent under
a budget is read so too; events tell of budgets that were set or removed."""
BILLING_KINDS = frozenset(kind for kind, told in TOLD_BY_KIND.items() if told.is_about_money)
"""Changes of what only those may see who may see money."""


def kind_of(event: OutboxEvent) -> ChangeKind | None:
    """What kind of change an event tells of; none where no stream tells of it."""
    for kind, told in TOLD_BY_KIND.items():
        if event.kind in told.events and (not told.fields or told.fields.intersection(event.payload["changed"])):
            return kind
    return None


def right_over(kinds: Collection[ChangeKind]) -> Right:
    """The right that following these kinds takes."""
    return Right.READ_BILLING if BILLING_KINDS.intersection(kinds) else Right.READ_USAGE


def check_reader(principal: Principal, account_id: UUID, right: Right) -> None:
    """Refuse whoever may not follow the account any more."""
    if principal.role_in(account_id) is None:
        raise RequestRefused(ErrorCode.UNAUTHENTICATED, "Your access to the account has ended.")
    require(principal, right, account_id)


@dataclass(frozen=True)
class Change:
    """One change of an account, at its place in the stream."""

    sequence: int
    kind: ChangeKind
    at: datetime
    subject_id: UUID | None = None
    """Which object, of changes that an event tells of."""
    metric_key: str | None = None
    for_operators: bool = False
    is_about_money: bool = False
    """Whether only those may see it who may see money, although others follow its kind."""

    def cursor(self, account_id: UUID) -> str:
        """What a reader resumes with."""
        return encode_change(account_id, self.sequence)


@dataclass(frozen=True)
class Stretch:
    """A part of an account's stream: its changes in order, and the place up to which these are all."""

    changes: Sequence[Change]
    upto: int
    is_last: bool
    """Nothing was behind it."""


async def read_stretch(session: ReadSession, account_id: UUID, after: int, kinds: Collection[ChangeKind]) -> Stretch:
    """What came after a sequence number, in order: of all but alerts the last state only."""
    # The head is read first, and nothing beyond it is handed out: between two statements others may commit, and a
    # figure from after an alert that was not seen yet would put the cursor past that alert.
    head = await session.scalar(select(BillingAccount.sequence).where(BillingAccount.id == account_id)) or 0
    if head <= after:
        return Stretch((), after, is_last=True)
    is_last, found = True, list[Change]()
    wanted = [event for kind, told in TOLD_BY_KIND.items() if kind in kinds for event in told.events]
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
            is_last, head = False, events[-1].sequence
        found += _changes_of(events, kinds)
    if ChangeKind.USAGE in kinds:
        counters = await session.scalars(
            select(Counter).where(Counter.account_id == account_id, Counter.sequence > after, Counter.sequence <= head)
        )
        found += [
            Change(counter.sequence, ChangeKind.USAGE, counter.changed_at, metric_key=counter.metric_key)
            for counter in counters
        ]
    if ChangeKind.BUDGET in kinds:
        spent = await session.scalars(
            select(BudgetPeriod).where(
                BudgetPeriod.account_id == account_id, BudgetPeriod.sequence > after, BudgetPeriod.sequence <= head
            )
        )
        moved = [Change(row.sequence, ChangeKind.BUDGET, row.changed_at, row.budget_id) for row in spent]
        last = {change.subject_id: change.sequence for change in moved}
        # That it was set, and what is spent of it by that, is one change.
        found = [
            change
            for change in found
            if change.kind is not ChangeKind.BUDGET or change.sequence > last.get(change.subject_id, 0)
        ]
        found += [change for change in moved if change.sequence == last[change.subject_id]]
    return Stretch(sorted(found, key=lambda change: change.sequence), head, is_last)


def _changes_of(events: Sequence[OutboxEvent], kinds: Collection[ChangeKind]) -> Collection[Change]:
    """What events tell of. Of one object several are one change, told in the place of the last.

    Whoever resumes before that place is told again, and whoever resumes behind it has seen it. An alert is told each
    time: where it was raised, seen and resolved are places of their own, which its readers tell apart.
    """
    found: dict[Hashable, Change] = {}
    for event in events:
        kind = kind_of(event)
        if kind is None or kind not in kinds:
            continue
        subject_id = UUID(event.payload[TOLD_BY_KIND[kind].subject_key])
        key = event.sequence if kind is ChangeKind.ALERT else (kind, subject_id)
        found[key] = Change(
            event.sequence,
            kind,
            event.at,
            subject_id,
            for_operators=event.payload.get("forOperators", False),
            is_about_money=event.kind.startswith("budget."),
        )
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


@dataclass
class Following:
    """How a stream is read, and where it stands: for whoever passes it on."""

    resume: int | None = None
    """Begins behind this sequence number, whatever cursor was asked for."""
    is_shared: bool = False
    """Read for many, each of whom has seen what came before: there is nothing to begin with, and `may_go_on` looks
    after all of them. A single reader's is asked whenever access changed, too."""
    is_endless: bool = True
    """Goes on when all was read; else that is its end."""
    account_id: UUID | None = None
    right: Right | None = None
    """The right that its reader needs over the account."""
    reader: Principal | None = None
    """Its reader, as far as the account sees it."""
    told: int | None = None
    """The place of the change that is being handed out."""
    reached: int | None = None
    """Everything up to this place was handed out."""
    is_done: bool = False
    """It was read to its end."""
    may_go_on: Callable[[], Awaitable[None]] | None = None
    """Looks after a shared stream's readers."""
    wakeups: Listener | None = None

    def end(self) -> None:
        """Read no more after the next look: in the middle of one, the database would be left in a bad way."""
        self.is_endless = False
        if self.wakeups is not None:
            self.wakeups.ring()


async def follow(
    database: Database,
    bus: Bus,
    account: BillingAccount,
    *,
    after: int | None,
    kinds: Collection[ChangeKind],
    may_go_on: Callable[[], Awaitable[None]],
    following: Following,
) -> AsyncGenerator[Change]:
    """The changes of an account: what came after a sequence number, then live, in order and without end.

    Without `after`, or where it is not kept any more (`GAP`), a `SNAPSHOT` comes first. `may_go_on` raises when the
    reader's right is gone; it is asked whenever access changed, and before anything is handed out after a pause.
    """
    topics = [account_topic(account.id)] if following.is_shared else [account_topic(account.id), ACCESS_TOPIC]
    with bus.listen(*topics) as wakeups:
        following.wakeups = wakeups
        after = after if following.resume is None else following.resume
        if not following.is_shared:
            async with database.read() as session:
                head = await read_head(session, database, account)
            if after is None or not head.kept_after <= after <= head.sequence:
                if after is not None:
                    yield Change(head.sequence, ChangeKind.GAP, head.at)
                following.told = head.sequence
                yield Change(head.sequence, ChangeKind.SNAPSHOT, head.at)
                after = head.sequence
        assert after is not None, "a shared stream begins where its readers are"
        told_usage_at = -USAGE_PAUSE_S
        while True:
            async with database.read() as session:
                stretch = await read_stretch(session, account.id, after, kinds)
            if stretch.changes and all(change.kind in COALESCED for change in stretch.changes):
                pause = told_usage_at + USAGE_PAUSE_S - anyio.current_time()
                if pause > 0:
                    # Something else may come meanwhile, and does not wait. Looking has its price, too.
                    await anyio.sleep(min(pause, LOOK_S))
                    await wakeups.wait(max(0, pause - LOOK_S))
                    continue
            if stretch.changes:
                await may_go_on()
            for change in stretch.changes:
                following.told = change.sequence
                yield change
                if change.kind in COALESCED:
                    told_usage_at = anyio.current_time()
            after = following.reached = stretch.upto
            if not stretch.changes and stretch.is_last:
                if not following.is_endless:
                    following.is_done = True
                    return
                await wakeups.wait(bus.look_again_s)
                if not following.is_shared:
                    await may_go_on()
