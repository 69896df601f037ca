"""Cancelled at once with the rest given back: the balance pays the final invoice and the way back."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taken_of, taxes_of

HALF = ("2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")


async def test_an_operator_cancels_with_credit(client: Client, world: World) -> None:
    """One credit note per invoice, a balance that pays before any card, and corrections after coming back."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    await life.do("setAddOn", addOnKey="extra_emails", quantity=1)
    await life.advance(datetime(2026, 4, 10, tzinfo=UTC))
    # One above the limit of 20,000.
    assert (await life.use(quantity=20_001))["status"] == "ACCEPTED"

    # Half of April is left: 24.50 of the plan and 7.50 of the user. A block of a counter is never credited.
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    owner = await life.owner(world)
    may = {row["action"]: row["allowed"] for row in (await owner.ask("viewerCan { action allowed }"))["viewerCan"]}
    assert (may["CANCEL_SUBSCRIPTION"], may["CANCEL_NOW"]) == (True, False)
    cancelled = await life.do(
        "cancelSubscription", "subscription { status } creditNotes { number }", mode="NOW", credit="PRORATED"
    )
    assert cancelled["subscription"] == {"status": "CANCELED"}
    assert len(cancelled["creditNotes"]) == 2
    plan, user = sorted(await life.credit_notes(), key=lambda note: -note["total"])
    # The fourth is the final one, a draft in its hour.
    start, first_user, emails, draft = await life.invoices()
    assert (draft["status"], draft["number"]) == ("DRAFT", None)
    month = ("2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")
    assert lines_of(first_user) == [("ADD_ON", 1, 1_500, *month)]
    assert lines_of(emails) == [("ADD_ON", 1, 1_000, *month)]
    assert taken_of(plan) == [(2_450, *HALF)]
    assert taxes_of(plan) == [("S", 20.0, 2_450, 490)]
    assert (plan["invoice"]["number"], plan["toInvoice"], plan["toBalance"]) == (start["number"], 0, 2_940)
    assert plan["lines"][0]["creditedLine"]["id"] == start["lines"][0]["id"]
    assert taken_of(user) == [(750, *HALF)]
    assert taxes_of(user) == [("S", 20.0, 750, 150)]
    assert (user["invoice"]["number"], user["toInvoice"], user["toBalance"]) == (first_user["number"], 0, 900)
    assert user["lines"][0]["creditedLine"]["id"] == first_user["lines"][0]["id"]
    numbers = sorted(note["number"] for note in (plan, user))
    assert [number.partition("-CN-")[2] for number in numbers] == ["000001", "000002"]
    assert (plan["reason"], user["reason"]) == ("CANCELLATION", "CANCELLATION")
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 3_840
    assert await life.books() == {
        "CASH": 5_880 + 1_800 + 1_200,
        "CUSTOMER_CREDIT": -3_840,
        "REVENUE": -(2_450 + 750 + 1_000),
        "TAX": -(980 + 300 + 200 - 490 - 150),
    }

    # The final invoice waits its hour and is paid by the balance: 3,840 − 1,200 = 2,640.
    await life.advance(datetime(2026, 4, 16, 2, tzinfo=UTC))
    final = (await life.invoices())[3]
    assert lines_of(final) == [("OVERAGE", 1, 1_000, "2026-04-01T00:00:00Z", "2026-04-16T00:00:00Z")]
    assert taxes_of(final) == [("S", 20.0, 1_000, 200)]
    assert (final["kind"], final["status"], final["issuedAt"]) == ("FINAL", "PAID", "2026-04-16T01:00:00Z")
    assert (final["total"], final["balanceApplied"], final["amountPaid"]) == (1_200, 1_200, 0)

    # 10.00 more by goodwill, and back: 58.80 less 36.40 are 22.40 on the card.
    await life.advance(datetime(2026, 4, 20, tzinfo=UTC))
    granted = await life.do(
        "grantCredit",
        "transaction { kind status amount { amountMinor } }",
        amountMinor=1_000,
        currency="USD",
        reason="for the trouble",
    )
    assert granted["transaction"] == {"kind": "CREDIT", "status": "SUCCEEDED", "amount": 1_000}
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 3_640
    assert len(await life.invoices()) == 4
    await life.advance(datetime(2026, 5, 2, tzinfo=UTC))
    await life.do("reactivateSubscription", planKey="starter", interval="MONTH")
    back = (await life.invoices())[4]
    assert lines_of(back) == [("SUBSCRIPTION", 1, 4_900, "2026-05-02T00:00:00Z", "2026-06-02T00:00:00Z")]
    assert taxes_of(back) == [("S", 20.0, 4_900, 980)]
    assert (back["total"], back["balanceApplied"], back["amountPaid"], back["amountDue"]) == (5_880, 3_640, 2_240, 0)
    assert back["status"] == "PAID"
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 0
    assert (await life.subscription())["addOns"] == []
    # What is late for April (30,001 are two blocks above 20,000) goes onto the next close's invoice.
    late = datetime(2026, 4, 15, 12, tzinfo=UTC)
    assert (await life.use(quantity=10_000, at=late))["status"] == "ACCEPTED"
    await life.advance(datetime(2026, 6, 2, 2, tzinfo=UTC))
    invoices = await life.invoices()
    assert len(invoices) == 6
    assert lines_of(invoices[5]) == [
        ("CORRECTION", 1, 1_000, "2026-04-01T00:00:00Z", "2026-04-16T00:00:00Z"),
        ("SUBSCRIPTION", 1, 4_900, "2026-06-02T00:00:00Z", "2026-07-02T00:00:00Z"),
    ]
    assert taxes_of(invoices[5]) == [("S", 20.0, 5_900, 1_180)]
    assert (invoices[5]["amountPaid"], invoices[5]["balanceApplied"]) == (7_080, 0)
    assert len(await life.credit_notes()) == 2
    assert await life.books() == {
        "CASH": 5_880 + 1_800 + 1_200 + 2_240 + 7_080,
        "DEFERRED": -4_900,
        "GOODWILL": 1_000,
        "REVENUE": -(2_450 + 750 + 1_000 + 1_000 + 4_900 + 1_000),
        "TAX": -(980 + 300 + 200 - 490 - 150 + 200 + 980 + 1_180),
    }
    await life.audit(world)
