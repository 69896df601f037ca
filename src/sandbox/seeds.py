"""Fills an empty sandbox: the same every time, but for dates relative to the day."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from dateutil.relativedelta import relativedelta
from sqlalchemy import select

from ..clock import SetClock
from ..database import Actor, Database, Work
from ..models import (
    BillingAccount,
    Budget,
    BudgetAction,
    EffectiveLimit,
    FailureCode,
    Interval,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceStatus,
    InvoiceTax,
    Issuer,
    LineKind,
    Member,
    Notice,
    NoticeSeverity,
    Operator,
    PaymentMethod,
    PaymentMethodKind,
    Plan,
    PlanLimit,
    PlanVersion,
    Price,
    PriceKind,
    Role,
    Subscription,
    SubscriptionAddOn,
    SubscriptionStatus,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from ..models.catalogue import AddOn
from ..services.access import Principal, PrincipalKind, Scope
from ..services.catalogue_files import apply_catalogue, read_catalogue
from ..services.metering import record_usage
from ..services.rules.periods import Period, period_number, to_instant, to_wall
from ..services.tokens import create_key
from ..services.usage import EventStatus, UsageInput
from ..settings import Environment

SEEDER = Principal(kind=PrincipalKind.OPERATOR, id="system:seeder", display_name="Seeder", is_operator=True)
ACTOR = Actor(name="system:seeder", origin="sandbox")
ISSUER_OF_MEMBERS = "sandbox"
FIRST_INVOICE = 1001
WORKSPACES = ("main", "marketing", "product")


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """What the sandbox says of a tenant."""

    external_id: str
    name: str
    plan: str
    used: dict[str, int]
    currency: str = "USD"
    timezone: str = "America/New_York"
    locale: str = "en-US"
    country: str = "US"
    interval: Interval = Interval.MONTH
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE
    days_into_period: int = 15
    months_back: int = 12
    card: tuple[str, str] | None = ("visa", "4242")
    add_ons: dict[str, int] = field(default_factory=dict[str, int])
    budget_minor: int | None = None
    tax: tuple[str, str] = ("O", "Outside the scope of Austrian VAT")


def _used(email_sends: int, team_members: int, workspaces: int, custom_domains: int) -> dict[str, int]:
    return {
        "email_sends": email_sends,
        "team_members": team_members,
        "workspaces": workspaces,
        "custom_domains": custom_domains,
    }


TENANTS = (
    Tenant(
        external_id="acme",
        name="Acme Corporation",
        plan="professional",
        used=_used(23_450, 3, 7, 5),
        budget_minor=20_000,
    ),
    Tenant(external_id="birchwood", name="Birchwood Mail", plan="professional", used=_used(39_500, 3, 6, 8)),
    Tenant(
        external_id="calder",
        name="Calder Labs",
        plan="starter",
        used=_used(9_600, 1, 2, 3),
        timezone="Europe/London",
        locale="en-GB",
        country="GB",
        currency="GBP",
        add_ons={"priority_support": 1},
        card=("mastercard", "4444"),
    ),
    Tenant(
        external_id="dunmore",
        name="Dunmore Press",
        plan="starter",
        used=_used(620, 1, 2, 2),
        status=SubscriptionStatus.PAST_DUE,
        days_into_period=2,
        card=("visa", "0341"),
    ),
    Tenant(
        external_id="elmtree",
        name="Elmtree Studio",
        plan="professional",
        used=_used(1_800, 2, 3, 1),
        status=SubscriptionStatus.TRIALING,
        days_into_period=5,
        months_back=0,
        card=None,
    ),
    Tenant(
        external_id="fjordlicht",
        name="Fjordlicht GmbH",
        plan="business",
        used=_used(88_200, 11, 14, 21),
        currency="EUR",
        timezone="Europe/Berlin",
        locale="de-DE",
        country="DE",
        interval=Interval.YEAR,
        months_back=16,
        tax=("AE", "Reverse charge"),
    ),
    Tenant(
        external_id="ginza",
        name="Ginza Post KK",
        plan="starter",
        used=_used(4_310, 1, 2, 2),
        currency="JPY",
        timezone="Asia/Tokyo",
        locale="ja-JP",
        country="JP",
    ),
)


@dataclass(frozen=True)
class SandboxToken:
    """A token of the sandbox: whose, and as what."""

    tenant: str
    role: Role
    token: str


@dataclass(frozen=True)
class _Seeded:
    tenant: Tenant
    account: BillingAccount
    plan: Plan
    anchor_wall: datetime
    price_minor: int
    add_ons: list[tuple[AddOn, SubscriptionAddOn]]
    method: PaymentMethod | None
    periods: list[Period]
    """Usage periods from the first to the running one."""


async def seed_sandbox(database: Database, now: datetime) -> list[SandboxToken]:
    """Make the sandbox in an empty, migrated database whose clock can be set. Gives its tokens."""
    clock = database.clock
    assert isinstance(clock, SetClock), "the seeder plays the past"
    now = now.astimezone(UTC).replace(microsecond=0)
    clock.stands_at = now - timedelta(days=800)
    async with database.work(ACTOR) as work:
        await apply_catalogue(work, read_catalogue(files(__package__).joinpath("catalogue.toml").read_bytes()))
        issuer = (await work.session.scalars(select(Issuer))).one()
        seeded = [await _make_tenant(work, issuer, tenant, now) for tenant in TENANTS]
        await _make_invoices(work, issuer, seeded, now)
    for made in seeded:
        await _play_usage(database, made, now)
    clock.stands_at = now
    async with database.work(ACTOR) as work:
        return await _make_people(work, seeded)


def _anchor(tenant: Tenant, now: datetime) -> tuple[datetime, int]:
    """The anchor as wall time, and how many months it lies before the running usage period."""
    today = to_wall(now, tenant.timezone).replace(hour=0, minute=0, second=0)
    start = today - timedelta(days=tenant.days_into_period)
    if not tenant.months_back:
        return start, 0
    step = 12 if tenant.interval is Interval.YEAR else 1
    for back in range(tenant.months_back, tenant.months_back + 3 * step, step):
        anchor = start - relativedelta(months=back)
        if anchor + relativedelta(months=back) == start:
            return anchor, back
    # The day is missing in every month to start from: the period then starts a day or two earlier.
    return start - relativedelta(months=tenant.months_back), tenant.months_back


async def _make_tenant(work: Work, issuer: Issuer, tenant: Tenant, now: datetime) -> _Seeded:
    session = work.session
    anchor_wall, months = _anchor(tenant, now)
    started_at = to_instant(anchor_wall, tenant.timezone)
    account = BillingAccount(
        created_at=started_at,
        issuer_id=issuer.id,
        external_id=tenant.external_id,
        name=tenant.name,
        currency=tenant.currency,
        timezone=tenant.timezone,
        locale=tenant.locale,
    )
    session.add(account)
    await session.flush()
    account = (await work.lock_accounts([account.id]))[account.id]
    work.audit(account, "account.created", f"billing_account:{account.id}", after={"name": account.name})
    work.emit(account, "account.created", {"accountId": str(account.id)})
    plan, version = (
        await session.execute(select(Plan, PlanVersion).join(PlanVersion).where(Plan.key == tenant.plan))
    ).one()
    price_minor = await _price(work, PriceKind.PLAN, str(version.id), tenant.interval, tenant.currency)
    is_trial = tenant.status is SubscriptionStatus.TRIALING
    periods = [period_number(anchor_wall, tenant.timezone, n) for n in range(months + 1)]
    billing = (
        period_number(anchor_wall, tenant.timezone, months // 12, Interval.YEAR)
        if tenant.interval is Interval.YEAR
        else periods[-1]
    )
    trial_end = started_at + timedelta(days=14) if is_trial else None
    session.add(
        Subscription(
            created_at=started_at,
            account_id=account.id,
            plan_version_id=version.id,
            status=tenant.status,
            interval=tenant.interval,
            price_minor=price_minor,
            anchor_wall=anchor_wall,
            zone=tenant.timezone,
            usage_period_start=periods[-1].start,
            usage_period_end=periods[-1].end,
            usage_period_number=months,
            current_period_start=billing.start,
            current_period_end=trial_end or billing.end,
            started_at=started_at,
            trial_end=trial_end,
            past_due_at=billing.start if tenant.status is SubscriptionStatus.PAST_DUE else None,
        )
    )
    for limit in await session.scalars(select(PlanLimit).where(PlanLimit.plan_version_id == version.id)):
        session.add(
            EffectiveLimit(
                account_id=account.id,
                metric_key=limit.metric_key,
                quantity=limit.quantity,
                cause="subscription.started",
                changed_at=started_at,
            )
        )
    work.audit(account, "subscription.started", f"billing_account:{account.id}", after={"plan": plan.key})
    work.emit(account, "subscription.started", {"plan": plan.key})
    method = _make_method(work, account, tenant, started_at, now)
    add_ons = await _make_add_ons(work, account, tenant, started_at)
    if tenant.budget_minor is not None:
        session.add(
            Budget(
                created_at=started_at,
                account_id=account.id,
                limit_minor=tenant.budget_minor,
                thresholds=[80, 100],
                action=BudgetAction.ALERT_ONLY,
            )
        )
    await session.flush()
    return _Seeded(tenant, account, plan, anchor_wall, price_minor, add_ons, method, periods)


async def _price(work: Work, kind: PriceKind, subject: str, interval: Interval, currency: str) -> int:
    price = (
        await work.session.scalars(
            select(Price).where(
                Price.kind == kind, Price.subject == subject, Price.interval == interval, Price.currency == currency
            )
        )
    ).one()
    return price.amount_minor


def _make_method(
    work: Work, account: BillingAccount, tenant: Tenant, started_at: datetime, now: datetime
) -> PaymentMethod | None:
    if tenant.card is None:
        return None
    brand, last4 = tenant.card
    method = PaymentMethod(
        created_at=started_at,
        account_id=account.id,
        kind=PaymentMethodKind.CARD,
        brand=brand,
        last4=last4,
        exp_month=8,
        exp_year=now.year + 2,
        is_default=True,
        processor_token=f"pm_sandbox_{tenant.external_id}",
    )
    work.session.add(method)
    return method


async def _make_add_ons(
    work: Work, account: BillingAccount, tenant: Tenant, started_at: datetime
) -> list[tuple[AddOn, SubscriptionAddOn]]:
    made = []
    for key, quantity in tenant.add_ons.items():
        add_on = (await work.session.scalars(select(AddOn).where(AddOn.key == key))).one()
        held = SubscriptionAddOn(
            created_at=started_at,
            account_id=account.id,
            add_on_id=add_on.id,
            quantity=quantity,
            price_minor=await _price(work, PriceKind.ADD_ON, key, Interval.MONTH, tenant.currency),
        )
        work.session.add(held)
        made.append((add_on, held))
    return made


def _bills(made: _Seeded) -> Iterator[tuple[Period, Period | None]]:
    """Each billed usage period, and the billing period where the plan is charged with it."""
    if made.tenant.status is SubscriptionStatus.TRIALING:
        return
    for n, period in enumerate(made.periods):
        if made.tenant.interval is Interval.MONTH:
            yield period, period
        elif n % 12 == 0:
            yield period, period_number(made.anchor_wall, made.tenant.timezone, n // 12, Interval.YEAR)
        elif made.add_ons:
            yield period, None


async def _make_invoices(work: Work, issuer: Issuer, seeded: list[_Seeded], now: datetime) -> None:
    """A year of invoices, all accounts together in order of time, numbered from INV-001001."""
    due = sorted(
        (
            (period.start, made.tenant.external_id, made, period, billed)
            for made in seeded
            for period, billed in _bills(made)
        ),
        key=lambda item: item[:2],
    )
    for number, (at, _, made, period, billed) in enumerate(due, FIRST_INVOICE):
        tenant = made.tenant
        lines: list[tuple[LineKind, str, int, int, Period]] = []
        if billed is not None:
            per = "year" if tenant.interval is Interval.YEAR else "month"
            lines.append((LineKind.SUBSCRIPTION, f"{made.plan.name}, one {per}", 1, made.price_minor, billed))
        lines += [
            (LineKind.ADD_ON, add_on.name, held.quantity, held.price_minor, period) for add_on, held in made.add_ons
        ]
        total_minor = sum(quantity * unit_minor for _, _, quantity, unit_minor, _ in lines)
        declined = tenant.status is SubscriptionStatus.PAST_DUE and period == made.periods[-1]
        whole = billed or period
        invoice = Invoice(
            created_at=at,
            account_id=made.account.id,
            issuer_id=issuer.id,
            kind=InvoiceKind.PERIOD,
            cause=f"period:{period.start.isoformat()}",
            number=f"INV-{number:06d}",
            status=InvoiceStatus.OPEN if declined else InvoiceStatus.PAID,
            currency=tenant.currency,
            period_start=whole.start,
            period_end=whole.end,
            issued_at=at,
            due_at=at,
            subtotal_minor=total_minor,
            tax_minor=0,
            total_minor=total_minor,
            paid_minor=0 if declined else total_minor,
            bill_to={"name": tenant.name, "country": tenant.country},
        )
        work.session.add(invoice)
        await work.session.flush()
        category, reason = tenant.tax
        for position, (kind, description, quantity, unit_minor, span) in enumerate(lines):
            work.session.add(
                InvoiceLine(
                    created_at=at,
                    account_id=made.account.id,
                    invoice_id=invoice.id,
                    position=position,
                    kind=kind,
                    description=description,
                    quantity=quantity,
                    unit_minor=unit_minor,
                    amount_minor=quantity * unit_minor,
                    period_start=span.start,
                    period_end=span.end,
                    tax_country=tenant.country,
                    taxes=[[tenant.country, category, 0, reason]],
                    basis={},
                    plan_key=made.plan.key if kind is LineKind.SUBSCRIPTION else None,
                )
            )
        work.session.add(
            InvoiceTax(
                created_at=at,
                account_id=made.account.id,
                invoice_id=invoice.id,
                jurisdiction=tenant.country,
                category=category,
                rate_ppm=0,
                taxable_minor=total_minor,
                amount_minor=0,
                reason=reason,
            )
        )
        work.session.add(
            Transaction(
                created_at=at + timedelta(seconds=2),
                account_id=made.account.id,
                invoice_id=invoice.id,
                payment_method_id=made.method.id if made.method else None,
                kind=TransactionKind.CHARGE,
                status=TransactionStatus.FAILED if declined else TransactionStatus.SUCCEEDED,
                currency=tenant.currency,
                amount_minor=total_minor,
                description=f"Invoice {invoice.number}",
                failure_code=FailureCode.CARD_DECLINED if declined else None,
            )
        )
        if declined:
            days_left = max(0, 7 - (now - at).days)
            work.session.add(
                Notice(
                    created_at=at + timedelta(seconds=2),
                    account_id=made.account.id,
                    code="PAYMENT_FAILED",
                    subject=str(invoice.id),
                    severity=NoticeSeverity.CRITICAL,
                    params={
                        "invoice": invoice.number,
                        "suspendsAt": (at + timedelta(days=7)).isoformat(),
                        "daysLeft": days_left,
                    },
                )
            )


def _spread(total: int, parts: int, chance: random.Random) -> list[int]:
    """A total over some days, uneven but exact."""
    weights = [chance.randint(60, 140) for _ in range(parts)]
    cuts = [total * sum(weights[: n + 1]) // sum(weights) for n in range(parts)]
    return [after - before for before, after in zip([0, *cuts], cuts, strict=False)]


async def _play_usage(database: Database, made: _Seeded, now: datetime) -> None:
    """Send a year of usage through the service, as it would have come: past months at once, the running one by day."""
    clock = database.clock
    assert isinstance(clock, SetClock), "checked by the caller"
    chance = random.Random(made.tenant.external_id)  # noqa: S311  # the same history every time
    used = made.tenant.used
    gauges = [key for key in used if key != "email_sends"]
    batches: list[tuple[datetime, list[UsageInput]]] = []
    first = made.periods[0].start + timedelta(hours=1)
    batches.append(
        (
            first + timedelta(hours=1),
            [_event(made, f"start-{key}", key, first, level=max(1, used[key] // 2)) for key in gauges],
        )
    )
    for n, period in enumerate(made.periods):
        is_running = n == len(made.periods) - 1
        share = chance.randint(45, 78)
        limit_like = min(used["email_sends"], _quiet_total(made))
        total = used["email_sends"] if is_running else limit_like * share // 78
        until = now if is_running else period.end
        days = max(1, (until - period.start).days)
        events = []
        for day, quantity in enumerate(_spread(total, days, chance)):
            at = period.start + timedelta(days=day, hours=9, minutes=chance.randint(0, 59))
            at = min(at, until - timedelta(minutes=5))
            if quantity:
                workspace = WORKSPACES[chance.randrange(len(WORKSPACES))]
                events.append(
                    _event(
                        made, f"{n}-{day}", "email_sends", at, quantity=quantity, properties={"workspace": workspace}
                    )
                )
        if is_running:
            batches += [(event.occurred_at or now, [event]) for event in events]
        elif events:
            batches.append((period.end - timedelta(minutes=1), events))
        if n == len(made.periods) // 2:
            at = period.start + timedelta(hours=2)
            batches.append((at, [_event(made, f"grow-{key}", key, at, level=used[key]) for key in gauges]))
    for at, batch in sorted(batches, key=lambda item: item[0]):
        clock.stands_at = min(at, now)
        async with database.work(ACTOR) as work:
            results = await record_usage(work, SEEDER, batch)
            assert all(result.status is EventStatus.ACCEPTED for result in results), results


def _quiet_total(made: _Seeded) -> int:
    """What a past month stays under, so that its overage needs no line."""
    return {"starter": 7_800, "professional": 39_000, "business": 150_000}[made.plan.key]


def _event(
    made: _Seeded,
    name: str,
    metric: str,
    at: datetime,
    *,
    quantity: int | None = None,
    level: int | None = None,
    properties: dict[str, str] | None = None,
) -> UsageInput:
    return UsageInput(
        event_id=f"seed-{name}",
        metric=metric,
        account_id=made.account.id,
        quantity=quantity,
        level=level,
        occurred_at=at,
        properties=dict(properties or {}),
    )


async def _make_people(work: Work, seeded: list[_Seeded]) -> list[SandboxToken]:
    now = work.clock.now()
    operator = Operator(created_at=now, iss=ISSUER_OF_MEMBERS, sub="operator", display_name="Sandbox operator")
    work.session.add(operator)
    await work.session.flush()
    scopes = [Scope.ADMIN, Scope.USAGE_WRITE]
    key = create_key(work, Environment.SANDBOX, name="Sandbox operator", maker=operator, scopes=scopes)
    tokens = [SandboxToken("all tenants", Role.OPERATOR, key.token)]
    for made in seeded:
        for role in (Role.TENANT_OWNER, Role.BILLING_ADMIN, Role.MEMBER):
            words = role.replace("_", " ").lower()
            member = Member(
                created_at=now,
                account_id=made.account.id,
                iss=ISSUER_OF_MEMBERS,
                sub=f"{made.tenant.external_id}-{role.lower()}",
                display_name=f"{made.tenant.name}, {words}",
                role=role,
            )
            work.session.add(member)
            await work.session.flush()
            scopes = [Scope.BILLING_READ] if role is Role.MEMBER else [Scope.BILLING_READ, Scope.BILLING_WRITE]
            key = create_key(work, Environment.SANDBOX, name=member.display_name, maker=member, scopes=scopes)
            tokens.append(SandboxToken(made.tenant.name, role, key.token))
    return tokens
