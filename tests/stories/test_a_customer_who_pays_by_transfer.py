"""Invoices that are sent: starts and changes take effect at once, and the invoice waits for its terms."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

TERMS = {"method": "SEND_INVOICE", "netDays": 60}


async def test_a_trial_of_a_customer_who_pays_by_transfer(client: Client, world: World) -> None:
    """Such an account counts as having a method at its trial's end; nothing is charged, all is open until due."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT", card=None, collection=TERMS)
    await life.do("startTrial", planKey="starter", interval="MONTH")
    # While trialing an add-on is set without lines.
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    assert await life.invoices() == []
    assert (await life.subscription())["status"] == "TRIALING"
    refused = await life.use(quantity=10_001)
    assert (refused["status"], refused["code"]) == ("REJECTED", "LIMIT_EXCEEDED")
    await life.advance(datetime(2026, 4, 15, tzinfo=UTC))
    assert (await life.subscription())["status"] == "ACTIVE"
    # Half of the 30 days is left.
    await life.advance(datetime(2026, 4, 30, tzinfo=UTC))
    changed = await life.do(
        "changePlan",
        "subscription { plan { key } } invoice { status } transaction { id } pendingChange { act }",
        planKey="professional",
        interval="MONTH",
    )
    assert changed["subscription"]["plan"]["key"] == "professional"
    assert (changed["invoice"]["status"], changed["transaction"], changed["pendingChange"]) == ("OPEN", None, None)
    await life.advance(datetime(2026, 5, 16, tzinfo=UTC))

    start, change, close = await life.invoices()
    assert lines_of(start) == [
        ("ADD_ON", 1, 1_500, "2026-04-15T00:00:00Z", "2026-05-15T00:00:00Z"),
        ("SUBSCRIPTION", 1, 4_900, "2026-04-15T00:00:00Z", "2026-05-15T00:00:00Z"),
    ]
    assert lines_of(change) == [
        ("CREDIT", -1, -2_450, "2026-04-30T00:00:00Z", "2026-05-15T00:00:00Z"),
        ("PRORATION", 1, 7_450, "2026-04-30T00:00:00Z", "2026-05-15T00:00:00Z"),
    ]
    assert lines_of(close) == [
        ("ADD_ON", 1, 1_500, "2026-05-15T00:00:00Z", "2026-06-15T00:00:00Z"),
        ("SUBSCRIPTION", 1, 14_900, "2026-05-15T00:00:00Z", "2026-06-15T00:00:00Z"),
    ]
    assert taxes_of(start) == [("S", 20.0, 6_400, 1_280)]
    assert taxes_of(change) == [("S", 20.0, 5_000, 1_000)]
    assert taxes_of(close) == [("S", 20.0, 16_400, 3_280)]
    # 60 days are 60 × 24 hours from the instant of issue.
    assert [(i["kind"], i["status"], i["issuedAt"], i["dueAt"], i["amountDue"]) for i in (start, change, close)] == [
        ("START", "OPEN", "2026-04-15T00:00:00Z", "2026-06-14T00:00:00Z", 7_680),
        ("CHANGE", "OPEN", "2026-04-30T00:00:00Z", "2026-06-29T00:00:00Z", 6_000),
        ("PERIOD", "OPEN", "2026-05-15T01:00:00Z", "2026-07-14T01:00:00Z", 19_680),
    ]
    assert (await life.ask("transactions { totalCount }"))["transactions"]["totalCount"] == 0
    assert await life.books() == {
        "DEFERRED": -16_400,
        "RECEIVABLES": 7_680 + 6_000 + 19_680,
        "REVENUE": -(6_400 + 5_000),
        "TAX": -(1_280 + 1_000 + 3_280),
    }
    await life.audit(world)


async def test_a_start_by_transfer(client: Client, world: World) -> None:
    """A start takes effect at once, without a card, and is due after 30 days when nothing else was agreed."""
    life = await Life.begin(
        client,
        world,
        datetime(2026, 4, 1, tzinfo=UTC),
        company="AT",
        card=None,
        collection={"method": "SEND_INVOICE"},
    )
    started = await life.do("startSubscription", "subscription { status }", planKey="starter", interval="MONTH")
    assert started["subscription"]["status"] == "ACTIVE"
    (invoice,) = await life.invoices()
    assert lines_of(invoice) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert taxes_of(invoice) == [("S", 20.0, 4_900, 980)]
    assert (invoice["status"], invoice["dueAt"], invoice["amountDue"]) == ("OPEN", "2026-05-01T00:00:00Z", 5_880)
    assert await life.books() == {"DEFERRED": -4_900, "RECEIVABLES": 5_880, "TAX": -980}
    await life.audit(world)


async def test_a_trial_without_a_way_to_pay(client: Client, world: World) -> None:
    """Without a card and with the usual terms the trial just ends: no invoice, nothing in the books."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT", card=None)
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 4, 15, tzinfo=UTC))
    assert (await life.subscription())["status"] == "CANCELED"
    assert await life.invoices() == []
    assert await life.books() == {}
    await life.audit(world)


async def test_a_change_while_a_sent_draft_waits(client: Client, world: World) -> None:
    """Hard case 8: half an hour into May the draft of its close is finalised first, then the change, both open."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC), company="AT", card=None, collection=TERMS)
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 5, 1, 0, 30, tzinfo=UTC))
    assert (await life.invoices())[-1]["status"] == "DRAFT"
    await life.do("changePlan", planKey="professional", interval="MONTH")
    start, close, change = await life.invoices()
    assert lines_of(start) == [("SUBSCRIPTION", 1, 4_900, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")]
    assert lines_of(close) == [("SUBSCRIPTION", 1, 4_900, "2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z")]
    # 2,676,600 s of 2,678,400 s are left: 4,900 × … = 4,896.7 and 14,900 × … = 14,889.99.
    assert lines_of(change) == [
        ("CREDIT", -1, -4_897, "2026-05-01T00:30:00Z", "2026-06-01T00:00:00Z"),
        ("PRORATION", 1, 14_890, "2026-05-01T00:30:00Z", "2026-06-01T00:00:00Z"),
    ]
    # 9,993 × 20 % = 1,998.6.
    assert [taxes_of(invoice) for invoice in (start, close, change)] == [
        [("S", 20.0, 4_900, 980)],
        [("S", 20.0, 4_900, 980)],
        [("S", 20.0, 9_993, 1_999)],
    ]
    assert [(i["number"][-6:], i["status"], i["issuedAt"]) for i in (start, close, change)] == [
        ("000001", "OPEN", "2026-04-01T00:00:00Z"),
        ("000002", "OPEN", "2026-05-01T00:30:00Z"),
        ("000003", "OPEN", "2026-05-01T00:30:00Z"),
    ]
    # Half an hour of May is earned by what Starter cost in it: 4,900 − 4,897.
    assert await life.books() == {
        "DEFERRED": -14_890,
        "RECEIVABLES": 5_880 + 5_880 + 11_992,
        "REVENUE": -(4_900 + 3),
        "TAX": -(980 + 980 + 1_999),
    }
    await life.audit(world)
