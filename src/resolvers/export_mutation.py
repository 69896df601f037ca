"""The mutation that asks for a file."""

from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.exports import Export, RequestExportInput, RequestExportPayload
from ..services.access import Principal, Right
from ..services.accounts import lock_account
from ..services.exports import request_export
from ..services.idempotency import Request, idempotent
from ..services.permissions import Action, require_action
from .access import find_account_id, mutation, require_operator
from .context import Info


@strawberry.type
class ExportMutation:
    """What of Mutation asks for files."""

    @mutation(Right.MANAGE_BILLING)
    async def request_export(
        self,
        info: Info,
        input: Annotated[RequestExportInput, strawberry.argument(description="What, how, and for which time.")],
    ) -> RequestExportPayload:
        """Have a file written. `exportChanged` tells how far it is, and when it is ready."""
        if input.account_id is None:
            require_operator(info)
            account_id = None
        else:
            account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        given = [input.kind, input.format, input.from_, input.to, input.granularity]
        request = Request(input.idempotency_key, scope="" if account_id is None else str(account_id), given=given)
        outcome = await info.context.run(_request_export, request, info.context.principal, account_id, input)
        info.context.note_replay(replayed=outcome.replayed)
        row = await info.context.load.row(models.Export, UUID(outcome.answer["exportId"]))
        return RequestExportPayload(export=None if row is None else Export.of(row))


@idempotent("requestExport")
async def _request_export(
    work: Work, principal: Principal, account_id: UUID | None, input: RequestExportInput
) -> dict[str, Any]:
    account = None
    if account_id is not None:
        account = await lock_account(work, account_id)
        await require_action(work, principal, account, Action.REQUEST_EXPORT)
    export = await request_export(
        work,
        account,
        kind=input.kind,
        format_=input.format,
        start=input.from_,
        end=input.to,
        granularity=input.granularity,
    )
    return {"exportId": str(export.id)}
