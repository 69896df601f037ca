"""Real months priced anew: what they would have cost on other terms, and which terms would have cost less.

The plan counts per usage period (an annual price in twelfths), add-ons in whole units for whole periods, overage by the
arithmetic of its invoice line. Proration and tax are left out, for what is paid now as for what is weighed against it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from ...models import Interval, OveragePolicy
from .explanation import overage_basis, reckon
from .money import round_half_away, split_evenly
from .overage import FREE_TIER, choose_policy, excess_over
from .transitions import MAX_UNITS, takes_effect_at_once

MOST_MONTHS = 12


class RecommendationKind(StrEnum):
    """What is advised."""

    SWITCH_TO_ANNUAL = "SWITCH_TO_ANNUAL"
    SMALLER_PLAN = "SMALLER_PLAN"
    LARGER_PLAN = "LARGER_PLAN"
    UNUSED_ADD_ON = "UNUSED_ADD_ON"
    ADD_ON_FOR_OVERAGE = "ADD_ON_FOR_OVERAGE"
    SEND_LESS = "SEND_LESS"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric, as far as prices depend on it, in an account's currency."""

    key: str
    is_gauge: bool
    block: int | None = None
    """How many units a block of overage has; none where overage is not sold."""
    price_minor: int = 0
    """What a block costs."""
    setting: OveragePolicy | None = None
    """The policy that the account chose; none where it chose nothing."""


@dataclass(frozen=True)
class Used:
    """What a month used of a metric: of a counter the sum, of a gauge the highest level."""

    quantity: int
    allowed: int = 0
    """What of it was accepted above the limit without charge."""


@dataclass(frozen=True, kw_only=True)
class Month:
    """A closed usage period."""

    start: datetime
    end: datetime
    place: int
    """Which twelfth of an annual price falls on it, 0 to 11."""
    used: Mapping[str, Used]
    """By metric; nothing of those left out."""


@dataclass(frozen=True, kw_only=True)
class PlanPrice:
    """A plan at an interval."""

    key: str
    tier: int
    interval: Interval
    price_minor: int
    """Per interval."""
    limits: Mapping[str, int | None]
    """By metric; none is unlimited, what is left out is 0."""


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An add-on at its price per unit and usage period."""

    key: str
    metric: str | None
    gives: int
    price_minor: int
    plan_keys: frozenset[str]
    """The plans it is offered with."""


@dataclass(frozen=True)
class Deal:
    """What an account pays for: a plan, and whole units of add-ons."""

    plan: PlanPrice
    units: Mapping[str, int] = field(default_factory=dict[str, int])
    """By the add-on's key, above 0."""


@dataclass(frozen=True)
class Market:
    """What months are priced by: the metrics, and the add-ons by key."""

    measures: Sequence[Measure]
    extras: Mapping[str, Extra]


@dataclass(frozen=True)
class Advice:
    """Terms that would have cost less, month by month."""

    kind: RecommendationKind
    subject: str
    """What of its kind it is about: the plan's, the add-on's or the metric's key."""
    deal: Deal
    months: Sequence[Month]
    current_minor: Sequence[int]
    """What each month costs on the present terms."""
    suggested_minor: Sequence[int]

    @property
    def saving_minor(self) -> int:
        """Over all months."""
        return sum(self.current_minor) - sum(self.suggested_minor)

    @property
    def monthly_minor(self) -> int:
        """Per month on average, rounded half away from zero."""
        return round_half_away(self.saving_minor, len(self.months))

    @property
    def yearly_minor(self) -> int:
        """As twelve such months would save, rounded once."""
        return round_half_away(self.saving_minor * 12, len(self.months))

    @property
    def worst(self) -> int:
        """The place of the month that saves least; the latest of several."""
        savings = [now - then for now, then in zip(self.current_minor, self.suggested_minor, strict=True)]
        return min(range(len(savings)), key=lambda place: (savings[place], -place))

    @property
    def confidence_percent(self) -> int:
        """How far to trust it, in whole percent.

        A twelfth of 100 for each month it rests on. A worst month that would have cost more takes away the share that
        its loss has in the sum of what the other months save. What rests on people changing their habits counts half.
        """
        savings = [now - then for now, then in zip(self.current_minor, self.suggested_minor, strict=True)]
        loss, gains = -min(0, *savings, 0), sum(max(0, saving) for saving in savings)
        percent = 100 * len(savings) * (gains - min(loss, gains)) // (MOST_MONTHS * max(gains, 1))
        return min(percent, 100) // (2 if self.kind is RecommendationKind.SEND_LESS else 1)


def limit_of(market: Market, deal: Deal, metric: str) -> int | None:
    """What a deal includes of a metric: the plan's, and what its add-ons give."""
    included = deal.plan.limits.get(metric, 0)
    if included is None:
        return None
    extras = ((market.extras[key], quantity) for key, quantity in deal.units.items())
    return included + sum(extra.gives * quantity for extra, quantity in extras if extra.metric == metric)


def price_months(market: Market, deal: Deal, months: Sequence[Month]) -> list[int]:
    """What each month costs on a deal: the present one and all that is weighed against it are priced here."""
    plan, units = deal.plan, deal.units
    twelfths = split_evenly(plan.price_minor, 12) if plan.interval is Interval.YEAR else [plan.price_minor] * 12
    fixed = sum(market.extras[key].price_minor * quantity for key, quantity in units.items())
    sold = [measure for measure in market.measures if measure.block and plan.tier > FREE_TIER]
    limits = {measure.key: limit_of(market, deal, measure.key) for measure in sold}
    return [
        twelfths[month.place]
        + fixed
        + sum(_overage_minor(measure, limits[measure.key], month.used.get(measure.key)) for measure in sold)
        for month in months
    ]


def _overage_minor(measure: Measure, limit: int | None, used: Used | None) -> int:
    if limit is None or used is None or not measure.block:
        return 0
    return reckon(overage_basis(used.quantity, limit, used.allowed, measure.block, measure.price_minor))


def holds(market: Market, deal: Deal, present: Deal, months: Iterable[Month]) -> bool:
    """Whether months would have gone as they did, or no worse than they would on the present terms.

    A gauge stays within its limit, and so does a counter whose overage is not sold, or refused or asked about by the
    account's policy.
    """
    tight = [measure for measure in market.measures if not _may_pass(measure, deal)]
    limits = [(key, limit_of(market, deal, key), limit_of(market, present, key)) for key in (m.key for m in tight)]
    return all(
        excess_over(used.quantity, limit) <= excess_over(used.quantity, present_limit)
        for month in months
        for key, limit, present_limit in limits
        if (used := month.used.get(key)) is not None
    )


def _may_pass(measure: Measure, deal: Deal) -> bool:
    if measure.is_gauge:
        return False
    policy = choose_policy(
        may_pass=deal.plan.tier > FREE_TIER, is_sold=measure.block is not None, setting=measure.setting
    )
    return policy in (OveragePolicy.CHARGE, OveragePolicy.ALLOW)


@dataclass(frozen=True)
class Case:
    """An account to advise: what it pays for, and what it used."""

    market: Market
    present: Deal
    months: Sequence[Month]
    """Closed ones, oldest first."""
    running: Month
    """What is in use by now: what is advised has to hold that too."""

    @property
    def lived(self) -> list[Month]:
        """All that terms have to hold."""
        return [*self.months, self.running]


def advise(case: Case, offers: Sequence[PlanPrice]) -> list[Advice]:
    """What would have cost less than the present terms, each as one change, the highest saving per month first."""
    if not case.months:
        return []
    found = [*_advise_plans(case, offers), *_advise_extras(case)]
    return sorted(
        (advice for advice in found if advice.monthly_minor > 0),
        key=lambda advice: (-advice.monthly_minor, advice.kind, advice.subject),
    )


def _weigh(case: Case, kind: RecommendationKind, subject: str, deal: Deal) -> Advice:
    market, months = case.market, case.months
    current = price_months(market, case.present, months)
    return Advice(kind, subject, deal, months, current, price_months(market, deal, months))


def _advise_plans(case: Case, offers: Sequence[PlanPrice]) -> Iterator[Advice]:
    """The best interval of each plan; of the present plan a year instead of a month."""
    best: dict[str, Advice] = {}
    present = case.present.plan
    for offer in offers:
        if offer.key == present.key:
            if (present.interval, offer.interval) != (Interval.MONTH, Interval.YEAR):
                continue
            kind, deal = RecommendationKind.SWITCH_TO_ANNUAL, replace(case.present, plan=offer)
        else:
            is_larger = offer.tier > present.tier
            kind = RecommendationKind.LARGER_PLAN if is_larger else RecommendationKind.SMALLER_PLAN
            deal = fit_units(case, offer)
        if not holds(case.market, deal, case.present, case.lived):
            continue
        advice = _weigh(case, kind, offer.key, deal)
        if offer.key not in best or advice.saving_minor > best[offer.key].saving_minor:
            best[offer.key] = advice
    yield from best.values()


def fit_units(case: Case, plan: PlanPrice) -> Deal:
    """A plan with the add-ons that make it cheapest, out of what can be had with it.

    What is held goes on where it is offered, or is lowered. More units, and only of a gauge, are taken where the change
    waits for the end of a month: they are ordered before it, so that what is in use fits.
    """
    kept = {key: quantity for key, quantity in case.present.units.items() if plan.key in _plans(case, key)}
    deal = Deal(plan, kept)
    present = case.present.plan
    is_at_once = takes_effect_at_once(present.tier, present.interval, plan.tier, plan.interval)
    waits_a_month = not is_at_once and present.interval is Interval.MONTH
    gauges = {measure.key for measure in case.market.measures if measure.is_gauge}
    for extra in case.market.extras.values():
        may_rise = waits_a_month and extra.metric in gauges and {plan.key, present.key} <= extra.plan_keys
        if extra.metric is not None and (extra.key in kept or may_rise):
            deal = cheapest_units(case, deal, extra, MAX_UNITS if may_rise else kept[extra.key])
    return deal


def _plans(case: Case, key: str) -> frozenset[str]:
    return case.market.extras[key].plan_keys


def cheapest_units(case: Case, deal: Deal, extra: Extra, at_most: int) -> Deal:
    """The deal with the quantity of one add-on under which the months hold and cost least; nearest to now on a tie.

    Where a unit gives whole blocks, costs bend only where it covers a month's excess, so that no quantity is cheaper.
    """
    now = deal.units.get(extra.key, 0)
    bare = limit_of(case.market, _with_units(deal, extra.key, 0), extra.metric or "")
    wanted = {0, now}
    for month in case.lived if bare is not None and extra.gives > 0 else ():
        used = month.used.get(extra.metric or "", Used(0))
        for excess in (excess_over(used.quantity, bare), excess_over(used.quantity - used.allowed, bare)):
            units = -(-excess // extra.gives)
            wanted |= {units, max(0, units - 1)}
    # Nothing else of the deal depends on it: only its own metric is looked at.
    own = replace(case.market, measures=[m for m in case.market.measures if m.key == extra.metric])
    options = [_with_units(deal, extra.key, quantity) for quantity in sorted(wanted) if quantity <= at_most]
    fitting = [option for option in options if holds(own, option, case.present, case.lived)]

    def rank(option: Deal) -> tuple[int, int]:
        return sum(price_months(own, option, case.months)), abs(option.units.get(extra.key, 0) - now)

    return min(fitting, key=rank, default=deal)


def _with_units(deal: Deal, key: str, quantity: int) -> Deal:
    others = {other: units for other, units in deal.units.items() if other != key}
    return replace(deal, units={**others, key: quantity} if quantity else others)


def _advise_extras(case: Case) -> Iterator[Advice]:
    """Other quantities of an add-on on the present plan: fewer units, or more of them instead of overage."""
    for extra in case.market.extras.values():
        held = case.present.units.get(extra.key, 0)
        if extra.metric is None or case.present.plan.key not in extra.plan_keys:
            continue
        deal = cheapest_units(case, case.present, extra, MAX_UNITS)
        quantity = deal.units.get(extra.key, 0)
        if quantity != held and holds(case.market, deal, case.present, case.lived):
            lowers = quantity < held
            kind = RecommendationKind.UNUSED_ADD_ON if lowers else RecommendationKind.ADD_ON_FOR_OVERAGE
            yield _weigh(case, kind, extra.key, deal)


@dataclass(frozen=True)
class Segment:
    """A part of an account that sends more than it did, such as a workspace."""

    metric: str
    name: str
    before: Sequence[int]
    """What it used of the metric in each of the months before."""
    since: Sequence[int]
    """What it used in each of the last months, oldest first."""

    @property
    def usual(self) -> int:
        """What it used in a month before, rounded up."""
        return -(-sum(self.before) // len(self.before))


def advise_less(case: Case, segment: Segment) -> Advice | None:
    """What the last months would have cost had a segment used no more than it did before; none where nothing less."""
    months = case.months[-len(segment.since) :]
    if len(months) < len(segment.since):
        return None
    usual = segment.usual
    fewer = [
        _without(month, segment.metric, max(0, quantity - usual))
        for month, quantity in zip(months, segment.since, strict=True)
    ]
    advice = Advice(
        RecommendationKind.SEND_LESS,
        segment.metric,
        case.present,
        months,
        price_months(case.market, case.present, months),
        price_months(case.market, case.present, fewer),
    )
    return advice if advice.monthly_minor > 0 else None


def _without(month: Month, metric: str, quantity: int) -> Month:
    used = month.used.get(metric, Used(0))
    left = replace(used, quantity=max(0, used.quantity - quantity))
    return replace(month, used={**month.used, metric: left})
