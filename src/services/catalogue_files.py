"""A catalogue file: its shape, what differs from what is stored, and applying it."""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import ReadSession, Work
from ..models import BillingAccount, Metric, Plan
from .catalogue_changes import (
    Change,
    Step,
    compare_add_on,
    compare_issuer,
    compare_metric,
    compare_plan,
    lock_catalogue,
    take_steps,
)
from .catalogue_entries import AddOnEntry, EntryT, IssuerEntry, Locate, MetricEntry, PlanEntry, TaxEntry, read_entry
from .errors import BillingError, InvalidInput, Refusals, list_refusals
from .rules.money import exponent_of
from .tax_tables import compare_tax_table, read_tax_rows

NAMES = ("currencies", "issuer", "metrics", "plans", "add_ons", "taxes")
PRICES: Mapping[str, Sequence[tuple[str, ...]]] = {
    "metrics": [("overage", "prices")],
    "plans": [("month",), ("year",)],
    "add_ons": [("month",)],
}
"""Where prices stand."""
MAX_ENTRIES = 1_000


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """A file as it was read. What it does not name stays as it is."""

    issuer: IssuerEntry | None
    metrics: tuple[MetricEntry, ...]
    plans: tuple[PlanEntry, ...]
    add_ons: tuple[AddOnEntry, ...]
    taxes: tuple[TaxEntry, ...] | None
    """None leaves the tax table as it is."""
    metric_keys: frozenset[str]
    plan_keys: frozenset[str]
    """All that the file names, also in entries that are wrong."""
    faults: tuple[BillingError, ...]
    """What is wrong with the file by itself: told together with what does not fit what is stored."""


def place_in_file(refusal: BillingError) -> str:
    """Where in the file a refusal is about, such as `plans.starter.limits.email_sends`."""
    return ".".join(refusal.field)


def read_catalogue(content: bytes) -> Catalogue:
    """A catalogue from a file's content. What is wrong with it is kept for when it is compared."""
    try:
        given = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The file is not TOML in UTF-8: {error}.") from error
    faults: list[BillingError] = [
        InvalidInput(f"This name is not known here: a file holds {', '.join(NAMES)}.", (name,))
        for name in given
        if name not in NAMES
    ]
    tables = {name: _read_list(given, name, faults) for name in ("metrics", "plans", "add_ons", "taxes")}
    metrics = _read_entries(MetricEntry, tables["metrics"], "metrics", faults)
    plans = _read_entries(PlanEntry, tables["plans"], "plans", faults)
    add_ons = _read_entries(AddOnEntry, tables["add_ons"], "add_ons", faults)
    taxes, wrong = read_tax_rows(tables["taxes"], _below("taxes"))
    faults += wrong
    issuer = None
    if "issuer" in given:
        issuer, wrong = read_entry(IssuerEntry, given["issuer"], _below("issuer"))
        faults += wrong
    currencies = _read_currencies(given, faults)
    if currencies:
        told = {fault.field for fault in faults}
        for at, found in _list_prices(tables):
            faults += [fault for fault in _check_currencies(found, currencies, at) if fault.field not in told]
    return Catalogue(
        issuer=issuer,
        metrics=tuple(metrics),
        plans=tuple(plans),
        add_ons=tuple(add_ons),
        taxes=tuple(taxes) if "taxes" in given else None,
        metric_keys=frozenset(_keys_of(tables["metrics"])),
        plan_keys=frozenset(_keys_of(tables["plans"])),
        faults=tuple(faults),
    )


def _below(*place: str) -> Locate:
    return lambda path: (*place, *path)


def _read_list(given: Mapping[str, Any], name: str, faults: list[BillingError]) -> list[Any]:
    found = given.get(name, [])
    if isinstance(found, list) and (len(found) <= MAX_ENTRIES or name == "taxes"):
        return found
    faults.append(
        InvalidInput(f"A list of tables is wanted here, each under [[{name}]], {MAX_ENTRIES} at most.", [name])
    )
    return []


def _keys_of(tables: Sequence[Any]) -> list[str]:
    keys = [table.get("key") for table in tables if isinstance(table, Mapping)]
    return [key for key in keys if isinstance(key, str)]


def _name_of(table: object, place: int) -> str:
    key = table.get("key") if isinstance(table, Mapping) else None
    return key if isinstance(key, str) and key else str(place)


def _read_entries(model: type[EntryT], tables: Sequence[Any], name: str, faults: list[BillingError]) -> list[EntryT]:
    twice = [key for key, times in Counter(_keys_of(tables)).items() if times > 1]
    faults += [InvalidInput("This key is there twice.", (name, key)) for key in twice]
    entries = []
    for place, table in enumerate(tables):
        entry, wrong = read_entry(model, table, _below(name, _name_of(table, place)))
        faults += wrong
        if entry is not None:
            entries.append(entry)
    return entries


def _read_currencies(given: Mapping[str, Any], faults: list[BillingError]) -> list[str]:
    found = given.get("currencies", [])
    if not any(name in given for name in ("currencies", "metrics", "plans", "add_ons")):
        return []
    if not isinstance(found, list) or not found or not all(isinstance(code, str) for code in found):
        faults.append(
            InvalidInput('Name the currencies that everything has a price in, such as ["USD", "EUR"].', ["currencies"])
        )
        return []
    for code in found:
        try:
            exponent_of(code)
        except ValueError as error:
            faults.append(InvalidInput(f"{error}.", ["currencies"]))
    return found


def _list_prices(tables: Mapping[str, Sequence[Any]]) -> Iterator[tuple[tuple[str, ...], Mapping[str, object]]]:
    """Everything that has to have a price in every currency, and where it stands; also where the rest is wrong."""
    for name, places in PRICES.items():
        for number, table in enumerate(tables[name]):
            # A negotiated price is in its account's currency.
            if not isinstance(table, Mapping) or "private_to" in table:
                continue
            for place in places:
                found: Any = table
                for part in place:
                    found = found.get(part) if isinstance(found, Mapping) else None
                if isinstance(found, Mapping) and (found or name != "plans"):
                    yield (name, _name_of(table, number), *place), found


def _check_currencies(
    prices: Mapping[str, object], currencies: Sequence[str], at: tuple[str, ...]
) -> list[BillingError]:
    faults: list[BillingError] = []
    missing = [code for code in currencies if code not in prices]
    if missing:
        faults.append(InvalidInput(f"There is no price in {', '.join(missing)}.", at))
    faults += [
        InvalidInput(f"{code} is not one of the file's currencies: add it there, or take it out here.", (*at, code))
        for code in prices
        if code not in currencies
    ]
    return faults


async def compare_catalogue(session: ReadSession, catalogue: Catalogue) -> list[Change]:
    """What applying a file would change; refused with everything that is wrong with it."""
    return [step.change for step in await _plan_steps(session, catalogue)]


async def apply_catalogue(work: Work, catalogue: Catalogue) -> list[Change]:
    """Bring the catalogue to what a file says, all or nothing. Running subscriptions keep their versions."""
    await lock_catalogue(work)
    steps = await _plan_steps(work.session, catalogue)
    await take_steps(work, steps)
    return [step.change for step in steps]


async def _plan_steps(session: AsyncSession, catalogue: Catalogue) -> list[Step]:
    faults = list(catalogue.faults)
    steps: list[Step] = []
    metric_keys = catalogue.metric_keys | set(await session.scalars(select(Metric.key)))
    plan_keys = catalogue.plan_keys | set(await session.scalars(select(Plan.key)))
    if catalogue.issuer is not None:
        steps.append(await compare_issuer(session, catalogue.issuer))
    for metric in catalogue.metrics:
        try:
            steps.append(await compare_metric(session, metric, _below("metrics", metric.key)))
        except BillingError as refusal:
            faults += list_refusals(refusal)
    for plan in catalogue.plans:
        at = _below("plans", plan.key)
        try:
            account = await _find_account(session, plan.private_to, at) if plan.private_to else None
            steps.append(await compare_plan(session, plan, account, metric_keys, at))
        except BillingError as refusal:
            faults += list_refusals(refusal)
    for add_on in catalogue.add_ons:
        try:
            at = _below("add_ons", add_on.key)
            steps.append(await compare_add_on(session, add_on, metric_keys, plan_keys, at))
        except BillingError as refusal:
            faults += list_refusals(refusal)
    if catalogue.taxes is not None:
        steps.append(await compare_tax_table(session, catalogue.taxes))
    if faults:
        raise Refusals(faults)
    return steps


async def _find_account(session: AsyncSession, external_id: str, at: Locate) -> BillingAccount:
    found = (
        await session.scalars(select(BillingAccount).where(BillingAccount.external_id == external_id).limit(2))
    ).all()
    if len(found) != 1:
        reason = "several accounts have" if found else "no account has"
        raise InvalidInput(
            f"A private plan is one account's, and {reason} the external id {external_id}.", at(["private_to"])
        )
    return found[0]
