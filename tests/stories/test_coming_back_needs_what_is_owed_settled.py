"""A last invoice that nobody pays stands in the way back until it is withdrawn."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taken_of, taxes_of

AUGUST = ("2026-08-01T00:00:00Z", "2026-09-01T00:00:00Z")


async def test_coming_back_needs_what_is_owed_settled(client: Client, world: World) -> None:
    """§4: reactivating, unpaid invoices first. §7: voiding keeps the number, with a credit note for the whole."""
    life = await Life.begin(client, world, datetime(2026, 8, 1, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 8, 20, tzinfo=UTC))
    await life.use(quantity=60_001)
    await life.do("cancelSubscription")
    await life.do("addPaymentMethod", token="pm_card_chargeCustomerFail")
    await life.advance(datetime(2026, 9, 1, 2, tzinfo=UTC))
    _, final = await life.invoices()
    assert lines_of(final) == [("OVERAGE", 2, 2_000, *AUGUST)]
    assert taxes_of(final) == [("S", 20.0, 2_000, 400)]
    assert (final["status"], final["amountDue"], final["amountPaid"]) == ("OPEN", 2_400, 0)
    assert (await life.subscription())["status"] == "CANCELED"
    assert await life.books() == {"CASH": 17_880, "RECEIVABLES": 2_400, "REVENUE": -16_900, "TAX": -3_380}

    plan = {"planKey": "starter", "interval": "MONTH"}
    assert await life.refused("reactivateSubscription", **plan) == ["PAYMENT_REQUIRED"]
    assert (await life.subscription())["status"] == "CANCELED"
    assert len(await life.invoices()) == 2
    await life.do("voidInvoice", invoiceId=final["id"], reason="sent in error")
    _, voided = await life.invoices()
    assert (voided["number"], voided["status"], voided["amountDue"]) == (final["number"], "VOID", 0)
    (note,) = await life.credit_notes()
    assert taken_of(note) == [(2_000, *AUGUST)]
    assert taxes_of(note) == [("S", 20.0, 2_000, 400)]
    assert (note["reason"], note["total"], note["toInvoice"], note["toBalance"]) == ("VOID", 2_400, 2_400, 0)
    assert await life.books() == {"CASH": 17_880, "REVENUE": -14_900, "TAX": -2_980}

    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.do("reactivateSubscription", **plan)
    back = (await life.invoices())[2]
    assert lines_of(back) == [("SUBSCRIPTION", 1, 4_900, "2026-09-01T02:00:00Z", "2026-10-01T02:00:00Z")]
    assert taxes_of(back) == [("S", 20.0, 4_900, 980)]
    assert (back["status"], back["total"], back["amountPaid"]) == ("PAID", 5_880, 5_880)
    # Nothing late came: the day 35 after the end brings nothing, and September renews.
    await life.advance(datetime(2026, 10, 6, 2, tzinfo=UTC))
    invoices = await life.invoices()
    assert len(invoices) == 4
    assert lines_of(invoices[3]) == [("SUBSCRIPTION", 1, 4_900, "2026-10-01T02:00:00Z", "2026-11-01T02:00:00Z")]
    assert taxes_of(invoices[3]) == [("S", 20.0, 4_900, 980)]
    assert await life.books() == {
        "CASH": 17_880 + 2 * 5_880,
        "DEFERRED": -4_900,
        "REVENUE": -(14_900 + 4_900),
        "TAX": -(2_980 + 2 * 980),
    }
    await life.audit(world)
