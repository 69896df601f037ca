"""Orders whose payment is declined, waits for the cardholder, or never comes."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

PENDING = """
act pinnedAt expiresAt amountDue { amountMinor } transactionId paymentAction { clientSecret }
"""
ORDERED = f"invoice {{ number }} transaction {{ status }} pendingChange {{ {PENDING} }}"
TRIES = "transactions(filter: { kind: [CHARGE] }) { nodes { status failure { code } amount { amountMinor } } }"


async def tries(life: Life) -> list[tuple[str, str | None, int]]:
    """All charges, oldest first, as status, failure and amount."""
    nodes = (await life.ask(TRIES))["transactions"]["nodes"]
    return [(node["status"], node["failure"] and node["failure"]["code"], node["amount"]) for node in reversed(nodes)]


async def test_a_change_that_the_bank_declines_and_one_that_it_asks_about(client: Client, world: World) -> None:
    """Hard cases 26, 30: a decline uses no number and no balance; a confirmed change counts from its pinned instant."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("grantCredit", amountMinor=1_000, currency="USD", reason="A welcome")
    await life.do("addPaymentMethod", token="pm_card_chargeDeclined")
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    before = (await life.subscription(), await life.invoices(), await life.books(), await life.figure())
    order = {"planKey": "professional", "interval": "MONTH", "idempotencyKey": "the-declined-one"}
    assert await life.refused("changePlan", **order) == ["PAYMENT_FAILED"]
    assert (await life.subscription(), await life.invoices(), await life.books(), await life.figure()) == before
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 1_000
    assert await tries(life) == [("SUCCEEDED", None, 4_900), ("FAILED", "CARD_DECLINED", 4_000)]
    # The answer is remembered under its key; a new one tries again.
    await life.do("addPaymentMethod", token="pm_card_visa")
    assert await life.refused("changePlan", **order) == ["PAYMENT_FAILED"]
    await life.do("changePlan", planKey="professional", interval="MONTH")
    assert (await life.subscription())["plan"]["key"] == "professional"

    await life.advance(datetime(2026, 4, 19, tzinfo=UTC))
    await life.use(quantity=50_001)
    await life.do("addPaymentMethod", token="pm_card_authenticationRequired")
    await life.advance(datetime(2026, 4, 20, tzinfo=UTC))
    ordered = await life.do("changePlan", ORDERED, planKey="professional", interval="YEAR")
    assert (ordered["invoice"], ordered["transaction"]["status"]) == (None, "REQUIRES_ACTION")
    pending = ordered["pendingChange"]
    transaction_id = pending.pop("transactionId")
    assert pending.pop("paymentAction")["clientSecret"]
    assert pending == {
        "act": "CHANGE_PLAN",
        "pinnedAt": "2026-04-20T00:00:00Z",
        "expiresAt": "2026-04-20T23:00:00Z",
        "amountDue": 143_000 + 1_000 - 5_463,
    }
    assert (await life.subscription())["interval"] == "MONTH"
    assert await life.refused("changePlan", planKey="business", interval="MONTH") == ["CHANGE_PENDING"]
    assert await life.refused("cancelSubscription") == ["CHANGE_PENDING"]
    await life.advance(datetime(2026, 4, 20, 6, tzinfo=UTC))
    assert (await life.use(quantity=500))["used"] == 50_501
    await life.advance(datetime(2026, 4, 20, 12, tzinfo=UTC))
    await life.do("confirmPayment", transactionId=transaction_id)
    subscription = await life.subscription()
    assert (subscription["interval"], subscription["pendingChange"]) == ("YEAR", None)
    assert (subscription["currentPeriodStart"], subscription["currentPeriodEnd"]) == (
        "2026-04-20T00:00:00Z",
        "2027-04-20T00:00:00Z",
    )
    # What came after the pinned instant moved to the new usage period.
    assert await life.figure() == (500, 50_000)
    # One from before it comes late: 60,001 − 50,000 are two blocks, and one was invoiced.
    late = await life.use(quantity=10_000, at=datetime(2026, 4, 19, 23, 59, 59, tzinfo=UTC))
    assert late["status"] == "ACCEPTED"
    assert await life.figure() == (500, 50_000)
    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.advance(datetime(2026, 5, 20, 2, tzinfo=UTC))

    start, change, year, correction = await life.invoices()
    assert [invoice["number"][-6:] for invoice in (start, change, year, correction)] == [
        "000001",
        "000002",
        "000003",
        "000004",
    ]
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert lines_of(change) == [
        ("CREDIT", -1, -2_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("PRORATION", 1, 7_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z"),
    ]
    assert (change["balanceApplied"], change["amountPaid"]) == (1_000, 4_000)
    assert lines_of(year) == [
        # 14,900 × 11 ÷ 30 = 5,463.3.
        ("CREDIT", -1, -5_463, "2026-04-20T00:00:00Z", "2026-05-01T00:00:00Z"),
        ("OVERAGE", 1, 1_000, "2026-04-01T00:00:00Z", "2026-04-20T00:00:00Z"),
        ("SUBSCRIPTION", 1, 143_000, "2026-04-20T00:00:00Z", "2027-04-20T00:00:00Z"),
    ]
    # Finalised when it was paid, never backdated.
    assert (year["issuedAt"], year["amountPaid"]) == ("2026-04-20T12:00:00Z", 138_537)
    credit = next(line for line in year["lines"] if line["kind"] == "CREDIT")
    prorated = next(line for line in change["lines"] if line["kind"] == "PRORATION")
    assert credit["creditedLine"]["id"] == prorated["id"]
    ((kind, _, amount, starts, ends),) = lines_of(correction)
    assert (kind, amount, starts, ends) == ("CORRECTION", 1_000, "2026-04-01T00:00:00Z", "2026-04-20T00:00:00Z")
    assert [taxes_of(invoice) for invoice in (start, change, year, correction)] == [
        [("O", 0.0, net, 0)] for net in (4_900, 5_000, 138_537, 1_000)
    ]
    # 30 of the year's 365 days are earned: 143,000 × 30 ÷ 365 = 11,753.4.
    assert await life.books() == {
        "CASH": 4_900 + 4_000 + 138_537 + 1_000,
        "DEFERRED": -(143_000 - 11_753),
        "GOODWILL": 1_000,
        "REVENUE": -((4_900 - 2_450) + (7_450 - 5_463) + 1_000 + 1_000 + 11_753),
    }
    await life.audit(world)


async def test_changes_that_nobody_pays(client: Client, world: World) -> None:
    """A pending change ends after 23 hours, or with the period; add-ons stand beside it."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("addPaymentMethod", token="pm_card_authenticationRequired")
    await life.advance(datetime(2026, 4, 10, tzinfo=UTC))
    ordered = await life.do("changePlan", ORDERED, planKey="professional", interval="MONTH")
    # 21 of 30 days: 10,430 − 3,430.
    assert ordered["pendingChange"]["amountDue"] == 7_000
    await life.do("addPaymentMethod", token="pm_card_visa")
    beside = await life.do("setAddOn", ORDERED, addOnKey="dedicated_ip", quantity=1)
    assert (beside["transaction"]["status"], beside["pendingChange"]) == ("SUCCEEDED", None)
    await life.advance(datetime(2026, 4, 10, 22, 59, 59, tzinfo=UTC))
    assert (await life.subscription())["pendingChange"] == {"act": "CHANGE_PLAN"}
    await life.advance(datetime(2026, 4, 10, 23, tzinfo=UTC))
    subscription = await life.subscription()
    assert (subscription["pendingChange"], subscription["plan"]["key"]) == (None, "starter")
    # The intent is cancelled: confirming it now makes nothing true.
    await life.try_to("confirmPayment", transactionId=ordered["pendingChange"]["transactionId"])
    assert (await life.subscription())["plan"]["key"] == "starter"
    assert await tries(life) == [("SUCCEEDED", None, 4_900), ("CANCELED", None, 7_000), ("SUCCEEDED", None, 3_500)]

    await life.do("addPaymentMethod", token="pm_card_authenticationRequired")
    await life.advance(datetime(2026, 4, 30, 12, tzinfo=UTC))
    ordered = await life.do("changePlan", ORDERED, planKey="professional", interval="MONTH")
    # 12 hours of 30 days are a sixtieth: 248 − 82.
    assert ordered["pendingChange"]["amountDue"] == 166
    assert ordered["pendingChange"]["expiresAt"] == "2026-05-01T00:00:00Z"
    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.advance(datetime(2026, 5, 1, tzinfo=UTC))
    subscription = await life.subscription()
    assert (subscription["pendingChange"], subscription["plan"]["key"]) == (None, "starter")
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))

    start, added, close = await life.invoices()
    assert [invoice["number"][-6:] for invoice in (start, added, close)] == ["000001", "000002", "000003"]
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert lines_of(added) == [("PRORATION", 1, 3_500, "2026-04-10T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert lines_of(close) == [
        ("ADD_ON", 1, 5_000, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"),
        ("SUBSCRIPTION", 1, 4_900, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"),
    ]
    assert [taxes_of(invoice) for invoice in (start, added, close)] == [
        [("O", 0.0, net, 0)] for net in (4_900, 3_500, 9_900)
    ]
    assert await life.books() == {
        "CASH": 4_900 + 3_500 + 9_900,
        "DEFERRED": -9_900,
        "REVENUE": -(4_900 + 3_500),
    }
    await life.audit(world)


async def test_a_change_and_two_add_ons_that_wait_at_once(client: Client, world: World) -> None:
    """Hard cases 23, 28: three orders of one instant are three charges, confirmed in another order, and each once."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("addPaymentMethod", token="pm_card_authenticationRequired")
    # Half of the month is left.
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    plan = await life.do("changePlan", ORDERED, planKey="professional", interval="MONTH")
    address = await life.do("setAddOn", ORDERED, addOnKey="dedicated_ip", quantity=1)
    support = await life.do("setAddOn", ORDERED, addOnKey="priority_support", quantity=1)
    waiting = [ordered["pendingChange"] for ordered in (plan, address, support)]
    assert [(change["act"], change["amountDue"]) for change in waiting] == [
        ("CHANGE_PLAN", 5_000),
        ("SET_ADD_ON", 2_500),
        ("SET_ADD_ON", 4_950),
    ]
    assert await life.refused("changePlan", planKey="professional", interval="MONTH") == ["CHANGE_PENDING"]
    subscription = await life.subscription()
    assert (subscription["plan"]["key"], subscription["addOns"]) == ("starter", [])
    await life.advance(datetime(2026, 4, 16, 6, tzinfo=UTC))
    await life.do("confirmPayment", transactionId=waiting[2]["transactionId"])
    await life.do("confirmPayment", transactionId=waiting[0]["transactionId"])
    await life.advance(datetime(2026, 4, 16, 12, tzinfo=UTC))
    await life.do("confirmPayment", transactionId=waiting[1]["transactionId"])
    # Asked once more, each stays as it is.
    for change in waiting:
        await life.try_to("confirmPayment", transactionId=change["transactionId"])
    subscription = await life.subscription()
    assert (subscription["plan"]["key"], subscription["pendingChange"]) == ("professional", None)
    assert sorted(held["addOn"]["key"] for held in subscription["addOns"]) == ["dedicated_ip", "priority_support"]
    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))

    start, supported, changed, addressed, close = await life.invoices()
    april, half, may, june = (f"2026-{day}T00:00:00Z" for day in ("04-01", "04-16", "05-01", "06-01"))
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, april, may)]
    # All from the pinned instant, issued when they were paid.
    assert lines_of(supported) == [("PRORATION", 1, 4_950, half, may)]
    assert lines_of(changed) == [("CREDIT", -1, -2_450, half, may), ("PRORATION", 1, 7_450, half, may)]
    assert lines_of(addressed) == [("PRORATION", 1, 2_500, half, may)]
    assert [invoice["issuedAt"] for invoice in (supported, changed, addressed)] == [
        "2026-04-16T06:00:00Z",
        "2026-04-16T06:00:00Z",
        "2026-04-16T12:00:00Z",
    ]
    assert lines_of(close) == [
        ("ADD_ON", 1, 5_000, may, june),
        ("ADD_ON", 1, 9_900, may, june),
        ("SUBSCRIPTION", 1, 14_900, may, june),
    ]
    totals = [4_900, 4_950, 5_000, 2_500, 29_800]
    invoices = [start, supported, changed, addressed, close]
    assert [taxes_of(invoice) for invoice in invoices] == [[("O", 0.0, total, 0)] for total in totals]
    assert [invoice["amountPaid"] for invoice in invoices] == totals
    assert [invoice["number"][-6:] for invoice in invoices] == [f"{number:06d}" for number in range(1, 6)]
    assert await life.books() == {
        "CASH": 4_900 + 4_950 + 5_000 + 2_500 + 29_800,
        "DEFERRED": -29_800,
        "REVENUE": -(4_900 + 4_950 + 5_000 + 2_500),
    }
    await life.audit(world)


async def test_a_start_at_the_third_attempt(client: Client, world: World) -> None:
    """Hard case 26: declined, declined after the bank asked, then confirmed: it starts at the instant of the order."""
    life = await Life.begin(
        client, world, datetime(2026, 4, 1, tzinfo=UTC), card="pm_card_chargeDeclinedInsufficientFunds"
    )
    start = {"planKey": "starter", "interval": "MONTH"}
    assert await life.refused("startSubscription", **start) == ["PAYMENT_FAILED"]
    assert await life.ask("subscription { status }") == {"subscription": None}

    await life.do("addPaymentMethod", token="pm_card_authenticationRequiredChargeDeclinedInsufficientFunds")
    ordered = await life.do("startSubscription", ORDERED, **start)
    assert ordered["pendingChange"]["expiresAt"] == "2026-04-01T23:00:00Z"
    confirmed = await life.try_to("confirmPayment", transactionId=ordered["pendingChange"]["transactionId"])
    assert [error["code"] for error in confirmed["userErrors"]] == ["PAYMENT_FAILED"]
    assert "order it again, or with another card" in confirmed["userErrors"][0]["message"]
    assert await life.notices() == {}
    assert await life.ask("subscription { status }") == {"subscription": None}
    assert await life.invoices() == []
    assert await life.books() == {}

    await life.do("addPaymentMethod", token="pm_card_authenticationRequired")
    await life.advance(datetime(2026, 4, 1, 10, tzinfo=UTC))
    ordered = await life.do("startSubscription", ORDERED, **start)
    assert await life.ask("subscription { status }") == {"subscription": None}
    assert await life.refused("startSubscription", **start) == ["CHANGE_PENDING"]
    # Whoever lost the answer finds it again, before there is a subscription: what waits, until when, and by a notice.
    found = await life.ask(
        "pendingChange { act transactionId expiresAt paymentAction { clientSecret expiresAt } } "
        "notices { code params actions { kind } }"
    )
    waiting = found["pendingChange"]
    assert (waiting["act"], waiting["transactionId"]) == ("START", ordered["pendingChange"]["transactionId"])
    assert waiting["paymentAction"]["clientSecret"]
    assert waiting["expiresAt"] == waiting["paymentAction"]["expiresAt"] == "2026-04-02T09:00:00Z"
    (notice,) = found["notices"]
    assert (notice["code"], notice["actions"]) == ("PAYMENT_TO_CONFIRM", [{"kind": "CONFIRM_PAYMENT"}])
    assert notice["params"]["transactionId"] == waiting["transactionId"]
    await life.advance(datetime(2026, 4, 1, 15, tzinfo=UTC))
    confirmed = await life.do(
        "confirmPayment",
        "subscription { status } invoice { number }",
        transactionId=ordered["pendingChange"]["transactionId"],
    )
    assert confirmed["subscription"]["status"] == "ACTIVE"
    assert await life.ask("pendingChange { act } notices { code }") == {"pendingChange": None, "notices": []}
    again = await life.try_to("confirmPayment", transactionId=ordered["pendingChange"]["transactionId"])
    assert again["userErrors"][0]["message"] == "The charge went through: nothing is left to confirm."
    (invoice,) = await life.invoices()
    assert lines_of(invoice) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T10:00:00Z", "2026-05-01T10:00:00Z")]
    assert taxes_of(invoice) == [("O", 0.0, 4_900, 0)]
    assert (invoice["issuedAt"], invoice["number"][-6:]) == ("2026-04-01T15:00:00Z", "000001")
    assert await tries(life) == [
        ("FAILED", "INSUFFICIENT_FUNDS", 4_900),
        ("FAILED", "INSUFFICIENT_FUNDS", 4_900),
        ("SUCCEEDED", None, 4_900),
    ]
    assert await life.books() == {"CASH": 4_900, "DEFERRED": -4_900}
    await life.audit(world)
