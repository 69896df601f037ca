"""The tax table: who levies what on whom, from when until when. It is always set as a whole."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import ReadSession, Work
from ..models import LineKind, TaxTableRow
from .catalogue_changes import Change, Step, Verb, lock_catalogue, take_steps
from .catalogue_entries import Locate, TaxEntry, read_entry
from .errors import BillingError, InvalidInput, Refusals

MAX_ROWS = 2_000

Content: TypeAlias = tuple[str, str, str, str | None, str, int, date, date | None]


async def list_tax_table(session: ReadSession) -> Sequence[TaxTableRow]:
    """All rows, by country and region, the oldest first."""
    return (
        await session.scalars(
            select(TaxTableRow).order_by(
                TaxTableRow.country,
                TaxTableRow.region,
                TaxTableRow.jurisdiction,
                TaxTableRow.valid_from,
                TaxTableRow.id,
            )
        )
    ).all()


def format_rate(rate_ppm: int) -> str:
    """In percent, exactly: 88,750 is 8.875."""
    return f"{Decimal(rate_ppm).scaleb(-4).normalize():f}"


def read_tax_rows(given: Sequence[object], at: Locate) -> tuple[list[TaxEntry], list[BillingError]]:
    """Rows from what was sent, and everything that is wrong with them."""
    if len(given) > MAX_ROWS:
        return [], [InvalidInput(f"A tax table has at most {MAX_ROWS} rows, this one has {len(given)}.", at(()))]
    entries: list[TaxEntry] = []
    places: list[int] = []
    faults: list[BillingError] = []
    for place, row in enumerate(given):
        entry, wrong = read_entry(TaxEntry, row, _below(at, place))
        faults += wrong
        if entry is not None:
            entries.append(entry)
            places.append(place)
    faults += [
        InvalidInput(
            f"This overlaps with row {places[earlier]} (from 0), so that {entries[later].levied_by} would levy twice: "
            "let that one end on the day this one begins.",
            at([str(places[later])]),
        )
        for earlier, later in find_overlaps(entries)
    ]
    return entries, faults


def _below(at: Locate, place: int) -> Locate:
    return lambda path: at([str(place), *path])


def find_overlaps(entries: Sequence[TaxEntry]) -> list[tuple[int, int]]:
    """Pairs of rows by which one jurisdiction would levy twice on one line: each row with the last one it overlaps.

    A row for every kind of line overlaps with one for a certain kind.
    """
    found = []
    latest: dict[tuple[str, str, str], dict[LineKind | None, int]] = {}
    for place in sorted(range(len(entries)), key=lambda place: entries[place].valid_from):
        entry = entries[place]
        by_kind = latest.setdefault((entry.country, entry.region, entry.levied_by), {})
        rivals = (
            by_kind if entry.kind is None else {kind: by_kind[kind] for kind in (entry.kind, None) if kind in by_kind}
        )
        overlapping = [rival for rival in rivals.values() if _end(entries[rival]) > entry.valid_from]
        if overlapping:
            found.append((max(overlapping, key=lambda rival: _end(entries[rival])), place))
        if entry.kind not in by_kind or _end(entries[by_kind[entry.kind]]) <= _end(entry):
            by_kind[entry.kind] = place
    return found


def _end(entry: TaxEntry) -> date:
    return entry.valid_to or date.max


async def compare_tax_table(session: AsyncSession, entries: Sequence[TaxEntry]) -> Step:
    """The table as it shall be: rows that stay are left alone."""
    held = {_content_of(row): row for row in await list_tax_table(ReadSession(session))}
    wanted = {_content(entry): entry for entry in entries}
    gone = [row for content, row in held.items() if content not in wanted]
    new = [entry for content, entry in wanted.items() if content not in held]
    if not gone and not new:
        return Step(Change(Verb.UNCHANGED, "tax table"))

    async def write(work: Work) -> None:
        for row in gone:
            await work.session.delete(row)
        for entry in new:
            work.session.add(
                TaxTableRow(
                    created_at=work.clock.now(),
                    country=entry.country,
                    region=entry.region,
                    jurisdiction=entry.levied_by,
                    line_kind=entry.kind,
                    category=entry.category,
                    rate_ppm=entry.rate_ppm,
                    valid_from=entry.valid_from,
                    valid_to=entry.valid_to,
                )
            )

    details = (
        *(f"- {_describe(_content_of(row))}" for row in gone),
        *(f"+ {_describe(_content(entry))}" for entry in new),
    )
    return Step(Change(Verb.CHANGED if held else Verb.ADDED, "tax table", details), write)


def _content(entry: TaxEntry) -> Content:
    return (
        entry.country,
        entry.region,
        entry.levied_by,
        entry.kind,
        entry.category,
        entry.rate_ppm,
        entry.valid_from,
        entry.valid_to,
    )


def _content_of(row: TaxTableRow) -> Content:
    return (
        row.country,
        row.region,
        row.jurisdiction,
        row.line_kind,
        row.category,
        row.rate_ppm,
        row.valid_from,
        row.valid_to,
    )


def _describe(content: Content) -> str:
    country, region, jurisdiction, kind, category, rate_ppm, valid_from, valid_to = content
    where = f"{country}-{region}" if region else country
    until = f" to {valid_to}" if valid_to else ""
    return f"{where} {jurisdiction} {kind or 'all lines'} {category} {format_rate(rate_ppm)} % from {valid_from}{until}"


async def set_tax_table(work: Work, given: Sequence[Mapping[str, object]], at: Locate) -> None:
    """Replace the whole table."""
    entries, faults = read_tax_rows(given, at)
    if faults:
        raise Refusals(faults)
    await lock_catalogue(work)
    await take_steps(work, [await compare_tax_table(work.session, entries)])
