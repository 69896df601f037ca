"""The mutations that end what is kept, or have it kept longer."""

from typing import Annotated, Any
from uuid import UUID

import strawberry

from ..database import Work
from ..schema.billing import BillingAccount
from ..schema.retention import (
    CloseBillingAccountInput,
    CloseBillingAccountPayload,
    ErasedTraces,
    ErasePersonInput,
    ErasePersonPayload,
    KeptTraces,
    SetLegalHoldInput,
    SetLegalHoldPayload,
)
from ..services import closures, holds
from ..services.access import Right
from ..services.erasing import Erasure, Named, erase_person
from ..services.errors import InvalidInput
from ..services.idempotency import Request, idempotent
from ..services.inputs import check_text
from .access import find_account_id, mutation, require_operator
from .context import Info
from .showing import show_account

KEPT_BECAUSE = (
    "Tax law has invoices, credit notes and their books kept as they were issued, until `retentionYears` after the end "
    "of the year of issue: then they are purged."
)


@strawberry.type
class RetentionMutation:
    """What of Mutation closes accounts, holds what they have, and erases people."""

    @mutation(Right.ADMINISTER)
    async def close_billing_account(
        self,
        info: Info,
        input: Annotated[CloseBillingAccountInput, strawberry.argument(description="Which one.")],
    ) -> CloseBillingAccountPayload:
        """Close an account for good: its plan ends now, without credit, and a final invoice follows.

        What is open can be paid, and what is there read and exported, for 90 days; then all but invoices is deleted.
        """
        account_id = find_account_id(info, input.account_id, Right.ADMINISTER)
        reason = check_text(input.reason or "", ["input", "reason"], at_least=0, at_most=holds.MAX_REASON)
        request = Request(input.idempotency_key, scope="", given=[input.confirm, reason])
        till, principal = info.context.till(), info.context.principal
        placed = await closures.close_account(till, principal, request, account_id, input.confirm, reason)
        info.context.note_replay(replayed=placed.replayed)
        return CloseBillingAccountPayload(account=await show_account(info, account_id))

    @mutation(Right.OPERATE)
    async def set_legal_hold(
        self,
        info: Info,
        input: Annotated[SetLegalHoldInput, strawberry.argument(description="The reason, or none.")],
    ) -> SetLegalHoldPayload:
        """Keep all of an account, whatever its time, or no longer. For operators.

        While it stands nothing of it is purged, its data is not deleted, and no person is erased from it. When it is
        lifted, what was due meanwhile goes.
        """
        account_id = find_account_id(info, input.account_id, Right.OPERATE)
        if input.reason is strawberry.UNSET:
            raise InvalidInput("Give the `reason`, or null to lift the hold.", ["input", "reason"])
        request = Request(input.idempotency_key, scope=str(account_id), given=input.reason)
        outcome = await info.context.run(_set_legal_hold, request, account_id, input.reason)
        info.context.note_replay(replayed=outcome.replayed)
        return SetLegalHoldPayload(account=await show_account(info, account_id))

    @mutation(Right.OPERATE)
    async def erase_person(
        self,
        info: Info,
        input: Annotated[ErasePersonInput, strawberry.argument(description="Whom.")],
    ) -> ErasePersonPayload:
        """Erase a person over all accounts: contacts, members, invitations, mails, and wherever their address stands.

        For operators. Documents stay as they were issued. Who is a member elsewhere under the same sign-in or address
        is the same person. What usage events say in their own properties is not looked through.
        """
        require_operator(info)
        named = input.to_named()
        request = Request(input.idempotency_key, scope="", given=named)
        outcome = await info.context.run(_erase_person, request, named)
        info.context.note_replay(replayed=outcome.replayed)
        erasure = Erasure.of(outcome.answer)
        accounts = [await info.context.load.account(account_id) for account_id in erasure.ownerless]
        return ErasePersonPayload(
            erased=[ErasedTraces(kind=kind, count=count) for kind, count in sorted(erasure.erased.items())],
            kept=[
                KeptTraces(kind=kind, count=count, reason=KEPT_BECAUSE) for kind, count in sorted(erasure.kept.items())
            ],
            accounts_without_owner=[BillingAccount.of(account) for account in accounts if account is not None],
        )


@idempotent("setLegalHold")
async def _set_legal_hold(work: Work, account_id: UUID, reason: str | None) -> dict[str, Any]:
    return {"accountId": str((await holds.set_legal_hold(work, account_id, reason)).id)}


@idempotent("erasePerson")
async def _erase_person(work: Work, named: Named) -> dict[str, Any]:
    return (await erase_person(work, named)).stored()
