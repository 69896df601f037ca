"""Past months out of what was read: which are whole, where they stand in a year, and how high gauges stood."""

from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from plafond.models import MetricKind
from plafond.services.past_months import Past, Steps, is_whole, list_months
from plafond.services.rules.periods import Period, period_number
from plafond.services.rules.rerating import Used

ZONE = "America/New_York"
ANCHOR = datetime(2026, 1, 31, 2, 30)  # noqa: DTZ001  # wall time


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("number", range(13))
def test_each_period_from_an_anchor_is_whole(number: int) -> None:
    """Also short months after the 31st, and those in which clocks change."""
    period = period_number(ANCHOR, ZONE, number)
    assert is_whole(period, ZONE)
    assert not is_whole(Period(period.start, period.end.replace(day=period.end.day - 4)), ZONE)


def test_a_gauge_is_walked_back_from_its_level_now() -> None:
    """It is 4 now, after +1 in the running month: 2 after the first, 5 at most in the second, and 3 from then on."""
    ends = [instant(f"2026-0{month}-01") for month in range(1, 6)]
    cut, *whole = [Period(start, end) for start, end in pairwise(ends)]
    cut = Period(cut.start, instant("2026-01-20"))
    steps = Steps(
        peak={whole[0].start: 5, cut.start: 2},
        change={cut.start: 2, whole[0].start: 1, None: 1},
    )
    past = Past(periods={cut: {}, **{period: {"emails": Used(9)} for period in whole}})
    past.steps["seats"] = steps
    figures: Any = [
        SimpleNamespace(metric=SimpleNamespace(key="seats", kind=MetricKind.GAUGE), used=4),
        SimpleNamespace(metric=SimpleNamespace(key="emails", kind=MetricKind.COUNTER), used=1),
    ]
    account: Any = SimpleNamespace(timezone="UTC")
    subscription: Any = SimpleNamespace(usage_period_number=2)
    months = list_months(past, account, subscription, figures)
    assert [month.start for month in months] == [period.start for period in whole]
    assert [month.place for month in months] == [11, 0, 1]
    assert [month.used["seats"].quantity for month in months] == [5, 3, 3]
    assert [month.used["emails"].quantity for month in months] == [9, 9, 9]
