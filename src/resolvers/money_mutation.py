"""The mutations that move money, as far as operators and cardholders start them."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.billing import CreditNote, PaymentMethod, Transaction
from ..schema.payments import (
    AddPaymentMethodInput,
    AddPaymentMethodPayload,
    ConfirmPaymentInput,
    ConfirmPaymentPayload,
    CreatePaymentSetupInput,
    CreatePaymentSetupPayload,
    GrantCreditInput,
    GrantCreditPayload,
    IssueCreditNoteInput,
    IssueCreditNotePayload,
    PaymentSetup,
    RecordPaymentInput,
    RecordPaymentPayload,
    RemovePaymentMethodInput,
    RemovePaymentMethodPayload,
    RetryPaymentInput,
    RetryPaymentPayload,
    SetDefaultPaymentMethodInput,
    SetDefaultPaymentMethodPayload,
    VoidInvoiceInput,
    VoidInvoicePayload,
)
from ..services import crediting, methods, orders, receiving, retries
from ..services.access import Right
from ..services.accounts import lock_account
from ..services.errors import NotFound
from ..services.idempotency import Outcome, Request, idempotent
from .access import find_account_id, find_id, mutation, require_right
from .context import Info
from .showing import show_account, show_invoice, show_placed, show_subscription, show_transaction


@strawberry.type
class MoneyMutation:
    """What of Mutation moves money."""

    @mutation(Right.MANAGE_BILLING)
    async def create_payment_setup(
        self,
        info: Info,
        input: Annotated[CreatePaymentSetupInput, strawberry.argument(description="For which account.")],
    ) -> CreatePaymentSetupPayload:
        """Let a cardholder enter a card at the processor: its script gives the token that `addPaymentMethod` takes."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope=str(account_id), given=None)
        setup = await methods.open_setup(info.context.till(), info.context.principal, request, account_id)
        if setup is None:
            info.context.note_replay(replayed=True)
            return CreatePaymentSetupPayload()
        return CreatePaymentSetupPayload(
            payment_setup=PaymentSetup(client_secret=setup.client_secret, publishable_key=setup.publishable_key)
        )

    @mutation(Right.MANAGE_BILLING)
    async def add_payment_method(
        self,
        info: Info,
        input: Annotated[AddPaymentMethodInput, strawberry.argument(description="The token, and for which account.")],
    ) -> AddPaymentMethodPayload:
        """Add a payment method by the processor's token. The first one is the one that is charged."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        methods.check_token(input.token)
        request = Request(input.idempotency_key, scope=str(account_id), given=[input.token, input.make_default])
        added = await methods.add(
            info.context.till(),
            info.context.principal,
            request,
            account_id,
            input.token,
            make_default=input.make_default,
        )
        info.context.note_replay(replayed=added.replayed)
        account = await show_account(info, account_id)
        return AddPaymentMethodPayload(
            account=account,
            payment_method=await _show_method(info, added.method_id),
            transactions=await _show_charges(info, added.transaction_ids),
        )

    @mutation(Right.MANAGE_BILLING)
    async def set_default_payment_method(
        self,
        info: Info,
        input: Annotated[SetDefaultPaymentMethodInput, strawberry.argument(description="What to charge from now on.")],
    ) -> SetDefaultPaymentMethodPayload:
        """Have another method charged from now on. What is overdue is tried with it at once."""
        method = await _find_method(info, input.payment_method_id)
        request = Request(input.idempotency_key, scope=str(method.account_id), given=input.payment_method_id)
        made = await methods.make_default(info.context.till(), request, method.account_id, method.id)
        info.context.note_replay(replayed=made.replayed)
        account = await show_account(info, method.account_id)
        return SetDefaultPaymentMethodPayload(
            account=account,
            payment_method=await _show_method(info, method.id),
            transactions=await _show_charges(info, made.transaction_ids),
        )

    @mutation(Right.MANAGE_BILLING)
    async def remove_payment_method(
        self,
        info: Info,
        input: Annotated[RemovePaymentMethodInput, strawberry.argument(description="What to charge no more.")],
    ) -> RemovePaymentMethodPayload:
        """Forget a payment method: it is never charged again. The last one stays while something is due.

        Of several the newest takes its place, and what is overdue is charged with that at once.
        """
        method = await _find_method(info, input.payment_method_id)
        request = Request(input.idempotency_key, scope=str(method.account_id), given=input.payment_method_id)
        removed = await methods.remove(info.context.till(), request, method.account_id, method.id)
        info.context.note_replay(replayed=removed.replayed)
        account = await show_account(info, method.account_id)
        return RemovePaymentMethodPayload(
            account=account, transactions=await _show_charges(info, removed.transaction_ids)
        )

    @mutation(Right.MANAGE_BILLING)
    async def retry_payment(
        self,
        info: Info,
        input: Annotated[RetryPaymentInput, strawberry.argument(description="Whose invoices.")],
    ) -> RetryPaymentPayload:
        """Charge all open invoices now, the oldest first. It moves no day of dunning; all paid, all is restored.

        A charge that waits for the cardholder is given up for it: where that shall not be, `confirmPayment`.
        """
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope="", given=None)
        tried = await retries.retry_payment(info.context.till(), info.context.principal, request, account_id)
        info.context.note_replay(replayed=tried.replayed)
        account = await show_account(info, account_id)
        return RetryPaymentPayload(
            account=account,
            subscription=await show_subscription(info, account_id),
            transactions=await _show_charges(info, tried.transaction_ids),
        )

    @mutation(Right.MANAGE_BILLING)
    async def confirm_payment(
        self,
        info: Info,
        input: Annotated[ConfirmPaymentInput, strawberry.argument(description="What the cardholder confirmed.")],
    ) -> ConfirmPaymentPayload:
        """Look what became of a charge that the cardholder had to confirm, and make true what it pays."""
        request = Request(input.idempotency_key, scope="", given=input.transaction_id)
        placed = await orders.confirm_payment(
            info.context.till(), info.context.principal, request, find_id(input.transaction_id, "Transaction")
        )
        info.context.note_replay(replayed=placed.replayed)
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
        outcome = await info.context.run(
            _grant_credit, request, account_id, input.amount_minor, input.currency, input.reason
        )
        info.context.note_replay(replayed=outcome.replayed)
        account = await show_account(info, account_id)
        return GrantCreditPayload(
            account=account, transaction=await show_transaction(info, UUID(outcome.answer["transactionId"]))
        )

    @mutation(Right.OPERATE)
    async def record_payment(
        self,
        info: Info,
        input: Annotated[RecordPaymentInput, strawberry.argument(description="What came, and for which invoice.")],
    ) -> RecordPaymentPayload:
        """Book a transfer that came for an invoice. What exceeds what is due is owed back. For operators."""
        invoice = await _find_invoice(info, input.invoice_id)
        given = [input.invoice_id, input.amount_minor, input.currency, input.reference]
        request = Request(input.idempotency_key, scope=str(invoice.account_id), given=given)
        outcome = await info.context.run(
            receiving.book_transfer,
            request,
            invoice.account_id,
            invoice.id,
            input.amount_minor,
            input.currency,
            input.reference,
        )
        info.context.note_replay(replayed=outcome.replayed)
        account = await show_account(info, invoice.account_id)
        return RecordPaymentPayload(
            account=account,
            invoice=await show_invoice(info, invoice.id),
            transaction=await show_transaction(info, UUID(outcome.answer["transactionId"])),
        )

    @mutation(Right.OPERATE)
    async def void_invoice(
        self,
        info: Info,
        input: Annotated[VoidInvoiceInput, strawberry.argument(description="What to withdraw, and why.")],
    ) -> VoidInvoicePayload:
        """Withdraw an unpaid invoice: its number stays, and a credit note for the whole goes out. For operators."""
        invoice = await _find_invoice(info, input.invoice_id)
        request = Request(input.idempotency_key, scope=str(invoice.account_id), given=[input.invoice_id, input.reason])
        outcome = await info.context.run(_void_invoice, request, invoice.account_id, invoice.id, input.reason)
        info.context.note_replay(replayed=outcome.replayed)
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
        outcome = await info.context.run(
            _issue_credit_note, request, invoice.account_id, invoice.id, parts, input.reason
        )
        info.context.note_replay(replayed=outcome.replayed)
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


async def _find_method(info: Info, id: str) -> models.PaymentMethod:
    key = find_id(id, "PaymentMethod")
    row = None if key is None else await info.context.load.row(models.PaymentMethod, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        raise NotFound("There is no such payment method for you.", ["input", "paymentMethodId"])
    require_right(info, Right.MANAGE_BILLING, row.account_id)
    return row


async def _show_method(info: Info, method_id: UUID) -> PaymentMethod | None:
    row = await info.context.load.row(models.PaymentMethod, method_id)
    return None if row is None else PaymentMethod.of(row)


async def _show_charges(info: Info, transaction_ids: Sequence[UUID]) -> list[Transaction]:
    shown = [await show_transaction(info, transaction_id) for transaction_id in transaction_ids]
    return [row for row in shown if row is not None]


@idempotent("grantCredit")
async def _grant_credit(work: Work, account_id: UUID, amount_minor: int, currency: str, reason: str) -> dict[str, Any]:
    account = await lock_account(work, account_id)
    transaction = await receiving.grant_credit(work, account, amount_minor, currency, reason)
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
