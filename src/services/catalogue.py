"""The catalogue as it is offered: plans, metrics, add-ons, and what they cost an account."""

from collections.abc import Sequence

from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import ReadSession
from ..models import AddOn, BillingAccount, Interval, Metric, Plan, PlanVersion, Price, PriceKind
from .access import Principal, Right
from .errors import NotFound, PriceNotAvailable
from .relations import PlanOffer, load_prices


def _select_newest() -> Select[Plan, PlanVersion]:
    """The newest version of each plan."""
    newest = select(PlanVersion.plan_id, func.max(PlanVersion.number).label("number")).group_by(PlanVersion.plan_id)
    latest = newest.subquery()
    return (
        select(Plan, PlanVersion)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .join(latest, (latest.c.plan_id == Plan.id) & (latest.c.number == PlanVersion.number))
    )


def _select_offers() -> Select[Plan, PlanVersion]:
    """The newest version of each plan on offer, lowest tier first."""
    return _select_newest().where(Plan.archived_at.is_(None)).order_by(Plan.tier, Plan.key)


async def find_plan(session: AsyncSession, key: str) -> PlanOffer | None:
    """A plan in its newest version, whether it is on offer or archived."""
    found = (await session.execute(_select_newest().where(Plan.key == key))).one_or_none()
    return None if found is None else PlanOffer(*found)


async def list_offers(session: ReadSession, principal: Principal) -> Sequence[PlanOffer]:
    """The plans that a caller may buy: the public ones, and those negotiated with an account whose billing it reads."""
    statement = _select_offers()
    if not principal.is_operator:
        mine = [account_id for account_id in principal.roles if principal.may(Right.READ_BILLING, account_id)]
        statement = statement.where(or_(Plan.private_account_id.is_(None), Plan.private_account_id.in_(mine)))
    return [PlanOffer(plan, version) for plan, version in await session.execute(statement)]


async def list_public_offers(session: ReadSession) -> list[PlanOffer]:
    """The plans that everybody can buy, lowest tier first."""
    statement = _select_offers().where(Plan.private_account_id.is_(None))
    return [PlanOffer(plan, version) for plan, version in await session.execute(statement)]


async def load_offers(session: ReadSession, keys: Sequence[str]) -> list[PlanOffer | None]:
    """Plans on offer by key. Whose a private one is, is the caller's to check."""
    rows = await session.execute(_select_offers().where(Plan.key.in_(keys)))
    found = {plan.key: PlanOffer(plan, version) for plan, version in rows}
    return [found.get(key) for key in keys]


async def list_offers_for(session: ReadSession, account: BillingAccount) -> list[PlanOffer]:
    """The plans that an account can buy, lowest tier first: public or its own, with a price in its currency."""
    mine = or_(Plan.private_account_id.is_(None), Plan.private_account_id == account.id)
    offers = [PlanOffer(plan, version) for plan, version in await session.execute(_select_offers().where(mine))]
    if not offers:
        return []
    prices = await load_prices(session, [(PriceKind.PLAN, str(offer.version.id)) for offer in offers])
    return [
        offer
        for offer, offered in zip(offers, prices, strict=True)
        if any(price.currency == account.currency for price in offered)
    ]


async def find_offer(
    session: ReadSession, account: BillingAccount, key: str, interval: Interval
) -> tuple[PlanOffer, int]:
    """A plan that an account can buy, and what it costs per interval. Another account's private plan is none."""
    (offer,) = await load_offers(session, [key])
    if offer is None or offer.plan.private_account_id not in (None, account.id):
        raise NotFound("There is no plan with this key on offer: `plansAvailable` lists them.", ["input", "planKey"])
    (prices,) = await load_prices(session, [(PriceKind.PLAN, str(offer.version.id))])
    amounts = {price.interval: price.amount_minor for price in prices if price.currency == account.currency}
    if interval not in amounts:
        others = ", ".join(sorted(amounts))
        raise PriceNotAvailable(
            f"{offer.plan.name} has no price in {account.currency} per {interval.lower()}"
            + (f": take the interval {others}." if others else ": `plansAvailable` lists what has."),
            ["input", "interval" if others else "planKey"],
        )
    return offer, amounts[interval]


async def find_add_on(
    session: ReadSession, account: BillingAccount, plan_key: str, add_on_key: str
) -> tuple[AddOn, int]:
    """An add-on that is offered with a plan, and what a unit costs an account per usage period."""
    (add_on,) = await load_add_ons(session, [add_on_key])
    field = ["input", "addOnKey"]
    if add_on is None:
        raise NotFound("There is no add-on with this key: `addOns` lists them.", field)
    if plan_key not in add_on.plan_keys:
        offered = ", ".join(map(str, add_on.plan_keys)) or "no plan"
        raise PriceNotAvailable(f"{add_on.name} is offered with {offered}, not with {plan_key}.", field)
    amount = await session.scalar(
        select(Price.amount_minor).where(
            Price.kind == PriceKind.ADD_ON,
            Price.subject == add_on.key,
            Price.interval == Interval.MONTH,
            Price.currency == account.currency,
        )
    )
    if amount is None:
        raise PriceNotAvailable(f"{add_on.name} has no price in {account.currency}.", field)
    return add_on, amount


async def load_metrics(session: ReadSession, keys: Sequence[str]) -> list[Metric | None]:
    """Metrics by key."""
    found = {row.key: row for row in await session.scalars(select(Metric).where(Metric.key.in_(keys)))}
    return [found.get(key) for key in keys]


async def load_add_ons(session: ReadSession, keys: Sequence[str]) -> list[AddOn | None]:
    """Add-ons by key."""
    found = {row.key: row for row in await session.scalars(select(AddOn).where(AddOn.key.in_(keys)))}
    return [found.get(key) for key in keys]


async def list_metrics(session: ReadSession) -> Sequence[Metric]:
    """All metrics, in the catalogue's order."""
    return (await session.scalars(select(Metric).order_by(Metric.position, Metric.key))).all()


async def list_add_ons(session: ReadSession) -> Sequence[AddOn]:
    """All add-ons, in the catalogue's order."""
    return (await session.scalars(select(AddOn).order_by(AddOn.position, AddOn.key))).all()
