"""How long everything is kept: one table, which the guide prints, and in which no table of the database is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from ..models import (
    AddOn,
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
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Deferral,
    Deployment,
    Document,
    DocumentBytes,
    DueWork,
    Dunning,
    EffectiveLimit,
    Export,
    ExportPart,
    FieldUse,
    IdempotencyKey,
    Invite,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    Issuer,
    LedgerEntry,
    LedgerPosting,
    MailMessage,
    Member,
    Metric,
    Notice,
    NumberSeries,
    Operator,
    OutboxEvent,
    OutboxReader,
    OverageApproval,
    OverageSetting,
    OwnershipTransfer,
    PaymentMethod,
    PendingChange,
    Plan,
    PlanLimit,
    PlanVersion,
    Price,
    ProcessorEvent,
    PurgePass,
    Quote,
    RecommendationDismissal,
    RefundRequest,
    Reservation,
    SandboxCharge,
    SandboxConduct,
    SandboxDispute,
    SandboxMessage,
    SandboxRefund,
    ScheduledChange,
    Subscription,
    SubscriptionAddOn,
    SubscriptionEvent,
    TaxExemption,
    TaxTableRow,
    TestClock,
    Transaction,
    UsageCost,
    UsageEvent,
    UsageEventId,
    UsagePeriod,
    UsageRating,
    UsageRollup,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from .exports import KEPT as EXPORT_FILE
from .idempotency import KEPT as IDEMPOTENCY_KEY

OUTBOX = timedelta(days=90)
DELIVERIES = OUTBOX
"""As long as their events at least: what went out must be known, or it goes out again."""
MAIL = timedelta(days=90)
FIELD_USE = timedelta(days=400)
DONE_WORK = timedelta(days=90)
MESSAGES = timedelta(days=100)
EXPORTS = timedelta(days=90)
QUOTES = timedelta(days=35)
RESERVATIONS = timedelta(days=35)
INVITES = timedelta(days=90)


class Fate(StrEnum):
    """What lets rows go."""

    BOOKS = "with the books"
    ACCOUNT = "with the account's data"
    OWN = "by itself"
    FOR_GOOD = "never"


@dataclass(frozen=True)
class Kept:
    """What is kept how long, and why so: one line of the table."""

    what: str
    tables: Sequence[type[Base]]
    fate: Fate
    period: str
    """How long, and from when."""
    is_held: bool = False
    """Whether a legal hold keeps it longer."""

    @property
    def names(self) -> list[str]:
        """Of its tables in the database."""
        return [str(table.__tablename__) for table in self.tables]


def _days(period: timedelta) -> str:
    return f"{period // timedelta(hours=1)} hours" if period < timedelta(days=4) else f"{period.days} days"


KEPT: tuple[Kept, ...] = (
    Kept(
        "invoices and credit notes, with their documents",
        (Invoice, InvoiceLine, InvoiceTax, CreditNote, CreditNoteLine, CreditNoteTax, Document, DocumentBytes),
        Fate.BOOKS,
        "`retentionYears` of the issuer, 7 at least, from the end of the calendar year of issue in the issuer's zone; "
        "longer while anything younger names them, or money is under way",
        is_held=True,
    ),
    Kept(
        "payments, refunds, reminders of payment, and changes that were to be paid",
        (Transaction, RefundRequest, Dunning, PendingChange),
        Fate.BOOKS,
        "as long as the invoice they belong to; of a try without an invoice, as one of its year",
        is_held=True,
    ),
    Kept(
        "the ledger",
        (LedgerEntry, LedgerPosting, Deferral),
        Fate.BOOKS,
        "as invoices of the same year; what it came to stays as one entry brought forward",
        is_held=True,
    ),
    Kept(
        "usage: figures, history, costs, ratings",
        (Counter, UsageRollup, UsageCost, UsageRating, UsagePeriod, EffectiveLimit),
        Fate.ACCOUNT,
        "as long as the account",
        is_held=True,
    ),
    Kept(
        "usage events, and the memory of their ids",
        (UsageEvent, UsageEventId),
        Fate.OWN,
        "`PLAFOND_USAGE_RETENTION_DAYS` (400, at least 100) from when they were stored, and while they could still be "
        "corrected; at the latest with the account's data",
        is_held=True,
    ),
    Kept(
        "what the account set for itself, and is told",
        (
            Budget,
            AlertThreshold,
            OverageSetting,
            OverageApproval,
            Alert,
            Notice,
            RecommendationDismissal,
            SubscriptionAddOn,
            ScheduledChange,
        ),
        Fate.ACCOUNT,
        "as long as the account; a notice until its cause is gone",
        is_held=True,
    ),
    Kept(
        "what was spent under budgets", (BudgetPeriod,), Fate.ACCOUNT, "the last 24 usage periods of each", is_held=True
    ),
    Kept(
        "the company and its contacts",
        (Company, TaxExemption, Contact),
        Fate.ACCOUNT,
        "as long as the account; what documents say stays on them",
        is_held=True,
    ),
    Kept(
        "webhook endpoints",
        (WebhookEndpoint,),
        Fate.ACCOUNT,
        "as long as the account; an operator's for the life of the deployment",
        is_held=True,
    ),
    Kept(
        "members",
        (Member,),
        Fate.ACCOUNT,
        "as long as the account; then without name, address and identity, since the audit log refers to them",
        is_held=True,
    ),
    Kept(
        "payment methods",
        (PaymentMethod,),
        Fate.ACCOUNT,
        "as long as the account; then forgotten by the processor too, and without brand, figures and token",
        is_held=True,
    ),
    Kept(
        "API keys",
        (ApiKey, ApiKeyAccount),
        Fate.ACCOUNT,
        "as long as the account; then revoked, and without name. An operator's for the life of the deployment",
        is_held=True,
    ),
    Kept(
        "exports",
        (Export, ExportPart),
        Fate.OWN,
        f"the file {_days(EXPORT_FILE)} from when it was ready; that there was one {_days(EXPORTS)} more",
        is_held=True,
    ),
    Kept("quotes", (Quote,), Fate.OWN, f"{_days(QUOTES)} from their end", is_held=True),
    Kept("reservations", (Reservation,), Fate.OWN, f"{_days(RESERVATIONS)} from their end", is_held=True),
    Kept(
        "invitations and offers of ownership",
        (Invite, OwnershipTransfer),
        Fate.OWN,
        f"{_days(INVITES)} from when they were taken, withdrawn, or ran out",
        is_held=True,
    ),
    Kept("mails", (MailMessage,), Fate.OWN, f"{_days(MAIL)} from when they were planned", is_held=True),
    Kept(
        "webhook deliveries",
        (WebhookDelivery, WebhookAttempt),
        Fate.OWN,
        f"{_days(DELIVERIES)} from when they arrived, or were given up",
        is_held=True,
    ),
    Kept(
        "events",
        (OutboxEvent,),
        Fate.OWN,
        f"{_days(OUTBOX)} from when they were stored: older cursors are answered `CURSOR_EXPIRED` or `GAP`",
    ),
    Kept("idempotency keys", (IdempotencyKey,), Fate.OWN, f"{_days(IDEMPOTENCY_KEY)} from the first request"),
    Kept("due work that is done", (DueWork,), Fate.OWN, f"{_days(DONE_WORK)} from when it was done"),
    Kept("messages of the payment processor", (ProcessorEvent,), Fate.OWN, f"{_days(MESSAGES)} from when they came"),
    Kept("which caller asks for which fields", (FieldUse,), Fate.OWN, f"{_days(FIELD_USE)} from that day"),
    Kept(
        "the account itself, its plan and its history",
        (BillingAccount, Subscription, SubscriptionEvent),
        Fate.FOR_GOOD,
        "what books and audit log refer to: who it is to the seller, without metadata once its data is deleted",
    ),
    Kept(
        "the audit log",
        (AuditEntry,),
        Fate.FOR_GOOD,
        "each entry is hashed with the one before, so none is left out. What changed is erased with the account's "
        "data, or with a person's, and leaves its hash; of the books it stays",
    ),
    Kept(
        "the seller, the catalogue and its taxes",
        (Issuer, NumberSeries, Metric, Plan, PlanVersion, PlanLimit, AddOn, Price, TaxTableRow),
        Fate.FOR_GOOD,
        "what invoices were reckoned by; numbers are never given twice",
    ),
    Kept(
        "the deployment, its operators, and how far its readers are",
        (Deployment, Operator, OutboxReader, PurgePass),
        Fate.FOR_GOOD,
        "what it runs on",
    ),
    Kept(
        "the sandbox's clocks and its processor",
        (TestClock, SandboxCharge, SandboxRefund, SandboxDispute, SandboxConduct, SandboxMessage),
        Fate.FOR_GOOD,
        "made-up data, that goes with the sandbox",
    ),
)


def render_periods() -> str:
    """The table as it stands in docs/retention.md."""
    lines = ["| what | tables | kept | goes | a legal hold |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {kept.what} | {', '.join(f'`{name}`' for name in kept.names)} | {kept.period} | {kept.fate} | "
        f"{'keeps it' if kept.is_held else ''} |"
        for kept in KEPT
    ]
    return "\n".join(lines) + "\n"
