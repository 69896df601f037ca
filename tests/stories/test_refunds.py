"""Refunds: the verdict at once, the decision, the credit note, the money; never beyond the charge."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from ..conftest import Client, World
from .life import Life, taxes_of

START = datetime(2026, 4, 1, tzinfo=UTC)
ASKED = "refundRequest { id status amount { amountMinor } } verdict { allowed code message maximum { amountMinor } }"
REVIEWED = """refundRequest { id status approvedAmount { amountMinor } }
refund { id status amount { amountMinor } } creditNote { number }"""
CHARGE = """id status refundState refundableAmount { amountMinor } amount { amountMinor }
refunds { status amount { amountMinor } }"""


async def paid(client: Client, world: World, interval: str = "MONTH", **given: Any) -> Life:
    """An account in Austria that just paid 49.00 net and 20 % VAT (or the year of it)."""
    life = await Life.begin(client, world, START, currency="EUR", company="AT", **given)
    await life.do("startSubscription", planKey="starter", interval=interval)
    return life


async def charge(life: Life) -> dict[str, Any]:
    """The newest charge that succeeded."""
    found = await life.ask(
        f"transactions(first: 1, filter: {{ kind: [CHARGE], status: [SUCCEEDED] }}) {{ nodes {{ {CHARGE} }} }}"
    )
    node: dict[str, Any] = found["transactions"]["nodes"][0]
    return node


async def policy(life: Life, reason: str, arguments: str = "") -> tuple[bool, str, int]:
    """What the rules would say of the newest charge."""
    found = await life.ask(
        f"""transactions(first: 1, filter: {{ kind: [CHARGE], status: [SUCCEEDED] }}) {{ nodes {{
        refundPolicy(reason: {reason}{arguments}) {{ allowed code message maximum {{ amountMinor }} }} }} }}"""
    )
    verdict = found["transactions"]["nodes"][0]["refundPolicy"]
    assert verdict["message"]
    return verdict["allowed"], verdict["code"], verdict["maximum"]


async def test_goodwill_in_three_parts(client: Client, world: World) -> None:
    """Hard case 25: 33 + 33 + 34 % of a charge return its tax exactly; the books hold nothing of it any more."""
    life = await paid(client, world)
    bought = await charge(life)
    assert (bought["amount"], bought["refundableAmount"]) == (5_880, 5_880)
    notes = []
    for amount in (1_940, 1_940, 2_000):
        asked = await life.do(
            "requestRefund",
            ASKED,
            transactionId=bought["id"],
            reason="GOODWILL",
            amountMinor=amount,
            currency="EUR",
            note="It did not suit us.",
        )
        assert asked["refundRequest"]["status"] == "REQUESTED"
        assert asked["verdict"]["allowed"]
        reviewed = await life.do(
            "reviewRefund", REVIEWED, refundRequestId=asked["refundRequest"]["id"], decision="APPROVE"
        )
        assert reviewed["refundRequest"] == {
            "id": asked["refundRequest"]["id"],
            "status": "SUCCEEDED",
            "approvedAmount": amount,
        }
        assert (reviewed["refund"]["status"], reviewed["refund"]["amount"]) == ("SUCCEEDED", amount)
        notes.append(reviewed["creditNote"]["number"])
    # Gross × 20 ÷ 120, cumulative: 323.3 → 323; 646.7 → 647; 980.
    found = await life.credit_notes()
    assert [note["number"] for note in found] == notes
    assert [taxes_of(note) for note in found] == [
        [("S", 20.0, 1_617, 323)],
        [("S", 20.0, 1_616, 324)],
        [("S", 20.0, 1_667, 333)],
    ]
    after = await charge(life)
    assert (after["refundState"], after["refundableAmount"]) == ("FULL", 0)
    assert [refund["amount"] for refund in after["refunds"]] == [1_940, 1_940, 2_000]
    assert await life.refused(
        "requestRefund", transactionId=bought["id"], reason="GOODWILL", amountMinor=1, currency="EUR"
    ) == ["REFUND_NOT_ALLOWED"]
    assert await life.books() == {}
    await life.audit(world)


async def test_what_is_refused_at_once(client: Client, world: World) -> None:
    """Hard case 25: 0, below 0, more than is left, another currency; of somebody else it is unknown."""
    life = await paid(client, world)
    bought = await charge(life)
    given = {"transactionId": bought["id"], "reason": "GOODWILL"}
    for amount, currency, code in (
        (0, "EUR", "INVALID"),
        (-1, "EUR", "INVALID"),
        (5_881, "EUR", "REFUND_NOT_ALLOWED"),
        (100, "USD", "INVALID"),
        (100, None, "INVALID"),
    ):
        assert await life.refused("requestRefund", **given, amountMinor=amount, currency=currency) == [code], amount
    assert await life.refused("requestRefund", **given | {"reason": "SERVICE_ISSUE"}) == ["INVALID"]
    assert await life.refused("requestRefund", **given | {"reason": "BILLING_ERROR"}) == ["INVALID"]
    assert await life.refused("requestRefund", **given | {"reason": "DUPLICATE"}) == ["REFUND_NOT_ALLOWED"]
    assert await life.refused("requestRefund", **given, note="4242 4242 4242 4242") == ["INVALID"]
    other = await Life.begin(client, world, START, name="other")
    stranger = await other.owner(world)
    assert await stranger.refused("requestRefund", **given) == ["NOT_FOUND"]
    owner = await life.owner(world)
    asked = await owner.do("requestRefund", ASKED, **given)
    assert asked["refundRequest"]["amount"] == 5_880
    review = {"refundRequestId": asked["refundRequest"]["id"], "decision": "APPROVE"}
    answer = await client.ask(
        owner.token,
        "mutation ($input: ReviewRefundInput!) { reviewRefund(input: $input) { userErrors { code } } }",
        input=review | {"idempotencyKey": "mine"},
    )
    assert "FORBIDDEN" in str(answer["errors"])
    assert await life.refused("reviewRefund", **review | {"amountMinor": 0, "currency": "EUR"}) == [
        "REFUND_NOT_ALLOWED"
    ]
    assert await life.refused("reviewRefund", **review | {"amountMinor": 5_881, "currency": "EUR"}) == [
        "REFUND_NOT_ALLOWED"
    ]
    for currency in (None, "USD"):
        assert await life.refused("reviewRefund", **review | {"amountMinor": 100, "currency": currency}) == ["INVALID"]
    assert await life.refused("reviewRefund", **review | {"decision": "DENY"}) == ["INVALID"]
    denied = await life.do("reviewRefund", REVIEWED, **review | {"decision": "DENY", "reason": "Used to the full."})
    assert (denied["refundRequest"]["status"], denied["refund"], denied["creditNote"]) == ("DENIED", None, None)
    assert await life.refused("reviewRefund", **review) == ["CONFLICT"]
    await life.audit(world)


async def test_two_at_once(client: Client, world: World) -> None:
    """Hard case 25: of two requests that exceed the charge together one fails; of two reviews at once too."""
    life = await paid(client, world)
    bought = await charge(life)
    given = {"transactionId": bought["id"], "reason": "GOODWILL", "amountMinor": 3_528, "currency": "EUR"}
    answers = await asyncio.gather(*(life.try_to("requestRefund", ASKED, **given) for _ in range(2)))
    assert sorted(len(answer["userErrors"]) for answer in answers) == [0, 1]
    (asked,) = (answer["refundRequest"] for answer in answers if not answer["userErrors"])
    reviews = await asyncio.gather(
        *(life.try_to("reviewRefund", REVIEWED, refundRequestId=asked["id"], decision="APPROVE") for _ in range(5))
    )
    assert sorted(error["code"] for review in reviews for error in review["userErrors"]) == ["CONFLICT"] * 4
    after = await charge(life)
    assert (after["refundState"], [refund["amount"] for refund in after["refunds"]]) == ("PARTIAL", [3_528])
    await life.audit(world)


async def test_a_service_issue_is_a_share_of_the_time(client: Client, world: World) -> None:
    """Three of April's thirty days: a tenth of the line's gross. Time to come counts too, but not of annual plans."""
    life = await paid(client, world)
    await life.advance(datetime(2026, 4, 20, tzinfo=UTC))
    time = ', from: "2026-04-10T00:00:00Z", to: "2026-04-13T00:00:00Z"'
    assert await policy(life, "SERVICE_ISSUE", time) == (True, "ALLOWED", 588)
    assert await policy(life, "GOODWILL") == (False, "TOO_OLD", 0)
    assert await policy(life, "BILLING_ERROR") == (True, "ALLOWED", 5_880)
    assert await policy(life, "DUPLICATE") == (False, "NOT_A_DUPLICATE", 0)
    later = ', from: "2026-04-28T00:00:00Z", to: "2026-05-28T00:00:00Z"'
    assert await policy(life, "SERVICE_ISSUE", later) == (True, "ALLOWED", 588)
    outside = ', from: "2026-05-28T00:00:00Z", to: "2026-05-29T00:00:00Z"'
    assert await policy(life, "SERVICE_ISSUE", outside) == (False, "NO_SUCH_TIME", 0)
    bought = await charge(life)
    given = {"from": "2026-04-10T00:00:00Z", "to": "2026-04-13T00:00:00Z", "reason": "SERVICE_ISSUE"}
    # More than the rules allow is kept, and an operator may override them with a reason.
    asked = await life.do(
        "requestRefund", ASKED, transactionId=bought["id"], amountMinor=1_000, currency="EUR", **given
    )
    assert (asked["refundRequest"]["status"], asked["verdict"]["code"]) == ("NOT_ALLOWED", "ABOVE_MAXIMUM")
    assert asked["verdict"]["maximum"] == 588
    review = {"refundRequestId": asked["refundRequest"]["id"], "decision": "APPROVE"}
    assert await life.refused("reviewRefund", **review) == ["INVALID"]
    done = await life.do("reviewRefund", REVIEWED, **review, reason="A loyal customer.")
    assert (done["refundRequest"]["status"], done["refund"]["amount"]) == ("SUCCEEDED", 1_000)
    await life.audit(world)


async def test_annual_plans(client: Client, world: World) -> None:
    """No goodwill; a service issue only for the time that is past."""
    life = await paid(client, world, "YEAR")
    await life.advance(START + timedelta(days=2))
    assert await policy(life, "GOODWILL") == (False, "ANNUAL_PLAN", 0)
    bought = await charge(life)
    # Two of the year's 365 days are past: gross × 2 ÷ 365.
    assert await policy(life, "SERVICE_ISSUE") == (True, "ALLOWED", (bought["amount"] * 2 + 182) // 365)
    ahead = ', from: "2026-04-05T00:00:00Z", to: "2026-04-09T00:00:00Z"'
    assert await policy(life, "SERVICE_ISSUE", ahead) == (False, "ANNUAL_PLAN", 0)
    allowed, _, maximum = await policy(life, "BILLING_ERROR")
    assert (allowed, maximum) == (True, bought["amount"])
    await life.audit(world)


async def test_what_the_balance_paid_goes_back_to_it(client: Client, world: World) -> None:
    """Of an invoice paid partly by balance only the charge is refunded, the rest goes to the balance."""
    life = await Life.begin(client, world, START, currency="EUR", company="AT")
    await life.do("grantCredit", amountMinor=1_000, currency="EUR", reason="A welcome")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    bought = await charge(life)
    assert bought["amount"] == 4_880
    (invoice,) = await life.invoices()
    assert await policy(life, "BILLING_ERROR") == (True, "ALLOWED", 5_880)
    asked = await life.do(
        "requestRefund",
        ASKED,
        transactionId=bought["id"],
        reason="BILLING_ERROR",
        lineIds=[line["id"] for line in invoice["lines"]],
    )
    assert asked["refundRequest"]["amount"] == 5_880
    done = await life.do("reviewRefund", REVIEWED, refundRequestId=asked["refundRequest"]["id"], decision="APPROVE")
    assert done["refund"]["amount"] == 4_880
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 1_000
    (note,) = await life.credit_notes()
    assert (note["total"], note["toInvoice"], note["toBalance"]) == (5_880, 0, 1_000)
    assert await life.books() == {"CUSTOMER_CREDIT": -1_000, "GOODWILL": 1_000}
    await life.audit(world)


async def test_credit_instead_of_money(client: Client, world: World) -> None:
    """An operator may give as credit what would go back."""
    life = await paid(client, world)
    bought = await charge(life)
    asked = await life.do("requestRefund", ASKED, transactionId=bought["id"], reason="GOODWILL")
    done = await life.do("reviewRefund", REVIEWED, refundRequestId=asked["refundRequest"]["id"], decision="CREDIT")
    assert (done["refundRequest"]["status"], done["refund"]) == ("SUCCEEDED", None)
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 5_880
    await life.audit(world)


async def test_a_transfer_that_came_twice(client: Client, world: World) -> None:
    """What was paid beyond what is due goes back whole, without a credit note; by transfer it goes back by hand."""
    life = await paid(client, world, card=None, collection={"method": "SEND_INVOICE", "netDays": 14})
    (invoice,) = await life.invoices()
    given = {"invoiceId": invoice["id"], "currency": "EUR"}
    for amount in (0, -5):
        assert await life.refused("recordPayment", **given, amountMinor=amount, reference="x") == ["INVALID"]
    assert await life.refused("recordPayment", **given | {"currency": "USD"}, amountMinor=5, reference="x") == [
        "INVALID"
    ]
    await life.do("recordPayment", **given, amountMinor=3_000, reference="a part")
    booked = await life.do("recordPayment", "transaction { id }", **given, amountMinor=3_880, reference="the rest")
    assert (await life.invoices())[0]["status"] == "PAID"
    assert (await life.notices())["PAYMENT_DUPLICATE"]["invoice"] == invoice["number"]
    assert (await life.books())["REFUNDS_PAYABLE"] == -1_000
    asked = await life.do("requestRefund", ASKED, transactionId=booked["transaction"]["id"], reason="DUPLICATE")
    assert (asked["refundRequest"]["amount"], asked["verdict"]["code"]) == (1_000, "ALLOWED")
    done = await life.do("reviewRefund", REVIEWED, refundRequestId=asked["refundRequest"]["id"], decision="APPROVE")
    assert (done["refund"]["status"], done["refund"]["amount"], done["creditNote"]) == ("SUCCEEDED", 1_000, None)
    assert "REFUNDS_PAYABLE" not in await life.books()
    assert "PAYMENT_DUPLICATE" not in await life.notices()
    await life.audit(world)
