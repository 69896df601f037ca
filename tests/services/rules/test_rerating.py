"""Real months priced anew. Against arithmetic of the test's own: month by month, block by block."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plafond.models import Interval, OveragePolicy
from plafond.services.rules.rerating import (
    Advice,
    Case,
    Deal,
    Extra,
    Market,
    Measure,
    Month,
    PlanPrice,
    RecommendationKind,
    Segment,
    Used,
    advise,
    advise_less,
    cheapest_units,
    limit_of,
    price_months,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ("emails", "calls", "seats")
PLANS = ("small", "middle", "large")


def a_month(place: int, **used: int) -> Month:
    start = START + timedelta(days=30 * place)
    figures = {key: Used(quantity) for key, quantity in used.items()}
    return Month(start=start, end=start + timedelta(days=30), place=place % 12, used=figures)


def naive_minor(market: Market, deal: Deal, month: Month) -> int:
    """What a month costs, counted out."""
    plan = deal.plan
    cost = plan.price_minor
    if plan.interval is Interval.YEAR:
        cost = plan.price_minor // 12 + (month.place < plan.price_minor % 12)
    for key, quantity in deal.units.items():
        cost += market.extras[key].price_minor * quantity
    for measure in market.measures:
        limit = plan.limits.get(measure.key, 0)
        if measure.block is None or plan.tier == 0 or limit is None or measure.key not in month.used:
            continue
        for key, quantity in deal.units.items():
            if market.extras[key].metric == measure.key:
                limit += market.extras[key].gives * quantity
        charged = month.used[measure.key].quantity - limit - month.used[measure.key].allowed
        while charged > 0:
            cost, charged = cost + measure.price_minor, charged - measure.block
    return cost


# --- generated catalogues, mixes and months ---

prices = st.integers(0, 50_000)
limits = st.one_of(st.none(), st.integers(0, 60))


@st.composite
def a_plan(draw: st.DrawFn, key: str, tier: int, interval: Interval) -> PlanPrice:
    included = draw(st.fixed_dictionaries(dict.fromkeys(KEYS, limits)))
    price = draw(prices) * (10 if interval is Interval.YEAR else 1)
    return PlanPrice(key=key, tier=tier, interval=interval, price_minor=price, limits=included)


@st.composite
def a_case(draw: st.DrawFn) -> tuple[Case, list[PlanPrice]]:
    block = draw(st.integers(1, 9))
    setting = draw(st.sampled_from([None, *OveragePolicy]))
    measures = [
        Measure(key="emails", is_gauge=False, block=block, price_minor=draw(st.integers(0, 900)), setting=setting),
        Measure(key="calls", is_gauge=False),
        Measure(key="seats", is_gauge=True),
    ]
    extras = {
        f"extra-{place}": Extra(
            key=f"extra-{place}",
            metric=metric,
            gives=draw(st.integers(1, 9)) if metric else 0,
            price_minor=draw(st.integers(0, 900)),
            plan_keys=frozenset(draw(st.sets(st.sampled_from(PLANS)))),
        )
        for place, metric in enumerate(draw(st.lists(st.sampled_from([*KEYS, None]), max_size=4)))
    }
    offers = [
        draw(a_plan(key, draw(st.integers(0, 3)), interval))
        for key in PLANS
        for interval in draw(st.sets(st.sampled_from(list(Interval)), min_size=1))
    ]
    sold = draw(st.sampled_from(offers))
    sold = replace(sold, tier=max(1, sold.tier), price_minor=draw(prices))
    held = [key for key, extra in extras.items() if sold.key in extra.plan_keys]
    units = {key: draw(st.integers(1, 5)) for key in held if draw(st.booleans())}
    used = st.fixed_dictionaries(
        {
            "emails": st.builds(Used, st.integers(0, 90), st.integers(0, 5)),
            "calls": st.builds(Used, st.integers(0, 70)),
            "seats": st.builds(Used, st.integers(0, 70)),
        }
    )
    first = draw(st.integers(0, 11))
    months = [replace(a_month(first + n), used=figures) for n, figures in enumerate(draw(st.lists(used, max_size=12)))]
    running = replace(a_month(0), used={"seats": Used(draw(st.integers(0, 70)))})
    return Case(Market(measures, extras), Deal(sold, units), months, running), offers


def apply(case: Case, advice: Advice) -> Deal:
    """The terms after following advice: what is held goes on where it is offered, but for what the advice changes."""
    plan, extras = advice.deal.plan, case.market.extras
    stays = plan.key == case.present.plan.key
    units = {
        key: quantity for key, quantity in case.present.units.items() if stays or plan.key in extras[key].plan_keys
    }
    ordered = {key: advice.deal.units.get(key, 0) for key in extras}
    for key in [key for key, quantity in ordered.items() if quantity != units.get(key, 0)]:
        assert plan.key in extras[key].plan_keys, "only what is offered is ordered"
        if advice.kind in (RecommendationKind.SMALLER_PLAN, RecommendationKind.LARGER_PLAN):
            is_more = ordered[key] > units.get(key, 0)
            assert not is_more or extras[key].metric == "seats", "more of a counter is never advised with a plan"
            assert not is_more or case.present.plan.key in extras[key].plan_keys, "it is ordered before the plan"
        units[key] = ordered[key]
    return Deal(plan, {key: quantity for key, quantity in units.items() if quantity})


def worst_excess(market: Market, deal: Deal, metric: str, month: Month) -> int:
    limit = limit_of(market, deal, metric)
    return 0 if limit is None else max(0, month.used.get(metric, Used(0)).quantity - limit)


@settings(max_examples=150)
@given(a_case())
def test_applied_to_the_past_advice_saves_what_it_said_to_the_cent(generated: tuple[Case, list[PlanPrice]]) -> None:
    case, offers = generated
    found = advise(case, offers)
    assert len({(advice.kind, advice.subject) for advice in found}) == len(found)
    for advice in found:
        applied = apply(case, advice)
        assert [naive_minor(case.market, case.present, month) for month in case.months] == advice.current_minor
        assert [naive_minor(case.market, applied, month) for month in case.months] == advice.suggested_minor
        assert advice.saving_minor == sum(advice.current_minor) - sum(advice.suggested_minor) > 0
        for month in [*case.months, case.running]:
            for metric in ("calls", "seats"):
                before = worst_excess(case.market, case.present, metric, month)
                assert worst_excess(case.market, applied, metric, month) <= before, "it would have held"
        again = advise(replace(case, present=applied), offers)
        assert (advice.kind, advice.subject) not in {(other.kind, other.subject) for other in again}


@settings(max_examples=100)
@given(a_case(), st.data())
def test_no_quantity_of_an_add_on_is_cheaper(generated: tuple[Case, list[PlanPrice]], data: st.DataObject) -> None:
    """Where a unit gives whole blocks: each quantity up to what covers the largest month is tried."""
    case, _ = generated
    block = case.market.measures[0].block or 1
    gives = block * data.draw(st.integers(1, 3))
    extra = Extra(key="x", metric="emails", gives=gives, price_minor=data.draw(prices), plan_keys=frozenset(PLANS))
    market = Market(
        [replace(measure, setting=OveragePolicy.CHARGE) for measure in case.market.measures],
        {**case.market.extras, "x": extra},
    )
    case = replace(case, market=market)
    found = cheapest_units(case, case.present, extra, 10_000)
    tried = [Deal(case.present.plan, {**case.present.units, **({"x": n} if n else {})}) for n in range(100)]
    assert sum(price_months(market, found, case.months)) == min(
        sum(price_months(market, deal, case.months)) for deal in tried
    )


# --- examples ---

EMAILS = Measure(key="emails", is_gauge=False, block=10_000, price_minor=1_000)
SEATS = Measure(key="seats", is_gauge=True)
USER = Extra(key="user", metric="seats", gives=1, price_minor=1_500, plan_keys=frozenset({"starter", "professional"}))
BLOCK = Extra(
    key="block", metric="emails", gives=10_000, price_minor=1_000, plan_keys=frozenset({"starter", "professional"})
)
MARKET = Market([EMAILS, SEATS], {"user": USER, "block": BLOCK})


def offer(key: str, tier: int, month: int, year: int, emails: int, seats: int) -> list[PlanPrice]:
    included: Mapping[str, int | None] = {"emails": emails, "seats": seats}
    return [
        PlanPrice(key=key, tier=tier, interval=interval, price_minor=price, limits=included)
        for interval, price in ((Interval.MONTH, month), (Interval.YEAR, year))
    ]


STARTER = offer("starter", 1, 4_900, 47_000, 10_000, 2)
PROFESSIONAL = offer("professional", 2, 14_900, 143_000, 50_000, 5)
OFFERS = [*STARTER, *PROFESSIONAL]


def case_of(deal: Deal, months: list[Month], seats_now: int = 0) -> Case:
    return Case(MARKET, deal, months, a_month(0, seats=seats_now))


def summed(case: Case) -> dict[tuple[str, str, Interval], tuple[int, Mapping[str, int]]]:
    return {
        (advice.kind, advice.subject, advice.deal.plan.interval): (advice.monthly_minor, advice.deal.units)
        for advice in advise(case, OFFERS)
    }


def test_a_year_on_professional_by_the_month() -> None:
    months = [a_month(n, emails=45_000, seats=4) for n in range(12)]
    (advice,) = advise(case_of(Deal(PROFESSIONAL[0]), months), PROFESSIONAL)
    assert (advice.kind, advice.saving_minor, advice.yearly_minor) == ("SWITCH_TO_ANNUAL", 35_800, 35_800)
    assert (advice.monthly_minor, advice.confidence_percent) == (2_983, 100)
    assert sum(advice.suggested_minor) == 143_000


def test_a_smaller_plan_with_the_seats_that_it_needs() -> None:
    """4 of 5 seats and few e-mails: starter with 2 more users, 49 + 30 instead of 149."""
    months = [a_month(n, emails=9_000, seats=4) for n in range(3)]
    found = summed(case_of(Deal(PROFESSIONAL[0]), months, seats_now=4))
    assert found["SMALLER_PLAN", "starter", Interval.YEAR] == (14_900 - 3_000 - 3_917, {"user": 2})
    # One more by now: three users are needed. By the year it would have to be ordered for all of it: then it is none.
    found = summed(case_of(Deal(PROFESSIONAL[0]), months, seats_now=5))
    assert found["SMALLER_PLAN", "starter", Interval.YEAR][1] == {"user": 3}
    assert summed(case_of(Deal(PROFESSIONAL[1]), months, seats_now=4)) == {}


def test_a_larger_plan_is_cheaper_than_overage_and_blocks() -> None:
    months = [a_month(n, emails=50_000 + 10_000 * (n % 2), seats=2) for n in range(6)]
    found = summed(case_of(Deal(STARTER[0], {"block": 8}), months))
    # 8 blocks cost 80 beside 49; 5 in half of the months do not cost less or more than overage.
    assert found["UNUSED_ADD_ON", "block", Interval.MONTH] == (3_500, {"block": 4})
    assert found["LARGER_PLAN", "professional", Interval.YEAR][0] == 12_900 - 11_917 - 500
    assert "SMALLER_PLAN" not in {kind for kind, _, _ in found}


@pytest.mark.parametrize(
    ("policy", "advised"),
    [(None, True), (OveragePolicy.ALLOW, True), (OveragePolicy.BLOCK, False), (OveragePolicy.ASK, False)],
)
def test_a_counter_that_may_not_pass_has_to_hold(policy: OveragePolicy | None, advised: bool) -> None:
    market = Market([replace(EMAILS, setting=policy), SEATS], {})
    months = [a_month(0, emails=10_001), a_month(1, emails=5)]
    case = Case(market, Deal(PROFESSIONAL[0]), months, a_month(0))
    kinds = {advice.kind for advice in advise(case, OFFERS)}
    assert (RecommendationKind.SMALLER_PLAN in kinds) is advised


def test_nothing_without_a_month_and_nothing_that_saves_nothing() -> None:
    assert advise(case_of(Deal(PROFESSIONAL[0]), []), OFFERS) == []
    assert advise(case_of(Deal(STARTER[1]), [a_month(0, emails=1)]), OFFERS) == []


def test_confidence_is_the_months_less_what_the_worst_would_have_lost() -> None:
    base = Advice(RecommendationKind.LARGER_PLAN, "x", Deal(STARTER[0]), [a_month(n) for n in range(6)], [0], [0])
    steady = replace(base, current_minor=[100] * 6, suggested_minor=[50] * 6)
    assert (steady.confidence_percent, steady.worst) == (50, 5)
    shaken = replace(base, current_minor=[100] * 6, suggested_minor=[50, 50, 200, 50, 50, 50])
    assert (shaken.confidence_percent, shaken.worst) == (30, 2)
    assert replace(steady, kind=RecommendationKind.SEND_LESS).confidence_percent == 25


def test_who_sends_more_than_before() -> None:
    """Blue grew from 1,000 to 25,000 a month: without that, two of the last three months have no overage."""
    months = [a_month(n, emails=8_000) for n in range(3)] + [a_month(n, emails=32_000) for n in range(3, 6)]
    case = case_of(Deal(STARTER[0]), months)
    advice = advise_less(case, Segment("emails", "blue", [1_000, 1_000, 999], [25_000, 25_000, 1_000]))
    assert advice is not None
    assert [month.start for month in advice.months] == [month.start for month in months[3:]]
    assert advice.current_minor == [4_900 + 3_000] * 3
    assert advice.suggested_minor == [4_900, 4_900, 4_900 + 3_000]
    assert advise_less(case_of(Deal(PROFESSIONAL[0]), months), Segment("emails", "blue", [0] * 3, [9] * 3)) is None
