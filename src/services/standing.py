"""All that a bill depends on, of an account: read in a constant number of statements, for one and for many."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, or_, select
from sqlalchemy.orm import aliased, joinedload

from ..database import ReadSession
from ..models import (
    BillingAccount,
    Company,
    Counter,
    CreditNoteLine,
    Interval,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Issuer,
    PaymentMethod,
    PendingChange,
    PendingStatus,
    Plan,
    PlanVersion,
    ScheduledChange,
    Subscription,
    TaxExemption,
    TaxTableRow,
    Transaction,
    TransactionKind,
    UsageRating,
)
from .bills import Credited
from .relations import (
    COUNTER_OF_RATING,
    METHODS_OF_ACCOUNT,
    Agreement,
    HeldAddOn,
    PlanOffer,
    load_agreements,
    load_held_add_ons,
    load_related,
)
from .rules.tax import Exemption, TableRow, TaxDecision, TaxParty, TaxRate, decide_tax
from .usage import UsageFigure, load_figures


@dataclass(frozen=True)
class Terms:
    """What is or will be sold of a plan."""

    offer: PlanOffer
    interval: Interval
    price_minor: int


@dataclass(frozen=True)
class CreditableLine:
    """A line that was invoiced, and how much of it is not credited yet, net."""

    line: InvoiceLine
    invoice_number: str
    rest_minor: int
    is_paid: bool
    """Whether its invoice is: then what is credited of it goes to the balance."""

    @property
    def credited(self) -> Credited:
        """How a credit names it."""
        return Credited(line_id=self.line.id, invoice_id=self.line.invoice_id, invoice_number=self.invoice_number)

    @property
    def taxes(self) -> tuple[TaxRate, ...]:
        """Its taxes, which its credits share."""
        return read_taxes(self.line.taxes)


def read_taxes(stored: Sequence[Sequence[object]]) -> tuple[TaxRate, ...]:
    """The taxes of a line as they are stored."""
    return tuple(
        TaxRate(str(jurisdiction), str(category), int(str(rate)), None if reason is None else str(reason))
        for jurisdiction, category, rate, reason in stored
    )


@dataclass(frozen=True)
class RatedUsage:
    """A closed period's rating of a metric, with what is counted for it by now."""

    rating: UsageRating
    used: int
    allowed: int
    """What of it was accepted above the limit without charge."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an account stands."""

    account: BillingAccount
    issuer: Issuer
    company: Company | None
    exemption: TaxExemption | None
    tax_table: Sequence[TableRow]
    subscription: Subscription | None
    offer: PlanOffer | None
    add_ons: Sequence[HeldAddOn]
    scheduled: ScheduledChange | None
    scheduled_offer: PlanOffer | None
    figures: Sequence[UsageFigure]
    ratings: Sequence[RatedUsage]
    methods: Sequence[PaymentMethod]
    lines: Sequence[CreditableLine]
    """Newest first."""
    drafts: Sequence[Invoice]
    """Oldest first."""
    carried_minor: int
    """Owed of earlier invoices that were too small to charge."""
    kept_balance_minor: int
    """How much of the balance is kept for changes that wait for their payment."""

    @property
    def currency(self) -> str:
        """What it pays in."""
        return self.account.currency

    @property
    def terms(self) -> Terms | None:
        """What it runs on."""
        if self.subscription is None or self.offer is None:
            return None
        return Terms(self.offer, self.subscription.interval, self.subscription.price_minor)

    @property
    def balance_minor(self) -> int:
        """What of the credit balance is free to be applied."""
        return self.account.credit_minor - self.kept_balance_minor

    def day_of(self, instant: datetime) -> date:
        """The calendar day of an instant in the account's zone."""
        return instant.astimezone(ZoneInfo(self.account.timezone)).date()

    def decide_tax(self, line_kind: str, at: datetime) -> TaxDecision:
        """The taxes of a line with a tax date. Before a company is known nothing can be invoiced, and none is shown."""
        if self.company is None:
            return TaxDecision((TaxRate("", "O", 0),))
        company = self.company
        return decide_tax(
            TaxParty(self.issuer.country, vat_id=self.issuer.tax_ids.get("vat")),
            TaxParty(company.country, company.region, company.vat_id),
            self._exemption(),
            line_kind,
            self.day_of(at),
            self.tax_table,
        )

    def _exemption(self) -> Exemption | None:
        row = self.exemption
        return None if row is None else Exemption(row.reason, row.valid_from, row.valid_to)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What of a standing is read beside the account's agreement, add-ons, figures and methods."""

    head: "Head"
    scheduled: "Scheduling | None"
    ratings: Sequence[RatedUsage]
    lines: Sequence[CreditableLine]
    drafts: Sequence[Invoice]
    carried_minor: int
    kept_minor: int
    tax_table: Sequence[TableRow]


def assemble(
    parts: Parts,
    agreement: Agreement | None,
    add_ons: Sequence[HeldAddOn],
    figures: Sequence[UsageFigure],
    methods: Sequence[PaymentMethod],
) -> Standing:
    """A standing from what was read."""
    account, issuer, company, exemption = parts.head
    change, offer = parts.scheduled or (None, None)
    return Standing(
        account=account,
        issuer=issuer,
        company=company,
        exemption=exemption,
        tax_table=parts.tax_table,
        subscription=agreement.subscription if agreement else None,
        offer=agreement.offer if agreement else None,
        add_ons=add_ons,
        scheduled=change,
        scheduled_offer=offer,
        figures=figures,
        ratings=parts.ratings,
        methods=methods,
        lines=parts.lines,
        drafts=parts.drafts,
        carried_minor=parts.carried_minor,
        kept_balance_minor=parts.kept_minor,
    )


async def load_parts(session: ReadSession, account_ids: Sequence[UUID]) -> list[Parts | None]:
    """The parts of standings that nothing else reads, in the accounts' order; None for one that is not there."""
    heads = await _load_heads(session, account_ids)
    scheduled = await load_scheduled(session, account_ids)
    ratings = await load_ratings(session, account_ids)
    lines = await _load_lines(session, account_ids)
    drafts = await _load_drafts(session, account_ids)
    held = await _load_held_amounts(session, account_ids)
    table = await load_tax_table(session)
    return [
        Parts(
            head=heads[account_id],
            scheduled=scheduling,
            ratings=ratings[account_id],
            lines=lines[account_id],
            drafts=drafts[account_id],
            carried_minor=held[account_id][0],
            kept_minor=held[account_id][1],
            tax_table=table,
        )
        if account_id in heads
        else None
        for account_id, scheduling in zip(account_ids, scheduled, strict=True)
    ]


async def load_standing(session: ReadSession, account: BillingAccount, now: datetime) -> Standing:
    """How an account stands."""
    parts = (await load_parts(session, [account.id]))[0]
    assert parts is not None, "the account is there"
    return assemble(
        parts,
        (await load_agreements(session, [account.id]))[0],
        (await load_held_add_ons(session, [account.id]))[0],
        (await load_figures(session, [account.id], now))[account.id],
        (await load_related(session, METHODS_OF_ACCOUNT, [account.id]))[0],
    )


Head = tuple[BillingAccount, Issuer, Company | None, TaxExemption | None]
Scheduling = tuple[ScheduledChange, PlanOffer]


async def _load_heads(session: ReadSession, account_ids: Sequence[UUID]) -> dict[UUID, Head]:
    rows = await session.execute(
        select(BillingAccount, Issuer, Company, TaxExemption)
        .join(Issuer, Issuer.id == BillingAccount.issuer_id)
        .options(joinedload(BillingAccount.test_clock))
        .outerjoin(Company, Company.account_id == BillingAccount.id)
        .outerjoin(TaxExemption, TaxExemption.account_id == BillingAccount.id)
        .where(BillingAccount.id.in_(account_ids))
    )
    return {account.id: (account, issuer, company, exemption) for account, issuer, company, exemption in rows}


async def load_scheduled(session: ReadSession, account_ids: Sequence[UUID]) -> list[Scheduling | None]:
    """The change that waits for each account's period to end, with its plan; None where none does."""
    rows = await session.execute(
        select(ScheduledChange, Plan, PlanVersion)
        .join(PlanVersion, PlanVersion.id == ScheduledChange.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(ScheduledChange.account_id.in_(account_ids))
    )
    found = {change.account_id: (change, PlanOffer(plan, version)) for change, plan, version in rows}
    return [found.get(account_id) for account_id in account_ids]


async def load_ratings(session: ReadSession, account_ids: Sequence[UUID]) -> dict[UUID, list[RatedUsage]]:
    """Of closed periods for which usage may still come, or came and was not invoiced yet; oldest first."""
    rows = await session.execute(
        select(UsageRating, func.coalesce(Counter.used, 0), func.coalesce(Counter.allowed, 0))
        .outerjoin(Counter, COUNTER_OF_RATING)
        .where(UsageRating.account_id.in_(account_ids), UsageRating.settled_at.is_(None))
        .order_by(UsageRating.period_start, UsageRating.metric_key)
    )
    found: dict[UUID, list[RatedUsage]] = defaultdict(list)
    for rating, used, allowed in rows:
        found[rating.account_id].append(RatedUsage(rating, used, allowed))
    return found


async def _load_lines(session: ReadSession, account_ids: Sequence[UUID]) -> dict[UUID, list[CreditableLine]]:
    """Lines that a change, a cancellation or a correction may still credit; newest first."""
    credit, frozen = aliased(InvoiceLine), aliased(Invoice)
    on_invoices = (
        select(func.coalesce(func.sum(-credit.amount_minor), 0))
        .join(frozen, frozen.id == credit.invoice_id)
        .where(
            credit.credited_line_id == InvoiceLine.id,
            # A draft is rated anew, and what was voided credits nothing.
            frozen.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID)),
        )
        .correlate(InvoiceLine)
        .scalar_subquery()
    )
    on_notes = (
        select(func.coalesce(func.sum(CreditNoteLine.amount_minor), 0))
        .where(CreditNoteLine.credited_line_id == InvoiceLine.id)
        .correlate(InvoiceLine)
        .scalar_subquery()
    )
    is_rated = (
        select(UsageRating.metric_key)
        .where(
            UsageRating.account_id == InvoiceLine.account_id,
            UsageRating.metric_key == InvoiceLine.metric_key,
            UsageRating.period_start == InvoiceLine.period_start,
            UsageRating.settled_at.is_(None),
        )
        .correlate(InvoiceLine)
        .exists()
    )
    rows = await session.execute(
        select(InvoiceLine, Invoice.number, Invoice.status, InvoiceLine.amount_minor - on_invoices - on_notes)
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .join(Subscription, Subscription.account_id == InvoiceLine.account_id)
        .where(
            InvoiceLine.account_id.in_(account_ids),
            InvoiceLine.amount_minor > 0,
            # What was voided or written off was not paid for.
            Invoice.status.in_((InvoiceStatus.OPEN, InvoiceStatus.PAID)),
            or_(InvoiceLine.period_end > Subscription.usage_period_start, is_rated),
        )
        .order_by(InvoiceLine.period_start.desc(), InvoiceLine.id.desc())
    )
    found: dict[UUID, list[CreditableLine]] = defaultdict(list)
    for line, number, status, rest_minor in rows:
        is_paid = status is InvoiceStatus.PAID
        found[line.account_id].append(CreditableLine(line, number or "", int(rest_minor), is_paid))
    return found


async def _load_drafts(session: ReadSession, account_ids: Sequence[UUID]) -> dict[UUID, list[Invoice]]:
    found: dict[UUID, list[Invoice]] = defaultdict(list)
    for draft in await session.scalars(
        select(Invoice)
        .where(Invoice.account_id.in_(account_ids), Invoice.status == InvoiceStatus.DRAFT)
        .order_by(Invoice.finalise_at)
    ):
        found[draft.account_id].append(draft)
    return found


async def _load_held_amounts(session: ReadSession, account_ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """What was carried forward and is not on an invoice yet, and what of the balance is kept for pending changes."""
    carried = (
        select(func.coalesce(func.sum(Transaction.amount_minor), 0))
        .where(
            Transaction.account_id == BillingAccount.id,
            Transaction.kind == TransactionKind.CARRIED_FORWARD,
            Transaction.carried_to_invoice_id.is_(None),
        )
        .correlate(BillingAccount)
        .scalar_subquery()
    )
    kept = (
        select(func.coalesce(func.sum(PendingChange.balance_minor), 0))
        .where(PendingChange.account_id == BillingAccount.id, PendingChange.status == PendingStatus.PENDING)
        .correlate(BillingAccount)
        .scalar_subquery()
    )
    rows = await session.execute(select(BillingAccount.id, carried, kept).where(BillingAccount.id.in_(account_ids)))
    return {account_id: (int(carried_minor), int(kept_minor)) for account_id, carried_minor, kept_minor in rows}


async def load_tax_table(session: ReadSession) -> list[TableRow]:
    """The whole tax table, as the rules take it."""
    return [
        TableRow(
            country=row.country,
            region=row.region,
            jurisdiction=row.jurisdiction,
            line_kind=row.line_kind,
            category=row.category,
            rate_ppm=row.rate_ppm,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
        )
        for row in await session.scalars(select(TaxTableRow))
    ]
