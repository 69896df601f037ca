"""What of lines and costs is spend: parts that sum to the line, and budgets that sum what counts for them."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from plafond.models import BudgetScope, LineKind
from plafond.services.rules.spending import SpentLine, part_in, spent_under

STARTS = [datetime(2026, 1, 31, tzinfo=UTC) + timedelta(days=30 * n) for n in range(14)]
amounts = st.integers(-500_000, 500_000)


@given(amounts, st.integers(1, 12), st.integers(0, 1), st.integers(0, 29))
def test_the_parts_of_a_line_are_even_and_sum_to_it(amount: int, count: int, first: int, days: int) -> None:
    line = SpentLine(LineKind.SUBSCRIPTION, STARTS[first] + timedelta(days=days), amount, count)
    parts = [part_in(line, STARTS, start) for start in STARTS]
    assert sum(parts) == amount
    assert parts[:first] == [0] * first
    assert parts[first + count :] == [0] * (len(STARTS) - first - count)
    assert max(parts[first : first + count]) - min(parts[first : first + count]) <= 1


def test_an_annual_plan_of_470_is_spent_in_twelfths_by_largest_remainder() -> None:
    line = SpentLine(LineKind.SUBSCRIPTION, STARTS[0], 47_000, 12)
    assert [part_in(line, STARTS, start) for start in STARTS[:12]] == [3_917] * 8 + [3_916] * 4


lines = st.lists(
    st.tuples(
        st.builds(
            SpentLine, st.sampled_from(LineKind), st.just(STARTS[0]), amounts, st.just(1), st.none() | st.just("mails")
        ),
        amounts,
    ),
    max_size=6,
)
costs = st.dictionaries(st.tuples(st.sampled_from(["mails", "calls"]), st.sampled_from(["", "north"])), amounts)


@given(lines, costs)
def test_scopes_count_what_is_theirs(lines: list[tuple[SpentLine, int]], costs: dict[tuple[str, str], int]) -> None:
    everything = sum(part for _, part in lines) + sum(costs.values())
    assert spent_under(BudgetScope.ACCOUNT, "", lines, costs) == everything
    mails = sum(part for line, part in lines if line.metric_key) + sum(
        cost for (metric, _), cost in costs.items() if metric == "mails"
    )
    assert spent_under(BudgetScope.METRIC, "mails", lines, costs) == mails
    by_workspace = [spent_under(BudgetScope.WORKSPACE, name, lines, costs) for name in ("", "north")]
    assert sum(by_workspace) == sum(costs.values())
