"""Tables as CSV (RFC 4180). What strangers chose stays text in a spreadsheet, and is never run as a formula."""

import csv
import io
from collections.abc import Sequence
from decimal import Decimal

STARTS_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the start of a formula, the full-width forms included."""
TURNS_CELL = frozenset("\t\r\n")


def guard_cell(text: str) -> str:
    """A text as a cell: with an apostrophe before it where a spreadsheet would run it."""
    if text[:1] in TURNS_CELL or text.lstrip()[:1] in STARTS_FORMULA:
        return f"'{text}"
    return text


def write_rows(rows: Sequence[Sequence[str | int | Decimal]]) -> bytes:
    """Rows in UTF-8: texts guarded and in quotes, numbers as they are, so that a negative one stays a number."""
    page = io.StringIO(newline="")
    writer = csv.writer(page, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writerows([guard_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return page.getvalue().encode()
