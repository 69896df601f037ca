"""The catalogue: what a file offers becomes rows, and rows become lists."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, func, or_, select

from ..database import ReadSession, Work
from ..models import AddOn, Interval, Metric, MetricKind, Plan, PlanLimit, PlanVersion, Price, PriceKind
from .access import Principal, Right
from .relations import PlanOffer

Minor = Annotated[int, Field(ge=0, le=2**53 - 1, strict=True)]
Limit = Annotated[int, Field(ge=0, le=2**53 - 1, strict=True)] | Literal["unlimited"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OverageOffer(_Strict):
    """What overage of a metric costs: a price per started block, by currency."""

    block: Annotated[int, Field(gt=0)]
    prices: dict[str, Minor]


class MetricOffer(_Strict):
    """A metric in a catalogue file."""

    key: str
    name: str
    kind: MetricKind
    unit: str
    overage: OverageOffer | None = None


class PlanFile(_Strict):
    """A plan in a catalogue file. Without prices it is negotiated."""

    key: str
    name: str
    tier: int
    features: list[str]
    limits: dict[str, Limit]
    month: dict[str, Minor] = {}
    year: dict[str, Minor] = {}


class AddOnOffer(_Strict):
    """An add-on in a catalogue file."""

    key: str
    name: str
    metric: str | None = None
    gives: int = 0
    plans: list[str]
    month: dict[str, Minor]


class Catalogue(_Strict):
    """A catalogue file."""

    metrics: list[MetricOffer]
    plans: list[PlanFile]
    add_ons: list[AddOnOffer]


async def load_catalogue(work: Work, catalogue: Catalogue) -> None:
    """Write a catalogue into an empty database."""
    now = work.clock.now()
    add = work.session.add
    for position, metric in enumerate(catalogue.metrics):
        add(
            Metric(
                created_at=now,
                key=metric.key,
                name=metric.name,
                kind=metric.kind,
                unit=metric.unit,
                position=position,
                overage_block=metric.overage.block if metric.overage else None,
            )
        )
        if metric.overage:
            _add_prices(work, now, PriceKind.OVERAGE, metric.key, Interval.MONTH, metric.overage.prices)
    await work.session.flush()
    for offer in catalogue.plans:
        plan = Plan(created_at=now, key=offer.key, name=offer.name, tier=offer.tier)
        add(plan)
        await work.session.flush()
        version = PlanVersion(created_at=now, plan_id=plan.id, number=1, features=offer.features, published_at=now)
        add(version)
        await work.session.flush()
        for key, limit in offer.limits.items():
            quantity = None if limit == "unlimited" else int(limit)
            add(PlanLimit(created_at=now, plan_version_id=version.id, metric_key=key, quantity=quantity))
        for interval, prices in ((Interval.MONTH, offer.month), (Interval.YEAR, offer.year)):
            _add_prices(work, now, PriceKind.PLAN, str(version.id), interval, prices)
    for position, add_on in enumerate(catalogue.add_ons):
        add(
            AddOn(
                created_at=now,
                key=add_on.key,
                name=add_on.name,
                metric_key=add_on.metric,
                gives=add_on.gives,
                plan_keys=list(add_on.plans),
                position=position,
            )
        )
        _add_prices(work, now, PriceKind.ADD_ON, add_on.key, Interval.MONTH, add_on.month)
    await work.session.flush()


def _add_prices(
    work: Work, now: datetime, kind: PriceKind, subject: str, interval: Interval, prices: dict[str, int]
) -> None:
    for currency, amount_minor in prices.items():
        work.session.add(
            Price(
                created_at=now,
                kind=kind,
                subject=subject,
                interval=interval,
                currency=currency,
                amount_minor=amount_minor,
            )
        )


def _select_offers() -> Select[Plan, PlanVersion]:
    """The newest version of each plan on offer, lowest tier first."""
    newest = select(PlanVersion.plan_id, func.max(PlanVersion.number).label("number")).group_by(PlanVersion.plan_id)
    latest = newest.subquery()
    return (
        select(Plan, PlanVersion)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .join(latest, (latest.c.plan_id == Plan.id) & (latest.c.number == PlanVersion.number))
        .where(Plan.archived_at.is_(None))
        .order_by(Plan.tier, Plan.key)
    )


async def list_offers(session: ReadSession, principal: Principal) -> Sequence[PlanOffer]:
    """The plans that a caller may buy: the public ones, and those negotiated with an account whose billing it reads."""
    statement = _select_offers()
    if not principal.is_operator:
        mine = [account_id for account_id in principal.roles if principal.may(Right.READ_BILLING, account_id)]
        statement = statement.where(or_(Plan.private_account_id.is_(None), Plan.private_account_id.in_(mine)))
    return [PlanOffer(plan, version) for plan, version in await session.execute(statement)]


async def load_offers(session: ReadSession, keys: Sequence[str]) -> list[PlanOffer | None]:
    """Plans on offer by key. Whose a private one is, is the caller's to check."""
    rows = await session.execute(_select_offers().where(Plan.key.in_(keys)))
    found = {plan.key: PlanOffer(plan, version) for plan, version in rows}
    return [found.get(key) for key in keys]


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
