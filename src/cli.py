"""The command line: `plafond …`."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from .adapters.pdf import PdfPool
from .api import print_schema
from .app import WORK_GRACE_S, create_app, make_bus, make_hooks, make_link_key, make_post_office, make_processor
from .clock import SystemClock
from .database import Actor, Database, take_snapshot
from .demo import run_demo
from .faults import rehearse
from .ingest import IngestFailed, ingest_file, rejected_of
from .ingest import Progress as IngestProgress
from .migrations import DatabaseNotReady, check_database, migrate_database
from .models import BillingAccount
from .sandbox.scenarios import SCENARIOS, create_scenario
from .services.access import Principal, PrincipalKind, Scope
from .services.accounts import find_by_external_id
from .services.auditing import audit, measure_books, name_accounts
from .services.catalogue_changes import Verb
from .services.catalogue_files import apply_catalogue, compare_catalogue, place_in_file, read_catalogue
from .services.duties import release_account
from .services.errors import BillingError, InvalidInput, NotFound, list_refusals
from .services.keys import check_overlap, create_operator_key, list_keys, revoke_key, rotate_key, status_of
from .services.partitions import make_partitions
from .services.purging import preview as preview_purge
from .services.purging import purge_all
from .services.tills import Till
from .services.tokens import draw_next
from .services.uses import Uses, write_for_ever, write_the_last
from .serving import Parent, PortInUse, Server, bind_port, supervise
from .settings import Environment, SettingMissing, Settings
from .stopping import Stopping
from .worker import Tools, start_work

SHOWN_REJECTIONS = 20
COMMAND_LINE = Actor(name="system:command_line", origin="plafond")
OPERATOR = Principal(kind=PrincipalKind.OPERATOR, id=COMMAND_LINE.name, display_name="Command line", is_operator=True)

app = typer.Typer(help="Plafond: a GraphQL API server for SaaS billing.", no_args_is_help=True, add_completion=False)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
catalogue = typer.Typer(help="The catalogue: plans, prices, add-ons, metrics, issuer, taxes.", no_args_is_help=True)
app.add_typer(catalogue, name="catalogue")

T = TypeVar("T")


def main() -> None:
    """Run a command; what the operator can mend is told in one line, without a traceback."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except (DatabaseNotReady, PortInUse, IngestFailed, SettingMissing, BillingError) as refusal:
        sys.exit(f"plafond: {refusal}")
    except ValidationError as error:
        sys.exit(f"plafond: the settings do not fit: {_explain_settings(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, _: object) -> None:
    """End in order: the processes that draw documents end too, and leave nothing behind."""
    sys.exit(128 + number)


def _explain_settings(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        name = "_".join(map(str, fault["loc"])).upper()
        message = fault["msg"].removeprefix("Value error, ")
        faults.append(f"PLAFOND_{name}: {message}" if name else message)
    return "; ".join(faults)


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    folder: Annotated[Path, typer.Option(help="Where its data lies.")] = Path("var"),
    *,
    keep: Annotated[bool, typer.Option(help="Keep the last data instead of starting afresh.")] = False,
    replay: Annotated[bool, typer.Option(help="Send the mail server's month.")] = True,
) -> None:
    """Serve a sandbox with seven tenants, and watch one of them reach its ceiling."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with closing(PdfPool()) as pool:
            asyncio.run(run_demo(port, folder, pool, keep=keep, replay=replay))
    except KeyboardInterrupt:
        pass  # before anything was served
    typer.echo("\nStopped.")


@app.command()
def serve(
    *,
    worker: Annotated[bool, typer.Option(help="Do the due work in this process too.")] = True,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes on the one port; the due work is done in the first.")
    ] = 1,
) -> None:
    """Serve the configured database (PLAFOND_DATABASE_URL)."""
    settings = Settings()
    check_database(settings.database_url, settings.environment)
    if settings.replica_url is not None:
        check_database(settings.replica_url, settings.environment)
    if settings.link_secret is None:
        # Made here, so that it is the same in all processes, and each opens the links of the others.
        settings = settings.model_copy(update={"link_secret": SecretStr(make_link_key(settings).hex())})
    listener = bind_port(settings.host, settings.port)
    typer.echo(f"Serving {settings.environment.lower()} at {settings.base_url}/graphql")

    def run(number: int, parent: Parent | None = None) -> None:
        rehearse(settings.fault)
        with closing(PdfPool()) as pool:
            served = create_app(settings, with_worker=worker and number == 0, draughtsman=pool)
            Server(served, settings.drain_seconds, parent).run(sockets=[listener])

    if workers == 1:
        run(0)
        return
    code = supervise(workers, run, listener)
    if code:
        raise typer.Exit(code)


@app.command("worker")
def work() -> None:
    """Do the due work, beside servers that run without it."""
    settings = Settings()
    check_database(settings.database_url, settings.environment)
    rehearse(settings.fault)
    office = make_post_office(settings)

    async def run(database: Database) -> None:
        stopping = Stopping()
        processor = make_processor(settings, database)
        uses = Uses()
        hooks, _ = make_hooks(settings, database, make_bus(settings), processor, make_link_key(settings), uses)
        with closing(PdfPool()) as pool:
            async with anyio.create_task_group() as everything:
                everything.start_soon(_hear_signals, stopping, everything.cancel_scope)
                everything.start_soon(write_for_ever, uses, database)
                async with anyio.create_task_group() as group:
                    keep_usage = timedelta(days=settings.usage_retention_days)
                    start_work(group, database, Tools(processor, hooks, office, pool, keep_usage), stopping)
                everything.cancel_scope.cancel()
        await write_the_last(uses, database)

    asyncio.run(_with_database(settings, run))


async def _hear_signals(stopping: Stopping, everything: anyio.CancelScope) -> None:
    """Have what is being done brought to its end, within the grace; a second signal ends it at once."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if stopping.has_begun:
                break
            stopping.begin()
            everything.deadline = anyio.current_time() + WORK_GRACE_S
    everything.cancel()


@app.command()
def migrate() -> None:
    """Bring the configured database up to date; the first time fixes its environment."""
    settings = Settings()
    migrate_database(settings.database_url, settings.environment)

    async def run(database: Database) -> None:
        await make_partitions(database, database.clock.now())

    asyncio.run(_with_database(settings, run))
    typer.echo("The database is up to date.")


@app.command("audit")
def audit_books() -> None:
    """Check that the books, invoices, payments, numbers and documents agree, and name what is wrong."""

    async def run(database: Database) -> None:
        async with database.read() as session:
            await take_snapshot(session)
            found = await audit(session, database.clock.now())
            size = await measure_books(session)
            names = await name_accounts(session, found)
        for finding in found:
            whose = ""
            if finding.account_id is not None:
                whose = f"account {names.get(finding.account_id, 'unknown')} ({finding.account_id}): "
            typer.echo(f"{finding.invariant:<4} {whose}{finding.what}")
        if found:
            raise typer.Exit(1)
        typer.echo(
            f"The books are in order: {size.accounts:,} accounts, {size.invoices:,} invoices, {size.entries:,} entries."
        )

    asyncio.run(_with_database(_checked_settings(), run))


@app.command("purge")
def purge_now(*, dry_run: Annotated[bool, typer.Option(help="Only count what would go.")] = False) -> None:
    """Delete all that was kept for its time, as the worker does every hour; docs/retention.md tells what that is."""
    settings = _checked_settings()
    keep_usage = timedelta(days=settings.usage_retention_days)

    async def run(database: Database) -> None:
        now = database.clock.now()
        if dry_run:
            gone = await preview_purge(database, COMMAND_LINE, now, keep_usage)
        else:
            gone = await purge_all(Till(database, make_processor(settings, database), COMMAND_LINE), now, keep_usage)
        for table, count in sorted(gone.items()):
            typer.echo(f"{table:<20}{count:>12,}")
        typer.echo(f"{sum(gone.values()):,} rows {'would go' if dry_run else 'are gone'}.")

    asyncio.run(_with_database(settings, run))


@app.command()
def schema() -> None:
    """Print the GraphQL schema."""
    typer.echo(print_schema(), nl=False)


@app.command()
def release(external_id: Annotated[str, typer.Argument(help="The account's external id.")]) -> None:
    """Let an account's parked work be tried again, once what broke it is mended."""

    async def run(database: Database) -> None:
        account = await _find_account(database, external_id)
        async with database.work(COMMAND_LINE) as work:
            released = await release_account(work, (await work.lock_accounts([account.id]))[account.id])
        typer.echo(f"{external_id}: {released} released.")

    asyncio.run(_with_database(_checked_settings(), run))


@app.command()
def scenario(
    name: Annotated[str, typer.Argument(help="Which state; without one the list is printed.")] = "",
) -> None:
    """Make an account in a named state in the configured sandbox, for those who build frontends."""
    if not name:
        for known, found in SCENARIOS.items():
            typer.echo(f"{known:<22}{found.meaning}")
        return
    settings = _checked_settings()
    if settings.environment is not Environment.SANDBOX:
        raise InvalidInput("Scenarios are made in a sandbox only.")

    async def run(database: Database) -> None:
        till = Till(database, make_processor(settings, database), COMMAND_LINE)
        account = await create_scenario(till, OPERATOR, name, database.clock.now())
        typer.echo(f"{account.external_id}: {SCENARIOS[name].meaning}")

    asyncio.run(_with_database(settings, run))


@app.command()
def ingest(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="NDJSON (CloudEvents too) or CSV.")
    ],
    url: Annotated[
        str, typer.Option(envvar="PLAFOND_URL", help="The server's address; with /graphql or /usage it is the same.")
    ] = "http://127.0.0.1:8000",
    token: Annotated[str, typer.Option(envvar="PLAFOND_TOKEN", help="An API key with usage:write.")] = "",
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events per request.")] = 500,
    parallel: Annotated[
        int, typer.Option(min=1, max=8, help="Requests at once; 1 keeps the file's order to the event.")
    ] = 4,
) -> None:
    """Send a file of usage events; interrupted, the same command goes on, and nothing is counted twice."""
    if not token:
        raise IngestFailed("no token: give an API key by --token or PLAFOND_TOKEN.")
    with file.open("rb") as content:
        total = sum(1 for _ in content)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), console=Console(stderr=True)
    ) as bars:
        task = bars.add_task(file.name, total=total)

        def tell(progress: IngestProgress) -> None:
            bars.update(task, completed=progress.lines)

        try:
            done = asyncio.run(ingest_file(file, url=url, token=token, tell=tell, batch=batch, parallel=parallel))
        except KeyboardInterrupt:
            bars.stop()
            raise IngestFailed(
                "Interrupted. Nothing acknowledged is lost: run the same command again to go on."
            ) from None
    typer.echo(f"{done.accepted} accepted, {done.duplicates} counted before, {len(done.rejected)} rejected.")
    for broken in done.rejected[:SHOWN_REJECTIONS]:
        named = f" ({broken['event_id']})" if broken["event_id"] else ""
        typer.echo(f"  line {broken['line']}{named}: {broken['reason']}")
    if len(done.rejected) > SHOWN_REJECTIONS:
        more = len(done.rejected) - SHOWN_REJECTIONS
        typer.echo(f"  … and {more} more: {rejected_of(file).name} lists them all.")
    if done.rejected:
        raise typer.Exit(1)


@keys.command("list")
def show_keys() -> None:
    """List the keys: their prefixes and states, never their secrets."""

    async def run(database: Database) -> None:
        async with database.read() as session:
            for key in await list_keys(session):
                state = status_of(key, key.revoked_at, database.clock.now()).lower()
                typer.echo(f"{key.prefix}  {state:8} {','.join(key.scopes):40} {key.name}")

    asyncio.run(_with_database(_checked_settings(), run))


@keys.command("create")
def make_key(
    name: Annotated[str, typer.Argument(help="What it is for: the list shows it.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may; several by repeating it.")],
    account: Annotated[
        str, typer.Option(help="The external id of the one account that it opens; all if left out.")
    ] = "",
    expires: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The first day, in UTC, on which it is no good any more."),
    ] = None,
) -> None:
    """Make an operator's key, to begin with: its token is printed this once, and stored only as a hash."""
    settings = _checked_settings()
    expires_at = None if expires is None else expires.replace(tzinfo=UTC)

    async def run(database: Database) -> None:
        only = await _find_account(database, account) if account else None
        async with database.work(COMMAND_LINE) as work:
            locked = None if only is None else (await work.lock_accounts([only.id]))[only.id]
            key = await create_operator_key(
                work, settings.environment, name=name, scopes=scope, account=locked, expires_at=expires_at
            )
        typer.echo(key.token)

    asyncio.run(_with_database(settings, run))


@keys.command("rotate")
def exchange_key(
    prefix: Annotated[str, typer.Argument(help="The key's prefix, such as plf_test_0123456789ab.")],
    overlap: Annotated[int, typer.Option(help="For how many seconds the present secret stays good, too.")] = 86_400,
) -> None:
    """Give a key a new secret: its token is printed this once. The present one stays good for a day, or as you say."""
    lasts = check_overlap(overlap)

    async def run(database: Database) -> None:
        drawn = draw_next(prefix)
        async with database.work(COMMAND_LINE) as work:
            await rotate_key(work, prefix, drawn, lasts)
        typer.echo(drawn.token)

    asyncio.run(_with_database(_checked_settings(), run))


@keys.command("revoke")
def end_key(prefix: Annotated[str, typer.Argument(help="The key's prefix, such as plf_test_0123456789ab.")]) -> None:
    """End a key and its streams: at once where Redis tells the servers, else within five seconds."""

    async def run(database: Database) -> None:
        async with database.work(COMMAND_LINE) as work:
            await revoke_key(work, prefix)
        typer.echo(f"{prefix} is revoked.")

    asyncio.run(_with_database(_checked_settings(), run))


@catalogue.command("apply")
def apply_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A catalogue file (TOML).")],
    *,
    dry_run: Annotated[bool, typer.Option(help="Only show what would change.")] = False,
) -> None:
    """Bring the catalogue to what a file says, all or nothing. Running subscriptions keep their versions."""

    async def run(database: Database) -> None:
        found = read_catalogue(file.read_bytes())
        if dry_run:
            async with database.read() as session:
                changes = await compare_catalogue(session, found)
        else:
            async with database.work(COMMAND_LINE) as work:
                changes = await apply_catalogue(work, found)
        for change in changes:
            typer.echo(f"{change.what}: {change.verb}")
            for detail in change.details:
                typer.echo(f"    {detail}")
        is_same = all(change.verb is Verb.UNCHANGED for change in changes)
        done = "This was a dry run: nothing was written." if dry_run else "Applied."
        typer.echo("Nothing changes." if is_same else done)

    try:
        asyncio.run(_with_database(_checked_settings(), run))
    except BillingError as refusal:
        typer.echo(f"plafond: {file.name} was not applied, and nothing has changed:", err=True)
        for single in list_refusals(refusal):
            typer.echo(f"  {': '.join(filter(None, (place_in_file(single), str(single))))}", err=True)
        raise typer.Exit(1) from None


async def _find_account(database: Database, external_id: str) -> BillingAccount:
    async with database.read() as session:
        account = await find_by_external_id(session, OPERATOR, external_id)
    if account is None:
        raise NotFound(f"There is no account {external_id}.")
    return account


def _checked_settings() -> Settings:
    settings = Settings()
    check_database(settings.database_url, settings.environment)
    return settings


async def _with_database(settings: Settings, run: Callable[[Database], Awaitable[T]]) -> T:
    bus = make_bus(settings)
    async with bus.running():
        database = Database(settings.database_url, SystemClock(), bus.publish_all)
        try:
            return await run(database)
        finally:
            await database.close()
