"""What is below the processor's minimum waits for the next invoice, and is given up on the last one."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

MOVED = "transactions(first: 50) { nodes { kind status amount { amountMinor } invoice { number } } }"


async def test_amounts_too_small_to_charge(client: Client, world: World) -> None:
    """30 cents are carried, then 20, then charged with a whole month; on the final invoice 30 are written off."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))

    async def grant(amount: int) -> None:
        await life.do("grantCredit", amountMinor=amount, currency="USD", reason="For your patience")

    await grant(4_870)
    started = await life.do("startSubscription", "subscription { status }", planKey="starter", interval="MONTH")
    assert started["subscription"]["status"] == "ACTIVE"
    coming = (await life.ask("nextBilling { at amount { amountMinor } }"))["nextBilling"]
    assert coming == {"at": "2026-05-01T00:00:00Z", "amount": 4_930}
    await life.advance(datetime(2026, 4, 20, tzinfo=UTC))
    await grant(4_910)
    await life.advance(datetime(2026, 6, 2, tzinfo=UTC))
    await life.use(quantity=10_001)
    await life.do("cancelSubscription")
    await grant(970)
    await life.advance(datetime(2026, 7, 1, 2, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"

    first, second, third, final = await life.invoices()
    bounds = [f"2026-{month}-01T00:00:00Z" for month in ("04", "05", "06", "07")]
    assert [lines_of(invoice) for invoice in (first, second, third)] == [
        [("SUBSCRIPTION", 1, 4_900, bounds[number], bounds[number + 1])] for number in range(3)
    ]
    assert lines_of(final) == [("OVERAGE", 1, 1_000, bounds[2], bounds[3])]
    assert [taxes_of(invoice) for invoice in (first, second, third, final)] == [
        [("O", 0.0, net, 0)] for net in (4_900, 4_900, 4_900, 1_000)
    ]
    assert (third["kind"], final["kind"]) == ("PERIOD", "FINAL")
    figures = [
        (i["total"], i["carriedIn"], i["balanceApplied"], i["amountPaid"], i["carriedOut"], i["amountDue"], i["status"])
        for i in (first, second, third, final)
    ]
    assert figures == [
        (4_900, 0, 4_870, 0, 30, 0, "PAID"),
        # 4,900 + 30 − 4,910 = 20.
        (4_900, 30, 4_910, 0, 20, 0, "PAID"),
        # 4,900 + 20.
        (4_900, 20, 0, 4_920, 0, 0, "PAID"),
        # 1,000 − 970 = 30.
        (1_000, 0, 970, 0, 30, 0, "PAID"),
    ]
    moved = [
        (node["kind"], node["status"], node["amount"], node["invoice"] and node["invoice"]["number"])
        for node in (await life.ask(MOVED))["transactions"]["nodes"]
        if node["kind"] != "CREDIT"
    ]
    assert moved == [
        ("WRITE_OFF", "SUCCEEDED", 30, final["number"]),
        ("CHARGE", "SUCCEEDED", 4_920, third["number"]),
        ("CARRIED_FORWARD", "SUCCEEDED", 20, second["number"]),
        ("CARRIED_FORWARD", "SUCCEEDED", 30, first["number"]),
    ]
    assert await life.books() == {
        "BAD_DEBT": 30,
        "CASH": 4_920,
        "GOODWILL": 4_870 + 4_910 + 970,
        "REVENUE": -(3 * 4_900 + 1_000),
    }
    await life.audit(world)


async def test_late_usage_after_the_end(client: Client, world: World) -> None:
    """Hard case 16: what came late after a cancellation is invoiced 35 days after the end; 30 cents are given up."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.use(quantity=10_000)
    await life.do("cancelSubscription")
    await life.advance(datetime(2026, 5, 20, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"
    # Nothing but the month itself: no lines, no invoice.
    assert len(await life.invoices()) == 1
    assert (await life.use(quantity=1, at=datetime(2026, 4, 30, tzinfo=UTC)))["status"] == "ACCEPTED"
    await life.do("grantCredit", amountMinor=970, currency="USD", reason="For your patience")
    # 35 × 24 hours after the end.
    await life.advance(datetime(2026, 6, 4, 23, 59, 59, tzinfo=UTC))
    assert len(await life.invoices()) == 1
    await life.advance(datetime(2026, 6, 5, tzinfo=UTC))
    refused = await life.use(quantity=1, at=datetime(2026, 4, 30, tzinfo=UTC))
    assert (refused["status"], refused["code"]) == ("REJECTED", "TOO_OLD")
    await life.advance(datetime(2026, 6, 6, tzinfo=UTC))

    start, last = await life.invoices()
    april, may = "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, april, may)]
    ((kind, _, amount, starts, ends),) = lines_of(last)
    assert (kind, amount, starts, ends) == ("CORRECTION", 1_000, april, may)
    assert taxes_of(last) == [("O", 0.0, 1_000, 0)]
    assert (last["balanceApplied"], last["amountPaid"], last["carriedOut"], last["status"]) == (970, 0, 30, "PAID")
    moved = (await life.ask(MOVED))["transactions"]["nodes"][0]
    assert (moved["kind"], moved["amount"], moved["invoice"]["number"]) == ("WRITE_OFF", 30, last["number"])
    assert await life.books() == {"BAD_DEBT": 30, "CASH": 4_900, "GOODWILL": 970, "REVENUE": -(4_900 + 1_000)}
    await life.audit(world)


async def test_a_minimum_is_reached_exactly(client: Client, world: World) -> None:
    """49 cents are too small, 50 are charged."""
    small = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), name="small")
    await small.do("grantCredit", amountMinor=4_851, currency="USD", reason="For your patience")
    await small.do("startSubscription", planKey="starter", interval="MONTH")
    (invoice,) = await small.invoices()
    assert (invoice["carriedOut"], invoice["amountPaid"]) == (49, 0)
    # What was carried stays a receivable until the next invoice.
    assert await small.books() == {"DEFERRED": -4_900, "GOODWILL": 4_851, "RECEIVABLES": 49}

    enough = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), name="enough")
    await enough.do("grantCredit", amountMinor=4_850, currency="USD", reason="For your patience")
    await enough.do("startSubscription", planKey="starter", interval="MONTH")
    (invoice,) = await enough.invoices()
    assert (invoice["carriedOut"], invoice["amountPaid"]) == (0, 50)
    assert await enough.books() == {"CASH": 50, "DEFERRED": -4_900, "GOODWILL": 4_850}
    await enough.audit(world)


async def test_a_balance_larger_than_the_total(client: Client, world: World) -> None:
    """A balance of 100.00 pays two months whole, without any charge, and the rest of it the third."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), card=None)
    await life.do("grantCredit", amountMinor=10_000, currency="USD", reason="A gift")
    # No card is needed where nothing is to be charged.
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 5_100
    assert (await life.ask("transactions(filter: { kind: [CHARGE] }) { totalCount }"))["transactions"] == {
        "totalCount": 0
    }
    await life.advance(datetime(2026, 5, 2, tzinfo=UTC))
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == 200
    await life.do("addPaymentMethod", token="pm_card_visa")
    await life.advance(datetime(2026, 6, 1, 2, tzinfo=UTC))
    invoices = await life.invoices()
    bounds = [f"2026-{month}-01T00:00:00Z" for month in ("04", "05", "06", "07")]
    assert [lines_of(invoice) for invoice in invoices] == [
        [("SUBSCRIPTION", 1, 4_900, bounds[number], bounds[number + 1])] for number in range(3)
    ]
    assert [taxes_of(invoice) for invoice in invoices] == [[("O", 0.0, 4_900, 0)]] * 3
    assert [(i["total"], i["balanceApplied"], i["amountPaid"], i["status"]) for i in invoices] == [
        (4_900, 4_900, 0, "PAID"),
        (4_900, 4_900, 0, "PAID"),
        (4_900, 200, 4_700, "PAID"),
    ]
    assert await life.books() == {
        "CASH": 4_700,
        "DEFERRED": -4_900,
        "GOODWILL": 10_000,
        "REVENUE": -2 * 4_900,
    }
    await life.audit(world)
