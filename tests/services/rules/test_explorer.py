"""Spend: every grouping has the total of what it groups, and parts of lines are those that budgets count."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from plafond.models import LineKind
from plafond.services.rules.explorer import SpendEntry, SpendGroup, sum_by
from plafond.services.rules.spending import SpentLine, part_in, parts_of

START = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
names = st.sampled_from([None, "a", "b"])
entries = st.lists(
    st.builds(
        SpendEntry,
        st.integers(-50, 50),
        st.sampled_from([date(2026, 1, 1), date(2026, 1, 2)]),
        names,
        names,
        st.sampled_from([LineKind.OVERAGE, LineKind.ADD_ON]),
    ),
    max_size=30,
)


@given(entries=entries, groups=st.sets(st.sampled_from(SpendGroup)))
def test_any_grouping_has_the_total_of_all(entries: list[SpendEntry], groups: set[SpendGroup]) -> None:
    found = sum_by(entries, groups)
    assert sum(entry.amount_minor for entry in found) == sum(entry.amount_minor for entry in entries)
    assert len({entry[1:] for entry in found}) == len(found)
    assert all(entry.amount_minor for entry in found)
    # Grouped by less from what was grouped by more is the same as grouped by less at once.
    assert sum_by(sum_by(entries, set(SpendGroup)), groups) == found


def test_sums_come_by_day_and_the_largest_first() -> None:
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    entries = [SpendEntry(1, days[1], "a"), SpendEntry(2, days[0], "a"), SpendEntry(3, days[0], "b")]
    by_both = sum_by(entries, {SpendGroup.DAY, SpendGroup.METRIC})
    assert by_both == [SpendEntry(3, days[0], "b"), SpendEntry(2, days[0], "a"), SpendEntry(1, days[1], "a")]
    assert sum_by(entries, {SpendGroup.METRIC}) == [SpendEntry(3, metric_key="a"), SpendEntry(3, metric_key="b")]
    assert sum_by(entries, set()) == [SpendEntry(6)]


@given(amount=st.integers(-100, 100), periods=st.integers(1, 12), place=st.integers(0, 5), begun=st.integers(6, 20))
def test_a_line_is_spent_in_the_parts_that_budgets_count(amount: int, periods: int, place: int, begun: int) -> None:
    starts = [START + MONTH * number for number in range(begun)]
    line = SpentLine(LineKind.PRORATION, starts[place] + timedelta(days=3), amount, periods)
    parts = parts_of(line, starts)
    assert parts[0][0] == line.start
    assert [at for at, _ in parts[1:]] == starts[place + 1 : place + periods]
    assert [part for _, part in parts] == [part_in(line, starts, start) for start in starts[place : place + periods]]
    if begun >= place + periods:
        assert sum(part for _, part in parts) == amount
