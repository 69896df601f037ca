"""Measures how fast documents are drawn: in one process, and in the pool that servers and workers use."""

import asyncio
import time
from pathlib import Path

from plafond.adapters.drawing import draw
from plafond.adapters.pdf import PdfPool
from plafond.services.papers import Paper

COUNT = 40


async def run() -> None:
    """Print documents per second, and the pool's as a ratio."""
    paper = Paper.model_validate_json((Path(__file__).parent / "invoice.json").read_text())
    draw(paper)  # the first one loads fonts and templates
    started = time.perf_counter()
    for _ in range(COUNT):
        draw(paper)
    alone = COUNT / (time.perf_counter() - started)
    print(f"{'documents':>12} {'per s':>7} {'× one process':>14}")
    print(f"{'in process':>12} {alone:>7.1f} {1:>14.2f}")
    for workers in (1, 2):
        pool = PdfPool(workers=workers)
        await asyncio.gather(*(pool.draw(paper) for _ in range(workers)))
        started = time.perf_counter()
        await asyncio.gather(*(pool.draw(paper) for _ in range(COUNT)))
        speed = COUNT / (time.perf_counter() - started)
        pool.close()
        print(f"{f'pool of {workers}':>12} {speed:>7.1f} {speed / alone:>14.2f}")
