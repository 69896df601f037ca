"""Where usage and spend are heading by the end of the usage period, as the days so far tell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ..models import BillingAccount, Budget, BudgetScope, Granularity, MetricKind, OveragePolicy, SubscriptionStatus
from .charges import add_ons_minor, spend_so_far_minor
from .history import History, HistoryKey, sum_by_bucket
from .relations import HeldAddOn
from .rules.forecasting import MAX_DAYS, Forecast, find_first, forecast_figure, list_pieces
from .rules.money import MAX_AMOUNT_MINOR
from .rules.overage import UsageTerms, allowed_after, ceiling_of
from .rules.periods import Period, last_buckets
from .rules.thresholds import is_reached
from .standing import Standing
from .usage import UsageFigure

TAKES_USAGE = frozenset({SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE})
SPENDS = frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE})


@dataclass(frozen=True)
class Reach:
    """When a threshold that is not reached yet is expected to be; none where it is not by the end of the period."""

    percent: int
    at: datetime | None


def days_to_read(account: BillingAccount, now: datetime) -> HistoryKey:
    """Which daily roll-ups the forecasts of an account are made from."""
    return HistoryKey(account.id, _days_up_to(account, now)[0].start)


def _days_up_to(account: BillingAccount, now: datetime) -> Sequence[Period]:
    """The days of the account's zone that are looked at, and today."""
    return last_buckets(now, account.timezone, Granularity.DAY, MAX_DAYS + 1)


def forecast_usage(
    account: BillingAccount,
    status: SubscriptionStatus | None,
    figure: UsageFigure,
    history: History,
    now: datetime,
) -> Forecast | None:
    """A metric at the end of the usage period; none before a first whole day, and where no usage is taken.

    Limits do not bend it: what a limit will refuse is part of where usage is heading.
    """
    if figure.period_end is None or not (status is None or status in TAKES_USAGE):
        return None
    changes = sum_by_bucket(figure.metric.key, history, _days_up_to(account, now), account.timezone, Granularity.DAY)
    is_gauge = figure.metric.kind is MetricKind.GAUGE
    days = _days_of_gauge(changes, figure.used) if is_gauge else _since_first(changes)
    pieces = list_pieces(now, figure.period_end, account.timezone)
    return forecast_figure(days, pieces, figure.used, can_fall=is_gauge)


def _since_first(changes: Sequence[int]) -> Sequence[int]:
    """The whole days from the first usage on. Days before it tell nothing: there was nobody to use anything."""
    first = next((number for number, change in enumerate(changes) if change), len(changes))
    return changes[first:-1]


def _days_of_gauge(changes: Sequence[int], level: int) -> Sequence[int]:
    """The whole days after the level first stood above 0: how it came there is no movement to carry on."""
    if level != sum(changes):
        return changes[:-1]
    first = next((number for number, change in enumerate(changes) if change), len(changes))
    return changes[first + 1 : -1]


def list_reaches(figure: UsageFigure, forecast: Forecast, thresholds: Sequence[int]) -> list[Reach]:
    """The thresholds of a metric's limit that are not reached yet, ascending; none where there is no limit."""
    if figure.limit is None:
        return []

    def reach(percent: int) -> Reach:
        at = find_first(lambda at: is_reached(percent, forecast.expect_at(at), figure.limit), forecast.pieces)
        return Reach(percent, at)

    return [reach(percent) for percent in thresholds if not is_reached(percent, figure.used, figure.limit)]


# --- spend -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BudgetForecast:
    """A budget, what is spent of it, and where it is heading."""

    budget: Budget
    spent_minor: int
    reaches: Sequence[Reach]


@dataclass(frozen=True, kw_only=True)
class SpendForecast:
    """Net spend of the running usage period at its end."""

    value_minor: int
    low_minor: int
    low50_minor: int
    high50_minor: int
    high_minor: int
    confidence: float
    period_end: datetime
    based_on_days: int | None
    """Of the metric with the least; none where no metric can cost anything more."""
    budgets: Sequence[BudgetForecast]


def forecast_spend(
    standing: Standing, forecasts: Mapping[str, Forecast | None], budgets: Sequence[Budget], now: datetime
) -> SpendForecast | None:
    """What is certain and the overage of the forecast quantities, by the rating code; none without a plan that costs.

    Args:
        standing: How the account stands.
        forecasts: By metric. One without a forecast stays as it stands.
        budgets: Those of the account; of a workspace's nothing is said.
        now: The account's instant.
    """
    subscription = standing.subscription
    if subscription is None or subscription.status not in SPENDS:
        return None
    known = {key: forecast for key, forecast in forecasts.items() if forecast is not None}
    certain_minor = certain_spend_minor(standing, now)
    open_ended = [figure.metric.key for figure in standing.figures if _may_cost_more(figure)]

    def spend_minor(bound: Callable[[Forecast], int]) -> int:
        quantities = {key: bound(forecast) for key, forecast in known.items()}
        return certain_minor + _overages_minor(standing.figures, quantities)

    shares = [(budget, _share_of(standing, budget, now)) for budget in budgets]
    return SpendForecast(
        value_minor=spend_minor(lambda forecast: forecast.value),
        low_minor=spend_minor(lambda forecast: forecast.low),
        low50_minor=spend_minor(lambda forecast: forecast.low50),
        high50_minor=spend_minor(lambda forecast: forecast.high50),
        high_minor=spend_minor(lambda forecast: forecast.high),
        confidence=min((known[key].confidence if key in known else 0 for key in open_ended), default=1),
        period_end=next((f.period_end for f in standing.figures if f.period_end), subscription.usage_period_end),
        based_on_days=min((known[key].based_on_days if key in known else 0 for key in open_ended), default=None),
        budgets=[_forecast_budget(budget, share, known) for budget, share in shares if share is not None],
    )


def certain_spend_minor(standing: Standing, now: datetime) -> int:
    """What of the running usage period's net spend is there already and no usage changes: all but its overage."""
    return spend_so_far_minor(standing, now) - sum(figure.overage_minor for figure in standing.figures)


def _may_cost_more(figure: UsageFigure) -> bool:
    """Whether more usage can cost anything: it may pass the limit, and has a price there."""
    return (
        figure.is_sold
        and figure.limit is not None
        and figure.policy in (OveragePolicy.CHARGE, OveragePolicy.ASK)
        and ceiling_of(_terms_of(figure)) != figure.limit
    )


def _terms_of(figure: UsageFigure) -> UsageTerms:
    approval = figure.approval
    return UsageTerms(
        limit=figure.limit,
        policy=figure.policy,
        block=figure.metric.overage_block,
        price_minor=figure.overage_price_minor or 0,
        approved=approval is not None,
        approved_blocks=None if approval is None else approval.blocks,
    )


def _overages_minor(figures: Sequence[UsageFigure], quantities: Mapping[str, int]) -> int:
    return sum(overage_at_minor(figure, quantities.get(figure.metric.key, figure.used)) for figure in figures)


def overage_at_minor(figure: UsageFigure, quantity: int) -> int:
    """What the overage would cost if the period closed with a quantity: what no policy lets through is not in it."""
    terms = _terms_of(figure)
    ceiling = ceiling_of(terms)
    used = quantity if ceiling is None else min(quantity, max(ceiling, figure.used))
    allowed = allowed_after(figure.allowed, figure.used, used, terms)
    return min(replace(figure, used=used, allowed=allowed).overage_minor, MAX_AMOUNT_MINOR)


@dataclass(frozen=True)
class _Share:
    """What of an account's spend a budget counts."""

    figures: Sequence[UsageFigure]
    certain_minor: int


def _share_of(standing: Standing, budget: Budget, now: datetime) -> _Share | None:
    if budget.scope is BudgetScope.ACCOUNT:
        return _Share(standing.figures, certain_spend_minor(standing, now))
    if budget.scope is BudgetScope.METRIC:
        figures = [figure for figure in standing.figures if figure.metric.key == budget.subject]
        return _Share(figures, add_ons_minor([item for item in standing.add_ons if _gives(item, budget.subject)]))
    return None


def _gives(item: HeldAddOn, metric_key: str) -> bool:
    return item.add_on.metric_key == metric_key


def _forecast_budget(budget: Budget, share: _Share, forecasts: Mapping[str, Forecast]) -> BudgetForecast:
    mine = {f.metric.key: forecasts[f.metric.key] for f in share.figures if f.metric.key in forecasts}
    spent_minor = share.certain_minor + _overages_minor(share.figures, {})
    pieces = next((forecast.pieces for forecast in mine.values()), ())

    def reach(percent: int) -> Reach:
        def holds(at: datetime) -> bool:
            quantities = {key: forecast.expect_at(at) for key, forecast in mine.items()}
            will_be_minor = share.certain_minor + _overages_minor(share.figures, quantities)
            return is_reached(percent, will_be_minor, budget.limit_minor)

        return Reach(percent, find_first(holds, pieces))

    thresholds = [int(percent) for percent in budget.thresholds]
    ahead = [percent for percent in thresholds if not is_reached(percent, spent_minor, budget.limit_minor)]
    return BudgetForecast(budget, spent_minor, [reach(percent) for percent in ahead])
