"""The engine played by its services: accounts on a test clock, what they order, and a year in which much happens.

For tests that need books with history: nothing here is written past the services, but for who the buyer is.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import select

from plafond import sandbox
from plafond.adapters.sandbox_processor import SandboxProcessor, acknowledge, close_disputes, take_messages
from plafond.database import Database, Work
from plafond.models import (
    BudgetScope,
    CollectionMethod,
    Company,
    Interval,
    Invoice,
    InvoiceStatus,
    RefundReason,
    RefundRequest,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from plafond.services import decisions, endings, methods, orders, receiving, refunds, test_clocks
from plafond.services.accounts import create_account
from plafond.services.budgets import BudgetInput, set_budget
from plafond.services.catalogue_files import apply_catalogue, read_catalogue
from plafond.services.closing import load_standing
from plafond.services.idempotency import Request
from plafond.services.invoicing import void_invoice
from plafond.services.metering import record_usage
from plafond.services.processor_messages import hear
from plafond.services.refundables import Asked
from plafond.services.refunds import RefundDecision
from plafond.services.repayment import settle_refund
from plafond.services.standing import Standing
from plafond.services.taking import Placed
from plafond.services.tills import Till
from plafond.services.usage import EventStatus, UsageInput

from .helpers import ACTOR, OPERATOR

VISA = "pm_card_visa"
DECLINED = "pm_card_chargeDeclined"
YEAR_BEGINS = datetime(2025, 1, 31, 10, 0, tzinfo=UTC)
_numbers = count(1)


def open_till(database: Database) -> Till:
    """A till with the sandbox's processor."""
    return Till(database, SandboxProcessor(database), ACTOR)


def _request() -> Request:
    return Request(f"key-{next(_numbers)}", "", {})


async def apply_sandbox_catalogue(till: Till) -> None:
    """The catalogue that the sandbox has, in an empty database."""
    async with till.work() as work:
        await apply_catalogue(work, read_catalogue(files(sandbox).joinpath("catalogue.toml").read_bytes()))


async def open_clock(till: Till, now: datetime) -> UUID:
    """A test clock that stands at an instant."""
    async with till.work() as work:
        return (await test_clocks.create_clock(work, "clock", now)).id


async def open_account(
    till: Till,
    name: str,
    clock_id: UUID | None,
    *,
    card: str | None = VISA,
    country: str = "DE",
    currency: str = "USD",
    timezone: str = "America/New_York",
    collection: CollectionMethod = CollectionMethod.AUTOMATIC,
) -> UUID:
    """An account that can buy: with a company and, unless there is none, a card."""
    async with till.work() as work:
        account = await create_account(
            work, name, {"name": name, "currency": currency, "timezone": timezone}, test_clock_id=clock_id
        )
        account.collection_method = collection
        work.session.add(
            Company(
                created_at=account.created_at,
                account_id=account.id,
                legal_name=f"{name} Ltd",
                country=country,
                address_lines=["1 Mill Road"],
                postal_code="10115",
                city="Town",
            )
        )
        account_id = account.id
    if card is not None:
        await add_card(till, account_id, card)
    return account_id


async def add_card(till: Till, account_id: UUID, card: str) -> None:
    """A card that is charged from now on."""
    await methods.add(till, OPERATOR, _request(), account_id, card, make_default=True)


async def order(
    till: Till, account_id: UUID, decide: Callable[..., Awaitable[decisions.Decision]], *wanted: Any
) -> Placed:
    """Place an order: `decide` is one of `services.decisions`, such as `decide_start`."""

    async def decided(work: Work, standing: Standing) -> decisions.Decision:
        return await decide(work, standing, *wanted)

    return await orders.place(till, OPERATOR, _request(), decide.__name__, account_id, decided)


async def cancel(till: Till, account_id: UUID) -> None:
    """Let a subscription end with its period."""
    await endings.cancel_at_period_end(till, OPERATOR, _request(), account_id, "test")


async def cancel_now(till: Till, account_id: UUID, *, prorated: bool) -> None:
    """End a subscription at once."""
    await endings.cancel_now(till, OPERATOR, _request(), account_id, prorated=prorated, reason="test")


async def start_trial(till: Till, account_id: UUID, plan: str) -> None:
    """Try a plan."""
    await endings.start_trial(till, OPERATOR, _request(), account_id, plan, Interval.MONTH)


async def advance(till: Till, clock_id: UUID, *when: int) -> None:
    """Move a clock to a day of 2025, as month, day and, unless at noon, hour and minute."""
    month, day, *time = when
    hour, minute = (*time, 0)[:2] if time else (12, 0)
    await test_clocks.advance_clock(till, clock_id, datetime(2025, month, day, hour, minute, tzinfo=UTC))


async def send_emails(
    till: Till,
    account_id: UUID,
    quantity: int,
    at: datetime | None = None,
    *,
    correction: bool = False,
    workspace: str | None = None,
) -> None:
    """Usage of the counter."""
    named = {} if workspace is None else {"workspace": workspace}
    await _send(
        till,
        account_id,
        "email_sends",
        quantity=quantity,
        occurred_at=at,
        correction=correction,
        properties=named,
    )


async def use_up(till: Till, account_id: UUID) -> None:
    """Nine tenths of the e-mails of professional, and all of its team members."""
    await send_emails(till, account_id, 45_000)
    await _send(till, account_id, "team_members", level=5)


async def _send(till: Till, account_id: UUID, metric: str, **given: Any) -> None:
    event = UsageInput(event_id=f"event-{next(_numbers)}", metric=metric, account_id=account_id, **given)
    async with till.work() as work:
        results = await record_usage(work, OPERATOR, [event])
    assert [result.status for result in results] == [EventStatus.ACCEPTED], results


async def limit_spend(till: Till, account_id: UUID, limit_minor: int) -> None:
    """Give an account a budget of its own."""
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        asked = BudgetInput(scope=BudgetScope.ACCOUNT, limit_minor=limit_minor, currency=account.currency)
        await set_budget(work, OPERATOR, account_id, asked)


async def grant(till: Till, account_id: UUID, amount_minor: int) -> None:
    """Give an account credit."""
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await receiving.grant_credit(work, account, amount_minor, account.currency, "test")


async def withdraw_open_invoice(till: Till, account_id: UUID) -> None:
    """Void the oldest open invoice of an account."""
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        invoice = (
            await work.session.scalars(
                select(Invoice)
                .where(Invoice.account_id == account_id, Invoice.status == InvoiceStatus.OPEN)
                .order_by(Invoice.issued_at)
                .limit(1)
            )
        ).one()
        await void_invoice(work, await load_standing(work, account), invoice, "test")


async def pay_by_transfer(till: Till, account_id: UUID, amount_minor: int, *, status: InvoiceStatus) -> UUID:
    """Book a transfer for the oldest invoice that stands so. Gives the transaction's id."""
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        oldest = select(Invoice).where(Invoice.account_id == account_id, Invoice.status == status)
        invoice = (await work.session.scalars(oldest.order_by(Invoice.issued_at).limit(1))).one()
        paid = await receiving.record_payment(work, account, invoice, amount_minor, account.currency, "RF18 5390")
        return paid.id


async def ask_back(
    till: Till, charge_id: UUID, reason: RefundReason, amount_minor: int | None, decision: RefundDecision | None
) -> UUID:
    """Ask for a payment back; an operator decides at once, unless nothing is said. Gives the request's id."""
    async with till.work() as work:
        charge = await work.session.get_one(Transaction, charge_id)
        account = (await work.lock_accounts([charge.account_id]))[charge.account_id]
        asked = Asked(reason=reason, amount_minor=amount_minor)
        request = await refunds.request_refund(work, account, charge, asked, account.currency, "test")
    if decision is not None:
        await decide_refund(till, request.id, decision)
    return request.id


async def decide_refund(till: Till, request_id: UUID, decision: RefundDecision) -> None:
    """Decide on a request, and have the processor pay back."""
    async with till.work() as work:
        request = await work.session.get_one(RefundRequest, request_id)
        account = (await work.lock_accounts([request.account_id]))[request.account_id]
        refund = await refunds.review_refund(work, account, request, decision, None, "test")
    if refund is not None:
        await settle_refund(till, refund.id)


async def first_charge(till: Till, account_id: UUID) -> UUID:
    """The first charge of an account that went through."""
    async with till.database.read() as session:
        found = await session.scalars(
            select(Transaction.id)
            .where(
                Transaction.account_id == account_id,
                Transaction.kind == TransactionKind.CHARGE,
                Transaction.status == TransactionStatus.SUCCEEDED,
            )
            .order_by(Transaction.created_at)
            .limit(1)
        )
        return found.one()


async def hear_all(till: Till) -> None:
    """Hear all that the sandbox's processor has to tell, and what it tells because of that."""
    while messages := await take_messages(till.database, 100):
        for message in messages:
            await hear(till, message)
            await acknowledge(till.database, message)


async def lose_disputes(till: Till, account_id: UUID) -> None:
    """Let the banks take back for good what is disputed."""
    async with till.work() as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await close_disputes(work, account.processor_customer or "", won=False)
    await hear_all(till)


async def run_a_lively_year(till: Till) -> dict[str, UUID]:
    """14 accounts, from January to August 2025 on one test clock, and one on the wall clock. Gives their ids by name.

    `upgrader` goes to a larger plan, takes add-ons, changes to yearly, is cancelled with credit and comes back;
    `leaver` pays overage and corrections both ways, and leaves; `debtor` cannot pay, is given up and pays a part
    after that, `late` cannot pay since today; `withdrawn` could not, and has its invoice voided; `small` owes too
    little to be charged, at the end again; `sent` pays by transfer and has not; `trier` lets its trial end, `tried`
    goes on; `yearly` pays in yen for a year, with overage; `quitter` is cancelled without credit and comes back in the
    same period; `refunded` gets back a part of its first charge and what it paid twice, by transfer and as credit, and
    asks for more; `bounced` gets credit for a refund that its bank sent back; `disputed` takes its money back by its
    bank; `walled` started today, and uses its plan up.
    """
    clock_id = await open_clock(till, YEAR_BEGINS)
    ids = {
        name: await open_account(till, name, clock_id)
        for name in ("upgrader", "leaver", "debtor", "withdrawn", "small", "tried", "quitter", "late", "refunded")
    }
    ids["bounced"] = await open_account(till, "bounced", clock_id, card="pm_card_refundFail")
    ids["disputed"] = await open_account(till, "disputed", clock_id, card="pm_card_createDispute")
    ids["sent"] = await open_account(
        till, "sent", clock_id, card=None, country="AT", currency="EUR", collection=CollectionMethod.SEND_INVOICE
    )
    ids["trier"] = await open_account(till, "trier", clock_id, card=None)
    ids["yearly"] = await open_account(till, "yearly", clock_id, country="JP", currency="JPY", timezone="Asia/Tokyo")
    for name in ("upgrader", "leaver", "debtor", "withdrawn", "small", "quitter", "late"):
        await order(till, ids[name], decisions.decide_start, "starter", Interval.MONTH)
    for name in ("sent", "refunded", "bounced", "disputed"):
        await order(till, ids[name], decisions.decide_start, "professional", Interval.MONTH)
    for name in ("refunded", "bounced", "disputed"):
        await cancel(till, ids[name])
    await order(till, ids["yearly"], decisions.decide_start, "starter", Interval.YEAR)
    for name in ("trier", "tried"):
        await start_trial(till, ids[name], "professional")
    await advance(till, clock_id, 2, 5)
    await give_back_some(till, ids)
    await advance(till, clock_id, 2, 10)
    await grant(till, ids["small"], 5_801)
    await advance(till, clock_id, 3, 10)
    for name in ("leaver", "yearly"):
        await send_emails(till, ids[name], 25_000)
    await limit_spend(till, ids["yearly"], 5_000)
    await add_card(till, ids["debtor"], DECLINED)
    await add_card(till, ids["withdrawn"], DECLINED)
    await cancel_now(till, ids["quitter"], prorated=False)
    await advance(till, clock_id, 3, 20)
    await order(till, ids["upgrader"], decisions.decide_change, "professional", Interval.MONTH)
    await order(till, ids["quitter"], decisions.decide_reactivation, "starter", Interval.MONTH)
    await advance(till, clock_id, 4, 2)
    for name in ("leaver", "yearly"):
        await send_emails(till, ids[name], 10_000, datetime(2025, 3, 15, tzinfo=UTC))
    await withdraw_open_invoice(till, ids["withdrawn"])
    await advance(till, clock_id, 4, 10)
    await order(till, ids["upgrader"], decisions.decide_add_on, "additional_user", 2)
    await order(till, ids["upgrader"], decisions.decide_add_on, "extra_emails", 1)
    await cancel(till, ids["leaver"])
    await advance(till, clock_id, 4, 12)
    await order(till, ids["upgrader"], decisions.decide_change, "professional", Interval.YEAR)
    await advance(till, clock_id, 5, 2)
    await send_emails(till, ids["leaver"], -20_000, datetime(2025, 3, 31, tzinfo=UTC), correction=True)
    await advance(till, clock_id, 5, 20)
    await cancel_now(till, ids["upgrader"], prorated=True)
    await advance(till, clock_id, 6, 20)
    await order(till, ids["upgrader"], decisions.decide_reactivation, "starter", Interval.MONTH)
    await advance(till, clock_id, 8, 10)
    await grant(till, ids["small"], 5_801)
    await pay_by_transfer(till, ids["debtor"], 2_000, status=InvoiceStatus.UNCOLLECTIBLE)
    await add_card(till, ids["late"], DECLINED)
    await advance(till, clock_id, 9, 1)
    ids["walled"] = await open_account(till, "walled", None, timezone="Europe/Berlin")
    await order(till, ids["walled"], decisions.decide_start, "professional", Interval.MONTH)
    await use_up(till, ids["walled"])
    await limit_spend(till, ids["walled"], 18_000)
    return ids


async def spend_half_a_year(till: Till) -> UUID:
    """`spender`, five months long: add-ons, overage of several workspaces, an upgrade, late usage and a correction.

    Starter has 10,000 e-mails at 49.00, professional 50,000 at 149.00; a block of 10,000 costs 10.00.
    """
    clock = await open_clock(till, datetime(2025, 1, 10, 15, 0, tzinfo=UTC))
    account_id = await open_account(till, "spender", clock)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    await order(till, account_id, decisions.decide_add_on, "additional_user", 2)
    await advance(till, clock, 1, 15)
    await send_emails(till, account_id, 14_000, workspace="north")
    await send_emails(till, account_id, 16_001, workspace="south")
    await advance(till, clock, 2, 20)
    await send_emails(till, account_id, 40_000, workspace="north")
    await order(till, account_id, decisions.decide_change, "professional", Interval.MONTH)
    await send_emails(till, account_id, 30_000, workspace="south")
    await order(till, account_id, decisions.decide_add_on, "extra_emails", 1)
    await advance(till, clock, 3, 5)
    await send_emails(till, account_id, 20_000)
    await send_emails(till, account_id, 25_000, datetime(2025, 1, 20, tzinfo=UTC), workspace="late")
    await advance(till, clock, 3, 12)
    await send_emails(till, account_id, -9_000, datetime(2025, 1, 21, tzinfo=UTC), correction=True, workspace="north")
    await send_emails(till, account_id, 70_001, workspace="north")
    await advance(till, clock, 6, 20)
    return account_id


async def give_back_some(till: Till, ids: Mapping[str, UUID]) -> None:
    """What goes back in a lively year: by the processor, by transfer, as credit, by a bank."""
    charge = await first_charge(till, ids["refunded"])
    await ask_back(till, charge, RefundReason.GOODWILL, 2_000, RefundDecision.APPROVE)
    await ask_back(till, charge, RefundReason.GOODWILL, 1_000, None)
    for amount_minor, decision in ((17_731, RefundDecision.APPROVE), (1_000, RefundDecision.CREDIT)):
        again = await pay_by_transfer(till, ids["refunded"], amount_minor, status=InvoiceStatus.PAID)
        await ask_back(till, again, RefundReason.DUPLICATE, None, decision)
    charge = await first_charge(till, ids["bounced"])
    bounced = await ask_back(till, charge, RefundReason.GOODWILL, 3_000, RefundDecision.APPROVE)
    await hear_all(till)
    await decide_refund(till, bounced, RefundDecision.CREDIT)
    await lose_disputes(till, ids["disputed"])
