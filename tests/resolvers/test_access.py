"""Whose is it: foreign and unknown ids are the same; roles see what the table says; `viewerCan` tells the truth."""

from base64 import urlsafe_b64encode
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import delete, select

from plafond.database import Actor
from plafond.models import BillingAccount, Member, Operator, Role, Subscription, SubscriptionStatus
from plafond.resolvers.query import FINDERS
from plafond.schema.node import decode_id, encode_id
from plafond.services.access import Scope
from plafond.services.publishing import number_waiting
from plafond.services.tokens import create_key
from plafond.settings import Environment

from ..conftest import NOW, Client, World
from ..http.test_jwt import add_member, claims, secret_of, sign
from ..services.helpers import account_of, change_account, change_subscription

ACTOR = Actor(name="system:test", origin="test")
UNKNOWN = "00000000-0000-4000-8000-000000000000"
NODE = "query($id: ID!) { node(id: $id) { __typename id } }"
EVERYTHING = """query($external: String!) { billingAccount(externalId: $external) {
  id usage { id metric { id } } subscription { id plan { id } } paymentMethods { id } budget { id } notices { id }
  alerts { nodes { id } } invoices { nodes { id lines { id } } } transactions { nodes { id } }
  ledger { nodes { id } } creditNotes { nodes { id } } recommendations { nodes { id } } auditLog { nodes { id } }
  members { id } } }"""
OWNED = ["BillingAccount", "MetricUsage", "PlanSubscription", "PaymentMethod", "Invoice", "InvoiceLine", "Transaction",
         "Budget", "Alert", "Notice", "LedgerEntry", "CreditNote", "Quote", "RefundRequest", "Reservation",
         "Export", "Recommendation", "AuditEntry", "BillingEvent", "WebhookEndpoint", "WebhookDelivery",
         "ApiKey", "Contact", "Member", "Invite"]  # fmt: skip
PUBLIC = ["Metric", "Plan", "AddOn"]
FOR_OPERATORS = ["TestClock"]
TENANTS = ("acme", "calder", "dunmore")  # a budget, alerts, a notice
RECORD = """mutation($input: RecordUsageInput!) { recordUsage(input: $input) {
  accepted rejected results { status code message used limit } userErrors { code } } }"""


def type_of(id_: str) -> str:
    found = decode_id(id_)
    assert found is not None
    return found.type_name


def walk_ids(value: Any) -> list[str]:
    if isinstance(value, dict):
        below = [id_ for item in value.values() for id_ in walk_ids(item)]
        return [value["id"], *below] if "id" in value else below
    return [id_ for item in value for id_ in walk_ids(item)] if isinstance(value, list) else []


async def ids_of(client: Client, world: World, *tenants: str) -> dict[str, str]:
    """An id of each type that these tenants have."""
    found: dict[str, str] = {}
    for tenant in tenants:
        data = await client.data(world.operator, EVERYTHING, external=tenant)
        found = {type_of(id_): id_ for id_ in walk_ids(data)} | found
    return found


async def ids_of_all(client: Client, world: World) -> dict[str, str]:
    """An id of each type that is somebody's, with those that only a mutation makes."""
    ids = await ids_of(client, world, *TENANTS)
    quoted: Any = await client.data(
        world.token("Acme", Role.TENANT_OWNER),
        """mutation($id: ID!) { quotePlanChange(input: { accountId: $id, planKey: "business", interval: MONTH }) {
          quote { id } userErrors { message } } }""",
        id=ids["BillingAccount"],
    )
    credited: Any = await client.data(
        world.operator,
        """mutation($invoice: ID!, $line: ID!) { issueCreditNote(input: { invoiceId: $invoice, reason: "test",
          idempotencyKey: "1", lines: [{ lineId: $line, amountMinor: 1 }] }) {
          creditNote { id } userErrors { message } } }""",
        invoice=ids["Invoice"],
        line=ids["InvoiceLine"],
    )
    bought: Any = await client.data(
        world.operator,
        """{ billingAccount(externalId: "acme") {
          transactions(first: 1, filter: { kind: [CHARGE], status: [SUCCEEDED] }) { nodes { id } } } }""",
    )
    asked: Any = await client.data(
        world.operator,
        """mutation($id: ID!) { requestRefund(input: { transactionId: $id, reason: GOODWILL, idempotencyKey: "1" }) {
          refundRequest { id } userErrors { message } } }""",
        id=bought["billingAccount"]["transactions"]["nodes"][0]["id"],
    )
    held: Any = await client.data(
        world.operator,
        """mutation { reserveUsage(input: { externalId: "acme", metric: "workspaces", quantity: 1 }) {
          reservation { id } userErrors { message } } }""",
    )
    exported: Any = await client.data(
        world.operator,
        """mutation($id: ID!) { requestExport(input: { accountId: $id, kind: USAGE, format: CSV, granularity: DAY,
          from: "2026-11-01T00:00:00Z", to: "2026-11-25T00:00:00Z" }) { export { id } userErrors { message } } }""",
        id=ids["BillingAccount"],
    )
    hooked: Any = await client.data(
        world.operator,
        """mutation($id: ID!) { createWebhookEndpoint(input: { accountId: $id, url: "https://8.8.8.8/" }) {
          endpoint { id } userErrors { message } } }""",
        id=ids["BillingAccount"],
    )
    tested: Any = await client.data(
        world.operator,
        """mutation($id: ID!) { sendTestWebhook(input: { endpointId: $id }) {
          delivery { id } userErrors { message } } }""",
        id=hooked["createWebhookEndpoint"]["endpoint"]["id"],
    )
    await number_waiting(world.database, ACTOR)
    happened: Any = await client.data(
        world.operator,
        "query($id: ID!) { events(first: 1, accountIds: [$id]) { nodes { id } } }",
        id=ids["BillingAccount"],
    )
    keyed: Any = await client.data(
        await make_member_key(world, "acme", [Scope.ADMIN]),
        """mutation($id: ID!) { createApiKey(input: { accountIds: [$id], name: "Test", scopes: ["billing:read"] }) {
          apiKey { id } userErrors { message } } }""",
        id=ids["BillingAccount"],
    )
    people: Any = await client.data(
        world.operator,
        """mutation($id: ID!) {
          addContact(input: { accountId: $id, name: "Ada", email: "ada@acme.test", topics: [] }) {
            contact { id } userErrors { message } }
          inviteMember(input: { accountId: $id, email: "bob@acme.test", role: MEMBER }) {
            invite { id } userErrors { message } } }""",
        id=ids["BillingAccount"],
    )
    made = (
        people["addContact"]["contact"],
        people["inviteMember"]["invite"],
        keyed["createApiKey"]["apiKey"],
        hooked["createWebhookEndpoint"]["endpoint"],
        tested["sendTestWebhook"]["delivery"],
        *happened["events"]["nodes"],
        held["reserveUsage"]["reservation"],
        exported["requestExport"]["export"],
        quoted["quotePlanChange"]["quote"],
        credited["issueCreditNote"]["creditNote"],
        asked["requestRefund"]["refundRequest"],
    )
    assert None not in made, (keyed, exported, quoted, credited, asked, held)
    return ids | {type_of(item["id"]): item["id"] for item in made}


def unknown_like(id_: str) -> str:
    found = decode_id(id_)
    assert found is not None
    _, colon, rest = found.key.partition(":")
    return encode_id(found.type_name, f"{UNKNOWN}{colon}{rest}")


def test_the_tables_here_name_every_type() -> None:
    assert sorted([*OWNED, *PUBLIC, *FOR_OPERATORS]) == sorted(FINDERS)


async def test_each_object_is_found_by_its_owner_and_by_nobody_else(client: Client, world: World) -> None:
    ids = await ids_of_all(client, world)
    assert set(ids) >= set(OWNED)
    stranger = world.token("Elmtree", Role.TENANT_OWNER)
    for name in OWNED:
        answer: Any = await client.data(world.operator, NODE, id=ids[name])
        assert answer == {"node": {"__typename": name, "id": ids[name]}}
        foreign = await client.ask(stranger, NODE, id=ids[name])
        unknown = await client.ask(stranger, NODE, id=unknown_like(ids[name]))
        assert foreign == unknown == {"data": {"node": None}}, name


@pytest.mark.parametrize("role", [Role.TENANT_OWNER, Role.BILLING_ADMIN])
async def test_each_object_is_found_by_its_own_tenant(client: Client, world: World, role: Role) -> None:
    await ids_of_all(client, world)
    for tenant, name in zip(TENANTS, ("Acme", "Calder", "Dunmore"), strict=True):
        for id_ in (await ids_of(client, world, tenant)).values():
            answer: Any = await client.data(world.token(name, role), NODE, id=id_)
            assert answer == {"node": {"__typename": type_of(id_), "id": id_}}


async def test_many_foreign_ids_at_once_give_nothing(client: Client, world: World) -> None:
    ids = await ids_of_all(client, world)
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    stranger = world.token("Elmtree", Role.TENANT_OWNER)
    foreign = await client.ask(stranger, query, ids=[ids[name] for name in OWNED])
    unknown = await client.ask(stranger, query, ids=[unknown_like(ids[name]) for name in OWNED])
    assert foreign == unknown == {"data": {"nodes": [None] * len(OWNED)}}
    mixed: Any = await client.data(stranger, query, ids=[ids["Plan"], ids["Invoice"], ids["Metric"]])
    assert mixed["nodes"] == [{"id": ids["Plan"]}, None, {"id": ids["Metric"]}]


async def test_a_member_finds_usage_and_nothing_with_money(client: Client, world: World) -> None:
    await ids_of_all(client, world)
    for tenant, name in zip(TENANTS, ("Acme", "Calder", "Dunmore"), strict=True):
        for id_ in (await ids_of(client, world, tenant)).values():
            answer: Any = await client.data(world.token(name, Role.MEMBER), NODE, id=id_)
            visible = type_of(id_) in ("BillingAccount", "MetricUsage", "Alert", *PUBLIC)
            assert (answer["node"] is not None) is visible, type_of(id_)


async def test_an_account_by_id_or_external_id(client: Client, world: World) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    ids = await ids_of(client, world, "birchwood")
    by_id = "query($id: ID) { billingAccount(id: $id) { id } }"
    by_external = "query($id: String) { billingAccount(externalId: $id) { id } }"
    nothing = {"data": {"billingAccount": None}}
    for id_ in (ids["BillingAccount"], encode_id("BillingAccount", UNKNOWN), ids["Invoice"], "x", ""):
        assert await client.ask(token, by_id, id=id_) == nothing
    for external in ("birchwood", "nobody", "", "x" * 300, "%", "a\x00b"):
        assert await client.ask(token, by_external, id=external) == nothing
    both = 'query($id: ID) { billingAccount(id: $id, externalId: "acme") { id } }'
    answer: Any = await client.ask(token, both, id=ids["BillingAccount"])
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_tenant_lists_only_its_own_account(client: Client, world: World) -> None:
    query = "query($f: BillingAccountFilter) { billingAccounts(filter: $f) { totalCount nodes { externalId } } }"
    token = world.token("Acme", Role.TENANT_OWNER)
    own = {"billingAccounts": {"totalCount": 1, "nodes": [{"externalId": "acme"}]}}
    none: dict[str, Any] = {"billingAccounts": {"totalCount": 0, "nodes": []}}
    assert await client.data(token, query) == own
    assert await client.data(token, query, f={"search": "birchwood"}) == none
    assert await client.data(token, query, f={"externalIds": ["birchwood", "acme"]}) == own
    assert await client.data(token, query, f={"search": "%"}) == none


async def test_a_foreign_payment_method_filters_like_an_unknown_one(client: Client, world: World) -> None:
    foreign = (await ids_of(client, world, "birchwood"))["PaymentMethod"]
    query = """query($id: ID) { billingAccount { transactions(filter: { paymentMethodId: $id }) {
      totalCount nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }"""
    token = world.token("Acme", Role.TENANT_OWNER)
    answer: Any = await client.data(token, query, id=foreign)
    assert answer["billingAccount"]["transactions"]["totalCount"] == 0
    assert answer == await client.data(token, query, id=unknown_like(foreign))


@pytest.mark.parametrize("by", ["accountId", "externalId", "both"])
async def test_usage_for_a_foreign_account_is_refused_as_for_none(client: Client, world: World, by: str) -> None:
    token = await make_member_key(world, "acme", [Scope.USAGE_WRITE])
    foreign = (await ids_of(client, world, "birchwood"))["BillingAccount"]

    def event(id_: str, external: str) -> dict[str, Any]:
        named = {"accountId": {"accountId": id_}, "externalId": {"externalId": external}}
        chosen = named.get(by, {"accountId": id_, "externalId": external})
        return {"eventId": "e", "metric": "email_sends", "quantity": 1} | chosen

    answers = [
        await client.data(token, RECORD, input={"events": [event(*given)]})
        for given in [(foreign, "birchwood"), (encode_id("BillingAccount", UNKNOWN), "nobody"), ("x", "")]
    ]
    assert answers[0] == answers[1]
    for answer in answers:  # of a broken id the sentence may say more, the code not
        payload: Any = answer["recordUsage"]
        assert [result["code"] for result in payload["results"]] == ["UNKNOWN_ACCOUNT"]


async def test_a_test_clock_is_the_operators_own(client: Client, world: World) -> None:
    made: Any = await client.data(
        world.operator, 'mutation { createTestClock(input: { name: "one" }) { testClock { id } } }'
    )
    id_ = made["createTestClock"]["testClock"]["id"]
    assert await client.data(world.operator, NODE, id=id_) == {"node": {"__typename": "TestClock", "id": id_}}
    of_one_account = await make_operator_key(world, [Scope.ADMIN], "acme")
    for token in (world.token("Acme", Role.TENANT_OWNER), of_one_account):
        assert await client.ask(token, NODE, id=id_) == {"data": {"node": None}}
    assert await client.ask(world.operator, NODE, id=unknown_like(id_)) == {"data": {"node": None}}


def raw(text: str | bytes) -> str:
    return urlsafe_b64encode(text.encode() if isinstance(text, str) else text).decode().rstrip("=")


BROKEN = {
    "empty": "",
    "short": "x",
    "not-ascii": "é",
    "blank": " ",
    "long": "A" * 10_000,
    "not-utf-8": raw(b"\xff\xfe"),
    "no-key": raw("BillingAccount:"),
    "no-type": raw(f":{UNKNOWN}"),
    "no-colon": raw("BillingAccount"),
    "query": raw("Query:1"),
    "user": raw(f"User:{UNKNOWN}"),
    "nope": raw(f"Nope:{UNKNOWN}"),
    "node": raw(f"Node:{UNKNOWN}"),
    "not-a-uuid": raw("Invoice:1"),
    "uuid-braces": raw(f"Invoice:{{{UNKNOWN}}}"),
    "uuid-urn": raw(f"Invoice:urn:uuid:{UNKNOWN}"),
    "uuid-arabic": raw("Invoice:" + UNKNOWN.replace("0", "٠")),
    "plan-nul": raw("Plan:\x00"),
    "metric-nul": raw("Metric:\x00"),
    "add-on-nul": raw("AddOn:a\x00"),
    "plan-long": raw("Plan:" + "a" * 150),
    "plan-sql": raw("Plan:' OR '1'='1"),
    "usage-nothing": raw("MetricUsage::"),
    "usage-nul": raw(f"MetricUsage:{UNKNOWN}:\x00"),
    "slash-alphabet": "Pz8/Pj4+",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_id_names_nothing(client: Client, world: World, name: str) -> None:
    for token in (world.operator, world.token("Acme", Role.TENANT_OWNER)):
        assert await client.ask(token, NODE, id=BROKEN[name]) == {"data": {"node": None}}


async def test_an_id_under_another_type_s_name_finds_nothing(client: Client, world: World) -> None:
    ids = await ids_of_all(client, world)
    token = world.operator
    for name in OWNED:
        for other in OWNED:
            found = decode_id(ids[name])
            assert found is not None
            if other != name and {name, other} != {"BillingAccount", "MetricUsage"}:
                answer = await client.ask(token, NODE, id=encode_id(other, found.key))
                assert answer == {"data": {"node": None}}, (name, other)


async def test_a_usage_id_of_a_metric_that_is_not_there(client: Client, world: World) -> None:
    ids = await ids_of(client, world, "acme")
    account = decode_id(ids["BillingAccount"])
    assert account is not None
    for key in ("", ":", ":nope", ":\x00", ":email_sends:x"):
        answer = await client.ask(world.operator, NODE, id=encode_id("MetricUsage", account.key + key))
        assert answer == {"data": {"node": None}}, key


WITH_NUL = [
    "{ plan(key: NUL) { key } }",
    "{ plans(currency: NUL) { key } }",
    '{ billingAccount(externalId: "acme") { usage(metrics: [NUL]) { id } } }',
    '{ billingAccount(externalId: "acme") { alerts(filter: { metrics: [NUL] }) { totalCount } } }',
    '{ billingAccount(externalId: "acme") { invoices(filter: { search: NUL }) { totalCount } } }',
    '{ billingAccount(externalId: "acme") { transactions(filter: { paymentMethodId: NUL }) { totalCount } } }',
    "{ billingAccounts(filter: { search: NUL }) { totalCount } }",
    "{ billingAccounts(filter: { planKey: NUL }) { totalCount } }",
    "{ billingAccounts(filter: { externalIds: [NUL] }) { totalCount } }",
    'mutation { recordUsage(input: { events: [{ externalId: NUL, eventId: "e", metric: "m" }] }) { rejected } }',
    'mutation { recordUsage(input: { events: [{ externalId: "acme", eventId: NUL, metric: "m" }] }) { rejected } }',
    'mutation { recordUsage(input: { events: [{ externalId: "acme", eventId: "e", metric: NUL }] }) { rejected } }',
    "mutation { recordUsage(input: { idempotencyKey: NUL, events: [] }) { userErrors { code } } }",
]


@pytest.mark.parametrize("query", WITH_NUL, ids=range(len(WITH_NUL)))
async def test_nul_is_never_a_fault_of_ours(client: Client, world: World, query: str) -> None:
    answer: Any = await client.ask(world.operator, query.replace("NUL", '"\\u0000"'))
    for error in answer.get("errors", []):
        assert error["extensions"]["code"] == "BAD_USER_INPUT", error


async def test_with_several_accounts_one_has_to_be_named(client: Client, world: World) -> None:
    query = "{ billingAccount { name } }"
    assert await client.ask(world.operator, query) == {"data": {"billingAccount": None}}
    await add_member(world, "acme", Role.MEMBER)
    token = sign(claims(), secret_of(world))
    data: Any = await client.data(token, query)
    assert data["billingAccount"]["name"] == "Acme Corporation"
    await add_member(world, "calder", Role.TENANT_OWNER)
    answer: Any = await client.ask(token, query)
    assert answer["data"] == {"billingAccount": None}
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_role_holds_in_its_own_account_only(client: Client, world: World) -> None:
    await add_member(world, "acme", Role.MEMBER)
    await add_member(world, "calder", Role.TENANT_OWNER)
    token = sign(claims(), secret_of(world))
    query = "query($external: String) { billingAccount(externalId: $external) { name subscription { status } } }"
    answer: Any = await client.ask(token, query, external="acme")
    assert (answer["data"]["billingAccount"]["subscription"], len(answer["errors"])) == (None, 1)
    data: Any = await client.data(token, query, external="calder")
    assert data["billingAccount"]["subscription"] == {"status": "ACTIVE"}
    acme_invoice = (await ids_of(client, world, "acme"))["Invoice"]
    assert await client.ask(token, NODE, id=acme_invoice) == {"data": {"node": None}}
    listed: Any = await client.ask(token, "{ billingAccounts { nodes { name subscription { status } } } }")
    seen = {row["name"]: row["subscription"] for row in listed["data"]["billingAccounts"]["nodes"]}
    assert seen == {"Calder Labs": {"status": "ACTIVE"}}


FOR_ALL = ["id", "name", "currency", "timezone", "locale", "changeCursor", "createdAt", "viewerCan { action allowed }",
           "usage { used limit percent }", "alerts { nodes { kind level message } }"]  # fmt: skip
FOR_BILLING = [
    "externalId", "status", "metadata", "notices { id }", "subscription { id }", "nextBilling { at }",
    "nextRenewal { at }", "paymentMethods { id }", "defaultPaymentMethod { id }", "invoices { totalCount }",
    "transactions { totalCount }", "budget { id }", "recommendations { totalCount }",
    "creditBalance { amountMinor }", "usage { overage { amount { amountMinor } } }",
]  # fmt: skip


@pytest.mark.parametrize("role", list(Role))
async def test_the_table_of_roles(client: Client, world: World, role: Role) -> None:
    token = world.operator if role is Role.OPERATOR else world.token("Calder", role)
    for selection in (*FOR_ALL, *FOR_BILLING):
        answer: Any = await client.ask(token, f'{{ billingAccount(externalId: "calder") {{ {selection} }} }}')
        refused = {error["extensions"]["code"] for error in answer.get("errors", [])}
        expected = {"FORBIDDEN"} if role is Role.MEMBER and selection in FOR_BILLING else set()
        assert refused == expected, selection
        if expected:
            name = selection.partition(" ")[0]
            found = answer["data"]["billingAccount"][name]
            assert found is None or all(item["overage"]["amount"] is None for item in found)


async def test_a_member_may_not_list_accounts(client: Client, world: World) -> None:
    answer: Any = await client.ask(world.token("Acme", Role.MEMBER), "{ billingAccounts { totalCount } }")
    assert (answer["data"], answer["errors"][0]["extensions"]["code"]) == (None, "FORBIDDEN")


@pytest.mark.parametrize("role", list(Role))
async def test_everybody_may_ask_who_they_are_and_what_is_on_offer(client: Client, world: World, role: Role) -> None:
    token = world.operator if role is Role.OPERATOR else world.token("Acme", role)
    data: Any = await client.data(
        token, "{ viewer { roles } plans { key } addOns { key } metrics { key } serverInfo { version } }"
    )
    assert data["viewer"]["roles"] == [role]
    assert all(data[name] for name in ("plans", "addOns", "metrics"))


async def make_member_key(world: World, tenant: str, scopes: list[Scope], role: Role = Role.TENANT_OWNER) -> str:
    async with world.database.work(ACTOR) as work:
        found = select(Member).join(BillingAccount, BillingAccount.id == Member.account_id)
        chosen = found.where(BillingAccount.external_id == tenant, Member.role == role)
        maker = (await work.session.scalars(chosen)).one()
        return create_key(work, Environment.SANDBOX, name="Test", maker=maker, scopes=scopes).token


async def make_operator_key(world: World, scopes: list[Scope], tenant: str | None = None) -> str:
    async with world.database.work(ACTOR) as work:
        maker = (await work.session.scalars(select(Operator))).one()
        account = None
        if tenant is not None:
            chosen = select(BillingAccount).where(BillingAccount.external_id == tenant)
            account = (await work.session.scalars(chosen)).one()
        return create_key(
            work,
            Environment.SANDBOX,
            name="Test",
            maker=maker,
            scopes=scopes,
            account_id=account.id if account else None,
        ).token


WHO = {
    "operator": True,
    "operator's key of one account": True,
    "owner": False,
    "billing admin": False,
    "member": False,
    "owner with usage:write": True,
    "admin scope of an owner": False,
    "member's key with usage:write": True,
}


@pytest.mark.parametrize("name", WHO)
async def test_viewer_can_says_who_may_record_usage(client: Client, world: World, name: str) -> None:
    read = [Scope.BILLING_READ]
    match name:
        case "operator":
            token = world.operator
        case "operator's key of one account":
            token = await make_operator_key(world, [Scope.ADMIN], "acme")
        case "owner":
            token = world.token("Acme", Role.TENANT_OWNER)
        case "billing admin":
            token = world.token("Acme", Role.BILLING_ADMIN)
        case "member":
            token = world.token("Acme", Role.MEMBER)
        case "owner with usage:write":
            token = await make_member_key(world, "acme", [*read, Scope.USAGE_WRITE])
        case "admin scope of an owner":
            token = await make_member_key(world, "acme", [Scope.ADMIN])
        case _:
            token = await make_member_key(world, "acme", [*read, Scope.USAGE_WRITE], Role.MEMBER)
    query = '{ billingAccount(externalId: "acme") { viewerCan { action allowed reason { code message } } } }'
    data: Any = await client.data(token, query)
    (permission,) = (item for item in data["billingAccount"]["viewerCan"] if item["action"] == "RECORD_USAGE")
    assert permission["allowed"] == WHO[name]
    event = {"externalId": "acme", "eventId": "v", "metric": "email_sends", "quantity": 1}
    answer: Any = await client.ask(token, RECORD, input={"events": [event]})
    if permission["allowed"]:
        assert permission["reason"] is None
        assert answer["data"]["recordUsage"]["results"][0]["status"] == "ACCEPTED"
    else:
        assert permission["reason"]["code"] == "FORBIDDEN"
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert answer["errors"][0]["message"] == permission["reason"]["message"]


# What is asked for by each action. Plans and add-ons that there are not: so what the role and the state allow changes
# nothing, and is refused for that alone.
ORDER = 'planKey: "nope", interval: MONTH'
ASKING = {
    "CLOSE_ACCOUNT": 'closeBillingAccount(input: { ACCOUNT, confirm: "not its name" })',
    "SET_LEGAL_HOLD": 'setLegalHold(input: { ACCOUNT, reason: "" })',
    "RECORD_USAGE": "recordUsage(input: { events: [] })",
    "UPDATE_ACCOUNT": "updateBillingAccount(input: { ACCOUNT })",
    "UPDATE_COMPANY": "updateCompany(input: { ACCOUNT })",
    "SET_ALERT_THRESHOLDS": 'setAlertThresholds(input: { ACCOUNT, metric: "nope", percents: [] })',
    "SET_BUDGET": 'setBudget(input: { ACCOUNT, limit: { amountMinor: 0, currency: "USD" } })',
    "ACKNOWLEDGE_ALERTS": "acknowledgeAlerts(input: { ACCOUNT, ids: [] })",
    "ADD_PAYMENT_METHOD": 'addPaymentMethod(input: { ACCOUNT, KEY, token: "pm_card_visa", makeDefault: false })',
    "START_TRIAL": f"startTrial(input: {{ ACCOUNT, KEY, {ORDER} }})",
    "START_SUBSCRIPTION": f"startSubscription(input: {{ ACCOUNT, KEY, {ORDER} }})",
    "CHANGE_PLAN": f"changePlan(input: {{ ACCOUNT, KEY, {ORDER} }})",
    "SET_ADD_ON": 'setAddOn(input: { ACCOUNT, KEY, addOnKey: "nope", quantity: 1 })',
    "REACTIVATE_SUBSCRIPTION": f"reactivateSubscription(input: {{ ACCOUNT, KEY, {ORDER} }})",
    "SET_TAX_EXEMPTION": "setTaxExemption(input: { ACCOUNT, exemption: null })",
    "GRANT_CREDIT": 'grantCredit(input: { ACCOUNT, KEY, amountMinor: 1, currency: "USD", reason: "test" })',
    "RESUME_SUBSCRIPTION": "resumeSubscription(input: { ACCOUNT })",
    "CANCEL_SUBSCRIPTION": "cancelSubscription(input: { ACCOUNT, KEY })",
    "CANCEL_NOW": "cancelSubscription(input: { ACCOUNT, KEY, mode: NOW })",
    "CREATE_PAYMENT_SETUP": "createPaymentSetup(input: { ACCOUNT })",
    "RETRY_PAYMENT": "retryPayment(input: { ACCOUNT, KEY })",
    "SET_OVERAGE_POLICY": 'setOveragePolicy(input: { ACCOUNT, metric: "email_sends", policy: BLOCK })',
    "APPROVE_OVERAGE": 'approveOverage(input: { ACCOUNT, metric: "email_sends" })',
    "APPLY_RECOMMENDATION": 'applyRecommendation(input: { recommendationId: "ADVICE", KEY })',
    "DISMISS_RECOMMENDATION": 'dismissRecommendation(input: { recommendationId: "ADVICE" })',
    "MANAGE_CONTACTS": 'addContact(input: { ACCOUNT, KEY, name: "", email: "x@y.test", topics: [] })',
    "INVITE_MEMBER": 'inviteMember(input: { ACCOUNT, KEY, email: "x@y.test", role: OPERATOR })',
    "TRANSFER_OWNERSHIP": 'transferOwnership(input: { ACCOUNT, KEY, memberId: "x" })',
    "MANAGE_WEBHOOKS": 'createWebhookEndpoint(input: { ACCOUNT, KEY, url: "https://8.8.8.8/" })',
    "CREATE_API_KEY": 'createApiKey(input: { accountIds: ["ITS_ID"], name: "x", scopes: [] })',
    "REQUEST_EXPORT": (
        "requestExport(input: { ACCOUNT, KEY, kind: USAGE, format: CSV, granularity: DAY, "
        'from: "2026-11-02T00:00:00Z", to: "2026-11-01T00:00:00Z" })'
    ),
}
EARLIER = NOW - timedelta(hours=1)
STATES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "trialing": {"status": SubscriptionStatus.TRIALING, "trial_end": NOW + timedelta(days=1)},
    "active": {"status": SubscriptionStatus.ACTIVE},
    "cancelled at its end": {"status": SubscriptionStatus.ACTIVE, "cancel_at_period_end": True},
    "past due": {"status": SubscriptionStatus.PAST_DUE},
    "suspended": {"status": SubscriptionStatus.SUSPENDED, "suspended_at": EARLIER},
    "canceled": {"status": SubscriptionStatus.CANCELED, "canceled_at": EARLIER},
    "expired": {"status": SubscriptionStatus.EXPIRED, "canceled_at": EARLIER},
    "closed": {"status": SubscriptionStatus.CANCELED, "canceled_at": EARLIER},
}
ALWAYS = {"RETRY_PAYMENT", "ACKNOWLEDGE_ALERTS"}
PAYING = {"UPDATE_COMPANY", "ADD_PAYMENT_METHOD", "CREATE_PAYMENT_SETUP", "REQUEST_EXPORT", "MANAGE_WEBHOOKS", *ALWAYS}
PAYING |= {"MANAGE_CONTACTS"}
SETTINGS = PAYING | {"UPDATE_ACCOUNT", "SET_ALERT_THRESHOLDS", "SET_OVERAGE_POLICY", "APPROVE_OVERAGE"}
SETTINGS |= {"DISMISS_RECOMMENDATION", "SET_BUDGET"}
ORDERS = {"CHANGE_PLAN", "SET_ADD_ON", "APPLY_RECOMMENDATION"}
TENANTS_MAY = {
    "none": SETTINGS | {"START_TRIAL", "START_SUBSCRIPTION"},
    "trialing": SETTINGS | {"START_SUBSCRIPTION", "CHANGE_PLAN", "SET_ADD_ON", "CANCEL_SUBSCRIPTION"},
    "active": SETTINGS | ORDERS | {"CANCEL_SUBSCRIPTION"},
    "cancelled at its end": SETTINGS | ORDERS | {"RESUME_SUBSCRIPTION"},
    "past due": SETTINGS | ORDERS | {"CANCEL_SUBSCRIPTION"},
    "suspended": PAYING | {"CANCEL_SUBSCRIPTION"},
    "canceled": PAYING | {"REACTIVATE_SUBSCRIPTION"},
    "expired": ALWAYS,
    "closed": PAYING,
}
"""What the states allow to an owner or a billing admin, by §4."""
RESTRICTED = ("suspended", "canceled", "expired", "closed")


def expected_for(role: Role, state: str) -> set[str]:
    """What a tenant's role may do in a state."""
    if role is Role.MEMBER:
        return set()
    found = set(TENANTS_MAY[state])
    if state not in RESTRICTED:
        found |= {"CREATE_API_KEY"}
    if role is Role.TENANT_OWNER:
        found |= {"INVITE_MEMBER", "TRANSFER_OWNERSHIP"} if state not in RESTRICTED else set()
        found |= {"CLOSE_ACCOUNT"} if state not in ("expired", "closed") else set()
    return found


FOR_ROLE_OR_STATE = {"FORBIDDEN", "INVALID_TRANSITION", "ACCOUNT_SUSPENDED", "ACCOUNT_CANCELED", "INVOICE_PAID"}


async def bring_into_state(world: World, state: str) -> None:
    """Acme, as if it had come there."""
    values = STATES[state]
    if state == "closed":
        await change_account(world, "acme", closed_at=EARLIER)
    if values is not None:
        await change_subscription(world, "acme", **{"cancel_at_period_end": False} | values)
        return
    account = await account_of(world)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(delete(Subscription).where(Subscription.account_id == account.id))


async def refusal_of(client: Client, token: str, call: str) -> dict[str, Any] | None:
    """Why a mutation is refused to this role or in this state; none where it is not."""
    answer: Any = await client.ask(token, f"mutation {{ {call} {{ userErrors {{ code message }} }} }}")
    if "errors" in answer:
        (error,) = answer["errors"]
        return {"code": error["extensions"]["code"], "message": error["message"]}
    (payload,) = answer["data"].values()
    return next((error for error in payload["userErrors"] if error["code"] in FOR_ROLE_OR_STATE), None)


@pytest.mark.parametrize("state", STATES)
async def test_viewer_can_is_true_exactly_when_the_mutation_is_not_refused(
    client: Client, world: World, state: str
) -> None:
    query = '{ billingAccount(externalId: "acme") { id viewerCan { action allowed reason { code message } } } }'
    number = count()
    for role in (Role.MEMBER, Role.BILLING_ADMIN, Role.TENANT_OWNER, Role.OPERATOR):
        token = world.operator if role is Role.OPERATOR else world.token("Acme", role)
        await bring_into_state(world, state)
        data: Any = await client.data(token, query)
        account = data["billingAccount"]
        advice = encode_id("Recommendation", (await account_of(world)).id, "SMALLER_PLAN:nope")
        said = {item["action"]: item["reason"] for item in account["viewerCan"]}
        assert [item["allowed"] for item in account["viewerCan"]] == [reason is None for reason in said.values()]
        assert set(said) == set(ASKING)
        for action, call in ASKING.items():
            await bring_into_state(world, state)
            named = (
                call.replace("ACCOUNT", f'accountId: "{account["id"]}"')
                .replace("ADVICE", advice)
                .replace("ITS_ID", account["id"])
            )
            refusal = await refusal_of(client, token, named.replace("KEY", f'idempotencyKey: "{next(number)}"'))
            if (role, action) == (Role.MEMBER, "CANCEL_NOW") and refusal is not None:
                # Whoever may not cancel at all is told what cancelling needs.
                refusal["message"] = said[action]["message"]
            assert said[action] == refusal, (role, action)
        if role is not Role.OPERATOR:
            allowed = {action for action, reason in said.items() if reason is None}
            assert allowed == expected_for(role, state)


@pytest.mark.parametrize("tenant", ["Dunmore", "Acme"])
async def test_viewer_can_of_an_invoice_is_true_exactly_when_the_mutation_is_not_refused(
    client: Client, world: World, tenant: str
) -> None:
    """Dunmore's last one is open, Acme's is paid."""
    query = """query($external: String!) { billingAccount(externalId: $external) { invoices(first: 1) { nodes {
      id viewerCan { action allowed reason { code message } } } } } }"""
    asking = {
        "ISSUE_CREDIT_NOTE": 'issueCreditNote(input: { invoiceId: "ID", lines: [], reason: "x", idempotencyKey: "1" })',
        "VOID_INVOICE": 'voidInvoice(input: { invoiceId: "ID", reason: "x", idempotencyKey: "2" })',
        "RECORD_PAYMENT": (
            'recordPayment(input: { invoiceId: "ID", amountMinor: 0, currency: "USD", reference: "x", '
            'idempotencyKey: "3" })'
        ),
    }
    for role in (Role.BILLING_ADMIN, Role.TENANT_OWNER, Role.OPERATOR):
        token = world.operator if role is Role.OPERATOR else world.token(tenant, role)
        for action, call in asking.items():
            data: Any = await client.data(token, query, external=tenant.lower())
            (invoice,) = data["billingAccount"]["invoices"]["nodes"]
            said = {item["action"]: item["reason"] for item in invoice["viewerCan"]}
            assert set(said) == set(asking)
            assert said[action] == await refusal_of(client, token, call.replace("ID", invoice["id"])), (role, action)
            assert (said[action] is None) == (role is Role.OPERATOR and (action, tenant) != ("VOID_INVOICE", "Acme"))
    after: Any = await client.data(world.operator, query, external="dunmore")
    (invoice,) = after["billingAccount"]["invoices"]["nodes"]
    is_void = tenant == "Dunmore"
    assert [item["allowed"] for item in invoice["viewerCan"]] == [not is_void, not is_void, True]


async def test_a_tenant_s_key_sends_positive_quantities_only(client: Client, world: World) -> None:
    token = await make_member_key(world, "acme", [Scope.USAGE_WRITE])
    event = {"externalId": "acme", "metric": "email_sends"}
    events = [
        event | {"eventId": "1", "quantity": 1},
        event | {"eventId": "2", "quantity": -1, "correction": True},
        event | {"eventId": "3", "metric": "custom_domains", "level": 1},
        event | {"eventId": "4", "metric": "custom_domains", "quantity": -1},
    ]
    data: Any = await client.data(token, RECORD, input={"events": events})
    assert [result["code"] for result in data["recordUsage"]["results"]] == [None, *["INVALID_QUANTITY"] * 3]


async def test_a_key_that_only_ingests_reads_nothing_of_the_account(client: Client, world: World) -> None:
    token = await make_member_key(world, "acme", [Scope.USAGE_WRITE])
    ids = await ids_of(client, world, "acme")
    for name in OWNED:
        if name in ids:
            assert await client.ask(token, NODE, id=ids[name]) == {"data": {"node": None}}, name
    answer: Any = await client.ask(token, "{ viewer { accounts { role } } billingAccount { name } }")
    assert answer["data"] == {"viewer": {"accounts": []}, "billingAccount": None}
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}


async def test_an_operator_s_key_of_one_account_sees_no_other(client: Client, world: World) -> None:
    token = await make_operator_key(world, [Scope.ADMIN], "acme")
    foreign = await ids_of(client, world, "birchwood")
    for name, id_ in foreign.items():
        expected = {"id": id_, "__typename": name} if name in PUBLIC else None
        answer: Any = await client.data(token, NODE, id=id_)
        assert answer["node"] == expected, name
    data: Any = await client.data(token, "{ billingAccounts { nodes { externalId } } billingAccount { externalId } }")
    assert data == {"billingAccounts": {"nodes": [{"externalId": "acme"}]}, "billingAccount": {"externalId": "acme"}}


async def test_more_ids_than_a_hundred_are_refused(client: Client, world: World) -> None:
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    data: Any = await client.data(world.operator, query, ids=["x"] * 100)
    assert data["nodes"] == [None] * 100
    answer: Any = await client.ask(world.operator, query, ids=["x"] * 101)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_time_stands_where_the_sandbox_was_made(client: Client, world: World) -> None:
    data: Any = await client.data(world.operator, "{ serverInfo { time environment } }")
    assert data["serverInfo"] == {"time": f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "environment": "SANDBOX"}
