"""The mutations that give money back."""

from typing import Annotated
from uuid import UUID

import strawberry

from .. import models
from ..schema.billing import CreditNote, RefundRequest, RefundVerdict, read_asked
from ..schema.payments import RequestRefundInput, RequestRefundPayload, ReviewRefundInput, ReviewRefundPayload
from ..services import refunds, repayment
from ..services.access import Right
from ..services.errors import NotFound
from ..services.idempotency import Request
from ..services.refunds import Decision
from .access import find_id, mutation, require_right
from .context import Info
from .showing import show_account, show_transaction


@strawberry.type
class RefundMutation:
    """What of Mutation gives money back."""

    @mutation(Right.MANAGE_BILLING)
    async def request_refund(
        self,
        info: Info,
        input: Annotated[RequestRefundInput, strawberry.argument(description="What, and why.")],
    ) -> RequestRefundPayload:
        """Ask for a payment, or a part of it, back. The rules' verdict comes at once; an operator decides."""
        charge = await _find_charge(info, input.transaction_id)
        asked = read_asked(input.reason, input.amount_minor, input.from_, input.to, input.line_ids)
        given = [
            input.transaction_id,
            input.reason,
            input.amount_minor,
            input.currency,
            input.from_,
            input.to,
            input.line_ids,
            input.note,
        ]
        request = Request(input.idempotency_key, scope=str(charge.account_id), given=given)
        outcome = await info.context.run(
            refunds.ask,
            request,
            info.context.principal,
            charge.account_id,
            charge.id,
            asked,
            input.currency,
            input.note,
        )
        info.context.note_replay(replayed=outcome.replayed)
        account = await show_account(info, charge.account_id)
        shown = await _show_request(info, UUID(outcome.answer["refundRequestId"]))
        return RequestRefundPayload(account=account, refund_request=shown, verdict=_verdict_of(shown))

    @mutation(Right.OPERATE)
    async def review_refund(
        self,
        info: Info,
        input: Annotated[ReviewRefundInput, strawberry.argument(description="Which request, and what shall be done.")],
    ) -> ReviewRefundPayload:
        """Decide on a request: pay it back, give it as credit, or deny it. For operators."""
        row = await _find_request(info, input.refund_request_id)
        given = [input.refund_request_id, input.decision, input.amount_minor, input.currency, input.reason]
        request = Request(input.idempotency_key, scope=str(row.account_id), given=given)
        decision = Decision(input.decision, input.amount_minor, input.currency, input.reason)
        reviewed = await repayment.review(info.context.till(), request, row.account_id, row.id, decision)
        info.context.note_replay(replayed=reviewed.replayed)
        account = await show_account(info, row.account_id)
        shown = await _show_request(info, row.id)
        return ReviewRefundPayload(
            account=account,
            refund_request=shown,
            refund=await show_transaction(info, reviewed.refund_id),
            credit=await show_transaction(info, reviewed.credit_id),
            credit_note=await _show_note(info, shown),
        )


async def _find_charge(info: Info, id: str) -> models.Transaction:
    key = find_id(id, "Transaction")
    row = None if key is None else await info.context.load.row(models.Transaction, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        raise NotFound("There is no such transaction for you.", ["input", "transactionId"])
    require_right(info, Right.MANAGE_BILLING, row.account_id)
    return row


async def _find_request(info: Info, id: str) -> models.RefundRequest:
    key = find_id(id, "RefundRequest")
    row = None if key is None else await info.context.load.row(models.RefundRequest, key)
    if row is None or info.context.principal.role_in(row.account_id) is None:
        raise NotFound("There is no such request for you.", ["input", "refundRequestId"])
    require_right(info, Right.OPERATE, row.account_id)
    return row


async def _show_request(info: Info, request_id: UUID) -> RefundRequest | None:
    row = await info.context.load.row(models.RefundRequest, request_id)
    return None if row is None else RefundRequest.of(row)


def _verdict_of(request: RefundRequest | None) -> RefundVerdict | None:
    return None if request is None else request.verdict


async def _show_note(info: Info, request: RefundRequest | None) -> CreditNote | None:
    note_id = None if request is None else request.row.credit_note_id
    row = None if note_id is None else await info.context.load.row(models.CreditNote, note_id)
    return None if row is None else CreditNote.of(row)
