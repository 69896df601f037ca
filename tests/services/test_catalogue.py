"""The catalogue: files and their difference, versions, taxes, and what an account can buy."""

import asyncio
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from plafond.clock import SetClock
from plafond.database import Database, ReadSession
from plafond.migrations import migrate_database
from plafond.models import (
    AddOn,
    AuditEntry,
    BillingAccount,
    Interval,
    Issuer,
    Metric,
    OutboxEvent,
    Plan,
    PlanLimit,
    PlanVersion,
    Price,
    PriceKind,
    Subscription,
    SubscriptionAddOn,
    TaxTableRow,
)
from plafond.services import catalogue
from plafond.services.accounts import create_account
from plafond.services.catalogue_changes import Change, Verb, archive_plan
from plafond.services.catalogue_entries import TaxEntry
from plafond.services.catalogue_files import apply_catalogue, compare_catalogue, place_in_file, read_catalogue
from plafond.services.dunning import Days
from plafond.services.errors import BillingError, InvalidInput, NotFound, PriceNotAvailable, list_refusals
from plafond.services.tax_tables import find_overlaps, format_rate
from plafond.settings import Environment

from ..conftest import NOW, World
from ..test_cli import plafond
from .helpers import ACTOR, account_of

SANDBOX = Path("src/sandbox/catalogue.toml").read_text("utf-8")
GUIDE = re.findall(r"```toml\n(.*?)```", Path("docs/catalogue.md").read_text("utf-8"), re.DOTALL)
TEAM_FILE = """\
currencies = ["EUR", "JPY"]

[issuer]
key = "example"
legal_name = "Example GmbH"
address_lines = ["Ringstraße 1"]
postal_code = "1010"
city = "Wien"
country = "AT"
email = "billing@example.com"
tax_ids = { vat = "ATU12345675" }
bank_details = { iban = "AT483200000012345864" }
timezone = "Europe/Vienna"
retention_years = 7

[[metrics]]
key = "reports"
name = "Reports"
kind = "COUNTER"
unit = "report"
overage = { block = 100, prices = { EUR = 500, JPY = 750 } }

[[plans]]
key = "team"
name = "Team"
tier = 10
features = ["Email support"]
limits = { reports = 1000, email_sends = 0, team_members = 5, workspaces = 1, custom_domains = "unlimited" }
month = { EUR = 2900, JPY = 4400 }
year = { EUR = 29000, JPY = 44000 }
dunning = { retry_days = [2, 4, 8], suspend_day = 10, cancel_day = 21 }

[[plans]]
key = "acme_2026"
name = "Acme 2026"
tier = 11
private_to = "acme"
limits = { reports = 50000, email_sends = 90000, team_members = 40, workspaces = "unlimited", custom_domains = 90 }
year = { USD = 250000 }

[[add_ons]]
key = "extra_reports"
name = "Extra reports"
metric = "reports"
gives = 100
plans = ["team"]
month = { EUR = 400, JPY = 600 }

[[taxes]]
country = "AT"
rate = "20"
valid_from = 2020-01-01

[[taxes]]
country = "US"
region = "NY"
jurisdiction = "US-NY MCTD"
rate = "0.375"
valid_from = 2020-01-01
valid_to = 2027-01-01
"""
"""A file that adds to the sandbox: with all its metrics, and a plan of one of its accounts."""
METRICS = ("email_sends", "team_members", "workspaces", "custom_domains")
LIMITS = "limits = { email_sends = 10, team_members = 1, workspaces = 1, custom_domains = 0 }"
TABLES = (Plan, PlanVersion, PlanLimit, Price, Metric, AddOn, Issuer, TaxTableRow, AuditEntry, OutboxEvent)


def a_plan(
    key: str = "team",
    *,
    version: int = 1,
    tier: int = 9,
    limits: str = LIMITS,
    month: str = "EUR = 100",
    more: str = "",
) -> str:
    return f"""currencies = ["EUR"]
[[plans]]
key = "{key}"
name = "Team"
tier = {tier}
version = {version}
{limits}
month = {{ {month} }}
{more}
"""


async def apply(world: World, text: str) -> dict[str, Change]:
    """What became of each part of the catalogue."""
    async with world.database.work(ACTOR) as work:
        return {change.what: change for change in await apply_catalogue(work, read_catalogue(text.encode()))}


async def compare(world: World, text: str) -> dict[str, Change]:
    async with world.database.read() as session:
        return {change.what: change for change in await compare_catalogue(session, read_catalogue(text.encode()))}


async def faults(world: World, text: str) -> dict[str, str]:
    """What is wrong with a file, by place. A dry run says the same as applying, and neither writes."""
    before = await count_rows(world)
    with pytest.raises(BillingError) as applied:
        await apply(world, text)
    with pytest.raises(BillingError) as compared:
        await compare(world, text)
    assert str(applied.value) == str(compared.value)
    assert await count_rows(world) == before
    return {place_in_file(refusal): str(refusal) for refusal in list_refusals(applied.value)}


async def count_rows(world: World) -> dict[str, int | None]:
    async with world.database.read() as session:
        return {table.__tablename__: await session.scalar(select(func.count()).select_from(table)) for table in TABLES}


async def all_of(world: World, table: Any, *where: Any) -> list[Any]:
    async with world.database.read() as session:
        return list(await session.scalars(select(table).where(*where)))


async def plan_of(world: World, key: str) -> Any:
    async with world.database.read() as session:
        offer = await catalogue.find_plan(session, key)
    assert offer is not None
    return offer


# --- files


async def test_the_sandbox_is_what_its_file_says(world: World) -> None:
    world.statements.clear()
    for changes in (await compare(world, SANDBOX), await apply(world, SANDBOX)):
        assert {change.verb for change in changes.values()} == {Verb.UNCHANGED}
        assert {"issuer plafond", "metric email_sends", "plan starter", "add-on extra_emails", "tax table"} <= set(
            changes
        )
    assert [statement for statement in world.statements if not statement.startswith("SELECT")] == []


async def test_the_sandbox_s_issuer(world: World) -> None:
    (issuer,) = await all_of(world, Issuer)
    assert (issuer.key, issuer.legal_name, issuer.country) == ("plafond", "Plafond Sandbox GmbH", "AT")
    assert (issuer.address_lines, issuer.postal_code, issuer.city) == (["Ringstraße 1"], "1010", "Wien")
    assert (issuer.tax_ids, issuer.timezone, issuer.retention_years) == ({"vat": "ATU12345675"}, "Europe/Vienna", 7)


async def test_a_dry_run_says_what_applying_does_and_writes_nothing(world: World) -> None:
    before = await count_rows(world)
    world.statements.clear()
    shown = await compare(world, TEAM_FILE)
    assert [statement for statement in world.statements if not statement.startswith("SELECT")] == []
    assert await count_rows(world) == before
    assert await apply(world, TEAM_FILE) == shown
    assert await count_rows(world) != before
    assert {change.verb for change in (await apply(world, TEAM_FILE)).values()} == {Verb.UNCHANGED}


async def test_a_file_adds_to_the_sandbox(world: World) -> None:
    first = await apply(world, TEAM_FILE)
    assert first["plan team"].verb is Verb.ADDED
    assert first["issuer example"].verb is Verb.ADDED
    assert first["plan acme_2026"].verb is Verb.ADDED


async def test_the_guide_s_files_can_be_applied_to_an_empty_database_one_after_the_other(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'empty.db'}"
    await asyncio.to_thread(migrate_database, address, Environment.SANDBOX)
    database = Database(address, SetClock(NOW), lambda _: None)

    async def put(text: str) -> dict[str, Change]:
        async with database.work(ACTOR) as work:
            return {change.what: change for change in await apply_catalogue(work, read_catalogue(text.encode()))}

    try:
        first = await put(GUIDE[0])
        assert {change.verb for change in first.values()} == {Verb.ADDED}
        second = await put(GUIDE[1])
        assert second["plan team"] == Change(
            Verb.NEW_VERSION,
            "plan team",
            (
                "version 1 → 2",
                "features: Email support → Email support, Detailed reports",
                "limits.reports: 1000 → 1200",
                "month.EUR: 2900 → 3100",
                "month.JPY: 4400 → 4700",
                "year.EUR: 29000 → 31000",
                "year.JPY: 44000 → 47000",
            ),
        )
        assert {change.verb for change in (await put(GUIDE[1])).values()} == {Verb.UNCHANGED}
        with pytest.raises(BillingError, match="no account has the external id acme"):
            await put(GUIDE[2])
        async with database.work(ACTOR) as work:
            await create_account(work, "acme", {"name": "Acme", "currency": "USD", "timezone": "UTC"})
        assert (await put(GUIDE[2]))["plan acme_2026"].verb is Verb.ADDED
    finally:
        await database.close()


async def test_everything_wrong_is_told_at_once_with_its_place(world: World) -> None:
    text = (
        SANDBOX.replace("month = { USD = 4900, EUR = 4900, GBP = 3900, JPY = 7400 }", "month = { USD = 4900 }")
        .replace("email_sends = 50000", "email_sends = 60000")
        .replace('rate = "22"', 'rate = "101"')
        .replace('kind = "GAUGE"\nunit = "seat"', 'kind = "COUNTER"\nunit = "seat"')
        .replace('timezone = "Europe/Vienna"', 'timezone = "Vienna"')
        .replace("gives = 10000", "gives = 20000")
    )
    found = await faults(world, f"colour = 1\n{text}")
    assert set(found) == {
        "colour",
        "issuer.timezone",
        "metrics.team_members.kind",
        "plans.starter.month",
        "plans.starter.version",
        "plans.professional.version",
        "add_ons.extra_emails.gives",
        "taxes.7.rate",
    }
    assert found["plans.starter.month"] == "There is no price in EUR, GBP, JPY."
    assert "limits.email_sends: 50000 → 60000" in found["plans.professional.version"]
    assert "give it version = 2" in found["plans.professional.version"]
    assert found["taxes.7.rate"] == "A rate is from 0 to 100 percent, not 101."


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("plans = 1", "plans", "A list of tables"),
        ("plans = [1]\ncurrencies = ['EUR']", "plans.0", "A table of names"),
        ("currencies = []", "currencies", "Name the currencies"),
        ("currencies = ['EURO']", "currencies", "EURO is not an ISO 4217 currency"),
        ("currencies = [978]", "currencies", "Name the currencies"),
        ("this is = = no TOML", "", "not TOML"),
        ("[issuer]\nkey = 'x'", "issuer.legal_name", "missing"),
        (a_plan(month=""), "", ""),
        (a_plan(month="EUR = -1"), "plans.team.month.EUR", "whole number of minor units"),
        (a_plan(month="EUR = 1.5"), "plans.team.month.EUR", "whole number of minor units"),
        (a_plan(month="EUR = true"), "plans.team.month.EUR", "whole number of minor units"),
        (a_plan(month="EUR = 1000000000001"), "plans.team.month.EUR", "from 0 to 1000000000000"),
        (a_plan(month="eur = 1"), "plans.team.month.eur", "ISO 4217"),
        (a_plan(month="EUR = 1, CHF = 1"), "plans.team.month.CHF", "not one of the file's currencies"),
        (
            a_plan(limits="limits = { email_sends = 1 }"),
            "plans.team.limits",
            "custom_domains, team_members, workspaces",
        ),
        (a_plan(limits=LIMITS.replace("= {", "= { faxes = 1,")), "plans.team.limits.faxes", "no metric faxes"),
        (a_plan(limits=LIMITS.replace("10", "-1")), "plans.team.limits.email_sends", "whole number from 0"),
        (a_plan(limits=LIMITS.replace("10", '"lots"')), "plans.team.limits.email_sends", "unlimited"),
        (a_plan(key="Team Plan"), "plans.Team Plan.key", "lower-case"),
        (a_plan(version=0), "plans.team.version", "1 or more"),
        (a_plan(more="colour = 1"), "plans.team.colour", "not known here"),
        (a_plan(more="dunning = 7"), "plans.team.dunning", "A table of names"),
        (a_plan(more="dunning = { cancel_day = 0 }"), "plans.team.dunning.cancel_day", "1 or more"),
        (a_plan(more="dunning = { cancel_day = 91 }"), "plans.team.dunning.cancel_day", "90 or less"),
        (a_plan(more="dunning = { cancel_day = true }"), "plans.team.dunning.cancel_day", "A whole number is wanted"),
        (a_plan(more="dunning = { suspend_day = 0 }"), "plans.team.dunning.suspend_day", "1 or more"),
        (a_plan(more="dunning = { suspend_day = 15 }"), "plans.team.dunning.suspend_day", "Day 15 comes too late"),
        # What is not said is the default, and has to fit too.
        (
            a_plan(more="dunning = { cancel_day = 6 }"),
            "plans.team.dunning.suspend_day",
            "Day 7 comes too late: on day 6",
        ),
        (a_plan(more="dunning = { retry_days = [3, 15] }"), "plans.team.dunning.retry_days", "Day 15 comes too late"),
        (a_plan(more="dunning = { retry_days = [3, 2] }"), "plans.team.dunning.retry_days", "rise"),
        (a_plan(more="dunning = { retry_days = [3, 3] }"), "plans.team.dunning.retry_days", "rise"),
        (a_plan(more="dunning = { retry_days = [0, 3] }"), "plans.team.dunning.retry_days.0", "1 or more"),
        (a_plan(more="dunning = { retry_days = [1.5] }"), "plans.team.dunning.retry_days.0", "A whole number"),
        (
            a_plan(more=f"dunning = {{ retry_days = {list(range(1, 12))} }}"),
            "plans.team.dunning.retry_days",
            "at most 10",
        ),
        (a_plan(more="dunning = { retries = [1] }"), "plans.team.dunning.retries", "not known here"),
        (a_plan(more="private_to = 'nobody'"), "plans.team.private_to", "no account has the external id nobody"),
        (a_plan(more="private_to = 'acme'"), "plans.team.month", "acme pays in USD"),
        (a_plan() + a_plan().partition("\n")[2], "plans.team", "twice"),
        (a_plan("starter", tier=4, version=2), "plans.starter.tier", "has tier 1"),
        (a_plan("starter", tier=1, version=3), "plans.starter.version", "3 cannot follow"),
        (a_plan("starter", tier=1, version=2, more="private_to = 'fjordlicht'"), "plans.starter.private_to", "new key"),
        ("[[taxes]]\ncountry = 'AT'\nrate = '20'", "taxes.0.valid_from", "missing"),
        ("[[taxes]]\ncountry = 'EU'\nrate = '20'\nvalid_from = 2020-01-01", "taxes.0.country", "ISO 3166-1"),
        ("[[taxes]]\ncountry = 'AT'\nrate = 20.0\nvalid_from = 2020-01-01", "taxes.0.rate", "A text in quotes"),
        ("[[taxes]]\ncountry = 'AT'\nrate = '8.87555'\nvalid_from = 2020-01-01", "taxes.0.rate", "four decimals"),
        ("[[taxes]]\ncountry = 'AT'\nrate = '-1'\nvalid_from = 2020-01-01", "taxes.0.rate", "from 0 to 100"),
        ("[[taxes]]\ncountry = 'AT'\nrate = '20'\nvalid_from = '2020-01-01'", "taxes.0.valid_from", "without quotes"),
    ],
)
async def test_bad_input_is_refused_with_its_place(world: World, text: str, place: str, words: str) -> None:
    if not words:  # a plan without any price is negotiated
        assert (await compare(world, text))["plan team"].verb is Verb.ADDED
        return
    found = await faults(world, text)
    assert words in found[place], found


async def test_a_new_version_leaves_running_subscriptions_alone(world: World) -> None:
    before = await plan_of(world, "starter")
    prices_before = await all_of(world, Price, Price.subject == str(before.version.id))
    running = await all_of(world, Subscription, Subscription.plan_version_id == before.version.id)
    assert running
    text = SANDBOX.replace('key = "starter"\n', 'key = "starter"\nversion = 2\n').replace("10000, team", "12000, team")
    changes = await apply(world, text.replace("USD = 4900, EUR", "USD = 5900, EUR").replace('"Starter"', '"Begin"'))
    assert changes["plan starter"].details == (
        "version 1 → 2",
        "name: Starter → Begin",
        "limits.email_sends: 10000 → 12000",
        "month.USD: 4900 → 5900",
    )
    after = await plan_of(world, "starter")
    assert (after.version.number, after.plan.name) == (2, "Begin")
    assert [(row.id, row.plan_version_id, row.price_minor) for row in running] == [
        (row.id, row.plan_version_id, row.price_minor)
        for row in await all_of(world, Subscription, Subscription.plan_version_id == before.version.id)
    ]
    kept = await all_of(world, Price, Price.subject == str(before.version.id))
    assert {row.id: row.amount_minor for row in kept} == {row.id: row.amount_minor for row in prices_before}
    (limit,) = await all_of(
        world, PlanLimit, PlanLimit.plan_version_id == before.version.id, PlanLimit.metric_key == "email_sends"
    )
    assert limit.quantity == 10_000
    assert "1 cannot follow" in (await faults(world, SANDBOX))["plans.starter.version"]


async def test_days_of_dunning_are_data_of_a_version(world: World) -> None:
    await apply(world, a_plan())
    assert (await plan_of(world, "team")).version.dunning == {}
    said = a_plan(more="dunning = { retry_days = [3, 5, 7], suspend_day = 7, cancel_day = 14 }")
    assert (await apply(world, said))["plan team"].verb is Verb.UNCHANGED  # that is the default
    other = "dunning = { retry_days = [1, 2, 30], cancel_day = 30 }"
    refused = await faults(world, a_plan(more=other))
    assert "dunning.cancel_day: 14 → 30" in refused["plans.team.version"]
    text = a_plan(version=2, more=other)
    shown = await compare(world, text)
    assert shown["plan team"] == Change(
        Verb.NEW_VERSION,
        "plan team",
        ("version 1 → 2", "dunning.retry_days: 3, 5, 7 → 1, 2, 30", "dunning.cancel_day: 14 → 30"),
    )
    assert await apply(world, text) == shown
    assert (await apply(world, text))["plan team"].verb is Verb.UNCHANGED
    newest = (await plan_of(world, "team")).version
    assert newest.dunning == {"retryDays": [1, 2, 30], "suspendDay": 7, "cancelDay": 30}
    assert Days.of(newest.dunning) == Days(retry=(1, 2, 30), suspend=7, cancel=30)
    versions = await all_of(world, PlanVersion, PlanVersion.plan_id == newest.plan_id)
    assert {row.number: row.dunning for row in versions}[1] == {}
    back = await apply(world, a_plan(version=3))
    assert "dunning.cancel_day: 30 → 14" in back["plan team"].details
    none = await apply(world, a_plan(version=4, more="dunning = { retry_days = [] }"))
    assert none["plan team"].details == ("version 3 → 4", "dunning.retry_days: 3, 5, 7 → none")


async def test_a_plan_is_archived_only_when_the_file_says_so(world: World) -> None:
    acme = await account_of(world)
    await apply(world, a_plan(month="EUR = 1"))
    assert "plan team" not in await apply(world, SANDBOX)  # absent from the file: left alone
    changes = await apply(world, a_plan(month="EUR = 1", more="archived = true"))
    assert changes["plan team"].verb is Verb.ARCHIVED
    assert (await plan_of(world, "team")).plan.archived_at == world.clock.now()
    assert (await apply(world, a_plan(month="EUR = 1")))["plan team"].verb is Verb.UNCHANGED
    async with world.database.read() as session:
        with pytest.raises(NotFound):
            await catalogue.find_offer(session, acme, "team", Interval.MONTH)
    changes = await apply(world, a_plan(month="EUR = 1", more="archived = false"))
    assert changes["plan team"].verb is Verb.RESTORED
    assert (await plan_of(world, "team")).plan.archived_at is None


async def test_a_plan_that_is_not_there_may_start_with_any_version(world: World) -> None:
    await apply(world, a_plan(version=7))
    assert (await plan_of(world, "team")).version.number == 7


async def test_prices_of_add_ons_and_overage_change_and_what_is_held_keeps_its_price(world: World) -> None:
    held = [row.price_minor for row in await all_of(world, SubscriptionAddOn)]
    assert held
    text = SANDBOX.replace("month = { USD = 9900, EUR = 9900, GBP = 7920, JPY = 14850 }",
                           "month = { USD = 9500, EUR = 9900, GBP = 7000, JPY = 14850 }")  # fmt: skip
    text = text.replace("block = 10000, prices = { USD = 1000", "block = 5000, prices = { USD = 600")
    changes = await apply(world, text)
    assert changes["add-on priority_support"].details == ("month.GBP: 7920 → 7000", "month.USD: 9900 → 9500")
    assert changes["metric email_sends"].details == ("overage.block: 10000 → 5000", "overage.prices.USD: 1000 → 600")
    (row,) = await all_of(world, Price, Price.kind == PriceKind.OVERAGE, Price.currency == "USD")
    assert (row.amount_minor, row.subject, row.updated_at) == (600, "email_sends", world.clock.now())
    assert [row.price_minor for row in await all_of(world, SubscriptionAddOn)] == held


async def test_overage_without_a_price_any_more_is_no_longer_sold(world: World) -> None:
    text = re.sub(r"overage = .*\n", "", SANDBOX)
    assert (await apply(world, text))["metric email_sends"].verb is Verb.CHANGED
    assert await all_of(world, Price, Price.kind == PriceKind.OVERAGE) == []
    (metric,) = await all_of(world, Metric, Metric.key == "email_sends")
    assert metric.overage_block is None


async def test_two_at_once_publish_one_version(world: World) -> None:
    text = a_plan(month="EUR = 1")
    done = await asyncio.gather(*(apply(world, text) for _ in range(4)))
    assert sorted(changes["plan team"].verb for changes in done) == sorted([Verb.ADDED, *[Verb.UNCHANGED] * 3])


async def test_a_private_plan_is_in_its_account_s_audit_log(world: World) -> None:
    await apply(world, TEAM_FILE)
    acme = await account_of(world)
    entries = await all_of(world, AuditEntry, AuditEntry.object == "plan:acme_2026")
    told = {(row.account_id, row.action, row.actor) for row in entries}
    assert told == {(acme.id, "plan.published", ACTOR.name), (None, "plan.added", ACTOR.name)}
    await apply(world, TEAM_FILE)
    async with world.database.work(ACTOR) as work:
        await archive_plan(work, "acme_2026")
        await archive_plan(work, "acme_2026")
    entries = await all_of(world, AuditEntry, AuditEntry.object == "plan:acme_2026")
    assert sorted(row.action for row in entries if row.account_id) == ["plan.archived", "plan.published"]
    assert sorted(row.action for row in entries if not row.account_id) == ["plan.added", "plan.archived"]


# --- taxes


def taxed(rate: str = "20", start: str = "2020-01-01", end: str | None = None, **given: str) -> TaxEntry:
    return TaxEntry.model_validate(
        {
            "country": "AT",
            "rate": rate,
            "valid_from": date.fromisoformat(start),
            "valid_to": end and date.fromisoformat(end),
            **given,
        }
    )


@pytest.mark.parametrize(
    ("rate", "ppm", "shown"),
    [("20", 200_000, "20"), ("8.875", 88_750, "8.875"), ("0", 0, "0"), ("100", 1_000_000, "100"),
     ("0.0001", 1, "0.0001"), ("4.50", 45_000, "4.5")],
)  # fmt: skip
def test_rates_are_exact(rate: str, ppm: int, shown: str) -> None:
    assert taxed(rate).rate_ppm == ppm
    assert format_rate(ppm) == shown


@pytest.mark.parametrize(
    ("rows", "overlapping"),
    [
        ([taxed(), taxed("10")], [(0, 1)]),
        ([taxed(end="2021-01-01"), taxed("10", "2021-01-01")], []),
        ([taxed("10", "2021-01-01"), taxed(end="2021-01-02")], [(1, 0)]),
        ([taxed(), taxed(region="9")], []),
        ([taxed(), taxed(jurisdiction="Wien")], []),
        ([taxed(kind="OVERAGE"), taxed(kind="ADD_ON")], []),
        ([taxed(kind="OVERAGE"), taxed(kind="OVERAGE", start="2022-01-01")], [(0, 1)]),
        ([taxed(kind="OVERAGE"), taxed(start="2022-01-01")], [(0, 1)]),
        ([taxed(end="2030-01-01"), taxed(start="2021-01-01", end="2022-01-01"), taxed(start="2025-01-01")],
         [(0, 1), (0, 2)]),
        ([taxed(), taxed(country="DE")], []),
    ],
)  # fmt: skip
def test_no_jurisdiction_levies_twice(rows: list[TaxEntry], overlapping: list[tuple[int, int]]) -> None:
    assert find_overlaps(rows) == overlapping


async def test_the_table_is_replaced_and_rows_that_stay_are_left_alone(world: World) -> None:
    before = {(row.country, row.valid_from): row for row in await all_of(world, TaxTableRow)}
    assert len(await all_of(world, TaxTableRow)) == 14
    table = "[[taxes]]\ncountry = 'AT'\nrate = '20.0'\nvalid_from = 2020-01-01\n"
    more = "[[taxes]]\ncountry = 'CH'\nrate = '8.1'\nvalid_from = 2024-01-01\n"
    changes = await apply(world, table + more)
    assert changes["tax table"].verb is Verb.CHANGED
    assert "+ CH CH all lines S 8.1 % from 2024-01-01" in changes["tax table"].details
    assert "- DE DE all lines S 16 % from 2020-07-01 to 2021-01-01" in changes["tax table"].details
    rows = {row.country: row for row in await all_of(world, TaxTableRow)}
    assert set(rows) == {"AT", "CH"}
    assert rows["AT"].id == before["AT", date(2020, 1, 1)].id
    assert rows["CH"].rate_ppm == 81_000
    await apply(world, a_plan(month="EUR = 1"))  # a file without taxes leaves them
    assert len(await all_of(world, TaxTableRow)) == 2


# --- what an account can buy


async def offers_for(world: World, account: BillingAccount) -> list[str]:
    async with world.database.read() as session:
        return [offer.plan.key for offer in await catalogue.list_offers_for(session, account)]


async def test_an_account_is_offered_what_it_can_buy(world: World) -> None:
    acme, calder = await account_of(world), await account_of(world, "calder")
    public = ["free", "starter", "professional", "business"]  # enterprise is negotiated: it has no price
    assert await offers_for(world, acme) == public
    await apply(world, TEAM_FILE)
    assert await offers_for(world, acme) == [*public, "acme_2026"]  # team has no price in USD
    assert await offers_for(world, calder) == public
    assert await offers_for(world, await account_of(world, "fjordlicht")) == [*public, "team"]
    await apply(world, TEAM_FILE.replace('private_to = "acme"', 'private_to = "acme"\narchived = true'))
    assert await offers_for(world, acme) == public


async def test_an_offer_is_found_with_its_price(world: World) -> None:
    await apply(world, TEAM_FILE)
    acme, calder, ginza = [await account_of(world, name) for name in ("acme", "calder", "ginza")]
    async with world.database.read() as session:
        find = catalogue.find_offer
        offer, price_minor = await find(session, ginza, "starter", Interval.YEAR)
        assert (offer.plan.key, offer.version.number, price_minor) == ("starter", 1, 71_000)
        assert (await find(session, acme, "acme_2026", Interval.YEAR))[1] == 250_000
        for account, key in ((calder, "acme_2026"), (acme, "nothing")):
            with pytest.raises(NotFound, match="no plan with this key"):
                await find(session, account, key, Interval.YEAR)
        with pytest.raises(PriceNotAvailable, match=r"no price in USD per year: take the interval MONTH") as refused:
            await find(session, acme, "free", Interval.YEAR)
        assert refused.value.field == ("input", "interval")
        for account, key in ((acme, "enterprise"), (calder, "team")):
            with pytest.raises(PriceNotAvailable, match="no price in") as refused:
                await find(session, account, key, Interval.MONTH)
            assert refused.value.field == ("input", "planKey")


async def test_an_add_on_is_found_with_its_price(world: World) -> None:
    await apply(world, TEAM_FILE)
    calder = await account_of(world, "calder")
    async with world.database.read() as session:
        find = catalogue.find_add_on
        add_on, price_minor = await find(session, calder, "starter", "priority_support")
        assert (add_on.key, price_minor) == ("priority_support", 7_920)
        with pytest.raises(NotFound):
            await find(session, calder, "starter", "nothing")
        with pytest.raises(PriceNotAvailable, match="not with business"):
            await find(session, calder, "business", "priority_support")
        with pytest.raises(PriceNotAvailable, match="not with free"):
            await find(session, calder, "free", "extra_emails")
        with pytest.raises(PriceNotAvailable, match="no price in GBP"):
            await find(session, calder, "team", "extra_reports")


async def test_a_work_s_session_will_do(world: World) -> None:
    acme = await account_of(world)
    async with world.database.work(ACTOR) as work:
        assert (await catalogue.find_offer(ReadSession(work.session), acme, "starter", Interval.MONTH))[1] == 4_900


def test_a_wrong_vat_id_is_not_put_on_invoices() -> None:
    found = read_catalogue(SANDBOX.replace("ATU12345675", "ATU12345674").encode())
    assert [(fault.field, str(fault)) for fault in found.faults] == [
        (("issuer",), "ATU12345674 is not a valid VAT id of AT.")
    ]


def test_a_file_in_another_encoding_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not TOML in UTF-8"):
        read_catalogue(SANDBOX.encode("utf-16"))


# --- the command


def test_the_command_shows_and_applies_a_difference(address: str, tmp_path: Path) -> None:
    file = tmp_path / "team.toml"
    file.write_text(a_plan(), "utf-8")
    for options, last in ((["--dry-run"], "This was a dry run: nothing was written."), ([], "Applied.")):
        done = plafond("catalogue", "apply", str(file), *options, database_url=address)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["plan team: added", "    version 1", last]
    done = plafond("catalogue", "apply", str(file), database_url=address)
    assert done.stdout.splitlines() == ["plan team: unchanged", "Nothing changes."]


def test_the_command_lists_what_is_wrong(address: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(a_plan(month="CHF = 1", version=0), "utf-8")
    done = plafond("catalogue", "apply", str(file), database_url=address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "plafond: wrong.toml was not applied, and nothing has changed:",
        "  plans.team.version: This is a whole number, 1 or more.",
        "  plans.team.month: There is no price in EUR.",
        "  plans.team.month.CHF: CHF is not one of the file's currencies: add it there, or take it out here.",
    ]
