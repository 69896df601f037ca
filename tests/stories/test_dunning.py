"""Dunning, day by day on a test clock: what is tried, what is told, what is refused, and how it ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from plafond.database import Actor
from plafond.models import PlanVersion

from ..conftest import Client, World
from .life import Life, lines_of

DUNNING = """
status currency notices { code severity title message params }
subscription { status dunning { since nextAttemptAt suspendsAt cancelsAt attempts amountDue { amountMinor } } }
"""
CHARGES = """transactions(first: 50, filter: { kind: [CHARGE] }) {
  nodes { status amount { amountMinor } createdAt failure { code } invoice { number } } }"""
START = datetime(2026, 1, 10, 9, tzinfo=UTC)
DUE = datetime(2026, 2, 10, 10, tzinfo=UTC)
"""The period's end and the hour that its invoice waits: day 0."""


def day(count: float) -> datetime:
    """An instant of the schedule."""
    return DUE + timedelta(days=count)


async def standing(life: Life) -> dict[str, Any]:
    """The account with its dunning and its notices."""
    found = await life.ask(DUNNING)
    return found | {"notices": {notice["code"]: notice for notice in found["notices"]}}


async def tries(life: Life) -> list[tuple[str, str]]:
    """All charges, oldest first, as instant and status."""
    nodes = (await life.ask(CHARGES))["transactions"]["nodes"]
    return [(node["createdAt"], node["status"]) for node in reversed(nodes)]


async def overdue(client: Client, world: World, card: str = "pm_card_chargeDeclined", **given: Any) -> Life:
    """An account whose second period could not be charged: it stands at day 0."""
    life = await Life.begin(client, world, START, **given)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("addPaymentMethod", token=card)
    await life.advance(DUE)
    return life


async def test_day_by_day_to_the_end(client: Client, world: World) -> None:
    """Hard case 24: tries on day 3, 5 and 7, suspended on day 7, cancelled on day 14 with the invoice given up."""
    life = await overdue(client, world)
    found = await standing(life)
    assert found["subscription"] == {
        "status": "PAST_DUE",
        "dunning": {
            "since": "2026-02-10T10:00:00Z",
            "nextAttemptAt": "2026-02-13T10:00:00Z",
            "suspendsAt": "2026-02-17T10:00:00Z",
            "cancelsAt": "2026-02-24T10:00:00Z",
            "attempts": 1,
            "amountDue": 4_900,
        },
    }
    notice = found["notices"]["PAYMENT_FAILED"]
    assert (notice["severity"], notice["params"]["daysLeft"]) == ("CRITICAL", 7)
    assert "2026-02-17, in 7 days" in notice["message"]
    # Full service, but nothing that costs more.
    assert (await life.use(quantity=10))["status"] == "ACCEPTED"
    assert await life.refused("changePlan", planKey="professional", interval="MONTH") == ["PAYMENT_REQUIRED"]

    await life.advance(day(2))
    assert (await standing(life))["notices"]["PAYMENT_FAILED"]["params"]["daysLeft"] == 5
    # Tries by hand move nothing.
    for _ in range(3):
        assert await life.refused("retryPayment") == ["PAYMENT_FAILED"]
    found = await standing(life)
    assert found["subscription"]["dunning"]["nextAttemptAt"] == "2026-02-13T10:00:00Z"
    assert found["subscription"]["dunning"]["attempts"] == 4

    await life.advance(day(3))
    assert (await tries(life))[-1] == ("2026-02-13T10:00:00Z", "FAILED")
    await life.advance(day(6.99))
    assert (await tries(life))[-1] == ("2026-02-15T10:00:00Z", "FAILED")
    assert (await standing(life))["subscription"]["status"] == "PAST_DUE"

    await life.advance(day(7))
    found = await standing(life)
    assert (await tries(life))[-1] == ("2026-02-17T10:00:00Z", "FAILED")
    assert (found["status"], found["subscription"]["status"]) == ("READ_ONLY", "SUSPENDED")
    dunning = found["subscription"]["dunning"]
    assert (dunning["suspendsAt"], dunning["nextAttemptAt"]) == (None, "2026-02-24T10:00:00Z")
    notice = found["notices"]["PAYMENT_FAILED"]
    assert (notice["severity"], notice["params"]["daysLeft"]) == ("BLOCKING", 7)
    # What happened before the suspension still counts, what comes after it is refused.
    assert (await life.use(quantity=5, at=day(6)))["status"] == "ACCEPTED"
    assert (await life.use(quantity=5))["code"] == "ACCOUNT_SUSPENDED"
    assert await life.refused("changePlan", planKey="business", interval="MONTH") == ["ACCOUNT_SUSPENDED"]
    assert await life.refused("setAddOn", addOnKey="priority_support", quantity=1) == ["ACCOUNT_SUSPENDED"]

    await life.advance(day(14))
    found = await standing(life)
    assert found["subscription"] == {"status": "CANCELED", "dunning": None}
    assert "PAYMENT_FAILED" not in found["notices"]
    assert (await tries(life))[-1] == ("2026-02-24T10:00:00Z", "FAILED")
    *_, unpaid = await life.invoices()
    assert (unpaid["status"], unpaid["amountDue"]) == ("UNCOLLECTIBLE", 4_900)
    books = await life.books()
    assert (books.get("RECEIVABLES", 0), books["BAD_DEBT"]) == (0, 4_900)
    assert books.get("DEFERRED", 0) == 0
    notice = found["notices"]["PAYMENT_OWED"]
    assert (notice["severity"], notice["params"]["amountMinor"]) == ("BLOCKING", 4_900)
    # What was given up is neither withdrawn nor credited, and says so in one way.
    allowed = (await life.ask("invoices(first: 1) { nodes { viewerCan { action allowed reason { message } } } }"))[
        "invoices"
    ]["nodes"][0]["viewerCan"]
    reasons = {state["action"]: state["reason"] and state["reason"]["message"] for state in allowed}
    assert reasons["RECORD_PAYMENT"] is None
    assert reasons["VOID_INVOICE"] == reasons["ISSUE_CREDIT_NOTE"]
    assert "`retryPayment` or `recordPayment`" in reasons["VOID_INVOICE"]
    # Coming back needs what is owed paid; that undoes the bad debt. A new card is not tried by itself.
    back = await life.try_to("reactivateSubscription", planKey="starter", interval="MONTH")
    assert back["userErrors"][0]["code"] == "PAYMENT_REQUIRED"
    assert "`retryPayment`" in back["userErrors"][0]["message"]
    added = await life.do("addPaymentMethod", "transactions { id }", token="pm_card_visa")
    assert added["transactions"] == []
    paid = await life.do("retryPayment", "transactions { status amount { amountMinor } }")
    assert paid["transactions"] == [{"status": "SUCCEEDED", "amount": 4_900}]
    assert (await life.books()).get("BAD_DEBT", 0) == 0
    assert await life.notices() == {}
    quiet = await life.try_to("retryPayment")
    assert quiet["userErrors"][0]["code"] == "CONFLICT"
    assert quiet["userErrors"][0]["message"].startswith("Nothing is due by now: there is nothing to try again.")
    await life.do("reactivateSubscription", planKey="starter", interval="MONTH")
    await life.audit(world)


async def test_a_payment_restores_everything(client: Client, world: World) -> None:
    """A new method tries at once; the schedule ends, and nothing of it happens any more."""
    life = await overdue(client, world)
    await life.advance(day(4))
    await life.do("addPaymentMethod", token="pm_card_visa")
    found = await standing(life)
    assert found["subscription"] == {"status": "ACTIVE", "dunning": None}
    assert "PAYMENT_FAILED" not in found["notices"]
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID", "PAID"]
    await life.advance(day(20))
    assert len(await tries(life)) == 1 + 1 + 1 + 1  # the start, day 0, day 3, the new card
    assert (await life.subscription())["status"] == "ACTIVE"
    await life.audit(world)


async def test_a_stolen_card_is_not_tried_again(client: Client, world: World) -> None:
    """A hard decline stops the tries, not the days."""
    life = await overdue(client, world, "pm_card_chargeDeclinedStolenCard")
    found = await standing(life)
    assert found["subscription"]["dunning"]["nextAttemptAt"] is None
    assert "add one, and it is tried at once" in found["notices"]["PAYMENT_FAILED"]["message"]
    # Another card is tried by the days again.
    await life.do("addPaymentMethod", token="pm_card_chargeDeclined")
    found = await standing(life)
    assert found["subscription"]["dunning"]["nextAttemptAt"] == "2026-02-13T10:00:00Z"
    assert "try the payment again" in found["notices"]["PAYMENT_FAILED"]["message"]
    await life.audit(world)


async def test_a_stolen_card_is_not_tried_on_any_day(client: Client, world: World) -> None:
    """Nor is there a first card that could be."""
    life = await overdue(client, world, "pm_card_chargeDeclinedStolenCard")
    await life.advance(day(8))
    assert len(await tries(life)) == 2
    assert (await life.subscription())["status"] == "SUSPENDED"
    await life.advance(day(14))
    assert (await life.subscription())["status"] == "CANCELED"
    assert len(await tries(life)) == 2
    await life.audit(world)


async def test_a_transfer_that_comes_late(client: Client, world: World) -> None:
    """Who pays by transfer is overdue right after the due instant, and reminded; the rest of a period that began,
    uncharged, in the suspension is invoiced when it ends."""
    life = await Life.begin(client, world, START, card=None, collection={"method": "SEND_INVOICE", "netDays": 20})
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    due = START + timedelta(days=20)
    await life.advance(due)
    assert (await life.subscription())["status"] == "ACTIVE"
    await life.advance(due + timedelta(seconds=1))
    found = await standing(life)
    assert found["subscription"]["status"] == "PAST_DUE"
    assert found["subscription"]["dunning"]["since"] == "2026-01-30T09:00:01Z"
    assert found["notices"]["PAYMENT_FAILED"]["title"] == "Payment overdue"
    await life.advance(datetime(2026, 2, 6, 9, 0, 1, tzinfo=UTC))
    assert (await life.subscription())["status"] == "SUSPENDED"
    assert await tries(life) == []
    await life.advance(datetime(2026, 2, 11, 9, tzinfo=UTC))
    assert len(await life.invoices()) == 1
    (unpaid,) = await life.invoices()
    paid = await life.do(
        "recordPayment",
        "invoice { status } transaction { kind status reference }",
        invoiceId=unpaid["id"],
        amountMinor=4_900,
        currency="USD",
        reference="SEPA 2026-02-11",
    )
    assert paid["invoice"]["status"] == "PAID"
    assert paid["transaction"] == {"kind": "MANUAL", "status": "SUCCEEDED", "reference": "SEPA 2026-02-11"}
    assert (await life.subscription())["status"] == "ACTIVE"
    _, rest = await life.invoices()
    # 27 of the 28 days from 10 February: 49.00 × 27 ÷ 28.
    assert lines_of(rest) == [("PRORATION", 1, 4_725, "2026-02-11T09:00:00Z", "2026-03-10T09:00:00Z")]
    assert (rest["status"], rest["dueAt"]) == ("OPEN", "2026-03-03T09:00:00Z")
    await life.audit(world)


async def test_what_waits_is_charged_when_the_oldest_is_paid(client: Client, world: World) -> None:
    """Periods go on being invoiced while past due; each try covers all of them, the oldest first."""
    await _slow_dunning(world)
    life = await overdue(client, world)
    await life.advance(datetime(2026, 3, 11, tzinfo=UTC))
    statuses = [invoice["status"] for invoice in await life.invoices()]
    assert statuses == ["PAID", "OPEN", "OPEN"]
    assert (await life.subscription())["status"] == "PAST_DUE"
    # The second waited: it was tried with the first one, on the days after it was issued.
    retried = await life.try_to("retryPayment", "transactions { id }")
    assert [error["code"] for error in retried["userErrors"]] == ["PAYMENT_FAILED"]
    await life.do("addPaymentMethod", token="pm_card_visa")
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID"] * 3
    charges = (await life.ask(CHARGES))["transactions"]["nodes"]
    numbers = [node["invoice"]["number"] for node in charges if node["status"] == "SUCCEEDED"]
    assert numbers == sorted(numbers, reverse=True)
    assert (await life.subscription())["status"] == "ACTIVE"
    await life.audit(world)


async def _slow_dunning(world: World) -> None:
    """Publish a version of the plan whose days last longer than a period: the plan on day 0 decides."""
    async with world.database.work(Actor(name="system:test", origin="test")) as work:
        for version in await work.session.scalars(select(PlanVersion)):
            version.dunning = {"retryDays": [3, 20, 40], "suspendDay": 50, "cancelDay": 60}


async def test_a_cardholder_confirms_a_retry(client: Client, world: World) -> None:
    """A retry by hand may ask the cardholder, for 23 hours; it holds nothing up, and is given up by the next try."""
    life = await overdue(client, world, "pm_card_authenticationRequired")
    tried = await life.do("retryPayment", "transactions { id status paymentAction { clientSecret expiresAt } }")
    (waiting,) = tried["transactions"]
    assert waiting["status"] == "REQUIRES_ACTION"
    assert waiting["paymentAction"]["expiresAt"] == "2026-02-11T09:00:00Z"
    notices = await life.notices()
    assert notices["PAYMENT_FAILED"]["toConfirm"]
    assert notices["PAYMENT_TO_CONFIRM"]["transactionId"] == waiting["id"]
    await life.advance(day(1))
    notices = await life.notices()
    assert "PAYMENT_TO_CONFIRM" not in notices
    assert not notices["PAYMENT_FAILED"]["toConfirm"]
    assert [status for _, status in await tries(life)][-1] == "CANCELED"
    tried = await life.do("retryPayment", "transactions { id status }")
    await life.do("confirmPayment", transactionId=tried["transactions"][0]["id"])
    assert (await life.subscription())["status"] == "ACTIVE"
    assert await life.notices() == {}
    assert [invoice["status"] for invoice in await life.invoices()] == ["PAID", "PAID"]
    await life.audit(world)


async def test_a_voided_invoice_ends_it(client: Client, world: World) -> None:
    """It ends when no invoice that failed is open any more, whatever settled it."""
    life = await overdue(client, world)
    await life.advance(day(8))
    assert (await life.subscription())["status"] == "SUSPENDED"
    *_, unpaid = await life.invoices()
    await life.do("voidInvoice", invoiceId=unpaid["id"], reason="by agreement")
    assert (await standing(life))["subscription"] == {"status": "ACTIVE", "dunning": None}
    await life.audit(world)


async def test_a_cancellation_does_not_end_it(client: Client, world: World) -> None:
    """An operator cancels now: the same days go on without any change of state, then the invoice is given up."""
    life = await overdue(client, world)
    await life.do("cancelSubscription", mode="NOW", credit="NONE")
    assert (await life.subscription())["status"] == "CANCELED"
    await life.advance(day(10))
    assert len(await tries(life)) == 5
    assert (await life.subscription())["status"] == "CANCELED"
    await life.advance(day(14))
    *_, unpaid = await life.invoices()
    assert unpaid["status"] == "UNCOLLECTIBLE"
    await life.audit(world)


METHOD = "paymentMethod { id last4 } transactions { status amount { amountMinor } }"


async def test_what_a_method_is_tried_with_is_told(client: Client, world: World) -> None:
    """Adding, choosing and removing a method charge what is overdue at once, and say so; asked again, once."""
    life = await overdue(client, world)
    methods = (await life.ask("paymentMethods { id last4 }"))["paymentMethods"]
    visa, declined = ({row["last4"]: row["id"] for row in methods}[last4] for last4 in ("4242", "0002"))
    added = await life.do("addPaymentMethod", METHOD, token="pm_card_chargeDeclinedInsufficientFunds")
    assert added["transactions"] == [{"status": "FAILED", "amount": 4_900}]
    made = await life.do("setDefaultPaymentMethod", METHOD, paymentMethodId=declined)
    assert made["transactions"] == [{"status": "FAILED", "amount": 4_900}]
    quiet = await life.do("setDefaultPaymentMethod", METHOD, paymentMethodId=declined)
    assert quiet["transactions"] == []
    # The newest takes the place of the one that is removed.
    given = {"paymentMethodId": declined, "idempotencyKey": "remove-1"}
    removed = await life.do("removePaymentMethod", "transactions { id status }", **given)
    assert [row["status"] for row in removed["transactions"]] == ["FAILED"]
    before = await tries(life)
    assert (await life.do("removePaymentMethod", "transactions { id status }", **given)) == removed
    assert await tries(life) == before
    last = await life.do("removePaymentMethod", "transactions { status }", paymentMethodId=added["paymentMethod"]["id"])
    assert [row["status"] for row in last["transactions"]] == ["SUCCEEDED"]
    assert visa == (await life.ask("defaultPaymentMethod { id }"))["defaultPaymentMethod"]["id"]
    assert (await life.subscription())["status"] == "ACTIVE"
    await life.audit(world)


async def test_a_card_is_added_while_the_processor_is_away(client: Client, world: World) -> None:
    """The card is kept, and the charge is unknown: the same answer however often, until the clock goes on."""
    life = await overdue(client, world)
    (charge, *_) = (await life.ask("transactions(first: 1) { nodes { id } }"))["transactions"]["nodes"]
    refused = await life.try_to("confirmPayment", transactionId=charge["id"])
    assert "`retryPayment`" in refused["userErrors"][0]["message"]
    added = await life.do("addPaymentMethod", METHOD, token="pm_card_visa", makeDefault=False)
    assert added["transactions"] == []
    await life.do("setSandboxProcessor", answers="LOST_AFTER_EFFECT", messages="NONE")
    made = await life.do("setDefaultPaymentMethod", METHOD, paymentMethodId=added["paymentMethod"]["id"])
    assert made["transactions"] == [{"status": "UNKNOWN", "amount": 4_900}]
    await life.do("setSandboxProcessor", answers="HANGS", messages="NONE")
    retried = await life.do("retryPayment", "transactions { id status }")
    assert [row["status"] for row in retried["transactions"]] == ["UNKNOWN"]
    unknown = retried["transactions"][0]["id"]
    refused = await life.try_to("confirmPayment", transactionId=unknown)
    assert "has not said yet" in refused["userErrors"][0]["message"]
    await life.do("setSandboxProcessor", answers="NORMAL", messages="NONE")
    await life.advance(day(0.5))
    assert (await tries(life))[-1][1] == "SUCCEEDED"
    assert (await life.subscription())["status"] == "ACTIVE"
    await life.audit(world)


async def test_a_declined_retry_that_is_asked_again(client: Client, world: World) -> None:
    """The first answer, marked as a replay."""
    life = await overdue(client, world)
    document = "mutation ($i: RetryPaymentInput!) { retryPayment(input: $i) { userErrors { code message } } }"
    given = {"accountId": life.account_id, "idempotencyKey": "retry-once"}
    first = await client.ask(life.token, document, i=given)
    again = await client.ask(life.token, document, i=given)
    assert first["data"] == again["data"]
    assert "idempotency" not in first.get("extensions", {})  # type: ignore[operator]
    assert again["extensions"]["idempotency"] == {"replayed": True}  # type: ignore[index]
