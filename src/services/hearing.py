"""Messages of the payment processor: each is heard once, by its id, in the transaction of what it leads to."""

from dataclasses import dataclass

from ..database import Work
from ..models import ProcessorEvent
from .ports import Message

NOT_OURS = "NOT_OURS"
"""The outcome of a message about what somebody else did at the same processor."""
UNKNOWN = "UNKNOWN_OBJECT"
"""The outcome of a message about something that bears our mark, and that we do not know."""


@dataclass(frozen=True)
class Heard:
    """A message that is about to be acted on, and what is said of it afterwards."""

    message: Message
    outcome: str = "HEARD"


async def note_heard(work: Work, heard: Heard) -> bool:
    """Note a message. False where it was noted before: then nothing follows from it.

    The caller holds the lock of the account that it is about, if it is about one.
    """
    message = heard.message
    if await work.session.get(ProcessorEvent, message.id) is not None:
        return False
    await work.insert_or_ignore(
        ProcessorEvent,
        [
            {
                "id": message.id,
                "kind": message.kind,
                "subject": message.subject,
                "heard_at": work.clock.now(),
                "outcome": heard.outcome,
            }
        ],
    )
    return True
