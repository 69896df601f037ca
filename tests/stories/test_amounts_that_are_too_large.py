"""No amount passes what clients can read: what would is refused before it is owed."""

from datetime import UTC, datetime

from sqlalchemy import update

from plafond.database import Actor
from plafond.models import Price, PriceKind
from plafond.services.rules.money import MAX_AMOUNT_MINOR

from ..conftest import Client, World
from .life import Life


async def _price(world: World, kind: PriceKind, subject: str, amount_minor: int) -> None:
    async with world.database.work(Actor(name="system:test", origin="test")) as work:
        await work.session.execute(
            update(Price).where(Price.kind == kind, Price.subject == subject).values(amount_minor=amount_minor)
        )


async def test_credit_is_bounded_with_what_is_there(client: Client, world: World) -> None:
    """A single gift, and the balance that it makes."""
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    given = {"currency": "USD", "reason": "A large gift"}
    for amount in (MAX_AMOUNT_MINOR + 1, 2**53 - 1, 0, -1):
        refused = await life.try_to("grantCredit", amountMinor=amount, **given)
        (error,) = refused["userErrors"]
        assert error == {
            "code": "INVALID",
            "message": "`amountMinor` is from 1 to 1,000,000,000,000.",
            "field": ["input", "amountMinor"],
        }
    await life.do("grantCredit", amountMinor=MAX_AMOUNT_MINOR, **given)
    refused = await life.try_to("grantCredit", amountMinor=1, **given)
    assert refused["userErrors"][0]["message"] == "The balance would pass 1,000,000,000,000."
    assert (await life.ask("creditBalance { amountMinor }"))["creditBalance"] == MAX_AMOUNT_MINOR


async def test_units_and_overage_are_bounded_by_what_they_cost(client: Client, world: World) -> None:
    """10,000 units are many where each is dear; what limits they give stops where figures do."""
    await _price(world, PriceKind.ADD_ON, "additional_user", 10**9)
    await _price(world, PriceKind.OVERAGE, "email_sends", 10**9)
    life = await Life.begin(client, world, datetime(2026, 4, 1, tzinfo=UTC))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    for mutation in ("quoteAddOn", "setAddOn"):
        fields = "userErrors { code }" if mutation == "quoteAddOn" else "account { id }"
        refused = await life.try_to(mutation, fields, addOnKey="additional_user", quantity=1_001)
        assert [(error["code"], error["message"]) for error in refused["userErrors"]] == [
            ("INVALID", "At most 1,000 units of Additional user can be invoiced.")
        ]
    await life.do("setAddOn", addOnKey="additional_user", quantity=1_000)
    assert await life.figure("team_members") == (0, 1_002)

    # 10,000 are included; 1,000 blocks of 10,000 cost as much as a line holds.
    too_much = await life.use(quantity=10_010_001)
    assert (too_much["status"], too_much["code"]) == ("REJECTED", "INVALID_QUANTITY")
    assert "more than one invoice line holds" in too_much["message"]
    assert (await life.use(quantity=10_010_000))["status"] == "ACCEPTED"
    assert (await life.use(quantity=1))["code"] == "INVALID_QUANTITY"
    await life.advance(datetime(2026, 5, 1, 2, tzinfo=UTC))
    invoice = (await life.invoices())[-1]
    assert invoice["total"] == 2 * MAX_AMOUNT_MINOR + 4_900
    await life.audit(world)
