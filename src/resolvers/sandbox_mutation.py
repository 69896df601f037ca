"""The mutations that only the sandbox has."""

from typing import Annotated, Any

import strawberry

from ..adapters.sandbox_processor import close_disputes, set_conduct
from ..sandbox.scenarios import create_scenario
from ..schema.billing import TestClock
from ..schema.sandbox import (
    AdvanceTestClockInput,
    AdvanceTestClockPayload,
    CreateScenarioInput,
    CreateScenarioPayload,
    CreateTestClockInput,
    CreateTestClockPayload,
    DisputeOutcome,
    SetSandboxProcessorInput,
    SetSandboxProcessorPayload,
)
from ..services.access import Right
from ..services.accounts import lock_account
from ..services.errors import Conflict
from ..services.methods import find_customer
from ..services.test_clocks import advance_clock, create_clock
from .access import find_account_id, find_id, mutation, require_operator
from .context import Info
from .showing import show_account


@strawberry.type
class SandboxMutation:
    """What of Mutation only the sandbox has."""

    @mutation(Right.OPERATE)
    async def create_test_clock(
        self,
        info: Info,
        input: Annotated[CreateTestClockInput, strawberry.argument(description="The clock.")],
    ) -> CreateTestClockPayload:
        """Make a clock of its own for accounts of the sandbox: a year of their lives passes in seconds."""
        require_operator(info)
        async with info.context.work() as work:
            clock = await create_clock(work, input.name, input.now or work.clock.now())
        return CreateTestClockPayload(test_clock=TestClock.of(clock))

    @mutation(Right.OPERATE)
    async def advance_test_clock(
        self,
        info: Info,
        input: Annotated[AdvanceTestClockInput, strawberry.argument(description="How far.")],
    ) -> AdvanceTestClockPayload:
        """Let time pass for the accounts on a clock: everything due on the way happens, in order, before the answer."""
        require_operator(info)
        clock = await advance_clock(info.context.till(), find_id(input.test_clock_id, "TestClock"), input.to)
        info.context.forget()
        return AdvanceTestClockPayload(test_clock=TestClock.of(clock))

    @mutation(Right.OPERATE)
    async def create_scenario(
        self,
        info: Info,
        input: Annotated[CreateScenarioInput, strawberry.argument(description="Which state.")],
    ) -> CreateScenarioPayload:
        """Make an account in a named state, such as a trial that ends tomorrow, to build a frontend against."""
        require_operator(info)
        till = info.context.till()
        account = await create_scenario(till, info.context.principal, input.name, info.context.database.clock.now())
        return CreateScenarioPayload(account=await show_account(info, account.id))

    @mutation(Right.OPERATE)
    async def set_sandbox_processor(
        self,
        info: Info,
        input: Annotated[SetSandboxProcessorInput, strawberry.argument(description="Towards whom, and how.")],
    ) -> SetSandboxProcessorPayload:
        """Have the embedded processor hang, lose answers or send its messages twice, towards one account."""
        account_id = find_account_id(info, input.account_id, Right.OPERATE)
        if info.context.settings.stripe_key is not None:
            raise Conflict("Payments of this sandbox go to Stripe: the embedded processor is not used.", ["input"])
        async with info.context.work() as work:
            account = await lock_account(work, account_id)
            account.processor_customer = await find_customer(info.context.processor, account)
            await set_conduct(work, account.processor_customer, input.answers, input.messages)
            if input.close_disputes is not None:
                won = input.close_disputes is DisputeOutcome.WON
                await close_disputes(work, account.processor_customer, won=won)
            closed = None if input.close_disputes is None else input.close_disputes.value
            told: dict[str, Any] = {"answers": input.answers, "messages": input.messages, "closeDisputes": closed}
            work.audit(account, "sandbox_processor.set", f"billing_account:{account.id}", after=told)
        return SetSandboxProcessorPayload(account=await show_account(info, account_id))
