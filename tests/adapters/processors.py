"""The processors that the contract is tried on, each with what makes its cards, cardholders and moods."""

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest

from plafond.adapters.sandbox_processor import SandboxProcessor, close_disputes, set_conduct, take_messages
from plafond.adapters.stripe_messages import StripeMessages
from plafond.adapters.stripe_processor import StripeProcessor
from plafond.database import Actor, Database
from plafond.models import SandboxAnswers, SandboxMessages
from plafond.services.ports import ChargeResult, Message, Processor

from ..conftest import NOW
from .stripe_fake import SECRET_KEY, WEBHOOK_SECRET, FakeStripe, Fault

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = Actor(name="test", origin="test")
BRIEF_S = 0.75
"""How long a processor that hangs is waited for."""


class Stage(ABC):
    """A processor, and the world around it."""

    processor: Processor
    lacks: frozenset[str] = frozenset()
    """What it cannot show."""

    def can(self, what: str) -> bool:
        """Whether it can show something."""
        return what not in self.lacks

    def need(self, what: str) -> None:
        """Leave a case that cannot be shown here."""
        if not self.can(what):
            pytest.skip(f"{type(self).__name__}: {what}")

    async def card(self, token: str) -> str:
        """A token that can be attached, of a published test card."""
        return token

    @abstractmethod
    async def confirm(self, charge: ChargeResult) -> None:
        """The cardholder does what their bank wants."""


class DirectedStage(Stage):
    """One whose processor fails, sends messages and has disputes as it is told to."""

    @abstractmethod
    async def hang(self, customer: str) -> Processor:
        """Let the next call hang, and give who waits for it for a short while only."""

    @abstractmethod
    async def lose_answer(self, customer: str) -> None:
        """Let the next answer be lost after the effect."""

    @abstractmethod
    async def change_amount(self, customer: str) -> None:
        """Let the next answer name another amount."""

    @abstractmethod
    async def behave(self, customer: str) -> None:
        """Be as always again."""

    @abstractmethod
    async def messages(self) -> list[Message]:
        """All that was sent."""

    @abstractmethod
    async def close_disputes(self, customer: str, *, won: bool) -> None:
        """The bank decides."""


class SandboxStage(DirectedStage):
    """The embedded processor."""

    lacks = frozenset({"methods belong to a customer"})

    def __init__(self, database: Database) -> None:
        self.database = database
        self.processor = SandboxProcessor(database, hangs_for_s=0)

    async def confirm(self, charge: ChargeResult) -> None:
        """Asking after it is the confirmation."""

    async def hang(self, customer: str) -> Processor:
        await self._behave(customer, SandboxAnswers.HANGS)
        return self.processor

    async def lose_answer(self, customer: str) -> None:
        await self._behave(customer, SandboxAnswers.LOST_AFTER_EFFECT)

    async def change_amount(self, customer: str) -> None:
        await self._behave(customer, SandboxAnswers.OTHER_AMOUNT)

    async def behave(self, customer: str) -> None:
        await self._behave(customer, SandboxAnswers.NORMAL)

    async def messages(self) -> list[Message]:
        return await take_messages(self.database, 100)

    async def close_disputes(self, customer: str, *, won: bool) -> None:
        async with self.database.work(OPERATOR) as work:
            await close_disputes(work, customer, won=won)

    async def _behave(self, customer: str, answers: SandboxAnswers) -> None:
        async with self.database.work(OPERATOR) as work:
            await set_conduct(work, customer, answers, SandboxMessages.ONCE)


class FakeStage(DirectedStage):
    """The Stripe adapter, against our own fake."""

    def __init__(self, fake: FakeStripe) -> None:
        self.fake = fake
        self.stripe = self.processor = StripeProcessor(SECRET_KEY, base_url=fake.url, publishable_key="pk_test_x")
        self.brief = StripeProcessor(SECRET_KEY, base_url=fake.url, timeout_s=BRIEF_S)

    async def close(self) -> None:
        await self.stripe.close()
        await self.brief.close()

    async def confirm(self, charge: ChargeResult) -> None:
        self.fake.authenticate(charge.processor_id)

    async def hang(self, customer: str) -> Processor:  # noqa: ARG002
        await self.fake.until_quiet()
        self.fake.fail_next(Fault.HANGS)
        return self.brief

    async def lose_answer(self, customer: str) -> None:  # noqa: ARG002
        self.fake.fail_next(Fault.CUT)

    async def change_amount(self, customer: str) -> None:  # noqa: ARG002
        self.fake.fail_next(Fault.OTHER_AMOUNT)

    async def behave(self, customer: str) -> None:  # noqa: ARG002
        # What goes wrong here goes wrong once.
        await self.fake.until_quiet()

    async def messages(self) -> list[Message]:
        reader = StripeMessages([WEBHOOK_SECRET], is_live=False)
        read = [reader.read(body, header, NOW) for body, header in self.fake.deliveries(NOW)]
        return [message for message in read if message is not None]

    async def close_disputes(self, customer: str, *, won: bool) -> None:  # noqa: ARG002
        self.fake.close_disputes("won" if won else "lost")


class LocalstripeStage(Stage):
    """The Stripe adapter, against localstripe, which always answers."""

    lacks = frozenset(
        {
            "keys are kept",  # it charges the same key twice
            "refunds have a limit",  # more than was paid goes back
            "refunds may wait or fail",
            "cards differ",  # one card attaches and is declined, by a code without a reason
            "methods belong to a customer",  # attaching takes them away
            "amounts have a minimum",
        }
    )
    NUMBERS: ClassVar = {"pm_card_authenticationRequired": "4000002760003184"}

    def __init__(self, url: str) -> None:
        self.url = url
        self.stripe = self.processor = StripeProcessor("sk_test_localstripe", base_url=url, publishable_key="pk_x")

    async def close(self) -> None:
        await self.stripe.close()

    async def card(self, token: str) -> str:
        number = self.NUMBERS.get(token)
        if number is None:
            return token
        card = {"type": "card", "card": {"number": number, "exp_month": 12, "exp_year": 2030, "cvc": "123"}}
        found = await self._post("/v1/payment_methods", card)
        return str(found["id"])

    async def confirm(self, charge: ChargeResult) -> None:
        await self._post(
            f"/v1/payment_intents/{charge.processor_id}/_authenticate",
            {"client_secret": charge.client_secret, "success": True},
        )

    async def forget_all(self) -> None:
        """Begin afresh, at the same address."""
        async with httpx2.AsyncClient(base_url=self.url) as http:
            assert (await http.delete("/_config/data")).status_code == 200

    async def _post(self, path: str, body: object) -> dict[str, object]:
        async with httpx2.AsyncClient(base_url=self.url, headers={"Authorization": "Bearer sk_test_x"}) as http:
            response = await http.post(path, json=body)
            assert response.status_code == 200, response.text
            found: dict[str, object] = response.json()
            return found


@contextmanager
def serve_localstripe() -> Iterator[str]:
    """localstripe in a process of its own, whose environment is made the first time."""
    script = ROOT / "scripts" / "localstripe"
    made = subprocess.run([script, "setup"], capture_output=True, text=True, timeout=300, check=False)
    if made.returncode:
        reason = f"localstripe could not be installed: {made.stderr[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with subprocess.Popen([script, "serve"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "localstripe did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
