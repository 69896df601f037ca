"""F17: two servers are asked for the same thing under the same key at the same moment: it happens once."""

from pathlib import Path

from sqlalchemy import func, select

from plafond.models import IdempotencyKey, RefundRequest

from .fire import Battlefield, Front, Kind, fight, wish_of


async def test_two_servers_are_asked_under_one_key(battlefield: Battlefield, tmp_path: Path) -> None:
    """Two clients at each of two servers, each with every wish: one effect, and an answer for all in the end."""
    async with fight(battlefield, tmp_path) as fought:
        await fought.serve()
        _, port = await fought.processes.start_server()
        other = Front(fought.front.http, fought.front.token, port)
        other.up.set()
        fought.begin(times=2)
        fought.begin(times=2, front=other)
        await fought.finish()
        async with fought.database.read() as session:
            requests = await session.scalar(select(func.count()).select_from(RefundRequest))
            keys = (await session.scalars(select(IdempotencyKey).where(IdempotencyKey.key.startswith("wish-")))).all()
        refunds = fought.field.of(Kind.UNHAPPY, Kind.PATIENT)
        assert requests == len(refunds)
        wishes = [party for party in fought.parties if wish_of(party) is not None]
        confirmed = [row for row in keys if row.mutation == "confirmPayment"]
        # Each key is remembered once, with an answer; a message may come before the confirmation.
        assert len(keys) - len(confirmed) == len(wishes) + len(refunds)
        assert len(confirmed) <= 1
        assert all(row.answer is not None for row in keys)
