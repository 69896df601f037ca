"""`make run`: a fresh sandbox, served, and a mail server's month that drives one tenant to its ceiling, live."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .app import create_app
from .clock import SetClock
from .database import Database
from .migrations import check_database, migrate_database
from .models import Role
from .sandbox.seeds import SandboxToken, seed_sandbox
from .services.ports import Draughtsman
from .serving import Server, bind_port
from .settings import Environment, Settings

REPLAY_TENANT = "birchwood"
REPLAY_BATCHES = 48
PAUSE_S = 0.8
BAR_COLOURS = {
    "OK": "green",
    "WARNING": "yellow",
    "UPGRADE_SUGGESTION": "dark_orange",
    "URGENT": "red",
    "LIMIT_REACHED": "bold red",
}
LEVEL_SIGNS = {"WARNING": "🟡", "UPGRADE_SUGGESTION": "🟠", "URGENT": "🔴", "LIMIT_REACHED": "⛔"}

ACCOUNT = """
{ billingAccount(externalId: "birchwood") { id name changeCursor
    usage { metric { key name } used limit percent level resetsAt } } }
"""
RECORD = """
mutation ($events: [UsageEventInput!]!) {
  recordUsage(input: { events: $events }) { accepted duplicates rejected userErrors { message } }
}
"""
FOLLOW = """
subscription ($id: ID!, $after: String) { accountChanged(
    accountId: $id, after: $after, kinds: [USAGE, ALERT]) { kind node {
    ... on MetricUsage { metric { key } used limit percent level }
    ... on Alert { level message } } } }
"""
QUERY_TO_PASTE = (
    '{ billingAccount(externalId: "acme") { name nextBilling { date amount { formatted } } '
    "usage { metric { name } used limit percent level } } }"
)


async def run_demo(port: int, folder: Path, draughtsman: Draughtsman, *, keep: bool, replay: bool = True) -> None:
    """Serve the sandbox until interrupted."""
    console = Console()
    listener = bind_port("127.0.0.1", port)
    tokens_file = folder / "sandbox-tokens.json"
    settings = Settings(
        environment=Environment.SANDBOX,
        database_url=f"sqlite:///{folder / 'plafond.db'}",
        host="127.0.0.1",
        port=port,
        mail_folder=folder / "mail",
    )
    if keep and tokens_file.exists():
        await anyio.to_thread.run_sync(migrate_database, settings.database_url, settings.environment)
        kept = json.loads(tokens_file.read_text())
        made_at = datetime.fromisoformat(kept["madeAt"])
        tokens = [SandboxToken(item[0], Role(item[1]), item[2]) for item in kept["tokens"]]
        console.print(f"Kept the sandbox in {folder}.")
    else:
        console.print("Making a fresh sandbox: a catalogue, seven tenants, a year of history.")
        made_at = datetime.now(UTC).replace(microsecond=0)
        tokens = await _make_sandbox(settings, folder, tokens_file, made_at)
    check_database(settings.database_url, settings.environment)
    url = f"http://127.0.0.1:{port}/graphql"
    _print_tokens(tokens)
    operator = next(token.token for token in tokens if token.role is Role.OPERATOR)
    owner = next(token.token for token in tokens if token.tenant.startswith("Acme") and token.role is Role.TENANT_OWNER)
    app = create_app(settings, draughtsman=draughtsman)
    server = Server(app, drain_s=0)
    async with anyio.create_task_group() as group:

        async def serve() -> None:
            await server.serve(sockets=[listener])
            group.cancel_scope.cancel()

        group.start_soon(serve)
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {operator}"}, timeout=30.0) as client:
            with anyio.fail_after(30):
                await _wait_until_ready(client, f"http://127.0.0.1:{port}/readyz")
            account = await _ask(client, url, ACCOUNT, {})
            account = account["billingAccount"]
            _print_snippets(url, owner, operator, account["id"])
            if replay:
                with suppress(httpx2.TransportError):  # the server was stopped: nothing is left to send to
                    await _replay(console, client, url, operator, account, made_at)
        console.print(f"\nIts mails: http://127.0.0.1:{port}/mail\nServing on {url} until you press Ctrl-C.")


async def _make_sandbox(settings: Settings, folder: Path, tokens_file: Path, now: datetime) -> list[SandboxToken]:
    for name in ("plafond.db", "plafond.db-wal", "plafond.db-shm"):
        (folder / name).unlink(missing_ok=True)
    for mail in settings.mail_folder.glob("*.eml"):
        mail.unlink()
    await anyio.to_thread.run_sync(migrate_database, settings.database_url, settings.environment)
    database = Database(settings.database_url, SetClock(now), lambda _: None)
    try:
        tokens = await seed_sandbox(database, now)
    finally:
        await database.close()
    # Only the sandbox writes tokens down, and only for this user to read: KEEP=1 prints them again.
    descriptor = os.open(tokens_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        kept = [[token.tenant, token.role, token.token] for token in tokens]
        json.dump({"madeAt": now.isoformat(), "tokens": kept}, file)
    return tokens


def _print_tokens(tokens: list[SandboxToken]) -> None:
    """Plain lines: a token is for copying, so nothing may cut or wrap it."""
    print("\nTokens of this sandbox:")
    for token in tokens:
        print(f"  {token.tenant:<18}{token.role:<15}{token.token}")


def _print_snippets(url: str, owner: str, operator: str, account_id: str) -> None:
    subscription = f'subscription {{ alertRaised(accountId: "{account_id}") {{ level message raisedAt }} }}'
    body = json.dumps({"query": QUERY_TO_PASTE})
    print(f"\nGraphiQL, signed in as the owner of Acme:\n  {url}#token={owner}&query={quote(QUERY_TO_PASTE)}")
    print("\nA query, for the terminal:")
    print(f"  curl -s {url} -H 'Content-Type: application/json' \\")
    print(f"    -H 'Authorization: Bearer {owner}' \\\n    -d '{body}'")
    print(f"\nA subscription, for GraphiQL with the operator's token:\n  {subscription}")
    print(f"or at once:\n  {url}#token={operator}&query={quote(subscription)}\n", flush=True)


async def _wait_until_ready(client: httpx2.AsyncClient, url: str) -> None:
    while True:
        try:
            if (await client.get(url)).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        await anyio.sleep(0.05)


async def _ask(client: httpx2.AsyncClient, url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    answer = (await client.post(url, json={"query": query, "variables": variables})).json()
    assert not answer.get("errors"), answer["errors"]
    data: dict[str, Any] = answer["data"]
    return data


async def follow_account(url: str, token: str, account_id: str, after: str) -> AsyncGenerator[dict[str, Any]]:
    """The changes of an account, by a subscription over a real socket."""
    async with connect(url.replace("http", "ws", 1), subprotocols=["graphql-transport-ws"]) as ws:  # type: ignore[list-item]
        await ws.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
        assert json.loads(await ws.recv())["type"] == "connection_ack"
        payload = {"query": FOLLOW, "variables": {"id": account_id, "after": after}}
        await ws.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        async for message in ws:
            found = json.loads(message)
            if found["type"] == "next":
                yield found["payload"]["data"]["accountChanged"]


async def _replay(
    console: Console, client: httpx2.AsyncClient, url: str, token: str, account: dict[str, Any], made_at: datetime
) -> None:
    batches = _read_month(made_at)
    console.print(
        f"A month of a mail server's sends, squeezed into under a minute, for {account['name']}:", soft_wrap=True
    )
    columns = (TextColumn("{task.description:>15}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=console, refresh_per_second=8) as bars:
        tasks = {
            usage["metric"]["key"]: bars.add_task(usage["metric"]["name"], figures="") for usage in account["usage"]
        }

        def show(usage: dict[str, Any]) -> None:
            share = f"{usage['used']:,} of {usage['limit']:,} ({usage['percent']} %)"
            bars.update(
                tasks[usage["metric"]["key"]],
                total=usage["limit"],
                completed=min(usage["used"], usage["limit"]),
                figures=f"[{BAR_COLOURS[usage['level']]}]{share}[/]",
            )

        for usage in account["usage"]:
            show(usage)

        async with anyio.create_task_group() as group:

            async def watch() -> None:
                stream = follow_account(url, token, account["id"], account["changeCursor"])
                with suppress(ConnectionClosed):  # the server was stopped: there is nothing more to watch
                    async with aclosing(stream) as changes:
                        await show_changes(changes)

            async def show_changes(changes: AsyncGenerator[dict[str, Any]]) -> None:
                async for change in changes:
                    node = change["node"]
                    if change["kind"] == "USAGE":
                        show(node)
                    elif change["kind"] == "ALERT":
                        sign = LEVEL_SIGNS.get(node["level"], "")
                        console.print(f"{sign} {node['level']}: {node['message']}", soft_wrap=True)

            group.start_soon(watch)
            accepted = duplicates = rejected = 0
            for events in batches:
                result = (await _ask(client, url, RECORD, {"events": events}))["recordUsage"]
                accepted += result["accepted"]
                duplicates += result["duplicates"]
                rejected += result["rejected"]
                if result["accepted"]:
                    await anyio.sleep(PAUSE_S)
            await anyio.sleep(PAUSE_S)  # the last figures are on their way
            group.cancel_scope.cancel()
    console.print(f"{accepted:,} events counted.")
    if duplicates:
        console.print(f"{duplicates:,} were counted by an earlier run, and are not counted twice.")
    if rejected:
        console.print(f"{rejected:,} were refused: this sandbox is too old for them. `make run` makes a fresh one.")


def _read_month(made_at: datetime) -> list[list[dict[str, Any]]]:
    """The shipped month as events: offsets from 0 to 1 become instants of the period that had elapsed by then.

    Always the same instants for one sandbox, so that a kept one counts the month once.
    """
    elapsed = timedelta(days=14)
    text = files(__package__).joinpath("sandbox/mail_server.ndjson").read_text()
    events = []
    for line in text.splitlines():
        event = json.loads(line)
        at = made_at - elapsed * (1 - event.pop("offset"))
        events.append({**event, "externalId": REPLAY_TENANT, "occurredAt": at.replace(microsecond=0).isoformat()})
    size = -(-len(events) // REPLAY_BATCHES)
    return [events[place : place + size] for place in range(0, len(events), size)]
