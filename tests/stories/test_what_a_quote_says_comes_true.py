"""A quote's next invoice is what comes after `dueNow`: the balance and what was carried are used once."""

from datetime import UTC, datetime
from typing import Any

from ..conftest import Client, World
from .life import Life, flat

PREVIEW = """at total { amountMinor } carriedIn { amountMinor } balanceApplied { amountMinor } amountDue { amountMinor }
lines { kind amount { amountMinor } }"""
QUOTE = f"quote {{ id dueNow {{ amountMinor }} creditApplied {{ amountMinor }} nextInvoice {{ {PREVIEW} }} }}"
SUPPOSED = f"""query ($id: ID!, $plan: String!, $interval: Interval!) {{ billingAccount(id: $id) {{
upcomingInvoice(change: {{ planKey: $plan, interval: $interval }}) {{ {PREVIEW} }} }} }}"""


async def suppose(life: Life, plan: str, interval: str) -> dict[str, Any]:
    """The next invoice as if the plan was changed now."""
    found: Any = flat(await life.client.data(life.token, SUPPOSED, id=life.account_id, plan=plan, interval=interval))
    return dict(found["billingAccount"]["upcomingInvoice"])


async def check_next(life: Life, foretold: dict[str, Any], at: datetime) -> None:
    """The invoice that comes by an instant is the one that was foretold."""
    await life.advance(at)
    invoice = (await life.invoices())[-1]
    for part in ("total", "carriedIn", "balanceApplied"):
        assert invoice[part] == foretold[part], part
    assert invoice["amountPaid"] + invoice["carriedOut"] == foretold["amountDue"]


async def test_a_balance_is_used_once(client: Client, world: World) -> None:
    """Of 20.00 in hand an upgrade of 50.00 uses all: the next month is to be paid whole."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("grantCredit", amountMinor=2_000, currency="USD", reason="For your patience")
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    quote = (await life.do("quotePlanChange", QUOTE, planKey="professional", interval="MONTH"))["quote"]
    assert (quote["dueNow"], quote["creditApplied"]) == (3_000, 2_000)
    coming = quote["nextInvoice"]
    assert (coming["total"], coming["balanceApplied"], coming["amountDue"]) == (14_900, 0, 14_900)
    assert await suppose(life, "professional", "MONTH") == coming
    await life.do("changePlan", quoteId=quote["id"])
    await check_next(life, coming, datetime(2026, 5, 1, 2, tzinfo=UTC))
    await life.audit(world)


async def test_what_an_add_on_leaves_of_a_balance(client: Client, world: World) -> None:
    """A block raises the limit that the overage of this month is rated by, and is paid from the balance first."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("grantCredit", amountMinor=1_500, currency="USD", reason="For your patience")
    await life.use(quantity=15_000)
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    quote = (await life.do("quoteAddOn", QUOTE, addOnKey="extra_emails", quantity=1))["quote"]
    assert (quote["dueNow"], quote["creditApplied"]) == (0, 1_000)
    coming = quote["nextInvoice"]
    assert (coming["total"], coming["balanceApplied"], coming["amountDue"]) == (5_900, 500, 5_400)
    await life.do("setAddOn", addOnKey="extra_emails", quantity=1, quoteId=quote["id"])
    await check_next(life, coming, datetime(2026, 5, 1, 2, tzinfo=UTC))


async def test_what_was_carried_is_demanded_once(client: Client, world: World) -> None:
    """Seven cents come onto the invoice of the change, and on no other."""
    life = await Life.begin(client, world, datetime(2026, 1, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
    small = (await life.do("quoteAddOn", QUOTE, addOnKey="priority_support", quantity=1))["quote"]
    # It is carried to the next invoice, as it is too small to charge.
    assert (small["dueNow"], small["nextInvoice"]["carriedIn"]) == (7, 7)
    await life.do("setAddOn", addOnKey="priority_support", quantity=1)
    quote = (await life.do("quotePlanChange", QUOTE, planKey="starter", interval="YEAR"))["quote"]
    supposed = await suppose(life, "starter", "YEAR")
    changed = await life.do(
        "changePlan", "invoice { amountPaid { amountMinor } carriedIn { amountMinor } }", quoteId=quote["id"]
    )
    assert changed["invoice"] == {"amountPaid": quote["dueNow"], "carriedIn": 7}
    assert supposed == quote["nextInvoice"]
    assert supposed["carriedIn"] == 0
    await check_next(life, supposed, datetime(2026, 3, 1, 2, tzinfo=UTC))


async def test_a_quote_while_a_draft_waits(client: Client, world: World) -> None:
    """The draft is paid first, and what it charges in advance is given back as far as it is not used."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("grantCredit", amountMinor=6_000, currency="USD", reason="For your patience")
    await life.advance(datetime(2026, 5, 1, 0, 30, tzinfo=UTC))
    quote = (await life.do("quotePlanChange", QUOTE, planKey="professional", interval="MONTH"))["quote"]
    supposed = await suppose(life, "professional", "MONTH")
    changed = await life.do(
        "changePlan",
        "invoice { amountPaid { amountMinor } balanceApplied { amountMinor } lines { kind amount { amountMinor } } }",
        quoteId=quote["id"],
    )
    draft = (await life.invoices())[-2]
    assert (draft["kind"], draft["balanceApplied"], draft["amountPaid"]) == ("PERIOD", 4_900, 0)
    # 30 minutes of a month of 744 hours are used: −48.97 + 148.90.
    assert changed["invoice"] == {
        "amountPaid": quote["dueNow"],
        "balanceApplied": quote["creditApplied"],
        "lines": [{"kind": "CREDIT", "amount": -4_897}, {"kind": "PRORATION", "amount": 14_890}],
    }
    assert (quote["dueNow"], quote["creditApplied"]) == (9_993 - 1_100, 1_100)
    assert supposed == quote["nextInvoice"]
    await check_next(life, supposed, datetime(2026, 6, 1, 2, tzinfo=UTC))
    await life.audit(world)


async def test_another_plan_takes_a_cancellation_back(client: Client, world: World) -> None:
    """A change replaces a cancellation that waits, and the quote knows it."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("cancelSubscription")
    quote = (await life.do("quotePlanChange", QUOTE, planKey="professional", interval="MONTH"))["quote"]
    assert quote["nextInvoice"]["total"] == 14_900
    await life.do("changePlan", quoteId=quote["id"])
    assert (await life.subscription())["cancelAtPeriodEnd"] is False
    await check_next(life, quote["nextInvoice"], datetime(2026, 5, 1, 2, tzinfo=UTC))


async def test_a_quote_that_binds_no_more_says_why(client: Client, world: World) -> None:
    """Used, it was made already; overtaken, it is told what would be charged now; the wrong one, whose it is."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))

    async def message(mutation: str, **given: Any) -> str:
        (error,) = (await life.try_to(mutation, **given))["userErrors"]
        assert error["field"] == ["input", "quoteId"]
        return f"{error['code']} {error['message']}"

    upgrade = (await life.do("quotePlanChange", QUOTE, planKey="professional", interval="MONTH"))["quote"]["id"]
    larger = (await life.do("quotePlanChange", QUOTE, planKey="business", interval="MONTH"))["quote"]["id"]
    seats = (await life.do("quoteAddOn", QUOTE, addOnKey="additional_user", quantity=2))["quote"]["id"]
    assert await message("changePlan", quoteId=seats) == "INVALID The quote is not for this: confirm it by `setAddOn`."
    assert await message("setAddOn", quoteId=upgrade, addOnKey="additional_user", quantity=2) == (
        "INVALID The quote is not for this: confirm it by `changePlan`."
    )
    await life.do("changePlan", quoteId=upgrade)
    assert await message("changePlan", quoteId=upgrade) == (
        "QUOTE_STALE What the quote was for is already made: read the subscription again."
    )
    assert await message("changePlan", quoteId=larger) == (
        "QUOTE_STALE The subscription changed since the quote was made: ask for a new one. "
        "It would now be, before tax: Professional, unused time: -$74.50; Business, rest of the period: $199.50."
    )
    await life.do("setAddOn", addOnKey="additional_user", quantity=2)
    assert await message("setAddOn", quoteId=seats, addOnKey="additional_user", quantity=2) == (
        "QUOTE_STALE What the quote was for is already made: read the subscription again."
    )
