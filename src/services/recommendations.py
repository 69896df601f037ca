"""Advice that saves money: the account's real months priced anew, what it would change, and putting it away."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ..database import ReadSession, Work
from ..models import (
    AddOn,
    BillingAccount,
    Interval,
    Metric,
    MetricKind,
    RecommendationDismissal,
    SubscriptionStatus,
)
from .access import Principal
from .accounts import lock_account
from .advice import Buyer, Market, load_market
from .edits import record_update
from .errors import NotFound
from .past_months import Past, list_months, load_pasts
from .permissions import Action, require_action
from .pricing import kept_units
from .relations import Agreement, PlanOffer, load_agreements, load_held_add_ons
from .rules import rerating
from .rules.rerating import Advice, Case, Deal, Extra, Measure, Month, PlanPrice, RecommendationKind, Segment, Used
from .standing import Scheduling, load_scheduled
from .usage import load_figures

MOST = 10
"""So many are given, those that save most."""
ADVISED = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)
UNKNOWN_RECOMMENDATION = (
    "There is no such recommendation, or its grounds are gone: read `recommendations` again for what stands now."
)
FIELD = ["input", "recommendationId"]


@dataclass(frozen=True)
class Resolve:
    """What a recommendation would change."""

    plan: tuple[PlanOffer, Interval] | None
    """None where the plan stays."""
    add_ons: Sequence[tuple[AddOn, int, bool]]
    """The quantities to hold in all that differ from what goes on by itself, and whether that is more of it."""


@dataclass(frozen=True)
class Recommendation:
    """One piece of advice for an account."""

    account: BillingAccount
    advice: Advice
    resolve: Resolve | None
    """None where there is nothing to order."""
    metric: Metric | None
    """What it is about the use of."""
    segment: Segment | None
    add_on: AddOn | None
    held: int
    """How many units of the add-on are held; 0 without one."""
    grounds: str
    """A hash of what it suggests and of the terms that it was weighed against."""

    @property
    def key(self) -> str:
        """What tells it from the account's others, and stays while its grounds change."""
        return f"{self.advice.kind}:{self.advice.subject}"

    @property
    def rank(self) -> tuple[int, str]:
        """Its place among the account's: the highest saving first."""
        return -self.advice.monthly_minor, self.key

    def params(self) -> dict[str, Any]:
        """What the title says, by stable names: keys and names of what is sold, quantities, the workspace."""
        told: dict[str, Any] = {}
        if self.resolve is not None and self.resolve.plan is not None:
            offer, interval = self.resolve.plan
            told |= {"plan": offer.plan.name, "planKey": offer.plan.key, "interval": interval}
        if self.add_on is not None:
            quantity = self.advice.deal.units.get(self.add_on.key, 0)
            told |= {"addOn": self.add_on.name, "addOnKey": self.add_on.key, "quantity": quantity, "held": self.held}
        if self.metric is not None:
            told |= {"metric": self.metric.name, "metricKey": self.metric.key}
        if self.segment is not None:
            since = self.segment.since
            told |= {
                "workspace": self.segment.name,
                "before": self.segment.usual,
                "since": -(-sum(since) // len(since)),
            }
        return told

    def is_dismissed_by(self, dismissal: RecommendationDismissal) -> bool:
        """Whether it was put away as it stands: it comes back on other grounds, or when it saves twice as much."""
        is_same = (self.key, self.grounds) == (dismissal.recommendation, dismissal.grounds)
        return is_same and self.advice.monthly_minor < 2 * dismissal.monthly_minor


@dataclass(frozen=True)
class Grounds:
    """All that an account's recommendations rest on."""

    market: Market
    buyer: Buyer
    scheduled: Scheduling | None
    past: Past


def list_recommendations(grounds: Grounds) -> list[Recommendation]:
    """What stands and was not put away, the highest saving first."""
    dismissals = grounds.past.dismissals
    standing = [
        found for found in recommend(grounds) if not any(found.is_dismissed_by(dismissal) for dismissal in dismissals)
    ]
    return standing[:MOST]


def recommend(grounds: Grounds) -> list[Recommendation]:
    """All that stands, put away or not, the highest saving first.

    Nothing for whoever is not on a paid plan that goes on as it is: on trial, suspended, with a change scheduled or an
    end to come; and nothing before one whole month is closed.
    """
    agreement = grounds.buyer.agreement
    if agreement is None or agreement.subscription.status not in ADVISED:
        return []
    if agreement.subscription.cancel_at_period_end or grounds.scheduled is not None:
        return []
    case = open_case(grounds, agreement)
    offers = list_offers(grounds)
    advised = rerating.advise(case, [price for price, _ in offers])
    segments: dict[str, Segment] = {}
    for segment in grounds.past.segments:
        less = rerating.advise_less(case, segment)
        if less is not None:
            segments[segment.metric] = segment
            advised.append(less)
    found = [_recommend(grounds, agreement, case, offers, advice, segments) for advice in advised]
    return sorted(found, key=lambda item: item.rank)


def list_offers(grounds: Grounds) -> list[tuple[PlanPrice, PlanOffer]]:
    """Every public plan at each interval at which it has a price in the account's currency."""
    currency = grounds.buyer.account.currency
    return [
        (_price_of(plan.offer, interval, amount_minor, plan.limits), plan.offer)
        for plan in grounds.market.plans
        for (interval, priced_in), amount_minor in sorted(plan.prices.items())
        if priced_in == currency
    ]


def _price_of(offer: PlanOffer, interval: Interval, price_minor: int, limits: Mapping[str, int | None]) -> PlanPrice:
    return PlanPrice(
        key=offer.plan.key, tier=offer.plan.tier, interval=interval, price_minor=price_minor, limits=limits
    )


def open_case(grounds: Grounds, agreement: Agreement) -> Case:
    """What an account pays for and used, as the rules weigh it."""
    buyer, subscription = grounds.buyer, agreement.subscription
    extras = {
        add_on.key: _extra_of(add_on, prices[Interval.MONTH, buyer.account.currency])
        for add_on, prices in grounds.market.add_ons
        if (Interval.MONTH, buyer.account.currency) in prices
    }
    units = kept_units(buyer.add_ons)
    extras |= {item.add_on.key: _extra_of(item.add_on, item.held.price_minor) for item in buyer.add_ons}
    measures = [
        Measure(
            key=figure.metric.key,
            is_gauge=figure.metric.kind is MetricKind.GAUGE,
            block=None if figure.overage_price_minor is None else figure.metric.overage_block,
            price_minor=figure.overage_price_minor or 0,
            setting=figure.setting,
        )
        for figure in buyer.figures
    ]
    sold = _price_of(agreement.offer, subscription.interval, subscription.price_minor, grounds.past.limits)
    in_use = {figure.metric.key: Used(figure.used) for figure in buyer.figures}
    return Case(
        market=rerating.Market(measures, extras),
        present=Deal(sold, {unit.add_on.key: unit.quantity for unit in units}),
        months=list_months(grounds.past, buyer.account, subscription, buyer.figures),
        running=Month(start=subscription.usage_period_start, end=subscription.usage_period_end, place=0, used=in_use),
    )


def _extra_of(add_on: AddOn, price_minor: int) -> Extra:
    return Extra(
        key=add_on.key,
        metric=add_on.metric_key,
        gives=add_on.gives,
        price_minor=price_minor,
        plan_keys=frozenset(map(str, add_on.plan_keys)),
    )


def _recommend(
    grounds: Grounds,
    agreement: Agreement,
    case: Case,
    offers: Sequence[tuple[PlanPrice, PlanOffer]],
    advice: Advice,
    segments: Mapping[str, Segment],
) -> Recommendation:
    add_ons = {add_on.key: add_on for add_on, _ in grounds.market.add_ons}
    is_less = advice.kind is RecommendationKind.SEND_LESS
    plan = next((offer for price, offer in offers if price is advice.deal.plan), None)
    going_on = {
        key: quantity
        for key, quantity in case.present.units.items()
        if plan is None or plan.plan.key in case.market.extras[key].plan_keys
    }
    units = advice.deal.units
    wanted = [
        (add_on, units.get(key, 0), units.get(key, 0) > going_on.get(key, 0))
        for key, add_on in add_ons.items()
        if units.get(key, 0) != going_on.get(key, 0)
    ]
    add_on = add_ons.get(advice.subject) if plan is None and not is_less else None
    metric_key = add_on.metric_key if add_on else advice.subject if is_less else None
    segment = segments.get(advice.subject) if is_less else None
    subscription = agreement.subscription
    told = {
        "kind": advice.kind,
        "plan": None if plan is None else [str(plan.version.id), advice.deal.plan.interval],
        "priceMinor": advice.deal.plan.price_minor,
        "addOns": [[add_on.key, quantity] for add_on, quantity, _ in wanted],
        "segment": None if segment is None else segment.name,
        "present": [str(subscription.plan_version_id), subscription.interval, subscription.price_minor],
        "held": sorted(case.present.units.items()),
    }
    return Recommendation(
        account=grounds.buyer.account,
        advice=advice,
        resolve=None if is_less else Resolve(None if plan is None else (plan, advice.deal.plan.interval), wanted),
        metric=next((figure.metric for figure in grounds.buyer.figures if figure.metric.key == metric_key), None),
        segment=segment,
        add_on=add_on,
        held=case.present.units.get(add_on.key, 0) if add_on else 0,
        grounds=hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(),
    )


async def load_grounds(session: ReadSession, account: BillingAccount, now: datetime) -> Grounds:
    """What the recommendations of one account rest on. `now` is the wall clock's."""
    ids = [account.id]
    (agreement,) = await load_agreements(session, ids)
    (add_ons,) = await load_held_add_ons(session, ids)
    (scheduled,) = await load_scheduled(session, ids)
    (past,) = await load_pasts(session, ids)
    figures = (await load_figures(session, ids, now))[account.id]
    return Grounds(await load_market(session), Buyer(account, agreement, add_ons, figures), scheduled, past)


async def find_recommendation(work: Work, account: BillingAccount, key: str) -> Recommendation:
    """The recommendation of a locked account with a key, as it stands, put away or not."""
    grounds = await load_grounds(ReadSession(work.session), account, work.clock.now())
    found = next((item for item in recommend(grounds) if item.key == key), None)
    if found is None:
        raise NotFound(UNKNOWN_RECOMMENDATION, FIELD)
    return found


async def find_standing(work: Work, account: BillingAccount, key: str) -> Recommendation:
    """The same where it was not put away."""
    found = await find_recommendation(work, account, key)
    row = await work.session.get(RecommendationDismissal, (account.id, key))
    if row is not None and found.is_dismissed_by(row):
        raise NotFound(UNKNOWN_RECOMMENDATION, FIELD)
    return found


async def dismiss_recommendation(work: Work, principal: Principal, account_id: UUID, key: str) -> BillingAccount:
    """Put a recommendation away until its grounds change. Whose the account is, is the caller's to check."""
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.DISMISS_RECOMMENDATION)
    found = await find_recommendation(work, account, key)
    row = await work.session.get(RecommendationDismissal, (account.id, key))
    if row is not None and found.is_dismissed_by(row):
        return account
    now = work.clock.now_for(account)
    if row is None:
        row = RecommendationDismissal(
            account_id=account.id,
            recommendation=key,
            grounds=found.grounds,
            monthly_minor=found.advice.monthly_minor,
            dismissed_by=work.actor.name,
            dismissed_at=now,
        )
        work.session.add(row)
    else:
        row.grounds, row.monthly_minor = found.grounds, found.advice.monthly_minor
        row.dismissed_by, row.dismissed_at = work.actor.name, now
    tell_recommendation(work, account, found, "recommendation.dismissed")
    return account


def tell_recommendation(work: Work, account: BillingAccount, found: Recommendation, action: str) -> None:
    """Write down what was done about a recommendation of a locked account, and tell who listens."""
    record_update(
        work,
        account,
        action,
        f"recommendation:{found.key}",
        changed=["recommendations"],
        after={"savingMinor": found.advice.monthly_minor, "grounds": found.grounds},
    )
