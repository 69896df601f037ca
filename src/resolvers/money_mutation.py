"""The mutations that move money, as far as operators and cardholders start them."""

from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.billing import CreditNote, PaymentMethod
from ..schema.plans import (
    AddPaymentMethodInput,
    AddPaymentMethodPayload,
    ConfirmPaymentInput,
    ConfirmPaymentPayload,
    GrantCreditInput,
    GrantCreditPayload,
    IssueCreditNoteInput,
    IssueCreditNotePayload,
    VoidInvoiceInput,
    VoidInvoicePayload,
)
from ..services import crediting, orders, payments
from ..services.access import Principal, Right
from ..services.accounts import lock_account
from ..services.errors import InvalidInput, NotFound
from ..services.idempotency import Outcome, Request, idempotent
from ..services.permissions import Action, require_action
from ..services.ports import MethodFacts
from .access import find_account_id, find_id, mutation, require_right
from .context import Info
from .showing import show_account, show_invoice, show_placed, show_transaction


@strawberry.type
class MoneyMutation:
    """What of Mutation moves money."""

    @mutation(Right.MANAGE_BILLING)
    async def add_payment_method(
        self,
        info: Info,
        input: Annotated[AddPaymentMethodInput, strawberry.argument(description="The method.")],
    ) -> AddPaymentMethodPayload:
        """Add a payment method by the processor's token. The first one is the one that is charged."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        payments.check_token(input.token)
        facts = await info.context.processor.read_method(input.token)
        if facts is None:
            raise InvalidInput("The processor knows no such payment method.", ["input", "token"])
        request = Request(input.idempotency_key, scope=str(account_id), given=[input.token, input.make_default])
        async with info.context.work() as work:
            outcome = await _add_method(
                work, request, info.context.principal, account_id, input.token, facts, input.make_default
            )
        _note_replay(info, outcome)
        account = await show_account(info, account_id)
        row = await info.context.load.row(models.PaymentMethod, UUID(outcome.answer["paymentMethodId"]))
        return AddPaymentMethodPayload(account=account, payment_method=None if row is None else PaymentMethod.of(row))

    @mutation(Right.MANAGE_BILLING)
    async def confirm_payment(
        self,
        info: Info,
        input: Annotated[ConfirmPaymentInput, strawberry.argument(description="The charge.")],
    ) -> ConfirmPaymentPayload:
        """Look what became of a charge that the cardholder had to confirm, and make true what it pays."""
        request = Request(input.idempotency_key, scope="", given=input.transaction_id)
        placed = await orders.confirm_payment(
            info.context.till(), info.context.principal, request, find_id(input.transaction_id, "Transaction")
        )
        if placed.replayed:
            info.context.extensions["idempotency"] = {"replayed": True}
        return ConfirmPaymentPayload(**await show_placed(info, placed))

    @mutation(Right.OPERATE)
    async def grant_credit(
        self,
        info: Info,
        input: Annotated[GrantCreditInput, strawberry.argument(description="How much, and why.")],
    ) -> GrantCreditPayload:
        """Give an account credit, which pays its next invoices. For operators."""
        account_id = find_account_id(info, input.account_id, Right.OPERATE)
        given = [input.amount_minor, input.currency, input.reason]
        request = Request(input.idempotency_key, scope=str(account_id), given=given)
        async with info.context.work() as work:
            outcome = await _grant_credit(work, request, account_id, input.amount_minor, input.currency, input.reason)
        _note_replay(info, outcome)
        account = await show_account(info, account_id)
        return GrantCreditPayload(
            account=account, transaction=await show_transaction(info, UUID(outcome.answer["transactionId"]))
        )

    @mutation(Right.OPERATE)
    async def void_invoice(
        self,
        info: Info,
        input: Annotated[VoidInvoiceInput, strawberry.argument(description="Which invoice.")],
    ) -> VoidInvoicePayload:
        """Withdraw an unpaid invoice: its number stays, and a credit note for the whole goes out. For operators."""
        invoice = await _find_invoice(info, input.invoice_id)
        request = Request(input.idempotency_key, scope=str(invoice.account_id), given=[input.invoice_id, input.reason])
        async with info.context.work() as work:
            outcome = await _void_invoice(work, request, invoice.account_id, invoice.id, input.reason)
        _note_replay(info, outcome)
        account = await show_account(info, invoice.account_id)
        return VoidInvoicePayload(
            account=account,
            invoice=await show_invoice(info, invoice.id),
            credit_note=await _show_note(info, outcome),
        )

    @mutation(Right.OPERATE)
    async def issue_credit_note(
        self,
        info: Info,
        input: Annotated[IssueCreditNoteInput, strawberry.argument(description="What to take back.")],
    ) -> IssueCreditNotePayload:
        """Take back a part of an issued invoice by a credit note. For operators."""
        invoice = await _find_invoice(info, input.invoice_id)
        parts = [(find_id(line.line_id, "InvoiceLine"), int(line.amount_minor)) for line in input.lines]
        given = [input.invoice_id, [[line.line_id, line.amount_minor] for line in input.lines], input.reason]
        request = Request(input.idempotency_key, scope=str(invoice.account_id), given=given)
        async with info.context.work() as work:
            outcome = await _issue_credit_note(work, request, invoice.account_id, invoice.id, parts, input.reason)
        _note_replay(info, outcome)
        account = await show_account(info, invoice.account_id)
        return IssueCreditNotePayload(
            account=account,
            invoice=await show_invoice(info, invoice.id),
            credit_note=await _show_note(info, outcome),
        )


async def _find_invoice(info: Info, id: str) -> models.Invoice:
    key = find_id(id, "Invoice")
    row = None if key is None else await info.context.load.row(models.Invoice, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        raise NotFound("There is no such invoice for you.", ["input", "invoiceId"])
    require_right(info, Right.OPERATE, row.account_id)
    return row


async def _show_note(info: Info, outcome: Outcome) -> CreditNote | None:
    row = await info.context.load.row(models.CreditNote, UUID(outcome.answer["creditNoteId"]))
    return None if row is None else CreditNote.of(row)


def _note_replay(info: Info, outcome: Outcome) -> None:
    if outcome.replayed:
        info.context.extensions["idempotency"] = {"replayed": True}


@idempotent("addPaymentMethod")
async def _add_method(
    work: Work, principal: Principal, account_id: UUID, token: str, facts: MethodFacts, make_default: bool
) -> dict[str, Any]:
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.ADD_PAYMENT_METHOD)
    method = await payments.add_method(work, account, token, facts, make_default=make_default)
    return {"paymentMethodId": str(method.id)}


@idempotent("grantCredit")
async def _grant_credit(work: Work, account_id: UUID, amount_minor: int, currency: str, reason: str) -> dict[str, Any]:
    account = await lock_account(work, account_id)
    transaction = await payments.grant_credit(work, account, amount_minor, currency, reason)
    return {"transactionId": str(transaction.id)}


@idempotent("voidInvoice")
async def _void_invoice(work: Work, account_id: UUID, invoice_id: UUID, reason: str) -> dict[str, Any]:
    note = await crediting.void(work, account_id, invoice_id, reason)
    return {"creditNoteId": str(note.id)}


@idempotent("issueCreditNote")
async def _issue_credit_note(
    work: Work, account_id: UUID, invoice_id: UUID, parts: list[tuple[UUID | None, int]], reason: str
) -> dict[str, Any]:
    note = await crediting.credit(work, account_id, invoice_id, parts, reason)
    return {"creditNoteId": str(note.id)}
