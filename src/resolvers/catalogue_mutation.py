"""The mutations that change the catalogue and the tax table."""

from dataclasses import asdict
from typing import Annotated, Any

import strawberry

from ..database import ReadSession, Work
from ..schema.billing import Metric, Plan
from ..schema.catalogue import (
    ArchivePlanInput,
    ArchivePlanPayload,
    PublishPlanInput,
    PublishPlanPayload,
    SetMetricInput,
    SetMetricPayload,
    SetTaxTableInput,
    SetTaxTablePayload,
    TaxTableRow,
)
from ..services import catalogue, catalogue_changes, tax_tables
from ..services.access import Right
from ..services.idempotency import Request, idempotent
from .access import mutation, require_operator
from .context import Info


@strawberry.type
class CatalogueMutation:
    """What of Mutation changes the catalogue."""

    @mutation(Right.OPERATE)
    async def publish_plan(
        self, info: Info, input: Annotated[PublishPlanInput, strawberry.argument(description="The plan.")]
    ) -> PublishPlanPayload:
        """Make a plan, or its next version where something differs. Running subscriptions keep their version."""
        require_operator(info)
        async with info.context.work() as work:
            outcome = await _publish(work, _request(input), input)
            info.context.note_replay(replayed=outcome.replayed)
            offer = await catalogue.find_plan(work.session, input.key)
        return PublishPlanPayload(plan=Plan.of(offer) if offer else None)

    @mutation(Right.OPERATE)
    async def archive_plan(
        self, info: Info, input: Annotated[ArchivePlanInput, strawberry.argument(description="Which plan.")]
    ) -> ArchivePlanPayload:
        """Take a plan off the offer. Who runs on it keeps it; publishing it again brings it back."""
        require_operator(info)
        async with info.context.work() as work:
            outcome = await _archive(work, _request(input), input)
            info.context.note_replay(replayed=outcome.replayed)
            offer = await catalogue.find_plan(work.session, input.key)
        return ArchivePlanPayload(plan=Plan.of(offer) if offer else None)

    @mutation(Right.OPERATE)
    async def set_metric(
        self, info: Info, input: Annotated[SetMetricInput, strawberry.argument(description="The metric.")]
    ) -> SetMetricPayload:
        """Make a metric, or change its words and overage. Plans include 0 of a new one until their next version."""
        require_operator(info)
        async with info.context.work() as work:
            outcome = await _set_metric(work, _request(input), input)
            info.context.note_replay(replayed=outcome.replayed)
            (metric,) = await catalogue.load_metrics(ReadSession(work.session), [input.key])
        return SetMetricPayload(metric=Metric.of(metric) if metric else None)

    @mutation(Right.OPERATE)
    async def set_tax_table(
        self, info: Info, input: Annotated[SetTaxTableInput, strawberry.argument(description="The table.")]
    ) -> SetTaxTablePayload:
        """Replace the tax table. What was issued keeps its taxes; the new table decides from now on."""
        require_operator(info)
        async with info.context.work() as work:
            outcome = await _set_tax_table(work, _request(input), input)
            info.context.note_replay(replayed=outcome.replayed)
            rows = await tax_tables.list_tax_table(ReadSession(work.session))
        return SetTaxTablePayload(tax_table=[TaxTableRow.of(row) for row in rows])


AnyInput = PublishPlanInput | ArchivePlanInput | SetMetricInput | SetTaxTableInput


def _request(input: AnyInput) -> Request:
    given = {name: value for name, value in asdict(input).items() if name != "idempotency_key"}
    return Request(input.idempotency_key, scope="", given=given)


# What is answered is always the catalogue as it is, so a replay need not remember anything.


@idempotent("publishPlan")
async def _publish(work: Work, input: PublishPlanInput) -> dict[str, Any]:
    await catalogue_changes.publish_plan(work, input.to_given(), input.account_id(), input.place)
    return {}


@idempotent("archivePlan")
async def _archive(work: Work, input: ArchivePlanInput) -> dict[str, Any]:
    await catalogue_changes.archive_plan(work, input.key)
    return {}


@idempotent("setMetric")
async def _set_metric(work: Work, input: SetMetricInput) -> dict[str, Any]:
    await catalogue_changes.set_metric(work, input.to_given(), input.place)
    return {}


@idempotent("setTaxTable")
async def _set_tax_table(work: Work, input: SetTaxTableInput) -> dict[str, Any]:
    await tax_tables.set_tax_table(work, [row.to_given() for row in input.rows], input.place)
    return {}
