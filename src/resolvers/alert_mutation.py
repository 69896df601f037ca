"""The mutations about alerts: what is watched, and what was seen."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import strawberry

from .. import models
from ..database import Work
from ..schema.alerts import (
    AcknowledgeAlertsInput,
    AcknowledgeAlertsPayload,
    SetAlertThresholdsInput,
    SetAlertThresholdsPayload,
)
from ..schema.billing import Alert, usage_of
from ..services.access import Principal, Right
from ..services.acknowledgements import acknowledge_alerts
from ..services.alert_thresholds import set_thresholds
from ..services.idempotency import Request, idempotent
from .access import find_account_id, find_id, mutation
from .context import Info
from .showing import show_account


@strawberry.type
class AlertMutation:
    """What of Mutation is about alerts."""

    @mutation(Right.MANAGE_BILLING)
    async def set_alert_thresholds(
        self,
        info: Info,
        input: Annotated[SetAlertThresholdsInput, strawberry.argument(description="Of which metric, and at what.")],
    ) -> SetAlertThresholdsPayload:
        """Set an account's own thresholds of a metric, beside the built-in ones.

        It counts at once: alerts of thresholds that are no more are resolved, and what is reached already is raised,
        ascending.
        """
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope=str(account_id), given=[input.metric, input.percents])
        outcome = await info.context.run(
            _set_thresholds, request, info.context.principal, account_id, input.metric, input.percents
        )
        info.context.note_replay(replayed=outcome.replayed)
        account = await show_account(info, account_id)
        return SetAlertThresholdsPayload(
            account=account, usage=usage_of(await info.context.load.figures(account_id), input.metric)
        )

    @mutation(Right.MANAGE_BILLING)
    async def acknowledge_alerts(
        self,
        info: Info,
        input: Annotated[AcknowledgeAlertsInput, strawberry.argument(description="Which ones.")],
    ) -> AcknowledgeAlertsPayload:
        """Say that alerts were seen. Who said so first, and when, stays with each; it resolves none."""
        account_id = find_account_id(info, input.account_id, Right.MANAGE_BILLING)
        request = Request(input.idempotency_key, scope=str(account_id), given=list(input.ids))
        ids = [find_id(id_, "Alert") for id_ in input.ids]
        outcome = await info.context.run(_acknowledge, request, account_id, ids)
        info.context.note_replay(replayed=outcome.replayed)
        account = await show_account(info, account_id)
        rows = await asyncio.gather(*(info.context.load.row(models.Alert, id_) for id_ in ids if id_ is not None))
        return AcknowledgeAlertsPayload(account=account, alerts=[Alert.of(row) for row in rows if row is not None])


@idempotent("setAlertThresholds")
async def _set_thresholds(
    work: Work, principal: Principal, account_id: UUID, metric_key: str, percents: Sequence[int]
) -> dict[str, Any]:
    await set_thresholds(work, principal, account_id, metric_key, percents)
    return {}


@idempotent("acknowledgeAlerts")
async def _acknowledge(work: Work, account_id: UUID, ids: Sequence[UUID | None]) -> dict[str, Any]:
    await acknowledge_alerts(work, account_id, ids)
    return {}
