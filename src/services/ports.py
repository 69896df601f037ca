"""What the services need of the outside."""

from contextlib import AbstractContextManager
from typing import Any, Protocol


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
