"""Voiding and crediting: the number stays, the balance gets its part back, and a line gives back at most itself."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taken_of, taxes_of

LIMITS = [
    {"metricKey": "email_sends", "limit": 10},
    {"metricKey": "team_members", "limit": 5},
    {"metricKey": "workspaces", "limit": 5},
    {"metricKey": "custom_domains", "limit": 5},
]


async def test_a_voided_invoice(client: Client, world: World) -> None:
    """Hard cases 9, 27: what is voided is credited whole, its balance returns, and a later change credits none."""
    life = await Life.begin(
        client,
        world,
        datetime(2026, 4, 1, tzinfo=UTC),
        company="AT",
        card=None,
        collection={"method": "SEND_INVOICE", "netDays": 60},
    )
    await life.do("grantCredit", amountMinor=1_000, currency="USD", reason="A welcome")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    (invoice,) = await life.invoices()
    assert (invoice["total"], invoice["balanceApplied"], invoice["amountDue"]) == (5_880, 1_000, 4_880)
    number = invoice["number"]
    await life.advance(datetime(2026, 4, 2, tzinfo=UTC))
    voided = await life.do(
        "voidInvoice",
        "invoice { number status amountDue { amountMinor } } creditNote { number }",
        invoiceId=invoice["id"],
        reason="Sent to the wrong office",
    )
    assert voided["invoice"] == {"number": number, "status": "VOID", "amountDue": 0}
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 1_000
    (note,) = await life.credit_notes()
    assert taken_of(note) == [(4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert taxes_of(note) == [("S", 20.0, 4_900, 980)]
    assert (note["reason"], note["invoice"]["number"], note["issuedAt"]) == ("VOID", number, "2026-04-02T00:00:00Z")
    assert (note["total"], note["toInvoice"], note["toBalance"]) == (5_880, 4_880, 1_000)
    # Twice is too often, and its line has nothing left to credit.
    again = await life.try_to("voidInvoice", "invoice { id }", invoiceId=invoice["id"], reason="Again")
    assert again["userErrors"][0]["message"] == f"Invoice {number} is withdrawn already."
    line = {"lineId": invoice["lines"][0]["id"], "amountMinor": 1}
    await life.refused("issueCreditNote", invoiceId=invoice["id"], lines=[line], reason="More")
    assert await life.books() == {"CUSTOMER_CREDIT": -1_000, "GOODWILL": 1_000}

    # Half of the month is left, and nothing of Starter stands any more.
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    _, change = await life.invoices()
    assert lines_of(change) == [("PRORATION", 1, 7_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert taxes_of(change) == [("S", 20.0, 7_450, 1_490)]
    assert (change["total"], change["balanceApplied"], change["amountDue"]) == (8_940, 1_000, 7_940)
    assert change["number"].endswith("-000002")

    # Partly credited while open, it is due lower by that, and cannot be voided any more.
    line = {"lineId": change["lines"][0]["id"], "amountMinor": 1_000}
    await life.do("issueCreditNote", invoiceId=change["id"], lines=[line], reason="A late start")
    _, part = await life.credit_notes()
    assert (part["subtotal"], part["tax"], part["total"]) == (1_000, 200, 1_200)
    assert (part["toInvoice"], part["toBalance"], part["reason"]) == (1_200, 0, "OPERATOR")
    _, change = await life.invoices()
    assert (change["status"], change["amountCredited"], change["amountDue"]) == ("OPEN", 1_200, 6_740)
    refused = await life.try_to("voidInvoice", "invoice { id }", invoiceId=change["id"], reason="All of it")
    assert [(error["code"], error["message"]) for error in refused["userErrors"]] == [
        (
            "INVOICE_PAID",
            f"Invoice {change['number']} was credited in part: take the rest back by `issueCreditNote`.",
        )
    ]

    # Credited to the end: 6,740 lower what is due, and the 1,000 of the balance go back to it.
    line = {"lineId": change["lines"][0]["id"], "amountMinor": 6_450}
    await life.do("issueCreditNote", invoiceId=change["id"], lines=[line], reason="All of it")
    _, _, rest = await life.credit_notes()
    assert (rest["subtotal"], rest["tax"], rest["total"]) == (6_450, 1_290, 7_740)
    assert (rest["toInvoice"], rest["toBalance"]) == (6_740, 1_000)
    _, change = await life.invoices()
    assert change["amountDue"] == 0
    assert await life.books() == {"CUSTOMER_CREDIT": -1_000, "GOODWILL": 1_000}
    await life.audit(world)


async def test_an_invoice_credited_in_parts(client: Client, world: World) -> None:
    """Hard case 25: 33 + 33 + 34 of 100 return the tax of 19 exactly, and not a cent more than the line."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="DE")
    await life.do(
        "publishPlan",
        "plan { key }",
        key="hundred",
        name="Hundred",
        tier=1,
        limits=LIMITS,
        prices=[{"interval": "MONTH", "currency": "USD", "amountMinor": 100}],
        privateToAccountId=life.account_id,
    )
    await life.do("startSubscription", planKey="hundred", interval="MONTH")
    (invoice,) = await life.invoices()
    assert lines_of(invoice) == [("SUBSCRIPTION", 1, 100, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert (invoice["status"], invoice["amountPaid"]) == ("PAID", 119)
    assert await life.refused("voidInvoice", invoiceId=invoice["id"], reason="A mistake") == ["INVOICE_PAID"]

    async def credit(amount: int) -> list[str]:
        payload = await life.try_to(
            "issueCreditNote",
            invoiceId=invoice["id"],
            lines=[{"lineId": invoice["lines"][0]["id"], "amountMinor": amount}],
            reason="A mistake",
        )
        errors.extend(payload["userErrors"])
        return [error["code"] for error in payload["userErrors"]]

    errors: list[dict[str, str]] = []
    assert await credit(0) == ["INVALID"]
    assert await credit(-1) == ["INVALID"]
    assert [error["message"] for error in errors] == ["`amountMinor` is above 0."] * 2
    assert await credit(101) == ["INVALID"]
    assert await credit(33) == []
    assert await credit(33) == []
    assert await credit(35) == ["INVALID"]
    assert await credit(34) == []
    assert await credit(1) == ["INVALID"]
    notes = await life.credit_notes()
    # 33 × 19 % = 6.27; 66 × 19 % = 12.54, less 6; 100 × 19 % = 19, less 13.
    assert [(note["subtotal"], note["tax"], note["total"]) for note in notes] == [(33, 6, 39), (33, 7, 40), (34, 6, 40)]
    assert [taxes_of(note) for note in notes] == [[("S", 19.0, 33, 6)], [("S", 19.0, 33, 7)], [("S", 19.0, 34, 6)]]
    assert [(note["toInvoice"], note["toBalance"]) for note in notes] == [(0, 39), (0, 40), (0, 40)]
    # Refused ones took no number.
    assert [note["number"][-6:] for note in notes] == ["000001", "000002", "000003"]
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 119
    assert await life.books() == {"CASH": 119, "CUSTOMER_CREDIT": -119}

    # The next month is paid by it, without a charge.
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))
    _, following = await life.invoices()
    assert lines_of(following) == [("SUBSCRIPTION", 1, 100, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z")]
    assert taxes_of(following) == [("S", 19.0, 100, 19)]
    assert (following["status"], following["balanceApplied"], following["amountPaid"]) == ("PAID", 119, 0)
    assert await life.books() == {"CASH": 119, "DEFERRED": -100, "TAX": -19}
    await life.audit(world)
