"""A trial with a change of plan and add-ons, a card in time, and a year that is earned month by month."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

END = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_trial_becomes_an_annual_plan(client: Client, world: World) -> None:
    """Lines begin with the trial's end; an annual plan's counters, add-ons and overage are those of its months.

    Hard case 3: the trial, its end and the months after it meet exactly.
    """
    life = await Life.begin(client, world, datetime(2025, 12, 18, tzinfo=UTC), company="AT", card=None)
    started = await life.do("startTrial", "subscription { status trialEnd }", planKey="professional", interval="MONTH")
    assert started["subscription"] == {"status": "TRIALING", "trialEnd": "2026-01-01T00:00:00Z"}
    # All overage is blocked while trialing, and there is one trial per account.
    assert (await life.use(quantity=50_000))["status"] == "ACCEPTED"
    assert (await life.use(quantity=1))["code"] == "LIMIT_EXCEEDED"
    assert await life.refused("startTrial", planKey="starter", interval="MONTH") == ["INVALID_TRANSITION"]

    # Seven days ahead, to the second, and again one day ahead: without a method the plan would end.
    await life.advance(datetime(2025, 12, 24, 23, 59, 59, tzinfo=UTC))
    assert "TRIAL_ENDING" not in await life.notices()
    await life.advance(datetime(2025, 12, 25, tzinfo=UTC))
    reminder = (await life.notices())["TRIAL_ENDING"]
    assert (reminder["daysLeft"], reminder["hasMethod"]) == (7, False)
    await life.advance(datetime(2025, 12, 30, 23, 59, 59, tzinfo=UTC))
    assert (await life.notices())["TRIAL_ENDING"]["daysLeft"] == 7
    await life.advance(datetime(2025, 12, 31, tzinfo=UTC))
    reminder = (await life.notices())["TRIAL_ENDING"]
    assert (reminder["daysLeft"], reminder["hasMethod"]) == (1, False)

    # While trialing whatever is set is set at once, without lines.
    set_ = await life.do("setAddOn", "invoice { id } subscription { status }", addOnKey="additional_user", quantity=2)
    assert set_ == {"invoice": None, "subscription": {"status": "TRIALING"}, "userErrors": []}
    assert await life.figure("team_members") == (0, 7)
    await life.do("addPaymentMethod", token="pm_card_visa")
    changed = await life.do(
        "changePlan",
        "subscription { status interval trialEnd } invoice { id } scheduledChange { effectiveAt }",
        planKey="professional",
        interval="YEAR",
    )
    assert changed["subscription"] == {"status": "TRIALING", "interval": "YEAR", "trialEnd": "2026-01-01T00:00:00Z"}
    assert (changed["invoice"], changed["scheduledChange"]) == (None, None)
    assert await life.invoices() == []
    assert await life.books() == {}
    # 1,430.00 and 2 × 15.00, and 20 % on top.
    ahead = await life.ask("nextBilling { kind at amount { amountMinor } }")
    assert ahead["nextBilling"] == {"kind": "TRIAL_END", "at": "2026-01-01T00:00:00Z", "amount": 175_200}

    await life.advance(END)
    standing = await life.subscription()
    assert (standing["status"], standing["interval"]) == ("ACTIVE", "YEAR")
    assert standing["currentPeriodStart"] == "2026-01-01T00:00:00Z"
    assert standing["currentPeriodEnd"] == "2027-01-01T00:00:00Z"
    # 143,000 ÷ 12 = 11,916.67
    assert (standing["monthlyCost"], standing["recurringTotal"]) == (11_917, 11_917 + 3_000)
    assert "TRIAL_ENDING" not in await life.notices()
    assert await life.figure() == (0, 50_000)
    (first,) = await life.invoices()
    year = ("SUBSCRIPTION", 1, 143_000, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert lines_of(first) == [("ADD_ON", 2, 3_000, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"), year]
    assert taxes_of(first) == [("S", 20.0, 146_000, 29_200)]
    assert (first["kind"], first["status"], first["total"]) == ("START", "PAID", 175_200)
    assert first["issuedAt"] == "2026-01-01T00:00:00Z"
    assert await life.books() == {"CASH": 175_200, "DEFERRED": -146_000, "TAX": -29_200}
    renewal = (await life.ask("nextRenewal { at amount { amountMinor } }"))["nextRenewal"]
    assert renewal == {"at": "2027-01-01T00:00:00Z", "amount": 146_000}

    # January: one email above the limit starts a block. It is earned with its month: 143,000 × 31 ÷ 365 = 12,145.2.
    await life.advance(datetime(2026, 1, 20, tzinfo=UTC))
    assert (await life.use(quantity=50_001))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 2, 1, tzinfo=UTC))
    assert await life.figure() == (0, 50_000)
    assert (await life.books()) == {
        "CASH": 175_200,
        "DEFERRED": -(143_000 - 12_145),
        "REVENUE": -(12_145 + 3_000),
        "TAX": -29_200,
    }
    # February: 143,000 × 59 ÷ 365 = 23,115.1, cumulative. Nothing above the limit.
    await life.advance(datetime(2026, 2, 10, tzinfo=UTC))
    assert (await life.use(quantity=50_000))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 3, 1, 1, tzinfo=UTC))
    assert (await life.books()) == {
        "CASH": 175_200 + 4_800 + 3_600,
        "DEFERRED": -(143_000 - 23_115 + 3_000),
        "REVENUE": -(23_115 + 6_000 + 1_000),
        "TAX": -(29_200 + 800 + 600),
    }
    # March: 20,001 above the limit are three started blocks. 143,000 × 90 ÷ 365 = 35,260.3.
    await life.advance(datetime(2026, 3, 20, tzinfo=UTC))
    assert (await life.use(quantity=70_001))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 4, 1, 2, tzinfo=UTC))
    _, february, march, april = await life.invoices()
    assert lines_of(february) == [
        ("ADD_ON", 2, 3_000, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("OVERAGE", 1, 1_000, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
    ]
    assert taxes_of(february) == [("S", 20.0, 4_000, 800)]
    assert (february["kind"], february["issuedAt"]) == ("PERIOD", "2026-02-01T01:00:00Z")
    assert lines_of(march) == [("ADD_ON", 2, 3_000, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")]
    assert taxes_of(march) == [("S", 20.0, 3_000, 600)]
    assert lines_of(april) == [
        ("ADD_ON", 2, 3_000, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("OVERAGE", 3, 3_000, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
    ]
    assert taxes_of(april) == [("S", 20.0, 6_000, 1_200)]
    cash = 175_200 + 4_800 + 3_600 + 7_200
    assert await life.books() == {
        "CASH": cash,
        "DEFERRED": -(143_000 - 35_260 + 3_000),
        "REVENUE": -(35_260 + 9_000 + 1_000 + 3_000),
        "TAX": -(29_200 + 800 + 600 + 1_200),
    }

    # The renewal is told 30 and 7 days ahead, and the second year is a year again.
    await life.advance(datetime(2026, 12, 1, 23, 59, 59, tzinfo=UTC))
    assert "RENEWAL_AHEAD" not in await life.notices()
    await life.advance(datetime(2026, 12, 2, tzinfo=UTC))
    assert (await life.notices())["RENEWAL_AHEAD"]["daysLeft"] == 30
    await life.advance(datetime(2026, 12, 25, tzinfo=UTC))
    assert (await life.notices())["RENEWAL_AHEAD"]["daysLeft"] == 7
    await life.advance(datetime(2027, 1, 1, 2, tzinfo=UTC))
    invoices = await life.invoices()
    assert len(invoices) == 13
    for invoice in invoices[4:12]:
        ((kind, quantity, amount, *_),) = lines_of(invoice)
        assert (kind, quantity, amount, invoice["total"]) == ("ADD_ON", 2, 3_000, 3_600)
    assert lines_of(invoices[12]) == [
        ("ADD_ON", 2, 3_000, "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
        ("SUBSCRIPTION", 1, 143_000, "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
    ]
    assert all(invoice["status"] == "PAID" for invoice in invoices)
    numbers = [invoice["number"].rpartition("-")[2] for invoice in invoices]
    assert numbers == [f"{number:06d}" for number in range(1, 14)]
    # The whole first year is earned, with twelve months of two users and four blocks.
    earned = 143_000 + 12 * 3_000 + 4_000
    cash += 8 * 3_600 + 175_200
    assert await life.books() == {
        "CASH": cash,
        "DEFERRED": -146_000,
        "REVENUE": -earned,
        "TAX": -(cash - 146_000 - earned),
    }
    # 20 % of 143,000 + 143,000 + 13 × 3,000 + 4,000, without a remainder on any invoice.
    assert cash - 146_000 - earned == 65_800
    await life.audit(world)
