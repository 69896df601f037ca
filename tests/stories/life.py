"""An account's life on a test clock, lived through the public API as an operator and partner would."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from typing import Any
from uuid import UUID

from plafond.database import Actor
from plafond.models import Member, Role
from plafond.schema.node import decode_id
from plafond.services.access import Scope
from plafond.services.auditing import audit
from plafond.services.tokens import create_key
from plafond.settings import Environment

from ..conftest import Client, World

COMPANIES: dict[str, dict[str, Any]] = {
    # The sandbox's issuer sits in Austria: a German consumer pays German VAT, a business with a VAT id none.
    "AT": {
        "legalName": "Wiener Werk",
        "country": "AT",
        "addressLines": ["Gasse 1"],
        "postalCode": "1010",
        "city": "Wien",
    },
    "DE": {"legalName": "Kontor", "country": "DE", "addressLines": ["Weg 2"], "postalCode": "20457", "city": "Hamburg"},
    "DE-VAT": {
        "legalName": "Kontor GmbH",
        "country": "DE",
        "addressLines": ["Weg 2"],
        "postalCode": "20457",
        "city": "Hamburg",
        "vatId": "DE136695976",
    },
    "US": {
        "legalName": "Acorn Inc",
        "country": "US",
        "addressLines": ["1 Main St"],
        "postalCode": "10118",
        "city": "New York",
        "region": "NY",
    },
    "JP": {
        "legalName": "株式会社どんぐり",
        "country": "JP",
        "addressLines": ["銀座1-2"],
        "postalCode": "104-0061",
        "city": "東京都",
    },
}

INVOICE = """
id number kind status issuedAt dueAt periodStart periodEnd
subtotal { amountMinor } tax { amountMinor } total { amountMinor } carriedIn { amountMinor } carriedOut { amountMinor }
balanceApplied { amountMinor } amountPaid { amountMinor } amountCredited { amountMinor } amountDue { amountMinor }
lines { id kind description quantity unitAmount { amountMinor } amount { amountMinor } period { start end }
  taxCategory taxRate creditedLine { id } explain { result { amountMinor } steps { label expression value } } }
taxBreakdown { jurisdiction category rate taxableAmount { amountMinor } amount { amountMinor } reason }
"""
SUBSCRIPTION = """
status interval plan { key } amount { amountMinor } monthlyCost { amountMinor } recurringTotal { amountMinor }
currentPeriodStart currentPeriodEnd trialEnd cancelAtPeriodEnd
addOns { addOn { key } quantity nextQuantity amount { amountMinor } }
scheduledChange { plan { key } interval amount { amountMinor } effectiveAt } pendingChange { act }
"""
CREDIT_NOTE = """
id number reason issuedAt subtotal { amountMinor } tax { amountMinor } total { amountMinor }
toInvoice { amountMinor } toBalance { amountMinor } invoice { number }
lines { description amount { amountMinor } period { start end } taxCategory taxRate creditedLine { id } }
taxBreakdown { jurisdiction category rate taxableAmount { amountMinor } amount { amountMinor } reason }
"""


def flat(value: Any) -> Any:
    """Amounts as their minor units alone, so that expectations are short."""
    if isinstance(value, dict):
        if set(value) == {"amountMinor"}:
            return value["amountMinor"]
        return {key: flat(item) for key, item in value.items()}
    if isinstance(value, list):
        return [flat(item) for item in value]
    return value


Line = tuple[str, int, int, str, str]
Tax = tuple[str, float, int, int]


def lines_of(invoice: dict[str, Any]) -> list[Line]:
    """Each line as kind, quantity, amount, start and end, in a stable order. Each explanation comes to its amount."""
    for line in invoice["lines"]:
        assert line["explain"]["result"] == line["amount"], line
    return sorted(
        (line["kind"], line["quantity"], line["amount"], line["period"]["start"], line["period"]["end"])
        for line in invoice["lines"]
    )


def taken_of(note: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Each line of a credit note as amount, start and end, in a stable order."""
    return sorted((line["amount"], line["period"]["start"], line["period"]["end"]) for line in note["lines"])


def taxes_of(document: dict[str, Any]) -> list[Tax]:
    """Each tax row of an invoice or credit note as category, rate, taxable amount and tax, in a stable order."""
    return sorted(
        (row["category"], row["rate"], row["taxableAmount"], row["amount"]) for row in document["taxBreakdown"]
    )


@dataclass
class Life:
    """One account on a test clock of its own."""

    client: Client
    token: str
    clock_id: str | None
    account_id: str
    external_id: str
    _keys: Any = field(default_factory=count)

    @classmethod
    async def begin(
        cls,
        client: Client,
        world: World,
        at: datetime | None,
        *,
        currency: str = "USD",
        timezone: str = "UTC",
        locale: str = "en",
        company: str | None = "US",
        card: str | None = "pm_card_visa",
        collection: dict[str, Any] | None = None,
        name: str = "story",
    ) -> "Life":
        """A new account whose clock stands at an instant, with a company (by `COMPANIES`) and a card, or without.

        Without an instant it lives by the wall clock.
        """
        token = world.operator
        clock_id = None
        if at is not None:
            made = await _mutate(
                client, token, "createTestClock", "testClock { id }", {"name": name, "now": at.isoformat()}
            )
            clock_id = made["testClock"]["id"]
        given: dict[str, Any] = {
            "externalId": name,
            "name": name,
            "currency": currency,
            "timezone": timezone,
            "locale": locale,
            "testClockId": clock_id,
        }
        if collection is not None:
            given["collection"] = collection
        made = await _mutate(client, token, "createBillingAccount", "account { id }", given)
        life = cls(client, token, clock_id, made["account"]["id"], name)
        if company is not None:
            await life.do("updateCompany", **COMPANIES[company])
        if card is not None:
            await life.do("addPaymentMethod", token=card)
        return life

    async def do(self, mutation: str, fields: str = "account { id }", **given: Any) -> dict[str, Any]:
        """A mutation on the account that is not refused. Gives its payload, amounts as minor units."""
        payload = await self.try_to(mutation, fields, **given)
        assert payload["userErrors"] == [], (mutation, payload["userErrors"])
        return payload

    async def try_to(self, mutation: str, fields: str = "account { id }", **given: Any) -> dict[str, Any]:
        """A mutation on the account, refused or not."""
        full = dict(given)
        if mutation not in WITHOUT_ACCOUNT:
            full.setdefault("accountId", self.account_id)
        if mutation in KEYED:
            full.setdefault("idempotencyKey", f"{self.external_id}-{next(self._keys)}")
        return await _mutate(self.client, self.token, mutation, fields, full, check=False)

    async def refused(self, mutation: str, **given: Any) -> list[str]:
        """The codes with which a mutation on the account is refused."""
        payload = await self.try_to(mutation, **given)
        assert payload["userErrors"], f"{mutation} was not refused"
        return [error["code"] for error in payload["userErrors"]]

    async def advance(self, to: datetime) -> None:
        """Let time pass up to an instant."""
        payload = await self.try_to(
            "advanceTestClock", "testClock { now }", testClockId=self.clock_id, to=to.isoformat()
        )
        assert payload["userErrors"] == [], payload["userErrors"]

    async def use(self, metric: str = "email_sends", at: datetime | None = None, **figure: int) -> dict[str, Any]:
        """One usage event with a `quantity` or `level`. Gives its result."""
        event: dict[str, Any] = {
            "eventId": f"{self.external_id}-use-{next(self._keys)}",
            "metric": metric,
            "accountId": self.account_id,
            **figure,
        }
        if at is not None:
            event["occurredAt"] = at.isoformat()
        payload = await self.try_to("recordUsage", "results { status code message used limit }", events=[event])
        result: dict[str, Any] = payload["results"][0]
        return result

    async def ask(self, fields: str) -> dict[str, Any]:
        """Fields of the account, amounts as minor units."""
        data = await self.client.data(
            self.token, f"query ($id: ID!) {{ billingAccount(id: $id) {{ {fields} }} }}", id=self.account_id
        )
        found: dict[str, Any] = flat(data["billingAccount"])
        return found

    async def invoices(self) -> list[dict[str, Any]]:
        """All invoices, oldest first, with lines and tax rows."""
        found = await self.ask(f"invoices(first: 100) {{ nodes {{ {INVOICE} }} }}")
        return list(reversed(found["invoices"]["nodes"]))

    async def credit_notes(self) -> list[dict[str, Any]]:
        """All credit notes, oldest first, with lines and tax rows."""
        found = await self.ask(f"creditNotes(first: 100) {{ nodes {{ {CREDIT_NOTE} }} }}")
        return list(reversed(found["creditNotes"]["nodes"]))

    async def subscription(self) -> dict[str, Any]:
        """The subscription as it stands."""
        found = await self.ask(f"subscription {{ {SUBSCRIPTION} }}")
        return dict(found["subscription"])

    async def figure(self, metric: str = "email_sends") -> tuple[int, int | None]:
        """What is used of a metric, and its limit in force."""
        found = await self.ask("usage { metric { key } used limit }")
        (row,) = (row for row in found["usage"] if row["metric"]["key"] == metric)
        return row["used"], row["limit"]

    async def notices(self) -> dict[str, Any]:
        """What each standing notice says, by its code."""
        found = await self.ask("notices { code params }")
        return {notice["code"]: notice["params"] for notice in found["notices"]}

    async def owner(self, world: World) -> "Life":
        """The same account at the desk of its owner, whom states bind."""
        found = decode_id(self.account_id)
        assert found is not None
        async with world.database.work(Actor(name="system:test", origin="test")) as work:
            member = Member(
                created_at=world.clock.now(),
                account_id=UUID(found.key),
                iss="https://issuer.test",
                sub=f"{self.external_id}-owner",
                display_name="Owner",
                role=Role.TENANT_OWNER,
            )
            work.session.add(member)
            await work.session.flush()
            scopes = [Scope.BILLING_READ, Scope.BILLING_WRITE]
            key = create_key(work, Environment.SANDBOX, name="Owner", maker=member, scopes=scopes)
        return replace(self, token=key.token)

    async def audit(self, world: World) -> None:
        """The audit of the whole database finds nothing."""
        async with world.database.read() as session:
            assert await audit(session, world.clock.now()) == []

    async def books(self) -> dict[str, int]:
        """The balance of each account of the books that is not 0: debits are positive."""
        sums: dict[str, int] = defaultdict(int)
        after: str | None = None
        while True:
            data = await self.client.data(
                self.token,
                """query ($id: ID!, $after: String) { billingAccount(id: $id) { ledger(first: 100, after: $after) {
                pageInfo { hasNextPage endCursor }
                nodes { postings { account debit { amountMinor } credit { amountMinor } } } } } }""",
                id=self.account_id,
                after=after,
            )
            ledger: Any = flat(data["billingAccount"])["ledger"]
            for entry in ledger["nodes"]:
                for posting in entry["postings"]:
                    sums[posting["account"]] += (posting["debit"] or 0) - (posting["credit"] or 0)
            if not ledger["pageInfo"]["hasNextPage"]:
                return {account: amount for account, amount in sorted(sums.items()) if amount}
            after = ledger["pageInfo"]["endCursor"]


WITHOUT_ACCOUNT = frozenset(
    {
        "confirmPayment",
        "voidInvoice",
        "issueCreditNote",
        "recordPayment",
        "requestRefund",
        "reviewRefund",
        "setDefaultPaymentMethod",
        "removePaymentMethod",
        "advanceTestClock",
        "recordUsage",
        "publishPlan",
        "setMetric",
        "setTaxTable",
        "applyRecommendation",
        "dismissRecommendation",
    }
)
KEYED = frozenset(
    {
        "startSubscription",
        "reactivateSubscription",
        "changePlan",
        "setAddOn",
        "cancelSubscription",
        "addPaymentMethod",
        "confirmPayment",
        "voidInvoice",
        "issueCreditNote",
        "grantCredit",
        "recordPayment",
        "requestRefund",
        "retryPayment",
        "reviewRefund",
        "setDefaultPaymentMethod",
    }
)


async def _mutate(
    client: Client, token: str, mutation: str, fields: str, given: dict[str, Any], *, check: bool = True
) -> dict[str, Any]:
    name = mutation[0].upper() + mutation[1:]
    data = await client.data(
        token,
        f"mutation ($input: {name}Input!) "
        f"{{ {mutation}(input: $input) {{ {fields} userErrors {{ code message field }} }} }}",
        input=given,
    )
    payload: dict[str, Any] = flat(data[mutation])
    if check:
        assert payload["userErrors"] == [], (mutation, payload["userErrors"])
    return payload
