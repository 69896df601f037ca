"""Fills an empty sandbox by the engine itself: the same every time, but for dates relative to the day."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from uuid import UUID

from dateutil.relativedelta import relativedelta
from sqlalchemy import func, select

from ..adapters.sandbox_processor import SandboxProcessor
from ..clock import SetClock
from ..database import Actor, Database, Work
from ..models import (
    BudgetScope,
    Contact,
    ContactTopic,
    DueWork,
    Interval,
    Issuer,
    Member,
    NumberSeries,
    Operator,
    Role,
    SubscriptionStatus,
)
from ..services import methods
from ..services.access import Principal, PrincipalKind, Scope
from ..services.accounts import create_account
from ..services.budgets import BudgetInput, set_budget
from ..services.catalogue_files import apply_catalogue, read_catalogue
from ..services.companies import CompanyFields, update_company
from ..services.decisions import decide_add_on, decide_start
from ..services.due_work import APART
from ..services.duties import do_due
from ..services.endings import start_trial
from ..services.idempotency import Request
from ..services.metering import record_usage
from ..services.orders import place
from ..services.rules.periods import Period, period_number, to_instant, to_wall
from ..services.tills import Till
from ..services.tokens import create_key
from ..services.usage import EventStatus, UsageInput
from ..settings import Environment

SEEDER = Principal(kind=PrincipalKind.OPERATOR, id="system:seeder", display_name="Seeder", is_operator=True)
ACTOR = Actor(name="system:seeder", origin="sandbox")
ISSUER_OF_MEMBERS = "sandbox"
FIRST_INVOICE = 1001
TOLD_TENANT = "birchwood"
"""The one with a contact: the demo's month is told to it by mail too."""
WORKSPACES = ("main", "marketing", "product")


_IN_NEW_YORK: CompanyFields = {
    "country": "US",
    "address_lines": ["350 5th Avenue"],
    "city": "New York",
    "region": "NY",
    "postal_code": "10118",
}


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
    company: CompanyFields = field(default_factory=lambda: _IN_NEW_YORK)
    interval: Interval = Interval.MONTH
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE
    days_into_period: int = 15
    months_back: int = 12
    card: str | None = "pm_card_visa"
    last_card: str | None = None
    """The card that the running period is charged to, where that is another one."""
    add_ons: dict[str, int] = field(default_factory=dict[str, int])
    budget_minor: int | None = None

    @property
    def is_trial(self) -> bool:
        """Whether it only tries its plan."""
        return self.status is SubscriptionStatus.TRIALING


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
        company={
            "legal_name": "Calder Labs Ltd",
            "country": "GB",
            "address_lines": ["12 Mill Lane"],
            "postal_code": "M1 2AB",
            "city": "Manchester",
        },
        currency="GBP",
        add_ons={"priority_support": 1},
        card="pm_card_mastercard",
    ),
    Tenant(
        external_id="dunmore",
        name="Dunmore Press",
        plan="starter",
        used=_used(620, 1, 2, 2),
        status=SubscriptionStatus.PAST_DUE,
        days_into_period=2,
        last_card="pm_card_chargeCustomerFail",
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
        company={
            "legal_name": "Fjordlicht GmbH",
            "country": "DE",
            "address_lines": ["Hafenstraße 3"],
            "postal_code": "20457",
            "city": "Hamburg",
            "vat_id": "DE136695976",
        },
        interval=Interval.YEAR,
        months_back=16,
    ),
    Tenant(
        external_id="ginza",
        name="Ginza Post KK",
        plan="starter",
        used=_used(4_310, 1, 2, 2),
        currency="JPY",
        timezone="Asia/Tokyo",
        locale="ja-JP",
        company={
            "legal_name": "株式会社銀座ポスト",
            "country": "JP",
            "address_lines": ["銀座1-2-3"],
            "postal_code": "104-0061",
            "city": "東京都中央区",
        },
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
    account_id: UUID
    name: str
    periods: list[Period]
    """Usage periods from the first to the running one."""


@dataclass(frozen=True)
class _Batch:
    """Usage that comes at an instant."""

    at: datetime
    events: list[UsageInput]


async def seed_sandbox(database: Database, now: datetime) -> list[SandboxToken]:
    """Make the sandbox in an empty, migrated database whose clock can be set. Gives its tokens.

    All tenants live their past together in order of time: what is due happens when it is due, usage comes in between.
    """
    clock = database.clock
    assert isinstance(clock, SetClock), "the seeder plays the past"
    now = now.astimezone(UTC).replace(microsecond=0)
    clock.stands_at = now - timedelta(days=800)
    till = Till(database, SandboxProcessor(database), ACTOR)
    async with till.work() as work:
        await apply_sandbox_catalogue(work)
        issuer = (await work.session.scalars(select(Issuer))).one()
        work.session.add(NumberSeries(issuer_id=issuer.id, prefix="INV-", last_number=FIRST_INVOICE - 1))
    starts = sorted(TENANTS, key=lambda tenant: (_start_of(tenant, now), tenant.external_id))
    seeded: list[_Seeded] = []
    batches: list[_Batch] = []
    for tenant in starts:
        await _play(till, clock, batches, _start_of(tenant, now))
        made = await _start(till, tenant, now)
        seeded.append(made)
        batches += _plan_usage(made, now)
        batches.sort(key=lambda batch: batch.at)
    for made in seeded:
        if made.tenant.last_card is not None:
            await _play(till, clock, batches, made.periods[-1].start - timedelta(hours=1))
            await _give_card(till, made.account_id, made.tenant.last_card)
    await _play(till, clock, batches, now)
    async with till.work() as work:
        return await _make_people(work, sorted(seeded, key=lambda made: made.tenant.external_id))


async def apply_sandbox_catalogue(work: Work) -> None:
    """Put the default catalogue, its issuer and taxes in force."""
    await apply_catalogue(work, read_catalogue(files(__package__).joinpath("catalogue.toml").read_bytes()))


async def _play(till: Till, clock: SetClock, batches: list[_Batch], until: datetime) -> None:
    """Let time pass up to an instant: what is due, and the usage that came, in order."""
    while True:
        async with till.database.read() as session:
            due_at = await session.scalar(
                select(func.min(DueWork.due_at)).where(DueWork.done_at.is_(None), DueWork.kind.not_in(APART))
            )
        comes_at = batches[0].at if batches else None
        following = min((at for at in (due_at, comes_at) if at is not None), default=None)
        if following is None or following > until:
            break
        clock.stands_at = max(clock.stands_at, following)
        if due_at is not None and due_at == following:
            await do_due(till, limit=1)
            continue
        # What comes within half a day, with nothing due in between, is sent together.
        last = min(at for at in (due_at, until, following + timedelta(hours=12)) if at is not None)
        together: list[UsageInput] = []
        while batches and batches[0].at <= last:
            clock.stands_at = max(clock.stands_at, batches[0].at)
            together += batches.pop(0).events
        async with till.work() as work:
            results = await record_usage(work, SEEDER, together)
            assert all(result.status is EventStatus.ACCEPTED for result in results), results
    clock.stands_at = max(clock.stands_at, until)


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


def _start_of(tenant: Tenant, now: datetime) -> datetime:
    return to_instant(_anchor(tenant, now)[0], tenant.timezone)


async def _start(till: Till, tenant: Tenant, now: datetime) -> _Seeded:
    """Make a tenant's account and company, give it a card, and start its plan or trial."""
    anchor_wall, months = _anchor(tenant, now)
    async with till.work() as work:
        account = await create_account(
            work,
            tenant.external_id,
            {
                "name": tenant.name,
                "currency": tenant.currency,
                "timezone": tenant.timezone,
                "locale": tenant.locale,
                # So that a sandbox's own keys can be tried out, too.
                "keys_may_ingest": True,
            },
        )
        await update_company(work, account.id, {"legal_name": tenant.name, **tenant.company})
        if tenant.budget_minor is not None:
            asked = BudgetInput(scope=BudgetScope.ACCOUNT, limit_minor=tenant.budget_minor, currency=tenant.currency)
            await set_budget(work, SEEDER, account.id, asked)
    if tenant.card is not None:
        await _give_card(till, account.id, tenant.card)
    request = Request(None, "", None)
    if tenant.is_trial:
        await start_trial(till, SEEDER, request, account.id, tenant.plan, tenant.interval)
    else:
        decide = partial(decide_start, plan_key=tenant.plan, interval=tenant.interval)
        await place(till, SEEDER, request, "startSubscription", account.id, decide)
    for key, quantity in tenant.add_ons.items():
        decide = partial(decide_add_on, add_on_key=key, quantity=quantity)
        await place(till, SEEDER, request, "setAddOn", account.id, decide)
    periods = [period_number(anchor_wall, tenant.timezone, n) for n in range(months + 1)]
    return _Seeded(tenant, account.id, tenant.name, periods)


async def _give_card(till: Till, account_id: UUID, token: str) -> None:
    await methods.add(till, SEEDER, Request(None, "", None), account_id, token, make_default=True)


def _spread(total: int, parts: int, chance: random.Random) -> list[int]:
    """A total over some days, uneven but exact."""
    weights = [chance.randint(60, 140) for _ in range(parts)]
    cuts = [total * sum(weights[: n + 1]) // sum(weights) for n in range(parts)]
    return [after - before for before, after in zip([0, *cuts], cuts, strict=False)]


def _plan_usage(made: _Seeded, now: datetime) -> list[_Batch]:
    """A tenant's usage, as it comes: past months at once, the running one by day."""
    chance = random.Random(made.tenant.external_id)  # noqa: S311  # the same history every time
    used = made.tenant.used
    gauges = [key for key in used if key != "email_sends"]
    first = made.periods[0].start + timedelta(hours=1)
    batches = [
        _Batch(
            first + timedelta(hours=1),
            [_event(made, f"start-{key}", key, first, level=max(1, used[key] // 2)) for key in gauges],
        )
    ]
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
            batches += [_Batch(event.occurred_at or now, [event]) for event in events]
        elif events:
            batches.append(_Batch(period.end - timedelta(minutes=1), events))
        if n == len(made.periods) // 2:
            at = period.start + timedelta(hours=2)
            batches.append(_Batch(at, [_event(made, f"grow-{key}", key, at, level=used[key]) for key in gauges]))
    return [batch for batch in batches if batch.at <= now]


def _quiet_total(made: _Seeded) -> int:
    """What a past month stays under, so that its overage needs no line."""
    return {"starter": 7_800, "professional": 39_000, "business": 150_000}[made.tenant.plan]


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
        account_id=made.account_id,
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
                account_id=made.account_id,
                iss=ISSUER_OF_MEMBERS,
                sub=f"{made.tenant.external_id}-{role.lower()}",
                display_name=f"{made.tenant.name}, {words}",
                role=role,
            )
            work.session.add(member)
            await work.session.flush()
            # All that the role may.
            wide = [Scope.BILLING_READ, Scope.BILLING_WRITE, Scope.ADMIN]
            scopes = [Scope.BILLING_READ] if role is Role.MEMBER else wide
            key = create_key(work, Environment.SANDBOX, name=member.display_name, maker=member, scopes=scopes)
            tokens.append(SandboxToken(made.tenant.name, role, key.token))
        if made.tenant.external_id == TOLD_TENANT:
            email = f"billing@{TOLD_TENANT}.example"
            work.session.add(
                Contact(
                    created_at=now,
                    account_id=made.account_id,
                    name=f"{made.tenant.name}, billing",
                    email=email,
                    email_key=email,
                    topics=sorted(ContactTopic),
                    is_primary=True,
                )
            )
    return tokens
