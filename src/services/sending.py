"""Sending: each endpoint's deliveries in order, one at a time, and endpoints beside each other."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any
from unicodedata import category

from .. import VERSION
from ..database import Actor, Database
from ..faults import reach
from ..models import Role
from .access import Principal, PrincipalKind, Scope
from .deliveries import (
    Lease,
    LeaseLost,
    Outcome,
    Sending,
    Subject,
    claim_endpoints,
    has_due,
    keep_body,
    read_retry_after,
    read_subject,
    take_next,
)
from .events import describe_event, describe_test, is_too_large, subject_of, write_body
from .global_ids import encode_global_id
from .ports import Answer, Hooks, SendingFailed
from .signing import sign_message

AT_ONCE = 64
"""To so many endpoints one process sends at once."""
TURN = 100
"""So many deliveries an endpoint gets before others have their turn."""
MAX_SHOWN = 1_000
"""How much of an answer the log shows."""
HEADERS = {"content-type": "application/json", "user-agent": f"Plafond-Webhooks/{VERSION}"}

log = logging.getLogger("plafond.webhooks")


async def send_round(database: Database, actor: Actor, hooks: Hooks) -> int:
    """Send what is due now, to each endpoint as long as its turn is. Gives to how many endpoints that was."""
    leases = await claim_due(database, actor, AT_ONCE)
    await asyncio.gather(*(send_to(database, actor, hooks, lease) for lease in leases))
    return len(leases)


async def claim_due(database: Database, actor: Actor, limit: int) -> Sequence[Lease]:
    """Take endpoints that something waits for, as many as may be sent to."""
    if limit <= 0 or not await has_due(database):
        return ()
    return await database.run(actor, claim_endpoints, limit)


async def send_to(database: Database, actor: Actor, hooks: Hooks, lease: Lease) -> int:
    """Send an endpoint what waits for it, one after the other. Gives how many tries were made.

    It ends when nothing waits, when one fails, after a turn, and when somebody else took over.
    """
    outcome: Outcome | None = None
    for count in range(TURN + 1):
        try:
            sending = await database.run(actor, take_next, lease, outcome, may_go_on=count < TURN)
            if sending is None:
                return count
            outcome = await _try_to_send(database, actor, hooks, lease, sending)
        except LeaseLost:
            log.warning("the webhook endpoint %s was taken over by another worker", lease.endpoint_id)
            return count
    raise AssertionError("a turn ends with the lease given back")


async def _try_to_send(database: Database, actor: Actor, hooks: Hooks, lease: Lease, sending: Sending) -> Outcome:
    body = sending.body
    if body is None:
        rendered = await _render(database, hooks, lease, sending)
        async with database.work(actor) as work:
            body = await keep_body(work, lease, sending, rendered)
    at = database.clock.now()
    headers = HEADERS | sign_message(sending.message_id, at, body, lease.secrets)
    reach("webhook.before_send")
    began = time.monotonic()
    try:
        answer = await hooks.courier.post(lease.url, headers, body.encode())
    except SendingFailed as failure:
        return Outcome(sending, _since(began), failure=str(failure))
    reach("webhook.after_send")
    is_taken = 200 <= answer.status_code < 300
    return Outcome(
        sending,
        _since(began),
        status_code=answer.status_code,
        answer=show_answer(answer),
        failure=None if is_taken else _explain(answer.status_code),
        retry_after=None if is_taken else read_retry_after(answer.retry_after, at),
    )


def _since(began: float) -> int:
    return int((time.monotonic() - began) * 1_000)


def _explain(status_code: int) -> str:
    if 300 <= status_code < 400:
        return f"It answered {status_code}: redirects are not followed. Give the endpoint the URL that it leads to."
    return f"It answered {status_code}, and only 2xx is a success."


def show_answer(answer: Answer) -> str:
    """The beginning of an answer as the log shows it: text without control characters."""
    text = answer.beginning[: MAX_SHOWN * 4].decode(errors="replace")
    plain = "".join(sign if sign == "\n" or category(sign)[0] != "C" else " " for sign in text)
    return plain[:MAX_SHOWN].strip()


async def _render(database: Database, hooks: Hooks, lease: Lease, sending: Sending) -> str:
    """The body for an endpoint that asks a query: the event's own with the answer as its data."""
    async with database.read() as session:
        subject = await read_subject(session, lease, sending)
    plain = _describe(subject, sending, database)
    if lease.query is None or subject.account_id is None:
        return write_body(plain)
    account_id = encode_global_id("BillingAccount", subject.account_id)
    variables = {
        "accountId": account_id,
        "eventId": sending.message_id,
        "subjectId": account_id if subject.event is None else subject_of(subject.event),
    }
    answer = await hooks.queries.answer(lease.query, principal_of(lease, subject), variables)
    body = write_body(plain | answer)
    return write_body(plain | {"truncated": True}) if is_too_large(body) else body


def _describe(subject: Subject, sending: Sending, database: Database) -> dict[str, Any]:
    if subject.event is not None:
        return describe_event(subject.event, subject.external_id or "")
    return describe_test(sending.event_id, subject.account_id, subject.external_id, database.clock.now())


def principal_of(lease: Lease, subject: Subject) -> Principal:
    """Who asks an endpoint's query: it reads the account that the event is of, and nothing else."""
    assert subject.account_id is not None, "a query is asked about an account"
    role = Role.OPERATOR if lease.account_id is None else Role.BILLING_ADMIN
    return Principal(
        kind=PrincipalKind.API_KEY,
        id=f"webhook_endpoint:{lease.endpoint_id}",
        display_name="Webhook endpoint",
        roles={subject.account_id: role},
        scopes=frozenset({Scope.BILLING_READ}),
    )
