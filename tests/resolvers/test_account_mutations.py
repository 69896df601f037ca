"""The mutations that make accounts and change what they are: who may, whose it is, and what comes back."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from plafond.models import AuditEntry, BillingAccount, Deployment, Notice, NoticeSeverity, Role, TestClock
from plafond.schema.node import encode_id
from plafond.services.access import Scope
from plafond.services.accounts import lock_account
from plafond.services.notices import raise_notice
from plafond.settings import Environment

from ..conftest import NOW, Client, World
from ..http.test_jwt import add_member, claims, secret_of, sign
from ..services.helpers import ACTOR, account_of
from .test_access import UNKNOWN, make_member_key, make_operator_key

ERRORS = "userErrors { code message field }"
CREATE = f"""mutation($input: CreateBillingAccountInput!) {{ createBillingAccount(input: $input) {{ {ERRORS} account {{
  id externalId name currency timezone locale metadata status collection {{ method netDays }} subscription {{ id }}
  company {{ country }} taxExemption {{ reason }} createdAt usage {{ metric {{ key }} limit used percent }} }} }} }}"""
UPDATE = f"""mutation($input: UpdateBillingAccountInput!) {{ updateBillingAccount(input: $input) {{ {ERRORS} account {{
  name currency timezone locale metadata collection {{ method netDays }} updatedAt }} }} }}"""
COMPANY_FIELDS = """legalName country addressLines postalCode city region vatId taxIds { label value } email paperSize
  purchaseOrder footer"""
COMPANY = f"""mutation($input: UpdateCompanyInput!) {{ updateCompany(input: $input) {{ {ERRORS}
  company {{ {COMPANY_FIELDS} }} account {{ company {{ legalName createdAt updatedAt }} }} }} }}"""
EXEMPTION = f"""mutation($input: SetTaxExemptionInput!) {{ setTaxExemption(input: $input) {{ {ERRORS}
  account {{ taxExemption {{ certificate reason validFrom validTo }} }} }} }}"""
DISMISS = f"""mutation($input: DismissNoticeInput!) {{ dismissNotice(input: $input) {{ {ERRORS}
  account {{ notices {{ code }} }} }} }}"""
NEW = {"externalId": "quill", "name": "Quill", "currency": "USD", "timezone": "Europe/Vienna"}


async def id_of(world: World, name: str = "calder") -> str:
    return encode_id("BillingAccount", (await account_of(world, name)).id)


async def run(client: Client, token: str, query: str, **given: Any) -> Any:
    """The payload of a mutation that was let in."""
    data = await client.data(token, query, input=given)
    (payload,) = data.values()
    return payload


async def refusals(client: Client, token: str, query: str, **given: Any) -> list[tuple[str, str]]:
    payload = await run(client, token, query, **given)
    assert payload["account"] is None
    return [(error["code"], ".".join(error["field"])) for error in payload["userErrors"]]


async def top_level(client: Client, token: str, query: str, **given: Any) -> str:
    answer: Any = await client.ask(token, query, input=given)
    (error,) = answer["errors"]
    assert answer["data"] is None
    return str(error["extensions"]["code"])


async def notice_of(world: World, name: str = "calder", **given: Any) -> str:
    said: dict[str, Any] = {"severity": NoticeSeverity.INFO, "params": {}, "dismissible": True} | given
    account = await account_of(world, name)
    async with world.database.work(ACTOR) as work:
        notice = await raise_notice(work, await lock_account(work, account.id), "TRIAL_ENDED", "test", **said)
    return encode_id("Notice", notice.id)


async def test_an_operator_makes_an_account(client: Client, world: World) -> None:
    given = NEW | {
        "locale": "de-AT",
        "metadata": {"crm": "77"},
        "collection": {"method": "SEND_INVOICE", "netDays": 14},
    }
    payload = await run(client, world.operator, CREATE, **given)
    assert payload["userErrors"] == []
    account = payload["account"]
    usage = {item["metric"]["key"]: (item["limit"], item["used"], item["percent"]) for item in account.pop("usage")}
    assert usage["team_members"] == (1, 0, 0)
    assert usage["email_sends"] == (0, 0, 0)
    assert account == given | {
        "id": await id_of(world, "quill"),
        "status": "ACTIVE",
        "subscription": None,
        "company": None,
        "taxExemption": None,
        "createdAt": "2026-11-25T12:00:00Z",
    }


async def test_the_least_that_an_account_needs(client: Client, world: World) -> None:
    account = (await run(client, world.operator, CREATE, **NEW))["account"]
    assert (account["locale"], account["metadata"]) == ("en", {})
    assert account["collection"] == {"method": "AUTOMATIC", "netDays": 30}


async def test_only_who_stands_above_all_accounts_makes_one(client: Client, world: World) -> None:
    tokens = [
        world.token("Acme", Role.TENANT_OWNER),
        world.token("Acme", Role.BILLING_ADMIN),
        world.token("Acme", Role.MEMBER),
        await make_member_key(world, "acme", [Scope.ADMIN]),
        await make_operator_key(world, [Scope.ADMIN], "acme"),
        await make_operator_key(world, [Scope.BILLING_WRITE]),
    ]
    for token in tokens:
        assert await top_level(client, token, CREATE, **NEW) == "FORBIDDEN"
    async with world.database.read() as session:
        assert await session.scalar(select(BillingAccount).where(BillingAccount.external_id == "quill")) is None
    token = await make_operator_key(world, [Scope.ADMIN])
    assert (await run(client, token, CREATE, **NEW))["account"]["externalId"] == "quill"


async def test_what_an_account_cannot_be(client: Client, world: World) -> None:
    wrong = NEW | {"name": "", "currency": "usd", "collection": {"netDays": 0}}
    assert await refusals(client, world.operator, CREATE, **wrong) == [
        ("INVALID", "input.name"),
        ("INVALID", "input.currency"),
        ("INVALID", "input.collection.netDays"),
    ]
    taken = NEW | {"externalId": "acme"}
    assert await refusals(client, world.operator, CREATE, **taken) == [("CONFLICT", "input.externalId")]


async def test_a_key_makes_one_account(client: Client, world: World) -> None:
    given = NEW | {"idempotencyKey": "k1"}
    first: Any = await client.ask(world.operator, CREATE, input=given)
    again: Any = await client.ask(world.operator, CREATE, input=given)
    assert again["data"] == first["data"]
    assert "idempotency" not in first.get("extensions", {})
    assert again["extensions"]["idempotency"] == {"replayed": True}
    assert await refusals(client, world.operator, CREATE, **given | {"name": "Other"}) == [
        ("IDEMPOTENCY_MISMATCH", "input.idempotencyKey")
    ]


async def test_an_account_hangs_on_a_test_clock(client: Client, world: World) -> None:
    clock = TestClock(created_at=NOW, name="t", code="T1", now=NOW - timedelta(days=400))
    async with world.database.work(ACTOR) as work:
        work.session.add(clock)
    clock_id = encode_id("TestClock", clock.id)
    account = (await run(client, world.operator, CREATE, **NEW, testClockId=clock_id))["account"]
    assert account["createdAt"] == "2025-10-21T12:00:00Z"
    for broken in ("x", "", encode_id("BillingAccount", clock.id), encode_id("TestClock", UNKNOWN)):
        given = NEW | {"externalId": "other", "testClockId": broken}
        assert await refusals(client, world.operator, CREATE, **given) == [("NOT_FOUND", "input.testClockId")]
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Deployment).values(environment=Environment.PRODUCTION))
    given = NEW | {"externalId": "other", "testClockId": clock_id}
    assert await refusals(client, world.operator, CREATE, **given) == [("INVALID", "input.testClockId")]


@pytest.mark.parametrize("role", [Role.TENANT_OWNER, Role.BILLING_ADMIN])
async def test_a_tenant_changes_its_account(client: Client, world: World, role: Role) -> None:
    given = {"name": "Calder", "timezone": "Asia/Tokyo", "locale": "ja", "metadata": {"a": "b"}}
    token = world.token("Calder", role)
    world.clock.stands_at += timedelta(hours=1)
    account = (await run(client, token, UPDATE, accountId=await id_of(world), **given))["account"]
    assert account == given | {
        "currency": "GBP",
        "collection": {"method": "AUTOMATIC", "netDays": 30},
        "updatedAt": "2026-11-25T13:00:00Z",
    }
    later = await run(client, token, UPDATE, accountId=await id_of(world), name="Calder Labs")
    assert later["account"] == account | {"name": "Calder Labs"}


async def test_null_is_not_leaving_out(client: Client, world: World) -> None:
    token = world.token("Calder", Role.TENANT_OWNER)
    nothing = {"accountId": await id_of(world), "name": None, "timezone": None, "locale": None, "metadata": None}
    assert await refusals(client, token, UPDATE, **nothing) == [
        ("INVALID", f"input.{field}") for field in ("name", "timezone", "locale", "metadata")
    ]


async def test_currency_and_terms_are_the_operators(client: Client, world: World) -> None:
    given = {"accountId": await id_of(world), "currency": "GBP", "collection": {"method": "SEND_INVOICE"}}
    assert await refusals(client, world.token("Calder", Role.TENANT_OWNER), UPDATE, **given) == [
        ("FORBIDDEN", "input.currency"),
        ("FORBIDDEN", "input.collection"),
    ]
    for token in (world.operator, await make_operator_key(world, [Scope.ADMIN], "calder")):
        account = (await run(client, token, UPDATE, **given))["account"]
        assert account["collection"] == {"method": "SEND_INVOICE", "netDays": 30}
    assert await refusals(client, world.operator, UPDATE, **given | {"currency": "EUR"}) == [
        ("CONFLICT", "input.currency")
    ]


async def test_a_key_changes_once(client: Client, world: World) -> None:
    token = world.token("Calder", Role.TENANT_OWNER)
    given = {"accountId": await id_of(world), "name": "First", "idempotencyKey": "k1"}
    await run(client, token, UPDATE, **given)
    await run(client, token, UPDATE, accountId=await id_of(world), name="Second")
    again: Any = await client.ask(token, UPDATE, input=given)
    assert again["extensions"]["idempotency"] == {"replayed": True}
    assert (await account_of(world, "calder")).name == "Second"
    assert await refusals(client, token, UPDATE, **given | {"name": "Third"}) == [
        ("IDEMPOTENCY_MISMATCH", "input.idempotencyKey")
    ]


FULL = {
    "legalName": "Calder Labs Ltd",
    "country": "GB",
    "addressLines": ["1 Mill Lane", "Floor 2"],
    "postalCode": "CB2 1RX",
    "city": "Cambridge",
    "region": "CAM",
    "vatId": "gb 980 7806 84",
    "taxIds": [{"label": "Company number", "value": "01234567"}],
    "email": "accounts@calder.example",
    "paperSize": "A4",
    "purchaseOrder": "PO 7",
    "footer": "Thank you",
}


async def test_what_is_set_of_a_company_can_be_read(client: Client, world: World) -> None:
    token = world.token("Calder", Role.BILLING_ADMIN)
    payload = await run(client, token, COMPANY, accountId=await id_of(world), **FULL)
    assert payload["userErrors"] == []
    assert payload["company"] == FULL | {"vatId": "GB980780684"}
    assert payload["account"]["company"]["legalName"] == "Calder Labs Ltd"
    read: Any = await client.data(token, f"{{ billingAccount {{ company {{ {COMPANY_FIELDS} }} }} }}")
    assert read["billingAccount"]["company"] == payload["company"]
    cleared = dict.fromkeys(FULL, None) | {"legalName": "Calder Ltd", "country": "GB"}
    payload = await run(client, token, COMPANY, accountId=await id_of(world), **cleared)
    assert payload["company"] == cleared | {"addressLines": [], "taxIds": []}


async def test_what_a_company_cannot_be(client: Client, world: World) -> None:
    token, account_id = world.token("Calder", Role.TENANT_OWNER), await id_of(world)
    given = {"accountId": account_id, "legalName": "Calder Inc", "country": "US"}
    assert await refusals(client, token, COMPANY, **given, vatId="12-3456789") == [
        ("INVALID", "input.region"),
        ("INVALID", "input.postalCode"),
        ("INVALID", "input.vatId"),
    ]
    wrong = {"email": "x", "addressLines": ["", "a\x00"], "taxIds": [{"label": "", "value": "1"}]}
    assert await refusals(client, token, COMPANY, **given, **wrong) == [
        ("INVALID", "input.addressLines.0"),
        ("INVALID", "input.taxIds.0.label"),
        ("INVALID", "input.email"),
    ]


async def test_an_operator_frees_an_account_from_tax(client: Client, world: World) -> None:
    account_id = await id_of(world)
    exemption = {"certificate": "GB-1", "reason": "Embassy", "validFrom": "2026-01-01", "validTo": "2027-01-01"}
    for token in (world.operator, await make_operator_key(world, [Scope.ADMIN], "calder")):
        payload = await run(client, token, EXEMPTION, accountId=account_id, exemption=exemption)
        assert payload["account"]["taxExemption"] == exemption
    assert await refusals(client, world.operator, EXEMPTION, accountId=account_id) == [("INVALID", "input.exemption")]
    wrong = exemption | {"validTo": "2026-01-01"}
    assert await refusals(client, world.operator, EXEMPTION, accountId=account_id, exemption=wrong) == [
        ("INVALID", "input.exemption.validTo")
    ]
    read: Any = await client.data(
        world.token("Calder", Role.TENANT_OWNER), "{ billingAccount { taxExemption { reason } } }"
    )
    assert read["billingAccount"]["taxExemption"] == {"reason": "Embassy"}
    payload = await run(client, world.operator, EXEMPTION, accountId=account_id, exemption=None)
    assert payload["account"]["taxExemption"] is None
    for role in (Role.TENANT_OWNER, Role.BILLING_ADMIN, Role.MEMBER):
        refused = await top_level(client, world.token("Calder", role), EXEMPTION, accountId=account_id, exemption=None)
        assert refused == "FORBIDDEN"


async def test_a_notice_is_put_away(client: Client, world: World) -> None:
    id_ = await notice_of(world)
    token = world.token("Calder", Role.BILLING_ADMIN)
    read = "{ billingAccount { notices { id code title message severity dismissible actions { kind label } } } }"
    data: Any = await client.data(token, read)
    assert id_ in [notice["id"] for notice in data["billingAccount"]["notices"]]
    for _ in range(2):
        payload = await run(client, token, DISMISS, noticeId=id_)
        assert "TRIAL_ENDED" not in [notice["code"] for notice in payload["account"]["notices"]]


async def test_a_notice_that_stays(client: Client, world: World) -> None:
    id_ = await notice_of(world, dismissible=False)
    token = world.token("Calder", Role.TENANT_OWNER)
    assert await refusals(client, token, DISMISS, noticeId=id_) == [("CONFLICT", "input.noticeId")]


async def test_operators_notices_are_theirs_alone(client: Client, world: World) -> None:
    id_ = await notice_of(world, for_operators=True)
    tenant, one_account = (
        world.token("Calder", Role.TENANT_OWNER),
        await make_operator_key(world, [Scope.ADMIN], "calder"),
    )
    read = 'query($id: ID!) { node(id: $id) { id } billingAccount(externalId: "calder") { notices { id } } }'
    hidden: Any = await client.data(tenant, read, id=id_)
    assert (hidden["node"], id_ in str(hidden["billingAccount"])) == (None, False)
    assert await refusals(client, tenant, DISMISS, noticeId=id_) == [("NOT_FOUND", "input.noticeId")]
    for token in (world.operator, one_account):
        shown: Any = await client.data(token, read, id=id_)
        assert (shown["node"]["id"], id_ in str(shown["billingAccount"])) == (id_, True)
    assert (await run(client, one_account, DISMISS, noticeId=id_))["userErrors"] == []


CHANGES: list[tuple[str, dict[str, Any]]] = [(UPDATE, {"name": "Taken over"}), (COMPANY, FULL)]


async def untouched(world: World) -> tuple[Any, ...]:
    account = await account_of(world, "calder")
    async with world.database.read() as session:
        entries = (await session.scalars(select(AuditEntry.id).where(AuditEntry.account_id == account.id))).all()
        put_away = select(Notice.id).where(Notice.account_id == account.id, Notice.dismissed_at.is_not(None))
        return account.name, account.sequence, len(entries), (await session.scalars(put_away)).all()


@pytest.mark.parametrize(("query", "given"), CHANGES)
async def test_another_tenant_s_account_is_not_there(
    client: Client, world: World, query: str, given: dict[str, Any]
) -> None:
    before = await untouched(world)
    foreign = await id_of(world)
    broken = ["x", "", encode_id("BillingAccount", UNKNOWN), encode_id("Notice", UNKNOWN)]
    tokens = [
        world.token("Acme", Role.TENANT_OWNER),
        await make_member_key(world, "acme", [Scope.ADMIN]),
        await make_operator_key(world, [Scope.ADMIN], "acme"),
    ]
    for token in tokens:
        answers = [await client.ask(token, query, input={"accountId": id_, **given}) for id_ in (foreign, *broken)]
        assert all(answer == answers[0] for answer in answers)
        assert await refusals(client, token, query, accountId=foreign, **given) == [("NOT_FOUND", "input.accountId")]
    for id_ in broken:
        assert await refusals(client, world.operator, query, accountId=id_, **given) == [
            ("NOT_FOUND", "input.accountId")
        ]
    assert await untouched(world) == before


async def test_another_tenant_s_exemption_and_notice_are_not_there(client: Client, world: World) -> None:
    id_ = await notice_of(world)
    before = await untouched(world)
    one_account = await make_operator_key(world, [Scope.ADMIN], "acme")
    given = {"accountId": await id_of(world), "exemption": None}
    assert await refusals(client, one_account, EXEMPTION, **given) == [("NOT_FOUND", "input.accountId")]
    for token in (world.token("Acme", Role.TENANT_OWNER), one_account):
        for each in (id_, "x", "", encode_id("Notice", UNKNOWN), await id_of(world)):
            assert await refusals(client, token, DISMISS, noticeId=each) == [("NOT_FOUND", "input.noticeId")]
    assert await untouched(world) == before


async def test_members_and_keys_that_only_read_change_nothing(client: Client, world: World) -> None:
    notice_id = await notice_of(world)
    before = await untouched(world)
    account_id = await id_of(world)
    tokens = [
        world.token("Calder", Role.MEMBER),
        await make_member_key(world, "calder", [Scope.BILLING_READ]),
        await make_member_key(world, "calder", [Scope.USAGE_WRITE]),
        await make_operator_key(world, [Scope.BILLING_READ]),
    ]
    for token in tokens:
        for query, given in CHANGES:
            assert await top_level(client, token, query, accountId=account_id, **given) == "FORBIDDEN"
        assert await top_level(client, token, DISMISS, noticeId=notice_id) == "FORBIDDEN"
        assert await top_level(client, token, EXEMPTION, accountId=account_id, exemption=None) == "FORBIDDEN"
    assert await untouched(world) == before
    token = await make_member_key(world, "calder", [Scope.BILLING_WRITE])
    assert (await run(client, token, UPDATE, accountId=account_id, name="Written"))["account"]["name"] == "Written"


async def test_a_member_here_who_owns_elsewhere_is_a_member_here(client: Client, world: World) -> None:
    await add_member(world, "calder", Role.MEMBER)
    await add_member(world, "acme", Role.TENANT_OWNER)
    token = sign(claims(), secret_of(world))
    assert await top_level(client, token, UPDATE, accountId=await id_of(world), name="No") == "FORBIDDEN"
    account = (await run(client, token, UPDATE, accountId=await id_of(world, "acme"), name="Yes"))["account"]
    assert account["name"] == "Yes"


async def test_a_member_reads_none_of_it(client: Client, world: World) -> None:
    for field in ("company { country }", "taxExemption { reason }", "collection { netDays }", "notices { id }"):
        answer: Any = await client.ask(world.token("Calder", Role.MEMBER), f"{{ billingAccount {{ {field} }} }}")
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
