"""Accounts in named states, for those who build frontends: each lives its past on a test clock of its own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from ..database import ReadSession
from ..models import BillingAccount, Interval, TestClock
from ..models.types import new_id
from ..services import methods
from ..services.access import Principal
from ..services.accounts import create_account
from ..services.catalogue import find_add_on, find_offer, load_metrics
from ..services.companies import update_company
from ..services.decisions import Decide, decide_add_on, decide_change, decide_start
from ..services.endings import cancel_at_period_end, cancel_now, start_trial
from ..services.errors import BillingError, Conflict, InvalidInput
from ..services.idempotency import Request
from ..services.metering import record_usage
from ..services.orders import place
from ..services.test_clocks import advance_clock, create_clock
from ..services.tills import Till
from ..services.usage import EventStatus, UsageInput

MONTH = Interval.MONTH
YEAR = Interval.YEAR
EMAILS = "email_sends"
SEATS = "additional_user"


@dataclass(frozen=True)
class Stage:
    """An account on a test clock, and who acts on it."""

    till: Till
    principal: Principal
    account_id: UUID
    clock_id: UUID

    async def advance(self, days: float) -> None:
        """Let days pass."""
        async with self.till.database.read() as session:
            clock = await session.get_one(TestClock, self.clock_id)
        await advance_clock(self.till, self.clock_id, clock.now + timedelta(days=days))

    async def order(self, mutation: str, decide: Decide) -> None:
        """Place an order."""
        await place(self.till, self.principal, Request(None, "", None), mutation, self.account_id, decide)

    async def start(self, plan_key: str, interval: Interval = MONTH) -> None:
        """Start a plan."""
        await self.order("startSubscription", partial(decide_start, plan_key=plan_key, interval=interval))

    async def change(self, plan_key: str, interval: Interval = MONTH) -> None:
        """Change the plan."""
        await self.order("changePlan", partial(decide_change, plan_key=plan_key, interval=interval))

    async def add(self, add_on_key: str, quantity: int) -> None:
        """Set an add-on."""
        await self.order("setAddOn", partial(decide_add_on, add_on_key=add_on_key, quantity=quantity))

    async def give_card(self, token: str = "pm_card_visa") -> None:  # noqa: S107  # a published test card
        """Add a card, and charge it from now on."""
        request = Request(None, "", None)
        await methods.add(self.till, self.principal, request, self.account_id, token, make_default=True)

    async def use(self, metric: str, *, quantity: int | None = None, level: int | None = None) -> None:
        """Use something now."""
        async with self.till.work() as work:
            event = UsageInput(
                event_id=str(new_id()), metric=metric, account_id=self.account_id, quantity=quantity, level=level
            )
            (result,) = await record_usage(work, self.principal, [event])
            assert result.status is EventStatus.ACCEPTED, result


async def _trial_ending(stage: Stage) -> None:
    """A trial without a payment method, 20 hours before its end."""
    await start_trial(stage.till, stage.principal, Request(None, "", None), stage.account_id, "professional", MONTH)
    await stage.use(EMAILS, quantity=4_200)
    await stage.advance(13.2)


async def _at_95_percent(stage: Stage) -> None:
    """Professional, at 95 % of its e-mails, with three alerts open."""
    await stage.give_card()
    await stage.start("professional")
    await stage.advance(12)
    await stage.use(EMAILS, quantity=47_500)


async def _overage(stage: Stage) -> None:
    """Starter with 23,000 e-mails over its limit: three blocks of overage so far."""
    await stage.give_card()
    await stage.start("starter")
    await stage.advance(20)
    await stage.use(EMAILS, quantity=33_000)


async def _annual_mid_term(stage: Stage) -> None:
    """Business by the year, seven months in, with seats added."""
    await stage.give_card()
    await stage.start("business", YEAR)
    await stage.advance(40)
    await stage.add(SEATS, 3)
    await stage.advance(175)
    await stage.use(EMAILS, quantity=61_000)


async def _downgrade_scheduled(stage: Stage) -> None:
    """Professional that becomes Starter at the end of the month."""
    await stage.give_card()
    await stage.start("professional")
    await stage.advance(35)
    await stage.change("starter")


async def _cancel_scheduled(stage: Stage) -> None:
    """Starter that was cancelled and ends with the month."""
    await stage.give_card()
    await stage.start("starter")
    await stage.advance(10)
    await cancel_at_period_end(stage.till, stage.principal, Request(None, "", None), stage.account_id, "moving on")


async def _canceled(stage: Stage) -> None:
    """Professional that was cancelled at once with its rest given back: a credit balance in hand."""
    await stage.give_card()
    await stage.start("professional")
    await stage.advance(40)
    await cancel_now(
        stage.till, stage.principal, Request(None, "", None), stage.account_id, prorated=True, reason="by agreement"
    )
    await stage.advance(1)


async def _past_due(stage: Stage) -> None:
    """Starter whose last charge was declined two days ago."""
    await stage.give_card()
    await stage.start("starter")
    await stage.advance(20)
    await stage.give_card("pm_card_chargeCustomerFail")
    await stage.advance(13)


async def _payment_pending(stage: Stage) -> None:
    """An upgrade that waits for the cardholder to confirm its payment."""
    await stage.give_card()
    await stage.start("starter")
    await stage.advance(10)
    await stage.give_card("pm_card_authenticationRequired")
    await stage.change("professional")


async def _new(stage: Stage) -> None:
    """An account that has only just been made."""


@dataclass(frozen=True)
class Scenario:
    """A state to be in, the days that it takes to come there, and what it needs of the catalogue."""

    play: Callable[[Stage], Awaitable[None]]
    days: float = 0
    plans: tuple[str, ...] = ()
    interval: Interval = MONTH
    metric: str | None = None
    add_on: str | None = None

    @property
    def meaning(self) -> str:
        """What it makes, in a sentence."""
        return (self.play.__doc__ or "").strip()


SCENARIOS = {
    "new": Scenario(_new),
    "trial-ending": Scenario(_trial_ending, 13.2, ("professional",), metric=EMAILS),
    "at-95-percent": Scenario(_at_95_percent, 12, ("professional",), metric=EMAILS),
    "overage": Scenario(_overage, 20, ("starter",), metric=EMAILS),
    "annual-mid-term": Scenario(_annual_mid_term, 215, ("business",), YEAR, metric=EMAILS, add_on=SEATS),
    "downgrade-scheduled": Scenario(_downgrade_scheduled, 35, ("professional", "starter")),
    "cancel-scheduled": Scenario(_cancel_scheduled, 10, ("starter",)),
    "canceled": Scenario(_canceled, 41, ("professional",)),
    "past-due": Scenario(_past_due, 33, ("starter",)),
    "payment-pending": Scenario(_payment_pending, 10, ("starter", "professional")),
}


async def create_scenario(till: Till, principal: Principal, name: str, now: datetime) -> BillingAccount:
    """Make an account in a named state, on a test clock of its own that comes to stand at `now`.

    Where the catalogue has not what it takes, nothing is made.
    """
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise InvalidInput(f"There is no such scenario: known are {', '.join(SCENARIOS)}.", ["input", "name"])
    mark = f"{name}-{str(new_id())[-8:]}"
    async with till.work() as work:
        clock = await create_clock(work, f"Scenario {name}", now - timedelta(days=scenario.days))
        await work.session.flush()
        account = await create_account(
            work,
            mark,
            {"name": f"Scenario {name}", "currency": "USD", "timezone": "UTC", "locale": "en-US"},
            test_clock_id=clock.id,
        )
        await update_company(
            work,
            account.id,
            {
                "legal_name": "Scenario Inc",
                "country": "US",
                "address_lines": ["1 Main Street"],
                "city": "New York",
                "region": "NY",
                "postal_code": "10001",
            },
        )
        await _check_catalogue(ReadSession(work.session), account, scenario)
    stage = Stage(till, principal, account.id, clock.id)
    await scenario.play(stage)
    return account


async def _check_catalogue(session: ReadSession, account: BillingAccount, scenario: Scenario) -> None:
    """Refuse what the catalogue cannot play, and say all that is missing."""
    missing: list[str] = []
    for key in scenario.plans:
        try:
            await find_offer(session, account, key, scenario.interval)
        except BillingError:
            missing.append(f"plan {key} with a price in {account.currency} per {scenario.interval.lower()}")
    if scenario.metric is not None and None in await load_metrics(session, [scenario.metric]):
        missing.append(f"metric {scenario.metric}")
    if scenario.add_on is not None:
        try:
            await find_add_on(session, account, scenario.plans[0], scenario.add_on)
        except BillingError:
            missing.append(f"add-on {scenario.add_on} with {scenario.plans[0]} and a price in {account.currency}")
    if missing:
        told = "; ".join(missing)
        raise Conflict(f"This catalogue lacks what the scenario lives on: {told}.", ["input", "name"])
