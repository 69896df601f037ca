"""Measures the server, part by part (`make bench ARGS=closing`): ratios within one run, never absolute promises."""

import asyncio
import sys

from . import closing, documents, fanout, ingestion

PARTS = {"ingestion": ingestion.run, "closing": closing.run, "documents": documents.run, "fanout": fanout.run}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        asyncio.run(PARTS[name]())
        print()
