"""What the services need of the outside."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..models import FailureCode, PaymentMethodKind
from .access import Principal
from .letters import Letter
from .papers import Content


class Listener(Protocol):
    """One reader's ear on the bus."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next wake-up; False when none came in time. Wake-ups in between count as one."""
        ...

    def ring(self) -> None:
        """Wake this one reader."""
        ...


class Bus(Protocol):
    """Wakes readers. It carries no data: rows are the truth, so a lost wake-up costs seconds only."""

    @property
    def look_again_s(self) -> float:
        """How long a reader trusts it: then it looks again, woken or not."""
        ...

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
    customer: str
    """Who pays, as the processor knows the account."""
    token: str
    """The payment method, as the processor knows it."""
    on_session: bool
    """Whether the cardholder is there to confirm the payment."""
    description: str


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
class RefundOrder:
    """What a processor is asked to pay back of a charge. The same key is the same refund."""

    key: str
    charge_id: str
    """The processor's id of the charge."""
    amount_minor: int
    currency: str


class RefundOutcome(StrEnum):
    """What became of a refund. One that is pending is with the bank: it succeeds or fails in days."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class RefundResult:
    """What a processor answers of a refund. One that it refuses has no id."""

    status: RefundOutcome
    processor_id: str | None
    charge_id: str
    """The processor's id of the charge."""
    amount_minor: int
    currency: str
    charge_key: str | None = None
    """Of a refund that was not asked for here: the key that its charge was asked for with, where it has one."""


class DisputeStatus(StrEnum):
    """Where a dispute stands: while it is open, and when it is lost, the bank has the money."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


@dataclass(frozen=True, kw_only=True)
class DisputeFacts:
    """What a processor tells of a dispute."""

    processor_id: str
    charge_id: str
    """The processor's id of the charge."""
    status: DisputeStatus
    amount_minor: int
    currency: str
    charge_key: str | None = None
    """The key that the charge was asked for with, where it has one."""


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """What may be shown of a payment method, and the token that it is charged by."""

    token: str
    kind: PaymentMethodKind
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a frontend needs to let a cardholder enter a card at the processor."""

    client_secret: str
    publishable_key: str | None
    """What the processor's own script is started with; none in the sandbox, which has no script."""


class EventKind(StrEnum):
    """What a processor's message is about."""

    CHARGE = "CHARGE"
    REFUND = "REFUND"
    DISPUTE = "DISPUTE"
    METHOD = "METHOD"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message of the processor that was proved to be its own. What it tells is read from the processor anew."""

    id: str
    kind: EventKind
    subject: str
    """The processor's id of the charge, refund, dispute or payment method."""
    key: str | None = None
    """Of a charge or refund: the key that it was asked for with, where the message has it."""


class ProcessorFailed(Exception):
    """The processor did not answer, or not in a way that tells what became of a call."""


class CardRefused(Exception):
    """A cardholder's bank refuses a card, before anything is charged."""

    def __init__(self, failure: FailureCode) -> None:
        super().__init__(failure)
        self.failure = failure


class Processor(Protocol):
    """Who collects money. Each call may raise `ProcessorFailed`: then nothing is known."""

    async def open_customer(self, key: str, name: str) -> str:
        """The processor's id of an account, which `key` names; made by the first call."""
        ...

    async def open_setup(self, customer: str) -> Setup:
        """Let the cardholder enter a card, to be charged later without them."""
        ...

    async def attach_method(self, customer: str, token: str) -> MethodFacts | None:
        """Bind a payment method to a customer; none for a token that it does not know, or another customer's.

        Raises `CardRefused` where its bank wants nothing of it.
        """
        ...

    async def read_method(self, token: str) -> MethodFacts | None:
        """A payment method by the token that it is charged by; none for one that it does not know."""
        ...

    async def detach_method(self, token: str) -> None:
        """Forget a payment method: it is never charged again."""
        ...

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Collect an amount, or say what became of the charge with this key."""
        ...

    async def find(self, order: ChargeOrder) -> ChargeResult | None:
        """What became of an order; none where no such charge was ever asked for. Asks for nothing."""
        ...

    async def look_up(self, processor_id: str) -> ChargeResult | None:
        """What became of a charge by now; none where the processor does not know it."""
        ...

    async def cancel(self, processor_id: str) -> ChargeResult:
        """Give up a charge that waits for the cardholder; one that succeeded stays so."""
        ...

    async def refund(self, order: RefundOrder) -> RefundResult:
        """Pay back a part of a charge, or say what became of the refund with this key."""
        ...

    async def find_refund(self, order: RefundOrder) -> RefundResult | None:
        """What became of an order of a refund; none where it was never asked for. Asks for nothing."""
        ...

    async def look_up_refund(self, processor_id: str) -> RefundResult | None:
        """What became of a refund by now; none where the processor does not know it."""
        ...

    async def look_up_dispute(self, processor_id: str) -> DisputeFacts | None:
        """How a dispute stands by now; none where the processor does not know it."""
        ...


class DrawingFailed(Exception):
    """A document could not be drawn or read; the next one can."""


class Draughtsman(Protocol):
    """Who draws documents, outside of this process. Each call may raise `DrawingFailed`."""

    async def draw(self, content: Content) -> bytes:
        """The PDF of a document."""
        ...

    async def read_xml(self, pdf: bytes) -> bytes:
        """The XML inside a document that carries one."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a receiver of webhooks answered: the beginning of it."""

    status_code: int
    beginning: bytes
    retry_after: str | None = None
    """When it wants to be asked again, as it says."""


class SendingFailed(Exception):
    """A receiver of webhooks was not reached, or did not answer in time. The text says which, for its owner."""


class Courier(Protocol):
    """Who carries webhooks to the outside, and nowhere else."""

    async def refuse(self, url: str) -> str | None:
        """Why nothing is carried to a URL, as its name stands now; none where it leads outside, or nowhere yet."""
        ...

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Carry a message there, and bring the answer. Raises `SendingFailed`."""
        ...


class PayloadQueries(Protocol):
    """Who answers the GraphQL queries that webhook endpoints have instead of a payload."""

    def refuse(self, query: str) -> str | None:
        """Why a document cannot be one; none where it can."""
        ...

    async def answer(self, query: str, principal: Principal, variables: Mapping[str, str]) -> dict[str, Any]:
        """What it comes to for an event, with that caller's rights: `data`, and `errors` where there are some."""
        ...


@dataclass(frozen=True)
class Hooks:
    """What webhooks need of the outside."""

    courier: Courier
    queries: PayloadQueries
    allow_inside: bool = False
    """Whether they may lead inside: for tries on one machine, in a sandbox."""


class MailDeferred(Exception):
    """A mail could not be handed over now; later it may. Its text says why."""


class MailRefused(Exception):
    """A mail will not be taken, however often it is tried. Its text says why."""


class Mailer(Protocol):
    """Who hands mails over. One that is handed over twice is recognised by its id."""

    async def send(self, letter: Letter) -> None:
        """Hand a mail over. Raises `MailDeferred`, or `MailRefused` where trying again is in vain."""
        ...
