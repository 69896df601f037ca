"""The lines of a bill: for a start, a change of plan, an add-on, the close of a period. Pure functions of a standing.

Previews, quotes, the upcoming invoice and what is issued all come from here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..models import AddOn, Interval, LineKind, Metric, MetricKind
from .bills import Bill, BillLine
from .calendars import end_of_usage_period
from .relations import HeldAddOn
from .rules.explanation import (
    Basis,
    correction_basis,
    overage_basis,
    price_basis,
    rest_basis,
    unused_basis,
)
from .rules.periods import MONTHS, Period
from .rules.proration import seconds_between
from .standing import CreditableLine, RatedUsage, Standing, Terms
from .usage import UsageFigure


@dataclass(frozen=True)
class Unit:
    """Units of an add-on, at the price that was or is sold."""

    add_on: AddOn
    quantity: int
    price_minor: int


def subscription_line(s: Standing, terms: Terms, period: Period) -> BillLine:
    """The plan for a whole billing period, in advance."""
    return _charge(
        s,
        LineKind.SUBSCRIPTION,
        "SUBSCRIPTION",
        {"plan": terms.offer.plan.name, "interval": terms.interval},
        price_basis(terms.price_minor, version=terms.offer.version.number),
        period,
        plan_key=terms.offer.plan.key,
        usage_periods=MONTHS[terms.interval],
    )


def add_on_line(s: Standing, unit: Unit, period: Period) -> BillLine:
    """Units of an add-on for a whole usage period, in advance."""
    return _charge(
        s,
        LineKind.ADD_ON,
        "ADD_ON",
        {"name": unit.add_on.name, "quantity": unit.quantity},
        price_basis(unit.price_minor, unit.quantity),
        period,
        add_on_key=unit.add_on.key,
        metric_key=unit.add_on.metric_key,
    )


def lines_at_start(s: Standing, terms: Terms, units: Iterable[Unit], billing: Period, usage: Period) -> list[BillLine]:
    """What a start charges: the plan, and add-ons that were set on trial."""
    return [subscription_line(s, terms, billing), *(add_on_line(s, unit, usage) for unit in units)]


def lines_at_close(
    s: Standing, terms: Terms | None, units: Iterable[Unit], *, billing: Period | None, usage: Period | None
) -> list[BillLine]:
    """What the close of a usage period charges in advance: the plan where a billing period begins, and add-ons.

    Overage and corrections are not in it: they are rated when the invoice is finalised, see `lines_of_usage`.
    """
    lines = []
    if billing is not None and terms is not None:
        lines.append(subscription_line(s, terms, billing))
    if usage is not None:
        lines += [add_on_line(s, unit, usage) for unit in units]
    return lines


def lines_of_usage(s: Standing, closed: datetime | None) -> list[BillLine]:
    """The overage of the period that began at `closed`, and corrections of those that were rated before."""
    metrics = {figure.metric.key: figure.metric for figure in s.figures}
    lines = []
    for rated in s.ratings:
        metric = metrics[rated.rating.metric_key]
        if rated.rating.block is None or rated.rating.limit_quantity is None:
            continue
        if rated.rating.rated_at is not None:
            lines += correction_lines(s, metric, rated)
        elif rated.rating.period_start == closed:
            lines.append(overage_line(s, metric, rated))
    return lines


def overage_line(s: Standing, metric: Metric, rated: RatedUsage) -> BillLine:
    """What was used above the limit in a closed period, by started blocks."""
    rating = rated.rating
    assert rating.block is not None, "what is not sold is not rated"
    return _overage(s, metric, Period(rating.period_start, rating.period_end), _rated_basis(rated), rating.block)


def accrued_line(s: Standing, figure: UsageFigure, period: Period) -> BillLine | None:
    """The same for the running period, as things stand: what a close now would charge."""
    if not figure.is_sold or figure.limit is None or figure.metric.overage_block is None:
        return None
    basis = overage_basis(
        figure.used,
        figure.limit,
        figure.allowed,
        figure.metric.overage_block,
        figure.overage_price_minor or 0,
    )
    return _overage(s, figure.metric, period, basis, figure.metric.overage_block)


def _overage(s: Standing, metric: Metric, period: Period, basis: Basis, block: int) -> BillLine:
    decision = s.decide_tax(LineKind.OVERAGE, period.end)
    return BillLine(
        kind=LineKind.OVERAGE,
        wording="OVERAGE",
        facts={"metric": metric.name, "block": block},
        basis=basis,
        start=period.start,
        end=period.end,
        tax_country=_tax_country(s),
        taxes=decision.rates,
        metric_key=metric.key,
    )


def _rated_basis(rated: RatedUsage) -> Basis:
    rating = rated.rating
    assert rating.limit_quantity is not None, "what is unlimited is not rated"
    assert rating.block is not None, "what is not sold is not rated"
    return overage_basis(rated.used, rating.limit_quantity, rated.allowed, rating.block, rating.price_minor)


def correction_lines(s: Standing, metric: Metric, rated: RatedUsage) -> list[BillLine]:
    """An earlier period rated anew, less what was invoiced for it: a charge, or credits of its overage lines."""
    rating = rated.rating
    period = Period(rating.period_start, rating.period_end)
    facts = {
        "metric": metric.name,
        "start": s.day_of(period.start).isoformat(),
        "end": s.day_of(period.end - timedelta(seconds=1)).isoformat(),
    }
    basis = correction_basis(_rated_basis(rated), rating.invoiced_minor)
    charge = BillLine(
        kind=LineKind.CORRECTION,
        wording="CORRECTION",
        facts=facts,
        basis=basis,
        start=period.start,
        end=period.end,
        tax_country=_tax_country(s),
        taxes=s.decide_tax(LineKind.OVERAGE, period.end).rates,
        metric_key=metric.key,
    )
    if charge.amount_minor >= 0:
        return [charge]
    lines, left = [], -charge.amount_minor
    for line in s.lines:
        row = line.line
        if row.metric_key == metric.key and row.period_start == period.start and row.kind in _RATED_KINDS and left:
            part = min(left, line.rest_minor)
            if part > 0:
                lines.append(_credit_of(line, LineKind.CORRECTION, "CORRECTION", facts, {**basis, "creditable": part}))
                left -= part
    return lines


_RATED_KINDS = (LineKind.OVERAGE, LineKind.CORRECTION)


def lines_at_change(s: Standing, target: Terms, at: datetime) -> list[BillLine]:
    """A change of plan within the billing period: the unused rest of the old price back, the rest of the new one.

    Add-ons that the new plan does not offer end, with the rest of what was paid for them back.
    """
    subscription = s.subscription
    assert subscription is not None, "there is something to change"
    period = Period(subscription.current_period_start, subscription.current_period_end)
    lines = [*_unused_plan(s, at), _rest_of_plan(s, target, period, at)]
    for item in s.add_ons:
        if target.offer.plan.key not in item.add_on.plan_keys:
            lines += _unused_add_on(s, item, at)
    return lines


def lines_at_moved_anchor(
    s: Standing, target: Terms, units: Sequence[Unit], billing: Period, usage: Period
) -> list[BillLine]:
    """A change that moves the anchor to `billing.start`: the usage period closes there, and all starts anew."""
    subscription = s.subscription
    assert subscription is not None, "there is something to change"
    at = billing.start
    lines = _unused_plan(s, at)
    for item in s.add_ons:
        lines += _unused_add_on(s, item, at)
    closed = Period(subscription.usage_period_start, at)
    for figure in s.figures:
        accrued = accrued_line(s, figure, closed)
        if accrued is not None:
            lines.append(accrued)
    return [*lines, *lines_at_start(s, target, units, billing, usage)]


def lines_at_cancellation(s: Standing, at: datetime) -> list[BillLine]:
    """What a cancellation at once with prorated credit gives back."""
    lines = _unused_plan(s, at)
    for item in s.add_ons:
        lines += _unused_add_on(s, item, at)
    return lines


def lines_at_return(s: Standing, at: datetime, suspended_at: datetime) -> list[BillLine]:
    """What the end of a suspension charges: the rest of periods that began, uncharged, after it began."""
    subscription, terms = s.subscription, s.terms
    assert subscription is not None, "what was suspended runs"
    assert terms is not None, "what was suspended runs"
    lines = []
    period = Period(subscription.current_period_start, subscription.current_period_end)
    if period.start > suspended_at:
        lines.append(_rest_of_plan(s, terms, period, at))
    if subscription.usage_period_start > suspended_at:
        for item in s.add_ons:
            lines += lines_of_add_on(s, Unit(item.add_on, item.held.quantity, item.held.price_minor), at)
    return lines


def _rest_of_plan(s: Standing, terms: Terms, period: Period, at: datetime) -> BillLine:
    rest, whole = seconds_between(at, period.end), seconds_between(period.start, period.end)
    plan = terms.offer.plan
    return _charge(
        s,
        LineKind.PRORATION,
        "PRORATION_CHARGE",
        {"name": plan.name},
        rest_basis(terms.price_minor, 1, rest, whole, version=terms.offer.version.number),
        Period(at, period.end),
        plan_key=plan.key,
        usage_periods=_usage_periods_left(s),
    )


def _usage_periods_left(s: Standing) -> int:
    """How many usage periods are left of the billing period, the running one included."""
    subscription = s.subscription
    assert subscription is not None, "periods are a subscription's"
    count = 1
    while (
        end_of_usage_period(subscription.anchor_wall, subscription.zone, subscription.usage_period_number + count - 1)
        < subscription.current_period_end
    ):
        count += 1
    return count


def lines_of_add_on(s: Standing, unit: Unit, at: datetime) -> list[BillLine]:
    """What more units cost now: the rest of the usage period; a counter's block whole."""
    subscription = s.subscription
    assert subscription is not None, "add-ons stand beside a plan"
    period = Period(subscription.usage_period_start, subscription.usage_period_end)
    rest = Period(at, period.end)
    if is_block(s, unit.add_on) or at <= period.start:
        return [add_on_line(s, unit, rest)]
    return [
        _charge(
            s,
            LineKind.PRORATION,
            "PRORATION_CHARGE",
            {"name": unit.add_on.name},
            rest_basis(
                unit.price_minor,
                unit.quantity,
                seconds_between(at, period.end),
                seconds_between(period.start, period.end),
            ),
            rest,
            add_on_key=unit.add_on.key,
            metric_key=unit.add_on.metric_key,
        )
    ]


def is_block(s: Standing, add_on: AddOn) -> bool:
    """Whether an add-on is a block of a counter: charged whole, and never given back."""
    return any(
        figure.metric.key == add_on.metric_key and figure.metric.kind is MetricKind.COUNTER for figure in s.figures
    )


def kept_units(add_ons: Iterable[HeldAddOn], plan_key: str | None = None) -> list[Unit]:
    """What goes on into the next usage period: lowered as was asked, and only what the plan offers."""
    units = []
    for item in add_ons:
        held = item.held
        quantity = held.quantity if held.next_quantity is None else held.next_quantity
        if quantity and (plan_key is None or plan_key in item.add_on.plan_keys):
            units.append(Unit(item.add_on, quantity, held.price_minor))
    return units


def _unused_plan(s: Standing, at: datetime) -> list[BillLine]:
    """The unused rest of the plan, from the newest line that charged it in this billing period."""
    subscription, offer = s.subscription, s.offer
    assert subscription is not None, "there is something to credit"
    assert offer is not None, "a subscription has sold something"
    period = Period(subscription.current_period_start, subscription.current_period_end)
    for line in s.lines:
        row = line.line
        if row.plan_key == offer.plan.key and row.period_end == period.end and row.period_start <= at:
            basis = unused_basis(
                subscription.price_minor,
                1,
                seconds_between(at, period.end),
                seconds_between(period.start, period.end),
                line.rest_minor,
            )
            return [
                _credit_of(
                    line,
                    LineKind.CREDIT,
                    "PRORATION_CREDIT",
                    {"name": offer.plan.name},
                    basis,
                    Period(at, period.end),
                    usage_periods=_usage_periods_left(s),
                )
            ]
    return []


def _unused_add_on(s: Standing, item: HeldAddOn, at: datetime) -> list[BillLine]:
    """The unused rest of all units paid for in this usage period; nothing of a counter's blocks."""
    subscription = s.subscription
    assert subscription is not None, "add-ons stand beside a plan"
    if is_block(s, item.add_on):
        return []
    period = Period(subscription.usage_period_start, subscription.usage_period_end)
    lines = []
    for line in s.lines:
        row = line.line
        if row.add_on_key == item.add_on.key and row.period_end == period.end and row.period_start <= at:
            basis = unused_basis(
                int(row.basis["price"]),
                int(row.basis["quantity"]),
                seconds_between(at, period.end),
                seconds_between(period.start, period.end),
                line.rest_minor,
            )
            lines.append(
                _credit_of(
                    line,
                    LineKind.CREDIT,
                    "PRORATION_CREDIT",
                    {"name": item.add_on.name},
                    basis,
                    Period(at, period.end),
                )
            )
    return lines


def _credit_of(
    line: CreditableLine,
    kind: LineKind,
    wording: str,
    facts: dict[str, Any],
    basis: Basis,
    period: Period | None = None,
    *,
    usage_periods: int = 1,
) -> BillLine:
    row = line.line
    return BillLine(
        kind=kind,
        wording=wording,
        facts=facts,
        basis=basis,
        start=period.start if period else row.period_start,
        end=period.end if period else row.period_end,
        tax_country=row.tax_country,
        taxes=line.taxes,
        metric_key=row.metric_key,
        plan_key=row.plan_key,
        add_on_key=row.add_on_key,
        credited=line.credited,
        usage_periods=usage_periods,
    )


def _charge(
    s: Standing,
    kind: LineKind,
    wording: str,
    facts: dict[str, Any],
    basis: Basis,
    period: Period,
    *,
    metric_key: str | None = None,
    plan_key: str | None = None,
    add_on_key: str | None = None,
    usage_periods: int = 1,
) -> BillLine:
    # The rest of a period is taxed as what it is the rest of.
    sold_kind = LineKind.ADD_ON if add_on_key is not None else LineKind.SUBSCRIPTION
    return BillLine(
        kind=kind,
        wording=wording,
        facts=facts,
        basis=basis,
        start=period.start,
        end=period.end,
        tax_country=_tax_country(s),
        taxes=s.decide_tax(sold_kind, period.start).rates,
        metric_key=metric_key,
        plan_key=plan_key,
        add_on_key=add_on_key,
        usage_periods=usage_periods,
    )


def _tax_country(s: Standing) -> str:
    return s.company.country if s.company else ""


def bill_of(s: Standing, lines: Iterable[BillLine]) -> Bill:
    """A bill in the account's currency."""
    return Bill.of(s.currency, lines)


def interval_moves_anchor(current: Interval, target: Interval) -> bool:
    """Whether a change at once starts the periods anew."""
    return current is Interval.MONTH and target is Interval.YEAR
