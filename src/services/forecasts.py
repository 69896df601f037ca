"""Where usage and spend are heading by the end of the usage period, as the days so far tell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ..models import BillingAccount, BudgetScope, Granularity, MetricKind, OveragePolicy, SubscriptionStatus
from .budget_states import BudgetState
from .history import History, HistoryKey, sum_by_bucket
from .rules.forecasting import MAX_DAYS, Forecast, find_first, forecast_figure, list_pieces
from .rules.money import MAX_AMOUNT_MINOR
from .rules.overage import UsageTerms, allowed_after, ceiling_of
from .rules.periods import Period, last_buckets
from .rules.thresholds import is_reached
from .spends import PAYING, Shares
from .standing import Standing
from .usage import UsageFigure

TAKES_USAGE = frozenset({SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE})


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
    """A budget, and where it is heading."""

    state: BudgetState
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
    standing: Standing,
    forecasts: Mapping[str, Forecast | None],
    budgets: Sequence[BudgetState],
    shares: Shares,
    certain_minor: int | None,
) -> SpendForecast | None:
    """What is certain and the overage of the forecast quantities, by the rating code; none without a plan that costs.

    Args:
        standing: How the account stands.
        forecasts: By metric. One without a forecast stays as it stands.
        budgets: Those of the account.
        shares: How much of each metric workspaces used in this usage period: as much of what is to come is theirs.
        certain_minor: What of the running usage period is there already and no usage changes: all but its overage.
            None while that period is not opened yet.
    """
    subscription = standing.subscription
    if subscription is None or subscription.status not in PAYING or certain_minor is None:
        return None
    known = {key: forecast for key, forecast in forecasts.items() if forecast is not None}
    open_ended = [figure.metric.key for figure in standing.figures if _may_cost_more(figure)]

    def spend_minor(bound: Callable[[Forecast], int]) -> int:
        quantities = {key: bound(forecast) for key, forecast in known.items()}
        return certain_minor + _overages_minor(standing.figures, quantities)

    return SpendForecast(
        value_minor=spend_minor(lambda forecast: forecast.value),
        low_minor=spend_minor(lambda forecast: forecast.low),
        low50_minor=spend_minor(lambda forecast: forecast.low50),
        high50_minor=spend_minor(lambda forecast: forecast.high50),
        high_minor=spend_minor(lambda forecast: forecast.high),
        confidence=min((known[key].confidence if key in known else 0 for key in open_ended), default=1),
        period_end=next((f.period_end for f in standing.figures if f.period_end), subscription.usage_period_end),
        based_on_days=min((known[key].based_on_days if key in known else 0 for key in open_ended), default=None),
        budgets=[_forecast_budget(state, standing.figures, known, shares) for state in budgets],
    )


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
        block=figure.rate.block,
        price_minor=figure.rate.price_minor,
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


def _forecast_budget(
    state: BudgetState, figures: Sequence[UsageFigure], forecasts: Mapping[str, Forecast], shares: Shares
) -> BudgetForecast:
    """When the thresholds of a budget will be reached: what is spent, and its share of the overage to come."""
    scope, subject = state.budget.scope, state.budget.subject
    mine = [
        figure
        for figure in figures
        if figure.metric.key in forecasts and (scope is not BudgetScope.METRIC or figure.metric.key == subject)
    ]
    pieces = next((forecasts[figure.metric.key].pieces for figure in mine), ())
    spent_minor = 0 if state.period is None else state.period.spent_minor
    limit_minor = state.budget.limit_minor

    def more_minor(figure: UsageFigure, at: datetime) -> int:
        quantity = forecasts[figure.metric.key].expect_at(at)
        more = overage_at_minor(figure, quantity) - overage_at_minor(figure, figure.used)
        if scope is not BudgetScope.WORKSPACE:
            return more
        used = shares.get(figure.metric.key, {})
        return more * used.get(subject, 0) // max(1, sum(used.values()))

    def reach(percent: int) -> Reach:
        def holds(at: datetime) -> bool:
            will_be_minor = spent_minor + sum(more_minor(figure, at) for figure in mine)
            return is_reached(percent, will_be_minor, limit_minor)

        return Reach(percent, find_first(holds, pieces))

    thresholds = [int(percent) for percent in state.budget.thresholds]
    ahead = [percent for percent in thresholds if not is_reached(percent, spent_minor, limit_minor)]
    return BudgetForecast(state, [reach(percent) for percent in ahead])
