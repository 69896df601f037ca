"""The mutations that hold usage, and that say what may pass a limit."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..faults import reach
from ..schema.billing import BillingAccount, Reservation, usage_of
from ..schema.node import NOBODY, key_of
from ..schema.reservations import (
    ApproveOverageInput,
    CommitReservationInput,
    OveragePayload,
    ReleaseReservationInput,
    ReservationPayload,
    ReserveUsageInput,
    SetOveragePolicyInput,
)
from ..services import reservations
from ..services.access import Principal, Right
from ..services.errors import NotFound
from ..services.idempotency import Request, idempotent
from ..services.metering import ask_for_approval, tell_of_block
from ..services.overage import approve_overage, set_overage_policy
from ..services.reservations import ReservationInput
from .access import find_account_id, find_id, mutation
from .context import Info


@strawberry.type
class ReservationMutation:
    """What of Mutation holds usage, and lets it pass a limit."""

    @mutation(Right.INGEST_USAGE)
    async def reserve_usage(
        self,
        info: Info,
        input: Annotated[ReserveUsageInput, strawberry.argument(description="What is reserved.")],
    ) -> ReservationPayload:
        """Hold usage for a while, before doing what uses it. Used and held together never pass a limit that holds."""
        asked = ReservationInput(
            metric=input.metric,
            quantity=input.quantity,
            account_id=None if input.account_id is None else key_of(input.account_id, "BillingAccount") or NOBODY,
            external_id=input.external_id,
            seconds=input.seconds,
            properties=input.given_properties(),
        )
        request = Request(input.idempotency_key, scope="", given=asdict(asked))
        try:
            outcome = await info.context.run(_reserve, request, info.context.principal, asked)
        except reservations.ApprovalMissing as missing:
            # In a transaction of its own: that of the refusal has rolled back.
            await info.context.run(ask_for_approval, missing.asking)
            raise
        except reservations.BudgetSpent as spent:
            await info.context.run(tell_of_block, spent.blocking)
            raise
        info.context.note_replay(replayed=outcome.replayed)
        return await _show(info, UUID(outcome.answer["reservationId"]))

    @mutation(Right.INGEST_USAGE)
    async def commit_reservation(
        self,
        info: Info,
        input: Annotated[CommitReservationInput, strawberry.argument(description="What was really used.")],
    ) -> ReservationPayload:
        """Make what is held usage, all or a part, as of the instant of reserving. Twice is once."""
        row = await info.context.run(
            reservations.commit_reservation, info.context.principal, _key(input.reservation_id), input.quantity
        )
        return await _show(info, row.id)

    @mutation(Right.INGEST_USAGE)
    async def release_reservation(
        self,
        info: Info,
        input: Annotated[ReleaseReservationInput, strawberry.argument(description="Which one.")],
    ) -> ReservationPayload:
        """Give back what is held: it was not used after all. Twice is once."""
        row = await info.context.run(
            reservations.release_reservation, info.context.principal, _key(input.reservation_id)
        )
        return await _show(info, row.id)

    @mutation(Right.MANAGE_BILLING)
    async def set_overage_policy(
        self,
        info: Info,
        input: Annotated[SetOveragePolicyInput, strawberry.argument(description="The policy.")],
    ) -> OveragePayload:
        """Say what happens with usage above a metric's limit. It holds at once; what was taken before stays."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        row = await info.context.run(set_overage_policy, info.context.principal, account_id, input.metric, input.policy)
        return OveragePayload(account=BillingAccount.of(row))

    @mutation(Right.MANAGE_BILLING)
    async def approve_overage(
        self,
        info: Info,
        input: Annotated[ApproveOverageInput, strawberry.argument(description="What is approved.")],
    ) -> OveragePayload:
        """Let usage pass a limit in the running usage period, where the policy is ASK. What passes is charged."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        row = await info.context.run(approve_overage, info.context.principal, account_id, input.metric, input.blocks)
        return OveragePayload(account=BillingAccount.of(row))


@idempotent("reserveUsage")
async def _reserve(work: Work, principal: Principal, asked: ReservationInput) -> dict[str, Any]:
    made = await reservations.reserve_usage(work, principal, asked)
    return {"reservationId": str(made.id)}


def _key(reservation_id: str) -> UUID:
    found = find_id(reservation_id, "Reservation")
    if found is None:
        raise NotFound(reservations.UNKNOWN, reservations.FIELD)
    return found


async def _show(info: Info, reservation_id: UUID) -> ReservationPayload:
    reach("reservation.after_commit")
    row = await info.context.load.row(models.Reservation, reservation_id)
    assert row is not None, "it was just written"
    account = await info.context.load.account(row.account_id)
    assert account is not None, "it has one"
    figures = await info.context.load.figures(row.account_id)
    return ReservationPayload(
        reservation=Reservation.of(row, info.context.now_for(account)), usage=usage_of(figures, row.metric_key)
    )
