"""Payment methods at the processor: bound once for each request, refused with the bank's reason, forgotten once."""

import pytest

from plafond.adapters.sandbox_processor import SandboxProcessor
from plafond.database import Database
from plafond.models import FailureCode
from plafond.services import methods
from plafond.services.errors import IdempotencyMismatch, InvalidInput, PaymentFailed
from plafond.services.idempotency import Request
from plafond.services.ports import CardRefused, MethodFacts
from plafond.services.tills import Till

from ..conftest import World
from .engine import VISA, open_account
from .helpers import ACTOR, OPERATOR


class Binding(SandboxProcessor):
    """Notes what it is asked to bind and to forget; some cards their bank refuses."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked: list[str] = []

    async def attach_method(self, customer: str, token: str) -> MethodFacts | None:
        """As the sandbox does, unless the bank is against it."""
        self.asked.append(f"attach {token}")
        if token == "pm_refused":
            raise CardRefused(FailureCode.INSUFFICIENT_FUNDS)
        return await super().attach_method(customer, token)

    async def detach_method(self, token: str) -> None:
        """As the sandbox does."""
        self.asked.append(f"detach {token}")


def request(key: str, given: object = None) -> Request:
    """A request under a key."""
    return Request(key, "", given)


async def test_a_repetition_binds_and_forgets_nothing(world: World) -> None:
    processor = Binding(world.database)
    till = Till(world.database, processor, ACTOR)
    account_id = await open_account(till, "methodical", None, card=None)
    kept = [
        await methods.add(till, OPERATOR, request("add", VISA), account_id, VISA, make_default=True) for _ in range(2)
    ]
    assert [one.replayed for one in kept] == [False, True]
    assert kept[0].method_id == kept[1].method_id
    assert processor.asked == [f"attach {VISA}"]
    with pytest.raises(IdempotencyMismatch):
        await methods.add(till, OPERATOR, request("add", "another"), account_id, "pm_card_amex", make_default=True)
    gone = [await methods.remove(till, request("remove"), account_id, kept[0].method_id) for _ in range(2)]
    assert [one.replayed for one in gone] == [False, True]
    assert processor.asked == [f"attach {VISA}", f"detach {VISA}"]


async def test_a_card_that_its_bank_refuses(world: World) -> None:
    processor = Binding(world.database)
    till = Till(world.database, processor, ACTOR)
    account_id = await open_account(till, "methodical", None, card=None)
    with pytest.raises(PaymentFailed, match="not enough money"):
        await methods.add(till, OPERATOR, request("add"), account_id, "pm_refused", make_default=True)
    with pytest.raises(InvalidInput, match="knows no such"):
        await methods.add(till, OPERATOR, request("add"), account_id, "pm_unknown", make_default=True)


async def test_nothing_is_bound_beyond_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "MAX_METHODS", 1)
    processor = Binding(world.database)
    till = Till(world.database, processor, ACTOR)
    account_id = await open_account(till, "methodical", None)
    with pytest.raises(InvalidInput, match="at most 1"):
        await methods.add(till, OPERATOR, request("add"), account_id, "pm_card_amex", make_default=True)
    assert processor.asked == [f"attach {VISA}"]
    # One that is known already takes no place.
    await methods.add(till, OPERATOR, request("again"), account_id, VISA, make_default=True)
