"""Months lived by the engine, priced anew: what they cost is what was invoiced, and what is advised can be ordered."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from ..conftest import Client, World
from .life import Life

ADVICE = """id kind title params confidence workspace saving { amountMinor } savingPerYear { amountMinor }
metric { key } change { plan { key } interval addOns { addOn { key } quantity } }
evidence { basedOnMonths saving { amountMinor } worst { start saving { amountMinor } }
  months { start end current { amountMinor } suggested { amountMinor } saving { amountMinor } } }"""
ORDERED = """quote { lines { amount { amountMinor } } } invoice { subtotal { amountMinor } } transaction { status }
subscription { plan { key } interval addOns { addOn { key } quantity nextQuantity } }
scheduledChange { plan { key } interval effectiveAt } account { recommendations { totalCount } }"""


def at(month: int, day: int = 1) -> datetime:
    return datetime(2025 + (month - 1) // 12, (month - 1) % 12 + 1, day, tzinfo=UTC)


async def advice(life: Life) -> dict[str, Any]:
    """What stands, by kind, in its order."""
    found = await life.ask(f"recommendations {{ totalCount nodes {{ {ADVICE} }} }}")
    rows = found["recommendations"]["nodes"]
    assert len(rows) == found["recommendations"]["totalCount"]
    assert [row["saving"] for row in rows] == sorted((row["saving"] for row in rows), reverse=True)
    return {row["kind"]: row for row in rows}


async def order(life: Life, row: dict[str, Any], key: str) -> dict[str, Any]:
    payload = await life.try_to("applyRecommendation", ORDERED, recommendationId=row["id"], idempotencyKey=key)
    assert payload["userErrors"] == [], payload["userErrors"]
    return payload


async def invoiced(life: Life) -> Counter[str]:
    """What was invoiced for each usage period, net, by where the period begins."""
    found: Counter[str] = Counter()
    for invoice in await life.invoices():
        for line in invoice["lines"]:
            found[line["period"]["start"]] += line["amount"]
    return found


def current(row: dict[str, Any]) -> dict[str, int]:
    return {month["start"]: month["current"] for month in row["evidence"]["months"]}


async def send(life: Life, quantity: int, workspace: str, when: datetime) -> None:
    event = {
        "eventId": f"{workspace}-{when.isoformat()}",
        "accountId": life.account_id,
        "metric": "email_sends",
        "quantity": quantity,
        "properties": {"workspace": workspace},
    }
    sent = await life.try_to("recordUsage", "accepted", events=[event])
    assert sent["accepted"] == 1


async def test_five_months_by_the_month(client: Client, world: World) -> None:
    life = await Life.begin(client, world, at(1), timezone="America/New_York")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.do("setAddOn", addOnKey="additional_user", quantity=3)
    assert await advice(life) == {}
    await life.use("team_members", level=3)
    for month in range(1, 6):
        await life.advance(at(month, 20))
        await life.use(quantity=60_000 + 7_000 * month)
        # Four for a while in March, across the end of an hour.
        await life.use("team_members", level=4 if month == 3 else 3)
    await life.advance(at(6, 2))

    found = await advice(life)
    assert list(found) == ["SMALLER_PLAN", "UNUSED_ADD_ON", "SWITCH_TO_ANNUAL"]
    real = await invoiced(life)
    for row in found.values():
        assert current(row) == {start: real[start] for start in current(row)}
        assert row["evidence"]["basedOnMonths"] == len(current(row)) == 5
        assert sum(month["saving"] for month in row["evidence"]["months"]) == row["evidence"]["saving"]
    unused, annual = found["UNUSED_ADD_ON"], found["SWITCH_TO_ANNUAL"]
    assert (unused["saving"], unused["savingPerYear"], unused["confidence"]) == (4_500, 54_000, 0.41)
    assert unused["metric"] == {"key": "team_members"}
    assert unused["change"] == {
        "plan": None,
        "interval": None,
        "addOns": [{"addOn": {"key": "additional_user"}, "quantity": 0}],
    }
    assert unused["title"] == "Additional user: 0 would do instead of 3"
    # Starter with two users more, for the four of March; 47,000 in twelfths, of which January has the larger ones.
    assert found["SMALLER_PLAN"]["change"] == {
        "plan": {"key": "starter"},
        "interval": "YEAR",
        "addOns": [{"addOn": {"key": "additional_user"}, "quantity": 2}],
    }

    # Put away: it comes back with other terms, and only then.
    for _ in range(2):
        await life.do("dismissRecommendation", recommendationId=annual["id"])
    assert list(await advice(life)) == ["SMALLER_PLAN", "UNUSED_ADD_ON"]
    told = await life.ask("recommendations { nodes { id } }")
    assert annual["id"] not in {row["id"] for row in told["recommendations"]["nodes"]}

    # Lowered at the usage period's end; what was paid for is not given back, and what is left is priced anew.
    done = await order(life, unused, "unused")
    assert done["subscription"]["addOns"] == [{"addOn": {"key": "additional_user"}, "quantity": 3, "nextQuantity": 0}]
    assert (done["quote"]["lines"], done["invoice"], done["transaction"]) == ([], None, None)
    again = await order(life, unused, "unused")
    assert again["quote"] == done["quote"]
    assert await life.refused("applyRecommendation", recommendationId=unused["id"], idempotencyKey="other") == [
        "NOT_FOUND"
    ]
    assert list(await advice(life)) == ["SMALLER_PLAN", "SWITCH_TO_ANNUAL"]

    # Downwards at the period's end, with the users that it needs ordered before; then nothing more is advised.
    smaller = (await advice(life))["SMALLER_PLAN"]
    assert smaller["change"]["addOns"] == [{"addOn": {"key": "additional_user"}, "quantity": 2}]
    done = await order(life, smaller, "smaller")
    assert done["scheduledChange"] == {
        "plan": {"key": "starter"},
        "interval": "YEAR",
        "effectiveAt": "2025-06-30T23:00:00Z",
    }
    assert done["account"]["recommendations"]["totalCount"] == 0
    await life.advance(at(7, 2))
    assert (await life.subscription())["plan"]["key"] == "starter"
    assert await life.figure("team_members") == (3, 4)
    await life.audit(world)


async def test_a_year_by_the_year(client: Client, world: World) -> None:
    life = await Life.begin(client, world, at(1))
    await life.do("startSubscription", planKey="starter", interval="YEAR")
    await life.do("setAddOn", addOnKey="extra_workspace", quantity=7)
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    await life.use("workspaces", level=9)
    await life.use("team_members", level=3)
    for month in range(1, 13):
        await life.advance(at(month, 20))
        await send(life, 9_000, "red", at(month, 20))
        await send(life, 2_000 if month < 10 else 15_000, "blue", at(month, 20))
    await life.advance(at(13, 2))

    found = await advice(life)
    assert list(found) == ["LARGER_PLAN", "UNUSED_ADD_ON", "SEND_LESS"]
    real = await invoiced(life)
    larger, less = found["LARGER_PLAN"], found["SEND_LESS"]
    year = real["2025-01-01T00:00:00Z"]
    assert current(larger)["2025-01-01T00:00:00Z"] == year - 47_000 + 3_917
    first, *rest = current(larger)
    assert sum(current(larger).values()) == year + sum(real[start] for start in rest)
    assert (first, larger["evidence"]["basedOnMonths"], larger["confidence"]) == ("2025-01-01T00:00:00Z", 12, 1)
    assert larger["change"] == {
        "plan": {"key": "professional"},
        "interval": "YEAR",
        "addOns": [
            {"addOn": {"key": "additional_user"}, "quantity": 0},
            {"addOn": {"key": "extra_workspace"}, "quantity": 0},
        ],
    }
    # 24,000 are two blocks above 10,000, and 11,000 were one.
    assert (less["workspace"], less["saving"], less["change"]) == ("blue", 1_000, None)
    assert (less["params"]["before"], less["params"]["since"]) == (2_000, 15_000)
    assert [month["saving"] for month in less["evidence"]["months"]] == [1_000] * 3
    assert await life.refused("applyRecommendation", recommendationId=less["id"], idempotencyKey="less") == ["CONFLICT"]

    # Upwards at once and when it is paid, just as quoted; what the plan includes is lowered after it.
    done = await order(life, larger, "larger")
    assert (done["subscription"]["plan"], done["subscription"]["interval"]) == ({"key": "professional"}, "YEAR")
    assert done["transaction"] == {"status": "SUCCEEDED"}
    assert done["invoice"]["subtotal"] == sum(line["amount"] for line in done["quote"]["lines"])
    assert {item["addOn"]["key"]: item["nextQuantity"] for item in done["subscription"]["addOns"]} == {
        "additional_user": 0,
        "extra_workspace": 0,
    }
    assert "LARGER_PLAN" not in await advice(life)
    await life.audit(world)


async def test_what_a_smaller_plan_needs_is_paid_before_it(client: Client, world: World) -> None:
    """The bank asks about the user that Starter needs more of: only when that is paid does the plan follow."""
    life = await Life.begin(client, world, at(1), card="pm_card_visa")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.use("team_members", level=3)
    await life.advance(at(2, 15))
    await life.do("addPaymentMethod", token="pm_card_authenticationRequired", makeDefault=True)
    smaller = (await advice(life))["SMALLER_PLAN"]
    assert smaller["change"]["addOns"] == [{"addOn": {"key": "additional_user"}, "quantity": 1}]

    asked = "pendingChange { act } transaction { id status } scheduledChange { interval }"
    given = {"recommendationId": smaller["id"], "idempotencyKey": "smaller"}
    first = await life.try_to("applyRecommendation", asked, **given)
    assert first["userErrors"] == []
    assert (first["pendingChange"], first["scheduledChange"]) == ({"act": "SET_ADD_ON"}, None)
    assert first["transaction"]["status"] == "REQUIRES_ACTION"
    again = await life.try_to("applyRecommendation", asked, **given)
    assert again["transaction"] == first["transaction"]
    await life.do("confirmPayment", "transaction { status }", transactionId=first["transaction"]["id"])
    done = await life.try_to("applyRecommendation", ORDERED, **given)
    assert done["userErrors"] == []
    assert done["scheduledChange"]["plan"] == {"key": "starter"}
    assert [item["quantity"] for item in done["subscription"]["addOns"]] == [1]
    await life.audit(world)
