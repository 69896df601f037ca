"""Usage that comes late, more and less of it, and where it is charged: hard case 16, on a plan with a limit of five."""

from datetime import UTC, datetime

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

JULY = ("2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z")
AUGUST = ("2026-08-01T00:00:00Z", "2026-09-01T00:00:00Z")
SEPTEMBER = ("2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z")
OCTOBER = ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
IN_JULY = datetime(2026, 7, 31, 23, 59, 59, tzinfo=UTC)


async def test_late_usage_reaches_its_period(client: Client, world: World) -> None:
    """Hard case 16: five of five used and two late are a correction of two blocks that names the period.

    In the draft's hour it goes onto the draft; less of it later is a credit; after 35 days nothing changes any more.
    """
    life = await Life.begin(client, world, datetime(2026, 7, 1, tzinfo=UTC), company="AT")
    await life.do(
        "setMetric",
        "metric { overageBlock }",
        key="email_sends",
        name="Email sends",
        kind="COUNTER",
        unit="email",
        overage={"block": 1, "prices": [{"currency": "USD", "amountMinor": 100}]},
    )
    await life.do(
        "publishPlan",
        "plan { key }",
        key="five",
        name="Five",
        tier=1,
        limits=[
            {"metricKey": "email_sends", "limit": 5},
            {"metricKey": "team_members", "limit": 1},
            {"metricKey": "workspaces", "limit": 1},
            {"metricKey": "custom_domains", "limit": 1},
        ],
        prices=[{"interval": "MONTH", "currency": "USD", "amountMinor": 900}],
    )
    await life.do("startSubscription", planKey="five", interval="MONTH")
    # Five minutes ahead is taken, one second more is not.
    assert (await life.use(quantity=1, at=datetime(2026, 7, 1, 0, 5, 1, tzinfo=UTC)))["code"] == "IN_FUTURE"
    assert (await life.use(quantity=1, at=datetime(2026, 7, 1, 0, 5, tzinfo=UTC)))["status"] == "ACCEPTED"
    # Before the first usage period there is nothing to count in.
    assert (await life.use(quantity=1, at=datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC)))["code"] == "TOO_OLD"
    await life.advance(datetime(2026, 7, 10, tzinfo=UTC))
    assert (await life.use(quantity=4))["used"] == 5

    # July is invoiced with nothing above its limit. Ten days later two more of July come.
    await life.advance(datetime(2026, 8, 1, 1, tzinfo=UTC))
    (_, july) = await life.invoices()
    assert lines_of(july) == [("SUBSCRIPTION", 1, 900, *AUGUST)]
    await life.advance(datetime(2026, 8, 10, tzinfo=UTC))
    late = await life.use(quantity=2, at=IN_JULY)
    assert (late["status"], late["used"]) == ("ACCEPTED", 7)
    assert await life.figure() == (0, 5)
    assert len(await life.invoices()) == 2
    upcoming = (await life.ask("upcomingInvoice { lines { kind amount { amountMinor } } }"))["upcomingInvoice"]
    assert sorted((line["kind"], line["amount"]) for line in upcoming["lines"]) == [
        ("CORRECTION", 200),
        ("SUBSCRIPTION", 900),
    ]
    assert (await life.use(quantity=6))["used"] == 6

    # August's invoice is a draft for an hour: what comes within goes onto it, before its last second is over.
    await life.advance(datetime(2026, 9, 1, 0, 59, 59, tzinfo=UTC))
    draft = (await life.invoices())[2]
    assert (draft["status"], draft["number"]) == ("DRAFT", None)
    in_august = datetime(2026, 8, 31, 12, tzinfo=UTC)
    assert (await life.use(quantity=1, at=in_august))["used"] == 7
    await life.advance(datetime(2026, 9, 1, 1, tzinfo=UTC))
    august = (await life.invoices())[2]
    # Two blocks, and the period is named.
    (correction,) = (line for line in august["lines"] if line["kind"] == "CORRECTION")
    assert "2" in {step["value"] for step in correction["explain"]["steps"]}
    assert lines_of(august) == [
        ("CORRECTION", correction["quantity"], 200, *JULY),
        ("OVERAGE", 2, 200, *AUGUST),
        ("SUBSCRIPTION", 1, 900, *SEPTEMBER),
    ]
    assert taxes_of(august) == [("S", 20.0, 1_300, 260)]
    assert (august["status"], august["total"]) == ("PAID", 1_560)

    # Until 35 days after July's end: one less, which is a block less of the two invoiced. Never below 0 in all.
    await life.advance(datetime(2026, 9, 4, 23, 59, 59, tzinfo=UTC))
    assert (await life.use(quantity=-1, at=IN_JULY))["code"] == "INVALID_QUANTITY"
    assert (await life.use(quantity=-8, correction=True, at=IN_JULY))["code"] == "NEGATIVE_USAGE"
    assert (await life.use(quantity=-1, correction=True, at=IN_JULY))["used"] == 6
    # One more of August: seven are two blocks, eight are three.
    assert (await life.use(quantity=1, at=in_august))["used"] == 8
    await life.advance(datetime(2026, 9, 5, tzinfo=UTC))
    assert (await life.use(quantity=1, at=IN_JULY))["code"] == "TOO_OLD"
    await life.advance(datetime(2026, 10, 1, 2, tzinfo=UTC))
    september = (await life.invoices())[3]
    assert sorted((line["quantity"], line["amount"], line["period"]["start"]) for line in september["lines"]) == [
        (-1, -100, JULY[0]),
        (1, 100, AUGUST[0]),
        (1, 900, OCTOBER[0]),
    ]
    assert all(line["explain"]["result"] == line["amount"] for line in september["lines"])
    assert taxes_of(september) == [("S", 20.0, 900, 180)]
    assert (september["total"], september["status"]) == (1_080, "PAID")
    # August's 35 days are over on October 6.
    await life.advance(datetime(2026, 10, 6, tzinfo=UTC))
    assert (await life.use(quantity=1, at=in_august))["code"] == "TOO_OLD"
    assert await life.credit_notes() == []
    net = 900 + 900 + 1_300 + 900
    assert await life.books() == {
        "CASH": net + net // 5,
        "DEFERRED": -900,
        "REVENUE": -(net - 900),
        "TAX": -(net // 5),
    }
    await life.audit(world)


async def test_a_late_event_within_a_started_block_changes_nothing(client: Client, world: World) -> None:
    """Hard case 16: with blocks of 10,000 and one billed, what stays within it makes no line; the next block does."""
    life = await Life.begin(client, world, datetime(2026, 7, 1, tzinfo=UTC), company="AT")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(datetime(2026, 7, 10, tzinfo=UTC))
    await life.use(quantity=15_000)
    await life.advance(datetime(2026, 8, 1, 1, tzinfo=UTC))
    # 5,000 above start one block; 5,000 more fill it. Another starts the second.
    await life.advance(datetime(2026, 8, 3, tzinfo=UTC))
    assert (await life.use(quantity=5_000, at=IN_JULY))["used"] == 20_000
    await life.advance(datetime(2026, 9, 1, 1, tzinfo=UTC))
    await life.advance(datetime(2026, 9, 2, tzinfo=UTC))
    assert (await life.use(quantity=1, at=IN_JULY))["used"] == 20_001
    # A change in between does not carry it: half of 30 days of September.
    await life.advance(datetime(2026, 9, 16, tzinfo=UTC))
    await life.do("changePlan", planKey="professional", interval="MONTH")
    await life.advance(datetime(2026, 10, 1, 1, tzinfo=UTC))
    _, july, august, change, september = await life.invoices()
    assert lines_of(july) == [("OVERAGE", 1, 1_000, *JULY), ("SUBSCRIPTION", 1, 4_900, *AUGUST)]
    assert taxes_of(july) == [("S", 20.0, 5_900, 1_180)]
    assert lines_of(august) == [("SUBSCRIPTION", 1, 4_900, *SEPTEMBER)]
    assert taxes_of(august) == [("S", 20.0, 4_900, 980)]
    half = ("2026-09-16T00:00:00Z", "2026-10-01T00:00:00Z")
    assert lines_of(change) == [("CREDIT", -1, -2_450, *half), ("PRORATION", 1, 7_450, *half)]
    assert taxes_of(change) == [("S", 20.0, 5_000, 1_000)]
    assert lines_of(september) == [("CORRECTION", 1, 1_000, *JULY), ("SUBSCRIPTION", 1, 14_900, *OCTOBER)]
    assert taxes_of(september) == [("S", 20.0, 15_900, 3_180)]
    net = 4_900 + 5_900 + 4_900 + 5_000 + 15_900
    assert await life.books() == {
        "CASH": net + net // 5,
        "DEFERRED": -14_900,
        "REVENUE": -(net - 14_900),
        "TAX": -(net // 5),
    }
    await life.audit(world)
