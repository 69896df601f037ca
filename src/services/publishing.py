"""The outbox's publisher: numbers what has committed, across all accounts."""

from sqlalchemy import select

from ..database import Actor, Database, Work
from ..models import Deployment, OutboxEvent

BATCH = 500


async def number_outbox(work: Work) -> int:
    """Give the next positions to committed rows, per account in order of sequence. Gives how many it numbered.

    The deployment's row is the lock: one publisher at a time. Numbers are given after the commit of what they
    number, so a reader who has passed a position never finds a smaller one later.
    """
    deployment = (await work.session.scalars(select(Deployment).with_for_update())).one()
    events = (
        await work.session.scalars(
            select(OutboxEvent)
            .where(OutboxEvent.position.is_(None))
            .order_by(OutboxEvent.account_id, OutboxEvent.sequence)
            .limit(BATCH)
        )
    ).all()
    for event in events:
        deployment.last_position += 1
        event.position = deployment.last_position
    return len(events)


async def number_waiting(database: Database, actor: Actor) -> int:
    """Number what waits for its position. Gives how much that was; the writers' lock is taken only for something."""
    if not await has_unnumbered(database):
        return 0
    return await database.run(actor, number_outbox)


async def has_unnumbered(database: Database) -> bool:
    """Whether anything waits for its position: asked without the writers' lock."""
    async with database.read() as session:
        waiting = await session.scalar(select(OutboxEvent.id).where(OutboxEvent.position.is_(None)).limit(1))
    return waiting is not None
