"""What the embedded processor has to tell, brought to the same ears that hear a real one."""

from ..adapters import sandbox_processor
from ..services.ports import ProcessorFailed
from ..services.processor_messages import hear
from ..services.tills import Till

BATCH = 20


async def deliver_messages(till: Till) -> int:
    """Deliver some of the messages that wait. Gives how many were heard: 0 means that none waits."""
    heard = 0
    for message in await sandbox_processor.take_messages(till.database, BATCH):
        try:
            await hear(till, message)
        except ProcessorFailed:
            # It does not answer at this moment: like a real one it sends the message again later.
            await sandbox_processor.postpone(till.database, message)
            continue
        await sandbox_processor.acknowledge(till.database, message)
        heard += 1
    return heard
