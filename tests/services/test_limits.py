"""What add-ons give: never more than a figure can reach."""

from datetime import UTC, datetime

from plafond.models import AddOn
from plafond.services.limits import add_units
from plafond.services.usage import MAX_FIGURE


def test_units_raise_a_limit_as_far_as_figures_go() -> None:
    add_on = AddOn(
        created_at=datetime(2026, 1, 1, tzinfo=UTC), key="space", name="Space", metric_key="bytes", gives=10**12
    )
    limits: dict[str, int | None] = {"bytes": 5, "seats": 1, "domains": None}
    assert add_units(limits, [(add_on, 3)]) == {"bytes": 3 * 10**12 + 5, "seats": 1, "domains": None}
    assert add_units(limits, [(add_on, 10_000)])["bytes"] == MAX_FIGURE
