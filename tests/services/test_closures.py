"""Closing accounts, and what is left of one 90 days later."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from plafond.models import (
    AccountStatus,
    ApiKey,
    AuditEntry,
    Base,
    BillingAccount,
    CollectionMethod,
    Company,
    Contact,
    Document,
    DueWork,
    Interval,
    Invite,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    MailKind,
    MailMessage,
    Member,
    OutboxEvent,
    PaymentMethod,
    PendingChange,
    PendingStatus,
    Role,
    ScheduledChange,
    Subscription,
    SubscriptionStatus,
    UsageEvent,
    WebhookEndpoint,
    WorkKind,
)
from plafond.services import closures, decisions, methods
from plafond.services.access import Principal, PrincipalKind, Scope
from plafond.services.accounts import select_accounts, status_of
from plafond.services.auditing import audit
from plafond.services.errors import BillingError, InvalidInput, InvalidTransition, NotFound, UserErrorCode
from plafond.services.expiry import DELETED
from plafond.services.idempotency import Request
from plafond.services.permissions import Action, list_permissions
from plafond.services.ports import ProcessorFailed
from plafond.services.taking import Placed
from plafond.services.test_clocks import advance_clock
from plafond.services.tills import Till
from plafond.services.tokens import create_key
from plafond.services.usage import RejectionCode, UsageInput
from plafond.settings import Environment

from ..conftest import World
from .engine import (
    add_card,
    cancel_now,
    limit_spend,
    open_account,
    open_clock,
    open_till,
    order,
    send_emails,
    start_trial,
)
from .helpers import ACTOR, OPERATOR, codes, send

BEGINS = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ENDS = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
AUTHENTICATES = "pm_card_authenticationRequired"


async def close(
    till: Till, account_id: UUID, confirm: str, *, key: str | None = None, principal: Principal = OPERATOR
) -> Placed:
    return await closures.close_account(till, principal, Request(key, "", [confirm]), account_id, confirm, "we move on")


async def one(world: World, account_id: UUID) -> tuple[BillingAccount, Subscription | None]:
    async with world.database.read() as session:
        account = (await session.scalars(select_accounts().where(BillingAccount.id == account_id))).one()
        return account, await session.scalar(select(Subscription).where(Subscription.account_id == account_id))


async def count(world: World, table: type[Base], *where: Any) -> int:
    async with world.database.read() as session:
        return int(await session.scalar(select(func.count()).select_from(table).where(*where)) or 0)


async def check_audit(world: World) -> None:
    async with world.database.read() as session:
        assert await audit(session, world.clock.stands_at) == []


async def test_a_running_account_is_closed_and_its_data_goes_after_90_days(world: World) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "closing", clock_id)
    await order(till, account_id, decisions.decide_start, "professional", Interval.MONTH)
    await limit_spend(till, account_id, 20_000)
    await send_emails(till, account_id, 61_000, workspace="north")
    await fill(world, account_id)
    await advance_clock(till, clock_id, ENDS)
    await order(till, account_id, decisions.decide_change, "starter", Interval.MONTH)
    assert await count(world, ScheduledChange, ScheduledChange.account_id == account_id) == 1
    await close(till, account_id, "closing", key="once")
    account, subscription = await one(world, account_id)
    assert subscription is not None
    assert (account.closed_at, subscription.canceled_at, subscription.status) == (
        ENDS,
        ENDS,
        SubscriptionStatus.CANCELED,
    )
    assert status_of(account, subscription) is AccountStatus.CLOSED
    assert await count(world, ScheduledChange, ScheduledChange.account_id == account_id) == 0
    # The same request again is the same answer; another one is told.
    assert (await close(till, account_id, "closing", key="once")).replayed
    with pytest.raises(InvalidTransition, match="closed already"):
        await close(till, account_id, "closing", key="twice")
    assert (
        await count(world, OutboxEvent, OutboxEvent.account_id == account_id, OutboxEvent.kind == "account.closed") == 1
    )
    late = UsageInput(event_id="late", metric="email_sends", account_id=account_id, quantity=1)
    assert codes(await send(world, late)) == [RejectionCode.ACCOUNT_CANCELED]
    with pytest.raises(BillingError) as refused:
        await order(till, account_id, decisions.decide_reactivation, "starter", Interval.MONTH)
    assert refused.value.code is UserErrorCode.ACCOUNT_CANCELED
    # The final invoice follows after its hour, and is charged; nothing was given back.
    await advance_clock(till, clock_id, ENDS + timedelta(hours=2))
    async with world.database.read() as session:
        invoices = (
            await session.scalars(select(Invoice).where(Invoice.account_id == account_id).order_by(Invoice.issued_at))
        ).all()
        before = {row.id: (row.content_hash, row.bill_to, row.total_minor) for row in invoices}
    assert [(row.kind, row.status) for row in invoices] == [
        (InvoiceKind.START, InvoiceStatus.PAID),
        (InvoiceKind.FINAL, InvoiceStatus.PAID),
    ]
    await check_audit(world)
    await advance_clock(till, clock_id, ENDS + timedelta(days=90) - timedelta(seconds=1))
    assert await count(world, UsageEvent, UsageEvent.account_id == account_id) == 1
    assert (await one(world, account_id))[0].data_deleted_at is None
    await advance_clock(till, clock_id, ENDS + timedelta(days=90))
    account, subscription = await one(world, account_id)
    assert subscription is not None
    assert subscription.status is SubscriptionStatus.EXPIRED
    assert account.data_deleted_at == ENDS + timedelta(days=90)
    assert (account.external_id, account.pairs) == ("closing", {})
    await check_is_gone(world, account_id)
    async with world.database.read() as session:
        rows = await session.scalars(select(Invoice).where(Invoice.account_id == account_id))
        assert {row.id: (row.content_hash, row.bill_to, row.total_minor) for row in rows} == before
    assert await count(world, Document, Document.account_id == account_id) >= 4
    await check_audit(world)


async def check_is_gone(world: World, account_id: UUID) -> None:
    """Nothing is left but the books, and who did what in them."""
    tables: list[type[Base]] = [*DELETED, WebhookEndpoint]
    for table in tables:
        assert await count(world, table, table.__table__.c.account_id == account_id) == 0, table
    async with world.database.read() as session:
        methods_ = (await session.scalars(select(PaymentMethod).where(PaymentMethod.account_id == account_id))).all()
        members = (await session.scalars(select(Member).where(Member.account_id == account_id))).all()
        keys = (await session.scalars(select(ApiKey).where(ApiKey.name == "erased"))).all()
        entries = (await session.scalars(select(AuditEntry).where(AuditEntry.account_id == account_id))).all()
    assert [(row.brand, row.last4, row.is_default) for row in methods_] == [("erased", "", False)]
    assert all(row.processor_token.startswith("erased:") for row in methods_)
    assert [(row.display_name, row.email, row.iss) for row in members] == [("Erased person", None, "erased")]
    assert [(row.name, row.revoked_at is not None) for row in keys] == [("erased", True)]
    of_contact = [entry for entry in entries if entry.action == "contact.added"]
    assert [(entry.after, entry.details_hash is not None) for entry in of_contact] == [({}, True)]
    assert any(entry.action == "invoice.finalized" and entry.after for entry in entries)


async def fill(world: World, account_id: UUID) -> None:
    """People, keys and all that an account may have beside its plan."""
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        account.pairs = {"crm": "4711"}
        member = Member(
            created_at=BEGINS,
            account_id=account_id,
            iss="https://issuer.test",
            sub="ada",
            display_name="Ada",
            email="ada@x.org",
            role=Role.TENANT_OWNER,
        )
        contact = Contact(
            created_at=BEGINS, account_id=account_id, name="Ada", email="ada@x.org", email_key="ada@x.org", topics=[]
        )
        work.session.add_all([member, contact])
        await work.session.flush()
        create_key(work, Environment.SANDBOX, name="Ada's", maker=member, scopes=[Scope.BILLING_READ])
        work.session.add_all(
            [
                MailMessage(
                    created_at=BEGINS,
                    account_id=account_id,
                    kind=MailKind.REFUND,
                    key="k",
                    contact_id=contact.id,
                    recipient="ada@x.org",
                    locale="en",
                    params={},
                    due_at=BEGINS,
                ),
                Invite(
                    created_at=BEGINS,
                    account_id=account_id,
                    email="b@x.org",
                    email_key="b@x.org",
                    role=Role.MEMBER,
                    invited_by="t",
                    expires_at=BEGINS,
                    member_id=member.id,
                    accepted_at=BEGINS,
                ),
                WebhookEndpoint(
                    created_at=BEGINS,
                    account_id=account_id,
                    url="https://x.org",
                    event_kinds=[],
                    secret="s",
                    created_by="t",
                ),
            ]
        )
        work.audit(account, "contact.added", f"contact:{contact.id}", after={"email": "ada@x.org"})


async def test_an_account_without_a_plan_is_closed_and_its_data_goes(world: World) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "idle", clock_id)
    await fill(world, account_id)
    await close(till, account_id, "idle")
    account, subscription = await one(world, account_id)
    assert (subscription, account.closed_at) == (None, BEGINS)
    await advance_clock(till, clock_id, BEGINS + timedelta(days=90) - timedelta(seconds=1))
    assert await count(world, Contact, Contact.account_id == account_id) == 1
    await advance_clock(till, clock_id, BEGINS + timedelta(days=90))
    assert await count(world, Contact, Contact.account_id == account_id) == 0
    assert await count(world, Company, Company.account_id == account_id) == 0
    assert (await one(world, account_id))[0].data_deleted_at is not None
    await check_audit(world)


async def test_a_canceled_account_is_closed_and_goes_90_days_after_its_cancellation(world: World) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "left", clock_id)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    await cancel_now(till, account_id, prorated=False)
    await advance_clock(till, clock_id, BEGINS + timedelta(days=30))
    await close(till, account_id, "left")
    await advance_clock(till, clock_id, BEGINS + timedelta(days=90))
    account, _ = await one(world, account_id)
    assert account.data_deleted_at == BEGINS + timedelta(days=90)
    with pytest.raises(InvalidTransition, match="closed already"):
        await close(till, account_id, "left")
    await check_audit(world)


async def test_a_trial_is_closed_with_its_account(world: World) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "trying", clock_id, card=None)
    await start_trial(till, account_id, "professional")
    await close(till, account_id, "trying")
    _, subscription = await one(world, account_id)
    assert subscription is not None
    assert subscription.status is SubscriptionStatus.CANCELED
    await advance_clock(till, clock_id, BEGINS + timedelta(days=91))
    assert await count(world, Invoice, Invoice.account_id == account_id) == 0
    await check_audit(world)


async def test_a_change_that_waits_for_its_payment_is_given_up(world: World) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "waiting", clock_id, card=AUTHENTICATES)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    waiting = PendingChange.account_id == account_id
    assert await count(world, PendingChange, waiting, PendingChange.status == PendingStatus.PENDING) == 1
    # A wrong name gives nothing up.
    with pytest.raises(InvalidInput, match="letter by letter"):
        await close(till, account_id, "waitin")
    assert await count(world, PendingChange, waiting, PendingChange.status == PendingStatus.PENDING) == 1
    await close(till, account_id, "waiting")
    assert await count(world, PendingChange, waiting, PendingChange.status == PendingStatus.EXPIRED) == 1
    assert (await one(world, account_id))[0].closed_at == BEGINS
    await check_audit(world)


async def test_what_is_open_can_be_paid_after_closing(world: World) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "owing", clock_id, collection=CollectionMethod.SEND_INVOICE, card=None)
    await order(till, account_id, decisions.decide_start, "starter", Interval.MONTH)
    await close(till, account_id, "owing")
    owner = Principal(kind=PrincipalKind.MEMBER, id="member:x", display_name="X", roles={account_id: Role.TENANT_OWNER})
    account, subscription = await one(world, account_id)
    allowed = {each.action: each.refusal is None for each in list_permissions(owner, account, subscription)}
    for action in (Action.ADD_PAYMENT_METHOD, Action.RETRY_PAYMENT, Action.REQUEST_EXPORT, Action.UPDATE_COMPANY):
        assert allowed[action], action
    for action in (Action.CLOSE_ACCOUNT, Action.SET_BUDGET, Action.REACTIVATE_SUBSCRIPTION, Action.START_SUBSCRIPTION):
        assert not allowed[action], action
    await methods.add(till, owner, Request("card", "", {}), account_id, "pm_card_visa", make_default=True)


async def test_who_closes_is_an_owner_or_operator(world: World) -> None:
    till = open_till(world.database)
    account_id = await open_account(till, "mine", None)
    for role, may in ((Role.MEMBER, False), (Role.BILLING_ADMIN, False), (Role.TENANT_OWNER, True)):
        person = Principal(kind=PrincipalKind.MEMBER, id="member:x", display_name="X", roles={account_id: role})
        account, subscription = await one(world, account_id)
        shown = {each.action: each.refusal for each in list_permissions(person, account, subscription)}
        assert (shown[Action.CLOSE_ACCOUNT] is None) is may
        if may:
            await close(till, account_id, "mine", principal=person)
        else:
            with pytest.raises(NotFound):
                await close(till, account_id, "mine", principal=person)


async def test_a_processor_that_is_away_is_asked_to_forget_until_it_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = open_till(world.database)
    clock_id = await open_clock(till, BEGINS)
    account_id = await open_account(till, "carded", clock_id)
    await add_card(till, account_id, "pm_card_mastercard")
    await close(till, account_id, "carded")
    forgotten: list[str] = []
    is_away = True

    async def detach(_: object, token: str) -> None:
        if is_away:
            raise ProcessorFailed("away")
        forgotten.append(token)

    monkeypatch.setattr(type(till.processor), "detach_method", detach)
    with pytest.raises(BaseException):  # noqa: B017, PT011  # whatever advancing says of it
        await advance_clock(till, clock_id, BEGINS + timedelta(days=91))
    assert (await one(world, account_id))[0].data_deleted_at is None
    assert await count(world, PaymentMethod, PaymentMethod.brand == "erased") == 0
    is_away = False
    async with world.database.work(ACTOR) as work:
        await work.session.execute(
            update(DueWork).where(DueWork.kind == WorkKind.EXPIRE_ACCOUNT).values(leased_until=None)
        )
    await advance_clock(till, clock_id, BEGINS + timedelta(days=92))
    assert sorted(forgotten) == ["pm_card_mastercard", "pm_card_visa"]
    assert (await one(world, account_id))[0].data_deleted_at is not None
