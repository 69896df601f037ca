"""What scalars refuse they explain, in one sentence with an example."""

import pytest

from plafond.schema.scalars import parse_date, parse_datetime


@pytest.mark.parametrize("given", ["2026-02-30", "2026-13-01", "0000-01-01", "1 March 2026", 20260301, None])
def test_a_date_that_there_is_not(given: object) -> None:
    with pytest.raises(ValueError, match=r"^Date is a calendar day such as 2026-03-01\.$"):
        parse_date(given)


@pytest.mark.parametrize("given", ["2026-02-30T12:00:00Z", "2026-03-01T12:00:00", "2026-03-01", 0])
def test_an_instant_that_there_is_not(given: object) -> None:
    with pytest.raises(ValueError, match=r"^DateTime is an RFC 3339 instant with its offset, such as"):
        parse_datetime(given)
