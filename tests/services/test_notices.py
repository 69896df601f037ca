"""Notices: one per cause, back when there is something new, gone with the cause; and their words."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from plafond.models import AuditEntry, BillingAccount, Notice, NoticeSeverity, OutboxEvent
from plafond.services.accounts import create_account, lock_account
from plafond.services.errors import Conflict, NotFound
from plafond.services.notices import clear_notice, dismiss_notice, is_meant_for, raise_notice
from plafond.services.texts import NOTICE_CODES, days_until, notice_actions, notice_text, show_params

from ..conftest import NOW, World
from .helpers import ACTOR, OPERATOR, tenant_key
from .test_accounts import rows_of

CARD = {"last4": "4242", "expMonth": 12, "expYear": 2026}


@pytest.fixture
async def account(world: World) -> BillingAccount:
    async with world.database.work(ACTOR) as work:
        return await create_account(work, "quill", {"name": "Quill", "currency": "USD", "timezone": "America/New_York"})


async def tell(world: World, account: BillingAccount, subject: str = "", **given: Any) -> Notice:
    said: dict[str, Any] = {"severity": NoticeSeverity.WARNING, "params": CARD, "dismissible": True} | given
    async with world.database.work(ACTOR) as work:
        return await raise_notice(work, await lock_account(work, account.id), "CARD_EXPIRING", subject, **said)


async def dismiss(world: World, account: BillingAccount, notice: Notice) -> None:
    async with world.database.work(ACTOR) as work:
        await dismiss_notice(work, account.id, notice.id)


async def standing(world: World, account: BillingAccount) -> Notice:
    (notice,) = await rows_of(world, Notice, account)
    assert isinstance(notice, Notice)
    return notice


async def test_a_notice_is_there_once_per_code_and_subject(world: World, account: BillingAccount) -> None:
    first = await tell(world, account)
    again = await tell(world, account)
    other = await tell(world, account, "card 2")
    assert first.id == again.id != other.id
    assert len(await rows_of(world, Notice, account)) == 2
    told = (await rows_of(world, OutboxEvent, account))[1:]
    assert [event.payload for event in told] == [
        {
            "accountId": str(account.id),
            "changed": ["notices"],
            "noticeId": str(notice.id),
            "forOperators": False,
        }
        for notice in (first, other)
    ]


async def test_what_was_put_away_stays_away_until_there_is_something_new(world: World, account: BillingAccount) -> None:
    notice = await tell(world, account)
    world.clock.stands_at += timedelta(hours=1)
    await dismiss(world, account, notice)
    await tell(world, account, params=dict(reversed(CARD.items())))
    assert (await standing(world, account)).dismissed_at == NOW + timedelta(hours=1)
    world.clock.stands_at += timedelta(hours=1)
    await tell(world, account, params=CARD | {"expYear": 2027})
    found = await standing(world, account)
    assert (found.id, found.dismissed_at, found.params["expYear"]) == (notice.id, None, 2027)
    assert (found.created_at, found.updated_at) == (NOW, NOW + timedelta(hours=2))


async def test_a_louder_notice_comes_back(world: World, account: BillingAccount) -> None:
    await dismiss(world, account, await tell(world, account))
    await tell(world, account, severity=NoticeSeverity.CRITICAL)
    assert (await standing(world, account)).dismissed_at is None


async def test_a_notice_goes_with_its_cause(world: World, account: BillingAccount) -> None:
    await tell(world, account)
    await tell(world, account, "card 2")
    for _ in range(2):
        async with world.database.work(ACTOR) as work:
            await clear_notice(work, await lock_account(work, account.id), "CARD_EXPIRING")
    assert (await standing(world, account)).subject == "card 2"
    assert len(await rows_of(world, OutboxEvent, account)) == 4
    fresh = await tell(world, account)
    assert fresh.dismissed_at is None


async def test_one_that_was_put_away_and_cleared_is_new_again(world: World, account: BillingAccount) -> None:
    await dismiss(world, account, await tell(world, account))
    async with world.database.work(ACTOR) as work:
        locked = await lock_account(work, account.id)
        await clear_notice(work, locked, "CARD_EXPIRING")
        await raise_notice(work, locked, "CARD_EXPIRING", severity=NoticeSeverity.INFO, params=CARD)
    assert (await standing(world, account)).dismissed_at is None


async def test_putting_away_is_remembered_once(world: World, account: BillingAccount) -> None:
    notice = await tell(world, account)
    await dismiss(world, account, notice)
    await dismiss(world, account, notice)
    entries = (await rows_of(world, AuditEntry, account))[1:]
    assert [(entry.action, entry.object, entry.after) for entry in entries] == [
        ("notice.dismissed", f"notice:{notice.id}", {"code": "CARD_EXPIRING", "subject": ""})
    ]


async def test_some_notices_stay(world: World, account: BillingAccount) -> None:
    notice = await tell(world, account, dismissible=False)
    with pytest.raises(Conflict):
        await dismiss(world, account, notice)
    assert (await standing(world, account)).dismissed_at is None


async def test_a_notice_of_another_account_is_not_there(world: World, account: BillingAccount) -> None:
    notice = await tell(world, account)
    async with world.database.work(ACTOR) as work:
        other = await create_account(work, "other", {"name": "O", "currency": "USD", "timezone": "UTC"})
        for account_id, notice_id in ((other.id, notice.id), (account.id, uuid4()), (uuid4(), notice.id)):
            with pytest.raises(NotFound):
                await dismiss_notice(work, account_id, notice_id)


async def test_instants_are_kept_with_the_offset_of_the_account_s_zone(world: World, account: BillingAccount) -> None:
    params = {"endsAt": datetime(2026, 12, 2, 3, 0, tzinfo=UTC), "on": date(2026, 12, 2), "list": [{"at": NOW}]}
    notice = await tell(world, account, params=params)
    assert notice.params == {
        "endsAt": "2026-12-01T22:00:00-05:00",
        "on": "2026-12-02",
        "list": [{"at": "2026-11-25T07:00:00-05:00"}],
    }


def test_instants_are_shown_in_utc() -> None:
    kept = {"endsAt": "2026-12-01T22:00:00-05:00", "on": "2026-12-02", "list": [{"at": "2026-11-25T12:00:00+00:00"}]}
    assert show_params(kept) == {
        "endsAt": "2026-12-02T03:00:00Z",
        "on": "2026-12-02",
        "list": [{"at": "2026-11-25T12:00:00Z"}],
    }


async def test_operators_notices_are_meant_for_them_alone(world: World, account: BillingAccount) -> None:
    ours, theirs = await tell(world, account, for_operators=True), await tell(world, account, "card 2")
    tenant = tenant_key(account.id)
    assert (is_meant_for(OPERATOR, ours), is_meant_for(tenant, ours)) == (True, False)
    assert (is_meant_for(OPERATOR, theirs), is_meant_for(tenant, theirs)) == (True, True)


OVERDUE = {
    "invoices": ["INV-1"],
    "count": 1,
    "amountMinor": 4_900,
    "currency": "USD",
    "isSent": False,
    "suspendsAt": "2026-12-02T12:00:00+00:00",
    "cancelsAt": "2026-12-09T12:00:00+00:00",
}
EXCEEDING = [
    {"metric": "team_members", "metricName": "Team members", "used": 1_007, "limit": 1_005},
    {"metric": "custom_domains", "metricName": "Custom domains", "used": 9, "limit": 5},
]
BEYOND = {"amountMinor": 4_900, "currency": "USD", "charge": "Invoice INV-1", "transactionId": "01a2"}
SPENT = {"scope": "ACCOUNT", "subject": "", "spentMinor": 16_900, "limitMinor": 20_000, "currency": "USD"}
WORDS: list[tuple[str, dict[str, Any], str, list[str]]] = [
    (
        "OVERAGE_APPROVAL",
        {"metricName": "Email sends", "limit": 50_000, "periodEnd": "2026-12-10T00:00:00+00:00"},
        (
            "Email sends: usage above the limit waits for an approval: What would pass 50,000 is refused until "
            "somebody approves it: some blocks, or all until 2026-12-10."
        ),
        ["APPROVE_OVERAGE", "CHANGE_PLAN"],
    ),
    (
        "PAYMENT_FAILED",
        {**OVERDUE, "status": "PAST_DUE", "daysLeft": 7},
        (
            "Payment failed: Invoice INV-1: $49.00 could not be charged. Update the payment method, or try the payment "
            "again. Without payment the account is suspended on 2026-12-02, in 7 days."
        ),
        ["UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"],
    ),
    (
        "PAYMENT_FAILED",
        {**OVERDUE, "isSent": True, "count": 3, "status": "SUSPENDED", "daysLeft": 1},
        (
            "The account is suspended: Invoices INV-1 and 2 more: $49.00 was not paid in time. Pay it by transfer, or "
            "add a payment method and try it. Until then the account only reads; on 2026-12-09, in 1 day, the "
            "subscription ends."
        ),
        ["UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"],
    ),
    (
        "PAYMENT_FAILED",
        {**OVERDUE, "status": "CANCELED", "daysLeft": 0},
        (
            "Payment failed: Invoice INV-1: $49.00 could not be charged. Update the payment method, or try the payment "
            "again."
        ),
        ["UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"],
    ),
    (
        "PAYMENT_FAILED",
        {**OVERDUE, "status": "PAST_DUE", "daysLeft": 7, "toConfirm": True, "needsMethod": True},
        (
            "Payment failed: Invoice INV-1: $49.00 waits for you. Confirm the payment with your bank; a new try gives "
            "this one up. Without payment the account is suspended on 2026-12-02, in 7 days."
        ),
        ["CONFIRM_PAYMENT", "UPDATE_PAYMENT_METHOD"],
    ),
    (
        "PAYMENT_FAILED",
        {**OVERDUE, "status": "PAST_DUE", "daysLeft": 0, "toConfirm": False, "needsMethod": True},
        (
            "Payment failed: Invoice INV-1: $49.00 could not be charged, and is not tried again until there is another "
            "payment method: add one, and it is tried at once. Without payment the account is suspended on 2026-12-02, "
            "today."
        ),
        ["UPDATE_PAYMENT_METHOD"],
    ),
    (
        "PAYMENT_OWED",
        {
            "invoices": ["INV-1"],
            "count": 2,
            "amountMinor": 9_800,
            "currency": "USD",
            "isSent": False,
            "canReturn": True,
        },
        (
            "The account ended unpaid: Invoices INV-1 and 1 more: $98.00 was never paid, so the subscription ended. "
            "Try the payment again, with another payment method if need be: a new one is not tried by itself. Only "
            "then can it be taken up again."
        ),
        ["UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"],
    ),
    (
        "PAYMENT_OWED",
        {
            "invoices": ["INV-1"],
            "count": 1,
            "amountMinor": 4_900,
            "currency": "USD",
            "isSent": True,
            "canReturn": False,
        },
        (
            "The account ended unpaid: Invoice INV-1: $49.00 was never paid, so the subscription ended. Pay it by "
            "transfer, or add a payment method and try it."
        ),
        ["UPDATE_PAYMENT_METHOD", "RETRY_PAYMENT"],
    ),
    (
        "PAYMENT_TO_CONFIRM",
        {**BEYOND, "expiresAt": "2026-12-01T08:00:00+01:00"},
        (
            "A payment waits for you: Your bank wants you to confirm $49.00 for “Invoice INV-1”, until 2026-12-01 "
            "08:00. After that it is given up."
        ),
        ["CONFIRM_PAYMENT"],
    ),
    (
        "PAYMENT_DISPUTED",
        {"amountMinor": 4_900, "currency": "USD", "charge": "Invoice INV-1"},
        (
            "A payment is disputed: The cardholder's bank took $49.00 of “Invoice INV-1” back. Until it has decided, "
            "nothing of the payment is refunded. Answer it with the processor."
        ),
        [],
    ),
    (
        "REFUND_FAILED",
        {"amountMinor": 4_900, "currency": "USD", "charge": "Invoice INV-1"},
        (
            "A refund failed: $49.00 of “Invoice INV-1” could not be paid back, and is owed. Review the request again: "
            "try it once more, or give it as credit."
        ),
        [],
    ),
    (
        "REFUND_TWICE",
        {"amountMinor": 4_900, "currency": "USD", "charge": "Invoice INV-1"},
        (
            "Money went back twice: A refund of $49.00 of “Invoice INV-1” failed, was tried again or credited, and "
            "went through all the same. It is booked: settle it with the customer."
        ),
        [],
    ),
    (
        "REFUND_UNKNOWN",
        {"refund": "re_1", "charge": "Invoice INV-1", "toldMinor": 4_900, "toldCurrency": "USD"},
        (
            "The processor tells of a refund that was not asked for here: re_1 of “Invoice INV-1”: $49.00. Nothing was "
            "booked: look it up there."
        ),
        [],
    ),
    (
        "TRIAL_ENDING",
        {"daysLeft": 7, "endsAt": "2026-12-02T12:00:00+00:00", "hasMethod": False},
        (
            "Your trial ends in 7 days: It ends on 2026-12-02. Add a payment method to keep your plan; without "
            "that the account is read-only from then on."
        ),
        ["ADD_PAYMENT_METHOD", "CHANGE_PLAN"],
    ),
    (
        "TRIAL_ENDING",
        {"daysLeft": 7, "endsAt": "2026-12-02T12:00:00+00:00", "hasMethod": True, "hasCompany": False},
        (
            "Your trial ends in 7 days: It ends on 2026-12-02. Enter your company's name and country to keep your "
            "plan; without that the account is read-only from then on."
        ),
        ["UPDATE_COMPANY", "CHANGE_PLAN"],
    ),
    (
        "TRIAL_ENDING",
        {"daysLeft": 7, "endsAt": "2026-12-02T12:00:00+00:00", "hasMethod": False, "hasCompany": False},
        (
            "Your trial ends in 7 days: It ends on 2026-12-02. Enter your company's name and country and add a payment "
            "method to keep your plan; without that the account is read-only from then on."
        ),
        ["UPDATE_COMPANY", "ADD_PAYMENT_METHOD", "CHANGE_PLAN"],
    ),
    (
        "TRIAL_ENDING",
        {"daysLeft": 7, "endsAt": "2026-12-02T12:00:00+00:00", "hasMethod": True, "hasCompany": True, "isSent": True},
        "Your trial ends in 7 days: It ends on 2026-12-02. The plan goes on, and its first invoice is sent to you.",
        ["CHANGE_PLAN"],
    ),
    (
        "TRIAL_ENDING",
        {
            "daysLeft": 1,
            "endsAt": "2026-12-02T12:00:00+00:00",
            "hasMethod": True,
            "amountMinor": 14_900,
            "currency": "USD",
        },
        (
            "Your trial ends in 1 day: It ends on 2026-12-02. The plan goes on, and $149.00 is charged to your "
            "payment method."
        ),
        ["CHANGE_PLAN"],
    ),
    (
        "TRIAL_ENDING",
        {"daysLeft": 1, "endsAt": "2026-12-02T12:00:00+00:00", "hasMethod": True},
        (
            "Your trial ends in 1 day: It ends on 2026-12-02. The plan goes on, and its first invoice is charged "
            "to your payment method."
        ),
        ["CHANGE_PLAN"],
    ),
    (
        "TRIAL_ENDED",
        {},
        "Your trial has ended: The account is read-only, and its data is kept for 90 days. Choose a plan to go on.",
        ["CHOOSE_PLAN"],
    ),
    (
        "RENEWAL_AHEAD",
        {"at": "2026-12-25T00:00:00+01:00", "amountMinor": 7_100_000, "currency": "JPY"},
        (
            "Your annual plan renews soon: It renews on 2026-12-25 for ¥7,100,000, before tax. Until then you can"
            " change or cancel it."
        ),
        ["CHANGE_PLAN", "CANCEL_SUBSCRIPTION"],
    ),
    (
        "CARD_EXPIRING",
        {"last4": "4242", "expMonth": 3, "expYear": 2027},
        (
            "Your card expires soon: The card ending in 4242 expires in 03/2027, before the next charge. Add a "
            "new one, so that nothing is interrupted."
        ),
        ["ADD_PAYMENT_METHOD"],
    ),
    (
        "CHANGE_REFUSED",
        {"plan": "Starter", "exceeding": EXCEEDING},
        (
            "The change to Starter was not made: More is in use than Starter includes: Team members 1,007 of "
            "1,005, Custom domains 9 of 5. Your present plan goes on. Use less, and change again."
        ),
        ["REDUCE_USAGE", "CHANGE_PLAN"],
    ),
    (
        "ADD_ON_KEPT",
        {"addOn": "Additional user", "exceeding": EXCEEDING[1:]},
        (
            "Additional user was not lowered: More is in use than would be left: Custom domains 9 of 5. The old "
            "quantity goes on. Use less, and lower it again."
        ),
        ["REDUCE_USAGE", "CHANGE_ADD_ONS"],
    ),
    (
        "PRICE_CHANGE_AHEAD",
        {"at": "2027-01-01T00:00:00+00:00", "amountMinor": 15_900, "currency": "USD"},
        (
            "Your price or terms change: They change on 2027-01-01: it will be $159.00, before tax. Until then "
            "you can change or cancel your plan."
        ),
        ["CHANGE_PLAN", "CANCEL_SUBSCRIPTION"],
    ),
    (
        "PRICE_CHANGE_AHEAD",
        {"at": "2027-01-01T00:00:00+00:00"},
        "Your price or terms change: They change on 2027-01-01. Until then you can change or cancel your plan.",
        ["CHANGE_PLAN", "CANCEL_SUBSCRIPTION"],
    ),
    (
        "TAX_RULE_MISSING",
        {"country": "US", "region": "NY"},
        (
            "A tax rule is missing: No row of the tax table covers US-NY, so no tax is charged there. Add one, "
            "also if its rate is 0."
        ),
        ["SET_TAX_TABLE"],
    ),
    (
        "PAYMENT_DUPLICATE",
        {**BEYOND, "invoice": "INV-1"},
        (
            "Money came that was not due: Invoice INV-1 was paid beyond what was due: $49.00 of “Invoice INV-1” is "
            "owed back. Ask for it by `requestRefund` with the reason DUPLICATE; `reviewRefund` sends it back, or "
            "gives it as credit."
        ),
        ["REQUEST_REFUND"],
    ),
    (
        "PAYMENT_DUPLICATE",
        {**BEYOND, "charge": "Starter, monthly", "change": "01a211d7-cd74-7031-8ee7-19f9c74a414a"},
        (
            "Money came that was not due: A change that had ended was paid beyond what was due: $49.00 of “Starter, "
            "monthly” is owed back. Ask for it by `requestRefund` with the reason DUPLICATE; `reviewRefund` sends it "
            "back, or gives it as credit."
        ),
        ["REQUEST_REFUND"],
    ),
    (
        "PAYMENT_MISMATCH",
        {"expectedMinor": 4_900, "expectedCurrency": "USD", "toldMinor": 4_900, "toldCurrency": "JPY"},
        (
            "A payment's amount does not agree: $49.00 was to be charged, and the processor tells of ¥4,900. Nothing "
            "was booked: look it up there."
        ),
        [],
    ),
    (
        "PAYMENT_MISMATCH",
        {"expectedMinor": 4_900, "expectedCurrency": "USD", "toldMinor": 4_900, "toldCurrency": "QQQ"},
        (
            "A payment's amount does not agree: $49.00 was to be charged, and the processor tells of 4,900 minor units "
            "of QQQ. Nothing was booked: look it up there."
        ),
        [],
    ),
    (
        "DOCUMENT_FAILED",
        {"number": "INV-000007"},
        (
            "A document could not be made: INV-000007 is issued, but its PDF could not be drawn in several tries:"
            " see the worker's log."
        ),
        [],
    ),
    (
        "EXPORT_FAILED",
        {"export": "0198c2f4-aaaa-7000-8000-000000000000"},
        (
            "An export could not be written: The file of the export 0198c2f4-aaaa-7000-8000-000000000000 could not be "
            "written in several tries: see the worker's log."
        ),
        [],
    ),
    (
        "MAIL_FAILED",
        {"mail": "0198c2f4-aaaa-7000-8000-000000000000", "kind": "INVOICE_ISSUED", "failure": "550 no such mailbox"},
        (
            "A mail could not be sent: INVOICE_ISSUED: 550 no such mailbox. Nobody was reached there: see to the "
            "address."
        ),
        [],
    ),
    (
        "ACCOUNT_PARKED",
        {},
        (
            "Billing of this account has stopped: Its due work failed too often and was given up. Mend the cause,"
            " then start it again."
        ),
        [],
    ),
    (
        "USAGE_THRESHOLD",
        {"metricName": "Email sends", "threshold": 95, "level": "URGENT", "used": 9_600, "limit": 10_000},
        (
            "Email sends: 95\u00a0% of the limit reached: 9,600 of 10,000 were used. Act now: choose a larger plan, or"
            " use less."
        ),
        ["CHANGE_PLAN", "CHANGE_ADD_ONS", "REDUCE_USAGE"],
    ),
    (
        "USAGE_SPIKE",
        {
            "metricName": "Email sends",
            "day": "2026-11-25",
            "used": 9_600,
            "expected": 1_000,
            "causes": [
                {"kind": "WORKSPACE", "name": "north", "quantity": 9_000, "usual": 10},
                {"kind": "WORKSPACE", "name": "south", "quantity": 900, "usual": 10},
                {"kind": "PROPERTY", "name": "campaign=launch", "quantity": 9_000, "usual": 0},
            ],
        },
        (
            "Email sends: an unusual day: 9,600 were used on November 25, 2026; such a day usually has 1,000. Most of "
            "it: north, campaign=launch."
        ),
        [],
    ),
    (
        "BUDGET_THRESHOLD",
        {**SPENT, "threshold": 80},
        (
            "The account's budget: 80 % spent: $169.00 of $200.00 was spent in this usage period, before tax, "
            "when that was reached."
        ),
        ["CHANGE_BUDGET", "REDUCE_USAGE"],
    ),
    (
        "BUDGET_BLOCKED",
        {**SPENT, "scope": "WORKSPACE", "subject": "north", "periodEnd": "2026-12-10T00:00:00+00:00"},
        (
            "The budget of the workspace north stops usage: $169.00 of $200.00 is spent. What would cost more is "
            "refused until 2026-12-10, or until the budget is raised."
        ),
        ["CHANGE_BUDGET", "CHANGE_PLAN"],
    ),
    (
        "BUDGET_UPGRADED",
        {"plan": "Business", "monthlyMinor": 39_900, "currency": "USD"},
        (
            "Changed to Business, because a budget is spent: The plan costs $399.00 a month, before tax. It is "
            "changed once in a usage period at most."
        ),
        [],
    ),
    (
        "BUDGET_NOT_UPGRADED",
        {"why": "ABOVE_CEILING", "plan": "Business", "monthlyMinor": 39_900, "ceilingMinor": 30_000, "currency": "USD"},
        (
            "A budget is spent, and the plan was not changed: It was to be changed to the next plan, but "
            "Business would cost $399.00 a month, and the ceiling is $300.00. Change it yourself, or raise the "
            "budget: setting the budget tries it again."
        ),
        ["CHANGE_PLAN", "CHANGE_BUDGET"],
    ),
    (
        "WEBHOOK_DISABLED",
        {"url": "https://hooks.example.com:8443/a?b=c", "reason": "FAILING"},
        (
            "Webhooks to hooks.example.com:8443 are switched off: Nothing was delivered for five days. See its "
            "deliveries, mend the receiver, then switch it on again."
        ),
        [],
    ),
    (
        "WEBHOOK_DISABLED",
        {"url": "https://hooks.example.com/", "reason": "GONE"},
        (
            "Webhooks to hooks.example.com are switched off: It answered 410, by which it wants nothing any more. Give "
            "it another URL, or delete it."
        ),
        [],
    ),
]


@pytest.mark.parametrize(("code", "params", "words", "actions"), WORDS)
def test_the_words_of_each_notice(code: str, params: dict[str, Any], words: str, actions: list[str]) -> None:
    notice = Notice(created_at=NOW, account_id=uuid4(), code=code, severity=NoticeSeverity.INFO, params=params)
    assert ": ".join(notice_text(code, params)) == words
    assert [kind for kind, _ in notice_actions(notice)] == actions
    assert all(label for _, label in notice_actions(notice))


def test_every_notice_is_read_here() -> None:
    assert {code for code, *_ in WORDS} == NOTICE_CODES


@pytest.mark.parametrize(
    ("now", "zone", "days"),
    [
        ("2026-05-03T00:00:00Z", "UTC", 5),
        ("2026-05-03T23:59:59Z", "UTC", 5),
        ("2026-05-07T23:59:59Z", "UTC", 1),
        ("2026-05-08T00:00:00Z", "UTC", 0),
        ("2026-05-09T00:00:00Z", "UTC", 0),
        # 8 May 01:00Z is still the 7th in New York.
        ("2026-05-03T03:59:59Z", "America/New_York", 5),
        ("2026-05-03T04:00:00Z", "America/New_York", 4),
    ],
)
def test_days_are_counted_by_the_calendar_of_the_account(now: str, zone: str, days: int) -> None:
    end_at = datetime(2026, 5, 8, 1, tzinfo=UTC)
    assert days_until(end_at, datetime.fromisoformat(now), zone) == days
