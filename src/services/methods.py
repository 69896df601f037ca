"""Payment methods: added by the processor's token, one of them charged, removed. No card number ever comes here."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from ..database import Work
from ..models import (
    BillingAccount,
    DueWork,
    Invoice,
    InvoiceStatus,
    PaymentMethod,
    PendingChange,
    PendingStatus,
    Transaction,
    WorkKind,
)
from ..models.types import new_id
from . import dunning, inputs
from .access import Principal
from .accounts import lock_account
from .collection import list_charges, list_payable
from .due_work import enqueue
from .errors import Conflict, InvalidInput, NotFound, PaymentFailed, PaymentRequired
from .idempotency import Outcome, Request, idempotent, once, recall
from .notices import clear_notice
from .orders import run_due
from .permissions import Action, require_action
from .ports import CardRefused, MethodFacts, Processor, ProcessorFailed, Setup
from .reminders import plan_card_reminders
from .rules.transitions import RUNNING
from .settlement import OPEN
from .subscriptions import find_subscription
from .texts import failure_message
from .tills import Till

log = logging.getLogger("plafond.methods")

MAX_METHODS = 20


def check_token(token: str) -> None:
    """Refuse what cannot be a processor's token, above all a card number."""
    inputs.refuse_card_number(token, ["input", "token"])
    if not 1 <= len(token) <= 255 or not token.isascii() or not token.isprintable():
        raise InvalidInput(
            "`token` is what the processor gave for the method, such as pm_…: up to 255 ASCII characters.",
            ["input", "token"],
        )


async def find_customer(processor: Processor, account: BillingAccount) -> str:
    """What the processor knows an account by; it is made known there by the first call."""
    return account.processor_customer or await processor.open_customer(f"account:{account.id}", account.name)


async def add_method(
    work: Work, account: BillingAccount, customer: str, facts: MethodFacts, step: str, *, make_default: bool
) -> PaymentMethod:
    """Keep a payment method that the processor knows. The first one is charged; a new one on request.

    One that is charged from now on is tried at once for what is overdue, as `step`.
    """
    now = work.clock.now_for(account)
    account.processor_customer = customer
    known = await _list_methods(work, account)
    method = next((row for row in known if row.processor_token == facts.token), None)
    _check_room(known, facts.token)
    if method is None:
        # One that was removed and comes again is the same row.
        method = await work.session.scalar(
            select(PaymentMethod).where(
                PaymentMethod.account_id == account.id, PaymentMethod.processor_token == facts.token
            )
        )
    if method is None:
        method = PaymentMethod(
            created_at=now,
            account_id=account.id,
            kind=facts.kind,
            brand=facts.brand,
            last4=facts.last4,
            exp_month=facts.exp_month,
            exp_year=facts.exp_year,
            is_default=False,
            processor_token=facts.token,
        )
        work.session.add(method)
    method.removed_at, method.updated_at = None, now
    method.exp_month, method.exp_year = facts.exp_month, facts.exp_year
    await work.session.flush()
    if make_default or not any(row.is_default for row in known):
        await _make_default(work, account, method, known, step)
    work.audit(
        account,
        "payment_method.added",
        f"payment_method:{method.id}",
        after={"brand": method.brand, "last4": method.last4, "isDefault": method.is_default},
    )
    work.emit(account, "payment_method.added", {"paymentMethodId": str(method.id)})
    return method


def _check_room(known: Sequence[PaymentMethod], token: str) -> None:
    if len(known) >= MAX_METHODS and all(row.processor_token != token for row in known):
        raise InvalidInput(f"An account has at most {MAX_METHODS} payment methods: remove one first.", ["input"])


async def set_default(work: Work, account: BillingAccount, method_id: UUID | None, step: str) -> PaymentMethod:
    """Have another method charged from now on, and tried at once for what is overdue."""
    known = await _list_methods(work, account)
    method = _pick(known, method_id)
    if not method.is_default:
        before = next((str(row.id) for row in known if row.is_default), None)
        await _make_default(work, account, method, known, step)
        work.audit(
            account,
            "payment_method.made_default",
            f"payment_method:{method.id}",
            before={"default": before},
            after={"default": str(method.id)},
        )
        work.emit(account, "payment_method.updated", {"paymentMethodId": str(method.id)})
    return method


async def _make_default(
    work: Work, account: BillingAccount, method: PaymentMethod, known: Sequence[PaymentMethod], step: str
) -> None:
    now = work.clock.now_for(account)
    for other in known:
        other.is_default = False
    await work.session.flush()  # there is never more than one
    method.is_default, method.updated_at = True, now
    await work.session.flush()
    subscription = await find_subscription(work, account)
    if subscription is not None and subscription.status in RUNNING:
        await plan_card_reminders(work, account, method, subscription.current_period_end)
    if await dunning.find_running(work, account) is not None:
        await enqueue(work, account, WorkKind.TRY_PAYMENT, step, now)


async def remove_method(work: Work, account: BillingAccount, method_id: UUID | None, step: str) -> PaymentMethod:
    """Forget a method: it is never charged again. The last one stays while something is due.

    Of several the newest is charged from now on, and tried at once for what is overdue.
    """
    known = await _list_methods(work, account)
    method = _pick(known, method_id)
    session = work.session
    if await session.scalar(
        select(Transaction.id).where(Transaction.payment_method_id == method.id, Transaction.status.in_(OPEN)).limit(1)
    ):
        raise Conflict("It is being charged at this moment: ask again when that has ended.", _FIELD)
    if await session.scalar(
        select(PendingChange.id)
        .join(Transaction, Transaction.pending_change_id == PendingChange.id)
        .where(PendingChange.status == PendingStatus.PENDING, Transaction.payment_method_id == method.id)
        .limit(1)
    ):
        raise Conflict("A change waits to be paid by it: confirm the payment, or give the change up.", _FIELD)
    if len(known) == 1:
        due = await session.scalar(
            select(func.count())
            .select_from(Invoice)
            .where(Invoice.account_id == account.id, Invoice.status == InvoiceStatus.OPEN)
        )
        if due:
            raise PaymentRequired("It is the last one, and something is due: pay that, or add another first.", _FIELD)
    now = work.clock.now_for(account)
    was_default = method.is_default
    method.removed_at, method.is_default, method.updated_at = now, False, now
    await session.flush()
    rest = [row for row in known if row is not method]
    if was_default and rest:
        await _make_default(work, account, max(rest, key=lambda row: row.created_at), rest, step)
    await clear_notice(work, account, "CARD_EXPIRING", str(method.id))
    work.audit(
        account,
        "payment_method.removed",
        f"payment_method:{method.id}",
        before={"brand": method.brand, "last4": method.last4, "isDefault": was_default},
    )
    work.emit(account, "payment_method.removed", {"paymentMethodId": str(method.id)})
    return method


_FIELD = ("input", "paymentMethodId")


def _pick(known: Sequence[PaymentMethod], method_id: UUID | None) -> PaymentMethod:
    found = next((row for row in known if row.id == method_id), None)
    if found is None:
        raise NotFound("The account has no such payment method.", _FIELD)
    return found


async def _list_methods(work: Work, account: BillingAccount) -> Sequence[PaymentMethod]:
    rows = await work.session.scalars(
        select(PaymentMethod).where(PaymentMethod.account_id == account.id, PaymentMethod.removed_at.is_(None))
    )
    return rows.all()


async def refresh_method(work: Work, account: BillingAccount, method: PaymentMethod, facts: MethodFacts | None) -> None:
    """Take over what the processor tells of a method by now: a card's new date. One that it forgot stays, and fails."""
    if facts is None or (facts.exp_month, facts.exp_year, facts.last4) == (
        method.exp_month,
        method.exp_year,
        method.last4,
    ):
        return
    method.exp_month, method.exp_year, method.last4 = facts.exp_month, facts.exp_year, facts.last4
    method.updated_at = work.clock.now_for(account)
    await clear_notice(work, account, "CARD_EXPIRING", str(method.id))
    work.audit(
        account,
        "payment_method.updated",
        f"payment_method:{method.id}",
        after={"expMonth": facts.exp_month, "expYear": facts.exp_year, "last4": facts.last4},
    )
    work.emit(account, "payment_method.updated", {"paymentMethodId": str(method.id)})


# --- as a caller asks ------------------------------------------------------------------------------------------------


async def open_setup(till: Till, principal: Principal, request: Request, account_id: UUID) -> Setup | None:
    """Let a cardholder enter a card at the processor. None in a repetition: the secret was shown, and is not kept."""
    async with till.work() as work:
        account = await lock_account(work, account_id)
        await require_action(work, principal, account, Action.CREATE_PAYMENT_SETUP)
    customer = await find_customer(till.processor, account)
    async with till.work() as work:
        outcome = await _know_customer(work, request, account_id, customer)
    return None if outcome.replayed else await till.processor.open_setup(customer)


@idempotent("createPaymentSetup")
async def _know_customer(work: Work, account_id: UUID, customer: str) -> dict[str, Any]:
    account = await lock_account(work, account_id)
    account.processor_customer = customer
    # Who got a secret by which a card can be entered; not the secret.
    work.audit(account, "payment_setup.created", f"billing_account:{account.id}")
    return {}


@dataclass(frozen=True)
class Kept:
    """A method that was added, made the default or removed, what was charged at once, and whether it is repeated."""

    method_id: UUID
    transaction_ids: Sequence[UUID]
    replayed: bool


Change = Callable[[Work, BillingAccount, str], Awaitable[PaymentMethod]]
"""Changes an account's methods. What is overdue is tried with a new default as the step that is given."""


async def add(
    till: Till, principal: Principal, request: Request, account_id: UUID, token: str, *, make_default: bool
) -> Kept:
    """Add a method by the processor's token, which binds it to the account first."""
    async with till.work() as work:
        account = await lock_account(work, account_id)
        await require_action(work, principal, account, Action.ADD_PAYMENT_METHOD)
        answered = await recall(work, request, "addPaymentMethod")
        if answered is not None:
            return await _show(till, answered)
        _check_room(await _list_methods(work, account), token)
    customer = await find_customer(till.processor, account)
    try:
        facts = await till.processor.attach_method(customer, token)
    except CardRefused as refused:
        raise PaymentFailed(failure_message(refused.failure), ["input", "token"]) from refused

    async def change(work: Work, account: BillingAccount, step: str) -> PaymentMethod:
        await require_action(work, principal, account, Action.ADD_PAYMENT_METHOD)
        if facts is None:
            raise InvalidInput("The processor knows no such payment method.", ["input", "token"])
        return await add_method(work, account, customer, facts, step, make_default=make_default)

    return await _change_once(till, request, "addPaymentMethod", account_id, change)


async def make_default(till: Till, request: Request, account_id: UUID, method_id: UUID) -> Kept:
    """Have another method charged from now on."""

    async def change(work: Work, account: BillingAccount, step: str) -> PaymentMethod:
        return await set_default(work, account, method_id, step)

    return await _change_once(till, request, "setDefaultPaymentMethod", account_id, change)


async def remove(till: Till, request: Request, account_id: UUID, method_id: UUID) -> Kept:
    """Forget a method here, then at the processor. Should that fail there, it is not charged all the same."""

    async def change(work: Work, account: BillingAccount, step: str) -> PaymentMethod:
        return await remove_method(work, account, method_id, step)

    removed = await _change_once(till, request, "removePaymentMethod", account_id, change)
    if removed.replayed:
        return removed  # it may have come again since
    async with till.database.read() as session:
        method = await session.get_one(PaymentMethod, method_id)
    try:
        await till.processor.detach_method(method.processor_token)
    except ProcessorFailed:
        log.warning("the processor did not forget the payment method %s", method_id)
    return removed


async def _change_once(till: Till, request: Request, mutation: str, account_id: UUID, change: Change) -> Kept:
    """Change an account's methods once for each request; what is overdue is tried with a new default at once."""
    async with till.work() as work:
        account = await lock_account(work, account_id)
        clock_id, now = account.test_clock_id, work.clock.now_for(account)

        async def act() -> dict[str, Any]:
            step = f"method:{new_id()}"
            method = await change(work, account, step)
            is_tried = await work.session.scalar(
                select(DueWork.id).where(DueWork.account_id == account.id, DueWork.subject == step)
            )
            invoice_ids = [] if is_tried is None else await list_payable(work, account)
            return {
                "paymentMethodId": str(method.id),
                "step": step,
                "invoiceIds": [str(invoice_id) for invoice_id in invoice_ids],
            }

        outcome = await once(work, request.key, mutation=mutation, scope=request.scope, given=request.given, act=act)
    if outcome.answer["invoiceIds"] and not outcome.replayed:
        await run_due(till, account_id, clock_id, now)
    return await _show(till, outcome)


async def _show(till: Till, outcome: Outcome) -> Kept:
    """What became of a method, with the charges that it was tried with as they are by now."""
    answer = outcome.answer
    attempts = await list_charges(till, [UUID(invoice_id) for invoice_id in answer["invoiceIds"]], answer["step"])
    return Kept(UUID(answer["paymentMethodId"]), [attempt.id for attempt in attempts], replayed=outcome.replayed)
