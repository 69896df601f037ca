"""The types of billing. They mention each other, so they live together. Each is made by `of` from what is stored."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from datetime import date as datetime_date
from typing import Annotated, Any, Self, TypeAlias
from uuid import UUID

import strawberry

from .. import models
from ..services import charges, coverage, forecasts, keys, members, recommendations, usage
from ..services.access import Right
from ..services.accounts import status_of
from ..services.advice import Fit
from ..services.alerts import list_actions
from ..services.backtests import MAX_MONTHS
from ..services.bills import BillLine, taxes_of
from ..services.budget_periods import KEPT_PERIODS
from ..services.budget_states import BudgetState
from ..services.budgets import DEFAULT_THRESHOLDS, MAX_THRESHOLDS, BudgetInput
from ..services.changes import Change
from ..services.cursors import encode_change
from ..services.documents import language_of
from ..services.dunning import Days, DunningState
from ..services.errors import BillingError, ErrorCode, InvalidInput, RequestRefused
from ..services.explorer import MAX_DAYS, MAX_SUMS, check_question
from ..services.history import HistoryKey, trace_history
from ..services.notices import is_meant_for
from ..services.paging import LAST_ONE, check_window, slice_ranked
from ..services.permissions import Permission as PermissionState
from ..services.permissions import (
    list_invoice_permissions,
    list_method_permissions,
    list_permissions,
    list_request_permissions,
    list_transaction_permissions,
)
from ..services.quotes import QuoteView
from ..services.refundables import Asked, Verdict, judge
from ..services.refunds import MAX_LINES as MAX_REFUNDED_LINES
from ..services.refunds import check_asked
from ..services.relations import (
    ALERTS_OF_ACCOUNT,
    AUDIT_OF_ACCOUNT,
    BUDGETS_OF_ACCOUNT,
    CHARGES_OF_PENDING,
    COMPANY_OF_ACCOUNT,
    CONTACTS_OF_ACCOUNT,
    CREDIT_NOTES_OF_ACCOUNT,
    CREDIT_NOTES_OF_INVOICE,
    ENDPOINTS_OF_ACCOUNT,
    ENTRIES_OF_ACCOUNT,
    EVENTS_OF_SUBSCRIPTION,
    EXPORTS_OF_ACCOUNT,
    INVITES_OF_ACCOUNT,
    INVOICES_OF_ACCOUNT,
    LIMITS_OF_VERSION,
    LINES_OF_CREDIT_NOTE,
    LINES_OF_INVOICE,
    MEMBERS_OF_ACCOUNT,
    METHODS_OF_ACCOUNT,
    NOTICES_OF_ACCOUNT,
    OPENINGS_OF_KEY,
    PENDING_OF_ACCOUNT,
    PERIODS_OF_BUDGET,
    POSTINGS_OF_ENTRY,
    REFUNDS_OF_CHARGE,
    REFUNDS_OF_REQUEST,
    REQUESTS_OF_ACCOUNT,
    RESERVATIONS_OF_ACCOUNT,
    TAX_EXEMPTION_OF_ACCOUNT,
    TAXES_OF_CREDIT_NOTE,
    TAXES_OF_INVOICE,
    TRANSACTIONS_OF_ACCOUNT,
    TRANSACTIONS_OF_INVOICE,
    TRANSFER_OF_ACCOUNT,
    AlertFilter,
    AuditFilter,
    HeldAddOn,
    InvoiceFilter,
    LedgerFilter,
    NoFilter,
    PlanOffer,
    TransactionFilter,
)
from ..services.reservations import status_at
from ..services.rules.backtest import Outcome
from ..services.rules.explanation import Step, explain, reckon
from ..services.rules.explorer import SpendEntry
from ..services.rules.forecasting import Forecast
from ..services.rules.money import to_decimal
from ..services.rules.periods import Period as Span
from ..services.rules.periods import last_buckets
from ..services.rules.rerating import Advice
from ..services.rules.tax import TaxAmount
from ..services.rules.thresholds import BUILT_IN, level_of_threshold, level_of_usage, list_reached, percent_of
from ..services.standing import Standing
from ..services.texts import (
    REFUND_FAILURE,
    advice_title,
    alert_message,
    budget_message,
    failure_message,
    is_retryable,
    name_budget,
    notice_actions,
    notice_params,
    notice_text,
    refund_message,
    show_params,
)
from ..services.watches import Watch
from .audit import AuditEntry, AuditFilterArgument
from .company import Collection, Company, TaxExemption
from .contacts import Contact
from .context import Context, Info
from .documents import Document, show_document, show_e_invoice
from .enums import (
    AccountStatus,
    Action,
    AlertChannel,
    AlertKind,
    AlertLevel,
    ApiKeyStatus,
    BudgetAction,
    BudgetScope,
    ChangeAct,
    ChangeKind,
    DeliveryStatus,
    EntryKind,
    FailureCode,
    Granularity,
    Interval,
    InvoiceKind,
    InvoiceStatus,
    LedgerAccount,
    LineKind,
    MetricKind,
    NextBillingKind,
    NoticeSeverity,
    OveragePolicy,
    PaymentMethodKind,
    RecommendationKind,
    RecommendedActionKind,
    RefundCode,
    RefundReason,
    RefundState,
    RefundStatus,
    ReservationStatus,
    Role,
    SandboxAnswers,
    SandboxMessages,
    SpendBasis,
    SpendGroup,
    SubscriptionStatus,
    TransactionKind,
    TransactionStatus,
    UserErrorCode,
)
from .exports import Export
from .fields import field, guarded, said
from .money import Money, MoneyInput
from .node import NOBODY, Node, encode_id, key_of
from .paging import After, Before, Connection, First, Last
from .scalars import BigInt, CurrencyCode, EmailAddress, JsonObject, Url
from .spikes import Spike
from .webhooks import WebhookEndpoint

MAX_POINTS = 400
MAX_KEPT = KEPT_PERIODS + 1
MAX_FILTER_VALUES = 100
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, tzinfo=UTC)

AccountId: TypeAlias = strawberry.Private[Any]


async def _account(context: Context, account_id: Any) -> models.BillingAccount:
    account = await context.load.account(account_id)
    assert account is not None, "a foreign key guarantees the account"
    return account


async def show_pending(context: Context, account_id: Any) -> "PendingChange | None":
    """The change of plan that waits for its payment; none where none does."""
    for row in await context.load.related(PENDING_OF_ACCOUNT, account_id):
        if row.act is not ChangeAct.SET_ADD_ON:
            return await pending_of(context, row)
    return None


async def pending_of(context: Context, row: models.PendingChange) -> "PendingChange":
    """A change that waits for its payment, with its charge."""
    account = await _account(context, row.account_id)
    found = await context.load.related(CHARGES_OF_PENDING, row.id)
    return PendingChange.of(row, found[0] if found else None, account.currency)


async def _standing(context: Context, account_id: Any) -> Standing:
    standing = await context.load.standing(account_id)
    assert standing is not None, "a foreign key guarantees the account"
    return standing


# --- catalogue -------------------------------------------------------------------------------------------------------


CurrencyArgument: TypeAlias = Annotated[
    CurrencyCode | None, strawberry.argument(description="Only prices in this currency.")
]


@strawberry.type(
    description="Something that is counted or measured. Metrics are data: more may come without a release."
)
class Metric(Node):
    """A metric."""

    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the metric again.")
    key: str = said("The name in usage events, such as email_sends.")
    name: str = said("For people to read.")
    kind: MetricKind = said("Whether it adds up per period or is a level.")
    unit: str = said("What one is called, such as email or seat.")
    overage_block: BigInt | None = said("How many units one price of overage covers; null where it is never sold.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Metric) -> Self:
        """A metric from its row."""
        return cls(
            id=encode_id("Metric", row.key),
            key=row.key,
            name=row.name,
            kind=row.kind,
            unit=row.unit,
            overage_block=None if row.overage_block is None else BigInt(row.overage_block),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def overage_prices(self, info: Info, currency: CurrencyArgument = None) -> list["Price"]:
        """What a started block above the limit costs, by currency; empty where overage is never sold."""
        return await _prices(info, models.PriceKind.OVERAGE, self.key, currency)


@strawberry.type(description="A price, net of tax. What has no price in a currency is not offered in it.")
class Price:
    """A price."""

    interval: Interval = said("How often it is due.")
    amount: Money = said("What is due each time.")

    @classmethod
    def of(cls, row: models.Price) -> Self:
        """A price from its row."""
        return cls(interval=row.interval, amount=Money.of(row.amount_minor, row.currency))


async def _prices(info: Info, kind: models.PriceKind, subject: str, currency: str | None) -> list[Price]:
    rows = await info.context.load.prices(kind, subject)
    return [Price.of(row) for row in rows if currency is None or row.currency == currency]


@strawberry.type(description="How much of a metric a plan includes.")
class PlanLimit:
    """A limit of a plan."""

    metric_key: str = said("Which metric.")
    limit: BigInt | None = said("How much is included; null when unlimited.")
    unlimited: bool = said("Whether there is no limit.")


@strawberry.type(description="What follows an unpaid invoice, on days of 24 hours from when its payment failed first.")
class DunningDays:
    """The days of dunning of a plan."""

    retry_days: list[int] = said("When its payment is tried again, ascending.")
    suspend_day: int = said("When, still unpaid, the account is suspended.")
    cancel_day: int = said("When it is tried for the last time, and else the subscription ends.")

    @classmethod
    def of(cls, days: Days) -> Self:
        """The days as they are shown."""
        return cls(retry_days=list(days.retry), suspend_day=days.suspend, cancel_day=days.cancel)


@strawberry.type(description="A plan as it is offered now. A running subscription keeps the version it was sold.")
class Plan(Node):
    """A plan."""

    version_id: strawberry.Private[Any]
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the plan again.")
    key: str = said("The catalogue's name for it, such as professional.")
    name: str = said("For people to read.")
    tier: int = said("The order of plans: a higher tier is an upgrade.")
    is_private: bool = said("Whether it was negotiated with one account and is offered to no other.")
    archived_at: datetime | None = said("When it was taken off the offer; null while it is on it.")
    version: int = said("Rises by one with each published change.")
    features: list[str] = said("What comes with it, for people to read.")
    dunning: DunningDays = said(
        "What follows an unpaid invoice. The plan that an account is on at that moment decides."
    )
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, offer: PlanOffer) -> Self:
        """A plan from its rows."""
        return cls(
            version_id=offer.version.id,
            id=encode_id("Plan", offer.plan.key),
            key=offer.plan.key,
            name=offer.plan.name,
            tier=offer.plan.tier,
            is_private=offer.plan.private_account_id is not None,
            archived_at=offer.plan.archived_at,
            version=offer.version.number,
            features=[str(feature) for feature in offer.version.features],
            dunning=DunningDays.of(Days.of(offer.version.dunning)),
            created_at=offer.plan.created_at,
            updated_at=offer.version.created_at,
        )

    @field
    async def prices(self, info: Info, currency: CurrencyArgument = None) -> list[Price]:
        """What it costs, per interval and currency; empty for a negotiated plan."""
        return await _prices(info, models.PriceKind.PLAN, str(self.version_id), currency)

    @field
    async def limits(self, info: Info) -> list[PlanLimit]:
        """How much of each metric is included."""
        rows = await info.context.load.related(LIMITS_OF_VERSION, self.version_id)
        return [
            PlanLimit(
                metric_key=row.metric_key,
                limit=None if row.quantity is None else BigInt(row.quantity),
                unlimited=row.quantity is None,
            )
            for row in rows
        ]


@strawberry.type(description="What can be bought beside a plan, by units per month.")
class AddOn(Node):
    """An add-on."""

    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the add-on again.")
    key: str = said("The catalogue's name for it, such as extra_emails.")
    name: str = said("For people to read.")
    metric_key: str | None = said("The metric whose limit it raises; null when it raises none.")
    gives: BigInt = said("How much one unit adds to that limit.")
    plan_keys: list[str] = said("The plans it is offered with.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.AddOn) -> Self:
        """An add-on from its row."""
        return cls(
            id=encode_id("AddOn", row.key),
            key=row.key,
            name=row.name,
            metric_key=row.metric_key,
            gives=BigInt(row.gives),
            plan_keys=[str(key) for key in row.plan_keys],
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def prices(self, info: Info, currency: CurrencyArgument = None) -> list[Price]:
        """What one unit costs per month, by currency."""
        return await _prices(info, models.PriceKind.ADD_ON, self.key, currency)


# --- subscription ----------------------------------------------------------------------------------------------------


@strawberry.type(description="Units of an add-on that an account holds.")
class SubscriptionAddOn:
    """A held add-on."""

    add_on: AddOn = said("Which add-on.")
    quantity: BigInt = said("How many units.")
    next_quantity: BigInt | None = said("How many stay from the next usage period on, where it was lowered; else null.")
    amount: Money = said("All units per usage period, net, at the price that was sold.")

    @classmethod
    def of(cls, item: HeldAddOn, currency: str) -> Self:
        """A held add-on from its rows."""
        return cls(
            add_on=AddOn.of(item.add_on),
            quantity=BigInt(item.held.quantity),
            next_quantity=None if item.held.next_quantity is None else BigInt(item.held.next_quantity),
            amount=Money.of(item.held.quantity * item.held.price_minor, currency),
        )


@strawberry.type(description="A change that waits for the end of the billing period.")
class ScheduledChange:
    """A scheduled change."""

    plan: Plan = said("The plan to come.")
    interval: Interval = said("The interval to come.")
    amount: Money = said("What it will cost per interval, net: the price that was agreed.")
    effective_at: datetime = said("When it takes effect.")


@strawberry.type(description="What the cardholder has to do before a payment goes through.")
class PaymentAction:
    """A payment action."""

    client_secret: str | None = said("For the processor's own frontend library.")
    url: Url | None = said("A page of the bank to send the cardholder to.")
    expires_at: datetime | None = said("Until when that can be done; null where it is not limited.")

    @classmethod
    def of(cls, action: dict[str, Any], expires_at: datetime | None = None) -> Self:
        """An action as the processor asked for it."""
        url = action.get("url")
        return cls(
            client_secret=action.get("clientSecret"), url=None if url is None else Url(url), expires_at=expires_at
        )


@strawberry.type(description="A change that takes effect when its payment goes through.")
class PendingChange:
    """A pending change."""

    act: ChangeAct = said("What it will make true.")
    pinned_at: datetime = said("The instant it counts from once it is paid.")
    expires_at: datetime = said("Until when it can be paid.")
    amount_due: Money = said("What is to be paid.")
    transaction_id: strawberry.ID | None = said("The charge that waits: `confirmPayment` takes it.")
    payment_action: PaymentAction | None = said("What the cardholder has to do; null when nothing.")

    @classmethod
    def of(cls, row: models.PendingChange, transaction: models.Transaction | None, currency: str) -> Self:
        """A pending change from its rows."""
        action = None if transaction is None else transaction.action
        return cls(
            act=row.act,
            pinned_at=row.pinned_at,
            expires_at=row.expires_at,
            amount_due=Money.of(row.due_minor, currency),
            transaction_id=None if transaction is None else encode_id("Transaction", transaction.id),
            payment_action=None if action is None else PaymentAction.of(action, row.expires_at),
        )


@strawberry.type(description="One transition of a subscription.")
class SubscriptionEvent:
    """A transition."""

    step: str = said("A stable code of what happened, such as START or CANCEL.")
    from_status: SubscriptionStatus | None = said("The state before it; null at the first start.")
    to_status: SubscriptionStatus = said("The state after it.")
    interval: Interval = said("How often the plan is paid after it.")
    actor: str = said("Who did it, as api_key:ID, member:ID, operator:ID or system:NAME.")
    reason: str = said("Why, where somebody said it.")
    at: datetime = said("When.")

    @classmethod
    def of(cls, row: models.SubscriptionEvent) -> Self:
        """A transition from its row."""
        return cls(
            step=row.step,
            from_status=row.from_status,
            to_status=row.to_status,
            interval=row.interval,
            actor=row.actor,
            reason=row.reason,
            at=row.created_at,
        )


@strawberry.type(description="The tries to collect what is unpaid, and what follows.")
class Dunning:
    """Dunning."""

    since: datetime = said("When the first payment failed: day 0.")
    next_attempt_at: datetime | None = said(
        "When it is tried again, or who pays by transfer is reminded; null where no card is left that could be charged."
    )
    suspends_at: datetime | None = said("When the account is suspended if still unpaid; null once it is.")
    cancels_at: datetime | None = said("When the subscription is cancelled if still unpaid.")
    attempts: int = said("How many charges were tried since then, the first one included.")
    amount_due: Money = said("What is to be paid in all.")

    @classmethod
    def of(cls, state: DunningState) -> Self:
        """Dunning as it stands."""
        row = state.dunning
        return cls(
            since=row.started_at,
            next_attempt_at=state.next_attempt_at,
            suspends_at=None if state.is_suspended else row.at(row.suspend_day),
            cancels_at=row.at(row.cancel_day),
            attempts=state.attempts,
            amount_due=Money.of(state.due_minor, state.currency),
        )


@strawberry.type(description="An account's agreement to a plan.")
class PlanSubscription(Node):
    """A subscription to a plan."""

    row: strawberry.Private[models.Subscription]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the subscription again.")
    cursor: str | None = said(
        "In a stream its place there: a subscription given this as `after` goes on behind it. Null elsewhere."
    )
    status: SubscriptionStatus = said("Where it stands.")
    interval: Interval = said("How often the plan is paid.")
    current_period_start: datetime = said("When the running billing period began.")
    current_period_end: datetime = said("When it ends, exclusive.")
    trial_end: datetime | None = said("When the trial ends or ended; null without one.")
    cancel_at_period_end: bool = said("Whether it was cancelled and ends with the period; can be undone until then.")
    started_at: datetime = said("When it began.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Subscription, sequence: int | None = None) -> Self:
        """A subscription from its row; in a stream at the place of the change."""
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("PlanSubscription", row.id),
            cursor=None if sequence is None else encode_change(row.account_id, sequence),
            status=row.status,
            interval=row.interval,
            current_period_start=row.current_period_start,
            current_period_end=row.current_period_end,
            trial_end=row.trial_end,
            cancel_at_period_end=row.cancel_at_period_end,
            started_at=row.started_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def plan(self, info: Info) -> Plan:
        """The plan, in the version that was sold."""
        agreement = await info.context.load.agreement(self.account_id)
        assert agreement is not None, "a subscription has sold something"
        return Plan.of(agreement.offer)

    @field
    async def amount(self, info: Info) -> Money:
        """What the plan costs per interval, net."""
        account = await _account(info.context, self.account_id)
        return Money.of(self.row.price_minor, account.currency)

    @field
    async def monthly_cost(self, info: Info) -> Money:
        """What the plan costs per month, net: an annual price ÷ 12, rounded."""
        account = await _account(info.context, self.account_id)
        return Money.of(charges.monthly_cost_minor(self.row), account.currency)

    @field
    async def recurring_total(self, info: Info) -> Money:
        """`monthlyCost` and all add-ons per month, net."""
        account = await _account(info.context, self.account_id)
        add_ons = await info.context.load.held_add_ons(self.account_id)
        return Money.of(charges.monthly_cost_minor(self.row) + charges.add_ons_minor(add_ons), account.currency)

    @field
    async def add_ons(self, info: Info) -> list[SubscriptionAddOn]:
        """What is held beside the plan."""
        account = await _account(info.context, self.account_id)
        held = await info.context.load.held_add_ons(self.account_id)
        return [SubscriptionAddOn.of(item, account.currency) for item in held]

    @field
    async def scheduled_change(self, info: Info) -> ScheduledChange | None:
        """The change that waits for the period's end; null when none does."""
        return await self.find_scheduled(info.context)

    async def find_scheduled(self, context: Context) -> ScheduledChange | None:
        """The change that waits for the period's end; none when none does."""
        found = await context.load.scheduled(self.account_id)
        if found is None:
            return None
        change, offer = found
        account = await _account(context, self.account_id)
        return ScheduledChange(
            plan=Plan.of(offer),
            interval=change.interval,
            amount=Money.of(change.price_minor, account.currency),
            effective_at=change.effective_at,
        )

    @field
    async def pending_change(self, info: Info) -> PendingChange | None:
        """The change of plan that waits for its payment; null when none does."""
        return await show_pending(info.context, self.account_id)

    @field
    async def history(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[SubscriptionEvent]:
        """Its transitions, newest first: who, when and why."""
        window = check_window(first, last, after, before)
        part = await info.context.load.page(EVENTS_OF_SUBSCRIPTION, self.account_id, NoFilter(), window)
        return Connection[SubscriptionEvent].of(part, SubscriptionEvent.of)

    @field
    async def dunning(self, info: Info) -> Dunning | None:
        """The tries to collect what is unpaid; null when nothing is."""
        state = await info.context.load.dunning(self.account_id)
        return None if state is None else Dunning.of(state)


# --- usage -----------------------------------------------------------------------------------------------------------


@strawberry.type(description="A share of a limit at which an alert is raised.")
class UsageThreshold:
    """A threshold of usage."""

    percent: int = said("The share of the limit, in whole percent.")
    level: AlertLevel = said("The level that reaching it gives.")
    built_in: bool = said("Whether it comes with the service (80, 90, 95, 100) rather than being the account's own.")
    reached_at: datetime | None = said("When it was reached, while its alert is open.")


@strawberry.type(description="That somebody let usage pass a limit in one usage period.")
class OverageApproval:
    """An approval."""

    blocks: BigInt | None = said("How many blocks of the period in all; null for the rest of it.")
    approved_by: str = said("Who, as api_key:ID, member:ID or operator:ID.")
    approved_at: datetime = said("When.")


@strawberry.type(description="What lies above a limit.")
class UsageOverage:
    """Overage."""

    account_id: AccountId
    figure: strawberry.Private[usage.UsageFigure]
    policy: OveragePolicy = said("What happens with usage above the limit: the policy in force.")
    setting: OveragePolicy | None = said(
        "What `setOveragePolicy` chose; null where nothing was. On free, in trials and without a subscription BLOCK is "
        "in force whatever was chosen."
    )
    approval: OverageApproval | None = said("Under ASK: what of this usage period was approved; null while nothing is.")
    quantity: BigInt = said("How much lies above the limit.")
    blocks: BigInt = said("How many blocks are charged of that if the period closes now; 0 where overage is not sold.")
    allowed: BigInt = said("How much above the limit was taken under ALLOW, and is never charged.")

    @guarded(Right.READ_BILLING)
    async def amount(self, info: Info) -> Money | None:
        """What it would cost if the period closed now, net. Null with an error for callers who may not see money."""
        account = await _account(info.context, self.account_id)
        return Money.of(self.figure.overage_minor, account.currency)


@strawberry.type(description="One bucket of history.")
class UsagePoint:
    """A point of history."""

    start: datetime = said("Where the bucket begins.")
    end: datetime = said("Where it ends, exclusive; the next begins here.")
    quantity: BigInt = said("Of a counter what was added in it, of a gauge the level at its end.")


@strawberry.type(description="Usage that is held for a while, so that it can be had for certain.")
class Reservation(Node):
    """A reservation."""

    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the reservation again.")
    metric_key: strawberry.Private[str]
    status: ReservationStatus = said("Whether it still holds, and what became of it.")
    quantity: BigInt = said("What was reserved.")
    committed: BigInt = said("What of it became usage; the rest was given back.")
    reserved_at: datetime = said("When. What is committed counts as used at this instant.")
    expires_at: datetime = said("Until when it holds.")
    closed_at: datetime | None = said("When it was committed, released or found expired; null while it holds.")
    properties: JsonObject = said("What the usage event will say of it, such as its `workspace`.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Reservation, now: datetime) -> Self:
        """A reservation from its row, at an instant of the account's clock."""
        return cls(
            id=encode_id("Reservation", row.id),
            metric_key=row.metric_key,
            status=status_at(row, now),
            quantity=BigInt(row.quantity),
            committed=BigInt(row.committed),
            reserved_at=row.reserved_at,
            expires_at=row.expires_at,
            closed_at=row.closed_at,
            properties=JsonObject(row.properties),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def metric(self, info: Info) -> Metric:
        """What is held of."""
        row = await info.context.load.metric(self.metric_key)
        assert row is not None, "metrics stay"
        return Metric.of(row)


@strawberry.type(description="When a threshold that is not reached yet is expected to be.")
class ExpectedReach:
    """A threshold ahead."""

    percent: int = said("The threshold: the share of the limit or budget, in whole percent.")
    at: datetime | None = said("The expected instant, by the middle of the forecast; null when not in this period.")

    @classmethod
    def of(cls, reach: forecasts.Reach) -> Self:
        """A threshold ahead from what the service says."""
        return cls(percent=reach.percent, at=reach.at)


@strawberry.type(
    description="Where a metric's figure is heading by the end of the usage period, as the daily sums so far tell. "
    "No limit bends it: what a limit would refuse is part of it."
)
class UsageForecast:
    """A forecast of usage."""

    account_id: AccountId
    figure: strawberry.Private[usage.UsageFigure]
    found: strawberry.Private[Forecast]
    value: BigInt = said("The figure expected at the end of the period, of a gauge its level then.")
    low: BigInt = said("The lower end of the 90 % range.")
    high: BigInt = said("The upper end of the 90 % range.")
    low50: BigInt = said("The lower end of the 50 % range: half of all figures come to lie within it.")
    high50: BigInt = said("The upper end of the 50 % range.")
    confidence: float = said(
        "From 0 to 1: the share of four weeks of history that is there, times how narrow the 90 % range is (± 100 % of "
        "the value halves it)."
    )
    based_on_days: int = said("How many whole days of history stand behind it, 180 at most.")

    @classmethod
    def of(cls, figure: usage.UsageFigure, found: Forecast) -> Self:
        """A forecast from what was reckoned."""
        return cls(
            account_id=figure.account_id,
            figure=figure,
            found=found,
            value=BigInt(found.value),
            low=BigInt(found.low),
            high=BigInt(found.high),
            low50=BigInt(found.low50),
            high50=BigInt(found.high50),
            confidence=found.confidence,
            based_on_days=found.based_on_days,
        )

    @field
    def reaches_limit_at(self) -> datetime | None:
        """When the limit is expected to be reached; null when it is not in this period, or stands as reached."""
        return next((reach.at for reach in forecasts.list_reaches(self.figure, self.found, [100])), None)

    @field
    async def reaches(self, info: Info) -> list[ExpectedReach]:
        """The thresholds of the limit still ahead, ascending, own ones included; empty where there is no limit."""
        watches = await info.context.load.watches(self.account_id)
        thresholds = watches.get(self.figure.metric.key, Watch()).thresholds
        return [ExpectedReach.of(reach) for reach in forecasts.list_reaches(self.figure, self.found, thresholds)]


async def _forecast(context: Context, figure: usage.UsageFigure) -> Forecast | None:
    account = await _account(context, figure.account_id)
    now = context.now_for(account)
    agreement = await context.load.agreement(account.id)
    history = await context.load.history(Granularity.DAY, forecasts.days_to_read(account, now))
    status = agreement.subscription.status if agreement else None
    return forecasts.forecast_usage(account, status, figure, history, now)


@strawberry.type(description="How an account stands with one metric.")
class MetricUsage(Node):
    """The usage of a metric."""

    account_id: AccountId
    figure: strawberry.Private[usage.UsageFigure]
    id: strawberry.ID = said("Opaque, and the same for ever: the account's figure of this metric.")
    cursor: str = said("Its place in the account's stream: a subscription given this as `after` goes on behind it.")
    metric: Metric = said("Which metric.")
    used: BigInt = said("Of a counter what was used in this usage period, of a gauge the level now.")
    held: BigInt = said("What reservations hold on top.")
    limit: BigInt | None = said("The limit in force, add-ons included; null when unlimited.")
    unlimited: bool = said("Whether there is no limit.")
    remaining: BigInt | None = said("What is left beside what is used and held, never below 0; null when unlimited.")
    percent: float | None = said(
        "The share used, cut to two places and never rounded up; may pass 100; null when unlimited."
    )
    resets_at: datetime | None = said("When it starts again at 0; null for a gauge.")
    overage: UsageOverage = said("What lies above the limit.")

    @classmethod
    def of(cls, figure: usage.UsageFigure, sequence: int | None = None) -> Self:
        """The usage of a metric from its figure; in a stream at the place of the change."""
        used, limit = figure.used, figure.limit
        place = figure.sequence if sequence is None else sequence
        return cls(
            account_id=figure.account_id,
            figure=figure,
            id=encode_id("MetricUsage", figure.account_id, figure.metric.key),
            cursor=encode_change(figure.account_id, place),
            metric=Metric.of(figure.metric),
            used=BigInt(used),
            held=BigInt(figure.held),
            limit=None if limit is None else BigInt(limit),
            unlimited=limit is None,
            remaining=None if limit is None else BigInt(max(0, limit - used - figure.held)),
            percent=percent_of(used, limit),
            resets_at=figure.resets_at,
            overage=UsageOverage(
                account_id=figure.account_id,
                figure=figure,
                policy=figure.policy,
                setting=figure.setting,
                approval=None
                if figure.approval is None
                else OverageApproval(
                    blocks=None if figure.approval.blocks is None else BigInt(figure.approval.blocks),
                    approved_by=figure.approval.approved_by,
                    approved_at=figure.approval.approved_at,
                ),
                allowed=BigInt(figure.allowed),
                quantity=BigInt(figure.overage_quantity),
                blocks=BigInt(figure.overage_blocks),
            ),
        )

    @field
    async def thresholds(self, info: Info) -> list[UsageThreshold]:
        """The shares at which alerts are raised, ascending: built-in ones and those of `setAlertThresholds`."""
        watch = await self._watch(info)
        return [
            UsageThreshold(
                percent=percent,
                level=level_of_threshold(percent),
                built_in=percent in BUILT_IN,
                reached_at=watch.reached_at.get(percent),
            )
            for percent in watch.thresholds
        ]

    @field
    async def level(self, info: Info) -> AlertLevel:
        """From the highest threshold that the figure has reached, the account's own ones included."""
        watch = await self._watch(info)
        return level_of_usage(self.figure.used, self.figure.limit, watch.own)

    async def _watch(self, info: Info) -> Watch:
        watches = await info.context.load.watches(self.account_id)
        return watches.get(self.figure.metric.key, Watch())

    @field
    async def history(
        self,
        info: Info,
        granularity: Annotated[Granularity, strawberry.argument(description="How wide a bucket is.")] = Granularity.DAY,
        last: Annotated[int, strawberry.argument(description=f"How many buckets up to now, 1 to {MAX_POINTS}.")] = 30,
    ) -> list[UsagePoint]:
        """The figure over time, oldest first, in the account's zone."""
        if not 1 <= last <= MAX_POINTS:
            raise RequestRefused(
                ErrorCode.BAD_USER_INPUT, f"`last` is a whole number from 1 to {MAX_POINTS}, not {last}."
            )
        account = await _account(info.context, self.account_id)
        buckets = last_buckets(info.context.now_for(account), account.timezone, granularity, last)
        history = await info.context.load.history(granularity, HistoryKey(self.account_id, buckets[0].start))
        points = trace_history(self.figure, history, buckets, account.timezone, granularity)
        return [UsagePoint(start=point.start, end=point.end, quantity=BigInt(point.quantity)) for point in points]

    @field
    async def forecast(self, info: Info) -> UsageForecast | None:
        """Where it is heading; null before a first whole day of usage, and while none is taken from the account."""
        found = await _forecast(info.context, self.figure)
        return None if found is None else UsageForecast.of(self.figure, found)


# --- money -----------------------------------------------------------------------------------------------------------


@strawberry.type(description="One line of the next charge.")
class NextBillingLine:
    """A line of the next charge."""

    kind: LineKind = said("What it charges for.")
    description: str = said("For people to read.")
    amount: Money = said("Net of tax.")


@strawberry.type(description="The next period close at which something is to be paid, as things stand.")
class NextBilling:
    """The next charge."""

    at: datetime = said(
        "When the period or trial ends. A period's invoice is finalised and charged after the time that its issuer "
        "waits for late usage (an hour, unless set otherwise), a trial's end is charged at once."
    )
    date: datetime_date = said("The same as a calendar day of the account's zone.")
    kind: NextBillingKind = said("What it is for.")
    amount: Money = said("What will be due: with tax, after the credit balance and what was carried forward.")
    estimated: bool = said("Whether usage until then can still change it.")
    lines: list[NextBillingLine] = said("What it is made of.")


@strawberry.type(description="The start of the next billing period.")
class NextRenewal:
    """The next renewal."""

    at: datetime = said("When it begins.")
    amount: Money = said("Subscription and add-ons then, net of tax.")


@strawberry.type(description="How an account pays. Card numbers never reach this system.")
class PaymentMethod(Node):
    """A payment method."""

    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds it again.")
    kind: PaymentMethodKind = said("What it is.")
    brand: str = said("The card's brand, such as visa.")
    last4: str = said("The last four digits.")
    exp_month: int = said("The month it expires with, 1 to 12.")
    exp_year: int = said("The year it expires in.")
    is_default: bool = said("Whether charges go to it.")
    created_at: datetime = said("When it was added.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.PaymentMethod) -> Self:
        """A payment method from its row."""
        return cls(
            account_id=row.account_id,
            id=encode_id("PaymentMethod", row.id),
            kind=row.kind,
            brand=row.brand,
            last4=row.last4,
            exp_month=row.exp_month,
            exp_year=row.exp_year,
            is_default=row.is_default,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def expires_soon(self, info: Info) -> bool:
        """Whether it expires within 30 days."""
        account = await _account(info.context, self.account_id)
        return charges.expires_soon(self.exp_year, self.exp_month, info.context.now_for(account))

    @field
    def viewer_can(self, info: Info) -> list["Permission"]:
        """What the caller may do with it."""
        return [Permission.of(state) for state in list_method_permissions(info.context.principal, self.account_id)]


@strawberry.type(description="Why something is not allowed.")
class PermissionReason:
    """A reason."""

    code: UserErrorCode = said("The code that the mutation would answer.")
    message: str = said("What it needs, for people to read.")


@strawberry.type(
    description="Whether the caller may do something now: true exactly when the mutation would not refuse it for the "
    "caller's role or the state of what it acts on. It may still be refused for what else it needs, such as a price, "
    "limits that fit, a company, a payment method, or that no other change is under way."
)
class Permission:
    """A permission."""

    action: Action = said("What.")
    allowed: bool = said("Whether role and state allow it.")
    reason: PermissionReason | None = said("Why not; null when allowed.")

    @classmethod
    def of(cls, state: PermissionState) -> Self:
        """A permission from what the service says."""
        refused = state.refusal
        return cls(
            action=state.action,
            allowed=refused is None,
            reason=None if refused is None else PermissionReason(code=refused.code, message=refused.message),
        )


@strawberry.type(description="A person who belongs to an account.")
class Member(Node):
    """A member."""

    row: strawberry.Private[models.Member]
    id: strawberry.ID = said("Opaque, and the same for ever. `setMemberRole` and `removeMember` take it.")
    display_name: str = said("For people to read; from the person's JWT when they joined.")
    email: EmailAddress | None = said("Where the invitation reached them; null of who came without one.")
    locale: str | None = said("Their language, as a BCP 47 tag; null where the invitation named none.")
    role: Role = said("What they may, by docs/access.md.")
    created_at: datetime = said("When they first joined.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Member) -> Self:
        """A member from its row."""
        return cls(
            row=row,
            id=encode_id("Member", row.id),
            display_name=row.display_name,
            email=None if row.email is None else EmailAddress(row.email),
            locale=row.locale,
            role=row.role,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def viewer_can(self, info: Info) -> list[Permission]:
        """What the caller may do with it."""
        context = info.context
        everyone = await context.load.related(MEMBERS_OF_ACCOUNT, self.row.account_id)
        account = await context.load.account(self.row.account_id)
        assert account is not None, "a foreign key guarantees the account"
        agreement = await context.load.agreement(account.id)
        subscription = None if agreement is None else agreement.subscription
        states = members.list_member_permissions(context.principal, account, subscription, self.row, everyone)
        return [Permission.of(state) for state in states]


@strawberry.type(description="An invitation that was not accepted yet.")
class Invite(Node):
    """An invitation."""

    row: strawberry.Private[models.Invite]
    id: strawberry.ID = said("Opaque, and the same for ever. `resendInvite` and `revokeInvite` take it.")
    email: EmailAddress = said("Where its link is sent.")
    role: Role = said("What whoever accepts it will be.")
    locale: str | None = said("The language of its mail, as a BCP 47 tag; the account's when null.")
    invited_by: str = said("Who invited, as member:ID, operator:ID or api_key:ID.")
    expires_at: datetime = said("When its link ends, by the wall clock; sending it again gives it a new one.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it was last sent.")

    @classmethod
    def of(cls, row: models.Invite) -> Self:
        """An invitation from its row."""
        return cls(
            row=row,
            id=encode_id("Invite", row.id),
            email=EmailAddress(row.email),
            role=row.role,
            locale=row.locale,
            invited_by=row.invited_by,
            expires_at=row.expires_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="That the ownership of an account is offered to a member, who has to accept it.")
class OwnershipTransfer:
    """An offer."""

    row: strawberry.Private[models.OwnershipTransfer]
    expires_at: datetime = said("When the offer ends by itself, by the wall clock.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.OwnershipTransfer) -> Self:
        """An offer from its row."""
        return cls(row=row, expires_at=row.expires_at, created_at=row.created_at, updated_at=row.updated_at)

    @field
    async def offered_by(self, info: Info) -> Member | None:
        """Who gives it, and is a billing admin afterwards; null where an operator arranged it."""
        id_ = self.row.from_member_id
        row = None if id_ is None else await info.context.load.row(models.Member, id_)
        return None if row is None else Member.of(row)

    @field
    async def offered_to(self, info: Info) -> Member | None:
        """Who shall have it: `acceptOwnership` is for this member alone."""
        row = await info.context.load.row(models.Member, self.row.to_member_id)
        return None if row is None else Member.of(row)


@strawberry.type(description="A secret that a program shows instead of signing in. It can do what its maker still may.")
class ApiKey(Node):
    """An API key."""

    row: strawberry.Private[models.ApiKey]
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the key again.")
    name: str = said("What it is for, for people to read.")
    prefix: str = said("What its token begins with: by this it is recognised. The rest is shown once, when it is made.")
    scopes: list[str] = said("What it may, of what its maker may: billing:read, billing:write, usage:write, admin.")
    opens_all: bool = said("Whether it opens every account, also those to come: an operator's.")
    networks: list[str] = said("From where it may be shown, as CIDR networks; from everywhere when empty.")
    expires_at: datetime | None = said("When it ends by itself; null where it does not.")
    last_used_at: datetime | None = said(
        "When it was last shown, to a few minutes: not every use is written. Null before the first."
    )
    rotated_at: datetime | None = said("When it was last given a new secret.")
    created_at: datetime = said("When it was made, by the wall clock, as are all its times.")
    updated_at: datetime = said("When it last changed. That it is used changes nothing.")

    @classmethod
    def of(cls, row: models.ApiKey) -> Self:
        """A key from its row."""
        return cls(
            row=row,
            id=encode_id("ApiKey", row.id),
            name=row.name,
            prefix=row.prefix,
            scopes=list(row.scopes),
            opens_all=row.opens_all,
            networks=list(row.networks),
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            rotated_at=row.rotated_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def status(self, info: Info) -> ApiKeyStatus:
        """Whether it is good."""
        return keys.status_of(self.row, await self._revoked_at(info.context), info.context.now())

    @field
    async def revoked_at(self, info: Info) -> datetime | None:
        """When it was revoked: for all its accounts, or for those that you see; null where it was not."""
        return await self._revoked_at(info.context)

    @field
    def previous_secret_ends_at(self, info: Info) -> datetime | None:
        """Until when the secret before the last rotation is good, too; null where it is not any more."""
        until = self.row.previous_until
        return until if until is not None and until > info.context.now() else None

    @field
    async def accounts(self, info: Info) -> list["BillingAccount"]:
        """The accounts that it opens, at most 50, as far as you may see them; empty where it opens all."""
        principal, load = info.context.principal, info.context.load
        shown = [
            opening.account_id
            for opening in await load.related(OPENINGS_OF_KEY, self.row.id)
            if opening.revoked_at is None and principal.may(Right.READ_USAGE, opening.account_id)
        ]
        rows = await asyncio.gather(*map(load.account, shown))
        return [BillingAccount.of(row) for row in rows if row is not None]

    @field
    async def made_by(self, info: Info) -> str:
        """Whose rights it has at most, as operator:ID, or member:ID of an account that you see."""
        if self.row.operator_id is not None:
            return f"operator:{self.row.operator_id}"
        openings = await info.context.load.related(OPENINGS_OF_KEY, self.row.id)
        principal = info.context.principal
        seen = next(opening for opening in openings if principal.role_in(opening.account_id) is not None)
        return f"member:{seen.member_id}"

    @field
    async def viewer_can(self, info: Info) -> list[Permission]:
        """What the caller may do with it."""
        openings = await info.context.load.related(OPENINGS_OF_KEY, self.row.id)
        states = keys.list_key_permissions(info.context.principal, self.row, openings, info.context.now())
        return [Permission.of(state) for state in states]

    async def _revoked_at(self, context: Context) -> datetime | None:
        openings = await context.load.related(OPENINGS_OF_KEY, self.row.id)
        return keys.revoked_for(context.principal, self.row, openings)


def _rate(rate_ppm: int) -> float:
    return rate_ppm / 10_000


@strawberry.type(description="A span of time, half-open.")
class Period:
    """A period."""

    start: datetime = said("When it begins.")
    end: datetime = said("When it ends, exclusive.")


@strawberry.type(description="One step of a reckoning.")
class ExplanationStep:
    """A step."""

    label: str = said("What it is.")
    expression: str = said("How it comes about, in whole numbers; amounts are minor units.")
    value: str = said("What it comes to: a whole number, or an amount with its currency.")

    @classmethod
    def of(cls, step: Step, currency: str) -> Self:
        """A step as it is shown."""
        value = f"{step.number}" if step.minor is None else f"{to_decimal(step.minor, currency)} {currency}"
        return cls(label=step.label, expression=step.expression, value=value)


@strawberry.type(description="How an amount was reckoned: the steps recompute to the same minor unit.")
class Explanation:
    """An explanation."""

    steps: list[ExplanationStep] = said("From the figures to the amount.")
    result: Money = said("What the last step comes to: the line's amount.")

    @classmethod
    def of(cls, basis: dict[str, Any], currency: str) -> Self:
        """An explanation from the figures that are kept with a line."""
        return cls(
            steps=[ExplanationStep.of(step, currency) for step in explain(basis)],
            result=Money.of(reckon(basis), currency),
        )


@strawberry.type(description="One line of an invoice, net of tax.")
class InvoiceLine(Node):
    """A line of an invoice."""

    row: strawberry.Private[models.InvoiceLine]
    currency: strawberry.Private[str]
    account_id: AccountId
    metric_key: strawberry.Private[str | None]
    offered_key: strawberry.Private[str | None]
    id: strawberry.ID = said("Opaque, and the same for ever.")
    kind: LineKind = said("What it charges for.")
    description: str = said("For people to read.")
    quantity: BigInt = said("How many.")
    unit_amount: Money = said("What one costs.")
    amount: Money = said("What all cost, rounded once.")
    period: Period = said("From when to when it counts.")
    tax_category: str = said("The tax category by EN 16931, such as S, AE or O.")
    tax_rate: float = said("The rate in percent.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.InvoiceLine, currency: str) -> Self:
        """A line from its row."""
        return cls(
            row=row,
            currency=currency,
            account_id=row.account_id,
            id=encode_id("InvoiceLine", row.id),
            kind=row.kind,
            description=row.description,
            quantity=BigInt(row.quantity),
            unit_amount=Money.of(row.unit_minor, currency),
            amount=Money.of(row.amount_minor, currency),
            period=Period(start=row.period_start, end=row.period_end),
            tax_category=row.tax_category,
            tax_rate=_rate(row.tax_rate_ppm),
            created_at=row.created_at,
            updated_at=row.updated_at,
            metric_key=row.metric_key,
            offered_key=row.plan_key,
        )

    @field
    def explain(self) -> Explanation:
        """How the amount was reckoned."""
        return Explanation.of(self.row.basis, self.currency)

    @field
    async def credited_line(self, info: Info) -> "InvoiceLine | None":
        """The line that this one takes from; null for a charge."""
        if self.row.credited_line_id is None:
            return None
        row = await info.context.load.row(models.InvoiceLine, self.row.credited_line_id)
        return None if row is None else InvoiceLine.of(row, self.currency)

    @field
    async def metric(self, info: Info) -> Metric | None:
        """The metric of an overage or correction line."""
        row = None if self.metric_key is None else await info.context.load.metric(self.metric_key)
        return None if row is None else Metric.of(row)

    @field
    async def plan(self, info: Info) -> Plan | None:
        """The plan of a subscription line, as it is offered now; null when it is not any more."""
        offer = None if self.offered_key is None else await info.context.load.offer(self.offered_key)
        return None if offer is None else Plan.of(offer)


@strawberry.type(description="The tax of an invoice for one jurisdiction, category and rate.")
class TaxLine:
    """A tax row."""

    jurisdiction: str = said("Whose tax.")
    category: str = said("The category by EN 16931.")
    rate: float = said("The rate in percent.")
    taxable_amount: Money = said("The sum of the rounded lines it is reckoned on.")
    amount: Money = said("The tax, rounded once.")
    reason: str | None = said("Why no tax is due, such as Reverse charge.")

    @classmethod
    def of(cls, row: models.InvoiceTax | models.CreditNoteTax, currency: str) -> Self:
        """A tax row from its row."""
        return cls(
            jurisdiction=row.jurisdiction,
            category=row.category,
            rate=_rate(row.rate_ppm),
            taxable_amount=Money.of(row.taxable_minor, currency),
            amount=Money.of(row.amount_minor, currency),
            reason=row.reason,
        )

    @classmethod
    def foreseen(cls, amount: TaxAmount, currency: str) -> Self:
        """A tax row of something that is not issued yet."""
        return cls(
            jurisdiction=amount.rate.jurisdiction,
            category=amount.rate.category,
            rate=_rate(amount.rate.rate_ppm),
            taxable_amount=Money.of(amount.taxable_minor, currency),
            amount=Money.of(amount.amount_minor, currency),
            reason=amount.rate.reason,
        )


@strawberry.type(description="A line of something that is not issued yet.")
class PreviewLine:
    """A line to come."""

    kind: LineKind = said("What it charges for.")
    description: str = said("For people to read, in the account's language.")
    quantity: BigInt = said("How many; -1 for a credit.")
    unit_amount: Money = said("What one costs.")
    amount: Money = said("What all cost, rounded once, net of tax; below 0 for a credit.")
    period: Period = said("From when to when it counts.")
    tax_category: str = said("The tax category by EN 16931, such as S, AE or O.")
    tax_rate: float = said("The rate in percent.")
    credited_invoice_number: str | None = said("The invoice that a credit takes from; null for a charge.")
    explain: Explanation = said("How the amount is reckoned.")

    @classmethod
    def of(cls, line: BillLine, currency: str, language: str) -> Self:
        """A line as it would be issued."""
        return cls(
            kind=line.kind,
            description=line.describe(language),
            quantity=BigInt(line.quantity),
            unit_amount=Money.of(line.unit_minor, currency),
            amount=Money.of(line.amount_minor, currency),
            period=Period(start=line.start, end=line.end),
            tax_category=line.taxes[0].category,
            tax_rate=_rate(sum(rate.rate_ppm for rate in line.taxes)),
            credited_invoice_number=(line.credited.invoice_number or None) if line.credited else None,
            explain=Explanation.of(line.basis, currency),
        )


@strawberry.type(description="An invoice to come, as things stand: computed by the code that issues it.")
class InvoicePreview:
    """An invoice to come."""

    at: datetime = said(
        "When the period closes or the trial ends. A period's invoice is finalised after the time that its issuer "
        "waits for late usage (an hour, unless set otherwise), that of a trial's end at once."
    )
    lines: list[PreviewLine] = said("What it would charge for.")
    tax_breakdown: list[TaxLine] = said("Its tax by jurisdiction, category and rate.")
    subtotal: Money = said("The sum of the lines, net.")
    tax: Money = said("All tax.")
    total: Money = said("Net and tax.")
    carried_in: Money = said("Owed from earlier invoices that were too small to charge.")
    balance_applied: Money = said("What the credit balance would pay.")
    amount_due: Money = said("What would be to be paid.")

    @classmethod
    def of(cls, preview: charges.Preview, account: models.BillingAccount) -> Self:
        """A preview as it is shown."""
        currency, language = account.currency, language_of(account)
        totals = preview.totals
        return cls(
            at=preview.at,
            lines=[PreviewLine.of(line, currency, language) for line in preview.lines],
            tax_breakdown=[TaxLine.foreseen(amount, currency) for amount in taxes_of(preview.lines)],
            subtotal=Money.of(totals.subtotal_minor, currency),
            tax=Money.of(totals.tax_minor, currency),
            total=Money.of(totals.total_minor, currency),
            carried_in=Money.of(totals.carried_in_minor, currency),
            balance_applied=Money.of(totals.balance_minor, currency),
            amount_due=Money.of(totals.due_minor, currency),
        )


@strawberry.type(description="Something in use above what a plan would allow.")
class BlockedBy:
    """An excess."""

    metric: Metric = said("Which metric.")
    used: BigInt = said("How much is in use.")
    new_limit: BigInt = said("How much would be allowed.")


@strawberry.type(
    description="A binding price for a change: instant, lines, tax and total are pinned, and the mutation that takes "
    "its id charges exactly that."
)
class Quote(Node):
    """A quote."""

    account_id: AccountId
    id: strawberry.ID = said("What the mutation takes as `quoteId`.")
    expires_at: datetime = said("Until when it binds; any change of the subscription ends it too.")
    effective_at: datetime = said("The instant that the change counts from.")
    lines: list[PreviewLine] = said("What is charged and credited; empty where nothing is before the period's end.")
    tax_breakdown: list[TaxLine] = said("The tax on it.")
    due_now: Money = said(
        "What is charged on confirming, as things stand: the pinned total and what was carried, less the credit "
        "balance. Credit that is granted or used before it is confirmed moves it."
    )
    credit_applied: Money = said("What the credit balance pays of it, as things stand.")
    next_invoice: InvoicePreview | None = said(
        "The invoice after the change, from what `dueNow` leaves of the credit balance; null where none follows."
    )
    removed_add_ons: list[AddOn] = said("Add-ons that the new plan does not offer: they end with the change.")
    blocked_by: list[BlockedBy] = said("What must be reduced before the change is possible; empty when nothing.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("The same: what a quote pins never changes.")

    @classmethod
    def of(cls, view: QuoteView, account: models.BillingAccount) -> Self:
        """A quote as it is shown."""
        currency, language = account.currency, language_of(account)
        row = view.quote
        return cls(
            account_id=row.account_id,
            id=encode_id("Quote", row.id),
            expires_at=row.expires_at,
            effective_at=row.effective_at,
            lines=[PreviewLine.of(line, currency, language) for line in view.bill.lines],
            tax_breakdown=[TaxLine.foreseen(amount, currency) for amount in taxes_of(view.bill.lines)],
            due_now=Money.of(view.totals.due_minor, currency),
            credit_applied=Money.of(view.totals.balance_minor, currency),
            next_invoice=None if view.upcoming is None else InvoicePreview.of(view.upcoming, account),
            removed_add_ons=[AddOn.of(add_on) for add_on in view.removed_add_ons],
            blocked_by=[
                BlockedBy(metric=Metric.of(excess.metric), used=BigInt(excess.used), new_limit=BigInt(excess.new_limit))
                for excess in view.exceeding
            ],
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="What an account owes for a period. Frozen once it has a number.")
class Invoice(Node):
    """An invoice."""

    row: strawberry.Private[models.Invoice]
    account_id: AccountId
    invoice_id: strawberry.Private[Any]
    currency: strawberry.Private[str]
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the invoice again.")
    cursor: str | None = said(
        "In a stream its place there: a subscription given this as `after` goes on behind it. Null elsewhere."
    )
    kind: InvoiceKind = said("What it came from.")
    number: str | None = said("Unique and gapless per issuer; null while a draft.")
    status: InvoiceStatus = said("Where it stands.")
    issued_at: datetime | None = said("When it was finalised; null while a draft.")
    due_at: datetime | None = said("When it is to be paid; null while a draft.")
    period_start: datetime = said("From when it charges.")
    period_end: datetime = said("Until when, exclusive.")
    subtotal: Money = said("The sum of the lines, net.")
    tax: Money = said("All tax.")
    total: Money = said("Net and tax.")
    carried_in: Money = said("Owed from earlier invoices that were too small to charge.")
    carried_out: Money = said("Too small to charge: owed with the next invoice, or given up on the last.")
    balance_applied: Money = said("What the credit balance paid.")
    amount_paid: Money = said("What was paid in money.")
    amount_credited: Money = said("What credit notes took back while it was to be paid.")
    amount_due: Money = said("What is still to be paid.")
    bill_to: JsonObject = said("Whom it is made out to, as it was then.")
    issuer: JsonObject = said("Who issued it, as it was then; empty while a draft.")
    content_hash: str | None = said("SHA-256 of what was frozen, in hex; null while a draft.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Invoice, sequence: int | None = None) -> Self:
        """An invoice from its row; in a stream at the place of the change."""
        currency = row.currency
        return cls(
            row=row,
            account_id=row.account_id,
            invoice_id=row.id,
            currency=currency,
            id=encode_id("Invoice", row.id),
            cursor=None if sequence is None else encode_change(row.account_id, sequence),
            kind=row.kind,
            number=row.number,
            status=row.status,
            issued_at=row.issued_at,
            due_at=row.due_at,
            period_start=row.period_start,
            period_end=row.period_end,
            subtotal=Money.of(row.subtotal_minor, currency),
            tax=Money.of(row.tax_minor, currency),
            total=Money.of(row.total_minor, currency),
            carried_in=Money.of(row.carried_in_minor, currency),
            carried_out=Money.of(row.carried_out_minor, currency),
            balance_applied=Money.of(row.balance_applied_minor, currency),
            amount_paid=Money.of(row.paid_minor, currency),
            amount_credited=Money.of(row.credited_minor, currency),
            amount_due=Money.of(row.due_minor, currency),
            bill_to=JsonObject(row.bill_to),
            issuer=JsonObject(row.issuer),
            content_hash=row.content_hash,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def lines(self, info: Info) -> list[InvoiceLine]:
        """What it charges for, in order."""
        rows = await info.context.load.related(LINES_OF_INVOICE, self.invoice_id)
        return [InvoiceLine.of(row, self.currency) for row in rows]

    @field
    async def tax_breakdown(self, info: Info) -> list[TaxLine]:
        """Its tax by jurisdiction, category and rate."""
        rows = await info.context.load.related(TAXES_OF_INVOICE, self.invoice_id)
        return [TaxLine.of(row, self.currency) for row in rows]

    @field
    async def transactions(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection["Transaction"]:
        """The movements of money for it, newest first."""
        window = check_window(first, last, after, before)
        part = await info.context.load.page(TRANSACTIONS_OF_INVOICE, self.invoice_id, NoFilter(), window)
        return Connection["Transaction"].of(part, Transaction.of)

    @field
    async def pdf(self, info: Info) -> Document | None:
        """The document; null while a draft."""
        return await show_document(info.context, models.DocumentKind.INVOICE, self.invoice_id)

    @field
    async def e_invoice(self, info: Info) -> Document | None:
        """The EN 16931 XML in the document; null while a draft, and where it carries none."""
        return await show_e_invoice(info.context, models.DocumentKind.INVOICE, self.invoice_id)

    @field
    async def credit_notes(self, info: Info) -> list["CreditNote"]:
        """What was taken back of it, in order of issue; each of its lines at most once in full."""
        rows = await info.context.load.related(CREDIT_NOTES_OF_INVOICE, self.invoice_id)
        return [CreditNote.of(row) for row in rows]

    @field
    async def payment_method(self, info: Info) -> PaymentMethod | None:
        """The method that was charged for it last; null where none was."""
        page = await info.context.load.page(TRANSACTIONS_OF_INVOICE, self.invoice_id, NoFilter(), LAST_ONE)
        method_id = next((row.payment_method_id for _, row in page.rows if row.payment_method_id is not None), None)
        row = None if method_id is None else await info.context.load.row(models.PaymentMethod, method_id)
        return None if row is None else PaymentMethod.of(row)

    @field
    def viewer_can(self, info: Info) -> list[Permission]:
        """What the caller may do with it."""
        return [Permission.of(state) for state in list_invoice_permissions(info.context.principal, self.row)]


@strawberry.type(description="One line of a credit note: what it takes back of one invoiced line, net.")
class CreditNoteLine:
    """A line of a credit note."""

    row: strawberry.Private[models.CreditNoteLine]
    currency: strawberry.Private[str]
    description: str = said("For people to read.")
    amount: Money = said("How much, net; positive.")
    period: Period = said("From when to when it counts.")
    tax_category: str = said("The tax category of the credited line.")
    tax_rate: float = said("The rate of the credited line in percent.")

    @classmethod
    def of(cls, row: models.CreditNoteLine, currency: str) -> Self:
        """A line from its row."""
        return cls(
            row=row,
            currency=currency,
            description=row.description,
            amount=Money.of(row.amount_minor, currency),
            period=Period(start=row.period_start, end=row.period_end),
            tax_category=str(row.taxes[0][1]),
            tax_rate=_rate(sum(int(tax[2]) for tax in row.taxes)),
        )

    @field
    async def credited_line(self, info: Info) -> InvoiceLine | None:
        """The line that it takes from."""
        row = await info.context.load.row(models.InvoiceLine, self.row.credited_line_id)
        return None if row is None else InvoiceLine.of(row, self.currency)


@strawberry.type(description="What of an invoice is taken back. Amounts are positive; it never changes.")
class CreditNote(Node):
    """A credit note."""

    row: strawberry.Private[models.CreditNote]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the credit note again.")
    number: str = said("Unique and gapless per issuer, in a series of its own.")
    reason: str = said("Why, as a stable code: CHANGE, CANCELLATION, VOID, CORRECTION, OPERATOR or REFUND.")
    issued_at: datetime = said("When it was issued.")
    subtotal: Money = said("The sum of the lines, net.")
    tax: Money = said("All tax taken back.")
    total: Money = said("Net and tax.")
    to_invoice: Money = said("How much of it lowered what was due of the invoice.")
    to_refund: Money = said("How much of it is paid back by a refund.")
    to_balance: Money = said("How much of it went to the credit balance.")
    bill_to: JsonObject = said("Whom it is made out to.")
    content_hash: str = said("SHA-256 of what was frozen, in hex.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("The same: a credit note never changes.")

    @classmethod
    def of(cls, row: models.CreditNote) -> Self:
        """A credit note from its row."""
        currency = row.currency
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("CreditNote", row.id),
            number=row.number,
            reason=row.reason,
            issued_at=row.issued_at,
            subtotal=Money.of(row.subtotal_minor, currency),
            tax=Money.of(row.tax_minor, currency),
            total=Money.of(row.total_minor, currency),
            to_invoice=Money.of(row.to_invoice_minor, currency),
            to_refund=Money.of(row.to_refund_minor, currency),
            to_balance=Money.of(row.total_minor - row.to_invoice_minor - row.to_refund_minor, currency),
            bill_to=JsonObject(row.bill_to),
            content_hash=row.content_hash,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def invoice(self, info: Info) -> Invoice | None:
        """The invoice that it corrects."""
        row = await info.context.load.row(models.Invoice, self.row.invoice_id)
        return None if row is None else Invoice.of(row)

    @field
    async def pdf(self, info: Info) -> Document | None:
        """The document."""
        return await show_document(info.context, models.DocumentKind.CREDIT_NOTE, self.row.id)

    @field
    async def e_invoice(self, info: Info) -> Document | None:
        """The EN 16931 XML in the document; null where it carries none."""
        return await show_e_invoice(info.context, models.DocumentKind.CREDIT_NOTE, self.row.id)

    @field
    async def lines(self, info: Info) -> list[CreditNoteLine]:
        """What it takes back, in order; at most as many as the invoice has lines."""
        rows = await info.context.load.related(LINES_OF_CREDIT_NOTE, self.row.id)
        return [CreditNoteLine.of(row, self.row.currency) for row in rows]

    @field
    async def tax_breakdown(self, info: Info) -> list[TaxLine]:
        """Its tax by jurisdiction, category and rate."""
        rows = await info.context.load.related(TAXES_OF_CREDIT_NOTE, self.row.id)
        return [TaxLine.of(row, self.row.currency) for row in rows]


@strawberry.type(description="An amount on an account of the books.")
class LedgerPosting:
    """A posting."""

    account: LedgerAccount = said("Which account of the books.")
    debit: Money | None = said("What is debited; null on a credit.")
    credit: Money | None = said("What is credited; null on a debit.")

    @classmethod
    def of(cls, row: models.LedgerPosting) -> Self:
        """A posting from its row."""
        amount = Money.of(abs(row.amount_minor), row.currency)
        return cls(
            account=row.ledger_account,
            debit=amount if row.amount_minor > 0 else None,
            credit=amount if row.amount_minor < 0 else None,
        )


@strawberry.type(description="One fact in the books, by double entry: debits and credits are equal. It never changes.")
class LedgerEntry(Node):
    """An entry."""

    row: strawberry.Private[models.LedgerEntry]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the entry again.")
    kind: EntryKind = said("What it records.")
    subject: str = said("What it records it of, such as invoice:ID.")
    at: datetime = said("When.")
    created_at: datetime = said("The same.")
    updated_at: datetime = said("The same: an entry never changes.")

    @classmethod
    def of(cls, row: models.LedgerEntry) -> Self:
        """An entry from its row."""
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("LedgerEntry", row.id),
            kind=row.kind,
            subject=row.subject,
            at=row.created_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def postings(self, info: Info) -> list[LedgerPosting]:
        """What it moves, at most one amount for each account of the books."""
        rows = await info.context.load.related(POSTINGS_OF_ENTRY, self.row.id)
        return [LedgerPosting.of(row) for row in rows]


@strawberry.type(description="A time of its own that accounts of the sandbox hang on.")
class TestClock(Node):
    """A test clock."""

    __test__ = False  # not a test class, whatever its name says to pytest
    id: strawberry.ID = said("Opaque, and the same for ever: `advanceTestClock` takes it.")
    name: str = said("For people to read.")
    code: str = said("Stands in the numbers of its accounts' documents.")
    now: datetime = said("Where it stands.")
    created_at: datetime = said("When it was made, by the wall clock.")
    updated_at: datetime = said("When it was last advanced, by the wall clock.")

    @classmethod
    def of(cls, row: models.TestClock) -> Self:
        """A test clock from its row."""
        return cls(
            id=encode_id("TestClock", row.id),
            name=row.name,
            code=row.code,
            now=row.now,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@strawberry.type(description="Why a payment failed.")
class PaymentFailure:
    """A failure."""

    code: FailureCode = said("From a closed list.")
    message: str = said("For the cardholder to read.")
    retryable: bool = said("Whether the same method may work later.")


@strawberry.type(description="One movement, or try, of money.")
class Transaction(Node):
    """A transaction."""

    row: strawberry.Private[models.Transaction]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the transaction again.")
    cursor: str | None = said(
        "In a stream its place there: a subscription given this as `after` goes on behind it. Null elsewhere."
    )
    kind: TransactionKind = said("What kind of movement.")
    status: TransactionStatus = said("How far it got.")
    refund_state: RefundState = said("How much of a charge went back.")
    amount: Money = said("How much, always positive.")
    description: str = said("For people to read.")
    failure: PaymentFailure | None = said("Why it failed; null when it did not.")
    created_at: datetime = said("When it was tried.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Transaction, sequence: int | None = None) -> Self:
        """A transaction from its row; in a stream at the place of the change."""
        code = row.failure_code
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("Transaction", row.id),
            cursor=None if sequence is None else encode_change(row.account_id, sequence),
            kind=row.kind,
            status=row.status,
            refund_state=row.refund_state,
            amount=Money.of(row.amount_minor, row.currency),
            description=row.description,
            failure=None
            if code is None
            else PaymentFailure(
                code=code,
                message=REFUND_FAILURE if row.kind is TransactionKind.REFUND else failure_message(code),
                retryable=is_retryable(code),
            ),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def invoice(self, info: Info) -> Invoice | None:
        """The invoice it is for."""
        if self.row.invoice_id is None:
            return None
        row = await info.context.load.row(models.Invoice, self.row.invoice_id)
        return None if row is None else Invoice.of(row)

    @field
    async def payment_method(self, info: Info) -> PaymentMethod | None:
        """The method it went through; null for what moved without one."""
        if self.row.payment_method_id is None:
            return None
        row = await info.context.load.row(models.PaymentMethod, self.row.payment_method_id)
        return None if row is None else PaymentMethod.of(row)

    @field
    def payment_action(self) -> PaymentAction | None:
        """What the cardholder has to do before it goes through; null when nothing."""
        action = self.row.action
        return None if action is None else PaymentAction.of(action, self.row.expires_at)

    @field
    def reference(self) -> str | None:
        """What the bank says of a payment that was recorded by hand; null for others."""
        return self.row.reference

    @field
    async def receipt(self, info: Info) -> Document | None:
        """The receipt of a payment or refund that went through; null for others."""
        if self.row.status is not TransactionStatus.SUCCEEDED:
            return None
        return await show_document(info.context, models.DocumentKind.RECEIPT, self.row.id)

    @field
    async def charge(self, info: Info) -> "Transaction | None":
        """The payment that a refund or a dispute is about, or credit was given for; null for others."""
        row = (
            None if self.row.charge_id is None else await info.context.load.row(models.Transaction, self.row.charge_id)
        )
        return None if row is None else Transaction.of(row)

    @field
    async def refunds(self, info: Info) -> list["Transaction"]:
        """The refunds of a payment, in order."""
        rows = await info.context.load.related(REFUNDS_OF_CHARGE, self.row.id)
        return [Transaction.of(row) for row in rows]

    @field
    async def refundable_amount(self, info: Info) -> Money:
        """What of a payment can still go back, requests that wait counted as gone. A transfer goes back by hand."""
        item = await info.context.load.refundable(self.row)
        return Money.of(item.refundable_minor, self.row.currency)

    @field
    async def refund_policy(
        self,
        info: Info,
        reason: Annotated[RefundReason, strawberry.argument(description="Why it would go back.")],
        from_: Annotated[
            datetime | None,
            strawberry.argument(
                name="from", description="Of a SERVICE_ISSUE: when it began; the whole time if left out."
            ),
        ] = None,
        to: Annotated[
            datetime | None, strawberry.argument(description="Of a SERVICE_ISSUE: when it was over, exclusive.")
        ] = None,
        line_ids: Annotated[
            list[strawberry.ID] | None,
            strawberry.argument(description="Of a BILLING_ERROR: the lines that are wrong; all if left out."),
        ] = None,
    ) -> "RefundVerdict":
        """What the rules would say of a refund, and how much they allow at most.

        What `requestRefund` would refuse for its form is `BAD_USER_INPUT` here.
        """
        account = await _account(info.context, self.account_id)
        item = await info.context.load.refundable(self.row)
        asked = read_asked(reason, None, from_, to, line_ids)
        try:
            check_asked(item, asked, is_preview=True)
        except InvalidInput as refusal:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, str(refusal)) from refusal
        return RefundVerdict.of(judge(item, asked, info.context.now_for(account)), self.row.currency)

    @field
    def viewer_can(self, info: Info) -> list[Permission]:
        """What the caller may do with it."""
        return [Permission.of(state) for state in list_transaction_permissions(info.context.principal, self.row)]


def read_asked(
    reason: RefundReason,
    amount_minor: int | None,
    start: datetime | None,
    end: datetime | None,
    line_ids: list[strawberry.ID] | None,
) -> Asked:
    """What somebody wants back, as the services know it. A line that is none is one that no invoice has."""
    period = None
    if start is not None or end is not None:
        period = Span((start or BEGINNING).replace(microsecond=0), (end or END).replace(microsecond=0))
    ids = None
    if line_ids is not None:
        ids = [key_of(id_, "InvoiceLine") or NOBODY for id_ in line_ids[: MAX_REFUNDED_LINES + 1]]
    return Asked(reason=reason, amount_minor=amount_minor, period=period, line_ids=ids)


@strawberry.type(description="What the rules say of a refund.")
class RefundVerdict:
    """A verdict."""

    allowed: bool = said("Whether the rules allow it. An operator may override them, with a reason.")
    maximum: Money = said("How much they allow at most, tax included.")
    code: RefundCode = said("Why.")
    message: str = said("The same for people to read.")

    @classmethod
    def of(cls, verdict: Verdict, currency: str) -> Self:
        """A verdict with its words."""
        return cls(
            allowed=verdict.is_allowed,
            maximum=Money.of(verdict.maximum_minor, currency),
            code=verdict.code,
            message=refund_message(verdict.code),
        )


@strawberry.type(description="That somebody asked for a payment, or a part of it, back.")
class RefundRequest(Node):
    """A request."""

    row: strawberry.Private[models.RefundRequest]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the request again.")
    reason: RefundReason = said("Why.")
    status: RefundStatus = said("How far it got.")
    amount: Money = said("What was asked for, tax included.")
    approved_amount: Money | None = said("What was approved, tax included; null until it is.")
    from_: datetime | None = strawberry.field(name="from", description="Of a SERVICE_ISSUE: when it began.")
    to: datetime | None = said("Of a SERVICE_ISSUE: when it was over, exclusive.")
    note: str = said("What whoever asked said to it.")
    requested_by: str = said("Who asked, as api_key:ID, member:ID or operator:ID.")
    verdict: RefundVerdict = said("What the rules said when it was asked for.")
    review_reason: str | None = said("What the operator said to it.")
    reviewed_at: datetime | None = said("When it was decided; null until then.")
    created_at: datetime = said("When it was asked for.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.RefundRequest) -> Self:
        """A request from its row."""
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("RefundRequest", row.id),
            reason=row.reason,
            status=row.status,
            amount=Money.of(row.amount_minor, row.currency),
            approved_amount=None if row.approved_minor is None else Money.of(row.approved_minor, row.currency),
            from_=row.from_at,
            to=row.to_at,
            note=row.note,
            requested_by=row.requested_by,
            verdict=RefundVerdict.of(Verdict.of(row.verdict), row.currency),
            review_reason=row.review_reason,
            reviewed_at=row.reviewed_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def account(self, info: Info) -> "BillingAccount":
        """Whose payment it is about."""
        return BillingAccount.of(await _account(info.context, self.account_id))

    @field
    async def transaction(self, info: Info) -> Transaction:
        """The payment."""
        row = await info.context.load.row(models.Transaction, self.row.charge_id)
        assert row is not None, "a foreign key guarantees the payment"
        return Transaction.of(row)

    @field
    async def lines(self, info: Info) -> list["InvoiceLine"]:
        """Of a BILLING_ERROR: the lines that are wrong."""
        rows = [await info.context.load.row(models.InvoiceLine, UUID(line_id)) for line_id in self.row.line_ids]
        return [InvoiceLine.of(row, self.row.currency) for row in rows if row is not None]

    @field
    async def refunds(self, info: Info) -> list[Transaction]:
        """What went back by it, or was tried to."""
        return [Transaction.of(row) for row in await info.context.load.related(REFUNDS_OF_REQUEST, self.row.id)]

    @field
    async def credit_note(self, info: Info) -> "CreditNote | None":
        """What it took back of the invoice; null until it is approved, and for a duplicate."""
        note_id = self.row.credit_note_id
        row = None if note_id is None else await info.context.load.row(models.CreditNote, note_id)
        return None if row is None else CreditNote.of(row)

    @field
    def viewer_can(self, info: Info) -> list[Permission]:
        """What the caller may do with it."""
        return [Permission.of(state) for state in list_request_permissions(info.context.principal, self.row)]


@strawberry.type(description="A share of a budget at which an alert is raised.")
class BudgetThreshold:
    """A threshold of a budget."""

    percent: int = said("The share of the budget, in whole percent.")
    level: AlertLevel = said("The level that reaching it gives.")


@strawberry.type(description="What was spent under a budget in one usage period.")
class BudgetPeriod:
    """A usage period of a budget."""

    start: datetime = said("When it began.")
    end: datetime = said("When it ends, exclusive.")
    limit: Money = said("The ceiling; of a period that is over the last one in it.")
    spent: Money = said("What was spent, net. Of a period that is over, late usage may still move it for 35 days.")
    percent: float = said("The share spent, cut to two places; may pass 100.")

    @classmethod
    def of(cls, row: models.BudgetPeriod, currency: str) -> Self:
        """A usage period from its row."""
        return cls(
            start=row.period_start,
            end=row.period_end,
            limit=Money.of(row.limit_minor, currency),
            spent=Money.of(row.spent_minor, currency),
            percent=percent_of(row.spent_minor, row.limit_minor) or 0.0,
        )


@strawberry.type(description="A ceiling on net spend per usage period.")
class Budget(Node):
    """A budget."""

    account_id: AccountId
    row: strawberry.Private[models.Budget]
    currency: strawberry.Private[str]
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the budget again.")
    cursor: str = said("Its place in the account's stream: a subscription given this as `after` goes on behind it.")
    scope: BudgetScope = said("What it limits the spend of.")
    workspace: str | None = said("Of scope WORKSPACE: which one, as events name it by their property `workspace`.")
    limit: Money = said("The ceiling on what is spent in a usage period, net.")
    spent: Money = said(
        "What is spent in the usage period: of the account its plan (an annual one in twelfths), add-ons, prorations "
        "and overage so far; of a metric its add-ons and overage; of a workspace what its events cost."
    )
    held: Money = said("What open reservations would cost on top.")
    remaining: Money = said("What is left beside what is spent and held, never below 0.")
    percent: float = said("The share spent, cut to two places; may pass 100.")
    level: AlertLevel = said("From the highest threshold reached.")
    thresholds: list[BudgetThreshold] = said("The shares at which alerts are raised, ascending.")
    action: BudgetAction = said("What happens when it is spent.")
    upgrade_ceiling: Money | None = said("Of the action UPGRADE: what a plan may cost per month at most, net.")
    period_start: datetime | None = said("When the usage period began that is shown; null where none has begun.")
    period_end: datetime | None = said("When that usage period ends, exclusive: then it starts from 0.")
    blocked_at: datetime | None = said("When it first stopped usage in that period, under the limit of now.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it itself last changed.")

    @classmethod
    def of(cls, state: BudgetState, sequence: int | None = None) -> Self:
        """A budget from its row and spend; in a stream at the place of the change."""
        row, currency, period = state.budget, state.currency, state.period
        spent = period.spent_minor if period else 0
        place = (period.sequence if period else 0) if sequence is None else sequence
        percents = [int(percent) for percent in row.thresholds]
        reached = list_reached(percents, spent, row.limit_minor)
        ceiling = row.upgrade_ceiling_minor
        return cls(
            account_id=row.account_id,
            row=row,
            currency=currency,
            id=encode_id("Budget", row.id),
            cursor=encode_change(row.account_id, place),
            scope=row.scope,
            workspace=row.subject if row.scope is BudgetScope.WORKSPACE else None,
            limit=Money.of(row.limit_minor, currency),
            spent=Money.of(spent, currency),
            held=Money.of(state.held_minor, currency),
            remaining=Money.of(max(0, row.limit_minor - spent - state.held_minor), currency),
            percent=percent_of(spent, row.limit_minor) or 0.0,
            level=level_of_threshold(reached[-1]) if reached else AlertLevel.OK,
            thresholds=[BudgetThreshold(percent=percent, level=level_of_threshold(percent)) for percent in percents],
            action=row.action,
            upgrade_ceiling=None if ceiling is None else Money.of(ceiling, currency),
            period_start=period.period_start if period else None,
            period_end=period.period_end if period else None,
            blocked_at=period.blocked_at if period else None,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def metric(self, info: Info) -> Metric | None:
        """Of scope METRIC: which one; null for the other scopes."""
        found = await info.context.load.metric(self.row.subject) if self.scope is BudgetScope.METRIC else None
        return None if found is None else Metric.of(found)

    @field
    async def history(
        self,
        info: Info,
        last: Annotated[
            int, strawberry.argument(description=f"How many usage periods, the running one included: 1 to {MAX_KEPT}.")
        ] = 12,
    ) -> list[BudgetPeriod]:
        """What was spent in each usage period since it was set, newest first; 24 are kept beside the running one."""
        if not 1 <= last <= MAX_KEPT:
            told = f"`last` is a whole number from 1 to {MAX_KEPT}, not {last}."
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, told)
        rows = await info.context.load.related(PERIODS_OF_BUDGET, self.row.id)
        return [BudgetPeriod.of(row, self.currency) for row in rows[:last]]


# --- alerts and notices ----------------------------------------------------------------------------------------------


@strawberry.type(description="What to do about an alert.")
class RecommendedAction:
    """A recommended action."""

    alert: strawberry.Private[models.Alert]
    kind: RecommendedActionKind = said("What.")
    label: str = said("For a button.")

    @field
    async def plan(self, info: Info) -> Plan | None:
        """Of UPGRADE_PLAN: the cheapest public plan, at the account's interval and in its currency, that would fit.

        Under it the metric stands below 80 %, and no gauge above its limit. Null where none is.
        """
        offer = (await self._fit(info)).plan
        return None if offer is None else Plan.of(offer)

    @field
    async def add_on(self, info: Info) -> AddOn | None:
        """Of UPGRADE_PLAN: the add-on that would do instead, under the present plan, for the least; null where none."""
        row = (await self._fit(info)).add_on
        return None if row is None else AddOn.of(row)

    @field
    async def add_on_quantity(self, info: Info) -> int | None:
        """How many units of `addOn` to hold in all, as `setAddOn` takes it; null without one."""
        return (await self._fit(info)).quantity

    async def _fit(self, info: Info) -> Fit:
        return await info.context.load.fit(self.alert) if self.kind is RecommendedActionKind.UPGRADE_PLAN else Fit()


ACTION_LABELS = {
    RecommendedActionKind.UPGRADE_PLAN: "Change to a larger plan",
    RecommendedActionKind.REDUCE_USAGE: "Use less",
    RecommendedActionKind.CHANGE_BUDGET: "Change the budget",
}


@strawberry.type(
    description="That a threshold was reached, raised once per episode, or that a day is unusual, raised once for it; "
    "with the figures of that moment."
)
class Alert(Node):
    """An alert."""

    row: strawberry.Private[models.Alert]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the alert again.")
    cursor: str = said("Its place in the account's stream: a subscription given this as `after` goes on behind it.")
    kind: AlertKind = said("What it is about.")
    threshold: int | None = said("The share that was reached, in whole percent; null on spikes.")
    level: AlertLevel = said("How near the ceiling that is.")
    used: BigInt | None = said("The figure at that moment, of a spike the day's; null on budget alerts.")
    limit: BigInt | None = said("The limit at that moment; null on budget alerts and spikes.")
    percent: float | None = said(
        "The share at that moment, cut to two places; of a spike that of what is usual, null where that is 0."
    )
    period_start: datetime | None = said("The usage period it belongs to, or a spike's day; null for a gauge.")
    period_end: datetime | None = said("Where that period or day ends, exclusive; null for a gauge.")
    spike: Spike | None = said("The unusual day; null on alerts of other kinds.")
    raised_at: datetime = said("When it was raised.")
    resolved_at: datetime | None = said("When its cause was gone; null while it is open.")
    acknowledged_at: datetime | None = said("When somebody said that they have seen it.")
    acknowledged_by: str | None = said("Who that was first, by the name that the audit log knows them by.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Alert, sequence: int | None = None) -> Self:
        """An alert from its row; in a stream at the place of the change, which may be its resolution."""
        is_spike = row.kind is AlertKind.SPIKE
        is_gauge = row.period_start == models.GAUGE_PERIOD
        return cls(
            row=row,
            account_id=row.account_id,
            id=encode_id("Alert", row.id),
            cursor=encode_change(row.account_id, row.sequence if sequence is None else sequence),
            kind=row.kind,
            threshold=None if is_spike else row.threshold,
            level=row.level,
            used=None if row.kind is AlertKind.BUDGET else BigInt(row.used),
            limit=BigInt(row.ceiling) if row.kind is AlertKind.USAGE else None,
            percent=None if is_spike and row.ceiling == 0 else percent_of(row.used, row.ceiling),
            period_start=None if is_gauge else row.period_start,
            period_end=row.period_end,
            spike=Spike.of(row) if is_spike else None,
            raised_at=row.raised_at,
            resolved_at=row.resolved_at,
            acknowledged_at=row.acknowledged_at,
            acknowledged_by=row.acknowledged_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def subject(
        self, info: Info
    ) -> Annotated[Metric | Budget, strawberry.union("AlertSubject", description="What an alert is about.")] | None:
        """The metric or budget it is about; null where it is gone."""
        if self.kind is AlertKind.BUDGET:
            return await self._budget(info)
        for figure in await info.context.load.figures(self.account_id):
            if figure.metric.key == self.row.subject:
                return Metric.of(figure.metric)
        return None

    async def _budget(self, info: Info) -> Budget | None:
        row = await info.context.load.row(models.Budget, UUID(self.row.subject))
        return None if row is None else await show_budget(info.context, row)

    @guarded(Right.READ_BILLING)
    async def spent(self, info: Info) -> Money | None:
        """The spend at that moment; null on usage alerts."""
        return await self._money(info, self.row.used)

    @guarded(Right.READ_BILLING)
    async def ceiling(self, info: Info) -> Money | None:
        """The budget at that moment; null on usage alerts."""
        return await self._money(info, self.row.ceiling)

    async def _money(self, info: Info, amount_minor: int) -> Money | None:
        if self.kind is not AlertKind.BUDGET:
            return None
        account = await _account(info.context, self.account_id)
        return Money.of(amount_minor, account.currency)

    @field
    async def message(self, info: Info) -> str:
        """For people to read."""
        if self.kind is AlertKind.BUDGET:
            budget = await self._budget(info)
            name = "A budget that was removed" if budget is None else name_budget(budget.scope, budget.row.subject)
            account = await _account(info.context, self.account_id)
            return budget_message(self.row, name, account.currency)
        figures = await info.context.load.figures(self.account_id)
        names = {figure.metric.key: figure.metric.name for figure in figures}
        return alert_message(self.row, names.get(self.row.subject, self.row.subject))

    @field
    def recommended_actions(self) -> list[RecommendedAction]:
        """What to do about it."""
        return [
            RecommendedAction(alert=self.row, kind=kind, label=ACTION_LABELS[kind]) for kind in list_actions(self.row)
        ]


@strawberry.type(description="A page of alerts, newest first.")
class AlertConnection(Connection[Alert]):
    """A page of alerts."""

    resume_cursor: str = said(
        "Give it as `after` to `alertRaised` or `accountChanged`: nothing since this page is missed."
    )


@strawberry.type(description="An alert on one of the ways by which it reaches people and programs.")
class AlertDelivery:
    """A delivery."""

    channel: AlertChannel = said("Which way.")
    status: DeliveryStatus = said("What became of it.")
    at: datetime | None = said("When it came there, or was taken away; null where it did not come.")
    sequence: BigInt | None = said("Of LIVE: its number in the account's stream, which is the alert's own.")
    position: BigInt | None = said("Of LIVE: its number among all accounts' events; null until it is given one.")


@strawberry.type(description="That a metric reached a threshold.")
class AlertCrossing:
    """A crossing."""

    crossing: strawberry.Private[coverage.Crossing]
    threshold: int = said("The share that was reached, in whole percent.")
    level: AlertLevel = said("The level that reaching it gives.")
    episode: int = said("Which time it was in the period (of a gauge: ever), counted from 1.")
    crossed_at: datetime = said("When: the alert's own time, or else from when the stored usage shows it.")
    alert: Alert | None = said("The alert that tells of it; null where it is missing.")
    sequence: BigInt | None = said("The alert's number in the account's stream; null where it is missing.")
    complete: bool = said("Whether the alert is there, and came everywhere once.")
    deliveries: list[AlertDelivery] = said("The ways it went; empty where the alert is missing.")

    @classmethod
    def of(cls, crossing: coverage.Crossing) -> Self:
        """A crossing as it was traced."""
        alert = crossing.alert
        return cls(
            crossing=crossing,
            threshold=crossing.threshold,
            level=crossing.level,
            episode=crossing.episode,
            crossed_at=crossing.crossed_at,
            alert=None if alert is None else Alert.of(alert),
            sequence=None if alert is None else BigInt(alert.sequence),
            complete=crossing.is_complete,
            deliveries=[
                AlertDelivery(
                    channel=delivery.channel,
                    status=delivery.status,
                    at=delivery.at,
                    sequence=None if delivery.sequence is None else BigInt(delivery.sequence),
                    position=None if delivery.position is None else BigInt(delivery.position),
                )
                for delivery in crossing.deliveries
            ],
        )

    @field
    async def metric(self, info: Info) -> Metric | None:
        """Which metric."""
        row = await info.context.load.metric(self.crossing.metric_key)
        return None if row is None else Metric.of(row)


@strawberry.type(description="What a usage period reached, and whether all of it was told, once.")
class AlertCoverage:
    """A coverage."""

    period_start: datetime = said("The usage period.")
    period_end: datetime = said("Where it ends, exclusive.")
    complete: bool = said("Whether every crossing that is listed has its alert, and each came everywhere once.")
    has_more: bool = said(f"Whether there were more than {coverage.MAX_CROSSINGS} alerts: then the newest are listed.")
    crossings: list[AlertCrossing] = said(
        "As they happened; of gauges those raised in the period, or open in it. What should be there is reckoned from "
        "events, figures and limits, and not taken from what was raised: of a period that is over, from the limits "
        "that its close kept. Before the close, and without a subscription, it shows what was raised only."
    )

    @classmethod
    def of(cls, found: coverage.Coverage) -> Self:
        """A coverage as it was reckoned."""
        return cls(
            period_start=found.period.start,
            period_end=found.period.end,
            complete=found.is_complete,
            has_more=found.has_more,
            crossings=[AlertCrossing.of(crossing) for crossing in found.crossings],
        )


@strawberry.type(description="A button of a notice.")
class NoticeAction:
    """An action of a notice."""

    kind: str = said("A stable code, such as UPDATE_PAYMENT_METHOD.")
    label: str = said("For the button.")
    url: Url | None = said("Where it leads; null where the frontend has its own page for it.")


@strawberry.type(description="How the sandbox's embedded processor behaves towards an account.")
class SandboxConduct:
    """A conduct."""

    answers: SandboxAnswers = said("How it answers.")
    messages: SandboxMessages = said("How it sends its messages.")


@strawberry.type(description="A banner. It goes when its cause is gone.")
class Notice(Node):
    """A notice."""

    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the notice again.")
    kind: str = said("A stable code of what it is about, such as PAYMENT_FAILED.")
    code: str = said("The code of its text, to translate by.")
    severity: NoticeSeverity = said("How loud it is.")
    title: str = said("For people to read.")
    message: str = said("What happened and what to do.")
    params: JsonObject = said("The figures in the text, typed; instants in UTC, as everywhere.")
    actions: list[NoticeAction] = said("What to do about it.")
    dismissible: bool = said("Whether it can be put away.")
    raised_at: datetime = said("When its cause came.")
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.Notice, account: models.BillingAccount, now: datetime) -> Self:
        """A notice from its row, as it reads at the account's time, in its language."""
        params = notice_params(row, now, account.timezone)
        title, message = notice_text(row.code, params, language_of(account))
        return cls(
            account_id=row.account_id,
            id=encode_id("Notice", row.id),
            kind=row.code,
            code=row.code,
            severity=row.severity,
            title=title,
            message=message,
            params=JsonObject(_show_ids(show_params(params))),
            actions=[NoticeAction(kind=kind, label=label, url=None) for kind, label in notice_actions(row)],
            dismissible=row.dismissible,
            raised_at=row.created_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


def _show_ids(params: dict[str, Any]) -> dict[str, Any]:
    """The figures of a notice with the ids in them as `node(id:)` takes them."""
    kinds = {"transactionId": "Transaction", "budgetId": "Budget"}
    ids = {name: encode_id(kind, params[name]) for name, kind in kinds.items() if name in params}
    return {**params, **ids}


@strawberry.type(description="A closed month, priced on the present terms and on those suggested, net.")
class RecommendationMonth:
    """A month."""

    start: datetime = said("Where the usage period begins.")
    end: datetime = said("Where it ends, exclusive.")
    current: Money = said("What it costs on the present terms: plan, add-ons and overage, without proration and tax.")
    suggested: Money = said("What it costs on the suggested terms, by the same arithmetic.")
    saving: Money = said("The difference; below 0 where the month would have cost more.")

    @classmethod
    def list_of(cls, advice: Advice, currency: str) -> list[Self]:
        """The months that advice rests on."""
        return [
            cls(
                start=month.start,
                end=month.end,
                current=Money.of(current, currency),
                suggested=Money.of(suggested, currency),
                saving=Money.of(current - suggested, currency),
            )
            for month, current, suggested in zip(
                advice.months, advice.current_minor, advice.suggested_minor, strict=True
            )
        ]


@strawberry.type(description="What a recommendation rests on.")
class RecommendationEvidence:
    """Evidence."""

    months: list[RecommendationMonth] = said("The account's last whole usage periods, at most 12, oldest first.")
    worst: RecommendationMonth = said("The month that would have saved least; the latest of several.")
    based_on_months: int = said("How many months that are.")
    saving: Money = said("The sum over these months, exactly.")


@strawberry.type(description="How many units of an add-on a recommendation would have the account hold.")
class RecommendedUnits:
    """Units of an add-on."""

    add_on: AddOn = said("Which add-on.")
    quantity: BigInt = said("How many units in all, as `setAddOn` takes it.")


@strawberry.type(description="What a recommendation would change. What it does not name goes on as it is.")
class RecommendedChange:
    """A change."""

    plan: Plan | None = said("The plan to change to; null where the plan stays.")
    interval: Interval | None = said("How often that is paid; null where the plan stays.")
    add_ons: list[RecommendedUnits] = said(
        "Add-ons to hold other quantities of. Those that the plan does not offer end by themselves, and are not listed."
    )


@strawberry.type(
    description="Advice that would have saved money, reckoned from the account's real months as it is asked for."
)
class Recommendation(Node):
    """A recommendation."""

    account_id: AccountId
    id: strawberry.ID = said(
        "Opaque, and the same while the account is given this advice, however its figures change. `node(id:)` finds it."
    )
    kind: RecommendationKind = said("What it advises.")
    title: str = said("For people to read, in the account's language.")
    params: JsonObject = said(
        "What the title speaks of: `plan` `planKey` `interval`, `addOn` `addOnKey` `quantity` `held`, `metric` "
        "`metricKey`, `workspace` `before` `since` (its use per month)."
    )
    saving: Money = said("What it would save per month on average, net.")
    saving_per_year: Money = said("What twelve such months would save, net.")
    confidence: float = said(
        "0 to 1: a twelfth for each month it rests on, less the share of the gains that the worst month would have "
        "lost; half of it for SEND_LESS."
    )
    evidence: RecommendationEvidence = said("The months it was reckoned from.")
    change: RecommendedChange | None = said("What `applyRecommendation` would order; null for SEND_LESS.")
    metric: Metric | None = said("The metric whose use it is about; null where it is about the plan.")
    workspace: str | None = said("Of SEND_LESS: who sends more than before; null else.")

    @classmethod
    def of(cls, found: recommendations.Recommendation) -> Self:
        """A recommendation as it stands."""
        advice, currency, params = found.advice, found.account.currency, found.params()
        months = RecommendationMonth.list_of(advice, currency)
        return cls(
            account_id=found.account.id,
            id=encode_id("Recommendation", found.account.id, found.key),
            kind=advice.kind,
            title=advice_title(advice.kind, params, language_of(found.account)),
            params=JsonObject(params),
            saving=Money.of(advice.monthly_minor, currency),
            saving_per_year=Money.of(advice.yearly_minor, currency),
            confidence=advice.confidence_percent / 100,
            evidence=RecommendationEvidence(
                months=months,
                worst=months[advice.worst],
                based_on_months=len(months),
                saving=Money.of(advice.saving_minor, currency),
            ),
            change=None if found.resolve is None else _show_resolve(found.resolve),
            metric=None if found.metric is None else Metric.of(found.metric),
            workspace=None if found.segment is None else found.segment.name,
        )


def _show_resolve(resolve: recommendations.Resolve) -> RecommendedChange:
    offer, interval = resolve.plan or (None, None)
    return RecommendedChange(
        plan=None if offer is None else Plan.of(offer),
        interval=interval,
        add_ons=[
            RecommendedUnits(add_on=AddOn.of(add_on), quantity=BigInt(quantity))
            for add_on, quantity, _ in resolve.add_ons
        ],
    )


async def show_budget(context: Context, row: models.Budget, sequence: int | None = None) -> Budget:
    """A budget with what is spent and held of it."""
    return Budget.of(await context.load.budget_state(row), sequence)


@strawberry.type(description="Where a budget is heading.")
class BudgetForecast:
    """A forecast of a budget."""

    budget: Budget = said("Which budget, as it stands.")
    reaches: list[ExpectedReach] = said("The thresholds still ahead, ascending.")


@strawberry.type(
    description="Net spend of the usage period at its end: what is certain (plan, add-ons, prorations), and the "
    "overage of the forecast quantities as the close will rate it. Ranges of several metrics are added up."
)
class SpendForecast:
    """A forecast of spend."""

    value: Money = said("The spend expected at the end of the period.")
    low: Money = said("The lower end of the 90 % range.")
    high: Money = said("The upper end of the 90 % range.")
    low50: Money = said("The lower end of the 50 % range.")
    high50: Money = said("The upper end of the 50 % range.")
    confidence: float = said("From 0 to 1: the least of the metrics whose overage is charged; 1 where none is.")
    period_end: datetime = said("When the usage period ends.")
    based_on_days: int | None = said(
        "The fewest days of history among the metrics whose overage is charged; null where none is."
    )
    budgets: list[BudgetForecast] = said("When its budgets are expected to be reached.")

    @classmethod
    def of(cls, found: forecasts.SpendForecast, currency: str) -> Self:
        """A forecast from what was reckoned."""
        return cls(
            value=Money.of(found.value_minor, currency),
            low=Money.of(found.low_minor, currency),
            high=Money.of(found.high_minor, currency),
            low50=Money.of(found.low50_minor, currency),
            high50=Money.of(found.high50_minor, currency),
            confidence=found.confidence,
            period_end=found.period_end,
            based_on_days=found.based_on_days,
            budgets=[
                BudgetForecast(
                    budget=Budget.of(item.state),
                    reaches=[ExpectedReach.of(reach) for reach in item.reaches],
                )
                for item in found.budgets
            ],
        )


@strawberry.type(description="A threshold that a tried budget would have reached.")
class BacktestAlert:
    """An alert that would have been raised."""

    percent: int = said("The share of the limit, in whole percent.")
    level: AlertLevel = said("The level that reaching it gives.")
    at: datetime_date = said("The day in the account's zone.")


@strawberry.type(description="Usage that a tried budget would have refused.")
class RefusedUsage:
    """Units of a metric."""

    metric_key: strawberry.Private[str]
    quantity: BigInt = said("How many units, as if each had come alone.")

    @field
    async def metric(self, info: Info) -> Metric:
        """Of which metric."""
        found = await info.context.load.metric(self.metric_key)
        assert found is not None, "metrics are never deleted"
        return Metric.of(found)


def _show_refused(refused: Mapping[str, int]) -> list[RefusedUsage]:
    return [RefusedUsage(metric_key=key, quantity=BigInt(quantity)) for key, quantity in sorted(refused.items())]


@strawberry.type(description="What a tried budget would have done in one usage period.")
class BacktestPeriod:
    """A usage period of a backtest."""

    start: datetime = said("When it began.")
    end: datetime = said("When it ended, exclusive.")
    spent: Money = said("What was really spent that counts for the budget, net.")
    saved: Money = said("What of it would not have been spent; 0 unless the budget blocks.")
    alerts: list[BacktestAlert] = said("The thresholds that would have been reached, ascending.")
    blocked_at: datetime_date | None = said("The first day on which it would have refused overage; null for none.")
    upgraded_at: datetime_date | None = said("Of UPGRADE: the day on which the next plan would have been ordered.")
    refused: list[RefusedUsage] = said("What would have been refused, by metric.")

    @classmethod
    def of(cls, outcome: Outcome, currency: str) -> Self:
        """A period from what a replay gave."""
        return cls(
            start=outcome.period.start,
            end=outcome.period.end,
            spent=Money.of(outcome.period.spent_minor, currency),
            saved=Money.of(outcome.saved_minor, currency),
            alerts=[
                BacktestAlert(percent=percent, level=level_of_threshold(percent), at=day)
                for percent, day in sorted(outcome.reached.items())
            ],
            blocked_at=outcome.blocked_on,
            upgraded_at=outcome.upgraded_on,
            refused=_show_refused(outcome.refused),
        )


@strawberry.type(description="What a budget would have done, had it been set before.")
class BudgetBacktest:
    """A backtest."""

    periods: list[BacktestPeriod] = said("The last closed usage periods, oldest first.")
    spent: Money = said("What was really spent in all of them.")
    saved: Money = said("What of that would not have been spent.")
    refused: list[RefusedUsage] = said("What would have been refused in all of them, by metric.")

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], currency: str) -> Self:
        """A backtest from what its replays gave."""
        refused: Counter[str] = Counter()
        for outcome in outcomes:
            refused.update(outcome.refused)
        return cls(
            periods=[BacktestPeriod.of(outcome, currency) for outcome in outcomes],
            spent=Money.of(sum(outcome.period.spent_minor for outcome in outcomes), currency),
            saved=Money.of(sum(outcome.saved_minor for outcome in outcomes), currency),
            refused=_show_refused(refused),
        )


@strawberry.type(description="What was spent on one thing, by the groups that were asked for.")
class SpendPart:
    """A part of spend."""

    entry: strawberry.Private[SpendEntry]
    amount: Money = said("How much, net; below 0 where more was given back or corrected than spent.")

    @field
    async def metric(self, info: Info) -> Metric | None:
        """What it was paid for: by METRIC, and null for plans, and for what is not grouped by it."""
        key = self.entry.metric_key
        found = None if key is None else await info.context.load.metric(key)
        return None if found is None else Metric.of(found)

    @field
    def workspace(self) -> str | None:
        """Who used it: by WORKSPACE, and null for lines of invoices, events that name none, and without grouping."""
        return self.entry.workspace

    @field
    def day(self) -> datetime_date | None:
        """When it was spent, or its invoice issued, in the account's zone: by DAY."""
        return self.entry.day

    @field
    def line_kind(self) -> LineKind | None:
        """The kind of line that charges for it: by LINE_KIND."""
        return self.entry.kind


@strawberry.type(description="What an account spent on some days. Its groups sum to its total, to the minor unit.")
class Spend:
    """Spend of an account."""

    from_: datetime_date = strawberry.field(name="from", description="The first day.")
    to: datetime_date = said("The day before which it ends.")
    basis: SpendBasis = said("What counts as spent, and when.")
    total: Money = said("All of it, net.")
    groups: list[SpendPart] = said(
        f"What differs from 0, by day and then the largest first, at most {MAX_SUMS:,}; one where nothing is grouped."
    )


# --- account ---------------------------------------------------------------------------------------------------------


@strawberry.input(description="A change of plan.")
class PlanChangeInput:
    """A change of plan."""

    plan_key: str = said("The plan's key, such as professional.")
    interval: Interval = said("How often it is paid.")


@strawberry.input(description="Which invoices. What is left out does not filter.")
class InvoiceFilterInput:
    """A filter of invoices."""

    status: list[InvoiceStatus] | None = said("In one of these states.")
    issued_from: datetime | None = said("Issued at or after.")
    issued_to: datetime | None = said("Issued before.")
    search: str | None = said("With this text in the number.")
    updated_since: datetime | None = said("Changed at or after.")

    def to_filter(self) -> InvoiceFilter:
        """As the services know it."""
        return InvoiceFilter(
            status=tuple(self.status or ()),
            issued_from=self.issued_from,
            issued_to=self.issued_to,
            search=_search(self.search),
            updated_since=self.updated_since,
        )


@strawberry.input(description="Which transactions. What is left out does not filter.")
class TransactionFilterInput:
    """A filter of transactions."""

    kind: list[TransactionKind] | None = said("Of one of these kinds.")
    status: list[TransactionStatus] | None = said("In one of these states.")
    from_: datetime | None = strawberry.field(name="from", description="Tried at or after.")
    to: datetime | None = said("Tried before.")
    payment_method_id: strawberry.ID | None = said("Through this method.")
    min_minor: BigInt | None = said("At least so much, in minor units.")
    max_minor: BigInt | None = said("At most so much, in minor units.")

    def to_filter(self) -> TransactionFilter:
        """As the services know it."""
        method_id = None
        if self.payment_method_id is not None:
            method_id = key_of(self.payment_method_id, "PaymentMethod")
            if method_id is None:
                raise RequestRefused(ErrorCode.BAD_USER_INPUT, "`paymentMethodId` is not the id of a payment method.")
        return TransactionFilter(
            kind=tuple(self.kind or ()),
            status=tuple(self.status or ()),
            since=self.from_,
            until=self.to,
            payment_method_id=method_id,
            min_minor=self.min_minor,
            max_minor=self.max_minor,
        )


@strawberry.input(description="Which alerts. What is left out does not filter.")
class AlertFilterInput:
    """A filter of alerts."""

    open: bool | None = said("Only open ones (true), or only resolved ones (false).")
    kinds: list[AlertKind] | None = said("Of one of these kinds.")
    metrics: list[str] | None = said("About one of these metrics.")
    levels: list[AlertLevel] | None = said("Of one of these levels.")


def _search(text: str | None) -> str | None:
    if text is not None and (len(text) > 100 or "\x00" in text):
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, "`search` has at most 100 characters.")
    return text or None


@strawberry.type(description="A tenant: who buys, what it runs on, and how it stands.")
class BillingAccount(Node):
    """A billing account."""

    row: strawberry.Private[models.BillingAccount]
    account_id: AccountId
    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the account again.")
    name: str = said("For people to read.")
    currency: CurrencyCode = said("What it pays in; fixed by its first invoice.")
    timezone: str = said("Its IANA time zone: periods and days are this zone's.")
    locale: str = said("Its language and region, such as en-US.")
    spike_alerts: bool = said("Whether unusual days of usage are told of, as alerts of the kind SPIKE.")
    keys_may_ingest: bool = said(
        "Whether the account's own API keys with the scope usage:write may record usage. An operator decides it."
    )
    change_cursor: str = said(
        "Where the account's stream stood before anything else here was read: a subscription with this as `after` "
        "misses nothing; what came in between may come once more."
    )
    created_at: datetime = said("When it was made.")
    updated_at: datetime = said("When it last changed.")

    @classmethod
    def of(cls, row: models.BillingAccount) -> Self:
        """An account from its row."""
        return cls(
            row=row,
            account_id=row.id,
            id=encode_id("BillingAccount", row.id),
            name=row.name,
            currency=CurrencyCode(row.currency),
            timezone=row.timezone,
            locale=row.locale,
            spike_alerts=row.spike_alerts,
            keys_may_ingest=row.keys_may_ingest,
            change_cursor=encode_change(row.id, row.sequence),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field
    async def viewer_can(self, info: Info) -> list[Permission]:
        """What the caller may do with the account."""
        agreement = await info.context.load.agreement(self.account_id)
        subscription = agreement.subscription if agreement else None
        return [Permission.of(state) for state in list_permissions(info.context.principal, self.row, subscription)]

    @guarded(Right.READ_BILLING)
    def external_id(self) -> str | None:
        """The partner's own id of the account."""
        return self.row.external_id

    @guarded(Right.READ_BILLING)
    async def status(self, info: Info) -> AccountStatus | None:
        """How much of it can be used."""
        agreement = await info.context.load.agreement(self.account_id)
        return status_of(self.row, agreement.subscription if agreement else None)

    @guarded(Right.READ_BILLING)
    def closed_at(self) -> datetime | None:
        """When it was closed for good by `closeBillingAccount`; null where it was not."""
        return self.row.closed_at

    @guarded(Right.READ_BILLING)
    def data_deleted_at(self) -> datetime | None:
        """When all but its invoices and books was deleted, 90 days after it was cancelled or closed; null before."""
        return self.row.data_deleted_at

    @guarded(Right.OPERATE)
    def legal_hold(self) -> str | None:
        """Why nothing of it is purged or deleted; null where no legal hold stands. For operators."""
        return self.row.legal_hold

    @guarded(Right.READ_BILLING)
    def metadata(self) -> JsonObject | None:
        """The partner's own pairs."""
        return JsonObject(self.row.pairs)

    @guarded(Right.READ_BILLING)
    def collection(self) -> Collection | None:
        """How its invoices are paid."""
        return Collection.of(self.row)

    @guarded(Right.READ_BILLING)
    async def company(self, info: Info) -> Company | None:
        """Who stands on its next invoices as the buyer; null before it was set."""
        rows = await info.context.load.related(COMPANY_OF_ACCOUNT, self.account_id)
        return Company.of(rows[0]) if rows else None

    @guarded(Right.READ_BILLING)
    async def contacts(self, info: Info) -> list[Contact] | None:
        """Who gets its mail, the primary contact first; at most 101."""
        rows = await info.context.load.related(CONTACTS_OF_ACCOUNT, self.account_id)
        return [Contact.of(row) for row in rows]

    @guarded(Right.READ_BILLING)
    async def members(self, info: Info) -> list[Member] | None:
        """The people who belong to it, at most 100; oldest first."""
        rows = await info.context.load.related(MEMBERS_OF_ACCOUNT, self.account_id)
        return [Member.of(row) for row in rows]

    @guarded(Right.READ_BILLING)
    async def invites(self, info: Info) -> list[Invite] | None:
        """The invitations that nobody accepted yet, at most 50; oldest first. They may be over: `expiresAt` says so."""
        rows = await info.context.load.related(INVITES_OF_ACCOUNT, self.account_id)
        return [Invite.of(row) for row in rows]

    @guarded(Right.READ_USAGE)
    async def ownership_transfer(self, info: Info) -> OwnershipTransfer | None:
        """That its ownership is offered to a member; null where it is not, or not any more."""
        rows = await info.context.load.related(TRANSFER_OF_ACCOUNT, self.account_id)
        return OwnershipTransfer.of(rows[0]) if rows and rows[0].expires_at > info.context.now() else None

    @guarded(Right.READ_BILLING)
    async def tax_exemption(self, info: Info) -> TaxExemption | None:
        """What frees it from tax; null where nothing does."""
        rows = await info.context.load.related(TAX_EXEMPTION_OF_ACCOUNT, self.account_id)
        return TaxExemption.of(rows[0]) if rows else None

    @guarded(Right.READ_BILLING)
    async def notices(self, info: Info) -> list[Notice] | None:
        """Banners, newest first; operators see theirs among them."""
        rows = await info.context.load.related(NOTICES_OF_ACCOUNT, self.account_id)
        now = info.context.now_for(self.row)
        return [Notice.of(row, self.row, now) for row in rows if is_meant_for(info.context.principal, row)]

    @guarded(Right.READ_BILLING)
    async def subscription(self, info: Info) -> PlanSubscription | None:
        """Its plan; null before the first one."""
        agreement = await info.context.load.agreement(self.account_id)
        return None if agreement is None else PlanSubscription.of(agreement.subscription)

    @guarded(Right.READ_BILLING)
    async def pending_change(self, info: Info) -> PendingChange | None:
        """The plan that waits for its payment: also the first one, before there is a subscription; null for none."""
        return await show_pending(info.context, self.account_id)

    @field
    async def usage(
        self,
        info: Info,
        metrics: Annotated[
            list[str] | None, strawberry.argument(description="Only these metrics; all when nothing is said.")
        ] = None,
    ) -> list[MetricUsage]:
        """How it stands with each metric. A metric that is not there is refused."""
        figures = await info.context.load.figures(self.account_id)
        check_metrics(metrics, figures)
        return [MetricUsage.of(figure) for figure in figures if metrics is None or figure.metric.key in metrics]

    @guarded(Right.READ_BILLING)
    async def next_billing(self, info: Info) -> NextBilling | None:
        """The next charge as things stand; null where none is to come."""
        standing = await _standing(info.context, self.account_id)
        found = charges.find_next_billing(standing)
        if found is None:
            return None
        currency, language = self.row.currency, language_of(self.row)
        return NextBilling(
            at=found.at,
            date=charges.local_date(found.at, self.row.timezone),
            kind=found.kind,
            amount=Money.of(found.due_minor, currency),
            estimated=found.is_estimated,
            lines=[
                NextBillingLine(
                    kind=line.kind,
                    description=line.describe(language),
                    amount=Money.of(line.amount_minor, currency),
                )
                for line in found.lines
            ],
        )

    @guarded(Right.READ_BILLING)
    async def next_renewal(self, info: Info) -> NextRenewal | None:
        """The next billing period's start and its subscription and add-on lines; null where none follows."""
        found = charges.find_next_renewal(await _standing(info.context, self.account_id))
        return (
            None if found is None else NextRenewal(at=found.at, amount=Money.of(found.amount_minor, self.row.currency))
        )

    @guarded(Right.READ_BILLING)
    async def upcoming_invoice(
        self,
        info: Info,
        change: Annotated[
            PlanChangeInput | None, strawberry.argument(description="As if this change were made now.")
        ] = None,
    ) -> InvoicePreview | None:
        """The next invoice, to the minor unit what it will be as things stand; null where none is to come."""
        standing = await _standing(info.context, self.account_id)
        if change is not None:
            now = info.context.now_for(self.row)
            standing = await info.context.load.changed_standing(standing, change.plan_key, change.interval, now)
        found = charges.find_upcoming(standing)
        return None if found is None else InvoicePreview.of(found, self.row)

    @guarded(Right.READ_BILLING)
    async def quote(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The quote's id.")]
    ) -> Quote | None:
        """A quote of the account, with what it comes to as things stand; null where there is none."""
        key = key_of(id, "Quote")
        row = None if key is None else await info.context.load.row(models.Quote, key)
        if row is None or row.account_id != self.account_id:
            return None
        view = await info.context.load.quote_view(await _standing(info.context, self.account_id), row)
        return Quote.of(view, self.row)

    @guarded(Right.READ_BILLING)
    async def plans_available(self, info: Info) -> list[Plan] | None:
        """The plans that it can buy, lowest tier first: public or its own, with a price in its currency."""
        return [Plan.of(offer) for offer in await info.context.load.offers_for(self.row)]

    @guarded(Right.READ_BILLING)
    async def invoice(
        self, info: Info, number: Annotated[str, strawberry.argument(description="The invoice's number.")]
    ) -> Invoice | None:
        """An invoice of the account by its number; null where there is none."""
        row = await info.context.load.invoice_by_number(self.account_id, number) if "\x00" not in number else None
        return None if row is None else Invoice.of(row)

    @guarded(Right.READ_BILLING)
    async def credit_notes(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[CreditNote] | None:
        """Its credit notes, newest first."""
        window = check_window(first, last, after, before)
        part = await info.context.load.page(CREDIT_NOTES_OF_ACCOUNT, self.account_id, NoFilter(), window)
        return Connection[CreditNote].of(part, CreditNote.of)

    @guarded(Right.READ_BILLING)
    async def ledger(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        from_: Annotated[datetime | None, strawberry.argument(name="from", description="Entries at or after.")] = None,
        to: Annotated[datetime | None, strawberry.argument(description="Entries before.")] = None,
        account: Annotated[
            LedgerAccount | None, strawberry.argument(description="Only entries that touch this account of the books.")
        ] = None,
    ) -> Connection[LedgerEntry] | None:
        """Its books, newest first."""
        window = check_window(first, last, after, before)
        chosen = LedgerFilter(since=from_, until=to, ledger_account=account)
        part = await info.context.load.page(ENTRIES_OF_ACCOUNT, self.account_id, chosen, window)
        return Connection[LedgerEntry].of(part, LedgerEntry.of)

    @guarded(Right.READ_BILLING)
    def test_clock(self) -> TestClock | None:
        """The test clock that it hangs on; null where it lives by the wall clock."""
        return None if self.row.test_clock is None else TestClock.of(self.row.test_clock)

    @guarded(Right.READ_BILLING)
    async def payment_methods(self, info: Info) -> list[PaymentMethod] | None:
        """How it can pay, the default one first."""
        return [PaymentMethod.of(row) for row in await info.context.load.related(METHODS_OF_ACCOUNT, self.account_id)]

    @guarded(Right.READ_BILLING)
    async def default_payment_method(self, info: Info) -> PaymentMethod | None:
        """Where charges go; null before one was added."""
        rows = await info.context.load.related(METHODS_OF_ACCOUNT, self.account_id)
        return next((PaymentMethod.of(row) for row in rows if row.is_default), None)

    @guarded(Right.READ_BILLING)
    async def invoices(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[InvoiceFilterInput | None, strawberry.argument(description="Which invoices.")] = None,
    ) -> Connection[Invoice] | None:
        """Its invoices, newest first."""
        window = check_window(first, last, after, before)
        chosen = filter.to_filter() if filter else InvoiceFilter()
        part = await info.context.load.page(INVOICES_OF_ACCOUNT, self.account_id, chosen, window)
        return Connection[Invoice].of(part, Invoice.of)

    @guarded(Right.READ_BILLING)
    async def transactions(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[TransactionFilterInput | None, strawberry.argument(description="Which transactions.")] = None,
    ) -> Connection[Transaction] | None:
        """Its movements of money, newest first."""
        window = check_window(first, last, after, before)
        chosen = filter.to_filter() if filter else TransactionFilter()
        part = await info.context.load.page(TRANSACTIONS_OF_ACCOUNT, self.account_id, chosen, window)
        return Connection[Transaction].of(part, Transaction.of)

    @guarded(Right.OPERATE)
    async def sandbox_processor(self, info: Info) -> SandboxConduct | None:
        """How the sandbox's embedded processor behaves towards it; null where it never had to, and in production."""
        customer = self.row.processor_customer
        row = None if customer is None else await info.context.load.conduct(customer)
        return None if row is None else SandboxConduct(answers=row.answers, messages=row.messages)

    @guarded(Right.READ_BILLING)
    async def refund_requests(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[RefundRequest] | None:
        """What was asked for to go back, newest first."""
        window = check_window(first, last, after, before)
        part = await info.context.load.page(REQUESTS_OF_ACCOUNT, self.account_id, NoFilter(), window)
        return Connection[RefundRequest].of(part, RefundRequest.of)

    @field
    async def reservations(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[Reservation]:
        """Usage that was held, newest first: `usage { held }` sums what holds now."""
        window = check_window(first, last, after, before)
        part = await info.context.load.page(RESERVATIONS_OF_ACCOUNT, self.account_id, NoFilter(), window)
        now = info.context.now_for(await _account(info.context, self.account_id))
        return Connection[Reservation].of(part, lambda row: Reservation.of(row, now))

    @guarded(Right.MANAGE_KEYS)
    async def api_keys(self, info: Info) -> list[ApiKey] | None:
        """The API keys that open it, at most 100: the living ones, then the latest that ended; newest first."""
        return [ApiKey.of(row) for row in await info.context.load.keys(self.account_id)]

    @guarded(Right.READ_BILLING)
    async def audit_log(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: AuditFilterArgument = None,
    ) -> Connection[AuditEntry] | None:
        """Every change of it, newest first: who, when, from where, before and after."""
        window = check_window(first, last, after, before)
        chosen = AuditFilter() if filter is None else filter.to_filter()
        part = await info.context.load.page(AUDIT_OF_ACCOUNT, self.account_id, chosen, window)
        return Connection[AuditEntry].of(part, AuditEntry.of)

    @guarded(Right.READ_BILLING)
    async def exports(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[Export] | None:
        """Its exports, newest first; those whose file is gone stay as a record."""
        window = check_window(first, last, after, before)
        part = await info.context.load.page(EXPORTS_OF_ACCOUNT, self.account_id, NoFilter(), window)
        return Connection[Export].of(part, Export.of)

    @guarded(Right.READ_BILLING)
    async def webhook_endpoints(self, info: Info) -> list[WebhookEndpoint] | None:
        """Where its events are sent, oldest first; at most ten. Their secrets were shown when they were made."""
        rows = await info.context.load.related(ENDPOINTS_OF_ACCOUNT, self.account_id)
        return [WebhookEndpoint.of(row) for row in rows]

    @guarded(Right.READ_BILLING)
    async def budget(self, info: Info) -> Budget | None:
        """The account's own budget; null before one was set."""
        rows = await info.context.load.related(BUDGETS_OF_ACCOUNT, self.account_id)
        own = [row for row in rows if row.scope is BudgetScope.ACCOUNT]
        return await show_budget(info.context, own[0]) if own else None

    @guarded(Right.READ_BILLING)
    async def budgets(self, info: Info) -> list[Budget] | None:
        """All its budgets, at most 20: its own, and those of metrics and workspaces; oldest first."""
        rows = await info.context.load.related(BUDGETS_OF_ACCOUNT, self.account_id)
        return list(await asyncio.gather(*(show_budget(info.context, row) for row in rows)))

    @guarded(Right.READ_BILLING)
    async def forecast(self, info: Info) -> SpendForecast | None:
        """Where its net spend is heading by the end of the usage period; null while no plan that costs runs."""
        load = info.context.load
        standing = await _standing(info.context, self.account_id)
        found = {figure.metric.key: await _forecast(info.context, figure) for figure in standing.figures}
        rows = await load.related(BUDGETS_OF_ACCOUNT, self.account_id)
        states = await asyncio.gather(*(load.budget_state(row) for row in rows))
        by_workspace = any(row.scope is BudgetScope.WORKSPACE for row in rows)
        shares = await load.shares(self.account_id) if by_workspace else {}
        spend = forecasts.forecast_spend(standing, found, states, shares, await load.certain_spend(self.account_id))
        return None if spend is None else SpendForecast.of(spend, self.row.currency)

    @field
    async def alerts(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[AlertFilterInput | None, strawberry.argument(description="Which alerts.")] = None,
    ) -> AlertConnection:
        """Its alerts, newest first. Callers who may not see money get those of usage, spikes among them."""
        window = check_window(first, last, after, before)
        kinds = tuple(filter.kinds) if filter and filter.kinds else tuple(AlertKind)
        metrics = tuple(filter.metrics or ()) if filter else ()
        if len(metrics) > MAX_FILTER_VALUES or not all(metric.isprintable() for metric in metrics):
            raise RequestRefused(
                ErrorCode.BAD_USER_INPUT, f"`metrics` names at most {MAX_FILTER_VALUES} metrics by key."
            )
        if not info.context.principal.may(Right.READ_BILLING, self.account_id):
            kinds = tuple(kind for kind in kinds if kind is not AlertKind.BUDGET)
        chosen = AlertFilter(
            open=filter.open if filter else None,
            kinds=kinds,
            metrics=metrics,
            levels=tuple(filter.levels or ()) if filter else (),
        )
        part = await info.context.load.page(ALERTS_OF_ACCOUNT, self.account_id, chosen, window)
        return AlertConnection.of(part, Alert.of, resume_cursor=self.change_cursor)

    @field
    async def alert_coverage(
        self,
        info: Info,
        period: Annotated[
            datetime | None,
            strawberry.argument(description="An instant in the usage period; now when nothing is said."),
        ] = None,
    ) -> AlertCoverage | None:
        """Each threshold that usage reached in a period, its alert and where that went; null where none has begun.

        With it anybody can audit that nothing was forgotten, and nothing told twice.
        """
        found = await info.context.load.coverage(self.row, info.context.now_for(self.row), period)
        return None if found is None else AlertCoverage.of(found)

    @guarded(Right.READ_BILLING)
    async def budget_backtest(
        self,
        info: Info,
        limit: Annotated[
            MoneyInput, strawberry.argument(description="What might be spent in a usage period, net, as `setBudget`.")
        ],
        thresholds: Annotated[
            list[int] | None,
            strawberry.argument(
                description=f"Shares of it in whole percent, each once, at most {MAX_THRESHOLDS}; "
                f"{' and '.join(map(str, DEFAULT_THRESHOLDS))} when nothing is said."
            ),
        ] = None,
        action: Annotated[
            BudgetAction, strawberry.argument(description="What would have happened when it was spent.")
        ] = BudgetAction.ALERT_ONLY,
        scope: Annotated[
            BudgetScope, strawberry.argument(description="What it would have limited the spend of.")
        ] = BudgetScope.ACCOUNT,
        metric: Annotated[str | None, strawberry.argument(description="Of scope METRIC: the metric's key.")] = None,
        workspace: Annotated[
            str | None, strawberry.argument(description="Of scope WORKSPACE: the workspace, as events have named it.")
        ] = None,
        months: Annotated[
            int, strawberry.argument(description=f"How many closed usage periods at most: 1 to {MAX_MONTHS}.")
        ] = 6,
    ) -> BudgetBacktest | None:
        """What a budget would have done in its last closed usage periods: nothing is set, and nothing is stored.

        Usage is replayed by day and priced as when its period closed. Refused where no period is closed yet.
        """
        asked = BudgetInput(
            scope=scope,
            limit_minor=limit.amount_minor,
            currency=limit.currency,
            metric=metric,
            workspace=workspace,
            thresholds=thresholds,
            action=action,
        )
        try:
            outcomes = await info.context.load.backtest(self.row, asked, months)
        except BillingError as refusal:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, str(refusal)) from refusal
        return BudgetBacktest.of(outcomes, self.row.currency)

    @guarded(Right.READ_BILLING)
    async def spend(
        self,
        info: Info,
        from_: Annotated[
            datetime_date, strawberry.argument(name="from", description="The first day, in the account's zone.")
        ],
        to: Annotated[
            datetime_date,
            strawberry.argument(description=f"The day after the last one: at most {MAX_DAYS} days after `from`."),
        ],
        basis: Annotated[
            SpendBasis, strawberry.argument(description="What counts as spent, and when.")
        ] = SpendBasis.ACCRUED,
        group_by: Annotated[
            list[SpendGroup], strawberry.argument(description="What to tell apart, each once; nothing for the total.")
        ] = [],  # noqa: B006  # strawberry shows it in the schema, and nobody changes it
    ) -> Spend | None:
        """What it spent, net and exact. For usage periods that are over, what is ACCRUED is what was invoiced for them.

        Once an account has expired, its usage is deleted, and only INVOICED still tells all.

        A line for several usage periods counts in equal parts as these begin, usage on the day on which it was used.
        Credit notes are not taken off, and invoices that were withdrawn do not count.
        """
        question = check_question(from_, to, basis, group_by)
        entries = await info.context.load.spend(self.row, question)
        currency = self.row.currency
        return Spend(
            from_=from_,
            to=to,
            basis=basis,
            total=Money.of(sum(entry.amount_minor for entry in entries), currency),
            groups=[SpendPart(entry=entry, amount=Money.of(entry.amount_minor, currency)) for entry in entries],
        )

    @guarded(Right.READ_BILLING)
    async def recommendations(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Recommendation] | None:
        """What would have saved money over the last whole months: at most 10, the highest saving per month first.

        Each is one change, priced by the code that invoices. Empty before one whole month is closed, without a running
        paid plan, and while a change is scheduled or the subscription is to end.
        """
        window = check_window(first, last, after, before)
        found = await info.context.load.recommendations(self.account_id)
        part = slice_ranked(f"recommendations:{self.account_id}", found, lambda item: item.rank, window)
        return Connection[Recommendation].of(part, Recommendation.of)

    @guarded(Right.READ_BILLING)
    def credit_balance(self) -> Money | None:
        """What it has in hand: it pays the next invoices before any charge."""
        return Money.of(self.row.credit_minor, self.row.currency)


@strawberry.type(description="One change of an account, at its place in the stream.")
class AccountChange:
    """A change of an account."""

    account_id: AccountId
    change: strawberry.Private[Change]
    node_: strawberry.Private[Any]
    cursor: str = said("Resume with it as `after`: nothing is missed and nothing comes twice.")
    kind: ChangeKind = said("What changed.")
    at: datetime = said("When.")

    @classmethod
    def of(cls, change: Change, account_id: Any, node: Node | None) -> Self:
        """A change with the object that changed, as it is now."""
        return cls(
            account_id=account_id,
            change=change,
            node_=node,
            cursor=change.cursor(account_id),
            kind=change.kind,
            at=change.at,
        )

    @field
    async def account(self, info: Info) -> BillingAccount:
        """The account as it is now."""
        return BillingAccount.of(await _account(info.context, self.account_id))

    @field
    def node(self) -> Node | None:
        """What changed, as it is now; null for SNAPSHOT and GAP, and for what is gone by now."""
        found: Node | None = self.node_
        return found


def check_metrics(asked: Sequence[str] | None, figures: Sequence[usage.UsageFigure]) -> None:
    """Refuse a choice of metrics that names one which is not there."""
    known = {figure.metric.key for figure in figures}
    unknown = sorted(set(asked or ()) - known)
    if unknown:
        told = f"There is no metric {unknown[0]!r:.80}: known are {', '.join(sorted(known))}."
        raise RequestRefused(ErrorCode.BAD_USER_INPUT, told)


def usage_of(figures: Sequence[usage.UsageFigure], metric_key: str, sequence: int | None = None) -> MetricUsage | None:
    """The usage of one metric among an account's figures."""
    return next((MetricUsage.of(figure, sequence) for figure in figures if figure.metric.key == metric_key), None)
