"""What the services need of the outside."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..models import FailureCode, PaymentMethodKind
from .papers import Paper


class Listener(Protocol):
    """One reader's ear on the bus."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next wake-up; False when none came in time. Wake-ups in between count as one."""
        ...


class Bus(Protocol):
    """Wakes readers. It carries no data: rows are the truth, so a lost wake-up costs seconds only."""

    def publish(self, topic: str) -> None:
        """Wake all who listen to a topic."""
        ...

    def listen(self, *topics: str) -> AbstractContextManager[Listener]:
        """Listen to topics until the block ends."""
        ...


class SigningKeys(Protocol):
    """The public keys of the issuer of JWTs."""

    async def find(self, kid: str | None, algorithm: str) -> Any | None:
        """The key with that id that fits the algorithm; none where the issuer has none."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChargeOrder:
    """What a processor is asked to collect. The same key is the same charge, however often it is asked."""

    key: str
    amount_minor: int
    currency: str
    token: str
    """The payment method, as the processor knows it."""
    on_session: bool
    """Whether the cardholder is there to confirm the payment."""


class ChargeStatus(StrEnum):
    """What became of a charge."""

    SUCCEEDED = "SUCCEEDED"
    DECLINED = "DECLINED"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    CANCELED = "CANCELED"


@dataclass(frozen=True, kw_only=True)
class ChargeResult:
    """What a processor answers of a charge."""

    status: ChargeStatus
    processor_id: str
    amount_minor: int
    currency: str
    failure: FailureCode | None = None
    client_secret: str | None = None
    url: str | None = None
    """A page where the cardholder confirms the payment."""


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """What may be shown of a payment method."""

    kind: PaymentMethodKind
    brand: str
    last4: str
    exp_month: int
    exp_year: int


class ProcessorFailed(Exception):
    """The processor did not answer, or not in a way that tells what became of a charge."""


class Processor(Protocol):
    """Who collects money. Each call may raise `ProcessorFailed`: then nothing is known."""

    async def read_method(self, token: str) -> MethodFacts | None:
        """A payment method by its token; none for a token it does not know."""
        ...

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Collect an amount, or say what became of the charge with this key."""
        ...

    async def find(self, key: str) -> ChargeResult | None:
        """What became of the charge with a key; none where no such charge was ever asked for."""
        ...

    async def look_up(self, processor_id: str) -> ChargeResult:
        """What became of a charge by now."""
        ...

    async def cancel(self, processor_id: str) -> ChargeResult:
        """Give up a charge that waits for the cardholder; one that succeeded stays so."""
        ...


class DrawingFailed(Exception):
    """A document could not be drawn or read; the next one can."""


class Draughtsman(Protocol):
    """Who draws documents, outside of this process. Each call may raise `DrawingFailed`."""

    async def draw(self, paper: Paper) -> bytes:
        """The PDF of a document."""
        ...

    async def read_xml(self, pdf: bytes) -> bytes:
        """The XML inside a document that carries one."""
        ...
