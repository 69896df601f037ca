"""When what was invoiced in advance becomes revenue: by elapsed seconds of the line, cumulative."""

from datetime import datetime

from .money import share_of
from .periods import Period
from .proration import seconds_between


def recognised_until(net_minor: int, period: Period, instant: datetime, *, credited_minor: int = 0) -> int:
    """The revenue of a line up to an instant: its share of elapsed seconds, at most its net less its credits.

    470.00 for 2026 is 39.92 after January: 47000 × 2,678,400 s ÷ 31,536,000 s.
    """
    assert net_minor >= 0, "credits are not recognised: they end the line that they take from"
    ceiling = net_minor - credited_minor
    if instant >= period.end:
        return ceiling
    whole = seconds_between(period.start, period.end)
    elapsed = seconds_between(period.start, max(period.start, instant))
    return min(share_of(net_minor, elapsed, whole), ceiling)
