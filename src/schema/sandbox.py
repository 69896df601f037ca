"""What only the sandbox has: test clocks and scenarios. The inputs and answers."""

from datetime import datetime
from enum import Enum

import strawberry

from .billing import BillingAccount, TestClock
from .enums import SandboxAnswers, SandboxMessages
from .errors import UserError
from .fields import maybe, refusals, said, say_enum


class DisputeOutcome(Enum):
    """How a bank decides a dispute."""

    WON = "WON"
    LOST = "LOST"


say_enum(
    DisputeOutcome,
    {"WON": "The payment stays.", "LOST": "The bank keeps the money."},
)


@strawberry.input(description="A test clock to make. Accounts are hung on it when they are made.")
class CreateTestClockInput:
    """A test clock."""

    name: str = said("For people to read, up to 100 characters.")
    now: datetime | None = maybe("Where it stands at first; the wall clock's time when nothing is said.")


@strawberry.type(description="A test clock that was made, or why not.")
class CreateTestClockPayload:
    """The answer."""

    test_clock: TestClock | None = maybe("The clock.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="How far to move a test clock.")
class AdvanceTestClockInput:
    """An advance."""

    test_clock_id: strawberry.ID = said("Which clock.")
    to: datetime = said("Where it shall stand: forward only, at most two years at a time.")


@strawberry.type(description="A test clock that was moved, or why not.")
class AdvanceTestClockPayload:
    """The answer."""

    test_clock: TestClock | None = maybe("The clock, after all that was due on the way.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="How the sandbox's processor shall behave towards one account, to rehearse failures.")
class SetSandboxProcessorInput:
    """A conduct."""

    account_id: strawberry.ID = said("Towards whom.")
    answers: SandboxAnswers = said("How it answers.")
    messages: SandboxMessages = said("How it sends its messages.")
    close_disputes: DisputeOutcome | None = maybe("How the banks decide the account's open disputes now.")


@strawberry.type(description="How the sandbox's processor behaves from now on, or why not.")
class SetSandboxProcessorPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account; `sandboxProcessor` says how it is treated.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="An account in a named state to make, on a test clock of its own.")
class CreateScenarioInput:
    """A scenario."""

    name: str = said("Which state: the refusal of an unknown name lists them, and so does the guide.")


@strawberry.type(description="An account that was made in a named state, or why not.")
class CreateScenarioPayload:
    """The answer."""

    account: BillingAccount | None = maybe("The account; `testClock` lets its time go on.")
    user_errors: list[UserError] = refusals()
