"""Add-ons bought, raised, lowered and kept, and taken into an annual plan."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

JULY = ("2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z")
AUGUST = ("2026-08-01T00:00:00Z", "2026-09-01T00:00:00Z")
NOON = "2026-08-16T12:00:00Z"


async def test_add_ons_over_a_summer(client: Client, world: World) -> None:
    """§1's rules of add-ons: blocks whole, units prorated, what was paid for is not paid twice, lowering waits."""
    life = await Life.begin(client, world, datetime(2026, 6, 1, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 6, 11, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="extra_emails", quantity=1)
    assert await life.figure() == (0, 20_000)
    await life.do("setAddOn", addOnKey="additional_user", quantity=3)
    assert await life.figure("team_members") == (0, 5)
    await life.use("team_members", level=4)

    # 3 → 1 does not fit four members; with three it waits. 2 is paid for already; of 4 one is charged.
    await life.advance(datetime(2026, 6, 13, tzinfo=UTC))
    refusal = await life.try_to("setAddOn", addOnKey="additional_user", quantity=1)
    assert [error["code"] for error in refusal["userErrors"]] == ["LIMITS_EXCEEDED"]
    await life.use("team_members", level=3)
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    assert await _users(life) == (3, 1)
    assert await life.figure("team_members") == (3, 5)
    await life.advance(datetime(2026, 6, 16, tzinfo=UTC))
    set_ = await life.do("setAddOn", "invoice { id }", addOnKey="additional_user", quantity=2)
    assert set_["invoice"] is None
    assert await _users(life) == (3, 2)
    await life.do("setAddOn", addOnKey="additional_user", quantity=4)
    assert await _users(life) == (4, None)
    assert await life.figure("team_members") == (3, 6)

    _, emails, three, fourth = await life.invoices()
    # On the 11th 20 of 30 days are left: the block is whole, three users are 4,500 × 20 ÷ 30.
    (line,) = lines_of(emails)
    assert (line[:3], line[4]) == (("ADD_ON", 1, 1_000), JULY[0])
    assert taxes_of(emails) == [("S", 20.0, 1_000, 200)]
    assert lines_of(three) == [("PRORATION", 1, 3_000, "2026-06-11T00:00:00Z", JULY[0])]
    assert taxes_of(three) == [("S", 20.0, 3_000, 600)]
    assert lines_of(fourth) == [("PRORATION", 1, 750, "2026-06-16T00:00:00Z", JULY[0])]
    assert taxes_of(fourth) == [("S", 20.0, 750, 150)]
    assert all(item["kind"] == "ADD_ON" and item["status"] == "PAID" for item in (emails, three, fourth))

    # July: 15,001 above 20,000 are two blocks. Fewer users and no block are wanted from August on; the gauge grows.
    await life.advance(datetime(2026, 7, 10, tzinfo=UTC))
    assert (await life.use(quantity=35_001))["status"] == "ACCEPTED"
    await life.do("setAddOn", addOnKey="extra_emails", quantity=0)
    assert await life.figure() == (35_001, 20_000)
    await life.do("setAddOn", addOnKey="additional_user", quantity=2)
    await life.advance(datetime(2026, 7, 20, tzinfo=UTC))
    await life.use("team_members", level=5)
    await life.advance(datetime(2026, 8, 1, tzinfo=UTC))
    assert "ADD_ON_KEPT" in await life.notices()
    assert await _users(life) == (4, None)
    assert await life.figure("team_members") == (5, 6)
    assert await life.figure() == (0, 10_000)
    await life.advance(datetime(2026, 8, 1, 2, tzinfo=UTC))
    july, august = (await life.invoices())[4:]
    assert lines_of(july) == [
        ("ADD_ON", 1, 1_000, *JULY),
        ("ADD_ON", 4, 6_000, *JULY),
        ("SUBSCRIPTION", 1, 4_900, *JULY),
    ]
    assert taxes_of(july) == [("S", 20.0, 11_900, 2_380)]
    assert lines_of(august) == [
        ("ADD_ON", 4, 6_000, *AUGUST),
        ("OVERAGE", 2, 2_000, *JULY),
        ("SUBSCRIPTION", 1, 4_900, *AUGUST),
    ]
    assert taxes_of(august) == [("S", 20.0, 12_900, 2_580)]

    # A block again, whole; one user fewer from the next usage period on.
    await life.advance(datetime(2026, 8, 5, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="extra_emails", quantity=1)
    assert (await life.use(quantity=25_000))["status"] == "ACCEPTED"
    await life.do("setAddOn", addOnKey="additional_user", quantity=3)
    assert await _users(life) == (4, 3)

    # At noon of the 16th half of August is left. The year begins, and with it a usage period: the lowering takes
    # effect, all four users that were paid for are credited, the block is not, and what stays is charged whole.
    await life.advance(datetime(2026, 8, 16, 12, tzinfo=UTC))
    await life.do("changePlan", planKey="starter", interval="YEAR")
    year = (await life.invoices())[7]
    half = (NOON, "2026-09-01T00:00:00Z")
    month = (NOON, "2026-09-16T12:00:00Z")
    assert lines_of(year) == [
        ("ADD_ON", 1, 1_000, *month),
        ("ADD_ON", 3, 4_500, *month),
        ("CREDIT", -1, -3_000, *half),
        ("CREDIT", -1, -2_450, *half),
        ("OVERAGE", 1, 1_000, "2026-08-01T00:00:00Z", NOON),
        ("SUBSCRIPTION", 1, 47_000, NOON, "2027-08-16T12:00:00Z"),
    ]
    credited = {line["amount"]: line["creditedLine"]["id"] for line in year["lines"] if line["creditedLine"]}
    charged = {line["amount"]: line["id"] for line in august["lines"]}
    assert credited == {-3_000: charged[6_000], -2_450: charged[4_900]}
    assert taxes_of(year) == [("S", 20.0, 48_050, 9_610)]
    assert (year["kind"], year["status"], year["total"]) == ("CHANGE", "PAID", 57_660)
    assert await _users(life) == (3, None)
    assert await life.figure() == (0, 20_000)
    assert await life.figure("team_members") == (5, 5)
    # Of August 24.50 and 30.00 are earned, the whole block, and the overage.
    net = [4_900, 1_000, 3_000, 750, 11_900, 12_900, 1_000, 48_050]
    tax = [980, 200, 600, 150, 2_380, 2_580, 200, 9_610]
    assert [item["subtotal"] for item in await life.invoices()] == net
    assert [item["tax"] for item in await life.invoices()] == tax
    waiting = 47_000 + 4_500 + 1_000
    assert await life.books() == {
        "CASH": sum(net) + sum(tax),
        "DEFERRED": -waiting,
        "REVENUE": -(sum(net) - waiting),
        "TAX": -sum(tax),
    }

    # The first month of the year is earned by its 31 of 365 days: 47,000 × 31 ÷ 365 = 3,991.8.
    await life.advance(datetime(2026, 9, 16, 14, tzinfo=UTC))
    september = (await life.invoices())[8]
    following = ("2026-09-16T12:00:00Z", "2026-10-16T12:00:00Z")
    assert lines_of(september) == [("ADD_ON", 1, 1_000, *following), ("ADD_ON", 3, 4_500, *following)]
    assert taxes_of(september) == [("S", 20.0, 5_500, 1_100)]
    waiting = 47_000 - 3_992 + 5_500
    assert await life.books() == {
        "CASH": sum(net) + sum(tax) + 6_600,
        "DEFERRED": -waiting,
        "REVENUE": -(sum(net) + 5_500 - waiting),
        "TAX": -(sum(tax) + 1_100),
    }
    assert await life.credit_notes() == []
    await life.audit(world)


async def _users(life: Life) -> tuple[int, int | None]:
    """How many additional users there are, and how many there will be where that differs."""
    add_ons = (await life.subscription())["addOns"]
    (users,) = (item for item in add_ons if item["addOn"]["key"] == "additional_user")
    return users["quantity"], users["nextQuantity"]
