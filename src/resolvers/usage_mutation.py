"""The mutations that send usage."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import strawberry

from ..database import Work
from ..faults import reach
from ..schema.usage import RecordUsageInput, RecordUsagePayload
from ..services.access import Principal, Right
from ..services.idempotency import Request, idempotent
from ..services.metering import record_usage
from ..services.usage import EventResult, EventStatus, RejectionCode, UsageInput
from .access import mutation
from .context import Info


@strawberry.type
class UsageMutation:
    """What of Mutation sends usage."""

    @mutation(Right.INGEST_USAGE)
    async def record_usage(
        self,
        info: Info,
        input: Annotated[RecordUsageInput, strawberry.argument(description="The batch.")],
    ) -> RecordUsagePayload:
        """Send usage events. Each is counted once, has a result of its own, and one bad event never loses the batch."""
        batch = info.context.batch
        events = [event.to_input() for event in input.events] if batch is None else batch
        key = None if input.dry_run else input.idempotency_key  # a dry run does nothing that could be repeated
        principal = info.context.principal
        if key is None:
            results = await info.context.run(record_usage, principal, events, dry_run=input.dry_run)
        else:
            results = await _record_once(info, key, events)
        reach("usage.after_commit")
        return RecordUsagePayload.of(results)


async def _record_once(info: Info, key: str, events: Sequence[UsageInput]) -> list[EventResult]:
    request = Request(key, scope="", given=[asdict(event) for event in events])
    outcome = await info.context.run(_record, request, info.context.principal, events)
    info.context.note_replay(replayed=outcome.replayed)
    return [_result(stored, event.event_id) for stored, event in zip(outcome.answer["results"], events, strict=True)]


@idempotent("recordUsage")
async def _record(work: Work, principal: Principal, events: Sequence[UsageInput]) -> dict[str, Any]:
    results = await record_usage(work, principal, events)
    return {"results": [_stored(result) for result in results]}


def _stored(result: EventResult) -> dict[str, Any]:
    # The event's id is in the input, which is the same for a replay; a rejected one may hold what JSONB does not.
    return {key: value for key, value in asdict(result).items() if key != "event_id"}


def _result(stored: dict[str, Any], event_id: str) -> EventResult:
    code = stored["code"]
    return EventResult(
        **{
            **stored,
            "event_id": event_id,
            "status": EventStatus(stored["status"]),
            "code": None if code is None else RejectionCode(code),
        }
    )
