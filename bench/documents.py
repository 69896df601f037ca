"""Measures how fast documents are drawn: in one process, and in the pool that servers and workers use."""

import asyncio
import time
from pathlib import Path

from plafond.adapters.drawing import draw
from plafond.adapters.pdf import PdfPool
from plafond.services.papers import Paper

from .results import Row, Tell

COUNT = 40


async def run(tell: Tell) -> None:
    """Documents per second, and the pool's as a ratio."""
    paper = Paper.model_validate_json((Path(__file__).parent / "invoice.json").read_text())
    draw(paper)  # the first one loads fonts and templates
    started = time.perf_counter()
    for _ in range(COUNT):
        draw(paper)
    alone = COUNT / (time.perf_counter() - started)
    tell(Row("An invoice, in the process itself", f"{alone:.1f} a second"))
    for workers in (1, 2):
        pool = PdfPool(workers=workers)
        await asyncio.gather(*(pool.draw(paper) for _ in range(workers)))
        started = time.perf_counter()
        await asyncio.gather(*(pool.draw(paper) for _ in range(COUNT)))
        speed = COUNT / (time.perf_counter() - started)
        pool.close()
        tell(Row(f"An invoice, in a pool of {workers}", f"{speed:.1f} a second: {speed / alone:.2f} × in the process"))
