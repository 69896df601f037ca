"""Measures advice: pricing an account's twelve months on all plans, and reading what it is advised from a database."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.clock import SetClock
from plafond.database import Database
from plafond.migrations import migrate_database
from plafond.models import BillingAccount
from plafond.sandbox.scenarios import create_scenario
from plafond.sandbox.seeds import SEEDER
from plafond.services.recommendations import Grounds, list_offers, load_grounds, open_case, recommend
from plafond.services.rules.rerating import Case, Month, PlanPrice, Used, advise, price_months
from plafond.services.test_clocks import advance_clock
from plafond.services.tills import Till
from plafond.settings import Environment

from .accounts import ACTOR, open_catalogue
from .results import Row, Tell

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
TIMES = 200


def measure_ms(act: Callable[[], object]) -> float:
    """How many milliseconds it takes, the middle one of many times."""
    spent = []
    for _ in range(TIMES):
        started = time.perf_counter()
        act()
        spent.append((time.perf_counter() - started) * 1000)
    return median(spent)


def fill_year(case: Case) -> Case:
    """The same account with twelve months that all differ, in which add-ons are held and limits passed."""
    months = [
        Month(
            start=NOW + timedelta(days=30 * n),
            end=NOW + timedelta(days=30 * (n + 1)),
            place=n,
            used={
                "email_sends": Used(7_919 * (n + 3)),
                "team_members": Used(2 + n % 4),
                "workspaces": Used(3 + n % 7),
                "custom_domains": Used(n % 5),
            },
        )
        for n in range(12)
    ]
    held = {"additional_user": 5, "extra_workspace": 9, "extra_emails": 4}
    return replace(case, months=months, present=replace(case.present, units=held))


def price_all(case: Case, offers: list[PlanPrice]) -> None:
    """The months on every plan and interval, with the add-ons held."""
    for offer in offers:
        price_months(case.market, replace(case.present, plan=offer), case.months)


async def run(tell: Tell) -> None:
    """The arithmetic alone, and one account's advice with all that is read for it, on SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{Path(folder) / 'bench.db'}"
        await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
        database = Database(address, SetClock(NOW), lambda _: None)
        await open_catalogue(database)
        till = Till(database, SandboxProcessor(database), ACTOR)
        account = await create_scenario(till, SEEDER, "at-95-percent", NOW)
        async with database.read() as session:
            row = await session.get_one(BillingAccount, account.id)
        await advance_clock(till, row.test_clock_id, NOW + timedelta(days=370))

        async def read() -> Grounds:
            async with database.read() as session:
                return await load_grounds(session, row, database.clock.now())

        grounds = await read()
        assert grounds.buyer.agreement is not None, "the scenario has a plan"
        case = fill_year(open_case(grounds, grounds.buyer.agreement))
        offers = [price for price, _ in list_offers(grounds)]
        plans = len({offer.key for offer in offers})
        tell(
            Row(
                f"Twelve months on {plans} plans, {len(offers)} prices",
                f"{measure_ms(lambda: price_all(case, offers)):.2f} ms",
            )
        )
        found = advise(case, offers)
        tell(
            Row(
                f"The same with the cheapest add-ons for each: {len(found)} recommendations",
                f"{measure_ms(lambda: advise(case, offers)):.2f} ms",
            )
        )
        spent = []
        for _ in range(TIMES):
            started = time.perf_counter()
            recommend(await read())
            spent.append((time.perf_counter() - started) * 1000)
        tell(Row("SQLite, one account's recommendations, all that they rest on read", f"{median(spent):.1f} ms"))
        await database.close()
