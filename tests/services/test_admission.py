"""Admissions: the last proof of a token is what holds for all who follow under it."""

from dataclasses import dataclass, field
from typing import cast

from plafond.adapters.bus import InProcessBus
from plafond.services.access import Principal, PrincipalKind
from plafond.services.admission import Admissions
from plafond.services.errors import RequestRefused
from plafond.services.tokens import Proof

from ..conftest import World
from ..faults.runner import until

ANNA = Principal(kind=PrincipalKind.MEMBER, id="anna", display_name="Anna")


@dataclass(eq=False)
class Reader:
    """Keeps what it is told."""

    told: list[Principal | RequestRefused] = field(default_factory=list[Principal | RequestRefused])

    def judge(self, verdict: Principal | RequestRefused) -> None:
        self.told.append(verdict)


async def test_who_joins_a_token_later_is_ended_with_it_too(world: World) -> None:
    """Somebody was under way when it expired, and keeps it in use; its timer has gone off already."""
    admissions = Admissions(world.database, world.settings, InProcessBus())
    early, late = Reader(), Reader()
    admissions.admit("token", Proof(ANNA, lasts_s=0.0, sub="anna"), early)

    async def ended(reader: Reader) -> bool:
        return any(isinstance(verdict, RequestRefused) for verdict in reader.told)

    await until(lambda: ended(early))
    admissions.admit("token", Proof(ANNA, lasts_s=0.01, sub="anna"), late)
    await until(lambda: ended(late))
    assert str(cast("RequestRefused", late.told[-1])) == str(cast("RequestRefused", early.told[0]))
