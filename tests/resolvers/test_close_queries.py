"""The audit log, the reports of the close and exports over all accounts through GraphQL: what they say, and to whom."""

import itertools
from typing import Any

import pytest

from plafond.models import LedgerAccount, Role
from plafond.schema.node import encode_id
from plafond.services.closes import WALL_CLOCK, sum_ledger

from ..conftest import Client, World
from ..services.exporting import write
from ..services.helpers import account_of

LOG = """query($first: Int, $after: String, $filter: AuditFilter) { billingAccount(externalId: "acme") {
  auditLog(first: $first, after: $after, filter: $filter) { totalCount pageInfo { endCursor hasNextPage }
    nodes { id number at actor { kind name } origin action object before after detailsHash previousHash hash
      createdAt updatedAt } } } }"""
OWN = """query($filter: AuditFilter) { auditLog(first: 100, filter: $filter) { totalCount
  nodes { id number actor { kind name } action object before after hash } } }"""
AGES = "notDue days1To30 days31To60 days61To90 over90Days carriedForward broughtForward total"
SHOWN = " ".join(f"{age} {{ amountMinor }}" for age in AGES.split())
AGING = (
    """query($asOf: DateTime, $clock: ID) { receivablesAging(asOf: $asOf, testClockId: $clock) { asOf currencies {
      currency amounts { SHOWN } ledgerBalance { amountMinor } difference { amountMinor } accountCount
      accounts { externalId name account { id externalId } amounts { total { amountMinor } } } } } }"""
).replace("SHOWN", SHOWN)
DEFERRED = """query($asOf: DateTime, $clock: ID) { deferredRevenue(asOf: $asOf, testClockId: $clock) { asOf currencies {
  currency total { amountMinor } ledgerBalance { amountMinor } difference { amountMinor }
  schedule { month amount { amountMinor } } accountCount
  accounts { externalId account { externalId } amount { amountMinor } } } } }"""
TAX = """query($from: DateTime!, $to: DateTime!, $clock: ID) { taxReport(from: $from, to: $to, testClockId: $clock) {
  from to currencies { currency total { amountMinor } ledgerMovement { amountMinor } difference { amountMinor }
    rows { issuer issuerName jurisdiction category rate taxable { amountMinor } tax { amountMinor } } } } }"""
ASK = """mutation($input: RequestExportInput!) { requestExport(input: $input) {
  export { id status granularity rowsWritten from to } userErrors { code field } } }"""
LIST = "{ exports(first: 5) { totalCount nodes { id kind status rowCount rowsWritten document { url } } } }"
YEARS = {"from": "2020-01-01T00:00:00Z", "to": "2026-11-25T12:00:00Z"}
NODE = "query($id: ID!) { node(id: $id) { __typename id } }"


# --- the audit log ---------------------------------------------------------------------------------------------------


async def test_the_log_of_an_account_is_newest_first_in_pages_and_filtered(client: Client, world: World) -> None:
    owner = world.token("Acme", Role.TENANT_OWNER)
    await client.data(
        owner,
        """mutation($id: ID!) { updateBillingAccount(input: { accountId: $id, name: "Acme 2" }) {
          userErrors { code } } }""",
        id=encode_id("BillingAccount", (await account_of(world)).id),
    )
    data: Any = await client.data(owner, LOG, first=100)
    log = data["billingAccount"]["auditLog"]
    entries = log["nodes"]
    assert [entry["number"] for entry in entries] == list(range(log["totalCount"], 0, -1))[:100]
    assert all(older["hash"] == newer["previousHash"] for newer, older in itertools.pairwise(entries))
    newest = entries[0]
    assert (newest["action"], newest["actor"]["kind"]) == ("account.updated", "API_KEY")
    assert newest["actor"]["name"].startswith("api_key:")
    assert newest["origin"]
    assert newest["after"]["name"] == "Acme 2"
    assert (newest["at"], newest["detailsHash"]) == ("2026-11-25T12:00:00Z", None)

    async def found(**filter_: object) -> list[int]:
        answer: Any = await client.data(owner, LOG, first=100, filter=filter_)
        return [entry["number"] for entry in answer["billingAccount"]["auditLog"]["nodes"]]

    assert await found(actor=newest["actor"]["name"]) == [newest["number"]]
    assert await found(action="account.updated", **{"from": newest["at"]}) == [newest["number"]]
    assert await found(action="account.nothing") == []
    invoices = [entry for entry in entries if entry["action"].startswith("invoice.")]
    assert await found(action="invoice.") == [entry["number"] for entry in invoices] != []
    mine = [entry["number"] for entry in entries if entry["object"] == invoices[0]["object"]]
    assert await found(object=invoices[0]["object"]) == mine
    assert newest["number"] not in await found(to=newest["at"])
    # Paged, nothing is missed and nothing comes twice.
    numbers: list[int] = []
    after = None
    while True:
        data = await client.data(owner, LOG, first=7, after=after)
        page = data["billingAccount"]["auditLog"]
        numbers += [entry["number"] for entry in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert numbers == list(range(log["totalCount"], 0, -1))
    shown: Any = await client.data(owner, NODE, id=newest["id"])
    assert shown["node"] == {"__typename": "AuditEntry", "id": newest["id"]}


@pytest.mark.parametrize("filter_", [{"actor": "x" * 256}, {"action": "a\x00"}, {"object": "\x00"}])
async def test_a_filter_that_is_no_text_is_refused(client: Client, world: World, filter_: dict[str, str]) -> None:
    answer: Any = await client.ask(world.operator, LOG, filter=filter_)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_percent_in_a_filter_is_a_percent(client: Client, world: World) -> None:
    data: Any = await client.data(world.operator, LOG, filter={"action": "%."})
    assert data["billingAccount"]["auditLog"]["totalCount"] == 0


async def test_a_member_sees_nothing_of_the_log(client: Client, world: World) -> None:
    answer: Any = await client.ask(world.token("Acme", Role.MEMBER), LOG)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert answer["data"]["billingAccount"]["auditLog"] is None


async def test_the_log_of_many_accounts_is_one_statement(client: Client, world: World) -> None:
    counts = []
    for first in (2, 10):
        world.statements.clear()
        await client.data(
            world.operator,
            "query($n: Int) { billingAccounts(first: $n) { nodes { auditLog(first: 3) { nodes { number } } } } }",
            n=first,
        )
        counts.append(len(world.statements))
    assert counts[0] == counts[1]


async def test_what_changes_of_no_account_is_in_the_deployments_log(client: Client, world: World) -> None:
    changed = await client.data(
        world.operator,
        """mutation { setMetric(input: { key: "renders", name: "Renders", kind: COUNTER, unit: "render" }) {
          userErrors { code } } }""",
    )
    assert changed == {"setMetric": {"userErrors": []}}
    data: Any = await client.data(world.operator, OWN)
    newest = data["auditLog"]["nodes"][0]
    assert (newest["action"], newest["object"]) == ("metric.added", "metric:renders")
    assert newest["actor"]["kind"] == "API_KEY"
    one: Any = await client.data(world.operator, OWN, filter={"object": "metric:renders"})
    assert [entry["id"] for entry in one["auditLog"]["nodes"]] == [newest["id"]]
    assert (await client.data(world.operator, NODE, id=newest["id"]))["node"] is not None
    assert (await client.data(world.token("Acme", Role.TENANT_OWNER), NODE, id=newest["id"]))["node"] is None


# --- the close -------------------------------------------------------------------------------------------------------


async def test_the_reports_are_tied_to_the_ledger(client: Client, world: World) -> None:
    async with world.database.read() as session:
        receivables = await sum_ledger(session, WALL_CLOCK, LedgerAccount.RECEIVABLES)
        deferred = await sum_ledger(session, WALL_CLOCK, LedgerAccount.DEFERRED)
        tax = await sum_ledger(session, WALL_CLOCK, LedgerAccount.TAX)
    data: Any = await client.data(world.operator, AGING)
    report = data["receivablesAging"]
    assert report["asOf"] == "2026-11-25T12:00:00Z"
    for currency in report["currencies"]:
        total = currency["amounts"]["total"]["amountMinor"]
        assert total == currency["ledgerBalance"]["amountMinor"] == receivables.pop(currency["currency"])
        assert currency["difference"]["amountMinor"] == 0
        ages = [currency["amounts"][age]["amountMinor"] for age in AGES.split()[:-1]]
        assert sum(ages) == total
        assert sum(account["amounts"]["total"]["amountMinor"] for account in currency["accounts"]) == total
        assert all(account["account"]["externalId"] == account["externalId"] for account in currency["accounts"])
    assert receivables == {}
    data = await client.data(world.operator, DEFERRED)
    for currency in data["deferredRevenue"]["currencies"]:
        total = currency["total"]["amountMinor"]
        assert total == currency["ledgerBalance"]["amountMinor"] == -deferred.pop(currency["currency"])
        assert sum(month["amount"]["amountMinor"] for month in currency["schedule"]) == total > 0
        assert currency["schedule"][0]["month"] == "2026-11-01"
    assert deferred == {}
    data = await client.data(world.operator, TAX, **YEARS)
    for currency in data["taxReport"]["currencies"]:
        total = currency["total"]["amountMinor"]
        assert total == currency["ledgerMovement"]["amountMinor"] == -tax.pop(currency["currency"], 0)
        assert sum(row["tax"]["amountMinor"] for row in currency["rows"]) == total
        assert all(row["issuerName"] for row in currency["rows"])
    assert not any(tax.values())


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (AGING, {"asOf": "2026-11-25T12:00:01Z"}),
        (DEFERRED, {"asOf": "2027-01-01T00:00:00Z"}),
        (TAX, {"from": "2026-11-25T00:00:00Z", "to": "2026-11-25T00:00:00Z"}),
        (TAX, {"from": "2010-11-25T00:00:00Z", "to": "2026-11-25T00:00:00Z"}),
        (AGING, {"clock": "nonsense"}),
        (TAX, {**YEARS, "clock": "nonsense"}),
    ],
)
async def test_what_cannot_be_told_is_refused(client: Client, world: World, query: str, variables: Any) -> None:
    answer: Any = await client.ask(world.operator, query, **variables)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("role", [Role.TENANT_OWNER, Role.BILLING_ADMIN, Role.MEMBER])
async def test_the_close_is_for_operators(client: Client, world: World, role: Role) -> None:
    token = world.token("Acme", role)
    for query, variables in ((AGING, {}), (DEFERRED, {}), (TAX, YEARS), (OWN, {}), (LIST, {})):
        answer: Any = await client.ask(token, query, **variables)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN", query
    asked: Any = await client.ask(token, ASK, input={"kind": "LEDGER", "format": "CSV", **YEARS})
    assert asked["errors"][0]["extensions"]["code"] == "FORBIDDEN"


# --- exports over all accounts ---------------------------------------------------------------------------------------


async def test_an_export_of_all_accounts_from_asking_to_fetching(client: Client, world: World) -> None:
    given = {"kind": "INVOICES", "format": "XLSX", **YEARS, "idempotencyKey": "close-11"}
    asked: Any = await client.data(world.operator, ASK, input=given)
    export = asked["requestExport"]["export"]
    assert (export["status"], export["granularity"], export["rowsWritten"]) == ("PENDING", None, 0)
    assert await client.data(world.operator, ASK, input=given) == asked, "under the key it is the same"
    assert await write(world) == 1
    data: Any = await client.data(world.operator, LIST)
    [shown] = data["exports"]["nodes"]
    assert (shown["id"], shown["status"], data["exports"]["totalCount"]) == (export["id"], "READY", 1)
    assert shown["rowCount"] == shown["rowsWritten"] > 0
    file = await client.http.get(shown["document"]["url"].removeprefix(world.settings.base_url))
    assert file.status_code == 200
    assert file.headers["content-type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    assert 'filename="invoices-2020-01-01-2026-11-25-' in file.headers["content-disposition"]
    assert file.content[:2] == b"PK"
    for token, sees in ((world.operator, True), (world.token("Acme", Role.TENANT_OWNER), False)):
        node: Any = await client.data(token, NODE, id=export["id"])
        assert (node["node"] is not None) is sees
    own: Any = await client.data(
        world.operator, '{ billingAccount(externalId: "acme") { exports(first: 5) { totalCount } } }'
    )
    assert own["billingAccount"]["exports"]["totalCount"] == 0


async def test_several_faults_are_told_at_once(client: Client, world: World) -> None:
    given = {"kind": "TAX_REPORT", "format": "PDF", "to": "2026-11-25T12:00:00Z", "granularity": "DAY"}
    account_id = encode_id("BillingAccount", (await account_of(world)).id)
    asked: Any = await client.data(world.operator, ASK, input={**given, "accountId": account_id})
    fields = [error["field"][-1] for error in asked["requestExport"]["userErrors"]]
    assert sorted(fields) == ["accountId", "format", "from", "granularity"]
