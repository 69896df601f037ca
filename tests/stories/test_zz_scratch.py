from datetime import UTC, datetime
from ..conftest import Client, World
from .life import Life, lines_of


def d(*a): return datetime(*a, tzinfo=UTC)

async def test_trial_then_active(client: Client, world: World) -> None:
    life = await Life.begin(client, world, d(2026,3,2), company="AT")
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.use(quantity=10_000)
    await life.advance(d(2026,3,17))
    r = await life.use(quantity=1, at=d(2026,3,10))
    print("PROBE trial->active late:", r)
    await life.advance(d(2026,4,20))
    for i in await life.invoices(): print("PROBE1", i["status"], lines_of(i))

async def test_trial_then_canceled(client: Client, world: World) -> None:
    life = await Life.begin(client, world, d(2026,3,2), company="AT", card=None)
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.use(quantity=10_000)
    await life.advance(d(2026,3,17))
    print("PROBE trial->canceled late:", await life.use(quantity=1, at=d(2026,3,10)))
    await life.advance(d(2026,5,20))
    for i in await life.invoices(): print("PROBE2", i["status"], lines_of(i))

async def test_gap(client: Client, world: World) -> None:
    life = await Life.begin(client, world, d(2026,1,15), company="AT")
    await life.do("startSubscription", planKey="professional", interval="MONTH")
    await life.do("cancelSubscription")
    await life.advance(d(2026,4,1))
    await life.do("reactivateSubscription", planKey="starter", interval="MONTH")
    await life.advance(d(2026,4,2))
    print("PROBE gap:", await life.use(quantity=1, at=d(2026,3,25)))
    await life.advance(d(2026,5,2))
    for i in await life.invoices(): print("PROBE3", i["status"], lines_of(i))

async def test_before(client: Client, world: World) -> None:
    life = await Life.begin(client, world, d(2026,1,1), company="AT")
    await life.advance(d(2026,1,15))
    print("PROBE free:", await life.use(quantity=1, at=d(2026,1,5)))
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.advance(d(2026,1,20))
    print("PROBE before:", await life.use(quantity=1, at=d(2026,1,5)))
    await life.advance(d(2026,2,20))
    for i in await life.invoices(): print("PROBE4", i["status"], lines_of(i))

async def test_books_at_annual(client: Client, world: World) -> None:
    life = await Life.begin(client, world, d(2026,8,1), company="US")
    await life.do("startSubscription", planKey="starter", interval="MONTH")
    await life.do("setAddOn", addOnKey="additional_user", quantity=1)
    await life.advance(d(2026,8,16,12))
    await life.do("changePlan", planKey="starter", interval="YEAR")
    print("PROBE5", await life.books())
    await life.advance(d(2026,9,16,14))
    print("PROBE5", await life.books())
    for i in await life.invoices(): print("PROBE5", i["status"], lines_of(i))

async def test_vat_states(client: Client, world: World) -> None:
    life = await Life.begin(client, world, d(2026,3,2), company="AT", card=None)
    owner = await life.owner(world)
    await life.do("startTrial", planKey="starter", interval="MONTH")
    await life.advance(d(2026,3,17))
    plan = {"planKey": "starter", "interval": "MONTH"}
    async def probe(label):
        for mutation, given in (
            ("startTrial", plan), ("startSubscription", plan), ("reactivateSubscription", plan), ("changePlan", plan),
            ("quotePlanChange", plan), ("quoteAddOn", {"addOnKey": "dedicated_ip", "quantity": 1}),
            ("setAddOn", {"addOnKey": "dedicated_ip", "quantity": 1}), ("cancelSubscription", {}), ("resumeSubscription", {}), ("cancelScheduledChange", {}),
            ("updateBillingAccount", {"name": "Other"}), ("updateCompany", {"legalName": "Other"}), ("addPaymentMethod", {"token": "pm_card_visa"}),
        ):
            if label == "canceled" and mutation in ("reactivateSubscription", "addPaymentMethod"): continue
            p = await owner.try_to(mutation, **given)
            print("PROBE6", label, mutation, [e["code"] for e in p["userErrors"]])
    await probe("canceled")
    await life.advance(d(2026,6,20))
    await probe("expired")
