"""What would fit: the plan, or the units of an add-on, under which a metric stands well below its limit again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..database import ReadSession
from ..models import AddOn, Alert, BillingAccount, Interval, PriceKind
from .catalogue import list_add_ons, list_public_offers
from .limits import add_units, find_excess
from .plan_limits import Limits
from .pricing import kept_units
from .relations import LIMITS_OF_VERSION, Agreement, HeldAddOn, PlanOffer, load_prices, load_related
from .rules.thresholds import BUILT_IN, is_reached, units_below
from .rules.transitions import MAX_UNITS, RUNNING
from .usage import UsageFigure

COMFORT = min(BUILT_IN)
"""What fits keeps the use below this share of the limit, in percent: then nothing is raised."""

Prices = Mapping[tuple[Interval, str], int]
"""By interval and currency."""


@dataclass(frozen=True)
class PricedPlan:
    """A plan that everybody can buy."""

    offer: PlanOffer
    limits: Limits
    prices: Prices


@dataclass(frozen=True)
class Market:
    """What is on sale for everybody."""

    plans: Sequence[PricedPlan]
    add_ons: Sequence[tuple[AddOn, Prices]]


@dataclass(frozen=True)
class Buyer:
    """Who would buy, and what is in use."""

    account: BillingAccount
    agreement: Agreement | None
    add_ons: Sequence[HeldAddOn]
    figures: Sequence[UsageFigure]


@dataclass(frozen=True)
class Fit:
    """What would fit; none where nothing on sale does."""

    plan: PlanOffer | None = None
    add_on: AddOn | None = None
    quantity: int | None = None
    """How many units of the add-on to hold in all, as `setAddOn` takes it."""


async def load_market(session: ReadSession) -> Market:
    """Plans and add-ons on sale, with limits and prices: four statements, whoever asks."""
    offers = await list_public_offers(session)
    add_ons = await list_add_ons(session)
    limits = await load_related(session, LIMITS_OF_VERSION, [offer.version.id for offer in offers])
    found = await load_prices(
        session,
        [
            *((PriceKind.PLAN, str(offer.version.id)) for offer in offers),
            *((PriceKind.ADD_ON, add_on.key) for add_on in add_ons),
        ],
    )
    prices = [{(price.interval, price.currency): price.amount_minor for price in rows} for rows in found]
    return Market(
        [
            PricedPlan(offer, {row.metric_key: row.quantity for row in included}, priced)
            for offer, included, priced in zip(offers, limits, prices[: len(offers)], strict=True)
        ],
        list(zip(add_ons, prices[len(offers) :], strict=True)),
    )


def find_fit(market: Market, buyer: Buyer, alert: Alert) -> Fit:
    """What would bring the use of an alert's metric below 80 %: the use of now while it is open, else that of then."""
    figure = next((figure for figure in buyer.figures if figure.metric.key == alert.subject), None)
    if figure is None:
        return Fit()
    is_current = figure.period is None or figure.period.start == alert.period_start
    used = figure.used if alert.resolved_at is None and is_current else alert.used
    add_on, quantity = _find_add_on(market, buyer, figure, used) or (None, None)
    return Fit(_find_plan(market, buyer, figure, used), add_on, quantity)


def _find_plan(market: Market, buyer: Buyer, figure: UsageFigure, used: int) -> PlanOffer | None:
    """The cheapest other plan, no lower than the present one, that no gauge exceeds."""
    agreement = buyer.agreement
    is_running = agreement is not None and agreement.subscription.status in RUNNING
    sold = agreement if is_running else None
    terms = (sold.subscription.interval if sold else Interval.MONTH, buyer.account.currency)
    fitting: list[tuple[int, int, PlanOffer]] = []
    for plan in market.plans:
        offered = plan.offer.plan
        if terms not in plan.prices or (
            sold is not None and (offered.id == sold.offer.plan.id or offered.tier < sold.offer.plan.tier)
        ):
            continue
        units = [(unit.add_on, unit.quantity) for unit in kept_units(buyer.add_ons, offered.key)]
        limits = add_units(plan.limits, units)
        if not is_reached(COMFORT, used, limits.get(figure.metric.key, 0)) and not find_excess(buyer.figures, limits):
            fitting.append((plan.prices[terms], offered.tier, plan.offer))
    return min(fitting, key=lambda item: item[:2])[2] if fitting else None


def _find_add_on(market: Market, buyer: Buyer, figure: UsageFigure, used: int) -> tuple[AddOn, int] | None:
    """The add-on whose missing units cost least, with the quantity to hold in all."""
    agreement = buyer.agreement
    if agreement is None or agreement.subscription.status not in RUNNING or figure.limit is None:
        return None
    terms = (Interval.MONTH, buyer.account.currency)
    held = {item.add_on.key: item.held.quantity for item in buyer.add_ons}
    fitting: list[tuple[int, int, AddOn, int]] = []
    for place, (add_on, prices) in enumerate(market.add_ons):
        if (
            add_on.metric_key != figure.metric.key
            or agreement.offer.plan.key not in add_on.plan_keys
            or terms not in prices
        ):
            continue
        more = units_below(COMFORT, used, figure.limit, add_on.gives)
        quantity = held.get(add_on.key, 0) + more
        if more > 0 and quantity <= MAX_UNITS:
            fitting.append((more * prices[terms], place, add_on, quantity))
    return min(fitting, key=lambda item: item[:2])[2:] if fitting else None
