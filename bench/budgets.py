"""Measures what blocking budgets cost: batches of accounts that have them against batches of others, in turns."""

from collections.abc import Sequence
from uuid import UUID

import psycopg
from sqlalchemy import update

from plafond.database import Database
from plafond.models import BudgetAction, BudgetScope, EffectiveLimit
from plafond.sandbox.seeds import SEEDER
from plafond.services.budgets import MAX_BUDGETS, BudgetInput, set_budget
from plafond.services.usage import UsageInput

from .accounts import ACTOR
from .ingestion import BATCH, NAMED, POSTGRES, Measure, alternate, make_batch, open_database, take_batch
from .results import Row, Tell

BLOCK = 10_000
WORKSPACES = MAX_BUDGETS - 2
PLENTY = 10**11
"""In minor units, far away: looking whether a budget stops something is what is measured."""


def make_overage(first: int) -> list[UsageInput]:
    """Events of some accounts from a number on, beyond their limits: each account begins a block of overage."""
    return make_batch(first=first, quantity=BLOCK * NAMED // BATCH, workspaces=WORKSPACES)


async def set_budgets(database: Database, account_ids: Sequence[UUID], count: int) -> None:
    """Blocking budgets: the account's own, that of the metric, then those of workspaces."""
    scopes: list[tuple[BudgetScope, str | None, str | None]] = [
        (BudgetScope.ACCOUNT, None, None),
        (BudgetScope.METRIC, "email_sends", None),
        *((BudgetScope.WORKSPACE, None, f"main-{place}") for place in range(WORKSPACES)),
    ]
    for account_id in account_ids:
        async with database.work(ACTOR) as work:
            for scope, metric, workspace in scopes[:count]:
                asked = BudgetInput(
                    scope=scope,
                    limit_minor=PLENTY,
                    currency="USD",
                    metric=metric,
                    workspace=workspace,
                    action=BudgetAction.BLOCK_OVERAGE,
                )
                await set_budget(work, SEEDER, account_id, asked)


async def compare(engine: str) -> list[Row]:
    """A batch whose accounts have no budget, one each, and as many as they may."""
    counts = (0, 1, MAX_BUDGETS)
    async with open_database(engine, NAMED * len(counts)) as (database, _, ids):
        async with database.work(ACTOR) as work:
            await work.session.execute(update(EffectiveLimit).values(quantity=0))
        for place, count in enumerate(counts):
            await take_batch(database, make_overage(place * NAMED))  # workspaces are named by events
            await set_budgets(database, ids[place * NAMED : (place + 1) * NAMED], count)

        def taking(place: int) -> Measure:
            return lambda: take_batch(database, make_overage(place * NAMED))

        found = await alternate(**{str(count): taking(place) for place, count in enumerate(counts)})
    return [
        Row(
            f"{engine}, a batch of accounts with {count} blocking budgets each",
            f"{BATCH / found[str(count)]:,.0f} events/s: {found[str(count)] / found['0']:.2f} × the time without",
        )
        for count in counts
    ]


async def run(tell: Tell) -> None:
    """Measure on both engines."""
    for engine in ("SQLite", "PostgreSQL"):
        try:
            found = await compare(engine)
        except psycopg.OperationalError as error:
            found = [Row("PostgreSQL", f"not measured: none answers at {POSTGRES}: {error}".strip())]
        for row in found:
            tell(row)
