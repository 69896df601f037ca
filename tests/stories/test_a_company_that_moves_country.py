"""A German business moves to Austria and is then freed by a certificate: each line keeps the tax it was sold with."""

import json
from datetime import UTC, datetime

from ..conftest import Client, World
from .life import COMPANIES, Life, lines_of, taken_of, taxes_of


async def test_a_company_that_moves_country(client: Client, world: World) -> None:
    """Hard cases 8, 9, 27: credits under another country become a credit note, which pays the next invoice."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), currency="EUR", company="DE-VAT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    frozen = "invoices(last: 1) { nodes { billTo issuer contentHash } }"
    first_frozen = (await life.ask(frozen))["invoices"]["nodes"]
    assert "DE136695976" in json.dumps(first_frozen[0]["billTo"])
    assert "ATU12345675" in json.dumps(first_frozen[0]["issuer"])

    await life.advance(datetime(2026, 4, 10, tzinfo=UTC))
    await life.do("updateCompany", **COMPANIES["AT"], vatId=None)
    # Half of the 30 days is left: the credit is a German reverse charge's, the charge bears Austrian tax.
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    quoted = await life.do(
        "quotePlanChange", "quote { id dueNow { amountMinor } }", planKey="professional", interval="MONTH"
    )
    assert quoted["quote"]["dueNow"] == 6_490
    changed = await life.do("changePlan", "transaction { amount { amountMinor } }", quoteId=quoted["quote"]["id"])
    assert changed["transaction"]["amount"] == 6_490
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 0
    await life.advance(datetime(2026, 5, 10, tzinfo=UTC))
    await life.do(
        "setTaxExemption",
        exemption={"certificate": "AT-77", "reason": "Diplomatic mission", "validFrom": "2026-05-16"},
    )
    # 16 of 31 days are left: credited with the tax of the line, charged without.
    await life.advance(datetime(2026, 5, 16, tzinfo=UTC))
    await life.do("changePlan", planKey="business", interval="MONTH")
    await life.advance(datetime(2026, 6, 1, 2, tzinfo=UTC))

    first, change, second, exempted, third = await life.invoices()
    (note,) = await life.credit_notes()
    april, may, june, july = (f"2026-{month}-01T00:00:00Z" for month in ("04", "05", "06", "07"))
    assert lines_of(first) == [("SUBSCRIPTION", 1, 4_900, april, may)]
    assert taken_of(note) == [(2_450, "2026-04-16T00:00:00Z", may)]
    assert lines_of(change) == [("PRORATION", 1, 7_450, "2026-04-16T00:00:00Z", may)]
    assert lines_of(second) == [("SUBSCRIPTION", 1, 14_900, may, june)]
    assert lines_of(exempted) == [
        # 14,900 × 16 ÷ 31 = 7,690.3 and 39,900 × 16 ÷ 31 = 20,593.5.
        ("CREDIT", -1, -7_690, "2026-05-16T00:00:00Z", june),
        ("PRORATION", 1, 20_594, "2026-05-16T00:00:00Z", june),
    ]
    assert lines_of(third) == [("SUBSCRIPTION", 1, 39_900, june, july)]

    assert first["taxBreakdown"] == [
        {
            "jurisdiction": "DE",
            "category": "AE",
            "rate": 0.0,
            "taxableAmount": 4_900,
            "amount": 0,
            "reason": "Reverse charge",
        }
    ]
    assert taxes_of(note) == [("AE", 0.0, 2_450, 0)]
    assert taxes_of(change) == [("S", 20.0, 7_450, 1_490)]
    assert taxes_of(second) == [("S", 20.0, 14_900, 2_980)]
    assert taxes_of(exempted) == [("E", 0.0, 20_594, 0), ("S", 20.0, -7_690, -1_538)]
    assert taxes_of(third) == [("E", 0.0, 39_900, 0)]
    assert third["taxBreakdown"][0]["jurisdiction"] == "AT"
    assert third["taxBreakdown"][0]["reason"] == "Diplomatic mission"

    # The note names the invoice it credits, is issued before the invoice of its instant, and pays it.
    assert (note["reason"], note["invoice"]["number"]) == ("CHANGE", first["number"])
    assert (note["total"], note["toInvoice"], note["toBalance"]) == (2_450, 0, 2_450)
    assert note["issuedAt"] == change["issuedAt"] == "2026-04-16T00:00:00Z"
    assert note["number"].rpartition("-")[2] == "000001"
    assert note["number"].split("-")[-2] == "CN"
    assert note["lines"][0]["creditedLine"]["id"] == first["lines"][0]["id"]
    assert (note["lines"][0]["taxCategory"], note["lines"][0]["taxRate"]) == ("AE", 0.0)
    assert (change["total"], change["balanceApplied"], change["amountPaid"]) == (8_940, 2_450, 6_490)
    assert (exempted["subtotal"], exempted["tax"], exempted["total"]) == (12_904, -1_538, 11_366)
    paid = [invoice["amountPaid"] for invoice in (first, change, second, exempted, third)]
    assert paid == [4_900, 6_490, 17_880, 11_366, 39_900]
    # What was issued stays as it was.
    assert (await life.ask(frozen))["invoices"]["nodes"] == first_frozen

    assert await life.books() == {
        "CASH": 4_900 + 6_490 + 17_880 + 11_366 + 39_900,
        "DEFERRED": -39_900,
        "REVENUE": -(4_900 - 2_450 + 7_450 + 14_900 - 7_690 + 20_594),
        "TAX": -(1_490 + 2_980 - 1_538),
    }
    await life.audit(world)


async def test_a_move_while_the_invoice_is_open(client: Client, world: World) -> None:
    """Hard case 9: what is credited of an invoice that is still to be paid lowers what is due of it."""
    life = await Life.begin(
        client,
        world,
        datetime(2026, 4, 1, tzinfo=UTC),
        currency="EUR",
        company="DE-VAT",
        card=None,
        collection={"method": "SEND_INVOICE", "netDays": 60},
    )
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("updateCompany", **COMPANIES["AT"], vatId=None)
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    first, change = await life.invoices()
    (note,) = await life.credit_notes()
    assert lines_of(first) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert taken_of(note) == [(2_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert lines_of(change) == [("PRORATION", 1, 7_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert (taxes_of(first), taxes_of(note)) == ([("AE", 0.0, 4_900, 0)], [("AE", 0.0, 2_450, 0)])
    assert taxes_of(change) == [("S", 20.0, 7_450, 1_490)]
    assert (note["toInvoice"], note["toBalance"]) == (2_450, 0)
    assert (first["status"], first["amountCredited"], first["amountDue"]) == ("OPEN", 2_450, 2_450)
    assert (change["balanceApplied"], change["amountDue"]) == (0, 8_940)
    assert await life.books() == {
        "DEFERRED": -7_450,
        "RECEIVABLES": 2_450 + 8_940,
        "REVENUE": -2_450,
        "TAX": -1_490,
    }
    await life.audit(world)


async def test_a_certificate_of_a_customer_outside_the_scope(client: Client, world: World) -> None:
    """Hard case 9: a credit of category O never stands beside another category, of the same country either."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="US")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 4, 16, tzinfo=UTC))
    await life.do("setTaxExemption", exemption={"certificate": "NY-1", "reason": "Charity", "validFrom": "2026-04-16"})
    await life.do("changePlan", planKey="professional", interval="MONTH")
    first, change = await life.invoices()
    (note,) = await life.credit_notes()
    assert lines_of(first) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert taken_of(note) == [(2_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert lines_of(change) == [("PRORATION", 1, 7_450, "2026-04-16T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert (taxes_of(first), taxes_of(note)) == ([("O", 0.0, 4_900, 0)], [("O", 0.0, 2_450, 0)])
    assert taxes_of(change) == [("E", 0.0, 7_450, 0)]
    assert (change["balanceApplied"], change["amountPaid"], change["status"]) == (2_450, 5_000, "PAID")
    assert await life.books() == {"CASH": 4_900 + 5_000, "DEFERRED": -7_450, "REVENUE": -2_450}
    await life.audit(world)
