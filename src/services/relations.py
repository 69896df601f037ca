"""What belongs to what, declared once: the loaders are made from these, and hold no SQL."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, defer

from ..database import ReadSession
from ..models import (
    AddOn,
    Alert,
    AlertKind,
    AlertLevel,
    ApiKeyAccount,
    AuditEntry,
    Base,
    Budget,
    BudgetPeriod,
    Company,
    Contact,
    Counter,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    DeliveryStatus,
    Document,
    DocumentKind,
    Export,
    Invite,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    InvoiceTax,
    LedgerAccount,
    LedgerEntry,
    LedgerPosting,
    Member,
    Notice,
    OwnershipTransfer,
    PaymentMethod,
    PendingChange,
    PendingStatus,
    Plan,
    PlanLimit,
    PlanVersion,
    Price,
    PriceKind,
    RecommendationDismissal,
    RefundRequest,
    Reservation,
    SandboxConduct,
    Subscription,
    SubscriptionAddOn,
    SubscriptionEvent,
    TaxExemption,
    Transaction,
    TransactionKind,
    TransactionStatus,
    UsageRating,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from .paging import Slice, Window, read_slices_below

RowT = TypeVar("RowT", bound=Base)

COUNTER_OF_RATING = and_(
    Counter.account_id == UsageRating.account_id,
    Counter.metric_key == UsageRating.metric_key,
    Counter.period_start == UsageRating.period_start,
)
"""What was counted of usage that a closed period is rated by: to join one to the other."""


@dataclass(frozen=True)
class Relation(Generic[RowT]):
    """The rows of a table that belong to a parent by a column, in an order."""

    name: str
    target: type[RowT]
    by: InstrumentedAttribute[Any]
    order: tuple[InstrumentedAttribute[Any] | UnaryExpression[Any], ...] = ()
    where: tuple[ColumnElement[bool], ...] = ()
    without: tuple[InstrumentedAttribute[Any], ...] = ()
    """Large columns that nobody asks for here."""


@dataclass(frozen=True)
class PagedRelation(Generic[RowT]):
    """A list below a parent that may be long: newest first, in pages."""

    name: str
    target: type[RowT]
    by: InstrumentedAttribute[Any]
    newest_by: tuple[InstrumentedAttribute[Any], ...]


@dataclass(frozen=True)
class InvoiceFilter:
    """Which invoices."""

    status: tuple[InvoiceStatus, ...] = ()
    issued_from: datetime | None = None
    issued_to: datetime | None = None
    search: str | None = None
    updated_since: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        found: list[ColumnElement[bool]] = []
        if self.status:
            found.append(Invoice.status.in_(self.status))
        if self.issued_from is not None:
            found.append(Invoice.issued_at >= self.issued_from)
        if self.issued_to is not None:
            found.append(Invoice.issued_at < self.issued_to)
        if self.search:
            found.append(Invoice.number.icontains(self.search, autoescape=True))
        if self.updated_since is not None:
            found.append(Invoice.updated_at >= self.updated_since)
        return found


@dataclass(frozen=True)
class TransactionFilter:
    """Which transactions."""

    kind: tuple[TransactionKind, ...] = ()
    status: tuple[TransactionStatus, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    payment_method_id: UUID | None = None
    min_minor: int | None = None
    max_minor: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        found: list[ColumnElement[bool]] = []
        if self.kind:
            found.append(Transaction.kind.in_(self.kind))
        if self.status:
            found.append(Transaction.status.in_(self.status))
        if self.since is not None:
            found.append(Transaction.created_at >= self.since)
        if self.until is not None:
            found.append(Transaction.created_at < self.until)
        if self.payment_method_id is not None:
            found.append(Transaction.payment_method_id == self.payment_method_id)
        if self.min_minor is not None:
            found.append(Transaction.amount_minor >= self.min_minor)
        if self.max_minor is not None:
            found.append(Transaction.amount_minor <= self.max_minor)
        return found


@dataclass(frozen=True)
class AlertFilter:
    """Which alerts."""

    open: bool | None = None
    kinds: tuple[AlertKind, ...] = tuple(AlertKind)
    metrics: tuple[str, ...] = ()
    levels: tuple[AlertLevel, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        found: list[ColumnElement[bool]] = []
        if self.open is not None:
            found.append(Alert.resolved_at.is_(None) if self.open else Alert.resolved_at.is_not(None))
        if set(self.kinds) != set(AlertKind):
            found.append(Alert.kind.in_(self.kinds))
        if self.metrics:
            found.append((Alert.kind != AlertKind.BUDGET) & Alert.subject.in_(self.metrics))
        if self.levels:
            found.append(Alert.level.in_(self.levels))
        return found


@dataclass(frozen=True)
class NoFilter:
    """All of them."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        return []


@dataclass(frozen=True)
class LedgerFilter:
    """Which entries of the books."""

    since: datetime | None = None
    until: datetime | None = None
    ledger_account: LedgerAccount | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(LedgerEntry.created_at >= self.since)
        if self.until is not None:
            found.append(LedgerEntry.created_at < self.until)
        if self.ledger_account is not None:
            touches = select(LedgerPosting.id).where(
                LedgerPosting.entry_id == LedgerEntry.id, LedgerPosting.ledger_account == self.ledger_account
            )
            found.append(touches.exists())
        return found


@dataclass(frozen=True)
class AuditFilter:
    """Which entries of the audit log."""

    actor: str | None = None
    action: str | None = None
    """The whole, or where it ends with a dot how it begins."""
    object: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        found: list[ColumnElement[bool]] = []
        if self.actor is not None:
            found.append(AuditEntry.actor == self.actor)
        if self.action is not None and self.action.endswith("."):
            found.append(AuditEntry.action.startswith(self.action, autoescape=True))
        elif self.action is not None:
            found.append(AuditEntry.action == self.action)
        if self.object is not None:
            found.append(AuditEntry.object == self.object)
        if self.since is not None:
            found.append(AuditEntry.at >= self.since)
        if self.until is not None:
            found.append(AuditEntry.at < self.until)
        return found


@dataclass(frozen=True)
class DeliveryFilter:
    """Which deliveries of a webhook endpoint."""

    status: tuple[DeliveryStatus, ...] = ()
    kinds: tuple[str, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        found: list[ColumnElement[bool]] = []
        if self.status:
            found.append(WebhookDelivery.status.in_(self.status))
        if self.kinds:
            found.append(WebhookDelivery.kind.in_(self.kinds))
        return found


Filter = InvoiceFilter | TransactionFilter | AlertFilter | LedgerFilter | AuditFilter | DeliveryFilter | NoFilter

METHODS_OF_ACCOUNT = Relation(
    "methods",
    PaymentMethod,
    PaymentMethod.account_id,
    (PaymentMethod.is_default.desc(), PaymentMethod.created_at.desc()),
    (PaymentMethod.removed_at.is_(None),),
)
BUDGETS_OF_ACCOUNT = Relation("budgets", Budget, Budget.account_id, (Budget.created_at, Budget.id))
PERIODS_OF_BUDGET = Relation(
    "periods_of_budget", BudgetPeriod, BudgetPeriod.budget_id, (BudgetPeriod.period_start.desc(),)
)
DISMISSALS_OF_ACCOUNT = Relation("dismissals", RecommendationDismissal, RecommendationDismissal.account_id)
COMPANY_OF_ACCOUNT = Relation("company", Company, Company.account_id)
TAX_EXEMPTION_OF_ACCOUNT = Relation("tax_exemption", TaxExemption, TaxExemption.account_id)
NOTICES_OF_ACCOUNT = Relation(
    "notices", Notice, Notice.account_id, (Notice.created_at.desc(),), (Notice.dismissed_at.is_(None),)
)
LINES_OF_INVOICE = Relation("lines", InvoiceLine, InvoiceLine.invoice_id, (InvoiceLine.position,))
TAXES_OF_INVOICE = Relation("taxes", InvoiceTax, InvoiceTax.invoice_id, (InvoiceTax.category,))
DOCUMENT_OF_SUBJECT = {
    kind: Relation(
        f"document_of_{kind}",
        Document,
        Document.subject_id,
        where=(Document.kind == kind,),
        without=(Document.content,),
    )
    for kind in DocumentKind
}
CONTENT_OF_SUBJECT = {
    kind: Relation(f"content_of_{kind}", Document, Document.subject_id, where=(Document.kind == kind,))
    for kind in DocumentKind
}
LIMITS_OF_VERSION = Relation("limits", PlanLimit, PlanLimit.plan_version_id, (PlanLimit.metric_key,))

LINES_OF_CREDIT_NOTE = Relation(
    "credit_note_lines", CreditNoteLine, CreditNoteLine.credit_note_id, (CreditNoteLine.position,)
)
TAXES_OF_CREDIT_NOTE = Relation(
    "credit_note_taxes", CreditNoteTax, CreditNoteTax.credit_note_id, (CreditNoteTax.category,)
)
CREDIT_NOTES_OF_INVOICE = Relation(
    "credit_notes_of_invoice", CreditNote, CreditNote.invoice_id, (CreditNote.issued_at, CreditNote.id)
)
POSTINGS_OF_ENTRY = Relation("postings", LedgerPosting, LedgerPosting.entry_id, (LedgerPosting.ledger_account,))
PENDING_OF_ACCOUNT = Relation(
    "pending", PendingChange, PendingChange.account_id, where=(PendingChange.status == PendingStatus.PENDING,)
)
REFUNDS_OF_CHARGE = Relation(
    "refunds_of_charge",
    Transaction,
    Transaction.charge_id,
    (Transaction.created_at, Transaction.id),
    (Transaction.kind == TransactionKind.REFUND,),
)
REFUNDS_OF_REQUEST = Relation(
    "refunds_of_request",
    Transaction,
    Transaction.refund_request_id,
    (Transaction.created_at, Transaction.id),
    (Transaction.kind == TransactionKind.REFUND,),
)
CHARGES_OF_PENDING = Relation("charges_of_pending", Transaction, Transaction.pending_change_id)

CREDIT_NOTES_OF_ACCOUNT = PagedRelation(
    "creditNotes", CreditNote, CreditNote.account_id, (CreditNote.created_at, CreditNote.id)
)
EVENTS_OF_SUBSCRIPTION = PagedRelation(
    "history", SubscriptionEvent, SubscriptionEvent.account_id, (SubscriptionEvent.created_at, SubscriptionEvent.id)
)
ENTRIES_OF_ACCOUNT = PagedRelation(
    "ledger", LedgerEntry, LedgerEntry.account_id, (LedgerEntry.created_at, LedgerEntry.id)
)
INVOICES_OF_ACCOUNT = PagedRelation("invoices", Invoice, Invoice.account_id, (Invoice.created_at, Invoice.id))
TRANSACTIONS_OF_ACCOUNT = PagedRelation(
    "transactions", Transaction, Transaction.account_id, (Transaction.created_at, Transaction.id)
)
REQUESTS_OF_ACCOUNT = PagedRelation(
    "refundRequests", RefundRequest, RefundRequest.account_id, (RefundRequest.created_at, RefundRequest.id)
)
AUDIT_OF_ACCOUNT = PagedRelation("auditLog", AuditEntry, AuditEntry.account_id, (AuditEntry.number,))
OPENINGS_OF_KEY = Relation("openings", ApiKeyAccount, ApiKeyAccount.api_key_id, (ApiKeyAccount.account_id,))
EXPORTS_OF_ACCOUNT = PagedRelation("exports", Export, Export.account_id, (Export.created_at, Export.id))
CONTACTS_OF_ACCOUNT = Relation(
    "contacts", Contact, Contact.account_id, (Contact.is_primary.desc(), Contact.created_at, Contact.id)
)
MEMBERS_OF_ACCOUNT = Relation(
    "members", Member, Member.account_id, (Member.created_at, Member.id), (Member.removed_at.is_(None),)
)
INVITES_OF_ACCOUNT = Relation(
    "invites",
    Invite,
    Invite.account_id,
    (Invite.created_at, Invite.id),
    (Invite.accepted_at.is_(None), Invite.revoked_at.is_(None)),
)
TRANSFER_OF_ACCOUNT = Relation(
    "ownership_transfer",
    OwnershipTransfer,
    OwnershipTransfer.account_id,
    where=(OwnershipTransfer.accepted_at.is_(None), OwnershipTransfer.withdrawn_at.is_(None)),
)
ENDPOINTS_OF_ACCOUNT = Relation(
    "endpoints",
    WebhookEndpoint,
    WebhookEndpoint.account_id,
    order=(WebhookEndpoint.created_at, WebhookEndpoint.id),
    where=(WebhookEndpoint.removed_at.is_(None),),
)
DELIVERIES_OF_ENDPOINT = PagedRelation(
    "deliveries",
    WebhookDelivery,
    WebhookDelivery.endpoint_id,
    (WebhookDelivery.created_at, WebhookDelivery.id),
)
ATTEMPTS_OF_DELIVERY = Relation("attempts", WebhookAttempt, WebhookAttempt.delivery_id, order=(WebhookAttempt.number,))
TRANSACTIONS_OF_INVOICE = PagedRelation(
    "transactions_of_invoice", Transaction, Transaction.invoice_id, (Transaction.created_at, Transaction.id)
)
RESERVATIONS_OF_ACCOUNT = PagedRelation(
    "reservations", Reservation, Reservation.account_id, (Reservation.reserved_at, Reservation.id)
)
ALERTS_OF_ACCOUNT = PagedRelation("alerts", Alert, Alert.account_id, (Alert.sequence, Alert.id))


async def load_related(session: ReadSession, relation: Relation[RowT], parents: Sequence[Any]) -> list[list[RowT]]:
    """The rows of each parent, in the parents' order: one statement for all."""
    groups: dict[Any, list[RowT]] = defaultdict(list)
    rows = await session.scalars(
        select(relation.target)
        .where(relation.by.in_(parents), *relation.where)
        .order_by(*relation.order)
        .options(*(defer(column, raiseload=True) for column in relation.without))
    )
    for row in rows:
        groups[getattr(row, relation.by.key)].append(row)
    return [groups[parent] for parent in parents]


async def load_pages(
    session: ReadSession, relation: PagedRelation[RowT], parents: Sequence[UUID], filtered: Filter, window: Window
) -> list[Slice[RowT]]:
    """The same page of each parent's list: one statement for all."""
    slices = await read_slices_below(
        session,
        order=relation.name,
        target=relation.target,
        by=relation.by,
        newest_by=relation.newest_by,
        conditions=filtered.conditions(),
        parents=parents,
        window=window,
    )
    return [slices[parent] for parent in parents]


async def load_rows(session: ReadSession, target: type[RowT], ids: Sequence[UUID]) -> list[RowT | None]:
    """Rows by id; a missing one is None."""
    column: InstrumentedAttribute[UUID] = target.id  # type: ignore[attr-defined]  # only entities are loaded by id
    rows = {row.id: row for row in await session.scalars(select(target).where(column.in_(ids)))}  # type: ignore[attr-defined]
    return [rows.get(id_) for id_ in ids]


@dataclass(frozen=True)
class PlanOffer:
    """A version of a plan, with the plan."""

    plan: Plan
    version: PlanVersion


@dataclass(frozen=True)
class Agreement:
    """A subscription with what was sold."""

    subscription: Subscription
    offer: PlanOffer


async def load_agreements(session: ReadSession, account_ids: Sequence[UUID]) -> list[Agreement | None]:
    """The subscription of each account, with plan and version; None where there is none."""
    rows = await session.execute(
        select(Subscription, Plan, PlanVersion)
        .join(PlanVersion, PlanVersion.id == Subscription.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(Subscription.account_id.in_(account_ids))
    )
    found = {row.account_id: Agreement(row, PlanOffer(plan, version)) for row, plan, version in rows}
    return [found.get(account_id) for account_id in account_ids]


@dataclass(frozen=True)
class HeldAddOn:
    """What an account holds of an add-on."""

    held: SubscriptionAddOn
    add_on: AddOn


async def load_held_add_ons(session: ReadSession, account_ids: Sequence[UUID]) -> list[list[HeldAddOn]]:
    """The add-ons of each account, in the catalogue's order."""
    groups: dict[UUID, list[HeldAddOn]] = defaultdict(list)
    rows = await session.execute(
        select(SubscriptionAddOn, AddOn)
        .join(AddOn, AddOn.id == SubscriptionAddOn.add_on_id)
        .where(SubscriptionAddOn.account_id.in_(account_ids))
        .order_by(AddOn.position, AddOn.key)
    )
    for held, add_on in rows:
        groups[held.account_id].append(HeldAddOn(held, add_on))
    return [groups[account_id] for account_id in account_ids]


async def load_prices(session: ReadSession, keys: Sequence[tuple[PriceKind, str]]) -> list[list[Price]]:
    """The prices of each (kind, subject), by interval and currency."""
    kinds: dict[PriceKind, set[str]] = defaultdict(set)
    for kind, subject in keys:
        kinds[kind].add(subject)
    rows = await session.scalars(
        select(Price)
        .where(or_(*((Price.kind == kind) & Price.subject.in_(subjects) for kind, subjects in kinds.items())))
        .order_by(Price.interval, Price.currency)
    )
    groups: dict[tuple[PriceKind, str], list[Price]] = defaultdict(list)
    for price in rows:
        groups[price.kind, price.subject].append(price)
    return [groups[key] for key in keys]


async def load_invoices_by_number(session: ReadSession, keys: Sequence[tuple[UUID, str]]) -> list[Invoice | None]:
    """Invoices by (account, number)."""
    rows = await session.scalars(
        select(Invoice).where(
            Invoice.account_id.in_({account_id for account_id, _ in keys}), Invoice.number.in_({key for _, key in keys})
        )
    )
    found = {(row.account_id, row.number): row for row in rows}
    return [found.get(key) for key in keys]


async def load_notes_of_cancellation(session: ReadSession, account_id: UUID) -> Sequence[CreditNote]:
    """The credit notes that an account's last cancellation made, in order of issue."""
    rows = await session.scalars(
        select(CreditNote)
        .join(Subscription, Subscription.account_id == CreditNote.account_id)
        .where(
            CreditNote.account_id == account_id,
            CreditNote.reason == "CANCELLATION",
            CreditNote.created_at >= Subscription.canceled_at,
        )
        .order_by(CreditNote.issued_at, CreditNote.number)
    )
    return rows.all()


async def load_conducts(session: ReadSession, customers: Sequence[str]) -> dict[str, SandboxConduct]:
    """How the sandbox's processor was told to behave, by customer."""
    rows = await session.scalars(select(SandboxConduct).where(SandboxConduct.customer.in_(customers)))
    return {row.customer: row for row in rows}
