"""Months lived by the engine, priced anew: what they cost is what was invoiced, and what is advised can be ordered."""

from datetime import UTC, datetime
from typing import Any

from ..conftest import Client, World
from .life import Life

ADVICE = """id kind title params saving { amountMinor } savingPerYear { amountMinor } confidence metric { key } workspace
change { plan { key } interval addOns { addOn { key } quantity } }
evidence { basedOnMonths saving { amountMinor } worst { start saving { amountMinor } }
  months { start end current { amountMinor } suggested { amountMinor } saving { amountMinor } } }"""


async def advice(life: Life) -> dict[str, Any]:
    """What stands, by kind and subject of its change."""
    found = await life.ask(f"recommendations {{ totalCount nodes {{ {ADVICE} }} }}")
    rows = found["recommendations"]["nodes"]
    assert len(rows) == found["recommendations"]["totalCount"]
    return {row["kind"] + ":" + (row["params"].get("planKey") or row["params"].get("addOnKey") or ""): row for row in rows}


def month(number: int, day: int = 1, hour: int = 0) -> datetime:
    return datetime(2026 + (number - 1) // 12, (number - 1) % 12 + 1, day, hour, tzinfo=UTC)


async def test_try(client: Client, world: World) -> None:
    life = await Life.begin(client, world, month(1))
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.do("setAddOn", addOnKey="additional_user", quantity=3)
    await life.use("team_members", level=3)
    for n in range(1, 5):
        await life.advance(month(n, 10))
        await life.use(quantity=60_000 + n * 10_000)
    await life.advance(month(5, 2))
    import json
    print(json.dumps(await advice(life), indent=1))
    for invoice in await life.invoices():
        print(invoice["subtotal"], [(l["kind"], l["amount"]) for l in invoice["lines"]])
