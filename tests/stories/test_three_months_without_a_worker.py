"""The worker is away for three months: what it missed happens in order and once, and one bad account stops no other."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.database import Actor
from plafond.services.tills import Till
from plafond.worker import do_due_work

from ..conftest import Client, World
from .life import Life, lines_of, taxes_of

WORKER = Actor(name="system:worker", origin="worker")
BOUNDS = ["2026-11-25", "2026-12-25", "2027-01-25", "2027-02-25", "2027-03-25"]
CHARGES = "transactions(filter: { kind: [CHARGE] }) { nodes { status invoice { number } } }"


async def work_off(world: World) -> None:
    """All that is due by the wall clock."""
    till = Till(world.database, SandboxProcessor(world.database), WORKER)
    while await do_due_work(till):
        pass


async def charges(life: Life) -> list[tuple[str, str]]:
    """All charges that the processor was asked for, oldest first, as status and the invoice's number."""
    nodes = (await life.ask(CHARGES))["transactions"]["nodes"]
    asked = [node for node in reversed(nodes) if node["status"] != "CANCELED"]
    return [(node["status"], node["invoice"]["number"]) for node in asked]


async def test_three_months_without_a_worker(client: Client, world: World) -> None:
    """Hard cases 28, 29: by two workers at once, an invoice for each period; after a failed charge the rest wait."""
    steady = await Life.begin(client, world, None, company="AT", name="steady")
    broke = await Life.begin(client, world, None, company="AT", name="broke")
    for life in (steady, broke):
        await life.do("startSubscription", planKey="starter", interval="MONTH")
    await broke.do("addPaymentMethod", token="pm_card_chargeDeclined")

    world.clock.stands_at = datetime(2027, 2, 25, 14, tzinfo=UTC)
    await asyncio.gather(work_off(world), work_off(world))
    await work_off(world)

    for life in (steady, broke):
        invoices = await life.invoices()
        assert [lines_of(invoice) for invoice in invoices] == [
            [("SUBSCRIPTION", 1, 4_900, f"{BOUNDS[number]}T12:00:00Z", f"{BOUNDS[number + 1]}T12:00:00Z")]
            for number in range(4)
        ]
        assert [taxes_of(invoice) for invoice in invoices] == [[("S", 20.0, 4_900, 980)]] * 4
        # Issued now, never backdated; numbers rise with the periods.
        assert [invoice["issuedAt"] for invoice in invoices] == [
            "2026-11-25T12:00:00Z",
            *["2027-02-25T14:00:00Z"] * 3,
        ]
        numbers = [invoice["number"] for invoice in invoices]
        assert numbers == sorted(set(numbers))

    invoices = await steady.invoices()
    assert [invoice["status"] for invoice in invoices] == ["PAID"] * 4
    assert await charges(steady) == [("SUCCEEDED", invoice["number"]) for invoice in invoices]
    assert await steady.books() == {
        "CASH": 4 * 5_880,
        "DEFERRED": -4_900,
        "REVENUE": -3 * 4_900,
        "TAX": -4 * 980,
    }

    invoices = await broke.invoices()
    assert [invoice["status"] for invoice in invoices] == ["PAID", "OPEN", "OPEN", "OPEN"]
    assert (await broke.subscription())["status"] == "PAST_DUE"
    assert await broke.books() == {
        "CASH": 5_880,
        "DEFERRED": -4_900,
        "RECEIVABLES": 3 * 5_880,
        "REVENUE": -3 * 4_900,
        "TAX": -4 * 980,
    }
    await steady.audit(world)
    # The other two were not asked for: they wait for dunning.
    assert await charges(broke) == [("SUCCEEDED", invoices[0]["number"]), ("FAILED", invoices[1]["number"])]


# A zone that is not known any more: of a running year, and of the account itself.
DAMAGE = {
    "YEAR": "UPDATE subscription SET zone = :zone "
    "WHERE account_id = (SELECT id FROM billing_account WHERE external_id = 'runaway')",
    "MONTH": "UPDATE billing_account SET timezone = :zone WHERE external_id = 'runaway'",
}


@pytest.mark.parametrize(("interval", "end", "net"), [("YEAR", "2027-11-25", 47_000), ("MONTH", "2026-12-25", 4_900)])
async def test_an_account_whose_work_fails_again_and_again(
    client: Client, world: World, interval: str, end: str, net: int
) -> None:
    """Hard case 29: after eight tries it is parked and shown to operators, and the others go on."""
    steady = await Life.begin(client, world, None, company="AT", name="steady")
    runaway = await Life.begin(client, world, None, company="AT", name="runaway")
    await steady.do("startSubscription", planKey="starter", interval="MONTH")
    await runaway.do("startSubscription", planKey="starter", interval=interval)

    async def set_zone(zone: str) -> None:
        async with world.database.work(WORKER) as work:
            await work.session.execute(text(DAMAGE[interval]), {"zone": zone})

    async def parked() -> list[dict[str, object]]:
        data = await client.data(
            world.operator, "{ parkedAccounts { kind dueAt tries failure account { externalId } } }"
        )
        found: list[dict[str, object]] = data["parkedAccounts"]  # type: ignore[assignment]
        return found

    await set_zone("Mars/Olympus_Mons")
    world.clock.stands_at = datetime(2026, 12, 25, 14, tzinfo=UTC)
    await work_off(world)
    assert [invoice["status"] for invoice in await steady.invoices()] == ["PAID", "PAID"]
    for _ in range(7):
        assert await parked() == []
        # Longer than any pause between two tries.
        world.clock.stands_at += timedelta(minutes=6)
        await work_off(world)
    (row,) = await parked()
    assert row.pop("failure")
    assert row == {
        "kind": "CLOSE_PERIOD",
        "dueAt": "2026-12-25T12:00:00Z",
        "tries": 8,
        "account": {"externalId": "runaway"},
    }
    # It is left alone from now on, however long: the rest go on.
    world.clock.stands_at = datetime(2027, 1, 25, 14, tzinfo=UTC)
    await work_off(world)
    assert [invoice["status"] for invoice in await steady.invoices()] == ["PAID"] * 3
    assert [entry["tries"] for entry in await parked()] == [8]
    await set_zone("UTC")
    (only,) = await runaway.invoices()
    tax = net // 5
    assert lines_of(only) == [("SUBSCRIPTION", 1, net, "2026-11-25T12:00:00Z", f"{end}T12:00:00Z")]
    assert taxes_of(only) == [("S", 20.0, net, tax)]
    assert "ACCOUNT_PARKED" in await runaway.notices()
    assert await runaway.books() == {"CASH": net + tax, "DEFERRED": -net, "TAX": -tax}
    assert await steady.books() == {
        "CASH": 3 * 5_880,
        "DEFERRED": -4_900,
        "REVENUE": -2 * 4_900,
        "TAX": -3 * 980,
    }
    await steady.audit(world)
