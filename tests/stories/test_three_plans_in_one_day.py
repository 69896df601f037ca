"""Starter, Professional and Business in one day, with seats and a workspace between."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

BUSINESS = [
    {"metricKey": "email_sends", "limit": 150_000},
    {"metricKey": "team_members", "limit": 10},
    {"metricKey": "workspaces", "unlimited": True},
    {"metricKey": "custom_domains", "unlimited": True},
]


async def test_three_plans_in_one_day(client: Client, world: World) -> None:
    """Hard case 9: no credit passes what was invoiced less what was credited. Hard case 8: each line is rounded.

    April has 120 quarters of a day. At 06:00 on the 16th 59 of them are left.
    """
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="DE")
    await life.do("startSubscription", planKey="starter", interval="MONTH")

    await life.advance(datetime(2026, 4, 16, 6, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 4, 16, 12, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="additional_user", quantity=2)
    await life.do("setAddOn", addOnKey="extra_workspace", quantity=1)
    assert await life.figure("workspaces") == (0, 11)
    await life.advance(datetime(2026, 4, 16, 18, tzinfo=UTC))
    quoted = await life.do("quotePlanChange", "quote { removedAddOns { key } }", planKey="business", interval="MONTH")
    assert quoted["quote"]["removedAddOns"] == [{"key": "extra_workspace"}]
    await life.do("changePlan", planKey="business", interval="MONTH")
    await life.advance(datetime(2026, 4, 16, 21, tzinfo=UTC))
    await life.do("setAddOn", addOnKey="additional_user", quantity=3)

    end = "2026-05-01T00:00:00Z"
    start, professional, users, workspace, business, user = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", end)]
    assert taxes_of(start) == [("S", 19.0, 4_900, 931)]
    # 4,900 × 59 ÷ 120 = 2,409.2 and 14,900 × 59 ÷ 120 = 7,325.8; 19 % of 4,917 is 934.2.
    six = ("2026-04-16T06:00:00Z", end)
    assert lines_of(professional) == [("CREDIT", -1, -2_409, *six), ("PRORATION", 1, 7_326, *six)]
    assert taxes_of(professional) == [("S", 19.0, 4_917, 934)]
    # Two users: 3,000 × 58 ÷ 120. A workspace: 2,000 × 58 ÷ 120 = 966.7. Two add-ons are two charges.
    noon = ("2026-04-16T12:00:00Z", end)
    assert lines_of(users) == [("PRORATION", 1, 1_450, *noon)]
    assert taxes_of(users) == [("S", 19.0, 1_450, 276)]
    assert lines_of(workspace) == [("PRORATION", 1, 967, *noon)]
    assert taxes_of(workspace) == [("S", 19.0, 967, 184)]
    # With 57 quarters left: 14,900 → 7,077.5, up; 2,000 → 950, as business does not offer it; 39,900 → 18,952.5, up.
    evening = ("2026-04-16T18:00:00Z", end)
    assert lines_of(business) == [
        ("CREDIT", -1, -7_078, *evening),
        ("CREDIT", -1, -950, *evening),
        ("PRORATION", 1, 18_953, *evening),
    ]
    credited = {line["amount"]: line["creditedLine"]["id"] for line in business["lines"] if line["creditedLine"]}
    charged = {line["amount"]: line["id"] for line in (*professional["lines"], *workspace["lines"])}
    assert credited == {-7_078: charged[7_326], -950: charged[967]}
    # 19 % of 10,925 is 2,075.75.
    assert taxes_of(business) == [("S", 19.0, 10_925, 2_076)]
    # A third user with 113 of 240 eighths left: 1,500 × 113 ÷ 240 = 706.25.
    night = ("2026-04-16T21:00:00Z", end)
    assert lines_of(user) == [("PRORATION", 1, 706, *night)]
    assert taxes_of(user) == [("S", 19.0, 706, 134)]
    # 2 users of business' 15, the workspace gone into the unlimited.
    assert await life.figure("team_members") == (0, 18)
    assert await life.figure("workspaces") == (0, None)
    cash = 5_831 + 5_851 + 1_726 + 1_151 + 13_001 + 840
    assert [invoice["total"] for invoice in await life.invoices()] == [5_831, 5_851, 1_726, 1_151, 13_001, 840]
    # What ended earned its net less its credits; users and business are still to be earned.
    tax = 931 + 934 + 276 + 184 + 2_076 + 134
    standing = await life.books()
    assert standing["CASH"] == cash
    assert standing["TAX"] == -tax

    # A new version of business changes nothing that runs, at the renewal either.
    await life.do(
        "publishPlan",
        "plan { version }",
        key="business",
        name="Business",
        tier=3,
        limits=BUSINESS,
        prices=[{"interval": "MONTH", "currency": "USD", "amountMinor": 49_900}],
    )
    assert await life.figure() == (0, 200_000)
    assert len(await life.invoices()) == 6
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))
    may = (await life.invoices())[6]
    month = (end, "2026-06-01T00:00:00Z")
    assert lines_of(may) == [("ADD_ON", 3, 4_500, *month), ("SUBSCRIPTION", 1, 39_900, *month)]
    assert taxes_of(may) == [("S", 19.0, 44_400, 8_436)]
    assert await life.credit_notes() == []
    # April: the sum of all its lines. May: nothing yet.
    april = 4_900 - 2_409 + 7_326 + 1_450 + 967 - 7_078 - 950 + 18_953 + 706
    assert await life.books() == {
        "CASH": cash + 44_400 + 8_436,
        "DEFERRED": -44_400,
        "REVENUE": -april,
        "TAX": -(tax + 8_436),
    }
    assert april + tax == cash
    await life.audit(world)
