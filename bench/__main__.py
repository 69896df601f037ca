"""Measures the server, part by part (`make bench ARGS=closing`): ratios within one run, never absolute promises."""

import asyncio
import sys

from . import budgets, closing, documents, fanout, forecast, ingestion, rerating
from .results import Row, keep

PARTS = {
    "ingestion": ("Ingestion", ingestion.run),
    "budgets": ("Budgets that block", budgets.run),
    "fanout": ("One alert to many sockets of one process", fanout.run),
    "closing": ("Closing what is due at once", closing.run),
    "forecast": ("Forecasts of a month on series that were made up", forecast.run),
    "documents": ("Drawing documents", documents.run),
    "rerating": ("Pricing real months anew", rerating.run),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        title, run = PARTS[name]
        rows: list[Row] = []

        def tell(row: Row, rows: list[Row] = rows) -> None:
            print(f"{row.what:<75} {row.figure}", flush=True)
            rows.append(row)

        asyncio.run(run(tell))
        keep(name, title, rows)
        print()
