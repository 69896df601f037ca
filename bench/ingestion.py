"""Measures ingestion by batch size on the embedded database."""

import asyncio
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from plafond.clock import SetClock
from plafond.database import Actor, Database
from plafond.migrations import migrate_database
from plafond.sandbox.seeds import SEEDER, seed_sandbox
from plafond.services.metering import record_usage
from plafond.services.usage import UsageInput
from plafond.settings import Environment

EVENTS = 3_000
SIZES = (1, 10, 100, 1_000)
ACTOR = Actor(name="system:bench", origin="bench")


async def measure(database: Database, size: int, events: int) -> float:
    """Events per second when they come in batches of a size."""
    started = time.perf_counter()
    for place in range(0, events, size):
        batch = [
            UsageInput(
                event_id=f"bench-{size}-{number}",
                metric="email_sends",
                external_id="acme",
                quantity=1,
                properties={"workspace": "main"},
            )
            for number in range(place, place + size)
        ]
        async with database.work(ACTOR) as work:
            await record_usage(work, SEEDER, batch)
    return events / (time.perf_counter() - started)


async def run() -> None:
    """Print one line for each batch size, as a ratio to single events."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{Path(folder) / 'bench.db'}"
        await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
        database = Database(address, SetClock(now), lambda _: None)
        await seed_sandbox(database, now)
        print(f"Ingestion into SQLite, {platform.machine()}, Python {platform.python_version()}")
        print(f"{'batch':>7} {'events/s':>10} {'× single':>9}")
        single = 0.0
        for size in SIZES:
            speed = await measure(database, size, 200 if size == 1 else EVENTS)
            single = single or speed
            print(f"{size:>7} {speed:>10,.0f} {speed / single:>9.1f}")
        await database.close()
