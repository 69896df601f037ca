"""Changing the catalogue: each entry is compared with what is stored, and only when nothing is refused written."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..database import Work
from ..models import (
    AddOn,
    BillingAccount,
    Counter,
    Deployment,
    Interval,
    Issuer,
    Metric,
    Plan,
    PlanLimit,
    PlanVersion,
    Price,
    PriceKind,
    TestClock,
    WorkKind,
)
from ..models.types import UTC
from .catalogue import find_plan
from .catalogue_entries import AddOnEntry, IssuerEntry, Locate, MetricEntry, PlanEntry, read_entry
from .due_work import enqueue_for_all
from .dunning import Days
from .errors import BillingError, InvalidInput, NotFound, Refusals
from .relations import PlanOffer

# The catalogue belongs to no account: its changes are in the deployment's audit log, and what concerns a private plan
# in its account's too.
log = logging.getLogger("plafond.catalogue")
RECKONED_AT_ONCE = 1_000


class Verb(StrEnum):
    """What becomes of a part of the catalogue."""

    ADDED = "added"
    CHANGED = "changed"
    NEW_VERSION = "new version"
    ARCHIVED = "archived"
    RESTORED = "on offer again"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Change:
    """What becomes of a part of the catalogue, in words for an operator."""

    verb: Verb
    what: str
    details: tuple[str, ...] = ()
    contents: tuple[str, ...] = field(default=(), compare=False)
    """What is new, for the audit log."""

    @property
    def subject(self) -> str:
        """What it is about, as the audit log names it."""
        return self.what.replace("add-on", "add_on").replace("tax table", "tax_table").replace(" ", ":", 1)


Write = Callable[[Work], Awaitable[None]]


async def _write_nothing(work: Work) -> None:
    pass


@dataclass(frozen=True)
class Step:
    """A change that can be made, and how."""

    change: Change
    write: Write = _write_nothing
    account_id: UUID | None = None
    """Whose audit log tells of it."""


async def lock_catalogue(work: Work) -> None:
    """One change of the catalogue at a time: the deployment's row is the lock."""
    await work.session.execute(select(Deployment.id).with_for_update())


async def take_steps(work: Work, steps: list[Step]) -> None:
    """Make the changes, under the locks of the accounts that they concern."""
    concerned = {step.account_id for step in steps if step.account_id is not None}
    if concerned:  # all at once: locks are always taken in one order
        await work.lock_accounts(concerned)
    for step in steps:
        await step.write(work)
        await work.session.flush()
        if step.change.verb is not Verb.UNCHANGED:
            subject, verb = step.change.subject, step.change.verb.replace(" ", "_")
            action = f"{subject.partition(':')[0]}.{verb}"
            await work.audit_deployment(
                action, subject, after={"changes": [*step.change.details, *step.change.contents]}
            )
            details = "; ".join(step.change.details)[:1000]
            log.info("%s %s by %s: %s", step.change.what, step.change.verb, work.actor.name, details)


# --- what is compared ------------------------------------------------------------------------------------------------


def _compare(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    """What differs, one line each."""
    return tuple(
        f"{name}: {_show(before, name)} → {_show(after, name)}"
        for name in dict.fromkeys([*before, *after])
        if name not in before or name not in after or before[name] != after[name]
    )


def _show(values: Mapping[str, object], name: str) -> str:
    if name not in values:
        return "none"
    value = values[name]
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _flatten(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


async def _read_prices(session: AsyncSession, kind: PriceKind, subject: str) -> dict[tuple[Interval, str], Price]:
    rows = await session.scalars(select(Price).where(Price.kind == kind, Price.subject == subject))
    return {(row.interval, row.currency): row for row in sorted(rows, key=lambda row: (row.interval, row.currency))}


def _name_prices(prices: Mapping[tuple[Interval, str], int]) -> dict[str, object]:
    return {f"{interval.lower()}.{currency}": amount for (interval, currency), amount in prices.items()}


async def _write_prices(
    work: Work, kind: PriceKind, subject: str, wanted: Mapping[tuple[Interval, str], int], *, fresh: bool = False
) -> None:
    now = work.clock.now()
    held = {} if fresh else await _read_prices(work.session, kind, subject)
    for key, price in held.items():
        if key not in wanted:
            await work.session.delete(price)
        elif price.amount_minor != wanted[key]:
            price.amount_minor, price.updated_at = wanted[key], now
    for (interval, currency), amount_minor in wanted.items():
        if (interval, currency) not in held:
            work.session.add(
                Price(
                    created_at=now,
                    kind=kind,
                    subject=subject,
                    interval=interval,
                    currency=currency,
                    amount_minor=amount_minor,
                )
            )


# --- issuer ----------------------------------------------------------------------------------------------------------


async def compare_issuer(session: AsyncSession, entry: IssuerEntry) -> Step:
    """The seller: added, or brought to what the entry says. What was issued keeps what it showed."""
    what = f"issuer {entry.key}"
    wanted = entry.model_dump(exclude={"key"})
    issuer = await session.scalar(select(Issuer).where(Issuer.key == entry.key))
    if issuer is None:

        async def add(work: Work) -> None:
            work.session.add(Issuer(created_at=work.clock.now(), **entry.model_dump()))

        return Step(Change(Verb.ADDED, what, contents=_compare({}, wanted)), add)
    details = _compare({name: getattr(issuer, name) for name in wanted}, wanted)
    if not details:
        return Step(Change(Verb.UNCHANGED, what))

    async def change(work: Work) -> None:
        for name, value in wanted.items():
            setattr(issuer, name, value)
        issuer.updated_at = work.clock.now()

    return Step(Change(Verb.CHANGED, what, details), change)


# --- metrics ---------------------------------------------------------------------------------------------------------


async def compare_metric(session: AsyncSession, entry: MetricEntry, at: Locate) -> Step:
    """A metric: added, or its words and what its overage costs changed. Its kind stays what it is."""
    what = f"metric {entry.key}"
    overage = {(Interval.MONTH, currency): amount for currency, amount in _overage_prices(entry).items()}
    block = entry.overage.block if entry.overage else None
    wanted = {
        "name": entry.name,
        "unit": entry.unit,
        "overage.block": block,
        **_flatten("overage.prices", _overage_prices(entry)),
    }
    metric = await session.scalar(select(Metric).where(Metric.key == entry.key))
    if metric is None:

        async def add(work: Work) -> None:
            last = await work.session.scalar(select(func.max(Metric.position)))
            work.session.add(
                Metric(
                    created_at=work.clock.now(),
                    key=entry.key,
                    name=entry.name,
                    kind=entry.kind,
                    unit=entry.unit,
                    position=0 if last is None else last + 1,
                    overage_block=block,
                )
            )
            await _write_prices(work, PriceKind.OVERAGE, entry.key, overage)

        return Step(Change(Verb.ADDED, what, contents=_compare({}, {"kind": entry.kind, **wanted})), add)
    if metric.kind is not entry.kind:
        raise InvalidInput(
            f"{entry.key} is a {metric.kind} and stays one: what was counted would lose its meaning. "
            "Make a metric with another key.",
            at(["kind"]),
        )
    held = await _read_prices(session, PriceKind.OVERAGE, entry.key)
    details = _compare(
        {
            "name": metric.name,
            "unit": metric.unit,
            "overage.block": metric.overage_block,
            **_flatten("overage.prices", {currency: price.amount_minor for (_, currency), price in held.items()}),
        },
        wanted,
    )
    if not details:
        return Step(Change(Verb.UNCHANGED, what))

    async def change(work: Work) -> None:
        metric.name, metric.unit, metric.overage_block = entry.name, entry.unit, block
        metric.updated_at = work.clock.now()
        await _write_prices(work, PriceKind.OVERAGE, entry.key, overage)
        if any(detail.startswith("overage") for detail in details):
            await _have_spend_reckoned(work, entry.key)

    return Step(Change(Verb.CHANGED, what, details), change)


async def _have_spend_reckoned(work: Work, metric_key: str) -> None:
    """What overage costs changed: what accounts spend in running usage periods, and their budgets, are put right.

    Of all that use the metric: some may pass their limits while this is written.
    """
    now = work.clock.now()
    last: UUID | None = None
    while True:
        statement = (
            select(Counter.account_id, func.coalesce(TestClock.now, now, type_=UTC()))
            .join(BillingAccount, BillingAccount.id == Counter.account_id)
            .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
            .where(Counter.metric_key == metric_key, Counter.period_end > func.coalesce(TestClock.now, now))
            .distinct()
            .order_by(Counter.account_id)
            .limit(RECKONED_AT_ONCE)
        )
        if last is not None:
            statement = statement.where(Counter.account_id > last)
        accounts = dict((await work.session.execute(statement)).all())
        if not accounts:
            return
        await enqueue_for_all(work, accounts, WorkKind.RECKON_SPEND, f"{metric_key}:{now.isoformat()}")
        last = max(accounts)


def _overage_prices(entry: MetricEntry) -> Mapping[str, int]:
    return entry.overage.prices if entry.overage else {}


async def set_metric(work: Work, given: Mapping[str, object], at: Locate) -> None:
    """Make a metric, or change its words and what its overage costs."""
    entry, faults = read_entry(MetricEntry, given, at)
    if entry is None:
        raise Refusals(faults)
    await lock_catalogue(work)
    await take_steps(work, [await compare_metric(work.session, entry, at)])


# --- plans -----------------------------------------------------------------------------------------------------------


async def compare_plan(
    session: AsyncSession, entry: PlanEntry, account: BillingAccount | None, metric_keys: Set[str], at: Locate
) -> Step:
    """A plan: added, or a next version of it where something differs. A published version never changes."""
    what = f"plan {entry.key}"
    offer = await find_plan(session, entry.key)
    faults = _check_plan(entry, account, offer.plan if offer else None, metric_keys, at)
    account_id = account.id if account else None
    if offer is None:
        if faults:
            raise Refusals(faults)
        number = entry.version or 1
        verb = Verb.ARCHIVED if entry.archived else Verb.ADDED
        change = Change(verb, what, (f"version {number}",), contents=_compare({}, _contents(entry)))
        return Step(change, _publisher(entry, None, number, account_id), account_id)
    details = _compare(await _contents_of(session, offer), _contents(entry))
    newest = offer.version.number
    number = entry.version or newest + bool(details)
    faults += _check_number(entry, number, newest, details, at)
    if faults:
        raise Refusals(faults)
    was_archived = offer.plan.archived_at is not None
    is_archived = was_archived if entry.archived is None else entry.archived
    if number > newest:
        verb, details = Verb.NEW_VERSION, (f"version {newest} → {number}", *details)
    elif is_archived != was_archived:
        verb = Verb.ARCHIVED if is_archived else Verb.RESTORED
    else:
        return Step(Change(Verb.UNCHANGED, what, ("archived",) if was_archived else ()))
    if number > newest and is_archived != was_archived:
        details = (*details, "archived" if is_archived else "on offer again")
    return Step(Change(verb, what, details), _publisher(entry, offer, number, account_id), account_id)


def _check_plan(
    entry: PlanEntry, account: BillingAccount | None, plan: Plan | None, metric_keys: Set[str], at: Locate
) -> list[BillingError]:
    faults: list[BillingError] = [
        InvalidInput(f"There is no metric {key}: make it first, or check its spelling.", at(["limits", key]))
        for key in entry.limits
        if key not in metric_keys
    ]
    missing = sorted(metric_keys - set(entry.limits))
    if missing:
        faults.append(InvalidInput(f"A plan limits every metric: {', '.join(missing)} is missing.", at(["limits"])))
    prices = entry.prices()
    if account is not None and prices and all(currency != account.currency for _, currency in prices):
        faults.append(
            InvalidInput(
                f"{account.external_id} pays in {account.currency}: give the plan a price in it.", at(["month"])
            )
        )
    if plan is None:
        return faults
    if plan.tier != entry.tier:
        faults.append(
            InvalidInput(
                f"{entry.key} has tier {plan.tier}, and a plan's tier never changes: take a new key.", at(["tier"])
            )
        )
    if plan.private_account_id != (account.id if account else None):
        faults.append(
            InvalidInput(f"Whose plan {entry.key} is was fixed when it was made: take a new key.", at(["private_to"]))
        )
    return faults


def _check_number(
    entry: PlanEntry, number: int, newest: int, details: tuple[str, ...], at: Locate
) -> list[BillingError]:
    if number == newest and details:
        return [
            InvalidInput(
                f"Version {newest} of {entry.key} is published and never changes ({'; '.join(details)}): "
                f"give it version = {newest + 1}.",
                at(["version"]),
            )
        ]
    if number not in (newest, newest + 1):
        return [
            InvalidInput(
                f"Version {newest} of {entry.key} is the published one, so {number} cannot follow: "
                f"give it version = {newest + 1}, or {newest} with nothing changed.",
                at(["version"]),
            )
        ]
    return []


def _contents(entry: PlanEntry) -> dict[str, object]:
    limits = {key: _show_limit(entry.limits[key]) for key in sorted(entry.limits)}
    return {
        "name": entry.name,
        "features": list(entry.features),
        **_flatten("limits", limits),
        **_name_prices(entry.prices()),
        **_name_days(_stored_dunning(entry)),
    }


async def _contents_of(session: AsyncSession, offer: PlanOffer) -> dict[str, object]:
    limits = await session.scalars(
        select(PlanLimit).where(PlanLimit.plan_version_id == offer.version.id).order_by(PlanLimit.metric_key)
    )
    prices = await _read_prices(session, PriceKind.PLAN, str(offer.version.id))
    return {
        "name": offer.plan.name,
        "features": list(offer.version.features),
        **_flatten("limits", {row.metric_key: _show_limit(row.quantity) for row in limits}),
        **_name_prices({key: price.amount_minor for key, price in prices.items()}),
        **_name_days(offer.version.dunning),
    }


def _name_days(stored: Mapping[str, Any]) -> dict[str, object]:
    days = Days.of(stored)
    named = {"retry_days": list(days.retry), "suspend_day": days.suspend, "cancel_day": days.cancel}
    return _flatten("dunning", named)


def _stored_dunning(entry: PlanEntry) -> dict[str, Any]:
    return {} if entry.dunning is None else entry.dunning.to_stored()


def _show_limit(quantity: int | None) -> int | str:
    return "unlimited" if quantity is None else quantity


def _publisher(entry: PlanEntry, offer: PlanOffer | None, number: int, account_id: UUID | None) -> Write:
    async def write(work: Work) -> None:
        now = work.clock.now()
        if offer is None:
            plan = Plan(created_at=now, key=entry.key, name=entry.name, tier=entry.tier, private_account_id=account_id)
            work.session.add(plan)
            await work.session.flush()
        else:
            plan = offer.plan
            plan.name, plan.updated_at = entry.name, now
        if entry.archived is not None:
            plan.archived_at = (plan.archived_at or now) if entry.archived else None
        before = offer.version.number if offer else None
        if number != before:
            await _add_version(work, plan, entry, number)
        if account_id is not None:
            account = (await work.lock_accounts([account_id]))[account_id]
            work.audit(
                account,
                "plan.published" if plan.archived_at is None else "plan.archived",
                f"plan:{plan.key}",
                before={} if before is None else {"version": before},
                after={"version": number, **_contents(entry)},
            )

    return write


async def _add_version(work: Work, plan: Plan, entry: PlanEntry, number: int) -> None:
    now = work.clock.now()
    version = PlanVersion(
        created_at=now,
        plan_id=plan.id,
        number=number,
        features=list(entry.features),
        published_at=now,
        dunning=_stored_dunning(entry),
    )
    work.session.add(version)
    await work.session.flush()
    for key, quantity in entry.limits.items():
        work.session.add(PlanLimit(created_at=now, plan_version_id=version.id, metric_key=key, quantity=quantity))
    await _write_prices(work, PriceKind.PLAN, str(version.id), entry.prices(), fresh=True)


async def publish_plan(work: Work, given: Mapping[str, object], account_id: UUID | None, at: Locate) -> None:
    """Make a plan, or its next version where something differs, and put it on offer."""
    await lock_catalogue(work)
    entry, faults = read_entry(PlanEntry, {**given, "version": None, "archived": False}, at)
    account = None
    if account_id is not None:
        account = await work.session.get(BillingAccount, account_id)
        if account is None:
            faults.append(NotFound("There is no account with this id.", at(["private_to"])))
    if entry is None or faults:
        raise Refusals(faults)
    metric_keys = set(await work.session.scalars(select(Metric.key)))
    await take_steps(work, [await compare_plan(work.session, entry, account, metric_keys, at)])


async def archive_plan(work: Work, key: str) -> None:
    """Take a plan off the offer. Who runs on it keeps it; doing it twice does nothing more."""
    await lock_catalogue(work)
    offer = await find_plan(work.session, key) if key.isprintable() else None
    if offer is None:
        raise NotFound("There is no plan with this key.", ["input", "key"])
    plan = offer.plan
    if plan.archived_at is not None:
        return

    async def write(work: Work) -> None:
        plan.archived_at = plan.updated_at = work.clock.now()
        if plan.private_account_id is not None:
            account = (await work.lock_accounts([plan.private_account_id]))[plan.private_account_id]
            work.audit(account, "plan.archived", f"plan:{plan.key}", after={"version": offer.version.number})

    await take_steps(work, [Step(Change(Verb.ARCHIVED, f"plan {key}"), write, plan.private_account_id)])


# --- add-ons ---------------------------------------------------------------------------------------------------------


async def compare_add_on(
    session: AsyncSession, entry: AddOnEntry, metric_keys: Set[str], plan_keys: Set[str], at: Locate
) -> Step:
    """An add-on: added, or its words, plans and prices changed. Units that are held keep the price they were sold."""
    what = f"add-on {entry.key}"
    prices = {(Interval.MONTH, currency): amount for currency, amount in entry.month.items()}
    faults: list[BillingError] = [
        InvalidInput(f"There is no plan {key}: check its spelling.", at(["plans", str(place)]))
        for place, key in enumerate(entry.plans)
        if key not in plan_keys
    ]
    if entry.metric is not None and entry.metric not in metric_keys:
        faults.append(InvalidInput(f"There is no metric {entry.metric}: check its spelling.", at(["metric"])))
    add_on = await session.scalar(select(AddOn).where(AddOn.key == entry.key))
    if add_on is not None and (add_on.metric_key, add_on.gives) != (entry.metric, entry.gives):
        faults.append(
            InvalidInput(
                f"One unit of {entry.key} gives {add_on.gives} of {add_on.metric_key or 'no metric'}, and who holds it "
                "counts on that: take a new key.",
                at(["gives" if add_on.metric_key == entry.metric else "metric"]),
            )
        )
    if faults:
        raise Refusals(faults)
    wanted = {"name": entry.name, "plans": list(entry.plans), **_name_prices(prices)}
    if add_on is None:

        async def add(work: Work) -> None:
            last = await work.session.scalar(select(func.max(AddOn.position)))
            work.session.add(
                AddOn(
                    created_at=work.clock.now(),
                    key=entry.key,
                    name=entry.name,
                    metric_key=entry.metric,
                    gives=entry.gives,
                    plan_keys=list(entry.plans),
                    position=0 if last is None else last + 1,
                )
            )
            await _write_prices(work, PriceKind.ADD_ON, entry.key, prices)

        gives = {"metric": entry.metric, "gives": entry.gives}
        return Step(Change(Verb.ADDED, what, contents=_compare({}, {**gives, **wanted})), add)
    held = await _read_prices(session, PriceKind.ADD_ON, entry.key)
    details = _compare(
        {
            "name": add_on.name,
            "plans": list(add_on.plan_keys),
            **_name_prices({key: price.amount_minor for key, price in held.items()}),
        },
        wanted,
    )
    if not details:
        return Step(Change(Verb.UNCHANGED, what))

    async def change(work: Work) -> None:
        add_on.name, add_on.plan_keys, add_on.updated_at = entry.name, list(entry.plans), work.clock.now()
        await _write_prices(work, PriceKind.ADD_ON, entry.key, prices)

    return Step(Change(Verb.CHANGED, what, details), change)
