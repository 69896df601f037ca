"""Every mutation leaves an entry in the audit log, with who and from where: each is made once, in a story.

A new mutation fails the first test until it has its line in `STEPS`, or its reason in `UNTOLD`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from plafond.api import schema
from plafond.models import AuditEntry, Invite
from plafond.schema.node import decode_id
from plafond.services.invitations import invitation_url

from ..conftest import Client, World
from ..http.test_jwt import claims, secret_of, sign

UNTOLD = {
    "quotePlanChange": "a quote changes nothing: what follows from it is told",
    "quoteAddOn": "the same",
}
"""What leaves no entry, and why."""
NAMES = schema._schema.mutation_type
assert NAMES is not None

Given = dict[str, Any]


@dataclass
class Trail:
    """A story's acts, and what came of them."""

    client: Client
    world: World
    ids: dict[str, str] = field(default_factory=dict[str, str])
    count: int = 0

    async def do(self, name: str, given: Given, selection: str = "", by: str = "") -> Any:
        """Make a mutation; it is not refused."""
        self.count += 1
        type_name = f"{name[0].upper()}{name[1:]}Input!"
        document = (
            f"mutation($input: {type_name}) {{ {name}(input: $input) {{ {selection} userErrors {{ code message }} }} }}"
        )
        assert NAMES is not None
        input_type: Any = NAMES.fields[name].args["input"].type
        if "idempotencyKey" in input_type.of_type.fields:
            given = {"idempotencyKey": f"trail-{self.count}", **given}
        token = sign(claims(sub=by), secret_of(self.world)) if by else self.world.operator
        data: Any = await self.client.data(token, document, input=given)
        assert data[name]["userErrors"] == [], (name, data)
        return data[name]

    async def read(self, query: str, **variables: object) -> Any:
        """Ask something."""
        return await self.client.data(self.world.operator, query, **variables)

    async def entries(self) -> list[AuditEntry]:
        """The whole log, of all accounts and of none."""
        async with self.world.database.read() as session:
            return list(await session.scalars(select(AuditEntry)))


@dataclass(frozen=True)
class Step:
    """A mutation: what it is given, and what is kept of its answer, by the names of later steps."""

    name: str
    given: Callable[[dict[str, str]], Given]
    keep: dict[str, str] = field(default_factory=dict[str, str])
    """By name, where it stands in the answer: `account.id`."""
    first: str = ""
    """A query whose values are kept before, with `$id` for an account's id: see `look`."""
    by: str = ""
    """The person who makes it, by the subject of a JWT; the operator where nothing is said."""


def of(account: str, **given: Any) -> Callable[[dict[str, str]], Given]:
    """What a mutation of an account is given; a text `=name` stands for what was kept."""

    def build(ids: dict[str, str]) -> Given:
        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: fill(item) for key, item in value.items()}
            if isinstance(value, list):
                return [fill(item) for item in value]
            return ids[value[1:]] if isinstance(value, str) and value.startswith("=") else value

        return {**({"accountId": ids[account]} if account else {}), **fill(given)}

    return build


def usd(amount_minor: int) -> Given:
    return {"amountMinor": amount_minor, "currency": "USD"}


EVENT = {"externalId": "trail", "metric": "email_sends"}
ALL_LIMITS = [{"metricKey": key, "limit": 1} for key in ("email_sends", "team_members", "workspaces", "custom_domains")]
PRICES = [
    {"interval": interval, "currency": currency, "amountMinor": 100}
    for interval in ("MONTH", "YEAR")
    for currency in ("USD", "EUR", "GBP", "JPY")
]
CHARGES = "transactions(first: 20, filter: { kind: [CHARGE], status: [SUCCEEDED] }) { nodes { id } }"
INVOICES = "invoices(first: 20) { nodes { id status lines { id kind } } }"

STEPS = [
    Step("createTestClock", of("", name="trail", now="2026-01-10T12:00:00Z"), {"clock": "testClock.id"}),
    Step("advanceTestClock", of("", testClockId="=clock", to="2026-01-11T12:00:00Z")),
    Step(
        "createBillingAccount",
        of("", externalId="trail", name="Trail", currency="USD", timezone="UTC", locale="en", testClockId="=clock"),
        {"account": "account.id"},
    ),
    Step("updateBillingAccount", of("account", name="Trail and Sons")),
    Step(
        "updateCompany",
        of(
            "account",
            legalName="Trail Ltd",
            country="US",
            addressLines=["1 Main Street"],
            city="New York",
            region="NY",
            postalCode="10001",
        ),
    ),
    Step(
        "addContact",
        of("account", name="Ada", email="ada@trail.test", topics=["INVOICES"]),
        {"ada": "contact.id"},
    ),
    Step("addContact", of("account", name="Bob", email="bob@trail.test", topics=[]), {"bob": "contact.id"}),
    Step("updateContact", of("", contactId="=bob", topics=["USAGE_ALERTS"])),
    Step("removeContact", of("", contactId="=bob")),
    Step("inviteMember", of("account", email="cleo@trail.test", role="MEMBER"), {"invite": "invite.id"}),
    Step("resendInvite", of("", inviteId="=invite")),
    Step("revokeInvite", of("", inviteId="=invite")),
    Step("inviteMember", of("account", email="dora@trail.test", role="TENANT_OWNER"), {"dora": "invite.id"}),
    Step("acceptInvite", of("", token="=link"), {"owner": "member.id"}, first="link", by="dora"),
    Step("inviteMember", of("account", email="emil@trail.test", role="MEMBER"), {"emil": "invite.id"}),
    Step("acceptInvite", of("", token="=link"), {"member": "member.id"}, first="second link", by="emil"),
    Step("setMemberRole", of("", memberId="=member", role="BILLING_ADMIN")),
    Step("transferOwnership", of("account", memberId="=member"), by="dora"),
    Step("acceptOwnership", of("account"), by="emil"),
    Step("removeMember", of("", memberId="=owner")),
    Step("erasePerson", of("", contactId="=ada")),
    Step("setTaxExemption", of("account", exemption={"certificate": "A-1", "reason": "x", "validFrom": "2026-01-01"})),
    Step("createPaymentSetup", of("account")),
    Step("addPaymentMethod", of("account", token="pm_card_visa", makeDefault=True), {"method": "paymentMethod.id"}),
    Step("startTrial", of("account", planKey="professional", interval="MONTH")),
    Step("startSubscription", of("account", planKey="starter", interval="MONTH")),
    Step("setOveragePolicy", of("account", metric="email_sends", policy="ASK")),
    Step("approveOverage", of("account", metric="email_sends", blocks=1)),
    Step("setAlertThresholds", of("account", metric="email_sends", percents=[50])),
    Step("setBudget", of("account", scope="ACCOUNT", limit=usd(1_000_00)), {"budget": "budget.id"}),
    Step("removeBudget", of("account", budgetId="=budget")),
    Step("recordUsage", of("", events=[{**EVENT, "eventId": "1", "quantity": 9_000}])),
    Step("acknowledgeAlerts", of("account", ids=["=alert"]), first="alert"),
    Step(
        "reserveUsage", of("", externalId="trail", metric="email_sends", quantity=1), {"reservation": "reservation.id"}
    ),
    Step("commitReservation", of("", reservationId="=reservation")),
    Step("reserveUsage", of("", externalId="trail", metric="email_sends", quantity=1), {"other": "reservation.id"}),
    Step("releaseReservation", of("", reservationId="=other")),
    Step("quotePlanChange", of("account", planKey="professional", interval="MONTH")),
    Step("changePlan", of("account", planKey="professional", interval="MONTH")),
    Step("quoteAddOn", of("account", addOnKey="additional_user", quantity=1)),
    Step("setAddOn", of("account", addOnKey="additional_user", quantity=1)),
    Step("changePlan", of("account", planKey="starter", interval="MONTH")),
    Step("cancelScheduledChange", of("account")),
    Step("cancelSubscription", of("account", mode="AT_PERIOD_END")),
    Step("resumeSubscription", of("account")),
    Step(
        "addPaymentMethod", of("account", token="pm_card_mastercard", makeDefault=False), {"second": "paymentMethod.id"}
    ),
    Step("setDefaultPaymentMethod", of("", paymentMethodId="=second")),
    Step("removePaymentMethod", of("", paymentMethodId="=method")),
    Step(
        "requestRefund", of("", transactionId="=charge", reason="GOODWILL"), {"request": "refundRequest.id"}, "charge"
    ),
    Step("reviewRefund", of("", refundRequestId="=request", decision="DENY", reason="no")),
    Step(
        "issueCreditNote",
        of("", invoiceId="=invoice", reason="x", lines=[{"lineId": "=line", "amountMinor": 1}]),
        first="invoice",
    ),
    Step("grantCredit", of("account", **usd(1_00), reason="x")),
    Step("setSandboxProcessor", of("account", answers="NORMAL", messages="ONCE")),
    Step(
        "requestExport",
        of("account", kind="INVOICES", format="CSV", **{"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}),
    ),
    Step(
        "requestExport",
        of("", kind="LEDGER", format="CSV", **{"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}),
    ),
    Step(
        "createBillingAccount",
        of(
            "",
            externalId="sent",
            name="Sent",
            currency="USD",
            timezone="UTC",
            locale="en",
            testClockId="=clock",
            collection={"method": "SEND_INVOICE", "netDays": 30},
        ),
        {"sent": "account.id"},
    ),
    Step(
        "updateCompany",
        of(
            "sent",
            legalName="Sent Ltd",
            country="US",
            addressLines=["1 Main Street"],
            city="New York",
            region="NY",
            postalCode="10001",
        ),
    ),
    Step("startSubscription", of("sent", planKey="starter", interval="MONTH")),
    Step("voidInvoice", of("", invoiceId="=open", reason="x"), first="open"),
    Step("changePlan", of("sent", planKey="professional", interval="MONTH")),
    Step("recordPayment", of("", invoiceId="=open", **usd(1_00), reference="RF18"), first="open"),
    Step("addPaymentMethod", of("sent", token="pm_card_visa", makeDefault=True)),
    Step("retryPayment", of("sent")),
    Step("createScenario", of("", name="payment-pending"), {"waiting": "account.id"}),
    Step("confirmPayment", of("", transactionId="=asked"), first="asked"),
    Step("createScenario", of("", name="canceled"), {"gone": "account.id"}),
    Step("reactivateSubscription", of("gone", planKey="starter", interval="MONTH")),
    Step("dismissNotice", of("", noticeId="=notice"), first="notice"),
    Step("dismissRecommendation", of("", recommendationId="=advice"), first="advice"),
    Step("applyRecommendation", of("", recommendationId="=advice"), first="advice"),
    Step("createApiKey", of("", accountIds=["=account"], name="x", scopes=["billing:read"]), {"key": "apiKey.id"}),
    Step("rotateApiKey", of("", keyId="=key")),
    Step("revokeApiKey", of("", keyId="=key")),
    Step("createApiKey", of("", name="all", scopes=["billing:read"]), {"wide": "apiKey.id"}),
    Step("createWebhookEndpoint", of("account", url="https://8.8.8.8/"), {"endpoint": "endpoint.id"}),
    Step("updateWebhookEndpoint", of("", endpointId="=endpoint", description="x")),
    Step("rotateWebhookSecret", of("", endpointId="=endpoint")),
    Step("sendTestWebhook", of("", endpointId="=endpoint"), {"delivery": "delivery.id"}),
    Step("redeliverWebhook", of("", deliveryId="=delivery")),
    Step("deleteWebhookEndpoint", of("", endpointId="=endpoint")),
    Step("setLegalHold", of("account", reason="x")),
    Step("setLegalHold", of("account", reason=None)),
    Step("closeBillingAccount", of("sent", confirm="sent")),
    Step("archivePlan", of("", key="starter")),
    Step("publishPlan", of("", key="trail", name="Trail", tier=9, features=[], limits=ALL_LIMITS, prices=PRICES)),
    Step("setMetric", of("", key="trail_units", name="Units", kind="COUNTER", unit="unit")),
    Step("setTaxTable", of("", rows=[])),
]


def test_every_mutation_is_in_the_story_or_has_a_reason() -> None:
    assert NAMES is not None
    assert {step.name for step in STEPS} == set(NAMES.fields)
    assert set(UNTOLD) < set(NAMES.fields)


async def link_of(trail: Trail, id_: str) -> str:
    """The token that an invitation's mail holds."""
    found = decode_id(id_)
    assert found is not None
    key = trail.world.settings.link_secret
    assert key is not None
    async with trail.world.database.read() as session:
        invite = await session.get_one(Invite, found.uuid())
    return invitation_url("", key.get_secret_value().encode(), invite).rpartition("/")[2]


async def look(trail: Trail, what: str) -> None:
    """Keep what later steps name, out of what there is by now."""
    ids = trail.ids
    on = "query($id: ID!) { billingAccount(id: $id) { %s } }"
    if what.endswith("link"):
        ids["link"] = await link_of(trail, ids["dora" if what == "link" else "emil"])
    elif what == "alert":
        data = await trail.read(on % "alerts(first: 1) { nodes { id } }", id=ids["account"])
        ids["alert"] = data["billingAccount"]["alerts"]["nodes"][0]["id"]
    elif what == "charge":
        data = await trail.read(on % CHARGES, id=ids["account"])
        ids["charge"] = data["billingAccount"]["transactions"]["nodes"][0]["id"]
    elif what in ("invoice", "open"):
        data = await trail.read(on % INVOICES, id=ids["account" if what == "invoice" else "sent"])
        status = "PAID" if what == "invoice" else "OPEN"
        invoice = next(node for node in data["billingAccount"]["invoices"]["nodes"] if node["status"] == status)
        ids[what] = invoice["id"]
        ids["line"] = next(line["id"] for line in invoice["lines"] if line["kind"] != "CREDIT")
    elif what == "asked":
        data = await trail.read(on % "subscription { pendingChange { transactionId } }", id=ids["waiting"])
        ids["asked"] = data["billingAccount"]["subscription"]["pendingChange"]["transactionId"]
    else:
        data = await trail.read(
            """{ billingAccounts(first: 50) { nodes { notices { id dismissible }
              recommendations(first: 10) { nodes { id } } } } }"""
        )
        nodes = data["billingAccounts"]["nodes"]
        if what == "notice":
            ids["notice"] = next(item["id"] for node in nodes for item in node["notices"] if item["dismissible"])
        else:
            ids["advice"] = next(item["id"] for node in nodes for item in node["recommendations"]["nodes"])


def pick(answer: Any, path: str) -> str:
    for name in path.split("."):
        answer = answer[name]
    return str(answer)


async def test_each_mutation_is_told_of(client: Client, world: World) -> None:
    trail = Trail(client, world)
    known = {entry.id for entry in await trail.entries()}
    silent: list[str] = []
    for step in STEPS:
        if step.first:
            await look(trail, step.first)
        selection = " ".join(
            f"{name} {{ {inner} }}" for name, inner in (path.split(".") for path in step.keep.values())
        )
        answer = await trail.do(step.name, step.given(trail.ids), selection, step.by)
        trail.ids |= {name: pick(answer, path) for name, path in step.keep.items()}
        made = [entry for entry in await trail.entries() if entry.id not in known]
        known |= {entry.id for entry in made}
        caller = "member:" if step.by else "api_key:"
        by_caller = [entry for entry in made if entry.actor.startswith(caller) and entry.origin]
        if step.name in UNTOLD:
            assert made == [], (step.name, [entry.action for entry in made])
        elif not by_caller:
            silent.append(step.name)
    assert silent == []
