"""Files of tables, written a few rows at a time: CSV as bytes at once, XLSX by a file of its own until its end."""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..models import ExportFormat
from .rules.cells import write_rows

if TYPE_CHECKING:
    from xlsxwriter.format import Format

Cell: TypeAlias = str | int | Decimal | None
Row: TypeAlias = Sequence[Cell]
EXACT_DIGITS = 15
"""As many digits as a spreadsheet keeps of a number: what has more is written as a text."""
MAX_CELL = 32_767
"""How long a text of an XLSX cell may be."""
CUT = " … (cut: the CSV has all of it)"
CHUNK = 1024**2
PATIENCE_S = 20.0
"""So often whoever writes a large file says that it still does."""


class Sheet(Protocol):
    """A file of a table while it is written."""

    def add(self, rows: Sequence[Row]) -> bytes:
        """Write rows; what of the file is certain by now."""
        ...

    def end(self, hold_on: Callable[[], Awaitable[None]]) -> AsyncGenerator[bytes]:
        """The rest of the file. It may take long: `hold_on` is called every now and then."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


def knows_xlsx() -> bool:
    """Whether what writes XLSX is installed: the extra `xlsx`."""
    return importlib.util.find_spec("xlsxwriter") is not None


def open_sheet(format_: ExportFormat) -> "Sheet":
    """A file in a format that holds a table."""
    return Xlsx() if format_ is ExportFormat.XLSX else Csv()


class Csv:
    """CSV: each row is written as it comes."""

    def add(self, rows: Sequence[Row]) -> bytes:
        """The rows as bytes."""
        return write_rows([["" if cell is None else cell for cell in row] for row in rows])

    async def end(self, hold_on: Callable[[], Awaitable[None]]) -> AsyncGenerator[bytes]:  # noqa: ARG002
        """Nothing is left."""
        nothing: tuple[bytes, ...] = ()
        for data in nothing:
            yield data

    def close(self) -> None:
        """Nothing to leave behind."""


class Xlsx:
    """XLSX: rows go to a file of their own at once, so that no more than one is in memory, and are packed at the end.

    Texts are texts, whatever they begin with: no cell is a formula or a link.
    """

    def __init__(self) -> None:
        # Only who writes one needs it.
        from xlsxwriter import Workbook  # noqa: PLC0415

        self._folder = TemporaryDirectory(prefix="plafond-xlsx-")
        self._path = Path(self._folder.name) / "book.xlsx"
        options = {
            "constant_memory": True,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
            "tmpdir": self._folder.name,
        }
        self._book = Workbook(str(self._path), options)
        self._sheet = self._book.add_worksheet("Export")
        self._sheet.freeze_panes(1, 0)
        self._formats: dict[int, Format] = {}
        self._count = 0

    def add(self, rows: Sequence[Row]) -> bytes:
        """Write rows to the file."""
        for row in rows:
            for place, cell in enumerate(row):
                self._write(place, cell)
            self._count += 1
        return b""

    def _write(self, place: int, cell: Cell) -> None:
        if cell is None or cell == "":
            return
        if isinstance(cell, str):
            text = cell if len(cell) <= MAX_CELL else cell[: MAX_CELL - len(CUT)] + CUT
            self._sheet.write_string(self._count, place, text)
            return
        digits = len(str(abs(cell)).replace(".", "").lstrip("0"))
        if digits > EXACT_DIGITS:
            self._sheet.write_string(self._count, place, str(cell))
            return
        exponent = cell.as_tuple().exponent if isinstance(cell, Decimal) else 0
        assert isinstance(exponent, int), "amounts are numbers"
        # A double holds so many digits, and shows them again.
        self._sheet.write_number(self._count, place, float(cell), self._format(-exponent))

    def _format(self, decimals: int) -> "Format":
        if decimals not in self._formats:
            shown = "0" if decimals <= 0 else f"0.{'0' * decimals}"
            self._formats[decimals] = self._book.add_format({"num_format": shown})
        return self._formats[decimals]

    async def end(self, hold_on: Callable[[], Awaitable[None]]) -> AsyncGenerator[bytes]:
        """Pack the file, beside all else, and give it in pieces."""
        packing = asyncio.ensure_future(asyncio.to_thread(self._book.close))
        while not packing.done():
            await asyncio.wait({packing}, timeout=PATIENCE_S)
            if not packing.done():
                await hold_on()
        await packing
        with self._path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk

    def close(self) -> None:
        """Delete what was written beside."""
        self._folder.cleanup()
