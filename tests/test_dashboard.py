"""The page in one request."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from plafond.database import Actor
from plafond.models import Issuer, PlanVersion, Role

from .conftest import NOW, Client, World
from .factories import an_account, what_it_runs_on

DASHBOARD = Path("docs/dashboard.graphql").read_text()
STATEMENTS = 35
"""What the page costs, whatever an account has, and however many accounts: one less where no invoice is shown, and one
less where no payment that went through is."""
OF_DUNNING = 5
"""What is read beside where a payment is overdue."""
OF_BUDGET = 1
"""What is read beside where there is a budget."""


def shows_no_receipt(account: Any) -> bool:
    """Whether nothing that is shown of an account can have a receipt."""
    return not any(row["status"] == "SUCCEEDED" for row in account["transactions"]["nodes"])


async def dashboard(client: Client, token: str) -> Any:
    data = await client.data(token, DASHBOARD)
    return data["billingAccount"]


async def test_acme_stands_as_promised(client: Client, world: World) -> None:
    account = await dashboard(client, world.token("Acme", Role.TENANT_OWNER))
    assert account["subscription"]["plan"]["key"] == "professional"
    assert account["subscription"]["monthlyCost"]["formatted"] == "$149.00"
    assert [(item["metric"]["key"], item["used"], item["limit"]) for item in account["usage"]] == [
        ("email_sends", 23_450, 50_000),
        ("team_members", 3, 5),
        ("workspaces", 7, 10),
        ("custom_domains", 5, 15),
    ]
    assert (account["usage"][0]["percent"], account["usage"][0]["remaining"]) == (46.9, 26_550)
    assert account["defaultPaymentMethod"]["last4"] == "4242"
    assert account["nextBilling"]["amount"]["amountMinor"] == 14_900
    assert account["nextBilling"]["kind"] == "RENEWAL"
    assert account["budget"]["spent"]["amountMinor"] == 14_900
    assert account["budget"]["percent"] == 74.5
    assert account["invoices"]["totalCount"] == 13
    assert len(account["usage"][0]["history"]) == 12


@pytest.mark.parametrize("tenant", ["Acme", "Birchwood", "Calder", "Dunmore", "Elmtree", "Fjordlicht", "Ginza"])
async def test_every_tenant_answers_without_errors_in_as_many_statements(
    client: Client, world: World, tenant: str
) -> None:
    token = world.token(tenant, Role.BILLING_ADMIN)
    world.statements.clear()
    account = await dashboard(client, token)
    assert account["name"].startswith(tenant)
    expected = STATEMENTS - (not account["invoices"]["nodes"]) - shows_no_receipt(account)
    expected += OF_DUNNING * (account["subscription"]["dunning"] is not None)
    expected += OF_BUDGET * (account["budget"] is not None)
    assert len(world.statements) == expected
    assert all((row["receipt"] is None) == (row["status"] != "SUCCEEDED") for row in account["transactions"]["nodes"])


async def add_accounts(world: World, count: int) -> None:
    start, end = NOW - timedelta(days=15), NOW + timedelta(days=15)
    async with world.database.work(Actor(name="system:test", origin="test")) as work:
        issuer = (await work.session.scalars(select(Issuer))).one()
        version = (await work.session.scalars(select(PlanVersion).limit(1))).one()
        for n in range(count):
            account = an_account(issuer.id, f"extra-{n}", now=NOW)
            work.session.add(account)
            await work.session.flush()
            work.session.add_all(what_it_runs_on(account, version.id, start=start, end=end))


async def test_a_list_of_fifty_with_everything_costs_no_more_than_one(client: Client, world: World) -> None:
    listed = DASHBOARD.replace("($id: ID)", "")
    listed = listed.replace("billingAccount(id: $id) {", "billingAccounts(first: 50) { totalCount nodes {")
    listed = listed.replace("creditBalance { ...M }\n  } }", "creditBalance { ...M }\n  } } }")
    await add_accounts(world, 50)
    for first in (1, 2, 50):
        world.statements.clear()
        data: Any = await client.data(world.operator, listed.replace("first: 50", f"first: {first}"))
        assert len(data["billingAccounts"]["nodes"]) == first
        assert data["billingAccounts"]["totalCount"] == 57
        assert data["billingAccounts"]["nodes"][0]["usage"][0]["used"] == 123
        shown_none = all(shows_no_receipt(account) for account in data["billingAccounts"]["nodes"])
        assert len(world.statements) == STATEMENTS - shown_none


async def test_a_member_sees_usage_and_no_money(client: Client, world: World) -> None:
    answer: Any = await client.ask(world.token("Acme", Role.MEMBER), DASHBOARD)
    account = answer["data"]["billingAccount"]
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}
    assert account["usage"][0]["used"] == 23_450
    assert account["usage"][0]["overage"]["amount"] is None
    for hidden in ("subscription", "invoices", "transactions", "budget", "nextBilling", "defaultPaymentMethod"):
        assert account[hidden] is None


async def test_the_trial_the_past_due_and_the_annual_one(client: Client, world: World) -> None:
    trial = await dashboard(client, world.token("Elmtree", Role.TENANT_OWNER))
    assert trial["subscription"]["status"] == "TRIALING"
    assert trial["nextBilling"] is None
    assert trial["usage"][0]["overage"]["policy"] == "BLOCK"
    past_due = await dashboard(client, world.token("Dunmore", Role.TENANT_OWNER))
    assert past_due["subscription"]["status"] == "PAST_DUE"
    assert past_due["invoices"]["nodes"][0]["status"] == "OPEN"
    assert past_due["invoices"]["nodes"][0]["amountDue"]["amountMinor"] == 4_900
    assert past_due["transactions"]["nodes"][0]["failure"]["code"] == "CARD_DECLINED"
    assert past_due["notices"][0]["code"] == "PAYMENT_FAILED"
    annual = await dashboard(client, world.token("Fjordlicht", Role.TENANT_OWNER))
    assert annual["subscription"]["amount"]["amountMinor"] == 383_000
    assert annual["subscription"]["monthlyCost"]["amountMinor"] == 31_917
    assert annual["subscription"]["currentPeriodStart"].startswith("2026-07-09")
    assert annual["nextBilling"]["at"] == annual["subscription"]["currentPeriodEnd"]
    yen = await dashboard(client, world.token("Ginza", Role.TENANT_OWNER))
    assert yen["subscription"]["amount"] == {"amountMinor": 7_400, "currency": "JPY", "formatted": "¥7,400"}


async def test_the_tenant_at_96_percent_has_its_alerts(client: Client, world: World) -> None:
    account = await dashboard(client, world.token("Calder", Role.TENANT_OWNER))
    assert [alert["level"] for alert in account["alerts"]["nodes"]] == ["URGENT", "UPGRADE_SUGGESTION", "WARNING"]
    assert account["usage"][0]["level"] == "URGENT"
    reached = [item["reachedAt"] is not None for item in account["usage"][0]["thresholds"]]
    assert reached == [True, True, True, False]
